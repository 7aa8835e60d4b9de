"""Branches of equilibria against what is known on paper."""

import math

import numpy as np
import pytest
import torch

import ctrnn
from ctrnn import _tree as tree
from ctrnn import analysis
from ctrnn.analysis import BranchPoint, ContinuationError, Fold, Hopf, Stride
from ctrnn.models import CTRNN, BeerCTRNN


class Scalar(ctrnn.Model):
    """x' = fn(p, x): a field with one parameter p."""

    def __init__(self, fn, n=1):
        super().__init__()
        self.fn, self.n = fn, n
        self.p = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, t, x, u):
        return self.fn(self.p, x)

    def initial_state(self, *batch):
        return torch.zeros(*batch, self.n)


def two_neurons():
    """Beer's two neurons at centre crossing, as a family in the weight w of each to itself."""
    model = ctrnn.BeerCTRNN(2)

    def family(w):
        one = torch.ones_like(w)
        W = torch.stack([torch.stack([w, one]), torch.stack([-one, w])])
        return {"W_rec": W, "theta": -W.sum(1) / 2}

    return model, family


def kinds(branch):
    return [type(point) for point in branch.points]


def test_the_folds_of_one_neuron_lie_where_its_slope_is_one():
    model = ctrnn.BeerCTRNN(1, 1)
    with torch.no_grad():
        model.W_rec.fill_(6.0)
        model.theta.fill_(0.0)
        model.W_in.fill_(1.0)
    branch = analysis.continue_equilibria(model, torch.tensor([-6.0]), "u[0]", (-6.0, 1.0))
    assert kinds(branch) == [Fold, Fold]
    # sigma'(x) = s (1 - s) = 1 / w
    s = torch.tensor([0.5 - math.sqrt(0.25 - 1 / 6), 0.5 + math.sqrt(0.25 - 1 / 6)])
    x = torch.log(s / (1 - s))
    assert [point.parameter for point in branch.points] == pytest.approx((x - 6 * s).tolist(), abs=1e-9)
    assert [float(point.x) for point in branch.points] == pytest.approx(x.tolist(), abs=1e-4)
    assert float(branch.parameter[0]) == -6.0
    assert float(branch.parameter[-1]) == pytest.approx(1.0, abs=1e-12)
    inside = (branch.parameter > -3.4) & (branch.parameter < -2.6)
    assert 0 < int((inside & ~branch.stable).sum()) < int(inside.sum())
    residual = branch.x[:, 0] - 6 * torch.sigmoid(branch.x[:, 0]) - branch.parameter
    assert float(residual.abs().max()) < 1e-9


def test_two_neurons_at_centre_crossing_have_their_hopf_point_at_four():
    model, family = two_neurons()
    branch = analysis.continue_equilibria(model, -family(torch.tensor(3.0))["theta"], family, (3.0, 6.0))
    (hopf,) = branch.points
    assert isinstance(hopf, Hopf)
    assert hopf.parameter == pytest.approx(4.0, abs=1e-9)
    assert hopf.omega == pytest.approx(0.25, abs=1e-9)
    J = torch.tensor([[0.0, 0.25], [-0.25, 0.0]])
    torch.testing.assert_close(J.to(hopf.mode.dtype) @ hopf.mode, 0.25j * hopf.mode, atol=1e-8, rtol=0)
    assert branch.stable.tolist() == (branch.parameter < 4).tolist()


def test_a_saddle_whose_eigenvalues_add_to_zero_is_no_hopf_point():
    neutral = Scalar(lambda p, x: torch.stack([x[..., 0] + p * x[..., 0], -x[..., 1]], -1), 2)
    branch = analysis.continue_equilibria(neutral, torch.zeros(2), "p", (-0.5, 0.5))
    assert branch.points == []


def test_a_pitchfork_is_a_branch_point_from_which_the_other_branch_is_followed():
    model = Scalar(lambda p, x: p * x - x**3)
    trivial = analysis.continue_equilibria(model, torch.zeros(1), "p", (-1.0, 1.0))
    (point,) = trivial.points
    assert isinstance(point, BranchPoint)
    assert point.parameter == pytest.approx(0.0, abs=1e-7)
    assert trivial.stable.tolist() == (trivial.parameter < 0).tolist()
    crossing = analysis.continue_equilibria(model, point, "p", (-1.0, 1.0))
    assert float(crossing.parameter[-1]) == pytest.approx(1.0, abs=1e-12)
    assert abs(float(crossing.x[-1])) == pytest.approx(1.0, abs=1e-9)
    torch.testing.assert_close(crossing.x[1:, 0] ** 2, crossing.parameter[1:], atol=1e-8, rtol=0)


