"""The family tree: every recurrent network of the package as one equation, tau dx/dt = F(x, u) - x.

Claim: each of them, found by walking the package, is the iteration of its F bit for bit at dt = tau, which is the
discrete network wherever one was published (the LTC was published as a flow), and with the same weights it approaches
its flow with an error in proportion to dt. And all networks are kin: under the condition that its branch of the tree
states, each does what its parent does.

Source: the idea of this package, derived; each network's own source stands in its docstring.
"""

import importlib
import inspect
import pkgutil
import textwrap
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn

import ctrnn
from ctrnn import _tree as tree
from ctrnn import learning, models, plots
from ctrnn.models.kinship import ALWAYS, CONTINUOUS, DISCRETE, KIN, STEPS, Kin
from ctrnn.models.memory._controlled import External
from ctrnn.plots.style import QUIET, TRAJECTORY
from ctrnn.results import Claim, Result, main, progress

SAMPLES, BATCH = 6, 2
FLOW = 0.0  # in place of a step
WHICH = {ALWAYS: (1.0, 0.25, FLOW), STEPS: (1.0, 0.25), DISCRETE: (1.0,), CONTINUOUS: (FLOW,)}
EXPLICIT_EULER = "forward Euler has order 1"
IDEA = "the idea of this package, derived"
LINE = 0.125  # inches from line to line
WIDTH = 92  # letters of an equation to a line


class Member(NamedTuple):
    """A network, and what was measured on its smallest example with tau = 1."""

    kind: type[ctrnn.Relaxation]
    discrete: bool  # whether Euler at dt = tau is the iterated map bit for bit
    distances: list[float]  # greatest distance of Euler at dt = tau, tau/2, tau/4, ... from the flow, over its size

    @property
    def order(self) -> float:
        """The order at which the last halving of dt approaches the flow."""
        return float(np.log2(self.distances[-2] / self.distances[-1]))


class Row(NamedTuple):
    """A network in the drawing: how deep in the tree, and by which kinship (None: it has no parent)."""

    member: Member
    depth: int
    kin: Kin | None

    @property
    def text(self) -> list[str]:
        """Its equation, and what it is a case of."""
        lines = _equation(self.member.kind)
        if self.kin is None:
            return lines
        return [*lines, f"= {self.kin.parent.__name__} where {self.kin.where}; {self.kin.when}"]


def run(*, quick: bool = False, seed: int = 0, seeds: int = 3, halvings: int = 9) -> Result:
    """Find the networks, and run the smallest example of each at dt = tau, at finer steps, and as a flow.

    Args:
        quick: fewer halvings of dt, a flow to seven digits, one seed.
        seed: of weights, drives and initial states; seed, seed + 1, ...
        seeds: examples of each kinship.
        halvings: the smallest step is tau / 2**halvings.
    """
    halvings, seeds, rtol = (5, 1, 1e-7) if quick else (halvings, seeds, 1e-10)
    kinds = networks()
    report = progress(len(kinds) + len(KIN), "networks")
    members, differences = [], {}
    for i, kind in enumerate(kinds):
        members.append(member(kind, seed, halvings, rtol))
        report(i + 1)
    for i, kin in enumerate(KIN):
        differences[kin] = max(difference(kin, seed + k) for k in range(seeds))
        report(len(kinds) + i + 1)
    return Result(figure(rows(members)), claims(members, differences))


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


def composed() -> list[type[nn.Module]]:
    """What the package makes of several networks, or of a network and whole sequences."""
    public = [*(getattr(ctrnn, name) for name in ctrnn.__all__), *vars(learning).values()]
    kinds = [kind for kind in public if inspect.isclass(kind) and issubclass(kind, nn.Module)]
    return [kind for kind in kinds if not issubclass(kind, (ctrnn.Model, ctrnn.Step))]


