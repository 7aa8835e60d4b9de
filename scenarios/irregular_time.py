"""Frames at irregular times: networks that know time, and one that counts frames.

Claim: between two frames of a signal a network can let time pass (LTC and CTRNN, integrated from frame to frame), be
told how long that was (CfC; a GRU with the time as one more input) or not know (a GRU that takes a step for each
frame). Where a duration is asked, the one that does not know says the same to short and long; and only those that let
time pass say the same whatever frames show the same signal.

Two parts. In Japanese vowels, of which frames are dropped, nine speakers are told apart. A frame that was not dropped
is held until the next one. Means over three thirds of an utterance and a logistic regression, without any cycle, tell
them apart better than any network: these data cannot show that recurrence is needed, nor that time is, only how much
each network loses with the frames; LTC, which learns slowest, is not trained to its end there. In the other part a
signal has pulses and gaps, seen in few frames, and the question is whether the last pulse was a long one: how many
frames there are says nothing about it, when they come says everything. The same means do not suffice here, though a
static network that was shown all frames with their times at once could do it.

All are trained alike, with as many weights (but for a few per cent); the flows by an adaptive solver of loose
tolerance, and tested with a finer one.

Source: Hasani, Lechner, Amini, Rus & Grosu (2021), AAAI (LTC); Hasani et al. (2022), Nature Machine Intelligence
4:992-1003 (CfC); Kudo, Toyama & Shimbo (1999), Pattern Recognition Letters 20:1103-1111 (the vowels).
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from torch import Generator, Tensor
from torch.optim.lr_scheduler import OneCycleLR

from ctrnn import Adaptive, Bosh3, Held, Iterate, Last, Model, Solver, Tsit5, integrate, plots
from ctrnn.models import CTRNN, GRU, LTC, CfC
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import JapaneseVowels, PulseDuration, Trials, frames
from ctrnn.tasks.frames import Framed
from ctrnn.tasks.vowels import utterances

LIQUID, RATE, CLOSED, TOLD, COUNTS = "LTC", "CTRNN", "CfC", "GRU, told the time", "GRU, a step a frame"
STATIC = "three means (static)"
FLOWS = (LIQUID, RATE)
NAMES = (LIQUID, RATE, CLOSED, TOLD, COUNTS)
COLORS = dict(zip(NAMES, (UNSTABLE, TRAJECTORY, OUTPUT, INPUT, QUIET), strict=True))
SPEED = 2e-2  # of Adam; from seeds that are not reported
RATES, TOLD_AT = (0.0, 0.2, 0.4, 0.6, 0.8), 3  # frames dropped, and which of these rates the claims are about
WHOLE, DROPPED = JapaneseVowels(), JapaneseVowels(drop=(0.0, RATES[-1]))
PULSES = PulseDuration()
OTHER = dataclasses.replace(PULSES, frames=(8, 12))  # four times as many frames of the same signals
BUDGET = {JapaneseVowels: 1600, PulseDuration: 1000}  # weights of a network
BATCH = {JapaneseVowels: 54, PulseDuration: 64}
SOLVED = 0.9
FREQUENT = 88 / 370  # the most frequent speaker's share of the test set
LASTED = np.linspace(1.0, 4.0, 13)  # edges of the bins of a pulse's duration
UCI = "Kudo, Toyama & Shimbo (1999)"
OWN = "this task is ours: no published number"


class Flowing(NamedTuple):
    """How time passes in a flow."""

    steps: Adaptive
    solver: Solver


LEARNING = Flowing(Adaptive(3e-2, 3e-2), Bosh3())
TESTING = Flowing(Adaptive(1e-3, 1e-4), Bosh3())
EXACT = Flowing(Adaptive(1e-9, 1e-11), Tsit5())


class Score(NamedTuple):
    """One network of one seed."""

    whole: list[float]  # vowels, taught with all frames: fraction right at each rate of dropping
    dropped: list[float]  # the same, taught with frames dropped
    pulses: list[float]  # pulses, in the frames they were taught in and in other frames
    long: np.ndarray  # how often it calls a pulse long, by its duration


class Identities(NamedTuple):
    """What must hold whatever was learned."""

    cut: dict[str, float]  # change of the state when every held interval is cut in two
    alone: dict[str, float]  # outputs of a batch less those of its rows alone
    unaware: float  # outputs of the GRU for short pulses less those for long ones in the same frames


def run(*, quick: bool = False, seed: int = 0, seeds: int = 3, vowels: int = 120, pulses: int = 300) -> Result:
    """Train every network on vowels, with and without dropped frames, and on pulses.

    Args:
        quick: one seed and few updates.
        seed: of weights and trials; seed, seed + 1, ...
        seeds: networks of each kind.
        vowels: updates of Adam with 54 utterances each, a fifth of the training set.
        pulses: updates of Adam with 64 signals each.
    """
    asked = 1000
    if quick:
        seeds, vowels, pulses, asked = 1, 3, 3, 60
    said = min(370, asked)
    speakers = [JapaneseVowels("test", (rate, rate)).trials(said, 1.0, draw(900)) for rate in RATES]
    signals = [task.trials(asked, 0.25, draw(900)) for task in (PULSES, OTHER)]
    report, found, checked = progress(seeds * len(NAMES), "training"), {name: [] for name in NAMES}, {}
    for k in range(seeds):
        for j, name in enumerate(NAMES):
            by_whole, by_dropped = (train(name, task, vowels, seed + k) for task in (WHOLE, DROPPED))
            timer = train(name, PULSES, pulses, seed + k)
            found[name].append(
                Score(
                    [right(name, by_whole, trials) for trials in speakers],
                    [right(name, by_dropped, trials) for trials in speakers],
                    [right(name, timer, trials) for trials in signals],
                    called_long(name, timer, signals[0]),
                )
            )
            if k == 0:
                checked[name] = by_dropped, timer
            report(len(NAMES) * k + j + 1)
    static = baseline(speakers, signals)
    return Result(figure(found, static), claims(found, static, identities(checked)))


def draw(seed: int) -> Generator:
    """A source of random numbers."""
    return Generator().manual_seed(seed)


def network(name: str, n: int, n_in: int, n_out: int, seed: int) -> Model:
    """The untrained network of this name with n units; the flows' time constants begin between 1 and 10 and learn."""
    generator = draw(seed)
    if name in FLOWS:
        kind = LTC if name == LIQUID else CTRNN
        return kind(n, n_in, n_out, tau=torch.logspace(0, 1, n), learn_tau=True, generator=generator)
    if name == CLOSED:
        return CfC(n, n_in, n_out, backbone=n, generator=generator)
    return GRU(n, n_in + (name == TOLD), n_out, generator=generator)


