"""Adaptive steps: each sample looks for its own sequence of steps, without gradients, before the differentiable run on the sequence found."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._march import Source, pick
from ctrnn._types import Input, State
from ctrnn.drive import Piece
from ctrnn.solvers.base import EmbeddedSolver, Step, advance, value
from ctrnn.steps import Adaptive
from ctrnn.trajectory import Status


class Timeline(NamedTuple):
    """The intervals of every row: start and length (interval, row) in float64, how many each row has, and which interval of the drive, from and to which fraction, each is."""

    start: Tensor
    length: Tensor
    count: Tensor
    drive: Tensor  # (interval,)
    begin: Tensor  # (interval,)
    width: Tensor  # (interval,)


class Found(NamedTuple):
    """The accepted steps of every row, (step, row): interval, offset from the interval's start, length; and how each row ended."""

    interval: Tensor
    offset: Tensor
    dt: Tensor
    count: Tensor
    rejected: Tensor
    evaluations: Tensor
    status: Tensor
    failed_at: Tensor  # time at which a row stopped that did not reach its end


class _Rows(NamedTuple):
    """What each row still under way carries."""

    sample: Tensor
    x: State
    interval: Tensor
    offset: Tensor
    dt: Tensor
    first: State | None  # slope at the present state, where known
    last_error: Tensor
    held_back: Tensor  # the step before was rejected


class _Search:
    """One search: the problem, and the tallies of all rows."""

    def __init__(
        self, step: Step, source: Source, timeline: Timeline, steps: Adaptive, jumps: bool, like: State
    ) -> None:
        solver = step.solver
        assert isinstance(solver, EmbeddedSolver)
        self.model, self.solver, self.source, self.timeline, self.steps, self.jumps = (
            step.model,
            solver,
            source,
            timeline,
            steps,
            jumps,
        )
        rows = timeline.count.shape[0]
        self.rows, self.dtype = rows, tree.leaves(like)[0].dtype
        self.accepted, self.rejected, self.status = (
            torch.zeros(rows, dtype=torch.long, device=timeline.count.device) for _ in range(3)
        )
        self.evaluations = torch.zeros_like(self.accepted)
        self.failed_at = torch.full((rows,), torch.nan, dtype=torch.float64, device=timeline.count.device)
        self.log: list[tuple[Tensor, ...]] = []

    def input(self, sample: Tensor, interval: Tensor, t: Tensor, dt: Tensor, offset: Tensor) -> Input:
        """The drive over a step of each row."""
        line = self.timeline
        if self.source.function is not None:
            return lambda c: self._function(sample, t + c * dt)
        if not self.source.coefficients:
            return self.source.silence.index_select(0, sample)
        pieces = tuple(coefficient[line.drive[interval], sample] for coefficient in self.source.coefficients)
        if len(pieces) == 1:
            return pieces[0]
        scale = line.width[interval] / line.length[interval, sample]
        return Piece(pieces, (line.begin[interval] + offset * scale)[:, None], (dt[:, 0] * scale)[:, None])

    def _function(self, sample: Tensor, t: Tensor) -> Tensor:
        assert self.source.function is not None
        full = t[:1].expand(self.rows, 1).index_copy(0, sample, t).to(self.dtype)
        u = self.source.function(full)
        return (u if u.ndim > 1 else u.expand(self.rows, -1)).index_select(0, sample)

    def time(self, rows: _Rows) -> Tensor:
        return (self.timeline.start[rows.interval, rows.sample] + rows.offset)[:, None]

    def slope(self, rows: _Rows) -> State:
        """The slope at the present state of each row."""
        t = self.time(rows)
        u = self.input(rows.sample, rows.interval, t, rows.dt[:, None], rows.offset)
        self.evaluations[rows.sample] += 1
        return self.model(t.to(self.dtype), rows.x, value(u, 0.0))

    def first_step(self, rows: _Rows) -> Tensor:
        """A first step by Hairer, Norsett & Wanner (1993), II.4: both Euler and the first neglected term stay near a hundredth of the tolerance."""
        span = self.timeline.length.sum(0)[rows.sample]
        if self.steps.dt0 is not None:
            return torch.full_like(span, self.steps.dt0)
        x, slope = tree.ravel(rows.x, 1), tree.ravel(rows.first, 1)  # type: ignore[arg-type]
        scale = self.steps.atol + self.steps.rtol * x.abs()
        d0, d1 = _rms(x / scale), _rms(slope / scale)
        guess = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6 * span, 0.01 * d0 / d1).clamp(max=span)
        probe = rows._replace(x=advance(rows.x, guess[:, None], rows.first), dt=guess)  # type: ignore[arg-type]
        d2 = _rms((tree.ravel(self.slope(probe), 1) - slope) / scale) / guess
        most = torch.maximum(d1, d2)
        assert self.solver.error_order is not None
        refined = torch.where(
            most <= 1e-15, torch.clamp(1e-3 * guess, min=1e-6), (0.01 / most) ** (1 / (self.solver.error_order + 1))
        )
        step = torch.minimum(100 * guess, refined)
        return torch.where(torch.isfinite(step) & (step > 0), step, 1e-6 * span).minimum(span)


