import re
from itertools import groupby, pairwise, product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ctrnn import Iterate, integrate
from ctrnn.analysis import extract_automaton
from ctrnn.models import SecondOrder
from ctrnn.tasks.automata import TOMITA, Automaton


def odd_zeros_behind_odd_ones(string):
    runs = [(symbol, len(list(run))) for symbol, run in groupby(string)]
    pairs = pairwise(runs)
    return any(a == "1" and m % 2 == 1 and n % 2 == 1 for (a, m), (_, n) in pairs)


LANGUAGES = {
    1: lambda s: "0" not in s,
    2: lambda s: re.fullmatch("(10)*", s) is not None,
    3: lambda s: not odd_zeros_behind_odd_ones(s),
    4: lambda s: "000" not in s,
    5: lambda s: s.count("0") % 2 == 0 and s.count("1") % 2 == 0,
    6: lambda s: (s.count("1") - s.count("0")) % 3 == 0,
    7: lambda s: re.fullmatch("0*1*0*1*", s) is not None,
}


@pytest.mark.parametrize("number", LANGUAGES)
def test_each_grammar_of_tomita_accepts_its_language_and_nothing_else(number):
    for length in range(11):
        for string in product("01", repeat=length):
            word = "".join(string)
            assert TOMITA[number].recognises([int(c) for c in word]) == LANGUAGES[number](word), word


@pytest.mark.parametrize("number", TOMITA)
def test_a_batch_of_strings_is_read_as_each_alone(number):
    automaton = TOMITA[number]
    symbols = torch.randint(2, (30, 4), generator=torch.Generator().manual_seed(number))
    accepted = automaton.accepts(automaton.states(symbols))
    for k in range(4):
        for t in range(30):
            assert bool(accepted[t, k]) == automaton.recognises(symbols[: t + 1, k].tolist())


def test_no_symbols_no_states():
    assert TOMITA[5].states(torch.empty(0, 3, dtype=torch.long)).shape == (0, 3)


def test_automata_that_are_none_are_refused():
    with pytest.raises(ValueError, match="state 2 does not exist"):
        Automaton(((0, 2), (0, 1)), (0,))
    with pytest.raises(ValueError, match="every symbol"):
        Automaton(((0, 1), (0,)), (0,))
    with pytest.raises(ValueError, match="0 to 1"):
        TOMITA[1].states(torch.tensor([0, 2]))


def words(length):
    return [list(word) for word in product((0, 1), repeat=length)]


@st.composite
def automata(draw):
    n = draw(st.integers(1, 6))
    state = st.integers(0, n - 1)
    rows = draw(st.lists(st.tuples(state, state), min_size=n, max_size=n))
    return Automaton(tuple(rows), tuple(draw(st.sets(state))), draw(state))


@pytest.mark.parametrize("number", TOMITA)
def test_strings_are_counted_without_writing_them_down(number):
    automaton = TOMITA[number]
    for length in range(9):
        accepted = sum(automaton.recognises(word) for word in words(length))
        assert automaton.count(length) == accepted
        assert automaton.count(length, accepted=False) == 2**length - accepted


@pytest.mark.parametrize("accepted", [True, False])
def test_all_strings_of_a_length_and_kind_are_equally_likely(accepted):
    automaton, n = TOMITA[4], 20_000
    drawn = automaton.strings(
        torch.full((n,), 6), torch.full((n,), accepted), torch.Generator().manual_seed(0)
    ).T.tolist()
    counts = {tuple(word): 0 for word in words(6) if automaton.recognises(word) == accepted}
    for word in drawn:
        counts[tuple(word)] += 1  # a KeyError would be a string of the wrong kind
    expected = n / len(counts)
    chi2 = sum((c - expected) ** 2 / expected for c in counts.values())
    assert chi2 < 2 * len(counts)


@pytest.mark.parametrize("number", TOMITA)
def test_strings_of_mixed_lengths_and_kinds_are_what_was_asked_for(number):
    automaton, generator = TOMITA[number], torch.Generator().manual_seed(number)
    lengths, accepted = torch.tensor([1200, 6, 30, 18, 0]), torch.tensor([True, False, True, False, True])
    drawn = automaton.strings(lengths, accepted, generator)
    for k, length in enumerate(lengths.tolist()):
        assert automaton.recognises(drawn[:length, k].tolist()) == bool(accepted[k])
        assert drawn[length:, k].eq(-1).all()


def test_strings_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="no string of 3 symbols is accepted"):
        TOMITA[2].strings(torch.tensor([3]), torch.tensor([True]))


@given(automata())
def test_a_minimised_automaton_has_the_same_language_and_is_minimal(automaton):
    small = automaton.minimised()
    for length in range(8):
        for word in words(length):
            assert small.recognises(word) == automaton.recognises(word)
    # Minimal: the language seen from each of its states is another one (n states differ within n - 1 symbols).
    futures = {
        tuple(
            Automaton(small.transitions, small.accepting, state).recognises(word)
            for length in range(small.n_states)
            for word in words(length)
        )
        for state in range(small.n_states)
    }
    assert len(futures) == small.n_states


@given(automata(), st.randoms(use_true_random=False))
def test_how_states_are_numbered_does_not_show_in_a_minimised_automaton(automaton, random):
    new = list(range(automaton.n_states))
    random.shuffle(new)
    old = sorted(range(len(new)), key=new.__getitem__)
    renamed = Automaton(
        tuple(tuple(new[after] for after in automaton.transitions[state]) for state in old),
        tuple(new[state] for state in automaton.accepting),
        new[automaton.start],
    )
    assert renamed.minimised() == automaton.minimised()


@pytest.mark.parametrize("number", TOMITA)
def test_tomitas_automata_are_minimal(number):
    assert TOMITA[number].minimised().n_states == TOMITA[number].n_states


@pytest.mark.parametrize("number", TOMITA)
def test_what_was_programmed_into_a_network_is_extracted_from_it(number):
    automaton = TOMITA[number]
    net = SecondOrder.from_automaton(automaton.transitions, automaton.accepting, strength=8.0).double()
    symbols = torch.randint(2, (12, 200), generator=torch.Generator().manual_seed(number))
    symbols[6:, ::2] = -1
    run = integrate(net, F.one_hot(symbols.clamp(min=0), 2).double(), dt=1.0, solver=Iterate())
    xs = torch.cat([net.initial_state(1, 200), run.xs])
    found = extract_automaton(xs, symbols, net.readout(xs)[..., 0] > 0.5, 8)
    assert found == automaton.minimised()


def test_an_automaton_is_extracted_from_states_and_symbols_or_not_at_all():
    xs, symbols = torch.zeros(3, 1, 2), torch.tensor([[0], [1]])
    with pytest.raises(ValueError, match="0 clusters"):
        extract_automaton(xs, symbols, xs[..., 0] > 0, 0)
    with pytest.raises(ValueError, match="in 0 places"):
        extract_automaton(xs, symbols.fill_(-1), xs[..., 0] > 0, 2)
