"""Rock between boreholes: recurrent networks down the depth, beside kriging.

Claim: where the rock is a Gaussian random field, kriging with its covariance is the best estimate there is, and on
average no network beats it; one that reads the neighbouring boreholes up and down the depth comes closer to it than one
that sees a single depth, because the strata dip, and a window of depths, without cycles, comes near. Where the rock is
layered and folded, kriging is only the best *linear* estimate and a network that has seen other such rock may do
better. From one site's boreholes alone there is too little to learn.

A site is a vertical section of 200 m by 32 m with eight boreholes, everything between them to be estimated. Two kinds
of rock: dipping strata (Gaussian, exponential covariance along the dip), and two rock types in folded layers (same mean
and variance, its covariance known in closed form). Who knows what: kriging with the true covariance and the networks
"taught" on other sites know the kind of rock; kriging with a fitted covariance, inverse distances and the network
"alone" know this site's boreholes only. All networks read the same four neighbours. A method counts as better where it
errs less on as many sites as a sign test at 5 % needs: 15 of 20.

Source: Garcia, Lopez & Castellanos (2016), Boletin de la Sociedad Geologica Mexicana 68:553-570, who extrapolate rock
index properties in 3-D from boreholes with a recurrent network. We know the abstract only, which has no numbers: there
is none to print beside ours, and the sites here are drawn, not theirs.
"""

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.stats import binom, norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern
from torch import Generator, Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ctrnn import GRU, Bidirectional, plots
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, STABLE, TARGET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress

Numbers = NDArray[np.float64]

COLUMNS, DEPTHS, SPACING = 41, 32, 5.0  # columns 5 m apart, readings 1 m apart
BOREHOLES, APART = 8, 3  # of the columns, the outermost among them; at least 3 columns apart
NUGGET = 1e-10  # on the diagonal, against rounding
LENGTH, THICKNESS, DIP = 40.0, 3.0, 0.1  # strata: correlation length along the dip and across it, metres; slope
BEDS, FOLD, WAVE = 3.0, 4.0, 60.0  # layers: mean thickness; height and length of the folds, metres
SLOTS, REACH = 4, 6  # neighbours that a network reads; depths above and below that a window reads
UNITS, BATCH, COLUMNS_EACH, RATE = 32, 32, 6, 5e-3
TOLD, HELD = [0, 2, 3, 5], [1, 4]  # of the six inner boreholes, for a network alone
TRUE, FITTED, INVERSE = "kriging, true covariance", "kriging, fitted", "inverse distance"
SAME, WINDOW, TAUGHT, ALONE = "MLP, same depth", "MLP, 13 depths", "recurrent, taught", "recurrent, alone"
COLORS = {
    TRUE: TRAJECTORY,
    TAUGHT: UNSTABLE,
    WINDOW: OUTPUT,
    SAME: TARGET,
    FITTED: "#56B4E9",
    ALONE: INPUT,
    INVERSE: QUIET,
}
OURS = "sites of our own: Garcia et al. (2016) give no numbers in what we could read"
THEORY = "Matheron (1963), Economic Geology 58:1246: the best linear estimate"
X, Z = (axis.ravel() for axis in np.meshgrid(SPACING * np.arange(COLUMNS), np.arange(DEPTHS * 1.0), indexing="ij"))


class Rock(NamedTuple):
    """A kind of rock: E r(x, z) r(x + dx, z + dz), and sites of it (site, column, depth), of mean 0 and variance 1."""

    name: str
    covariance: Callable[[Any, Any], Any]
    draw: Callable[[int, np.random.Generator], Numbers]


class Site(NamedTuple):
    """A section, which of its columns are boreholes, and the others, which are to be estimated."""

    rock: Numbers  # (column, depth)
    holes: NDArray[np.int_]
    between: NDArray[np.int_]


class Found(NamedTuple):
    """What was found in one kind of rock."""

    errors: dict[str, Numbers]  # method -> (site,) root mean squared error, in standard deviations of the rock
    estimates: dict[str, Numbers]  # method -> (column, depth), of the first site
    first: Site
    ratio: tuple[float, float]  # squared error of kriging over its variance: mean over sites, standard error
    honoured: float  # largest error of kriging at a borehole
    deviation: float  # largest difference of sampled covariances from the model's, in standard errors


