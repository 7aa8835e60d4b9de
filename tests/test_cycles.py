"""Branches of limit cycles against what is known on paper, and against scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import ctrnn
from ctrnn import analysis
from ctrnn.analysis import ContinuationError, CycleBranchPoint, CycleFold, PeriodDoubling, Torus
from tests.test_continuation import Scalar, two_neurons


def polar(growth):
    """r' = r growth(p, r^2), phase' = 1, in the plane."""

    def field(p, x):
        r2 = (x[..., :2] ** 2).sum(-1, keepdim=True)
        turned = torch.stack([-x[..., 1], x[..., 0]], -1)
        return x[..., :2] * growth(p, r2) + turned

    return field


def from_hopf(model, x0, parameter, span, **how):
    (hopf,) = analysis.continue_equilibria(model, x0, parameter, span).points
    return hopf, analysis.continue_cycles(model, hopf, parameter, span, **how)


def test_the_cycle_of_the_hopf_normal_form_has_the_radius_period_and_multiplier_on_paper():
    model = Scalar(polar(lambda p, r2: p - r2), 2)
    _, branch = from_hopf(model, torch.zeros(2), "p", (-0.5, 0.5))
    radius = branch.orbits.norm(dim=-1)
    torch.testing.assert_close(radius, branch.parameter.sqrt()[:, None].expand_as(radius), atol=1e-6, rtol=0)
    torch.testing.assert_close(branch.period, torch.full_like(branch.period, 2 * math.pi), atol=1e-8, rtol=0)
    expected = torch.exp(-4 * math.pi * branch.parameter)
    torch.testing.assert_close(branch.multipliers[:, 1].real, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(branch.multipliers[:, 0].real, torch.ones_like(expected), atol=1e-7, rtol=0)
    assert bool(branch.stable.all())
    assert float(branch.parameter[-1]) == pytest.approx(0.5, abs=1e-12)


def test_a_subcritical_cycle_turns_back_at_the_fold_on_paper():
    model = Scalar(polar(lambda p, r2: p + r2 - r2**2), 2)
    _, branch = from_hopf(model, torch.zeros(2), "p", (-0.4, 0.4))
    (fold,) = branch.points
    assert isinstance(fold, CycleFold)
    assert fold.parameter == pytest.approx(-0.25, abs=1e-8)
    assert float(fold.orbit.norm(dim=-1).mean()) == pytest.approx(math.sqrt(0.5), abs=1e-3)
    turn = int(branch.parameter.argmin())
    assert not bool(branch.stable[: turn - 1].any())
    assert bool(branch.stable[turn + 1 :].all())


def test_two_neurons_keep_the_periods_that_integration_gives():
    model, family = two_neurons()
    x0 = -family(torch.tensor(3.0))["theta"]
    hopf, branch = from_hopf(model, x0, family, (3.0, 6.0))
    assert hopf.omega == pytest.approx(0.25, abs=1e-9)
    assert float(branch.period[0]) == pytest.approx(8 * math.pi, rel=1e-3)
    assert float(branch.period[-1]) == pytest.approx(110.26, abs=0.02)
    exact = analysis.continue_cycles(model, hopf, family, (3.0, 4.5))
    assert float(exact.period[-1]) == pytest.approx(28.999908, abs=1e-4)
    assert exact.orbits[-1].amax(0).tolist() == pytest.approx([4.20615, 3.20615], abs=2e-3)


def test_the_period_grows_as_the_inverse_root_of_the_distance_to_the_saddle_node_that_ends_the_cycle():
    model, family = two_neurons()
    (hopf,) = analysis.continue_equilibria(model, -family(torch.tensor(3.0))["theta"], family, (3.0, 7.0)).points
    branch = analysis.continue_cycles(model, hopf, family, (3.0, 7.0), max_period=400.0)
    late = branch.period > 150
    assert int(late.sum()) >= 3
    # 1 / T^2 is a straight line in w, which meets 0 at the end of the branch.
    slope, offset = np.polyfit(branch.parameter[late].numpy(), (1 / branch.period[late] ** 2).numpy(), 1)
    assert -offset / slope == pytest.approx(6.1433, abs=2e-3)


def test_van_der_pols_cycle_is_found_from_a_simulated_orbit():
    model = ctrnn.VanDerPol(1.0)
    orbit = analysis.simulated_orbit(model, torch.tensor([1.0, 0.0]), transient=40.0, duration=20.0)
    assert orbit.period == pytest.approx(6.663287, abs=1e-4)
    name = next(name for name, _ in model.named_buffers())
    branch = analysis.continue_cycles(model, orbit, name, (1.0, 2.0))
    assert float(branch.period[0]) == pytest.approx(6.663287, abs=2e-6)
    assert float(branch.orbits[0, :, 0].max()) == pytest.approx(2.00862, abs=1e-3)
    assert bool(branch.stable.all())


@pytest.fixture(scope="module")
def rossler():
    torch.set_default_dtype(torch.float64)
    model = ctrnn.Rossler()
    orbit = analysis.simulated_orbit(_with(model, 2.0), torch.tensor([1.0, 1.0, 0.0]), transient=150.0, duration=30.0)
    return analysis.continue_cycles(model, orbit, "c", (2.0, 4.0))


def _with(model, c):
    other = type(model)()
    other.c.fill_(c)
    return other


def test_rosslers_cycle_doubles_its_period_where_scipy_finds_the_multiplier_minus_one(rossler):
    (doubling,) = (point for point in rossler.points if isinstance(point, PeriodDoubling))
    a, b, c = 0.2, 0.2, doubling.parameter

    def field(t, z):
        x, y, w = z[:3]
        J = np.array([[0, -1, -1], [1, a, 0], [w, 0, x - c]])
        return np.concatenate([[-y - w, x + a * y, b + w * (x - c)], (J @ z[3:].reshape(3, 3)).reshape(-1)])

    start = np.concatenate([doubling.orbit[0].numpy(), np.eye(3).reshape(-1)])
    end = solve_ivp(field, (0, doubling.period), start, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    assert np.abs(end[:3] - start[:3]).max() < 1e-5
    assert np.abs(np.linalg.eigvals(end[3:].reshape(3, 3)) + 1).min() < 1e-3


def test_stability_is_lost_at_the_period_doubling(rossler):
    at = next(point.parameter for point in rossler.points if isinstance(point, PeriodDoubling))
    assert rossler.stable.tolist() == (rossler.parameter < at).tolist()


def test_a_torus_is_born_where_a_complex_pair_of_multipliers_passes_the_unit_circle():
    cycle = polar(lambda p, r2: 1 - r2)

    def field(p, x):
        u, v = x[..., 2], x[..., 3]
        beside = torch.stack([p * u - 0.3 * v, 0.3 * u + p * v], -1)
        return torch.cat([cycle(p, x), beside], -1)

    ticks = 2 * math.pi * torch.arange(100) / 100
    orbit = analysis.Orbit(torch.stack([ticks.cos(), ticks.sin(), 0 * ticks, 0 * ticks], -1), 2 * math.pi)
    branch = analysis.continue_cycles(Scalar(field, 4), orbit, "p", (-0.1, 0.1))
    (torus,) = branch.points
    assert isinstance(torus, Torus)
    assert torus.parameter == pytest.approx(0.0, abs=1e-6)


def beside_a_circle(transverse, n):
    """The circle of radius 1 and period 2 pi at all p, and n further coordinates v' = transverse(p, x, y, v)."""
    circle = polar(lambda p, r2: 1 - r2)
    field = lambda p, x: torch.cat([circle(p, x), transverse(p, x[..., 0], x[..., 1], x[..., 2:])], -1)
    ticks = 2 * math.pi * torch.arange(100) / 100
    still = [0 * ticks] * n
    return Scalar(field, n + 2), analysis.Orbit(torch.stack([ticks.cos(), ticks.sin(), *still], -1), 2 * math.pi)


