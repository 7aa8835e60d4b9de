import numpy as np
import pytest
import reservoirpy.nodes as peer
import torch
from reservoirpy.observables import memory_capacity as peers_capacity

from ctrnn import EchoState, Fixed, init
from ctrnn.analysis import linear_memory, memory_capacity


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def linear(W, n_driven=1):
    """A linear reservoir whose first units are driven."""
    model = EchoState(len(W), 1, activation=torch.nn.Identity(), generator=seeded()).double()
    model.W_rec.data, model.W_in.data = W, (torch.arange(len(W)) < n_driven).double()[:, None]
    return model


def noise(n, seed=1):
    return torch.randn(n, 1, dtype=torch.float64, generator=seeded(seed))


def closed_form(n, weight, lags):
    """A ring's memory: (1 - w^(2n)) w^(2n floor(lag / n)), a staircase."""
    turn = weight ** (2 * n)
    return (1 - turn) * turn ** (torch.arange(lags, dtype=torch.float64) // n)


@pytest.mark.parametrize("n", [1, 7, 20])
def test_a_delay_line_remembers_as_many_samples_as_it_has_units_and_no_other(n):
    found = memory_capacity(
        linear(init.delay_line(n, dtype=torch.float64)), noise(2000), dt=1.0, lags=n + 5, held_out=500
    )
    torch.testing.assert_close(found.share[:n], torch.ones(n, dtype=torch.float64), rtol=0, atol=1e-9)
    assert float(found.share[n:].max()) < 0.05


def test_a_ring_remembers_in_a_staircase_whose_sum_is_n():
    n, weight = 10, 0.96
    expected = closed_form(n, weight, 100)
    torch.testing.assert_close(
        linear_memory(torch.linalg.eigvals(init.ring(n, weight, dtype=torch.float64)), 100).share, expected
    )
    found = memory_capacity(
        linear(init.ring(n, weight, dtype=torch.float64)), noise(20_000), dt=1.0, lags=100, held_out=10_000
    )
    torch.testing.assert_close(found.share, expected, rtol=0, atol=0.05)
    # Readings of the same samples, one step shifted, err together: the sum has a standard error of 0.13.
    assert found.capacity == pytest.approx(n, abs=0.4)


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_the_memory_of_a_linear_network_follows_from_its_eigenvalues(alpha):
    W, w = torch.randn(4, 4, dtype=torch.float64, generator=seeded(3)), noise(4, 4)
    A = (1 - alpha) * torch.eye(4, dtype=torch.float64) + alpha * init.scaled(W, 0.8)
    powers = [w]
    for _ in range(3000):
        powers.append(A @ powers[-1])
    v = torch.cat(powers, -1)
    share = (v * torch.linalg.solve(v @ v.T, v)).sum(0)[:40]
    torch.testing.assert_close(linear_memory(torch.linalg.eigvals(A), 40).share, share, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("n", [1, 30, 100])
def test_every_linear_network_has_a_capacity_of_n(n):
    W = init.spectral_radius(n, 0.9, generator=seeded(n), dtype=torch.float64)
    assert linear_memory(torch.linalg.eigvals(W), 2000).capacity == pytest.approx(n, rel=1e-9)


def test_finer_steps_forget_as_the_eigenvalues_of_the_steps_say():
    model, dt = linear(init.ring(5, 0.9, dtype=torch.float64)), 1.0
    one = 1 + 0.25 * (torch.linalg.eigvals(model.W_rec) - 1)
    found = memory_capacity(model, noise(8000), dt=dt, lags=20, steps=Fixed(0.25), held_out=4000)
    torch.testing.assert_close(found.share, linear_memory(one**4, 20).share, rtol=0, atol=0.05)


def test_no_network_remembers_more_than_it_has_units():
    for scale in (0.01, 1.0):
        model = EchoState(15, 1, input_scale=scale, bias_scale=0.3, generator=seeded()).double()
        found = memory_capacity(model, noise(12_000), dt=1.0, lags=80, held_out=4000)
        assert found.capacity - 80 / 4000 <= 15.05


def test_the_squared_correlations_are_those_of_reservoirpy():
    twin = peer.Reservoir(30, sr=0.9, seed=1) >> peer.Ridge(ridge=1e-4)
    rng = np.random.default_rng(0)
    us = rng.uniform(-0.8, 0.8, (400, 1))
    theirs = peers_capacity(twin, 20, as_list=True, series=us, test_size=100)
    reservoir = twin.nodes[0]
    reservoir.initialize(us)
    model = EchoState(30, 1, generator=seeded()).double()
    model.W_rec.data = torch.as_tensor(np.asarray(reservoir.W.todense()))
    model.W_in.data = torch.as_tensor(np.asarray(reservoir.Win.todense())).reshape(30, 1)
    # Their first sample is the one that has a past of 20 samples, and 20 more are skipped.
    found = memory_capacity(model, torch.as_tensor(us[20:]), dt=1.0, lags=21, washout=20, held_out=100, penalty=1e-4)
    np.testing.assert_allclose(found.share[1:].numpy(), theirs, atol=1e-6)


def test_what_cannot_be_measured_is_refused():
    model = linear(init.ring(3, 0.5, dtype=torch.float64))
    with pytest.raises(ValueError, match="one input"):
        memory_capacity(model, torch.zeros(500, 2), dt=1.0, lags=3)
    with pytest.raises(ValueError, match="lags = 200"):
        memory_capacity(model, noise(2000), dt=1.0, lags=200)
    with pytest.raises(ValueError, match="held_out"):
        memory_capacity(model, noise(500), dt=1.0, lags=3)
    with pytest.raises(ValueError, match="below 1"):
        linear_memory(torch.tensor([0.5, 1.0]), 5)
