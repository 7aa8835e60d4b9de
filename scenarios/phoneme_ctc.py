"""Phones out of a made-up utterance: what comes later, and who needs to be told where each phone lies.

Claim: a deep bidirectional LSTM (BLSTM) names the phones of an utterance with fewer errors than an LSTM that reads from
the left only and than a window without cycles, trained by CTC, which is told the phones but not where they lie, or
sample by sample on where they lie. On TIMIT, CTC made fewer errors than a hybrid, a framewise network whose posteriors
over priors go through bigrams and durations (Viterbi); that was expected here, too, and was not found. Trained at one
step, a network has learned that step's map.

The corpus is synthetic (`ctrnn.tasks.Phonemes`: 15 phones, three formants, co-articulation, speakers, noise). It is not
TIMIT, and the label errors here are not TIMIT's. There Graves et al. (2006) report 38.85 % for a context-independent
HMM, 35.21 % for a context-dependent one, 33.84 ± 0.06 % for a BLSTM/HMM hybrid, 31.57 ± 0.06 % for a weighted one, and
for CTC 31.47 ± 0.21 % by best path and 30.51 ± 0.19 % by prefix search. The order of the systems is all that can be
compared, and a hybrid has it easier here: the alignments are exact, and the phones do follow a Markov chain.

All networks have about the same number of parameters and the same updates. The recurrent ones have two layers; they are
trained as `torch.nn.LSTM` on utterances of equal length, which is quicker, and taken over: at dt = tau it is the same
network.

Source: Graves, Fernandez, Gomez & Schmidhuber (2006), ICML (CTC); Graves & Schmidhuber (2005), Neural Networks
18:602-610 (framewise); Graves, Jaitly & Mohamed (2013), ASRU (hybrid of a deep bidirectional LSTM).
"""

import contextlib
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from ctrnn import Bidirectional, Held, Model, integrate, plots
from ctrnn.decoding import MarkovChain, best_path, collapse, markov_chain, prefix_search, viterbi
from ctrnn.plots.style import CYCLE, QUIET
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import PHONES, Phonemes, Trials, aligned_labels, edit_distance
from ctrnn.tasks.labels import label_scores
from ctrnn.tasks.trials import Outputs

DT = 0.02  # seconds: a sample, and every time constant
TASK = Phonemes()
N_IN, N_OUT, UNREAD = TASK.n_in, TASK.n_out, TASK.unread(DT)
LAYERS, WINDOW = 2, 9
BATCH, LEARNING_RATE, PART = 32, 1e-2, 400
BOTH, LEFT, STATIC = "BLSTM", "LSTM", f"window of {WINDOW}"
NETWORKS = {BOTH: CYCLE[0], LEFT: CYCLE[1], STATIC: CYCLE[2]}
CTC, FRAMEWISE = "CTC", "framewise"
BEST, PREFIX, MERGED, HYBRID = "CTC, best path", "CTC, prefix search", "framewise, merged", "framewise, hybrid"
WAYS = (BEST, PREFIX, MERGED, HYBRID)
RATES = (0.6, 0.8, 1.0, 1.25, 1.6)
STEPS = (DT / 8, DT / 4, DT / 2, DT)
EXACT, PIECE = 20, slice(8, 11)  # utterances searched as a whole, and some samples of each
FRAMES = "Graves & Schmidhuber (2005), abstract, framewise, on TIMIT"
GRAVES = "Graves et al. (2006), table 1, on TIMIT, % label error"


class Batch(NamedTuple):
    """Utterances of equal length."""

    us: Tensor  # (time, batch, band)
    labels: Tensor  # (batch, label), padded with -1
    aligned: Tensor  # (time, batch)


class Corpus(NamedTuple):
    """What to learn from, and how often its labels follow one another."""

    batches: list[Batch]
    chain: MarkovChain


