"""Recall in both directions: the bidirectional associative memory.

Claim: two fields of units and one memory between them recall either member of a pair from the other, also from a noisy
one, because they reverberate: one pass does worse. Each pair is stored at once, by adding it. Kosko's example comes out
to the number. The number of pairs is limited, not by the size of the smaller field as the paper roughly has it: random
pairs are recalled with few errors up to a fifth of it, and without errors only far below. When all units of both fields
switch at once, the memory can alternate between two pairs for ever; field by field and in continuous time it comes to
rest. With Hebb's law running, the memory learns from what is shown to it, and forgets what no longer reverberates.

Source: Kosko (1988), IEEE Trans. SMC 18:49-60; Kosko (1987), Applied Optics 26:4947-4960. The theory of the load is the
one of Amit, Gutfreund & Sompolinsky (1985) for two fields (`analysis.retrieval_overlap`); Kurchan, Peliti & Saber
(1994), J. Phys. I France 4:1627, treat the stochastic memory. The letters are ours.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor

from ctrnn import (
    BAM,
    Adaptive,
    AdaptiveBAM,
    AdaptiveBAMState,
    BAMState,
    Euler,
    Fixed,
    Hopfield,
    Iterate,
    analysis,
    integrate,
    plots,
)
from ctrnn.learning import correlation
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, STABLE, TARGET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import flip_units, random_patterns

LOADS = (0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.22, 0.25, 0.3)
FEW = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.13, 0.17, 0.25, 0.5, 1.0)  # pairs per unit of the smaller field
CUES, CUE_LOAD = torch.linspace(0, 1, 11).tolist(), 0.12
GAIN, DURATION = 4.0, 30.0  # of graded units whose memory is divided by their number; time in tau
PASS, REVERB, FLOW, NEAREST = "one pass (static)", "reverberation", "graded, flow", "nearest key (static)"
WAYS = dict(zip((PASS, REVERB, FLOW, NEAREST), (QUIET, TRAJECTORY, OUTPUT, STABLE), strict=True))
CRITICAL = analysis.critical_load(fields=2)
KOSKO, KOSKO87 = "Kosko (1988), IEEE Trans. SMC 18:49", "Kosko (1987), Applied Optics 26:4947"

LETTERS = {
    "S": ".#####. #...... #...... .#####. ......# ......# .#####.",
    "M": "#.....# ##...## #.#.#.# #..#..# #.....# #.....# #.....#",
    "G": ".#####. #...... #...... #..#### #.....# #.....# .#####.",
    "E": "####### #...... #...... #####.. #...... #...... #######",
    "V": "#.....# #.....# #.....# .#...#. .#...#. ..#.#.. ...#...",
    "N": "#.....# ##....# #.#...# #..#..# #...#.# #....## #.....#",
}
PAIRS = (("S", "E"), ("M", "V"), ("G", "N"))


def bitmap(name: str) -> Tensor:
    """A letter of 49 pixels: +1 ink, -1 paper."""
    ink = [1.0 if c == "#" else -1.0 for c in LETTERS[name].replace(" ", "")]
    return torch.tensor(ink, dtype=torch.get_default_dtype())


def letters() -> tuple[Tensor, Tensor]:
    """The three pairs, keys and values."""
    return torch.stack([bitmap(a) for a, _ in PAIRS]), torch.stack([bitmap(b) for _, b in PAIRS])


class Taught(NamedTuple):
    """An adaptive memory that is shown pairs in turn, and then nothing."""

    ts: Tensor  # in tau of the fields
    known: Tensor  # (time, pair) overlap of what the memory, as it is then, makes of each key
    weights: Tensor  # (time, pair) the memory's share of each pair
    shown: int  # samples during which pairs are shown


class Found(NamedTuple):
    """All that was measured."""

    first: dict[int, Tensor]  # units in a field -> (load,) fraction of y wrong after one pass from a key
    overlaps: dict[int, Tensor]  # units in a field -> (load,) overlap of both fields at rest, from a key
    perfect: dict[tuple[int, int], list[float]]  # sizes of the fields -> at FEW, pairs recalled without an error
    cues: dict[str, Tensor]  # way -> (direction, cue) overlap of what is recalled
    letters: dict[str, Tensor]  # way -> (direction,) fraction of noisy letters recalled to the pixel
    pictures: tuple[list[Tensor], list[Tensor]]  # from keys and from values: what the fields show, one after the other
    energies: dict[str, Tensor]  # how it runs -> (time, start)
    conflict: dict[str, Tensor]  # how it runs -> (time, both fields), started at x of one pair and y of another
    taught: Taught


def run(*, quick: bool = False, seed: int = 0, seeds: int = 4, sizes: tuple[int, ...] = (256, 512, 1024)) -> Result:
    """Store pairs in memories, and recall either member from the other.

    Args:
        quick: small fields.
        seed: of pairs and cues.
        seeds: memories of each kind.
        sizes: units in each field where the load is varied. Two fields of unequal size are looked at beside them.
    """
    if quick:
        sizes, seeds = (64, 128), 2
    draw = Generator().manual_seed(seed)
    report = progress(len(sizes) + 3, "recalling")
    first, overlaps = {}, {}
    with torch.no_grad():
        for k, n in enumerate(sizes):
            first[n], overlaps[n] = by_load(n, seeds, draw)
            report(k + 1)
        fields = [(n, n) for n in sizes[:2]] + [(sizes[1], sizes[1] // 4)]
        perfect = {(n, m): [without_error(n, m, load, seeds, draw) for load in FEW] for n, m in fields}
        report(len(sizes) + 1)
        cues = by_cue(sizes[1], draw)
        report(len(sizes) + 2)
        rates, pictures = of_letters(draw)
        found = Found(
            first, overlaps, perfect, cues, rates, pictures, falling(draw), in_conflict(), teach(30 if quick else 90)
        )
        result = Result(figure(found), claims(found, draw))
        report(len(sizes) + 3)
    return result


# What the theory says


def theory(load: float) -> float:
    """The overlap at a load, in pairs per unit of each of two equal fields."""
    return analysis.retrieval_overlap(load, fields=2)


def iterated(load: float) -> float:
    """The overlap at a load: the equations of Amit, Gutfreund & Sompolinsky, for two fields, iterated from m = 1."""
    m, r = 1.0, 1.0
    for _ in range(20_000):
        y = m / math.sqrt(2 * load * r)
        C = math.sqrt(2 / (math.pi * load * r)) * math.exp(-(y**2))
        if C >= 1:
            return 0.0
        m, r = math.erf(y), (1 + C**2) / (1 - C**2) ** 2
    return m


# What memories do


def reverberate(net: BAM, keys: Tensor, steps: int = 40) -> Tensor:
    """What both fields show (time, key, n + m), from keys in x and nothing in y; a step switches y, then x."""
    x0 = BAMState(keys, keys.new_zeros(*keys.shape[:-1], net.m))
    return integrate(net, None, x0, t_span=(0, steps), steps=Fixed(1.0), solver=Iterate()).ys


def flowed(net: BAM, keys: Tensor) -> Tensor:
    """What graded units show in the end, in continuous time, with the same memory."""
    graded = BAM.of(net.M / max(net.n, net.m), gain=GAIN)
    x0 = BAMState(keys, keys.new_zeros(*keys.shape[:-1], net.m))
    steps = Adaptive(1e-4, 1e-4)
    return integrate(graded, None, x0, t_span=(0, DURATION), steps=steps).ys[-1].sign()


def overlap(shown: Tensor, pattern: Tensor) -> Tensor:
    """The mean product of what is shown and a pattern."""
    return (shown * pattern).mean(-1)


def by_load(n: int, networks: int, draw: Generator) -> tuple[Tensor, Tensor]:
    """Random pairs, recalled from their own keys: what one pass gets wrong, and the overlap at rest."""
    wrong, rest = [], []
    for load in LOADS:
        now, later = [], []
        for _ in range(networks):
            X, Y = (random_patterns(round(load * n), n, generator=draw) for _ in range(2))
            ys = reverberate(BAM.of(correlation(X, Y)), X[:100])
            now.append((ys[0, :, n:] != Y[:100]).double().mean())
            later.append(overlap(ys[-1], torch.cat([X, Y], -1)[:100]).mean())
        wrong.append(torch.stack(now).mean())
        rest.append(torch.stack(later).mean())
    return torch.stack(wrong), torch.stack(rest)


def without_error(n: int, m: int, load: float, networks: int, draw: Generator) -> float:
    """The fraction of pairs of which both members are exact at rest, from their keys; load per unit of the smaller."""
    right = []
    for _ in range(networks):
        count = max(1, round(load * min(n, m)))
        X, Y = random_patterns(count, n, generator=draw), random_patterns(count, m, generator=draw)
        right.append((reverberate(BAM.of(correlation(X, Y)), X)[-1] == torch.cat([X, Y], -1)).all(-1).double())
    return float(torch.cat(right).mean())


def by_cue(n: int, draw: Generator) -> dict[str, Tensor]:
    """What is recalled from noisy members of random pairs, in both directions."""
    X, Y = (random_patterns(round(CUE_LOAD * n), n, generator=draw) for _ in range(2))
    ends: dict[str, list[Tensor]] = {way: [] for way in WAYS}
    for keys, values in ((X, Y), (Y, X)):
        net = BAM.of(correlation(keys, values))
        for cue in CUES:
            given = flip_units(keys, (1 - cue) / 2, generator=draw)
            ys = reverberate(net, given)
            recalled = {
                PASS: ys[0, :, n:],
                REVERB: ys[-1, :, n:],
                FLOW: flowed(net, given)[:, n:],
                NEAREST: values[(given @ keys.T).argmax(-1)],
            }
            for way, y in recalled.items():
                ends[way].append(overlap(y, values).mean())
    return {way: torch.stack(values).reshape(2, len(CUES)) for way, values in ends.items()}


FLIPS = 0.2  # of the pixels of letters


def of_letters(draw: Generator) -> tuple[dict[str, Tensor], tuple[list[Tensor], list[Tensor]]]:
    """How often noisy letters bring back their partners, and one recall of each, in both directions."""
    X, Y = letters()
    rates: dict[str, list[Tensor]] = {PASS: [], REVERB: [], NEAREST: []}
    pictures = []
    for keys, values in ((X, Y), (Y, X)):
        net, given = BAM.of(correlation(keys, values)), flip_units(keys.expand(400, -1, -1), FLIPS, generator=draw)
        ys = reverberate(net, given)
        recalled = {PASS: ys[0], REVERB: ys[-1], NEAREST: values[(given @ keys.T).argmax(-1)]}
        for way, shown in recalled.items():
            rates[way].append((shown[..., -49:] == values).all(-1).double().mean())
        fails = (ys[0, :, 0, 49:] != values[0]).any(-1) & (ys[-1, :, 0, 49:] == values[0]).all(-1)
        one = int(fails.int().argmax())  # the first of these cues; if there is none, the first of all
        pictures.append(
            [given[one, 0], *[ys[k, one, 0, part] for k in range(2) for part in (slice(49, None), slice(49))]]
        )
    return {way: torch.stack(values) for way, values in rates.items()}, (pictures[0], pictures[1])


def block(memory: Tensor) -> Tensor:
    """The weights [[0, M], [M^T, 0]] of the Hopfield network of both fields."""
    n, m = memory.shape
    zero = memory.new_zeros
    return torch.cat([torch.cat([zero(n, n), memory], 1), torch.cat([memory.T, zero(m, m)], 1)])


WHOLE, SMALL = "field by field", "continuous time"


def falling(draw: Generator) -> dict[str, Tensor]:
    """The energy per unit of 20 random starts in a memory of random pairs, in float64."""
    X, Y = (random_patterns(20, 100, generator=draw).double() for _ in range(2))
    M, start = correlation(X, Y) / 100, torch.randn(20, 200, generator=draw).double()
    graded, x0 = BAM.of(M, gain=GAIN), BAMState(*start.split(100, -1))
    runs = {
        WHOLE: integrate(graded, None, x0, t_span=(0, 12), steps=Fixed(1.0), solver=Iterate()),
        SMALL: integrate(graded, None, x0, t_span=(0, 12), steps=Fixed(0.05), solver=Euler()),
    }
    energies = {}
    for name, run in runs.items():
        assert isinstance(run.xs, BAMState)
        energies[name] = torch.cat([graded.energy(x0)[None], graded.energy(run.xs)]) / 200
    return energies


AT_ONCE = "all at once"
CONFLICT = 24


def in_conflict() -> dict[str, Tensor]:
    """Fields that show members of different pairs, S in x and V in y: what they show from then on."""
    X, Y = letters()
    M = correlation(X, Y) / 49
    x0 = BAMState(X[0], Y[1])
    memory, graded, both = BAM.of(M), BAM.of(M, gain=GAIN), Hopfield.of(block(M))
    span = (0, CONFLICT)
    return {
        AT_ONCE: integrate(both, None, torch.cat(x0), t_span=span, steps=Fixed(1.0), solver=Iterate()).ys,
        WHOLE: integrate(memory, None, x0, t_span=span, steps=Fixed(1.0), solver=Iterate()).ys,
        SMALL: integrate(graded, None, x0, t_span=span, steps=Fixed(0.05), solver=Euler()).ys,
    }


SLOW, EACH = 100.0, 5  # tau of the memory, and for how long a pair is shown, in tau of the fields


def teach(samples: int, quiet: int = 300) -> Taught:
    """Show the letters' pairs in turn, `samples` of them in all, to a memory that knows nothing; then show nothing."""
    X, Y = letters()
    pairs = torch.cat([X, Y], -1)
    order = torch.arange(samples) % len(pairs)
    us = torch.cat([50 * pairs[order].repeat_interleave(EACH, 0), pairs.new_zeros(quiet, 98)])
    net = AdaptiveBAM(49, 49, gain=math.inf, tau=AdaptiveBAMState(x=1.0, y=1.0, M=SLOW))
    run = integrate(net, us, dt=1.0)
    assert isinstance(run.xs, AdaptiveBAMState)
    Ms = run.xs.M[EACH - 1 :: EACH]  # after each pair
    recalled = torch.stack([reverberate(net.frozen(M), X, 10)[-1, :, 49:] for M in Ms])
    # M is a sum of products x_k y_k^T; their weights are found from what it makes of them.
    basis = torch.stack([torch.outer(x, y).flatten() for x, y in zip(X, Y, strict=True)])
    weights = torch.linalg.lstsq(basis.T.double(), Ms.flatten(1).T.double()).solution.T
    return Taught(run.ts[EACH - 1 :: EACH], overlap(recalled, Y), weights, samples * EACH)


