"""The likeliest path through states whose scores add up, and how states follow one another in labelled sequences."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctrnn.decoding import _check as check


def viterbi(
    scores: Float[Tensor, "time *batch state"],
    transitions: Float[Tensor, "state state"],
    initial: Float[Tensor, " state"] | None = None,
    lengths: Int[Tensor, "*batch"] | None = None,
) -> Int[Tensor, "time *batch"]:
    """argmax over paths s of initial[s_0] + sum_t scores[t, s_t] + sum_t transitions[s_t, s_{t-1}] (Viterbi 1967).

    A network that names a state at every sample becomes the acoustic half of a hybrid (Bourlard & Morgan 1994; Graves,
    Jaitly & Mohamed 2013) with scores = log_posteriors - log_priors, a likelihood up to a factor that no path changes;
    `markov_chain` counts the priors, transitions and initial scores, and `ctc.collapse` makes a string of the path.

    Args:
        scores: of every state at every sample (time, *batch, state).
        transitions: from the column's state to the row's, as all weights here; -inf forbids one.
        initial: of the first state; zeros if None.
        lengths: how many samples each sequence has (*batch,); all of them if None. Samples from there on are not read,
            and the path is -1 there.

    Raises:
        TypeError, ValueError: a shape or a length does not fit, or every path of a sequence is forbidden.
    """
    _check(scores, transitions, initial, lengths)
    if len(scores) == 0:
        return scores.new_empty(scores.shape[:-1], dtype=torch.long)
    best = scores[0] if initial is None else scores[0] + initial
    came_from = []
    stay = torch.arange(best.shape[-1], device=scores.device).expand(best.shape)
    for t, now in enumerate(scores[1:], 1):
        arrived, before = (best.unsqueeze(-2) + transitions).max(-1)
        arrived = arrived + now
        if lengths is not None:
            going = (t < lengths).unsqueeze(-1)
            arrived, before = torch.where(going, arrived, best), torch.where(going, before, stay)
        best = arrived
        came_from.append(before)
    total, state = best.max(-1)
    lost = ~torch.isfinite(total) if lengths is None else ~torch.isfinite(total) & (lengths > 0)
    if bool(lost.any()):
        who = f" of sequence {', '.join(map(str, check.first(lost)))}" if lost.ndim else ""
        raise ValueError(
            f"every path{who} has the score -inf, or one is NaN: allow more transitions, or mend the scores."
        )
    path = [state]
    for before in reversed(came_from):
        path.append(before.gather(-1, path[-1].unsqueeze(-1)).squeeze(-1))
    states = torch.stack(path[::-1])
    return states if lengths is None else states.where(check.used(len(states), lengths), -1)


def _check(scores: Tensor, transitions: Tensor, initial: Tensor | None, lengths: Tensor | None) -> None:
    if scores.ndim < 2 or scores.shape[-1] == 0:
        raise ValueError(
            f"scores must have the shape (time, *batch, state) with at least one state, got {tuple(scores.shape)}."
        )
    n = scores.shape[-1]
    if transitions.shape != (n, n) or (initial is not None and initial.shape != (n,)):
        raise ValueError(
            f"scores {tuple(scores.shape)} have {n} states and need transitions ({n}, {n}) and an initial score "
            f"({n},), got {tuple(transitions.shape)} and {None if initial is None else tuple(initial.shape)}."
        )
    check.lengths(lengths, len(scores), scores.shape[1:-1])


class MarkovChain(NamedTuple):
    """Logarithms of how often a state is occupied, follows another, and comes first."""

    log_priors: Float[Tensor, " state"]
    log_transitions: Float[Tensor, "state state"]  # from the column's state to the row's
    log_initial: Float[Tensor, " state"]


def markov_chain(labels: Int[Tensor, "time batch"], n_states: int, *, smoothing: float = 1.0) -> MarkovChain:
    """The chain that the labels of aligned sequences follow, by counting: the other half of a hybrid (see `viterbi`).

    A state that stays with probability p lasts 1 / (1 - p) samples in the mean, so the diagonal holds the durations and
    the rest the bigrams. They belong to the step of the samples: count anew at another dt.

    Args:
        labels: states 0 ... n_states - 1 of each sequence, sample by sample, padded at the end with -1.
        n_states: how many there are.
        smoothing: is added to every count, so that what was never seen stays possible; 0 forbids it.

    Raises:
        TypeError: labels are no integers, or n_states is none.
        ValueError: a label is no state, a sequence is empty or has a gap, there is none, the smoothing is negative, or
            with none some state is never left.
    """
    labels = _labels(labels, n_states)
    if not 0 <= smoothing < torch.inf:
        raise ValueError(f"smoothing = {smoothing} is added to counts: give a number from 0 on.")

    def counts(states: Tensor, n: int) -> Tensor:
        return torch.bincount(states, minlength=n).to(torch.get_default_dtype()) + smoothing

    before, after = labels[:-1], labels[1:]
    both = after >= 0
    moves = counts(after[both] * n_states + before[both], n_states**2).unflatten(0, (n_states, n_states))
    if not bool(moves.sum(0).all()):
        state = int((moves.sum(0) == 0).nonzero()[0])
        raise ValueError(f"state {state} is never followed by a state: take smoothing > 0.")
    occupied, first = counts(labels[labels >= 0], n_states), counts(labels[0], n_states)
    return MarkovChain((occupied / occupied.sum()).log(), (moves / moves.sum(0)).log(), (first / first.sum()).log())


def _labels(labels: Tensor, n_states: int) -> Int[Tensor, "time batch"]:
    """The labels as int64, in which n_states^2 kinds of moves can be numbered, once they are found to be labels."""
    check.batched("labels", labels, "(time, batch)")
    check.integers("labels", labels)
    check.size("n_states", n_states, 1)
    labels = labels.long()
    if labels.shape[1] == 0:
        raise ValueError(f"labels {tuple(labels.shape)} hold no sequence to count in: give at least one.")
    if not bool(((labels >= -1) & (labels < n_states)).all()):
        raise ValueError(
            f"labels are states 0 to {n_states - 1}, or -1 behind a sequence's end, got {int(labels.min())} to "
            f"{int(labels.max())}: give n_states as many as there are."
        )
    if len(labels) == 0 or bool((labels[0] < 0).any()):
        raise ValueError("a sequence has no label at its first sample: leave empty sequences out.")
    if bool(((labels[:-1] < 0) & (labels[1:] >= 0)).any()):
        raise ValueError("-1 stands before a label: padding belongs only at a sequence's end.")
    return labels
