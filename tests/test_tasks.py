"""Tasks: the same trials at any dt, right answers, honest scores, clear errors."""

import dataclasses
import functools
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrnn.decoding import best_path
from ctrnn.tasks import (
    ContextIntegration,
    DelayedMatch,
    DigitStrings,
    FlipFlop,
    SineGeneration,
    Task,
    edit_distance,
)
from ctrnn.tasks.digits import images, split_indices

SHORT_DIGITS = DigitStrings(digits=(1, 3), column_time=0.5)
TASKS = [
    FlipFlop(duration=12.3, interval=2.0, pulse=0.7),
    SineGeneration(duration=9.1),
    DelayedMatch(fixation=1.1, delay=(0.4, 3.0), n_stimuli=3),
    ContextIntegration(stimulus=3.07, delay=(0.0, 1.0), noise_time=0.05),
    ContextIntegration(stimulus=3.07, noise_time=0.05, response=1.3, grace=0.2, go_cue=False),
    SHORT_DIGITS,
]
EVENTS_KNOW_NO_DT = ("periods", "condition")
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
seeds = st.integers(0, 2**31)


def draw(task, batch=16, dt=0.1, seed=0, **kwargs):
    return task.trials(batch, dt, torch.Generator().manual_seed(seed), **kwargs)


def answer(trials):
    """A network that outputs the targets."""
    return SimpleNamespace(ys=trials.targets)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def trials_have_timed_targets(task):
    return not isinstance(task, DigitStrings)


def assert_same_trials(a, b):
    for mapping in EVENTS_KNOW_NO_DT:
        ours, theirs = getattr(a, mapping), getattr(b, mapping)
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), name


@every_task
def test_every_task_fulfils_the_protocol_with_its_defaults_and_is_a_value(task):
    assert isinstance(task, Task)
    assert type(task)() == type(task)()
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.n_in = 1


@every_task
def test_trials_have_the_shapes_that_the_task_states(task):
    trials = draw(task, batch=5)
    time, batch, n_in = trials.us.shape
    assert (batch, n_in, trials.dt) == (5, task.n_in, 0.1)
    assert trials.mask.shape == (time, batch)
    assert trials.mask.any(0).all()
    assert all(period.shape[:2] == (2, 5) for period in trials.periods.values())
    assert all(value.shape[0] == 5 for value in trials.condition.values())
    if trials.lengths is not None:
        assert trials.lengths.max() == time
        assert not (trials.mask & (torch.arange(time)[:, None] >= trials.lengths)).any()


@every_task
def test_the_same_generator_gives_the_same_trials_and_the_next_draw_gives_others(task):
    generator = torch.Generator().manual_seed(3)
    first, second = task.trials(16, 0.1, generator), task.trials(16, 0.1, generator)
    again = draw(task, seed=3)
    assert_same_trials(first, again)
    assert torch.equal(first.us, again.us)
    assert torch.equal(first.targets, again.targets)
    assert first.us.shape != second.us.shape or not torch.equal(first.us, second.us)


@every_task
@pytest.mark.parametrize("seeded", [True, False])
def test_trials_never_touch_the_global_generator(task, seeded):
    before = torch.get_rng_state()
    task.trials(4, 0.1, torch.Generator().manual_seed(0) if seeded else None)
    assert torch.equal(torch.get_rng_state(), before)


@every_task
def test_without_a_generator_every_call_draws_other_trials(task):
    a, b = task.trials(16, 0.1), task.trials(16, 0.1)
    assert a.us.shape != b.us.shape or not torch.equal(a.us, b.us)


@every_task
@settings(max_examples=8, deadline=None)
@given(seed=seeds, dt=st.floats(0.02, 0.35))
def test_the_same_trials_exist_at_any_dt(task, seed, dt):
    """Also: what one seed leaves in the generator does not depend on dt."""
    coarse_source, fine_source = (torch.Generator().manual_seed(seed) for _ in range(2))
    coarse, fine = task.trials(4, dt, coarse_source), task.trials(4, dt / 2, fine_source)
    assert_same_trials(coarse, fine)
    assert torch.equal(coarse_source.get_state(), fine_source.get_state())

    odd = 2 * len(coarse.us) - len(fine.us)
    assert odd in (0, 1)
    padded = torch.cat([fine.us, torch.zeros_like(fine.us[:odd])])
    # A constant input has no end at the trial's end: its last sample is not part of the claim.
    last = len(coarse.us) - (odd if isinstance(task, SineGeneration) else 0)
    close(padded.unflatten(0, (-1, 2)).mean(1)[:last], coarse.us[:last])
    if trials_have_timed_targets(task):
        shared = coarse.mask[: len(fine.us) // 2]
        assert torch.equal(fine.mask[1::2], shared)
        close(fine.targets[1::2][shared], coarse.targets[: len(shared)][shared])
    else:
        assert torch.equal(fine.targets, coarse.targets)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, dt=st.floats(0.01, 0.7))
