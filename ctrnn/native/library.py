"""The compiled kernels: where they are, whether they may be used, and if not, why."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import NamedTuple

ABI = 4  # of dispatch.cpp
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")  # a machine that has one has those before it

_PLAIN: ContextVar[bool] = ContextVar("ctrnn_plain", default=False)


@contextmanager
def plain() -> Iterator[None]:
    """Within it, integrate on the plain torch path, as the environment variable CTRNN_NATIVE=0 does everywhere.

    Nothing changes but speed and rounding: every compiled kernel has a twin of torch operations. A thread that is
    started inside it does not inherit it.
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


class Kernels(NamedTuple):
    """The library, and the instruction set whose kernels this machine runs."""

    library: ctypes.CDLL
    instruction_set: str


def library() -> ctypes.CDLL | None:
    """The kernels for this machine, or None: then everything runs on the plain torch path. Loaded once."""
    found = None if _PLAIN.get() else _found()
    return found.library if isinstance(found, Kernels) else None


def call(name: str, *structures: ctypes.Structure) -> None:
    """Call a kernel, say `call("ctrnn_rate_forward", run)`, without holding Python's lock.

    Raises:
        MemoryError: it found no memory or no threads.
    """
    found = _found()
    assert isinstance(found, Kernels), "ask library() first"
    kernel = getattr(found.library, f"{name}_{found.instruction_set}")
    if kernel(*map(ctypes.byref, structures)):
        raise MemoryError(f"{name} found no memory or no threads: take a smaller batch or fewer steps.")


def instruction_set() -> str | None:
    """The instruction set that the kernels in use are compiled for, None without kernels."""
    found = None if _PLAIN.get() else _found()
    return found.instruction_set if isinstance(found, Kernels) else None


def missing() -> str | None:
    """Why there are no kernels here; None where there are."""
    found = "inside ctrnn.plain()" if _PLAIN.get() else _found()
    return found if isinstance(found, str) else None


@cache
def _found() -> Kernels | str:
    """The kernels, or why there are none."""
    if os.environ.get("CTRNN_NATIVE") == "0":
        return "CTRNN_NATIVE=0"
    given = os.environ.get("CTRNN_LIBRARY")
    path = Path(given or Path(__file__).with_name("libctrnn.so"))
    if given and not path.exists():
        return f"CTRNN_LIBRARY={given} does not exist"
    if not path.exists():
        return "not compiled when ctrnn was installed: install a C++ compiler, then ctrnn again"
    try:
        compiled = ctypes.CDLL(str(path))
        compiled.ctrnn_isa.restype = ctypes.c_char_p
        abi, best = compiled.ctrnn_abi(), compiled.ctrnn_isa().decode()
    except (OSError, AttributeError) as problem:
        return f"cannot be loaded ({problem}): install ctrnn again"
    if abi != ABI:
        return f"compiled from other sources (interface {abi}, here {ABI}): install ctrnn again"
    allowed = INSTRUCTION_SETS[: INSTRUCTION_SETS.index(best) + 1]
    wanted = os.environ.get("CTRNN_ISA") or best
    if wanted not in allowed:
        return f"CTRNN_ISA={wanted} is not one of {', '.join(allowed)}"
    return Kernels(compiled, wanted)
