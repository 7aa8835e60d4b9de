"""Layers import only leftwards: what a file may know is read off one tuple."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ctrnn"

# A module imports from its own layer and from those above it in this list.
LAYERS = (
    ("_tree", "_types", "_columns", "_files", "_derivative"),
    ("init", "_model_files", "lowered", "dynamics", "drive", "trajectory", "steps", "errors", "decoding", "order"),
    ("solvers", "native"),
    ("_march", "_kernels", "_compiled", "_compiled_adaptive", "_search"),
    ("adjoints",),
    (
        "_check",
        "_stretches",
        "_grid",
        "_grid_adaptive",
        "_read_off",
        "_failure",
        "_integrate",
        "bidirectional",
        "encoder_decoder",
        "compat",
        "planes",
        "_sweep",
    ),
    ("learning", "analysis"),
    ("plots",),
    ("cli", "results", "commands", "__main__"),
)
# Content: it stands on the first two layers only, and nothing below the integrator knows of it.
CONTENT = ("models", "tasks")
FIRST_USER_OF_CONTENT = 5

# An import inside a function hides what a file needs: each one here has its reason.
LATE = {
    ("solvers", "torchdiffeq"): "it brings scipy's integrators, which take half as long to import as torch",
    ("adjoints", "torchdiffeq"): "the same",
    ("_files", "torch"): "the command line writes files, and lists scenarios, without torch",
    ("_files", "safetensors.torch"): "it brings torch",
    ("trajectory", "xarray"): "an extra, asked for by to_xarray alone",
    (
        "results",
        "torch",
    ): "only a scenario that runs needs torch, and commands that list and show them import this file",
    ("results", "ctrnn.native.library"): "the same for the loader of kernels",
    ("commands", "torch"): "only doctor asks torch about the GPU",
}

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# The facade names what lies in every layer.
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def module(path):
    """The name directly under the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(node, path):
    """The dotted names an import statement asks for, relative ones resolved."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        package = ("ctrnn", *path.relative_to(PACKAGE).parent.parts)
        base = ".".join((*package[: len(package) - node.level + 1], *filter(None, [node.module])))
    return [f"{base}.{alias.name}" for alias in node.names] if base == "ctrnn" else [base]


def imports(path):
    """Every import of a file as (statement, dotted name)."""
    statements = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.Import | ast.ImportFrom)]
    return [(node, name) for node in statements for name in imported(node, path)]


def may_import(user, used):
    """Whether the module `user` of the package may import its module `used`."""
    if user in CONTENT:
        return used == user or LEVEL.get(used, len(LAYERS)) < 2
    if used in CONTENT:
        return LEVEL[user] >= FIRST_USER_OF_CONTENT
    return LEVEL[used] <= LEVEL[user]


def test_every_module_has_its_layer():
    present = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    homeless = present - {"__init__", "__pycache__", *LEVEL, *CONTENT}
    assert not homeless, f"place {sorted(homeless)} in LAYERS"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_file_imports_only_leftwards(path):
    inner = [(node.lineno, name.split(".")) for node, name in imports(path) if name.split(".")[0] == "ctrnn"]
    inner = [(line, name) for line, name in inner if name != ["ctrnn", "__version__"]]  # which stands in the facade
    assert [line for line, name in inner if len(name) == 1] == [], "import from the module, not from the whole package"
    unknown = [name[1] for _, name in inner if name[1] not in LEVEL and name[1] not in CONTENT]
    assert unknown == [], "no module of the package: import a name from the module that defines it"
    wrong = [f"line {line} imports {name[1]}" for line, name in inner if not may_import(module(path), name[1])]
    assert wrong == [], f"{module(path)} stands left of it"


def test_imports_inside_functions_are_those_with_a_reason():
    found = set()
    for path, tree in TREES.items():
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        for statement in (node for function in functions for node in ast.walk(function)):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                found |= {(module(path), name) for name in imported(statement, path)}
    assert found == set(LATE)


@pytest.mark.parametrize(
    ("user", "used", "allowed"),
    [
        ("adjoints", "_march", True),
        ("_march", "adjoints", False),
        ("solvers", "_integrate", False),
        ("models", "dynamics", True),
        ("models", "solvers", False),
        ("tasks", "models", False),
        ("dynamics", "models", False),
        ("learning", "tasks", True),
        ("analysis", "plots", False),
        ("plots", "results", False),
    ],
)
def test_the_rule_says_what_the_design_says(user, used, allowed):
    assert may_import(user, used) is allowed


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("import ctrnn.steps", ["ctrnn.steps"]),
        ("from ctrnn import _tree as tree, steps", ["ctrnn._tree", "ctrnn.steps"]),
        ("from . import base", ["ctrnn.solvers"]),
        ("from .base import Solver", ["ctrnn.solvers.base"]),
        ("from ..steps import Grid", ["ctrnn.steps"]),
        ("from .. import steps", ["ctrnn.steps"]),
    ],
)
def test_relative_and_absolute_imports_are_understood(statement, names):
    assert imported(ast.parse(statement).body[0], PACKAGE / "solvers" / "euler.py") == names


def test_annotations_are_read_as_they_stand():
    future = [path.name for path in FILES for _, name in imports(path) if name == "__future__"]
    assert future == [], "shape checks and flags read annotations at run time: no `from __future__ import annotations`"


def test_a_file_stays_below_350_lines():
    long = {path.name: n for path in FILES if (n := len(path.read_text(encoding="utf-8").splitlines())) > 350}
    assert long == {}
