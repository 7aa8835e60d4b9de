"""Networks with tapes: rings of cells that move past a head, which reads and writes the cell that it is at."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation
from ctrnn.models._units import Input, Vector, check_size
from ctrnn.models.gated import Elman, _within
from ctrnn.models.memory._controlled import External

Tapes = Float[Tensor, "*batch tape slot word"]
Actions = Float[Tensor, "*batch tape action"]
Written = Float[Tensor, "*batch tape word"]


class TapeState(NamedTuple):
    """The controller's state and the memory (*batch, tapes, slots, width). Also the shape of a tape's tau.

    The head of a tape is always at cell 0: what moves is the tape.
    """

    controller: Any
    memory: Any


class Tape(External):
    """What both share: the controller reads (u, r), r the cell 0 of each tape, and says how the cells of each move.

    `actions` are the ways in which a tape can move in a step, and `values` how many numbers the heads are told besides.
    """

    def __init__(
        self,
        controller: Relaxation,
        n_out: int | None,
        *,
        slots: int,
        width: int,
        tapes: int,
        actions: int,
        values: int,
        clocked: bool,
        tau: Any,
        learn_tau: bool,
        generator: Generator | None,
    ) -> None:
        for name, value in (("slots", slots), ("width", width), ("tapes", tapes)):
            check_size(name, value, 1)
        super().__init__(
            controller,
            n_out,
            reads=tapes,
            width=width,
            parts=TapeState((), 0),
            clocked=clocked,
            tau=tau,
            learn_tau=learn_tau,
        )
        self.slots, self.width, self.tapes = slots, width, tapes
        self._rows = [tapes * actions, values]
        self._add_weights(sum(self._rows), generator)

    def read(self, x: TapeState) -> Float[Tensor, "*batch read word"]:
        """r: what the head of each tape is at."""
        return x.memory[..., 0, :]

    def initial_state(self, *batch: int) -> TapeState:
        """All cells at zero."""
        zeros = self.W_heads.new_zeros(*batch, self.tapes, self.slots, self.width)
        return TapeState(self.controller.initial_state(*batch), zeros)

    @property
    def config(self) -> dict[str, Any]:
        own = ("slots", "width", "tapes")
        return super().config | {name: getattr(self, name) for name in own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**cls._arguments(config, TapeState((), ())))

    def extra_repr(self) -> str:
        """The sizes."""
        return ", ".join(f"{name}={getattr(self, name)}" for name in ("n_in", "n_out", "slots", "width", "tapes"))


class TapeRNN(Tape):
    """tau dM/dt = sum_a p_a P_a (v, M_1, ..., M_(N-1)) - M,   r = M_0.

    Deletang et al. (2023), ICLR, arXiv:2207.02098, with the conventions of their code. The controller h reads (u, r)
    and says to the head of each tape what to write into the cell that it is at, v = MLP(h), linear behind its hidden
    layers of rectified units, and how to move then, p = softmax(W_heads h + b_heads). Conventions:

    * A cell is written first, wholly, in every step, and then the tape moves. A network that only looks at a cell must
      write back what it read.
    * The actions are, in this order: stay; left, after which the head is at what was cell 1 (cell i takes what was in
      cell i + 1); right, at what was the last cell; and with `jumps` the same two by many cells. Cells lie on a ring.
    * A softmax for each tape.
    * y = W_out h + b_out: the readout does not see the tape. (The paper's sees max(0, h), which is h, as its controller
      is `Elman(256, ..., activation=torch.relu)`.)

    At dt = tau this is the discrete network. Below it there are two meanings. A *clocked* tape ticks: the controller
    flows at any dt and reads what is held, and at each multiple of tau each head writes and each tape moves once,
    wholly. A *relaxed* tape (`clocked=False`) flows as the equation says: a cell stays between what the cells of its
    tape held and what is written, for all steps dt <= tau of Euler and Heun, but a mark moves one cell per tau on
    average with a variance of 1 - dt / tau, and nothing narrows it again.

    Args:
        controller: any relaxation that reads (u, r) without the length of a jump: its n_in is that of u plus
            tapes * width.
        n_out: outputs W_out h + b_out; without them the readout is h.
        slots, width: how many cells a tape has, and how many numbers a cell.
        tapes: how many there are.
        hidden: units in the hidden layers of the network that makes v.
        jumps: the last number of u is not read by the controller, but says, rounded, how many cells a jump goes: in the
            paper as many as the whole input has symbols. Each sample has its own, and should have it all the time.
        clocked: whether the tapes tick, or flow.
        tau: of the tapes: one number, the period if they are clocked; else also a TapeState whose controller is ().
        learn_tau: learn it, if they are relaxed; the controller's is learned if it was built so.
        generator: where the weights are drawn from, uniformly within 1 / sqrt(units that send); torch's global one if
            None.

    Parameters: W_heads (tapes * actions, h), tape by tape, b_heads, W_out, b_out, and for each layer of the MLP
    W_write.0 (units, h), b_write.0, ..., the last with tapes * width rows. State: TapeState.

    Raises:
        TypeError: the controller is no Relaxation.
        ValueError: it has no room for what the heads read, or a size or tau is impossible.
    """

    def __init__(
        self,
        controller: Relaxation,
        n_out: int | None = None,
        *,
        slots: int,
        width: int,
        tapes: int = 1,
        hidden: Sequence[int] = (64, 64),
        jumps: bool = True,
        clocked: bool = True,
        tau: Any = 1.0,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        for units in hidden:
            check_size("hidden", units, 1)
        super().__init__(
            controller,
            n_out,
            slots=slots,
            width=width,
            tapes=tapes,
            actions=5 if jumps else 3,
            values=0,
            clocked=clocked,
            tau=tau,
            learn_tau=learn_tau,
            generator=generator,
        )
        self.hidden, self.jumps = tuple(hidden), jumps
        self.n_in += jumps
        self.W_write, self.b_write = nn.ParameterList(), nn.ParameterList()
        for senders, units in pairwise((self._said, *hidden, tapes * width)):
            draw = _within(1 / math.sqrt(senders), generator)
            self.W_write.append(nn.Parameter(draw(units, senders)))
            self.b_write.append(nn.Parameter(draw(units)))

    def target(self, t: Tensor, x: TapeState, u: Input, alpha: Any = 0) -> TapeState:  # type: ignore[override]
        """F of the controller, and of the tapes, which hear the controller as the step leaves it."""
        rates = tree.spread(alpha, x)
        controller, said = self._control(t, x, u[..., :-1] if self.jumps else u, rates)
        if self._holds(rates):
            return x._replace(controller=controller)
        far = u[..., -1].round().long() if self.jumps else None
        return TapeState(controller, self.moved(x.memory, *self.commands(said), far))

    def commands(self, said: Vector) -> tuple[Actions, Written]:
        """How much of each action each head is to take, and what it is to write."""
        shares = torch.softmax(self.heads(said).unflatten(-1, (self.tapes, -1)), -1)
        *layers, last = zip(self.W_write, self.b_write, strict=True)
        for layer in layers:
            said = torch.relu(F.linear(said, *layer))
        return shares, F.linear(said, *last).unflatten(-1, (self.tapes, self.width))

    def moved(self, memory: Tapes, shares: Actions, values: Written, far: Int[Tensor, "*batch"] | None = None) -> Tapes:
        """The tapes after a whole step; `far` is how many cells a jump goes."""
        new = torch.cat([values.unsqueeze(-2), memory[..., 1:, :]], -2)
        ways = [new, new.roll(-1, -2), new.roll(1, -2)]
        if far is not None:
            ways += [turned(new, far), turned(new, -far)]
        return mixed(shares, ways)

    @property
    def config(self) -> dict[str, Any]:
        return super().config | {"hidden": list(self.hidden), "jumps": self.jumps}

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        controller = Elman(3, 2 + 4, tau=2.0, generator=draw)
        return cls(controller, 2, slots=4, width=2, tapes=2, hidden=(3,), clocked=False, tau=1.5, generator=draw)


class BabyNTM(Tape):
    """tau dM/dt = sum_a p_a P_a M + (n, 0, ..., 0) - M,   r = M_0.

    Suzgun, Gehrmann, Belinkov & Shieber (2019), arXiv:1911.03329, with the conventions of their code. The controller h
    reads (u, r) and says to the head of each tape how to move, p = softmax(W h + b), and then what to add to the cell
    that it is at, n = sigma(W h + b). Conventions:

    * The tape moves first; then n is added, in every step, to what is in cell 0, of which nothing is erased.
    * The actions are, in this order: left, after which the head is at what was cell 1; right, at what was the last
      cell, on a ring both; stay; and the same two off the ring, by which a cell drops from one end and an empty one
      comes in at the other: right, which pushes an empty cell at the head; left, which pops the cell at the head.
    * y = W_out h + b_out: the readout does not see the tape. The paper's has a sigmoid behind it.
    * The paper's controller adds W_m r + b_m to its state before a step: as a controller that reads (u, r) it is an
      `Elman` whose W_in for r is W_rec W_m and whose b_rec is larger by W_rec b_m.

    At dt = tau this is the discrete network; below it the tapes tick or flow as in a `TapeRNN`. A cell grows by at most
    1 in a tau, and is never below 0.

    Args:
        controller: any relaxation that reads (u, r): its n_in is that of u plus tapes * width.
        n_out, slots, width, tapes, clocked, tau, learn_tau, generator: as in a `TapeRNN`.

    Rows of W_heads and b_heads: actions, tape by tape; then n. State: TapeState.

    Raises:
        TypeError: the controller is no Relaxation.
        ValueError: it has no room for what the heads read, or a size or tau is impossible.
    """

    def __init__(
        self,
        controller: Relaxation,
        n_out: int | None = None,
        *,
        slots: int,
        width: int,
        tapes: int = 1,
        clocked: bool = True,
        tau: Any = 1.0,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(
            controller,
            n_out,
            slots=slots,
            width=width,
            tapes=tapes,
            actions=5,
            values=tapes * width,
            clocked=clocked,
            tau=tau,
            learn_tau=learn_tau,
            generator=generator,
        )

    def target(self, t: Tensor, x: TapeState, u: Input, alpha: Any = 0) -> TapeState:  # type: ignore[override]
        """F of the controller, and of the tapes, which hear the controller as the step leaves it."""
        rates = tree.spread(alpha, x)
        controller, said = self._control(t, x, u, rates)
        if self._holds(rates):
            return x._replace(controller=controller)
        return TapeState(controller, self.moved(x.memory, *self.commands(said)))

    def commands(self, said: Vector) -> tuple[Actions, Written]:
        """How much of each action each head is to take, and what it is to add."""
        logits, values = self.heads(said).split(self._rows, -1)
        new = torch.sigmoid(values).unflatten(-1, (self.tapes, self.width))
        return torch.softmax(logits.unflatten(-1, (self.tapes, -1)), -1), new

    def moved(self, memory: Tapes, shares: Actions, values: Written) -> Tapes:
        """The tapes after a whole step."""
        pushed, popped = F.pad(memory, (0, 0, 1, -1)), F.pad(memory, (0, 0, -1, 1))
        ways = [memory.roll(-1, -2), memory.roll(1, -2), memory, pushed, popped]
        return mixed(shares, ways) + F.pad(values.unsqueeze(-2), (0, 0, 0, self.slots - 1))

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        controller = Elman(3, 2 + 2, tau=2.0, generator=draw)
        return cls(controller, 2, slots=4, width=2, clocked=False, tau=1.5, generator=draw)


def turned(memory: Tapes, far: Int[Tensor, "*batch"]) -> Tapes:
    """M_i <- M_(i + far), on a ring; each sample has its own whole number."""
    slots = memory.shape[-2]
    cells = (torch.arange(slots, device=memory.device) + far.unsqueeze(-1)) % slots
    return memory.gather(-2, cells[..., None, :, None].expand_as(memory))


def mixed(shares: Actions, ways: Sequence[Tapes]) -> Tapes:
    """sum_a p_a M_a: as much of what each action makes of the tapes as it was taken."""
    first, *others = zip(shares.unsqueeze(-1).unsqueeze(-1).unbind(-3), ways, strict=True)
    total = first[0] * first[1]
    for share, way in others:
        total = torch.addcmul(total, share, way)
    return total
