"""Truncated backpropagation through time."""

import pytest
import torch

from ctrnn import (
    CTRNN,
    LSTM,
    RK4,
    Adaptive,
    At,
    Backprop,
    Elman,
    Euler,
    Every,
    Fixed,
    Held,
    Iterate,
    Last,
    Linear,
    Silence,
    Step,
    Truncated,
    integrate,
)
from ctrnn import _tree as tree


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network():
    return CTRNN(3, 2, tau=torch.tensor([0.5, 1.0, 3.0]), learn_tau=True, generator=torch.Generator().manual_seed(0))


def elman(*sizes, **options):
    return Elman(*sizes, generator=torch.Generator().manual_seed(0), **options)


def weighed(xs):
    """Every number with a weight of its own, and not linear."""
    return sum((leaf * rand(*leaf.shape, seed=7)).sum() + leaf.square().sum() for leaf in tree.leaves(xs))


def gradients(value, model, *others):
    found = torch.autograd.grad(value, [*model.parameters(), *others], allow_unused=True)
    return [torch.zeros(()) if g is None else g for g in found]


def distance(a, b):
    return max(float((x - y).abs().max() / y.abs().max().clamp(min=1e-30)) for x, y in zip(a, b, strict=True))


def by_hand(model, us, x0, k, dt, solver):
    """Each state reached again from the detached one k steps before it."""
    step, states = Step(model, solver), [x0]
    for j, u in enumerate(us):
        states.append(step(torch.tensor(j * dt), dt, states[-1], u))
    saved = []
    for end in range(1, len(us) + 1):
        start = max(0, end - k)
        x = x0 if start == 0 else tree.map(torch.Tensor.detach, states[start])
        for j in range(start, end):
            x = step(torch.tensor(j * dt), dt, x, us[j])
        saved.append(x)
    return tree.map(lambda *leaves: torch.stack(leaves), *saved)


@pytest.mark.usefixtures("on_the_plain_path")
@pytest.mark.parametrize("k", [1, 2, 5, 8, 20])
@pytest.mark.parametrize(
    ("make", "dt", "solver"),
    [(network, 0.1, Euler()), (network, 0.1, RK4()), (LSTM.example, 1.0, Iterate())],
    ids=["euler", "rk4", "lstm"],
)
def test_the_gradient_is_that_of_a_loop_with_detach(make, dt, solver, k):
    model, us = make(), rand(8, 2, 2).requires_grad_()
    x0 = tree.map(lambda leaf: rand(*leaf.shape, seed=3).requires_grad_(), model.initial_state(2))
    run = integrate(model, us, x0, dt=dt, solver=solver, adjoint=Truncated(k))
    expected = by_hand(model, us, x0, k, dt, solver)
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(run.xs), tree.leaves(expected), strict=True))
    others = [us, *tree.leaves(x0)]
    found = gradients(weighed(run.xs), model, *others)
    assert distance(found, gradients(weighed(expected), model, *others)) < 1e-12
    full = gradients(weighed(integrate(model, us, x0, dt=dt, solver=solver).xs), model, *others)
    assert distance(found, full) < 1e-12 if k >= len(us) else distance(found, full) > 1e-3


def test_as_many_steps_as_the_run_has_are_backprop_bit_for_bit():
    model, us = elman(6, 2), rand(9, 4, 2)
    found, expected = (
        gradients(weighed(integrate(model, us, dt=1.0, adjoint=adjoint).xs), model)
        for adjoint in (Truncated(9), Backprop())
    )
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_one_step_is_training_in_which_the_context_is_one_more_input():
    """Elman (1990): at each sample the context is a pattern like the input, and the error stops at it."""
    net, us, targets = elman(5, 2, 1, activation=torch.sigmoid, initial=0.5), rand(7, 3, 2), rand(7, 3, 1, seed=1)
    run = integrate(net, us, dt=1.0, adjoint=Truncated(1))
    found = gradients((run.ys - targets).square().sum(), net)
    with torch.no_grad():
        hs = integrate(net, us, dt=1.0).xs
    context = torch.cat([torch.full((1, 3, 5), 0.5), hs[:-1]])
    outputs = net.readout(net.target(torch.tensor(0.0), context, us))  # all samples at once: a static network
    assert distance(found, gradients((outputs - targets).square().sum(), net)) < 1e-12