# Claims


def claims(found: Found, draw: Generator) -> list[Claim]:
    """Kosko's example and identities first; then what random pairs and letters did."""
    return [*of_example(), *of_identities(found, draw), *of_load(found), *of_recall(found)]


def of_example() -> list[Claim]:
    """The two pairs that Kosko works out."""
    A = torch.tensor([[1, 0, 1, 0, 1, 0], [1, 1, 1, 0, 0, 0]], dtype=torch.get_default_dtype())
    B = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0]], dtype=torch.get_default_dtype())
    X, Y = 2 * A - 1, 2 * B - 1
    M = correlation(X, Y)
    forward, back = reverberate(BAM.of(M), X, 3), reverberate(BAM.of(M.T), Y, 3)
    return [
        Claim.equal(
            "example: the memory of (101010, 1100) and (111000, 1010)",
            M.int().tolist(),
            [[2, 0, 0, -2], [0, -2, 2, 0], [2, 0, 0, -2], [-2, 0, 0, 2], [0, 2, -2, 0], [-2, 0, 0, 2]],
            KOSKO,
        ),
        Claim.equal(
            "example: A1 M, A2 M and B1 M^T",
            [(A[0] @ M).int().tolist(), (A[1] @ M).int().tolist(), (B[0] @ M.T).int().tolist()],
            [[4, 2, -2, -4], [4, -2, 2, -4], [2, -2, 2, -2, 2, -2]],
            KOSKO,
        ),
        Claim.equal(
            "example: energies -A M B^T of the two pairs, in zeros and ones",
            [-float(a @ M @ b) for a, b in zip(A, B, strict=True)],
            [-6.0, -6.0],
            f"{KOSKO}: both pairs lie equally deep",
        ),
        Claim.equal(
            "example: members wrong when either is recalled from the other",
            int(
                (forward[-1] != torch.cat([X, Y], -1)).any(-1).sum() + (back[-1] != torch.cat([Y, X], -1)).any(-1).sum()
            ),
            0,
            KOSKO,
        ),
    ]


