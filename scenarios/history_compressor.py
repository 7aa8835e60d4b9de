"""A lag of twenty steps, bridged by a history compressor.

Claim: a network trained with an error that goes back three steps cannot connect the first of 22 events with the last;
two such networks can, when the upper one, the chunker, sees only what surprised the lower one: the lag of 21 events is
a lag of one there. What the chunker knows can then be distilled into the lower network, the automatiser, which no
longer needs it. Whatever is learned, the code rebuilds every sequence exactly.

A sequence is a or x, then b1 ... b20, then a label that says which of the two came first; both are equally frequent. In
the paper the label is the target of an output unit, here it is the last event; the paper's networks learn by gradient
descent, ours by Adam. A window of up to 20 events, the memory of a network without cycles, sees the same before both.

Source: Schmidhuber (1992), Neural Computation 4:234-242; the experiment as told on idsia.ch/~juergen/chunker.
"""

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor

from ctrnn import Backprop, Elman, Truncated, plots
from ctrnn.adjoints import Adjoint
from ctrnn.learning import HistoryCompressor, Predictor, chunker_states, imitation
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress

LAG, SYMBOLS = 20, 24
FIRST, MIDDLE, LABELS = (0, 1), tuple(range(2, 22)), (22, 23)
SEQUENCES = torch.tensor([[first, *MIDDLE, label] for first, label in zip(FIRST, LABELS, strict=True)]).T[..., None]
CONFIDENCE = 0.8  # an event of lower probability is a surprise
REACH, UNITS, RATE = Truncated(3), (24, 8), 1e-2
EVERY = 25  # updates between looks
FULL, SHORT = "conventional, full BPTT", "conventional, BPTT(3)"
LOWER, UPPER, DISTILLED = "lower level alone", "chunker", "automatiser, distilled"
STATES = ("untrained", "lower level trained", "chunker distilled")
SCHMIDHUBER = "Schmidhuber (1992), Neural Computation 4:234"
TOLD = "idsia.ch/~juergen/chunker"


class State(NamedTuple):
    """A compressor at one time of its training."""

    passed: list[list[int]]  # times of the events that surprised its lower level, for each sequence
    wrong: int  # events rebuilt wrongly


class Found(NamedTuple):
    """What was found with one seed."""

    curves: dict[str, Tensor]  # network -> (look,) probability of the right label, of the two the lower
    states: list[State]  # untrained, lower level trained, distilled
    solved: int | None  # sequences shown until the chunker foresaw both labels


def run(
    *, quick: bool = False, seed: int = 0, seeds: int = 5, updates: int = 900, stage: int = 250, full: int = 2500
) -> Result:
    """Train conventional networks, and compressors level by level; each update shows both sequences once.

    Args:
        quick: one seed and few updates, too few for the distillation.
        seed: of the weights; seed, seed + 1, ...
        seeds: networks of each kind.
        updates: of Adam, of the compressor, and of the conventional network that is trained as its levels are.
        stage: of these, how many train the lower level and then the chunker; the rest distil.
        full: updates of the conventional network whose error goes back through the whole sequence.
    """
    if quick:
        seeds, updates, stage, full = 1, 150, 50, 100
    report = progress(seeds, "training")
    found = []
    for k in range(seeds):
        found.append(one(seed + k, updates, stage, full))
        report(k + 1)
    return Result(figure(found, stage), claims(found, updates, full))


def one(seed: int, updates: int, stage: int, full: int) -> Found:
    """The conventional networks and the compressor of one seed."""
    below, above = predictor(seed, further=UNITS[1]), chunker(seed)
    states = [look(below, above)]
    lower = learn(below, stage, REACH)
    states.append(look(below, above))
    codes = [below.compress(events) for events in SEQUENCES.unbind(1)]
    upper = learn_above(above, [code.events for code in codes], stage)
    units = torch.stack([chunker_states(above, code) for code in codes], 1)
    distilled = learn(below, updates - 2 * stage, REACH, units)
    states.append(look(below, above))
    curves = {
        FULL: learn(predictor(seed), full, Backprop()),
        SHORT: learn(predictor(seed), updates, REACH),
        LOWER: lower,
        UPPER: upper,
        DISTILLED: distilled,
    }
    solved = (upper > CONFIDENCE).nonzero()
    return Found(curves, states, 2 * (stage + EVERY * int(solved[0])) if len(solved) else None)


