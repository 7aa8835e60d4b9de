"""A neural Turing machine learns to copy up to 20 vectors: how many more it then copies, and how its heads move.

Claim: trained on sequences of 1 to 20 vectors, the machine copies sequences up to six times as long without a wrong
bit, where an LSTM is at chance soon after 20; its write head moves by one slot per vector, sharply, and its read head
goes the same way afterwards.

Found with this budget: where training succeeds the machine copies 30 vectors without a wrong bit and 50 nearly so; at
80 and 120 errors add up.

Source: Graves, Wayne & Danihelka (2014), arXiv:1410.5401, section 4.1 and figs. 3 to 6: eight bits, a controller of 100
units, an LSTM of three layers of 256, up to a million sequences one by one. The repository
mgupta8143/neural-turing-machines reports 0.0 % wrong bits at 20 to 120 after 10,000 sequences, and for an LSTM after
500,000 sequences 3.1, 22.9, 40, 46.4 and 48 % at 20, 30, 50, 80 and 120. Here a budget that a laptop can pay: four
bits, batches of sequences of one length, Adam with a rate that falls to 0, heads that begin at slot 0 and stay sharp
from there, as in the repository snipsco/ntm-lasagne; the LSTM has as many updates as the machine.
"""

import copy
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor

import ctrnn
from ctrnn import analysis, learning, plots
from ctrnn.learning import Fitted
from ctrnn.models import LSTM, NTM, feed_forward
from ctrnn.plots.style import QUIET, STABLE, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import Copy, Trials

GRAVES = "Graves, Wayne & Danihelka (2014), arXiv:1410.5401"
REPRODUCTION = "mgupta8143/neural-turing-machines, 8 bits"
TRAINED = 20  # vectors at most
LENGTHS = (10, 20, 30, 50, 80, 120)
COLORS = {"NTM": TRAJECTORY, "LSTM": UNSTABLE}


class Found(NamedTuple):
    """What was found in the networks of one kind, one row for each seed."""

    fits: list[Fitted]
    wrong: Tensor  # (seed, length) share of wrong bits


class Heads(NamedTuple):
    """How the heads of one machine move while vectors come in and while they are said, in trials of length TRAINED."""

    write: Tensor  # (step, trial) slots, while vectors come in
    read: Tensor  # (step, trial) slots, while they are said
    focus: float  # median over both


def run(
    *,
    quick: bool = False,
    seed: int = 0,
    seeds: int = 5,
    bits: int = 4,
    units: int = 64,
    slots: int = 128,
    width: int = 8,
    updates: int = 1200,
    batch: int = 16,
    lr: float = 1e-2,
    lstm_units: int = 128,
    lstm_lr: float = 3e-3,
    trials: int = 32,
) -> Result:
    """Train both networks on short sequences, test them on long ones, and look at the machine's heads.

    Args:
        quick: one network of each kind, too few updates to learn the task, and sequences of 30 at most.
        seed: of weights and trials; the networks take seed, seed + 1, ...
        seeds: networks of each kind.
        bits: of a vector.
        units: of the machine's controller, which remembers nothing.
        slots: of its memory.
        width: numbers in a slot.
        updates: updates of Adam.
        batch: sequences in an update, all of one length.
        lr: learning rate of the machine at first.
        lstm_units: units of the LSTM.
        lstm_lr: its learning rate at first.
        trials: sequences of each length that are tested.
    """
    lengths = LENGTHS
    if quick:
        seeds, updates, batch, trials, lengths = 1, 12, 8, 4, LENGTHS[:3]
    task = Copy(bits=bits, lengths=(1, TRAINED), same_length=True)
    numbers = [seed + k for k in range(seeds)]
    options = {"updates": updates, "batch": batch, "dt": 1.0, "clip": 10.0, "evaluation_batch": trials}
    schedule = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=updates)
    machines = []
    for number in numbers:
        machines.append(
            learning.fit(
                machine(task, units, slots, width, number),
                task,
                seed=number,
                optimizer=partial(torch.optim.Adam, lr=lr),
                schedule=schedule,
                progress=progress(1, f"training NTM {number}"),
                **options,
            )
        )
    plain = learning.fit_ensemble(
        [LSTM(lstm_units, task.n_in, task.n_out, generator=Generator().manual_seed(number)) for number in numbers],
        task,
        seeds=numbers,
        optimizer=partial(torch.optim.Adam, lr=lstm_lr),
        schedule=schedule,
        progress=progress(1, "training LSTMs"),
        **options,
    )
    found = {
        name: Found(fits, torch.stack([tested(fit, task, lengths, trials) for fit in fits]))
        for name, fits in (("NTM", machines), ("LSTM", plain))
    }
    heads = [moves(fit.model, task, trials) for fit in machines]
    return Result(figure(found, heads, task, lengths), claims(found, heads, task, lengths))