def of_identities(found: Found, draw: Generator) -> list[Claim]:
    """What holds for every memory."""
    X, Y = random_patterns(9, 30, generator=draw), random_patterns(9, 20, generator=draw)
    one_by_one = sum(correlation(x[None], y[None]) for x, y in zip(X, Y, strict=True))
    last = {name: ys[-2:] for name, ys in found.conflict.items()}
    pairs = [torch.cat(pair).tolist() for pair in zip(*letters(), strict=True)]
    crossed = [torch.cat([x, y]).tolist() for x, y in zip(letters()[0][:2], letters()[1][:2].flip(0), strict=True)]
    return [
        Claim.equal(
            "nine pairs stored one by one, by adding x y^T: entries that differ from all stored together",
            int((torch.as_tensor(one_by_one) != correlation(X, Y)).sum()),
            0,
            f"{KOSKO}: one-shot storage",
        ),
        Claim.below(
            "largest difference from the Hopfield network of both fields: the flow, and a whole step that switches y, "
            "then x",
            from_block(draw),
            1e-12,
            "weights [[0, M], [M^T, 0]], float64",
        ),
        Claim.below(
            "largest rise of an energy: reverberation, flow, and the adaptive memory that learns meanwhile, float64",
            max(*[float(energies.diff(dim=0).max()) for energies in found.energies.values()], adaptive_rise(draw)),
            1e-12,
            f"{KOSKO}: every memory is bidirectionally stable; {KOSKO87}: adaptively, too",
        ),
        Claim.equal(
            "S in x and V in y, all units at once: the two states between which they alternate are (S, V) and (M, E)",
            sorted(last[AT_ONCE].tolist()) == sorted(crossed) and not torch.equal(*last[AT_ONCE]),
            True,
            "each field answers what the other showed a step before: two recalls that never meet",
        ),
        Claim.equal(
            "the same field by field: they rest at (S, E); in continuous time: they rest (largest change below 1e-4)",
            [
                last[WHOLE].tolist() == [pairs[0], pairs[0]],
                bool(found.conflict[SMALL][-1].sub(found.conflict[SMALL][-21]).abs().max() < 1e-4),
            ],
            [True, True],
            KOSKO,
        ),
        Claim.near(
            f"adaptive memory after {found.taught.shown} tau: its share of each pair minus what the law says",
            weights_error(found.taught),
            0.0,
            1e-5,
            f"{KOSKO87}: signal Hebb law, tau_M dM/dt = f(x) f(y)^T - M",
        ),
        Claim.below(
            f"two equal fields, critical load {CRITICAL:.6f} (overlap {theory((1 - 1e-9) * CRITICAL):.3f}): equations "
            "iterated and solved by elimination, largest difference in overlap at loads .05, .1, .19",
            max(abs(iterated(load) - theory(load)) for load in (0.05, 0.1, 0.19)),
            1e-9,
            "Amit, Gutfreund & Sompolinsky (1985) for two fields; one field: 0.137906",
        ),
    ]


