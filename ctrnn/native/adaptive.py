"""Rate networks on adaptive steps: each row finds its own and writes down what is saved on the way, in compiled code.

The steps found are numbers: a gradient is that of the same steps taken again. A run is a pair of autograd Functions,
since a backward pass that is not itself one is out of the reach of torch.func.
"""

from collections.abc import Callable
from ctypes import addressof, c_double
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import debug_unwrap

from ctrnn.lowered import Nonlinearity, RateNetwork
from ctrnn.native._adaptive_twin import run_again
from ctrnn.native._pair import Maybe, OfRuns, Pullback, readable, second
from ctrnn.native.abi import address
from ctrnn.native.abi_adaptive import AdaptiveGradient, AdaptiveRun, AdaptiveSteps, Report
from ctrnn.native.library import call
from ctrnn.native.rate import CODES
from ctrnn.solvers.runge_kutta import EmbeddedRungeKutta, follows_tableau
from ctrnn.steps import Adaptive, Timeline

STAGES = 7  # of a method that the kernel has room for


class Inputs(NamedTuple):
    """Every Tensor on which a run depends."""

    x0: Float[Tensor, "row unit"]
    drive: Float[Tensor, "coefficient #interval #row unit"]  # W_in u + b
    W: Float[Tensor, "unit unit"]
    tau: Float[Tensor, "unit"]
    gain: Float[Tensor, "unit"] | None
    theta: Float[Tensor, "unit"] | None


class Steps(NamedTuple):
    """The accepted steps of all rows, one row after another."""

    first: Int[Tensor, "row+1"]  # where the steps of each row begin
    interval: Int[Tensor, "step"]  # of the timeline
    offset: Float[Tensor, "step"]  # from the start of the interval
    dt: Float[Tensor, "step"]


class Outcome(NamedTuple):
    """What a run leaves behind; `Found` in _search.py says what the rows tell of themselves."""

    xs: Float[Tensor, "save row unit"]
    reached: Tensor | None  # (save, row): otherwise xs holds any finite state; None: all are
    count: Int[Tensor, "row"]  # type: ignore[assignment]
    rejected: Int[Tensor, "row"]
    evaluations: Int[Tensor, "row"]
    status: Int[Tensor, "row"]
    failed_at: Float[Tensor, "row"]
    steps: Steps | None


@dataclass(frozen=True, eq=False)
class Plan:
    """What decides a run."""

    line: Timeline
    wanted: Float[Tensor, "save row"]
    solver: EmbeddedRungeKutta
    steps: Adaptive
    jumps: bool
    pre: Nonlinearity
    post: Nonlinearity
    keep: int
    threads: int
    progress: Callable[[float], None] | None


NOTHING, STEPS, STEPS_AND_STATES = range(3)  # what a run keeps besides its saves; a gradient needs the last


def covers(solver: Any) -> bool:
    """Whether the kernel makes a solver's steps: those of Runge-Kutta pairs that end in a slope and interpolate."""
    if not isinstance(solver, EmbeddedRungeKutta) or solver.error_order is None or not follows_tableau(solver):
        return False
    return solver.tableau.ends_in_slope and solver.tableau.dense is not None and len(solver.tableau.b) <= STAGES


def adaptive(
    network: RateNetwork, plan: Plan, x0: Float[Tensor, "row unit"], drive: Float[Tensor, "power #interval #row unit"]
) -> Outcome:
    """Every row on its own steps; `drive` is W_in u + b."""
    n = x0.shape[-1]
    tau, gain, theta = (None if v is None else v.expand(n) for v in (network.tau, network.gain, network.theta))
    inputs = Inputs(x0, drive, network.W_rec, tau, gain, theta)  # type: ignore[arg-type]  # tau is never None
    bare = plan.keep != STEPS_AND_STATES and all(v is None or debug_unwrap(v) is v for v in inputs)
    run: Any = _Adaptive.forward if bare else _Adaptive.apply  # a Function costs as much as many steps
    xs, holder, _, count, rejected, evaluations, status, failed_at, *made = run(plan, *inputs)
    reached = None if not holder.numel() or int(holder.min()) >= -1 else holder >= -1
    return Outcome(
        xs, reached, count, rejected, evaluations, status, failed_at, Steps(*made[:4]) if plan.keep else None
    )


