"""Which words fill which slot: recurrent networks, a window and a conditional random field on questions about flights.

Claim: where the word that decides a slot stands outside a window, only a network that carries it there can label the
slot: from the left Elman and LSTM, from the right their bidirectional pairs (not in every seed), neither a window
classifier nor a linear chain of labels, and not Jordan: it knows only what it said, and about the deciding word, which
fills no slot, it says nothing. Jordan was expected to do it, too. The sentences are NOT those of ATIS: they come from a
small grammar made for this purpose, with cities from airportsdata, and no score here can be compared with a score
there; on ATIS, Mesnil et al. (2015) report F1 = 94.98 for an Elman network with a window of 9 words, and 95.06 for
their hybrid of Elman and Jordan.

A bidirectional Jordan network is here two Jordan networks that read the sentence from its two ends; each feeds its own
softmax over the labels back to itself, and the product of the two softmaxes, renormalised, is what both together say.

Source: Mesnil, He, Deng & Bengio (2013), Interspeech; Mesnil et al. (2015), IEEE/ACM TASLP 23:530-539; Elman (1990);
Jordan (1986); Lafferty, McCallum & Pereira (2001), ICML, as in python-crfsuite; F1 by the package conlleval.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, compress, pairwise
from pathlib import Path
from typing import NamedTuple

import airportsdata
import conlleval
import numpy as np
import pycrfsuite
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

import ctrnn
from ctrnn import Bidirectional, Held, Model, plots
from ctrnn.models import LSTM, Elman, Jordan
from ctrnn.models.activations import softmax
from ctrnn.plots.style import CYCLE, QUIET
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks.slots import CONTEXTS, LABELS, FlightQueries, Sentence, spans, twin, vocabulary

PAD, UNKNOWN = 0, 1  # word numbers
BATCH, LEARNING_RATE, PENALTY = 32, 1e-2, 0.1  # chosen on seeds that are not reported
WINDOW, ELMAN, JORDAN, GATED = "window", "Elman", "Jordan", "LSTM"
BOTH = {ELMAN: "bi-Elman", JORDAN: "bi-Jordan", GATED: "bi-LSTM"}
CRF = "CRF"
CAUSAL, NAMES = (WINDOW, ELMAN, JORDAN, GATED), (CRF, WINDOW, ELMAN, JORDAN, GATED, *BOTH.values())
MARGIN = 5.0  # of F1, in percent
MESNIL = "Mesnil et al. (2013), abstract: on ATIS both types beat the CRF, bi-Jordan most, by 14 % of its errors"
ATIS = "on ATIS, with which F1 here cannot be compared, Mesnil et al. (2015):"
ELMAN_94, HYBRID_95 = f"{MESNIL}; {ATIS} Elman, 9 words 94.98", f"{MESNIL}; {ATIS} hybrid of Elman and Jordan 95.06"
TITLES = {
    "near": "decided nearby",
    "left": "decided by a word\nfar to the left",
    "right": "decided by a word\nfar to the right",
    "all, known cities": "all sentences,\ncities seen in training",
    "all, new cities": "all sentences,\nother cities",
}
Labels = list[tuple[str, ...]]


class Corpus(NamedTuple):
    """Sentences to learn from, and to be asked: about cities that were in them, and about others."""

    train: list[Sentence]
    known: list[Sentence]
    new: list[Sentence]
    cities: tuple[tuple[str, ...], tuple[str, ...]]  # of train and known, of new
    words: dict[str, int]

    @property
    def test(self) -> list[Sentence]:
        """Everything that is asked."""
        return [*self.known, *self.new]


class Labeller(nn.Module):
    """scores(k) = core(embedded words k - r ... k + r): a number for every label, up to a constant, at every word.

    Args:
        n_words: numbers of words.
        size: of a word's embedding.
        window: words that the core sees at once, 2 r + 1.
        core: a module over windows (time, batch, window size), a Model, or a Bidirectional.
        generator: where the embeddings are drawn from.
    """

    def __init__(self, n_words: int, size: int, window: int, core: nn.Module, generator: Generator) -> None:
        super().__init__()
        self.window, self.core = window, core
        self.embeddings = nn.Parameter(torch.randn(n_words, size, generator=generator) / size**0.5)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        r = self.window // 2
        seen = F.pad(words, (0, 0, r, r), value=PAD).unfold(0, self.window, 1)
        us = F.embedding(seen, self.embeddings).flatten(-2)
        if isinstance(self.core, Model):
            ys = ctrnn.integrate(self.core, Held(us, 1.0, lengths=lengths)).ys
        elif isinstance(self.core, Bidirectional):
            ys = self.core(us, dt=1.0, lengths=lengths).ys
        else:
            ys = self.core(us)
        if any(isinstance(module, Jordan) for module in self.core.modules()):  # they say probabilities
            ys = ys.clamp_min(torch.finfo(ys.dtype).tiny).log()
        return ys.unflatten(-1, (-1, len(LABELS))).sum(-2)


class Measured(NamedTuple):
    """What every network said to every test sentence, one entry per seed, and how good it was: F1 in percent."""

    corpora: list[Corpus]
    said: Mapping[str, list[Labels]]  # for the sentences of known, then of new
    f1: Mapping[str, Mapping[str, np.ndarray]]  # part of the test -> network -> (seed,)
    sizes: Mapping[str, int]  # parameters behind the embeddings
    difference: float  # between a causal network's scores of a city in a right sentence and in its twin


def run(
    *,
    quick: bool = False,
    seed: int = 0,
    seeds: int = 3,
    sentences: int = 1500,
    epochs: int = 16,
    units: int = 64,
    embedding: int = 16,
    window: int = 7,
) -> Result:
    """Train every network on the same sentences, and score it on others, half of them about cities never named before.

    Args:
        quick: one seed, few sentences, few epochs.
        seed: of sentences, the choice of cities, weights and the order of training; seed, seed + 1, ...
        seeds: corpora, and networks of each kind.
        sentences: to learn from; a third as many of known and of new cities are tested, with their twins.
        epochs: passes over them.
        units: of the Elman network; the others get as many parameters.
        embedding: numbers that stand for a word.
        window: words that every network and the random field see at once, an odd number.
    """
    if window % 2 == 0:
        raise ValueError(f"window = {window} has no word in its middle: take an odd number.")
    if quick:
        seeds, sentences, epochs, units = 1, 240, 3, 16
    corpora = [corpus(sentences, number) for number in range(seed, seed + seeds)]
    trained: dict[str, list[Labeller]] = {name: [] for name in NAMES if name != CRF}
    said: dict[str, list[Labels]] = {name: [] for name in NAMES}
    report = progress(len(NAMES) * seeds, "training")
    for number, data in enumerate(corpora, seed):
        for i, (name, network) in enumerate(labellers(data, units, embedding, window, number).items()):
            train(network, data, epochs, number)
            trained[name].append(network)
            said[name].append(label(network, data))
            report((number - seed) * len(NAMES) + i + 1)
        said[CRF].append(random_field(data, window // 2))
        report((number - seed + 1) * len(NAMES))
    found = measure(corpora, trained, said)
    return Result(figure(found), exact_claims(found) + found_claims(found))


def corpus(n: int, seed: int) -> Corpus:
    """n sentences to learn from; n / 3 with the same cities and n / 3 with others, and their twins, to be asked."""
    generator = Generator().manual_seed(seed)
    names = cities()
    order = torch.randperm(len(names), generator=generator).tolist()
    halves = (
        tuple(names[i] for i in order[: 2 * len(order) // 3]),
        tuple(names[i] for i in order[2 * len(order) // 3 :]),
    )
    train = FlightQueries(halves[0]).sentences(n, generator)
    known, new = (with_twins(FlightQueries(half).sentences(n // 3, generator)) for half in halves)
    counts = Counter(chain.from_iterable(sentence.words for sentence in train))
    # A word met once stands for all that were never met, so that its embedding is learned.
    often = sorted(word for word, count in counts.items() if count > 1)
    return Corpus(train, known, new, halves, {word: number for number, word in enumerate(often, UNKNOWN + 1)})


def cities() -> list[str]:
    """Cities with an international airport whose names are one to three plain words, none of them the grammar's."""
    names = {port["city"].lower() for port in airportsdata.load("IATA").values() if "International" in port["name"]}
    return sorted(n for n in names if re.fullmatch(r"[a-z]+( [a-z]+){0,2}", n) and not vocabulary() & set(n.split()))


