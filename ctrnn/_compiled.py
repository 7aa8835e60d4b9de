"""Runs of lowered networks on fixed steps, handed to compiled kernels whole; what these do not cover stays plain."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import debug_unwrap

from ctrnn import _tree as tree
from ctrnn._columns import Column, Interval, Same
from ctrnn._derivative import forward_mode
from ctrnn._types import State
from ctrnn.dynamics import Model, Relaxation
from ctrnn.lowered import GatedNetwork, Layers, RateNetwork
from ctrnn.native.abi import DTYPES
from ctrnn.native.gated import gated
from ctrnn.native.library import library
from ctrnn.native.rate import rate
from ctrnn.native.schedule import Schedule
from ctrnn.solvers.base import Solver, Step
from ctrnn.solvers.relaxation import Euler, ExponentialEuler, Iterate
from ctrnn.solvers.runge_kutta import EmbeddedRungeKutta, RungeKutta, Tableau
from ctrnn.steps import AT_ITS_END, Grid

REPORTS = 32  # of a run's progress: a kernel that has begun says nothing until its end
LERPS = (Iterate, Euler, ExponentialEuler)
STEPS = (RungeKutta.step, EmbeddedRungeKutta.step)


class Layer(NamedTuple):
    """A network with a kernel, and the step that it takes alone."""

    step: Step
    network: RateNetwork | GatedNetwork


def compiled(
    step: Step,
    grid: Grid,
    x: State,
    coefficients: Sequence[Tensor],
    kicks: Iterator[State] | None,
    progress: Callable[[float], None] | None,
) -> tuple[State, State] | None:
    """The state at the end of the grid and those saved, as `march` returns them; None where the plain loop must run."""
    if library() is None or not _covered(step.solver, grid):
        return None
    layers = layers_of(step.model, step.solver, x)
    if layers is None or (len(layers) > 1 and kicks is not None):  # a layer is heard before the noise reaches it
        return None
    tensors = [value for layer in layers for value in layer.network if isinstance(value, Tensor)]
    if any(map(forward_mode, [*tree.leaves(x), *tensors, *coefficients])):
        return None
    if progress is None:
        return _through(layers, grid, x, coefficients, kicks)
    saves = []
    for k in range(REPORTS):
        part = grid.part(k * grid.steps // REPORTS, (k + 1) * grid.steps // REPORTS)
        if part.steps:
            x, more = _through(layers, part, x, coefficients, kicks)
            saves.append(more)
            progress((k + 1) / (REPORTS + 1))
    return x, tree.map(lambda *parts: torch.cat(parts), *saves)


def _covered(solver: Solver, grid: Grid) -> bool:
    known = type(solver) in LERPS or (isinstance(solver, RungeKutta) and type(solver).step in STEPS)
    return known and grid.steps > 0 and grid.regular


def layers_of(model: Model, solver: Solver, x: State) -> list[Layer] | None:
    """The networks of a model, the first one first; None if one of them, or the way they are joined, has no kernel."""
    network = network_of(model, x)
    if not isinstance(network, Layers):
        return None if network is None else [Layer(Step(model, solver), network)]
    if type(solver) not in LERPS:
        return None  # within a stage a layer reads what the layer below does in that stage
    states = tree.leaves(x)
    if len(states) != len(network.each):
        return None
    found = [layers_of(layer, solver, state) for layer, state in zip(network.each, states, strict=True)]
    return None if any(part is None or len(part) > 1 for part in found) else [part[0] for part in found if part]


def network_of(model: Model, x: State) -> RateNetwork | GatedNetwork | Layers | None:
    """The network that a model is, if its state is one of which there are kernels."""
    if not isinstance(model, Relaxation) or model._forward_hooks or model._forward_pre_hooks:
        return None  # what hooks see is the plain path's business
    network = model.lowered()
    return network if isinstance(network, Layers) or (network is not None and _fits(network, x)) else None


def _fits(network: RateNetwork | GatedNetwork, x: State) -> bool:
    return (
        isinstance(x, Tensor)
        and x.device.type == network.W_rec.device.type == "cpu"
        and x.dtype in DTYPES
        and x.dtype == network.W_rec.dtype == network.tau.dtype
    )


def _through(
    layers: list[Layer], grid: Grid, x: State, coefficients: Sequence[Tensor], kicks: Iterator[State] | None
) -> tuple[State, State]:
    """Layer after layer through the whole grid: a lerp reads what the layer below is after the same step."""
    ends, saves = [], []
    _, slot = grid.slots()
    every, inside = _every_step(grid), grid
    for layer, start in zip(layers, tree.leaves(x), strict=True):
        if layer is layers[-1]:
            end, kept = _run(layer, inside, start, coefficients, kicks)
        else:
            end, xs = _run(layer, inside._replace(saved=every.saved), start, coefficients, kicks)
            kept = xs if slot is None else xs[slot >= 0]
            assert isinstance(layer.step.model, Relaxation)
            coefficients, inside = (layer.step.model.readout(xs),), every._replace(saved=grid.saved)
        ends.append(end)
        saves.append(torch.cat([start[None], kept]) if grid.initial else kept)
    return tree.unflatten(x, ends), tree.unflatten(x, saves)


def _every_step(grid: Grid) -> Grid:
    """The grid when each of its steps is an interval of the drive, and is saved."""
    at = range(grid.steps)
    column = lambda value: Column(Same(value), at)
    return grid._replace(
        interval=Column(Interval(1), at), begin=column(0.0), width=column(1.0), saved=column(AT_ITS_END)
    )


def _run(
    layer: Layer, grid: Grid, x: Tensor, coefficients: Sequence[Tensor], kicks: Iterator[State] | None
) -> tuple[Tensor, Tensor]:
    """One network along the grid: the state at its end, and what it is at the ends of steps that the grid saves."""
    lengths, kind = grid.lengths()
    first, interval = grid.intervals() if coefficients else (0, None)
    last = first + (grid.steps if interval is None else int(interval[-1]) + 1)
    schedule = _schedule(layer.step.solver, grid, kind, interval, held=len(coefficients) < 2)
    rows = x.reshape(-1, x.shape[-1])
    pushed = None if kicks is None else _pushed(layer.step, lengths, kind, islice(kicks, grid.steps), rows)
    rates = torch.stack([_rate(layer.step, dt, rows) for dt in lengths])
    drive = projected(layer.network, [c[first:last] for c in coefficients], len(rows))
    run: Any = rate if isinstance(layer.network, RateNetwork) else gated
    xs, end = run(layer.network, schedule, rows, drive, rates, pushed)
    return end.reshape(x.shape), xs.reshape(-1, *x.shape)


def _schedule(solver: Solver, grid: Grid, kind: Tensor | None, interval: Tensor | None, held: bool) -> Schedule:
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
    schedule = Schedule(grid.steps, tableau, which, interval, begin, width, None, keep, count - grid.initial)
    # Made inside a transform of torch.func they are its wrappers: kernels cannot read them, the way back outlives them.
    bare: list[Any] = [debug_unwrap(value) if isinstance(value, Tensor) else value for value in schedule]
    return Schedule(*bare)


def _rate(step: Step, dt: float, rows: Tensor) -> Tensor:
    """Alpha of a lerp, or dt / tau, for each unit."""
    solver = Euler() if isinstance(step.solver, RungeKutta) else step.solver
    return torch.as_tensor(solver.prepare(step.model, dt), dtype=rows.dtype).expand(rows.shape[-1])


def _pushed(step: Step, lengths: list[Any], kind: Tensor | None, kicks: Iterator[Any], rows: Tensor) -> Tensor:
    """What the noise adds after each step (step, row, unit)."""
    xi = torch.stack([kick.reshape(rows.shape) for kick in kicks])
    scales = [step.solver.diffusion(step.solver.prepare(step.model, dt)) for dt in lengths]
    if kind is None:
        return xi * scales[0]
    return xi * torch.stack([torch.as_tensor(scale, dtype=rows.dtype).expand_as(rows) for scale in scales])[kind]


def projected(network: RateNetwork | GatedNetwork, coefficients: list[Tensor], rows: int) -> Tensor:
    """W_in u + b (coefficient, interval, row, unit); one row where all samples share a drive."""
    b = network.b if isinstance(network, RateNetwork) else network.b_in
    if not coefficients:
        coefficients = [
            network.W_rec.new_zeros(1, 1, (network.W_rec if network.W_in is None else network.W_in).shape[1])
        ]
    flat = [_rows(coefficient, rows) for coefficient in coefficients]
    if network.W_in is None:
        flat[0] = flat[0] if b is None else flat[0] + b
    else:
        flat = [F.linear(c, network.W_in, None if k else b) for k, c in enumerate(flat)]
    return flat[0][None] if len(flat) == 1 else torch.stack(flat)


def _rows(coefficient: Tensor, rows: int) -> Tensor:
    """(interval, row, input) of (interval, *batch, input); one row if all are views of one."""
    batch = range(1, coefficient.ndim - 1)
    if rows > 1 and all(coefficient.stride(axis) == 0 or coefficient.shape[axis] == 1 for axis in batch):
        for _ in batch:
            coefficient = coefficient.select(1, 0)
        return coefficient[:, None]
    return coefficient.reshape(len(coefficient), rows, coefficient.shape[-1])
