"""Adaptive steps: each sample looks for its own sequence of steps, without gradients.

The differentiable run then takes place on the frozen sequence.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import debug_unwrap

from ctrnn import _tree as tree
from ctrnn._compiled_adaptive import compiled
from ctrnn._march import Source, within
from ctrnn._types import State
from ctrnn.drive import Piece
from ctrnn.native.adaptive import Outcome
from ctrnn.solvers.base import Attempt, EmbeddedSolver, Step, flow, value
from ctrnn.steps import Adaptive, Timeline
from ctrnn.trajectory import Status

Numbers = NDArray[Any]


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
    """What each row still under way carries; the numbers in numpy, where an operation costs a tenth of torch's."""

    sample: Numbers
    x: State
    interval: Numbers
    offset: Numbers  # time since the interval's start
    dt: Numbers  # the step wanted next
    slope: State | None  # the flow's pull at the present state, for solvers that begin with it ...
    stale: Numbers  # ... where it must be evaluated again
    last_error: Numbers  # of the last accepted step, in units of the tolerance
    held_back: Numbers  # the step before was rejected


class _Search:
    """One search: the problem, and the tallies of all rows."""

    def __init__(
        self, step: Step, x0: State, source: Source, timeline: Timeline, steps: Adaptive, jumps: bool, keep: bool
    ) -> None:
        assert isinstance(step.solver, EmbeddedSolver)
        self.flow, self.model, self.solver = flow(step.model), step.solver.read(step.model), step.solver
        self.source, self.line, self.steps, self.jumps, self.keep = source, timeline, steps, jumps, keep
        self.start, self.length, self.count = (_host(v) for v in (timeline.start, timeline.length, timeline.count))
        self.x0, self.dtype, self.device = x0, tree.leaves(x0)[0].dtype, tree.leaves(x0)[0].device
        self.accepted, self.rejected, self.evaluations, self.status, self.blame = (
            np.zeros_like(self.count) for _ in range(5)
        )
        self.failed_at = np.full(self.count.shape, np.nan)
        self.log: list[tuple[Numbers, ...]] = []
        self.states: list[State] = []

    def tensor(self, numbers: Numbers) -> Tensor:
        """Numbers as a Tensor beside the states."""
        return torch.from_numpy(numbers).to(self.device)

    def input(self, rows: _Rows, t: Tensor, dt: Tensor) -> Any:
        """The drive of each row over a step of length dt (row, 1) from t (row, 1)."""
        line, source = self.line, self.source
        if source.function is None and not source.coefficients:
            return source.silence[: len(rows.sample)]  # zeros, as many as there are rows
        sample = self.tensor(rows.sample)
        if source.function is not None:
            return lambda c: self._function(sample, within(t.to(self.dtype), c, dt))
        interval = self.tensor(rows.interval)
        pieces = tuple(coefficient[line.drive[interval], sample] for coefficient in source.coefficients)
        if len(pieces) == 1:
            return pieces[0]
        scale = line.width[interval] / line.length[interval, sample]
        begin = line.begin[interval] + self.tensor(rows.offset) * scale
        return Piece(pieces, begin[:, None], dt * scale[:, None])

    def _function(self, sample: Tensor, t: Tensor) -> Tensor:
        # fn may hold values of each sample: it sees the whole batch, with any time where a sample has finished.
        assert self.source.function is not None
        full = t[:1].expand(len(self.count), 1).index_copy(0, sample, t)
        return self.source.function(full).index_select(0, sample)

    def time(self, rows: _Rows) -> Numbers:
        """The present time of each row."""
        return self.start[rows.interval, rows.sample] + rows.offset

    def pull(self, rows: _Rows, x: State, dt: Numbers, c: float) -> State:
        """The flow's pull at x, the fraction c of a step of length dt later."""
        t, step = self.tensor(self.time(rows)[:, None]), self.tensor(dt[:, None])
        self.evaluations[rows.sample] += 1
        return self.flow.pull((t + c * step).to(self.dtype), x, value(self.input(rows, t, step), c))

    def attempt(self, rows: _Rows, dt: Numbers) -> Attempt:
        """One step of every row."""
        t, step = self.tensor(self.time(rows)[:, None]), self.tensor(dt[:, None])
        u = self.input(rows, t, step)
        attempt = self.solver.attempt(self.model, t.to(self.dtype), step, rows.x, u, rows.slope)
        self.evaluations[rows.sample] += len(attempt.slopes) - (rows.slope is not None)
        return attempt

    def some(self, rows: _Rows, which: Numbers) -> _Rows:
        """The rows of these numbers."""
        index = self.tensor(which)
        each: Any = [v[which] if isinstance(v, np.ndarray) else tree.pick(v, index) for v in rows]
        return _Rows(*each)

    def where(self, keep: Numbers, a: State, b: State) -> State:
        """The rows of a where to keep them, of b elsewhere."""
        if keep.all():
            return a
        if not keep.any():
            return b
        mask = self.tensor(keep)
        return tree.map(lambda p, q: torch.where(mask.reshape(-1, *[1] * (p.ndim - 1)), p, q), a, b)


