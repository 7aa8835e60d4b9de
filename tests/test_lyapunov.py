"""Lyapunov exponents against what is known exactly."""

import math

import pytest
import torch

import ctrnn
from ctrnn import _tree as tree
from ctrnn import analysis
from ctrnn.analysis import _tangent
from ctrnn.analysis.lyapunov import _kaplan_yorke


def random_network(n, g, generator, tau=1.0):
    """Sompolinsky's network without connections of a unit to itself."""
    model = ctrnn.CTRNN(n, 1, tau=tau)
    with torch.no_grad():
        model.W_rec.copy_(g * torch.randn(n, n, generator=generator) / math.sqrt(n)).fill_diagonal_(0)
    return model


def test_the_exponents_of_a_linear_flow_are_the_real_parts_of_its_eigenvalues():
    A = torch.tensor([[-1.0, 3.0, 0.5], [-3.0, -1.0, 0.0], [0.2, 0.0, 0.25]])
    found = analysis.lyapunov_spectrum(
        ctrnn.LinearSystem(A), torch.ones(3), dt=0.02, duration=20.0, transient=30.0, interval=0.5
    )
    real = torch.linalg.eigvals(A).real.sort(descending=True).values
    torch.testing.assert_close(found.exponents, real, atol=2e-2, rtol=0)
    assert float(found.exponents.sum()) == pytest.approx(float(A.trace()), abs=1e-6)


def test_the_sum_of_henons_exponents_is_the_logarithm_of_its_contraction():
    henon = ctrnn.Henon()
    found = analysis.lyapunov_spectrum(
        ctrnn.Step(henon, ctrnn.Iterate(), dt=1.0), henon.initial_state(), duration=3000, transient=100
    )
    assert float(found.exponents.sum()) == pytest.approx(math.log(0.3), abs=1e-8)
    assert float(found.exponents[0]) == pytest.approx(0.41922, abs=4 * float(found.standard_error[0]))
    assert float(found.kaplan_yorke) == pytest.approx(1 + float(found.exponents[0] / found.exponents[1].abs()))
    assert float(found.entropy_rate) == float(found.exponents[0])


def test_a_bare_map_is_counted_in_iterations():
    found = analysis.lyapunov_spectrum(lambda x: 4 * x * (1 - x), torch.tensor([0.2]), duration=4000, transient=50)
    assert float(found.exponents) == pytest.approx(math.log(2), abs=5e-3)


def test_the_mean_exponent_of_a_network_without_autapses_is_minus_one_over_tau(generator):
    model = random_network(20, 4.0, generator, tau=2.0)
    found = analysis.lyapunov_spectrum(model, torch.randn(20, generator=generator), dt=0.05, duration=30.0)
    assert float(found.exponents.mean()) == pytest.approx(-1 / 2.0, abs=1e-6)


def test_a_quiet_network_has_the_greatest_exponent_of_its_matrix(generator):
    model = random_network(20, 0.5, generator)
    found = analysis.lyapunov_spectrum(
        model, 0.1 * torch.randn(20, generator=generator), k=2, dt=0.2, duration=200.0, transient=100.0
    )
    expected = -1 + float(torch.linalg.eigvals(model.W_rec.detach()).real.max())
    assert float(found.exponents[0]) == pytest.approx(expected, abs=5e-3)


def test_the_sum_equals_the_mean_trace_of_the_flow_along_the_run(generator):
    model = random_network(5, 3.0, generator)
    with torch.no_grad():
        model.W_rec.diagonal().copy_(torch.linspace(0.5, 2.0, 5))
    x0 = torch.randn(5, generator=generator)
    found = analysis.lyapunov_spectrum(model, x0, dt=0.02, duration=10.0)
    run = ctrnn.integrate(model, None, x0, t_span=(0.0, 10.0), dt=0.02, solver=ctrnn.RK4()).xs
    trace = analysis.jacobian(model, run).detach().diagonal(dim1=-2, dim2=-1).sum(-1).mean()
    assert float(found.exponents.sum()) == pytest.approx(float(trace), abs=5e-3)