def with_twins(sentences: Sequence[Sentence]) -> list[Sentence]:
    """Each left and right sentence followed by its twin: who guesses without the verb is right in half of them."""
    return [one for s in sentences for one in ((s,) if s.context == "near" else (s, twin(s)))]


def labellers(data: Corpus, units: int, size: int, window: int, seed: int) -> dict[str, Labeller]:
    """Untrained networks with about the same number of parameters."""
    n_in, n_out, generator = window * size, len(LABELS), Generator().manual_seed(seed)
    aim = units * (n_in + units + 2) + n_out * (units + 1)
    n = {
        name: min(range(1, aim), key=lambda n, blocks=blocks, twice=twice: abs(twice * blocks(n) - aim))
        for name, twice, blocks in (
            (WINDOW, 1, lambda n: n * (n_in + 1) + n_out * (n + 1)),
            (JORDAN, 1, lambda n: n * (n_in + n_out + 1) + n_out * (n + 1)),
            (GATED, 1, lambda n: 4 * n * (n_in + n + 2) + n_out * (n + 1)),
            (BOTH[ELMAN], 2, lambda n: n * (n_in + n + 2) + n_out * (n + 1)),
            (BOTH[JORDAN], 2, lambda n: n * (n_in + n_out + 1) + n_out * (n + 1)),
            (BOTH[GATED], 2, lambda n: 4 * n * (n_in + n + 2) + n_out * (n + 1)),
        )
    }
    jordan = partial(Jordan, n_in=n_in, n_out=n_out, output=softmax, generator=generator)
    elman, lstm = (partial(kind, n_in=n_in, n_out=n_out, generator=generator) for kind in (Elman, LSTM))
    cores: dict[str, nn.Module] = {
        WINDOW: perceptron(n_in, n[WINDOW], n_out, generator),
        ELMAN: elman(units),
        JORDAN: jordan(n[JORDAN]),
        GATED: lstm(n[GATED]),
    }
    for one, kind in ((ELMAN, elman), (JORDAN, jordan), (GATED, lstm)):
        cores[BOTH[one]] = Bidirectional(kind(n[BOTH[one]]), kind(n[BOTH[one]]))
    n_words = len(data.words) + UNKNOWN + 1
    return {name: Labeller(n_words, size, window, core, generator) for name, core in cores.items()}


