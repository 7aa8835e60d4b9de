"""Storing patterns in weights at once, without gradients."""

import torch
from jaxtyping import Float
from torch import Tensor

Patterns = Float[Tensor, "pattern unit"]
Weights = Float[Tensor, "unit unit"]


def hebbian(patterns: Patterns) -> Weights:
    """W = sum_p xi_p xi_p^T / n, without its diagonal (Hopfield 1982).

    Patterns of +1 and -1. Random ones are recalled up to about 0.138 n of them (Amit, Gutfreund & Sompolinsky 1985).

    Raises:
        ValueError: the patterns are none, or hold other numbers.
    """
    _check("patterns", patterns)
    if not bool((patterns.abs() == 1).all()):
        other = patterns[patterns.abs() != 1][0]
        raise ValueError(f"patterns must be +1 and -1, got {other:g}: 2 * patterns - 1 makes such of 0 and 1.")
    W = patterns.T @ patterns / patterns.shape[1]
    return W - torch.diag(W.diagonal())


def hebbian_step(W: Weights, pattern: Float[Tensor, " unit"]) -> Weights:
    """The weights with one pattern more: `hebbian` of all patterns is one such step for each, from zero."""
    _check_one(W, pattern)
    return W + hebbian(pattern.unsqueeze(0))


def pseudo_inverse(patterns: Patterns) -> Weights:
    """W = Xi^+ Xi, the projection on the span of the patterns (Personnaz, Guyon & Dreyfus 1986, Phys. Rev. A 34:4217).

    Every pattern is a fixed point, W xi = xi, up to n linearly independent ones. The diagonal is kept: without it that
    would not hold, though the signs would, sgn(W xi) = xi, as long as all of it is below 1.
    """
    _check("patterns", patterns)
    return torch.linalg.pinv(patterns) @ patterns


def pseudo_inverse_step(W: Weights, pattern: Float[Tensor, " unit"]) -> Weights:
    """W + r r^T / r^T r with r = xi - W xi: the projection with one pattern more, W itself if it knows it."""
    _check_one(W, pattern)
    r = pattern - W @ pattern
    size = r @ r
    known = size <= 100 * torch.finfo(W.dtype).eps * (pattern @ pattern)
    return W if bool(known) else W + torch.outer(r, r) / size


def correlation(keys: Float[Tensor, "pattern x"], values: Float[Tensor, "pattern y"]) -> Float[Tensor, "x y"]:
    """M = sum_p x_p y_p^T: the memory of a `BAM` (Kosko 1988)."""
    _check("keys", keys)
    _check("values", values)
    if len(keys) != len(values):
        raise ValueError(f"{len(keys)} keys and {len(values)} values make no pairs.")
    return keys.T @ values


def _check(name: str, patterns: Tensor) -> None:
    if patterns.ndim != 2 or patterns.numel() == 0 or not patterns.is_floating_point():
        raise ValueError(
            f"{name} must be floating-point numbers (pattern, unit), at least one of each, "
            f"got {patterns.dtype} of the shape {tuple(patterns.shape)}."
        )
    if not bool(torch.isfinite(patterns).all()):
        raise ValueError(f"{name} hold NaN or infinity.")


def _check_one(W: Tensor, pattern: Tensor) -> None:
    _check("pattern", pattern.unsqueeze(0))
    if W.shape != (len(pattern), len(pattern)):
        raise ValueError(f"a pattern of {len(pattern)} units does not fit weights of the shape {tuple(W.shape)}.")
