"""Distances between networks, and trajectories coloured by what happens along them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from ctrnn.plots._array import array
from ctrnn.plots.style import CYCLE


def distance_matrix(ax: Axes, distances: Float[Any, "n n"], groups: Sequence[str], *, label: str = "distance") -> Axes:
    """Distances between networks, in the order given, with a line between groups and a colour bar.

    Raises:
        ValueError: as many groups as rows are needed.
    """
    values = array(distances, float)
    if values.shape != (len(groups), len(groups)):
        raise ValueError(f"distances must be ({len(groups)}, {len(groups)}) for as many groups, got {values.shape}.")
    image = ax.imshow(values, cmap="viridis", interpolation="nearest")
    edges = [i for i in range(1, len(groups)) if groups[i] != groups[i - 1]]
    for edge in edges:
        ax.axhline(edge - 0.5, color="white", lw=0.8)
        ax.axvline(edge - 0.5, color="white", lw=0.8)
    bounds = [0, *edges, len(groups)]
    middles = [(a + b - 1) / 2 for a, b in pairwise(bounds)]
    names = [groups[a] for a in bounds[:-1]]
    ax.set_xticks(middles, names, rotation=45, ha="right")
    ax.set_yticks(middles, names)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.figure.colorbar(image, ax=ax, label=label, shrink=0.8)
    return ax


def by_group(
    ax: Axes, places: Float[Any, "n 2"], groups: Sequence[str], *, names: tuple[str, str] = ("axis 1", "axis 2")
) -> Axes:
    """Points of a plane, such as a scaling of distances, one colour and marker for each group; axes of one scale.

    Raises:
        ValueError: there is not one group for each point.
    """
    places = array(places)
    if places.shape != (len(groups), 2):
        raise ValueError(f"places must be ({len(groups)}, 2) for as many groups, got {places.shape}.")
    for k, name in enumerate(dict.fromkeys(groups)):
        mine = np.array([group == name for group in groups])
        ax.scatter(
            places[mine, 0], places[mine, 1], s=22, color=CYCLE[k % len(CYCLE)], marker="os^Dv<>"[k % 7], label=name
        )
    ax.set(xlabel=names[0], ylabel=names[1])
    ax.set_aspect("equal", adjustable="datalim")
    ax.locator_params(nbins=4)
    return ax


def coloured_path(
    ax: Axes,
    path: Float[Any, "time 2"],
    values: Float[Any, " time"],
    *,
    label: str,
    limits: tuple[float, float] | None = None,
) -> Axes:
    """A path in the plane coloured by a value along it, such as the speed or the phase, with a colour bar.

    Raises:
        ValueError: there must be one value for each point of the path.
    """
    path, values = array(path, float), array(values, float)
    if path.ndim != 2 or path.shape != (len(values), 2):
        raise ValueError(f"path must be (time, 2) with one value for each point, got {path.shape} and {values.shape}.")
    pieces = np.stack([path[:-1], path[1:]], 1)
    lines = LineCollection(list(pieces), cmap="viridis", lw=1.0)
    lines.set_array((values[:-1] + values[1:]) / 2)
    lines.set_clim(*(limits or (np.nanmin(values), np.nanmax(values))))
    ax.add_collection(lines)
    ax.autoscale()
    ax.figure.colorbar(lines, ax=ax, label=label, shrink=0.8)
    return ax
