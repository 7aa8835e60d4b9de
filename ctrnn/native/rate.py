"""x <- lerp(x, F, alpha), or a Runge-Kutta step of tau dx/dt = F - x, for a rate network: whole runs in compiled code.

A run is a pair of autograd Functions, since a backward pass that is not itself one is out of the reach of torch.func.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ctrnn._derivative import moves
from ctrnn.lowered import Nonlinearity, RateNetwork
from ctrnn.native._pair import OfRuns, Pullback, into_inputs, linear, plain_run, readable
from ctrnn.native.abi import RateBack, RateRun, address, fixed_steps
from ctrnn.native.library import call
from ctrnn.native.schedule import Schedule

CODES: dict[Nonlinearity, int] = {"identity": 0, "tanh": 1, "relu": 2, "sigmoid": 3, "softplus": 4, "retanh": 5}


class Inputs(NamedTuple):
    """Every Tensor on which a run depends."""

    x0: Float[Tensor, "row unit"]
    drive: Float[Tensor, "coefficient interval row input"]  # u; one row or one interval stands for all
    W_in: Float[Tensor, "unit input"] | None
    b: Float[Tensor, "unit"] | None
    W: Float[Tensor, "unit unit"]
    rates: Float[Tensor, "kind unit"]  # alpha of a lerp, dt / tau of Runge-Kutta
    gain: Float[Tensor, "unit"] | None
    theta: Float[Tensor, "unit"] | None
    kicks: Float[Tensor, "step row unit"] | None  # added after each step


@dataclass(frozen=True, eq=False)
class Plan:
    """What decides a run: its steps, its activations, and whether its gradient needs all states, and all targets."""

    schedule: Schedule
    pre: Nonlinearity
    post: Nonlinearity
    differentiated: bool
    targets: bool
    threads: int


def rate(
    network: RateNetwork,
    schedule: Schedule,
    x0: Float[Tensor, "row unit"],
    drive: Float[Tensor, "coefficient #interval #row input"],
    rates: Float[Tensor, "kind unit"],
    kicks: Float[Tensor, "step row unit"] | None,
) -> tuple[Float[Tensor, "slot row unit"], Float[Tensor, "row unit"]]:
    """The states that the schedule keeps, and the one at the end.

    `drive` is u, `rates` alpha of a lerp or dt / tau, and `kicks` are added after each step.
    """
    gain, theta = (None if value is None else value.expand(x0.shape[-1]) for value in (network.gain, network.theta))
    inputs = Inputs(x0, drive, network.W_in, network.b, network.W_rec, rates, gain, theta, kicks)
    differentiated = torch.is_grad_enabled() and any(map(moves, inputs))
    # Without a learned tau, W r + v itself need not be known: its slope is 1, whatever it is.
    targets = differentiated and schedule.tableau is None and (network.post != "identity" or moves(rates))
    plan = Plan(schedule, network.pre, network.post, differentiated, targets, torch.get_num_threads())
    xs, end, *_ = _Rate.apply(plan, *inputs)
    return xs, end


class _Rate(OfRuns):
    """(inputs) -> (states kept, state at the end, and for the gradient: all states, all targets)."""

    @staticmethod
    def forward(plan: Plan, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        given, schedule = readable(Inputs(*tensors)), plan.schedule  # type: ignore[arg-type]
        x0, (rows, n) = given.x0, given.x0.shape
        every = plan.differentiated and schedule.keep is not None
        steps = schedule._replace(keep=None, slots=schedule.steps) if every else schedule
        states, end = x0.new_empty(steps.slots, rows, n), torch.empty_like(x0)
        targets = x0.new_empty(schedule.steps, rows, n) if plan.targets else None
        run = _run(plan, steps, given)
        run.xs, run.end, run.targets = map(address, (states, end, targets))
        call("ctrnn_rate_forward", run)
        if not every:
            return states, end, None, targets
        assert schedule.keep is not None
        return states[schedule.keep >= 0], end, states, targets

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        ctx.plan, *tensors = inputs
        xs, _, states, targets = output
        ctx.mark_non_differentiable(*[extra for extra in (states, targets) if extra is not None])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, xs if states is None else states, targets)

    @staticmethod
    def backward(ctx: Any, grad_xs: Tensor | None, grad_end: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        wanted = tuple(ctx.needs_input_grad[1:])
        return None, *_Pullback.apply(ctx.plan, wanted, grad_xs, grad_end, *ctx.saved_tensors)


class _Pullback(Pullback):
    """(gradients of the states kept and of the end, inputs, states, targets) -> gradients of the inputs wanted."""

    outputs = 2

    @staticmethod
    def forward(plan: Plan, wanted: tuple[bool, ...], *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_xs, grad_end, *rest = tensors
        *given, states, targets = rest
        inputs, want = readable(Inputs(*given)), Inputs(*wanted)  # type: ignore[arg-type]
        x0, schedule, (rows, n) = inputs.x0, plan.schedule, inputs.x0.shape
        shape = (max(schedule.stages, 1), schedule.steps, rows, n)
        delta = x0.new_empty(shape) if want.drive else None
        each = {"W": (n, n), "W_in": (n, inputs.drive.shape[-1]), "b": (n,), "kicks": shape[1:]}
        each |= {"rates": (rows, len(inputs.rates), n), "gain": (rows, n), "theta": (rows, n)}
        found = {name: x0.new_empty(size) for name, size in each.items() if getattr(want, name)}
        back, run = RateBack(), _run(plan, schedule, inputs)
        contiguous = [None if g is None else g.resolve_neg().contiguous() for g in (grad_xs, grad_end)]
        grad_x0 = torch.empty_like(x0)
        back.states, back.targets = map(address, (states, targets))
        back.grad_xs, back.grad_end = map(address, contiguous)
        back.keep_of_grad = address(schedule.keep)
        back.delta, back.grad_x0 = map(address, (delta, grad_x0))
        for name in each:
            setattr(back, f"grad_{name}", address(found.get(name)))
        call("ctrnn_rate_backward", run, back)
        return (
            grad_x0 if want.x0 else None,
            into_inputs(delta, inputs, schedule, (wanted[1], False, False))[0],
            *map(found.get, ("W_in", "b", "W")),
            *[found[name].sum(0) if name in found else None for name in ("rates", "gain", "theta")],
            found.get("kicks"),
        )

    @staticmethod
    def plain(plan: Plan, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        return _plain(plan, Inputs(*inputs))  # type: ignore[arg-type]


def _run(plan: Plan, schedule: Schedule, inputs: Inputs) -> RateRun:
    run = RateRun(threads=plan.threads, pre=CODES[plan.pre], post=CODES[plan.post])
    fixed_steps(run, schedule, inputs.x0, inputs)
    run.W, run.gain, run.theta = map(address, (inputs.W, inputs.gain, inputs.theta))
    return run


PLAIN: dict[Nonlinearity, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "retanh": lambda x: torch.relu(torch.tanh(x)),
}


def _plain(plan: Plan, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The same run in plain torch."""
    pre, post = PLAIN[plan.pre], PLAIN[plan.post]

    def target(x: Tensor, u: Tensor) -> Tensor:
        z = x if inputs.gain is None else inputs.gain * x
        z = z if inputs.theta is None else z + inputs.theta
        return post(F.linear(pre(z), inputs.W) + linear(u, inputs.W_in, inputs.b))

    return plain_run(target, plan.schedule, inputs.x0, inputs.drive, inputs.rates, inputs.kicks)