def test_a_pulse_keeps_its_area_at_any_dt(seed, dt):
    task = FlipFlop(duration=10.0, pulse=0.7, interval=1.0)
    trials = draw(task, batch=3, dt=dt, seed=seed)
    came = trials.periods["pulse"][0].isfinite()
    close(trials.us.sum(0) * dt, (trials.condition["sign"] * came).sum(-1) * task.pulse)


@every_task
def test_float32_and_float64_are_the_same_trials(task):
    torch.set_default_dtype(torch.float32)
    single, double = draw(task), draw(task, dtype=torch.float64)
    assert single.us.dtype == torch.float32
    assert double.us.dtype == torch.float64
    assert torch.equal(double.us.float(), single.us)
    assert torch.equal(double.mask, single.mask)
    assert all(torch.equal(single.periods[name], double.periods[name]) for name in double.periods)


# ---- answers, recomputed the slow way


@settings(max_examples=20, deadline=None)
@given(seed=seeds, dt=st.floats(0.05, 0.5), grace=st.floats(0.0, 1.5))
def test_a_flip_flop_holds_the_sign_of_the_last_pulse(seed, dt, grace):
    task = FlipFlop(bits=2, duration=8.0, pulse=0.5, interval=1.0, grace=grace)
    trials = draw(task, batch=2, dt=dt, seed=seed)
    onsets, signs = trials.periods["pulse"][0].tolist(), trials.condition["sign"].tolist()
    for k, b in itertools.product(range(len(trials.us)), range(2)):
        t, scored = (k + 1) * dt, (k + 1) * dt <= task.duration + 1e-9
        for bit in range(2):
            value = 0.0
            for onset, sign in zip(onsets[b][bit], signs[b][bit], strict=True):
                if onset < t:
                    value, scored = sign, scored and t > onset + grace
            assert trials.targets[k, b, bit] == value
        assert trials.mask[k, b] == scored


def test_pulses_on_one_channel_never_overlap_and_come_at_the_stated_rate(generator):
    task = FlipFlop(duration=100.0, pulse=0.5, interval=1.5)
    trials = task.trials(100, 0.5, generator)
    start, stop = trials.periods["pulse"]
    gaps = (start[..., 1:] - stop[..., :-1])[start[..., 1:].isfinite()]
    assert gaps.min() >= 0
    assert trials.us.abs().max() <= 1 + 1e-12
    assert gaps.mean() == pytest.approx(task.interval, abs=5 * task.interval / math.sqrt(len(gaps)))


def test_sine_targets_have_the_frequency_that_the_input_selects():
    task = SineGeneration(n_frequencies=3, frequency=(0.1, 0.3), level=(0.0, 1.0), duration=10.0)
    trials = draw(task, batch=8, dt=0.25)
    for b in range(8):
        level = trials.us[0, b, 0].item()
        assert (trials.us[:, b, 0] == level).all()
        expected = [math.sin(2 * math.pi * (0.1 + 0.2 * level) * 0.25 * (k + 1)) for k in range(40)]
        close(trials.targets[:, b, 0], torch.tensor(expected))


def test_delayed_match_answers_whether_the_test_was_the_sample():
    task = DelayedMatch(n_stimuli=3, fixation=1.0, sample=1.0, delay=(0.5, 2.5), test=1.0, response=2.0, grace=0.5)
    dt = 0.05
    trials = draw(task, batch=40, dt=dt)
    assert set(trials.condition["match"].tolist()) == {True, False}
    for b in range(40):
        seen = {}
        for name in ("sample", "delay", "test"):
            start, stop = (trials.periods[name][i, b].item() for i in range(2))
            rows = range(math.ceil(start / dt + 1e-6), math.floor(stop / dt - 1e-6))
            seen[name] = {tuple(trials.us[k, b, 1:].round(decimals=9).tolist()) for k in rows}
        assert seen["delay"] <= {(0.0, 0.0, 0.0)}
        assert len(seen["sample"]) == len(seen["test"]) == 1
        go, end = trials.periods["response"][:, b].tolist()
        for k in range(len(trials.us)):
            t = dt * (k + 1)
            if t <= go - 1e-6:
                assert trials.targets[k, b].tolist() == [1, 0, 0]
            elif go + 1e-6 < t <= end - 1e-6:
                same = seen["sample"] == seen["test"]
                assert trials.targets[k, b].tolist() == [0, float(same), float(not same)]
        assert 0.5 <= go - 3.0 <= 2.5


