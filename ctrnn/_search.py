"""Adaptive steps: each sample looks for its own sequence of steps, without gradients.

The differentiable run then takes place on the frozen sequence.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._compiled_adaptive import compiled
from ctrnn._march import Source, pick, within
from ctrnn._types import State
from ctrnn.drive import Piece
from ctrnn.native.adaptive import Outcome
from ctrnn.solvers.base import Attempt, EmbeddedSolver, Step, advance, value
from ctrnn.steps import Adaptive, Timeline
from ctrnn.trajectory import Status


class Found(NamedTuple):
    """The accepted steps of every row, (step, row): interval, offset from its start, length; and how each row ended."""

    interval: Tensor
    offset: Tensor
    dt: Tensor
    count: Tensor  # type: ignore[assignment]
    rejected: Tensor
    evaluations: Tensor
    status: Tensor
    failed_at: Tensor  # time at which a row stopped that did not reach its end
    blame: Tensor  # the part of its state, by number, that did not allow the next step
    states: State | None  # (step + 1, row, *event): before each step and after the last, where they were to be kept


class _Rows(NamedTuple):
    """What each row still under way carries."""

    sample: Tensor
    x: State
    interval: Tensor
    offset: Tensor  # time since the interval's start
    dt: Tensor  # the step wanted next
    slope: State | None  # at the present state, for solvers that begin with it ...
    stale: Tensor  # ... where it must be evaluated again
    last_error: Tensor  # of the last accepted step, in units of the tolerance
    held_back: Tensor  # the step before was rejected


class _Search:
    """One search: the problem, and the tallies of all rows."""

    def __init__(
        self, step: Step, x0: State, source: Source, timeline: Timeline, steps: Adaptive, jumps: bool, keep: bool
    ) -> None:
        assert isinstance(step.solver, EmbeddedSolver)
        self.model, self.solver = step.model, step.solver
        self.source, self.timeline, self.steps, self.jumps = source, timeline, steps, jumps
        self.rows, self.dtype, self.x0, self.keep = timeline.count.shape[0], tree.leaves(x0)[0].dtype, x0, keep
        self.accepted, self.rejected, self.evaluations, self.status, self.blame = (
            torch.zeros_like(timeline.count) for _ in range(5)
        )
        self.failed_at = torch.full_like(timeline.start[0], torch.nan)
        self.log: list[tuple[Tensor, ...]] = []
        self.states: list[State] = []

    def input(self, rows: _Rows, t: Tensor, dt: Tensor) -> Any:
        """The drive of each row over a step of length dt (row,) from t (row, 1)."""
        line, source = self.timeline, self.source
        if source.function is not None:
            return lambda c: self._function(rows.sample, within(t.to(self.dtype), c, dt[:, None]))
        if not source.coefficients:
            return source.silence.index_select(0, rows.sample)
        pieces = tuple(coefficient[line.drive[rows.interval], rows.sample] for coefficient in source.coefficients)
        if len(pieces) == 1:
            return pieces[0]
        scale = line.width[rows.interval] / line.length[rows.interval, rows.sample]
        return Piece(pieces, (line.begin[rows.interval] + rows.offset * scale)[:, None], (dt * scale)[:, None])

    def _function(self, sample: Tensor, t: Tensor) -> Tensor:
        # fn may hold values of each sample: it sees the whole batch, with any time where a sample has finished.
        assert self.source.function is not None
        full = t[:1].expand(self.rows, 1).index_copy(0, sample, t)
        return self.source.function(full).index_select(0, sample)

    def time(self, rows: _Rows) -> Tensor:
        """The present time of each row, (row, 1)."""
        return (self.timeline.start[rows.interval, rows.sample] + rows.offset)[:, None]

    def slope(self, rows: _Rows, x: State, dt: Tensor, c: float) -> State:
        """The vector field at x, the fraction c of a step of length dt later."""
        t = self.time(rows)
        self.evaluations[rows.sample] += 1
        return self.model((t + c * dt[:, None]).to(self.dtype), x, value(self.input(rows, t, dt), c))

    def attempt(self, rows: _Rows, dt: Tensor) -> Attempt:
        """One step of every row."""
        t = self.time(rows)
        u = self.input(rows, t, dt)
        attempt = self.solver.attempt(self.model, t.to(self.dtype), dt[:, None], rows.x, u, rows.slope)
        self.evaluations[rows.sample] += len(attempt.slopes) - (rows.slope is not None)
        return attempt


def search(
    step: Step,
    x: State,
    source: Source,
    timeline: Timeline,
    steps: Adaptive,
    jumps: bool,
    keep: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Found:
    """The steps of every row of x (row, *event).

    `jumps` says whether the drive does at the intervals' edges, `keep` whether the states on the way are wanted.
    """
    with torch.no_grad():
        known = source.function is None and not keep
        outcome = compiled(step, x, source.coefficients, timeline, steps, jumps) if known else None
        if outcome is not None:
            return _found(outcome)
        job = _Search(step, x, source, timeline, steps, jumps, keep)
        rows = _begin(job, x)
        while len(rows.sample):
            rows = _advance(job, _refresh(job, rows))
            if progress is not None and len(rows.sample):
                progress(_progress(job, rows))
        return _collect(job)


def _found(outcome: Outcome) -> Found:
    """The steps that a kernel found, as (step, row)."""
    assert outcome.steps is not None
    first, *columns = outcome.steps
    sample = torch.repeat_interleave(torch.arange(len(outcome.count)), outcome.count)
    shape = (int(outcome.count.max()) if len(outcome.count) else 0, len(outcome.count))
    where = (torch.arange(len(sample)) - first[sample], sample)
    interval, offset, dt = (column.new_zeros(shape).index_put(where, column) for column in columns)
    ends = (outcome.count, outcome.rejected, outcome.evaluations, outcome.status, outcome.failed_at)
    return Found(interval, offset, dt, *ends, torch.zeros_like(outcome.count), None)


def _begin(job: _Search, x: State) -> _Rows:
    """All rows that have a way to go, with their first step."""
    sample = (job.timeline.count > 0).nonzero()[:, 0]
    zero = torch.zeros_like(job.timeline.start[0, sample])
    index, no = torch.zeros_like(sample), torch.zeros_like(sample).bool()
    rows = _Rows(sample, pick(x, sample), index, zero, zero + 1.0, None, no, zero + 1.0, no)
    if job.steps.dt0 is not None or not len(sample):
        dt = zero + (job.steps.dt0 or 1.0)
        return rows._replace(dt=dt)
    slope = job.slope(rows, rows.x, zero, 0.0)
    dt = _first_step(job, rows, slope)
    return rows._replace(dt=dt, slope=slope if job.solver.starts_with_slope else None)


def _first_step(job: _Search, rows: _Rows, slope: State) -> Tensor:
    """A first step by Hairer, Norsett & Wanner (1993), II.4.

    The change of an Euler step and the first neglected term both stay near a hundredth of the tolerance.
    """
    assert job.solver.error_order is not None
    span = job.timeline.length[0, rows.sample]
    x, k = tree.ravel(rows.x, 1), tree.ravel(slope, 1)
    scale = job.steps.atol + job.steps.rtol * x.abs()
    d0, d1 = _rms(x, scale), _rms(k, scale)
    guess = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6 * span, 0.01 * d0 / d1).minimum(span)
    later = job.slope(rows, advance(rows.x, guess[:, None], slope), guess, 1.0)
    steepest = torch.maximum(d1, _rms(tree.ravel(later, 1) - k, scale) / guess)
    refined = (0.01 / steepest) ** (1 / (job.solver.error_order + 1))
    refined = torch.where(steepest <= 1e-15, (1e-3 * guess).clamp(min=1e-6), refined)
    dt = torch.minimum(100 * guess, refined)
    dt = torch.where(torch.isfinite(dt) & (dt > 0), dt, 1e-6 * span)
    return dt.clamp(min=job.steps.dt_min).minimum(job.timeline.length.sum(0)[rows.sample])


def _refresh(job: _Search, rows: _Rows) -> _Rows:
    """Evaluate the slopes that the step before did not leave: where the drive jumps, or if the method ends in none."""
    if not job.solver.starts_with_slope:
        return rows
    if rows.slope is None:
        return rows._replace(slope=job.slope(rows, rows.x, rows.dt, 0.0))
    which = rows.stale.nonzero()[:, 0]
    if not len(which):
        return rows
    some = pick(rows, which)
    new = job.slope(some, some.x, some.dt, 0.0)
    return rows._replace(slope=tree.map(lambda old, k: old.index_copy(0, which, k), rows.slope, new))


def _advance(job: _Search, rows: _Rows) -> _Rows:
    """One attempted step of every row under way; finished and failed rows leave."""
    remaining = job.timeline.length[rows.interval, rows.sample] - rows.offset
    ends = rows.dt >= remaining * (1 - 1e-10)
    # Two equal steps to an edge are better than a long one and a crumb.
    dt = torch.where(ends, remaining, torch.minimum(rows.dt, 0.5 * remaining))
    attempt = job.attempt(rows, dt)
    error = _error(rows.x, attempt.x, attempt.error, job.steps)
    accept = error <= 1.0
    crossed = accept & ends
    _record(job, rows, dt, accept, attempt.x)
    wanted = _next_step(job.solver, dt, error, rows, accept)
    wanted = torch.where(
        accept & (dt < rows.dt), torch.maximum(wanted, rows.dt), wanted
    )  # an edge is no reason to slow down
    moved = _Rows(
        sample=rows.sample,
        x=_where(accept, attempt.x, rows.x),
        interval=rows.interval + crossed,
        offset=torch.where(crossed, 0.0, torch.where(accept, rows.offset + dt, rows.offset)),
        dt=wanted,
        slope=rows.slope if attempt.last is None or rows.slope is None else _where(accept, attempt.last, rows.slope),
        stale=accept if attempt.last is None else crossed & job.jumps,
        last_error=torch.where(accept, error.clamp(min=1e-4), rows.last_error),
        held_back=~accept,
    )
    return _leave(job, moved, job.time(rows)[:, 0], error, lambda: _blame(rows.x, attempt, job.steps))


def _record(job: _Search, rows: _Rows, dt: Tensor, accept: Tensor, x: State) -> None:
    sample = rows.sample[accept]
    if job.keep:
        job.states.append(pick(x, accept.nonzero()[:, 0]))
    job.log.append((sample, job.accepted[sample], rows.interval[accept], rows.offset[accept], dt[accept]))
    job.accepted[rows.sample] += accept
    job.rejected[rows.sample] += ~accept


def _where(keep: Tensor, a: State, b: State) -> State:
    return tree.map(lambda p, q: torch.where(keep.reshape(-1, *[1] * (p.ndim - 1)), p, q), a, b)


def _rms(flat: Tensor, scale: Tensor) -> Tensor:
    """Root mean square over the state in units of `scale`; nothing is no error on any scale."""
    return torch.where(flat == 0, 0.0, flat / scale).to(torch.float64).square().mean(-1).sqrt()


def _error(x: State, new: State, error: State, steps: Adaptive) -> Tensor:
    """The error of each row in units of its tolerance; infinite where the new state or the error is not finite."""
    old, fresh, wrong = (tree.ravel(part, 1) for part in (x, new, error))
    ratio = _rms(wrong, steps.atol + steps.rtol * torch.maximum(old.abs(), fresh.abs()))
    return torch.where(torch.isfinite(ratio) & torch.isfinite(fresh).all(-1), ratio, torch.inf)


def _blame(x: State, attempt: Attempt, steps: Adaptive) -> Tensor:
    """For each row the part of the state with the largest error against its tolerance, or that is not finite."""
    parts = zip(*map(tree.leaves, (x, attempt.x, attempt.error)), strict=True)
    return torch.stack([_error(old, new, wrong, steps) for old, new, wrong in parts]).argmax(0)


def _next_step(solver: EmbeddedSolver, dt: Tensor, error: Tensor, rows: _Rows, accept: Tensor) -> Tensor:
    """The PI controller of Hairer, Norsett & Wanner's DOPRI5 (1993): exponents 0.17 and 0.04 for k = 5.

    A rejected step falls back to the plain rule, and the one after it does not grow.
    """
    assert solver.error_order is not None
    k = solver.error_order + 1
    grow = 0.9 * error.clamp(min=1e-10) ** (-0.85 / k) * rows.last_error ** (0.2 / k)
    grow = torch.where(rows.held_back, grow.clamp(max=1.0), grow)
    shrink = torch.where(torch.isfinite(error), 0.9 * error ** (-1 / k), 0.1).clamp(max=0.9)
    return dt * torch.where(accept, grow, shrink).clamp(0.1, 10.0)


def _leave(job: _Search, rows: _Rows, t: Tensor, error: Tensor, blame: Callable[[], Tensor]) -> _Rows:
    """Drop the rows that are through and, with their status, those that cannot go on; t is where their step began."""
    least = max(job.steps.dt_min, torch.finfo(job.dtype).tiny)
    stuck = rows.dt < (16 * torch.finfo(torch.float64).eps * t.abs()).clamp(min=least)
    spent = (job.accepted + job.rejected)[rows.sample] >= job.steps.max_steps
    through = rows.interval >= job.timeline.count[rows.sample]
    failed = (stuck | spent) & ~through
    if bool(failed.any()):
        small = torch.where(torch.isinf(error), int(Status.NON_FINITE_STATE), int(Status.STEP_SIZE_UNDERFLOW))
        who = rows.sample[failed]
        job.status[who] = torch.where(stuck, small, int(Status.MAX_STEPS_REACHED))[failed]
        job.failed_at[who] = t[failed]
        job.blame[who] = blame()[failed]
    gone = through | failed
    return pick(rows, (~gone).nonzero()[:, 0]) if bool(gone.any()) else rows


def _progress(job: _Search, rows: _Rows) -> float:
    """The part of all rows' time that lies behind them; a row that left counts whole."""
    covered = job.time(rows)[:, 0] - job.timeline.start[0, rows.sample]
    ahead = 1 - covered / job.timeline.length.sum(0)[rows.sample]
    return 1 - float(ahead.clamp(0.0, 1.0).sum()) / job.rows


def _collect(job: _Search) -> Found:
    shape, device = (int(job.accepted.max()) if job.rows else 0, job.rows), job.accepted.device
    interval = torch.zeros(shape, dtype=torch.long, device=device)
    offset, dt = (torch.zeros(shape, dtype=torch.float64, device=device) for _ in range(2))
    states = tree.map(lambda leaf: leaf.expand(shape[0] + 1, *leaf.shape).clone(), job.x0) if job.keep else None
    if job.log:
        sample, position, which, where, length = (torch.cat(column) for column in zip(*job.log, strict=True))
        interval[position, sample], offset[position, sample], dt[position, sample] = which, where, length
        if states is not None:
            reached = tree.map(lambda *leaves: torch.cat(leaves), job.states[0], *job.states[1:])
            states = tree.map(lambda leaf, new: leaf.index_put((position + 1, sample), new), states, reached)
    ends = (job.accepted, job.rejected, job.evaluations, job.status, job.failed_at, job.blame)
    # no_grad does not stop forward mode: the steps found are numbers, whatever is differentiated.
    return Found(interval, offset.detach(), dt.detach(), *ends, states)
