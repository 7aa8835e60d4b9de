"""Sweeps over orders: the networks known from time on their paths, and one node after another on any graph."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrnn import Bidirectional, Order, integrate, sweep
from ctrnn import _tree as tree
from ctrnn.drive import Held
from ctrnn.models import GRU, LSTM, ChildSumTreeLSTM, Elman, FitzHughNagumo, NaryTreeLSTM, Recursive
from ctrnn.steps import Fixed

KINDS = (Recursive, ChildSumTreeLSTM, NaryTreeLSTM)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def build(kind, arity=3):
    options = {} if kind is ChildSumTreeLSTM else {"arity": arity}
    return kind(4, 3, 2, generator=seeded(), **options).double()


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def node_by_node(model, inputs, order):
    """The same, written as a recursion over single nodes."""
    found = {}

    def state(node):
        if node not in found:
            slots = order.predecessors[node]
            read = [None if k is None else state(k) for k in slots]
            zero = model.initial_state()
            children = [zero if k is None else k for k in read] or [zero]
            stacked = tree.map(lambda *parts: torch.stack(parts, -2), *children)
            found[node] = model.target_of(zero, stacked, inputs[node], 1)
        return found[node]

    return tree.map(lambda *parts: torch.stack(parts), *(state(node) for node in range(len(order))))


@st.composite
def graphs(draw, arity=3):
    """A graph without cycles, its nodes numbered at random."""
    n = draw(st.integers(1, 9))
    number = draw(st.permutations(range(n)))
    slots = {
        number[k]: tuple(number[j] if j < k else None for j in draw(st.lists(st.integers(0, n), max_size=arity)))
        for k in range(n)
    }
    return Order(tuple(slots[k] for k in range(n)))


@pytest.mark.parametrize("cell", [Elman, GRU, LSTM, *KINDS])
def test_a_sweep_over_a_chain_is_integration_over_time(cell):
    model = (build(cell) if cell in KINDS else cell(4, 3, 2, generator=seeded())).double()
    us = drawn(7, 5, 3)
    for dt in (1.0, 0.4):
        ours = sweep(model, us, Order.chain(7), dt=dt)
        theirs = integrate(model, Held(us, dt), steps=Fixed(dt=dt))
        torch.testing.assert_close(ours.ys, theirs.ys[-7:], rtol=0, atol=1e-14)
    torch.testing.assert_close(sweep(model, us, Order.chain(7)).ys, sweep(model, us, Order.chain(7), dt=1.0).ys)


def test_two_opposite_paths_are_the_bidirectional_network():
    ahead, back = (LSTM(4, 3, generator=seeded(k)).double() for k in (0, 1))
    us = drawn(6, 2, 3)
    ours = torch.cat([sweep(ahead, us, Order.chain(6)).ys, sweep(back, us, Order.reversed_chain(6)).ys], -1)
    torch.testing.assert_close(ours, Bidirectional(ahead, back)(us, dt=1.0).ys, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@given(order=graphs())
@settings(max_examples=25, deadline=None)
def test_one_batch_per_level_gives_the_values_and_gradients_of_one_node_after_another(kind, order):
    model, inputs = build(kind), drawn(len(order), 3).requires_grad_()
    ours, theirs = sweep(model, inputs, order).xs, node_by_node(model, inputs, order)
    weight = drawn(len(order), 4, seed=2)
    for a, b in zip(tree.leaves(ours), tree.leaves(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)
    wanted = [inputs, model.W_in, model.W_rec, model.b_rec]
    ga, gb = (torch.autograd.grad((tree.leaves(xs)[0] * weight).sum(), wanted) for xs in (ours, theirs))
    torch.testing.assert_close(ga, gb, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@given(order=graphs(), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_result_does_not_depend_on_the_numbering_of_the_nodes(kind, order, seed):
    model, inputs = build(kind), drawn(len(order), 3)
    new = torch.randperm(len(order), generator=seeded(seed)).tolist()  # node k is now called new[k]
    slots = {new[k]: tuple(None if j is None else new[j] for j in read) for k, read in enumerate(order.predecessors)}
    other = Order(tuple(slots[k] for k in range(len(order))))
    permuted = torch.empty_like(inputs)
    permuted[new] = inputs
    for dt in (None, 0.3):
        torch.testing.assert_close(
            sweep(model, permuted, other, dt=dt).ys[new], sweep(model, inputs, order, dt=dt).ys, rtol=0, atol=1e-14
        )


@pytest.mark.parametrize("kind", KINDS)
def test_different_trees_side_by_side_are_each_tree_alone(kind):
    model = build(kind)
    trees = [Order(((), (), (0, 1))), Order.chain(4), Order(((1, 2, 3), (), (), ()))]
    inputs = drawn(11, 3)
    alone = torch.cat([sweep(model, u, t).ys for u, t in zip(inputs.split([3, 4, 4]), trees, strict=True)])
    torch.testing.assert_close(sweep(model, inputs, Order.forest(trees)).ys, alone, rtol=0, atol=1e-14)


def test_an_output_sees_the_whole_grid_through_four_planes_and_a_quadrant_through_one():
    model, inputs = build(Recursive, arity=2), drawn(12, 3).requires_grad_()
    planes = Order.planes(3, 4)
    seen = []
    for plane in planes:
        (gradient,) = torch.autograd.grad(sweep(model, inputs, plane).ys[5].sum(), inputs)  # row 1, column 1
        seen.append((gradient != 0).any(-1).reshape(3, 4))
    rows, columns = (slice(0, 2), slice(1, 3)), (slice(0, 2), slice(1, 4))  # up to the node, and from it on
    quadrants = [(i, j) for i in rows for j in columns]
    for mask, quadrant in zip(seen, quadrants, strict=True):
        expected = torch.zeros(3, 4, dtype=torch.bool)
        expected[quadrant] = True
        assert torch.equal(mask, expected)


def test_levels_are_as_many_as_the_longest_path_has_nodes():
    assert [len(level.nodes) for level in Order.grid(3, 4).levels] == [1, 2, 3, 3, 2, 1]
    assert len(Order.chain(5).levels) == 5
    assert Order(((), (), (0, 1), (2, None))).roots == (3,)
    assert Order(((1,), ())).levels[0].nodes.tolist() == [1]
    assert Order.chain(3) == Order(((), (0,), (1,)))


def test_a_level_has_no_more_slots_than_its_own_nodes_fill():
    star = Order(((),) * 2000 + (tuple(range(2000)),))
    assert [tuple(level.rows.shape) for level in star.levels] == [(2000, 1), (1, 2000)]
    mixed = Order(((None, None, None), (0, None, None), (None, 1, None)))
    assert [tuple(level.filled.shape) for level in mixed.levels] == [(1, 1), (1, 1), (1, 2)]
    assert mixed.arity == 3


def test_an_order_with_a_cycle_or_an_unknown_node_is_refused():
    with pytest.raises(ValueError, match=r"circle.*\[1, 2\]"):
        Order(((), (2,), (1,)))
    with pytest.raises(ValueError, match="circle"):
        Order(((0,),))
    with pytest.raises(ValueError, match="reads node 7"):
        Order(((), (7,)))
    with pytest.raises(TypeError, match="by its number"):
        Order((("a",),))
    with pytest.raises(TypeError, match=r"node 0 reads 1: .* one as \(1,\)"):
        Order((1, 2))
    with pytest.raises(ValueError, match="at least one node"):
        Order(())


def test_a_step_of_tau_is_the_discrete_network_bit_for_bit():
    taus = torch.rand(200, generator=seeded(), dtype=torch.float64) + 0.1
    us = drawn(3, 3).float()
    for tau in taus.tolist():
        model = Recursive(4, 3, tau=tau, generator=seeded()).float()
        assert torch.equal(sweep(model, us, Order.chain(3), dt=tau).xs, sweep(model, us, Order.chain(3)).xs)


def test_inputs_without_a_batch_are_those_of_every_start():
    model, inputs, order = build(Recursive), drawn(3, 3), Order(((), (), (0, 1)))
    x0 = drawn(5, 4, seed=2)
    every = sweep(model, inputs, order, x0=x0).xs
    for k in range(5):
        torch.testing.assert_close(every[:, k], sweep(model, inputs, order, x0=x0[k]).xs, rtol=0, atol=1e-14)
    one = sweep(model, inputs.unsqueeze(1).expand(-1, 5, -1), order, x0=x0[0]).xs
    torch.testing.assert_close(one, every[:, :1].expand(-1, 5, -1), rtol=0, atol=1e-14)


def test_a_sweep_says_what_does_not_fit():
    two = Order(((), (), (0, 1)))
    with pytest.raises(ValueError, match="reads 1"):
        sweep(Elman(2, 3), torch.zeros(3, 3), two)
    with pytest.raises(ValueError, match="larger arity"):
        sweep(Recursive(2, 3, arity=1), torch.zeros(3, 3), two)
    with pytest.raises(ValueError, match="one row"):
        sweep(Recursive(2, 3), torch.zeros(4, 3), two)
    with pytest.raises(ValueError, match="dt must be positive"):
        sweep(Recursive(2, 3), torch.zeros(3, 3), two, dt=0)
    with pytest.raises(TypeError, match="Relaxation"):
        sweep(FitzHughNagumo(), torch.zeros(3, 1), two)


def test_a_sweep_refuses_what_integrate_refuses():
    net, order, us = build(Recursive), Order(((), (), (0, 1))), drawn(3, 3)
    with pytest.raises(ValueError, match="Euler overshoots: dt = 3 is longer than the smallest tau = 1"):
        sweep(net, us, order, dt=3.0)
    with pytest.raises(TypeError, match="dt must be a number"):
        sweep(net, us, order, dt="a")
    with pytest.raises(ValueError, match=r"inputs hold NaN .*\(node, \*batch\) = \(1,\)"):
        sweep(net, us.index_fill(0, torch.tensor([1]), torch.nan), order)
    with pytest.raises(ValueError, match="batch is empty: the input"):
        sweep(net, torch.zeros(3, 0, 3).double(), order)
    with pytest.raises(TypeError, match="the input has dtype"):
        sweep(net, torch.zeros(3, 3, dtype=torch.long), order)
    with pytest.raises(TypeError, match="float32"):
        sweep(net, us.float(), order)
    with pytest.raises(ValueError, match="x0 must have the shape"):
        sweep(net, us, order, x0=drawn(3))
    with pytest.raises(TypeError, match="x0 must be a Tensor"):
        sweep(net, us, order, x0=0.0)
    with pytest.raises(ValueError, match=r"The input has the batch shape \(2,\), x0 has \(5,\)"):
        sweep(net, drawn(3, 2, 3), order, x0=drawn(5, 4))
    with pytest.raises(TypeError, match="order must be an Order, got a tuple"):
        sweep(net, us, order.predecessors)
    with pytest.raises(TypeError, match="inputs must be a Tensor"):
        sweep(net, us.tolist(), order)
    with torch.no_grad():
        net.W_in[0, 0] = torch.nan
    with pytest.raises(ValueError, match="parameter 'W_in' holds NaN"):
        sweep(net, us, order)
