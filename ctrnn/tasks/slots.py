"""Questions about flights from a small grammar, each word with the slot it fills."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch

from .draws import integers, require, source

SLOTS = ("from", "to", "stop", "airline", "date", "depart_time", "arrive_time")
LABELS = ("O", *(f"{mark}-{slot}" for slot, mark in product(SLOTS, "BI")))
CITIES = ("from", "to", "stop")

# A name in angle brackets stands for one of its lines, one in braces is a slot. In a "left" sentence the verb stands
# six or more words before the time that it decides on, in a "right" one six or more words behind the city.
GRAMMAR: dict[str, tuple[str, ...]] = {
    "near": (
        "<ask> flights from {from} to {to} <more>",
        "<ask> flights to {to} from {from} <more>",
        "<ask> flights {from} to {to} <more>",
        "<ask> {to} from {from} <more>",
        "<ask> flights from {from} to {to} with a stop in {stop}",
        "<ask> flights to {to} by way of {stop} <more>",
    ),
    "left": (
        "<who> <arrive> <manner> <when> {arrive_time}",
        "<who> <leave> <manner> <when> {depart_time}",
    ),
    "right": (
        "<ask> {to} flights <which> that <arrive> <when> {arrive_time}",
        "<ask> {from} flights <which> that <leave> <when> {depart_time}",
    ),
    "ask": ("", "show me", "i would like", "please list all", "do you have", "what about"),
    "more": (
        "",
        "on {date}",
        "on {airline}",
        "leaving <when> {depart_time}",
        "arriving <when> {arrive_time}",
        "on {date} leaving <when> {depart_time}",
        "arriving <when> {arrive_time} on {airline}",
    ),
    "who": ("i need to", "we have to", "my boss wants to", "could i"),
    "arrive": ("arrive", "land", "get there"),
    "leave": ("leave", "depart", "take off"),
    "when": ("at", "before", "after", "around"),
    "manner": (
        "on a {airline} flight",
        "with my children on {date}",
        "on the cheapest flight available",
        "with as little luggage as possible",
        "well rested on {date}",
    ),
    "which": (
        "with seats left",
        "with free seats on {date}",
        "on {airline} with meals",
        "for a small family",
        "i could book",
    ),
    "airline": (
        "delta",
        "united",
        "southwest",
        "lufthansa",
        "air canada",
        "air france",
        "american airlines",
        "british airways",
    ),
    "date": ("<day>", "<day> <part>", "the <nth> of <month>", "<month> <nth>", "tomorrow"),
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "part": ("morning", "evening"),
    "month": ("april", "may", "june", "july", "august"),
    "nth": ("first", "second", "third", "fourth", "fifth", "sixth"),
    "time": ("noon", "midnight", "<hour>", "<hour> <half>", "<hour> thirty"),
    "hour": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    "half": ("am", "pm"),
}
CONTEXTS = ("near", "left", "right")
OPPOSITE = {"arrive": "leave", "land": "depart", "get": "take", "there": "off"}
OPPOSITE |= {there: here for here, there in OPPOSITE.items()}
SWAPPED = {"from": "to", "to": "from", "depart_time": "arrive_time", "arrive_time": "depart_time"}


class Sentence(NamedTuple):
    """Words, a label for each (O outside, B-slot at a slot's first word, I-slot inside), and where the context is."""

    words: tuple[str, ...]
    labels: tuple[str, ...]
    context: str


@dataclass(frozen=True)
class FlightQueries:
    """words -> labels such as O B-from O B-to: which words of a question fill which slot.

    Made for this package in the manner of ATIS (Hemphill, Godfrey & Doddington 1990), of which it holds not one
    sentence: scores on one say nothing about scores on the other. In a third of the sentences, the "near" ones, a
    window of three words to either side of a slot decides what it is ("denver from boston"). In a "left" one the verb
    that tells a time of arrival from one of departure stands before that window, in a "right" one the verb that tells
    a destination from an origin stands behind it ("denver flights for a small family that land at noon").

    cities: at least three names of one to three words, none of them a word of the grammar.

    Raises:
        ValueError: the cities are not like that.
    """

    cities: tuple[str, ...]

    def __post_init__(self) -> None:
        different = len(set(self.cities))
        require(different >= 3, f"{different} cities: a sentence names up to three different ones")
        reserved = vocabulary()
        for city in self.cities:
            require(1 <= len(city.split()) <= 3, f"{city!r} is no name of one to three words")
            taken = reserved.intersection(city.split())
            require(not taken, f"the city {city!r} holds {', '.join(sorted(taken))}, of which the sentences are made")

    def sentences(self, n: int, generator: torch.Generator | None = None) -> list[Sentence]:
        """n sentences, near, left and right ones equally likely."""
        generator = source(n, generator)
        return [self._sentence(CONTEXTS[_pick(len(CONTEXTS), generator)], generator) for _ in range(n)]

    def _sentence(self, context: str, generator: torch.Generator) -> Sentence:
        order = torch.randperm(len(self.cities), generator=generator)[:3].tolist()
        cities = iter([self.cities[i] for i in order])
        pairs = list(_expand(f"<{context}>", generator, cities))
        return Sentence(tuple(word for word, _ in pairs), tuple(label for _, label in pairs), context)


def twin(sentence: Sentence) -> Sentence:
    """The same left or right sentence with the opposite verb, and therefore with the opposite slots.

    Raises:
        ValueError: it is a near sentence, which has none.
    """
    said = " ".join(sentence.words)
    require(sentence.context != "near", f"{said!r} is a near sentence: only left and right ones have twins")
    marks = [label.partition("-") for label in sentence.labels]
    labels = tuple(f"{mark}{dash}{SWAPPED.get(slot, slot)}" for mark, dash, slot in marks)
    return Sentence(tuple(OPPOSITE.get(word, word) for word in sentence.words), labels, sentence.context)


def vocabulary() -> set[str]:
    """Every word of the grammar itself."""
    return {word for lines in GRAMMAR.values() for line in lines for word in line.split() if word[0] not in "<{"}


def _expand(text: str, generator: torch.Generator, cities: Iterator[str]) -> Iterator[tuple[str, str]]:
    """The words of a line with their labels."""
    for token in text.split():
        if token[0] == "<":
            lines = GRAMMAR[token[1:-1]]
            yield from _expand(lines[_pick(len(lines), generator)], generator, cities)
        elif token[0] == "{":
            slot = token[1:-1]
            name = next(cities) if slot in CITIES else f"<{slot.rpartition('_')[2]}>"
            words = [word for word, _ in _expand(name, generator, cities)]
            yield from zip(words, [f"B-{slot}", *[f"I-{slot}"] * (len(words) - 1)], strict=True)
        else:
            yield token, "O"


def _pick(n: int, generator: torch.Generator) -> int:
    return int(integers(0, n - 1, (), generator))


def spans(labels: Sequence[str]) -> set[tuple[int, int, str]]:
    """The slots (start, stop, name) that IOB labels mark; as in CoNLL's script, an I after no slot begins one."""
    found, start, name = set(), 0, ""
    for k, label in enumerate([*labels, "O"]):
        mark, _, slot = label.partition("-")
        if name and (mark != "I" or slot != name):
            found.add((start, k, name))
            name = ""
        if slot and not name:
            start, name = k, slot
    return found
