import pytest
import torch
from scipy.interpolate import CubicHermiteSpline
from torch import Tensor

from ctrnn import (
    RK4,
    Adaptive,
    At,
    Cubic,
    Euler,
    Fixed,
    Function,
    Held,
    Iterate,
    Last,
    Linear,
    Silence,
    Tsit5,
    integrate,
)
from ctrnn.dynamics import Model
from ctrnn.models import CTRNN, LSTM, Elman

every_sampled = pytest.mark.parametrize("kind", [Held, Linear, Cubic])
both_steps = pytest.mark.parametrize(
    "how", [{"solver": RK4(), "steps": Fixed(0.05)}, {"steps": Adaptive(1e-9, 1e-9)}], ids=["fixed", "adaptive"]
)


class Integral(Model):
    """dx/dt = u."""

    n_in = 2

    def forward(self, t: Tensor, x: Tensor, u: Tensor) -> Tensor:
        return u.expand_as(x)

    def initial_state(self, *batch: int) -> Tensor:
        return torch.zeros(*batch, 2)


class NonAutonomous(Model):
    """dx/dt = sin(3 t) x + u."""

    n_in = 2

    def forward(self, t: Tensor, x: Tensor, u: Tensor) -> Tensor:
        return torch.sin(3 * t) * x + u

    def initial_state(self, *batch: int) -> Tensor:
        return torch.ones(*batch, 2)


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator)


def assert_close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("on_the_plain_path")
def test_sample_k_produces_state_k_as_in_a_loop_of_cells(generator):
    cell = torch.nn.RNNCell(2, 3)
    us, model = draw(generator, 7, 4, 2), Elman.from_torch(cell)
    h, hs = torch.zeros(4, 3), []
    for u in us:
        h = cell(u, h)
        hs.append(h)
    run = integrate(model, us, dt=1.0)
    assert torch.equal(run.xs, torch.stack(hs))
    assert torch.equal(run.us, us)
    assert run.ts.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


@pytest.mark.parametrize(("step", "per_sample"), [(0.1, 1), (0.05, 2), (0.01, 10), (0.03, 4)])
def test_a_run_returns_one_state_per_sample_whatever_the_step(generator, step, per_sample):
    us = draw(generator, 6, 2)
    run = integrate(Integral(), us, dt=0.1, steps=Fixed(step), solver=Euler())
    assert_close(run.xs, 0.1 * us.cumsum(0))
    assert run.stats.steps == 6 * per_sample


def test_times_of_steps_are_multiples_of_dt_and_not_sums():
    held = integrate(Integral(), torch.zeros(1001, 2), dt=0.1).ts
    silent = integrate(Integral(), t_span=(0.0, 100.1), dt=0.1, x0=torch.zeros(2)).ts
    for ts in (held, silent):
        assert ts[:1000].tolist() == [k * 0.1 for k in range(1, 1001)]


def test_a_tensor_is_a_held_drive(generator):
    us = draw(generator, 5, 3, 2)
    assert_close(integrate(Integral(), us, dt=0.1).xs, integrate(Integral(), Held(us, 0.1)).xs, 0)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_any_batch_runs_as_its_samples_run_alone(generator, batch):
    model, us = CTRNN(3, 2, generator=generator), draw(generator, 5, *batch, 2)
    for how in ({"steps": Fixed(0.1)}, {"steps": Adaptive(1e-7, 1e-7)}):
        run = integrate(model, us, dt=0.1, **how)
        assert run.xs.shape == (5, *batch, 3)
        assert all(value.shape == batch for value in run.stats)
        flat = us.reshape(5, -1, 2)
        alone = torch.stack([integrate(model, flat[:, i], dt=0.1, **how).xs for i in range(flat.shape[1])], 1)
        assert_close(run.xs, alone.reshape(run.xs.shape))


def test_an_interval_that_is_no_whole_multiple_of_dt_is_cut_into_equal_steps():
    model, us = NonAutonomous(), torch.ones(2, 2)
    run = integrate(model, Held(us, 1.0), steps=Fixed(0.3), solver=RK4())
    assert run.stats.steps == 8
    assert_close(run.xs, integrate(model, Held(us, 1.0), steps=Fixed(0.25), solver=RK4()).xs, 0)
    uneven = Held(us, edges=torch.tensor([0.0, 0.25, 1.0]))
    assert integrate(model, uneven, steps=Fixed(0.25), solver=RK4()).stats.steps == 4


