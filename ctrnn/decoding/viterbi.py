"""The likeliest path through states whose scores add up, and how states follow one another in labelled sequences."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


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
        lengths: how many samples each sequence has (*batch,), at least one; all of them if None. Samples from there on
            are not read, and the path is -1 there.

    Raises:
        ValueError: a shape does not fit, or every path is forbidden.
    """
    n = scores.shape[-1]
    if transitions.shape != (n, n) or (initial is not None and initial.shape != (n,)) or len(scores) == 0:
        raise ValueError(
            f"scores {tuple(scores.shape)} have {n} states and need at least one sample, transitions ({n}, {n}) and an "
            f"initial score ({n},), got {tuple(transitions.shape)} and "
            f"{None if initial is None else tuple(initial.shape)}."
        )
    best = scores[0] if initial is None else scores[0] + initial
    came_from = []
    stay = torch.arange(n, device=scores.device).expand(best.shape)
    for t, now in enumerate(scores[1:], 1):
        arrived, before = (best.unsqueeze(-2) + transitions).max(-1)
        arrived = arrived + now
        if lengths is not None:
            going = (t < lengths).unsqueeze(-1)
            arrived, before = torch.where(going, arrived, best), torch.where(going, before, stay)
        best = arrived
        came_from.append(before)
    total, state = best.max(-1)
    if not bool(torch.isfinite(total).all()):
        raise ValueError("every path has the score -inf (or NaN): allow more transitions.")
    path = [state]
    for before in reversed(came_from):
        path.append(before.gather(-1, path[-1].unsqueeze(-1)).squeeze(-1))
    states = torch.stack(path[::-1])
    if lengths is None:
        return states
    times = torch.arange(len(states), device=states.device).reshape(-1, *[1] * lengths.ndim)
    return states.where(times < lengths, -1)


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
        ValueError: a label is no state, a sequence is empty or has a gap, the smoothing is negative, or with none some
            state is never left.
    """
    if not bool(((labels >= -1) & (labels < n_states)).all()):
        raise ValueError(
            f"labels are states 0 to {n_states - 1}, or -1 behind a sequence's end, got {int(labels.min())} to "
            f"{int(labels.max())}: give n_states as many as there are."
        )
    if labels.numel() == 0 or bool((labels[0] < 0).any()):
        raise ValueError("a sequence has no label at its first sample: leave empty sequences out.")
    if bool(((labels[:-1] < 0) & (labels[1:] >= 0)).any()):
        raise ValueError("-1 stands before a label: padding belongs only at a sequence's end.")
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
