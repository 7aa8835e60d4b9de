"""The phase plane: field, nullclines and equilibria by type, of two-unit systems and of slices of larger ones."""

from collections.abc import Callable
from typing import NamedTuple

import contourpy
import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.analysis._system import Dynamics, Kind, batch_shape, check_drive, in_float64, local
from ctrnn.analysis.fixed_points import FixedPoints, fixed_points

Range = tuple[float, float]


class PhasePlane(NamedTuple):
    """What moves where in a rectangle; a velocity is dx/dt of a flow and step(x) - x of a map."""

    x: Float[Tensor, " x"]
    y: Float[Tensor, " y"]
    velocity: Float[Tensor, "2 y x"]  # within the plane
    out_of_plane: Float[Tensor, "y x"]  # speed at right angles to the plane: 0 for a system of two units
    nullclines: tuple[list[Tensor], list[Tensor]]  # polylines (point, 2) where the first, the second velocity is 0
    equilibria: FixedPoints | None  # those in the rectangle; None for a slice, whose zeros are none
    types: list[str]  # of the equilibria
    is_slice: bool
    origin: Float[Tensor, " D"]


def phase_plane(
    system: Dynamics,
    origin: State,
    x_range: Range,
    y_range: Range,
    u: Float[Tensor, " input"] | None = None,
    *,
    directions: Float[Tensor, "2 D"] | None = None,
    resolution: int = 101,
    starts: int = 21,
) -> PhasePlane:
    """Evaluate a flow or a map on a rectangle of the plane through `origin` spanned by two directions.

    Nullclines are traced with contourpy and moved onto the zero set by Newton's method. The equilibria are those that
    `fixed_points` finds from a grid of starts: a search, not a proof that there are no others.

    Args:
        system: a Model (its flow), a `Step` (its map), or a callable map.
        origin: the state at the coordinates (0, 0), without batch.
        x_range, y_range: the rectangle, in coordinates along the directions.
        u: the constant drive; None is silence.
        directions: made orthonormal in their order; None for two units means their own axes.
        resolution: grid points along each side.
        starts: of the search, along each side.

    Raises:
        TypeError: the origin or u are no floating-point Tensors.
        ValueError: they have another shape than the network's, an empty rectangle, directions that do not span a
            plane, or none given for more than two units.
    """
    if not (x_range[0] < x_range[1] and y_range[0] < y_range[1]) or resolution < 2:
        raise ValueError(f"the rectangle {x_range} x {y_range} at resolution {resolution} is empty: give low < high.")
    check_drive(system, u, batch_shape(system, origin, 0))
    if starts < 1:
        raise ValueError(f"starts = {starts}: the search needs at least one along each side.")
    origin = tree.map(lambda leaf: leaf.detach().double(), origin)
    centre = tree.ravel(origin, 0)
    basis = _basis(len(centre), directions)
    batched = tree.map(lambda leaf: leaf[None], origin)
    move, is_map = local(in_float64(system), batched, 1)

    def velocity(a: Tensor) -> Tensor:
        states = centre + (a @ basis).to(centre)
        drive = None if u is None else u.detach().to(states).expand(len(states), -1)
        moved = move(states, drive)
        return (moved - states if is_map else moved).to(a)

    def planar(a: Tensor) -> Tensor:
        return velocity(a) @ basis.mT

    x, y = (torch.linspace(*span, resolution, dtype=torch.float64) for span in (x_range, y_range))
    with torch.no_grad():
        full = velocity(_grid(x, y))
        within = full @ basis.mT
        beside = (full - within @ basis).norm(dim=-1)
        lines = (_nullcline(planar, x, y, 0), _nullcline(planar, x, y, 1))
    found: FixedPoints | None = None
    types: list[str] = []
    if directions is None:
        search = (torch.linspace(*span, starts, dtype=torch.float64) for span in (x_range, y_range))
        rows = centre + (_grid(*search) @ basis).to(centre)
        found = _inside(fixed_points(system, tree.unravel(rows, batched, 1), u), centre, x_range, y_range)
        types = equilibrium_types(found.eigenvalues, found.kind)
    shape = (resolution, resolution)
    return PhasePlane(
        x,
        y,
        within.mT.reshape(2, *shape),
        beside.reshape(shape),
        lines,
        found,
        types,
        directions is not None,
        centre.cpu(),
    )