def test_runge_kutta_keeps_its_order_over_a_drive_that_jumps(generator):
    model, us = NonAutonomous(), draw(generator, 4, 2)
    exact = integrate(model, us, dt=0.5, steps=Adaptive(1e-13, 1e-13)).xs
    errors = [
        (integrate(model, us, dt=0.5, steps=Fixed(h), solver=RK4()).xs - exact).abs().max() for h in (0.25, 0.125)
    ]
    assert errors[0] / errors[1] > 14


def hermite(us, times):
    slope = torch.cat([us[1:2] - us[:1], us.diff(dim=0)]) / torch.cat([times.diff()[:1], times.diff()])[:, None]
    return CubicHermiteSpline(times.numpy(), us.numpy(), slope.numpy())


@both_steps
def test_linear_and_cubic_drives_are_integrated_exactly(generator, how):
    us, times = draw(generator, 5, 2), torch.tensor([0.0, 0.5, 0.6, 1.3, 2.0])
    run = integrate(Integral(), Linear(us, edges=times), **how)
    trapezoid = 0.5 * (us[1:] + us[:-1]) * times.diff()[:, None]
    assert_close(run.xs, torch.cat([torch.zeros(1, 2), trapezoid.cumsum(0)]))
    assert_close(run.us, us)
    assert_close(run.ts, times)
    run = integrate(Integral(), Cubic(us, edges=times), **how)
    spline = hermite(us, times).antiderivative()
    assert_close(run.xs, torch.from_numpy(spline(times.numpy()) - spline(0.0)))
    assert_close(run.us, us)


@both_steps
@pytest.mark.parametrize("kind", [Linear, Cubic])
def test_nodes_make_one_interval_less_and_the_first_state_is_x0(generator, how, kind):
    x0, us = draw(generator, 3, 2), draw(generator, 4, 3, 2)
    run = integrate(NonAutonomous(), kind(us, 0.2), x0, **how)
    assert run.xs.shape == (4, 3, 2)
    assert torch.equal(run.xs[0], x0)
    assert run.ts[0] == 0.0


def test_two_nodes_of_a_cubic_drive_are_a_straight_line(generator):
    us = draw(generator, 2, 2)
    assert_close(integrate(Integral(), Cubic(us, 1.0), solver=RK4()).xs[1], us.mean(0))


@both_steps
def test_silence_is_a_drive_of_zeros(generator, how):
    model, x0 = CTRNN(3, 2, generator=generator), draw(generator, 3)
    quiet = integrate(model, Silence(), x0, t_span=(0.0, 1.0), save=Last(), **how)
    zeros = integrate(model, Held(torch.zeros(1, 2), 1.0), x0, save=Last(), **how)
    assert_close(quiet.xs, zeros.xs, 0)
    assert quiet.us is None


@both_steps
def test_a_function_with_jumps_is_the_held_drive_it_describes(how):
    step = Function(lambda t: torch.where(t < 0.5, 1.0, -2.0) * torch.ones(2), jumps=(0.5,))
    left = Function(lambda t: torch.where(t <= 0.5, 1.0, -2.0) * torch.ones(2), jumps=(0.5,))
    held = integrate(NonAutonomous(), Held(torch.tensor([[1.0, 1.0], [-2.0, -2.0]]), 0.5), save=Last(), **how)
    for drive in (step, left):
        run = integrate(NonAutonomous(), drive, torch.ones(2), t_span=(0.0, 1.0), save=Last(), **how)
        assert_close(run.xs, held.xs, 1e-7)
        assert run.us.shape == (1, 2)


@pytest.mark.parametrize("batch", [(3,), (2, 3)])
@both_steps
def test_a_function_may_hold_values_of_each_sample(generator, batch, how):
    model, phase = NonAutonomous(), torch.rand(*batch, 2, generator=generator)
    run = integrate(
        model,
        Function(lambda t: torch.sin(9 * t + phase)),
        torch.ones(2).expand(*batch, 2),
        t_span=(0, 2),
        save=Last(),
        **how,
    )
    for i in (0, -1):
        one = phase.reshape(-1, 2)[i]
        alone = integrate(
            model, Function(lambda t, one=one: torch.sin(9 * t + one)), torch.ones(2), t_span=(0, 2), save=Last(), **how
        )
        assert_close(run.xs.reshape(-1, 2)[i], alone.xs[0])
    assert run.us.shape == (1, *batch, 2)


