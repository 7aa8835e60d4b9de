"""Plots of Lyapunov exponents draw what they are given."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import ctrnn
from ctrnn import analysis, plots


@pytest.fixture
def ax():
    return Figure().subplots()


def test_exponents_stand_at_i_over_n_above_a_dotted_zero(ax):
    assert plots.exponents(ax, torch.tensor([0.5, 0.0, -1.0, -2.0]), label="g = 4") is ax
    zero, line = ax.lines
    assert np.array_equal(line.get_xydata(), [[0.25, 0.5], [0.5, 0.0], [0.75, -1.0], [1.0, -2.0]])
    assert zero.get_linestyle() == ":"
    assert set(zero.get_ydata()) == {0}
    assert ax.get_xlabel() == "$i\\,/\\,N$"


def test_the_leading_exponents_of_a_larger_network_keep_their_share(ax):
    plots.exponents(ax, np.array([0.5, 0.1]), size=200)
    assert ax.lines[1].get_xdata().tolist() == [1 / 200, 2 / 200]


def test_running_estimates_end_in_a_band_of_two_standard_errors(ax):
    henon = ctrnn.Step(ctrnn.Henon(), ctrnn.Iterate(), dt=1.0)
    found = analysis.lyapunov_spectrum(henon, ctrnn.Henon().initial_state(), duration=64)
    assert plots.running_exponents(ax, found.ts, found.history, found.standard_error) is ax
    first, second = (line for line in ax.lines if len(line.get_xdata()) == 64)
    assert np.array_equal(first.get_ydata(), found.history[:, 0])
    assert np.array_equal(second.get_ydata(), found.history[:, 1])
    assert [text.get_text() for text in ax.legend().get_texts()] == ["$\\lambda_{1}$", "$\\lambda_{2}$"]
    for band, value, error in zip(ax.collections, found.exponents, found.standard_error, strict=True):
        low, high = band.get_datalim(ax.transData).intervaly
        assert (low, high) == pytest.approx((float(value - 2 * error), float(value + 2 * error)))


def test_more_than_one_run_is_refused_in_words(ax):
    with pytest.raises(ValueError, match="pick a row"):
        plots.exponents(ax, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="as ts has"):
        plots.running_exponents(ax, np.zeros(4), np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"standard_error must hold 2"):
        plots.running_exponents(ax, np.zeros(4), np.zeros((4, 2)), np.zeros(3))