def run(
    *, quick: bool = False, seed: int = 0, seeds: int = 20, updates: int = 1200, alone: int = 150, taught: int = 1000
) -> Result:
    """Estimate sites of both kinds of rock with every method.

    Args:
        quick: few sites and updates.
        seed: of sites and weights.
        seeds: sites of each kind on which the methods are compared.
        updates: of the networks taught on other sites, 192 columns each.
        alone: updates of the networks that learn from one site; each stays as it was when it told held-out boreholes
            best.
        taught: other sites, from which networks are taught and covariances are sampled.
    """
    if quick:
        seeds, updates, alone, taught = 3, 4, 3, 400
    report = progress(2, "rock")
    found = {}
    for k, rock in enumerate((STRATA, LAYERS)):
        found[rock.name] = one(rock, np.random.default_rng((seed, k)), seeds, updates, alone, taught)
        report(k + 1)
    return Result(figure(found), claims(found))


def one(rock: Rock, rng: np.random.Generator, sites: int, updates: int, alone: int, taught: int) -> Found:
    """All methods on one kind of rock."""
    tests, pool = [site(section, rng) for section in rock.draw(sites, rng)], rock.draw(taught, rng)
    kriged = [krige(rock.covariance, s) for s in tests]
    readings = [torch.as_tensor(read(s, s.between), dtype=torch.get_default_dtype()) for s in tests]
    draw = Generator().manual_seed(int(rng.integers(2**31)))
    nets = {SAME: Windowed(0, draw), WINDOW: Windowed(REACH, draw), TAUGHT: Recurrent(draw)}
    teach(list(nets.values()), pool, updates, rng)
    estimates = {
        TRUE: [mean for mean, _ in kriged],
        **{name: said(net, readings) for name, net in nets.items()},
        FITTED: [krige(fitted(s), s)[0] for s in tests],
        ALONE: learned_alone([Recurrent(draw) for _ in tests], tests, alone),
        INVERSE: [inverse_distance(s) for s in tests],
    }
    truths = [s.rock[s.between] for s in tests]
    errors = {
        name: np.array([np.sqrt(np.mean((a - b) ** 2)) for a, b in zip(each, truths, strict=True)])
        for name, each in estimates.items()
    }
    ratios = np.array([np.sum((m - r) ** 2) / v.sum() for (m, v), r in zip(kriged, truths, strict=True)])
    at_holes = [np.abs(krige(rock.covariance, s, s.holes)[0] - s.rock[s.holes]).max() for s in tests]
    return Found(
        errors,
        {name: each[0] for name, each in estimates.items()},
        tests[0],
        (float(ratios.mean()), float(ratios.std(ddof=1) / np.sqrt(len(ratios)))),
        float(max(at_holes)),
        deviation(rock, pool),
    )


def along_dip(dx: Any, dz: Any) -> Any:
    """The covariance of the dipping strata."""
    return np.exp(-np.hypot(dx / LENGTH, (dz - DIP * dx) / THICKNESS))


def strata(n: int, rng: np.random.Generator) -> Numbers:
    """Gaussian sections with that covariance."""
    root = np.linalg.cholesky(gram(along_dip, (X, Z), (X, Z)) + NUGGET * np.eye(len(X)))
    return (rng.standard_normal((n, len(X))) @ root.T).reshape(n, COLUMNS, DEPTHS)


def folded(dx: Any, dz: Any) -> Any:
    """The covariance of the folded layers: E exp(-|dz - d| / BEDS) for d, by how much the fold differs, N(0, v(dx))."""
    s = FOLD * np.sqrt(-2 * np.expm1(-((dx / WAVE) ** 2) / 2)) + 1e-9
    a, h = s / BEDS, np.abs(dz)
    below, above = (a * a / 2 + sign * h / BEDS + norm.logcdf(-sign * h / s - a) for sign in (-1, 1))
    return np.exp(below) + np.exp(above)


def layers(n: int, rng: np.random.Generator) -> Numbers:
    """Sections of two rock types, -1 and 1: beds with boundaries at random depths, shifted by a smooth random fold."""
    x, z, margin = SPACING * np.arange(COLUMNS), np.arange(DEPTHS), 10 * FOLD
    root = np.linalg.cholesky(FOLD**2 * np.exp(-(((x[:, None] - x) / WAVE) ** 2) / 2) + 1e-8 * np.eye(COLUMNS))
    sections = np.empty((n, COLUMNS, DEPTHS))
    for section in sections:
        count = rng.poisson((DEPTHS + 2 * margin) / BEDS)
        boundaries = np.sort(rng.uniform(-margin, DEPTHS + margin, count))
        beds = rng.choice([-1.0, 1.0], count + 1)
        section[:] = beds[np.searchsorted(boundaries, z - (root @ rng.standard_normal(COLUMNS))[:, None])]
    return sections


