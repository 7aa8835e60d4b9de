"""Period and phase of a rhythm."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from torch import Tensor


class Rhythm(NamedTuple):
    """One signal's rounds, each from one upward crossing of its middle to the next."""

    period: float  # mean length of a round; NaN where there is none
    deviation: float  # standard deviation of that length: near 0 for a periodic signal; NaN for fewer than two rounds
    amplitude: float  # half of greatest minus least value
    crossings: Float[Tensor, " crossing"]  # their times
    phase: Float[Tensor, " time"]  # 0 to 2 pi within a round, straight in time; NaN before the first and after the last

    @property
    def regular(self) -> bool:
        """Whether there are at least two rounds whose lengths differ by less than 5 %."""
        return self.deviation < 0.05 * self.period


def rhythm(signal: Float[Tensor, " time"], dt: float, *, transient: float = 0.0) -> Rhythm:
    """Period and phase of a signal, from upward crossings of its middle on a cubic spline.

    The middle lies halfway between greatest and least value. A crossing counts if the signal has been below the middle
    by a quarter of its amplitude since the last one, so that noise at the crossing is not counted.

    Args:
        signal: one unit or one coordinate, sampled every dt.
        dt: time between two samples.
        transient: time at the beginning that is left out; its phase is NaN.

    Raises:
        TypeError: the signal is no Tensor.
        ValueError: the signal is not one-dimensional, holds NaN, or has fewer than four samples after the transient.
    """
    if not isinstance(signal, Tensor):
        raise TypeError(
            f"signal must be a Tensor (time,), got {type(signal).__name__}: pick one coordinate of a NamedTuple, as "
            "analysis.ravelled(xs)[:, 0] does, or convert an array with torch.as_tensor."
        )
    if signal.ndim != 1:
        raise ValueError(f"signal must be one coordinate (time,), got the shape {tuple(signal.shape)}.")
    if not dt > 0 or transient < 0:
        raise ValueError(f"dt = {dt}, transient = {transient}: need a positive step and no negative time.")
    first = math.ceil(transient / dt)
    values = signal.detach().double().cpu().numpy()[first:]
    if len(values) < 4:
        raise ValueError(f"{len(values)} samples remain after the transient: take a longer run or a shorter transient.")
    if not np.isfinite(values).all():
        raise ValueError("the signal holds NaN or infinite values: cut them off before.")
    ts = dt * np.arange(first, first + len(values))
    middle, amplitude = (values.max() + values.min()) / 2, (values.max() - values.min()) / 2
    crossings = _crossings(ts, values - middle, amplitude)
    rounds = np.diff(crossings)
    phase = torch.full(signal.shape, torch.nan, dtype=torch.float64)
    if len(rounds):
        inside = (ts >= crossings[0]) & (ts <= crossings[-1])
        turns = np.interp(ts[inside], crossings, np.arange(len(crossings)))
        phase[first:][torch.from_numpy(inside)] = torch.from_numpy(2 * np.pi * (turns % 1))
    return Rhythm(
        float(rounds.mean()) if len(rounds) else math.nan,
        float(rounds.std()) if len(rounds) > 1 else math.nan,
        float(amplitude),
        torch.from_numpy(crossings),
        phase,
    )


def _crossings(ts: np.ndarray, values: np.ndarray, amplitude: float) -> np.ndarray:
    """Times of the upward zeros of the spline before each of which the signal was well below zero."""
    if amplitude <= 1e-12 * (1 + np.abs(values).max()):
        return np.empty(0)
    spline = CubicSpline(ts, values)
    zeros = np.array([t for t in spline.roots(extrapolate=False) if spline(t, 1) > 0])
    low = ts[values < -amplitude / 4]
    kept, since = [], -np.inf
    for t in zeros:
        if ((low > since) & (low < t)).any():
            kept.append(t)
            since = t
    return np.array(kept)
