"""What is recorded of every update, and the file of JSON lines it goes to."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ctrnn._files import atomic_write


class Record(NamedTuple):
    """One update: what its batch gave before the weights moved, and the score after, where one was taken."""

    update: int  # counted from 1
    loss: float  # the task's, without penalties
    penalty: float  # sum of the penalties
    grad_norm: float  # 2-norm of the gradient before clipping
    dt: float
    lr: float  # of the optimiser's first parameter group
    score: dict[str, float] | None = None


class Metrics:
    """A file of JSON lines, one write each: however the process ends, all lines before the last are whole.

    The system may cut the last one where it crosses a page; a resumed training drops what is cut and goes on behind it.
    """

    def __init__(self, path: str | os.PathLike, update: int) -> None:
        """Keep what the file says up to `update`, drop the rest (0: start afresh), and write on.

        Raises:
            OSError: the file cannot be written.
        """
        self.path = Path(path)
        kept = [line for line in _lines(self.path) if _update_of(line) <= update] if update else []
        atomic_write(self.path, "".join(kept).encode())

    def write(self, seed: int, record: Record) -> None:
        """Add a line.

        Raises:
            OSError: the disk is full, or the file can no longer be written.
        """
        line = json.dumps({"seed": seed, **_plain(record._asdict())}, allow_nan=False) + "\n"
        try:
            with open(self.path, "ab", buffering=0) as file:
                file.write(line.encode())
        except OSError as problem:
            fix = "free space on that disk or choose another folder"
            raise OSError(
                problem.errno, f"could not write metrics to {self.path}: {problem.strerror}; {fix}"
            ) from problem


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was not taken; JSON has no NaN, which a score may be."""
    score = record["score"]
    if score is None:
        return {key: value for key, value in record.items() if key != "score"}
    return {**record, "score": {key: value if math.isfinite(value) else None for key, value in score.items()}}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []


def _update_of(line: str) -> float:
    """The update a line speaks of; infinite for a broken line."""
    try:
        return int(json.loads(line)["update"]) if line.endswith("\n") else math.inf
    except (ValueError, LookupError, TypeError):
        return math.inf
