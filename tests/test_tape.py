"""Networks with tapes: the published loops, what the actions do, and what becomes of a tape in continuous time."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ctrnn import Euler, Fixed, Heun, Iterate, Recompute, integrate
from ctrnn import _tree as tree
from ctrnn.dynamics import Model
from ctrnn.models import LSTM, BabyNTM, Elman, TapeRNN, TapeState, feed_forward
from tests.variants import every_law

T0 = torch.zeros(())
N, W, TAPES, N_IN = 5, 2, 2, 4


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def machine(kind=TapeRNN, controller="Elman", n_out=2, n_in=N_IN, **options):
    draw, sizes = seeded(), {"slots": N, "width": W, "tapes": TAPES} | options
    wide = n_in + sizes["tapes"] * sizes["width"] - (kind is TapeRNN and sizes.get("jumps", True))
    make = {"Elman": Elman, "LSTM": LSTM, "feed-forward": feed_forward}[controller]
    return kind(make(6, wide, generator=draw), n_out, generator=draw, **sizes)


def drive(steps=8, batch=3, n_in=N_IN):
    us = torch.randn(steps, batch, n_in, generator=seeded(1))
    us[..., -1] = torch.arange(batch) + 2.0  # jumps of 2, 3 and 4 cells
    return us


# --- the published loops ----------------------------------------------------------------------------------------------


def rolled(far):
    """numpy.roll(eye, far, axis=0), entry by entry: row i of the tape becomes row i - far."""
    P = torch.zeros(N, N)
    for i in range(N):
        P[i, (i - far) % N] = 1
    return P


def tape_step(model, memory, h, u):
    """Deletang et al.'s `_update_memory`, for one tape of one sample after the other."""
    said = h
    for i, (weight, bias) in enumerate(zip(model.W_write, model.b_write, strict=True)):
        said = weight @ said + bias
        said = said if i == len(model.W_write) - 1 else said.clamp(min=0)
    moves = [0, -1, 1] + ([-round(float(u[-1])), round(float(u[-1]))] if model.jumps else [])
    logits = (model.W_heads @ h + model.b_heads).reshape(model.tapes, len(moves))
    tapes = []
    for tape in range(model.tapes):
        p = logits[tape].exp() / logits[tape].exp().sum()
        new = torch.stack([said[tape * W : (tape + 1) * W], *memory[tape][1:]])
        tapes.append(sum(p[a] * (rolled(far) @ new) for a, far in enumerate(moves)))
    return torch.stack(tapes)


def baby_step(model, memory, h, u):
    """Suzgun et al.'s: the matrices of their moves, then one more element in the first cell."""
    left, right = rolled(-1), rolled(1)
    push, pop = right.clone(), left.clone()
    push[0, N - 1] = 0
    pop[N - 1, 0] = 0
    said = model.W_heads @ h + model.b_heads
    tapes = []
    for tape in range(model.tapes):
        logits = said[tape * 5 : (tape + 1) * 5]
        p = logits.exp() / logits.exp().sum()
        begin = 5 * model.tapes + tape * W
        moved = sum(p[a] * (P @ memory[tape]) for a, P in enumerate([left, right, torch.eye(N), push, pop]))
        add = torch.zeros(N, 1)
        add[0, 0] = 1
        tapes.append(moved + add @ (1 / (1 + (-said[begin : begin + W]).exp()))[None])
    return torch.stack(tapes)


STEPS = {TapeRNN: tape_step, BabyNTM: baby_step}


def by_hand(model, us):
    """One sample after the other: what the network says."""
    said = []
    for b in range(us.shape[1]):
        x = model.initial_state()
        memory, state = x.memory, x.controller
        ys = []
        for u in us[:, b]:
            heard = u[:-1] if getattr(model, "jumps", False) else u
            seen = torch.cat([heard, *(memory[tape][0] for tape in range(model.tapes))])
            state = model.controller.target(T0, state, seen, 1)
            h = model.controller.readout(state)
            memory = STEPS[type(model)](model, memory, h, u)
            ys.append(h if model.W_out is None else model.W_out @ h + model.b_out)
        said.append(torch.stack(ys))
    return torch.stack(said, 1)


