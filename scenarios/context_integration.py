"""Selecting and integrating one of two streams of evidence: line attractors and selection vectors.

Claim: networks trained to integrate the stream that a context names hold the evidence, in each context, along one
nearly straight line of slow points with one time constant about as long as the stimulus; the left eigenvector of that
mode, the selection vector, passes the relevant stream's input and is nearly orthogonal to the irrelevant one's, though
both inputs move the state.

Found: so it is where the answer is due as the stimulus ends. With a delay and a go cue the selection is the same, but
the second mode is seldom much faster than the first, and the first is shorter than the stimulus.

Source: Mante, Sussillo, Shenoy & Newsome (2013), Nature 503:78-84. The task without a go cue is the one its networks
were trained on, that with fixation, delay and go cue the animals'; durations and noise are ours. The bound on accuracy
is the ideal observer's, derived.
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor

import ctrnn
from ctrnn import analysis, learning, plots
from ctrnn.analysis import FixedPoints
from ctrnn.learning import Fitted
from ctrnn.models import CTRNN
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, STABLE, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import ContextIntegration, Trials

DT = 0.5  # in units of tau
MANTE = "Mante et al. (2013), Nature 503:78"
STRENGTHS = (0.03, 0.1, 0.3)
CONTEXTS = ("motion", "colour")
SLOW = 0.01  # speed per step up to which a point is slow: it takes a hundred steps to move by 1


class Line(NamedTuple):
    """One network in one context, as the map that it was trained as, without evidence."""

    points: FixedPoints  # slow ones
    roots: FixedPoints
    growth: Tensor  # (2,) of the two slowest modes, medians over the points, in 1/tau
    flow_growth: Tensor  # (2,) the same for the flow at these points
    selected: Tensor  # (2,) |selection . input| of motion and colour, median over the points
    pushed: Tensor  # (2,) |input| of motion and colour
    shifted: Tensor  # (2,) how far a pulse of each has moved the state along the slow mode once the rest has decayed
    straight: float  # variance of the slow points along their first principal axis

    def ratio(self, context: int, values: Tensor) -> float:
        """Of the irrelevant stream over the relevant one."""
        return float(values[1 - context] / values[context])


class Portrait(NamedTuple):
    """One trained network."""

    fit: Fitted
    lines: tuple[Line, Line]


def task(go_cue: bool) -> ContextIntegration:
    """The animals' task, with a delay of random length, or the networks' of the paper."""
    if go_cue:
        return ContextIntegration(coherences=STRENGTHS, delay=(1.0, 4.0))
    return ContextIntegration(coherences=STRENGTHS, stimulus=15.0, response=1.0, grace=0.25, go_cue=False)


def run(
    *, quick: bool = False, seed: int = 0, seeds: int = 5, units: int = 64, updates: int = 800, batch: int = 64
) -> Result:
    """Train networks on both versions of the task and look at each context's slow points.

    Args:
        quick: one small network for each version, hardly trained.
        seed: of weights and trials; the networks take seed, seed + 1, ...
        seeds: networks for each version.
        units: of each network.
        updates: updates of Adam.
        batch: trials in an update.
    """
    if quick:
        seeds, units, updates, batch = 1, 16, 30, 16
    found = []
    report = progress(2, "versions of the task")
    for i, go_cue in enumerate((False, True)):
        found.append(portraits(task(go_cue), [seed + k for k in range(seeds)], units, updates, batch))
        report(i + 1)
    networks, animals = found
    return Result(figure(networks, animals), claims(networks, animals))


def portraits(version: ContextIntegration, numbers: list[int], units: int, updates: int, batch: int) -> list[Portrait]:
    """Networks trained on one version."""
    models = [CTRNN(units, version.n_in, 1, generator=Generator().manual_seed(number)) for number in numbers]
    fitted = learning.fit_ensemble(
        models,
        version,
        updates=updates,
        batch=batch,
        dt=DT,
        optimizer=partial(torch.optim.Adam, lr=3e-3),
        schedule=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=3e-3, total_steps=updates),
        clip=1.0,
        seeds=numbers,
        evaluation_batch=2048,
    )
    return [
        Portrait(fit, (line(fit.model, version, number, 0), line(fit.model, version, number, 1)))
        for fit, number in zip(fitted, numbers, strict=True)
    ]


@torch.no_grad()
def line(model: ctrnn.Model, version: ContextIntegration, seed: int, context: int) -> Line:
    """Slow points, their modes, and what these take up of the two streams."""
    generator = Generator().manual_seed(10_000 + seed)
    trials = version.trials(200, DT, generator)
    run = ctrnn.integrate(model, trials.us, dt=DT)
    begin, end = (round(float(t) / DT) for t in trials.periods["stimulus"][:, 0])
    visited = run.xs[begin:end, trials.condition["context"] == context]
    starts = analysis.visited_states(visited, 384, jitter=0.02, generator=generator)
    u = held(version, context)
    step = ctrnn.Step(model, ctrnn.Euler(), dt=DT)
    points, roots = analysis.fixed_points(step, starts, u, tol=SLOW), analysis.fixed_points(step, starts, u)
    modes = points.modes()
    inputs = analysis.input_jacobian(step, points.x, u.double())[..., :2]
    selection = _unit(modes.left[:, 0])
    flow = analysis.modes(analysis.jacobian(model, points.x, u.double()), "flow")
    return Line(
        points,
        roots,
        modes.growth[:, :2].median(0).values,
        flow.growth[:, :2].median(0).values,
        (selection[:, None] @ inputs.to(selection.dtype)).abs()[:, 0].median(0).values,
        inputs.norm(dim=1).median(0).values,
        pulses(step, points, u, modes),
        float(analysis.principal_axes(points.x, 1).explained) if len(points.x) > 1 else math.nan,
    )


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.abs().square().sum(-1, keepdim=True).sqrt()


def held(version: ContextIntegration, context: int) -> Tensor:
    """The drive in one context without evidence."""
    u = torch.zeros(version.n_in)
    u[2 + context] = 1.0
    if version.go_cue:
        u[4] = 1.0
    return u


def pulses(step: ctrnn.Step, points: FixedPoints, u: Tensor, modes: analysis.Modes) -> Tensor:
    """How far one step of each stream, followed by four time constants of the second mode, moves along the slow mode.

    Beside the same run without it, from a slow point in the middle: the prediction that selection is what counts,
    tested on the nonlinear map.
    """
    middle = points.x[(points.x - points.x.mean(0)).norm(dim=-1).argmin()][None].to(u)
    wait = round(min(200.0, 4 * float(modes.time_constants[:, 1].median().clamp(min=DT)) / DT))
    silent, moved = u.expand(wait, 1, -1), []
    for stream in range(2):
        pulse = silent.clone()
        pulse[0, 0, stream] = 0.5
        after, beside = (
            ctrnn.integrate(step.model, us, middle, dt=DT, save=ctrnn.Last()).xs[-1] for us in (pulse, silent)
        )
        slow = _unit(modes.right[:, :, 0])[0].real.to(u)
        moved.append(float(((after - beside) @ slow).abs()))
    return torch.tensor(moved)


def ideal(version: ContextIntegration) -> float:
    """Greatest fraction right: the mean of Phi(c sqrt(T) / sigma) over the strengths c, of T in white noise."""
    seen = version.stimulus
    return float(np.mean([0.5 * math.erfc(-c * math.sqrt(seen) / version.sigma / math.sqrt(2)) for c in STRENGTHS]))


def claims(networks: list[Portrait], animals: list[Portrait]) -> list[Claim]:
    """For each version of the task."""
    versions = ((task(False), networks, "without go cue"), (task(True), animals, "with go cue"))
    return [claim for version, some, name in versions for claim in _claims(version, some, name)]


def _claims(version: ContextIntegration, some: list[Portrait], name: str) -> list[Claim]:
    n, lines = len(some), [(c, p.lines[c]) for p in some for c in (0, 1)]
    accuracy = [p.fit.score["accuracy"] for p in some]
    ratios = [float(np.mean([p.lines[c].ratio(c, p.lines[c].selected) for c in (0, 1)])) for p in some]
    pushed = [float(np.mean([p.lines[c].ratio(c, p.lines[c].pushed) for c in (0, 1)])) for p in some]
    shifted = [float(np.mean([p.lines[c].ratio(c, p.lines[c].shifted) for c in (0, 1)])) for p in some]
    gap = float(torch.stack([(l.growth - l.flow_growth).abs().max() for _, l in lines]).max())
    return [
        Claim.below(
            f"{name}: greatest accuracy over that of the ideal observer ({ideal(version):.3f}), within sampling error",
            max(accuracy) - 3 * math.sqrt(0.25 / 2048),
            ideal(version),
            "derived: no network sees more than the evidence",
        ),
        Claim.at_least(
            f"{name}: median accuracy over the ideal observer's",
            float(np.median(accuracy)) / ideal(version),
            0.95,
            "planned",
            "statistical",
        ),
        Claim.equal(
            f"{name}: of {2 * n} lines (network, context), those with one mode slower than half of the stimulus and "
            "the next at most half as slow",
            sum(_one_slow(l, version.stimulus) for _, l in lines),
            2 * n,
            "one approximate line attractor per context, " + MANTE,
            "statistical",
        ),
        Claim.below(
            f"{name}: median |leading growth rate| times the stimulus (an eigenvalue of 0 is a perfect line)",
            float(np.median([abs(float(l.growth[0])) * version.stimulus for _, l in lines])),
            1.0,
            "leading eigenvalue near 0, " + MANTE,
            "statistical",
        ),
        Claim.at_least(
            f"{name}: median variance of the slow points along one straight line",
            float(np.median([l.straight for _, l in lines])),
            0.95,
            MANTE,
            "statistical",
        ),
        Claim.below(
            f"{name}: |selection . irrelevant| / |selection . relevant|, median of {n} networks (all: "
            f"{', '.join(f'{r:.2f}' for r in ratios)})",
            float(np.median(ratios)),
            0.2,
            "selection vector nearly orthogonal to the irrelevant input, " + MANTE,
            "statistical",
        ),
        Claim.at_least(
            f"{name}: |irrelevant input| / |relevant input|, median: the irrelevant one is not gated out before",
            float(np.median(pushed)),
            0.5,
            MANTE,
            "statistical",
        ),
        Claim.below(
            f"{name}: shift along the line by a pulse of irrelevant over one of relevant evidence, nonlinear, median",
            float(np.median(shifted)),
            0.2,
            "the same by simulation",
            "statistical",
        ),
        Claim.below(
            f"{name}: greatest difference of a growth rate between the trained map and its flow, in 1/tau",
            gap,
            0.05,
            "planned as a question",
            "statistical",
        ),
    ]


def _one_slow(l: Line, stimulus: float) -> bool:
    first, second = (-1 / float(g) if float(g) < 0 else math.inf for g in l.growth)
    return first > stimulus / 2 and second <= first / 2


def figure(networks: list[Portrait], animals: list[Portrait]) -> Figure:
    """The network of the paper's version with most slow points: choices, states, modes; and the ratios of all."""
    shown = max(networks, key=lambda p: min(len(l.points.x) for l in p.lines))
    version = task(False)
    trials = version.trials(600, DT, Generator().manual_seed(77))
    with torch.no_grad():
        run = ctrnn.integrate(shown.fit.model, trials.us, dt=DT)
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 4.6))
        axes = fig.subplots(2, 3)
        _choices(axes[0, 0], version, run, trials)
        for context in (0, 1):
            _states(axes[0, 1 + context], run, trials, shown.lines[context], context)
        _spectrum(axes[1, 0], shown)
        _time_constants(axes[1, 1], networks, animals)
        _ratios(axes[1, 2], networks, animals)
    return fig


