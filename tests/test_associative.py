import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard
from scipy.stats import binom

from ctrnn import Adaptive, Euler, Fixed, Iterate, integrate, learning
from ctrnn.models import BAM, AdaptiveBAM, AdaptiveBAMState, BAMState, Hopfield, ModernHopfield

seeds = st.integers(0, 10**6)


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def signs(*shape, seed=0):
    return 2.0 * torch.randint(2, shape, generator=seeded(seed)).double() - 1


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def symmetric(n, seed, diagonal=False):
    W = normal(n, n, seed=seed)
    W = (W + W.T) / 2
    return W if diagonal else W - torch.diag(W.diagonal())


def relax(model, x0, samples=20, dt=1.0, steps=None):
    """Without input; the states after every dt."""
    first = x0 if isinstance(x0, torch.Tensor) else x0[0]
    held = torch.zeros(samples, *first.shape[:-1], model.n_in, dtype=torch.float64)
    with torch.no_grad():
        return integrate(model, held, x0, dt=dt, steps=steps)


def test_whole_steps_switch_all_units_at_once():
    W = learning.hebbian(signs(3, 20))
    V = signs(5, 20, seed=1)
    held = torch.zeros(4, 5, 20, dtype=torch.float64)
    run = integrate(Hopfield.of(W), held, V, dt=1.0, solver=Iterate())
    for k in range(4):
        V = torch.where(V @ W.T >= 0, 1.0, -1.0)
        assert torch.equal(run.ys[k], V)


def test_a_stored_pattern_is_recalled_from_a_noisy_one():
    patterns = signs(4, 100)
    noisy = patterns.clone()
    noisy[:, :15] *= -1
    for W in (learning.hebbian(patterns), learning.pseudo_inverse(patterns)):
        for gain in (math.inf, 4.0):
            recalled = relax(Hopfield.of(W, gain=gain), noisy, steps=Fixed(0.5)).ys[-1].sign()
            assert torch.equal(recalled, patterns)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, gain=st.sampled_from([math.inf, 0.7, 3.0]))
def test_units_that_switch_one_by_one_never_climb(seed, gain):
    model = Hopfield.of(symmetric(8, seed), gain=gain)
    with torch.no_grad():
        model.b_rec.copy_(normal(8, seed=seed + 1))
    x, u = normal(3, 8, seed=seed + 2), normal(3, 8, seed=seed + 3)
    before = model.energy(x, u)
    for i in torch.randint(8, (40,), generator=seeded(seed)):
        x = model.sweep(x, i.reshape(1), u)
        after = model.energy(x, u)
        assert bool((after <= before + 1e-12).all())
        before = after


@settings(max_examples=10, deadline=None)
@given(seed=seeds, gain=st.sampled_from([0.5, 2.0]))
def test_the_flow_never_climbs(seed, gain):
    model = Hopfield.of(symmetric(6, seed, diagonal=True), gain=gain)
    run = relax(model, normal(4, 6, seed=seed + 1), steps=Adaptive(1e-9, 1e-11))
    energies = model.energy(run.xs).detach()
    assert bool((energies.diff(dim=0) <= 1e-8).all())
    assert float(energies[0].sub(energies[-1]).max()) > 1e-3


def test_without_symmetry_the_network_runs_as_given_and_may_climb():
    W = torch.tensor([[0.0, 3.0], [-1.0, 0.0]], dtype=torch.float64)
    model, x = Hopfield.of(W), torch.ones(2, dtype=torch.float64)
    assert torch.equal(model.W_rec, W)
    energies = [model.energy(state).item() for state in (x, model.sweep(x, torch.tensor([1])))]
    assert energies == [-1.0, 1.0]


