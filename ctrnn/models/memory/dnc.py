"""The differentiable neural computer: a memory that knows which slots are free and in which order they were written."""

from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation
from ctrnn.models._units import Input, Vector, check_number
from ctrnn.models.gated import LSTM, LSTMState
from ctrnn.models.memory import linkage
from ctrnn.models.memory._controlled import Controlled, left
from ctrnn.models.memory.addressing import (
    Memory,
    PerHead,
    Weights,
    Words,
    aimed,
    allocated,
    nearest,
    remaining,
    softly_allocated,
    unerased,
    written,
)

MASK_FLOOR = 0.1  # a masked component still counts so much: Csordas & Schmidhuber's setting


class DNCState(NamedTuple):
    """The controller's state, the memory, its use, where the heads are, and the order of writing; a DNC's tau too.

    memory: (*batch, slots, width). usage: (*batch, slots). write_weights, read_weights: (*batch, head, slots). link:
    (*batch, writes, slots, slots) and precedence: (*batch, writes, slots), both () without links.
    """

    controller: Any
    memory: Any
    usage: Any
    write_weights: Any
    read_weights: Any
    link: Any
    precedence: Any


class Interface(NamedTuple):
    """What the controller says to its heads. Keys and masks: the write heads' first."""

    keys: Words
    strengths: PerHead
    masks: Words | None
    erase: Words
    add: Words
    free: PerHead  # of each read head
    allocate: PerHead  # of each write head
    write: PerHead
    modes: Tensor  # (*batch, read, backward of each write head + content + forward of each write head)
    peaks: Tensor | None  # (*batch, read, backward of each write head + forward of each write head)


