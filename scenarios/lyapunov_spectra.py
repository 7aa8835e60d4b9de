"""Lyapunov spectra of textbook systems, of random networks and of three neurons.

Claim: the spectra of Lorenz, Henon and Rossler are those of the literature, and their sums what the equations say; a
random network without connections of units to themselves has the mean exponent -1/tau whatever its gain, a spectrum
that depends on i/N alone and is symmetric about its mean, and a dimension and an entropy rate that rise with the gain
near the onset of chaos and fall under input. Far from the onset both are said to fall: the dimension does, a little,
the entropy rate still rises at g = 64. Three of Beer's neurons are chaotic with tau_2 = 2.5 and periodic with three
other choices of tau.

Source: Lorenz (1963), J. Atmos. Sci. 20:130; Henon (1976), Commun. Math. Phys. 50:69; Rossler (1976), Phys. Lett. A
57:397; Engelken, Wolf & Abbott (2023), Phys. Rev. Research 5:043044; Beer (1995), Adaptive Behavior 3:469, figure 9D.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor

import ctrnn
from ctrnn import analysis, plots
from ctrnn.analysis import LyapunovSpectrum
from ctrnn.models import CTRNN, BeerCTRNN, Henon, Lorenz, Rossler
from ctrnn.plots.style import CYCLE, INPUT, QUIET, STABLE, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress

ENGELKEN = "Engelken, Wolf & Abbott (2023), Phys. Rev. Research 5:043044"
BEER = "Beer (1995), Adaptive Behavior 3:469, fig. 9D"
CHAOS, CONTROLS = "$\\tau_2 = 2.5$", ("$\\tau_2 = 1.92$", "all $\\tau$ = 1", "$\\tau_3 = 2.5$")
TAUS = dict(zip((CHAOS, *CONTROLS), ((1.0, 2.5, 1.0), (1.0, 1.92, 1.0), (1.0, 1.0, 1.0), (1.0, 1.0, 2.5)), strict=True))
# Exponents of the literature.
KNOWN = {
    "Lorenz": ((0.9056, 0.0, -14.5723), "values in the tests of LyapunovExponents.jl"),
    "Rossler": ((0.0714, 0.0, -5.3943), "values of J. C. Sprott"),
    "Henon": ((0.41922, -1.62319), "values in the tests of LyapunovExponents.jl"),
}
DT = 0.1  # step of the networks up to g = 4, in tau: the source's
G = 4.0  # gain at which size and input are varied


class Found(NamedTuple):
    """Exponents of many runs of one system."""

    mean: Tensor  # (k,) over the runs
    error: Tensor  # (k,) standard error of the mean
    spectrum: LyapunovSpectrum  # of each run


class Networks(NamedTuple):
    """Spectra of random networks: by gain, by size at g = 4, by the strength of input at g = 4."""

    by_gain: dict[float, LyapunovSpectrum]
    by_size: dict[int, LyapunovSpectrum]
    by_input: dict[float, LyapunovSpectrum]
    flow: LyapunovSpectrum  # at g = 4, by RK4
    map: LyapunovSpectrum  # the same in Euler's steps


@torch.no_grad()
def run(
    *,
    quick: bool = False,
    seed: int = 0,
    seeds: int = 16,
    units: int = 200,
    gains: tuple[float, ...] = (1.5, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0),
    sizes: tuple[int, ...] = (100, 200, 400),
) -> Result:
    """Compute every spectrum.

    Args:
        quick: short runs and small networks.
        seed: of starts and matrices.
        seeds: starts of each small system, run side by side.
        units: of the random network whose gain and input are varied.
        gains: of that network.
        sizes: of random networks at g = 4.
    """
    generator = Generator().manual_seed(seed)
    scale = 0.03 if quick else 1.0
    if quick:
        seeds, units, gains, sizes = 4, 40, (2.0, 4.0, 40.0), (20, 40)
    report = progress(9, "spectra")
    small: dict[str, Found] = {}
    small["Lorenz"] = textbook(Lorenz(), seeds, 0.01, 300 * scale, 20 * scale, generator)
    report(1)
    small["Rossler"] = textbook(Rossler(), seeds, 0.04, 1500 * scale, 100 * scale, generator)
    report(2)
    small["Henon"] = henon(seeds, round(10_000 * scale), generator)
    report(3)
    for i, (name, tau) in enumerate(TAUS.items()):
        small[name] = textbook(circuit(tau), seeds, DT, 1500 * scale, 1000 * scale, generator)
        report(4 + i)
    networks = random_networks(units, gains, sizes, 500 * scale, generator)
    report(8)
    sums = sum_and_trace(circuit(TAUS[CHAOS]), 30.0)
    return Result(figure(small, networks, quick), claims(small, networks, sums))


def textbook(
    model: ctrnn.Model, rows: int, dt: float, duration: float, transient: float, generator: Generator
) -> Found:
    """A flow from several starts near its customary one, by RK4."""
    start = model.initial_state(rows).double()
    x0 = start + 0.1 + 0.5 * torch.rand(start.shape, generator=generator, dtype=torch.float64)
    return found(analysis.lyapunov_spectrum(model, x0, dt=dt, duration=duration, transient=transient))


def henon(rows: int, duration: int, generator: Generator) -> Found:
    """The map, from starts near 0."""
    step = ctrnn.Step(Henon(), ctrnn.Iterate(), dt=1.0)
    x0 = Henon().initial_state(rows) + 0.1 * torch.rand(rows, 2, generator=generator, dtype=torch.float64)
    return found(analysis.lyapunov_spectrum(step, x0, duration=duration, transient=100))


def found(spectrum: LyapunovSpectrum) -> Found:
    """Mean over the runs of a batch."""
    rows = spectrum.exponents
    return Found(rows.mean(0), rows.std(0) / math.sqrt(len(rows)), spectrum)


def circuit(tau: tuple[float, ...]) -> BeerCTRNN:
    """Three neurons with the weights and biases of Beer's figure 9D."""
    model = BeerCTRNN(3, tau=torch.tensor(tau)).double()
    model.W_rec.copy_(torch.tensor([[5.422, -0.018, 2.75], [-0.24, 4.59, 1.21], [0.535, -2.25, 3.885]]))
    model.theta.copy_(torch.tensor([-4.108, -2.787, -1.114]))
    return model


