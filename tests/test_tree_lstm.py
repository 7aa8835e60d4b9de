"""Tree-LSTMs: torch's LSTM on a chain, and Tai, Socher & Manning's sums written out on a node with three children."""

import pytest
import torch
from torch import nn

from ctrnn import Order, sweep
from ctrnn.models import ChildSumTreeLSTM, LSTMState, NaryTreeLSTM


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def example(kind, **options):
    return kind(4, 3, generator=torch.Generator().manual_seed(0), **options).double()


def star(children):
    """A node, the last, with this many leaves below it."""
    return Order(((),) * children + (tuple(range(children)),))


@pytest.mark.parametrize("kind", [ChildSumTreeLSTM, NaryTreeLSTM])
@pytest.mark.parametrize("bias", [True, False])
def test_on_a_chain_it_is_torchs_lstm_with_the_same_weights(kind, bias):
    torch.manual_seed(0)
    theirs = nn.LSTM(3, 4, bias=bias).double()
    ours = kind.from_weights(theirs, "_l0")
    us = drawn(9, 5, 3)
    ys, (h, c) = theirs(us)
    got = sweep(ours, us, Order.chain(9))
    torch.testing.assert_close(got.ys, ys, rtol=0, atol=1e-14)
    torch.testing.assert_close(got.xs.c[-1], c[0], rtol=0, atol=1e-14)
    torch.testing.assert_close(got.xs.h[-1], h[0], rtol=0, atol=1e-14)


def test_the_sums_of_the_paper_with_children_in_any_order():
    model, u = example(ChildSumTreeLSTM), drawn(4, 3)
    xs = sweep(model, u, star(3)).xs
    (w_i, w_f, w_g, w_o), (u_i, u_f, u_g, u_o) = model.W_in.chunk(4), model.W_rec.chunk(4)
    b_i, b_f, b_g, b_o = (model.b_in + model.b_rec).chunk(4)
    total = xs.h[:3].sum(0)
    i, o = (torch.sigmoid(w @ u[3] + v @ total + b) for w, v, b in ((w_i, u_i, b_i), (w_o, u_o, b_o)))
    c = i * torch.tanh(w_g @ u[3] + u_g @ total + b_g)
    for k in range(3):
        c = c + torch.sigmoid(w_f @ u[3] + u_f @ xs.h[k] + b_f) * xs.c[k]
    torch.testing.assert_close(xs.c[3], c, rtol=0, atol=1e-14)
    torch.testing.assert_close(xs.h[3], o * torch.tanh(c), rtol=0, atol=1e-14)
    other = sweep(model, u[[2, 0, 1, 3]], star(3)).xs
    torch.testing.assert_close(other.h[3], xs.h[3], rtol=0, atol=1e-14)


def test_the_forget_gate_of_each_slot_sees_all_children():
    model, u = example(NaryTreeLSTM, arity=2), drawn(3, 3)
    xs = sweep(model, u, star(2)).xs
    (w_i, w_f, w_g, w_o), (u_i, u_1, u_2, u_g, u_o) = model.W_in.chunk(4), model.W_rec.chunk(5)
    b_i, b_f, b_g, b_o = (model.b_in + model.b_rec).chunk(4)
    both = xs.h[:2].reshape(-1)
    i, o = (torch.sigmoid(w @ u[2] + v @ both + b) for w, v, b in ((w_i, u_i, b_i), (w_o, u_o, b_o)))
    f = [torch.sigmoid(w_f @ u[2] + v @ both + b_f) for v in (u_1, u_2)]
    c = i * torch.tanh(w_g @ u[2] + u_g @ both + b_g) + f[0] * xs.c[0] + f[1] * xs.c[1]
    torch.testing.assert_close(xs.c[2], c, rtol=0, atol=1e-14)
    torch.testing.assert_close(xs.h[2], o * torch.tanh(c), rtol=0, atol=1e-14)
    other = sweep(model, u[[1, 0, 2]], star(2)).xs
    assert (other.h[2] - xs.h[2]).abs().max() > 1e-3, "slots have weights of their own"


def test_a_small_step_starts_from_the_mean_of_the_children():
    model, u = example(ChildSumTreeLSTM, tau=LSTMState(h=2.0, c=4.0)), drawn(3, 3)
    xs = sweep(model, u, star(2), dt=0.5).xs
    start = LSTMState(xs.h[:2].mean(0), xs.c[:2].mean(0))
    target = model.target_of(start, LSTMState(xs.h[:2], xs.c[:2]), u[2], LSTMState(0.25, 0.125))
    torch.testing.assert_close(xs.h[2], 0.75 * start.h + 0.25 * target.h, rtol=0, atol=1e-15)
    torch.testing.assert_close(xs.c[2], 0.875 * start.c + 0.125 * target.c, rtol=0, atol=1e-15)


def test_torch_has_no_lstm_with_two_slots():
    with pytest.raises(ValueError, match="one predecessor"):
        example(NaryTreeLSTM).to_torch()
    with pytest.raises(ValueError, match="arity must be at least 1"):
        NaryTreeLSTM(2, 2, arity=0)
