"""The phase plane as it is drawn."""

import pytest
import torch
from matplotlib.figure import Figure

from ctrnn import analysis, plots


@pytest.fixture
def ax():
    return Figure().subplots()


def test_equilibria_are_named_by_type_and_nullclines_drawn_where_they_are(ax):
    plane = analysis.phase_plane(lambda x: x + x * (1 - x) / 2, torch.zeros(2), (-0.5, 1.5), (-0.5, 1.5))
    assert plots.phase_plane(ax, plane) is ax
    names = [text.get_text() for text in ax.legend().get_texts()]
    assert {"stable node (1)", "unstable node (1)", "saddle (2)", "nullcline of unit 1"} <= set(names)
    assert len(ax.lines) == len(plane.nullclines[0]) + len(plane.nullclines[1])
    assert (ax.lines[0].get_xydata() == plane.nullclines[0][0].numpy()).all()


def test_equilibria_stand_in_the_coordinates_of_the_plane(ax):
    plane = analysis.phase_plane(lambda x: x / 2, torch.tensor([0.25, -0.25]), (-1, 1), (-1, 1))
    plots.phase_plane(ax, plane)
    offsets = [c.get_offsets() for c in ax.collections if str(c.get_label()).startswith("stable")]
    assert offsets[0].tolist() == [pytest.approx([-0.25, 0.25])]


def test_a_slice_says_that_it_is_one(ax):
    turn = lambda x: x + torch.stack([-x[..., 1], x[..., 0] + 0.1, 1 + 0 * x[..., 0]], -1)
    plane = analysis.phase_plane(turn, torch.zeros(3), (-1, 1), (-1, 1), directions=torch.eye(3)[:2])
    plots.phase_plane(ax, plane)
    assert ax.get_title().startswith("slice: ")
