"""Signals seen in frames at irregular times: the same signal at any dt, frames that say what they should."""

import dataclasses
import importlib.resources
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrnn import RK4, Adaptive, Fixed, Held, integrate
from ctrnn.models import CTRNN
from ctrnn.tasks import FlipFlop, JapaneseVowels, PulseDuration, Task, frames
from ctrnn.tasks.vowels import scale, utterances

TASKS = [JapaneseVowels(drop=(0.2, 0.7), frame=0.9), PulseDuration(pulses=(1, 2))]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
seeds = st.integers(0, 2**31)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(task, batch=16, dt=0.1, seed=0, **kwargs):
    return task.trials(batch, dt, seeded(seed), **kwargs)


def shown(trials, b):
    """The frames of one trial as (start, stop, values)."""
    (start, stop), values = trials.periods["frame"][:, b], trials.condition["frame"][b]
    return [(float(p), float(q), v) for p, q, v in zip(start, stop, values, strict=True) if math.isfinite(p)]


@every_task
def test_the_task_fulfils_the_protocol_and_states_its_shapes(task):
    assert isinstance(task, Task)
    assert type(task)() == type(task)()
    trials = draw(task, batch=5)
    time, batch, n_in = trials.us.shape
    assert (batch, n_in, trials.dt) == (5, task.n_in, 0.1)
    assert trials.targets.shape == (5, 1)
    assert trials.lengths.max() == time
    assert torch.equal(trials.mask.nonzero()[trials.mask.nonzero()[:, 1].argsort(), 0], trials.lengths - 1)
    assert all(period.shape[:2] == (2, 5) for period in trials.periods.values())
    assert all(value.shape[0] == 5 for value in trials.condition.values())


@every_task
def test_a_generator_decides_everything_and_the_global_one_is_left_alone(task):
    before = torch.get_rng_state()
    source = seeded(3)
    first, second, again = task.trials(8, 0.1, source), task.trials(8, 0.1, source), draw(task, batch=8, seed=3)
    task.trials(4, 0.1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.us, again.us)
    assert first.us.shape != second.us.shape or not torch.equal(first.us, second.us)


