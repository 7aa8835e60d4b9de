"""From continuous time to samples: interval means of inputs, and which sample times lie in a period.

Sample k covers (t_k, t_{k+1}] with t_k = k dt and is read out at t_{k+1}. Inputs are averaged, not sampled: a held
drive then delivers their area exactly at every dt, even when an event falls inside an interval. All times are float64.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

SLACK = 1e-6  # of a step: times closer than this are the same, so that 3 * 0.1 is not later than 0.3


def samples(stop: Float64[Tensor, "*batch"], dt: float) -> Int[Tensor, "*batch"]:
    """How many samples reach the time `stop`."""
    return torch.ceil(stop / dt - SLACK).long()


def nodes(dt: float, steps: int, like: Tensor) -> Float64[Tensor, "node ..."]:
    """t_0 ... t_steps, shaped to broadcast against `like` behind the time axis."""
    t = dt * torch.arange(steps + 1, dtype=torch.float64, device=like.device)
    return t.reshape(-1, *[1] * like.ndim)


def inside(period: Float64[Tensor, "2 *event"], dt: float, steps: int) -> Bool[Tensor, "steps *event"]:
    """Whether the sample time t_{k+1} lies in the period (start, stop]."""
    start, stop = period
    t = nodes(dt, steps, start)[1:]
    return (t > start + SLACK * dt) & (t <= stop + SLACK * dt)


def box(period: Float64[Tensor, "2 *event"], dt: float, steps: int) -> Float64[Tensor, "steps *event"]:
    """Interval means of the input that is 1 in the period and 0 outside: its area is kept at every dt."""
    start, stop = period / dt  # counted in steps, so that an interval inside the period gets exactly 1
    k = nodes(1.0, steps, start)
    return (torch.minimum(k[1:], stop) - torch.maximum(k[:-1], start)).clamp(min=0)


def staircase(
    values: Float64[Tensor, "stair batch channel"],
    width: float,
    period: Float64[Tensor, "2 batch"],
    dt: float,
    steps: int,
) -> Float64[Tensor, "steps batch channel"]:
    """Interval means of the input that takes the next of `values` every `width` in the period and is 0 outside."""
    start, stop = period
    t = nodes(dt, steps, start)
    place = (torch.minimum(torch.maximum(t, start), stop) - start) / width
    index = place.floor().long().clamp(max=len(values) - 1)
    before = torch.cat([torch.zeros_like(values[:1]), values.cumsum(0)])
    row = index[..., None].expand(-1, -1, values.shape[2])
    area = before.gather(0, row) + (place - index)[..., None] * values.gather(0, row)
    return area.diff(dim=0) * (width / dt)


class Stream(NamedTuple):
    """Strings of symbols as they pass in time."""

    us: Float64[Tensor, "steps batch symbol"]
    string: Float64[Tensor, "2 batch"]  # when each begins and ends
    lengths: Int[Tensor, " batch"]  # samples of each


def stream(symbols: Int[Tensor, "place batch"], n_symbols: int, width: float, dt: float) -> Stream:
    """One-hot symbols, each for a time of `width`; -1 behind the end of a string."""
    count = (symbols >= 0).sum(0)
    string = torch.stack([torch.zeros_like(count), count]).double() * width
    lengths = samples(string[1], dt)
    page = torch.eye(n_symbols, dtype=torch.float64)[symbols.clamp(min=0)]
    return Stream(staircase(page, width, string, dt, int(lengths.max())), string, lengths)


def check_dt(dt: float, shortest: float, what: str) -> None:
    """Raises ValueError unless 0 < dt <= shortest; `what` names the thing that a longer step would skip."""
    if not (dt > 0 and math.isfinite(dt)):
        raise ValueError(f"dt = {dt} is not a step: it must be positive and finite")
    if dt > shortest * (1 + SLACK):
        raise ValueError(f"dt = {dt} is longer than {what} ({shortest}): take a smaller dt, or make {what} longer")