def test_the_energy_is_the_integral_of_its_slope():
    model = Hopfield.of(symmetric(5, 0), gain=1.7)
    x = normal(5, seed=1).requires_grad_()
    u = normal(5, seed=2)
    (slope,) = torch.autograd.grad(model.energy(x, u), x)
    V = torch.tanh(1.7 * x)
    along_V = x - model.W_rec @ V - u  # dE/dV = g^-1(V) - W V - u, so that dx/dt = -dE/dV
    torch.testing.assert_close(slope, along_V * 1.7 * (1 - V**2), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(model(torch.tensor(0.0), x, u), -along_V, rtol=1e-12, atol=1e-12)


def test_switching_at_once_may_cycle_where_the_flow_comes_to_rest():
    W = torch.tensor([[0.0, -1.0], [-1.0, 0.0]], dtype=torch.float64)
    start = torch.ones(2, dtype=torch.float64)
    held = torch.zeros(6, 2, dtype=torch.float64)
    at_once = integrate(Hopfield.of(W), held, start, dt=1.0, solver=Iterate()).ys
    assert at_once.tolist() == [[-1.0, -1.0], [1.0, 1.0]] * 3
    graded = Hopfield.of(W, gain=5.0)
    assert float(relax(graded, start).ys.diff(dim=0).abs().min()) > 1.9
    flow = relax(graded, start + torch.tensor([1e-3, 0.0]), 40, steps=Adaptive(1e-9, 1e-9))
    assert flow.ys[-1].sign().tolist() == [1.0, -1.0]
    assert float(graded(torch.tensor(0.0), flow.xs[-1], torch.zeros(2).double()).detach().abs().max()) < 1e-6


@settings(max_examples=20, deadline=None)
@given(seed=seeds, n_patterns=st.integers(1, 12))
def test_patterns_stored_one_by_one_are_stored_at_once(seed, n_patterns):
    patterns = signs(n_patterns, 12, seed=seed)
    hebb = projection = torch.zeros(12, 12, dtype=torch.float64)
    for pattern in patterns:
        hebb = learning.hebbian_step(hebb, pattern)
        projection = learning.pseudo_inverse_step(projection, pattern)
    torch.testing.assert_close(hebb, learning.hebbian(patterns), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(projection, learning.pseudo_inverse(patterns), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(patterns @ projection.T, patterns, rtol=1e-7, atol=1e-7)


def test_the_projection_holds_as_many_independent_patterns_as_there_are_units():
    patterns = normal(16, 16).sign()
    assert int(torch.linalg.matrix_rank(patterns)) == 16
    model = Hopfield.of(learning.pseudo_inverse(patterns))
    assert torch.equal(relax(model, patterns, 3).ys[-1], patterns)


def test_the_projection_without_its_diagonal_holds_signs():
    patterns = signs(9, 16)
    W = learning.pseudo_inverse(patterns)
    assert float(W.diagonal().max()) < 1
    hollow = W - torch.diag(W.diagonal())
    assert torch.equal(relax(Hopfield.of(hollow), patterns, 1).ys[-1], patterns)
    assert float((patterns @ hollow.T - patterns).abs().max()) > 0.1


# Kosko (1988): two pairs whose memory, recall and energies he works out.
A = torch.tensor([[1.0, -1, 1, -1, 1, -1], [1, 1, 1, -1, -1, -1]], dtype=torch.float64)
B = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1]], dtype=torch.float64)


def test_koskos_example():
    M = learning.correlation(A, B)
    rows = [[2, 0, 0, -2], [0, -2, 2, 0], [2, 0, 0, -2], [-2, 0, 0, 2], [0, 2, -2, 0], [-2, 0, 0, 2]]
    assert M.tolist() == [[float(v) for v in row] for row in rows]
    assert ((A > 0).double() @ M).tolist() == [[4, 2, -2, -4], [4, -2, 2, -4]]
    assert ((B > 0).double() @ M.T)[0].tolist() == [2, -2, 2, -2, 2, -2]
    model = BAM.of(M)
    energies = model.energy(BAMState(A, B))
    assert energies[0] == energies[1]
    start = BAMState(A, torch.zeros(2, 4, dtype=torch.float64))
    run = integrate(model, torch.zeros(3, 2, 10, dtype=torch.float64), start, dt=1.0, solver=Iterate())
    for said in run.ys:
        assert torch.equal(said, torch.cat([A, B], -1))


