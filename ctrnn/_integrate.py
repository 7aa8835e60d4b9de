"""integrate: from a model, a drive and a start to a trajectory."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ctrnn import _check as check
from ctrnn import _grid as lay
from ctrnn import _tree as tree
from ctrnn._march import Noise, Source, march, noise_seeds
from ctrnn._search import Found, search
from ctrnn._types import State
from ctrnn.adjoints.backprop import Backprop
from ctrnn.adjoints.base import Adjoint, Problem
from ctrnn.drive import Drive, Function, Held, Sampled, Silence
from ctrnn.dynamics import Model
from ctrnn.errors import IntegrationError, MaxStepsReached, NonFiniteState, StepSizeUnderflow
from ctrnn.solvers.base import Solver, Step
from ctrnn.solvers.explicit import Tsit5
from ctrnn.solvers.relaxation import Euler, Iterate
from ctrnn.steps import Adaptive, At, Every, Fixed, Last
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
        drive: samples `us` (time, *batch, n_in), held for `dt` each (`us[k]` acts on (t_k, t_{k+1}] and produces `xs[k]`), or a `Drive`; None is silence.
        x0: state (*batch, ...) at the start; None is `model.initial_state(*batch)`.
        dt: length of a sample of `us` and of a fixed step, in the model's unit of time.
        t_span: start and end of the run, where the drive does not say, or a part of the drive's time. A gradient reaches Tensors.
        solver: how one step is made. Default: `Euler()` on fixed steps, `Tsit5()` on adaptive ones.
        steps: how long a step is: `Fixed(dt)` or `Adaptive(rtol, atol)`. Default: fixed with `dt`, adaptive without one.
        adjoint: how the run is differentiated.
        save: which states are kept. Default: those at the drive's sample times; without samples every fixed step, or the end of an adaptive run.
        noise: sigma of tau dx = (F - x) dt + sigma sqrt(2 tau) dW, a number, a Tensor, or one per part of the state: the stationary standard deviation of x for F = 0.
        generator: where the noise comes from; None is torch's own.
        progress: called now and then with the fraction done.
        on_failure: "raise" an IntegrationError that carries the partial trajectory, or "return" that trajectory with NaN where it was not reached.

    Raises:
        ValueError, TypeError: the arguments do not fit one another; the message says which, and what to do.
        StepSizeUnderflow, MaxStepsReached, NonFiniteState: the run could not go on.
    """
    if on_failure not in ("raise", "return"):
        raise ValueError(f'on_failure must be "raise" or "return", got {on_failure!r}.')
    drive, steps, solver = _resolve(model, drive, dt, t_span, solver, steps)
    check.arguments(model, drive, solver, steps, adjoint, noise)
    x0, batch = _start(model, drive, x0)
    check.values(model, drive, x0)
    run = _Run(model, drive, x0, batch, lay.stretches(drive, t_span), solver, steps, adjoint, save)
    own_rows = isinstance(drive, Sampled) and (
        drive.lengths is not None or (drive.edges is not None and drive.edges.ndim > 1)
    )
    if isinstance(steps, Adaptive) and not solver.own_steps:
        problem, plan, stats = _adaptive(run, progress)
    else:
        problem, plan, stats = _fixed(run, own_rows, progress)
        check.euler(model, solver, problem.grid)
    if noise is not None:
        shapes = tree.map(lambda leaf: torch.zeros_like(leaf.detach()), problem.x0)
        problem = problem._replace(noise=Noise(noise, noise_seeds(len(problem.grid.dt), generator), shapes))
    return _finish(run, problem, plan, stats, adjoint.run(problem), on_failure)


class _Run(NamedTuple):
    """The arguments of a run after they were resolved and checked."""

    model: Model
    drive: Drive
    x0: State
    batch: torch.Size
    spans: list[lay.Stretch]
    solver: Solver
    steps: Fixed | Adaptive
    adjoint: Adjoint
    save: Every | Last | At | None

    @property
    def device(self) -> torch.device:
        return tree.leaves(self.x0)[0].device