class Recogniser(nn.Module):
    """Layers of LSTM on one another, read from the left or from both ends, and scores W_out h + b_out."""

    def __init__(self, units: int, both_ends: bool, generator: Generator) -> None:
        super().__init__()
        # Made without numbers: torch's own would be drawn from the global generator.
        core = nn.LSTM(N_IN, units, LAYERS, bidirectional=both_ends, device="meta")
        self.core = core.to_empty(device="cpu")
        self.head = nn.utils.skip_init(nn.Linear, (1 + both_ends) * units, N_OUT)
        for p in self.parameters():
            nn.init.uniform_(p, -1 / math.sqrt(units), 1 / math.sqrt(units), generator=generator)

    def forward(self, us: Tensor) -> Tensor:
        """Scores of utterances of equal length, at dt = tau."""
        return self.head(self.core(us)[0])

    @torch.no_grad()
    def say(self, trials: Trials, tau: float = DT) -> Tensor:
        """Scores of any utterances at any step."""
        hs = trials.us
        for layer in Bidirectional.chain_from_torch(self.core) if self.core.bidirectional else [self.core]:
            if isinstance(layer, Bidirectional):
                layer.ahead.tau = layer.back.tau = tau
                hs = layer(hs, dt=trials.dt, lengths=trials.lengths).ys
            else:
                stack = Model.from_torch(layer)
                stack.tau = tau
                hs = integrate(stack, Held(hs, trials.dt, lengths=trials.lengths)).ys
        return self.head(hs)