class _Adaptive(OfRuns):
    """(inputs) -> (saves, what is known of them, of the rows, and of the steps)."""

    @staticmethod
    def forward(plan: Plan, *tensors: Maybe) -> tuple[Maybe, ...]:
        given = readable(Inputs(*tensors))  # type: ignore[arg-type]
        run, x0, (saves, rows) = _run(plan, given), given.x0, plan.wanted.shape
        xs, failed_at = x0.new_empty(saves, *x0.shape), torch.empty(rows, dtype=torch.float64)
        holder, fraction = torch.empty(saves, rows, dtype=torch.long), torch.empty(saves, rows, dtype=torch.float64)
        tally = [torch.empty(rows, dtype=torch.long) for _ in range(4)]
        run.xs, run.holder, run.fraction, run.failed_at = map(address, (xs, holder, fraction, failed_at))
        run.accepted, run.rejected, run.evaluations, run.status = map(address, tally)
        _searched(plan, run)
        made = _collected(plan, run, x0, tally[0]) if plan.keep else (None,) * 5
        return xs, holder, fraction, *tally, failed_at, *made

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Maybe, ...]) -> None:
        ctx.plan, *tensors = inputs
        holder, fraction, made = output[1], output[2], output[8:]
        ctx.mark_non_differentiable(*[extra for extra in output[1:] if extra is not None])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, holder, fraction, *made)

    @staticmethod
    def backward(ctx: Any, grad_xs: Maybe, *_: Any) -> tuple[Maybe, ...]:
        if grad_xs is None:
            return (None,) * 7
        return None, *_Pullback.apply(ctx.plan, tuple(ctx.needs_input_grad[1:]), grad_xs, *ctx.saved_tensors)

    @classmethod
    def vmap(cls, info: Any, in_dims: Any, *args: Any) -> NoReturn:
        del cls, info, in_dims, args
        raise ValueError(
            "a Tensor of the model is mapped by vmap, where no step can be accepted or rejected: give the batch as "
            "leading axes, which step on their own, or take steps=Fixed(dt)."
        )


class _Pullback(Pullback):
    """(gradient of the saves, inputs, what was found) -> gradients of the inputs wanted."""

    outputs = 1

    @staticmethod
    def forward(plan: Plan, wanted: tuple[bool, ...], grad_xs: Tensor, *tensors: Maybe) -> tuple[Maybe, ...]:
        assert plan.keep == STEPS_AND_STATES
        given, (holder, fraction, *made) = readable(Inputs(*tensors[:6])), tensors[6:]  # type: ignore[arg-type]
        run, grad_xs, (powers, intervals, width, n) = (
            _run(plan, given),
            grad_xs.resolve_neg().contiguous(),
            given.drive.shape,
        )
        run.holder, run.fraction = address(holder), address(fraction)
        zeros = [torch.zeros_like(v) if v is not None and flag else None for v, flag in zip(given, wanted, strict=True)]
        x0, drive, *rest = zeros
        if drive is not None:  # one for each row, though the rows may share a drive
            drive = given.drive.new_zeros(powers, intervals, run.rows, n)
        gradient = AdaptiveGradient(address(grad_xs), *map(address, (x0, *rest, drive)))
        if drive is not None:
            gradient.coefficient_stride, gradient.interval_stride, gradient.row_stride = _strides(drive)
        call("ctrnn_adaptive_pullback", run, AdaptiveSteps(*map(address, made)), gradient)
        if drive is not None and width < run.rows:
            drive = drive.sum(2, keepdim=True)
        return x0, drive, *rest

    @classmethod
    def backward(cls, ctx: Any, *twice: Maybe) -> tuple[Maybe, ...]:
        plan, (holder, fraction, *made) = ctx.plan, ctx.saved_tensors[7:]
        again = lambda *inputs: (run_again(plan, Inputs(*inputs), Steps(*made[:4]), holder, fraction),)
        return None, None, *second(again, ctx.wanted, ctx.needs_input_grad[2:], twice, ctx.saved_tensors, cls.outputs)


