"""Subspaces, autocorrelation times and rhythms against what is known exactly."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

import ctrnn
from ctrnn import analysis
from tests.test_continuation import two_neurons


def test_the_axes_are_scikit_learns_and_directions_are_projected_without_the_mean(generator):
    xs = torch.randn(30, 4, 6, generator=generator) @ torch.randn(6, 6, generator=generator) + 3.0
    found = analysis.principal_axes(xs, 2)
    theirs = PCA(2).fit_transform(xs.flatten(0, 1).numpy())
    torch.testing.assert_close(found.project(xs).flatten(0, 1), torch.from_numpy(theirs))
    torch.testing.assert_close(found.project_directions(xs - found.mean), found.project(xs))
    assert float(found.explained.sum()) < 1.0
    assert float(analysis.principal_axes(xs, 6).explained.sum()) == pytest.approx(1.0)


def test_finished_samples_and_nan_do_not_count(generator):
    xs = torch.randn(20, 3, 4, generator=generator)
    mask = torch.ones(20, 3, dtype=torch.bool)
    mask[10:, 1] = False
    spoilt = xs.clone()
    spoilt[10:, 1] = 1e6
    assert not torch.allclose(analysis.principal_axes(spoilt).axes, analysis.principal_axes(xs).axes)
    masked = analysis.principal_axes(spoilt, mask=mask)
    spoilt[10:, 1] = torch.nan
    torch.testing.assert_close(masked.axes, analysis.principal_axes(spoilt).axes)


def test_states_of_parts_are_ravelled_side_by_side(generator):
    model = ctrnn.LSTM(3, 2, generator=generator)
    run = ctrnn.integrate(model, torch.randn(9, 5, 2, generator=generator), dt=1.0)
    assert analysis.ravelled(run.xs).shape == (9, 5, 6)
    assert analysis.principal_axes(run.xs, 3).axes.shape == (3, 6)


def test_the_participation_ratio_counts_the_directions_that_are_filled(generator):
    xs = torch.randn(40_000, 5, generator=generator)
    assert analysis.participation_ratio(xs) == pytest.approx(5.0, abs=0.02)
    assert analysis.participation_ratio(xs * torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])) == pytest.approx(3.0, abs=0.02)
    assert analysis.participation_ratio(xs[:, :1] * torch.ones(5)) == pytest.approx(1.0)
    assert math.isnan(analysis.participation_ratio(torch.ones(4, 2)))


def test_speed_is_that_of_the_flow_or_of_the_step(generator):
    model = ctrnn.GRU(4, 2, generator=generator)
    us = torch.randn(6, 3, 2, generator=generator)
    run = ctrnn.integrate(model, us, dt=1.0)
    flow = analysis.speed(model, run.xs, us)
    step = analysis.speed(ctrnn.Step(model, ctrnn.Euler(), dt=1.0), run.xs, us)
    torch.testing.assert_close(flow, step)  # tau = dt = 1
    assert flow.shape == (6, 3)
    after = torch.cat([run.xs[1:]]) - run.xs[:-1]
    torch.testing.assert_close(analysis.speed(model, run.xs[:-1], us[1:]), after.norm(dim=-1).detach())


def test_an_ornstein_uhlenbeck_process_remembers_for_its_tau():
    generator = torch.Generator().manual_seed(0)
    taus, dt = torch.tensor([0.5, 2.0, 8.0]), 0.1
    decay = torch.exp(-dt / taus)
    x, rows = torch.randn(400, 3, generator=generator), []
    noise = torch.randn(2000, 400, 3, generator=generator)
    for k in range(2000):
        x = decay * x + (1 - decay**2).sqrt() * noise[k]
        rows.append(x)
    found = analysis.timescales(torch.stack(rows), dt, groups={"fast": slice(0, 1), "slow": slice(1, 3)}, longest=40.0)
    torch.testing.assert_close(found.units, taus, rtol=0.05, atol=0)
    assert found.groups["fast"] == pytest.approx(0.5, rel=0.05)
    assert 2.0 < found.groups["slow"] < 8.0
    assert found.autocorrelation[0].tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_the_time_of_an_exponential_correlation_is_read_exactly():
    from ctrnn.analysis.timescales import _fall

    lags = torch.arange(50.0)[:, None]
    torch.testing.assert_close(_fall(torch.exp(-lags / torch.tensor([0.3, 3.7, 11.0]))), torch.tensor([0.3, 3.7, 11.0]))
    assert math.isnan(float(_fall(torch.exp(-lags / 80.0))[0]))


def test_a_unit_that_stands_still_has_no_timescale(generator):
    xs = torch.randn(100, 2, generator=generator) * torch.tensor([1.0, 0.0])
    assert torch.isnan(analysis.timescales(xs, 1.0).units).tolist() == [False, True]


def test_period_and_phase_of_a_sine_are_exact():
    dt = 0.1
    ts = dt * torch.arange(2000)
    found = analysis.rhythm(torch.sin(2 * math.pi * ts / 7.3 - 1.0), dt, transient=5.0)
    assert found.period == pytest.approx(7.3, abs=1e-4)
    assert found.regular
    phase = (2 * math.pi * ts / 7.3 - 1.0) % (2 * math.pi)
    known = torch.isfinite(found.phase)
    assert int(known.sum()) > 1800
    apart = torch.remainder(found.phase[known] - phase[known] + math.pi, 2 * math.pi) - math.pi
    assert float(apart.abs().max()) < 1e-3
    assert bool(torch.isnan(found.phase[:50]).all())


def test_oscillators_have_the_periods_that_integration_gives():
    model, family = two_neurons()
    with torch.no_grad():
        for name, value in family(torch.tensor(4.5)).items():
            model.get_parameter(name).copy_(value)
    how = {"dt": 0.1, "solver": ctrnn.RK4()}
    beer = ctrnn.integrate(model, None, torch.tensor([4.0, 1.0]), t_span=(0.0, 300.0), **how).xs
    assert analysis.rhythm(beer[:, 0], 0.1, transient=150.0).period == pytest.approx(28.9999, abs=1e-3)
    van_der_pol = ctrnn.integrate(ctrnn.VanDerPol(1.0), t_span=(0.0, 60.0), **how).xs
    assert analysis.rhythm(van_der_pol[:, 0], 0.1, transient=30.0).period == pytest.approx(6.663287, abs=5e-4)


def test_what_is_no_rhythm_says_so(generator):
    still = analysis.rhythm(torch.ones(100), 0.1)
    assert math.isnan(still.period)
    assert not still.regular
    noise = analysis.rhythm(torch.randn(3000, generator=generator), 0.1)
    assert not noise.regular
    assert not analysis.rhythm(torch.linspace(0, 1, 100), 0.1).regular


def test_noise_at_a_crossing_is_not_counted(generator):
    ts = 0.01 * torch.arange(5000)
    noisy = torch.sin(2 * math.pi * ts / 5) + 0.02 * torch.randn(5000, generator=generator)
    assert analysis.rhythm(noisy, 0.01).period == pytest.approx(5.0, rel=0.01)


@pytest.fixture(scope="module")
def lstm_run():
    generator = torch.Generator().manual_seed(0)
    model = ctrnn.models.LSTM(3, 2, generator=generator).double()
    return ctrnn.integrate(model, torch.randn(200, 4, 2, generator=generator, dtype=torch.float64), dt=1.0).xs


@pytest.mark.parametrize(
    "call",
    [
        lambda xs: analysis.timescales(xs, 0.5, groups={"h": slice(0, 3)}).units,
        lambda xs: analysis.autocorrelation(xs, 9),
        lambda xs: analysis.delay_embedded(xs, 3),
        lambda xs: analysis.linear_dynamics(xs, 4).A,
        lambda xs: analysis.principal_axes(xs).axes,
    ],
)
def test_states_of_parts_are_taken_side_by_side(call, lstm_run):
    side_by_side = torch.cat([lstm_run.h, lstm_run.c], -1)
    torch.testing.assert_close(call(lstm_run), call(side_by_side), rtol=1e-10, atol=1e-12)  # LAPACK rounds by alignment


def test_what_does_not_move_fills_no_dimension():
    assert math.isnan(analysis.participation_ratio(torch.full((9, 3), 0.1)))


def test_arrays_and_states_of_parts_are_no_signals(lstm_run):
    with pytest.raises(TypeError, match=r"got LSTMState: .* analysis\.ravelled\(xs\)\[:, 0\]"):
        analysis.rhythm(lstm_run, 1.0)
    for call in (analysis.principal_axes, analysis.delay_embedded, analysis.visited_states):
        with pytest.raises(TypeError, match=r"got ndarray: convert it with torch\.as_tensor"):
            call(np.zeros((9, 3)), 2)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: analysis.principal_axes(torch.full((5, 3), 0.1), 2), "all 5 states that count are the same"),
        (lambda: analysis.principal_axes(torch.ones(5, 3), 4), "span at most 3"),
        (lambda: analysis.principal_axes(torch.full((5, 3), torch.nan)), "0 states count"),
        (lambda: analysis.principal_axes(torch.ones(5, 2, 3), mask=torch.ones(5, dtype=torch.bool)), "mask must be"),
        (lambda: analysis.timescales(torch.ones(5, 3), 1.0, longest=9.0), "take a longer trajectory"),
        (lambda: analysis.autocorrelation(torch.rand(9), 2), r"one unit is xs\[:, None\]"),
        (lambda: analysis.timescales(torch.ones(5, 3), 0.0), "dt = 0"),
        (lambda: analysis.timescales(torch.rand(9, 3), 1.0, groups={"none": slice(3, 3)}), "'none' has no units"),
        (lambda: analysis.rhythm(torch.ones(5, 2), 0.1), "one coordinate"),
        (lambda: analysis.rhythm(torch.ones(9), 0.1, transient=5.0), "0 samples remain"),
    ],
)
def test_wrong_arguments_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
