"""Do networks that learned the same task move alike, and more alike within an architecture?

Claim: of networks of four architectures trained on one flip-flop, those of one architecture have dynamics nearer to one
another than to those of another architecture, by dynamical similarity analysis; the geometry of their states alone
parts the architectures less.

Found: the first holds, the second does not; geometry parts them as well, and they differ before training already.

Source: Ostrow, Eisen, Kozachkov & Fiete (2023), Beyond geometry, NeurIPS 36 (the distance, and that it parts dynamics
where geometry does not); Maheswaranathan et al. (2019), NeurIPS 32 (architectures differ in geometry while fixed points
agree); Kornblith et al. (2019), ICML 36 (centred kernel alignment); Sussillo & Barak (2013), Neural Computation 25:626.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.manifold import MDS
from torch import Generator, Tensor

import ctrnn
from ctrnn import analysis, learning, plots
from ctrnn.analysis import LinearDynamics, PermutationTest
from ctrnn.models import CTRNN, GRU, LSTM, MTRNN
from ctrnn.plots.style import QUIET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import FlipFlop

DT = 0.5  # in units of the rate networks' tau; the GRU and the LSTM have tau = dt: they are the discrete networks
OSTROW = "Ostrow et al. (2023), NeurIPS 36"
RANKS = (2, 4, 6, 8, 12, 16)


class Network(NamedTuple):
    """One network, before or after training."""

    kind: str
    states: Tensor  # (time, trial, D) on the same trials for all
    dynamics: LinearDynamics
    accuracy: float


class Distances(NamedTuple):
    """Between all pairs of networks."""

    dynamics: Tensor  # angle of the Procrustes distance over operators
    spectra: Tensor  # Wasserstein distance of eigenvalues
    geometry: Tensor  # 1 - centred kernel alignment


def architectures(units: int) -> dict[str, Callable[[Generator], ctrnn.Model]]:
    """How a network of each kind is built; the LSTM has as many numbers in its state."""
    half = units // 2
    return {
        "CTRNN": lambda g: CTRNN(units, 2, 2, generator=g),
        "MTRNN": lambda g: MTRNN({"fast": (half, 1.0), "slow": (units - half, 5.0)}, 2, 2, generator=g),
        "GRU": lambda g: GRU(units, 2, 2, tau=DT, generator=g),
        "LSTM": lambda g: LSTM(half, 2, 2, tau=DT, generator=g),
    }


def run(
    *,
    quick: bool = False,
    seed: int = 0,
    seeds: int = 5,
    units: int = 48,
    updates: int = 600,
    rank: int = 8,
    delays: int = 2,
) -> Result:
    """Train every architecture from several seeds, fit an operator to each network and compare all of them.

    Args:
        quick: few small networks and updates.
        seed: of weights and trials; the networks of each kind take seed, seed + 1, ...
        seeds: networks of each kind.
        units: numbers in the state of each.
        updates: updates of Adam.
        rank: of the linear operators.
        delays: samples in an embedded state.
    """
    if quick:
        seeds, units, updates, rank = 2, 12, 15, 3
    task = FlipFlop(bits=2)
    kinds = architectures(units)
    report = progress(len(kinds) + 1, "networks")
    trained: list[Network] = []
    fresh: list[Network] = []
    for i, (kind, build) in enumerate(kinds.items()):
        after, before = networks(kind, build, task, [seed + k for k in range(seeds)], updates, rank, delays)
        trained, fresh = trained + after, fresh + before
        report(i + 1)
    distances = [compare(some) for some in (trained, fresh)]
    groups = [network.kind for network in trained]
    errors = {
        r: [analysis.linear_dynamics(n.states, r, delays=delays).error for n in trained]
        for r in RANKS
        if r <= units // 2
    }
    report(len(kinds) + 1)
    return Result(
        figure(distances[0], groups, errors, rank), claims(trained, distances[0], distances[1], groups, delays)
    )


def networks(
    kind: str,
    build: Callable[[Generator], ctrnn.Model],
    task: FlipFlop,
    numbers: list[int],
    updates: int,
    rank: int,
    delays: int,
) -> tuple[list[Network], list[Network]]:
    """The networks of one kind after training, and as they were drawn."""
    drawn = [build(Generator().manual_seed(number)) for number in numbers]
    fitted = learning.fit_ensemble(
        drawn,
        task,
        updates=updates,
        batch=32,
        dt=DT,
        optimizer=partial(torch.optim.Adam, lr=5e-3),
        schedule=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=5e-3, total_steps=updates),
        clip=1.0,
        seeds=numbers,
        evaluation_batch=128,
    )
    trials = task.trials(48, DT, Generator().manual_seed(9_999))

    @torch.no_grad()
    def network(model: ctrnn.Model, accuracy: float) -> Network:
        states = analysis.ravelled(ctrnn.integrate(model, trials.us, dt=DT).xs)
        return Network(kind, states, analysis.linear_dynamics(states, rank, delays=delays), accuracy)

    after = [network(cast(ctrnn.Model, fit.model), fit.score["accuracy"]) for fit in fitted]
    return after, [network(model, math.nan) for model in drawn]


def compare(some: list[Network]) -> Distances:
    """All pairs, three ways."""
    n = len(some)
    dynamics, spectra, geometry = torch.zeros(3, n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(i):
            A, B = some[i].dynamics.A, some[j].dynamics.A
            dynamics[i, j] = dynamics[j, i] = analysis.procrustes_distance(A, B, restarts=6, iterations=500).angle
            spectra[i, j] = spectra[j, i] = analysis.spectral_distance(A, B)
            geometry[i, j] = geometry[j, i] = 1 - alignment(some[i].states, some[j].states)
    return Distances(dynamics, spectra, geometry)


def alignment(a: Tensor, b: Tensor) -> float:
    """Linear centred kernel alignment, |X' Y|^2 / (|X' X| |Y' Y|)."""
    X, Y = (rows - rows.mean(0) for rows in (states.flatten(0, 1).double() for states in (a, b)))
    return float((X.mT @ Y).square().sum() / ((X.mT @ X).norm() * (Y.mT @ Y).norm()))


