"""Where one and two of Beer's neurons change their behaviour: folds, a cusp, a Hopf point, and the end of a cycle.

Claim: one neuron with self-weight w has two folds in its input for w > 4 that meet in a cusp at w = 4; two neurons at
centre-crossing, W = [[w, c], [-c, w]], pass a supercritical Hopf point at w = 4 with the frequency c/4; for c = 1 their
cycle ends at w = 6.1433 in four saddle-nodes at once, on branches that are not connected with the central equilibrium,
and its period grows as (6.1433 - w)^(-1/2) with the factor that the saddle-nodes' normal form gives.

Source: Beer (1995), Adaptive Behavior 3:469-509; the folds, the Hopf point and the factor follow from the equation.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp
from scipy.optimize import root
from torch import Tensor

import ctrnn
from ctrnn import analysis, plots
from ctrnn.analysis import Branch, CycleBranch, Fold, Hopf
from ctrnn.models import BeerCTRNN
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, STABLE, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress

MESH = 120  # intervals: fine enough for a cycle that creeps by four saddle-nodes
BEER = "Beer (1995), Adaptive Behavior 3:469"
KNOWN = {4.01: 25.1958, 4.1: 25.7845, 4.5: 28.9999, 5.0: 35.406, 5.5: 48.767, 6.0: 110.26}  # period at w, by RK4


class One(NamedTuple):
    """One neuron: branches in its input for some self-weights, and the folds for many."""

    branches: dict[float, Branch]
    weights: list[float]
    folds: list[list[float]]  # I + theta of the folds for each of the weights


class Two(NamedTuple):
    """Two neurons with c = 1."""

    central: Branch
    outer: list[Branch]  # the branches that are born in the folds
    cycles: CycleBranch
    periods: dict[float, float]
    omegas: dict[float, tuple[float, float]]  # c: (w, omega) of the Hopf point


def run(*, quick: bool = False, seed: int = 0, seeds: int = 1, longest: float = 1000.0) -> Result:
    """Continue equilibria and cycles, and check every point against the equations.

    Args:
        quick: fewer self-weights and periods, longer strides and shorter branches.
        seed: of the starts from which the outer equilibria are searched.
        seeds: not used, nothing else is random.
        longest: period at which the branch of cycles ends, in tau.
    """
    del seeds
    longest = 400.0 if quick else longest
    report = progress(3, "branches")
    one = one_neuron(
        1.0 if quick else 0.1, [6.0] if quick else [4.01, 4.02, 4.05, 4.1, 4.2, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0]
    )
    report(1)
    periods = [4.5] if quick else list(KNOWN)
    two = two_neurons(longest, 0.4 if quick else 0.15, periods, seed)
    report(2)
    witness = {w: period_by_scipy(w) for w in periods}
    after = end_of(6.3)
    report(3)
    return Result(figure(one, two), claims(one, two, witness, after))


def one_neuron(most: float, weights: list[float]) -> One:
    """tau y' = -y + w sigma(y) + I for several w, theta = 0; `most` is the longest stride."""
    branches = {w: _in_input(w, most) for w in (2.0, 4.0, 6.0)}
    folds = [[p.parameter for p in _in_input(w, most).points if isinstance(p, Fold)] for w in weights]
    return One(branches, weights, folds)


def _in_input(w: float, most: float) -> Branch:
    model = BeerCTRNN(1, 1).double()
    with torch.no_grad():
        model.W_rec.fill_(w)
        model.theta.zero_()
        model.W_in.fill_(1.0)
    x0 = torch.tensor([-7.0], dtype=torch.float64)
    return analysis.continue_equilibria(model, x0, "u[0]", (-7.0, 2.0), stride=analysis.Stride(most=most))


def family(c: float) -> Callable[[Tensor], dict[str, Tensor]]:
    """The weights and biases of two neurons at centre-crossing as functions of w."""

    def values(w: Tensor) -> dict[str, Tensor]:
        cross = torch.full_like(w, c)
        W = torch.stack([torch.stack([w, cross]), torch.stack([-cross, w])])
        return {"W_rec": W, "theta": -W.sum(1) / 2}

    return values


def circuit(w: float) -> BeerCTRNN:
    """Two neurons with c = 1."""
    model = BeerCTRNN(2).double()
    with torch.no_grad():
        for name, value in family(1.0)(torch.tensor(w, dtype=torch.float64)).items():
            model.get_parameter(name).copy_(value)
    return model


