import copy
import itertools
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from ctrnn import (
    RK4,
    Adaptive,
    At,
    Euler,
    Every,
    ExponentialEuler,
    Fixed,
    Function,
    Held,
    IntegrationError,
    Last,
    Linear,
    MaxStepsReached,
    NonFiniteState,
    Status,
    StepSizeUnderflow,
    Tsit5,
    integrate,
)
from ctrnn.dynamics import Model, Relaxation, wrap
from ctrnn.models import CTRNN, GRU, LSTM, MTRNN, LinearSystem, Stack

ADAPTIVE = {"steps": Adaptive(1e-9, 1e-9)}
FIXED = {"solver": RK4(), "dt": 0.01}
both_steps = pytest.mark.parametrize("how", [FIXED, ADAPTIVE], ids=["fixed", "adaptive"])


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


class Explosion(Model):
    """da/dt = -a,   db/dt = b^2: b is infinite at t = 1 / b0."""

    def forward(self, t: Tensor, x: Pair, u: Tensor) -> Pair:
        return Pair(-x.a, x.b**2)

    def initial_state(self, *batch: int) -> Pair:
        return Pair(torch.ones(*batch, 3), torch.ones(*batch, 2))

    def readout(self, x: Pair) -> Tensor:
        return x.b


class OrnsteinUhlenbeck(Relaxation):
    """tau dx/dt = 0 - x."""

    def __init__(self, tau=1.0) -> None:
        super().__init__()
        self.tau = tau

    def target(self, t, x, u, alpha=0):
        return torch.zeros_like(x)

    def initial_state(self, *batch):
        return torch.zeros(*batch, 2)


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator)


def assert_close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# What is kept


def test_a_trajectory_has_time_first_and_then_the_batch(generator):
    model, us = LSTM(3, 2, 4, generator=generator), draw(generator, 5, 2, 6, 2)
    for how in ({}, ADAPTIVE):
        run = integrate(model, us, dt=0.1, **how)
        assert run.ts.shape == (5,)
        assert run.ts.dtype == torch.float64
        assert {leaf.shape for leaf in run.xs} == {(5, 2, 6, 3)}
        assert type(run.xs) is type(model.initial_state())
        assert run.us.shape == (5, 2, 6, 2)
        assert run.ys.shape == (5, 2, 6, 4)
        assert run.mask is None
        assert [value.shape for value in run.stats] == [(2, 6)] * 4
        assert (run.stats.status == Status.REACHED).all()
        assert torch.equal(run.ys, model.readout(run.xs))


def test_an_input_for_all_samples_is_given_once(generator):
    model, us, x0 = CTRNN(3, 2, generator=generator), draw(generator, 5, 2), draw(generator, 2, 4, 3)
    for how in ({}, ADAPTIVE):
        run = integrate(model, us, x0, dt=0.1, **how)
        every = integrate(model, us[:, None, None].expand(5, 2, 4, 2), x0, dt=0.1, **how)
        assert_close(run.xs, every.xs)
        assert_close(run.us, every.us)
    one = integrate(model, us, torch.zeros(3), dt=0.1)
    assert_close(integrate(model, us[:, None], torch.zeros(3), dt=0.1).xs[:, 0], one.xs)


def test_without_samples_a_fixed_run_keeps_every_step_and_an_adaptive_one_the_end():
    system = LinearSystem.example()
    run = integrate(system, t_span=(0.0, 1.0), dt=0.25, solver=RK4())
    assert run.ts.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert integrate(system, t_span=(0.0, 1.0)).ts.tolist() == [1.0]


def test_every_k_steps_and_the_last_state_are_those_of_the_whole_run():
    system = LinearSystem.example()
    whole = integrate(system, t_span=(0.0, 1.0), **FIXED)
    run = integrate(system, t_span=(0.0, 1.0), save=Every(30), **FIXED)
    assert torch.equal(run.xs, whole.xs[29::30])
    assert torch.equal(run.ts, whole.ts[29::30])
    last = integrate(system, t_span=(0.0, 1.0), save=Last(), **FIXED)
    assert torch.equal(last.xs, whole.xs[-1:])
    assert_close(
        integrate(system, t_span=(0.0, 1.0), save=Last(), **ADAPTIVE).xs,
        system.exact(torch.tensor([1.0]), torch.ones(2)),
        1e-8,
    )


TIMES = [0.0, 0.1, 0.123, 0.5, 0.77777, 1.0]


