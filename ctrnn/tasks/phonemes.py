"""Naming the phones of made-up utterances: unsegmented, or sample by sample."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from torch import Tensor

from ctrnn.decoding.ctc import best_path

from .draws import dtype_or_default, integers, normal, require, source, uniform
from .grid import SLACK, check_dt, inside, samples, staircase
from .labels import constant_string, label_scores
from .trials import HasOutputs, Outputs, Trials, outputs, scored

GRAIN = 0.0025  # seconds: utterances are made on this grid, whatever dt
BANDS = 16
LOWEST, HIGHEST = 0.2, 6.4  # kHz, centres of the first and the last band

# Three formants in kHz and their amplitudes, in the first and in the second half of a phone. Vowels lie near the men's
# means of Peterson & Barney (1952). A closure is silent, a burst weak: where the formants of p, t, k, m and n move to
# shows best in the phone that follows.
_CLOSURE = ((0.25, 1.5, 2.5), (0.0, 0.0, 0.0))
_MURMUR = ((0.25, 1.5, 2.5), (0.6, 0.1, 0.1))
_BURST = (0.0, 0.3, 0.3)
_VOWELS = {
    "i": ((0.27, 2.3, 3.0), (0.8, 0.7, 0.5)),
    "e": ((0.53, 1.85, 2.5), (0.9, 0.7, 0.4)),
    "a": ((0.73, 1.1, 2.45), (1.0, 0.8, 0.3)),
    "o": ((0.57, 0.84, 2.4), (1.0, 0.7, 0.2)),
    "u": ((0.30, 0.87, 2.25), (0.8, 0.5, 0.2)),
}
_HISS = {"s": ((0.3, 1.8, 5.0), (0.0, 0.1, 0.7)), "S": ((0.3, 1.8, 2.9), (0.0, 0.3, 0.7))}
_PLACES = {"p": (0.25, 0.8, 2.2), "t": (0.25, 1.8, 2.8), "k": (0.25, 2.2, 2.4)}
_HALVES = {
    **{name: (vowel, vowel) for name, vowel in _VOWELS.items()},
    "ai": (_VOWELS["a"], _VOWELS["i"]),
    "au": (_VOWELS["a"], _VOWELS["u"]),
    **{name: (_CLOSURE, (place, _BURST)) for name, place in _PLACES.items()},
    "m": (_MURMUR, (_PLACES["p"], _MURMUR[1])),
    "n": (_MURMUR, (_PLACES["t"], _MURMUR[1])),
    **{name: (hiss, hiss) for name, hiss in _HISS.items()},
    "tS": (_CLOSURE, _HISS["S"]),
}
PHONES = tuple(_HALVES)  # label k is PHONES[k - 1]; S and tS are those of "ship" and "chip"
N_VOWELS = 7  # the first ones, diphthongs among them
TO_OTHER_KIND = 0.8  # probability that a vowel follows a consonant, and a consonant a vowel


@dataclass(frozen=True)
class Phonemes:
    """u(t) = energies in 16 frequency bands; y = scores of blank and the 15 phones, trained by CTC.

    A made-up corpus, not TIMIT, and label errors on it are not comparable with those on TIMIT. A phone is a pair of
    targets for three formants and their amplitudes, one for each half. Formants glide between targets (co-articulation:
    a Gaussian of standard deviation `coarticulation`; amplitudes half of that), a speaker shifts them all by up to
    `spread` octaves, and each formant is a bump in the bands of a logarithmic frequency axis. ai and au begin as a;
    p, t, k and tS begin as the same silence, m and n as the same murmur; which it was is said by what comes then, for
    p, t, k, m and n mostly by the glide into the next phone. So later samples often decide what a sample belongs to.

    What is said before a first phone can have ended is not scored: every utterance begins with some phone, and CTC,
    free to place labels anywhere, would have a network that sees the past only guess all of them at once, from which
    it does not learn to listen.

    Phones follow one another as a Markov chain without repetitions, in which vowels and consonants mostly alternate.
    Times are in seconds: the same generator gives the same utterances at every dt; at `rate` 2 they last half as long.

    phones: (fewest, most) of an utterance; duration: (shortest, longest) of a phone; silence: (shortest, longest)
    before and after; noise: standard deviation of a band's energy over 10 ms. `targets` (batch, label): label k is
    PHONES[k - 1], padded with -1; label 0 is CTC's blank. `periods["utterance"]` (2, batch), `periods["phone"]`
    (2, batch, label) with inf for phones an utterance does not have. `condition["speaker"]`: the shift in octaves.
    """

    phones: tuple[int, int] = (4, 8)
    duration: tuple[float, float] = (0.05, 0.11)
    silence: tuple[float, float] = (0.03, 0.08)
    coarticulation: float = 0.015
    spread: float = 0.25
    noise: float = 0.3
    rate: float = 1.0

    def __post_init__(self) -> None:
        require(1 <= self.phones[0] <= self.phones[1], f"phones = {self.phones} is no range (fewest, most)")
        require(
            2 * GRAIN <= self.duration[0] <= self.duration[1] < math.inf,
            f"duration = {self.duration} is no range (shortest, longest) in seconds of at least {2 * GRAIN}",
        )
        require(
            0 <= self.silence[0] <= self.silence[1] < math.inf,
            f"silence = {self.silence} is no range (shortest, longest) in seconds",
        )
        for name in ("coarticulation", "spread", "noise"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"{name} = {value} must be 0 or more, and finite")
        require(0 < self.rate < math.inf, f"rate = {self.rate}: utterances pass at a positive rate")

    @property
    def n_in(self) -> int:
        return BANDS

    @property
    def n_out(self) -> int:
        return 1 + len(PHONES)

    def trials(
        self,
        batch: int,
        dt: float,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Trials:
        """Raises ValueError for dt longer than the shortest phone: CTC might have fewer samples than labels."""
        generator, dtype = source(batch, generator), dtype_or_default(dtype)
        check_dt(dt, self.duration[0] / self.rate, "the shortest phone")
        most = self.phones[1]
        n_phones = integers(*self.phones, (batch,), generator)
        labels = _chain(batch, most, generator)
        lasting = uniform(*self.duration, (batch, most), generator)
        around = uniform(*self.silence, (batch, 2), generator)
        speaker = uniform(-self.spread, self.spread, (batch,), generator)

        present = torch.arange(most) < n_phones[:, None]
        ends = torch.cat([around[:, :1], lasting.where(present, 0)], 1).cumsum(1)
        stop = ends[:, -1] + around[:, 1]
        energy = self._energies(ends, labels, speaker, stop)
        energy = energy + self.noise * math.sqrt(0.01 / GRAIN) * normal(tuple(energy.shape), generator)

        utterance = torch.stack([torch.zeros_like(stop), stop / self.rate])
        lengths = samples(utterance[1], dt)
        steps = int(lengths.max())
        onset, offset = (torch.where(present, edge / self.rate, torch.inf) for edge in (ends[:, :-1], ends[:, 1:]))
        return Trials(
            us=staircase(energy, GRAIN / self.rate, utterance, dt, steps),
            targets=labels.where(present, -1),
            mask=(torch.arange(steps)[:, None] >= self.unread(dt)) & (torch.arange(steps)[:, None] < lengths),
            lengths=lengths,
            periods={"utterance": utterance, "phone": torch.stack([onset, offset])},
            condition={"n_phones": n_phones, "speaker": speaker},
            dt=dt,
        ).to(dtype=dtype, device=device)

    def unread(self, dt: float) -> int:
        """Samples before the one at whose end a first phone can have ended."""
        return math.ceil((self.silence[0] + self.duration[0]) / self.rate / dt - SLACK) - 1

    def loss(self, ys: Float[Tensor, "time batch 16"], trials: Trials) -> Float[Tensor, ""]:
        """CTC loss per label (Graves et al. 2006): ys are unnormalised, softmax is taken here."""
        ys, n_samples = self._read(Outputs(ys), trials)
        n_labels = (trials.targets >= 0).sum(1)
        return F.ctc_loss(ys.log_softmax(-1), trials.targets.clamp(min=0), n_samples, n_labels)

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """label_error: edits over labels, in the whole batch; sequence_accuracy: utterances without a fault.

        By best-path decoding, for outputs trained sample by sample too: repetitions merged, label 0 dropped.
        """
        return label_scores(best_path(*self._read(traj, trials)), trials.targets)

    def chance(self, trials: Trials) -> dict[str, float]:
        """Scores of a constant string fitted to these trials' labels."""
        return label_scores(constant_string(trials.targets, range(1, self.n_out)), trials.targets)

    def _read(self, traj: HasOutputs, trials: Trials) -> tuple[Tensor, Int[Tensor, "batch"]]:
        """The outputs from the first that is scored on, and how many of them belong to each utterance."""
        return outputs(traj, trials, self.n_out)[self.unread(trials.dt) :], scored(trials).sum(0)

    def _energies(
        self,
        ends: Float64[Tensor, "batch edge"],
        labels: Int[Tensor, "batch label"],
        speaker: Float64[Tensor, " batch"],
        stop: Float64[Tensor, " batch"],
    ) -> Float64[Tensor, "grain batch band"]:
        """Energies without noise, on the fine grid."""
        n = int(torch.ceil(stop.max() / GRAIN))
        now = (GRAIN * (torch.arange(n, dtype=torch.float64) + 0.5)).repeat(len(stop), 1)
        middles = (ends[:, :-1] + ends[:, 1:]) / 2
        edges = torch.stack([ends[:, :-1], middles], -1).flatten(1)
        half = torch.searchsorted(torch.cat([edges, ends[:, -1:]], 1), now, right=True)
        closed = torch.zeros_like(labels[:, :1])
        spoken = torch.cat([closed, (2 * labels - 1).repeat_interleave(2, 1), closed], 1)
        spoken[:, 2:-1:2] += 1  # second halves
        tracks = _targets()[spoken.gather(1, half)]
        octaves = _smooth(tracks[..., :3], self.coarticulation) + speaker[:, None, None]
        amplitudes = _smooth(tracks[..., 3:], self.coarticulation / 2)
        bands = torch.linspace(math.log2(LOWEST), math.log2(HIGHEST), BANDS, dtype=torch.float64)
        width = bands[1] - bands[0]
        bumps = torch.exp(-(((bands - octaves[..., None]) / width) ** 2) / 2)
        return (amplitudes[..., None] * bumps).sum(2).transpose(0, 1)


