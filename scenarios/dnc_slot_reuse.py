"""Fifty vectors pass through ten slots: a differentiable neural computer frees what it said, and writes there again.

Claim: trained on series of up to ten sequences of up to five vectors, each to be said before the next comes, a
computer with ten slots copies ten sequences of five; it writes to every slot again and again. The same network fails
after two sequences, when its memory is full, if its free gates are held shut.

Found with this budget: four of five networks copy four sequences, twice what the memory holds, nearly without error,
and write to every slot again and again. In later sequences what is not quite freed adds up, until there is no slot to
be had that is not in use.

Source: Graves et al. (2016), Nature 538:471-476, Extended Data Fig. 1 (ten sequences of five vectors, ten slots). What
is freed is also erased, as in Csordas & Schmidhuber (2019), ICLR, arXiv:1904.10278.
"""

import copy
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Generator, Tensor

import ctrnn
from ctrnn import analysis, learning, plots
from ctrnn.learning import Fitted
from ctrnn.models import DNC, feed_forward
from ctrnn.plots.style import QUIET, STABLE, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import Trials
from ctrnn.tasks.draws import integers
from ctrnn.tasks.scripted import Script, ScriptedBits

GRAVES = "Graves et al. (2016), Nature 538:471-476, Extended Data Fig. 1"
SLOTS, LENGTH, SERIES = 10, 5, 10
ONCE = SLOTS // LENGTH  # sequences that fit into the memory if nothing is freed
SHUT = -40.0  # bias of a gate that is held shut: sigma < 1e-17


@dataclass(frozen=True, kw_only=True)
class CopySeries(ScriptedBits):
    """Sequences one after the other, each followed by a delimiter and the time to say it.

    All trials of a batch have as many sequences of one length. `condition`: `length` and `sequences` (batch,).
    """

    bits: int = 4
    lengths: tuple[int, int] = (1, LENGTH)
    sequences: tuple[int, int] = (1, SERIES)

    @property
    def n_in(self) -> int:
        return self.bits + 1

    @property
    def n_out(self) -> int:
        return self.bits

    def script(self, batch: int, generator: Generator) -> Script:
        """Draw trials."""
        length, count = (int(integers(*span, (1,), generator)) for span in (self.lengths, self.sequences))
        vectors = integers(0, 1, (count, length, batch, self.bits), generator).double()
        shown = torch.zeros(count, 2 * length + 1, batch, self.n_in, dtype=torch.float64)
        shown[:, :length, :, : self.bits] = vectors
        shown[:, length, :, self.bits] = 1
        answers = torch.cat([torch.zeros(count, length + 1, batch, self.bits, dtype=torch.float64), vectors], 1)
        due = torch.zeros(count, 2 * length + 1, batch, dtype=torch.bool)
        due[:, length + 1 :] = True
        end = torch.full((batch,), count * (2 * length + 1))
        return Script(
            shown=shown.flatten(0, 1),
            answers=answers.flatten(0, 1),
            due=due.flatten(0, 1),
            lengths=end,
            phases={"trial": (torch.zeros_like(end), end)},
            condition={"length": torch.full_like(end, length), "sequences": torch.full_like(end, count)},
        )


class Found(NamedTuple):
    """What was found in one trained network, in series of ten sequences of five vectors."""

    fit: Fitted
    wrong: Tensor  # (sequence,) share of wrong bits
    shut: Tensor  # (sequence,) the same with the free gates held shut
    writes: Tensor  # (slot,) writes to each slot in a series, on average
    bounds: float  # how far usage, or the sum of a weighting, leaves [0, 1]
    rebuilt: float  # greatest difference between the memory and what the traces make of it


def run(
    *,
    quick: bool = False,
    seed: int = 0,
    seeds: int = 5,
    units: int = 64,
    width: int = 8,
    updates: int = 800,
    batch: int = 16,
    lr: float = 1e-2,
    trials: int = 32,
) -> Result:
    """Train, test on ten sequences of five vectors, and look at the memory.

    Args:
        quick: one network, too few updates to learn the task.
        seed: of weights and trials; the networks take seed, seed + 1, ...
        seeds: networks.
        units: of the controller, which remembers nothing.
        width: numbers in a slot.
        updates: updates of Adam.
        batch: series in an update.
        lr: learning rate at first; it falls to 0.
        trials: series that are tested.
    """
    if quick:
        seeds, updates, batch, trials = 1, 8, 8, 4
    task = CopySeries()
    test = CopySeries(lengths=(LENGTH, LENGTH), sequences=(SERIES, SERIES)).trials(
        trials, 1.0, Generator().manual_seed(10_000 + seed)
    )
    found = []
    for number in range(seed, seed + seeds):
        fit = learning.fit(
            computer(task, units, width, number),
            task,
            updates=updates,
            batch=batch,
            dt=1.0,
            optimizer=partial(torch.optim.Adam, lr=lr),
            schedule=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=updates),
            clip=10.0,
            seed=number,
            progress=progress(1, f"training network {number}"),
        )
        found.append(examined(fit, test))
    return Result(figure(found, test), claims(found, test))


