"""What two gated units can do: a limit cycle, many stable states, a homoclinic orbit; as a flow and as a map.

Claim: two gated units in continuous time have limit cycles, several stable states at once, and a cycle that ends in a
homoclinic orbit, where its period grows as -ln|p - p*| / lambda_u with the saddle's unstable eigenvalue. The square
|h| <= 1 is forward invariant, so the Poincare indices of all fixed points in it add to +1. The discrete network, a step
dt = tau, has the same fixed points with the eigenvalues 1 + lambda: it loses stability where the flow still rests.

Source: Jordan, Sokol & Park (2021), Frontiers in Computational Neuroscience 15:678158, without input.

Three experiments. *Rotation*: gates held at 1/2, U_c = 3 R(alpha), no biases; h = 0 loses its stability at cos alpha =
2/3 in the flow and at cos alpha = 1/4 in the map. *Census*: weights are normal with standard deviation 5, sums of the
two biases normal with 1.5, `networks` for each seed. The portrait is of the network with three or
more stable points whose slowest one is fastest. Fixed points are searched from 9 x 9 starts, and from 25 x 25 and
61 x 61 where the indices do not add to +1, for then some were missed. *Homoclinic*: U_c = 4 R(30 deg) with weak gates
and biases near a Bogdanov-Takens point, which lies where trace J = det J = 0; p is the second bias of the candidate.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.optimize import root
from torch import Tensor

from ctrnn import analysis, plots
from ctrnn.analysis import Branch, CycleBranch, Hopf, NeimarkSacker
from ctrnn.models import PaperGRU
from ctrnn.plots.style import QUIET, TARGET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.solvers import Euler, Step

JORDAN = "Jordan, Sokol & Park (2021), Front. Comput. Neurosci. 15:678158"
SQUARE = (-1.0, 1.0)
GAIN = 3.0  # of the rotation; half of it passes the reset gate
SCALE, BIAS = 5.0, 1.5  # of the census
U_R, U_Z = np.array([[0.5, -0.25], [0.25, 0.5]]), np.array([[0.25, 0.5], [-0.5, 0.25]])
U_C = 4 * np.array([[math.cos(math.pi / 6), -math.sin(math.pi / 6)], [math.sin(math.pi / 6), math.cos(math.pi / 6)]])
P, FIRST_BIAS = "b_rec[5]", 0.72
LAW = (3e-7, 1e-3)  # distances from p* at which the law is measured


class Rotation(NamedTuple):
    """h = 0 and its cycle against alpha, and where the map's iterates go."""

    flow: Branch
    cycles: CycleBranch
    map: Branch
    alphas: Tensor
    iterates: Tensor  # (time, alpha, 2), after a transient


class Census(NamedTuple):
    """Fixed points of many networks, each with its network."""

    weights: Tensor  # (network, 18): W_rec by rows, then the biases
    x: Tensor  # (point, 2)
    network: Tensor  # (point,)
    J: Tensor  # (point, 2, 2) of the flow
    again: int  # networks that were searched from more starts

    @property
    def trace(self) -> Tensor:
        return self.J.diagonal(dim1=-2, dim2=-1).sum(-1)

    @property
    def det(self) -> Tensor:
        return torch.linalg.det(self.J)

    @property
    def stable(self) -> Tensor:
        return (self.trace < 0) & (self.det > 0)

    @property
    def stable_map(self) -> Tensor:
        return (torch.linalg.eigvals(torch.eye(2) + self.J).abs() < 1).all(-1)

    def count(self, which: Tensor) -> Tensor:
        """Points of a kind in each network."""
        return torch.zeros(len(self.weights)).long().index_add_(0, self.network, which.long())

    @property
    def index(self) -> Tensor:
        """Sum of the Poincare indices, sign det J."""
        return self.count(self.det > 0) - self.count(self.det < 0)


class Homoclinic(NamedTuple):
    """A cycle on its way to a homoclinic orbit, and p* where the saddle's own branch says that it ends."""

    hopf: Hopf
    cycles: CycleBranch
    end: float
    saddle: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]  # of the saddle, stable and unstable

    @property
    def distance(self) -> Tensor:
        return (self.cycles.parameter - self.end).abs()

    @property
    def slope(self) -> float:
        """Of the period against -ln|p - p*|."""
        late = (self.distance > LAW[0]) & (self.distance < LAW[1])
        return float(np.polyfit(-self.distance[late].log().numpy(), self.cycles.period[late].numpy(), 1)[0])


