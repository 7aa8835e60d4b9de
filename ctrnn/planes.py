"""Four networks that read a grid from its four corners."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ctrnn import _model_files as files
from ctrnn import _tree as tree
from ctrnn._sweep import Joining, sweep
from ctrnn.dynamics import Relaxation
from ctrnn.models.gated import _within
from ctrnn.models.recursive import Recursive
from ctrnn.order import Order


class PlanesState(NamedTuple):
    """What each plane holds, (row, column, *batch, ...), named by where it goes from its corner."""

    down_right: Any
    down_left: Any
    up_right: Any
    up_left: Any


class OverGrid(NamedTuple):
    """What four planes found at every node of a grid: their states, and the outputs."""

    xs: PlanesState
    ys: Float[Tensor, "row column *batch output"]


class GridDAGRNN(files.Saved):
    """O_ij = W_out (I_ij, H^1_ij, H^2_ij, H^3_ij, H^4_ij) + b_out,   H^k_ij = N_k(I_ij, H^k_above, H^k_before).

    The two-dimensional DAG-RNN of Baldi & Pollastri (2003), JMLR 4:575-602: four hidden planes sweep a grid from its
    corners, so that every output sees the whole input. Above and before are the neighbours in the same column and row,
    seen from the corner where plane k begins. On one row or one column it is a bidirectional network, twice. Like
    `Bidirectional` it is no `Model`; deep ones chain, `second(first(us).ys)`.

    Args:
        planes: the networks N_k, in the order of `PlanesState`; each reads two predecessors, the column's in slot 0 and
            the row's in slot 1 (`Recursive`, `NaryTreeLSTM`) or both alike (`ChildSumTreeLSTM`). The same one four
            times shares its weights.
        n_out: outputs; None has no W_out, and the outputs are what the planes say, side by side.
        generator: where W_out and b_out are drawn from, uniformly within 1 / sqrt(numbers read).

    Raises:
        TypeError, ValueError: there are not four planes, or they cannot read two predecessors or the same input.
    """

    W_out: Tensor | None
    b_out: Tensor | None

    def __init__(
        self, planes: Sequence[Relaxation], n_out: int | None = None, *, generator: Generator | None = None
    ) -> None:
        super().__init__()
        if len(planes) != 4:
            raise ValueError(f"a grid has four corners, got {len(planes)} planes: give one for each.")
        for plane in planes:
            if not isinstance(plane, Relaxation) or not isinstance(plane, Joining) or plane.arity == 1:
                raise TypeError(
                    f"a {type(plane).__name__} does not read two predecessors: use Recursive, NaryTreeLSTM "
                    "(both with arity=2) or ChildSumTreeLSTM."
                )
        if len({plane.n_in for plane in planes}) > 1:
            raise ValueError(f"all planes read the same grid: n_in is {[plane.n_in for plane in planes]}.")
        self.planes, self.n_in, self.n_out = nn.ModuleList(planes), planes[0].n_in, n_out
        seen = self.n_in + sum(plane.readout(plane.initial_state()).shape[-1] for plane in planes)
        draw = _within(1 / math.sqrt(seen), generator)
        self.register_parameter("W_out", None if n_out is None else nn.Parameter(draw(n_out, seen)))
        self.register_parameter("b_out", None if n_out is None else nn.Parameter(draw(n_out)))

    def forward(self, us: Float[Tensor, "row column *batch input"], *, dt: float | None = None) -> OverGrid:
        """Sweep the grid from its four corners.

        Args:
            us: inputs (row, column, *batch, n_in).
            dt: the step at every node, as for `sweep`; None is dt = tau.

        Raises:
            ValueError: us is no grid of n_in inputs.
            TypeError, ValueError: as `sweep`.
        """
        if us.ndim < 3 or us.shape[-1] != self.n_in or 0 in us.shape[:2]:
            raise ValueError(f"us must be (row, column, *batch, {self.n_in}), got {tuple(us.shape)}.")
        grid, inputs = us.shape[:2], us.flatten(0, 1)
        swept = [sweep(plane, inputs, order, dt=dt) for plane, order in zip(self._each(), _orders(*grid), strict=True)]
        xs = PlanesState(*[tree.map(lambda leaf: leaf.unflatten(0, grid), plane.xs) for plane in swept])
        said = torch.cat([plane.ys for plane in swept], -1)
        if self.W_out is not None:
            said = F.linear(torch.cat([inputs, said], -1), self.W_out, self.b_out)
        return OverGrid(xs, said.unflatten(0, grid))

    def _each(self) -> Iterator[Relaxation]:
        for plane in self.planes:
            assert isinstance(plane, Relaxation)
            yield plane

    @property
    def config(self) -> dict[str, Any]:
        """The planes' classes and configurations."""
        return {"planes": [files.describe(plane) for plane in self._each()], "n_out": self.n_out}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A network with fresh weights: the inverse of `config`, each plane with weights of its own."""
        return cls([files.build(Relaxation, plane) for plane in config["planes"]], config["n_out"])

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        return cls([Recursive(3, 2, generator=draw) for _ in range(4)], 2, generator=draw)


# An order takes longer to work out than a small network to sweep it, and says nothing but what its sizes say.
@lru_cache(maxsize=16)
def _orders(rows: int, columns: int) -> tuple[Order, ...]:
    return Order.planes(rows, columns)
