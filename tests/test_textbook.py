import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch.func import jacrev

from ctrnn.models import FitzHughNagumo, Henon, LinearSystem, Lorenz, Robertson, Rossler, VanDerPol

T0 = torch.zeros(())
NONE = torch.zeros(0)


def field(model):
    return lambda t, x: model(T0, torch.as_tensor(x), NONE).numpy()


def solve(model, end, x0=None, **options):
    x0 = model.initial_state().numpy() if x0 is None else x0
    return solve_ivp(field(model), (0, end), x0, **{"rtol": 1e-11, "atol": 1e-12, "method": "DOP853", **options})


def jacobian(model, x):
    return jacrev(lambda a: model(T0, a, NONE))(x)


def test_lorenz_reaches_the_reference_state():
    end = solve(Lorenz(), 1.0).y[:, -1]
    np.testing.assert_allclose(end, [-9.37857001, -8.35703379, 29.36232534], atol=2e-8)


def test_lorenz_shrinks_volumes_at_the_textbook_rate():
    for x in torch.randn(3, 3) * 10:
        torch.testing.assert_close(jacobian(Lorenz(), x).trace(), torch.tensor(-(10 + 1 + 8 / 3)))


def test_lorenz_rests_at_its_three_equilibria():
    model = Lorenz()
    r = (8 / 3 * 27) ** 0.5
    for x in ([0.0, 0.0, 0.0], [r, r, 27.0], [-r, -r, 27.0]):
        torch.testing.assert_close(model(T0, torch.tensor(x), NONE), torch.zeros(3), rtol=0, atol=1e-12)


def test_rossler_rests_at_its_two_equilibria():
    model, a, b, c = Rossler(), 0.2, 0.2, 5.7
    for sign in (1, -1):
        z = (c + sign * (c**2 - 4 * a * b) ** 0.5) / (2 * a)
        torch.testing.assert_close(model(T0, torch.tensor([a * z, -z, z]), NONE), torch.zeros(3), rtol=0, atol=1e-10)


def test_van_der_pol_has_the_reference_period_and_amplitude():
    crossing = lambda t, x: x[1]
    crossing.direction = -1
    run = solve(VanDerPol(), 60.0, events=crossing)
    tops = run.t_events[0][-3:]
    np.testing.assert_allclose(np.diff(tops), 6.663287, atol=2e-6)
    np.testing.assert_allclose(run.y_events[0][-1][0], 2.00862, atol=1e-5)


def test_fitzhugh_nagumo_has_purely_imaginary_eigenvalues_at_its_hopf_points():
    v = (1 - 0.08 * 0.8) ** 0.5
    for sign in (1, -1):
        w = (sign * v + 0.7) / 0.8
        model = FitzHughNagumo(I=w - sign * v + (sign * v) ** 3 / 3)
        rest = torch.tensor([sign * v, w])
        torch.testing.assert_close(model(T0, rest, NONE), torch.zeros(2), rtol=0, atol=1e-14)
        values = torch.linalg.eigvals(jacobian(model, rest))
        torch.testing.assert_close(values.real, torch.zeros(2), rtol=0, atol=1e-14)
        assert (values.imag.abs() > 0.1).all()


def test_robertson_conserves_mass_and_uses_up_its_first_substance():
    model = Robertson()
    for x in torch.rand(5, 3):
        assert abs(float(model(T0, x, NONE).sum())) < 1e-8
    jac = lambda t, x: jacobian(model, torch.as_tensor(x)).numpy()
    run = solve(model, 40.0, method="Radau", jac=jac, rtol=1e-8, atol=1e-12)
    assert abs(run.y[:, -1].sum() - 1) < 1e-9
    assert 0.7 < run.y[0, -1] < 0.73


def test_henon_shrinks_areas_by_b_and_keeps_its_fixed_points():
    model = Henon()
    step = lambda x: model.target(T0, x, NONE, 1)
    for x in torch.randn(3, 2):
        torch.testing.assert_close(torch.linalg.det(jacrev(step)(x)), torch.tensor(-0.3))
    for sign in (1, -1):
        x = (-0.7 + sign * (0.7**2 + 4 * 1.4) ** 0.5) / 2.8
        rest = torch.tensor([x, 0.3 * x])
        torch.testing.assert_close(step(rest), rest)
    torch.testing.assert_close(step(step(model.initial_state())), torch.tensor([-0.4, 0.3]))


# --- linear systems ---------------------------------------------------------------------------------------------------


def test_a_linear_system_has_the_exact_solution_that_scipy_finds(generator):
    model = LinearSystem(torch.randn(3, 3, generator=generator), torch.randn(3, 2, generator=generator))
    x0, u = torch.randn(3, generator=generator), torch.randn(2, generator=generator)
    ts = torch.linspace(0, 2, 5)
    fn = lambda t, x: model(T0, torch.as_tensor(x), u).numpy()
    expected = solve_ivp(fn, (0, 2), x0.numpy(), t_eval=ts.numpy(), rtol=1e-12, atol=1e-13, method="DOP853").y.T
    np.testing.assert_allclose(model.exact(ts, x0, u), expected, rtol=1e-9, atol=1e-10)


def test_an_oscillator_without_friction_returns_to_its_start():
    model = LinearSystem(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    x0 = torch.randn(4, 2)
    ts = torch.tensor([0.0, torch.pi, 2 * torch.pi])
    xs = model.exact(ts, x0)
    assert xs.shape == (3, 4, 2)
    torch.testing.assert_close(xs, torch.stack([x0, -x0, x0]), rtol=1e-13, atol=1e-13)
    assert model.n_in == 0


def test_a_singular_linear_system_drifts_exactly():
    model = LinearSystem(torch.zeros(1, 1), torch.ones(1, 1))
    torch.testing.assert_close(
        model.exact(torch.tensor(3.0), torch.ones(1), torch.full((1,), 2.0)), torch.tensor([7.0])
    )


def test_an_exact_solution_is_differentiable():
    model = LinearSystem(torch.tensor([[-0.5]]))
    x0, t = torch.tensor([2.0], requires_grad=True), torch.tensor(1.5, requires_grad=True)
    model.exact(t, x0).sum().backward()
    factor = torch.exp(torch.tensor(-0.75))
    torch.testing.assert_close(x0.grad, factor[None])
    torch.testing.assert_close(t.grad, -0.5 * 2.0 * factor)


def test_matrices_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(2, 0\)"):
        LinearSystem(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"got \(2, 2\) and \(3, 1\)"):
        LinearSystem(torch.ones(2, 2), torch.ones(3, 1))


# --- constants --------------------------------------------------------------------------------------------------------


def test_constants_keep_their_float64_digits_whatever_the_state():
    torch.set_default_dtype(torch.float32)
    model = Lorenz()
    assert model.beta.item() == 8 / 3
    assert model.initial_state().dtype == torch.float64
    for shape in ((3,), (2, 3)):
        assert model(T0, torch.ones(shape), NONE).dtype == torch.float32


def test_a_constant_becomes_trainable_when_a_parameter_is_assigned():
    model = Lorenz()
    model.rho = torch.nn.Parameter(model.rho)
    model(T0, torch.ones(3), NONE).sum().backward()
    assert model.rho.grad == 1.0
    assert model.config == {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3}
