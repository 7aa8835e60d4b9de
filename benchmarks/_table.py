"""The README's table of what was measured beside what was aimed at."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

BEGIN, END = "<!-- benchmarks: written by `python -m benchmarks` -->", "<!-- end of benchmarks -->"
PASSES = (", forward + backward", ", forward")


def inserted(text: str, rows: Mapping[str, Any]) -> str:
    """The README with a new table between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(rows)}\n{END}{after}"


def table(rows: Mapping[str, Any]) -> str:
    """Markdown; forward and backward of the same work share a line."""
    lines = [f"{where(rows)}\n", "| work | here | beside | ratio | aim | met |", "|---|---|---|---|---|---|"]
    for row in rows.values():
        if row["targets"]:
            lines += [f"| **{row['title']}** | | | | | |", *_lines(row["targets"])]
    return "\n".join(lines)


def where(rows: Mapping[str, Any]) -> str:
    """When, on what, with which versions."""
    first = next(iter(rows.values()))
    machine, dates = first["machine"], sorted({row["date"] for row in rows.values()})
    cores = " or ".join(sorted({str(row["machine"]["cores"]) for row in rows.values()}))
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    return (
        f"Measured {' and '.join(dates)} on {cores} cores of {machine['processor']}, Python "
        f"{machine['python']}, {versions}; medians of alternating runs, compilation excluded. "
        "Two numbers are forward / forward and backward."
    )


def _lines(targets: list[dict]) -> Iterator[str]:
    ordered = sorted(targets, key=lambda t: targets.index(next(o for o in targets if _kind(o) == _kind(t))))
    for (work, limit, at_least), group in groupby(ordered, _kind):
        found = list(group)
        cells = [
            work,
            _both(_number(t["ours"], t["unit"]) for t in found),
            _beside(found),
            _both(_ratio(t["measured"]) for t in found),
            f"{'at least' if at_least else 'at most'} {limit:g}",
            _both("yes" if t["holds"] else "no" for t in found),
        ]
        yield f"| {' | '.join(cells)} |"


def _beside(found: list[dict]) -> str:
    names = list(dict.fromkeys(t["against"] for t in found))
    if len(names) == 1:
        return f"{names[0]} {_both(_number(t['theirs'], t['unit']) for t in found)}".strip()
    return " / ".join(f"{t['against']} {_number(t['theirs'], t['unit'])}" for t in found)


def _kind(target: dict) -> tuple[str, float, bool]:
    """Without forward or backward."""
    work = target["work"]
    for name in PASSES:
        work = work.replace(name, "")
    return work, target["limit"], target["at_least"]


def _both(cells: Iterator[str]) -> str:
    found = list(cells)
    if len(set(found)) == 1:
        return found[0]
    units = {unit for _, _, unit in (cell.partition(" ") for cell in found)}
    if len(units) == 1 and (unit := units.pop()):
        return f"{' / '.join(cell.partition(' ')[0] for cell in found)} {unit}"
    return " / ".join(found)


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"


def _ratio(value: float | None) -> str:
    return (
        "-"
        if value is None
        else f"{value:.1e}"
        if value < 1e-3
        else f"{value:.3g}"
        if value < 1000
        else f"{value:,.0f}"
    )
