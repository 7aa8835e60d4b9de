"""Two neurons that oscillate: Beer's centre-crossing circuit.

Claim: with self-weights 4.5 and cross-weights +-1 at centre-crossing the equilibrium is an unstable focus with
eigenvalues 0.125 +- 0.25i, surrounded by a limit cycle of period 28.9999 on which y1 stays within [1.29385, 4.20615];
the cycle is born at w = 4, where the period is 8 pi.

Source: Beer (1995), Adaptive Behavior 3:469-509. The eigenvalues w/4 - 1 +- i c/4 follow from W at centre-crossing,
where every neuron's slope is 1/4; the cycle's numbers are checked here against scipy's DOP853.
"""

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicHermiteSpline

import ctrnn
from ctrnn import analysis, plots
from ctrnn.models import BeerCTRNN
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, TRAJECTORY
from ctrnn.results import Claim, Result, main, progress

BEER = "Beer (1995), Adaptive Behavior 3:469"


class Cycle(NamedTuple):
    """One period of an oscillation: times from 0, states (time, neuron), and how long it is."""

    ts: torch.Tensor
    ys: torch.Tensor
    period: float


def circuit(w: float, c: float = 1.0) -> BeerCTRNN:
    """Two neurons with self-weight w and cross-weights c and -c, at centre-crossing."""
    model = BeerCTRNN(2).double()
    with torch.no_grad():
        model.W_rec.copy_(torch.tensor([[w, c], [-c, w]]))
        model.theta.copy_(-model.W_rec.sum(1) / 2)
    return model


def cycle(model: BeerCTRNN, start: torch.Tensor, settle: float, longest: float, steps: ctrnn.Adaptive) -> Cycle:
    """The limit cycle reached from `start` after `settle`.

    Its period is the time between two upward crossings of y1 through its equilibrium, on the cubic Hermite spline of
    the run.
    """
    centre = -model.theta.detach()
    start = ctrnn.integrate(model, None, start, t_span=(0.0, settle), steps=steps).xs[-1]
    ts = torch.linspace(0.0, 2.5 * longest, 3001, dtype=torch.float64)
    run = ctrnn.integrate(model, None, start, t_span=(0.0, float(ts[-1])), steps=steps, save=ctrnn.At(ts))
    slopes = model(ts[:, None], run.xs, run.xs.new_zeros(len(ts), 0))
    crossing = CubicHermiteSpline(ts.numpy(), (run.xs[:, 0] - centre[0]).numpy(), slopes[:, 0].numpy())
    upward = [t for t in crossing.roots(extrapolate=False) if crossing(t, 1) > 0]
    if len(upward) < 2:
        return Cycle(ts, run.xs, float("nan"))
    inside = (ts >= upward[0]) & (ts <= upward[1])
    return Cycle(ts[inside] - upward[0], run.xs[inside], upward[1] - upward[0])


def period_by_scipy(w: float, settle: float) -> float:
    """The period by scipy's DOP853 and its event location, from equations typed out again."""
    theta = np.array([-(w + 1) / 2, -(w - 1) / 2])

    def field(t: float, y: np.ndarray) -> np.ndarray:
        del t
        s = 1 / (1 + np.exp(-(y + theta)))
        return -y + np.array([w * s[0] + s[1], -s[0] + w * s[1]])

    def upward(t: float, y: np.ndarray) -> float:
        del t
        return y[0] + theta[0]

    upward.direction = 1  # type: ignore[attr-defined]
    run = solve_ivp(field, (0, settle), -theta + 0.5, method="DOP853", rtol=1e-12, atol=1e-12, events=upward)
    return float(run.t_events[0][-1] - run.t_events[0][-2])


@torch.no_grad()
def run(*, quick: bool = False, seed: int = 0, seeds: int = 1, w: float = 4.5) -> Result:
    """Find the equilibrium, the cycle and how its period depends on the self-weight.

    Args:
        quick: fewer self-weights and a shorter settling time.
        seed, seeds: not used, nothing here is random.
        w: self-weight of the circuit that is shown.
    """
    del seed, seeds
    model = circuit(w)
    settle = 150.0 if quick else 300.0
    fine, coarse = ctrnn.Adaptive(rtol=1e-11, atol=1e-12), ctrnn.Adaptive(rtol=1e-8, atol=1e-9)
    found = analysis.fixed_points(model, torch.rand(16, 2, generator=torch.Generator().manual_seed(0)) * 8 - 1)
    orbit = cycle(model, -model.theta + 1.0, settle, 40.0, fine)
    weights = np.array([5.0, 4.5] if quick else [5.5, 5.4, 5.25, 5.0, 4.75, 4.5, 4.35, 4.2, 4.1, 4.05])
    report = progress(len(weights), "periods")
    periods = []
    for i, weight in enumerate(weights):
        # From the cycle found before, since the approach is slow near w = 4: the eigenvalues' real part is w/4 - 1.
        start = orbit.ys[0] if not i else there.ys[0]
        there = cycle(circuit(weight), start, 60 + 12 / (weight / 4 - 1), 50.0, coarse)
        periods.append(there.period)
        report(i + 1)
    rest = ctrnn.integrate(circuit(3.9), None, torch.tensor([4.0, 1.0]).double(), t_span=(0.0, 900.0), steps=coarse).xs[
        -1
    ]
    return Result(figure(model, found, orbit, weights, periods), claims(model, found, orbit, rest, w, settle))