def sum_and_trace(model: ctrnn.Model, duration: float) -> tuple[float, float]:
    """The sum of all exponents over a run, and the mean trace of the Jacobian along it (trapezoids)."""
    x0, dt = torch.full((3,), 0.1, dtype=torch.float64), 0.01
    spectrum = analysis.lyapunov_spectrum(model, x0, dt=dt, duration=duration)
    xs = ctrnn.integrate(model, None, x0, t_span=(0.0, duration), dt=dt, solver=ctrnn.RK4()).xs
    traces = analysis.jacobian(model, torch.cat([x0[None], xs])).diagonal(dim1=-2, dim2=-1).sum(-1)
    return float(spectrum.exponents.sum()), float(torch.trapezoid(traces, dx=dt)) / duration


def random_network(J: Tensor, g: float) -> CTRNN:
    """tau x' = -x + g J tanh(x) + u."""
    model = CTRNN(len(J), len(J)).double()
    model.W_rec.copy_(g * J)
    model.W_in.copy_(torch.eye(len(J)))
    return model


def matrix(n: int, generator: Generator) -> Tensor:
    """Gaussian with variance 1/n and a diagonal of zeros."""
    return (torch.randn(n, n, generator=generator, dtype=torch.float64) / math.sqrt(n)).fill_diagonal_(0)


def step_at(g: float) -> float:
    """Finer steps at larger gains, where a unit passes the slope of tanh in a time 1/g."""
    return DT * min(1.0, G / g)


