"""integrate: from a model, a drive and a start to a trajectory."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ctrnn import _check as check
from ctrnn import _failure as failure
from ctrnn import _tree as tree
from ctrnn._compiled_adaptive import compiled
from ctrnn._derivative import moves
from ctrnn._grid import Plan, fixed
from ctrnn._grid_adaptive import Asked, adaptive, asked, timeline
from ctrnn._march import Noise, Source, noise_seeds
from ctrnn._read_off import read_off
from ctrnn._search import Found, search
from ctrnn._stretches import Stretch, cut_at_ticks, number, stretches
from ctrnn._types import State
from ctrnn.adjoints.backprop import Backprop
from ctrnn.adjoints.backsolve import Backsolve
from ctrnn.adjoints.base import Adjoint, Problem
from ctrnn.drive import Drive, Function, Held, Piece, Sampled, Silence
from ctrnn.dynamics import Model, Relaxation
from ctrnn.native.adaptive import Outcome
from ctrnn.solvers.base import Solver, Step
from ctrnn.solvers.explicit import Tsit5
from ctrnn.solvers.relaxation import Euler, Iterate
from ctrnn.steps import Adaptive, At, Every, Fixed, Grid, Last
from ctrnn.trajectory import Stats, Status, Trajectory


def integrate(
    model: Model,
    drive: Float[Tensor, "time *batch input"] | Drive | None = None,
    x0: State | None = None,
    *,
    dt: float | None = None,
    t_span: tuple[float | Tensor, float | Tensor] | None = None,
    solver: Solver | None = None,
    steps: Fixed | Adaptive | None = None,
    adjoint: Adjoint = Backprop(),  # noqa: B008  a frozen value
    save: Every | Last | At | None = None,
    noise: float | State | None = None,
    generator: Generator | None = None,
    progress: Callable[[float], None] | None = None,
    on_failure: Literal["raise", "return"] = "raise",
) -> Trajectory:
    """Integrate tau dx/dt = F(t, x, u) - x, or any dx/dt = model(t, x, u).

    Args:
        model: the network.
        drive: samples `us` (time, *batch, n_in), held for `dt` each (`us[k]` acts on (t_k, t_{k+1}] and produces
            `xs[k]`), or a `Drive`; None is silence.
        x0: state (*batch, ...) at the start; None is `model.initial_state(*batch)`.
        dt: length of a sample of `us` and of a fixed step, in the model's unit of time.
        t_span: start and end of the run, where the drive does not say, or a part of the drive's time; with samples
            `us`, the start is when `us[0]` begins. A gradient reaches Tensors.
        solver: how one step is made. Default: `Euler()` on fixed steps, `Tsit5()` on adaptive ones.
        steps: how long a step is, `Fixed(dt)` or `Adaptive(rtol, atol)`. Default: fixed with `dt`, adaptive without.
        adjoint: how the run is differentiated.
        save: which states are kept. Default: those at the drive's sample times; without samples every fixed step, or
            the end of an adaptive run.
        noise: sigma of tau dx = (F - x) dt + sigma sqrt(2 tau) dW, a number, a Tensor that broadcasts against the
            state, or one per part of the state: the stationary standard deviation of x for F = 0.
        generator: where the noise comes from; None is torch's own.
        progress: called now and then with the fraction done, and with 1.0 at the end.
        on_failure: "raise" an IntegrationError that carries the partial trajectory, or "return" that trajectory with
            NaN where it was not reached.

    Raises:
        ValueError, TypeError: the arguments do not fit one another; the message says which, and what to do.
        StepSizeUnderflow, MaxStepsReached, NonFiniteState: the run could not go on.
    """
    check.options(model, dt, t_span, save, generator, progress, on_failure)
    drive, steps, solver = _resolve(drive, dt, t_span, solver, steps)
    check.arguments(drive, t_span, solver, steps, adjoint, save, noise)
    check.clock(model, solver, isinstance(adjoint, Backsolve))
    x0, batch = check.start(model, drive.us.shape[1:-1] if isinstance(drive, Sampled) else torch.Size(), x0)
    check.values(model, drive, x0, steps)
    check.function(model, drive, t_span, batch, steps)
    if noise is not None:
        check.sigma(model, solver, noise, x0)
    solver = adjoint.solver(solver, steps)
    spans = stretches(drive, t_span)
    if isinstance(model, Relaxation) and model.clock is not None and not solver.whole:
        spans = cut_at_ticks(spans, model.clock, steps.dt if isinstance(steps, Fixed) else None)
    run = Run(model, drive, x0, batch, spans, solver, steps, save, progress)
    whole = isinstance(adjoint, Backprop) or not torch.is_grad_enabled()
    laid = _adaptive(run, whole) if isinstance(steps, Adaptive) and not solver.own_steps else _fixed(run)
    check.euler(model, solver, laid.problem.grid)
    if noise is not None:
        laid = laid._replace(problem=laid.problem._replace(noise=_noise(run, laid.problem, noise, generator)))
    trajectory = _trajectory(run, laid, laid.saves or _saves(run, laid, adjoint))
    if progress is not None:
        progress(1.0)
    if on_failure == "raise" and bool(trajectory.stats.status.any()):
        laid = laid if laid.saves is None else _adaptive(run._replace(progress=None), whole=False)
        raise failure.error(laid.problem, laid.found, batch, trajectory)
    return trajectory


class Run(NamedTuple):
    """The arguments of a run after they were resolved and checked."""

    model: Model
    drive: Drive
    x0: State
    batch: torch.Size
    spans: Sequence[Stretch]
    solver: Solver
    steps: Fixed | Adaptive
    save: Every | Last | At | None
    progress: Callable[[float], None] | None

    @property
    def device(self) -> torch.device:
        return tree.leaves(self.x0)[0].device


class Saves(NamedTuple):
    """The saved states (save, *batch, ...), and which were reached (None: all); the others hold any finite state."""

    xs: State
    reached: Tensor | None


class Laid(NamedTuple):
    """A run laid out as steps: what the adjoint runs, how that becomes a trajectory, and what the search found."""

    problem: Problem
    plan: Plan
    stats: Stats  # one for each of the flattened batch
    found: Found | None = None
    saves: Saves | None = None  # of a run that is made already


def _resolve(
    drive: Any, dt: float | None, t_span: Any, solver: Solver | None, steps: Fixed | Adaptive | None
) -> tuple[Drive, Fixed | Adaptive, Solver]:
    """Defaults."""
    if isinstance(drive, Tensor):
        length = 1.0 if dt is None and isinstance(solver, Iterate) else dt
        if length is None:
            raise ValueError(
                "A drive given as a Tensor needs dt, the time for which each sample is held: "
                "integrate(model, us, dt=...)."
            )
        drive = Held(drive, length, t0=0.0 if t_span is None else number(t_span[0]))
    elif dt is not None and steps is not None:
        raise ValueError(f"dt = {dt:g} and steps = {steps!r} both say how long a step is: pass one of them.")
    drive = Silence() if drive is None else drive
    if not isinstance(drive, Drive):
        raise TypeError(
            f"drive must be a Tensor (time, *batch, n_in) or a Drive, got {type(drive).__name__}: "
            "convert arrays and lists with torch.as_tensor, wrap a function of time with ctrnn.Function."
        )
    if steps is None:
        length = dt if dt is not None else drive.dt if isinstance(drive, Sampled) else None
        steps = Adaptive() if length is None else Fixed(length)
    return drive, steps, solver if solver is not None else Euler() if isinstance(steps, Fixed) else Tsit5()


def _source(run: Run, rows: bool) -> Source:
    """The drive resolved to values; with `rows` the batch is one axis."""
    batch = torch.Size((run.batch.numel(),)) if rows else run.batch
    like = tree.leaves(run.x0)[0]
    silence = like.new_zeros(run.model.n_in or 0).expand(*batch, -1)
    if isinstance(run.drive, Function):
        return Source((), _values(run.drive.fn, run.batch, batch, like.dtype), silence)
    if not isinstance(run.drive, Sampled):
        return Source((), None, silence)
    return Source(tuple(_batched(c, run.batch, batch) for c in run.drive.coefficients), None, silence)


def _batched(column: Tensor, batch: torch.Size, shape: torch.Size) -> Tensor:
    """(interval, input) or (interval, *batch, input) as (interval, *shape, input)."""
    count, n_in = column.shape[0], column.shape[-1]
    if column.ndim == 2:
        column = column.reshape(count, *[1] * len(batch), n_in).expand(-1, *batch, -1)
    return column.reshape(count, *shape, n_in)


def _values(
    fn: Callable[[Tensor], Tensor], batch: torch.Size, shape: torch.Size, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """A drive's function as one of the times (row, 1) of a flat batch, or of one time, with values (*shape, input)."""

    def values(t: Tensor) -> Tensor:
        u = fn(t.reshape(*batch, 1) if t.ndim else t).to(dtype)
        return u.expand(*batch, -1).reshape(*shape, u.shape[-1])

    return values