def sized(name: str, task: Framed, seed: int) -> Model:
    """The network of this name whose number of weights is closest to the task's budget."""
    every = [network(name, n, task.n_in, task.n_out, seed) for n in range(6, 41)]
    return min(every, key=lambda model: abs(weights(model) - BUDGET[type(task)]))


def weights(model: Model) -> int:
    """How many numbers are learned."""
    return sum(parameter.numel() for parameter in model.parameters())


def states(name: str, model: Model, held: Held, how: Flowing) -> tuple[Tensor, Tensor]:
    """State and output at the end of each signal, (batch, ...): the flows let time pass, the others take steps."""
    if name in FLOWS:
        end = integrate(model, held, steps=how.steps, solver=how.solver, save=Last())
    else:
        us = held.us if name == COUNTS else torch.cat([held.us, held.edges.diff(dim=0)[..., None].to(held.us)], -1)
        end = integrate(model, Held(us, 1.0, lengths=held.lengths), solver=Iterate(), save=Last())
    return end.xs[-1], end.ys[-1]


def train(name: str, task: Framed, updates: int, seed: int) -> Model:
    """Adam with one cycle of the rate on the cross-entropy at the end of each signal."""
    model, source = sized(name, task, seed), draw(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=SPEED)
    schedule = OneCycleLR(optimizer, SPEED, total_steps=updates, cycle_momentum=False)
    for _ in range(updates):
        trials = task.trials(BATCH[type(task)], 1.0, source)
        _, said = states(name, model, frames(trials), LEARNING)
        loss = F.cross_entropy(said, trials.targets[:, 0])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


