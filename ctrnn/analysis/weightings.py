"""Looking into an external memory: what its heads or stacks were told, where they were, and what they did."""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.models._units import Input
from ctrnn.models.memory import DNC, NTM, NeuralStack, Pushdown, StackRNN
from ctrnn.models.memory.dnc import Interface
from ctrnn.models.memory.ntm import Focus
from ctrnn.models.memory.segments import Commands, newest_first, shares


class HeadTraces(NamedTuple):
    """What the heads of a neural Turing machine or a differentiable neural computer do in states of it.

    The leading axes are those of the states: of a run's `xs` they are (time, *batch).

    write, read: weightings, how much each head is at each slot. memory: what the slots hold after the step. added: what
    each write head adds to all slots together, (sum_i w_i) a; this sum is 1 in an NTM, and in a DNC at most its write
    gate. erased: the share (sum_i w_i) e likewise. seen: what each read head reads, w M. told: all that the controller
    tells the heads: a Focus (gates, shifts, ...), or an Interface (free, allocate and write gates, modes, ...). usage,
    link, precedence: of a DNC, None where there is none; link[..., i, j] says how much slot i was written right after
    slot j.
    """

    write: Float[Tensor, "*lead head slot"]
    read: Float[Tensor, "*lead head slot"]
    memory: Float[Tensor, "*lead slot word"]
    added: Float[Tensor, "*lead head word"]
    erased: Float[Tensor, "*lead head word"]
    seen: Float[Tensor, "*lead head word"]
    told: Focus | Interface
    usage: Float[Tensor, "*lead slot"] | None
    link: Float[Tensor, "*lead head slot slot"] | None
    precedence: Float[Tensor, "*lead head slot"] | None


class StackTraces(NamedTuple):
    """What the stacks of a `StackRNN` hold and are told in states of it, whose leading axes come first.

    contents: the cells after the step, top first. actions: how much each stack pushes, pops and, if it may, stays.
    pushed: what a push would bring, wholly. seen: the cells that the controller reads in the next step, stack by stack.
    """

    contents: Float[Tensor, "*lead stack cell word"]
    actions: Float[Tensor, "*lead stack action"]
    pushed: Float[Tensor, "*lead stack word"]
    seen: Float[Tensor, "*lead read word"]


class SegmentTraces(NamedTuple):
    """What a neural stack or queue or a pushdown automaton holds and is told in states of it.

    strengths: how long each segment is, the newest first; in front is the row to which the next push goes. words: what
    each holds, 0 where nothing is. length: of all together. seen: what the controller reads in the next step. told: how
    much to pop and to push, and of what.
    """

    strengths: Float[Tensor, "*lead row"]
    words: Float[Tensor, "*lead row word"]
    length: Float[Tensor, "*lead"]
    seen: Float[Tensor, "*lead word"]
    told: Commands


class Places(NamedTuple):
    """Where heads are on the ring of slots: the direction and the length of sum_i w_i exp(2 pi i k / slots)."""

    slot: Float[Tensor, "*lead head"]  # from 0 to below the number of slots; NaN where a head is nowhere
    focus: Float[Tensor, "*lead head"]  # 1: all weight on one slot; 0: nowhere


@torch.no_grad()
def head_traces(model: NTM | DNC, xs: State) -> HeadTraces:
    """What the heads did in each of these states: `head_traces(model, run.xs)` for a run.

    A state is the one that a step leaves, and the controller is the first part of a step: what the heads were told in
    that step is what the controller says in that state. With steps of tau this is exact. A clocked memory that runs on
    finer steps obeys its controller at its ticks only, and holds between them; a relaxed one obeys all the time.

    Raises:
        TypeError: the model has no heads, or these are no states of it.
    """
    if not isinstance(model, (NTM, DNC)):
        raise TypeError(f"head_traces looks into an NTM or a DNC, got a {type(model).__name__}.")
    x = _states(model, xs)
    told, erase, add = _commands(model, model.controller.readout(x.controller))
    share = x.write_weights.sum(-1, keepdim=True)
    order = (x.usage, x.link, x.precedence) if isinstance(model, DNC) else ((), (), ())
    return HeadTraces(
        x.write_weights,
        x.read_weights,
        x.memory,
        share * add,
        share * erase,
        model.read(x),
        told,
        *(None if isinstance(part, tuple) else part for part in order),
    )