STRATA, LAYERS = Rock("dipping strata", along_dip, strata), Rock("folded layers", folded, layers)


def site(rock: Numbers, rng: np.random.Generator) -> Site:
    """Boreholes at both ends and at random between."""
    while True:
        inner = rng.choice(np.arange(1, COLUMNS - 1), BOREHOLES - 2, replace=False)
        holes = np.sort([0, *inner, COLUMNS - 1])
        if np.diff(holes).min() >= APART:
            return Site(rock, holes, np.setdiff1d(np.arange(COLUMNS), holes))


def places(columns: NDArray[np.int_]) -> tuple[Numbers, Numbers]:
    """x and z of all readings of some columns."""
    return np.repeat(SPACING * columns, DEPTHS), np.tile(np.arange(DEPTHS * 1.0), len(columns))


def gram(covariance: Callable[[Any, Any], Any], a: tuple[Numbers, Numbers], b: tuple[Numbers, Numbers]) -> Numbers:
    """Covariances between two sets of places."""
    return covariance(b[0] - a[0][:, None], b[1] - a[1][:, None])


def krige(
    covariance: Callable[[Any, Any], Any], s: Site, columns: NDArray[np.int_] | None = None
) -> tuple[Numbers, Numbers]:
    """Simple kriging from all readings of all boreholes: estimates and their variances (column, depth)."""
    wanted, at = s.between if columns is None else columns, places(s.holes)
    C, c = gram(covariance, at, at), gram(covariance, at, places(wanted))
    weights = cho_solve(cho_factor(C + NUGGET * np.eye(len(C))), c)
    shape = len(wanted), DEPTHS
    return (s.rock[s.holes].ravel() @ weights).reshape(shape), (1 - np.sum(c * weights, 0)).reshape(shape)


def fitted(s: Site) -> Callable[[Any, Any], Any]:
    """The exponential covariance, with lengths and dip most likely for this site's boreholes."""
    at, values = places(s.holes), s.rock[s.holes].ravel()

    def of(p: Numbers) -> Callable[[Any, Any], Any]:
        return lambda dx, dz: np.exp(-np.hypot(dx / np.exp(p[0]), (dz - p[2] * dx) / np.exp(p[1])))

    def surprise(p: Numbers) -> float:
        root = cho_factor(gram(of(p), at, at) + 1e-6 * np.eye(len(values)), lower=True)
        return float(values @ cho_solve(root, values) / 2 + np.log(np.diag(root[0])).sum())

    bounds = [(np.log(5.0), np.log(400.0)), (np.log(0.5), np.log(30.0)), (-0.5, 0.5)]
    return of(minimize(surprise, [np.log(30.0), np.log(2.0), 0.0], method="L-BFGS-B", bounds=bounds).x)


def neighbours(s: Site, columns: NDArray[np.int_]) -> tuple[NDArray[np.int_], NDArray[np.bool_]]:
    """The next two boreholes to the left and to the right of each column, and whether there are such."""
    left, right = (np.searchsorted(s.holes, columns, side=side) for side in ("left", "right"))
    at = np.stack([left - 1, left - 2, right, right + 1], 1)
    present = (at >= 0) & (at < len(s.holes))
    return s.holes[np.where(present, at, 0)], present


def read(s: Site, columns: NDArray[np.int_]) -> Numbers:
    """What a network reads (depth, column, input): the neighbours' values, their distances, and which there are."""
    holes, present = neighbours(s, columns)
    values = s.rock[holes] * present[..., None]
    distance = present * np.abs(holes - columns[:, None]) * SPACING / 50
    fixed = np.concatenate([distance, present], 1)
    return np.concatenate([values.transpose(2, 0, 1), np.broadcast_to(fixed, (DEPTHS, *fixed.shape))], -1)


def inverse_distance(s: Site) -> Numbers:
    """The mean of the same depth's readings, weighted by 1 / distance^2."""
    holes, present = neighbours(s, s.between)
    weights = present / (holes - s.between[:, None]) ** 2
    return np.sum(s.rock[holes] * weights[..., None], 1) / weights.sum(1)[:, None]


