"""From a drive, a rule for steps and a wish for saves to a frozen grid of steps and the places of the saved states in what the time loop returns."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ctrnn._search import Found, Timeline
from ctrnn.drive import Drive, Function, Linear, Sampled
from ctrnn.steps import At, Every, Fixed, Grid, Last, Saved, whole_steps
from ctrnn.trajectory import Status

Save = Every | Last | At


class Stretch(NamedTuple):
    """A stretch of time inside one interval of the drive: from where to how much of that interval, as fractions."""

    interval: int
    start: Any  # number, or Tensor () or (*batch,)
    length: Any
    begin: Any
    width: Any


class Plan(NamedTuple):
    """A run laid out. `index` (save, sample) finds a saved state among the rows that the loop returns, -1 where there is none; None: they are the saves as they come."""

    grid: Grid
    ts: Tensor
    index: Tensor | None
    mask: Tensor | None
    place: tuple[Tensor, Tensor]  # interval of the drive, and fraction of it, of every save


def number(value: Any) -> float:
    """A time as a number; of times per sample, the longest."""
    return float(value.detach().max()) if isinstance(value, Tensor) else float(value)


def stretches(drive: Drive, t_span: tuple[Any, Any] | None) -> list[Stretch]:
    """The intervals of the drive, cut to t_span."""
    if not isinstance(drive, Sampled):
        assert t_span is not None
        return _pieces_between(t_span, drive.jumps if isinstance(drive, Function) else ())
    starts, lengths = drive.intervals
    whole = [Stretch(i, start, length, 0.0, 1.0) for i, (start, length) in enumerate(zip(starts, lengths, strict=True))]
    return whole if t_span is None else _cut(whole, t_span)


def _pieces_between(t_span: tuple[Any, Any], jumps: tuple[float, ...]) -> list[Stretch]:
    inner = [t for t in jumps if number(t_span[0]) < t < number(t_span[1])]
    edges = [t_span[0], *inner, t_span[1]]
    return [Stretch(0, a, b - a, 0.0, 1.0) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _cut(whole: list[Stretch], t_span: tuple[Any, Any]) -> list[Stretch]:
    first, last = number(whole[0].start), number(whole[-1].start) + number(whole[-1].length)
    t0, t1 = number(t_span[0]), number(t_span[1])
    slack = 1e-9 * max(last - first, abs(last))
    if t0 < first - slack or t1 > last + slack:
        raise ValueError(
            f"t_span ({t0:g}, {t1:g}) reaches outside the drive, which is given from {first:g} to {last:g}."
        )
    result = []
    for s in whole:
        a, b = number(s.start), number(s.start) + number(s.length)
        if b <= t0 + slack or a >= t1 - slack:
            continue
        low = t_span[0] if t0 > a + slack or (isinstance(t_span[0], Tensor) and abs(t0 - a) <= slack) else None
        high = t_span[1] if t1 < b - slack or (isinstance(t_span[1], Tensor) and abs(t1 - b) <= slack) else None
        if low is None and high is None:
            result.append(s)
            continue
        start = s.start if low is None else low
        stop = s.start + s.length if high is None else high
        result.append(Stretch(s.interval, start, stop - start, (start - s.start) / s.length, (stop - start) / s.length))
    return result


class _Steps(NamedTuple):
    """Columns of a grid under construction."""

    t: list[Any]
    dt: list[Any]
    interval: list[Any]
    begin: list[Any]
    width: list[Any]


def _add(columns: _Steps, s: Stretch, dt: float) -> None:
    count, exact = whole_steps(number(s.length), dt)
    step: Any = exact
    if isinstance(s.length, Tensor):
        # dt is exactly as given where it divides the interval, and carries the gradient of the interval's length.
        step = s.length / count if s.length.ndim else exact + (s.length - s.length.detach()) / count
    for j in range(count):
        columns.t.append(s.start + j * step)
        columns.dt.append(step)
        columns.interval.append(s.interval)
        columns.begin.append(s.begin + s.width * (j / count))
        columns.width.append(s.width / count)


def _cut_at(all_stretches: list[Stretch], ts: Tensor, dt: float) -> list[Stretch]:
    """Stretches with the times of `At` as edges, except where a whole step ends there anyway."""
    result = []
    times = [ts[i] if ts.requires_grad else float(ts[i]) for i in range(len(ts))]
    for s in all_stretches:
        a, length = number(s.start), number(s.length)
        inner = [t for t in times if a + 1e-9 * length < number(t) < a + length * (1 - 1e-9)]
        count, _ = whole_steps(length, dt)
        on_steps = all(
            abs((number(t) - a) / length * count - round((number(t) - a) / length * count)) < 1e-9 * count
            for t in inner
        )
        if not inner or (on_steps and not ts.requires_grad):
            result.append(s)
            continue
        edges = [s.start, *inner, s.start + s.length]
        for a_, b_ in zip(edges[:-1], edges[1:], strict=True):
            result.append(
                Stretch(
                    s.interval,
                    a_,
                    b_ - a_,
                    s.begin + s.width * ((a_ - s.start) / s.length),
                    s.width * ((b_ - a_) / s.length),
                )
            )
    return result


def fixed(
    drive: Drive, spans: list[Stretch], steps: Fixed, save: Save | None, batch: torch.Size, device: torch.device
) -> Plan:
    """Lay out fixed steps."""
    if isinstance(save, At):
        _check_at(save, spans)
        spans = _cut_at(spans, save.ts, steps.dt)
    columns = _Steps([], [], [], [], [])
    ends = []  # steps taken when each stretch ends
    for s in spans:
        _add(columns, s, steps.dt)
        ends.append(len(columns.t))
    kept = _kept(drive, spans, columns, ends, save)
    lengths = drive.lengths if isinstance(drive, Sampled) else None
    own_times = isinstance(drive, Sampled) and drive.edges is not None and drive.edges.ndim > 1
    grid = Grid(
        columns.t,
        columns.dt,
        columns.interval,
        columns.begin,
        columns.width,
        None,
        None,
        kept[0] == 0,
        [() for _ in columns.t],
    )
    ts = _times(kept, columns, spans, save, device)
    place = _places(kept, columns, device)
    if lengths is None and not own_times:
        for k in kept:
            if k:
                grid.saved[k - 1] = (Saved(),)
        return Plan(grid, ts, None, None, place)
    return _fixed_rows(grid, ts, place, kept, spans, ends, lengths, own_times, batch, device)


def _kept(drive: Drive, spans: list[Stretch], columns: _Steps, ends: list[int], save: Save | None) -> list[int]:
    """After how many steps a state is kept; 0 is x0."""
    total = len(columns.t)
    if isinstance(save, Last):
        return [total]
    if isinstance(save, Every):
        if save.k > total:
            raise ValueError(f"Every({save.k}) keeps nothing of a run of {total} steps: use Last(), or a smaller k.")
        return list(range(save.k, total + 1, save.k))
    if isinstance(save, At):
        starts = [number(t) for t in columns.t] + [number(columns.t[-1]) + number(columns.dt[-1])]
        edges = torch.tensor(starts, dtype=torch.float64)
        return [int((edges - t).abs().argmin()) for t in save.ts.detach().cpu()]
    if not isinstance(drive, Sampled):
        return list(range(1, total + 1))
    nodes = [0] if isinstance(drive, Linear) else []
    return nodes + [
        end
        for s, following, end in zip(spans, [*spans[1:], None], ends, strict=True)
        if following is None or following.interval != s.interval
    ]


def _times(kept: list[int], columns: _Steps, spans: list[Stretch], save: Save | None, device: torch.device) -> Tensor:
    if isinstance(save, At):
        return save.ts.to(device)
    edges = [*columns.t, columns.t[-1] + columns.dt[-1]]
    if isinstance(edges[0], Tensor) or isinstance(edges[-1], Tensor):
        times = [torch.as_tensor(edges[k], dtype=torch.float64, device=device) for k in kept]
        return torch.stack(torch.broadcast_tensors(*times))
    del spans
    return torch.tensor([edges[k] for k in kept], dtype=torch.float64, device=device)


def _places(kept: list[int], columns: _Steps, device: torch.device) -> tuple[Tensor, Tensor]:
    steps = [max(k - 1, 0) for k in kept]
    fractions = [
        number(columns.begin[s]) + (number(columns.width[s]) if k else 0.0) for k, s in zip(kept, steps, strict=True)
    ]
    return torch.tensor([columns.interval[s] for s in steps], device=device), torch.tensor(
        fractions, dtype=torch.float64, device=device
    )


def _fixed_rows(
    grid: Grid,
    ts: Tensor,
    place: tuple[Tensor, Tensor],
    kept: list[int],
    spans: list[Stretch],
    ends: list[int],
    lengths: Tensor | None,
    own: bool,
    batch: torch.Size,
    device: torch.device,
) -> Plan:
    """Fixed steps of which samples take different numbers, or at different times."""
    rows = batch.numel()
    last = torch.tensor([len(spans)]).expand(rows) if lengths is None else lengths.reshape(-1).cpu()
    steps_by_interval = torch.zeros(max(s.interval for s in spans) + 2, dtype=torch.long)
    for s, end in zip(spans, ends, strict=True):
        steps_by_interval[s.interval + 1 :] = end
    total = (
        torch.full((rows,), len(grid.t))
        if lengths is None
        else steps_by_interval[last.clamp(max=len(steps_by_interval) - 1)]
    )
    order = torch.argsort(total, descending=True, stable=True)
    live = [int((total > k).sum()) for k in range(len(grid.t))]
    if own:
        live_order = [order[:n].to(device) for n in live]
        t = [_per_row(value, index) for value, index in zip(grid.t, live_order, strict=True)]
        dt = [_per_row(value, index) for value, index in zip(grid.dt, live_order, strict=True)]
        grid = grid._replace(t=t, dt=dt)
    count = sum(n > 0 for n in live)
    grid = grid._replace(
        t=grid.t[:count],
        dt=grid.dt[:count],
        interval=grid.interval[:count],
        begin=grid.begin[:count],
        width=grid.width[:count],
        live=live[:count],
        order=order.to(device),
    )
    step = torch.minimum(torch.tensor(kept)[:, None], total[None]) - 1
    plan = saves(grid, step, torch.full(step.shape, torch.nan, dtype=torch.float64))
    mask = torch.tensor(kept)[:, None] <= total[None]
    return Plan(
        plan[0], ts, plan[1].to(device), None if lengths is None else mask.reshape(-1, *batch).to(device), place
    )


def _per_row(value: Any, index: Tensor) -> Tensor:
    return value.reshape(-1).index_select(0, index)[:, None]


def saves(grid: Grid, step: Tensor, theta: Tensor) -> tuple[Grid, Tensor]:
    """Place every wanted state (save, sample): `step` -1 is x0 and -2 nothing, `theta` NaN the end of the step. Returns the grid with its saves, and where each lands."""
    assert grid.order is not None and grid.live is not None
    device, order = grid.order.device, grid.order.cpu()
    row = torch.empty_like(order)
    row[order] = torch.arange(len(order))
    rows = row.expand_as(step)
    initial = grid.initial or bool((step == -1).any())
    wanted = step >= 0
    dense = ~torch.isnan(theta.detach().cpu())
    key = (2 * step + dense)[wanted]
    by_step = torch.argsort(key, stable=True)
    position = torch.empty_like(by_step)
    position[by_step] = torch.arange(len(by_step)) + (len(order) if initial else 0)
    index = torch.full(step.shape, -1)
    index[step == -1] = rows[step == -1]
    index[wanted] = position
    keys, counts = torch.unique_consecutive(key[by_step], return_counts=True)
    saved: list[tuple[Saved, ...]] = [() for _ in grid.dt]
    fractions = theta[wanted.to(theta.device)][by_step.to(theta.device)].to(device)
    for which, picked, fraction in zip(
        keys.tolist(), rows[wanted][by_step].split(counts.tolist()), fractions.split(counts.tolist()), strict=True
    ):
        everything = len(picked) == grid.live[which // 2] and torch.equal(picked, torch.arange(len(picked)))
        saved[which // 2] += (
            Saved(
                None if everything and not which % 2 else picked.to(device), fraction[:, None] if which % 2 else None
            ),
        )
    return grid._replace(initial=initial, saved=saved), index


def timeline(spans: list[Stretch], lengths: Tensor | None, rows: int, device: torch.device) -> Timeline:
    """The stretches as Tensors, for the search."""

    def column(values: list[Any]) -> Tensor:
        parts = [
            torch.as_tensor(v, dtype=torch.float64, device=device).detach().reshape(-1).expand(rows) for v in values
        ]
        return torch.stack(parts)

    def fractions(values: list[Any]) -> Tensor:
        return torch.tensor([number(v) for v in values], dtype=torch.float64, device=device)

    interval = torch.tensor([s.interval for s in spans], device=device)
    count = torch.full((rows,), len(spans), device=device)
    if lengths is not None:
        count = (interval[:, None] < lengths.reshape(1, -1).to(device)).sum(0)
    return Timeline(
        column([s.start for s in spans]),
        column([s.length for s in spans]),
        count,
        interval,
        fractions([s.begin for s in spans]),
        fractions([s.width for s in spans]),
    )


def adaptive(
    drive: Drive, spans: list[Stretch], line: Timeline, found: Found, save: Save | None, batch: torch.Size
) -> Plan:
    """Lay out the steps that a search found."""
    device = found.dt.device
    order = torch.argsort(found.count, descending=True, stable=True)
    live = [int((found.count > k).sum()) for k in range(found.dt.shape[0])]
    samples = [order[:n] for n in live]
    interval = [found.interval[k, s] for k, s in enumerate(samples)]
    offset = [found.offset[k, s] for k, s in enumerate(samples)]
    dt = [found.dt[k, s] for k, s in enumerate(samples)]
    scale = [line.width[i] / line.length[i, s] for i, s in zip(interval, samples, strict=True)]
    begin = [(line.begin[i] + o * r)[:, None] for i, o, r in zip(interval, offset, scale, strict=True)]
    width = [(d * r)[:, None] for d, r in zip(dt, scale, strict=True)]
    starts, lengths = _differentiable_times(spans, line)
    fraction = [
        (o / line.length[i, s], d / line.length[i, s]) for i, s, o, d in zip(interval, samples, offset, dt, strict=True)
    ]
    t = [(starts[i, s] + f[0] * lengths[i, s])[:, None] for i, s, f in zip(interval, samples, fraction, strict=True)]
    step_dt = (
        [(f[1] * lengths[i, s])[:, None] for i, s, f in zip(interval, samples, fraction, strict=True)]
        if lengths.requires_grad
        else [d[:, None] for d in dt]
    )
    drive_interval = [line.drive[i] for i in interval]
    grid = Grid(t, step_dt, drive_interval, begin, width, live, order, False, [() for _ in live])
    ts, step, theta, mask, place = _adaptive_saves(drive, spans, line, found, save, batch, starts, lengths)
    grid, index = saves(grid, step.cpu(), theta)
    return Plan(grid, ts, index.to(device), mask, place)


def _differentiable_times(spans: list[Stretch], line: Timeline) -> tuple[Tensor, Tensor]:
    if not any(isinstance(v, Tensor) and v.requires_grad for s in spans for v in (s.start, s.length)):
        return line.start, line.length
    rows = line.start.shape[1]

    def column(values: list[Any]) -> Tensor:
        return torch.stack(
            [torch.as_tensor(v, dtype=torch.float64, device=line.start.device).reshape(-1).expand(rows) for v in values]
        )

    return column([s.start for s in spans]), column([s.length for s in spans])


def _adaptive_saves(
    drive: Drive,
    spans: list[Stretch],
    line: Timeline,
    found: Found,
    save: Save | None,
    batch: torch.Size,
    starts: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, tuple[Tensor, Tensor]]:
    """Times of the saves, the step that holds each (save, sample) and where in it, which of them lie before the sample's end, and where in the drive they are."""
    rows = len(found.count)
    if isinstance(save, Every):
        raise ValueError("Every(k) counts steps, which are each sample's own in an adaptive run: use At(ts) or Last().")
    own_times = any(isinstance(s.start, Tensor) and s.start.ndim > 0 for s in spans)
    if isinstance(save, At):
        wanted = save.ts.to(line.start.device)[:, None].expand(-1, rows)
        ts = save.ts.to(line.start.device)
        inside = torch.searchsorted(
            (line.start[:, 0] + line.length[:, 0]).contiguous(), save.ts.detach().to(line.start.device)
        ).clamp(max=len(spans) - 1)
        place = (
            line.drive[inside],
            line.begin[inside] + line.width[inside] * (ts.detach() - line.start[inside, 0]) / line.length[inside, 0],
        )
    else:
        which = _kept_intervals(drive, spans, save)
        ends = torch.tensor(which, device=line.start.device)
        at = ends.clamp(min=0)
        edges = torch.where(ends[:, None] < 0, starts[at], starts[at] + lengths[at])
        wanted = edges.detach()
        ts = edges.reshape(-1, *batch) if own_times else edges[:, 0]
        place = (line.drive[at], torch.where(ends < 0, line.begin[at], line.begin[at] + line.width[at]))
    step, theta, valid = _locate(wanted, line, found, starts, lengths)
    mask = None if not isinstance(getattr(drive, "lengths", None), Tensor) else valid.reshape(-1, *batch)
    return ts, step, theta, mask, place


