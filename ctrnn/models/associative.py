"""Associative memories: symmetric networks that run downhill to what was stored in them."""

import math
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.dynamics import Relaxation
from ctrnn.lowered import RateNetwork
from ctrnn.models._units import Units, Vector, check_number, check_size
from ctrnn.models.memory.addressing import associated

Energy = Float[Tensor, "*batch"]


class Hopfield(Units):
    """tau dx/dt = W_rec V + u + b_rec - x,   V = tanh(gain x).

    Hopfield (1984), PNAS 81:3088-3092: graded units with symmetric weights. At dt = tau all units switch at once,
    V' = tanh(gain (W_rec V + u + b_rec)), and with gain = inf they are the two-state units of Hopfield (1982), PNAS
    79:2554-2558, V = sgn x with sgn 0 = +1. Switched one after the other (`sweep`), or in continuous time, they never
    climb in `energy`; switched all at once they may run in a cycle of two.

    Args:
        n: units, and as many inputs u, which are currents into them.
        gain: beta, above 0; `math.inf` for two-state units.
        tau: one number or one per unit, in the unit in which dt will be given.
        learn_tau: learn tau, in the shape in which it was given.

    Parameters: W_rec (n, n), b_rec (n,), zero at first: `learning.hebbian` and `learning.pseudo_inverse` make weights
    of patterns, and `Hopfield.of(weights)` a network of weights. State x: (*batch, n); the readout is V.

    Raises:
        ValueError: the gain is not positive.
    """

    b_rec: Tensor

    def __init__(self, n: int, *, gain: float = 1.0, tau: Any = 1.0, learn_tau: bool = False) -> None:
        super().__init__(n, n, None, tau)
        self.gain = checked_gain(gain)
        self._add_weights(torch.zeros, learn_tau, W_rec=(n, n), b_rec=(n,))

    @classmethod
    def of(cls, weights: Float[Tensor, "unit unit"], *, gain: float = math.inf, tau: Any = 1.0) -> Self:
        """A network with these weights, and no biases.

        They are taken as they are: with others than symmetric ones the network runs, but may climb in `energy`.

        Raises:
            TypeError: the weights are no floating-point Tensor.
            ValueError: they are no square matrix.
        """
        _check_matrix("weights", weights, "(unit, unit)")
        if weights.shape[0] != weights.shape[1]:
            raise ValueError(f"weights must be a square matrix, got the shape {tuple(weights.shape)}.")
        net = cls(len(weights), gain=gain, tau=tau).to(weights)
        with torch.no_grad():
            net.W_rec.copy_(weights)
        return net

    def target(self, t: Tensor, x: Vector, u: Vector, alpha: Any = 0) -> Vector:  # type: ignore[override]
        """F = W_rec V + u + b_rec."""
        return F.linear(self.activity(x), self.W_rec, self.b_rec) + u

    def lowered(self) -> RateNetwork | None:
        """Graded units only: kernels have no step at zero."""
        if math.isinf(self.gain):
            return None
        return RateNetwork(self.W_rec, None, self.b_rec, self.tau, self.W_rec.new_tensor(self.gain), pre="tanh")

    def activity(self, x: Vector) -> Vector:
        """V = tanh(gain x)."""
        return graded(x, self.gain)

    def energy(self, x: Vector, u: Vector | float = 0.0) -> Energy:
        """E = -V W_rec V / 2 - (u + b_rec) V + sum_i integral_0^V_i atanh(v) / gain dv.

        The integral is V x - log cosh(gain x) / gain, and 0 for two-state units.
        """
        V = self.activity(x)
        E = -(V * (F.linear(V, self.W_rec) / 2 + u + self.b_rec)).sum(-1)
        return E if math.isinf(self.gain) else E + (V * x - _log_cosh(self.gain * x) / self.gain).sum(-1)

    def sweep(self, x: Vector, order: Int[Tensor, " step"], u: Vector | float = 0.0) -> Vector:
        """The state after the units of `order`, one after the other, have each taken x_i = (W_rec V + u + b_rec)_i.

        Asynchronous switching: as W_rec is symmetric and has no negative diagonal, no switch raises the energy of
        two-state units, and without a diagonal none raises that of graded ones.

        Raises:
            TypeError, ValueError: `order` is no Tensor of units' numbers.
        """
        if not isinstance(order, Tensor) or order.ndim != 1 or order.is_floating_point():
            raise TypeError(f"order must be an integer Tensor (step,) such as torch.randperm({self.n}), got {order!r}.")
        if order.numel() and not bool(((order >= 0) & (order < self.n)).all()):
            raise ValueError(f"order names units from 0 to {self.n - 1}, got {order.tolist()}.")
        x, V = x.clone(), self.activity(x)
        external = (u + self.b_rec).expand_as(x)
        for i in order.tolist():
            x[..., i] = F.linear(V, self.W_rec[i]) + external[..., i]
            V = V.clone()  # what the product keeps for its gradient must not change
            V[..., i] = self.activity(x[..., i])
        return x

    @property
    def config(self) -> dict[str, Any]:
        given = super().config
        return {"n": given["n"], "gain": gain_name(self.gain), "tau": given["tau"], "learn_tau": given["learn_tau"]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config | {"gain": float(config["gain"])})

    @classmethod
    def example(cls) -> Self:
        draw = torch.randn(3, 3, generator=Generator().manual_seed(0))
        net = cls.of((draw + draw.T) / 2, gain=1.5)
        net.tau = torch.tensor([0.5, 1.0, 2.0])
        return net


