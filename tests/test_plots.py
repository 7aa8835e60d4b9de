"""Plot functions draw the data they are given on the axes they are given."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ctrnn import plots


@pytest.fixture
def ax():
    return Figure().subplots()


def test_trajectories_are_one_line_each_with_the_data_given(ax):
    xs = np.random.default_rng(0).normal(size=(7, 3, 2))
    assert plots.trajectories(ax, xs) is ax
    assert len(ax.lines) == 3
    assert np.array_equal(ax.lines[1].get_xydata(), xs[:, 1])


def test_stable_points_are_black_and_unstable_ones_red_crosses(ax):
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    plots.points(ax, x, torch.tensor([True, False, False]))
    stable, unstable = ax.collections
    assert np.array_equal(stable.get_offsets(), [[0, 1]])
    assert np.array_equal(unstable.get_offsets(), [[2, 3], [4, 5]])
    assert [text.get_text() for text in ax.legend().get_texts()] == ["stable (1)", "saddles (2)"]


def test_points_go_into_three_dimensions_as_well():
    ax = Figure().add_subplot(projection="3d")
    plots.points(ax, np.zeros((2, 3)), np.array([True, False]))
    plots.trajectories(ax, np.zeros((5, 3)))
    assert len(ax.collections) == 2
    assert len(ax.lines) == 1


@pytest.mark.parametrize(("kind", "unstable"), [("map", [1.5j, -1.1]), ("flow", [0.2, 0.0])])
def test_a_spectrum_marks_what_lies_beyond_the_boundary_of_its_kind(ax, kind, unstable):
    inside = np.array([-0.5 + 0.1j, -0.9])
    plots.spectrum(ax, np.concatenate([inside, unstable]), kind)
    calm, growing = ax.collections
    assert np.allclose(calm.get_offsets(), np.stack([inside.real, inside.imag], -1))
    assert np.allclose(growing.get_offsets(), np.stack([np.real(unstable), np.imag(unstable)], -1))


def test_channels_are_stacked_downwards(ax):
    values = np.ones((4, 3))
    plots.stacked(ax, np.arange(4), values, color="k", gap=2.0)
    assert [float(line.get_ydata()[0]) for line in ax.lines] == [1.0, -1.0, -3.0]


def test_outputs_are_drawn_over_their_targets(ax):
    plots.outputs(ax, np.arange(4), np.zeros((4, 2)), np.ones((4, 2)), names=["a", "b"])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]
    assert len(ax.lines) == 4


def test_convergence_is_drawn_on_logarithmic_axes(ax):
    plots.convergence(ax, [0.1, 0.01], [1e-2, 1e-4], label="Euler")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_the_style_is_left_behind_at_the_door():
    before = dict(mpl.rcParams)
    with plots.style():
        assert mpl.rcParams["font.size"] == 8
    assert dict(mpl.rcParams) == before


def test_a_vector_field_draws_stream_lines(ax):
    y, x = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9), indexing="ij")
    plots.vector_field(ax, (x[0], y[:, 0]), np.stack([-y, x]))
    assert len(ax.collections) >= 1
