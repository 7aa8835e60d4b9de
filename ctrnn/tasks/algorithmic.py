"""Copying, reversing, recalling and sorting vectors of bits: the tasks on which memories with addresses are trained."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from .draws import count, integers, require
from .scripted import Script, ScriptedBits, between, chained, check_range, placed


@dataclass(frozen=True)
class Copy(ScriptedBits):
    """v_1 ... v_L, a delimiter, L symbols of silence: say v_1 ... v_L meanwhile.

    Graves, Wayne & Danihelka (2014), arXiv:1410.5401, section 4.1: eight random bits, lengths 1 to 20, evenly drawn.
    Channels: the bits, 0 or 1; the delimiter. Nobody does better than chance, 8 * 10.5 = 84 bits, without a memory.
    With `episodes` a trial is several copies in turn, as in Graves et al. (2016), Nature 538:471, extended data figure
    1: ten times five vectors need fifty slots, or ten that are freed in time.
    `condition`: `length` (batch,), or (batch, episode) if there may be several; periods likewise.

    Args:
        bits: of a vector.
        lengths: vectors of an episode, evenly drawn.
        episodes: of a trial, evenly drawn for each batch: all its trials have as many.

    Raises:
        ValueError: a vector without bits, or lengths or episodes that are no range from 1 on.
    """

    bits: int = 8
    lengths: tuple[int, int] = (1, 20)
    episodes: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        count("bits", self.bits, "a vector has at least one")
        check_range("lengths", self.lengths, 1)
        check_range("episodes", self.episodes, 1)

    @property
    def n_in(self) -> int:
        return self.bits + 1

    @property
    def n_out(self) -> int:
        return self.bits

    def script(self, batch: int, generator: torch.Generator) -> Script:
        """Draw trials."""
        if self.episodes == (1, 1):
            return self._episode(batch, generator)
        count = int(integers(*self.episodes, (1,), generator))
        return chained([self._episode(batch, generator) for _ in range(count)])

    def _episode(self, batch: int, generator: torch.Generator) -> Script:
        length = self.drawn(self.lengths, batch, generator)
        return self.of(_vectors(int(length.max()), batch, self.bits, generator), length)

    def of(self, vectors: Float64[Tensor, "row batch bit"], length: Int[Tensor, " batch"]) -> Script:
        """The script of one episode, with the first `length` of these vectors."""
        symbols = 2 * int(length.max()) + 1
        zero, behind, end = torch.zeros_like(length), length + 1, 2 * length + 1
        delimiter = between(length, behind, symbols)[..., None].double()
        return Script(
            shown=torch.cat([placed(vectors, zero, length, symbols), delimiter], -1),
            answers=placed(self.said(vectors, length), behind, length, symbols),
            due=between(behind, end, symbols),
            lengths=end,
            phases={"input": (zero, behind), "answer": (behind, end)},
            condition={"length": length},
        )

    def said(
        self, vectors: Float64[Tensor, "row batch bit"], length: Int[Tensor, " batch"]
    ) -> Float64[Tensor, "row batch bit"]:
        """What is to be said."""
        return vectors


@dataclass(frozen=True)
class Reverse(Copy):
    """v_1 ... v_L, a delimiter, L symbols of silence: say v_L ... v_1 meanwhile.

    `Copy` the other way round: what a stack does by itself, as in Grefenstette et al. (2015), NeurIPS, section 4.1.
    """

    def said(
        self, vectors: Float64[Tensor, "row batch bit"], length: Int[Tensor, " batch"]
    ) -> Float64[Tensor, "row batch bit"]:
        """What is to be said."""
        row = (length - 1 - torch.arange(len(vectors))[:, None]).clamp(min=0)
        return vectors[row, torch.arange(vectors.shape[1])]


@dataclass(frozen=True)
class RepeatCopy(ScriptedBits):
    """v_1 ... v_L, a number n, silence: say v_1 ... v_L n times over meanwhile, and then that it is the end.

    Graves, Wayne & Danihelka (2014), arXiv:1410.5401, section 4.2: eight bits, 1 to 10 vectors, 1 to 10 times; the
    number is normalised to mean 0 and variance 1 and stands on a channel of its own, alone. Channels of the input: the
    bits, the start flag, the number; of the output: the bits, the end. The start flag is always 0 in that paper; with
    `start_flag` it comes before the first vector as in the code of Graves et al. (2016), Nature 538:471, whose task is
    RepeatCopy(bits=4, lengths=(1, 2), repeats=(1, 2), start_flag=True, centre=0, scale=10).
    `condition`: `length` and `repeats` (batch,).

    Args:
        bits: of a vector.
        lengths: vectors of a trial, evenly drawn.
        repeats: how often they are to be said, evenly drawn.
        start_flag: whether a symbol that says so begins the trial.
        centre: the number shown is (n - centre) / scale.
        scale: see `centre`. A test on more repeats keeps both as they were in training.

    Raises:
        ValueError: a vector without bits, lengths or repeats that are no range from 1 on, or a scale of 0.
    """

    bits: int = 8
    lengths: tuple[int, int] = (1, 10)
    repeats: tuple[int, int] = (1, 10)
    start_flag: bool = False
    centre: float = 5.5
    scale: float = 8.25**0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        count("bits", self.bits, "a vector has at least one")
        check_range("lengths", self.lengths, 1)
        check_range("repeats", self.repeats, 1)
        require(0 < abs(self.scale) < math.inf, f"scale = {self.scale}: the number of repeats is divided by it")

    @property
    def n_in(self) -> int:
        return self.bits + 2

    @property
    def n_out(self) -> int:
        return self.bits + 1

    def script(self, batch: int, generator: torch.Generator) -> Script:
        """Draw trials."""
        length = self.drawn(self.lengths, batch, generator)
        repeats = self.drawn(self.repeats, batch, generator)
        vectors = _vectors(int(length.max()), batch, self.bits, generator)
        return self.of(vectors, length, repeats)

    def of(
        self, vectors: Float64[Tensor, "row batch bit"], length: Int[Tensor, " batch"], repeats: Int[Tensor, " batch"]
    ) -> Script:
        """The script with the first `length` of these vectors, `repeats` times."""
        first = torch.full_like(length, int(self.start_flag))
        number = first + length
        behind, end = number + 1, number + 1 + length * repeats
        symbols = int(end.max()) + 1
        start = between(first - 1, first, symbols).double()
        shown = between(number, behind, symbols) * (repeats - self.centre) / self.scale
        marker = between(end, end + 1, symbols)[..., None].double()
        row = torch.arange(symbols)[:, None] % length
        again = vectors[row, torch.arange(vectors.shape[1])]
        return Script(
            shown=torch.cat([placed(vectors, first, length, symbols), torch.stack([start, shown], -1)], -1),
            answers=torch.cat([placed(again, behind, length * repeats, symbols), marker], -1),
            due=between(behind, end + 1, symbols),
            lengths=end + 1,
            phases={"input": (torch.zeros_like(first), behind), "answer": (behind, end + 1)},
            condition={"length": length, "repeats": repeats},
        )


def _vectors(rows: int, batch: int, bits: int, generator: torch.Generator) -> Float64[Tensor, "row batch bit"]:
    return integers(0, 1, (rows, batch, bits), generator).double()