def test_a_limit_cycle_has_one_exponent_zero():
    model = ctrnn.BeerCTRNN(2)
    with torch.no_grad():
        model.W_rec.copy_(torch.tensor([[4.5, 1.0], [-1.0, 4.5]]))
        model.theta.copy_(torch.tensor([-2.75, -1.75]))
    found = analysis.lyapunov_spectrum(model, torch.tensor([3.0, 1.0]), dt=0.2, duration=290.0, transient=145.0)
    assert float(found.exponents[0]) == pytest.approx(0.0, abs=2e-3)
    assert float(found.exponents[1]) < -0.05


NETWORKS = {
    "GRU": lambda g: ctrnn.GRU(3, 2, generator=g),
    "LSTM": lambda g: ctrnn.LSTM(3, 2, generator=g),
    "MTRNN": lambda g: ctrnn.MTRNN({"fast": (3, 2.0), "slow": (2, 9.0)}, 2, generator=g),
    "stack": lambda g: ctrnn.Stack([ctrnn.GRU(2, 2, generator=g), ctrnn.LSTM(2, 2, generator=g)]),
}


@pytest.mark.parametrize(
    ("kind", "as_map"),
    [("GRU", True), ("LSTM", True), ("MTRNN", True), ("stack", True), ("LSTM", False)],
)
def test_many_steps_at_once_one_by_one_and_without_a_record_are_one(kind, as_map, generator, monkeypatch):
    model = NETWORKS[kind](generator)
    us = torch.randn(7, 2, generator=generator)
    x0 = tree.map(lambda leaf: torch.rand(leaf.shape, generator=generator), model.initial_state(2))
    system, dt = (ctrnn.Step(model, ctrnn.Euler(), dt=1.0), None) if as_map else (model, 0.25)

    def spectrum():
        return analysis.lyapunov_spectrum(system, x0, us, dt=dt, duration=10.0, transient=5.0)

    found = [spectrum()]
    monkeypatch.setattr(_tangent, "CHUNK", 0)
    found.append(spectrum())
    monkeypatch.setattr(_tangent, "_recorded", lambda fn, *args: None)
    found.append(spectrum())
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9, equal_nan=True)


def test_each_row_of_a_batch_has_the_spectrum_it_has_alone(generator):
    model = random_network(4, 3.0, generator)
    x0 = torch.randn(2, 3, 4, generator=generator)
    us = torch.randn(11, 2, 3, 1, generator=generator)
    found = analysis.lyapunov_spectrum(model, x0, us, dt=0.1, duration=20.0)
    alone = analysis.lyapunov_spectrum(model, x0[1, 2], us[:, 1, 2], dt=0.1, duration=20.0)
    torch.testing.assert_close(found.exponents[1, 2], alone.exponents)
    assert found.history.shape == (20, 2, 3, 4)
    torch.testing.assert_close(found.history[-1], found.exponents)


def test_a_function_of_time_drives_as_the_samples_it_holds(generator):
    model = random_network(4, 3.0, generator)
    x0 = torch.randn(4, generator=generator)
    constant = torch.tensor([0.7])
    by_time = analysis.lyapunov_spectrum(model, x0, lambda t: constant * torch.ones_like(t), dt=0.1, duration=10.0)
    by_sample = analysis.lyapunov_spectrum(model, x0, constant[None], dt=0.1, duration=10.0)
    torch.testing.assert_close(by_time.exponents, by_sample.exponents)
    swinging = analysis.lyapunov_spectrum(
        model, x0, lambda t: 3 * torch.sin(t).reshape(*t.shape[:-1], 1), dt=0.1, duration=10.0
    )
    assert not torch.allclose(swinging.exponents, by_sample.exponents, atol=1e-3)


