"""Tasks with long time lags: the sequences of Hochreiter & Schmidhuber (1997), their answers and their scores."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrnn.tasks import Adding, Task, TwoSequences

TASKS = [TwoSequences(4), TwoSequences(1, balanced=True), Adding(20), Adding(31)]
every_task = pytest.mark.parametrize("task", TASKS, ids=repr)
seeds = st.integers(0, 2**31)


def draw(task, batch=16, dt=1.0, seed=0, **kwargs):
    return task.trials(batch, dt, torch.Generator().manual_seed(seed), **kwargs)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@every_task
def test_every_task_fulfils_the_protocol_and_is_a_value(task):
    assert isinstance(task, Task)
    assert type(task)() == type(task)()
    assert hash(task) == hash(dataclasses.replace(task))


@every_task
def test_trials_have_the_shapes_that_the_task_states(task):
    trials = draw(task, batch=5, dt=0.4)
    time, batch, n_in = trials.us.shape
    assert (batch, n_in) == (5, task.n_in)
    assert trials.targets.shape == (time, batch, task.n_out)
    assert trials.mask.any(0).all()
    assert all(period.shape[:2] == (2, 5) for period in trials.periods.values())
    assert all(value.shape[0] == 5 for value in trials.condition.values())


@every_task
def test_the_same_generator_gives_the_same_trials_and_the_global_one_is_not_touched(task):
    before = torch.get_rng_state()
    first, again = draw(task, seed=3), draw(task, seed=3)
    task.trials(2, 1.0)
    assert torch.equal(first.us, again.us)
    assert torch.equal(first.targets, again.targets)
    assert torch.equal(torch.get_rng_state(), before)


@every_task
@settings(max_examples=8, deadline=None)
@given(seed=seeds, dt=st.floats(0.1, 1.0))
def test_the_same_trials_exist_at_any_dt(task, seed, dt):
    coarse, fine = draw(task, 4, dt, seed), draw(task, 4, dt / 2, seed)
    for name in coarse.condition:
        assert torch.equal(coarse.condition[name], fine.condition[name])
    for name in coarse.periods:
        assert torch.equal(coarse.periods[name], fine.periods[name])
    odd = 2 * len(coarse.us) - len(fine.us)
    padded = torch.cat([fine.us, torch.zeros_like(fine.us[:odd])])
    close(padded.unflatten(0, (-1, 2)).mean(1), coarse.us)
    shared = coarse.mask[: len(fine.us) // 2]
    assert torch.equal(fine.mask[1::2], shared)
    close(fine.targets[1::2][shared], coarse.targets[: len(shared)][shared])


@every_task
def test_float32_and_float64_are_the_same_trials(task):
    single, double = draw(task, dtype=torch.float32), draw(task, dtype=torch.float64)
    assert torch.equal(double.us.float(), single.us)
    assert torch.equal(double.targets.float(), single.targets)


@pytest.mark.parametrize("lag", [1, 2, 5])
def test_the_last_symbol_is_the_one_that_came_lag_symbols_before(lag):
    task = TwoSequences(lag)
    trials = draw(task, batch=20)
    assert set(trials.condition["first"].tolist()) == {0, 1}
    for b, first in enumerate(trials.condition["first"].tolist()):
        shown, wanted = trials.us[:, b].argmax(-1).tolist(), trials.targets[:, b].argmax(-1).tolist()
        ends = lag - 1 + first
        assert shown == [ends, *range(lag - 1)]
        assert wanted == [*range(lag - 1), ends]
        assert task.symbols()[:, first].tolist() == [*shown, ends]
    assert (trials.us.sum(-1) == 1).all()


def test_balanced_sequences_take_turns():
    assert draw(TwoSequences(3, balanced=True), batch=5).condition["first"].tolist() == [0, 1, 0, 1, 0]


def test_the_loss_of_two_sequences_is_the_mean_cross_entropy(generator):
    task = TwoSequences(3)
    trials = draw(task, batch=4)
    ys = torch.randn(3, 4, 4, generator=generator)
    expected = torch.nn.functional.cross_entropy(ys.flatten(0, 1), trials.targets.argmax(-1).flatten())
    close(task.loss(ys, trials), expected)


def test_without_memory_one_of_two_sequences_is_wrong_by_half_or_more():
    """The right answer at every step but the last, where both are said to be equally likely."""
    task = TwoSequences(4)
    trials = draw(task, batch=50)
    p = trials.targets.clone()
    assert task.evaluate(SimpleNamespace(ys=(p + 1e-12).log()), trials) == {
        "error": pytest.approx(0.0, abs=1e-9),
        "accuracy": 1.0,
    }
    p[-1] = torch.tensor([0.0, 0.0, 0.0, 0.5, 0.5])
    score = task.evaluate(SimpleNamespace(ys=(p + 1e-12).log()), trials)
    assert score["error"] == pytest.approx(0.5)
    assert 0.2 < score["accuracy"] < 0.8
    assert task.chance(trials)["error"] > 0.5


@settings(max_examples=20, deadline=None)
@given(seed=seeds, length=st.integers(20, 60))
def test_the_target_is_half_and_a_quarter_of_the_values_marked_by_one(seed, length):
    trials = draw(Adding(length), batch=30, seed=seed, dtype=torch.float64)
    for b, n in enumerate(trials.lengths.tolist()):
        value, marker = trials.us[:n, b].unbind(-1)
        assert length <= n <= length + length // 10
        assert marker[0] == marker[-1] == -1
        first, second = trials.condition["marked"][b].tolist()
        assert first < 10
        assert second < length // 2
        assert first != second
        inner = {first, second} - {0}
        assert (marker == 1).nonzero()[:, 0].tolist() == sorted(inner)
        assert (marker[1:-1] == 0).sum() == n - 2 - len(inner)
        if 0 in (first, second):
            assert value[0] == 0
        close(trials.targets[n - 1, b, 0], 0.5 + value[marker == 1].sum() / 4)
        assert trials.mask[:, b].nonzero()[:, 0].tolist() == [n - 1]
        assert not trials.us[n:, b].any()


def test_marks_and_lengths_are_uniform():
    trials = draw(Adding(40), batch=20_000)
    first, second = trials.condition["marked"].T
    counts = first.bincount(minlength=10) / 20_000
    assert (counts - 0.1).abs().max() < 5 * math.sqrt(0.09 / 20_000)
    # Given the first mark, each of the 19 others among the first 20 is as likely.
    given = second[first == 3].bincount(minlength=20)
    assert given[3] == 0
    assert (given[given > 0] / given.sum() - 1 / 19).abs().max() < 5 * math.sqrt(1 / 19 / given.sum())
    lengths = trials.lengths.bincount()[40:] / 20_000
    assert len(lengths) == 5
    assert (lengths - 0.2).abs().max() < 5 * math.sqrt(0.16 / 20_000)


def test_chance_is_the_variance_of_the_target():
    trials = draw(Adding(), batch=20_000)
    score = Adding().chance(trials)
    zeroed = 0.1 + 0.9 / 49
    assert score["mse"] == pytest.approx((2 - zeroed) / 48, abs=0.001)
    right = 2 * 0.16 - 0.16**2 / 2  # of two values, twice the share that a density (2 - |s|) / 4 leaves within 0.16
    assert score["wrong"] == pytest.approx(1 - ((1 - zeroed) * right / 2 + zeroed * 0.16), abs=0.012)


def test_a_sum_is_wrong_from_four_hundredths_on():
    task = Adding()
    trials = draw(task)
    for off, wrong in ((0.039, 0.0), (0.041, 1.0), (-0.041, 1.0)):
        score = task.evaluate(SimpleNamespace(ys=trials.targets + off), trials)
        assert score == {"mse": pytest.approx(off**2, rel=1e-4), "wrong": wrong}


def test_what_is_not_scored_reaches_neither_loss_nor_gradient():
    for task in (TwoSequences(3), Adding()):
        trials = draw(task, dt=0.7)
        ys = trials.targets.clone()
        ys[~trials.mask] = torch.nan
        ys.requires_grad_()
        loss = task.loss(ys, trials)
        assert loss.isfinite()
        (grad,) = torch.autograd.grad(loss, ys)
        assert grad.isfinite().all()


def test_impossible_parameters_and_steps_are_refused_and_named():
    with pytest.raises(ValueError, match="lag = 0"):
        TwoSequences(0)
    with pytest.raises(ValueError, match="length = 19"):
        Adding(19)
    with pytest.raises(ValueError, match="a symbol"):
        draw(TwoSequences(3), dt=1.5)
    with pytest.raises(ValueError, match="a pair"):
        draw(Adding(), dt=1.5)
    with pytest.raises(ValueError, match=r"need \(time, batch, n_out\)"):
        Adding().evaluate(SimpleNamespace(ys=torch.zeros(3, 16, 1)), draw(Adding()))