def from_block(draw: Generator) -> float:
    """How far a memory is from the Hopfield network of its two fields."""
    M, state = torch.randn(6, 4, generator=draw).double(), torch.randn(5, 10, generator=draw).double()
    memory, both = BAM.of(M, gain=1.3), Hopfield.of(block(M), gain=1.3)
    parts, silence, t = BAMState(*state.split((6, 4), -1)), torch.zeros(5, 10).double(), torch.tensor(0.0)
    flow = torch.cat(tuple(memory(t, parts, silence)), -1) - both(t, state, silence)
    stepped = integrate(memory, None, parts, t_span=(0, 1), steps=Fixed(1.0), solver=Euler()).xs
    assert isinstance(stepped, BAMState)
    step = torch.cat([stepped.x[-1], stepped.y[-1]], -1) - both.sweep(state, torch.tensor([6, 7, 8, 9, *range(6)]))
    return float(torch.stack([flow, step]).abs().max())


def adaptive_rise(draw: Generator) -> float:
    """The largest rise of the energy of fields and memory that change together."""
    x0 = AdaptiveBAMState(*[torch.randn(*shape, generator=draw).double() for shape in ((20, 6), (20, 4), (20, 6, 4))])
    rises = []
    for gain, tau, dt in ((math.inf, 1.0, 1.0), (2.0, AdaptiveBAMState(x=1.0, y=1.0, M=5.0), 0.02)):
        net = AdaptiveBAM(6, 4, gain=gain, tau=tau).double()
        run = integrate(net, None, x0, t_span=(0, 20), steps=Fixed(dt), solver=Euler())
        assert isinstance(run.xs, AdaptiveBAMState)
        rises.append(net.energy(run.xs).diff(dim=0).max())
    return float(torch.stack(rises).max())


