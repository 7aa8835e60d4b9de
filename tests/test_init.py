import copy

import pytest
import torch
from torch.nn.utils import parametrize

from ctrnn import init
from ctrnn.models import CTRNN, GRU


def radius_of(W):
    return torch.linalg.eigvals(W).abs().max()


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_a_matrix_has_the_spectral_radius_asked_for(generator, density):
    W = init.spectral_radius(40, 0.9, density=density, generator=generator)
    torch.testing.assert_close(radius_of(W), torch.tensor(0.9))
    assert int((W != 0).sum()) == 40 * round(40 * density)


def test_a_matrix_without_eigenvalues_is_not_scaled():
    with pytest.raises(ValueError, match="all eigenvalues of W are zero"):
        init.scaled(torch.ones(4, 4).triu(1), 1.0)


def test_a_gaussian_matrix_fills_a_disc_of_radius_g(generator):
    W = init.gaussian(400, 1.5, generator=generator)
    assert abs(float(W.std()) * 400**0.5 - 1.5) < 0.02
    assert abs(float(radius_of(W)) - 1.5) < 0.15


def test_an_orthogonal_matrix_keeps_lengths(generator):
    W = init.orthogonal(7, 2.0, generator=generator)
    torch.testing.assert_close(W @ W.T, 4 * torch.eye(7))


def test_time_constants_are_log_uniform_between_their_limits(generator):
    tau = init.log_uniform_tau(4000, 0.01, 1.0, generator=generator)
    assert 0.01 <= float(tau.min()) < 0.0101
    assert 0.99 < float(tau.max()) <= 1.0
    assert abs(float(tau.log10().mean()) + 1) < 0.03
    share = float((tau < 0.1).double().mean())
    assert abs(share - 0.5) < 0.03


def test_a_sparse_mask_gives_every_unit_equally_many_inputs(generator):
    mask = init.sparse_mask(50, 0.1, generator=generator)
    assert (mask.sum(-1) == 5).all()
    assert len(set(mask.sum(0).tolist())) > 1
    assert init.sparse_mask(50, 1.0, generator=generator).all()
    assert (init.sparse_mask(50, 1e-6, generator=generator).sum(-1) == 1).all()


def test_dales_law_gives_each_column_one_sign_and_each_row_a_balance(generator):
    W, signs = init.dale(60, 0.8, 1.2, generator=generator), init.dale_signs(60, 0.8)
    assert int((signs > 0).sum()) == 48
    assert (W * signs > 0).all()
    torch.testing.assert_close(W.sum(-1), torch.zeros(60))
    torch.testing.assert_close(radius_of(W), torch.tensor(1.2))


def test_balancing_the_rows_removes_the_outlying_eigenvalue(generator):
    signs = init.dale_signs(200, 0.8)
    unbalanced = torch.randn(200, 200, generator=generator).abs() * signs
    balanced = init.dale(200, 0.8, generator=generator)
    gap = lambda W: float(torch.linalg.eigvals(W).abs().sort(descending=True).values[[0, 2]].diff().abs())
    assert gap(init.scaled(unbalanced, 1.0)) > 0.5
    assert gap(balanced) < 0.2


@pytest.mark.parametrize("draw", [init.gaussian, init.spectral_radius, init.orthogonal, init.dale])
def test_matrices_come_from_the_generator_alone_and_in_the_dtype_asked_for(draw):
    rng = torch.get_rng_state()
    one, two = (draw(10, generator=torch.Generator().manual_seed(1), dtype=torch.float32) for _ in range(2))
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.equal(one, two)
    assert one.dtype == torch.float32
    assert draw(10).dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: init.log_uniform_tau(3, 0.0, 1.0), "0 < low <= high"),
        (lambda: init.log_uniform_tau(3, 2.0, 1.0), "0 < low <= high"),
        (lambda: init.sparse_mask(3, 0.0), "density"),
        (lambda: init.sparse_mask(3, 1.5), "density"),
        (lambda: init.dale_signs(5, 1.0), "both kinds"),
        (lambda: init.dale(2, 0.1), "both kinds"),
        (lambda: init.Dale(torch.zeros(3)), r"\+1 \(excitatory\)"),
    ],
)
def test_arguments_out_of_range_are_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_centre_crossing_is_half_the_sum_of_incoming_weights():
    theta = init.centre_crossing(torch.tensor([[4.5, 1.0], [-1.0, 4.5]]))
    torch.testing.assert_close(theta, torch.tensor([-2.75, -1.75]))


