"""What can be wrong with what is to be decoded. Each message names the problem, the culprit and the fix."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def batched(name: str, given: Tensor, wanted: str) -> None:
    """As many axes as are `wanted`, written as "(time, batch)"."""
    if given.ndim != len(wanted.split(",")):
        raise ValueError(
            f"{name} must have the shape {wanted}, got {tuple(given.shape)}: for one sequence, give a batch of one."
        )


def integers(name: str, given: Tensor) -> None:
    """Labels and lengths are counted."""
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"{name} must be integers, got {given.dtype}: convert them with .long().")


def size(name: str, value: int, least: int) -> None:
    """A count."""
    if type(value) is not int:
        raise TypeError(f"{name} must be an int, got {value!r}: count it in whole numbers.")
    if value < least:
        raise ValueError(f"{name} = {value}: give at least {least}.")


def label(name: str, value: int, n: int) -> None:
    """One of 0 ... n - 1."""
    if type(value) is not int:
        raise TypeError(f"{name} must be an int, got {value!r}: give the label's number.")
    if not 0 <= value < n:
        have = f"there are labels 0 to {n - 1}" if n else "there are no labels"
        raise ValueError(f"{name} = {value}, but {have}: give one of them.")


def lengths(given: Tensor | None, n_time: int, batch: Sequence[int]) -> None:
    """How many samples each sequence has, 0 to `n_time`."""
    if given is None:
        return
    integers("lengths", given)
    if given.shape != tuple(batch):
        raise ValueError(f"lengths must have the batch shape {tuple(batch)}, got {tuple(given.shape)}: one a sequence.")
    if given.numel() and not 0 <= int(given.min()) <= int(given.max()) <= n_time:
        raise ValueError(
            f"lengths must lie between 0 and the {n_time} samples, got {int(given.min())} to {int(given.max())}: "
            "pad the samples, or shorten lengths."
        )


def used(n_time: int, given: Int[Tensor, "*batch"]) -> Bool[Tensor, "time *batch"]:
    """Which samples belong to a sequence and are no padding."""
    return torch.arange(n_time, device=given.device).reshape(-1, *[1] * given.ndim) < given


def first(wrong: Tensor) -> tuple[int, ...]:
    """Where the first of the wrong ones is."""
    return tuple(int(i) for i in wrong.nonzero()[0])