def weights_error(taught: Taught) -> float:
    """How far the memory's shares of the pairs are from what Hebb's law says, when the last pair has been shown."""
    count, keep = taught.shown // EACH, (1 - 1 / SLOW) ** EACH
    ages = [[count - 1 - k for k in range(count) if k % len(PAIRS) == pair] for pair in range(len(PAIRS))]
    expected = [(1 - keep) * sum(keep**age for age in past) for past in ages]
    return float((taught.weights[count - 1] - torch.tensor(expected)).abs().max())


def half_point(loads: tuple[float, ...], falling_values: list[float], level: float) -> float:
    """The load at which values that fall cross a level."""
    k = max(k for k, value in enumerate(falling_values) if value >= level)
    if k + 1 == len(loads):
        return math.nan
    now, then = falling_values[k], falling_values[k + 1]
    return loads[k] + (loads[k + 1] - loads[k]) * (now - level) / (now - then)


def of_load(found: Found) -> list[Claim]:
    """How many random pairs there may be."""
    n, at = max(found.overlaps), {load: k for k, load in enumerate(LOADS)}
    overlaps, first = found.overlaps[n], found.first[n]
    (fields, perfect), *_ = [item for item in found.perfect.items() if item[0][0] == item[0][1]][-1:]
    halves = {sizes: half_point(FEW, values, 0.5) * min(sizes) for sizes, values in found.perfect.items()}
    listed = ", ".join(f"{count:.0f} pairs in {a} and {b} units" for (a, b), count in halves.items())
    return [
        Claim.below(
            f"error of y after one pass, {n} units in each field at loads .1, .2, .3: largest deviation from the law",
            max(abs(float(first[at[a]]) / analysis.one_step_error(a) - 1) for a in (0.1, 0.2, 0.3)),
            0.1,
            "1/2 erfc(1 / sqrt(2 alpha)): normal crosstalk of variance alpha; relative",
            "statistical",
        ),
        Claim.below(
            f"overlap at rest, {n} units in each field at loads .08 to .18: largest difference from the theory",
            max(abs(float(overlaps[k]) - theory(a)) for a, k in at.items() if 0.08 <= a <= 0.18),
            0.01,
            "Amit, Gutfreund & Sompolinsky (1985) for two fields",
            "statistical",
        ),
        Claim.near(
            f"load at which the overlap at rest falls below 0.8, {n} units in each field",
            half_point(LOADS, overlaps.tolist(), 0.8),
            CRITICAL,
            0.02,
            "the critical load",
            "statistical",
        ),
        Claim.at_least(
            f"as many pairs as units, {fields[0]} in each field: fraction that keys recall without an error; "
            f"half are with {listed}",
            perfect[-1],
            0.5,
            f"{KOSKO}, abstract: the number of pairs must roughly be below min(n, p)",
            "statistical",
        ),
    ]


