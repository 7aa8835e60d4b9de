"""What a step can be drawn from: a network trained at many steps is trained to be continuous."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator


@dataclass(frozen=True)
class Distribution:
    """A step dt drawn anew for every update, in the unit of the network's tau."""

    @property
    def longest(self) -> float:
        """The longest step that can be drawn: learned time constants stay above it, and scores are taken at it."""
        raise NotImplementedError

    @property
    def shortest(self) -> float:
        """The shortest step that can be drawn: a training tries both ends before it begins."""
        raise NotImplementedError

    def draw(self, generator: Generator) -> float:
        """One step."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Between(Distribution):
    """Steps on [low, high)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_range(self, self.low, self.high)

    @property
    def longest(self) -> float:
        return self.high

    @property
    def shortest(self) -> float:
        return self.low


@dataclass(frozen=True)
class Uniform(_Between):
    """dt uniform on [low, high)."""

    def draw(self, generator: Generator) -> float:
        return self.low + (self.high - self.low) * _unit(generator)


@dataclass(frozen=True)
class LogUniform(_Between):
    """log dt uniform on [log low, log high)."""

    def draw(self, generator: Generator) -> float:
        # Clamped, as exp(log(high)) may round above high.
        return min(self.high, self.low * (self.high / self.low) ** _unit(generator))


@dataclass(frozen=True)
class Choice(Distribution):
    """dt one of these steps, all equally likely."""

    steps: Sequence[float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps:
            raise ValueError("Choice: steps is empty: give at least one step to choose.")
        for step in self.steps:
            check_step(f"a step of {self}", step)

    @property
    def longest(self) -> float:
        return max(self.steps)

    @property
    def shortest(self) -> float:
        return min(self.steps)

    def draw(self, generator: Generator) -> float:
        return self.steps[int(torch.randint(len(self.steps), (), generator=generator))]


def longest(dt: float | Distribution) -> float:
    """The longest step that `dt` stands for."""
    return dt.longest if isinstance(dt, Distribution) else dt


def shortest(dt: float | Distribution) -> float:
    """The shortest step that `dt` stands for."""
    return dt.shortest if isinstance(dt, Distribution) else dt


def draw(dt: float | Distribution, generator: Generator) -> float:
    """A step: `dt` itself, or one drawn from it."""
    return dt.draw(generator) if isinstance(dt, Distribution) else dt


def check_step(name: str, step: float) -> None:
    """Raise unless `step` is a positive, finite number."""
    if isinstance(step, bool) or not isinstance(step, (int, float)):
        raise TypeError(f"{name} must be a number, got {step!r}: give a step such as 0.1.")
    if not 0 < step < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {step!r}.")


def _check_range(owner: Distribution, low: float, high: float) -> None:
    check_step(f"{type(owner).__name__}: low", low)
    check_step(f"{type(owner).__name__}: high", high)
    if low > high:
        raise ValueError(f"{type(owner).__name__}: low = {low} is above high = {high}: swap them.")


def _unit(generator: Generator) -> float:
    return float(torch.rand((), generator=generator, dtype=torch.float64))
