"""What an adjoint is: a way to run the time loop so that gradients come back through it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ctrnn._march import Noise, Source
from ctrnn._types import State
from ctrnn.solvers.base import Solver, Step
from ctrnn.steps import Adaptive, Fixed, Grid


class Problem(NamedTuple):
    """A run ready to go: everything that the time loop needs, and nothing that it does not."""

    step: Step
    grid: Grid
    x0: State
    source: Source
    noise: Noise | None = None
    progress: Callable[[float], None] | None = None


@dataclass(frozen=True)
class Adjoint:
    """How a run is differentiated."""

    def solver(self, solver: Solver, steps: Fixed | Adaptive) -> Solver:
        """The solver that makes the steps: the one that was asked for, unless the adjoint is bound to others."""
        del steps
        return solver

    def run(self, problem: Problem) -> State:
        """What the problem's grid saves, as `march` returns it, differentiable."""
        raise NotImplementedError
