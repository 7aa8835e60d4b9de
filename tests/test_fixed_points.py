"""What becomes of each start, slow points, and where to start from."""

import numpy as np
import pytest
import torch
from scipy.optimize import root

import ctrnn
from ctrnn import _tree as tree
from ctrnn import analysis
from ctrnn.analysis import Outcome
from ctrnn.models import GRU, LSTM


class Scalar(ctrnn.Model):
    def __init__(self, fn, n=1):
        super().__init__()
        self.fn, self.n, self.n_in = fn, n, 0

    def forward(self, t, x, u):
        return self.fn(x)

    def initial_state(self, *batch):
        return torch.zeros(*batch, self.n)


def test_every_start_says_which_point_it_found(generator):
    starts = torch.tensor([[-2.0], [-1.5], [0.1], [1.3], [2.0]])
    found = analysis.fixed_points(Scalar(lambda x: x - x**3), starts)
    assert sorted(found.x[:, 0].round(decimals=9).tolist()) == [-1.0, 0.0, 1.0]
    assert found.search.outcome.tolist() == [Outcome.FOUND] * 5
    ends = found.x[found.search.point, 0]
    torch.testing.assert_close(ends, torch.tensor([-1.0, -1.0, 0.0, 1.0, 1.0]), atol=1e-9, rtol=0)
    assert bool(found.fixed.all())
    assert int(found.search.iterations.max()) < 15


def test_a_ghost_of_a_fold_is_a_slow_point_and_not_a_fixed_one():
    ghost = Scalar(lambda x: 1e-5 + x**2)
    found = analysis.fixed_points(ghost, torch.linspace(-1, 1, 20)[:, None])
    assert found.x.shape == (1, 1)
    assert float(found.speed) == pytest.approx(1e-5, rel=1e-3)
    assert float(found.q) == pytest.approx(0.5e-10, rel=1e-2)
    assert found.fixed.tolist() == [False]
    assert found.tol == pytest.approx(1e-5, rel=1e-2)


def test_beside_roots_a_ghost_is_told_as_the_outcome_of_its_starts():
    both = Scalar(lambda x: -(x + 2) * (1e-4 + (x - 1) ** 2))
    found = analysis.fixed_points(both, torch.tensor([[-3.0], [-2.5], [0.9], [1.1]]))
    torch.testing.assert_close(found.x, torch.tensor([[-2.0]]), atol=1e-9, rtol=0)
    assert found.search.outcome.tolist() == [Outcome.FOUND, Outcome.FOUND, Outcome.SLOW, Outcome.SLOW]
    assert found.search.point.tolist() == [0, 0, -1, -1]
    torch.testing.assert_close(found.search.x[2:, 0], torch.tensor([1.0, 1.0]), atol=1e-3, rtol=0)
    beside = analysis.fixed_points(both, torch.tensor([[-3.0], [-2.5], [0.9], [1.1]]), slow=True)
    assert beside.fixed.tolist() == [True, False]
    torch.testing.assert_close(beside.x[:, 0], torch.tensor([-2.0, 1.0]), atol=1e-3, rtol=0)
    assert beside.search.point.tolist() == [0, 0, 1, 1]
    # The least of |f| beside x = 1, where f' = 0: the greater root of 3 s^2 + 6 s + 1e-4 = 0 with s = x - 1.
    s = -1 + (1 - 1e-4 / 3) ** 0.5
    assert float(beside.speed[1]) == pytest.approx((3 + s) * (1e-4 + s**2), rel=1e-4)
    slow = analysis.fixed_points(both, torch.tensor([[-3.0], [0.9]]), tol=1e-3)
    assert slow.fixed.tolist() == [bool(v < 1e-11) for v in slow.speed]
    assert len(slow.x) == 2


def test_without_a_tolerance_a_start_given_up_on_its_way_is_at_no_point():
    cubic = Scalar(lambda x: x**3)  # towards its root each step takes a third off
    found = analysis.fixed_points(cubic, torch.tensor([[1.0], [-1.0]]), max_iterations=2)
    assert found.search.outcome.tolist() == [Outcome.UNFINISHED] * 2
    assert len(found.x) == 0


