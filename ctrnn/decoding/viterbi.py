"""The likeliest path through states whose scores add up."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def viterbi(
    scores: Float[Tensor, "time *batch state"],
    transitions: Float[Tensor, "state state"],
    initial: Float[Tensor, " state"] | None = None,
) -> Int[Tensor, "time *batch"]:
    """argmax over paths s of initial[s_0] + sum_t scores[t, s_t] + sum_t transitions[s_t, s_{t-1}] (Viterbi 1967).

    A network that names a state at every sample becomes the acoustic half of a hybrid (Bourlard & Morgan 1994; Graves,
    Jaitly & Mohamed 2013) with scores = log_posteriors - log_priors, a likelihood up to a factor that no path changes.

    Args:
        scores: of every state at every sample (time, *batch, state).
        transitions: from the column's state to the row's, as all weights here; -inf forbids one.
        initial: of the first state; zeros if None.

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
    for now in scores[1:]:
        arrived, before = (best.unsqueeze(-2) + transitions).max(-1)
        came_from.append(before)
        best = arrived + now
    total, state = best.max(-1)
    if not bool(torch.isfinite(total).all()):
        raise ValueError("every path has the score -inf (or NaN): allow more transitions.")
    path = [state]
    for before in reversed(came_from):
        path.append(before.gather(-1, path[-1].unsqueeze(-1)).squeeze(-1))
    return torch.stack(path[::-1])
