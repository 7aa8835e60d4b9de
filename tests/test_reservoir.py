import numpy as np
import pytest
import reservoirpy.nodes as peer
import torch

from ctrnn import Euler, Fixed, Held, init, integrate, learning
from ctrnn.models import EchoState, Jordan, RateRNN, Stack


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


def test_a_forced_network_learns_with_the_free_one():
    model = EchoState(4, 1, 1, feedback_scale=0.5, learn_tau=True, generator=seeded()).double()
    forced = model.teacher_forced()
    for name in ("W_rec", "b_rec", "W_out", "b_out", "log_ratio"):
        assert getattr(forced, name) is getattr(model, name)
    assert torch.equal(forced.W_in, torch.cat([model.W_in, model.W_back], -1))


def test_a_constrained_network_is_forced_with_its_constraints():
    model = network(n=10, n_in=1, n_out=1, feedback_scale=0.5)
    mask = torch.rand(10, 10, generator=seeded(4)) < 0.5
    init.constrain(model, "W_rec", init.Masked(mask))
    init.constrain(model, "W_back", init.Dale(torch.ones(1)))
    forced = model.teacher_forced()
    assert torch.equal(forced.W_rec, model.W_rec)
    assert torch.equal(forced.W_in[:, 1:], model.W_back)
    with torch.no_grad():
        model.parametrizations.W_rec.original.mul_(2)
    assert torch.equal(forced.W_rec, model.W_rec), "learning one must teach the other"
    us, said = series(60, 1), series(60, 1, seed=2)
    fitted = learning.fit_readout(model, us, said, dt=1.0)
    assert torch.equal(fitted.W_rec != 0, mask)


@pytest.mark.parametrize("tau", [1.0, 2.5])
def test_a_network_with_feedback_learns_a_sine_and_goes_on_alone(tau):
    said = torch.sin(0.3 * torch.arange(600, dtype=torch.float64))[:, None]
    us = torch.zeros(600, 0, dtype=torch.float64)
    model = network(n=50, n_in=0, n_out=1, feedback_scale=1.0, tau=tau)
    fitted = learning.fit_readout(model, us[:400], said[:400], dt=1.0, washout=100, penalty=1e-12)
    heard = torch.cat([torch.zeros(1, 1, dtype=torch.float64), said[:399]])
    with torch.no_grad():
        led = integrate(fitted.teacher_forced(), heard, dt=1.0).xs[-1]
        alone = integrate(fitted, us[400:], led, dt=1.0).ys
    torch.testing.assert_close(alone, said[400:], rtol=0, atol=1e-4)
    assert float(model.W_out.detach().abs().max()) == 0.0, "the user's network must stay as it was"


