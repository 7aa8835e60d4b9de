"""Branches of limit cycles as a parameter changes, their Floquet multipliers, and where they change stability."""

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._integrate import integrate
from ctrnn._types import State
from ctrnn.analysis._arclength import Array, ContinuationError, Place, Stride, follow, start, zero
from ctrnn.analysis._collocation import Cycles
from ctrnn.analysis._equilibria import Parameter, equilibrium_equations
from ctrnn.analysis._system import constant, in_float64
from ctrnn.analysis.continuation import Hopf
from ctrnn.dynamics import Model
from ctrnn.solvers import Dopri5
from ctrnn.steps import Adaptive, At

REMESH = 8  # accepted points between two meshes


class Orbit(NamedTuple):
    """One round of a rhythm, from equally spaced samples."""

    x: Float[Tensor, "sample D"]
    period: float


class CycleFold(NamedTuple):
    """Two cycles meet and vanish."""

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
    points: list[CycleFold | PeriodDoubling | Torus]

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
    the linearised collocation; folds of cycles, period doublings and tori are located on the way.

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
        ValueError: there is no such parameter.
        ContinuationError: no cycle near the start, or the branch was lost; it carries what was found.
    """
    like = model.initial_state()
    equations = equilibrium_equations(model, parameter, u, like)
    n = sum(leaf.numel() for leaf in tree.leaves(like))
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
                    found.points.extend(_passed(cycles, place, new, stride))
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
    closed = torch.cat([orbit.x, orbit.x[:1]]).double().numpy()
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


def _passed(cycles: Cycles, before: Place, after: Place, stride: Stride) -> list[Any]:
    """The special points between two neighbouring cycles."""
    found = []
    for kind, test in (
        (CycleFold, lambda place: float(place.tangent[-1])),
        (PeriodDoubling, lambda place: _flip(cycles, place)),
        (Torus, lambda place: _torus(cycles, place)),
    ):
        if test(before) * test(after) < 0:
            place = zero(cycles, before, after, test, stride)
            if kind is Torus and _real_pair(cycles, place):
                continue
            point = kind(float(place.z[-1]), float(np.exp(place.z[-2])), torch.from_numpy(cycles.orbit(place.z)))
            found.append((place.arclength, point))
    return [point for _, point in sorted(found, key=lambda pair: pair[0])]


def _flip(cycles: Cycles, place: Place) -> float:
    return float(np.prod(1 + cycles.multipliers(place.z)[1]).real)


def _torus(cycles: Cycles, place: Place) -> float:
    values = cycles.multipliers(place.z)[1]
    i, j = np.triu_indices(len(values), 1)
    return float(np.prod(values[i] * values[j] - 1).real) if len(i) else 1.0


def _real_pair(cycles: Cycles, place: Place) -> bool:
    """Whether the two multipliers whose product is 1 are real: no torus is born there."""
    values = cycles.multipliers(place.z)[1]
    i, j = np.triu_indices(len(values), 1)
    pair = np.abs(values[i] * values[j] - 1).argmin()
    return bool(abs(values[i[pair]].imag) < 1e-6)


def simulated_orbit(
    model: Model,
    x0: State,
    u: Float[Tensor, " input"] | None = None,
    *,
    transient: float,
    duration: float,
    samples: int = 200,
    closed: float = 1e-3,
) -> Orbit:
    """One round of the rhythm to which the flow settles from x0, as it is in the model's own parameters.

    The period is the time after which the run comes back to its state at the end of the transient.

    Args:
        model: its flow.
        x0: where the run starts.
        u: the constant drive; None is silence.
        transient: time in which the run settles, in the unit of the model's tau.
        duration: time in which it must come back.
        samples: of the orbit.
        closed: how near it must come, relative to how far it goes.

    Raises:
        ValueError: the run stands still, or does not come back in time.
    """
    precise_model = in_float64(model)
    assert isinstance(precise_model, Model)
    x0 = tree.map(lambda leaf: leaf.detach().double(), x0)
    drive = constant(u)
    precise = Adaptive(1e-9, 1e-11)

    def run(x: State, times: Tensor) -> State:
        with torch.no_grad():
            span = (0.0, float(times[-1]))
            return integrate(precise_model, drive, x, t_span=span, solver=Dopri5(), steps=precise, save=At(times)).xs

    settled = tree.map(lambda leaf: leaf[-1], run(x0, torch.tensor([transient], dtype=torch.float64)))
    times = torch.linspace(0, duration, 4001, dtype=torch.float64)
    states = run(settled, times)
    path = tree.ravel(states, 1)
    distance = (path - path[0]).norm(dim=-1)
    size = float(distance.max())
    if size < 1e-6 * (1 + float(path[0].norm())):
        raise ValueError("the run stands still after the transient: there is no rhythm to follow from this start.")
    away = int((distance > 0.1 * size).nonzero()[0, 0])
    near = (distance[away:-1] < distance[away + 1 :]) & (distance[away:-1] < 0.1 * size)
    for k in (near.nonzero()[:, 0] + away).tolist():
        state, period, width = tree.map(lambda leaf, k=k: leaf[k - 1], states), float(times[k - 1]), 2 * float(times[1])
        for _ in range(3):  # the closest state, ever finer
            fine = torch.linspace(0, width, 65, dtype=torch.float64)
            around = run(state, fine)
            back = (tree.ravel(around, 1) - path[0]).norm(dim=-1)
            i = int(back[1:-1].argmin())  # the one before the closest
            state, period, width = tree.map(lambda leaf, i=i: leaf[i], around), period + float(fine[i]), float(fine[2])
        if float(back.min()) < closed * size:
            period += width / 2
            ticks = torch.arange(1, samples + 1, dtype=torch.float64) * (period / samples)
            return Orbit(tree.ravel(run(settled, ticks), 1).roll(1, 0), period)
    raise ValueError(
        f"the run does not come back to where it was within {duration:g}: give it a longer duration or transient; or "
        "it is no rhythm (see analysis.lyapunov_spectrum)."
    )
