"""Pseudo-arclength continuation (Keller 1977): a curve of solutions of n equations in n + 1 unknowns, step by step.

Nothing here knows what the equations mean; the last unknown is the parameter.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.sparse import csc_array, spmatrix, vstack
from scipy.sparse.linalg import splu

Array = NDArray[np.float64]
TINY = 1e-9  # of a test function, relative to its value at the neighbouring place: zero up to rounding


class ContinuationError(RuntimeError):
    """A branch could not be followed further; `branch` is what had been found until then, where there is any."""

    def __init__(self, message: str, *, parameter: float, branch: object = None) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.branch = branch


class Equations(Protocol):
    """n equations in n + 1 unknowns z = (x, p)."""

    weights: Array  # (n + 1,) of the inner product in which arclength is measured

    def residual(self, z: Array) -> Array: ...

    def jacobian(self, z: Array) -> Array | spmatrix: ...


@dataclass(frozen=True)
class Stride:
    """How far a step along the curve goes, and when it counts as converged."""

    first: float = 0.02
    least: float = 1e-6
    most: float = 0.2
    tolerance: float = 1e-10
    iterations: int = 10
    turn: float = 0.95  # least cosine between successive tangents

    def __post_init__(self) -> None:
        if not (self.first >= 0 and 0 < self.least <= self.most and self.tolerance > 0 and self.iterations > 0):
            raise ValueError(f"{self}: lengths, tolerance and iterations must be positive, and least <= most.")


class Place(NamedTuple):
    """A point on the curve."""

    z: Array
    tangent: Array
    arclength: float


def check_span(span: tuple[float, float], inside: float | None = None) -> None:
    """Raise ValueError unless `span` goes from a number to another one, and over the parameter of the start."""
    if not isinstance(span, tuple | list) or len(span) != 2:
        raise ValueError(f"span = {span!r}: give the parameter of the start and that to head for, (start, end).")
    if not math.isfinite(span[0]) or math.isnan(span[1]) or span[0] == span[1]:
        raise ValueError(f"span = {span}: a branch starts at a finite parameter and heads for another one.")
    if inside is not None and not min(span) <= inside <= max(span):
        raise ValueError(f"span = {span} leaves out the point to start from, at parameter {inside:.6g}: widen it.")


class NotConverged(Exception):
    pass


def solve(equations: Equations, z: Array, row: Array, right: Array) -> Array:
    """The solution of [jacobian; row] y = right."""
    J = equations.jacobian(z)
    try:
        if isinstance(J, np.ndarray):
            return np.linalg.solve(np.vstack([J, row]), right)
        return splu(csc_array(vstack([J, csc_array(row[None])]))).solve(right)
    except (np.linalg.LinAlgError, RuntimeError) as problem:
        raise NotConverged(f"its matrix is singular ({problem})") from None


def tangent_at(equations: Equations, z: Array, before: Array) -> Array:
    """The direction of the curve at z, of unit length, turned as `before`."""
    right = np.zeros(len(z))
    right[-1] = 1.0
    direction = solve(equations, z, equations.weights * before, right)
    return direction / math.sqrt(float(direction @ (equations.weights * direction)))


def correct(equations: Equations, guess: Array, row: Array, stride: Stride) -> tuple[Array, int]:
    """Newton from `guess` in the plane through it at right angles to `row`; the point, and how many steps it took."""
    z = guess
    for k in range(stride.iterations + 1):
        value = equations.residual(z)
        size = float(np.abs(value).max(initial=0.0))
        if not math.isfinite(size):
            raise NotConverged("its residual is not finite")
        if size < stride.tolerance and k > 0:
            return z, k
        if k < stride.iterations:
            z = z + solve(equations, z, row, -np.append(value, row @ (z - guess)))
    raise NotConverged(f"its residual is still {size:.1e} after {stride.iterations} steps")


def start(equations: Equations, z: Array, towards: float, stride: Stride) -> Place:
    """The solution near z with the same parameter, headed for growing (towards > 0) or falling parameter."""
    unit = np.zeros(len(z))
    unit[-1] = 1.0
    try:
        z, _ = correct(equations, z, unit, stride)
        tangent = tangent_at(equations, z, unit)
    except NotConverged as problem:
        raise ContinuationError(
            f"no solution was found near the start at parameter {z[-1]:.6g}: Newton failed, {problem}. Start closer to "
            "one (analysis.fixed_points finds equilibria, a simulated run a cycle).",
            parameter=float(z[-1]),
        ) from None
    return Place(z, tangent if tangent[-1] * towards > 0 else -tangent, 0.0)


def along(equations: Equations, place: Place, length: float, stride: Stride) -> tuple[Place, int]:
    """The place a given length further along the curve."""
    guess = place.z + length * place.tangent
    z, used = correct(equations, guess, equations.weights * place.tangent, stride)
    return Place(z, tangent_at(equations, z, place.tangent), place.arclength + length), used


def follow(
    equations: Equations, place: Place, span: tuple[float, float], stride: Stride, max_points: int
) -> Iterator[Place]:
    """Places on the curve until the parameter leaves `span`, whose edge is hit exactly, or the curve closes.

    Raises:
        ContinuationError: Newton fails at the least step.
    """
    low, high = min(span), max(span)
    length, first = stride.first, place
    yield place
    count = 0
    while count < max_points:
        try:
            new, used = along(equations, place, length, stride)
            turn = float(new.tangent @ (equations.weights * place.tangent))
            if turn < stride.turn:
                raise NotConverged(f"the curve turns too sharply there (cosine {turn:.2f})")
        except NotConverged as problem:
            if length <= stride.least:
                raise ContinuationError(
                    f"the branch was lost at parameter {place.z[-1]:.6g}, arclength {place.arclength:.4g}: with the "
                    f"least step {stride.least:g} {problem}. Lower the least step or raise the iterations (Stride), or "
                    "look there for a point where the vector field is not smooth or goes to infinity.",
                    parameter=float(place.z[-1]),
                ) from None
            length = max(length / 2, stride.least)
            continue
        if not low <= new.z[-1] <= high:
            yield _at_edge(equations, place, new, low if new.z[-1] < low else high, stride)
            return
        if _closes(equations, first, place, new):
            yield new
            return
        yield new
        place, count = new, count + 1
        length = min(max(length * (1.3 if used <= 3 else 0.7 if used >= 6 else 1.0), stride.least), stride.most)


def _at_edge(equations: Equations, place: Place, new: Place, edge: float, stride: Stride) -> Place:
    unit = np.zeros(len(place.z))
    unit[-1] = 1.0
    share = (edge - place.z[-1]) / (new.z[-1] - place.z[-1])
    guess = place.z + share * (new.z - place.z)
    guess[-1] = edge
    try:
        z, _ = correct(equations, guess, unit, stride)
        tangent = tangent_at(equations, z, place.tangent)
    except NotConverged:  # the branch runs along the edge, or two cross there
        return _last_inside(equations, place, new, edge, stride)
    length = float((z - place.z) @ (equations.weights * place.tangent))  # at which `along` comes there too
    return Place(z, tangent, place.arclength + length)


def _last_inside(equations: Equations, place: Place, new: Place, edge: float, stride: Stride) -> Place:
    """Just before the edge, by bisection of the step."""
    low, high, last = 0.0, new.arclength - place.arclength, place
    while high - low > stride.least:
        middle = (low + high) / 2
        try:
            candidate, _ = along(equations, place, middle, stride)
        except NotConverged:
            high = middle
            continue
        if (candidate.z[-1] - edge) * (new.z[-1] - edge) > 0:
            high = middle
        else:
            low, last = middle, candidate
    return last


def _closes(equations: Equations, first: Place, place: Place, new: Place) -> bool:
    """Whether the curve has come back to where it began, in the same direction."""
    if place.arclength == 0:
        return False
    step = new.arclength - place.arclength
    gap = first.z - place.z
    ahead = float(gap @ (equations.weights * place.tangent))
    beside = math.sqrt(max(float(gap @ (equations.weights * gap)) - ahead**2, 0.0))
    return 0 < ahead <= step and beside < 0.1 * step and float(first.tangent @ (equations.weights * new.tangent)) > 0.5


def crosses(before: float, after: float) -> bool:
    """Whether a test changes its sign between two places, or comes to zero at the second, as at the edge of a span."""
    return abs(before) > TINY * abs(after) and (before * after < 0 or abs(after) <= TINY * abs(before))


def zero(equations: Equations, place: Place, new: Place, test: Callable[[Place], float], stride: Stride) -> Place:
    """Where `test` changes sign between two neighbouring places.

    Raises:
        ContinuationError: it does not along the curve between them.
    """
    reached = new

    def value(length: float) -> float:
        nonlocal reached
        try:
            reached = along(equations, place, length, stride)[0]
        except NotConverged:  # at a branch point the matrix is singular: that is where the sign changes
            guess = place.z + length * place.tangent
            reached = Place(guess, place.tangent, place.arclength + length)
            return 0.0
        return test(reached)

    end = new.arclength - place.arclength
    first, last = value(0.0), value(end)
    if abs(last) <= TINY * abs(first):
        return reached
    if first * last > 0:
        raise ContinuationError(
            f"near parameter {place.z[-1]:.6g} a test for special points changed its sign, but not along it: the "
            "branch is known too poorly. Take a shorter stride (Stride(most=...)), or for a cycle more intervals.",
            parameter=float(place.z[-1]),
        )
    brentq(value, 0.0, end, xtol=1e-12, rtol=1e-12)
    return reached