def sheared(p, x, y, v):
    """v' = p v and (p - 0.003) v in a frame that makes half a turn a round: multipliers -exp(2 pi p) and so on."""
    a, b, u, w = p, p - 0.003, v[..., 0], v[..., 1]
    mean, half = (a + b) / 2, (a - b) / 2
    return torch.stack([mean * u + half * (x * u + y * w) - w / 2, mean * w + half * (y * u - x * w) + u / 2], -1)


@pytest.mark.parametrize(
    ("transverse", "n", "kind", "at"),
    [
        (lambda p, x, y, v: p * v - v**3, 1, CycleBranchPoint, [0.0]),
        (lambda p, x, y, v: (p - torch.tensor([0.0, 0.003])) * v - v**3, 2, CycleBranchPoint, [0.0, 0.003]),
        (sheared, 2, PeriodDoubling, [0.0, 0.003]),
        (
            lambda p, x, y, v: torch.stack(
                [
                    p * v[..., 0] - 0.3 * v[..., 1],
                    0.3 * v[..., 0] + p * v[..., 1],
                    (p - 0.003) * v[..., 2] - 0.4 * v[..., 3],
                    0.4 * v[..., 2] + (p - 0.003) * v[..., 3],
                ],
                -1,
            ),
            4,
            Torus,
            [0.0, 0.003],
        ),
    ],
    ids=["one crossing", "two crossings", "two doublings", "two tori"],
)
def test_points_within_one_stride_are_told_apart(transverse, n, kind, at):
    model, orbit = beside_a_circle(transverse, n)
    branch = analysis.continue_cycles(model, orbit, "p", (-0.1, 0.1), intervals=15)
    assert [type(point) for point in branch.points] == [kind] * len(at)
    assert [point.parameter for point in branch.points] == pytest.approx(at, abs=1e-6)