@torch.no_grad()
def answers(name: str, model: Model, trials: Trials) -> Tensor:
    """The class that the network names at the end of each signal."""
    return states(name, model, frames(trials), TESTING)[1].argmax(-1)


def right(name: str, model: Model, trials: Trials) -> float:
    """Fraction of signals named right."""
    return float((answers(name, model, trials) == trials.targets[:, 0]).double().mean())


def called_long(name: str, model: Model, trials: Trials) -> np.ndarray:
    """Fraction of pulses called long, by their duration."""
    place = np.digitize(trials.condition["lasted"].numpy(), LASTED[1:-1])
    said = answers(name, model, trials).numpy()
    return np.array([said[place == k].mean() if (place == k).any() else np.nan for k in range(len(LASTED) - 1)])


def thirds(trials: Trials) -> np.ndarray:
    """Means of the signal over the first, second and last third of its duration, (batch, 3 n_in)."""
    ends = torch.arange(len(trials.us) + 1)[:, None] / trials.lengths.double()
    parts = [ends.clamp(j / 3, (j + 1) / 3).diff(dim=0)[..., None] * trials.us for j in range(3)]
    return 3 * torch.cat([part.sum(0) for part in parts], -1).numpy()


def baseline(speakers: list[Trials], signals: list[Trials]) -> Score:
    """The same question put to a logistic regression on the means of three thirds."""

    def taught(*sets: Trials) -> LogisticRegression:
        return LogisticRegression(max_iter=2000).fit(
            np.concatenate([thirds(trials) for trials in sets]), torch.cat([t.targets[:, 0] for t in sets]).numpy()
        )

    def right(model: LogisticRegression, trials: Trials) -> float:
        return float(model.score(thirds(trials), trials.targets[:, 0].numpy()))

    whole = taught(WHOLE.trials(270, 1.0, draw(0)))
    dropped = taught(*[DROPPED.trials(270, 1.0, draw(k)) for k in range(5)])
    pulses = taught(PULSES.trials(4000, 0.25, draw(0)))
    return Score(
        [right(whole, trials) for trials in speakers],
        [right(dropped, trials) for trials in speakers],
        [right(pulses, trials) for trials in signals],
        np.empty(0),
    )


@torch.no_grad()
def identities(networks: dict[str, tuple[Model, Model]]) -> Identities:
    """In double precision, on 6 utterances with frames dropped and on pairs of short and long pulses."""
    held = frames(DROPPED.trials(6, 1.0, draw(7), dtype=torch.float64))
    cut, alone = {}, {}
    for name, (model, _) in networks.items():
        state, said = states(name, model.double(), held, EXACT)
        cut[name] = largest(state - states(name, model, halved(held), EXACT)[0])
        rows = [
            Held(held.us[:, k : k + 1], edges=held.edges[:, k : k + 1], lengths=held.lengths[k : k + 1])
            for k in range(len(held.lengths))
        ]
        alone[name] = largest(said - torch.cat([states(name, model, row, EXACT)[1] for row in rows]))
    low, middle, high = PULSES.duration[0], PULSES.threshold, PULSES.duration[1]
    short, long = (
        frames(dataclasses.replace(PULSES, duration=span).trials(200, 1.0, draw(8), dtype=torch.float64))
        for span in ((low, middle), (middle, high))
    )
    timer = networks[COUNTS][1].double()
    unaware = largest(states(COUNTS, timer, short, EXACT)[1] - states(COUNTS, timer, long, EXACT)[1])
    return Identities(cut, alone, unaware)


def largest(difference: Tensor) -> float:
    """The largest of the absolute values."""
    return float(difference.abs().max())


def halved(held: Held) -> Held:
    """The same signal with every held interval cut in two."""
    assert held.edges is not None
    assert held.lengths is not None
    middle = (held.edges[:-1] + held.edges[1:]) / 2
    edges = torch.cat([torch.stack([held.edges[:-1], middle], 1).flatten(0, 1), held.edges[-1:]])
    return Held(held.us.repeat_interleave(2, 0), edges=edges, lengths=2 * held.lengths)