def _choices(ax: Axes, version: ContextIntegration, run: ctrnn.Trajectory, trials: Trials) -> None:
    chosen = version.choices(run, trials)
    for context, ls in ((0, "-"), (1, "--")):
        for stream, color in zip(CONTEXTS, (TRAJECTORY, UNSTABLE), strict=True):
            here = trials.condition["context"] == context
            values = trials.condition[stream][here]
            strengths = values.unique()
            share = [float(chosen[here][values == s].double().mean()) for s in strengths]
            ax.plot(
                strengths, share, ls=ls, marker="o", ms=2.5, color=color, label=f"{stream}, {CONTEXTS[context]} context"
            )
    ax.set(xlabel="coherence", ylabel="fraction of choices +1", title="choices, no go cue", ylim=(-0.02, 1.5))
    ax.legend(fontsize=6, loc="upper left", ncols=1, labelspacing=0.2)


def _states(ax: Axes, run: ctrnn.Trajectory, trials: Trials, found: Line, context: int) -> None:
    here = trials.condition["context"] == context
    relevant = trials.condition[CONTEXTS[context]][here]
    begin = round(float(trials.periods["stimulus"][0, 0]) / DT)
    subspace = analysis.principal_axes(run.xs[begin:, here], 2)
    xs = subspace.project(run.xs[begin:, here].detach())
    for strength in relevant.unique():
        mean = xs[:, relevant == strength].mean(1)
        shade = {-1: OUTPUT, 1: INPUT}[int(strength.sign())]
        name = f"{float(strength):+.1f}" if strength in (relevant.min(), relevant.max()) else None
        ax.plot(*mean.T, color=shade, lw=0.5 + 3 * abs(float(strength)), alpha=0.9, label=name)
    slow = subspace.project(found.points.x)
    ax.plot(*slow.T, ".", ms=2, color=QUIET, label="slow points")
    plots.points(ax, subspace.project(found.roots.x).numpy(), found.roots.stable.numpy(), size=16)
    selection = _unit(found.points.modes().left[:, 0]).real.median(0).values
    arrow, at = subspace.project_directions(selection), slow.mean(0)
    ax.annotate(
        "", (at + 2.5 * arrow).tolist(), at.tolist(), arrowprops={"arrowstyle": "->", "color": STABLE, "lw": 0.9}
    )
    ax.plot([], [], color=STABLE, lw=0.9, label="selection vector")
    ax.set(xlabel="PC 1", ylabel="PC 2", title=f"{CONTEXTS[context]} context, by coherence")
    ax.margins(y=0.55)
    ax.legend(fontsize=6, loc="upper center", ncols=2, columnspacing=0.8, handletextpad=0.4, handlelength=1.2)


