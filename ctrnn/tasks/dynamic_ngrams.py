"""Bits whose odds depend on the last few, by a table that is new in every trial: the line to reach is Bayes'."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from torch import Tensor

from .draws import integers, require, uniform
from .scripted import Script, ScriptedBits
from .trials import HasOutputs, Outputs, Trials, outputs, scored


@dataclass(frozen=True)
class DynamicNGrams(ScriptedBits):
    """P(b_t = 1 | the n - 1 bits before) = a number of a table, drawn anew for each trial; y_t = log-odds of b_{t+1}.

    Graves, Wayne & Danihelka (2014), arXiv:1410.5401, section 4.4: n = 6, 200 bits, and every number of the table is
    drawn from Beta(1/2, 1/2); the first n - 1 bits are fair coins. Nobody who does not know the table does better than

        P(b = 1 | N_1, N_0) = (N_1 + 1/2) / (N_1 + N_0 + 1)                                                (eq. 10)

    where N_1 and N_0 count what came behind the same n - 1 bits earlier in the trial: `optimal` says it. What is due is
    each bit that the table decides, so the coins, a bit each whatever is said, are in no cost; the paper's figure has
    them: 5 more for n = 6. One channel: the bit.
    `condition`: `bits` (batch, time); `table` (batch, context), the chance of a 1 by the bits before, which are read as
    a binary number, the last bit as its last digit.

    Raises:
        ValueError: n is no count, or there is no bit that the table decides.
    """

    n: int = 6
    length: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.n >= 2, f"n = {self.n}: the n-gram of a bit and at least one before it has n >= 2")
        require(self.length >= self.n, f"length = {self.length}: the table decides bits from the n-th on, n = {self.n}")

    @property
    def n_in(self) -> int:
        return 1

    @property
    def n_out(self) -> int:
        return 1

    def script(self, batch: int, generator: torch.Generator) -> Script:
        """Draw trials."""
        # Beta(1/2, 1/2) is the law of a sine squared at an even angle.
        table = (uniform(0.0, math.pi / 2, (2 ** (self.n - 1), batch), generator)).sin().square()
        coins = integers(0, 1, (self.n - 1, batch), generator)
        chances = uniform(0.0, 1.0, (self.length - self.n + 1, batch), generator)
        bits, context = list(coins.unbind(0)), self._contexts(coins)[0]
        for chance in chances.unbind(0):
            bits.append((chance < table.gather(0, context[None])[0]).long())
            context = (2 * context + bits[-1]) % len(table)
        return self.of(torch.stack(bits), table)

    def of(self, bits: Int[Tensor, "time batch"], table: Float64[Tensor, "context batch"]) -> Script:
        """The script of these bits."""
        count = torch.full(bits.shape[1:], len(bits) - 1)
        place = torch.arange(len(bits) - 1)[:, None]
        return Script(
            shown=bits[:-1, :, None].double(),
            answers=bits[1:, :, None].double(),
            due=(place >= self.n - 2).expand(-1, bits.shape[1]),
            lengths=count,
            phases={"coins": (torch.zeros_like(count), torch.full_like(count, self.n - 1))},
            condition={"bits": bits.T, "table": table.T},
        )

    def optimal(self, trials: Trials) -> Outputs:
        """What the best estimator says, at the samples that are scored; even odds at all others."""
        bits = trials.condition["bits"].T
        counts = torch.full((2, 2 ** (self.n - 1), bits.shape[1]), 0.5, dtype=torch.float64, device=bits.device)
        odds, trial = [], torch.arange(bits.shape[1], device=bits.device)
        for context, bit in zip(self._contexts(bits[:-1]), bits[self.n - 1 :], strict=True):
            zeros, ones = counts[:, context, trial]
            odds.append((ones / zeros).log())
            counts[bit, context, trial] += 1
        ys = torch.zeros_like(trials.targets)
        # Trial by trial, each in the order of time.
        ys.transpose(0, 1)[scored(trials).T] = torch.stack(odds, -1).reshape(-1, 1).to(ys)
        return Outputs(ys)

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """cost, bits per trial; excess, how much more that is than the best estimator's on these trials; bit_error."""
        cost = self._cost(outputs(traj, trials, self.n_out), trials)
        wrong = (outputs(traj, trials, self.n_out) > 0) != (trials.targets > 0.5)
        return {
            "cost": cost,
            "excess": cost - self._cost(self.optimal(trials).ys, trials),
            "bit_error": wrong[scored(trials)].double().mean().item(),
        }

    def _cost(self, ys: Float[Tensor, "time batch 1"], trials: Trials) -> float:
        mask = scored(trials)
        nats = F.binary_cross_entropy_with_logits(ys[mask].double(), trials.targets[mask].double(), reduction="sum")
        return nats.item() / math.log(2) / trials.us.shape[1]

    def _contexts(self, bits: Int[Tensor, "time batch"]) -> Int[Tensor, "place batch"]:
        """Each n - 1 bits in a row as a binary number."""
        windows = bits.unfold(0, self.n - 1, 1)
        return (windows * 2 ** torch.arange(self.n - 2, -1, -1, device=bits.device)).sum(-1)
