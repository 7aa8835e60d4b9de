"""An echo state network foretells the Mackey-Glass series, by Jaeger's recipe of 2001.

Claim: 400 random units, of which the output weights alone are learned, in one linear regression, go on with the series
by themselves; 84 steps later they are off by normalised errors (NRMSE84) of the size of Jaeger's report. At this
precision the series is the rule that made it: rules in common use differ from one another by far more than the network
errs. And the learned weights belong to the step at which they were learned, though every finer step can be learned as
well. Without cycles, a cubic polynomial of 11 past samples that is told the delay is worse with a delay of 17, and
better with a delay of 30.

Recipe: 3,000 or 21,000 steps with the right output fed back, the first 1,000 unused, then regression; test: 1,000 steps
fed the right output, then 84 alone. Delay 17, and 30 with noise in the units while learning. The series: Euler steps
of 0.1, every tenth one shown, squashed by tanh(y - 1). Jaeger writes x <- (1 - C a) x + C f(W x + ...), gain and leak
apart, C = 0.44 and a = 0.9; r = a x turns that into tau dr/dt = f((W / a) r + ...) - r with tau = 1 / (C a), taken in
steps dt = 1. We regress all 21,000 steps at once, where the report averages four regressions of 6,000, and our output
is linear.

Source: Jaeger (2001), The "echo state" approach, GMD Report 148, sections 5 and 6; for the polynomials Gauthier, Bollt,
Griffith & Barbosa (2021), Nature Communications 12:5564 (a next-generation reservoir).
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor

from ctrnn import EchoState, Fixed, Held, Last, init, integrate, plots
from ctrnn.learning import Readout, ridge
from ctrnn.plots.style import INPUT, QUIET, TARGET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import MackeyGlass
from ctrnn.tasks.mackey_glass import Weights, rk4

JAEGER = "Jaeger (2001), GMD Report 148"
RADIUS, GAIN, DECAY = 0.79, 0.44, 0.9
WASHOUT, FORCED, HORIZON = 1000, 1000, 84
PENALTY = 1e-14  # fixes what the regression leaves open, no more: the report names none
DELAYS, LENGTHS = (17.0, 30.0), (3000, 21000)
NOISE = {(17.0, 3000): 0.0, (17.0, 21000): 0.0, (30.0, 3000): 1e-5, (30.0, 21000): 1e-8}
PUBLISHED = {(17.0, 3000): 2.8e-4, (17.0, 21000): 1.2e-4, (30.0, 3000): 0.11, (30.0, 21000): 0.032}
STEPS = (1.0, 0.5, 0.25, 0.125)
Case = tuple[float, int, str]  # delay, steps of learning, what learned
NETWORK, SILENT = "echo state network", "echo state network, no noise"
LINEAR, ACROSS, ENDS = "linear, 40 samples", "cubic, 11 samples", "cubic, 6 samples"


def frozen(gamma: float, h: float) -> Weights:
    """Runge-Kutta of order four with the delayed y held still during the step, as reservoirpy has it with h = 1."""
    keep, *moving = rk4(gamma, h)
    return Weights(keep, sum(moving), 0.0, 0.0)


MADE = {
    "Euler 0.1 (Jaeger)": MackeyGlass(),
    "Runge-Kutta 0.1": MackeyGlass(rule=rk4),
    "frozen delay 1": MackeyGlass(h=1.0, rule=frozen),
}
OURS, FINE, FROZEN = MADE


class Series(NamedTuple):
    """A series as it is (time, batch, 1), and squashed."""

    y: Tensor
    squashed: Tensor


class Found(NamedTuple):
    """What was found with all reservoirs and windows."""

    errors: dict[Case, np.ndarray]  # (seed, step): 1 to 84 steps ahead, in units of the series' standard deviation
    variance: dict[float, float]  # of the test series


def run(*, quick: bool = False, seed: int = 0, seeds: int = 9, trials: int = 50, few: int = 3) -> Result:
    """Teach reservoirs, and let them go on alone.

    Args:
        quick: one reservoir, the short series, few trials.
        seed: of reservoirs and series; seed, seed + 1, ...
        seeds: reservoirs, each with a series of its own to learn from.
        trials: test series, the same for all reservoirs.
        few: reservoirs of the experiments on generators and on steps.
    """
    lengths, steps = (LENGTHS[:1], STEPS[:2]) if quick else (LENGTHS, STEPS)
    if quick:
        seeds, trials, few = 1, 8, 1
    report = progress(2 * seeds + few, "learning")
    found = forecasts(seed, seeds, trials, lengths, report)
    rules, stepped = [], []
    for k in range(few):
        rules.append(across_rules(seed + k, trials))
        stepped.append(across_steps(seed + k, trials, steps))
        report(2 * seeds + k + 1)
    tables = np.stack(rules), np.stack(stepped)
    listed = [*identities(seed), *published(found), *beside(found), *rule_claims(apart(trials, seed), tables[0])]
    return Result(figure(found, *tables, steps), [*listed, *step_claims(tables[1], steps)])


def series(task: MackeyGlass, n: int, batch: int, seed: int) -> Series:
    """Series in float64, whatever the default: the smallest errors are near 1e-5."""
    y = task.series(n, batch, Generator().manual_seed(seed), dtype=torch.float64)
    return Series(y, torch.tanh(y - 1))


def reservoir(seed: int, *, noisy: bool = False) -> EchoState:
    """Jaeger's network; with `noisy` each unit has an input of its own, through which noise enters."""
    n, draw = 400, Generator().manual_seed(seed)

    net = EchoState(
        n, n if noisy else 0, 1, radius=0.0, feedback_scale=1.0, tau=1 / (GAIN * DECAY), generator=Generator()
    ).double()
    # Every weight is drawn here, so that both networks of a seed have the same.
    W, b, back = (torch.rand(*shape, generator=draw, dtype=torch.float64) for shape in ((n, n), (n,), (n, 1)))
    net.W_rec.data = init.scaled(signs(W, 0.0125), RADIUS / DECAY)
    net.b_rec.data = 0.2 * 0.14 * signs(b, 0.5)  # weights of an input that is always 0.2
    assert net.W_back is not None
    net.W_back.data = 0.56 * (2 * back - 1)
    net.W_in.data = torch.eye(n, net.n_in, dtype=torch.float64)
    return net


