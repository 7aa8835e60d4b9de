"""The neural Turing machine: a network whose heads move over a memory that it reads and writes."""

from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation
from ctrnn.models._units import Input, Vector, check_size
from ctrnn.models.gated import LSTM, LSTMState
from ctrnn.models.memory._controlled import Controlled, left
from ctrnn.models.memory.addressing import (
    Memory,
    PerHead,
    Weights,
    Words,
    by_content,
    sharpened,
    shifted,
    unerased,
    written,
)

CONSTANT = 1e-6  # what every slot begins with, after Collier & Beel
SHARP = 15.0  # logit of the slot where heads start, the others' being 0: they have a weight of 3e-7 each


class NTMState(NamedTuple):
    """The controller's state, the memory, and where the heads are. Also the shape of an NTM's tau.

    memory: (*batch, slots, width). write_weights, read_weights: (*batch, head, slots). read: what was read (*batch,
    reads, width) if the network reads before it writes, else ().
    """

    controller: Any
    memory: Any
    write_weights: Any
    read_weights: Any
    read: Any


class Focus(NamedTuple):
    """What each head is told about where to go."""

    keys: Words
    strengths: PerHead
    gates: PerHead
    shifts: Tensor  # (*batch, head, shift)
    exponents: PerHead

    def of(self, heads: slice) -> "Focus":
        """The same for some of the heads."""
        return Focus(
            self.keys[..., heads, :],
            self.strengths[..., heads],
            self.gates[..., heads],
            self.shifts[..., heads, :],
            self.exponents[..., heads],
        )


