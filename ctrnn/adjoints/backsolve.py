"""The continuous adjoint: gradients from a second differential equation, solved backwards by torchdiffeq."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctrnn import _tree as tree
from ctrnn._march import along, head, instants, together
from ctrnn._types import Input, State
from ctrnn.adjoints._leaves import check_closed, taken_out
from ctrnn.adjoints.base import Adjoint, Problem
from ctrnn.drive import Piece
from ctrnn.dynamics import Model, Relaxation
from ctrnn.solvers.base import Solver, advance, value
from ctrnn.solvers.explicit import RK4, Bosh3, Dopri5, Heun, Midpoint, Tsit5
from ctrnn.solvers.relaxation import Euler
from ctrnn.solvers.torchdiffeq import TorchDiffEq
from ctrnn.steps import Adaptive, Fixed, Grid

# torchdiffeq's nearest method: the same where it has it, else one of the nearest order. Its rk4 is Kutta's 3/8 rule.
ON_FIXED_STEPS: dict[type[Solver], str] = {
    Euler: "euler",
    Midpoint: "midpoint",
    Heun: "heun2",
    Bosh3: "heun3",
    RK4: "rk4",
    Dopri5: "rk4",
    Tsit5: "rk4",
}
ON_ADAPTIVE_STEPS: dict[type[Solver], str] = {
    Heun: "adaptive_heun",
    Bosh3: "bosh3",
    Dopri5: "dopri5",
    Tsit5: "dopri5",
}


class BacksolveWarning(UserWarning):
    """The state cannot be reconstructed backwards over so long a gap."""


@dataclass(frozen=True)
class Backsolve(Adjoint):
    """da/dt = -a df/dx beside dx/dt = f, both backwards from the end (Pontryagin; Chen et al. 2018), by torchdiffeq.

    Keeps one state for each edge of the drive and each save, no graph, and is the gradient of the flow, not of the
    steps that were taken: equal to `Backprop` to the error of the steps only. Gradients reach parameters, x0, the
    drive's values and times, t_span's ends among them; no second derivatives, and nothing under torch.func.
    The run itself is made by torchdiffeq too, with its method nearest to the solver: on the same fixed steps, or
    adaptively with one error norm for the whole batch.

    A leaky network forgets: backwards, an error grows as exp(t / tau), and that of the state at the end of a gap
    (between edges of the drive or saves) returns to its start as error exp(gap / tau). Where that exceeds 0.01 for the
    smallest tau, a `BacksolveWarning` says so. The error is taken as the larger tolerance of adaptive steps (gap > 9.2
    tau for 1e-6), and as the rounding error eps on fixed steps, whose own error is not known (31 tau in float64, 11 tau
    in float32). That is where it is hopeless: gradients of random networks were wrong by percents from half to two
    thirds of such a gap on. `Recompute` has no such limit.

    Raises:
        ValueError: there is no continuous adjoint (`Iterate`, noise), or torchdiffeq has nothing near the solver; or
            the model, or a `Function` drive, uses a Tensor that requires a gradient and is neither parameter nor
            buffer of the model, differentiates while it runs, or draws random numbers.
    """

    def solver(self, solver: Solver, steps: Fixed | Adaptive) -> Solver:
        if isinstance(solver, TorchDiffEq):
            return solver
        table = ON_FIXED_STEPS if isinstance(steps, Fixed) else ON_ADAPTIVE_STEPS
        if type(solver) not in table:
            names = ", ".join(sorted(f"{kind.__name__}()" for kind in table))
            raise ValueError(
                f"Backsolve differentiates the flow by torchdiffeq, which has nothing near {solver} on such steps: "
                f"use one of {names}, or adjoint=Recompute()."
            )
        return TorchDiffEq(table[type(solver)])

    def run(self, problem: Problem) -> State:
        if problem.noise is not None:
            raise ValueError("A run with noise has no continuous adjoint: use adjoint=Recompute().")
        grid = problem.grid
        if not grid.dt:
            return together([problem.x0] if grid.initial else [], problem.x0, grid.live is not None)
        run, leaves = taken_out(problem)
        tensors = tree.leaves(leaves)
        if torch.is_grad_enabled() and any(leaf.requires_grad for leaf in tensors):
            check_closed(run, leaves)
            _check_gaps(problem)
        like = tree.map(lambda _: 0, leaves)
        saved = _Cut.apply(lambda moved: _march(run.bound(tree.unflatten(like, moved))), len(leaves.model), *tensors)
        return tree.unflatten(problem.x0, saved)


class _Cut(torch.autograd.Function):
    """A run whose leaves know nothing of where they came from.

    torchdiffeq differentiates with respect to weights, drive and times at once; where one of them was computed from
    another, it would count that way twice. The model's own tensors, which come first, stay as they are.
    """

    @staticmethod
    def forward(ctx: Any, run: Callable[[list[Tensor]], State], own: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        cut = [leaf.detach().requires_grad_(leaf.requires_grad) for leaf in tensors[own:]]
        ctx.leaves = [*tensors[:own], *cut]
        with torch.set_grad_enabled(any(ctx.needs_input_grad)):
            ctx.saved = tree.leaves(run(ctx.leaves))
        return tuple(leaf.detach().clone() for leaf in ctx.saved)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        result: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
        wanted = [i for i, flag in enumerate(ctx.needs_input_grad[2:]) if flag]
        pairs = [(x, grad) for x, grad in zip(ctx.saved, grads, strict=True) if x.requires_grad]
        if pairs:
            states, given = zip(*pairs, strict=True)
            leaves = [ctx.leaves[i] for i in wanted]
            found = torch.autograd.grad(states, leaves, given, allow_unused=True, retain_graph=True)
            for i, grad in zip(wanted, found, strict=True):
                result[2 + i] = grad
        return tuple(result)


def _march(problem: Problem) -> State:
    model, solver, grid, x = problem.step.model, problem.step.solver, problem.grid, problem.x0
    assert isinstance(solver, TorchDiffEq)
    saved = [x] if grid.initial else []
    spans = _spans(grid, solver)
    coarse = _coarse(grid, spans)
    times = instants(coarse, tree.leaves(x)[0])
    # torchdiffeq stumbles over empty ones, such as the W_in of a network without inputs.
    weights = [p for p in (*model.parameters(), *model.buffers()) if p.requires_grad and p.numel()]
    for k, (t, u) in enumerate(zip(times, along(problem.source, coarse, times), strict=True)):
        if coarse.live is not None:
            x = head(x, coarse.live[k])
        x = _solve(model, solver, t, coarse.dt[k], x, u, weights, _fractions(grid, *spans[k]))
        saved += [x if item.rows is None else tree.pick(x, item.rows) for item in coarse.saved[k]]
        if problem.progress is not None:
            problem.progress((k + 1) / len(spans))
    return together(saved, problem.x0, grid.live is not None)


def _spans(grid: Grid, solver: TorchDiffEq) -> list[tuple[int, int]]:
    """Runs of steps without a save, an edge of the drive or the end of a sample between them."""
    live = grid.live or [0] * len(grid.dt)
    cuts = [
        k
        for k in range(1, len(grid.dt))
        if solver.own_steps
        or grid.saved[k - 1]
        or grid.interval[k] != grid.interval[k - 1]
        or live[k] != live[k - 1]
        or _longest(grid.begin[k]) <= _longest(grid.begin[k - 1])  # where a Function jumps
    ]
    return list(zip([0, *cuts], [*cuts, len(grid.dt)], strict=True))


def _coarse(grid: Grid, spans: list[tuple[int, int]]) -> Grid:
    """The grid with one step for each span."""
    return grid._replace(
        t=[grid.t[a] for a, _ in spans],
        dt=[sum(grid.dt[a + 1 : b], grid.dt[a]) for a, b in spans],
        interval=[grid.interval[a] for a, _ in spans],
        begin=[grid.begin[a] for a, _ in spans],
        width=[sum(grid.width[a + 1 : b], grid.width[a]) for a, b in spans],
        live=None if grid.live is None else [grid.live[a] for a, _ in spans],
        saved=[grid.saved[b - 1] for _, b in spans],
    )


def _longest(value: Any) -> float:
    return float(value.detach().max()) if isinstance(value, Tensor) else float(value)


def _fractions(grid: Grid, start: int, stop: int) -> list[float]:
    """Where the steps of a span end, as fractions of it; the same for all samples."""
    ends = list(accumulate(_longest(dt) for dt in grid.dt[start:stop]))
    return [end / ends[-1] for end in ends]


def _check_gaps(problem: Problem) -> None:
    model, solver, grid = problem.step.model, problem.step.solver, problem.grid
    if not isinstance(model, Relaxation):
        return
    assert isinstance(solver, TorchDiffEq)
    gap = max(_longest(dt) for dt in _coarse(grid, _spans(grid, solver)).dt)
    tau = min(float(leaf.detach().min()) for leaf in tree.leaves(model.tau))
    eps = torch.finfo(tree.leaves(problem.x0)[0].dtype).eps
    error = max(eps, solver.rtol, solver.atol) if solver.own_steps else eps
    if gap / tau > math.log(0.01 / error):
        warnings.warn(
            f"Backsolve cannot reconstruct the state over a gap of {gap:g}, which is {gap / tau:.0f} times the "
            f"smallest tau = {tau:g}: an error of {error:.1g} grows as exp(gap / tau). Save more often, take smaller "
            "tolerances, or use adjoint=Recompute().",
            BacksolveWarning,
            stacklevel=4,
        )


def _solve(
    model: Model, solver: TorchDiffEq, t: Tensor, dt: Any, x: State, u: Input, weights: list[Tensor], ends: list[float]
) -> State:
    """The state after a span, over which torchdiffeq's time is the fraction c, so that gradients reach t and dt."""
    import torchdiffeq

    def slope(c: Tensor, flat: Tensor) -> Tensor:
        at = tree.unravel(flat, x, 0)
        now = (t + c * dt).to(t.dtype)
        return tree.ravel(advance(tree.map(torch.zeros_like, at), dt, model(now, at, value(u, c))), 0)

    pieces = [u] if isinstance(u, Tensor) else [*u.coefficients, u.begin, u.width] if isinstance(u, Piece) else []
    params = [p for p in (*weights, t, dt, *pieces) if isinstance(p, Tensor) and p.requires_grad and p.numel()]
    options = None if solver.own_steps else {"grid_constructor": _steps_at(ends)}
    path = torchdiffeq.odeint_adjoint(
        slope,
        tree.ravel(x, 0),
        torch.tensor([0.0, 1.0], dtype=torch.float64, device=t.device),
        rtol=solver.rtol,
        atol=solver.atol,
        method=solver.method,
        options=options,
        adjoint_params=tuple(params),
    )
    return tree.unravel(path[1], x, 0)


def _steps_at(ends: list[float]) -> Callable[[Any, Tensor, Tensor], Tensor]:
    def grid(func: Any, y0: Tensor, t: Tensor) -> Tensor:
        del func, y0
        points = torch.tensor([0.0, *ends[:-1], 1.0], dtype=t.dtype, device=t.device)
        return points if t[0] < t[-1] else points.flip(0)

    return grid
