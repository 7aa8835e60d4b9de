"""What a task hands out, and the scores that every task shares."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64, Int, Num
from torch import Tensor

from .grid import inside


class Trials(NamedTuple):
    """A batch of trials, sampled on a grid of step `dt` from events that do not know `dt`.

    `us[k]` is the mean of the continuous input over (t_k, t_{k+1}], so a held drive delivers exactly the input's area
    at any dt. `targets[k]` and `mask[k]` belong to t_{k+1}, where `us[k]` has just acted; what begins at t_{k+1} itself
    is not seen there yet. Labels without times (digit strings) are integers `(batch, label)` padded with -1.
    """

    us: Float[Tensor, "time *batch n_in"]
    targets: Num[Tensor, "time *batch n_out"] | Int[Tensor, "*batch label"]
    mask: Bool[Tensor, "time *batch"] | None  # the samples that are scored; None: all of them
    lengths: Int[Tensor, "*batch"] | None  # samples that belong to each trial; None: all of them
    periods: Mapping[str, Float64[Tensor, "2 *event"]]  # start and stop, in the unit of tau; inf: never
    condition: Mapping[str, Tensor]  # what was drawn for each trial
    dt: float

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "Trials":
        """The same trials on `device`, real values in `dtype`. Periods are times and stay float64."""

        def real(a: Tensor) -> Tensor:
            return a.to(device, dtype if a.is_floating_point() else a.dtype)

        return Trials(
            us=real(self.us),
            targets=real(self.targets),
            mask=None if self.mask is None else self.mask.to(device),
            lengths=None if self.lengths is None else self.lengths.to(device),
            periods={name: period.to(device) for name, period in self.periods.items()},
            condition={name: real(a) for name, a in self.condition.items()},
            dt=self.dt,
        )


@runtime_checkable
class HasOutputs(Protocol):
    """Anything with outputs `ys (time, *batch, n_out)`: a `Trajectory`, or a network of the user's own."""

    @property
    def ys(self) -> Tensor | None: ...


class Outputs(NamedTuple):
    """Outputs alone, for scoring what no network produced."""

    ys: Float[Tensor, "time *batch n_out"]


@runtime_checkable
class Task(Protocol):
    """What `learning.fit` and the scenarios ask of a task. Any object with these members is one."""

    @property
    def n_in(self) -> int: ...

    @property
    def n_out(self) -> int: ...

    def trials(
        self,
        batch: int,
        dt: float,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Trials: ...

    def loss(self, ys: Float[Tensor, "time batch n_out"], trials: Trials) -> Float[Tensor, ""]: ...

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]: ...

    def chance(self, trials: Trials) -> dict[str, float]: ...


def outputs(traj: HasOutputs, trials: Trials, n_out: int) -> Float[Tensor, "time *batch n_out"]:
    """`traj.ys`, checked against the trials. Raises ValueError if they do not belong together."""
    ys = traj.ys
    if ys is None:
        raise ValueError("traj.ys is None: the model has no readout; give it n_out, or score a readout of your own")
    expected = (*trials.us.shape[:-1], n_out)
    if tuple(ys.shape) != expected:
        raise ValueError(
            f"ys has shape {tuple(ys.shape)} but these trials need (time, batch, n_out) = {expected}: "
            "score the trajectory that these trials drove, saved once per sample (the default of `save`)"
        )
    return ys


def scored(trials: Trials) -> Bool[Tensor, "time *batch"]:
    """The samples that count, as a mask."""
    if trials.mask is not None:
        return trials.mask
    return torch.ones(trials.us.shape[:-1], dtype=torch.bool, device=trials.us.device)


def masked_mse(ys: Float[Tensor, "time *batch n_out"], trials: Trials) -> Float[Tensor, ""]:
    """Mean squared error over the scored samples."""
    ys = outputs(Outputs(ys), trials, trials.targets.shape[-1])
    mask = scored(trials)
    # Selected, not multiplied: a NaN where nothing is scored must reach neither the loss nor its gradient.
    return (ys[mask] - trials.targets[mask]).square().mean()


def period_mean(ys: Float[Tensor, "time batch n_out"], trials: Trials, name: str) -> Float[Tensor, "batch n_out"]:
    """Mean of `ys` over the scored samples of the period `name`, one row per trial."""
    mask = (scored(trials) & inside(trials.periods[name], trials.dt, len(ys)))[..., None]
    return torch.where(mask, ys, 0).sum(0) / mask.sum(0)


def best_constant(trials: Trials) -> Outputs:
    """The constant output nearest to the targets (their masked mean): what can be had without looking at the input."""
    return Outputs(trials.targets[scored(trials)].mean(0).expand(trials.targets.shape))
