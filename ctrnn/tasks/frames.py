"""Signals seen in frames at irregular times, each held until the next; what a signal was is asked at its end."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from torch import Tensor

from ctrnn.drive import Held

from .grid import box, samples
from .trials import HasOutputs, Outputs, Trials, outputs


def frames(trials: Trials) -> Held:
    """The frames of these trials as a drive in which each trial has its own times.

    The same signal as `trials.us`, which says it in samples of one length: a flow may be driven by either, a network
    that takes one step for each frame needs this one.

    Raises:
        ValueError: these trials are not seen in frames.
    """
    if "frame" not in trials.periods or "frame" not in trials.condition:
        raise ValueError(
            f"these trials have the periods {', '.join(trials.periods) or 'none'} and no frames: "
            "drive a network with Held(trials.us, trials.dt, lengths=trials.lengths)"
        )
    start, stop = trials.periods["frame"]
    lengths = start.isfinite().sum(1)
    end = stop.gather(1, lengths[:, None] - 1)
    after = torch.arange(start.shape[1] + 1, device=start.device) - lengths[:, None]
    # Padding needs times too: whatever increases.
    edges = torch.where(after < 0, torch.cat([start, end], 1), end + after)
    return Held(trials.condition["frame"].transpose(0, 1), edges=edges.T, lengths=lengths)


@dataclass(frozen=True)
class Framed:
    """Common part of the tasks whose signals are seen in frames: which class a signal is of is asked at its end.

    `periods["frame"]` (2, batch, frame): when each frame begins and when the next one does, in order; inf: no frame.
    `condition["frame"]` (batch, frame, n_in): what they show. `targets` (batch, 1): the class. Only the last sample of
    each trial is scored.
    """

    @property
    def n_out(self) -> int:
        raise NotImplementedError

    def loss(self, ys: Float[Tensor, "time batch n_out"], trials: Trials) -> Float[Tensor, ""]:
        """Cross-entropy of the class at the end of each trial: ys are unnormalised, softmax is taken here."""
        return F.cross_entropy(self._last(Outputs(ys), trials), trials.targets[:, 0])

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """accuracy: trials at whose end the class has the largest output."""
        right = self._last(traj, trials).argmax(-1) == trials.targets[:, 0]
        return {"accuracy": right.double().mean().item()}

    def chance(self, trials: Trials) -> dict[str, float]:
        """Always the most frequent class of these trials."""
        return {"accuracy": trials.targets.flatten().bincount().max().item() / len(trials.targets)}

    def _last(self, traj: HasOutputs, trials: Trials) -> Float[Tensor, "batch n_out"]:
        ys = outputs(traj, trials, self.n_out)
        assert trials.lengths is not None
        return ys[trials.lengths - 1, torch.arange(ys.shape[1], device=ys.device)]


def sampled(
    values: Float64[Tensor, "batch place n_in"],
    start: Float64[Tensor, "batch place"],
    end: Float64[Tensor, "batch"],
    label: Int[Tensor, "batch"],
    condition: Mapping[str, Tensor],
    dt: float,
) -> Trials:
    """Trials of the frames that start at these times (inf: no frame), each held until the next, the last until `end`.

    The first of each trial starts at 0. In float64.
    """
    start, order = start.sort(1)
    count = start.isfinite().sum(1)
    start = start[:, : int(count.max())]
    present = start.isfinite()
    values = values.gather(1, order[:, : start.shape[1], None].expand(-1, -1, values.shape[2])) * present[..., None]
    following = torch.cat([start[:, 1:], torch.full_like(end, torch.inf)[:, None]], 1)
    stop = torch.where(present, torch.minimum(following, end[:, None]), torch.inf)
    frame, lengths = torch.stack([start, stop]), samples(end, dt)
    steps = int(lengths.max())
    return Trials(
        us=torch.einsum("tbf,bfi->tbi", box(frame, dt, steps), values),
        targets=label[:, None],
        mask=torch.arange(steps)[:, None] == lengths - 1,
        lengths=lengths,
        periods={"frame": frame},
        condition={**condition, "frame": values},
        dt=dt,
    )