def _fixed(run: Run) -> Laid:
    """Fixed steps; a solver with steps of its own takes them inside one step for each stretch."""
    if isinstance(run.steps, Fixed):
        steps, solver, save = run.steps, run.solver, run.save
    else:
        steps, solver = Fixed(max(number(s.length) for s in run.spans)), run.solver.with_tolerances(run.steps)
        save = run.save if run.save is not None or isinstance(run.drive, Sampled) else Last()
    plan = fixed(run.drive, run.spans, steps, save, run.batch, run.device)
    order, count = plan.grid.order, torch.full((run.batch.numel(),), len(plan.grid.dt), device=run.device)
    x0 = run.x0 if order is None else _rows(run, order)
    problem = Problem(Step(run.model, solver), plan.grid, x0, _source(run, order is not None), None, run.progress)
    if order is not None and plan.grid.live is not None:
        live = torch.tensor(plan.grid.live, dtype=torch.long, device=run.device)
        count = count.index_copy(0, order, (live[:, None] > torch.arange(len(order), device=run.device)).sum(0))
    zeros = torch.zeros_like(count)
    return Laid(problem, plan, Stats(count, zeros, count * run.solver.evaluations, zeros))


def _adaptive(run: Run, whole: bool) -> Laid:
    """Steps that a search finds for each sample; half of the progress is the search's, half the run's.

    `whole` allows a kernel to make the whole run while it searches.
    """
    assert isinstance(run.steps, Adaptive)
    report, source, step = run.progress, _source(run, True), Step(run.model, run.solver)
    ends = run.drive.ends if isinstance(run.drive, Sampled) else None
    line, moving = timeline(run.spans, ends, run.batch.numel(), run.device)
    wanted = asked(run.drive, run.spans, line, moving, run.save, run.batch)
    jumps = isinstance(run.drive, (Held, Function))
    if whole and source.function is None and not any(map(moves, (*moving, wanted.wanted))):
        done = compiled(step, _rows(run), source.coefficients, line, run.steps, jumps, wanted.wanted, report)
        if done is not None:
            return _done(run, step, source, wanted, done)
    looked = None if report is None else lambda done: report(done / 2)
    keep = not torch.is_grad_enabled()
    found = search(step, tree.map(Tensor.detach, _rows(run)), source, line, run.steps, jumps, keep, looked)
    plan = adaptive(line, moving, found, wanted)
    went = None if report is None else lambda done: report(0.5 + done / 2)
    problem = Problem(step, plan.grid, _rows(run, plan.grid.order), source, None, went)
    return Laid(problem, plan, Stats(found.count, found.rejected, found.evaluations, found.status), found)


