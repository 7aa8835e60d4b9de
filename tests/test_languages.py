import itertools
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrnn.tasks import CountedBlocks, MarkedReversal, NextSymbol, SummedBlocks, Task
from ctrnn.tasks.trials import Outputs


def written(times, n):
    return [symbol for symbol, m in enumerate(times) for _ in range(m * n)]


def followers(times, prefix):
    """The symbols that may follow a prefix, by comparison with every word that is not much longer; k is the end."""
    words = [written(times, n) for n in range(1, len(prefix) + 2)]
    rest = [word[len(prefix) :] for word in words if word[: len(prefix)] == prefix]
    return {left[0] if left else len(times) for left in rest}


@pytest.mark.parametrize("times", [(1, 1), (1, 1, 1), (1, 2), (2, 1), (2, 1, 3)])
def test_what_is_legal_is_what_some_word_goes_on_with(times):
    words = CountedBlocks(times).words(torch.tensor([4, 1, 3]))
    for k, n in enumerate((4, 1, 3)):
        word = written(times, n)
        assert words.lengths[k] == len(word)
        assert words.symbols[: len(word), k].tolist() == word
        assert words.symbols[len(word) :, k].eq(-1).all()
        for t in range(len(word)):
            legal = {symbol for symbol, may in enumerate(words.legal[t, k].tolist()) if may}
            assert legal == followers(times, word[: t + 1])
        assert not words.legal[len(word) :, k].any()


def continued(members, prefix, end):
    """The symbols that may follow a prefix, by comparison with every word; `end` is the end."""
    rest = [word[len(prefix) :] for word in members if word[: len(prefix)] == prefix]
    return {left[0] if left else end for left in rest}


def assert_legal(words, members, end):
    for k in range(words.symbols.shape[1]):
        word = [s for s in words.symbols[:, k].tolist() if s >= 0]
        assert word in members
        assert words.lengths[k] == len(word)
        for t in range(len(word)):
            legal = {symbol for symbol, may in enumerate(words.legal[t, k].tolist()) if may}
            assert legal == continued(members, word[: t + 1], end)
        assert not words.legal[len(word) :, k].any()


def test_sums_of_blocks_go_on_as_some_word_does():
    members = [[0] * n + [1] * m + [2] * (n + m) for n in range(1, 8) for m in range(1, 8)]
    words = SummedBlocks().words(torch.tensor([1, 3, 2]), torch.tensor([2, 1, 5]))
    assert words.lengths.tolist() == [6, 8, 14]
    assert_legal(words, members, 3)
    drawn = SummedBlocks((1, 4)).draw(300, torch.Generator().manual_seed(0))
    assert_legal(drawn, members, 3)
    assert set(drawn.lengths.tolist()) == {2 * k for k in range(2, 9)}


@pytest.mark.parametrize("letters", [1, 2, 3])
def test_marked_reversals_go_on_as_some_word_does(letters):
    ways = [w for n in range(1, 6) for w in itertools.product(range(letters), repeat=n)]
    members = [[*w, letters, *reversed(w)] for w in ways]
    drawn = MarkedReversal(letters, (1, 4)).draw(60, torch.Generator().manual_seed(0))
    assert_legal(drawn, members, letters + 1)
    assert set(drawn.lengths.tolist()) == {3, 5, 7, 9}
    data = trials(NextSymbol(MarkedReversal(letters)))
    assert data.us.shape[-1] == letters + 1
    assert NextSymbol(MarkedReversal(letters)).evaluate(Outputs(data.targets - 0.5), data)["word_accuracy"] == 1.0


def trials(task, batch=16, dt=1.0, seed=0):
    return task.trials(batch, dt, torch.Generator().manual_seed(seed))


def test_words_are_drawn_from_the_whole_range_and_from_nothing_else():
    lengths = trials(NextSymbol(CountedBlocks((1, 1), (3, 7))), batch=400).lengths
    assert set(lengths.tolist()) == {6, 8, 10, 12, 14}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), parts=st.integers(1, 5), time=st.sampled_from([0.5, 1.0, 2.0]))
def test_the_same_words_exist_at_every_step(seed, parts, time):
    task = NextSymbol(CountedBlocks((1, 1, 1), (1, 6)), symbol_time=time)
    whole, fine = trials(task, dt=time, seed=seed), trials(task, dt=time / parts, seed=seed)
    torch.testing.assert_close(fine.us, whole.us.repeat_interleave(parts, 0))
    assert torch.equal(fine.targets, whole.targets.repeat_interleave(parts, 0))
    assert torch.equal(fine.mask, whole.mask.repeat_interleave(parts, 0))
    assert torch.equal(fine.condition["symbols"], whole.condition["symbols"])


def test_a_word_is_right_when_every_place_is():
    task = NextSymbol()
    assert isinstance(task, Task)
    data = trials(task)
    ys = 40 * data.targets - 20
    ys[~data.mask] = torch.nan
    assert task.evaluate(Outputs(ys), data) == {"word_accuracy": 1.0, "symbol_accuracy": 1.0}
    assert float(task.loss(ys, data)) < 1e-8
    ys[0, 3, 0] *= -1
    right = task.right(SimpleNamespace(ys=ys), data)
    assert (~right).nonzero().tolist() == [[0, 3]]
    assert task.evaluate(Outputs(ys), data)["word_accuracy"] == 15 / 16


def test_chance_is_the_best_that_can_be_said_always():
    task = NextSymbol(CountedBlocks((1, 1), (5, 5)))
    # Five times {a, b}, four times {b}, once the end.
    assert trials(task).targets.sum(0)[0].tolist() == [5, 9, 1]
    assert task.chance(trials(task)) == {"word_accuracy": 0.0, "symbol_accuracy": 0.5}


def test_languages_without_words_are_refused():
    with pytest.raises(ValueError, match="two blocks"):
        CountedBlocks((1,))
    with pytest.raises(ValueError, match="empty"):
        CountedBlocks((1, 0))
    with pytest.raises(ValueError, match="range"):
        CountedBlocks(n=(0, 3))
    for language in (SummedBlocks, MarkedReversal):
        with pytest.raises(ValueError, match="range"):
            language(n=(2, 1))
    with pytest.raises(ValueError, match="letters"):
        MarkedReversal(letters=0)
    with pytest.raises(ValueError, match="symbol_time"):
        NextSymbol(symbol_time=0.0)
    with pytest.raises(ValueError, match="a symbol"):
        NextSymbol().trials(2, 1.5)
