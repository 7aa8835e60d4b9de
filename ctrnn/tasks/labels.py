"""How wrong label strings are. Strings are rows padded at the end with -1."""

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
