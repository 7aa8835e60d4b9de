"""Jacobians and fixed points against closed forms, scipy and finite differences."""

import copy

import pytest
import torch
from scipy.optimize import root

import ctrnn
from ctrnn import analysis
from ctrnn import init as init_
from ctrnn.models import CTRNN, GRU, LSTM, BeerCTRNN, Henon, LinearSystem, Lorenz, VanDerPol


def net(n=6, n_in=2, seed=0):
    return CTRNN(n, n_in, tau=torch.linspace(0.5, 2.0, n), generator=torch.Generator().manual_seed(seed))


def test_jacobian_of_a_linear_flow_is_its_matrix():
    A = torch.tensor([[-1.0, 2.0], [0.5, -3.0]])
    assert torch.allclose(analysis.jacobian(LinearSystem(A), torch.randn(4, 2)), A.expand(4, 2, 2), atol=1e-14)


def test_jacobian_of_a_ctrnn_is_the_one_on_paper(generator):
    model, x = net(), torch.randn(5, 6, generator=generator)
    slope = 1 - torch.tanh(x) ** 2
    paper = (model.W_rec * slope[:, None, :] - torch.eye(6)) / model.tau[:, None]
    assert torch.allclose(analysis.jacobian(model, x), paper, atol=1e-13)


def test_jacobian_of_a_named_state_agrees_with_central_differences(generator):
    model = LSTM(3, 2, generator=generator)
    x, u = model.initial_state(4), torch.randn(4, 2, generator=generator)
    x = type(x)(*[leaf + 0.3 for leaf in x])
    step = ctrnn.Step(model, ctrnn.Euler(), dt=0.5)
    exact = analysis.jacobian(step, x, u)
    flat, eps = torch.cat(list(x), -1), 1e-6

    def move(row):
        new = step(torch.zeros(()), 0.5, type(x)(*row.split(3, -1)), u)
        return torch.cat(list(new), -1)

    for j in range(6):
        shift = torch.zeros(6)
        shift[j] = eps
        assert torch.allclose(exact[..., j], (move(flat + shift) - move(flat - shift)) / (2 * eps), atol=1e-8)


def test_fixed_point_of_a_linear_system_is_the_solution_of_its_equation():
    A, B = torch.tensor([[-1.0, 2.0], [0.5, -3.0]]), torch.tensor([[1.0], [2.0]])
    u = torch.tensor([0.7])
    found = analysis.fixed_points(LinearSystem(A, B), torch.randn(10, 2), u)
    assert len(found.x) == 1
    assert torch.allclose(found.x[0], torch.linalg.solve(A, -(B @ u)), atol=1e-10)


def test_lorenz_has_its_three_equilibria_with_their_stability(generator):
    found = analysis.fixed_points(
        Lorenz(), 20 * torch.randn(60, 3, generator=generator) + torch.tensor([0.0, 0.0, 20.0])
    )
    r = (8 / 3 * 27) ** 0.5
    expected = torch.tensor([[0.0, 0, 0], [r, r, 27], [-r, -r, 27]])
    assert len(found.x) == 3
    assert torch.cdist(expected, found.x).min(-1).values.max() < 1e-8
    at_origin = found.x.norm(dim=-1) < 1
    assert found.unstable[at_origin].tolist() == [1]
    assert found.unstable[~at_origin].tolist() == [2, 2]
    assert not found.stable.any()


def test_a_map_is_judged_by_the_unit_circle_and_a_flow_by_the_imaginary_axis(generator):
    A = torch.tensor([[-3.0, 0.0], [0.0, -0.5]])
    starts = torch.randn(8, 2, generator=generator)
    flow = analysis.fixed_points(LinearSystem(A), starts)
    coarse = analysis.fixed_points(ctrnn.Step(LinearSystem(A), ctrnn.Euler(), dt=1.0), starts)
    assert (flow.kind, flow.stable.tolist(), flow.unstable.tolist()) == ("flow", [True], [0])
    assert (coarse.kind, coarse.stable.tolist(), coarse.unstable.tolist()) == ("map", [False], [1])


def test_henon_has_its_two_fixed_points(generator):
    step = ctrnn.Step(Henon(), ctrnn.Iterate(), dt=1.0)
    found = analysis.fixed_points(step, torch.randn(40, 2, generator=generator))
    x = (-0.7 + torch.tensor([1.0, -1.0]) * (0.49 + 5.6) ** 0.5) / 2.8
    assert torch.allclose(found.x[:, 0].sort().values, x.sort().values, atol=1e-10)


def test_a_bare_callable_is_a_map(generator):
    found = analysis.fixed_points(torch.cos, torch.rand(5, 1, generator=generator))
    assert found.kind == "map"
    assert abs(float(found.x[0, 0]) - 0.7390851332151607) < 1e-10