class Recurrent(nn.Module):
    """A GRU downwards and one upwards over the depths; what both and the readings say passes a hidden layer."""

    def __init__(self, draw: Generator) -> None:
        super().__init__()
        self.along = Bidirectional(*(GRU(UNITS, 3 * SLOTS, generator=draw) for _ in range(2)))
        self.head = perceptron((2 * UNITS + 3 * SLOTS, UNITS, 1), draw)

    def forward(self, us: Tensor) -> Tensor:
        return self.head(torch.cat([self.along(us, dt=1.0).ys, us], -1))[..., 0]


class Windowed(nn.Module):
    """No cycle: a perceptron on the readings of `reach` depths above and below."""

    def __init__(self, reach: int, draw: Generator) -> None:
        super().__init__()
        self.reach = reach
        self.head = perceptron((SLOTS * (2 * reach + 1) + 2 * SLOTS, 2 * UNITS, 2 * UNITS, 1), draw)

    def forward(self, us: Tensor) -> Tensor:
        values = nn.functional.pad(us[..., :SLOTS], (0, 0, 0, 0, self.reach, self.reach))
        seen = values.unfold(0, 2 * self.reach + 1, 1).flatten(-2)
        return self.head(torch.cat([seen, us[..., SLOTS:]], -1))[..., 0]


def perceptron(sizes: tuple[int, ...], draw: Generator) -> nn.Sequential:
    """Layers with tanh between them."""
    parts: list[nn.Module] = []
    for n_in, n in pairwise(sizes):
        layer = nn.Linear(n_in, n)
        nn.init.xavier_uniform_(layer.weight, generator=draw)
        nn.init.zeros_(layer.bias)
        parts += [layer, nn.Tanh()]
    return nn.Sequential(*parts[:-1])


def teach(nets: list[nn.Module], pool: Numbers, updates: int, rng: np.random.Generator) -> None:
    """Train all on the same columns between boreholes of other sites, new boreholes each time."""
    learners = [adam(list(net.parameters()), updates) for net in nets]
    for _ in range(updates):
        chosen = [site(pool[k], rng) for k in rng.integers(len(pool), size=BATCH)]
        columns = [rng.choice(s.between, COLUMNS_EACH, replace=False) for s in chosen]
        us, targets = together(chosen, columns)
        for net, learner in zip(nets, learners, strict=True):
            step(*learner, (net(us) - targets).square().mean())


def learned_alone(nets: list[Recurrent], tests: list[Site], updates: int) -> list[Numbers]:
    """One network per site, all side by side: taught four inner boreholes from the rest, stopped by the other two.

    It stays as it was when it told those two best.
    """
    inner = [s.holes[1:-1] for s in tests]
    data = [
        together([s._replace(holes=np.setdiff1d(s.holes, h)) for h in holes], [np.array([h]) for h in holes])
        for s, holes in zip(tests, inner, strict=True)
    ]
    us, targets = (torch.stack(part) for part in zip(*data, strict=True))
    weights, _ = stack_module_state(nets)
    call = vmap(lambda w, u: functional_call(nets[0], w, (u,)))
    best, lowest = {name: w.detach().clone() for name, w in weights.items()}, torch.full((len(nets),), torch.inf)
    learner = adam(list(weights.values()), updates)
    for _ in range(updates):
        squares = (call(weights, us) - targets).square().mean(1)  # (site, borehole)
        held = squares.detach()[:, HELD].mean(1)
        for name, w in weights.items():
            best[name][held < lowest] = w.detach()[held < lowest]
        lowest = torch.minimum(held, lowest)
        # The sum over sites: the networks share nothing, and each gets its own gradient.
        step(*learner, squares[:, TOLD].mean(1).sum())
    for k, net in enumerate(nets):
        net.load_state_dict({name: w[k] for name, w in best.items()}, strict=False)
    return [said(net, [torch.as_tensor(read(s, s.between)).to(us)])[0] for net, s in zip(nets, tests, strict=True)]


def adam(weights: list[Tensor], updates: int) -> tuple[torch.optim.Optimizer, Any]:
    """Adam, its rate falling to nothing along a cosine."""
    optimizer = torch.optim.Adam(weights, lr=RATE)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)


