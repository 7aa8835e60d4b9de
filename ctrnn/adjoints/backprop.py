"""Backpropagation through the time loop."""

from dataclasses import dataclass

from ctrnn._march import march
from ctrnn._types import State
from ctrnn.adjoints._chunks import in_chunks
from ctrnn.adjoints.base import Adjoint, Problem
from ctrnn.solvers.base import Solver
from ctrnn.steps import Adaptive, Fixed


@dataclass(frozen=True)
class Backprop(Adjoint):
    """Reverse-mode through every step (BPTT; Werbos 1990): exact, fastest, memory in proportion to the steps.

    Forward mode works through it as well.

    Args:
        compile: whether torch.compile makes one graph of each `chunk` of steps, for long training of models that no
            kernel covers, such as your own. The first run of each shape, length of step and gradient mode takes from
            seconds to minutes more; values and gradients agree with the plain ones to rounding. For fixed steps that
            all samples share, and first derivatives in reverse mode.
        chunk: steps in a graph. More are faster and take longer to compile: 20 suit steps of a few operations, 1 to 4
            those of a few hundred, such as a DNC's. Steps that fill no chunk are run as they are: take a divisor of
            their number.

    Raises:
        ValueError: `chunk` is below 1, or the steps cannot be compiled: adaptive ones, those of samples with lengths or
            edges of their own, those under a `Function` drive, those inside a transform of torch.func, or those whose
            times a gradient reaches.
        RuntimeError: torch.compile fails, as it does without a C++ compiler.
    """

    compile: bool = False
    chunk: int = 20

    def __post_init__(self) -> None:
        if isinstance(self.chunk, bool) or not isinstance(self.chunk, int) or self.chunk < 1:
            raise ValueError(f"Backprop: chunk counts steps and must be at least 1, got {self.chunk!r}.")

    def solver(self, solver: Solver, steps: Fixed | Adaptive) -> Solver:
        if self.compile and isinstance(steps, Adaptive):
            raise ValueError(
                f"{self} compiles fixed steps, and adaptive ones differ: use steps=Fixed(dt) or Backprop()."
            )
        return solver

    def run(self, problem: Problem) -> State:
        if self.compile:
            return in_chunks(problem, self.chunk)[1]
        return march(problem.step, problem.grid, problem.x0, problem.source, problem.noise, problem.progress)[1]
