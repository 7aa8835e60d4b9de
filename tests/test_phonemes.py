"""Made-up utterances: the same at any dt, onsets that do not tell, honest scores."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrnn.tasks import PHONES, AlignedPhonemes, Phonemes, Task, aligned_labels
from ctrnn.tasks.labels import constant_string, label_scores
from ctrnn.tasks.phonemes import BANDS, GRAIN, HIGHEST, LOWEST, N_VOWELS, TO_OTHER_KIND

QUIET = Phonemes(noise=0.0)
ALONE = Phonemes(phones=(1, 1), duration=(0.08, 0.08), silence=(0.05, 0.05), noise=0.0, spread=0.0)
both_tasks = pytest.mark.parametrize("task", [Phonemes(), AlignedPhonemes()], ids=lambda task: type(task).__name__)


def draw(task, batch=16, dt=0.02, seed=0, **kwargs):
    return task.trials(batch, dt, torch.Generator().manual_seed(seed), **kwargs)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def spoken(task, batch=400):
    """Energies (grain, band) of each phone that is said alone, by its name, on the corpus' own grid."""
    trials = draw(task, batch, GRAIN)
    found = {PHONES[int(label) - 1]: trials.us[:, row] for row, label in enumerate(trials.targets[:, 0])}
    assert found.keys() == set(PHONES)
    return found


def aloud(trials):
    """Scores of a network that names each sample's label."""
    return SimpleNamespace(ys=50.0 * F.one_hot(aligned_labels(trials).clamp(min=0), 16))


@both_tasks
def test_it_is_a_task_and_a_value(task):
    assert isinstance(task, Task)
    assert type(task)() == task
    trials = draw(task)
    time, batch, n_in = trials.us.shape
    assert (batch, n_in, task.n_out) == (16, BANDS, 1 + len(PHONES))
    assert trials.us.dtype == torch.get_default_dtype()
    assert trials.mask.shape == (time, batch)
    assert trials.lengths.max() == time
    assert not trials.us[torch.arange(time)[:, None] >= trials.lengths].any()
    assert trials.periods["phone"].shape == (2, 16, 8)


def test_the_same_generator_says_the_same_and_the_global_one_is_left_alone():
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(3)
    first, second = Phonemes().trials(8, 0.02, generator), Phonemes().trials(8, 0.02, generator)
    again = draw(Phonemes(), 8, seed=3)
    assert torch.equal(first.us, again.us)
    assert torch.equal(first.targets, again.targets)
    assert first.us.shape != second.us.shape or not torch.equal(first.us, second.us)
    assert torch.equal(torch.get_rng_state(), before)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), dt=st.floats(0.004, 0.05))
def test_the_same_utterances_exist_at_any_dt(seed, dt):
    sources = [torch.Generator().manual_seed(seed) for _ in range(2)]
    coarse, fine = (Phonemes().trials(3, step, g) for step, g in zip((dt, dt / 2), sources, strict=True))
    assert torch.equal(sources[0].get_state(), sources[1].get_state())
    assert torch.equal(coarse.targets, fine.targets)
    for name in coarse.periods:
        assert torch.equal(coarse.periods[name], fine.periods[name])
    odd = 2 * len(coarse.us) - len(fine.us)
    close(torch.cat([fine.us, torch.zeros_like(fine.us[:odd])]).unflatten(0, (-1, 2)).mean(1), coarse.us)


def test_twice_the_rate_is_the_same_utterance_in_half_the_time():
    slow, fast = draw(Phonemes(), dt=0.02), draw(Phonemes(rate=2.0), dt=0.01)
    assert torch.equal(slow.targets, fast.targets)
    assert torch.equal(slow.mask, fast.mask)
    close(slow.us, fast.us)
    close(slow.periods["utterance"], 2 * fast.periods["utterance"])


def test_phones_and_silences_last_as_long_as_they_may():
    task = Phonemes(phones=(2, 5), duration=(0.06, 0.09), silence=(0.01, 0.04))
    trials = draw(task, 200)
    onset, offset = trials.periods["phone"]
    here = trials.targets >= 0
    assert here.sum(1).tolist() == trials.condition["n_phones"].tolist()
    assert set(trials.condition["n_phones"].tolist()) == {2, 3, 4, 5}
    lasting = (offset - onset)[here]
    assert lasting.min() + 1e-12 >= 0.06
    assert lasting.max() <= 0.09 + 1e-12
    close(onset[:, 1:][here[:, 1:]], offset[:, :-1][here[:, 1:]])
    after = trials.periods["utterance"][1] - torch.where(here, offset, 0).amax(1)
    for silence in (onset[:, 0], after):
        assert silence.min() + 1e-12 >= 0.01
        assert silence.max() <= 0.04 + 1e-12
    assert bool(torch.isinf(onset[~here]).all())