def test_a_saturated_gate_makes_neutral_what_is_no_root():
    model = GRU(1, 0)
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
        gate = next(name for name, value in model.named_parameters() if name == "b_rec")
        model.get_parameter(gate)[1] = 28.0  # z = 1 - 7e-13, candidate 0
    found = analysis.fixed_points(model, torch.tensor([[0.5]]))
    assert float(found.speed) < 1e-11
    assert found.stable.tolist() == [False]
    assert float(found.eigenvalues[0].abs()) == pytest.approx(float(found.speed) / 0.5)


def test_a_line_attractor_shows_at_a_tolerance_as_the_line_that_it_is(generator):
    line = Scalar(lambda x: torch.stack([1e-4 * torch.sin(3 * x[..., 0]), -x[..., 1]], -1), 2)
    starts = torch.rand(200, 2, generator=generator) * 2 - 1
    slow = analysis.fixed_points(line, starts, tol=1e-3, unique=1e-6)
    assert len(slow.x) > 150
    assert float(slow.x[:, 1].abs().max()) < 2e-3
    assert float(slow.x[:, 0].std()) > 0.4
    roots = analysis.fixed_points(line, starts)
    assert float((torch.sin(3 * roots.x[:, 0])).abs().max()) < 1e-6


def test_a_start_that_runs_away_has_escaped():
    found = analysis.fixed_points(Scalar(lambda x: torch.exp(-x)), torch.tensor([[0.0], [0.5], [1.0]]))
    assert len(found.x) == 0
    assert set(found.search.outcome.tolist()) == {Outcome.ESCAPED}


def test_each_start_may_have_its_own_drive():
    model = ctrnn.LinearSystem(-torch.eye(2), torch.eye(2))
    drives = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 1.0]])
    found = analysis.fixed_points(
        model, torch.zeros(3, 2) + torch.tensor([[0.0, 0.1], [0.1, 0.0], [0.0, 0.0]]), drives, reach=100
    )
    torch.testing.assert_close(found.x[found.search.point], drives, atol=1e-9, rtol=0)


def test_points_under_different_drives_are_different_however_close():
    model = ctrnn.LinearSystem(-torch.eye(2), torch.eye(2))
    drives = torch.tensor([[0.5, 0.0], [0.500001, 0.0], [0.9, 0.0], [0.9, 0.0]])
    found = analysis.fixed_points(model, torch.eye(2).repeat(2, 1), drives)
    assert len(found.x) == 3
    torch.testing.assert_close(found.x[found.search.point], drives, atol=1e-9, rtol=0)
    torch.testing.assert_close(found.u[found.search.point], drives)


