"""What is analysed: the flow of a Model, the map of a Step or a callable map, on ravelled states in float64."""

import copy
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ctrnn import _tree as tree
from ctrnn._model_files import class_name
from ctrnn._types import State
from ctrnn.drive import Function
from ctrnn.dynamics import Model, Relaxation
from ctrnn.solvers import Step

Dynamics = Model | Step | Callable[..., Any]
Kind = Literal["flow", "map"]

LEAD = {None: ["*batch"], 0: [], 1: ["start"]}  # what the leading axes are called in a message


class Local(NamedTuple):
    """A system on ravelled states: `move(x, u)` (*batch, D) is dx/dt of a flow or the next state of a map."""

    move: Callable[[Tensor, Tensor | None], Tensor]
    is_map: bool


def local(system: Dynamics, like: State, batch_ndim: int, call: Callable[..., State] | None = None) -> Local:
    """The flow of a Model, the map of a Step, or a callable (x[, u]) -> next state, on ravelled states.

    `call` is called in place of a Model or Step.

    Raises:
        TypeError: the system is none of these.
        ValueError: it has clocked parts of which it shows none or not all movements.
    """
    call = system if call is None else call

    def ravelled(fn: Callable[[State, Any], State]) -> Callable[[Tensor, Tensor | None], Tensor]:
        def move(x: Tensor, u: Tensor | None) -> Tensor:
            return tree.ravel(fn(tree.unravel(x, like, batch_ndim), _input(system, x, u)), x.ndim - 1)

        return move

    if isinstance(system, Step):
        dt = _step_length(system)
        return Local(ravelled(lambda x, u: call(_zero(x), dt, x, u)), True)
    if isinstance(system, Model):
        if _periods(system):
            raise ValueError(
                f"the flow of this {class_name(system)} is only what happens between the ticks of its clocked parts: "
                "pass the map that it is, Step(model, solver, dt=...) with the clock's period, or build it relaxed."
            )
        return Local(ravelled(lambda x, u: call(_zero(x), x, u)), False)
    check_map(system)
    return Local(_differentiable(ravelled(lambda x, u: mapped(system, x, u))), True)


def check_map(system: Callable[..., Any]) -> None:
    """Raise TypeError unless a system that is neither Model nor Step can be a map (x[, u]) -> x."""
    if isinstance(system, nn.RNNCellBase | nn.RNNBase):
        raise TypeError(
            f"a torch.nn.{class_name(system)} takes (input, state): its state would be taken for the input. Pass "
            "Step(Model.from_torch(module), Iterate(), dt=1.0)."
        )
    if not callable(system) or isinstance(system, type):
        given = f"the class {system.__name__}" if isinstance(system, type) else type(system).__name__
        raise TypeError(f"analysis needs a Model, a Step or a callable map, got {given}.")


def mapped(system: Callable[..., Any], x: State, *more: Any) -> State:
    """The next state of a callable map, which is called without what is None.

    Raises:
        TypeError, ValueError: it returns something else than a state of the shape of x.
    """
    new: State = system(x, *[argument for argument in more if argument is not None])
    tree.same_form(x, new, "next state")
    return new


def _differentiable(move: Callable[[Tensor, Tensor | None], Tensor]) -> Callable[[Tensor, Tensor | None], Tensor]:
    """A callable that leaves torch for numpy, or detaches, would seem not to depend on its argument."""

    def checked(x: Tensor, u: Tensor | None) -> Tensor:
        new = move(x, u)
        if torch.is_grad_enabled() and x.requires_grad and not new.requires_grad:
            raise ValueError(
                "the map's result does not depend on x by operations of torch: compute it without numpy, detach or "
                "no_grad, so that it can be differentiated."
            )
        return new

    return checked


