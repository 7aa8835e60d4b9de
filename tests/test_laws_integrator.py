import pytest
import torch

from ctrnn import RK4, Adaptive, At, Euler, Fixed, Function, Held, Iterate, Last, integrate, plain
from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation
from ctrnn.models.memory.segments import Segmented
from tests.laws import model_classes, point, relaxation_classes

every_model = pytest.mark.parametrize("kind", model_classes(), ids=lambda kind: kind.__name__)
every_relaxation = pytest.mark.parametrize("kind", relaxation_classes(), ids=lambda kind: kind.__name__)


def scene(kind, *batch, time=4):
    """A model, a state, samples and a time that is short for it: a quarter of its smallest time constant."""
    model, generator = kind.example(), torch.Generator().manual_seed(1)
    us = torch.randn(time, *batch, model.n_in, generator=generator)
    if not isinstance(model, Relaxation):  # concentrations, for one, must not be negative
        x = tree.map(
            lambda leaf: leaf * (1 - 0.2 * torch.rand(leaf.shape, generator=generator)), model.initial_state(*batch)
        )
        return model, x, us, 2e-4
    _, x, _ = point(model, *batch)
    return model, x, us, 0.25 * min(float(tau.detach().min()) for tau in tree.leaves(model.tau))


def assert_close(a, b, rtol=1e-12, atol=1e-12):
    for left, right in zip(tree.leaves(a), tree.leaves(b), strict=True):
        torch.testing.assert_close(left, right, rtol=rtol, atol=atol)


@every_relaxation
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dt", [1.0, 0.1, 1 / 3])
def test_euler_at_dt_equal_tau_is_the_discrete_network_bit_for_bit(kind, dtype, dt):
    model, x, us, _ = scene(kind, 2)
    model, x, us = model.to(dtype), tree.map(lambda leaf: leaf.to(dtype), x), us.to(dtype)
    model.tau = tree.map(lambda tau: dt, model.tau)
    euler, iterated = (integrate(model, us, x, dt=dt, solver=solver) for solver in (Euler(), Iterate()))
    for a, b in zip(tree.leaves(euler.xs), tree.leaves(iterated.xs), strict=True):
        assert torch.equal(a, b)
    with plain():
        euler = integrate(model, us, x, dt=dt)
    t, state = torch.tensor(0.0, dtype=torch.float64), x
    for k, u in enumerate(us):
        state = model.target(t + k * dt, state, u, 1)
        assert all(torch.equal(a[k], b) for a, b in zip(tree.leaves(euler.xs), tree.leaves(state), strict=True))


@every_model
@pytest.mark.parametrize("how", ["fixed", "adaptive", "ragged"])
def test_a_row_of_a_batch_runs_as_it_would_alone(kind, how):
    model, x, us, dt = scene(kind, 3)
    lengths = torch.tensor([4, 2, 3])
    options = {"steps": Adaptive(1e-6, 1e-8)} if how == "adaptive" else {}
    run = integrate(model, Held(us, dt, lengths=lengths if how == "ragged" else None), x, **options)
    near = 1e-5 if issubclass(kind, Segmented) else 1e-12  # where segments begin, to the tolerance of the steps only
    for i, n in enumerate(lengths.tolist()):
        alone = integrate(model, Held(us[:, i], dt), tree.map(lambda leaf, i=i: leaf[i], x), **options)
        until = n if how == "ragged" else 4
        assert_close(
            tree.map(lambda leaf, i=i, n=until: leaf[:n, i], run.xs),
            tree.map(lambda leaf, n=until: leaf[:n], alone.xs),
            rtol=near,
            atol=near,
        )
        if how == "adaptive" and not issubclass(
            kind, Segmented
        ):  # rounding decides on which side of a jump a step ends
            assert run.stats.steps[i] == alone.stats.steps
            assert run.stats.rejected[i] == alone.stats.rejected


@every_model
def test_as_dt_goes_to_zero_the_run_becomes_the_adaptive_one(kind):
    model, x, us, dt = scene(kind, 2)
    fine = integrate(model, us, x, dt=dt, steps=Adaptive(1e-10, 1e-12), save=Last()).xs
    distances = []
    for parts in (4, 8, 16):
        coarse = integrate(model, us, x, dt=dt, steps=Fixed(dt / parts), solver=Euler(), save=Last()).xs
        distances.append(
            sum(
                float((a - b).detach().abs().sum()) for a, b in zip(tree.leaves(coarse), tree.leaves(fine), strict=True)
            )
        )
    assert distances[1] < 0.6 * distances[0]
    assert distances[2] < 0.6 * distances[1]
    if issubclass(kind, Segmented):  # no method is of high order where segments run empty: test_neural_stack
        return
    high = integrate(model, us, x, dt=dt, steps=Fixed(dt / 16), solver=RK4(), save=Last()).xs
    assert_close(high, fine, rtol=1e-6, atol=1e-6)


@every_model
def test_a_run_may_be_split_at_any_sample(kind):
    model, x, us, dt = scene(kind, 2)
    whole = integrate(model, us, x, dt=dt)
    middle = tree.map(lambda leaf: leaf[1], whole.xs)
    rest = integrate(model, us[2:], middle, dt=dt, t_span=(2 * dt, 4 * dt))
    for a, b in zip(tree.leaves(rest.xs), tree.leaves(whole.xs), strict=True):
        assert torch.equal(a, b[2:])


@every_model
def test_a_gradient_reaches_the_start_the_drive_and_every_weight(kind):
    model, x, us, dt = scene(kind, 2)
    model.requires_grad_()  # those that no training would change, too
    x = tree.map(lambda leaf: leaf.requires_grad_(), x)
    us.requires_grad_(us.numel() > 0)
    wrt = [*tree.leaves(x), *([us] if us.numel() else []), *model.parameters()]
    for options in ({}, {"steps": Adaptive(1e-6, 1e-8)}):
        run = integrate(model, us, x, dt=dt, **options)
        gradients = torch.autograd.grad(sum(leaf.square().sum() for leaf in (*tree.leaves(run.xs), run.ys)), wrt)
        assert all(bool(torch.isfinite(g).all()) and bool((g != 0).any()) for g in gradients)


@every_model
def test_states_may_be_asked_for_between_steps(kind):
    model, x, us, dt = scene(kind, 2)
    drive = Function(lambda t: us[0])
    end = 4 * dt
    options = {"t_span": (0.0, end), "steps": Adaptive(1e-8, 1e-10)}
    between = integrate(model, drive, x, save=At([0.4 * end, end]), **options)
    there = integrate(model, drive, x, save=Last(), **options | {"t_span": (0.0, 0.4 * end)})
    assert_close(tree.map(lambda leaf: leaf[:1], between.xs), there.xs, rtol=1e-5, atol=1e-6)


def test_the_laws_meet_models_of_every_kind():
    assert len(model_classes()) >= 15
