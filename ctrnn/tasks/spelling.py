"""Letters and the sounds they stand for: which letter of a word says what."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

Sounds = tuple[str, ...]
Pair = tuple[str, Sounds]
NEVER = 1e-12  # a pair that no alignment has used: unlikely, but not impossible


class Spelled(NamedTuple):
    """A word and one way to say it."""

    letters: str
    sounds: Sounds


def align(words: Sequence[Spelled], *, most: int = 2, rounds: int = 5) -> list[list[Sounds]]:
    """What every letter of every word says: between none and `most` sounds each, in order, nothing left over.

    Expectation maximisation of P(sounds | letter) over all alignments, alike at first, then the likeliest one of every
    word (Jiampojamarn, Kondrak & Sherif 2007, NAACL, with one letter at a time). A network that reads letters through a
    window (Sejnowski & Rosenberg 1987) needs such an alignment.

    Args:
        words: to align with one another.
        most: sounds of one letter.
        rounds: of expectation maximisation.

    Raises:
        ValueError: a word has more sounds than its letters can say.
    """
    for word in words:
        if len(word.sounds) > most * len(word.letters):
            raise ValueError(
                f"{word.letters!r} has {len(word.sounds)} sounds, more than {most} for each of its letters: leave it "
                "out, or raise `most`."
            )
    probability: Mapping[Pair, float] = defaultdict(lambda: 1.0)
    for _ in range(rounds):
        counts: dict[Pair, float] = defaultdict(float)
        totals: dict[str, float] = defaultdict(float)
        for word in words:
            for pair, weight in _expected(word, probability, most):
                counts[pair] += weight
                totals[pair[0]] += weight
        probability = {pair: count / totals[pair[0]] for pair, count in counts.items()}
    return [_likeliest(word, probability, most) for word in words]


def _expected(word: Spelled, probability: Mapping[Pair, float], most: int) -> list[tuple[Pair, float]]:
    """How often this word's alignments use each pair: forward and backward sums over (letters read, sounds said)."""
    letters, sounds = word
    n = len(sounds)
    moves = [
        [
            (said, after, (letter, sounds[said:after]))
            for said in range(max(0, n - most * (len(letters) - i)), min(most * i, n) + 1)
            for after in range(said, min(said + most, n) + 1)
        ]
        for i, letter in enumerate(letters)
    ]
    ahead = [[1.0] + [0.0] * n]
    for column in moves:
        now = [0.0] * (n + 1)
        for said, after, pair in column:
            now[after] += ahead[-1][said] * probability[pair]
        ahead.append(now)
    behind, found = [0.0] * n + [1.0], []
    for before, column in zip(reversed(ahead[:-1]), reversed(moves), strict=True):
        now = [0.0] * (n + 1)
        for said, after, pair in column:
            part = probability[pair] * behind[after]
            now[said] += part
            found.append((pair, before[said] * part / ahead[-1][n]))
        behind = now
    return found


def _likeliest(word: Spelled, probability: Mapping[Pair, float], most: int) -> list[Sounds]:
    """The best of this word's alignments (Viterbi 1967)."""
    letters, sounds = word
    best = {0: 1.0}  # sounds said -> probability of the best way there
    came: list[dict[int, int]] = []
    for letter in letters:
        now: dict[int, float] = {}
        came.append({})
        for said, so_far in best.items():
            for after in range(said, min(said + most, len(sounds)) + 1):
                value = so_far * (probability.get((letter, sounds[said:after]), 0.0) + NEVER)
                if value > now.get(after, -1.0):
                    now[after], came[-1][after] = value, said
        best = now
    cuts = [len(sounds)]
    for column in reversed(came):
        cuts.append(column[cuts[-1]])
    return [sounds[start:stop] for start, stop in pairwise(reversed(cuts))]
