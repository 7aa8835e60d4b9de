"""Deep networks whose layers also see the layers above, through gates that the network sets itself."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation
from ctrnn.models._units import Input, Vector
from ctrnn.models.gated import GRU, _within
from ctrnn.models.stack import CELLS, Stack, StackState


class GatedFeedback(Stack):
    """tau_j dx_j/dt = F_j(x_j, y_{j-1}, sum_i g_ij U_ij h_i) - x_j,   g_ij = sigma(w_ij y_{j-1} + u_ij (h_1 ... h_L)).

    Chung, Gulcehre, Cho & Bengio (2015), ICML, arXiv:1502.02367: a `Stack` in which layer j receives what all layers i
    sent in the step before, each through a gate g_ij, one number. `Elman` layers add the sum to their input, `LSTM`
    layers to that of g, `GRU` layers to that of the candidate behind its reset gate; the other gates of a layer see its
    own h as ever. U_jj is the layer's own W_rec. As in a stack layer j reads layer j - 1 as the step leaves it, and so
    do its gates. With g_jj = 1 and the other gates at 0 it is the stack.

    Args:
        layers: all `Elman`, all `GRU` or all `LSTM`, without n_out but for the last; each reads the one before it.
        generator: where the weights between layers and of the gates are drawn from, uniformly within 1 / sqrt(n);
            torch's global one if None.

    Parameters besides the layers': W_feedback.j (n_j, sum of the other layers' n), the columns in the layers' order;
    W_gate.j (layers, n_in of layer j) and U_gate.j (layers, sum of all n), a row for each layer i that sends. State
    and tau: StackState(layers=(...)).

    Raises:
        TypeError, ValueError: the layers are not like that, or do not fit each other.
    """

    def __init__(self, layers: Sequence[Relaxation], *, generator: Generator | None = None) -> None:
        super().__init__(layers)
        kinds = {type(layer) for layer in layers}
        if len(kinds) > 1 or not kinds <= set(CELLS):
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise TypeError(f"gated feedback joins layers that are all Elman, all GRU or all LSTM, got {names}.")
        if any(layer.n_out is not None for layer in layers[:-1]):
            raise ValueError("the layers see one another's h: only the last one may have n_out.")
        sizes = [cell.n for cell in self._cells()]
        self.W_feedback, self.W_gate, self.U_gate = (nn.ParameterList() for _ in range(3))
        for cell in self._cells():
            draw = _within(1 / math.sqrt(cell.n), generator)
            self.W_feedback.append(nn.Parameter(draw(cell.n, sum(sizes) - cell.n)))
            self.W_gate.append(nn.Parameter(draw(len(sizes), cell.n_in)))
            self.U_gate.append(nn.Parameter(draw(len(sizes), sum(sizes))))

    def target(self, t: Tensor, x: StackState, u: Input, alpha: Any = 0) -> StackState:  # type: ignore[override]
        """Each layer's F, fed with the layer below after the step and with all layers before it."""
        sent = [cell.activity(state) for cell, state in zip(self._cells(), x.layers, strict=True)]
        together = torch.cat(sent, -1)
        targets = []
        for j, (cell, state, part) in enumerate(
            zip(self._cells(), x.layers, tree.spread(alpha, x).layers, strict=True)
        ):
            gates = self.gates(j, u, together)
            g = [gates[..., i : i + 1] for i in range(len(sent))]
            others = [gate * h for i, (gate, h) in enumerate(zip(g, sent, strict=True)) if i != j]
            own = F.linear(sent[j], cell.W_rec.unflatten(0, (cell.blocks, -1))[cell.candidate])
            more = (g[j] - 1) * own  # the cell itself adds W_rec h
            if others:
                more = more + F.linear(torch.cat(others, -1), self.W_feedback[j])
            new = cell.target(t, state, u, part, more)
            targets.append(new)
            u = cell.activity(tree.blend(state, new, part))
        return StackState(tuple(targets))

    def gates(self, j: int, below: Vector, sent: Vector) -> Vector:
        """g_ij for all i (*batch, layers): how open layer j is to what each layer sent."""
        return torch.sigmoid(F.linear(below, self.W_gate[j]) + F.linear(sent, self.U_gate[j]))

    def _cells(self) -> Iterator[Any]:
        for layer in self.layers:
            assert isinstance(layer, CELLS)
            yield layer

    @classmethod
    def twin_of(cls, module: nn.Module) -> Self | None:
        del module  # torch has no such network
        return None

    def to_torch(self) -> nn.RNNBase:
        raise TypeError("torch.nn has no network with gated feedback: a Stack without it has a counterpart.")

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        return cls([GRU(2, 2, generator=draw), GRU(3, 2, tau=2.0, generator=draw)], generator=draw)