def test_what_is_fed_back_while_learning_is_the_target_of_the_sample_before():
    # Streams side by side, inputs besides, and a readout that says something already: what it says is not heard.
    model, us, said = network(n=12, feedback_scale=0.5), series(80, 6).unflatten(1, (3, 2)), series(80, 6, seed=2)
    said = said.unflatten(1, (3, 2))
    with torch.no_grad():
        model.W_out.normal_(generator=seeded(3))
    x, states = torch.zeros(3, 12, dtype=torch.float64), []
    for k, u in enumerate(us):
        y = said[k - 1] if k else torch.zeros(3, 2, dtype=torch.float64)
        x = torch.tanh(x @ model.W_rec.T + u @ model.W_in.T + y @ model.W_back.T + model.b_rec)
        states.append(x)
    expected = learning.ridge(torch.stack(states[10:]).flatten(0, 1), said[10:].flatten(0, 1), penalty=1e-3)
    fitted = learning.fit_readout(model, us, said, dt=1.0, washout=10, penalty=1e-3)
    torch.testing.assert_close(fitted.W_out.detach(), expected.W_out, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(fitted.b_out.detach(), expected.b_out, rtol=1e-8, atol=1e-9)
    assert torch.equal(fitted.W_back, model.W_back)


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


BAD_SAMPLES = {
    "two numbers for one": (torch.ones(2), torch.ones(3), r"x of shape \(2,\) and d of shape \(3,\)"),
    "x too short": (torch.ones(1), torch.ones(1), r"one sample is \(2,\) and \(1,\)"),
    "a batch": (torch.ones(4, 2), torch.ones(4, 1), "one sample is"),
    "NaN in x": (torch.tensor([1.0, torch.nan]), torch.ones(1), "x holds NaN"),
    "NaN in d": (torch.ones(2), torch.tensor([torch.nan]), "d holds NaN"),
    "infinity": (torch.ones(2), torch.tensor([torch.inf]), "d holds NaN or infinity"),
    "a square that overflows": (torch.tensor([1e200, 0.0], dtype=torch.float64), torch.ones(1), "overflow"),
}


@pytest.mark.parametrize(("x", "d", "problem"), BAD_SAMPLES.values(), ids=BAD_SAMPLES)
def test_a_bad_sample_is_refused_and_what_was_learned_stays(x, d, problem):
    rls, sound = (learning.RecursiveLeastSquares(2, 1, penalty=0.1) for _ in range(2))
    X, D = series(20, 2), series(20, 1, seed=2)
    for k in range(20):
        if k == 10:
            with pytest.raises(ValueError, match=problem):
                rls.update(x, d)
        for each in (rls, sound):
            each.update(X[k], D[k])
    assert torch.equal(rls.W, sound.W)
    assert torch.equal(rls.P, sound.P)


def test_a_filter_that_forgets_what_nothing_reminds_it_of_stops_before_it_breaks():
    rls, x = learning.RecursiveLeastSquares(2, 1, penalty=1.0, forget=0.5), torch.tensor([1.0, 0.0])
    for _ in range(1022):
        rls.update(x, x[:1])
    with pytest.raises(ValueError, match=r"raise forget = 0.5"):
        rls.update(x, x[:1])
    assert bool(torch.isfinite(rls.W).all() & torch.isfinite(rls.P).all())


def test_what_cannot_be_learned_is_refused():
    model, us = network(), series(20)
    with pytest.raises(ValueError, match="n_out"):
        learning.fit_readout(EchoState(3, 2), us, us, dt=1.0)
    with pytest.raises(ValueError, match=r"needs \(20, 2\) and \(20, 2\)"):
        learning.fit_readout(model, us, us[:, :1], dt=1.0)
    with pytest.raises(ValueError, match=r"needs \(20, 2\) and \(20, 2\)"):
        learning.fit_readout(model, us[:, :1], us, dt=1.0)
    for other in (Stack([model]), Jordan(3, 2, 2).double(), torch.nn.RNN(2, 2)):
        with pytest.raises(TypeError, match=f"single layer.*{type(other).__name__}"):
            learning.fit_readout(other, us, us, dt=1.0)
    held = init.constrain(network(), "W_out", init.Masked(torch.ones(2, 40).bool()))
    with pytest.raises(ValueError, match="the readout is constrained"):
        learning.fit_readout(held, us, us, dt=1.0)
    missing = torch.cat([torch.full((1, 2), torch.nan), us[1:]])
    with pytest.raises(ValueError, match="targets hold NaN"):
        learning.fit_readout(network(feedback_scale=0.5), us, missing, dt=1.0, washout=5)
    learning.fit_readout(model, us, missing, dt=1.0, washout=5)  # without feedback nothing hears them
    with pytest.raises(TypeError, match="washout must be an integer"):
        learning.fit_readout(model, us, us, dt=1.0, washout=0.5)
    with pytest.raises(ValueError, match="washout"):
        learning.fit_readout(model, us, us, dt=1.0, washout=20)
    with pytest.raises(ValueError, match="penalty"):
        learning.ridge(us, us, penalty=-1.0)
    with pytest.raises(ValueError, match="NaN"):
        learning.ridge(us * torch.nan, us)
    with pytest.raises(ValueError, match="penalty"):
        learning.RecursiveLeastSquares(2, 2, penalty=0.0)
    with pytest.raises(ValueError, match="n must be at least 1"):
        learning.RecursiveLeastSquares(0, 2)
    with pytest.raises(ValueError, match="n_out must be at least 1"):
        learning.RecursiveLeastSquares(2, 0)
    with pytest.raises(TypeError, match=r"torch.int64 cannot hold weights"):
        learning.RecursiveLeastSquares(2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="forget"):
        learning.RecursiveLeastSquares(2, 2, forget=1.5)
    with pytest.raises(ValueError, match="feed back"):
        EchoState(3, 2, feedback_scale=0.1)
    with pytest.raises(ValueError, match="input_scale"):
        EchoState(3, 2, input_scale=-1.0)
    for scale in (-1.0, torch.nan, torch.inf):
        with pytest.raises(ValueError, match="feedback_scale ="):
            EchoState(3, 2, 1, feedback_scale=scale)
    with pytest.raises(ValueError, match="nothing to force"):
        model.teacher_forced()
