"""What a network does, and why: linearisation, fixed points, Lyapunov exponents, equilibria, cycles, memory."""

from ctrnn.analysis._arclength import ContinuationError as ContinuationError
from ctrnn.analysis._arclength import Stride as Stride
from ctrnn.analysis.automata import extract_automaton as extract_automaton
from ctrnn.analysis.continuation import Branch as Branch
from ctrnn.analysis.continuation import BranchPoint as BranchPoint
from ctrnn.analysis.continuation import Fold as Fold
from ctrnn.analysis.continuation import Hopf as Hopf
from ctrnn.analysis.continuation import continue_equilibria as continue_equilibria
from ctrnn.analysis.cycles import CycleBranch as CycleBranch
from ctrnn.analysis.cycles import CycleFold as CycleFold
from ctrnn.analysis.cycles import Orbit as Orbit
from ctrnn.analysis.cycles import PeriodDoubling as PeriodDoubling
from ctrnn.analysis.cycles import Torus as Torus
from ctrnn.analysis.cycles import continue_cycles as continue_cycles
from ctrnn.analysis.cycles import simulated_orbit as simulated_orbit
from ctrnn.analysis.fixed_points import FixedPoints as FixedPoints
from ctrnn.analysis.fixed_points import fixed_points as fixed_points
from ctrnn.analysis.linearise import jacobian as jacobian
from ctrnn.analysis.lyapunov import LyapunovSpectrum as LyapunovSpectrum
from ctrnn.analysis.lyapunov import lyapunov_spectrum as lyapunov_spectrum
from ctrnn.analysis.memory import Memory as Memory
from ctrnn.analysis.memory import linear_memory as linear_memory
from ctrnn.analysis.memory import memory_capacity as memory_capacity
from ctrnn.analysis.retrieval import critical_load as critical_load
from ctrnn.analysis.retrieval import one_step_error as one_step_error
from ctrnn.analysis.retrieval import retrieval_overlap as retrieval_overlap
