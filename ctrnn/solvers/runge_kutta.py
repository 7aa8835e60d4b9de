"""Explicit Runge-Kutta methods: a tableau that checks itself, and the step that reads it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any, ClassVar

from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import Input, Scalar, State
from ctrnn.dynamics import Model
from ctrnn.solvers.base import Attempt, EmbeddedSolver, Field, Solver, advance, flow, value


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
    c: tuple[float, ...] = field(init=False)  # nodes: the fraction of the step at which each stage looks
    ends_in_slope: bool = field(init=False)  # the last stage is the slope at the step's end, the first of the next

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
        nodes = tuple(1.0 if abs(fsum(row) - 1.0) < 1e-12 else fsum(row) for row in self.a)
        object.__setattr__(self, "c", nodes)
        object.__setattr__(self, "ends_in_slope", self.a[-1] == self.b[:-1] and self.b[-1] == 0.0)


def combine(x: State, dt: Scalar, weights: tuple[float, ...], slopes: Sequence[State]) -> State:
    """x + dt sum_j weights_j slopes_j, leaving out the weights that are zero."""
    tree.same_form(x, slopes[-1], "slope")
    first, total = weighted(weights, slopes)
    return tree.add(x, total, first * dt)


def weighted(weights: tuple[float, ...], slopes: Sequence[State]) -> tuple[float, State]:
    """sum_j weights_j slopes_j as a number times a state: the first weight that is not zero need not be multiplied."""
    used = [(w, k) for w, k in zip(weights, slopes, strict=True) if w]
    first, total = used[0]
    for w, k in used[1:]:
        total = tree.add(total, k, w / first)
    return first, total


@dataclass(frozen=True)
class RungeKutta(Solver):
    """x1 = x + dt sum b_i k_i,  k_i = f(t + c_i dt, x + dt sum_j a_ij k_j, u at the fraction c_i of the step)."""

    tableau: ClassVar[Tableau]

    @property
    def evaluations(self) -> int:
        return len(self.tableau.b) - self.tableau.ends_in_slope

    def prepare(self, model: Model, dt: Scalar) -> Field:
        del dt
        return flow(model)

    def slopes(
        self, f: Field, t: Tensor, dt: Scalar, x: State, u: Input, first: State | None, count: int
    ) -> list[State]:
        """k_1 ... k_count."""
        slopes = [f(t, x, value(u, 0.0)) if first is None else first]
        c, now = 0.0, t
        for node, row in zip(self.tableau.c[1:count], self.tableau.a[1:count], strict=True):
            if node != c:
                c, now = node, t + node * dt
            slopes.append(f(now, combine(x, dt, row, slopes), value(u, c)))
        return slopes

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        count = self.evaluations  # a last stage that is only the next step's first has no weight
        slopes = self.slopes(model if prepared is None else prepared, t, dt, x, u, None, count)
        return combine(x, dt, self.tableau.b[:count], slopes)


@dataclass(frozen=True)
class EmbeddedRungeKutta(RungeKutta, EmbeddedSolver):
    """A Runge-Kutta pair: the second set of weights gives the error."""

    def attempt(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, first: State | None = None) -> Attempt:
        slopes = self.slopes(flow(model), t, dt, x, u, first, len(self.tableau.b))
        assert self.tableau.b_error is not None
        scale, error = weighted(self.tableau.b_error, slopes)
        error = tree.map(lambda e: tree.per_leaf(scale * dt, e) * e, error)
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
    """row_0 theta + row_1 theta^2 + ..."""
    total = theta * 0.0
    for coefficient in reversed(row):
        total = (total + coefficient) * theta
    return total
