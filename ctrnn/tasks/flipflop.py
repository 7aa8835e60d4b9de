"""Remembering the sign of the last pulse on each of several channels."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .draws import dtype_or_default, require, signs, source, uniform
from .grid import box, check_dt, inside, nodes, samples
from .trials import HasOutputs, Trials, best_constant, masked_mse, outputs, scored


@dataclass(frozen=True)
class FlipFlop:
    """y_i(t) = sign of the last pulse on u_i before t; 0 before the first one (Sussillo & Barak 2013, n-bit flip-flop).

    Pulses of height +-1 and width `pulse` come at random times: from the end of one to the start of the next passes an
    exponentially distributed time of mean `interval`. Times are in the unit of the network's tau; the defaults suit
    tau = 1.

    bits: channels in and out; duration: length of a trial; grace: how long after each onset, on any bit, the trial is
    not scored. `periods["pulse"]` is (2, batch, bits, pulse), with inf for pulses that do not come;
    `condition["sign"]` is (batch, bits, pulse).
    """

    bits: int = 3
    duration: float = 30.0
    pulse: float = 1.0
    interval: float = 5.0
    grace: float = 1.0

    def __post_init__(self) -> None:
        require(self.bits >= 1, f"bits = {self.bits}: a flip-flop has at least one")
        require(self.pulse > 0, f"pulse = {self.pulse}: a pulse has a positive width")
        require(self.duration > self.pulse, f"duration = {self.duration} leaves no room for a pulse of {self.pulse}")
        require(self.interval > 0, f"interval = {self.interval}: the mean pause between pulses is positive")
        require(self.grace >= 0, f"grace = {self.grace}: it is a duration, 0 for none")

    @property
    def n_in(self) -> int:
        return self.bits

    @property
    def n_out(self) -> int:
        return self.bits

    def trials(
        self,
        batch: int,
        dt: float,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Trials:
        """Raises ValueError for dt longer than a pulse."""
        generator, dtype = source(batch, generator), dtype_or_default(dtype)
        check_dt(dt, self.pulse, "the pulse")
        shape = (batch, self.bits, math.ceil(self.duration / self.pulse))  # more pulses than fit in a trial
        pauses = -self.interval * torch.log1p(-uniform(0.0, 1.0, shape, generator))
        sign = signs(shape, generator)

        onset = pauses.cumsum(-1) + self.pulse * torch.arange(shape[-1], dtype=torch.float64)
        onset = onset.masked_fill(onset > self.duration - self.pulse, math.inf)
        most = max(1, int(onset.isfinite().sum(-1).max()))
        onset, sign = onset[..., :most].contiguous(), sign[..., :most]
        pulses = torch.stack([onset, onset + self.pulse])

        trial = torch.tensor([[0.0], [self.duration]], dtype=torch.float64).expand(2, batch)
        steps = int(samples(trial[1], dt)[0])
        t = nodes(dt, steps, torch.tensor(0))[1:].expand(batch, self.bits, steps).contiguous()
        came = torch.searchsorted(onset, t)
        settled = came == torch.searchsorted(onset + self.grace, t)
        last = torch.cat([torch.zeros_like(sign[..., :1]), sign], -1).gather(-1, came)
        return Trials(
            us=(sign * box(pulses, dt, steps)).sum(-1),
            targets=last.movedim(-1, 0),
            mask=settled.all(1).T & inside(trial, dt, steps),
            lengths=None,
            periods={"trial": trial, "pulse": pulses},
            condition={"sign": sign},
            dt=dt,
        ).to(dtype=dtype, device=device)

    def loss(self, ys: Float[Tensor, "time batch bits"], trials: Trials) -> Float[Tensor, ""]:
        """Masked mean squared error."""
        return masked_mse(ys, trials)

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """mse, and accuracy: the fraction of bits with the right sign, at scored times after the bit's first pulse."""
        ys = outputs(traj, trials, self.n_out)
        held = scored(trials)[..., None] & (trials.targets != 0)
        right = (ys >= 0) == (trials.targets > 0)
        return {"mse": masked_mse(ys, trials).item(), "accuracy": right[held].double().mean().item()}

    def chance(self, trials: Trials) -> dict[str, float]:
        """Scores of the best constant output on these trials."""
        return self.evaluate(best_constant(trials), trials)
