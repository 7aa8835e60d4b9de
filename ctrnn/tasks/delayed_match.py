"""Comparing a stimulus with one seen before a delay."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .draws import dtype_or_default, integers, require, source, uniform
from .grid import box, check_dt, inside, samples
from .trials import HasOutputs, Trials, best_constant, masked_mse, outputs, period_mean, scored


@dataclass(frozen=True)
class DelayedMatch:
    """Delayed match to sample: fixation, sample, delay, test, response; was the test the sample?

    Inputs: the fixation cue (1 until the response starts: its end is the go cue), then one channel per stimulus.
    Outputs: fixate, match, non-match; the target is 1 on the right one. `delay` (low, high) is drawn uniformly for each
    trial; if they differ, trials end at different times (`lengths`). Times are in the unit of the network's tau; the
    defaults suit tau = 1. The first `grace` of the trial and of the response are not scored.
    `condition`, (batch,): `sample` and `test` (which stimulus), `match`.
    """

    n_stimuli: int = 2
    p_match: float = 0.5
    fixation: float = 2.0
    sample: float = 3.0
    delay: tuple[float, float] = (2.0, 8.0)
    test: float = 3.0
    response: float = 3.0
    grace: float = 1.0

    def __post_init__(self) -> None:
        require(self.n_stimuli >= 2, f"n_stimuli = {self.n_stimuli}: a non-match needs at least two")
        require(0 <= self.p_match <= 1, f"p_match = {self.p_match} is no probability: it lies in [0, 1]")
        require(0 <= self.delay[0] <= self.delay[1], f"delay = {self.delay} is no range (low, high) of durations")
        for name in ("fixation", "sample", "test", "response"):
            require(getattr(self, name) > 0, f"{name} = {getattr(self, name)}: this period has a positive duration")
        require(0 <= self.grace < self.response, f"grace = {self.grace} must be less than response = {self.response}")

    @property
    def n_in(self) -> int:
        return 1 + self.n_stimuli

    @property
    def n_out(self) -> int:
        return 3

    def trials(
        self,
        batch: int,
        dt: float,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Trials:
        """Raises ValueError for dt longer than fixation, sample, test, or the scored part of the response."""
        generator, dtype = source(batch, generator), dtype_or_default(dtype)
        for name in ("fixation", "sample", "test"):
            check_dt(dt, getattr(self, name), f"the {name} period")
        check_dt(dt, self.response - self.grace, "the scored part of the response period")

        match = uniform(0.0, 1.0, (batch,), generator) < self.p_match
        sample = integers(0, self.n_stimuli - 1, (batch,), generator)
        other = (sample + integers(1, self.n_stimuli - 1, (batch,), generator)) % self.n_stimuli
        test = torch.where(match, sample, other)
        delay = uniform(*self.delay, (batch,), generator)

        periods = self._periods(delay)
        go, end = periods["response"]
        lengths = samples(end, dt)
        steps = int(lengths.max())
        one_hot = torch.eye(self.n_stimuli, dtype=torch.float64)
        shown = box(periods["sample"], dt, steps)[..., None] * one_hot[sample]
        shown = shown + box(periods["test"], dt, steps)[..., None] * one_hot[test]
        waiting = torch.stack([torch.zeros_like(go), go])
        before, after = inside(waiting, dt, steps), inside(periods["response"], dt, steps)
        scored_before = inside(torch.stack([torch.full_like(go, self.grace), go]), dt, steps)
        scored_after = inside(torch.stack([go + self.grace, end]), dt, steps)
        return Trials(
            us=torch.cat([box(waiting, dt, steps)[..., None], shown], -1),
            targets=torch.stack([before, after & match, after & ~match], -1).double(),
            mask=scored_before | scored_after,
            lengths=None if self.delay[0] == self.delay[1] else lengths,
            periods=periods,
            condition={"sample": sample, "test": test, "match": match},
            dt=dt,
        ).to(dtype=dtype, device=device)

    def _periods(self, delay: Float[Tensor, "batch"]) -> dict[str, Tensor]:
        zero = torch.zeros_like(delay)
        durations = torch.stack(
            [zero, zero + self.fixation, zero + self.sample, delay, zero + self.test, zero + self.response]
        )
        edges = durations.cumsum(0)
        names = ("fixation", "sample", "delay", "test", "response")
        return {name: edges[i : i + 2] for i, name in enumerate(names)}

    def loss(self, ys: Float[Tensor, "time batch 3"], trials: Trials) -> Float[Tensor, ""]:
        """Masked mean squared error."""
        return masked_mse(ys, trials)

    def choices(self, traj: HasOutputs, trials: Trials) -> Bool[Tensor, "batch"]:
        """True where the outputs, averaged over the scored response, say match rather than non-match."""
        answer = period_mean(outputs(traj, trials, self.n_out), trials, "response")
        return answer[:, 1] >= answer[:, 2]

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """Scores accuracy, of the choices whether or not fixation was kept, and broken_fixation.

        A trial breaks fixation if, at any scored sample before the response, fixate was not the largest output.
        """
        ys = outputs(traj, trials, self.n_out)
        waiting = scored(trials) & ~inside(trials.periods["response"], trials.dt, len(ys))
        broken = (waiting & (ys.argmax(-1) != 0)).any(0)
        right = self.choices(traj, trials) == trials.condition["match"]
        return {"accuracy": right.double().mean().item(), "broken_fixation": broken.double().mean().item()}

    def chance(self, trials: Trials) -> dict[str, float]:
        """Scores of the best constant output: the accuracy of the commoner answer, about 0.5 at p_match = 0.5."""
        return self.evaluate(best_constant(trials), trials)