def _spectrum(ax: Axes, shown: Portrait) -> None:
    for context, marker in ((0, "o"), (1, "s")):
        values = shown.lines[context].points.eigenvalues[0]
        ax.scatter(
            values.real,
            values.imag,
            s=10,
            marker=marker,
            color=(TRAJECTORY, UNSTABLE)[context],
            label=CONTEXTS[context],
        )
    angle = np.linspace(-np.pi, np.pi, 400)
    ax.plot(np.cos(angle), np.sin(angle), color=QUIET, lw=0.7)
    ax.text(0, -0.88, "unit circle", ha="center", color=QUIET, fontsize=6)
    ax.set(
        xlabel="Re $\\lambda$ of the trained map",
        ylabel="Im $\\lambda$",
        title="modes at the slowest point",
        xlim=(-1.1, 1.1),
        ylim=(-1.1, 1.1),
        aspect="equal",
    )
    ax.legend(
        title="context", fontsize=6, title_fontsize=6, loc="center left", bbox_to_anchor=(0.06, 0.5), handlelength=1.0
    )


def _time_constants(ax: Axes, networks: list[Portrait], animals: list[Portrait]) -> None:
    rows: dict[str, list[float]] = {}
    for name, some in (("no cue", networks), ("go cue", animals)):
        for k, order in enumerate(("1st", "2nd")):
            growth = [float(p.lines[c].growth[k]) for p in some for c in (0, 1)]
            rows[f"{name},\n{order}"] = [min(1e3, -1 / g) if g < 0 else 1e3 for g in growth]
    plots.by_seed(ax, {name: np.log10(values) for name, values in rows.items()}, [TRAJECTORY, QUIET, UNSTABLE, QUIET])
    for version, ls in ((task(False), "--"), (task(True), ":")):
        ax.axvline(math.log10(version.stimulus), color=QUIET, lw=0.8, ls=ls)
    ax.set(xlabel="$\\log_{10}$ time constant / $\\tau$", title="slowest modes; lines: stimulus")


def _ratios(ax: Axes, networks: list[Portrait], animals: list[Portrait]) -> None:
    rows = {}
    for name, some in (("no cue", networks), ("go cue", animals)):
        for kind in ("pushed", "selected", "shifted"):
            rows[f"{name}, {_NAMES[kind]}"] = [
                p.lines[c].ratio(c, getattr(p.lines[c], kind)) for p in some for c in (0, 1)
            ]
    plots.by_seed(ax, rows, [QUIET, TRAJECTORY, INPUT, QUIET, UNSTABLE, OUTPUT])
    ax.axvline(1, color=QUIET, lw=0.8, ls="--")
    ax.set(xlabel="irrelevant / relevant", title="what is passed on", xlim=(0, None))


_NAMES = {"pushed": "input", "selected": "selection", "shifted": "pulse"}


if __name__ == "__main__":
    main(run)