def _host(column: Tensor) -> Numbers:
    """The numbers of a Tensor. Through a list: under torch.func a Tensor gives no array, and these are short."""
    kind = np.float64 if column.is_floating_point() else np.int64
    return np.array(debug_unwrap(column).tolist(), kind).reshape(column.shape)


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
    sample = (job.count > 0).nonzero()[0]
    zero, index, no = np.zeros(len(sample)), np.zeros_like(sample), np.zeros(len(sample), dtype=bool)
    start = tree.pick(x, job.tensor(sample))
    rows = _Rows(sample, start, index, zero, zero + (job.steps.dt0 or 1.0), None, no, zero + 1.0, no)
    if job.steps.dt0 is not None or not len(sample):
        return rows
    pull = job.pull(rows, rows.x, zero, 0.0)
    return rows._replace(dt=_first_step(job, rows, pull), slope=pull if job.solver.starts_with_slope else None)


def _first_step(job: _Search, rows: _Rows, pull: State) -> Numbers:
    """A first step by Hairer, Norsett & Wanner (1993), II.4.

    The change of an Euler step and the first neglected term both stay near a hundredth of the tolerance.
    """
    assert job.solver.error_order is not None
    span = job.length[0, rows.sample]
    x, k = tree.ravel(rows.x, 1), tree.ravel(job.flow.slope(pull), 1)
    scale = _scale(x.abs(), job.steps)
    with np.errstate(all="ignore"):
        d0, d1 = _rms(x / scale), _rms(k / scale)
        guess = np.minimum(np.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6 * span, 0.01 * d0 / d1), span)
        step = job.flow.reach(job.tensor(guess[:, None]), rows.x)
        later = job.pull(rows, tree.map(torch.addcmul, rows.x, tree.spread(step, rows.x), pull), guess, 1.0)
        bend = _rms((tree.ravel(job.flow.slope(later), 1) - k) / scale) / guess
        steepest = np.maximum(d1, bend)
        refined = (0.01 / steepest) ** (1 / (job.solver.error_order + 1))
        refined = np.where(steepest <= 1e-15, np.maximum(1e-3 * guess, 1e-6), refined)
        dt = np.minimum(100 * guess, refined)
        dt = np.where(np.isfinite(dt) & (dt > 0), dt, 1e-6 * span)
    return np.minimum(np.maximum(dt, job.steps.dt_min), job.length.sum(0)[rows.sample])


def _refresh(job: _Search, rows: _Rows) -> _Rows:
    """Evaluate the slopes that the step before did not leave: where the drive jumps, or if the method ends in none."""
    if not job.solver.starts_with_slope:
        return rows
    if rows.slope is None:
        return rows._replace(slope=job.pull(rows, rows.x, rows.dt, 0.0))
    which = rows.stale.nonzero()[0]
    if not len(which):
        return rows
    some = job.some(rows, which)
    new, index = job.pull(some, some.x, some.dt, 0.0), job.tensor(which)
    return rows._replace(slope=tree.map(lambda old, k: old.index_copy(0, index, k), rows.slope, new))


def _advance(job: _Search, rows: _Rows) -> _Rows:
    """One attempted step of every row under way; finished and failed rows leave."""
    remaining = job.length[rows.interval, rows.sample] - rows.offset
    ends = rows.dt >= remaining * (1 - 1e-10)
    # Two equal steps to an edge are better than a long one and a crumb.
    dt = np.where(ends, remaining, np.minimum(rows.dt, 0.5 * remaining))
    attempt = job.attempt(rows, dt)
    wrong = job.solver.error(attempt)
    error = _error(rows.x, attempt.x, wrong, job.steps)
    accept = error <= 1.0
    crossed = accept & ends
    _record(job, rows, dt, accept, attempt.x)
    wanted = _next_step(job.solver, dt, error, rows, accept)
    moved = _Rows(
        sample=rows.sample,
        x=job.where(accept, attempt.x, rows.x),
        interval=rows.interval + crossed,
        offset=np.where(crossed, 0.0, np.where(accept, rows.offset + dt, rows.offset)),
        # An edge is no reason to slow down.
        dt=np.where(accept & (dt < rows.dt), np.maximum(wanted, rows.dt), wanted),
        slope=rows.slope if attempt.last is None or rows.slope is None else job.where(accept, attempt.last, rows.slope),
        stale=accept if attempt.last is None else crossed & job.jumps,
        last_error=np.where(accept, np.maximum(error, 1e-4), rows.last_error),
        held_back=~accept,
    )
    return _leave(job, moved, job.time(rows), error, lambda: _blame(rows.x, attempt.x, wrong, job.steps))


