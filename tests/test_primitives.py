"""Two-scale primitives: the movement is what its definition says, at any dt, and its scores mean what they say."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrnn.tasks import Task, TwoScalePrimitives

SHORT = TwoScalePrimitives(orders=((0, 1), (1, 2), (2, 0), (1, 1)), cycles=2, period=3.1, cue=0.7)


def draw(task=SHORT, batch=8, dt=0.1, seed=0, **kwargs):
    return task.trials(batch, dt, torch.Generator().manual_seed(seed), **kwargs)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def position(task, k, t):
    """Primitive k at time t, as a complex number: a circle or an eight along the real axis, turned by its lean."""
    phase = 2 * math.pi * (t - task.cue) / task.period
    along, across = (1 - math.cos(phase)) / 2, math.sin((1 + k % 2) * phase) / 2
    place = complex(along, across) * complex(math.cos(lean := 2 * math.pi * k / task.n_primitives), math.sin(lean))
    return [place.real, place.imag]


def test_it_is_a_task_and_a_value():
    assert isinstance(SHORT, Task)
    assert TwoScalePrimitives() == TwoScalePrimitives()
    with pytest.raises(dataclasses.FrozenInstanceError):
        SHORT.cycles = 1


def test_the_default_sequences_are_all_orders_of_three_primitives():
    task = TwoScalePrimitives()
    assert set(task.orders) == set(itertools.permutations(range(3)))
    assert (task.n_in, task.n_out, task.n_primitives) == (6, 2, 3)
    trials = draw(task, batch=6, dt=1.0)
    assert trials.us.shape == (1 + 3 * 2 * 24, 6, 6)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), dt=st.floats(0.02, 0.7))
def test_the_movement_repeats_each_primitive_of_the_order_one_after_the_other(seed, dt):
    trials = draw(batch=3, dt=dt, seed=seed)
    slot = SHORT.cycles * SHORT.period
    for b in range(3):
        order = SHORT.orders[trials.condition["sequence"][b]]
        assert trials.condition["order"][b].tolist() == list(order)
        for i in range(len(trials.us)):
            t = (i + 1) * dt
            place = math.ceil((t - SHORT.cue) / slot - 1e-7) - 1
            moving = 0 <= place < len(order)
            assert trials.mask[i, b] == moving
            expected = position(SHORT, order[place], t) if moving else [0.0, 0.0]
            close(trials.targets[i, b], torch.tensor(expected))


def test_the_movement_never_jumps_and_primitives_are_one_unit_long():
    trials = draw(dt=0.001, batch=4)
    fastest = math.pi / SHORT.period * math.sqrt(1 + 2**2)  # bounds |d/dt| of an eight
    assert trials.targets.diff(dim=0).norm(dim=-1).max() <= 0.001 * fastest + 1e-12
    assert SHORT.curves(trials).norm(dim=-1).amax(0).min() >= 1 - 1e-5


def test_the_cue_names_the_sequence_and_is_silent_during_the_movement():
    trials = draw(dt=0.2)
    start, stop = trials.periods["cue"][:, 0].tolist()
    assert (start, stop) == (0.0, SHORT.cue)
    close(trials.us.sum(0) * 0.2, SHORT.cue * torch.eye(4)[trials.condition["sequence"]])
    assert not trials.us[4:].any()


@pytest.mark.parametrize("batch", [3, 4, 8, 10])
def test_sequences_are_dealt_evenly(batch):
    counts = draw(batch=batch).condition["sequence"].bincount(minlength=4)
    assert counts.max() - counts.min() <= 1
    deals = {tuple(draw(batch=4, seed=seed).condition["sequence"].tolist()) for seed in range(8)}
    assert len(deals) > 1


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31), dt=st.floats(0.02, 0.7))
def test_the_same_movements_exist_at_any_dt(seed, dt):
    coarse_source, fine_source = (torch.Generator().manual_seed(seed) for _ in range(2))
    coarse, fine = SHORT.trials(5, dt, coarse_source), SHORT.trials(5, dt / 2, fine_source)
    assert torch.equal(coarse_source.get_state(), fine_source.get_state())
    for name in ("periods", "condition"):
        ours, theirs = getattr(coarse, name), getattr(fine, name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours | theirs)
    pairs = len(fine.us) // 2
    close(fine.us[: 2 * pairs].unflatten(0, (-1, 2)).mean(1), coarse.us[:pairs])
    assert torch.equal(fine.mask[1::2], coarse.mask[:pairs])
    close(fine.targets[1::2], coarse.targets[:pairs])


def test_trials_touch_no_global_generator_and_differ_without_one():
    before = torch.get_rng_state()
    a, b = SHORT.trials(40, 0.5), SHORT.trials(40, 0.5)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(a.us, b.us)


def test_float32_and_float64_are_the_same_trials():
    single, double = draw(dtype=torch.float32), draw(dtype=torch.float64)
    assert single.us.dtype == single.targets.dtype == torch.float32
    assert torch.equal(double.targets.float(), single.targets)
    assert torch.equal(double.mask, single.mask)


@pytest.mark.parametrize("dt", [0.03, 0.2, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_oracle_scores_perfectly(dt, dtype):
    trials = draw(dt=dt, dtype=dtype)
    assert SHORT.evaluate(SimpleNamespace(ys=trials.targets), trials) == {"mse": 0.0, "order_accuracy": 1.0}


def test_a_right_primitive_at_the_wrong_place_costs_its_places_and_no_others():
    task = TwoScalePrimitives(orders=((0, 1, 2), (0, 2, 1)))
    trials = draw(task, batch=2, dt=1.0)
    swapped = SimpleNamespace(ys=trials.targets.flip(1))
    assert task.recognised(swapped, trials).tolist() == trials.condition["order"].flip(0).tolist()
    assert task.evaluate(swapped, trials)["order_accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("shift", [-0.1, 0.1])
def test_a_constant_output_recognises_a_third_and_none_beats_the_chance_mse(shift):
    """Two of the curves are equally far from the best constant itself: there, rounding decides which one is nearest."""
    task = TwoScalePrimitives()
    trials = draw(task, batch=12, dt=0.5)
    constant = trials.targets[trials.mask].mean(0) + shift
    scores = task.evaluate(SimpleNamespace(ys=constant.expand(trials.targets.shape)), trials)
    assert scores["order_accuracy"] == pytest.approx(1 / 3)
    assert scores["mse"] == pytest.approx(task.chance(trials)["mse"] + shift**2)


def test_the_cue_period_reaches_neither_the_loss_nor_its_gradient(generator):
    trials = draw(dt=0.2)
    ys = torch.randn(trials.targets.shape, generator=generator)
    spoilt = ys.masked_fill(~trials.mask[..., None], torch.nan).requires_grad_()
    loss = SHORT.loss(spoilt, trials)
    loss.backward()
    assert loss == SHORT.loss(ys, trials)
    assert spoilt.grad.isfinite().all()
    assert not spoilt.grad[~trials.mask].any()


def test_its_loss_can_be_vmapped_over_networks(generator):
    trials = draw(dt=0.2)
    ys = torch.randn(3, *trials.targets.shape, generator=generator)
    close(torch.vmap(lambda y: SHORT.loss(y, trials))(ys), torch.stack([SHORT.loss(y, trials) for y in ys]))


@pytest.mark.parametrize(
    ("wrong", "culprit"),
    [
        ({"orders": ()}, "orders"),
        ({"orders": ((),)}, "orders"),
        ({"orders": ((0, 1), (0,))}, "same number"),
        ({"orders": ((0, -1),)}, "numbered"),
        ({"cycles": 0}, "cycles"),
        ({"period": -1.0}, "period"),
        ({"period": math.nan}, "period"),
        ({"cue": 0.0}, "cue"),
    ],
)
def test_an_impossible_parameter_is_refused_and_named(wrong, culprit):
    with pytest.raises(ValueError, match=culprit):
        TwoScalePrimitives(**wrong)


@pytest.mark.parametrize(
    ("task", "dt", "culprit"),
    [
        (SHORT, 0.0, "positive and finite"),
        (SHORT, math.nan, "positive and finite"),
        (SHORT, 0.75, r"the cue \(0.7\)"),
        (TwoScalePrimitives(cue=8.0), 7.0, r"a quarter of a period \(6.0\)"),
    ],
)
def test_a_dt_that_skips_something_is_refused_and_the_thing_is_named(task, dt, culprit):
    with pytest.raises(ValueError, match=culprit):
        task.trials(4, dt)


def test_outputs_of_other_trials_are_refused():
    trials = draw()
    with pytest.raises(ValueError, match=r"need \(time, batch, n_out\)"):
        SHORT.evaluate(SimpleNamespace(ys=trials.targets[1:]), trials)
    with pytest.raises(ValueError, match="at least one trial"):
        SHORT.trials(0, 0.1)
