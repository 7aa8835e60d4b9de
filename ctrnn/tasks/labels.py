"""How wrong label strings are. Strings are rows padded at the end with -1."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def edit_distance(a: Int[Tensor, "batch a"], b: Int[Tensor, "batch b"]) -> Int[Tensor, "batch"]:
    """Fewest insertions, deletions and substitutions from each row of `a` to the row of `b` (Levenshtein 1966)."""
    a_lengths, b_lengths = (a >= 0).sum(1), (b >= 0).sum(1)
    column = torch.arange(a.shape[1] + 1, device=a.device)
    row = column.expand(len(a), -1)  # row[j] after i labels of b: distance from a[:j] to b[:i]
    for i in range(b.shape[1]):
        replaced = torch.minimum(row[:, 1:] + 1, row[:, :-1] + (a != b[:, i : i + 1]))
        best = torch.cat([row[:, :1] + 1, replaced], 1)
        # min over k <= j of best[k] + (j - k): all runs of dropped labels of a at once.
        best = (best - column).cummin(1).values + column
        row = torch.where((i < b_lengths)[:, None], best, row)
    return row.gather(1, a_lengths[:, None])[:, 0]


def label_scores(strings: Int[Tensor, "batch string"], targets: Int[Tensor, "batch label"]) -> dict[str, float]:
    """label_error: edits over labels, in the whole batch; sequence_accuracy: strings without a fault."""
    edits = edit_distance(strings, targets)
    return {
        "label_error": (edits.sum() / (targets >= 0).sum()).item(),
        "sequence_accuracy": (edits == 0).double().mean().item(),
    }


def constant_string(targets: Int[Tensor, "batch label"], labels: Sequence[int]) -> Int[Tensor, "batch string"]:
    """One string for all rows, fitted to the targets: what can be had without looking at the input.

    It grows from the empty string, each time by the insertion that lowers the label error most, until none does.
    """

    def error(guess: Sequence[int]) -> float:
        return label_scores(targets.new_tensor(guess).expand(len(targets), -1), targets)["label_error"]

    guess: Sequence[int] = ()
    best = error(guess)
    while True:
        longer = [(*guess[:i], label, *guess[i:]) for i in range(len(guess) + 1) for label in labels]
        lowest, winner = min((error(candidate), i) for i, candidate in enumerate(longer))
        if lowest >= best:
            return targets.new_tensor(guess).expand(len(targets), -1)
        guess, best = longer[winner], lowest