def perceptron(n_in: int, hidden: int, n_out: int, generator: Generator) -> nn.Sequential:
    """y = W_2 tanh(W_1 u + b_1) + b_2: no cycle, no memory but the window."""
    layers = [nn.utils.skip_init(nn.Linear, a, b) for a, b in ((n_in, hidden), (hidden, n_out))]
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1])


def train(network: Labeller, data: Corpus, epochs: int, seed: int, rate: float = LEARNING_RATE) -> None:
    """Adam on the cross-entropy of all labels."""
    words, lengths, labels = encode(data.train, data.words)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = OneCycleLR(optimizer, rate, total_steps=epochs * -(-len(lengths) // BATCH), cycle_momentum=False)
    generator = Generator().manual_seed(seed)
    for _ in range(epochs):
        near = (lengths + 4 * torch.rand(len(lengths), generator=generator)).argsort().split(BATCH)  # of like lengths
        for rows in (near[k] for k in torch.randperm(len(near), generator=generator)):
            longest = int(lengths[rows].max())
            scores = network(words[:longest, rows], lengths[rows])
            loss = F.cross_entropy(scores.flatten(0, 1), labels[:longest, rows].flatten(), ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()


def encode(sentences: Sequence[Sentence], numbers: Mapping[str, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Words (time, batch) padded with PAD, lengths (batch,), labels (time, batch) padded with -1."""
    words = [torch.tensor([numbers.get(word, UNKNOWN) for word in s.words]) for s in sentences]
    labels = [torch.tensor([LABELS.index(name) for name in s.labels]) for s in sentences]
    pad = nn.utils.rnn.pad_sequence
    return pad(words, padding_value=PAD), torch.tensor([len(w) for w in words]), pad(labels, padding_value=-1)


@torch.no_grad()
def label(network: Labeller, data: Corpus) -> Labels:
    """The likeliest label of every word of the test sentences."""
    words, lengths, _ = encode(data.test, data.words)
    best = network(words, lengths).argmax(-1).T.tolist()
    return [tuple(LABELS[k] for k in row[:length]) for row, length in zip(best, lengths.tolist(), strict=True)]


def random_field(data: Corpus, radius: int, penalty: float = PENALTY) -> Labels:
    """What a linear-chain conditional random field says that sees each window's words and pairs of words."""
    trainer = pycrfsuite.Trainer(verbose=False)
    trainer.set_params({"c1": 0.0, "c2": penalty, "max_iterations": 100})
    for sentence in data.train:
        trainer.append(features(sentence, data.words, radius), sentence.labels)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "crf")
        trainer.train(path)
        tagger = pycrfsuite.Tagger()
        with tagger.open(path):
            return [tuple(tagger.tag(features(s, data.words, radius))) for s in data.test]


def features(sentence: Sentence, numbers: Mapping[str, int], radius: int) -> list[list[str]]:
    """Each word's neighbours and pairs of neighbours; unknown words look alike, as they do to the networks."""
    edge = ["<edge>"] * radius
    words = [*edge, *(word if word in numbers else "<unknown>" for word in sentence.words), *edge]
    rows = []
    for k in range(len(sentence.words)):
        seen = words[k : k + 2 * radius + 1]
        ones = [f"{i - radius}={word}" for i, word in enumerate(seen)]
        rows.append(["bias", *ones, *(f"{a}|{b}" for a, b in pairwise(ones))])
    return rows


def measure(corpora: list[Corpus], trained: dict[str, list[Labeller]], said: Mapping[str, list[Labels]]) -> Measured:
    """F1 on each part of the test sentences, and how far a causal network's scores differ before it sees the verb."""
    parts: dict[str, Callable[[Corpus], list[bool]]] = {
        part: lambda data, part=part: [s.context == part for s in data.test] for part in CONTEXTS
    }
    parts["all, known cities"] = lambda data: [True] * len(data.known) + [False] * len(data.new)
    parts["all, new cities"] = lambda data: [False] * len(data.known) + [True] * len(data.new)
    f1 = {
        part: {
            name: np.array(
                [score(data, rows(data), answers) for data, answers in zip(corpora, said[name], strict=True)]
            )
            for name in NAMES
        }
        for part, rows in parts.items()
    }
    core = {name: sum(p.numel() for p in networks[0].core.parameters()) for name, networks in trained.items()}
    apart = [
        before_the_verb(network, data) for name in CAUSAL for network, data in zip(trained[name], corpora, strict=True)
    ]
    return Measured(corpora, said, f1, core, max(apart))


def score(data: Corpus, rows: Sequence[bool], said: Labels) -> float:
    """F1 of slots in percent on the chosen test sentences, by conlleval."""
    lines: list[str] = []
    for sentence, labels in compress(zip(data.test, said, strict=True), rows):
        lines.extend(f"{word} {a} {b}" for word, a, b in zip(sentence.words, sentence.labels, labels, strict=True))
        lines.append("")
    return 100 * conlleval.evaluate(lines)["overall"]["chunks"]["evals"]["f1"]


def own_score(data: Corpus, said: Labels) -> float:
    """The same on all test sentences, from sets of slots."""
    true, found = ([spans(labels) for labels in rows] for rows in ([s.labels for s in data.test], said))
    both = sum(len(a & b) for a, b in zip(true, found, strict=True))
    return 200 * both / (sum(map(len, true)) + sum(map(len, found)))


@torch.no_grad()
def before_the_verb(network: Labeller, data: Corpus) -> float:
    """Greatest difference of scores between right sentences and their twins where the verb is not yet in the window."""
    rights = [k for k, s in enumerate(data.known) if s.context == "right"]
    words, lengths, _ = encode([data.known[k] for k in rights], data.words)
    scores = network(words, lengths)
    first, second = words[:, ::2], words[:, 1::2]  # a sentence, its twin
    hidden = torch.cummax((first != second).int(), 0).values == 0
    blind = F.pad(hidden[network.window // 2 :], (0, 0, 0, network.window // 2), value=False)
    return float((scores[:, ::2] - scores[:, 1::2])[blind].abs().max())


def exact_claims(found: Measured) -> list[Claim]:
    """Identities: what a network cannot know, and the score."""
    both_right = sum(
        pair_right(data, answers)
        for name in CAUSAL
        for data, answers in zip(found.corpora, found.said[name], strict=True)
    )
    scores = [
        (score(data, [True] * len(data.test), answers), own_score(data, answers))
        for name in NAMES
        for data, answers in zip(found.corpora, found.said[name], strict=True)
    ]
    return [
        Claim.below(
            "greatest difference of a causal network's scores between a right sentence and its twin before the verb",
            found.difference,
            1e-5,
            "causality, to the rounding of sums in single precision, derived",
        ),
        Claim.equal(
            "right sentences labelled without error together with their twins, all causal networks",
            both_right,
            0,
            "the twins' cities get the same labels, derived",
        ),
        Claim.below(
            "greatest difference between conlleval's F1 and that of sets of slots, percent",
            max(abs(a - b) for a, b in scores),
            1e-9,
            "Tjong Kim Sang & Buchholz (2000), derived",
        ),
    ]


def pair_right(data: Corpus, said: Labels) -> int:
    """Right sentences that are without error and whose twins are, too."""
    right = [answer == s.labels for s, answer in zip(data.test, said, strict=True) if s.context == "right"]
    return sum(a and b for a, b in zip(right[::2], right[1::2], strict=True))


def found_claims(found: Measured) -> list[Claim]:
    """Who beats whom, seed by seed, where that was expected."""
    n = len(found.corpora)
    expected = [
        *(("right", BOTH[name], name, "reads from both ends, derived") for name in (ELMAN, JORDAN, GATED)),
        ("all, new cities", ELMAN, CRF, ELMAN_94),
        ("all, new cities", JORDAN, CRF, HYBRID_95),
        ("all, new cities", BOTH[ELMAN], CRF, ELMAN_94),
        ("all, new cities", BOTH[JORDAN], CRF, HYBRID_95),
        ("all, new cities", BOTH[GATED], CRF, "both ends against a chain of labels, ours"),
        ("all, new cities", BOTH[JORDAN], BOTH[ELMAN], HYBRID_95),
    ]
    wins = [
        Claim.equal(
            f"{part}: seeds of {n} in which {a} beats {b} "
            f"(mean F1 {found.f1[part][a].mean():.1f} against {found.f1[part][b].mean():.1f})",
            int((found.f1[part][a] > found.f1[part][b]).sum()),
            n,
            source,
            "statistical",
        )
        for part, a, b, source in expected
    ]
    return [*(carried(found, name) for name in (ELMAN, JORDAN, GATED)), *wins]


def carried(found: Measured, name: str) -> Claim:
    """Whether a network knows what stood to the left: more than its window's words and a chain of labels tell."""
    f1, n = found.f1["left"], len(found.corpora)
    claim = Claim.equal(
        f"left: seeds of {n} in which {name} beats window and CRF by {MARGIN:g} points or more (mean F1 "
        f"{f1[name].mean():.1f} against {f1[WINDOW].mean():.1f} and {f1[CRF].mean():.1f})",
        int((f1[name] >= MARGIN + np.maximum(f1[WINDOW], f1[CRF])).sum()),
        n,
        "carries what it read, derived"
        if name != JORDAN
        else "expected of any recurrent network; but Jordan carries only what it said, derived",
        "statistical",
    )
    ahead = int((f1[name] > f1[WINDOW]).sum())
    return replace(
        claim,
        planned=f"{name} beats window: {ahead} of {n} seeds",
        reason="Jordan led by 0.8 points, which is no sign that it knows the verb, and the CRF was ahead of both",
    )


def figure(found: Measured) -> Figure:
    """F1 of every network on every part of the test."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 3.9))
        axes = fig.subplots(1, len(found.f1), sharey=True, sharex=True)
        colors = [QUIET, QUIET, *CYCLE[:3], *CYCLE[:3]]
        for ax, (part, scores) in zip(axes, found.f1.items(), strict=True):
            plots.by_seed(ax, scores, colors)
            ax.set(title=TITLES[part], xlabel="F1 (%)", xlim=(55, 102))
            ax.axvline(100, color=QUIET, lw=0.5)
        sizes = "; ".join(f"{name} {size}" for name, size in found.sizes.items())
        fig.suptitle("Slots of made-up questions about flights (not ATIS): a dot for each seed, a bar at the mean")
        fig.supxlabel(f"weights behind the embeddings: {sizes}", fontsize=6)
    return fig


if __name__ == "__main__":
    main(run)
