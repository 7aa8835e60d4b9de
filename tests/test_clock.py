"""Clocked parts of a state: they move wholly at the multiples of their period, at every dt, and hold in between."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ctrnn import (
    RK4,
    Adaptive,
    At,
    Backsolve,
    Bosh3,
    Euler,
    Every,
    ExponentialEuler,
    Fixed,
    Function,
    Held,
    Heun,
    Iterate,
    Order,
    Recompute,
    Rodas4,
    Step,
    TorchDiffEq,
    Tsit5,
    integrate,
    sweep,
)
from ctrnn import _tree as tree
from ctrnn.dynamics import Model, Relaxation
from ctrnn.models import DNC, LSTM, NTM, Attentive, NTMState, Stack, feed_forward
from ctrnn.solvers.clock import due

KINDS = [NTM, DNC]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def network(kind=NTM, tau=1.0, **options):
    draw = seeded()
    controller = LSTM(6, 4 + 6, tau=tau, generator=draw)
    return kind(controller, 2, slots=5, width=3, reads=2, tau=tau, generator=draw, **options)


def drive(steps=6, batch=3):
    return torch.randn(steps, batch, 4, generator=seeded(1))


def assert_same(a, b):
    for left, right in zip(tree.leaves(a), tree.leaves(b), strict=True):
        assert torch.equal(left, right)


# --- when -------------------------------------------------------------------------------------------------------------


@given(divisor=st.integers(1, 50), start=st.integers(-5, 1000), period=st.sampled_from([1.0, 0.1, 1 / 3, 0.02]))
def test_in_every_period_there_is_one_tick_and_it_comes_last(divisor, start, period):
    dt = period / divisor
    t = [start * period + k * dt for k in range(3 * divisor)]
    ticks = [due(period, torch.tensor(time, dtype=torch.float64), dt) for time in t]
    assert ticks == ([0] * (divisor - 1) + [1]) * 3
    times = torch.tensor(t, dtype=torch.float64)[:, None]
    length = dt if divisor > 1 else torch.full_like(times, dt)
    assert due(period, times, length)[:, 0].tolist() == ticks


def test_a_part_without_a_period_is_never_due():
    assert due(None, 0.0, 1.0) == 0


@pytest.mark.parametrize(("t", "dt"), [(0.0, 0.7), (0.3, 1.0), (0.0, 2.0), (0.5, 0.6)])
def test_steps_that_go_beyond_a_tick_are_refused(t, dt):
    with pytest.raises(ValueError, match="take dt = 1 or an integer fraction"):
        [due(1.0, t + k * dt, dt) for k in range(3)]
    with pytest.raises(ValueError, match="begin the run at a multiple"):
        [due(1.0, torch.tensor([[t + k * dt]]), torch.tensor([[dt]])) for k in range(3)]


# --- what -------------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("tau", [1.0, 0.02])
def test_at_dt_equal_to_the_period_it_is_the_discrete_network_bit_for_bit(kind, tau):
    model = network(kind, tau)
    assert_same(integrate(model, drive(), dt=tau).xs, integrate(model, drive(), dt=tau, solver=Iterate()).xs)


def test_so_are_stacks_in_which_layers_read_a_clocked_one():
    for stack in (Stack([network(), LSTM(3, 2)]), Stack([LSTM(4, 4), network(DNC)])):
        us = drive()
        assert stack.clock is not None
        assert_same(integrate(stack, us, dt=1.0).xs, integrate(stack, us, dt=1.0, solver=Iterate()).xs)


@every_kind
@pytest.mark.parametrize("solver", [Euler(), ExponentialEuler(), Heun(), RK4()], ids=str)
def test_between_ticks_the_memory_holds_and_the_controller_flows(kind, solver):
    model = network(kind)
    with torch.no_grad():
        run = integrate(model, drive(), dt=1.0, steps=Fixed(0.25), solver=solver, save=Every(1))
    xs = run.xs
    moved = lambda leaf: (leaf.diff(dim=0) != 0).flatten(1).any(1)
    ticks = torch.tensor([False, False, True, False] * 6)[: len(xs.memory) - 1]
    for name, part in xs._asdict().items():
        if name != "controller" and part != ():
            assert not moved(part)[~ticks].any()
    assert moved(xs.memory)[ticks].all()
    assert moved(xs.controller.h).all()


@every_kind
def test_a_tick_sees_the_controller_as_it_is_then_and_the_memory_takes_one_discrete_step(kind):
    model = network(kind)
    with torch.no_grad():
        run = integrate(model, drive(1), dt=1.0, steps=Fixed(0.25), solver=RK4(), save=Every(1))
        before, after = (tree.map(lambda leaf, k=k: leaf[k], run.xs) for k in (2, 3))
        flowed = RK4().step(model, torch.tensor(0.75), 0.25, before, drive(1)[0])
        assert_same(flowed._replace(controller=()), before._replace(controller=()))
        discrete = model.target(torch.tensor(1.0), flowed, drive(1)[0], after._replace(**RATES[kind]))
    assert_same(after, discrete._replace(controller=flowed.controller))


RATES = {
    kind: {name: 0 if name == "controller" else 1 for name in network(kind).initial_state()._fields} for kind in KINDS
}


@every_kind
@pytest.mark.parametrize(("solver", "order"), [(Euler(), 1), (Heun(), 2), (RK4(), 4)], ids=str)
def test_a_run_comes_to_its_limit_with_the_order_of_the_solver(kind, solver, order):
    model = network(kind)
    ends = []
    with torch.no_grad():
        for n in (4, 8, 16, 64):
            how = RK4() if n == 64 else solver
            ends.append(integrate(model, drive(), dt=1.0, steps=Fixed(1 / n), solver=how).ys)
    errors = [float((end - ends[-1]).abs().max()) for end in ends[:-1]]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("solver", [Euler(), RK4(), Iterate()], ids=str)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_hard_shift_is_exact_at_every_step(solver, n):
    model = NTM(feed_forward(1, 1, generator=seeded()), slots=9, width=1, generator=seeded())
    with torch.no_grad():
        model.W_heads.zero_()
        model.b_heads.zero_()
        model.b_heads[5:9] = -40.0  # exponents 1, gates 0
        model.b_heads[10:].copy_(torch.tensor([-800.0, -800, 800] * 2))
        model.w_0.fill_(-800.0)
        model.w_0[:, 1] = 800.0
        if isinstance(solver, Iterate):
            n = 1
        xs = integrate(model, torch.zeros(5, 0), dt=1.0, steps=Fixed(1 / n), solver=solver).xs
    for weights in (xs.write_weights, xs.read_weights):
        torch.testing.assert_close(weights[:, 0], torch.eye(9)[2:7], rtol=0, atol=1e-15)


@pytest.mark.parametrize("n", [1, 2, 10])
def test_links_and_allocation_are_exact_at_every_step(n):
    model = DNC(feed_forward(1, 2, generator=seeded()), slots=4, width=2, generator=seeded())
    with torch.no_grad():
        model.W_heads.zero_()
        model.b_heads.fill_(40.0)
        model.b_heads[10] = -800.0  # nothing is freed
        xs = integrate(model, torch.zeros(4, 0), dt=1.0, steps=Fixed(1 / n), solver=RK4()).xs
    torch.testing.assert_close(xs.write_weights[:, 0], torch.eye(4), rtol=0, atol=1e-12)
    torch.testing.assert_close(xs.link[-1, 0], torch.eye(4).roll(1, 0).tril(), rtol=0, atol=1e-11)


# --- in every kind of run ---------------------------------------------------------------------------------------------


ADAPTIVE = Adaptive(1e-6, 1e-7)


@every_kind
@pytest.mark.parametrize("solver", [Tsit5(), Bosh3(), Rodas4()], ids=str)
def test_adaptive_steps_end_at_the_ticks(kind, solver):
    model, us = network(kind), drive(2, 2)
    fixed = integrate(model, us, dt=1.0, steps=Fixed(1 / 32), solver=RK4())
    runs = [integrate(model, Held(us, 1.0), steps=ADAPTIVE, solver=solver)]
    with torch.no_grad():
        runs.append(integrate(model, Held(us, 1.0), steps=ADAPTIVE, solver=solver))
    for run in runs:
        for a, b in zip(tree.leaves(run.xs), tree.leaves(fixed.xs), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=2e-6)
    gradients = [torch.autograd.grad(run.ys.square().sum(), model.W_heads)[0] for run in (fixed, runs[0])]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tau", [0.25, 1.0, 2.5])
def test_so_they_do_where_ticks_lie_within_a_sample_or_samples_within_a_period(tau):
    model, us = network(tau=tau), drive(5)
    run = integrate(model, Held(us, 1.0), steps=ADAPTIVE)
    fixed = integrate(model, us, dt=1.0, steps=Fixed(1 / 16), solver=RK4())
    assert run.ys.shape == fixed.ys.shape
    torch.testing.assert_close(run.ys, fixed.ys, rtol=0, atol=2e-6)
    lengths = torch.tensor([5, 2, 4])
    cut = integrate(model, Held(us, 1.0, lengths=lengths), steps=ADAPTIVE)
    torch.testing.assert_close(cut.ys[:2], run.ys[:2], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dt", "start"), [(0.7, 0.0), (1.0, 0.3), (2.5, -1.2)])
def test_fixed_steps_are_cut_where_ticks_lie_between_their_ends(dt, start):
    model, us = network(), drive(4)
    span = (start, start + 4 * dt)
    steps = integrate(model, us, dt=dt, t_span=span, solver=RK4())
    fine = integrate(model, Held(us, dt, t0=start), steps=Adaptive(1e-8, 1e-9))
    torch.testing.assert_close(steps.ts, fine.ts)
    torch.testing.assert_close(steps.ys, fine.ys, rtol=0, atol=3e-3)
    finer = integrate(model, Held(us, dt, t0=start), steps=Fixed(dt / 16), solver=RK4())
    torch.testing.assert_close(finer.ys, fine.ys, rtol=0, atol=1e-6)


@pytest.mark.parametrize("solver", [Tsit5(), Bosh3(), Rodas4()], ids=str)
def test_between_ticks_dense_output_holds_what_is_clocked(solver):
    model = network()
    times = torch.tensor([0.3, 1.0, 1.7, 2.0, 2.5, 3.0])
    ramp = Function(lambda t: t.expand(*t.shape[:-1], 4) if t.ndim else t.expand(4))
    with torch.no_grad():
        run = integrate(model, ramp, t_span=(0.0, 3.0), steps=Adaptive(1e-5, 1e-6), solver=solver, save=At(times))
    assert torch.equal(run.xs.memory[0], model.initial_state().memory)
    assert torch.equal(run.xs.memory[1], run.xs.memory[2])
    assert torch.equal(run.xs.memory[3], run.xs.memory[4])
    for k in (1, 3, 5):
        assert not torch.equal(run.xs.memory[k], run.xs.memory[k - 1])


@every_kind
def test_recomputing_gives_the_same_gradient(kind):
    model = network(kind)
    losses = [
        integrate(model, drive(), dt=1.0, steps=Fixed(0.5), **how).ys.square().sum()
        for how in ({}, {"adjoint": Recompute(snapshots=2)})
    ]
    parameters = list(model.parameters())
    stored, recomputed = (torch.autograd.grad(loss, parameters, allow_unused=True) for loss in losses)
    for a, b in zip(stored, recomputed, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-13)


@every_kind
def test_samples_of_different_lengths_and_edges_run_as_they_would_alone(kind):
    model, us = network(kind), drive()
    lengths = torch.tensor([6, 2, 4])
    run = integrate(model, Held(us, 1.0, lengths=lengths), steps=Fixed(0.5))
    scale = torch.tensor([1.0, 2.0, 1.0])
    edges = scale * torch.arange(7.0)[:, None]
    own = integrate(model, Held(us, edges=edges), steps=Fixed(0.5))  # four steps in an interval of 2 and of 1
    for i in range(3):
        alone = integrate(model, us[: lengths[i], i], dt=1.0, steps=Fixed(0.5)).ys
        torch.testing.assert_close(run.ys[: lengths[i], i], alone, rtol=1e-12, atol=1e-13)
        four = Fixed(0.25 * float(scale[i]))
        alone = integrate(model, Held(us[:, i], edges=edges[:, i]), steps=four).ys
        torch.testing.assert_close(own.ys[:, i], alone, rtol=1e-12, atol=1e-13)


def test_the_times_of_each_sample_may_be_as_coarse_as_float32():
    times = (1000 + torch.arange(30) / 10).to(torch.float32)[:, None]
    ticks = due(1.0, times, torch.full_like(times, 0.1))
    assert ticks[:, 0].tolist() == ([0.0] * 9 + [1.0]) * 3


def test_a_tick_sees_the_drive_at_its_end():
    model = network()
    ramp = Function(lambda t: t.expand(4).to(torch.float64))
    run = integrate(model, ramp, t_span=(0.0, 3.0), steps=Fixed(0.1), solver=RK4())
    held = integrate(model, ramp, t_span=(0.0, 3.0), steps=Fixed(0.05), solver=RK4())
    torch.testing.assert_close(run.ys[-1], held.ys[-1], rtol=0, atol=1e-6)


def test_a_run_goes_on_from_the_middle_of_a_period():
    model, us = network(), drive()
    whole = integrate(model, us, dt=0.5, steps=None)
    first = integrate(model, us[:3], dt=0.5)
    rest = integrate(model, us[3:], tree.map(lambda leaf: leaf[-1], first.xs), dt=0.5, t_span=(1.5, 3.0))
    torch.testing.assert_close(rest.ys, whole.ys[3:], rtol=1e-12, atol=1e-13)


@every_kind
def test_in_a_sweep_over_nodes_clocked_parts_tick_at_every_one(kind):
    model, us = network(kind), drive()
    run = integrate(model, us, dt=1.0)
    for how in ({}, {"dt": 1.0}):
        swept = sweep(model, us, Order.chain(6), **how)
        torch.testing.assert_close(swept.xs.memory, run.xs.memory, rtol=1e-12, atol=1e-13)
    assert not torch.equal(sweep(model, us, Order.chain(6), dt=0.5).xs.memory[-1], run.xs.memory[-1])


def test_noise_reaches_the_controller_and_no_clocked_part():
    model = network()
    noisy, quiet = (
        integrate(model, drive(1), dt=1.0, steps=Fixed(0.25), noise=sigma, generator=seeded(2), save=Every(1)).xs
        for sigma in (0.5, 0.0)
    )
    assert not torch.equal(noisy.controller.h[0], quiet.controller.h[0])
    assert torch.equal(noisy.memory[:3], quiet.memory[:3])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_compiled_step_ticks_when_it_must():
    model, u = network(), drive(1)[0]
    step = Step(model, Euler())
    for dt in (1.0, 0.25):
        torch._dynamo.reset()
        fast = torch.compile(step, backend="eager", fullgraph=True)
        x = y = tree.map(Tensor.detach, model.initial_state(3))
        with torch.no_grad():
            for k in range(5):
                t = torch.tensor(k * dt, dtype=torch.float64)
                x, y = step(t, dt, x, u), fast(t, dt, y, u)
        for a, b in zip(tree.leaves(x), tree.leaves(y), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@every_kind
def test_a_clocked_network_survives_a_file(kind, tmp_path):
    model = network(kind, 0.5)
    model.learn_tau()
    model.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    assert (again.clocked, again.period) == (True, 0.5)
    how = {"dt": 0.5, "steps": Fixed(0.25)}
    assert torch.equal(integrate(model, drive(), **how).ys, integrate(again, drive(), **how).ys)


def test_a_period_is_set_by_tau_and_passed_on():
    model = network()
    model.tau = 0.25
    assert model.clock == NTMState(model.clock.controller, 0.25, 0.25, 0.25, ())
    assert all(part is None for part in model.clock.controller)
    assert torch.isinf(model.tau.memory)
    assert float(model.tau.controller.h) == 0.25
    assert network(clocked=False).clock is None
    assert LSTM(2, 2).clock is None
    assert Stack([LSTM(2, 2)]).clock is None
    reader = NTM(LSTM(3, 4 + 2, generator=seeded()), slots=3, width=2, generator=seeded())
    attentive = Attentive(reader, 2, 3, 3, generator=seeded())
    assert attentive.clock.reader.memory == 1.0
    assert attentive.clock.present is None
    assert Attentive(LSTM(3, 4), 2, 3, 3).clock is None


# --- wrong arguments --------------------------------------------------------------------------------------------------


def test_runs_that_cannot_keep_the_clock_are_refused():
    model, us = network(), drive()
    for how in ({"steps": Adaptive(), "solver": TorchDiffEq("dopri5")}, {"steps": Fixed(1.0), "adjoint": Backsolve()}):
        with pytest.raises(ValueError, match=r"NTM has clocked parts.*Tsit5\(\).*build it relaxed"):
            integrate(model, Held(us, 1.0), **how)
    edges = torch.arange(7.0)[:, None] + torch.tensor([0.0, 0.3, 0.0])
    with pytest.raises(ValueError, match="begin the run at a multiple"):
        integrate(model, Held(us, edges=edges), steps=Fixed(1.0))


class Deaf(Relaxation):
    """tau dx/dt = F(x) - x, where F is another network's and its clock is forgotten."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.n_in, self.tau = inner, inner.n_in, 1.0

    def target(self, t, x, u, alpha=0):
        return self.inner.target(t, x, u, alpha)


def test_a_network_that_forgets_the_clock_of_another_inside_it_is_refused():
    with pytest.raises(TypeError, match="Deaf holds a clocked NTM and has no clock"):
        Step(Deaf(network()), Euler())
    Step(Deaf(network(clocked=False)), Euler())
