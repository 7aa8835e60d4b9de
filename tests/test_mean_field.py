"""The theory of infinitely many units against what is known of it."""

import math

import pytest
import torch

import ctrnn
from ctrnn import analysis
from ctrnn.analysis import mean_field as theory


@pytest.mark.parametrize(
    ("g", "variance", "exponent"),
    [
        (1.05, 0.05283, 0.00106),
        (1.2, 0.24263, 0.01192),
        (1.5, 0.74769, 0.04675),
        (2.0, 1.92481, 0.1125),
        (3.0, 5.44633, 0.2355),
        (4.0, 10.4675, 0.3413),
    ],
)
def test_variance_and_exponent_are_those_of_an_independent_solution(g, variance, exponent):
    found = analysis.dynamic_mean_field(g)
    assert found.variance == pytest.approx(variance, rel=1e-4)
    assert found.exponent == pytest.approx(exponent, rel=2e-2 if g < 1.1 else 1e-3)


def test_near_the_onset_the_exponent_grows_like_half_the_square_of_the_distance():
    ratios = [analysis.dynamic_mean_field(1 + d).exponent / (d**2 / 2) for d in (0.2, 0.1, 0.05)]
    assert ratios == sorted(ratios)
    assert 0.8 < ratios[-1] < 1
    # The ratio is 1 - c d + ...: its limit, from the two last, is 1.
    assert 2 * ratios[2] - ratios[1] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("g", [1.1, 2.0, 6.0])
def test_the_lowest_odd_level_of_the_well_is_zero(g):
    found = analysis.dynamic_mean_field(g)
    phi = theory._checked(torch.tanh)
    moments = theory._Moments.of(phi, found.variance)
    assert theory._level(moments, g, theory._orbit(moments, g), -1) == pytest.approx(0, abs=1e-7)


def test_a_network_below_the_onset_is_silent():
    found = analysis.dynamic_mean_field(0.7)
    assert (found.variance, found.exponent) == (0.0, pytest.approx(-0.3))
    assert analysis.dynamic_mean_field(1.0).exponent == 0.0


def test_the_autocovariance_begins_at_the_variance_flat_and_obeys_its_equation():
    found = analysis.dynamic_mean_field(2.0)
    lags, values = found.lags, found.autocovariance
    assert float(values[0]) == pytest.approx(found.variance)
    assert float(values[-1]) < 1e-8
    assert bool((values.diff() < 0).all())
    h = float(lags[1])
    curvature = (values[2:] - 2 * values[1:-1] + values[:-2]) / h**2
    moments = theory._Moments.of(theory._checked(torch.tanh), found.variance)
    heard = 4 * torch.from_numpy(moments.covariance((values[1:-1] / found.variance).numpy()))
    torch.testing.assert_close(curvature, values[1:-1] - heard, atol=2e-3, rtol=0)


def test_moments_are_those_of_two_gaussians(generator):
    x, z = torch.randn(2, 400_000, generator=generator)
    variance, c = 3.0, 0.6
    y = c * x + math.sqrt(1 - c**2) * z
    drawn = (torch.tanh(math.sqrt(variance) * x) * torch.tanh(math.sqrt(variance) * y)).mean()
    moments = theory._Moments.of(theory._checked(torch.tanh), variance)
    assert float(moments.covariance(c)) == pytest.approx(float(drawn), abs=4 * 0.6 / math.sqrt(400_000))


def test_a_large_network_fluctuates_as_the_theory_says(generator):
    n, g = 400, 2.0
    model = ctrnn.CTRNN(n, 0)
    with torch.no_grad():
        model.W_rec.copy_(g * torch.randn(n, n, generator=generator) / math.sqrt(n))
    run = ctrnn.integrate(model, None, torch.randn(n, generator=generator), t_span=(0.0, 240.0), dt=0.1).xs[400:]
    assert float(run.detach().square().mean()) == pytest.approx(analysis.dynamic_mean_field(g).variance, rel=0.1)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="g = -1 must be"):
        analysis.dynamic_mean_field(-1)
    with pytest.raises(ValueError, match="odd, bounded and of slope 1"):
        analysis.dynamic_mean_field(2.0, activation=torch.relu)
    with pytest.raises(ValueError, match="odd, bounded and of slope 1"):
        analysis.dynamic_mean_field(2.0, activation=lambda x: x)