class BAMState(NamedTuple):
    """x (*batch, n) and y (*batch, m): the two fields. Also the shape of a BAM's tau."""

    x: Any
    y: Any


class BAM(Relaxation):
    """tau_y dy/dt = M^T f(x) + J - y,   tau_x dx/dt = M f(y) + I - x,   f = tanh(gain .).

    The bidirectional associative memory of Kosko (1988), IEEE Trans. SMC 18:49-60. Within a step x hears the field y as
    the step leaves it: at dt = tau the fields reverberate as Kosko's, y = sgn(M^T f(x) + J), x = sgn(M f(y) + I), the
    other way round with the transposed memory. In continuous time, where both hear each other at once, it is the
    `Hopfield` network of both fields with weights [[0, M], [M^T, 0]]. Neither climbs in `energy`.

    Args:
        n, m: units of the fields x and y; u = (I, J) has n + m numbers.
        gain: above 0; `math.inf` for two-state units, with sgn 0 = +1.
        tau: one number, or BAMState(x=..., y=...).

    Parameter M (n, m), zero at first: `learning.correlation(X, Y)` makes it of pairs. State: BAMState(x, y); the
    readout is (f(x), f(y)) side by side.
    """

    M: Tensor

    def __init__(self, n: int, m: int, *, gain: float = math.inf, tau: Any = 1.0) -> None:
        super().__init__()
        check_size("n", n, 1)
        check_size("m", m, 1)
        self.n, self.m, self.n_in, self.gain = n, m, n + m, checked_gain(gain)
        self.M = nn.Parameter(torch.zeros(n, m))
        self.tau = tree.spread(tau, BAMState(0, 0))

    @classmethod
    def of(cls, memory: Float[Tensor, "x y"], *, gain: float = math.inf, tau: Any = 1.0) -> Self:
        """A network with this memory."""
        _check_matrix("the memory", memory, "(n, m)")
        net = cls(*memory.shape, gain=gain, tau=tau).to(memory)
        with torch.no_grad():
            net.M.copy_(memory)
        return net

    def target(self, t: Tensor, x: BAMState, u: Vector, alpha: Any = 0) -> BAMState:  # type: ignore[override]
        """F_y = M^T f(x) + J, and F_x = M f(lerp(y, F_y, alpha_y)) + I."""
        into_x, into_y = u.split((self.n, self.m), -1)
        y = F.linear(graded(x.x, self.gain), self.M.T) + into_y
        heard = tree.blend(x.y, y, tree.spread(alpha, x).y)
        assert isinstance(heard, Tensor)
        return BAMState(F.linear(graded(heard, self.gain), self.M) + into_x, y)

    def readout(self, x: State) -> Vector:
        """f(x) and f(y), side by side."""
        return torch.cat([graded(part, self.gain) for part in x], -1)

    def energy(self, x: BAMState, u: Vector | float = 0.0) -> Energy:
        """E = -f(x) M f(y) - I f(x) - J f(y) + the integrals of `Hopfield.energy`."""
        return field_energy(x.x, x.y, self.M, u, self.gain)

    def initial_state(self, *batch: int) -> BAMState:
        """Both fields at zero."""
        return BAMState(self.M.new_zeros(*batch, self.n), self.M.new_zeros(*batch, self.m))

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        tau = {name: self.get_buffer(f"tau0_{name}").tolist() for name in BAMState._fields}
        return {"n": self.n, "m": self.m, "gain": gain_name(self.gain), "tau": tau}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config | {"gain": float(config["gain"]), "tau": BAMState(**config["tau"])})

    @classmethod
    def example(cls) -> Self:
        net = cls.of(torch.randn(3, 2, generator=Generator().manual_seed(0)), gain=1.5)
        net.tau = BAMState(x=2.0, y=0.5)
        return net


