"""The vocabulary of shapes: what flows through the integrator.

Axes are named the same way everywhere: `time` leads, then `*batch` (any number of axes, none included), then `unit`,
`input`, `output`, `slot`, `word`.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

# A state is a Tensor or a (possibly nested) NamedTuple of Tensors. Python cannot spell that recursive type for
# NamedTuples, hence the tuple.
State = Tensor | tuple[Any, ...]

# A time, a step or a rate: a Python number, a 0-d Tensor, or (*batch, 1) when each sample has its own.
Scalar = float | Tensor

# The drive seen by one step: a value, or a function of the fraction c in [0, 1] of the step.
Input = Tensor | Callable[[float], Tensor] | None