def of_recall(found: Found) -> list[Claim]:
    """Noise, letters, and what an adaptive memory comes to know."""
    half, (there, back) = CUES.index(0.5), found.cues[REVERB]
    at = {way: float(values[0, half]) for way, values in found.cues.items()}
    rates = {way: [round(float(rate), 3) for rate in values] for way, values in found.letters.items()}
    taught, end = found.taught, found.taught.shown // EACH - 1
    known = [int((overlaps == 1).sum()) for overlaps in (taught.known[end], taught.known[-1])]
    return [
        Claim.at_least(
            f"cue of overlap 0.5 at load {CUE_LOAD}: what reverberation adds to one pass ({at[PASS]:.3f}); "
            f"in continuous time {at[FLOW]:.3f}, nearest key {at[NEAREST]:.3f}",
            at[REVERB] - at[PASS],
            0.05,
            "baselines without a cycle: one pass, and the value of the nearest key",
            "statistical",
        ),
        Claim.below(
            "overlaps recalled from keys and from values, cues of 0.5 and more: largest difference",
            (there[half:] - back[half:]).abs().max(),
            0.03,
            f"{KOSKO}: either member recalls the other",
            "statistical",
        ),
        Claim.at_least(
            f"letters from partners with {FLIPS:.0%} of the pixels flipped, to the pixel, the worse direction; from S, "
            "M, G and from E, V, N: " + "; ".join(f"{way} {a:.2f}, {b:.2f}" for way, (a, b) in rates.items()),
            min(rates[REVERB]),
            0.9,
            "ours; 49 pixels to a letter",
            "statistical",
        ),
        Claim.equal(
            f"adaptive memory: pairs of letters known after {taught.shown} tau, and after "
            f"{taught.ts[-1] - taught.shown:.0f} tau more in which nothing is shown",
            known,
            [3, 1],
            f"{KOSKO87}: reverberations seep into the memory; the pair that still reverberates is kept",
            "statistical",
        ),
    ]


