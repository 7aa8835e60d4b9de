"""From a network that says one word after another to the sentences it finds likely."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.decoding import _check as check

ROUNDING = 1e-3  # log-probabilities of certain words may exceed 0 by this, in half precision too

# From a state and the last words (batch,): log-probabilities of the next word (batch, word), and the state after it.
Say = Callable[[State, Tensor], tuple[Tensor, State]]


class Sentences(NamedTuple):
    """Words without the one that ends them, padded with -1, likeliest first, and the logarithms of their probability.

    A sentence as long as the search allowed has not ended. Where the probability is 0 there are no more sentences.
    """

    words: Int[Tensor, "batch beam step"]
    log_probability: Float[Tensor, "batch beam"]


def greedy(say: Say, state: State, *, begin: int, end: int, longest: int) -> Sentences:
    """Free running: the likeliest word at every step is said and heard.

    Args:
        say: one step, (state, words) -> (log-probabilities, state); `EncoderDecoder.say` is one.
        state: where every sentence of the batch begins; its parts lead with the batch axis.
        begin: the word heard before the first.
        end: the word that ends a sentence, one of those that can be said.
        longest: words to say at most, at least 1.

    Returns:
        One sentence for each of the batch.

    Raises:
        TypeError, ValueError: the state has no batch axis, an option does not fit, or `say` gives something else than
            log-probabilities (batch, word).
    """
    _check(state, longest)
    first = tree.leaves(state)[0]
    word = torch.full((len(first),), begin, device=first.device)
    said, total, going = [], first.new_zeros(len(word)), torch.ones_like(word, dtype=torch.bool)
    for _ in range(longest):
        scores, state = _said(say, state, word, end)
        best, word = scores.max(-1)
        total = total + torch.where(going, best, 0)
        said.append(word.where(going & (word != end), -1))
        going = going & (word != end)
        if not bool(going.any()):
            break
    return Sentences(torch.stack(said, -1).unsqueeze(1), total.unsqueeze(1))


def beam_search(say: Say, state: State, *, begin: int, end: int, width: int, longest: int) -> Sentences:
    """The likeliest sentences found when only the best `width` beginnings are kept at every step.

    Sutskever, Vinyals & Le (2014), section 3.2, except that an ended sentence keeps its place in the beam as long as it
    is among the best. With width = 1 this is `greedy`; as wide as there are beginnings it is exact. The probability is
    not divided by the length.

    Args:
        say, state, begin, end, longest: as in `greedy`.
        width: beginnings to keep, at least 1.

    Raises:
        TypeError, ValueError: as in `greedy`, or the width is no integer from 1 on.
    """
    _check(state, longest)
    check.size("width", width, 1)
    first = tree.leaves(state)[0]
    state = tree.map(lambda leaf: leaf.repeat_interleave(width, 0), state)
    rows = torch.arange(len(first), device=first.device).unsqueeze(-1) * width
    word = torch.full((len(first), width), begin, device=first.device)
    total = first.new_full((len(first), width), -torch.inf)
    total[:, 0] = 0  # all beginnings are one at first
    ended = torch.zeros_like(word, dtype=torch.bool)
    words = word[..., :0].unsqueeze(1).expand(-1, width, -1)
    for _ in range(longest):
        scores, state = _said(say, state, word.flatten(), end)
        scores = scores.unflatten(0, (-1, width))
        n = scores.shape[-1]
        nothing = scores.new_full((n,), -torch.inf)
        nothing[end] = 0  # an ended sentence says its end once more, for nothing
        scores = torch.where(ended.unsqueeze(-1), nothing, scores)
        total, best = (total.unsqueeze(-1) + scores).flatten(1).topk(width)
        parent, word = best // n, best % n
        kept = (rows + parent).flatten()
        state = tree.map(lambda leaf, kept=kept: leaf[kept], state)
        ended = ended.gather(1, parent) | (word == end)
        words = torch.cat([words.flatten(0, 1)[kept].unflatten(0, parent.shape), word.unsqueeze(-1)], -1)
        if bool(ended.all()):
            break
    return Sentences(words.masked_fill((words == end).cumsum(-1) > 0, -1), total)


def _check(state: State, longest: int) -> None:
    check.size("longest", longest, 1)
    shapes = {name or "state": tuple(leaf.shape) for name, leaf in tree.named(state)}
    if () in shapes.values() or len({shape[0] for shape in shapes.values()}) > 1:
        raise ValueError(
            f"the parts of the state have the shapes {shapes}, and all must lead with one and the same batch axis: for "
            "one sequence, give a batch of one."
        )


def _said(say: Say, state: State, word: Int[Tensor, " batch"], end: int) -> tuple[Float[Tensor, "batch word"], State]:
    """One step of `say`, and whether it gave what `Say` promises."""
    scores, state = say(state, word)
    if scores.ndim != 2 or len(scores) != len(word):
        raise ValueError(
            f"say must give log-probabilities (batch, word), one row for each of the {len(word)} words it heard, got "
            f"the shape {tuple(scores.shape)}."
        )
    check.label("end", end, scores.shape[-1])
    if not bool((scores <= ROUNDING).all()):
        raise ValueError("say must give log-probabilities, at most 0, got greater ones or NaN: apply log_softmax.")
    return scores, state