class NTM(Controlled):
    """tau dM/dt = M (1 - w e) + w a - M,   tau dw/dt = sharpen(shift(lerp(w, softmax(beta cos(k, M)), g))) - w.

    The neural Turing machine of Graves, Wayne & Danihelka (2014), arXiv:1410.5401. The controller reads u and r = w M
    and says to each head its key k, strength beta = softplus, gate g = sigma, shifts s = softmax, exponent gamma = 1 +
    softplus, and to a write head what to erase, e = sigma, and to add, a; k and a are linear. Eqs. 2 to 9 of the
    paper, with the conventions that it leaves open:

    * Within a step everything is seen as the step leaves it, in this order: the controller; the write heads, which look
      for their keys in the old memory; the memory; the read heads, which look for theirs in the new memory, and read
      there. With `read_first` all heads look in the old memory and are read there, and then it is written (Collier &
      Beel 2018). What was read is fed to the controller in the next step.
    * The last of the 2 `shifts` + 1 numbers s moves a head to slots of higher number. Slots lie on a ring.
    * All write heads erase, then all add.
    * |x| in the cosine is sqrt(x x + 1e-6), as in deepmind/dnc: a memory of zeros gives no NaN.

    At dt = tau this is the discrete machine. Below it there are two meanings. A *clocked* memory ticks: the controller
    flows at any dt and reads what is held, and at each multiple of tau the heads move and write once, wholly. A
    *relaxed* memory (`clocked=False`) flows as the equations say: weights stay weights and a cell stays between what it
    held and what is written for all steps dt <= tau of Euler and Heun, but a head moves one slot per tau on average
    with a variance of 1 - dt / tau, which the exponents must fight.

    Args:
        controller: any relaxation that reads (u, r): its n_in is that of u plus reads * width. The paper's are an
            `LSTM` and a network without state of its own, `feed_forward(n, n_in)`.
        n_out: outputs W_out (h, r) + b_out; without them the readout is (h, r).
        slots, width: how many words the memory has, and how many numbers a word has.
        reads, writes: heads.
        shifts: how far a head moves in a step at most, either way.
        read_first: read before writing.
        start_slot: where all heads are at first, but for 3e-7 of the weight on each other slot; None: spread as drawn.
            A sharp start trains sooner: `scenarios/ntm_copy` begins so.
        learn_weights: learn where the heads are at first; else they stay there.
        learn_memory: learn what the memory holds at first; else it is 1e-6 everywhere, with which Collier & Beel (2018,
            ICANN, arXiv:1807.08518) found training twice as fast.
        clocked: whether memory and heads tick, or flow.
        exact_rates: of a memory that flows: erase at the rates at which Euler's steps erase in a whole tau what the
            discrete machine does, at any dt, while the heads hold. Other solvers need steps far below tau for them.
        tau: of memory and heads: one number, the period if they are clocked; else also an NTMState of numbers whose
            controller is ().
        learn_tau: learn it, if they are relaxed; the controller's is learned if it was built so.
        generator: where the weights are drawn from, uniformly within 1 / sqrt(units that send), and the logits w_0 of
            the heads' first weights, which are normal without a `start_slot`; torch's global one if None.

    The update commutes with turning the ring of slots. Where all slots begin alike and all first weights are equal they
    stay so for ever, and the memory is one slot: it is w_0 that tells the slots apart.

    Rows of W_heads and b_heads, heads numbered with the write heads first: keys, then add, strengths, exponents, gates,
    erase, shifts. w_0 (heads, slots) and memory_0 (slots, width) are Parameters if they are learned. State: NTMState.

    Raises:
        TypeError: the controller is no Relaxation.
        ValueError: it has no room for what the heads read, or a size or tau is impossible.
    """

    w_0: Tensor
    memory_0: Tensor

    def __init__(
        self,
        controller: Relaxation,
        n_out: int | None = None,
        *,
        slots: int,
        width: int,
        reads: int = 1,
        writes: int = 1,
        shifts: int = 1,
        read_first: bool = False,
        start_slot: int | None = None,
        learn_weights: bool = True,
        learn_memory: bool = False,
        clocked: bool = True,
        exact_rates: bool = False,
        tau: Any = 1.0,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(
            controller,
            n_out,
            slots=slots,
            width=width,
            reads=reads,
            writes=writes,
            parts=NTMState((), 0, 0, 0, 0 if read_first else ()),
            clocked=clocked,
            exact_rates=exact_rates,
            tau=tau,
            learn_tau=learn_tau,
        )
        check_size("shifts", shifts, 0)
        if 2 * shifts + 1 > slots:
            raise ValueError(
                f"shifts={shifts} either way reach past a ring of {slots} slots: at most {(slots - 1) // 2}."
            )
        check_size("start_slot", 0 if start_slot is None else start_slot, 0)
        if start_slot is not None and start_slot >= slots:
            raise ValueError(f"start_slot={start_slot} is none of {slots} slots: at least 0, at most {slots - 1}.")
        self.shifts, self.read_first, self.start_slot = shifts, read_first, start_slot
        self.learn_weights, self.learn_memory = learn_weights, learn_memory
        heads = reads + writes
        # In the order of the rows; what is squashed alike stands together.
        self._rows = [heads * width, writes * width, 2 * heads, heads + writes * width, heads * (2 * shifts + 1)]
        self._add_weights(sum(self._rows), generator)
        if start_slot is None:
            logits = torch.randn(heads, slots, generator=generator)
        else:
            logits = torch.zeros(heads, slots).index_fill(1, torch.tensor(start_slot), SHARP)
        self._begin("w_0", logits, learn_weights)
        words = 0.05 * torch.randn(slots, width, generator=generator) if learn_memory else torch.tensor(CONSTANT)
        self._begin("memory_0", words.expand(slots, width).clone(), learn_memory)

    def _begin(self, name: str, start: Tensor, learn: bool) -> None:
        if learn:
            self.register_parameter(name, nn.Parameter(start))
        else:
            self.register_buffer(name, start)

    def target(self, t: Tensor, x: NTMState, u: Input, alpha: Any = 0) -> NTMState:  # type: ignore[override]
        """F of the controller, of the heads, of the memory, and, with `read_first`, of what is read."""
        rates = tree.spread(alpha, x)
        controller, said = self._control(t, x, u, rates)
        if self._holds(rates):
            return x._replace(controller=controller)
        focus, erase, add = self.commands(said)
        if self.read_first:
            weights = addressed(x.memory, torch.cat([x.write_weights, x.read_weights], -2), focus)
            write, read = weights.split((self.writes, self.reads), -2)
            seen = left(x.read_weights, read, rates.read_weights) @ x.memory
            return NTMState(controller, self._written(x, write, erase, add, rates), write, read, seen)
        write = addressed(x.memory, x.write_weights, focus.of(slice(self.writes)))
        memory = self._written(x, write, erase, add, rates)
        found = left(x.memory, memory, rates.memory)
        return NTMState(
            controller, memory, write, addressed(found, x.read_weights, focus.of(slice(self.writes, None))), ()
        )

    def _written(self, x: NTMState, write: Weights, erase: Words, add: Words, rates: NTMState) -> Memory:
        weights = left(x.write_weights, write, rates.write_weights)
        new = written(x.memory, weights, erase, add)
        return self._paced(x.memory, new, lambda: 1 - unerased(weights, erase), rates.memory)

    def commands(self, said: Vector) -> tuple[Focus, Words, Words]:
        """What the controller tells its heads: where to go, and the write heads what to erase and what to add."""
        heads = self.reads + self.writes
        keys, add, positive, gated, shifts = self.heads(said).split(self._rows, -1)
        strengths, exponents = F.softplus(positive).split(heads, -1)
        gates, erase = torch.sigmoid(gated).split((heads, self.writes * self.width), -1)
        focus = Focus(
            keys.unflatten(-1, (heads, self.width)),
            strengths,
            gates,
            torch.softmax(shifts.unflatten(-1, (heads, -1)), -1),
            1 + exponents,
        )
        return focus, *(part.unflatten(-1, (self.writes, self.width)) for part in (erase, add))

    def read(self, x: NTMState) -> Words:
        return x.read if self.read_first else super().read(x)

    def initial_state(self, *batch: int) -> NTMState:
        """The memory that it begins with, and the first weights softmax(w_0)."""
        weights = torch.softmax(self.w_0, -1)
        read = weights[self.writes :] @ self.memory_0 if self.read_first else ()
        start = NTMState((), self.memory_0, weights[: self.writes], weights[self.writes :], read)
        start = tree.map(lambda leaf: leaf.expand(*batch, *leaf.shape), start)
        return start._replace(controller=self.controller.initial_state(*batch))

    @property
    def config(self) -> dict[str, Any]:
        own = ("shifts", "read_first", "start_slot", "learn_weights", "learn_memory")
        return super().config | {name: getattr(self, name) for name in own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**cls._arguments(config, NTMState((), (), (), (), ())))

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        controller = LSTM(3, 6, tau=LSTMState(h=1.0, c=2.0), generator=draw)
        tau = NTMState((), memory=2.0, write_weights=1.0, read_weights=1.5, read=())
        options: dict[str, Any] = {"clocked": False, "learn_weights": False, "tau": tau}
        return cls(controller, 2, slots=4, width=2, reads=2, generator=draw, **options)


def addressed(memory: Memory, weights: Weights, focus: Focus) -> Weights:
    """Where heads go that are here: by content, from here, by a shift, and sharpened (Graves et al. 2014, fig. 2)."""
    content = by_content(memory, focus.keys, focus.strengths)
    moved = shifted(torch.lerp(weights, content, focus.gates.unsqueeze(-1)), focus.shifts)
    return sharpened(moved, focus.exponents)