def look(below: Predictor, above: Predictor) -> State:
    """What is passed up now, and whether both levels together still rebuild both sequences."""
    net, passed, wrong = HistoryCompressor([below, above]), [], 0
    for events in SEQUENCES.unbind(1):
        codes = net.compress(events)
        rebuilt = net.decompress(codes[-1], [code.length for code in codes])
        passed.append(codes[0].times.tolist())
        wrong += int((rebuilt != events).sum())
    return State(passed, wrong)


def predictor(seed: int, further: int = 0) -> Predictor:
    """An Elman network that foresees the next symbol."""
    generator = Generator().manual_seed(seed)
    return Predictor(
        Elman(UNITS[0], SYMBOLS, SYMBOLS + further, generator=generator), (SYMBOLS,), confidence=CONFIDENCE
    )


def chunker(seed: int) -> Predictor:
    """An Elman network that foresees the next surprise and how long it will take."""
    n, generator = SYMBOLS + LAG + 3, Generator().manual_seed(seed + 1000)
    return Predictor(Elman(UNITS[1], n, n, generator=generator), (SYMBOLS, LAG + 3), confidence=CONFIDENCE)


def learn(level: Predictor, updates: int, adjoint: Adjoint, states: Tensor | None = None) -> Tensor:
    """Train on both sequences, and on the chunker's units if they are given: p(label) at every look."""
    optimizer, looks = torch.optim.Adam(level.parameters(), lr=RATE), []
    for update in range(updates + 1):
        ys = level(SEQUENCES, adjoint)
        if update % EVERY == 0:
            looks.append(of_labels(ys.detach()[-1]))
        loss = level.loss(ys, SEQUENCES)
        if states is not None:
            loss = loss + imitation(level, ys, states)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.stack(looks)


