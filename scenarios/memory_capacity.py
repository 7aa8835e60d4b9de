"""How much a reservoir remembers: short-term memory capacity, and what it costs to compute with it.

Claim: of independent inputs a network of N units lets a linear readout remember at most N; every linear network
reaches N exactly, at any step dt / tau, if its input reaches every mode: the forgetting curve is one of its eigenvalues
alone. A ring or a delay line shows that in a measurement; of a random matrix much is lost to rounding. Units that
saturate remember less, the less the stronger their input. They also compute: NARMA10 is foretold better than by any sum
of past inputs. That this would cost memory was expected and not found: the states are read without noise, and what
little a weak input bends them is read off as well, so that the weakest input is best at both. Products of pairs of past
inputs, without any cycle, do better still. Memory belongs to a step: in time, and where samples last tau in samples
too, the same network remembers less in finer steps.

Capacity: the sum over lags of the squared correlation between the input then and the best linear readout now, fitted
and judged on different samples. Lag 0 counts, the input being seen through the units alone.

Source: Jaeger (2001), Short term memory in echo state networks, GMD Report 152; Rodan & Tino (2011), IEEE Transactions
on Neural Networks 22:131-144 (rings, delay lines); Atiya & Parlos (2000), same journal 11:697-709 (NARMA10).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor

from ctrnn import EchoState, Fixed, init, integrate, plots
from ctrnn.analysis import Memory, linear_memory, memory_capacity
from ctrnn.learning import fit_readout, ridge
from ctrnn.models.activations import identity
from ctrnn.plots.style import INPUT, QUIET, STABLE, TARGET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import NARMA

JAEGER = "Jaeger (2001), GMD Report 152"
PEER = "reservoirpy 0.4.2, example of memory_capacity"
UNITS = 100
LAST = 0.1  # what a ring still knows of an input after one turn and before the next: w^(2 N)
LINE, RING, TURN, RANDOM, TANH = "delay line", "ring", "random rotation", "random, linear", "random, tanh"
COLORS = dict(zip((LINE, RING, TURN, RANDOM, TANH), (QUIET, TRAJECTORY, INPUT, TARGET, UNSTABLE), strict=True))
SHADES = (INPUT, TRAJECTORY, UNSTABLE)


class Scan(NamedTuple):
    """What was measured, for every seed (first axis)."""

    sizes: Mapping[str, np.ndarray]  # capacity (seed, size)
    radii: Mapping[float, np.ndarray]  # input scale -> capacity (seed, radius)
    scales: np.ndarray  # capacity (seed, scale)
    narma: np.ndarray  # test NRMSE on NARMA10 (seed, scale)
    windows: np.ndarray  # test NRMSE of sums of 30 past inputs, and of their products too (seed, 2)
    sampled: np.ndarray  # capacity with samples of dt (seed, dt)
    held: np.ndarray  # (seed, dt, lag): shares with samples of tau, network in steps dt
    peer: np.ndarray  # capacity by the peer's recipe, (seed, its 450 samples or ours)


class Sizes(NamedTuple):
    """What is varied."""

    units: tuple[int, ...] = (10, 20, 50, 100, 200)
    radii: tuple[float, ...] = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
    strengths: tuple[float, ...] = (0.01, 0.1, 1.0)
    scales: tuple[float, ...] = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)
    steps: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)
    samples: int = 10_000
    held_out: int = 4000


SMALL = Sizes((10, 20), (0.5, 0.9), (0.1, 1.0), (0.03, 0.3), (1.0, 0.5), 2600, 1000)
WIDE = 30  # samples in the windows on NARMA10
LAGS = 100  # of networks that saturate


def run(*, quick: bool = False, seed: int = 0, seeds: int = 3) -> Result:
    """Measure capacities and solve NARMA10, over sizes, radii, input scales and steps.

    Args:
        quick: one seed, a few small networks, few samples.
        seed: of weights and inputs; seed, seed + 1, ...
        seeds: how many.
    """
    sizes, seeds = (SMALL, 1) if quick else (Sizes(), seeds)
    report = progress(seeds, "measuring")
    scans = []
    for k in range(seeds):
        scans.append(scan(seed + k, sizes))
        report(k + 1)
    found = joined(scans)
    curves = forgetting(seed, sizes)
    claims = [
        *identities(seed, curves),
        *of_linear(found, curves, sizes),
        *of_saturating(found, sizes),
        *of_narma(found, sizes),
        *of_steps(found, sizes),
    ]
    return Result(figure(found, curves, sizes), claims)


def joined(scans: Sequence[Scan]) -> Scan:
    """All seeds in one."""

    def stack(parts: Sequence) -> object:
        if isinstance(parts[0], Mapping):
            return {key: np.stack([part[key] for part in parts]) for key in parts[0]}
        return np.stack(parts)

    return Scan(*map(stack, zip(*scans, strict=True)))


def noise(n: int, seed: int) -> Tensor:
    """Independent inputs, uniform in [-1, 1)."""
    return 2 * torch.rand(n, 1, generator=Generator().manual_seed(seed + 7000), dtype=torch.float64) - 1


def saturating(seed: int, n: int = UNITS, *, radius: float = 0.9, scale: float = 0.1) -> EchoState:
    """A random network of tanh units with small random biases, which make it respond to products of inputs."""
    return EchoState(
        n,
        1,
        1,
        radius=radius,
        input_scale=scale,
        bias_scale=0.2,
        generator=Generator().manual_seed(seed),
    ).double()


def linear(W: Tensor, w: Tensor) -> EchoState:
    """A network of linear units."""
    net = EchoState(len(W), 1, activation=identity, radius=0.0, generator=Generator()).double()
    net.W_rec.data, net.W_in.data = W, w
    return net


def matrices(n: int, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Recurrent and input weights of the linear networks; what turns forgets as the ring does."""
    weight, first = LAST ** (1 / (2 * n)), torch.eye(n, 1, dtype=torch.float64)
    draw = Generator().manual_seed(seed)
    spread = torch.randn(n, 1, generator=draw, dtype=torch.float64)
    return {
        LINE: (init.delay_line(n, dtype=torch.float64), first),
        RING: (init.ring(n, weight, dtype=torch.float64), first),
        TURN: (init.orthogonal(n, weight, generator=draw, dtype=torch.float64), spread),
        RANDOM: (init.spectral_radius(n, 0.95, generator=draw, dtype=torch.float64), spread),
    }


