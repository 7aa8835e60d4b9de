"""When the clocked parts of a state move: all at once at the multiples of their period, and not in between."""

import math
from typing import Any

import torch
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import Scalar, State
from ctrnn.dynamics import Relaxation

NEAR = 1e-6  # of a period: by how much rounding may move a step's end from a tick


def due(period: float | None, t: Any, dt: Scalar) -> Any:
    """1 where a multiple of the period lies in (t, t + dt], else 0; a part without a period is never due.

    Raises:
        ValueError: steps do not end at the multiples.
    """
    if period is None:
        return 0
    if torch.compiler.is_compiling() or (isinstance(t, Tensor) and t.ndim):
        if not isinstance(dt, Tensor) and dt >= (1 - NEAR) * period:
            return 1
        after = (t + dt) / period
        near = NEAR + 8 * torch.finfo(t.dtype).eps * after.abs()
        before = torch.floor(t / period + near)
        counts = torch.floor(after + near) - before
        if not torch.compiler.is_compiling():
            if not bool(counts.any()):
                return 0
            _check(bool(((counts == 0) | ((counts == 1) & (after - before - 1 <= near))).all()), period)
        return counts.to(t.dtype)
    begin, length = (float(v.detach()) if isinstance(v, Tensor) else float(v) for v in (t, dt))
    last, end = math.floor(begin / period + NEAR), (begin + length) / period
    count = math.floor(end + NEAR) - last
    _check(count == 0 or (count == 1 and end - last - 1 <= NEAR), period)
    return count


def _check(ends_there: bool, period: float) -> None:
    if not ends_there:
        raise ValueError(
            f"a clocked part ticks at the multiples of {period:g}, and there is a step that goes beyond one: begin the "
            f"run at a multiple, and take dt = {period:g} or an integer fraction of it."
        )


def ticks(model: Relaxation, t: Tensor, dt: Scalar) -> Any:
    """What is due at the end of a step from t, for each part of the state; None where nothing is."""
    rates = tree.map(lambda period: due(period, t, dt), model.clock)
    leaves: list[Any] = tree.leaves(rates)
    return rates if any(isinstance(rate, Tensor) or rate for rate in leaves) else None


def swept(model: Relaxation, t: Tensor, x: State, u: Tensor, rates: Any) -> State:
    """The state after all that is due has moved to its target, seen from the state as it is."""
    moving = tree.map(lambda rate: 1 if isinstance(rate, Tensor) else rate, rates)
    return tree.blend(x, model.target(t, x, u, moving), rates)
