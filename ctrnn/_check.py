"""What can be wrong with the arguments of a run. Each message names the problem, the culprit and the fix."""

import math
import warnings
from numbers import Real
from typing import Any

import torch
from torch import Generator, Tensor
from torch.func import debug_unwrap

from ctrnn import _tree as tree
from ctrnn._model_files import class_name
from ctrnn._stretches import number
from ctrnn._types import State
from ctrnn.drive import Drive, Function, Sampled
from ctrnn.dynamics import Model, Relaxation
from ctrnn.solvers.base import EmbeddedSolver, Solver
from ctrnn.solvers.relaxation import Euler
from ctrnn.steps import Adaptive, At, Every, Fixed, Grid, Last, check_duration

SHARED = 2**15  # numbers of which torch wakes other threads to add them up, longer than to add a few times as many


def finite(x: Tensor) -> bool:
    """Whether all of x is finite; True inside vmap and on the meta device, where a Tensor has no single answer."""
    x = x.detach()
    few = SHARED <= x.numel() < 16 * SHARED and x.is_contiguous()
    try:
        # The sum is finite only if all of x is, and reading it costs a fraction; finite numbers may add up to infinity.
        sums = [part.sum() for part in x.flatten().split(SHARED - 1)] if few else [x.sum()]
        return all(map(math.isfinite, sums)) or bool(torch.isfinite(x).all())
    except RuntimeError:
        return True


def readable(x: Tensor) -> bool:
    """Whether x has a single value that can be read: not inside vmap."""
    return debug_unwrap(x).shape == x.shape


def options(model: Any, dt: Any, t_span: Any, save: Any, generator: Any, progress: Any, on_failure: Any) -> None:
    """Arguments that can be judged alone."""
    if not isinstance(model, Model):
        raise TypeError(
            f"integrate needs a ctrnn.Model, got {type(model).__name__}: "
            "wrap a torch cell with ctrnn.wrap(cell, tau=...), or derive a class from ctrnn.Model."
        )
    if dt is not None:
        check_duration("dt", dt)
    if t_span is not None:
        _span(t_span)
    if save is not None and not isinstance(save, (Every, Last, At)):
        raise TypeError(f"save must be Every(k), Last() or At(ts), got {save!r}: wrap times as ctrnn.At(ts).")
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(
            f"generator must be a torch.Generator, got {generator!r}: use torch.Generator().manual_seed(seed)."
        )
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be a function of the fraction done, got {progress!r}.")
    if on_failure not in ("raise", "return"):
        raise ValueError(f'on_failure must be "raise" or "return", got {on_failure!r}.')


def _span(t_span: Any) -> None:
    if not isinstance(t_span, (tuple, list)) or len(t_span) != 2:
        raise TypeError(f"t_span must be (start, end), got {t_span!r}.")
    for end in t_span:
        single = isinstance(end, Tensor) and end.ndim == 0 and end.dtype != torch.bool
        if not single and (isinstance(end, bool) or not isinstance(end, Real)):
            raise TypeError(f"t_span must hold two numbers or 0-d Tensors, got {end!r}.")
    start, end = map(number, t_span)
    if not -math.inf < start < end < math.inf:
        raise ValueError(f"t_span must be (start, end) with start < end, both finite, got ({start:g}, {end:g}).")


def arguments(drive: Drive, t_span: Any, solver: Any, steps: Any, adjoint: Any, save: Any, noise: Any) -> None:
    """Arguments that must suit one another."""
    if not isinstance(drive, Sampled) and t_span is None:
        raise ValueError(f"{type(drive).__name__} does not say how long the run is: pass t_span=(start, end).")
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be a value such as ctrnn.Euler() or ctrnn.Tsit5(), got {solver!r}.")
    if not isinstance(steps, (Fixed, Adaptive)):
        raise TypeError(f"steps must be Fixed(dt) or Adaptive(rtol, atol), got {steps!r}.")
    if not hasattr(adjoint, "run") or isinstance(adjoint, type):
        raise TypeError(f"adjoint must be a value such as ctrnn.Backprop() or ctrnn.Recompute(), got {adjoint!r}.")
    if isinstance(steps, Adaptive):
        _adaptive(solver, save, noise)


def clock(model: Model, solver: Solver, whole_run: bool) -> None:
    """Clocked parts move at the ends of our own steps; `whole_run` is an adjoint that leaves them to torchdiffeq."""
    if isinstance(model, Relaxation) and model.clock is not None and (solver.own_steps or whole_run):
        raise ValueError(
            f"{class_name(model)} has clocked parts, which move between the steps of this package: take a solver such "
            "as Tsit5() or Euler() and adjoint=Backprop() or Recompute(), or build it relaxed."
        )


def _adaptive(solver: Solver, save: Any, noise: Any) -> None:
    if not isinstance(solver, EmbeddedSolver) and not solver.own_steps:
        raise ValueError(
            f"Adaptive steps need an error estimate, {solver} has none: "
            "use Tsit5(), Dopri5(), Bosh3() or Rodas4(), or steps=Fixed(dt)."
        )
    if isinstance(save, Every):
        raise ValueError("Every(k) counts steps, which are each sample's own in an adaptive run: use At(ts) or Last().")
    if noise is not None:
        raise ValueError(
            "noise needs fixed steps, an adaptive run would reject what the noise does: pass dt or steps=Fixed(dt)."
        )


