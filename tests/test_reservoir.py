import numpy as np
import pytest
import reservoirpy.nodes as peer
import torch

from ctrnn import Euler, Fixed, Held, init, integrate, learning
from ctrnn.models import EchoState, RateRNN


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def network(n=40, n_in=2, n_out=2, **options):
    return EchoState(n, n_in, n_out, bias_scale=0.2, generator=seeded(), **options).double()


def series(n_time=300, n_in=2, seed=1):
    return torch.randn(n_time, n_in, dtype=torch.float64, generator=seeded(seed))


@pytest.mark.parametrize("leak", [1.0, 0.3])
def test_the_states_are_those_of_reservoirpy(leak):
    model = network()
    twin = peer.Reservoir(
        W=model.W_rec.numpy(), Win=model.W_in.numpy(), bias=model.b_rec.numpy(), lr=leak, activation="tanh"
    )
    run = integrate(model, Held(series(), leak), steps=Fixed(leak), solver=Euler())
    np.testing.assert_allclose(run.xs.numpy(), twin.run(series().numpy()), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("penalty", [1e-6, 1.0])
def test_the_readout_is_the_ridge_of_reservoirpy(penalty):
    model, us = network(tau=2.0), series()
    targets = torch.stack([us[:, 0].roll(2), us[:, 1].roll(1) ** 2], -1)
    fitted = learning.fit_readout(model, us, targets, dt=1.0, washout=50, penalty=penalty)
    states = integrate(model, us, dt=1.0).xs
    twin = peer.Ridge(ridge=penalty).fit(states[50:].numpy(), targets[50:].numpy())
    np.testing.assert_allclose(
        integrate(fitted, us, dt=1.0).ys.detach(), twin.run(states.numpy()), rtol=1e-5, atol=1e-7
    )
    assert float(model.W_out.detach().abs().max()) == 0.0, "the user's network must stay as it was"


def test_whole_steps_without_feedback_are_the_rate_network():
    model = network()
    twin = RateRNN(40, 2, generator=seeded()).double()
    with torch.no_grad():
        for name in ("W_rec", "W_in", "b_rec"):
            getattr(twin, name).copy_(getattr(model, name))
    assert torch.equal(integrate(model, series(), dt=0.5).xs, integrate(twin, series(), dt=0.5).xs)


def test_what_was_said_comes_back_one_step_late():
    model = network(n=10, feedback_scale=0.5)
    with torch.no_grad():
        model.W_out.normal_(generator=seeded(3))
    run = integrate(model, series(20), dt=1.0)
    x = torch.zeros(10, dtype=torch.float64)
    for k, u in enumerate(series(20)):
        y = model.W_out @ x + model.b_out
        x = torch.tanh(model.W_rec @ x + model.W_in @ u + model.W_back @ y + model.b_rec)
        torch.testing.assert_close(run.xs[k], x, rtol=1e-12, atol=1e-13)


def test_a_forced_network_that_hears_its_own_words_is_the_free_one():
    model = network(n=10, feedback_scale=0.5)
    with torch.no_grad():
        model.W_out.normal_(generator=seeded(3))
        free = integrate(model, series(20), dt=1.0)
        heard = torch.cat([torch.zeros(1, 2, dtype=torch.float64), free.ys[:-1]])
        forced = integrate(model.teacher_forced(), torch.cat([series(20), heard], -1), dt=1.0)
    torch.testing.assert_close(forced.xs, free.xs, rtol=1e-12, atol=1e-13)


def test_a_forced_network_has_the_precision_of_the_free_one():
    torch.set_default_dtype(torch.float32)
    forced = EchoState(3, 1, 1, feedback_scale=0.5, tau=0.3, generator=seeded()).double().teacher_forced()
    assert {value.dtype for value in forced.state_dict().values()} == {torch.float64}
    assert forced.tau.dtype == torch.float64


def test_only_the_readout_is_learned():
    model = network(feedback_scale=0.5, learn_tau=True)
    asked = {name for name, p in model.named_parameters() if p.requires_grad}
    assert asked == {"W_out", "b_out", "log_ratio"}


@pytest.mark.parametrize(("weight", "leak"), [(0.9, 1.0), (0.5, 0.4)])
def test_the_effective_radius_is_that_of_the_linear_step(weight, leak):
    W = init.ring(7, weight, dtype=torch.float64)
    model = EchoState(7, 0, activation=torch.nn.Identity(), generator=seeded()).double()
    model.W_rec.data = W
    basis = torch.eye(7, dtype=torch.float64)
    steps = integrate(model, torch.zeros(1, 7, 0, dtype=torch.float64), basis, dt=leak).xs[-1]
    step = steps.T
    assert init.effective_radius(W, leak) == pytest.approx(float(torch.linalg.eigvals(step).abs().max()), rel=1e-12)
    assert init.effective_radius(W, leak) == pytest.approx(1 - leak + leak * weight, rel=1e-12)


def test_recursive_least_squares_is_ridge_regression():
    X, D = series(60, 5), series(60, 3, seed=2)
    rls = learning.RecursiveLeastSquares(5, 3, penalty=0.3)
    errors = torch.stack([rls.update(x, d) for x, d in zip(X, D, strict=True)])
    expected = torch.linalg.solve(X.T @ X + 0.3 * torch.eye(5, dtype=torch.float64), X.T @ D).T
    torch.testing.assert_close(rls.W, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(errors[0], D[0])


def test_what_is_long_ago_counts_less():
    X, D = series(60, 5), series(60, 3, seed=2)
    rls = learning.RecursiveLeastSquares(5, 3, penalty=0.3, forget=0.9)
    for x, d in zip(X, D, strict=True):
        rls.update(x, d)
    weight = 0.9 ** torch.arange(59, -1, -1, dtype=torch.float64)
    normal = (X.T * weight) @ X + 0.3 * 0.9**60 * torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(rls.W, torch.linalg.solve(normal, (X.T * weight) @ D).T, rtol=1e-9, atol=1e-10)


def test_recursive_least_squares_stays_sound_for_ten_thousand_samples():
    rls = learning.RecursiveLeastSquares(4, 1, penalty=1e-6, forget=0.99)
    for x in series(10_000, 4):
        rls.update(x, x[:1] - 2 * x[3:])
    assert bool((torch.linalg.eigvalsh(rls.P) > 0).all())
    torch.testing.assert_close(rls.W, torch.tensor([[1.0, 0, 0, -2]], dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_what_cannot_be_learned_is_refused():
    model, us = network(), series(20)
    with pytest.raises(ValueError, match="n_out"):
        learning.fit_readout(EchoState(3, 2), us, us, dt=1.0)
    with pytest.raises(ValueError, match=r"\(20, 2\) are needed"):
        learning.fit_readout(model, us, us[:, :1], dt=1.0)
    with pytest.raises(ValueError, match="washout"):
        learning.fit_readout(model, us, us, dt=1.0, washout=20)
    with pytest.raises(ValueError, match="penalty"):
        learning.ridge(us, us, penalty=-1.0)
    with pytest.raises(ValueError, match="NaN"):
        learning.ridge(us * torch.nan, us)
    with pytest.raises(ValueError, match="penalty"):
        learning.RecursiveLeastSquares(2, 2, penalty=0.0)
    with pytest.raises(ValueError, match="forget"):
        learning.RecursiveLeastSquares(2, 2, forget=1.5)
    with pytest.raises(ValueError, match="feed back"):
        EchoState(3, 2, feedback_scale=0.1)
    with pytest.raises(ValueError, match="input_scale"):
        EchoState(3, 2, input_scale=-1.0)
    with pytest.raises(ValueError, match="nothing to force"):
        model.teacher_forced()
