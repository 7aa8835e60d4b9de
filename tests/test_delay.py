"""The unit delay, and the networks of Elman and of Williams & Zipser that it makes of a static map."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ctrnn import LSTM, Elman, Euler, Forward, Model, Relaxation, Stack, UnitDelay, integrate
from ctrnn import _tree as tree


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def rand(*shape, seed=0):
    return torch.randn(shape, generator=drawn(seed))


class Following(Relaxation):
    """tau dx/dt = u - x."""

    n_in = 2

    def __init__(self, tau):
        super().__init__()
        self.tau = tau

    def target(self, t, x, u, alpha=0):
        return u

    def initial_state(self, *batch):
        return torch.full((*batch, 2), 0.25)


def before(x0, xs):
    """What a run holds before each of its steps."""
    return torch.cat([x0.expand(xs.shape[1:])[None], xs[:-1]])


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_the_delay_is_a_shift_that_begins_with_its_start_value(batch):
    us, start = rand(6, *batch, 2), rand(2)
    late = UnitDelay(initial=start)(us)
    assert torch.equal(late[1:], us[:-1])
    assert torch.equal(late[0], start.expand(*batch, 2))
    assert torch.equal(UnitDelay(0)(us), us)


def test_delays_compose_and_their_powers_add():
    us = rand(7, 3)
    for dt in (None, 0.3):
        once, twice, thrice = (UnitDelay(p, initial=0.5) for p in (1, 2, 3))
        assert torch.equal(twice(us, dt), once(once(us, dt), dt))
        assert torch.equal(thrice(us, dt), nn.Sequential(twice, once)(us) if dt is None else once(twice(us, dt), dt))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dt", [0.7, 0.5, 0.01])
def test_the_integrator_of_an_input_holds_the_delayed_input_bit_for_bit(dt, dtype):
    us, model = rand(9, 3, 2).to(dtype), Following(0.7).to(dtype)
    x0 = model.initial_state().to(dtype)
    held = before(x0, integrate(model, us, x0.expand(3, 2), dt=dt).xs)
    assert torch.equal(held, UnitDelay(initial=0.25, tau=0.7)(us, dt))
    assert torch.equal(held[1:], us[:-1]) is (dt == 0.7)


@pytest.mark.parametrize("power", [1, 2, 5])
@pytest.mark.parametrize("dt", [2.0, 1.0, 0.25])
def test_at_every_step_a_signal_comes_power_times_tau_later_on_average(power, dt):
    impulse = torch.zeros(2000, 1)
    impulse[0] = 1.0
    response = UnitDelay(power, tau=2.0)(impulse, dt)[:, 0]
    assert float(response.sum()) == pytest.approx(1.0, abs=1e-12)
    assert float(response @ (dt * torch.arange(2000.0))) == pytest.approx(2.0 * power, abs=1e-9)


def test_infinite_samples_pass_a_unit_delay_unharmed_and_empty_sequences_stay_empty():
    us = torch.tensor([[torch.inf], [1.0], [-torch.inf], [2.0]])
    assert UnitDelay()(us)[:, 0].tolist() == [0.0, torch.inf, 1.0, -torch.inf]
    assert UnitDelay()(us[:0]).shape == (0, 1)


def test_the_delay_of_a_run_of_an_lstm_is_a_tree_like_it():
    xs = integrate(LSTM(3, 2, generator=drawn()), rand(5, 4, 2), dt=1.0).xs
    late = UnitDelay()(xs)
    assert type(late) is type(xs)
    assert all(torch.equal(a[1:], b[:-1]) for a, b in zip(tree.leaves(late), tree.leaves(xs), strict=True))


@pytest.mark.parametrize("initial", [0.0, 0.5])
def test_an_elman_network_is_a_static_map_closed_through_the_delay(initial):
    net, us = Elman(5, 2, activation=torch.sigmoid, initial=initial, generator=drawn()), rand(8, 3, 2)
    hs = integrate(net, us, dt=1.0).xs

    def static(us, late):
        return torch.sigmoid(F.linear(late, net.W_rec, net.b_rec) + F.linear(us, net.W_in, net.b_in))

    delay = UnitDelay(initial=initial)
    assert float((static(us, delay(hs)) - hs).detach().abs().max()) < 1e-15  # a fixed point ...
    guess = torch.full_like(hs, initial)
    for _ in range(len(us)):  # ... and the only one: each round makes one more sample right
        guess = static(us, delay(guess))
    assert float((guess - hs).detach().abs().max()) < 1e-15


def test_wrong_powers_delays_and_steps_are_named():
    with pytest.raises(ValueError, match="power must be at least 0"):
        UnitDelay(-1)
    with pytest.raises(TypeError, match="power must be an integer"):
        UnitDelay(1.5)
    with pytest.raises(ValueError, match="tau must be positive"):
        UnitDelay(tau=0.0)
    for tau in (torch.ones(2), torch.tensor(1.0), "a"):
        with pytest.raises(TypeError, match="tau must be a number"):
            UnitDelay(tau=tau)
    for dt in (0.0, 1.5):
        with pytest.raises(ValueError, match="no longer than the delay tau = 1"):
            UnitDelay()(rand(3, 1), dt)


# --- Elman ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_at_dt_equal_to_tau_an_elman_network_is_nn_rnn(nonlinearity, layers, dtype, error):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        peer = nn.RNN(3, 8, layers, nonlinearity=nonlinearity).to(dtype)
    us, net = rand(40, 5, 3).to(dtype), Model.from_torch(peer)
    assert isinstance(net, Stack)
    expected, last = peer(us)
    run = integrate(net, us, dt=1.0)
    scale = float(expected.detach().abs().max())
    assert float((run.ys - expected).detach().abs().max()) < error * scale
    found = torch.autograd.grad(run.ys.square().sum(), list(net.parameters()))
    theirs = torch.autograd.grad(expected.square().sum(), list(peer.parameters()))
    for a, b in zip(found, theirs, strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max()) < 10 * error * float(b.abs().max())
    assert float((run.ys[-1] - last[-1]).detach().abs().max()) < error * scale


def test_the_context_begins_where_it_is_told_and_a_file_remembers():
    net = Elman(4, 2, activation=torch.sigmoid, initial=0.5, generator=drawn())
    assert net.initial_state(2, 3).tolist() == torch.full((2, 3, 4), 0.5).tolist()
    assert Elman.from_config(net.config).initial == 0.5
    us = rand(3, 2)
    assert torch.equal(integrate(net, us, dt=1.0).xs, integrate(net, us, torch.full((4,), 0.5), dt=1.0).xs)
    assert not torch.equal(integrate(net, us, dt=1.0).xs, integrate(net, us, torch.zeros(4), dt=1.0).xs)
    with pytest.raises(ValueError, match="pass it as hx"):
        Elman(4, 2, initial=0.5).to_torch()


def test_the_gradient_of_a_fully_recurrent_network_is_rtrl_and_bptt_and_the_central_difference():
    net = Elman(4, 2, generator=drawn())  # outputs are the first two of the units
    us, targets = rand(12, 3, 2, seed=1), rand(12, 3, 2, seed=2)

    def loss(**options):
        return (integrate(net, us, dt=1.0, solver=Euler(), **options).ys[..., :2] - targets).square().sum()

    weights = list(net.parameters())
    bptt, rtrl = torch.autograd.grad(loss(), weights), torch.autograd.grad(loss(adjoint=Forward()), weights)
    for a, b in zip(bptt, rtrl, strict=True):
        assert float((a - b).abs().max()) < 1e-12 * float(a.abs().max())
    for p, g in zip(weights, bptt, strict=True):
        direction, values = rand(*p.shape, seed=3), []
        for sign in (1, -1):
            with torch.no_grad():
                p += sign * 1e-5 * direction
                values.append(float(loss()))
                p -= sign * 1e-5 * direction
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(float((g * direction).sum()), rel=1e-7)


def test_a_leaky_elman_network_reaches_the_discrete_one_as_dt_reaches_tau():
    net, us = Elman(4, 2, generator=drawn()), rand(6, 2)
    discrete = integrate(net, us, dt=1.0).xs
    gaps = [float((integrate(net, us, dt=dt).xs - discrete).detach().abs().max()) for dt in (0.5, 0.9, 0.99, 1.0)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] == 0.0
