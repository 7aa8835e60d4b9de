"""Jacobians and modes against what is known on paper and against finite differences."""

import math

import numpy as np
import pytest
import torch

import ctrnn
from ctrnn import _tree as tree
from ctrnn import analysis
from ctrnn.models import GRU, LSTM


def test_the_jacobian_of_a_flow_and_of_its_euler_step_differ_by_the_step(generator):
    model = ctrnn.CTRNN(5, 2, generator=generator)
    x, u = torch.randn(3, 4, 5, generator=generator), torch.randn(3, 4, 2, generator=generator)
    flow = analysis.jacobian(model, x, u)
    step = analysis.jacobian(ctrnn.Step(model, ctrnn.Euler(), dt=0.2), x, u)
    torch.testing.assert_close(step, torch.eye(5) + 0.2 * flow)
    assert flow.shape == (3, 4, 5, 5)


def test_the_input_jacobian_of_a_rate_network_is_its_input_matrix_over_tau(generator):
    model = ctrnn.CTRNN(4, 3, tau=2.0, generator=generator)
    found = analysis.input_jacobian(model, torch.randn(6, 4, generator=generator))
    torch.testing.assert_close(found, (model.W_in.detach() / 2.0).expand(6, 4, 3))


@pytest.mark.parametrize("kind", [GRU, LSTM])
def test_derivatives_of_gated_steps_are_those_of_finite_differences(kind, generator):
    step = ctrnn.Step(kind(3, 2, generator=generator), ctrnn.Euler(), dt=1.0)
    x = tree.map(lambda leaf: torch.rand(leaf.shape, generator=generator), step.model.initial_state(2))
    u = torch.randn(2, 2, generator=generator)
    h = 1e-6
    flat = tree.ravel(x, 1)

    def after(flat, u):
        return tree.ravel(step(torch.zeros(()), 1.0, tree.unravel(flat, tree.map(lambda a: a[0], x), 0), u), 1).detach()

    by_state = [(after(flat + h * e, u) - after(flat - h * e, u)) / (2 * h) for e in torch.eye(flat.shape[-1])]
    by_input = [(after(flat, u + h * e) - after(flat, u - h * e)) / (2 * h) for e in torch.eye(2)]
    torch.testing.assert_close(analysis.jacobian(step, x, u), torch.stack(by_state, -1), atol=1e-8, rtol=0)
    torch.testing.assert_close(analysis.input_jacobian(step, x, u), torch.stack(by_input, -1), atol=1e-8, rtol=0)


def test_the_derivative_by_a_weight_is_the_rate_it_multiplies(generator):
    model = ctrnn.CTRNN(3, 1, generator=generator)
    x = torch.randn(4, 3, generator=generator)
    found = analysis.parameter_jacobian(model, x, "W_rec", torch.ones(1))
    expected = torch.eye(3)[None, :, :, None] * torch.tanh(x)[:, None, None, :]
    torch.testing.assert_close(found, expected)
    by_step = analysis.parameter_jacobian(ctrnn.Step(model, ctrnn.Euler(), dt=0.5), x, "b_rec")
    torch.testing.assert_close(by_step, 0.5 * torch.eye(3).expand(4, 3, 3))


def test_a_batch_of_implicit_steps_has_the_jacobians_of_its_rows(generator):
    step = ctrnn.Step(ctrnn.VanDerPol(5.0), ctrnn.Rodas4(), dt=0.1)
    x = torch.randn(4, 2, generator=generator)
    for derivative in (
        lambda x: analysis.jacobian(step, x),
        lambda x: analysis.parameter_jacobian(step, x, "mu"),
    ):
        torch.testing.assert_close(derivative(x), torch.stack([derivative(row) for row in x]))
    h = 1e-5
    after = lambda x: step(torch.zeros(()), 0.1, x, x.new_zeros(4, 0))
    by_hand = torch.stack([(after(x + h * e) - after(x - h * e)) / (2 * h) for e in torch.eye(2)], -1)
    torch.testing.assert_close(analysis.jacobian(step, x), by_hand, atol=1e-7, rtol=0)


