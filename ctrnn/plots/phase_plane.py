"""The phase plane: field, nullclines, equilibria by type, basins of attraction and separatrices."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from ctrnn.analysis import Basins, Manifolds, PhasePlane
from ctrnn.plots._array import array, name_axes
from ctrnn.plots.flow import vector_field
from ctrnn.plots.style import INPUT, OUTPUT, STABLE, UNSTABLE

SHADES = ("#cfe4f2", "#fbe6c4", "#d5eedd", "#f3dcea", "#fad7c3", "#e3e0f5", "#e8e8d0")  # of the basins, in order
MARKERS = {"node": "o", "focus": "s", "saddle": "X", "centre": "D", "degenerate": "P"}


def phase_plane(ax: Axes, plane: PhasePlane) -> Axes:
    """Stream lines light grey, nullclines green and violet, equilibria by type.

    Filled black is stable, hollow red unstable; a slice of a larger state space says so in its title.
    """
    vector_field(ax, (plane.x, plane.y), plane.velocity)
    for k, (lines, color) in enumerate(zip(plane.nullclines, (INPUT, OUTPUT), strict=True)):
        for i, line in enumerate(lines):
            name = f"velocity {k + 1} = 0" if plane.is_slice else f"nullcline of unit {k + 1}"
            ax.plot(*array(line).T, color=color, lw=1.2, label=name if i == 0 else None, zorder=2)
    types = array(plane.types)
    for name in dict.fromkeys(plane.types):
        assert plane.equilibria is not None
        x = array(plane.equilibria.x)[types == name] - array(plane.origin)
        stable = name.startswith("stable")
        face = STABLE if stable else "white" if name != "saddle" else UNSTABLE
        marker = next(shape for key, shape in MARKERS.items() if key in name)
        look: dict[str, Any] = {
            "s": 26,
            "marker": marker,
            "facecolor": face,
            "edgecolor": STABLE if stable else UNSTABLE,
        }
        ax.scatter(x[:, 0], x[:, 1], lw=1.0, label=f"{name} ({len(x)})", zorder=4, **look)
    if plane.is_slice:
        lost, kept = np.linalg.norm(array(plane.out_of_plane)), np.linalg.norm(array(plane.velocity))
        share = lost / np.hypot(kept, lost)
        ax.set_title(f"slice: {share:.0%} of the speed (rms) leaves the plane")
    ax.set_xlim(array(plane.x)[[0, -1]])
    ax.set_ylim(array(plane.y)[[0, -1]])
    names = ("along direction 1", "along direction 2") if plane.is_slice else ("$x_1$", "$x_2$")
    moved = " from the origin" if array(plane.origin).any() and not plane.is_slice else ""
    name_axes(ax, names[0] + moved, names[1] + moved)
    return ax


def basins(ax: Axes, found: Basins) -> Axes:
    """One pale colour for each attractor's basin, again from the first after the seventh; white is undecided.

    Raises:
        ValueError: the starts are not a grid (y, x, 2), such as `plane_grid` gives.
    """
    if found.starts.ndim != 3 or found.starts.shape[-1] != 2:
        raise ValueError(f"basins are drawn on a grid (y, x, 2), got starts of shape {tuple(found.starts.shape)}.")
    x, y = array(found.starts[0, :, 0]), array(found.starts[:, 0, 1])
    label = array(found.label)
    shade = np.ma.masked_where(label < 0, label % len(SHADES))
    colors = ListedColormap(SHADES)
    limits: dict[str, Any] = {"vmin": -0.5, "vmax": len(SHADES) - 0.5}
    ax.pcolormesh(x, y, shade, cmap=colors, shading="nearest", zorder=0, rasterized=True, **limits)
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    name_axes(ax, "$x_1$", "$x_2$")
    return ax


def manifolds(ax: Axes, found: Manifolds) -> Axes:
    """The stable manifold, which separates basins, black and dashed, the unstable one red."""
    for lines, color, style, name in (
        (found.stable, STABLE, "--", "stable manifold"),
        (found.unstable, UNSTABLE, "-", "unstable manifold"),
    ):
        for i, line in enumerate(lines):
            known = name in ax.get_legend_handles_labels()[1]
            label = None if known or i else name
            ax.plot(*array(line).T, color=color, ls=style, lw=0.9, label=label, zorder=3, scalex=False, scaley=False)
    name_axes(ax, "$x_1$", "$x_2$")
    return ax