def test_a_strong_common_input_makes_a_chaotic_network_reliable(generator):
    model = random_network(60, 2.5, generator)
    with torch.no_grad():
        model.W_in.copy_(torch.randn(60, 1, generator=generator))
    x0 = torch.randn(60, generator=generator)
    free = analysis.lyapunov_spectrum(model, x0, k=1, dt=0.1, duration=100.0, transient=30.0)
    forced = analysis.lyapunov_spectrum(
        model, x0, 12 * torch.randn(4000, 1, generator=generator), k=1, dt=0.1, duration=100.0, transient=30.0
    )
    assert float(free.exponents) > 0.02
    assert float(forced.exponents) < -0.1


def test_the_dimension_needs_as_many_exponents_as_make_the_sum_negative():
    three = torch.tensor([0.9, 0.0, -14.6])
    assert float(_kaplan_yorke(three, True)) == pytest.approx(2 + 0.9 / 14.6)
    assert math.isnan(_kaplan_yorke(three[:2], False))
    assert float(_kaplan_yorke(torch.tensor([0.5, 0.1]), True)) == 2.0
    assert float(_kaplan_yorke(torch.tensor([-0.5, -1.0]), True)) == 0.0


def test_the_users_network_is_left_as_it_was(generator):
    model = ctrnn.GRU(3, 0, generator=generator).float()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = analysis.lyapunov_spectrum(model, torch.rand(3, dtype=torch.float64), dt=0.5, duration=10.0)
    assert found.exponents.dtype == torch.float64
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {value.dtype for name, value in model.named_parameters()} == {torch.float32}


def test_an_interval_in_which_directions_are_lost_is_pointed_out(generator):
    model = ctrnn.LSTM(3, 0, generator=generator)
    x0 = tree.map(lambda leaf: torch.rand(leaf.shape, generator=generator), model.initial_state())
    step = ctrnn.Step(model, ctrnn.Euler(), dt=1.0)
    with pytest.warns(UserWarning, match="shorter interval or fewer exponents"):
        analysis.lyapunov_spectrum(step, x0, duration=60.0, interval=30.0)


def test_few_exponents_are_the_greatest_even_where_units_do_not_hear_one_another():
    quiet_first = ctrnn.LinearSystem(torch.diag(torch.tensor([-2.0, -1.0, 0.25, -0.5])))
    found = analysis.lyapunov_spectrum(quiet_first, torch.ones(4), k=2, dt=0.1, duration=20.0, transient=60.0)
    torch.testing.assert_close(found.exponents, torch.tensor([0.25, -0.5]), atol=1e-6, rtol=0)


def test_a_direction_that_a_map_forgets_has_the_exponent_minus_infinity():
    found = analysis.lyapunov_spectrum(
        lambda x: torch.stack((0.5 * x[..., 0], 0 * x[..., 1]), -1), torch.ones(2), duration=40, transient=10
    )
    assert float(found.exponents[0]) == pytest.approx(math.log(0.5))
    assert found.exponents[1] == -math.inf
    assert found.kaplan_yorke == 0


def test_a_callable_may_give_each_row_weights_of_its_own(generator):
    A = torch.randn(3, 5, 5, generator=generator) / math.sqrt(5)

    def both(x):
        return (A @ x[..., None])[..., 0]

    x0 = torch.randn(3, 5, generator=generator)
    for k in (5, 1):
        found = analysis.lyapunov_spectrum(both, x0, k=k, duration=300, transient=300)
        exact = torch.linalg.eigvals(A).abs().log().sort(-1, descending=True).values[:, :k]
        torch.testing.assert_close(found.exponents, exact, atol=2e-2, rtol=0)


def test_a_map_that_writes_in_place_is_recorded_rightly():
    def turn(x):
        y = torch.zeros_like(x)
        y[..., 0] += 2 * x[..., 1]
        y[..., 1] += 0.5 * x[..., 0]
        return y

    found = analysis.lyapunov_spectrum(turn, torch.ones(1, 2), duration=200, interval=2)
    torch.testing.assert_close(found.exponents, torch.zeros(1, 2), atol=1e-12, rtol=0)


class Halting(ctrnn.Model):
    """dx/dt = -x until t = 5, then -3 x: a field that looks at its time."""

    def forward(self, t, x, u):
        return -x if float(t) < 5 else -3 * x

    def initial_state(self, *batch):
        return torch.ones(*batch, 2)


