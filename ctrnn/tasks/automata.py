"""Finite automata, and the seven regular languages on which recurrent networks have been compared since 1982."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from .draws import require, source, uniform


@dataclass(frozen=True)
class Automaton:
    """s_{t+1} = transitions[s_t][symbol_t]: a deterministic finite automaton.

    Args:
        transitions: for every state the next state after each symbol.
        accepting: the states in which a string may end.
        start: the state before the first symbol.

    Raises:
        ValueError: a state does not exist, or the rows differ in length.
    """

    transitions: tuple[tuple[int, ...], ...]
    accepting: tuple[int, ...]
    start: int = 0

    def __post_init__(self) -> None:
        n = len(self.transitions)
        require(n > 0 and len(self.transitions[0]) > 0, "an automaton has at least one state and one symbol")
        require(len({len(row) for row in self.transitions}) == 1, "every state needs one next state for every symbol")
        for state in (*(s for row in self.transitions for s in row), *self.accepting, self.start):
            require(0 <= state < n, f"state {state} does not exist: there are states 0 to {n - 1}")

    @property
    def n_states(self) -> int:
        return len(self.transitions)

    @property
    def n_symbols(self) -> int:
        return len(self.transitions[0])

    def states(self, symbols: Int[Tensor, "time *batch"]) -> Int[Tensor, "time *batch"]:
        """The state after each symbol.

        Raises:
            ValueError: a symbol does not exist.
        """
        if symbols.numel() and not bool(((symbols >= 0) & (symbols < self.n_symbols)).all()):
            raise ValueError(f"symbols must be numbers from 0 to {self.n_symbols - 1}.")
        table = torch.tensor(self.transitions)
        state = torch.full(symbols.shape[1:], self.start)
        visited = [state := table[state, symbol] for symbol in symbols]
        return torch.stack(visited) if visited else symbols.new_empty(symbols.shape)

    def accepts(self, states: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Whether a string that has led to this state belongs to the language."""
        return torch.isin(states, torch.tensor(self.accepting, dtype=states.dtype))

    def recognises(self, string: Sequence[int]) -> bool:
        """Whether one whole string, possibly empty, belongs to the language."""
        state = self.start
        for symbol in string:
            state = self.transitions[state][symbol]
        return state in self.accepting

    def count(self, length: int, accepted: bool = True) -> int:
        """How many strings of this length belong to the language, or do not."""
        ways = [int((state in self.accepting) == accepted) for state in range(self.n_states)]
        for _ in range(length):
            ways = [sum(ways[state] for state in row) for row in self.transitions]
        return ways[self.start]

    def strings(
        self, lengths: Int[Tensor, "batch"], accepted: Bool[Tensor, "batch"], generator: torch.Generator | None = None
    ) -> Int[Tensor, "time batch"]:
        """Strings of these lengths that belong to the language or do not, all such equally likely; -1 behind their end.

        Raises:
            ValueError: there is no such string of one of the lengths.
        """
        generator = source(len(lengths), generator)
        longest = int(lengths.max())
        ways = self._ways(longest)
        missing = ways[accepted.long(), lengths, self.start].isneginf()
        if bool(missing.any()):
            kind = "accepted" if accepted[missing][0] else "rejected"
            raise ValueError(f"no string of {lengths[missing][0]} symbols is {kind}: take other lengths.")
        table, state, drawn = torch.tensor(self.transitions), torch.full(lengths.shape, self.start), []
        for t in range(longest):
            left = (lengths - t - 1).clamp(min=0)
            odds = ways[accepted.long()[:, None], left[:, None], table[state]].softmax(-1)
            place = uniform(0.0, 1.0, (len(lengths), 1), generator)
            symbol = (place >= odds.cumsum(-1)[:, :-1]).sum(-1)
            drawn.append(torch.where(t < lengths, symbol, -1))
            state = torch.where(t < lengths, table[state, symbol], state)
        return torch.stack(drawn) if drawn else lengths.new_empty(0, len(lengths))

    def _ways(self, longest: int) -> Float64[Tensor, "2 length state"]:
        """Logarithm of how many strings of a length lead from a state to rejection (0), to acceptance (1)."""
        table, ends = torch.tensor(self.transitions), self.accepts(torch.arange(self.n_states)).double()
        ways = [torch.stack([1 - ends, ends]).log()]
        for _ in range(longest):
            ways.append(ways[-1][:, table].logsumexp(-1))
        return torch.stack(ways, 1)

    def minimised(self) -> "Automaton":
        """The smallest automaton with this language (Moore 1956), its states numbered in the order they are met.

        They are met breadth first from the start, symbol 0 first; so two automata have the same language if and only if
        their minimised ones are equal.
        """
        classes, count = [int(state in self.accepting) for state in range(self.n_states)], 0
        while len(set(classes)) > count:
            count = len(set(classes))
            kinds = [(classes[state], *(classes[after] for after in row)) for state, row in enumerate(self.transitions)]
            number = {kind: k for k, kind in enumerate(dict.fromkeys(kinds))}
            classes = [number[kind] for kind in kinds]
        rows = {own: [classes[after] for after in row] for own, row in zip(classes, self.transitions, strict=True)}
        met = [classes[self.start]]
        for own in met:
            met += [after for after in dict.fromkeys(rows[own]) if after not in met]
        accepting = {classes[state] for state in self.accepting}
        return Automaton(
            tuple(tuple(met.index(after) for after in rows[own]) for own in met),
            tuple(k for k, own in enumerate(met) if own in accepting),
        )


# Tomita (1982), Proc. 4th Annual Conference of the Cognitive Science Society, 105-108; symbols 0 and 1.
TOMITA: dict[int, Automaton] = {
    1: Automaton(((1, 0), (1, 1)), (0,)),  # 1*
    2: Automaton(((2, 1), (0, 2), (2, 2)), (0,)),  # (10)*
    3: Automaton(((0, 1), (2, 0), (3, 4), (2, 1), (4, 4)), (0, 1, 3)),  # no odd run of 0s behind an odd run of 1s
    4: Automaton(((1, 0), (2, 0), (3, 0), (3, 3)), (0, 1, 2)),  # no 000
    5: Automaton(((1, 2), (0, 3), (3, 0), (2, 1)), (0,)),  # even numbers of 0s and of 1s
    6: Automaton(((2, 1), (0, 2), (1, 0)), (0,)),  # as many 1s as 0s, modulo 3
    7: Automaton(((0, 1), (2, 1), (2, 3), (4, 3), (4, 4)), (0, 1, 2, 3)),  # 0*1*0*1*
}