def measured(
    net: EchoState, seed: int, sizes: Sizes, *, lags: int = LAGS, dt: float = 1.0, step: float | None = None
) -> Memory:
    """The memory of a network for the samples of this seed."""
    washout = max(400, 2 * lags)
    us, steps = noise(sizes.samples + washout, seed), None if step is None else Fixed(step)
    return memory_capacity(net, us, dt=dt, lags=lags, steps=steps, washout=washout, held_out=sizes.held_out)


def forgetting(seed: int, sizes: Sizes) -> dict[str, tuple[Tensor, Tensor | None]]:
    """For each network of the largest scale the measured shares, and those that follow from its eigenvalues."""
    n = sizes.units[-2] if len(sizes.units) > 2 else sizes.units[-1]
    curves: dict[str, tuple[Tensor, Tensor | None]] = {}
    for name, (W, w) in matrices(n, seed).items():
        lags = 3 * n
        exact = linear_memory(torch.linalg.eigvals(W), lags).share
        curves[name] = measured(linear(W, w), seed, sizes, lags=lags).share, exact
    curves[TANH] = measured(saturating(seed, n), seed, sizes, lags=3 * n).share, None
    return curves


def scan(seed: int, sizes: Sizes) -> Scan:
    """Everything, for one seed."""
    of_size: dict[str, list[float]] = {name: [] for name in COLORS}
    for n in sizes.units:
        nets = {name: linear(W, w) for name, (W, w) in matrices(n, seed).items()} | {TANH: saturating(seed, n)}
        for name, net in nets.items():
            of_size[name].append(measured(net, seed, sizes, lags=3 * n).capacity)
    radii = {
        scale: np.array([measured(saturating(seed, radius=r, scale=scale), seed, sizes).capacity for r in sizes.radii])
        for scale in sizes.strengths
    }
    us, targets, register, products = narma(seed, sizes)
    nets = [saturating(seed, scale=scale) for scale in sizes.scales]
    return Scan(
        {name: np.array(capacities) for name, capacities in of_size.items()},
        radii,
        np.array([measured(net, seed, sizes).capacity for net in nets]),
        np.array([solved(net, us, targets, sizes) for net in nets]),
        np.array([register, products]),
        np.array([measured(saturating(seed), seed, sizes, dt=dt).capacity for dt in sizes.steps]),
        np.stack([measured(saturating(seed), seed, sizes, step=dt).share.numpy() for dt in sizes.steps]),
        np.array(by_peer(seed, sizes)),
    )