def test_at_a_transcritical_point_both_branches_are_found():
    model = Scalar(lambda p, x: x * (p - x))
    branch = analysis.continue_equilibria(model, torch.zeros(1), "p", (-1.0, 1.0))
    assert kinds(branch) == [BranchPoint]
    other = analysis.continue_equilibria(model, branch.points[0], "p", (-1.0, 1.0))
    torch.testing.assert_close(other.x[:, 0], other.parameter, atol=1e-8, rtol=0)


def test_a_branch_that_turns_back_leaves_the_span_where_it_came_in():
    circle = Scalar(lambda p, x: 1 - (x - 5) ** 2 - (p - 3) ** 2)
    branch = analysis.continue_equilibria(circle, torch.tensor([5.0 + math.sqrt(0.75)]), "p", (2.5, 10.0))
    (fold,) = branch.points
    assert fold.parameter == pytest.approx(4.0, abs=1e-9)
    assert float(branch.parameter[-1]) == pytest.approx(2.5, abs=1e-12)
    assert float(branch.x[-1]) == pytest.approx(5 - math.sqrt(0.75), abs=1e-9)


def test_a_closed_branch_ends_where_it_began():
    crossed = Scalar(lambda p, x: x * (1 - x**2 - p**2))
    line = analysis.continue_equilibria(crossed, torch.zeros(1), "p", (-2.0, 2.0))
    assert [point.parameter for point in line.points] == pytest.approx([-1.0, 1.0], abs=1e-7)
    circle = analysis.continue_equilibria(crossed, line.points[0], "p", (-2.0, 2.0))
    torch.testing.assert_close(circle.x[:, 0] ** 2 + circle.parameter**2, torch.ones(len(circle.x)), atol=1e-6, rtol=0)
    assert float((circle.x[-1] ** 2 + (circle.parameter[-1] + 1) ** 2).sqrt()) < 0.3
    assert float(circle.x.max()) > 0.99
    assert float(circle.x.min()) < -0.99
    assert len(circle.x) < 200


@pytest.mark.parametrize("kind", [ctrnn.GRU, ctrnn.LSTM, ctrnn.CTRNN])
def test_a_branch_of_a_gated_network_ends_at_what_the_search_finds_there(kind, generator):
    model = kind(3, 2, generator=generator)
    rest = model.initial_state()
    starts = tree.map(lambda leaf: leaf[None], rest)
    before, after = (analysis.fixed_points(model, starts, torch.tensor([first, 0.5])).x[0] for first in (0.0, 1.0))
    branch = analysis.continue_equilibria(
        model, tree.unravel(before, rest, 0), "u[0]", (0.0, 1.0), torch.tensor([9.0, 0.5])
    )
    torch.testing.assert_close(branch.x[0], before, atol=1e-9, rtol=0)
    torch.testing.assert_close(branch.x[-1], after, atol=1e-9, rtol=0)


def test_an_entry_of_a_weight_is_a_parameter_and_the_model_is_left_as_it_was(generator):
    model = ctrnn.CTRNN(3, 0, generator=generator).float()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    branch = analysis.continue_equilibria(model, torch.zeros(3), "W_rec[0, 0]", (0.0, 4.0))
    assert kinds(branch)[:1] == [BranchPoint]  # x = 0 always is an equilibrium; there tanh makes a pitchfork
    at = branch.points[0].parameter
    W = model.W_rec.detach().double().clone()
    W[0, 0] = at
    assert float(torch.linalg.det(W - torch.eye(3))) == pytest.approx(0.0, abs=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        ("gain", "no parameter 'gain': it has W_in"),
        ("b_rec", "holds 3 numbers"),
        ("b_rec[7]", "no entry of b_rec"),
        ("b_rec[x]", "no entry of b_rec"),
        (lambda p: {"b_rec": p}, r"gives b_rec the shape \(\)"),
        (lambda p: {"nothing": p}, "no parameter 'nothing'"),
    ],
)
def test_a_parameter_that_is_none_is_named(parameter, says):
    with pytest.raises(ValueError, match=says):
        analysis.continue_equilibria(ctrnn.CTRNN(3, 1), torch.zeros(3), parameter, (0.0, 1.0))


