"""What a user waits for before anything happens: `python -m benchmarks.import_time`.

Whole processes, in turn: `import ctrnn` and one use of it beside `import torch`, `ctrnn --help` beside Python with an
App of the same library for command lines, which must not import torch. A checkout gets its bytecode beforehand, as what
pip installs has it.
"""

import compileall
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ctrnn
from benchmarks._side_by_side import Row, main, side_by_side, times_as_long

BARE = "import sys; from cyclopts import App; App(name='bare', help='Nothing.')(['--help'])"
HELP = """
import sys
from ctrnn.cli import main
try:
    sys.argv = ["ctrnn", "--help"]
    main()
finally:
    if "torch" in sys.modules:
        sys.stderr.write("ctrnn --help imports torch")
        sys.exit(3)
"""
PAIRS = {
    "import": {"import ctrnn": "import ctrnn; ctrnn.integrate", "import torch": "import torch"},
    "--help": {"ctrnn --help": HELP, "bare Python + cyclopts": BARE},
}


def process(code: str) -> Callable[[], tuple[()]]:
    def job() -> tuple[()]:
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        return ()

    return job


def run(*, quick: bool = False) -> Row:
    compileall.compile_dir(Path(ctrnn.__file__).parent, quiet=1)
    cases, targets = [], []
    for what, pair in PAIRS.items():
        jobs = {name: process(code) for name, code in pair.items()}
        done = side_by_side({"work": what}, jobs, like={}, turns=0 if quick else 11, seconds=30.0)
        ours, peer = pair
        targets.append(times_as_long(done, peer, 1.15)._replace(work=ours))
        cases.append(done)
    return Row("Start of a process", cases, targets)


if __name__ == "__main__":
    main(run)
