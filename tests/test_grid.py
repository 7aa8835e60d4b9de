"""Grids whose steps are all alike follow rules; laid out number by number they are the same."""

import pytest
import torch

from ctrnn import Every, Fixed, Held, Last, Linear, Silence
from ctrnn._columns import Column
from ctrnn._grid import fixed
from ctrnn._stretches import stretches
from ctrnn.steps import Grid

US = torch.zeros(9, 3, 2)
DRIVES = {
    "held": (Held(US, 0.1), None),
    "held, later": (Held(US, 0.1, t0=1.3), (1.3, 2.2)),
    "held for odd times": (Held(US, 0.37, t0=-0.7), None),
    "linear": (Linear(US, 0.1), None),
    "silence": (Silence(), (0.3, 1.2)),
}
STEPS = {"one step": 0.37, "ten steps": 0.01, "steps that do not fit": 0.043}
SAVES = {"as it comes": None, "every third": Every(3), "last": Last()}

every_layout = [
    pytest.mark.parametrize("which", DRIVES),
    pytest.mark.parametrize("dt", STEPS.values(), ids=STEPS),
    pytest.mark.parametrize("save", SAVES.values(), ids=SAVES),
]


def both_ways(which, dt, save):
    drive, span = DRIVES[which]
    spans = stretches(drive, span)
    assert isinstance(spans, Column)
    save = Last() if isinstance(save, Every) and which == "silence" and dt > 0.1 else save
    return (fixed(drive, s, Fixed(dt), save, torch.Size((3,)), torch.device("cpu")) for s in (spans, list(spans)))


def columns(grid: Grid):
    return [list(c) for c in (grid.t, grid.dt, grid.interval, grid.begin, grid.width, grid.saved)]


def told(grid: Grid):
    answers = [grid.steps, grid.regular, grid.initial, *grid.lengths(), *grid.intervals(), *grid.slots()]
    return [*answers, *(grid.fractions() or ("whole",)), grid.sizes()]


def equal(a, b):
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def for_every_layout(test):
    for mark in every_layout:
        test = mark(test)
    return test


@for_every_layout
def test_a_grid_by_rule_is_the_grid_of_numbers_bit_for_bit(which, dt, save):
    by_rule, by_number = both_ways(which, dt, save)
    assert columns(by_rule.grid) == columns(by_number.grid)
    assert torch.equal(by_rule.ts, by_number.ts)
    assert all(map(torch.equal, by_rule.place, by_number.place))
    assert by_rule.grid.initial == by_number.grid.initial


@for_every_layout
def test_parts_of_a_grid_tell_compiled_loops_what_its_numbers_say(which, dt, save):
    by_rule, by_number = (plan.grid for plan in both_ways(which, dt, save))
    for start, stop in ((0, by_rule.steps), (0, 1), (1, 4), (3, by_rule.steps)):
        if start < stop <= by_rule.steps:
            a, b = by_rule.part(start, stop), by_number.part(start, stop)
            assert columns(a) == columns(b)
            assert all(map(equal, told(a), told(b)))
            assert a.regular


def test_slots_number_the_saved_states_in_order():
    drive = Linear(US, 0.1)
    plan = fixed(drive, stretches(drive, None), Fixed(0.05), None, torch.Size((3,)), torch.device("cpu"))
    count, slot = plan.grid.slots()
    assert count == 9
    assert slot.tolist() == [-1, 1, -1, 2, -1, 3, -1, 4, -1, 5, -1, 6, -1, 7, -1, 8]
    first, which = plan.grid.part(4, 8).intervals()
    assert (first, which.tolist()) == (2, [0, 0, 1, 1])
