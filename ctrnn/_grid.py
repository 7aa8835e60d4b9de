"""What a run is when it is laid out, and the layout of fixed steps: from stretches and wishes to a frozen grid."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctrnn._columns import Begin, Column, Ends, Interval, Same, Start, values
from ctrnn._stretches import Alike, Stretch, check_times, cut_at, number
from ctrnn.drive import Drive, Linear, Sampled
from ctrnn.steps import AT_ITS_END, At, Every, Fixed, Grid, Last, Saved, whole_steps

Save = Every | Last | At


class Place(NamedTuple):
    """Where in the drive the saves lie, each (save,), or (save, row) where samples have times of their own."""

    interval: Tensor
    fraction: Tensor  # of that interval


class Plan(NamedTuple):
    """A run laid out: its grid, and how what the loop returns becomes a trajectory."""

    grid: Grid
    ts: Tensor
    rows: Tensor | None  # (save, sample): row of what the loop returns, -1: none; None: the saves as they come
    mask: Tensor | None
    place: Place | None  # None where nothing drives


class _Steps(NamedTuple):
    """Columns of a grid under construction, and how many steps were taken when each stretch ends."""

    t: Sequence[Any]
    dt: Sequence[Any]
    interval: Sequence[int]
    begin: Sequence[Any]
    width: Sequence[Any]
    ends: Sequence[int]


def fixed(
    drive: Drive, spans: Sequence[Stretch], steps: Fixed, save: Save | None, batch: torch.Size, device: torch.device
) -> Plan:
    """Lay out fixed steps."""
    if isinstance(save, At):
        if isinstance(drive, Sampled) and drive.own_times:
            raise ValueError(
                "At(ts) makes its times edges of fixed steps, which samples with edges of their own do not share: "
                "use steps=Adaptive(...)."
            )
        check_times(save, spans)
        spans = cut_at(spans, save, steps.dt)
    columns = _steps(spans, steps.dt)
    kept = _kept(drive, spans, columns, save)
    grid = Grid(*columns[:-1], None, None, kept[0] == 0, _saved(kept, len(columns.t)))
    plan = Plan(grid, _times(kept, columns, save, device), None, None, _place(kept, columns, device))
    if isinstance(drive, Sampled) and (drive.own_times or drive.lengths is not None):
        return _in_rows(plan, drive, kept, _totals(drive, spans, columns, batch), batch)
    return plan


def _saved(kept: Sequence[int], steps: int) -> Sequence[tuple[Saved, ...]]:
    if isinstance(kept, range):
        return Column(Ends(kept, AT_ITS_END), range(steps))
    saved: list[tuple[Saved, ...]] = [() for _ in range(steps)]
    for k in filter(None, kept):
        saved[k - 1] += AT_ITS_END
    return saved


def _steps(spans: Sequence[Stretch], dt: float) -> _Steps:
    if isinstance(spans, Column) and isinstance(spans.rule, Alike):
        return _alike(spans.rule, len(spans), dt)
    parts = [(s, *_divided(s.length, dt)) for s in spans]
    return _Steps(
        t=[s.start + j * step for s, count, step in parts for j in range(count)],
        dt=[step for _, count, step in parts for _ in range(count)],
        interval=[s.interval for s, count, _ in parts for _ in range(count)],
        begin=[s.begin + s.width * (j / count) for s, count, _ in parts for j in range(count)],
        width=[s.width / count for s, count, _ in parts for _ in range(count)],
        ends=list(accumulate(count for _, count, _ in parts)),
    )


def _alike(stretch: Alike, count: int, dt: float) -> _Steps:
    """The columns of stretches that are all alike, by rule; equal to the numbers above bit for bit."""
    parts, step = whole_steps(stretch.length, dt)
    start = Start(stretch.t0, stretch.length, parts, float(step))
    rules: Sequence[Any] = start, Same(step), Interval(parts), Begin(parts), Same(1.0 / parts)
    t, length, interval, begin, width = (Column(rule, range(count * parts)) for rule in rules)
    return _Steps(t, length, interval, begin, width, range(parts, count * parts + 1, parts))


def _divided(length: Any, dt: float) -> tuple[int, Any]:
    """How many steps a stretch takes, and how long each is: as given where dt divides it, and with its gradient."""
    count, step = whole_steps(number(length), dt)
    if not isinstance(length, Tensor):
        return count, step
    return count, length / count if length.ndim else step + (length - length.detach()) / count


def _kept(drive: Drive, spans: Sequence[Stretch], columns: _Steps, save: Save | None) -> Sequence[int]:
    """After how many steps a state is kept; 0 is x0."""
    total = len(columns.t)
    if isinstance(save, Last):
        return range(total, total + 1)
    if isinstance(save, Every):
        if save.k > total:
            raise ValueError(f"Every({save.k}) keeps nothing of a run of {total} steps: use Last(), or a smaller k.")
        return range(save.k, total + 1, save.k)
    if isinstance(save, At):
        edges = torch.tensor(list(map(number, _edges(columns))), dtype=torch.float64)
        return _nearest(edges, save.ts.detach().cpu()).tolist()
    if not isinstance(drive, Sampled):
        return range(1, total + 1)
    ends = columns.ends
    if isinstance(ends, range):
        return range(0, ends.stop, ends.step) if isinstance(drive, Linear) else ends
    following = [*[s.interval for s in spans[1:]], None]
    ends = [end for s, other, end in zip(spans, following, ends, strict=True) if other != s.interval]
    return [0, *ends] if isinstance(drive, Linear) else ends


def _edges(columns: _Steps) -> list[Any]:
    """Where each step begins, and where the last ends."""
    return [*columns.t, columns.t[-1] + columns.dt[-1]]


def _nearest(edges: Tensor, times: Tensor) -> Tensor:
    after = torch.searchsorted(edges, times).clamp(1, len(edges) - 1)
    return after - (times - edges[after - 1] <= edges[after] - times).long()


def _times(kept: Sequence[int], columns: _Steps, save: Save | None, device: torch.device) -> Tensor:
    if isinstance(save, At):
        return save.ts.to(device)
    if isinstance(columns.t, Column) and isinstance(kept, range):
        times = values(Column(columns.t.rule, kept), torch.float64)
        if kept[-1] == len(columns.t):
            times[-1] = columns.t[-1] + float(columns.dt[-1])
        return times.to(device)
    edges = _edges(columns)
    if isinstance(edges[0], Tensor) or isinstance(edges[-1], Tensor):
        each = [torch.as_tensor(edges[k], dtype=torch.float64, device=device) for k in kept]
        return torch.stack(torch.broadcast_tensors(*each))
    return torch.tensor([edges[k] for k in kept], dtype=torch.float64, device=device)


def _place(kept: Sequence[int], columns: _Steps, device: torch.device) -> Place:
    after = np.arange(kept.start, kept.stop, kept.step) if isinstance(kept, range) else np.array(kept)
    step = np.maximum(after - 1, 0)
    interval, begin, width = (_at(column, step) for column in (columns.interval, columns.begin, columns.width))
    fraction = begin + (np.where(after > 0, width, 0.0) if after[0] == 0 else width)
    return Place(torch.from_numpy(interval).to(device), torch.from_numpy(fraction).to(device))


def _at(column: Sequence[Any], steps: Any) -> Any:
    """The numbers of a column at some steps, as a numpy array."""
    if isinstance(column, Column):
        return column.rule(steps)
    return np.array([number(value) if isinstance(value, Tensor) else value for value in column])[steps]


def _totals(drive: Sampled, spans: Sequence[Stretch], columns: _Steps, batch: torch.Size) -> Tensor:
    """How many steps each sample takes."""
    ends = drive.ends
    if ends is None:
        return torch.full((batch.numel(),), len(columns.t))
    after = torch.zeros(spans[-1].interval + 2, dtype=torch.long)  # steps taken after that many intervals
    for s, end in zip(spans, columns.ends, strict=True):
        after[s.interval + 1 :] = end
    return after[ends.reshape(-1).cpu().clamp(max=len(after) - 1)]


def _in_rows(plan: Plan, drive: Sampled, kept: Sequence[int], total: Tensor, batch: torch.Size) -> Plan:
    """The plan for samples that take different numbers of steps, or steps at different times."""
    grid, device = plan.grid, plan.ts.device
    order = torch.argsort(total, descending=True, stable=True)
    live = [int(n) for n in (total > torch.arange(len(grid.t))[:, None]).sum(1)]
    if drive.own_times:
        rows = [order[:n].to(device) for n in live]
        t, dt = ([_of_rows(v, r) for v, r in zip(column, rows, strict=True)] for column in (grid.t, grid.dt))
        grid = grid._replace(t=t, dt=dt)
    grid = grid.part(0, int(total.max()))._replace(live=live[: int(total.max())], order=order.to(device))
    after = torch.tensor(kept)[:, None]
    grid, index = place_saves(grid, torch.minimum(after, total) - 1, torch.full((len(kept), len(total)), torch.nan))
    mask = None if drive.lengths is None else (after <= total).reshape(-1, *batch).to(device)
    return plan._replace(grid=grid, rows=index.to(device), mask=mask)


def _of_rows(value: Tensor, rows: Tensor) -> Tensor:
    return value.reshape(-1).index_select(0, rows)[:, None]


def place_saves(grid: Grid, step: Tensor, theta: Tensor) -> tuple[Grid, Tensor]:
    """Place every wanted state (save, sample) in the grid, and say where it lands among the rows that the loop returns.

    `step` holds the state, -1 is x0 and -2 nothing; `theta` says at which fraction of the step, NaN at its end.
    """
    assert grid.order is not None
    assert grid.live is not None
    device, order = grid.order.device, grid.order.cpu()
    rows = torch.argsort(order).expand_as(step)
    initial = grid.initial or bool((step == -1).any())
    wanted = step >= 0
    key = (2 * step + ~torch.isnan(theta.detach().cpu()))[wanted]  # what one `Saved` holds has one key
    by_step = torch.argsort(key, stable=True)
    index = torch.full(step.shape, -1)
    index[step == -1] = rows[step == -1]
    index[wanted] = torch.argsort(by_step) + (len(order) if initial else 0)
    keys, counts = torch.unique_consecutive(key[by_step], return_counts=True)
    picked = rows[wanted][by_step].split(counts.tolist())
    fractions = theta[wanted.to(theta.device)][by_step.to(theta.device)].to(device).split(counts.tolist())
    saved: list[tuple[Saved, ...]] = [() for _ in grid.dt]
    for which, chosen, fraction in zip(keys.tolist(), picked, fractions, strict=True):
        k, dense = divmod(which, 2)
        everything = not dense and torch.equal(chosen, torch.arange(grid.live[k]))
        saved[k] += (Saved(None if everything else chosen.to(device), fraction[:, None] if dense else None),)
    return grid._replace(initial=initial, saved=saved), index