def sigma(model: Model, solver: Solver, noise: Any, x0: State) -> None:
    """The standard deviations of the noise."""
    if not isinstance(model, Relaxation):
        raise ValueError(
            f"noise needs a Relaxation, whose tau sets its scale; {class_name(model)} is a bare vector field."
        )
    solver.diffusion(solver.prepare(model, 1.0))
    parts, given = [name for name, _ in tree.named(x0)], [name for name, _ in tree.named(tree.spread(noise, x0))]
    if parts != given:
        raise TypeError(f"noise must be one number, or one for each of the parts {parts} of the state, got {given}.")
    for (name, s), leaf in zip(tree.named(tree.spread(noise, x0)), tree.leaves(x0), strict=True):
        who = f"noise{'.' if name else ''}{name}"
        if isinstance(s, bool) or not isinstance(s, (Real, Tensor)):
            raise TypeError(f"{who} is a standard deviation and must be a number or a Tensor, got {s!r}.")
        s = torch.as_tensor(s)
        if not finite(s) or not bool((s >= 0).all()):
            raise ValueError(f"{who} is a standard deviation and must be finite and not negative, got {s.tolist()}.")
        if s.ndim > leaf.ndim or any(a not in (1, b) for a, b in zip(s.shape[::-1], leaf.shape[::-1], strict=False)):
            raise ValueError(
                f"{who} has the shape {tuple(s.shape)}, which does not broadcast against the state's "
                f"{tuple(leaf.shape)}: give one number, or one per unit."
            )


def values(model: Model, drive: Drive, x0: State, steps: Fixed | Adaptive) -> None:
    """Shapes, dtypes, devices and finiteness of what goes in."""
    given: dict[str, Tensor] = {}
    if isinstance(drive, Sampled):
        _inputs(model, drive)
        given["the drive"] = drive.us
    named = tensors(model, x0, given)
    if not isinstance(steps, Adaptive):
        return
    for name, tensor in named.items():
        if not readable(tensor):
            raise ValueError(
                f"{name} is mapped by vmap, where no step can be accepted or rejected: "
                "give the batch as leading axes, which step on their own, or take steps=Fixed(dt)."
            )
    dtype = tree.leaves(x0)[0].dtype
    if max(steps.rtol, steps.atol) < 0.5 * torch.finfo(dtype).eps:
        warnings.warn(
            f"rtol = {steps.rtol:g} and atol = {steps.atol:g} ask for more than {dtype} resolves "
            f"({torch.finfo(dtype).eps:.1g}): loosen them, or use model.double().",
            stacklevel=3,
        )