def _record(job: _Search, rows: _Rows, dt: Numbers, accept: Numbers, x: State) -> None:
    sample = rows.sample[accept]
    if job.keep:
        job.states.append(x if accept.all() else tree.pick(x, job.tensor(accept.nonzero()[0])))
    job.log.append((sample, job.accepted[sample], rows.interval[accept], rows.offset[accept], dt[accept]))
    job.accepted[rows.sample] += accept
    job.rejected[rows.sample] += ~accept


def _scale(size: Tensor, steps: Adaptive) -> Tensor:
    """The tolerance of numbers of this size; never 0, so that no error is none on any scale."""
    return size * steps.rtol + max(steps.atol, torch.finfo(size.dtype).tiny)


def _rms(flat: Tensor) -> Numbers:
    """Root mean square of each row."""
    return _host(torch.linalg.vector_norm(flat, dim=-1, dtype=torch.float64)) / max(1, flat.shape[-1]) ** 0.5


def _error(x: State, new: State, error: State, steps: Adaptive) -> Numbers:
    """The error of each row in units of its tolerance; infinite where the new state or the error is not finite."""
    old, fresh, wrong = (tree.ravel(part, 1) for part in (x, new, error))
    nothing = fresh - fresh  # NaN where the state is not finite
    found = _rms(torch.addcdiv(nothing, wrong, _scale(torch.maximum(old.abs(), fresh.abs()), steps)))
    return np.where(found < np.inf, found, np.inf)


def _blame(x: State, new: State, error: State, steps: Adaptive) -> Numbers:
    """For each row the part of the state with the largest error against its tolerance, or that is not finite."""
    parts = zip(*map(tree.leaves, (x, new, error)), strict=True)
    return np.stack([_error(a, b, wrong, steps) for a, b, wrong in parts]).argmax(0)


def _next_step(solver: EmbeddedSolver, dt: Numbers, error: Numbers, rows: _Rows, accept: Numbers) -> Numbers:
    """The PI controller of Hairer, Norsett & Wanner's DOPRI5 (1993): exponents 0.17 and 0.04 for k = 5.

    A rejected step falls back to the plain rule, and the one after it does not grow.
    """
    assert solver.error_order is not None
    k = solver.error_order + 1
    error = np.maximum(error, 1e-10)
    factor = 0.9 * np.where(accept, error ** (-0.85 / k) * rows.last_error ** (0.2 / k), error ** (-1 / k))
    most = np.where(accept, np.where(rows.held_back, 1.0, 10.0), 0.9)
    return dt * np.minimum(np.maximum(factor, 0.1), most)


def _leave(job: _Search, rows: _Rows, t: Numbers, error: Numbers, blame: Callable[[], Numbers]) -> _Rows:
    """Drop the rows that are through and, with their status, those that cannot go on; t is where their step began."""
    least = max(job.steps.dt_min, torch.finfo(job.dtype).tiny)
    stuck = rows.dt < np.maximum(16 * np.finfo(np.float64).eps * np.abs(t), least)
    spent = (job.accepted + job.rejected)[rows.sample] >= job.steps.max_steps
    through = rows.interval >= job.count[rows.sample]
    failed = (stuck | spent) & ~through
    if failed.any():
        small = np.where(np.isinf(error), int(Status.NON_FINITE_STATE), int(Status.STEP_SIZE_UNDERFLOW))
        who = rows.sample[failed]
        job.status[who] = np.where(stuck, small, int(Status.MAX_STEPS_REACHED))[failed]
        job.failed_at[who] = t[failed]
        job.blame[who] = blame()[failed]
    gone = through | failed
    return job.some(rows, (~gone).nonzero()[0]) if gone.any() else rows


def _progress(job: _Search, rows: _Rows) -> float:
    """The part of all rows' time that lies behind them; a row that left counts whole."""
    covered = job.time(rows) - job.start[0, rows.sample]
    ahead = 1 - covered / job.length.sum(0)[rows.sample]
    return 1 - float(np.minimum(np.maximum(ahead, 0.0), 1.0).sum()) / len(job.count)


def _collect(job: _Search) -> Found:
    shape = (int(job.accepted.max()) if len(job.count) else 0, len(job.count))
    interval, offset, dt = np.zeros(shape, dtype=np.int64), np.zeros(shape), np.zeros(shape)
    states = tree.map(lambda leaf: leaf.expand(shape[0] + 1, *leaf.shape).clone(), job.x0) if job.keep else None
    if job.log:
        sample, position, which, where, length = (np.concatenate(column) for column in zip(*job.log, strict=True))
        interval[position, sample], offset[position, sample], dt[position, sample] = which, where, length
        if states is not None:
            at = (job.tensor(position + 1), job.tensor(sample))
            reached = tree.map(lambda *leaves: torch.cat(leaves), job.states[0], *job.states[1:])
            states = tree.map(lambda leaf, new: leaf.index_put(at, new), states, reached)
    ends = (job.accepted, job.rejected, job.evaluations, job.status, job.failed_at, job.blame)
    each: list[Any] = [*map(job.tensor, (interval, offset, dt, *ends)), states]
    return Found(*each)
