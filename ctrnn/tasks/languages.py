"""Words of formal languages, read symbol by symbol: after each, which symbols may come next?"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .draws import dtype_or_default, integers, require, source
from .grid import check_dt, stream
from .trials import HasOutputs, Outputs, Trials, outputs, scored


class Words(NamedTuple):
    """Words side by side. The end of a word counts as a symbol, the last."""

    symbols: Int[Tensor, "time batch"]  # -1 behind the end
    legal: Bool[Tensor, "time batch symbol+1"]  # after each symbol: which may come next

    @property
    def lengths(self) -> Int[Tensor, "batch"]:
        """Symbols of each word."""
        return (self.symbols >= 0).sum(0)


class Language(Protocol):
    """What `NextSymbol` asks of a language."""

    @property
    def n_symbols(self) -> int: ...

    def draw(self, batch: int, generator: torch.Generator) -> Words: ...


@dataclass(frozen=True)
class CountedBlocks:
    """a^n b^n and its kin: k blocks, each of one symbol, as long as `times` says in multiples of n.

    (1, 1) is a^n b^n, context-free; (1, 1, 1) is a^n b^n c^n, context-sensitive; (1, 2) is a^n b^2n. Words of all
    n >= 1 belong to the language: another a is legal after every a, a b after each that ends the block of some n, and
    from the first b on all is determined. `draw` takes n evenly from the range `n`.

    Raises:
        ValueError: there are fewer than two blocks, an empty one, or no n.
    """

    times: tuple[int, ...] = (1, 1)
    n: tuple[int, int] = (1, 50)

    def __post_init__(self) -> None:
        require(len(self.times) >= 2, f"times = {self.times}: give two blocks or more")
        require(min(self.times) >= 1, f"times = {self.times}: no block may be empty")
        require(1 <= self.n[0] <= self.n[1], f"n = {self.n} is no range (least, greatest) from 1 on")

    @property
    def n_symbols(self) -> int:
        return len(self.times)

    def draw(self, batch: int, generator: torch.Generator) -> Words:
        return self.words(integers(*self.n, (batch,), generator))

    def words(self, n: Int[Tensor, "batch"]) -> Words:
        """The word of each n."""
        edges = n[:, None] * torch.tensor(self.times).cumsum(0)  # where each block ends
        t = torch.arange(int(edges.max()))[:, None]
        block = (t[..., None] >= edges).sum(-1)
        following = (t[..., None] + 1 >= edges).sum(-1)
        legal = F.one_hot(following, self.n_symbols + 1).bool()
        legal[..., 0] |= block == 0
        legal[..., 1] |= (block == 0) & ((t + 1) % self.times[0] == 0)
        return Words(torch.where(block < self.n_symbols, block, -1), legal & (block < self.n_symbols)[..., None])


@dataclass(frozen=True)
class SummedBlocks:
    """a^n b^m c^(n+m), context-free: of Joulin & Mikolov's counting tasks (2015, NeurIPS) the one that adds.

    Words of all n, m >= 1 belong to the language: another a, or the first b, is legal after every a; another b, or the
    first c, after every b; from the first c on all is determined. `draw` takes n and m evenly from the range `n`.

    Raises:
        ValueError: there is no n.
    """

    n: tuple[int, int] = (1, 20)

    def __post_init__(self) -> None:
        require(1 <= self.n[0] <= self.n[1], f"n = {self.n} is no range (least, greatest) from 1 on")

    @property
    def n_symbols(self) -> int:
        return 3

    def draw(self, batch: int, generator: torch.Generator) -> Words:
        return self.words(*integers(*self.n, (2, batch), generator))

    def words(self, n: Int[Tensor, "batch"], m: Int[Tensor, "batch"]) -> Words:
        """The word of each n and m."""
        edges = torch.stack([n, n + m, 2 * (n + m)], -1)  # where each block ends
        t = torch.arange(int(edges.max()))[:, None]
        block = (t[..., None] >= edges).sum(-1)
        following = (t[..., None] + 1 >= edges).sum(-1)
        legal = F.one_hot(following, 4).bool()
        legal[..., :2] |= (block == 0)[..., None]
        legal[..., 1:3] |= (block == 1)[..., None]
        return Words(torch.where(block < 3, block, -1), legal & (block < 3)[..., None])


@dataclass(frozen=True)
class MarkedReversal:
    """w c w^R: letters, a marker, and the letters again from the last to the first; deterministic context-free.

    The marker is the symbol behind the letters. Any letter, or the marker, is legal after each letter of w, and from
    the marker on all is determined. `draw` takes the length of w evenly from the range `n`, and its letters evenly.

    Raises:
        ValueError: there is no letter, or no n.
    """

    letters: int = 2
    n: tuple[int, int] = (1, 20)

    def __post_init__(self) -> None:
        require(self.letters >= 1, f"letters = {self.letters}: words need at least one")
        require(1 <= self.n[0] <= self.n[1], f"n = {self.n} is no range (least, greatest) from 1 on")

    @property
    def n_symbols(self) -> int:
        return self.letters + 1

    def draw(self, batch: int, generator: torch.Generator) -> Words:
        n = integers(*self.n, (batch,), generator)
        return self.words(integers(0, self.letters - 1, (int(n.max()), batch), generator), n)

    def words(self, w: Int[Tensor, "letter batch"], n: Int[Tensor, "batch"]) -> Words:
        """The words of the first n letters of each w."""
        t = torch.arange(2 * int(n.max()) + 2)[:, None]  # one symbol more: the end
        letter = w.gather(0, torch.minimum(t, 2 * n - t).clamp(0, len(w) - 1))
        symbols = torch.where(t == n, self.letters, torch.where(t == 2 * n + 1, self.letters + 1, letter))
        legal = F.one_hot(symbols[1:], self.letters + 2).bool()
        legal[..., : self.letters + 1] |= (t[:-1] < n)[..., None]
        inside = t[:-1] <= 2 * n
        return Words(torch.where(inside, symbols[:-1], -1), legal & inside[..., None])


@dataclass(frozen=True)
class NextSymbol:
    """u(t) = the symbol of time t, one-hot; y = log-odds, for every symbol and for the end, that it may come next.

    Only words of the language are shown, as in Gers & Schmidhuber (2001), IEEE Transactions on Neural Networks
    12:1333-1340; every sample of a word is scored. A symbol lasts `symbol_time`, in the unit of the network's tau;
    `targets` (time, batch, symbol + 1) say 1 where a symbol is legal. `condition` holds `symbols` (batch, symbol), -1
    behind the end.
    """

    language: Language = CountedBlocks()
    symbol_time: float = 1.0

    def __post_init__(self) -> None:
        require(self.symbol_time > 0, f"symbol_time = {self.symbol_time}: a symbol lasts a positive time")

    @property
    def n_in(self) -> int:
        return self.language.n_symbols

    @property
    def n_out(self) -> int:
        return self.language.n_symbols + 1

    def trials(
        self,
        batch: int,
        dt: float,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Trials:
        """Raises ValueError for dt longer than a symbol."""
        generator, dtype = source(batch, generator), dtype_or_default(dtype)
        return self.of(self.language.draw(batch, generator), dt).to(dtype=dtype, device=device)

    def of(self, words: Words, dt: float) -> Trials:
        """The trials in which these words are read. Raises ValueError for dt longer than a symbol."""
        check_dt(dt, self.symbol_time, "a symbol")
        us, string, lengths = stream(words.symbols, self.n_in, self.symbol_time, dt)
        k = torch.arange(len(us))
        heard = (
            ((k + 0.5) * dt / self.symbol_time).long().clamp(max=len(words.symbols) - 1)
        )  # the symbol of each sample
        return Trials(
            us=us,
            targets=words.legal[heard].double(),
            mask=k[:, None] < lengths,
            lengths=lengths,
            periods={"string": string},
            condition={"symbols": words.symbols.T},
            dt=dt,
        )

    def loss(self, ys: Float[Tensor, "time batch symbol+1"], trials: Trials) -> Float[Tensor, ""]:
        """Cross-entropy of each symbol's being legal or not."""
        ys, mask = outputs(Outputs(ys), trials, self.n_out), scored(trials)
        return F.binary_cross_entropy_with_logits(ys[mask], trials.targets[mask])

    def right(self, traj: HasOutputs, trials: Trials) -> Bool[Tensor, "time batch"]:
        """Where the legal symbols are told from the others without a mistake; True behind the end of a word."""
        told = outputs(traj, trials, self.n_out) > 0
        return (told == (trials.targets > 0.5)).all(-1) | ~scored(trials)

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """word_accuracy: words without a mistake; symbol_accuracy: samples after which all is told rightly."""
        right, mask = self.right(traj, trials), scored(trials)
        return {
            "word_accuracy": right.all(0).double().mean().item(),
            "symbol_accuracy": right[mask].double().mean().item(),
        }

    def chance(self, trials: Trials) -> dict[str, float]:
        """Scores of saying the same set of symbols always, the one that is legal most often."""
        sets, counts = trials.targets[scored(trials)].unique(dim=0, return_counts=True)
        always = 2.0 * sets[counts.argmax()].expand_as(trials.targets) - 1.0
        return self.evaluate(Outputs(always), trials)
