"""Runs of lowered networks on fixed steps, handed to compiled kernels whole; what these do not cover stays plain."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.func import debug_unwrap

from ctrnn import _tree as tree
from ctrnn._columns import Column, Interval, Same
from ctrnn._derivative import forward_mode, moves
from ctrnn._kernels import LERPS, Layer, layers_of
from ctrnn._types import State
from ctrnn.dynamics import Relaxation
from ctrnn.lowered import GatedNetwork, RateNetwork
from ctrnn.native.gated import gated
from ctrnn.native.library import library
from ctrnn.native.lstm import lstm
from ctrnn.native.project import project
from ctrnn.native.rate import rate
from ctrnn.native.schedule import Schedule
from ctrnn.solvers.base import Solver, Step
from ctrnn.solvers.relaxation import Euler
from ctrnn.solvers.runge_kutta import RungeKutta, Tableau, follows_tableau
from ctrnn.steps import AT_ITS_END, Grid

REPORTS = 32  # of a run's progress: a kernel that has begun says nothing until its end
BUDGET = 2**22  # numbers of a layer's states where nobody asks for them but the layer above


def compiled(
    step: Step,
    grid: Grid,
    x: State,
    coefficients: Sequence[Tensor],
    kicks: Iterator[State] | None,
    progress: Callable[[float], None] | None,
) -> tuple[State, State] | None:
    """The state at the end of the grid and those saved, as `march` returns them; None where the plain loop must run."""
    whole = grid if grid.live is None else _of_all_rows(grid)
    if library() is None or whole is None or not _covered(step.solver, whole):
        return None
    layers = layers_of(step, x)
    if layers is None or (len(layers) > 1 and kicks is not None):  # a layer is heard before the noise reaches it
        return None
    if forward_mode() or (grid.live is not None and kicks is not None):
        return None
    count = _parts(layers, whole, x, coefficients) if progress is None else min(REPORTS, grid.steps)
    if count == 1:
        return _carried(layers, grid, x, coefficients, kicks)
    saves = []
    for k in range(count):
        part = grid.part(k * grid.steps // count, (k + 1) * grid.steps // count)
        x, more = _carried(layers, part, x, coefficients, kicks)
        saves.append(more)
        if progress is not None:
            progress((k + 1) / (count + 1))
    return x, tree.map(lambda *parts: torch.cat(parts), *saves)


def _covered(solver: Solver, grid: Grid) -> bool:
    return (type(solver) in LERPS or follows_tableau(solver)) and grid.steps > 0 and grid.regular


def _parts(layers: list[Layer], grid: Grid, x: State, coefficients: Sequence[Tensor]) -> int:
    """In how many parts a run goes: without a gradient what lower layers send need not be there whole."""
    if len(layers) == 1:
        return 1
    tensors = [*tree.leaves(x), *coefficients, *(v for layer in layers for v in tree.leaves(layer.network))]
    if 2 * grid.slots()[0] > grid.steps or (torch.is_grad_enabled() and any(map(moves, tensors))):
        return 1
    return min(grid.steps, max(1, max(leaf.numel() for leaf in tree.leaves(x)) * grid.steps // BUDGET))


def _of_all_rows(grid: Grid) -> Grid | None:
    """The grid as if all rows took all steps, if rows differ in nothing but how many they take."""
    dense = any(item.theta is not None for items in grid.saved for item in items)
    if dense or not grid.steps or isinstance(grid.interval[0], Tensor):
        return None
    saved = [AT_ITS_END if items else () for items in grid.saved]
    return grid._replace(live=None, order=None, initial=False, saved=saved)


def _through(
    layers: list[Layer],
    grid: Grid,
    x: State,
    coefficients: Sequence[Tensor],
    kicks: Iterator[State] | None,
    count: Tensor | None = None,
) -> tuple[State, State]:
    """Layer after layer through the whole grid: a lerp reads what the layer below is after the same step."""
    ends, saves, states = list[Tensor](), list[Tensor](), iter(tree.leaves(x))
    every, inside = _every_step(grid), grid
    for layer in layers:
        start = tree.map(lambda _: next(states), layer.like)
        if layer is layers[-1]:
            end, kept = _run(layer, inside, start, coefficients, kicks, count)
        else:
            end, xs = _run(layer, inside._replace(saved=every.saved), start, coefficients, kicks, count)
            kept = _saved(grid, xs)
            assert isinstance(layer.step.model, Relaxation)
            coefficients, inside = (layer.step.model.readout(xs),), every._replace(saved=grid.saved)
        ends += tree.leaves(end)
        if grid.initial:
            kept = tree.map(lambda first, rest: torch.cat([first[None], rest]), start, kept)
        saves += tree.leaves(kept)
    return tree.unflatten(x, ends), tree.unflatten(x, saves)


def _saved(grid: Grid, xs: State) -> State:
    """Of the states after every step those that the grid saves."""
    _, slot = grid.slots()
    return xs if slot is None else tree.map(lambda part: part[slot >= 0], xs)


def _carried(
    layers: list[Layer], grid: Grid, x: State, coefficients: Sequence[Tensor], kicks: Iterator[State] | None
) -> tuple[State, State]:
    """A state along the grid; rows of which the later ones end earlier go along the steps of the first."""
    if grid.live is None or grid.order is None:
        return _through(layers, grid, x, coefficients, kicks)
    whole = _of_all_rows(grid)
    assert whole is not None
    rows, live = grid.live[0], torch.tensor(grid.live)
    count = (torch.arange(rows) < live[:, None]).sum(0)
    last = torch.tensor(list(grid.interval))[count - 1]
    # What lies behind a sample's end may be anything: nothing of it must come near the weights, not even times 0.
    used = torch.arange(len(coefficients[0]))[:, None] <= last
    own = [torch.where(used[..., None], c.index_select(1, grid.order[:rows]), 0.0) for c in coefficients]
    end, xs = _through(layers, whole, tree.map(lambda leaf: leaf[:rows], x), own, None, count)
    kept = [items for items in zip(grid.saved, grid.live, strict=True) if items[0]]
    which = [
        slot * rows + (torch.arange(n) if item.rows is None else item.rows)
        for slot, (items, n) in enumerate(kept)
        for item in items
    ]
    place = torch.cat(which) if which else torch.arange(0)
    saves = tree.map(lambda leaf: leaf.flatten(0, 1).index_select(0, place), xs)
    if grid.initial:
        saves = tree.map(lambda first, rest: torch.cat([first, rest]), x, saves)
    return tree.map(lambda leaf: leaf[: grid.live[-1]], end), saves  # type: ignore[index]


def _every_step(grid: Grid) -> Grid:
    """The grid when each of its steps is an interval of the drive, and is saved."""
    at = range(grid.steps)
    column = lambda value: Column(Same(value), at)
    return grid._replace(
        interval=Column(Interval(1), at), begin=column(0.0), width=column(1.0), saved=column(AT_ITS_END)
    )


def _run(
    layer: Layer,
    grid: Grid,
    x: State,
    coefficients: Sequence[Tensor],
    kicks: Iterator[State] | None,
    count: Tensor | None,
) -> tuple[State, State]:
    """One network along the grid: the state at its end, and what it is at the ends of steps that the grid saves."""
    lengths, kind = grid.lengths()
    first, interval = grid.intervals() if coefficients else (0, None)
    last = first + (grid.steps if interval is None else int(interval[-1]) + 1)
    held = len(coefficients) < 2
    schedule = _schedule(layer.step.solver, grid, kind, interval, held, count)
    parts = [leaf.reshape(-1, leaf.shape[-1]) for leaf in tree.leaves(x)]
    pushed = None if kicks is None else _pushed(layer, lengths, kind, [*islice(kicks, grid.steps)], parts)
    rates = _rates(layer, lengths, parts)
    network, us = _driven(layer.network, [c[first:last] for c in coefficients], len(parts[0]), interval is not None)
    kick = None if pushed is None else pushed[0]
    if isinstance(network, RateNetwork):
        saves, ends = _alone(rate(network, schedule, parts[0], us, rates[0], kick))
    elif len(parts) > 1:
        saves, ends = lstm(network, schedule, parts, us, rates, pushed)
    else:
        saves, ends = _alone(gated(network, schedule, parts[0], us, rates[0], kick))
    shapes = [leaf.shape for leaf in tree.leaves(x)]
    end = tree.unflatten(x, [end.reshape(shape) for end, shape in zip(ends, shapes, strict=True)])
    return end, tree.unflatten(x, [xs.reshape(-1, *shape) for xs, shape in zip(saves, shapes, strict=True)])


def _driven(
    network: RateNetwork | GatedNetwork, coefficients: Sequence[Tensor], rows: int, again: bool
) -> tuple[Any, Tensor]:
    """A network and what drives it: W_in u + b itself where it is less work, or less to keep, to have it beforehand.

    So it is where samples share a drive, or steps an interval (`again`), or there are more inputs than units.
    """
    us = inputs(network, coefficients, rows)
    if network.W_in is None or not (us.shape[2] < rows or again or us.shape[-1] > len(network.W_rec)):
        return network, us
    if isinstance(network, RateNetwork):
        return network._replace(W_in=None, b=None), projected(network, us)
    b_rec = network.b_rec if network.kind == "gru" else None
    return network._replace(W_in=None, b_in=None, b_rec=b_rec), projected(network, us)


def _alone(found: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Saves and end of a state that has one part, as those of states with several."""
    return (found[0],), (found[1],)


