"""Compiled runs of rate networks are the plain ones: values, gradients, bits of a row, under every transform."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

import ctrnn
from ctrnn import Adaptive, At, Backprop, Every, Fixed, Forward, Held, Last, Linear, Recompute, Truncated, integrate
from ctrnn import _tree as tree
from ctrnn.drive import Cubic
from ctrnn.models import CTRNN, GRU, LSTM, BeerCTRNN, Elman, Hopfield, RateRNN
from ctrnn.models.activations import NAMES, softmax
from ctrnn.native import rate as native
from ctrnn.native.library import library
from ctrnn.solvers import RK4, Bosh3, Dopri5, Euler, ExponentialEuler, Heun, Iterate, Midpoint, Tsit5

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels were not compiled")

SOLVERS = [Iterate(), Euler(), ExponentialEuler(), Heun(), Midpoint(), RK4(), Bosh3(), Tsit5(), Dopri5()]
ELEMENTWISE = [f for f in NAMES.values() if f is not softmax]
CLOSE = {torch.float64: {"rtol": 1e-11, "atol": 1e-12}, torch.float32: {"rtol": 3e-4, "atol": 3e-5}}


@pytest.fixture
def runs(monkeypatch):
    """Every compiled run that is made: a test of kernels that does not reach them tests nothing."""
    names = []

    def watched(name, *structures):
        names.append(name)
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


def both(model, drive, x0, runs, *, kernels=True, **options):
    """[states and gradients of everything] from the kernel and from the plain loop."""
    results = []
    for compiled in (True, False):
        given = x0.detach().clone().requires_grad_()
        us = drive.detach().clone().requires_grad_() if isinstance(drive, torch.Tensor) else drive
        before = len(runs)
        if compiled:
            trajectory = integrate(model, us, given, **options)
        else:
            with ctrnn.plain():
                trajectory = integrate(model, us, given, **options)
        assert (len(runs) > before) == (compiled and kernels)
        weights = samples(*trajectory.xs.shape, dtype=trajectory.xs.dtype, seed=9)
        leaves = [given, *model.parameters(), *([us] if isinstance(us, torch.Tensor) else [])]
        loss = (weights * trajectory.xs).sum() + trajectory.ys.square().sum()
        results.append([trajectory.xs.detach(), *torch.autograd.grad(loss, leaves, allow_unused=True)])
    return results


def assert_same(results, dtype=torch.float64):
    for mine, plain in zip(*results, strict=True):
        assert (mine is None) == (plain is None)
        if mine is not None:
            scale = max(1.0, float(plain.abs().max()) if plain.numel() else 1.0)
            torch.testing.assert_close(mine / scale, plain / scale, **CLOSE[dtype])


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("kind", [CTRNN, RateRNN, Elman], ids=lambda kind: kind.__name__)
def test_values_and_gradients_are_those_of_the_plain_loop(solver, kind, runs):
    model = network(kind=kind)
    assert_same(both(model, samples(9, 5, 3), samples(5, 7, seed=2), runs, dt=0.3, solver=solver))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("batch", [(), (1,), (7,), (2, 3)], ids=str)
@pytest.mark.parametrize("n", [1, 7, 17, 65])
def test_sizes_need_fit_nothing(n, batch, dtype, runs):
    for solver in (Euler(), RK4()):
        model = network(n, dtype=dtype)
        x0 = samples(*batch, n, dtype=dtype, seed=2)
        assert_same(both(model, samples(6, *batch, 3, dtype=dtype), x0, runs, dt=0.2, solver=solver), dtype)


@pytest.mark.parametrize("solver", [Euler(), RK4()], ids=str)
@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", [CTRNN, RateRNN], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_every_activation_is_torchs(kind, activation, solver, scale, runs):
    model = network(kind=kind, activation=activation)
    assert_same(both(model, scale * samples(5, 4, 3), scale * samples(4, 7, seed=2), runs, dt=0.2, solver=solver))


@pytest.mark.parametrize("solver", [Euler(), RK4()], ids=str)
def test_gains_and_thresholds_have_their_gradients(solver, runs):
    beer = BeerCTRNN(7, 3, gain=torch.linspace(0.5, 2, 7), tau=torch.linspace(1, 2, 7), learn_tau=True)
    assert_same(both(beer, samples(9, 5, 3), samples(5, 7, seed=2), runs, dt=0.3, solver=solver))
    one = BeerCTRNN(7, 3, gain=1.5)
    assert_same(both(one, samples(9, 5, 3), samples(5, 7, seed=2), runs, dt=0.3, solver=solver))
    hopfield = Hopfield.of(samples(7, 7), gain=1.5)
    assert_same(both(hopfield, samples(9, 5, 7), samples(5, 7, seed=2), runs, dt=0.3, solver=solver))


@pytest.mark.parametrize("solver", [Euler(), Heun(), RK4()], ids=str)
@pytest.mark.parametrize("kind", [Held, Linear, Cubic], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("steps", [Fixed(0.3), Fixed(0.1), Fixed(0.2)], ids=str)
def test_drives_and_steps_within_a_sample(solver, kind, steps, runs):
    model, us = network(), samples(6, 4, 3)
    assert_same(both(model, kind(us, 0.3), samples(4, 7, seed=2), runs, steps=steps, solver=solver))


def test_gradients_reach_the_samples_of_a_linear_drive(runs):
    model, x0 = network(), samples(4, 7, seed=2)
    found = []
    for switch in (True, False):
        us = samples(6, 4, 3).requires_grad_()
        with ctrnn.plain() if not switch else torch.enable_grad():
            xs = integrate(model, Linear(us, 0.3), x0, steps=Fixed(0.1), solver=RK4()).xs
        found.append(torch.autograd.grad(xs.square().sum(), us)[0])
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-12)
    assert runs


@pytest.mark.parametrize("save", [None, Last(), Every(2), At(torch.tensor([0.0, 0.25, 1.7]))], ids=str)
def test_every_save_policy_keeps_the_same_states(save, runs):
    model = network()
    assert_same(both(model, samples(9, 5, 3), samples(5, 7, seed=2), runs, dt=0.3, save=save))


def test_a_run_without_a_drive_of_its_own_or_with_one_for_all_samples(runs):
    model = network()
    options = {"t_span": (0.0, 2.0), "steps": Fixed(0.1)}
    assert_same(both(model, None, samples(5, 7, seed=2), runs, **options))
    assert_same(both(model, samples(9, 3), samples(7, seed=2), runs, dt=0.3))


@pytest.mark.parametrize("solver", [Iterate(), Euler(), ExponentialEuler()], ids=str)
def test_noise_is_the_same_noise(solver, runs):
    model = network()

    def options():
        return {"dt": 0.3, "solver": solver, "noise": 0.2, "generator": torch.Generator().manual_seed(3)}

    us, x0 = samples(150, 5, 3), samples(5, 7, seed=2)
    mine = integrate(model, us, x0, **options()).xs
    with ctrnn.plain():
        plain = integrate(model, us, x0, **options()).xs
    torch.testing.assert_close(mine, plain, rtol=1e-10, atol=1e-11)
    assert runs


@pytest.mark.parametrize("adjoint", [Backprop(), Recompute(), Recompute(2), Truncated(30)], ids=str)
def test_every_reverse_adjoint_uses_kernels(adjoint, runs):
    model = network()
    assert_same(both(model, samples(30, 5, 3), samples(5, 7, seed=2), runs, dt=0.3, adjoint=adjoint))


def test_forward_mode_goes_the_plain_way(runs):
    model = network()
    us, x0 = samples(6, 4, 3), samples(4, 7, seed=2)
    run = lambda x: integrate(model, us, x, dt=0.3).xs
    value, direction = torch.func.jvp(run, (x0,), (torch.ones_like(x0),))
    torch.testing.assert_close(value, run(x0), rtol=1e-12, atol=1e-13)
    h = 1e-6
    torch.testing.assert_close(direction, (run(x0 + h) - run(x0 - h)) / (2 * h), rtol=1e-7, atol=1e-8)
    integrate(model, us, x0, dt=0.3, adjoint=Forward()).xs.sum().backward()


def test_transforms_of_torch_func_see_through_a_run(runs):
    model = network()
    us, x0 = samples(8, 5, 3), samples(5, 7, seed=2)
    weights = dict(model.named_parameters())

    def loss(weights, us, x0):
        return integrated(model, weights, us, x0).square().sum()

    def in_plain(run):
        with ctrnn.plain():
            return run()

    for transform in (grad(loss), grad(loss, argnums=(1, 2)), vmap(grad(loss), in_dims=(None, 1, 0))):
        mine, plain = transform(weights, us, x0), in_plain(lambda t=transform: t(weights, us, x0))
        torch.testing.assert_close(mine, plain, rtol=1e-10, atol=1e-11)
    many = {name: torch.stack([value, 1.1 * value]) for name, value in weights.items()}
    ensemble = vmap(grad(loss), in_dims=(0, None, None))
    torch.testing.assert_close(ensemble(many, us, x0), in_plain(lambda: ensemble(many, us, x0)), rtol=1e-10, atol=1e-11)
    assert runs


def integrated(model, weights, us, x0):
    class Run(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, us, x0):
            return integrate(self.model, us, x0, dt=0.3).xs

    return functional_call(Run(), {f"model.{name}": value for name, value in weights.items()}, (us, x0))


@pytest.mark.parametrize("solver", [Euler(), RK4()], ids=str)
def test_second_derivatives_are_those_of_the_plain_loop(solver, runs):
    model = network(4)
    us, x0 = samples(5, 2, 3), samples(2, 4, seed=2)

    def second():
        xs = integrate(model, us, x0, dt=0.3, solver=solver).xs
        first = torch.autograd.grad(xs.tanh().sum(), list(model.parameters())[:3], create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), list(model.parameters())[:3])

    mine = second()
    assert runs
    with ctrnn.plain():
        torch.testing.assert_close(mine, second(), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("solver", [Euler(), RK4()], ids=str)
def test_inputs_may_lie_anywhere_in_memory(solver, runs):
    model = network()
    model.W_rec = nn.Parameter(samples(7, 14).T[::2])
    us = samples(3, 5, 9).permute(2, 1, 0)
    x0 = samples(7, 10, seed=2).T[::2]
    assert not any(value.is_contiguous() for value in (us, x0, model.W_rec))
    assert_same(both(model, us, x0, runs, dt=0.3, solver=solver))
    mine = integrate(model, us, x0, dt=0.3, solver=solver).xs
    again = integrate(model, us.contiguous(), x0.contiguous(), dt=0.3, solver=solver).xs
    assert torch.equal(mine, again)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("solver", [Euler(), RK4()], ids=str)
@pytest.mark.parametrize("n", [7, 65, 130])
def test_a_row_has_the_same_bits_in_any_company_and_on_any_number_of_threads(n, solver, dtype, runs):
    model = network(n, dtype=dtype)
    x0 = samples(13, n, dtype=dtype, seed=2)
    us = samples(6, 13, 3, dtype=dtype)

    def run(rows, threads):
        torch.set_num_threads(threads)
        given = x0[rows].clone().requires_grad_()
        xs = integrate(model, us[:, rows], given, dt=0.2, solver=solver).xs
        (found,) = torch.autograd.grad(xs.square().sum(), given)
        torch.set_num_threads(1)
        return xs.detach(), found

    whole = run(slice(0, 13), 1)
    for rows, threads in ((slice(0, 1), 1), (slice(3, 4), 2), (slice(2, 9), 1), (slice(0, 13), 2), (slice(1, 13), 2)):
        part = run(rows, threads)
        assert torch.equal(part[0], whole[0][:, rows])
        assert torch.equal(part[1], whole[1][rows])


def test_what_is_not_a_number_stays_with_its_row(runs):
    model = network()
    x0 = samples(4, 7, seed=2)
    x0[2, 3] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        integrate(model, samples(6, 4, 3), x0, dt=0.3)
    us = samples(6, 4, 3)
    big = CTRNN(7, 3, activation=torch.relu)
    with torch.no_grad():
        big.W_rec.mul_(1e200)
    trajectory = integrate(big, us, samples(4, 7, seed=2), dt=0.5, on_failure="return")
    with ctrnn.plain():
        plain = integrate(big, us, samples(4, 7, seed=2), dt=0.5, on_failure="return")
    assert torch.equal(trajectory.stats.status, plain.stats.status)
    assert int(trajectory.stats.status.max()) > 0


def test_networks_and_steps_that_kernels_do_not_cover_run_plainly(runs):
    us, x0 = samples(6, 4, 3), samples(4, 7, seed=2)
    integrate(network(activation=torch.sin), us, x0, dt=0.3)
    integrate(network(), us, x0, dt=0.3, solver=ctrnn.solvers.ETD2RK())
    heard = network()
    heard.register_forward_hook(lambda *_: None)
    integrate(heard, us, x0, dt=0.3, solver=RK4())
    with ctrnn.plain():
        integrate(network(), us, x0, dt=0.3)
    assert not runs


def test_progress_is_told_and_steps_are_the_same(runs):
    model, us, x0 = network(), samples(2000, 4, 3), samples(4, 7, seed=2)
    told = []
    trajectory = integrate(model, us, x0, dt=0.3, progress=told.append)
    assert torch.equal(trajectory.xs, integrate(model, us, x0, dt=0.3).xs)
    assert len(told) > 2
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert runs


@pytest.mark.parametrize("save", [None, Last(), Every(2)], ids=str)
@pytest.mark.parametrize("solver", [Euler(), RK4()], ids=str)
def test_samples_of_different_lengths_end_when_they_end_and_their_padding_may_be_anything(solver, save, runs):
    model, us, x0 = network(), samples(6, 4, 3), samples(4, 7, seed=2)
    lengths = torch.tensor([3, 6, 1, 4])
    us[torch.arange(6)[:, None] >= lengths] = torch.nan

    def found():
        given = us.clone().requires_grad_()
        drive = Held(given, 0.3, lengths=lengths)
        trajectory = integrate(model, drive, x0, steps=Fixed(0.1), solver=solver, save=save)
        weights = samples(*trajectory.ys.shape, seed=9)
        loss = (weights * trajectory.ys).nan_to_num(0.0).sum()
        return [trajectory.xs, *torch.autograd.grad(loss, [given, *model.parameters()], allow_unused=True)]

    mine = found()
    assert runs
    with ctrnn.plain():
        torch.testing.assert_close(mine, found(), rtol=1e-11, atol=1e-12, equal_nan=True)


def test_a_solver_with_a_method_of_its_own_is_not_replaced_by_its_parents(runs):
    class Halved(RK4):
        def slopes(self, *args, **kwargs):
            slopes, end = super().slopes(*args, **kwargs)
            return [0.5 * slope for slope in slopes], end

    class Prepared(RK4):
        def prepare(self, model, dt):
            return super().prepare(model, dt)

    for solver in (Halved(), Prepared()):
        integrate(network(), samples(6, 4, 3), samples(4, 7, seed=2), dt=0.3, solver=solver)
    assert not runs


def test_hessians_go_the_plain_way(runs):
    model, us, x0 = network(3), samples(4, 3), samples(3, seed=2)
    energy = lambda x: integrate(model, us, x, dt=0.3).xs.tanh().sum()
    mine = torch.func.hessian(energy)(x0)
    with ctrnn.plain():
        torch.testing.assert_close(mine, torch.func.hessian(energy)(x0), rtol=1e-10, atol=1e-12)


def test_tensors_whose_sign_is_a_bit_are_read_with_their_sign(runs):
    model, us, x0 = network(), samples(6, 4, 3), samples(4, 7, seed=2)
    mine = integrate(model, torch._neg_view(us), torch._neg_view(x0), dt=0.3).xs
    assert torch.equal(mine, integrate(model, -us, -x0, dt=0.3).xs)
    assert runs


def test_a_tensor_without_memory_is_named(runs):
    model, us, x0 = network(), samples(6, 4, 3), samples(4, 7, seed=2).requires_grad_()
    with pytest.raises(NotImplementedError, match=r"without memory.*ctrnn\.plain"):
        integrate(model, us, torch._efficientzerotensor((4, 7), dtype=torch.float64), dt=0.3)
    xs = integrate(model, us, x0, dt=0.3).xs
    with pytest.raises(NotImplementedError, match=r"is_grads_batched.*ctrnn\.plain"):
        torch.autograd.grad(xs, x0, torch.ones(2, *xs.shape), is_grads_batched=True)


@pytest.mark.parametrize("solver", [Euler(), RK4()], ids=str)
@pytest.mark.parametrize("kind", [Held, Linear, Cubic], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("batch", [(), (5,), (50,)], ids=str)
@pytest.mark.parametrize("n_in", [0, 1, 17, 33])
def test_a_drive_is_projected_in_pieces_of_any_size(n_in, batch, kind, solver, runs):
    # More intervals than a piece holds, more rows than a block, more inputs than units, steps within an interval.
    generator = torch.Generator().manual_seed(3)
    model = CTRNN(7, n_in, tau=torch.linspace(1, 2, 7), learn_tau=True, generator=generator).double()
    found = []
    for compiled in (True, False):
        us, shared = samples(101, *batch, n_in).requires_grad_(), samples(101, n_in, seed=4).requires_grad_()
        for given in (us, shared):
            with torch.enable_grad() if compiled else ctrnn.plain():
                start = model.initial_state(*batch)
                xs = integrate(model, kind(given, 0.3), start, steps=Fixed(0.15), solver=solver, save=Every(7)).xs
            leaves = (given, *model.parameters())
            found.append([xs.detach(), *torch.autograd.grad(xs.sin().sum(), leaves, allow_unused=True)])
    assert len(runs) == 4
    assert_same([[*found[0], *found[1]], [*found[2], *found[3]]])


def test_what_of_a_drive_is_not_asked_for_has_no_gradient(runs):
    model, us, x0 = network(), samples(60, 4, 3), samples(4, 7, seed=2)
    for wanted in (("W_in",), ("b_rec",), ("W_rec",), ("W_in", "b_rec")):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in wanted)
        found = []
        for compiled in (True, False):
            with torch.enable_grad() if compiled else ctrnn.plain():
                loss = integrate(model, us, x0, dt=0.3).xs.square().sum()
            found.append(torch.autograd.grad(loss, [getattr(model, name) for name in wanted]))
        assert_same(found)
    assert runs


def test_a_drive_of_other_channels_is_named(runs):
    model = network()
    model.n_in = None
    with pytest.raises(ValueError, match="the drive has 2 channels, the network's W_in has 3"):
        integrate(model, samples(6, 4, 2), samples(4, 7, seed=2), dt=0.3)
    assert not runs


@pytest.mark.parametrize("kind", [Held, Linear], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("how", [{"steps": Fixed(0.25)}, {"steps": Fixed(0.5)}, {"steps": Adaptive()}], ids=str)
@pytest.mark.parametrize("make", [CTRNN, GRU], ids=lambda make: make.__name__)
def test_samples_that_are_views_of_one_have_gradients_of_their_own(make, how, kind):
    model = make(4, 3, generator=torch.Generator().manual_seed(0)).double()
    us = samples(6, 1, 3).expand(6, 2, 3)
    energy = lambda us: integrate(model, kind(us, 0.5), **how).xs[:, 1].square().sum()
    mine = grad(energy)(us)
    assert (mine[:, 0] == 0).all()
    assert mine[:, 1].abs().sum() > 0
    torch.testing.assert_close(mine, grad(energy)(us.clone()), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("drive", ["shared", "many", "each"])
@pytest.mark.parametrize("steps", [Fixed(0.3), Fixed(0.1)], ids=str)
@pytest.mark.parametrize("make", [CTRNN, GRU, LSTM], ids=lambda make: make.__name__)
def test_a_drive_projected_before_the_run_is_the_same_drive(make, steps, drive):
    n_in = 40 if drive == "many" else 3
    model = make(7, n_in, generator=torch.Generator().manual_seed(0)).double()
    us = samples(6, n_in) if drive == "shared" else samples(6, 5, n_in)
    results = []
    for compiled in (True, False):
        with torch.enable_grad() if compiled else ctrnn.plain():
            x0 = model.initial_state(5)
            xs = tree.leaves(integrate(model, Held(us, 0.3), x0, steps=steps).xs)[0]
        leaves = [model.W_in, model.W_rec, model.b_rec]
        results.append([xs.detach(), *torch.autograd.grad(xs.sin().sum(), leaves)])
    assert_same(results)