# Figure


def figure(found: Found) -> Figure:
    """How much, how noisy; letters; downhill, in conflict, and taught."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 7.0), layout="constrained")
        grid = fig.add_gridspec(3, 6, height_ratios=(1, 0.62, 1))
        for row, panels in ((0, (_load, _perfect, _cue)), (2, (_energy, _conflict, _taught))):
            for k, draw in enumerate(panels):
                draw(fig.add_subplot(grid[row, 2 * k : 2 * k + 2]), found)
        for k, title in enumerate(("S to E", "E to S")):
            _pictures(fig.add_subplot(grid[1, 3 * k : 3 * k + 3]), found.pictures[k], title, "xy" if k == 0 else "yx")
    return fig


def _load(ax: Axes, found: Found) -> None:
    for (n, overlaps), color in zip(found.overlaps.items(), (TARGET, UNSTABLE, TRAJECTORY), strict=False):
        ax.plot(LOADS, overlaps, "o-", ms=3, lw=0.8, color=color, label=f"{n}, {n} units")
    fine = np.linspace(0.02, CRITICAL - 1e-9, 200)
    ax.plot([*fine, CRITICAL, 0.3], [*map(theory, fine), 0, 0], color=STABLE, lw=1.2, label="theory")
    ax.set(xlabel="load (pairs per unit of a field)", ylabel="overlap at rest", ylim=(-0.04, 1.04))
    ax.set_title("random pairs, from their keys")
    ax.legend(loc="lower left")


def _perfect(ax: Axes, found: Found) -> None:
    for ((n, m), values), color, marker in zip(
        found.perfect.items(), (TARGET, UNSTABLE, INPUT), ("o", "s", "^"), strict=True
    ):
        ax.semilogx(FEW, values, marker=marker, ms=3, color=color, label=f"{n}, {m}")
    ax.axvline(1, color=STABLE, lw=0.8, ls="--")
    ax.annotate("the paper's rough\nlimit, min(n, p)", (0.9, 0.85), ha="right", fontsize=6)
    ax.set(xlabel="pairs per unit of the smaller field", ylabel="pairs recalled without an error", ylim=(-0.04, 1.04))
    ax.set_title("random pairs, without errors")
    ax.legend(loc="lower left", title="units in x, y", title_fontsize=7)


def _cue(ax: Axes, found: Found) -> None:
    for way, color in WAYS.items():
        there, back = found.cues[way]
        ax.plot(CUES, there, color=color, ls="--" if "static" in way else "-", label=way)
        ax.plot(CUES, back, color=color, ls=":", lw=0.8)
    ax.set(xlabel="overlap of the cue", ylabel="overlap of what is recalled", ylim=(-0.04, 1.04))
    ax.plot([], [], color=QUIET, ls=":", lw=0.8, label="the same, from values")
    ax.set_title(f"noisy keys at load {CUE_LOAD}")
    ax.legend(loc="lower right", handlelength=1.5)


def _pictures(ax: Axes, shown: list[Tensor], title: str, fields: str) -> None:
    tiles = [F.pad(image.reshape(7, 7), (1, 1, 1, 1), value=math.nan) for image in shown]
    ax.imshow(torch.cat(tiles, 1).numpy(), cmap="Greys", vmin=-1.2, vmax=1)
    names = ["cue", *["then"] * (len(tiles) - 1)]
    ax.set_xticks([4 + 9 * k for k in range(len(tiles))], [f"{a}\nin {fields[k % 2]}" for k, a in enumerate(names)])
    ax.set_yticks([])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)
    ax.set_title(f"{title}, {FLIPS:.0%} of the pixels of the cue flipped")


def _energy(ax: Axes, found: Found) -> None:
    for (name, energies), color in zip(found.energies.items(), (TRAJECTORY, OUTPUT), strict=True):
        ts = np.linspace(0, 12, len(energies))
        ax.plot(ts, energies, color=color, lw=0.5, alpha=0.6, marker="o" if name == WHOLE else "", ms=1.5)
        ax.plot([], [], color=color, label=name)
    ax.set(xlabel="time / $\\tau$", ylabel="energy per unit")
    ax.set_title("20 random starts: downhill")
    ax.legend()


def _conflict(ax: Axes, found: Found) -> None:
    pair = torch.cat([member[0] for member in letters()])
    for (name, ys), color in zip(found.conflict.items(), (UNSTABLE, TRAJECTORY, OUTPUT), strict=True):
        ts = np.linspace(CONFLICT / len(ys), CONFLICT, len(ys))
        ax.plot(ts, overlap(ys[:, :49], pair[:49]), color=color, label=name, lw=1.2)
    ax.set(xlabel="time / $\\tau$", ylabel="overlap of x with S", xlim=(0, CONFLICT), ylim=(-0.35, 1.8))
    ax.set_yticks([0, 0.5, 1])
    ax.set_title("S in x, and V in y: conflict")
    ax.legend(loc="upper right")


def _taught(ax: Axes, found: Found) -> None:
    taught = found.taught
    for k, (color, (a, b)) in enumerate(zip((TRAJECTORY, UNSTABLE, INPUT), PAIRS, strict=True)):
        ax.plot(taught.ts, taught.weights[:, k], color=color, label=f"share of {a}, {b}")
        ax.plot(taught.ts, taught.known[:, k], color=color, ls=":", lw=1.0)
    ax.plot([], [], color=QUIET, ls=":", label="overlap that its key recalls")
    ax.plot([taught.shown] * 2, [-0.15, 1.05], color=QUIET, lw=0.6)
    ax.annotate("shown | nothing", (taught.shown, -0.22), ha="center", fontsize=6)
    ax.set(xlabel="time / $\\tau$", ylabel="share of the pair", ylim=(-0.3, 1.85))
    ax.set_yticks([0, 0.5, 1])
    ax.set_title("adaptive memory of letters")
    ax.legend(loc="upper left")


if __name__ == "__main__":
    main(run)
