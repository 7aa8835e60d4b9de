"""What drives a network, defined over intervals of time and not at points.

A step lies within one interval and all its stages, those at its two ends included, see that interval's drive; an
integrator that asked for u at a point would find the next interval's value at the end of each step, and RK4 would fall
to first order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ctrnn.steps import check_duration


class Intervals(NamedTuple):
    """Consecutive stretches of time: numbers, or Tensors () for a gradient or (*batch,) for each sample's own times."""

    start: list[Any]
    length: list[Any]


class Piece(NamedTuple):
    """u over one step, a polynomial in s = begin + c width: c is the fraction of the step, s that of its interval."""

    coefficients: tuple[Tensor, ...]
    begin: Any
    width: Any

    def __call__(self, c: float) -> Tensor:
        s = self.begin + c * self.width
        value = self.coefficients[-1]
        for coefficient in self.coefficients[-2::-1]:
            value = coefficient + (s.to(value.dtype) if isinstance(s, Tensor) else s) * value
        return value


@dataclass(frozen=True, eq=False)
class Drive:
    """The drive of a run; `Held`, `Linear`, `Cubic`, `Silence` and `Function` are the ones there are."""


@dataclass(frozen=True, eq=False)
class Silence(Drive):
    """u = 0 at all times."""


@dataclass(frozen=True, eq=False)
class Function(Drive):
    """u(t) = fn(t), where t is a 0-d Tensor, or (*batch, 1) when each sample has its own time.

    fn returns (*batch, n_in) or (n_in,). `jumps` are the times at which it is not continuous: steps are placed on them,
    and a stage at the end of a step asks for fn a few roundings inside it.
    """

    fn: Callable[[Tensor], Tensor]
    jumps: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"Function needs a callable u(t), got {type(self.fn).__name__}.")
        if list(self.jumps) != sorted(set(self.jumps)):
            raise ValueError(f"Function.jumps must increase strictly, got {self.jumps}: sort them, drop repeated ones.")


@dataclass(frozen=True, eq=False)
class Sampled(Drive):
    """Common part of the drives that are given as samples on a grid of times."""

    us: Float[Tensor, "time *batch input"]
    dt: float | None = None
    edges: Tensor | None = None
    lengths: Int[Tensor, "*batch"] | None = None
    t0: float = 0.0

    def __post_init__(self) -> None:
        _check_samples(self)

    @property
    def count(self) -> int:
        """How many intervals there are."""
        raise NotImplementedError

    @property
    def ends(self) -> Int[Tensor, "*batch"] | None:
        """How many intervals each sequence has, where they differ."""
        return None if self.lengths is None else self.lengths - (self.us.shape[0] - self.count)

    @property
    def used(self) -> Bool[Tensor, "time *batch"] | None:
        """Which samples of us belong to a sequence and are no padding, where lengths differ."""
        if self.lengths is None:
            return None
        position = torch.arange(self.us.shape[0], device=self.us.device)
        return position.reshape(-1, *[1] * self.lengths.ndim) < self.lengths.to(self.us.device)

    @property
    def own_times(self) -> bool:
        """Whether each sample has edges of its own."""
        return self.edges is not None and self.edges.ndim > 1

    @property
    def coefficients(self) -> tuple[Tensor, ...]:
        """Coefficients of the polynomial on each interval, lowest power first, each (interval, *batch, input)."""
        raise NotImplementedError

    @property
    def intervals(self) -> Intervals:
        """Where the intervals start and how long they are; dt as given, never a difference of times."""
        if self.dt is not None:
            return Intervals([self.t0 + k * self.dt for k in range(self.count)], [self.dt] * self.count)
        assert self.edges is not None
        edges = self.edges.to(torch.float64)
        if edges.ndim > 1 or edges.requires_grad:
            return Intervals(list(edges[:-1].unbind(0)), list(edges.diff(dim=0).unbind(0)))
        times = edges.tolist()
        return Intervals(times[:-1], [b - a for a, b in pairwise(times)])


@dataclass(frozen=True, eq=False)
class Held(Sampled):
    """u(t) = us[k] on (t_k, t_{k+1}]: the zero-order hold, as in torch.nn.RNN, where us[k] produces xs[k].

    Args:
        us: samples (time, *batch, n_in).
        dt: how long each is held; or
        edges: the time + 1 times between which they are held, (time + 1,), or (time + 1, *batch) for times of each
            sample's own. A gradient reaches them.
        lengths: how many samples of us each sequence has, (*batch,); a finished sequence keeps its state.
        t0: time at which us[0] begins, with `dt`.
    """

    @property
    def count(self) -> int:
        return self.us.shape[0]

    @property
    def coefficients(self) -> tuple[Tensor, ...]:
        return (self.us,)


