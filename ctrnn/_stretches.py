"""The stretches of time of a run, each inside one interval of its drive: steps never cross their ends."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._columns import Column
from ctrnn._derivative import moves
from ctrnn.drive import Drive, Function, Sampled
from ctrnn.steps import At, whole_steps


class Stretch(NamedTuple):
    """From where to where in time, and from where to how much of the drive's interval, as fractions."""

    interval: int
    start: Any  # number, or Tensor () or (*batch,)
    length: Any
    begin: Any
    width: Any


@dataclass(frozen=True)
class Alike:
    """Stretches of one length, each a whole interval of the drive: the rule of a Column of them."""

    t0: float
    length: float

    def __call__(self, k: int) -> Stretch:
        return Stretch(k, self.t0 + k * self.length, self.length, 0.0, 1.0)


def number(value: Any) -> float:
    """A time as a number; of times per sample, the longest."""
    return float(value.detach().max()) if isinstance(value, Tensor) else float(value)


def stretches(drive: Drive, t_span: tuple[Any, Any] | None) -> Sequence[Stretch]:
    """The intervals of the drive, cut to t_span."""
    if not isinstance(drive, Sampled):
        assert t_span is not None
        return _between(t_span, drive.jumps if isinstance(drive, Function) else ())
    whole = _intervals(drive)
    if t_span is None:
        return whole
    if drive.own_times:
        raise ValueError(
            "t_span cannot cut a drive whose samples have edges of their own: "
            "cut us and edges themselves, or give edges of shape (time + 1,)."
        )
    return _clip(whole, t_span)


def _intervals(drive: Sampled) -> Sequence[Stretch]:
    if drive.dt is not None:
        return Column(Alike(float(drive.t0), float(drive.dt)), range(drive.count))
    starts, lengths = drive.intervals
    return [Stretch(i, start, length, 0.0, 1.0) for i, (start, length) in enumerate(zip(starts, lengths, strict=True))]


def _between(t_span: tuple[Any, Any], jumps: tuple[float, ...]) -> Sequence[Stretch]:
    inner = [t for t in jumps if number(t_span[0]) < t < number(t_span[1])]
    if not inner and not any(isinstance(t, Tensor) for t in t_span):
        start, end = map(number, t_span)
        return Column(Alike(start, end - start), range(1))
    edges = [t_span[0], *inner, t_span[1]]
    return [Stretch(0, a, b - a, 0.0, 1.0) for a, b in pairwise(edges)]


def _clip(whole: Sequence[Stretch], t_span: tuple[Any, Any]) -> Sequence[Stretch]:
    first, last = bounds(whole)
    t0, t1 = number(t_span[0]), number(t_span[1])
    slack = 1e-9 * max(last - first, abs(last))
    if t0 < first - slack or t1 > last + slack:
        raise ValueError(
            f"t_span ({t0:g}, {t1:g}) reaches outside the drive, which is given from {first:g} to {last:g}: "
            "shorten t_span, or give a longer drive."
        )
    if not any(isinstance(t, Tensor) for t in t_span) and t0 <= first + slack and t1 >= last - slack:
        return whole
    return [_clip_one(s, t_span, slack) for s in whole if _end(s) > t0 + slack and number(s.start) < t1 - slack]


def _clip_one(s: Stretch, t_span: tuple[Any, Any], slack: float) -> Stretch:
    """A stretch between the ends of t_span. A Tensor at an edge replaces the edge, for its gradient."""
    low, high = (
        t if inside > slack or (isinstance(t, Tensor) and inside > -slack) else None
        for t, inside in ((t_span[0], number(t_span[0]) - number(s.start)), (t_span[1], _end(s) - number(t_span[1])))
    )
    if low is None and high is None:
        return s
    start = s.start if low is None else low
    stop = s.start + s.length if high is None else high
    return Stretch(s.interval, start, stop - start, (start - s.start) / s.length, (stop - start) / s.length)


def _end(s: Stretch) -> float:
    return number(s.start) + number(s.length)


def bounds(spans: Sequence[Stretch]) -> tuple[float, float]:
    """Where the run begins and ends; of times per sample, the earliest begin and the latest end."""
    first = spans[0].start
    return float(first.detach().min()) if isinstance(first, Tensor) else float(first), number(
        spans[-1].start + spans[-1].length
    )


def check_times(save: At, spans: Sequence[Stretch]) -> None:
    """Raise if a time to save lies outside the run."""
    first, last = bounds(spans)
    slack = 1e-9 * max(abs(first), abs(last), last - first)
    low, high = float(save.ts[0].detach()), float(save.ts[-1].detach())
    if low < first - slack or high > last + slack:
        raise ValueError(
            f"At: the times {low:g} to {high:g} reach outside the run, which goes from {first:g} to {last:g}: "
            "drop those outside, or run longer."
        )


def cut_at(spans: Sequence[Stretch], save: At, dt: float) -> list[Stretch]:
    """Stretches with the times of `At` as edges, except where a whole step ends there anyway.

    Raises:
        ValueError: a time has a gradient but lies where two stretches meet: it cannot move without its neighbour.
    """
    moving = moves(save.ts)
    if moving:
        _check_inside(save, spans)
    times = list(save.ts.unbind(0)) if moving else save.ts.tolist()
    if moving and abs(number(times[-1]) - _end(spans[-1])) <= 1e-9 * number(spans[-1].length):
        last = spans[-1]
        spans = [*spans[:-1], last._replace(length=times[-1] - last.start)]
    return [part for s in spans for part in _cut(s, times, dt, moving)]


def cut_at_ticks(spans: Sequence[Stretch], clock: Any, dt: float | None) -> list[Stretch]:
    """Stretches with the multiples of all periods of a clock as edges, except where a whole step dt ends there anyway.

    Samples that have times of their own are left as they are.
    """
    periods = {period for period in tree.leaves(clock) if period is not None}
    return [part for s in spans for part in _cut(s, _ticks_in(s, periods), dt or number(s.length), False)]


def _ticks_in(s: Stretch, periods: set[Any]) -> list[float]:
    if isinstance(s.start, Tensor) and s.start.ndim:
        return []
    begin, end = number(s.start), _end(s)
    return sorted({k * p for p in periods for k in range(math.ceil(begin / p), math.floor(end / p) + 1)})


def _check_inside(save: At, spans: Sequence[Stretch]) -> None:
    """Raise if a time lies on an edge between two stretches."""
    for s, following in pairwise(spans):
        slack = 1e-9 * max(number(s.length), number(following.length))  # what `_cut` takes for the edge
        for t in save.ts.detach().tolist():
            if abs(t - _end(s)) <= slack:
                raise ValueError(
                    f"At: the time {t:g} requires a gradient but lies on an inner edge of the drive, where fixed "
                    "steps cannot move it: move it off the edge, or use steps=Adaptive(...) with a solver of this "
                    "package and adjoint=Backprop() or Recompute()."
                )


def _cut(s: Stretch, times: list[Any], dt: float, moving: bool) -> list[Stretch]:
    a, length = number(s.start), number(s.length)
    inner = [t for t in times if 1e-9 < (number(t) - a) / length < 1 - 1e-9]
    count, _ = whole_steps(length, dt)
    steps = [(number(t) - a) / length * count for t in inner]
    if not moving and all(abs(k - round(k)) < 1e-9 * count for k in steps):
        return [s]
    edges = [s.start, *inner, s.start + s.length]
    return [
        Stretch(s.interval, p, q - p, s.begin + s.width * ((p - s.start) / s.length), s.width * ((q - p) / s.length))
        for p, q in pairwise(edges)
    ]