def tensors(model: Model, x0: State, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Dtypes and devices of the state, the inputs by name and the model; finiteness of all but the inputs.

    Returns them all by name, without the buffers.
    """
    first, named = tree.leaves(x0)[0], _states(x0) | inputs | _parameters(model)
    for name, tensor in named.items():
        if not tensor.is_floating_point():
            raise TypeError(
                f"{name} has dtype {tensor.dtype}; states and weights are floating-point: "
                "convert it with .float() or .double()."
            )
        if tensor.dtype != first.dtype:
            raise TypeError(
                f"{name} has dtype {tensor.dtype} but the state has {first.dtype}: "
                "convert one of them (model.double(), us.float(), ...)."
            )
        _device(name, tensor, first)
        if name not in inputs and not finite(tensor):
            raise ValueError(f"{name} holds NaN or infinite values, {where(~torch.isfinite(tensor))}: mend them.")
    for name, buffer in model.named_buffers():
        _device(f"buffer {name!r}", buffer, first)
        if not finite(buffer) and bool(torch.isnan(buffer).any()):
            raise ValueError(f"buffer {name!r} holds NaN, {where(torch.isnan(buffer))}: mend it.")
    return named


def _states(x0: State) -> dict[str, Tensor]:
    return {f"x0{'.' if name else ''}{name}": leaf for name, leaf in tree.named(x0)}


def _parameters(model: Model) -> dict[str, Tensor]:
    return {f"parameter {name!r}": p for name, p in model.named_parameters()}


def _device(name: str, tensor: Tensor, first: Tensor) -> None:
    if tensor.device != first.device:
        raise ValueError(
            f"{name} is on {tensor.device} but the state is on {first.device}: move one of them with .to(device)."
        )


def _inputs(model: Model, drive: Sampled) -> None:
    shape, n_in = tuple(drive.us.shape), drive.us.shape[-1]
    if model.n_in is not None and n_in != model.n_in:
        raise ValueError(
            f"The drive has {n_in} inputs (last axis of us, shape {shape}), {class_name(model)} has "
            f"n_in={model.n_in}: give us as (time, *batch, {model.n_in})."
        )
    us = drive.us.detach()
    if finite(us):
        return
    wrong = ~torch.isfinite(us).all(-1)
    if drive.used is not None:  # padding is never read
        wrong = wrong & drive.used
    if bool(wrong.any()):
        raise ValueError(
            f"The drive holds NaN or infinite values, {where(wrong, '(time, *batch) = ')}: mask or fill them."
        )


def function(model: Model, drive: Drive, t_span: Any, batch: torch.Size, steps: Fixed | Adaptive) -> None:
    """What a drive's function returns at the start, asked as the run will ask it."""
    if not isinstance(drive, Function):
        return
    t = torch.as_tensor(t_span[0], dtype=torch.float64).detach()
    u = drive.fn(t.expand(*batch, 1) if isinstance(steps, Adaptive) else t)
    if not isinstance(u, Tensor):
        raise TypeError(f"The drive's function must return a Tensor (*batch, n_in), got {type(u).__name__}.")
    n_in = u.shape[-1] if u.ndim and model.n_in is None else model.n_in
    if u.shape[-1:] != (n_in,) or u.shape[:-1] not in ((), batch):
        raise ValueError(
            f"The drive's function returned the shape {tuple(u.shape)} for one time, {class_name(model)} needs "
            f"{(n_in,)} or {(*batch, n_in)}."
        )


def where(wrong: Tensor, what: str = "index ") -> str:
    """The first place at which something is wrong, for a message."""
    return f"first at {what}{tuple(wrong.nonzero()[0].tolist())}"


def state(model: Model, x0: Any) -> list[int]:
    """Compare x0 with the model's own initial state; returns how many axes behind the batch each leaf has."""
    if not all(isinstance(leaf, Tensor) for leaf in tree.leaves(x0)):
        kinds = sorted({type(leaf).__name__ for leaf in tree.leaves(x0) if not isinstance(leaf, Tensor)})
        raise TypeError(
            f"x0 must be a Tensor or a NamedTuple of Tensors, got {', '.join(kinds)}: convert it with torch.as_tensor."
        )
    try:
        like = model.initial_state()
    except NotImplementedError:
        return [1 for _ in tree.leaves(x0)]
    expected, given = dict(tree.named(like)), dict(tree.named(x0))
    if expected.keys() != given.keys():
        raise TypeError(
            f"x0 of {class_name(model)} must be a {_kind(like)}, got a {_kind(x0)}: start from model.initial_state()."
        )
    batches = set()
    for name, leaf in given.items():
        event = expected[name].shape
        if leaf.ndim < len(event) or leaf.shape[leaf.ndim - len(event) :] != event:
            shape = ", ".join(["*batch", *map(str, event)])
            raise ValueError(
                f"x0{'.' if name else ''}{name} must have the shape ({shape}), got {tuple(leaf.shape)}: "
                "the last axes are the units'."
            )
        batches.add(tuple(leaf.shape[: leaf.ndim - len(event)]))
    if len(batches) > 1:
        raise ValueError(
            f"The parts of x0 have different batch shapes {sorted(batches)}: give all parts the same leading axes."
        )
    return [leaf.ndim for leaf in tree.leaves(like)]


def start(model: Model, driven: torch.Size, x0: Any, who: str = "the drive") -> tuple[State, torch.Size]:
    """The initial state with the batch axes of the run, and these axes; `who` has the batch shape `driven`."""
    if 0 in driven:
        raise ValueError(f"The batch is empty: {who} has the batch shape {tuple(driven)}; give at least one sample.")
    if x0 is None:
        return model.initial_state(*driven), driven
    axes = state(model, x0)
    given = tree.leaves(x0)[0].shape
    batch = given[: len(given) - axes[0]]
    if 0 in batch:
        raise ValueError(f"The batch is empty: x0 has the batch shape {tuple(batch)}; give at least one sample.")
    if driven and batch and driven != batch:
        raise ValueError(
            f"{who[0].upper()}{who[1:]} has the batch shape {tuple(driven)}, x0 has {tuple(batch)}: give both the same."
        )
    if driven and not batch:
        return tree.map(lambda leaf: leaf.expand(*driven, *leaf.shape), x0), driven
    return x0, batch


def _kind(x: State) -> str:
    parts = [name for name, _ in tree.named(x) if name]
    return type(x).__name__ + (f" with the parts {', '.join(parts)}" if parts else "")


def euler(model: Model, solver: Solver, grid: Grid) -> None:
    """Steps of Euler that are longer than a tau."""
    if isinstance(solver, Euler) and isinstance(model, Relaxation):
        longest = max(map(number, grid.lengths()[0]), default=0.0)
        within_tau(model, longest, "Take dt <= tau, or solver=ExponentialEuler().")


def within_tau(model: Relaxation, dt: float, fix: str) -> None:
    """A fixed tau below the step makes Euler overshoot its target."""
    for name, tau in tree.named(model.tau):
        try:
            smallest = float(tau.detach().min())
        except RuntimeError:  # inside vmap there is no one number
            continue
        if dt > smallest * (1 + 1e-6):
            part = f" of part {name!r}" if name else ""
            raise ValueError(
                f"Euler overshoots: dt = {dt:g} is longer than the smallest tau = {smallest:g}{part}. {fix}"
            )