def _strides(drive: Tensor) -> list[int]:
    """From one power, interval and row to the next; 0 where one stands for all."""
    return [0 if size == 1 else step for size, step in zip(drive.shape[:3], drive.stride()[:3], strict=True)]


def _run(plan: Plan, given: Inputs) -> AdaptiveRun:
    line, steps, solver, method = plan.line, plan.steps, plan.solver, _method(plan.solver)
    run = AdaptiveRun(given.x0.dtype == torch.float32, *given.x0.shape, plan.threads)
    run.x0, run.drive, run.W, run.tau, run.gain, run.theta = map(address, given)
    run.pre, run.post = CODES[plan.pre], CODES[plan.post]
    run.coefficients, (run.coefficient_stride, run.interval_stride, run.row_stride) = (
        len(given.drive), _strides(given.drive),
    )  # fmt: skip
    run.intervals = len(line.start)
    run.start, run.length, run.count, run.interval, run.begin, run.width = map(address, line)
    run.stages, run.powers, run.error_order = len(solver.tableau.b), method.powers, solver.error_order
    run.a, run.b_error, run.c, run.dense = map(addressof, method.arrays)
    run.rtol, run.atol, run.dt0, run.dt_min = steps.rtol, steps.atol, steps.dt0 or 0.0, steps.dt_min
    run.jumps, run.max_steps, run.keep = plan.jumps, steps.max_steps, plan.keep
    run.saves, run.wanted = len(plan.wanted), address(plan.wanted)
    return run


class _Method(NamedTuple):
    """A tableau as the kernel reads it."""

    powers: int
    arrays: list[Any]  # weights of the stages, of the error, nodes, weights of dense output


@cache
def _method(solver: EmbeddedRungeKutta) -> _Method:
    tableau = solver.tableau
    assert tableau.b_error is not None
    assert tableau.dense is not None
    stages = len(tableau.b)
    square = [weight for row in tableau.a for weight in (*row, *[0.0] * (stages - len(row)))]
    dense = [weight for row in tableau.dense for weight in row]
    arrays = [(c_double * len(values))(*values) for values in (square, tableau.b_error, tableau.c, dense)]
    return _Method(len(tableau.dense[0]), arrays)


def _searched(plan: Plan, run: AdaptiveRun) -> None:
    """Search, and report how far it is; what a report raises ends the search and is raised here."""
    raised: list[BaseException] = []

    def report(done: float) -> int:
        try:
            assert plan.progress is not None
            plan.progress(done)
        except BaseException as error:
            raised.append(error)
        return len(raised)

    if plan.progress is not None:
        run.report = Report(report)
    call("ctrnn_adaptive_search", run)
    if raised:
        call("ctrnn_adaptive_discard", run)
        raise raised[0]


def _collected(plan: Plan, run: AdaptiveRun, x0: Tensor, count: Tensor) -> tuple[Maybe, ...]:
    """The steps that a search found, out of its log."""
    try:
        first = torch.zeros(len(count) + 1, dtype=torch.long)
        torch.cumsum(count, 0, out=first[1:])
        total = int(first[-1])
        interval = torch.empty(total, dtype=torch.long)
        offset, dt = torch.empty(total, dtype=torch.float64), torch.empty(total, dtype=torch.float64)
        states = x0.new_empty(total, x0.shape[-1]) if plan.keep == STEPS_AND_STATES else None
        made = (first, interval, offset, dt, states)
        call("ctrnn_adaptive_collect", run, AdaptiveSteps(*map(address, made)))
    finally:
        call("ctrnn_adaptive_discard", run)
    return made
