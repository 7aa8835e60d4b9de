"""Compiled runs of LSTMs are the plain ones in both parts of the state: values, gradients, bits, transforms."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

import ctrnn
from ctrnn import At, Every, Fixed, Held, Last, Linear, Recompute, _compiled, integrate
from ctrnn import _tree as tree
from ctrnn.lowered import GatedNetwork
from ctrnn.models import CTRNN, GRU, LSTM, LSTMState, Stack
from ctrnn.native import lstm as native
from ctrnn.native.library import library
from ctrnn.native.lstm import Inputs, Plan, lstm
from ctrnn.native.schedule import Schedule
from ctrnn.solvers import RK4, Euler, ExponentialEuler, Iterate

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels were not compiled")

SOLVERS = [Iterate(), Euler(), ExponentialEuler()]
DTYPES = [torch.float32, torch.float64]
CLOSE = {torch.float64: 1e-12, torch.float32: 3e-5}


@pytest.fixture
def runs(monkeypatch):
    """Every compiled run of an LSTM that is made."""
    names = []

    def watched(name, *structures):
        names.append(name)
        call(name, *structures)

    call = native.call
    monkeypatch.setattr(native, "call", watched)
    return names


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def samples(*shape, dtype=torch.float64, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network(n=7, dtype=torch.float64, **options):
    generator = torch.Generator().manual_seed(0)
    tau = LSTMState(h=0.5 + torch.rand(n, generator=generator), c=torch.tensor(0.8))
    return LSTM(n, 3, 2, tau=tau, learn_tau=True, generator=generator, **options).to(dtype)


def state(*shape, dtype=torch.float64):
    return LSTMState(samples(*shape, dtype=dtype, seed=2), samples(*shape, dtype=dtype, seed=3))


def found(model, us, x0, **options):
    """States, and the gradients of everything."""
    us, x0 = us.detach().requires_grad_(), tree.map(lambda part: part.detach().requires_grad_(), x0)
    drive = options.pop("drive", lambda us: us)(us)
    run = integrate(model, drive, x0, **options)
    xs = tree.leaves(run.xs)
    loss = sum((samples(*part.shape, dtype=part.dtype, seed=9) * part).sum() for part in xs) + run.ys.square().sum()
    given = [us, *tree.leaves(x0), *model.parameters()]
    return [*[part.detach() for part in xs], *torch.autograd.grad(loss, given, allow_unused=True)]


def assert_same(mine, plain):
    for a, b in zip(mine, plain, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b.numel():
            torch.testing.assert_close(a, b, rtol=0, atol=CLOSE[b.dtype] * max(1.0, float(b.abs().max())))


def assert_twin(runs, *args, **options):
    mine = found(*args, **options)
    assert "ctrnn_lstm_backward" in runs
    with ctrnn.plain():
        assert_same(mine, found(*args, **options))


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_the_plain_loop(solver, bias, runs):
    assert_twin(runs, network(bias=bias), samples(9, 5, 3), state(5, 7), dt=0.3, solver=solver)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", [(), (1,), (3,), (50,), (2, 3)], ids=str)
@pytest.mark.parametrize("n", [1, 7, 17, 65])
def test_sizes_need_fit_nothing(n, batch, dtype, threads, runs):
    for count in (1, 2):
        threads(count)
        assert_twin(runs, network(n, dtype), samples(5, *batch, 3, dtype=dtype), state(*batch, n, dtype=dtype), dt=0.2)


def test_torchs_own_layers_are_the_same_network(runs):
    layers = [LSTM(n, n_in, tau=0.1, generator=torch.Generator().manual_seed(n)) for n, n_in in ((17, 3), (17, 17))]
    stack, twin = Stack(layers).double(), nn.LSTM(3, 17, num_layers=2).double()
    for number, layer in enumerate(layers):
        layer.copy_weights(twin, f"_l{number}")
    us = samples(20, 5, 3)
    for solver in (Iterate(), Euler()):
        run = integrate(stack, us, dt=0.1, solver=solver)
        top, (h, c) = twin(us)
        torch.testing.assert_close(run.xs.layers[1].h, top, rtol=0, atol=1e-12)
        for number, layer in enumerate(run.xs.layers):
            torch.testing.assert_close((layer.h[-1], layer.c[-1]), (h[number], c[number]), rtol=0, atol=1e-12)
    assert runs.count("ctrnn_lstm_forward") == 4


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_layers_of_every_kind_stack(solver, runs):
    generator = torch.Generator().manual_seed(0)
    layers = [LSTM(5, 3, generator=generator), GRU(4, 5, generator=generator), CTRNN(4, 4, 3, generator=generator)]
    model = Stack([*layers, LSTM(3, 3, 2, tau=0.5, generator=generator)]).double()
    x0 = tree.map(lambda part: samples(*part.shape), model.initial_state(5))
    for save in (None, Last(), Every(2)):
        assert_twin(runs, model, samples(6, 5, 3), x0, dt=0.3, solver=solver, save=save)


@pytest.mark.parametrize("kind", [Held, Linear], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("dt", [0.3, 0.1])
def test_drives_and_steps_within_a_sample(kind, dt, runs):
    assert_twin(runs, network(), samples(6, 4, 3), state(4, 7), drive=lambda us: kind(us, 0.3), steps=Fixed(dt))


@pytest.mark.parametrize("save", [Last(), Every(2), At(torch.tensor([0.0, 0.25, 1.7]))], ids=str)
@pytest.mark.parametrize("adjoint", [ctrnn.Backprop(), Recompute()], ids=str)
def test_every_save_policy_keeps_the_same_states(save, adjoint, runs):
    assert_twin(runs, network(), samples(9, 5, 3), state(5, 7), dt=0.3, save=save, adjoint=adjoint)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("sigma", [0.2, LSTMState(h=0.1, c=0.3)], ids=str)
def test_noise_is_the_same_noise_in_each_part(solver, sigma, runs):
    def run():
        generator = torch.Generator().manual_seed(3)
        return integrate(network(), samples(70, 5, 3), dt=0.3, solver=solver, noise=sigma, generator=generator).xs

    mine = run()
    assert runs
    with ctrnn.plain():
        assert_same([part.detach() for part in mine], [part.detach() for part in run()])


def test_runge_kutta_goes_the_plain_way(runs):
    integrate(network(), samples(6, 4, 3), state(4, 7), dt=0.3, solver=RK4())
    assert not runs


def whole(rows, n=7, steps=6):
    """Every input of a run."""
    shapes = [
        (rows, n),
        (rows, n),
        (2, steps, rows, 5),
        (4 * n, 5),
        (4 * n,),
        (4 * n, n),
        (2, n),
        (2, n),
        *[(steps, rows, n)] * 2,
    ]
    inputs = Inputs(*[samples(*shape, seed=seed) for seed, shape in enumerate(shapes)])
    return inputs._replace(rates=inputs.rates.sigmoid(), rates_c=inputs.rates_c.sigmoid(), W=inputs.W / n**0.5)


def plan(rows):
    schedule = Schedule(
        steps=6,
        tableau=None,
        kind=torch.tensor([0, 1, 1, 0, 1, 0], dtype=torch.int32),
        interval=torch.tensor([0, 0, 1, 2, 2, 5]),
        begin=torch.tensor([0, 0.5, 0, 0, 0.25, 0], dtype=torch.float64),
        width=torch.tensor([0.5, 0.5, 1, 0.25, 0.75, 1], dtype=torch.float64),
        count=torch.tensor([6, 3, 0, 5])[:rows],
        keep=torch.tensor([0, -1, 1, -1, -1, 2]),
        slots=3,
    )
    return Plan(schedule, True, 1)


def kernel(plan, inputs):
    net = GatedNetwork(inputs.W, inputs.W_in, None, inputs.b, inputs.rates[0], "lstm")
    rates, kicks = (inputs.rates, inputs.rates_c), (inputs.kicks, inputs.kicks_c)
    saves, ends = lstm(net, plan.schedule, (inputs.h0, inputs.c0), inputs.drive, rates, kicks)
    return *saves, *ends


@pytest.mark.parametrize("rows", [0, 1, 4])
@pytest.mark.parametrize("outputs", [(0, 1, 2, 3), (1,), (2,)], ids=str)
def test_a_run_with_all_that_a_schedule_can_say(rows, outputs, runs):
    results = []
    for run in (kernel, native._plain):
        inputs = Inputs(*[value.requires_grad_() for value in whole(rows)])
        out = [run(plan(rows), inputs)[k] for k in outputs]
        loss = sum((samples(*value.shape) * value).sum() for value in out)
        results.append([*[v.detach() for v in out], *torch.autograd.grad(loss, list(inputs))])
    assert_same(*results)


def test_first_and_second_derivatives_are_those_of_finite_differences(runs):
    run = lambda *values: kernel(plan(2), Inputs(*values))
    inputs = [value.requires_grad_() for value in whole(2, n=2)]
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_transforms_of_torch_func_see_through_a_run(runs):
    model, us, x0 = network(), samples(8, 5, 3), state(5, 7)
    weights = dict(model.named_parameters())

    class Run(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, us, x0):
            xs = integrate(self.model, us, x0, dt=0.3).xs
            return xs.h.square().sum() + xs.c.square().sum()

    def loss(weights, us, x0):
        return functional_call(Run(), {f"model.{name}": value for name, value in weights.items()}, (us, x0))

    many = {name: torch.stack([value, 1.1 * value]) for name, value in weights.items()}
    for transform, given in (
        (grad(loss, argnums=(0, 1)), weights),
        (vmap(grad(loss, argnums=(0, 1)), in_dims=(None, 1, 0)), weights),
        (vmap(grad(loss), in_dims=(0, None, None)), many),
        (grad(lambda *args: grad(loss, argnums=1)(*args).square().sum()), weights),
    ):
        mine = transform(given, us, x0)
        with ctrnn.plain():
            torch.testing.assert_close(mine, transform(given, us, x0), rtol=1e-10, atol=1e-11)
    assert "ctrnn_lstm_backward" in runs


def test_forward_mode_inside_a_kernel_is_refused():
    inputs, given = whole(4), plan(4)
    with pytest.raises(NotImplementedError, match="forward mode"):
        torch.func.jvp(lambda c: kernel(given, inputs._replace(c0=c)), (inputs.c0,), (torch.ones_like(inputs.c0),))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [7, 65])
def test_a_row_has_the_same_bits_in_any_company_and_on_any_number_of_threads(n, dtype, threads, runs):
    model, x0 = network(n, dtype), state(110, n, dtype=dtype)
    # One drive for all: torch's own products are not independent of the company.
    us = samples(6, 1, 3, dtype=dtype)

    def run(rows, count):
        threads(count)
        given = tree.map(lambda part: part[rows].clone().requires_grad_(), x0)
        xs = integrate(model, us.expand(-1, len(given.h), -1), given, dt=0.2).xs
        back = torch.autograd.grad(xs.h.square().sum() + xs.c.square().sum(), list(given))
        return [part.detach() for part in xs], back

    states, grads = run(slice(0, 110), 1)
    for rows, count in ((slice(0, 1), 1), (slice(3, 4), 2), (slice(2, 9), 1), (slice(0, 110), 2), (slice(1, 61), 2)):
        part, back = run(rows, count)
        assert all(torch.equal(a, b[:, rows]) for a, b in zip(part, states, strict=True))
        assert all(torch.equal(a, b[rows]) for a, b in zip(back, grads, strict=True))


def test_a_long_run_of_a_stack_of_which_little_is_kept_goes_in_parts(runs, monkeypatch):
    monkeypatch.setattr(_compiled, "BUDGET", 10_000)
    model, us = Stack([LSTM(7, 3, 7), LSTM(7, 7)]).double(), samples(1500, 5, 3)
    with torch.no_grad():
        kept = integrate(model, us, dt=1.0, save=Every(500)).xs
        assert len(runs) > 2
        whole = integrate(model, us, dt=1.0).xs
    for part, every in zip(tree.leaves(kept), tree.leaves(whole), strict=True):
        assert torch.equal(part, every[499::500])