def claims(
    model: BeerCTRNN, found: analysis.FixedPoints, orbit: Cycle, rest: torch.Tensor, w: float, settle: float
) -> list[Claim]:
    """What was measured beside what is known for this w."""
    value = found.eigenvalues[0][found.eigenvalues[0].imag.argmax()] if len(found.x) else torch.tensor(complex("nan"))
    centre = -model.theta.detach()
    result = [
        Claim.equal("the circuit has one equilibrium", len(found.x), 1, BEER),
        Claim.below("its distance to the centre crossing y = -theta", (found.x - centre).norm(), 1e-10, "derived"),
        Claim.near("real part of its eigenvalues, w/4 - 1", value.real, w / 4 - 1, 1e-9, "derived"),
        Claim.near("imaginary part of its eigenvalues, c/4", value.imag, 0.25, 1e-9, "derived"),
        Claim.near(
            "period beside scipy's DOP853 at the same w", orbit.period, period_by_scipy(w, settle), 1e-6, "scipy"
        ),
        Claim.below(
            "at w = 3.9 the circuit comes to rest: distance to its equilibrium",
            (rest - torch.tensor([2.45, 1.45])).norm(),
            1e-6,
            "derived: the Hopf point is at w = 4",
        ),
    ]
    if w == 4.5:
        result += [
            Claim.near("period of the limit cycle, in tau", orbit.period, 28.9999, 1e-4, BEER + ", computed"),
            Claim.near("least y1 on the cycle", orbit.ys[:, 0].min(), 1.29385, 1e-5, BEER + ", computed"),
            Claim.near("greatest y1 on the cycle", orbit.ys[:, 0].max(), 4.20615, 1e-5, BEER + ", computed"),
        ]
    return result


def figure(
    model: BeerCTRNN, found: analysis.FixedPoints, orbit: Cycle, weights: np.ndarray, periods: list[float]
) -> Figure:
    """Phase plane, traces, and the period against the self-weight."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 2.5))
        plane, traces, curve = fig.subplots(1, 3, width_ratios=(1.1, 1.1, 1))
        _phase_plane(plane, model, found, orbit)
        traces.plot(orbit.ts, orbit.ys[:, 0], label="$y_1$", color=TRAJECTORY)
        traces.plot(orbit.ts, orbit.ys[:, 1], label="$y_2$", color=OUTPUT)
        traces.set(
            xlabel="time / $\\tau$", ylabel="state", title=f"one period: {orbit.period:.4f} $\\tau$", ylim=(0, 5.4)
        )
        traces.legend(loc="upper right", ncols=2)
        curve.plot(weights, periods, "o-", ms=3, color=TRAJECTORY, label="limit cycle")
        curve.axhline(8 * np.pi, color=QUIET, ls="--", lw=0.8, label="$8\\pi$, at the Hopf point")
        curve.axvline(4, color=QUIET, lw=0.8)
        curve.set(
            xlabel="self-weight $w$", ylabel="period / $\\tau$", title="the cycle is born at $w = 4$", xlim=(3.8, None)
        )
        curve.legend(loc="upper left")
    return fig


def _phase_plane(ax: Axes, model: BeerCTRNN, found: analysis.FixedPoints, orbit: Cycle) -> None:
    y1, y2 = np.linspace(0.4, 5.1, 120), np.linspace(-1.9, 4.4, 120)
    grid = torch.tensor(np.stack(np.meshgrid(y1, y2), -1))
    with torch.no_grad():
        velocity = model(torch.zeros(()), grid, grid.new_zeros(*grid.shape[:-1], 0)).numpy()
    plots.vector_field(ax, (y1, y2), np.moveaxis(velocity, -1, 0))
    for axis, color in ((0, INPUT), (1, OUTPUT)):
        ax.contour(y1, y2, velocity[..., axis], levels=[0.0], colors=[color], linewidths=0.8)
        ax.plot([], [], color=color, lw=0.8, label=f"$\\dot y_{axis + 1} = 0$")
    plots.trajectories(ax, orbit.ys.numpy(), label="limit cycle")
    ax.lines[-1].set(lw=1.5, alpha=1.0)
    plots.points(ax, found.x.numpy(), found.stable.numpy())
    ax.collections[-1].set_label("unstable focus")
    ax.set(xlabel="$y_1$", ylabel="$y_2$", title="phase plane", xlim=(y1[0], y1[-1]), ylim=(y2[0], y2[-1]))
    ax.legend(
        loc="lower right",
        handlelength=1.2,
        borderpad=0.2,
        labelspacing=0.2,
        frameon=True,
        framealpha=0.85,
        edgecolor="none",
        fontsize=6,
    )


if __name__ == "__main__":
    main(run)
