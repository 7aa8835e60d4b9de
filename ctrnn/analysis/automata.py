"""The finite automaton in a trained network: clusters of its states, and where each symbol takes them."""

import torch
from jaxtyping import Bool, Float, Int
from sklearn.cluster import KMeans
from torch import Tensor

from ctrnn.tasks.automata import Automaton


def extract_automaton(
    xs: Float[Tensor, "time+1 batch unit"],
    symbols: Int[Tensor, "time batch"],
    accepted: Bool[Tensor, "time+1 batch"],
    clusters: int,
    *,
    seed: int = 0,
) -> Automaton:
    """The automaton whose states are clusters of the network's, minimised.

    k-means (in place of the equal boxes of Giles et al. 1992, Neural Computation 4:393-405) puts the states into
    clusters. A symbol takes a cluster where it took most of its members; where no member met the symbol, the cluster
    keeps itself. A cluster accepts when most of its members do. Equivalent states are then merged
    (`Automaton.minimised`), so there are often fewer states than clusters.

    Args:
        xs: the state before the first symbol, the same for all strings, and after each symbol.
        symbols: 0, 1, ...; -1 behind the end of a string.
        accepted: what the network says in each of the states.
        clusters: at most so many; not more than there are different states.
        seed: of the first centres.

    Raises:
        ValueError: there is no cluster to be made, or no symbol.
    """
    read = symbols >= 0
    if clusters < 1 or not bool(read.any()):
        raise ValueError(f"{clusters} clusters of states in {int(read.sum())} places: give at least one of each.")
    xs = xs.detach().double()
    states = torch.cat([xs[0, :1], xs[1:][read]])
    k = min(clusters, len(states.unique(dim=0)))
    means = KMeans(k, n_init=4, random_state=seed).fit(states)
    label = torch.from_numpy(means.predict(xs.flatten(0, 1))).long().unflatten(0, xs.shape[:2])
    before, after, symbol = label[:-1][read], label[1:][read], symbols[read]
    moves = torch.zeros(k, int(symbol.max()) + 1, k)
    moves.index_put_((before, symbol, after), torch.ones(len(symbol)), accumulate=True)
    rows = torch.where(moves.sum(-1) > 0, moves.argmax(-1), torch.arange(k)[:, None])
    members = torch.cat([label[0, :1], after])
    votes = torch.zeros(k).index_add_(0, members, 2.0 * torch.cat([accepted[0, :1], accepted[1:][read]]) - 1.0)
    accepting = (votes > 0).nonzero()[:, 0]
    return Automaton(tuple(map(tuple, rows.tolist())), tuple(accepting.tolist()), int(label[0, 0])).minimised()
