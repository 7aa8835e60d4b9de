import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ctrnn.cli as cli
from ctrnn import commands

PACKAGE = Path(cli.__file__).parent
SCENARIO = '''"""A stub that {verb}.

Claim: one is one.

Source: arithmetic.
"""

from matplotlib.figure import Figure

from ctrnn.results import Claim, Result, main, progress


def run(*, quick: bool = False, seed: int = 0, units: int = 64, taus: tuple[float, ...] = (0.5, 1.0)) -> Result:
    """Run it."""
    progress(units, "working")(units)
    claims = [Claim.equal("one is one", {measured}, 1, "arithmetic", kind="{kind}")]
    return Result(Figure(), claims)


if __name__ == "__main__":
    main(run)
'''
SLOW = '''"""A stub that waits."""

import time


def run(*, quick=False, seed=0):
    print("started", flush=True)
    time.sleep(60)
'''
SLOW_DISK = """
import os
import time


def fsync(handle):
    print("started", flush=True)
    time.sleep(60)


os.fsync = fsync
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of the package with stub scenarios beside it, used from an empty folder."""
    root = tmp_path / "checkout"
    shutil.copytree(PACKAGE, root / "ctrnn", ignore=shutil.ignore_patterns("__pycache__", "_scenarios"))
    folder = root / "scenarios"
    folder.mkdir()
    for name, verb, measured, kind in [
        ("holds", "holds", 1, "exact"),
        ("fails", "fails", 2, "exact"),
        ("found", "fails to find", 2, "statistical"),
    ]:
        (folder / f"{name}.py").write_text(SCENARIO.format(verb=verb, measured=measured, kind=kind))
    (folder / "_helper.py").write_text("raise RuntimeError('a helper is no scenario')")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(commands, "scenarios_folder", lambda: folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return root


def start(checkout, *command):
    environment = os.environ | {"PYTHONPATH": str(checkout), "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Where the tests themselves run in the background, Ctrl-C is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def files(folder="."):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_the_command_line_knows_scenarios_without_loading_torch_or_matplotlib():
    code = (
        "import sys, ctrnn.cli as cli\n"
        "assert cli.main(['--help']) == cli.main(['list']) == 0\n"
        "print([name for name in ('torch', 'matplotlib', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "ctrnn COMMAND" in done.stdout


def test_list_names_every_scenario_with_its_title_and_no_helper(checkout, capsys):
    assert cli.main(["list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "fails  A stub that fails",
        "found  A stub that fails to find",
        "holds  A stub that holds",
    ]


def test_show_prints_the_docstring_and_the_flags_with_types_and_defaults(checkout, capsys):
    assert cli.main(["show", "holds"]) == 0
    shown = capsys.readouterr().out
    assert "Source: arithmetic." in shown
    assert any({"--units", "int", "64"} <= set(line.split()) for line in shown.splitlines())
    assert "tuple[float, ...]" in shown


def test_a_scenario_whose_claims_hold_writes_its_files_here_and_exits_with_0(checkout, capsys):
    assert cli.main(["run", "holds", "--units", "8", "--taus", "1", "2", "--seed", "5"]) == 0
    assert files() == ["figures/holds.json", "figures/holds.png"]
    record = json.loads(Path("figures/holds.json").read_text())
    assert record["title"] == "A stub that holds"
    assert record["parameters"] == {"quick": False, "units": 8, "taus": [1.0, 2.0]}
    assert record["seed"] == 5
    assert "one is one" in capsys.readouterr().out


@pytest.mark.parametrize("indent", ["", "def run(*, quick: bool = False, seed: int = 0):\n    "])
def test_a_package_that_is_not_installed_is_named_with_what_to_do(checkout, capsys, indent):
    stub = f'"""A stub that needs more."""\n\n{indent}import no_such_package\n'
    (checkout / "scenarios" / "needs.py").write_text(stub)
    assert cli.main(["run", "needs"]) == 2
    said = capsys.readouterr().err
    assert "no_such_package" in said
    assert "pip install 'ctrnn-sim[scenarios]'" in said


@pytest.mark.parametrize(("name", "status"), [("fails", 1), ("found", 0)])
def test_a_failed_claim_is_written_and_decides_the_status_only_if_exact(checkout, name, status):
    assert cli.main(["run", name]) == status
    assert json.loads(Path(f"figures/{name}.json").read_text())["claims"][0]["holds"] is False


def test_a_quick_run_says_that_it_keeps_off_the_full_one(checkout, capsys):
    assert cli.main(["run", "holds"]) == 0
    full = Path("figures/holds.json").read_bytes()
    assert cli.main(["run", "holds", "--quick"]) == 0
    assert "does not overwrite" in capsys.readouterr().out
    assert Path("figures/holds.json").read_bytes() == full
    assert files("figures/quick") == ["holds.json", "holds.png"]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["run", "hold"], "Did you mean holds?"),
        (["show", "fail"], "Did you mean fails?"),
        (["run", "xyzzy"], "`ctrnn list` names them all"),
        (["run", "_helper"], "no scenario _helper"),
        (["run", "holds", "--unit", "3"], "Did you mean --units?"),
        (["run", "holds", "--units", "many"], "many"),
        (["run", "holds", "stray"], "stray"),
        (["figures", "--quik"], "--quick"),
        (["lst"], 'Did you mean "list"?'),
        (["run"], "requires an argument"),
    ],
)
def test_what_is_not_understood_gets_a_hint_and_status_2_and_runs_nothing(checkout, capsys, tokens, message):
    assert cli.main(tokens) == 2
    out, err = capsys.readouterr()
    assert message in " ".join(err.split())
    assert out == ""
    assert files() == []


def test_help_of_run_and_help_of_a_scenario_differ(checkout, capsys):
    assert cli.main(["run", "--help"]) == 0
    assert "ctrnn show NAME" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["run", "holds", "--help"]) == 0
    assert "--units" in capsys.readouterr().out
    assert files() == []


