"""Branches of fixed points of maps against what is known on paper."""

import math

import pytest
import torch
from matplotlib.figure import Figure

import ctrnn
from ctrnn import _tree as tree
from ctrnn import analysis, plots
from ctrnn.analysis import BranchPoint, Flip, Fold, Hopf, NeimarkSacker
from ctrnn.models import GRU, LSTM
from tests.test_continuation import kinds, two_neurons


def test_the_logistic_map_flips_at_3():
    logistic = lambda x, r: r * x * (1 - x)
    branch = analysis.continue_equilibria(logistic, torch.tensor([0.5]), None, (2.0, 3.5))
    assert kinds(branch) == [Flip]
    assert branch.points[0].parameter == pytest.approx(3.0, abs=1e-9)
    assert float(branch.points[0].x) == pytest.approx(2 / 3, abs=1e-9)
    assert branch.kind == "map"
    torch.testing.assert_close(branch.eigenvalues[:, 0].real, 2 - branch.parameter)
    assert branch.stable.tolist() == (branch.parameter < 3).tolist()


def test_at_1_the_logistic_maps_other_branch_crosses():
    logistic = lambda x, r: r * x * (1 - x)
    zero = analysis.continue_equilibria(logistic, torch.tensor([0.0]), None, (0.5, 2.0))
    assert kinds(zero) == [BranchPoint]
    assert zero.points[0].parameter == pytest.approx(1.0, abs=1e-9)
    other = analysis.continue_equilibria(logistic, zero.points[0], None, (0.5, 2.0))
    torch.testing.assert_close(other.x[:, 0], 1 - 1 / other.parameter, atol=1e-9, rtol=0)


def test_henons_map_folds_and_flips_where_its_formulas_say():
    b = 0.3
    henon = lambda x, a: torch.stack([1 - a * x[..., 0] ** 2 + x[..., 1], b * x[..., 0]], -1)
    start = (b - 1 + math.sqrt((1 - b) ** 2 + 4 * 0.8)) / (2 * 0.8)
    branch = analysis.continue_equilibria(henon, torch.tensor([start, b * start]), None, (0.8, -0.5))
    assert kinds(branch) == [Flip, Fold]
    assert [p.parameter for p in branch.points] == pytest.approx([3 * (1 - b) ** 2 / 4, -((1 - b) ** 2) / 4], abs=1e-8)


def test_the_delayed_logistic_map_leaves_its_fixed_point_in_rounds_of_six():
    delayed = lambda x, a: torch.stack([a * x[..., 0] * (1 - x[..., 1]), x[..., 0]], -1)
    branch = analysis.continue_equilibria(delayed, torch.tensor([0.4, 0.4]), None, (1.6, 2.3))
    (point,) = branch.points
    assert isinstance(point, NeimarkSacker)
    assert point.parameter == pytest.approx(2.0, abs=1e-9)
    assert point.angle == pytest.approx(math.pi / 3, abs=1e-8)
    J = torch.tensor([[1.0, -1.0], [1.0, 0.0]], dtype=point.mode.dtype)
    torch.testing.assert_close(J @ point.mode, complex(math.cos(math.pi / 3), math.sin(math.pi / 3)) * point.mode)


def test_eulers_steps_of_two_neurons_leave_their_equilibrium_before_the_flow_does():
    model, family = two_neurons()
    dt = 0.2
    x0 = -family(torch.tensor(3.0))["theta"]
    step = ctrnn.Step(model, ctrnn.Euler(), dt=dt)
    (point,) = analysis.continue_equilibria(step, x0, family, (3.0, 5.0)).points
    (hopf,) = analysis.continue_equilibria(model, x0, family, (3.0, 5.0)).points
    # |1 + dt (w/4 - 1 + i/4)| = 1
    expected = 4 * (1 + (math.sqrt(1 - (dt / 4) ** 2) - 1) / dt)
    assert isinstance(point, NeimarkSacker)
    assert point.parameter == pytest.approx(expected, abs=1e-8)
    assert isinstance(hopf, Hopf)
    assert hopf.parameter == pytest.approx(4.0, abs=1e-9)
    assert point.parameter < hopf.parameter


@pytest.mark.parametrize("kind", [GRU, LSTM])
def test_a_gated_step_and_its_flow_have_one_branch(kind, generator):
    model = kind(3, 1, generator=generator)
    x0 = tree.map(torch.zeros_like, model.initial_state())
    name = "u[0]"
    step = ctrnn.Step(model, ctrnn.Euler(), dt=1.0)
    by_step = analysis.continue_equilibria(step, x0, name, (0.0, 1.0))
    by_flow = analysis.continue_equilibria(model, x0, name, (0.0, 1.0))
    torch.testing.assert_close(by_step.x[-1], by_flow.x[-1], atol=1e-8, rtol=0)
    assert (by_step.kind, by_flow.kind) == ("map", "flow")
    found = analysis.fixed_points(step, tree.unravel(by_step.x[-4:], x0, 0), torch.ones(1))
    assert float(torch.cdist(found.x, by_step.x[-1:]).min()) < 1e-8


def test_flips_are_drawn():
    branch = analysis.continue_equilibria(lambda x, r: r * x * (1 - x), torch.tensor([0.5]), None, (2.0, 3.5))
    ax = plots.equilibria(Figure().subplots(), branch)
    assert ax.get_legend_handles_labels()[1] == ["flip"]


def test_a_callable_takes_its_parameter_itself_and_a_network_names_one():
    with pytest.raises(ValueError, match="name the parameter"):
        analysis.continue_equilibria(ctrnn.VanDerPol(1.0), torch.zeros(2), None, (0.0, 1.0))
    with pytest.raises(ValueError, match=r"\(x, p\) -> x takes it itself"):
        analysis.continue_equilibria(lambda x, p: p * x, torch.zeros(1), "p", (0.0, 1.0))
