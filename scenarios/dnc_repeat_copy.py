"""A differentiable neural computer says a list several times over, going round a ring that it makes of its links.

Claim: trained on lists of up to four vectors, each to be said up to four times, every computer whose controller
remembers nothing says all of them, and then that it is the end. Its read head goes from vector to vector along the
links that remember in which order they were written. It learns less without links, and with a controller that
remembers, which need not learn to use the memory for all that it is told. An LSTM alone learns least.

Found with this budget: two of five computers have fewer than 1 % of bits wrong, all five fewer than 7 %; without links
all have 9 to 14 %, with an LSTM as controller all but one at least 6 %, and LSTMs alone 17 to 18 %. The three computers
with the fewest errors have learned the same trick: when the number comes, the head writes once more at the slot of the
first vector, which closes the links to a ring. In lists of five to eight vectors, longer than any in training, 3 % of
bits are wrong (median); but the computers do not count further than the four repeats that they know.

Source: Graves et al. (2016), Nature 538:471-476; the task is that of Graves, Wayne & Danihelka (2014), arXiv:1410.5401,
section 4.2 and figs. 7 to 9, with lists of 1 to 10 vectors said 1 to 10 times, as it is laid out in the code of the
former (google-deepmind/dnc: lists of 1 or 2 vectors of four bits, said once or twice, 100,000 updates). Here a budget
that a laptop can pay: Adam at a rate of 0.01, and trials of all lengths and numbers in each update.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter
from torch import Generator, Tensor

import ctrnn
from ctrnn import analysis, learning, plots
from ctrnn.dynamics import Model
from ctrnn.learning import Fitted
from ctrnn.models import DNC, LSTM, feed_forward
from ctrnn.plots.style import OUTPUT, QUIET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import RepeatCopy, Trials

GRAVES = "Graves et al. (2016), Nature 538:471-476"
NTM = "Graves, Wayne & Danihelka (2014), arXiv:1410.5401"
TRAINED = 4  # vectors of a list, and repeats of it, at most
LONGEST = 8  # of both in the test
ONLY = 40.0  # logit of a read mode that rules out the others
ROOM = 48  # slots with which the computer is tested as well
FREE, BARE, HOLDING, PLAIN = "DNC", "without links", "DNC, LSTM inside", "LSTM alone"
COLORS = {FREE: TRAJECTORY, BARE: QUIET, HOLDING: OUTPUT, PLAIN: UNSTABLE}
MODES = ("back", "content", "on")


class Found(NamedTuple):
    """What was found in the networks of one kind, one row for each seed."""

    fits: list[Fitted]
    wrong: Float[Tensor, "seed length repeats"]  # share of wrong bits, the end included


class Path(NamedTuple):
    """How the read head of one computer goes through lists that are said."""

    there: float  # share of vectors at whose slot it is, by its largest weight, just before they are said
    along: float  # weight of the mode that goes on along links, from the first vector on
    ring: float  # link from the last vector's slot to the first's when the saying begins


def run(
    *,
    quick: bool = False,
    seed: int = 0,
    seeds: int = 5,
    bits: int = 4,
    units: int = 64,
    slots: int = 24,
    width: int = 8,
    updates: int = 800,
    batch: int = 32,
    lr: float = 1e-2,
    holding_units: int = 32,
    lstm_units: int = 128,
    lstm_lr: float = 3e-3,
    trials: int = 16,
) -> Result:
    """Train computers of three kinds and LSTMs, test them on longer lists and more repeats, and look inside.

    Args:
        quick: one network of each kind, too few updates to learn the task.
        seed: of weights and trials; the networks take seed, seed + 1, ...
        seeds: networks of each kind.
        bits: of a vector.
        units: of the computer's controller, which remembers nothing.
        slots: of its memory in training.
        width: numbers in a slot.
        updates: updates of Adam.
        batch: trials in an update.
        lr: learning rate of the computers at first; all rates fall to 0.
        holding_units: units of a controller that is an LSTM.
        lstm_units: units of the LSTM alone.
        lstm_lr: its learning rate at first.
        trials: trials of each length and number that are tested.
    """
    if quick:
        seeds, updates, batch, trials = 1, 4, 8, 1
    span = (1, TRAINED)
    task = RepeatCopy(bits=bits, lengths=span, repeats=span, start_flag=True, centre=0.0, scale=10.0)

    def computer(number: int, holding: bool = False, links: bool = True) -> DNC:
        draw = Generator().manual_seed(number)
        seen = task.n_in + width
        inside = LSTM(holding_units, seen, generator=draw) if holding else feed_forward(units, seen, generator=draw)
        return DNC(inside, task.n_out, slots=slots, width=width, links=links, generator=draw)

    kinds: dict[str, tuple[Callable[[int], Model], float]] = {
        FREE: (computer, lr),
        BARE: (partial(computer, links=False), lr),
        HOLDING: (partial(computer, holding=True), lr),
        PLAIN: (lambda k: LSTM(lstm_units, task.n_in, task.n_out, generator=Generator().manual_seed(k)), lstm_lr),
    }
    numbers, test = range(seed, seed + seeds), table(task, trials, seed)
    found = {}
    for name, (made, rate) in kinds.items():
        fits = learning.fit_ensemble(
            [made(number) for number in numbers],
            task,
            updates=updates,
            batch=batch,
            dt=1.0,
            optimizer=partial(torch.optim.Adam, lr=rate),
            schedule=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=updates),
            clip=10.0,
            seeds=numbers,
            progress=progress(1, f"training {name}"),
        )
        found[name] = Found(fits, torch.stack([wrong_bits(fit.model, test) for fit in fits]))
    roomy = torch.stack([wrong_bits(roomier(fit.model), test) for fit in found[FREE].fits])
    return Result(figure(found, task), claims(found, roomy, task))


def roomier(model: DNC) -> DNC:
    """The same computer with more slots: no weight knows how many there are."""
    other = DNC(copy.deepcopy(model.controller), model.n_out, slots=ROOM, width=model.width)
    other.load_state_dict(model.state_dict())
    return other.to(model.W_heads.dtype)


def table(task: RepeatCopy, count: int, seed: int) -> list[Trials]:
    """Trials of all lengths and numbers up to LONGEST, `count` of each: those of one length together."""
    draw = Generator().manual_seed(10_000 + seed)
    repeats = torch.arange(1, LONGEST + 1).repeat_interleave(count)
    trials = []
    for length in range(1, LONGEST + 1):
        lists = torch.randint(0, 2, (length, len(repeats), task.bits), generator=draw).double()
        trials.append(task.played(task.of(lists, torch.full_like(repeats, length), repeats), 1.0))
    return [one.to(dtype=torch.get_default_dtype()) for one in trials]


def drawn(task: RepeatCopy, length: int, repeats: int, count: int) -> Trials:
    """Trials of one length and number that nobody has seen in training."""
    draw = Generator().manual_seed(20_000 + LONGEST * length + repeats)
    lists = torch.randint(0, 2, (length, count, task.bits), generator=draw).double()
    sizes = (torch.full((count,), size) for size in (length, repeats))
    return task.played(task.of(lists, *sizes), 1.0).to(dtype=torch.get_default_dtype())


@torch.no_grad()
def wrong_bits(model: Model, test: list[Trials]) -> Float[Tensor, "length repeats"]:
    """The share of wrong bits for each length and number."""
    rows = []
    for trials in test:
        ys = ctrnn.integrate(model, trials.us, dt=1.0).ys
        wrong = ((ys > 0) != (trials.targets > 0.5)).double().mean(-1) * trials.mask
        rows.append((wrong.sum(0) / trials.mask.sum(0)).view(LONGEST, -1).mean(-1))
    return torch.stack(rows)


@torch.no_grad()
def path(model: DNC, task: RepeatCopy) -> Path:
    """How the read head goes through the longest lists of the training."""
    traces = head_traces(model, drawn(task, TRAINED, TRAINED, 32))
    first = TRAINED + 2  # behind the start, the list and the number
    slots = traces.write[1 : TRAINED + 1, :, 0].argmax(-1)
    reading = slice(first - 1, first - 1 + TRAINED**2)  # a symbol before it is said
    at = traces.read[reading, :, 0].argmax(-1)
    begun = traces.link[first - 1, :, 0]
    trial = torch.arange(begun.shape[0])
    return Path(
        float((at == slots.repeat(TRAINED, 1)).double().mean()),
        float(traces.told.modes[reading, :, 0, MODES.index("on")][1:].mean()),
        float(begun[trial, slots[0], slots[-1]].mean()),
    )


@torch.no_grad()
def head_traces(model: DNC, trials: Trials) -> analysis.HeadTraces:
    """What the heads do in these trials."""
    return analysis.head_traces(model, ctrnn.integrate(model, trials.us, dt=1.0).xs)


def claims(found: dict[str, Found], roomy: Tensor, task: RepeatCopy) -> list[Claim]:
    """What is exact about every computer, and what was found over the seeds."""
    computers = [fit.model for fit in found[FREE].fits]
    seen = [inspected(model, task) for model in computers]
    exact = [
        Claim.equal(
            "before training: greatest difference between outputs of a computer without links and of one whose head "
            "does not follow its own, in float64",
            by_content_only(task),
            0.0,
            f"{GRAVES}, Methods: read modes",
        ),
        Claim.equal(
            "greatest difference between the outputs of Euler's steps of tau and of the discrete computer",
            max(between_solvers(model, task) for model in computers),
            0.0,
            "a step of tau is the discrete network, bit for bit",
        ),
        Claim.below(
            "how far a usage, or the sum of a weighting or of a row or column of links, leaves [0, 1], in float64",
            max(one.bounds for one in seen),
            1e-12,
            f"{GRAVES}, Methods",
        ),
        Claim.below(
            "greatest difference between memory and links and those rebuilt from what the head wrote, in float64",
            max(one.rebuilt for one in seen),
            1e-10,
            f"{GRAVES}, Methods",
        ),
    ]
    return [*exact, *_learned(found), *_beyond(found[FREE].wrong, roomy), *_mechanism(computers, task)]


def _learned(found: dict[str, Found]) -> list[Claim]:
    n = len(found[FREE].fits)
    trained = {name: 100 * part.wrong[:, :TRAINED, :TRAINED].mean((1, 2)) for name, part in found.items()}
    sources = {
        BARE: f"{GRAVES}: what links are for",
        HOLDING: "what the controller keeps itself need not be written",
        PLAIN: f"{NTM}, fig. 7: an LSTM learns it later",
    }
    return [
        Claim.equal(
            f"{FREE}: networks of {n} with fewer than 1 % of bits wrong, up to 4 vectors up to 4 times",
            int((trained[FREE] < 1).sum()),
            n,
            f"{NTM}, fig. 7, for a neural Turing machine",
            "statistical",
        ),
        *(
            Claim.at_least(
                f"{name}: median over {n} seeds of the % of bits wrong there",
                float(trained[name].median()),
                1.0,
                source,
                "statistical",
            )
            for name, source in sources.items()
        ),
    ]


def _beyond(wrong: Tensor, roomy: Tensor) -> list[Claim]:
    n, longer, oftener = len(wrong), np.s_[TRAINED:, :TRAINED], np.s_[:TRAINED, TRAINED:]
    return [
        Claim.below(
            f"{FREE}, {slots}: median over {n} seeds of the % of bits wrong in {what}",
            float(100 * part.median(0).values[where].mean()),
            1.0,
            source,
            "statistical",
        )
        for part, slots, where, what, source in (
            (wrong, "slots as in training", longer, "5 to 8 vectors", f"{NTM}, fig. 8: twice as many, few errors"),
            (wrong, "slots as in training", oftener, "5 to 8 repeats", f"{NTM}, fig. 8: all said right but the end"),
            (roomy, f"{ROOM} slots", np.s_[:TRAINED, :TRAINED], "the training's range", f"{GRAVES}: room for more"),
            (roomy, f"{ROOM} slots", longer, "5 to 8 vectors", f"{GRAVES}: room for more"),
        )
    ]


def _mechanism(computers: list[DNC], task: RepeatCopy) -> list[Claim]:
    n = len(computers)
    found = [path(model, task) for model in computers]
    there, along = [
        Claim.at_least(
            f"{FREE}: median over {n} seeds of the share of vectors at whose slot the head reads just before they are "
            f"said, {TRAINED} vectors {TRAINED} times",
            float(np.median([one.there for one in found])),
            0.95,
            f"{GRAVES}: a vector is read where it was written",
            "statistical",
        ),
        Claim.at_least(
            f"{FREE}: median over {n} seeds of how much the read head moves along links while vectors are said",
            float(np.median([one.along for one in found])),
            0.9,
            f"{GRAVES}: what links are for",
            "statistical",
        ),
    ]
    return [
        replace(there, planned="not claimed", reason="it says where the head is when it has not gone astray"),
        replace(along, planned="vectors 3 and 4 alone", reason="the head goes along links from the first vector on"),
        Claim(
            f"{FREE}: in each network the link from the last vector of a list to the first, when the saying begins",
            "statistical",
            [round(one.ring, 3) for one in found],
            "at least 0.4 in each",
            None,
            "a list that is to be said again is a ring",
            min(one.ring for one in found) >= 0.4,
            planned="the read head looks for contents, with a weight of at least 0.9, to come back to vector 1 or 2",
            reason="it was 0.12: the head writes at the first vector's slot once more when the number comes, which "
            "closes the links to a ring, and goes on along them",
        ),
    ]


class Inspected(NamedTuple):
    """How well a trained computer keeps to its equations, in float64."""

    bounds: float
    rebuilt: float


@torch.no_grad()
def inspected(model: DNC, task: RepeatCopy) -> Inspected:
    """Bounds of all that should lie between 0 and 1, and memory and links made anew from what the head wrote."""
    precise = copy.deepcopy(model).double()
    run_ = ctrnn.integrate(precise, drawn(task, TRAINED, TRAINED, 8).us.double(), dt=1.0)
    traces = analysis.head_traces(precise, run_.xs)
    link = traces.link[..., 0, :, :]
    parts = (traces.usage, traces.write.sum(-1), traces.read.sum(-1), traces.precedence.sum(-1), link.sum(-1))
    sums = torch.cat([part.flatten() for part in (*parts, link.sum(-2), link.diagonal(dim1=-2, dim2=-1) * 2)])
    memory = precise.initial_state(8).memory
    order, last = torch.zeros_like(link[0]), torch.zeros_like(traces.write[0, :, 0])
    worst = 0.0
    for w, erased, added, held, linked in zip(
        traces.write[..., 0, :], traces.told.erase, traces.told.add, traces.memory, link, strict=True
    ):
        memory = memory * (1 - w[..., None] * erased) + w[..., None] * added
        order = (1 - w[..., None] - w[..., None, :]) * order + w[..., None] * last[..., None, :]
        order = order * (1 - torch.eye(order.shape[-1], dtype=order.dtype))
        last = (1 - w.sum(-1, keepdim=True)) * last + w
        worst = max(worst, float((memory - held).abs().max()), float((order - linked).abs().max()))
    return Inspected(float(torch.relu(torch.maximum(sums - 1, -sums)).max()), worst)


@torch.no_grad()
def by_content_only(task: RepeatCopy) -> float:
    """What links change where a head looks for contents alone: the difference to the same weights without links."""
    draw = Generator().manual_seed(0)
    linked = DNC(feed_forward(8, task.n_in + 5, generator=draw), task.n_out, slots=6, width=5, generator=draw).double()
    bare = DNC(copy.deepcopy(linked.controller), task.n_out, slots=6, width=5, links=False).double()
    linked.W_heads[-3:], linked.b_heads[-3:] = 0, torch.tensor([-ONLY, ONLY, -ONLY])
    weights = linked.state_dict()
    bare.load_state_dict(weights | {name: weights[name][:-3] for name in ("W_heads", "b_heads")})
    us = drawn(task, 3, 3, 4).us.double()
    return float((ctrnn.integrate(linked, us, dt=1.0).ys - ctrnn.integrate(bare, us, dt=1.0).ys).abs().max())


@torch.no_grad()
def between_solvers(model: DNC, task: RepeatCopy) -> float:
    """The greatest difference between outputs of Euler's steps of tau and of the discrete network."""
    us = drawn(task, TRAINED, TRAINED, 4).us
    flow, discrete = (ctrnn.integrate(model, us, dt=1.0, solver=s).ys for s in (ctrnn.Euler(), ctrnn.Iterate()))
    return float((flow - discrete).abs().max())


