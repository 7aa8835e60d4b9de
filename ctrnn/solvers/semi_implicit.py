"""One implicit step where the state itself decays at a rate that depends on it."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._model_files import class_name
from ctrnn._types import Input, Scalar, State
from ctrnn.dynamics import Model, Relaxation
from ctrnn.solvers.base import Solver, value
from ctrnn.solvers.relaxation import Euler


@runtime_checkable
class Balanced(Protocol):
    """A relaxation whose target is F = p - q x, both depending on the state, q at least 0."""

    def balance(self, t: Tensor, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """p and q."""
        ...


@dataclass(frozen=True)
class SemiImplicitEuler(Solver):
    """x <- (x + alpha p(x)) / (1 + alpha (1 + q(x))),   F = p - q x,   alpha = dt / tau.

    Euler's step with the factor x of the decay taken at the step's end: stable at any dt, and a mean of x and p / (1 +
    q), weighted by numbers that are never negative. The "fused" solver of Hasani et al. (2021), algorithm 1, for `LTC`.
    """

    order: ClassVar[int] = 1

    def prepare(self, model: Model, dt: Scalar) -> Any:
        if not isinstance(model, Relaxation) or not isinstance(model, Balanced):
            raise TypeError(
                f"{self} needs a Relaxation with a method balance(t, x, u) -> p, q for F = p - q x, as LTC has; "
                f"{class_name(model)} has none: use Euler() or Rodas4()."
            )
        return Euler().prepare(model, dt)

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        del dt
        assert isinstance(model, Balanced)
        assert isinstance(x, Tensor)
        p, q = model.balance(t, x, value(u, 0.0))
        alpha = tree.per_leaf(prepared, x)
        return (x + alpha * p) / (1 + alpha * (1 + q))
