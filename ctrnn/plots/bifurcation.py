"""Bifurcation diagrams: equilibria and cycles against a parameter, with the customary markers.

Solid lines are stable and dashed grey ones unstable; a cycle is drawn by its greatest and least value.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ctrnn.analysis import (
    Branch,
    BranchPoint,
    CycleBranch,
    CycleBranchPoint,
    CycleFold,
    Flip,
    Fold,
    Hopf,
    NeimarkSacker,
    PeriodDoubling,
    Torus,
)
from ctrnn.plots._array import array, name_axes
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, STABLE, TARGET, TRAJECTORY, UNSTABLE

# Marker, colour and name of each kind of point; the shapes are those of PyCoBi and XPPAUT's users.
MARKERS: dict[type, tuple[str, str, str]] = {
    Fold: ("v", QUIET, "fold"),
    Hopf: ("o", INPUT, "Hopf"),
    Flip: ("h", UNSTABLE, "flip"),
    NeimarkSacker: ("o", TRAJECTORY, "Neimark-Sacker"),
    BranchPoint: ("D", TARGET, "branch point"),
    CycleFold: ("^", OUTPUT, "fold of cycles"),
    CycleBranchPoint: ("d", TARGET, "crossing of cycles"),
    PeriodDoubling: ("h", UNSTABLE, "period doubling"),
    Torus: ("s", TRAJECTORY, "torus"),
}


def equilibria(ax: Axes, branch: Branch, unit: int = 0, *, label: str | None = None, color: str = STABLE) -> Axes:
    """One coordinate of a branch of equilibria, and its special points, against the parameter.

    Raises:
        TypeError: this is no branch of equilibria.
        ValueError: the state has no such coordinate.
    """
    _check_kind(branch, Branch, "equilibria")
    _check(branch.x.shape[-1], unit)
    _line(ax, branch.parameter, branch.x[:, unit], branch.stable, color, label)
    for point in branch.points:
        _mark(ax, type(point), point.parameter, float(point.x[unit]))
    name_axes(ax, "parameter", _coordinate(branch.x.shape[-1], unit))
    return ax


def cycles(ax: Axes, branch: CycleBranch, unit: int = 0, *, label: str | None = None, color: str = TRAJECTORY) -> Axes:
    """The greatest and the least value of one coordinate on each cycle, and special points, against the parameter.

    Raises:
        TypeError: this is no branch of cycles.
        ValueError: the state has no such coordinate.
    """
    _check_kind(branch, CycleBranch, "cycles")
    _check(branch.orbits.shape[-1], unit)
    values = branch.orbits[:, :, unit]
    _line(ax, branch.parameter, values.amax(1), branch.stable, color, label)
    _line(ax, branch.parameter, values.amin(1), branch.stable, color, None)
    for point in branch.points:
        _mark(ax, type(point), point.parameter, float(point.orbit[:, unit].max()))
    name_axes(ax, "parameter", _coordinate(branch.orbits.shape[-1], unit))
    return ax


def period(ax: Axes, branch: CycleBranch, *, label: str | None = None, color: str = TRAJECTORY) -> Axes:
    """The period of each cycle, and special points, against the parameter.

    Raises:
        TypeError: this is no branch of cycles.
    """
    _check_kind(branch, CycleBranch, "period")
    _line(ax, branch.parameter, branch.period, branch.stable, color, label)
    for point in branch.points:
        _mark(ax, type(point), point.parameter, point.period)
    name_axes(ax, "parameter", "period / $\\tau$")
    return ax


def _check_kind(branch: Any, kind: type, function: str) -> None:
    names = {Branch: "equilibria", CycleBranch: "cycles"}
    if not isinstance(branch, kind):
        instead = f": plots.{names[type(branch)]} draws that" if type(branch) in names else ""
        raise TypeError(
            f"plots.{function} draws a {kind.__name__}, what analysis.continue_{names[kind]} returns, "
            f"got {type(branch).__name__}{instead}."
        )


def _coordinate(size: int, unit: int) -> str:
    return f"$x_{{{unit % size + 1}}}$"


def _check(size: int, unit: int) -> None:
    if not -size <= unit < size:
        raise ValueError(f"unit = {unit}: the state of this branch has the coordinates 0 to {size - 1}.")


def _mark(ax: Axes, kind: type, x: float, y: float) -> None:
    marker, color, name = MARKERS[kind]
    known = ax.get_legend_handles_labels()[1]
    style: dict[str, Any] = {"marker": marker, "color": color, "mec": "black", "mew": 0.5, "ms": 5, "ls": "none"}
    ax.plot([x], [y], label=None if name in known else name, zorder=4, **style)


def _line(ax: Axes, parameter: Any, values: Any, stable: Any, color: str, label: str | None) -> None:
    x, y = array(parameter), array(values)
    for part, is_stable in _runs(array(stable, bool)):
        style: dict[str, Any] = {"color": color, "ls": "-", "lw": 1.2} if is_stable else {"color": QUIET, "ls": "--"}
        name, label = (label, None) if is_stable else (None, label)
        ax.plot(x[part], y[part], label=name, zorder=2, **style)


def _runs(stable: Any) -> Iterator[tuple[slice, bool]]:
    """Stretches of equal stability; each reaches to the first point of the next, so that the line has no gap."""
    edges = [0, *(np.flatnonzero(np.diff(stable)) + 1).tolist(), len(stable)]
    for begin, end in pairwise(edges):
        yield slice(begin, end + 1), bool(stable[begin])