def test_points_of_a_trained_size_network_are_roots_for_scipy_too(generator):
    model = net(12, 2, seed=3)
    with torch.no_grad():
        model.W_rec.mul_(2.5)
    found = analysis.fixed_points(model, 3 * torch.randn(200, 12, generator=generator))
    assert len(found.x) > 1
    zero = torch.zeros(())

    def field(x):
        return model(zero, torch.as_tensor(x), torch.zeros(2)).detach().numpy()

    for x in found.x:
        solved = root(field, x.numpy() + 1e-5, tol=1e-12)
        assert torch.allclose(torch.as_tensor(solved.x), x, atol=1e-7)


def test_all_that_is_reported_belongs_to_the_same_point(generator):
    model = net()
    found = analysis.fixed_points(model, torch.randn(20, 6, generator=generator))
    assert torch.allclose(found.jacobian, analysis.jacobian(model, found.x), atol=1e-12)
    speed = model(torch.zeros(()), found.x, torch.zeros(2)).norm(dim=-1)
    assert torch.equal(found.speed, speed.detach())
    assert torch.allclose(found.eigenvalues.sum(-1).real, found.jacobian.diagonal(dim1=-2, dim2=-1).sum(-1))


def test_the_networks_own_fixed_points_under_a_drive_move_with_it(generator):
    model, u = net(), torch.tensor([1.0, -1.0])
    found = analysis.fixed_points(model, torch.randn(20, 6, generator=generator), u)
    run = ctrnn.integrate(model, u.expand(4000, 2), found.x[0] + 0.01, dt=0.1)
    if bool(found.stable[0]):
        assert torch.allclose(run.xs[-1], found.x[0], atol=1e-6)
    assert not torch.allclose(model(torch.zeros(()), found.x[0], torch.zeros(2)), torch.zeros(6), atol=1e-3)


def test_a_float32_gru_is_searched_in_float64_and_left_as_it_was(generator):
    model = GRU(8, 3, generator=generator).float()
    before = copy.deepcopy(model.state_dict())
    found = analysis.fixed_points(ctrnn.Step(model, ctrnn.Euler(), dt=1.0), torch.randn(50, 8, generator=generator))
    assert found.x.dtype == torch.float64
    assert found.speed.max() < 1e-11
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


def test_a_line_of_fixed_points_is_not_lost_for_its_singular_jacobian():
    A = torch.tensor([[0.0, 0.0], [0.0, -1.0]])
    found = analysis.fixed_points(LinearSystem(A), torch.stack([torch.linspace(-1, 1, 9), torch.ones(9)], -1))
    assert len(found.x) == 9
    assert found.x[:, 1].abs().max() < 1e-9


def test_a_flow_without_fixed_points_gives_none():
    class Drift(ctrnn.Model):
        def forward(self, t, x, u):
            return 1 + x**2

        def initial_state(self, *batch):
            return torch.zeros(*batch, 1)

    found = analysis.fixed_points(Drift(), torch.randn(10, 1))
    assert found.x.shape == (0, 1)
    assert found.eigenvalues.shape == (0, 1)


def test_a_beer_circuit_at_centre_crossing_has_its_equilibrium_at_minus_theta():
    model = BeerCTRNN(5, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(model.theta, init_.centre_crossing(model.W_rec))
    found = analysis.fixed_points(model, torch.randn(30, 5))
    assert torch.cdist(-model.theta.detach()[None], found.x).min() < 1e-9


def test_the_unstable_focus_of_van_der_pol_has_the_eigenvalues_on_paper():
    found = analysis.fixed_points(VanDerPol(1.0), torch.randn(10, 2))
    assert torch.allclose(found.eigenvalues[0].real, torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize(
    ("system", "starts", "kind", "says"),
    [
        (Lorenz(), torch.zeros(3), ValueError, r"\(start, 3\) .* got \(3,\)"),
        (Lorenz(), torch.full((2, 3), torch.nan), ValueError, "NaN"),
        (ctrnn.Step(Lorenz(), ctrnn.RK4()), torch.zeros(2, 3), ValueError, "dt"),
        (3.0, torch.zeros(2, 3), TypeError, "callable"),
        (net(), torch.zeros(2, 5), ValueError, r"of this CTRNN .* \(start, 6\) .* got \(2, 5\)"),
        (ctrnn.Step(net(), ctrnn.Euler(), dt=0.1), torch.zeros(2, 7), ValueError, r"\(start, 6\).*got \(2, 7\)"),
        (LSTM(3, 2), torch.zeros(2, 3), ValueError, r"LSTMState\(h \(start, 3\), c \(start, 3\)\) .* got \(2, 3\)"),
    ],
)
def test_wrong_arguments_are_named(system, starts, kind, says):
    with pytest.raises(kind, match=says):
        analysis.fixed_points(system, starts)


def test_a_drive_of_the_wrong_width_is_named():
    with pytest.raises(ValueError, match=r"the network's 2 inputs, got the shape \(3,\)"):
        analysis.fixed_points(net(), torch.zeros(2, 6), torch.zeros(3))
