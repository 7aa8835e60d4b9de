"""A modern Hopfield network as a read: its updates, what is stored, and what becomes of it in continuous time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ctrnn import Euler, Fixed, Heun, Iterate, Recompute, integrate
from ctrnn import _tree as tree
from ctrnn.dynamics import Model
from ctrnn.models import LSTM, Elman, HopfieldRead, HopfieldReadState, ModernHopfield, feed_forward
from ctrnn.models.memory.addressing import associated
from tests.variants import every_law

T0 = torch.zeros(())
N, W, R, N_IN = 5, 3, 2, 4


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def machine(controller="LSTM", n_out=2, **options):
    draw, sizes = seeded(), {"slots": N, "width": W, "reads": R, "beta": 1.5} | options
    wide = N_IN + sizes["reads"] * sizes["width"]
    make = {"Elman": Elman, "LSTM": LSTM, "feed-forward": feed_forward}[controller]
    return HopfieldRead(make(6, wide, generator=draw), n_out, generator=draw, **sizes)


def drive(steps=7, batch=3):
    return torch.randn(steps, batch, N_IN, generator=seeded(1))


# --- the published read -----------------------------------------------------------------------------------------------


def by_hand(model, us):
    """One sample, one head and one word after the other: what the network says."""
    said = []
    for b in range(us.shape[1]):
        x = model.initial_state()
        state, words, r = x.controller, list(x.memory), None
        ys = []
        for u in us[:, b]:
            if r is None:
                r = recall(model, words, model.controller.readout(state))
            state = model.controller.target(T0, state, torch.cat([u, *r]), 1)
            h = model.controller.readout(state)
            if model.writing:
                v, g = (
                    model.W_heads[R * W : -1] @ h + model.b_heads[R * W : -1],
                    model.W_heads[-1] @ h + model.b_heads[-1],
                )
                g = 1 / (1 + (-g).exp())
                words = [g * new + (1 - g) * old for new, old in zip([v, *words[:-1]], words, strict=True)]
            r = recall(model, words, h)
            seen = torch.cat([h, *r])
            ys.append(seen if model.W_out is None else model.W_out @ seen + model.b_out)
        said.append(torch.stack(ys))
    return torch.stack(said, 1)


def recall(model, words, h):
    found = []
    for head in range(model.reads):
        rows = slice(head * W, (head + 1) * W)
        q = model.W_heads[rows] @ h + model.b_heads[rows]
        for _ in range(model.recalls):
            likeness = torch.stack([(model.beta * word @ q).exp() for word in words])
            q = sum(a * word for a, word in zip(likeness / likeness.sum(), words, strict=True))
        found.append(q)
    return found


@pytest.mark.parametrize("options", [{}, {"recalls": 3}, {"learn_memory": True}, {"writing": False}], ids=str)
@pytest.mark.parametrize("controller", ["LSTM", "feed-forward"])
def test_whole_steps_are_the_plain_loop(controller, options):
    model = machine(controller, **options)
    run = integrate(model, drive(), dt=1.0, solver=Iterate())
    assert torch.equal(run.ys, integrate(model, drive(), dt=1.0, solver=Euler()).ys)
    expected = by_hand(model, drive())
    torch.testing.assert_close(run.ys, expected, rtol=1e-11, atol=1e-12)
    parameters = list(model.parameters())
    ours, theirs = (torch.autograd.grad(ys.square().sum(), parameters, allow_unused=True) for ys in (run.ys, expected))
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("recalls", [1, 2, 5])
def test_a_read_is_as_many_updates_of_a_modern_hopfield_network_from_the_query(recalls):
    words = torch.randn(N, W, generator=seeded(2))
    model = machine("feed-forward", recalls=recalls)
    x = HopfieldReadState(torch.randn(7, 6, generator=seeded(3)), words.expand(7, N, W))
    network = ModernHopfield.of(words, beta=1.5)
    start = model.queries(x.controller)
    updated = integrate(network, None, start, t_span=(0.0, float(recalls)), steps=Fixed(1.0), solver=Iterate()).xs[-1]
    torch.testing.assert_close(model.read(x), updated, rtol=1e-13, atol=1e-14)


def test_one_update_is_attention_with_the_words_as_keys_and_values():
    words, asked = torch.randn(2, N, W, generator=seeded(2)), torch.randn(2, R, W, generator=seeded(3))
    attended = nn.functional.scaled_dot_product_attention(asked, words, words)
    torch.testing.assert_close(associated(words, asked, W**-0.5) @ words, attended, rtol=1e-13, atol=1e-14)


def test_words_apart_from_one_another_are_recalled_from_half_of_their_numbers():
    words = torch.randint(0, 2, (20, 40), generator=seeded(2)) * 2.0 - 1
    model = HopfieldRead(feed_forward(1, 40, generator=seeded()), slots=20, width=40, writing=False)
    x = model.initial_state()._replace(memory=words)
    with torch.no_grad():
        model.W_heads.zero_()
        for word in words:
            model.b_heads.copy_(torch.cat([word[:20], torch.zeros(20)]))
            torch.testing.assert_close(model.read(x)[0], word, rtol=0, atol=0.05)


# --- what is stored ---------------------------------------------------------------------------------------------------


def storer(gate, **options):
    """A machine that stores 1, or with a closed gate nothing, all the time."""
    model = HopfieldRead(feed_forward(1, 1, generator=seeded()), slots=4, width=1, generator=seeded(), **options)
    with torch.no_grad():
        model.W_heads.zero_()
        model.b_heads.copy_(torch.tensor([0.0, 1.0, gate]))
    return model


def test_a_word_comes_in_at_the_first_slot_and_the_last_is_forgotten():
    model = storer(60.0)
    x0 = model.initial_state()._replace(memory=torch.tensor([[5.0], [6], [7], [8]]))
    memory = integrate(model, torch.zeros(2, 0), x0, dt=1.0).xs.memory
    assert memory[:, :, 0].tolist() == [[1, 5, 6, 7], [1, 1, 5, 6]]


def test_a_closed_gate_keeps_the_memory_and_so_does_one_that_is_not_written():
    for model in (storer(-800.0), machine(writing=False)):
        words = torch.randn(2, *model.memory_0.shape, generator=seeded(2))
        run = integrate(model, torch.ones(3, 2, model.n_in), model.initial_state(2)._replace(memory=words), dt=1.0)
        assert torch.equal(run.xs.memory, words.expand(3, *words.shape))


def test_empty_slots_are_recalled_like_words_of_zeros():
    x = machine().initial_state()
    torch.testing.assert_close(machine().weights(x), torch.full((R, N), 1 / N))
    words = torch.zeros(N, 1)
    words[0] = 1.0
    asked = torch.tensor([[2.0]])
    torch.testing.assert_close(
        associated(words, asked, 1.0)[0, 0], torch.tensor(2.0).exp() / (torch.tensor(2.0).exp() + 4)
    )


# --- laws, for the machines that the example is not -------------------------------------------------------------------


VARIANTS = {
    "one recall": lambda: machine("Elman", slots=3, width=2, clocked=False, tau=2.0),
    "one slot": lambda: machine("feed-forward", slots=1, width=2, recalls=3, clocked=False),
}


@every_law(VARIANTS)
def test_the_laws_hold_for_every_machine(law, variant):
    law(variant)


def test_recomputing_gives_the_same_gradient():
    model = machine(learn_memory=True, recalls=2)
    losses = [
        integrate(model, drive(), dt=1.0, **how).ys.square().sum() for how in ({}, {"adjoint": Recompute(snapshots=2)})
    ]
    stored, recomputed = (torch.autograd.grad(loss, list(model.parameters())) for loss in losses)
    for a, b in zip(stored, recomputed, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("options", [{}, {"clocked": False, "learn_memory": True}, {"writing": False}], ids=str)
def test_a_saved_machine_comes_back(options, tmp_path):
    model = machine(**options)
    model.learn_tau()
    model.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    assert torch.equal(integrate(model, drive(), dt=1.0).ys, integrate(again, drive(), dt=1.0).ys)


# --- in time ----------------------------------------------------------------------------------------------------------


def test_a_clocked_memory_holds_between_ticks_and_is_asked_at_all_times():
    model = machine()
    run = integrate(model, drive(3).repeat_interleave(4, 0), dt=0.25, steps=Fixed(0.25))
    for k in range(12):
        before = model.initial_state(3).memory if k == 0 else run.xs.memory[k - 1]
        assert torch.equal(run.xs.memory[k], before) == (k % 4 != 3)
    reads = model.read(run.xs)
    assert not torch.equal(reads[5], reads[4])


@settings(max_examples=15)
@given(
    seed=st.integers(0, 100),
    divisor=st.sampled_from([1, 2, 7]),
    clocked=st.booleans(),
    scale=st.sampled_from([1.0, 30.0]),
    solver=st.sampled_from([Euler(), Heun()]),
)
def test_numbers_stay_between_those_that_were_stored_and_weights_are_weights(seed, divisor, clocked, scale, solver):
    model = machine(clocked=clocked)
    with torch.no_grad():
        model.W_heads *= scale
        model.W_heads[R * W : -1].zero_()  # always the same word
        x0 = model.initial_state(2)._replace(memory=torch.randn(2, N, W, generator=seeded(seed)))
        us = torch.randn(6, 2, N_IN, generator=seeded(seed))
        run = integrate(model, us, x0, dt=1.0, steps=Fixed(1 / divisor), solver=solver)
        weights, reads = model.weights(run.xs), model.read(run.xs)
    words = torch.cat([x0.memory, model.b_heads.detach()[R * W : -1].expand(2, 1, W)], -2)
    low, high = words.amin(-2, keepdim=True) - 1e-12, words.amax(-2, keepdim=True) + 1e-12
    assert ((run.xs.memory >= low) & (run.xs.memory <= high)).all()
    assert ((reads >= low) & (reads <= high)).all()
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(6, 2, R))


@pytest.mark.parametrize("n", [1, 2, 10, 50])
def test_a_word_that_is_pushed_in_a_relaxed_memory_moves_one_slot_per_tau_and_spreads(n):
    model = HopfieldRead(feed_forward(1, 1, generator=seeded()), slots=60, width=1, clocked=False, generator=seeded())
    with torch.no_grad():
        model.W_heads.zero_()
        model.b_heads.copy_(torch.tensor([0.0, 0.0, 60.0]))
        memory = torch.zeros(60, 1)
        memory[5] = 1.0
        x0 = model.initial_state()._replace(memory=memory)
        run = integrate(model, torch.zeros(5, 0), x0, dt=1.0, steps=Fixed(1 / n), solver=Euler())
    mark, moves = run.xs.memory[..., 0], torch.arange(1.0, 6)
    mean = mark @ (torch.arange(60.0) - 5)
    torch.testing.assert_close(mean, moves, rtol=1e-9, atol=1e-9)
    variance = mark @ (torch.arange(60.0) - 5).square() - mean.square()
    torch.testing.assert_close(variance, moves * (1 - 1 / n), rtol=1e-7, atol=1e-7)


# --- no NaN -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.0, 1.0, 100.0, 1e4]),
    memory=st.sampled_from([0.0, 1.0, 100.0]),
    recalls=st.sampled_from([1, 3]),
)
def test_neither_long_queries_nor_empty_or_equal_words_make_a_nan_in_float32(seed, scale, memory, recalls):
    model = machine("feed-forward", recalls=recalls).float()
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
    model = HopfieldRead(feed_forward(4, 4, generator=seeded()), 2, slots=4, width=2, generator=seeded()).float()
    us = torch.randn(10_000, 2, generator=seeded(1), dtype=torch.float32)
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
    net = LSTM(3, 6)
    with pytest.raises(TypeError, match=r"controller must be a Relaxation, got a LSTMCell: wrap\(cell\)"):
        HopfieldRead(nn.LSTMCell(6, 3), slots=4, width=2)
    with pytest.raises(ValueError, match=r"n_in=6 has no room for what .* give it n_in=8 plus"):
        HopfieldRead(net, slots=4, width=2, reads=4)
    for name in ("slots", "width", "reads", "recalls"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            HopfieldRead(net, **{"slots": 4, "width": 2} | {name: 0})
    for beta in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="must be positive and finite"):
            HopfieldRead(net, slots=4, width=2, beta=beta)
    with pytest.raises(TypeError, match="beta must be a number"):
        HopfieldRead(net, slots=4, width=2, beta="1")
    with pytest.raises(ValueError, match="tau of the memory is one number, or HopfieldReadState"):
        HopfieldRead(net, slots=4, width=2, clocked=False, tau=HopfieldReadState(1.0, torch.ones(2)))
