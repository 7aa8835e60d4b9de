"""How long a step is, what is kept of a run, and the frozen sequence of steps that both kinds of stepping yield."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ctrnn._columns import Begin, Column, Interval, Same, all_flagged, flags, values


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


AT_ITS_END = (Saved(),)


class Grid(NamedTuple):
    """A frozen sequence of steps. The time loop knows nothing else about time.

    Where samples step on their own (adaptive steps, lengths, edges per sample) the batch is one axis of rows ordered by
    decreasing step count, so that the live rows of each step are a prefix. Where their times differ (adaptive steps,
    edges per sample) `t` and `dt` hold one (rows, 1) Tensor for each step, and in adaptive runs so do `begin` and
    `width`, and `interval` one Tensor (rows,). Where all intervals of the drive are alike the columns follow a rule.
    """

    t: Sequence[Any]  # start of each step
    dt: Sequence[Any]  # its length
    interval: Sequence[Any]  # the interval of the drive in which it lies
    begin: Sequence[Any]  # where in the interval it begins and how much of it it covers, as fractions
    width: Sequence[Any]
    live: Sequence[int] | None  # live rows of each step; None: the batch is left as it is
    order: Tensor | None  # sample of each row
    initial: bool  # the first thing saved is x0
    saved: Sequence[tuple[Saved, ...]]

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.dt)

    def part(self, start: int, stop: int) -> "Grid":
        """Steps start to stop - 1 as a grid of their own, which saves x0 only if it begins the run."""
        columns: dict[str, Any] = {n: v[start:stop] for n, v in self._asdict().items() if isinstance(v, Sequence)}
        return self._replace(initial=self.initial and start == 0, **columns)

    def sizes(self) -> list[int]:
        """How long what each step saves is along the leading axis of the saves."""
        if isinstance(self.saved, Column) and self.live is None:
            return flags(self.saved).int().tolist()
        live: Sequence[int] = [1] * self.steps if self.live is None else self.live
        return [
            sum(n if item.rows is None else len(item.rows) for item in items)
            for items, n in zip(self.saved, live, strict=True)
        ]

    # What a compiled loop asks for, as Tensors on the CPU: they cost nothing for each step where all steps are alike.

    @property
    def regular(self) -> bool:
        """Whether all samples take the same steps, times are numbers, and only states at ends of steps are saved."""
        if self.live is not None:
            return False
        columns = (self.t, self.dt, self.begin, self.width)
        if any(isinstance(v, Tensor) for column in columns if not isinstance(column, Column) for v in column):
            return False
        return isinstance(self.saved, Column) or all(items in ((), AT_ITS_END) for items in self.saved)

    def lengths(self) -> tuple[list[Any], Tensor | None]:
        """The lengths that steps have, and which of them each has (step,); None: there is only one."""
        if isinstance(self.dt, Column) and isinstance(self.dt.rule, Same):
            return [self.dt.rule.value], None
        number: dict[Any, int] = {}  # of each length; Tensors are told apart by identity
        which = [number.setdefault(dt, len(number)) for dt in self.dt]
        return list(number), torch.tensor(which) if len(number) > 1 else None

    def intervals(self) -> tuple[int, Tensor | None]:
        """`first` and `which`: step k lies in the interval first + which[k]; None: first + k."""
        first = self.interval[0]
        rule = self.interval.rule if isinstance(self.interval, Column) else None
        if isinstance(rule, Interval) and rule.parts == 1:
            return first, None
        which = values(self.interval, torch.int64) - first
        return first, None if torch.equal(which, torch.arange(self.steps)) else which

    def fractions(self) -> tuple[Tensor, Tensor] | None:
        """`begin` and `width` (step,); None: each step is a whole interval."""
        if isinstance(self.begin, Column) and isinstance(self.begin.rule, Begin) and self.begin.rule.parts == 1:
            return None
        begin, width = values(self.begin, torch.float64), values(self.width, torch.float64)
        return None if not bool(begin.any()) and bool((width == 1).all()) else (begin, width)

    def slots(self) -> tuple[int, Tensor | None]:
        """How many states are saved, and as the how manyeth the end of each step (step,), -1: not at all.

        None: the end of every step, in order. x0 comes first where it is saved.
        """
        if all_flagged(self.saved):
            return self.steps + self.initial, None
        kept = flags(self.saved)
        number = kept.cumsum(0)
        count = self.initial + (int(number[-1]) if self.steps else 0)
        if count == self.steps + self.initial:
            return count, None
        return count, torch.where(kept, number - 1 + self.initial, -1)


class Timeline(NamedTuple):
    """The intervals in which every row looks for its adaptive steps, and where in the drive each lies."""

    start: Tensor  # (interval, row), float64
    length: Tensor  # (interval, row), float64
    count: Tensor  # type: ignore[assignment]  # (row,): how many intervals a row has
    drive: Tensor  # (interval,): the interval of the drive
    begin: Tensor  # (interval,): where in it this one begins, as a fraction ...
    width: Tensor  # (interval,): ... and how much of it this one covers


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
