"""Stack-RNN: the paper's loop, lists that come out exactly, and what becomes of it in continuous time."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrnn import RK4, Adaptive, Euler, Fixed, Held, Heun, Iterate, Recompute, integrate
from ctrnn import _tree as tree
from ctrnn.dynamics import Model
from ctrnn.models import GRU, LSTM, Elman, StackRNN, StackRNNState, feed_forward
from ctrnn.models.activations import identity
from tests.variants import every_law

T0 = torch.zeros(())
N_IN = 3


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def network(stacks=2, depth=5, width=2, top=2, controller=Elman, n_out=2, **options):
    draw = seeded()
    net = controller(6, N_IN + stacks * top * width, generator=draw)
    sizes = {"stacks": stacks, "depth": depth, "width": width, "top": top}
    return StackRNN(net, n_out, generator=draw, **sizes, **options)


def drive(steps=7, batch=3, n_in=N_IN, seed=1):
    return torch.randn(steps, batch, n_in, generator=seeded(seed))


# --- the paper's loop -------------------------------------------------------------------------------------------------


def by_hand(model, us):
    """One sample, one stack, one cell after the other, as the paper's equations say."""
    said = []
    for b in range(us.shape[1]):
        h = model.controller.initial_state()
        stacks = [[torch.full((model.width,), model.empty)] * model.depth for _ in range(model.stacks)]
        ys = []
        for u in us[:, b]:
            seen = [cell for stack in stacks for cell in stack[: model.top]]
            h = model.controller.target(T0, h, torch.cat([u, *seen]), 1)
            out = model.controller.readout(h)
            rows = iter(model.W_heads @ out + model.b_heads)
            take = lambda count, rows=rows: torch.stack([next(rows) for _ in range(count)])
            acts = [torch.softmax(take(2 + model.stay), 0) for _ in stacks]
            values = [model.squash(take(model.width)) for _ in stacks]
            assert next(rows, None) is None
            for k, (old, a, v) in enumerate(zip(stacks, acts, values, strict=True)):
                empty = torch.full_like(v, model.empty)
                new = []
                for i in range(model.depth):
                    above = old[i - 1] if i else v
                    below = old[i + 1] if i + 1 < model.depth else empty
                    new.append(a[0] * above + a[1] * below + (a[2] * old[i] if model.stay else 0))
                stacks[k] = new
            ys.append(out if model.W_out is None else model.W_out @ out + model.b_out)
        said.append(torch.stack(ys))
    return torch.stack(said, 1)


