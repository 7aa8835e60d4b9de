"""Symbols shown one after the other, and answers due at some of them: how the algorithmic tasks are played in time."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from .draws import dtype_or_default, integers, require, source
from .grid import check_dt, nodes, samples, staircase
from .trials import HasOutputs, Outputs, Trials, best_constant, outputs, scored

NEVER = 1e-12  # as unlikely as a constant guess may call a bit: a miss then costs 40 bits


class Script(NamedTuple):
    """A batch of trials, symbol by symbol, before time comes in."""

    shown: Float64[Tensor, "symbol batch n_in"]
    answers: Float64[Tensor, "symbol batch n_out"]  # 0 where none is due
    due: Bool[Tensor, "symbol batch"]
    lengths: Int[Tensor, " batch"]  # symbols of each trial
    # first symbol, and the one behind the last
    phases: dict[str, tuple[Int[Tensor, "batch *event"], Int[Tensor, "batch *event"]]]
    condition: dict[str, Tensor]


def placed(
    rows: Float64[Tensor, "row batch channel"],
    start: Int[Tensor, " batch"],
    length: Int[Tensor, " batch"],
    symbols: int,
) -> Float64[Tensor, "symbol batch channel"]:
    """A page of `symbols` symbols, 0 but for the first `length` rows of each trial, which begin at `start`.

    Rows that there are none of are 0, too.
    """
    row = torch.arange(symbols)[:, None] - start
    there = (row >= 0) & (row < length.clamp(max=len(rows)))
    taken = rows[row.clamp(0, len(rows) - 1), torch.arange(rows.shape[1])]
    return torch.where(there[..., None], taken, 0.0)


def between(first: Tensor, stop: Tensor, symbols: int) -> Bool[Tensor, "symbol batch"]:
    """Whether a symbol is one of first ... stop - 1."""
    k = torch.arange(symbols)[:, None]
    return (k >= first) & (k < stop)


def chained(scripts: Sequence[Script]) -> Script:
    """One after the other in the same trials; phases and condition get an axis that says in which."""
    ends = torch.stack([script.lengths for script in scripts]).cumsum(0)
    starts, symbols = [torch.zeros_like(ends[0]), *ends[:-1]], int(ends[-1].max())
    moved = [_moved(script, start, symbols) for script, start in zip(scripts, starts, strict=True)]
    return Script(
        shown=torch.stack([one.shown for one in moved]).sum(0),
        answers=torch.stack([one.answers for one in moved]).sum(0),
        due=torch.stack([one.due for one in moved]).any(0),
        lengths=ends[-1],
        phases={
            name: (
                torch.stack([one.phases[name][0] for one in moved], 1),
                torch.stack([one.phases[name][1] for one in moved], 1),
            )
            for name in moved[0].phases
        },
        condition={name: torch.stack([one.condition[name] for one in moved], 1) for name in moved[0].condition},
    )


def _moved(script: Script, start: Int[Tensor, " batch"], symbols: int) -> Script:
    """The same script, beginning later."""

    def later(page: Tensor) -> Tensor:
        return placed(page, start, script.lengths, symbols)

    return script._replace(
        shown=later(script.shown),
        answers=later(script.answers),
        due=later(script.due[..., None].double())[..., 0] > 0,
        phases={name: (first + start, stop + start) for name, (first, stop) in script.phases.items()},
    )


@dataclass(frozen=True, kw_only=True)
class Scripted(ABC):
    """A task written symbol by symbol. A subclass draws the script; this is how it is played in time.

    A symbol is held for `symbol_time`, in the unit of the network's tau. The answer due at a symbol is scored once, in
    the last sample within the symbol's time: a clocked memory has ticked by then, whatever dt, and a score counts
    symbols, not samples. At dt = symbol_time a sample is a symbol, and these are the sequences of the papers.

    Args:
        symbol_time: how long a symbol lasts.
        same_length: all trials of a batch have one length, drawn anew for each batch; they need no padding.
    """

    symbol_time: float = 1.0
    same_length: bool = False

    def __post_init__(self) -> None:
        require(self.symbol_time > 0, f"symbol_time = {self.symbol_time}: a symbol lasts a positive time")

    @property
    @abstractmethod
    def n_in(self) -> int: ...

    @property
    @abstractmethod
    def n_out(self) -> int: ...

    @abstractmethod
    def script(self, batch: int, generator: torch.Generator) -> Script:
        """Draw trials."""

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
        return self.played(self.script(batch, generator), dt).to(dtype=dtype, device=device)

    def played(self, script: Script, dt: float) -> Trials:
        """The trials of a script. Raises ValueError for dt longer than a symbol."""
        check_dt(dt, self.symbol_time, "a symbol")
        end = script.lengths * self.symbol_time
        whole = torch.stack([torch.zeros_like(end), end]).double()
        lengths = samples(whole[1], dt)
        steps = int(lengths.max())
        now = samples(nodes(dt, steps + 1, whole[0, 0])[1:], self.symbol_time) - 1  # the symbol of each sample time
        last = now[1:] > now[:-1]
        now = now[:-1].clamp(max=len(script.shown))  # one behind the end, where nothing is due
        answers, due = (F.pad(a, (0, 0) * (a.ndim - 1) + (0, 1)) for a in (script.answers, script.due))
        return Trials(
            us=staircase(script.shown, self.symbol_time, whole, dt, steps),
            targets=answers[now],
            mask=due[now] & last[:, None],
            lengths=lengths,
            periods={name: torch.stack(ends).double() * self.symbol_time for name, ends in script.phases.items()},
            condition=script.condition,
            dt=dt,
        )

    def drawn(self, span: tuple[int, int], batch: int, generator: torch.Generator) -> Int[Tensor, " batch"]:
        """Evenly from the span, for each trial or, if they all have one length, for the batch."""
        return integers(*span, (1 if self.same_length else batch,), generator).expand(batch)


@dataclass(frozen=True, kw_only=True)
class ScriptedBits(Scripted):
    """Answers are vectors of bits; outputs are log-odds of a 1."""

    def loss(self, ys: Float[Tensor, "time batch bit"], trials: Trials) -> Float[Tensor, ""]:
        """Mean cross-entropy of a bit, in nats."""
        ys, mask = outputs(Outputs(ys), trials, self.n_out), scored(trials)
        # Selected, not multiplied: a NaN where nothing is scored must reach neither the loss nor its gradient.
        return F.binary_cross_entropy_with_logits(ys[mask], trials.targets[mask])

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """cost, bits per trial; bit_error, the share of wrong bits; sequence_accuracy, of trials without a wrong one.

        The cost is the papers': the negative log2-likelihood of all bits that a trial asks for.
        """
        ys, mask = outputs(traj, trials, self.n_out), scored(trials)
        right = (ys > 0) == (trials.targets > 0.5)
        nats = F.binary_cross_entropy_with_logits(ys[mask], trials.targets[mask], reduction="sum")
        return {
            "cost": nats.item() / math.log(2) / trials.us.shape[1],
            "bit_error": (~right[mask]).double().mean().item(),
            "sequence_accuracy": (right.all(-1) | ~mask).all(0).double().mean().item(),
        }

    def chance(self, trials: Trials) -> dict[str, float]:
        """Scores of the same odds at all times, those that cost least: how often each bit is a 1."""
        odds = best_constant(trials).ys.double().logit(NEVER)  # in float32, 1 - 1e-12 would be 1
        return self.evaluate(Outputs(odds.to(trials.targets)), trials)


def check_range(name: str, span: tuple[int, int], least: int) -> None:
    """Raises ValueError unless span is a range (least, greatest) from `least` on."""
    require(least <= span[0] <= span[1], f"{name} = {span} is no range (least, greatest) from {least} on")
