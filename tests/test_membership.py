import pytest
import torch

from ctrnn.tasks import TOMITA, Automaton, Membership, Task
from ctrnn.tasks.trials import Outputs


def draw(task, batch=64, dt=1.0, seed=0):
    return task.trials(batch, dt, torch.Generator().manual_seed(seed))


def strings(trials):
    return [[s for s in word if s >= 0] for word in trials.condition["symbols"].tolist()]


@pytest.mark.parametrize("number", TOMITA)
def test_half_of_the_strings_belong_to_the_language_and_are_labelled_so(number):
    task = Membership(TOMITA[number], lengths=(2, 12))
    trials = draw(task)
    assert isinstance(task, Task)
    assert trials.condition["accepted"].sum() == 32
    for k, word in enumerate(strings(trials)):
        accepted = TOMITA[number].recognises(word)
        assert 2 <= len(word) <= 12
        assert trials.condition["accepted"][k] == accepted
        assert bool((trials.targets[:, k] == float(accepted)).all())
        assert trials.us[: len(word), k].argmax(-1).tolist() == word
        assert bool((trials.us[len(word) :, k] == 0).all())
        assert trials.mask[:, k].nonzero().tolist() == [[len(word) - 1]]
        assert trials.lengths[k] == len(word)


def test_near_strings_are_one_symbol_away_from_the_language():
    parity = Membership(TOMITA[5], lengths=(8, 8), near=1.0)  # of which every change of one symbol leads out
    for word, accepted in zip(strings(draw(parity)), draw(parity).condition["accepted"].tolist(), strict=True):
        flipped = [[*word[:i], 1 - word[i], *word[i + 1 :]] for i in range(8)]
        assert accepted or any(TOMITA[5].recognises(other) for other in flipped)


def test_without_near_strings_the_rejected_ones_are_drawn_evenly():
    words = strings(draw(Membership(TOMITA[1], lengths=(8, 8), near=0.0), batch=400))[1::2]
    zeros = sum(word.count(0) for word in words) / len(words)
    assert abs(zeros - 4 * 256 / 255) < 0.4  # near ones have a single 0


def test_the_same_strings_exist_at_every_step():
    task = Membership(lengths=(3, 9), symbol_time=2.0)
    coarse, fine = draw(task, dt=2.0), draw(task, dt=0.5)
    assert torch.equal(coarse.condition["symbols"], fine.condition["symbols"])
    torch.testing.assert_close(fine.us, coarse.us.repeat_interleave(4, 0))
    assert torch.equal(fine.lengths, 4 * coarse.lengths)


def test_only_the_end_of_a_string_is_scored():
    task = Membership()
    trials = draw(task)
    ys = torch.full_like(trials.targets, torch.nan)
    ys[trials.mask] = 30 * (2 * trials.targets[trials.mask] - 1)
    assert task.evaluate(Outputs(ys), trials) == {"accuracy": 1.0}
    assert float(task.loss(ys, trials)) < 1e-12
    assert task.evaluate(Outputs(-ys), trials) == {"accuracy": 0.0}
    assert task.chance(trials) == {"accuracy": 0.5}


def test_lengths_without_strings_of_both_kinds_are_not_drawn():
    assert {len(word) for word in strings(draw(Membership(TOMITA[2], lengths=(1, 7))))} == {2, 4, 6}
    with pytest.raises(ValueError, match="all accepted or all rejected"):
        Membership(TOMITA[2], lengths=(3, 3))
    with pytest.raises(ValueError, match="range"):
        Membership(lengths=(0, 3))
    with pytest.raises(ValueError, match="near"):
        Membership(near=2.0)
    with pytest.raises(ValueError, match="all accepted"):
        Membership(Automaton(((1,), (0,)), (0,)), lengths=(1, 4))
