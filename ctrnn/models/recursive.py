"""A network that folds a tree, or any graph without cycles, as a recurrent one folds a sequence."""

import math
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from ctrnn.models._units import Input, Units, Vector, check_size
from ctrnn.models.activations import Activation, checked, name_of, named
from ctrnn.models.gated import _within

Children = Float[Tensor, "*batch slot unit"]


class Recursive(Units):
    """tau dh/dt = f(W_in u + sum_k W_k h_k + b_rec) - h.

    The recursive network of Goller & Kuechler (1996), ICNN 1:347-352: a node with label u reads its children h_k, each
    through the weights of its slot; `sweep(model, inputs, order)` runs it over trees, and over the planes of a grid it
    is the DAG-RNN of Baldi & Pollastri (2003). An empty slot is a state of 0. Over time the only child is the state
    before, in the first slot: then it is an `Elman` network.

    Args:
        n, n_in, n_out, tau, learn_tau, generator: as for `Elman`.
        arity: slots.
        activation: f.

    Parameters: W_in (n, n_in), W_rec (n, arity n), the slots side by side, b_rec (n,). State h: (*batch, n).
    """

    b_rec: Tensor

    def __init__(
        self,
        n: int,
        n_in: int,
        n_out: int | None = None,
        *,
        arity: int = 2,
        tau: Any = 1.0,
        activation: Activation = torch.tanh,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(n, n_in, n_out, tau)
        check_size("arity", arity, 1)
        self.arity, self.activation = arity, checked(activation)
        draw = _within(1 / math.sqrt(n), generator)
        self._add_weights(draw, learn_tau, W_in=(n, n_in), W_rec=(n, arity * n), b_rec=(n,))

    def target(self, t: Tensor, x: Vector, u: Input, alpha: Any = 0) -> Vector:  # type: ignore[override]
        """F with the state as the only child."""
        return self.target_of(x, x.unsqueeze(-2), u, alpha)

    def target_of(self, x: Vector, children: Children, u: Input, alpha: Any = 0) -> Vector:
        """F = f(W_in u + sum_k W_k h_k + b_rec), for up to `arity` children h_k, 0 where a slot is empty."""
        slots = children.shape[-2]
        return self.activation(
            F.linear(children.flatten(-2), self.W_rec[:, : slots * self.n], self.b_rec) + F.linear(u, self.W_in)
        )

    def activity(self, x: Any) -> Vector:
        return x

    @property
    def config(self) -> dict[str, Any]:
        return super().config | {"arity": self.arity, "activation": name_of(self.activation)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config | {"activation": named(config["activation"])})

    @classmethod
    def example(cls) -> Self:
        return cls(3, 2, 2, tau=torch.tensor([0.5, 1.0, 2.0]), generator=Generator().manual_seed(0))
