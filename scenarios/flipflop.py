"""A trained 3-bit flip-flop and its fixed points: a continuous-time network and a GRU side by side.

Claim: a network that learned to remember the signs of the last pulses on three channels keeps each of the eight
memories in a stable fixed point, at the corners of a cube in its state space, with saddles between them; a rate network
in continuous time and the discrete GRU alike. How many saddles there are is reported for every seed.

Source: Sussillo & Barak (2013), Neural Computation 25:626 (task and finding, for a rate network). The networks are
tau x' = -x + W_rec tanh(x) + W_in u + b_rec, trained with steps of tau / 2, and torch's GRU, trained with steps of tau.
"""

import copy
from collections.abc import Sequence
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
from ctrnn.models import CTRNN, GRU
from ctrnn.plots.style import INPUT, STABLE, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import FlipFlop, Trials

SUSSILLO = "Sussillo & Barak (2013), Neural Computation 25:626"
CUBE = (8, 12, 6, 1)  # corners, edges, faces, centre


class Architecture(NamedTuple):
    """A kind of network, and how it is trained."""

    name: str
    build: type[CTRNN] | type[GRU]
    dt: float  # in units of tau
    lr: float
    color: str


ARCHITECTURES = (Architecture("CTRNN", CTRNN, 0.5, 5e-3, TRAJECTORY), Architecture("GRU", GRU, 1.0, 1e-2, STABLE))


class Portrait(NamedTuple):
    """What was found in one trained network."""

    fit: Fitted
    points: analysis.FixedPoints  # of the map it was trained as
    flow_speed: Tensor  # (point,) |dx/dt| of the flow at these points
    flow_gap: float  # greatest entry of J_map - (1 + dt J_flow)
    flow_unstable: Tensor  # (point,) unstable directions of the flow
    corners: Tensor  # (point,) output signs as an integer 0..7, -1 for points that are not stable
    edges: list[tuple[int, int]]  # the corners that the two sides of each saddle with one unstable direction lead to

    @property
    def indices(self) -> list[int]:
        """How many points have 0, 1, 2, 3 unstable directions."""
        return [int((self.points.unstable == k).sum()) for k in range(4)]


def run(
    *,
    quick: bool = False,
    seed: int = 0,
    seeds: int = 3,
    units: int = 64,
    updates: int = 400,
    batch: int = 64,
    starts: int = 768,
) -> Result:
    """Train the networks, find their fixed points, and follow each saddle to both sides.

    Args:
        quick: one small network of each kind, too few updates to learn the task well.
        seed: of weights and trials; the networks take seed, seed + 1, ...
        seeds: networks of each kind, trained side by side.
        units: units of each network.
        updates: updates of Adam.
        batch: trials in an update.
        starts: states from which fixed points are searched.
    """
    if quick:
        seeds, units, updates, starts = 1, 24, 100, 128
    task = FlipFlop(bits=3)
    numbers = [seed + k for k in range(seeds)]
    portraits = {}
    for kind in ARCHITECTURES:
        networks = [kind.build(units, 3, 3, generator=Generator().manual_seed(number)) for number in numbers]
        fitted = learning.fit_ensemble(
            networks,
            task,
            updates=updates,
            batch=batch,
            dt=kind.dt,
            optimizer=partial(torch.optim.Adam, lr=kind.lr),
            schedule=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=kind.lr, total_steps=updates),
            clip=1.0,
            seeds=numbers,
            evaluation_batch=256,
            progress=progress(1, f"training {kind.name}s"),
        )
        pairs = zip(fitted, numbers, strict=True)
        portraits[kind] = [portrait(fit, task, kind.dt, number, starts) for fit, number in pairs]
    everything = [claim for kind, found in portraits.items() for claim in claims(kind.name, found)]
    return Result(figure(portraits, task, seed), everything)


@torch.no_grad()
def portrait(fit: Fitted, task: FlipFlop, dt: float, seed: int, starts: int) -> Portrait:
    """Fixed points without input, searched from visited states and from means of two, with some jitter."""
    assert fit.step is not None
    generator = Generator().manual_seed(10_000 + seed)
    visited = ctrnn.integrate(fit.model, task.trials(64, dt, generator).us, dt=dt).xs
    begin = analysis.visited_states(visited, starts, between=0.5, generator=generator)
    points = analysis.fixed_points(fit.step, begin)
    precise = copy.deepcopy(fit.model).double()
    flow = analysis.jacobian(precise, points.x)
    speed = precise(torch.zeros(()), points.x, points.x.new_zeros(3)).norm(dim=-1)
    gap = points.jacobian - (torch.eye(points.x.shape[-1]) + dt * flow)
    unstable = (torch.linalg.eigvals(flow).real >= 0).sum(-1)
    signs = (precise.readout(points.x) > 0).long() @ torch.tensor([1, 2, 4])
    corners = torch.where(points.stable, signs, -1)
    simple = (points.unstable == 1).nonzero()[:, 0].tolist()
    edges = [ends(precise, dt, points, corners, i) for i in simple]
    return Portrait(fit, points, speed, float(gap.abs().amax()) if gap.numel() else 0.0, unstable, corners, edges)


