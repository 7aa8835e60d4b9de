"""How long a step is, what is kept of a run, and the frozen sequence of steps that both kinds of stepping yield."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor


def check_duration(name: str, value: Any) -> None:
    """Raise unless `value` is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number such as 0.01, got {value!r}.")
    if not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value!r}.")


@dataclass(frozen=True)
class Fixed:
    """Steps of length dt.

    An interval of the drive that is no whole multiple of dt is cut into the fewest equal steps that are not longer.
    Where samples have edges of their own, all are cut into as many as the longest of them needs: a shorter one then
    takes shorter steps than it would alone. `Adaptive` steps do not depend on a sample's company.
    """

    dt: float

    def __post_init__(self) -> None:
        check_duration("Fixed: dt", self.dt)


@dataclass(frozen=True)
class Adaptive:
    """Steps chosen for each sample so that the root mean square over its state of error / (atol + rtol |x|) is below 1.

    Args:
        rtol, atol: relative and absolute tolerance.
        dt0: first step; chosen from the slope when not given (Hairer, Norsett & Wanner 1993, II.4).
        dt_min: a sample whose step would fall below it stops with `StepSizeUnderflow`.
        max_steps: accepted and rejected steps allowed for each sample.
    """

    rtol: float = 1e-6
    atol: float = 1e-6
    dt0: float | None = None
    dt_min: float = 0.0
    max_steps: int = 100_000

    def __post_init__(self) -> None:
        for name in ("rtol", "atol", "dt_min"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"Adaptive: {name} must be a number such as 1e-6, got {value!r}.")
        if isinstance(self.max_steps, bool) or not isinstance(self.max_steps, int):
            raise TypeError(f"Adaptive: max_steps counts steps and must be an integer, got {self.max_steps!r}.")
        if not (self.rtol >= 0 and self.atol >= 0 and self.rtol + self.atol > 0):
            raise ValueError(
                "Adaptive: tolerances must not be negative, and one must be positive; "
                f"got rtol={self.rtol}, atol={self.atol}."
            )
        if self.dt0 is not None:
            check_duration("Adaptive: dt0", self.dt0)
        if not self.dt_min >= 0 or self.max_steps < 1:
            raise ValueError(
                "Adaptive: dt_min must not be negative and max_steps at least 1; "
                f"got dt_min={self.dt_min}, max_steps={self.max_steps}."
            )


@dataclass(frozen=True)
class Every:
    """Keep the state after every k-th step (fixed steps only)."""

    k: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int):
            raise TypeError(f"Every: k counts steps and must be an integer, got {self.k!r}.")
        if self.k < 1:
            raise ValueError(f"Every: k must be at least 1, got {self.k}.")


@dataclass(frozen=True)
class Last:
    """Keep the last state only."""


@dataclass(frozen=True, eq=False)
class At:
    """Keep the states at these increasing times: edges of fixed steps, dense output of adaptive ones.

    A gradient reaches times given as a Tensor, except one at the start of the run, where x0 stays. On fixed steps (and
    with `Backsolve` or `TorchDiffEq`, which lay out fixed stretches) a time with a gradient must not lie on an inner
    edge of the drive: a ValueError says which does.
    """

    ts: Tensor

    def __post_init__(self) -> None:
        ts = torch.as_tensor(self.ts, dtype=torch.float64)
        object.__setattr__(self, "ts", ts)
        if ts.ndim != 1 or len(ts) == 0:
            raise ValueError(f"At needs a sequence of times, got shape {tuple(ts.shape)}.")
        if not bool(torch.isfinite(ts.detach()).all()) or not bool((ts.detach().diff() > 0).all()):
            raise ValueError("At: times must be finite and increase strictly. Sort them and drop repeated ones.")


class Saved(NamedTuple):
    """What to keep of one step: the given rows (None: all) at the fraction theta of the step (None: its end)."""

    rows: Tensor | None = None
    theta: Tensor | None = None


class Grid(NamedTuple):
    """A frozen sequence of steps. The time loop knows nothing else about time.

    Where samples step on their own (adaptive steps, lengths, edges per sample) the batch is one axis of rows ordered by
    decreasing step count, so that the live rows of each step are a prefix. Where their times differ (adaptive steps,
    edges per sample) `t` and `dt` hold one (rows, 1) Tensor for each step, and in adaptive runs so do `begin` and
    `width`, and `interval` one Tensor (rows,).
    """

    t: list[Any]  # start of each step
    dt: list[Any]  # its length
    interval: list[Any]  # the interval of the drive in which it lies
    begin: list[Any]  # where in the interval it begins and how much of it it covers, as fractions
    width: list[Any]
    live: list[int] | None  # live rows of each step; None: the batch is left as it is
    order: Tensor | None  # sample of each row
    initial: bool  # the first thing saved is x0
    saved: list[tuple[Saved, ...]]

    def part(self, start: int, stop: int) -> "Grid":
        """Steps start to stop - 1 as a grid of their own, which saves x0 only if it begins the run."""
        columns: dict[str, Any] = {n: v[start:stop] for n, v in self._asdict().items() if isinstance(v, list)}
        return self._replace(initial=self.initial and start == 0, **columns)


def whole_steps(length: float, dt: float) -> tuple[int, float]:
    """How many steps an interval takes and how long each is.

    dt as given where the interval is a whole multiple of it, up to rounding; else the fewest equal parts not longer.
    """
    ratio = length / dt
    count = max(1, round(ratio))
    if abs(ratio - count) <= 1e-9 * count:
        return count, dt
    count = math.ceil(ratio)
    return count, length / count
