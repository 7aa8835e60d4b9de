"""Eigenvalues in the complex plane, with the boundary of stability, and how slow points are."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Complex, Float
from matplotlib.axes import Axes

from ctrnn.analysis.fixed_points import NEUTRAL
from ctrnn.plots._array import array
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

    Raises:
        ValueError: `kind` is neither.
    """
    values = array(eigenvalues).ravel()
    unstable = is_unstable(values, kind)
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


def is_unstable(eigenvalues: Complex[Any, "*batch"], kind: Literal["flow", "map"]) -> Bool[Any, "*batch"]:
    """Which modes do not decay: on or outside the unit circle for a map, on or right of the imaginary axis for a flow.

    What lies on the boundary to rounding (1e-10) does not decay, as in `FixedPoints.unstable`.

    Raises:
        ValueError: `kind` is neither.
    """
    if kind not in ("flow", "map"):
        raise ValueError(f"kind = {kind!r}: say 'flow' (imaginary axis) or 'map' (unit circle).")
    values = array(eigenvalues)
    return (np.abs(values) - 1 if kind == "map" else values.real) >= -NEUTRAL


def q_histogram(
    ax: Axes, q: Float[Any, " start"], *, limit: float | None = None, color: str = QUIET, label: str | None = None
) -> Axes:
    """How many starts of a search ended at which log10 q, in bins of one decade; `limit` is where points were accepted.

    q = speed^2 / 2 (Sussillo & Barak 2013). What is exactly 0 is counted at the least q that double precision tells
    from it at a speed of one rounding error, 1e-33; what is not finite is left out and counted in the axis label.

    Raises:
        ValueError: the limit is not positive.
    """
    if limit is not None and not limit > 0:
        raise ValueError(f"limit = {limit}: it is drawn at its logarithm, so it must be positive; None leaves it out.")
    values = array(q).ravel()
    finite = np.isfinite(values)
    logs = np.log10(np.maximum(values[finite], 1e-33))
    if len(logs):
        ax.hist(logs, bins=np.arange(np.floor(logs.min()), np.floor(logs.max()) + 2).tolist(), color=color, label=label)
    if limit is not None:
        ax.axvline(np.log10(limit), color=STABLE, lw=0.8, ls="--", label=f"accepted below {limit:.0e}")
    lost = len(values) - int(finite.sum())
    ax.set(xlabel="log$_{10}$ q" + f" ({lost} not finite)" * (lost > 0), ylabel="starts")
    return ax
