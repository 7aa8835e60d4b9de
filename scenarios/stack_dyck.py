"""Networks with a stack learn brackets in words of up to 50 symbols: two of five close them rightly in words of 100.

Claim: trained on Dyck-2 words of 2 to 50 symbols, a small network with a stack says after every symbol of words of 100
which bracket may close, without a mistake; its stack then holds the brackets that are open, one in a cell. An LSTM with
many times as many weights gets worse with the length of the word and with the number of brackets that are open.

Found, with five seeds: not reliably. In this budget two of five networks with a stack close at least 99 % of brackets
rightly at 100, and the stack of the better one, drawn, holds what is open; the other three stop learning at a
cross-entropy near 0.1. The LSTM, with 32 units against 8, gets worse with the length, to 96 % at 100 (medians), but not
with the number of brackets that are open; it says 3 % of the words of 100 without a mistake.

Source: the network is that of Joulin & Mikolov (2015), arXiv:1503.01007, which reads the two upper cells; the task is
that of Suzgun, Gehrmann, Belinkov & Shieber (2019), arXiv:1911.03329: a network of 8 units with a stack of one number a
cell, trained on 5,000 words of 2 to 50 symbols one by one, makes no mistake in 5,000 words of 52 to 100. Their words
come from a grammar that favours short and flat ones; here all lengths are equally likely, and all words of a length.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor

import ctrnn
from ctrnn import analysis, learning, plots
from ctrnn.learning import Fitted
from ctrnn.models import LSTM, Elman, StackRNN
from ctrnn.plots.style import QUIET, STABLE, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import Dyck, Trials

SUZGUN = "Suzgun et al. (2019), arXiv:1911.03329"
JOULIN = "Joulin & Mikolov (2015), arXiv:1503.01007"
TRAINED = 50  # symbols at most
LENGTHS = tuple(range(10, 101, 10))
DEEP = 8  # brackets open from which on a word is deep
EMPTY = -1.0  # what a cell holds where there is nothing
BRACKETS = "([)]"
COLORS = {"StackRNN": TRAJECTORY, "LSTM": UNSTABLE}


class Found(NamedTuple):
    """What was found in the networks of one kind, one row for each seed."""

    fits: list[Fitted]
    closing: Tensor  # (seed, length) share of closing brackets that are right
    words: Tensor  # (seed, length) share of words without a mistake
    by_depth: Tensor  # (seed, brackets open) of the longest words, closing brackets that are right; NaN where none


def run(
    *,
    quick: bool = False,
    seed: int = 0,
    seeds: int = 5,
    units: int = 8,
    lstm_units: int = 32,
    updates: int = 1500,
    batch: int = 16,
    lr: float = 1e-2,
    trials: int = 200,
) -> Result:
    """Train both networks on short words, test them on long ones, and look into the stack.

    Args:
        quick: one network of each kind, too few updates to learn the task, and few words.
        seed: of weights and trials; the networks take seed, seed + 1, ...
        seeds: networks of each kind.
        units: of the network with the stack.
        lstm_units: of the LSTM.
        updates: updates of Adam.
        batch: words in an update, all of one length.
        lr: learning rate at first; it falls to 0.
        trials: words of each length that are tested.
    """
    lengths = LENGTHS
    if quick:
        seeds, updates, batch, trials, lengths = 1, 4, 4, 8, (10, 50, 100)
    task = Dyck(kinds=2, lengths=(2, TRAINED), same_length=True)
    numbers = [seed + k for k in range(seeds)]
    networks = {
        "StackRNN": [stacked(task, units, number) for number in numbers],
        "LSTM": [
            LSTM(lstm_units, task.n_in, task.n_out, generator=Generator().manual_seed(number)) for number in numbers
        ],
    }
    found = {}
    for name, members in networks.items():
        fits = learning.fit_ensemble(
            members,
            task,
            seeds=numbers,
            updates=updates,
            batch=batch,
            dt=1.0,
            clip=1.0,
            optimizer=partial(torch.optim.Adam, lr=lr),
            schedule=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=updates),
            evaluation_batch=8,
            progress=progress(1, f"training {name}"),
        )
        found[name] = tested(fits, task, lengths, trials)
    return Result(figure(found, task, lengths, trials), claims(found, task, lengths, trials))


def stacked(task: Dyck, units: int, seed: int) -> StackRNN:
    """A network with one stack, half as deep as the longest word: no word can tell it from one that is deeper."""
    draw = Generator().manual_seed(seed)
    return StackRNN(
        Elman(units, task.n_in + 2, generator=draw), task.n_out, depth=TRAINED // 2, empty=EMPTY, generator=draw
    )


def deeper(model: StackRNN, depth: int, rounded: bool = False) -> StackRNN:
    """The same network with a stack of other depth, which may take the likeliest action only."""
    other = StackRNN.from_config(model.config | {"depth": depth, "rounded": rounded})
    other.load_state_dict(model.state_dict())
    return other.to(model.W_heads.dtype)


def drawn(task: Dyck, length: int, count: int) -> Trials:
    """Words of one length that nobody has seen in training."""
    return Dyck(kinds=task.kinds, lengths=(length, length)).trials(count, 1.0, Generator().manual_seed(10_000 + length))


def heights(symbols: Int[Tensor, "batch symbol"], kinds: int) -> Int[Tensor, "symbol batch"]:
    """How many brackets are open after each symbol of words of one length."""
    return torch.where(symbols.mT < kinds, 1, -1).cumsum(0)


@torch.no_grad()
def tested(fits: list[Fitted], task: Dyck, lengths: Sequence[int], count: int) -> Found:
    """Test trained networks at each length; a stack is as deep as it has to be."""
    scores, by_depth = [], []
    for fit in fits:
        model = deeper(fit.model, max(lengths) // 2) if isinstance(fit.model, StackRNN) else fit.model
        row = []
        for length in lengths:
            trials = drawn(task, length, count)
            run_ = ctrnn.integrate(model, trials.us, dt=1.0)
            score = task.evaluate(run_, trials)
            row.append((score["closing_accuracy"], score["word_accuracy"]))
        scores.append(row)
        by_depth.append(right_by_depth(run_.ys, trials, task.kinds))
    closing, words = torch.tensor(scores, dtype=torch.float64).unbind(-1)
    return Found(fits, closing, words, torch.stack(by_depth))


def right_by_depth(ys: Tensor, trials: Trials, kinds: int) -> Float[Tensor, " depth"]:
    """The share of closing brackets that are right where so many brackets are open, 1 and more."""
    height = heights(trials.condition["symbols"], kinds)
    closing = slice(kinds, 2 * kinds)
    right = ys[..., closing].argmax(-1) == trials.targets[..., closing].argmax(-1)
    return torch.stack([right[height == depth].double().mean() for depth in range(1, len(height) // 2 + 1)])


def open_brackets(symbols: Int[Tensor, "batch symbol"], kinds: int, depth: int) -> Int[Tensor, "symbol batch cell"]:
    """The brackets that are open after each symbol, the last that opened first; -1 in cells that are empty."""
    stack = torch.full((len(symbols), depth), -1)
    held = []
    for symbol in symbols.mT:
        pushed = torch.cat([symbol[:, None], stack[:, :-1]], 1)
        popped = torch.cat([stack[:, 1:], torch.full_like(stack[:, :1], -1)], 1)
        stack = torch.where((symbol < kinds)[:, None], pushed, popped)
        held.append(stack)
    return torch.stack(held)


@torch.no_grad()
def contents_right(model: StackRNN, task: Dyck, length: int, count: int) -> float:
    """The share of cells, down to the first that should be empty, that hold what they should.

    What a cell holds is decoded by the nearest number: `empty`, or the mean number pushed for a kind of bracket.
    """
    trials = drawn(task, length, count)
    symbols = trials.condition["symbols"]
    run_ = ctrnn.integrate(deeper(model, length // 2 + 1), trials.us, dt=1.0)
    traces = analysis.stack_traces(model, run_.xs)
    codes = pushed_codes(traces.pushed[..., 0, 0], symbols, task.kinds)
    held = open_brackets(symbols, task.kinds, length // 2 + 1)
    nearest = (traces.contents[:, :, 0, :, 0, None] - codes).abs().argmin(-1) - 1
    asked = torch.arange(held.shape[-1]) <= (held >= 0).sum(-1, keepdim=True)
    return float((nearest == held)[asked].double().mean())


def pushed_codes(
    pushed: Float[Tensor, "symbol batch"], symbols: Int[Tensor, "batch symbol"], kinds: int
) -> Float[Tensor, " code"]:
    """The numbers that stand for nothing and for each kind of bracket."""
    return torch.stack(
        [torch.tensor(EMPTY, dtype=pushed.dtype), *(pushed[symbols.mT == kind].mean() for kind in range(kinds))]
    )


@torch.no_grad()
def obeyed(model: StackRNN, task: Dyck, length: int, count: int) -> float:
    """The share of symbols at which the likeliest action is the right one: push what opens, pop what closes."""
    trials = drawn(task, length, count)
    run_ = ctrnn.integrate(deeper(model, length // 2), trials.us, dt=1.0)
    pops = analysis.stack_traces(model, run_.xs).actions[:, :, 0].argmax(-1)
    return float((pops == (trials.condition["symbols"].mT >= task.kinds)).double().mean())


def claims(found: dict[str, Found], task: Dyck, lengths: Sequence[int], count: int) -> list[Claim]:
    """What is exact about every network with a stack, and what was found over the seeds."""
    stack, lstm = found["StackRNN"], found["LSTM"]
    models, n, longest = [fit.model for fit in stack.fits], len(stack.fits), lengths[-1]
    inside = [k for k, length in enumerate(lengths) if length <= TRAINED]
    rounded = [word_accuracy(deeper(model, longest // 2, rounded=True), task, longest, count) for model in models]
    percent = lambda scores: 100 * float(scores.median(0).values)
    return [
        Claim.equal(
            "StackRNN: greatest difference between the outputs of Euler's steps of tau and of the discrete network",
            max(between_solvers(model, task) for model in models),
            0.0,
            "a step of tau is the discrete network, bit for bit",
        ),
        Claim.below(
            f"StackRNN: greatest difference of outputs in words of {TRAINED} between stacks of {TRAINED // 2} and "
            f"{2 * TRAINED} cells",
            max(between_depths(model, task) for model in models),
            1e-12,
            "what leaves a stack of d cells needs d steps more to come back; in float64",
        ),
        Claim.below(
            "StackRNN: greatest difference between the cells and those rebuilt from what the stack was told",
            max(rebuilt(model, task) for model in models),
            1e-12,
            f"{JOULIN}, eqs. 5 and 6, in float64",
        ),
        Claim.equal(
            f"StackRNN: networks of {n} with at least 99.9 % of closing brackets right at all lengths to {TRAINED}",
            int((stack.closing[:, inside].min(1).values >= 0.999).sum()),
            n,
            SUZGUN,
            "statistical",
        ),
        Claim.equal(
            f"StackRNN: networks of {n} with at least 99 % of closing brackets right at {longest}",
            int((stack.closing[:, -1] >= 0.99).sum()),
            n,
            SUZGUN,
            "statistical",
        ),
        Claim.at_least(
            f"StackRNN: median over {n} seeds of the % of words of {longest} without a mistake",
            percent(stack.words[:, -1]),
            99.0,
            f"{SUZGUN}: 100 % of words of 52 to 100 from their grammar",
            "statistical",
        ),
        Claim.at_least(
            f"StackRNN: by how much that grows if only the likeliest action is taken, median over {n} seeds",
            percent(torch.tensor(rounded) - stack.words[:, -1]),
            0.0,
            f"{JOULIN}, section 3.2: rounding helps on long sequences",
            "statistical",
        ),
        Claim.at_least(
            f"StackRNN: median over {n} seeds of the % of symbols at which the likeliest action is to push what opens "
            f"and to pop what closes, in words of {longest}",
            percent(torch.tensor([obeyed(model, task, longest, count) for model in models])),
            99.9,
            "a pushdown automaton for Dyck-2",
            "statistical",
        ),
        Claim.at_least(
            f"StackRNN: median over {n} seeds of the % of cells that hold what they should, in words of {longest}",
            percent(torch.tensor([contents_right(model, task, longest, count) for model in models])),
            99.0,
            "a pushdown automaton for Dyck-2",
            "statistical",
        ),
        Claim.below(
            f"LSTM: median over {n} seeds of the % of closing brackets right at {longest}",
            percent(lstm.closing[:, -1]),
            95.0,
            "a network without a stack, of fixed size",
            "statistical",
        ),
        Claim.below(
            f"LSTM: median over {n} seeds of the % of words of {longest} without a mistake",
            percent(lstm.words[:, -1]),
            10.0,
            "a network without a stack, of fixed size",
            "statistical",
        ),
        Claim.below(
            f"LSTM: median over {n} seeds of the % of closing brackets right where {DEEP} brackets are open, in words "
            f"of {longest}",
            percent(lstm.by_depth[:, DEEP - 1]),
            90.0,
            "a network without a stack, of fixed size",
            "statistical",
        ),
    ]


@torch.no_grad()
def word_accuracy(model: StackRNN, task: Dyck, length: int, count: int) -> float:
    """The share of words without a mistake."""
    trials = drawn(task, length, count)
    return task.evaluate(ctrnn.integrate(model, trials.us, dt=1.0), trials)["word_accuracy"]


@torch.no_grad()
def between_solvers(model: StackRNN, task: Dyck) -> float:
    """The greatest difference between outputs of Euler's steps of tau and of the discrete network."""
    us = drawn(task, TRAINED, 4).us
    flow, discrete = (ctrnn.integrate(model, us, dt=1.0, solver=s).ys for s in (ctrnn.Euler(), ctrnn.Iterate()))
    return float((flow - discrete).abs().max())


