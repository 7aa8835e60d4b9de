"""What a solver is and does in one step, and how steps are chosen."""

import math
import pickle
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

import ctrnn
from ctrnn import Adaptive, At, Fixed, Function, Held, Last, Status, integrate
from ctrnn.dynamics import Model, Relaxation
from ctrnn.models import RateRNN
from ctrnn.models.textbook import LinearSystem, VanDerPol
from ctrnn.solvers import TorchDiffEq
from tests.test_order import ALL, EMBEDDED, EXPLICIT

EVERY = [ctrnn.Iterate(), *ALL]


class Counting(Relaxation):
    """tau x' = sin(x) + u - x, writing down the times at which it is asked."""

    n_in = 1

    def __init__(self, tau=1.0):
        super().__init__()
        self.tau = tau
        self.times = []

    def target(self, t, x, u, alpha=0):
        self.times.append(t.detach().clone())
        return torch.sin(x) + u

    def initial_state(self, *batch):
        return torch.full((*batch, 2), 0.3)


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


class Coupled(Model):
    """a' = -a + tanh(sum b) + u,  b' = -20 b + a^2: a state of two parts of different shape."""

    n_in = 1

    def forward(self, t, x, u):
        return Pair(-x.a + torch.tanh(x.b.sum(-1, keepdim=True)) + u, -20 * x.b + (x.a**2))

    def initial_state(self, *batch):
        return Pair(torch.full((*batch, 1), 0.5), torch.full((*batch, 3), 0.1))


@pytest.mark.parametrize("solver", EVERY, ids=str)
def test_a_solver_is_a_value(solver):
    again = pickle.loads(pickle.dumps(solver))
    assert again == solver
    assert hash(again) == hash(solver)
    assert eval(repr(solver), vars(ctrnn.solvers)) == solver


@pytest.mark.parametrize("solver", [s for s in EVERY if not s.own_steps], ids=str)
def test_a_step_evaluates_as_often_as_the_solver_says(solver):
    model = Counting()
    integrate(model, Held(torch.zeros(3, 1), dt=0.1), solver=solver, steps=Fixed(0.1))
    assert len(model.times) == 3 * solver.evaluations
    run = integrate(model, Held(torch.zeros(3, 1), dt=0.1), solver=solver, steps=Fixed(0.1))
    assert int(run.stats.evaluations) == 3 * solver.evaluations


@pytest.mark.parametrize("solver", EXPLICIT, ids=str)
def test_a_stage_looks_at_its_node(solver):
    model = Counting()
    ctrnn.Step(model, solver)(torch.tensor(2.0), 0.5, torch.zeros(2), torch.zeros(1))
    nodes = [2.0 + 0.5 * c for c in solver.tableau.c][: solver.evaluations]
    torch.testing.assert_close(torch.stack(model.times), torch.tensor(nodes), rtol=0, atol=1e-15)


def test_rodas_looks_at_its_nodes():
    model, solver = Counting(), ctrnn.Rodas4()
    nodes = []
    plain = model.target

    def watched(t, x, u, alpha=0):
        nodes.append(t)
        return plain(t, x, u, alpha)

    model.target = watched
    ctrnn.Step(model, solver)(torch.tensor(2.0), 0.5, torch.zeros(2), torch.zeros(1))
    # The first evaluation takes place inside the transform that differentiates it; its time cannot be read.
    assert [float(t) for t in nodes[1:]] == pytest.approx([2.0 + 0.5 * c for c in solver.tableau.c[1:]], abs=1e-15)