@dataclass(frozen=True, eq=False)
class Linear(Sampled):
    """u(t) = us[k] + s (us[k+1] - us[k]): straight between nodes; T nodes make T - 1 intervals and xs[0] is x0.

    `dt` is the time between nodes, or `edges` holds the T node times; `lengths` counts nodes.
    """

    @property
    def count(self) -> int:
        return self.us.shape[0] - 1

    @property
    def coefficients(self) -> tuple[Tensor, ...]:
        return self.us[:-1], self.us.diff(dim=0)


@dataclass(frozen=True, eq=False)
class Cubic(Linear):
    """Cubic Hermite with backward differences (Morrill et al. 2021): a node's slope is that of the interval before it.

    So no node looks ahead. Arguments as for `Linear`.
    """

    @property
    def coefficients(self) -> tuple[Tensor, ...]:
        # Padding may be NaN, and NaN times the zero gradient of an unused time would be NaN.
        us = self.us if self.used is None else torch.where(self.used[..., None], self.us, 0.0)
        rise = us.diff(dim=0)
        lengths = self.intervals.length
        ratios = [torch.as_tensor(b / a, dtype=torch.float64) for a, b in pairwise(lengths)]
        slope = rise
        if ratios:
            ratio = torch.stack(ratios).to(rise)
            before = rise[:-1] * ratio.reshape(ratio.shape + (1,) * (rise.ndim - ratio.ndim))
            slope = torch.cat([rise[:1], before])
        return us[:-1], slope, 2 * (rise - slope), slope - rise


def _check_samples(drive: Sampled) -> None:
    name, us = type(drive).__name__, drive.us
    if not isinstance(us, Tensor) or not us.is_floating_point():
        kind = us.dtype if isinstance(us, Tensor) else type(us).__name__
        raise TypeError(
            f"{name} needs us as a floating-point Tensor, got {kind}: "
            "convert it with .float() or .double(), an array with torch.as_tensor."
        )
    if us.ndim < 2:
        raise ValueError(f"{name} needs us of shape (time, *batch, n_in), got {tuple(us.shape)}.")
    if drive.count < 1:
        least = 1 + us.shape[0] - drive.count
        raise ValueError(
            f"{name} has no interval: us has {us.shape[0]} samples along time, its first axis; give at least {least}."
        )
    if (drive.dt is None) == (drive.edges is None):
        given = "both were" if drive.dt is not None else "neither was"
        raise ValueError(f"{name} needs either dt or edges, {given} given.")
    if drive.dt is not None:
        check_duration(f"{name}: dt", drive.dt)
    if drive.edges is not None:
        _check_edges(name, drive.edges, drive.count, us.shape[1:-1])
    if drive.lengths is not None:
        _check_lengths(name, drive.lengths, us, us.shape[0] - drive.count)


def _check_edges(name: str, edges: Any, count: int, batch: torch.Size) -> None:
    if not isinstance(edges, Tensor):
        raise TypeError(f"{name}: edges must be a Tensor of times, got {type(edges).__name__}: use torch.as_tensor.")
    if edges.shape not in ((count + 1,), (count + 1, *batch)):
        raise ValueError(
            f"{name}: edges must have shape ({count + 1},) or {(count + 1, *batch)} for {count} intervals, "
            f"got {tuple(edges.shape)}."
        )
    if not bool(torch.isfinite(edges.detach()).all()):
        raise ValueError(f"{name}: edges must be finite, got NaN or infinite ones: give every edge a time.")
    wrong = ~(edges.detach().diff(dim=0) > 0)
    if bool(wrong.any()):
        where = int(wrong.reshape(count, -1).any(-1).nonzero()[0])
        raise ValueError(
            f"{name}: edges must increase strictly; edge {where + 1} does not come after edge {where}. "
            "Sort them and drop repeated times."
        )


def _check_lengths(name: str, lengths: Any, us: Tensor, least: int) -> None:
    batch, samples = tuple(us.shape[1:-1]), us.shape[0]
    if not isinstance(lengths, Tensor) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        kind = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise TypeError(f"{name}: lengths counts samples and must be an integer Tensor, got {kind}.")
    if lengths.shape != batch:
        raise ValueError(f"{name}: lengths must have the batch shape {batch}, got {tuple(lengths.shape)}.")
    if lengths.numel() and not least <= int(lengths.min()) <= int(lengths.max()) <= samples:
        raise ValueError(
            f"{name}: lengths must lie between {least} and the {samples} samples of us, "
            f"got {int(lengths.min())} to {int(lengths.max())}: pad us, or shorten lengths."
        )