@both_steps
def test_states_at_given_times_are_accurate_on_and_off_the_steps(how):
    system = LinearSystem.example()
    run = integrate(system, t_span=(0.0, 1.0), save=At(TIMES), **how)
    assert_close(run.ts, torch.tensor(TIMES))
    assert_close(run.xs, system.exact(run.ts, torch.ones(2)), 1e-7)


def test_given_times_are_edges_of_a_fixed_run_and_change_no_step_that_ends_there_anyway(generator):
    model, us = CTRNN(3, 2, generator=generator), draw(generator, 4, 2)
    plain = integrate(model, us, dt=0.25)
    at = integrate(model, us, dt=0.25, save=At([0.25, 0.75]))
    assert torch.equal(at.xs, plain.xs[[0, 2]])
    assert torch.equal(at.us, us[[0, 2]])
    between = integrate(model, us, dt=0.25, save=At([0.35, 1.0]))
    assert between.stats.steps == 5
    edges = torch.tensor([0.0, 0.25, 0.35, 0.5, 0.75, 1.0])
    cut = integrate(model, Held(us[[0, 1, 1, 2, 3]], edges=edges), steps=Fixed(0.25))
    assert_close(between.xs, cut.xs[[1, 4]])
    assert torch.equal(between.us, us[[1, 3]])


@both_steps
def test_the_drive_at_given_times_is_interpolated_like_the_drive(generator, how):
    us = draw(generator, 3, 2, 1)
    run = integrate(
        LinearSystem.example(),
        Linear(us, 1.0),
        save=At([0.0, 0.25, 1.0, 1.5]),
        **{"steps": Fixed(0.5), "solver": RK4()} if "dt" in how else how,
    )
    expected = torch.stack([us[0], 0.75 * us[0] + 0.25 * us[1], us[1], 0.5 * (us[1] + us[2])])
    assert_close(run.us, expected)


def test_given_times_reach_samples_with_edges_of_their_own(generator):
    model, us = CTRNN(3, 2, generator=generator), draw(generator, 2, 2, 2)
    edges = torch.tensor([[0.0, 0.0], [0.3, 1.0], [2.0, 1.5]])
    run = integrate(model, Held(us, edges=edges), save=At([0.5, 1.2, 2.0]), **ADAPTIVE)
    for i in (0, 1):
        ts = [0.5, 1.2, 2.0] if i == 0 else [0.5, 1.2]
        alone = integrate(model, Held(us[:, i], edges=edges[:, i]), save=At(ts), **ADAPTIVE)
        assert_close(run.xs[: len(ts), i], alone.xs)
        assert torch.equal(run.us[: len(ts), i], alone.us)


@both_steps
def test_a_gradient_reaches_the_times_at_which_states_are_kept(how):
    system = LinearSystem.example()
    ts = torch.tensor([0.2, 0.413, 1.0], requires_grad=True)
    run = integrate(system, t_span=(0.0, 1.0), save=At(ts), **how)
    slopes = system(ts, run.xs, torch.zeros(1)).sum(-1)
    torch.testing.assert_close(torch.autograd.grad(run.xs.sum(), ts)[0], slopes.detach(), rtol=1e-5, atol=1e-6)


# Samples do not meet