def _schedule(
    solver: Solver, grid: Grid, kind: Tensor | None, interval: Tensor | None, held: bool, ends: Tensor | None
) -> Schedule:
    tableau = solver.tableau if isinstance(solver, RungeKutta) else None
    if tableau is not None and tableau.ends_in_slope:
        tableau = Tableau(tableau.a[:-1], tableau.a[-1])
    begin, width = None, None
    if not held:
        zeros = torch.zeros(grid.steps, dtype=torch.float64)
        begin, width = grid.fractions() or (zeros, zeros + 1)
    count, slot = grid.slots()
    keep = None if slot is None else torch.where(slot < 0, slot, slot - int(grid.initial))
    which = None if kind is None else kind.to(torch.int32)
    schedule = Schedule(grid.steps, tableau, which, interval, begin, width, ends, keep, count - grid.initial)
    # Made inside a transform of torch.func they are its wrappers: kernels cannot read them, the way back outlives them.
    bare: list[Any] = [debug_unwrap(value) if isinstance(value, Tensor) else value for value in schedule]
    return Schedule(*bare)


def _rates(layer: Layer, lengths: list[Any], parts: list[Tensor]) -> list[Tensor]:
    """Alpha of a lerp, or dt / tau, of each part of the state (kind, unit)."""
    solver = Euler() if isinstance(layer.step.solver, RungeKutta) else layer.step.solver
    each = [tree.leaves(tree.spread(solver.prepare(layer.step.model, dt), layer.like)) for dt in lengths]
    found = []
    for part, values in zip(parts, zip(*each, strict=True), strict=True):
        rows = [torch.as_tensor(value, dtype=part.dtype).expand(1, part.shape[-1]) for value in values]
        found.append(rows[0] if len(rows) == 1 else torch.cat(rows))
    return found