@torch.no_grad()
def between_depths(model: StackRNN, task: Dyck) -> float:
    """The greatest difference between outputs with a stack of half a word and with one of two words."""
    us = drawn(task, TRAINED, 20).us.double()
    pair = [deeper(model, depth).double() for depth in (TRAINED // 2, 2 * TRAINED)]
    half, more = (ctrnn.integrate(one, us, dt=1.0).ys for one in pair)
    return float((half - more).abs().max())


@torch.no_grad()
def rebuilt(model: StackRNN, task: Dyck) -> float:
    """The greatest difference between the stack and what its traces make of it, cell by cell."""
    precise = deeper(model, TRAINED).double()
    run_ = ctrnn.integrate(precise, drawn(task, TRAINED, 4).us.double(), dt=1.0)
    traces = analysis.stack_traces(precise, run_.xs)
    cells = precise.initial_state(4).stacks[:, 0, :, 0]
    worst = 0.0
    for told, value, held in zip(traces.actions, traces.pushed, traces.contents, strict=True):
        above = torch.cat([value[:, 0], cells[:, :-1]], 1)
        below = torch.cat([cells[:, 1:], torch.full_like(cells[:, :1], EMPTY)], 1)
        cells = told[:, 0, :1] * above + told[:, 0, 1:] * below
        worst = max(worst, float((cells - held[:, 0, :, 0]).abs().max()))
    return worst


def figure(found: dict[str, Found], task: Dyck, lengths: Sequence[int], count: int) -> Figure:
    """Scores by length and by depth, and training; below, one word and what the stack holds of it."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 6.4))
        top, below = fig.subfigures(2, 1, height_ratios=(1, 1.5))
        by_length, by_depth, losses = top.subplots(1, 3)
        _by_length(by_length, found, lengths)
        _by_depth(by_depth, found, lengths[-1], count)
        _losses(losses, found)
        stack = found["StackRNN"]
        _inside(below, stack.fits[int(stack.words.mean(1).argmax())].model, task, min(60, lengths[-1]), count)
    return fig


def _by_length(ax: Axes, found: dict[str, Found], lengths: Sequence[int]) -> None:
    ax.axvspan(0, TRAINED, color=QUIET, alpha=0.2, lw=0)
    ax.text(TRAINED / 2, 41, "trained", ha="center", fontsize=7)
    for name, part in found.items():
        plots.sweep(ax, lengths, 100 * part.closing, label=name, color=COLORS[name])
    ax.axhline(50, color=STABLE, lw=0.6, ls=":")
    ax.text(lengths[-1], 51, "chance", ha="right", fontsize=7)
    title = f"mean and range of {len(found['LSTM'].fits)} seeds"
    ax.set(xlabel="symbols of the word", ylabel="closing brackets right / %", ylim=(38, 103), title=title)
    ax.set_xlim(0, lengths[-1] + 3)


def _by_depth(ax: Axes, found: dict[str, Found], length: int, count: int) -> None:
    height = heights(drawn(Dyck(kinds=2), length, count).condition["symbols"], 2)
    deepest = max(d for d in range(1, length // 2 + 1) if (height == d).sum() >= 20 or d == 1)
    for name, part in found.items():
        plots.sweep(ax, range(1, deepest + 1), 100 * part.by_depth[:, :deepest], label=name, color=COLORS[name])
    ax.axhline(50, color=STABLE, lw=0.6, ls=":")
    ax.set(xlabel="brackets open", ylim=(38, 103), title=f"in words of {length}")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 0.15))


def _losses(ax: Axes, found: dict[str, Found]) -> None:
    for name, part in found.items():
        for fit in part.fits:
            loss = np.array([record.loss for record in fit.history])
            every = max(len(loss) // 60, 1)
            smooth = loss[: len(loss) // every * every].reshape(-1, every).mean(1)
            ax.semilogy(every * (np.arange(len(smooth)) + 0.5), smooth, color=COLORS[name], lw=0.7)
    ax.set(xlabel="update", ylabel="cross-entropy of a bit / nats", title="training")


@torch.no_grad()
def _inside(fig: Figure, model: StackRNN, task: Dyck, length: int, count: int) -> None:
    """The deepest word of the test."""
    trials = drawn(task, length, count)
    height = heights(trials.condition["symbols"], task.kinds)
    word = int(height.amax(0).argmax())
    depth = int(height[:, word].max()) + 1
    symbols = trials.condition["symbols"][word : word + 1]
    run_ = ctrnn.integrate(deeper(model, max(length // 2, depth)), trials.us[:, word], dt=1.0)
    traces = analysis.stack_traces(model, run_.xs)
    codes = pushed_codes(traces.pushed[:, 0], symbols, task.kinds)
    ideal = codes[open_brackets(symbols, task.kinds, depth)[:, 0] + 1]
    held, should, said = fig.subplots(3, 1, sharex=True, height_ratios=(1, 1, 0.7))
    plots.vectors(held, traces.contents[:, 0, :depth, 0], limit=1.0)
    held.set(title=f"what the stack holds of a word of {length}, upper cell first", ylabel="cell")
    plots.vectors(should, ideal, limit=1.0)
    should.set(title="the brackets that are open, in the same numbers", ylabel="cell")
    fig.colorbar(held.images[0], ax=[held, should], label="number in the cell", shrink=0.8, pad=0.01)
    for ax in (held, should):
        ax.set_yticks(range(0, depth, 3))
        ax.tick_params(axis="x", length=0)
    for t, symbol in enumerate(symbols[0].tolist()):
        should.text(t + 0.5, depth + 0.3, BRACKETS[symbol], ha="center", va="center", fontsize=6, clip_on=False)
    time = np.arange(length) + 0.5
    for kind, color in zip(range(task.kinds, 2 * task.kinds), (TRAJECTORY, UNSTABLE), strict=True):
        due = trials.targets[:, word, kind] > 0.5
        said.plot(time, torch.sigmoid(run_.ys[:, kind]), color=color, lw=0.8, label=f"said of {BRACKETS[kind]}")
        said.plot(time[due], np.full(int(due.sum()), 1.12), "|", color=color, ms=4)
    said.set(xlabel="time / $\\tau$", ylabel="probability", ylim=(-0.05, 1.25), xlim=(0, length))
    said.set_title("what may close next: said (lines) and right (ticks)")
    said.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


if __name__ == "__main__":
    main(run)
