"""Numbers in binary along the Chomsky hierarchy, after Deletang et al. (2023)."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from .chomsky import CONTEXT_SENSITIVE
from .draws import integers, uniform
from .transduction import Strings, Transduction, padded


@dataclass(frozen=True)
class _BinaryNumbers(Transduction):
    """Of two numbers in binary, least bit first, with the symbol 2 between them: a third, least bit first, then 2.

    The bits of the first are 1 to L - 2 of the L symbols; zero is not drawn. What comes behind the 2 of the answer is
    not scored, nor trained, where theirs trains zeros. Lengths begin with 3; theirs of 1 and 2 have answers of no
    meaning.
    """

    level: ClassVar[str] = CONTEXT_SENSITIVE
    more: ClassVar[int]  # output tokens beyond the length of the string

    @property
    def n_symbols(self) -> int:
        return 3

    @property
    def n_out(self) -> int:
        return 3

    def possible(self) -> list[int]:
        """The lengths of the range from 3 on."""
        return [n for n in super().possible() if n >= 3]

    @abstractmethod
    def result(self, a: int, b: int) -> int:
        """The third number."""

    def strings(self, length: Int[Tensor, " batch"], generator: torch.Generator) -> Strings:
        """Draw strings of these lengths."""
        first = 1 + (uniform(0.0, 1.0, length.shape, generator) * (length - 2)).long()
        numbers = [_drawn_bits(n, generator) for n in (first, length - 1 - first)]
        pairs = list(zip(*numbers, strict=True))
        said = [_bits(self.result(_number(a), _number(b))) for a, b in pairs]
        return Strings(
            padded([[*a, 2, *b] for a, b in pairs]), padded([[*bits, 2] for bits in said]), length + self.more
        )


@dataclass(frozen=True)
class BinaryAddition(_BinaryNumbers):
    """Of two numbers in binary, least bit first, with the symbol 2 between them: their sum, then 2.

    The bits of the first are 1 to L - 2 of the L symbols; zero is not drawn. There are L + 1 output tokens; what comes
    behind the 2 is not scored, nor trained, where theirs trains zeros. Lengths begin with 3; theirs of 1 and 2 have
    answers of no meaning.
    """

    more: ClassVar[int] = 1

    def result(self, a: int, b: int) -> int:
        """a + b."""
        return a + b


@dataclass(frozen=True)
class BinaryMultiplication(_BinaryNumbers):
    """Of two numbers in binary, least bit first, with the symbol 2 between them: their product, then 2.

    All else is as in `BinaryAddition`, but that there are L output tokens.
    """

    more: ClassVar[int] = 0

    def result(self, a: int, b: int) -> int:
        """a b."""
        return a * b


@dataclass(frozen=True)
class BinarySquareRoot(Transduction):
    """Of a positive number in binary, greatest bit first: the integer part of its square root, in half as many bits."""

    level: ClassVar[str] = CONTEXT_SENSITIVE

    @property
    def n_symbols(self) -> int:
        return 2

    @property
    def n_out(self) -> int:
        return 2

    def strings(self, length: Int[Tensor, " batch"], generator: torch.Generator) -> Strings:
        """Draw strings of these lengths; of an odd one, half is rounded up."""
        drawn, half = _drawn_bits(length, generator), (length + 1) // 2
        roots = [_bits(math.isqrt(_number(bits))) for bits in drawn]
        said = [(bits + [0] * n)[:n][::-1] for bits, n in zip(roots, half.tolist(), strict=True)]
        return Strings(padded([bits[::-1] for bits in drawn]), padded(said), half)


def _drawn_bits(length: Int[Tensor, " batch"], generator: torch.Generator) -> list[list[int]]:
    """Numbers from 1 on of so many bits, all equally likely, least bit first."""
    place = torch.arange(int(length.max()))[:, None]
    bits = torch.zeros(len(place), len(length), dtype=torch.long)
    while not bool(bits.any(0).all()):
        drawn = integers(0, 1, bits.shape, generator) * (place < length)
        bits = torch.where(bits.any(0), bits, drawn)
    return [column[:n] for column, n in zip(bits.T.tolist(), length.tolist(), strict=True)]


def _number(bits: list[int]) -> int:
    return int("".join(map(str, reversed(bits))), 2)


def _bits(number: int) -> list[int]:
    return [int(bit) for bit in reversed(f"{number:b}")]
