import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from ctrnn import RK4, Adaptive, At, Backprop, Euler, Fixed, Function, Held, Last, Linear, integrate, plain
from ctrnn import _tree as tree
from ctrnn._march import NOISE_CHUNK, deviates, march
from ctrnn.adjoints.base import Adjoint, Problem
from ctrnn.dynamics import Model, Relaxation
from ctrnn.models import CTRNN, LSTM, Stack
from ctrnn.steps import Grid, whole_steps


class Catch(Adjoint):
    """Keeps the problem that it is handed, and runs it plainly."""

    def run(self, problem: Problem):
        Catch.problem = problem
        return Backprop().run(problem)


def problem_of(model, drive, x0=None, **options) -> Problem:
    integrate(model, drive, x0, adjoint=Catch(), **options)
    return Catch.problem


def go(problem: Problem, grid: Grid | None = None, x=None, noise="same"):
    grid, x = problem.grid if grid is None else grid, problem.x0 if x is None else x
    return march(problem.step, grid, x, problem.source, problem.noise if noise == "same" else noise)


def assert_same(a, b):
    for left, right in zip(tree.leaves(a), tree.leaves(b), strict=True):
        assert torch.equal(left, right)


def problems():
    g = torch.Generator().manual_seed(0)
    us = torch.randn(150, 3, 2, generator=g, dtype=torch.float64)
    lengths, model, lstm = (
        torch.tensor([40, 150, 90]),
        CTRNN(3, 2, generator=g).double(),
        LSTM(3, 2, generator=g).double(),
    )
    wave = Function(lambda t: torch.sin(t) * torch.ones(3, 2, dtype=torch.float64))
    edges = torch.linspace(0, 15, 151, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.5, 0.7])
    short = Held(us[:6], 0.5, lengths=lengths // 30 + 1)
    return {
        "held": problem_of(model, us, dt=0.1),
        "linear, at times": problem_of(model, Linear(us, 0.1), save=At([0.0, 0.25, 3.0]), solver=RK4()),
        "noise": problem_of(lstm, us, dt=0.1, noise=0.2, generator=g),
        "lengths and noise": problem_of(lstm, Held(us, 0.1, lengths=lengths), noise=0.2, generator=g),
        "own times": problem_of(model, Held(us, edges=edges), steps=Fixed(0.1)),
        "function": problem_of(
            model, wave, torch.zeros(3, 3, dtype=torch.float64), t_span=(0.0, 9.0), dt=0.1, solver=RK4()
        ),
        "adaptive": problem_of(lstm, short, steps=Adaptive(1e-6, 1e-6)),
        "adaptive, linear, dense": problem_of(
            model, Linear(us[:6], 0.5), steps=Adaptive(1e-6, 1e-6), save=At([0.0, 0.3, 0.55, 2.5])
        ),
        "adaptive, function": problem_of(
            model, wave, torch.zeros(3, 3, dtype=torch.float64), t_span=(0.0, 3.0), steps=Adaptive(1e-6, 1e-6)
        ),
    }


PROBLEMS = problems()
every_problem = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())


@every_problem
@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_a_run_in_parts_is_the_whole_run_bit_for_bit(problem, size):
    with plain():
        for part, whole in zip(in_parts(problem, size), go(problem), strict=True):
            assert_same(part, whole)


@every_problem
@pytest.mark.parametrize("size", [1, 7])
def test_a_compiled_run_in_parts_is_the_whole_run_up_to_the_rounding_of_its_drive(problem, size):
    for part, whole in zip(in_parts(problem, size), go(problem), strict=True):
        torch.testing.assert_close(tree.leaves(part), tree.leaves(whole), rtol=1e-12, atol=1e-13)


def in_parts(problem: Problem, size: int):
    x, pieces = problem.x0, []
    for begin in range(0, len(problem.grid.dt), size):
        noise = None if problem.noise is None else problem.noise._replace(offset=begin)
        x, some = go(problem, problem.grid.part(begin, begin + size), x, noise)
        pieces.append(some)
    return x, tree.map(lambda *parts: torch.cat(parts), *pieces)