@settings(max_examples=10, deadline=None)
@given(seed=seeds, gain=st.sampled_from([math.inf, 0.8]))
def test_reverberation_never_climbs_and_comes_to_rest(seed, gain):
    model = BAM.of(normal(7, 5, seed=seed), gain=gain)
    x0 = BAMState(normal(4, 7, seed=seed + 1), normal(4, 5, seed=seed + 2))
    run = integrate(model, torch.zeros(60, 4, 12, dtype=torch.float64), x0, dt=1.0, solver=Iterate())
    energies = model.energy(run.xs).detach()
    assert bool((energies.diff(dim=0) <= 1e-12).all())
    if math.isinf(gain):
        assert torch.equal(run.ys[-1], run.ys[-2])


@pytest.mark.parametrize("gain", [0.9, 3.0])
def test_in_continuous_time_it_is_a_hopfield_network_of_both_fields(gain):
    M = normal(5, 3)
    W = torch.cat([torch.cat([torch.zeros(5, 5).double(), M], 1), torch.cat([M.T, torch.zeros(3, 3).double()], 1)])
    bam, block = BAM.of(M, gain=gain), Hopfield.of(W, gain=gain)
    x, u, t = normal(4, 8, seed=1), normal(4, 8, seed=2), torch.tensor(0.0)
    parts = BAMState(*x.split((5, 3), -1))
    torch.testing.assert_close(torch.cat(tuple(bam(t, parts, u)), -1), block(t, x, u), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(bam.energy(parts, u), block.energy(x, u), rtol=1e-12, atol=1e-12)
    # A whole step is the block network's with y switched first, then x.
    order = torch.tensor([5, 6, 7, 0, 1, 2, 3, 4])
    stepped = integrate(bam, u.unsqueeze(0), parts, dt=1.0, solver=Euler()).xs
    swept = block.sweep(x, order, u)
    torch.testing.assert_close(torch.cat([stepped.x[0], stepped.y[0]], -1), swept, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_one_update_of_the_modern_network_is_attention(beta):
    patterns, queries = normal(6, 4), normal(9, 4, seed=1)
    model = ModernHopfield.of(patterns, beta=beta)
    updated = relax(model, queries, 1).xs[-1]
    expected = F.scaled_dot_product_attention(queries, patterns, patterns, scale=beta)
    torch.testing.assert_close(updated, expected, rtol=1e-12, atol=1e-13)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, beta=st.floats(0.1, 8.0), dt=st.sampled_from([1.0, 0.3]))
def test_the_modern_network_never_climbs(seed, beta, dt):
    model = ModernHopfield.of(normal(6, 4, seed=seed), beta=beta)
    run = relax(model, normal(5, 4, seed=seed + 1), 12, dt)
    energies = model.energy(run.xs).detach()
    assert len(energies) == 12
    assert bool((energies.diff(dim=0) <= 1e-12).all())
    assert bool((energies >= 0).all())


def test_the_modern_flow_is_gradient_descent():
    model = ModernHopfield.of(normal(6, 4), beta=1.3, tau=2.0)
    x = normal(4, seed=1).requires_grad_()
    (slope,) = torch.autograd.grad(model.energy(x), x)
    torch.testing.assert_close(model(torch.tensor(0.0), x, x[:0]), -slope / 2, rtol=1e-12, atol=1e-13)


def test_it_stores_far_more_patterns_than_units():
    patterns = signs(2000, 64)
    noisy = patterns[:50].clone()
    noisy[:, :6] *= -1
    model = ModernHopfield.of(patterns, beta=0.5)
    assert torch.equal(relax(model, noisy, 5).xs[-1].sign(), patterns[:50])


def test_what_cannot_be_stored_is_refused():
    with pytest.raises(ValueError, match="gain = 0"):
        Hopfield(3, gain=0)
    with pytest.raises(ValueError, match="square"):
        Hopfield.of(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"\(unit, unit\), got the shape \(3,\)"):
        Hopfield.of(torch.zeros(3))
    with pytest.raises(ValueError, match="n must be at least 1"):
        Hopfield.of(torch.zeros(0, 0))
    for of, name in ((Hopfield.of, "weights"), (BAM.of, "the memory"), (ModernHopfield.of, "patterns")):
        with pytest.raises(TypeError, match=f"{name} must be a floating-point Tensor .* got list"):
            of([[0.0]])
        with pytest.raises(TypeError, match=f"{name} must be a floating-point Tensor .* got torch.int64"):
            of(torch.zeros(2, 2, dtype=torch.long))
    for make in (lambda: Hopfield(3, gain="a"), lambda: ModernHopfield(3, 2, beta="a")):
        with pytest.raises(TypeError, match="must be a number, got 'a'"):
            make()
    for order in ([0, 1], torch.zeros(2), torch.tensor(0)):
        with pytest.raises(TypeError, match="order must be an integer Tensor"):
            Hopfield(3).sweep(torch.zeros(3), order)
    with pytest.raises(ValueError, match=r"units from 0 to 2, got \[3\]"):
        Hopfield(3).sweep(torch.zeros(3), torch.tensor([3]))
    with pytest.raises(ValueError, match="beta"):
        ModernHopfield(3, 2, beta=math.inf)
    with pytest.raises(ValueError, match="pattern, unit"):
        learning.hebbian(torch.ones(3))
    for store in (learning.hebbian, lambda patterns: learning.hebbian_step(torch.zeros(2, 2), patterns[0])):
        with pytest.raises(ValueError, match="got 0: 2"):
            store(torch.tensor([[1.0, 0.0]]))
    with pytest.raises(ValueError, match="floating-point"):
        learning.pseudo_inverse(torch.ones(3, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="no pairs"):
        learning.correlation(torch.ones(3, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="does not fit"):
        learning.hebbian_step(torch.zeros(3, 3), torch.ones(2))
    with pytest.raises(ValueError, match="NaN"):
        learning.hebbian(torch.full((2, 2), torch.nan))


def test_infinite_gain_survives_a_file(tmp_path):
    Hopfield.of(symmetric(4, 0)).save(tmp_path / "m.safetensors")
    assert Hopfield.load(tmp_path / "m.safetensors").gain == math.inf


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_units_that_switch_at_once_end_at_rest_or_in_a_cycle_of_two(seed):
    ys = relax(Hopfield.of(symmetric(16, seed)), signs(8, 16, seed=seed + 1), 80).ys
    assert torch.equal(ys[-1], ys[-3])


def test_a_sweep_of_graded_units_has_a_gradient():
    model = Hopfield.of(symmetric(4, 0), gain=1.3)
    order, x = torch.tensor([2, 0, 3, 1, 2]), normal(2, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, W: model.sweep(x, order), (x, model.W_rec))


def test_a_unit_without_a_field_shows_plus_one():
    ys = relax(Hopfield.of(torch.zeros(2, 2).double()), -torch.ones(2).double(), 1).ys
    assert ys.tolist() == [[1.0, 1.0]]


def test_as_many_units_leave_a_stored_pattern_as_the_binomial_tail_says():
    n, count = 64, 17
    # Each unit's field is n - 1 for it and the sum of (n - 1)(count - 1) signs; without a field it shows +1.
    terms = (n - 1) * (count - 1)
    tail = binom(terms, 0.5)
    against = terms / 2 + (n - 1) / 2  # signs against it that leave no field
    expected = tail.sf(against) + tail.pmf(against) / 2
    patterns = [signs(count, n, seed=seed) for seed in range(400)]
    wrong = [(relax(Hopfield.of(learning.hebbian(p)), p, 1).ys[-1] != p).double().mean() for p in patterns]
    measured = torch.stack(wrong)
    assert abs(float(measured.mean()) - expected) < 4 * float(measured.std()) / 20
    assert abs(expected - math.erfc(math.sqrt(n / (2 * (count - 1)))) / 2) < 0.002


def test_the_modern_network_averages_all_patterns_or_similar_ones_or_none():
    rows = torch.tensor(hadamard(8), dtype=torch.float64)
    patterns = torch.cat([rows[1:3].repeat_interleave(2, 0).repeat(1, 2), rows[3:7]], 1)  # two clusters of two
    for beta, alike in ((0.01, 4), (0.22, 2), (2.0, 1)):
        rest = relax(ModernHopfield.of(patterns, beta=beta), patterns[:1] + 0.01 * normal(1, 24), 400).xs[-1, 0]
        torch.testing.assert_close(rest, patterns[:alike].mean(0), rtol=0, atol=0.05)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, gain=st.sampled_from([0.5, 2.0]))
def test_the_flow_of_two_fields_never_climbs(seed, gain):
    model = BAM.of(normal(4, 3, seed=seed), gain=gain, tau=BAMState(x=1.0, y=0.3))
    x0 = BAMState(normal(5, 4, seed=seed + 1), normal(5, 3, seed=seed + 2))
    run = relax(model, x0, 10, steps=Adaptive(1e-7, 1e-9))
    assert bool((model.energy(run.xs).diff(dim=0) <= 1e-6).all())


def test_a_pair_more_is_stored_by_adding_it():
    keys, values = signs(5, 12), signs(5, 7, seed=1)
    M = sum(learning.correlation(keys[k : k + 1], values[k : k + 1]) for k in range(5))
    assert torch.equal(M, learning.correlation(keys, values))


def learner(seed, gain, tau):
    model = AdaptiveBAM(4, 3, gain=gain, tau=tau).double()
    with torch.no_grad():
        model.W.copy_(normal(4, 3, seed=seed))
    shapes = ((5, 4), (5, 3), (5, 4, 3))
    return model, AdaptiveBAMState(*[normal(*shape, seed=seed + k) for k, shape in enumerate(shapes, 1)])


@settings(max_examples=10, deadline=None)
@given(seed=seeds, gain=st.sampled_from([math.inf, 0.7, 3.0]))
def test_fields_and_memory_that_change_together_never_climb(seed, gain):
    model, x0 = learner(seed, gain, 1.0)
    energies = model.energy(relax(model, x0, 30).xs)
    assert bool((energies.diff(dim=0) <= 1e-12).all())
    if math.isfinite(gain):
        model.tau = AdaptiveBAMState(x=1.0, y=0.3, M=5.0)
        energies = model.energy(relax(model, x0, 10, steps=Adaptive(1e-7, 1e-9)).xs).detach()
        assert bool((energies.diff(dim=0) <= 1e-6).all())
        assert float(energies[0].sub(energies[-1]).max()) > 1e-3


def test_the_memory_is_what_was_shown_weighted_by_how_long_ago():
    keys, values, samples, alpha = signs(3, 4), signs(3, 3, seed=1), 5, 0.1
    us = 100 * torch.cat([keys, values], -1).repeat_interleave(samples, 0)
    model = AdaptiveBAM(4, 3, gain=math.inf, tau=AdaptiveBAMState(x=1.0, y=1.0, M=1 / alpha)).double()
    with torch.no_grad():
        M = integrate(model, us, dt=1.0).xs.M[-1]
        at_once = integrate(AdaptiveBAM(4, 3, gain=math.inf).double(), us, dt=1.0).xs.M[-1]
    weights = [(1 - (1 - alpha) ** samples) * (1 - alpha) ** (samples * (2 - k)) for k in range(3)]
    expected = sum(w * torch.outer(x, y) for w, x, y in zip(weights, keys, values, strict=True))
    torch.testing.assert_close(M, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(at_once, torch.outer(keys[-1], values[-1]))


def test_a_memory_that_learns_no_more_is_a_bam():
    model, x0 = learner(0, 1.3, AdaptiveBAMState(x=1.0, y=0.5, M=1e9))
    shared = x0.M[0]
    x0 = x0._replace(M=shared.expand(5, 4, 3))
    learned = relax(model, x0, 5, 0.25).xs
    frozen = relax(model.frozen(shared), BAMState(x0.x, x0.y), 5, 0.25).xs
    torch.testing.assert_close((learned.x, learned.y), tuple(frozen), rtol=1e-7, atol=1e-7)


def test_an_adaptive_memory_survives_a_file(tmp_path):
    model, x0 = learner(0, 1.3, AdaptiveBAMState(x=1.0, y=0.5, M=4.0))
    model.save(tmp_path / "m.safetensors")
    loaded = AdaptiveBAM.load(tmp_path / "m.safetensors").double()
    assert torch.equal(relax(loaded, x0, 3, 0.5).xs.M, relax(model, x0, 3, 0.5).xs.M)
