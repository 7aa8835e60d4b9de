"""A bidirectional associative memory that learns while it runs."""

from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.dynamics import Relaxation
from ctrnn.models._units import Vector, check_size
from ctrnn.models.associative import BAM, BAMState, Energy, checked_gain, field_energy, gain_name, graded


class AdaptiveBAMState(NamedTuple):
    """x (*batch, n) and y (*batch, m), the two fields, and M (*batch, n, m), the memory. Also the shape of tau."""

    x: Any
    y: Any
    M: Any


class AdaptiveBAM(Relaxation):
    """tau_M dM/dt = f(x) f(y)^T - M,   tau_y dy/dt = (W + M)^T f(x) + J - y,   tau_x dx/dt = (W + M) f(y) + I - x.

    The adaptive bidirectional associative memory of Kosko (1987), Applied Optics 26:4947-4960, with the signal Hebb
    law; f = tanh(gain .). The memory M is a part of the state: it follows what both fields show together and forgets
    with tau_M, at dt = tau_M all but the last pair. Within a step x hears y, and M hears both, as the step leaves
    them. Neither the flow nor a step dt = tau climbs in `energy`.

    Args:
        n, m: units of the fields x and y; u = (I, J) has n + m numbers.
        gain: above 0; `math.inf` for two-state units, with sgn 0 = +1.
        tau: one number, or AdaptiveBAMState(x=..., y=..., M=...); learning is slow where tau.M is the largest.

    Parameter W (n, m), zero at first as in the paper: what is known already. State: AdaptiveBAMState(x, y, M), zero at
    first; the readout is (f(x), f(y)) side by side. `frozen` makes a `BAM` of a learned memory.
    """

    W: Tensor

    def __init__(self, n: int, m: int, *, gain: float = 1.0, tau: Any = 1.0) -> None:
        super().__init__()
        check_size("n", n, 1)
        check_size("m", m, 1)
        self.n, self.m, self.n_in, self.gain = n, m, n + m, checked_gain(gain)
        self.W = nn.Parameter(torch.zeros(n, m))
        self.tau = tree.spread(tau, AdaptiveBAMState(0, 0, 0))

    def target(  # type: ignore[override]
        self, t: Tensor, x: AdaptiveBAMState, u: Vector, alpha: Any = 0
    ) -> AdaptiveBAMState:
        """F_y = (W + M)^T f(x) + J; then F_x hears lerp(y, F_y, alpha_y), and F_M = f(x) f(y)^T both of these."""
        into_x, into_y = u.split((self.n, self.m), -1)
        alpha, memory = tree.spread(alpha, x), self.W + x.M
        to_y = torch.einsum("...ij,...i->...j", memory, graded(x.x, self.gain)) + into_y
        y = self._shown(x.y, to_y, alpha.y)
        to_x = torch.einsum("...ij,...j->...i", memory, y) + into_x
        return AdaptiveBAMState(to_x, to_y, self._shown(x.x, to_x, alpha.x).unsqueeze(-1) * y.unsqueeze(-2))

    def _shown(self, part: Tensor, target: Tensor, alpha: Any) -> Tensor:
        """What a field shows as the step leaves it."""
        after = tree.blend(part, target, alpha)
        assert isinstance(after, Tensor)
        return graded(after, self.gain)

    def readout(self, x: State) -> Vector:
        """f(x) and f(y), side by side."""
        assert isinstance(x, AdaptiveBAMState)
        return torch.cat([graded(part, self.gain) for part in (x.x, x.y)], -1)

    def energy(self, x: AdaptiveBAMState, u: Vector | float = 0.0) -> Energy:
        """E = that of a `BAM` with the memory W + M, and M^2 / 2."""
        return field_energy(x.x, x.y, self.W + x.M, u, self.gain) + x.M.square().sum((-2, -1)) / 2

    def frozen(self, M: Float[Tensor, "x y"]) -> BAM:
        """The memory that has learned M and learns no more, with the same gain and time constants."""
        return BAM.of((self.W + M).detach(), gain=self.gain, tau=BAMState(self.tau.x.detach(), self.tau.y.detach()))

    def initial_state(self, *batch: int) -> AdaptiveBAMState:
        """Both fields and the memory at zero."""
        sizes = ((self.n,), (self.m,), (self.n, self.m))
        return AdaptiveBAMState(*[self.W.new_zeros(*batch, *size) for size in sizes])

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        tau = {name: self.get_buffer(f"tau0_{name}").tolist() for name in AdaptiveBAMState._fields}
        return {"n": self.n, "m": self.m, "gain": gain_name(self.gain), "tau": tau}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config | {"gain": float(config["gain"]), "tau": AdaptiveBAMState(**config["tau"])})

    @classmethod
    def example(cls) -> Self:
        net = cls(3, 2, gain=1.5, tau=AdaptiveBAMState(x=2.0, y=0.5, M=3.0))
        with torch.no_grad():
            net.W.copy_(torch.randn(3, 2, generator=Generator().manual_seed(0)))
        return net
