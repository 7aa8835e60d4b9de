import re
from itertools import groupby, pairwise, product

import pytest
import torch

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