def ends(model: ctrnn.Model, dt: float, points: analysis.FixedPoints, corners: Tensor, i: int) -> tuple[int, int]:
    """The corners reached from both sides of saddle i along its unstable direction; -1 where none is."""
    direction = points.modes().right[i, :, 0].real
    begin = points.x[i] + 0.05 * torch.stack([direction, -direction]) / direction.norm()
    end = ctrnn.integrate(model, None, begin, t_span=(0.0, 400.0), dt=dt, save=ctrnn.Last()).xs[-1]
    distance, nearest = torch.cdist(end, points.x).min(-1)
    reached = torch.where(distance < 1e-3, corners[nearest], -1)
    return int(reached[0]), int(reached[1])


def claims(name: str, portraits: Sequence[Portrait]) -> list[Claim]:
    """What is exact about every network of a kind, and what was found over the seeds."""
    n = len(portraits)
    eight = [sorted(p.corners[p.points.stable].tolist()) == list(range(8)) for p in portraits]
    neighbours = [(a, b) for p in portraits for a, b in p.edges if min(a, b) >= 0 and (a ^ b).bit_count() == 1]
    saddles = sum(len(p.edges) for p in portraits)
    indices = [p.indices for p in portraits]
    changed = sum(int((p.points.unstable != p.flow_unstable).sum()) for p in portraits)
    finer = [
        abs(score["accuracy"] - p.fit.score["accuracy"])
        for p in portraits
        if p.fit.gap
        for score in (p.fit.gap.half, p.fit.gap.adaptive)
        if score
    ]
    return [
        Claim.below(
            f"{name}: greatest speed |step(x) - x| at the fixed points of all networks",
            _greatest([p.points.speed for p in portraits]),
            1e-10,
            "what a fixed point is",
        ),
        Claim.below(
            f"{name}: greatest speed |dx/dt| of the flow at the fixed points of the trained map",
            _greatest([p.flow_speed for p in portraits]),
            1e-10,
            "x = F(x) for both, derived",
        ),
        Claim.below(
            f"{name}: greatest entry of J_map - (1 + dt J_flow) at these points",
            max(p.flow_gap for p in portraits),
            1e-12,
            "an Euler step, derived",
        ),
        Claim.equal(
            f"{name}: points of {sum(map(sum, indices))} with another number of unstable directions in the flow",
            changed,
            0,
            "|1 + dt lambda| < 1 is narrower than Re(lambda) < 0, derived",
            "statistical",
        ),
        Claim.equal(
            f"{name}: networks of {n} with exactly one stable point for each of the 8 memories",
            sum(eight),
            n,
            SUSSILLO,
            "statistical",
        ),
        Claim(
            text=f"{name}: points with 0, 1, 2, 3 unstable directions in each network",
            kind="statistical",
            measured=indices,
            expected="some saddle with one unstable direction; 8, 12, 6, 1 if the cube is complete",
            tolerance=None,
            source=f"{SUSSILLO}; the cube's corners, edges, faces and centre, derived",
            holds=all(row[1] >= 1 for row in indices),
        ),
        Claim.equal(
            f"{name}: saddles of {saddles} with one unstable direction that join two memories differing in one bit",
            len(neighbours),
            saddles,
            "the cube's edges, derived",
            "statistical",
        ),
        Claim.at_least(
            f"{name}: least fraction of bits right on held-out trials",
            min(p.fit.score["accuracy"] for p in portraits),
            0.99,
            SUSSILLO,
            "statistical",
        ),
        Claim.below(
            f"{name}: refinement gap, greatest change of that fraction at dt/2 and with adaptive steps",
            max(finer, default=float("nan")),
            0.01,
            "this package's check of trained networks",
            "statistical",
        ),
    ]


def _greatest(values: list[Tensor]) -> float:
    return float(torch.cat(values).max()) if any(map(len, values)) else float("nan")


def figure(portraits: dict[Architecture, list[Portrait]], task: FlipFlop, seed: int) -> Figure:
    """A trial and the training; below, for each kind, the state space, the spectra and the counts over seeds."""
    first = ARCHITECTURES[0]
    trials = task.trials(24, first.dt, Generator().manual_seed(20_000 + seed))
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 8.0))
        top, spaces, below = fig.subfigures(3, 1, height_ratios=(1.05, 1.95, 0.8))
        left, right = top.subfigures(1, 2)
        _traces(left, trials, _run(portraits[first][0], trials))
        _losses(right.subplots(), portraits)
        for part, (kind, found) in zip(spaces.subfigures(1, 2), portraits.items(), strict=True):
            shown = task.trials(24, kind.dt, Generator().manual_seed(20_000 + seed))
            # Placed by hand: the layout does not know how far labels in three dimensions reach.
            _state_space(
                part.add_axes((-0.01, 0.02, 0.9, 0.86), projection="3d"), kind, found[0], _run(found[0], shown).xs, seed
            )
        axes = below.subplots(1, 4, width_ratios=(1, 0.9, 1, 0.9))
        for pair, (kind, found) in zip((axes[:2], axes[2:]), portraits.items(), strict=True):
            _spectrum(pair[0], kind, found[0])
            _counts(pair[1], kind, found)
    return fig


