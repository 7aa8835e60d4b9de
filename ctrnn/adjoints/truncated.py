"""Backpropagation that goes back a few steps only."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._columns import counted_from
from ctrnn._march import apart, march, together
from ctrnn._types import State
from ctrnn.adjoints._leaves import check_closed, taken_out
from ctrnn.adjoints.base import Adjoint, Problem
from ctrnn.solvers.base import Solver
from ctrnn.steps import Adaptive, Fixed, Grid, Saved


@dataclass(frozen=True)
class Truncated(Adjoint):
    """dL/dp = sum_k (dL/dx_k) (dx_k/dp through steps k - steps + 1 ... k only): truncated backpropagation through time.

    The error of every saved state goes back through the `steps` steps before it and no further (Williams & Peng 1990,
    BPTT(h)), wherever in the run it lies. `Truncated(1)` is how Elman (1990) trained: the error never passes the copy
    of the context. With as many steps as the run has, it is `Backprop` bit for bit.

    Steps are the solver's: `k` of them see the last k dt of time, so that at dt = tau they are samples, and at dt =
    tau / 10 ten times as many are needed for the same time. The run is made once without gradients, and each saved
    state is reached again from the state `steps` before it: it costs as many steps more as there are saved states times
    `steps`.

    Args:
        steps: through how many steps an error goes back; None is all of them, as `Backprop`.

    Raises:
        ValueError: `steps` is below 1, or the steps are adaptive, whose number means nothing; or the model, or a
            `Function` drive, cannot be run again (`Recompute` says when).
    """

    steps: int | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and not (isinstance(self.steps, int) and self.steps >= 1):
            raise ValueError(f"Truncated: steps must be at least 1, or None for all of them, got {self.steps!r}.")

    def solver(self, solver: Solver, steps: Fixed | Adaptive) -> Solver:
        if self.steps is not None and isinstance(steps, Adaptive):
            raise ValueError(
                f"{self} counts steps, and adaptive ones differ in length and from sample to sample: "
                "use steps=Fixed(dt), or adjoint=Recompute()."
            )
        return solver

    def run(self, problem: Problem) -> State:
        grid, reach = problem.grid, len(problem.grid.dt) if self.steps is None else self.steps
        if reach >= len(grid.dt) or not torch.is_grad_enabled():
            return march(problem.step, grid, problem.x0, problem.source, problem.noise, problem.progress)[1]
        check_closed(*taken_out(problem))
        states = self._states(problem)
        rows = [coefficient.unbind(0) for coefficient in problem.source.coefficients]
        saved = [_window(problem, rows, problem.x0, grid.part(0, reach), 0)]  # all that lies there sees the beginning
        for stop in range(reach + 1, len(grid.dt) + 1):
            wanted, start = grid.saved[stop - 1], stop - reach
            if wanted:
                part = grid.part(start, stop)._replace(saved=[()] * (reach - 1) + [wanted])
                saved.append(_window(problem, rows, states[start - 1], part, start))
        return together(saved, problem.x0, rows=True)

    @staticmethod
    def _states(problem: Problem) -> list[State]:
        """The state after every step, without gradients."""
        every = problem.grid._replace(initial=False, saved=[(Saved(),)] * len(problem.grid.dt))
        with torch.no_grad():
            states = march(problem.step, every, problem.x0, problem.source, problem.noise, problem.progress)[1]
        return apart(tree.map(Tensor.detach, states), every.sizes(), every.live is not None)


def _window(problem: Problem, rows: list[tuple[Tensor, ...]], x: State, grid: Grid, start: int) -> State:
    """What the part `grid` of the problem's grid, from step `start` on, saves when it begins in the state x."""
    source, noise = problem.source, problem.noise
    if rows:
        # Stacked from rows taken out once: slices of the whole drive would make the backward pass quadratic in time.
        first, last = grid.interval[0], grid.interval[-1] + 1
        grid = grid._replace(interval=counted_from(grid.interval, first))
        source = source._replace(coefficients=tuple(torch.stack(row[first:last]) for row in rows))
    if noise is not None:
        noise = noise._replace(offset=noise.offset + start)
    return march(problem.step, grid, x, source, noise)[1]