def narma(seed: int, sizes: Sizes) -> tuple[Tensor, Tensor, float, float]:
    """NARMA10 with its inputs moved to [-1, 1), and how well static functions of past inputs foretell it."""
    us, targets, _ = NARMA().series(sizes.samples, 1, Generator().manual_seed(seed + 8000), dtype=torch.float64)
    us, targets = 4 * us[:, 0] - 1, targets[:, 0]
    past = us[:, 0].unfold(0, WIDE, 1).flip(-1)
    pairs = torch.triu_indices(WIDE, WIDE)
    errors = []
    for seen in (past, torch.cat([past, past[:, pairs[0]] * past[:, pairs[1]]], -1)):
        true = targets[WIDE - 1 :]
        W, b = ridge(seen[: -sizes.held_out], true[: -sizes.held_out], penalty=1e-6)
        errors.append(nrmse(seen[-sizes.held_out :] @ W.T + b, true[-sizes.held_out :]))
    return us, targets, errors[0], errors[1]


def solved(net: EchoState, us: Tensor, targets: Tensor, sizes: Sizes) -> float:
    """Test error of a network's readout on NARMA10."""
    split = len(us) - sizes.held_out
    fitted = fit_readout(net, us[:split], targets[:split], dt=1.0, washout=100, penalty=1e-9)
    with torch.no_grad():
        return nrmse(integrate(fitted, us, dt=1.0).ys[split:], targets[split:])


def nrmse(said: Tensor, true: Tensor) -> float:
    """Root mean square error in units of the target's standard deviation."""
    return float((said - true).square().mean().sqrt() / true.std(correction=0))


def by_peer(seed: int, sizes: Sizes) -> list[float]:
    """Lags 1 to 50 of the network of reservoirpy's example, from as few samples as there, and from many."""
    draw = Generator().manual_seed(seed)
    net = EchoState(UNITS, 1, radius=1.0, density=0.1, generator=draw).double()
    chosen, sign = torch.rand(2, UNITS, 1, generator=draw, dtype=torch.float64)
    net.W_in.data = (chosen < 0.1) * (sign - 0.5).sign()
    us = 0.8 * noise(sizes.samples, seed)
    few = memory_capacity(net, us[:450], dt=1.0, lags=51, washout=50, held_out=100, penalty=1e-4)
    many = memory_capacity(net, us, dt=1.0, lags=51, washout=50, held_out=sizes.held_out, penalty=1e-4)
    return [float(memory.share[1:].sum()) for memory in (few, many)]