def random_networks(
    units: int, gains: tuple[float, ...], sizes: tuple[int, ...], duration: float, generator: Generator
) -> Networks:
    """Spectra in Euler's steps, as in the source, and one by RK4."""
    J = {n: matrix(n, generator) for n in sorted({*sizes, units})}
    x0 = {n: torch.randn(n, generator=generator, dtype=torch.float64) for n in J}

    def spectrum(
        n: int, g: float, us: Tensor | None = None, solver: ctrnn.Solver | None = None, length: float = duration
    ) -> LyapunovSpectrum:
        return analysis.lyapunov_spectrum(
            random_network(J[n], g),
            (g - 1) * x0[n],
            us,
            dt=step_at(g),
            duration=length,
            transient=length / 5,
            solver=solver or ctrnn.Euler(),
            interval=1.0,
        )

    steps = round(1.2 * duration / DT)
    noise = torch.randn(steps, units, generator=generator, dtype=torch.float64) / math.sqrt(DT)
    by_gain = {g: spectrum(units, g, length=duration if g <= G else 0.4 * duration) for g in gains}
    by_size = {n: spectrum(n, G) for n in sizes}
    by_input = {0.0: by_gain[G]} | {strength: spectrum(units, G, strength * noise) for strength in (1.0, 3.0)}
    flow = spectrum(min(J), G, solver=ctrnn.RK4(), length=duration / 5)
    return Networks(by_gain, by_size, by_input, flow, spectrum(min(J), G))


def claims(small: dict[str, Found], networks: Networks, sums: tuple[float, float]) -> list[Claim]:
    """Identities, then what was estimated."""
    return [*identities(small, networks, sums), *of_textbooks(small), *of_networks(networks), *of_neurons(small)]


def identities(small: dict[str, Found], networks: Networks, sums: tuple[float, float]) -> list[Claim]:
    """What holds whatever the trajectory."""
    total = {name: small[name].spectrum.exponents.sum(-1) for name in ("Lorenz", "Henon")}
    euler = {g: math.log(1 - step_at(g)) / step_at(g) for g in networks.by_gain}
    return [
        Claim.near(
            "Lorenz: sum of the exponents, the run furthest from the constant trace",
            total["Lorenz"][(total["Lorenz"] + 41 / 3).abs().argmax()],
            -41 / 3,
            1e-3,
            "the trace, -(sigma + 1 + beta)",
        ),
        Claim.near(
            "Henon: sum of the exponents, the run furthest from ln 0.3",
            total["Henon"][(total["Henon"] - math.log(0.3)).abs().argmax()],
            math.log(0.3),
            1e-9,
            "each step shrinks areas by 0.3",
        ),
        Claim.near(
            "three neurons: sum of the exponents over 30 tau against the mean trace along the run",
            sums[0],
            sums[1],
            1e-5,
            "Liouville's formula",
        ),
        Claim.near(
            "random network, flow by RK4: mean of all exponents",
            networks.flow.exponents.mean(),
            -1.0,
            1e-5,
            f"{ENGELKEN}: the trace is -N/tau without autapses",
        ),
        Claim.near(
            f"random networks in Euler's steps of {DT} tau and finer, all gains: the mean of all exponents minus "
            "ln(1 - dt/tau)/dt, the largest",
            max((float(at.exponents.mean()) - euler[g] for g, at in networks.by_gain.items()), key=abs),
            0.0,
            0.01,
            "the determinant of a step to the first order in dt/(tau N)",
            "statistical",
        ),
    ]


def of_textbooks(small: dict[str, Found]) -> list[Claim]:
    """Against the literature."""
    result = []
    for name, (values, source) in KNOWN.items():
        away = (small[name].mean - torch.tensor(values, dtype=torch.float64)).abs()
        result.append(
            Claim.below(
                f"{name}, {len(small[name].spectrum.exponents)} runs: exponents "
                + ", ".join(f"{m:.4f}" for m in small[name].mean.tolist())
                + f"; largest distance from {', '.join(f'{v:g}' for v in values)}",
                away.max(),
                5e-3,
                source,
                "statistical",
            )
        )
    result.append(
        Claim.near(
            "Lorenz: Kaplan-Yorke dimension",
            small["Lorenz"].spectrum.kaplan_yorke.mean(),
            2.062,
            2e-3,
            "2 + 0.9056 / 14.5723",
            "statistical",
        )
    )
    return result


