"""Dyck languages: brackets of several kinds, of which the last that opened is the first to close."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from .draws import chances, count, integers, require, uniform
from .scripted import Script, ScriptedBits, between, check_range
from .trials import HasOutputs, Trials, outputs, scored


@dataclass(frozen=True)
class Dyck(ScriptedBits):
    """A word of balanced brackets of k kinds; after each bracket, y = log-odds that a symbol or the end may come next.

    Symbols 0 ... k - 1 open, k ... 2 k - 1 close, 2 k is the end. Any bracket may open unless `depth` are open; only
    the last that opened may close; the end may come when none is open. Lengths are drawn evenly from the even numbers
    of the range, and all words of a length are equally likely.

    With `grammar` = (p, q) words are those that S -> (S) with probability p, S -> S S with q, S -> nothing else
    derives, as long as they have an allowed length and depth: short ones, mostly. (0.5, 0.25) are the words of Suzgun
    et al. (2019), arXiv:1911.03329, who train on lengths 2 to 50 and test on 52 to 100, k = 2. Languages of bounded
    depth: Hewitt et al. (2020), EMNLP, 1978-2010.
    `condition`: `symbols` (batch, symbol), -1 behind the end of a word.

    Args:
        kinds: k.
        lengths: of words.
        depth: how many brackets may be open; None: any number.
        grammar: p and q.

    Raises:
        ValueError: no kind, no depth, no even length in the range, or no probabilities.
    """

    kinds: int = 2
    lengths: tuple[int, int] = (2, 50)
    depth: int | None = None
    grammar: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        count("kinds", self.kinds, "there is at least one kind of brackets")
        require(self.depth is None or self.depth >= 1, f"depth = {self.depth}: at least one bracket must be open")
        check_range("lengths", self.lengths, 1)
        require(self.lengths[1] // 2 >= -(-self.lengths[0] // 2), f"lengths = {self.lengths}: all words have even ones")
        if self.grammar is not None:
            p, q = self.grammar
            require(p > 0 and q >= 0 and p + q < 1, f"grammar = {self.grammar}: p > 0, q >= 0 and p + q < 1 must hold")
            require(not self.same_length, "same_length: a grammar decides on the length of every word by itself")
            require(p + 2 * q <= 1, f"grammar = {self.grammar}: with p + 2 q > 1 a derivation may never end")

    @property
    def n_in(self) -> int:
        return 2 * self.kinds

    @property
    def n_out(self) -> int:
        return 2 * self.kinds + 1

    def script(self, batch: int, generator: torch.Generator) -> Script:
        """Draw trials."""
        return self.of(self.words(batch, generator))

    def words(self, batch: int, generator: torch.Generator) -> Int[Tensor, "symbol batch"]:
        """Draw words; -1 behind their end."""
        if self.grammar is None:
            pairs = self.drawn((-(-self.lengths[0] // 2), self.lengths[1] // 2), batch, generator)
            opens = _evenly(pairs, self.depth, generator)
        else:
            opens = self._derived(batch, generator)
        kind = integers(0, self.kinds - 1, opens.shape, generator)
        closed = _innermost(opens)[:-1].clamp(min=0)  # what the next symbol closes if it closes anything
        closing = self.kinds + F.pad(kind.gather(0, closed), (0, 0, 1, 0))
        return torch.where(opens == 1, kind, torch.where(opens == 0, closing, -1))

    def of(self, symbols: Int[Tensor, "symbol batch"]) -> Script:
        """The script of these words, -1 behind their ends. Raises ValueError for one that is not in the language."""
        legal = self.legal(symbols)
        before = F.pad(legal[:-1], (0, 0, 0, 0, 1, 0))
        before[0, :, : self.kinds] = True
        there, length = symbols >= 0, (symbols >= 0).sum(0)
        may = before.gather(-1, symbols.clamp(0, self.n_in - 1)[..., None])[..., 0]
        ended = legal[(length - 1).clamp(min=0), torch.arange(len(length)), -1]
        member = (may | ~there).all(0) & (symbols < self.n_in).all(0) & ended
        zero = torch.zeros_like(length)
        require(
            bool(member.all() and torch.equal(there, between(zero, length, len(symbols)))),
            f"word {int((~member).long().argmax())} does not belong to {self}: close all brackets in their order, and "
            "put -1 behind the end",
        )
        return Script(
            shown=F.one_hot(symbols.clamp(min=0), self.n_in).double() * there[..., None],
            answers=legal.double(),
            due=there,
            lengths=length,
            phases={"string": (zero, length)},
            condition={"symbols": symbols.T},
        )

    def legal(self, symbols: Int[Tensor, "symbol batch"]) -> Bool[Tensor, "symbol batch symbol_or_end"]:
        """After each symbol of a word, which may come next, the end last; nothing behind the end."""
        opens = torch.where(symbols < 0, -1, (symbols < self.kinds).long())
        height = _heights(opens)
        fits = symbols.gather(0, _innermost(opens).clamp(min=0))
        rooms = torch.full_like(height, True, dtype=torch.bool) if self.depth is None else height < self.depth
        legal = torch.cat(
            [
                rooms[..., None].expand(-1, -1, self.kinds),
                (F.one_hot(fits.clamp(0, self.kinds - 1), self.kinds) > 0) & (height > 0)[..., None],
                (height == 0)[..., None],
            ],
            -1,
        )
        return legal & (symbols >= 0)[..., None]

    def right(self, traj: HasOutputs, trials: Trials) -> Bool[Tensor, "time batch"]:
        """Where the symbols that may come next are told from the others without a mistake; True where none is due."""
        told = outputs(traj, trials, self.n_out) > 0
        return (told == (trials.targets > 0.5)).all(-1) | ~scored(trials)

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """word_accuracy, of words without a mistake; symbol_accuracy, of symbols; closing_accuracy.

        closing_accuracy: of the symbols after which a bracket is open, the share after which the closing bracket that
        fits it is given higher odds than those of the other kinds.
        """
        right, mask = self.right(traj, trials), scored(trials)
        closing = slice(self.kinds, 2 * self.kinds)
        fits, said = trials.targets[mask][:, closing], outputs(traj, trials, self.n_out)[mask][:, closing]
        open_ = fits.any(-1)
        return {
            "word_accuracy": right.all(0).double().mean().item(),
            "symbol_accuracy": right[mask].double().mean().item(),
            "closing_accuracy": (fits.argmax(-1) == said.argmax(-1))[open_].double().mean().item(),
        }

    def chance(self, trials: Trials) -> dict[str, float]:
        """Scores of saying the same always: the set of symbols that is right most often, and the kind that is."""
        targets = trials.targets[scored(trials)]
        sets, counts = targets.unique(dim=0, return_counts=True)
        always = (targets == sets[counts.argmax()]).all(-1)
        right = torch.ones_like(scored(trials))
        right[scored(trials)] = always
        kinds = targets[:, self.kinds : 2 * self.kinds].double().sum(0)
        return {
            "word_accuracy": right.all(0).double().mean().item(),
            "symbol_accuracy": always.double().mean().item(),
            "closing_accuracy": (kinds.max() / kinds.sum()).item(),
        }

    def _derived(self, batch: int, generator: torch.Generator) -> Int[Tensor, "symbol batch"]:
        """Words of the grammar: 1 where a bracket opens, 0 where it closes, -1 behind the end."""
        draws, words = chances(generator), list[list[int]]()
        for _ in range(TRIES * batch):
            word = self._derivation(draws)
            if word is not None and len(words) < batch:
                words.append(word)
            if len(words) == batch:
                longest = max(map(len, words))
                return torch.tensor([word + [-1] * (longest - len(word)) for word in words]).T
        raise ValueError(
            f"grammar = {self.grammar} derives a word of lengths {self.lengths} and depth {self.depth} less than once "
            f"in {TRIES} times: take grammar=None, or other lengths"
        )

    def _derivation(self, draws: Iterator[float]) -> list[int] | None:
        """One word from left to right; None for one that gets too long, too deep or is too short."""
        p, q = self.grammar or (0.0, 0.0)
        word: list[int] = []
        pending, height = [1], 0  # what is still to be written, the next at the end: 1 for S, 0 for a closing bracket
        while pending:
            if pending.pop() == 0:
                word.append(0)
                height -= 1
                continue
            u = next(draws)
            if u < p:
                word.append(1)
                height += 1
                pending += [0, 1]
            elif u < p + q:
                pending += [1, 1]
            if len(word) + height > self.lengths[1] or (self.depth is not None and height > self.depth):
                return None
        return word if len(word) >= self.lengths[0] else None


TRIES = 10_000  # derivations per word before a grammar is given up


def _heights(opens: Int[Tensor, "symbol batch"]) -> Int[Tensor, "symbol batch"]:
    """How many brackets are open after each symbol; negative where too many have closed."""
    return (opens.eq(1).long() - opens.eq(0).long()).cumsum(0)


def _innermost(opens: Int[Tensor, "symbol batch"]) -> Int[Tensor, "symbol batch"]:
    """Which symbol opened the bracket that has to close first, after each symbol; -1 if none is open.

    It is the last that has opened to the height of now, hence the last not above now in the order by height and time.
    """
    opens, height = opens.T.contiguous(), _heights(opens).T.contiguous()  # searchsorted warns of strides
    count = opens.shape[1]
    place = height * count + torch.arange(count)
    opened = torch.where(opens == 1, place, torch.iinfo(torch.long).max).sort(-1).values
    found = torch.searchsorted(opened, place, right=True) - 1
    there = (found >= 0) & (height > 0)
    return torch.where(there, opened.gather(-1, found.clamp(min=0)) % count, -1).T


def _evenly(pairs: Int[Tensor, " batch"], depth: int | None, generator: torch.Generator) -> Int[Tensor, "symbol batch"]:
    """Words of so many pairs, all such equally likely: 1 where one opens, 0 where one closes, -1 behind the end."""
    most = int(pairs.max())
    opening = _opening(2 * most, most if depth is None else min(depth, most))
    numbers = uniform(0.0, 1.0, (2 * most, len(pairs)), generator)
    height, opens = torch.zeros_like(pairs), []
    for t, number in enumerate(numbers.unbind(0)):
        up = (number < opening[(2 * pairs - t).clamp(min=0), height]).long()
        inside = 2 * pairs > t
        height = height + (2 * up - 1) * inside
        opens.append(torch.where(inside, up, -1))
    return torch.stack(opens)


@functools.lru_cache(maxsize=8)
def _opening(longest: int, depth: int) -> Float64[Tensor, "length height"]:
    """The share of the ways to close all brackets that begin by opening one, by symbols left and brackets open."""
    ways = torch.full((depth + 3,), -torch.inf, dtype=torch.float64)  # their logarithm; heights -1 to depth + 1
    ways[1] = 0.0
    shares = [torch.zeros(depth + 1, dtype=torch.float64)]
    for _ in range(longest):
        down, up = ways[:-2], ways[2:]
        shares.append(torch.sigmoid(up - down).nan_to_num(0.0))  # no way at all: -inf - -inf
        ways = torch.full_like(ways, -torch.inf)
        ways[1:-1] = torch.logaddexp(down, up)
    return torch.stack(shares)
