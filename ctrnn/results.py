"""What a scenario hands back: claims, each measured against its source, and the figure that shows them."""

import dataclasses
import importlib.metadata
import inspect
import io
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, Self

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from ctrnn._files import atomic_write
from ctrnn.cli import interruptible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["exact", "statistical"]
PACKAGES = ("ctrnn-sim", "torch", "numpy", "scipy", "torchdiffeq", "scikit-learn", "matplotlib", "safetensors")


@dataclass(frozen=True)
class Claim:
    """A sentence, the number measured for it, what was expected and by whom.

    An `exact` claim (an equation, an identity, an oracle) decides the exit status of its scenario; a `statistical` one
    (training succeeded in k of n seeds, A beat B) is reported as found. `planned` and `reason` belong to a claim that
    was changed after results were seen: what it was, and why it changed.

    Raises:
        ValueError: the kind is unknown, a NaN is said to hold, or only one of `planned` and `reason` is given.
    """

    text: str
    kind: Kind
    measured: Any
    expected: Any
    tolerance: float | None
    source: str
    holds: bool
    planned: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("exact", "statistical"):
            raise ValueError(f"claim {self.text!r} is of kind {self.kind!r}: say 'exact' or 'statistical'")
        if not self.text or not self.source:
            raise ValueError(f"claim {self.text!r} with source {self.source!r}: give both in words")
        if not isinstance(self.holds, bool):
            raise ValueError(f"claim {self.text!r} holds={self.holds!r}: say True or False")
        if self.holds and _has_nan(self.measured):
            raise ValueError(f"claim {self.text!r} measured NaN, which never holds")
        if (self.planned is None) != (self.reason is None):
            raise ValueError(f"claim {self.text!r} was changed: give both what was planned and the reason")

    @classmethod
    def near(
        cls, text: str, measured: Any, expected: float, tolerance: float, source: str, kind: Kind = "exact"
    ) -> Self:
        """The number lies within `tolerance` (absolute) of the expected one."""
        number, target = _plain(measured), _plain(expected)
        return cls(text, kind, number, target, tolerance, source, bool(abs(number - target) <= tolerance))

    @classmethod
    def below(cls, text: str, measured: Any, limit: float, source: str, kind: Kind = "exact") -> Self:
        """The number is smaller than `limit`."""
        number = _plain(measured)
        return cls(text, kind, number, f"below {limit:.10g}", None, source, bool(number < limit))

    @classmethod
    def at_least(cls, text: str, measured: Any, limit: float, source: str, kind: Kind = "exact") -> Self:
        """The number is `limit` or greater."""
        number = _plain(measured)
        return cls(text, kind, number, f"at least {limit:.10g}", None, source, bool(number >= limit))

    @classmethod
    def equal(cls, text: str, measured: Any, expected: Any, source: str, kind: Kind = "exact") -> Self:
        """The value (a count, a word, a list) is the expected one, bit for bit."""
        value, target = _plain(measured), _plain(expected)
        return cls(text, kind, value, target, 0.0, source, value == target and not _has_nan(value))


class Result(NamedTuple):
    """What `run` of a scenario returns."""

    figure: "Figure"
    claims: Sequence[Claim]


class Written(NamedTuple):
    """The two files of a result; `kept_full` when a quick run stepped aside for what a full run had written."""

    figure: Path
    record: Path
    kept_full: bool