class ModernHopfield(Relaxation):
    """tau dx/dt = X^T softmax(beta X x) - x: the state is drawn to the stored patterns that are nearest to it.

    Ramsauer et al. (2021), ICLR, arXiv:2008.02217: at dt = tau their update, which is attention with the patterns as
    keys and values. In between, it is gradient descent on their energy, which no step dt <= tau raises.

    Args:
        n: units.
        slots: patterns.
        beta: inverse temperature, above 0.
        tau: in the unit in which dt will be given.

    Parameter X (slots, n), zero at first; `ModernHopfield.of(patterns)`. There is no input; recall starts at x0.
    """

    X: Tensor

    def __init__(self, n: int, slots: int, *, beta: float = 1.0, tau: Any = 1.0) -> None:
        super().__init__()
        check_size("n", n, 1)
        check_size("slots", slots, 1)
        check_number("beta", beta)
        if not 0 < beta < math.inf:
            raise ValueError(f"beta = {beta} must be positive and finite.")
        self.n, self.slots, self.beta = n, slots, float(beta)
        self.X = nn.Parameter(torch.zeros(slots, n))
        self.tau = tau

    @classmethod
    def of(cls, patterns: Float[Tensor, "slot unit"], *, beta: float = 1.0, tau: Any = 1.0) -> Self:
        """A network that stores these patterns."""
        _check_matrix("patterns", patterns, "(slots, n)")
        net = cls(patterns.shape[1], len(patterns), beta=beta, tau=tau).to(patterns)
        with torch.no_grad():
            net.X.copy_(patterns)
        return net

    def target(self, t: Tensor, x: Vector, u: Vector, alpha: Any = 0) -> Vector:  # type: ignore[override]
        """F = X^T softmax(beta X x)."""
        return self.attention(x) @ self.X

    def attention(self, x: Vector) -> Float[Tensor, "*batch slot"]:
        """softmax(beta X x): how much of each pattern is recalled."""
        return associated(self.X, x, self.beta)

    def energy(self, x: Vector) -> Energy:
        """E = -log(sum_i exp(beta X_i x)) / beta + x^2 / 2 + log(slots) / beta + max_i X_i^2 / 2, at least 0."""
        lse = torch.logsumexp(self.beta * F.linear(x, self.X), -1) / self.beta
        largest = self.X.square().sum(-1).max()
        return -lse + x.square().sum(-1) / 2 + math.log(self.slots) / self.beta + largest / 2

    def initial_state(self, *batch: int) -> Vector:
        """Zero, which is equally far from all patterns of one length: pass x0."""
        return self.X.new_zeros(*batch, self.n)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"n": self.n, "slots": self.slots, "beta": self.beta, "tau": self.get_buffer("tau0").tolist()}

    @classmethod
    def example(cls) -> Self:
        return cls.of(torch.randn(4, 3, generator=Generator().manual_seed(0)), beta=1.5, tau=2.0)


def graded(x: Tensor, gain: float) -> Tensor:
    """tanh(gain x); for an infinite gain its limit, with sgn 0 = +1."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype) if math.isinf(gain) else torch.tanh(gain * x)


def field_energy(x: Vector, y: Vector, M: Float[Tensor, "*batch x y"], u: Vector | float, gain: float) -> Energy:
    """The energy of two fields between which there is the memory M; u = (I, J)."""
    both = torch.cat([x, y], -1)
    V = graded(both, gain)
    fx, fy = V.split((x.shape[-1], y.shape[-1]), -1)
    E = -torch.einsum("...i,...ij,...j->...", fx, M, fy) - (u * V).sum(-1)
    return E if math.isinf(gain) else E + (V * both - _log_cosh(gain * both) / gain).sum(-1)


def checked_gain(gain: float) -> float:
    """The gain as a float, or a TypeError or ValueError."""
    check_number("gain", gain)
    if not gain > 0:
        raise ValueError(f"gain = {gain} must be above 0; math.inf makes two-state units.")
    return float(gain)


def _check_matrix(name: str, given: Tensor, axes: str) -> None:
    if not isinstance(given, Tensor) or not given.is_floating_point():
        kind = given.dtype if isinstance(given, Tensor) else type(given).__name__
        raise TypeError(f"{name} must be a floating-point Tensor {axes}, got {kind}: torch.tensor(..., dtype=...).")
    if given.ndim != 2:
        raise ValueError(f"{name} must be a matrix {axes}, got the shape {tuple(given.shape)}.")


def gain_name(gain: float) -> float | str:
    """The gain as JSON can hold it."""
    return "inf" if math.isinf(gain) else gain


def _log_cosh(x: Tensor) -> Tensor:
    return x.abs() + F.softplus(-2 * x.abs()) - math.log(2)
