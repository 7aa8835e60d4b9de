"""Compiled kernels for the networks that `lowered()` describes, and the switch that turns them off."""

from .library import plain as plain
