"""The recursive network: torch's RNN on a path, Goller & Kuechler's fold on a tree."""

import torch
from torch import nn

from ctrnn import Order, sweep
from ctrnn.models import Recursive


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_on_a_path_it_is_torchs_rnn():
    torch.manual_seed(0)
    for name, activation in (("tanh", torch.tanh), ("relu", torch.relu)):
        theirs = nn.RNN(3, 4, nonlinearity=name).double()
        ours = Recursive(4, 3, arity=1, activation=activation).double()
        with torch.no_grad():
            ours.W_in.copy_(theirs.weight_ih_l0)
            ours.W_rec.copy_(theirs.weight_hh_l0)
            ours.b_rec.copy_(theirs.bias_ih_l0 + theirs.bias_hh_l0)
        us = drawn(9, 5, 3)
        torch.testing.assert_close(sweep(ours, us, Order.chain(9)).ys, theirs(us)[0], rtol=0, atol=1e-14)


def test_a_node_reads_each_child_through_the_weights_of_its_slot():
    model = Recursive(4, 3, generator=torch.Generator().manual_seed(0)).double()
    u = drawn(3, 3)
    h = sweep(model, u, Order(((), (), (0, 1)))).ys
    left, right = model.W_rec.chunk(2, 1)
    torch.testing.assert_close(h[0], torch.tanh(model.W_in @ u[0] + model.b_rec), rtol=0, atol=1e-15)
    root = torch.tanh(model.W_in @ u[2] + left @ h[0] + right @ h[1] + model.b_rec)
    torch.testing.assert_close(h[2], root, rtol=0, atol=1e-15)


def test_an_only_child_on_the_right_is_not_one_on_the_left():
    model = Recursive(4, 3, generator=torch.Generator().manual_seed(0)).double()
    u = drawn(2, 3)
    right = sweep(model, u, Order(((), (None, 0)))).ys
    torch.testing.assert_close(
        right[1], torch.tanh(model.W_in @ u[1] + model.W_rec[:, 4:] @ right[0] + model.b_rec), rtol=0, atol=1e-15
    )
    assert (right[1] - sweep(model, u, Order.chain(2)).ys[1]).abs().max() > 1e-3
