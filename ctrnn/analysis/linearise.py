"""Local linear dynamics of a flow or of a map: Jacobians with respect to state, drive and parameters, and modes."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.func import functional_call

from ctrnn import _tree as tree
from ctrnn._model_files import class_name
from ctrnn._types import State
from ctrnn.analysis._system import (
    Dynamics,
    Kind,
    batch_shape,
    check_drive,
    in_float64,
    linearised,
    local,
    model_of,
    own_state,
)
from ctrnn.dynamics import Model
from ctrnn.solvers import Step

DEFECTIVE = 1e12  # condition number of the eigenvectors beyond which they do not span the space to rounding


def _matched(system: Dynamics, x: State) -> Dynamics:
    """The system, or a copy of it in float64 where x is and it is not: a point found in float64 is looked at there."""
    if not isinstance(system, nn.Module) or tree.leaves(x)[0].dtype != torch.float64:
        return system
    tensors = [*system.parameters(), *system.buffers()]
    narrow = any(a.is_floating_point() and a.dtype != torch.float64 for a in tensors)
    return in_float64(system) if narrow else system


def jacobian(system: Dynamics, x: State, u: Float[Tensor, "*batch input"] | None = None) -> Float[Tensor, "*batch D D"]:
    """d(dx/dt)/dx of a Model, or d(next state)/dx of a Step or a callable map, at x (*batch, ...).

    It is computed in the wider precision of network and x; a float32 network is looked at in float64 through a copy.

    Args:
        system: a Model (flow), a Step with its dt, or a callable map.
        x: states; the parts of a NamedTuple are ravelled side by side into D.
        u: the drive, one for all states (n_in,) or one each (*batch, n_in); None is silence.

    Raises:
        TypeError: states or drive are no floating-point Tensors.
        ValueError: they have another shape than the network's, or the flow of a clocked network is asked for.
    """
    at = _rows(system, x, u)
    _, J = linearised(lambda rows: at.move(rows, at.u), at.x)
    return J.reshape(*at.batch, *at.x.shape[-1:] * 2)


def input_jacobian(
    system: Dynamics, x: State, u: Float[Tensor, "*batch input"] | None = None
) -> Float[Tensor, "*batch D input"]:
    """d(dx/dt)/du of a Model, or d(next state)/du of a Step or a callable map (x, u) -> x; arguments as `jacobian`'s.

    Its columns are the effective input vectors; `modes(...).left @ input_jacobian(...)` says how much each mode takes
    up of each input.

    Raises:
        TypeError, ValueError: as for `jacobian`; or a bare callable is given without u, or the network has no input.
    """
    model = model_of(system)
    if u is None:
        if model is None or not model.n_in:
            raise ValueError(
                "input_jacobian needs the drive u (n_in,): the system does not say how many inputs it has."
            )
        batch_shape(system, x)
        u = tree.leaves(x)[0].new_zeros(model.n_in)
    at = _rows(system, x, u)
    _, found = linearised(lambda drives: at.move(at.x, drives), at.u)
    return found.reshape(*at.batch, at.x.shape[-1], u.shape[-1])


def parameter_jacobian(
    system: Model | Step, x: State, parameter: str, u: Float[Tensor, "*batch input"] | None = None
) -> Float[Tensor, "..."]:
    """d(dx/dt)/d(parameter) of a Model, or d(next state)/d(parameter) of a Step: (*batch, D, *parameter).

    Args:
        system: a Model or a Step with its dt.
        x: states (*batch, ...).
        parameter: name of a parameter or buffer of the model, such as "W_rec".
        u: the drive; None is silence.

    Raises:
        TypeError, ValueError: as for `jacobian`; or a bare callable is given, or the model has no Tensor of this name.
    """
    at = _rows(system, x, u)
    module, model = at.system, model_of(at.system)
    if not isinstance(module, nn.Module) or model is None:
        raise TypeError(
            f"parameter_jacobian needs a Model or a Step, got {type(system).__name__}: a bare callable has no "
            "parameters; torch.func.jacrev differentiates it by an argument."
        )
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if parameter not in tensors:
        raise ValueError(f"{class_name(model)} has no parameter {parameter!r}: it has {', '.join(sorted(tensors))}.")
    name = f"model.{parameter}" if isinstance(system, Step) else parameter

    def moved(value: Tensor, row: Tensor, drive: Tensor | None) -> Tensor:
        call = lambda *args: functional_call(module, {name: value}, args)
        return local(system, x, len(at.batch), call).move(row, drive)

    derivative = torch.func.jacrev(moved)
    value = tensors[parameter].detach()
    # One by one: inside the two vmaps of a whole batch torch 2.13 differentiates linear solves wrongly.
    drives = [None] * len(at.x) if at.u is None else at.u
    rows = [derivative(value, row, drive) for row, drive in zip(at.x, drives, strict=True)]
    found = torch.stack(rows) if rows else value.new_zeros(0, at.x.shape[-1], *value.shape)
    return found.reshape(*at.batch, at.x.shape[-1], *value.shape)


class Modes(NamedTuple):
    """Eigenmodes of Jacobians, the least damped first: J = right @ diag(eigenvalues) @ left, left @ right = 1.

    Row i of `left` is the left eigenvector of mode i, what a deviation is multiplied with to give its part along the
    mode: for a slow mode it is the selection vector of Mante et al. (2013). It is NaN where the matrix is defective,
    that is where its right eigenvectors do not span the space to rounding.
    """

    eigenvalues: Complex[Tensor, "*batch D"]
    right: Complex[Tensor, "*batch D D"]  # columns, of unit length
    left: Complex[Tensor, "*batch D D"]  # rows
    kind: Kind
    dt: float  # time of a step of a map

    @property
    def growth(self) -> Float[Tensor, "*batch D"]:
        """Rate at which each mode grows, in 1 / unit of time: Re(eigenvalue), of a map ln |eigenvalue| / dt."""
        return self.eigenvalues.real if self.kind == "flow" else self.eigenvalues.abs().log() / self.dt

    @property
    def time_constants(self) -> Float[Tensor, "*batch D"]:
        """-1 / growth: the time in which a mode decays to 1/e; negative for one that grows, infinite for neither."""
        return -1 / self.growth

    @property
    def frequencies(self) -> Float[Tensor, "*batch D"]:
        """Cycles per unit of time: Im(eigenvalue) / 2 pi, of a map arg(eigenvalue) / (2 pi dt)."""
        turn = self.eigenvalues.imag if self.kind == "flow" else self.eigenvalues.angle() / self.dt
        return turn / (2 * math.pi)


def modes(jacobian: Float[Tensor, "*batch D D"], kind: Kind, dt: float = 1.0) -> Modes:
    """Eigenvalues with right and left eigenvectors of Jacobians of a flow, or of a map whose step takes the time dt.

    Raises:
        TypeError: the Jacobians are no Tensor.
        ValueError: the matrices are not square or finite, `kind` is neither "flow" nor "map", or dt is not positive.
    """
    if kind not in ("flow", "map"):
        raise ValueError(f"kind = {kind!r}: say 'flow' (d(dx/dt)/dx) or 'map' (d(next state)/dx).")
    _check_square(jacobian)
    if not dt > 0:
        raise ValueError(f"dt = {dt}: the step of a map takes a positive time.")
    values, vectors = torch.linalg.eig(jacobian)
    damped = values.real if kind == "flow" else values.abs()
    order = damped.argsort(-1, descending=True)
    values = values.gather(-1, order)
    right = vectors.gather(-1, order[..., None, :].expand_as(vectors))
    left, _ = torch.linalg.inv_ex(right)
    sound = torch.linalg.matrix_norm(left, 2) * torch.linalg.matrix_norm(right, 2) < DEFECTIVE
    left = torch.where(sound[..., None, None], left, torch.full_like(left, complex(math.nan, math.nan)))
    return Modes(values, right, left, kind, dt)


def _check_square(jacobian: Tensor) -> None:
    if not isinstance(jacobian, Tensor):
        raise TypeError(f"a Jacobian is a Tensor, got {type(jacobian).__name__}: convert it with torch.as_tensor.")
    if jacobian.ndim < 2 or jacobian.shape[-1] != jacobian.shape[-2]:
        raise ValueError(f"a Jacobian is square (*batch, D, D), got the shape {tuple(jacobian.shape)}.")
    if not bool(torch.isfinite(jacobian).all()):
        raise ValueError("the Jacobian holds NaN or infinite values: evaluate it at finite states.")


def non_normality(jacobian: Float[Tensor, "*batch D D"]) -> Float[Tensor, "*batch"]:
    """sqrt(|J|^2 - sum |eigenvalue|^2) / |J| in Frobenius' norm: 0 for a normal matrix, 1 for a nilpotent one.

    Henrici's departure from normality (1962, Numer. Math. 4:24), relative; 0 for a matrix of zeros.

    Raises:
        TypeError: the Jacobians are no Tensor.
        ValueError: the matrices are not square or not finite.
    """
    _check_square(jacobian)
    total = jacobian.square().sum((-2, -1))
    departure = (total - torch.linalg.eigvals(jacobian).abs().square().sum(-1)).clamp(min=0)
    return torch.where(total > 0, (departure / total.clamp(min=torch.finfo(total.dtype).tiny)).sqrt(), 0.0)


class _At(NamedTuple):
    system: Dynamics
    move: Callable[[Tensor, Tensor | None], Tensor]
    x: Tensor  # (row, D)
    u: Any  # (row, n_in) or None
    batch: torch.Size


def _rows(system: Dynamics, x: State, u: Tensor | None) -> _At:
    batch = batch_shape(system, x)
    check_drive(system, u, batch)
    own = own_state(system)
    if own is not None:
        wider = torch.promote_types(tree.leaves(own)[0].dtype, tree.leaves(x)[0].dtype)
        x = tree.map(lambda leaf: leaf.to(wider), x)
    system = _matched(system, x)
    flat = tree.ravel(x, len(batch))
    rows = flat.reshape(-1, flat.shape[-1])
    drives = None if u is None else u.to(rows).expand(*batch, u.shape[-1]).reshape(len(rows), -1)
    return _At(system, local(system, x, len(batch)).move, rows, drives, batch)
