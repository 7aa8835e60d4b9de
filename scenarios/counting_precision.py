"""Counting with finite precision: what can be set by hand, and what training finds.

Claim: an LSTM whose gates are saturated, and two ReLU units, count exactly: after a^n b^n with n = 100,000 the count is
0, in float32, and it would be up to 2^24. The state of a GRU or of a squashing network stays within [-1, 1]: set by
hand, a GRU can count in halvings, but only as far as float32 has exponents, 121 here. Trained on a^n b^n and a^n b^n
c^n, LSTMs are right on longer words than the others; the companion code of the paper computes a reset gate for its
GRU and never uses it, so both a true GRU (Cho's, reset before the weights) and one with that gate dead are trained.

Below dt = tau the counter still counts if, and only if, the forget gate is exactly 1: then F_c - c = i g, and a symbol
held for tau counts 1 in steps of any size, one that lasts a step counts dt / tau, as if i were that much smaller. With
f < 1 the count leaks: after n a's and n b's, of one step alpha each, -(1 - q^n)^2 / (1 - f) is left, with
q = 1 - alpha (1 - f). Two ReLU units count at every dt too: the difference of their targets is that of their states
plus the input.

What differs from the paper: legal next symbols in place of the next symbol, fewer updates, words of growing length.

Source: Weiss, Goldberg & Yahav (2018), ACL, arXiv:1805.04908; their notebook of anbn and anbncn; legal next symbols:
Gers & Schmidhuber (2001), IEEE Transactions on Neural Networks 12:1333-1340.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.optim.lr_scheduler import LinearLR

from ctrnn import GRU, LSTM, Elman, Fixed, Held, Iterate, Last, LSTMState, Model, PaperGRU, integrate, plots
from ctrnn.learning import fit
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import CountedBlocks, NextSymbol

START = 2.0**-28  # of the count in halvings: small enough for tanh(2 h) = 2 h in float64
LEAST = {torch.float32: 149, torch.float64: 1074}  # 2^-LEAST is the least positive number
WHOLE = {torch.float32: 24, torch.float64: 53}  # up to 2^WHOLE every whole number is one
PARTS = (1, 2, 7, 8, 64)  # steps to a tau
ROUNDING = 1e-6  # of (1 - z) c + z h in float32
UNITS, BATCH = 10, 16
AB, ABC = "a^n b^n", "a^n b^n c^n"
TIMES, REACH, LONG = {AB: (1, 1), ABC: (1, 1, 1)}, {AB: 100, ABC: 50}, {AB: 1000, ABC: 60}
NET_LSTM, NET_GRU, NET_DEAD, NET_TANH, NET_RELU = "LSTM", "GRU", "GRU, reset dead", "tanh Elman", "ReLU Elman"
RATES = {NET_LSTM: 0.02, NET_GRU: 0.02, NET_DEAD: 0.02, NET_TANH: 0.01, NET_RELU: 0.01}  # seeds not reported
TRAINED = {AB: tuple(RATES), ABC: (NET_LSTM, NET_GRU, NET_DEAD)}
COLORS = dict(zip(RATES, (UNSTABLE, TRAJECTORY, INPUT, QUIET, OUTPUT), strict=True))
HALF = "the same after half the updates, 500 and 150: 0 of 3 seeds"
DOUBLED = "in that first full run every word was right only up to n = 3 (LSTM) or 0 (both GRUs), median of the seeds"
WEISS, NOTEBOOK = "Weiss, Goldberg & Yahav (2018)", "notebook of Weiss, Goldberg & Yahav (2018)"


class DeadResetGRU(PaperGRU):
    """tau dh/dt = (1 - z) (c - h),   c = tanh(W_c u + b_c + U_c h + d_c): a GRU whose reset gate acts on nothing."""

    def target(self, t: Tensor, x: Tensor, u: Tensor, alpha: Any = 0) -> Tensor:  # type: ignore[override]
        """F = (1 - z) c + z h."""
        _, z, c = (F.linear(u, self.W_in, self.b_in) + F.linear(x, self.W_rec, self.b_rec)).chunk(3, -1)
        c = torch.tanh(c)
        return (x - c) * torch.sigmoid(z) + c


class HandSet(NamedTuple):
    """What networks without training did."""

    left: dict[str, list[float]]  # counter -> count after a^n b^n, a^n b^(n+1), a^(n+1) b^n
    stuck: dict[tuple[str, torch.dtype], list[float]]  # counter -> count after one more a, at 2^WHOLE - 1 and 2^WHOLE
    halvings: dict[torch.dtype, int]  # greatest n that a GRU counts
    bound: float  # greatest |h| of GRUs and tanh networks with great weights
    flow: dict[str, list[float]]  # counter -> error at the top and at the end, at any dt
    scaled: float  # difference between a symbol per step of tau / 10 and an input gate of 1 / 10
    leak: float  # relative difference from the closed form


class Learned(NamedTuple):
    """What training found: network -> one entry per seed."""

    greatest: dict[str, np.ndarray]  # n up to which every word is right
    inside: dict[str, np.ndarray]  # how many words of the trained n are right
    long: dict[str, np.ndarray]  # whether the one long word is right


def run(
    *,
    quick: bool = False,
    seed: int = 0,
    seeds: int = 3,
    n: int = 100_000,
    short: int = 500,
    updates: int = 150,
    tested: int = 256,
) -> Result:
    """Set counters by hand, then train networks of 10 units.

    Args:
        quick: n = 1,000, one seed, few updates, fewer words tested.
        seed: of weights and words; seed, seed + 1, ...
        seeds: networks of each kind.
        n: a's and b's that the hand-set counters read.
        short: updates on words of up to a fifth of the full n, 16 words each; twice as many for a^n b^n c^n.
        updates: then, on words of up to n = 100 or 50, while the rate falls; twice as many for a^n b^n c^n.
        tested: greatest n that is tested.
    """
    if quick:
        n, seeds, short, updates, tested = 1000, 1, 4, 2, 30
    report = progress(1 + seeds * sum(map(len, TRAINED.values())), "counting")
    hand, done = by_hand(n, seed), 1
    report(done)
    learned = {}
    for language, names in TRAINED.items():
        found: dict[str, list[tuple[int, int, bool]]] = {name: [] for name in names}
        for name, results in found.items():
            for k in range(seed, seed + seeds):
                model = learn(name, language, short, updates, k)
                results.append(examine(model, language, tested, quick))
                report(done := done + 1)
        learned[language] = Learned(
            *[{name: np.array([r[i] for r in results]) for name, results in found.items()} for i in range(3)]
        )
    return Result(figure(hand, learned, tested), claims(hand, learned, n))


# ---- set by hand


def by_hand(n: int, seed: int) -> HandSet:
    """Counters in single and double precision, at dt = tau and below."""
    return HandSet(
        {name: left_over(counter(), n) for name, counter in COUNTERS.items()},
        {(name, dtype): stuck(counter(), dtype) for name, counter in COUNTERS.items() for dtype in WHOLE},
        {dtype: greatest_halving(dtype) for dtype in LEAST},
        greatest_activity(seed),
        {name: flow_error(counter()) for name, counter in COUNTERS.items()},
        scaling_gap(),
        leak_gap(),
    )


def silent(model: Any) -> Any:
    """The model with all its parameters at zero, and frozen."""
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model.requires_grad_(False)


def lstm_counter(i: float = 40.0, f: float = 40.0) -> LSTM:
    """c <- f c + i g with g = 1 for an a and -1 for a b; gates at 40 are open to the last digit in either precision."""
    net = silent(LSTM(1, 2, generator=Generator())).double()
    net.b_in[:] = torch.tensor([i, f, 0.0, 40.0], dtype=torch.float64)
    net.W_in[2] = torch.tensor([20.0, -20.0])
    return net


def relu_counter() -> Elman:
    """The count is x_1 - x_2: x_1 <- relu(x_1 - x_2 + u), x_2 <- relu(x_2 - x_1 - u), u = 1 for an a and -1 for a b."""
    net = silent(Elman(2, 2, activation=torch.relu, generator=Generator()))
    net.W_rec[:] = net.W_in[:] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    return net


COUNTERS: dict[str, Callable[[], LSTM | Elman]] = {"saturated LSTM": lstm_counter, "ReLU pair": relu_counter}


def halving_gru() -> PaperGRU:
    """h <- h / 2 for an a (z = 1/2, r = 0), h <- tanh(2 h) for a b (z = 0, r = 1)."""
    net = silent(PaperGRU(1, 2, generator=Generator()))
    net.W_in[0], net.W_in[1], net.W_rec[2] = torch.tensor([-2000.0, 2000.0]), torch.tensor([0.0, -2000.0]), 2.0
    return net


def count(xs: Any) -> Tensor:
    """The count in a state."""
    return xs.c[..., 0] if isinstance(xs, LSTMState) else xs[..., 0] - xs[..., 1]


def read(a: int, b: int, like: Model) -> Tensor:
    """a^a b^b as inputs (symbol, 2)."""
    dtype = next(like.parameters()).dtype
    return torch.eye(2, dtype=dtype)[torch.tensor([0] * a + [1] * b)]


def left_over(net: Model, n: int) -> list[float]:
    """The count after a^n b^n, a^n b^(n+1) and a^(n+1) b^n, in float32."""
    net = net.float()
    words = [read(n, n, net), read(n, n + 1, net), read(n + 1, n, net)]
    drive = Held(nn.utils.rnn.pad_sequence(words), 1.0, lengths=torch.tensor([len(word) for word in words]))
    return count(integrate(net, drive, solver=Iterate(), save=Last()).xs)[-1].tolist()


def stuck(net: LSTM | Elman, dtype: torch.dtype) -> list[float]:
    """The count after one more a, at 2^WHOLE - 1 and at 2^WHOLE."""
    net, full = net.to(dtype), 2.0 ** WHOLE[dtype]
    counts = torch.tensor([[full - 1], [full]], dtype=dtype)
    zero = torch.zeros_like(counts)
    x = LSTMState(zero, counts) if isinstance(net, LSTM) else torch.cat([counts, zero], -1)
    one_a = read(1, 0, net)[:, None].expand(-1, len(counts), -1)
    return count(integrate(net, one_a, x, dt=1.0, solver=Iterate()).xs)[-1].tolist()


def greatest_halving(dtype: torch.dtype) -> int:
    """The greatest n for which h is back where it began, after a^k b^k for every k up to n."""
    net, longest = halving_gru().to(dtype), LEAST[dtype]
    x = torch.full((1,), START, dtype=dtype)
    xs = integrate(net, read(longest, 0, net), x, dt=1.0, solver=Iterate()).xs
    assert isinstance(xs, Tensor)
    drive = read(0, longest, net)[:, None].expand(-1, longest, -1)
    back = integrate(net, drive, xs, dt=1.0, solver=Iterate()).xs  # (b's, a's, unit)
    assert isinstance(back, Tensor)
    wrong = (back.diagonal()[0] != START).nonzero()
    return int(wrong[0]) if len(wrong) else longest


def greatest_activity(seed: int) -> float:
    """The greatest |h| of GRUs and tanh networks with great weights, over 1,000 symbols."""
    generator = Generator().manual_seed(seed)
    us = F.one_hot(torch.randint(2, (1000, 8), generator=generator), 2).to(torch.get_default_dtype())
    greatest = 0.0
    for kind in (GRU, PaperGRU, Elman):
        net = kind(UNITS, 2, generator=generator).requires_grad_(False)
        for parameter in net.parameters():
            parameter.mul_(30)
        greatest = max(greatest, float(integrate(net, us, dt=1.0, solver=Iterate()).ys.abs().max()))
    return greatest


def flow_error(net: Model) -> list[float]:
    """The greatest errors of the count after a^100 and a^100 b^100, a symbol held for tau in 1 to 64 steps."""
    net = net.double()
    drive = Held(read(100, 100, net), 1.0)
    counts = [count(integrate(net, drive, steps=Fixed(1 / parts)).xs) for parts in PARTS]
    return [max(abs(float(c[99]) - 100) for c in counts), max(abs(float(c[-1])) for c in counts)]


def scaling_gap() -> float:
    """Greatest difference between a symbol per step of tau / 10 and, at dt = tau, an input gate of 1 / 10."""
    small, whole = lstm_counter(), lstm_counter(i=-math.log(9))
    slow = integrate(small, Held(read(100, 100, small), 0.1)).xs
    scaled = integrate(whole, Held(read(100, 100, whole), 1.0), solver=Iterate()).xs
    return float((count(slow) - count(scaled)).abs().max())


def leak_gap() -> float:
    """Greatest relative difference between what a leaking counter ends with and the closed form."""
    gaps = []
    for bias in (3.0, 5.0, 10.0):
        for alpha in (1.0, 0.5, 0.1):
            net, f = lstm_counter(f=bias), 1 / (1 + math.exp(-bias))
            left = float(count(integrate(net, Held(read(100, 100, net), alpha)).xs)[-1])
            expected = -((1 - (1 - alpha * (1 - f)) ** 100) ** 2) / (1 - f)
            gaps.append(abs(left / expected - 1))
    return max(gaps)


# ---- trained


def network(name: str, symbols: int, seed: int) -> Model:
    """10 units that read symbols and say which may come next, the end among them."""
    sizes, generator = (UNITS, symbols, symbols + 1), Generator().manual_seed(seed)
    if name == NET_RELU:
        return Elman(*sizes, activation=torch.relu, generator=generator)
    kinds = {NET_LSTM: LSTM, NET_GRU: PaperGRU, NET_DEAD: DeadResetGRU, NET_TANH: Elman}
    return kinds[name](*sizes, generator=generator)


def learn(name: str, language: str, short: int, updates: int, seed: int) -> nn.Module:
    """Train on short words, then on words of all trained n while the rate falls."""
    times, reach = TIMES[language], REACH[language]
    short, updates = short * (len(times) - 1), updates * (len(times) - 1)
    teach = partial(
        fit,
        batch=BATCH,
        dt=1.0,
        optimizer=partial(torch.optim.Adam, lr=RATES[name]),
        clip=1.0,
        solver=Iterate(),
        seed=seed,
        evaluation_batch=1,
    )
    first = teach(network(name, len(times), seed), NextSymbol(CountedBlocks(times, (1, reach // 5))), updates=short)
    falling = partial(LinearLR, start_factor=0.5, end_factor=0.02, total_iters=updates)
    return teach(first.model, NextSymbol(CountedBlocks(times, (1, reach))), updates=updates, schedule=falling).model


def examine(model: nn.Module, language: str, tested: int, quick: bool) -> tuple[int, int, bool]:
    """The greatest n up to which every word is right, the words right among the trained n, and the one long word."""
    right = words_right(model, language, torch.arange(1, tested + 1))
    wrong = (~right).nonzero()
    long = words_right(model, language, torch.tensor([60 if quick else LONG[language]]))
    return int(wrong[0]) if len(wrong) else tested, int(right[: REACH[language]].sum()), bool(long[0])


def words_right(model: nn.Module, language: str, n: Tensor) -> Tensor:
    """Whether the legal symbols are told at every place of the word of each n."""
    assert isinstance(model, Model)
    blocks = CountedBlocks(TIMES[language])
    task = NextSymbol(blocks)
    trials = task.of(blocks.words(n), 1.0).to(dtype=torch.get_default_dtype())
    with torch.no_grad():
        return task.right(integrate(model, Held(trials.us, 1.0, lengths=trials.lengths), solver=Iterate()), trials).all(
            0
        )


def windows_that_differ() -> list[int]:
    """Lengths of windows that differ between the last b but one and the last of a^n b^n, for n one greater."""
    found = []
    for width in range(1, REACH[AB] + 1):
        word = CountedBlocks().words(torch.tensor([width + 1])).symbols[:, 0]
        found += [width] if bool((word[-width:] != word[-width - 1 : -1]).any()) else []
    return found


# ---- what was found


def claims(hand: HandSet, learned: dict[str, Learned], n: int) -> list[Claim]:
    """What is exact, then what training reached."""
    return [*_of_hand(hand, n), *_of_flow(hand), *_of_training(learned)]


def _of_hand(hand: HandSet, n: int) -> list[Claim]:
    return [
        *[
            Claim.equal(
                f"{name}, float32: count after a^n b^n, a^n b^(n+1), a^(n+1) b^n, n = {n:,}",
                left,
                [0.0, -1.0, 1.0],
                f"{WEISS}: LSTMs and ReLU networks count",
            )
            for name, left in hand.left.items()
        ],
        *[
            Claim.equal(
                f"{name}, {str(dtype)[6:]}: the count after one more a, at 2^{digits} - 1 and at 2^{digits}",
                hand.stuck[name, dtype],
                [2.0**digits] * 2,
                f"{str(dtype)[6:]} has {digits} binary digits",
            )
            for name in COUNTERS
            for dtype, digits in WHOLE.items()
        ],
        Claim(
            f"greatest |h| of GRUs and a tanh network over 1,000 symbols, weights up to {30 / UNITS**0.5:.1f}",
            "exact",
            hand.bound,
            "at most 1",
            ROUNDING,
            f"{WEISS}: their states are bounded, so of finite precision only finitely many counts fit in",
            hand.bound <= 1 + ROUNDING,
        ),
        *[
            Claim.below(
                f"GRU that halves for a and doubles for b from 2^-28, {str(dtype)[6:]}: greatest n counted",
                hand.halvings[dtype],
                LEAST[dtype] - 28 + 1,
                f"2^-{LEAST[dtype]} is the least number of this precision",
            )
            for dtype in LEAST
        ],
        Claim.equal(
            f"windows of 1 to {REACH[AB]} symbols that differ between the last two places of a^n b^n, n one more",
            windows_that_differ(),
            [],
            "a static network on a window of w symbols is wrong on one of the two from n = w + 1 on",
        ),
    ]


def _of_flow(hand: HandSet) -> list[Claim]:
    return [
        *[
            Claim.below(
                f"{name}, a symbol held for tau in {PARTS[0]} to {PARTS[-1]} steps: error of the count after a^100 "
                f"({top:.1e}) and a^100 b^100",
                max(top, end),
                1e-9,
                "F_c - c = i g when f = 1; relu(z) - relu(-z) = z",
            )
            for name, (top, end) in hand.flow.items()
        ],
        Claim.below(
            "saturated LSTM, difference between a symbol per step of tau / 10 and an input gate of 1 / 10 at dt = tau",
            hand.scaled,
            1e-9,
            "F_c - c = i g when f = 1",
        ),
        Claim.below(
            "LSTM with f < 1: relative difference from -(1 - q^n)^2 / (1 - f), three f and three dt",
            hand.leak,
            1e-9,
            "c <- c + alpha ((f - 1) c + i g)",
        ),
    ]


def _of_training(learned: dict[str, Learned]) -> list[Claim]:
    found = []
    for language, result in learned.items():
        reached = [_short_words(language, name, result) for name in result.greatest]
        reached += [_long_word(language, name, result) for name in (NET_LSTM, NET_GRU, NET_DEAD)]
        # The number of updates on this language was doubled after the first full run.
        found += [replace(c, planned=HALF, reason=DOUBLED) for c in reached] if language == ABC else reached
    return found


def _short_words(language: str, name: str, result: Learned) -> Claim:
    greatest, counts = result.greatest[name], name in (NET_LSTM, NET_RELU)
    return Claim.equal(
        f"{language}, {name}: every word of the trained n <= {REACH[language]} right, in k of {len(greatest)} seeds "
        f"(greatest n up to which every word is right, mean {np.mean(greatest):.1f}; of the trained words right, mean "
        f"{np.mean(result.inside[name]):.1f})",
        int((greatest >= REACH[language]).sum()),
        len(greatest) if counts else 0,
        f"{WEISS}: {'can count' if counts else 'cannot count'} with finite precision",
        "statistical",
    )


def _long_word(language: str, name: str, result: Learned) -> Claim:
    right = result.long[name]
    return Claim.equal(
        f"{language}, {name}: the word of n = {LONG[language]} right, in k of {len(right)} seeds",
        int(right.sum()),
        len(right) if name == NET_LSTM else 0,
        f"{NOTEBOOK}, one network each: LSTM right, GRU (reset dead) wrong",
        "statistical",
    )


# ---- figure


def figure(hand: HandSet, learned: dict[str, Learned], tested: int) -> Figure:
    """How far hand-set networks count, how counts leak below dt = tau, and how far trained networks count."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 4.6), layout="constrained")
        (limits, flow), (ab, abc) = fig.subplots(2, 2)
        _limits(limits, hand)
        _flow(flow)
        for ax, (language, result) in zip((ab, abc), learned.items(), strict=True):
            plots.by_seed(ax, result.greatest, [COLORS[name] for name in result.greatest])
            ax.axvline(REACH[language], color=QUIET, lw=0.6)
            seeds, letters = len(next(iter(result.greatest.values()))), language.replace("^n", "$^n$")
            ax.set(xlabel=f"all words right up to n ({seeds} seeds, mean)")
            ax.set_xlim(-0.02 * tested, 1.02 * tested)
            ax.set_title(f"trained: {letters}, n to {REACH[language]} (line)")
    return fig


