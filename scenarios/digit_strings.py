"""A rate network reads unsegmented handwriting, column by column.

Claim: a rate network with learned time constants reads strings of handwritten digits that nobody cut apart as well as a
gated one (GRU) of the same size, and better than networks without memory that see a window of the page. Trained at one
step dt it learns that step's map and fails at finer ones; trained at steps drawn from a distribution it reads at all of
these and at finer ones. At another column rate every network reads worse, unless it is told the rate.

Source: digits of Alpaydin & Kaynak (1998), UCI Optical Recognition of Handwritten Digits, as in scikit-learn; labels by
connectionist temporal classification, Graves, Fernandez, Gomez & Schmidhuber (2006), ICML; GRU: Cho et al. (2014).
"""

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

import ctrnn
from ctrnn import learning, plots
from ctrnn.decoding import best_path
from ctrnn.init import log_uniform_tau
from ctrnn.learning import Fitted, LogUniform
from ctrnn.models import GRU, RateRNN
from ctrnn.plots.style import CYCLE, QUIET
from ctrnn.results import Claim, Result, main, progress
from ctrnn.solvers import RK4, Iterate, Solver
from ctrnn.tasks import DigitStrings, Trials
from ctrnn.tasks.digits import COLUMNS, images
from ctrnn.tasks.trials import HasOutputs, Outputs

DT = 1.0  # time in units of one column; the longest step
FINE = 0.25  # the finest step of a training with drawn steps
LEARNING_RATE, BATCH = 6e-3, 32
RATES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0)
STEPS = (0.125, 0.25, 0.5, 0.75, 1.0)
RATE, RATE_DRAWN, GATED, WIDE, NARROW = "rate, one dt", "rate, drawn dt", "GRU", "window of 9", "window of 4"
LOOKS = {  # colour, marker and line of each network
    RATE: (CYCLE[0], "o", ":"),
    RATE_DRAWN: (CYCLE[0], "o", "-"),
    GATED: (CYCLE[1], "^", ":"),
    WIDE: (CYCLE[2], "s", ":"),
    NARROW: (CYCLE[4], "D", ":"),
}


class WindowNetwork(nn.Module):
    """y_k = W_2 relu(W_1 (u_k, u_{k-1}, ..., u_{k-width+1}) + b_1) + b_2: no cycle, no memory but its window."""

    def __init__(self, width: int, hidden: int, n_in: int, n_out: int, generator: Generator) -> None:
        super().__init__()
        self.width = width
        self.first = nn.utils.skip_init(nn.Linear, width * n_in, hidden)
        self.second = nn.utils.skip_init(nn.Linear, hidden, n_out)
        for layer in (self.first, self.second):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, us: Tensor, *, dt: float = DT, lengths: Tensor | None = None) -> Outputs:
        before = torch.cat([us.new_zeros(self.width - 1, *us.shape[1:]), us])
        seen = torch.cat([before[i : i + len(us)] for i in range(self.width)], -1)
        return Outputs(self.second(torch.relu(self.first(seen))))


class Measured(NamedTuple):
    """Label errors on the test strings, one row per seed."""

    error: Mapping[str, np.ndarray]  # at the training's rate and longest step, (seed,)
    by_dt: Mapping[str, np.ndarray]  # (seed, step)
    flow: Mapping[str, np.ndarray]  # (seed,), by Runge-Kutta steps, read eight times a column
    by_rate: Mapping[str, np.ndarray]  # (seed, rate), not told the rate
    told: np.ndarray  # (seed, rate), the GRU stepped once per column
    chance: float


def run(
    *, quick: bool = False, seed: int = 0, seeds: int = 3, units: int = 128, updates: int = 1000, strings: int = 500
) -> Result:
    """Train the networks on the training images, and let them read strings of test images.

    Args:
        quick: one seed, small networks, too few updates to learn to read.
        seed: of weights, trials and test strings; the networks take seed, seed + 1, ...
        seeds: networks of each kind.
        units: units of the rate networks; the others get as many parameters.
        updates: updates of Adam for every network.
        strings: test strings, the same for all networks.
    """
    if quick:
        seeds, units, updates, strings = 1, 32, 20, 32
    fitted: dict[str, list[Fitted]] = {name: [] for name in LOOKS}
    report = progress(len(LOOKS) * seeds, "training")
    for k, number in enumerate(range(seed, seed + seeds)):
        for i, (name, network) in enumerate(networks(units, number).items()):
            bar = partial(lambda before, part: report(before + part), k * len(LOOKS) + i)
            fitted[name].append(train(network, name, updates, number, bar))
    found = measure(fitted, strings, seed)
    return Result(figure(fitted, found, strings, seed), exact_claims(fitted) + found_claims(fitted, found))


