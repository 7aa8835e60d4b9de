"""Bifurcation diagrams show what the branches hold."""

from typing import get_args

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ctrnn import analysis, plots
from ctrnn.analysis import CycleBranch
from ctrnn.analysis.continuation import Point
from ctrnn.plots.bifurcation import MARKERS
from ctrnn.plots.style import QUIET
from tests.test_continuation import two_neurons


@pytest.fixture(scope="module")
def found():
    torch.set_default_dtype(torch.float64)
    model, family = two_neurons()
    branch = analysis.continue_equilibria(model, torch.tensor([2.0, 1.0]), family, (3.0, 4.6))
    return branch, analysis.continue_cycles(model, branch.points[0], family, (3.0, 4.4))


def test_stable_stretches_are_solid_and_unstable_ones_dashed_and_grey_without_a_gap(found):
    branch, _ = found
    ax = plots.equilibria(Figure().subplots(), branch, 1)
    stable, unstable, hopf = ax.lines
    assert (stable.get_linestyle(), unstable.get_linestyle(), unstable.get_color()) == ("-", "--", QUIET)
    assert stable.get_xdata()[-1] == unstable.get_xdata()[0]
    np.testing.assert_array_equal(
        np.concatenate([stable.get_ydata()[:-1], unstable.get_ydata()]), branch.x[:, 1].numpy()
    )
    assert hopf.get_xdata() == pytest.approx([4.0])
    assert hopf.get_ydata() == pytest.approx([1.5])
    assert ax.get_legend_handles_labels()[1] == ["Hopf"]


def test_a_cycle_is_drawn_by_its_greatest_and_least_value(found):
    _, branch = found
    ax = plots.cycles(Figure().subplots(), branch, label="cycle")
    top, bottom = ax.lines
    np.testing.assert_array_equal(top.get_ydata(), branch.orbits[:, :, 0].amax(1).numpy())
    np.testing.assert_array_equal(bottom.get_ydata(), branch.orbits[:, :, 0].amin(1).numpy())
    assert ax.get_legend_handles_labels()[1] == ["cycle"]


def test_the_period_is_drawn_along_the_branch(found):
    _, branch = found
    (line,) = plots.period(Figure().subplots(), branch).lines
    np.testing.assert_array_equal(line.get_ydata(), branch.period.numpy())


def test_a_coordinate_that_does_not_exist_is_named(found):
    with pytest.raises(ValueError, match=r"unit = 2: .* coordinates 0 to 1"):
        plots.equilibria(Figure().subplots(), found[0], 2)


def test_axes_without_a_name_get_one_and_names_given_before_stay(found):
    equilibria, cycles = found
    ax = plots.equilibria(Figure().subplots(), equilibria, -1)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("parameter", "$x_{2}$")
    ax = Figure().subplots()
    ax.set_xlabel("$w$")
    plots.cycles(ax, cycles)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$w$", "$x_{1}$")
    assert plots.period(Figure().subplots(), cycles).get_ylabel() == "period / $\\tau$"


def test_a_branch_of_another_kind_is_sent_to_where_it_is_drawn(found):
    equilibria, cycles = found
    ax = Figure().subplots()
    for draw in (plots.cycles, plots.period):
        with pytest.raises(TypeError, match=r"draws a CycleBranch.*got Branch: plots\.equilibria draws that"):
            draw(ax, equilibria)
    with pytest.raises(TypeError, match=r"draws a Branch.*got CycleBranch: plots\.cycles draws that"):
        plots.equilibria(ax, cycles)
    with pytest.raises(TypeError, match=r"continue_cycles returns, got list\."):
        plots.cycles(ax, [1.0])


def test_every_kind_of_special_point_has_a_marker_and_a_name_of_its_own():
    of_cycles = get_args(CycleBranch.__annotations__["points"])[0]
    assert set(MARKERS) == {*get_args(Point), *get_args(of_cycles)}
    assert len({name for _, _, name in MARKERS.values()}) == len(MARKERS)
    for kinds in (get_args(Point), get_args(of_cycles)):
        assert len({MARKERS[kind][:2] for kind in kinds}) == len(kinds)
