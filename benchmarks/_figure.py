"""The figure: every tool on every work, on logarithmic axes, with the line that the aims draw."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.fixed_step import BOTH, FORWARD, LIMIT
from ctrnn import plots
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, STABLE, TARGET, TRAJECTORY, UNSTABLE

# By the first words of a tool's name: its legend, colour and mark.
LOOK = {
    "ctrnn.plain": ("ctrnn without kernels", TRAJECTORY, "x"),
    "ctrnn Dopri5": ("ctrnn Dopri5", TRAJECTORY, "^"),
    "ctrnn Rodas4": ("ctrnn Rodas4", TRAJECTORY, "s"),
    "ctrnn, compile": ("ctrnn, compile=True", TRAJECTORY, "+"),
    "ctrnn": ("ctrnn", TRAJECTORY, "o"),
    "torch loop": ("loop in torch", UNSTABLE, "x"),
    "torch.nn": ("torch.nn", UNSTABLE, "o"),
    "torchdiffeq": ("torchdiffeq", TARGET, "o"),
    "torchode": ("torchode", TARGET, "^"),
    "jax": ("jax", INPUT, "o"),
    "diffrax Kvaerno5": ("diffrax Kvaerno5", INPUT, "s"),
    "diffrax Dopri8": ("diffrax Dopri8", INPUT, "v"),
    "diffrax": ("diffrax", INPUT, "^"),
    "BrainPy": ("BrainPy", INPUT, "x"),
    "scipy LSODA": ("scipy LSODA", OUTPUT, "^"),
    "scipy BDF": ("scipy BDF", OUTPUT, "s"),
    "scipy DOP853": ("scipy DOP853", OUTPUT, "v"),
    "scipy": ("scipy RK45", OUTPUT, "o"),
    "CVODE BDF": ("CVODE BDF", "#56B4E9", "s"),
    "CVODE": ("CVODE Adams", "#56B4E9", "o"),
    LIMIT: ("T matrix products + a pass", QUIET, "_"),
}
NAMES = {FORWARD: "forward", BOTH: "gradient"}
OTHERS = {  # and what their works are
    "long_window": "",
    "dnc_training_step": "",
    "lyapunov": "Lyapunov ",
    "fixed_points": "fixed points ",
    "import_time": "",
}
NAMED = 0.6  # of the width of the other aims: their names
AIM = {"color": STABLE, "lw": 1.4, "solid_capstyle": "butt"}


def look(tool: str) -> tuple[str, str, str]:
    return next((found for start, found in LOOK.items() if tool.startswith(start)), (tool, QUIET, "o"))


def points(ax: Axes, row: Mapping[str, Any], cases: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Axes:
    """Milliseconds of every tool for each case; a bar where all aims for the time of the first tool are met."""
    for k, case in enumerate(cases):
        ours = next(iter(case["ms"]))
        for tool, ms in reversed(case["ms"].items()):
            _, color, mark = look(tool)
            ax.plot(k, ms, mark, color=color, ms=5 if tool == ours else 3.5, zorder=3 if tool == ours else 2)
        aims = [_aim(case["ms"][ours], t) for t in row["targets"] if t["work"] == case["work"] and t["unit"] == "ms"]
        if aims:
            ax.plot([k - 0.35, k + 0.35], [min(aims)] * 2, **AIM)
    ax.set_xticks(range(len(cases)), labels)
    ax.set_xlim(-0.6, len(cases) - 0.4)
    ax.set_yscale("log")
    ax.set_title(row["title"].partition(",")[0])
    return ax


def _aim(ours: float, target: Mapping[str, Any]) -> float:
    return ours * (target["measured"] / target["limit"] if target["at_least"] else target["limit"] / target["measured"])


def sizes(*names: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda case: "\n".join(str(case["at"][name]) for name in names if name in case["at"])


def error_against_time(ax: Axes, cases: Sequence[Mapping[str, Any]]) -> Axes:
    """One line for each tool, a point for each tolerance."""
    for tool in cases[0]["ms"]:
        _, color, mark = look(tool)
        errors, times = zip(*((case["difference"][tool], case["ms"][tool]) for case in cases), strict=True)
        ax.plot(times, errors, mark, ls="-", color=color, ms=3, lw=0.8, zorder=3 if tool.startswith("ctrnn") else 2)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="ms",
        ylabel="error",
        title=f"Error, {cases[0]['at']['network']}",
    )
    return ax


def growth(ax: Axes, axis: str, cases: Sequence[Mapping[str, Any]]) -> Axes:
    """A training step along one axis."""
    for tool in cases[0]["ms"]:
        _, color, mark = look(tool)
        ax.plot([c["at"][axis] for c in cases], [c["ms"][tool] for c in cases], mark, ls="-", color=color, ms=3, lw=0.8)
    rest = ", ".join(f"{k} = {v}" for k, v in cases[0]["at"].items() if k in "NBT" and k != axis)
    ax.set(xscale="log", yscale="log", xlabel=axis, ylabel="ms", title=f"Training step, {rest}")
    return ax


def draw(rows: Mapping[str, Any]) -> Figure:
    """What was measured of all rows; rows that were not measured stay empty."""
    with plots.style():
        figure = Figure(figsize=(plots.DOUBLE, 9.6))
        axes = figure.subplots(4, 3)
        _fixed(axes[0], rows)
        _others(axes[1], axes[2, 2], rows)
        for ax, name in zip(axes[2], _networks(rows), strict=False):
            error_against_time(ax, [c for c in rows["work_precision"]["cases"] if c["at"]["network"] == name])
        for ax, axis in zip(axes[3], "NBT", strict=True):
            cases = [c for c in rows.get("scaling", {"cases": []})["cases"] if c["at"]["along"] == axis]
            if cases:
                growth(ax, axis, cases)
        figure.legend(handles=_legend(rows), loc="outside lower center", ncols=5)
    return figure


def _networks(rows: Mapping[str, Any]) -> list[str]:
    cases = rows["work_precision"]["cases"] if "work_precision" in rows else []
    return list(dict.fromkeys(case["at"]["network"] for case in cases))


def _fixed(axes: Sequence[Axes], rows: Mapping[str, Any]) -> None:
    for ax, which in zip(axes, (FORWARD, BOTH), strict=False):
        if row := rows.get("fixed_step"):
            cases = [case for case in row["cases"] if case["at"]["pass"] == which]
            points(ax, row, cases, list(map(sizes("N", "B", "T"), cases)))
            ax.set(title=f"Fixed steps, {NAMES[which]}", ylabel="ms", xlabel="N, B, T")
    if row := rows.get("gated"):
        cases = [case for case in row["cases"] if case["at"]["pass"] == BOTH]
        points(axes[2], row, cases, list(map(sizes("network", "N", "B", "T"), cases)))
        axes[2].set(title=f"Gated units, {NAMES[BOTH]}", ylabel="ms")


def _others(axes: Sequence[Axes], last: Axes, rows: Mapping[str, Any]) -> None:
    for ax, name in zip(axes, ("adaptive_forward", "adaptive_gradient"), strict=False):
        if row := rows.get(name):
            points(ax, row, row["cases"], list(map(sizes("N", "B"), row["cases"])))
            ax.set(title=f"Adaptive steps, {name.removeprefix('adaptive_')}", ylabel="ms", xlabel="N, B")
    if row := rows.get("own_model"):
        cases = [case for case in row["cases"] if case["at"]["pass"] == BOTH]
        names = [
            f"{case['at']['method'].removeprefix('chunks of ').partition(' ')[0]}\n{case['at']['B']}" for case in cases
        ]
        points(axes[2], row, cases, names)
        axes[2].set(title=f"A user's model, {NAMES[BOTH]}", ylabel="ms", xlabel="method, B")
    found = [(what, target) for name, what in OTHERS.items() if name in rows for target in rows[name]["targets"]]
    further(last, [target for _, target in found], [what + _short(target) for what, target in found])


def further(ax: Axes, targets: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Axes:
    """By how much each aim is met, on the right of 1, or missed."""
    for k, (target, name) in enumerate(reversed([*zip(targets, names, strict=True)])):
        beyond = target["measured"] / target["limit"]
        ax.plot(beyond if target["at_least"] else 1 / beyond, k, "o", color=TRAJECTORY)
        # Inside the axes: labels beside them would take a third of the width.
        ax.annotate(name, (0.02, k), xycoords=("axes fraction", "data"), va="center", fontsize="small")
    ax.axvline(1, **AIM)
    ax.set(xscale="log", yticks=[], xlabel="ratio / aim", title="Other aims, met right of the line")
    ax.margins(x=0.1)
    low, high = map(math.log10, ax.get_xlim())
    ax.set_xlim(10 ** (high - (high - low) / (1 - NAMED)), None)
    return ax


def _short(target: Mapping[str, Any]) -> str:
    """What was measured, without sizes and particulars."""
    parts = [part for part in target["work"].split(", ") if " = " not in part]
    return " ".join(parts[: 2 if "compiled" in parts else 1]).removeprefix("peak ") or "time of Recompute"


def _legend(rows: Mapping[str, Any]) -> list[Line2D]:
    tools = dict.fromkeys(look(tool) for row in rows.values() for case in row["cases"] for tool in case["ms"])
    marks = [
        Line2D([], [], marker=mark, color=color, ls="", label=name)
        for name, color, mark in LOOK.values()
        if (name, color, mark) in tools
    ]
    return [*marks, Line2D([], [], label="where our aims lie", **AIM)]
