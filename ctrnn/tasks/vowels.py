"""Who is speaking: Japanese vowels, with frames dropped."""

import functools
from dataclasses import dataclass
from importlib import resources
from typing import Literal

import torch
from jaxtyping import Float64, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .draws import dtype_or_default, require, source, uniform
from .frames import Framed, sampled
from .grid import check_dt
from .trials import Trials

SPLITS = ("train", "test")
CHANNELS, SPEAKERS = 12, 9


@functools.cache
def utterances(split: str) -> tuple[tuple[Float64[Tensor, "frame channel"], ...], Int[Tensor, "utterance"]]:
    """The utterances of a split as they were published, in their order, and their speakers 0 ... 8.

    Raises:
        ImportError: aeon, in which the data lie, is not installed.
    """
    try:
        package = resources.files("aeon")
    except ImportError as error:
        raise ModuleNotFoundError(
            "JapaneseVowels reads a file of aeon: pip install 'ctrnn-sim[scenarios]'.", name="aeon"
        ) from error
    file = package / "datasets" / "data" / "JapaneseVowels" / f"JapaneseVowels_{split.upper()}.ts"
    spoken, speakers = [], []
    for line in file.read_text(encoding="utf-8").partition("@data\n")[2].splitlines():
        *channels, speaker = line.split(":")
        rows = [[float(number) for number in channel.split(",")] for channel in channels]
        spoken.append(torch.tensor(rows, dtype=torch.float64).T)
        speakers.append(int(speaker) - 1)
    return tuple(spoken), torch.tensor(speakers)


@functools.cache
def scale() -> tuple[Float64[Tensor, " channel"], Float64[Tensor, " channel"]]:
    """Mean and standard deviation of each channel over the frames of the training split."""
    everything = torch.cat(utterances("train")[0])
    return everything.mean(0), everything.std(0, correction=0)


@dataclass(frozen=True)
class JapaneseVowels(Framed):
    """u(t) = the last frame that was not dropped; which of nine men says the vowels a and e?

    The data of Kudo, Toyama & Shimbo (1999), Pattern Recognition Letters 20:1103-1111, from the wheel of aeon (extra
    `scenarios`): 270 utterances to learn from and 370 others, of 7 to 29 frames of 12 coefficients of linear
    prediction. Each channel is shifted and scaled by its mean and standard deviation in the training split. Each frame
    but the first is dropped with a probability drawn uniformly from `drop` (low, high) for its trial, and the frame
    before it is then held on. A frame comes every `frame`, in the unit of the network's tau.

    What a trial is drawn from: the utterances of the split in random order, again and again, so that `batch` = 270 or
    370 is the whole split. `condition`, besides what `Framed` says: `speaker`, `drop`, (batch,).
    """

    split: Literal["train", "test"] = "train"
    drop: tuple[float, float] = (0.0, 0.0)
    frame: float = 1.0

    def __post_init__(self) -> None:
        require(self.split in SPLITS, f"split = {self.split!r} is none of {', '.join(SPLITS)}")
        require(0 <= self.drop[0] <= self.drop[1] <= 1, f"drop = {self.drop} is no range (low, high) of probabilities")
        require(self.frame > 0, f"frame = {self.frame}: frames come one after another")

    @property
    def n_in(self) -> int:
        return CHANNELS

    @property
    def n_out(self) -> int:
        return SPEAKERS

    def trials(
        self,
        batch: int,
        dt: float,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Trials:
        """Raises ValueError for dt longer than a frame, ImportError without aeon."""
        generator, dtype = source(batch, generator), dtype_or_default(dtype)
        check_dt(dt, self.frame, "a frame")
        spoken, speakers = utterances(self.split)
        rounds = -(-batch // len(spoken))
        which = torch.cat([torch.randperm(len(spoken), generator=generator) for _ in range(rounds)])[:batch]
        mean, deviation = scale()
        values = pad_sequence([(spoken[k] - mean) / deviation for k in which.tolist()], batch_first=True)
        total = torch.tensor([len(spoken[k]) for k in which.tolist()])
        drop = uniform(*self.drop, (batch,), generator)
        # For every frame of the longest utterance there is, so that the draws do not depend on who is in the batch.
        longest = max(map(len, spoken))
        kept = uniform(0.0, 1.0, (batch, longest), generator)[:, : values.shape[1]] >= drop[:, None]
        kept[:, 0] = True
        kept &= torch.arange(values.shape[1]) < total[:, None]

        start = torch.where(kept, torch.arange(values.shape[1]) * self.frame, torch.inf)
        speaker = speakers[which]
        trials = sampled(values, start, total * self.frame, speaker, {"speaker": speaker, "drop": drop}, dt)
        return trials.to(dtype=dtype, device=device)
