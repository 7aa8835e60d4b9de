"""How much an associative memory holds: Hebb, the pseudo-inverse, and the modern Hopfield network.

Claim: a Hopfield network with Hebb's weights recalls random patterns as the theory says, nearly perfectly below 0.138
patterns per unit and hardly above. The pseudo-inverse stores as many independent patterns as there are units, but the
more it stores the less noise a cue may have. The modern network stores exponentially many, and what it does is to find
the nearest of them. Units that switch one after the other, and graded units in continuous time, come to rest; units
that all switch at once may alternate for ever, and half a time constant is step enough for that.

Patterns are random, +1 or -1, but for the digits of scikit-learn, whose correlations are too much for Hebb's weights.

Source: Hopfield (1982, 1984), PNAS 79:2554, 81:3088; Amit, Gutfreund & Sompolinsky (1985), Phys. Rev. Lett. 55:1530;
Personnaz, Guyon & Dreyfus (1986), Phys. Rev. A 34:4217; Ramsauer et al. (2021), ICLR, arXiv:2008.02217.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.linalg import hadamard
from scipy.optimize import brentq
from scipy.special import comb, lambertw
from sklearn.datasets import load_digits
from torch import Generator, Tensor

from ctrnn import Adaptive, Euler, Every, Fixed, Hopfield, Iterate, Last, ModernHopfield, analysis, integrate, plots
from ctrnn.learning import hebbian, pseudo_inverse
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, STABLE, TARGET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import flip_units, random_patterns

Network = Hopfield | ModernHopfield
LOADS = (0.04, 0.06, 0.08, 0.10, 0.12, 0.13, 0.14, 0.15, 0.16, 0.18, 0.20, 0.24)
TO_ONE = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # loads of all rules
CUE, MENDED = 0.9, 0.97  # overlaps, of the cues at these loads and of what counts as recalled
PROBED, SWEEPS = 30, 200  # patterns looked at in each network, and how often all its units switch at most
GAIN = 10.0  # of graded units in the larger networks
SYNC, ASYNC, FLOW, ONE, NEAREST = "all at once", "one by one", "graded, flow", "one step (static)", "nearest (static)"
DYNAMICS = dict(zip((SYNC, ASYNC, FLOW, ONE, NEAREST), (TRAJECTORY, UNSTABLE, OUTPUT, QUIET, STABLE), strict=True))
HEBB, PROJECTION, HOLLOW, MODERN = "Hebb", "pseudo-inverse", "pseudo-inverse, no self-connections", "modern"
RULES = dict(zip((HEBB, PROJECTION, HOLLOW, MODERN), (TRAJECTORY, UNSTABLE, TARGET, INPUT), strict=True))
PAIR, PAIR_GAIN = torch.tensor([[0.0, -1.0], [-1.0, 0.0]]), 5.0  # two units that inhibit one another
CLUSTERS, MEMBERS = 3, 4
CRITICAL = analysis.critical_load()
AGS = "Amit, Gutfreund & Sompolinsky (1985), Phys. Rev. Lett. 55:1530"
RAMSAUER = "Ramsauer et al. (2021), arXiv:2008.02217"


class Loaded(NamedTuple):
    """Networks of one size with Hebb's weights, started at what they store; one row per load."""

    first: Tensor  # (load,) fraction of units wrong after one step
    overlap: Tensor  # (load, probe) once the units, switched one by one, have come to rest


class Found(NamedTuple):
    """All that was measured."""

    loaded: dict[int, Loaded]  # units -> at each of LOADS
    cues: dict[str, Tensor]  # dynamics -> (cue,) overlap at the end
    cycling: dict[str, float]  # dynamics -> fraction of random starts that have not come to rest
    basins: dict[str, list[float]]  # rule -> largest fraction of flipped units, at each load
    capacity: dict[str, dict[int, float]]  # rule -> units -> patterns
    swing: Tensor  # (dt,) of the two units after a long run
    kinds: dict[str, Tensor]  # start -> (beta,) number of patterns in the fixed point
    digits: dict[str, Tensor]  # row -> (digit, pixel)
    recalled: dict[str, float]  # rule -> fraction of ten digits recalled from noisy cues
    all_digits: tuple[float, float]  # of all images: by the modern network, by the nearest one
    units: int  # of the networks that follow
    rested: dict[str, Tensor]  # rule -> (start, load) overlap at rest, from a pattern and from a cue
    stepped: Tensor  # (load,) overlap of the pseudo-inverse one step after a cue