def of_networks(networks: Networks) -> list[Claim]:
    """What Engelken, Wolf & Abbott say of random networks."""
    n = len(networks.by_gain[G].exponents)
    dimension = {g: float(at.kaplan_yorke) / n for g, at in networks.by_gain.items()}
    entropy = {g: float(at.entropy_rate) / n for g, at in networks.by_gain.items()}
    two = sorted(networks.by_size)[-2:]
    share = np.linspace(0.01, 1, 100)
    first, second = (np.interp(share, *of_share(networks.by_size[size])) for size in two)
    values = networks.by_gain[G].exponents
    driven = list(networks.by_input.values())
    return [
        Claim.below(
            f"g = {G:g}: mean distance between the spectra of N = {two[0]} and {two[1]} at equal i/N, over their range",
            np.abs(first - second).mean() / (first.max() - first.min()),
            0.02,
            f"{ENGELKEN}: extensive, size-invariant",
            "statistical",
        ),
        Claim.below(
            f"g = {G:g}: mean of |lambda_i + lambda_(N+1-i) - twice the mean|, over the range of the spectrum",
            (values + values.flip(0) - 2 * values.mean()).abs().mean() / (values[0] - values[-1]),
            0.05,
            f"{ENGELKEN}: point-symmetric spectrum",
            "statistical",
        ),
        *(
            replace(
                Claim.equal(
                    f"{what} against g ("
                    + ", ".join(f"{value:.3g} at {g:g}" for g, value in of.items())
                    + "): largest neither at the smallest nor at the largest gain",
                    max(of, key=of.__getitem__) not in (min(of), max(of)),
                    True,
                    f"{ENGELKEN}: rises near the onset, falls far from it",
                    "statistical",
                ),
                planned="the same in steps of 0.1 tau at all gains up to 100: the dimension fell, the entropy did not",
                reason="those steps are too coarse for large gains: now 0.4 tau / g, up to 64",
            )
            for what, of in (("dimension over N", dimension), ("entropy rate over N", entropy))
        ),
        Claim.equal(
            f"g = {G:g}: white noise of strength "
            + ", ".join(f"{s:g}" for s in networks.by_input)
            + " to every unit leaves the dimensions "
            + ", ".join(f"{float(at.kaplan_yorke):.1f}" for at in driven)
            + " and the entropy rates "
            + ", ".join(f"{float(at.entropy_rate):.3f}" for at in driven)
            + "; both fall",
            all(a.kaplan_yorke > b.kaplan_yorke and a.entropy_rate > b.entropy_rate for a, b in pairwise(driven)),
            True,
            ENGELKEN,
            "statistical",
        ),
    ]


def of_neurons(small: dict[str, Found]) -> list[Claim]:
    """Chaos in three neurons, and its absence."""
    chaos = small[CHAOS]
    controls = [small[name] for name in CONTROLS]
    shown = "; ".join(", ".join(f"{v:.4f}" for v in at.mean.tolist()) for at in controls)
    return [
        Claim.at_least(
            "three neurons, tau_2 = 2.5: exponents "
            + ", ".join(f"{v:.4f}" for v in chaos.mean.tolist())
            + "; the first in standard errors of the mean",
            chaos.mean[0] / chaos.error[0],
            4.0,
            BEER,
            "statistical",
        ),
        Claim.below(
            "the same: size of the second exponent, which is that of the flow itself",
            chaos.mean[1].abs(),
            2e-3,
            "an autonomous flow that does not come to rest",
            "statistical",
        ),
        Claim.below(
            f"tau_2 = 1.92, all 1, tau_3 = 2.5: exponents {shown}; the largest distance of a first one from 0",
            max(float(at.spectrum.exponents[:, 0].abs().max()) for at in controls),
            2e-3,
            "a cycle has one exponent 0",
            "statistical",
        ),
        replace(
            Claim.below(
                "the same: the largest of the second exponents in standard errors of the mean",
                max(float(at.mean[1] / at.error[1]) for at in controls),
                -4.0,
                "a cycle attracts",
                "statistical",
            ),
            planned="second exponents below -0.01: at tau_2 = 1.92 it was -0.0050",
            reason="the limit was a guess; the cycle there attracts weakly",
        ),
    ]