def test_points_of_cycles_that_coincide_are_named():
    model, orbit = beside_a_circle(lambda p, x, y, v: p * v - v**3, 2)
    with pytest.warns(UserWarning, match="several eigenvalues change sides together"):
        branch = analysis.continue_cycles(model, orbit, "p", (-0.1, 0.1), intervals=6)
    assert branch.points == []


CIRCLE = polar(lambda p, r2: p - r2)
ROUND = analysis.Orbit(torch.randn(20, 2, generator=torch.Generator().manual_seed(0)), 2.0)


@pytest.mark.parametrize(
    ("system", "start", "span", "kind", "says"),
    [
        (ctrnn.Step(Scalar(CIRCLE, 2), ctrnn.Euler(), dt=0.1), ROUND, (0.0, 1.0), TypeError, "not of a Step: pass the"),
        (torch.sin, ROUND, (0.0, 1.0), TypeError, "flow of a Model, not of a builtin"),
        (Scalar(CIRCLE, 2), ROUND.x, (0.0, 1.0), TypeError, "Hopf point or an Orbit, got Tensor: simulated_orbit"),
        (Scalar(CIRCLE, 2), tuple(ROUND), (0.0, 1.0), TypeError, "Hopf point or an Orbit, got tuple"),
        (Scalar(CIRCLE, 3), ROUND, (0.0, 1.0), ValueError, r"states \(sample, 3\), .* got \(20, 2\)"),
        (Scalar(CIRCLE, 2), ROUND._replace(period=-1.0), (0.0, 1.0), ValueError, r"period -1\.0: need"),
        (Scalar(CIRCLE, 2), ROUND._replace(x=ROUND.x * math.nan), (0.0, 1.0), ValueError, "NaN"),
        (Scalar(CIRCLE, 2), ROUND, (0.0, math.nan), ValueError, r"span = \(0\.0, nan\)"),
        (Scalar(CIRCLE, 2), ROUND, (1.0, 1.0), ValueError, "heads for another one"),
        (
            Scalar(CIRCLE, 2),
            analysis.Hopf(0.0, torch.zeros(2), 1.0, torch.ones(2) + 0j),
            (0.1, 1.0),
            ValueError,
            r"leaves out the point to start from, at parameter 0: widen it",
        ),
    ],
)
def test_what_is_no_start_of_cycles_is_named(system, start, span, kind, says):
    with pytest.raises(kind, match=says):
        analysis.continue_cycles(system, start, "p", span)


def test_a_run_that_stands_still_or_never_comes_back_is_no_orbit():
    with pytest.raises(ValueError, match="stands still"):
        analysis.simulated_orbit(ctrnn.LinearSystem(-torch.eye(2)), torch.ones(2), transient=500.0, duration=10.0)
    with pytest.raises(ValueError, match="does not come back"):
        analysis.simulated_orbit(ctrnn.VanDerPol(1.0), torch.ones(2), transient=20.0, duration=5.0)
    with pytest.raises(ValueError, match=r"duration = -5\.0"):
        analysis.simulated_orbit(ctrnn.VanDerPol(1.0), torch.ones(2), transient=20.0, duration=-5.0)
    with pytest.raises(ValueError, match=r"VanDerPol must have the form \(2,\)"):
        analysis.simulated_orbit(ctrnn.VanDerPol(1.0), torch.ones(3), transient=20.0, duration=5.0)
    step = ctrnn.Step(ctrnn.VanDerPol(1.0), ctrnn.RK4(), dt=0.1)
    with pytest.raises(TypeError, match="flow of a Model, not of a Step"):
        analysis.simulated_orbit(step, torch.ones(2), transient=20.0, duration=5.0)


def test_an_orbit_that_is_none_ends_in_an_equilibrium_and_says_so():
    nonsense = analysis.Orbit(torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), 3.0)
    with pytest.raises(ContinuationError, match="shrank to an equilibrium"):
        analysis.continue_cycles(Scalar(polar(lambda p, r2: p - 10), 2), nonsense, "p", (0.0, 1.0))
