"""The memory blocks of the first LSTM papers, in which gates see gates, and peephole connections."""

from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ctrnn import _tree as tree
from ctrnn.models._units import Input, Units, Vector, check_size
from ctrnn.models.gated import LSTM, LSTMState, _within


class BlockState(NamedTuple):
    """h, what the cells send (*batch, n); gates, what the gates send (*batch, kinds * blocks); c, what cells hold."""

    h: Any
    gates: Any
    c: Any


class LSTM1997(Units):
    """tau_c dc/dt = i g(a_c),   tau_h dh/dt = o s(c) - h,   tau_g d(i, o)/dt = sigma(a_i, a_o) - (i, o).

    (a_c, a_i, a_o) = W_in u + W_rec (h, i, o) + b,   g = 4 sigma - 2,   s = 2 sigma - 1.

    Hochreiter & Schmidhuber (1997), Neural Computation 9:1735-1780, appendix A.1: there is no forget gate, F_c =
    c + i g(a_c), so that without input a cell holds what it has for ever, at any dt (their constant error carousel).
    The cells of a block share an input gate i and an output gate o, and every unit, gates included, sees all cells'
    outputs and all gates of the step before. Within a step a cell reads its gates, and h reads the cell, as the step
    leaves them: at dt = tau this is their discrete network, and the outputs' weights counted with the rest it has as
    many as they say (264 for four blocks of one cell on seven inputs and outputs, 93 for the adding problem, ...).

    Args:
        blocks: memory blocks.
        n_in: inputs.
        n_out: outputs W_out h + b_out; without them the readout is h.
        cells: in each block; n = blocks * cells.
        cell_bias, gate_bias, out_bias: who has a bias; it differs from experiment to experiment of the paper.
        truncated: their learning rule: no error flows back through W_rec, only through the cells (their A.2, exactly).
        tau: one number, or a BlockState of numbers, in the unit in which dt will be given.
        learn_tau: learn tau.
        generator: where the weights are drawn from, uniformly within 0.1; torch's global one if None.

    Rows of W_in, W_rec: cells, then gates kind by kind: i, o; columns of W_rec: h, then gates likewise. State:
    BlockState(h, gates, c).
    """

    kinds: ClassVar[int] = 2
    b_cells: Tensor | None
    b_gates: Tensor | None

    def __init__(
        self,
        blocks: int,
        n_in: int,
        n_out: int | None = None,
        *,
        cells: int = 1,
        cell_bias: bool = True,
        gate_bias: bool = True,
        out_bias: bool = True,
        truncated: bool = False,
        tau: Any = 1.0,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        check_size("blocks", blocks, 1)
        check_size("cells", cells, 1)
        parts = tree.spread(tau, BlockState(0, 0, 0))
        if not isinstance(parts, BlockState) or any(torch.as_tensor(part).ndim for part in parts):
            raise TypeError(
                f"tau of an {type(self).__name__} is one number, or BlockState(h=..., gates=..., c=...) of numbers, "
                f"got {tau!r}."
            )
        n = blocks * cells
        super().__init__(n, n_in, n_out, tau=parts)
        self.blocks, self.cells, self.truncated = blocks, cells, truncated
        self.has_bias = cell_bias, gate_bias, out_bias
        gates = self.kinds * blocks
        self._add_weights(
            _within(0.1, generator),
            learn_tau,
            W_in=(n + gates, n_in),
            W_rec=(n + gates, n + gates),
            b_cells=(n,) if cell_bias else None,
            b_gates=(gates,) if gate_bias else None,
        )
        if not out_bias:
            self.b_out = None

    def target(self, t: Tensor, x: BlockState, u: Input, alpha: Any = 0) -> BlockState:  # type: ignore[override]
        """F_gates = sigma(a), F_c = c + i g(a_c), F_h = o s(lerp(c, F_c, alpha_c)); i, o are lerp(gates, F, alpha)."""
        rates = tree.spread(alpha, x)
        opened = torch.sigmoid(self._net(x, u, self.n, None, self.b_gates))
        gates = tree.blend(x.gates, opened, rates.gates)
        assert isinstance(gates, Tensor)
        i, *f, o = (gate.repeat_interleave(self.cells, -1) for gate in gates.split(self.blocks, -1))
        squashed = 4 * torch.sigmoid(self._net(x, u, None, self.n, self.b_cells)) - 2
        c = (f[0] * x.c if f else x.c) + i * squashed
        seen = tree.blend(x.c, c, rates.c)
        assert isinstance(seen, Tensor)
        return BlockState(o * (2 * torch.sigmoid(seen) - 1), opened, c)

    def _net(self, x: BlockState, u: Tensor, first: int | None, last: int | None, bias: Tensor | None) -> Tensor:
        """What the rows first ... last receive."""
        sent = torch.cat([x.h, x.gates], -1)
        rows = slice(first, last)
        return F.linear(sent.detach() if self.truncated else sent, self.W_rec[rows], bias) + F.linear(
            u, self.W_in[rows]
        )

    def activity(self, x: BlockState) -> Vector:
        """What the cells send, h."""
        return x.h

    def initial_state(self, *batch: int) -> BlockState:
        """Cells and gates at zero."""
        zeros, gates = (self.W_rec.new_zeros(*batch, size) for size in (self.n, self.kinds * self.blocks))
        return BlockState(zeros, gates, zeros)

    @property
    def config(self) -> dict[str, Any]:
        sizes = {"blocks": self.blocks, "cells": self.cells, "truncated": self.truncated}
        biases = dict(zip(("cell_bias", "gate_bias", "out_bias"), self.has_bias, strict=True))
        return {name: value for name, value in super().config.items() if name != "n"} | sizes | biases

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config | {"tau": BlockState(**config["tau"])})

    @classmethod
    def example(cls) -> Self:
        tau = BlockState(h=1.0, gates=0.5, c=2.0)
        return cls(2, 2, 1, cells=2, tau=tau, generator=Generator().manual_seed(0))