def identities(seed: int, curves: Mapping[str, tuple[Tensor, Tensor | None]]) -> list[Claim]:
    """What holds for every linear network."""
    n = len(curves[LINE][0]) // 3
    line, ring = curves[LINE][0], curves[RING][1]
    assert ring is not None
    turn = torch.arange(3 * n, dtype=torch.float64) // n
    totals = [
        linear_memory(1 + alpha * (torch.linalg.eigvals(W) - 1), 12_000).capacity
        for W, _ in matrices(n, seed).values()
        for alpha in (1.0, 0.5, 0.1)
    ]
    return [
        Claim.below(
            f"what a delay line of {n} units is short of remembering each of the last {n} inputs, measured",
            float((1 - line[:n]).max()),
            1e-9,
            f"{JAEGER}: a delay line attains N",
        ),
        Claim.below(
            f"ring of {n}: difference of its forgetting curve from (1 - w^(2N)) w^(2N floor(lag / N))",
            float((ring - (1 - LAST) * LAST**turn).abs().max()),
            1e-9,
            "the geometric series of a unit that hears itself after N steps",
        ),
        Claim.below(
            f"capacity of 4 linear networks of {n} units at dt / tau = 1, 1/2, 1/10: largest difference from {n}",
            max(abs(total - n) for total in totals),
            1e-3 * n,
            f"{JAEGER}: N if the input reaches every mode",
        ),
    ]


def of_linear(found: Scan, curves: Mapping[str, tuple[Tensor, Tensor | None]], sizes: Sizes) -> list[Claim]:
    """What samples and rounding make of what holds for linear networks."""
    n = len(found.scales)
    excess = [float((found.sizes[name] / np.array(sizes.units)).max()) for name in COLORS]
    gap = max(
        float((share - exact).abs().max())
        for name, (share, exact) in curves.items()
        if exact is not None and name != RANDOM
    )
    return [
        Claim.below(
            "largest difference of measured and exact shares: delay line, ring, random rotation",
            gap,
            0.1,
            f"sampling error with {sizes.held_out} samples, a few times {1 / sizes.held_out**0.5:.3f}",
            "statistical",
        ),
        Claim.below(
            f"largest capacity per unit: {len(COLORS)} kinds, N = {sizes.units[0]} to {sizes.units[-1]}, {n} seeds",
            max(excess),
            1.05,
            f"{JAEGER}: at most 1; the rest is sampling error",
            "statistical",
        ),
        Claim.below(
            f"capacity per unit of {RANDOM} networks of {sizes.units[-1]}, measured in float64: largest of {n} seeds",
            float((found.sizes[RANDOM][:, -1] / sizes.units[-1]).max()),
            0.9,
            "it is 1; rounding takes the rest (Ballarin, Grigoryeva & Ortega 2024, arXiv:2305.01457)",
            "statistical",
        ),
    ]


def of_saturating(found: Scan, sizes: Sizes) -> list[Claim]:
    """What tanh units remember, and what the peer's example does."""
    n = len(found.scales)
    rows = [found.radii[scale][:, sizes.radii.index(0.9)] for scale in sizes.strengths]
    falling = sum(all(a > b for a, b in pairwise(row)) for row in np.stack(rows, 1))
    return [
        Claim.below(
            f"capacity per unit of {TANH} networks of {sizes.units[-1]}, input scale 0.1: largest of {n} seeds",
            float((found.sizes[TANH][:, -1] / sizes.units[-1]).max()),
            0.5,
            f"{JAEGER}: sigmoid units well below N",
            "statistical",
        ),
        Claim.equal(
            f"capacity falls with input scale {', '.join(f'{s:g}' for s in sizes.strengths)} (radius 0.9), "
            f"k of {n} seeds (means {', '.join(f'{row.mean():.1f}' for row in rows)})",
            falling,
            n,
            "the scale decides (Ballarin, Grigoryeva & Ortega 2025, arXiv:2502.04832)",
            "statistical",
        ),
        Claim.near(
            f"capacity, lags 1 to 50, of the network and the 450 samples of the peer's example: mean of {n} seeds "
            f"({sizes.samples:,} samples: {found.peer[:, 1].mean():.2f})",
            float(found.peer[:, 0].mean()),
            18.78,
            2.0,
            f"{PEER}: 18.78, one seed",
            "statistical",
        ),
    ]


