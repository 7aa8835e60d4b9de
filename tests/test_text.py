import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctrnn import Iterate, integrate
from ctrnn.models import GRU, LSTM, Stack
from ctrnn.tasks import (
    Alphabet,
    NGram,
    bits_per_character,
    distinct_paragraphs,
    last_state,
    split_text,
    text_windows,
)

TEXT = "the cat sat on the mat, and the rat sat on the cat; that is that."
texts = st.text("abc ", min_size=4, max_size=60)


@given(st.text(min_size=1, max_size=50))
def test_an_alphabet_of_a_text_spells_it(text):
    alphabet = Alphabet.of(text)
    assert alphabet.decode(alphabet.encode(text)) == text
    assert len(alphabet) == len(set(text))
    assert torch.equal(alphabet.one_hot(alphabet.encode(text)).argmax(-1), alphabet.encode(text))


def test_what_an_alphabet_lacks_is_named():
    with pytest.raises(ValueError, match="'xy' not in the alphabet"):
        Alphabet("abc").encode("axyb")
    with pytest.raises(ValueError, match="'b' more than once"):
        Alphabet("abcb")
    with pytest.raises(ValueError, match="empty"):
        Alphabet("")


def test_a_paragraph_stays_where_it_first_stood():
    text = "one\n\ntwo words\n\nthree\n \ntwo\n words\n\n\n\nfour\n\none"
    assert distinct_paragraphs(text) == "one\n\ntwo words\n\nthree\n\nfour"


def test_the_parts_of_a_text_are_the_text_in_order():
    codes = torch.arange(1000)
    parts = split_text(codes, valid=0.05, test=0.2)
    assert torch.equal(torch.cat(parts), codes)
    assert [len(part) for part in parts] == [750, 50, 200]
    with pytest.raises(ValueError, match="leave something"):
        split_text(codes, 0.5, 0.5)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(2, 80))
def test_windows_go_on_where_the_last_one_ended(streams, length, n):
    codes = torch.arange(n)
    if n - 1 < streams * length:
        with pytest.raises(ValueError, match="fill no window"):
            next(text_windows(codes, streams, length))
        return
    found = list(text_windows(codes, streams, length))
    assert all(window.read.shape == window.next.shape == (length, streams) for window in found)
    assert all(torch.equal(window.next, window.read + 1) for window in found)
    assert all(torch.equal(b.read[0], a.next[-1]) for a, b in pairwise(found))
    read = torch.cat([window.read for window in found]).T.flatten()
    assert torch.equal(read, codes[: len(read)])
    assert n - 1 - len(read) < streams * length


def test_reading_on_from_the_last_state_is_reading_in_one_piece():
    alphabet, draw = Alphabet.of(TEXT), torch.Generator().manual_seed(0)
    n = len(alphabet)
    codes, model = alphabet.encode(TEXT), Stack([LSTM(4, n, generator=draw), GRU(3, 4, generator=draw)]).double()
    (whole,) = text_windows(codes, 2, 30)
    x, said = model.initial_state(2), []
    for window in text_windows(codes, 2, 10):
        run = integrate(model, alphabet.one_hot(window.read).double(), x, dt=1.0, solver=Iterate())
        x = last_state(run.xs)
        said.append(run.ys)
    one = integrate(model, alphabet.one_hot(whole.read).double(), dt=1.0, solver=Iterate()).ys
    torch.testing.assert_close(torch.cat(said), one, rtol=1e-12, atol=1e-13)
    assert not any(leaf.requires_grad for leaf in (*x.layers[0], x.layers[1]))


def test_bits_of_equal_chances_are_the_logarithm_of_the_alphabet():
    codes = torch.arange(8).reshape(2, 4)
    assert bits_per_character(torch.zeros(2, 4, 8), codes) == pytest.approx(3.0)
    sure = torch.full((2, 4, 8), -1e3).scatter(-1, codes[..., None], 0.0)
    assert bits_per_character(sure, codes) == 0


@given(texts, st.integers(1, 4), texts)
def test_probabilities_of_an_n_gram_sum_to_one_and_none_is_zero(text, order, other):
    alphabet = Alphabet("abc ")
    model = NGram.fit(alphabet.encode(text), len(alphabet), order)
    past = alphabet.encode(other)
    for length in range(order + 1):
        p = model.probabilities(past.unfold(0, length, 1)) if length else model.probabilities(past[:0])
        assert p.min() > 0
        torch.testing.assert_close(p.sum(-1), torch.ones(p.shape[:-1], dtype=torch.float64), rtol=0, atol=1e-12)


def test_an_n_gram_is_counted_in_double_precision_whatever_the_default():
    codes = Alphabet.of(TEXT).encode(TEXT)
    said = NGram.fit(codes, 20, 3).probabilities(codes)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float32)
        assert torch.equal(NGram.fit(codes, 20, 3).probabilities(codes), said)
    finally:
        torch.set_default_dtype(before)


def kneser_ney(text, order, past, c):
    """The published recursion with dictionaries, one symbol at a time."""
    p = 1 / len(set(text))
    for k in range(1, order + 1):
        strings = [text[i : i + k] for i in range(len(text) - k + 1)]
        counts = Counter(strings)
        if k < order:
            counts = Counter(longer[1:] for longer in {text[i : i + k + 1] for i in range(len(text) - k)})
        n1, n2 = (sum(count == n for count in counts.values()) for n in (1, 2))
        D = (n1 + 1) / (n1 + 2 * n2 + 2)
        context = past[len(past) - k + 1 :]
        followed = {string: count for string, count in counts.items() if string[:-1] == context}
        total = sum(followed.values())
        if total:
            p = (max(counts[context + c] - D, 0) + D * len(followed) * p) / total
    return p


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_an_n_gram_is_kneser_and_neys(order):
    alphabet = Alphabet.of(TEXT)
    model = NGram.fit(alphabet.encode(TEXT), len(alphabet), order)
    for past in ("the", " ca", "sat", "i;.", ".ma"):
        expected = [kneser_ney(TEXT, order, past, c) for c in alphabet.symbols]
        assert model.probabilities(alphabet.encode(past)).tolist() == pytest.approx(expected, rel=1e-12)


def test_an_n_gram_with_one_symbol_more_learns_a_longer_cycle():
    alphabet, cycle = Alphabet("ab"), "aab" * 200
    codes = alphabet.encode(cycle)
    bits = []
    for order in (1, 2, 3):
        model = NGram.fit(codes, 2, order)
        p = model.probabilities(codes.unfold(0, 3, 1)[:-1])
        bits.append(float(bits_per_character(p.log(), codes[3:])))
    assert bits[0] == pytest.approx(math.log2(3) - 2 / 3, abs=0.1)
    assert bits[1] == pytest.approx(2 / 3, abs=0.1)
    assert bits[2] < 0.02


def test_an_n_gram_that_cannot_be_counted_says_why():
    codes = torch.zeros(10, dtype=torch.long)
    with pytest.raises(ValueError, match="64 bits"):
        NGram.fit(codes, 100, 10)
    with pytest.raises(ValueError, match="no string of 11"):
        NGram.fit(codes, 2, 11)
    with pytest.raises(ValueError, match="order = 0"):
        NGram.fit(codes, 2, 0)
