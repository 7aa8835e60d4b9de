"""The solvers of tau dx/dt = F - x that are one lerp: x <- lerp(x, F, alpha)."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import Input, Scalar, State
from ctrnn.dynamics import Model, Relaxation
from ctrnn.solvers.base import Solver, advance, ratio, relaxation, value


@dataclass(frozen=True)
class Iterate(Solver):
    """x <- F(t, x, u): the unit delay, which is the published discrete network, whatever dt."""

    order: ClassVar[int] = 1
    whole: ClassVar[bool] = True

    def prepare(self, model: Model, dt: Scalar) -> Any:
        del dt
        relaxation(model, self)
        return 1

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        del dt, prepared
        return tree.blend(x, relaxation(model, self).target(t, x, value(u, 0.0), 1), 1)

    def diffusion(self, prepared: Any) -> Any:
        return prepared * 2**0.5


@dataclass(frozen=True)
class Euler(Solver):
    """x <- lerp(x, F, dt / tau), or x + dt f for a bare vector field: forward Euler."""

    order: ClassVar[int] = 1
    lerps: ClassVar[bool] = True

    def prepare(self, model: Model, dt: Scalar) -> Any:
        return tree.map(lambda tau: ratio(dt, tau), model.tau) if isinstance(model, Relaxation) else None

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        if not isinstance(model, Relaxation):
            return advance(x, dt, model(t, x, value(u, 0.0)))
        alpha = tree.spread(prepared, x)
        return tree.blend(x, model.target(t, x, value(u, 0.0), alpha), alpha)

    def diffusion(self, prepared: Any) -> Any:
        return tree.map(lambda alpha: torch.sqrt(2 * alpha), prepared)


@dataclass(frozen=True)
class ExponentialEuler(Solver):
    """x <- lerp(x, F, 1 - exp(-dt / tau)): exact for a held target, bounded for every dt when F is bounded."""

    order: ClassVar[int] = 1
    lerps: ClassVar[bool] = True

    def prepare(self, model: Model, dt: Scalar) -> Any:
        return tree.map(lambda tau: -torch.expm1(-ratio(dt, tau)), relaxation(model, self).tau)

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        del dt
        alpha = tree.spread(prepared, x)
        return tree.blend(x, relaxation(model, self).target(t, x, value(u, 0.0), alpha), alpha)

    def diffusion(self, prepared: Any) -> Any:
        # exp(-2 dt / tau) = (1 - alpha)^2: the exact Ornstein-Uhlenbeck transition (Gillespie 1996).
        return tree.map(lambda alpha: torch.sqrt(alpha * (2 - alpha)), prepared)


@dataclass(frozen=True)
class ETD2RK(Solver):
    """a = lerp(x, F(x), 1 - exp(-z)),  x <- a + (F(a) - F(x)) (exp(-z) - 1 + z) / z,  z = dt / tau.

    The leak exactly, the target to second order (Cox & Matthews 2002, J. Comput. Phys. 176:430-455, ETD2RK).
    """

    order: ClassVar[int] = 2

    @property
    def evaluations(self) -> int:
        return 2

    def prepare(self, model: Model, dt: Scalar) -> Any:
        z = tree.map(lambda tau: ratio(dt, tau), relaxation(model, self).tau)
        return tree.map(lambda z: -torch.expm1(-z), z), tree.map(_ramp, z)

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        target = relaxation(model, self).target
        alpha, ramp = (tree.spread(part, x) for part in prepared)
        held = target(t, x, value(u, 0.0))
        guess = tree.blend(x, held, alpha)
        return tree.map(_add_ramp, guess, held, target(t + dt, guess, value(u, 1.0)), ramp)


def _add_ramp(guess: Tensor, held: Tensor, new: Tensor, ramp: Tensor) -> Tensor:
    return guess + tree.per_leaf(ramp, guess) * (new - held)


def _ramp(z: Tensor) -> Tensor:
    """(exp(-z) - 1 + z) / z: the reply to a target that rises from 0 to 1 during the step.

    By its Taylor series where the difference would cancel.
    """
    small = z < 0.5
    series = torch.zeros_like(z)
    near = torch.where(small, z, 0.5)
    for k in range(15, 1, -1):
        series = near * (1.0 / math.factorial(k) - series)
    far = torch.where(small, 1.0, z)
    return torch.where(small, series, 1 + torch.expm1(-far) / far)
