"""Brackets: words that a stack accepts, drawn as often as they should be, and scores that mean what they say."""

import functools
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ctrnn.tasks import Dyck, Task
from ctrnn.tasks.trials import Outputs

seeds = st.integers(0, 2**31)


def draw(task, batch=16, dt=1.0, seed=0, **kwargs):
    return task.trials(batch, dt, torch.Generator().manual_seed(seed), **kwargs)


def words(trials):
    return [tuple(s for s in row if s >= 0) for row in trials.condition["symbols"].tolist()]


def followers(word, kinds, depth):
    """What may come next after every symbol, by a stack; None for what is no word."""
    stack, legal = [], []
    for symbol in word:
        if symbol < kinds:
            stack.append(symbol)
        elif not stack or stack.pop() != symbol - kinds:
            return None
        if depth is not None and len(stack) > depth:
            return None
        legal.append(set())
        if depth is None or len(stack) < depth:
            legal[-1] |= set(range(kinds))
        legal[-1].add(kinds + stack[-1] if stack else 2 * kinds)
    return None if stack else legal


@settings(max_examples=30, deadline=None)
@given(seed=seeds, kinds=st.integers(1, 4), depth=st.sampled_from([None, 1, 2, 4]), grown=st.booleans())
def test_every_word_is_one_and_what_is_legal_is_what_a_stack_says(seed, kinds, depth, grown):
    task = Dyck(kinds, (2, 16), depth, (0.5, 0.25) if grown else None)
    trials = draw(task, seed=seed)
    for b, word in enumerate(words(trials)):
        legal = followers(word, kinds, depth)
        assert legal is not None
        assert 2 <= len(word) <= 16
        assert trials.lengths[b] == len(word)
        for t, symbol in enumerate(word):
            assert trials.us[t, b].tolist() == [float(k == symbol) for k in range(2 * kinds)]
            assert set(trials.targets[t, b].nonzero()[:, 0].tolist()) == legal[t]
        assert not trials.us[len(word) :, b].any()
        assert trials.mask[:, b].tolist() == [t < len(word) for t in range(len(trials.us))]


@functools.cache
def all_words(length, kinds, depth):
    return [w for w in itertools.product(range(2 * kinds), repeat=length) if followers(w, kinds, depth) is not None]


@pytest.mark.parametrize(("kinds", "depth", "count"), [(1, None, 14), (2, None, 40), (1, 2, 8), (2, 1, 8)])
def test_all_words_of_a_length_are_equally_likely(kinds, depth, count):
    length = 8 if kinds == 1 else 6
    possible = all_words(length, kinds, depth)
    assert len(possible) == count  # Catalan: 14 of 4 pairs, 5 * 2^3 of 3; 2^3 no deeper than 2; 2^3 pairs in a row
    drawn = words(draw(Dyck(kinds, (length, length), depth), batch=4000))
    counts = [drawn.count(word) for word in possible]
    assert sum(counts) == 4000
    assert chisquare(counts).pvalue > 1e-4


def test_lengths_are_drawn_evenly_from_the_even_numbers_of_the_range():
    lengths = draw(Dyck(lengths=(3, 9)), batch=3000).lengths
    counts = [int((lengths == n).sum()) for n in (4, 6, 8)]
    assert sum(counts) == 3000
    assert chisquare(counts).pvalue > 1e-4
    same = [draw(Dyck(lengths=(3, 9), same_length=True), seed=seed).lengths for seed in range(20)]
    assert all((n == n[0]).all() for n in same)
    assert {int(n[0]) for n in same} == {4, 6, 8}


def probability(word, p, q):
    """That S -> (S) | SS | nothing derives a word of one kind: the inside algorithm."""
    r = 1 - p - q
    nothing = (1 - (1 - 4 * q * r) ** 0.5) / (2 * q)

    @functools.cache
    def inside(w):
        if not w:
            return nothing
        total = p * inside(w[1:-1]) if w[0] == 0 and w[-1] == 1 and followers(w[1:-1], 1, None) is not None else 0.0
        splits = [(w[:k], w[k:]) for k in range(1, len(w))]
        total += q * sum(
            inside(u) * inside(v) for u, v in splits if None not in (followers(u, 1, 9), followers(v, 1, 9))
        )
        return total / (1 - 2 * q * nothing)  # either S of S S may have become nothing

    return inside(word)


def test_words_of_the_grammar_are_as_likely_as_the_grammar_derives_them():
    p, q = 0.5, 0.25
    possible = [word for n in (2, 4, 6) for word in all_words(n, 1, None)]
    expected = torch.tensor([probability(word, p, q) for word in possible])
    drawn = words(draw(Dyck(1, (2, 6), None, (p, q)), batch=4000))
    counts = torch.tensor([float(drawn.count(word)) for word in possible])
    assert counts.sum() == 4000
    assert chisquare(counts.numpy(), (4000 * expected / expected.sum()).numpy()).pvalue > 1e-4


def test_the_brackets_of_a_word_are_of_all_kinds_equally_often():
    trials = draw(Dyck(3, (20, 20)), batch=200)
    counts = [int((trials.condition["symbols"] == kind).sum()) for kind in range(3)]
    assert sum(counts) == 2000
    assert chisquare(counts).pvalue > 1e-4