@pytest.mark.parametrize("p_match", [0.0, 1.0])
def test_p_match_is_the_probability_of_a_match(p_match):
    assert (draw(DelayedMatch(p_match=p_match)).condition["match"] == bool(p_match)).all()


def test_context_selects_whose_sign_is_the_answer():
    trials = draw(ContextIntegration(sigma=0.0), batch=64)
    condition, stimulus = trials.condition, trials.periods["stimulus"]
    k = int(stimulus[0, 0] / 0.1) + 5
    for b in range(64):
        attended = ("motion", "colour")[condition["context"][b]]
        assert condition["answer"][b] == condition[attended][b].sign()
        assert trials.us[k, b, 0] == pytest.approx(condition["motion"][b].item())
        assert trials.us[k, b, 1] == pytest.approx(condition["colour"][b].item())
        assert trials.us[k, b, 2:].tolist() == [float(attended == "motion"), float(attended == "colour"), 1.0]
        assert trials.targets[-1, b, 0] == condition["answer"][b]
    assert (condition["motion"].sign() != condition["colour"].sign()).any()


def test_without_a_go_cue_the_trial_ends_with_the_stimulus_whose_last_part_is_scored():
    trials = draw(ContextIntegration(fixation=2.0, stimulus=5.0, response=1.5, grace=0.5, go_cue=False))
    begins_and_ends = {name: period[:, 0].tolist() for name, period in trials.periods.items()}
    assert begins_and_ends == {"fixation": [0.0, 2.0], "stimulus": [2.0, 7.0], "response": [5.5, 7.0]}
    assert trials.us.shape == (70, 16, 4)
    assert trials.lengths is None
    assert trials.mask[:, 0].nonzero()[:, 0].tolist() == [*range(5, 20), *range(60, 70)]
    assert (trials.targets[-1, :, 0] == trials.condition["answer"]).all()
    assert (trials.us[-1, :, :2] != 0).all()


def test_the_go_cue_changes_nothing_else_of_the_same_trials():
    with_cue, without = (draw(ContextIntegration(response=2.0, go_cue=cue)) for cue in (True, False))
    assert torch.equal(with_cue.us[: len(without.us), :, :4], without.us)
    cue, go = with_cue.us[..., 4], int(with_cue.periods["response"][0, 0] / 0.1 + 0.5)
    assert (cue[:go] == 1).all()
    assert (cue[go:] == 0).all()
    for name, value in without.condition.items():
        assert torch.equal(with_cue.condition[name], value), name


@pytest.mark.parametrize("dt", [0.1, 0.2, 0.5])
def test_integrated_noise_does_not_depend_on_dt(dt):
    task = ContextIntegration(coherences=(0.0,), sigma=0.7, noise_time=0.1, stimulus=10.0, fixation=2.0)
    streams = draw(task, batch=2000, dt=dt).us[..., :2]
    finest = draw(task, batch=2000, dt=0.1).us[..., :2]
    close(streams.sum(0) * dt, finest.sum(0) * 0.1)
    during = streams[int(2 / dt + 0.5) : int(12 / dt + 0.5)]
    n = during.numel()
    assert during.std() == pytest.approx(0.7 / math.sqrt(dt), rel=5 / math.sqrt(2 * n))
    assert (streams.sum(0) * dt).std() == pytest.approx(0.7 * math.sqrt(10.0), rel=5 / math.sqrt(2 * 4000))


# ---- digit strings


