"""Tools beside one another on the same work: their results are compared first, then they take turns on the clock."""

import argparse
import contextlib
import datetime
import gc
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

TURN = 0.02  # seconds: a job shorter than this runs several times in a turn
PACKAGES = ("ctrnn-sim", "torch", "numpy", "scipy", "torchdiffeq")
PEERS = ("jax", "diffrax", "brainpy", "torchode", "scikit-sundae", "dnc")
REST = 0.05  # seconds before a turn, in which the threads of the tool before stop spinning
Job = Callable[[], Any]  # does the work once, waits for its end and returns its numbers


def mean_square(x: torch.Tensor) -> torch.Tensor:
    """mean(x^2), as torch differentiates it fastest: x.square().mean() takes as long as some simulations."""
    flat = x.flatten()
    return flat @ flat / flat.numel()


class Disagreement(AssertionError):
    """Two tools that should compute the same do not: their times mean nothing."""


class Case(NamedTuple):
    """One piece of work and what each tool needed for it."""

    at: dict[str, Any]  # which work: {"N": 64, "B": 1, "T": 1000, "pass": "forward"}
    ms: dict[str, float]  # median of a run
    turns: dict[str, int]
    first_s: dict[str, float]  # the first run, in which some tools compile
    difference: dict[str, float]  # from the reference, relative to the reference's greatest number
    mib: dict[str, float] | None = None  # peak memory, where it is measured

    @property
    def work(self) -> str:
        return ", ".join(str(v) if isinstance(v, str) else f"{k} = {v:g}" for k, v in self.at.items())


class Target(NamedTuple):
    """What was aimed at, as a ratio in one run on one machine."""

    work: str
    against: str
    measured: float
    limit: float
    at_least: bool = True
    ours: float | None = None  # the two numbers of which it is the ratio
    theirs: float | None = None
    unit: str = "ms"

    @property
    def holds(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def times_as_fast(case: Case, peer: str, limit: float, here: str = "") -> Target:
    """The peer's time over ours (the first tool's), which should be at least `limit`."""
    ours, theirs = case.ms[here or next(iter(case.ms))], case.ms[peer]
    return Target(case.work, peer, theirs / ours, limit, True, ours, theirs)


def times_as_long(case: Case, peer: str, limit: float, here: str = "") -> Target:
    """Our time over the peer's, which should be at most `limit`."""
    ours, theirs = case.ms[here or next(iter(case.ms))], case.ms[peer]
    return Target(case.work, peer, ours / theirs, limit, False, ours, theirs)


class Row(NamedTuple):
    """What a script returns."""

    title: str
    cases: Sequence[Case]
    targets: Sequence[Target]
    missing: Sequence[str] = ()


def peer(module: str) -> ModuleType | None:
    """A peer if it is installed."""
    return importlib.import_module(module) if importlib.util.find_spec(module) else None


def lacking(**peers: ModuleType | None) -> list[str]:
    """The names of those that are not installed."""
    return [name for name, module in peers.items() if module is None]


def side_by_side(
    at: Mapping[str, Any],
    jobs: Mapping[str, Job],
    *,
    like: Mapping[str, float],
    reference: Any = None,
    turns: int = 9,
    seconds: float = 2.0,
) -> Case:
    """Run every job once, compare the results, then time the jobs in turn.

    Args:
        at: which work it is.
        jobs: one for each tool.
        like: by how much a tool's numbers may differ from the reference, relative to its greatest; a tool that is not
            named computes something else.
        reference: what they are compared with; the first tool's numbers if None.
        turns: of each tool, fewer for one that has used up its time; with none the first run is the time.
        seconds: the time of each tool.

    Raises:
        Disagreement: a tool's numbers lie farther from the reference.
    """
    first, difference = {}, {}
    for name, job in jobs.items():
        begin = time.perf_counter()
        result = job()
        first[name] = time.perf_counter() - begin
        reference = result if reference is None else reference
        if name in like:
            difference[name] = apart(result, reference)
            if not difference[name] <= like[name]:
                raise Disagreement(f"{dict(at)}: {name} differs by {difference[name]:.1e}, allowed {like[name]:.1e}")
    del result, reference
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    gc.collect()
    for _ in range(turns):
        for name, job in jobs.items():
            if not spent[name] or sum(spent[name]) + spent[name][-1] < seconds:
                spent[name].append(_turn(job, first[name] < TURN or bool(spent[name])))
    done = Case(
        dict(at),
        {name: 1e3 * statistics.median(times or [first[name]]) for name, times in spent.items()},
        {name: len(times) for name, times in spent.items()},
        first,
        difference,
    )
    print(
        f"{done.work}: {', '.join(f'{name} {ms:.3g} ms' for name, ms in done.ms.items())}", file=sys.stderr, flush=True
    )
    return done


def _turn(job: Job, short: bool) -> float:
    """Seconds of a run; a short one first runs untimed, since the tool before has taken the caches and the cores."""
    time.sleep(REST)
    begin = time.perf_counter()
    job()
    took = time.perf_counter() - begin
    if not short or took >= TURN:
        return took
    count = max(1, min(20, round(TURN / max(took, 1e-6))))
    begin = time.perf_counter()
    for _ in range(count):
        job()
    return (time.perf_counter() - begin) / count


def apart(result: Any, reference: Any) -> float:
    """The greatest difference of two lists of arrays, each relative to the greatest number of its reference."""
    pairs = [(_numpy(a), _numpy(b)) for a, b in zip(_listed(result), _listed(reference), strict=False)]
    for a, b in pairs:
        if a.shape != b.shape:
            raise Disagreement(f"shapes {a.shape} and {b.shape}")
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-300)) if a.size else 0.0 for a, b in pairs)


