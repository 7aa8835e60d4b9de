"""h, c <- lerps of an LSTM's state to its targets: whole runs in compiled code.

A run is a pair of autograd Functions, since a backward pass that is not itself one is out of the reach of torch.func.
torch's own kernel keeps c of no step but the last, and its derivatives are neither twice differentiable nor vectorised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ctrnn._derivative import moves
from ctrnn.lowered import GatedNetwork
from ctrnn.native._pair import OfRuns, Pullback, drive_at, into_inputs, linear, readable
from ctrnn.native.abi import LSTMBack, LSTMRun, address, fixed_steps
from ctrnn.native.library import call
from ctrnn.native.schedule import Schedule


class Inputs(NamedTuple):
    """Every Tensor on which a run depends; blocks of gates are i, f, g, o."""

    h0: Float[Tensor, "row unit"]
    c0: Float[Tensor, "row unit"]
    drive: Float[Tensor, "coefficient #interval #row input"]  # u
    W_in: Float[Tensor, "gates input"] | None  # None: u is W_in u + both biases
    b: Float[Tensor, "gates"] | None  # both biases
    W: Float[Tensor, "gates unit"]
    rates: Float[Tensor, "kind unit"]  # alpha of h and of c
    rates_c: Float[Tensor, "kind unit"]
    kicks: Float[Tensor, "step row unit"] | None  # added to them after each step
    kicks_c: Float[Tensor, "step row unit"] | None


@dataclass(frozen=True, eq=False)
class Plan:
    """What decides a run: its steps, and whether it keeps what its gradient needs."""

    schedule: Schedule
    differentiated: bool
    threads: int


def lstm(
    network: GatedNetwork,
    schedule: Schedule,
    state: Sequence[Float[Tensor, "row unit"]],
    drive: Float[Tensor, "coefficient #interval #row input"],
    rates: Sequence[Float[Tensor, "kind unit"]],
    kicks: Sequence[Float[Tensor, "step row unit"]] | None,
) -> tuple[tuple[Float[Tensor, "slot row unit"], ...], tuple[Float[Tensor, "row unit"], ...]]:
    """The states (h, c) that the schedule keeps, and the one at the end.

    `drive` is u, `rates` alpha, and `kicks` are added after each step.
    """
    (h0, c0), (rate, rate_c), (kick, kick_c) = state, rates, kicks or (None, None)
    inputs = Inputs(h0, c0, drive, network.W_in, network.bias, network.W_rec, rate, rate_c, kick, kick_c)
    differentiated = torch.is_grad_enabled() and any(map(moves, inputs))
    hs, cs, h, c, *_ = _LSTM.apply(Plan(schedule, differentiated, torch.get_num_threads()), *inputs)
    return (hs, cs), (h, c)


class _LSTM(OfRuns):
    """(inputs) -> (h and c kept, h and c at the end, and for the gradient: all h, all c, all gates)."""

    @staticmethod
    def forward(plan: Plan, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        given, schedule = readable(Inputs(*tensors)), plan.schedule  # type: ignore[arg-type]
        rows, n = given.h0.shape
        every = plan.differentiated and schedule.keep is not None
        steps = schedule._replace(keep=None, slots=schedule.steps) if every else schedule
        hs, cs = given.h0.new_empty(steps.slots, rows, n), given.h0.new_empty(steps.slots, rows, n)
        h, c = torch.empty_like(given.h0), torch.empty_like(given.h0)
        gates = given.h0.new_empty(schedule.steps, rows, 4 * n) if plan.differentiated else None
        run = _run(plan, steps, given)
        run.xs, run.cs, run.end, run.end_c, run.gates = map(address, (hs, cs, h, c, gates))
        call("ctrnn_lstm_forward", run)
        if not every:
            return hs, cs, h, c, None, None, gates
        assert schedule.keep is not None
        kept = schedule.keep >= 0
        return hs[kept], cs[kept], h, c, hs, cs, gates

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        ctx.plan, *tensors = inputs
        ctx.mark_non_differentiable(*[extra for extra in output[4:] if extra is not None])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *(output[:2] if output[4] is None else output[4:6]), output[6])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, *_Pullback.apply(ctx.plan, tuple(ctx.needs_input_grad[1:]), *grads[:4], *ctx.saved_tensors)


class _Pullback(Pullback):
    """(gradients of what was kept and of the end, inputs, all h, all c, gates) -> gradients of the inputs wanted."""

    outputs = 4

    @staticmethod
    def forward(plan: Plan, wanted: tuple[bool, ...], *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        grads, given, (hs, cs, gates) = tensors[:4], tensors[4:14], tensors[14:]
        inputs, want = readable(Inputs(*given)), Inputs(*wanted)  # type: ignore[arg-type]
        h0, schedule, (rows, n) = inputs.h0, plan.schedule, inputs.h0.shape
        delta = h0.new_empty(1, schedule.steps, rows, 4 * n)
        one, kinds, steps = (rows, n), (rows, len(inputs.rates), n), (schedule.steps, rows, n)
        each = {"h0": one, "c0": one, "rates": kinds, "rates_c": kinds, "kicks": steps, "kicks_c": steps}
        found = {k: h0.new_empty(size) for k, size in each.items() if getattr(want, k) or size == one}
        back, run = LSTMBack(), _run(plan, schedule, inputs)
        contiguous = [None if g is None else g.resolve_neg().contiguous() for g in grads]
        back.grad_hs, back.grad_cs, back.grad_end, back.grad_end_c = map(address, contiguous)
        back.hs, back.cs, back.keep_of_grad, back.delta = map(address, (hs, cs, schedule.keep, delta))
        run.gates = address(gates)
        for name in each:
            setattr(back, f"grad_{name}", address(found.get(name)))
        call("ctrnn_lstm_backward", run, back)
        return (
            *[found[name] if flag else None for name, flag in (("h0", want.h0), ("c0", want.c0))],
            *into_inputs(delta, inputs, schedule, wanted[2:5]),
            _into_weights(delta.reshape(-1, 4 * n), h0, hs) if want.W else None,
            *[found[name].sum(0) if name in found else None for name in ("rates", "rates_c")],
            *[found.get(name) for name in ("kicks", "kicks_c")],
        )

    @staticmethod
    def plain(plan: Plan, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        return _plain(plan, Inputs(*inputs))  # type: ignore[arg-type]


def _into_weights(
    delta: Float[Tensor, "times gates"], h0: Float[Tensor, "row unit"], hs: Float[Tensor, "step row unit"] | None
) -> Float[Tensor, "gates unit"]:
    """The gradient of W from that of W h, where h is h0 and then what it is after each step but the last."""
    assert hs is not None
    rows, before = len(h0), hs[:-1].reshape(-1, h0.shape[1])
    return (delta[:rows].T @ h0).addmm_(delta[rows:].T, before)


def _run(plan: Plan, schedule: Schedule, inputs: Inputs) -> LSTMRun:
    run = LSTMRun(threads=plan.threads)
    fixed_steps(run, schedule, inputs.h0, inputs)
    run.W, run.c0, run.rates_c, run.kicks_c = map(address, (inputs.W, inputs.c0, inputs.rates_c, inputs.kicks_c))
    return run


def _plain(plan: Plan, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same run in plain torch."""
    schedule, state, saved = plan.schedule, (inputs.h0, inputs.c0), []
    driven = lambda k: linear(drive_at(inputs.drive, schedule, k, 0.0), inputs.W_in, inputs.b)
    for k in range(schedule.steps):
        kind = 0 if schedule.kind is None else int(schedule.kind[k])
        i, f, g, o = (F.linear(state[0], inputs.W) + driven(k)).chunk(4, -1)
        target = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        c = torch.lerp(state[1], target, inputs.rates_c[kind])
        new = torch.lerp(state[0], torch.sigmoid(o) * torch.tanh(c), inputs.rates[kind]), c
        kicks = (inputs.kicks, inputs.kicks_c)
        new = tuple(x if kick is None else x + kick[k] for x, kick in zip(new, kicks, strict=True))  # type: ignore
        if schedule.count is not None:
            moves = schedule.count[:, None] > k
            new = torch.where(moves, new[0], state[0]), torch.where(moves, new[1], state[1])
        state = new
        if schedule.keep is None or schedule.keep[k] >= 0:
            saved.append(state)
    h, c = state
    hs, cs = (torch.stack(part) for part in zip(*saved, strict=True)) if saved else (h[None][:0], c[None][:0])
    return hs, cs, h, c
