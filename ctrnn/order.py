"""Orders: what comes before what, where it is not time that says so."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class Level(NamedTuple):
    """Nodes that do not depend on one another: they are computed as one batch.

    nodes: their numbers. sources: the earlier levels that hold their predecessors. rows: for each node and slot the
    row of the predecessor in (initial state, then the source levels one after the other), up to the last slot that a
    node of the level fills. filled: which slots count; a node without predecessors has the initial state in its first
    slot.
    """

    nodes: Int[Tensor, " node"]
    sources: tuple[int, ...]
    rows: Int[Tensor, "node slot"]
    filled: Bool[Tensor, "node slot"]


@dataclass(frozen=True)
class Order:
    """For each of the nodes 0, 1, ... those that it reads, each in its slot; None is an empty slot.

    A chain, a tree (a node reads its children), any directed graph without cycles. The numbers name rows of the input
    and need not be sorted: only what reads what matters.

    Raises:
        TypeError: a predecessor is neither a node's number nor None.
        ValueError: there is no node, a predecessor is no node, or nodes read one another in a circle.
    """

    predecessors: tuple[tuple[int | None, ...], ...]
    levels: tuple[Level, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for node, slots in enumerate(self.predecessors):
            if not isinstance(slots, (tuple, list)):
                raise TypeError(f"node {node} reads {slots!r}: name what it reads as a tuple, one as ({slots!r},).")
        given = tuple(tuple(slots) for slots in self.predecessors)
        if not given:
            raise ValueError("an order needs at least one node, got none.")
        for node, slots in enumerate(given):
            for other in slots:
                _check_node(node, other, len(given))
        object.__setattr__(self, "predecessors", given)
        object.__setattr__(self, "levels", _levels(given))

    def __len__(self) -> int:
        """The number of nodes."""
        return len(self.predecessors)

    @property
    def arity(self) -> int:
        """The largest number of slots of a node; at least 1."""
        return max(1, *map(len, self.predecessors))

    @property
    def roots(self) -> tuple[int, ...]:
        """The nodes that no other reads: the last of a chain, the root of a tree."""
        read = {other for slots in self.predecessors for other in slots}
        return tuple(node for node in range(len(self)) if node not in read)

    @classmethod
    def chain(cls, n: int) -> Self:
        """0, then 1, ... then n - 1: time."""
        return cls(tuple(() if k == 0 else (k - 1,) for k in range(n)))

    @classmethod
    def reversed_chain(cls, n: int) -> Self:
        """n - 1, then n - 2, ... then 0."""
        return cls(tuple(() if k == n - 1 else (k + 1,) for k in range(n)))

    @classmethod
    def grid(cls, rows: int, columns: int, *, down: bool = True, right: bool = True) -> Self:
        """A plane over a grid: node columns * i + j reads its neighbours in the same column and in the same row.

        Those above and to the left, if the plane runs down and to the right. Slot 0 is the column's, slot 1 the row's.
        """
        above, before = (-1 if down else 1), (-1 if right else 1)
        return cls(
            tuple(
                (
                    columns * (i + above) + j if 0 <= i + above < rows else None,
                    columns * i + j + before if 0 <= j + before < columns else None,
                )
                for i in range(rows)
                for j in range(columns)
            )
        )

    @classmethod
    def planes(cls, rows: int, columns: int) -> tuple[Self, Self, Self, Self]:
        """The planes from all four corners: together every node sees the whole grid (Baldi & Pollastri 2003)."""
        corners = ((True, True), (True, False), (False, True), (False, False))
        a, b, c, d = (cls.grid(rows, columns, down=down, right=right) for down, right in corners)
        return a, b, c, d

    @classmethod
    def forest(cls, orders: Iterable[Self]) -> Self:
        """Several orders side by side: the nodes of the second are numbered on behind those of the first, and so on."""
        together: list[tuple[int | None, ...]] = []
        for order in orders:
            first = len(together)
            together += [tuple(None if k is None else first + k for k in slots) for slots in order.predecessors]
        return cls(tuple(together))


def _check_node(node: int, other: int | None, n: int) -> None:
    if other is None:
        return
    if isinstance(other, bool) or not isinstance(other, int):
        raise TypeError(f"node {node} reads {other!r}: name a node by its number, an empty slot by None.")
    if not 0 <= other < n:
        raise ValueError(f"node {node} reads node {other}, but the nodes end at {n - 1}: add it or drop it.")


def _levels(predecessors: Sequence[Sequence[int | None]]) -> tuple[Level, ...]:
    """Each node one level behind the last that it reads (Kahn 1962)."""
    read = [{k for k in slots if k is not None} for slots in predecessors]
    readers: list[list[int]] = [[] for _ in read]
    for node, others in enumerate(read):
        for other in others:
            readers[other].append(node)
    place: dict[int, tuple[int, int]] = {}  # level, and row within it
    levels: list[list[int]] = []
    waits = [len(others) for others in read]
    ready = [node for node, others in enumerate(read) if not others]
    while ready:
        place |= {node: (len(levels), row) for row, node in enumerate(ready)}
        levels.append(ready)
        following = []
        for reader in (reader for node in ready for reader in readers[node]):
            waits[reader] -= 1
            if waits[reader] == 0:
                following.append(reader)
        ready = sorted(following)
    if len(place) < len(predecessors):
        stuck = [node for node in range(len(predecessors)) if node not in place]
        raise ValueError(f"nodes read one another in a circle, among or before {stuck[:8]}: an order has no cycles.")
    sizes = [len(level) for level in levels]
    return tuple(_level(nodes, predecessors, place, sizes) for nodes in levels)


def _level(
    nodes: list[int],
    predecessors: Sequence[Sequence[int | None]],
    place: dict[int, tuple[int, int]],
    sizes: list[int],
) -> Level:
    sources = sorted({place[k][0] for node in nodes for k in predecessors[node] if k is not None})
    begin, row = {}, 1  # row 0 is the initial state
    for source in sources:
        begin[source] = row
        row += sizes[source]
    slots = [
        1 + max((k for k, other in enumerate(predecessors[node]) if other is not None), default=0) for node in nodes
    ]
    rows = torch.zeros(len(nodes), max(slots), dtype=torch.long)
    filled = torch.zeros(len(nodes), max(slots), dtype=torch.bool)
    for i, node in enumerate(nodes):
        for slot, other in enumerate(predecessors[node]):
            if other is not None:
                level, behind = place[other]
                rows[i, slot], filled[i, slot] = begin[level] + behind, True
        if not filled[i].any():
            filled[i, 0] = True
    return Level(torch.tensor(nodes), tuple(sources), rows, filled)
