"""Adaptive runs of lowered networks, handed to a compiled kernel whole; what this does not cover stays plain."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import debug_unwrap

from ctrnn._compiled import inputs, projected
from ctrnn._derivative import forward_mode, moves
from ctrnn._kernels import network_of
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
    network = _network(step, x)
    if network is None:
        return None
    assert isinstance(x, Tensor)
    assert isinstance(step.solver, EmbeddedRungeKutta)
    silent = not coefficients and not torch.is_grad_enabled()  # otherwise W_in has a gradient, though it is zero
    drive = _bias(network) if silent else projected(network, inputs(network, _used(coefficients, line), len(x)))
    moving = (x, drive, *[value for value in network if isinstance(value, Tensor)])
    keep = STEPS if wanted is None else NOTHING
    if wanted is None:
        wanted = line.start.new_empty(0, len(x))
    elif torch.is_grad_enabled() and any(map(moves, moving)):
        keep = STEPS_AND_STATES
    plan = Plan(
        Timeline(*map(_numbers, line)), _numbers(wanted), step.solver, steps, jumps,
        network.pre, network.post, keep, torch.get_num_threads(), progress,
    )  # fmt: skip
    return adaptive(network, plan, x, drive)


def _network(step: Step, x: State) -> RateNetwork | None:
    """The network of a step of which the kernel makes steps; None if there is none."""
    network = network_of(step.model, x) if library() is not None and covers(step.solver) else None
    if not isinstance(network, RateNetwork):
        return None
    return None if forward_mode() else network


def _used(coefficients: tuple[Tensor, ...], line: Timeline) -> list[Tensor]:
    """A drive (interval, row, input) with zeros behind each row's end.

    There may be anything: nothing of it must come near the weights, not even times 0.
    """
    rows, stretches = line.count, len(line.drive)
    if not coefficients or not stretches or not bool((rows < stretches).any()):
        return list(coefficients)
    # A row that takes no step uses nothing; the others all up to their last stretch's interval.
    last = torch.where(rows > 0, line.drive[(rows - 1).clamp(min=0)], -1)
    used = (torch.arange(len(coefficients[0]))[:, None] <= last)[..., None]
    return [torch.where(used, coefficient, 0.0) for coefficient in coefficients]


def _bias(network: RateNetwork) -> Tensor:
    """The drive of a network without input (power, interval, row, unit)."""
    b = network.W_rec.new_zeros(len(network.W_rec)) if network.b is None else network.b
    return b.expand(1, 1, 1, -1)


def _numbers(column: Tensor) -> Tensor:
    """A column of times without what torch.func wraps it in: nothing is differentiated there."""
    return debug_unwrap(column.contiguous())