def nearest(distances: Tensor, groups: list[str]) -> int:
    """How many networks have their nearest neighbour in their own group."""
    apart = distances + torch.diag(torch.full((len(groups),), torch.inf, dtype=distances.dtype))
    return sum(groups[int(j)] == groups[i] for i, j in enumerate(apart.argmin(1)))


def groups_test(distances: Tensor, groups: list[str]) -> PermutationTest:
    """Within against between groups."""
    names = sorted(set(groups))
    return analysis.permutation_test(distances, [names.index(group) for group in groups])


def claims(
    trained: list[Network], distances: Distances, fresh: Distances, groups: list[str], delays: int
) -> list[Claim]:
    """What the distance must be blind to, and what it told."""
    first = trained[0]
    turn, _ = torch.linalg.qr(
        torch.randn(
            first.states.shape[-1], first.states.shape[-1], generator=Generator().manual_seed(1), dtype=torch.float64
        )
    )
    rotated = analysis.linear_dynamics(first.states.double() @ turn.double(), len(first.dynamics.A), delays=delays)
    found = {name: groups_test(getattr(distances, name), groups) for name in Distances._fields}
    before = groups_test(fresh.dynamics, groups)
    n, chance = len(groups), (groups.count(groups[0]) - 1) / (len(groups) - 1)
    ratio = {name: result.between / result.within for name, result in found.items()}
    return [
        Claim.below(
            "a network in rotated coordinates: distance of its dynamics to its own",
            analysis.procrustes_distance(first.dynamics.A, rotated.A).distance,
            1e-4,
            "invariance of the distance, " + OSTROW,
        ),
        Claim.at_least(
            "least fraction of bits right on held-out trials",
            min(k.accuracy for k in trained),
            0.98,
            "planned",
            "statistical",
        ),
        Claim.below(
            f"p of 'dynamics are nearer within an architecture' (within {found['dynamics'].within:.3f}, between "
            f"{found['dynamics'].between:.3f} rad), permutation test",
            found["dynamics"].p,
            0.01,
            OSTROW,
            "statistical",
        ),
        Claim.at_least(
            f"networks of {n} whose nearest neighbour in dynamics is of their kind (by chance {n * chance:.1f})",
            nearest(distances.dynamics, groups),
            n,
            OSTROW,
            "statistical",
        ),
        Claim.below(
            f"p of the same for eigenvalues alone (within {found['spectra'].within:.3f}, between "
            f"{found['spectra'].between:.3f})",
            found["spectra"].p,
            0.01,
            OSTROW,
            "statistical",
        ),
        Claim.below(
            f"p of the same for geometry, 1 - CKA (within {found['geometry'].within:.3f}, between "
            f"{found['geometry'].between:.3f})",
            found["geometry"].p,
            0.01,
            "Maheswaranathan et al. (2019), NeurIPS 32",
            "statistical",
        ),
        Claim.at_least(
            f"between / within of dynamics over that of geometry ({ratio['dynamics']:.2f}, {ratio['geometry']:.2f})",
            ratio["dynamics"] / ratio["geometry"],
            1.0,
            OSTROW,
            "statistical",
        ),
        Claim.at_least(
            f"between / within of dynamics after training over that before ({ratio['dynamics']:.2f}, "
            f"{before.between / before.within:.2f}): training does not wipe out the architecture",
            ratio["dynamics"] / (before.between / before.within),
            1.0,
            "planned as a question",
            "statistical",
        ),
        Claim.below(
            "greatest held-out one-step error of an operator over that of 'nothing changes'",
            max(k.dynamics.error / k.dynamics.persistence for k in trained),
            1.0,
            "what a model of the dynamics is for",
            "statistical",
        ),
    ]