def _kept_intervals(drive: Drive, spans: list[Stretch], save: Save | None) -> list[int]:
    """The stretches at whose ends a state is kept; -1 is x0."""
    if isinstance(save, Last) or not isinstance(drive, Sampled):
        return [len(spans) - 1]
    return ([-1] if isinstance(drive, Linear) else []) + list(range(len(spans)))


def _locate(
    wanted: Tensor, line: Timeline, found: Found, starts: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The step of every sample in which each wanted time lies; a finished sample keeps its last state, a failed one has none beyond its failure."""
    times = wanted.detach()
    most = found.dt.shape[0]
    sample = torch.arange(times.shape[1], device=times.device)
    last = (line.count - 1).clamp(min=0)
    end = torch.where(line.count > 0, line.start[last, sample] + line.length[last, sample], line.start[0])
    slack = 1e-12 * (end.abs() + line.length.sum(0))
    start = line.start[found.interval, sample] + found.offset if most else times.new_zeros(0, len(sample))
    stop = torch.where(torch.arange(most, device=times.device)[:, None] < found.count, start + found.dt, torch.inf)
    step = torch.searchsorted(stop.T.contiguous(), (times - slack).T.contiguous()).T
    beyond = times > end + slack
    step = torch.where(beyond, (found.count - 1).expand_as(step), step)
    reached = (found.status == Status.REACHED) | (step < found.count)
    at = step.clamp(0, max(most - 1, 0))
    if most:
        interval = found.interval[at, sample]
        part = (
            lengths[interval, sample] / line.length[interval, sample]
        )  # 1, with the gradient of the interval's length
        exact = (wanted - starts[interval, sample] - found.offset[at, sample] * part) / (found.dt[at, sample] * part)
        ends = (
            beyond
            if exact.requires_grad and wanted.requires_grad
            else beyond | ((times - stop[at, sample]).abs() <= slack)
        )
        theta = torch.where(ends, torch.nan, exact)
    else:
        theta = torch.full_like(times, torch.nan)
    at_start = (times - line.start[0]).abs() <= slack
    step = torch.where(at_start | (found.count == 0) & (found.status == Status.REACHED), -1, step)
    step = torch.where((step >= 0) & ~reached, -2, step)
    return step, theta, ~beyond


def _check_at(save: At, spans: list[Stretch]) -> None:
    first, last = number(spans[0].start), number(spans[-1].start) + number(spans[-1].length)
    slack = 1e-9 * max(abs(first), abs(last), last - first)
    low, high = float(save.ts[0].detach()), float(save.ts[-1].detach())
    if low < first - slack or high > last + slack:
        raise ValueError(
            f"At: the times {low:g} to {high:g} reach outside the run, which goes from {first:g} to {last:g}."
        )
