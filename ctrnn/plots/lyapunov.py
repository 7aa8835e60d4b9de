"""Lyapunov exponents: the spectrum, and how the estimate settled."""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from ctrnn.plots.style import CYCLE, QUIET


def exponents(
    ax: Axes,
    values: Float[Any, " k"],
    *,
    size: int | None = None,
    label: str | None = None,
    color: str | None = None,
) -> Axes:
    """The exponents, greatest first, against i / N with a dotted line at zero; N is `size`, or how many there are."""
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"values must be the exponents (k,) of one run, got the shape {values.shape}: pick a row.")
    n = len(values) if size is None else size
    marker = "o" if len(values) <= 20 else None
    ax.axhline(0, color=QUIET, ls=":", lw=0.8, zorder=0)
    ax.plot(np.arange(1, len(values) + 1) / n, values, marker=marker, ms=3, label=label, color=color)
    ax.set(xlabel="$i\\,/\\,N$", ylabel="Lyapunov exponent / (1 / $\\tau$)")
    return ax


def running_exponents(
    ax: Axes,
    ts: Float[Any, " interval"],
    history: Float[Any, "interval k"],
    standard_error: Float[Any, " k"] | None = None,
) -> Axes:
    """The running estimate of each exponent over time, with a bar of two standard errors at the end."""
    ts, history = np.asarray(ts), np.asarray(history)
    if history.ndim != 2 or len(history) != len(ts):
        raise ValueError(
            f"history must be (interval, k) of one run with {len(ts)} intervals as ts has, got {history.shape}."
        )
    errors = None if standard_error is None else 2 * np.asarray(standard_error)
    ax.axhline(0, color=QUIET, ls=":", lw=0.8, zorder=0)
    for i in range(history.shape[1]):
        color = CYCLE[i % len(CYCLE)]
        ax.plot(ts, history[:, i], color=color, label=f"$\\lambda_{{{i + 1}}}$")
        if errors is not None:
            ax.errorbar(ts[-1], history[-1, i], errors[i], color=color, capsize=2, lw=1.2)
    ax.set(xlabel="time / $\\tau$", ylabel="running estimate / (1 / $\\tau$)")
    return ax