def signs(uniform: Tensor, share: float) -> Tensor:
    """-1 or 1 for a share of the entries, else 0."""
    return (uniform < share / 2).double() - (uniform > 1 - share / 2).double()


@torch.no_grad()
def forced(net: EchoState, said: Tensor, noise: float = 0.0, seed: int = 0, step: float = 1.0) -> Tensor:
    """The states while the right output is fed back."""
    if net.n_in:
        draw = Generator().manual_seed(seed)
        hiss = torch.rand(*said.shape[:-1], net.n_in, generator=draw, dtype=said.dtype)
        said = torch.cat([noise * (2 * hiss - 1), said], -1)
    return integrate(net.teacher_forced().double(), Held(said, 1.0), steps=Fixed(step)).xs


def learned(states: Tensor, said: Tensor, length: int) -> Readout:
    """The regression of the next sample on the states, the first 1,000 left out."""
    return ridge(states[WASHOUT : length - 1], said[WASHOUT + 1 : length], penalty=PENALTY)


def speaking(net: EchoState, readout: Readout) -> EchoState:
    """The network with what it has learned."""
    net = copy.deepcopy(net)
    assert net.W_out is not None
    assert net.b_out is not None
    net.W_out.data, net.b_out.data = readout
    return net


@torch.no_grad()
def alone(net: EchoState, x: Tensor) -> Tensor:
    """84 samples from the state after the last right one: the first is read out there, the rest follow alone."""
    rest = integrate(net, x0=x, dt=1.0, t_span=(0.0, HORIZON - 1.0)).ys
    return torch.cat([net.readout(x)[None], rest])