def test_phones_follow_one_another_as_the_chain_says():
    targets = draw(Phonemes(phones=(8, 8)), 1000, 0.05).targets
    assert set(targets.flatten().tolist()) == set(range(1, 16))
    assert bool((targets[:, 1:] != targets[:, :-1]).all())
    vowel = targets <= N_VOWELS
    changed = (vowel[:, 1:] != vowel[:, :-1]).double()
    assert changed.mean() == pytest.approx(TO_OTHER_KIND, abs=5 * math.sqrt(0.2 * 0.8 / changed.numel()))


@pytest.mark.parametrize("alike", [("p", "t", "k", "tS"), ("m", "n"), ("a", "ai", "au")])
def test_some_phones_begin_alike_and_end_differently(alike):
    said = spoken(dataclasses.replace(ALONE, coarticulation=0.0))
    half = round(0.09 / GRAIN)
    for one, other in itertools.combinations(alike, 2):
        assert torch.equal(said[one][:half], said[other][:half])
        assert (said[one][half:] - said[other][half:]).abs().max() > 0.05
    for other in set(PHONES) - set(alike):
        assert not torch.equal(said[alike[0]][:half], said[other][:half]), other


def test_what_a_phone_was_shows_in_the_next_one():
    task = Phonemes(phones=(2, 2), duration=(0.08, 0.08), silence=(0.05, 0.05), noise=0.0, spread=0.0)
    for width, differ in ((0.015, True), (0.0, False)):
        trials = draw(dataclasses.replace(task, coarticulation=width), 2000, GRAIN)
        rows = {PHONES[int(a) - 1]: row for row, (a, b) in enumerate(trials.targets) if PHONES[int(b) - 1] == "a"}
        glide = slice(round(0.13 / GRAIN), round(0.15 / GRAIN))
        apart = (trials.us[glide, rows["p"]] - trials.us[glide, rows["t"]]).abs().max()
        assert bool(apart > 0.2) is differ


def test_a_speaker_shifts_all_formants_by_the_stated_octaves():
    trials = draw(dataclasses.replace(ALONE, spread=0.3), 400, 0.02)
    bands = torch.linspace(math.log2(LOWEST), math.log2(HIGHEST), BANDS)
    rows = trials.targets[:, 0] == 1 + PHONES.index("e")
    energy = trials.us[4, rows]
    centre = (energy * bands).sum(1) / energy.sum(1)
    speaker = trials.condition["speaker"][rows]
    assert speaker.max() - speaker.min() > 0.3
    torch.testing.assert_close(centre - speaker, (centre - speaker).mean().expand(len(centre)), rtol=0, atol=0.01)


@pytest.mark.parametrize("dt", [0.0025, 0.01, 0.02])
def test_noise_has_the_stated_deviation_over_ten_milliseconds(dt):
    clean, noisy = draw(QUIET, 300, dt), draw(Phonemes(noise=0.3), 300, dt)
    whole = torch.arange(len(clean.us))[:, None] < clean.lengths - 1
    added = (noisy.us - clean.us)[whole]
    assert added.std() == pytest.approx(0.3 * math.sqrt(0.01 / dt), rel=5 / math.sqrt(2 * added.numel()))
    assert abs(added.mean()) < 5 * added.std() / math.sqrt(added.numel())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), dt=st.floats(0.004, 0.05))
def test_a_sample_has_the_label_of_the_phone_in_which_it_ends(seed, dt):
    trials = draw(AlignedPhonemes(), 3, dt, seed)
    labels = aligned_labels(trials)
    for row in range(3):
        for k in range(len(labels)):
            t = (k + 1) * dt
            inside = [
                int(label)
                for label, start, stop in zip(trials.targets[row], *trials.periods["phone"][:, row], strict=True)
                if start + 1e-9 < t <= stop + 1e-9
            ]
            assert labels[k, row] == (-1 if k >= trials.lengths[row] else inside[0] if inside else 0)
    assert torch.equal(labels >= 0, trials.mask)


@pytest.mark.parametrize("dt", [0.01, 0.02, 0.05])
def test_ctc_is_not_scored_before_a_first_phone_can_have_ended(dt):
    task = Phonemes()
    trials = draw(task, dt=dt)
    ends = dt * (1 + torch.arange(len(trials.us)))
    assert torch.equal(trials.mask.any(1), ends > 0.08 - 1e-9)
    ys = torch.zeros(*trials.us.shape[:2], 16, requires_grad=True)
    (grad,) = torch.autograd.grad(task.loss(ys, trials), ys)
    assert grad[~trials.mask].abs().max() == 0
    assert grad[trials.mask].abs().max() > 0
    assert bool((trials.mask.sum(0) >= (trials.targets >= 0).sum(1)).all())


