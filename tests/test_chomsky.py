"""Strings along the Chomsky hierarchy: every answer recomputed the plain way, every layout, every chance level."""

import dataclasses
import itertools
import math
import re
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ctrnn import tasks
from ctrnn.tasks import Task, Transduction
from ctrnn.tasks.trials import Outputs


def concrete(kind):
    children = [c for child in kind.__subclasses__() for c in concrete(child)]
    return children + ([] if kind.__abstractmethods__ else [kind])


KINDS = sorted(concrete(Transduction), key=lambda kind: kind.__name__)
TASKS = [kind(lengths=(1, 12)) for kind in KINDS]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
seeds = st.integers(0, 2**31)


def draw(task, batch=16, dt=1.0, seed=0, **kwargs):
    return task.trials(batch, dt, torch.Generator().manual_seed(seed), **kwargs)


def strings(trials, name="symbols"):
    return [[s for s in row if s >= 0] for row in trials.condition[name].tolist()]


# ---- answers, the plain way


def changes(s):
    return [sum(a != b for a, b in itertools.pairwise(s)) % 2]


def walk(s):
    place = 0
    for step in s:
        place = (place + step - 1) % 5
    return [place]


def stack(s):
    pile = []
    for symbol in s:
        if symbol == 2:
            pile = pile[:-1]
        else:
            pile.append({0: 0, 1: 1, 3: 0, 4: 1}[symbol])
    return [*reversed(pile), 2]


def missing(s):
    half = len(s) // 2
    k = s.index(2)
    one, two = s[:half], s[half:]
    assert all(a == b or 2 in (a, b) for a, b in zip(one, two, strict=True))
    return [s[(k + half) % len(s)]]


def evaluate(symbols, alphabet):
    return eval("".join(alphabet[s] for s in symbols)) % 5


def solve(s):
    text = "".join("01234+-()x="[k] for k in s)
    left, right = text.split("=")
    roots = [x for x in range(5) if eval(left.replace("x", str(x))) % 5 == int(right)]
    assert len(roots) == 1
    return roots


def number(bits):
    """Least bit first."""
    return sum(bit << k for k, bit in enumerate(bits))


def two_numbers(operation):
    def answer(s):
        cut = s.index(2)
        a, b = number(s[:cut]), number(s[cut + 1 :])
        assert a > 0
        assert b > 0
        c = operation(a, b)
        return [(c >> k) & 1 for k in range(c.bit_length())] + [2]

    return answer


def root(s):
    n = number(s[::-1])
    assert n > 0
    half = math.ceil(len(s) / 2)
    r = max(k for k in range(2**half) if k * k <= n)
    return [(r >> k) & 1 for k in reversed(range(half))]


