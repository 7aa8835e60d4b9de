"""Adaptive runs of lowered networks, handed to a compiled kernel whole; what this does not cover stays plain."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import debug_unwrap

from ctrnn import _tree as tree
from ctrnn._compiled import Layer, layers_of, projected
from ctrnn._derivative import forward_mode, moves
from ctrnn._types import State
from ctrnn.lowered import RateNetwork
from ctrnn.native.adaptive import NOTHING, STEPS, STEPS_AND_STATES, Outcome, Plan, adaptive, covers
from ctrnn.native.library import library
from ctrnn.solvers.base import Step
from ctrnn.solvers.runge_kutta import EmbeddedRungeKutta
from ctrnn.steps import Adaptive, Timeline


def compiled(
    step: Step,
    x: State,
    coefficients: tuple[Tensor, ...],
    line: Timeline,
    steps: Adaptive,
    jumps: bool,
    wanted: Tensor | None = None,
    progress: Callable[[float], None] | None = None,
) -> Outcome | None:
    """The steps of every row of x (row, unit), or what they save at the times `wanted` (save, row).

    None where the plain path must run. `jumps` says whether the drive does at the intervals' edges.
    """
    layer = _layer(step, x, coefficients)
    if layer is None:
        return None
    assert isinstance(layer.network, RateNetwork)
    assert isinstance(x, Tensor)
    drive = projected(layer.network, list(coefficients), len(x))
    inputs = (x, drive, *[value for value in layer.network if isinstance(value, Tensor)])
    keep = STEPS if wanted is None else NOTHING
    if wanted is None:
        wanted = line.start.new_empty(0, len(x))
    elif torch.is_grad_enabled() and any(map(moves, inputs)):
        keep = STEPS_AND_STATES
    network = layer.network
    assert isinstance(step.solver, EmbeddedRungeKutta)
    plan = Plan(
        Timeline(*map(_numbers, line)), _numbers(wanted), step.solver, steps, jumps,
        network.pre, network.post, keep, torch.get_num_threads(), progress,
    )  # fmt: skip
    return adaptive(network, plan, x, drive)


def _layer(step: Step, x: State, coefficients: tuple[Tensor, ...]) -> Layer | None:
    """The network of a step of which the kernel makes steps; None if there is none."""
    if library() is None or not covers(step.solver):
        return None
    found = layers_of(step.model, step.solver, x)
    if found is None or len(found) > 1 or not isinstance(found[0].network, RateNetwork):
        return None
    tensors = [value for value in found[0].network if isinstance(value, Tensor)]
    return None if any(map(forward_mode, [*tree.leaves(x), *tensors, *coefficients])) else found[0]


def _numbers(column: Tensor) -> Tensor:
    """A column of times without what torch.func wraps it in: nothing is differentiated there."""
    return debug_unwrap(column.contiguous())