def _resolve(
    model: Model, drive: Any, dt: float | None, t_span: Any, solver: Solver | None, steps: Fixed | Adaptive | None
) -> tuple[Drive, Fixed | Adaptive, Solver]:
    """Defaults."""
    if not isinstance(model, Model):
        raise TypeError(
            f"integrate needs a ctrnn.Model, got {type(model).__name__}: wrap a torch cell with ctrnn.wrap(cell, tau=...)."
        )
    if dt is not None and not (isinstance(dt, (int, float)) and 0 < dt < math.inf):
        raise ValueError(f"dt must be a positive, finite number, got {dt!r}.")
    if isinstance(drive, Tensor):
        length = dt if dt is not None else 1.0 if isinstance(solver, Iterate) else None
        if length is None:
            raise ValueError(
                "A drive given as a Tensor needs dt, the time for which each sample is held: integrate(model, us, dt=...)."
            )
        drive = Held(drive, length, t0=0.0 if t_span is None else lay.number(t_span[0]))
    drive = Silence() if drive is None else drive
    if not isinstance(drive, Drive):
        raise TypeError(f"drive must be a Tensor (time, *batch, n_in) or a Drive, got {type(drive).__name__}.")
    if not isinstance(drive, Sampled):
        _check_span(drive, t_span)
    if steps is None:
        length = dt if dt is not None else drive.dt if isinstance(drive, Sampled) else None
        steps = Adaptive() if length is None else Fixed(length)
    return drive, steps, solver if solver is not None else Euler() if isinstance(steps, Fixed) else Tsit5()


def _check_span(drive: Drive, t_span: Any) -> None:
    if t_span is None:
        raise ValueError(f"{type(drive).__name__} does not say how long the run is: pass t_span=(start, end).")
    if not (
        isinstance(t_span, (tuple, list))
        and len(t_span) == 2
        and lay.number(t_span[0]) < lay.number(t_span[1]) < math.inf
    ):
        raise ValueError(f"t_span must be (start, end) with start < end, got {t_span!r}.")


def _start(model: Model, drive: Drive, x0: State | None) -> tuple[State, torch.Size]:
    """The initial state with the batch axes of the run, and these axes."""
    driven = drive.us.shape[1:-1] if isinstance(drive, Sampled) else torch.Size()
    if x0 is None:
        return model.initial_state(*driven), driven
    events = check.state(model, x0)
    given = tree.leaves(x0)[0].shape
    batch = given[: len(given) - events[0]]
    if driven and batch and driven != batch:
        raise ValueError(f"The drive has the batch shape {tuple(driven)}, x0 has {tuple(batch)}: give both the same.")
    if driven and not batch:
        batch = driven
        x0 = tree.map(lambda leaf: leaf.expand(*batch, *leaf.shape), x0)
    if 0 in batch:
        raise ValueError(f"The batch is empty: x0 or the drive has the batch shape {tuple(batch)}.")
    return x0, batch


def _source(run: _Run, rows: bool) -> Source:
    """The drive resolved to values; with `rows` the batch is one axis."""
    batch = (run.batch.numel(),) if rows else run.batch
    like = tree.leaves(run.x0)[0]
    silence = like.new_zeros(max(run.model.n_in or 0, 0)).expand(*batch, -1)
    if isinstance(run.drive, Function):
        return Source((), _flat_function(run.drive.fn, run.batch) if rows else run.drive.fn, silence)
    if not isinstance(run.drive, Sampled):
        return Source((), None, silence)
    full = (
        coefficient.expand(-1, *run.batch, -1) if coefficient.ndim == 2 and run.batch else coefficient
        for coefficient in run.drive.coefficients
    )
    return Source(tuple(c.reshape(c.shape[0], *batch, c.shape[-1]) for c in full), None, silence)


def _flat_function(fn: Callable[[Tensor], Tensor], batch: torch.Size) -> Callable[[Tensor], Tensor]:
    def flat(t: Tensor) -> Tensor:
        u = fn(t.reshape(*batch, 1) if t.ndim and t.shape[0] == batch.numel() else t)
        return u.expand(*batch, -1).reshape(batch.numel(), -1)

    return flat


def _rows(run: _Run) -> State:
    count = len(run.batch)
    return tree.map(lambda leaf: leaf.reshape(run.batch.numel(), *leaf.shape[count:]), run.x0)