ANSWERS = {
    tasks.EvenPairs: changes,
    tasks.ParityCheck: lambda s: [s.count(1) % 2],
    tasks.CycleNavigation: walk,
    tasks.ModularArithmetic: lambda s: [evaluate(s, "01234+-*")],
    tasks.ReverseString: lambda s: s[::-1],
    tasks.StackManipulation: stack,
    tasks.BracketedArithmetic: lambda s: [evaluate(s, "01234+-*()")],
    tasks.SolveEquation: solve,
    tasks.DuplicateString: lambda s: s + s,
    tasks.MissingDuplicate: missing,
    tasks.OddsFirst: lambda s: s[0::2] + s[1::2],
    tasks.BucketSort: sorted,
    tasks.BinaryAddition: two_numbers(lambda a, b: a + b),
    tasks.BinaryMultiplication: two_numbers(lambda a, b: a * b),
    tasks.BinarySquareRoot: root,
}
TOKENS = {tasks.StackManipulation: lambda n: n + 1, tasks.BinaryAddition: lambda n: n + 1}
TOKENS |= {tasks.BinaryMultiplication: lambda n: n, tasks.BinarySquareRoot: lambda n: (n + 1) // 2}
TOKENS |= dict.fromkeys((tasks.ReverseString, tasks.OddsFirst, tasks.BucketSort), lambda n: n)
TOKENS[tasks.DuplicateString] = lambda n: 2 * n


def tokens(task, length):
    """Output tokens that a string of this length gets."""
    return TOKENS.get(type(task), lambda n: 1)(length)


@every_task
@settings(max_examples=12, deadline=None)
@given(seed=seeds, computation=st.integers(0, 2))
def test_every_answer_is_right_and_said_where_it_should_be(task, seed, computation):
    task = dataclasses.replace(task, computation=computation)
    trials = draw(task, seed=seed)
    n = task.n_symbols
    for b, string in enumerate(strings(trials)):
        answer = ANSWERS[type(task)](string)
        assert strings(trials, "answers")[b] == answer
        length, due = len(string), tokens(task, len(string))
        first = length * (1 + computation)
        assert trials.lengths[b] == first + due
        page = trials.us[: first + due, b].tolist()
        channels = [n] if computation == 0 else [n, n + 1]
        assert len(page[0]) == task.n_in == n + len(channels)
        shown = [*string, *[n + 1] * (first - length), *[n] * due]
        assert page == [[float(k == symbol) for k in range(task.n_in)] for symbol in shown]
        assert trials.mask[:, b].nonzero()[:, 0].tolist() == list(range(first, first + len(answer)))
        assert trials.targets[first : first + len(answer), b].argmax(-1).tolist() == answer
        assert trials.targets[:, b].sum() == len(answer)
        assert trials.periods["string"][:, b].tolist() == [0, length]
        assert trials.periods["answer"][:, b].tolist() == [first, first + due]


def test_there_is_a_plain_answer_for_every_task_and_a_task_for_every_level():
    assert set(KINDS) == set(ANSWERS)
    levels = Counter(kind.level for kind in KINDS)
    assert levels == {"regular": 4, "deterministic context-free": 4, "context-sensitive": 7}


@pytest.mark.parametrize(
    ("task", "string", "answer"),
    [  # the examples of the paper's code
        (tasks.EvenPairs(), [0, 0, 1, 1, 1, 0], [0]),
        (tasks.EvenPairs(), [0, 1, 0, 1, 0, 0, 1], [1]),
        (tasks.ParityCheck(), [1, 0, 1, 0, 1, 0, 0], [1]),
        (tasks.CycleNavigation(), [2, 0, 1, 0, 0], [3]),
        (tasks.CycleNavigation(), [2, 2, 2, 0], [2]),
        (tasks.BucketSort(), [1, 0, 2, 0, 4, 1, 1, 2], [0, 0, 1, 1, 1, 2, 2, 4]),
        (tasks.OddsFirst(), [0, 0, 1, 1, 0, 1, 0, 1], [0, 1, 0, 0, 0, 1, 1, 1]),
        (tasks.DuplicateString(), [1, 0, 1], [1, 0, 1, 1, 0, 1]),
    ],
)
def test_the_examples_of_the_paper_are_answered_as_there(task, string, answer):
    symbols = torch.tensor(string)[:, None]
    assert task.answers(symbols, torch.tensor([len(string)]))[:, 0].tolist() == answer
    assert ANSWERS[type(task)](string) == answer


def test_the_plain_answers_are_those_of_the_papers_examples_too():
    assert stack([0, 1, 1, 0, 4, 2, 2]) == [1, 1, 0, 2]
    assert stack([1, 1, 0, 2, 2, 2]) == [2]
    assert ANSWERS[tasks.BinaryAddition]([0, 0, 1, 2, 0, 1, 1, 0, 1]) == [0, 1, 0, 1, 1, 2]
    assert ANSWERS[tasks.BinaryMultiplication]([1, 0, 0, 1, 2, 0, 0, 0, 0, 0, 1]) == [0, 0, 0, 0, 0, 1, 0, 0, 1, 2]
    assert root([1, 0, 0, 1, 0, 1]) == [1, 1, 0]
    assert missing([0, 1, 1, 0, 0, 2, 1, 0]) == [1]
    assert evaluate([1, 5, 2, 7, 3], "01234+-*") == 2


# ---- which strings


@every_task
def test_lengths_are_drawn_evenly_from_those_that_there_are(task):
    lengths = [len(s) for s in strings(draw(task, batch=3000))]
    possible = task.possible()
    assert set(lengths) == set(possible)
    assert chisquare([lengths.count(n) for n in possible]).pvalue > 1e-4


@pytest.mark.parametrize(
    ("task", "count"),
    [
        (tasks.ParityCheck(lengths=(4, 4)), 16),
        (tasks.BucketSort(lengths=(2, 2)), 25),
        (tasks.ModularArithmetic(lengths=(3, 3)), 75),
        (tasks.MissingDuplicate(lengths=(4, 4)), 16),  # 4 strings, each with one of 4 places missing
    ],
    ids=repr,
)
def test_all_strings_of_a_length_are_equally_likely(task, count):
    drawn = Counter(map(tuple, strings(draw(task, batch=4000))))
    if isinstance(task, tasks.MissingDuplicate):
        assert all(s.count(2) == 1 for s in drawn)
    assert len(drawn) == count
    assert chisquare(list(drawn.values())).pvalue > 1e-4


def test_numbers_that_are_added_are_all_equally_likely_and_split_evenly():
    drawn = strings(draw(tasks.BinaryAddition(lengths=(6, 6)), batch=4000))
    cuts = Counter(s.index(2) for s in drawn)
    assert set(cuts) == {1, 2, 3, 4}
    assert chisquare(list(cuts.values())).pvalue > 1e-4
    first = Counter(number(s[:2]) for s in drawn if s.index(2) == 2)
    assert set(first) == {1, 2, 3}
    assert chisquare(list(first.values())).pvalue > 1e-4


def test_stacks_are_of_all_heights_from_one_to_the_last_but_one():
    """Symbols before the first action are at least the stack; a push looks different from a bit of it."""
    drawn = strings(draw(tasks.StackManipulation(lengths=(5, 5)), batch=3000))
    heights = Counter(sum(symbol < 2 for symbol in s) for s in drawn)
    assert set(heights) == {1, 2, 3, 4}
    assert chisquare(list(heights.values())).pvalue > 1e-4
    assert all(re.fullmatch("[01]+[234]+", "".join(map(str, s))) for s in drawn)


def test_an_expression_of_five_symbols_has_an_operator_in_the_middle_of_brackets():
    drawn = {tuple(s) for s in strings(draw(tasks.BracketedArithmetic(lengths=(5, 5)), batch=3000))}
    assert drawn == {(8, a, operator, b, 9) for a in range(5) for operator in (5, 6, 7) for b in range(5)}


# ---- protocol


@every_task
def test_it_is_a_task_whose_trials_come_from_the_generator_alone(task):
    assert isinstance(task, Task)
    before = torch.get_rng_state()
    one, same, other = draw(task), draw(task), draw(task, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.us, same.us)
    assert one.us.shape != other.us.shape or not torch.equal(one.us, other.us)
    uniform = draw(dataclasses.replace(task, same_length=True))
    assert (uniform.lengths == uniform.lengths[0]).all()


@every_task
@settings(max_examples=5, deadline=None)
@given(seed=seeds, parts=st.integers(2, 5))
def test_the_same_strings_exist_at_every_step_and_each_token_is_scored_at_its_end(task, seed, parts):
    whole, fine = draw(task, seed=seed), draw(task, dt=1 / parts, seed=seed)
    torch.testing.assert_close(fine.us, whole.us.repeat_interleave(parts, 0), rtol=0, atol=1e-9)
    assert torch.equal(fine.targets, whole.targets.repeat_interleave(parts, 0))
    assert torch.equal(fine.mask[parts - 1 :: parts], whole.mask)
    assert fine.mask.sum() == whole.mask.sum()


@every_task
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_answers_score_perfectly_and_nothing_else_is_looked_at(task, dtype):
    trials = draw(task, dtype=dtype)
    ys = (9 * trials.targets).masked_fill(~trials.mask[..., None], torch.nan).requires_grad_()
    assert task.evaluate(Outputs(ys), trials) == {"accuracy": 1.0, "sequence_accuracy": 1.0}
    task.loss(ys, trials).backward()
    assert torch.equal(ys.grad.any(-1), trials.mask)
    right = ys.detach().log_softmax(-1)[trials.mask].amax(-1)
    torch.testing.assert_close(task.loss(ys, trials).detach(), -right.mean())
    spoilt = ys.detach().clone()
    t = int(trials.mask[:, 3].nonzero()[0, 0])
    spoilt[t, 3] = -spoilt[t, 3]
    scores = task.evaluate(Outputs(spoilt), trials)
    assert scores["accuracy"] == pytest.approx(1 - 1 / trials.mask.sum().item())
    assert scores["sequence_accuracy"] == 15 / 16


@every_task
def test_no_symbol_said_always_is_right_more_often_than_chance(task):
    trials = draw(task, batch=100)
    accuracies = []
    for symbol in range(task.n_out):
        ys = torch.eye(task.n_out)[symbol].expand(trials.targets.shape)
        accuracies.append(task.evaluate(Outputs(ys), trials)["accuracy"])
    assert task.chance(trials)["accuracy"] == max(accuracies)


CHANCE = {tasks.CycleNavigation: 1 / 5, tasks.SolveEquation: 1 / 5, tasks.BucketSort: 1 / 5}
CHANCE |= dict.fromkeys(
    (tasks.EvenPairs, tasks.ParityCheck, tasks.ReverseString, tasks.DuplicateString, tasks.OddsFirst), 1 / 2
)


@pytest.mark.parametrize("kind", CHANCE, ids=lambda kind: kind.__name__)
def test_chance_is_one_of_the_symbols_of_the_answer(kind):
    task = kind(lengths=(10, 20))
    trials = draw(task, batch=1000)
    n = trials.mask.sum().item()
    p = CHANCE[kind]
    # Above the level only because the best of several symbols is taken, on these very trials.
    assert p <= task.chance(trials)["accuracy"] < p + 5 * math.sqrt(p * (1 - p) / n)


# ---- bad input


@pytest.mark.parametrize(
    ("kind", "options", "problem"),
    [
        (tasks.ModularArithmetic, {"lengths": (4, 4)}, "ModularArithmetic has no string"),
        (tasks.MissingDuplicate, {"lengths": (1, 1)}, "MissingDuplicate has no string"),
        (tasks.BinaryAddition, {"lengths": (1, 2)}, "BinaryAddition has no string"),
        (tasks.ParityCheck, {"lengths": (0, 3)}, "lengths"),
        (tasks.ParityCheck, {"computation": -1}, "computation"),
        (tasks.ParityCheck, {"symbol_time": 0.0}, "symbol_time"),
    ],
)
def test_strings_that_cannot_be_are_refused(kind, options, problem):
    with pytest.raises(ValueError, match=problem):
        kind(**options)


def test_a_step_longer_than_a_symbol_is_refused():
    with pytest.raises(ValueError, match="a symbol"):
        tasks.ParityCheck().trials(2, 1.1)
