"""Every benchmark, each in a process of its own: `python -m benchmarks`, about a quarter of an hour on two cores.

Writes figures/benchmarks.json, the figure and the README's table; with --quick it only tries every script, in seconds.
The machine must have nothing else to do: a thread that waits at a barrier for one without a core waits long.
The exit status says whether every script ran and its tools agreed, not who was faster.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import _figure, _table

HOME = Path(__file__).parents[1]
RECORD, FIGURE, README = HOME / "figures/benchmarks.json", HOME / "figures/benchmarks.png", HOME / "README.md"
ROWS = (
    "fixed_step",
    "gated",
    "adaptive_forward",
    "adaptive_gradient",
    "work_precision",
    "long_window",
    "dnc_training_step",
    "own_model",
    "import_time",
    "scaling",
    "lyapunov",
    "fixed_points",
)


def measured(name: str, quick: bool, threads: int | None) -> dict | None:
    """What a script found; None if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "row.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(file)]
        command += ["--quick"] * quick + (["--threads", str(threads)] if threads else [])
        failed = subprocess.run(command, cwd=HOME).returncode
        return None if failed else json.loads(file.read_text())


def draw(rows: dict[str, dict]) -> None:
    """The figure and the README's table, from what was measured."""
    _figure.draw(rows).savefig(FIGURE, dpi=150)
    README.write_text(_table.inserted(README.read_text(encoding="utf-8"), rows), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is written")
    parser.add_argument("--threads", type=int, help="cores that every tool may use; all by default")
    parser.add_argument("--draw", action="store_true", help="figure and table from what was measured before")
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"some of {', '.join(ROWS)}; the others stay as they were"
    )
    arguments = parser.parse_args()
    if arguments.draw:
        draw(json.loads(RECORD.read_text()))
        return 0
    found = {name: measured(name, arguments.quick, arguments.threads) for name in arguments.rows or ROWS}
    done = {name: row for name, row in found.items() if row is not None}
    if not arguments.quick:
        before = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        rows = {name: done.get(name) or before.get(name) for name in ROWS}
        kept = {name: row for name, row in rows.items() if row is not None}
        RECORD.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        draw(kept)
    for name in found.keys() - done.keys():
        print(f"benchmarks.{name} failed", file=sys.stderr)
    return int(len(done) < len(found))


if __name__ == "__main__":
    sys.exit(main())
