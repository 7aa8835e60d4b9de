"""Branches of equilibria of a flow, or of fixed points of a map, and where their number or stability changes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.analysis._arclength import (
    Array,
    ContinuationError,
    Place,
    Stride,
    check_span,
    follow,
    start,
)
from ctrnn.analysis._equilibria import Equilibria, Parameter, equilibrium_equations
from ctrnn.analysis._special import Found, Special, crossing, signed_least
from ctrnn.analysis._system import Dynamics, Kind, batch_shape, check_drive, own_state


class Fold(NamedTuple):
    """Two equilibria meet and vanish (saddle-node, limit point)."""

    parameter: float
    x: Float[Tensor, " D"]
    direction: Float[Tensor, " D"]  # right null vector of the Jacobian


class Hopf(NamedTuple):
    """A pair of eigenvalues +- i omega: a cycle of period 2 pi / omega is born."""

    parameter: float
    x: Float[Tensor, " D"]
    omega: float
    mode: Complex[Tensor, " D"]  # its eigenvector


class Flip(NamedTuple):
    """An eigenvalue of a map passes -1: an orbit of period 2 is born (period doubling)."""

    parameter: float
    x: Float[Tensor, " D"]
    mode: Float[Tensor, " D"]  # its eigenvector


class NeimarkSacker(NamedTuple):
    """A complex pair of eigenvalues of a map passes the unit circle at exp(+- i angle): a closed curve is born."""

    parameter: float
    x: Float[Tensor, " D"]
    angle: float
    mode: Complex[Tensor, " D"]  # its eigenvector


class BranchPoint(NamedTuple):
    """Two branches cross; continued from here, the other one is followed."""

    parameter: float
    x: Float[Tensor, " D"]
    directions: Float[Tensor, "2 D+1"]  # tangents (x, parameter): of the branch followed, and of the other one


Point = Fold | Hopf | Flip | NeimarkSacker | BranchPoint


class Branch(NamedTuple):
    """Equilibria along a branch, in the order in which they were met; of a map its fixed points."""

    parameter: Float[Tensor, " point"]
    x: Float[Tensor, "point D"]
    eigenvalues: Complex[Tensor, "point D"]
    points: list[Point]
    kind: Kind

    @property
    def stable(self) -> Bool[Tensor, " point"]:
        """Whether all eigenvalues have negative real parts, or of a map lie inside the unit circle."""
        return ((self.eigenvalues.real if self.kind == "flow" else self.eigenvalues.abs() - 1) < 0).all(-1)


def continue_equilibria(
    system: Dynamics,
    x0: State | BranchPoint,
    parameter: Parameter | None,
    span: tuple[float, float],
    u: Float[Tensor, " input"] | None = None,
    *,
    stride: Stride = Stride(),  # noqa: B008  a frozen value
    max_points: int = 2000,
) -> Branch:
    """Follow equilibria of dx/dt = model(x, u), or fixed points x = step(x, u), until the parameter leaves the span.

    Pseudo-arclength continuation (Keller 1977) with tangent predictor and Newton corrector, in float64, from parameter
    span[0] and around folds; folds, branch points and Hopf points are located on the way, of a map folds, branch
    points, flips and Neimark-Sacker points.

    Args:
        system: a Model (its flow), a Step with its dt (its map), or a callable map (x, p) -> x; it is left as it is.
        x0: an equilibrium at span[0], or a state near one; a `BranchPoint` starts the branch that crosses there, in
            the sense of span[1] - span[0] (either way where it is vertical).
        parameter: name of a parameter or buffer with one number, or of one of its entries, such as "b_rec[1]", or of
            an entry of the drive, "u[0]"; or a function p -> {name: Tensor}, for any scalar of which several depend.
            None for a callable map, which takes p itself.
        span: the branch starts at the first, heads for the second, and ends where it leaves the interval.
        u: the constant drive; None is silence.
        stride: lengths of steps and tolerances.
        max_points: after which the branch ends.

    Raises:
        TypeError: x0 is neither a state nor a BranchPoint, or u no Tensor.
        ValueError: x0 or u of a wrong shape or not finite, an empty span or one that leaves out the BranchPoint, no
            such parameter, or a system that leaves open which map is meant.
        ContinuationError: no equilibrium near x0, or the branch was lost; it says where, why and which knob to turn,
            and carries the branch found until then.
    """
    like = _start_state(system, x0)
    check_drive(system, u, torch.Size())
    check_span(span, x0.parameter if isinstance(x0, BranchPoint) else None)
    equations = equilibrium_equations(system, parameter, u, like)
    if isinstance(x0, BranchPoint):
        place = _switched(x0, span)
    else:
        z = np.append(tree.ravel(tree.map(lambda leaf: leaf.detach().double().cpu(), x0), 0).numpy(), span[0])
        place = start(equations, z, span[1] - span[0], stride)
    special = _special(equations, stride)
    places: list[Place] = []
    points: list[Point] = []
    try:
        for new in follow(equations, place, span, stride, max_points):
            if places:
                points += special.between(places[-1], new, stride)
            places.append(new)
    except ContinuationError as error:
        error.branch = _branch(equations, places, points)
        raise
    return _branch(equations, places, points)


def _start_state(system: Dynamics, x0: State | BranchPoint) -> State:
    """The state to start from, once checked; of a branch point one that is built alike."""
    if isinstance(x0, BranchPoint):
        own = own_state(system)
        return x0.x if own is None else own
    if isinstance(x0, Fold | Hopf | Flip | NeimarkSacker):
        kind = type(x0).__name__
        raise TypeError(
            f"no other branch of equilibria starts at a {kind} point: pass a BranchPoint, or a state (near "
            f"{kind}.x for the branch through it)."
        )
    batch_shape(system, x0, 0)
    if not all(bool(torch.isfinite(leaf).all()) for leaf in tree.leaves(x0)):
        raise ValueError("x0 holds NaN or infinite values: start at an equilibrium, or near one.")
    return x0


def _special(equations: Equilibria, stride: Stride) -> Special:
    def look(before: Place, after: Place) -> Found:
        found: Found = []

        def add(test: Callable[[Place], float], make: Callable[[Equilibria, Place], Any]) -> None:
            place = crossing(equations, before, after, stride, test)
            point = None if place is None else make(equations, place)
            if place is not None and point is not None:
                found.append((place.arclength, point))

        add(lambda place: float(place.tangent[-1]), _fold)
        add(lambda place: _bordered(equations, place), lambda equations, place: _branch_point(equations, before, place))
        if equations.is_map:
            add(lambda place: signed_least(equations.eigenvalues(place.z) + 1), _flip)
        add(lambda place: _pair_test(equations, place), _neimark_sacker if equations.is_map else _hopf)
        return found

    return Special(
        equations,
        look,
        lambda place: equations.margins(place.z),
        lambda point: 2 if isinstance(point, Hopf | NeimarkSacker) else 1,
    )


def _bordered(equations: Equilibria, place: Place) -> float:
    """The determinant of [jacobian; tangent], scaled: its sign changes where branches cross and at no fold."""
    matrix = np.vstack([equations.jacobian(place.z), place.tangent])
    sign, _ = np.linalg.slogdet(matrix)
    return float(sign * np.abs(np.linalg.eigvals(matrix)).min())


def _pair_test(equations: Equilibria, place: Place) -> float:
    """Zero where two eigenvalues add to 0, or of a map multiply to 1 (the bialternate product's zero).

    Hopf and Neimark-Sacker points, and neutral saddles.
    """
    values = equations.eigenvalues(place.z)
    i, j = np.triu_indices(len(values), 1)
    return signed_least(values[i] * values[j] - 1 if equations.is_map else values[i] + values[j])


def _fold(equations: Equilibria, place: Place) -> Fold:
    J = equations.jacobian(place.z)[:, :-1]
    null = np.linalg.svd(J)[2][-1]
    return Fold(float(place.z[-1]), torch.from_numpy(place.z[:-1]), torch.from_numpy(null))


def _hopf(equations: Equilibria, place: Place) -> Hopf | None:
    """None at a neutral saddle, whose two eigenvalues of opposite sign are real."""
    values, vectors = np.linalg.eig(equations.state_jacobian(place.z))
    i, j = np.triu_indices(len(values), 1)
    pair = np.abs(values[i] + values[j]).argmin()
    k = i[pair] if values[i[pair]].imag > 0 else j[pair]
    omega = float(values[k].imag)
    if omega < 1e-6:
        return None
    return Hopf(float(place.z[-1]), torch.from_numpy(place.z[:-1]), omega, torch.from_numpy(vectors[:, k]))


def _flip(equations: Equilibria, place: Place) -> Flip:
    values, vectors = np.linalg.eig(equations.state_jacobian(place.z))
    mode = vectors[:, np.abs(values + 1).argmin()].real
    return Flip(float(place.z[-1]), torch.from_numpy(place.z[:-1]), torch.from_numpy(mode))


def _neimark_sacker(equations: Equilibria, place: Place) -> NeimarkSacker | None:
    """None at a neutral saddle, whose two eigenvalues are real and inverse to one another."""
    values, vectors = np.linalg.eig(equations.state_jacobian(place.z))
    i, j = np.triu_indices(len(values), 1)
    pair = np.abs(values[i] * values[j] - 1).argmin()
    k = i[pair] if values[i[pair]].imag > 0 else j[pair]
    if values[k].imag < 1e-6:
        return None
    angle = float(np.angle(values[k]))
    return NeimarkSacker(float(place.z[-1]), torch.from_numpy(place.z[:-1]), angle, torch.from_numpy(vectors[:, k]))


def _branch_point(equations: Equilibria, before: Place, place: Place) -> BranchPoint | None:
    """The two tangents at a simple crossing, from the quadratic equation of bifurcation; None if it has no two."""
    J = equations.jacobian(place.z)
    left, _, right = np.linalg.svd(J)
    psi, basis = torch.from_numpy(left[:, -1]), torch.from_numpy(right[-2:])

    def bent(ab: Tensor) -> Tensor:
        return psi @ equations.field(torch.from_numpy(place.z) + ab @ basis)

    H = torch.func.hessian(bent)(torch.zeros(2, dtype=torch.float64)).detach().numpy()
    roots = _directions(H)
    if roots is None:
        return None
    tangents = roots @ basis.numpy()
    tangents /= np.sqrt((tangents**2 * equations.weights).sum(-1))[:, None]
    same = np.abs(tangents @ (equations.weights * before.tangent))
    first = int(same.argmax())
    ordered = np.stack([tangents[first], tangents[1 - first]])
    return BranchPoint(float(place.z[-1]), torch.from_numpy(place.z[:-1]), torch.from_numpy(ordered))


def _directions(H: Array) -> Array | None:
    """The two directions v with v H v = 0, if there are two real ones."""
    a, b, c = H[0, 0], H[0, 1], H[1, 1]
    size = np.abs(H).max()
    if size == 0 or b * b - a * c <= 1e-12 * size**2:
        return None
    q = -(b + np.copysign(np.sqrt(b * b - a * c), b))
    return np.array([(q, a), (c, q)])


def _switched(point: BranchPoint, span: tuple[float, float]) -> Place:
    """A place on the branch that crosses at a branch point."""
    z = np.append(point.x.numpy(), point.parameter)
    tangent = point.directions[1].numpy()
    if tangent[-1] * (span[1] - span[0]) < 0:
        tangent = -tangent
    return Place(z, tangent, 0.0)


def _branch(equations: Equilibria, places: list[Place], points: list[Any]) -> Branch:
    z = torch.from_numpy(np.stack([place.z for place in places]))
    values = torch.from_numpy(np.stack([equations.eigenvalues(place.z) for place in places]))
    return Branch(z[:, -1], z[:, :-1], values, points, "map" if equations.is_map else "flow")