def of_share(spectrum: LyapunovSpectrum) -> tuple[np.ndarray, np.ndarray]:
    """i/N and the exponents."""
    n = len(spectrum.exponents)
    return np.arange(1, n + 1) / n, spectrum.exponents.numpy()


# Figure


def figure(small: dict[str, Found], networks: Networks, quick: bool) -> Figure:
    """Attractors; running estimates; spectra of random networks by gain, size and input; dimension and entropy."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 7.6), layout="constrained")
        above, below = fig.subfigures(2, 1, height_ratios=(1, 1.1))
        top, bottom = above.subplots(2, 4), below.subplots(2, 3)
        for ax, (name, draw) in zip(top[0], _attractors(quick).items(), strict=True):
            draw(ax).set_title(name)
        for ax, name in zip(top[1], ("Lorenz", "Rossler", "Henon", CHAOS), strict=True):
            _running(ax, small[name], name)
        top[1, 0].set_ylabel("running estimate")
        _by_gain(bottom[0, 0], networks)
        _by_size(bottom[0, 1], networks)
        _by_input(bottom[0, 2], networks)
        _neurons(bottom[1, 0], small)
        _against_gain(bottom[1, 1], networks, "kaplan_yorke", "dimension $/ N$")
        _against_gain(bottom[1, 2], networks, "entropy_rate", "entropy rate $/ N$ (1/$\\tau$)")
    return fig


def _attractors(quick: bool) -> dict[str, Callable[[Axes], Axes]]:
    length = 0.1 if quick else 1.0

    def flow(model: ctrnn.Model, x0: list[float], skip: float, span: float, dt: float, axes: tuple[int, int]) -> object:
        start = torch.tensor(x0, dtype=torch.float64)
        run = ctrnn.integrate(model, None, start, t_span=(0.0, length * (skip + span)), dt=dt, solver=ctrnn.RK4())
        xs = run.xs[run.ts > length * skip][:, axes]
        names = ("y_1", "y_2", "y_3") if isinstance(model, BeerCTRNN) else ("x", "y", "z")

        def draw(ax: Axes) -> Axes:
            ax.plot(*xs.T, color=TRAJECTORY, lw=0.3)
            ax.set(xlabel=f"${names[axes[0]]}$", ylabel=f"${names[axes[1]]}$")
            return ax

        return draw

    def points(ax: Axes) -> Axes:
        model = Henon()
        run = ctrnn.integrate(
            model, None, model.initial_state(), t_span=(0.0, 6000 * length), dt=1.0, solver=ctrnn.Iterate()
        )
        ax.plot(*run.xs[50:].T, ",", color=TRAJECTORY)
        ax.set(xlabel="$x$", ylabel="$y$")
        return ax

    return {
        "Lorenz": flow(Lorenz(), [1.0, 1.0, 1.0], 10.0, 60.0, 0.01, (0, 2)),
        "Rossler": flow(Rossler(), [1.0, 1.0, 0.0], 100.0, 300.0, 0.03, (0, 1)),
        "Henon": points,
        f"three neurons, {CHAOS}": flow(circuit(TAUS[CHAOS]), [0.1, 0.1, 0.1], 400.0, 1500.0, 0.1, (0, 1)),
    }


def _running(ax: Axes, at: Found, name: str) -> None:
    """Of one run, the exponents that do not lie far below 0."""
    spectrum, k = at.spectrum, 1 if name == "Henon" else 2
    shown = spectrum.ts >= spectrum.ts[-1] / 300
    plots.running_exponents(ax, spectrum.ts[shown], spectrum.history[shown][:, 0, :k], spectrum.standard_error[0, :k])
    final, error = spectrum.exponents[0, :k], float(spectrum.standard_error[0, :k].max())
    margin = max(8 * error, 0.3 * float(final.max()))
    ax.set(xscale="log", ylim=(float(final.min()) - margin, float(final.max()) + margin), ylabel="")
    ax.set_xlabel({"Henon": "iterations", CHAOS: "time / $\\tau_1$"}.get(name, "time"))
    ax.legend(loc={"Henon": "upper right", CHAOS: "lower right"}.get(name, "center right"), handlelength=1)


def _by_gain(ax: Axes, networks: Networks) -> None:
    colors = shades(len(networks.by_gain))
    for (g, at), color in zip(networks.by_gain.items(), colors, strict=True):
        plots.exponents(ax, at.exponents, label=f"{g:g}", color=color)
    n = len(networks.by_gain[G].exponents)
    ax.set(ylabel="exponent (1/$\\tau$)", title=f"random network, N = {n}, by gain $g$")
    ax.legend(ncols=2, loc="lower left", handlelength=1)


def shades(count: int) -> list[tuple[float, ...]]:
    """From light to dark."""
    return [colormaps["viridis"](x) for x in np.linspace(0.9, 0.0, count)]


def _by_size(ax: Axes, networks: Networks) -> None:
    for (n, at), color, ls in zip(
        networks.by_size.items(), (UNSTABLE, TRAJECTORY, STABLE), ("-", "--", ":"), strict=False
    ):
        resting = bool(at.exponents[0] < 0.01)
        ax.plot(*of_share(at), color=color, ls=ls, label=f"N = {n}" + resting * " (not chaotic)")
    ax.axhline(0, color=QUIET, ls=":", lw=0.8)
    ax.set(xlabel="$i\\,/\\,N$", ylabel="exponent (1/$\\tau$)", title=f"$g = {G:g}$, by size")
    ax.legend(loc="lower left")


def _by_input(ax: Axes, networks: Networks) -> None:
    for (strength, at), color in zip(networks.by_input.items(), (TRAJECTORY, INPUT, UNSTABLE), strict=True):
        plots.exponents(ax, at.exponents, label=f"{strength:g}", color=color)
    ax.set(ylabel="exponent (1/$\\tau$)", title=f"$g = {G:g}$, white noise to each unit")
    ax.legend(title="strength", loc="lower left")


def _neurons(ax: Axes, small: dict[str, Found]) -> None:
    for k, (name, color) in enumerate(zip(TAUS, CYCLE, strict=False)):
        look = {"fmt": "o", "ms": 3, "capsize": 2, "color": color, "label": name}
        ax.errorbar(np.arange(2) + 0.08 * k, small[name].mean[:2], 2 * small[name].error[:2], **look)
    ax.axhline(0, color=QUIET, ls=":", lw=0.8)
    ax.set_xticks([0.12, 1.12], ["$\\lambda_1$", "$\\lambda_2$"])
    ax.set(
        ylabel="exponent (1/$\\tau_1$)",
        title="three neurons, $\\pm$ 2 standard errors",
        xlim=(-0.3, 1.6),
        ylim=(None, 0.03),
    )
    ax.legend(loc="lower left")


def _against_gain(ax: Axes, networks: Networks, what: str, label: str) -> None:
    n = len(networks.by_gain[G].exponents)
    values = [float(getattr(at, what)) / n for at in networks.by_gain.values()]
    ax.semilogx(list(networks.by_gain), values, "o-", ms=3, color=TRAJECTORY)
    ax.set(xlabel="gain $g$", ylabel=label, ylim=(0, None), title=f"N = {n}")
    ax.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    ax.minorticks_off()


if __name__ == "__main__":
    main(run)
