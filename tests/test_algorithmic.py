"""Sequences of bits: laid out as in the papers, at any dt, with chance levels that a simulation confirms."""

import dataclasses
import itertools
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrnn.tasks import Copy, RepeatCopy, Reverse, Task
from ctrnn.tasks.trials import Outputs

TASKS = [
    Copy(bits=3, lengths=(1, 6)),
    Reverse(bits=3, lengths=(2, 5)),
    RepeatCopy(bits=2, lengths=(1, 4), repeats=(1, 3)),
    RepeatCopy(bits=2, lengths=(1, 3), repeats=(2, 4), start_flag=True, centre=0.0, scale=10.0, symbol_time=0.5),
]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
seeds = st.integers(0, 2**31)


def draw(task, batch=8, dt=None, seed=0, **kwargs):
    dt = task.symbol_time if dt is None else dt
    return task.trials(batch, dt, torch.Generator().manual_seed(seed), **kwargs)


def answer(trials):
    """Outputs that are certain of the targets, and spoilt wherever none is scored."""
    return Outputs((40 * trials.targets - 20).masked_fill(~trials.mask[..., None], torch.nan))


def shown(trials, b):
    return trials.us[: trials.lengths[b], b].tolist()


def said(trials, b):
    return trials.targets[trials.mask[:, b], b].tolist()


# ---- laws of them all


@every_task
def test_it_is_a_task_and_a_value(task):
    assert isinstance(task, Task)
    assert type(task)() == type(task)()
    assert len({task, dataclasses.replace(task)}) == 1
    trials = draw(task, batch=5)
    assert trials.us.shape == (trials.lengths.max(), 5, task.n_in)
    assert trials.targets.shape == (*trials.us.shape[:2], task.n_out)
    assert trials.mask.any(0).all()
    assert all(period.shape == (2, 5) for period in trials.periods.values())


@every_task
def test_trials_come_from_the_generator_alone(task):
    before = torch.get_rng_state()
    one, same, other = draw(task), draw(task), draw(task, seed=1)
    task.trials(2, task.symbol_time)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.us, same.us)
    assert torch.equal(one.targets, same.targets)
    assert one.us.shape != other.us.shape or not torch.equal(one.us, other.us)


@every_task
@settings(max_examples=10, deadline=None)
@given(seed=seeds, parts=st.integers(2, 7))
def test_a_finer_step_shows_the_same_symbols_for_as_long_and_scores_each_at_its_end(task, seed, parts):
    coarse_source, fine_source = (torch.Generator().manual_seed(seed) for _ in range(2))
    coarse = task.trials(4, task.symbol_time, coarse_source)
    fine = task.trials(4, task.symbol_time / parts, fine_source)
    assert torch.equal(coarse_source.get_state(), fine_source.get_state())
    torch.testing.assert_close(fine.us, coarse.us.repeat_interleave(parts, 0), rtol=0, atol=1e-9)
    assert torch.equal(fine.targets, coarse.targets.repeat_interleave(parts, 0))
    assert torch.equal(fine.mask[parts - 1 :: parts], coarse.mask)
    assert fine.mask.sum() == coarse.mask.sum()
    assert torch.equal(fine.lengths, parts * coarse.lengths)
    for name in coarse.periods:
        assert torch.equal(fine.periods[name], coarse.periods[name])
    for name in coarse.condition:
        assert torch.equal(fine.condition[name], coarse.condition[name])


@every_task
@settings(max_examples=10, deadline=None)
@given(seed=seeds, fraction=st.floats(0.05, 1.0))
def test_at_any_step_each_answer_is_scored_once_and_in_its_own_time(task, seed, fraction):
    dt = fraction * task.symbol_time
    coarse, odd = draw(task, seed=seed), draw(task, dt=dt, seed=seed)
    for b in range(8):
        assert said(odd, b) == said(coarse, b)
        due = coarse.mask[:, b].nonzero()[:, 0] * task.symbol_time
        times = (odd.mask[:, b].nonzero()[:, 0] + 1) * dt
        assert (times > due).all()
        assert (times <= due + task.symbol_time + 1e-6 * dt).all()
    torch.testing.assert_close(odd.us.sum(0) * dt, coarse.us.sum(0) * task.symbol_time)


@every_task
def test_the_periods_say_when_the_answer_is_due(task):
    trials = draw(task)
    start, stop = trials.periods["answer"] / task.symbol_time
    k = torch.arange(len(trials.us))[:, None]
    assert torch.equal(trials.mask, (k >= start) & (k < stop))
    assert torch.equal(trials.lengths, stop.long())
    assert torch.equal(trials.periods["input"][1], trials.periods["answer"][0])
    assert not trials.us[(k >= start).expand(trials.us.shape[:2])].any()


