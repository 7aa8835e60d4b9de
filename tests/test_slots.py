import pytest
import torch

from ctrnn.tasks import FlightQueries
from ctrnn.tasks.slots import LABELS, OPPOSITE, Sentence, spans, twin, vocabulary

CITIES = ("denver", "boston", "new york", "salt lake city", "quito", "san jose")
VERBS = set(OPPOSITE) - {"there", "off"}


def sentences(n=3000, seed=0, cities=CITIES):
    return FlightQueries(cities).sentences(n, torch.Generator().manual_seed(seed))


def windows(sentence, radius):
    padded = ("",) * radius + sentence.words + ("",) * radius
    return [padded[k : k + 2 * radius + 1] for k in range(len(sentence.words))]


def places(sentence, *slots):
    """Start and stop of the slots of these names."""
    return [(start, stop) for start, stop, slot in spans(sentence.labels) if slot in slots]


def test_the_same_seed_gives_the_same_sentences_and_the_global_generator_is_untouched():
    state = torch.get_rng_state()
    assert sentences(50) == sentences(50)
    assert sentences(50) != sentences(50, seed=1)
    assert torch.equal(state, torch.get_rng_state())


def test_every_word_has_a_label_and_no_sentence_has_two_readings():
    readings = {}
    for sentence in sentences():
        assert len(sentence.words) == len(sentence.labels)
        assert set(sentence.labels) <= set(LABELS)
        assert readings.setdefault(sentence.words, sentence.labels) == sentence.labels
    assert {label for labels in readings.values() for label in labels} == set(LABELS)


def test_a_city_is_labelled_word_by_word_and_a_sentence_names_none_twice():
    for sentence in sentences():
        named = [" ".join(sentence.words[a:b]) for a, b in places(sentence, "from", "to", "stop")]
        assert set(named) <= set(CITIES)
        assert len(set(named)) == len(named)


def test_near_left_and_right_sentences_are_equally_likely():
    contexts = [sentence.context for sentence in sentences(6000)]
    for context in ("near", "left", "right"):
        assert contexts.count(context) == pytest.approx(2000, abs=150)


def test_in_a_near_sentence_a_window_of_seven_words_decides_every_label():
    seen = {}
    for sentence in sentences(8000):
        if sentence.context == "near":
            for window, label in zip(windows(sentence, 3), sentence.labels, strict=True):
                assert seen.setdefault(window, label) == label


def test_in_a_left_sentence_the_verb_stands_before_every_window_around_the_time():
    for sentence in sentences():
        if sentence.context == "left":
            ((start, _),) = places(sentence, "depart_time", "arrive_time")
            (verb,) = [k for k, word in enumerate(sentence.words) if word in VERBS]
            assert start - verb >= 6


def test_in_a_right_sentence_the_verb_stands_behind_every_window_around_the_city():
    for sentence in sentences():
        if sentence.context == "right":
            ((_, stop),) = places(sentence, "from", "to")
            (verb,) = [k for k, word in enumerate(sentence.words) if word in VERBS]
            assert verb - (stop - 1) >= 6


def test_the_verb_decides_and_the_twin_has_the_opposite_one():
    for sentence in sentences(300):
        if sentence.context == "near":
            with pytest.raises(ValueError, match="near sentence: only left and right ones have twins"):
                twin(sentence)
            continue
        assert twin(twin(sentence)) == sentence
        for one in (sentence, twin(sentence)):
            arriving = any(word in ("arrive", "land", "get") for word in one.words)
            slots = {slot for *_, slot in spans(one.labels)}
            assert slots & {"to", "from"} <= {"to" if arriving else "from"}
            assert slots & {"arrive_time", "depart_time"} == {"arrive_time" if arriving else "depart_time"}
        changed = [word for word, there in zip(sentence.words, twin(sentence).words, strict=True) if word != there]
        assert len(changed) in (1, 2)
        assert set(changed) <= set(OPPOSITE)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("O O", set()),
        ("B-to I-to O", {(0, 2, "to")}),
        ("B-to B-to", {(0, 1, "to"), (1, 2, "to")}),
        ("I-to I-from", {(0, 1, "to"), (1, 2, "from")}),
        ("B-to I-from I-from", {(0, 1, "to"), (1, 3, "from")}),
        ("O B-to", {(1, 2, "to")}),
        ("I-to O I-to", {(0, 1, "to"), (2, 3, "to")}),
    ],
)
def test_spans_are_read_as_conlls_script_reads_them(labels, expected):
    assert spans(labels.split()) == expected


def test_cities_that_cannot_be_told_from_the_grammar_are_refused():
    assert "may" in vocabulary()
    for cities, problem in [
        (("denver", "boston", "may creek"), "'may creek' holds may"),
        (("denver", "boston"), "2 cities"),
        (("denver", "boston", "lake in the hills"), "one to three words"),
    ]:
        with pytest.raises(ValueError, match=problem):
            FlightQueries(cities)
    with pytest.raises(ValueError, match="at least one"):
        FlightQueries(CITIES).sentences(0)
    assert isinstance(FlightQueries(CITIES).sentences(1)[0], Sentence)