def figure(found: dict[str, Found], task: RepeatCopy) -> Figure:
    """Above: inside the best computer. Below: wrong bits by length and repeats (blue frame: trained), and training."""
    trained = found[FREE].wrong[:, :TRAINED, :TRAINED].mean((1, 2))
    best = found[FREE].fits[int(trained.argmin())].model
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 7.2))
        above, below = fig.subfigures(2, 1, height_ratios=(2, 1))
        inside, links = above.subfigures(1, 2, width_ratios=(2.9, 1))
        _inside(inside, best, task)
        _links(links, best, task)
        maps, losses = below.subfigures(1, 2, width_ratios=(2.9, 1))
        _tables(maps, found)
        _losses(losses.subplots(), found)
    return fig


@torch.no_grad()
def _inside(fig: SubFigure, model: DNC, task: RepeatCopy) -> None:
    test = drawn(task, TRAINED, TRAINED, 1)
    us = test.us[:, 0]
    run_ = ctrnn.integrate(model, us, dt=1.0)
    traces = analysis.head_traces(model, run_.xs)
    axes = fig.subplots(5, 1, sharex=True, height_ratios=(0.6, 0.5, 1.5, 0.35, 0.5))
    plots.vectors(axes[0], us).set_ylabel("input")
    said = torch.where(test.mask[:, :1], torch.sigmoid(run_.ys), 0)
    plots.vectors(axes[1], said).set_ylabel("output")
    plots.heads(axes[2], traces.write[:, 0], traces.read[:, 0]).set_ylabel("slot")
    axes[2].legend(loc="lower left")
    plots.weighting(axes[3], traces.told.modes[:, 0], cmap="gray_r").set_ylabel("read\nmode")
    axes[3].set_yticks(range(3), MODES, fontsize=6)
    gates = torch.stack([traces.told.free[:, 0], traces.told.allocate[:, 0], traces.told.write[:, 0]], -1)
    plots.gates(axes[4], gates, ["free", "allocate", "write"]).set(ylabel="gates", xlabel="time / $\\tau$")
    axes[4].legend(loc="upper right", ncols=3, fontsize=6, bbox_to_anchor=(1.0, -0.38))
    for ax in axes:
        for k in range(TRAINED):
            ax.axvline(TRAINED + 2 + k * TRAINED, color=QUIET, lw=0.6, ls=":")
    axes[0].set_title(f"{TRAINED} vectors come once and are said {TRAINED} times over")


