"""Backpropagation through the time loop."""

from dataclasses import dataclass

from ctrnn._march import march
from ctrnn._types import State
from ctrnn.adjoints.base import Adjoint, Problem


@dataclass(frozen=True)
class Backprop(Adjoint):
    """Reverse-mode through every step (BPTT; Werbos 1990): exact, fastest, memory in proportion to the steps.

    Forward mode works through it as well.
    """

    def run(self, problem: Problem) -> State:
        return march(problem.step, problem.grid, problem.x0, problem.source, problem.noise, problem.progress)[1]
