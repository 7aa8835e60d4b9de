"""Five networks on three rungs of the Chomsky hierarchy, on the strings they were trained on and on longer ones.

Claim: what a network can say of strings longer than those it learned from depends on its memory: networks of all kinds
learn the parity of bits, which a finite automaton can say; those with a stack, a tape or a memory of slots learn to say
a string backwards, which takes a stack; those with a tape or with slots, to say it twice. Without a memory a network
learns, at best, the lengths that it has seen.

Found, best of three seeds at 30 to 100, published numbers in brackets: all five say parity. The StackRNN says
96 % backwards [100], fewer the longer the string, the NTM 80, the TapeRNN 62 [100], the LSTM 60 [61] and the RNN 59
[62]. Nobody learns to say a string twice, even of the lengths seen: the TapeRNN comes to 64 [100], all others to 54 or
55. What tapes and slots can do that a stack cannot does not show in this budget.

Source: Deletang et al. (2023), ICLR, arXiv:2207.02098: 256 units, a million updates of 128 strings of 1 to 40 symbols,
tests on 41 to 500, the best of ten seeds and three learning rates; 90 % of symbols right is a pass. They have no neural
Turing machine (Graves, Wayne & Danihelka 2014, arXiv:1410.5401). Here a budget that a laptop can pay, a quarter of an
hour of one core for all: 32 units, 1,050 updates of 32 strings, first of 1 to 4 symbols, then of 1 to 8, then of 1 to
20, tests on 30 to 100, three seeds: a thousandth of their updates, and a four-thousandth of their strings. The lessons,
which they do without, are what the budget asks for: the RNN does not find parity in so few updates from strings of 1 to
20 at once. A network that passes with them and fails here shows what the budget was too small for, not what it cannot
do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor

import ctrnn
from ctrnn import learning, plots
from ctrnn.dynamics import Model
from ctrnn.models import LSTM, NTM, Elman, StackRNN, TapeRNN
from ctrnn.models.activations import identity
from ctrnn.plots.style import CYCLE, QUIET, STABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import DuplicateString, ParityCheck, ReverseString, Task, Trials
from ctrnn.tasks.transduction import Transduction
from ctrnn.tasks.trials import HasOutputs

DELETANG = "Deletang et al. (2023), arXiv:2207.02098"
LESSONS = (4, 8, 20)  # symbols at most, in as many updates each
TRAINED = LESSONS[-1]
PASS = 90.0  # % of symbols right, as in the paper
SHORT, LONG = (5, 10, 15, 20), (30, 40, 60, 80, 100)
SLOTS, MORE_SLOTS = 32, 128  # of a memory in training and in tests
WIDTH = 8  # numbers in a cell, as in the paper
RUNGS = (ParityCheck, ReverseString, DuplicateString)
PUBLISHED = {  # % of symbols right at 41 to 500
    "ParityCheck": {"RNN": 100.0, "LSTM": 100.0, "StackRNN": 100.0, "TapeRNN": 100.0},
    "ReverseString": {"RNN": 62.0, "LSTM": 60.9, "StackRNN": 100.0, "TapeRNN": 100.0},
    "DuplicateString": {"RNN": 50.3, "LSTM": 57.6, "StackRNN": 52.8, "TapeRNN": 100.0},
}
PLAIN: dict[str, Callable[[list[int]], list[int]]] = {
    "ParityCheck": lambda bits: [sum(bits) % 2],
    "ReverseString": lambda bits: bits[::-1],
    "DuplicateString": lambda bits: bits + bits,
}


@dataclass(frozen=True)
class Measured:
    """A task whose last input is the length of the string: how far the jumps of a tape go, as in the paper."""

    task: Transduction

    @property
    def n_in(self) -> int:
        return self.task.n_in + 1

    @property
    def n_out(self) -> int:
        return self.task.n_out

    def trials(
        self,
        batch: int,
        dt: float,
        generator: Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Trials:
        """Those of the task, with an input more."""
        trials = self.task.trials(batch, dt, generator, dtype=dtype, device=device)
        length = (trials.condition["symbols"] >= 0).sum(1).to(trials.us.dtype)
        return trials._replace(us=torch.cat([trials.us, length.expand(trials.us.shape[:-1])[..., None]], -1))

    def loss(self, ys: Float[Tensor, "time batch symbol"], trials: Trials) -> Float[Tensor, ""]:
        return self.task.loss(ys, trials)

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        return self.task.evaluate(traj, trials)

    def chance(self, trials: Trials) -> dict[str, float]:
        return self.task.chance(trials)


class Scores(NamedTuple):
    """What was found in the networks of one kind on one task."""

    models: list[Model]
    accuracy: Float[Tensor, "seed length"]  # % of symbols right

    def best(self, lengths: Sequence[int], within: Sequence[int]) -> float:
        """The best seed's mean over some of the lengths."""
        return float(self.mean(lengths, within).max())

    def mean(self, lengths: Sequence[int], within: Sequence[int]) -> Float[Tensor, " seed"]:
        """Every seed's mean over some of the lengths."""
        return self.accuracy[:, [k for k, length in enumerate(lengths) if length in within]].mean(1)