def centre(w: float, c: float) -> Tensor:
    """The central equilibrium, y = -theta."""
    return torch.tensor([w + c, w - c], dtype=torch.float64) / 2


def two_neurons(longest: float, most: float, periods: list[float], seed: int) -> Two:
    """The central branch, its cycles, and the branches beyond w = 6.15 that it does not reach."""
    stride = analysis.Stride(first=0.01, most=most)
    model, values = circuit(3.0), family(1.0)
    central = analysis.continue_equilibria(model, centre(3.0, 1.0), values, (3.0, 7.5))
    hopf = next(point for point in central.points if isinstance(point, Hopf))
    cycles = analysis.continue_cycles(
        model, hopf, values, (3.0, 7.5), intervals=MESH, max_period=longest, stride=stride
    )
    found = {
        w: float(analysis.continue_cycles(model, hopf, values, (3.0, w), intervals=MESH).period[-1]) for w in periods
    }
    omegas = {}
    for c in (0.5, 1.0, 2.0):
        point = analysis.continue_equilibria(model, centre(3.0, c), family(c), (3.0, 5.0)).points[0]
        omegas[c] = (point.parameter, point.omega) if isinstance(point, Hopf) else (math.nan, math.nan)
    starts = torch.rand(200, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 16 - 4
    there = analysis.fixed_points(circuit(7.5), starts)
    # From the nodes: each branch turns at its fold and comes back as a saddle.
    outer = [analysis.continue_equilibria(model, x, values, (7.5, 5.0)) for x in there.x[there.stable]]
    return Two(central, outer, cycles, found, omegas)


def field(w: float, y: np.ndarray) -> np.ndarray:
    """The equation of two neurons, typed out again for the witnesses."""
    s = 1 / (1 + np.exp(-(y - np.array([w + 1, w - 1]) / 2)))
    return -y + np.array([w * s[0] + s[1], -s[0] + w * s[1]])


def period_by_scipy(w: float) -> float:
    """The period by DOP853 and its event location."""

    def upward(t: float, y: np.ndarray) -> float:
        del t
        return y[0] - (w + 1) / 2

    upward.direction = 1  # type: ignore[attr-defined]
    start = np.array([(w + 1) / 2 + 3 * math.sqrt(w - 4), (w - 1) / 2])
    length = 60 + 12 / (w / 4 - 1) + 4 * KNOWN[w]
    run = solve_ivp(
        lambda t, y: field(w, y), (0, length), start, method="DOP853", rtol=1e-11, atol=1e-12, events=upward
    )
    return float(run.t_events[0][-1] - run.t_events[0][-2])


def fold_by_scipy() -> float:
    """w where an outer equilibrium has a singular Jacobian, by scipy's root on three equations."""

    def equations(z: np.ndarray) -> np.ndarray:
        w, y = z[0], z[1:]
        s = 1 / (1 + np.exp(-(y - np.array([w + 1, w - 1]) / 2)))
        d = s * (1 - s)
        return np.array([*field(w, y), (w * d[0] - 1) * (w * d[1] - 1) + d[0] * d[1]])

    return float(root(equations, [6.2, 6.6, 3.8], tol=1e-13).x[0])


def end_of(w: float) -> Tensor:
    """Where the run from the centre ends beyond the end of the cycle."""
    start = centre(w, 1.0) + 0.1
    return ctrnn.integrate(
        circuit(w), None, start, t_span=(0.0, 400.0), steps=ctrnn.Adaptive(1e-9, 1e-10), save=ctrnn.Last()
    ).xs[-1]


def passage(fold: Fold) -> float:
    """T (w* - w)^(1/2) of one passage by a saddle-node, pi / sqrt(a b).

    Along its null vector xi' = a (w - w*) + b xi^2, the normal form of the fold (Kuznetsov 2004, Elements of Applied
    Bifurcation Theory, section 3.3), with a and b by derivatives of the vector field.
    """
    x, w, right = fold.x, torch.tensor(fold.parameter, dtype=torch.float64), fold.direction

    def move(x: Tensor, w: Tensor) -> Tensor:
        W, theta = family(1.0)(w).values()
        return -x + W @ torch.sigmoid(x + theta)

    J = torch.func.jacrev(move)(x, w)
    left = torch.linalg.svd(J).U[:, -1]
    left = left / (left @ right)
    a = left @ torch.func.jacfwd(move, argnums=1)(x, w)
    b = (
        torch.func.jacfwd(torch.func.jacfwd(lambda e: left @ move(x + e * right, w)))(torch.zeros((), dtype=x.dtype))
        / 2
    )
    return math.pi / math.sqrt(abs(float(a * b)))


def folds_on_paper(w: float) -> tuple[float, float]:
    """I + theta = x - w sigma(x) where sigma'(x) = 1/w."""
    root_ = math.sqrt(0.25 - 1 / w)
    low, high = (x - w * s for s in (0.5 - root_, 0.5 + root_) for x in (math.log(s / (1 - s)),))
    return low, high


def law(two: Two) -> tuple[float, float, float]:
    """Where 1 / T^2 meets 0, the factor T (w* - w)^(1/2) there, and the exponent against the distance to the folds."""
    w_star = float(np.mean([p.parameter for branch in two.outer for p in branch.points if isinstance(p, Fold)]))
    w, T = two.cycles.parameter.numpy(), two.cycles.period.numpy()
    late = (T.max() * 0.4 < T) & (w < w_star)
    slope, offset = np.polyfit(w[late], T[late] ** -2, 1)
    exponent = np.polyfit(np.log(w_star - w[late]), np.log(T[late]), 1)[0]
    return float(-offset / slope), float((-slope) ** -0.5), float(exponent)


def claims(one: One, two: Two, witness: dict[float, float], after: Tensor) -> list[Claim]:
    """Every point against the equations."""
    return [*_one_neuron(one), *_hopf(two), *_cycle(two, witness), *_end(two, after)]


def _one_neuron(one: One) -> list[Claim]:
    apart = [abs(a - b) for w, found in zip(one.weights, one.folds, strict=True) for a, b in _pairs(found, w)]
    widths = [abs(found[0] - found[1]) if len(found) == 2 else math.nan for found in one.folds]
    near = [(w, width) for w, width in zip(one.weights, widths, strict=True) if w <= 4.5]
    middle = [
        abs(sum(found) / 2 + w / 2) if len(found) == 2 else math.nan
        for w, found in zip(one.weights, one.folds, strict=True)
    ]
    six = sorted(p.parameter for p in one.branches[6.0].points if isinstance(p, Fold))
    result = [
        Claim.near("one neuron, w = 6: I + theta at the first fold", six[0], -3.415093, 1e-6, "derived, " + BEER),
        Claim.near("one neuron, w = 6: I + theta at the second fold", six[-1], -2.584907, 1e-6, "derived, " + BEER),
        Claim.below(
            f"one neuron: greatest error of {len(apart)} folds against I + theta = x - w sigma(x), sigma'(x) = 1/w",
            max(apart),
            1e-8,
            "derived",
        ),
        Claim.equal("one neuron, w = 2: folds", len(one.branches[2.0].points), 0, "derived: the cusp is at w = 4"),
        Claim.below(
            "one neuron: distance of the folds' middle to -w/2, on which the cusp I + theta = -2 lies",
            max(middle),
            1e-8,
            "derived",
        ),
    ]
    if len(near) > 3:
        slope = np.polyfit(np.log([w - 4 for w, _ in near]), np.log([width for _, width in near]), 1)[0]
        result.append(
            Claim.near("exponent of the folds' distance against w - 4, a cusp's", slope, 1.5, 0.05, "derived")
        )
    return result


def _pairs(found: list[float], w: float) -> list[tuple[float, float]]:
    # A fold that was not found is an infinite error.
    paper = sorted(folds_on_paper(w))
    return list(zip(sorted(found), paper, strict=True)) if len(found) == 2 else [(math.inf, 0.0)]


def _hopf(two: Two) -> list[Claim]:
    values = two.cycles.multipliers
    w, amplitude = two.cycles.parameter, two.cycles.orbits[:, :, 0]
    size = (amplitude.amax(1) - amplitude.amin(1)) / 2
    early = (w > 4.0005) & (w < 4.05)
    slope = (
        np.polyfit((w[early] - 4).log().numpy(), size[early].log().numpy(), 1)[0] if int(early.sum()) > 2 else math.nan
    )
    return [
        Claim.below(
            "two neurons, c = 0.5, 1, 2: greatest |w - 4| at the Hopf point",
            max(abs(w - 4) for w, _ in two.omegas.values()),
            1e-8,
            "derived: eigenvalues w/4 - 1 +- ic/4",
        ),
        Claim.below(
            "the same: greatest |omega - c/4|",
            max(abs(omega - c / 4) for c, (_, omega) in two.omegas.items()),
            1e-8,
            "derived",
        ),
        Claim.equal("cycles of the branch that are stable, fraction", two.cycles.stable.double().mean(), 1.0, BEER),
        Claim.at_least("least w of a cycle: the Hopf point is supercritical", two.cycles.parameter.min(), 4.0, BEER),
        Claim.near(
            "exponent of the cycle's size against w - 4, near it", slope, 0.5, 0.02, "derived: Hopf normal form"
        ),
        Claim.below(
            "greatest distance of a multiplier from 1 along the branch, the trivial one",
            (values - 1).abs().amin(-1).max(),
            1e-4,
            "Floquet's theorem",
        ),
        Claim.below(
            "greatest relative error of ln of the product of multipliers against the integral of the trace",
            max(_liouville(two.cycles)),
            1e-3,
            "Liouville's formula",
        ),
    ]


def _liouville(branch: CycleBranch) -> list[float]:
    errors = []
    for w, T, orbit, ts, values in zip(
        branch.parameter, branch.period, branch.orbits, branch.ts, branch.multipliers, strict=True
    ):
        product = float(values.prod().real)
        if product < 1e-6:  # below the error of the collocation's own multipliers
            continue
        s = torch.sigmoid(orbit - centre(float(w), 1.0))
        trace = (w * s * (1 - s)).sum(-1) - 2
        integral = float(T * torch.trapezoid(trace, ts))
        errors.append(abs(math.log(product) / integral - 1) if abs(integral) > 0.05 else 0.0)
    return errors or [math.nan]


def _cycle(two: Two, witness: dict[float, float]) -> list[Claim]:
    return [
        Claim.below(
            f"greatest relative difference to the period by scipy's DOP853 at w = {', '.join(map(str, witness))}",
            max(abs(two.periods[w] / T - 1) for w, T in witness.items()),
            1e-6,
            "scipy",
        ),
        *(
            Claim.near(f"period at w = {w}, in tau", two.periods[w], KNOWN[w], 5e-5 * KNOWN[w], "RK4 at fixed steps")
            for w in witness
        ),
    ]


def _end(two: Two, after: Tensor) -> list[Claim]:
    folds = [p for branch in two.outer for p in branch.points if isinstance(p, Fold)]
    w_star = fold_by_scipy()
    meets, factor, exponent = law(two)
    passages = sum(passage(fold) for fold in folds)
    nodes = torch.stack([_at(branch, 6.3) for branch in two.outer])
    return [
        Claim.equal("folds on the four branches that are disconnected from the centre", len(folds), 4, "derived"),
        Claim.below(
            "greatest distance of the four to w*, where the Jacobian is singular by scipy's root",
            max(abs(fold.parameter - w_star) for fold in folds),
            1e-7,
            "scipy",
        ),
        Claim.near("w* of the folds", w_star, 6.1433, 5e-5, "computed for the handbook by integration"),
        Claim.equal("special points of the central branch beyond w = 5", _late(two.central), 0, "derived"),
        Claim.near("w at which 1 / T^2 of the cycle meets 0, against w*", meets, w_star, 1e-3, "saddle-node's law"),
        Claim.near("exponent of the period against w* - w", exponent, -0.5, 0.02, "saddle-node's law"),
        Claim.near(
            f"T (w* - w)^(1/2) over {passages:.3f}, the four normal forms' pi / sqrt(a b) together",
            factor / passages,
            1.0,
            0.05,
            "derived",
        ),
        Claim.below(
            "beyond the end, w = 6.3, the run from the centre ends in a node: distance to the nearest",
            (nodes - after).norm(dim=-1).min(),
            1e-3,
            "derived",
        ),
    ]


def _late(branch: Branch) -> int:
    return sum(point.parameter > 5 for point in branch.points)


def _at(branch: Branch, w: float) -> Tensor:
    """The stable equilibrium of a branch at w, from its neighbours on the branch."""
    found = analysis.fixed_points(circuit(w), branch.x[branch.stable])
    nearest = torch.cdist(found.x, branch.x[branch.stable]).min(1).values.argmin()
    return found.x[nearest]


def figure(one: One, two: Two) -> Figure:
    """Diagrams of one and of two neurons, the period, and the cycle as it ends."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 4.6))
        axes = fig.subplots(2, 3)
        _inputs(axes[0, 0], one)
        _cusp(axes[0, 1], one)
        _diagram(axes[0, 2], two)
        _period(axes[1, 0], two)
        _law(axes[1, 1], two)
        _portrait(axes[1, 2], two)
    return fig


def _inputs(ax: Axes, one: One) -> None:
    for (w, branch), color in zip(one.branches.items(), (QUIET, INPUT, STABLE), strict=True):
        plots.equilibria(ax, branch, color=color, label=f"$w = {w:g}$")
    ax.set(xlabel="input $I + \\theta$", ylabel="$y$", title="one neuron", xlim=(-6, 1))
    ax.legend(loc="upper left")


def _cusp(ax: Axes, one: One) -> None:
    ws = np.linspace(4, max(one.weights), 200)
    paper = np.array([folds_on_paper(w) for w in ws])
    ax.fill_betweenx(ws, *np.sort(paper, 1).T, color="0.93", lw=0)
    ax.plot(paper, ws, color=QUIET, lw=0.8, label="on paper")
    handles = [
        ax.plot(found, [w] * len(found), "v", color=TRAJECTORY, ms=3)[0]
        for w, found in zip(one.weights, one.folds, strict=True)
    ]
    ax.plot(-2, 4, "*", color=UNSTABLE, ms=7)
    ax.legend([handles[0], ax.lines[0], ax.lines[-1]], ["folds found", "on paper", "cusp"], loc="lower left")
    ax.text(-0.45 * ws[-1], 0.9 * ws[-1], "2 stable\n1 unstable", ha="center", va="center", fontsize=6)
    ax.set(xlabel="input $I + \\theta$", ylabel="self-weight $w$", title="where its folds lie")


def _diagram(ax: Axes, two: Two) -> None:
    for i, branch in enumerate(two.outer):
        plots.equilibria(ax, branch, label="outer nodes" if not i else None, color=OUTPUT)
    plots.equilibria(ax, two.central, label="centre")
    plots.cycles(ax, two.cycles, label="cycle, max and min")
    ax.set(xlabel="self-weight $w$", ylabel="$y_1$", title="two neurons, $c = 1$", xlim=(1.5, 7.7), ylim=(-0.4, 9.8))
    ax.legend(loc="upper left", handlelength=1.4, labelspacing=0.3, fontsize=6)


def _period(ax: Axes, two: Two) -> None:
    plots.period(ax, two.cycles, label="collocation")
    ax.plot(list(KNOWN), list(KNOWN.values()), "x", color=UNSTABLE, ms=4, label="RK4")
    ax.axhline(8 * math.pi, color=QUIET, ls="--", lw=0.8, label="$8\\pi$, at the Hopf point")
    ax.set(yscale="log", xlabel="self-weight $w$", ylabel="period / $\\tau$", title="period along the branch")
    ax.legend(loc="upper left")


def _law(ax: Axes, two: Two) -> None:
    folds = [p for branch in two.outer for p in branch.points if isinstance(p, Fold)]
    w_star, factor = fold_by_scipy(), sum(passage(fold) for fold in folds)
    w, T = two.cycles.parameter.numpy(), two.cycles.period.numpy()
    distance = w_star - w
    ax.loglog(distance, T, "o", ms=3, color=TRAJECTORY, label="collocation")
    line = np.geomspace(distance.min(), 0.3, 50)
    ax.loglog(line, factor * line**-0.5, color=UNSTABLE, label=f"${factor:.2f}\\,(w^* - w)^{{-1/2}}$, normal form")
    ax.set(xlabel="$w^* - w$", ylabel="period / $\\tau$", title=f"the cycle ends at $w^* = {w_star:.4f}$")
    ax.legend(loc="lower left", fontsize=6)


def _portrait(ax: Axes, two: Two) -> None:
    chosen = [int((two.cycles.parameter - w).abs().argmin()) for w in (5.0, 5.8)] + [len(two.cycles.period) - 1]
    for i, color in zip(chosen, ("#9ecae1", "#4292c6", TRAJECTORY), strict=True):
        orbit = two.cycles.orbits[i].numpy()
        ax.plot(*np.vstack([orbit, orbit[:1]]).T, color=color, label=f"$w = {float(two.cycles.parameter[i]):.3f}$")
    folds = np.array([p.x.numpy() for branch in two.outer for p in branch.points if isinstance(p, Fold)])
    ax.plot(*folds.T, "v", color=QUIET, mec="black", mew=0.5, ms=5, label="saddle-nodes")
    ax.set(
        xlabel="$y_1$",
        ylabel="$y_2$",
        title="cycles and four saddle-nodes",
        aspect="equal",
        xlim=(-0.4, 7.6),
        ylim=(-1.2, 6.4),
    )
    ax.legend(loc="center", bbox_to_anchor=(0.5, 0.5), handlelength=1.0, labelspacing=0.2, fontsize=5.5)


if __name__ == "__main__":
    main(run)