@torch.no_grad()
def _links(fig: SubFigure, model: DNC, task: RepeatCopy) -> None:
    link = head_traces(model, drawn(task, TRAINED, TRAINED, 1)).link[:, 0, 0]
    for ax, (k, when) in zip(fig.subplots(2, 1), ((TRAINED, "last vector"), (TRAINED + 1, "number")), strict=True):
        plots.links(ax, link[k]).set_title(f"links, {when}")


def _tables(fig: SubFigure, found: dict[str, Found]) -> None:
    axes = fig.subplots(1, len(found), sharey=True)
    for ax, (name, part) in zip(axes, found.items(), strict=True):
        wrong = 100 * part.wrong.median(0).values.numpy()
        edges = (0.5, LONGEST + 0.5)
        image = ax.imshow(wrong, origin="lower", extent=(*edges, *edges), vmin=0, vmax=50, cmap="magma_r")
        ax.add_patch(Rectangle((0.5, 0.5), TRAINED, TRAINED, fill=False, ec=TRAJECTORY, lw=1.2))
        ax.set(xlabel="repeats", xticks=range(1, LONGEST + 1), yticks=range(1, LONGEST + 1))
        ax.set_title(name, color=COLORS[name])
    axes[0].set_ylabel("vectors of the list")
    fig.colorbar(image, ax=axes, shrink=0.8).set_label("wrong bits / %, median")


def _losses(ax: Axes, found: dict[str, Found]) -> None:
    for name, part in found.items():
        for fit in part.fits:
            loss = np.array([record.loss for record in fit.history])
            every = max(len(loss) // 60, 1)
            smooth = loss[: len(loss) // every * every].reshape(-1, every).mean(1)
            at = every * (np.arange(len(smooth)) + 0.5)
            ax.semilogy(at, smooth, color=COLORS[name], lw=0.7)
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="update", ylabel="cross-entropy of a bit / nats", title="training, each seed")


if __name__ == "__main__":
    main(run)