Ladder = dict[str, dict[str, Scores]]  # by task, by network


def run(
    *,
    quick: bool = False,
    seed: int = 0,
    seeds: int = 3,
    units: int = 32,
    updates: int = 350,
    batch: int = 32,
    lr: float = 5e-3,
    trials: int = 64,
) -> Result:
    """Train every network on every task with short strings, and test it with long ones.

    Args:
        quick: one network of each kind, too few updates to learn anything, and strings of 30 at most.
        seed: of weights and trials; the networks take seed, seed + 1, ...
        seeds: networks of each kind.
        units: of the LSTM and the RNN, and of the RNN that controls a stack, a tape or heads.
        updates: updates of Adam in a lesson.
        batch: strings in an update, all of one length.
        lr: learning rate at first; it falls to 0 in each lesson.
        trials: strings of each length that are tested.
    """
    lengths: tuple[int, ...] = SHORT + LONG
    lessons: tuple[int, ...] = LESSONS
    if quick:
        seeds, updates, batch, trials, lengths, lessons = 1, 1, 2, 4, (5, 30), (4,)
    numbers = [seed + k for k in range(seeds)]
    ladder: Ladder = {}
    for rung in RUNGS:
        ladder[rung.__name__] = {}
        for name, build in NETWORKS.items():
            start = posed(rung, name, (1, 1))
            models = [build(start, units, Generator().manual_seed(number)) for number in numbers]
            for longest in lessons:
                models = lesson(models, partial(posed, rung, name), longest, numbers, updates, batch, lr)
            models = [larger(model) for model in models]
            accuracy = torch.stack([tested(model, rung, name, lengths, trials) for model in models])
            ladder[rung.__name__][name] = Scores(models, accuracy)
    spans = ", ".join(f"1 to {longest}" for longest in lessons)
    budget = f"{seeds} seeds, {units} units, {updates} updates of {batch} strings each of {spans} symbols"
    return Result(figure(ladder, lengths, budget), claims(ladder, lengths, trials))


def lesson(
    models: Sequence[Model],
    pose: Callable[[tuple[int, int]], Task],
    longest: int,
    numbers: Sequence[int],
    updates: int,
    batch: int,
    lr: float,
) -> list[Model]:
    """The networks after a lesson on strings of up to so many symbols."""
    fits = learning.fit_ensemble(
        models,
        pose((1, longest)),
        held_out=pose((1, 1)),  # the tests are made below, on long strings
        evaluation_batch=2,
        seeds=numbers,
        updates=updates,
        batch=batch,
        dt=1.0,
        clip=1.0,
        optimizer=partial(torch.optim.Adam, lr=lr),
        schedule=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=updates),
        progress=progress(1, f"strings to {longest}"),
    )
    return [fit.model for fit in fits]


def posed(rung: type[Transduction], name: str, lengths: tuple[int, int]) -> Task:
    """The task as this network gets it: a tape is told how long the string is."""
    task = rung(lengths=lengths, same_length=True)
    return Measured(task) if name == "TapeRNN" else task


def rnn(task: Task, units: int, draw: Generator) -> Elman:
    return Elman(units, task.n_in, task.n_out, generator=draw)


def lstm(task: Task, units: int, draw: Generator) -> LSTM:
    return LSTM(units, task.n_in, task.n_out, generator=draw)


def stack(task: Task, units: int, draw: Generator) -> StackRNN:
    """As in the paper: a stack of words that is left as it is, pushed to or popped, and read at the top."""
    controller = Elman(units, task.n_in + WIDTH, generator=draw)
    options: dict[str, Any] = {"top": 1, "stay": True, "squash": identity, "empty": 0.0}
    return StackRNN(controller, task.n_out, depth=SLOTS, width=WIDTH, generator=draw, **options)


def tape(task: Task, units: int, draw: Generator) -> TapeRNN:
    """As in the paper, with one hidden layer of the network that writes in place of two."""
    controller = Elman(units, task.n_in - 1 + WIDTH, generator=draw)
    return TapeRNN(controller, task.n_out, slots=SLOTS, width=WIDTH, hidden=(units,), generator=draw)


