"""How one step is made."""

from ctrnn.solvers.base import EmbeddedSolver as EmbeddedSolver
from ctrnn.solvers.base import Solver as Solver
from ctrnn.solvers.base import Step as Step
from ctrnn.solvers.explicit import RK4 as RK4
from ctrnn.solvers.explicit import Bosh3 as Bosh3
from ctrnn.solvers.explicit import Dopri5 as Dopri5
from ctrnn.solvers.explicit import Heun as Heun
from ctrnn.solvers.explicit import Midpoint as Midpoint
from ctrnn.solvers.explicit import Tsit5 as Tsit5
from ctrnn.solvers.implicit import Rodas4 as Rodas4
from ctrnn.solvers.relaxation import ETD2RK as ETD2RK
from ctrnn.solvers.relaxation import Euler as Euler
from ctrnn.solvers.relaxation import ExponentialEuler as ExponentialEuler
from ctrnn.solvers.relaxation import Iterate as Iterate
from ctrnn.solvers.semi_implicit import SemiImplicitEuler as SemiImplicitEuler
from ctrnn.solvers.torchdiffeq import TorchDiffEq as TorchDiffEq
