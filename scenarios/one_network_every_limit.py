"""One network, every limit: the discrete network, the leaky one and the flow are one equation.

Claim: at dt = tau Elman, GRU, LSTM and a two-layer stack are torch's cells bit for bit, in float32 and in float64; at
tau/2, tau/4, ... the same weights converge to the solution of tau dx/dt = F(x, u) - x with the order of the solver.

Source: Funahashi & Nakamura (1993), Neural Networks 6:801 (continuous-time networks); torch.nn for the discrete ones.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import ctrnn
from ctrnn import plots
from ctrnn.models import GRU, LSTM, Elman, Stack
from ctrnn.plots.style import CYCLE, QUIET, TARGET
from ctrnn.results import Claim, Result, main, progress

N_IN, UNITS, SAMPLES, BATCH = 3, 8, 12, 4
UNITY = "the idea of this package, derived"


class Twin(NamedTuple):
    """One of our networks beside the torch cells with the same weights; `unroll` runs the cells."""

    model: ctrnn.Model
    unroll: Callable[[Tensor], Tensor]


def unrolled(cells: list[nn.Module]) -> Callable[[Tensor], Tensor]:
    """The outputs (time, batch, unit) of torch cells, one on top of the other, started at zero."""

    def run(us: Tensor) -> Tensor:
        states: list[Tensor | tuple[Tensor, Tensor] | None] = [None] * len(cells)
        ys = []
        for u in us:
            for i, cell in enumerate(cells):
                states[i] = cell(u, states[i])
                state = states[i]
                u = state[0] if isinstance(state, tuple) else state
            ys.append(u)
        return torch.stack(ys)

    return run


def twins(dtype: torch.dtype) -> dict[str, Twin]:
    """The four networks with torch's own initial weights, tau = 1."""
    elman, gru, lstm = nn.RNNCell(N_IN, UNITS), nn.GRUCell(N_IN, UNITS), nn.LSTMCell(N_IN, UNITS)
    lower, upper = nn.GRUCell(N_IN, UNITS), nn.LSTMCell(UNITS, UNITS)
    found = {
        "Elman": Twin(Elman.from_torch(elman), unrolled([elman])),
        "GRU": Twin(GRU.from_torch(gru), unrolled([gru])),
        "LSTM": Twin(LSTM.from_torch(lstm), unrolled([lstm])),
        "stack of GRU and LSTM": Twin(Stack([GRU.from_torch(lower), LSTM.from_torch(upper)]), unrolled([lower, upper])),
    }
    for cell in (elman, gru, lstm, lower, upper):
        cell.to(dtype)
    return {name: Twin(twin.model.to(dtype), twin.unroll) for name, twin in found.items()}