@every_task
@settings(max_examples=8, deadline=None)
@given(seed=seeds, dt=st.floats(0.02, 0.35))
def test_the_same_frames_exist_at_any_dt_and_keep_their_area(task, seed, dt):
    coarse, fine = (draw(task, batch=4, dt=step, seed=seed) for step in (dt, dt / 3))
    assert torch.equal(coarse.targets, fine.targets)
    for ours, theirs in ((coarse.periods, fine.periods), (coarse.condition, fine.condition)):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for b in range(4):
        area = sum((stop - start) * values for start, stop, values in shown(coarse, b))
        torch.testing.assert_close(dt * coarse.us[:, b].sum(0), area, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(dt / 3 * fine.us[:, b].sum(0), area, rtol=1e-9, atol=1e-9)


@every_task
def test_frames_follow_one_another_from_the_beginning_to_the_end(task):
    trials = draw(task, batch=20)
    for b in range(20):
        seen = shown(trials, b)
        assert seen[0][0] == 0
        assert all(now[1] == then[0] for now, then in pairwise(seen))
        assert math.ceil(seen[-1][1] / 0.1 - 1e-6) == trials.lengths[b]


@every_task
def test_float32_and_float64_are_the_same_trials(task):
    single, double = draw(task, dtype=torch.float32), draw(task)
    assert single.us.dtype == single.condition["frame"].dtype == torch.float32
    assert torch.equal(double.us.float(), single.us)
    assert torch.equal(single.periods["frame"], double.periods["frame"])


@every_task
def test_the_frames_drive_a_flow_as_their_samples_do(task):
    # 0.05 divides the time of a frame of the vowels; a pulse begins anywhere, and its samples are means.
    trials = draw(task, batch=4, dt=0.05)
    model = CTRNN(4, task.n_in, generator=seeded()).double()
    by_frame = integrate(model, frames(trials), steps=Adaptive(1e-9, 1e-11)).xs[-1]
    by_sample = integrate(model, Held(trials.us, 0.05, lengths=trials.lengths), steps=Fixed(0.05), solver=RK4()).xs[-1]
    exact = isinstance(task, JapaneseVowels)
    late = 0.0 if exact else 0.05  # the last sample may end after the trial
    torch.testing.assert_close(by_sample, by_frame, rtol=0, atol=1e-6 + 2 * late)


def test_padding_of_the_frames_comes_after_the_end():
    held = frames(draw(TASKS[0], batch=6))
    for b, count in enumerate(held.lengths.tolist()):
        assert (held.edges[:, b].diff() > 0).all()
        assert not held.us[count:, b].any()
    assert held.lengths.unique().numel() > 1


def test_trials_without_frames_are_refused():
    with pytest.raises(ValueError, match="no frames"):
        frames(draw(FlipFlop()))


@every_task
def test_only_the_output_at_the_end_of_each_trial_counts(task):
    trials = draw(task, batch=6)
    ys = torch.randn(*trials.us.shape[:2], task.n_out, generator=seeded())
    ends = ys[trials.lengths - 1, torch.arange(6)]
    expected = -ends.log_softmax(-1).gather(1, trials.targets).mean()
    torch.testing.assert_close(task.loss(ys, trials), expected)
    right = (ends.argmax(-1) == trials.targets[:, 0]).double().mean()
    assert task.evaluate(SimpleNamespace(ys=ys), trials) == {"accuracy": float(right)}
    ys[~trials.mask] = torch.nan
    torch.testing.assert_close(task.loss(ys, trials), expected)


@every_task
def test_chance_is_what_the_best_constant_answer_scores(task):
    trials = draw(task, batch=50)
    constant = [
        task.evaluate(SimpleNamespace(ys=torch.eye(task.n_out)[k].expand(*trials.us.shape[:2], -1)), trials)
        for k in range(task.n_out)
    ]
    assert task.chance(trials)["accuracy"] == max(score["accuracy"] for score in constant)


# ---- vowels


def test_the_vowels_are_those_that_were_published():
    counts = {"train": [30] * 9, "test": [31, 35, 88, 44, 29, 24, 40, 50, 29]}
    lengths = []
    for split, expected in counts.items():
        spoken, speakers = utterances(split)
        assert speakers.bincount().tolist() == expected
        assert {one.shape[1] for one in spoken} == {12}
        lengths += map(len, spoken)
    assert (len(lengths), min(lengths), max(lengths)) == (640, 7, 29)


def test_a_whole_split_is_every_utterance_once_scaled_by_the_training_split():
    mean, deviation = scale()
    for split in ("train", "test"):
        spoken, speakers = utterances(split)
        trials = draw(JapaneseVowels(split=split), batch=len(spoken), dt=1.0)
        sums = {round(float(one.sum()), 9): int(who) for one, who in zip(spoken, speakers, strict=True)}
        found = {}
        for b, n in enumerate(trials.lengths.tolist()):
            values = trials.us[:n, b] * deviation + mean
            found[round(float(values.sum()), 9)] = int(trials.targets[b, 0])
        assert found == sums
        if split == "train":
            everything = torch.cat([trials.us[:n, b] for b, n in enumerate(trials.lengths.tolist())])
            torch.testing.assert_close(everything.mean(0), torch.zeros(12), rtol=0, atol=1e-12)
            torch.testing.assert_close(everything.std(0, correction=0), torch.ones(12))


def test_a_dropped_frame_shows_what_the_one_before_it_showed():
    whole, holey = (draw(JapaneseVowels(drop=(p, p)), batch=30, dt=1.0, seed=2) for p in (0.0, 0.6))
    assert torch.equal(whole.lengths, holey.lengths)
    kept = torch.isfinite(holey.periods["frame"][0]).sum()
    # 30 frames are certain, the others Bernoulli: within five standard deviations of the mean.
    others = int(whole.lengths.sum()) - 30
    assert abs(int(kept) - 30 - 0.4 * others) < 5 * math.sqrt(0.24 * others)
    for b in range(30):
        starts = {start: values for start, _, values in shown(holey, b)}
        held = whole.us[0, b]
        for k in range(int(whole.lengths[b])):
            if float(k) in starts:
                held = whole.us[k, b]
                assert torch.equal(starts[float(k)], held)
            torch.testing.assert_close(holey.us[k, b], held)


def test_with_everything_dropped_the_first_frame_stays():
    trials = draw(JapaneseVowels(drop=(1.0, 1.0)), dt=1.0)
    assert trials.periods["frame"].shape == (2, 16, 1)
    torch.testing.assert_close(trials.periods["frame"][1, :, 0], trials.lengths.double())


def test_a_higher_rate_drops_more_of_the_same_frames():
    few, many = (draw(JapaneseVowels(drop=(p, p)), batch=20, dt=1.0) for p in (0.3, 0.7))
    for b in range(20):
        assert {start for start, *_ in shown(many, b)} <= {start for start, *_ in shown(few, b)}


def test_without_aeon_the_error_says_what_to_install(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib.resources, "files", missing)
    utterances.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'ctrnn-sim\[scenarios\]'"):
        draw(JapaneseVowels())


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"split": "dev"}, "none of train, test"), ({"drop": (0.5, 0.2)}, "no range"), ({"frame": 0.0}, "one after")],
)
def test_a_wrong_task_of_vowels_is_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        JapaneseVowels(**options)