@pytest.mark.parametrize(
    "kind",
    [CTRNN, LSTM, lambda *n, generator: Stack([GRU(3, 2, generator=generator), LSTM(2, 3, generator=generator)])],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adaptive_steps_of_a_sample_do_not_depend_on_its_company(generator, kind, dtype):
    model = kind(3, 2, generator=generator).to(dtype)
    us = draw(generator, 4, 2, 3, 2).to(dtype) * torch.tensor([0.1, 1.0, 10.0], dtype=dtype)[:, None]
    how = {"steps": Adaptive(1e-4, 1e-5), "dt": 0.7}
    run = integrate(model, us, **how)
    assert run.ys.dtype == dtype
    assert run.stats.steps.unique().numel() > 1
    for i, j in ((0, 0), (1, 2), (0, 1)):
        alone = integrate(model, us[:, i, j], **how)
        if dtype == torch.float64:  # in float32 rounding itself may decide whether a step is accepted
            assert alone.stats.steps == run.stats.steps[i, j]
        assert_close(alone.ys, run.ys[:, i, j], 1e-4 if dtype == torch.float32 else 1e-12)


def test_integrate_leaves_the_model_its_arguments_and_the_global_generator_as_they_were(generator):
    model, us, x0 = LSTM(3, 2, generator=generator), draw(generator, 4, 2, 2), None
    before, rng = copy.deepcopy((model.state_dict(), us)), torch.get_rng_state()
    modes = [(m.training, [p.requires_grad for p in m.parameters()]) for m in model.modules()]
    for how in ({}, ADAPTIVE, {"noise": 0.1, "generator": generator}):
        integrate(model, us, x0, dt=0.1, **how)
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.equal(us, before[1])
    assert all(torch.equal(value, before[0][name]) for name, value in model.state_dict().items())
    assert modes == [(m.training, [p.requires_grad for p in m.parameters()]) for m in model.modules()]
    assert all(p.grad is None for p in model.parameters())


def test_a_run_without_gradients_has_no_graph(generator):
    model, us = CTRNN(3, 2, generator=generator), draw(generator, 4, 2, 2)
    for how in ({}, ADAPTIVE):
        with torch.no_grad():
            run = integrate(model, us, dt=0.1, **how)
        assert not run.ys.requires_grad
        # To rounding: without gradients the search's own states are kept, whose rows had other company.
        torch.testing.assert_close(run.ys, integrate(model, us, dt=0.1, **how).ys.detach(), rtol=0, atol=1e-14)


# Failures


def explode(how, b=2.0, **options):
    x0 = Pair(torch.ones(3, 3), torch.tensor([[0.1, 0.1], [0.2, b], [0.3, 0.3]]))
    return integrate(Explosion(), None, x0, t_span=(0.0, 1.0), **how, **options)


def test_a_state_that_overflows_says_when_which_sample_which_part_and_what_to_do():
    with pytest.raises(
        NonFiniteState, match=r"Explosion stopped at t = 0\.\d+, step \d+ of sample 1, part 'b'.*smaller steps"
    ) as caught:
        explode({"solver": Euler(), "dt": 0.05}, b=10.0)
    error = caught.value
    assert error.sample == (1,)
    assert error.part == "b"
    assert error.t == pytest.approx(0.05 * error.step)
    run = error.trajectory
    assert torch.isfinite(run.xs.b[error.step - 1]).all()
    assert not torch.isfinite(run.xs.b[error.step, 1]).all()
    assert torch.isfinite(run.xs.b[:, [0, 2]]).all()
    assert run.stats.status.tolist() == [0, Status.NON_FINITE_STATE, 0]
    assert not any(leaf.requires_grad for leaf in run.xs)


@pytest.mark.parametrize("batch", [(), (2, 2)])
def test_a_failure_is_found_in_any_batch(batch):
    x0 = Pair(torch.ones(*batch, 3), torch.full((*batch, 2), 10.0))
    with pytest.raises(NonFiniteState) as caught:
        integrate(Explosion(), None, x0, t_span=(0.0, 1.0), dt=0.05, solver=Euler())
    assert caught.value.sample == (0,) * len(batch)
    assert str(caught.value).endswith("4 of 4 samples failed.") == (batch == (2, 2))


def test_a_failure_after_the_first_chunk_of_steps_is_placed_at_its_step():
    with pytest.raises(NonFiniteState) as caught:
        explode({"solver": Euler(), "dt": 0.001})
    run = explode({"solver": Euler(), "dt": 0.001}, on_failure="return")
    first = int((~torch.isfinite(run.xs.b[:, 1]).all(-1)).nonzero()[0])
    assert caught.value.step == first > 100


def test_an_adaptive_sample_that_explodes_stops_alone():
    with pytest.raises(IntegrationError, match=r"sample 1, part 'b'") as caught:
        explode(ADAPTIVE, save=At([0.25, 0.45, 0.75, 1.0]))
    error = caught.value
    assert isinstance(error, StepSizeUnderflow | NonFiniteState)
    assert error.t == pytest.approx(0.5, abs=1e-3)
    run = error.trajectory
    assert error.step == run.stats.steps[1]
    assert torch.isfinite(run.xs.b[:, [0, 2]]).all()
    assert torch.isfinite(run.xs.b[:2, 1]).all()
    assert torch.isnan(run.xs.b[2:, 1]).all()
    assert torch.isnan(run.xs.a[2:, 1]).all()
    assert torch.isnan(run.ys[2:, 1]).all()
    alone = explode(ADAPTIVE, save=At([0.25, 0.45, 0.75, 1.0]), on_failure="return")
    assert torch.equal(alone.stats.steps, run.stats.steps)
    exact = 1 / (1 / torch.tensor([0.1, 0.2, 0.3]) - 1.0)
    assert_close(alone.xs.b[-1, [0, 2], 0], exact[[0, 2]], 1e-7)


def test_a_failure_behind_the_last_state_kept_is_still_a_failure():
    with pytest.raises(IntegrationError):
        explode(ADAPTIVE, save=At([0.25]))


def test_running_out_of_steps_says_so():
    with pytest.raises(MaxStepsReached, match=r"sample \d.*max_steps"):
        explode({"steps": Adaptive(1e-12, 1e-12, max_steps=5)})
    run = explode({"steps": Adaptive(1e-12, 1e-12, max_steps=5)}, on_failure="return")
    assert (run.stats.status == Status.MAX_STEPS_REACHED).all()
    assert (run.stats.steps + run.stats.rejected == 5).all()


def test_a_step_below_dt_min_says_so():
    with pytest.raises(StepSizeUnderflow, match=r"tolerances.*rtol"):
        explode({"steps": Adaptive(1e-12, 1e-12, dt_min=0.1)})


def test_a_failed_sample_leaves_the_gradients_of_the_others_alone(generator):
    model = nn.Linear(2, 1)

    class Read(Explosion):
        def __init__(self):
            super().__init__()
            self.head = model

        def readout(self, x):
            return self.head(x.b)

    x0 = Pair(torch.ones(2, 3), torch.tensor([[0.1, 0.1], [2.0, 2.0]], requires_grad=True))
    run = integrate(Read(), None, x0, t_span=(0.0, 1.0), save=At([0.3, 1.0]), on_failure="return", **ADAPTIVE)
    got = torch.autograd.grad(run.ys[:, 0].sum(), [*model.parameters(), x0.b])
    assert all(bool(torch.isfinite(g).all()) for g in got)
    alone = integrate(Read(), None, Pair(x0.a[:1], x0.b[:1]), t_span=(0.0, 1.0), save=At([0.3, 1.0]), **ADAPTIVE)
    for a, b in zip(got, torch.autograd.grad(alone.ys.sum(), [*model.parameters(), x0.b]), strict=True):
        assert_close(a, b)


def test_stats_count_what_happened(generator):
    us = draw(generator, 4, 3, 1)
    run = integrate(LinearSystem.example(), us, dt=0.1, steps=Fixed(0.05), solver=RK4())
    assert run.stats.steps.tolist() == [8] * 3
    assert run.stats.rejected.tolist() == [0] * 3
    assert run.stats.evaluations.tolist() == [32] * 3


# Noise


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("solver", [Euler(), ExponentialEuler()])
def test_noise_has_the_stationary_deviation_that_is_promised(alpha, solver):
    tau, sigma, samples = 0.4, 0.3, 4000
    run = integrate(
        OrnsteinUhlenbeck(tau),
        t_span=(0.0, 30 * tau),
        x0=torch.zeros(samples, 2),
        dt=alpha * tau,
        solver=solver,
        save=Last(),
        noise=sigma,
        generator=torch.Generator().manual_seed(5),
    )
    expected = sigma * math.sqrt(2 / (2 - alpha)) if isinstance(solver, Euler) else sigma
    # A standard deviation estimated from N normal values has the relative standard error 1 / sqrt(2 N); 4 of them.
    assert run.xs.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * run.xs.numel()))
    assert abs(run.xs.mean().item()) < 4 * expected / math.sqrt(run.xs.numel())


