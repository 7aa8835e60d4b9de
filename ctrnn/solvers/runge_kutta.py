"""Explicit Runge-Kutta methods: a tableau that checks itself, and the step that reads it."""

from dataclasses import dataclass
from math import fsum
from typing import Any, ClassVar

from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import Input, Scalar, State
from ctrnn.dynamics import Model
from ctrnn.solvers.base import Attempt, EmbeddedSolver, Solver, advance, value


@dataclass(frozen=True)
class Tableau:
    """c_i = sum_j a_ij; x1 = x + dt sum b_i k_i; error = dt sum b_error_i k_i; x(theta) = x + dt sum_i b_i(theta) k_i.

    `dense[i]` holds the coefficients of b_i(theta) from theta^1 on; without it dense output is the cubic Hermite
    polynomial of the step's two ends.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    b_error: tuple[float, ...] | None = None
    dense: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        stages = len(self.a)
        sums = {"b": (self.b, 1.0), "b_error": (self.b_error, 0.0)}
        for name, (weights, total) in sums.items():
            if weights is not None and (len(weights) != stages or abs(fsum(weights) - total) > 1e-12):
                raise ValueError(f"{name} must hold {stages} weights that sum to {total}, got {weights}.")
        if [len(row) for row in self.a] != list(range(stages)):
            raise ValueError("a must be strictly lower triangular, row i holding i numbers.")
        for i, row in enumerate(self.dense or ()):
            if abs(fsum(row) - self.b[i]) > 1e-11:
                raise ValueError(f"dense weight {i} is {fsum(row)} at theta = 1, b is {self.b[i]}.")

    @property
    def c(self) -> tuple[float, ...]:
        """Nodes: the fraction of the step at which each stage looks."""
        return tuple(1.0 if abs(fsum(row) - 1.0) < 1e-12 else fsum(row) for row in self.a)

    @property
    def ends_in_slope(self) -> bool:
        """The last stage is the slope at the end of the step, which is the first of the next (FSAL)."""
        return self.a[-1] == self.b[:-1] and self.b[-1] == 0.0


def combine(x: State, dt: Scalar, weights: tuple[float, ...], slopes: list[State]) -> State:
    """x + dt sum_j weights_j slopes_j."""
    return advance(x, dt, weighted(weights, slopes))


def weighted(weights: tuple[Any, ...], slopes: list[State] | tuple[State, ...]) -> State:
    """sum_j weights_j slopes_j, leaving out the weights that are zero."""
    used = [(w, k) for w, k in zip(weights, slopes, strict=True) if not (isinstance(w, float) and w == 0.0)]
    total = tree.map(lambda k: used[0][0] * k, used[0][1])
    for w, k in used[1:]:
        total = tree.map(lambda s, leaf, w=w: s.add(leaf, alpha=w), total, k)
    return total


@dataclass(frozen=True)
class RungeKutta(Solver):
    """x1 = x + dt sum b_i k_i,  k_i = f(t + c_i dt, x + dt sum_j a_ij k_j, u at the fraction c_i of the step)."""

    tableau: ClassVar[Tableau]

    @property
    def evaluations(self) -> int:
        return len(self.tableau.b) - self.tableau.ends_in_slope

    def slopes(
        self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, first: State | None = None
    ) -> list[State]:
        """k_1 ... k_s."""
        slopes = [model(t, x, value(u, 0.0)) if first is None else first]
        for c, row in zip(self.tableau.c[1:], self.tableau.a[1:], strict=True):
            slopes.append(model(t + c * dt, combine(x, dt, row, slopes), value(u, c)))
        return slopes

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        del prepared
        return combine(x, dt, self.tableau.b, self.slopes(model, t, dt, x, u))


@dataclass(frozen=True)
class EmbeddedRungeKutta(RungeKutta, EmbeddedSolver):
    """A Runge-Kutta pair: the second set of weights gives the error."""

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        del prepared
        if not self.tableau.ends_in_slope:
            return combine(x, dt, self.tableau.b, self.slopes(model, t, dt, x, u))
        slopes = [model(t, x, value(u, 0.0))]
        for c, row in zip(self.tableau.c[1:-1], self.tableau.a[1:-1], strict=True):
            slopes.append(model(t + c * dt, combine(x, dt, row, slopes), value(u, c)))
        return combine(x, dt, self.tableau.a[-1], slopes)

    def attempt(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, first: State | None = None) -> Attempt:
        slopes = self.slopes(model, t, dt, x, u, first)
        assert self.tableau.b_error is not None
        error = weighted(self.tableau.b_error, slopes)
        error = tree.map(lambda e: tree.per_leaf(dt, e) * e, error)
        last = slopes[-1] if self.tableau.ends_in_slope else None
        return Attempt(combine(x, dt, self.tableau.b, slopes), error, tuple(slopes), last)

    def interpolate(
        self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, attempt: Attempt, theta: Tensor
    ) -> State:
        if self.tableau.dense is None:
            last = model(t + dt, attempt.x, value(u, 1.0)) if attempt.last is None else attempt.last
            return hermite(x, attempt.slopes[0], attempt.x, last, dt, theta)
        weights = [horner(row, theta) for row in self.tableau.dense]
        slope = tree.map(
            lambda *ks: sum(tree.per_leaf(w, k) * k for w, k in zip(weights, ks, strict=True)), *attempt.slopes
        )
        return advance(x, dt, slope)


def hermite(x0: State, slope0: State, x1: State, slope1: State, dt: Scalar, theta: Tensor) -> State:
    """Cubic through both ends of a step with their slopes."""

    def leaf(a: Tensor, da: Tensor, b: Tensor, db: Tensor) -> Tensor:
        s, h = tree.per_leaf(theta, a), tree.per_leaf(dt, a)
        return a + s * ((b - a) + (s - 1) * ((1 - 2 * s) * (b - a) + h * ((s - 1) * da + s * db)))

    return tree.map(leaf, x0, slope0, x1, slope1)


def horner(row: tuple[float, ...], theta: Tensor) -> Tensor:
    total = theta * 0.0
    for coefficient in reversed(row):
        total = (total + coefficient) * theta
    return total
