import numpy as np
import pytest
import torch

from ctrnn import RK4, Elman, Euler, Fixed, Iterate, Jordan, JordanState, RateRNN, integrate
from ctrnn.models.activations import softmax


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator)


def reduced(elman, **options):
    """A Jordan net that says all that its hidden units do, with the weights of an Elman network."""
    net = Jordan(elman.n, elman.n_in, elman.n, activation=elman.activation, generator=torch.Generator(), **options)
    with torch.no_grad():
        net.W_in.copy_(elman.W_in)
        net.W_state.copy_(elman.W_rec)
        net.b_rec.copy_(elman.b_rec)
        net.W_out.copy_(torch.eye(elman.n))
        net.b_out.zero_()
    return net


def elman_network(generator, activation=torch.tanh, **options):
    net = Elman(5, 3, activation=activation, generator=generator, **options)
    torch.nn.init.zeros_(net.b_in)
    return net


@pytest.mark.usefixtures("on_the_plain_path")
@pytest.mark.parametrize("activation", [torch.tanh, torch.sigmoid, torch.relu])
@pytest.mark.parametrize("solver", [Iterate(), Euler()])
def test_with_outputs_that_copy_the_hidden_units_and_no_self_link_it_is_elmans_network(generator, activation, solver):
    elman, us = elman_network(generator, activation), draw(generator, 50, 4, 3)
    run = integrate(reduced(elman), us, dt=1.0, solver=solver)
    assert torch.equal(run.ys, integrate(elman, us, dt=1.0, solver=solver).ys)
    assert torch.equal(run.xs.s, run.xs.h)


@pytest.mark.usefixtures("on_the_plain_path")
def test_it_starts_where_elmans_network_starts_when_the_state_units_do(generator):
    elman, us, h = elman_network(generator), draw(generator, 9, 4, 3), draw(generator, 4, 5)
    run = integrate(reduced(elman), us, JordanState(torch.zeros(4, 5), h), dt=1.0)
    assert torch.equal(run.ys, integrate(elman, us, h, dt=1.0).ys)


@pytest.mark.usefixtures("on_the_plain_path")
@pytest.mark.parametrize("ratio", [1, 2, 7, 100])
def test_with_state_units_as_fast_as_the_step_it_is_the_leaky_elman_network_bit_for_bit(generator, ratio):
    dt = 1.0 / ratio
    elman, us = elman_network(generator, tau=1.0), draw(generator, 50, 4, 3)
    net = reduced(elman, tau=JordanState(h=1.0, s=dt))
    assert torch.equal(integrate(net, us, dt=dt).ys, integrate(elman, us, dt=dt).ys)


def test_its_flow_comes_to_elmans_flow_as_the_state_units_become_fast(generator):
    elman, us = elman_network(generator), draw(generator, 6, 3)
    flow = lambda net: integrate(net, us, dt=1.0, steps=Fixed(0.001)).ys.detach()
    nets = [reduced(elman, tau=JordanState(1.0, tau)) for tau in (0.1, 0.05, 0.025)]
    gaps = [(flow(net) - flow(elman)).abs().max().item() for net in nets]
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.2)
    assert gaps[1] / gaps[2] == pytest.approx(2, abs=0.2)


def by_hand(net, us, f, g):
    """Jordan's recursion in NumPy, sample by sample: y_t, s_t."""
    W_in, W_state, b, W_out, b_out = (
        getattr(net, name).detach().numpy() for name in ("W_in", "W_state", "b_rec", "W_out", "b_out")
    )
    y, s = 0, np.zeros(len(b_out))
    said, states = [], []
    for k, u in enumerate(us.numpy()):
        s = y + net.mu * s if k else s
        y = g(W_out @ f(W_in @ u + W_state @ s + b) + b_out)
        said.append(y)
        states.append(s)
    return np.array(said), np.array(states)