def networks(units: int, seed: int) -> dict[str, nn.Module]:
    """Untrained networks of one seed, with about the same number of parameters."""
    n_in, n_out = COLUMNS, 11
    generator = Generator().manual_seed(seed)
    tau = log_uniform_tau(units, DT, 4 * DT, generator=generator)
    rate = RateRNN(units, n_in, n_out, tau=tau, learn_tau=True, generator=generator)
    aim = units * (units + n_in + 2) + n_out * (units + 1)
    gated = min(range(1, aim), key=lambda n: abs(3 * n * (n + n_in + 2) + n_out * (n + 1) - aim))
    hidden = {w: round((aim - n_out) / (w * n_in + 1 + n_out)) for w in (9, 4)}
    gru = GRU(gated, n_in, n_out, generator=generator)
    wide, narrow = (WindowNetwork(w, hidden[w], n_in, n_out, generator) for w in (9, 4))
    return {RATE: rate, RATE_DRAWN: rate, GATED: gru, WIDE: wide, NARROW: narrow}


def train(network: nn.Module, name: str, updates: int, seed: int, report: Callable[[float], None]) -> Fitted:
    """A trained copy. The recipe was chosen on the validation images; only the step differs."""
    return learning.fit(
        network,
        reading("train"),
        updates=updates,
        batch=BATCH,
        dt=LogUniform(FINE, DT) if name == RATE_DRAWN else DT,
        optimizer=partial(torch.optim.Adam, lr=LEARNING_RATE),
        schedule=partial(OneCycleLR, max_lr=LEARNING_RATE, total_steps=updates, pct_start=0.1, cycle_momentum=False),
        clip=1.0,
        seed=seed,
        held_out=reading("test"),
        evaluation_batch=200,
        progress=report,
    )


def reading(split: str, rate: float = 1.0) -> DigitStrings:
    """Strings of one to four digits."""
    return DigitStrings(split, digits=(1, 4), rate=rate)


def measure(fitted: Mapping[str, list[Fitted]], strings: int, seed: int) -> Measured:
    """Let every network read the same test strings, at other steps and at other column rates."""
    report, done = progress(3 * (len(STEPS) + 1) + (len(LOOKS) + 1) * len(RATES), "reading"), itertools.count(1)

    def errors(name: str, dt: float, rate: float = 1.0, solver: Solver | None = None) -> list[float]:
        report(next(done))
        task, trials = reading("test", rate), held_out_strings(dt, rate, strings, seed)
        runs = [task.evaluate(outputs(fit.model, trials, solver), trials) for fit in fitted[name]]
        return [score["label_error"] for score in runs]

    by_dt = {name: np.array([errors(name, dt) for dt in STEPS]).T for name in (RATE, RATE_DRAWN, GATED)}
    flow = {name: np.array(errors(name, STEPS[0], solver=RK4())) for name in by_dt}
    dts = {name: FINE if name == RATE_DRAWN else DT for name in LOOKS}
    by_rate = {name: np.array([errors(name, dts[name], rate) for rate in RATES]).T for name in LOOKS}
    told = np.array([errors(GATED, DT / rate, rate, Iterate()) for rate in RATES]).T
    error = {name: by_dt.get(name, by_rate[name][:, : RATES.index(1.0) + 1])[:, -1] for name in LOOKS}
    chance = reading("test").chance(held_out_strings(DT, 1.0, strings, seed))["label_error"]
    return Measured(error, by_dt, flow, by_rate, told, chance)


@torch.no_grad()
def outputs(model: nn.Module, trials: Trials, solver: Solver | None = None) -> HasOutputs:
    """What a network says to trials."""
    if isinstance(model, ctrnn.Model):
        return ctrnn.integrate(model, ctrnn.Held(trials.us, trials.dt, lengths=trials.lengths), solver=solver)
    return model(trials.us)


def held_out_strings(dt: float, rate: float, strings: int, seed: int) -> Trials:
    """The same strings at every dt and rate."""
    return reading("test", rate).trials(strings, dt, Generator().manual_seed(1_000_000 + seed))


