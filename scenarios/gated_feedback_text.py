"""Layers that hear the layers above them: gated feedback on text, in bits per character at equal parameter counts.

Claim: with as many parameters and updates a network of three layers, in which each hears all layers through gates,
foresees the next character better than the plain stack of three layers and than one wide layer, for tanh, GRU and LSTM
units. So say the authors of larger networks that learned for longer from 100 million characters of Wikipedia (Hutter);
our bits cannot be compared with theirs, only the order. Here it holds for tanh units alone: after 500 updates, which
are 1.4 times through the text, one wide layer is the best of the GRU and LSTM networks, and gated feedback mostly the
last. Its gates are at work all the same: held still at their means they cost 0.1 bits and more.

Beside them stand n-grams, which have no state and no cycle: they count what followed the last few characters in the
whole training text. From the 5-gram on they win against every network, inside words and at signs; the LSTM networks win
at the first letter of a word and at spaces.

The text lies in Python's standard library: the language reference as `help` shows it (`pydoc_data.topics`), in lower
case, a paragraph only where it first stands, since topics repeat each other, and what the training text contains is
remembered, not predicted. The last tenth is the test; the tenth before it chose learning rates and the length of the
n-grams. The text stands in 32 streams side by side; an update reads 25 characters of each, and the state at the end
begins the next. An update of a gated network takes about 1.7 (LSTM) to 3 times (tanh) as long as one of a stack. The
paper's second task, the evaluation of short programs, is left out.

Source: Chung, Gulcehre, Cho & Bengio (2015), ICML, arXiv:1502.02367; its bits on Hutter as listed in Chung, Ahn &
Bengio (2017), ICLR, arXiv:1609.01704. Kneser & Ney (1995), ICASSP, for the n-grams.
"""

import copy
import hashlib
import math
import platform
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from ctrnn import integrate, plots
from ctrnn.models import GRU, LSTM, Elman, GatedFeedback, Stack
from ctrnn.plots.style import QUIET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import (
    Alphabet,
    NGram,
    Split,
    Window,
    bits_per_character,
    distinct_paragraphs,
    last_state,
    split_text,
    text_windows,
)

KINDS: Mapping[str, Any] = {"tanh": Elman, "GRU": GRU, "LSTM": LSTM}
SINGLE, STACK, GATED = SHAPES = ("one layer", "stack", "gated feedback")
LAYERS = {SINGLE: 1, STACK: 3, GATED: 3}
COLORS = dict(zip(SHAPES, (QUIET, UNSTABLE, TRAJECTORY), strict=True))
# For each of the three networks the best of 0.005, 0.01 ... on the validation text, 250 updates, a seed not reported.
RATES = {"tanh": 0.01, "GRU": 0.02, "LSTM": 0.04}
STREAMS, LENGTH = 32, 25
SYMBOLS = "\n" + "".join(c for c in map(chr, range(32, 127)) if not c.isupper())  # those of a typewriter
WARM = 48  # characters at the beginning of each test stream that are read, not scored
ORDERS = range(3, 10)
BIN = 25  # updates to a point of a curve
PRIME, SAID, WIDTH = "the ", 306, 102
NGRAM = "n-gram"
CLASSES = ("first letter", "later letter", "space", "other")
SHA = "ab28815b509d"  # of the text in Python 3.11.7
CHUNG = "Chung et al. (2015), arXiv:1502.02367"
HUTTER = (
    f"{CHUNG}: gated feedback outperforms stacks; on Hutter 1.58 bits with LSTM units, a stack of LSTM layers (Graves "
    "2013) 1.67, both as listed in arXiv:1609.01704"
)


class Data(NamedTuple):
    """A text, its alphabet, and its parts as numbers."""

    text: str
    alphabet: Alphabet
    parts: Split


class Found(NamedTuple):
    """What was found about one kind of network; lists run over seeds."""

    parameters: int
    curves: list[list[float]]  # bits of every update's window, before the update
    surprises: list[Tensor]  # bits of every scored character of the test (time, stream)
    still: list[float]  # bits with every gate at its mean; only with gates
    model: Stack  # of the first seed

    @property
    def bits(self) -> list[float]:
        """Bits per character of the test text."""
        return [float(surprise.mean()) for surprise in self.surprises]


