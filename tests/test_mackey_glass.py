"""The Mackey-Glass series against independent solutions, and the rules against their definitions."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp

from ctrnn.tasks import MackeyGlass
from ctrnn.tasks.mackey_glass import euler, rk4


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def produced(y):
    return 0.2 * y / (1 + y**10)


def by_steps(delay, history, periods):
    """The method of steps: on each delay an ordinary equation whose delayed term is the dense solution before."""
    past = lambda t: history
    y, solutions = history, []
    for k in range(periods):
        before = past
        found = solve_ivp(
            lambda t, y, before=before: produced(before(t - delay)) - 0.1 * y,
            (k * delay, (k + 1) * delay),
            [y],
            method="DOP853",
            rtol=1e-12,
            atol=1e-13,
            dense_output=True,
        )
        past, y = (lambda t, found=found: found.sol(t)[0]), found.y[0, -1]
        solutions.append(found.sol)
    return solutions


@pytest.mark.parametrize("delay", [17.0, 30.0])
def test_the_fine_rule_is_the_solution_by_steps(delay):
    task = MackeyGlass(delay, rule=rk4)
    solutions = by_steps(delay, 1.2, 6)
    found = task.continued(torch.full((task.nodes + 1,), 1.2, dtype=torch.float64), 6 * task.nodes)
    for k, sol in enumerate(solutions):
        for i in (task.nodes // 3, task.nodes // 2, task.nodes - 1):
            assert found[k * task.nodes + i].item() == pytest.approx(sol(k * delay + (i + 1) * 0.1)[0], abs=2e-7)


@pytest.mark.parametrize(("rule", "order"), [(euler, 1), (rk4, 4)])
def test_a_rule_has_its_order(rule, order):
    exact = by_steps(17.0, 1.2, 4)[-1](68.0)[0]
    errors = []
    for h in (0.5, 0.25):
        task = MackeyGlass(h=h, rule=rule)
        end = task.continued(torch.full((task.nodes + 1,), 1.2, dtype=torch.float64), 4 * task.nodes)[-1]
        errors.append(abs(end.item() - exact))
    assert math.log2(errors[0] / errors[1]) > order - 0.3


def test_euler_is_jaegers_equation_23_step_by_step():
    task = MackeyGlass(delay=2.0, h=0.1)
    history = 1 + 0.3 * torch.rand(21, 3, dtype=torch.float64, generator=seeded())
    found, ys = task.continued(history, 70), [*history]
    for k in range(70):
        ys.append(ys[-1] + 0.1 * (produced(ys[-21]) - 0.1 * ys[-1]))
        torch.testing.assert_close(found[k], ys[-1], rtol=1e-12, atol=1e-13)


def test_a_runge_kutta_step_is_its_four_stages():
    h, gamma, (start, middle, end) = 0.5, 0.1, (0.11, 0.17, 0.05)
    y = 0.9
    k1 = start - gamma * y
    k2 = middle - gamma * (y + h / 2 * k1)
    k3 = middle - gamma * (y + h / 2 * k2)
    k4 = end - gamma * (y + h * k3)
    w = rk4(gamma, h)
    stages = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    assert w.keep * y + w.start * start + w.middle * middle + w.end * end == pytest.approx(stages, rel=1e-14)


@pytest.mark.parametrize("rule", [euler, rk4])
def test_it_rests_where_production_equals_decay(rule):
    task = MackeyGlass(rule=rule, beta=0.3)
    rest = (0.3 / 0.1 - 1) ** (1 / 10)
    still = task.continued(torch.full((task.nodes + 1,), rest, dtype=torch.float64), 300)
    torch.testing.assert_close(still, torch.full_like(still, rest), rtol=1e-12, atol=0)


def test_what_goes_on_is_what_would_have_gone_on():
    task = MackeyGlass(h=0.5)
    whole = task.continued(torch.full((task.nodes + 1, 2), 1.2, dtype=torch.float64), 500)
    rest = task.continued(whole[100 - task.nodes - 1 : 100], 400)
    torch.testing.assert_close(rest, whole[100:], rtol=1e-10, atol=1e-11)


def test_samples_are_every_tenth_node_behind_the_washout():
    task = MackeyGlass()
    series = task.series(50, 2, seeded(), washout=5.0, dtype=torch.float64)
    past = 1.1 + 0.2 * torch.rand((2, 1), generator=seeded(), dtype=torch.float64)
    nodes = task.continued(past.expand(171, 2, 1), 550)
    torch.testing.assert_close(series, nodes[59::10])
    assert series.shape == (50, 2, 1)


def test_the_generator_decides_the_series():
    task = MackeyGlass()
    assert torch.equal(task.series(30, 3, seeded(1)), task.series(30, 3, seeded(1)))
    assert not torch.equal(task.series(30, 3, seeded(1)), task.series(30, 3, seeded(2)))
    assert not torch.equal(*task.series(30, 2, seeded(1)).unbind(1))


def test_times_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"delay = 17\.05"):
        MackeyGlass(17.05)
    with pytest.raises(ValueError, match="h = 0"):
        MackeyGlass(h=0.0)
    with pytest.raises(ValueError, match="delay = -1"):
        MackeyGlass(-1.0)
    with pytest.raises(ValueError, match=r"dt = 0\.25"):
        MackeyGlass().series(3, 1, dt=0.25)
    with pytest.raises(ValueError, match="171 are needed"):
        MackeyGlass().continued(torch.ones(5, dtype=torch.float64), 3)
