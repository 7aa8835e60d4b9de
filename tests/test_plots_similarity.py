"""Distances and subspaces are drawn as they are."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ctrnn import analysis, plots


def test_a_matrix_of_distances_is_shown_by_group():
    distances = np.arange(16.0).reshape(4, 4)
    ax = plots.distance_matrix(Figure().subplots(), distances, ["a", "a", "b", "b"])
    np.testing.assert_array_equal(ax.images[0].get_array(), distances)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "b"]
    assert ax.get_xticks().tolist() == [0.5, 2.5]
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        plots.distance_matrix(Figure().subplots(), distances, ["a", "a", "b"])


def test_groups_have_one_colour_each():
    ax = plots.by_group(Figure().subplots(), np.random.default_rng(0).random((5, 2)), ["a", "b", "a", "b", "c"])
    assert [len(points.get_offsets()) for points in ax.collections] == [2, 2, 1]
    assert ax.get_legend_handles_labels()[1] == ["a", "b", "c"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_aspect()) == ("axis 1", "axis 2", 1.0)
    with pytest.raises(ValueError, match=r"places must be \(3, 2\)"):
        plots.by_group(Figure().subplots(), np.zeros((2, 2)), ["a", "b", "c"])


def test_a_path_is_coloured_piece_by_piece():
    path, values = np.random.default_rng(0).random((6, 2)), np.arange(6.0)
    ax = plots.coloured_path(Figure().subplots(), path, values, label="speed")
    np.testing.assert_allclose(ax.collections[0].get_array(), values[:-1] + 0.5)
    assert ax.collections[0].get_clim() == (0.0, 5.0)
    with pytest.raises(ValueError, match=r"path must be \(time, 2\)"):
        plots.coloured_path(Figure().subplots(), path, values[1:], label="speed")


def test_variance_and_autocorrelation_are_drawn_from_what_the_analysis_gives(generator):
    xs = torch.randn(400, 3, 4, generator=generator).cumsum(0)
    ax = plots.variance_explained(Figure().subplots(), analysis.principal_axes(xs, 2).variance)
    assert ax.lines[0].get_ydata()[-1] == pytest.approx(1.0)
    groups = {"left": slice(0, 2), "right": slice(2, 4)}
    found = analysis.timescales(xs, 0.1, groups=groups)
    ax = plots.autocorrelations(Figure().subplots(), found, groups)
    assert [label.split(",")[0] for label in ax.get_legend_handles_labels()[1]] == ["left", "right"]