@dataclass(frozen=True)
class AlignedPhonemes(Phonemes):
    """The same utterances; y = scores of silence and the 15 phones, trained sample by sample on where each phone lies.

    Framewise classification (Graves & Schmidhuber 2005, Neural Networks 18:602-610). Label 0 is silence, and every
    sample is scored.
    """

    def unread(self, dt: float) -> int:
        """None: silence is a label, too."""
        del dt
        return 0

    def loss(self, ys: Float[Tensor, "time batch 16"], trials: Trials) -> Float[Tensor, ""]:
        """Cross-entropy per sample: ys are unnormalised, softmax is taken here."""
        ys = outputs(Outputs(ys), trials, self.n_out)
        return F.cross_entropy(ys.flatten(0, 1), aligned_labels(trials).flatten(), ignore_index=-1)


def aligned_labels(trials: Trials) -> Int[Tensor, "time batch"]:
    """The label in whose period each sample ends: 0 in silence, -1 beyond the utterance's end."""
    steps = torch.arange(len(trials.us), device=trials.us.device)
    within = inside(trials.periods["phone"], trials.dt, len(trials.us))
    labels = torch.where(within, trials.targets, 0).sum(-1)
    return labels if trials.lengths is None else labels.where(steps[:, None] < trials.lengths, -1)


