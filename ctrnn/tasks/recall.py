"""Vectors of bits recalled by what they came with: the item behind the one shown, and all in order of priority."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from .draws import count, integers, require, uniform
from .scripted import Script, ScriptedBits, between, check_range, placed


@dataclass(frozen=True)
class AssociativeRecall(ScriptedBits):
    """Items of vectors, then one of them again: say the item that came behind it.

    Graves, Wayne & Danihelka (2014), arXiv:1410.5401, section 4.3: two to six items of three vectors of six bits, 18
    bits to be said. An item delimiter stands before each item and behind the last, a query delimiter before and behind
    the query, which is any item but the last; the paper says that items and query are bounded on both sides, not how.
    No two items of a trial are alike, so that there is one answer. Channels: the bits, the item delimiter, the query
    delimiter. `condition`, (batch,): `items`, how many; `query`, which, from 0.

    Args:
        bits: of a vector.
        vectors: of an item.
        items: of a trial, evenly drawn.

    Raises:
        ValueError: items without bits, fewer than two items, or more than half of all items that there can be.
    """

    bits: int = 6
    vectors: int = 3
    items: tuple[int, int] = (2, 6)

    def __post_init__(self) -> None:
        super().__post_init__()
        count("bits", self.bits, "a vector has at least one")
        count("vectors", self.vectors, "an item has at least one")
        check_range("items", self.items, 2)
        require(
            2 * self.items[1] <= 2 ** (self.bits * self.vectors),
            f"items = {self.items}: at most half of the 2^{self.bits * self.vectors} that there are, so that none "
            "comes twice: take more bits or vectors",
        )

    @property
    def n_in(self) -> int:
        return self.bits + 2

    @property
    def n_out(self) -> int:
        return self.bits

    def script(self, batch: int, generator: torch.Generator) -> Script:
        """Draw trials."""
        count = self.drawn(self.items, batch, generator)
        query = (uniform(0.0, 1.0, (batch,), generator) * (count - 1)).long()
        shape = (int(count.max()), self.vectors, batch, self.bits)
        items = integers(0, 1, shape, generator).double()
        while bool((again := _seen_before(items)).any()):
            items = torch.where(again[:, None, :, None], integers(0, 1, shape, generator).double(), items)
        return self.of(items, count, query)

    def of(
        self,
        items: Float64[Tensor, "item vector batch bit"],
        count: Int[Tensor, " batch"],
        query: Int[Tensor, " batch"],
    ) -> Script:
        """The script with the first `count` of these items."""
        period, trial = self.vectors + 1, torch.arange(len(count))
        shown = count * period + 2  # the query: behind the last item, an item delimiter and a query delimiter
        behind = shown + self.vectors + 1
        end = behind + self.vectors
        symbols, zero = int(end.max()), torch.zeros_like(count)
        rows = F.pad(items, (0, 0, 0, 0, 1, 0)).flatten(0, 1)  # a blank for each delimiter
        asked, answer = (items[which, :, trial].transpose(0, 1) for which in (query, query + 1))
        several = torch.full_like(count, self.vectors)
        k = torch.arange(symbols)[:, None]
        delimiters = [(k % period == 0) & (k <= count * period), (k == shown - 1) | (k == behind - 1)]
        pages = placed(rows, zero, count * period, symbols) + placed(asked, shown, several, symbols)
        return Script(
            shown=torch.cat([pages, torch.stack(delimiters, -1).double()], -1),
            answers=placed(answer, behind, several, symbols),
            due=between(behind, end, symbols),
            lengths=end,
            phases={"input": (zero, shown - 1), "query": (shown - 1, behind), "answer": (behind, end)},
            condition={"items": count, "query": query},
        )


def _seen_before(items: Float64[Tensor, "item vector batch bit"]) -> Bool[Tensor, "item batch"]:
    """Whether an item is like one before it."""
    alike = (items[:, None] == items).all(-1).all(2)
    return (alike & torch.ones(len(items), len(items)).tril(-1).bool()[..., None]).any(1)


@dataclass(frozen=True)
class PrioritySort(ScriptedBits):
    """v_1 ... v_L, each with a number, a delimiter, silence: say the vectors meanwhile, the greatest number first.

    Graves, Wayne & Danihelka (2014), arXiv:1410.5401, section 4.5: 20 vectors, of which the 16 with the highest
    priorities are to be said; priorities are uniform on [-1, 1]. That vectors have eight bits, that the highest comes
    first and that there is a delimiter the paper does not say. Channels: the bits, the priority, the delimiter.
    `condition`: `length` (batch,) and `priorities` (batch, vector), -inf behind the end.

    Args:
        bits: of a vector.
        lengths: vectors of a trial, evenly drawn.
        kept: how many are to be said; all, where there are fewer.

    Raises:
        ValueError: a vector without bits, lengths that are no range from 1 on, or nothing is to be said.
    """

    bits: int = 8
    lengths: tuple[int, int] = (20, 20)
    kept: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        count("bits", self.bits, "a vector has at least one")
        check_range("lengths", self.lengths, 1)
        count("kept", self.kept, "at least one vector must be said")

    @property
    def n_in(self) -> int:
        return self.bits + 2

    @property
    def n_out(self) -> int:
        return self.bits

    def script(self, batch: int, generator: torch.Generator) -> Script:
        """Draw trials."""
        length = self.drawn(self.lengths, batch, generator)
        shape = (int(length.max()), batch)
        vectors = integers(0, 1, (*shape, self.bits), generator).double()
        return self.of(vectors, uniform(-1.0, 1.0, shape, generator), length)

    def of(
        self,
        vectors: Float64[Tensor, "vector batch bit"],
        priorities: Float64[Tensor, "vector batch"],
        length: Int[Tensor, " batch"],
    ) -> Script:
        """The script with the first `length` of these vectors; of two of one priority the first comes first."""
        kept, behind, zero = length.clamp(max=self.kept), length + 1, torch.zeros_like(length)
        end = behind + kept
        symbols = int(end.max())
        ranked = torch.where(between(zero, length, len(vectors)), priorities, -torch.inf)
        order = ranked.sort(dim=0, descending=True, stable=True).indices
        delimiter = between(length, behind, symbols)[..., None].double()
        rows = torch.cat([vectors, priorities[..., None]], -1)
        return Script(
            shown=torch.cat([placed(rows, zero, length, symbols), delimiter], -1),
            answers=placed(vectors[order, torch.arange(len(length))], behind, kept, symbols),
            due=between(behind, end, symbols),
            lengths=end,
            phases={"input": (zero, behind), "answer": (behind, end)},
            condition={"length": length, "priorities": ranked.T},
        )