# --- constraints ------------------------------------------------------------------------------------------------------


def trained(model, steps=5):
    optimiser = torch.optim.SGD(model.parameters(), lr=2.0, weight_decay=0.05)
    x, u = torch.randn(6, model.n), torch.randn(6, model.n_in)
    for _ in range(steps):
        optimiser.zero_grad()
        (model(torch.zeros(()), x, u) - 1).square().mean().backward()
        optimiser.step()
    return model


def test_signs_survive_training_that_would_change_them():
    free = CTRNN(8, 2)
    signs = init.dale_signs(8)
    with torch.no_grad():
        free.W_rec.copy_(0.02 * init.dale(8))
    bound = init.constrain(copy.deepcopy(free), "W_rec", init.Dale(signs))
    assert torch.equal(bound.W_rec, free.W_rec)
    torch.manual_seed(0)
    assert not (trained(free).W_rec * signs >= 0).all()
    torch.manual_seed(0)
    assert (trained(bound).W_rec * signs >= 0).all()
    assert not torch.equal(bound.W_rec, free.W_rec)


def test_a_mask_survives_training():
    mask = init.sparse_mask(8, 0.5)
    model = trained(init.constrain(CTRNN(8, 2), "W_rec", init.Masked(mask)))
    assert torch.equal(model.W_rec != 0, mask)


def test_assigning_constrained_weights_gives_what_was_assigned_where_it_is_allowed():
    model = init.constrain(GRU(4, 2), "W_in", init.Masked(torch.ones(12, 2) > 0))
    W = torch.randn(12, 2)
    model.W_in = W
    assert torch.equal(model.W_in, W)
    mask, signs = init.sparse_mask(4, 0.5), init.dale_signs(4, 0.5)
    model = init.constrain(init.constrain(CTRNN(4, 2), "W_rec", init.Masked(mask)), "W_rec", init.Dale(signs))
    W = torch.randn(4, 4)
    model.W_rec = W
    assert torch.equal(model.W_rec, torch.where(mask, W.abs() * signs, 0.0))


def test_assigned_weights_that_break_the_constraint_are_brought_within_it():
    W = torch.randn(4, 4)
    assert torch.equal(init.Masked(W > 0).right_inverse(W), W.relu())
    assert torch.equal(init.Dale(torch.ones(4)).right_inverse(W), W.abs())


def test_a_constraint_moves_with_its_model():
    model = init.constrain(CTRNN(4, 2), "W_rec", init.Dale(init.dale_signs(4))).float()
    assert model.W_rec.dtype == torch.float32
    assert parametrize.is_parametrized(model, "W_rec")


@pytest.mark.parametrize(
    ("name", "constraint", "error", "match"),
    [
        ("W_nothing", lambda: init.Dale(torch.ones(4)), ValueError, "no weights 'W_nothing'"),
        ("W_out", lambda: init.Dale(torch.ones(4)), ValueError, "no weights 'W_out'"),
        ("W_rec", lambda: init.Dale(torch.ones(3)), ValueError, r"\(3,\) does not fit W_rec of shape \(4, 4\)"),
        ("W_rec", lambda: init.Masked(torch.ones(5, 4) > 0), ValueError, "does not fit W_rec"),
        ("W_rec", lambda: init.Masked(torch.ones(4, 4)), TypeError, "bool"),
    ],
)
def test_a_constraint_that_does_not_fit_is_refused(name, constraint, error, match):
    with pytest.raises(error, match=match):
        init.constrain(CTRNN(4, 2), name, constraint())
