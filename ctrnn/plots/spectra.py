"""Eigenvalues in the complex plane, with the boundary of stability."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Complex
from matplotlib.axes import Axes

from ctrnn.plots.style import QUIET, STABLE, UNSTABLE


def spectrum(
    ax: Axes,
    eigenvalues: Complex[Any, " mode"],
    kind: Literal["flow", "map"],
    *,
    size: float = 8.0,
    label: str | None = None,
) -> Axes:
    """Eigenvalues, the unstable ones red.

    The boundary is the unit circle for a map and the imaginary axis for a flow.
    """
    values = np.asarray(eigenvalues).ravel()
    unstable = np.abs(values) >= 1 if kind == "map" else values.real >= 0
    if kind == "map":
        angle = np.linspace(0, 2 * np.pi, 200)
        ax.plot(np.cos(angle), np.sin(angle), color=QUIET, lw=0.7)
        ax.set_aspect("equal")
    else:
        ax.axvline(0, color=QUIET, lw=0.7)
    ax.scatter(values[~unstable].real, values[~unstable].imag, s=size, color=STABLE, label=label)
    ax.scatter(values[unstable].real, values[unstable].imag, s=size, color=UNSTABLE)
    ax.set_xlabel("Re $\\lambda$")
    ax.set_ylabel("Im $\\lambda$")
    return ax
