"""What to say of a run that did not reach its end: when, which sample, which part of its state, which knob to turn."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._march import apart, march
from ctrnn._model_files import class_name
from ctrnn._search import Found
from ctrnn._stretches import number
from ctrnn.adjoints.base import Problem
from ctrnn.errors import IntegrationError, MaxStepsReached, NonFiniteState, StepSizeUnderflow
from ctrnn.solvers.semi_implicit import Balanced, SemiImplicitEuler
from ctrnn.steps import Saved
from ctrnn.trajectory import Status, Trajectory

CHUNK = 64
STABLE = "the state became NaN or infinite. Use solver=SemiImplicitEuler(), which is stable at any dt, or smaller steps"

_KNOBS = {
    Status.STEP_SIZE_UNDERFLOW: (
        StepSizeUnderflow,
        "no step above dt_min meets the tolerances. Loosen rtol and atol, or use a stiff solver (ctrnn.Rodas4())",
    ),
    Status.MAX_STEPS_REACHED: (
        MaxStepsReached,
        "max_steps were used up. Raise Adaptive(max_steps=...), loosen the tolerances, or use a stiff solver "
        "(ctrnn.Rodas4())",
    ),
    Status.NON_FINITE_STATE: (
        NonFiniteState,
        "the state became NaN or infinite. Take smaller steps, or bound the weights or the activation",
    ),
}


class Where(NamedTuple):
    """The step that failed, the time at which it begins, and the part of the state that is to blame."""

    step: int
    t: float
    part: str


def error(problem: Problem, found: Found | None, batch: torch.Size, trajectory: Trajectory) -> IntegrationError:
    """The error for the first sample that failed, carrying the trajectory without its graph."""
    status = trajectory.stats.status.reshape(-1)
    first = int(status.nonzero()[0, 0])
    kind, knob = _KNOBS[Status(int(status[first]))]
    step = problem.step
    if kind is NonFiniteState and isinstance(step.model, Balanced) and not isinstance(step.solver, SemiImplicitEuler):
        knob = STABLE
    with torch.no_grad():
        if found is not None and found.status[first]:
            where = _where_stuck(problem, found, first)
        else:
            where = _where_not_finite(problem, first, batch)
    sample = tuple(int(i) for i in torch.unravel_index(torch.tensor(first), batch)) if batch else ()
    who = f" of sample {sample[0] if len(sample) == 1 else sample}" if sample else ""
    which = f", part {where.part!r} of the state" if where.part else ""
    name = class_name(problem.step.model)
    message = f"{name} stopped at t = {where.t:g}, step {where.step}{who}{which}: {knob}."
    failed = int((status > 0).sum())
    if failed > 1:
        message += f" {failed} of {len(status)} samples failed."
    plain = tree.map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, trajectory)
    return kind(message, t=where.t, step=where.step, sample=sample, part=where.part, trajectory=plain)


def _where_not_finite(problem: Problem, sample: int, batch: torch.Size) -> Where:
    """Repeat a fixed run and look at the sample's state after every step."""
    grid, x = problem.grid, problem.x0
    row = sample if grid.order is None else int((grid.order == sample).nonzero()[0, 0])
    axes = len(batch) if grid.order is None else 1
    for begin in range(0, len(grid.dt), CHUNK):
        part = grid.part(begin, begin + CHUNK)
        part = part._replace(initial=False, saved=[(Saved(),) for _ in part.dt])
        noise = None if problem.noise is None else problem.noise._replace(offset=problem.noise.offset + begin)
        x, states = march(problem.step, part, x, problem.source, noise)
        for k, state in enumerate(apart(states, part.sizes(), part.live is not None), start=begin):
            if grid.live is not None and grid.live[k] <= row:
                break
            for name, leaf in tree.named(state):
                if not bool(torch.isfinite(leaf.flatten(0, axes - 1)[row] if axes else leaf).all()):
                    return Where(k, _of_row(grid.t[k], row), name)
    raise AssertionError("a run that failed fails again")


def _where_stuck(problem: Problem, found: Found, sample: int) -> Where:
    """What the search noted of the sample when it gave up."""
    names = [name for name, _ in tree.named(problem.x0)]
    return Where(int(found.count[sample]), float(found.failed_at[sample]), names[int(found.blame[sample])])


def _of_row(value: Any, row: int) -> float:
    return number(value[row]) if isinstance(value, Tensor) and value.ndim > 0 else number(value)