def search(
    step: Step,
    x: State,
    source: Source,
    timeline: Timeline,
    steps: Adaptive,
    jumps: bool,
    progress: Callable[[float], None] | None = None,
) -> Found:
    """The steps of every row of x (row, *event)."""
    with torch.no_grad():
        job = _Search(step, source, timeline, steps, jumps, x)
        samples = (timeline.count > 0).nonzero()[:, 0]
        zeros = torch.zeros(len(samples), dtype=torch.float64, device=samples.device)
        index = torch.zeros_like(samples)
        rows = _Rows(samples, pick(x, samples), index, zeros, zeros + 1.0, None, zeros + 1.0, index.bool())
        if len(samples):
            rows = rows._replace(first=job.slope(rows))
            rows = rows._replace(dt=job.first_step(rows))
        while len(rows.sample):
            rows = _advance(job, rows)
            if progress is not None and len(rows.sample):
                progress(_progress(job, rows))
        return _collect(job)


def _progress(job: _Search, rows: _Rows) -> float:
    covered = job.time(rows)[:, 0] - job.timeline.start[0, rows.sample]
    return float((covered / job.timeline.length.sum(0)[rows.sample]).clamp(max=1.0).mean())


def _advance(job: _Search, rows: _Rows) -> _Rows:
    """One attempted step of every row under way; finished and failed rows leave."""
    remaining = job.timeline.length[rows.interval, rows.sample] - rows.offset
    ends = rows.dt >= remaining * (1 - 1e-10)
    dt = torch.where(ends, remaining, torch.where(rows.dt > 0.5 * remaining, 0.5 * remaining, rows.dt))
    t = job.time(rows)
    u = job.input(rows.sample, rows.interval, t, dt[:, None], rows.offset)
    attempt = job.solver.attempt(job.model, t.to(job.dtype), dt[:, None], rows.x, u, rows.first)
    job.evaluations[rows.sample] += len(attempt.slopes) - (rows.first is not None)
    error = _error(rows.x, attempt.x, attempt.error, job.steps)
    accept = error <= 1.0
    job.accepted[rows.sample] += accept
    job.rejected[rows.sample] += ~accept
    job.log.append(
        (
            rows.sample[accept],
            job.accepted[rows.sample[accept]] - 1,
            rows.interval[accept],
            rows.offset[accept],
            dt[accept],
        )
    )
    wanted = _next_step(job.solver, dt, error, rows, accept)
    wanted = torch.where(accept & (dt < rows.dt), torch.maximum(wanted, rows.dt), wanted)
    crossed = accept & ends
    moved = rows._replace(
        x=_where(accept, attempt.x, rows.x),
        interval=rows.interval + crossed,
        offset=torch.where(crossed, 0.0, torch.where(accept, rows.offset + dt, rows.offset)),
        dt=wanted,
        last_error=torch.where(accept, error.clamp(min=1e-4), rows.last_error),
        held_back=~accept,
        first=None if attempt.last is None or rows.first is None else _where(accept, attempt.last, rows.first),
    )
    moved = _leave(job, moved, t[:, 0], error, accept)
    return _refresh(job, moved, crossed)