@torch.no_grad()
def member(kind: type[ctrnn.Relaxation], seed: int, halvings: int, rtol: float) -> Member:
    """The smallest example of a network in float64, all its time constants 1."""
    model = kind.example().double()
    model.tau = 1.0
    draw = Generator().manual_seed(seed)
    us = 0.5 * torch.randn(SAMPLES, BATCH, model.n_in, generator=draw, dtype=torch.float64)
    begin = model.initial_state(BATCH)
    x0 = tree.map(lambda leaf: leaf + 0.3 * torch.randn(leaf.shape, generator=draw, dtype=leaf.dtype), begin)
    if isinstance(model, External):  # a memory's weightings and lengths stay what they may be
        x0 = begin._replace(controller=x0.controller)

    def states(**how: Any) -> Tensor:
        run_ = ctrnn.integrate(model, us, x0, dt=1.0, **how)
        return torch.cat([leaf.flatten(1) for leaf in tree.leaves(run_.xs)], 1)

    flow = states(steps=ctrnn.Adaptive(rtol, 0.01 * rtol))
    runs = [states(steps=ctrnn.Fixed(0.5**k)) for k in range(halvings + 1)]
    return Member(
        kind,
        torch.equal(runs[0], states(solver=ctrnn.Iterate())),
        [float((run_ - flow).abs().max() / flow.abs().max()) for run_ in runs],
    )


@torch.no_grad()
def difference(kin: Kin, seed: int) -> float:
    """The greatest difference between a network and its parent, over the size of the states, whatever the step."""
    worst = 0.0
    for dt in WHICH[kin.when]:
        pair = kin.pair(seed)
        pair.child.tau = pair.tau(dt)
        solver, steps = (ctrnn.RK4(), ctrnn.Fixed(0.05)) if dt == FLOW else (ctrnn.Euler(), ctrnn.Fixed(dt))
        xs, expected = (
            ctrnn.integrate(model, us, x0, dt=1.0, solver=solver, steps=steps).xs
            for model, us, x0 in (
                (pair.child, pair.us, pair.x0),
                (pair.parent, pair.parent_us, pair.seen(pair.x0)),
            )
        )
        for a, b in zip(tree.leaves(pair.seen(xs)), tree.leaves(expected), strict=True):
            worst = max(worst, float((a - b).abs().max() / b.abs().max()))
    return worst


def claims(members: list[Member], differences: dict[Kin, float]) -> list[Claim]:
    """The two ends of dt, and every branch of the tree."""
    names = ", ".join(one.kind.__name__ for one in members)
    return [
        Claim.equal(
            f"networks whose Euler run at dt = tau is the iteration of F bit for bit ({names})",
            sum(one.discrete for one in members),
            len(members),
            IDEA,
        ),
        Claim.at_least(
            "least order at which Euler approaches the flow as dt is halved, over all of them",
            min(one.order for one in members),
            0.9,
            EXPLICIT_EULER,
        ),
        Claim.below(
            "greatest distance from the flow at the smallest dt, over the size of the states",
            max(one.distances[-1] for one in members),
            0.05,
            EXPLICIT_EULER,
        ),
        *[
            Claim.below(
                f"{kin.child.__name__} is {kin.parent.__name__} where {kin.where}; {kin.when}: greatest difference",
                worst,
                kin.tolerance,
                IDEA,
            )
            for kin, worst in differences.items()
        ],
    ]


def rows(members: list[Member]) -> list[Row]:
    """The tree, depth first: parents before their children, in the order of `KIN`."""
    by_kind = {one.kind: one for one in members}
    children = {kin.child for kin in KIN}

    def below(kind: type, depth: int, kin: Kin | None) -> list[Row]:
        under = [row for k in KIN if k.parent is kind for row in below(k.child, depth + 1, k)]
        return [Row(by_kind[kind], depth, kin), *under]

    return [row for one in members if one.kind not in children for row in below(one.kind, 0, None)]