def _limits(ax: Axes, hand: HandSet) -> None:
    bars = {
        "GRU in halvings,\nfloat32": (hand.halvings[torch.float32], TRAJECTORY),
        "GRU in halvings,\nfloat64": (hand.halvings[torch.float64], TRAJECTORY),
        "LSTM, ReLU pair,\nfloat32": (sticks_at(hand, torch.float32), UNSTABLE),
        "LSTM, ReLU pair,\nfloat64": (sticks_at(hand, torch.float64), UNSTABLE),
    }
    for row, (n, color) in enumerate(bars.values()):
        ax.barh(row, n, color=color, height=0.6)
        ax.text(1.5 * n, row, f"{n:.0f}" if n < 1e6 else f"2$^{{{math.log2(n):.0f}}}$", va="center", fontsize=7)
    ax.set_xscale("log")
    ax.set_yticks(range(len(bars)), list(bars))
    ax.set(xlabel="greatest n counted in a$^n$ b$^n$", xlim=(1, 1e19), ylim=(len(bars) - 0.5, -0.5))
    ax.set_title("set by hand, dt = $\\tau$")


def sticks_at(hand: HandSet, dtype: torch.dtype) -> float:
    """The count that every counter reaches and does not leave."""
    return min(hand.stuck[name, dtype][-1] for name in COUNTERS)