def run(*, quick: bool = False, seed: int = 0, seeds: int = 3, networks: int = 400) -> Result:
    """Follow one family, count what random networks do, and follow one cycle to its end.

    Args:
        quick: one seed, 20 networks, coarse basins.
        seed: of the first draw.
        seeds: how many draws of `networks` each.
        networks: of each draw.
    """
    seeds, networks = (1, 20) if quick else (seeds, networks)
    report = progress(seeds + 3, "parts")
    turning = rotation(200 if quick else 2000)
    report(1)
    orbit = homoclinic(1e-9 if quick else 1e-13)
    report(2)
    found = []
    for k in range(seeds):
        found.append(census(seed + k, networks))
        report(k + 3)
    shown, row = quickest(found)
    pair = [portrait_basins(shown, row, as_map, 31 if quick else 201) for as_map in (False, True)]
    closed = [closes(c) for c in found]
    report(seeds + 3)
    drawn = figure(turning, network(shown.weights[row]), pair, orbit)
    return Result(drawn, rotation_claims(turning) + census_claims(found, closed, pair) + homoclinic_claims(orbit))


def flow(h: Tensor, p: Tensor) -> Tensor:
    """dh/dt = (1 - z) (c - h) of the network with the ravelled weights p, typed out again."""
    c, z = candidate(h, p)
    return (1 - z) * (c - h)