def of_narma(found: Scan, sizes: Sizes) -> list[Claim]:
    """What they compute."""
    n = len(found.scales)
    narma, capacity, scales = found.narma, found.scales, np.array(sizes.scales)
    best = int(narma.mean(0).argmin())
    register, products = found.windows.mean(0)
    return [
        Claim.near(
            f"NARMA10, test NRMSE of the best sum of {WIDE} past inputs: mean of {n} seeds",
            float(register),
            0.4,
            0.03,
            "NMSE 0.16, attributed to Appeltant et al. (2011), Nature Communications 2:468",
            "statistical",
        ),
        Claim.equal(
            f"NARMA10: best network (input scale {scales[best]:g}, NRMSE {narma[:, best].mean():.2f}) below that sum, "
            f"k of {n} seeds",
            int((narma[:, best] < found.windows[:, 0]).sum()),
            n,
            "more than memory",
            "statistical",
        ),
        Claim.at_least(
            f"NARMA10: NRMSE at input scale {scales[0]:g} over that of the sum: mean of {n} seeds",
            float((narma[:, 0] / found.windows[:, 0]).mean()),
            0.9,
            "a network that hardly saturates is a sum of past inputs",
            "statistical",
        ),
        Claim.equal(
            f"NARMA10 is solved best at a greater input scale than the one of greatest capacity, k of {n} seeds",
            int((scales[narma.argmin(1)] > scales[capacity.argmax(1)]).sum()),
            n,
            "memory against nonlinearity (Dambre et al. 2012, Scientific Reports 2:514)",
            "statistical",
        ),
        Claim.below(
            f"NARMA10: NRMSE of the best network beside products of pairs of {WIDE} past inputs ({products:.2f})",
            float(narma[:, best].mean()),
            float(products),
            "a static function of as many samples, 495 products, without cycles",
            "statistical",
        ),
    ]


def of_steps(found: Scan, sizes: Sizes) -> list[Claim]:
    """What finer steps leave of a memory."""
    n, held = len(found.scales), found.held.sum(-1)
    return [
        replace(
            Claim.equal(
                f"samples of a step: each finer one, dt / tau {', '.join(f'{s:g}' for s in sizes.steps)}, holds fewer "
                f"({', '.join(f'{c:.1f}' for c in found.sampled.mean(0))}), k of {n} seeds",
                int((np.diff(found.sampled) < 0).all(1).sum()),
                n,
                "a linear network holds N at any step; what saturates need not",
                "statistical",
            ),
            planned="capacity dt / tau at the finest step over that at 1: below 1",
            reason="that could not fail: N bounds the samples, and N / 8 is below the capacity at 1",
        ),
        Claim.equal(
            f"samples of tau: capacity falls when the same network runs in steps of {sizes.steps[-1]:g} tau "
            f"({held[:, 0].mean():.1f} to {held[:, -1].mean():.1f}), k of {n} seeds",
            int((held[:, -1] < held[:, 0]).sum()),
            n,
            "a map may turn its state around, a flow towards F cannot do so without losing it",
            "statistical",
        ),
    ]