def claims(found: dict[str, list[Score]], static: Score, identical: Identities) -> list[Claim]:
    """Counts and identities, then who is right how often."""
    n, sizes = len(found[LIQUID]), [len(f) for split in ("train", "test") for f in utterances(split)[0]]
    speakers = [utterances(split)[1] for split in ("train", "test")]
    return [
        Claim.equal(
            "Japanese vowels: utterances to learn from and others, speakers, channels, frames of the shortest and the "
            "longest",
            [*map(len, speakers), len(torch.cat(speakers).unique()), WHOLE.n_in, min(sizes), max(sizes)],
            [270, 370, 9, 12, 7, 29],
            f"{UCI}, as described in the file that aeon ships",
        ),
        Claim.below(
            "numbers of weights: largest distance from 1600 (vowels) and 1000 (pulses), relative",
            max(abs(weights(sized(k, t, 0)) / BUDGET[type(t)] - 1) for k in NAMES for t in (WHOLE, PULSES)),
            0.06,
            "networks are compared at equal size",
        ),
        *exact_claims(identical),
        *vowel_claims(found, static, n),
        *pulse_claims(found, static, n),
    ]


def exact_claims(identical: Identities) -> list[Claim]:
    """What must hold whatever was learned."""
    text = "every held interval cut in two: largest change of the last state"
    return [
        *[Claim.below(f"{text}, {name} (a flow)", identical.cut[name], 1e-6, "time is additive") for name in FLOWS],
        *[
            Claim.at_least(f"{text}, {name}", identical.cut[name], 1e-2, reason)
            for name, reason in (
                (CLOSED, "its solution is no flow: two spans after each other are not their sum"),
                (TOLD, "one step more is one update more, whatever time it is told"),
                (COUNTS, "one step more is one update more"),
            )
        ],
        *[
            Claim.below(
                f"{name}: outputs of a batch of 6 less those of each signal alone",
                value,
                1e-8,
                "the signals are independent",
            )
            for name, value in identical.alone.items()
        ],
        Claim.below(
            f"{COUNTS}: outputs for 200 short pulses less those for 200 long ones in the same frames",
            identical.unaware,
            1e-12,
            "it is not told when frames come: it is right about one of each pair",
        ),
    ]


def vowel_claims(found: dict[str, list[Score]], static: Score, n: int) -> list[Claim]:
    """What three means do with the vowels, and whether knowing time helps where frames are dropped."""
    rate, counts = RATES[TOLD_AT], found[COUNTS]
    mean = {name: float(np.mean([one.whole[0] for one in scores])) for name, scores in found.items()}
    at = {
        name: ", ".join(f"{np.mean([one[k][TOLD_AT] for one in scores]):.3f}" for k in (0, 1))
        for name, scores in found.items()
    }
    return [
        Claim.near(
            f"{STATIC}: vowels named right, no frame dropped",
            static.whole[0],
            0.99,
            0.01,
            "the baseline: where it stands, these data cannot show that recurrence is needed",
            "statistical",
        ),
        Claim.equal(
            f"networks that name more right than it, no frame dropped, means of {n} seeds "
            f"({', '.join(f'{name} {value:.3f}' for name, value in mean.items())})",
            sum(value > static.whole[0] for value in mean.values()),
            0,
            "nothing is left to gain",
            "statistical",
        ),
        *[
            Claim.equal(
                f"{name}: more right than the {COUNTS} where {rate:.0%} of the frames are dropped, k of {n} seeds, "
                f"taught with all frames and with frames dropped (means {at[name]} against {at[COUNTS]})",
                [sum(a[k][TOLD_AT] > b[k][TOLD_AT] for a, b in zip(found[name], counts, strict=True)) for k in (0, 1)],
                [n, n],
                f"the question of this scenario; {STATIC}: {static.whole[TOLD_AT]:.3f}, {static.dropped[TOLD_AT]:.3f}",
                "statistical",
            )
            for name in NAMES[:-1]
        ],
    ]