def step(optimizer: torch.optim.Optimizer, schedule: Any, loss: Tensor) -> None:
    """One update."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()
    schedule.step()


def together(sites: list[Site], columns: list[NDArray[np.int_]]) -> tuple[Tensor, Tensor]:
    """Readings (depth, column, input) and the rock (depth, column) at some columns of several sites."""
    us = np.concatenate([read(s, at) for s, at in zip(sites, columns, strict=True)], 1)
    targets = np.concatenate([s.rock[at] for s, at in zip(sites, columns, strict=True)]).T
    a, b = (torch.as_tensor(part, dtype=torch.get_default_dtype()) for part in (us, targets))
    return a, b


def said(net: nn.Module, readings: list[Tensor]) -> list[Numbers]:
    """The network's estimates (column, depth) of each site."""
    with torch.no_grad():
        return [net(us).T.double().numpy() for us in readings]


def deviation(rock: Rock, pool: Numbers) -> float:
    """The largest difference of products of two readings from the covariance, in standard errors, at 30 lags."""
    found = []
    for dx in (0, 1, 2, 4, 8, 16):
        for dz in (0, 1, 2, 4, 8):
            products = pool[:, 10, 10] * pool[:, 10 + dx, 10 + dz]
            if products.std() > 0:
                expected = rock.covariance(SPACING * dx, dz * 1.0)
                found.append(abs(products.mean() - expected) / (products.std(ddof=1) / np.sqrt(len(pool))))
    return float(max(found))


def against_peer(s: Site) -> float:
    """The largest difference between our kriging of the strata and scikit-learn's Gaussian process."""
    at, wanted = (np.stack([x / LENGTH, (z - DIP * x) / THICKNESS], 1) for x, z in map(places, (s.holes, s.between)))
    peer = GaussianProcessRegressor(Matern(1.0, nu=0.5), alpha=NUGGET, optimizer=None).fit(at, s.rock[s.holes].ravel())
    mean, deviation = peer.predict(wanted, return_std=True)
    ours, variance = krige(along_dip, s)
    return float(max(np.abs(ours.ravel() - mean).max(), np.abs(variance.ravel() - deviation**2).max()))


def against_quadrature() -> float:
    """The largest difference between the closed covariance of the folded layers and its integral."""
    found = []
    for dx in (5.0, 30.0, 100.0):
        s = FOLD * np.sqrt(2 - 2 * np.exp(-((dx / WAVE) ** 2) / 2))
        for dz in (0.0, 1.0, 7.0):
            value, _ = quad(
                lambda d, dz=dz, s=s: np.exp(-abs(dz - d) / BEDS) * norm.pdf(d, scale=s),
                -10 * s,
                10 * s,
                points=[dz] if dz < 10 * s else None,
                epsabs=1e-12,
                limit=200,
            )
            found.append(abs(value - folded(dx, dz)))
    return float(max(found))


def wins(errors: dict[str, Numbers], better: str, worse: str) -> int:
    """Sites on which one method errs less than another."""
    return int((errors[better] < errors[worse]).sum())


def claims(found: dict[str, Found]) -> list[Claim]:
    """What kriging must be, then who estimates better."""
    gauss, layered = found[STRATA.name], found[LAYERS.name]
    exact = [
        Claim.below(
            "kriging of the dipping strata: largest difference from scikit-learn's Gaussian process",
            against_peer(gauss.first),
            1e-6,
            "GaussianProcessRegressor with the same covariance",
        ),
        Claim.below(
            "covariance of the folded layers: largest difference of the closed form from the integral",
            against_quadrature(),
            1e-8,
            "scipy.integrate.quad",
        ),
        Claim.below(
            "kriging honours the data: largest error at a borehole, in both kinds of rock",
            max(gauss.honoured, layered.honoured),
            1e-6,
            THEORY,
        ),
    ]
    return [
        *exact,
        *sampled(gauss, STRATA),
        *sampled(layered, LAYERS),
        theorem(gauss),
        *compared(gauss, STRATA),
        *compared(layered, LAYERS),
    ]


def sampled(f: Found, rock: Rock) -> list[Claim]:
    """What holds on average over sites."""
    ratio, error = f.ratio
    return [
        Claim.below(
            f"{rock.name}: covariance of drawn sites, largest difference from the model at 30 lags, in standard errors",
            f.deviation,
            4.0,
            "the model of the rock",
            "statistical",
        ),
        Claim.near(
            f"{rock.name}: squared error of kriging over its own variance (standard error {error:.3f})",
            ratio,
            1.0,
            3 * error,
            THEORY,
            "statistical",
        ),
    ]