def _pushed(
    layer: Layer, lengths: list[Any], kind: Tensor | None, kicks: list[State], parts: list[Tensor]
) -> list[Tensor]:
    """What the noise adds after each step to each part of the state (step, row, unit)."""
    solver, model = layer.step.solver, layer.step.model
    each = [tree.leaves(tree.spread(solver.diffusion(solver.prepare(model, dt)), layer.like)) for dt in lengths]
    pushed = []
    for part, scales, *xi in zip(parts, zip(*each, strict=True), *map(tree.leaves, kicks), strict=True):
        scale = torch.stack([torch.as_tensor(value, dtype=part.dtype).expand_as(part) for value in scales])
        pushed.append(torch.stack(xi).reshape(-1, *part.shape) * (scale[0] if kind is None else scale[kind]))
    return pushed


def inputs(network: RateNetwork | GatedNetwork, coefficients: Sequence[Tensor], rows: int) -> Tensor:
    """u (coefficient, interval, row, input), of zeros without a drive; one row where all samples share it."""
    channels = (network.W_rec if network.W_in is None else network.W_in.T).shape[0]
    if not coefficients:
        return network.W_rec.new_zeros(1, 1, 1, channels)
    if coefficients[0].shape[-1] != channels:
        raise ValueError(
            f"the drive has {coefficients[0].shape[-1]} channels, the network's W_in has {channels}: give samples "
            f"(time, *batch, {channels}), or a network with that many inputs."
        )
    if rows > 1 and all(map(_one_row, coefficients)):
        coefficients = [coefficient.flatten(1, -2)[:, 0] for coefficient in coefficients]
        rows = 1
    flat = [coefficient.reshape(len(coefficient), rows, channels) for coefficient in coefficients]
    return flat[0][None] if len(flat) == 1 else torch.stack(flat)


def _one_row(coefficient: Tensor) -> bool:
    """Whether all samples (interval, *batch, input) are views of one, and none has a gradient of its own."""
    batch = range(1, coefficient.ndim - 1)
    same = all(coefficient.stride(axis) == 0 or coefficient.shape[axis] == 1 for axis in batch)
    return same and not moves(coefficient)


def projected(network: RateNetwork | GatedNetwork, us: Tensor) -> Tensor:
    """W_in u + b (coefficient, interval, #row, unit), where b belongs to the lowest power."""
    b = network.b if isinstance(network, RateNetwork) else network.bias
    if network.W_in is None:
        return us if b is None else torch.cat([us[:1] + b, us[1:]])
    each = [project(u, network.W_in, None if power else b) for power, u in enumerate(us.unbind(0))]
    return each[0][None] if len(each) == 1 else torch.stack(each)
