"""Liquid networks: how fast a unit moves depends on what it receives."""

import math
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ctrnn.models._units import Input, Units, Vector, check_size
from ctrnn.models.gated import _within


class LTC(Units):
    """tau dv/dt = V_leak + sum_j g_j s_j (E_j - v) - v,   s_j = sigma(slope_j (x_j - mu_j)),   x = (v, u).

    The liquid time-constant network of Hasani, Lechner, Amini, Rus & Grosu (2021), AAAI, in its biophysical form
    (Lechner & Hasani 2020): every synapse opens by s_j and pulls the unit to its reversal potential E_j, so that a unit
    settles at (V_leak + sum g s E) / (1 + sum g s), within tau / (1 + sum g s). Conductances g are relative to the leak
    and tau is capacitance over leak. A state that starts between the lowest and the highest of V_leak and E stays
    there. It was published as a flow: `SemiImplicitEuler` is the authors' solver, which keeps these bounds at any dt;
    they take six steps per sample. `Euler` at dt = tau iterates F itself, which diverges where sum g s exceeds 1.

    Args:
        n: units.
        n_in: inputs.
        n_out: outputs W_out v + b_out; without them the readout is v.
        tau: one number or one per unit, in the unit in which dt will be given.
        learn_tau: learn tau, in the shape in which it was given.
        generator: where the weights are drawn from, in the authors' ranges; torch's global one if None.

    Parameters: raw_g (n, n + n_in), the conductances being softplus(raw_g); slope, mu, E (n, n + n_in), V_leak (n,);
    columns are units, then inputs; W[to, from]. State v: (*batch, n).
    """

    raw_g: Tensor
    slope: Tensor
    mu: Tensor
    E: Tensor
    V_leak: Tensor

    def __init__(
        self,
        n: int,
        n_in: int,
        n_out: int | None = None,
        *,
        tau: Any = 1.0,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(n, n_in, n_out, tau)
        synapses = (n, n + n_in)
        self._add_weights(
            _within(1 / math.sqrt(n), generator),
            learn_tau,
            raw_g=synapses,
            slope=synapses,
            mu=synapses,
            E=synapses,
            V_leak=(n,),
        )
        with torch.no_grad():
            g = torch.empty_like(self.raw_g).uniform_(0.001, 1.0, generator=generator)
            self.raw_g.copy_(torch.log(torch.expm1(g)))
            self.slope.uniform_(3.0, 8.0, generator=generator)
            self.mu.uniform_(0.3, 0.8, generator=generator)
            self.E.copy_(2.0 * (torch.rand(synapses, generator=generator) < 0.5) - 1)
            self.V_leak.uniform_(-0.2, 0.2, generator=generator)

    def balance(self, t: Tensor, x: Vector, u: Input) -> tuple[Vector, Vector]:
        """p = V_leak + sum g s E and q = sum g s, so that F = p - q v."""
        del t
        heard = torch.cat([x, u], -1).unsqueeze(-2)
        open_ = F.softplus(self.raw_g) * torch.sigmoid(self.slope * (heard - self.mu))
        return self.V_leak + (open_ * self.E).sum(-1), open_.sum(-1)

    def target(self, t: Tensor, x: Vector, u: Input, alpha: Any = 0) -> Vector:  # type: ignore[override]
        """F = V_leak + sum g s (E - v)."""
        p, q = self.balance(t, x, u)
        return p - q * x

    def activity(self, x: Vector) -> Vector:
        """The potentials v."""
        return x

    def initial_state(self, *batch: int) -> Vector:
        """All units at zero."""
        return self.V_leak.new_zeros(*batch, self.n)

    @classmethod
    def example(cls) -> Self:
        return cls(3, 2, 2, tau=torch.tensor([0.5, 1.0, 2.0]), generator=Generator().manual_seed(0))


class CfC(Units):
    """tau dx/dt = (1 - s) f + s g - x,   s = sigma(a dT + b),   f, g = tanh,   all four linear in z(x, u).

    The closed-form continuous-time network of Hasani et al. (2022), Nature Machine Intelligence 4:992-1003, eq. 10. At
    dt = tau it is their network, a map from sample to sample: the time dT since the last sample is its last input, for
    each sequence its own, and enters through s alone. (Their solution is no flow: two spans after each other are not
    their sum. What flows here, at dt < tau, is the relaxation towards the map.) z = lecun_tanh(W_z (u, x) + b_z), where
    lecun_tanh(y) = 1.7159 tanh(0.666 y).

    Args:
        n: units.
        n_in: inputs besides dT: us has n_in + 1 numbers. dT may be in any unit, and centred: no sign is refused.
        n_out: outputs W_out x + b_out; without them the readout is x.
        backbone: numbers in z.
        tau: one number or one per unit, in the unit in which dt will be given.
        learn_tau: learn tau, in the shape in which it was given.
        generator: where the weights are drawn from, uniformly within 1 / sqrt(inputs); torch's global one if None.

    Parameters: W_z (backbone, n_in + n), b_z; W_heads (4 n, backbone), b_heads, rows f, g, a, b. State x: (*batch, n).
    """

    W_z: Tensor
    b_z: Tensor
    W_heads: Tensor
    b_heads: Tensor

    def __init__(
        self,
        n: int,
        n_in: int,
        n_out: int | None = None,
        *,
        backbone: int = 128,
        tau: Any = 1.0,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        check_size("backbone", backbone, 1)
        super().__init__(n, n_in + 1, n_out, tau)
        self.backbone = backbone
        draw = _within(1 / math.sqrt(n), generator)
        self._add_weights(
            draw, learn_tau, W_z=(backbone, n_in + n), b_z=(backbone,), W_heads=(4 * n, backbone), b_heads=(4 * n,)
        )
        for weight in (self.W_z, self.W_heads):
            nn.init.xavier_uniform_(weight, generator=generator)

    def target(self, t: Tensor, x: Vector, u: Input, alpha: Any = 0) -> Vector:  # type: ignore[override]
        """F = (1 - s) f + s g."""
        seen, span = u[..., :-1], u[..., -1:]
        z = 1.7159 * torch.tanh(0.666 * F.linear(torch.cat([seen, x], -1), self.W_z, self.b_z))
        f, g, a, b = F.linear(z, self.W_heads, self.b_heads).chunk(4, -1)
        s = torch.sigmoid(a * span + b)
        return torch.tanh(f) * (1 - s) + s * torch.tanh(g)

    def activity(self, x: Vector) -> Vector:
        """The state x."""
        return x

    def initial_state(self, *batch: int) -> Vector:
        """All units at zero."""
        return self.W_z.new_zeros(*batch, self.n)

    @property
    def config(self) -> dict[str, Any]:
        given = super().config
        return given | {"n_in": given["n_in"] - 1, "backbone": self.backbone}

    @classmethod
    def example(cls) -> Self:
        return cls(3, 2, 2, backbone=4, tau=torch.tensor([0.5, 1.0, 2.0]), generator=Generator().manual_seed(0))