def machine(task: Task, units: int, draw: Generator) -> NTM:
    """One head that writes and one that reads; both begin at slot 0."""
    controller = Elman(units, task.n_in + WIDTH, generator=draw)
    return NTM(controller, task.n_out, slots=SLOTS, width=WIDTH, start_slot=0, learn_weights=False, generator=draw)


NETWORKS: dict[str, Callable[[Task, int, Generator], Model]] = {
    "RNN": rnn,
    "LSTM": lstm,
    "StackRNN": stack,
    "TapeRNN": tape,
    "NTM": machine,
}


def larger(model: Model) -> Model:
    """The same network with room for long strings; one without a memory as it is."""
    if isinstance(model, StackRNN):
        return grown(model, depth=3 * LONG[-1] // 2)
    if isinstance(model, (TapeRNN, NTM)):
        return grown(model, slots=MORE_SLOTS)
    return model


def grown(model: StackRNN | TapeRNN | NTM, **size: int) -> Model:
    """The same network with a memory of other size: new cells are as those it had were at first."""
    other = type(model).from_config(model.config | size)
    kept = {name: value for name, value in model.state_dict().items() if name not in ("w_0", "memory_0")}
    other.load_state_dict(kept, strict=False)
    return other.to(model.W_heads.dtype)


def drawn(rung: type[Transduction], name: str, length: int, count: int) -> Trials:
    """Strings of one length, the same for all networks, that nobody has seen in training if they are long."""
    return posed(rung, name, (length, length)).trials(count, 1.0, Generator().manual_seed(10_000 + length))


@torch.no_grad()
def tested(
    model: Model, rung: type[Transduction], name: str, lengths: Sequence[int], count: int
) -> Float[Tensor, " length"]:
    """The share of symbols that are right at each length, in %."""
    right = []
    for length in lengths:
        trials = drawn(rung, name, length, count)
        right.append(rung().evaluate(ctrnn.integrate(model, trials.us, dt=1.0), trials)["accuracy"])
    return 100 * torch.tensor(right, dtype=torch.float64)


def claims(ladder: Ladder, lengths: Sequence[int], count: int) -> list[Claim]:
    """What is exact, and what was found beside what was published."""
    everything = [
        Claim.equal(
            "strings of the tests of which a plain program says something else than the task",
            sum(otherwise(rung, length, count) for rung in RUNGS for length in lengths),
            0,
            "what parity, reversal and repetition are",
        ),
        Claim.equal(
            "all networks: greatest difference between the outputs of Euler's steps of tau and of the discrete network",
            max(between_solvers(model, rung, name) for rung, name, scores in every(ladder) for model in scores.models),
            0.0,
            "a step of tau is the discrete network, bit for bit",
        ),
        Claim.below(
            f"StackRNN: greatest difference of outputs, in strings of {TRAINED}, between the stack of the training and "
            "that of the tests",
            max(
                between_sizes(model, rung)
                for rung in RUNGS
                for model in ladder[rung.__name__]["StackRNN"].models
                if isinstance(model, StackRNN)
            ),
            1e-12,
            "what leaves a stack of d cells needs d steps more to come back, and d is half of the steps; in float64",
        ),
    ]
    for rung, name, scores in every(ladder):
        everything += found(rung, name, scores, lengths)
    return everything


def every(ladder: Ladder) -> list[tuple[type[Transduction], str, Scores]]:
    """All pairs of a task and a network."""
    return [(rung, name, ladder[rung.__name__][name]) for rung in RUNGS for name in NETWORKS]


def found(rung: type[Transduction], name: str, scores: Scores, lengths: Sequence[int]) -> list[Claim]:
    """Whether the best seed passes where the published network does, and what it makes of the lengths it has seen."""
    n, task = len(scores.models), rung.__name__
    short, long = ([length for length in lengths if length in span] for span in (SHORT, LONG))
    inside, outside = scores.best(lengths, SHORT), scores.best(lengths, LONG)
    published = PUBLISHED[task].get(name)
    source = (
        "Graves et al. (2014): a machine copies what is longer than it has seen; not in the table of Deletang et al."
        if published is None
        else f"{DELETANG}: {published} % at 41 to 500, trained to 40, best of ten seeds"
    )
    passes = published is None or published >= PASS
    text = f"{task}, {name}: % of symbols right, best of {n} seeds, at "
    beyond = f"{text}{long[0]} to {long[-1]}"
    if passes:
        return [
            Claim.at_least(f"{text}{short[0]} to {short[-1]}", inside, PASS, source, "statistical"),
            Claim.at_least(beyond, outside, PASS, source, "statistical"),
        ]
    return [
        Claim.at_least(
            f"{text}{short[0]} to {short[-1]}, less what it is at {long[0]} to {long[-1]}",
            inside - outside,
            10.0,
            f"{DELETANG}: networks below the task's level learn the lengths they see at best",
            "statistical",
        ),
        Claim.below(beyond, outside, PASS, source, "statistical"),
    ]


def otherwise(rung: type[Transduction], length: int, count: int) -> int:
    """On how many strings of the test a plain program disagrees with the task."""
    condition = drawn(rung, "RNN", length, count).condition
    pairs = zip(condition["symbols"].tolist(), condition["answers"].tolist(), strict=True)
    return sum(
        PLAIN[rung.__name__]([s for s in symbols if s >= 0]) != [s for s in answer if s >= 0]
        for symbols, answer in pairs
    )


@torch.no_grad()
def between_solvers(model: Model, rung: type[Transduction], name: str) -> float:
    """The greatest difference between outputs of Euler's steps of tau and of the discrete network."""
    us = drawn(rung, name, TRAINED, 4).us
    flow, discrete = (ctrnn.integrate(model, us, dt=1.0, solver=s).ys for s in (ctrnn.Euler(), ctrnn.Iterate()))
    return float((flow - discrete).abs().max())


@torch.no_grad()
def between_sizes(model: StackRNN, rung: type[Transduction]) -> float:
    """The greatest difference between outputs with the stack of the training and with that of the tests."""
    us = drawn(rung, "StackRNN", TRAINED, 16).us.double()
    pair = [grown(model, depth=depth).double() for depth in (SLOTS, model.depth)]
    small, large = (ctrnn.integrate(one, us, dt=1.0).ys for one in pair)
    return float((small - large).abs().max())


def figure(ladder: Ladder, lengths: Sequence[int], budget: str) -> Figure:
    """Scores within and beyond the lengths of the training beside the published ones; below, scores by length."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 5.4))
        axes = fig.subplots(2, 3, sharey=True)
        for above, below, rung in zip(*axes, RUNGS, strict=True):
            _scores(above, ladder[rung.__name__], PUBLISHED[rung.__name__], lengths)
            above.set_title(f"{rung.__name__}\n{rung.level}")
            _by_length(below, ladder[rung.__name__], lengths)
        for ax in axes[:, 0]:
            ax.set(ylabel="symbols right / %", ylim=(36, 103))
        handles, names = axes[0, 0].get_legend_handles_labels()
        networks, kinds = axes[1, 0].get_legend_handles_labels()
        fig.legend(handles + networks, names + kinds, loc="outside upper center", ncols=4)
        fig.supxlabel(
            f"A laptop's budget: {budget}.\n"
            "Published: ten seeds, 256 units, 1,000,000 updates of 128 strings of 1 to 40 symbols, tests on 41 to 500.",
            fontsize=7,
        )
    return fig


def _scores(ax: Axes, scores: dict[str, Scores], published: dict[str, float], lengths: Sequence[int]) -> None:
    _lines(ax)
    ax.plot([], [], "o", ms=4, mfc="none", mec=STABLE, label="within the lengths of training")
    ax.plot([], [], "o", ms=4, color=STABLE, label=f"beyond, {LONG[0]} to {LONG[-1]}, a point a seed")
    ax.plot([], [], color=STABLE, lw=1.5, label="published, beyond, the best seed")
    for k, (name, part) in enumerate(scores.items()):
        inside, outside = part.mean(lengths, SHORT), part.mean(lengths, LONG)
        spread = np.linspace(-0.09, 0.09, len(inside)) if len(inside) > 1 else np.zeros(1)
        ax.plot(k - 0.2 + spread, inside, "o", ms=4, mfc="none", mec=CYCLE[k])
        ax.plot(k + 0.2 + spread, outside, "o", ms=4, color=CYCLE[k])
        if name in published:
            ax.plot([k + 0.02, k + 0.38], [published[name]] * 2, color=STABLE, lw=1.5, zorder=0)
    ax.set_xticks(range(len(scores)), scores, rotation=25)
    ax.set_xlim(-0.6, len(scores) - 0.4)


def _by_length(ax: Axes, scores: dict[str, Scores], lengths: Sequence[int]) -> None:
    _lines(ax)
    ax.axvspan(0, TRAINED, color=QUIET, alpha=0.2, lw=0)
    for k, (name, part) in enumerate(scores.items()):
        plots.sweep(ax, lengths, part.accuracy, label=name, color=CYCLE[k])
    ax.set(xlabel="symbols of the string (grey: training)", xlim=(0, max(lengths) + 3))


def _lines(ax: Axes) -> None:
    """What always saying the same symbol comes to, and the mark to pass."""
    for level, name in ((50.0, "chance"), (PASS, "pass")):
        ax.axhline(level, color=STABLE, lw=0.6, ls=":", zorder=0)
        ax.annotate(name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=6)


if __name__ == "__main__":
    main(run)
