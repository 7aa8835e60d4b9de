"""Plot functions draw the data they are given on the axes they are given."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ctrnn import plots
from ctrnn.models import LSTM


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


def test_saddles_are_told_apart_by_the_number_of_their_unstable_directions(ax):
    x = np.arange(10.0).reshape(5, 2)
    plots.points(ax, x, [True, False, False, False, False], unstable=[0, 1, 2, 1, 0])
    names = [text.get_text() for text in ax.legend().get_texts()]
    assert names == [
        "stable (1)",
        "0 unstable directions (1)",
        "1 unstable direction (2)",
        "2 unstable directions (1)",
    ]
    assert np.array_equal(ax.collections[2].get_offsets(), x[[1, 3]])


def test_points_without_a_flag_each_are_refused(ax):
    with pytest.raises(ValueError, match="3 points need a flag"):
        plots.points(ax, np.zeros((3, 2)), [True])


def test_mode_lines_run_along_what_grows_as_far_as_the_eigenvalue_says(ax):
    x = np.array([[1.0, 2.0]])
    directions = np.array([[[1.0, 0.0], [0.0, 1.0]]], dtype=complex)  # columns
    plots.mode_lines(ax, x, directions, np.array([[1.5, 0.5]], dtype=complex), "map", scale=2.0)
    (line,) = ax.lines
    assert np.allclose(line.get_xydata(), [[-2.0, 2.0], [4.0, 2.0]])


def test_the_mode_lines_of_a_growing_spiral_span_its_plane(ax):
    values, vectors = np.linalg.eig(np.array([[0.1, -2.0], [1.0, 0.1]]))
    plots.mode_lines(ax, np.zeros((1, 2)), vectors[None], values[None], "flow")
    ends = np.stack([line.get_xydata()[1] for line in ax.lines])
    assert np.linalg.matrix_rank(ends, tol=1e-6) == 2


def test_decaying_modes_have_no_lines(ax):
    plots.mode_lines(ax, np.zeros((1, 2)), np.eye(2)[None] + 0j, np.array([[-0.1, -3.0 + 0j]]), "flow")
    assert len(ax.lines) == 0


def test_a_histogram_of_q_counts_every_start_and_says_what_was_not_finite(ax):
    plots.q_histogram(ax, [0.0, 2e-32, 3e-7, 4e-7, np.inf], limit=1e-20)
    heights = {round(bar.get_x()): round(bar.get_height()) for bar in ax.patches if bar.get_height()}
    assert heights == {-33: 1, -32: 1, -7: 2}
    assert "1 not finite" in ax.get_xlabel()
    assert ax.lines[0].get_xdata()[0] == pytest.approx(-20)


def test_a_spectrum_of_no_known_kind_is_refused(ax):
    with pytest.raises(ValueError, match=r"'flow'.*or 'map'"):
        plots.spectrum(ax, [0.5], "circle")


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


def test_tensors_with_gradients_are_drawn_as_they_are(ax):
    xs = torch.arange(12.0).reshape(3, 2, 2).requires_grad_()
    plots.trajectories(ax, xs)
    plots.points(ax, xs[0], torch.tensor([True, False]))
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[2, 3], [6, 7], [10, 11]])
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[0, 1]])


def test_paths_and_points_have_as_many_coordinates_as_the_axes(ax):
    space = Figure().add_subplot(projection="3d")
    for axes, x in ((ax, torch.zeros(5, 3)), (space, torch.zeros(5, 2)), (ax, torch.zeros(2))):
        with pytest.raises(ValueError, match=r"these axes have [23] coordinates, .* project states first"):
            plots.trajectories(axes, x)
        with pytest.raises(ValueError, match=r"these axes have [23] coordinates, .* project states first"):
            plots.points(axes, x, torch.ones(len(x), dtype=torch.bool))


def test_no_variance_has_no_share(ax):
    with pytest.raises(ValueError, match="nothing moves"):
        plots.variance_explained(ax, torch.zeros(3))


def test_parts_of_a_state_are_sent_to_be_joined_first(ax):
    states = LSTM(3, 1).initial_state(5)
    for draw in (lambda: plots.trajectories(ax, states), lambda: plots.points(ax, states, [True])):
        with pytest.raises(TypeError, match=r"tuple of 2 parts.*analysis\.ravelled"):
            draw()


def test_directions_that_do_not_fit_their_points_are_refused(ax):
    x, values = np.zeros((2, 2)), np.ones((2, 3))
    for directions, some in (
        (np.ones((2, 3, 3)), values),
        (np.ones((2, 2, 3)), values[:, :2]),
        (np.ones((1, 2, 3)), values),
        (np.ones((2, 2)), values),
    ):
        with pytest.raises(ValueError, match=r"2 points in 2 coordinates need directions of shape \(2, 2, mode\)"):
            plots.mode_lines(ax, x, directions, some, "flow")
    with pytest.raises(ValueError, match="these axes have 2 coordinates"):
        plots.mode_lines(ax, np.zeros((2, 3)), np.ones((2, 3, 3)), values, "flow")


@pytest.mark.parametrize("limit", [0.0, -1e-3, np.nan])
def test_a_limit_that_has_no_logarithm_is_refused(ax, limit):
    with pytest.raises(ValueError, match=r"limit = .* positive"):
        plots.q_histogram(ax, [1e-3], limit=limit)


def test_paths_name_the_axes_that_have_no_name_yet(ax):
    space = Figure().add_subplot(projection="3d")
    ax.set_ylabel("rate")
    plots.trajectories(ax, np.zeros((3, 2)))
    plots.trajectories(space, np.zeros((3, 3)))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$x_1$", "rate")
    assert (space.get_xlabel(), space.get_ylabel(), space.get_zlabel()) == ("$x_1$", "$x_2$", "$x_3$")


def test_scores_with_gradients_are_drawn_as_they_are(ax):
    scores = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).requires_grad_()
    plots.by_seed(ax, {"a": scores[0]}, ["k"])
    plots.sweep(ax, [0, 1], scores, label="b", color="k")
    plots.heat(ax, scores, 0.5)
    assert list(ax.lines[0].get_xdata()) == [1.5, 1.5]
    assert ax.lines[-1].get_ydata().tolist() == [2.0, 3.0]
    assert ax.images[0].get_array().tolist() == [[1.0, 3.0], [2.0, 4.0]]
