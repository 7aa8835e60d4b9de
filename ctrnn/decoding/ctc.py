"""From posteriors of labels and blank at every sample to a labelling (connectionist temporal classification)."""

import heapq
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

NEVER = -np.inf


class Labelling(NamedTuple):
    """Labels in order, and the logarithm of the probability that the network gives them."""

    labels: tuple[int, ...]
    log_probability: float


def best_path(
    scores: Float[Tensor, "time batch label"], lengths: Int[Tensor, "batch"] | None = None, blank: int = 0
) -> Int[Tensor, "batch string"]:
    """The likeliest label at each sample, repetitions merged, blanks dropped.

    Best-path decoding of CTC outputs (Graves, Fernandez, Gomez & Schmidhuber 2006); it need not find the likeliest
    string, which adds up all its paths. Samples from `lengths` on are not read. Strings are padded at the end with -1.
    """
    return collapse(scores.argmax(-1), lengths, blank)


def collapse(
    path: Int[Tensor, "time batch"], lengths: Int[Tensor, "batch"] | None = None, blank: int = 0
) -> Int[Tensor, "batch string"]:
    """What a path says: repetitions merged, then blanks dropped (the map B of Graves et al. 2006, section 3.1).

    Samples from `lengths` on are not read. Strings are padded at the end with -1. For labels named sample by sample,
    as by `viterbi`, `blank` is the label of silence.
    """
    previous = torch.cat([torch.full_like(path[:1], blank), path[:-1]])
    keep = (path != blank) & (path != previous)
    if lengths is not None:
        keep &= torch.arange(len(path), device=path.device)[:, None] < lengths
    place = keep.cumsum(0)
    strings = path.new_full((path.shape[1], int(place[-1].max())), -1)
    sample, row = keep.nonzero(as_tuple=True)
    strings[row, place[sample, row] - 1] = path[sample, row]
    return strings


def prefix_search(
    log_posteriors: Float[Tensor, "time label"],
    *,
    blank: int = 0,
    section: float | None = 0.9999,
    most: int = 10_000,
) -> Labelling:
    """The likeliest labelling, found by always extending the prefix that promises most (Graves et al. 2006, 3.2).

    Within a section the answer is exact: a prefix is given up only when all its extensions together are less likely
    than a labelling at hand. The work grows with the number of samples in a section, exponentially at worst.

    Args:
        log_posteriors: of one sequence (time, label).
        blank: the number that stands for "nothing new".
        section: cut the sequence where the blank is likelier than this and search every piece by itself, as Graves et
            al. do (0.9999); None: one piece, exact.
        most: prefixes to extend in one piece.

    Returns:
        Labelling(labels, log_probability); with several pieces the probability is the product of theirs, which is at
        most that of the labels in the whole sequence.

    Raises:
        ValueError: a shape does not fit, or there is no such label as `blank`.
        RuntimeError: `most` prefixes were extended and the search had not ended.
    """
    _check(log_posteriors, blank)
    table = log_posteriors.detach().to("cpu", torch.float64).numpy()
    pieces = [table]
    if section is not None:
        cuts = np.flatnonzero(table[:, blank] > np.log(section))
        pieces = np.split(table, cuts)  # a piece begins with a blank that is nearly certain
    found = [_search(piece, blank, most) for piece in pieces if len(piece)]
    return Labelling(
        tuple(label for one in found for label in one.labels), float(sum(one.log_probability for one in found))
    )


class _Prefix(NamedTuple):
    """Logarithms of the probability that the first t samples say exactly these labels, ending in one or in a blank."""

    labels: tuple[int, ...]
    ends_in_label: Float[np.ndarray, " time"]
    ends_in_blank: Float[np.ndarray, " time"]

    @property
    def whole(self) -> float:
        return float(np.logaddexp(self.ends_in_label[-1], self.ends_in_blank[-1]))


def _search(table: np.ndarray, blank: int, most: int) -> Labelling:
    """Best first over prefixes; the heap holds what all extensions of a prefix have together."""
    nothing = np.concatenate([[0.0], np.cumsum(table[:, blank])])
    root = _Prefix((), np.full(len(nothing), NEVER), nothing)
    best = Labelling((), root.whole)
    heap = [(-_log_one_minus(root.whole), 0, root)]
    pushed, extended = 1, 0
    while heap and -heap[0][0] > best.log_probability:
        if extended == most:
            raise RuntimeError(
                f"{most} prefixes of a piece of {len(table)} samples were extended without an end: give a larger "
                "`most`, a smaller `section`, or take best_path."
            )
        extended += 1
        for promise, prefix in _extensions(table, heapq.heappop(heap)[2], blank):
            if prefix.whole > best.log_probability:
                best = Labelling(prefix.labels, prefix.whole)
            if promise > best.log_probability:
                heapq.heappush(heap, (-promise, pushed, prefix))
                pushed += 1
    return best


def _extensions(table: np.ndarray, prefix: _Prefix, blank: int) -> list[tuple[float, _Prefix]]:
    """Every label appended: what all longer labellings then have together, and the new prefix."""
    n_time, n_labels = table.shape
    begins = np.tile(np.logaddexp(prefix.ends_in_blank[:-1], prefix.ends_in_label[:-1])[:, None], (1, n_labels))
    if prefix.labels:  # the same label again is a new one behind a blank only
        begins[:, prefix.labels[-1]] = prefix.ends_in_blank[:-1]
    begins = begins + table
    in_label, in_blank = (np.full((n_time + 1, n_labels), NEVER) for _ in range(2))
    for t in range(n_time):
        in_label[t + 1] = np.logaddexp(begins[t], table[t] + in_label[t])
        in_blank[t + 1] = table[t, blank] + np.logaddexp(in_label[t], in_blank[t])
    started = np.logaddexp.reduce(begins, axis=0)
    extended = []
    for k in range(n_labels):
        if k != blank and started[k] > NEVER:
            new = _Prefix((*prefix.labels, k), in_label[:, k], in_blank[:, k])
            extended.append((_log_difference(float(started[k]), new.whole), new))
    return extended


def _log_difference(a: float, b: float) -> float:
    """log(exp(a) - exp(b)), minus infinity where rounding leaves nothing."""
    return a + _log_one_minus(b - a)


def _log_one_minus(b: float) -> float:
    """log(1 - exp(b))."""
    return float(np.log(-np.expm1(b))) if b < 0 else NEVER


def _check(log_posteriors: Tensor, blank: int) -> None:
    if log_posteriors.ndim != 2:
        raise ValueError(
            "log_posteriors are those of one sequence, (time, label); these have the shape "
            f"{tuple(log_posteriors.shape)}."
        )
    n_labels = log_posteriors.shape[-1]
    if not 0 <= blank < n_labels:
        raise ValueError(f"blank = {blank}, but there are labels 0 to {n_labels - 1}.")
    if not bool((log_posteriors <= 1e-6).all()):
        raise ValueError("log_posteriors are logarithms of probabilities, at most 0: apply log_softmax first.")
