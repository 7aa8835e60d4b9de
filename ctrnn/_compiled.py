"""Runs of lowered networks on fixed steps, handed to compiled kernels whole; what these do not cover stays plain."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ctrnn._derivative import forward_mode
from ctrnn._types import State
from ctrnn.dynamics import Relaxation
from ctrnn.lowered import RateNetwork
from ctrnn.native.abi import DTYPES
from ctrnn.native.library import library
from ctrnn.native.rate import rate
from ctrnn.native.schedule import Schedule
from ctrnn.solvers.base import Solver, Step
from ctrnn.solvers.relaxation import Euler, ExponentialEuler, Iterate
from ctrnn.solvers.runge_kutta import EmbeddedRungeKutta, RungeKutta, Tableau
from ctrnn.steps import Grid

REPORTS = 32  # of a run's progress: a kernel that has begun says nothing until its end
LERPS = (Iterate, Euler, ExponentialEuler)
STEPS = (RungeKutta.step, EmbeddedRungeKutta.step)


def compiled(
    step: Step,
    grid: Grid,
    x: State,
    coefficients: Sequence[Tensor],
    kicks: Iterator[State] | None,
    progress: Callable[[float], None] | None,
) -> tuple[Tensor, Tensor] | None:
    """The state at the end of the grid and those saved, as `march` returns them; None where the plain loop must run."""
    if library() is None or not isinstance(x, Tensor) or not _covered(step, grid, x):
        return None
    assert isinstance(step.model, Relaxation)
    network = step.model.lowered()
    if not isinstance(network, RateNetwork) or {network.W_rec.dtype, network.tau.dtype} != {x.dtype}:
        return None
    if any(forward_mode(value) for value in (x, *coefficients, *network) if isinstance(value, Tensor)):
        return None
    if progress is None:
        return _run(step, network, grid, x, coefficients, kicks)
    saves = []
    for k in range(REPORTS):
        part = grid.part(k * grid.steps // REPORTS, (k + 1) * grid.steps // REPORTS)
        if part.steps:
            x, more = _run(step, network, part, x, coefficients, kicks)
            saves.append(more)
            progress((k + 1) / (REPORTS + 1))
    return x, torch.cat(saves)


def _run(
    step: Step,
    network: RateNetwork,
    grid: Grid,
    x: Tensor,
    coefficients: Sequence[Tensor],
    kicks: Iterator[State] | None,
) -> tuple[Tensor, Tensor]:
    lengths, kind = grid.lengths()
    first, interval = grid.intervals() if coefficients else (0, None)
    schedule = _schedule(step.solver, grid, kind, interval, held=len(coefficients) < 2)
    rows = x.reshape(-1, x.shape[-1])
    pushed = None if kicks is None else _pushed(step, lengths, kind, islice(kicks, grid.steps), rows)
    rates = torch.stack([_rate(step, dt, rows) for dt in lengths])
    last = first + (grid.steps if interval is None else int(interval[-1]) + 1)
    drive = _projected(network, [c[first:last] for c in coefficients], len(rows))
    xs, end = rate(network, schedule, rows, drive, rates, pushed)
    saves = xs.reshape(-1, *x.shape)
    return end.reshape(x.shape), torch.cat([x[None], saves]) if grid.initial else saves


def _covered(step: Step, grid: Grid, x: Tensor) -> bool:
    model, solver = step.model, step.solver
    return (
        isinstance(model, Relaxation)
        and (type(solver) in LERPS or (isinstance(solver, RungeKutta) and type(solver).step in STEPS))
        and x.device.type == "cpu"
        and x.dtype in DTYPES
        and grid.steps > 0
        and grid.regular
        and not (model._forward_hooks or model._forward_pre_hooks)  # what they see is the plain path's business
    )


def _schedule(solver: Solver, grid: Grid, kind: Tensor | None, interval: Tensor | None, held: bool) -> Schedule:
    tableau = solver.tableau if isinstance(solver, RungeKutta) else None
    if tableau is not None and tableau.ends_in_slope:
        tableau = Tableau(tableau.a[:-1], tableau.a[-1])
    begin, width = None, None
    if not held:
        ends = torch.zeros(grid.steps, dtype=torch.float64)
        begin, width = grid.fractions() or (ends, ends + 1)
    count, slot = grid.slots()
    keep = None if slot is None else torch.where(slot < 0, slot, slot - grid.initial)
    which = None if kind is None else kind.to(torch.int32)
    return Schedule(grid.steps, tableau, which, interval, begin, width, None, keep, count - grid.initial)


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


def _projected(network: RateNetwork, coefficients: list[Tensor], rows: int) -> Tensor:
    """W_in u + b (coefficient, interval, row, unit); one row where all samples share a drive."""
    if not coefficients:
        b = network.W_rec.new_zeros(len(network.W_rec)) if network.b is None else network.b
        return b.expand(1, 1, 1, -1)
    flat = [_rows(coefficient, rows) for coefficient in coefficients]
    if network.W_in is None:
        flat[0] = flat[0] if network.b is None else flat[0] + network.b
    else:
        flat = [F.linear(c, network.W_in, None if k else network.b) for k, c in enumerate(flat)]
    return flat[0][None] if len(flat) == 1 else torch.stack(flat)


def _rows(coefficient: Tensor, rows: int) -> Tensor:
    """(interval, row, input) of (interval, *batch, input); one row if all are views of one."""
    batch = range(1, coefficient.ndim - 1)
    if rows > 1 and all(coefficient.stride(axis) == 0 or coefficient.shape[axis] == 1 for axis in batch):
        for _ in batch:
            coefficient = coefficient.select(1, 0)
        return coefficient[:, None]
    return coefficient.reshape(len(coefficient), rows, coefficient.shape[-1])
