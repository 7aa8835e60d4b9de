"""Compiled adaptive runs are the plain ones: steps, values, gradients, failures, under every transform."""

import math

import pytest
import torch
from torch.func import functional_call, grad, jacrev, vmap

import ctrnn
from ctrnn import Adaptive, At, Backprop, Function, Held, Last, Linear, Recompute, integrate
from ctrnn.drive import Cubic
from ctrnn.models import CTRNN, MTRNN, BeerCTRNN, Hopfield, RateRNN
from ctrnn.models.activations import NAMES, softmax
from ctrnn.native import adaptive as native
from ctrnn.native.library import library
from ctrnn.solvers import Bosh3, Dopri5, Tsit5
from ctrnn.trajectory import Status

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels were not compiled")

ELEMENTWISE = [f for f in NAMES.values() if f is not softmax]
DRIVES = [Held, Linear, Cubic]
STEPS = Adaptive(1e-6, 1e-6)


@pytest.fixture
def runs(monkeypatch):
    """Every kernel that is called: a test of kernels that does not reach them tests nothing."""
    names = []

    def watched(name, *structures):
        names.append(name.removeprefix("ctrnn_adaptive_"))
        call(name, *structures)

    call = native.call
    monkeypatch.setattr(native, "call", watched)
    return names


def network(n=7, kind=CTRNN, dtype=torch.float64, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    tau = 0.5 + torch.rand(n, generator=generator)
    return kind(n, 3, 2, tau=tau, learn_tau=True, generator=generator, **options).to(dtype)


def samples(*shape, dtype=torch.float64, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def both(model, drive, x0, runs, *, reached="pullback", **options):
    """Trajectories and gradients of everything, from the kernel and from the plain path; `reached` is its last kernel.

    `drive` makes a drive of samples, or is one.
    """
    options = {"steps": STEPS} | options
    results = []
    for compiled in (True, False):
        given, us = x0.detach().clone().requires_grad_(), samples(6, *x0.shape[:-1], 3, dtype=x0.dtype).requires_grad_()
        driven = drive(us) if callable(drive) else drive
        before = len(runs)
        if compiled:
            run = integrate(model, driven, given, **options)
        else:
            with ctrnn.plain():
                run = integrate(model, driven, given, **options)
        weights = samples(*run.xs.shape, dtype=run.xs.dtype, seed=9)
        loss = (weights * run.xs.nan_to_num()).sum() + run.ys.nan_to_num().square().sum()
        leaves = [given, *model.parameters(), *([us] if callable(drive) else [])]
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        new = runs[before:]
        assert new == [] if not compiled else new[-1:] == ([reached] if reached else [])
        results.append((run, found))
    return results


def assert_same(results, rtol=1e-9):
    (mine, gradients), (plain, expected) = results
    for a, b in zip(mine.stats, plain.stats, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(
        (mine.ts, mine.xs, mine.us, mine.ys, mine.mask),
        (plain.ts, plain.xs, plain.us, plain.ys, plain.mask),
        strict=True,
    ):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=rtol, atol=rtol, equal_nan=True)
    for a, b in zip(gradients, expected, strict=True):
        if a is not None or b is not None:  # a run in which nothing moves has no gradient, or zero
            a, b = (torch.zeros_like(b if a is None else a) if v is None else v for v in (a, b))
            scale = max(1.0, float(b.abs().max()) if b.numel() else 1.0)
            torch.testing.assert_close(a / scale, b / scale, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("solver", [Tsit5(), Dopri5()], ids=str)
@pytest.mark.parametrize("kind", [CTRNN, RateRNN], ids=lambda kind: kind.__name__)
def test_steps_values_and_gradients_are_those_of_the_plain_path(solver, kind, runs):
    model, x0 = network(kind=kind), samples(5, 7, seed=2)
    for save in (At(torch.linspace(0, 6, 23)), Last(), None):
        assert_same(both(model, None, x0, runs, t_span=(0.0, 6.0), solver=solver, save=save))


@pytest.mark.parametrize("batch", [(), (1,), (7,), (2, 3), (13,)], ids=str)
@pytest.mark.parametrize("n", [1, 7, 17, 65])
def test_sizes_need_fit_nothing(n, batch, runs):
    model, x0 = network(n), samples(*batch, n, seed=2)
    assert_same(both(model, lambda us: Held(us, 0.5), x0, runs))


@pytest.mark.parametrize("n", [1, 17, 65])
def test_in_single_precision_they_agree_within_the_tolerance(n, runs):
    model, x0 = network(n, dtype=torch.float32), samples(5, n, dtype=torch.float32, seed=2)
    (mine, gradients), (plain, expected) = both(model, lambda us: Linear(us, 0.5), x0, runs, steps=Adaptive(1e-4, 1e-4))
    assert mine.xs.dtype == torch.float32
    torch.testing.assert_close(mine.xs, plain.xs, rtol=1e-3, atol=1e-3)
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", [CTRNN, RateRNN], ids=lambda kind: kind.__name__)
def test_every_activation_is_torchs(kind, activation, runs):
    model = network(kind=kind, activation=activation)
    with torch.no_grad():
        model.W_rec.mul_(0.5)
    # Step lengths agree to the rounding of an error estimate; where activations have corners, gradients feel it.
    assert_same(both(model, lambda us: Held(us, 0.5), samples(4, 7, seed=2), runs), rtol=1e-7)


def test_gains_and_thresholds_have_their_gradients(runs):
    x0 = samples(5, 7, seed=2)
    beer = BeerCTRNN(7, 3, gain=torch.linspace(0.5, 2, 7), tau=torch.linspace(1, 2, 7), learn_tau=True)
    for model in (beer, BeerCTRNN(7, 3, gain=1.5)):
        assert_same(both(model, lambda us: Held(us, 0.5), x0, runs))
    hopfield = Hopfield.of(samples(7, 7), gain=1.5)
    assert_same(both(hopfield, None, x0, runs, t_span=(0.0, 3.0)))


def test_masks_and_groups_are_in_the_weights(runs):
    model = MTRNN({"fast": (4, 1.0), "slow": (3, 9.0)}, 3)
    assert_same(both(model, lambda us: Held(us, 0.5), samples(5, 7, seed=2), runs))


@pytest.mark.parametrize("kind", DRIVES, ids=lambda kind: kind.__name__)
def test_a_gradient_reaches_the_samples_of_every_drive(kind, runs):
    model, x0 = network(), samples(5, 7, seed=2)
    assert_same(both(model, lambda us: kind(us, 0.7), x0, runs))
    assert_same(both(model, lambda us: kind(us, 0.7), x0, runs, save=At(torch.linspace(0.1, 3.3, 11))))
    assert_same(both(model, lambda us: kind(us, 0.7), x0, runs, t_span=(0.4, 2.6)))
    assert_same(both(model, lambda us: kind(us[:, 0], 0.7), x0, runs))


@pytest.mark.parametrize("kind", DRIVES, ids=lambda kind: kind.__name__)
def test_samples_may_end_at_different_times(kind, runs):
    model, x0, lengths = network(), samples(5, 7, seed=2), torch.tensor([6, 2, 4, 6, 3])
    assert_same(both(model, lambda us: kind(us, 0.7, lengths=lengths), x0, runs))
    save = At(torch.linspace(0.1, 3.3, 11))
    assert_same(both(model, lambda us: kind(us, 0.7, lengths=lengths), x0, runs, save=save))


@pytest.mark.parametrize("padding", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("kind", DRIVES, ids=lambda kind: kind.__name__)
def test_padding_may_hold_anything_and_pollutes_nothing(kind, padding, runs):
    model, x0, lengths = network(), samples(5, 7, seed=2).requires_grad_(), torch.tensor([6, 2, 4, 6, 3])
    behind = (torch.arange(6)[:, None] >= lengths)[..., None]
    results = []
    for fill in (0.0, padding):
        us = samples(6, 5, 3).masked_fill(behind, fill).requires_grad_()
        run = integrate(model, kind(us, 0.7, lengths=lengths), x0, steps=STEPS)
        loss = run.xs[run.mask].square().sum()
        found = torch.autograd.grad(loss, [us, x0, *model.parameters()], allow_unused=True)
        assert bool((found[0].masked_select(behind) == 0).all())
        results.append((run, [g for g in found if g is not None]))
    assert runs.count("pullback") == 2
    (clean, expected), (padded, gradients) = results
    assert torch.equal(padded.xs[padded.mask], clean.xs[clean.mask])
    assert all(map(torch.equal, gradients, expected))


@pytest.mark.parametrize("kind", DRIVES[:2], ids=lambda kind: kind.__name__)
def test_samples_may_have_edges_of_their_own(kind, runs):
    edges = (0.2 + samples(7, 5, seed=3).abs()).cumsum(0)[: 7 if kind is Held else 6]
    model, x0, lengths = network(), samples(5, 7, seed=2), torch.tensor([6, 2, 4, 6, 3])
    assert_same(both(model, lambda us: kind(us, edges=edges), x0, runs))
    assert_same(both(model, lambda us: kind(us, edges=edges, lengths=lengths), x0, runs))
    save = At(torch.linspace(float(edges[0].min()), float(edges[-1].max()), 9))
    assert_same(both(model, lambda us: kind(us, edges=edges), x0, runs, save=save, on_failure="return"))


def test_a_sample_without_an_interval_stays_where_it_is(runs):
    model, x0 = network(), samples(3, 7, seed=2)
    assert_same(both(model, lambda us: Linear(us, 0.7, lengths=torch.tensor([1, 5, 1])), x0, runs))
    assert_same(both(model, lambda us: Linear(us, 0.7, lengths=torch.tensor([1, 1, 1])), x0, runs))


@pytest.mark.parametrize(
    "steps",
    [Adaptive(1e-6, 1e-6, dt0=0.3), Adaptive(1e-3, 0.0), Adaptive(0.0, 1e-9), Adaptive(1e-8, 1e-8, dt0=50.0)],
    ids=str,
)
def test_the_controller_is_the_same(steps, runs):
    model, x0 = network(), samples(5, 7, seed=2)
    with torch.no_grad():
        model.W_rec.mul_(3)
    assert_same(both(model, lambda us: Held(us, 0.9), x0, runs, steps=steps))


# Failures


def exploding(n=4):
    """tau x' = 100 relu(x) - x: it grows without end."""
    model = CTRNN(n, 3, activation=torch.relu)
    with torch.no_grad():
        model.W_rec.copy_(100 * torch.eye(n))
    return model


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        (Adaptive(1e-6, 1e-6, max_steps=30), Status.MAX_STEPS_REACHED),
        (Adaptive(1e-6, 1e-6, dt_min=0.01), Status.STEP_SIZE_UNDERFLOW),
        (Adaptive(1e-6, 1e-6), Status.NON_FINITE_STATE),
    ],
    ids=lambda value: value.name if isinstance(value, Status) else "",
)
def test_samples_fail_as_on_the_plain_path(steps, status, runs):
    x0 = torch.tensor([[1.0, 2, 3, 4], [-1, -2, -3, -4], [0.1, 0, 0, 0]])
    options = {"t_span": (0.0, 20.0), "save": At(torch.linspace(0, 20, 41)), "steps": steps}
    results = both(exploding(), None, x0, runs, on_failure="return", **options)
    (mine, _), (plain, _) = results
    assert status in mine.stats.status.tolist()
    if status is Status.NON_FINITE_STATE:  # how many steps squeeze into the last moment before that is rounding's
        assert torch.equal(mine.stats.status, plain.stats.status)
        torch.testing.assert_close(mine.xs, plain.xs, rtol=1e-6, atol=1e-6, equal_nan=True)
        return
    assert_same(results, rtol=1e-7)
    errors = []
    for context in (torch.enable_grad, ctrnn.plain):
        with context(), pytest.raises(ctrnn.IntegrationError) as caught:
            integrate(exploding(), None, x0, **options)
        errors.append(caught.value)
    assert str(errors[0]) == str(errors[1])
    assert errors[0].step == errors[1].step
    assert errors[0].sample == errors[1].sample


# What a row is does not depend on its company


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [1, 17, 65])
def test_a_row_is_the_same_to_the_bit_whatever_its_company(n, dtype):
    model, us, x0 = network(n, dtype=dtype), samples(9, 23, 3, dtype=dtype), samples(23, n, dtype=dtype, seed=2)
    steps = Adaptive(1e-5, 1e-5)
    together = integrate(model, Linear(us, 0.5), x0, steps=steps, save=At(torch.linspace(0, 4, 17)))
    for part in (slice(0, 1), slice(3, 10), slice(5, 23)):
        alone = integrate(model, Linear(us[:, part], 0.5), x0[part], steps=steps, save=At(torch.linspace(0, 4, 17)))
        assert torch.equal(alone.xs, together.xs[:, part])
        assert torch.equal(alone.stats.steps, together.stats.steps[part])


def test_threads_change_no_bit_of_a_row_and_the_same_number_no_bit_at_all():
    model, x0 = network(17), samples(23, 17, seed=2)
    results = []
    for threads in (1, 2, 2, 3):
        torch.set_num_threads(threads)
        try:
            run = integrate(model, None, x0, t_span=(0.0, 5.0), save=At(torch.linspace(0, 5, 9)), steps=STEPS)
            results.append((run.xs, *torch.autograd.grad(run.xs.square().sum(), [model.W_rec, model.log_ratio])))
        finally:
            torch.set_num_threads(1)
    assert all(torch.equal(xs, results[0][0]) for xs, *_ in results)
    assert all(map(torch.equal, results[1], results[2]))
    for one, three in zip(results[0], results[3], strict=True):
        torch.testing.assert_close(one, three, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("make", [lambda x: x.T.contiguous().T, lambda x: x[:, ::2], lambda x: x[:, :7]])
def test_memory_may_lie_in_any_order(make, runs):
    model, wide, us = network(), samples(5, 14, seed=2), samples(3, 5, 6).permute(2, 1, 0)
    x0 = make(wide if make(wide).shape[-1] == 7 else wide[:, :7])
    assert_same(both(model, lambda _: Held(us, 0.5), x0, runs))
    assert_same(both(model, lambda _: Linear(us, 0.5), x0.clone(), runs))


# Gradients


def test_a_gradient_is_that_of_the_frozen_steps(monkeypatch):
    """A finite difference with the steps held fixed, in float64."""
    model, x0 = network(5), samples(3, 5, seed=2)
    times = torch.linspace(0.3, 4, 7)
    weights = samples(7, 3, 5, seed=4)

    def loss(scale, steps):
        with ctrnn.plain():
            moved = functional_call(Loss(model), {"model.W_rec": model.W_rec + scale * direction}, (x0, times, steps))
        return (weights * moved).sum()

    direction = samples(5, 5, seed=5)
    run = integrate(model, None, x0, t_span=(0.0, 4.0), save=At(times), steps=Adaptive(1e-3, 1e-3))
    (found,) = torch.autograd.grad((weights * run.xs).sum(), [model.W_rec])
    # Tight steps resolve the same flow; loose ones would move with the weights.
    exact = integrate(model, None, x0, t_span=(0.0, 4.0), save=At(times), steps=Adaptive(1e-11, 1e-11))
    (precise,) = torch.autograd.grad((weights * exact.xs).sum(), [model.W_rec])
    with torch.no_grad():
        h, tight = 1e-4, Adaptive(1e-12, 1e-12)
        slope = (loss(h, tight) - loss(-h, tight)) / (2 * h)
    torch.testing.assert_close((precise * direction).sum(), slope, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found, precise, rtol=0.05, atol=0.05)


class Loss(torch.nn.Module):
    """A module whose call is a run, for functional_call."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x0, times, steps, **options):
        return integrate(self.model, None, x0, t_span=(0.0, 4.0), save=At(times), steps=steps, **options).xs


def func_loss(model, x0, times, weights=1.0):
    names = [name for name, _ in model.named_parameters()]

    def loss(parameters, x0):
        given = {f"model.{name}": value for name, value in zip(names, parameters, strict=True)}
        return (weights * functional_call(Loss(model), given, (x0, times, STEPS)).square()).sum()

    return loss, tuple(p.detach() for p in model.parameters()), x0


def test_torch_func_grad_sees_through_it(runs):
    loss, parameters, x0 = func_loss(network(), samples(4, 7, seed=2), torch.linspace(0.3, 4, 5))
    found = grad(loss, argnums=(0, 1))(parameters, x0)
    assert runs.count("pullback") == 1
    with ctrnn.plain():
        expected = grad(loss, argnums=(0, 1))(parameters, x0)
    for a, b in zip((*found[0], found[1]), (*expected[0], expected[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_vmap_of_grad_over_what_is_no_state_works(runs):
    model, x0, times = network(), samples(4, 7, seed=2), torch.linspace(0.3, 4, 5)

    def of(weights):
        loss, parameters, start = func_loss(model, x0, times, weights)
        return grad(loss)(parameters, start)[0]

    weights = samples(3, 5, 4, 7, seed=5)
    found = vmap(of)(weights)
    torch.testing.assert_close(found[1], of(weights[1]))
    jacobian = jacrev(lambda x: Loss(model)(x, times, STEPS))(x0[:2])
    with ctrnn.plain():
        expected = jacrev(lambda x: Loss(model)(x, times, STEPS))(x0[:2])
    assert "pullback" in runs
    torch.testing.assert_close(jacobian, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("drive", [None, lambda us: Linear(us, 0.5), lambda us: Held(us, 0.5)])
def test_second_derivatives_are_those_of_the_plain_path(drive):
    model, results = BeerCTRNN(3, 3, gain=torch.linspace(1, 2, 3), tau=torch.linspace(1, 2, 3), learn_tau=True), []
    for context in (torch.enable_grad, ctrnn.plain):
        x0, us = samples(2, 3, seed=2).requires_grad_(), samples(4, 2, 3, seed=3).requires_grad_()
        how = {"t_span": (0.0, 1.5)} if drive is None else {}
        with context():
            run = integrate(model, drive and drive(us), x0, steps=STEPS, save=At(torch.linspace(0, 1.5, 5)), **how)
        leaves = [x0, *model.parameters(), *([us] if drive else [])]
        first = torch.autograd.grad(run.xs.pow(3).sum(), leaves, create_graph=True, allow_unused=True)
        total = sum((g * samples(*g.shape, seed=7)).sum() for g in first if g is not None)
        results.append([*first, *torch.autograd.grad(total, leaves, allow_unused=True)])
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_forward_mode_takes_the_plain_path(runs):
    model, x0, times = network(), samples(4, 7, seed=2), torch.linspace(0.3, 4, 5)
    direction = samples(4, 7, seed=3)
    value, slope = torch.func.jvp(lambda x: Loss(model)(x, times, STEPS), (x0,), (direction,))
    assert not runs
    with torch.no_grad():
        torch.testing.assert_close(value, Loss(model)(x0, times, STEPS), rtol=1e-9, atol=1e-9)
    leaf = x0.clone().requires_grad_()
    weights = samples(*value.shape, seed=6)
    (back,) = torch.autograd.grad((weights * Loss(model)(leaf, times, STEPS)).sum(), leaf)
    torch.testing.assert_close((back * direction).sum(), (weights * slope).sum(), rtol=1e-9, atol=1e-9)


def test_times_with_a_gradient_take_the_plain_path(runs):
    model, x0 = network(), samples(4, 7, seed=2)
    times = torch.linspace(0.3, 3.9, 5, requires_grad=True)
    run = integrate(model, None, x0, t_span=(0.0, 4.0), save=At(times), steps=STEPS)
    assert "pullback" not in runs
    (back,) = torch.autograd.grad(run.xs.sum(), times)
    with torch.no_grad():
        slopes = model(torch.tensor(0.0), run.xs, torch.zeros(4, 3)).sum((1, 2))
    torch.testing.assert_close(back, slopes, rtol=1e-4, atol=1e-4)


def test_recompute_searches_with_the_kernel_and_runs_on_its_steps(runs):
    model, x0 = network(), samples(4, 7, seed=2)
    results = []
    for adjoint in (Backprop(), Recompute()):
        leaf = x0.clone().requires_grad_()
        run = integrate(
            model, None, leaf, t_span=(0.0, 4.0), save=At(torch.linspace(0, 4, 9)), steps=STEPS, adjoint=adjoint
        )
        results.append([run.xs, *torch.autograd.grad(run.xs.square().sum(), [leaf, model.W_rec])])
    assert runs.count("search") == 2
    assert runs.count("pullback") == 1
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "how",
    [{"solver": Bosh3()}, {"drive": Function(lambda t: torch.cos(t).expand(*t.shape[:-1], 3)), "t_span": (0.0, 2.0)}],
    ids=["another method", "a function of time"],
)
def test_what_is_not_covered_stays_plain(how, runs):
    drive = how.pop("drive", Held(samples(4, 2, 3), 0.5))
    run = integrate(network(), drive, samples(2, 7, seed=2), steps=STEPS, **how)
    assert runs == []
    assert bool(torch.isfinite(run.xs).all())


class Prepared(Tsit5):
    def prepare(self, model, dt):
        return super().prepare(model, dt)


class Stepped(Tsit5):
    def step(self, model, t, dt, x, u, prepared=None):
        return super().step(model, t, dt, x, u, prepared)


@pytest.mark.parametrize("solver", [Prepared(), Stepped()], ids=lambda solver: type(solver).__name__)
def test_a_method_that_overrides_a_part_of_a_step_stays_plain(solver, runs):
    model, x0 = network(), samples(2, 7, seed=2).requires_grad_()
    found = integrate(model, Held(samples(4, 2, 3), 0.5), x0, steps=STEPS, solver=solver)
    assert runs == []
    with ctrnn.plain():
        assert torch.equal(found.xs, integrate(model, Held(samples(4, 2, 3), 0.5), x0, steps=STEPS, solver=solver).xs)


def test_nothing_is_kept_for_a_gradient_that_nobody_wants(runs):
    model, x0 = network(), samples(4, 7, seed=2)
    with torch.no_grad():
        integrate(model, None, x0, t_span=(0.0, 4.0), steps=STEPS)
    assert runs == ["search"]
    model.requires_grad_(False)
    integrate(model, None, x0, t_span=(0.0, 4.0), steps=STEPS)
    assert runs == ["search", "search"]


def test_what_a_report_of_progress_raises_ends_the_run(runs):
    class Stopped(Exception):
        pass

    def report(done):
        if done > 0.3:
            raise Stopped

    with pytest.raises(Stopped):
        integrate(network(), Held(samples(99, 4, 3), 0.5), steps=STEPS, progress=report)
    assert runs == ["search", "discard"]


def test_a_drive_whose_sign_is_a_bit_is_read_with_its_sign(runs):
    class Bare(Hopfield):
        def lowered(self):
            return super().lowered()._replace(b=None)

    model, us = Bare.of(samples(7, 7), gain=1.5), samples(6, 5, 7)
    read = lambda us: integrate(model, Held(us, 0.3), model.initial_state(5), steps=Adaptive(), solver=Tsit5()).xs
    assert torch.equal(read(torch._neg_view(us)), read(-us))
    assert runs