def _listed(result: Any) -> Sequence[Any]:
    return result if isinstance(result, (tuple, list)) else [result]


def _numpy(value: Any) -> np.ndarray:
    return np.asarray(value.detach() if isinstance(value, torch.Tensor) else value, dtype=np.float64)


def fastest(case: Case, besides: Sequence[str]) -> str:
    """The fastest tool that is not one of ours."""
    return min((name for name in case.ms if name not in besides), key=case.ms.__getitem__)


def record(row: Row, quick: bool, wall_time: float) -> dict[str, Any]:
    """A row as JSON."""
    return {
        "title": row.title,
        "quick": quick,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "wall_time_s": round(wall_time, 1),
        "missing": list(row.missing),
        "cases": [rounded({"work": case.work} | case._asdict()) for case in row.cases],
        "targets": [rounded(target._asdict() | {"holds": target.holds}) for target in row.targets],
    }


def machine() -> dict[str, Any]:
    """What times depend on: the processor, how many of its cores may be used, and the threads."""
    flags, name = "", platform.machine()
    with contextlib.suppress(OSError):
        lines = dict(_entry(line) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        flags, name = lines.get("flags", ""), lines.get("model name", name)
    widest = next((isa for isa in ("avx512f", "avx2", "avx") if isa in flags.split()), platform.machine())
    return {
        "processor": f"{name} ({widest})",
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }


def _entry(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def versions() -> dict[str, str]:
    """Of the package and of the peers that are installed."""
    found = {}
    for name in PACKAGES + PEERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found["ctrnn" if name == "ctrnn-sim" else name] = importlib.metadata.version(name)
    return found


def rounded(value: Any) -> Any:
    """Four digits are more than a clock is good for; JSON knows no infinity."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


def show(row: Row) -> None:
    """The row on a terminal."""
    print(row.title)
    for case in row.cases:
        print(f"  {case.work}")
        for name, ms in sorted(case.ms.items(), key=lambda item: item[1]):
            print(f"    {name:34s}{ms:11.3f} ms   {', '.join(_notes(case, name))}")
    for target in row.targets:
        sign = ">=" if target.at_least else "<="
        mark = "met" if target.holds else "NOT MET"
        better = "times as fast as" if target.unit == "ms" else f"times fewer {target.unit} than"
        what = better if target.at_least else "times"
        print(f"  {target.work}: {target.measured:.3g} {what} {target.against} ({sign} {target.limit:g}) {mark}")
    if row.missing:
        print(f"  not installed, so not measured: {', '.join(row.missing)}")


def _notes(case: Case, name: str) -> Iterator[str]:
    if case.first_s.get(name, 0.0) > 0.5:
        yield f"first run {case.first_s[name]:.1f} s"
    if name in case.difference:
        yield f"differs by {case.difference[name]:.0e}"
    if case.mib:
        yield f"{case.mib[name]:.1f} MiB"


def main(run: Callable[..., Row]) -> None:
    """What a script calls under `if __name__ == "__main__":` with its function `run`."""
    parser = argparse.ArgumentParser(
        description=sys.modules[run.__module__].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--threads", type=int, help="cores that every tool may use; all by default")
    parser.add_argument("--json", type=Path, help="a file for the numbers; they are printed in any case")
    arguments = parser.parse_args()
    if arguments.threads and len(os.sched_getaffinity(0)) > arguments.threads:
        # Not every tool can be told; all see how many cores the process may use, some of them when they are imported.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
        os.execv(sys.executable, sys.orig_argv)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    begin = time.perf_counter()
    row = run(quick=arguments.quick)
    written = json.dumps(record(row, arguments.quick, time.perf_counter() - begin))
    show(row)
    if arguments.json:
        arguments.json.write_text(written)
    else:
        print(written)