def figure(found: list[Row]) -> Figure:
    """A row for each network: its place in the tree, its equation, and how far it is from its flow at each dt."""
    others = composed()
    top, foot = 0.5, 0.5 + 2.4 * LINE * len(others)
    heights = [LINE * (len(row.text) + 0.7) for row in found]
    total = top + sum(heights) + foot + 0.2
    middle = 1 - (top + np.cumsum(heights) - np.array(heights) / 2) / total
    with plots.style():
        fig = Figure(figsize=(1.5 * plots.DOUBLE, total), layout="none")
        ax = fig.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.axis("off")
        ax.text(0.012, 1 - 0.55 * top / total, r"$\tau\,\dot{x} = F(x, u) - x$", fontsize=12, va="center")
        _branches(ax, found, middle, LINE / total)
        _composed(ax, others, middle[-1] - (heights[-1] / 2 + 0.3) / total, LINE / total)
        edges = 1 - np.concatenate([[top], top + np.cumsum(heights)]) / total
        _cells(fig, found, edges)
    return fig


def _branches(ax: Axes, found: list[Row], middle: np.ndarray, line: float) -> None:
    indent, name, equation = 0.016, 0.016, 0.235
    last: dict[int, float] = {}
    for row, y in zip(found, middle, strict=True):
        x = name + indent * row.depth
        if row.depth:
            ax.plot([x - 0.011, x - 0.011, x - 0.002], [last[row.depth - 1] - 0.8 * line, y, y], color=QUIET, lw=0.7)
        last[row.depth] = y
        ax.text(x, y, row.member.kind.__name__, va="center", fontsize=8, weight="bold")
        lines = row.text
        for k, text in enumerate(lines):
            kinship = row.kin is not None and k == len(lines) - 1
            ax.text(
                equation,
                y + line * ((len(lines) - 1) / 2 - k),
                text,
                va="center",
                fontsize=6.5,
                family=None if kinship else "monospace",
                style="italic" if kinship else "normal",
                color=TRAJECTORY if kinship else "black",
            )


def _composed(ax: Axes, others: list[type[nn.Module]], y: float, line: float) -> None:
    ax.text(0.016, y, "made of them", va="center", fontsize=8, style="italic", color="#555555")
    for k, kind in enumerate(others):
        ax.text(0.032, y - line * (2.4 * k + 2), kind.__name__, va="center", fontsize=8, weight="bold")
        lines = _equation(kind)
        for i, text in enumerate(lines):
            at = y - line * (2.4 * k + 2 + i - (len(lines) - 1) / 2)
            ax.text(0.235, at, text, va="center", fontsize=6.5, family="monospace")


def _equation(kind: type) -> list[str]:
    """The first line of the class's docstring, which the tests require of every model to be its equation.

    Broken between its parts, which stand apart by three spaces.
    """
    lines: list[str] = []
    for part in (kind.__doc__ or "").splitlines()[0].rstrip(".").split(",   "):
        if lines and len(lines[-1]) + len(part) + 4 <= WIDTH:
            lines[-1] += ",   " + part
        else:
            lines += textwrap.wrap(part, WIDTH, subsequent_indent="    ")
    return lines


def _cells(fig: Figure, found: list[Row], edges: np.ndarray) -> None:
    """The distances from the flow, a strip beside each equation."""
    table = np.log10([row.member.distances for row in found])
    halvings = table.shape[1]
    left, width = 0.8, 0.185
    ax = fig.add_axes((left, edges[-1], width, edges[0] - edges[-1]))
    mesh = ax.pcolormesh(np.arange(halvings + 1) - 0.5, edges, table, cmap="viridis_r", vmin=-4, vmax=0)
    ax.hlines(edges, -0.5, halvings - 0.5, color="white", lw=2.5)
    ax.set(ylim=(edges[-1], edges[0]), xlabel="step dt", title="distance of Euler's steps\nfrom the flow")
    ax.set_xticks(range(0, halvings, 2), [r"$\tau$", *(rf"$\tau/{2**k}$" for k in range(2, halvings, 2))])
    ax.tick_params(left=False, labelleft=False, length=0)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    bar = fig.colorbar(
        mesh,
        cax=fig.add_axes((left, edges[-1] - 0.055, width, 0.006)),
        orientation="horizontal",
        extend="both",
        label="relative to the size of the states",
    )
    bar.set_ticks([-4, -2, 0], labels=["1e-4", "1e-2", "1"])


if __name__ == "__main__":
    main(run)