class Window(nn.Module):
    """y_k = W_2 relu(W_1 (u_{k-4}, ..., u_{k+4}) + b_1) + b_2: it sees later samples, and has no cycle."""

    def __init__(self, hidden: int, generator: Generator) -> None:
        super().__init__()
        self.first = nn.utils.skip_init(nn.Linear, WINDOW * N_IN, hidden)
        self.second = nn.utils.skip_init(nn.Linear, hidden, N_OUT)
        for layer in (self.first, self.second):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, us: Tensor) -> Tensor:
        """Scores; beyond both ends the input is 0."""
        padded = F.pad(us, (0, 0, 0, 0, WINDOW // 2, WINDOW // 2))
        return self.second(torch.relu(self.first(torch.cat([padded[i : i + len(us)] for i in range(WINDOW)], -1))))

    @torch.no_grad()
    def say(self, trials: Trials, tau: float = DT) -> Tensor:
        """Scores of any utterances, whatever the step: a window of samples has no time constant."""
        del tau
        return self(trials.us)


Network = Recogniser | Window


class Found(NamedTuple):
    """What was found with one seed."""

    errors: dict[str, dict[str, float]]  # network -> way -> label error
    by_sample: dict[str, float]  # network trained sample by sample -> part of the samples it names wrong
    by_rate: dict[str, list[float]]  # network trained by CTC -> label error at each rate
    told: list[float]  # of the bidirectional LSTM whose time constants are divided by the rate
    by_dt: dict[str, list[float]]  # network trained by CTC -> label error at each step
    unended: int  # searches that did not end
    networks: dict[str, dict[str, Network]]  # CTC or framewise -> network -> module


def run(
    *,
    quick: bool = False,
    seed: int = 0,
    seeds: int = 5,
    units: int = 32,
    updates: int = 1000,
    utterances: int = 6400,
    tested: int = 200,
    searches: int = 1000,
) -> Result:
    """Train three kinds of networks in two ways, and decode each in two.

    Args:
        quick: one seed, small networks, too few updates to learn anything.
        seed: of weights and utterances; seed, seed + 1, ...
        seeds: networks of each kind and training.
        units: of each layer and direction of the bidirectional LSTM; the others get as many parameters.
        updates: of Adam, 32 utterances each.
        utterances: to learn from, in each seed; a multiple of 400 is made.
        tested: other utterances, the same for all.
        searches: prefixes that prefix search extends at most; the best path stands in where it did not end.
    """
    if quick:
        seeds, units, updates, utterances, tested, searches = 1, 8, 10, 400, 12, 10
    report = progress(seeds, "training")
    found = []
    for k in range(seeds):
        data = corpus(utterances, seed + k)
        found.append(measure(trained(data, units, updates, seed + k), data.chain, tested, searches))
        report(k + 1)
    return Result(figure(found, tested), exact_claims(found, tested, searches) + found_claims(found, tested))


def trained(data: Corpus, units: int, updates: int, seed: int) -> dict[str, dict[str, Network]]:
    """CTC or framewise -> network -> module."""
    losses = {CTC: ctc_loss, FRAMEWISE: framewise_loss}
    nets = {training: networks(units, Generator().manual_seed(seed)) for training in losses}
    for training, loss in losses.items():
        for net in nets[training].values():
            train(net, data, loss, updates, seed)
    return nets


def measure(nets: dict[str, dict[str, Network]], chain: MarkovChain, tested: int, searches: int) -> Found:
    """Label errors of networks trained in both ways."""
    trials, errors, by_sample, unended = held_out(tested), {}, {}, 0
    truth = aligned_labels(trials)
    for name in NETWORKS:
        said, aligned = nets[CTC][name].say(trials)[UNREAD:], nets[FRAMEWISE][name].say(trials)
        found, failed = searched(said, trials.lengths - UNREAD, searches)
        strings = {
            BEST: best_path(said, trials.lengths - UNREAD),
            PREFIX: found,
            MERGED: best_path(aligned, trials.lengths),
            HYBRID: hybrid(aligned, chain, trials.lengths),
        }
        errors[name] = {way: label_scores(string, trials.targets)["label_error"] for way, string in strings.items()}
        by_sample[name] = float((aligned.argmax(-1) != truth)[truth >= 0].double().mean())
        unended += failed
    by_rate = {name: [read(net.say, tested, rate=rate) for rate in RATES] for name, net in nets[CTC].items()}
    fast = [partial(nets[CTC][BOTH].say, tau=DT / rate) for rate in RATES]
    told = [read(say, tested, rate=rate, dt=DT / rate) for say, rate in zip(fast, RATES, strict=True)]
    by_dt = {name: [read(nets[CTC][name].say, tested, dt=dt) for dt in STEPS] for name in (BOTH, LEFT)}
    return Found(errors, by_sample, by_rate, told, by_dt, unended, nets)


def networks(units: int, generator: Generator) -> dict[str, Network]:
    """Untrained networks with about the same number of parameters."""
    both = Recogniser(units, True, generator)
    aim = size(both)
    left = min(range(1, 4 * units), key=lambda n: abs(4 * n * ((N_IN + n + 2) + (2 * n + 2)) + N_OUT * (n + 1) - aim))
    hidden = round((aim - N_OUT) / (WINDOW * N_IN + 1 + N_OUT))
    return {BOTH: both, LEFT: Recogniser(left, False, generator), STATIC: Window(hidden, generator)}


def size(net: nn.Module) -> int:
    """How many parameters a network has."""
    return sum(p.numel() for p in net.parameters())


def corpus(n: int, seed: int) -> Corpus:
    """Utterances in batches of equal length, so that training needs no padding."""
    generator = Generator().manual_seed(seed)
    pieces, aligned = defaultdict(list), []
    for _ in range(n // PART):
        part = Phonemes().trials(PART, DT, generator)
        aligned.append(aligned_labels(part))
        for length in part.lengths.unique().tolist():
            rows = part.lengths == length
            pieces[length].append(Batch(part.us[:length, rows], part.targets[rows], aligned[-1][:length, rows]))
    batches = []
    for parts in pieces.values():
        us, labels, where = zip(*parts, strict=True)
        split = torch.cat(us, 1).split(BATCH, 1), torch.cat(labels).split(BATCH), torch.cat(where, 1).split(BATCH, 1)
        batches += [Batch(*batch) for batch in zip(*split, strict=True) if len(batch[1]) > BATCH // 4]
    together = nn.utils.rnn.pad_sequence(aligned, padding_value=-1).flatten(1)
    return Corpus(batches, markov_chain(together, N_OUT))


def held_out(n: int, rate: float = 1.0, dt: float = DT) -> Trials:
    """The same utterances at every rate and step."""
    return Phonemes(rate=rate).trials(n, dt, Generator().manual_seed(1_000_000))


def train(net: Network, data: Corpus, loss: Callable[[Tensor, Batch], Tensor], updates: int, seed: int) -> None:
    """Adam with one cycle of the learning rate."""
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    schedule = OneCycleLR(optimizer, LEARNING_RATE, total_steps=updates, pct_start=0.15, cycle_momentum=False)
    chosen = torch.randint(len(data.batches), (updates,), generator=Generator().manual_seed(seed))
    for k in chosen.tolist():
        value = loss(net(data.batches[k].us), data.batches[k])
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def ctc_loss(ys: Tensor, batch: Batch) -> Tensor:
    """Per label; where the phones lie is not used."""
    ys = ys[UNREAD:]
    lengths = torch.full((ys.shape[1],), len(ys))
    return F.ctc_loss(ys.log_softmax(-1), batch.labels.clamp(min=0), lengths, (batch.labels >= 0).sum(1))


def framewise_loss(ys: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy per sample of where the phones lie."""
    return F.cross_entropy(ys.flatten(0, 1), batch.aligned.flatten())


def searched(ys: Tensor, lengths: Tensor, most: int) -> tuple[Tensor, int]:
    """What prefix search finds, and for how many utterances it did not end and the best path stands in."""
    strings, failed = [], 0
    for row, length in enumerate(lengths.tolist()):
        table = ys[:length, row].log_softmax(-1)
        try:
            strings.append(torch.tensor(prefix_search(table, most=most).labels, dtype=torch.long))
        except RuntimeError:
            strings.append(best_path(table[:, None])[0])
            failed += 1
    return nn.utils.rnn.pad_sequence(strings, batch_first=True, padding_value=-1), failed


def hybrid(ys: Tensor, chain: MarkovChain, lengths: Tensor) -> Tensor:
    """Posteriors over priors, through the chain of the training's labels."""
    likelihoods = ys.log_softmax(-1) - chain.log_priors
    return collapse(viterbi(likelihoods, chain.log_transitions, chain.log_initial, lengths), lengths)


def read(say: Callable[[Trials], Tensor], tested: int, *, rate: float = 1.0, dt: float = DT) -> float:
    """Label error of the best path at this rate and step."""
    task, trials = Phonemes(rate=rate), held_out(tested, rate, dt)
    return task.evaluate(Outputs(say(trials)), trials)["label_error"]


def exact_claims(found: list[Found], tested: int, searches: int) -> list[Claim]:
    """Identities of decoder, loss and padding, on the networks of the first seed."""
    net, trials = found[0].networks[CTC][BOTH], held_out(tested)
    sizes = {name: size(network) for name, network in found[0].networks[CTC].items()}
    off = max(abs(n / sizes[BOTH] - 1) for n in sizes.values())
    ended, least = exact_searches(net, trials, searches)
    return [
        Claim.below(
            f"parameters differ by less than 5 % ({', '.join(f'{name} {n}' for name, n in sizes.items())})",
            off,
            0.05,
            "counted",
        ),
        Claim.at_least(
            "log p of the labelling found by exact prefix search minus that of the best path's: least of "
            f"{len(trials.lengths[:EXACT])} pieces of 3 samples and of {ended} utterances, those whose search ended",
            least,
            -1e-9,
            "Graves et al. (2006), section 3.2: with enough time it finds the most probable labelling",
        ),
        Claim.below(
            "CTC loss beside the sum over all 16^5 paths that read as the labels: 5 samples of a test utterance",
            loss_discrepancy(net.say(trials)),
            1e-9,
            "Graves et al. (2006), eq. 3",
        ),
        Claim.below(
            "scores in a batch of utterances of other lengths beside those alone: greatest difference",
            padding_discrepancy(net, trials),
            1e-4,
            "derived: neither direction reads padding",
        ),
        Claim.below(
            "scores by the integrator at dt = tau beside torch.nn.LSTM's: greatest difference",
            taken_over_discrepancy(net, found[0].networks[CTC][LEFT], trials),
            1e-4,
            "derived: the unit delay is the step dt = tau",
        ),
    ]


def exact_searches(net: Network, trials: Trials, most: int) -> tuple[int, float]:
    """How many of the first utterances' searches ended, and the least gain over the best path, pieces included."""
    ys, whole, pieces = net.say(trials).double().log_softmax(-1), [], []
    for row, length in enumerate(trials.lengths[:EXACT].tolist()):
        with contextlib.suppress(RuntimeError):
            whole.append(gain(ys[UNREAD:length, row], most))
        pieces.append(gain(ys[PIECE, row], most=10_000))
    return len(whole), min(whole + pieces)


def gain(table: Tensor, most: int) -> float:
    """log p of the labelling that exact search finds, minus that of the best path's."""
    best = prefix_search(table, section=None, most=most).log_probability
    return best - log_probability(table, best_path(table[:, None])[0])


def log_probability(table: Tensor, labels: Tensor) -> float:
    """Of a labelling, from CTC's loss."""
    lengths = torch.tensor([len(table)]), torch.tensor([len(labels)])
    return -float(F.ctc_loss(table[:, None], labels[None], *lengths, reduction="sum"))


def loss_discrepancy(ys: Tensor) -> float:
    """Samples 8 to 12 of the first utterance, with what their best path says, or one phone if it says nothing."""
    table = ys[8:13, 0].double().log_softmax(-1)
    labels = best_path(table[:, None])[0]
    labels = labels if len(labels) else torch.tensor([1])
    paths = torch.cartesian_prod(*[torch.arange(N_OUT)] * len(table)).T
    strings = collapse(paths)
    wanted = F.pad(labels, (0, strings.shape[1] - len(labels)), value=-1)
    every = table.gather(1, paths).sum(0)[(strings == wanted).all(1)].logsumexp(0)
    return abs(float(every) - log_probability(table, labels))


def padding_discrepancy(net: Network, trials: Trials) -> float:
    """Greatest difference of a score between utterances side by side and one by one."""
    ys, worst = net.say(trials), 0.0
    for row, length in enumerate(trials.lengths[:EXACT].tolist()):
        alone = trials._replace(us=trials.us[:length, row : row + 1], lengths=trials.lengths[row : row + 1])
        worst = max(worst, float((net.say(alone)[:, 0] - ys[:length, row]).abs().max()))
    return worst


@torch.no_grad()
def taken_over_discrepancy(both: Network, left: Network, trials: Trials) -> float:
    """Greatest difference of a score between the integrator and torch, on the first utterance."""
    length = int(trials.lengths[0])
    alone = trials._replace(us=trials.us[:length, :1], lengths=trials.lengths[:1])
    return max(float((net.say(alone) - net(alone.us)).abs().max()) for net in (both, left))


def found_claims(found: list[Found], tested: int) -> list[Claim]:
    """Who names the phones with fewer errors, seed by seed, beside what was published for TIMIT."""
    n = len(found)

    def wins(a: tuple[str, str], b: tuple[str, str], source: str) -> Claim:
        ours, theirs = ([f.errors[name][way] for f in found] for name, way in (a, b))
        return fewer(f"{', '.join(a)} has fewer errors than {', '.join(b)}", ours, theirs, source)

    def names_more(other: str, source: str) -> Claim:
        ours, theirs = ([f.by_sample[name] for f in found] for name in (BOTH, other))
        claim = fewer(f"{BOTH}, framewise, names fewer samples wrong than {other}, framewise", ours, theirs, source)
        return replace(
            claim, planned="no such claim", reason="label errors alone were compared with a framewise result"
        )

    def times(name: str, measured: list[float]) -> Claim:
        return Claim.at_least(name, float(np.mean(measured)), 2.0, "measured here", "statistical")

    at_half = [f.by_dt[BOTH][STEPS.index(DT / 2)] / f.errors[BOTH][BEST] for f in found]
    fast = [f.by_rate[BOTH][-1] / f.told[-1] for f in found]
    searches, ended = 3 * n * tested, 3 * n * tested - sum(f.unended for f in found)
    better = wins((BOTH, PREFIX), (BOTH, BEST), f"{GRAVES}: 30.51 ± 0.19 by prefix search, 31.47 ± 0.21 by best path")
    return [
        replace(better, text=f"{better.text}; {ended} of all {searches} searches ended"),
        wins(
            (BOTH, BEST), (BOTH, HYBRID), f"{GRAVES}: CTC 31.47 ± 0.21, BLSTM/HMM 33.84 ± 0.06 (weighted 31.57 ± 0.06)"
        ),
        wins((BOTH, HYBRID), (BOTH, MERGED), "Graves, Jaitly & Mohamed (2013): the chain knows durations and bigrams"),
        wins((BOTH, BEST), (LEFT, BEST), "ours: both ends against one"),
        wins((BOTH, MERGED), (LEFT, MERGED), "ours: both ends against one"),
        names_more(LEFT, f"{FRAMES}: both ends outperform one"),
        names_more(STATIC, f"{FRAMES}: LSTM is more accurate than a window"),
        wins((BOTH, BEST), (STATIC, BEST), "is recurrence needed? measured here"),
        wins((BOTH, HYBRID), (STATIC, HYBRID), "is recurrence needed? measured here"),
        times(f"label error of {BOTH}, CTC, at dt = tau / 2 over that at dt = tau, mean of {n} seeds", at_half),
        times(f"label error of {BOTH}, CTC, at rate {RATES[-1]}, not told over told, mean of {n} seeds", fast),
    ]


def fewer(text: str, ours: Sequence[float], theirs: Sequence[float], source: str) -> Claim:
    """In how many seeds our error is the lower one."""
    n = len(ours)
    return Claim.equal(
        f"seeds of {n} in which {text} (mean {100 * np.mean(ours):.2f} against {100 * np.mean(theirs):.2f} %)",
        sum(a < b for a, b in zip(ours, theirs, strict=True)),
        n,
        source,
        "statistical",
    )


def figure(found: list[Found], tested: int) -> Figure:
    """An utterance, what is said about it sample by sample and by CTC; then label errors."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 7.2))
        above, below = fig.subfigures(2, 1, height_ratios=(1.1, 1))
        _utterance(above.subplots(3, 1, sharex=True, height_ratios=(1.2, 1, 1)), found[0], held_out(tested))
        errors, rates, steps = below.subplots(1, 3, width_ratios=(1.3, 1, 1))
        _errors(errors, found)
        for name, color in NETWORKS.items():
            plots.sweep(rates, RATES, 100 * np.array([f.by_rate[name] for f in found]), label=name, color=color)
        told = 100 * np.array([f.told for f in found])
        plots.sweep(rates, RATES, told, label=f"{BOTH}, told the rate", color=CYCLE[0], marker="", ls="--")
        for name in (BOTH, LEFT):
            by_dt = 100 * np.array([f.by_dt[name] for f in found])
            plots.sweep(steps, np.array(STEPS) / DT, by_dt, label=name, color=NETWORKS[name])
        _decorate(rates, "speaking rate", RATES, "CTC, best path")
        _decorate(steps, "step dt / tau", [step / DT for step in STEPS], "CTC, best path")
        below.legend(*rates.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


def _utterance(axes: np.ndarray, found: Found, trials: Trials) -> None:
    read = best_path(found.networks[CTC][BOTH].say(trials)[UNREAD:], trials.lengths - UNREAD)
    right = edit_distance(read, trials.targets) == 0
    row = int((2 * right + trials.condition["n_phones"].eq(6)).argmax())
    length = int(trials.lengths[row])
    labels = trials.targets[row][trials.targets[row] >= 0].tolist()
    plots.heat(axes[0], trials.us[:length, row].flip(-1).clamp(0, 1), DT)
    axes[0].set(ylabel="frequency")
    said = " ".join(PHONES[label - 1] for label in read[row].tolist() if label > 0) or "nothing"
    axes[0].set_title(
        f"an utterance, energies in 16 bands of 0.2 to 6.4 kHz; read by CTC's best path as: {said}", pad=16
    )
    ts = DT * np.arange(1, length + 1)
    for ax, training in zip(axes[1:], (FRAMEWISE, CTC), strict=True):
        p = found.networks[training][BOTH].say(trials)[:length, row].softmax(-1).numpy()
        ax.plot(ts, p[:, 0], color=QUIET, ls=":", label="silence" if training == FRAMEWISE else "blank")
        others = [label for label in range(1, N_OUT) if label not in labels]
        ax.plot(ts, p[:, others], color=QUIET, lw=0.6, label=["other phones"] + [""] * (len(others) - 1))
        for label in set(labels):
            ax.plot(ts, p[:, label], color=CYCLE[labels.index(label) % len(CYCLE)], lw=1.2)
        ax.set(ylabel="probability", ylim=(0, 1.05))
        ax.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, borderaxespad=0)
    axes[1].set_title("bidirectional LSTM trained sample by sample on where the phones lie", loc="left")
    axes[2].set_title("bidirectional LSTM trained by CTC on their order alone", loc="left")
    axes[2].set(xlabel="time / s", xlim=(0, length * DT))
    edges = trials.periods["phone"][:, row, : len(labels)].T.tolist()
    for ax in axes:
        for edge in {edge for pair in edges for edge in pair}:
            ax.axvline(edge, color=QUIET, lw=0.5)
    for label, (start, stop) in zip(labels, edges, strict=True):
        color = CYCLE[labels.index(label) % len(CYCLE)]
        axes[0].text((start + stop) / 2, -0.7, PHONES[label - 1], ha="center", color=color, fontweight="bold")


def _errors(ax: Axes, found: list[Found]) -> None:
    rows = list(itertools.product(NETWORKS, WAYS))
    scores = {f"{name}: {way}": 100 * np.array([f.errors[name][way] for f in found]) for name, way in rows}
    plots.by_seed(ax, scores, [NETWORKS[name] for name, _ in rows])
    ax.set(xlabel="label error / %", title="dt = tau", xlim=(0, None))


def _decorate(ax: Axes, xlabel: str, ticks: Sequence[float], title: str) -> None:
    ax.set(xlabel=xlabel, ylabel="label error / %", title=title, xscale="log", ylim=(0, 105))
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()


if __name__ == "__main__":
    main(run)
