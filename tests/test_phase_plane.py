"""Phase planes against cases whose nullclines and equilibria are known."""

import pytest
import torch

from ctrnn import analysis
from ctrnn.dynamics import Model
from ctrnn.models import PaperGRU


class Plain(Model):
    n_in = 0

    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self, t, x, u):
        return torch.stack(self.field(x[..., 0], x[..., 1]), -1)

    def initial_state(self, *batch):
        return torch.zeros(*batch, 2)


ORIGIN = torch.zeros(2)


def test_nullclines_lie_on_the_zero_set_of_a_cubic():
    plane = analysis.phase_plane(Plain(lambda x, y: (x - x**3 - y, y)), ORIGIN, (-2, 2), (-1, 1), resolution=41)
    for line in plane.nullclines[0]:
        assert (line[:, 0] - line[:, 0] ** 3 - line[:, 1]).abs().max() < 1e-12


@pytest.mark.parametrize("height", [-1.0, 0.0, 0.013, 1.0])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_straight_nullcline_is_found_inside_and_on_either_edge(height, sign):
    plane = analysis.phase_plane(
        Plain(lambda x, y: (sign * (x - height), sign * (y - height))), ORIGIN, (-1, 1), (-1, 1)
    )
    for k in (0, 1):
        (line,) = plane.nullclines[k]
        assert (line[:, k] - height).abs().max() < 1e-12
        assert line[:, 1 - k].max() - line[:, 1 - k].min() == pytest.approx(2.0)


def test_the_double_well_has_a_saddle_between_two_foci():
    plane = analysis.phase_plane(Plain(lambda x, y: (y, x - x**3 - y)), ORIGIN, (-2, 2), (-2, 2))
    order = plane.equilibria.x[:, 0].argsort()
    assert torch.allclose(plane.equilibria.x[order, 0], torch.tensor([-1.0, 0.0, 1.0]))
    assert [plane.types[i] for i in order] == ["stable focus", "saddle", "stable focus"]


def test_types_follow_the_half_plane_of_flows_and_the_unit_circle_of_maps():
    pairs = torch.tensor([[-0.5, -2.0], [0.5, 2.0], [0.5j, -0.5j], [1 + 1j, 1 - 1j], [-0.5, 1.5]]).to(torch.complex128)
    assert analysis.equilibrium_types(pairs, "flow") == [
        "stable node",
        "unstable node",
        "centre",
        "unstable focus",
        "saddle",
    ]
    assert analysis.equilibrium_types(pairs, "map") == [
        "saddle (flip)",
        "saddle",
        "stable focus",
        "unstable focus",
        "saddle (flip)",
    ]


def test_equilibria_of_a_gru_have_index_sum_one():
    model = PaperGRU(2, 1, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        model.W_rec.mul_(6)
    plane = analysis.phase_plane(model, ORIGIN, (-1, 1), (-1, 1))
    assert sum(torch.linalg.det(plane.equilibria.jacobian).sign()) == 1  # the square is forward-invariant


def test_the_nullclines_of_a_map_are_where_a_coordinate_returns():
    plane = analysis.phase_plane(lambda x: x.square(), ORIGIN, (0.5, 1.5), (0.5, 1.5))
    (line,) = plane.nullclines[0]
    assert torch.allclose(line[:, 0], torch.ones(len(line)))
    assert plane.types == ["unstable node"]


def test_a_slice_says_how_fast_the_flow_leaves_it():
    plane = analysis.phase_plane(
        lambda x: x + torch.tensor([0.0, 0.0, 3.0]), torch.zeros(3), (-1, 1), (-1, 1), directions=torch.eye(3)[:2]
    )
    assert plane.is_slice
    assert plane.equilibria is None
    assert torch.allclose(plane.out_of_plane, torch.full_like(plane.out_of_plane, 3.0))


def test_wrong_planes_are_named():
    with pytest.raises(ValueError, match="is empty"):
        analysis.phase_plane(lambda x: x, ORIGIN, (1, 0), (0, 1))
    with pytest.raises(ValueError, match="two directions"):
        analysis.phase_plane(lambda x: x, torch.zeros(3), (0, 1), (0, 1))
    with pytest.raises(ValueError, match="parallel"):
        analysis.phase_plane(lambda x: x, torch.zeros(3), (0, 1), (0, 1), directions=torch.ones(2, 3))
