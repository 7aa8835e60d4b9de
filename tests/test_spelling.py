import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrnn.tasks import Spelled, align

RULES = {"a": ("AE",), "b": ("B",), "x": ("K", "S"), "e": (), "t": ("T",)}


def spelled(letters):
    return Spelled(letters, tuple(sound for letter in letters for sound in RULES[letter]))


@given(st.lists(st.text("abxet", min_size=1, max_size=6), min_size=1, max_size=20))
def test_what_the_letters_say_in_order_is_the_word(letters):
    words = [spelled(word) for word in letters]
    for word, said in zip(words, align(words), strict=True):
        assert len(said) == len(word.letters)
        assert sum(said, ()) == word.sounds
        assert all(len(sounds) <= 2 for sounds in said)


def test_rules_of_spelling_are_found_in_words_alone():
    words = [spelled(word) for word in ("bat", "bate", "tab", "tax", "axe", "abet", "exta", "beta", "extab", "text")]
    for word, said in zip(words, align(words), strict=True):
        assert [RULES[letter] for letter in word.letters] == said, word


def test_a_word_with_too_many_sounds_is_named():
    with pytest.raises(ValueError, match=r"'w' has 5 sounds, more than 2 for each"):
        align([Spelled("w", ("D", "AH", "B", "AH", "L"))])