def _done(run: Run, step: Step, source: Source, wanted: Asked, done: Outcome) -> Laid:
    """A run that a kernel has made: no step is left to take."""
    grid = Grid((), (), (), (), (), (), torch.from_numpy(np.arange(len(done.count))), False, ())
    xs = done.xs.reshape(-1, *run.batch, done.xs.shape[-1])
    saves = Saves(xs, None if done.reached is None else done.reached.reshape(-1, *run.batch))
    plan = Plan(grid, wanted.ts, None, wanted.mask, wanted.place)
    stats = Stats(done.count, done.rejected, done.evaluations, done.status)
    return Laid(Problem(step, grid, run.x0, source), plan, stats, None, saves)


def _rows(run: Run, order: Tensor | None = None) -> State:
    """The initial state with the batch as one axis, in the given order."""
    count, axes = run.batch.numel(), len(run.batch)
    flat = tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[axes:]), run.x0)
    return flat if order is None else tree.map(lambda leaf: leaf.index_select(0, order), flat)


def _noise(run: Run, problem: Problem, sigma: Any, generator: Generator | None) -> Noise:
    """The noise of a run, sigma with the batch axes of its state or none."""

    def fit(s: Any, given: Tensor, leaf: Tensor) -> Tensor:
        s = torch.as_tensor(s, dtype=leaf.dtype, device=leaf.device)
        per_sample = s.ndim > given.ndim - len(run.batch)
        return s.expand(given.shape).reshape(leaf.shape) if per_sample else s

    shapes = tree.map(lambda leaf: torch.zeros_like(leaf.detach()), problem.x0)
    sigma = tree.map(fit, tree.spread(sigma, run.x0), run.x0, shapes)
    return Noise(sigma, noise_seeds(len(problem.grid.dt), generator), shapes)


