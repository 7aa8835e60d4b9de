"""Tasks on strings along the Chomsky hierarchy, after Deletang et al. (2023): regular, context-free, context-sensitive.

A task stands on the level of the weakest machine that can say the answer symbol by symbol: a finite automaton, one with
a stack, one with a tape no longer than the input. Those that reckon are in `chomsky_arithmetic` and `chomsky_binary`.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from .draws import integers, uniform
from .transduction import Strings, Transduction

REGULAR = "regular"
CONTEXT_FREE = "deterministic context-free"
CONTEXT_SENSITIVE = "context-sensitive"


@dataclass(frozen=True)
class _Uniform(Transduction):
    """All strings of a length are equally likely, and the answer consists of their symbols."""

    @property
    def n_symbols(self) -> int:
        return 2

    @property
    def n_out(self) -> int:
        return self.n_symbols

    @abstractmethod
    def answers(self, symbols: Int[Tensor, "place batch"], length: Int[Tensor, " batch"]) -> Int[Tensor, "token batch"]:
        """What to say of strings; -1 behind the end of the answer. Behind that of a string stands -1."""

    def strings(self, length: Int[Tensor, " batch"], generator: torch.Generator) -> Strings:
        """Draw strings of these lengths."""
        place = torch.arange(int(length.max()))[:, None]
        drawn = integers(0, self.n_symbols - 1, (len(place), len(length)), generator)
        symbols = torch.where(place < length, drawn, -1)
        answers = self.answers(symbols, length)
        return Strings(symbols, answers, (answers >= 0).sum(0))


@dataclass(frozen=True)
class EvenPairs(_Uniform):
    """Of bits: 0 if the pairs 01 and 10 in the string are an even number, 1 if they are odd."""

    level: ClassVar[str] = REGULAR

    def answers(self, symbols: Int[Tensor, "place batch"], length: Int[Tensor, " batch"]) -> Int[Tensor, "token batch"]:
        """One symbol: each change of the bit is such a pair, so the first and the last tell."""
        return (symbols[:1] != symbols.gather(0, length[None] - 1)).long()


@dataclass(frozen=True)
class ParityCheck(_Uniform):
    """Of bits: the sum, modulo 2."""

    level: ClassVar[str] = REGULAR

    def answers(self, symbols: Int[Tensor, "place batch"], length: Int[Tensor, " batch"]) -> Int[Tensor, "token batch"]:
        """One symbol."""
        return symbols.clamp(min=0).sum(0, True) % 2


@dataclass(frozen=True)
class CycleNavigation(_Uniform):
    """Of steps, back (0), none (1), on (2): where on a circle of five places they lead that begin at place 0."""

    level: ClassVar[str] = REGULAR
    places: ClassVar[int] = 5

    @property
    def n_symbols(self) -> int:
        return 3

    @property
    def n_out(self) -> int:
        return self.places

    def answers(self, symbols: Int[Tensor, "place batch"], length: Int[Tensor, " batch"]) -> Int[Tensor, "token batch"]:
        """One symbol."""
        return (symbols.clamp(min=0).sum(0, True) - length) % self.places


@dataclass(frozen=True)
class ReverseString(_Uniform):
    """Of bits: the string from its last symbol to its first."""

    level: ClassVar[str] = CONTEXT_FREE

    def answers(self, symbols: Int[Tensor, "place batch"], length: Int[Tensor, " batch"]) -> Int[Tensor, "token batch"]:
        """As many symbols as the string has."""
        return _taken(symbols, length - 1 - torch.arange(len(symbols))[:, None])


@dataclass(frozen=True)
class DuplicateString(_Uniform):
    """Of bits: the string, twice."""

    level: ClassVar[str] = CONTEXT_SENSITIVE

    def answers(self, symbols: Int[Tensor, "place batch"], length: Int[Tensor, " batch"]) -> Int[Tensor, "token batch"]:
        """Twice as many symbols as the string has."""
        token = torch.arange(2 * len(symbols))[:, None]
        return _taken(symbols, torch.where(token < 2 * length, token % length, -1))


@dataclass(frozen=True)
class OddsFirst(_Uniform):
    """Of bits: s_1 s_3 s_5 ... s_2 s_4 s_6 ..., as the paper says; its code says those with even numbers first."""

    level: ClassVar[str] = CONTEXT_SENSITIVE

    def answers(self, symbols: Int[Tensor, "place batch"], length: Int[Tensor, " batch"]) -> Int[Tensor, "token batch"]:
        """As many symbols as the string has."""
        token, odds = torch.arange(len(symbols))[:, None], (length + 1) // 2
        place = torch.where(token < odds, 2 * token, 2 * (token - odds) + 1)
        return _taken(symbols, torch.where(token < length, place, -1))


@dataclass(frozen=True)
class BucketSort(_Uniform):
    """Of digits below 5: the same digits in increasing order."""

    level: ClassVar[str] = CONTEXT_SENSITIVE

    @property
    def n_symbols(self) -> int:
        return 5

    def answers(self, symbols: Int[Tensor, "place batch"], length: Int[Tensor, " batch"]) -> Int[Tensor, "token batch"]:
        """As many symbols as the string has."""
        ordered = torch.where(symbols < 0, self.n_symbols, symbols).sort(0).values
        return torch.where(ordered < self.n_symbols, ordered, -1)


@dataclass(frozen=True)
class MissingDuplicate(Transduction):
    """Of a string of bits given twice, with one of them replaced by the symbol 2: the bit that is missing.

    Lengths are even; theirs of odd length end with a symbol more that says nothing.
    """

    level: ClassVar[str] = CONTEXT_SENSITIVE

    @property
    def n_symbols(self) -> int:
        return 3

    @property
    def n_out(self) -> int:
        return 2

    def possible(self) -> list[int]:
        """The even lengths of the range."""
        return [n for n in super().possible() if n % 2 == 0]

    def strings(self, length: Int[Tensor, " batch"], generator: torch.Generator) -> Strings:
        """Draw strings of these lengths."""
        half, place = length // 2, torch.arange(int(length.max()))[:, None]
        drawn = integers(0, 1, (len(place), len(length)), generator)
        twice = _taken(drawn, torch.where(place < length, place % half, -1))
        missing = (uniform(0.0, 1.0, (1, len(length)), generator) * length).long()
        symbols = torch.where(place == missing, 2, twice)
        return Strings(symbols, twice.gather(0, missing), torch.ones_like(length))


@dataclass(frozen=True)
class StackManipulation(Transduction):
    """Of a stack, bottom first, and actions on it, pop (2), push 0 (3), push 1 (4): the stack, top first, then 2.

    The bits of the stack are 1 to L - 1 of the L symbols, and the rest are actions; a string of one symbol is a bit. A
    pop of the empty stack does nothing. There are L + 1 output tokens; what comes behind the 2 is not scored, nor
    trained, where theirs trains zeros.
    """

    level: ClassVar[str] = CONTEXT_FREE

    @property
    def n_symbols(self) -> int:
        return 5

    @property
    def n_out(self) -> int:
        return 3

    def strings(self, length: Int[Tensor, " batch"], generator: torch.Generator) -> Strings:
        """Draw strings of these lengths."""
        place, batch = torch.arange(int(length.max()))[:, None], len(length)
        bits = integers(0, 1, (len(place), batch), generator)
        actions = integers(2, 4, (len(place), batch), generator)
        share = uniform(0.0, 1.0, (batch,), generator)
        filled = torch.where(length > 1, 1 + (share * (length - 1)).long(), 1)
        symbols = torch.where(place < filled, bits, torch.where(place < length, actions, -1))
        return Strings(symbols, _popped(symbols, length), length + 1)


def _popped(symbols: Int[Tensor, "place batch"], length: Int[Tensor, " batch"]) -> Int[Tensor, "token batch"]:
    """The stack that the symbols leave, top first, then 2, then -1."""
    row, height = torch.arange(len(length)), torch.zeros_like(length)
    stack = torch.zeros(len(symbols) + 1, len(length), dtype=torch.long)
    for symbol in symbols.unbind(0):
        pushes = (symbol >= 0) & (symbol != 2)
        stack[height, row] = torch.where(pushes, symbol.clamp(min=0) % 3, stack[height, row])
        height = (height + pushes.long() - (symbol == 2).long()).clamp(min=0)
    token = torch.arange(len(symbols) + 1)[:, None]
    popped = _taken(stack, height - 1 - token)
    return torch.where(token == height, 2, popped)


def _taken(symbols: Int[Tensor, "place batch"], place: Int[Tensor, "token batch"]) -> Int[Tensor, "token batch"]:
    """The symbols at these places; -1 for a negative one."""
    return torch.where(place >= 0, symbols.gather(0, place.clamp(min=0)), -1)
