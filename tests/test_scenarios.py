"""Every scenario runs, writes what it promises, and its exact claims hold."""

import importlib
import inspect
import json
from pathlib import Path

import matplotlib.image
import pytest

from ctrnn import results

FOLDER = Path(__file__).parents[1] / "scenarios"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def module(name):
    return importlib.import_module(f"scenarios.{name}")


@pytest.mark.timeout(280)
@pytest.mark.parametrize("name", NAMES)
def test_a_quick_run_holds_its_exact_claims_and_writes_figure_and_record(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status = results.execute(module(name).run, ["--quick"])
    record = json.loads((tmp_path / "figures" / f"{name}.json").read_text(encoding="utf-8"))
    assert record.keys() >= {"title", "parameters", "seed", "versions", "wall_time_s", "claims"}
    assert record["parameters"]["quick"] is True
    assert record["claims"]
    broken = [claim for claim in record["claims"] if claim["kind"] == "exact" and not claim["holds"]]
    assert broken == []
    assert status == 0
    image = matplotlib.image.imread(tmp_path / "figures" / f"{name}.png")
    assert image.shape[0] > 200
    assert image[..., :3].std() > 0.05, "the figure is blank"


@pytest.mark.parametrize("name", NAMES)
def test_what_lies_in_figures_is_a_full_run_whose_exact_claims_hold(name):
    record = json.loads((FOLDER.parent / "figures" / f"{name}.json").read_text(encoding="utf-8"))
    assert record["parameters"]["quick"] is False
    assert [claim for claim in record["claims"] if claim["kind"] == "exact" and not claim["holds"]] == []
    assert (FOLDER.parent / "figures" / f"{name}.png").exists()
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(module(name).run).parameters.items()
        if key != "seed"
    }
    ours = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert record["parameters"] == ours, "figures/ holds the run with the script's own defaults"
