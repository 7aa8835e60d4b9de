"""Where the heads of an external memory are over time, beside what goes in, what comes out, and what is written."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator

from ctrnn.analysis.weightings import HeadTraces
from ctrnn.plots._array import array
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, TRAJECTORY

WRITTEN, READ = INPUT, OUTPUT  # green and pink, as in Graves et al. (2016)


def weighting(
    ax: Axes,
    weights: Float[Any, "time slot"],
    *,
    dt: float = 1.0,
    slots: tuple[int, int] | None = None,
    cmap: str = "gray",
) -> Axes:
    """Weights from 0 to 1 on each slot over time, slot 0 on top, black where a head is not and white where it is.

    As in Graves, Wayne & Danihelka (2014), arXiv:1410.5401, fig. 6. Also for usage and precedence. Sample k fills
    (k dt, (k + 1) dt].

    Args:
        weights: of one head, in one trial.
        dt: time between samples, in the unit of tau.
        slots: the first to show and the one behind the last, on the ring of slots: (-3, 4) are the last three and the
            first four. All if None.
    """
    values = _two_axes("weights", weights, "(time, slot): choose one head and one trial")
    shown = _window(slots, values.shape[1])
    return _image(ax, values[:, shown].T, dt, shown[0], cmap=cmap, vmin=0, vmax=1)


def vectors(ax: Axes, values: Float[Any, "time channel"], *, dt: float = 1.0, limit: float | None = None) -> Axes:
    """Values of either sign over time, the first channel on top: inputs, outputs, what is added or read.

    Args:
        values: of one trial.
        dt: time between samples, in the unit of tau.
        limit: the colours end at -limit and limit; at the largest |value| if None.
    """
    shown = _two_axes("values", values, "(time, channel): choose one trial")
    bound = float(np.nanmax(np.abs(shown), initial=0)) if limit is None else limit
    _image(ax, shown.T, dt, 0, cmap="RdBu_r", vmin=-(bound or 1), vmax=bound or 1)
    ax.set_yticks([])
    return ax


def heads(
    ax: Axes,
    write: Float[Any, "time slot"],
    read: Float[Any, "time slot"],
    *,
    dt: float = 1.0,
    slots: tuple[int, int] | None = None,
) -> Axes:
    """Where a write head (green) and a read head (pink) are over time, on white; where both are it is dark.

    In the colours of Graves et al. (2016), Nature 538:471-476.

    Raises:
        ValueError: the two are not of one shape.
    """
    green, pink = (_two_axes(n, w, "(time, slot): choose one head") for n, w in (("write", write), ("read", read)))
    if green.shape != pink.shape:
        raise ValueError(f"write {green.shape} and read {pink.shape} are weightings of one memory at the same times.")
    shown = _window(slots, green.shape[1])
    light = np.ones((len(shown), len(green), 3))
    for weights, color in ((green, WRITTEN), (pink, READ)):
        light *= 1 - weights[:, shown].T[..., None].clip(0, 1) * (1 - np.array(to_rgb(color)))
    _image(ax, light, dt, shown[0])
    for name, color in (("write", WRITTEN), ("read", READ)):
        ax.plot([], [], "s", ms=4, color=color, label=name)
    return ax


def gates(ax: Axes, values: Float[Any, "time gate"], names: Sequence[str], *, dt: float = 1.0) -> Axes:
    """Gates from 0 to 1 over time, one line each, constant within a sample.

    Raises:
        ValueError: as many names as gates are needed.
    """
    shown = _two_axes("values", values, "(time, gate)")
    if shown.shape[1] != len(names):
        raise ValueError(f"{shown.shape[1]} gates need as many names, got {len(names)}.")
    edges = dt * np.arange(len(shown) + 1)
    for gate, name, color in zip(shown.T, names, (TRAJECTORY, READ, WRITTEN, QUIET) * len(names), strict=False):
        ax.stairs(gate, edges, baseline=None, color=color, label=name)
    ax.set(xlim=(0, edges[-1]), ylim=(-0.05, 1.05), yticks=[0, 1])
    return ax


def links(ax: Axes, link: Float[Any, "slot slot"]) -> Axes:
    """How much the slot of each row was written right after the slot of each column, at one time, for one head."""
    values = _two_axes("link", link, "(slot, slot): choose one time and one write head")
    ax.imshow(values, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xlabel="slot written before", ylabel="slot written next")
    return ax


def inside_memory(
    axes: Any,
    traces: HeadTraces,
    us: Float[Any, "time input"],
    ys: Float[Any, "time output"],
    *,
    write_head: int = 0,
    read_head: int = 0,
    dt: float = 1.0,
    slots: tuple[int, int] | None = None,
) -> Any:
    """Six panels after Graves et al. (2014), fig. 6: left in, added, write weighting; right out, read, read weighting.

    Args:
        axes: six Axes, row by row, such as `fig.subplots(3, 2, sharex=True)`.
        traces: of one trial, time leads: `analysis.head_traces` of a run without batch axes.
        us, ys: what the network is shown and what it says, as it is to be drawn (probabilities, not log-odds).
        write_head, read_head: the heads to look at.
        dt: time between samples, in the unit of tau.
        slots: as in `weighting`.

    Raises:
        ValueError: there are not six axes, or traces of more than one trial.
    """
    six = np.ravel(axes)
    if len(six) != 6:
        raise ValueError(f"the memory is drawn on six axes, got {len(six)}: pass fig.subplots(3, 2).")
    if traces.write.ndim != 3:
        raise ValueError(
            f"write weightings of shape {tuple(traces.write.shape)}, not (time, head, slot): choose one trial, "
            "such as head_traces(model, run.xs) of a run without batch axes."
        )
    rows = (("input", us, "output", ys), ("added", traces.added[:, write_head], "read", traces.seen[:, read_head]))
    for pair, (left, entering, right, leaving) in zip((six[:2], six[2:4]), rows, strict=True):
        for ax, title, values in zip(pair, (left, right), (entering, leaving), strict=True):
            vectors(ax, values, dt=dt).set_title(title)
    for ax, title, weights in zip(
        six[4:],
        ("write weighting", "read weighting"),
        (traces.write[:, write_head], traces.read[:, read_head]),
        strict=True,
    ):
        weighting(ax, weights, dt=dt, slots=slots).set(title=title, xlabel="time / $\\tau$")
    six[4].set_ylabel("slot")
    return axes


def _image(ax: Axes, values: np.ndarray, dt: float, first: int, **colours: Any) -> Axes:
    rows, columns = values.shape[:2]
    extent = (0, columns * dt, first + rows - 0.5, first - 0.5)
    ax.imshow(values, aspect="auto", extent=extent, interpolation="nearest", **colours)
    ax.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return ax


def _two_axes(name: str, values: Any, what: str) -> np.ndarray:
    given = array(values, float)
    if given.ndim != 2 or not given.size:
        raise ValueError(f"{name} has the shape {given.shape}, not {what}.")
    return given


def _window(slots: tuple[int, int] | None, count: int) -> np.ndarray:
    """The numbers of the slots to show. A negative one counts back from the end, as numpy's do."""
    first, stop = (0, count) if slots is None else slots
    if not (-count <= first < stop <= count and stop - first <= count):
        raise ValueError(f"slots = {slots} is no range of slots (first, behind the last) of a ring of {count}.")
    return np.arange(first, stop)
