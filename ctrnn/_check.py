"""What can be wrong with the arguments of a run. Each message names the problem, the culprit and the fix."""

from typing import Any

import torch
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.drive import Drive, Sampled
from ctrnn.dynamics import Model, Relaxation
from ctrnn.solvers.base import EmbeddedSolver, Solver
from ctrnn.solvers.relaxation import Euler
from ctrnn.steps import Adaptive, Fixed, Grid


def finite(x: Tensor) -> bool:
    """Whether all of x is finite; True inside vmap, where a Tensor has no single answer."""
    try:
        return bool(torch.isfinite(x.detach()).all())
    except RuntimeError:
        return True


def arguments(model: Model, drive: Drive, solver: Solver, steps: Fixed | Adaptive, adjoint: Any, noise: Any) -> None:
    """The kinds of the arguments."""
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be a value such as ctrnn.Euler() or ctrnn.Tsit5(), got {solver!r}.")
    if not isinstance(steps, (Fixed, Adaptive)):
        raise TypeError(f"steps must be Fixed(dt) or Adaptive(rtol, atol), got {steps!r}.")
    if not hasattr(adjoint, "run"):
        raise TypeError(f"adjoint must be a value such as ctrnn.Backprop() or ctrnn.Recompute(), got {adjoint!r}.")
    if isinstance(steps, Adaptive) and not isinstance(solver, EmbeddedSolver) and not solver.own_steps:
        raise ValueError(
            f"Adaptive steps need an error estimate, {solver} has none: use Tsit5(), Dopri5(), Bosh3() or Rodas4(), or steps=Fixed(dt)."
        )
    if noise is not None and isinstance(steps, Adaptive):
        raise ValueError(
            "noise needs fixed steps, an adaptive run would reject what the noise does: pass dt or steps=Fixed(dt)."
        )
    if noise is not None:
        solver.diffusion(solver.prepare(model, 1.0))
        if not all(finite(torch.as_tensor(s)) and bool((torch.as_tensor(s) >= 0).all()) for s in tree.leaves(noise)):
            raise ValueError(f"noise is a standard deviation and must be finite and not negative, got {noise}.")


def values(model: Model, drive: Drive, x0: State) -> None:
    """Shapes, dtypes, devices and finiteness of what goes in."""
    leaves = dict(tree.named(x0))
    first = tree.leaves(x0)[0]
    tensors = {f"x0{'.' if name else ''}{name}": leaf for name, leaf in leaves.items()}
    if isinstance(drive, Sampled):
        tensors["the drive"] = drive.us
        _inputs(model, drive)
    tensors |= {f"parameter {name!r}": p for name, p in model.named_parameters()}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TypeError(
                f"{name} has dtype {tensor.dtype}; states and weights are floating-point: convert it with .float() or .double()."
            )
        if tensor.dtype != first.dtype:
            raise TypeError(
                f"{name} has dtype {tensor.dtype} but the state has {first.dtype}: convert one of them (model.double(), us.float(), ...)."
            )
        if tensor.device != first.device:
            raise ValueError(
                f"{name} is on {tensor.device} but the state is on {first.device}: move one of them with .to(device)."
            )
        if name != "the drive" and not finite(tensor):
            raise ValueError(f"{name} holds NaN or infinite values: {_where(tensor)}.")


def _inputs(model: Model, drive: Sampled) -> None:
    n_in = drive.us.shape[-1]
    if model.n_in is not None and n_in != model.n_in:
        raise ValueError(
            f"The drive has {n_in} inputs (last axis of us, shape {tuple(drive.us.shape)}), {type(model).__name__} has n_in={model.n_in}: give us as (time, *batch, {model.n_in})."
        )
    if 0 in drive.us.shape[1:-1]:
        raise ValueError(f"The batch is empty: the drive has shape {tuple(drive.us.shape)}.")
    us = drive.us.detach()
    if finite(us):
        return
    wrong = ~torch.isfinite(us).all(-1)
    if drive.lengths is not None:  # padding is never read
        used = (
            torch.arange(us.shape[0], device=us.device).reshape(-1, *[1] * drive.lengths.ndim)
            < drive.lengths + us.shape[0] - drive.count
        )
        wrong = wrong & used
    if bool(wrong.any()):
        raise ValueError(
            f"The drive holds NaN or infinite values: first at (time, *batch) = {tuple(wrong.nonzero()[0].tolist())}. Mask or fill them before the run."
        )


def _where(tensor: Tensor) -> str:
    return f"first at index {tuple((~torch.isfinite(tensor.detach())).nonzero()[0].tolist())}"


def events(model: Model, x0: State) -> list[int]:
    """How many axes behind the batch each leaf of the state has."""
    try:
        return [leaf.ndim for leaf in tree.leaves(model.initial_state())]
    except NotImplementedError:
        return [1 for _ in tree.leaves(x0)]


def state(model: Model, x0: Any) -> list[int]:
    """Compare x0 with the model's own initial state; returns `events`."""
    if not all(isinstance(leaf, Tensor) for leaf in tree.leaves(x0)):
        raise TypeError(f"x0 must be a Tensor or a NamedTuple of Tensors, got {type(x0).__name__}.")
    count = events(model, x0)
    try:
        like = model.initial_state()
    except NotImplementedError:
        return count
    expected, given = dict(tree.named(like)), dict(tree.named(x0))
    if expected.keys() != given.keys():
        raise TypeError(
            f"x0 of {type(model).__name__} must be a {type(like).__name__} with the parts {list(expected)}, got {type(x0).__name__} with {list(given)}."
        )
    batches = set()
    for name, leaf in given.items():
        event = expected[name].shape
        if leaf.shape[leaf.ndim - len(event) :] != event or leaf.ndim < len(event):
            raise ValueError(
                f"x0{'.' if name else ''}{name} must have the shape (*batch, {', '.join(map(str, event))}), got {tuple(leaf.shape)}."
            )
        batches.add(leaf.shape[: leaf.ndim - len(event)])
    if len(batches) > 1:
        raise ValueError(f"The parts of x0 have different batch shapes: {sorted(map(tuple, batches))}.")
    return count


def euler(model: Model, solver: Solver, grid: Grid) -> None:
    """A fixed tau below the step makes Euler overshoot its target."""
    if not isinstance(solver, Euler) or not isinstance(model, Relaxation):
        return
    dt = max(((float(v.detach().max()) if isinstance(v, Tensor) else v) for v in grid.dt), default=0.0)
    for name, tau in tree.named(model.tau):
        if not finite_or_traced(tau):
            continue
        smallest = float(tau.detach().min())
        if dt > smallest * (1 + 1e-6):
            part = f" of part {name!r}" if name else ""
            raise ValueError(
                f"Euler overshoots: dt = {dt:g} is longer than the smallest tau = {smallest:g}{part}. Take dt <= tau, or solver=ExponentialEuler()."
            )


def finite_or_traced(x: Tensor) -> bool:
    """Whether x has values that can be read: not inside vmap."""
    try:
        return bool(torch.isfinite(x.detach()).all())
    except RuntimeError:
        return False
