"""State space: trajectories and fixed points in two or three coordinates."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from torch import Tensor

from ctrnn.plots._array import array, name_axes
from ctrnn.plots.spectra import is_unstable
from ctrnn.plots.style import STABLE, TRAJECTORY, UNSTABLE

INDEX_MARKERS = ("s", "x", "^", "*", "P")  # of points with 0 (neutral), 1, 2, 3, more unstable directions


def trajectories(
    ax: Axes, xs: Float[Any, "time *batch axis"], *, color: str = TRAJECTORY, label: str | None = None
) -> Axes:
    """Draw paths through two or three coordinates, thin and blue as is the field's habit; `ax` is 3-D for three.

    Raises:
        TypeError: the states are a tuple of parts.
        ValueError: the paths have another number of coordinates than the axes.
    """
    paths = _coordinates(ax, xs)
    flat = paths.reshape(paths.shape[0], -1, paths.shape[-1])
    for i in range(flat.shape[1]):
        ax.plot(*flat[:, i].T, color=color, lw=0.5, alpha=0.6, label=label if i == 0 else None, zorder=1)
    name_axes(ax, "$x_1$", "$x_2$", "$x_3$" if paths.shape[-1] == 3 else "")
    return ax


def points(
    ax: Axes,
    x: Float[Any, "point axis"],
    stable: Bool[Any, " point"],
    *,
    unstable: Int[Any, " point"] | None = None,
    size: float = 28.0,
) -> Axes:
    """Draw fixed points: stable ones black and filled, the others red.

    Args:
        ax: 3-D for three coordinates.
        x: points in two or three coordinates.
        stable: which of them are.
        unstable: how many directions are unstable at each (`FixedPoints.unstable`); each number has its own marker.
        size: of a marker, in square points.

    Raises:
        TypeError: the points are a tuple of parts.
        ValueError: the points have another number of coordinates than the axes, or there are not as many flags or
            numbers as points.
    """
    x, stable = _coordinates(ax, x), array(stable, bool)
    index = np.zeros(len(x), dtype=int) if unstable is None else array(unstable)
    if stable.shape != x.shape[:1] or index.shape != x.shape[:1]:
        raise ValueError(f"{len(x)} points need a flag (and a number) each, got {stable.shape} and {index.shape}.")
    groups = [(stable, STABLE, "o", "stable")]
    if unstable is None:
        groups.append((~stable, UNSTABLE, "x", "saddles"))
    else:
        for k in np.unique(index[~stable]).tolist():
            name = f"{k} unstable direction" + "s" * (k != 1)
            groups.append((~stable & (index == k), UNSTABLE, INDEX_MARKERS[min(k, len(INDEX_MARKERS) - 1)], name))
    # In three dimensions matplotlib would fade what lies behind, and shift the colour that carries the meaning.
    front: dict[str, Any] = {"depthshade": False} if hasattr(ax, "get_zlim") else {}
    for chosen, color, marker, name in groups:
        if chosen.any():
            style: dict[str, Any] = {"s": size, "color": color, "marker": marker, "lw": 1.0, "zorder": 3, **front}
            ax.scatter(*x[chosen].T, label=f"{name} ({chosen.sum()})", **style)
    return ax


def _coordinates(ax: Axes, x: Any) -> Any:
    if isinstance(x, tuple) and any(isinstance(part, Tensor) for part in x):
        raise TypeError(
            f"states of {type(x).__name__} are a tuple of {len(x)} parts: join these with analysis.ravelled(states), "
            "and project the result to the coordinates of the axes (Subspace.project)."
        )
    values = array(x)
    axes = 3 if hasattr(ax, "get_zlim") else 2
    if values.ndim < 2 or values.shape[-1] != axes:
        raise ValueError(
            f"these axes have {axes} coordinates, so {axes} are drawn along the last axis, got the shape "
            f"{values.shape}: project states first (Subspace.project), or make the axes with projection='3d'."
        )
    return values


def mode_lines(
    ax: Axes,
    x: Float[Any, "point axis"],
    directions: Complex[Any, "point axis mode"],
    eigenvalues: Complex[Any, "point mode"],
    kind: Literal["flow", "map"],
    *,
    scale: float = 1.0,
) -> Axes:
    """Draw the unstable directions at fixed points as red lines, their half-length `scale` times |eigenvalue|.

    Of a complex pair one line shows the real and one the imaginary part of the vector: they span its plane.

    Args:
        ax: 3-D for three coordinates.
        x: points in two or three coordinates.
        directions: right eigenvectors (`Modes.right`) in the same coordinates, `components @ modes.right` for PCA.
        eigenvalues: one for each direction.
        kind: whether a mode is unstable outside the unit circle (map) or right of the imaginary axis (flow).
        scale: length of a line to each side of its point, for an eigenvalue of modulus 1 and a vector in the plane.

    Raises:
        TypeError: the points are a tuple of parts.
        ValueError: points or directions have another number of coordinates than the axes, or there is not a direction
            for each eigenvalue.
    """
    x, directions, values = _coordinates(ax, x), array(directions), array(eigenvalues)
    if directions.ndim != 3 or directions.shape[:2] != x.shape or values.shape != (len(x), directions.shape[-1]):
        raise ValueError(
            f"{len(x)} points in {x.shape[-1]} coordinates need directions of shape ({len(x)}, {x.shape[-1]}, mode) "
            f"and eigenvalues ({len(x)}, mode), got {directions.shape} and {values.shape}: bring the directions "
            "into the points' coordinates first (Subspace.project_directions, or components @ modes.right)."
        )
    for i, mode in zip(*np.nonzero(is_unstable(values, kind)), strict=True):
        vector = directions[i, :, mode]
        half = scale * abs(values[i, mode]) * (vector.imag if values[i, mode].imag < 0 else vector.real)
        ax.plot(*np.stack([x[i] - half, x[i] + half]).T, color=UNSTABLE, lw=0.9, zorder=2)
    return ax


def vector_field(
    ax: Axes, grid: tuple[ArrayLike, ArrayLike], velocity: Float[Any, "2 y x"], *, density: float = 0.9
) -> Axes:
    """Stream lines of a planar flow; `grid` holds the x and y coordinates, `velocity` dx/dt and dy/dt on them."""
    velocity = array(velocity)
    ax.streamplot(
        array(grid[0]),
        array(grid[1]),
        velocity[0],
        velocity[1],
        color="0.75",
        density=density,
        linewidth=0.5,
        arrowsize=0.6,
        zorder=0,
    )
    return ax
