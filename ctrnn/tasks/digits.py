"""Reading unsegmented strings of real handwritten digits, column by column."""

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from ctrnn.decoding.ctc import best_path

from .draws import dtype_or_default, integers, require, source
from .grid import check_dt, samples, staircase
from .labels import constant_string, label_scores
from .trials import HasOutputs, Outputs, Trials, outputs, scored

SPLITS = ("train", "validation", "test")
COLUMNS = 8  # of one image, and its rows


@functools.cache
def split_indices() -> dict[str, np.ndarray]:
    """Which of the 1,797 images are for train (1,077), validation (360) and test (360).

    Disjoint, stratified by class, always the same.
    """
    classes = load_digits().target
    everything = np.arange(len(classes))
    rest, test = train_test_split(everything, test_size=360, stratify=classes, random_state=0)
    train, validation = train_test_split(rest, test_size=360, stratify=classes[rest], random_state=0)
    return {"train": train, "validation": validation, "test": test}


@functools.cache
def images(split: str) -> tuple[Float64[Tensor, "image column row"], Int[Tensor, "image"]]:
    """The split's images, ink in [0, 1], and their digits 0 ... 9."""
    data, chosen = load_digits(), split_indices()[split]
    return torch.from_numpy(data.images[chosen] / 16.0).mT.contiguous(), torch.from_numpy(data.target[chosen]).long()


@dataclass(frozen=True)
class DigitStrings:
    """u(t) = the image column under the pen at time t; y = scores of blank and the ten digits, trained by CTC.

    scikit-learn's 8x8 handwritten digits (UCI Optical Recognition, Alpaydin & Kaynak 1998), set side by side with
    `spacing` blank columns (low, high) before each and `tail` after the last. The images are split before they are put
    together, so no image of a test string was ever seen in training. One column lasts `column_time / rate`, in the unit
    of the network's tau: the same generator gives the same strings at every `rate` and every dt.

    What is said before a first digit can have ended is not scored: every string begins with some digit, and CTC, free
    to place labels anywhere, would have a network that sees the past only guess it at once; from that habit it hardly
    learns to look.

    digits: (fewest, most) per string. `targets` (batch, label): 1 + digit, padded with -1; label 0 is CTC's blank.
    `periods["string"]` (2, batch), `periods["digit"]` (2, batch, label) with inf for digits a string does not have.
    """

    split: Literal["train", "validation", "test"] = "train"
    digits: tuple[int, int] = (1, 6)
    spacing: tuple[int, int] = (1, 4)
    tail: int = 4
    column_time: float = 1.0
    rate: float = 1.0

    def __post_init__(self) -> None:
        require(self.split in SPLITS, f"split = {self.split!r} is none of {', '.join(SPLITS)}")
        require(1 <= self.digits[0] <= self.digits[1], f"digits = {self.digits} is no range (fewest, most)")
        require(0 <= self.spacing[0] <= self.spacing[1], f"spacing = {self.spacing} is no range (low, high) of columns")
        require(self.tail >= 0, f"tail = {self.tail}: it counts blank columns")
        require(self.column_time > 0, f"column_time = {self.column_time}: a column lasts a positive time")
        require(self.rate > 0, f"rate = {self.rate}: columns pass at a positive rate")

    @property
    def n_in(self) -> int:
        return COLUMNS

    @property
    def n_out(self) -> int:
        return 11

    def trials(
        self,
        batch: int,
        dt: float,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Trials:
        """Raises ValueError for dt longer than half a digit.

        Then CTC might have fewer samples than labels and the blanks between equal ones.
        """
        generator, dtype = source(batch, generator), dtype_or_default(dtype)
        width = self.column_time / self.rate
        check_dt(dt, COLUMNS / 2 * width, "half a digit")
        ink, digit = images(self.split)
        shape = (batch, self.digits[1])
        n_digits = integers(*self.digits, (batch,), generator)
        which = integers(0, len(ink) - 1, shape, generator)
        gaps = integers(*self.spacing, shape, generator)

        present = torch.arange(shape[1]) < n_digits[:, None]
        first = (gaps.cumsum(1) + COLUMNS * torch.arange(shape[1])).double()  # column where each digit starts
        total = first.gather(1, n_digits[:, None] - 1)[:, 0] + COLUMNS + self.tail
        page = torch.zeros(int(total.max()), batch, COLUMNS, dtype=torch.float64)
        row, place = present.nonzero(as_tuple=True)
        page[first[row, place].long()[:, None] + torch.arange(COLUMNS), row[:, None]] = ink[which[row, place]]

        string = torch.stack([torch.zeros(batch, dtype=torch.float64), total * width])
        lengths = samples(string[1], dt)
        steps = int(lengths.max())
        onset = torch.where(present, first * width, torch.inf)
        return Trials(
            us=staircase(page, width, string, dt, steps),
            targets=torch.where(present, 1 + digit[which], -1),
            mask=(torch.arange(steps)[:, None] >= self.unread(dt)) & (torch.arange(steps)[:, None] < lengths),
            lengths=lengths,
            periods={"string": string, "digit": torch.stack([onset, onset + COLUMNS * width])},
            condition={"n_digits": n_digits},
            dt=dt,
        ).to(dtype=dtype, device=device)

    def unread(self, dt: float) -> int:
        """Samples before the one at whose end a first digit can have ended."""
        return math.ceil((self.spacing[0] + COLUMNS) * self.column_time / self.rate / dt - 1e-6) - 1

    def loss(self, ys: Float[Tensor, "time batch 11"], trials: Trials) -> Float[Tensor, ""]:
        """CTC loss per label (Graves et al. 2006): ys are unnormalised, softmax is taken here."""
        ys, n_samples = self._read(Outputs(ys), trials)
        n_labels = (trials.targets >= 0).sum(1)
        return F.ctc_loss(ys.log_softmax(-1), trials.targets.clamp(min=0), n_samples, n_labels)

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """label_error: edits over labels, in the whole batch; sequence_accuracy: strings read without a fault.

        By best-path decoding.
        """
        return label_scores(best_path(*self._read(traj, trials)), trials.targets)

    def chance(self, trials: Trials) -> dict[str, float]:
        """Scores of a constant string fitted to these trials' labels."""
        return label_scores(constant_string(trials.targets, range(1, self.n_out)), trials.targets)

    def _read(self, traj: HasOutputs, trials: Trials) -> tuple[Tensor, Int[Tensor, "batch"]]:
        """The outputs from the first that is scored on, and how many of them belong to each string."""
        mask = scored(trials)
        return outputs(traj, trials, self.n_out)[int(mask.any(1).int().argmax()) :], mask.sum(0)
