"""Random patterns for associative memories, and noisy versions of patterns."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from . import draws


def random_patterns(
    count: int, n: int, *, generator: Generator | None = None, dtype: torch.dtype | None = None
) -> Float[Tensor, "count n"]:
    """`count` patterns of n units, each +1 or -1 with equal chances.

    Args:
        count, n: how many patterns, and of how many units.
        generator: where they come from; None is a fresh one, seeded by the operating system.
        dtype: of the patterns; None is torch's default.

    Raises:
        TypeError, ValueError: a number is no integer or below 1, or the generator or the dtype is none.
    """
    generator, dtype = draws.source(count, generator), draws.dtype_or_default(dtype)
    draws.require(type(n) is int and n >= 1, f"n = {n!r} counts units and must be an integer of at least 1")
    return draws.signs((count, n), generator).to(dtype)


def flip_units(
    patterns: Float[Tensor, "*batch n"], fraction: float, *, generator: Generator | None = None
) -> Float[Tensor, "*batch n"]:
    """Each pattern with this fraction of its units, drawn at random and rounded to a number of units, negated.

    Args:
        patterns: of +1 and -1; the overlap of a noisy one with its own is 1 - 2 fraction.
        fraction: from 0 to 1.
        generator: which units; None is a fresh one, seeded by the operating system.

    Raises:
        ValueError: the fraction is outside [0, 1].
        TypeError: the generator is none.
    """
    draws.require(0 <= fraction <= 1, f"fraction = {fraction} of the units must be from 0 to 1")
    ranks = draws.uniform(0, 1, tuple(patterns.shape), draws.source(1, generator)).argsort(-1).argsort(-1)
    chosen = ranks.to(patterns.device) < round(fraction * patterns.shape[-1])
    return torch.where(chosen, -patterns, patterns)