@pytest.mark.parametrize("mu", [0.0, 0.3, 0.9])
@pytest.mark.parametrize(
    ("output", "g"),
    [
        (torch.sigmoid, lambda a: 1 / (1 + np.exp(-a))),
        (softmax, lambda a: np.exp(a) / np.exp(a).sum()),
    ],
)
def test_at_dt_equal_tau_it_is_jordans_recursion(generator, mu, output, g):
    net = Jordan(6, 3, 4, mu=mu, tau=0.02, activation=torch.sigmoid, output=output, generator=generator)
    us = draw(generator, 40, 3)
    run = integrate(net, us, dt=0.02)
    said, states = by_hand(net, us, lambda a: 1 / (1 + np.exp(-a)), g)
    np.testing.assert_allclose(run.ys.detach().numpy(), said, rtol=0, atol=1e-13)
    np.testing.assert_allclose(run.xs.s[:-1].detach().numpy(), states[1:], rtol=0, atol=1e-13)
    assert torch.equal(run.ys, integrate(net, us, dt=0.02, solver=Iterate()).ys)


def test_hidden_units_know_of_the_past_only_what_was_said(generator):
    net, u = Jordan(6, 3, 2, mu=0.5, generator=generator), draw(generator, 3)
    s = draw(generator, 2)
    new = [net.target(torch.tensor(0.0), JordanState(draw(generator, 6), s), u, 1) for _ in range(2)]
    assert torch.equal(new[0].h, new[1].h)
    assert torch.equal(new[0].s, new[1].s)


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9])
def test_the_self_link_makes_the_state_units_leaky_integrators_of_time_constant_tau_over_one_minus_mu(mu):
    net = Jordan(1, 1, 1, mu=mu, tau=JordanState(h=1.0, s=0.2), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.W_out.zero_()
        net.b_out.fill_(0.7)  # it always says 0.7
    slow, gain = 0.2 / (1 - mu), 0.7 / (1 - mu)
    flow = integrate(net, torch.zeros(200, 1), dt=0.01, solver=RK4())
    torch.testing.assert_close(flow.xs.s, gain * (1 - torch.exp(-flow.ts[:, None] / slow)), rtol=1e-5, atol=0)
    discrete = integrate(net, torch.zeros(30, 1), dt=0.2).xs.s  # dt = tau_s: a geometric series
    torch.testing.assert_close(discrete[:, 0], gain * (1 - mu ** torch.arange(1.0, 31)), rtol=1e-12, atol=0)


def test_softmax_feeds_back_probabilities(generator):
    net = Jordan(5, 3, 4, output=softmax, generator=generator)
    run = integrate(net, draw(generator, 20, 6, 3), dt=1.0)
    torch.testing.assert_close(run.ys.sum(-1), torch.ones(20, 6))
    assert torch.equal(run.xs.s, run.ys)


def test_in_a_rate_networks_terms_its_feedback_is_the_product_of_two_matrices(generator):
    net, us = Jordan(6, 3, 2, generator=generator), draw(generator, 30, 3)
    rate = RateRNN(6, 3, 2, generator=torch.Generator())
    with torch.no_grad():
        rate.W_rec.copy_(net.W_state @ net.W_out)
        rate.b_rec.copy_(net.b_rec + net.W_state @ net.b_out)
        for name in ("W_in", "W_out", "b_out"):
            getattr(rate, name).copy_(getattr(net, name))
    # Nothing was said before the first sample, whereas h = 0 says b_out: the rate network starts after it.
    run = integrate(net, us, dt=1.0)
    torch.testing.assert_close(run.ys[1:], integrate(rate, us[1:], run.xs.h[0], dt=1.0).ys, rtol=1e-12, atol=1e-12)


def test_wrong_arguments_are_named():
    for mu in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"mu = .*at least 0 and below 1"):
            Jordan(3, 2, 2, mu=mu)
    with pytest.raises(TypeError, match="mu must be a number, got 'a'"):
        Jordan(3, 2, 2, mu="a")
    for tau in (torch.ones(2), JordanState(h=1.0, s=torch.ones(3)), (1.0, 1.0)):
        with pytest.raises(ValueError, match=r"tau"):
            Jordan(3, 2, 2, tau=tau)
    with pytest.raises(TypeError, match="n_out must be an integer"):
        Jordan(3, 2, None)
    assert Jordan(3, 2, 2, tau=JordanState(torch.ones(3), torch.ones(2))).tau.s.shape == (2,)
