"""Whether somebody differentiates with respect to a Tensor."""

from typing import Any

from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.forward_ad import unpack_dual
from torch.func import debug_unwrap


def moves(value: Any) -> bool:
    """Whether a derivative is asked for, at any level of torch.func, in reverse or forward mode."""
    if not isinstance(value, Tensor):
        return False
    inner = debug_unwrap(value, recurse=False)
    return value.requires_grad or has_direction(value) or (inner is not value and moves(inner))


def has_direction(value: Tensor) -> bool:
    """Whether torch.func.jvp, jacfwd or forward_ad is differentiating with respect to it."""
    try:
        return unpack_dual(value).tangent is not None
    except RuntimeError:  # no forward mode at all, or a transform through which one cannot look
        return False


def forward_mode() -> bool:
    """Whether a forward derivative is being taken, of whatever and at any level: compiled runs have none."""
    return forward_ad._current_level >= 0
