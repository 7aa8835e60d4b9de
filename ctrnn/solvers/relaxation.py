"""The solvers of tau dx/dt = F - x that are one lerp: x <- lerp(x, F, alpha)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import Input, Scalar, State
from ctrnn.dynamics import Model, Relaxation
from ctrnn.solvers.base import Solver, advance, relaxation, value


def _ratio(dt: Scalar, tau: Tensor) -> Tensor:
    # torch.div and not dt / tau, which torch computes as dt * (1 / tau): that is 1 at dt = tau in only 86 % of draws.
    return torch.div(torch.as_tensor(dt, dtype=tau.dtype, device=tau.device), tau)


@dataclass(frozen=True)
class Iterate(Solver):
    """x <- F(t, x, u): the unit delay, which is the published discrete network, whatever dt."""

    order: ClassVar[int] = 1

    def prepare(self, model: Model, dt: Scalar) -> Any:
        del dt
        relaxation(model, self)
        return 1

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        del dt, prepared
        return relaxation(model, self).target(t, x, value(u, 0.0), 1)

    def diffusion(self, prepared: Any) -> Any:
        return prepared * 2**0.5


@dataclass(frozen=True)
class Euler(Solver):
    """x <- lerp(x, F, dt / tau), or x + dt f for a bare vector field: forward Euler."""

    order: ClassVar[int] = 1

    def prepare(self, model: Model, dt: Scalar) -> Any:
        return tree.map(lambda tau: _ratio(dt, tau), model.tau) if isinstance(model, Relaxation) else None

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        if not isinstance(model, Relaxation):
            return advance(x, dt, model(t, x, value(u, 0.0)))
        alpha = tree.spread(prepared, x)
        return tree.blend(x, model.target(t, x, value(u, 0.0), alpha), alpha)

    def diffusion(self, prepared: Any) -> Any:
        return (
            tree.map(lambda alpha: torch.sqrt(2 * alpha), prepared)
            if prepared is not None
            else super().diffusion(prepared)
        )


@dataclass(frozen=True)
class ExponentialEuler(Solver):
    """x <- lerp(x, F, 1 - exp(-dt / tau)): exact for a held target, bounded for every dt when F is bounded."""

    order: ClassVar[int] = 1

    def prepare(self, model: Model, dt: Scalar) -> Any:
        return tree.map(lambda tau: -torch.expm1(-_ratio(dt, tau)), relaxation(model, self).tau)

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        del dt
        alpha = tree.spread(prepared, x)
        return tree.blend(x, relaxation(model, self).target(t, x, value(u, 0.0), alpha), alpha)

    def diffusion(self, prepared: Any) -> Any:
        # exp(-2 dt / tau) = (1 - alpha)^2: the exact Ornstein-Uhlenbeck transition (Gillespie 1996).
        return tree.map(lambda alpha: torch.sqrt(alpha * (2 - alpha)), prepared)