@every_task
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_answers_score_perfectly_and_nothing_else_is_looked_at(task, dtype):
    trials = draw(task, dt=task.symbol_time / 3, dtype=dtype)
    assert trials.us.dtype == dtype
    scores = task.evaluate(answer(trials), trials)
    assert scores["cost"] < 1e-4
    assert (scores["bit_error"], scores["sequence_accuracy"]) == (0.0, 1.0)
    ys = (0.1 * answer(trials).ys).requires_grad_()
    task.loss(ys, trials).backward()
    assert ys.grad.isfinite().all()
    assert torch.equal(ys.grad.any(-1), trials.mask)


@every_task
def test_one_wrong_bit_is_one_wrong_bit_and_one_wrong_trial(task):
    trials = draw(task)
    ys = answer(trials).ys
    last = int(trials.lengths[2]) - 1
    ys[last, 2, 0] *= -1
    scores = task.evaluate(Outputs(ys), trials)
    n_bits = trials.mask.sum().item() * task.n_out
    assert scores["bit_error"] == pytest.approx(1 / n_bits)
    assert scores["sequence_accuracy"] == 7 / 8
    assert scores["cost"] == pytest.approx(20 / 8 / torch.log(torch.tensor(2.0)).item(), rel=1e-6)


@every_task
def test_all_trials_of_a_batch_have_one_length_if_so_wished(task):
    same = dataclasses.replace(task, same_length=True)
    lengths = [draw(same, seed=seed).lengths for seed in range(20)]
    assert all((n == n[0]).all() for n in lengths)
    assert len({int(n[0]) for n in lengths}) > 1
    trials = draw(same)
    assert (trials.us.diff(dim=1) != 0).any()


@every_task
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_constant_odds_cost_less_than_chance(task, dtype):
    trials = draw(task, batch=50, dtype=dtype)
    chance = task.chance(trials)
    often = trials.targets[trials.mask].mean(0)
    for change in itertools.product((-0.05, 0.0, 0.05), repeat=task.n_out):
        p = (often + torch.tensor(change, dtype=dtype)).clamp(1e-6, 1 - 1e-6)
        ys = p.logit().expand(trials.targets.shape)
        assert task.evaluate(SimpleNamespace(ys=ys), trials)["cost"] >= chance["cost"] - 1e-4


@every_task
def test_the_loss_can_be_vmapped_over_networks(task):
    trials = draw(task)
    ys = torch.randn(3, *trials.targets.shape, generator=torch.Generator().manual_seed(1))
    together = torch.vmap(lambda y: task.loss(y, trials))(ys)
    torch.testing.assert_close(together, torch.stack([task.loss(y, trials) for y in ys]))


@every_task
def test_a_step_longer_than_a_symbol_is_refused(task):
    with pytest.raises(ValueError, match="a symbol"):
        task.trials(2, 1.01 * task.symbol_time)
    with pytest.raises(ValueError, match="symbol_time"):
        dataclasses.replace(task, symbol_time=0.0)


# ---- copies


def test_a_copy_is_the_vectors_a_delimiter_and_the_vectors_again_in_silence():
    trials = draw(Copy(bits=3, lengths=(1, 6)), batch=40)
    assert set(trials.condition["length"].tolist()) == {1, 2, 3, 4, 5, 6}
    for b in range(40):
        n = int(trials.condition["length"][b])
        page = shown(trials, b)
        assert all(row[3] == 0 and set(row) <= {0.0, 1.0} for row in page[:n])
        assert page[n:] == [[0, 0, 0, 1], *[[0, 0, 0, 0]] * n]
        assert said(trials, b) == [row[:3] for row in page[:n]]
        assert trials.mask[:, b].nonzero()[:, 0].tolist() == list(range(n + 1, 2 * n + 1))


def test_a_reversal_is_a_copy_from_the_last_vector_to_the_first():
    there, back = draw(Copy(bits=3, lengths=(1, 6))), draw(Reverse(bits=3, lengths=(1, 6)))
    assert torch.equal(there.us, back.us)
    for b in range(8):
        assert said(back, b) == said(there, b)[::-1]


