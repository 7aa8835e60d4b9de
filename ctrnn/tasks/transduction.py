"""Strings in, strings out: the protocol by which networks are ranked along the Chomsky hierarchy."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .draws import require
from .scripted import Script, Scripted, between, check_range, placed
from .trials import HasOutputs, Outputs, Trials, outputs, scored


class Strings(NamedTuple):
    """Strings side by side, and what is to be said of each."""

    symbols: Int[Tensor, "place batch"]  # -1 behind the end
    answers: Int[Tensor, "token batch"]  # -1 where none is scored
    tokens: Int[Tensor, " batch"]  # how many symbols the network is given to say it


@dataclass(frozen=True)
class Transduction(Scripted):
    """s_1 ... s_L, then one output token per symbol of the answer, each of which is to be said at its token.

    Deletang et al. (2023), ICLR, arXiv:2207.02098: training on lengths 1 to 40, tests on 41 to 500, 128 strings of one
    length per batch (`same_length`), Adam, gradients clipped at norm 1, a million updates; the score of a network is
    its accuracy per token, averaged over the lengths of the test, the best of ten seeds, and 90 % passes. Lengths are
    drawn evenly from those of the range that the task has. Channels: the symbols, one-hot; the output token; the
    computation token, if there are any. Outputs are logits of the symbols of the answer.
    `condition`: `symbols` (batch, place) and `answers` (batch, token), -1 behind the end.

    Args:
        lengths: of the strings.
        computation: tokens of silence between string and answer, per symbol of the string; theirs for the tape: 0 to 2.

    Raises:
        ValueError: the task has no string of these lengths, or computation is negative.
    """

    lengths: tuple[int, int] = (1, 40)
    computation: int = 0

    level: ClassVar[str]  # of the hierarchy

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("lengths", self.lengths, 1)
        require(self.computation >= 0, f"computation = {self.computation}: it counts tokens")
        require(len(self.possible()) > 0, f"lengths = {self.lengths}: {type(self).__name__} has no string among them")

    @property
    @abstractmethod
    def n_symbols(self) -> int:
        """Symbols of which strings consist."""

    @abstractmethod
    def strings(self, length: Int[Tensor, " batch"], generator: torch.Generator) -> Strings:
        """Draw strings of these lengths."""

    def possible(self) -> list[int]:
        """The lengths of the range of which there are strings."""
        return list(range(self.lengths[0], self.lengths[1] + 1))

    @property
    def n_in(self) -> int:
        return self.n_symbols + 1 + (self.computation > 0)

    def script(self, batch: int, generator: torch.Generator) -> Script:
        """Draw trials."""
        possible = torch.tensor(self.possible())
        return self.of(self.strings(possible[self.drawn((0, len(possible) - 1), batch, generator)], generator))

    def of(self, strings: Strings) -> Script:
        """The script of these strings."""
        length, tokens = (strings.symbols >= 0).sum(0), strings.tokens
        zero, first = torch.zeros_like(length), length * (1 + self.computation)
        end = first + tokens
        symbols = int(end.max())
        marks = [between(first, end, symbols), between(length, first, symbols)][: 1 + (self.computation > 0)]
        said = placed(_one_hot(strings.answers, self.n_out), first, tokens, symbols)
        return Script(
            shown=torch.cat(
                [
                    placed(_one_hot(strings.symbols, self.n_symbols), zero, length, symbols),
                    torch.stack(marks, -1).double(),
                ],
                -1,
            ),
            answers=said,
            due=said.any(-1),
            lengths=end,
            phases={"string": (zero, length), "answer": (first, end)},
            condition={"symbols": strings.symbols.T, "answers": strings.answers.T},
        )

    def loss(self, ys: Float[Tensor, "time batch symbol"], trials: Trials) -> Float[Tensor, ""]:
        """Mean cross-entropy of a symbol of the answer, in nats."""
        ys, mask = outputs(Outputs(ys), trials, self.n_out), scored(trials)
        # Selected first: a NaN where nothing is scored must reach neither the loss nor its gradient.
        return -(ys[mask].log_softmax(-1) * trials.targets[mask]).sum(-1).mean()

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """accuracy, of the symbols of the answers; sequence_accuracy, of whole answers."""
        right = outputs(traj, trials, self.n_out).argmax(-1) == trials.targets.argmax(-1)
        mask = scored(trials)
        return {
            "accuracy": right[mask].double().mean().item(),
            "sequence_accuracy": (right | ~mask).all(0).double().mean().item(),
        }

    def chance(self, trials: Trials) -> dict[str, float]:
        """Scores of the symbol that is right most often, said always."""
        always = trials.targets[scored(trials)].sum(0)
        return self.evaluate(Outputs(always.expand(trials.targets.shape)), trials)


def _one_hot(symbols: Int[Tensor, "place batch"], count: int) -> Tensor:
    return F.one_hot(symbols.clamp(min=0), count).double() * (symbols >= 0)[..., None]


def padded(rows: list[list[int]]) -> Int[Tensor, "place batch"]:
    """Strings side by side, -1 behind their ends."""
    return pad_sequence([torch.tensor(row) for row in rows], padding_value=-1)
