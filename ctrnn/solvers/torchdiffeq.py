"""torchdiffeq as a solver: the same problem handed to its integrators, step by step."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import Input, Scalar, State
from ctrnn.dynamics import Model
from ctrnn.errors import StepSizeUnderflow
from ctrnn.solvers.base import Solver, advance, value
from ctrnn.steps import Adaptive

# Of every method: its order, and the evaluations of one step; 0 where it chooses its own steps and does not tell.
METHODS = {
    "adaptive_heun": (2, 0),
    "bosh3": (3, 0),
    "dopri5": (5, 0),
    "dopri8": (8, 0),
    "fehlberg2": (2, 0),
    "scipy_solver": (4, 0),
    "euler": (1, 1),
    "midpoint": (2, 2),
    "heun2": (2, 2),
    "heun3": (3, 3),
    "rk4": (4, 4),
}


@dataclass(frozen=True)
class TorchDiffEq(Solver):
    """torchdiffeq.odeint over every step (Chen et al. 2018): an independent witness, and methods that are not here.

    A fixed method makes one step of each; an adaptive one takes as many as it needs inside each interval of the drive,
    with one error norm for the whole batch, which is torchdiffeq's way. Its Adams methods remember earlier steps, which
    a jump of the drive invalidates: they are not offered. `scipy_solver` has no gradient.

    Args:
        method: torchdiffeq's name of the method.
        rtol, atol: tolerances of an adaptive method; `steps=Adaptive(rtol, atol)` sets them.

    Raises:
        ValueError: torchdiffeq has no such method, or it is one of Adams'.
    """

    method: str = "dopri5"
    rtol: float = 1e-7
    atol: float = 1e-9

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"TorchDiffEq has no method {self.method!r}: use one of {', '.join(sorted(METHODS))}.")

    @property
    def order(self) -> int:  # type: ignore[override]
        return METHODS[self.method][0]

    @property
    def own_steps(self) -> bool:  # type: ignore[override]
        return METHODS[self.method][1] == 0

    @property
    def evaluations(self) -> int:
        return METHODS[self.method][1]

    def with_tolerances(self, steps: Adaptive) -> "TorchDiffEq":
        return replace(self, rtol=steps.rtol, atol=steps.atol)

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        import torchdiffeq

        del prepared

        # Over the fraction c of the step, so that every sample can have its own time and gradients reach t and dt.
        def slope(c: Tensor, leaves: Any) -> Any:
            at = tree.unflatten(x, leaves if isinstance(x, tuple) else (leaves,))
            change = advance(tree.map(torch.zeros_like, at), dt, model(t + c * dt, at, value(u, c)))
            return tuple(tree.leaves(change)) if isinstance(x, tuple) else change

        start = tuple(tree.leaves(x)) if isinstance(x, tuple) else x
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device=tree.leaves(x)[0].device)
        # Without step_t an adaptive method runs past the end, where the drive is another, and interpolates back.
        steps = self.own_steps and self.method != "scipy_solver"
        options = {"step_t": ends[1:]} if steps else None
        try:
            path = torchdiffeq.odeint(
                slope, start, ends, rtol=self.rtol, atol=self.atol, method=self.method, options=options
            )
        except RuntimeError as error:
            if "setup_context" not in str(error):
                raise
            raise TypeError(
                f"torchdiffeq's {self.method} does not work inside torch.func, on which Recompute and Forward stand: "
                "use adjoint=Backprop(), one of its fixed methods, or a solver from here such as Dopri5()."
            ) from error
        except AssertionError as error:
            when = float(t.detach().max())
            raise StepSizeUnderflow(
                f"torchdiffeq's {self.method} stopped in the step from t = {when:g}: {error}. "
                "Loosen rtol and atol, or use a stiff solver (ctrnn.Rodas4()).",
                t=when,
                step=0,
                sample=(),
            ) from error
        return tree.unflatten(x, [leaf[1] for leaf in (path if isinstance(x, tuple) else (path,))])
