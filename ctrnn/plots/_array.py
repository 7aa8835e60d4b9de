"""What a figure is given: Tensors with or without gradients and on any device, arrays and lists; and axes to name."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor


def array(values: Any, dtype: type | None = None) -> Any:
    """The values as a numpy array."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype)


def name_axes(ax: Axes, x: str, y: str, z: str = "") -> None:
    """Label the axes that have no label yet, so that a name given before stays."""
    for axis, name in (("x", x), ("y", y), ("z", z)):
        if name and not getattr(ax, f"get_{axis}label")():
            getattr(ax, f"set_{axis}label")(name)
