"""Branches of limit cycles as a parameter changes, their Floquet multipliers, and where they change stability."""

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from scipy.sparse import csc_array, csr_array, vstack
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn.analysis._arclength import Array, ContinuationError, Place, Stride, check_span, follow, start
from ctrnn.analysis._collocation import Cycles
from ctrnn.analysis._equilibria import Parameter, equilibrium_equations
from ctrnn.analysis._special import Found, Special, crossing, signed_least
from ctrnn.analysis._system import check_drive, own_state
from ctrnn.analysis.continuation import Hopf
from ctrnn.analysis.orbits import Orbit, check_flow
from ctrnn.dynamics import Model

REMESH = 8  # accepted points between two meshes


class CycleFold(NamedTuple):
    """Two cycles meet and vanish."""

    parameter: float
    period: float
    orbit: Float[Tensor, "node D"]


class CycleBranchPoint(NamedTuple):
    """A multiplier passes 1 at no fold: two branches of cycles cross, as where a symmetric cycle loses its symmetry."""

    parameter: float
    period: float
    orbit: Float[Tensor, "node D"]


class PeriodDoubling(NamedTuple):
    """A multiplier passes -1: a cycle of twice the period is born."""

    parameter: float
    period: float
    orbit: Float[Tensor, "node D"]


class Torus(NamedTuple):
    """A complex pair of multipliers passes the unit circle (Neimark-Sacker)."""

    parameter: float
    period: float
    orbit: Float[Tensor, "node D"]


class CycleBranch(NamedTuple):
    """Limit cycles along a branch; `ts` are the nodes' times within a period, from 0 to 1."""

    parameter: Float[Tensor, " cycle"]
    period: Float[Tensor, " cycle"]
    orbits: Float[Tensor, "cycle node D"]
    ts: Float[Tensor, "cycle node"]
    # Floquet's: first the trivial one, 1 up to the collocation's error, then the others, the greatest first.
    multipliers: Complex[Tensor, "cycle D"]
    points: list[CycleFold | CycleBranchPoint | PeriodDoubling | Torus]

    @property
    def stable(self) -> Bool[Tensor, " cycle"]:
        """Whether all multipliers but the trivial one lie inside the unit circle."""
        return (self.multipliers[:, 1:].abs() < 1).all(-1)


def continue_cycles(
    model: Model,
    start: Hopf | Orbit,
    parameter: Parameter,
    span: tuple[float, float],
    u: Float[Tensor, " input"] | None = None,
    *,
    intervals: int = 30,
    max_period: float = math.inf,
    stride: Stride = Stride(first=0.01, most=0.5),  # noqa: B008  a frozen value
    max_points: int = 300,
) -> CycleBranch:
    """Follow a limit cycle of dx/dt = model(x, u) until the parameter leaves the span or the period exceeds a limit.

    Orthogonal collocation (4 Gauss points an interval) on a mesh that adapts, with an integral phase condition and
    pseudo-arclength (Doedel, Keller & Kernevez 1991, Int. J. Bifurcation and Chaos 1:745); Floquet multipliers from
    the linearised collocation; folds of cycles, crossings, period doublings and tori are located on the way.

    Args:
        model: its flow; the model is left as it is.
        start: a Hopf point of `continue_equilibria` (with the same `parameter`), or an `Orbit` at parameter span[0],
            such as `simulated_orbit` gives.
        parameter, u: as for `continue_equilibria`.
        span: the branch ends where it leaves the interval; from an orbit it heads for span[1].
        intervals: of the mesh.
        max_period: a branch on its way to a homoclinic orbit ends here.
        stride: lengths of steps and tolerances.
        max_points: after which the branch ends.

    Raises:
        TypeError: the system is no Model, or the start neither a Hopf point nor an Orbit.
        ValueError: a start or u of a wrong shape or not finite, an empty span or one that leaves out the Hopf point, or
            no such parameter.
        ContinuationError: no cycle near the start, or the branch was lost; it carries what was found.
    """
    n = _check_start(model, start)
    check_drive(model, u, torch.Size())
    check_span(span, start.parameter if isinstance(start, Hopf) else None)
    like = own_state(model)
    equations = equilibrium_equations(model, parameter, u, torch.zeros(n) if like is None else like)
    cycles = Cycles(equations.field, np.linspace(0, 1, intervals + 1), n)
    place = _from_hopf(cycles, start) if isinstance(start, Hopf) else _from_orbit(cycles, start, span, stride)
    found = _Found([], [])
    if not isinstance(start, Hopf):  # the Hopf point itself is no cycle
        found.add(cycles, place)
    try:
        while len(found.rows) < max_points:
            count = 0
            for new in itertools.islice(follow(cycles, place, span, stride, REMESH), 1, None):
                if found.rows:
                    found.points.extend(_special(cycles, stride).between(place, new, stride))
                found.add(cycles, new)
                stride = dataclasses.replace(stride, first=new.arclength - place.arclength)
                cycles.reference = cycles.orbit(new.z)
                place, count = new, count + 1
                if math.exp(place.z[-2]) > max_period:
                    return found.branch()
            if count < REMESH:
                return found.branch()
            cycles, z, tangent = cycles.remeshed(place.z, place.tangent)
            place = Place(z, tangent, place.arclength)
    except ContinuationError as error:
        error.branch = found.branch() if found.rows else None
        raise
    return found.branch()