def linearised(move: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """move(x) (row, D) and its derivative (row, D, k) at each row of x (row, k), from one evaluation.

    Rows do not see one another. This is plain autograd: the first use of torch.func imports Dynamo, which takes longer
    than a search, and torch 2.13 differentiates linear solves wrongly inside two of its vmaps.
    """
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if graph and x.requires_grad else x.detach().requires_grad_()
        value = move(x)
        size = value.shape[-1]
        if not value.requires_grad:  # a constant
            return value, x.new_zeros(*value.shape, x.shape[-1])
        basis = torch.eye(size, dtype=value.dtype, device=value.device)[:, None].expand(size, *value.shape)
        (J,) = torch.autograd.grad(
            value, x, basis, create_graph=graph, is_grads_batched=True, allow_unused=True, materialize_grads=True
        )
    return value if graph else value.detach(), J.movedim(0, -2)


def _step_length(step: Step) -> float:
    """The dt of a Step that is one and the same map at all times."""
    if step.dt is None:
        raise ValueError("A Step that is analysed as a map needs its dt: Step(model, solver, dt=...).")
    periods = set() if step.solver.whole else _periods(step.model)
    if any(abs(period - step.dt) > 1e-6 * period for period in periods):
        every = ", ".join(f"{period:g}" for period in sorted(periods))
        raise ValueError(
            f"clocked parts of this {class_name(step.model)} tick every {every}, "
            f"so that not all steps of dt = {step.dt:g} are the same map: take the period as dt."
        )
    return step.dt


def _periods(model: Model) -> set[float]:
    """Of the clocked parts."""
    clock: Any = model.clock if isinstance(model, Relaxation) else None
    periods: list[Any] = tree.leaves(clock)
    return {period for period in periods if period is not None}


def _zero(x: State) -> Tensor:
    return torch.zeros((), dtype=torch.float64, device=tree.leaves(x)[0].device)


def _input(system: Dynamics, x: Tensor, u: Tensor | None) -> Tensor | None:
    """The drive of each row of x, since a network may lay it beside other inputs; silence for a model without one."""
    model = model_of(system)
    if model is None:
        return u
    u = x.new_zeros(model.n_in or 0) if u is None else u.to(x)
    return u.expand(*x.shape[:-1], u.shape[-1])


def in_float64(system: Dynamics) -> Dynamics:
    """A copy in float64, so that the user's network stays as it is; a bare callable is taken as it comes."""
    return copy.deepcopy(system).double() if isinstance(system, nn.Module) else system


def model_of(system: Dynamics) -> Model | None:
    """The model that is analysed; None for a bare callable."""
    inner = system.model if isinstance(system, Step) else system
    return inner if isinstance(inner, Model) else None


def check_tensors(x: State) -> None:
    """Raise TypeError unless states are made of floating-point Tensors."""
    leaves: list[Any] = tree.leaves(x)
    for leaf in leaves:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            kind = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
            raise TypeError(
                f"states are floating-point Tensors, got {kind}: convert it with torch.as_tensor(x).double()."
            )


def batch_shape(system: Dynamics, x: State, axes: int | None = None) -> torch.Size:
    """The leading axes of x: those before what the model's initial state has, or, if it has none, before the last.

    Args:
        system: what the states belong to.
        x: states.
        axes: how many leading axes there must be; None is any number.

    Raises:
        TypeError: x is not made of floating-point Tensors.
        ValueError: x has other parts or shapes than the model's states, or its parts have different leading axes.
    """
    check_tensors(x)
    like, parts = own_state(system), dict(tree.named(x))
    if like is None:
        count = max(tree.leaves(x)[0].ndim - 1, 0) if axes is None else axes
        events = {name: leaf.shape[count:] or ("D",) for name, leaf in parts.items()}
    else:
        events = {name: leaf.shape for name, leaf in tree.named(like)}
    if events.keys() == parts.keys():
        leads = {leaf.shape[: leaf.ndim - len(events[name])] for name, leaf in parts.items()}
        lead = next(iter(leads))
        whole = all((*lead, *event) == parts[name].shape for name, event in events.items())
        if whole and len(leads) == 1 and axes in (None, len(lead)):
            return lead
    given = {name: tuple(leaf.shape) for name, leaf in parts.items()}
    wanted = {name: (*LEAD[axes], *event) for name, event in events.items()}
    given_form, wanted_form = _form(x, given), _form(x if like is None else like, wanted)
    model = model_of(system)
    if like is None or model is None:
        raise ValueError(f"states must have the form {wanted_form}, got {given_form}.")
    raise ValueError(
        f"states of this {class_name(model)} must have the form {wanted_form} of its initial_state(), got {given_form}."
    )


def own_state(system: Dynamics) -> State | None:
    """The model's initial state; None for a bare callable, which does not say, and a model without one."""
    model = model_of(system)
    try:
        return None if model is None else model.initial_state()
    except NotImplementedError:
        return None


def _form(x: State, shapes: dict[str, tuple[Any, ...]]) -> str:
    """As LSTMState(h (*batch, 3), c (*batch, 3))."""
    parts = [
        f"{name} ({', '.join(map(str, shape))}{',' * (len(shape) == 1)})".strip() for name, shape in shapes.items()
    ]
    return parts[0] if isinstance(x, Tensor) else f"{type(x).__name__}({', '.join(parts)})"


def check_drive(system: Dynamics, u: Tensor | None, batch: torch.Size) -> None:
    """Raise unless u, if there is one, is (n_in,) as the network's inputs are, or such for every state.

    Raises:
        TypeError: u is no Tensor.
        ValueError: it has another shape.
    """
    if u is None:
        return
    if not isinstance(u, Tensor):
        raise TypeError(f"u must be a Tensor (n_in,), got {type(u).__name__}: convert it with torch.as_tensor.")
    model, shape = model_of(system), tuple(u.shape)
    if model is not None and model.n_in is not None and shape[-1:] != (model.n_in or 0,):
        raise ValueError(f"u must hold the network's {model.n_in} inputs, got the shape {shape}.")
    lead = (1,) * (len(batch) - len(shape) + 1) + shape[:-1]
    if not shape or len(lead) != len(batch) or any(a not in (1, b) for a, b in zip(lead, batch, strict=True)):
        each = f" or one for each of the states ({', '.join(map(str, batch))}, n_in)" if batch else ""
        raise ValueError(f"u must be one drive (n_in,){each}, got the shape {shape}.")


def constant(u: Tensor | None) -> Function | None:
    """The drive that is u, in float64, at all times, also where each sample has its own."""
    if u is None:
        return None
    held = u.detach().double()
    return Function(lambda t: held.expand(*t.shape[:-1], -1) if t.ndim else held)


def scipy_field(model: Model, like: State, u: Tensor | None) -> Callable[[float, Any], Any]:
    """The flow under a constant drive on ravelled states in float64, as scipy's integrators call it."""
    batched = tree.map(lambda leaf: leaf[None], like)
    move = local(in_float64(model), batched, 1).move
    at: Any = tree.leaves(batched)[0]
    drive = None if u is None else u.detach().to(at)[None]

    def field(t: float, z: Any) -> Any:
        del t
        with torch.no_grad():
            return move(torch.from_numpy(z)[None].to(at), drive)[0].cpu().numpy()

    return field
