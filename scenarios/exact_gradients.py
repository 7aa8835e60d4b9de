"""Exact gradients in little memory: every adjoint beside a float64 reference.

Claim: recomputing the run in segments gives the gradient of backpropagation to rounding in memory that grows as the
square root of the run's length, for about twice the time; the continuous adjoint, which reconstructs the state
backwards, keeps as little but is worthless once the gap between saves is some thirty times the smallest time constant.

Source: Griewank & Walther (2000), ACM TOMS 26:19; Chen et al. (2018), arXiv:1806.07366; Williams & Zipser (1989),
Neural Computation 1:270. The reference is backpropagation in float64, itself checked by central differences.
"""

import dataclasses
import json
import subprocess
import sys
import time
import warnings
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import ctrnn
from ctrnn import plots
from ctrnn.models import CTRNN
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, TARGET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress

ADJOINTS = {
    "Backprop": ctrnn.Backprop(),
    "Recompute": ctrnn.Recompute(),
    "Recompute(8)": ctrnn.Recompute(8),
    "Backsolve": ctrnn.Backsolve(),
    "Forward": ctrnn.Forward(),
}
COLORS = dict(zip(ADJOINTS, (QUIET, TRAJECTORY, INPUT, UNSTABLE, OUTPUT), strict=True))
HOPELESS = float(np.log(0.01 / np.finfo(np.float64).eps))  # Backsolve warns beyond so many time constants

# Peak memory needs a process of its own for every point: one that has only imported the package forks into them. Each
# first does a short job, since the first use of torch.func alone adds some 80 MiB; what is reported, in KiB, is by how
# much the job raises the peak that was reached until then.
PROBE = """
import json, os, resource, sys, warnings, torch, ctrnn
warnings.simplefilter("ignore", ctrnn.BacksolveWarning)  # here only its memory matters
points, units, batch, seed = map(json.loads, sys.argv[1:])
torch.set_num_threads(1)
def job(adjoint, steps):
    net = ctrnn.CTRNN(units, 0, learn_tau=True, generator=torch.Generator().manual_seed(seed))
    x0 = torch.randn(batch, units, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    run = ctrnn.integrate(net, None, x0, t_span=(0.0, 0.05 * steps), steps=ctrnn.Fixed(0.05), save=ctrnn.Last(),
                          adjoint=adjoint)
    run.xs.square().mean().backward()
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for kind, options, steps in points:
    adjoint = getattr(ctrnn, kind)(**options)
    if os.fork() == 0:
        job(adjoint, 16)
        before = peak()
        job(adjoint, steps)
        print(peak() - before, flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(f"{kind} failed at {steps} steps")
"""


class Gaps(NamedTuple):
    """Relative error of the gradient for each adjoint and gap between saves, in the smallest tau; who warned."""

    gaps: list[float]
    errors: dict[str, list[float]]
    warned: list[bool]


def network(units: int, slowest: float, seed: int) -> CTRNN:
    """A network with time constants from 1 to `slowest`, all learned."""
    tau = torch.logspace(0, np.log10(slowest), units, dtype=torch.float64)
    return CTRNN(units, 1, tau=tau, learn_tau=True, generator=torch.Generator().manual_seed(seed)).double()


def wave(t: Tensor) -> Tensor:
    """The drive, one slow sine."""
    return torch.sin(0.3 * t).reshape(1)


def loss(net: CTRNN, x0: Tensor, end: float, adjoint: ctrnn.Adjoint) -> Tensor:
    """Mean square of the state at the end of one gap without saves."""
    run = ctrnn.integrate(
        net,
        ctrnn.Function(wave),
        x0,
        t_span=(0.0, end),
        solver=ctrnn.RK4(),
        steps=ctrnn.Fixed(0.2),
        save=ctrnn.Last(),
        adjoint=adjoint,
    )
    return run.xs.square().mean()


def gradient(net: CTRNN, x0: Tensor, end: float, adjoint: ctrnn.Adjoint) -> Tensor:
    """Of the loss, with respect to all parameters and x0, as one vector."""
    leaves = [*net.parameters(), x0]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss(net, x0, end, adjoint), leaves)])