def test_a_float32_network_is_looked_at_in_float64_where_the_point_is(generator):
    model = ctrnn.CTRNN(3, 2, generator=generator).float()
    x = torch.randn(3, generator=generator)
    twin = ctrnn.CTRNN(3, 2)
    twin.load_state_dict(model.state_dict())
    for derivative in (analysis.jacobian, analysis.input_jacobian):
        torch.testing.assert_close(derivative(model, x), derivative(twin, x), rtol=1e-12, atol=1e-12)
    by_weight = analysis.parameter_jacobian(model, x, "W_in", torch.ones(2, dtype=torch.float32))
    torch.testing.assert_close(by_weight, analysis.parameter_jacobian(twin, x, "W_in", torch.ones(2)))
    assert next(model.parameters()).dtype == torch.float32


def test_modes_are_ordered_biorthonormal_and_put_the_matrix_together_again(generator):
    J = torch.randn(5, 6, 6, generator=generator)
    for kind in ("flow", "map"):
        found = analysis.modes(J, kind)
        J_again = found.right @ torch.diag_embed(found.eigenvalues) @ found.left
        torch.testing.assert_close(J_again.real, J)
        torch.testing.assert_close(found.left @ found.right, torch.eye(6).expand(5, 6, 6).to(J_again.dtype))
        assert bool((found.growth.diff(dim=-1) <= 1e-12).all())


def test_time_constants_and_frequencies_of_a_step_are_those_of_the_flow_it_samples():
    A = torch.tensor([[-0.1, 2.0, 0.0], [-2.0, -0.1, 0.0], [0.0, 0.0, -4.0]])
    flow = analysis.modes(A, "flow")
    sampled = analysis.modes(torch.matrix_exp(0.05 * A), "map", dt=0.05)
    torch.testing.assert_close(flow.time_constants, torch.tensor([10.0, 10.0, 0.25]))
    torch.testing.assert_close(flow.frequencies.abs(), torch.tensor([2.0, 2.0, 0.0]) / (2 * math.pi))
    torch.testing.assert_close(sampled.time_constants, flow.time_constants)
    torch.testing.assert_close(sampled.frequencies.abs(), flow.frequencies.abs())


def test_a_defective_matrix_has_no_left_eigenvectors_rather_than_wrong_ones():
    J = torch.tensor([[[-1.0, 1.0], [0.0, -1.0]], [[-1.0, 1.0], [0.0, -2.0]]])
    found = analysis.modes(J, "flow")
    assert bool(torch.isnan(found.left[0].real).all())
    assert bool(torch.isfinite(found.left[1].real).all())


def test_non_normality_is_0_for_a_rotation_and_1_for_a_chain(generator):
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator))
    chain = torch.diag(torch.ones(4), 1)
    found = analysis.non_normality(torch.stack([rotation, chain, torch.zeros(5, 5)]))
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 0.0]), atol=1e-7, rtol=0)


def test_arrays_are_no_jacobians():
    for call in (lambda J: analysis.modes(J, "flow"), analysis.non_normality):
        with pytest.raises(TypeError, match="got ndarray"):
            call(np.eye(2))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: analysis.modes(torch.ones(2, 3), "flow"), r"square .* \(2, 3\)"),
        (lambda: analysis.modes(torch.ones(2, 2), "ode"), "'flow'"),
        (lambda: analysis.modes(torch.full((2, 2), torch.nan), "map"), "NaN"),
        (lambda: analysis.modes(torch.eye(2), "map", dt=0.0), "positive time"),
        (lambda: analysis.non_normality(torch.full((2, 2), torch.nan)), "NaN"),
        (lambda: analysis.non_normality(torch.ones(2, 3)), r"square .* \(2, 3\)"),
        (lambda: analysis.input_jacobian(torch.cos, torch.ones(1)), "how many inputs"),
        (
            lambda: analysis.parameter_jacobian(ctrnn.CTRNN(2, 1), torch.ones(2), "W"),
            "no parameter 'W': it has .*W_rec",
        ),
    ],
)
def test_wrong_arguments_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_no_states_have_no_jacobians():
    model = ctrnn.CTRNN(4, 2)
    assert analysis.jacobian(model, torch.zeros(0, 4)).shape == (0, 4, 4)
    assert analysis.jacobian(ctrnn.Step(model, ctrnn.Euler(), dt=0.5), torch.zeros(0, 4)).shape == (0, 4, 4)