@torch.no_grad()
def run(*, quick: bool = False, seed: int = 0, seeds: int = 1, halvings: int = 8) -> Result:
    """Compare with torch's cells at dt = tau, then halve dt and compare with the adaptive solution.

    Args:
        quick: five halvings.
        seed: of weights and drive.
        seeds: how many draws of weights and drive are compared bit for bit.
        halvings: the smallest step is tau / 2**halvings.
    """
    steps = [2.0**-k for k in range((5 if quick else halvings) + 1)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unequal = {dtype: unequal_entries(dtype, seeds) for dtype in (torch.float32, torch.float64)}
        networks = twins(torch.float64)
        us = torch.randn(SAMPLES, BATCH, N_IN, dtype=torch.float64)
    report = progress(len(networks), "halving dt")
    exact, errors, fourth = {}, {}, {}
    for i, (name, twin) in enumerate(networks.items()):
        exact[name] = ctrnn.integrate(twin.model, ctrnn.Held(us, 1.0), steps=ctrnn.Adaptive(1e-10, 1e-11)).ys
        errors[name] = [error(twin.model, us, dt, ctrnn.Euler(), exact[name]) for dt in steps]
        fourth[name] = [error(twin.model, us, dt, ctrnn.RK4(), exact[name]) for dt in steps[:6]]
        report(i + 1)
    return Result(figure(networks, us, steps, errors, fourth), claims(unequal, seeds, steps, errors, fourth))


def unequal_entries(dtype: torch.dtype, seeds: int) -> dict[str, int]:
    """How many outputs at dt = tau differ from those of torch's cells, over all draws."""
    total: dict[str, int] = {}
    for _ in range(seeds):
        us = torch.randn(SAMPLES, BATCH, N_IN, dtype=dtype)
        for name, twin in twins(dtype).items():
            with ctrnn.plain():  # bits are those of torch's operations in torch's order; kernels agree to rounding
                ours = ctrnn.integrate(twin.model, us, dt=1.0).ys
            total[name] = total.get(name, 0) + int((ours != twin.unroll(us)).sum())
    return total


def error(model: ctrnn.Model, us: Tensor, dt: float, solver: ctrnn.Solver, exact: Tensor) -> float:
    """Root mean square distance from the adaptive solution at the sample times."""
    ys = ctrnn.integrate(model, ctrnn.Held(us, 1.0), steps=ctrnn.Fixed(dt), solver=solver).ys
    return float((ys - exact).square().mean().sqrt())


def order(steps: list[float], errors: list[float]) -> float:
    """Slope of the error over the last two halvings, in logarithms."""
    return float(np.log2(errors[-3] / errors[-1]) / np.log2(steps[len(errors) - 3] / steps[len(errors) - 1]))


def claims(
    unequal: Mapping[torch.dtype, Mapping[str, int]],
    seeds: int,
    steps: list[float],
    errors: Mapping[str, list[float]],
    fourth: Mapping[str, list[float]],
) -> list[Claim]:
    """Bit equality at dt = tau, and the orders."""
    result = []
    for dtype, counts in unequal.items():
        kind = str(dtype).removeprefix("torch.")
        for name, count in counts.items():
            size = seeds * SAMPLES * BATCH * UNITS
            text = f"{name} at dt = tau: outputs of {size} that differ from torch's cells, {kind}"
            result.append(Claim.equal(text, count, 0, "torch.nn"))
    for name, values in errors.items():
        result.append(Claim.near(f"{name}: order of Euler as dt falls", order(steps, values), 1.0, 0.15, UNITY))
    for name, values in fourth.items():
        result.append(Claim.at_least(f"{name}: order of RK4 as dt falls", order(steps, values), 3.7, UNITY))
    return result


def figure(
    networks: Mapping[str, Twin],
    us: Tensor,
    steps: list[float],
    errors: Mapping[str, list[float]],
    fourth: Mapping[str, list[float]],
) -> Figure:
    """One unit of each network at several steps, and the error against the step."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 4.6))
        grid = fig.add_gridspec(4, 2, width_ratios=(1.25, 1))
        fine = torch.linspace(0, SAMPLES, 40 * SAMPLES + 1, dtype=torch.float64)
        for row, (name, twin) in enumerate(networks.items()):
            ax = fig.add_subplot(grid[row, 0])
            drive = ctrnn.Held(us[:, :1], 1.0)
            flow = ctrnn.integrate(twin.model, drive, steps=ctrnn.Adaptive(1e-9, 1e-9), save=ctrnn.At(fine))
            ax.plot(fine, flow.ys[:, 0, 0], color=TARGET, lw=2.2, label="flow (adaptive)")
            for dt, color, marker in ((0.25, CYCLE[5], "."), (0.5, CYCLE[2], "."), (1.0, CYCLE[0], "o")):
                ys = ctrnn.integrate(twin.model, drive, steps=ctrnn.Fixed(dt), save=ctrnn.Every(1))
                label = "$dt = \\tau$: torch's cell" if dt == 1 else f"$dt = \\tau / {round(1 / dt)}$"
                ax.plot(ys.ts, ys.ys[:, 0, 0], color=color, marker=marker, ms=3, lw=0.7, label=label)
            ax.set_title(name, loc="left", pad=2)
            ax.set_ylabel("$y_1$")
            ax.set_xlim(0, SAMPLES)
            ax.tick_params(labelbottom=row == 3)
            if row == 0:
                ax.legend(ncols=2, loc="lower left", bbox_to_anchor=(0.22, 0.98), columnspacing=1.0)
        ax.set_xlabel("time / $\\tau$")
        _errors(fig.add_subplot(grid[:, 1]), steps, errors, fourth)
    return fig


def _errors(ax: Axes, steps: list[float], errors: Mapping[str, list[float]], fourth: Mapping[str, list[float]]) -> None:
    for i, (name, values) in enumerate(errors.items()):
        plots.convergence(
            ax,
            steps,
            values,
            label=f"{name}: Euler {order(steps, values):.2f}, RK4 {order(steps, fourth[name]):.2f}",
            color=CYCLE[i],
        )
        ax.loglog(steps[: len(fourth[name])], fourth[name], color=CYCLE[i], marker="s", ms=3, lw=0.9, ls=":")
    guide = np.array([steps[-1], steps[0]])
    ax.loglog(guide, 0.5 * guide * max(v[0] for v in errors.values()), color=QUIET, lw=0.8, ls="--")
    ax.loglog([], [], color=QUIET, marker="o", ms=3, label="solid, circles: Euler")
    ax.loglog([], [], color=QUIET, marker="s", ms=3, ls=":", label="dotted, squares: RK4")
    ax.loglog([], [], color=QUIET, ls="--", label="slope 1")
    ax.set(
        xlabel="$dt / \\tau$", ylabel="rms distance from the flow at the sample times", title="error and measured order"
    )
    ax.set_ylim(1e-12, 1e4)
    ax.legend(loc="upper left", fontsize=6.5)


if __name__ == "__main__":
    main(run)