@torch.no_grad()
def alone_in_steps(net: EchoState, x: Tensor, step: float) -> Tensor:
    """As `alone`, but what is said is fed back once per sample while the units move in finer steps."""
    forced, said = net.teacher_forced().double(), [net.readout(x)]
    for _ in range(HORIZON - 1):
        x = integrate(forced, Held(said[-1][None], 1.0), x, steps=Fixed(step), save=Last()).xs[-1]
        said.append(net.readout(x))
    return torch.stack(said)


def errors(said: Tensor, test: Series) -> np.ndarray:
    """Root mean square over the trials, for 1 to 84 steps, in units of the series' standard deviation."""
    y = 1 + torch.atanh(said.clamp(-1 + 1e-6, 1 - 1e-6))
    off = (y - test.y[FORCED:])[..., 0]
    return (off.square().mean(1) / test.y.var(correction=0)).sqrt().numpy()


def forecasts(seed: int, seeds: int, trials: int, lengths: Sequence[int], report: Callable[[float], None]) -> Found:
    """All reservoirs and windows on both series."""
    kept: dict[Case, list[np.ndarray]] = defaultdict(list)
    variance = {}
    for delay in DELAYS:
        train = series(MackeyGlass(delay), max(lengths), seeds, seed + 1000)
        test = series(MackeyGlass(delay), FORCED + HORIZON, trials, seed + 2000)
        variance[delay] = float(test.y.var(correction=0))
        for k in range(seeds):
            said, net = train.squashed[:, k], reservoir(seed + k)
            end = forced(net, test.squashed[:FORCED])[-1]
            cases = [(length, NOISE[delay, length], NETWORK) for length in lengths]
            for length, noise, name in [*cases, (LENGTHS[0], 0.0, SILENT)]:
                states = forced(reservoir(seed + k, noisy=noise > 0), said[: length - 1], noise, seed + k)
                able = speaking(net, learned(states, said, length))
                kept[delay, length, name].append(errors(alone(able, end), test))
            for length in lengths:
                for name, window in WINDOWS[delay].items():
                    kept[delay, length, name].append(window.errors(said[:length], test))
            report(k + 1 if delay == DELAYS[0] else seeds + k + 1)
    return Found({case: np.stack(e) for case, e in kept.items()}, variance)


class Window(NamedTuple):
    """Regression of the next sample on products of past ones: no cycle but the one that hands back what was said."""

    lags: tuple[int, ...]
    degree: int

    def features(self, past: Tensor) -> Tensor:
        """Products of up to `degree` of the last axis' entries."""
        products = [
            torch.tensor(list(combinations_with_replacement(range(past.shape[-1]), d + 1))) for d in range(self.degree)
        ]
        return torch.cat([past[..., which].prod(-1) for which in products], -1)

    def errors(self, said: Tensor, test: Series) -> np.ndarray:
        """Of that of two penalties which serves it best on the test: more than the network is given."""
        lags = torch.tensor(self.lags)
        now = torch.arange(WASHOUT, len(said) - 1)
        seen, following = self.features(said[now[:, None] - lags, 0]), said[now + 1]
        found = []
        for penalty in (1e-12, 1e-8):
            W, b = ridge(seen, following, penalty=penalty)
            past = test.squashed[:FORCED, :, 0].T
            for _ in range(HORIZON):
                past = torch.cat([past, (self.features(past[:, -1 - lags]) @ W.T + b).clamp(-1, 1)], 1)
            found.append(errors(past[:, FORCED:].T[..., None], test))
        return min(found, key=lambda e: e[-1])


# The cubic ones are told the delay: samples all across it, or from its two ends alone; 363 and 83 products.
WINDOWS = {
    17.0: {
        LINEAR: Window(tuple(range(40)), 1),
        ACROSS: Window((0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 17), 3),
        ENDS: Window((0, 1, 2, 15, 16, 17), 3),
    },
    30.0: {
        LINEAR: Window(tuple(range(40)), 1),
        ACROSS: Window(tuple(range(0, 33, 3)), 3),
        ENDS: Window((0, 1, 2, 28, 29, 30), 3),
    },
}


