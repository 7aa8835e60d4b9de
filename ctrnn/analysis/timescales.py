"""How long activity remembers itself: autocorrelation times of units and of groups."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ctrnn._types import State
from ctrnn.analysis.subspace import ravelled


def autocorrelation(xs: State, lags: int) -> Float[Tensor, "lag D"]:
    """Autocorrelation of each unit at the lags 0 ... `lags` in samples, averaged over the batch.

    The mean over time and batch is taken off once, and each lag is divided by as many products as it has, so that the
    estimate of a long stationary run is unbiased; over a run of T it is too small by about 2 tau / T.

    Args:
        xs: states (time, *batch, D), or a NamedTuple of them, ravelled side by side.
        lags: the greatest.

    Raises:
        TypeError: the states are no Tensors.
        ValueError: the trajectory is no longer than the lags, has no axis of units, or holds NaN.
    """
    xs = ravelled(xs)
    if xs.ndim < 2:
        raise ValueError(f"xs must be (time, *batch, D), got the shape {tuple(xs.shape)}: one unit is xs[:, None].")
    xs = xs.detach().double()
    if not 0 < lags < len(xs):
        raise ValueError(f"{len(xs)} samples hold the lags 1 to {len(xs) - 1}, not {lags}: take a longer trajectory.")
    if not bool(torch.isfinite(xs).all()):
        raise ValueError("the trajectory holds NaN or infinite values: cut them off before.")
    centred = xs - xs.mean(tuple(range(xs.ndim - 1)), keepdim=True)
    # The circular correlation of the padded signal is the linear one.
    spectrum = torch.fft.rfft(centred, n=2 * len(xs), dim=0)
    products = torch.fft.irfft(spectrum.abs().square(), n=2 * len(xs), dim=0)[: lags + 1]
    while products.ndim > 2:
        products = products.sum(1)
    mean = products / (len(xs) - torch.arange(lags + 1, device=xs.device, dtype=xs.dtype))[:, None]
    return torch.where(mean[0] > 0, mean / mean[0].clamp(min=torch.finfo(mean.dtype).tiny), torch.nan)


class Timescales(NamedTuple):
    """Autocorrelation times in the unit of dt, and what they were read from."""

    units: Float[Tensor, " D"]  # NaN for a unit that stands still or remembers longer than the longest lag
    groups: dict[str, float]
    lags: Float[Tensor, " lag"]
    autocorrelation: Float[Tensor, "lag D"]


def timescales(
    xs: State,
    dt: float,
    *,
    groups: Mapping[str, slice | Tensor] | None = None,
    longest: float | None = None,
) -> Timescales:
    """The time at which the autocorrelation of each unit has fallen to 1/e, exact for an exponential one.

    Between two lags its logarithm is taken as straight. Of a group: the same of its units' mean autocorrelation.

    Args:
        xs: stationary states (time, *batch, D), or a NamedTuple of them, ravelled side by side.
        dt: time between two samples.
        groups: names of parts of the units, such as {"fast": slice(0, 60), "slow": slice(60, 80)}.
        longest: greatest lag, in the unit of dt; a quarter of the run if None.

    Raises:
        TypeError: the states are no Tensors.
        ValueError: the trajectory is shorter than the longest lag, or a group has no units.
    """
    if not dt > 0:
        raise ValueError(f"dt = {dt}: the time between samples is positive.")
    xs = ravelled(xs)
    lags = max(1, len(xs) // 4) if longest is None else round(longest / dt)
    found = autocorrelation(xs, lags)
    by_group = {}
    for name, members in (groups or {}).items():
        if not found[:, members].shape[1]:
            raise ValueError(f"the group {name!r} has no units.")
        by_group[name] = float(_fall(found[:, members].nanmean(1, keepdim=True))[0]) * dt
    ts = dt * torch.arange(lags + 1, dtype=torch.float64, device=found.device)
    return Timescales(_fall(found) * dt, by_group, ts, found)


def _fall(autocorrelation: Tensor) -> Tensor:
    """The lag, in samples, at which each column first falls to 1/e."""
    below = autocorrelation <= 1 / math.e
    after = below.int().argmax(0)
    tiny = torch.finfo(autocorrelation.dtype).tiny
    logs = autocorrelation.clamp(min=tiny).log()
    low, high = logs.gather(0, after[None])[0], logs.gather(0, (after - 1).clamp(min=0)[None])[0]
    # A fall through zero within one lag has no logarithm to follow: the straight line between the values instead.
    values = autocorrelation.gather(0, after[None])[0], autocorrelation.gather(0, (after - 1).clamp(min=0)[None])[0]
    straight = (values[1] - 1 / math.e) / (values[1] - values[0]).clamp(min=tiny)
    part = torch.where(values[0] > 0, (high + 1) / (high - low).clamp(min=tiny), straight)
    return torch.where(below.any(0), (after - 1) + part, torch.nan)