def by_differences(net: CTRNN, x0: Tensor, end: float, seed: int) -> tuple[float, float]:
    """The slope of the loss along a random direction: by the gradient of Backprop, and by a central difference."""
    leaves = [*net.parameters(), x0]
    generator, h = torch.Generator().manual_seed(seed + 1), 1e-5
    direction = [torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype) for leaf in leaves]
    slope = gradient(net, x0, end, ctrnn.Backprop()) @ torch.cat([d.flatten() for d in direction])
    values = []
    with torch.no_grad():
        for shift in (h, -2 * h, h):
            for leaf, d in zip(leaves, direction, strict=True):
                leaf += shift * d
            values.append(float(loss(net, x0, end, ctrnn.Backprop())))
    return float(slope), (values[0] - values[1]) / (2 * h)


def errors(net: CTRNN, x0: Tensor, gaps: list[float]) -> Gaps:
    """Every adjoint beside Backprop, over longer and longer gaps."""
    found: dict[str, list[float]] = {name: [] for name in ADJOINTS if name != "Backprop"}
    warned, report = [], progress(len(gaps), "gradients")
    for i, gap in enumerate(gaps):
        reference = gradient(net, x0, gap, ctrnn.Backprop())
        for name, values in found.items():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                value = gradient(net, x0, gap, ADJOINTS[name])
            if name == "Backsolve":
                warned.append(any(issubclass(w.category, ctrnn.BacksolveWarning) for w in caught))
            values.append(float((value - reference).norm() / reference.norm()))
        report(i + 1)
    return Gaps(gaps, found, warned)


