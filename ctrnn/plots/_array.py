"""What a figure is given: Tensors with or without gradients and on any device, arrays and lists."""

from typing import Any

import numpy as np
from torch import Tensor


def array(values: Any, dtype: type | None = None) -> Any:
    """The values as a numpy array."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype)
