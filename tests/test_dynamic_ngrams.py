"""Bits from a table that nobody knows: the best estimator costs what Bayes' rule says, and nothing costs less."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaln
from scipy.stats import beta, kstest

from ctrnn.tasks import DynamicNGrams, Task
from ctrnn.tasks.trials import Outputs


def draw(task, batch=16, dt=1.0, seed=0, **kwargs):
    return task.trials(batch, dt, torch.Generator().manual_seed(seed), **kwargs)


def likelihood(bits, n):
    """Of the bits that the table decides, all tables taken together: a Beta integral for each context."""
    counts = {}
    for k in range(n - 1, len(bits)):
        counts.setdefault(tuple(bits[k - n + 1 : k]), [0, 0])[bits[k]] += 1
    return math.exp(sum(betaln(ones + 0.5, zeros + 0.5) - betaln(0.5, 0.5) for zeros, ones in counts.values()))


def of(task, rows):
    bits = torch.tensor(rows).T
    return task.played(task.of(bits, torch.full((2 ** (task.n - 1), bits.shape[1]), 0.5)), 1.0)


@pytest.mark.parametrize("n", [2, 3])
def test_the_best_estimator_costs_each_sequence_the_logarithm_of_its_probability(n):
    task = DynamicNGrams(n, 8)
    rows = list(itertools.product((0, 1), repeat=8))
    expected = [-math.log2(likelihood(row, n)) for row in rows]
    assert sum(2.0**-cost for cost in expected) == pytest.approx(2 ** (n - 1))  # one for each way the coins can fall
    measured = []
    for row in rows:
        trials = of(task, [row])
        scores = task.evaluate(task.optimal(trials), trials)
        assert scores["excess"] == 0.0
        measured.append(scores["cost"])
    assert measured == pytest.approx(expected, rel=1e-12)


def test_what_it_costs_on_average_is_the_entropy_of_all_sequences():
    task = DynamicNGrams(2, 8)
    rows = itertools.product((0, 1), repeat=8)
    p = [likelihood(row, 2) / 2 for row in rows]
    entropy = -sum(q * math.log2(2 * q) for q in p)
    variance = sum(q * math.log2(2 * q) ** 2 for q in p) - entropy**2
    trials = draw(task, batch=4000)
    cost = task.evaluate(task.optimal(trials), trials)["cost"]
    assert cost == pytest.approx(entropy, abs=4 * math.sqrt(variance / 4000))


def test_the_estimator_is_equation_10():
    task = DynamicNGrams(3, 7)
    trials = of(task, [[0, 1, 1, 0, 1, 0, 1]])
    p = task.optimal(trials).ys[1:, 0, 0].sigmoid().tolist()
    # Behind 01, 11, 10, 01, 10, of which only the last two have been seen before, with a 1 each behind them.
    assert p == pytest.approx([0.5, 0.5, 0.5, 1.5 / 2, 1.5 / 2])


def test_the_line_of_the_paper_is_133_bits_with_the_five_coins():
    """Read off its figure 13: about 133, from a validation set of 1000 sequences."""
    task = DynamicNGrams()
    trials = draw(task, batch=1000)
    cost = task.evaluate(task.optimal(trials), trials)["cost"] + 5
    assert cost == pytest.approx(133, abs=2)
    chance = task.chance(trials)
    assert chance["cost"] == pytest.approx(195, abs=0.2)
    assert chance["excess"] == pytest.approx(chance["cost"] - cost + 5)


def test_nobody_who_guesses_otherwise_pays_less():
    task = DynamicNGrams(3, 60)
    trials = draw(task, batch=2000)
    best = task.optimal(trials).ys
    for change in (0.7, 0.9, 1.1, 1.4):
        assert task.evaluate(Outputs(best * change), trials)["excess"] > 0
    noise = torch.randn(best.shape, generator=torch.Generator().manual_seed(1))
    assert task.evaluate(Outputs(best + 0.3 * noise), trials)["excess"] > 0


def test_tables_are_drawn_from_beta_and_bits_from_the_tables():
    task = DynamicNGrams(3, 400)
    trials = draw(task, batch=200)
    table, bits = trials.condition["table"], trials.condition["bits"]
    assert table.shape == (200, 4)
    assert kstest(table.flatten().numpy(), beta(0.5, 0.5).cdf).pvalue > 1e-4
    context = 2 * bits[:, :-2] + bits[:, 1:-1]
    p = table.gather(1, context)
    surprise = (bits[:, 2:] - p).sum() / (p * (1 - p)).sum().sqrt()
    assert surprise.abs() < 4
    for c in range(4):
        here = context == c
        z = ((bits[:, 2:] - p)[here]).sum() / (p * (1 - p))[here].sum().sqrt()
        assert z.abs() < 4
    assert bits[:, :2].double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 20)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), parts=st.integers(1, 4), n=st.integers(2, 4))
def test_the_next_bit_is_due_wherever_the_table_decides_it(seed, parts, n):
    task = DynamicNGrams(n, 12)
    assert isinstance(task, Task)
    trials = draw(task, batch=4, dt=1 / parts, seed=seed)
    bits = trials.condition["bits"].T.double()
    whole = slice(parts - 1, None, parts)
    torch.testing.assert_close(trials.us[..., 0], bits[:-1].repeat_interleave(parts, 0), rtol=0, atol=1e-9)
    assert torch.equal(trials.targets[whole, :, 0], bits[1:])
    assert trials.mask.sum(0).tolist() == [12 - n + 1] * 4
    assert trials.mask[whole][n - 2 :].all()
    coarse = draw(task, batch=4, seed=seed)
    assert task.evaluate(task.optimal(trials), trials) == task.evaluate(task.optimal(coarse), coarse)


def test_float32_is_scored_like_float64():
    task = DynamicNGrams(3, 30)
    single, double = draw(task, dtype=torch.float32), draw(task, dtype=torch.float64)
    assert task.optimal(single).ys.dtype == torch.float32
    assert task.evaluate(task.optimal(single), single) == pytest.approx(task.evaluate(task.optimal(double), double))


def test_tables_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="n = 1"):
        DynamicNGrams(n=1)
    with pytest.raises(ValueError, match="length = 5"):
        DynamicNGrams(length=5)
    with pytest.raises(ValueError, match="a symbol"):
        DynamicNGrams().trials(2, 2.0)
