"""Fast weights: a memory that is a matrix, written by outer products of values and keys."""

from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation
from ctrnn.models._units import Input, Vector, check_number, check_size
from ctrnn.models.gated import LSTM, LSTMState
from ctrnn.models.memory._controlled import External
from ctrnn.models.memory.addressing import PerHead, Words, quickened

Fast = Float[Tensor, "*batch head word key"]
Keys = Float[Tensor, "*batch head key"]


class FastWeightsState(NamedTuple):
    """The controller's state and the fast weights A (*batch, heads, width, keys). Also the shape of a network's tau."""

    controller: Any
    weights: Any


class FastWeights(External):
    """tau dA/dt = lambda A + beta (v - lambda A k) k^T - A,   r = A q.

    A matrix A into which the controller writes a value v under a key k, beta of it, and from which it reads with a
    query q: Schmidhuber (1992), Neural Computation 4:131-139. With the delta rule of Schlag, Irie & Schmidhuber (2021),
    ICML, arXiv:2102.11174, as here, what the key read before is taken away first; with `delta=False` it is not,

        tau dA/dt = lambda A + beta v k^T - A,

    an outer product rule whose decay lambda Ba et al. (2016), NeurIPS, arXiv:1610.06258, chose below 1, and which with
    lambda = 1 is linear attention. The controller reads (u, r) and says k and q = softmax, beta = sigma, and v, which
    is linear. Conventions:

    * Keys and queries add up to 1. So beta k.k is at most 1, and no write of the delta rule overshoots: a whole step
      leaves (1 - beta k.k) of the difference between v and what k reads.
    * Within a step everything is seen as the step leaves it, in this order: controller, fast weights, reads. What is
      read, with the query of the new state in the new weights, is seen by the readout, and by the controller in the
      next step.
    * Each head has its own matrix.
    * The weights begin at 0.

    At dt = tau this is the discrete network. Below it there are two meanings. *Clocked* weights tick: the controller
    flows at any dt, and at each multiple of tau there is one whole write; its queries read at all times. *Relaxed*
    weights (`clocked=False`) flow as the equation says, which for lambda = 1 is the delta rule in continuous time of
    Irie, Faccio & Schmidhuber (2022), NeurIPS, arXiv:2206.01649, whose v is squashed by tanh. Where nothing is written,
    v = 0, no row of A grows, for all steps dt <= tau of Euler and Heun; but a write held for tau does less than a whole
    step: as dt goes to 0 it leaves exp(-beta k.k) of the difference.

    Args:
        controller: any relaxation that reads (u, r): its n_in is that of u plus heads * width. With one without a state
            of its own, `feed_forward(n, n_in)`, all that is remembered is in the fast weights.
        n_out: outputs W_out (h, r) + b_out; without them the readout is (h, r).
        keys, width: how many numbers a key has, and how many a value.
        heads: how many matrices there are.
        delta: the delta rule, or the outer product.
        decay: lambda, from 0 to 1: what is left of old weights after a step.
        clocked: whether the weights tick, or flow.
        exact_rates: of weights that flow: forget and write at the rates at which Euler's steps do in a whole tau what
            the discrete network does, at any dt, while the controller holds. Other solvers need steps far below tau.
        tau: of the fast weights: one number, the period if they are clocked; else also a FastWeightsState whose
            controller is ().
        learn_tau: learn it, if they are relaxed; the controller's is learned if it was built so.
        generator: where the weights are drawn from, uniformly within 1 / sqrt(units that send); torch's global one if
            None.

    Rows of W_heads and b_heads, each head by head: queries, keys, values, beta. State: FastWeightsState.

    Raises:
        TypeError: the controller is no Relaxation, or the decay no number.
        ValueError: it has no room for what is read, or a size, tau or the decay is impossible.
    """

    sees_reads = True

    def __init__(
        self,
        controller: Relaxation,
        n_out: int | None = None,
        *,
        keys: int,
        width: int,
        heads: int = 1,
        delta: bool = True,
        decay: float = 1.0,
        clocked: bool = True,
        exact_rates: bool = False,
        tau: Any = 1.0,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        for name, value in (("keys", keys), ("width", width), ("heads", heads)):
            check_size(name, value, 1)
        check_number("decay", decay)
        if not 0 <= decay <= 1:
            raise ValueError(f"decay = {decay} must be from 0 to 1: what is left of the old weights after a step.")
        super().__init__(
            controller,
            n_out,
            reads=heads,
            width=width,
            parts=FastWeightsState((), 0),
            clocked=clocked,
            tau=tau,
            learn_tau=learn_tau,
            exact_rates=exact_rates,
        )
        self.keys, self.width, self.n_heads = keys, width, heads
        self.delta, self.decay = delta, float(decay)
        self._rows = [heads * keys, heads * keys, heads * width, heads]
        self._add_weights(sum(self._rows), generator)

    def target(self, t: Tensor, x: FastWeightsState, u: Input, alpha: Any = 0) -> FastWeightsState:  # type: ignore[override]
        """F of the controller, and of the fast weights, which hear it as the step leaves it."""
        rates = tree.spread(alpha, x)
        controller, said = self._control(t, x, u, rates)
        if self._holds(rates):
            return x._replace(controller=controller)
        keys, values, betas = self.commands(said)
        new = rewritten(x.weights, keys, values, betas, self.decay, delta=self.delta)
        if self.exact_rates:
            new = self._hastened(x.weights, new, keys, betas, tree.per_leaf(rates.weights, x.weights))
        return FastWeightsState(controller, new)

    def _hastened(self, weights: Fast, new: Fast, keys: Keys, betas: PerHead, rate: Any) -> Fast:
        """F at the exact rates: one across the key, of the decay, and one along it, of what is written as well."""
        lengths, lost = keys.square().sum(-1), torch.full_like(betas, 1 - self.decay)
        taken = 1 - self.decay * (1 - betas * lengths) if self.delta else lost
        across, along = (quickened(share[..., None, None], rate) for share in (lost, taken))
        step = ((new - weights) @ (keys / lengths.unsqueeze(-1)).unsqueeze(-1)) * keys.unsqueeze(-2)
        return torch.addcmul(torch.lerp(weights, new, across.expand_as(new)), along - across, step)

    def commands(self, said: Vector) -> tuple[Keys, Words, PerHead]:
        """Keys, values and betas: what the controller writes."""
        queries, *written = self._rows
        rows = F.linear(said, self.W_heads[queries:], self.b_heads[queries:]).split(written, -1)
        keys, values, betas = (part.unflatten(-1, (self.n_heads, -1)) for part in rows)
        return torch.softmax(keys, -1), values, torch.sigmoid(betas).squeeze(-1)

    def queries(self, said: Vector) -> Keys:
        """What the controller asks for."""
        rows = self._rows[0]
        asked = F.linear(said, self.W_heads[:rows], self.b_heads[:rows])
        return torch.softmax(asked.unflatten(-1, (self.n_heads, self.keys)), -1)

    def read(self, x: FastWeightsState) -> Words:
        """r = A q."""
        return (x.weights @ self.queries(self.controller.readout(x.controller)).unsqueeze(-1)).squeeze(-1)

    def initial_state(self, *batch: int) -> FastWeightsState:
        """All fast weights at zero."""
        zeros = self.W_heads.new_zeros(*batch, self.n_heads, self.width, self.keys)
        return FastWeightsState(self.controller.initial_state(*batch), zeros)

    @property
    def config(self) -> dict[str, Any]:
        own = ("keys", "width", "delta", "decay", "exact_rates")
        return super().config | {"heads": self.n_heads} | {name: getattr(self, name) for name in own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**cls._arguments(config, FastWeightsState((), ())))

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        controller = LSTM(3, 2 + 4, tau=LSTMState(h=1.0, c=2.0), generator=draw)
        return cls(controller, 2, keys=3, width=2, heads=2, decay=0.9, clocked=False, tau=1.5, generator=draw)

    def extra_repr(self) -> str:
        """The sizes and the rule."""
        names = ("n_in", "n_out", "keys", "width", "n_heads", "delta", "decay")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


def rewritten(weights: Fast, keys: Keys, values: Words, betas: PerHead, decay: float = 1.0, *, delta: bool) -> Fast:
    """lambda A + beta (v - lambda A k) k^T, or without the delta rule lambda A + beta v k^T."""
    kept = weights if decay == 1 else decay * weights
    if delta:
        values = values - (kept @ keys.unsqueeze(-1)).squeeze(-1)
    return torch.addcmul(kept, (betas.unsqueeze(-1) * values).unsqueeze(-1), keys.unsqueeze(-2))