def equilibrium_types(eigenvalues: Complex[Tensor, "point 2"], kind: Kind) -> list[str]:
    """Stable or unstable node or focus, saddle, centre; a map's is a flip where an eigenvalue is negative.

    A type that hangs on a growth rate within 1e-9 of zero is called "centre" (complex) or "degenerate" (real).
    """
    names = []
    for pair in eigenvalues:
        growth = pair.abs() - 1 if kind == "map" else pair.real
        turning = bool((pair.imag.abs() > 1e-9).any())
        if bool((growth.abs() < 1e-9).any()):
            names.append("centre" if turning else "degenerate")
            continue
        sign = "stable" if bool((growth < 0).all()) else "unstable" if bool((growth > 0).all()) else ""
        name = f"{sign} {'focus' if turning else 'node'}" if sign else "saddle"
        flips = kind == "map" and not turning and bool((pair.real < 0).any())
        names.append(f"{name} (flip)" if flips else name)
    return names


def _basis(n: int, directions: Tensor | None) -> Tensor:
    if directions is None:
        if n != 2:
            raise ValueError(f"the state has {n} numbers: give two directions of a slice, such as principal axes.")
        return torch.eye(2, dtype=torch.float64)
    if tuple(directions.shape) != (2, n):
        raise ValueError(f"directions must have the shape (2, {n}), got {tuple(directions.shape)}.")
    q, r = torch.linalg.qr(directions.detach().double().mT)
    if bool(r.diagonal().abs().min() < 1e-9 * r.abs().max()):
        raise ValueError("the two directions are parallel and span no plane.")
    return (q * r.diagonal().sign()).mT


def _grid(x: Tensor, y: Tensor) -> Tensor:
    """Points (y * x, 2), row by row."""
    b, a = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([a, b], -1).reshape(-1, 2)


def _nullcline(planar: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, k: int) -> list[Tensor]:
    """Traced one cell beyond the edges, so that a line on an edge changes sign there, and cut at the edges."""
    wide_x, wide_y = (torch.cat([2 * a[:1] - a[1:2], a, 2 * a[-1:] - a[-2:-1]]) for a in (x, y))
    values = planar(_grid(wide_x, wide_y))[:, k].reshape(len(wide_y), len(wide_x))
    traced = contourpy.contour_generator(wide_x.numpy(), wide_y.numpy(), values.cpu().numpy()).lines(0.0)
    cell = torch.stack([x[1] - x[0], y[1] - y[0]])
    low, high = torch.stack([x[0], y[0]]) - 1e-9 * cell, torch.stack([x[-1], y[-1]]) + 1e-9 * cell
    lines = []
    for line in map(np.asarray, traced):
        inside = ((line >= low.numpy()) & (line <= high.numpy())).all(1)
        cuts = np.flatnonzero(np.diff(inside)) + 1
        for piece, kept in zip(np.split(line, cuts), np.split(inside, cuts), strict=True):
            if kept[0] and len(piece) > 1:
                lines.append(_onto_zero(planar, torch.from_numpy(piece), k, cell))
    return lines


def _onto_zero(planar: Callable[[Tensor], Tensor], line: Tensor, k: int, cell: Tensor) -> Tensor:
    """Newton along the gradient, within a cell; a point at which the gradient vanishes stays."""
    start = line
    for _ in range(6):
        with torch.enable_grad():
            at = line.detach().requires_grad_()
            value = planar(at)[:, k]
            (gradient,) = torch.autograd.grad(value.sum(), at)
        step = value.detach()[:, None] * gradient / gradient.square().sum(-1, keepdim=True).clamp(min=1e-300)
        line = torch.minimum(torch.maximum(line - step, start - cell), start + cell)
    return line


def _inside(found: FixedPoints, centre: Tensor, x_range: Range, y_range: Range) -> FixedPoints:
    a = found.x - centre
    keep = (a[:, 0] >= x_range[0]) & (a[:, 0] <= x_range[1]) & (a[:, 1] >= y_range[0]) & (a[:, 1] <= y_range[1])
    keep &= found.fixed
    rows = ("x", "speed", "jacobian", "eigenvalues", "stable", "velocity", "fixed")
    drive = None if found.u is None else found.u[keep]
    return found._replace(**{name: getattr(found, name)[keep] for name in rows}, u=drive)
