"""Others as witnesses: scipy and torchdiffeq solve the same problems."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import ctrnn
from ctrnn import Adaptive, At, Fixed, Last, integrate
from ctrnn.dynamics import Model
from ctrnn.models import RateRNN
from ctrnn.models.textbook import FitzHughNagumo, Lorenz, Robertson, Rossler, VanDerPol
from ctrnn.solvers import TorchDiffEq


class Field(Model):
    """A vector field from a function of (t, x) with x (*batch, n)."""

    n_in = 0

    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, t, x, u):
        return self.fn(t[..., 0] if t.ndim else t, x)


def stack(*parts):
    return torch.stack(torch.broadcast_tensors(*parts), -1)


def heat(t, x):
    """C3: the heat equation by the method of lines, 10 points."""
    z = torch.zeros_like(x[..., :1])
    return torch.cat((z, x[..., :-1]), -1) - 2 * x + torch.cat((x[..., 1:], z), -1)


def decay(t, x):
    """C1: a radioactive chain."""
    return torch.cat((-x[..., :1], x[..., :-2] - x[..., 1:-1], x[..., -2:-1]), -1)


def orbit(t, x):
    """D: two bodies, the eccentricity in the start."""
    a, b, va, vb = x.unbind(-1)
    r3 = (a**2 + b**2) ** 1.5
    return stack(va, vb, -a / r3, -b / r3)


def e1(t, x):
    a, b = x.unbind(-1)
    return stack(b, -(b / (t + 1) + (1 - 0.25 / (t + 1) ** 2) * a))


def first(n):
    return [1.0] + [0.0] * (n - 1)


# Hull, Enright, Fellen & Sedgwick (1972), SIAM J. Numer. Anal. 9:603-637: DETEST, all over t = 0 to 20.
DETEST = {
    "A1": (lambda t, x: -x, [1.0]),
    "A2": (lambda t, x: -(x**3) / 2, [1.0]),
    "A3": (lambda t, x: x * torch.cos(t)[..., None], [1.0]),
    "A4": (lambda t, x: x / 4 * (1 - x / 20), [1.0]),
    "B1": (
        lambda t, x: stack(2 * (x[..., 0] - x[..., 0] * x[..., 1]), -(x[..., 1] - x[..., 0] * x[..., 1])),
        [1.0, 3.0],
    ),
    "B2": (lambda t, x: x @ torch.tensor([[-1.0, 1, 0], [1, -2, 1], [0, 1, -1]]).T, [2.0, 0.0, 1.0]),
    "B3": (lambda t, x: stack(-x[..., 0], x[..., 0] - x[..., 1] ** 2, x[..., 1] ** 2), [1.0, 0.0, 0.0]),
    "B5": (
        lambda t, x: stack(x[..., 1] * x[..., 2], -x[..., 0] * x[..., 2], -0.51 * x[..., 0] * x[..., 1]),
        [0.0, 1.0, 1.0],
    ),
    "C1": (decay, first(10)),
    "C3": (heat, first(10)),
    "D1": (orbit, [0.9, 0.0, 0.0, (1.1 / 0.9) ** 0.5]),
    "D4": (orbit, [0.3, 0.0, 0.0, (1.7 / 0.3) ** 0.5]),
    "E1": (e1, [0.6713967071418030, 0.09540051444747446]),
    "E2": (lambda t, x: stack(x[..., 1], (1 - x[..., 0] ** 2) * x[..., 1] - x[..., 0]), [2.0, 0.0]),
    "E3": (lambda t, x: stack(x[..., 1], x[..., 0] ** 3 / 6 - x[..., 0] + 2 * torch.sin(2.78535 * t)), [0.0, 0.0]),
}


def scipy_solution(model, x0, ts, method="DOP853", rtol=1e-11, atol=1e-13):
    """The states at the times ts (time, n) by scipy."""

    def fn(t, x):
        return model(torch.tensor(t), torch.as_tensor(x), torch.zeros(0)).numpy()

    found = solve_ivp(
        fn, (0.0, float(ts[-1])), np.asarray(x0), method=method, t_eval=np.asarray(ts), rtol=rtol, atol=atol
    )
    assert found.success
    return torch.from_numpy(found.y.T)


@pytest.mark.parametrize("name", DETEST)
@pytest.mark.parametrize("solver", [ctrnn.Tsit5(), ctrnn.Dopri5()], ids=str)
def test_detest_agrees_with_scipy_on_and_off_the_steps(name, solver):
    fn, start = DETEST[name]
    model, x0, ts = Field(fn), torch.tensor(start), torch.linspace(0.0, 20.0, 13)
    run = integrate(model, None, x0, t_span=(0.0, 20.0), solver=solver, steps=Adaptive(1e-7, 1e-7), save=At(ts))
    exact = scipy_solution(model, start, ts)
    # What one step adds the problem may amplify: a thousand tolerances.
    torch.testing.assert_close(run.xs, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["A2", "B3", "C1", "E2"])
@pytest.mark.parametrize("solver", [ctrnn.Bosh3(), ctrnn.Rodas4()], ids=str)
def test_detest_agrees_with_scipy_for_the_methods_of_lower_order(name, solver):
    fn, start = DETEST[name]
    model, ts = Field(fn), torch.linspace(0.0, 20.0, 13)
    run = integrate(
        model, None, torch.tensor(start), t_span=(0.0, 20.0), solver=solver, steps=Adaptive(1e-4, 1e-4), save=At(ts)
    )
    torch.testing.assert_close(run.xs, scipy_solution(model, start, ts), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("solver", [ctrnn.Tsit5(), ctrnn.Dopri5(), ctrnn.Bosh3()], ids=str)
def test_a_tighter_tolerance_gives_a_smaller_error_in_proportion(solver):
    model, start, ts = FitzHughNagumo(I=0.5), [-1.0, 1.0], torch.linspace(0.0, 40.0, 5)
    exact = scipy_solution(model, start, ts)
    errors = []
    for tolerance in (1e-4, 1e-6, 1e-8) if solver.order > 3 else (1e-3, 1e-4, 1e-5):
        steps = Adaptive(tolerance, tolerance)
        run = integrate(model, None, torch.tensor(start), t_span=(0.0, 40.0), solver=solver, steps=steps, save=At(ts))
        errors.append(float((run.xs - exact).abs().max()) / tolerance)
    assert max(errors) < 100
    assert max(errors) / min(errors) < 100


@pytest.mark.parametrize("model", [Lorenz(), Rossler(), VanDerPol()], ids=lambda m: type(m).__name__)
def test_textbook_systems_agree_with_scipy(model):
    start, ts = model.start, torch.linspace(0.0, 3.0, 7)
    run = integrate(model, None, t_span=(0.0, 3.0), solver=ctrnn.Dopri5(), steps=Adaptive(1e-9, 1e-9), save=At(ts))
    torch.testing.assert_close(run.xs, scipy_solution(model, start, ts), rtol=1e-6, atol=1e-6)


def test_robertson_agrees_with_radau_over_nine_decades_of_time():
    model, ts = Robertson(), torch.tensor([0.4, 40.0, 4000.0, 4e5])
    run = integrate(model, None, t_span=(0.0, 4e5), solver=ctrnn.Rodas4(), steps=Adaptive(1e-6, 1e-10), save=At(ts))
    exact = scipy_solution(model, model.start, ts, method="Radau", rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(run.xs, exact, rtol=1e-4, atol=0)
    torch.testing.assert_close(run.xs.sum(-1), torch.ones(4), rtol=1e-9, atol=0)
    assert int(run.stats.steps) < 400  # an explicit method would need some hundred million


def test_stiff_van_der_pol_agrees_with_radau_through_its_jumps():
    model, ts = VanDerPol(1000.0), torch.tensor([100.0, 600.0, 900.0])
    run = integrate(model, None, t_span=(0.0, 900.0), solver=ctrnn.Rodas4(), steps=Adaptive(1e-5, 1e-7), save=At(ts))
    exact = scipy_solution(model, model.start, ts, method="Radau", rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(run.xs, exact, rtol=2e-3, atol=1e-6)
    assert bool((run.xs[1:, 0].sign().diff() != 0).any())  # it did jump


def test_the_gradient_through_a_stiff_run_agrees_with_finite_differences_of_radau():
    model, ts = Robertson(), torch.tensor([10.0])
    x0 = torch.tensor([1.0, 1e-5, 0.1], requires_grad=True)
    steps = Adaptive(1e-8, 1e-12)
    run = integrate(model, None, x0, t_span=(0.0, 10.0), solver=ctrnn.Rodas4(), steps=steps, save=Last())
    (found,) = torch.autograd.grad(run.xs[-1, 0], x0)
    for j, h in ((0, 1e-2), (2, 1e-2)):
        kick = h * torch.eye(3)[j]
        ends = [
            scipy_solution(model, (x0 + s * kick).detach(), ts, method="Radau", rtol=1e-9, atol=1e-13)[0, 0]
            for s in (1, -1)
        ]
        assert float(found[j]) == pytest.approx(float(ends[0] - ends[1]) / (2 * h), rel=1e-4)


@pytest.fixture
def network(generator):
    return RateRNN(6, 2, tau=torch.linspace(0.3, 2.0, 6), generator=generator)


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "dopri8", "adaptive_heun", "fehlberg2", "scipy_solver"])
def test_adaptive_methods_of_torchdiffeq_agree_under_a_drive_that_jumps(network, generator, method):
    us = torch.randn(5, 3, 2, generator=generator)
    # fehlberg2 of torchdiffeq is off by some hundred of its own tolerances.
    tolerance = {"adaptive_heun": 1e-4, "fehlberg2": 1e-7}.get(method, 1e-6)
    solver, steps = TorchDiffEq(method), Adaptive(tolerance, tolerance)
    theirs = integrate(network, ctrnn.Held(us, dt=0.3), solver=solver, steps=steps)
    ours = integrate(network, ctrnn.Held(us, dt=0.3), steps=Adaptive(1e-10, 1e-10))
    torch.testing.assert_close(
        theirs.xs, ours.xs, rtol=0, atol=1000 * tolerance if method == "fehlberg2" else 20 * tolerance
    )


@pytest.mark.parametrize(
    ("method", "solver"), [("euler", None), ("midpoint", ctrnn.Midpoint()), ("heun2", ctrnn.Heun())]
)
@pytest.mark.parametrize("kind", [ctrnn.Held, ctrnn.Linear, ctrnn.Cubic])
def test_fixed_methods_of_torchdiffeq_make_the_same_steps(network, generator, method, solver, kind):
    us = torch.randn(5, 3, 2, generator=generator).requires_grad_()
    runs = [
        integrate(network, kind(us, dt=0.1), solver=s, steps=Fixed(0.05)).xs
        for s in (TorchDiffEq(method), solver or ctrnn.Euler())
    ]
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=1e-14)
    slopes = [torch.autograd.grad(xs.square().sum(), us)[0] for xs in runs]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-12, atol=1e-12)


def test_the_gradient_through_torchdiffeq_agrees_with_ours(network, generator):
    us = torch.randn(4, 2, 2, generator=generator)
    slopes = []
    for solver in (TorchDiffEq("dopri5"), ctrnn.Dopri5()):
        xs = integrate(network, ctrnn.Linear(us, dt=0.4), solver=solver, steps=Adaptive(1e-8, 1e-8)).xs
        slopes.append(torch.autograd.grad(xs.square().sum(), network.W_rec)[0])
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-6)