def test_starts_at_one_place_say_nothing_about_how_far_is_far():
    model = ctrnn.LinearSystem(-torch.eye(2), torch.eye(2))
    found = analysis.fixed_points(model, torch.zeros(4, 2), torch.tensor([5.0, -3.0]))
    torch.testing.assert_close(found.x, torch.tensor([[5.0, -3.0]]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("rounding", [-1e-17, 0.0, 1e-17])
def test_a_neutral_direction_is_not_stable_whatever_rounding_says(rounding, generator):
    A = torch.tensor([[rounding, 0.0], [0.0, -1.0]])
    found = analysis.fixed_points(ctrnn.LinearSystem(A), torch.randn(5, 2, generator=generator))
    assert len(found.x) == 5
    assert not found.stable.any()
    assert found.unstable.tolist() == [1] * 5


def test_a_wrong_number_of_drives_is_named():
    model = ctrnn.LinearSystem(-torch.eye(2), torch.eye(2))
    with pytest.raises(ValueError, match=r"each of the states \(5, n_in\), got the shape \(4, 2\)"):
        analysis.fixed_points(model, torch.randn(5, 2), torch.zeros(4, 2))


def test_the_points_of_an_lstm_come_back_as_its_states(generator):
    model = LSTM(6, 1, generator=generator)
    step = ctrnn.Step(model, ctrnn.Euler(), dt=1.0)
    starts = tree.map(lambda leaf: torch.randn(leaf.shape, generator=generator), model.initial_state(64))
    found = analysis.fixed_points(step, starts)
    states = found.states(model.initial_state())
    again = step(torch.zeros(()), 1.0, states, torch.zeros(len(found.x), 1))
    torch.testing.assert_close(tree.ravel(again, 1), tree.ravel(states, 1), atol=1e-10, rtol=0)
    assert found.kind == "map"
    torch.testing.assert_close(found.modes().growth[:, 0], found.eigenvalues.abs().amax(-1).log())


def test_nothing_that_scipy_finds_in_small_networks_is_missed():
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        n = 4 + seed
        model = ctrnn.CTRNN(n, 0)
        with torch.no_grad():
            model.W_rec.copy_(2.5 * torch.randn(n, n, generator=generator) / n**0.5 + 1.5 * torch.eye(n))
            model.b_rec.copy_(0.3 * torch.randn(n, generator=generator))
        starts = 3 * torch.randn(256, n, generator=generator)
        found = analysis.fixed_points(model, starts)
        W, b = model.W_rec.detach().numpy(), model.b_rec.detach().numpy()
        for x in starts[:40].numpy():
            there = root(lambda x, W=W, b=b: -x + W @ np.tanh(x) + b, x, tol=1e-12)
            if there.success and np.abs(there.fun).max() < 1e-9:
                assert float((found.x - torch.as_tensor(there.x)).norm(dim=-1).min()) < 1e-6


def test_the_points_of_rectified_units_are_those_of_their_patterns_of_activity(generator):
    model, n = ctrnn.RateRNN(10, 1, activation=torch.relu), 10
    with torch.no_grad():  # units that excite themselves and inhibit one another
        model.W_rec.copy_(1.3 * torch.eye(n) - 0.3 - 0.6 / n**0.5 * torch.rand(n, n, generator=generator))
        model.b_rec.copy_(0.5 * torch.rand(n, generator=generator))
    W, b = model.W_rec.detach(), model.b_rec.detach()
    active = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * n)
    candidates = torch.linalg.solve(torch.eye(n) - active[:, :, None] * W, active * b)
    roots = candidates[((candidates @ W.T + b > 0) == (active == 1)).all(-1)]
    assert len(roots) > 10
    found = analysis.fixed_points(model, 3 * torch.rand(256, n, generator=generator))
    assert len(found.x) > 5
    assert bool(found.fixed.all())
    assert float((found.x[:, None] - roots).norm(dim=-1).amin(-1).max()) < 1e-9
    every = analysis.fixed_points(model, roots + 1e-4 * torch.randn(roots.shape, generator=generator), unique=1e-6)
    assert len(every.x) == len(roots)


def test_starts_are_visited_states_with_jitter_in_units_of_their_spread(generator):
    xs = torch.randn(50, 20, 3, generator=generator) * torch.tensor([1.0, 10.0, 0.0])
    xs[40:, 3] = torch.nan
    exact = analysis.visited_states(xs, 100, jitter=0.0, generator=generator)
    assert exact.shape == (100, 3)
    assert float(torch.cdist(exact, xs.flatten(0, 1).nan_to_num(1e9)).amin(1).max()) < 1e-6
    moved = analysis.visited_states(xs, 900, jitter=0.5, generator=generator)
    assert float(moved[:, 1].std() / xs[:40, :, 1].std()) == pytest.approx((1 + 0.25) ** 0.5, rel=0.1)
    assert float(moved[:, 2].abs().max()) == 0.0
    halfway = analysis.visited_states(xs, 900, jitter=0.0, between=1.0, generator=generator)
    assert float(halfway[:, 1].std() / xs[:40, :, 1].std()) == pytest.approx(0.5**0.5, rel=0.1)


def test_starts_are_drawn_over_all_batch_axes(generator):
    xs = torch.randn(5, 4, 3, 2, generator=generator)
    assert analysis.visited_states(xs, 60, jitter=0.0, generator=generator).shape == (60, 2)


def test_starts_keep_the_parts_of_a_state(generator):
    model = LSTM(4, 2, generator=generator)
    run = ctrnn.integrate(model, torch.randn(9, 5, 2, generator=generator), dt=1.0)
    starts = analysis.visited_states(run.xs, 7, generator=generator)
    assert [leaf.shape for leaf in tree.leaves(starts)] == [(7, 4), (7, 4)]
    assert type(starts) is type(run.xs)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: analysis.visited_states(torch.full((4, 2), torch.nan), 3), "no visited state is finite"),
        (lambda: analysis.visited_states(torch.ones(4, 2), 0), "count = 0"),
        (lambda: analysis.fixed_points(torch.cos, torch.ones(2, 1), tol=0.0), "tol = 0"),
        (lambda: analysis.fixed_points(torch.cos, torch.ones(2, 1), tol=0.1, slow=True), "already accepts"),
    ],
)
def test_wrong_arguments_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