def figure(found: Scan, curves: Mapping[str, tuple[Tensor, Tensor | None]], sizes: Sizes) -> Figure:
    """Forgetting curves, and capacity against everything."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 7.0), layout="constrained")
        axes = fig.subplots(3, 2)
        _forgetting(axes[0, 0], curves)
        _sizes(axes[0, 1], found, sizes)
        _radii(axes[1, 0], found, sizes)
        _narma(axes[1, 1], found, sizes)
        _sampled(axes[2, 0], found, sizes)
        _held(axes[2, 1], found, sizes)
    return fig


def _forgetting(ax: Axes, curves: Mapping[str, tuple[Tensor, Tensor | None]]) -> None:
    for name, (share, exact) in curves.items():
        lags = np.arange(len(share))
        ax.plot(lags[::4], share.numpy()[::4], ".", ms=3, color=COLORS[name], label=name)
        if exact is not None:
            ax.plot(lags, exact.numpy(), color=COLORS[name], lw=0.8)
    n = len(curves[LINE][0]) // 3
    ax.set(xlabel="lag (samples)", ylabel="share remembered")
    ax.set_title(f"forgetting, {n} units (dots: measured; lines: exact)")
    ax.legend(loc="upper right", markerscale=2)


def _sizes(ax: Axes, found: Scan, sizes: Sizes) -> None:
    for name, capacities in found.sizes.items():
        plots.sweep(ax, np.array(sizes.units), capacities, label=name, color=COLORS[name])
    ax.plot(sizes.units, sizes.units, color="black", lw=0.6, ls=":", label="N")
    ax.set(xlabel="units N", ylabel="capacity (samples)", title="measured capacity")
    ax.legend(loc="upper left")


def _radii(ax: Axes, found: Scan, sizes: Sizes) -> None:
    for (scale, capacities), color in zip(found.radii.items(), SHADES, strict=False):
        plots.sweep(ax, np.array(sizes.radii), capacities, label=f"input scale {scale:g}", color=color)
    ax.set(xlabel="spectral radius", ylabel="capacity (samples)", title=f"{UNITS} tanh units")
    ax.legend(loc="upper left")


def _narma(ax: Axes, found: Scan, sizes: Sizes) -> None:
    plots.sweep(ax, np.array(sizes.scales), found.narma, label="NRMSE on NARMA10", color=UNSTABLE)
    for mean, name in zip(found.windows.mean(0), ("sum of past inputs", "and products of pairs"), strict=True):
        ax.axhline(mean, color=QUIET, lw=0.8, ls="--")
        ax.annotate(name, (sizes.scales[0], mean), fontsize=7, va="bottom", color="0.3")
    ax.set(xscale="log", xlabel="input scale", ylabel="NRMSE on NARMA10", ylim=(0, 1))
    ax.set_xticks(sizes.scales, [f"{scale:g}" for scale in sizes.scales])
    ax.minorticks_off()
    ax.yaxis.label.set_color(UNSTABLE)
    right = ax.twinx()
    plots.sweep(right, np.array(sizes.scales), found.scales, label="capacity", color=TRAJECTORY)
    right.set_ylabel("capacity (samples)", color=TRAJECTORY)
    right.spines["right"].set_visible(True)
    right.set_ylim(0, None)
    ax.set_title("memory and computation, radius 0.9")


def _sampled(ax: Axes, found: Scan, sizes: Sizes) -> None:
    steps = np.array(sizes.steps)
    ax.axhline(UNITS, color="black", lw=0.6, ls=":", label="in samples, linear: N, exact")
    plots.sweep(ax, steps, found.sampled, label="in samples", color=TRAJECTORY)
    plots.sweep(ax, steps, found.sampled * steps, label="in time (units of tau)", color=UNSTABLE)
    ax.set(xscale="log", yscale="log", xlabel="dt / tau (one sample and one step)", ylabel="capacity")
    ax.set_xticks(steps, [f"{step:g}" for step in steps], minor=False)
    ax.minorticks_off()
    ax.set_title("tau held, samples ever shorter")
    ax.legend(loc="lower right")


def _held(ax: Axes, found: Scan, sizes: Sizes) -> None:
    lags = np.arange(found.held.shape[-1])
    for k, (step, color) in enumerate(zip(sizes.steps, (STABLE, TRAJECTORY, INPUT, TARGET), strict=False)):
        plots.sweep(ax, lags, found.held[:, k], label=f"dt = {step:g} tau", color=color, marker="")
    ax.set(xlabel="lag (units of tau)", ylabel="share remembered", xlim=(0, 60))
    ax.set_title("samples of tau, steps ever finer")
    ax.legend(loc="upper right")


if __name__ == "__main__":
    main(run)
