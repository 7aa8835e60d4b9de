"""State space: trajectories and fixed points in two or three coordinates."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from ctrnn.plots.style import STABLE, TRAJECTORY, UNSTABLE


def trajectories(
    ax: Axes, xs: Float[Any, "time *batch axis"], *, color: str = TRAJECTORY, label: str | None = None
) -> Axes:
    """Draw paths through two or three coordinates, thin and blue as is the field's habit; `ax` is 3-D for three."""
    paths = np.asarray(xs)
    flat = paths.reshape(paths.shape[0], -1, paths.shape[-1])
    for i in range(flat.shape[1]):
        ax.plot(*flat[:, i].T, color=color, lw=0.5, alpha=0.6, label=label if i == 0 else None, zorder=1)
    return ax


def points(ax: Axes, x: Float[Any, "point axis"], stable: Bool[Any, " point"], *, size: float = 28.0) -> Axes:
    """Draw fixed points: stable ones black and filled, unstable ones red crosses."""
    x, stable = np.asarray(x), np.asarray(stable, dtype=bool)
    # In three dimensions matplotlib would fade what lies behind, and shift the colour that carries the meaning.
    front: dict[str, Any] = {"depthshade": False} if hasattr(ax, "get_zlim") else {}
    for chosen, color, marker, name in ((stable, STABLE, "o", "stable"), (~stable, UNSTABLE, "x", "saddles")):
        if chosen.any():
            style: dict[str, Any] = {"s": size, "color": color, "marker": marker, "lw": 1.0, "zorder": 3, **front}
            ax.scatter(*x[chosen].T, label=f"{name} ({chosen.sum()})", **style)
    return ax


def vector_field(
    ax: Axes, grid: tuple[ArrayLike, ArrayLike], velocity: Float[Any, "2 y x"], *, density: float = 0.9
) -> Axes:
    """Stream lines of a planar flow; `grid` holds the x and y coordinates, `velocity` dx/dt and dy/dt on them."""
    velocity = np.asarray(velocity)
    ax.streamplot(
        np.asarray(grid[0]),
        np.asarray(grid[1]),
        velocity[0],
        velocity[1],
        color="0.75",
        density=density,
        linewidth=0.5,
        arrowsize=0.6,
        zorder=0,
    )
    return ax