def run(
    *,
    quick: bool = False,
    seed: int = 0,
    seeds: int = 1,
    sizes: tuple[int, ...] = (256, 512, 1024, 2048),
    units: int = 512,
) -> Result:
    """Store patterns in networks, and recall them.

    Args:
        quick: small networks.
        seed: of patterns, cues and the order in which units switch.
        seeds: networks of the largest size, with Hebb's weights, at every load.
        sizes: their units, where the load is varied; smaller networks are more, as many units in all. Powers of two
            make the fields exact, so that no rounding decides which way a unit without a field goes.
        units: of the networks on which rules and dynamics are compared.
    """
    if quick:
        sizes, units = (64, 128), 128
    draw = Generator().manual_seed(seed)
    report = progress(len(sizes) + 5, "recalling")
    with torch.no_grad():
        loaded = {}
        for k, n in enumerate(sizes):
            loaded[n] = by_load(n, seeds * max(1, sizes[-1] // n), draw)
            report(k + 1)
        cues, cycling = by_cue(units, draw), at_rest(units, draw)
        report(len(sizes) + 1)
        basins = by_rule(24 if quick else 200, draw)
        report(len(sizes) + 2)
        capacity = by_size((8,) if quick else (8, 16, 24, 32), draw)
        report(len(sizes) + 3)
        digits = of_digits(draw)
        shares = kinds(draw)
        report(len(sizes) + 4)
        networks = seeds * max(1, sizes[-1] // units)
        rules = units, by_start(units, networks, draw), one_step_on(units, networks, draw)
        found = Found(loaded, cues, cycling, basins, capacity, swings(), shares, *digits, *rules)
        result = Result(figure(found), claims(found, draw))
        report(len(sizes) + 5)
    return result


# What the theory says


def iterated(load: float) -> float:
    """The overlap at a load: the equations of Amit, Gutfreund & Sompolinsky iterated from m = 1."""
    m, r = 1.0, 1.0
    for _ in range(5000):
        y = m / math.sqrt(2 * load * r)
        C = math.sqrt(2 / (math.pi * load * r)) * math.exp(-(y**2))
        if C >= 1:
            return 0.0
        m, r = math.erf(y), 1 / (1 - C) ** 2
    return m


def projected(load: float, m: float) -> float:
    """The overlap that one step of the pseudo-inverse makes of a cue of overlap m, in a large network.

    What is wrong with the cue, 1 - m or -1 - m a unit, keeps this share `load` of itself through the diagonal of W, and
    normal noise comes from the other units.
    """
    spread = math.sqrt(2 * load * (1 - load) * (1 - m**2))
    right, wrong = m + load * (1 - m), m - load * (1 + m)
    if spread == 0:
        return m
    return (1 + m) / 2 * math.erf(right / spread) + (1 - m) / 2 * math.erf(wrong / spread)


def base_of_growth(d: int, K: float, beta: float = 1.0, p: float = 0.001) -> float:
    """c of sqrt(p) c^((d - 1) / 4), the number of patterns of length K sqrt(d - 1) that Ramsauer et al. guarantee."""
    a = 2 / (d - 1) * (1 + math.log(2 * beta * K**2 * p * (d - 1)))
    b = 2 * K**2 * beta / 5
    return b / float(lambertw(math.exp(a + math.log(b))).real)


def by_nearest(d: int, flips: int) -> float:
    """How many random patterns of d units there may be until half of the cues are no longer nearest to their own.

    There are Poisson-distributed numbers of others that are nearer, and of others as near, among which chance decides.
    """
    nearer = sum(comb(d, k, exact=True) for k in range(flips)) / 2**d
    as_near = (comb(d, flips, exact=True) - 1) / 2**d
    half = brentq(
        lambda n: -n * nearer + math.log(-math.expm1(-n * as_near) / (n * as_near)) - math.log(0.5), 1e-6, 2**d
    )
    return 1 + half


# What networks do


def overlap(states: Tensor, patterns: Tensor) -> Tensor:
    """m = xi V / n of each."""
    return (states * patterns).mean(-1)


def at_once(net: Network, cues: Tensor, steps: int = 30) -> Tensor:
    """What the units show (time, cue, unit) when all switch at once: the last two steps."""
    ys = integrate(net, None, cues, t_span=(0, steps), steps=Fixed(1.0), solver=Iterate(), save=Every(1)).ys
    return ys[-2:]


def one_by_one(net: Hopfield, cues: Tensor, draw: Generator) -> Tensor:
    """What the units show when they switch one after the other, in random order, until none changes any more."""
    x = cues
    for _ in range(SWEEPS):
        before = net.activity(x)
        x = net.sweep(x, torch.randperm(net.n, generator=draw))
        if torch.equal(net.activity(x), before):
            break
    return net.activity(x)


def flowed(net: Hopfield, cues: Tensor, duration: float = 40.0) -> tuple[Tensor, Tensor]:
    """What graded units with the same weights show after this time in tau, and the largest |dx/dt| of each run."""
    graded = Hopfield.of(net.W_rec, gain=GAIN)
    run = integrate(graded, None, cues, t_span=(0, duration), steps=Adaptive(1e-4, 1e-4), save=Last())
    return run.ys[-1].sign(), graded(run.ts[-1], run.xs[-1], torch.zeros_like(cues)).abs().amax(-1)


def by_load(n: int, networks: int, draw: Generator) -> Loaded:
    """Networks of n units with Hebb's weights, started at stored patterns."""
    first, overlaps = [], []
    for load in LOADS:
        wrong, kept = [], []
        for _ in range(networks):
            patterns = random_patterns(round(load * n), n, generator=draw)
            net, probes = Hopfield.of(hebbian(patterns)), patterns[:PROBED]
            wrong.append((net.activity(probes @ net.W_rec) != probes).double().mean())
            kept.append(overlap(one_by_one(net, probes, draw), probes))
        first.append(torch.stack(wrong).mean())
        overlaps.append(torch.cat(kept))
    width = min(map(len, overlaps))
    return Loaded(torch.stack(first), torch.stack([values[:width] for values in overlaps]))


CUES, CUE_LOAD = torch.linspace(0, 1, 11).tolist(), 0.1


def by_cue(n: int, draw: Generator) -> dict[str, Tensor]:
    """Three dynamics with the same weights, and two ways without a cycle, from cues of all overlaps."""
    patterns = random_patterns(round(CUE_LOAD * n), n, generator=draw)
    net = Hopfield.of(hebbian(patterns))
    ends: dict[str, list[Tensor]] = {name: [] for name in DYNAMICS}
    for cue in CUES:
        cues = flip_units(patterns, (1 - cue) / 2, generator=draw)
        shown = {
            SYNC: at_once(net, cues)[-1],
            ASYNC: one_by_one(net, cues, draw),
            FLOW: flowed(net, cues)[0],
            ONE: net.activity(cues @ net.W_rec),
            NEAREST: patterns[(cues @ patterns.T).argmax(-1)],
        }
        for name, states in shown.items():
            ends[name].append(overlap(states, patterns).mean())
    return {name: torch.stack(values) for name, values in ends.items()}


def at_rest(n: int, draw: Generator) -> dict[str, float]:
    """The fraction of 100 random starts, with Hebb's weights at load 0.2, from which the units do not come to rest."""
    net, starts = (
        Hopfield.of(hebbian(random_patterns(n // 5, n, generator=draw))),
        random_patterns(100, n, generator=draw),
    )
    last = at_once(net, starts, 200)
    settled = one_by_one(net, starts, draw)
    return {
        SYNC: float((last[0] != last[1]).any(-1).double().mean()),
        ASYNC: float((net.activity(settled @ net.W_rec) != settled).any(-1).double().mean()),
        FLOW: float((flowed(net, starts, 2000.0)[1] > 1e-2).double().mean()),
    }


def projection(patterns: Tensor) -> Tensor:
    """The pseudo-inverse in double precision; near load 1 the inverse has more error than a symmetric W may have."""
    return pseudo_inverse(patterns.double()).to(patterns)


def hollow(patterns: Tensor) -> Tensor:
    """The pseudo-inverse without self-connections."""
    W = projection(patterns)
    return W - torch.diag(W.diagonal())


STORED: dict[str, Callable[[Tensor], Network]] = {
    HEBB: lambda patterns: Hopfield.of(hebbian(patterns)),
    PROJECTION: lambda patterns: Hopfield.of(projection(patterns)),
    HOLLOW: lambda patterns: Hopfield.of(hollow(patterns)),
    MODERN: lambda patterns: ModernHopfield.of(patterns, beta=4.0),
}


def recalled_by(rule: str, patterns: Tensor, cues: Tensor, draw: Generator) -> Tensor:
    """What a network that stores these patterns makes of cues: +1 and -1."""
    net = STORED[rule](patterns)
    return one_by_one(net, cues, draw) if isinstance(net, Hopfield) else at_once(net, cues)[-1].sign()


def whole_cue(n: int) -> float:
    """The overlap of a cue that was to have 0.9: a whole number of its units is flipped."""
    return 1 - 2 * round((1 - CUE) / 2 * n) / n


def by_start(n: int, networks: int, draw: Generator) -> dict[str, Tensor]:
    """For each rule the mean overlap at rest (start, load), started at stored patterns and at cues of overlap 0.9."""
    found: dict[str, list[Tensor]] = {rule: [] for rule in (HEBB, PROJECTION, MODERN)}
    for load in TO_ONE:
        ends: dict[str, list[Tensor]] = {rule: [] for rule in found}
        for _ in range(networks):
            patterns = random_patterns(round(load * n), n, generator=draw)
            probes = patterns[:PROBED]
            starts = torch.cat([probes, flip_units(probes, (1 - CUE) / 2, generator=draw)])
            for rule, overlaps in ends.items():
                shown = recalled_by(rule, patterns, starts, draw)
                overlaps.append(overlap(shown.unflatten(0, (2, -1)), probes).mean(-1))
        for rule, overlaps in ends.items():
            found[rule].append(torch.stack(overlaps).mean(0))
    return {rule: torch.stack(means, -1) for rule, means in found.items()}


def one_step_on(n: int, networks: int, draw: Generator) -> Tensor:
    """The mean overlap (load,) that one step of the pseudo-inverse makes of cues of overlap 0.9."""
    means = []
    for load in TO_ONE:
        ends = []
        for _ in range(networks):
            patterns = random_patterns(round(load * n), n, generator=draw)
            net, cues = Hopfield.of(projection(patterns)), flip_units(patterns, (1 - CUE) / 2, generator=draw)
            ends.append(overlap(net.activity(cues @ net.W_rec), patterns).mean())
        means.append(torch.stack(ends).mean())
    return torch.stack(means)


FLIPS = [0.02 * k for k in range(25)]


def by_rule(n: int, draw: Generator) -> dict[str, list[float]]:
    """The largest fraction of flipped units from which the mean overlap still comes to 0.97, at each load."""
    found: dict[str, list[float]] = {rule: [] for rule in RULES}
    for load in TO_ONE:
        patterns = random_patterns(round(load * n), n, generator=draw)
        cues = [flip_units(patterns, flips, generator=draw) for flips in FLIPS]
        for rule, reach in found.items():
            reach.append(math.nan)  # not even the patterns themselves
            for flips, cue in zip(FLIPS, cues, strict=True):
                if float(overlap(recalled_by(rule, patterns, cue, draw), patterns).mean()) < MENDED:
                    break
                reach[-1] = flips
    return found


def by_size(sizes: tuple[int, ...], draw: Generator) -> dict[str, dict[int, float]]:
    """How many patterns there are when half of the cues, an eighth of their units flipped, are recalled perfectly."""
    found: dict[str, dict[int, float]] = {rule: {} for rule in (HEBB, PROJECTION, MODERN)}
    for rule, counts in found.items():
        for d in sizes if rule == MODERN else (*sizes, 2 * sizes[-1], 4 * sizes[-1]):
            counts[d] = half_point(lambda count, rule=rule, d=d: perfect(rule, d, count, draw))
    return found


def perfect(rule: str, d: int, count: int, draw: Generator) -> float:
    """The fraction of 200 cues or so that are recalled without an error when `count` patterns are stored."""
    right = []
    for _ in range(max(1, min(20, 200 // count))):
        patterns = random_patterns(count, d, generator=draw)
        probes = patterns[:200]
        right.append(
            (recalled_by(rule, patterns, flip_units(probes, 1 / 8, generator=draw), draw) == probes).all(-1).double()
        )
    return float(torch.cat(right).mean())


def half_point(fraction: Callable[[int], float]) -> float:
    """Where a falling fraction crosses one half, between counts that grow by a quarter; below 1 if it starts there."""
    before, count = 0, 1
    last = 1.0
    while (now := fraction(count)) >= 0.5:
        before, last, count = count, now, max(count + 1, round(1.25 * count))
    return before + (count - before) * (last - 0.5) / (last - now)


def inhibiting() -> Hopfield:
    """Two graded units that inhibit one another."""
    return Hopfield.of(PAIR.to(torch.get_default_dtype()), gain=PAIR_GAIN)


STEPS = [0.02 * k for k in range(10, 51)]


def swings() -> Tensor:
    """How far two units that inhibit one another still move in the last of 400 Euler steps, for each step dt / tau."""
    start, ends = torch.tensor([0.3, 0.3001], dtype=torch.get_default_dtype()), []
    for dt in STEPS:
        run = integrate(inhibiting(), None, start, t_span=(0, 400 * dt), steps=Fixed(dt), solver=Euler())
        ends.append((run.xs[-1] - run.xs[-2]).abs().max())
    return torch.stack(ends)


def swing_begins(gain: float) -> float:
    """The step dt / tau above which the alternation x, -x of the two units attracts what is near it.

    It obeys (2 - a) x = a tanh(gain x), and attracts as long as gain (1 - tanh(gain x)^2) < 1.
    """
    V = math.sqrt(1 - 1 / gain)
    return 2 / (1 + V * gain / math.atanh(V))


def clusters() -> Tensor:
    """Three clusters of four patterns of length 8; the product of two is 48 within a cluster, 0 between clusters."""
    rows = torch.tensor(hadamard(16), dtype=torch.get_default_dtype())
    centers, members = rows[1 : 1 + CLUSTERS].repeat_interleave(MEMBERS, 0), rows[4:]
    return torch.cat([centers, centers, centers, members], -1)


BETAS = np.geomspace(0.02, 1, 40)
FROM_MEAN, FROM_PATTERN = "from the mean", "from a pattern"


def kinds(draw: Generator) -> dict[str, Tensor]:
    """How many patterns share the fixed point that the modern network comes to: exp of the entropy of its softmax."""
    patterns = clusters()
    noise = 1e-3 * torch.randn(patterns.shape[1], generator=draw)
    counts: dict[str, list[Tensor]] = {FROM_MEAN: [], FROM_PATTERN: []}
    for beta in BETAS:
        net = ModernHopfield.of(patterns, beta=float(beta))
        starts = torch.stack([patterns.mean(0), patterns[0]]) + noise
        p = net.attention(at_once(net, starts, 150)[-1])
        for name, count in zip(counts, torch.special.entr(p).sum(-1).exp(), strict=True):
            counts[name].append(count)
    return {name: torch.stack(values) for name, values in counts.items()}


def slowest(patterns: Tensor, beta: float) -> float:
    """The largest eigenvalue of the flow at the mean of some patterns that are equally far from it."""
    net = ModernHopfield.of(clusters(), beta=beta).double()
    return float(torch.linalg.eigvals(analysis.jacobian(net, patterns.double().mean(0))).real.max())


def of_digits(draw: Generator) -> tuple[dict[str, Tensor], dict[str, float], tuple[float, float]]:
    """One digit of each kind and what becomes of it; how often; and all digits that differ."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.unique(torch.where(torch.from_numpy(pixels) > 7, 1.0, -1.0).to(torch.get_default_dtype()), dim=0)
    first = torch.from_numpy(np.array([np.flatnonzero(labels == digit)[0] for digit in range(10)]))
    stored = torch.where(torch.from_numpy(pixels)[first] > 7, 1.0, -1.0).to(torch.get_default_dtype())
    many = flip_units(stored.expand(100, -1, -1), 0.1, generator=draw)
    shown = {rule: recalled_by(rule, stored, many, draw) for rule in (HEBB, PROJECTION, MODERN)}
    recalled = {rule: float((digits == stored).all(-1).double().mean()) for rule, digits in shown.items()}
    rows = {"stored": stored, "cue": many[0]} | {rule: digits[0] for rule, digits in shown.items()}
    cues = flip_units(images, 3 / 64, generator=draw)
    modern = (recalled_by(MODERN, images, cues, draw) == images).all(-1).double().mean()
    nearest = (images[(cues @ images.T).argmax(-1)] == images).all(-1).double().mean()
    return rows, recalled, (float(modern), float(nearest))


# Claims


def claims(found: Found, draw: Generator) -> list[Claim]:
    """Theory and identities first; then what random patterns and digits did."""
    exact = [*of_theory(), *of_dynamics(found, draw), *of_modern(draw), *of_projection(found)]
    return [*exact, *of_load(found), *of_rules(found), *of_cues(found), *of_basins(found), *of_capacity(found)]


def of_theory() -> list[Claim]:
    """The critical load, found twice."""
    loads = (0.05, 0.1, 0.13)
    return [
        Claim.near(
            "critical load of Hebb's weights, zero temperature, replica symmetric; the overlap there is "
            f"{analysis.retrieval_overlap((1 - 1e-9) * CRITICAL):.3f}",
            CRITICAL,
            0.137906,
            1e-6,
            f"{AGS}: 0.138; Stojnic (2024), arXiv:2403.01907: 0.137906",
        ),
        Claim.below(
            "their equations iterated and solved by elimination: largest difference in overlap at loads .05, .1, .13",
            max(abs(iterated(load) - analysis.retrieval_overlap(load)) for load in loads),
            1e-9,
            AGS,
        ),
        Claim.below("their equations iterated at load 0.139: the overlap", iterated(0.139), 1e-9, f"{AGS}: 0"),
    ]


def of_dynamics(found: Found, draw: Generator) -> list[Claim]:
    """Energies fall, and the two-cycle that only large steps have."""
    net = Hopfield.of(PAIR.to(torch.get_default_dtype()))
    at_once_ = integrate(net, None, torch.ones(2), t_span=(0, 6), steps=Fixed(1.0), solver=Iterate()).ys
    graded, start = inhibiting().double(), torch.tensor([1.0, 1.001]).double()
    run = integrate(graded, None, start, t_span=(0, 60), steps=Adaptive(1e-8, 1e-8))
    moving = [dt for dt, swing in zip(STEPS, found.swing.tolist(), strict=True) if swing > 0.1]
    return [
        Claim.below(
            "largest rise of an energy: 40 networks switched unit by unit, flowing, and the modern one, float64",
            largest_rise(draw),
            1e-7,
            "Hopfield (1982, 1984); Ramsauer et al. (2021), theorem 1",
        ),
        Claim.equal(
            "two units that inhibit one another, both switched at once from (1, 1): what they show",
            at_once_.tolist(),
            [[-1.0, -1.0], [1.0, 1.0]] * 3,
            "a cycle of two: W = [[0, -1], [-1, 0]]",
        ),
        Claim.below(
            f"the same two, graded, in continuous time from (1, 1.001): |dx/dt| at {run.ys[-1].sign().tolist()}",
            graded(run.ts[-1], run.xs[-1], torch.zeros(2).double()).abs().max(),
            1e-6,
            "Hopfield (1984): the flow runs downhill in E until it rests",
        ),
        replace(
            Claim.near(
                "smallest step dt / tau, of 0.20, 0.22, ... 1, with which they alternate for ever, "
                f"at gain {PAIR_GAIN:g}",
                min(moving),
                swing_begins(PAIR_GAIN),
                0.02,
                "where the alternation attracts: 2 / (1 + V g / atanh V), V = sqrt(1 - 1 / g)",
            ),
            planned="the same from (1, 1.001): 0.52",
            reason="the alternation attracts what is near it, so now they start near it, at (0.3, 0.3001)",
        ),
        Claim.below(
            "pseudo-inverse, 100 patterns in 100 units: largest |W xi - xi|, and |W - 1|: no cue is mended",
            full_projection(draw),
            1e-8,
            "Personnaz, Guyon & Dreyfus (1986): W is the projection on the patterns",
        ),
    ]


def largest_rise(draw: Generator) -> float:
    """The largest rise of the energy between looks."""
    rises = []
    for gain in (math.inf, 1.0, 3.0):
        W = hebbian(random_patterns(10, 40, generator=draw)).double()
        net, x = Hopfield.of(W, gain=gain), torch.randn(40, 40, generator=draw).double()
        energies = [net.energy(x)]
        for i in torch.randint(40, (200,), generator=draw):
            x = net.sweep(x, i.reshape(1))
            energies.append(net.energy(x))
        rises.append(torch.stack(energies).diff(dim=0).max())
        if math.isfinite(gain):
            run = integrate(net, None, x.flip(-1), t_span=(0, 10), steps=Fixed(0.1), solver=Euler())
            rises.append(net.energy(run.xs).diff(dim=0).max())
    modern = ModernHopfield.of(random_patterns(30, 40, generator=draw).double(), beta=0.3)
    start = torch.randn(40, 40, generator=draw).double()
    for dt in (1.0, 0.3):
        run = integrate(modern, None, start, t_span=(0, 20), steps=Fixed(dt), solver=Euler())
        rises.append(modern.energy(run.xs).diff(dim=0).max())
    return float(torch.stack(rises).max())


def full_projection(draw: Generator) -> float:
    """How far the pseudo-inverse of as many patterns as units is from one that leaves all states as they are."""
    patterns = random_patterns(100, 100, generator=draw).double()
    W = pseudo_inverse(patterns)
    return float(max((patterns @ W.T - patterns).abs().max(), (W - torch.eye(100).double()).abs().max()))


def of_modern(draw: Generator) -> list[Claim]:
    """Attention, the three kinds of fixed points, and the guaranteed capacity."""
    patterns, queries = torch.randn(30, 20, generator=draw), torch.randn(50, 20, generator=draw)
    updated = at_once(ModernHopfield.of(patterns, beta=0.7), queries, 2)[-2]
    attention = F.scaled_dot_product_attention(queries, patterns, patterns, scale=0.7)
    many = random_patterns(5000, 24, generator=draw)
    cues = flip_units(many[:500], 1 / 8, generator=draw)
    order = (cues @ many.T).topk(2).values
    clear = order[:, 0] > order[:, 1]
    nearest = many[(cues @ many.T).argmax(-1)]
    found = ModernHopfield.of(many, beta=8.0).target(torch.tensor(0.0), cues, cues[:, :0]).sign()
    designed = clusters()
    return [
        Claim.below("one modern update minus attention, largest", (updated - attention).abs().max(), 1e-5, RAMSAUER),
        Claim.equal(
            f"cues with one nearest pattern ({int(clear.sum())} of 500, 5,000 stored) whose modern update is another",
            int((found[clear] != nearest[clear]).any(-1).sum()),
            0,
            "softmax with beta = 8 is nearest neighbour: two patterns differ by at least 2 in their product with a cue",
        ),
        Claim.near(
            "12 patterns in 3 clusters: largest eigenvalue of the flow at the mean of all, beta = 3 / 52",
            slowest(designed, 3 / 52),
            0.0,
            1e-9,
            f"{RAMSAUER}: below, the fixed point is a global average; beta times the covariance, 52 / 3, is 1",
        ),
        Claim.near(
            "the same at the mean of one cluster, beta = 1 / 4",
            slowest(designed[:MEMBERS], 0.25),
            0.0,
            1e-3,
            f"{RAMSAUER}: below, it is metastable, an average of similar patterns; the covariance within is 4",
        ),
        Claim.near(
            "base c of the guaranteed capacity, K = 3, d = 20",
            base_of_growth(20, 3),
            3.1546,
            1e-4,
            f"{RAMSAUER}, theorem 3",
        ),
        Claim.near(
            "base c of the guaranteed capacity, K = 1, d = 75",
            base_of_growth(75, 1),
            1.3718,
            1e-4,
            f"{RAMSAUER}, theorem 3",
        ),
    ]


def of_projection(found: Found) -> list[Claim]:
    """At any load the pseudo-inverse keeps its patterns; at load 1 it keeps everything."""
    cue = whole_cue(found.units)
    pattern, cued = found.rested[PROJECTION]
    return [
        Claim.below(
            f"pseudo-inverse, {found.units} units, started at a pattern, {len(TO_ONE)} loads to 1: "
            "largest distance of the overlap at rest from 1",
            (1 - pattern).abs().max(),
            1e-5,
            "Personnaz, Guyon & Dreyfus (1986): W xi = xi for as many independent patterns as units",
        ),
        Claim.near(
            f"the same at load 1, started at cues of overlap {cue:.4g}: the overlap at rest",
            cued[-1],
            cue,
            1e-5,
            "W = 1: what is wrong with a cue stays",
        ),
    ]


def half_load(loaded: Loaded) -> float:
    """The load at which half of the probes keep an overlap above 0.9."""
    kept = (loaded.overlap > 0.9).double().mean(-1).tolist()
    last = max(k for k, value in enumerate(kept) if value >= 0.5)
    if last + 1 == len(kept):
        return math.nan
    return LOADS[last] + (LOADS[last + 1] - LOADS[last]) * (kept[last] - 0.5) / (kept[last] - kept[last + 1])


def of_load(found: Found) -> list[Claim]:
    """Hebb's weights beside the theory, in the largest networks."""
    n, at = max(found.loaded), {load: k for k, load in enumerate(LOADS)}
    largest, halves = found.loaded[n], {size: half_load(loaded) for size, loaded in found.loaded.items()}
    deviation = max(abs(float(largest.first[at[a]]) / analysis.one_step_error(a) - 1) for a in (0.1, 0.16, 0.24))
    near = max(
        abs(float(largest.overlap[at[a]].mean()) - analysis.retrieval_overlap(a)) for a in (0.06, 0.08, 0.1, 0.12)
    )
    return [
        Claim.below(
            f"error after one step, {n} units at loads 0.1, 0.16, 0.24: largest relative deviation from the law",
            deviation,
            0.1,
            "1/2 erfc(1 / sqrt(2 alpha)): normal crosstalk of variance alpha",
            "statistical",
        ),
        Claim.below(
            f"overlap at rest, {n} units at loads .06, .08, .1, .12: largest difference from the theory",
            near,
            0.005,
            AGS,
            "statistical",
        ),
        Claim.below(
            f"overlap at rest, {n} units at load 0.2, where the theory has 0",
            largest.overlap[at[0.2]].mean(),
            0.5,
            f"{AGS}: no retrieval; what remains belongs to spin-glass states near the pattern",
            "statistical",
        ),
        Claim.near(
            "load at which half of the patterns are kept (m > 0.9): "
            + ", ".join(f"{half:.3f} with {size} units" for size, half in halves.items()),
            halves[n],
            CRITICAL,
            0.01,
            f"{AGS}: 0.138 for infinitely many units",
            "statistical",
        ),
    ]


def mended_to(found: Found, rule: str) -> float:
    """The load up to which cues of overlap 0.9 are recalled, 0 if at none of those tried."""
    mended = (found.rested[rule][1] >= MENDED).tolist()
    first = mended.index(False) if False in mended else len(mended)
    return TO_ONE[first - 1] if first else 0.0


def of_rules(found: Found) -> list[Claim]:
    """Overlap against load: Hebb, the pseudo-inverse and the modern network, beside what theory there is."""
    reach = {rule: mended_to(found, rule) for rule in found.rested}
    law = torch.tensor([projected(load, whole_cue(found.units)) for load in TO_ONE]).to(found.stepped)
    hebb = max(abs(float(found.rested[HEBB][1, k]) - analysis.retrieval_overlap(TO_ONE[k])) for k in (0, 1))
    return [
        Claim.below(
            f"Hebb, {found.units} units, cues of overlap {CUE:g} at loads .05, .1: largest difference from the theory",
            hebb,
            0.005,
            f"{AGS}: a cue comes to the same state as the pattern",
            "statistical",
        ),
        Claim.below(
            f"pseudo-inverse, one step from cues of overlap {CUE:g}, {len(TO_ONE)} loads to 1: largest difference from "
            "the law",
            (found.stepped - law).abs().max(),
            0.01,
            "normal crosstalk of variance alpha (1 - alpha)(1 - m^2) beside the diagonal alpha (derived here)",
            "statistical",
        ),
        Claim.at_least(
            f"modern, from patterns and from cues of overlap {CUE:g}, {len(TO_ONE)} loads to 1: smallest mean overlap",
            found.rested[MODERN].min(),
            0.999,
            f"{RAMSAUER}: fixed points at the patterns, exponentially many; nearest neighbour: 1",
            "statistical",
        ),
        Claim.at_least(
            f"load up to which cues of overlap {CUE:g} come to {MENDED:g}: "
            + ", ".join(f"{rule} {load:g}" for rule, load in reach.items())
            + "; pseudo-inverse over Hebb",
            reach[PROJECTION] / reach[HEBB] if reach[HEBB] else math.inf,
            2.0,
            "Personnaz, Guyon & Dreyfus (1986): the projection takes the crosstalk of the patterns away",
            "statistical",
        ),
    ]


def of_cues(found: Found) -> list[Claim]:
    """The dynamics, from cues of all overlaps and from random starts."""
    half = CUES.index(0.5)
    ends = {name: float(values[half]) for name, values in found.cues.items()}
    return [
        Claim.at_least(
            f"cue of overlap 0.5 at load {CUE_LOAD}: what recurrence adds to the overlap of one step, {ends[ONE]:.3f}",
            min(ends[name] for name in (SYNC, ASYNC, FLOW)) - ends[ONE],
            0.05,
            "baseline: one step is a static map; the lowest of the three dynamics",
            "statistical",
        ),
        Claim.below(
            f"the three dynamics at cue overlaps 0.5 to 1: largest difference; {NEAREST} there at least "
            f"{float(found.cues[NEAREST][half:].min()):.3f}",
            max(float((found.cues[name][half:] - found.cues[SYNC][half:]).abs().max()) for name in (ASYNC, FLOW)),
            0.05,
            "fixed points are shared; basins need not be",
            "statistical",
        ),
        replace(
            Claim.equal(
                f"random starts of 100 at load 0.2 that never rest when units switch one by one, or flow; "
                f"{found.cycling[SYNC]:.0%} alternate when all switch at once",
                [found.cycling[ASYNC], found.cycling[FLOW]],
                [0.0, 0.0],
                "symmetric weights: a cycle of two at most, and only when several units switch at once",
                "statistical",
            ),
            planned="the same after 400 tau of the flow: one start of 100 still crept",
            reason="coming to rest near a saddle has no time limit: now 2,000 tau",
        ),
    ]


def of_basins(found: Found) -> list[Claim]:
    """The noise that the pseudo-inverse mends."""
    loads = [k for k, load in enumerate(TO_ONE) if load >= 0.3]
    reach = {rule: [found.basins[rule][k] for k in loads] for rule in RULES}
    return [
        Claim.equal(
            "pseudo-inverse: the noise that is mended never grows with the load",
            bool(np.all(np.diff(found.basins[PROJECTION]) <= 0)),
            True,
            "Personnaz, Guyon & Dreyfus (1986)",
            "statistical",
        ),
        replace(
            Claim.equal(
                f"loads of {len(loads)} from 0.3 to 1 at which the pseudo-inverse mends more without self-connections",
                sum(a > b for a, b in zip(reach[HOLLOW], reach[PROJECTION], strict=True)),
                len(loads),
                "Kanter & Sompolinsky (1987), Phys. Rev. A 35:380",
                "statistical",
            ),
            planned="the same, all units at once, mended to 0.95: 3 of 8",
            reason="at once they alternate; 0.95 would count 2% of flipped units as mended, so now 0.97",
        ),
    ]


def of_capacity(found: Found) -> list[Claim]:
    """How many patterns, and digits."""
    capacity = found.capacity[MODERN]
    ratio = {d: count / by_nearest(d, d // 8) for d, count in capacity.items()}
    modern, nearest = found.all_digits
    return [
        Claim.below(
            "modern capacity, an eighth of the units flipped, "
            + ", ".join(f"{count:,.0f} in {d} units" for d, count in capacity.items())
            + ": largest factor from nearest neighbour's",
            max(max(value, 1 / value) for value in ratio.values()),
            1.5,
            "half of the cues: 2^d ln 2 / sum_k<=r C(d, k)",
            "statistical",
        ),
        Claim.equal(
            "ten digits from cues with 10% of the pixels flipped, recalled to the pixel: "
            + ", ".join(f"{rule} {value:.0%}" for rule, value in found.recalled.items())
            + "; Hebb below 20%, pseudo-inverse above 80%, modern above 99%",
            [found.recalled[HEBB] < 0.2, found.recalled[PROJECTION] > 0.8, found.recalled[MODERN] > 0.99],
            [True] * 3,
            "correlated patterns break Hebb's weights, not the projection",
            "statistical",
        ),
        Claim.near(
            "all images of digits that differ, three pixels flipped: recalled by the modern network",
            modern,
            nearest,
            0.01,
            "baseline: the nearest stored image",
            "statistical",
        ),
    ]


# Figure


def figure(found: Found) -> Figure:
    """Overlap against load above; errors, dynamics and noise; capacity, the modern network and small steps; digits."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 9.6), layout="constrained")
        grid = fig.add_gridspec(5, 6, height_ratios=(1.1, 1, 1, 0.03, 1))
        _rules(fig.add_subplot(grid[0, :4]), found)
        _load(fig.add_subplot(grid[0, 4:]), found)
        places = [fig.add_subplot(grid[row, 2 * k : 2 * k + 2]) for row in (1, 2) for k in range(3)]
        for ax, draw in zip(places, (_errors, _cue, _basin, _capacity, _kinds, _swing), strict=True):
            draw(ax, found)
        _digits(fig.add_subplot(grid[4, :]), found)
    return fig


def _rules(ax: Axes, found: Found) -> None:
    for (rule, (pattern, cue)), marker, size in zip(found.rested.items(), "os^", (3, 5, 3), strict=True):
        ax.plot(TO_ONE, pattern, marker=marker, ms=size, lw=0.8, color=RULES[rule], label=rule)
        ax.plot(TO_ONE, cue, f"{marker}--", ms=size, mfc="white", lw=0.8, color=RULES[rule])
    low, fine = np.linspace(0.03, CRITICAL - 1e-9, 200), np.linspace(0.03, 1, 200)
    theory = [*map(analysis.retrieval_overlap, low), 0, 0]
    ax.plot([*low, CRITICAL, 1], theory, color=STABLE, lw=1, label="Hebb: theory")
    ax.plot([0.03, 1], [1, 1], color=STABLE, lw=1, ls="--", label="pseudo-inverse, modern: theory")
    law = [projected(load, whole_cue(found.units)) for load in fine]
    ax.plot(fine, law, color=QUIET, lw=1, ls=":", label="pseudo-inverse, one step: law")
    ax.plot(TO_ONE, found.stepped, "D", ms=2.5, color=QUIET, label="pseudo-inverse, one step")
    ax.set(xlabel="load $\\alpha$ (patterns per unit)", ylabel="overlap at rest", ylim=(-0.04, 1.06))
    ax.set_title(
        f"{found.units} units, started at a pattern (filled, solid) or at a cue of overlap {CUE:g} (open, dashed)"
    )
    ax.legend(loc="center right", ncols=2, bbox_to_anchor=(1, 0.6), handlelength=1.5, columnspacing=1)


def _load(ax: Axes, found: Found) -> None:
    for (n, loaded), color in zip(found.loaded.items(), (QUIET, TARGET, UNSTABLE, TRAJECTORY), strict=False):
        ax.plot(LOADS, loaded.overlap.mean(-1), "o-", ms=3, lw=0.8, color=color, label=f"{n} units")
    fine = np.linspace(0.03, CRITICAL - 1e-9, 200)
    ax.plot(
        [*fine, CRITICAL, 0.25], [*map(analysis.retrieval_overlap, fine), 0, 0], color=STABLE, lw=1.2, label="theory"
    )
    ax.set(xlabel="load $\\alpha$ (patterns per unit)", ylabel="overlap at rest", ylim=(-0.04, 1.04))
    ax.set_title("Hebb from a pattern, by size")
    ax.legend(loc="lower left", handlelength=1.2)


def _errors(ax: Axes, found: Found) -> None:
    n = max(found.loaded)
    fine = np.linspace(0.04, 0.25, 200)
    below = fine[fine < CRITICAL]
    ax.semilogy(fine, [*map(analysis.one_step_error, fine)], color=QUIET, label="one step: law")
    ax.semilogy(LOADS, found.loaded[n].first, "o", ms=3, color=QUIET, label=f"one step, {n} units")
    ax.semilogy(
        below, [(1 - analysis.retrieval_overlap(load)) / 2 for load in below], color=TRAJECTORY, label="at rest: theory"
    )
    rest = (1 - found.loaded[n].overlap.mean(-1)) / 2
    ax.semilogy(LOADS, rest, "s", ms=3, color=TRAJECTORY, label=f"at rest, {n} units")
    ax.plot([CRITICAL] * 2, [1e-5, 1], color=STABLE, lw=0.6, ls=":")
    ax.set(xlabel="load $\\alpha$", ylabel="fraction of units wrong", ylim=(1e-5, 300))
    ax.set_yticks([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1])
    ax.set_title("Hebb: errors")
    ax.legend(loc="upper left")


def _cue(ax: Axes, found: Found) -> None:
    for name, color in DYNAMICS.items():
        ax.plot(CUES, found.cues[name], color=color, ls="--" if name in (ONE, NEAREST) else "-", label=name)
    ax.set(xlabel="overlap of the cue", ylabel="overlap at the end", ylim=(-0.04, 1.04))
    ax.set_title(f"Hebb at load {CUE_LOAD}: dynamics")
    ax.legend(loc="lower right")


def _basin(ax: Axes, found: Found) -> None:
    for (rule, reach), marker in zip(found.basins.items(), "osD^", strict=True):
        name = rule.replace(", no", ",\nno")
        ax.plot(TO_ONE, reach, marker=marker, ms=3, color=RULES[rule], label=name)
    ax.set(xlabel="load", ylabel="units that may be flipped", ylim=(-0.02, 0.75))
    ax.yaxis.set_major_formatter("{x:.0%}")
    ax.set_yticks([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    ax.set_title(f"noise mended (to $m \\geq$ {MENDED:g})")
    ax.legend(loc="upper right")


def _capacity(ax: Axes, found: Found) -> None:
    for (rule, counts), marker in zip(found.capacity.items(), "os^", strict=True):
        ax.loglog(list(counts), list(counts.values()), marker, ms=4, color=RULES[rule], label=rule)
    sizes = np.array(list(found.capacity[MODERN]))
    law = [by_nearest(int(d), int(d) // 8) for d in sizes]
    ax.loglog(sizes, law, color=STABLE, lw=0.8, ls="--", label="nearest neighbour: law")
    widest = np.array(list(found.capacity[HEBB]))
    ax.loglog(widest, widest, color=QUIET, lw=0.6, ls=":", label="as many as units")
    ax.set_xscale("log", base=2)
    ax.set_xticks(widest, [str(d) for d in widest])
    ax.minorticks_off()
    ax.set(xlabel="units", ylabel="patterns")
    ax.set_ylim(top=1e4 * max(found.capacity[MODERN].values()))
    ax.set_title("capacity, 1 unit in 8 flipped")
    ax.legend(loc="upper left")


def _kinds(ax: Axes, found: Found) -> None:
    for (name, counts), color, ls in zip(found.kinds.items(), (INPUT, UNSTABLE), ("-", "--"), strict=True):
        ax.plot(BETAS, counts, color=color, ls=ls, label=name)
    for beta, text in ((3 / 52, "3/52"), (0.25, "1/4")):
        ax.axvline(beta, color=QUIET, lw=0.6, ls=":")
        ax.annotate(text, (beta * 1.04, 13.2), fontsize=6)
    ax.set_xscale("log")
    ax.set_yticks([1, 4, 12])
    ax.set(xlabel="$\\beta$", ylabel="patterns in the fixed point", ylim=(0, 14))
    ax.set_title("modern: 12 patterns, 3 clusters")
    ax.legend(loc="center right", bbox_to_anchor=(1, 0.62), handlelength=1.5)


def _swing(ax: Axes, found: Found) -> None:
    ax.plot(STEPS, found.swing, "o-", ms=2.5, lw=0.8, color=TRAJECTORY)
    begin = swing_begins(PAIR_GAIN)
    ax.axvline(begin, color=STABLE, lw=0.6, ls=":")
    ax.annotate(f"{begin:.3f}, theory", (begin, 0.5), (begin - 0.02, 0.5), ha="right", fontsize=6)
    ax.set(xlabel="step $\\Delta t / \\tau$ (1: both at once)", ylabel="last step of 400, |$\\Delta x$|")
    ax.set_title("two units inhibit one another:\nthey rest at small steps only")


def _digits(ax: Axes, found: Found) -> None:
    rows = [F.pad(row.reshape(10, 8, 8), (1, 1, 1, 1), value=math.nan) for row in found.digits.values()]
    ax.imshow(torch.cat([torch.cat(tuple(row), 1) for row in rows]).numpy(), cmap="Greys", vmin=-1.2, vmax=1)
    names = [name if name not in found.recalled else f"{name}\n({found.recalled[name]:.0%})" for name in found.digits]
    ax.set_yticks([4.5 + 10 * k for k in range(len(rows))], names)
    ax.set_xticks([])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)
    ax.set_title(
        "ten digits in 64 units, 10% of the pixels flipped\n(in brackets: cues of 1,000 recalled to the pixel)"
    )


if __name__ == "__main__":
    main(run)