def test_a_function_drives_a_float32_network_in_float32():
    model = CTRNN(3, 1).float()
    for how in ({"dt": 0.1}, {}):
        run = integrate(
            model,
            Function(lambda t: torch.sin(t).reshape(*t.shape[:-1], 1)),
            torch.zeros(4, 3, dtype=torch.float32),
            t_span=(0.0, 1.0),
            **how,
        )
        assert run.xs.dtype == run.us.dtype == torch.float32


# Ragged batches


def ragged(generator, fill=torch.nan):
    lengths = torch.tensor([4, 6, 3, 6])
    us = draw(generator, 6, 4, 2)
    for i, n in enumerate(lengths):
        us[n:, i] = fill
    return us, lengths


@every_sampled
@both_steps
def test_a_sample_ends_at_its_length_and_keeps_its_state(generator, kind, how):
    model = LSTM(3, 2, generator=generator)
    us, lengths = ragged(generator)
    run = integrate(model, kind(us, 0.1, lengths=lengths), **how)
    for i, n in enumerate(lengths.tolist()):
        alone = integrate(model, kind(us[:n, i], 0.1), **how)
        for got, expected in zip(run.xs, alone.xs, strict=True):
            assert_close(got[:n, i], expected)
            assert_close(got[n:, i], expected[-1].expand(6 - n, -1))
        assert run.stats.steps[i] == alone.stats.steps
        assert run.mask[:, i].tolist() == [k < n for k in range(6)]


@every_sampled
@both_steps
def test_padding_reaches_neither_values_nor_gradients(generator, kind, how):
    model = CTRNN(3, 2, 2, tau=0.5, generator=generator)
    results = []
    for fill in (torch.nan, torch.inf, 1e30):
        us, lengths = ragged(torch.Generator().manual_seed(1), fill)
        us.requires_grad_()
        edges = torch.arange(us.shape[0] + (kind is Held)).double().mul(0.1).requires_grad_()
        run = integrate(model, kind(us, edges=edges, lengths=lengths), **how)
        wrt = [us, edges, *model.parameters()]
        gradients = torch.autograd.grad(run.ys.square().sum(), wrt)
        assert all(bool((gradients[0][n:, i] == 0).all()) for i, n in enumerate(lengths))
        results.append([run.xs.detach(), *gradients])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert all(bool(torch.isfinite(value).all()) for value in results[0])


@both_steps
def test_a_sample_of_length_zero_stays_at_its_start(generator, how):
    model, us = CTRNN(3, 2, generator=generator), draw(generator, 4, 2, 2)
    x0 = draw(generator, 2, 3)
    run = integrate(model, Held(us, 0.1, lengths=torch.tensor([0, 4])), x0, **how)
    assert torch.equal(run.xs[:, 0], x0[0].expand(4, 3))
    nobody = integrate(model, Held(us, 0.1, lengths=torch.tensor([0, 0])), x0, **how)
    assert torch.equal(nobody.xs, x0.expand(4, 2, 3))
    assert not nobody.mask.any()
    assert nobody.stats.steps.tolist() == [0, 0]


@every_sampled
@both_steps
def test_lengths_times_asked_for_and_a_part_of_the_drive_go_together(generator, kind, how):
    model = CTRNN(3, 2, generator=generator)
    us, lengths = ragged(generator)
    span, times = (0.05, 0.48), [0.05, 0.11, 0.2, 0.22, 0.3, 0.41]
    run = integrate(model, kind(us, 0.1, lengths=lengths), t_span=span, save=At(times), **how)
    for i, n in enumerate(lengths.tolist()):
        end = min(0.1 * (n if kind is Held else n - 1), 0.48)
        reached = [t for t in times if t <= end + 1e-9]
        alone = integrate(model, kind(us[:n, i], 0.1), t_span=(0.05, end), save=At([*reached[:-1], end]), **how)
        count = len(reached)
        assert run.mask[:, i].tolist() == [True] * count + [False] * (6 - count)
        assert_close(run.xs[: count - 1, i], alone.xs[:-1], 1e-7)
        if count < 6:
            assert_close(run.xs[count:, i], alone.xs[-1].expand(6 - count, -1), 1e-7)


