"""What follows, from the last few symbols alone: counts of n-grams, the baseline without a state."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .draws import require


class Level(NamedTuple):
    """Counts of all strings of one length; a string is a number, its symbols the digits in the base of the alphabet."""

    strings: Int[Tensor, " string"]  # sorted
    counts: Int[Tensor, " string"]
    contexts: Int[Tensor, " context"]  # strings without their last symbol, sorted
    totals: Int[Tensor, " context"]  # of the counts of what followed
    kinds: Int[Tensor, " context"]  # different symbols that followed
    discount: float


@dataclass(frozen=True)
class NGram:
    """p_k(c | past) = (max(count(past c) - D_k, 0) + D_k kinds(past) p_{k-1}(c | past[1:])) / total(past), p_0 uniform.

    Interpolated Kneser-Ney smoothing (Kneser & Ney 1995, ICASSP; Chen & Goodman 1999, Computer Speech & Language 13,
    section 3): at the highest level counts are those of the text, below it the number of different symbols that stood
    before the string; D_k = n_1 / (n_1 + 2 n_2) from the strings counted once and twice, with 1 added above and 2 below
    to keep it within (0, 1). A past that never occurred leaves p_{k-1} as it is.

    It looks at the last `order - 1` symbols and keeps no state: what it says needs no recurrence.
    """

    symbols: int
    levels: tuple[Level, ...]

    @classmethod
    def fit(cls, codes: Int[Tensor, " time"], symbols: int, order: int) -> Self:
        """Count the strings of 1 to `order` symbols of a text over an alphabet of so many `symbols`.

        Raises:
            ValueError: order is below 1, the text is shorter, or its strings would not fit 64-bit numbers.
        """
        require(order >= 1, f"order = {order}: it must be at least 1")
        require(len(codes) >= order, f"a text of {len(codes)} symbols has no string of {order}")
        require(symbols**order < 2**63, f"order {order} over {symbols} symbols does not fit 64 bits: lower the order")
        levels = []
        for k in range(1, order + 1):
            if k == order:
                strings, counts = _number(codes.unfold(0, k, 1), symbols).unique(return_counts=True)
            else:
                longer = _number(codes.unfold(0, k + 1, 1), symbols).unique()
                strings, counts = (longer % symbols**k).unique(return_counts=True)
            levels.append(_level(strings, counts, symbols))
        return cls(symbols, tuple(levels))

    @property
    def order(self) -> int:
        """Symbols of the longest strings counted."""
        return len(self.levels)

    def probabilities(self, past: Int[Tensor, "*batch time"]) -> Float[Tensor, "*batch symbol"]:
        """Of each symbol, after the last `order - 1` symbols of the past, or after all of it if there are fewer."""
        following = torch.arange(self.symbols, device=past.device)
        p = torch.full((*past.shape[:-1], self.symbols), 1 / self.symbols, dtype=torch.float64, device=past.device)
        for k, level in enumerate(self.levels[: past.shape[-1] + 1]):
            context = _number(past[..., past.shape[-1] - k :], self.symbols)[..., None]
            total, kinds = (_looked_up(level.contexts, values, context) for values in (level.totals, level.kinds))
            count = _looked_up(level.strings, level.counts, context * self.symbols + following)
            seen = (count - level.discount).clamp_min(0) + level.discount * kinds * p
            p = torch.where(total > 0, seen / total.clamp_min(1), p)
        return p


def _level(strings: Tensor, counts: Tensor, symbols: int) -> Level:
    contexts, place, kinds = (strings // symbols).unique(return_inverse=True, return_counts=True)
    totals = torch.zeros_like(kinds).index_add(0, place, counts)
    once, twice = (int((counts == n).sum()) for n in (1, 2))
    return Level(strings, counts, contexts, totals, kinds, (once + 1) / (once + 2 * twice + 2))


def _number(strings: Tensor, symbols: int) -> Tensor:
    """Strings (..., length) as numbers (...)."""
    number = strings.new_zeros(strings.shape[:-1])
    for symbol in strings.unbind(-1):
        number = number * symbols + symbol
    return number


def _looked_up(keys: Tensor, values: Tensor, wanted: Tensor) -> Tensor:
    """The value of each wanted key in double precision, 0 where there is none."""
    place = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
    return torch.where(keys[place] == wanted, values[place], 0).double()