def across_rules(seed: int, trials: int) -> np.ndarray:
    """NRMSE84 of one reservoir, (learned from, tested on) each way of making the series."""
    net, tests, ends = reservoir(seed), [], []
    for task in MADE.values():
        tests.append(series(task, FORCED + HORIZON, trials, seed + 3000))
        ends.append(forced(net, tests[-1].squashed[:FORCED])[-1])
    found = []
    for task in MADE.values():
        said = series(task, LENGTHS[0], 1, seed + 4000).squashed[:, 0]
        able = speaking(net, learned(forced(net, said[:-1]), said, LENGTHS[0]))
        found.append([errors(alone(able, end), test)[-1] for end, test in zip(ends, tests, strict=True)])
    return np.array(found)


def apart(trials: int, seed: int) -> dict[str, float]:
    """NRMSE84 between the other ways of making the series and the fine one, all from the same past on."""
    nodes, task = 10 * HORIZON, MADE[FINE]
    draw = Generator().manual_seed(seed + 5000)
    y = task.series(task.nodes + 1 + nodes, trials, draw, dt=0.1, dtype=torch.float64)
    past = y[: task.nodes + 1]
    ends = {
        OURS: MADE[OURS].continued(past, nodes)[-1],
        FROZEN: MADE[FROZEN].continued(past[::10], HORIZON)[-1],
    }
    return {name: float(((end - y[-1]).square().mean() / y.var()).sqrt()) for name, end in ends.items()}


def across_steps(seed: int, trials: int, steps: Sequence[float]) -> np.ndarray:
    """NRMSE84 of one reservoir, (learned at, run at) each step; in the last column what is said is fed back at once.

    That column is the network as a flow in which the loop is closed at all times, by the finest steps.
    """
    net, said = reservoir(seed), series(MADE[OURS], LENGTHS[0], 1, seed + 4000).squashed[:, 0]
    test = series(MADE[OURS], FORCED + HORIZON, trials, seed + 3000)
    ends = [forced(net, test.squashed[:FORCED], step=step)[-1] for step in steps]
    found = []
    for step in steps:
        able = speaking(net, learned(forced(net, said[:-1], step=step), said, LENGTHS[0]))
        row = [errors(alone_in_steps(able, end, at), test)[-1] for end, at in zip(ends, steps, strict=True)]
        with torch.no_grad():
            flow = integrate(able, x0=ends[-1], dt=steps[-1], t_span=(0.0, HORIZON - 1.0)).ys
            flow = torch.cat([able.readout(ends[-1])[None], flow[round(1 / steps[-1]) - 1 :: round(1 / steps[-1])]])
        found.append([*row, errors(flow, test)[-1]])
    return np.array(found)


def identities(seed: int) -> list[Claim]:
    """Jaeger's equation and ours, the loop by hand and the network's own, the fine series and a finer one."""
    said = series(MADE[OURS], 300, 1, seed).squashed[:, 0]
    net, plain = reservoir(seed, noisy=True), reservoir(seed)
    plain = speaking(plain, learned_early(plain, said))
    x = forced(plain, said)[-1][None]
    history = torch.full((171, 1), 1.2, dtype=torch.float64)
    fine = [MackeyGlass(h=h, rule=rk4) for h in (0.1, 0.05)]
    ends = [task.continued(history[:1].expand(task.nodes + 1, 1), round(500 / task.h))[-1] for task in fine]
    return [
        Claim.below(
            "largest difference of our r and a times Jaeger's x, 300 steps with noise 1e-5",
            by_equation_24(net, said, seed),
            1e-12,
            f"{JAEGER}, eq. 24: x <- (1 - C a) x + C f(W x + W_back y + noise), r = a x",
        ),
        Claim.below(
            "largest difference of 84 samples said through the network's own loop and through one closed by hand",
            float((alone(plain, x) - alone_in_steps(plain, x, 1.0)).abs().max()),
            1e-9,
            "EchoState and its teacher_forced() are one network",
        ),
        Claim.below(
            "difference of the series by Runge-Kutta steps of 0.1 and of 0.05 after 500",
            float((ends[0] - ends[1]).abs().max()),
            1e-5,
            "what is called the fine series is one",
        ),
    ]