def _fixed(run: _Run, rows: bool, progress: Callable[[float], None] | None) -> tuple[Problem, lay.Plan, Stats]:
    steps = run.steps if isinstance(run.steps, Fixed) else Fixed(max(lay.number(s.length) for s in run.spans))
    plan = lay.fixed(run.drive, run.spans, steps, run.save, run.batch, run.device)
    solver = run.solver if isinstance(run.steps, Fixed) else run.solver.with_tolerances(run.steps)
    x0 = tree.map(lambda leaf: leaf.index_select(0, plan.grid.order), _rows(run)) if rows else run.x0
    problem = Problem(Step(run.model, solver), plan.grid, x0, _source(run, rows), None, progress)
    count = torch.full((run.batch.numel(),), len(plan.grid.dt), device=run.device)
    if plan.grid.live is not None and plan.grid.order is not None:
        live = torch.tensor(plan.grid.live, device=run.device)
        count = torch.zeros_like(count).index_copy(
            0, plan.grid.order, (live[:, None] > torch.arange(len(count), device=run.device)).sum(0)
        )
    zeros = torch.zeros_like(count)
    return problem, plan, Stats(count, zeros, count * run.solver.evaluations, zeros)


def _adaptive(run: _Run, progress: Callable[[float], None] | None) -> tuple[Problem, lay.Plan, Stats]:
    assert isinstance(run.steps, Adaptive)
    lengths = run.drive.lengths if isinstance(run.drive, Sampled) else None
    x0, source, step = _rows(run), _source(run, True), Step(run.model, run.solver)
    line = lay.timeline(run.spans, lengths, run.batch.numel(), run.device)
    jumps = isinstance(run.drive, (Held, Function))
    found = search(step, tree.map(Tensor.detach, x0), source, line, run.steps, jumps, progress)
    plan = lay.adaptive(run.drive, run.spans, line, found, run.save, run.batch)
    x0 = tree.map(lambda leaf: leaf.index_select(0, plan.grid.order), x0)
    return Problem(step, plan.grid, x0, source), plan, _stats(found)


def _stats(found: Found) -> Stats:
    return Stats(found.count, found.rejected, found.evaluations, found.status)


def _finish(
    run: _Run, problem: Problem, plan: lay.Plan, stats: Stats, saved: list[State], on_failure: str
) -> Trajectory:
    """Put the saved states in place, look for failures, and build the trajectory."""
    like = problem.x0
    if plan.index is None:
        xs = tree.map(lambda *leaves: torch.stack(leaves), *saved) if isinstance(like, tuple) else torch.stack(saved)  # type: ignore[arg-type]
    else:
        index = plan.index
        rows = tree.map(lambda *leaves: torch.cat(leaves), *saved) if saved else tree.map(lambda leaf: leaf[:1], like)
        xs = tree.map(lambda leaf: _placed(leaf, index, run.batch), rows)
    finite = all(check.finite(leaf) for leaf in tree.leaves(xs))
    if not finite and plan.grid.order is None:
        stats = stats._replace(status=_broken(xs, len(run.batch)) * int(Status.NON_FINITE_STATE))
    elif not finite:
        reached = (plan.index >= 0).reshape(-1, *run.batch) if plan.index is not None else None
        broken = _broken(xs, len(run.batch), reached).reshape(-1)
        stats = stats._replace(
            status=torch.where((stats.status == 0) & broken.bool(), int(Status.NON_FINITE_STATE), stats.status)
        )
    stats = Stats(*[value.reshape(run.batch) for value in stats])
    trajectory = Trajectory(plan.ts, xs, _drive_at(run, plan), run.model.readout(xs), plan.mask, stats)
    if finite or on_failure == "return" or not bool(stats.status.any()):
        return trajectory
    raise _error(run, problem, tree_detached(trajectory))


def _placed(rows: Tensor, index: Tensor, batch: torch.Size) -> Tensor:
    values = rows.index_select(0, index.reshape(-1).clamp(min=0)).reshape(*index.shape, *rows.shape[1:])
    if bool((index < 0).any()):
        values = torch.where((index < 0).reshape(*index.shape, *[1] * (rows.ndim - 1)), torch.nan, values)
    return values.reshape(index.shape[0], *batch, *rows.shape[1:])


def _broken(xs: State, batch_ndim: int, reached: Tensor | None = None) -> Tensor:
    """Samples (*batch,) that hold a value that is not finite where one was reached."""
    bad = torch.zeros((), dtype=torch.bool)
    for leaf in tree.leaves(xs):
        wrong = ~torch.isfinite(leaf.detach()).reshape(*leaf.shape[: 1 + batch_ndim], -1).all(-1)
        bad = bad.to(wrong.device) | (wrong if reached is None else wrong & reached)
    return bad.any(0).long()