@pytest.mark.parametrize("solver", EVERY, ids=str)
def test_every_solver_carries_named_parts_and_any_batch(solver):
    if isinstance(solver, (ctrnn.Iterate, ctrnn.ExponentialEuler, ctrnn.ETD2RK)):
        with pytest.raises(TypeError, match="needs a Relaxation"):
            ctrnn.Step(Coupled(), solver)(torch.tensor(0.0), 0.1, Coupled().initial_state(), torch.ones(1))
        return
    model, us = Coupled(), torch.linspace(-1, 1, 24).reshape(4, 2, 3, 1)
    run = integrate(model, Held(us, dt=0.01), solver=solver, steps=Fixed(0.01))
    assert run.xs.b.shape == (4, 2, 3, 3)
    alone = integrate(model, Held(us[:, 1, 2], dt=0.01), solver=solver, steps=Fixed(0.01))
    torch.testing.assert_close(run.xs.b[:, 1, 2], alone.xs.b, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(run.xs.a[:, 1, 2], alone.xs.a, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("solver", [s for s in EVERY if s != TorchDiffEq("scipy_solver")], ids=str)
def test_float32_stays_float32(solver):
    torch.set_default_dtype(torch.float32)
    model = RateRNN(3, 1, generator=torch.Generator().manual_seed(0))
    run = integrate(model, Held(torch.ones(4, 2, 1), dt=0.1), solver=solver, steps=Fixed(0.1))
    assert run.xs.dtype == torch.float32
    assert bool(torch.isfinite(run.xs).all())


@pytest.mark.parametrize("solver", EMBEDDED, ids=str)
def test_adaptive_steps_in_float32_meet_their_tolerance(solver):
    torch.set_default_dtype(torch.float32)
    run = integrate(
        VanDerPol().float(),
        None,
        torch.tensor([2.0, 0.0]),
        t_span=(0.0, 2.0),
        solver=solver,
        steps=Adaptive(1e-4, 1e-4),
    )
    exact = integrate(
        VanDerPol(), None, torch.tensor([2.0, 0.0]).double(), t_span=(0.0, 2.0), steps=Adaptive(1e-10, 1e-10)
    )
    torch.testing.assert_close(run.xs.double(), exact.xs, rtol=0, atol=2e-3)


# Relaxation solvers.


@pytest.mark.parametrize("dt", [1e-3, 0.7, 1.0, 50.0])
@pytest.mark.parametrize("solver", [ctrnn.ExponentialEuler(), ctrnn.ETD2RK()], ids=str)
def test_a_held_target_is_followed_exactly_at_any_dt(solver, dt):
    class Held_(Relaxation):
        n_in = 0

        def target(self, t, x, u, alpha=0):
            return torch.tensor([2.0, -1.0, 0.5])

    model, x0 = Held_(), torch.tensor([0.0, 3.0, 1.0])
    model.tau = torch.tensor([0.5, 1.0, 20.0])
    run = integrate(model, None, x0, t_span=(0.0, 3 * dt), solver=solver, steps=Fixed(dt))
    goal = torch.tensor([2.0, -1.0, 0.5])
    exact = goal + (x0 - goal) * torch.exp(-run.ts[:, None] / model.tau)
    torch.testing.assert_close(run.xs, exact, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dt", [1e-6, 1e-3, 0.3, 0.4999, 0.5001, 2.0, 40.0])
def test_etd2rk_is_exact_for_a_target_that_rises_linearly(dt):
    class Ramp(Relaxation):
        n_in = 0

        def target(self, t, x, u, alpha=0):
            return (1 + 2 * t) * torch.ones(1)

    model = Ramp()
    model.tau = 1.0
    run = integrate(model, None, torch.zeros(1), t_span=(0.0, dt), solver=ctrnn.ETD2RK(), steps=Fixed(dt))
    exact = 2 * dt - 1 + math.exp(-dt) if dt > 0.1 else dt + math.expm1(-dt) + dt
    torch.testing.assert_close(run.xs[-1, 0], torch.tensor(exact), rtol=1e-9, atol=0)


def test_the_ramp_of_etd2rk_is_exact_to_rounding_on_both_sides_of_the_switch():
    from ctrnn.solvers.relaxation import _ramp

    z = torch.tensor([1e-12, 1e-6, 1e-3, 0.1, 0.4999999, 0.5, 0.5000001, 1.0, 10.0, 700.0])
    exact = [z_ / 2 - z_**2 / 6 if z_ < 1e-5 else (math.expm1(-z_) + z_) / z_ for z_ in z.tolist()]
    torch.testing.assert_close(_ramp(z)[3:], torch.tensor(exact)[3:], rtol=2e-14, atol=0)
    torch.testing.assert_close(_ramp(z)[:3], torch.tensor(exact)[:3], rtol=1e-9, atol=0)
    assert torch.autograd.gradcheck(_ramp, (z[2:].clone().requires_grad_(),))


def test_euler_at_dt_equal_to_tau_is_the_unit_delay_bit_for_bit(generator):
    model = RateRNN(16, 3, tau=0.37, generator=generator)
    us = torch.randn(50, 4, 3, generator=generator)
    one = integrate(model, us, dt=0.37, solver=ctrnn.Euler())
    other = integrate(model, us, dt=0.37, solver=ctrnn.Iterate())
    assert torch.equal(one.xs, other.xs)


# Rodas4.


def test_rodas_is_stable_and_damped_however_stiff_the_system():
    for rate in (1.0, 1e3, 1e6, 1e12):
        step = ctrnn.Step(LinearSystem(torch.tensor([[-rate]])), ctrnn.Rodas4())
        x = step(torch.tensor(0.0), 1.0, torch.ones(1), torch.zeros(0))
        assert abs(float(x)) < 1.0
    assert abs(float(x)) < 1e-10


def test_a_step_of_rodas_works_under_grad_vmap_and_jacrev():
    model, solver, t = VanDerPol(5.0), ctrnn.Rodas4(), torch.tensor(0.0)

    def end(x):
        return solver.step(model, t, 0.1, x, torch.zeros(0))

    xs = torch.tensor([[2.0, 0.0], [1.0, -0.5], [0.3, 2.0]])
    torch.testing.assert_close(vmap(end)(xs), end(xs), rtol=1e-12, atol=1e-12)
    jacobian = jacrev(end)(xs[0])
    h = 1e-6
    for j in range(2):
        kick = torch.eye(2)[j] * h
        torch.testing.assert_close(
            jacobian[:, j], (end(xs[0] + kick) - end(xs[0] - kick)) / (2 * h), rtol=1e-7, atol=1e-7
        )
    torch.testing.assert_close(grad(lambda x: end(x).sum())(xs[0]), jacobian.sum(0), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(end, (xs.clone().requires_grad_(),))


def test_rodas_says_what_is_wrong_with_a_model_that_has_no_forward_derivative():
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return -x

    class Closed(Model):
        n_in = 0

        def forward(self, t, x, u):
            return Opaque.apply(x)

    with pytest.raises(TypeError, match=r"Rodas4\(\) needs the Jacobian of Closed .* Tsit5"):
        integrate(Closed(), None, torch.ones(2), t_span=(0.0, 1.0), solver=ctrnn.Rodas4(), steps=Fixed(0.1))


def test_methods_ask_for_the_models_own_forward():
    class Halved(Counting):
        def forward(self, t, x, u):
            return 0.5 * super().forward(t, x, u)

    own = Counting(0.7)
    own.forward = lambda t, x, u: 0.5 * Counting.forward(own, t, x, u)
    run = lambda model: integrate(model, torch.ones(3, 1), dt=0.1, solver=ctrnn.RK4()).xs
    torch.testing.assert_close(run(Halved(0.7)), run(Counting(1.4)))
    torch.testing.assert_close(run(own), run(Counting(1.4)))


def test_a_method_of_ones_own_may_ask_for_slopes():
    class Forward(ctrnn.RK4):
        def step(self, model, t, dt, x, u, prepared=None):
            return x + dt * model(t, x, u)

    us = torch.ones(3, 1)
    runs = [integrate(Counting(0.7), us, dt=0.1, solver=solver).xs for solver in (Forward(), ctrnn.Euler())]
    torch.testing.assert_close(*runs)


@pytest.mark.parametrize("solver", EMBEDDED, ids=str)
@pytest.mark.parametrize("steps", [Fixed(0.01), Adaptive(1e-7, 1e-7)], ids=["fixed", "adaptive"])
def test_each_row_of_a_matrix_may_have_its_own_tau(solver, steps):
    class Decay(Relaxation):
        def __init__(self):
            super().__init__()
            self.tau = torch.tensor([[0.5], [2.0]])
            self.double()

        def target(self, t, x, u, alpha=0):
            return torch.zeros_like(x)

        def initial_state(self, *batch):
            return torch.zeros(*batch, 2, 3, dtype=torch.float64)

    x0, ts = torch.arange(18.0, dtype=torch.float64).reshape(3, 2, 3), torch.tensor([0.3, 0.35, 1.0])
    run = integrate(Decay(), None, x0, t_span=(0.0, 1.0), steps=steps, solver=solver, save=At(ts))
    exact = torch.exp(-ts.double()[:, None, None] / torch.tensor([[0.5], [2.0]])) * x0[:, None]
    torch.testing.assert_close(run.xs, exact.movedim(0, 1), rtol=2e-3, atol=0)


# Adaptive steps.


@pytest.mark.parametrize("solver", EMBEDDED, ids=str)
def test_the_statistics_of_an_adaptive_run_count_what_the_model_was_asked(solver):
    model = Counting()
    us = torch.tensor([0.0, 4.0, -4.0, 0.0])[:, None]
    run = integrate(model, Held(us, dt=1.0), solver=solver, steps=Adaptive(1e-5, 1e-5, dt0=0.9), save=Last())
    accepted, rejected, evaluations = (int(n) for n in run.stats[:3])
    assert rejected > 0
    # The march along the steps found asks again, once for every accepted step.
    assert evaluations == len(model.times) - accepted * solver.evaluations
    attempts = accepted + rejected
    if solver.starts_with_slope and solver.tableau.ends_in_slope:
        assert (
            evaluations == attempts * solver.evaluations + 4
        )  # the slope is new at the start and at the drive's jumps
    elif solver.starts_with_slope:
        assert evaluations == attempts * (solver.evaluations - 1) + accepted
    else:
        assert evaluations == attempts * solver.evaluations


@pytest.mark.parametrize("solver", EMBEDDED, ids=str)
def test_a_sample_takes_the_same_steps_whatever_its_company(solver):
    model, starts = VanDerPol(3.0), torch.tensor([[2.0, 0.0], [0.1, 0.1], [-1.0, 4.0], [1.9, 0.0]])
    run = lambda x0: integrate(model, None, x0, t_span=(0.0, 3.0), solver=solver, steps=Adaptive(1e-4, 1e-4))
    together = run(starts)
    assert len(set(together.stats.steps.tolist())) > 1
    for i in range(4):
        alone = run(starts[i])
        assert [int(n) for n in alone.stats[:3]] == [int(n[i]) for n in together.stats[:3]]
        torch.testing.assert_close(alone.xs, together.xs[:, i], rtol=1e-12, atol=1e-12)


class Blowup(Model):
    """x' = x^2: x = x0 / (1 - x0 t)."""

    n_in = 0

    def forward(self, t, x, u):
        return x**2


def test_a_sample_that_fails_does_not_stop_the_others():
    x0 = torch.tensor([[-1.0], [1.0], [0.2]])
    steps = Adaptive(1e-8, 1e-8, dt_min=1e-9)
    run = integrate(Blowup(), None, x0, t_span=(0.0, 2.0), steps=steps, on_failure="return")
    assert run.stats.status.tolist() == [Status.REACHED, Status.STEP_SIZE_UNDERFLOW, Status.REACHED]
    torch.testing.assert_close(run.xs[-1, [0, 2], 0], torch.tensor([-1 / 3, 1 / 3]), rtol=1e-6, atol=0)
    assert bool(run.xs[-1, 1].isnan())
    with pytest.raises(ctrnn.StepSizeUnderflow, match="sample 1") as caught:
        integrate(Blowup(), None, x0, t_span=(0.0, 2.0), steps=steps)
    assert caught.value.t == pytest.approx(1.0, abs=1e-3)
    assert caught.value.sample == (1,)


def test_a_sample_out_of_steps_says_so():
    with pytest.raises(ctrnn.MaxStepsReached, match="max_steps"):
        integrate(VanDerPol(), None, t_span=(0.0, 50.0), steps=Adaptive(1e-8, 1e-8, max_steps=20))


def test_a_run_may_use_exactly_its_last_step():
    count = int(integrate(VanDerPol(), None, t_span=(0.0, 5.0), steps=Adaptive()).stats[:2][0])
    rejected = int(integrate(VanDerPol(), None, t_span=(0.0, 5.0), steps=Adaptive()).stats.rejected)
    run = integrate(VanDerPol(), None, t_span=(0.0, 5.0), steps=Adaptive(max_steps=count + rejected))
    assert int(run.stats.status) == Status.REACHED


def test_a_field_that_is_nowhere_finite_is_called_that():
    class Nan(Model):
        n_in = 0

        def forward(self, t, x, u):
            return torch.where(t > 0.5, torch.nan, 1.0) * torch.ones_like(x)

    with pytest.raises(ctrnn.NonFiniteState) as caught:
        integrate(Nan(), None, torch.zeros(2), t_span=(0.0, 1.0), steps=Adaptive())
    assert caught.value.t == pytest.approx(0.5, abs=1e-6)


def test_no_step_is_shorter_than_dt_min_but_for_an_edge():
    run = integrate(
        VanDerPol(100.0), None, t_span=(0.0, 1.0), steps=Adaptive(1e-10, 1e-10, dt_min=0.01), on_failure="return"
    )
    assert int(run.stats.status) == Status.STEP_SIZE_UNDERFLOW


def test_steps_end_on_the_edges_of_the_drive():
    class Watch(Counting):
        def target(self, t, x, u, alpha=0):
            self.times.append(float(t))
            assert float(u) == float(t > 0.33) or abs(float(t) - 0.33) < 1e-12
            return torch.sin(x) + u

    edges = torch.tensor([0.0, 0.33, 1.0])
    integrate(Watch(), Held(torch.tensor([[0.0], [1.0]]), edges=edges), solver=ctrnn.Tsit5(), steps=Adaptive())


def test_a_step_that_an_edge_cut_short_does_not_slow_down_the_next():
    # Nothing changes: steps as long as the intervals are, whatever their number.
    model = LinearSystem(torch.zeros(1, 1), torch.ones(1, 1))
    run = integrate(model, Held(torch.ones(50, 1), dt=0.1), steps=Adaptive(dt0=10.0))
    assert int(run.stats.steps) == 50


def test_zero_states_and_zero_tolerances_do_not_divide_by_zero():
    model = LinearSystem(torch.tensor([[-1.0, 0.0], [0.0, -1.0]]))
    run = integrate(model, None, torch.tensor([1.0, 0.0]), t_span=(0.0, 1.0), steps=Adaptive(rtol=1e-8, atol=0.0))
    torch.testing.assert_close(run.xs[-1], torch.tensor([math.exp(-1), 0.0]), rtol=1e-7, atol=0)


@pytest.mark.parametrize("solver", EMBEDDED, ids=str)
def test_the_gradient_of_an_adaptive_run_is_that_of_the_solution(solver):
    model = LinearSystem(torch.tensor([[-0.2, 2.0], [-2.0, -0.3]]), torch.ones(2, 1))
    us, ts = torch.tensor([0.5, -1.0, 2.0])[:, None].requires_grad_(), torch.tensor([0.4, 1.0, 1.7])

    tolerance = {2: 3e-6, 3: 1e-7}.get(solver.order, 1e-8)

    def run(x0, us):
        steps = Adaptive(tolerance, tolerance)
        return integrate(model, Held(us, dt=0.6), x0, solver=solver, steps=steps, save=At(ts)).xs

    x0 = torch.tensor([1.0, -0.5], requires_grad=True)
    weights = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, 1.0]])
    found = torch.autograd.grad((run(x0, us) * weights).sum(), (x0, us))
    h = 1e-3  # the problem is linear, so that a central difference is exact but for the tolerance

    def value(x, u):
        return float(
            (integrate(model, Held(u, dt=0.6), x, steps=Adaptive(1e-10, 1e-10), save=At(ts)).xs * weights).sum()
        )

    x, u = x0.detach(), us.detach()
    for j in range(2):
        kick = h * torch.eye(2)[j]
        assert float(found[0][j]) == pytest.approx(
            (value(x + kick, u) - value(x - kick, u)) / (2 * h), abs=3e-4 if solver.order < 4 else 1e-6
        )
    for j in range(3):
        kick = h * torch.eye(3)[j][:, None]
        assert float(found[1][j]) == pytest.approx(
            (value(x, u + kick) - value(x, u - kick)) / (2 * h), abs=3e-4 if solver.order < 4 else 1e-6
        )


# torchdiffeq.


def test_torchdiffeq_takes_known_methods_only():
    with pytest.raises(ValueError, match="no method 'rk5': use one of adaptive_heun, "):
        TorchDiffEq("rk5")


def test_torchdiffeq_takes_the_tolerances_of_adaptive_steps():
    assert TorchDiffEq("dopri8").with_tolerances(Adaptive(1e-3, 1e-4)) == TorchDiffEq("dopri8", 1e-3, 1e-4)
    with pytest.raises(ValueError, match="error estimate"):
        integrate(VanDerPol(), None, t_span=(0.0, 1.0), solver=TorchDiffEq("rk4"), steps=Adaptive())


def test_a_failure_inside_torchdiffeq_is_an_integration_error():
    with pytest.raises(ctrnn.StepSizeUnderflow, match="torchdiffeq's dopri5"):
        integrate(Blowup(), None, torch.ones(1), t_span=(0.0, 2.0), solver=TorchDiffEq("dopri5"), steps=Adaptive())


def test_an_adaptive_method_of_torchdiffeq_says_which_adjoints_it_has():
    model = RateRNN(3, 1, generator=torch.Generator().manual_seed(0))
    drive, recompute = Held(torch.ones(3, 1), dt=0.1), ctrnn.adjoints.Recompute()
    xs = integrate(model, drive, solver=TorchDiffEq("rk4"), steps=Fixed(0.1), adjoint=recompute).xs
    assert xs.requires_grad
    xs = integrate(model, drive, solver=TorchDiffEq("dopri5"), steps=Adaptive(), adjoint=recompute).xs
    with pytest.raises(TypeError, match=r"dopri5 does not work inside torch\.func"):
        xs.sum().backward()


def test_a_function_of_time_drives_every_stage_at_its_own_time():
    model = LinearSystem(torch.zeros(1, 1), torch.ones(1, 1))
    u = Function(lambda t: torch.cos(t).reshape(*t.shape[:-1], 1))
    for solver in (*EMBEDDED, ctrnn.RK4(), TorchDiffEq("dopri5")):
        steps = Adaptive(1e-6, 1e-6) if solver.own_steps or solver.error_order else Fixed(0.05)
        x = integrate(model, u, torch.zeros(1), t_span=(0.0, 2.0), solver=solver, steps=steps, save=Last()).xs
        assert float(x) == pytest.approx(math.sin(2.0), abs=1e-5)


def test_a_method_derived_from_another_sees_the_model_and_not_what_is_read_of_it():
    class Lerp(ctrnn.RK4):
        def step(self, model, t, dt, x, u, prepared=None):
            assert isinstance(model, ctrnn.Relaxation)
            return torch.lerp(x, model.target(t, x, u), float(dt) / model.tau)

    class Watched(ctrnn.Tsit5):
        def attempt(self, model, t, dt, x, u, first=None):
            assert isinstance(model, ctrnn.Relaxation)
            return super().attempt(model, t, dt, x, u, first)

    us = torch.ones(3, 1)
    runs = [integrate(Counting(0.7), us, dt=0.1, solver=solver).xs for solver in (Lerp(), ctrnn.Euler())]
    torch.testing.assert_close(*runs)
    runs = [
        integrate(Counting(0.7), ctrnn.Held(us, 0.1), steps=Adaptive(), solver=solver).xs
        for solver in (Watched(), ctrnn.Tsit5())
    ]
    assert torch.equal(*runs)


class Decay(ctrnn.Relaxation):
    """tau dx/dt = -x, with tau in float32."""

    n_in = 0

    def __init__(self, tau=1.0):
        super().__init__()
        self.tau = tau

    def target(self, t, x, u, alpha=0):
        return torch.sin(t) * torch.zeros_like(x)


METHOD_AND_STEPS = [(ctrnn.RK4(), Fixed(0.01)), (ctrnn.Tsit5(), Fixed(0.01)), (ctrnn.Dopri5(), Adaptive(1e-11, 1e-12))]


@pytest.mark.parametrize(("solver", "steps"), METHOD_AND_STEPS, ids=str)
def test_a_state_keeps_its_precision_beside_a_tau_of_less(solver, steps):
    x0 = torch.ones(2, 1, dtype=torch.float64)
    end = integrate(Decay(0.7).float(), None, x0, t_span=(0.0, 1.0), solver=solver, steps=steps, save=ctrnn.Last()).xs[
        -1
    ]
    torch.testing.assert_close(
        end, torch.full_like(x0, math.exp(-1 / Decay(0.7).float().tau.item())), rtol=5e-9, atol=0
    )


def test_a_state_keeps_its_dtype_where_the_model_looks_at_the_time():
    run = integrate(
        Decay().float(),
        None,
        torch.ones(2, 1, dtype=torch.float32),
        t_span=(0.0, 1.0),
        solver=ctrnn.Tsit5(),
        steps=Adaptive(),
    )
    assert run.xs.dtype == torch.float32


def test_a_pair_with_an_error_or_strides_of_its_own_is_asked_for_them():
    class Strict(ctrnn.Tsit5):
        def error(self, attempt):
            return 1e4 * super().error(attempt)

    class Short(ctrnn.RK4):
        def strides(self, h):
            return super().strides(0.5 * h)

    model = ctrnn.CTRNN(5, 3)
    us, how = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0)), {"steps": Adaptive(1e-4, 1e-4)}
    steps = [integrate(model, ctrnn.Held(us, 0.5), solver=s, **how).stats.steps for s in (Strict(), ctrnn.Tsit5())]
    assert (steps[0] > 2 * steps[1]).all()
    ends = [integrate(model, us, dt=0.5, solver=solver).xs for solver in (Short(), ctrnn.RK4())]
    assert not torch.allclose(*ends, rtol=1e-2)
