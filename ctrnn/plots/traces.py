"""Values over time."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from matplotlib.axes import Axes

from ctrnn.plots._array import array
from ctrnn.plots.style import OUTPUT, TARGET


def stacked(
    ax: Axes,
    ts: Float[Any, " time"],
    values: Float[Any, "time channel"],
    *,
    color: str,
    gap: float = 2.5,
    label: str | None = None,
    lw: float = 1.0,
    drawstyle: str = "default",
) -> Axes:
    """Channels one below the other, `gap` apart, the first on top."""
    ts, values = array(ts), array(values)
    for i in range(values.shape[1]):
        ax.plot(ts, values[:, i] - gap * i, color=color, lw=lw, drawstyle=drawstyle, label=label if i == 0 else None)
    return ax


def outputs(
    ax: Axes,
    ts: Float[Any, " time"],
    ys: Float[Any, "time channel"],
    targets: Float[Any, "time channel"],
    *,
    gap: float = 2.5,
    names: Sequence[str] = (),
) -> Axes:
    """What a network says beside what it should say."""
    stacked(ax, ts, targets, color=TARGET, gap=gap, label="target", lw=2.0)
    stacked(ax, ts, ys, color=OUTPUT, gap=gap, label="output")
    ax.set_yticks(
        [-gap * i for i in range(array(ys).shape[1])],
        list(names) or [f"{i + 1}" for i in range(array(ys).shape[1])],
    )
    ax.set_xlabel("time / $\\tau$")
    return ax


def convergence(
    ax: Axes,
    dt: Float[Any, " step"],
    error: Float[Any, " step"],
    *,
    label: str,
    marker: str = "o",
    color: str | None = None,
) -> Axes:
    """An error against the step, both logarithmic."""
    ax.loglog(array(dt), array(error), marker=marker, ms=3, lw=0.9, label=label, color=color)
    return ax
