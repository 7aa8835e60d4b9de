"""Generating a sine whose frequency a constant input selects."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .draws import dtype_or_default, integers, require, source
from .grid import check_dt, inside, nodes, samples
from .trials import HasOutputs, Trials, best_constant, masked_mse, outputs, scored


@dataclass(frozen=True)
class SineGeneration:
    """y(t) = sin(2 pi f t), f chosen by the constant input u (sine wave task, Sussillo & Barak 2013; ranges are ours).

    One of `n_frequencies` frequencies, evenly spaced in `frequency` (cycles per unit of time), is drawn for each trial;
    the input sits at the same place in the range `level`. Times are in the unit of the network's tau; the defaults suit
    tau = 1. The first `grace` of a trial is not scored. `condition` holds `frequency` and `level`, (batch,).
    """

    n_frequencies: int = 51
    frequency: tuple[float, float] = (0.02, 0.2)
    level: tuple[float, float] = (0.25, 1.25)
    duration: float = 50.0
    grace: float = 1.0

    def __post_init__(self) -> None:
        low, high = self.frequency
        require(self.n_frequencies >= 1, f"n_frequencies = {self.n_frequencies}: a trial needs one to generate")
        require(0 < low <= high, f"frequency = {self.frequency} is no range (low, high) of positive frequencies")
        require(
            0 <= self.grace < self.duration, f"grace = {self.grace} must be shorter than duration = {self.duration}"
        )

    @property
    def n_in(self) -> int:
        return 1

    @property
    def n_out(self) -> int:
        return 1

    def trials(
        self,
        batch: int,
        dt: float,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Trials:
        """Raises ValueError for dt longer than half the fastest cycle, or than the scored part of a trial."""
        generator, dtype = source(batch, generator), dtype_or_default(dtype)
        check_dt(dt, 0.5 / self.frequency[1], "half the fastest cycle")
        check_dt(dt, self.duration - self.grace, "the scored part of a trial")
        which = integers(0, self.n_frequencies - 1, (batch,), generator)
        frequency = torch.linspace(*self.frequency, self.n_frequencies, dtype=torch.float64)[which]
        level = torch.linspace(*self.level, self.n_frequencies, dtype=torch.float64)[which]

        trial = torch.tensor([[0.0], [self.duration]], dtype=torch.float64).expand(2, batch)
        steps = int(samples(trial[1], dt)[0])
        t = nodes(dt, steps, frequency)[1:]
        return Trials(
            us=level.expand(steps, batch)[..., None],
            targets=torch.sin(2 * math.pi * frequency * t)[..., None],
            mask=inside(torch.stack([trial[0] + self.grace, trial[1]]), dt, steps),
            lengths=None,
            periods={"trial": trial},
            condition={"frequency": frequency, "level": level},
            dt=dt,
        ).to(dtype=dtype, device=device)

    def loss(self, ys: Float[Tensor, "time batch 1"], trials: Trials) -> Float[Tensor, ""]:
        """Masked mean squared error."""
        return masked_mse(ys, trials)

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """mse, and r2 = 1 - mse / variance of the scored targets."""
        mse = masked_mse(outputs(traj, trials, self.n_out), trials)
        return {"mse": mse.item(), "r2": (1 - mse / trials.targets[scored(trials)].var(correction=0)).item()}

    def chance(self, trials: Trials) -> dict[str, float]:
        """Scores of the best constant output on these trials: r2 = 0."""
        return self.evaluate(best_constant(trials), trials)
