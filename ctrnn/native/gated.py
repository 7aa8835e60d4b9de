"""x <- lerp(x, F, alpha), or a Runge-Kutta step of tau dx/dt = F - x, for torch's GRU: whole runs in compiled code.

A run is a pair of autograd Functions, since a backward pass that is not itself one is out of the reach of torch.func.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ctrnn._derivative import moves
from ctrnn.lowered import GatedNetwork
from ctrnn.native._pair import OfRuns, Pullback, into_inputs, linear, plain_run, readable
from ctrnn.native.abi import GatedBack, GatedRun, address, fixed_steps
from ctrnn.native.library import call
from ctrnn.native.schedule import Schedule


class Inputs(NamedTuple):
    """Every Tensor on which a run depends; blocks of gates are r, z, candidate."""

    x0: Float[Tensor, "row unit"]
    drive: Float[Tensor, "coefficient #interval #row input"]  # u
    W_in: Float[Tensor, "gates input"] | None  # None: u is W_in u + b_in
    b: Float[Tensor, "gates"] | None  # b_in
    W: Float[Tensor, "gates unit"]
    b_rec: Float[Tensor, "gates"] | None
    rates: Float[Tensor, "kind unit"]  # alpha of a lerp, dt / tau of Runge-Kutta
    kicks: Float[Tensor, "step row unit"] | None  # added after each step


@dataclass(frozen=True, eq=False)
class Plan:
    """What decides a run: its steps, and whether it keeps what its gradient needs."""

    schedule: Schedule
    differentiated: bool
    threads: int


def gated(
    network: GatedNetwork,
    schedule: Schedule,
    x0: Float[Tensor, "row unit"],
    drive: Float[Tensor, "coefficient #interval #row input"],
    rates: Float[Tensor, "kind unit"],
    kicks: Float[Tensor, "step row unit"] | None,
) -> tuple[Float[Tensor, "slot row unit"], Float[Tensor, "row unit"]]:
    """The states that the schedule keeps, and the one at the end.

    `drive` is u, `rates` alpha of a lerp or dt / tau, and `kicks` are added after each step.
    """
    inputs = Inputs(x0, drive, network.W_in, network.b_in, network.W_rec, network.b_rec, rates, kicks)
    differentiated = torch.is_grad_enabled() and any(map(moves, inputs))
    plan = Plan(schedule, differentiated, torch.get_num_threads())
    xs, end, *_ = _Gated.apply(plan, *inputs)
    return xs, end


class _Gated(OfRuns):
    """(inputs) -> (states kept, state at the end, and for the gradient: all states, all gates)."""

    @staticmethod
    def forward(plan: Plan, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        given, schedule = readable(Inputs(*tensors)), plan.schedule  # type: ignore[arg-type]
        x0, (rows, n) = given.x0, given.x0.shape
        every = plan.differentiated and schedule.keep is not None
        steps = schedule._replace(keep=None, slots=schedule.steps) if every else schedule
        states, end = x0.new_empty(steps.slots, rows, n), torch.empty_like(x0)
        shape = (max(schedule.stages, 1), schedule.steps, rows, 4 * n)
        gates = x0.new_empty(shape) if plan.differentiated else None
        run = _run(plan, steps, given)
        run.xs, run.end, run.gates = map(address, (states, end, gates))
        call("ctrnn_gated_forward", run)
        if not every:
            return states, end, None, gates
        assert schedule.keep is not None
        return states[schedule.keep >= 0], end, states, gates

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        ctx.plan, *tensors = inputs
        xs, _, states, gates = output
        ctx.mark_non_differentiable(*[extra for extra in (states, gates) if extra is not None])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, xs if states is None else states, gates)

    @staticmethod
    def backward(ctx: Any, grad_xs: Tensor | None, grad_end: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        wanted = tuple(ctx.needs_input_grad[1:])
        return None, *_Pullback.apply(ctx.plan, wanted, grad_xs, grad_end, *ctx.saved_tensors)


class _Pullback(Pullback):
    """(gradients of the states kept and of the end, inputs, states, gates) -> gradients of the inputs wanted."""

    outputs = 2

    @staticmethod
    def forward(plan: Plan, wanted: tuple[bool, ...], *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_xs, grad_end, *rest = tensors
        *given, states, gates = rest
        inputs, want = readable(Inputs(*given)), Inputs(*wanted)  # type: ignore[arg-type]
        x0, schedule, (rows, n) = inputs.x0, plan.schedule, inputs.x0.shape
        shape = (max(schedule.stages, 1), schedule.steps, rows)
        delta, delta_q = x0.new_empty(*shape, 3 * n), x0.new_empty(*shape, n)
        sent = x0.new_empty(*shape, n) if want.W and schedule.stages else None
        each = {"b_rec": (rows, 3 * n), "rates": (rows, len(inputs.rates), n), "kicks": (*shape[1:], n)}
        found = {name: x0.new_empty(size) for name, size in each.items() if getattr(want, name)}
        back, run = GatedBack(), _run(plan, schedule, inputs)
        contiguous = [None if g is None else g.resolve_neg().contiguous() for g in (grad_xs, grad_end)]
        grad_x0 = torch.empty_like(x0)
        run.gates, back.states = address(gates), address(states)
        back.grad_xs, back.grad_end = map(address, contiguous)
        back.keep_of_grad = address(schedule.keep)
        back.delta, back.delta_q, back.sent, back.grad_x0 = map(address, (delta, delta_q, sent, grad_x0))
        for name in each:
            setattr(back, f"grad_{name}", address(found.get(name)))
        call("ctrnn_gated_backward", run, back)
        return (
            grad_x0 if want.x0 else None,
            *into_inputs(delta, inputs, schedule, wanted[1:4]),
            _into_weights(delta, delta_q, x0, states if sent is None else sent) if want.W else None,
            *[found[name].sum(0) if name in found else None for name in ("b_rec", "rates")],
            found.get("kicks"),
        )

    @staticmethod
    def plain(plan: Plan, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        return _plain(plan, Inputs(*inputs))  # type: ignore[arg-type]


def _into_weights(
    delta: Float[Tensor, "stage step row gates"],
    delta_q: Float[Tensor, "stage step row unit"],
    x0: Float[Tensor, "row unit"],
    states: Float[Tensor, "*stage step row unit"] | None,
) -> Float[Tensor, "gates unit"]:
    """The gradient of W from that of W h: h is x0 and the state after each step but the last, or that in each stage."""
    assert states is not None
    rows, n = x0.shape
    gates, q, sent = delta.reshape(-1, 3 * n)[:, : 2 * n], delta_q.reshape(-1, n), states.reshape(-1, n)
    found = torch.empty(3 * n, n, dtype=x0.dtype)
    for part, into in ((gates, found[: 2 * n]), (q, found[2 * n :])):
        if states.ndim == 4:
            torch.mm(part.T, sent, out=into)
        else:
            torch.mm(part[:rows].T, x0, out=into)
            into.addmm_(part[rows:].T, sent[:-rows] if rows else sent)
    return found


def _run(plan: Plan, schedule: Schedule, inputs: Inputs) -> GatedRun:
    run = GatedRun(threads=plan.threads)
    fixed_steps(run, schedule, inputs.x0, inputs)
    run.W, run.b_rec = address(inputs.W), address(inputs.b_rec)
    return run


def _plain(plan: Plan, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The same run in plain torch."""

    def target(x: Tensor, u: Tensor) -> Tensor:
        gates_in, c_in = linear(u, inputs.W_in, inputs.b).split((2 * x.shape[-1], x.shape[-1]), -1)
        gates_rec, c_rec = F.linear(x, inputs.W, inputs.b_rec).split((2 * x.shape[-1], x.shape[-1]), -1)
        r, z = torch.sigmoid(gates_rec + gates_in).chunk(2, -1)
        c = torch.tanh(c_in + r * c_rec)
        return (x - c) * z + c

    return plain_run(target, plan.schedule, inputs.x0, inputs.drive, inputs.rates, inputs.kicks)
