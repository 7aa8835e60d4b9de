"""The phase plane: field, nullclines, equilibria by type."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ctrnn.analysis import PhasePlane
from ctrnn.plots.flow import vector_field
from ctrnn.plots.style import INPUT, OUTPUT, STABLE, UNSTABLE

MARKERS = {"node": "o", "focus": "s", "saddle": "X", "centre": "D", "degenerate": "P"}


def phase_plane(ax: Axes, plane: PhasePlane) -> Axes:
    """Stream lines light grey, nullclines green and violet, equilibria by type.

    Filled black is stable, hollow red unstable; a slice of a larger state space says so in its title.
    """
    vector_field(ax, (plane.x, plane.y), plane.velocity)
    for k, (lines, color) in enumerate(zip(plane.nullclines, (INPUT, OUTPUT), strict=True)):
        for i, line in enumerate(lines):
            name = f"velocity {k + 1} = 0" if plane.is_slice else f"nullcline of unit {k + 1}"
            ax.plot(*line.numpy().T, color=color, lw=1.2, label=name if i == 0 else None, zorder=2)
    types = np.asarray(plane.types)
    for name in dict.fromkeys(plane.types):
        assert plane.equilibria is not None
        x = plane.equilibria.x.numpy()[types == name] - plane.origin.numpy()
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
        share = float(plane.out_of_plane.norm() / plane.velocity.norm().hypot(plane.out_of_plane.norm()))
        ax.set_title(f"slice: {share:.0%} of the speed (rms) leaves the plane")
    ax.set_xlim(float(plane.x[0]), float(plane.x[-1]))
    ax.set_ylim(float(plane.y[0]), float(plane.y[-1]))
    return ax