@settings(max_examples=15, deadline=None)
@given(seed=seeds, parts=st.integers(2, 6), time=st.sampled_from([0.5, 1.0]))
def test_the_same_words_exist_at_every_step_and_each_symbol_is_scored_at_its_end(seed, parts, time):
    task = Dyck(lengths=(2, 12), symbol_time=time)
    whole, fine = draw(task, dt=time, seed=seed), draw(task, dt=time / parts, seed=seed)
    torch.testing.assert_close(fine.us, whole.us.repeat_interleave(parts, 0), rtol=0, atol=1e-9)
    assert torch.equal(fine.targets, whole.targets.repeat_interleave(parts, 0))
    assert torch.equal(fine.mask[parts - 1 :: parts], whole.mask)
    assert fine.mask.sum() == whole.mask.sum()
    assert torch.equal(fine.condition["symbols"], whole.condition["symbols"])


# ---- scores


def test_the_stack_scores_perfectly_and_one_slip_costs_one_word():
    task = Dyck(lengths=(4, 12))
    assert isinstance(task, Task)
    trials = draw(task)
    ys = (40 * trials.targets - 20).masked_fill(~trials.mask[..., None], torch.nan)
    assert task.evaluate(Outputs(ys), trials) == dict.fromkeys(
        ("word_accuracy", "symbol_accuracy", "closing_accuracy"), 1.0
    )
    assert float(task.loss(ys, trials)) < 1e-8
    ys[0, 3, 0] *= -1
    assert (~task.right(Outputs(ys), trials)).nonzero().tolist() == [[0, 3]]
    scores = task.evaluate(Outputs(ys), trials)
    assert scores["word_accuracy"] == 15 / 16
    assert scores["symbol_accuracy"] == pytest.approx(1 - 1 / trials.lengths.sum().item())
    assert scores["closing_accuracy"] == 1.0


def test_closing_accuracy_asks_only_which_bracket_fits():
    task = Dyck(kinds=2)
    trials = task.played(task.of(torch.tensor([[0, 1, 3, 2]]).T), 1.0)
    ys = torch.full_like(trials.targets, -5.0)
    for t, fits in enumerate((2, 3, 2)):  # none is open at the end of the word
        ys[t, 0, fits] = -4.0
    scores = task.evaluate(Outputs(ys), trials)
    assert (scores["closing_accuracy"], scores["symbol_accuracy"]) == (1.0, 0.0)
    ys[1, 0, 2] = 0.0
    assert task.evaluate(Outputs(ys), trials)["closing_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("task", [Dyck(lengths=(2, 8)), Dyck(kinds=1, lengths=(2, 2)), Dyck(3, (2, 20), 2)], ids=repr)
def test_nothing_said_always_is_right_more_often_than_chance(task):
    trials = draw(task, batch=60)
    chance = task.chance(trials)
    for said in itertools.product((-1.0, 1.0), repeat=task.n_out):
        scores = task.evaluate(Outputs(torch.tensor(said).expand_as(trials.targets)), trials)
        assert scores["symbol_accuracy"] <= chance["symbol_accuracy"] + 1e-12
    best = 0.0
    for kind in range(task.kinds):
        ys = torch.zeros_like(trials.targets)
        ys[..., task.kinds + kind] = 1.0
        best = max(best, task.evaluate(Outputs(ys), trials)["closing_accuracy"])
    assert chance["closing_accuracy"] == pytest.approx(best)


def test_float32_and_float64_are_the_same_words():
    single, double = draw(Dyck(), dtype=torch.float32), draw(Dyck(), dtype=torch.float64)
    assert single.us.dtype == torch.float32
    assert torch.equal(double.us.float(), single.us)
    assert Dyck().chance(single) == pytest.approx(Dyck().chance(double))


# ---- bad input


@pytest.mark.parametrize("word", [[0], [2, 0], [0, 3], [0, 2, 2], [0, 4], [0, -1, 2], [-1, -1]])
def test_what_is_no_word_is_refused_and_pointed_at(word):
    good = [0, 2, *[-1] * (len(word) - 2)] if len(word) > 1 else [-1]
    with pytest.raises(ValueError, match="does not belong"):
        Dyck().of(torch.tensor([good, word]).T)


def test_a_word_that_is_too_deep_is_refused():
    deep = torch.tensor([[0, 1, 3, 2]]).T
    assert Dyck(depth=2).of(deep).lengths.tolist() == [4]
    with pytest.raises(ValueError, match="word 0 does not belong to"):
        Dyck(depth=1).of(deep)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"kinds": 0}, "kinds = 0"),
        ({"depth": 0}, "depth = 0"),
        ({"lengths": (0, 4)}, "lengths"),
        ({"lengths": (5, 5)}, "even"),
        ({"grammar": (0.0, 0.2)}, "grammar"),
        ({"grammar": (0.5, 0.5)}, "grammar"),
        ({"grammar": (0.5, 0.3)}, "never end"),
        ({"grammar": (0.5, 0.25), "same_length": True}, "same_length"),
    ],
)
def test_languages_that_cannot_be_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        Dyck(**options)


def test_a_grammar_that_hardly_ever_gets_there_says_so():
    with pytest.raises(ValueError, match="less than once"):
        draw(Dyck(lengths=(40, 50), grammar=(0.01, 0.01)), batch=1)
    with pytest.raises(ValueError, match="a symbol"):
        Dyck().trials(2, 1.5)