def _trajectory(run: Run, laid: Laid, saves: Saves) -> Trajectory:
    """Read the saved states out, and look for failures."""
    plan, (xs, reached) = laid.plan, saves
    ys, stats = run.model.readout(xs), laid.stats
    # A run that is made already knows of itself.
    if laid.saves is None and not all(check.finite(leaf) for leaf in tree.leaves(xs)):
        broken = _broken(xs, len(run.batch), reached).reshape(-1)
        status = torch.where((stats.status == 0) & broken, int(Status.NON_FINITE_STATE), stats.status)
        stats = stats._replace(status=status)
    if reached is not None:
        # After the readout: NaN in what it reads would reach the gradient of its weights.
        xs, ys = tree.map(lambda leaf: torch.where(_like(reached, leaf), leaf, torch.nan), (xs, ys))
    stats = Stats(*[value.reshape(run.batch) for value in stats])
    return Trajectory(plan.ts, xs, _drive_at(run, laid), ys, plan.mask, stats)


def _saves(run: Run, laid: Laid, adjoint: Adjoint) -> Saves:
    """Take the steps, and put the saved states in place."""
    kept = None if laid.found is None else laid.found.states
    saved = adjoint.run(laid.problem) if kept is None else read_off(laid.problem, kept)
    index = laid.plan.rows
    if index is None:
        return Saves(saved, None)
    rows = saved if len(tree.leaves(saved)[0]) else laid.problem.x0
    flat = index.clamp(min=0).reshape(-1)
    xs = tree.map(lambda leaf: leaf.index_select(0, flat).reshape(len(index), *run.batch, *leaf.shape[1:]), rows)
    reached = (index >= 0).reshape(len(index), *run.batch)
    return Saves(xs, None if bool(reached.all()) else reached)


def _broken(xs: State, axes: int, reached: Tensor | None) -> Tensor:
    """Samples (*batch,) that hold a value that is not finite where one was reached."""
    wrong = [~torch.isfinite(leaf.detach()).flatten(1 + axes).all(-1) for leaf in tree.leaves(xs)]
    bad = torch.stack(wrong).any(0)
    return (bad if reached is None else bad & reached).any(0)


def _like(mask: Tensor, leaf: Tensor) -> Tensor:
    return mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim))


def _drive_at(run: Run, laid: Laid) -> Tensor | None:
    """The drive at the saved times (save, *batch, input): at an edge, that of the interval before it."""
    function, place = laid.problem.source.function, laid.plan.place
    if function is not None:
        times = laid.plan.ts.detach()
        if laid.plan.grid.order is not None:  # as in the run, each sample has its own time
            times = times[:, None, None].expand(-1, run.batch.numel(), 1).to(tree.leaves(run.x0)[0].dtype)
        us = torch.stack([function(t) for t in times.unbind(0)])
        return us.reshape(len(us), *run.batch, us.shape[-1])
    if not isinstance(run.drive, Sampled) or place is None:
        return None
    interval, fraction = place
    rows = interval.ndim > 1
    source = laid.problem.source if rows == (laid.plan.grid.order is not None) else _source(run, rows)
    columns = source.coefficients
    if len(columns) == 1 and torch.equal(interval, torch.arange(run.drive.count, device=interval.device)):
        return columns[0]
    sample = (torch.arange(interval.shape[1], device=interval.device),) if rows else ()
    pieces = tuple(column[(interval, *sample)] for column in columns)
    us = Piece(pieces, _like(fraction, pieces[0]), 0.0)(0.0)
    return us.reshape(len(us), *run.batch, us.shape[-1])