def machine(task: Copy, units: int, slots: int, width: int, seed: int) -> NTM:
    """A machine with one head that writes and one that reads; both begin at slot 0."""
    draw = Generator().manual_seed(seed)
    controller = feed_forward(units, task.n_in + width, generator=draw)
    return NTM(controller, task.n_out, slots=slots, width=width, start_slot=0, learn_weights=False, generator=draw)


def drawn(task: Copy, length: int, count: int) -> Trials:
    """Sequences of one length that nobody has seen in training."""
    return Copy(bits=task.bits, lengths=(length, length)).trials(count, 1.0, Generator().manual_seed(10_000 + length))


@torch.no_grad()
def tested(fit: Fitted, task: Copy, lengths: Sequence[int], count: int) -> Tensor:
    """The share of wrong bits at each length."""
    wrong = []
    for length in lengths:
        trials = drawn(task, length, count)
        wrong.append(task.evaluate(ctrnn.integrate(fit.model, trials.us, dt=1.0), trials)["bit_error"])
    return torch.tensor(wrong)


@torch.no_grad()
def moves(model: NTM, task: Copy, count: int) -> Heads:
    """By how many slots the heads move from one vector to the next."""
    run_ = ctrnn.integrate(model, drawn(task, TRAINED, count).us, dt=1.0)
    write, read = run_.xs.write_weights[:TRAINED], run_.xs.read_weights[TRAINED + 1 :]
    focus = torch.cat([analysis.head_places(weights).focus for weights in (write, read)])
    return Heads(analysis.head_moves(write)[..., 0], analysis.head_moves(read)[..., 0], float(focus.median()))


def by_one(step: Tensor) -> float:
    """The share of moves that are within 0.05 of one slot, all in the direction of most."""
    return float(((step - step.median().sign()).abs() < 0.05).double().mean())