def _flow(ax: Axes) -> None:
    n, exact, leaking = 20, lstm_counter(), lstm_counter(f=3.0)
    cases = [
        ("f = 1, a symbol for dt = $\\tau$", exact, 1.0, 1.0, UNSTABLE, "o"),
        ("f = 1, a symbol for $\\tau$, dt = $\\tau$ / 10", exact, 1.0, 0.1, UNSTABLE, ""),
        ("f = 1, a symbol for dt = $\\tau$ / 2", exact, 0.5, 0.5, INPUT, ""),
        ("f = 0.95, a symbol for $\\tau$, dt = $\\tau$ / 10", leaking, 1.0, 0.1, TRAJECTORY, ""),
    ]
    for label, net, hold, dt, color, marker in cases:
        xs = integrate(net, Held(read(n, n, net), hold), steps=Fixed(dt)).xs
        ls = "" if marker else "-"
        ax.plot(np.arange(1, 2 * n + 1), count(xs), marker=marker, ms=3, ls=ls, color=color, label=label)
    ax.axhline(0, color=QUIET, lw=0.6)
    ax.set(xlabel="symbol of a$^{20}$ b$^{20}$", ylabel="cell c of a hand-set LSTM", ylim=(-25, 22))
    ax.set_title("below dt = $\\tau$")
    ax.legend(loc="lower left")


if __name__ == "__main__":
    main(run)
