"""Text as a stream of characters: an alphabet, windows that go on where the last one ended, and bits per character."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import State

from .draws import require


@dataclass(frozen=True)
class Alphabet:
    """The characters of a text, each with its number: the place in `symbols`."""

    symbols: str

    def __post_init__(self) -> None:
        twice = sorted({c for c in self.symbols if self.symbols.count(c) > 1})
        require(len(self.symbols) > 0, "symbols is empty: give at least one character")
        require(not twice, f"symbols has {''.join(twice)!r} more than once: give each character once")

    @classmethod
    def of(cls, text: str) -> Self:
        """All that occurs in a text, sorted."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> Int[Tensor, " time"]:
        """Characters as numbers.

        Raises:
            ValueError: a character is not in the alphabet.
        """
        number = {c: k for k, c in enumerate(self.symbols)}
        foreign = sorted(set(text) - set(number))
        require(not foreign, f"{''.join(foreign)!r} not in the alphabet: clean the text, or use Alphabet.of(text)")
        return torch.tensor([number[c] for c in text], dtype=torch.long)

    def decode(self, codes: Int[Tensor, " time"]) -> str:
        """Numbers as characters."""
        return "".join(self.symbols[k] for k in codes.tolist())

    def one_hot(self, codes: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch symbol"]:
        """Unit vectors in the default dtype."""
        return F.one_hot(codes, len(self)).to(torch.get_default_dtype())


class Split(NamedTuple):
    """Stretches of a text in its order; all are continuous."""

    train: Tensor
    valid: Tensor
    test: Tensor


class Window(NamedTuple):
    """Symbols that are read, and those that follow them; both (time, stream)."""

    read: Int[Tensor, "time stream"]
    next: Int[Tensor, "time stream"]


def distinct_paragraphs(text: str) -> str:
    """The text without the paragraphs that occurred before in it, whatever their line breaks.

    What a text says twice can end up in both the training and the test part, and is then remembered, not predicted.
    """
    first: dict[str, str] = {}
    for paragraph in re.split(r"\n\s*\n", text):
        first.setdefault(" ".join(paragraph.split()), paragraph)
    first.pop("", None)
    return "\n\n".join(first.values())


def split_text(codes: Int[Tensor, " time"], valid: float = 0.1, test: float = 0.1) -> Split:
    """The last part of a text for the test, the part before it for validation, all before those for training.

    Raises:
        ValueError: a part is negative, or nothing is left for training.
    """
    require(valid >= 0 and test >= 0, f"valid = {valid}, test = {test}: parts of a text are not negative")
    require(valid + test < 1, f"valid + test = {valid + test:g}: leave something for training")
    held = [int(part * len(codes)) for part in (valid, test)]
    return Split(*codes.split([len(codes) - sum(held), *held]))


def text_windows(codes: Int[Tensor, " time"], streams: int, length: int) -> Iterator[Window]:
    """A text cut into equal stretches side by side, read `length` symbols at a time.

    Stream s of a window goes on where stream s of the window before it ended: with the state at the end of one as the
    x0 of the next (`last_state`), the network reads on, and only the error is cut off there: truncated backpropagation
    through time. Symbols at the end that fill no window are left out.

    Raises:
        ValueError: streams or length is below 1, or the text fills no window.
    """
    require(streams >= 1 and length >= 1, f"streams = {streams}, length = {length}: both must be at least 1")
    count = (len(codes) - 1) // (streams * length)
    require(
        count >= 1,
        f"{len(codes)} symbols fill no window: {streams} streams of {length} need {streams * length + 1}",
    )
    per_stream = count * length
    read, following = (codes[k : k + streams * per_stream].reshape(streams, -1).T for k in (0, 1))
    for start in range(0, per_stream, length):
        yield Window(read[start : start + length], following[start : start + length])


def last_state(xs: State) -> State:
    """The state at the end of a run, for the next one to start from; no gradient goes back through it."""
    state: State = tree.map(lambda leaf: leaf[-1].detach(), xs)
    return state


def bits_per_character(logits: Float[Tensor, "*batch symbol"], codes: Int[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """-log2 of the probability of what came, on average: the cross-entropy in bits."""
    return F.cross_entropy(logits.flatten(0, -2), codes.flatten()) / math.log(2)