CASES = {
    "the paper's": {"width": 1, "stacks": 2},
    "with no-op": {"stay": True},
    "Deletang's": {"stay": True, "top": 1, "width": 4, "stacks": 1, "squash": identity, "empty": 0.0},
    "LSTM": {"controller": LSTM, "depth": 2},
    "GRU, without outputs": {"controller": GRU, "n_out": None, "top": 1},
    "one cell": {"depth": 1, "top": 1},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_whole_steps_are_the_papers_loop(options):
    model = network(**options)
    run = integrate(model, drive(), dt=1.0)
    expected = by_hand(model, drive())
    torch.testing.assert_close(run.ys, expected, rtol=1e-12, atol=1e-13)
    parameters = [p for p in model.parameters() if p.requires_grad]
    ours, theirs = (torch.autograd.grad(ys.square().sum(), parameters) for ys in (run.ys, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("clocked", [True, False])
def test_euler_at_dt_equal_to_tau_is_the_discrete_network_bit_for_bit(clocked):
    model = network(clocked=clocked)
    discrete = integrate(model, drive(), dt=1.0, solver=Iterate()).xs
    for a, b in zip(tree.leaves(integrate(model, drive(), dt=1.0).xs), tree.leaves(discrete), strict=True):
        assert torch.equal(a, b)


def test_with_a_logistic_elman_and_no_biases_it_is_joulin_and_mikolovs_network():
    model = StackRNN(
        Elman(5, N_IN + 2, activation=torch.sigmoid, bias=False, generator=seeded()), 4, depth=6, generator=seeded()
    )
    with torch.no_grad():
        model.b_heads.zero_()
        model.b_out.zero_()
    U, P, R = model.controller.W_in[:, :N_IN], model.controller.W_in[:, N_IN:], model.controller.W_rec
    A, D, V = model.W_heads[:2], model.W_heads[2:], model.W_out
    h, s, ys = torch.zeros(5), torch.full((7,), -1.0), []
    for x in drive()[:, 0]:
        h = torch.sigmoid(U @ x + R @ h + P @ s[:2])
        push, pop = torch.softmax(A @ h, 0)
        s = torch.cat([push * torch.sigmoid(D @ h) + pop * s[1:2], push * s[:-2] + pop * s[2:], s[-1:]])
        ys.append(V @ h)
    torch.testing.assert_close(integrate(model, drive()[:, 0], dt=1.0).ys, torch.stack(ys), rtol=1e-12, atol=1e-14)


# --- lists ------------------------------------------------------------------------------------------------------------


def machine(depth=5, width=1, stay=True, strength=800.0, empty=0.0, **options):
    """A stack that does what its inputs say: scores of push, pop and stay, then the word."""
    actions = 2 + stay
    net = feed_forward(actions + width, actions + 2 * width, activation=identity, generator=seeded())
    model = StackRNN(
        net, depth=depth, width=width, top=1, stay=stay, squash=identity, empty=empty, generator=seeded(), **options
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        net.W_in[:, : actions + width] = torch.eye(actions + width)
        model.W_heads.copy_(torch.diag(torch.tensor([strength] * actions + [1.0] * width)))
    return model


def told(commands, actions=3):
    """Inputs of a `machine`: a number is pushed, "pop" and "stay" are done."""
    us = torch.zeros(len(commands), actions + 1)
    for u, command in zip(us, commands, strict=True):
        u[{"pop": 1, "stay": 2}.get(command, 0)] = 1.0
        u[actions] = 0.0 if isinstance(command, str) else command
    return us


def test_one_hot_actions_are_a_list():
    xs = integrate(machine(), told([1, 2, 3, 4, "pop", "pop", "pop"]), dt=1.0).xs
    assert xs.stacks[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 3, 2, 1]
    assert xs.stacks[3, 0, :, 0].tolist() == [4, 3, 2, 1, 0]


@given(st.lists(st.one_of(st.integers(1, 9), st.sampled_from(["pop", "stay"])), min_size=1, max_size=30))
def test_whatever_is_pushed_and_popped_the_stack_is_pythons_list_down_to_its_depth(commands):
    depth, empty = 4, -1.0
    xs = integrate(machine(depth, empty=empty), told(commands), dt=1.0).xs
    cells = [empty] * depth
    for k, command in enumerate(commands):
        if command == "pop":
            cells = [*cells[1:], empty]
        elif command != "stay":
            cells = [float(command), *cells[:-1]]
        assert xs.stacks[k, 0, :, 0].tolist() == cells


def test_each_stack_has_actions_of_its_own():
    model = network(stacks=3, width=1, stay=True)
    actions, _ = model.commands(torch.randn(4, 6, generator=seeded()))
    assert actions.shape == (4, 3, 3)
    torch.testing.assert_close(actions.sum(-1), torch.ones(4, 3))


def test_what_is_pushed_is_read_in_the_next_step():
    model = machine()
    xs = integrate(model, told([1, 2]), dt=1.0).xs
    assert model.read(xs)[0, 0].tolist() == [1.0]
    assert xs.controller.shape == (2, 4)


def test_rounded_actions_are_the_likeliest_alone():
    soft, hard = machine(strength=0.5), machine(strength=0.5, rounded=True)
    us = told([1, 2, 3, "stay", "pop"])
    assert integrate(hard, us, dt=1.0).xs.stacks[:, 0, 0, 0].tolist() == [1, 2, 3, 3, 2]
    blurred = integrate(soft, us, dt=1.0).xs.stacks
    soft.rounded = True
    assert integrate(soft, us, dt=1.0).xs.stacks[-1].tolist() != blurred[-1].tolist()
    assert soft.config["rounded"] is True


# --- laws, for the networks that the example is not -------------------------------------------------------------------


VARIANTS = {
    "the paper's": lambda: network(width=1, depth=3, clocked=False),
    "wide": lambda: network(controller=GRU, stacks=1, stay=True, depth=2, clocked=False, tau=2.0),
}


@every_law(VARIANTS)
def test_the_laws_hold_for_every_network(law, variant):
    law(variant)


def test_a_saved_network_comes_back(tmp_path):
    for make in (*VARIANTS.values(), lambda: network(rounded=True, squash=identity, tau=0.5)):
        model = make()
        model.save(tmp_path / "m.safetensors")
        again = Model.load(tmp_path / "m.safetensors")
        assert again.config == model.config
        assert torch.equal(integrate(model, drive(), dt=0.5).ys, integrate(again, drive(), dt=0.5).ys)


def test_recomputing_gives_the_same_gradient():
    model = network()
    losses = [
        integrate(model, drive(), dt=1.0, steps=Fixed(0.5), **how).ys.square().sum()
        for how in ({}, {"adjoint": Recompute(snapshots=2)})
    ]
    stored, recomputed = (torch.autograd.grad(loss, list(model.parameters())) for loss in losses)
    torch.testing.assert_close(recomputed, stored, rtol=1e-10, atol=1e-13)


# --- in time ----------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    divisor=st.sampled_from([1, 2, 7]),
    scale=st.sampled_from([1.0, 100.0]),
    stay=st.booleans(),
    solver=st.sampled_from([Euler(), Heun()]),
)
def test_cells_stay_between_what_is_pushed_and_empty_for_steps_up_to_tau(seed, divisor, scale, stay, solver):
    model = network(clocked=False, stay=stay)
    with torch.no_grad():
        model.W_heads *= scale
        run = integrate(model, drive(seed=seed), dt=1.0, steps=Fixed(1 / divisor), solver=solver)
    assert (run.xs.stacks.abs() <= 1 + 1e-14).all()  # actions add up to 1 but for rounding


@pytest.mark.parametrize(
    ("n", "tops"),
    [
        (1, [1, 2, 3, 4, 3, 2, 1]),
        (2, [0.75, 1.69, 2.67, 3.67, 2.77, 1.90, 1.20]),
        (100, [0.63, 1.50, 2.45, 3.43, 2.61, 1.89, 1.33]),
    ],
)
def test_a_relaxed_stack_blurs_as_the_step_vanishes(n, tops):
    model = machine(depth=12, clocked=False)
    model.controller.tau = 1 / n  # which therefore says at once what it is told
    us = told([1, 2, 3, 4, "pop", "pop", "pop"])
    stacks = integrate(model, us, dt=1.0, steps=Fixed(1 / n), solver=Euler()).xs.stacks
    torch.testing.assert_close(stacks[:, 0, 0, 0], torch.tensor(tops, dtype=stacks.dtype), rtol=0, atol=0.0051)


@pytest.mark.parametrize("n", [1, 2, 10])
def test_a_push_held_for_tau_moves_what_lies_below_by_one_cell_with_the_variance_of_n_smaller_steps(n):
    model = machine(depth=40, clocked=False)
    model.controller.tau = 1 / n
    x0 = model.initial_state()
    x0.stacks[0, 3] = 1.0
    stacks = integrate(model, told([0.0] * 4), x0, dt=1.0, steps=Fixed(1 / n), solver=Euler()).xs.stacks[:, 0, :, 0]
    cells, moves = torch.arange(40.0) - 3, torch.arange(1.0, 5)
    torch.testing.assert_close(stacks @ cells, moves, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(stacks @ cells.square() - moves.square(), moves * (1 - 1 / n), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", [Euler(), RK4()], ids=str)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_clocked_stack_is_a_list_at_every_step(solver, n):
    model = machine()
    model.controller.tau = 1 / n if solver == Euler() else 0.02
    us = told([1, 2, 3, "stay", "pop", "pop"])
    steps = Fixed(1 / n if solver == Euler() else 0.02)
    tops = integrate(model, us, dt=1.0, steps=steps, solver=solver).xs.stacks[:, 0, 0, 0]
    torch.testing.assert_close(tops, torch.tensor([1.0, 2, 3, 3, 2, 1]), rtol=0, atol=1e-12)


def test_between_ticks_a_clocked_stack_holds_and_runs_come_to_a_limit():
    model, us = network(controller=LSTM).requires_grad_(False), drive()
    fine = integrate(model, us, dt=1.0, steps=Fixed(1 / 64), solver=RK4()).ys
    adaptive = integrate(model, Held(us, 1.0), steps=Adaptive(1e-7, 1e-8)).ys
    torch.testing.assert_close(adaptive, fine, rtol=0, atol=1e-6)
    errors = [float((integrate(model, us, dt=1.0, steps=Fixed(1 / n)).ys - fine).abs().max()) for n in (8, 16, 32)]
    assert all(1.7 < a / b < 2.4 for a, b in pairwise(errors))


# --- no NaN -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.0, 1.0, 100.0, 1e6]),
    clocked=st.booleans(),
    action=st.sampled_from([0.0, 1e4, -1e4]),
)
def test_neither_saturated_actions_nor_empty_stacks_make_a_nan_in_float32(seed, scale, clocked, action):
    model = network(clocked=clocked).float()
    with torch.no_grad():
        model.W_heads *= scale
        model.b_heads[1] += action  # pops for ever, or never
    run = integrate(model, drive(8, seed=seed).float(), dt=1.0)
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves(run.xs))
    for g in torch.autograd.grad(run.ys.square().mean(), list(model.parameters())):
        assert torch.isfinite(g).all()


def test_ten_thousand_steps_in_float32_are_finite_and_so_is_their_gradient():
    model = network(stacks=1, width=1, controller=feed_forward).float()
    with torch.no_grad():
        model.W_heads *= 5
    us = drive(10_000, 1).float()[:, 0]
    with torch.no_grad():
        run = integrate(model, us[:9500], dt=1.0, solver=Iterate())
    assert (run.xs.stacks.abs() <= 1 + 1e-6).all()
    run = integrate(model, us[9500:], tree.map(lambda leaf: leaf[-1], run.xs), dt=1.0, solver=Iterate())
    for g in torch.autograd.grad(run.ys.square().mean(), list(model.parameters()), allow_unused=True):
        assert g is None or torch.isfinite(g).all()


# --- wrong arguments --------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_named():
    net = Elman(3, 6)
    with pytest.raises(ValueError, match="top=3 cells are read, but a stack has depth=2: read at most 2"):
        StackRNN(net, depth=2, top=3)
    with pytest.raises(ValueError, match=r"n_in=6 has no room for what 8 heads read .* give it n_in=8 plus"):
        StackRNN(net, depth=3, stacks=4)
    with pytest.raises(ValueError, match="depth must be at least 1"):
        StackRNN(net, depth=0)
    with pytest.raises(TypeError, match="stacks must be an integer"):
        StackRNN(net, depth=3, stacks=1.5)
    with pytest.raises(TypeError, match="empty must be a number"):
        StackRNN(net, depth=3, empty="nothing")
    with pytest.raises(TypeError, match="activation must be a function"):
        StackRNN(net, depth=3, squash="sigmoid")
    with pytest.raises(ValueError, match=r"tau of a clocked memory is one number.*or clocked=False"):
        StackRNN(net, depth=3, tau=StackRNNState((), 1.0))
    with pytest.raises(ValueError, match=r"tau of the memory is one number, or StackRNNState\(controller=\(\)"):
        StackRNN(net, depth=3, tau=(1.0, 2.0), clocked=False)
    model = StackRNN(net, depth=3, clocked=False, tau=StackRNNState((), 3.0))
    assert float(model.tau.stacks) == 3.0