def candidate(h: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """c and z; a fixed point is h = c(h), for 1 - z > 0."""
    W, b = p[..., :12].reshape(*p.shape[:-1], 6, 2), p[..., 12:]
    r, z = torch.sigmoid((W[..., :4, :] @ h[..., None])[..., 0] + b[..., :4]).chunk(2, -1)
    return torch.tanh((W[..., 4:, :] @ (r * h)[..., None])[..., 0] + b[..., 4:]), z


def jacobian(h: Tensor, p: Tensor) -> Tensor:
    """Of the flow."""
    return torch.func.vmap(torch.func.jacfwd(flow))(h, p)


def network(p: Tensor) -> PaperGRU:
    """The same as a model."""
    model = PaperGRU(2, 0).double()
    assert model.b_in is not None
    assert model.b_rec is not None
    with torch.no_grad():
        model.W_rec.copy_(p[:12].reshape(6, 2))
        model.b_rec.copy_(p[12:])
        model.b_in.zero_()
    return model


def turned(alpha: Tensor) -> Tensor:
    """The weights W_rec (..., 6, 2) of the rotation."""
    c, s = GAIN * torch.cos(alpha), GAIN * torch.sin(alpha)
    zero = torch.zeros_like(c)
    return torch.stack([*[torch.stack([zero, zero], -1)] * 4, torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)


def rotation(transient: int) -> Rotation:
    """Equilibria and cycles of the flow, fixed points and iterates of the map."""
    model = network(torch.zeros(18, dtype=torch.float64))
    span = (1.5, 0.2)
    zero = torch.zeros(2, dtype=torch.float64)

    def family(alpha: Tensor) -> dict[str, Tensor]:
        return {"W_rec": turned(alpha)}

    stride = analysis.Stride(most=0.05)
    branch = analysis.continue_equilibria(model, zero, family, span, stride=stride)
    hopf = next(point for point in branch.points if isinstance(point, Hopf))
    cycles = analysis.continue_cycles(model, hopf, family, span, intervals=60, max_period=80.0)
    discrete = analysis.continue_equilibria(Step(model, Euler(), dt=1.0), zero, family, span, stride=stride)
    alphas = torch.linspace(*span, 261, dtype=torch.float64)
    p = torch.cat([turned(alphas).flatten(1), torch.zeros(261, 6, dtype=torch.float64)], -1)
    h, path = torch.full((261, 2), 0.5, dtype=torch.float64), []
    for step in range(transient + 200):
        h = h + flow(h, p)
        if step >= transient:
            path.append(h)
    return Rotation(branch, cycles, discrete, alphas, torch.stack(path))


def census(seed: int, networks: int) -> Census:
    """All fixed points of random networks; those of the flow are those of h -> c(h), for 1 - z > 0."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(networks, 18, generator=generator, dtype=torch.float64)  # fewer networks are the first of more
    p = p * torch.tensor([SCALE] * 12 + [BIAS] * 6)
    x, owner, again = [], [], 0
    left = torch.arange(networks)
    for side in (9, 25, 61):
        points, whose = _fixed(p[left], side)
        whole = Census(p[left], points, whose, jacobian(points, p[left][whose]), 0).index == 1
        if side == 61:
            whole[:] = True  # what is found is kept, and counts against the claim if it does not add to +1
        keep = whole[whose]
        x.append(points[keep])
        owner.append(left[whose[keep]])
        left = left[~whole]
        if not len(left):
            break
        again = max(again, len(left))
    x, owner = torch.cat(x), torch.cat(owner)
    return Census(p, x, owner, jacobian(x, p[owner]), again)


def _fixed(p: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Points and the network of each; each network is a drive of one map."""
    grid = analysis.plane_grid(SQUARE, SQUARE, side).reshape(-1, 2)
    found = analysis.fixed_points(
        lambda h, u: candidate(h, u)[0],
        grid.repeat(len(p), 1),
        p.repeat_interleave(len(grid), 0),
        tol=1e-12,
        max_iterations=60,
        unique=1e-5,
    )
    assert found.u is not None
    return found.x, (found.u[:, None, 0] == p[None, :, 0]).long().argmax(1)


def closes(c: Census) -> tuple[int, int]:
    """Networks without a stable fixed point that are seen to run on a cycle, and how many there are."""
    rows = (c.count(c.stable) == 0).nonzero()[:, 0].tolist()
    spans = ((600.0, 5e3), (3e4, 1e5))  # of the fast ones, and of those with a unit that creeps
    return sum(any(_comes_back(c.weights[row], *span) for span in spans) for row in rows), len(rows)


def _comes_back(p: Tensor, transient: float, longest: float) -> bool:
    """Whether the run from (0.5, 0.5) meets, after a transient, a state again to a thousandth of its orbit's size."""

    def velocity(_: float, h: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(flow(torch.from_numpy(h), p).numpy())

    start = solve_ivp(velocity, (0, transient), [0.5, 0.5], method="DOP853", rtol=1e-7, atol=1e-9).y[:, -1]
    across = velocity(0.0, start)

    def passes(_: float, h: NDArray[np.float64]) -> float:
        return float((h - start) @ across - 1e-4 * across @ across)  # just ahead of the start

    passes.direction, passes.terminal = 1, 6  # type: ignore[attr-defined]  # scipy's way
    path = solve_ivp(velocity, (0, longest), start, method="DOP853", events=passes, rtol=1e-7, atol=1e-9)
    size = np.linalg.norm(path.y.T - start, axis=-1).max()
    again = np.linalg.norm(path.y_events[0][1:] - path.y_events[0][:1], axis=-1)
    return bool(size > 1e-3 and len(again) and again.min() < 1e-3 * size)


def quickest(found: list[Census]) -> tuple[Census, int]:
    """Of the networks with three stable fixed points or more (or as many as there are) the one that settles first."""
    most = min(3, max(int(c.count(c.stable).max()) for c in found))
    best, shown = -math.inf, (found[0], 0)
    for c in found:
        rates = -torch.linalg.eigvals(c.J).real.amax(-1)
        for row in (c.count(c.stable) >= most).nonzero()[:, 0].tolist():
            rate = float(rates[(c.network == row) & c.stable].min())
            if rate > best:
                best, shown = rate, (c, row)
    return shown


def portrait_basins(c: Census, row: int, as_map: bool, resolution: int) -> analysis.Basins:
    """Of the flow, or of the discrete network."""
    model = network(c.weights[row])
    own = (c.network == row) & (c.stable_map if as_map else c.stable)
    system = Step(model, Euler(), dt=1.0) if as_map else model
    return analysis.basins(system, analysis.plane_grid(SQUARE, SQUARE, resolution), list(c.x[own]), duration=2000.0)


def weak_gates(p: float) -> PaperGRU:
    """The network of the homoclinic orbit."""
    W = np.concatenate([U_R, U_Z, U_C])
    return network(torch.from_numpy(np.concatenate([W.ravel(), np.zeros(4), [FIRST_BIAS, p]])))


def homoclinic(width: float) -> Homoclinic:
    """From the only equilibrium at p = 0 down to its Hopf point, and from there along the cycles to their end."""
    model = weak_gates(0.0)
    grid = analysis.plane_grid(SQUARE, SQUARE, 9).reshape(-1, 2)
    branch = analysis.continue_equilibria(model, analysis.fixed_points(model, grid).x[0], P, (0.0, -1.5))
    hopf = next(point for point in branch.points if isinstance(point, Hopf))
    cycles = analysis.continue_cycles(
        model, hopf, P, (-1.5, 0.0), intervals=80, max_period=75.0, stride=analysis.Stride(first=0.01, most=0.3)
    )
    last = float(cycles.parameter[-1])
    there = analysis.fixed_points(weak_gates(last), grid)
    saddles = there.x[there.fixed & (there.unstable == 1)]
    near = saddles[torch.cdist(saddles, cycles.orbits[-1]).amin(-1).argmin()].numpy()
    end = _end(last - 1e-3, last + 1e-3, near, width)
    saddle, values, _ = _saddle(end, near)
    return Homoclinic(hopf, cycles, end, saddle, np.sort(values.real))


def field(h: NDArray[np.float64], p: float) -> NDArray[np.float64]:
    """The equations of the network of the homoclinic orbit, for scipy."""
    r, z = 1 / (1 + np.exp(-U_R @ h)), 1 / (1 + np.exp(-U_Z @ h))
    return np.asarray((1 - z) * (np.tanh(U_C @ (r * h) + np.array([FIRST_BIAS, p])) - h))


def _saddle(
    p: float, near: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    x = root(field, near, args=(p,), tol=1e-14).x
    J = np.stack([(field(x + e, p) - field(x - e, p)) / 2e-6 for e in 1e-6 * np.eye(2)], -1)
    return x, *np.linalg.eig(J)


def _end(low: float, high: float, near: NDArray[np.float64], width: float) -> float:
    """p* by bisection: below it the saddle's unstable branch comes round again, above it passes below the saddle."""
    while high - low > width:
        p = (low + high) / 2
        x, values, vectors = _saddle(p, near)
        away = vectors[:, values.real.argmax()].real
        start = x + 1e-6 * math.copysign(1.0, away[1]) * away
        low, high = (p, high) if _comes_round(p, start, float(x[1])) else (low, p)
    return (low + high) / 2


def _comes_round(p: float, start: NDArray[np.float64], level: float) -> bool:
    """Whether h_2 rises for the second time before it falls well below the saddle's."""

    def rises(_: float, h: NDArray[np.float64]) -> float:
        return float(h[1]) - 0.5

    def falls(_: float, h: NDArray[np.float64]) -> float:
        return float(h[1]) - (level - 0.1)

    rises.direction, rises.terminal = 1, 2  # type: ignore[attr-defined]  # scipy's way
    falls.direction, falls.terminal = -1, True  # type: ignore[attr-defined]
    path = solve_ivp(
        lambda _, h: field(h, p), (0, 500), start, method="DOP853", events=(rises, falls), rtol=1e-12, atol=1e-13
    )
    return len(path.t_events[0]) == 2


def rotation_claims(turning: Rotation) -> list[Claim]:
    """Where h = 0 loses its stability, on paper and by continuation."""
    k = GAIN / 2
    hopf = next(p for p in turning.flow.points if isinstance(p, Hopf))
    sacker = next(p for p in turning.map.points if isinstance(p, NeimarkSacker))
    moving = turning.iterates.abs().amax((0, 2)) > 1e-3
    between = (turning.alphas > math.acos(1 / k)) & (turning.alphas < math.acos((3 - k**2) / (2 * k)))
    source = "derived: lambda = (k e^(i alpha) - 1) / 2 with k = 3/2"
    return [
        Claim.near("rotation, flow: cos alpha at the Hopf point", math.cos(hopf.parameter), 1 / k, 1e-9, source),
        Claim.near(
            "rotation, flow: angular frequency there",
            hopf.omega,
            k / 2 * math.sin(math.acos(1 / k)),
            1e-9,
            source,
        ),
        Claim.near(
            "rotation, map: cos alpha at the Neimark-Sacker point",
            math.cos(sacker.parameter),
            (3 - k**2) / (2 * k),
            1e-9,
            source,
        ),
        Claim.equal(
            "rotation: angles between the two points, at which the flow rests and the map moves",
            int(moving[between].sum()),
            int(between.sum()),
            source,
        ),
        Claim.equal(
            f"rotation, flow: stable cycles, of {len(turning.cycles.period)}",
            int(turning.cycles.stable.sum()),
            len(turning.cycles.period),
            JORDAN,
            kind="statistical",
        ),
    ]


def outward(c: Census) -> float:
    """The greatest outward velocity on the edges of the square, over all networks: not above 0."""
    s = torch.linspace(*SQUARE, 41, dtype=torch.float64)
    worst = -math.inf
    for axis in (0, 1):
        for sign in (-1.0, 1.0):
            h = torch.stack([s, s], -1)
            h[:, axis] = sign
            worst = max(worst, float((sign * flow(h[None], c.weights[:, None])[..., axis]).max()))
    return worst


def census_claims(found: list[Census], closed: list[tuple[int, int]], pair: list[analysis.Basins]) -> list[Claim]:
    """Identities as exact claims, what the search found as statistical ones."""
    index = torch.cat([c.index for c in found])
    total = len(index)
    most = [int(c.count(c.stable).max()) for c in found]
    counts = torch.cat([c.count(c.stable) for c in found])
    table = ", ".join(f"{k}: {int((counts == k).sum())}" for k in range(int(counts.max()) + 1))
    lost = [int((c.stable & ~c.stable_map).sum()) for c in found]
    return [
        Claim.equal(
            f"census: networks of {total} whose Poincare indices add to +1 "
            f"({sum(c.again for c in found)} of them searched from more starts)",
            int((index == 1).sum()),
            total,
            "Poincare-Hopf theorem; the field points inwards on the square's edges",
        ),
        Claim.below(
            "census: outward velocity on the edges of |h| <= 1", max(map(outward, found)), 1e-15, "derived: |c| < 1"
        ),
        Claim.equal(
            "census: starts of a grid on the square whose run ends outside, flow and map",
            [int((b.ends.abs() > 1 + 1e-6).any(-1).sum()) for b in pair],  # the flow's runs have rtol 1e-7
            [0, 0],
            "derived",
        ),
        Claim.at_least(
            f"census: stable fixed points at once; networks by number of them: {table}; greatest by seed {most}",
            max(most),
            3,
            JORDAN,
            kind="statistical",
        ),
        Claim.equal(
            "census: networks without a stable fixed point that are seen on a closed cycle within 1e5 tau "
            "(Poincare-Bendixson: all are, some later)",
            sum(n for n, _ in closed),
            sum(n for _, n in closed),
            JORDAN,
            kind="statistical",
        ),
        Claim.at_least(
            f"census: stable fixed points of the flow that are unstable in the map; by seed {lost}",
            sum(lost),
            1,
            "derived: the map's eigenvalues are 1 + lambda",
            kind="statistical",
        ),
    ]


def homoclinic_claims(found: Homoclinic) -> list[Claim]:
    """The end of the cycles beside the saddle that scipy finds."""
    p = torch.cat([q.detach().flatten() for q in (weak_gates(0).W_rec, weak_gates(found.hopf.parameter).b_rec)])
    J = torch.func.jacfwd(flow)(found.hopf.x, p)
    return [
        Claim.below("homoclinic: |trace J| at the Hopf point", J.trace().abs(), 1e-8, "derived, by the typed equation"),
        Claim.near(
            f"homoclinic: slope of the cycle's period against -ln|p - p*|, times the saddle's lambda_u; p* = "
            f"{found.end:.10f} by bisection of the saddle's unstable branch",
            found.slope * found.eigenvalues[1],
            1.0,
            0.005,
            "Kuznetsov (2004), Elements of Applied Bifurcation Theory, section 6.2",
        ),
        Claim.below(
            "homoclinic: distance of the longest cycle from the saddle",
            float(np.linalg.norm(found.cycles.orbits[-1].numpy() - found.saddle, axis=-1).min()),
            1e-3,
            "derived: it comes as near as exp(-lambda_u T)",
        ),
        Claim.equal(
            f"homoclinic: stable cycles, of {len(found.cycles.period)}; the saddle quantity lambda_s + lambda_u is "
            f"{found.eigenvalues.sum():.3f}",
            int(found.cycles.stable.sum()),
            len(found.cycles.period),
            "Andronov & Leontovich: a negative saddle quantity",
        ),
    ]


def figure(turning: Rotation, rich: PaperGRU, pair: list[analysis.Basins], orbit: Homoclinic) -> Figure:
    """Flow above, the map with the same weights below; and the end of a cycle."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 4.9))
        axes = fig.subplots(2, 3)
        _rotation(axes[0, 0], turning)
        _iterates(axes[1, 0], turning)
        for ax, found, name in zip(axes[:, 1], pair, ("flow", "map, $dt = \\tau$"), strict=True):
            _many(ax, rich, found, name)
        _loop(axes[0, 2], orbit)
        _law(axes[1, 2], orbit)
    return fig


def _rotation(ax: Axes, turning: Rotation) -> None:
    plots.equilibria(ax, turning.flow)
    plots.cycles(ax, turning.cycles, label="cycle, max and min")
    _angles(ax, "flow: a Hopf point")


def _iterates(ax: Axes, turning: Rotation) -> None:
    plots.equilibria(ax, turning.map)
    h = turning.iterates[..., 0].numpy()
    x = np.broadcast_to(turning.alphas.numpy(), h.shape)
    ax.plot(x[::4].ravel(), h[::4].ravel(), ",", color=TARGET, alpha=0.5, zorder=1, rasterized=True)
    ax.plot([], [], ".", color=TARGET, label="iterates")
    _angles(ax, "map: it turns where the flow rests")


def _angles(ax: Axes, title: str) -> None:
    ax.set(xlabel="$\\alpha$ / rad, $U_c = 3\\,R(\\alpha)$", ylabel="$h_1$", title=title, ylim=(-1.05, 1.45))
    ax.legend(loc="upper right", ncols=2, fontsize=6, columnspacing=0.8, handlelength=1.2)


def _many(ax: Axes, model: PaperGRU, found: analysis.Basins, name: str) -> None:
    plots.basins(ax, found)
    system = model if name == "flow" else Step(model, Euler(), dt=1.0)
    points = analysis.fixed_points(system, analysis.plane_grid(SQUARE, SQUARE, 15).reshape(-1, 2))
    if name == "flow":
        for saddle in points.x[points.fixed & (points.unstable == 1)]:
            plots.manifolds(ax, analysis.manifolds(model, saddle, duration=200.0, reach=3.0))
    plots.points(ax, points.x[points.fixed], points.stable[points.fixed], size=14)
    undecided = 1 - float(found.share.sum())
    ax.set_title(f"{name}: {len(found.attractors)} basins, {undecided:.1%} undecided")
    ax.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), xlabel="$h_1$", ylabel="$h_2$", aspect="equal")
    _key(ax, (0.04, 0.97), "upper left")


def _loop(ax: Axes, found: Homoclinic) -> None:
    plots.phase_plane(ax, analysis.phase_plane(weak_gates(found.end), torch.zeros(2), SQUARE, SQUARE))
    for k, color in ((len(found.cycles.period) // 4, "#9ecae1"), (len(found.cycles.period) - 1, TRAJECTORY)):
        loop, name = found.cycles.orbits[k].numpy(), f"cycle of period {float(found.cycles.period[k]):.0f} $\\tau$"
        ax.plot(*np.vstack([loop, loop[:1]]).T, color=color, lw=1.4, zorder=3, label=name)
    ax.set(title=f"homoclinic orbit, $p^* = {found.end:.4f}$")
    ax.set(xlim=(-0.4, 1.05), ylim=(-1.05, 1.05), xlabel="$h_1$", ylabel="$h_2$")
    _key(ax, (0.0, 0.06), "lower left")


def _key(ax: Axes, at: tuple[float, float], loc: str) -> None:
    """A small legend on a pale ground, over a field or a basin."""
    ax.legend(
        loc=loc,
        bbox_to_anchor=at,
        fontsize=5.5,
        handlelength=1.4,
        labelspacing=0.2,
        borderpad=0.2,
        frameon=True,
        framealpha=0.8,
        edgecolor="none",
    )


def _law(ax: Axes, found: Homoclinic) -> None:
    distance, period = found.distance.numpy(), found.cycles.period.numpy()
    ax.semilogx(distance, period, "o", ms=3, color=TRAJECTORY, label="cycles, by collocation")
    rate = float(found.eigenvalues[1])
    k = int(np.abs(np.log(distance / LAW[1])).argmin())
    line = np.geomspace(distance.min(), 0.1, 40)
    ax.semilogx(line, period[k] - np.log(line / distance[k]) / rate, color=UNSTABLE, label="slope $1/\\lambda_u$")
    ax.axhline(2 * math.pi / found.hopf.omega, color=QUIET, ls="--", lw=0.8, label="at the Hopf point")
    ax.set(xlabel="$|p - p^*|$", ylabel="period / $\\tau$", title="the period as the cycle ends")
    ax.legend(loc="upper right", fontsize=6)


if __name__ == "__main__":
    main(run)
