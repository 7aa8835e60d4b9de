"""A grid read from its four corners."""

import pytest
import torch

from ctrnn import Bidirectional, GridDAGRNN, Order, sweep
from ctrnn import _tree as tree
from ctrnn.models import GRU, ChildSumTreeLSTM, Elman, NaryTreeLSTM, Recursive


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def planes(kind=Recursive):
    return [kind(4, 3, generator=seeded(k)).double() for k in range(4)]


def elman(plane, slot):
    """The network over time that reads the state before it as `plane` reads one of its slots."""
    twin = Elman(plane.n, plane.n_in, generator=seeded()).double()
    with torch.no_grad():
        twin.W_rec.copy_(plane.W_rec[:, slot * plane.n : (slot + 1) * plane.n])
        twin.W_in.copy_(plane.W_in)
        twin.b_rec.copy_(plane.b_rec)
        twin.b_in.zero_()
    return twin


@pytest.mark.parametrize(("row", "slot", "pairs"), [(True, 1, ((0, 1), (2, 3))), (False, 0, ((0, 2), (1, 3)))])
def test_on_a_single_row_or_column_it_is_a_bidirectional_network_twice(row, slot, pairs):
    made, us = planes(), drawn(6, 2, 3)
    ys = GridDAGRNN(made)(us.unsqueeze(0 if row else 1)).ys.squeeze(0 if row else 1).split(4, -1)
    for ahead, back in pairs:
        twin = Bidirectional(elman(made[ahead], slot), elman(made[back], slot))
        expected = twin(us, dt=1.0).ys
        torch.testing.assert_close(torch.cat([ys[ahead], ys[back]], -1), expected, rtol=0, atol=1e-14)


def test_the_planes_are_the_papers_recursions_node_by_node():
    net, us = GridDAGRNN(planes(), 2, generator=seeded(5)).double(), drawn(3, 4, 3)
    found, zero = net(us), torch.zeros(4, dtype=torch.float64)
    said = [[[us[i, j]] for j in range(4)] for i in range(3)]
    for plane, above, before in zip(net.planes, (-1, -1, 1, 1), (-1, 1, -1, 1), strict=True):
        H = {}
        for i in range(3)[::-above]:
            for j in range(4)[::-before]:
                read = torch.cat([H.get((i + above, j), zero), H.get((i, j + before), zero)])
                H[i, j] = torch.tanh(plane.W_in @ us[i, j] + plane.W_rec @ read + plane.b_rec)
                said[i][j].append(H[i, j])
    for i in range(3):
        for j in range(4):
            expected = net.W_out @ torch.cat(said[i][j]) + net.b_out
            torch.testing.assert_close(found.ys[i, j], expected, rtol=0, atol=1e-14)
            torch.testing.assert_close(found.xs.up_left[i, j], said[i][j][4], rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", [Recursive, ChildSumTreeLSTM, NaryTreeLSTM])
def test_every_output_sees_the_whole_grid(kind):
    net, us = GridDAGRNN(planes(kind), 1, generator=seeded(5)).double(), drawn(3, 4, 3).requires_grad_()
    ys = net(us).ys
    for i in range(3):
        for j in range(4):
            (gradient,) = torch.autograd.grad(ys[i, j].sum(), us, retain_graph=True)
            assert bool((gradient != 0).any(-1).all())


def test_the_result_does_not_depend_on_how_the_nodes_are_numbered():
    made, us = planes(ChildSumTreeLSTM), drawn(3, 4, 3)
    found = GridDAGRNN(made)(us, dt=0.5).xs
    new = torch.randperm(12, generator=seeded(3))  # node k is now called new[k]
    permuted = torch.empty_like(us.flatten(0, 1))
    permuted[new] = us.flatten(0, 1)
    for plane, order, state in zip(made, Order.planes(3, 4), found, strict=True):
        slots = dict(zip(new.tolist(), order.predecessors, strict=True))
        other = Order(tuple(tuple(None if k is None else int(new[k]) for k in slots[node]) for node in range(12)))
        again = tree.map(lambda leaf: leaf[new].unflatten(0, (3, 4)), sweep(plane, permuted, other, dt=0.5).xs)
        for a, b in zip(tree.leaves(again), tree.leaves(state), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_turning_grid_and_planes_together_turns_the_output():
    a, b, c, d = planes(NaryTreeLSTM)
    us = drawn(3, 4, 2, 3)
    turned = GridDAGRNN([d, c, b, a])(us.flip(0, 1)).ys.flip(0, 1).split(4, -1)
    torch.testing.assert_close(torch.cat(turned[::-1], -1), GridDAGRNN([a, b, c, d])(us).ys, rtol=0, atol=1e-14)


def test_deep_ones_chain_and_a_grid_of_a_batch_is_the_grid_of_each():
    first, second = GridDAGRNN(planes(), 3, generator=seeded(5)).double(), GridDAGRNN(planes()).double()
    us = drawn(3, 4, 2, 3)
    ys = second(first(us).ys).ys
    assert ys.shape == (3, 4, 2, 16)
    torch.testing.assert_close(ys[:, :, 1], second(first(us[:, :, 1]).ys).ys, rtol=0, atol=1e-14)


def test_one_plane_for_all_corners_shares_its_weights():
    (plane, *_) = planes()
    net, us = GridDAGRNN([plane] * 4), drawn(3, 4, 3)
    assert len(list(net.parameters())) == len(list(plane.parameters()))
    a, _, _, d = net(us).ys.split(4, -1)
    torch.testing.assert_close(net(us.flip(0, 1)).ys.split(4, -1)[3].flip(0, 1), a, rtol=0, atol=1e-14)
    assert not torch.equal(a, d)


@pytest.mark.parametrize("net", [GridDAGRNN.example(), GridDAGRNN([ChildSumTreeLSTM(2, 3)] * 4)], ids=["own", "shared"])
def test_a_loaded_network_says_what_the_saved_one_said(net, tmp_path):
    net.save(tmp_path / "net.safetensors")
    again = GridDAGRNN.load(tmp_path / "net.safetensors")
    us = drawn(2, 3, net.n_in).to(net.planes[0].W_in)
    assert torch.equal(again(us).ys, net(us).ys)
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in net.named_parameters()]


def test_planes_that_share_their_weights_share_them_after_loading(tmp_path):
    one, other, *_ = planes()
    GridDAGRNN([one, other, one, other]).save(tmp_path / "net.safetensors")
    a, b, c, d = GridDAGRNN.load(tmp_path / "net.safetensors").planes
    assert (a is c, b is d, a is b) == (True, True, False)


def test_what_cannot_read_a_grid_is_refused():
    with pytest.raises(ValueError, match="four corners, got 3"):
        GridDAGRNN(planes()[:3])
    with pytest.raises(TypeError, match="GRU does not read two"):
        GridDAGRNN([GRU(4, 3)] * 4)
    with pytest.raises(TypeError, match="does not read two"):
        GridDAGRNN([Recursive(4, 3, arity=1)] * 4)
    with pytest.raises(ValueError, match=r"n_in is \[3, 3, 3, 2\]"):
        GridDAGRNN([*planes()[:3], Recursive(4, 2)])
    with pytest.raises(ValueError, match="row, column"):
        GridDAGRNN(planes())(drawn(12, 3))
    with pytest.raises(ValueError, match="row, column"):
        GridDAGRNN(planes())(drawn(3, 4, 2))
    with pytest.raises(ValueError, match="dt must be positive"):
        GridDAGRNN(planes())(drawn(3, 4, 3), dt=0.0)
