"""The equations of equilibria of a flow, or of fixed points of a map, as functions of the state and one parameter."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from ctrnn import _tree as tree
from ctrnn._model_files import class_name
from ctrnn._types import State
from ctrnn.analysis._arclength import Array
from ctrnn.analysis._system import Dynamics, in_float64, local, mapped
from ctrnn.dynamics import Model
from ctrnn.solvers import Step

Parameter = str | Callable[[Tensor], Mapping[str, Tensor]]


def equilibrium_equations(system: Dynamics, parameter: Parameter | None, u: Tensor | None, like: State) -> "Equilibria":
    """The flow, or what a map moves by, of a float64 copy of the system as a function of (x, p).

    Raises:
        ValueError: there is no such parameter.
    """
    if (parameter is None) == isinstance(system, Model | Step):
        raise ValueError("name the parameter of a Model or a Step; a callable map (x, p) -> x takes it itself: None.")
    copy = in_float64(system)
    return Equilibria(copy.cpu() if isinstance(copy, Model | Step) else copy, parameter, u, like)


class Equilibria:
    """0 = model(x, u; p) of a flow, 0 = step(x, u; p) - x of a map."""

    def __init__(self, system: Dynamics, parameter: Parameter | None, u: Tensor | None, like: State) -> None:
        self.system = system
        self.like = tree.map(lambda leaf: leaf.detach().double().cpu(), like)
        self.is_map = local(system, self.like, 0).is_map
        model = system.model if isinstance(system, Step) else system
        if isinstance(model, Model) and parameter is not None:
            self.u = torch.zeros(model.n_in or 0, dtype=torch.float64) if u is None else u.detach().double().cpu()
            self.values = named_values(model, parameter, self.u)
        n = sum(leaf.numel() for leaf in tree.leaves(self.like))
        self.weights = np.append(np.full(n, 1 / n), 1.0)
        # Newton, the tangent and every test function ask at the same place.
        self._jacobian = lru_cache(maxsize=8)(self._jacobian_of)

    def field(self, z: Tensor) -> Tensor:
        """dx/dt, or step(x) - x, (D,) at z = (x, p)."""
        x = z[:-1]
        if not isinstance(self.system, Model | Step):
            return tree.ravel(mapped(self.system, tree.unravel(x, self.like, 0), z[-1]), 0) - x
        values = {name: value.to(z) for name, value in self.values(z[-1]).items()}
        u = values.pop("u", self.u)
        prefix = "model." if isinstance(self.system, Step) else ""
        named = {prefix + name: value for name, value in values.items()}
        call = lambda *args: functional_call(self.system, named, args)
        moved = local(self.system, self.like, 0, call).move(x, u)
        return moved - x if self.is_map else moved

    def eigenvalues(self, z: Array) -> Any:
        """Of the flow's Jacobian, or of the map's."""
        return np.linalg.eigvals(self.state_jacobian(z)).astype(complex)

    def margins(self, z: Array) -> Array:
        """How far each eigenvalue lies on the unstable side, of the imaginary axis or of the unit circle."""
        values = self.eigenvalues(z)
        return np.abs(values) - 1 if self.is_map else values.real

    def state_jacobian(self, z: Array) -> Array:
        """d(dx/dt)/dx, or d(next state)/dx."""
        J = self.jacobian(z)[:, :-1]
        return J + np.eye(len(J)) if self.is_map else J

    @torch.no_grad()
    def residual(self, z: Array) -> Array:
        return self.field(torch.from_numpy(z)).numpy()

    def jacobian(self, z: Array) -> Array:
        return self._jacobian(z.tobytes())

    @torch.no_grad()
    def _jacobian_of(self, z: bytes) -> Array:
        return torch.func.jacrev(self.field)(torch.frombuffer(bytearray(z), dtype=torch.float64)).numpy()


def named_values(model: Model, parameter: Parameter, u: Tensor) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """The Tensors of the model, or its drive "u", as functions of one scalar.

    Raises:
        ValueError: there is no such Tensor, or it holds more than one number.
    """
    tensors = {"u": u, **dict(model.named_parameters()), **dict(model.named_buffers())}
    if not isinstance(parameter, str):
        for name, value in parameter(torch.zeros((), dtype=torch.float64)).items():
            _check_name(model, name, tensors)
            if value.shape != tensors[name].shape:
                raise ValueError(
                    f"the function gives {name} the shape {tuple(value.shape)}, it has {tuple(tensors[name].shape)}."
                )
        return parameter
    name, _, rest = parameter.partition("[")
    _check_name(model, name, tensors)
    whole = tensors[name].detach().double()
    try:
        index = tuple(int(i) for i in rest.removesuffix("]").split(",")) if rest else ()
        picked = whole[index]
    except (ValueError, IndexError):
        raise ValueError(f"{parameter!r} is no entry of {name} of shape {tuple(whole.shape)}.") from None
    if picked.numel() != 1:
        raise ValueError(
            f"{parameter!r} holds {picked.numel()} numbers of the shape {tuple(picked.shape)}: name one entry, "
            f"such as {name}[{', '.join('0' * whole.ndim)}], or pass a function p -> {{name: Tensor}}."
        )
    chosen = torch.zeros_like(whole, dtype=torch.bool)
    chosen[index] = True
    return lambda p: {name: torch.where(chosen, p, whole)}


def _check_name(model: Model, name: str, tensors: Mapping[str, Tensor]) -> None:
    if name not in tensors:
        hint = " tau is tau0 * exp(log_ratio): vary tau0." if name == "tau" and "tau0" in tensors else ""
        raise ValueError(f"{class_name(model)} has no parameter {name!r}: it has {', '.join(sorted(tensors))}.{hint}")