def test_noise_of_exponential_euler_has_the_exact_correlation_in_time():
    run = integrate(
        OrnsteinUhlenbeck(1.0),
        t_span=(0.0, 12.0),
        x0=torch.zeros(20_000, 2),
        dt=0.7,
        solver=ExponentialEuler(),
        noise=1.0,
        generator=torch.Generator().manual_seed(5),
        save=At([11.0, 12.0]),
    )
    got = torch.corrcoef(run.xs.flatten(1))[0, 1].item()
    assert got == pytest.approx(math.exp(-1.0), abs=4 / math.sqrt(40_000))


def noisy(generator_seed, **options):
    model = CTRNN(3, 2, generator=torch.Generator().manual_seed(0))
    us = draw(torch.Generator().manual_seed(1), 200, 4, 2)
    drive = Held(us, 0.1, lengths=options.pop("lengths", None))
    return integrate(
        model,
        drive,
        noise=options.pop("noise", 0.2),
        generator=torch.Generator().manual_seed(generator_seed),
        **options,
    ).xs


def test_noise_is_repeated_by_its_generator():
    assert torch.equal(noisy(3), noisy(3))
    assert not torch.equal(noisy(3), noisy(4))


def test_noise_does_not_depend_on_what_is_kept():
    whole = noisy(3)
    cut = noisy(3, save=Last())
    assert torch.equal(whole[-1:], cut)