def write(
    result: Result,
    name: str,
    title: str,
    parameters: Mapping[str, Any],
    seed: int,
    wall_time: float,
    folder: str | os.PathLike = "figures",
) -> Written:
    """Write NAME.png and NAME.json, each whole or not at all; `parameters` says whether the run was quick.

    A quick run never overwrites what a full run wrote: its files then go to the subfolder `quick`.
    """
    quick = bool(parameters["quick"])
    target = Path(folder)
    kept_full = quick and _holds_full_run(target / f"{name}.json")
    if kept_full:
        target = target / "quick"
    record = {
        "title": title,
        "parameters": dict(parameters),
        "seed": seed,
        "versions": environment(),
        "wall_time_s": round(wall_time, 2),
        "claims": [_record(claim) for claim in result.claims],
    }
    text = json.dumps(_strict(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    image = io.BytesIO()
    result.figure.savefig(image, format="png", dpi=150)
    target.mkdir(parents=True, exist_ok=True)
    written = Written(target / f"{name}.png", target / f"{name}.json", kept_full)
    atomic_write(written.figure, image.getvalue())
    atomic_write(written.record, text.encode())
    return written


def environment() -> dict[str, str | int]:
    """The versions, the machine, the threads and the kernels that numbers may depend on."""
    import torch  # the command line lists and shows scenarios without it

    from ctrnn.native.library import instruction_set, missing

    versions: dict[str, str | int] = {"ctrnn" if name == "ctrnn-sim" else name: version(name) for name in PACKAGES}
    return versions | {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "kernels": instruction_set() or f"none, plain torch path: {missing()}",
    }


def version(distribution: str = "ctrnn-sim") -> str:
    """The installed version of a distribution."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def claims_table(claims: Sequence[Claim]) -> Table:
    """The claims as a table for a terminal."""
    table = Table("", title="Claims", show_lines=True)
    table.add_column("claim", ratio=1, min_width=24)
    table.add_column("kind", no_wrap=True)
    table.add_column("measured", max_width=15)
    table.add_column("expected", max_width=15)
    for claim in claims:
        mark = Text("holds", "green") if claim.holds else Text("fails", "red" if claim.kind == "exact" else "yellow")
        text = Text.assemble(claim.text, "\n", (claim.source, "dim"))
        tolerance = f" ± {claim.tolerance:g}" if claim.tolerance else ""
        table.add_row(mark, text, *map(Text, (claim.kind, _short(claim.measured), _short(claim.expected) + tolerance)))
    return table


def exit_status(claims: Sequence[Claim]) -> int:
    """0 if every exact claim holds, else 1; statistical claims do not decide."""
    return int(any(claim.kind == "exact" and not claim.holds for claim in claims))


# Bars exist only while a command runs on a terminal: called from Python, a scenario is silent.
_bars: Progress | None = None


def progress(total: float, label: str) -> Callable[[float], None]:
    """A callback `report(done)` for long work of `total` parts: a bar on the command line, nothing from Python.

    With `total=1` it takes fractions, which is what `integrate(progress=)` reports.
    """
    if _bars is None:
        return lambda done: None
    bars, task = _bars, _bars.add_task(label, total=total)
    return lambda done: bars.update(task, completed=done)


@contextmanager
def _showing_progress() -> Iterator[None]:
    global _bars
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    try:
        with Progress(console=console, transient=True) as _bars:
            yield
    finally:
        _bars = None


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread, unless OMP_NUM_THREADS says how many.

    Matrices as small as the scenarios' gain nothing from several threads, which wait for one another on a busy machine.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(threads if "OMP_NUM_THREADS" in os.environ else 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def main(run: Callable[..., Result]) -> NoReturn:
    """What a scenario script calls under `if __name__ == "__main__":`, with its function `run`."""
    sys.exit(interruptible(lambda: execute(run, sys.argv[1:])))


def execute(run: Callable[..., Result], tokens: Sequence[str]) -> int:
    """Run a scenario with the flags of its signature, write and show what it found, and return its exit status.

    The status is 0 when every exact claim holds, 1 when one fails or the files cannot be written, 2 for a wrong flag.
    """
    errors = Console(stderr=True)
    name, document = Path(inspect.getfile(inspect.unwrap(run))).stem, inspect.getdoc(inspect.getmodule(run)) or ""
    app = App(
        name=name, help=document, version_flags=(), default_parameter=Parameter(negative=(), consume_multiple=True)
    )
    app.default(run)
    try:
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, error_console=errors)
    except CycloptsError:
        return 2
    if command is not run:  # --help
        command(*bound.args, **bound.kwargs)
        return 0
    with _one_thread():
        return _carry_out(run, bound, name, document)


def _carry_out(run: Callable[..., Result], bound: inspect.BoundArguments, name: str, document: str) -> int:
    """Run, show, write: the exit status of `execute`."""
    console, errors = Console(), Console(stderr=True)
    bound.apply_defaults()
    parameters = dict(bound.arguments)
    if not parameters.keys() >= {"quick", "seed"}:
        raise TypeError(f"run of scenario {name!r} must take quick and seed; it takes {', '.join(parameters)}")
    start = time.perf_counter()
    with _showing_progress():
        result = run(*bound.args, **bound.kwargs)
    wall_time = time.perf_counter() - start
    console.print(claims_table(result.claims))
    seed = parameters.pop("seed")
    try:
        written = write(result, name, document.partition("\n")[0].rstrip("."), parameters, seed, wall_time)
    except OSError as problem:
        errors.print(Text(f"Error: {problem.strerror or problem}", "red"), soft_wrap=True)
        return 1
    kept = f" (figures/{name}.* are those of a full run, which a quick run does not overwrite)" * written.kept_full
    console.print(Text(f"{written.figure} and {written.record.name} after {wall_time:.1f} s{kept}"), soft_wrap=True)
    return exit_status(result.claims)


def _holds_full_run(record: Path) -> bool:
    """Whether a quick run must keep off: a record that cannot be read gets the benefit of the doubt."""
    try:
        return json.loads(record.read_bytes())["parameters"]["quick"] is not True
    except FileNotFoundError:
        return False
    except (OSError, ValueError, LookupError, TypeError):
        return True


def _record(claim: Claim) -> dict[str, Any]:
    unchanged = () if claim.planned is not None else ("planned", "reason")
    return {key: value for key, value in dataclasses.asdict(claim).items() if key not in unchanged}


def _plain(value: Any) -> Any:
    """Numbers and arrays of NumPy and torch as Python's own."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _strict(value: Any) -> Any:
    """JSON as the standard has it: no NaN and no infinity, which become words."""
    value = _plain(value)
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def _has_nan(value: Any) -> bool:
    value = _plain(value)
    return any(map(_has_nan, value)) if isinstance(value, list) else isinstance(value, float) and math.isnan(value)


def _short(value: Any) -> str:
    value = _plain(value)
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