@every_problem
def test_every_column_of_a_grid_has_one_entry_for_each_step(problem):
    grid = problem.grid
    columns = [grid.t, grid.dt, grid.interval, grid.begin, grid.width, grid.saved]
    assert {len(column) for column in [*columns, *([] if grid.live is None else [grid.live])]} == {len(grid.dt)}
    if grid.live is not None:
        assert grid.live == sorted(grid.live, reverse=True)
        assert grid.order.sort().values.tolist() == list(range(3))


def test_no_steps_end_where_they_began():
    problem = PROBLEMS["held"]
    end, saved = go(problem, problem.grid.part(0, 0))
    assert end is problem.x0
    assert saved.shape == (0, *problem.x0.shape)


def test_deviates_do_not_depend_on_where_a_part_begins():
    noise, grid = PROBLEMS["noise"].noise, PROBLEMS["noise"].grid
    whole = list(deviates(noise, grid))
    for begin in (0, 1, NOISE_CHUNK - 1, NOISE_CHUNK, NOISE_CHUNK + 1, 149):
        part = list(deviates(noise._replace(offset=begin), grid.part(begin, 150)))
        assert_same(tuple(part), tuple(whole[begin:]))
    flat = torch.stack([leaf for xi in whole for leaf in tree.leaves(xi)]) / 0.2
    assert abs(flat.mean().item()) < 4 / math.sqrt(flat.numel())
    assert abs(flat.std().item() - 1) < 4 / math.sqrt(2 * flat.numel())


class Counting(Relaxation):
    """tau dx/dt = u - x, counting how often its target and tau are asked for."""

    n_in = 1

    def __init__(self):
        super().__init__()
        self.targets = self.taus = 0

    def target(self, t, x, u, alpha=0):
        self.targets += 1
        return u

    @property
    def tau(self):
        self.taus += 1
        return torch.tensor(1.0)

    def initial_state(self, *batch):
        return torch.zeros(*batch, 1)


def test_what_depends_on_dt_alone_is_computed_once_for_each_dt():
    counts = []
    for time in (10, 100):
        model = Counting()
        integrate(model, torch.zeros(time, 1), dt=0.1)
        assert model.targets == time
        counts.append(model.taus)
    assert counts[0] == counts[1]


class Times(Model):
    """dx/dt = 0, remembering the times and inputs it was asked at."""

    n_in = 1

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, t: Tensor, x: Tensor, u: Tensor) -> Tensor:
        self.seen.append((t, u))
        return torch.zeros_like(x)

    def initial_state(self, *batch):
        return torch.zeros(*batch, 2)


def test_all_stages_of_a_step_see_the_drive_of_its_interval():
    model = Times()
    integrate(model, torch.tensor([[1.0], [2.0]]), dt=0.5, steps=Fixed(0.25), solver=RK4())
    times = [t.item() for t, _ in model.seen]
    assert times == [0.0, 0.125, 0.125, 0.25, 0.25, 0.375, 0.375, 0.5, 0.5, 0.625, 0.625, 0.75, 0.75, 0.875, 0.875, 1.0]
    assert [u.item() for _, u in model.seen] == [1.0] * 8 + [2.0] * 8


def test_time_is_a_number_on_common_steps_and_one_for_each_row_on_steps_of_their_own():
    model = Times()
    integrate(model, torch.zeros(2, 3, 4, 1), dt=0.5)
    assert {t.shape for t, _ in model.seen} == {()}
    model = Times()
    integrate(model, torch.zeros(2, 3, 4, 1), dt=0.5, steps=Adaptive())
    assert {t.shape for t, _ in model.seen} == {(12, 1)}


def test_a_finished_sample_is_not_computed_any_more():
    model = Times()
    integrate(model, Held(torch.zeros(4, 3, 1), 0.5, lengths=torch.tensor([1, 4, 2])), solver=Euler())
    assert [len(u) for _, u in model.seen] == [3, 2, 1, 1]


@pytest.mark.parametrize(
    ("length", "dt", "count", "step"),
    [
        (1.0, 0.25, 4, 0.25),
        (0.3, 0.1, 3, 0.1),
        (1.0, 0.3, 4, 0.25),
        (0.1, 0.3, 1, 0.1),
        (0.1, 0.1, 1, 0.1),
        (1e-9, 1.0, 1, 1e-9),
    ],
)
def test_an_interval_is_cut_into_the_fewest_equal_steps_not_longer_than_dt(length, dt, count, step):
    assert whole_steps(length, dt) == (count, step)


