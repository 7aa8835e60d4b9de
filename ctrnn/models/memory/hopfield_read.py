"""A modern Hopfield network as the read of a memory: words are recalled by how much they are like a query."""

import math
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation
from ctrnn.models._units import Input, Vector, check_number, check_size
from ctrnn.models.gated import LSTM, LSTMState
from ctrnn.models.memory._controlled import External
from ctrnn.models.memory.addressing import Memory, Weights, Words, associated


class HopfieldReadState(NamedTuple):
    """The controller's state and the memory X (*batch, slots, width). Also the shape of a HopfieldRead's tau."""

    controller: Any
    memory: Any


class HopfieldRead(External):
    """tau dX/dt = g (push(X, v) - X),   r = X^T softmax(beta X q).

    A memory that is read as a modern Hopfield network recalls (Ramsauer et al. 2021, ICLR, arXiv:2008.02217; Krotov &
    Hopfield 2021, ICLR, arXiv:2008.06996): its words X are stored patterns, the query q is the state from which recall
    starts, and r the state after `recalls` updates, the first of which is attention with the words as keys and values.
    Each update is that of `ModernHopfield`, and none raises its energy. The controller reads (u, r) and says to each
    head its query, and to the memory what to store, v, both linear, and how much of it, g = sigma. Conventions:

    * To store is to push: v comes in at slot 0, each word goes one slot on, and the last is forgotten. Where g = 0 the
      memory stays as it is.
    * Slots that hold nothing yet hold the word 0, which is recalled like any other, with exp(0): a query that is to
      find a word among many empty slots must be so long that beta q.word exceeds the log of their number.
    * Within a step everything is seen as the step leaves it, in this order: controller, memory, reads. What is read,
      with the query of the new state in the new memory, is seen by the readout, and by the controller in the next step.

    At dt = tau this is the discrete network. Below it there are two meanings. A *clocked* memory ticks: the controller
    flows at any dt and asks at all times, and at each multiple of tau one word is stored. A *relaxed* memory
    (`clocked=False`) flows as the equation says: every number stays between those of its place that were stored, for
    all steps dt <= tau of Euler and Heun, but a word that is pushed for tau moves one slot on average with a variance
    of 1 - dt / tau. Recall itself takes no time: for that see `ModernHopfield`.

    Args:
        controller: any relaxation that reads (u, r): its n_in is that of u plus reads * width.
        n_out: outputs W_out (h, r) + b_out; without them the readout is (h, r).
        slots, width: how many words the memory has, and how many numbers a word has.
        reads: heads.
        beta: inverse temperature, above 0: attention's is 1 / sqrt(width).
        recalls: updates of a recall.
        writing: whether words are stored. If not, the memory is what it begins with: words given in x0, as
            `net.initial_state()._replace(memory=words)`, or learned ones.
        learn_memory: learn what the memory holds at first, drawn from a normal distribution with variance 1 / width;
            else it is zero.
        clocked: whether the memory ticks, or flows.
        tau: of the memory: one number, the period if it is clocked; else also a HopfieldReadState whose controller is
            ().
        learn_tau: learn it, if it is relaxed; the controller's is learned if it was built so.
        generator: where the weights are drawn from, uniformly within 1 / sqrt(units that send); torch's global one if
            None.

    Rows of W_heads and b_heads: queries, head by head; then v and g. memory_0 (slots, width) is a Parameter if it is
    learned. State: HopfieldReadState.

    Raises:
        TypeError: the controller is no Relaxation, or beta no number.
        ValueError: it has no room for what is read, or a size, tau or beta is impossible.
    """

    sees_reads = True
    memory_0: Tensor

    def __init__(
        self,
        controller: Relaxation,
        n_out: int | None = None,
        *,
        slots: int,
        width: int,
        reads: int = 1,
        beta: float = 1.0,
        recalls: int = 1,
        writing: bool = True,
        learn_memory: bool = False,
        clocked: bool = True,
        tau: Any = 1.0,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        for name, value in (("slots", slots), ("width", width), ("reads", reads), ("recalls", recalls)):
            check_size(name, value, 1)
        check_number("beta", beta)
        if not 0 < beta < math.inf:
            raise ValueError(f"beta = {beta} must be positive and finite.")
        super().__init__(
            controller,
            n_out,
            reads=reads,
            width=width,
            parts=HopfieldReadState((), 0),
            clocked=clocked,
            tau=tau,
            learn_tau=learn_tau,
        )
        self.slots, self.width, self.reads = slots, width, reads
        self.beta, self.recalls, self.writing, self.learn_memory = float(beta), recalls, writing, learn_memory
        self._asked = reads * width
        self._add_weights(self._asked + (width + 1 if writing else 0), generator)
        if learn_memory:
            self.memory_0 = nn.Parameter(torch.randn(slots, width, generator=generator) / math.sqrt(width))
        else:
            self.register_buffer("memory_0", torch.zeros(slots, width))

    def target(self, t: Tensor, x: HopfieldReadState, u: Input, alpha: Any = 0) -> HopfieldReadState:  # type: ignore[override]
        """F of the controller, and of the memory, which hears it as the step leaves it."""
        rates = tree.spread(alpha, x)
        controller, said = self._control(t, x, u, rates)
        if self._holds(rates) or not self.writing:
            return x._replace(controller=controller)
        word, gate = F.linear(said, self.W_heads[self._asked :], self.b_heads[self._asked :]).split((self.width, 1), -1)
        pushed = torch.cat([word.unsqueeze(-2), x.memory[..., :-1, :]], -2)
        return HopfieldReadState(controller, torch.lerp(x.memory, pushed, torch.sigmoid(gate).unsqueeze(-1)))

    def queries(self, said: Vector) -> Words:
        """What the controller asks each head for."""
        asked = F.linear(said, self.W_heads[: self._asked], self.b_heads[: self._asked])
        return asked.unflatten(-1, (self.reads, self.width))

    def weights(self, x: HopfieldReadState) -> Weights:
        """How much of each word is recalled in the last update; of each head they add up to 1."""
        asked = self.queries(self.controller.readout(x.controller))
        for _ in range(self.recalls - 1):
            asked = associated(x.memory, asked, self.beta) @ x.memory
        return associated(x.memory, asked, self.beta)

    def read(self, x: HopfieldReadState) -> Words:
        """r: what is recalled."""
        return self.weights(x) @ x.memory

    def initial_state(self, *batch: int) -> HopfieldReadState:
        """The memory that it begins with."""
        memory: Memory = self.memory_0.expand(*batch, self.slots, self.width)
        return HopfieldReadState(self.controller.initial_state(*batch), memory)

    @property
    def config(self) -> dict[str, Any]:
        own = ("slots", "width", "reads", "beta", "recalls", "writing", "learn_memory")
        return super().config | {name: getattr(self, name) for name in own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**cls._arguments(config, HopfieldReadState((), ())))

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        controller = LSTM(3, 2 + 4, tau=LSTMState(h=1.0, c=2.0), generator=draw)
        options: dict[str, Any] = {"recalls": 2, "clocked": False, "tau": 1.5}
        return cls(controller, 2, slots=4, width=2, reads=2, beta=1.5, generator=draw, **options)

    def extra_repr(self) -> str:
        """The sizes."""
        names = ("n_in", "n_out", "slots", "width", "reads", "beta", "recalls", "writing")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)