def test_a_field_that_looks_at_its_time_is_taken_step_by_step():
    found = analysis.lyapunov_spectrum(Halting(), torch.ones(2), dt=0.05, duration=10.0, interval=0.5)
    torch.testing.assert_close(found.exponents, torch.tensor([-2.0, -2.0]), atol=5e-2, rtol=0)


def test_every_solver_shows_its_own_tangent(generator):
    model = random_network(4, 2.0, generator)
    x0 = torch.randn(4, generator=generator)
    flow = analysis.lyapunov_spectrum(model, x0, dt=0.05, duration=2.0).exponents
    for solver in (ctrnn.Tsit5(), ctrnn.Rodas4()):
        found = analysis.lyapunov_spectrum(model, x0, dt=0.05, duration=2.0, solver=solver).exponents
        torch.testing.assert_close(found, flow, atol=5e-3, rtol=0)
    euler = analysis.lyapunov_spectrum(model, x0, dt=0.05, duration=2.0, solver=ctrnn.Euler()).exponents
    assert not torch.allclose(euler, flow, atol=5e-3)


def test_wrong_arguments_are_named():
    lorenz, x0 = ctrnn.Lorenz(), ctrnn.Lorenz().initial_state()
    with pytest.raises(ValueError, match="3 Lyapunov exponents, not 4"):
        analysis.lyapunov_spectrum(lorenz, x0, k=4, dt=0.01, duration=1.0)
    with pytest.raises(ValueError, match="needs a step dt > 0"):
        analysis.lyapunov_spectrum(lorenz, x0, duration=1.0)
    with pytest.raises(ValueError, match="shorter than one interval"):
        analysis.lyapunov_spectrum(lorenz, x0, dt=0.01, duration=0.05, interval=0.1)
    with pytest.raises(ValueError, match="duration = 0 holds no step"):
        analysis.lyapunov_spectrum(lorenz, x0, dt=0.01, duration=0.0)
    with pytest.raises(ValueError, match="own dt"):
        analysis.lyapunov_spectrum(ctrnn.Step(lorenz, ctrnn.RK4(), dt=0.1), x0, dt=0.01, duration=1.0)
    with pytest.raises(TypeError, match="samples"):
        analysis.lyapunov_spectrum(lorenz, x0, [1.0], dt=0.01, duration=1.0)
    with pytest.raises(TypeError, match="callable map"):
        analysis.lyapunov_spectrum(3, x0, duration=1.0)
    for how in ({"dt": 0.1}, {"solver": ctrnn.RK4()}):
        with pytest.raises(ValueError, match="iterations, and neither dt nor solver"):
            analysis.lyapunov_spectrum(lambda x: 0.5 * x, x0, duration=10.0, **how)


def test_what_is_not_finite_from_the_start_is_no_divergence(generator):
    model, x0 = ctrnn.CTRNN(4, 2, generator=generator), torch.zeros(4)
    how = {"dt": 0.1, "duration": 10.0, "interval": 0.2}
    with pytest.raises(ValueError, match="x0 holds NaN"):
        analysis.lyapunov_spectrum(model, torch.full((4,), math.nan), **how)
    us = torch.zeros(50, 2)
    us[7, 1] = math.inf
    with pytest.raises(ValueError, match=r"drive holds NaN or infinite values, first at index \(7, 1\)"):
        analysis.lyapunov_spectrum(model, x0, us, **how)
    late = lambda t: torch.stack([t, torch.where(t < 3.25, 0.0, math.nan)])
    with pytest.raises(ValueError, match=r"drive is not finite at t = 3\.3"):
        analysis.lyapunov_spectrum(model, x0, late, **how)


def test_a_run_that_diverges_says_when_and_which_sample():
    with pytest.raises(ctrnn.NonFiniteState, match=r"diverged .* sample \(1,\)"):
        analysis.lyapunov_spectrum(lambda x: x**3, torch.tensor([[0.5], [1.5]]), duration=100)
