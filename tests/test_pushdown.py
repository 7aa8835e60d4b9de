"""The neural network pushdown automaton: the published loop, strings that are told apart exactly, and every dt."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrnn import Euler, Every, Fixed, Iterate, Recompute, integrate
from ctrnn import _tree as tree
from ctrnn.dynamics import Model
from ctrnn.models import LSTM, Elman, Pushdown, SecondOrder, feed_forward
from ctrnn.models.activations import identity
from tests.variants import every_law

N_IN = 3


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def network(controller=SecondOrder, n_out=2, slots=7, **options):
    draw = seeded()
    return Pushdown(controller(5, 2 * N_IN, generator=draw), n_out, slots=slots, generator=draw, **options)


def drive(steps=7, batch=3, seed=1):
    return torch.randn(steps, batch, N_IN, generator=seeded(seed))


# --- the published loop -----------------------------------------------------------------------------------------------


def moved(stack, action, symbol):
    """A list of (length, symbol), the top last, after one signed action."""
    if float(action.detach()) > 0:
        return [*stack, (action, symbol)]
    stack, due = list(stack), -action
    while stack and float(due.detach()) > 0:
        length, symbol = stack.pop()
        if float((length - due).detach()) > 0:
            stack.append((length - due, symbol))
            break
        due = due - length
    return stack


def top(stack, width):
    """The reading: symbols within the upper unit of length."""
    r, room = torch.zeros(width), torch.ones(())
    for length, symbol in reversed(stack):
        if float((room - length).detach()) <= 0:
            return r + room * symbol
        r, room = r + length * symbol, room - length
    return r


def by_hand(model, us):
    """Outputs, readings and lengths: S' = g(W S (u + r) + b), a = tanh(W_a S' + b_a), and then the stack moves."""
    net, said = model.controller, []
    for b in range(us.shape[1]):
        S, stack, ys = torch.eye(net.n)[0], [], []
        for u in us[:, b]:
            seen = torch.cat([u, top(stack, N_IN)])
            total = [
                sum(net.W_rec[i, j, k] * S[j] * seen[k] for j in range(net.n) for k in range(2 * N_IN))
                for i in range(net.n)
            ]
            S = torch.sigmoid(torch.stack(total) + net.b_rec)
            action = torch.tanh(model.W_heads @ S + model.b_heads)[0]
            stack = moved(stack, action, u)
            length = sum((part for part, _ in stack), torch.zeros(()))
            ys.append(torch.cat([model.W_out @ S + model.b_out, top(stack, N_IN), length[None]]))
        said.append(torch.stack(ys))
    return torch.stack(said, 1)


def seen(model, us):
    run = integrate(model, us, dt=1.0)
    return torch.cat([run.ys, model.read(run.xs).squeeze(-2), model.length(run.xs).unsqueeze(-1)], -1)


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (10.0, 0.5), (10.0, -0.5)])
def test_whole_steps_are_the_published_loop(scale, bias):
    model = network()
    with torch.no_grad():
        model.controller.W_rec *= scale
        model.W_heads *= scale
        model.b_heads.fill_(bias)
    ours, theirs = seen(model, drive(6)), by_hand(model, drive(6))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)
    parameters = list(model.parameters())
    ours, theirs = (torch.autograd.grad(ys.square().sum(), parameters) for ys in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("clocked", [True, False])
def test_euler_at_dt_equal_to_tau_is_the_discrete_automaton_bit_for_bit(clocked):
    model = network(clocked=clocked)
    discrete = integrate(model, drive(), dt=1.0, solver=Iterate()).xs
    for a, b in zip(tree.leaves(integrate(model, drive(), dt=1.0).xs), tree.leaves(discrete), strict=True):
        assert torch.equal(a, b)


# --- automata set by hand ---------------------------------------------------------------------------------------------


def machine(n_in, effects, slots=8, n=1, **options):
    """Each input is pushed with the length `effects` gives it, or pops that length; at once if run with n steps."""
    net = feed_forward(1, 2 * n_in, activation=identity, tau=1 / n, generator=seeded())
    model = Pushdown(net, slots=slots, generator=seeded(), **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        net.W_in[0, :n_in] = torch.atanh(torch.tensor(effects, dtype=net.W_in.dtype)).clamp(-40, 40)
        model.W_heads.fill_(1.0)
    return model.requires_grad_(False)


BRACKETS = "([)]"


@settings(max_examples=50)
@given(st.lists(st.sampled_from(BRACKETS), min_size=1, max_size=30))
def test_with_whole_actions_the_reading_is_the_bracket_that_is_open(string):
    us = torch.eye(4)[[BRACKETS.index(c) for c in string]]
    xs = integrate(machine(4, [1, 1, -1, -1], slots=30), us, dt=1.0).xs
    reads, lengths = machine(4, [1, 1, -1, -1]).read(xs)[:, 0], machine(4, [1, 1, -1, -1]).length(xs)
    held = []
    for k, c in enumerate(string):
        if c in "([":
            held.append(c)
        elif held:
            held.pop()
        assert float(lengths[k]) == len(held)
        expected = torch.eye(4)[BRACKETS.index(held[-1])] if held else torch.zeros(4)
        torch.testing.assert_close(reads[k], expected, rtol=0, atol=1e-12)


def test_the_reading_sums_what_lies_within_the_upper_unit_of_length():
    model = machine(3, [0.7, 0.5, -0.4])
    xs = integrate(model, torch.eye(3)[[0, 1, 1, 2]], dt=1.0).xs
    expected = torch.tensor([[0.7, 0, 0], [0.5, 0.5, 0], [0, 1.0, 0], [0.4, 0.6, 0]])
    torch.testing.assert_close(model.read(xs)[:, 0], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.length(xs), torch.tensor([0.7, 1.2, 1.7, 1.3]))


# --- every dt ---------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    n=st.sampled_from([2, 5, 7, 50]),
    clocked=st.booleans(),
    symbols=st.lists(st.integers(0, 3), min_size=1, max_size=10),
    effects=st.sampled_from([[0.8, 0.3, -0.5, -0.9], [1, 1, -1, -1], [0.6, 0.6, -0.6, -0.2]]),
)
def test_held_actions_come_to_the_same_stack_at_every_step(n, clocked, symbols, effects):
    us = torch.eye(4)[symbols]
    whole = integrate(machine(4, effects, slots=10), us, dt=1.0).xs
    model = machine(4, effects, slots=10, n=n, clocked=clocked)
    parts = integrate(model, us, dt=1.0, steps=Fixed(1 / n), solver=Euler()).xs
    torch.testing.assert_close(model.read(parts), model.read(whole), rtol=0, atol=1e-12)
    torch.testing.assert_close(parts.strengths, whole.strengths, rtol=0, atol=1e-12)
    assert torch.equal(parts.place, whole.place)


def test_the_length_is_the_integral_of_the_action_reflected_at_zero_at_every_substep():
    n = 8
    model = machine(4, [0.8, 0.4, -0.5, -0.9], n=n, clocked=False)
    symbols = [0, 2, 3, 1, 0, 3, 2]
    xs = integrate(model, torch.eye(4)[symbols], dt=1.0, steps=Fixed(1 / n), save=Every(1)).xs
    length, expected = 0.0, []
    for k in symbols:
        for _ in range(n):
            length = max(0.0, length + [0.8, 0.4, -0.5, -0.9][k] / n)
            expected.append(length)
    torch.testing.assert_close(model.length(xs), torch.tensor(expected), rtol=0, atol=1e-13)


def test_hundreds_of_pushes_and_pops_in_small_steps_use_no_row_up():
    model = machine(2, [0.9, -0.9], slots=3, n=7, clocked=False)
    us = torch.eye(2)[[0] + [0, 1] * 100]
    xs = integrate(model, us, dt=1.0, steps=Fixed(1 / 7), solver=Euler()).xs
    assert int(xs.place.argmax(-1).max()) == 2
    torch.testing.assert_close(model.length(xs)[::2], torch.full((101,), 0.9), rtol=0, atol=1e-11)
    torch.testing.assert_close(model.read(xs)[::2, 0], torch.tensor([0.9, 0.0]).expand(101, 2), rtol=0, atol=1e-11)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    divisor=st.sampled_from([1, 2, 7]),
    scale=st.sampled_from([1.0, 10.0, 1000.0]),
    clocked=st.booleans(),
    slots=st.sampled_from([1, 2, 7]),
)
def test_segments_stay_within_a_unit_and_readings_within_what_was_pushed(seed, divisor, scale, clocked, slots):
    model = network(clocked=clocked, slots=slots)
    with torch.no_grad():
        model.W_heads *= scale
        us = drive(12, seed=seed)
        xs = integrate(model, us, dt=1.0, steps=Fixed(1 / divisor), save=Every(1)).xs
    largest = us.abs().max()
    assert (xs.strengths >= -1e-14).all()
    assert (xs.strengths <= 1 + 1e-14).all()
    assert (xs.contents.abs() <= largest * xs.strengths.unsqueeze(-1) + 1e-13).all()
    assert (model.read(xs).abs() <= largest + 1e-13).all()
    assert (xs.place.sum(-1) == 1).all()


# --- laws, files, gradients -------------------------------------------------------------------------------------------

VARIANTS = {
    "an LSTM": lambda: network(LSTM, slots=2, clocked=False),
    "an Elman without outputs": lambda: network(Elman, n_out=None, slots=1, clocked=False, tau=2.0),
}


@every_law(VARIANTS)
def test_the_laws_hold_for_every_automaton(law, variant):
    law(variant)


@pytest.mark.parametrize("clocked", [True, False])
def test_a_saved_automaton_comes_back(clocked, tmp_path):
    model = network(clocked=clocked, tau=0.5)
    model.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    assert again.config == model.config
    assert torch.equal(integrate(model, drive(), dt=0.25).ys, integrate(again, drive(), dt=0.25).ys)


@pytest.mark.parametrize("clocked", [True, False])
def test_recomputing_gives_the_same_gradient(clocked):
    model = network(clocked=clocked)
    losses = [
        integrate(model, drive(), dt=1.0, steps=Fixed(0.5), **how).ys.square().sum()
        for how in ({}, {"adjoint": Recompute(snapshots=2)})
    ]
    stored, recomputed = (torch.autograd.grad(loss, list(model.parameters())) for loss in losses)
    torch.testing.assert_close(recomputed, stored, rtol=1e-10, atol=1e-13)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.0, 1.0, 100.0, 1e6]),
    divisor=st.sampled_from([1, 3]),
    clocked=st.booleans(),
    bias=st.sampled_from([0.0, 1e4, -1e4, 1e-30]),
)
def test_neither_empty_nor_overfull_stacks_make_a_nan_in_float32(seed, scale, divisor, clocked, bias):
    model = network(clocked=clocked, slots=3).float()
    with torch.no_grad():
        model.W_heads *= scale
        model.b_heads.fill_(bias)
    run = integrate(model, drive(8, seed=seed).float(), dt=1.0, steps=Fixed(1 / divisor))
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves(run.xs))
    loss = run.ys.square().mean() + model.read(run.xs).square().mean() + model.length(run.xs).square().mean()
    for g in torch.autograd.grad(loss, list(model.parameters())):
        assert torch.isfinite(g).all()


def test_ten_thousand_steps_in_float32_are_finite_and_so_is_their_gradient():
    model = network(slots=4).float()
    with torch.no_grad():
        model.W_heads *= 20
    us = drive(10_000, 1).float()[:, 0]
    with torch.no_grad():
        run = integrate(model, us[:9800], dt=1.0, solver=Iterate())
    assert float(run.xs.strengths.min()) >= 0
    assert float(run.xs.strengths.max()) <= 1 + 1e-5
    run = integrate(model, us[9800:], tree.map(lambda leaf: leaf[-1], run.xs), dt=1.0, solver=Iterate())
    for g in torch.autograd.grad(run.ys.square().mean(), list(model.parameters())):
        assert torch.isfinite(g).all()


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"n_in=7 is odd: give it twice the inputs'"):
        Pushdown(Elman(3, 7), slots=4)
    with pytest.raises(ValueError, match="slots must be at least 1"):
        Pushdown(Elman(3, 6), slots=0)
    with pytest.raises(TypeError, match="controller must be a Relaxation"):
        Pushdown(torch.nn.LSTMCell(6, 3), slots=2)
    with pytest.raises(ValueError, match="tau of a clocked memory is one number, its period"):
        Pushdown(Elman(3, 6), slots=2, tau=torch.ones(2))
    assert Pushdown(Elman(3, 6), slots=2).n_in == 3