@pytest.mark.parametrize(
    "save", [Last(), Every(3), At(torch.tensor([0.15, 0.4, 0.72]))], ids=lambda s: type(s).__name__
)
def test_only_steps_before_what_is_saved_count_whatever_is_saved_besides(save):
    model, us, options = network(), rand(8, 2, 2), {"steps": Fixed(0.05), "solver": Euler()}
    run = integrate(model, Held(us, 0.1), save=save, adjoint=Truncated(4), **options)
    cuts = {"save": save} if isinstance(save, At) else {"save": Every(1)}
    all_ = integrate(model, Held(us, 0.1), adjoint=Truncated(4), **options, **cuts)
    chosen = all_.xs if isinstance(save, At) else all_.xs[-1:] if isinstance(save, Last) else all_.xs[2::3]
    found = gradients(weighed(run.xs), model)
    assert distance(found, gradients(weighed(chosen), model)) < 1e-12
    assert distance(found, gradients(weighed(integrate(model, Held(us, 0.1), save=save, **options).xs), model)) > 1e-3


@pytest.mark.parametrize("k", [1, 3])
def test_samples_of_different_lengths_are_truncated_as_each_would_be_alone(k):
    model, us, lengths = network(), rand(7, 3, 2), torch.tensor([4, 7, 2])
    run = integrate(model, Held(us, 0.1, lengths=lengths), adjoint=Truncated(k))
    value = weighed(torch.where(run.xs.isnan(), 0.0, run.xs))
    alone = torch.zeros_like(run.xs)
    rows = []
    for i, n in enumerate(lengths.tolist()):
        xs = integrate(model, us[:n, i], dt=0.1, adjoint=Truncated(k)).xs
        rows.append(torch.cat([xs, xs[-1:].expand(len(us) - n, 3)]))  # a finished sample keeps its state
    alone = torch.stack(rows, 1)
    expected = weighed(torch.where(run.xs.isnan(), 0.0, alone))
    torch.testing.assert_close(value, expected)
    assert distance(gradients(value, model), gradients(expected, model)) < 1e-11


def test_edges_of_each_sample_nodes_and_silence_run_in_windows_too():
    model, us = network(), rand(6, 2, 2)
    edges = (0.1 * torch.arange(7.0)[:, None] * torch.tensor([1.0, 1.3])).requires_grad_()
    for drive, times in ((Held(us, edges=edges), [edges]), (Linear(us, 0.1), []), (Silence(), [])):
        span = {} if times or isinstance(drive, Linear) else {"t_span": (0.0, 0.6)}
        options = span | {"x0": rand(2, 3), "steps": Fixed(0.1), "solver": Euler()}
        plain, short = (integrate(model, drive, adjoint=a, **options) for a in (Backprop(), Truncated(2)))
        assert torch.equal(plain.xs, short.xs)
        found, full = (gradients(weighed(run.xs), model, *times) for run in (short, plain))
        assert distance(found, full) > 1e-4
        assert all(torch.isfinite(g).all() for g in found)


def test_the_noise_of_a_window_is_that_of_the_run():
    model, options = network(), {"t_span": (0.0, 8.0), "steps": Fixed(0.05), "noise": 0.2}
    plain, short = (
        integrate(model, None, torch.zeros(2, 3), generator=torch.Generator().manual_seed(4), adjoint=a, **options).xs
        for a in (Backprop(), Truncated(3))
    )
    assert len(plain) == 160
    assert torch.equal(plain, short)


def test_the_backward_pass_is_linear_in_time():
    def work(steps):
        us = rand(steps, 1, 2).requires_grad_()
        run = integrate(elman(3, 2), us, dt=1.0, adjoint=Truncated(1))
        with torch.profiler.profile(profile_memory=True) as found:
            run.xs.sum().backward()
        return sum(event.self_cpu_memory_usage for event in found.events() if event.self_cpu_memory_usage > 0)

    assert work(200) < 2.5 * work(100)


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_a_count_below_one_is_an_error(steps):
    with pytest.raises(ValueError, match="steps must be at least 1"):
        Truncated(steps)


def test_adaptive_steps_cannot_be_counted():
    with pytest.raises(ValueError, match=r"Truncated\(steps=3\) counts steps.*Fixed\(dt\)"):
        integrate(network(), Held(rand(4, 2, 2), 0.1), steps=Adaptive(), adjoint=Truncated(3))
