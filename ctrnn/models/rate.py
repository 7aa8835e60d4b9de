"""The three equations that are called "continuous-time RNN"; `conversion` turns them into one another."""

import math
from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ctrnn.init import centre_crossing
from ctrnn.lowered import RateNetwork
from ctrnn.models._units import Input, Units, Vector
from ctrnn.models.activations import Activation, checked, lowered, name_of, named


def fan_in_gaussian(generator: Generator | None) -> Callable[..., Tensor]:
    """Weights N(0, 1 / number of inputs), biases 0: at this g = 1 a random network stops being silent."""

    def draw(*shape: int) -> Tensor:
        if len(shape) == 1:
            return torch.zeros(shape)
        return torch.randn(shape, generator=generator) / math.sqrt(max(shape[-1], 1))

    return draw


class _Rate(Units):
    """Weights, activation and readout of `CTRNN` and `RateRNN`."""

    b_rec: Tensor

    def __init__(
        self,
        n: int,
        n_in: int,
        n_out: int | None = None,
        *,
        tau: Any = 1.0,
        activation: Activation = torch.tanh,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(n, n_in, n_out, tau)
        self.activation = checked(activation)
        self._add_weights(fan_in_gaussian(generator), learn_tau, W_rec=(n, n), W_in=(n, n_in), b_rec=(n,))

    @property
    def config(self) -> dict[str, Any]:
        return super().config | {"activation": name_of(self.activation)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config | {"activation": named(config["activation"])})

    @classmethod
    def example(cls) -> Self:
        return cls(3, 2, 2, tau=torch.tensor([0.5, 1.0, 2.0]), generator=Generator().manual_seed(0))


class CTRNN(_Rate):
    """tau dx/dt = -x + W_rec f(x) + W_in u + b_rec,   y = W_out f(x) + b_out.

    The voltage (current, potential) form: x are the units' inputs low-pass filtered, f(x) their rates (Hopfield 1984;
    Sompolinsky, Crisanti & Sommers 1988).

    Args:
        n: units.
        n_in: inputs.
        n_out: outputs; without them there is no readout and y is the rates f(x).
        tau: one number or one per unit, in the unit in which dt will be given.
        activation: f, applied to (*batch, n).
        learn_tau: learn tau, in the shape in which it was given: pass one per unit to learn one per unit.
        generator: where the weights are drawn from; torch's global one if None.

    Parameters: W_rec (n, n), W_in (n, n_in), b_rec (n,), W_out (n_out, n), b_out (n_out,); weights are W[to, from].
    State: (*batch, n).
    """

    def target(self, t: Tensor, x: Vector, u: Input, alpha: Any = 0) -> Vector:  # type: ignore[override]
        """F = W_rec f(x) + W_in u + b_rec."""
        return F.linear(self.activation(x), self.W_rec, self.b_rec) + F.linear(u, self.W_in)

    def lowered(self) -> RateNetwork | None:
        pre = lowered(self.activation)
        return None if pre is None else RateNetwork(self.W_rec, self.W_in, self.b_rec, self.tau, pre=pre)

    def activity(self, x: Vector) -> Vector:
        """The rates f(x)."""
        return self.activation(x)


class RateRNN(_Rate):
    """tau dr/dt = -r + f(W_rec r + W_in u + b_rec),   y = W_out r + b_out.

    The rate form: the state is what the units send (without refractoriness Wilson & Cowan 1972; the leaky echo state
    network of Jaeger et al. 2007). At dt = tau it is an Elman network. Arguments and Parameters as for `CTRNN`; without
    n_out, y is r.
    """

    def target(self, t: Tensor, x: Vector, u: Input, alpha: Any = 0) -> Vector:  # type: ignore[override]
        """F = f(W_rec r + W_in u + b_rec)."""
        return self.activation(F.linear(x, self.W_rec, self.b_rec) + F.linear(u, self.W_in))

    def lowered(self) -> RateNetwork | None:
        post = lowered(self.activation)
        return None if post is None else RateNetwork(self.W_rec, self.W_in, self.b_rec, self.tau, post=post)

    def activity(self, x: Vector) -> Vector:
        """The rates r."""
        return x


class BeerCTRNN(Units):
    """tau dy/dt = -y + W_rec sigma(gain (y + theta)) + W_in u, with sigma the logistic function.

    Beer (1995), Adaptive Behavior 3:469-509: the bias theta acts inside sigma, together with the state. Beer writes
    weights w[from, to]; here, as everywhere in this package, W[to, from]. theta starts at centre-crossing,
    theta_i = -sum_j W_ij / 2, where the network is most sensitive.

    Args:
        n: units.
        n_in: inputs.
        n_out: outputs W_out sigma(gain (y + theta)) + b_out; without them the readout is the units' outputs
            sigma(gain (y + theta)).
        tau: one number or one per unit, in the unit in which dt will be given.
        gain: one number or one per unit.
        learn_tau: as for `CTRNN`.
        generator: where the weights are drawn from; torch's global one if None.

    Parameters: W_rec (n, n), theta (n,), gain () or (n,), W_in (n, n_in), W_out (n_out, n), b_out (n_out,).
    State: (*batch, n).
    """

    theta: Tensor

    def __init__(
        self,
        n: int,
        n_in: int = 0,
        n_out: int | None = None,
        *,
        tau: Any = 1.0,
        gain: Any = 1.0,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(n, n_in, n_out, tau)
        given = torch.as_tensor(gain, dtype=torch.get_default_dtype())
        if given.shape not in ((), (n,)):
            raise ValueError(f"gain must be one number or one per unit ({n}), got the shape {tuple(given.shape)}.")
        self.gain = nn.Parameter(given.detach().clone())
        self._add_weights(fan_in_gaussian(generator), learn_tau, W_rec=(n, n), W_in=(n, n_in), theta=(n,))
        with torch.no_grad():
            self.theta.copy_(centre_crossing(self.W_rec))

    def target(self, t: Tensor, x: Vector, u: Input, alpha: Any = 0) -> Vector:  # type: ignore[override]
        """F = W_rec sigma(gain (y + theta)) + W_in u."""
        return F.linear(self.activity(x), self.W_rec) + F.linear(u, self.W_in)

    def lowered(self) -> RateNetwork:
        return RateNetwork(self.W_rec, self.W_in, None, self.tau, self.gain, self.gain * self.theta, pre="sigmoid")

    def activity(self, x: Vector) -> Vector:
        """The outputs sigma(gain (y + theta))."""
        return torch.sigmoid(self.gain * (x + self.theta))

    @property
    def config(self) -> dict[str, Any]:
        return super().config | {"gain": self.gain.tolist()}

    @classmethod
    def example(cls) -> Self:
        return cls(3, 2, gain=2.0, tau=torch.tensor([1.0, 2.5, 1.0]), generator=Generator().manual_seed(0))
