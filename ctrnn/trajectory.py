"""What a run returns, and how it is kept in a file."""

import collections
import os
from enum import IntEnum
from typing import Any, NamedTuple, Self

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._files import FileFormatError, read_tensors, write_tensors
from ctrnn._types import State


class Status(IntEnum):
    """How a sample ended."""

    REACHED = 0  # the end of its run
    STEP_SIZE_UNDERFLOW = 1
    MAX_STEPS_REACHED = 2
    NON_FINITE_STATE = 3


class Stats(NamedTuple):
    """For each sample its accepted and rejected steps, evaluations of the vector field or target, and `Status`.

    Of an adaptive run they are the search's; where a gradient is wanted the run on the steps found evaluates again.
    """

    steps: Int[Tensor, "*batch"]
    rejected: Int[Tensor, "*batch"]
    evaluations: Int[Tensor, "*batch"]
    status: Int[Tensor, "*batch"]


class Trajectory(NamedTuple):
    """Times, states, drive and readout of a run; time leads everywhere.

    `ts` is (time,), or (time, *batch) when samples have times of their own; `xs` a state with a leading time axis; `us`
    (time, *batch, n_in) the drive at those times, None for silence; `ys` (time, *batch, n_out) the readout; `mask`
    (time, *batch) is False where a sequence had already ended, None without lengths. What the run did not reach is NaN.
    """

    ts: Float[Tensor, "time *batch"]
    xs: State
    us: Float[Tensor, "time *batch input"] | None
    ys: Float[Tensor, "time *batch output"]
    mask: Bool[Tensor, "time *batch"] | None
    stats: Stats

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a safetensors file with a JSON header, atomically.

        Raises:
            OSError: the file could not be written; what was there before is untouched.
        """
        tensors: dict[str, Tensor] = {}
        for field, value in zip(self._fields, self, strict=True):
            if value is not None:
                tensors |= {f"{field}.{name}".rstrip("."): leaf.detach() for name, leaf in tree.named(value)}
        write_tensors(path, tensors, {"kind": "trajectory", "xs": _describe(self.xs)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote. A NamedTuple state comes back with its name and field names, not as the class it was.

        Raises:
            FileFormatError: the file is truncated, or not a trajectory.
        """
        tensors, metadata = read_tensors(path)
        if metadata.get("kind") != "trajectory":
            raise FileFormatError(
                f"{path} holds {metadata.get('kind', 'something')!r}, not a trajectory: "
                "pass a file that Trajectory.save wrote."
            )
        try:
            like = _rebuild(metadata["xs"])
            xs = tree.unflatten(like, [tensors[f"xs.{name}".rstrip(".")] for name, _ in tree.named(like)])
            stats = Stats(*[tensors[f"stats.{name}"] for name in Stats._fields])
            run = cls(tensors["ts"], xs, tensors.get("us"), tensors["ys"], tensors.get("mask"), stats)
            _check_shapes(run)
            return run
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise FileFormatError(
                f"{path} is a trajectory file with missing or foreign parts ({error!r}): "
                "write it again with Trajectory.save."
            ) from error

    def to_xarray(self) -> Any:
        """An xarray.Dataset with the dimensions time, batch_0, ..., and one for the units of each part of the state.

        Raises:
            ImportError: xarray is not installed; it comes with `ctrnn-sim[xarray]`.
        """
        try:
            import xarray
        except ImportError as error:
            raise ImportError("to_xarray needs xarray: pip install 'ctrnn-sim[xarray]'.") from error

        batch = [f"batch_{i}" for i in range(self.stats.steps.ndim)]
        columns: dict[str, Any] = {}
        named = [("x" if not name else f"x_{name.replace('.', '_')}", leaf) for name, leaf in tree.named(self.xs)]
        for name, leaf in [*named, ("u", self.us), ("y", self.ys), ("mask", self.mask)]:
            if leaf is not None:
                events = [f"{name}_{i}" if i else f"{name}_unit" for i in range(leaf.ndim - 1 - len(batch))]
                columns[name] = (["time", *batch, *events], leaf.detach().cpu().numpy())
        columns |= {name: (batch, value.cpu().numpy()) for name, value in zip(Stats._fields, self.stats, strict=True)}
        times = self.ts.detach().cpu().numpy()
        return xarray.Dataset(columns, coords={"time": times} if times.ndim == 1 else {"t": (["time", *batch], times)})


def _check_shapes(run: Trajectory) -> None:
    """Raise ValueError unless all parts have the same leading axes."""
    lead = (len(run.ts), *run.stats.steps.shape)
    parts = {f"xs.{name}": leaf for name, leaf in tree.named(run.xs)} | {"us": run.us, "ys": run.ys, "mask": run.mask}
    for name, leaf in parts.items():
        if leaf is not None and leaf.shape[: len(lead)] != lead:
            raise ValueError(f"{name} has the shape {tuple(leaf.shape)}, not {lead} in front")


def _describe(x: State) -> Any:
    if not isinstance(x, tuple):
        return None
    return {
        "name": type(x).__name__,
        "fields": list(getattr(x, "_fields", ())),
        "parts": [_describe(part) for part in x],
    }


def _rebuild(description: Any) -> Any:
    if description is None:
        return 0
    parts = [_rebuild(part) for part in description["parts"]]
    if not description["fields"]:
        return tuple(parts)
    return collections.namedtuple(description["name"], description["fields"])(*parts)