class DNC(Controlled):
    """tau dM/dt = M (1 - w e) + w v - M,   tau dw/dt = g_w lerp(c, a, g_a) - w,   tau du/dt = (u + w - u w) psi - u.

    tau dL_ij/dt = (1 - w_i - w_j) L_ij + w_i p_j - L_ij,   tau dp/dt = (1 - sum w) p + w - p,
    tau dw_r/dt = pi_1 L^T w_r + pi_2 c_r + pi_3 L w_r - w_r,   r = w_r M.

    The differentiable neural computer of Graves et al. (2016), Nature 538:471-476, Methods: usage u, which free gates f
    lower by psi = prod_i (1 - f_i w_r_i), allocation a(u), contents c, links L, precedence p. The controller reads
    (u, r) and says to each read head its key, strength = 1 + softplus, free gate = sigma and modes pi = softmax, and to
    each write head its key, strength, gates g_a, g_w = sigma, what to erase, e = sigma, and to add, v; keys and v are
    linear. Conventions:

    * Within a step everything is seen as the step leaves it, in this order: controller, usage (which is told what was
      written and read in the step before), write heads (which look for their keys in the old memory), memory, links,
      precedence (the links see the old one), read heads (which look in the new memory). What is read there is fed to
      the controller in the next step.
    * Slots are allocated in the order of a stable sort: of slots used equally, the one with the lower number first.
      That is all that tells the slots of a new memory apart, which is zero like everything at the start.
    * Nothing is detached: gradients go from the usage to the weights, which deepmind/dnc stops.
    * |x| in the cosine is sqrt(x x + 1e-6), as in deepmind/dnc.
    * With several write heads all erase, then all add; slots are allocated to them one after the other, each taking
      what its gates g_a g_w say of the free share, and every one has its own links (as in deepmind/dnc).

    At dt = tau this is the discrete computer. Below it there are two meanings. A *clocked* memory ticks: the controller
    flows at any dt and reads what is held, and at each multiple of tau all the rest takes one whole step. A *relaxed*
    memory (`clocked=False`) flows as the equations say: weights, usage and links stay within their bounds for all steps
    dt <= tau of Euler and Heun, but a link between two slots that are written in turn, each for tau, falls from 1 to
    0.23 as dt goes to 0, and a(u) jumps where the order of usages changes.

    Args:
        controller: any relaxation that reads (u, r): its n_in is that of u plus reads * width. The paper's is an
            `LSTM`, or a `SkipStack` of several.
        n_out: outputs W_out (h, r) + b_out; without them the readout is (h, r).
        slots, width: how many words the memory has, and how many numbers a word has.
        reads, writes: heads.
        links: whether the order of writing is remembered; without it read heads find words by content alone.
        masked: each key has a mask, from 0.1 to 1, of the components that count.
        deallocating: what is freed is also erased, M <- M psi before it is written.
        peaked: what links lead to is raised to a power 1 + softplus. These three are the improvements of Csordas &
            Schmidhuber (2019), ICLR, arXiv:1904.10278.
        allocation: None for the sorted one; a number for softmax(allocation (1 - u)), which is smooth (Ben-Ari & Bekker
            2017) but tells equal slots not apart.
        clocked: whether memory and heads tick, or flow.
        exact_rates: of a memory that flows: erase, use, free and precede at the rates at which Euler's steps do in a
            whole tau what the discrete computer does, at any dt, while the heads hold. Links become fainter with
            them, since precedence turns over within a step. Other solvers need steps far below tau for them.
        tau: of memory and heads: one number, the period if they are clocked; else also a DNCState of numbers whose
            controller is ().
        learn_tau: learn it, if they are relaxed; the controller's is learned if it was built so.
        generator: where the weights are drawn from, uniformly within 1 / sqrt(units that send); torch's global one if
            None.

    Rows of W_heads and b_heads: keys (write heads first), add; then 1 + softplus of: strengths, peaks; then sigma of:
    erase, free, g_a, g_w, masks; then modes. State: DNCState.

    Raises:
        TypeError: the controller is no Relaxation, or an argument no number.
        ValueError: it has no room for what the heads read, or a size, tau or `allocation` is impossible.
    """

    def __init__(
        self,
        controller: Relaxation,
        n_out: int | None = None,
        *,
        slots: int,
        width: int,
        reads: int = 1,
        writes: int = 1,
        links: bool = True,
        masked: bool = False,
        deallocating: bool = False,
        peaked: bool = False,
        allocation: float | None = None,
        clocked: bool = True,
        exact_rates: bool = False,
        tau: Any = 1.0,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        linking = 0 if links else ()
        super().__init__(
            controller,
            n_out,
            slots=slots,
            width=width,
            reads=reads,
            writes=writes,
            parts=DNCState((), 0, 0, 0, 0, linking, linking),
            clocked=clocked,
            exact_rates=exact_rates,
            tau=tau,
            learn_tau=learn_tau,
        )
        if peaked and not links:
            raise ValueError("peaked=True sharpens what links lead to, and there are none: pass links=True.")
        if allocation is not None:
            check_number("allocation", allocation)
            if not 0 < allocation < float("inf"):
                raise ValueError(f"allocation = {allocation} must be positive and finite, or None for the sorted one.")
        self.links, self.masked, self.deallocating, self.peaked = links, masked, deallocating, peaked
        self.allocation = allocation
        heads = reads + writes
        self._positive = [heads, 2 * reads * writes if peaked else 0]
        self._gated = [writes * width, reads, writes, writes, heads * width if masked else 0]
        modes = reads * (2 * writes + 1) if links else 0
        self._rows = [heads * width, writes * width, sum(self._positive), sum(self._gated), modes]
        self._add_weights(sum(self._rows), generator)

    def target(self, t: Tensor, x: DNCState, u: Input, alpha: Any = 0) -> DNCState:  # type: ignore[override]
        """F of the controller, and of each part of the memory in the order of the docstring."""
        rates = tree.spread(alpha, x)
        controller, said = self._control(t, x, u, rates)
        if self._holds(rates):
            return x._replace(controller=controller)
        heads = self.interface(said)
        kept = remaining(heads.free.unsqueeze(-1) * x.read_weights, -2)
        unwritten = remaining(x.write_weights, -2)
        usage = self._paced(x.usage, (1 - (1 - x.usage) * unwritten) * kept, lambda: 1 - unwritten * kept, rates.usage)
        aims = aimed(heads.keys, heads.strengths, heads.masks)
        write = self._write_weights(x.memory, left(x.usage, usage, rates.usage), heads, aims)
        writing = left(x.write_weights, write, rates.write_weights)
        memory = self._written(x.memory, writing, heads, kept, rates.memory)
        link: Any = ()
        precedence: Any = ()
        if self.links:
            link = linkage.linked(x.link, writing, x.precedence)
            new = linkage.preceding(x.precedence, writing)
            precedence = self._paced(x.precedence, new, lambda: writing.sum(-1, keepdim=True), rates.precedence)
        found = left(x.memory, memory, rates.memory)
        order = left(x.link, link, rates.link)
        read = self._read_weights(x.read_weights, found, order, heads, aims)
        return DNCState(controller, memory, usage, write, read, link, precedence)

    def _written(self, memory: Memory, writing: Weights, heads: Interface, kept: Tensor, rate: Any) -> Memory:
        saved = kept.unsqueeze(-1) if self.deallocating else 1
        new = written(memory * saved if self.deallocating else memory, writing, heads.erase, heads.add)
        return self._paced(memory, new, lambda: 1 - saved * unerased(writing, heads.erase), rate)

    def interface(self, said: Vector) -> Interface:
        """What the controller tells its heads."""
        heads = self.reads + self.writes
        keys, add, positive, gated, modes = self.heads(said).split(self._rows, -1)
        strengths, peaks = (1 + F.softplus(positive)).split(self._positive, -1)
        erase, free, allocate, write, masks = torch.sigmoid(gated).split(self._gated, -1)
        words = (self.writes, self.width)
        return Interface(
            keys.unflatten(-1, (heads, self.width)),
            strengths,
            MASK_FLOOR + (1 - MASK_FLOOR) * masks.unflatten(-1, (heads, self.width)) if self.masked else None,
            erase.unflatten(-1, words),
            add.unflatten(-1, words),
            free,
            allocate,
            write,
            torch.softmax(modes.unflatten(-1, (self.reads, -1)), -1) if self.links else modes,
            peaks.unflatten(-1, (self.reads, 2 * self.writes)) if self.peaked else None,
        )

    def _write_weights(self, memory: Memory, usage: Tensor, heads: Interface, aims: Words) -> Weights:
        """g_w (g_a a + (1 - g_a) c)."""
        content = nearest(memory, *_of(slice(self.writes), aims, heads.masks))
        slots: list[Tensor] = []
        for head in range(self.writes):
            if head:
                taken = (heads.allocate * heads.write)[..., head - 1 : head] * slots[-1]
                usage = usage + taken * (1 - usage)
            free = allocated(usage) if self.allocation is None else softly_allocated(usage, self.allocation)
            slots.append(free)
        return heads.write.unsqueeze(-1) * torch.lerp(content, torch.stack(slots, -2), heads.allocate.unsqueeze(-1))

    def _read_weights(self, weights: Weights, memory: Memory, link: Any, heads: Interface, aims: Words) -> Weights:
        """pi_b L^T w + pi_c c + pi_f L w."""
        content = nearest(memory, *_of(slice(self.writes, None), aims, heads.masks))
        if not self.links:
            return content
        back, forth = linkage.retraced(link, weights), linkage.followed(link, weights)
        if heads.peaks is not None:
            peaks = heads.peaks.split(self.writes, -1)
            back, forth = (linkage.peaked(*pair) for pair in zip((back, forth), peaks, strict=True))
        ways = torch.cat([back, content.unsqueeze(-2), forth], -2)
        return (heads.modes.unsqueeze(-1) * ways).sum(-2)

    def initial_state(self, *batch: int) -> DNCState:
        """Nothing written, nothing read: all zero."""
        zeros = lambda *shape: self.W_heads.new_zeros(*batch, *shape)
        link, precedence = (zeros(self.writes, self.slots, self.slots), zeros(self.writes, self.slots))
        return DNCState(
            self.controller.initial_state(*batch),
            zeros(self.slots, self.width),
            zeros(self.slots),
            zeros(self.writes, self.slots),
            zeros(self.reads, self.slots),
            link if self.links else (),
            precedence if self.links else (),
        )

    @property
    def config(self) -> dict[str, Any]:
        own = ("links", "masked", "deallocating", "peaked", "allocation")
        return super().config | {name: getattr(self, name) for name in own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**cls._arguments(config, DNCState((), (), (), (), (), (), ())))

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        controller = LSTM(3, 6, tau=LSTMState(h=1.0, c=2.0), generator=draw)
        # Softly, for the flow of a sorted allocation jumps, and no solver keeps its order over that.
        return cls(
            controller, 2, slots=4, width=2, reads=2, writes=2, allocation=2.0, clocked=False, tau=1.5, generator=draw
        )


def _of(heads: slice, aims: Words, masks: Words | None) -> tuple[Words, Words | None]:
    """Aims and masks of some of the heads."""
    return aims[..., heads, :], None if masks is None else masks[..., heads, :]