def exact_claims(fitted: Mapping[str, list[Fitted]]) -> list[Claim]:
    """The data, the loss, the decoder, the sizes and the law of time."""
    sizes = {name: nn.utils.parameters_to_vector(fits[0].model.parameters()).numel() for name, fits in fitted.items()}
    off = max(abs(size / sizes[RATE] - 1) for size in sizes.values())
    listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
    shared = "test images that are pixel for pixel among the training images"
    brute = "CTC loss of a short string beside the sum over every path that reads as it"
    law = "pages at twice the rate, read with half of every tau and half of dt: greatest change of an output"
    return [
        Claim.equal(shared, shared_images(), 0, "counted"),
        Claim.below(brute, ctc_discrepancy(), 1e-12, "Graves et al. (2006), ICML, eq. 3"),
        Claim.below(f"parameters differ by less than 5 % ({listed})", off, 0.05, "counted"),
        Claim.equal(law, rescaling_discrepancy(fitted[RATE][0].model), 0.0, "derived: no clock but tau"),
    ]


def found_claims(fitted: Mapping[str, list[Fitted]], found: Measured) -> list[Claim]:
    """Who reads better, and what the step and the column rate change."""
    n = len(fitted[RATE])
    at_least = partial(Claim.at_least, source="measured here", kind="statistical")
    below = partial(Claim.below, source="measured here", kind="statistical")
    usual = {name: errors.mean() for name, errors in found.error.items()}
    gaps = [(fit.gap.adaptive or {}).get("label_error", math.nan) for fit in fitted[RATE_DRAWN]]
    flows = (found.flow[RATE], gaps, found.flow[RATE_DRAWN])
    one, once, often = (", ".join(f"{error:.3f}" for error in errors) for errors in flows)
    good = sum(int((found.error[name] < found.chance / 10).sum()) for name in (RATE, RATE_DRAWN))
    doubled = int((found.by_dt[RATE][:, STEPS.index(DT / 2)] > 2 * found.error[RATE]).sum())
    kept = sum(e < fit.score["label_error"] + 0.02 for e, fit in zip(gaps, fitted[RATE_DRAWN], strict=True))
    kept_flow = int((found.flow[RATE_DRAWN] < found.error[RATE_DRAWN] + 0.02).sum())
    near = {name: errors[:, [RATES.index(0.7), RATES.index(1.4)]].mean() for name, errors in found.by_rate.items()}
    twice = min(errors[:, RATES.index(2.0)].mean() for errors in found.by_rate.values())
    ours, drawn = (f"mean label error of {n} rate networks trained at {which} dt" for which in ("one", "drawn"))
    longer = partial(replace, planned="the same after 800 updates: it failed", reason="the loss was still falling")
    finer = partial(replace, planned="once a column", reason="labels shorter than a column pass between readings")
    rival, mute = "beside GRUs trained at drawn dt", "after 800 updates these read nearly nothing (1.00, 0.36, 1.00)"
    there = "at 0.7 and 1.4 times the column rate, not told:"
    return [
        at_least(f"of {2 * n} rate networks, those below a tenth of chance ({found.chance:.3f})", good, 2 * n),
        below(f"{ours}, beside {n} GRUs", usual[RATE], usual[GATED]),
        below(f"{ours}, beside {n} windows of 9 columns", usual[RATE], usual[WIDE]),
        below(f"{ours}, beside {n} windows of 4 columns", usual[RATE], usual[NARROW]),
        at_least(f"of {n} trained at one dt, error more than doubled at dt/2 (flow: {one})", doubled, n),
        longer(at_least(f"of {n} trained at drawn dt, flow read once a column loses below 0.02 ({once})", kept, n)),
        finer(at_least(f"of {n} trained at drawn dt, flow read 8 times a column ({often})", kept_flow, n)),
        longer(below(f"{there} {drawn}, beside those trained at one dt", near[RATE_DRAWN], near[RATE])),
        replace(below(f"{there} {drawn}, beside GRUs", near[RATE_DRAWN], near[GATED]), planned=rival, reason=mute),
        at_least(f"at twice the column rate, not told: least mean label error of any kind of {n}", twice, 0.2),
    ]


def shared_images() -> int:
    """Images of the test split that are also in the training split."""
    train, test = (images(split)[0].flatten(1) for split in ("train", "test"))
    return int((train[:, None] == test).all(-1).any(0).sum())