def computer(task: CopySeries, units: int, width: int, seed: int) -> DNC:
    """A computer with one head that writes and one that reads."""
    draw = Generator().manual_seed(seed)
    controller = feed_forward(units, task.n_in + width, generator=draw)
    return DNC(controller, task.n_out, slots=SLOTS, width=width, deallocating=True, generator=draw)


@torch.no_grad()
def examined(fit: Fitted, test: Trials) -> Found:
    """Errors sequence by sequence, which slots are written, and whether the memory keeps to its equations."""
    model = copy.deepcopy(fit.model).double()
    us = test.us.double()
    run_ = ctrnn.integrate(model, us, dt=1.0)
    traces = analysis.head_traces(model, run_.xs)
    slot = by_phase(traces.write[..., 0, :].argmax(-1))[:, :LENGTH].flatten(0, 1)  # while vectors come in
    sums = torch.cat([traces.usage, traces.write.sum(-1), traces.read.sum(-1)], -1)
    return Found(
        fit,
        wrong_bits(run_.ys, test),
        wrong_bits(ctrnn.integrate(never_freeing(model), us, dt=1.0).ys, test),
        torch.nn.functional.one_hot(slot, SLOTS).sum(0).double().mean(0),
        float(torch.relu(torch.maximum(sums - 1, -sums)).max()),
        rebuilt(model, traces),
    )


def by_phase(values: Tensor) -> Tensor:
    """(time, ...) as (sequence, symbol of it, ...)."""
    return values.unflatten(0, (-1, 2 * LENGTH + 1))


def wrong_bits(ys: Tensor, test: Trials) -> Tensor:
    """The share of wrong bits in each sequence of the series."""
    wrong = by_phase((ys > 0) != (test.targets > 0.5))[:, LENGTH + 1 :]
    return wrong.double().flatten(1).mean(1)


def never_freeing(model: DNC) -> DNC:
    """The same network with its free gates held shut."""
    bound = copy.deepcopy(model)
    sizes = [(model.reads + model.writes) * model.width, model.writes * model.width, model.reads + model.writes]
    first = sum(sizes) + model.writes * model.width  # behind keys, add, strengths and erase
    rows = slice(first, first + model.reads)
    bound.W_heads[rows] = 0
    bound.b_heads[rows] = SHUT
    return bound


def rebuilt(model: DNC, traces: analysis.HeadTraces) -> float:
    """The greatest difference between the memory and what was freed, erased and added, step by step."""
    memory = model.initial_state(traces.usage.shape[1]).memory
    reading = torch.zeros_like(traces.read[0])
    worst = 0.0
    for k, w in enumerate(traces.write):
        kept = 1 - (traces.told.free[k][..., None] * reading).squeeze(-2)
        erase, add = traces.told.erase[k], traces.told.add[k]
        memory = memory * kept[..., None] * (1 - w.mT * erase) + w.mT * add
        worst = max(worst, float((memory - traces.memory[k]).abs().max()))
        reading = traces.read[k]
    return worst


def claims(found: list[Found], test: Trials) -> list[Claim]:
    """What is exact about every network, and what was found over the seeds."""
    n = len(found)
    wrong, shut = (100 * torch.stack([getattr(f, name) for f in found]) for name in ("wrong", "shut"))
    return [
        Claim.equal(
            "greatest difference between the outputs of Euler's steps of tau and of the discrete computer",
            max(between_solvers(f.fit.model, test) for f in found),
            0.0,
            "a step of tau is the discrete network, bit for bit",
        ),
        Claim.below(
            "how far a usage, or the sum of a weighting, leaves [0, 1], in float64",
            max(f.bounds for f in found),
            1e-12,
            "Graves et al. (2016), Methods",
        ),
        Claim.below(
            "greatest difference between the memory and what its head freed, erased and added, in float64",
            max(f.rebuilt for f in found),
            1e-10,
            "Graves et al. (2016), Methods; Csordas & Schmidhuber (2019), arXiv:1904.10278, eq. 6",
        ),
        Claim.equal(
            f"networks of {n} with fewer than 0.1 % of bits wrong in ten sequences of five vectors through ten slots",
            int((wrong.mean(1) < 0.1).sum()),
            n,
            GRAVES,
            "statistical",
        ),
        Claim.below(
            f"median over {n} seeds of the % of bits wrong in the tenth sequence",
            float(wrong[:, -1].median()),
            0.1,
            GRAVES,
            "statistical",
        ),
        Claim.at_least(
            f"median over {n} seeds of the writes to the slot that is written least, of 50 vectors",
            float(np.median([float(f.writes.min()) for f in found])),
            2.0,
            f"{GRAVES}: all slots are used again",
            "statistical",
        ),
        Claim.below(
            f"median over {n} seeds of the % of bits wrong in the first sequence with the free gates held shut",
            float(shut[:, 0].median()),
            1.0,
            "the memory has room for it",
            "statistical",
        ),
        Claim.at_least(
            f"median over {n} seeds of the % of bits wrong from the fourth sequence on with the free gates held shut",
            float(shut[:, ONCE + 1 :].mean(1).median()),
            25.0,
            "ten slots are full after two sequences; 50 % is chance",
            "statistical",
        ),
    ]


