"""Expressions modulo 5 along the Chomsky hierarchy, after Deletang et al. (2023)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from .chomsky import CONTEXT_FREE, REGULAR
from .draws import chances, integers
from .transduction import Strings, Transduction, padded

MODULUS = 5
PLUS, MINUS, TIMES, OPEN, CLOSE = range(MODULUS, MODULUS + 5)


@dataclass(frozen=True)
class ModularArithmetic(Transduction):
    """Of digits 0 to 4 with +, - or * (symbols 5, 6, 7) between each two: the value modulo 5, products first.

    Lengths are odd.
    """

    level: ClassVar[str] = REGULAR

    @property
    def n_symbols(self) -> int:
        return MODULUS + 3

    @property
    def n_out(self) -> int:
        return MODULUS

    def possible(self) -> list[int]:
        """The odd lengths of the range."""
        return [n for n in super().possible() if n % 2 == 1]

    def strings(self, length: Int[Tensor, " batch"], generator: torch.Generator) -> Strings:
        """Draw strings of these lengths."""
        place = torch.arange(int(length.max()))[:, None]
        digits = integers(0, MODULUS - 1, (len(place), len(length)), generator)
        operators = integers(PLUS, TIMES, (len(place), len(length)), generator)
        symbols = torch.where(place < length, torch.where(place % 2 == 0, digits, operators), -1)
        return Strings(symbols, _value(symbols)[None], torch.ones_like(length))


def _value(symbols: Int[Tensor, "place batch"]) -> Int[Tensor, " batch"]:
    """Modulo 5: the terms that are over, and the product that may still go on."""
    total, product = torch.zeros_like(symbols[0]), symbols[0]
    for operator, digit in zip(symbols[1::2], symbols[2::2], strict=True):
        ends = (operator == PLUS) | (operator == MINUS)
        total = torch.where(ends, total + product, total)
        product = torch.where(operator == TIMES, product * digit % MODULUS, product)
        product = torch.where(operator == PLUS, digit, torch.where(operator == MINUS, -digit, product))
    return (total + product) % MODULUS


@dataclass(frozen=True)
class BracketedArithmetic(Transduction):
    """Of an expression of digits 0 to 4, +, -, *, ( and ) (symbols 5 to 9): its value modulo 5.

    (left op right) is split evenly among the lengths left can have; down to four symbols d, -d, (d) and (-d) are left.
    """

    level: ClassVar[str] = CONTEXT_FREE

    @property
    def n_symbols(self) -> int:
        return MODULUS + 5

    @property
    def n_out(self) -> int:
        return MODULUS

    def strings(self, length: Int[Tensor, " batch"], generator: torch.Generator) -> Strings:
        """Draw strings of these lengths."""
        draws = chances(generator)
        drawn = [_expression(n, (PLUS, MINUS, TIMES), draws) for n in length.tolist()]
        return Strings(
            padded([symbols for symbols, _ in drawn]),
            torch.tensor([[value for _, value in drawn]]),
            torch.ones_like(length),
        )


@dataclass(frozen=True)
class SolveEquation(Transduction):
    """Of an equation modulo 5 with brackets, + and -, where one digit is x: what x is.

    Symbols: the digits 0 to 4, +, -, (, ), x, = are 0 to 10. Expressions are those of `BracketedArithmetic` without
    products, so that there is one solution. Lengths begin with 3, x=d.
    """

    level: ClassVar[str] = CONTEXT_FREE

    @property
    def n_symbols(self) -> int:
        return MODULUS + 6

    @property
    def n_out(self) -> int:
        return MODULUS

    def possible(self) -> list[int]:
        """The lengths of the range from 3 on."""
        return [n for n in super().possible() if n >= 3]

    def strings(self, length: Int[Tensor, " batch"], generator: torch.Generator) -> Strings:
        """Draw strings of these lengths."""
        draws = chances(generator)
        drawn = [_equation(n, draws) for n in length.tolist()]
        return Strings(
            padded([symbols for symbols, _ in drawn]),
            torch.tensor([[solution for _, solution in drawn]]),
            torch.ones_like(length),
        )


def _expression(length: int, operators: tuple[int, ...], draws: Iterator[float]) -> tuple[list[int], int]:
    """An expression of this length, and its value."""
    if length <= 4:
        digit = int(MODULUS * next(draws))
        signed = [MINUS, digit] if length % 2 == 0 else [digit]
        value = -digit % MODULUS if length % 2 == 0 else digit
        return (signed if length <= 2 else [OPEN, *signed, CLOSE]), value
    left_length = 1 + int((length - 4) * next(draws))
    left, a = _expression(left_length, operators, draws)
    right, b = _expression(length - left_length - 3, operators, draws)
    operator = operators[int(len(operators) * next(draws))]
    value = a + b if operator == PLUS else a - b if operator == MINUS else a * b
    return [OPEN, *left, operator, *right, CLOSE], value % MODULUS


def _equation(length: int, draws: Iterator[float]) -> tuple[list[int], int]:
    """An equation of this length, and its solution; x is the first digit from a random place on, cyclically."""
    expression, value = _expression(length - 2, (PLUS, MINUS), draws)
    start = int(len(expression) * next(draws))
    places = (k % len(expression) for k in range(start, start + len(expression)))
    unknown = next(k for k in places if expression[k] < MODULUS)
    solution = expression[unknown]
    # Without a symbol for the product, brackets move down by one.
    symbols = [s - 1 if s > TIMES else s for s in expression]
    symbols[unknown] = MODULUS + 4
    return [*symbols, MODULUS + 5, value], solution