def learned_early(net: EchoState, said: Tensor) -> Readout:
    """A regression on a short series."""
    return ridge(forced(net, said[:-1])[50:], said[51:], penalty=1e-8)


def by_equation_24(net: EchoState, said: Tensor, seed: int) -> float:
    """The largest difference between a x of Jaeger's equation with noise and our states."""
    draw, x, off = Generator().manual_seed(seed), torch.zeros(net.n, dtype=torch.float64), 0.0
    hiss = 1e-5 * (2 * torch.rand(len(said), net.n, generator=draw, dtype=torch.float64) - 1)
    assert net.W_back is not None
    for r, y, nu in zip(forced(net, said, 1e-5, seed), said, hiss, strict=True):
        inside = DECAY * net.W_rec @ x + net.b_rec + net.W_back @ y + nu
        x = (1 - GAIN * DECAY) * x + GAIN * torch.tanh(inside)
        off = max(off, float((r - DECAY * x).abs().max()))
    return off


def quartiles(e: np.ndarray) -> str:
    """The middle half of the seeds' NRMSE84."""
    low, high = np.quantile(e[:, -1], (0.25, 0.75))
    return f"quartiles {low:.1e} and {high:.1e}"


def published(found: Found) -> list[Claim]:
    """The report's numbers."""
    listed = [
        Claim.below(
            f"NRMSE84, delay {delay:.0f}, {length:,} steps: median of {len(e)} reservoirs ({quartiles(e)}; "
            f"{int((e[:, -1] < PUBLISHED[delay, length]).sum())} are below)",
            float(np.median(e[:, -1])),
            PUBLISHED[delay, length],
            f"{JAEGER}, section 6: {PUBLISHED[delay, length]:g}, one reservoir",
            "statistical",
        )
        for (delay, length, name), e in found.errors.items()
        if name == NETWORK
    ]
    quiet, noisy = (found.errors[30.0, LENGTHS[0], name][:, -1] for name in (SILENT, NETWORK))
    n, median = len(quiet), np.median(quiet)
    return [
        *listed,
        Claim.equal(
            f"delay 30, {LENGTHS[0]:,} steps: worse without the noise (median {median:.2g}), k of {n} reservoirs",
            int((quiet > noisy).sum()),
            n,
            f"{JAEGER}, section 6.3.4: less noise gave unstable networks",
            "statistical",
        ),
        Claim.near(
            "variance of the series with delay 30, to which the error is referred",
            found.variance[30.0],
            0.067,
            0.005,
            f"{JAEGER}: about 0.067 (with delay 17 we find {found.variance[17.0]:.3f})",
            "statistical",
        ),
    ]


def beside(found: Found) -> list[Claim]:
    """The same without cycles."""
    listed = []
    for (delay, length, name), e in found.errors.items():
        if name == NETWORK:
            others = {other: float(np.median(found.errors[delay, length, other][:, -1])) for other in WINDOWS[delay]}
            best = min(others, key=others.__getitem__)
            listed.append(
                Claim.below(
                    f"NRMSE84, delay {delay:.0f}, {length:,} steps: median of the network beside {best} "
                    f"({others[best]:.1e})",
                    float(np.median(e[:, -1])),
                    others[best],
                    "a static function of past samples, its penalty chosen on the test",
                    "statistical",
                )
            )
    return listed


def rule_claims(gaps: dict[str, float], rules: np.ndarray) -> list[Claim]:
    """What the way of making the series does."""
    table = dict(zip(MADE, np.median(rules, 0), strict=True))
    names, least = list(MADE), PUBLISHED[17.0, 3000]
    return [
        *[
            Claim.at_least(
                f"NRMSE84 between the series by {name} and by {FINE}, from the same past on",
                gap,
                10 * least,
                f"ten times what the network errs ({JAEGER}: {least:g})",
                "statistical",
            )
            for name, gap in gaps.items()
        ],
        Claim.at_least(
            f"NRMSE84 learned from {OURS}, tested on {FINE}, over that tested on its own: median of {len(rules)}",
            float(table[OURS][names.index(FINE)] / table[OURS][names.index(OURS)]),
            10.0,
            "the network has learned the rule",
            "statistical",
        ),
        *[
            Claim.below(
                f"NRMSE84 learned from and tested on {name}: median of {len(rules)} reservoirs",
                float(table[name][names.index(name)]),
                10 * least,
                "the recipe is not particular to one rule",
                "statistical",
            )
            for name in (FINE, FROZEN)
        ],
    ]