def test_lengths_of_a_batch_with_two_axes(generator):
    model, us = CTRNN(3, 2, generator=generator), draw(generator, 5, 2, 3, 2)
    lengths = torch.tensor([[1, 5, 3], [4, 0, 5]])
    for how in ({}, {"steps": Adaptive(1e-8, 1e-8)}):
        run = integrate(model, Held(us, 0.1, lengths=lengths), **how)
        flat = integrate(model, Held(us.flatten(1, 2), 0.1, lengths=lengths.flatten()), **how)
        assert_close(run.xs.flatten(1, 2), flat.xs, 0)
        assert torch.equal(run.mask.flatten(1, 2), flat.mask)


@every_sampled
@both_steps
def test_samples_may_have_edges_of_their_own(generator, kind, how):
    model, us = NonAutonomous(), draw(generator, 5, 3, 2)
    count = 5 if kind is Held else 4
    edges = torch.cat([torch.zeros(1, 3), torch.rand(count, 3, generator=generator).add(0.1).cumsum(0)]) + torch.tensor(
        [0.0, 1.0, -3.0]
    )
    run = integrate(model, kind(us, edges=edges), **how)
    for i in range(3):
        alone = integrate(model, kind(us[:, i], edges=edges[:, i]), **how)
        assert_close(run.xs[:, i], alone.xs, 1e-6)  # a fixed step is a part of the longest interval of the batch
        assert_close(run.ts[:, i], alone.ts)
        assert_close(run.us[:, i], alone.us)


def test_samples_with_edges_of_their_own_may_end_at_different_times(generator):
    model, us = NonAutonomous(), draw(generator, 3, 2, 2)
    edges = torch.tensor([[0.0, 1.0], [0.5, 1.2], [0.7, 1.9], [1.5, 2.0]])
    for how in ({"steps": Fixed(1.0), "solver": RK4()}, {"steps": Adaptive(1e-9, 1e-9)}):
        run = integrate(model, Held(us, edges=edges, lengths=torch.tensor([2, 3])), **how)
        alone = integrate(model, Held(us[:2, 0], edges=edges[:3, 0]), **how)
        assert_close(run.xs[:2, 0], alone.xs)
        assert_close(run.xs[2, 0], alone.xs[1])


# Gradients through the drive


