"""Long short-term memory for trees: one forget gate for each child."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ctrnn import _tree as tree
from ctrnn.models._units import Input, check_size
from ctrnn.models.gated import LSTM, LSTMState, _within


class ChildSumTreeLSTM(LSTM):
    """tau_c dc/dt = sum_k f_k c_k + i g - c,   tau_h dh/dt = o tanh(c) - h.

    i, o = sigma(W u + b + U s + d),   g = tanh(W_g u + b_g + U_g s + d_g),   s = sum_k h_k,
    f_k = sigma(W_f u + b_f + U_f h_k + d_f).

    Tai, Socher & Manning (2015), ACL, arXiv:1503.00075, eqs. 2-8: any number of children, whose order does not matter.
    Over time the only child is the state before: then it is the `LSTM`, with the same parameters. State and tau:
    LSTMState(h, c).
    """

    arity: int | None = None

    def target(self, t: Tensor, x: LSTMState, u: Input, alpha: Any = 0) -> LSTMState:  # type: ignore[override]
        """F with the state as the only child."""
        return self.target_of(x, LSTMState(x.h.unsqueeze(-2), x.c.unsqueeze(-2)), u, alpha)

    def target_of(self, x: LSTMState, children: LSTMState, u: Input, alpha: Any = 0) -> LSTMState:
        """F_c = sum_k f_k c_k + i g, F_h = o tanh(lerp(c, F_c, alpha_c)); children (*batch, slot, n), 0 if empty."""
        from_u = F.linear(u, self.W_in, self.b_in)
        from_sum = F.linear(children.h.sum(-2), self.W_rec, self.b_rec)
        i, _, g, o = (from_sum + from_u).chunk(4, -1)
        f_rows = slice(self.n, 2 * self.n)
        d_f = None if self.b_rec is None else self.b_rec[f_rows]
        f = F.linear(children.h, self.W_rec[f_rows], d_f) + from_u[..., f_rows].unsqueeze(-2)
        return _cell(x, i, f, g, o, children.c, alpha)


class NaryTreeLSTM(LSTM):
    """tau_c dc/dt = sum_k f_k c_k + i g - c,   tau_h dh/dt = o tanh(c) - h.

    i, o = sigma(W u + b + sum_l U_l h_l + d),   g = tanh(W_g u + b_g + sum_l U_gl h_l + d_g),
    f_k = sigma(W_f u + b_f + sum_l U_fkl h_l + d_f).

    Tai, Socher & Manning (2015), ACL, arXiv:1503.00075, eqs. 9-14: up to `arity` children in their slots; the forget
    gate of each sees them all. Over time the only child is the state before, in the first slot.

    Args, besides those of `LSTM`:
        arity: slots.

    Parameters as the `LSTM`'s, but W_rec ((3 + arity) n, arity n): rows i, f_1 ... f_arity, g, o, columns h_1 ...
    h_arity. State and tau: LSTMState(h, c).
    """

    def __init__(
        self,
        n: int,
        n_in: int,
        n_out: int | None = None,
        *,
        arity: int = 2,
        tau: Any = 1.0,
        bias: bool = True,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        check_size("arity", arity, 1)
        super().__init__(n, n_in, n_out, tau=tau, bias=bias, learn_tau=learn_tau, generator=generator)
        self.arity = arity
        self.W_rec = nn.Parameter(_within(1 / math.sqrt(n), generator)((3 + arity) * n, arity * n))

    def target(self, t: Tensor, x: LSTMState, u: Input, alpha: Any = 0) -> LSTMState:  # type: ignore[override]
        """F with the state as the only child."""
        return self.target_of(x, LSTMState(x.h.unsqueeze(-2), x.c.unsqueeze(-2)), u, alpha)

    def target_of(self, x: LSTMState, children: LSTMState, u: Input, alpha: Any = 0) -> LSTMState:
        """F_c = sum_k f_k c_k + i g, F_h = o tanh(lerp(c, F_c, alpha_c)); children (*batch, slot, n), 0 if empty."""
        n, slots = self.n, children.h.shape[-2]
        from_u = F.linear(u, self.W_in, self.b_in)
        b_i, b_f, b_g, b_o = (from_u if self.b_rec is None else from_u + self.b_rec).chunk(4, -1)
        seen = F.linear(children.h.flatten(-2), self.W_rec[:, : slots * n])
        i, f, g, o = seen.split((n, self.arity * n, n, n), -1)
        f = f.unflatten(-1, (self.arity, n))[..., :slots, :] + b_f.unsqueeze(-2)
        return _cell(x, i + b_i, f, g + b_g, o + b_o, children.c, alpha)

    def torch_options(self) -> dict[str, Any]:
        if self.arity != 1:
            raise ValueError(f"torch's LSTM reads one predecessor, this one {self.arity}: only arity=1 is the same.")
        return super().torch_options()

    @classmethod
    def _options_of(cls, module: nn.Module) -> dict[str, Any]:
        del module
        return {"arity": 1}

    @property
    def config(self) -> dict[str, Any]:
        return super().config | {"arity": self.arity}


def _cell(x: LSTMState, i: Tensor, f: Tensor, g: Tensor, o: Tensor, c: Tensor, alpha: Any) -> LSTMState:
    new = (torch.sigmoid(f) * c).sum(-2) + torch.sigmoid(i) * torch.tanh(g)
    seen = tree.blend(x.c, new, tree.spread(alpha, x).c)
    assert isinstance(seen, Tensor)
    return LSTMState(torch.sigmoid(o) * torch.tanh(seen), new)
