"""Explicit Runge-Kutta methods: a tableau that checks itself, and the step that reads it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import Input, Scalar, State
from ctrnn.dynamics import Model
from ctrnn.solvers.base import Attempt, EmbeddedSolver, Flow, Solver, flow, ratio, value

METHODS = ("read", "prepare", "strides", "slopes", "step", "attempt", "error", "interpolate")


class Sum(NamedTuple):
    """sum_j w_j k_j as first * (k_start + sum_j ratio_j k_j): the first weight that is not zero multiplies them all."""

    first: float
    start: int
    rest: tuple[tuple[int, float], ...]  # j and ratio_j, without the weights that are zero

    @classmethod
    def of(cls, weights: Sequence[float]) -> "Sum":
        """The sum with these weights, of which one at least is not zero."""
        start, *rest = [j for j, w in enumerate(weights) if w]
        return cls(weights[start], start, tuple((j, weights[j] / weights[start]) for j in rest))

    def over(self, slopes: Sequence[State]) -> State:
        """The sum divided by `first`."""
        total = slopes[self.start]
        for j, part in self.rest:
            total = tree.add(total, slopes[j], part)
        return total


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
    rows: tuple[Sum, ...] = field(init=False, repr=False, compare=False)  # a, from the second stage on ...
    end: Sum = field(init=False, repr=False, compare=False)  # ... b ...
    error: Sum | None = field(init=False, repr=False, compare=False)  # ... and b_error, as they are summed
    powers: NDArray[Any] | None = field(init=False, repr=False, compare=False)  # dense, (power, stage)

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
        object.__setattr__(self, "rows", tuple(map(Sum.of, self.a[1:])))
        object.__setattr__(self, "end", Sum.of(self.b))
        object.__setattr__(self, "error", None if self.b_error is None else Sum.of(self.b_error))
        object.__setattr__(self, "powers", None if self.dense is None else np.array(self.dense).T.copy())

    def within(self, theta: Tensor) -> Tensor:
        """b_i(theta) (save, stage) for theta (save, 1)."""
        assert self.powers is not None
        coefficients = torch.from_numpy(self.powers).to(theta)
        return theta ** torch.arange(1, len(coefficients) + 1, device=theta.device) @ coefficients


class Stride(NamedTuple):
    """How far a state goes along a sum of slopes: h weight, where h is dt / tau for each part."""

    h: Any
    weight: float


def moved(x: Any, stride: Stride, total: Any) -> Any:
    """x + h weight total."""
    h, weight = stride
    if isinstance(x, tuple):
        return tree.map(lambda a, part, b: moved(a, Stride(part, weight), b), x, tree.spread(h, x), total)
    if isinstance(h, Tensor):
        return torch.addcmul(x, h, total, value=weight)
    return torch.add(x, total, alpha=h * weight)


class Ready(NamedTuple):
    """What steps share: the flow and, where all have one length, their strides."""

    flow: Flow
    strides: list[Stride] | None


@dataclass(frozen=True)
class RungeKutta(Solver):
    """x1 = x + dt sum b_i k_i,  k_i = f(t + c_i dt, x + dt sum_j a_ij k_j, u at the fraction c_i of the step).

    Of a relaxation the slopes are tau f = F - x, and the steps dt / tau.
    """

    tableau: ClassVar[Tableau]

    @property
    def evaluations(self) -> int:
        return len(self.tableau.b) - self.tableau.ends_in_slope

    def read(self, model: Model) -> Any:
        return flow(model) if follows_tableau(self) else model

    def prepare(self, model: Model, dt: Scalar) -> Ready:
        f = flow(model)
        if isinstance(dt, Tensor):
            return Ready(f, None)
        strides = self.strides(dt if f.tau is None else tree.map(lambda tau: ratio(dt, tau), f.tau))
        return Ready(f, [Stride(tree.map(lambda part, w=w: part * w, h), 1.0) for h, w in strides])  # once for all

    def strides(self, h: Any) -> list[Stride]:
        """Those of the rows of a from the second on, and of b."""
        return [Stride(h, change.first) for change in (*self.tableau.rows, self.tableau.end)]

    def slopes(
        self,
        f: Flow,
        t: Tensor,
        dt: Scalar,
        strides: Sequence[Stride],
        x: State,
        u: Input,
        first: State | None,
        count: int,
    ) -> tuple[list[State], State]:
        """k_1 ... k_count, and the state at which the last of them was taken."""
        slopes = [f.pull(t, x, value(u, 0.0)) if first is None else first]
        c, now, y = 0.0, t, x
        for i in range(1, count):
            if self.tableau.c[i] != c:
                c = self.tableau.c[i]
                now = torch.add(t, dt.to(t.dtype), alpha=c) if isinstance(dt, Tensor) else t + c * dt
            y = moved(x, strides[i - 1], self.tableau.rows[i - 1].over(slopes))
            slopes.append(f.pull(now, y, value(u, c)))
        return slopes, y

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        f, strides = self.prepare(model, dt) if prepared is None else prepared
        strides = self.strides(f.reach(dt, x)) if strides is None or not f.fits(x) else strides
        # A last stage that is only the next step's first has no weight.
        slopes, _ = self.slopes(f, t, dt, strides, x, u, None, self.evaluations)
        return moved(x, strides[-1], self.tableau.end.over(slopes))


@dataclass(frozen=True)
class EmbeddedRungeKutta(RungeKutta, EmbeddedSolver):
    """A Runge-Kutta pair: the second set of weights gives the error."""

    def attempt(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, first: State | None = None) -> Attempt:
        f, table = flow(model), self.tableau
        reach = f.reach(dt, x)
        strides = self.strides(reach)
        slopes, end = self.slopes(f, t, dt, strides, x, u, first, len(table.b))
        if table.ends_in_slope:
            return Attempt(end, tuple(slopes), slopes[-1], reach)
        return Attempt(moved(x, strides[-1], table.end.over(slopes)), tuple(slopes), None, reach)

    def error(self, attempt: Attempt) -> State:
        weights = self.tableau.error
        assert weights is not None
        return tree.map(lambda h, total: h * weights.first * total, attempt.reach, weights.over(attempt.slopes))

    def interpolate(
        self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, attempt: Attempt, theta: Tensor, rows: Tensor
    ) -> State:
        start, h = tree.pick(x, rows), tree.pick(attempt.reach, rows)
        if self.tableau.dense is None:
            end_time = t + dt.to(t.dtype) if isinstance(dt, Tensor) else t + dt
            last = flow(model).pull(end_time, attempt.x, value(u, 1.0)) if attempt.last is None else attempt.last
            first, end, last = (tree.pick(part, rows) for part in (attempt.slopes[0], attempt.x, last))
            return hermite(start, first, end, last, h, theta)
        weights = self.tableau.within(theta).T[..., None]  # (stage, save, 1)

        def leaf(a: Tensor, part: Any, *ks: Tensor) -> Tensor:
            each = torch.stack(ks).index_select(1, rows)
            return torch.addcmul(a, part, (tree.per_leaf(weights, each) * each).sum(0))

        return tree.map(leaf, start, h, *attempt.slopes)


def follows_tableau(solver: Any) -> bool:
    """Whether a solver is what its tableau says, with no method of its own."""
    if not isinstance(solver, RungeKutta):
        return False
    given = EmbeddedRungeKutta if isinstance(solver, EmbeddedSolver) else RungeKutta
    return all(getattr(type(solver), name) is getattr(given, name) for name in METHODS if hasattr(given, name))


def hermite(x0: State, slope0: State, x1: State, slope1: State, h: Any, theta: Tensor) -> State:
    """Cubic through both ends of a step with their slopes, h for each part."""

    def leaf(a: Tensor, da: Tensor, b: Tensor, db: Tensor, part: Any) -> Tensor:
        s = tree.per_leaf(theta, a)
        return a + s * ((b - a) + (s - 1) * ((1 - 2 * s) * (b - a) + part * ((s - 1) * da + s * db)))

    return tree.map(leaf, x0, slope0, x1, slope1, tree.spread(h, x0))
