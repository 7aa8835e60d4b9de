"""Columns of a grid that follow a rule: where all steps are alike, nothing is computed or stored for each of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Column(Sequence[Any]):
    """rule(k) for each k of `at`, computed when it is read; a slice is a Column again."""

    rule: Callable[[Any], Any]
    at: range

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, k: Any) -> Any:
        return Column(self.rule, self.at[k]) if isinstance(k, slice) else self.rule(self.at[k])

    def __iter__(self) -> Iterator[Any]:
        return map(self.rule, self.at)


# The rules take an integer, or a numpy array of them, with the same result for each: both compute in float64.


@dataclass(frozen=True)
class Same:
    """The same for every step."""

    value: Any

    def __call__(self, k: Any) -> Any:
        return self.value


@dataclass(frozen=True)
class Start:
    """When step k begins, where `parts` steps of length dt make an interval."""

    t0: float
    length: float  # of an interval
    parts: int
    dt: float

    def __call__(self, k: Any) -> Any:
        if self.parts == 1:
            return self.t0 + k * self.length
        start = self.t0 + k // self.parts * self.length
        return start + k % self.parts * self.dt


@dataclass(frozen=True)
class Interval:
    """In which interval step k lies, counted from the interval `first`."""

    parts: int
    first: int = 0

    def __call__(self, k: Any) -> Any:
        return (k if self.parts == 1 else k // self.parts) - self.first


@dataclass(frozen=True)
class Begin:
    """Where in its interval step k begins, as a fraction."""

    parts: int

    def __call__(self, k: Any) -> Any:
        return k * 0.0 if self.parts == 1 else k % self.parts / self.parts


@dataclass(frozen=True)
class Ends:
    """`item` for the steps after which a state is kept, () for the others; steps count from 1 in `kept`."""

    kept: range
    item: tuple[Any, ...]

    def __call__(self, k: int) -> tuple[Any, ...]:
        return self.item if k + 1 in self.kept else ()


def values(column: Sequence[Any], dtype: torch.dtype) -> Tensor:
    """The numbers of a column as one Tensor."""
    if not isinstance(column, Column):
        return torch.tensor(column, dtype=dtype)
    if isinstance(column.rule, Same):
        return torch.full((len(column),), column.rule.value, dtype=dtype)
    at = column.at
    return torch.from_numpy(column.rule(np.arange(at.start, at.stop, at.step))).to(dtype)


def flags(column: Sequence[tuple[Any, ...]]) -> Tensor:
    """Whether there is anything in each entry of a column of tuples."""
    if not isinstance(column, Column) or not isinstance(column.rule, Same | Ends):
        return torch.tensor([bool(items) for items in column], dtype=torch.bool)
    if isinstance(column.rule, Same):
        return torch.full((len(column),), bool(column.rule.value))
    kept, after = column.rule.kept, np.arange(column.at.start, column.at.stop, column.at.step) + 1
    inside = (after >= kept.start) & (after < kept.stop)
    return torch.from_numpy(inside & ((after - kept.start) % kept.step == 0))


def all_flagged(column: Sequence[tuple[Any, ...]]) -> bool:
    """Whether there is plainly something in every entry of a column of tuples; `flags` looks at each."""
    if not isinstance(column, Column):
        return False
    rule, at = column.rule, column.at
    if isinstance(rule, Ends):
        return at.step == rule.kept.step == 1 and rule.kept.start <= at.start + 1 and at.stop < rule.kept.stop
    return isinstance(rule, Same) and bool(rule.value)


def counted_from(column: Sequence[Any], first: int) -> Sequence[Any]:
    """A column of intervals counted from the interval `first`."""
    if isinstance(column, Column) and isinstance(column.rule, Interval):
        return Column(replace(column.rule, first=column.rule.first + first), column.at)
    return [interval - first for interval in column]
