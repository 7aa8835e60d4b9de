"""What compiled kernels need to know of a network: its target as plain Tensors, without the module that holds them."""

from typing import Any, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

Nonlinearity = Literal["identity", "tanh", "relu", "sigmoid", "softplus", "retanh"]


class RateNetwork(NamedTuple):
    """F = post(W_rec pre(gain x + theta) + W_in u + b), one target for each of n units, with time constants tau."""

    W_rec: Float[Tensor, "unit unit"]  # [to, from], masked already
    W_in: Float[Tensor, "unit input"] | None  # None: u is what arrives at each unit
    b: Float[Tensor, "unit"] | None
    tau: Float[Tensor, "..."]  # one, or one for each unit
    gain: Float[Tensor, "..."] | None = None  # None: 1
    theta: Float[Tensor, "unit"] | None = None  # None: 0
    pre: Nonlinearity = "identity"
    post: Nonlinearity = "identity"


class GatedNetwork(NamedTuple):
    """torch's GRU or LSTM, whose gates are blocks of n rows of the weights; v = W_in u + b_in, q = W_rec h + b_rec.

    gru: blocks r, z, n, the reset after the product; F = (1 - z) tanh(v_n + r q_n) + z h.
    lstm: blocks i, f, g, o, a state (h, c); F_c = f c + i g, F_h = o tanh(lerp(c, F_c, alpha of c)).
    """

    W_rec: Float[Tensor, "gates unit"]
    W_in: Float[Tensor, "gates input"] | None  # None: u is what arrives at each gate
    b_rec: Float[Tensor, "gates"] | None
    b_in: Float[Tensor, "gates"] | None
    tau: Any  # one, or one for each unit; such a pair for h and c
    kind: Literal["gru", "lstm"]

    @property
    def bias(self) -> Tensor | None:
        """What W_in u meets: b_in, and in an LSTM b_rec too, for there both act alike."""
        if self.kind == "gru" or self.b_rec is None:
            return self.b_in
        return self.b_rec if self.b_in is None else self.b_in + self.b_rec


class Layers(NamedTuple):
    """Relaxations whose states are the `layers` of a state, each fed with the readout of the one before it."""

    each: tuple[Any, ...]