def nodes_of(value):
    """How many functions the backward pass of `value` runs."""
    seen, todo = set(), [value.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
    return len(seen)


@pytest.mark.parametrize(
    "drive",
    [
        lambda us: Held(us, 0.1),
        lambda us: Linear(us, 0.1),
        lambda us: Held(us, 0.1, lengths=torch.tensor([us.shape[0], 1])),
    ],
)
def test_the_backward_pass_grows_linearly_and_reads_the_drive_once(generator, drive):
    counts = []
    for time in (20, 40, 60):
        us = draw(generator, time, 2, 2).requires_grad_()
        run = integrate(Integral(), drive(us), solver=Euler())
        counts.append(nodes_of(run.xs))
        readers = [node for node in all_nodes(run.xs) if node.name().startswith(("Select", "Index"))]
        assert len([node for node in readers if node.name().startswith("Select")]) == 0
    assert counts[2] - counts[1] == counts[1] - counts[0]


def all_nodes(value):
    seen, todo = set(), [value.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
    return seen


@every_sampled
@both_steps
def test_gradients_reach_what_produced_the_drive(generator, kind, how):
    encoder, raw = torch.nn.Linear(3, 2), draw(generator, 4, 3)
    model = NonAutonomous()
    loss = lambda: integrate(model, kind(encoder(raw), 0.2), **how).xs.square().sum()
    got = torch.autograd.grad(loss(), encoder.weight)[0]
    direction = draw(generator, *encoder.weight.shape)
    with torch.no_grad():
        encoder.weight += 1e-5 * direction
        up = loss()
        encoder.weight -= 2e-5 * direction
        down = loss()
    torch.testing.assert_close((got * direction).sum(), (up - down) / 2e-5, rtol=1e-5, atol=1e-7)


@every_sampled
@pytest.mark.parametrize(
    "how", [{"solver": RK4(), "steps": Fixed(0.01)}, {"steps": Adaptive(1e-10, 1e-10)}], ids=["fixed", "adaptive"]
)
def test_gradients_reach_the_edges(generator, kind, how):
    model, us = NonAutonomous(), draw(generator, 3, 2)
    edges = torch.tensor([0.0, 0.31, 0.75, 1.0])[: 4 if kind is Held else 3]
    loss = lambda times: integrate(model, kind(us, edges=times), save=Last(), **how).xs.sum()
    got = torch.autograd.functional.jacobian(loss, edges)
    shifts = 1e-5 * torch.eye(len(edges))
    expected = torch.stack([(loss(edges + d) - loss(edges - d)) / 2e-5 for d in shifts])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@both_steps
def test_gradients_reach_edges_of_each_sample(generator, how):
    model, us = NonAutonomous(), draw(generator, 2, 3, 2)
    edges = torch.tensor([[0.0, 0.1, 0.0], [0.5, 0.74, 0.6], [1.0, 1.41, 0.8]])
    loss = lambda times: integrate(model, Held(us, edges=times), save=Last(), **how).xs.sum()
    got = torch.autograd.functional.jacobian(loss, edges)
    shift = torch.zeros_like(edges)
    shift[1, 1] = 1e-5
    expected = (loss(edges + shift) - loss(edges - shift)) / 2e-5
    torch.testing.assert_close(got[1, 1], expected, rtol=1e-3, atol=1e-4)


# Clipping


@every_sampled
@both_steps
def test_t_span_takes_a_part_of_the_drive(generator, kind, how):
    us = draw(generator, 6, 2)
    part = integrate(Integral(), kind(us, 0.5), t_span=(0.7, 1.8), **how)
    spline = {
        Held: lambda t: torch.stack([us[min(int(s / 0.5), 5)] for s in t]),
        Linear: lambda t: torch.stack(
            [us[int(s / 0.5)] + (s / 0.5 - int(s / 0.5)) * (us[int(s / 0.5) + 1] - us[int(s / 0.5)]) for s in t]
        ),
        Cubic: lambda t: torch.from_numpy(hermite(us, 0.5 * torch.arange(6.0))(t.numpy())),
    }[kind]
    fine = torch.linspace(0.7, 1.8, 11001)
    middle = spline((fine[1:] + fine[:-1]) / 2) * 1e-4
    assert_close(part.xs[-1], middle.sum(0), 1e-6)
    ends = [1.0, 1.5, 1.8] if kind is Held else [0.7, 1.0, 1.5, 1.8]
    assert_close(part.ts, torch.tensor(ends))
    if kind is not Held:
        assert_close(part.us, spline(part.ts), 1e-9)


def test_with_samples_t_span_begins_where_they_begin():
    run = integrate(Integral(), torch.ones(4, 2), dt=0.5, t_span=(10.0, 12.0))
    assert run.ts.tolist() == [10.5, 11.0, 11.5, 12.0]
    assert integrate(Integral(), torch.ones(4, 2), dt=0.5, t_span=(10.0, 11.0)).ts.tolist() == [10.5, 11.0]


@both_steps
def test_gradients_reach_both_ends_of_the_run(how):
    model, x0 = NonAutonomous(), torch.ones(2)
    for drive in (Silence(), Linear(torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 1.0]]), 1.0)):
        ends = [torch.tensor(0.2, requires_grad=True), torch.tensor(1.6, requires_grad=True)]
        run = integrate(model, drive, x0, t_span=tuple(ends), save=Last(), **how)
        got = torch.autograd.grad(run.xs.sum(), ends)
        loss = lambda a, b, drive=drive: integrate(model, drive, x0, t_span=(a, b), save=Last(), **how).xs.sum()
        expected = ((loss(0.2001, 1.6) - loss(0.1999, 1.6)) / 2e-4, (loss(0.2, 1.6001) - loss(0.2, 1.5999)) / 2e-4)
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_a_discrete_network_needs_no_dt(generator):
    model, us = Elman(3, 2, generator=generator), draw(generator, 5, 2)
    run = integrate(model, us, solver=Iterate())
    assert run.ts.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert torch.equal(run.xs, integrate(model, us, dt=1.0).xs)


def test_the_default_solver_of_a_run_without_dt_is_adaptive():
    drive = Held(torch.ones(2, 2), edges=torch.tensor([0.0, 0.5, 2.0]))
    assert_close(
        integrate(NonAutonomous(), drive).xs, integrate(NonAutonomous(), drive, solver=Tsit5(), steps=Adaptive()).xs, 0
    )
