"""From posteriors of labels and blank at every sample to a labelling (connectionist temporal classification)."""

import heapq
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctrnn.decoding import _check as check

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

    Raises:
        TypeError, ValueError: a shape or a length does not fit, there is no such label as `blank`, or a sample that is
            read has no likeliest label.
    """
    check.batched("scores", scores, "(time, batch, label)")
    check.label("blank", blank, scores.shape[-1])
    check.lengths(lengths, len(scores), scores.shape[1:-1])
    highest, path = scores.max(-1)
    undecided = ~(highest > -torch.inf)
    if lengths is not None:
        undecided &= check.used(len(scores), lengths)
    if bool(undecided.any()):
        raise ValueError(
            f"scores at (time, batch) = {check.first(undecided)} have no highest one, they are NaN or all -inf: mend "
            "the network that gave them, or mask padding with lengths."
        )
    return collapse(path, lengths, blank)


def collapse(
    path: Int[Tensor, "time batch"], lengths: Int[Tensor, "batch"] | None = None, blank: int = 0
) -> Int[Tensor, "batch string"]:
    """What a path says: repetitions merged, then blanks dropped (the map B of Graves et al. 2006, section 3.1).

    Samples from `lengths` on are not read. Strings are padded at the end with -1. For labels named sample by sample,
    as by `viterbi`, `blank` is the label of silence.

    Raises:
        TypeError, ValueError: a shape or a length does not fit, or the path holds anything but labels from 0 on.
    """
    check.batched("path", path, "(time, batch)")
    check.integers("the labels of path", path)
    check.lengths(lengths, len(path), path.shape[1:])
    path = path.long()
    previous = torch.cat([torch.full_like(path[:1], blank), path[:-1]])
    keep = (path != blank) & (path != previous)
    if lengths is not None:
        keep &= check.used(len(path), lengths)
    if bool((keep & (path < 0)).any()):
        where = check.first(keep & (path < 0))
        raise ValueError(
            f"path holds {int(path[where])} at (time, batch) = {where}, and labels are numbers from 0 on: give the "
            "lengths where -1 is padding."
        )
    place = keep.cumsum(0)
    longest = int(place[-1].max()) if place.numel() else 0
    strings = path.new_full((path.shape[1], longest), -1)
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
        log_posteriors: of one sequence (time, label), normalised: what is given up is known from what is left of 1.
        blank: the number that stands for "nothing new".
        section: cut the sequence where the blank is likelier than this, above 0 and at most 1, and search every piece
            by itself, as Graves et al. do (0.9999); None: one piece, exact.
        most: prefixes to extend in one piece, at least 1.

    Returns:
        Labelling(labels, log_probability); with several pieces the probability is the product of theirs, which is at
        most that of the labels in the whole sequence.

    Raises:
        TypeError, ValueError: a shape or an option does not fit, there is no such label as `blank`, or the
            probabilities of a sample do not add up to 1.
        RuntimeError: `most` prefixes were extended and the search had not ended.
    """
    _check(log_posteriors, blank, section, most)
    table = log_posteriors.detach().to("cpu", torch.float64).log_softmax(-1).numpy()  # to the last digit
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


def _check(log_posteriors: Tensor, blank: int, section: float | None, most: int) -> None:
    if log_posteriors.ndim != 2:
        raise ValueError(
            "log_posteriors are those of one sequence, (time, label); these have the shape "
            f"{tuple(log_posteriors.shape)}."
        )
    check.label("blank", blank, log_posteriors.shape[-1])
    check.size("most", most, 1)
    if section is not None and not 0 < section <= 1:
        raise ValueError(f"section = {section} is a probability above 0 and at most 1: the blank's at a cut, or None.")
    if not log_posteriors.is_floating_point():
        raise TypeError(f"log_posteriors must be floating-point, got {log_posteriors.dtype}: apply log_softmax first.")
    total = log_posteriors.detach().double().logsumexp(-1).exp()
    wrong = ~((total - 1).abs() <= max(1e-4, 16 * torch.finfo(log_posteriors.dtype).eps))
    if bool(wrong.any()):
        (t,) = check.first(wrong)
        raise ValueError(
            f"the probabilities at sample {t} add up to {float(total[t]):.4g}, not to 1, and the search is exact for "
            "normalised ones only: apply log_softmax first."
        )
