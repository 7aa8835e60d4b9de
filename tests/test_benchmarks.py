"""Every benchmark runs, compares before it times, and what the README shows is what was measured."""

import importlib
import itertools
import json

import pytest
import torch

from benchmarks import __main__ as everything
from benchmarks import _table
from benchmarks._side_by_side import Case, Disagreement, record, side_by_side, times_as_fast, times_as_long
from benchmarks.work_precision import time_for

ROWS = json.loads(everything.RECORD.read_text(encoding="utf-8"))


def case(**ms):
    return Case({"N": 1}, ms, dict.fromkeys(ms, 1), dict.fromkeys(ms, 0.0), {})


@pytest.mark.parametrize("name", everything.ROWS)
def test_a_quick_run_measures_ours_and_says_which_peers_are_missing(name):
    row = importlib.import_module(f"benchmarks.{name}").run(quick=True)
    found = json.loads(json.dumps(record(row, quick=True, wall_time=0.0), allow_nan=False))
    assert found["cases"]
    for done in found["cases"]:
        assert all(ms > 0 for ms in done["ms"].values())
        assert not {tool for tool in done["ms"] if tool.partition(" ")[0] in row.missing}
    assert found["versions"].keys() >= {"torch", "numpy"}


def test_every_script_is_a_row():
    scripts = {path.stem for path in everything.HOME.glob("benchmarks/*.py") if not path.stem.startswith("_")}
    assert scripts == set(everything.ROWS)


def test_a_peer_that_is_not_installed_is_named_and_left_out(monkeypatch):
    fixed_step = importlib.import_module("benchmarks.fixed_step")
    for name in ("jax", "diffrax", "brainpy"):
        monkeypatch.setattr(fixed_step, name, None)
    row = fixed_step.run(quick=True)
    assert row.missing == ["jax", "diffrax", "brainpy"]
    assert {"ctrnn", "torch.nn.RNN", "torchdiffeq euler"} <= row.cases[0].ms.keys()
    assert "jax.lax.scan" not in row.cases[0].ms


def test_tools_that_disagree_are_not_timed():
    runs = []

    def job(value):
        return lambda: runs.append(value) or torch.tensor([value])

    with pytest.raises(Disagreement, match="b differs by"):
        side_by_side({}, {"a": job(1.0), "b": job(1.1)}, like={"a": 0.0, "b": 0.01})
    assert runs == [1.0, 1.1]


def test_tools_take_turns_and_the_first_run_does_not_count(monkeypatch):
    order, clock = [], itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    jobs = {name: lambda name=name: order.append(name) for name in "ab"}
    done = side_by_side({}, jobs, like={}, turns=3, seconds=100.0)
    assert order == ["a", "b"] * 4
    assert done.turns == {"a": 3, "b": 3}
    assert done.ms == {"a": 1000.0, "b": 1000.0}


def test_a_tool_that_has_used_up_its_time_waits_while_the_others_go_on(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def job(seconds):
        def run():
            now[0] += seconds

        return run

    done = side_by_side({}, {"fast": job(0.1), "slow": job(5.0)}, like={}, turns=4, seconds=1.0)
    assert done.turns == {"fast": 4, "slow": 1}
    assert done.ms == pytest.approx({"fast": 100.0, "slow": 5000.0})


def test_an_aim_is_met_by_being_fast_enough():
    done = case(ctrnn=2.0, peer=6.0)
    assert times_as_fast(done, "peer", 3.0).holds
    assert not times_as_fast(done, "peer", 3.1).holds
    assert times_as_long(done, "peer", 0.4).holds
    assert not times_as_long(done, "peer", 0.3).holds


def test_the_time_for_an_error_lies_on_a_line_in_logarithms():
    points = [(1e-2, 1.0), (1e-4, 10.0), (1e-6, 100.0)]
    cases = [case(tool=ms)._replace(difference={"tool": error}) for error, ms in points]
    assert time_for(cases, "tool", 1e-3) == pytest.approx(10**0.5)
    assert time_for(cases, "tool", 1e-1) == pytest.approx(1.0)
    assert time_for(cases, "tool", 1e-7) == float("inf")


def test_what_lies_in_figures_is_a_full_run_of_every_row():
    assert list(ROWS) == list(everything.ROWS)
    assert [name for name, row in ROWS.items() if row["quick"] or row["missing"]] == []
    assert everything.FIGURE.exists()


def test_the_table_of_the_readme_is_what_was_measured():
    text = everything.README.read_text(encoding="utf-8")
    assert _table.inserted(text, ROWS) == text


def test_the_figure_shows_every_tool_of_the_rows_it_draws():
    figure = importlib.import_module("benchmarks._figure").draw(ROWS)
    assert [ax for ax in figure.axes if not ax.has_data()] == []
    shown = {text.get_text() for text in figure.legends[0].get_texts()}
    assert shown >= {"ctrnn", "torch.nn", "torchdiffeq", "torchode", "jax", "diffrax", "BrainPy", "CVODE BDF"}
