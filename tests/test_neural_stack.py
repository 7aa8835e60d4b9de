"""Neural stack and queue: the paper's loop, its numbers, and pops and pushes that are rates."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrnn import RK4, Adaptive, Euler, Every, Fixed, Held, Heun, Iterate, Recompute, integrate
from ctrnn import _tree as tree
from ctrnn.dynamics import Model
from ctrnn.models import GRU, LSTM, Elman, NeuralQueue, NeuralStack, SegmentsState, feed_forward
from ctrnn.models.activations import identity
from tests.variants import every_law

T0 = torch.zeros(())
N_IN = 3
KINDS = [NeuralStack, NeuralQueue]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def network(kind=NeuralStack, controller=LSTM, n_out=2, slots=7, width=2, **options):
    draw = seeded()
    return kind(controller(5, N_IN + width, generator=draw), n_out, slots=slots, width=width, generator=draw, **options)


def drive(steps=7, batch=3, n_in=N_IN, seed=1):
    return torch.randn(steps, batch, n_in, generator=seeded(seed))


# --- the paper's loop -------------------------------------------------------------------------------------------------


def popped(strengths, amount, first):
    """What a pop leaves of each element, as the paper's equations say; `first` are those that are popped before i."""
    zero = torch.zeros(())
    left = [torch.maximum(zero, amount - sum((strengths[j] for j in first(i)), zero)) for i in range(len(strengths))]
    return [torch.maximum(zero, s - take) for s, take in zip(strengths, left, strict=True)]


def reading(strengths, values, first, width):
    zero = torch.zeros(())
    r = torch.zeros(width)
    for i, (s, v) in enumerate(zip(strengths, values, strict=True)):
        r = r + torch.minimum(s, torch.maximum(zero, 1 - sum((strengths[j] for j in first(i)), zero))) * v
    return r


def by_hand(model, us):
    """One sample after the other, with a row for every step: outputs, readings, and what is held at last."""
    said = []
    for b in range(us.shape[1]):
        h = model.controller.initial_state()
        strengths, values, r, ys = [], [], torch.zeros(model.width), []
        for u in us[:, b]:
            h = model.controller.target(T0, h, torch.cat([u, r]), 1)
            out = model.controller.readout(h)
            rows = model.W_heads @ out + model.b_heads
            pop, push, v = torch.sigmoid(rows[0]), torch.sigmoid(rows[1]), torch.tanh(rows[2:])
            count = len(strengths)
            newer = lambda i, count=count: range(i + 1, count)
            strengths = popped(strengths, pop, range if isinstance(model, NeuralQueue) else newer)
            strengths.append(push)
            values.append(v)
            newer = lambda i, count=count + 1: range(i + 1, count)
            r = reading(strengths, values, range if isinstance(model, NeuralQueue) else newer, model.width)
            ys.append(torch.cat([out if model.W_out is None else model.W_out @ out + model.b_out, r]))
        said.append(torch.stack(ys))
    return torch.stack(said, 1)


def seen(model, us):
    run = integrate(model, us, dt=1.0)
    return torch.cat([run.ys, model.read(run.xs).squeeze(-2)], -1)


