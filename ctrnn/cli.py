"""The command `ctrnn`: what its commands are called and promise, and the exit status.

What they do lies in `ctrnn.commands`, which is imported when one runs: `ctrnn --help` is instant.
"""

import sys
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError
from rich.console import Console
from rich.text import Text

from ctrnn import __version__

app = App(
    name="ctrnn",
    help="Every recurrent network as one dynamical system: run a scenario, see its claims and its figure.",
    version=__version__,
    suppress_keyboard_interrupt=False,
)
app.command("ctrnn.commands:list_", name="list", help="Name every scenario with its title.")
app.command(
    "ctrnn.commands:show",
    help="Print what a scenario claims, its source, and its parameters with their defaults.",
)
app.command(
    "ctrnn.commands:run",
    help="""Run a scenario: figures/NAME.png, figures/NAME.json and a table of its claims.

    `ctrnn show NAME` and `ctrnn run NAME --help` tell its flags. The exit status is 0 when every exact claim holds.
    """,
    # Flags of the scenario, --help among them, must reach the scenario and not this command.
    help_flags=[],
    version_flags=[],
)
app.command(
    "ctrnn.commands:figures",
    help="""Run every scenario, each in a process of its own; one that fails does not stop the others.

    The exit status is 0 when every exact claim of every scenario holds.
    """,
)
app.command(
    "ctrnn.commands:doctor",
    help="Tell versions, threads, kernels and GPU: what to add to a report of a problem.",
)


class UnknownScenario(ValueError):
    """There is no scenario of that name."""


class MissingPackage(ImportError):
    """A scenario needs a package that is not installed."""


def main(tokens: Sequence[str] | None = None) -> int:
    """The exit status of a command line: 0 done, 1 an exact claim failed, 2 not understood, 130 interrupted."""
    return interruptible(lambda: _dispatch(sys.argv[1:] if tokens is None else tokens))


def interruptible(work: Callable[[], int]) -> int:
    """The exit status of some work, 130 after Ctrl-C."""
    try:
        return work()
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted. Every file is whole: as it was, or as it was meant to be.")
        return 130


def _dispatch(tokens: Sequence[str]) -> int:
    errors = Console(stderr=True)
    try:
        status = app(tokens, exit_on_error=False, error_console=errors, result_action="return_value")
    except CycloptsError:
        return 2
    except (UnknownScenario, MissingPackage) as problem:
        errors.print(Text(str(problem), "red"), soft_wrap=True)
        return 2
    return status or 0
