"""Linearly implicit methods for stiff systems: a stage solves a linear system, where others iterate."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.func import jvp, vmap

from ctrnn import _tree as tree
from ctrnn._model_files import class_name
from ctrnn._types import Input, Scalar, State
from ctrnn.dynamics import Model
from ctrnn.solvers.base import Attempt, EmbeddedSolver, value


class Rosenbrock(NamedTuple):
    """(I - gamma h J) u_i = gamma (h f(t + c_i h, x + sum_j a_ij u_j) + sum_j g_ij u_j + d_i h^2 df/dt),  j < i.

    The last two stages are the embedded solution and the solution: x_hat = x + sum_j a_sj u_j, x1 = x_hat + u_s. Dense
    output is x(s) = (1 - s) x + s (x1 + (1 - s) sum_j (p_j + s q_j) u_j).
    """

    gamma: float
    c: tuple[float, ...]
    d: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    g: tuple[tuple[float, ...], ...]
    p: tuple[float, ...]
    q: tuple[float, ...]


# Hairer & Wanner (1996), IV.7 and their code RODAS, method 1.
_LAST = (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950)
RODAS = Rosenbrock(
    gamma=0.25,
    c=(0.0, 0.386, 0.21, 0.63, 1.0, 1.0),
    d=(0.25, -0.1043, 0.1035, -0.0362, 0.0, 0.0),
    a=(
        (),
        (1.544,),
        (0.9466785280815826, 0.2557011698983284),
        (3.314825187068521, 2.896124015972201, 0.9986419139977817),
        _LAST,
        (*_LAST, 1.0),
    ),
    g=(
        (),
        (-5.6688,),
        (-2.430093356833875, -0.2063599157091915),
        (-0.1073529058151375, -9.594562251023355, -20.47028614809616),
        (7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160),
        (8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136, -6.058818238834054),
    ),
    p=(10.12623508344586, -7.487995877610167, -34.80091861555747, -7.992771707568823, 1.025137723295662, 0.0),
    q=(-0.6762803392801253, 6.087714651680015, 16.43084320892478, 24.76722511418386, -6.594389125716872, 0.0),
)


@dataclass(frozen=True)
class Rodas4(EmbeddedSolver):
    """RODAS, a Rosenbrock pair 4(3), L-stable and stiffly accurate (Hairer & Wanner 1996, IV.7).

    Each step differentiates the model once, for all samples at a time, and solves one dense linear system per sample:
    memory and time grow as D^2 and D^3 with the size D of the state. The model must be differentiable in forward mode
    and must not mix samples.
    """

    order: ClassVar[int] = 4
    error_order: ClassVar[int | None] = 3
    stiff: ClassVar[bool] = True
    starts_with_slope: ClassVar[bool] = False
    tableau: ClassVar[Rosenbrock] = RODAS

    @property
    def evaluations(self) -> int:
        return len(self.tableau.c)

    def attempt(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, first: State | None = None) -> Attempt:
        """A step; raises TypeError if the model cannot be differentiated in forward mode."""
        del first
        m, axes = self.tableau, _batch_axes(model, t, x)
        start = tree.ravel(x, axes)
        h = tree.per_leaf(dt, start)

        def field(c: Any, flat: Tensor) -> Tensor:
            return tree.ravel(model(t + c * dt, tree.unravel(flat, x, axes), value(u, c)), axes)

        try:
            slope, drift, jacobian = _linearise(field, start)
        except (RuntimeError, NotImplementedError) as error:
            raise TypeError(
                f"{self} needs the Jacobian of {class_name(model)} and torch.func could not give it ({error}): "
                "write its forward with differentiable torch operations, or use an explicit solver such as Tsit5()."
            ) from error
        eye = torch.eye(start.shape[-1], dtype=start.dtype, device=start.device)
        factors, pivots, _ = torch.linalg.lu_factor_ex(eye - m.gamma * _matrix_scale(h) * jacobian)
        stages: list[Tensor] = []
        for c, d, a, g in zip(m.c, m.d, m.a, m.g, strict=True):
            if stages:
                slope = field(c, _plus(start, a, stages))
            right = _plus(h * slope + (d * h) * drift, g, stages)
            stages.append(torch.linalg.lu_solve(factors, pivots, m.gamma * right[..., None])[..., 0])
        end = tree.unravel(_plus(start, (*m.a[-1], 1.0), stages), x, axes)
        return Attempt(end, tuple(tree.unravel(stage, x, axes) for stage in stages))

    def error(self, attempt: Attempt) -> State:
        return attempt.slopes[-1]

    def interpolate(
        self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, attempt: Attempt, theta: Tensor, rows: Tensor
    ) -> State:
        def leaf(a: Tensor, b: Tensor, *stages: Tensor) -> Tensor:
            s = tree.per_leaf(theta, a)
            bend = sum((p + s * q) * k for p, q, k in zip(self.tableau.p, self.tableau.q, stages, strict=True))
            return (1 - s) * a + s * (b + (1 - s) * bend)

        return tree.map(leaf, *[tree.pick(part, rows) for part in (x, attempt.x, *attempt.slopes)])


def _batch_axes(model: Model, t: Tensor, x: State) -> int:
    """How many leading axes of the state are its batch."""
    if t.ndim:
        return t.ndim - 1
    try:
        event = tree.leaves(model.initial_state())[0].ndim
    except NotImplementedError:
        event = 1
    return tree.leaves(x)[0].ndim - event


def _linearise(field: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """f(0, x) (*batch, D), df/dc (*batch, D) and df/dx (*batch, D, D) of f(c, x) from one evaluation.

    Samples do not see one another, so that one direction serves all of them.
    """
    size = x.shape[-1]
    time = torch.zeros((), dtype=x.dtype, device=x.device)
    directions = torch.eye(size + 1, dtype=x.dtype, device=x.device)

    def along(direction: Tensor) -> Any:
        # a sum and not expand: forward mode refuses tangents that share memory.
        return jvp(field, (time, x), (direction[0], direction[1:] + torch.zeros_like(x)))

    values, columns = vmap(along)(directions)
    return values[0], columns[0], columns[1:].movedim(0, -1)


def _matrix_scale(h: Scalar) -> Scalar:
    return h[..., None] if isinstance(h, Tensor) and h.ndim else h


def _plus(x: Tensor, weights: tuple[float, ...], stages: list[Tensor]) -> Tensor:
    """x + sum_j weights_j stages_j."""
    for w, k in zip(weights, stages, strict=True):
        x = x.add(k, alpha=w)
    return x