def beyond_chance(n: int) -> int:
    """The fewest of n sites that coin tosses reach with a probability of at most 5 % (n + 1 where no count does)."""
    return int(binom.isf(0.05, n, 0.5)) + 1


def compared(f: Found, rock: Rock) -> list[Claim]:
    """Who errs less, on more sites than chance gives."""
    n, mean = len(f.errors[TRUE]), {name: f"{errors.mean():.3f}" for name, errors in f.errors.items()}
    pairs = ((TAUGHT, TRUE), (TAUGHT, SAME), (TAUGHT, WINDOW), (FITTED, ALONE), (INVERSE, ALONE))
    least = beyond_chance(n)
    found = [
        Claim.at_least(
            f"{rock.name}: {better} ({mean[better]}) errs less than {worse} ({mean[worse]}), on k of {n} sites",
            wins(f.errors, better, worse),
            least,
            f"a sign test at 5 % needs {least} of {n}; {OURS}",
            "statistical",
        )
        # In the Gaussian rock a theorem speaks about the first pair.
        for better, worse in (pairs[1:] if rock is STRATA else pairs)
    ]
    planned, reason = f"at least {(n + 1) // 2} sites", "half of the sites is what chance gives"
    return [dataclasses.replace(claim, planned=planned, reason=reason) for claim in found]


def theorem(f: Found) -> Claim:
    """Kriging on its own model."""
    n = len(f.errors[TRUE])
    claim = Claim.below(
        f"{STRATA.name}: mean squared error of {TRUE}, over that of {TAUGHT} "
        f"(it errs less on {wins(f.errors, TRUE, TAUGHT)} of {n} sites)",
        np.mean(f.errors[TRUE] ** 2) / np.mean(f.errors[TAUGHT] ** 2),
        1.0,
        THEORY,
        "statistical",
    )
    return dataclasses.replace(
        claim,
        planned=f"it errs less on {n} of {n} sites",
        reason="the theorem is about the mean; on a single site a worse estimate can come closer by chance",
    )


def figure(found: dict[str, Found]) -> Figure:
    """A site of each kind, what kriging and the network made of it, and the errors on all."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 6.4), layout="constrained")
        top, bottom = np.ravel(fig.subfigures(2, 1, height_ratios=(3, 2)))
        above, below = top.subplots(3, 2), bottom.subplots(1, 2)
        for column, (name, f) in enumerate(found.items()):
            sections(top, above[:, column], name, f)
            errors(below[column], name, f)
        below[1].set_yticklabels([])
    return fig


def sections(fig: SubFigure, axes: Any, name: str, f: Found) -> None:
    """The true section and two estimates of it, the boreholes marked."""
    estimates = {f"{name}: the first site": None, TRUE: TRUE, TAUGHT: TAUGHT}
    limit = float(np.ceil(np.abs(f.first.rock).max()))
    for ax, (title, method) in zip(axes, estimates.items(), strict=True):
        shown = f.first.rock.copy()
        if method is not None:
            shown[f.first.between] = f.estimates[method]
            title = f"{method} (error {f.errors[method][0]:.2f})"
        half = SPACING / 2
        extent = (-half, SPACING * COLUMNS - half, DEPTHS - 0.5, -0.5)
        image = ax.imshow(shown.T, aspect="auto", cmap="cividis", vmin=-limit, vmax=limit, extent=extent)
        for x in SPACING * f.first.holes:
            ax.axvline(x, color=STABLE, lw=1.2)
            ax.plot(x, -0.5, "v", ms=4, color=STABLE, clip_on=False)
        ax.set(ylabel="depth / m", title=title, xlabel="distance / m" if ax is axes[-1] else "")
        ax.tick_params(labelbottom=ax is axes[-1])
    fig.colorbar(image, ax=axes, label="property / standard deviation", aspect=30, pad=0.02)


def errors(ax: Axes, name: str, f: Found) -> None:
    """The error of every method on every site."""
    plots.by_seed(ax, {name: f.errors[name] for name in COLORS}, list(COLORS.values()))
    ax.axvline(1.0, color=QUIET, lw=0.6, ls=":")
    ax.set(
        xlabel="root mean squared error / standard deviation",
        title=f"{name}: {len(f.errors[TRUE])} sites and their mean",
    )


if __name__ == "__main__":
    main(run)
