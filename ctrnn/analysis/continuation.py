"""Branches of equilibria as a parameter changes, and the points where their number or stability changes."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor
from torch.func import functional_call

from ctrnn import _tree as tree
from ctrnn._model_files import class_name
from ctrnn._types import State
from ctrnn.analysis._arclength import (
    Array,
    ContinuationError,
    Place,
    Stride,
    follow,
    start,
    zero,
)
from ctrnn.analysis.linearise import in_float64
from ctrnn.dynamics import Model

Parameter = str | Callable[[Tensor], Mapping[str, Tensor]]


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


class BranchPoint(NamedTuple):
    """Two branches cross; continued from here, the other one is followed."""

    parameter: float
    x: Float[Tensor, " D"]
    directions: Float[Tensor, "2 D+1"]  # tangents (x, parameter): of the branch followed, and of the other one


class Branch(NamedTuple):
    """Equilibria along a branch, in the order in which they were met."""

    parameter: Float[Tensor, " point"]
    x: Float[Tensor, "point D"]
    eigenvalues: Complex[Tensor, "point D"]
    points: list[Fold | Hopf | BranchPoint]

    @property
    def stable(self) -> Bool[Tensor, " point"]:
        """Whether all eigenvalues have negative real parts."""
        return (self.eigenvalues.real < 0).all(-1)


def continue_equilibria(
    model: Model,
    x0: State | BranchPoint,
    parameter: Parameter,
    span: tuple[float, float],
    u: Float[Tensor, " input"] | None = None,
    *,
    stride: Stride = Stride(),  # noqa: B008  a frozen value
    max_points: int = 2000,
) -> Branch:
    """Follow equilibria of dx/dt = model(x, u) from parameter span[0] until it leaves the span, around folds.

    Pseudo-arclength continuation (Keller 1977) with tangent predictor and Newton corrector, in float64; folds, Hopf
    points and branch points are located on the way.

    Args:
        model: its flow; the model is left as it is.
        x0: an equilibrium at span[0], or a state near one; a `BranchPoint` starts the branch that crosses there, in
            the sense of span[1] - span[0] (either way where it is vertical).
        parameter: name of a parameter or buffer with one number, or of one of its entries, such as "b_rec[1]", or of
            an entry of the drive, "u[0]"; or a function p -> {name: Tensor}, for any scalar of which several depend.
        span: the branch starts at the first, heads for the second, and ends where it leaves the interval.
        u: the constant drive; None is silence.
        stride: lengths of steps and tolerances.
        max_points: after which the branch ends.

    Raises:
        ValueError: there is no such parameter.
        ContinuationError: no equilibrium near x0, or the branch was lost; it says where, why and which knob to turn,
            and carries the branch found until then.
    """
    like = model.initial_state() if isinstance(x0, BranchPoint) else x0
    equations = equilibrium_equations(model, parameter, u, like)
    if isinstance(x0, BranchPoint):
        place = _switched(x0, span)
    else:
        z = np.append(tree.ravel(tree.map(lambda leaf: leaf.detach().double(), x0), 0).numpy(), span[0])
        place = start(equations, z, span[1] - span[0], stride)
    places: list[Place] = []
    points: list[Fold | Hopf | BranchPoint] = []
    try:
        for new in follow(equations, place, span, stride, max_points):
            if places:
                points += _passed(equations, places[-1], new, stride)
            places.append(new)
    except ContinuationError as error:
        error.branch = _branch(equations, places, points)
        raise
    return _branch(equations, places, points)


def equilibrium_equations(model: Model, parameter: Parameter, u: Tensor | None, like: State) -> "Equilibria":
    """The flow of a float64 copy of the model as a function of (x, p).

    Raises:
        ValueError: there is no such parameter.
    """
    copy = in_float64(model)
    assert isinstance(copy, Model)
    return Equilibria(copy, parameter, u, like)


class Equilibria:
    """0 = model(x, u; p)."""

    def __init__(self, model: Model, parameter: Parameter, u: Tensor | None, like: State) -> None:
        self.model, self.u = model, torch.zeros(model.n_in or 0, dtype=torch.float64) if u is None else u.double()
        self.like = tree.map(lambda leaf: leaf.detach().double(), like)
        self.values = named_values(model, parameter, self.u)
        n = sum(leaf.numel() for leaf in tree.leaves(self.like))
        self.weights = np.append(np.full(n, 1 / n), 1.0)
        # Newton, the tangent and every test function ask at the same place.
        self._jacobian = lru_cache(maxsize=8)(self._jacobian_of)

    def field(self, z: Tensor) -> Tensor:
        """dx/dt (D,) at z = (x, p)."""
        values = dict(self.values(z[-1]))
        u = values.pop("u", self.u)
        time = torch.zeros((), dtype=torch.float64)
        x = tree.unravel(z[:-1], self.like, 0)
        return tree.ravel(functional_call(self.model, values, (time, x, u)), 0)

    @torch.no_grad()
    def residual(self, z: Array) -> Array:
        return self.field(torch.from_numpy(z)).numpy()

    def jacobian(self, z: Array) -> Array:
        return self._jacobian(z.tobytes())

    @torch.no_grad()
    def _jacobian_of(self, z: bytes) -> Array:
        return torch.func.jacrev(self.field)(torch.frombuffer(bytearray(z), dtype=torch.float64)).numpy()


def named_values(model: Model, parameter: Parameter, u: Tensor) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """The Tensors of the model, or its drive "u", as functions of one scalar.

    Raises:
        ValueError: there is no such Tensor, or it holds more than one number.
    """
    tensors = {"u": u, **dict(model.named_parameters()), **dict(model.named_buffers())}
    if not isinstance(parameter, str):
        for name, value in parameter(torch.zeros((), dtype=torch.float64)).items():
            _check_name(model, name, tensors)
            if value.shape != tensors[name].shape:
                raise ValueError(
                    f"the function gives {name} the shape {tuple(value.shape)}, it has {tuple(tensors[name].shape)}."
                )
        return parameter
    name, _, rest = parameter.partition("[")
    _check_name(model, name, tensors)
    whole = tensors[name].detach().double()
    try:
        index = tuple(int(i) for i in rest.removesuffix("]").split(",")) if rest else ()
        picked = whole[index]
    except (ValueError, IndexError):
        raise ValueError(f"{parameter!r} is no entry of {name} of shape {tuple(whole.shape)}.") from None
    if picked.numel() != 1:
        raise ValueError(
            f"{parameter!r} holds {picked.numel()} numbers of the shape {tuple(picked.shape)}: name one entry, "
            f"such as {name}[{', '.join('0' * whole.ndim)}], or pass a function p -> {{name: Tensor}}."
        )
    chosen = torch.zeros_like(whole, dtype=torch.bool)
    chosen[index] = True
    return lambda p: {name: torch.where(chosen, p, whole)}


def _check_name(model: Model, name: str, tensors: Mapping[str, Tensor]) -> None:
    if name not in tensors:
        raise ValueError(f"{class_name(model)} has no parameter {name!r}: it has {', '.join(sorted(tensors))}.")


def _eigenvalues(equations: Equilibria, place: Place) -> Any:
    return np.linalg.eigvals(equations.jacobian(place.z)[:, :-1])


def _passed(equations: Equilibria, before: Place, after: Place, stride: Stride) -> list[Any]:
    """The special points between two neighbouring places."""
    found: list[tuple[float, Any]] = []

    def add(test: Callable[[Place], float], make: Callable[[Equilibria, Place], Any]) -> None:
        if test(before) * test(after) < 0:
            place = zero(equations, before, after, test, stride)
            point = make(equations, place)
            if point is not None:
                found.append((place.arclength, point))

    add(lambda place: float(place.tangent[-1]), _fold)
    add(lambda place: _bordered(equations, place), lambda equations, place: _branch_point(equations, before, place))
    add(lambda place: _hopf_test(equations, place), _hopf)
    return [point for _, point in sorted(found, key=lambda pair: pair[0])]


def _bordered(equations: Equilibria, place: Place) -> float:
    """The determinant of [jacobian; tangent], scaled: its sign changes where branches cross and at no fold."""
    sign, _ = np.linalg.slogdet(np.vstack([equations.jacobian(place.z), place.tangent]))
    matrix = np.vstack([equations.jacobian(place.z), place.tangent])
    return float(sign * np.abs(np.linalg.eigvals(matrix)).min())


def _hopf_test(equations: Equilibria, place: Place) -> float:
    """The smallest sum of two eigenvalues: the bialternate product's zero (Hopf points and neutral saddles)."""
    values = _eigenvalues(equations, place)
    i, j = np.triu_indices(len(values), 1)
    if not len(i):
        return 1.0
    sums = values[i] + values[j]
    # The sign of the product of all sums; complex ones come in conjugate pairs.
    sign = np.prod(np.sign(sums.real[np.abs(sums.imag) <= 1e-12 * (1 + np.abs(sums))]))
    return float(sign * np.abs(sums).min())


def _fold(equations: Equilibria, place: Place) -> Fold:
    J = equations.jacobian(place.z)[:, :-1]
    null = np.linalg.svd(J)[2][-1]
    return Fold(float(place.z[-1]), torch.from_numpy(place.z[:-1]), torch.from_numpy(null))


def _hopf(equations: Equilibria, place: Place) -> Hopf | None:
    """None at a neutral saddle, whose two eigenvalues of opposite sign are real."""
    values, vectors = np.linalg.eig(equations.jacobian(place.z)[:, :-1])
    i, j = np.triu_indices(len(values), 1)
    pair = np.abs(values[i] + values[j]).argmin()
    k = i[pair] if values[i[pair]].imag > 0 else j[pair]
    omega = float(values[k].imag)
    if omega < 1e-6:
        return None
    return Hopf(float(place.z[-1]), torch.from_numpy(place.z[:-1]), omega, torch.from_numpy(vectors[:, k]))


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
    values = torch.from_numpy(np.stack([_eigenvalues(equations, place).astype(complex) for place in places]))
    return Branch(z[:, -1], z[:, :-1], values, points)