@pytest.mark.parametrize(
    ("x0", "span", "kind", "says"),
    [
        (torch.zeros(3), (0.0, 0.0), ValueError, r"span = \(0\.0, 0\.0\): .* heads for another one"),
        (torch.zeros(3), (0.0, math.nan), ValueError, "heads for another one"),
        (torch.zeros(3), (math.inf, 0.0), ValueError, "starts at a finite parameter"),
        (torch.zeros(3), (1.0,), ValueError, r"\(start, end\)"),
        (torch.zeros(2), (0.0, 1.0), ValueError, r"CTRNN must have the form \(3,\) .* got \(2,\)"),
        (torch.zeros(1, 3), (0.0, 1.0), ValueError, r"got \(1, 3\)"),
        (torch.full((3,), math.nan), (0.0, 1.0), ValueError, "x0 holds NaN"),
        (np.zeros(3), (0.0, 1.0), TypeError, "got ndarray"),
        (
            Fold(0.5, torch.zeros(3), torch.zeros(3)),
            (0.0, 1.0),
            TypeError,
            "starts at a Fold point: pass a BranchPoint",
        ),
        (BranchPoint(2.0, torch.zeros(3), torch.zeros(2, 4)), (0.0, 1.0), ValueError, "leaves out .* at parameter 2"),
    ],
)
def test_what_is_no_start_of_a_branch_is_named(x0, span, kind, says):
    with pytest.raises(kind, match=says):
        analysis.continue_equilibria(ctrnn.CTRNN(3, 2), x0, "b_rec[0]", span)


def test_a_start_far_from_any_equilibrium_says_where_newton_failed():
    never = Scalar(lambda p, x: 1 + x**2 + p)
    with pytest.raises(ContinuationError, match="no solution was found near the start at parameter 0: Newton failed"):
        analysis.continue_equilibria(never, torch.tensor([0.3]), "p", (0.0, 1.0))


def test_a_branch_that_is_lost_says_where_and_is_handed_over():
    cliff = Scalar(lambda p, x: x - torch.where(p < 0.5, p, p + 1.0))
    with pytest.raises(ContinuationError, match=r"lost at parameter 0\.(49|5).*least step 1e-06") as caught:
        analysis.continue_equilibria(cliff, torch.zeros(1), "p", (0.0, 1.0))
    assert caught.value.parameter == pytest.approx(0.5, abs=1e-4)
    assert len(caught.value.branch.x) > 2


def test_shorter_strides_follow_the_same_branch():
    model, family = two_neurons()
    x0 = -family(torch.tensor(3.0))["theta"]
    coarse = analysis.continue_equilibria(model, x0, family, (3.0, 5.0))
    fine = analysis.continue_equilibria(model, x0, family, (3.0, 5.0), stride=Stride(most=0.02))
    assert len(fine.x) > 3 * len(coarse.x)
    assert fine.points[0].parameter == pytest.approx(coarse.points[0].parameter, abs=1e-9)


@pytest.mark.parametrize("n", [50, 100])
def test_points_that_lie_close_together_are_told_apart(n):
    generator = torch.Generator().manual_seed(0)
    model = CTRNN(n, 1, generator=generator)
    W = torch.randn(n, n, generator=generator) / n**0.5
    branch = analysis.continue_equilibria(model, torch.zeros(n), lambda s: {"W_rec": s * W}, (0.5, 1.5))
    values = torch.linalg.eigvals(W)
    crossing = values[(values.real > 1 / 1.5) & (values.imag > -1e-12)]
    expected = sorted((1 / float(v.real), Hopf if v.imag > 1e-12 else BranchPoint) for v in crossing)
    assert [p.parameter for p in branch.points] == pytest.approx([s for s, _ in expected], abs=1e-7)
    assert kinds(branch) == [kind for _, kind in expected]


def test_points_that_coincide_are_named():
    def twice(w):
        pair = torch.stack([torch.stack([w, w**0]), torch.stack([-(w**0), w])])
        W = torch.block_diag(pair, pair)
        return {"W_rec": W, "theta": -W.sum(1) / 2}

    x0 = -twice(torch.tensor(3.0))["theta"]
    with pytest.warns(UserWarning, match="near parameter 4 several eigenvalues"):
        analysis.continue_equilibria(BeerCTRNN(4), x0, twice, (3.0, 5.0))