def test_noise_of_a_sample_does_not_depend_on_the_lengths_of_the_others():
    whole = noisy(3)
    lengths = torch.tensor([150, 200, 60, 170])
    cut = noisy(3, lengths=lengths)
    for i, n in enumerate(lengths.tolist()):
        assert_close(cut[:n, i], whole[:n, i])


def test_noise_of_each_sample_follows_it_through_sorting():
    sigma = torch.tensor([0.0, 0.1, 0.0, 0.3])[:, None]
    quiet, lengths = noisy(3, noise=0.0), torch.tensor([150, 200, 60, 170])
    for options in ({}, {"lengths": lengths}):
        loud = noisy(3, noise=sigma, **options)
        assert_close(loud[:60, [0, 2]], quiet[:60, [0, 2]])
        assert (loud[:60, [1, 3]] - quiet[:60, [1, 3]]).abs().min() > 0


def test_each_part_of_a_state_may_have_its_own_noise(generator):
    model = LSTM(3, 2, generator=generator)
    x0 = model.initial_state(2)
    run = integrate(
        model,
        Held(torch.zeros(1, 2), 0.1),
        x0,
        noise=type(x0)(h=0.0, c=torch.tensor([0.5, 0.0, 0.5])),
        generator=generator,
    )
    still = integrate(model, Held(torch.zeros(1, 2), 0.1), x0)
    assert torch.equal(run.xs.h, still.xs.h)
    assert torch.equal(run.xs.c[..., 1], still.xs.c[..., 1])
    assert (run.xs.c[..., [0, 2]] != still.xs.c[..., [0, 2]]).all()


def test_noise_keeps_the_dtype_of_the_state():
    model = CTRNN(3, 1).float()
    run = integrate(
        model, torch.zeros(3, 1, dtype=torch.float32), dt=0.1, noise=torch.full((3,), 0.1, dtype=torch.float64)
    )
    assert run.xs.dtype == torch.float32


def test_a_gradient_flows_through_a_noisy_run(generator):
    model = CTRNN(3, 2, generator=generator)
    run = integrate(model, draw(generator, 100, 2, 2), dt=0.1, noise=0.1, generator=generator)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(run.ys.sum(), list(model.parameters())[:3]))


# Progress


