"""The family tree: every recurrent network of the package as one equation, tau dx/dt = F(x, u) - x.

Claim: each of them, found by walking the package, is its discrete network bit for bit at dt = tau, and with the same
weights approaches its flow with an error in proportion to dt.

Source: the idea of this package, derived; each network's own source stands in its docstring.
"""

import importlib
import inspect
import pkgutil
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor

import ctrnn
from ctrnn import _tree as tree
from ctrnn import models, plots
from ctrnn.plots.style import QUIET
from ctrnn.results import Claim, Result, main, progress

SAMPLES, BATCH = 6, 2
IDEA = "the idea of this package, derived"


class Member(NamedTuple):
    """A network, where it stands in the family, and what was measured on its smallest example with tau = 1."""

    kind: type[ctrnn.Relaxation]
    parts: list[str]  # of the state
    discrete: bool  # whether Euler at dt = tau is the iterated map bit for bit
    distances: list[float]  # greatest distance of Euler at dt = tau, tau/2, tau/4, ... from the flow, over its size

    @property
    def order(self) -> float:
        """The order at which the last halving of dt approaches the flow."""
        return float(np.log2(self.distances[-2] / self.distances[-1]))


def run(*, quick: bool = False, seed: int = 0, halvings: int = 9) -> Result:
    """Find the networks, and run the smallest example of each at dt = tau, at finer steps, and as a flow.

    Args:
        quick: fewer halvings of dt.
        seed: of drives and initial states.
        halvings: the smallest step is tau / 2**halvings.
    """
    halvings = 7 if quick else halvings
    kinds = networks()
    report = progress(len(kinds), "networks")
    members = []
    for i, kind in enumerate(kinds):
        members.append(member(kind, seed, halvings))
        report(i + 1)
    return Result(figure(members), claims(members))


def networks() -> list[type[ctrnn.Relaxation]]:
    """Every relaxation of the package that has an equation of its own, file by file."""
    names = [info.name for info in pkgutil.walk_packages(models.__path__, models.__name__ + ".")]
    found: dict[type[ctrnn.Relaxation], None] = {}
    for name in names:
        for kind in vars(importlib.import_module(name)).values():
            own = inspect.isclass(kind) and issubclass(kind, ctrnn.Relaxation) and kind.__module__ == name
            if own and kind.target is not ctrnn.Relaxation.target and kind.__name__[0] != "_":
                found[kind] = None
    return list(found)


@torch.no_grad()
def member(kind: type[ctrnn.Relaxation], seed: int, halvings: int) -> Member:
    """The smallest example of a network in float64, all its time constants 1."""
    model = kind.example().double()
    model.tau = 1.0
    draw = Generator().manual_seed(seed)
    us = 0.5 * torch.randn(SAMPLES, BATCH, model.n_in, generator=draw, dtype=torch.float64)
    x0 = tree.map(
        lambda leaf: leaf + 0.3 * torch.randn(leaf.shape, generator=draw, dtype=leaf.dtype), model.initial_state(BATCH)
    )

    def states(**how: Any) -> Tensor:
        run_ = ctrnn.integrate(model, us, x0, dt=1.0, **how)
        return torch.cat([leaf.flatten(1) for leaf in tree.leaves(run_.xs)], 1)

    flow = states(steps=ctrnn.Adaptive(1e-10, 1e-12))
    runs = [states(steps=ctrnn.Fixed(0.5**k)) for k in range(halvings + 1)]
    return Member(
        kind,
        [name for name, _ in tree.named(x0)],
        torch.equal(runs[0], states(solver=ctrnn.Iterate())),
        [float((run_ - flow).abs().max() / flow.abs().max()) for run_ in runs],
    )


def claims(members: list[Member]) -> list[Claim]:
    """The two ends of dt."""
    orders = [one.order for one in members]
    names = ", ".join(one.kind.__name__ for one in members)
    return [
        Claim.equal(
            f"networks whose Euler run at dt = tau is the discrete network bit for bit ({names})",
            sum(one.discrete for one in members),
            len(members),
            IDEA,
        ),
        Claim.at_least(
            "least order at which Euler approaches the flow as dt is halved, over all of them",
            min(orders),
            0.9,
            "forward Euler has order 1",
        ),
        Claim.below(
            "greatest distance from the flow at the smallest dt, over the size of the states",
            max(one.distances[-1] for one in members),
            0.05,
            "forward Euler has order 1",
        ),
    ]


def figure(members: list[Member]) -> Figure:
    """A row for each network: its branch, its name, its equation, and how far it is from its flow at each dt."""
    files = list(dict.fromkeys(one.kind.__module__ for one in members))
    rows: list[Member | str] = []
    for file in files:
        rows += [file, *(one for one in members if one.kind.__module__ == file)]
    with plots.style():
        fig = Figure(figsize=(1.5 * plots.DOUBLE, 0.9 + 0.21 * len(rows)))
        text, cells = fig.subplots(1, 2, width_ratios=(4.6, 1), sharey=True)
        _tree_of(text, rows)
        _cells(fig, cells, rows)
    return fig


def _tree_of(ax: Axes, rows: list[Member | str]) -> None:
    ax.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -1.8))
    ax.axis("off")
    ax.text(0.0, -1.1, r"$\tau\,\dot{x} = F(x, u) - x$", fontsize=11, va="center")
    trunk, stem, name, equation = 0.008, 0.03, 0.042, 0.2
    branch = 0
    for i, row in enumerate(rows):
        if isinstance(row, str):
            branch = i
            ax.plot([trunk, trunk, stem - 0.008], [-0.7, i, i], color=QUIET, lw=0.7)
            ax.text(stem - 0.005, i, _question(row), va="center", fontsize=7, style="italic", color="#555555")
            continue
        ax.plot([stem, stem, name - 0.004], [branch + 0.4, i, i], color=QUIET, lw=0.7)
        ax.text(name, i, row.kind.__name__, va="center", fontsize=8, weight="bold")
        ax.text(equation, i, _equation(row.kind), va="center", fontsize=7, family="monospace")


def _question(module: str) -> str:
    """The question that a file answers: the first line of its docstring."""
    return (inspect.getdoc(importlib.import_module(module)) or module).splitlines()[0].rstrip(".")


def _equation(kind: type) -> str:
    """The first line of the class's docstring, which the tests require to be its equation."""
    line = (kind.__doc__ or "").splitlines()[0].rstrip(".")
    return line if len(line) <= 96 else line[:94] + " ..."


def _cells(fig: Figure, ax: Axes, rows: list[Member | str]) -> None:
    halvings = next(len(row.distances) for row in rows if isinstance(row, Member))
    table = np.full((len(rows), halvings), np.nan)
    for i, row in enumerate(rows):
        if isinstance(row, Member):
            table[i] = np.log10(row.distances)
    image = ax.imshow(table, aspect="auto", cmap="viridis_r", interpolation="none", vmin=-4, vmax=0)
    ax.set_ylim(len(rows) - 0.4, -1.8)
    ax.set_xticks(range(0, halvings, 2), [r"$\tau$", *(rf"$\tau/{2**k}$" for k in range(2, halvings, 2))])
    ax.set(xlabel="step dt", title="distance from the flow")
    ax.tick_params(left=False, labelleft=False)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    bar = fig.colorbar(image, ax=ax, location="bottom", aspect=18, pad=0.01, extend="both")
    bar.set_label("relative to the states' size")
    bar.set_ticks([-4, -2, 0], labels=["1e-4", "1e-2", "1"])


if __name__ == "__main__":
    main(run)
