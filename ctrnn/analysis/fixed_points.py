"""Fixed points: where a flow stands still or a map returns its argument."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.analysis.linearise import Dynamics, check_shapes, in_float64, jacobian_rows, local


class FixedPoints(NamedTuple):
    """Fixed points found, each once, the slowest first; all values come from one evaluation at `x`.

    `speed` is |dx/dt| for a flow and |step(x) - x| for a map; `stable` is Re(eigenvalue) < 0 for a flow and
    |eigenvalue| < 1 for a map, whichever `kind` says.
    """

    x: Float[Tensor, "point D"]
    speed: Float[Tensor, "point"]
    jacobian: Float[Tensor, "point D D"]
    eigenvalues: Complex[Tensor, "point D"]
    stable: Bool[Tensor, "point"]
    kind: Literal["flow", "map"]

    @property
    def unstable(self) -> Tensor:
        """How many directions are unstable at each point: 0 for a stable one."""
        growth = self.eigenvalues.abs() - 1 if self.kind == "map" else self.eigenvalues.real
        return (growth >= 0).sum(-1)


def fixed_points(
    system: Dynamics,
    starts: State,
    u: Float[Tensor, " input"] | None = None,
    *,
    tol: float = 1e-11,
    max_iterations: int = 200,
    unique: float = 1e-3,
    reach: float = 2.0,
) -> FixedPoints:
    """Search from all starts at once with Levenberg-Marquardt on |dx/dt|^2, in float64.

    The method is Marquardt's (1963), its use on trained networks Sussillo & Barak's (2013).

    Args:
        system: a Model (its flow), a `Step` (its map), or a callable map.
        starts: states (start, ...) such as visited ones with some jitter.
        u: the constant drive under which the points stand still; None is silence.
        tol: a start has converged when its speed is below.
        max_iterations: after which a start that has not converged is dropped.
        unique: points closer than this, relative to the spread of the starts, are one.
        reach: points further from the centre of the starts than this times the furthest start are dropped.

    Raises:
        ValueError: starts or u of a wrong shape, or starts that are not finite.
    """
    first = tree.leaves(starts)[0]
    if first.ndim < 2 or len(first) == 0:
        raise ValueError(
            f"starts must be states with one leading axis (start, ...), got the shape {tuple(first.shape)}."
        )
    check_shapes(system, starts, u)
    starts = tree.map(lambda leaf: leaf.detach().double(), starts)
    x = tree.ravel(starts, 1)
    if not bool(torch.isfinite(x).all()):
        raise ValueError("starts hold NaN or infinite values: drop them before the search.")
    with torch.no_grad():
        move, is_map = local(in_float64(system), starts, 1)
        drive = None if u is None else u.detach().double().expand(len(x), -1)

        def residual(points: Tensor, inputs: Tensor | None) -> Tensor:
            return move(points, inputs) - points if is_map else move(points, inputs)

        x = _levenberg_marquardt(residual, x, drive, tol, max_iterations)
        speed = residual(x, drive).norm(dim=-1)
        found = _select(x, speed, tree.ravel(starts, 1), tol, unique, reach)
        x = x[found]
        drive = None if drive is None else drive[found]
        matrix = jacobian_rows(move, x, drive)
        values = torch.linalg.eigvals(matrix)
        stable = (values.abs() < 1).all(-1) if is_map else (values.real < 0).all(-1)
        return FixedPoints(x, residual(x, drive).norm(dim=-1), matrix, values, stable, "map" if is_map else "flow")


def _levenberg_marquardt(
    residual: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, u: Tensor | None, tol: float, max_iterations: int
) -> Tensor:
    """Minimise |residual|^2 from every row of x; the damping of each row follows its own success."""
    x = x.clone()
    value = residual(x, u)
    damping = value.norm(dim=-1).square()
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    for _ in range(max_iterations):
        active = (value.norm(dim=-1) > 0.01 * tol).nonzero()[:, 0]
        if not len(active):
            break
        inputs = None if u is None else u[active]
        here, f = x[active], value[active]
        matrix = jacobian_rows(residual, here, inputs)
        normal = matrix.mT @ matrix + damping[active, None, None] * eye
        step, failed = torch.linalg.solve_ex(normal, -(matrix.mT @ f[..., None]))
        proposal = here + step[..., 0]
        new = residual(proposal, inputs)
        better = (new.norm(dim=-1) < f.norm(dim=-1)) & (failed == 0)
        # Near a root the damping falls with the square of the residual, which makes the last steps Newton's.
        damping[active] = torch.where(
            better,
            torch.minimum(damping[active] / 5, new.norm(dim=-1).square()),
            (damping[active] * 4).clamp(min=1e-14),
        )
        moved = active[better]
        x[moved], value[moved] = proposal[better], new[better]
        if not bool(better.any()) and bool((damping[active] > 1e8).all()):
            break
    return x


def _select(x: Tensor, speed: Tensor, starts: Tensor, tol: float, unique: float, reach: float) -> Tensor:
    """Indices of the converged points, each once and none far outside the starts."""
    centre = starts.mean(0)
    # A single start says nothing about how far is far.
    spread = (starts - centre).norm(dim=-1).max().clamp(min=1e-12) if len(starts) > 1 else starts.new_tensor(torch.inf)
    good = (speed < tol) & ((x - centre).norm(dim=-1) <= reach * spread)
    candidates = good.nonzero()[:, 0]
    candidates = candidates[speed[candidates].argsort()]
    kept: list[int] = []
    for i in candidates.tolist():
        if not kept or float((x[kept] - x[i]).norm(dim=-1).min()) > unique * float(spread):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.long, device=x.device)