@torch.no_grad()
def between_solvers(model: torch.nn.Module, test: Trials) -> float:
    """The greatest difference between outputs of Euler's steps of tau and of the discrete network."""
    flow, discrete = (
        ctrnn.integrate(model, test.us[:, :4], dt=1.0, solver=solver).ys for solver in (ctrnn.Euler(), ctrnn.Iterate())
    )
    return float((flow - discrete).abs().max())


def figure(found: list[Found], test: Trials) -> Figure:
    """One series: what comes and is said, the heads, the usage, the gates. Below: errors, writes, training."""
    best = found[int(torch.stack([f.wrong.mean() for f in found]).argmin())]
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 7.6))
        above, below = fig.subfigures(2, 1, height_ratios=(2.4, 1))
        _inside(above, best, test)
        errors, writes, losses = below.subplots(1, 3)
        _errors(errors, found)
        _writes(writes, found)
        _losses(losses, found)
    return fig


@torch.no_grad()
def _inside(fig: SubFigure, found: Found, test: Trials) -> None:
    us = test.us[:, 0]
    run_ = ctrnn.integrate(found.fit.model, us, dt=1.0)
    traces = analysis.head_traces(found.fit.model, run_.xs)
    axes = fig.subplots(5, 1, sharex=True, height_ratios=(0.55, 0.5, 1.2, 1.2, 0.7))
    plots.vectors(axes[0], us).set_ylabel("input")
    said = torch.where(test.mask[:, :1], torch.sigmoid(run_.ys), 0)
    plots.vectors(axes[1], said).set_ylabel("output")
    plots.heads(axes[2], traces.write[:, 0], traces.read[:, 0]).set_ylabel("slot")
    axes[2].legend(loc="lower left", bbox_to_anchor=(1.0, 0.4))
    plots.weighting(axes[3], traces.usage, cmap="gray_r").set_ylabel("slot: usage")
    told = traces.told
    gates = torch.stack([told.free[:, 0], told.allocate[:, 0], told.write[:, 0]], -1)
    plots.gates(axes[4], gates, ["free", "allocate", "write"]).set(ylabel="gates", xlabel="time / $\\tau$")
    axes[4].legend(loc="lower left", bbox_to_anchor=(1.0, 0.1))
    axes[0].set_title("ten sequences of five vectors, each said before the next comes, through ten slots")


def _errors(ax: Axes, found: list[Found]) -> None:
    place = np.arange(1, SERIES + 1)
    for name, color, values in (
        ("free gates held shut", UNSTABLE, [f.shut for f in found]),
        ("as trained", TRAJECTORY, [f.wrong for f in found]),
    ):
        for k, wrong in enumerate(values):
            ax.plot(place, 100 * wrong, ".-", ms=4, lw=0.7, color=color, label=None if k else name)
    ax.axhline(50, color=STABLE, lw=0.6, ls=":")
    ax.axvline(ONCE + 0.5, color=QUIET, lw=0.8)
    ax.text(ONCE + 0.6, 62, "memory full", fontsize=7, color=QUIET)
    ax.set(xlabel="sequence", ylabel="wrong bits / %", ylim=(-2, 90), title="test, each seed")
    ax.set(xticks=place, yticks=range(0, 51, 10))
    ax.legend(loc="upper right")


def _writes(ax: Axes, found: list[Found]) -> None:
    for f in found:
        ax.plot(range(SLOTS), f.writes, "o-", ms=3, lw=0.6, color=TRAJECTORY)
    ax.axhline(SERIES * LENGTH / SLOTS, color=STABLE, lw=0.6, ls=":")
    ax.set(xlabel="slot", ylabel="vectors written there", title="writes in a series, each seed", xticks=range(SLOTS))
    ax.set_ylim(bottom=0)


def _losses(ax: Axes, found: list[Found]) -> None:
    for f in found:
        loss = np.array([record.loss for record in f.fit.history])
        every = max(len(loss) // 60, 1)
        smooth = loss[: len(loss) // every * every].reshape(-1, every).mean(1)
        ax.semilogy(every * (np.arange(len(smooth)) + 0.5), smooth, color=TRAJECTORY, lw=0.7)
    ax.set(xlabel="update", ylabel="cross-entropy of a bit / nats", title="training, each seed")


if __name__ == "__main__":
    main(run)
