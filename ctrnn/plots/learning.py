"""What training ended with: scores over networks and seeds, scores along a sweep, and how a sequence was read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from ctrnn.plots._array import array


def by_seed(ax: Axes, scores: Mapping[str, Float[Any, " seed"]], colors: Sequence[str]) -> Axes:
    """One row per network, the first on top: a dot for each seed, a bar at their mean."""
    for row, (name, color) in enumerate(zip(scores, colors, strict=True)):
        values = array(scores[name], float)
        ax.plot([values.mean()] * 2, [row - 0.3, row + 0.3], color=color, lw=2.5, solid_capstyle="butt")
        ax.plot(values, np.full(len(values), row), "o", ms=4, color=color, mec="white", mew=0.5, zorder=3)
    ax.set_yticks(range(len(scores)), list(scores))
    ax.set_ylim(len(scores) - 0.5, -0.5)
    return ax


def sweep(
    ax: Axes,
    x: Float[Any, " place"],
    scores: Float[Any, "seed place"],
    *,
    label: str,
    color: str,
    marker: str = "o",
    ls: str = "-",
) -> Axes:
    """The mean over seeds along x, and the range from the lowest to the highest seed."""
    x, scores = array(x), array(scores, float)
    ax.fill_between(x, scores.min(0), scores.max(0), color=color, alpha=0.15, lw=0)
    ax.plot(x, scores.mean(0), marker=marker, ms=3.5, ls=ls, color=color, label=label)
    return ax


def heat(
    ax: Axes, values: Float[Any, "time row"], dt: float, *, cmap: str = "Greys", names: Sequence[str] | None = None
) -> Axes:
    """Values in [0, 1] over time, the first row on top; sample k fills (k dt, (k + 1) dt]. `names` label the rows."""
    values = array(values, float)
    rows = values.shape[1]
    extent = (0, len(values) * dt, rows - 0.5, -0.5)
    ax.imshow(values.T, aspect="auto", cmap=cmap, vmin=0, vmax=1, extent=extent, interpolation="nearest")
    ax.set_yticks([] if names is None else range(rows), [] if names is None else list(names))
    return ax
