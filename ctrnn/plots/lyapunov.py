"""Lyapunov exponents: the spectrum, and how the estimate settled."""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from ctrnn.plots._array import array
from ctrnn.plots.style import CYCLE, QUIET


def exponents(
    ax: Axes,
    values: Float[Any, " k"],
    *,
    size: int | None = None,
    label: str | None = None,
    color: str | None = None,
) -> Axes:
    """The exponents, greatest first, against i / N with a dotted line at zero; N is `size`, or how many there are.

    Raises:
        ValueError: the exponents are not those of one run.
    """
    values = array(values)
    if values.ndim != 1:
        raise ValueError(f"values must be the exponents (k,) of one run, got the shape {values.shape}: pick a row.")
    n = len(values) if size is None else size
    marker = "o" if len(values) <= 20 else None
    ax.axhline(0, color=QUIET, ls=":", lw=0.8, zorder=0)
    ax.plot(np.arange(1, len(values) + 1) / n, values, marker=marker, ms=3, label=label, color=color)
    ax.set(xlabel="$i\\,/\\,N$", ylabel="Lyapunov exponent (1/$\\tau$)")
    return ax


def running_exponents(
    ax: Axes,
    ts: Float[Any, " interval"],
    history: Float[Any, "interval k"],
    standard_error: Float[Any, " k"] | None = None,
) -> Axes:
    """The running estimate of each exponent over time, and a band of two standard errors about where it ended.

    Raises:
        ValueError: the arrays are not those of one run.
    """
    ts, history = array(ts), array(history)
    if history.ndim != 2 or len(history) != len(ts):
        raise ValueError(
            f"history must be (interval, k) of one run with {len(ts)} intervals as ts has, got {history.shape}."
        )
    k = history.shape[1]
    errors = None if standard_error is None else array(standard_error)
    if errors is not None and errors.shape != (k,):
        raise ValueError(f"standard_error must hold {k} numbers, one for each exponent, got the shape {errors.shape}.")
    ax.axhline(0, color=QUIET, ls=":", lw=0.8, zorder=0)
    for i in range(k):
        color, end = CYCLE[i % len(CYCLE)], history[-1, i]
        ax.plot(ts, history[:, i], color=color, label=f"$\\lambda_{{{i + 1}}}$")
        if errors is not None:
            ax.fill_between(ts[[0, -1]], end - 2 * errors[i], end + 2 * errors[i], color=color, alpha=0.2, lw=0)
    ax.set(xlabel="time / $\\tau$", ylabel="running estimate (1/$\\tau$)")
    return ax
