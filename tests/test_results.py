import errno
import json
import math
import os

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console

from ctrnn.results import Claim, Result, claims_table, execute, exit_status, progress, write

SOURCE = "Beer (1995), eq. 1"
HOLDS = Claim.near("the period is 29", 28.9999, 29, 0.001, SOURCE)
FAILS = Claim.below("the speed vanishes", 0.5, 1e-10, SOURCE)
FOUND = Claim.at_least("eight corners are stable", 7, 8, SOURCE, kind="statistical")


def result(*claims):
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1])
    return Result(figure, list(claims))


def record(result, folder, name="demo", *, quick=False, units=64):
    write(result, name, "A title", {"quick": quick, "units": units}, 3, 1.234, folder)
    return json.loads((folder / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        (Claim.near("x", 1.05, 1.0, 0.1, SOURCE), True),
        (Claim.near("x", torch.tensor(1.2), 1.0, 0.1, SOURCE), False),
        (Claim.near("x", math.nan, 1.0, 0.1, SOURCE), False),
        (Claim.near("x", math.inf, math.inf, 0.1, SOURCE), False),
        (Claim.below("x", np.float32(0.5), 0.5, SOURCE), False),
        (Claim.below("x", 0.4, torch.tensor(0.5), SOURCE), True),
        (Claim.below("x", math.nan, 0.5, SOURCE), False),
        (Claim.at_least("x", 8, 8, SOURCE), True),
        (Claim.at_least("x", torch.tensor(math.nan), 8, SOURCE), False),
        (Claim.equal("x", torch.tensor([1, 2]), [1, 2], SOURCE), True),
        (Claim.equal("x", np.int64(3), 4, SOURCE), False),
        (Claim.equal("x", [math.nan], [math.nan], SOURCE), False),
    ],
)
def test_a_claim_holds_when_its_number_says_so_and_never_for_nan(claim, holds):
    assert claim.holds is holds


def test_a_limit_is_shown_as_it_is_compared():
    assert Claim.below("x", 1.0, 1 + 1e-6, SOURCE).expected == "below 1.000001"
    assert Claim.at_least("x", 1.0, 0.999999, SOURCE).expected == "at least 0.999999"
    assert Claim.below("x", 1.0, 15, SOURCE).expected == "below 15"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "exakt"}, "'exact' or 'statistical'"),
        ({"source": ""}, "give both in words"),
        ({"holds": 1}, "True or False"),
        ({"measured": [1.0, math.nan]}, "never holds"),
        ({"planned": "8 of 8"}, "what was planned and the reason"),
    ],
)
def test_a_claim_that_contradicts_itself_is_refused(change, message):
    fields = {"text": "x", "kind": "exact", "measured": 1, "expected": 1, "tolerance": 0, "source": "s", "holds": True}
    with pytest.raises(ValueError, match=message):
        Claim(**(fields | change))


def test_exact_claims_alone_decide_the_exit_status():
    assert exit_status([HOLDS, FOUND]) == 0
    assert exit_status([HOLDS, FAILS]) == 1
    assert exit_status([]) == 0


def test_the_record_has_the_keys_and_the_claims_as_they_were_measured(tmp_path):
    read = record(result(HOLDS, FOUND), tmp_path)
    assert list(read) == ["title", "parameters", "seed", "versions", "wall_time_s", "claims"]
    assert read["parameters"] == {"quick": False, "units": 64}
    assert read["seed"] == 3
    assert read["versions"]["torch"] == torch.__version__
    assert read["versions"]["threads"] == torch.get_num_threads()
    assert read["claims"][1] == {
        "text": "eight corners are stable",
        "kind": "statistical",
        "measured": 7,
        "expected": "at least 8",
        "tolerance": None,
        "source": SOURCE,
        "holds": False,
    }
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_a_changed_claim_records_what_was_planned_and_why_it_changed(tmp_path):
    changed = Claim("x", "statistical", 6, "at least 6", None, SOURCE, True, planned="at least 8", reason="two saddles")
    claim = record(result(changed), tmp_path)["claims"][0]
    assert claim["planned"] == "at least 8"
    assert claim["reason"] == "two saddles"


def test_the_record_is_strict_json_even_for_nan_and_tensors(tmp_path):
    values = torch.tensor([math.nan, math.inf, 1.0])
    claim = Claim("x", "exact", values, np.float64(-math.inf), None, SOURCE, False)
    record(result(claim), tmp_path)

    def refuse(word):
        raise AssertionError(word)

    read = json.loads((tmp_path / "demo.json").read_text(), parse_constant=refuse)
    assert read["claims"][0]["measured"] == ["nan", "inf", 1.0]
    assert read["claims"][0]["expected"] == "-inf"


def test_a_quick_run_never_overwrites_a_full_one_and_a_full_one_replaces_both(tmp_path):
    quick = record(result(HOLDS), tmp_path, quick=True)
    assert quick["parameters"]["quick"] is True
    full = record(result(HOLDS), tmp_path, quick=False)
    image = (tmp_path / "demo.png").read_bytes()
    assert record(result(FAILS), tmp_path, quick=True) == full
    assert (tmp_path / "demo.png").read_bytes() == image
    assert json.loads((tmp_path / "quick/demo.json").read_text())["parameters"]["quick"] is True
    assert (tmp_path / "quick/demo.png").exists()
    assert record(result(FAILS), tmp_path, quick=False)["claims"][0]["holds"] is False


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"parameters": {"quick": "no"}}'])
def test_a_quick_run_keeps_off_a_record_it_cannot_read(tmp_path, content):
    (tmp_path / "demo.json").write_text(content)
    write(result(HOLDS), "demo", "A title", {"quick": True}, 0, 1.0, tmp_path)
    assert (tmp_path / "demo.json").read_text() == content
    assert (tmp_path / "quick/demo.json").exists()


def test_the_table_shows_claims_as_written(capsys):
    claim = Claim.near("tau [s] is right", 0.12345678, 0.125, 0.01, SOURCE)
    Console(width=200).print(claims_table([claim, FAILS, FOUND]))
    shown = capsys.readouterr().out
    assert "tau [s] is right" in shown
    assert "0.123457" in shown
    assert "0.125 ± 0.01" in shown
    assert shown.count("fails") == 2


def test_progress_is_silent_from_python(capsys):
    report = progress(10, "training")
    report(5)
    assert capsys.readouterr() == ("", "")


def working(*, quick: bool = False, seed: int = 0) -> Result:
    report = progress(2, "training the stub")
    report(1)
    report(2)
    return result(HOLDS)


def test_progress_draws_a_bar_on_stderr_for_a_command_on_a_terminal_and_only_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert execute(working, []) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert execute(working, []) == 0
    out, err = capsys.readouterr()
    assert "training the stub" in err
    assert "training the stub" not in out
    progress(2, "after the command")(1)
    assert capsys.readouterr().err == ""


def stub(*, quick: bool = False, seed: int = 0) -> Result:
    return result(HOLDS)


def test_a_full_disk_while_saving_shows_the_claims_first_and_then_what_to_do(tmp_path, monkeypatch, capsys):
    def full_disk(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", full_disk)
    assert execute(stub, []) == 1
    out, err = capsys.readouterr()
    assert "period" in out
    assert "No space left" in err
    assert "free space" in err
    assert list((tmp_path / "figures").iterdir()) == []


def test_a_run_without_quick_or_seed_is_refused(tmp_path, monkeypatch):
    def bare(*, units: int = 3) -> Result:
        return result(HOLDS)

    with pytest.raises(TypeError, match="must take quick and seed"):
        execute(bare, [])