class Counted(NamedTuple):
    """What the n-grams say."""

    valid: dict[int, float]  # order -> bits per character
    test: dict[int, float]
    order: int  # the best on the validation text
    surprise: Tensor  # its bits of every scored character of the test (time, stream)
    off: float  # largest difference from 1 of the sum of its probabilities
    sample: str


class StillGates(GatedFeedback):
    """A trained network whose gates stand still: `held` (layers, layers), row j what layer j lets in."""

    def __init__(self, trained: GatedFeedback, held: Tensor) -> None:
        super().__init__([copy.deepcopy(layer) for layer in trained.layers], generator=Generator())
        self.W_feedback, self.held = trained.W_feedback, held

    def gates(self, j: int, below: Tensor, sent: Tensor) -> Tensor:
        """The same at all times."""
        return self.held[j].expand(*sent.shape[:-1], -1)


def run(*, quick: bool = False, seed: int = 0, seeds: int = 3, updates: int = 500, parameters: int = 100_000) -> Result:
    """Train all nine networks and count n-grams; score them on the same characters.

    Args:
        quick: one seed, few updates, a short text.
        seed: of the weights and samples; seed, seed + 1, ...
        seeds: networks of each kind.
        updates: of Adam, 32 times 25 characters each.
        parameters: of each network, as nearly as whole units allow.
    """
    data = read()
    if quick:
        seeds, updates = 1, 4
        data = data._replace(parts=Split(*(part[: len(part) // 8] for part in data.parts)))
    counted = count(data, Generator().manual_seed(seed))
    report, found = progress(len(KINDS) * len(SHAPES) * seeds, "training"), {}
    for kind in KINDS:
        for shape in SHAPES:
            begun = len(found) * seeds
            told = lambda done, begun=begun: report(begun + done)
            found[kind, shape] = train(kind, shape, parameters, data, updates, range(seed, seed + seeds), told)
    return Result(figure(found, counted, data, seed), claims(found, counted, data))


def everything() -> str:
    """All topics: a typewriter's characters only, and of five or more equal ones in a row the first four."""
    plain = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."})
    text = "".join(c for c in "\n\n".join(topics.values()).translate(plain).lower() if c in SYMBOLS)
    return re.sub(r"(.)\1{4,}", r"\1\1\1\1", text)


def read() -> Data:
    """The text, a paragraph only where it first stands."""
    text, alphabet = distinct_paragraphs(everything()), Alphabet(SYMBOLS)
    return Data(text, alphabet, split_text(alphabet.encode(text)))


def network(kind: str, shape: str, units: int, symbols: int, draw: Generator) -> Stack:
    """A network with its units shared out among its layers."""
    n = LAYERS[shape]
    sizes = [units // n + (j < units % n) for j in range(n)]
    ends = [None] * (n - 1) + [symbols]
    layers = [KINDS[kind](*each, generator=draw) for each in zip(sizes, (symbols, *sizes[:-1]), ends, strict=True)]
    return GatedFeedback(layers, generator=draw) if shape == GATED else Stack(layers)


def size(model: nn.Module) -> int:
    """Its parameters."""
    return sum(p.numel() for p in model.parameters())


def units_for(kind: str, shape: str, parameters: int, symbols: int) -> int:
    """How many units give the network nearest to this number of parameters."""
    sized = lambda units: size(network(kind, shape, units, symbols, Generator()))
    enough = bisect_left(range(1000), parameters, lo=LAYERS[shape], key=sized)
    return min((enough - 1, enough), key=lambda units: abs(sized(units) - parameters))


@torch.no_grad()
def scale(model: Stack, us: Tensor) -> None:
    """Scale each layer's W_in until what it brings to the units has standard deviation 1 (Mishkin & Matas 2016, ICLR).

    With torch's small weights the gates of an upper LSTM layer hear nothing for the first hundreds of updates.
    """
    below = us
    for j, layer in enumerate(model.layers):
        layer.W_in /= (below @ layer.W_in.T).std((0, 1)).mean()
        below = layer.activity(integrate(model, us, dt=1.0).xs.layers[j])
    layer.W_out /= 2 * (below @ layer.W_out.T).std((0, 1)).mean()


def train(
    kind: str,
    shape: str,
    parameters: int,
    data: Data,
    updates: int,
    seeds: Sequence[int],
    report: Callable[[int], None],
) -> Found:
    """Train one network for each seed, and test it."""
    symbols, curves, surprises, still, models = len(data.alphabet), [], [], [], []
    units, test = units_for(kind, shape, parameters, symbols), scored(data.parts.test)
    for k, seed in enumerate(seeds, 1):
        model = network(kind, shape, units, symbols, Generator().manual_seed(seed))
        curves.append(learn(model, data, updates, RATES[kind]))
        surprises.append(surprise(model, data, test))
        if isinstance(model, GatedFeedback):
            means = opened(model, data.alphabet.one_hot(scored(data.parts.valid).read)).mean((0, 1))
            still.append(float(surprise(StillGates(model, means), data, test).mean()))
        models.append(model)
        report(k)
    return Found(size(models[0]), curves, surprises, still, models[0])


def learn(model: Stack, data: Data, updates: int, rate: float) -> list[float]:
    """Adam with one cycle of the rate; the state goes on from window to window: bits of each window as it was met."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = OneCycleLR(optimizer, rate, total_steps=updates, pct_start=0.1, cycle_momentum=False)
    scale(model, data.alphabet.one_hot(next(text_windows(data.parts.train, STREAMS, LENGTH)).read))
    curve: list[float] = []
    while True:
        x = model.initial_state(STREAMS)
        for window in text_windows(data.parts.train, STREAMS, LENGTH):
            if len(curve) == updates:
                return curve
            run_ = integrate(model, data.alphabet.one_hot(window.read), x, dt=1.0)
            loss, x = bits_per_character(run_.ys, window.next), last_state(run_.xs)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            curve.append(float(loss.detach()))


def scored(part: Tensor) -> Window:
    """A part of the text in 32 streams, in one window."""
    return next(text_windows(part, STREAMS, (len(part) - 1) // STREAMS))


@torch.no_grad()
def surprise(model: Stack, data: Data, window: Window) -> Tensor:
    """Bits of every scored character (time, stream)."""
    logits = integrate(model, data.alphabet.one_hot(window.read), dt=1.0).ys
    return -logits.log_softmax(-1).gather(-1, window.next[..., None])[WARM - 1 :, :, 0] / math.log(2)


@torch.no_grad()
def opened(model: GatedFeedback, us: Tensor) -> Tensor:
    """How open each gate is at each time (time, stream, to layer, from layer)."""
    states = integrate(model, us, dt=1.0).xs.layers
    sent = [layer.activity(x) for layer, x in zip(model.layers, states, strict=True)]
    together = torch.cat(sent, -1)
    before = torch.cat([torch.zeros_like(together[:1]), together[:-1]])
    return torch.stack([model.gates(j, below, before) for j, below in enumerate((us, *sent[:-1]))], -2)


def count(data: Data, draw: Generator) -> Counted:
    """n-grams of every order, and the one that is best on the validation text."""
    windows = [scored(part) for part in (data.parts.valid, data.parts.test)]
    valid, test, models, foreseen = {}, {}, {}, {}
    for order in ORDERS:
        models[order] = NGram.fit(data.parts.train, len(data.alphabet), order)
        ps = [models[order].probabilities(window.read.unfold(0, WARM, 1)) for window in windows]
        bits = [
            -p.gather(-1, window.next[WARM - 1 :, :, None])[..., 0].log2()
            for p, window in zip(ps, windows, strict=True)
        ]
        valid[order], test[order] = (float(b.mean()) for b in bits)
        foreseen[order] = bits[1], float((ps[1].sum(-1) - 1).abs().max())
    best = min(ORDERS, key=valid.__getitem__)
    said = data.alphabet.encode(PRIME)
    while len(said) < SAID:
        said = torch.cat([said, torch.multinomial(models[best].probabilities(said), 1, generator=draw)])
    return Counted(valid, test, best, *foreseen[best], data.alphabet.decode(said))


@torch.no_grad()
def sample(model: Stack, alphabet: Alphabet, draw: Generator) -> str:
    """What the network says when it hears what it said."""
    said, x = alphabet.encode(PRIME), model.initial_state()
    heard = said
    while len(said) < SAID:
        run_ = integrate(model, alphabet.one_hot(heard), x, dt=1.0)
        x, heard = last_state(run_.xs), torch.multinomial(run_.ys[-1].softmax(-1), 1, generator=draw)
        said = torch.cat([said, heard])
    return alphabet.decode(said)


def classes(data: Data) -> Tensor:
    """The class of every scored character of the test (time, stream), a number in `CLASSES`."""
    window = scored(data.parts.test)
    letter = torch.tensor([c.isalpha() for c in data.alphabet.symbols])
    space = torch.tensor([c.isspace() for c in data.alphabet.symbols])
    kind = torch.where(
        letter[window.next], torch.where(letter[window.read], 1, 0), torch.where(space[window.next], 2, 3)
    )
    return kind[WARM - 1 :]


def claims(found: dict[tuple[str, str], Found], counted: Counted, data: Data) -> list[Claim]:
    """Identities and what the text is; then who predicts it best."""
    return [
        same_sizes(found),
        *identities(found, counted, data),
        *what_is_read(data),
        *[claim for kind in KINDS for claim in beside_gated(kind, found)],
        *[gates_at_work(kind, found[kind, GATED]) for kind in KINDS],
        beside_ngrams(found, counted),
    ]


def same_sizes(found: dict[tuple[str, str], Found]) -> Claim:
    """All networks have as many parameters."""
    sizes = {name: f.parameters for name, f in found.items()}
    middle = (max(sizes.values()) + min(sizes.values())) / 2
    return Claim.below(
        "largest difference between two of the nine networks in their number of parameters, in percent: "
        + ", ".join(f"{kind} {shape} {f:,}" for (kind, shape), f in sizes.items()),
        100 * (max(sizes.values()) - min(sizes.values())) / middle,
        1,
        "equal parameter counts",
    )


def identities(found: dict[tuple[str, str], Found], counted: Counted, data: Data) -> list[Claim]:
    """What networks, n-grams and their scores must be."""
    symbols = len(data.alphabet)
    return [
        Claim.near(
            "gated feedback with g_jj = 1 and all others 0 less the stack of its layers, trained, logits on test text",
            max(closed(found[kind, GATED].model, data) for kind in KINDS),
            0,
            1e-5,
            f"{CHUNG}: what gated feedback adds to a stack",
        ),
        Claim.below(
            "window by window from the state at the end of the last one, less in one piece: logits on test text",
            handed_over(found["LSTM", GATED].model, data),
            1e-9,
            "the state is all that a network knows of the past",
        ),
        Claim.below(
            f"sum of the {symbols} probabilities of the {NGRAM} less 1, at all scored characters",
            counted.off,
            1e-9,
            "Kneser & Ney (1995)",
        ),
        Claim.near(
            "bits per character of logits that are all zero",
            bits_per_character(torch.zeros(1, symbols), torch.zeros(1, dtype=torch.long)),
            math.log2(symbols),
            1e-6,
            f"chance, log2({symbols})",
        ),
    ]


def what_is_read(data: Data) -> list[Claim]:
    """The text is the one of the figures, and its test is new."""
    return [
        Claim.equal(
            f"the text is that of the figures: {len(data.text):,} characters, beginning of its SHA-256 "
            f"(here Python {platform.python_version()})",
            hashlib.sha256(data.text.encode()).hexdigest()[:12],
            SHA,
            "pydoc_data.topics of Python 3.11.7; other versions have another text",
            "statistical",
        ),
        Claim.below(
            "stretches of 40 characters of the test text that occur in the training text, in percent "
            f"(with repeated paragraphs {repeated(everything(), 40):.1f})",
            repeated(data.text, 40),
            1,
            "what was read is remembered, not predicted",
            "statistical",
        ),
    ]


def beside_gated(kind: str, found: dict[tuple[str, str], Found]) -> list[Claim]:
    """Gated feedback beside the networks without it."""
    gated, n = found[kind, GATED], len(found[kind, GATED].bits)
    return [
        Claim.equal(
            f"{kind}: gated feedback has fewer bits per character (mean {np.mean(gated.bits):.3f}) than the "
            f"{shape} ({np.mean(found[kind, shape].bits):.3f}), in k of {n} seeds",
            sum(a < b for a, b in zip(gated.bits, found[kind, shape].bits, strict=True)),
            n,
            HUTTER if kind == "LSTM" else f"{CHUNG}: gated feedback outperforms stacks, for all three units",
            "statistical",
        )
        for shape in (STACK, SINGLE)
    ]


def gates_at_work(kind: str, gated: Found) -> Claim:
    """What is lost when every gate stands still."""
    return Claim.equal(
        f"{kind}: with every gate held at its mean the gated network loses bits (mean "
        f"{np.mean(gated.still) - np.mean(gated.bits):+.3f}), in k of {len(gated.bits)} seeds",
        sum(a > b for a, b in zip(gated.still, gated.bits, strict=True)),
        len(gated.bits),
        f"{CHUNG}: signals between layers are gated adaptively",
        "statistical",
    )


def beside_ngrams(found: dict[tuple[str, str], Found], counted: Counted) -> Claim:
    """Every network beside the best n-gram."""
    ngram, bits = counted.test[counted.order], [b for f in found.values() for b in f.bits]
    return Claim.equal(
        f"networks with fewer bits than the {NGRAM} (order {counted.order}, {ngram:.3f} bits)",
        sum(b < ngram for b in bits),
        len(bits),
        f"whether a state is needed; best network {min(bits):.3f}",
        "statistical",
    )


@torch.no_grad()
def closed(model: Stack, data: Data) -> float:
    """Largest difference that closed gates leave between a gated network and the stack of its layers."""
    assert isinstance(model, GatedFeedback)
    us = data.alphabet.one_hot(scored(data.parts.test).read[:100])
    only_own = StillGates(model, torch.eye(len(model.layers)))
    ys = [integrate(net, us, dt=1.0).ys for net in (only_own, Stack(list(only_own.layers)))]
    return float((ys[0] - ys[1]).abs().max())


@torch.no_grad()
def handed_over(model: Stack, data: Data) -> float:
    """Largest difference between a run in windows and one run, in double precision."""
    exact, test = copy.deepcopy(model).double(), data.parts.test[: 4 * 101]
    x, said = exact.initial_state(4), []
    for window in text_windows(test, 4, LENGTH):
        run_ = integrate(exact, data.alphabet.one_hot(window.read).double(), x, dt=1.0)
        x = last_state(run_.xs)
        said.append(run_.ys)
    whole = data.alphabet.one_hot(next(text_windows(test, 4, 100)).read).double()
    return float((torch.cat(said) - integrate(exact, whole, dt=1.0).ys).abs().max())


def repeated(text: str, n: int) -> float:
    """Percent of the stretches of n characters in the last tenth that stand in the first eight tenths too."""
    read, test = text[: int(0.8 * len(text))], text[int(0.9 * len(text)) :]
    known = {read[k : k + n] for k in range(len(read) - n + 1)}
    return 100 * sum(test[k : k + n] in known for k in range(len(test) - n + 1)) / (len(test) - n + 1)


def figure(found: dict[tuple[str, str], Found], counted: Counted, data: Data, seed: int) -> Figure:
    """How the networks learned, where they ended, which gates opened when, and what is said."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 9.0), layout="constrained")
        grid = fig.add_gridspec(4, 6, height_ratios=(2.2, 3.1, 2.6, 2.5))
        first = None
        for k, kind in enumerate(KINDS):
            ax = fig.add_subplot(grid[0, 2 * k : 2 * k + 2], sharey=first)
            _curves(ax, found, kind)
            first = first or ax
        _scores(fig.add_subplot(grid[1, :4]), found, counted)
        _by_class(fig.add_subplot(grid[1, 4:]), found, counted, data)
        _gates(fig.add_subplot(grid[2, :]), found["LSTM", GATED].model, data)
        said = {f"LSTM, {shape}": found["LSTM", shape].model for shape in (GATED, STACK)}
        texts = {name: sample(net, data.alphabet, Generator().manual_seed(seed)) for name, net in said.items()}
        _texts(fig.add_subplot(grid[3, :]), texts | {f"{counted.order}-gram": counted.sample})
    return fig


def _curves(ax: Axes, found: dict[tuple[str, str], Found], kind: str) -> None:
    for shape, color in COLORS.items():
        bits = np.array(found[kind, shape].curves)
        step = min(BIN, bits.shape[1])
        binned = bits[:, : bits.shape[1] // step * step].reshape(len(bits), -1, step).mean(-1)
        places = (np.arange(binned.shape[1]) + 0.5) * step
        plots.sweep(ax, places, binned, label=shape, color=color, marker="")
    ax.set(xlabel="update", title=f"{kind} units, while training")
    if kind == "tanh":
        ax.set_ylabel("bits per character")
        ax.legend()
    else:
        ax.tick_params(labelleft=False)


def _scores(ax: Axes, found: dict[tuple[str, str], Found], counted: Counted) -> None:
    bits = {f"{kind}, {shape}": np.array(f.bits) for (kind, shape), f in found.items()}
    bits |= {f"{order}-gram": np.array([b]) for order, b in counted.test.items() if order > 3}
    plots.by_seed(ax, bits, [COLORS[shape] for _, shape in found] + ["black"] * (len(bits) - len(found)))
    ax.axvline(counted.test[counted.order], color="black", lw=0.6, ls=":", zorder=0)
    seeds = len(found["tanh", SINGLE].bits)
    ax.set(xlabel="bits per character", title=f"test text: every seed ({seeds}) and the mean")


def _by_class(ax: Axes, found: dict[tuple[str, str], Found], counted: Counted, data: Data) -> None:
    kind = classes(data)
    shown = [([counted.surprise], "black"), *((found["LSTM", shape].surprises, COLORS[shape]) for shape in SHAPES)]
    for row, (surprises, color) in enumerate(shown):
        means = [float(torch.stack([s[kind == k] for s in surprises]).mean()) for k in range(len(CLASSES))]
        ax.barh(np.arange(len(CLASSES)) + 0.2 * (row - 1.5), means, 0.18, color=color)
    share = [float((kind == k).double().mean()) for k in range(len(CLASSES))]
    ax.set_yticks(range(len(CLASSES)), [f"{name}\n({s:.0%})" for name, s in zip(CLASSES, share, strict=True)])
    ax.set_ylim(len(CLASSES) - 0.4, -0.6)
    ax.set(xlabel="bits per character", title=f"what comes: LSTM, {counted.order}-gram (black)")


def _gates(ax: Axes, model: Stack, data: Data) -> None:
    assert isinstance(model, GatedFeedback)
    window = scored(data.parts.test)
    opening = opened(model, data.alphabet.one_hot(window.read)).flatten(2)
    n = len(model.layers)
    means, spread = opening.mean((0, 1)), opening.flatten(0, 1).std(0)
    pairs = [(j, i) for j in range(n) for i in range(n)]
    names = [
        f"{i + 1} to {j + 1}   {float(m):.2f} ± {float(s):.2f}"
        for (j, i), m, s in zip(pairs, means, spread, strict=True)
    ]
    shown = slice(WARM, WARM + 90)
    plots.heat(ax, opening[shown, 0].numpy(), 1.0, cmap="viridis", names=names)
    letters = data.alphabet.decode(window.read[shown, 0]).replace("\n", "↵")
    ax.set_xticks(np.arange(len(letters)) + 0.5, list(letters), fontsize=6, family="monospace")
    ax.tick_params(axis="x", length=0)
    ax.set_xlabel("character that is read")
    for row in range(n, n * n, n):
        ax.axhline(row - 0.5, color="white", lw=1.5)
    fig = ax.get_figure()
    assert fig is not None
    fig.colorbar(ax.images[0], ax=ax, label="gate", fraction=0.02, pad=0.01)
    ax.set_title("LSTM, gated feedback: how open the gates between layers are (mean ± std over the test text)")


def _texts(ax: Axes, texts: Mapping[str, str]) -> None:
    ax.set_axis_off()
    lines = []
    for name, text in texts.items():
        text = text.replace("\n", "↵")
        lines += [f"{name}:", *[text[k : k + WIDTH] for k in range(0, len(text), WIDTH)], ""]
    said = ax.text(
        0, 1, "\n".join(lines), family="monospace", fontsize=6, va="top", transform=ax.transAxes, parse_math=False
    )
    said.set_in_layout(False)
    ax.set_title("text that they say, one character at a time (first seed)", loc="left")


if __name__ == "__main__":
    main(run)
