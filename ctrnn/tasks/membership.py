"""Telling, after the last symbol of a string, whether it belongs to a regular language."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .automata import TOMITA, Automaton
from .draws import dtype_or_default, integers, require, source, uniform
from .grid import check_dt, stream
from .trials import HasOutputs, Outputs, Trials, outputs, scored


@dataclass(frozen=True)
class Membership:
    """u(t) = the symbol of time t, one-hot; y at the end of the string = the log-odds that it belongs to the language.

    Half of the strings belong to it. Of the others the share `near` are strings of the language with one symbol
    changed, where that takes them out of it: strings drawn at random often leave a language early, and are told from it
    by less than the whole automaton. Lengths are drawn evenly from (shortest, longest), from those of which there are
    strings of both kinds.

    A symbol lasts `symbol_time`, in the unit of the network's tau. `targets` (time, batch, 1) say 1 or 0 all along, and
    the last sample is scored. `condition` holds `symbols` (batch, symbol), -1 behind the end of a string, and
    `accepted` (batch,).

    Raises:
        ValueError: all strings of these lengths are accepted, or none.
    """

    automaton: Automaton = TOMITA[4]
    lengths: tuple[int, int] = (1, 10)
    near: float = 0.5
    symbol_time: float = 1.0

    def __post_init__(self) -> None:
        require(1 <= self.lengths[0] <= self.lengths[1], f"lengths = {self.lengths} is no range (shortest, longest)")
        require(0 <= self.near <= 1, f"near = {self.near} is no share of the rejected strings: take 0 to 1")
        require(self.symbol_time > 0, f"symbol_time = {self.symbol_time}: a symbol lasts a positive time")
        require(
            len(self._lengths()) > 0,
            f"the strings of lengths {self.lengths} are all accepted or all rejected: take other lengths",
        )

    @property
    def n_in(self) -> int:
        return self.automaton.n_symbols

    @property
    def n_out(self) -> int:
        return 1

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
        check_dt(dt, self.symbol_time, "a symbol")
        possible = torch.tensor(self._lengths())
        lengths = possible[integers(0, len(possible) - 1, (batch,), generator)]
        accepted = torch.arange(batch) % 2 == 0
        symbols = self._strings(lengths, accepted, generator)
        us, string, n_samples = stream(symbols, self.n_in, self.symbol_time, dt)
        return Trials(
            us=us,
            targets=accepted.double()[:, None].expand(len(us), -1, 1),
            mask=torch.arange(len(us))[:, None] == n_samples - 1,
            lengths=n_samples,
            periods={"string": string},
            condition={"symbols": symbols.T, "accepted": accepted},
            dt=dt,
        ).to(dtype=dtype, device=device)

    def _lengths(self) -> list[int]:
        """Lengths of which there are strings of both kinds."""
        candidates = range(self.lengths[0], self.lengths[1] + 1)
        return [n for n in candidates if self.automaton.count(n) and self.automaton.count(n, False)]

    def _strings(
        self, lengths: Int[Tensor, "batch"], accepted: Bool[Tensor, "batch"], generator: torch.Generator
    ) -> Int[Tensor, "symbol batch"]:
        """Strings of these lengths, a share of the rejected ones one symbol away from an accepted one."""
        kinds = torch.cat([accepted, torch.ones_like(accepted)])
        drawn, other = self.automaton.strings(lengths.repeat(2), kinds, generator).chunk(2, 1)
        row = torch.arange(len(lengths))
        place = (uniform(0.0, 1.0, lengths.shape, generator) * lengths).long()
        shift = integers(1, self.n_in - 1, lengths.shape, generator)
        other[place, row] = (other[place, row] + shift) % self.n_in
        states = self.automaton.states(other.clamp(min=0))[lengths - 1, row]
        close = uniform(0.0, 1.0, lengths.shape, generator) < self.near
        return torch.where(~accepted & close & ~self.automaton.accepts(states), other, drawn)

    def loss(self, ys: Float[Tensor, "time batch 1"], trials: Trials) -> Float[Tensor, ""]:
        """Cross-entropy at the end of the strings; ys are log-odds."""
        ys, mask = outputs(Outputs(ys), trials, self.n_out), scored(trials)
        return F.binary_cross_entropy_with_logits(ys[mask], trials.targets[mask])

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """accuracy: the share of strings told rightly."""
        mask = scored(trials)
        said = outputs(traj, trials, self.n_out)[mask] > 0
        return {"accuracy": (said == (trials.targets[mask] > 0.5)).double().mean().item()}

    def chance(self, trials: Trials) -> dict[str, float]:
        """The accuracy of always saying what is said more often."""
        share = trials.targets[scored(trials)].double().mean().item()
        return {"accuracy": max(share, 1 - share)}