def _drive_at(run: _Run, plan: lay.Plan) -> Tensor | None:
    """The drive at the saved times: at an edge, that of the interval before it."""
    if isinstance(run.drive, Function):
        return torch.stack(
            [
                run.drive.fn(t if t.ndim == 0 else t[..., None]).expand(*run.batch, -1)
                for t in plan.ts.detach().unbind(0)
            ]
        )
    if not isinstance(run.drive, Sampled):
        return None
    interval, fraction = plan.place
    if isinstance(run.drive, Held) and torch.equal(interval.cpu(), torch.arange(run.drive.count)):
        return run.drive.us
    values = [coefficient.index_select(0, interval) for coefficient in run.drive.coefficients]
    s = fraction.reshape(-1, *[1] * (values[0].ndim - 1)).to(values[0].dtype)
    total = values[-1]
    for value in values[-2::-1]:
        total = value + s * total
    return total


def tree_detached(trajectory: Trajectory) -> Trajectory:
    """The trajectory without its graph."""
    return Trajectory(
        *[tree.map(Tensor.detach, value) if isinstance(value, (Tensor, tuple)) else value for value in trajectory]
    )


_KNOBS = {
    Status.STEP_SIZE_UNDERFLOW: (
        StepSizeUnderflow,
        "no step above dt_min meets the tolerances. Loosen rtol and atol, or use a stiff solver (ctrnn.Rodas4())",
    ),
    Status.MAX_STEPS_REACHED: (
        MaxStepsReached,
        "max_steps were used up. Raise Adaptive(max_steps=...), loosen the tolerances, or use a stiff solver (ctrnn.Rodas4())",
    ),
    Status.NON_FINITE_STATE: (
        NonFiniteState,
        "the state became NaN or infinite. Take smaller steps, or bound the weights or the activation",
    ),
}


def _error(run: _Run, problem: Problem, trajectory: Trajectory) -> IntegrationError:
    status = trajectory.stats.status.reshape(-1)
    first = int(status.nonzero()[0, 0])
    sample = tuple(int(i) for i in torch.unravel_index(torch.tensor(first), run.batch)) if run.batch else ()
    kind, knob = _KNOBS[Status(int(status[first]))]
    step, t, part = _where_it_broke(problem, first)
    who = f" of sample {sample[0] if len(sample) == 1 else sample}" if sample else ""
    which = f", part {part!r} of the state" if part else ""
    message = f"{type(run.model).__name__} stopped at t = {t:g}, step {step}{who}{which}: {knob}."
    if int((status > 0).sum()) > 1:
        message += f" {int((status > 0).sum())} of {len(status)} samples failed."
    return kind(message, t=t, step=step, sample=sample, part=part, trajectory=trajectory)


def _where_it_broke(problem: Problem, sample: int) -> tuple[int, float, str]:
    """Repeat the run without gradients until the sample's state is not finite; its last step if it never is."""
    grid, x, noise = problem.grid, problem.x0, problem.noise
    row = sample if grid.order is None else int((grid.order == sample).nonzero()[0, 0])
    step, t = 0, 0.0
    with torch.no_grad():
        for k in range(len(grid.dt)):
            if grid.live is not None and grid.live[k] <= row:
                break
            one = grid.part(k, k + 1)._replace(saved=[()], initial=False)
            x, _ = march(problem.step, one, x, problem.source, None if noise is None else noise._replace(offset=k))
            step, t = k, lay.number(_of_row(grid.t[k], row, grid)) + lay.number(_of_row(grid.dt[k], row, grid))
            for name, leaf in tree.named(x):
                flat = leaf.reshape(-1, *leaf.shape[len(leaf.shape) - (leaf.ndim - _batch_ndim(problem, leaf)) :])
                if not bool(torch.isfinite(flat[row]).all()):
                    return step, t, name
    return step, t, ""


def _batch_ndim(problem: Problem, leaf: Tensor) -> int:
    if problem.grid.live is not None:
        return 1
    events = check.events(problem.step.model, problem.x0)
    return tree.leaves(problem.x0)[0].ndim - events[0] if events else leaf.ndim - 1


def _of_row(value: Any, row: int, grid: Any) -> Any:
    return value[row, 0] if isinstance(value, Tensor) and value.ndim > 0 and grid.live is not None else value