def assert_same_network(model, expected_of, us):
    run = integrate(model, us, dt=1.0, solver=Iterate())
    assert torch.equal(run.ys, integrate(model, us, dt=1.0, solver=Euler()).ys)
    expected = expected_of(model, us)
    torch.testing.assert_close(run.ys, expected, rtol=1e-11, atol=1e-12)
    parameters = list(model.parameters())
    ours, theirs = (torch.autograd.grad(ys.square().sum(), parameters) for ys in (run.ys, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", [TapeRNN, BabyNTM])
@pytest.mark.parametrize("controller", ["Elman", "LSTM", "feed-forward"])
def test_whole_steps_are_the_published_loop(kind, controller):
    assert_same_network(machine(kind, controller), by_hand, drive())


@pytest.mark.parametrize(
    "options",
    [{"jumps": False}, {"hidden": ()}, {"hidden": (3,), "tapes": 1}, {"n_out": None, "hidden": ()}],
    ids=str,
)
def test_so_they_are_with_other_actions_layers_and_tapes(options):
    model = machine(**options)
    run = integrate(model, drive(), dt=1.0, solver=Iterate())
    torch.testing.assert_close(run.ys, by_hand(model, drive()), rtol=1e-11, atol=1e-12)


def test_the_baby_machines_own_controller_is_an_elman_network():
    draw, us = seeded(3), drive(6, 1, N_IN)
    model = machine(BabyNTM, tapes=1)
    W_m, b_m = torch.randn(6, W, generator=draw), torch.randn(6, generator=draw)
    rnn = nn.RNN(N_IN, 6)  # theirs, told W_m M_0 + b_m + h as its state
    net = model.controller
    with torch.no_grad():
        rnn.weight_ih_l0.copy_(net.W_in[:, :N_IN])
        rnn.weight_hh_l0.copy_(net.W_rec)
        rnn.bias_ih_l0.copy_(net.b_in)
        rnn.bias_hh_l0.copy_(net.b_rec)
        net.W_in[:, N_IN:] = net.W_rec @ W_m
        net.b_rec += net.W_rec @ b_m
        memory, h, said = torch.zeros(1, N, W), torch.zeros(1, 1, 6), []
        for u in us:
            _, h = rnn(u[None], (W_m @ memory[0, 0] + b_m).view(1, 1, -1) + h)
            memory = baby_step(model, memory, h[0, 0], u)
            said.append(model.W_out @ h[0, 0] + model.b_out)
        run = integrate(model, us[:, 0], dt=1.0)
    torch.testing.assert_close(run.ys, torch.stack(said), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(run.xs.memory[-1], memory, rtol=1e-11, atol=1e-12)


# --- what the actions do ----------------------------------------------------------------------------------------------


def told(kind, action, actions):
    """A whole step with one action, of a tape that holds 1, ..., 5 and is told to write 9."""
    memory = torch.arange(1.0, N + 1).view(1, N, 1)
    shares = F.one_hot(torch.tensor(action), actions).to(memory).view(1, actions)
    far = (torch.tensor(2),) if kind is TapeRNN else ()
    return machine(kind).moved(memory, shares, torch.tensor([[9.0]]), *far).flatten().tolist()


def test_a_cell_is_written_and_then_the_tape_stays_moves_or_jumps():
    assert told(TapeRNN, 0, 5) == [9, 2, 3, 4, 5]
    assert told(TapeRNN, 1, 5) == [2, 3, 4, 5, 9]
    assert told(TapeRNN, 2, 5) == [5, 9, 2, 3, 4]
    assert told(TapeRNN, 3, 5) == [3, 4, 5, 9, 2]
    assert told(TapeRNN, 4, 5) == [4, 5, 9, 2, 3]


def test_the_baby_machine_moves_and_then_adds():
    assert told(BabyNTM, 0, 5) == [11, 3, 4, 5, 1]
    assert told(BabyNTM, 1, 5) == [14, 1, 2, 3, 4]
    assert told(BabyNTM, 2, 5) == [10, 2, 3, 4, 5]
    assert told(BabyNTM, 3, 5) == [9, 1, 2, 3, 4]  # push
    assert told(BabyNTM, 4, 5) == [11, 3, 4, 5, 0]  # pop


def test_each_sample_jumps_as_far_as_it_is_told():
    model = machine()
    memory = torch.randn(3, TAPES, N, W, generator=seeded(2))
    jump = F.one_hot(torch.tensor(4), 5).to(memory).expand(3, TAPES, 5)
    values = torch.zeros(3, TAPES, W)
    moved = model.moved(memory, jump, values, torch.tensor([0, 2, 7]))
    written = torch.cat([values[:, :, None], memory[:, :, 1:]], 2)
    for sample, far in enumerate((0, 2, 7)):
        assert torch.equal(moved[sample], written[sample].roll(far, 1))


def test_tapes_choose_their_actions_apart_from_one_another():
    model = machine()
    shares, _ = model.commands(torch.randn(7, 6))
    torch.testing.assert_close(shares.sum(-1), torch.ones(7, TAPES))
    with torch.no_grad():
        model.b_heads[:5] += 100 * F.one_hot(torch.tensor(1), 5)
    torch.testing.assert_close(model.commands(torch.zeros(6))[0][0], F.one_hot(torch.tensor(1), 5).to(shares))
    assert model.commands(torch.zeros(6))[0][1].max() < 0.9


def test_the_controller_does_not_see_how_far_a_jump_goes():
    model, us = machine(), drive()
    x = model.initial_state(3)
    first, second = model.target(T0, x, us[0], 1), model.target(T0, x, us[0] + torch.tensor([0.0, 0, 0, 1]), 1)
    assert torch.equal(first.controller, second.controller)
    assert not torch.equal(first.memory, second.memory)


# --- laws, for the machines that the examples are not -----------------------------------------------------------------


VARIANTS = {
    "no jumps": lambda: machine(TapeRNN, "LSTM", jumps=False, hidden=(3,), clocked=False, slots=3),
    "linear": lambda: machine(hidden=(), clocked=False, slots=3, tapes=1),
    "two baby tapes": lambda: machine(BabyNTM, clocked=False, slots=3, tau=2.0),
}


@every_law(VARIANTS)
def test_the_laws_hold_for_every_machine(law, variant):
    law(variant)


@pytest.mark.parametrize("kind", [TapeRNN, BabyNTM])
def test_recomputing_gives_the_same_gradient(kind):
    model = machine(kind)
    losses = [
        integrate(model, drive(), dt=1.0, **how).ys.square().sum() for how in ({}, {"adjoint": Recompute(snapshots=2)})
    ]
    stored, recomputed = (torch.autograd.grad(loss, list(model.parameters())) for loss in losses)
    for a, b in zip(stored, recomputed, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("clocked", [True, False])
@pytest.mark.parametrize("kind", [TapeRNN, BabyNTM])
def test_a_saved_machine_comes_back(kind, clocked, tmp_path):
    model = machine(kind, "LSTM", clocked=clocked)
    model.learn_tau()
    model.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    assert torch.equal(integrate(model, drive(), dt=1.0).ys, integrate(again, drive(), dt=1.0).ys)


# --- in time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TapeRNN, BabyNTM])
def test_a_clocked_tape_holds_between_ticks_and_then_takes_a_whole_step(kind):
    model, us = machine(kind), drive(3)
    run = integrate(model, us.repeat_interleave(4, 0), dt=0.25, steps=Fixed(0.25))
    memory = run.xs.memory
    for k in range(12):
        before = model.initial_state(3).memory if k == 0 else memory[k - 1]
        assert torch.equal(memory[k], before) == (k % 4 != 3)
    h, u = run.xs.controller[7], us[1]
    far = (u[..., -1].long(),) if kind is TapeRNN else ()
    assert torch.equal(memory[7], model.moved(memory[6], *model.commands(h), *far))


@settings(max_examples=15)
@given(
    seed=st.integers(0, 100),
    divisor=st.sampled_from([1, 2, 7]),
    clocked=st.booleans(),
    scale=st.sampled_from([1.0, 30.0]),
    solver=st.sampled_from([Euler(), Heun()]),
)
def test_a_cell_stays_between_what_its_tape_held_and_what_is_written(seed, divisor, clocked, scale, solver):
    model = machine(hidden=(), clocked=clocked)
    with torch.no_grad():
        model.W_heads *= scale
        model.W_write[0].zero_()
        model.b_write[0].copy_(torch.tensor([-1.0, 0, 1, 2]))
        x0 = model.initial_state(2)._replace(memory=torch.randn(2, TAPES, N, W, generator=seeded(seed)))
        us = torch.randn(6, 2, N_IN, generator=seeded(seed))
        run = integrate(model, us, x0, dt=1.0, steps=Fixed(1 / divisor), solver=solver)
    written = model.b_write[0].detach().view(TAPES, 1, W).expand(2, TAPES, 1, W)
    cells = torch.cat([x0.memory, written], -2)
    assert (run.xs.memory <= cells.amax(-2, keepdim=True) + 1e-12).all()
    assert (run.xs.memory >= cells.amin(-2, keepdim=True) - 1e-12).all()


@settings(max_examples=15)
@given(
    seed=st.integers(0, 100),
    divisor=st.sampled_from([1, 2, 7]),
    clocked=st.booleans(),
    solver=st.sampled_from([Euler(), Heun()]),
)
def test_cells_of_the_baby_machine_grow_by_at_most_one_in_a_tau_and_are_never_negative(seed, divisor, clocked, solver):
    model = machine(BabyNTM, clocked=clocked)
    with torch.no_grad():
        us = 5 * torch.randn(6, 2, N_IN, generator=seeded(seed))
        memory = integrate(model, us, dt=1.0, steps=Fixed(1 / divisor), solver=solver).xs.memory
    most = memory.amax((1, 2, 3, 4))
    assert (most <= torch.arange(1.0, 7) + 1e-12).all()
    assert (memory >= 0).all()


def mover(kind, action, slots=60):
    """A machine whose tape takes one action all the time, and writes nothing."""
    options = {"hidden": (), "jumps": False} if kind is TapeRNN else {}
    model = kind(
        feed_forward(1, 1, generator=seeded()), slots=slots, width=1, clocked=False, generator=seeded(), **options
    )
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.b_heads[action] = 60.0
        if kind is BabyNTM:
            model.b_heads[5] = -60.0
    return model


@pytest.mark.parametrize("n", [1, 2, 10, 50])
@pytest.mark.parametrize(("kind", "action", "way"), [(TapeRNN, 2, 1), (TapeRNN, 1, -1), (BabyNTM, 0, -1)])
def test_a_relaxed_tape_moves_one_cell_per_tau_with_the_variance_of_n_smaller_steps(n, kind, action, way):
    model = mover(kind, action)
    with torch.no_grad():
        memory = model.initial_state().memory.clone()
        memory[0, 30] = 1.0
        x0 = model.initial_state()._replace(memory=memory)
        run = integrate(model, torch.zeros(5, 0), x0, dt=1.0, steps=Fixed(1 / n), solver=Euler())
    mark, moves = run.xs.memory[:, 0, :, 0], torch.arange(1.0, 6)
    mean = mark @ (torch.arange(60.0) - 30)
    variance = mark @ (torch.arange(60.0) - 30).square() - mean.square()
    torch.testing.assert_close(mean, way * moves, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(variance, moves * (1 - 1 / n), rtol=1e-7, atol=1e-7)


# --- no NaN -----------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(
    seed=st.integers(0, 1000),
    kind=st.sampled_from([TapeRNN, BabyNTM]),
    scale=st.sampled_from([0.0, 1.0, 100.0, 1e4]),
    memory=st.sampled_from([0.0, 1.0, 100.0]),
)
def test_neither_saturated_actions_nor_empty_or_equal_cells_make_a_nan_in_float32(seed, kind, scale, memory):
    model = machine(kind, "feed-forward").float()
    us = torch.randn(8, 2, N_IN, generator=seeded(seed), dtype=torch.float32)
    with torch.no_grad():
        model.W_heads *= scale
    x0 = model.initial_state(2)
    words = memory * torch.randn(2, 1, 1, W, generator=seeded(seed), dtype=torch.float32)
    run = integrate(model, us, x0._replace(memory=words.expand(2, TAPES, N, W)), dt=1.0)
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves(run.xs))
    for g in torch.autograd.grad(run.ys.square().mean(), list(model.parameters())):
        assert torch.isfinite(g).all()


@pytest.mark.parametrize("kind", [TapeRNN, BabyNTM])
def test_ten_thousand_steps_in_float32_are_finite_and_so_is_their_gradient(kind):
    options = {"hidden": (3,)} if kind is TapeRNN else {}
    model = kind(feed_forward(4, 4, generator=seeded()), 2, slots=4, width=2, generator=seeded(), **options).float()
    us = torch.randn(10_000, model.n_in, generator=seeded(1), dtype=torch.float32)
    with torch.no_grad():
        model.W_heads *= 5
        run = integrate(model, us[:9500], dt=1.0, solver=Iterate())
    assert torch.isfinite(run.xs.memory).all()
    run = integrate(model, us[9500:], tree.map(lambda leaf: leaf[-1], run.xs), dt=1.0, solver=Iterate())
    assert torch.isfinite(run.ys).all()
    for g in torch.autograd.grad(run.ys.square().mean(), list(model.parameters())):
        assert torch.isfinite(g).all()


# --- wrong arguments --------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_named():
    net = Elman(3, 6)
    with pytest.raises(TypeError, match=r"controller must be a Relaxation, got a RNNCell: wrap\(cell\)"):
        TapeRNN(nn.RNNCell(6, 3), slots=4, width=2)
    with pytest.raises(ValueError, match=r"n_in=6 has no room for what .* give it n_in=8 plus"):
        BabyNTM(net, slots=4, width=2, tapes=4)
    for name in ("slots", "width", "tapes"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            TapeRNN(net, **{"slots": 4, "width": 2, "tapes": 1} | {name: 0})
    with pytest.raises(ValueError, match="hidden must be at least 1"):
        TapeRNN(net, slots=4, width=2, hidden=(3, 0))
    with pytest.raises(ValueError, match="tau of the memory is one number, or TapeState"):
        TapeRNN(net, slots=4, width=2, clocked=False, tau=TapeState(1.0, torch.ones(2)))
    with pytest.raises(ValueError, match=r"tau of a clocked memory is one number.*or clocked=False"):
        BabyNTM(net, slots=4, width=2, tau=TapeState((), 1.0))