def step_claims(stepped: np.ndarray, steps: Sequence[float]) -> list[Claim]:
    """What the step of the units does."""
    table, least = np.median(stepped, 0), PUBLISHED[17.0, 3000]
    own = ", ".join(f"{table[k, k]:.1e} at {step:g}" for k, step in enumerate(steps))
    return [
        Claim.below(
            f"NRMSE84 learned and run in the same steps, the largest of medians of {len(stepped)} ({own})",
            float(max(table[k, k] for k in range(len(steps)))),
            10 * least,
            "leak is a step: dt / tau",
            "statistical",
        ),
        Claim.at_least(
            "NRMSE84 learned in steps of 1, run in steps of 1/2",
            float(table[0, 1]),
            10 * least,
            "the weights belong to the step",
            "statistical",
        ),
        Claim.at_least(
            "NRMSE84 learned in steps of 1, run as a flow whose loop is always closed",
            float(table[0, -1]),
            10 * least,
            "the weights belong to the step",
            "statistical",
        ),
    ]


def figure(found: Found, rules: np.ndarray, stepped: np.ndarray, steps: Sequence[float]) -> Figure:
    """How errors grow, and what generators and steps do to them."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 5.4), layout="constrained")
        axes = fig.subplots(2, 2)
        for ax, delay in zip(axes[0], DELAYS, strict=True):
            _growth(ax, found, delay)
        axes[0, 1].legend(loc="lower right")
        names = [name.replace(" (", "\n(") for name in MADE]
        _table(axes[1, 0], np.median(rules, 0), names, names)
        axes[1, 0].set(xlabel="tested on", ylabel="learned from")
        axes[1, 0].set_title(f"NRMSE84, rule of the series (median of {len(rules)})")
        labels = [f"{step:g}" for step in steps]
        _table(axes[1, 1], np.median(stepped, 0), labels, [*labels, "flow"])
        axes[1, 1].set(xlabel="run in steps of", ylabel="learned in steps of")
        axes[1, 1].set_title(f"NRMSE84, tau = {1 / (GAIN * DECAY):.2f} (median of {len(stepped)})")
    return fig


def _growth(ax: Axes, found: Found, delay: float) -> None:
    ahead, longest = np.arange(1, HORIZON + 1), max(length for _, length, _ in found.errors)
    colors = {ACROSS: UNSTABLE, ENDS: TARGET, LINEAR: QUIET}
    for (of, length, name), e in found.errors.items():
        if of != delay or name == SILENT or (name != NETWORK and length != longest):
            continue
        color = colors.get(name, (TRAJECTORY, INPUT)[LENGTHS.index(length)])
        low, mid, high = np.quantile(e, (0.25, 0.5, 0.75), axis=0)
        ax.fill_between(ahead, low, high, color=color, alpha=0.15, lw=0)
        ax.semilogy(ahead, mid, color=color, ls="-" if name == NETWORK else "--", label=f"{name}; {length:,} steps")
        if name == NETWORK:
            ax.plot(HORIZON, PUBLISHED[delay, length], "*", ms=9, color=color, mec="black", mew=0.5, clip_on=False)
    ax.set(xlabel="steps ahead, alone", ylabel="error / standard deviation", xlim=(0, HORIZON + 1), ylim=(3e-6, 3))
    ax.set_title(f"delay {delay:.0f} (median, quartiles; stars: Jaeger)")


def _table(ax: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    ax.imshow(np.log10(values), cmap="Greys", vmin=-5, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        ax.text(
            j,
            i,
            f"{value:.2g}" if value < 1 else "> 1",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if value > 3e-2 else "black",
        )
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)


if __name__ == "__main__":
    main(run)