def claims(found: dict[str, Found], heads: list[Heads], task: Copy, lengths: Sequence[int]) -> list[Claim]:
    """What is exact about every machine, and what was found over the seeds."""
    n = len(heads)
    fits = found["NTM"].fits
    at = list(lengths).index(TRAINED)
    learned = (found["NTM"].wrong[:, at] < 1e-3).nonzero()[:, 0].tolist()
    percent = {name: (100 * part.wrong.median(0).values).tolist() for name, part in found.items()}
    everything = [
        Claim.equal(
            "NTM: greatest difference between the outputs of Euler's steps of tau and of the discrete machine",
            max(between_solvers(fit.model, task) for fit in fits),
            0.0,
            "a step of tau is the discrete network, bit for bit",
        ),
        Claim.below(
            "NTM: greatest difference between the memory and the one rebuilt from what its head erased and added",
            max(rebuilt(fit.model, task) for fit in fits),
            1e-10,
            f"{GRAVES}, eqs. 3 and 4, in float64",
        ),
        Claim.equal(
            f"NTM: networks of {n} with fewer than 0.1 % of bits wrong at {TRAINED}",
            len(learned),
            n,
            f"{GRAVES}, fig. 3",
            "statistical",
        ),
    ]
    for k, length in enumerate(lengths):
        if length <= TRAINED:
            continue
        everything.append(
            Claim.below(
                f"NTM: median over {n} seeds of the % of bits wrong at {length}",
                percent["NTM"][k],
                1.0,
                f"0.0 % in {REPRODUCTION}",
                "statistical",
            )
        )
        everything.append(
            Claim.at_least(
                f"LSTM: median over {n} seeds of the % of bits wrong at {length}",
                percent["LSTM"][k],
                {30: 22.9, 50: 40.0, 80: 46.4, 120: 48.0}[length],
                f"{REPRODUCTION}, after 500,000 sequences",
                "statistical",
            )
        )
    longest = [round(100 * float(wrong), 2) for wrong in found["NTM"].wrong[:, -1]]
    everything.append(
        Claim(
            text=f"NTM: % of bits wrong at {lengths[-1]} in each network",
            kind="statistical",
            measured=longest,
            expected="0.0 in each",
            tolerance=None,
            source=f"{REPRODUCTION}; {GRAVES}, fig. 4: a few errors, and one vector twice",
            holds=max(longest) < 1,
        )
    )
    for name, part in (("write", [h.write for h in heads]), ("read", [h.read for h in heads])):
        everything.append(
            Claim.at_least(
                f"NTM: median over {n} seeds of the share of {name} head's moves that are one slot, in one direction",
                float(np.median([by_one(step) for step in part])),
                0.95,
                f"+1.00 slots per step in {REPRODUCTION}; {GRAVES}, fig. 6",
                "statistical",
            )
        )
    everything.append(
        Claim.at_least(
            f"NTM: median over {n} seeds of the heads' focus, 1 where all weight is on one slot",
            float(np.median([h.focus for h in heads])),
            0.99,
            f"weight 0.999 on one slot in {REPRODUCTION}",
            "statistical",
        )
    )
    return everything


@torch.no_grad()
def between_solvers(model: NTM, task: Copy) -> float:
    """The greatest difference between outputs of Euler's steps of tau and of the discrete network."""
    us = drawn(task, TRAINED, 4).us
    flow, discrete = (ctrnn.integrate(model, us, dt=1.0, solver=s).ys for s in (ctrnn.Euler(), ctrnn.Iterate()))
    return float((flow - discrete).abs().max())


@torch.no_grad()
def rebuilt(model: NTM, task: Copy) -> float:
    """The greatest difference between the memory and what the traces of the write head make of it."""
    precise = copy.deepcopy(model).double()
    run_ = ctrnn.integrate(precise, drawn(task, TRAINED, 4).us.double(), dt=1.0)
    traces = analysis.head_traces(precise, run_.xs)
    memory = precise.initial_state(4).memory
    worst = 0.0
    for w, erased, added, held in zip(traces.write, traces.erased, traces.added, traces.memory, strict=True):
        memory = memory * (1 - w.mT * erased) + w.mT * added
        worst = max(worst, float((memory - held).abs().max()))
    return worst