def _where(keep: Tensor, a: State, b: State) -> State:
    return tree.map(lambda p, q: torch.where(keep.reshape(-1, *[1] * (p.ndim - 1)), p, q), a, b)


def _rms(flat: Tensor) -> Tensor:
    return flat.to(torch.float64).square().mean(-1).sqrt()


def _error(x: State, new: State, error: State, steps: Adaptive) -> Tensor:
    old, fresh, wrong = (tree.ravel(part, 1) for part in (x, new, error))
    ratio = _rms(wrong / (steps.atol + steps.rtol * torch.maximum(old.abs(), fresh.abs())))
    return torch.where(torch.isfinite(ratio) & torch.isfinite(fresh).all(-1), ratio, torch.inf)


def _next_step(solver: EmbeddedSolver, dt: Tensor, error: Tensor, rows: _Rows, accept: Tensor) -> Tensor:
    """The PI controller of Hairer & Wanner (1996), IV.2, with its usual 0.7 / 0.4; a rejected step falls back to the plain rule and the next one does not grow."""
    assert solver.error_order is not None
    k = solver.error_order + 1
    grow = 0.9 * error.clamp(min=1e-10) ** (-0.7 / k) * rows.last_error ** (0.4 / k)
    grow = torch.where(rows.held_back, grow.clamp(max=1.0), grow)
    shrink = torch.where(torch.isfinite(error), 0.9 * error ** (-1 / k), 0.1).clamp(max=0.9)
    return dt * torch.where(accept, grow, shrink).clamp(0.1, 10.0)


def _leave(job: _Search, rows: _Rows, t: Tensor, error: Tensor, accept: Tensor) -> _Rows:
    """Drop the rows that are through and, with their status, those that cannot go on."""
    smallest = torch.clamp(16 * torch.finfo(torch.float64).eps * t.abs(), min=max(job.steps.dt_min, 1e-300))
    stuck = ~accept & (rows.dt < smallest)
    spent = (job.accepted + job.rejected)[rows.sample] >= job.steps.max_steps
    through = rows.interval >= job.timeline.count[rows.sample]
    failed = (stuck | spent) & ~through
    if bool(failed.any()):
        why = torch.where(
            stuck,
            torch.where(torch.isinf(error), int(Status.NON_FINITE_STATE), int(Status.STEP_SIZE_UNDERFLOW)),
            int(Status.MAX_STEPS_REACHED),
        )
        job.status[rows.sample[failed]] = why[failed]
        job.failed_at[rows.sample[failed]] = t[failed]
    gone = through | failed
    if not bool(gone.any()):
        return rows
    stay = (~gone).nonzero()[:, 0]
    return _Rows(*[_select(part, stay) for part in rows])


def _select(part: Any, stay: Tensor) -> Any:
    return None if part is None else pick(part, stay)


def _refresh(job: _Search, rows: _Rows, crossed: Tensor) -> _Rows:
    """Slopes of the step before do not carry over where the drive jumps, nor where the method does not end in a slope."""
    if not len(rows.sample):
        return rows
    if rows.first is None:
        return rows._replace(first=job.slope(rows)) if job.solver.starts_with_slope else rows
    at_edge = (rows.offset == 0.0) & (rows.interval > 0)
    if job.jumps and bool(crossed.any()) and bool(at_edge.any()):
        return rows._replace(first=_where(at_edge, job.slope(rows), rows.first))
    return rows


def _collect(job: _Search) -> Found:
    most = int(job.accepted.max()) if job.rows else 0
    shape, device = (most, job.rows), job.accepted.device
    interval = torch.zeros(shape, dtype=torch.long, device=device)
    offset, dt = (torch.zeros(shape, dtype=torch.float64, device=device) for _ in range(2))
    if job.log:
        sample, position, which, where, length = (torch.cat(column) for column in zip(*job.log, strict=True))
        interval[position, sample], offset[position, sample], dt[position, sample] = which, where, length
    return Found(interval, offset, dt, job.accepted, job.rejected, job.evaluations, job.status, job.failed_at)
