"""Long time lags: remembering the first of many symbols, and adding two numbers seen long ago."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .draws import dtype_or_default, integers, require, source, uniform
from .grid import check_dt, inside, nodes, samples, staircase
from .trials import HasOutputs, Outputs, Trials, best_constant, masked_mse, outputs, period_mean, scored


@dataclass(frozen=True)
class TwoSequences:
    """x, a_1 ... a_{p-1}, x or y, a_1 ... a_{p-1}, y: predict every next symbol; the last one is what came first.

    Hochreiter & Schmidhuber (1997), Neural Computation 9:1735, task 2a, where p = `lag` is the time for which the
    first symbol must be kept. Both sequences are equally likely, or, if `balanced`, take turns. Channels, of inputs and
    outputs: a_1 ... a_{p-1}, x, y; a symbol's is 1 and lasts for one unit of time, the last symbol is a target only.
    Outputs are logits.
    `condition`, (batch,): `first`, 0 for x, 1 for y.
    """

    lag: int = 10
    balanced: bool = False

    def __post_init__(self) -> None:
        require(self.lag >= 1, f"lag = {self.lag}: there is at least one step from the first symbol to the last")

    @property
    def n_in(self) -> int:
        return self.lag + 1

    @property
    def n_out(self) -> int:
        return self.lag + 1

    def symbols(self) -> Int[Tensor, "symbol 2"]:
        """Both sequences, as channels; the one that begins with x first."""
        middle = torch.arange(self.lag - 1)[:, None].expand(-1, 2)
        ends = torch.tensor([[self.lag - 1, self.lag]])
        return torch.cat([ends, middle, ends])

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
        check_dt(dt, 1.0, "a symbol")
        first = torch.arange(batch) % 2 if self.balanced else integers(0, 1, (batch,), generator)
        shown = torch.eye(self.n_in, dtype=torch.float64)[self.symbols()[:, first]]

        zero = torch.zeros(batch, dtype=torch.float64)
        trial = torch.stack([zero, zero + self.lag])
        steps = int(samples(trial[1, :1], dt)[0])
        current = (samples(nodes(dt, steps, zero[0])[1:], 1.0) - 1).clamp(max=self.lag - 1)
        return Trials(
            us=staircase(shown[:-1], 1.0, trial, dt, steps),
            targets=shown[1:][current],
            mask=inside(trial, dt, steps),
            lengths=None,
            periods={"first": torch.stack([zero, zero + 1]), "response": torch.stack([zero + self.lag - 1, trial[1]])},
            condition={"first": first},
            dt=dt,
        ).to(dtype=dtype, device=device)

    def loss(self, ys: Float[Tensor, "time batch symbol"], trials: Trials) -> Float[Tensor, ""]:
        """Cross-entropy of the next symbol, in nats."""
        mask = scored(trials)
        # Selected first: a NaN where nothing is scored must reach neither the loss nor its gradient.
        log_p = outputs(Outputs(ys), trials, self.n_out)[mask].log_softmax(-1)
        return -(log_p * trials.targets[mask]).sum(-1).mean()

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """error, the greatest |p - target| of any symbol at any time (theirs: 0.25); accuracy, of the last symbol."""
        p = outputs(traj, trials, self.n_out).softmax(-1)
        error = (p - trials.targets).abs().amax(-1)[scored(trials)].max()
        last = period_mean(p, trials, "response").argmax(-1) - (self.lag - 1)
        return {"error": error.item(), "accuracy": (last == trials.condition["first"]).double().mean().item()}

    def chance(self, trials: Trials) -> dict[str, float]:
        """Scores of the symbols' frequencies."""
        return self.evaluate(Outputs(best_constant(trials).ys.log()), trials)


@dataclass(frozen=True)
class Adding:
    """y = 0.5 + (X_1 + X_2) / 4 at the end of a sequence of pairs (value, marker), two of which were marked.

    Hochreiter & Schmidhuber (1997), Neural Computation 9:1735, experiment 4; in later papers values are in [0, 1], and
    the target is their sum. Values are uniform in [-1, 1]; the marker is 1 at the two marked pairs, -1 at the first and
    the last, else 0. The first mark falls on one of the first ten pairs, the second on one of the length / 2 - 1 others
    among the first length / 2; if the very first pair is marked, its marker stays at -1 and its value is 0. There are
    `length` to 1.1 `length` pairs, so the lag is at least length / 2. A pair lasts for one unit of time; the output is
    scored during the last one. `condition`: `marked` (batch, 2), which pairs, counted from 0; `values` (batch, 2).
    """

    length: int = 100

    def __post_init__(self) -> None:
        require(self.length >= 20, f"length = {self.length}: the first half must hold the ten pairs of the first mark")

    @property
    def n_in(self) -> int:
        return 2

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
        """Raises ValueError for dt longer than a pair."""
        generator, dtype = source(batch, generator), dtype_or_default(dtype)
        check_dt(dt, 1.0, "a pair")
        longest, half = self.length + self.length // 10, self.length // 2
        lengths = integers(self.length, longest, (batch,), generator)
        values = uniform(-1.0, 1.0, (longest, batch), generator)
        first = integers(0, 9, (batch,), generator)
        second = integers(0, half - 2, (batch,), generator)
        marked = torch.stack([first, second + (second >= first)])
        pair = torch.arange(longest)[:, None]
        values = torch.where((pair == 0) & (marked == 0).any(0), 0.0, values)
        hit = (pair == marked[0]) | (pair == marked[1])
        markers = torch.where((pair == 0) | (pair == lengths - 1), -1.0, hit.double())
        added = values.gather(0, marked)

        end = lengths.double()
        trial = torch.stack([torch.zeros_like(end), end])
        counts = samples(end, dt)
        steps = int(counts.max())
        shown = torch.stack([values, markers], -1)
        response = torch.stack([end - 1, end])
        return Trials(
            us=staircase(shown, 1.0, trial, dt, steps),
            targets=(0.5 + added.sum(0) / 4).expand(steps, batch)[..., None],
            mask=inside(response, dt, steps),
            lengths=counts,
            periods={"trial": trial, "marked": torch.stack([marked.T, marked.T + 1]).double(), "response": response},
            condition={"marked": marked.T, "values": added.T},
            dt=dt,
        ).to(dtype=dtype, device=device)

    def loss(self, ys: Float[Tensor, "time batch 1"], trials: Trials) -> Float[Tensor, ""]:
        """Masked mean squared error."""
        return masked_mse(ys, trials)

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """mse; wrong, the fraction of trials whose output, averaged over the last pair, is off by 0.04 or more."""
        ys = outputs(traj, trials, self.n_out)
        off = (period_mean(ys, trials, "response") - 0.5 - trials.condition["values"].sum(-1, True) / 4).abs()
        return {"mse": masked_mse(ys, trials).item(), "wrong": (off >= 0.04).double().mean().item()}

    def chance(self, trials: Trials) -> dict[str, float]:
        """Scores of the best constant output: mse about 0.039, five trials of six wrong."""
        return self.evaluate(best_constant(trials), trials)