def ctc_discrepancy() -> float:
    """CTC's loss of the string 1 1 2 in six samples of random scores, beside the sum over all 3^6 paths."""
    log_p = torch.randn(6, 1, 3, generator=Generator().manual_seed(0), dtype=torch.float64).log_softmax(-1)
    string = torch.tensor([[1, 1, 2]])
    paths = torch.tensor(list(itertools.product(range(3), repeat=6))).T  # (time, path)
    decoded = best_path(F.one_hot(paths, 3).double())[:, : string.shape[1] + 1]
    reads = (decoded == F.pad(string, (0, 1), value=-1)).all(1)
    every = log_p[:, 0].gather(1, paths).sum(0)[reads].logsumexp(0)
    loss = F.ctc_loss(log_p, string, torch.tensor([6]), torch.tensor([3]), reduction="sum")
    return float((loss + every).abs())


def rescaling_discrepancy(model: RateRNN) -> float:
    """A page that passes twice as fast, for a network twice as fast: greatest change of its outputs."""
    fast = copy.deepcopy(model)
    fast.tau = model.tau.detach() / 2
    slow_trials, fast_trials = held_out_strings(DT, 1.0, 16, 0), held_out_strings(DT / 2, 2.0, 16, 0)
    return float((outputs(model, slow_trials).ys - outputs(fast, fast_trials).ys).abs().max())


def figure(fitted: Mapping[str, list[Fitted]], found: Measured, strings: int, seed: int) -> Figure:
    """A page and how it is read; then label errors by network, by column rate and by step."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 5.6))
        above, below = fig.subfigures(2, 1, height_ratios=(1, 1.15))
        page, said = above.subplots(2, 1, height_ratios=(1, 1.7), sharex=True)
        _example(page, said, fitted[RATE_DRAWN][0].model, held_out_strings(FINE, 1.0, strings, seed))
        networks, rates, steps = below.subplots(1, 3, width_ratios=(0.8, 1, 1))
        _networks(networks, found)
        for name, (color, marker, line) in LOOKS.items():
            look = partial(plots.sweep, label=name, color=color, marker=marker, ls=line)
            look(rates, RATES, 100 * found.by_rate[name])
            if name in found.by_dt:
                look(steps, (STEPS[0] / 2, *STEPS), 100 * np.column_stack([found.flow[name], found.by_dt[name]]))
        plots.sweep(rates, RATES, 100 * found.told, label="GRU, told the rate", color=QUIET, marker="", ls="--")
        _decorate(rates, "column rate, relative to training", RATES[::3], "not told the rate (drawn dt: dt = 1/4)")
        steps.axvspan(FINE, DT, color=QUIET, alpha=0.12, lw=0)
        steps.text(math.sqrt(FINE * DT), 97, "drawn in training", ha="center", va="top", color="0.35", fontsize=7)
        _decorate(steps, "step dt / columns", (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1), "at other steps")
        steps.set_xticklabels(["flow", "1/8", "1/4", "1/2", "1"])
        below.legend(*rates.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def _example(page: Axes, said: Axes, model: nn.Module, trials: Trials) -> None:
    row = int(trials.condition["n_digits"].argmax())
    length = int(trials.lengths[row])
    unread = reading("test").unread(trials.dt)
    p = outputs(model, trials).ys[:length, row].softmax(-1)
    strings = trials.targets[row], best_path(p[unread:, None])[0]
    true, read = (" ".join(str(int(label) - 1) for label in string if label > 0) for string in strings)
    plots.heat(page, trials.us[:length, row], trials.dt)
    plots.heat(said, p, trials.dt, cmap="Blues", names=["blank", *map(str, range(10))])
    page.set(title=f"a test string, {true}, which the rate network trained at drawn dt reads as: {read or 'nothing'}")
    said.axvspan(0, unread * trials.dt, color=QUIET, alpha=0.25, lw=0)
    said.text(unread * trials.dt / 2, 5, "not read", ha="center", va="center", color="0.35")
    said.set(xlabel="time / columns", ylabel="label")
    said.figure.colorbar(said.images[0], ax=said, label="probability", pad=0.01, aspect=12)


def _networks(ax: Axes, found: Measured) -> None:
    plots.by_seed(ax, {name: 100 * e for name, e in found.error.items()}, [look[0] for look in LOOKS.values()])
    ax.axvline(100 * found.chance, color=QUIET, ls="--", lw=0.8)
    ax.text(80 * found.chance, 4.4, "chance", color="0.35", ha="right", va="bottom", rotation=90, fontsize=7)
    ax.set(xlabel="label error / %", xscale="log", xlim=(1, 130), title="dt = 1 column")
    ax.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    ax.minorticks_off()


def _decorate(ax: Axes, xlabel: str, ticks: Sequence[float], title: str) -> None:
    ax.set(xlabel=xlabel, ylabel="label error / %", title=title, xscale="log", ylim=(0, 105))
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()


if __name__ == "__main__":
    main(run)