def learn_above(level: Predictor, streams: list[Tensor], updates: int) -> Tensor:
    """Train the chunker on what surprised the level below: p(label) at every look."""
    optimizer, looks = torch.optim.Adam(level.parameters(), lr=RATE), []
    for update in range(updates + 1):
        said = [level(events, REACH) for events in streams]
        if update % EVERY == 0:
            looks.append(of_labels(torch.stack([ys.detach()[-1] for ys in said])))
        loss = torch.stack([level.loss(ys, events) for ys, events in zip(said, streams, strict=True)]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.stack(looks)


def of_labels(y: Tensor) -> Tensor:
    """The probability of the right label, in that of the two sequences in which it is lower."""
    return y[:, :SYMBOLS].softmax(-1)[torch.arange(2), torch.tensor(LABELS)].min()


def claims(found: list[Found], updates: int, full: int) -> list[Claim]:
    """Identities first; then what training reached, beside what the paper reports."""
    n = len(found)
    count = {name: sum(bool(f.curves[name][-1] > CONFIDENCE) for f in found) for name in found[0].curves}
    solved = [f.solved for f in found if f.solved is not None]
    once = sum(f.states[-1].passed == [[0], [0]] for f in found)
    text = f"both labels foreseen (p > {CONFIDENCE}) in k of {n} seeds: "
    return [
        Claim.equal(
            f"events of 44 rebuilt wrongly from the top level's code: {n} compressors, {len(STATES)} states each",
            [[state.wrong for state in f.states] for f in found],
            [[0] * len(STATES)] * n,
            f"{SCHMIDHUBER}: no information is lost",
        ),
        Claim.equal(
            "windows of 1 to 20 events before the label that differ between the two sequences",
            [w for w in range(1, LAG + 1) if not bool((SEQUENCES[-1 - w : -1, 0] == SEQUENCES[-1 - w : -1, 1]).all())],
            [],
            "a static network on such a window says the same before both labels: it is right about one of them",
        ),
        Claim.equal(
            f"in k of {n} seeds the trained lower level passes up the first event and the label, and nothing else",
            sum(f.states[1].passed == [[0, LAG + 1]] * 2 for f in found),
            n,
            SCHMIDHUBER,
            "statistical",
        ),
        Claim.equal(
            text + "by the chunker, whose error goes back 3 steps",
            count[UPPER],
            n,
            f"{TOLD}: 13 of 17 runs needed fewer than 5,000 sequences, the others fewer than 35,000",
            "statistical",
        ),
        Claim.below(
            f"sequences shown until then, median of the {len(solved)} seeds that solved it",
            float(np.median(solved)) if solved else float("nan"),
            5000,
            f"{TOLD}: fewer than 5,000 in 13 of 17 runs",
            "statistical",
        ),
        Claim.equal(
            text + f"by the automatiser alone after distillation; in {once} it passes up the first event only",
            count[DISTILLED],
            n,
            SCHMIDHUBER,
            "statistical",
        ),
        Claim.equal(
            text + f"by a conventional network, error 3 steps back, {2 * updates:,} sequences",
            count[SHORT],
            0,
            "its error never reaches the first event",
            "statistical",
        ),
        Claim.equal(
            text + f"by a conventional network, error through the whole sequence, {2 * full:,} sequences",
            count[FULL],
            0,
            f"{TOLD}: no progress in more than 1,000,000 sequences",
            "statistical",
        ),
    ]


def figure(found: list[Found], stage: int) -> Figure:
    """How the label came to be foreseen, and what was passed up on the way."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 2.9), layout="constrained")
        left, right = fig.subplots(1, 2, width_ratios=(3, 2))
        _learning(left, found, stage)
        _surprises(right, found[0])
    return fig


def _learning(ax: Axes, found: list[Found], stage: int) -> None:
    begin = {LOWER: 0, UPPER: stage, DISTILLED: 2 * stage}
    colors = {FULL: QUIET, SHORT: TRAJECTORY, LOWER: INPUT, UPPER: UNSTABLE, DISTILLED: OUTPUT}
    for name, color in colors.items():
        curves = np.stack([f.curves[name].numpy() for f in found])
        shown = 2 * (begin.get(name, 0) + EVERY * np.arange(curves.shape[1]))
        plots.sweep(ax, shown, curves, label=name, color=color, marker="", ls="--" if name in (FULL, SHORT) else "-")
    ax.axhline(0.5, color=QUIET, lw=0.6, ls=":")
    ax.set(xlabel="sequences shown", ylabel="probability of the right label", ylim=(0, 1.03))
    ax.set_title(f"the label, 21 events after what decides it (mean and range of {len(found)} seeds)")
    ax.legend(loc="lower right")


def _surprises(ax: Axes, found: Found) -> None:
    for row, state in enumerate(found.states):
        for k, times in enumerate(state.passed):
            ax.plot(times, np.full(len(times), 3 * row + k), "o", ms=4, color=(TRAJECTORY, UNSTABLE)[k], clip_on=False)
            ax.axhline(3 * row + k, color=QUIET, lw=0.4, zorder=0)
    names = [f"{name}\n({sum(map(len, s.passed))} of 44)" for name, s in zip(STATES, found.states, strict=True)]
    ax.set_yticks([0.5, 3.5, 6.5], names)
    ax.set(xlabel="event (0: a or x, 21: the label)", xlim=(-0.5, LAG + 1.5), ylim=(7.7, -0.7))
    ax.set_xticks([0, 5, 10, 15, 21])
    ax.set_title("events passed up: a (blue), x (orange)")


if __name__ == "__main__":
    main(run)
