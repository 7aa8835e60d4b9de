"""How a run is differentiated."""

from ctrnn.adjoints.backprop import Backprop as Backprop
from ctrnn.adjoints.base import Adjoint as Adjoint
from ctrnn.adjoints.base import Problem as Problem
