"""The phase plane as it is drawn."""

import pytest
import torch
from matplotlib.figure import Figure

from ctrnn import analysis, plots
from ctrnn.analysis import Basins, Manifolds


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


def test_axes_are_named_by_what_they_are_and_names_given_before_stay(ax):
    plane = analysis.phase_plane(lambda x: x / 2, torch.zeros(2), (-1, 1), (-1, 1))
    ax.set_xlabel("$h_1$")
    plots.phase_plane(ax, plane)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$h_1$", "$x_2$")
    beside = Figure().subplots()
    plots.phase_plane(beside, plane._replace(is_slice=True, equilibria=None, types=[]))
    assert (beside.get_xlabel(), beside.get_ylabel()) == ("along direction 1", "along direction 2")
    aside = analysis.phase_plane(lambda x: x / 2, torch.tensor([0.5, 0.0]), (-1, 1), (-1, 1))
    assert plots.phase_plane(Figure().subplots(), aside).get_xlabel() == "$x_1$ from the origin"


def test_results_with_gradients_are_drawn(ax):
    plane = analysis.phase_plane(lambda x: x / 2, torch.zeros(2), (-1, 1), (-1, 1))
    lines = tuple([line.requires_grad_() for line in some] for some in plane.nullclines)
    axes = {name: getattr(plane, name).requires_grad_() for name in ("x", "y", "velocity", "out_of_plane", "origin")}
    equilibria = plane.equilibria._replace(x=plane.equilibria.x.requires_grad_())
    plots.phase_plane(ax, plane._replace(nullclines=lines, equilibria=equilibria, is_slice=True, **axes))
    assert (ax.lines[0].get_xdata() == lines[0][0].detach().numpy()[:, 0]).all()
    starts = analysis.plane_grid((-1, 1), (-2, 2), 5).requires_grad_()
    plots.basins(ax, Basins(starts, torch.zeros(5, 5, dtype=torch.long), starts, [], 1.0))
    assert ax.get_ylim() == (-2, 2)
    line = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).requires_grad_()
    plots.manifolds(ax, Manifolds(line[0], line[0], [line], [line]))
    assert ax.lines[-1].get_xdata().tolist() == [0, 1]
