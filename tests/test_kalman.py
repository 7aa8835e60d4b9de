"""The extended Kalman filter: its equations, what it is on linear models, and that it stays sound."""

import copy

import pytest
import torch
from torch.func import functional_call, jacrev

from ctrnn import ExponentialEuler, init, integrate, learning
from ctrnn import _tree as tree
from ctrnn.learning import ExtendedKalman, KalmanState, by_layer, by_node, fit_kalman, one_group
from ctrnn.models import GRU, LSTM, EchoState, Elman, RateRNN, RecurrentPerceptron, Stack

GROUPINGS = [one_group, by_layer, by_node]
every_grouping = pytest.mark.parametrize("groups", GROUPINGS, ids=lambda groups: groups.__name__)


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def series(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def perceptron(sizes=(4, 2), n_in=2):
    return RecurrentPerceptron(sizes, n_in, generator=seeded()).double()


def reservoir(n_out=2, starts_at_zero=True):
    model = EchoState(6, 2, n_out, bias_scale=0.2, generator=seeded()).double()
    if not starts_at_zero:
        with torch.no_grad():
            model.W_out.normal_(generator=seeded(5))
            model.b_out.normal_(generator=seeded(6))
    return model


def shown(model, us):
    """What the readout sees, and a 1 for the bias, (time * streams, unit + 1)."""
    xs = integrate(model, us, dt=1.0).xs.flatten(0, -2)
    return torch.cat([xs, torch.ones(len(xs), 1, dtype=xs.dtype)], 1)


def weights_of(model):
    return torch.cat([model.W_out, model.b_out[:, None]], 1)


@pytest.mark.parametrize("starts_at_zero", [True, False])
@pytest.mark.parametrize("groups", [one_group, by_node], ids=lambda groups: groups.__name__)
def test_on_weights_that_act_linearly_it_is_ridge_regression_around_the_weights_at_the_start(groups, starts_at_zero):
    # A readout of two outputs: no weight leads to both, so that the groups of its nodes lose nothing.
    model, us, targets, penalty = reservoir(starts_at_zero=starts_at_zero), series(80, 2), series(80, 2, seed=2), 0.3
    X, W0 = shown(model, us), weights_of(model)
    normal = X.T @ X + penalty * torch.eye(7, dtype=torch.float64)
    expected = W0 + torch.linalg.solve(normal, X.T @ (targets - X @ W0.T)).T
    found = fit_kalman(model, us, targets, dt=1.0, rule=ExtendedKalman(P0=1 / penalty, groups=groups))
    torch.testing.assert_close(weights_of(found.model), expected, rtol=1e-9, atol=1e-9)


def test_on_weights_that_act_linearly_it_is_recursive_least_squares_sample_by_sample():
    model, us, targets, penalty = reservoir(), series(80, 2), series(80, 2, seed=2), 0.3
    rls = learning.RecursiveLeastSquares(7, 2, penalty=penalty)
    errors = torch.stack([rls.update(x, d) for x, d in zip(shown(model, us), targets, strict=True)])
    found = fit_kalman(model, us, targets, dt=1.0, rule=ExtendedKalman(P0=1 / penalty, groups=by_node))
    torch.testing.assert_close(found.errors, errors, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(weights_of(found.model), rls.W, rtol=1e-9, atol=1e-9)
    # A node's group holds a row of W_out and then its bias, as RLS does.
    for P in found.online.weights.P:
        torch.testing.assert_close(P, rls.P, rtol=1e-9, atol=1e-9)


def test_streams_side_by_side_are_measured_at_once():
    model, us, targets, penalty = reservoir(), series(40, 3, 2), series(40, 3, 2, seed=2), 0.3
    X = shown(model, us)
    normal = X.T @ X + penalty * torch.eye(7, dtype=torch.float64)
    found = fit_kalman(model, us, targets, dt=1.0, rule=ExtendedKalman(P0=1 / penalty))
    expected = torch.linalg.solve(normal, X.T @ targets.flatten(0, 1)).T
    torch.testing.assert_close(weights_of(found.model), expected, rtol=1e-9, atol=1e-9)


def test_a_larger_measurement_noise_is_a_smaller_prior():
    model, us, targets = perceptron(), series(30, 2), series(30, 2, seed=2)
    one, ten = (
        fit_kalman(model, us, targets, dt=1.0, rule=ExtendedKalman(P0=P0, R=R)) for P0, R in ((2.0, 1.0), (20.0, 10.0))
    )
    torch.testing.assert_close(one.online.weights.w, ten.online.weights.w, rtol=1e-9, atol=1e-10)


def partition(n, *sizes):
    return torch.arange(n).split(list(sizes))


@pytest.mark.parametrize("sizes", [(7,), (3, 4), (1,) * 7])
def test_an_update_is_the_papers_equations(sizes):
    rule = ExtendedKalman(R=0.5, Q=0.1)
    C, e = series(2, 7), series(2, seed=2)
    groups = partition(7, *sizes)
    roots = [series(len(own), len(own), seed=3 + k) for k, own in enumerate(groups)]
    P = tuple(root @ root.T for root in roots)
    w = series(7, seed=9)
    found = rule.update(KalmanState(w, P, groups), C, e)
    S = sum(C[:, own] @ before @ C[:, own].T for own, before in zip(groups, P, strict=True))
    G = torch.linalg.inv(S + 0.5 * torch.eye(2, dtype=torch.float64))
    for own, before, after in zip(groups, P, found.P, strict=True):
        K = before @ C[:, own].T @ G
        torch.testing.assert_close(found.w[own], w[own] + K @ e, rtol=1e-10, atol=1e-12)
        expected = before - K @ C[:, own] @ before + 0.1 * torch.eye(len(own), dtype=torch.float64)
        torch.testing.assert_close(after, expected, rtol=1e-10, atol=1e-12)


def test_the_decoupled_filter_with_one_group_is_the_global_one():
    model, us, targets = RateRNN(3, 2, generator=seeded()).double(), series(50, 2), series(50, 3, seed=2)
    runs = [
        fit_kalman(model, us, targets, dt=1.0, rule=ExtendedKalman(Q=1e-3, groups=g)) for g in (one_group, by_layer)
    ]
    assert torch.equal(runs[0].errors, runs[1].errors)
    assert torch.equal(runs[0].online.weights.P[0], runs[1].online.weights.P[0])


def test_groups_are_layers_and_nodes():
    stack = Stack([Elman(4, 2), GRU(3, 4, 5)])
    sizes = lambda groups: sorted(len(own) for own in groups(stack))
    # An Elman unit: 2 + 4 weights, 2 biases; a row of the GRU: 4 + 3 weights, 2 biases; an output: 3 weights, a bias.
    assert sizes(by_node) == [4] * 5 + [8] * 4 + [9] * 9
    assert sizes(by_layer) == [20, 32, 81]
    assert sizes(one_group) == [133]


def test_a_constrained_weight_stays_with_its_unit():
    model = RateRNN(3, 2)
    plain = by_node(model)
    init.constrain(model, "W_rec", init.Masked(torch.eye(3, dtype=torch.bool)))
    assert sorted(map(len, by_node(model))) == sorted(map(len, plain)) == [6, 6, 6]
    found = fit_kalman(model, series(10, 2), series(10, 3), dt=1.0, rule=ExtendedKalman(groups=by_node))
    assert torch.equal(found.model.W_rec != 0, torch.eye(3, dtype=torch.bool))


@every_grouping
@pytest.mark.parametrize("kind", [RecurrentPerceptron, LSTM], ids=["perceptron", "LSTM"])
def test_the_derivatives_that_travel_with_the_state_are_those_of_the_whole_run(kind, groups):
    model = perceptron() if kind is RecurrentPerceptron else LSTM(3, 2, 2, generator=seeded()).double()
    us, targets = series(12, 2), series(12, 2, seed=2)
    still = ExtendedKalman(P0=1e-30, groups=groups)  # weights that do not move
    found = fit_kalman(model, us, targets, dt=0.5, rule=still)
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    class Run(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, us):
            return tree.ravel(tree.map(lambda leaf: leaf[-1], integrate(self.model, us, dt=0.5).xs), 0)

    def final(w):
        parts = w.split([shape.numel() for shape in shapes])
        named = {f"model.{n}": p.reshape(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return functional_call(Run(), named, (us,))

    w = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(found.online.dx_dw[0], jacrev(final)(w), rtol=1e-9, atol=1e-12)
    run = integrate(model, us, dt=0.5)
    torch.testing.assert_close(found.errors, (targets - run.ys).detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", [(8,), (3, 5)])
def test_the_covariance_stays_symmetric_and_positive_for_ten_thousand_updates(sizes):
    # Little noise, and directions that are measured well and badly: P comes to span many decades.
    rule, groups = ExtendedKalman(P0=1e4, R=1e-6), partition(8, *sizes)
    state = KalmanState(torch.zeros(8), tuple(rule.P0 * torch.eye(n) for n in sizes), groups)
    for C in series(10_000, 1, 8) * torch.logspace(0, -3, 8):
        state = rule.update(state, C, C.sum(1) - C @ state.w)
    for P in state.P:
        assert torch.equal(P, P.T)
        assert float(torch.linalg.eigvalsh(P)[0]) > 0
    torch.testing.assert_close(state.w, torch.ones(8), rtol=0, atol=1e-4)


@every_grouping
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_it_learns_from_500_samples_what_another_network_of_its_kind_says(groups, dtype):
    teacher = RecurrentPerceptron((3, 1), 2, generator=seeded(1)).to(dtype)
    us = series(500, 2).to(dtype)
    targets = integrate(teacher, us, dt=1.0).ys.detach()
    found = fit_kalman(perceptron((4, 1)).to(dtype), us, targets, dt=1.0, rule=ExtendedKalman(R=0.1, groups=groups))
    early, late = (float(found.errors[part].square().mean()) for part in (slice(20, 70), slice(450, 500)))
    assert late < early / 3
    assert late < 0.05 * float(targets.var())
    assert {p.dtype for p in found.model.parameters()} == {dtype}


def test_a_stream_learned_in_two_parts_is_the_stream_learned_at_once():
    model, us, targets = perceptron(), series(40, 3, 2), series(40, 3, 2, seed=2)
    rule = ExtendedKalman(Q=1e-3)
    whole = fit_kalman(model, us, targets, dt=0.5, rule=rule)
    first = fit_kalman(model, us[:15], targets[:15], dt=0.5, rule=rule)
    second = fit_kalman(model, us[15:], targets[15:], dt=0.5, rule=rule, online=first.online)
    torch.testing.assert_close(torch.cat([first.errors, second.errors]), whole.errors, rtol=1e-9, atol=1e-11)
    assert second.online.samples == 40


def test_nothing_is_learned_while_the_network_settles():
    model, us, targets = perceptron(), series(20, 2), series(20, 2, seed=2)
    found = fit_kalman(model, us, targets, dt=1.0, rule=ExtendedKalman(), washout=19)
    expected = (targets - integrate(model, us, dt=1.0).ys).detach()
    torch.testing.assert_close(found.errors, expected, rtol=1e-12, atol=1e-12)
    assert not torch.equal(found.online.weights.w, ExtendedKalman().start(model).w)


def test_the_users_network_and_the_global_generator_stay_as_they_were():
    model = perceptron()
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = fit_kalman(model, series(10, 2), series(10, 2, seed=2), dt=1.0, rule=ExtendedKalman())
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in found.model.state_dict().items())
    assert all(p.requires_grad for p in found.model.parameters())


def test_what_is_frozen_stays():
    model = perceptron()
    model.layers[0].W_in.requires_grad_(False)
    found = fit_kalman(model, series(10, 2), series(10, 2, seed=2), dt=1.0, rule=ExtendedKalman())
    assert torch.equal(found.model.layers[0].W_in, model.layers[0].W_in)
    assert not torch.equal(found.model.layers[0].W_rec, model.layers[0].W_rec)


def test_a_network_that_diverges_is_handed_back_as_it_was():
    model = RecurrentPerceptron((2, 1), 1, activation=lambda x: x, generator=seeded()).double()
    with torch.no_grad():
        model.layers[0].W_rec.copy_(1e200 * torch.eye(2))
    with pytest.raises(learning.TrainingError, match="diverged at sample") as problem:
        fit_kalman(model, series(9, 1), series(9, 1), dt=1.0, rule=ExtendedKalman(P0=1e-30))
    assert bool(torch.isfinite(problem.value.model.layers[0].W_in).all())


def test_what_cannot_be_filtered_is_refused():
    model, us, targets, rule = perceptron(), series(10, 2), series(10, 2), ExtendedKalman()
    for name, value in (("P0", 0.0), ("P0", torch.inf), ("R", -1.0), ("R", torch.nan), ("Q", -1e-9)):
        with pytest.raises(ValueError, match=f"{name} ="):
            ExtendedKalman(**{name: value})
    with pytest.raises(ValueError, match="same times"):
        fit_kalman(model, us, targets[:5], dt=1.0, rule=rule)
    for u, target, culprit in ((us.long(), targets, "us"), (us, targets.long(), "targets"), (us, [1], "targets")):
        with pytest.raises(TypeError, match=f"{culprit}.*floating-point"):
            fit_kalman(model, u, target, dt=1.0, rule=rule)
    with pytest.raises(ValueError, match="The batch is empty"):
        fit_kalman(model, series(10, 0, 2), series(10, 0, 2), dt=1.0, rule=rule)
    with pytest.raises(ValueError, match="2 outputs"):
        fit_kalman(model, us, targets[:, :1], dt=1.0, rule=rule)
    with pytest.raises(ValueError, match="washout"):
        fit_kalman(model, us, targets, dt=1.0, rule=rule, washout=10)
    with pytest.raises(ValueError, match="targets hold NaN"):
        fit_kalman(model, us, targets * torch.nan, dt=1.0, rule=rule)
    with pytest.raises(TypeError, match="washout must be an integer"):
        fit_kalman(model, us, targets, dt=1.0, rule=rule, washout=0.5)
    with pytest.raises(TypeError, match="rule must be an ExtendedKalman"):
        fit_kalman(model, us, targets, dt=1.0, rule="ekf")
    with pytest.raises(TypeError, match=r"needs a ctrnn.Model, got RNN"):
        fit_kalman(torch.nn.RNN(2, 2), us, targets, dt=1.0, rule=rule)
    online = fit_kalman(model, us, targets, dt=1.0, rule=rule).online
    with pytest.raises(ValueError, match="online has 1 streams"):
        fit_kalman(model, series(10, 3, 2), series(10, 3, 2), dt=1.0, rule=rule, online=online)
    with pytest.raises(TypeError, match=r"online must be .* got a Filtered"):
        fit_kalman(model, us, targets, dt=1.0, rule=rule, online=fit_kalman(model, us, targets, dt=1.0, rule=rule))
    for other in (perceptron((5, 2)), copy.deepcopy(model).requires_grad_(False)):
        next(other.parameters()).requires_grad_(True)
        with pytest.raises(ValueError, match="42 learned numbers"):
            fit_kalman(other, us, targets, dt=1.0, rule=rule, online=online)
    with pytest.raises(ValueError, match="nothing to learn"):
        fit_kalman(perceptron().requires_grad_(False), us, targets, dt=1.0, rule=rule)
    for groups in ((torch.arange(5),), ()):
        with pytest.raises(ValueError, match="each of the places"):
            fit_kalman(model, us, targets, dt=1.0, rule=ExtendedKalman(groups=lambda model, groups=groups: groups))
    with pytest.raises(TypeError, match="groups must be a function"):
        ExtendedKalman(groups="by_node")


@pytest.mark.parametrize("dt", [0.0, -1.0, torch.nan, 1.5])
def test_a_step_that_integrate_refuses_is_refused(dt):
    model, us, targets = perceptron(), series(10, 2), series(10, 2)
    with pytest.raises(ValueError, match="dt") as expected:
        integrate(model, us, dt=dt)
    with pytest.raises(ValueError, match="dt") as found:
        fit_kalman(model, us, targets, dt=dt, rule=ExtendedKalman())
    assert str(found.value) == str(expected.value)


def test_a_step_beyond_tau_is_for_a_solver_that_does_not_overshoot():
    model, us, targets = perceptron(), series(10, 2), series(10, 2)
    found = fit_kalman(model, us, targets, dt=1.5, rule=ExtendedKalman(), solver=ExponentialEuler(), washout=9)
    expected = (targets - integrate(model, us, dt=1.5, solver=ExponentialEuler()).ys).detach()
    torch.testing.assert_close(found.errors, expected, rtol=1e-12, atol=1e-12)
