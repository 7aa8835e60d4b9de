"""What a user installs: the wheel, its versions, and the two commands of the README."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ctrnn

ROOT = Path(__file__).parent.parent
SCENARIO = '''"""A stub in a wheel."""

from matplotlib.figure import Figure

from ctrnn.results import Claim, Result


def run(*, quick: bool = False, seed: int = 0) -> Result:
    return Result(Figure(), [Claim.equal("one is one", 1, 1, "arithmetic")])
'''


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_package_its_kernels_its_types_its_licence_and_the_scenarios(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    scripts = {f"ctrnn/_scenarios/{path.name}" for path in (ROOT / "scenarios").glob("*.py")}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ctrnn").rglob("*.py")}
    assert "ctrnn/native/libctrnn.so" in names or not shutil.which(os.environ.get("CXX", "c++"))
    assert not any(name.startswith("ctrnn/native/src") for name in names)
    assert scripts | sources | {"ctrnn/py.typed", "ctrnn/__init__.pyi"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"ctrnn", f"ctrnn_sim-{ctrnn.__version__}.dist-info"}


def test_an_unpacked_wheel_lists_and_runs_scenarios_away_from_the_checkout(wheel, tmp_path):
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    (site / "ctrnn/_scenarios/stub.py").write_text(SCENARIO)
    environment = os.environ | {"PYTHONPATH": str(site)}

    def command(*arguments):
        line = [sys.executable, "-m", "ctrnn", *arguments]
        done = subprocess.run(line, cwd=here, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    names = {line.split()[0] for line in command("list").splitlines()}
    scripts = {path.stem for path in (ROOT / "scenarios").glob("*.py") if not path.stem.startswith("_")}
    assert names == scripts | {"stub"}
    command("run", "stub")
    assert sorted(path.name for path in (here / "figures").iterdir()) == ["stub.json", "stub.png"]


def test_the_version_stands_in_one_place():
    assert importlib.metadata.version("ctrnn-sim") == ctrnn.__version__
    shown = subprocess.run([sys.executable, "-m", "ctrnn", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == ctrnn.__version__
    files = [*(ROOT / "ctrnn").rglob("*.py"), ROOT / "pyproject.toml"]
    assert [path.name for path in files if f'"{ctrnn.__version__}"' in path.read_text()] == ["__init__.py"]


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def needed(requirement, found):
    """The names of everything that a requirement installs here, itself included."""
    name = canonicalize_name(requirement.name)
    if (name, extras := frozenset(requirement.extras)) in found:
        return found
    found.add((name, extras))
    for text in importlib.metadata.requires(name) or []:
        child = Requirement(text)
        # What a package pins to one version itself (torch its CUDA libraries) needs no pin of ours.
        if any(specifier.operator == "==" for specifier in child.specifier):
            continue
        if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            needed(child, found)
    return found


def test_constraints_pin_the_version_of_everything_that_make_test_installs():
    names = {name for name, _ in needed(Requirement("ctrnn-sim[test,xarray]"), set())} - {"ctrnn-sim"}
    assert len(names) > 30
    assert names <= pins().keys()
    assert pins()["torch"] == "2.13.0"


def test_every_pin_is_a_full_version():
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in pins())
    # airportsdata counts its releases by their date.
    assert all(re.fullmatch(r"[0-9]+(\.[0-9]+)+|20[0-9]{6}", version) for version in pins().values())


def make(*arguments, folder=ROOT):
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True)


@pytest.fixture
def clone(tmp_path):
    """The files that decide about an installation, with an environment that looks installed."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("bin/python", ".installed", ".installed-test"):
        (tmp_path / ".venv" / name).touch()
    return tmp_path


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_installs_again_only_when_the_requirements_changed(clone, target):
    assert "pip install" not in make("-n", target, folder=clone).stdout
    (clone / "ctrnn.py").touch()
    assert "pip install" not in make("-n", target, folder=clone).stdout
    later = (clone / ".venv/.installed").stat().st_mtime + 10
    os.utime(clone / "constraints.txt", (later, later))
    assert "pip install" in make("-n", target, folder=clone).stdout


def test_make_says_when_python_is_too_old_or_missing(clone):
    (clone / ".venv/bin/python").unlink()
    missing = make("demo", "PYTHON=python-that-is-not-here", folder=clone)
    assert missing.returncode != 0
    assert "install Python 3.11" in missing.stderr
    old = clone / "old-python"
    old.write_text(
        '#!/bin/sh\nexec "$REAL" -c "import sys; sys.version_info = (3, 10); exec(sys.argv[1])" "$2"\n'.replace(
            "$REAL", sys.executable
        )
    )
    old.chmod(0o755)
    too_old = make("demo", f"PYTHON={old}", folder=clone)
    assert too_old.returncode != 0
    assert "needs Python 3.11 or newer" in too_old.stderr
