"""The layout of adaptive steps: from the steps that a search found for each sample to a frozen grid of rows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctrnn._columns import Column
from ctrnn._derivative import moves
from ctrnn._grid import Place, Plan, Save, place_saves
from ctrnn._search import Found
from ctrnn._stretches import Alike, Stretch, check_times
from ctrnn.drive import Drive, Linear, Sampled
from ctrnn.steps import At, Grid, Last, Timeline
from ctrnn.trajectory import Status


class Moving(NamedTuple):
    """The stretches with the gradient of the times that have one."""

    start: Tensor  # (stretch, row)
    length: Tensor
    begin: Tensor  # (stretch,)
    width: Tensor


class Asked(NamedTuple):
    """What is to be saved."""

    ts: Tensor
    wanted: Tensor  # (save, row), with the gradient of times that have one
    place: Place | None
    mask: Tensor | None
    free: bool  # the times end no stretches


def timeline(spans: Sequence[Stretch], ends: Tensor | None, rows: int, device: torch.device) -> tuple[Timeline, Moving]:
    """The stretches as Tensors, for the search; `ends` (*batch,) says how many intervals each sample has."""
    count = torch.full((rows,), len(spans), device=device)
    if isinstance(spans, Column) and isinstance(spans.rule, Alike):
        at = np.arange(spans.at.start, spans.at.stop, spans.at.step)
        interval, moving = torch.from_numpy(at).to(device), _alike(spans.rule, at, rows, device)
        fixed = moving
    else:
        interval = torch.tensor([s.interval for s in spans], device=device)
        moving = _moving(spans, rows, device)
        fixed = Moving(*[column.detach() for column in moving])
    if ends is not None:
        count = (interval[:, None] < ends.reshape(1, -1).to(device)).sum(0)
    return Timeline(fixed.start, fixed.length, count, interval, fixed.begin, fixed.width), moving


def _alike(stretch: Alike, at: np.ndarray, rows: int, device: torch.device) -> Moving:
    # In numpy, where an operation on a few numbers costs a tenth of torch's.
    columns = (stretch.t0 + at * stretch.length, np.full(len(at), stretch.length), np.zeros(len(at)), np.ones(len(at)))
    start, length, begin, width = (torch.from_numpy(column).to(device) for column in columns)
    return Moving(start[:, None].expand(-1, rows), length[:, None].expand(-1, rows), begin, width)


def _moving(spans: Sequence[Stretch], rows: int, device: torch.device) -> Moving:
    def column(values: list[Any]) -> Tensor:
        if not any(isinstance(v, Tensor) for v in values):
            return torch.tensor(values, dtype=torch.float64, device=device)[:, None].expand(-1, rows)
        each = [torch.as_tensor(v, dtype=torch.float64, device=device).reshape(-1).expand(rows) for v in values]
        return torch.stack(each)

    begin, width = (column(values)[:, 0] for values in ([s.begin for s in spans], [s.width for s in spans]))
    return Moving(column([s.start for s in spans]), column([s.length for s in spans]), begin, width)


def adaptive(line: Timeline, moving: Moving, found: Found, asked: Asked) -> Plan:
    """Lay out the steps that a search found."""
    grid = _grid(line, moving, found)
    step, theta = _locate(asked, line, moving, found)
    grid, index = place_saves(grid, step.cpu(), theta)
    return Plan(grid, asked.ts, index.to(found.dt.device), asked.mask, asked.place)


def _grid(line: Timeline, moving: Moving, found: Found) -> Grid:
    """The steps as rows in the order of their number; a step keeps its fractions of its stretch when that moves."""
    order = torch.argsort(found.count, descending=True, stable=True)
    steps = found.dt.shape[0]
    number = torch.arange(steps, device=order.device)[:, None]
    # All steps in one go, each with its live rows one after another.
    number, rows = (number < found.count[order]).nonzero().unbind(1)
    live = torch.bincount(number, minlength=steps).tolist()
    rows = order[rows]
    i = found.interval[number, rows]
    offset, length = (column[number, rows] / line.length[i, rows] for column in (found.offset, found.dt))
    columns = (
        moving.start[i, rows] + offset * moving.length[i, rows],
        length * moving.length[i, rows] if moves(moving.length) else found.dt[number, rows],
        moving.begin[i] + offset * moving.width[i],
        length * moving.width[i],
    )
    t, dt, begin, width = (list(column[:, None].split(live)) for column in columns)
    return Grid(t, dt, list(line.drive[i].split(live)), begin, width, live, order, False, [() for _ in live])


def asked(
    drive: Drive, spans: Sequence[Stretch], line: Timeline, moving: Moving, save: Save | None, batch: torch.Size
) -> Asked:
    """When states are saved and where in the drive that is; `mask` says where a sample has ended, or not begun."""
    own_times, place = isinstance(drive, Sampled) and drive.own_times, None
    if isinstance(save, At):
        check_times(save, spans)
        ts = save.ts.to(line.start.device)
        wanted = ts[:, None].expand(-1, len(line.count))
        if isinstance(drive, Sampled):
            place = _place(wanted.detach(), line)
            place = place if own_times else Place(place.interval[:, 0], place.fraction[:, 0])
    else:
        ends = torch.tensor(_kept(drive, spans, save), device=line.start.device)  # stretches; -1 is x0
        at = ends.clamp(min=0)
        wanted = torch.where(ends[:, None] < 0, moving.start[at], moving.start[at] + moving.length[at])
        ts = wanted.reshape(-1, *batch) if own_times else wanted[:, 0]
        place = Place(line.drive[at], torch.where(ends < 0, line.begin[at], line.begin[at] + line.width[at]))
    mask = None
    if isinstance(drive, Sampled) and drive.lengths is not None:
        end, slack = _ends(line)
        mask = (wanted.detach() <= end + slack) & (wanted.detach() >= line.start[0] - slack)
        mask = mask.reshape(-1, *batch)
    return Asked(ts, wanted, place, mask, isinstance(save, At))


def _place(times: Tensor, line: Timeline) -> Place:
    """Where in the drive the times (save, row) lie: at an edge, at the end of the interval before it."""
    stop = (line.start + line.length).T.contiguous()
    at = torch.searchsorted(stop, times.T.contiguous()).clamp(max=stop.shape[1] - 1).T
    part = (times - line.start.gather(0, at)) / line.length.gather(0, at)
    return Place(line.drive[at], line.begin[at] + line.width[at] * part.clamp(0.0, 1.0))


def _kept(drive: Drive, spans: Sequence[Stretch], save: Save | None) -> list[int]:
    """The stretches at whose ends a state is kept; -1 is x0."""
    if isinstance(save, Last) or not isinstance(drive, Sampled):
        return [len(spans) - 1]
    if isinstance(spans, Column):
        ends = list(range(len(spans)))
    else:
        ends = [k for k, s in enumerate(spans) if k + 1 == len(spans) or spans[k + 1].interval != s.interval]
    return ([-1] if isinstance(drive, Linear) else []) + ends


def _ends(line: Timeline) -> tuple[Tensor, Tensor]:
    """When each sample ends, and what of a time is rounding, both (row,)."""
    sample, last = torch.arange(len(line.count), device=line.count.device), (line.count - 1).clamp(min=0)
    end = torch.where(line.count > 0, line.start[last, sample] + line.length[last, sample], line.start[0])
    return end, 1e-12 * (end.abs() + line.length.sum(0))


def _locate(asked: Asked, line: Timeline, moving: Moving, found: Found) -> tuple[Tensor, Tensor]:
    """The step of each sample that holds each wanted time, -1 for x0, -2 for none; where in it.

    A finished sample keeps its last state, a failed one has none beyond its failure, and none has one before its start.
    """
    times = asked.wanted.detach()
    sample, (end, slack) = torch.arange(times.shape[1], device=times.device), _ends(line)
    beyond, early = times > end + slack, times < line.start[0] - slack
    if not found.dt.shape[0]:
        nowhere = torch.where(found.status == Status.REACHED, -1, -2).expand(times.shape)
        at_start = (times - line.start[0]).abs() <= slack
        step = torch.where(early, -2, torch.where(at_start, -1, nowhere))
        return step, torch.full_like(times, torch.nan)
    step, stop = _step_holding(times - slack, line, found)
    failed = (found.status != Status.REACHED) & (beyond | (step >= found.count))
    step = torch.where(beyond, (found.count - 1).expand_as(step), step)
    at = step.clamp(0, found.dt.shape[0] - 1)
    theta = _fraction(asked.wanted, line, moving, found, at, sample)
    # A free time does not move with the end of a step on which it happens to lie: its gradient needs the slope there.
    ended = beyond if asked.free and moves(theta) else beyond | ((times - stop[at, sample]).abs() <= slack)
    step = torch.where(failed | early, -2, step)
    step = torch.where((times - line.start[0]).abs() <= slack, -1, step)
    return step, torch.where(ended, torch.nan, theta)


def _step_holding(times: Tensor, line: Timeline, found: Found) -> tuple[Tensor, Tensor]:
    """The first step that ends at or after each time (save, row); the ends of all steps, infinite where is none."""
    sample = torch.arange(times.shape[1], device=times.device)
    number = torch.arange(found.dt.shape[0], device=times.device)[:, None]
    stop = line.start[found.interval, sample] + found.offset + found.dt
    stop = torch.where(number < found.count, stop, torch.inf)
    return torch.searchsorted(stop.T.contiguous(), times.T.contiguous()).T, stop


def _fraction(wanted: Tensor, line: Timeline, moving: Moving, found: Found, at: Tensor, sample: Tensor) -> Tensor:
    interval = found.interval[at, sample]
    scale = moving.length[interval, sample] / line.length[interval, sample]  # 1, with the gradient of the length
    begin = moving.start[interval, sample] + found.offset[at, sample] * scale
    return (wanted - begin) / (found.dt[at, sample] * scale)
