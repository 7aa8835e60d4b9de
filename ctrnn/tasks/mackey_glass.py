"""The Mackey-Glass equation, made by a stated rule: rules differ by more than published predictions err."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .draws import dtype_or_default, require, source, uniform


class Weights(NamedTuple):
    """y(t + h) = keep y(t) + start p(t) + middle p(t + h/2) + end p(t + h), p what the delayed y produces."""

    keep: float
    start: float
    middle: float
    end: float


Rule = Callable[[float, float], Weights]


def euler(gamma: float, h: float) -> Weights:
    """Forward Euler, Jaeger's rule (GMD Report 148, eq. 23): first order."""
    return Weights(1 - gamma * h, h, 0.0, 0.0)


def rk4(gamma: float, h: float) -> Weights:
    """Runge-Kutta of order four, the delayed y between two nodes by Hermite interpolation: fourth order."""
    z = -gamma * h
    keep = 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24
    return Weights(keep, h / 6 * (1 + z + z**2 / 2 + z**3 / 4), h / 6 * (4 + 2 * z + z**2 / 2), h / 6)


@dataclass(frozen=True)
class MackeyGlass:
    """dy/dt = beta y_d / (1 + y_d^power) - gamma y,   y_d = y(t - delay).

    Mackey & Glass (1977), Science 197:287-289. Chaotic for a delay of 17, more so for 30. The defaults are Jaeger's
    (2001, GMD Report 148, section 6.1): Euler steps of 0.1, of which every tenth is shown.

    Args:
        delay: in units of time, a whole number of h.
        h: step of the rule.
        rule: how a step is made, `euler` or `rk4`.
        beta, gamma, power: as above.

    Raises:
        ValueError: the delay is no whole number of steps, or a number is impossible.
    """

    delay: float = 17.0
    h: float = 0.1
    rule: Rule = euler
    beta: float = 0.2
    gamma: float = 0.1
    power: float = 10.0

    def __post_init__(self) -> None:
        require(self.delay > 0, f"delay = {self.delay} must be above 0")
        _whole(self.delay, self.h, "delay")

    @property
    def nodes(self) -> int:
        """Steps in one delay."""
        return _whole(self.delay, self.h, "delay")

    def produced(self, y: Tensor) -> Tensor:
        """beta y / (1 + y^power): what the delayed y adds."""
        return self.beta * y / (1 + y**self.power)

    def continued(self, history: Float64[Tensor, "node *batch"], steps: int) -> Float64[Tensor, "step *batch"]:
        """y after each of `steps` steps that follow a history.

        Args:
            history: y from t - delay to t, `nodes` + 1 values h apart, read as straight lines between them.
            steps: how many.

        Raises:
            ValueError: the history has another number of values.
        """
        m = self.nodes
        require(len(history) == m + 1, f"a history of {len(history)} values does not fit: {m + 1} are needed")
        weights = self.rule(self.gamma, self.h)
        past, middles, made = history, (history[1:] + history[:-1]) / 2, [history[:0]]
        for _ in range(-(-steps // m)):
            past, middles = self._delay(weights, past, middles)
            made.append(past[1:])
        return torch.cat(made)[:steps]

    def _delay(self, weights: Weights, past: Tensor, middles: Tensor) -> tuple[Tensor, Tensor]:
        """One delay further: y at the nodes and between them.

        All that is delayed is known then, and what is left is linear in y: a weighted sum.
        """
        p, q = self.produced(past), self.produced(middles)
        gain = weights.start * p[:-1] + weights.middle * q + weights.end * p[1:]
        decay = weights.keep ** torch.arange(len(past), dtype=torch.float64).reshape(-1, *[1] * (past.ndim - 1))
        y = torch.cat([past[-1:], decay[1:] * (past[-1] + (gain / decay[1:]).cumsum(0))])
        slope = p - self.gamma * y
        return y, (y[1:] + y[:-1]) / 2 + self.h / 8 * (slope[:-1] - slope[1:])

    def series(
        self,
        n: int,
        batch: int,
        generator: torch.Generator | None = None,
        *,
        dt: float = 1.0,
        washout: float = 1000.0,
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "time batch 1"]:
        """n samples of y, dt apart, on the attractor: each series starts from a constant past, drawn from [1.1, 1.3).

        Args:
            n: samples.
            batch: series.
            generator: where the pasts are drawn from.
            dt: time between samples, a whole number of h.
            washout: time before the first sample.
            dtype: of the result; the computation is in float64.

        Raises:
            ValueError: n or batch is no count, or dt no whole number of h.
        """
        generator, dtype = source(batch, generator), dtype_or_default(dtype)
        require(n >= 1, f"n = {n}: ask for at least one sample")
        every = _whole(dt, self.h, "dt")
        first = round(washout / self.h)
        history = uniform(1.1, 1.3, (batch, 1), generator).expand(self.nodes + 1, batch, 1)
        return self.continued(history, first + every * n)[first + every - 1 :: every].to(dtype)


def _whole(time: float, h: float, name: str) -> int:
    """How many steps h a time holds."""
    require(h > 0, f"h = {h} must be above 0")
    steps = round(time / h)
    require(steps >= 1 and abs(steps * h - time) <= 1e-9 * time, f"{name} = {time} is no whole number of steps h = {h}")
    return steps
