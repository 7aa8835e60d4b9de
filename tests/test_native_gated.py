"""Compiled runs of torch's GRU are the plain ones: values, gradients, bits of a row, under every transform."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

import ctrnn
from ctrnn import At, Every, Fixed, Held, Last, Linear, Recompute, integrate
from ctrnn.drive import Cubic
from ctrnn.lowered import GatedNetwork
from ctrnn.models import GRU
from ctrnn.native import gated as native
from ctrnn.native.gated import Inputs, Plan, gated
from ctrnn.native.library import library
from ctrnn.native.schedule import Schedule
from ctrnn.solvers import RK4, Euler, ExponentialEuler, Heun, Iterate
from ctrnn.solvers.tableaux import RK4 as RK4_TABLEAU

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels were not compiled")

SOLVERS = [Iterate(), Euler(), ExponentialEuler(), Heun(), RK4()]
DTYPES = [torch.float32, torch.float64]
CLOSE = {torch.float64: 1e-12, torch.float32: 3e-5}


@pytest.fixture(autouse=True)
def runs(monkeypatch):
    """Every compiled run that is made: a test of kernels that does not reach them tests nothing."""
    names = []

    def watched(name, *structures):
        names.append(name)
        call(name, *structures)

    call = native.call
    monkeypatch.setattr(native, "call", watched)
    yield names
    assert names


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def samples(*shape, dtype=torch.float64, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network(n=7, dtype=torch.float64, **options):
    generator = torch.Generator().manual_seed(0)
    tau = 0.5 + torch.rand(n, generator=generator)
    return GRU(n, 3, 2, tau=tau, learn_tau=True, generator=generator, **options).to(dtype)


def found(model, us, x0, **options):
    """States, and the gradients of everything."""
    x0, us = (value.detach().requires_grad_() for value in (x0, us))
    drive = options.pop("drive", lambda us: us)(us)
    run = integrate(model, drive, x0, **options)
    loss = (samples(*run.xs.shape, dtype=run.xs.dtype, seed=9) * run.xs).sum() + run.ys.square().sum()
    return [run.xs.detach(), *torch.autograd.grad(loss, [x0, us, *model.parameters()], allow_unused=True)]


def assert_same(mine, plain):
    for a, b in zip(mine, plain, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b.numel():
            torch.testing.assert_close(a, b, rtol=0, atol=CLOSE[b.dtype] * max(1.0, float(b.abs().max())))


def assert_twin(*args, **options):
    mine = found(*args, **options)
    with ctrnn.plain():
        assert_same(mine, found(*args, **options))


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_the_plain_loop(solver, bias):
    assert_twin(network(bias=bias), samples(9, 5, 3), samples(5, 7, seed=2), dt=0.3, solver=solver)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", [(), (1,), (3,), (50,), (2, 3)], ids=str)
@pytest.mark.parametrize("n", [1, 7, 17, 65])
def test_sizes_need_fit_nothing(n, batch, dtype, threads):
    model, x0, us = network(n, dtype), samples(*batch, n, dtype=dtype, seed=2), samples(5, *batch, 3, dtype=dtype)
    for solver, count in ((Euler(), 1), (Euler(), 2), (RK4(), 2)):
        threads(count)
        assert_twin(model, us, x0, dt=0.2, solver=solver)


def test_torchs_own_layer_is_the_same_network():
    model = GRU(17, 3, tau=0.1, generator=torch.Generator().manual_seed(0)).double()
    twin = nn.GRU(3, 17).double()
    model.copy_weights(twin, "_l0")
    us = samples(20, 5, 3)
    for solver in (Iterate(), Euler()):
        torch.testing.assert_close(integrate(model, us, dt=0.1, solver=solver).xs, twin(us)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", [Euler(), Heun(), RK4()], ids=str)
@pytest.mark.parametrize("kind", [Held, Linear, Cubic], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("dt", [0.3, 0.1, 0.2])
def test_drives_and_steps_within_a_sample(solver, kind, dt):
    drive = lambda us: kind(us, 0.3)
    assert_twin(network(), samples(6, 4, 3), samples(4, 7, seed=2), drive=drive, steps=Fixed(dt), solver=solver)


@pytest.mark.parametrize("save", [Last(), Every(2), At(torch.tensor([0.0, 0.25, 1.7]))], ids=str)
@pytest.mark.parametrize("adjoint", [ctrnn.Backprop(), Recompute()], ids=str)
def test_every_save_policy_keeps_the_same_states(save, adjoint):
    assert_twin(network(), samples(9, 5, 3), samples(5, 7, seed=2), dt=0.3, save=save, adjoint=adjoint)


@pytest.mark.parametrize("solver", SOLVERS[:3], ids=str)
def test_noise_is_the_same_noise_with_the_same_gradients(solver):
    def run():
        sigma = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        generator = torch.Generator().manual_seed(3)
        run = integrate(network(), samples(70, 5, 3), dt=0.3, solver=solver, noise=sigma, generator=generator)
        return [run.xs.detach(), *torch.autograd.grad(run.xs.square().sum(), [sigma])]

    mine = run()
    with ctrnn.plain():
        assert_same(mine, run())


def whole(rows, n=7, steps=6, kinds=2, coefficients=2):
    """Every input of a run."""
    return Inputs(
        samples(rows, n),
        samples(coefficients, steps, rows, 5, seed=2),
        samples(3 * n, 5, seed=7),
        samples(3 * n, seed=8),
        samples(3 * n, n, seed=3) / n**0.5,
        samples(3 * n, seed=4),
        samples(kinds, n, seed=5).sigmoid(),
        0.1 * samples(steps, rows, n, seed=6),
    )


def schedule(rows, tableau, steps=6):
    return Schedule(
        steps=steps,
        tableau=tableau,
        kind=torch.tensor([0, 1, 1, 0, 1, 0], dtype=torch.int32),
        interval=torch.tensor([0, 0, 1, 2, 2, 5]),
        begin=torch.tensor([0, 0.5, 0, 0, 0.25, 0], dtype=torch.float64),
        width=torch.tensor([0.5, 0.5, 1, 0.25, 0.75, 1], dtype=torch.float64),
        count=torch.tensor([6, 3, 0, 5])[:rows],
        keep=torch.tensor([0, -1, 1, -1, -1, 2]),
        slots=3,
    )


def kernel(plan, inputs):
    net = GatedNetwork(inputs.W, inputs.W_in, inputs.b_rec, inputs.b, inputs.rates[0], "gru")
    return gated(net, plan.schedule, inputs.x0, inputs.drive, inputs.rates, inputs.kicks)


@pytest.mark.parametrize("rows", [0, 1, 4])
@pytest.mark.parametrize("tableau", [None, RK4_TABLEAU], ids=["lerp", "rk4"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_run_with_all_that_a_schedule_can_say(tableau, rows, shared):
    plan, results = Plan(schedule(rows, tableau), True, 1), []
    for run in (kernel, native._plain):
        inputs = whole(rows)
        inputs = inputs._replace(drive=samples(2, 6, 1, 5)) if shared else inputs
        inputs = Inputs(*[value.requires_grad_() for value in inputs])
        xs, end = run(plan, inputs)
        loss = (samples(*xs.shape) * xs).sum() + end.square().sum()
        results.append([xs.detach(), end.detach(), *torch.autograd.grad(loss, list(inputs))])
    assert_same(*results)


@pytest.mark.parametrize("tableau", [None, RK4_TABLEAU], ids=["lerp", "rk4"])
def test_a_gradient_of_one_output_alone(tableau):
    plan = Plan(schedule(4, tableau), True, 1)
    for output in (0, 1):
        results = []
        for run in (kernel, native._plain):
            inputs = Inputs(*[value.requires_grad_() for value in whole(4)])
            results.append(torch.autograd.grad(run(plan, inputs)[output].square().sum(), list(inputs)))
        assert_same(*results)


@pytest.mark.parametrize("tableau", [None, RK4_TABLEAU], ids=["lerp", "rk4"])
def test_first_and_second_derivatives_are_those_of_finite_differences(tableau):
    plan = Plan(schedule(2, tableau), True, 1)
    run = lambda *values: kernel(plan, Inputs(*values))
    inputs = [value.requires_grad_() for value in whole(2, n=2)]
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_second_derivatives_are_those_of_the_plain_loop():
    model, us, x0 = network(4), samples(5, 2, 3), samples(2, 4, seed=2)

    def twice():
        xs = integrate(model, us, x0, dt=0.3).xs
        first = torch.autograd.grad(xs.tanh().sum(), list(model.parameters())[:3], create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), list(model.parameters())[:3])

    mine = twice()
    with ctrnn.plain():
        assert_same(mine, twice())


def test_transforms_of_torch_func_see_through_a_run():
    model, us, x0 = network(), samples(8, 5, 3), samples(5, 7, seed=2)
    weights = dict(model.named_parameters())

    class Run(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, us, x0):
            return integrate(self.model, us, x0, dt=0.3).xs.square().sum()

    def loss(weights, us, x0):
        return functional_call(Run(), {f"model.{name}": value for name, value in weights.items()}, (us, x0))

    many = {name: torch.stack([value, 1.1 * value]) for name, value in weights.items()}
    for transform, given in (
        (grad(loss, argnums=(0, 1, 2)), weights),
        (vmap(grad(loss, argnums=(0, 1, 2)), in_dims=(None, 1, 0)), weights),
        (vmap(grad(loss), in_dims=(0, None, None)), many),
        (grad(lambda *args: sum(g.square().sum() for g in grad(loss, argnums=(1, 2))(*args))), weights),
    ):
        mine = transform(given, us, x0)
        with ctrnn.plain():
            torch.testing.assert_close(mine, transform(given, us, x0), rtol=1e-10, atol=1e-11)


def test_forward_mode_inside_a_kernel_is_refused():
    plan, inputs = Plan(schedule(4, None), True, 1), whole(4)
    with pytest.raises(NotImplementedError, match="forward mode"):
        torch.func.jvp(lambda x: kernel(plan, inputs._replace(x0=x)), (inputs.x0,), (torch.ones_like(inputs.x0),))


def test_inputs_may_lie_anywhere_in_memory():
    model = network()
    model.W_rec = nn.Parameter(samples(7, 42).T[::2])
    us, x0 = samples(3, 5, 9).permute(2, 1, 0), samples(7, 10, seed=2).T[::2]
    assert not any(value.is_contiguous() for value in (us, x0, model.W_rec))
    for solver in (Euler(), RK4()):
        assert_twin(model, us, x0, dt=0.3, solver=solver)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("solver", [Euler(), RK4()], ids=str)
@pytest.mark.parametrize("n", [7, 65, 130])
def test_a_row_has_the_same_bits_in_any_company_and_on_any_number_of_threads(n, solver, dtype, threads):
    model, x0 = network(n, dtype), samples(110, n, dtype=dtype, seed=2)
    # One drive for all: torch's own products are not independent of the company.
    us = samples(6, 1, 3, dtype=dtype)

    def run(rows, count):
        threads(count)
        given = x0[rows].clone().requires_grad_()
        xs = integrate(model, us.expand(-1, len(given), -1), given, dt=0.2, solver=solver).xs
        (back,) = torch.autograd.grad(xs.square().sum(), given)
        return xs.detach(), back

    xs, back = run(slice(0, 110), 1)
    for rows, count in ((slice(0, 1), 1), (slice(3, 4), 2), (slice(2, 9), 1), (slice(0, 110), 2), (slice(1, 61), 2)):
        part = run(rows, count)
        assert torch.equal(part[0], xs[:, rows])
        assert torch.equal(part[1], back[rows])


def test_what_is_not_a_number_stays_with_its_row():
    model, x0 = network(), samples(4, 7, seed=2)
    us = samples(6, 4, 3)
    us[3, 2] = torch.inf
    us[3, 2, 0] = torch.nan
    plain = Schedule(6, None, None, None, None, None, None, None, 6)
    xs, _ = gated(model.lowered(), plain, x0, us[None], torch.ones(1, 7, dtype=torch.float64), None)
    assert xs[:, [0, 1, 3]].isfinite().all()
    assert xs[:3, 2].isfinite().all()
    assert xs[3:, 2].isnan().all()


@pytest.mark.parametrize("kind", [Held, Linear, Cubic], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("solver", [Euler(), RK4()], ids=str)
@pytest.mark.parametrize("batch", [(), (50,)], ids=str)
@pytest.mark.parametrize("n_in", [0, 1, 33])
def test_a_drive_is_projected_in_pieces_of_any_size(n_in, batch, solver, kind):
    model = GRU(7, n_in, tau=torch.linspace(1, 2, 7), learn_tau=True, generator=torch.Generator()).double()
    for us in (samples(101, *batch, n_in), samples(101, n_in, seed=4)):
        results = []
        for compiled in (True, False):
            given = us.clone().requires_grad_()
            with torch.enable_grad() if compiled else ctrnn.plain():
                start = model.initial_state(*batch)
                xs = integrate(model, kind(given, 0.3), start, steps=Fixed(0.15), solver=solver).xs
            results.append([xs.detach(), *torch.autograd.grad(xs.sin().sum(), (given, *model.parameters()))])
        assert_same(*results)