def figure(found: dict[str, Found], heads: list[Heads], task: Copy, lengths: Sequence[int]) -> Figure:
    """Wrong bits, training and moves; below, one machine copying a sequence longer than it was trained on."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 6.6))
        top, below = fig.subfigures(2, 1, height_ratios=(1, 1.9))
        wrong, losses, steps = top.subplots(1, 3, width_ratios=(1.1, 1, 1))
        _wrong(wrong, found, lengths)
        _losses(losses, found)
        _moves(steps, heads)
        _inside(below, best(found["NTM"]), task)
    return fig


def best(found: Found) -> NTM:
    """The machine with the fewest wrong bits over all lengths."""
    return found.fits[int(found.wrong.mean(1).argmin())].model


def _wrong(ax: Axes, found: dict[str, Found], lengths: Sequence[int]) -> None:
    ax.axvspan(1, TRAINED, color=QUIET, alpha=0.2, lw=0)
    ax.axhline(50, color=STABLE, lw=0.6, ls=":")
    ax.text(lengths[-1], 52, "chance", ha="right", fontsize=7)
    ax.text(TRAINED / 2, 59, "trained", ha="center", fontsize=7)
    for name, part in found.items():
        for k, wrong in enumerate(100 * part.wrong):
            ax.plot(lengths, wrong, ".-", ms=4, lw=0.7, color=COLORS[name], label=None if k else name)
    ax.set(xlabel="vectors to copy", ylabel="wrong bits / %", ylim=(-2, 64), title="test, each seed")
    ax.legend(loc="upper right", bbox_to_anchor=(1.0, 0.72))


def _losses(ax: Axes, found: dict[str, Found]) -> None:
    for name, part in found.items():
        for k, fit in enumerate(part.fits):
            loss = np.array([record.loss for record in fit.history])
            every = max(len(loss) // 60, 1)
            smooth = loss[: len(loss) // every * every].reshape(-1, every).mean(1)
            ax.semilogy(
                every * (np.arange(len(smooth)) + 0.5), smooth, color=COLORS[name], lw=0.7, label=None if k else name
            )
    ax.set(xlabel="update", ylabel="cross-entropy of a bit / nats", title="training, each seed")
    ax.legend(loc="center left", bbox_to_anchor=(0.0, 0.3))


def _moves(ax: Axes, heads: list[Heads]) -> None:
    for k, found in enumerate(heads):
        for name, step, color, shift in (
            ("write, vectors come in", found.write, plots.weightings.WRITTEN, -0.12),
            ("read, vectors are said", found.read, plots.weightings.READ, 0.12),
        ):
            low, middle, high = np.nanquantile(step.numpy(), (0.05, 0.5, 0.95))
            ax.plot([k + shift] * 2, [low, high], color=color, lw=1.2)
            ax.plot(k + shift, middle, "o", ms=3.5, color=color, label=None if k else name)
    for one in (-1, 1):
        ax.axhline(one, color=STABLE, lw=0.6, ls=":", zorder=0)
    ax.set(xlabel="machine", ylabel="slots per vector", title="moves: median, 5 to 95 %", xticks=range(len(heads)))
    ax.set(ylim=(-2.2, 1.6), xlim=(-0.5, len(heads) - 0.5))
    ax.legend(loc="lower center")


def visited(weights: Tensor) -> tuple[int, int]:
    """The shortest range of slots, on either side of slot 0, that holds all slots where a head is for once."""
    slots = weights.shape[-1]
    there = (weights.amax((0, 1)) > 0.2).nonzero()[:, 0]
    around = torch.where(there > slots // 2, there - slots, there).tolist() or [0]
    first, stop = max(min(around) - 2, -(slots // 2)), min(max(around) + 3, slots // 2)
    return first, stop


@torch.no_grad()
def _inside(fig: Figure, model: NTM, task: Copy) -> None:
    us = drawn(task, 2 * TRAINED, 1).us[:, 0]
    run_ = ctrnn.integrate(model, us, dt=1.0)
    traces = analysis.head_traces(model, run_.xs)
    axes = fig.subplots(3, 2, sharex=True, height_ratios=(0.6, 0.8, 1.4))
    said = torch.sigmoid(run_.ys)
    said[: 2 * TRAINED + 1] = 0  # nobody asks for it
    plots.inside_memory(axes, traces, us, said, slots=visited(torch.cat([traces.write, traces.read], 1)))
    axes[0, 0].set_title(f"input: {2 * TRAINED} vectors, twice as many as in training")
    axes[0, 1].set_title("output, where it is asked for: probability of a 1")


if __name__ == "__main__":
    main(run)
