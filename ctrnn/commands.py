"""What the commands of `ctrnn` do.

torch and matplotlib are loaded by the scenario that runs, never by this file.
"""

import ast
import difflib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ctrnn.cli import MissingPackage, UnknownScenario, app
from ctrnn.results import Result, environment, execute


class Scenario(NamedTuple):
    """A script as it reads, without running it."""

    path: Path
    document: str
    parameters: list[tuple[str, str, str]]  # name, type and default of every flag, as written

    @property
    def title(self) -> str:
        """The first line of the docstring."""
        return self.document.partition("\n")[0].rstrip(".") or "(no title)"


def scenarios_folder() -> Path:
    """Beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "scenarios"
    return checkout if checkout.is_dir() else package / "_scenarios"


def scenario_paths() -> dict[str, Path]:
    """Every scenario by name, in alphabetical order; a file whose name starts with _ is a helper."""
    scripts = sorted(scenarios_folder().glob("*.py"))
    return {path.stem: path for path in scripts if not path.stem.startswith("_")}


def find(name: str) -> Path:
    """The script of a scenario.

    Raises:
        UnknownScenario: there is none of that name; says which name was perhaps meant.
    """
    paths = scenario_paths()
    if name in paths:
        return paths[name]
    near = difflib.get_close_matches(name, paths, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else "`ctrnn list` names them all."
    raise UnknownScenario(f"There is no scenario {name}. {hint}")


def read(path: Path) -> Scenario:
    """What a script says of itself: its docstring and the parameters of its function `run`."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    parameters = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "run":
            for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                kind = ast.unparse(argument.annotation) if argument.annotation else type(_literal(default)).__name__
                parameters.append((argument.arg, kind, ast.unparse(default) if default else "required"))
    return Scenario(path, ast.get_docstring(tree) or "", parameters)


def _literal(default: ast.expr | None) -> object:
    return default.value if isinstance(default, ast.Constant) else ""


def load(path: Path) -> Callable[..., Result]:
    """Import a script and give its function `run`."""
    # As `python scenarios/NAME.py` does: helpers beside the script can be imported, and so can the script.
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module.run


def list_() -> int:
    """Name every scenario with its title."""
    console = Console()
    paths = scenario_paths()
    width = max(map(len, paths), default=0)
    for name, path in paths.items():
        console.print(Text(f"{name:{width}}  {read(path).title}"), soft_wrap=True)
    return 0


def show(name: str, /) -> int:
    """Print the docstring of a scenario and the flags of its `run`."""
    scenario = read(find(name))
    console = Console()
    console.print(Text(scenario.document), soft_wrap=True)
    table = Table("flag", "type", "default", title=f"ctrnn run {name}")
    for parameter, kind, default in scenario.parameters:
        table.add_row(*map(Text, (f"--{parameter.replace('_', '-')}", kind, default)))
    console.print(table)
    return 0


def run(
    name: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *flags: Annotated[str, Parameter(allow_leading_hyphen=True)],
) -> int:
    """Run a scenario, which gets the flags; the exit status is 0 when every exact claim holds."""
    if name in ("--help", "-h"):
        app.help_print(["run"])
        return 0
    path = find(name)
    # A figure is written to a file and never shown: no display is needed. A user's own choice of backend stands.
    os.environ.setdefault("MPLBACKEND", "Agg")
    try:
        return execute(load(path), flags)
    except ModuleNotFoundError as problem:
        raise MissingPackage(
            f"Scenario {path.stem} needs the package {problem.name}: pip install 'ctrnn-sim[scenarios]', from a "
            "checkout pip install '.[scenarios]'."
        ) from problem


def figures(*, quick: Annotated[bool, Parameter(negative=())] = False) -> int:
    """Run every scenario, each in a process of its own; 0 when every exact claim of every one holds."""
    console = Console()
    failed = []
    for name in scenario_paths():
        console.rule(name)
        if _run_in_process([name, *["--quick"] * quick]):
            failed.append(name)
    console.rule()
    summary = f"Failed: {', '.join(failed)}" if failed else "Every exact claim of every scenario holds."
    console.print(Text(summary, "red" if failed else "green"), soft_wrap=True)
    return int(bool(failed))


def _run_in_process(arguments: Sequence[str]) -> int:
    child = subprocess.Popen([sys.executable, "-m", "ctrnn", "run", *arguments])
    try:
        return child.wait()
    except KeyboardInterrupt:
        # A terminal interrupts both processes; `kill -INT` on this one alone must end the child too.
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
        child.wait()
        raise


def doctor() -> int:
    """Print the environment of a run, the GPU and where the scenarios are."""
    import torch  # on demand: the other commands of this file do without

    table = Table("what", "here", title="ctrnn doctor")
    for what, here in environment().items():
        table.add_row(what, Text(str(here)))
    table.add_row("GPU", Text(torch.cuda.get_device_name() if torch.cuda.is_available() else "none"))
    table.add_row("scenarios", Text(f"{len(scenario_paths())} in {scenarios_folder()}"))
    Console().print(table)
    return 0