@pytest.mark.parametrize("steps", [1, 64, 65, 300])
def test_progress_grows_to_one(generator, steps):
    model, us = CTRNN(3, 2, generator=generator), draw(generator, steps, 3, 2)
    for how in ({}, {"steps": Adaptive(1e-3, 1e-3)}, {"noise": 0.1}):
        seen = []
        integrate(model, Held(us, 0.1, lengths=torch.tensor([steps, 1, steps // 2])), progress=seen.append, **how)
        assert seen[-1] == 1.0
        assert all(0 <= a < b for a, b in itertools.pairwise(seen))
        assert steps < 100 or len(seen) > 2


# torch.func


class Run(nn.Module):
    """A module whose call is a run, for functional_call."""

    def __init__(self, model, how):
        super().__init__()
        self.model, self.how = model, how

    def forward(self, us, x0=None):
        return integrate(self.model, us, x0, dt=0.2, **self.how).ys


every_network = pytest.mark.parametrize(
    "model",
    [CTRNN(3, 2, 1), LSTM(3, 2), MTRNN({"fast": (2, 1.0), "slow": (2, 5.0)}, 2, 1)],
    ids=lambda m: type(m).__name__,
)


@every_network
@pytest.mark.parametrize(
    "how", [{}, {"solver": RK4()}, {"solver": ExponentialEuler()}], ids=["euler", "rk4", "exponential"]
)
@pytest.mark.filterwarnings(
    "ignore:There is a performance drop because we have not yet implemented the batching rule:UserWarning"
)
def test_a_fixed_run_composes_with_vmap_grad_and_jacrev(generator, model, how):
    run, us = Run(model.double(), how), draw(generator, 4, 5, 2)
    parameters = dict(run.named_parameters())
    assert_close(vmap(run, in_dims=1, out_dims=1)(us), run(us))
    loss = lambda p, us: functional_call(run, p, us).square().sum()
    expected = torch.autograd.grad(loss(parameters, us), list(parameters.values()))
    for got, want in zip(grad(loss)(parameters, us).values(), expected, strict=True):
        assert_close(got, want)
    each = vmap(grad(loss), in_dims=(None, 1))(parameters, us)
    for got, want in zip(each.values(), expected, strict=True):
        assert_close(got.sum(0), want)
    J = jacrev(run)(us[:, 0])
    assert_close(J, torch.autograd.functional.jacobian(run, us[:, 0]))


def test_an_ensemble_of_networks_runs_in_one_vmap(generator):
    networks = [CTRNN(3, 2, tau=tau, learn_tau=True, generator=generator) for tau in (1.0, 2.0, 3.0)]
    us = draw(generator, 4, 5, 2)
    base = Run(copy.deepcopy(networks[0]), {})
    stacked = torch.func.stack_module_state([Run(n, {}) for n in networks])
    together = vmap(lambda p, b: functional_call(base, {**p, **b}, us))(*stacked)
    assert_close(together, torch.stack([Run(n, {})(us) for n in networks]))


def test_an_adaptive_run_composes_with_grad(generator):
    run, us = Run(CTRNN(3, 2, 1, generator=generator), {"steps": Adaptive(1e-6, 1e-6)}), draw(generator, 4, 5, 2)
    parameters = dict(run.named_parameters())
    loss = lambda p: functional_call(run, p, us).square().sum()
    expected = torch.autograd.grad(loss(parameters), list(parameters.values()))
    for got, want in zip(grad(loss)(parameters).values(), expected, strict=True):
        assert_close(got, want)


def test_an_adaptive_run_under_vmap_says_what_to_do_instead(generator):
    run = Run(CTRNN(3, 2, generator=generator), {"steps": Adaptive()})
    with pytest.raises(ValueError, match=r"drive is mapped by vmap.*leading axes.*Fixed\(dt\)"):
        vmap(run, in_dims=1)(draw(generator, 4, 5, 2))


# Odds and ends


def test_an_adaptive_gradient_is_that_of_the_solution(generator):
    model, us = LSTM(3, 2, generator=generator), draw(generator, 3, 2, 2)
    x0 = model.initial_state(2)
    wrt = [p for n, p in model.named_parameters()]
    loss = lambda how: integrate(model, us, x0, dt=0.5, **how).ys.square().sum()
    fine = torch.autograd.grad(loss({"steps": Fixed(0.01), "solver": RK4()}), wrt)
    for a, b in zip(torch.autograd.grad(loss(ADAPTIVE), wrt), fine, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_a_wrapped_cell_runs_in_any_batch(generator):
    for cell in (nn.GRUCell(2, 3), nn.LSTMCell(2, 3), nn.RNNCell(2, 3)):
        us = draw(generator, 4, 2, 3, 2)
        run = integrate(wrap(cell), us, dt=1.0)
        state = None
        for k in range(4):
            state = cell(us[k].flatten(0, 1), state)
            h = state[0] if isinstance(state, tuple) else state
            assert_close(run.ys[k].flatten(0, 1), h)


class Mixer(nn.Module):
    """A cell that does not say its sizes."""

    def forward(self, u, h):
        return torch.tanh(h.roll(1, -1) + u)


def test_a_cell_that_does_not_say_its_sizes_takes_any_input(generator):
    us, x0 = draw(generator, 4, 5, 3), draw(generator, 5, 3)
    run = integrate(wrap(Mixer()), us, x0, dt=1.0)
    h = x0
    for u in us:
        h = Mixer()(u, h)
    assert torch.equal(run.xs[-1], h)


def test_a_function_of_time_drives_a_state_of_several_parts_adaptively(generator):
    model = LSTM(3, 2, generator=generator)
    drive = Function(
        lambda t: torch.cat([torch.sin(t), torch.cos(t)], -1) if t.ndim else torch.stack([torch.sin(t), torch.cos(t)])
    )
    each = Function(lambda t: torch.cat([torch.sin(t), torch.cos(t)], -1))  # knows times of each sample only
    x0 = type(model.initial_state())(draw(generator, 2, 3, 3), draw(generator, 2, 3, 3))
    run = integrate(model, drive, x0, t_span=(0.0, 2.0), solver=Tsit5(), **ADAPTIVE)
    fixed = integrate(model, drive, x0, t_span=(0.0, 2.0), save=Last(), **FIXED)
    assert_close(run.xs.c, fixed.xs.c, 1e-7)
    assert_close(run.xs.c, integrate(model, each, x0, t_span=(0.0, 2.0), **ADAPTIVE).xs.c, 0)
    assert run.ys.shape == (1, 2, 3, 3)