def _check_start(model: Model, start: Hopf | Orbit) -> int:
    """The width of the state."""
    check_flow(model)
    if not isinstance(start, Hopf | Orbit):
        raise TypeError(
            f"start must be a Hopf point or an Orbit, got {type(start).__name__}: simulated_orbit(model, x0, ...) "
            "gives one, or Orbit(x, period) with x (sample, D)."
        )
    own, x, axes = own_state(model), start.x, 1 if isinstance(start, Hopf) else 2
    width = None if own is None else sum(leaf.numel() for leaf in tree.leaves(own))
    if not isinstance(x, Tensor) or x.ndim != axes or x.shape[-1] != (width or x.shape[-1]):
        form = f"({'sample, ' * (axes - 1)}{width or 'D'}{',' * (axes == 1)})"
        given = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"start.x must be states {form}, their parts side by side (analysis.ravelled), got {given}.")
    if isinstance(start, Orbit) and (len(x) < 3 or not 0 < start.period < math.inf):
        raise ValueError(f"an Orbit of {len(x)} samples and period {start.period}: need three and a positive one.")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("start.x holds NaN or infinite values: start from a cycle.")
    return x.shape[-1]


class _Row(NamedTuple):
    parameter: float
    period: float
    orbit: Array
    times: Array
    multipliers: Any


class _Found(NamedTuple):
    rows: list[_Row]
    points: list[Any]

    def add(self, cycles: Cycles, place: Place) -> None:
        trivial, others = cycles.multipliers(place.z)
        parameter, period = float(place.z[-1]), float(np.exp(place.z[-2]))
        values = np.append(trivial, others[np.argsort(-np.abs(others))])
        self.rows.append(_Row(parameter, period, cycles.orbit(place.z), cycles.times, values))

    def branch(self) -> CycleBranch:
        parameter, period, orbit, times, multipliers = (
            torch.from_numpy(np.stack([row[k] for row in self.rows])) for k in range(5)
        )
        return CycleBranch(parameter, period, orbit, times, multipliers, self.points)


def _from_hopf(cycles: Cycles, hopf: Hopf) -> Place:
    """The Hopf point as a cycle of no size, with the critical mode as the direction of the branch."""
    mode = hopf.mode.numpy()
    wave = np.real(mode * np.exp(2j * np.pi * cycles.times)[:, None])
    cycles.reference = wave
    z = np.append(
        np.broadcast_to(hopf.x.numpy(), wave.shape).reshape(-1), [math.log(2 * math.pi / hopf.omega), hopf.parameter]
    )
    tangent = np.append(wave.reshape(-1), [0.0, 0.0])
    return Place(z, tangent / math.sqrt((tangent**2 * cycles.weights).sum()), 0.0)


def _from_orbit(cycles: Cycles, orbit: Orbit, span: tuple[float, float], stride: Stride) -> Place:
    closed = torch.cat([orbit.x, orbit.x[:1]]).detach().double().cpu().numpy()
    ticks = np.linspace(0, 1, len(closed))
    guess = np.stack([np.interp(cycles.times, ticks, column) for column in closed.T], -1)
    cycles.reference = guess
    z = np.append(guess.reshape(-1), [math.log(orbit.period), span[0]])
    place = start(cycles, z, span[1] - span[0], stride)
    if np.ptp(cycles.orbit(place.z), 0).max() < 1e-3 * np.ptp(guess, 0).max():
        raise ContinuationError(
            f"at parameter {span[0]:g} the orbit shrank to an equilibrium: start closer to a cycle (simulated_orbit "
            "gives one), with the parameter that it was simulated at.",
            parameter=span[0],
        )
    cycles.reference = cycles.orbit(place.z)
    return place


def _special(cycles: Cycles, stride: Stride) -> Special:
    def others(place: Place) -> Any:
        return cycles.multipliers(place.z)[1]

    def look(before: Place, after: Place) -> Found:
        found: Found = []
        for kind, test in (
            (CycleFold, lambda place: float(place.tangent[-1])),
            (CycleBranchPoint, lambda place: _orientation(cycles, place) * np.abs(others(place) - 1).min(initial=1.0)),
            (PeriodDoubling, lambda place: signed_least(others(place) + 1)),
            (Torus, lambda place: signed_least(_pairs(others(place)) - 1)),
        ):
            place = crossing(cycles, before, after, stride, test)
            if place is None or (kind is Torus and _real_pair(others(place))):
                continue
            point = kind(float(place.z[-1]), float(np.exp(place.z[-2])), torch.from_numpy(cycles.orbit(place.z)))
            found.append((place.arclength, point))
        return found

    return Special(
        cycles,
        look,
        lambda place: np.abs(others(place)) - 1,
        lambda point: 2 if isinstance(point, Torus) else 1,
    )


def _orientation(cycles: Cycles, place: Place) -> float:
    """The sign of the determinant of [jacobian; tangent], which changes where branches cross and at no fold."""
    lu = splu(csc_array(vstack([cycles.jacobian(place.z), csc_array(place.tangent[None])])))
    size = len(place.z)
    swaps = 0
    for permutation in (lu.perm_r, lu.perm_c):
        rounds, _ = connected_components(csr_array((np.ones(size), (np.arange(size), permutation))), directed=False)
        swaps += size - rounds
    return float((-1) ** swaps * np.prod(np.sign(lu.U.diagonal())))


def _pairs(multipliers: Any) -> Any:
    """The product of each pair."""
    i, j = np.triu_indices(len(multipliers), 1)
    return multipliers[i] * multipliers[j]


def _real_pair(multipliers: Any) -> bool:
    """Whether the two whose product is 1 are real: no torus is born there."""
    i, _ = np.triu_indices(len(multipliers), 1)
    pair = np.abs(_pairs(multipliers) - 1).argmin()
    return bool(abs(multipliers[i[pair]].imag) < 1e-6)
