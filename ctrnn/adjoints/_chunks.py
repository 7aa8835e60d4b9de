"""A run in chunks of steps, each of which torch.compile makes one graph."""

import warnings
from collections.abc import Callable
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import debug_unwrap

from ctrnn import _tree as tree
from ctrnn._columns import values
from ctrnn._compiled import compiled
from ctrnn._derivative import has_direction
from ctrnn._march import after_start, apart, deviates, kicked, march, together
from ctrnn._model_files import class_name
from ctrnn._types import State
from ctrnn.adjoints.base import Problem
from ctrnn.drive import Piece
from ctrnn.solvers.base import Step

GRAPHS = 64  # of all runs of a process; a kind of run takes one with gradients and one without


class Data(NamedTuple):
    """What the steps of a chunk read; all but the silence has a leading axis of steps."""

    t: Tensor
    columns: tuple[Tensor, ...]  # coefficients of the drive, ...
    place: tuple[Tensor, Tensor]  # ... and where in its interval a step begins, and how much of it it covers
    silence: Tensor  # the drive, where it has no coefficients
    kicks: State | None = None  # deviates of the noise

    def drive(self) -> list[Any]:
        """The drive of each step."""
        columns = [column.unbind(0) for column in self.columns]
        if not columns:
            return [self.silence] * len(self.t)
        if len(columns) == 1:
            return list(columns[0])
        begin, width = (part.unbind(0) for part in self.place)
        return [Piece(*piece) for piece in zip(zip(*columns, strict=True), begin, width, strict=True)]


def in_chunks(problem: Problem, length: int) -> tuple[State, State]:
    """`march` with chunks of so many steps compiled; a shorter one, or one of unequal steps, is left to `march`."""
    step, grid, x0, source, noise, progress = problem
    kicks = None if noise is None else deviates(noise, grid)
    done = compiled(step, grid, x0, source.coefficients, kicks, progress) if source.function is None else None
    if done is not None:  # a kernel is faster
        return done
    _check(problem)
    lengths, which = grid.lengths()
    x, saved = _start(problem), list[State]()
    for start, data in zip(range(0, grid.steps, length), _data(problem, length), strict=True):
        part = grid.part(start, start + length)._replace(initial=False)
        kinds = [0] if which is None else which[start : start + length].unique().tolist()
        kick = None if kicks is None else list(islice(kicks, part.steps))
        if part.steps < length or len(kinds) > 1:
            rest = None if noise is None else noise._replace(offset=noise.offset + start)
            x, xs = march(step, part, x, source, rest)
            saved += apart(xs, part.sizes(), rows=False)
        else:
            if kick is not None:
                data = data._replace(kicks=tree.map(lambda *each: torch.stack(each), *kick))
            states = _chunk(step, lengths[kinds[0]], x, data)
            x = states[-1]
            saved += [state for state, items in zip(states, part.saved, strict=True) if items]
        if progress is not None:
            progress(start / grid.steps)
    return x, after_start(x0, together(saved, x, rows=False), grid)


def _steps(step: Step, dt: float, x: State, data: Data) -> list[State]:
    """The states after each step of a chunk."""
    ready = step.solver.prepare(step.model, dt)
    states: list[State] = []
    for k, (t, u) in enumerate(zip(data.t.unbind(0), data.drive(), strict=True)):
        x = step.solver.step(step.model, t, dt, x, u, ready)
        if data.kicks is not None:
            x = kicked(x, tree.map(lambda leaf, k=k: leaf[k], data.kicks), step.solver.diffusion(ready))
        states.append(x)
    return states


@cache
def _graph() -> Callable[..., list[State]]:
    """`_steps` as torch.compile makes it: one function for all runs, so that a model is not compiled in each of them.

    Not before its first use, since Dynamo takes longer to import than all the rest. A wrapper in C++, since a chunk is
    so short that calling its kernels from Python takes most of its time.
    """
    kind: dict[str, Any] = {"fullgraph": True, "dynamic": False, "recompile_limit": GRAPHS}  # the stubs lack the last
    return torch.compile(_steps, options={"cpp_wrapper": True}, **kind)


def _chunk(step: Step, dt: float, x: State, data: Data) -> list[State]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"torch\.")  # about what torch does itself while it compiles
            return _graph()(step, dt, x, data)
    except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
        reason = next(line for line in str(error).splitlines() if line.strip())
        raise RuntimeError(
            f"torch.compile makes no graph of steps of {class_name(step.model)} by {step.solver} ({reason}): it needs "
            "a C++ compiler, and a model in plain torch without branches on values. Backprop() runs the steps as they "
            "are."
        ) from error


def _check(problem: Problem) -> None:
    """Raise where steps cannot be compiled."""
    grid = problem.grid
    if any(debug_unwrap(value, recurse=False) is not value or has_direction(value) for value in _leaves(problem)):
        why = "is transformed by torch.func, or differentiated forwards"
    elif problem.source.function is not None:
        why = "has a drive that is a function of time (sample it: Held, Linear or Cubic)"
    elif grid.live is not None:
        why = "has samples that take steps of their own"
    elif not grid.regular:
        why = "has times that a gradient reaches"
    else:
        return
    raise ValueError(
        f"Backprop(compile=True) compiles steps that all samples share, and this run {why}: use Backprop()."
    )


def _leaves(problem: Problem) -> list[Tensor]:
    return [*problem.step.parameters(), *problem.source.coefficients, *tree.leaves(problem.x0)]


def _start(problem: Problem) -> State:
    """x0 as the end of a chunk would be, so that the first chunk is not another graph: no view, and with a gradient."""
    carries = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in _leaves(problem))
    fresh = lambda leaf: leaf.clone(memory_format=torch.contiguous_format).requires_grad_(carries)
    own = lambda leaf: leaf if leaf.requires_grad else fresh(leaf)
    return tree.map(own, problem.x0)


def _data(problem: Problem, length: int) -> list[Data]:
    """What each chunk reads, taken out of the drive at once: slices in a loop make the way back quadratic."""
    grid, source = problem.grid, problem.source
    silence, device = source.silence, source.silence.device
    first, which = grid.intervals()
    rows = slice(first, first + grid.steps) if which is None else (first + which).to(device)
    columns = [column[rows].split(length) for column in source.coefficients]
    times, begin, width = (
        values(column, torch.float64).to(device).split(length) for column in (grid.t, grid.begin, grid.width)
    )
    parts = zip(*columns, strict=True) if columns else [()] * len(times)
    return [Data(t, c, (a, b), silence) for t, c, a, b in zip(times, parts, begin, width, strict=True)]