def pulse_claims(found: dict[str, list[Score]], static: Score, n: int) -> list[Claim]:
    """Who tells long pulses from short ones, and who still does in other frames."""
    expected = {LIQUID: [n, n], RATE: [n, n], CLOSED: [n, 0], TOLD: [n, 0], COUNTS: [0, 0]}
    per_part = "{0[0]} to {0[1]} frames".format
    kinds = f"with {per_part(PULSES.frames)} in a pulse or gap, as taught, and with {per_part(OTHER.frames)}"
    solved = lambda scores: [sum(one.pulses[k] >= SOLVED for one in scores) for k in (0, 1)]
    means = lambda scores: ", ".join(f"{np.mean([one.pulses[k] for one in scores]):.3f}" for k in (0, 1))
    return [
        *[
            Claim.equal(
                f"{name}: at least {SOLVED:.0%} of the pulses right, k of {n} seeds, {kinds} (means {means(scores)}, "
                "chance 0.5)",
                solved(scores),
                expected[name],
                OWN,
                "statistical",
            )
            for name, scores in found.items()
        ],
        Claim.below(
            f"{STATIC}: pulses right (chance 0.5; a long last pulse leaves more in the last third)",
            static.pulses[0],
            0.8,
            OWN,
            "statistical",
        ),
    ]


def figure(found: dict[str, list[Score]], static: Score) -> Figure:
    """Vowels against the rate of dropping; pulses against their duration and in other frames."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 5.0), layout="constrained")
        (first, second), (third, fourth) = fig.subplots(2, 2)
        _dropping(first, found, static, "whole", "taught with all frames")
        _dropping(second, found, static, "dropped", "taught with frames dropped")
        _durations(third, found)
        _other_frames(fourth, found, static)
        fig.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return fig


def _dropping(ax: Axes, found: dict[str, list[Score]], static: Score, what: str, title: str) -> None:
    for name, color in COLORS.items():
        scores = np.array([getattr(one, what) for one in found[name]])
        plots.sweep(ax, RATES, scores, label=name, color=color, ls="-" if name in FLOWS else "--")
    plots.sweep(ax, RATES, np.array([getattr(static, what)]), label=STATIC, color="black", marker="s", ls=":")
    ax.annotate(f"always the most frequent speaker: {FREQUENT:.2f}", (RATES[0], 0.42), fontsize=6, color=QUIET)
    ax.set(xlabel="fraction of frames dropped", ylabel="speakers named right", ylim=(0.4, 1.02), xticks=RATES)
    ax.set_title(f"vowels, {title}")


def _durations(ax: Axes, found: dict[str, list[Score]]) -> None:
    middle = (LASTED[1:] + LASTED[:-1]) / 2
    for name, color in COLORS.items():
        long = np.array([one.long for one in found[name]])
        plots.sweep(ax, middle, long, label=name, color=color, ls="-" if name in FLOWS else "--")
    ax.axvline(PULSES.threshold, color=QUIET, lw=0.6, ls=":")
    ax.set(xlabel="duration of the last pulse (unit of time)", ylabel="called long", ylim=(-0.03, 1.03))
    ax.set_title(f"pulses, in frames as taught (mean and range, {len(found[LIQUID])} seeds)")


def _other_frames(ax: Axes, found: dict[str, list[Score]], static: Score) -> None:
    for name, color in COLORS.items():
        scores = np.array([one.pulses for one in found[name]])
        plots.sweep(ax, (0, 1), scores, label=name, color=color, ls="-" if name in FLOWS else "--")
    plots.sweep(ax, (0, 1), np.array([static.pulses]), label=STATIC, color="black", marker="s", ls=":")
    ax.axhline(0.5, color=QUIET, lw=0.6, ls=":")
    ax.annotate("chance", (-0.27, 0.51), fontsize=6, color=QUIET)
    names = [f"{task.frames[0]} to {task.frames[1]}{taught}" for task, taught in ((PULSES, ", as taught"), (OTHER, ""))]
    ax.set_xticks([0, 1], names)
    ax.set(xlabel="frames in a pulse or gap", ylabel="pulses named right", xlim=(-0.3, 1.3), ylim=(0.4, 1.03))
    ax.set_title("pulses, the same signals in other frames")


if __name__ == "__main__":
    main(run)
