"""The neural Turing machine: the paper's loop, its conventions, and what becomes of it in continuous time."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ctrnn import Euler, Fixed, Heun, Iterate, Recompute, integrate
from ctrnn import _tree as tree
from ctrnn.dynamics import Model, wrap
from ctrnn.models import GRU, LSTM, NTM, Elman, NTMState, SkipStack, Stack, feed_forward
from tests.variants import every_law

T0 = torch.zeros(())
N, W, R, WR, N_IN = 5, 3, 2, 2, 4


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def controller(kind, reads=R, width=W, n_in=N_IN):
    wide, draw = n_in + reads * width, seeded()
    return {
        "feed-forward": lambda: feed_forward(6, wide, generator=draw),
        "Elman": lambda: Elman(6, wide, generator=draw),
        "LSTM": lambda: LSTM(6, wide, generator=draw),
        "two LSTMs": lambda: SkipStack([LSTM(4, wide, generator=draw), LSTM(3, wide + 4, generator=draw)]),
        "GRUs": lambda: Stack([GRU(4, wide, generator=draw), GRU(3, 4, generator=draw)]),
        "a torch cell": lambda: wrap(nn.RNNCell(wide, 6)),
    }[kind]()


CONTROLLERS = ["feed-forward", "Elman", "LSTM", "two LSTMs", "GRUs", "a torch cell"]


def machine(kind="LSTM", n_out=2, **options):
    sizes = {"slots": N, "width": W, "reads": R, "writes": WR} | options
    return NTM(controller(kind, sizes["reads"], sizes["width"]), n_out, generator=seeded(), **sizes)


def drive(steps=7, batch=3, n_in=N_IN):
    return torch.randn(steps, batch, n_in, generator=seeded(1))


# --- the paper's loop -------------------------------------------------------------------------------------------------


def cosine(a, b):
    return (a @ b) / ((a @ a + 1e-6).sqrt() * (b @ b + 1e-6).sqrt())


def address(memory, before, k, beta, g, s, gamma):
    """Equations 5 to 9, slot by slot."""
    slots, reach = len(memory), len(s) // 2
    content = torch.softmax(torch.stack([beta * cosine(k, memory[i]) for i in range(slots)]), 0)
    gated = g * content + (1 - g) * before
    moved = [sum(s[j] * gated[(i - (j - reach)) % slots] for j in range(len(s))) for i in range(slots)]
    powers = torch.stack(moved) ** gamma
    return powers / powers.sum()


def say(model, h):
    """What each head is told, row by row of W_heads as its docstring lays them out; write heads first."""
    heads, width, span = model.reads + model.writes, model.width, 2 * model.shifts + 1
    rows = iter(model.W_heads @ h + model.b_heads)
    take = lambda count, size: [torch.stack([next(rows) for _ in range(size)]) for _ in range(count)]
    keys, add = take(heads, width), take(model.writes, width)
    strengths, exponents = F.softplus(take(1, heads)[0]), 1 + F.softplus(take(1, heads)[0])
    gates = torch.sigmoid(take(1, heads)[0])
    erase = [torch.sigmoid(e) for e in take(model.writes, width)]
    shifts = [torch.softmax(s, 0) for s in take(heads, span)]
    assert next(rows, None) is None
    return list(zip(keys, strengths, gates, shifts, exponents, strict=True)), erase, add


def write(memory, weights, erase, add):
    for w, e in zip(weights, erase, strict=True):
        memory = memory * (1 - w[:, None] * e[None, :])
    for w, a in zip(weights, add, strict=True):
        memory = memory + w[:, None] * a[None, :]
    return memory


def by_hand(model, us):
    """One sample after the other: what the machine says."""
    said = []
    for b in range(us.shape[1]):
        x = model.initial_state()
        memory, heads = x.memory, [*x.write_weights, *x.read_weights]
        h, read = x.controller, [w @ memory for w in x.read_weights]
        ys = []
        for u in us[:, b]:
            h = model.controller.target(T0, h, torch.cat([u, *read]), 1)
            out = model.controller.readout(h)
            told, erase, add = say(model, out)
            writes = model.writes
            heads[:writes] = [address(memory, w, *k) for w, k in zip(heads[:writes], told[:writes], strict=True)]
            new = write(memory, heads[:writes], erase, add)
            looked = memory if model.read_first else new
            heads[writes:] = [address(looked, w, *k) for w, k in zip(heads[writes:], told[writes:], strict=True)]
            read = [w @ looked for w in heads[writes:]]
            memory = new
            seen = torch.cat([out, *read])
            ys.append(seen if model.W_out is None else model.W_out @ seen + model.b_out)
        said.append(torch.stack(ys))
    return torch.stack(said, 1)


@pytest.mark.parametrize("read_first", [False, True])
@pytest.mark.parametrize("kind", CONTROLLERS)
def test_whole_steps_are_the_papers_loop(kind, read_first):
    model = machine(kind, read_first=read_first)
    run = integrate(model, drive(), dt=1.0, solver=Iterate())
    expected = by_hand(model, drive())
    torch.testing.assert_close(run.ys, expected, rtol=1e-11, atol=1e-12)
    parameters = [p for p in model.parameters() if p.requires_grad]
    ours, theirs = (torch.autograd.grad(ys.square().sum(), parameters) for ys in (run.ys, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("options", [{"shifts": 0}, {"shifts": 2}, {"reads": 1, "writes": 1}, {"n_out": None}], ids=str)
def test_so_they_are_with_other_numbers_of_heads_and_shifts_and_without_outputs(options):
    model = machine(**options, learn_memory=True)
    run = integrate(model, drive(), dt=1.0, solver=Iterate())
    torch.testing.assert_close(run.ys, by_hand(model, drive()), rtol=1e-11, atol=1e-12)


def test_whether_reading_comes_first_shows_in_what_is_read():
    told = [machine(read_first=first) for first in (False, True)]
    told[1].load_state_dict(told[0].state_dict(), strict=False)
    first, second = (integrate(model, drive(), dt=1.0).xs for model in told)
    assert first.read == ()
    torch.testing.assert_close(first.write_weights[0], second.write_weights[0])
    assert not torch.allclose(told[0].read(first)[0], second.read[0])
    torch.testing.assert_close(
        second.read[0], second.read_weights[0] @ told[1].initial_state(3).memory, rtol=1e-12, atol=0
    )


def test_a_controller_without_state_of_its_own_knows_only_what_is_read():
    net = feed_forward(4, 3, generator=seeded())
    u = drive(1, 3, 3)[0]
    x = torch.randn(3, 4, generator=seeded(2))
    assert torch.equal(net.target(T0, x, u), net.target(T0, 0 * x, u))
    net.W_rec = torch.randn(4, 4)
    assert (net.W_rec == 0).all()


def test_layers_of_a_skip_stack_all_see_the_input_and_are_all_seen():
    net = controller("two LSTMs")
    u, x = torch.randn(N_IN + R * W), tree.map(torch.randn_like, net.initial_state())
    lower = net.layers[0].target(T0, x.layers[0], u, 1)
    upper = net.layers[1].target(T0, x.layers[1], torch.cat([u, lower.h]), 1)
    new = net.target(T0, x, u, 1)
    assert torch.equal(new.layers[1].h, upper.h)
    assert torch.equal(net.readout(new), torch.cat([lower.h, upper.h]))
    with pytest.raises(ValueError, match="give it n_in=14"):
        SkipStack([LSTM(4, 10), LSTM(3, 4)])
    with pytest.raises(TypeError, match="all see the input"):
        net.to_torch()
    assert SkipStack.twin_of(nn.LSTM(3, 4)) is None


# --- laws, for the machines that the example is not -------------------------------------------------------------------


VARIANTS = {
    "read first": lambda: machine("LSTM", slots=4, width=2, read_first=True, clocked=False),
    "feed-forward": lambda: machine("feed-forward", slots=4, width=2, clocked=False, exact_rates=True),
    "learned memory": lambda: machine("Elman", slots=3, width=2, learn_memory=True, clocked=False, tau=2.0),
}


@every_law(VARIANTS)
def test_the_laws_hold_for_every_machine(law, variant):
    law(variant)


def test_recomputing_gives_the_same_gradient():
    model = machine()
    losses = [
        integrate(model, drive(), dt=1.0, **how).ys.square().sum() for how in ({}, {"adjoint": Recompute(snapshots=2)})
    ]
    parameters = list(model.parameters())
    stored, recomputed = (torch.autograd.grad(loss, parameters, allow_unused=True) for loss in losses)
    for a, b in zip(stored, recomputed, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-13)


def test_a_saved_machine_comes_back_with_what_its_controller_keeps(tmp_path):
    for make in VARIANTS.values():
        model = make()
        model.learn_tau()
        model.save(tmp_path / "m.safetensors")
        again = Model.load(tmp_path / "m.safetensors")
        assert torch.equal(integrate(model, drive(), dt=1.0).ys, integrate(again, drive(), dt=1.0).ys)


# --- in time ----------------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    seed=st.integers(0, 100),
    divisor=st.sampled_from([1, 2, 7]),
    read_first=st.booleans(),
    scale=st.sampled_from([1.0, 30.0]),
    solver=st.sampled_from([Euler(), Heun()]),
)
def test_weights_stay_weights_and_cells_in_their_range_for_steps_up_to_tau(seed, divisor, read_first, scale, solver):
    model = machine(read_first=read_first, clocked=False)
    with torch.no_grad():
        model.W_heads *= scale
        model.b_heads[(R + WR) * W : (R + WR) * W + WR * W].zero_()
        model.W_heads[(R + WR) * W : (R + WR) * W + WR * W].zero_()  # nothing is added: cells shrink towards 0
        us = torch.randn(6, 2, N_IN, generator=seeded(seed))
        x0 = model.initial_state(2)._replace(memory=torch.randn(2, N, W, generator=seeded(seed)))
        run = integrate(model, us, x0, dt=1.0, steps=Fixed(1 / divisor), solver=solver)
    for weights in (run.xs.write_weights, run.xs.read_weights):
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(6, 2, 2))
    sizes = torch.cat([x0.memory[None], run.xs.memory]).abs()
    assert (sizes.diff(dim=0) <= 1e-15).all()
    assert run.xs.memory.sign().eq(x0.memory.sign()).logical_or(run.xs.memory == 0).all()


def walker(slots=60, shift=1, **options):
    """A machine whose two heads begin at slot 1 and move by `shift` slots in each tau, whatever they read."""
    model = NTM(
        feed_forward(1, 1, generator=seeded()), slots=slots, width=1, clocked=False, generator=seeded(), **options
    )
    with torch.no_grad():
        model.W_heads.zero_()
        model.b_heads.zero_()
        model.b_heads[5:7] = -40.0  # exponents 1
        model.b_heads[7:9] = -40.0  # gates: not by content
        model.b_heads[10:].copy_(torch.tensor([-40.0, -40, -40] * 2))
        model.b_heads[[11 + shift, 14 + shift]] = 40.0
        model.w_0.fill_(-100.0)
        model.w_0[:, 1] = 100.0
    return model


@pytest.mark.parametrize("n", [1, 2, 10, 50])
def test_a_head_moves_one_slot_per_tau_with_the_variance_of_n_smaller_steps(n):
    with torch.no_grad():
        run = integrate(walker(), torch.zeros(5, 0), dt=1.0, steps=Fixed(1 / n), solver=Euler())
    slots = torch.arange(60.0) - 1
    moves = torch.arange(1.0, 6)
    for weights in (run.xs.write_weights[:, 0], run.xs.read_weights[:, 0]):
        mean = weights @ slots
        torch.testing.assert_close(mean, moves, rtol=1e-9, atol=1e-9)
        variance = weights @ slots.square() - mean.square()
        torch.testing.assert_close(variance, moves * (1 - 1 / n), rtol=1e-7, atol=1e-7)


def test_an_erasure_held_for_tau_takes_all_but_e_to_the_minus_one_as_the_step_vanishes():
    model = walker(slots=3, shift=0)
    with torch.no_grad():
        model.b_heads[9] = 40.0  # erase
        x0 = model.initial_state()._replace(memory=torch.ones(3, 1))
        for n in (1, 2, 10, 1000):
            run = integrate(model, torch.zeros(1, 0), x0, dt=1.0, steps=Fixed(1 / n), solver=Euler())
            torch.testing.assert_close(run.xs.memory[0, 1, 0], torch.tensor((1 - 1 / n) ** n), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(run.xs.memory[0, 1, 0], torch.tensor(math.exp(-1)), rtol=0, atol=1e-3)


@pytest.mark.parametrize("n", [1, 2, 10])
def test_at_exact_rates_an_erasure_held_for_tau_is_the_machines_at_every_step(n):
    model = walker(slots=3, shift=0, exact_rates=True)
    with torch.no_grad():
        model.b_heads[9] = 1.0  # erase sigma(1)
        x0 = model.initial_state()._replace(memory=torch.ones(3, 1))
        run = integrate(model, torch.zeros(2, 0), x0, dt=1.0, steps=Fixed(1 / n), solver=Euler())
    kept = 1 - torch.sigmoid(torch.tensor(1.0))
    torch.testing.assert_close(run.xs.memory[:, 1, 0], torch.stack([kept, kept**2]), rtol=1e-12, atol=0)


# --- symmetry ---------------------------------------------------------------------------------------------------------


def test_slots_that_begin_alike_stay_alike_for_ever_and_w_0_is_what_tells_them_apart():
    model = machine()
    us = drive(20)
    with torch.no_grad():
        told_apart = integrate(model, us, dt=1.0).xs
        model.w_0.fill_(0.3)
        trapped = integrate(model, us, dt=1.0).xs
    spread = lambda memory: (memory - memory.mean(-2, keepdim=True)).abs().max()
    assert spread(trapped.memory) < 1e-14
    assert spread(told_apart.memory[-1]) > 1e-3
    loss = integrate(model, us, dt=1.0).ys.square().mean()
    (grad,) = torch.autograd.grad(loss, model.w_0)
    assert grad.abs().max() < 1e-14  # and no gradient leads out


def test_heads_that_start_at_a_slot_are_there_but_for_a_millionth():
    start = machine(start_slot=2, learn_weights=False).initial_state(3)
    for weights in (start.write_weights, start.read_weights):
        assert torch.equal(weights.argmax(-1), torch.full(weights.shape[:-1], 2))
        others = weights.sum(-1) - weights[..., 2]
        assert torch.allclose(weights.sum(-1), torch.ones_like(others))
        assert (others < 1e-6 * N).all()
    drawn, same = machine(), machine(start_slot=2)
    assert torch.equal(drawn.W_heads, same.W_heads)
    assert same.w_0.requires_grad


def test_turning_the_ring_turns_the_state():
    model = machine()
    x0 = model.initial_state(2)._replace(memory=torch.randn(2, N, W, generator=seeded(3)))
    turn = lambda x: x._replace(
        memory=x.memory.roll(2, -2), write_weights=x.write_weights.roll(2, -1), read_weights=x.read_weights.roll(2, -1)
    )
    us = drive(10, 2)
    with torch.no_grad():
        turned, plain = integrate(model, us, turn(x0), dt=1.0), integrate(model, us, x0, dt=1.0)
    torch.testing.assert_close(turned.ys, plain.ys, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(turned.xs.memory, plain.xs.memory.roll(2, -2), rtol=1e-10, atol=1e-12)


# --- no NaN -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.0, 1.0, 100.0, 1e4]),
    memory=st.sampled_from([0.0, 1e-6, 1.0, 100.0]),
    read_first=st.booleans(),
)
def test_neither_saturated_gates_nor_empty_or_equal_slots_make_a_nan_in_float32(seed, scale, memory, read_first):
    model = machine("feed-forward", read_first=read_first).float()
    us = torch.randn(8, 2, N_IN, generator=seeded(seed), dtype=torch.float32)
    with torch.no_grad():
        model.W_heads *= scale
    x0 = model.initial_state(2)
    words = memory * torch.randn(2, 1, W, generator=seeded(seed), dtype=torch.float32)
    run = integrate(model, us, x0._replace(memory=words.expand(2, N, W)), dt=1.0)
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves(run.xs))
    for g in torch.autograd.grad(run.ys.square().mean(), list(model.parameters()), allow_unused=True):
        assert g is None or torch.isfinite(g).all()


def test_ten_thousand_steps_in_float32_are_finite_and_so_is_their_gradient():
    model = NTM(feed_forward(4, 4, generator=seeded()), 2, slots=4, width=2, generator=seeded()).float()
    with torch.no_grad():
        model.W_heads *= 5
    us = torch.randn(10_000, 2, generator=seeded(1), dtype=torch.float32)
    with torch.no_grad():
        run = integrate(model, us[:9000], dt=1.0, solver=Iterate())
    torch.testing.assert_close(run.xs.write_weights.sum(-1), torch.ones(9000, 1, dtype=torch.float32))
    run = integrate(model, us[9000:], tree.map(lambda leaf: leaf[-1], run.xs), dt=1.0, solver=Iterate())
    assert torch.isfinite(run.ys).all()
    for g in torch.autograd.grad(run.ys.square().mean(), list(model.parameters()), allow_unused=True):
        assert g is None or torch.isfinite(g).all()


# --- wrong arguments --------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_named():
    net = LSTM(3, 6)
    with pytest.raises(TypeError, match=r"controller must be a Relaxation, got a LSTMCell: wrap\(cell\)"):
        NTM(nn.LSTMCell(6, 3), slots=4, width=2)
    with pytest.raises(ValueError, match=r"n_in=6 has no room for what 4 heads read .* give it n_in=8 plus"):
        NTM(net, slots=4, width=2, reads=4)
    with pytest.raises(ValueError, match="shifts=2 either way reach past a ring of 4 slots: at most 1"):
        NTM(net, slots=4, width=2, shifts=2)
    with pytest.raises(ValueError, match="slots must be at least 1"):
        NTM(net, slots=0, width=2)
    with pytest.raises(ValueError, match="start_slot=4 is none of 4 slots: at least 0, at most 3"):
        NTM(net, slots=4, width=2, start_slot=4)
    with pytest.raises(TypeError, match=r"start_slot must be an integer, got 1\.5"):
        NTM(net, slots=4, width=2, start_slot=1.5)
    for tau in (torch.ones(2), NTMState((), 1.0, 1.0, 1.0, 1.0), (1.0, 2.0)):
        with pytest.raises(ValueError, match="tau of the memory is one number, or NTMState"):
            NTM(net, slots=4, width=2, clocked=False, tau=tau)
        with pytest.raises(ValueError, match=r"tau of a clocked memory is one number.*or clocked=False"):
            NTM(net, slots=4, width=2, tau=tau)
    with pytest.raises(ValueError, match=r"tau = -1.0|positive"):
        NTM(net, slots=4, width=2, tau=-1.0)
    with pytest.raises(ValueError, match="exact as they are"):
        NTM(net, slots=4, width=2, exact_rates=True)
    with pytest.raises(ValueError, match="has no tau to learn, but a period"):
        NTM(net, slots=4, width=2, learn_tau=True)
    model = NTM(net, slots=4, width=2, clocked=False)
    model.tau = NTMState((), 3.0, 2.0, 1.0, ())
    assert float(model.tau.memory) == 3.0
    assert float(model.tau.controller.h) == 1.0
    model.tau = 0.25
    assert {float(leaf) for leaf in tree.leaves(model.tau)} == {0.25}
