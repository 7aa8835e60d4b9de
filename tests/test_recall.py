"""Items recalled by what came before them, and vectors in the order of their priorities."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest, uniform

from ctrnn.tasks import AssociativeRecall, PrioritySort, Task
from ctrnn.tasks.trials import Outputs

TASKS = [
    AssociativeRecall(bits=3, vectors=2, items=(2, 5)),
    AssociativeRecall(bits=2, vectors=1, items=(2, 2), symbol_time=0.5),
    PrioritySort(bits=3, lengths=(1, 6), kept=4),
]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
seeds = st.integers(0, 2**31)


def draw(task, batch=8, dt=None, seed=0, **kwargs):
    dt = task.symbol_time if dt is None else dt
    return task.trials(batch, dt, torch.Generator().manual_seed(seed), **kwargs)


def shown(trials, b):
    return trials.us[: trials.lengths[b], b].tolist()


def said(trials, b):
    return trials.targets[trials.mask[:, b], b].tolist()


@every_task
def test_it_is_a_task_whose_trials_come_from_the_generator_alone(task):
    assert isinstance(task, Task)
    assert type(task)() == type(task)()
    before = torch.get_rng_state()
    one, same, other = draw(task), draw(task), draw(task, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert one.us.shape == (one.lengths.max(), 8, task.n_in)
    assert one.targets.shape == (*one.us.shape[:2], task.n_out)
    assert torch.equal(one.us, same.us)
    assert one.us.shape != other.us.shape or not torch.equal(one.us, other.us)
    even = draw(dataclasses.replace(task, same_length=True))
    assert (even.lengths == even.lengths[0]).all()


@every_task
@settings(max_examples=8, deadline=None)
@given(seed=seeds, parts=st.integers(2, 5))
def test_the_same_trials_exist_at_every_step_and_each_answer_is_scored_at_its_end(task, seed, parts):
    whole, fine = draw(task, seed=seed), draw(task, dt=task.symbol_time / parts, seed=seed)
    torch.testing.assert_close(fine.us, whole.us.repeat_interleave(parts, 0), rtol=0, atol=1e-9)
    assert torch.equal(fine.targets, whole.targets.repeat_interleave(parts, 0))
    assert torch.equal(fine.mask[parts - 1 :: parts], whole.mask)
    assert fine.mask.sum() == whole.mask.sum()
    for name in whole.condition:
        assert torch.equal(fine.condition[name], whole.condition[name])


@every_task
def test_the_answers_score_perfectly_and_chance_is_a_bit_for_each_bit(task):
    trials = draw(task, batch=500)
    ys = (40 * trials.targets - 20).masked_fill(~trials.mask[..., None], torch.nan)
    scores = task.evaluate(Outputs(ys), trials)
    assert scores["cost"] < 1e-4
    assert (scores["bit_error"], scores["sequence_accuracy"]) == (0.0, 1.0)
    per_trial = trials.mask.sum().item() * task.n_out / 500
    chance = task.chance(trials)
    assert 0.98 * per_trial < chance["cost"] <= per_trial
    assert chance["bit_error"] == pytest.approx(0.5, abs=0.06)


# ---- associative recall


@settings(max_examples=25, deadline=None)
@given(seed=seeds, bits=st.integers(2, 4), vectors=st.integers(2, 3))
def test_the_answer_is_the_item_behind_the_query_and_everything_is_delimited(seed, bits, vectors):
    task = AssociativeRecall(bits, vectors, (2, 5))
    trials = draw(task, seed=seed)
    item_mark, query_mark = [0.0] * bits + [1.0, 0.0], [0.0] * bits + [0.0, 1.0]
    for b in range(8):
        page, count = shown(trials, b), int(trials.condition["items"][b])
        items = []
        for _ in range(count):
            assert page.pop(0) == item_mark
            items.append([page.pop(0) for _ in range(vectors)])
        assert page.pop(0) == item_mark
        assert page.pop(0) == query_mark
        query = [page.pop(0) for _ in range(vectors)]
        assert page.pop(0) == query_mark
        assert page == [[0.0] * (bits + 2)] * vectors
        assert all(row[bits:] == [0, 0] for item in items for row in item)
        assert all(one != other for k, one in enumerate(items) for other in items[:k])
        place = items.index(query)
        assert place == trials.condition["query"][b] < count - 1
        assert said(trials, b) == [row[:bits] for row in items[place + 1]]
        rows = trials.mask[:, b].nonzero()[:, 0].tolist()
        assert rows == list(range(int(trials.lengths[b]) - vectors, int(trials.lengths[b])))


def test_the_trials_of_the_paper_ask_for_18_bits():
    trials = draw(AssociativeRecall(), batch=200)
    assert (trials.mask.sum(0) * 6 == 18).all()
    assert set(trials.condition["items"].tolist()) == {2, 3, 4, 5, 6}
    assert AssociativeRecall().chance(trials)["cost"] == pytest.approx(18, rel=0.01)
    assert set(trials.lengths.tolist()) == {4 * n + 1 + 5 + 3 for n in (2, 3, 4, 5, 6)}


def test_every_item_but_the_last_is_asked_for_equally_often():
    query = draw(AssociativeRecall(items=(5, 5)), batch=2000).condition["query"]
    assert chisquare(query.bincount(minlength=4).tolist()).pvalue > 1e-4


def test_items_are_different_even_when_there_are_hardly_enough():
    trials = draw(AssociativeRecall(bits=2, vectors=1, items=(2, 2)), batch=3000)
    first, second = trials.us[1, :, :2], trials.us[3, :, :2]
    assert (first != second).any(-1).all()
    pairs = (first @ torch.tensor([2.0, 1.0]) * 4 + second @ torch.tensor([2.0, 1.0])).long().bincount(minlength=16)
    assert chisquare([n for k, n in enumerate(pairs.tolist()) if k % 5]).pvalue > 1e-4


# ---- priority sort


@settings(max_examples=15, deadline=None)
@given(seed=seeds, kept=st.integers(1, 7))
def test_vectors_are_said_from_the_highest_priority_down(seed, kept):
    task = PrioritySort(bits=4, lengths=(1, 6), kept=kept)
    trials = draw(task, seed=seed)
    for b in range(8):
        page, n = shown(trials, b), int(trials.condition["length"][b])
        rows, rest = page[:n], page[n:]
        assert all(-1 <= row[4] < 1 and row[5] == 0 for row in rows)
        assert rest == [[0, 0, 0, 0, 0, 1], *[[0] * 6] * min(n, kept)]
        order = sorted(rows, key=lambda row: -row[4])[:kept]
        assert said(trials, b) == [row[:4] for row in order]
        assert trials.condition["priorities"][b, :n].tolist() == pytest.approx([row[4] for row in rows])
        assert trials.condition["priorities"][b, n:].isneginf().all()


def test_the_paper_sorts_sixteen_of_twenty_whose_priorities_are_uniform():
    trials = draw(PrioritySort(), batch=100)
    assert (trials.lengths == 20 + 1 + 16).all()
    assert (trials.mask.sum(0) == 16).all()
    assert kstest(trials.condition["priorities"].flatten().numpy(), uniform(-1, 2).cdf).pvalue > 1e-4


def test_of_two_vectors_with_one_priority_the_first_is_said_first():
    task = PrioritySort(bits=1, lengths=(3, 3), kept=3)
    vectors = torch.tensor([1.0, 0.0, 1.0])[:, None, None]
    trials = task.played(task.of(vectors, torch.tensor([0.5, 0.5, 0.7])[:, None], torch.tensor([3])), 1.0)
    assert said(trials, 0) == [[1.0], [1.0], [0.0]]


# ---- bad input


@pytest.mark.parametrize(
    ("kind", "options", "problem"),
    [
        (AssociativeRecall, {"bits": 0}, "bits = 0"),
        (AssociativeRecall, {"vectors": 0}, "vectors = 0"),
        (AssociativeRecall, {"items": (1, 4)}, "items"),
        (AssociativeRecall, {"bits": 1, "vectors": 2, "items": (2, 3)}, "none comes twice"),
        (PrioritySort, {"bits": 0}, "bits = 0"),
        (PrioritySort, {"lengths": (0, 4)}, "lengths"),
        (PrioritySort, {"kept": 0}, "kept = 0"),
    ],
)
def test_trials_that_cannot_be_are_refused(kind, options, problem):
    with pytest.raises(ValueError, match=problem):
        kind(**options)
