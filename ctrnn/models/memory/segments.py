"""Segments laid end to end: stacks and queues whose elements have a strength, which is how long they are."""

from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation
from ctrnn.models._units import Input, Vector, check_size
from ctrnn.models.memory._controlled import External, _is, left

Rows = Float[Tensor, "*batch row"]
Order = Int[Tensor, "*batch row"]  # the rows, from the end that is popped and read
Amount = Float[Tensor, "*batch 1"]
Contents = Float[Tensor, "*batch row word"]

THIN = 64  # roundings: a row of no more than that may be pushed to again


class SegmentsState(NamedTuple):
    """The controller's state, and segments in rows on a ring.

    contents: (*batch, row, width), of each row its strength times the mean of what was pushed to it. strengths:
    (*batch, row), how long the segment is, from 0 to 1. place: (*batch, row), 1 at the open row, to which the next push
    goes, and 0 elsewhere; going down from there the segments are ever older.
    """

    controller: Any
    contents: Any
    strengths: Any
    place: Any


class Commands(NamedTuple):
    """What the controller tells the memory: how much to pop, then how much to push, and of what."""

    pop: Amount
    push: Amount
    value: Float[Tensor, "*batch word"]


class Segmented(External):
    """What networks with a memory of segments share; a subclass says what is commanded, and which end is popped."""

    def __init__(
        self, controller: Relaxation, n_out: int | None, *, slots: int, width: int, clocked: bool, tau: Any
    ) -> None:
        for name, value in (("slots", slots), ("width", width)):
            check_size(name, value, 1)
        super().__init__(
            controller,
            n_out,
            reads=1,
            width=width,
            parts=SegmentsState((), 0, 0, 0),
            clocked=clocked,
            tau=tau,
            ticking=SegmentsState((), clocked, clocked, True),
        )
        self.slots, self.width = slots, width

    def commands(self, said: Vector, u: Input) -> Commands:
        """What the controller tells the memory."""
        raise NotImplementedError

    def _order(self, place: Rows) -> Order:
        """A stack's: the newest first."""
        return newest_first(place)

    def _target(self, t: Tensor, x: SegmentsState, u: Input, alpha: Any) -> SegmentsState:
        """F of the controller, and of the segments as it moves them."""
        rates = tree.spread(alpha, x)
        if _is(rates.place, 1) and _is(rates.strengths, 0):  # a tick, at which what flows stands still
            return x._replace(place=opened(x.strengths, x.place))
        controller, said = self._control(t, x, u, rates)
        if self._holds(rates):
            return x._replace(controller=controller)
        contents, strengths = self._moved(x, self.commands(said, u), rates.strengths)
        after = left(x.strengths, strengths, rates.strengths)
        return SegmentsState(controller, contents, strengths, opened(after, x.place))

    def _moved(self, x: SegmentsState, told: Commands, alpha: Any) -> tuple[Contents, Rows]:
        """The F for which lerp(x, F, alpha) is what the commands come to if they are held for alpha tau."""
        if not _is(alpha, 1):
            number = torch.as_tensor(alpha, dtype=x.strengths.dtype, device=x.strengths.device)
            alpha = tree.per_leaf(number, x.strengths)
        strengths = torch.relu(x.strengths)  # solvers without an alpha may have popped more than there was
        lost = gone(strengths, before(strengths, self._order(x.place)), told.pop, x.place.roll(1, -1), alpha)
        place = opened(strengths - lost, x.place)  # a whole step finds its row after the pop, which so leaves no gap
        pushed = (place if _is(alpha, 1) else torch.where(alpha == 1, place, x.place)) * told.push
        kept = shares(strengths, strengths - lost).unsqueeze(-1) * x.contents
        return torch.addcmul(kept, pushed.unsqueeze(-1), told.value.unsqueeze(-2)), strengths - lost + pushed

    def read(self, x: SegmentsState) -> Float[Tensor, "*batch 1 word"]:
        """r: the mean of the first segments times their length, up to a length of 1 together."""
        strengths = torch.relu(x.strengths)
        room = torch.relu(1 - before(strengths, self._order(x.place)))
        return shares(strengths, torch.minimum(strengths, room)).unsqueeze(-2) @ x.contents

    def length(self, x: SegmentsState) -> Float[Tensor, "*batch"]:
        """The strengths' sum: how much is held."""
        return torch.relu(x.strengths).sum(-1)

    def initial_state(self, *batch: int) -> SegmentsState:
        """Nothing held, and the first row open."""
        zeros = lambda *shape: self.W_heads.new_zeros(*batch, *shape)
        rows = self.slots + 2  # the open one, and one that is being emptied for the next push
        place = zeros(rows)
        place[..., 0] = 1.0
        return SegmentsState(self.controller.initial_state(*batch), zeros(rows, self.width), zeros(rows), place)

    @property
    def config(self) -> dict[str, Any]:
        """The controller's class and configuration, the sizes, and the memory's tau."""
        shared = {name: value for name, value in super().config.items() if name != "learn_tau"}
        return shared | {"slots": self.slots, "width": self.width}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**cls._arguments(config, SegmentsState((), (), (), ())))

    def extra_repr(self) -> str:
        """The sizes."""
        return ", ".join(f"{name}={getattr(self, name)}" for name in ("n_in", "n_out", "slots", "width"))


def newest_first(place: Rows) -> Order:
    """The open row and all before it on the ring, going down."""
    rows = place.shape[-1]
    return (place.argmax(-1, keepdim=True) - torch.arange(rows, device=place.device)) % rows


def before(strengths: Rows, order: Order) -> Rows:
    """How much lies between each row and the end from which the order counts."""
    sums = strengths.gather(-1, order).cumsum(-1)
    return torch.zeros_like(strengths).scatter(-1, order, F.pad(sums[..., :-1], (1, 0)))


def shares(strengths: Rows, parts: Rows) -> Rows:
    """parts / strengths, and 0 where a row has no length but for one rounding."""
    there = strengths > torch.finfo(strengths.dtype).eps
    return torch.where(there, parts / torch.where(there, strengths, 1), 0)


def gone(strengths: Rows, ahead: Rows, pop: Amount, leaving: Rows, alpha: Any) -> Rows:
    """What pops held for alpha tau take from each row, over alpha; alpha = 0 gives the rate.

    A pop reaches a row when nothing is left ahead of it: s <- max(0, s - max(0, u - ahead)) (Grefenstette et al. 2015,
    eq. 2). The row where `leaving` is 1 is emptied within one tau.
    """
    if _is(alpha, 1):
        return strengths - torch.relu(strengths - (torch.relu(pop - ahead) + leaving))
    part = torch.where(alpha == 0, 1, alpha)
    taken = strengths - torch.relu(strengths - (torch.relu(part * pop - ahead) + part * leaving))
    rate = torch.where(strengths > 0, torch.where(ahead > 0, 0, pop) + leaving, 0)
    return torch.where(alpha == 0, rate, taken / part)


def opened(strengths: Rows, place: Rows) -> Rows:
    """The place after the newest segment, or the same if none is held."""
    held = strengths.gather(-1, newest_first(place)) > THIN * torch.finfo(strengths.dtype).eps
    down = held.to(strengths.dtype).argmax(-1, keepdim=True)
    row = place.argmax(-1, keepdim=True) + torch.where(held.any(-1, keepdim=True), 1 - down, 0)
    rows = place.shape[-1]
    return (torch.arange(rows, device=place.device) == row % rows).to(place.dtype)
