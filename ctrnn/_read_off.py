"""The saves of an adaptive run without gradients, from the states that its search went through."""

from collections.abc import Callable

import torch
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._march import march, together
from ctrnn._types import State
from ctrnn.adjoints.base import Problem
from ctrnn.steps import Grid, Saved


def read_off(problem: Problem, states: State) -> State:
    """What the grid saves, from the states (step + 1, row, *event) that a search kept."""
    grid, saved = problem.grid, [problem.x0] if problem.grid.initial else []
    assert grid.order is not None
    assert grid.live is not None
    wanted = [(k, item) for k, items in enumerate(grid.saved) for item in items]
    dense = iter(_between(problem, states, [(k, item) for k, item in wanted if item.theta is not None]))
    for k, item in wanted:
        sample = grid.order[: grid.live[k]] if item.rows is None else grid.order[item.rows]
        at_end = tree.map(lambda leaf, k=k, sample=sample: leaf[k + 1].index_select(0, sample), states)
        saved.append(at_end if item.theta is None else next(dense))
    return together(saved, problem.x0, rows=True)


def _between(problem: Problem, states: State, wanted: list[tuple[int, Saved]]) -> list[State]:
    """Dense output of steps (number, rows): all are repeated from their starts as one step of many rows."""
    grid, source = problem.grid, problem.source
    if not wanted:
        return []
    assert grid.order is not None
    which = [(k, item.rows) for k, item in wanted if item.rows is not None]
    sizes, samples = [len(rows) for _, rows in which], [grid.order[rows] for _, rows in which]
    sample, start = torch.cat(samples), torch.cat([torch.full_like(rows, k) for k, rows in which])
    columns = (grid.t, grid.dt, grid.interval, grid.begin, grid.width)
    t, dt, interval, begin, width = ([torch.cat([column[k][rows] for k, rows in which])] for column in columns)
    every = torch.arange(len(sample), device=sample.device)
    theta = torch.cat([item.theta for _, item in wanted if item.theta is not None])
    order = sample
    if source.function is not None:
        order, function = every, _of_samples(source.function, len(grid.order), samples)
        source = source._replace(function=function)
    one = Grid(t, dt, interval, begin, width, [len(sample)], order, False, [(Saved(every, theta),)])
    x = tree.map(lambda leaf: leaf[start, sample], states)
    silence = source.silence.index_select(0, sample)
    found = march(problem.step, one, x, source._replace(silence=silence))[1]
    parts = zip(*(leaf.split(sizes) for leaf in tree.leaves(found)), strict=True)
    return [tree.unflatten(found, part) for part in parts]


def _of_samples(fn: Callable[[Tensor], Tensor], count: int, samples: list[Tensor]) -> Callable[[Tensor], Tensor]:
    """A drive's function, of the times of a flat batch, as one of times (row, 1) that belong to the given samples."""

    def values(t: Tensor) -> Tensor:
        parts = zip(t.split([len(sample) for sample in samples]), samples, strict=True)
        return torch.cat(
            [fn(now[:1].expand(count, 1).index_copy(0, who, now)).index_select(0, who) for now, who in parts]
        )

    return values
