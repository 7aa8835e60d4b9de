"""Basins and separatrices against fields whose basins are known."""

import pytest
import torch
from matplotlib.figure import Figure

from ctrnn import analysis, plots
from ctrnn.dynamics import Model
from ctrnn.models import PaperGRU
from ctrnn.solvers import Euler, Step

GRID = analysis.plane_grid((-2, 2), (-1, 1), 8)


class Plain(Model):
    n_in = 0

    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self, t, x, u):
        return torch.stack(self.field(x[..., 0], x[..., 1]), -1)

    def initial_state(self, *batch):
        return torch.zeros(*batch, 2)


def two_wells():
    return Plain(lambda x, y: (x - x**3, -y))


def ring():
    """r' = r (1 - r^2), with one turn in 2 pi: the unit circle attracts all but the origin."""
    return Plain(lambda x, y: (x - y - x * (x * x + y * y), x + y - y * (x * x + y * y)))


def test_the_basins_of_two_wells_are_half_planes():
    found = analysis.basins(two_wells(), GRID, duration=20.0)
    assert len(found.attractors) == 2
    where = torch.stack([found.attractors[k][0] for k in found.label.flatten()]).reshape(GRID.shape)
    assert (where - torch.stack([GRID[..., 0].sign(), 0 * GRID[..., 1]], -1)).abs().max() < 1e-12
    assert found.share.tolist() == [0.5, 0.5]


def test_a_start_on_the_separatrix_or_short_of_time_is_undecided():
    wells = [torch.tensor([-1.0, 0]), torch.tensor([1.0, 0])]
    starts = torch.tensor([[0.0, 0.5], [0.1, 0.5], [-0.1, 0.5]])
    assert analysis.basins(two_wells(), starts, wells, duration=20.0).label.tolist() == [-1, 1, 0]
    assert analysis.basins(two_wells(), starts, wells, duration=2.0).label.tolist() == [-1, -1, -1]


def test_a_cycle_has_a_basin_of_its_own_and_is_undecided_where_it_is_not_named():
    angle = torch.linspace(0, 6.2831853, 2001)[:-1]
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    assert (analysis.basins(ring(), GRID, [circle], duration=20.0, within=0.002).label == 0).all()
    assert (analysis.basins(ring(), GRID, duration=20.0).label == -1).all()


def test_a_map_is_iterated_and_a_step_takes_its_dt():
    squared = lambda x: x.square()  # within the unit square to 0, outside to infinity
    found = analysis.basins(squared, GRID, [torch.zeros(2)], duration=30)
    assert torch.equal(found.label == 0, (GRID.abs() < 1).all(-1))
    fixed = Step(two_wells(), Euler(), dt=0.5)
    assert analysis.basins(fixed, GRID * 0.5, duration=40.0).share.tolist() == [0.5, 0.5]


def test_the_separatrix_of_two_wells_is_the_axis_and_the_other_manifold_joins_the_wells():
    found = analysis.manifolds(two_wells(), torch.zeros(2), duration=30.0, reach=3.0)
    assert found.eigenvalues.tolist() == [pytest.approx(-1), pytest.approx(1)]
    for line in found.stable:
        assert line[:, 0].abs().max() < 1e-12
        assert line[-1].norm() == pytest.approx(3.0)  # the branch ends where it leaves
    ends = sorted(line[-1].tolist() for line in found.unstable)
    assert ends == [pytest.approx([-1, 0], abs=1e-9), pytest.approx([1, 0], abs=1e-9)]


def test_the_manifold_of_a_bent_saddle_is_the_known_parabola():
    # x' = x, y' = -y + x^2: the unstable manifold of the origin is y = x^2 / 3.
    found = analysis.manifolds(Plain(lambda x, y: (x, -y + x * x)), torch.zeros(2), duration=20.0, reach=2.0)
    for line in found.unstable:
        assert (line[:, 1] - line[:, 0] ** 2 / 3).abs().max() < 1e-9


def test_the_network_is_left_as_it_was():
    model = PaperGRU(2, 1, generator=torch.Generator().manual_seed(0)).float()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = analysis.basins(model, GRID.float(), u=torch.ones(1), duration=200.0)
    assert found.share.sum() == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_makes_no_sense_is_named():
    with pytest.raises(ValueError, match="must be positive"):
        analysis.basins(two_wells(), GRID, duration=0)
    with pytest.raises(ValueError, match="states of 2 numbers"):
        analysis.basins(two_wells(), GRID, [torch.zeros(3)], duration=1.0)
    with pytest.raises(ValueError, match="is empty"):
        analysis.plane_grid((1, 1), (0, 1), 5)
    with pytest.raises(ValueError, match="no saddle"):
        analysis.manifolds(two_wells(), torch.tensor([1.0, 0.0]), duration=1.0)
    with pytest.raises(ValueError, match="0 < offset < reach"):
        analysis.manifolds(two_wells(), torch.zeros(2), duration=1.0, reach=0)
    with pytest.raises(ValueError, match=r"\(y, x, 2\)"):
        plots.basins(Figure().subplots(), analysis.basins(two_wells(), GRID[0], duration=1.0))


def test_basins_are_drawn_where_they_are_and_manifolds_named_once():
    ax = Figure().subplots()
    found = analysis.basins(two_wells(), GRID, duration=20.0)
    assert plots.basins(ax, found) is ax
    drawn = ax.collections[0].get_array()
    assert drawn.reshape(8, 8).tolist() == found.label.tolist()
    paths = analysis.manifolds(two_wells(), torch.zeros(2), duration=20.0)
    assert plots.manifolds(plots.manifolds(ax, paths), paths) is ax
    assert ax.get_legend_handles_labels()[1] == ["stable manifold", "unstable manifold"]
    assert ax.get_xlim() == (-2, 2)


def test_manifolds_of_a_network_with_parameters_need_no_gradient():
    model = PaperGRU(2, 0).double()
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
        model.W_rec[4, 0] = 4.0  # the first unit excites itself: a saddle at 0
    found = analysis.manifolds(model, torch.zeros(2), duration=100.0)
    assert found.eigenvalues.tolist() == [pytest.approx(-0.5), pytest.approx(0.5)]
    assert not found.unstable[0].requires_grad