@every_kind
@pytest.mark.parametrize("bias", [0.0, 1.5, -4.0])
@pytest.mark.parametrize(
    "options", [{}, {"controller": Elman, "n_out": None}, {"controller": GRU, "width": 1}], ids=str
)
def test_whole_steps_are_the_papers_loop(kind, options, bias):
    model = network(kind, **options)
    with torch.no_grad():
        model.b_heads[0] += bias  # from stacks that run empty to those that only grow
        model.W_heads[:2] *= 5
    ours, theirs = seen(model, drive()), by_hand(model, drive())
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)
    parameters = [p for p in model.parameters() if p.requires_grad]
    ours, theirs = (torch.autograd.grad(ys.square().sum(), parameters, allow_unused=True) for ys in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@every_kind
@pytest.mark.parametrize("clocked", [True, False])
def test_euler_at_dt_equal_to_tau_is_the_discrete_network_bit_for_bit(kind, clocked):
    model = network(kind, clocked=clocked)
    discrete = integrate(model, drive(), dt=1.0, solver=Iterate()).xs
    for a, b in zip(tree.leaves(integrate(model, drive(), dt=1.0).xs), tree.leaves(discrete), strict=True):
        assert torch.equal(a, b)


# --- the paper's numbers ----------------------------------------------------------------------------------------------


def machine(kind=NeuralStack, width=1, slots=8, n=1, **options):
    """A memory that does what its inputs say, and at once if it is run with n steps per tau."""
    net = feed_forward(2 + width, 2 + 2 * width, activation=identity, tau=1 / n, generator=seeded())
    model = kind(net, slots=slots, width=width, generator=seeded(), **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        net.W_in[:, : 2 + width] = torch.eye(2 + width)
        model.W_heads.copy_(torch.eye(2 + width))
    return model


SCALE = 100.0  # what is pushed is a tanh


def told(*commands):
    """Inputs of a `machine` for (pop, push, value)."""
    given = torch.tensor(commands, dtype=torch.get_default_dtype())
    gates = torch.logit(given[:, :2]).clamp(-800, 800)
    return torch.cat([gates, torch.atanh(given[:, 2:] / SCALE)], -1)


def read(model, us, n=1, solver=None):
    with torch.no_grad():
        xs = integrate(model, us, dt=1.0, steps=Fixed(1 / n), solver=solver).xs
    return SCALE * model.read(xs)[..., 0, 0], xs


FIGURE_1 = [(0, 0.8, 1), (0.1, 0.5, 2), (0.9, 0.9, 3)]


def test_the_stack_of_figure_1():
    reads, xs = read(machine(), told(*FIGURE_1))
    torch.testing.assert_close(reads, torch.tensor([0.8, 1.5, 2.8]))
    expected = torch.tensor([[0.8, 0, 0], [0.7, 0.5, 0], [0.3, 0.9, 0]])  # the third takes the second's row
    torch.testing.assert_close(xs.strengths[:, :3], expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(machine().length(xs), torch.tensor([0.8, 1.2, 1.2]))


def test_the_queue_on_the_same_inputs():
    reads, xs = read(machine(NeuralQueue), told(*FIGURE_1))
    torch.testing.assert_close(reads, torch.tensor([0.8, 0.7 + 0.3 * 2, 0.3 * 2 + 0.7 * 3]))
    torch.testing.assert_close(xs.strengths[-1, :3], torch.tensor([0.0, 0.3, 0.9]), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("kind", "left"), [(NeuralStack, 1.0), (NeuralQueue, 2.0)])
def test_after_two_pushes_and_a_pop_a_stack_holds_the_first_and_a_queue_the_second(kind, left):
    reads, _ = read(machine(kind), told((0, 1, 1), (0, 1, 2), (1, 0, 0)))
    assert float(reads[-1]) == pytest.approx(left)


def test_the_pop_bias_starts_at_minus_one():
    assert float(network().b_heads.detach()[0]) == -1.0
    assert float(network(NeuralQueue).b_heads.detach()[0]) == -1.0


def test_a_reading_changes_with_a_value_by_its_strength_and_not_with_what_is_popped():
    model = machine(width=2)
    u = torch.tensor([[-800.0, 0.5, 0.1, 0.2], [-800, -0.3, 0.3, 0.1], [0.3, -800, 0.0, 0.0]], requires_grad=True)
    v = torch.tanh(u[:, 2:])
    run = integrate(model, u, dt=1.0)
    (grad,) = torch.autograd.grad(model.read(run.xs)[1, 0].sum(), u, retain_graph=True)
    d = torch.sigmoid(u[:, 1])
    torch.testing.assert_close(grad[1, 2:], d[1] * (1 - v[1].square()))
    gone = integrate(machine(width=2), torch.cat([u[:2], u.new_tensor([[800.0, -800, 0, 0]])]), dt=1.0)
    assert float(gone.xs.strengths.detach()[-1, 1]) == 0
    (grad,) = torch.autograd.grad(machine(width=2).read(gone.xs)[2, 0].sum(), u)
    assert (grad[1, 2:] == 0).all()  # the second is popped wholly


# --- a memory of fixed size -------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(kind=st.sampled_from(KINDS), commands=st.lists(st.sampled_from(["push", "pop", "stay"]), max_size=60))
def test_for_hard_commands_it_is_pythons_list_whose_rows_are_used_again(kind, commands):
    slots, held, rows = 4, [], []
    for k, command in enumerate(commands):
        if command == "push" and len(held) == slots:
            command = "stay"
        rows.append((float(command == "pop"), float(command == "push"), float(k + 1)))
    if not rows:
        return
    reads, xs = read(machine(kind, slots=slots), told(*rows))
    for k, (pop, push, value) in enumerate(rows):
        if pop and held:
            held.pop(0 if kind is NeuralQueue else -1)
        if push:
            held.append(value)
        front = held[0 if kind is NeuralQueue else -1] if held else 0.0
        assert float(reads[k]) == pytest.approx(front, rel=1e-12)
        assert float(xs.strengths[k].sum()) == len(held) <= slots or push


@every_kind
def test_long_runs_through_few_rows_are_the_papers_as_long_as_few_segments_are_held(kind):
    few, many = (machine(kind, slots=slots) for slots in (12, 200))
    draw = seeded(3)
    rows, held = [], 0.0
    for _ in range(200):
        push = float(torch.rand((), generator=draw)) if held < 2 else 0.0
        pop = 0.0 if held < 1 else float(torch.rand((), generator=draw))
        held = max(0.0, held - pop) + push
        rows.append((pop, push, 1 + 9 * float(torch.rand((), generator=draw))))
    ours, xs = read(few, told(*rows))
    theirs, full = read(many, told(*rows))
    assert 4 < int((full.strengths > 0).sum(-1).max()) <= 12
    assert int(full.place.argmax(-1).max()) > 100 or kind is NeuralStack
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(xs.strengths.sum(-1), full.strengths.sum(-1), rtol=1e-10, atol=1e-10)


@every_kind
def test_what_is_pushed_beyond_the_slots_drives_out_the_oldest(kind):
    model = machine(kind, slots=3)
    rows = [(0, 1, k + 1) for k in range(5)] + [(0, 0, 0)] * 2 + [(1, 0, 0)] * 3
    reads, xs = read(model, told(*rows))
    assert reads[-4:].round(decimals=9).tolist() == ([5, 4, 3, 0] if kind is NeuralStack else [3, 4, 5, 0])
    assert float(xs.strengths[-1].sum()) == 0


# --- laws, for the networks that the example is not -------------------------------------------------------------------

VARIANTS = {
    "a queue": lambda: network(NeuralQueue, slots=2, clocked=False, controller=Elman),
    "one slot": lambda: network(slots=1, width=1, clocked=False, tau=2.0),
}


@every_law(VARIANTS)
def test_the_laws_hold_for_every_network(law, variant):
    law(variant)


@every_kind
@pytest.mark.parametrize("clocked", [True, False])
def test_a_saved_network_comes_back(kind, clocked, tmp_path):
    model = network(kind, clocked=clocked, tau=0.5)
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
    stored, recomputed = (torch.autograd.grad(loss, list(model.parameters()), allow_unused=True) for loss in losses)
    torch.testing.assert_close(recomputed, stored, rtol=1e-10, atol=1e-13)


# --- in time ----------------------------------------------------------------------------------------------------------


ONE_AT_A_TIME = [(0, 0.8, 1), (0.3, 0, 0), (0, 0.6, 2), (0, 0.7, 3), (0.9, 0, 0), (0.7, 0, 0), (1, 0, 0), (0, 0.4, 5)]


@every_kind
@pytest.mark.parametrize("clocked", [True, False])
@pytest.mark.parametrize("n", [2, 7, 50])
def test_held_pops_or_pushes_come_to_the_same_at_every_step(kind, clocked, n):
    whole, xs = read(machine(kind, clocked=clocked), told(*ONE_AT_A_TIME))
    parts, ys = read(machine(kind, n=n, clocked=clocked), told(*ONE_AT_A_TIME), n, Euler())
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(ys.strengths, xs.strengths, rtol=0, atol=1e-13)
    assert torch.equal(ys.place, xs.place)


@pytest.mark.parametrize(("n", "last"), [(1, 2.8), (2, 1.9), (5, 1.6), (50, 1.42)])
def test_a_relaxed_stack_that_pops_and_pushes_at_once_depends_on_the_step(n, last):
    reads, _ = read(machine(clocked=False, n=n), told(*FIGURE_1), n, Euler())
    assert float(reads[-1]) == pytest.approx(last, abs=1e-9)


@pytest.mark.parametrize("n", [1, 2, 5, 50])
def test_a_relaxed_queue_that_does_so_depends_not(n):
    reads, _ = read(machine(NeuralQueue, clocked=False, n=n), told(*FIGURE_1), n, Euler())
    torch.testing.assert_close(reads, torch.tensor([0.8, 1.3, 2.7]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_segment_is_the_mean_of_what_was_pushed_in_its_tau(n):
    model = machine(clocked=False, n=2 * n).requires_grad_(False)
    us = told((0, 0.5, 1), (0, 0.9, 2))
    xs = integrate(model, us, dt=0.5, steps=Fixed(0.5 / n), solver=Euler()).xs
    assert xs.strengths[-1, :2].tolist() == pytest.approx([0.7, 0])
    assert float(SCALE * model.read(xs)[-1, 0, 0]) == pytest.approx(0.25 * 1 + 0.45 * 2)


@every_kind
@pytest.mark.parametrize("solver", [Heun(), RK4()], ids=str)
def test_other_solvers_come_to_the_same_with_the_step(kind, solver):
    whole, _ = read(machine(kind, clocked=False), told(*ONE_AT_A_TIME[:5]))
    for n in (8, 48):  # to first order: segments end within steps, and the commands themselves lag by one
        parts, _ = read(machine(kind, clocked=False, n=n), told(*ONE_AT_A_TIME[:5]), n, solver)
        assert float((parts - whole).abs().max()) < 7 / n


@settings(max_examples=25)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 1000),
    divisor=st.sampled_from([1, 2, 7]),
    scale=st.sampled_from([1.0, 10.0, 1000.0]),
    clocked=st.booleans(),
    slots=st.sampled_from([1, 2, 7]),
)
def test_strengths_stay_within_0_and_1_and_readings_within_what_was_pushed(kind, seed, divisor, scale, clocked, slots):
    model = network(kind, clocked=clocked, slots=slots)
    with torch.no_grad():
        model.W_heads *= scale
        run = integrate(model, drive(12, seed=seed), dt=1.0, steps=Fixed(1 / divisor), save=Every(1))
    xs = run.xs
    assert (xs.strengths >= -1e-14).all()
    assert (xs.strengths <= 1 + 1e-14).all()
    assert (xs.contents.abs() <= xs.strengths.unsqueeze(-1) + 1e-14).all()
    assert (model.read(xs).abs() <= 1 + 1e-14).all()
    assert (xs.place.sum(-1) == 1).all()
    assert xs.place.max() == 1
    assert (xs.strengths.gather(-1, (xs.place.argmax(-1, keepdim=True) + 1) % (slots + 2)) <= 1 + 1e-14).all()


def test_between_ticks_a_clocked_stack_holds():
    with torch.no_grad():
        run = integrate(network(), drive(), dt=1.0, steps=Fixed(0.25), solver=RK4(), save=Every(1))
    ticks = torch.tensor([False, False, True, False] * 7)[: len(run.xs.strengths) - 1]
    moved = (run.xs.strengths.diff(dim=0) != 0).flatten(1).any(1)
    assert torch.equal(moved, ticks)


def test_between_ticks_a_relaxed_stack_flows_and_only_its_place_holds():
    with torch.no_grad():
        run = integrate(network(clocked=False), drive(), dt=1.0, steps=Fixed(0.25), save=Every(1))
    ticks = torch.tensor([False, False, True, False] * 7)[: len(run.xs.strengths) - 1]
    assert (run.xs.strengths.diff(dim=0) != 0).flatten(1).any(1).all()
    assert not (run.xs.place.diff(dim=0) != 0).flatten(1).any(1)[~ticks].any()


@every_kind
def test_adaptive_steps_end_at_the_ticks(kind):
    model, us = network(kind).requires_grad_(False), drive()
    fine = integrate(model, us, dt=1.0, steps=Fixed(1 / 64), solver=RK4()).ys
    adaptive = integrate(model, Held(us, 1.0), steps=Adaptive(1e-7, 1e-8)).ys
    torch.testing.assert_close(adaptive, fine, rtol=0, atol=1e-6)


# --- no NaN -----------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.0, 1.0, 100.0, 1e6]),
    divisor=st.sampled_from([1, 3]),
    clocked=st.booleans(),
    pops=st.sampled_from([0.0, 1e4, -1e4]),
    pushes=st.sampled_from([0.0, 1e4, -20.0, -60.0, -1e4]),
)
def test_neither_empty_nor_overfull_memories_make_a_nan_in_float32(kind, seed, scale, divisor, clocked, pops, pushes):
    model = network(kind, clocked=clocked, slots=3).float()
    with torch.no_grad():
        model.W_heads *= scale
        model.b_heads[0] += pops
        model.b_heads[1] += pushes  # from 1 to what is less than the smallest number
    run = integrate(model, drive(8, seed=seed).float(), dt=1.0, steps=Fixed(1 / divisor))
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves(run.xs))
    loss = run.ys.square().mean() + model.read(run.xs).square().mean()
    for g in torch.autograd.grad(loss, list(model.parameters())):
        assert torch.isfinite(g).all()


def test_ten_thousand_steps_in_float32_are_finite_and_so_is_their_gradient():
    model = network(NeuralQueue, feed_forward, slots=4).float()
    with torch.no_grad():
        model.W_heads *= 5
    us = drive(10_000, 1).float()[:, 0]
    with torch.no_grad():
        run = integrate(model, us[:9800], dt=1.0, solver=Iterate())
    assert float(run.xs.strengths.min()) >= 0
    assert float(run.xs.strengths.max()) <= 1 + 1e-5
    run = integrate(model, us[9800:], tree.map(lambda leaf: leaf[-1], run.xs), dt=1.0, solver=Iterate())
    for g in torch.autograd.grad(run.ys.square().mean(), list(model.parameters()), allow_unused=True):
        assert g is None or torch.isfinite(g).all()


def test_what_lies_at_the_bottom_is_not_worn_by_a_thousand_steps_in_float32():
    model = machine(slots=3).float()
    us = told((0, 0.7, 5), *[(0, 0.9, 1), (0.9, 0, 0)] * 500).float()
    reads, _ = read(model, us)
    assert math.isclose(float(reads[-1]), 3.5, rel_tol=1e-4)


# --- wrong arguments --------------------------------------------------------------------------------------------------


@every_kind
def test_wrong_arguments_are_named(kind):
    net = LSTM(3, 6)
    with pytest.raises(ValueError, match=r"n_in=6 has no room for what 1 heads read .* give it n_in=7 plus"):
        kind(net, slots=4, width=7)
    with pytest.raises(ValueError, match="slots must be at least 1"):
        kind(net, slots=0, width=2)
    with pytest.raises(TypeError, match="width must be an integer"):
        kind(net, slots=2, width=2.0)
    with pytest.raises(TypeError, match="controller must be a Relaxation"):
        kind(torch.nn.LSTMCell(6, 3), slots=2, width=2)
    for clocked in (True, False):
        with pytest.raises(ValueError, match="tau of a clocked memory is one number, its period"):
            kind(net, slots=4, width=2, clocked=clocked, tau=SegmentsState((), 1.0, 1.0, 1.0))
    model = kind(net, slots=4, width=2, clocked=False, tau=2.0)
    assert (model.clock.place, model.clock.strengths) == (2.0, None)
    assert float(model.tau.strengths) == 2.0
    model.tau = 0.5
    assert float(model.tau.contents) == float(model.tau.controller.h) == model.clock.place == 0.5
