"""How a run is differentiated."""

from ctrnn.adjoints.backprop import Backprop as Backprop
from ctrnn.adjoints.backsolve import Backsolve as Backsolve
from ctrnn.adjoints.backsolve import BacksolveWarning as BacksolveWarning
from ctrnn.adjoints.base import Adjoint as Adjoint
from ctrnn.adjoints.base import Problem as Problem
from ctrnn.adjoints.forward import Forward as Forward
from ctrnn.adjoints.recompute import Recompute as Recompute
from ctrnn.adjoints.truncated import Truncated as Truncated