def times(net: CTRNN, x0: Tensor, end: float, repeats: int) -> dict[str, float]:
    """Median time of a gradient over that of Backprop, the adjoints taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ADJOINTS}
    report = progress(repeats, "times")
    for i in range(repeats):
        for name, adjoint in ADJOINTS.items():
            start = time.perf_counter()
            gradient(net, x0, end, adjoint)
            seconds[name].append(time.perf_counter() - start)
        report(i + 1)
    return {name: float(np.median(s) / np.median(seconds["Backprop"])) for name, s in seconds.items()}


def peaks(names: list[str], lengths: list[int], units: int, batch: int, seed: int) -> dict[str, list[float]]:
    """Peak memory in MiB that a training step adds."""
    kinds = [(type(ADJOINTS[name]).__name__, dataclasses.asdict(ADJOINTS[name])) for name in names]
    points = [(*kind, length) for kind in kinds for length in lengths]
    command = [sys.executable, "-c", PROBE, *map(json.dumps, (points, units, batch, seed))]
    report, found = progress(len(points), "memory"), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as probe:
        for line in probe.stdout or ():
            found.append(max(int(line), 4) / 1024)  # memory comes in pages of 4 KiB: less cannot be told from none
            report(len(found))
    if probe.returncode:
        raise RuntimeError("The process that measures memory failed; its message stands above.")
    return {name: found[i * len(lengths) : (i + 1) * len(lengths)] for i, name in enumerate(names)}


def run(*, quick: bool = False, seed: int = 0, seeds: int = 1, units: int = 8, slowest: float = 100.0) -> Result:
    """Measure error, memory and time of every adjoint.

    Args:
        quick: shorter runs, fewer gaps.
        seed: of the weights and the start.
        seeds: not used.
        units: of the network whose gradients are compared; that whose memory is measured has 64, with 64 samples.
        slowest: its largest time constant, in the smallest.
    """
    del seeds
    net = network(units, slowest, seed)
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.randn(units, generator=generator, dtype=torch.float64).requires_grad_()
    slopes = by_differences(net, x0, 10.0, seed)
    gaps = errors(net, x0, [5.0, 40.0] if quick else [2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0])
    ratios = times(net, x0, 5.0 if quick else 25.0, 1 if quick else 3)
    names = ["Backprop", "Recompute"] if quick else ["Backprop", "Recompute", "Recompute(8)", "Backsolve"]
    lengths = [500, 2000] if quick else [500, 2000, 8000]
    memory = peaks(names, lengths, 64, 64, seed)
    return Result(figure(gaps, lengths, memory, ratios), claims(slopes, gaps, lengths, memory, ratios))


def claims(
    slopes: tuple[float, float],
    gaps: Gaps,
    lengths: list[int],
    memory: dict[str, list[float]],
    ratios: dict[str, float],
) -> list[Claim]:
    """What was measured."""
    longest, last = gaps.gaps[-1], lengths[-1]
    exact = [name for name in gaps.errors if name != "Backsolve"]
    return [
        Claim.below(
            "Backprop beside a central difference along a random direction: relative error",
            abs(slopes[0] - slopes[1]) / abs(slopes[1]),
            1e-6,
            "derived",
        ),
        *[
            Claim.below(f"{name} beside Backprop, worst relative error", max(gaps.errors[name]), 1e-10, "derived")
            for name in exact
        ],
        Claim.below(
            f"Backsolve beside Backprop over a gap of {gaps.gaps[0]:g} tau: relative error",
            gaps.errors["Backsolve"][0],
            1e-3,
            "derived: the error of the steps",
        ),
        dataclasses.replace(
            Claim.at_least(
                f"Backsolve beside Backprop over a gap of {longest:g} tau: relative error",
                gaps.errors["Backsolve"][-1],
                0.1,
                f"derived: exp({longest:g}) eps = {np.exp(longest) * np.finfo(np.float64).eps:.2g}",
            ),
            planned="the error exceeds 1",
            reason="tanh is bounded: once the state is lost the gradient is wrong from its first digit on, but bounded",
        ),
        Claim.equal(
            f"Backsolve warns over the gaps beyond {HOPELESS:.1f} tau and over no other",
            gaps.warned,
            [gap > HOPELESS for gap in gaps.gaps],
            "derived: exp(gap / tau) eps > 0.01",
        ),
        Claim.at_least(
            f"peak memory of Backprop over that of Recompute, {last} steps",
            memory["Backprop"][-1] / memory["Recompute"][-1],
            20.0,
            "measured, n = 1",
            "statistical",
        ),
        Claim.below(
            f"growth of Recompute's peak from {lengths[-2]} to {last} steps; of the square root "
            f"{(last / lengths[-2]) ** 0.5:.1f}, of Backprop's {memory['Backprop'][-1] / memory['Backprop'][-2]:.1f}",
            memory["Recompute"][-1] / memory["Recompute"][-2],
            1.5 * (last / lengths[-2]) ** 0.5,
            "measured, n = 1",
            "statistical",
        ),
        *[
            Claim.below(f"time of {name} over that of Backprop", ratios[name], 2.5, "measured, median", "statistical")
            for name in ("Recompute", "Recompute(8)")
        ],
    ]


def figure(gaps: Gaps, lengths: list[int], memory: dict[str, list[float]], ratios: dict[str, float]) -> Figure:
    """Error against the gap, peak memory against the length, and time."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 2.9))
        error, peak, cost = fig.subplots(1, 3, width_ratios=(1.2, 1.0, 0.9))
        _error(error, gaps)
        _peak(peak, lengths, memory)
        names = list(ratios)
        cost.barh(names[::-1], [ratios[n] for n in names[::-1]], color=[COLORS[n] for n in names[::-1]], height=0.6)
        for i, name in enumerate(names[::-1]):
            cost.text(ratios[name] * 1.1, i, f"{ratios[name]:.1f}", va="center", fontsize=7)
        cost.set(
            xscale="log",
            xlim=(0.5, 3 * max(ratios.values())),
            xlabel="time / time of Backprop",
            title="time of one gradient",
        )
        drawn = {
            label: line for ax in (peak, error) for line, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        fig.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=4)
    return fig


def _error(ax: Axes, gaps: Gaps) -> None:
    for name, values in gaps.errors.items():
        ax.semilogy(gaps.gaps, np.maximum(values, 1e-17), "o-", ms=3, color=COLORS[name], label=name)
    ax.axvline(HOPELESS, color=TARGET, ls="--", lw=0.9, label="Backsolve warns beyond")
    ax.axhline(1.0, color=QUIET, lw=0.6)
    ax.set(xlabel="gap between saves / smallest $\\tau$", ylabel="relative error", title="error of the gradient")


def _peak(ax: Axes, lengths: list[int], memory: dict[str, list[float]]) -> None:
    for name, values in memory.items():
        ax.loglog(lengths, np.maximum(values, 0.05), "o-", ms=3, color=COLORS[name], label=name)
    scale = np.array(lengths) / lengths[0]
    ax.loglog(lengths, memory["Recompute"][0] * scale**0.5, ":", color="black", lw=0.8, label="$\\propto\\sqrt{T}$")
    ax.minorticks_off()
    ax.set_xticks(lengths, [f"{length:,}" for length in lengths])
    ax.set(xlabel="steps $T$", ylabel="peak memory added / MiB", title="memory of one training step")


if __name__ == "__main__":
    main(run)