# ---- pulses


def test_the_answer_is_whether_the_last_pulse_was_a_long_one():
    trials = draw(PulseDuration(pulses=(1, 3)), batch=60)
    for b in range(60):
        seen, runs = shown(trials, b), []
        for start, stop, value in seen:
            if runs and runs[-1][2] == float(value):
                runs[-1][1] = stop
            else:
                runs.append([start, stop, float(value)])
        assert [value for *_, value in runs] == [0.0, 1.0] * int(trials.condition["pulses"][b]) + [0.0]
        assert all(1.0 - 1e-9 <= stop - start <= 4.0 + 1e-9 for start, stop, _ in runs)
        lasted = runs[-2][1] - runs[-2][0]
        assert lasted == pytest.approx(float(trials.condition["lasted"][b]))
        assert int(trials.targets[b, 0]) == (lasted > 2.0)
    assert trials.targets.unique().numel() == 2


def test_what_the_frames_show_says_nothing_about_the_answer():
    short, long = (draw(PulseDuration(duration=span), batch=64) for span in ((1.0, 2.0), (2.1, 4.0)))
    assert not short.targets.any()
    assert long.targets.all()
    assert torch.equal(frames(short).us, frames(long).us)
    assert torch.equal(frames(short).lengths, frames(long).lengths)


def test_other_frames_show_the_same_signal():
    few = PulseDuration(frames=(1, 4))
    many = dataclasses.replace(few, frames=(9, 12))
    a, b = draw(few, batch=20), draw(many, batch=20)
    torch.testing.assert_close(a.us, b.us, rtol=1e-9, atol=1e-9)
    assert torch.equal(a.targets, b.targets)
    assert (frames(b).lengths > frames(a).lengths).all()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"pulses": (0, 2)}, "fewest, most"),
        ({"duration": (0.0, 2.0)}, "durations"),
        ({"threshold": 0.0}, "every pulse"),
        ({"frames": (3, 2)}, "fewest, most"),
    ],
)
def test_a_wrong_task_of_pulses_is_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        PulseDuration(**options)


@every_task
def test_a_dt_that_would_skip_something_is_refused(task):
    with pytest.raises(ValueError, match="longer than"):
        draw(task, dt=1.5)