class LSTM2000(LSTM1997):
    """tau_c dc/dt = f c + i g(a_c) - c,   tau_h dh/dt = o s(c) - h,   tau_g d(i, f, o)/dt = sigma(a) - (i, f, o).

    The memory blocks of 1997 with a forget gate in each: Gers, Schmidhuber & Cummins (2000), Neural Computation
    12:2451-2471, who begin with forget-gate biases above and other gates' biases below zero. Rows of gates: i, f, o;
    all else as in `LSTM1997`. The `LSTM` of torch differs from it: one cell per block, tanh, and gates that see the
    outputs of cells only.
    """

    kinds = 3


class PeepholeLSTM(LSTM):
    """tau_c dc/dt = f c + i g - c,   tau_h dh/dt = o tanh(c) - h,   i, f, o = sigma(W u + b + U h + d + p c).

    `LSTM` whose gates see their own cell: Gers, Schraudolph & Schmidhuber (2002), JMLR 3:115-143. The input and the
    forget gate see it as it was, the output gate as the step leaves it, in the flow as it is. Their networks had
    linear squashing of the cells' output and no U; here both stay torch's, and with p = 0 it is `LSTM`.

    Parameter peepholes (3, n), rows i, f, o, drawn like the weights; all else as in `LSTM`.
    """

    peepholes: Tensor

    def _add_weights(self, draw: Any, learn_tau: bool, **weights: tuple[int, ...] | None) -> None:
        super()._add_weights(draw, learn_tau, **weights, peepholes=(3, self.n))

    def target(self, t: Tensor, x: LSTMState, u: Input, alpha: Any = 0) -> LSTMState:  # type: ignore[override]
        """F_c = f c + i g, and F_h = o tanh(c'), where o sees c' = lerp(c, F_c, alpha_c)."""
        i, f, g, o = (F.linear(x.h, self.W_rec, self.b_rec) + F.linear(u, self.W_in, self.b_in)).chunk(4, -1)
        p_i, p_f, p_o = self.peepholes
        c = torch.sigmoid(f + p_f * x.c) * x.c + torch.sigmoid(i + p_i * x.c) * torch.tanh(g)
        seen = tree.blend(x.c, c, tree.spread(alpha, x).c)
        assert isinstance(seen, Tensor)
        return LSTMState(torch.sigmoid(o + p_o * seen) * torch.tanh(seen), c)

    def torch_options(self) -> dict[str, Any]:
        raise ValueError("torch's LSTM has no peepholes: build an LSTM without them.")