def test_the_longest_dt_still_leaves_ctc_a_path():
    task = Phonemes(duration=(0.05, 0.05), silence=(0.0, 0.0))
    trials = draw(task, 200, 0.05)
    assert bool((trials.mask.sum(0) == (trials.targets >= 0).sum(1)).all())
    assert task.loss(torch.zeros(*trials.us.shape[:2], 16), trials).isfinite()
    with pytest.raises(ValueError, match=r"the shortest phone \(0.05\)"):
        task.trials(2, 0.051)
    with pytest.raises(ValueError, match="the shortest phone"):
        dataclasses.replace(task, rate=2.0).trials(2, 0.05)


def test_the_ctc_loss_is_the_mean_over_labels_of_the_sum_over_all_paths(generator):
    """Brute force over 16^4 paths of the four scored samples."""
    task, labels = Phonemes(), (5, 9)
    unread = task.unread(0.02)
    trials = draw(task, 1)._replace(
        us=torch.zeros(unread + 4, 1, BANDS),
        targets=torch.tensor([labels]),
        lengths=torch.tensor([unread + 4]),
        mask=torch.arange(unread + 4)[:, None] >= unread,
    )
    ys = torch.randn(unread + 4, 1, 16, generator=generator)
    log_p = ys[unread:, 0].log_softmax(-1)
    total = 0.0
    for path in itertools.product((0, *labels), repeat=4):
        if tuple(label for label, _ in itertools.groupby(path) if label) == labels:
            total += math.exp(sum(float(log_p[t, label]) for t, label in enumerate(path)))
    assert float(task.loss(ys, trials)) == pytest.approx(-math.log(total) / 2, rel=1e-10)


@both_tasks
def test_who_names_every_sample_makes_no_error_and_who_says_nothing_misses_all(task):
    trials = draw(task, 40, 0.01)
    assert task.evaluate(aloud(trials), trials) == {"label_error": 0.0, "sequence_accuracy": 1.0}
    silent = SimpleNamespace(ys=torch.zeros(*trials.us.shape[:2], 16))
    assert task.evaluate(silent, trials) == {"label_error": 1.0, "sequence_accuracy": 0.0}


def test_the_framewise_loss_is_the_cross_entropy_of_the_samples_of_all_utterances(generator):
    task = AlignedPhonemes()
    trials = draw(task, 3)
    ys = torch.randn(*trials.us.shape[:2], 16, generator=generator)
    labels, terms = aligned_labels(trials), []
    for row, length in enumerate(trials.lengths.tolist()):
        terms += [-float(ys[k, row].log_softmax(-1)[labels[k, row]]) for k in range(length)]
    assert float(task.loss(ys, trials)) == pytest.approx(sum(terms) / len(terms), rel=1e-12)
    assert float(task.loss(aloud(trials).ys.double(), trials)) < 1e-12


def test_chance_is_what_the_best_constant_string_scores():
    trials = draw(Phonemes(), 200)
    chance = Phonemes().chance(trials)
    assert 0.5 < chance["label_error"] < 0.95
    for guess in ([], [1], [3, 9], [1, 2, 3]):
        string = torch.tensor(guess, dtype=torch.long).expand(200, -1)
        assert label_scores(string, trials.targets)["label_error"] >= chance["label_error"]


def test_a_constant_string_finds_targets_that_are_all_the_same():
    targets = torch.tensor([[2, 1, 2, -1]]).expand(5, -1)
    assert constant_string(targets, range(1, 4)).tolist() == [[2, 1, 2]] * 5
    assert label_scores(constant_string(targets, range(1, 4)), targets) == {
        "label_error": 0.0,
        "sequence_accuracy": 1.0,
    }


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"phones": (0, 3)}, "phones"),
        ({"phones": (4, 3)}, "phones"),
        ({"duration": (0.001, 0.1)}, "at least 0.005"),
        ({"duration": (0.1, 0.05)}, "duration"),
        ({"silence": (-0.1, 0.1)}, "silence"),
        ({"coarticulation": -1.0}, "coarticulation"),
        ({"spread": math.inf}, "spread"),
        ({"noise": -0.1}, "noise"),
        ({"rate": 0.0}, "rate"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(wrong, says):
    with pytest.raises(ValueError, match=says):
        Phonemes(**wrong)


def test_outputs_of_other_trials_are_refused():
    trials = draw(Phonemes(), 3)
    with pytest.raises(ValueError, match="ys has shape"):
        Phonemes().evaluate(SimpleNamespace(ys=torch.zeros(len(trials.us) + 1, 3, 16)), trials)
