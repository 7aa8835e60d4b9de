"""How long a pulse lasted, where only the times of the frames tell."""

import math
from dataclasses import dataclass

import torch

from .draws import dtype_or_default, integers, require, source, uniform
from .frames import Framed, sampled
from .grid import check_dt
from .trials import Trials


@dataclass(frozen=True)
class PulseDuration(Framed):
    """u(t) = 1 during pulses and 0 between them: did the last pulse last longer than `threshold`?

    Gap, pulse, gap, ..., gap; each lasts as long as drawn, log-uniformly, from `duration` (low, high), in the unit of
    the network's tau. The signal is seen in frames: one where a gap or pulse begins, and others inside it, `frames`
    (fewest, most) in all, spread evenly but for a jitter. How many there are does not depend on how long it lasts: what
    the frames show says nothing about the answer, when they come says everything.

    Frames are drawn last: other `frames` show the same signals. `condition`, besides what `Framed` says: `pulses` (how
    many) and `lasted` (how long the last of them), (batch,).
    """

    pulses: tuple[int, int] = (1, 3)
    duration: tuple[float, float] = (1.0, 4.0)
    threshold: float = 2.0
    frames: tuple[int, int] = (1, 4)

    def __post_init__(self) -> None:
        require(1 <= self.pulses[0] <= self.pulses[1], f"pulses = {self.pulses} is no range (fewest, most)")
        require(
            0 < self.duration[0] <= self.duration[1], f"duration = {self.duration} is no range (low, high) of durations"
        )
        require(self.threshold > 0, f"threshold = {self.threshold}: every pulse lasts longer than that")
        require(1 <= self.frames[0] <= self.frames[1], f"frames = {self.frames} is no range (fewest, most)")

    @property
    def n_in(self) -> int:
        return 1

    @property
    def n_out(self) -> int:
        return 2

    def trials(
        self,
        batch: int,
        dt: float,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Trials:
        """Raises ValueError for dt longer than the shortest pulse may be."""
        generator, dtype = source(batch, generator), dtype_or_default(dtype)
        check_dt(dt, self.duration[0], "the shortest pulse")
        pulses = integers(*self.pulses, (batch,), generator)
        parts = 2 * self.pulses[1] + 1  # gap, pulse, gap, ...
        low, high = map(math.log, self.duration)
        lasts = uniform(low, high, (batch, parts), generator).exp()
        count = integers(*self.frames, (batch, parts), generator)[..., None]
        jitter = uniform(-0.3, 0.3, (batch, parts, self.frames[1]), generator)

        lasts = torch.where(torch.arange(parts) < 2 * pulses[:, None] + 1, lasts, 0.0)
        end = lasts.cumsum(1)
        k = torch.arange(self.frames[1])
        place = torch.where(k > 0, k + jitter, 0.0) / count
        start = (end - lasts)[..., None] + place * lasts[..., None]
        start = torch.where((k < count) & (lasts[..., None] > 0), start, torch.inf).flatten(1)
        high_now = (torch.arange(parts) % 2).double()[:, None].expand(batch, -1, len(k)).flatten(1)
        lasted = lasts.gather(1, 2 * pulses[:, None] - 1)[:, 0]
        label, condition = (lasted > self.threshold).long(), {"pulses": pulses, "lasted": lasted}
        return sampled(high_now[..., None], start, end[:, -1], label, condition, dt).to(dtype=dtype, device=device)