def test_no_image_is_in_two_splits_and_none_is_lost():
    split = split_indices()
    assert {name: len(rows) for name, rows in split.items()} == {"train": 1077, "validation": 360, "test": 360}
    assert sorted(itertools.chain(*split.values())) == list(range(1797))
    for name in split:
        counts = images(name)[1].bincount(minlength=10) / len(split[name])
        assert (counts - 0.1).abs().max() < 0.01


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_digit_of_a_string_is_an_image_of_its_split_with_its_label(split):
    task = DigitStrings(split=split)
    trials = draw(task, batch=12, dt=task.column_time)
    ink, digit = images(split)
    assert ink.min() == 0
    assert ink.max() == 1
    for b in range(12):
        end = 0
        for i, label in enumerate(trials.targets[b, : trials.condition["n_digits"][b]].tolist()):
            start = int(trials.periods["digit"][0, b, i])
            assert task.spacing[0] <= start - end <= task.spacing[1]
            assert not trials.us[end:start, b].any()
            end = start + 8
            which = (ink - trials.us[start:end, b]).abs().amax((1, 2)) < 1e-9
            assert digit[which].tolist() == [label - 1]
        assert trials.lengths[b] == end + task.tail
        assert not trials.us[end:, b].any()
        assert (trials.targets[b, trials.condition["n_digits"][b] :] == -1).all()


def test_twice_the_rate_is_the_same_string_in_half_the_time():
    task = DigitStrings()
    slow, fast = draw(task, dt=0.5), draw(dataclasses.replace(task, rate=2.0), dt=0.25)
    assert torch.equal(slow.targets, fast.targets)
    close(slow.us, fast.us)
    close(slow.periods["string"], 2 * fast.periods["string"])


def test_the_longest_dt_still_leaves_ctc_a_path():
    task = DigitStrings(digits=(6, 6), spacing=(0, 0), tail=0)
    trials = draw(task, batch=200, dt=4.0)
    repeats = (trials.targets.diff(dim=1) == 0).sum(1)
    assert (trials.mask.sum(0) >= 6 + repeats).all()
    assert repeats.max() > 0
    loss = task.loss(torch.zeros(*trials.us.shape[:2], 11), trials)
    assert loss.isfinite()


@pytest.mark.parametrize("dt", [0.25, 1.0, 3.0])
def test_digits_are_not_read_before_a_first_one_can_have_ended(dt):
    task = DigitStrings(spacing=(2, 3))
    trials = draw(task, dt=dt)
    ends = dt * (1 + torch.arange(len(trials.us)))
    assert torch.equal(trials.mask.any(1), ends > 10.0 - 1e-9)
    ys = torch.zeros(*trials.us.shape[:2], 11, requires_grad=True)
    (grad,) = torch.autograd.grad(task.loss(ys, trials), ys)
    assert grad[~trials.mask].abs().max() == 0
    assert grad[trials.mask].abs().max() > 0


def collapse(path):
    return tuple(label for label, _ in itertools.groupby(path) if label != 0)


def test_the_loss_of_digit_strings_sums_all_paths_that_collapse_to_the_labels(generator):
    """Brute force over 11^4 paths of four samples, two of them past the end of the second string."""
    task = DigitStrings()
    targets = torch.tensor([[3, 3], [7, -1]])
    lengths = torch.tensor([4, 2])
    trials = draw(task, batch=2)._replace(
        us=torch.zeros(4, 2, 8), targets=targets, lengths=lengths, mask=torch.arange(4)[:, None] < lengths
    )
    ys = torch.randn(4, 2, 11, generator=generator, requires_grad=True)
    log_p = ys.log_softmax(-1).tolist()
    per_label = []
    for b, (labels, n) in enumerate([((3, 3), 4), ((7,), 2)]):
        relevant = {0, *labels}
        likelihood = sum(
            math.exp(sum(log_p[k][b][label] for k, label in enumerate(path)))
            for path in itertools.product(relevant, repeat=n)
            if collapse(path) == labels
        )
        per_label.append(-math.log(likelihood) / len(labels))
    loss = task.loss(ys, trials)
    assert loss.item() == pytest.approx(sum(per_label) / 2, rel=1e-9)
    loss.backward()
    assert not ys.grad[2:, 1].any()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=4), st.integers(0, 6))
def test_best_path_merges_repetitions_and_then_drops_blanks(paths, n):
    scores = torch.nn.functional.one_hot(torch.tensor(paths).T, 4).double()
    lengths = torch.full((len(paths),), n)
    decoded = best_path(scores, lengths)
    for row, path in zip(decoded.tolist(), paths, strict=True):
        expected = collapse(path[:n])
        assert tuple(row) == (*expected, *[-1] * (len(row) - len(expected)))


@functools.cache
def distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


def padded(strings, width):
    return torch.tensor([[*s, *[-1] * (width - len(s))] for s in strings], dtype=torch.long)


strings = st.lists(st.integers(0, 2), max_size=6).map(tuple)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(strings, strings), min_size=1, max_size=5))
def test_edit_distance_equals_the_plain_recursion(pairs):
    a, b = zip(*pairs, strict=True)
    measured = edit_distance(padded(a, 6), padded(b, 7))
    assert measured.tolist() == [distance(*pair) for pair in pairs]