@torch.no_grad()
def stack_traces(model: StackRNN, xs: State) -> StackTraces:
    """What the stacks did in each of these states: `stack_traces(model, run.xs)`, with the meaning of `head_traces`.

    Raises:
        TypeError: the model has no such stacks, or these are no states of it.
    """
    if not isinstance(model, StackRNN):
        raise TypeError(f"stack_traces looks into a StackRNN, got a {type(model).__name__}.")
    x = _states(model, xs)
    return StackTraces(x.stacks, *model.commands(model.controller.readout(x.controller)), model.read(x))


@torch.no_grad()
def segment_traces(model: NeuralStack | Pushdown, xs: State, us: Input) -> SegmentTraces:
    """What the segments did in each of these states: `segment_traces(model, run.xs, run.us)`, as in `head_traces`.

    Raises:
        TypeError: the model holds no segments, or these are no states of it.
    """
    if not isinstance(model, (NeuralStack, Pushdown)):
        raise TypeError(
            f"segment_traces looks into a NeuralStack, NeuralQueue or Pushdown, got a {type(model).__name__}."
        )
    x = _states(model, xs)
    order = newest_first(x.place)
    words = shares(x.strengths, torch.ones_like(x.strengths)).unsqueeze(-1) * x.contents
    return SegmentTraces(
        x.strengths.gather(-1, order),
        words.gather(-2, order.unsqueeze(-1).expand_as(words)),
        model.length(x),
        model.read(x).squeeze(-2),
        model.commands(model.controller.readout(x.controller), us),
    )


def _states(model: NTM | DNC | StackRNN | NeuralStack | Pushdown, xs: Any) -> Any:
    """The states, checked and detached."""
    own = model.initial_state()
    # By name, as the states of a loaded Trajectory have this form but are of another class.
    if getattr(xs, "_fields", None) != own._fields:
        raise TypeError(
            f"states of the {type(model).__name__} are a {type(own).__name__}, "
            f"got a {type(xs).__name__}: pass run.xs of a run of this model."
        )
    return tree.map(Tensor.detach, xs)


def _commands(model: NTM | DNC, said: Tensor) -> tuple[Focus | Interface, Tensor, Tensor]:
    """All of them; what to erase; what to add."""
    if isinstance(model, NTM):
        return model.commands(said)
    told = model.interface(said)
    return told, told.erase, told.add


def head_places(weights: Float[Tensor, "*lead head slot"]) -> Places:
    """Where heads are: the circular mean of their weightings, for slots that lie on a ring."""
    z = _on_ring(weights)
    focus = z.abs()
    turn = torch.where(_nowhere(weights, focus), math.nan, z.angle() / (2 * math.pi))
    # The remainder of a turn just below 0 is rounded to 1, which is 0 on a ring.
    return Places((turn % 1) % 1 * weights.shape[-1], focus)


def head_moves(weights: Float[Tensor, "time *batch head slot"]) -> Float[Tensor, "time-1 *batch head"]:
    """By how many slots each head moves from each state to the next, from -slots / 2 to slots / 2 on the ring.

    The change of the circular mean, which sees a pure shift rightly even if the head is spread over many slots: it is
    the circular mean of the shifts themselves, for the Fourier transform of a convolution is a product. NaN before and
    after a state in which a head is nowhere: evenly spread, or not there, like the write head of a DNC that does not
    write. Put the initial state in front to see the first step. Of a clocked memory take the states at its ticks.

    Raises:
        ValueError: fewer than two states.
    """
    if weights.ndim < 2 or len(weights) < 2:
        raise ValueError(f"moves lead from one state to the next: weights of shape {tuple(weights.shape)} have no two.")
    z = _on_ring(weights)
    lost = _nowhere(weights, z.abs())
    angle = (z[1:] * z[:-1].conj()).angle()
    return torch.where(lost[1:] | lost[:-1], math.nan, angle * (weights.shape[-1] / (2 * math.pi)))


def _on_ring(weights: Tensor) -> Tensor:
    """sum_i w_i exp(2 pi i k / slots), the first coefficient of Fourier's."""
    slots = weights.shape[-1]
    angle = 2 * math.pi * torch.arange(slots, dtype=weights.dtype, device=weights.device) / slots
    return weights.to(torch.promote_types(weights.dtype, torch.complex64)) @ torch.polar(torch.ones_like(angle), angle)


def _nowhere(weights: Tensor, focus: Tensor) -> Tensor:
    """Whether the direction of a resultant is but rounding."""
    return focus <= 8 * torch.finfo(weights.dtype).eps * weights.shape[-1] ** 0.5
