"""A trained 3-bit flip-flop and its fixed points.

Claim: a rate network that learned to remember the signs of the last pulses on three channels keeps each of the eight
memories in a stable fixed point, at the corners of a cube in its state space, with saddles between them.

Source: Sussillo & Barak (2013), Neural Computation 25:626 (task and finding); the network is
tau x' = -x + W_rec tanh(x) + W_in u + b_rec.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from sklearn.decomposition import PCA
from torch import Generator, Tensor

import ctrnn
from ctrnn import analysis, learning, plots
from ctrnn.learning import Fitted
from ctrnn.models import CTRNN
from ctrnn.plots.style import CYCLE, INPUT
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import FlipFlop, Trials

DT = 0.5  # in units of tau
SUSSILLO = "Sussillo & Barak (2013), Neural Computation 25:626"


class Portrait(NamedTuple):
    """What was found in one trained network.

    The fixed points of the map it was trained as and of its flow, and which saddles join which corners.
    """

    points: analysis.FixedPoints
    flow: analysis.FixedPoints
    corners: Tensor  # (point,) output signs as an integer 0..7, -1 for points that are not stable
    edges: list[tuple[int, int]]  # the corners that the two sides of each saddle with one unstable direction lead to


def run(
    *,
    quick: bool = False,
    seed: int = 0,
    seeds: int = 3,
    units: int = 64,
    updates: int = 800,
    batch: int = 64,
    starts: int = 768,
) -> Result:
    """Train the networks, find their fixed points, and follow each saddle to both sides.

    Args:
        quick: one small network, too few updates to learn the task well.
        seed: of weights and trials; the networks take seed, seed + 1, ...
        seeds: networks, trained side by side.
        units: units of each network.
        updates: updates of Adam.
        batch: trials in an update.
        starts: states from which fixed points are searched.
    """
    if quick:
        seeds, units, updates, starts = 1, 24, 150, 128
    task = FlipFlop(bits=3)
    numbers = [seed + k for k in range(seeds)]
    networks = [CTRNN(units, 3, 3, generator=Generator().manual_seed(number)) for number in numbers]
    fitted = learning.fit_ensemble(
        networks,
        task,
        updates=updates,
        batch=batch,
        dt=DT,
        optimizer=partial(torch.optim.Adam, lr=5e-3),
        schedule=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=5e-3, total_steps=updates),
        clip=1.0,
        seeds=numbers,
        evaluation_batch=256,
        progress=progress(1, "training"),
    )
    portraits = [portrait(fit.model, task, number, starts) for fit, number in zip(fitted, numbers, strict=True)]
    return Result(figure(fitted, portraits, task, seed), claims(fitted, portraits))


@torch.no_grad()
def portrait(model: CTRNN, task: FlipFlop, seed: int, starts: int) -> Portrait:
    """Fixed points without input, searched from visited states with some jitter."""
    generator = Generator().manual_seed(10_000 + seed)
    trials = task.trials(64, DT, generator)
    visited = ctrnn.integrate(model, trials.us, dt=DT).xs.flatten(0, 1)
    chosen = visited[torch.randperm(len(visited), generator=generator)[:starts]]
    # Saddles lie between the visited states: half of the starts are means of two of them.
    half = len(chosen) // 2
    middle = (chosen[:half] + chosen[torch.randperm(len(chosen), generator=generator)[:half]]) / 2
    begin = torch.cat([chosen[half:], middle]) + 0.1 * torch.randn(len(chosen), model.n, generator=generator)
    points = analysis.fixed_points(ctrnn.Step(model, ctrnn.Euler(), dt=DT), begin)
    flow = analysis.fixed_points(model, begin)
    precise = model.from_config(model.config).double()
    precise.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    signs = (precise.readout(points.x) > 0).long() @ torch.tensor([1, 2, 4])
    corners = torch.where(points.stable, signs, -1)
    simple = (points.unstable == 1).nonzero()[:, 0].tolist()
    return Portrait(points, flow, corners, [ends(precise, points, corners, i) for i in simple])


def ends(model: CTRNN, points: analysis.FixedPoints, corners: Tensor, i: int) -> tuple[int, int]:
    """The corners reached from both sides of saddle i along its unstable direction; -1 where none is."""
    values, vectors = torch.linalg.eig(points.jacobian[i])
    direction = vectors[:, values.abs().argmax()].real
    begin = points.x[i] + 0.05 * torch.stack([direction, -direction]) / direction.norm()
    end = ctrnn.integrate(model, None, begin, t_span=(0.0, 400.0), dt=DT, save=ctrnn.Last()).xs[-1]
    distance, nearest = torch.cdist(end, points.x).min(-1)
    reached = torch.where(distance < 1e-3, corners[nearest], -1)
    return int(reached[0]), int(reached[1])


def claims(fitted: list[Fitted], portraits: list[Portrait]) -> list[Claim]:
    """What is exact about every network, and what was found over the seeds."""
    n = len(portraits)
    speeds = [float(p.points.speed.max()) if len(p.points.x) else float("nan") for p in portraits]
    apart = [
        float(torch.cdist(p.points.x, p.flow.x).min(-1).values.max()) if len(p.flow.x) else float("nan")
        for p in portraits
    ]
    eight = [sorted(p.corners[p.points.stable].tolist()) == list(range(8)) for p in portraits]
    indices = [[int((p.points.unstable == k).sum()) for k in range(4)] for p in portraits]
    neighbours = [(a, b) for p in portraits for a, b in p.edges if min(a, b) >= 0 and (a ^ b).bit_count() == 1]
    saddles = sum(len(p.edges) for p in portraits)
    accuracies = [fit.score["accuracy"] for fit in fitted]
    finer = [
        abs(score["accuracy"] - fit.score["accuracy"])
        for fit in fitted
        if fit.gap
        for score in (fit.gap.half, fit.gap.adaptive)
        if score
    ]
    return [
        Claim.below(
            "greatest speed |step(x) - x| at the fixed points of all networks",
            max(speeds),
            1e-10,
            "what a fixed point is",
        ),
        Claim.below(
            "greatest distance from a fixed point of the trained map to one of the flow",
            max(apart),
            1e-6,
            "x = F(x) for both, derived",
        ),
        Claim.equal(
            f"networks of {n} with exactly one stable point for each of the 8 memories",
            sum(eight),
            n,
            SUSSILLO,
            "statistical",
        ),
        Claim.at_least(
            "least number of saddles with one unstable direction in a network",
            min(row[1] for row in indices),
            1,
            SUSSILLO,
            "statistical",
        ),
        Claim(
            text="points by number of unstable directions (0, 1, 2, 3) in each network",
            kind="statistical",
            measured=indices,
            expected="8, 12, 6, 1 if the cube is complete",
            tolerance=None,
            source="the cube's corners, edges, faces and centre, derived",
            holds=all(row == [8, 12, 6, 1] for row in indices),
        ),
        Claim.equal(
            f"saddles of {saddles} with one unstable direction that join two memories differing in one bit",
            len(neighbours),
            saddles,
            "the cube's edges, derived",
            "statistical",
        ),
        Claim.at_least(
            "least fraction of bits right on held-out trials", min(accuracies), 0.99, SUSSILLO, "statistical"
        ),
        Claim.below(
            "refinement gap: greatest change of that fraction at dt/2 and with adaptive steps",
            max(finer, default=float("nan")),
            0.01,
            "this package's check of trained networks",
            "statistical",
        ),
    ]


def figure(fitted: list[Fitted], portraits: list[Portrait], task: FlipFlop, seed: int) -> Figure:
    """A trial, the state space with its fixed points, the spectra at them, and the loss."""
    model, found = fitted[0].model, portraits[0]
    trials = task.trials(24, DT, Generator().manual_seed(20_000 + seed))
    with torch.no_grad():
        run_ = ctrnn.integrate(model, trials.us, dt=DT)
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 5.4))
        left, right = fig.subfigures(1, 2, width_ratios=(1, 1.35))
        above, trace, loss = left.subplots(3, 1, height_ratios=(0.55, 1, 0.8))
        _traces(above, trace, trials, run_)
        for i, fit in enumerate(fitted):
            loss.semilogy(
                [record.loss for record in fit.history], color=CYCLE[i % len(CYCLE)], lw=0.6, label=f"seed {seed + i}"
            )
        loss.set(xlabel="update", ylabel="masked squared error", title="training")
        loss.legend(ncols=3, loc="upper right", handlelength=1.0)
        space, spectra = right.subfigures(2, 1, height_ratios=(2.1, 1))
        _state_space(space.add_subplot(projection="3d"), run_.xs, found, seed)
        _spectra(spectra, found)
    return fig


def _traces(above: Axes, trace: Axes, trials: Trials, run_: ctrnn.Trajectory) -> None:
    plots.stacked(above, run_.ts, trials.us[:, 0], color=INPUT, drawstyle="steps-pre")
    above.set(ylabel="inputs", yticks=[], title="one held-out trial")
    above.tick_params(labelbottom=False)
    plots.outputs(trace, run_.ts, run_.ys[:, 0], trials.targets[:, 0], names=["bit 1", "bit 2", "bit 3"])
    trace.set_ylim(-6.6, 2.9)
    trace.legend(ncols=2, loc="upper right")


def _state_space(ax: Axes, xs: Tensor, found: Portrait, seed: int) -> None:
    rates = torch.tanh(xs)
    pca = PCA(3).fit(rates.flatten(0, 1).numpy())
    paths = pca.transform(rates[:, :10].flatten(0, 1).numpy()).reshape(len(rates), 10, 3)
    plots.trajectories(ax, paths, label="trajectories")
    if len(found.points.x):
        plots.points(ax, pca.transform(torch.tanh(found.points.x).numpy()), found.points.stable.numpy())
    share = 100 * np.sum(pca.explained_variance_ratio_)
    ax.set(xlabel="PC 1", ylabel="PC 2", title=f"rates tanh(x) of seed {seed}'s network ({share:.0f} % of variance)")
    ax.yaxis.labelpad = 4
    ax.set_zlabel("PC 3", labelpad=3)
    ax.locator_params(nbins=4)
    ax.set_box_aspect(None, zoom=0.86)
    ax.view_init(elev=22, azim=-58)
    ax.legend(loc="upper left", bbox_to_anchor=(-0.1, 0.98))


def _spectra(fig: SubFigure, found: Portrait) -> None:
    axes = fig.subplots(1, 2, sharey=True)
    for ax, stable, title in ((axes[0], True, "at the stable points"), (axes[1], False, "at the saddles")):
        values = found.points.eigenvalues[found.points.stable == stable]
        plots.spectrum(ax, values.numpy(), "map", size=3)
        ax.set(title=f"eigenvalues {title}", xlim=(-0.1, 1.3), ylim=(-0.6, 0.6), aspect="auto")


if __name__ == "__main__":
    main(run)