# Trees


class Inner(NamedTuple):
    h: object
    c: object


class Outer(NamedTuple):
    layers: tuple
    read: object


STATE = Outer((Inner(torch.randn(2, 3), torch.randn(2, 1, 4)), torch.randn(2)), torch.randn(2, 5))


def test_trees_come_apart_and_together():
    names = ["layers.0.h", "layers.0.c", "layers.1", "read"]
    assert [name for name, _ in tree.named(STATE)] == names
    assert [name for name, _ in tree.named(torch.zeros(1))] == [""]
    again = tree.unflatten(STATE, tree.leaves(STATE))
    assert type(again) is Outer
    assert type(again.layers[0]) is Inner
    flat = tree.ravel(STATE, 1)
    assert flat.shape == (2, 3 + 4 + 1 + 5)
    assert_same(tree.unravel(flat, STATE, 1), STATE)
    assert_same(
        tree.unravel(flat[:1].expand(7, -1), STATE, 1),
        tree.map(lambda leaf: leaf[:1].expand(7, *leaf.shape[1:]), STATE),
    )


def test_one_value_or_one_for_each_part_of_a_state():
    assert tree.spread(3, torch.zeros(1)) == 3
    assert tree.leaves(tree.spread(3, STATE)) == [3, 3, 3, 3]
    assert tree.spread(STATE, STATE) is STATE


def test_a_blend_is_exact_at_both_ends():
    x, target = torch.randn(5), torch.randn(5)
    target[0], x[1] = torch.inf, torch.inf
    for zero in (0, 0.0):
        assert tree.blend(x, target, zero) is x
    for one in (1, 1.0):
        assert tree.blend(x, target, one) is target
    finite = torch.isfinite(x) & torch.isfinite(target)
    assert torch.equal(tree.blend(x, target, torch.ones(()))[finite], target[finite])
    assert torch.equal(tree.blend(x, target, torch.zeros(()))[finite], x[finite])
    mixed = tree.blend(Inner(x, x), Inner(target, target), Inner(torch.tensor(0.25), 1))
    assert torch.equal(mixed.h[2:], torch.lerp(x, target, 0.25)[2:])
    assert mixed.c is target


def test_a_value_for_each_sample_meets_parts_of_any_shape():
    value = torch.tensor([[2.0], [3.0]])
    scaled = tree.map(lambda leaf: tree.per_leaf(value, leaf) * leaf if leaf.ndim > 1 else leaf, STATE)
    assert torch.equal(scaled.layers[0].c[1], 3 * STATE.layers[0].c[1])
    assert tree.per_leaf(value, torch.zeros(2, 3, dtype=torch.float32)).dtype == torch.float32


def test_a_state_with_matrices_steps_on_its_own(generator):
    class Memory(Model):
        """dM/dt = -a M,   da/dt = 0: a matrix beside a vector."""

        def forward(self, t, x, u):
            return Inner(-x.c[..., None] * x.h, torch.zeros_like(x.c))

        def initial_state(self, *batch):
            return Inner(torch.ones(*batch, 2, 3), torch.ones(*batch, 2))

    rates = torch.rand(2, 3, 2, generator=generator) * 20
    run = integrate(
        Memory(),
        None,
        Inner(torch.ones(2, 3, 2, 3), rates),
        t_span=(0.0, 1.0),
        steps=Adaptive(1e-9, 1e-9),
        save=At([0.3, 1.0]),
    )
    torch.testing.assert_close(run.xs.h[1], torch.exp(-rates)[..., None].expand(2, 3, 2, 3), rtol=1e-6, atol=1e-8)
    assert run.stats.steps.unique().numel() > 1


def test_a_stack_runs_adaptively_as_alone(generator):
    stack = Stack([LSTM(2, 2, generator=generator), CTRNN(3, 2, generator=generator)])
    us = torch.randn(3, 2, 2, generator=generator)
    run = integrate(stack, us, dt=1.0, steps=Adaptive(1e-8, 1e-8), save=Last())
    for i in (0, 1):
        alone = integrate(stack, us[:, i], dt=1.0, steps=Adaptive(1e-8, 1e-8), save=Last())
        torch.testing.assert_close(run.ys[:, i], alone.ys, rtol=1e-12, atol=1e-12)
