"""A network that looks back, at every moment, at whatever in a memory suits what it is doing."""

import math
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from ctrnn import _model_files as files
from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation
from ctrnn.models._units import Input, Vector, check_size
from ctrnn.models.gated import LSTM, _within


class AttentiveState(NamedTuple):
    """The reader's state, the memory (*batch, place, item), and which of its places are there (*batch, place).

    A place that is exactly 0 in `present` is padding. Also the shape of tau; memory and present do not move.
    """

    reader: Any
    memory: Any
    present: Any


class Attentive(Relaxation):
    """tau dx/dt = F(x, (u, c)) - x,   c = sum_j a_j m_j,   a = softmax_j w . tanh(W_query x + W_key m_j).

    Bahdanau, Cho & Bengio (2015), ICLR, arXiv:1409.0473, equations 5 and 6 and appendix A.1.2, for any reader (F, tau):
    a comes from the state before the step, and the context c joins the reader's input. The memory m is part of the
    state and keeps what it starts with, dm/dt = 0. The readout is the reader's; in the paper it sees c and the last
    word as well.

    Args:
        reader: a relaxation that reads (u, c): its n_in is that of u plus n_memory.
        n_memory: numbers in an item of the memory.
        places: of the memory, the same in every run; those that are not used are padding.
        n_hidden: units that compare state and item.
        generator: where the weights are drawn from, uniformly within 1 / sqrt(n_hidden); torch's global one if None.

    Parameters: W_query (n_hidden, size of the reader's state, its parts side by side), W_key (n_hidden, n_memory),
    w (n_hidden,). State and tau: AttentiveState(reader, memory, present).

    Raises:
        TypeError: the reader is no Relaxation.
        ValueError: it has no room for the context.
    """

    def __init__(
        self, reader: Relaxation, n_memory: int, places: int, n_hidden: int, *, generator: Generator | None = None
    ) -> None:
        super().__init__()
        if not isinstance(reader, Relaxation):
            raise TypeError(
                f"the reader must be a Relaxation, got a {type(reader).__name__}: wrap(cell) makes one of any cell."
            )
        check_size("n_memory", n_memory, 1)
        check_size("places", places, 1)
        check_size("n_hidden", n_hidden, 1)
        if reader.n_in < n_memory:
            raise ValueError(
                f"a {type(reader).__name__} with n_in={reader.n_in} has no room for a context of {n_memory} numbers: "
                f"give it n_in={n_memory} plus the inputs'."
            )
        self.reader, self.n_memory, self.places, self.n_hidden = reader, n_memory, places, n_hidden
        self.n_in = reader.n_in - n_memory
        start = reader.initial_state()
        draw = _within(1 / math.sqrt(n_hidden), generator)
        self.W_query = nn.Parameter(draw(n_hidden, tree.ravel(start, 0).numel()))
        self.W_key = nn.Parameter(draw(n_hidden, n_memory))
        self.w = nn.Parameter(draw(n_hidden))
        self._like = tree.map(lambda _: 0, start)

    def target(self, t: Tensor, x: AttentiveState, u: Input, alpha: Any = 0) -> AttentiveState:  # type: ignore[override]
        """The reader's F for (u, c), and the memory as it is."""
        context = self.context(x)
        part = alpha.reader if isinstance(alpha, AttentiveState) else alpha
        return x._replace(reader=self.reader.target(t, x.reader, torch.cat([u, context], -1), part))

    def remember(
        self, reader: Any, items: Float[Tensor, "*batch item memory"], present: Bool[Tensor, "*batch item"]
    ) -> AttentiveState:
        """A state with these items in its memory, whose other places are padding.

        Raises:
            ValueError: a shape does not fit, or there are more items than places.
        """
        if items.ndim < 2 or items.shape[-1] != self.n_memory or present.shape != items.shape[:-1]:
            raise ValueError(
                f"items must have the shape (*batch, item, {self.n_memory}) and present (*batch, item), got "
                f"{tuple(items.shape)} and {tuple(present.shape)}: give n_memory={self.n_memory} numbers an item."
            )
        spare = self.places - items.shape[-2]
        if spare < 0:
            raise ValueError(
                f"{items.shape[-2]} items for a memory with places={self.places}: build the Attentive with more places."
            )
        return AttentiveState(reader, F.pad(items, (0, 0, 0, spare)), F.pad(present.to(items.dtype), (0, spare)))

    def context(self, x: AttentiveState) -> Vector:
        """c = sum_j a_j m_j."""
        return (self.weights(x).unsqueeze(-2) @ x.memory).squeeze(-2)

    def weights(self, x: AttentiveState) -> Float[Tensor, "*batch place"]:
        """a: how much each place of the memory counts in this state; they add up to 1, padding has none.

        Where all is padding, as behind an empty source, all are 0 and so is c.
        """
        query = F.linear(tree.ravel(x.reader, x.present.ndim - 1), self.W_query)
        scores = torch.tanh(query.unsqueeze(-2) + F.linear(x.memory, self.W_key)) @ self.w
        padding = x.present == 0
        # The lowest finite score, and not -inf, whose softmax is NaN where there is nothing else.
        scores = scores.masked_fill(padding, torch.finfo(scores.dtype).min)
        return scores.softmax(-1).masked_fill(padding, 0)

    def initial_state(self, *batch: int) -> AttentiveState:
        """The reader's own, and zeros in every place of the memory."""
        return AttentiveState(
            self.reader.initial_state(*batch),
            self.W_key.new_zeros(*batch, self.places, self.n_memory),
            self.W_key.new_ones(*batch, self.places),
        )

    def readout(self, x: AttentiveState) -> Vector:  # type: ignore[override]
        """The reader's."""
        return self.reader.readout(x.reader)

    @property
    def clock(self) -> Any:
        """The reader's periods."""
        own = self.reader.clock
        return None if own is None else AttentiveState(tree.spread(own, self._like), None, None)

    @property
    def tau(self) -> AttentiveState:
        """The reader's time constants; the memory is given the slowest, which changes nothing."""
        own = tree.spread(self.reader.tau, self._like)
        slowest = torch.stack([leaf.max() for leaf in tree.leaves(own)]).max()
        return AttentiveState(own, slowest, slowest)

    @tau.setter
    def tau(self, value: Any) -> None:
        self.reader.tau = value.reader if isinstance(value, AttentiveState) else value

    def learn_tau(self) -> None:
        self.reader.learn_tau()

    @property
    def config(self) -> dict[str, Any]:
        """The reader's class and configuration, and the sizes."""
        sizes = {"n_memory": self.n_memory, "places": self.places, "n_hidden": self.n_hidden}
        return {"reader": files.describe(self.reader)} | sizes

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(files.build(Relaxation, config["reader"]), *(config[k] for k in ("n_memory", "places", "n_hidden")))

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        return cls(LSTM(3, 4, 2, generator=draw), 2, 3, 3, generator=draw)
