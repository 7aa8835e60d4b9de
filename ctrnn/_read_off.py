"""The saves of an adaptive run without gradients, from the states that its search went through."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._march import march, together
from ctrnn._types import State
from ctrnn.adjoints.base import Problem
from ctrnn.steps import Grid, Saved


class _Wanted(NamedTuple):
    """States to be saved, one after another in the order of the grid."""

    step: Tensor
    row: Tensor
    theta: Tensor  # fraction of the step; NaN: its end


def read_off(problem: Problem, states: State) -> State:
    """What the grid saves, from the states (step + 1, row, *event) that a search kept."""
    grid, start = problem.grid, [problem.x0] if problem.grid.initial else []
    assert grid.order is not None
    wanted = _wanted(grid, grid.order)
    if wanted is None:
        return together(start, problem.x0, rows=True)
    after, sample = wanted.step + 1, grid.order[wanted.row]
    saved = tree.map(lambda leaf: leaf[after, sample], states)
    inside = (~wanted.theta.isnan()).nonzero()[:, 0]
    if len(inside):
        found = _between(problem, states, _Wanted(*[column[inside] for column in wanted]))
        saved = tree.map(lambda leaf, new: leaf.index_copy(0, inside, new), saved, found)
    return together([*start, saved], problem.x0, rows=True)


def _wanted(grid: Grid, order: Tensor) -> _Wanted | None:
    assert grid.live is not None
    whole, each = torch.arange(len(order), device=order.device), []
    for k, items in enumerate(grid.saved):
        for rows, theta in items:
            row = whole[: grid.live[k]] if rows is None else rows
            at_end = torch.full((len(row),), torch.nan, dtype=torch.float64, device=row.device)
            each.append(_Wanted(torch.full_like(row, k), row, at_end if theta is None else theta[:, 0]))
    return _Wanted(*map(torch.cat, zip(*each, strict=True))) if each else None


def _between(problem: Problem, states: State, wanted: _Wanted) -> State:
    """Dense output of the wanted steps: all are repeated from their starts as one step of many rows."""
    grid, source = problem.grid, problem.source
    assert grid.order is not None
    assert grid.live is not None
    size = len(grid.order)
    step_row, which = torch.unique(wanted.step * size + wanted.row, return_inverse=True)
    step, sample = step_row // size, grid.order[step_row % size]
    live = torch.tensor(grid.live, device=step.device)
    at = (live.cumsum(0) - live)[step] + step_row % size
    columns = (grid.t, grid.dt, grid.interval, grid.begin, grid.width)
    t, dt, interval, begin, width = ([torch.cat(list(column))[at]] for column in columns)
    order = sample
    if source.function is not None:
        order = torch.arange(len(sample), device=sample.device)
        groups = sample.split(torch.unique_consecutive(step, return_counts=True)[1].tolist())
        source = source._replace(function=_of_samples(source.function, size, groups))
    saved = (Saved(which, wanted.theta[:, None]),)
    one = Grid(t, dt, interval, begin, width, [len(sample)], order, False, [saved])
    x = tree.map(lambda leaf: leaf[step, sample], states)
    silence = source.silence.index_select(0, sample)
    return march(problem.step, one, x, source._replace(silence=silence))[1]


def _of_samples(fn: Callable[[Tensor], Tensor], count: int, samples: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """A drive's function, of the times of a flat batch, as one of times (row, 1) that belong to the given samples."""

    def values(t: Tensor) -> Tensor:
        parts = zip(t.split([len(sample) for sample in samples]), samples, strict=True)
        return torch.cat(
            [fn(now[:1].expand(count, 1).index_copy(0, who, now)).index_select(0, who) for now, who in parts]
        )

    return values