# ---- scores


def read_aloud(trials):
    """Outputs that name each digit as it ends and are blank elsewhere."""
    ys = torch.nn.functional.one_hot(torch.zeros(trials.us.shape[:2], dtype=torch.long), 11).double()
    end = trials.periods["digit"][1]
    for b, i in (trials.targets >= 0).nonzero().tolist():
        ys[math.ceil(end[b, i].item() / trials.dt - 1e-6) - 1, b, trials.targets[b, i]] = 2.0
    return SimpleNamespace(ys=ys)


PERFECT = {
    FlipFlop: {"mse": 0.0, "accuracy": 1.0},
    SineGeneration: {"mse": 0.0, "r2": 1.0},
    DelayedMatch: {"accuracy": 1.0, "broken_fixation": 0.0},
    ContextIntegration: {"accuracy": 1.0, "mse": 0.0},
    DigitStrings: {"label_error": 0.0, "sequence_accuracy": 1.0},
}


@every_task
@pytest.mark.parametrize("dt", [0.03, 0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_oracle_scores_perfectly(task, dt, dtype):
    trials = draw(task, dt=dt, dtype=dtype)
    oracle = read_aloud(trials) if isinstance(task, DigitStrings) else answer(trials)
    assert task.evaluate(oracle, trials) == PERFECT[type(task)]


@pytest.mark.parametrize("task", [DelayedMatch(), ContextIntegration(), FlipFlop()], ids=lambda t: type(t).__name__)
def test_a_constant_answer_is_right_half_the_time(task):
    trials = draw(task, batch=1000, dt=0.5)
    constant = SimpleNamespace(ys=torch.ones_like(trials.targets))
    assert task.evaluate(constant, trials)["accuracy"] == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(1000))
    assert 0.5 <= task.chance(trials)["accuracy"] <= 0.5 + 5 * 0.5 / math.sqrt(1000)


def test_no_constant_beats_the_chance_mse_of_a_flip_flop():
    task = FlipFlop()
    trials = draw(task, batch=32, dt=0.5)
    for value in (-0.2, -0.05, 0.0, 0.05, 0.2):
        constant = SimpleNamespace(ys=torch.full_like(trials.targets, value))
        assert task.evaluate(constant, trials)["mse"] >= task.chance(trials)["mse"]


def test_the_chance_r2_of_a_sine_is_zero():
    assert task_chance(SineGeneration())["r2"] == pytest.approx(0.0, abs=1e-12)


def task_chance(task):
    return task.chance(draw(task, batch=32, dt=0.5))


def test_no_repeated_digit_beats_the_chance_of_digit_strings():
    task = DigitStrings(digits=(1, 4))
    trials = draw(task, batch=60, dt=1.0)
    n_labels = (trials.targets >= 0).sum()
    chance = task.chance(trials)["label_error"]
    assert 0.7 < chance < 1.0
    for label, n in itertools.product(range(1, 11), range(5)):
        guess = torch.full((60, n), label)
        assert edit_distance(guess, trials.targets).sum() / n_labels >= chance


def test_letting_go_before_the_response_breaks_fixation_and_only_that():
    task = DelayedMatch()
    trials = draw(task)
    ys = trials.targets.clone()
    early = int(trials.periods["test"][0, 3] / trials.dt)
    ys[early, 3] = torch.tensor([0.0, 1.0, 0.0])
    scores = task.evaluate(SimpleNamespace(ys=ys), trials)
    assert scores == {"accuracy": 1.0, "broken_fixation": 1 / 16}


@every_task
def test_what_is_not_scored_reaches_neither_the_loss_nor_its_gradient(task):
    trials = draw(task, dt=0.2)
    ys = torch.randn(*trials.us.shape[:2], task.n_out, generator=torch.Generator().manual_seed(1))
    spoilt = ys.masked_fill(~trials.mask[..., None], torch.nan).requires_grad_()
    if isinstance(task, DigitStrings):
        spoilt = ys.masked_fill(~trials.mask[..., None], 100.0).requires_grad_()
    loss = task.loss(spoilt, trials)
    loss.backward()
    assert loss == task.loss(ys, trials)
    assert spoilt.grad.isfinite().all()
    assert not spoilt.grad[~trials.mask].any()
    assert spoilt.grad[trials.mask].any()


@pytest.mark.parametrize("task", [task for task in TASKS if trials_have_timed_targets(task)], ids=repr)
def test_a_squared_loss_can_be_vmapped_over_networks(task):
    trials = draw(task, dt=0.2)
    ys = torch.randn(3, *trials.us.shape[:2], task.n_out, generator=torch.Generator().manual_seed(1))
    together = torch.vmap(lambda y: task.loss(y, trials))(ys)
    close(together, torch.stack([task.loss(y, trials) for y in ys]))


# ---- bad input


@every_task
@pytest.mark.parametrize("dt", [0.0, -0.1, math.nan, math.inf])
def test_a_dt_that_is_no_step_is_refused(task, dt):
    with pytest.raises(ValueError, match="positive and finite"):
        task.trials(4, dt)


@pytest.mark.parametrize(
    ("task", "dt", "culprit"),
    [
        (FlipFlop(pulse=0.4), 0.5, r"the pulse \(0.4\)"),
        (SineGeneration(frequency=(0.1, 2.0)), 0.3, r"half the fastest cycle \(0.25\)"),
        (DelayedMatch(sample=0.2), 0.3, r"the sample period \(0.2\)"),
        (DelayedMatch(response=1.5, grace=1.0), 0.6, "scored part of the response"),
        (ContextIntegration(stimulus=0.2), 0.3, r"the stimulus period \(0.2\)"),
        (DigitStrings(rate=2.0), 2.5, r"half a digit \(2.0\)"),
    ],
)
def test_a_dt_that_skips_something_is_refused_and_the_thing_is_named(task, dt, culprit):
    with pytest.raises(ValueError, match=culprit):
        task.trials(4, dt)


@every_task
def test_a_batch_without_trials_is_refused(task):
    with pytest.raises(ValueError, match="at least one trial"):
        task.trials(0, 0.1)


@every_task
@pytest.mark.parametrize("wrong", [{"batch": 2.0}, {"generator": 7}, {"dtype": torch.int64}])
def test_arguments_of_the_wrong_type_are_refused(task, wrong):
    with pytest.raises(TypeError, match=r"must be an int|torch\.Generator|cannot hold"):
        task.trials(**{"batch": 2, "dt": 0.1, **wrong})


@every_task
def test_outputs_that_do_not_belong_to_the_trials_are_refused(task):
    trials = draw(task)
    with pytest.raises(ValueError, match=r"need \(time, batch, n_out\)"):
        task.evaluate(SimpleNamespace(ys=torch.zeros(len(trials.us) - 1, 16, task.n_out)), trials)
    with pytest.raises(ValueError, match=r"need \(time, batch, n_out\)"):
        task.loss(torch.zeros(*trials.us.shape[:2], task.n_out + 1), trials)
    with pytest.raises(ValueError, match="no readout"):
        task.evaluate(SimpleNamespace(ys=None), trials)


@pytest.mark.parametrize(
    ("task", "wrong"),
    [
        (FlipFlop, {"bits": 0}),
        (FlipFlop, {"pulse": 0.0}),
        (FlipFlop, {"duration": 0.5}),
        (FlipFlop, {"interval": -1.0}),
        (FlipFlop, {"grace": -1.0}),
        (SineGeneration, {"n_frequencies": 0}),
        (SineGeneration, {"frequency": (0.3, 0.1)}),
        (SineGeneration, {"grace": 99.0}),
        (DelayedMatch, {"p_match": 1.2}),
        (DelayedMatch, {"p_match": math.nan}),
        (DelayedMatch, {"n_stimuli": 1}),
        (DelayedMatch, {"delay": (3.0, 1.0)}),
        (DelayedMatch, {"test": 0.0}),
        (DelayedMatch, {"grace": 3.0}),
        (ContextIntegration, {"coherences": ()}),
        (ContextIntegration, {"coherences": (-0.1, 0.1)}),
        (ContextIntegration, {"sigma": -1.0}),
        (ContextIntegration, {"noise_time": 0.0}),
        (ContextIntegration, {"response": 11.0, "go_cue": False}),
        (ContextIntegration, {"delay": (1.0, 2.0), "go_cue": False}),
        (DigitStrings, {"split": "dev"}),
        (DigitStrings, {"digits": (0, 3)}),
        (DigitStrings, {"spacing": (3, 1)}),
        (DigitStrings, {"tail": -1}),
        (DigitStrings, {"rate": 0.0}),
    ],
)
def test_a_task_with_an_impossible_parameter_is_refused_and_the_parameter_is_named(task, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        task(**wrong)
