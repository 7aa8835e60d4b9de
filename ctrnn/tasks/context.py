"""Integrating one of two streams of noisy evidence, the one that a context selects."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .draws import dtype_or_default, integers, normal, require, signs, source, uniform
from .grid import box, check_dt, inside, samples, staircase
from .trials import HasOutputs, Trials, best_constant, masked_mse, outputs, period_mean


@dataclass(frozen=True)
class ContextIntegration:
    """y = sign of the attended evidence, motion or colour (Mante, Sussillo, Shenoy & Newsome 2013; durations are ours).

    Inputs: motion and colour evidence (signed coherence + noise, during the stimulus), context motion and context
    colour (one of them 1 all through), and the fixation cue (1 until the response starts: its end is the go cue). The
    output is scored during the fixation (target 0) and the response (target +-1), not on the way. Times are in the unit
    of the network's tau; the defaults suit tau = 1.

    With the go cue it is the animals' task: the response follows the stimulus and a delay. Without it (`go_cue=False`)
    it is the network's of the paper: there is no cue among the inputs, and the response is the last part of the
    stimulus, which ends the trial.

    The noise is white with power sigma**2: a mean over dt has standard deviation sigma / sqrt(dt), and the evidence
    integrated over T has sigma * sqrt(T), at any dt that is a multiple of `noise_time`. It is drawn once, held over
    `noise_time`, and averaged onto the grid, so the same trial carries the same noise whatever dt.

    coherences: strengths >= 0, drawn independently for both streams, with random signs; at 0 the answer is a coin's.
    delay: (low, high), drawn uniformly; if they differ, trials end at different times (`lengths`). grace: the unscored
    start of the trial and of the response. `condition`, (batch,): `motion` and `colour` (signed coherence), `context`
    (0 motion, 1 colour), `answer` (+-1): with `choices` they make the psychometric curve.
    """

    coherences: tuple[float, ...] = (0.05, 0.15, 0.5)
    sigma: float = 0.3
    noise_time: float = 0.1
    fixation: float = 2.0
    stimulus: float = 10.0
    delay: tuple[float, float] = (0.0, 0.0)
    response: float = 3.0
    grace: float = 1.0
    go_cue: bool = True

    def __post_init__(self) -> None:
        require(len(self.coherences) > 0, "coherences is empty: give at least one strength of evidence")
        require(min(self.coherences) >= 0, f"coherences = {self.coherences}: strengths are >= 0, the signs are drawn")
        require(self.sigma >= 0, f"sigma = {self.sigma}: a standard deviation is not negative")
        require(0 <= self.delay[0] <= self.delay[1], f"delay = {self.delay} is no range (low, high) of durations")
        for name in ("noise_time", "fixation", "stimulus", "response"):
            require(getattr(self, name) > 0, f"{name} = {getattr(self, name)}: it must be a positive duration")
        require(
            self.go_cue or (self.delay == (0.0, 0.0) and self.response <= self.stimulus),
            f"without a go cue the response is the last part of the stimulus: make the delay (0, 0), not {self.delay}, "
            f"and response = {self.response} at most stimulus = {self.stimulus}",
        )
        require(0 <= self.grace < self.response, f"grace = {self.grace} must be less than response = {self.response}")

    @property
    def n_in(self) -> int:
        return 5 if self.go_cue else 4

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
        """Raises ValueError for dt longer than the fixation, the stimulus, or the scored part of the response."""
        generator, dtype = source(batch, generator), dtype_or_default(dtype)
        check_dt(dt, self.fixation, "the fixation period")
        check_dt(dt, self.stimulus, "the stimulus period")
        check_dt(dt, self.response - self.grace, "the scored part of the response period")

        strength = torch.tensor(self.coherences, dtype=torch.float64)
        sign = signs((2, batch), generator)
        coherence = sign * strength[integers(0, len(strength) - 1, (2, batch), generator)]
        context = integers(0, 1, (batch,), generator)
        answer = sign.gather(0, context[None])[0]
        delay = uniform(*self.delay, (batch,), generator)
        noise = normal((math.ceil(self.stimulus / self.noise_time), batch, 2), generator)
        evidence = coherence.T + self.sigma / math.sqrt(self.noise_time) * noise

        periods = self._periods(delay)
        go, end = periods["response"]
        lengths = samples(end, dt)
        steps = int(lengths.max())
        zero = torch.zeros_like(go)
        streams = staircase(evidence, self.noise_time, periods["stimulus"], dt, steps)
        attended = torch.eye(2, dtype=torch.float64)[context] * box(torch.stack([zero, end]), dt, steps)[..., None]
        cue = box(torch.stack([zero, go]), dt, steps)[..., None]
        fixating = inside(torch.stack([zero + self.grace, periods["fixation"][1]]), dt, steps)
        answering = inside(torch.stack([go + self.grace, end]), dt, steps)
        return Trials(
            us=torch.cat([streams, attended, cue] if self.go_cue else [streams, attended], -1),
            targets=(inside(periods["response"], dt, steps) * answer)[..., None],
            mask=fixating | answering,
            lengths=None if self.delay[0] == self.delay[1] else lengths,
            periods=periods,
            condition={"motion": coherence[0], "colour": coherence[1], "context": context, "answer": answer},
            dt=dt,
        ).to(dtype=dtype, device=device)

    def _periods(self, delay: Float[Tensor, "batch"]) -> dict[str, Tensor]:
        zero = torch.zeros_like(delay)
        if not self.go_cue:
            begin, end = zero + self.fixation, zero + self.fixation + self.stimulus
            spans = {"fixation": (zero, begin), "stimulus": (begin, end), "response": (end - self.response, end)}
            return {name: torch.stack(span) for name, span in spans.items()}
        edges = torch.stack([zero, zero + self.fixation, zero + self.stimulus, delay, zero + self.response]).cumsum(0)
        return {name: edges[i : i + 2] for i, name in enumerate(("fixation", "stimulus", "delay", "response"))}

    def loss(self, ys: Float[Tensor, "time batch 1"], trials: Trials) -> Float[Tensor, ""]:
        """Masked mean squared error."""
        return masked_mse(ys, trials)

    def choices(self, traj: HasOutputs, trials: Trials) -> Bool[Tensor, "batch"]:
        """True where the output, averaged over the scored response, is positive."""
        return period_mean(outputs(traj, trials, self.n_out), trials, "response")[:, 0] >= 0

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """accuracy: the fraction of trials with the right sign; mse over the scored samples."""
        ys = outputs(traj, trials, self.n_out)
        right = self.choices(traj, trials) == (trials.condition["answer"] > 0)
        return {"accuracy": right.double().mean().item(), "mse": masked_mse(ys, trials).item()}

    def chance(self, trials: Trials) -> dict[str, float]:
        """Scores of the best constant output: the accuracy of the commoner answer, about 0.5."""
        return self.evaluate(best_constant(trials), trials)