def test_doctor_tells_versions_threads_and_kernels(checkout, capsys):
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("torch", "threads", "kernels", "GPU"))


def test_the_script_and_the_command_are_the_same(checkout):
    by_command = start(checkout, "-m", "ctrnn", "run", "holds", "--units", "8")
    out, err = by_command.communicate()
    assert (by_command.returncode, err) == (0, "")
    record = json.loads(Path("figures/holds.json").read_text())
    Path("figures/holds.json").unlink()
    by_script = start(checkout, checkout / "scenarios/holds.py", "--units", "8")
    again, err = by_script.communicate()
    assert (by_script.returncode, err) == (0, "")
    assert again.splitlines()[:-1] == out.splitlines()[:-1]
    assert json.loads(Path("figures/holds.json").read_text()) | {"wall_time_s": 0} == record | {"wall_time_s": 0}


def test_figures_runs_every_scenario_even_after_one_crashes(checkout, monkeypatch, capfd):
    (checkout / "scenarios/crashes.py").write_text('"""A stub that crashes."""\nraise RuntimeError("on purpose")\n')
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    assert cli.main(["figures", "--quick"]) == 1
    out, err = capfd.readouterr()
    assert "RuntimeError: on purpose" in err
    assert "Failed: crashes, fails" in out
    assert [name for name in files("figures") if name.endswith(".json")] == ["fails.json", "found.json", "holds.json"]


@pytest.mark.parametrize("command", [("run", "slow"), ("figures",)])
def test_ctrl_c_ends_with_130_one_line_and_no_file(checkout, command):
    for script in (checkout / "scenarios").glob("[a-z]*.py"):
        script.unlink()
    (checkout / "scenarios/slow.py").write_text(SLOW)
    process = start(checkout, "-m", "ctrnn", *command)
    while "started" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert set(err.splitlines()) == {"Interrupted. Every file is whole: as it was, or as it was meant to be."}
    assert files() == []


def test_ctrl_c_while_a_figure_is_being_written_leaves_the_old_one(checkout):
    """The second run is interrupted with its temporary file half on the disk."""
    assert cli.main(["run", "holds"]) == 0
    before = {name: Path(name).read_bytes() for name in files()}
    (checkout / "sitecustomize.py").write_text(SLOW_DISK)
    process = start(checkout, "-m", "ctrnn", "run", "holds", "--units", "8")
    while "started" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.05)
    assert any(name.endswith(".tmp") for name in files())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert {name: Path(name).read_bytes() for name in files()} == before


def test_every_scenario_states_title_claim_and_source_and_takes_the_common_flags():
    for name, path in commands.scenario_paths().items():
        scenario = commands.read(path)
        assert len([part for part in scenario.document.split("\n\n") if part.strip()]) >= 2, name
        flags = {parameter: default for parameter, _, default in scenario.parameters}
        assert {"quick": "False", "seed": "0"}.items() <= flags.items(), name
        assert "seeds" in flags, name
