"""Local linear dynamics: the Jacobian of a flow or of a map."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ctrnn import _tree as tree
from ctrnn._model_files import class_name
from ctrnn._types import State
from ctrnn.dynamics import Model
from ctrnn.solvers import Step

Dynamics = Model | Step | Callable[..., Any]


class Local(NamedTuple):
    """A system on ravelled states: `move(x, u)` (*batch, D) is dx/dt of a flow or the next state of a map."""

    move: Callable[[Tensor, Tensor | None], Tensor]
    is_map: bool


def local(system: Dynamics, like: State, batch_ndim: int) -> Local:
    """The flow of a Model, the map of a Step, or a callable (x[, u]) -> next state, on ravelled states."""

    def ravelled(fn: Callable[[State, Any], State]) -> Callable[[Tensor, Tensor | None], Tensor]:
        events = tree.map(lambda leaf: leaf[(0,) * batch_ndim], like)

        def move(x: Tensor, u: Tensor | None) -> Tensor:
            return tree.ravel(fn(tree.unravel(x, events, 0), u), x.ndim - 1)

        return move

    if isinstance(system, Step):
        if system.dt is None:
            raise ValueError("A Step that is analysed as a map needs its dt: Step(model, solver, dt=...).")
        return Local(ravelled(lambda x, u: system(_zero(x), system.dt, x, _input(system.model, x, u))), True)
    if isinstance(system, Model):
        return Local(ravelled(lambda x, u: system(_zero(x), x, _input(system, x, u))), False)
    if not callable(system):
        raise TypeError(f"analysis needs a Model, a Step or a callable map, got {type(system).__name__}.")
    return Local(ravelled(lambda x, u: system(x) if u is None else system(x, u)), True)


def check_shapes(system: Dynamics, x: State, u: Tensor | None) -> None:
    """Raise unless x (row, ...) and u (n_in,) are as wide as the network; a bare callable does not say."""
    model = system.model if isinstance(system, Step) else system
    if not isinstance(model, Model):
        return
    if u is not None and u.shape[-1:] != (model.n_in or 0,) and model.n_in is not None:
        raise ValueError(f"u must hold the network's {model.n_in} inputs, got the shape {tuple(u.shape)}.")
    try:
        like = model.initial_state()
    except NotImplementedError:  # nor does a model without a start
        return
    wanted, given = (
        [tuple(leaf.shape) for leaf in tree.leaves(state)] for state in (like, tree.map(lambda a: a[0], x))
    )
    if wanted != given:
        raise ValueError(
            f"the states must have the shape (start, ...) with ... = {', '.join(map(str, wanted))} as "
            f"{class_name(model)}.initial_state() has, got {', '.join(map(str, given))}."
        )


def _zero(x: State) -> Tensor:
    return torch.zeros((), dtype=torch.float64, device=tree.leaves(x)[0].device)


def _input(model: Model, x: State, u: Tensor | None) -> Tensor:
    return tree.leaves(x)[0].new_zeros(model.n_in or 0) if u is None else u.to(tree.leaves(x)[0])


def in_float64(system: Dynamics) -> Dynamics:
    """A copy in float64, so that the user's network stays as it is; a bare callable is taken as it comes."""
    return copy.deepcopy(system).double() if isinstance(system, nn.Module) else system


def jacobian(system: Dynamics, x: State, u: Float[Tensor, "*batch input"] | None = None) -> Float[Tensor, "*batch D D"]:
    """d(dx/dt)/dx of a Model, or d(next state)/dx of a Step or a callable map, at x (*batch, ...), in the dtype of x.

    Args:
        system: a Model (flow), a Step with its dt, or a callable map.
        x: states; the parts of a NamedTuple are ravelled side by side into D.
        u: the drive, one for all states (n_in,) or one each (*batch, n_in); None is silence.
    """
    events = _events(system)
    batch = tree.leaves(x)[0].shape[: tree.leaves(x)[0].ndim - events]
    move = local(system, x, len(batch)).move
    flat = tree.ravel(x, len(batch))
    rows = flat.reshape(-1, flat.shape[-1])
    drives = None if u is None else u.expand(*batch, u.shape[-1]).reshape(len(rows), -1)
    return jacobian_rows(move, rows, drives).reshape(*batch, flat.shape[-1], flat.shape[-1])


def _events(system: Dynamics) -> int:
    """Axes behind the batch of the first part of x: what the model's own initial state has, or one."""
    model = system.model if isinstance(system, Step) else system
    try:
        return tree.leaves(model.initial_state())[0].ndim if isinstance(model, Model) else 1
    except NotImplementedError:
        return 1


def jacobian_rows(move: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, u: Tensor | None) -> Tensor:
    """The Jacobian at each row of x (row, D)."""
    if not len(x):
        return x.new_zeros(0, x.shape[-1], x.shape[-1])
    if u is None:
        return torch.func.vmap(torch.func.jacrev(lambda row: move(row, None)))(x)
    return torch.func.vmap(torch.func.jacrev(move, argnums=0))(x, u)