@pytest.mark.parametrize("kind", [Copy, Reverse])
def test_several_copies_in_one_trial_follow_one_another_without_a_gap(kind):
    task = kind(bits=3, lengths=(1, 4), episodes=(3, 3))
    trials = draw(task)
    assert trials.condition["length"].shape == (8, 3)
    assert trials.periods["answer"].shape == (2, 8, 3)
    for b in range(8):
        page, answers, k = shown(trials, b), said(trials, b), 0
        for episode, n in enumerate(trials.condition["length"][b].tolist()):
            vectors = [row[:3] for row in page[k : k + n]]
            assert page[k + n : k + 2 * n + 1] == [[0, 0, 0, 1], *[[0] * 4] * n]
            assert [answers.pop(0) for _ in range(n)] == (vectors if kind is Copy else vectors[::-1])
            assert trials.periods["input"][:, b, episode].tolist() == [k, k + n + 1]
            assert trials.periods["answer"][:, b, episode].tolist() == [k + n + 1, k + 2 * n + 1]
            assert trials.mask[k : k + 2 * n + 1, b].tolist() == [False] * (n + 1) + [True] * n
            k += 2 * n + 1
        assert k == trials.lengths[b]
        assert not answers
    one = draw(kind(bits=3, lengths=(1, 4), same_length=True))
    assert one.condition["length"].shape == (8,)


def test_how_many_copies_a_trial_has_is_drawn_for_each_batch():
    task = Copy(bits=1, lengths=(1, 2), episodes=(1, 4), same_length=True)
    counts = []
    for seed in range(40):
        trials = draw(task, seed=seed)
        length = trials.condition["length"]
        assert (length == length[0]).all()
        assert len(trials.us) == (2 * length[0] + 1).sum()
        counts.append(length.shape[1])
    assert set(counts) == {1, 2, 3, 4}


@settings(max_examples=10, deadline=None)
@given(seed=seeds, start_flag=st.booleans())
def test_a_repeat_copy_says_all_as_often_as_the_number_and_then_the_end(seed, start_flag):
    task = RepeatCopy(bits=3, lengths=(1, 4), repeats=(1, 5), start_flag=start_flag, centre=3.0, scale=2.0)
    trials = draw(task, seed=seed)
    for b in range(8):
        n, times = (int(trials.condition[name][b]) for name in ("length", "repeats"))
        page = shown(trials, b)
        if start_flag:
            assert page.pop(0) == [0, 0, 0, 1, 0]
        vectors = [row[:3] for row in page[:n]]
        assert all(row[3:] == [0, 0] for row in page[:n])
        assert page[n] == [0, 0, 0, 0, (times - 3) / 2]
        assert page[n + 1 :] == [[0] * 5] * (n * times + 1)
        assert said(trials, b) == [*([[*row, 0] for row in vectors] * times), [0, 0, 0, 1]]


def test_the_number_of_repeats_is_normalised_over_the_range_of_the_paper():
    task = RepeatCopy()
    numbers = (torch.arange(1.0, 11.0) - task.centre) / task.scale
    assert numbers.mean().item() == pytest.approx(0, abs=1e-12)
    assert numbers.var(correction=0).item() == pytest.approx(1)


def test_chance_is_a_bit_for_each_bit_and_84_bits_for_the_copies_of_the_paper():
    trials = draw(Copy(), batch=4000)
    bits = 8 * trials.condition["length"].double()
    chance = Copy().chance(trials)
    assert chance["cost"] == pytest.approx(bits.mean().item(), rel=1e-4)
    assert bits.mean().item() == pytest.approx(84, abs=5 * 8 * 5.77 / 4000**0.5)
    assert chance["bit_error"] == pytest.approx(0.5, abs=5 * 0.5 / bits.sum().item() ** 0.5)
    # And what guessing gets, tried out.
    guess = torch.randint(0, 2, trials.targets.shape, generator=torch.Generator().manual_seed(1)) - 0.5
    assert Copy().evaluate(Outputs(guess), trials)["bit_error"] == pytest.approx(0.5, abs=0.005)


def test_pages_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="bits = 0"):
        Copy(bits=0)
    with pytest.raises(TypeError, match=r"bits counts and must be an integer, got 2\.5"):
        Copy(bits=2.5)
    with pytest.raises(ValueError, match="scale = nan"):
        RepeatCopy(scale=float("nan"))
    with pytest.raises(ValueError, match=r"lengths = \(0, 3\)"):
        Copy(lengths=(0, 3))
    with pytest.raises(ValueError, match=r"episodes = \(0, 2\)"):
        Copy(episodes=(0, 2))
    with pytest.raises(ValueError, match=r"repeats = \(3, 2\)"):
        RepeatCopy(repeats=(3, 2))
    with pytest.raises(ValueError, match="scale = 0"):
        RepeatCopy(scale=0.0)