def figure(distances: Distances, groups: list[str], errors: dict[int, list[float]], rank: int) -> Figure:
    """Matrices, scaling, distributions, and the choice of the rank."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 4.4))
        axes = fig.subplots(2, 3)
        plots.distance_matrix(axes[0, 0], distances.dynamics, groups, label="angle / rad").set_title("dynamics")
        plots.distance_matrix(axes[1, 0], distances.geometry, groups, label="1 - CKA").set_title("geometry")
        _plane(axes[0, 1], distances.dynamics, groups, "dynamics, scaled to a plane", " / rad")
        _plane(axes[1, 1], distances.geometry, groups, "geometry, scaled to a plane", "")
        axes[0, 1].legend(loc="best", fontsize=6, handletextpad=0.2)
        _within_and_between(axes[0, 2], distances, groups)
        _ranks(axes[1, 2], errors, rank)
    return fig


def _plane(ax: Axes, distances: Tensor, groups: list[str], title: str, unit: str) -> None:
    places = MDS(2, metric="precomputed", n_init=8, init="random", random_state=0).fit_transform(distances.numpy())
    plots.by_group(ax, places, groups, names=(f"MDS 1{unit}", f"MDS 2{unit}")).set_title(title)


def _within_and_between(ax: Axes, distances: Distances, groups: list[str]) -> None:
    i, j = np.triu_indices(len(groups), 1)
    same = np.array([groups[a] == groups[b] for a, b in zip(i, j, strict=True)])
    for row, name in enumerate(Distances._fields):
        values = getattr(distances, name).numpy()[i, j]
        values = values / values.mean()
        for part, color, shift, label in ((same, TRAJECTORY, -0.15, "within"), (~same, UNSTABLE, 0.15, "between")):
            spread = np.random.default_rng(0).uniform(-0.07, 0.07, part.sum())
            ax.plot(values[part], row + shift + spread, ".", ms=2, color=color, alpha=0.6, label=None if row else label)
            ax.plot([values[part].mean()] * 2, [row + shift - 0.12, row + shift + 0.12], color="black", lw=1.5)
        ax.text(1.0, row - 0.36, f"p = {groups_test(getattr(distances, name), groups).p:.4f}", fontsize=6, ha="center")
    ax.set_yticks(range(3), Distances._fields)
    ax.set(xlabel="distance / mean", title="within and between groups", ylim=(3.2, -0.6))
    ax.legend(loc="lower right", fontsize=6, markerscale=3, frameon=True, edgecolor="none")


def _ranks(ax: Axes, errors: dict[int, list[float]], rank: int) -> None:
    values = np.array(list(errors.values()))
    ax.plot(list(errors), values, color=QUIET, lw=0.5)
    ax.plot(list(errors), np.median(values, 1), "o-", ms=3, color=TRAJECTORY, label="median")
    ax.axvline(rank, color=UNSTABLE, ls="--", lw=0.8, label="rank taken")
    ax.set(xlabel="rank of the operator", ylabel="held-out one-step error", title="choice of the rank", ylim=(0, None))
    ax.legend()


if __name__ == "__main__":
    main(run)