@torch.no_grad()
def _run(found: Portrait, trials: Trials) -> ctrnn.Trajectory:
    return ctrnn.integrate(found.fit.model, trials.us, dt=trials.dt)


def _traces(fig: SubFigure, trials: Trials, run_: ctrnn.Trajectory) -> None:
    above, trace = fig.subplots(2, 1, height_ratios=(0.55, 1))
    plots.stacked(above, run_.ts, trials.us[:, 0], color=INPUT, drawstyle="steps-pre")
    above.set(ylabel="inputs", yticks=[], title="one held-out trial of a CTRNN")
    above.tick_params(labelbottom=False)
    plots.outputs(trace, run_.ts, run_.ys[:, 0], trials.targets[:, 0], names=["bit 1", "bit 2", "bit 3"])
    trace.set_ylim(-6.6, 4.2)
    trace.legend(ncols=2, loc="upper right")


def _losses(ax: Axes, portraits: dict[Architecture, list[Portrait]]) -> None:
    for kind, found in portraits.items():
        for i, p in enumerate(found):
            name = f"{kind.name} ({len(found)} seeds)" if i == 0 else None
            ax.semilogy([record.loss for record in p.fit.history], color=kind.color, lw=0.5, label=name)
    ax.set(xlabel="update", ylabel="masked squared error", title="training")
    ax.legend(loc="upper right")


def _state_space(ax: Axes, kind: Architecture, found: Portrait, xs: Tensor, seed: int) -> None:
    """Rates in the principal components of the trajectories; the directions of modes go through the rates' slope."""
    rate = torch.tanh if kind.build is CTRNN else lambda x: x
    pca = PCA(3).fit(rate(xs).flatten(0, 1).numpy())
    paths = pca.transform(rate(xs[:, :5]).flatten(0, 1).numpy()).reshape(len(xs), 5, 3)
    plots.trajectories(ax, paths, label="trajectories")
    points = found.points
    if len(points.x):
        at = pca.transform(rate(points.x).numpy())
        slope = 1 - rate(points.x).square() if kind.build is CTRNN else torch.ones_like(points.x)
        modes = points.modes()
        along = pca.components_ @ (slope[..., None] * modes.right).numpy()
        plots.mode_lines(ax, at, along, modes.eigenvalues.numpy(), points.kind, scale=0.45)
        plots.points(ax, at, points.stable, unstable=points.unstable, size=14)
    share = 100 * np.sum(pca.explained_variance_ratio_)
    what = "rates tanh(x)" if kind.build is CTRNN else "states h"
    ax.set_title(f"{kind.name}, seed {seed}: {what} ({share:.0f} % of variance)", pad=21)
    ax.set(xlabel="PC 1", ylabel="PC 2")
    ax.tick_params(pad=-1)
    ax.xaxis.labelpad = ax.yaxis.labelpad = -2
    ax.set_zlabel("PC 3", labelpad=-5)
    ax.locator_params(nbins=4)
    ax.margins(0)
    ax.set_box_aspect(None, zoom=1.0)
    ax.view_init(elev=22, azim=-58)
    ax.legend(loc="upper left", bbox_to_anchor=(0.04, 1.1), ncols=2, handletextpad=0.3, columnspacing=1.0)


def _spectrum(ax: Axes, kind: Architecture, found: Portrait) -> None:
    plots.spectrum(ax, found.points.eigenvalues.numpy(), "map", size=2)
    ax.set(title=f"{kind.name}: map, all points", xlim=(-1.1, 1.7), ylim=(-1.1, 1.1))


def _counts(ax: Axes, kind: Architecture, found: list[Portrait]) -> None:
    """How many points of each index in every network, beside the complete cube's."""
    ax.plot(range(4), CUBE, ls="none", marker="_", ms=16, color=STABLE, label="cube")
    for i, p in enumerate(found):
        shift = 0.16 * (i - (len(found) - 1) / 2)
        ax.plot(np.arange(4) + shift, p.indices, ls="none", marker=".", ms=5, color=UNSTABLE)
    ax.set(title=f"{kind.name}: {len(found)} seeds", xlabel="unstable directions", ylabel="points", xticks=range(4))
    ax.set_ylim(bottom=-0.7)
    ax.legend(loc="upper right", handlelength=1.2)


if __name__ == "__main__":
    main(run)