def _chain(batch: int, n: int, generator: torch.Generator) -> Int[Tensor, "batch label"]:
    """Labels of a Markov chain: no phone twice in a row, the next one of the other kind with TO_OTHER_KIND."""
    n_labels = len(PHONES)
    vowel = torch.arange(n_labels) < N_VOWELS
    other = vowel[:, None] != vowel
    same = ~other & ~torch.eye(n_labels, dtype=torch.bool)
    weights = [allowed / allowed.sum(1, keepdim=True) for allowed in (other.double(), same.double())]
    cumulative = torch.lerp(weights[1], weights[0], TO_OTHER_KIND).cumsum(1)
    drawn = uniform(0.0, 1.0, (n, batch), generator)
    labels = [(drawn[0] * n_labels).long()]
    for u in drawn[1:]:
        rows = cumulative[labels[-1]]
        labels.append(torch.searchsorted(rows, u[:, None] * rows[:, -1:], right=True)[:, 0])
    return 1 + torch.stack(labels, 1)


def _targets() -> Float64[Tensor, "half 6"]:
    """Formants in octaves re 1 kHz and amplitudes: row 0 silence, then two rows for every phone."""
    halves = [_CLOSURE, *(half for pair in _HALVES.values() for half in pair)]
    rows = [[*map(math.log2, formants), *amplitudes] for formants, amplitudes in halves]
    return torch.tensor(rows, dtype=torch.float64)


def _smooth(tracks: Float64[Tensor, "batch grain track"], width: float) -> Float64[Tensor, "batch grain track"]:
    """Tracks seen through a Gaussian of this standard deviation in seconds."""
    reach = math.ceil(3 * width / GRAIN)
    if reach == 0:
        return tracks
    kernel = torch.exp(-((GRAIN * torch.arange(-reach, reach + 1, dtype=torch.float64) / width) ** 2) / 2)
    rows = F.pad(tracks.mT.flatten(0, 1)[:, None], (reach, reach), mode="replicate")
    smoothed = F.conv1d(rows, (kernel / kernel.sum())[None, None])
    return smoothed[:, 0].unflatten(0, (len(tracks), -1)).mT
