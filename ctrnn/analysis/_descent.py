"""Many zeros of one residual at once: Levenberg-Marquardt from every row, each with its own damping and its own end."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ctrnn.analysis._system import linearised

Residual = Callable[[Tensor, Tensor | None], Tensor]

CHUNK = 2**19  # numbers in the Jacobians that are held at once: more does not stay in a core's cache
CHORD = 6  # steps that are tried with one factorisation while each halves the residual
SHRINK = (1.0, 0.25, 0.0625)  # of a step along the line
FALL = (*SHRINK, 2.0**-8, 2.0**-12)  # of steepest descent: near a minimum that is no root Cauchy's step is far too long
FLAT = 1e-7  # |J' f| / (|J| |f|): where the speed has a local minimum


class Descent(NamedTuple):
    """Where each row ended."""

    x: Tensor  # (row, D)
    value: Tensor  # (row, D) the residual there
    flat: Tensor  # (row,) whether the gradient of |residual|^2 vanishes there
    iterations: Tensor  # (row,)
    follows: Tensor  # (row,) the row whose path it joined, or itself


@torch.no_grad()
def descend(
    residual: Residual, x: Tensor, u: Tensor | None, enough: float, max_iterations: int, merge: float, far: float
) -> Descent:
    """Minimise |residual|^2 from every row of x until it is `enough` or nothing improves.

    The step solves (J'J + damping) d = -J'f (Marquardt 1963) and is shortened until it improves; where it does not,
    one step of steepest descent is tried. Rows that come within `merge` of a better one follow it from then on, and
    rows further than `far` from the centre of the starts are given up.
    """
    x, centre = x.clone(), x.mean(0)
    value = residual(x, u)
    damping = 0.01 * value.square().sum(-1)
    rows = torch.arange(len(x), device=x.device)
    flat = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    iterations, follows = torch.zeros_like(rows), rows.clone()
    at_once = max(1, CHUNK // x.shape[-1] ** 2)
    active = rows
    for iteration in range(max_iterations):
        size = value.norm(dim=-1)
        going = (size > enough) & ~flat & torch.isfinite(size) & ((x - centre).norm(dim=-1) < far)
        active = active[going[active]]
        if iteration and merge > 0:
            active = _merge(x, size, active, follows, merge)
        if not len(active):
            break
        for some in active.split(at_once):
            inputs = None if u is None else u[some]
            x[some], value[some], damping[some], flat[some] = _improve(
                residual, x[some], value[some], inputs, damping[some], enough
            )
        iterations[active] += 1
    for _ in range(len(bin(max_iterations))):  # a row may follow one that follows another
        follows = follows[follows]
    return Descent(x[follows], value[follows], flat[follows], iterations, follows)


def _merge(x: Tensor, size: Tensor, active: Tensor, follows: Tensor, merge: float) -> Tensor:
    """Leave out the rows that are close to a better one, and note which."""
    order = active[size[active].argsort()]
    ended = (follows == torch.arange(len(x), device=x.device)).nonzero()[:, 0]
    ended = ended[~torch.isin(ended, active)]
    leaders = torch.cat([ended, order])
    near = torch.cdist(x[order], x[leaders]) < merge
    # Only those before it in the order lead a row.
    place = torch.arange(len(order), device=x.device) + len(ended)
    near &= torch.arange(len(leaders), device=x.device) < place[:, None]
    near &= size[leaders] <= size[order][:, None]
    led = near.any(-1)
    follows[order[led]] = leaders[near[led].int().argmax(-1)]
    return order[~led]


def _improve(
    residual: Residual, x: Tensor, value: Tensor, u: Tensor | None, damping: Tensor, enough: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One Jacobian at each row, and all that can be had from it: x, residual, damping, and whether it is flat."""
    _, J = linearised(lambda rows: residual(rows, u), x)
    gradient = (J.mT @ value[..., None])[..., 0]
    size = value.norm(dim=-1)
    flat = gradient.norm(dim=-1) <= FLAT * torch.linalg.matrix_norm(J) * size
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    factor, failed = torch.linalg.cholesky_ex(J.mT @ J + damping[:, None, None] * eye)
    step = -torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    # Where the matrix is singular to rounding: the minimum along the gradient (Cauchy's step).
    slope = (J @ gradient[..., None])[..., 0]
    length = gradient.square().sum(-1) / slope.square().sum(-1).clamp(min=torch.finfo(x.dtype).tiny)
    steepest = -length[:, None] * gradient
    step = torch.where((failed == 0)[:, None] & torch.isfinite(step).all(-1, keepdim=True), step, steepest)
    new, f, better = _along(residual, x, value, u, step, SHRINK)
    full = better & ((new - x - step).abs().amax(-1) == 0)
    fallen, g, rescued = _along(residual, x, value, u, steepest, FALL) if not bool(better.all()) else (new, f, better)
    new = torch.where(better[:, None], new, fallen)
    f = torch.where(better[:, None], f, g)
    # Near a root the damping falls with the square of the residual, which makes the last steps Newton's.
    damping = torch.where(better, torch.minimum(damping / 5, f.square().sum(-1)), (damping * 4).clamp(min=1e-14))
    new, f = _chord(residual, new, f, u, J, factor, full & (failed == 0), enough)
    return new, f, damping, (flat | ~(better | rescued)) & ~(f.norm(dim=-1) < size)


def _along(
    residual: Residual, x: Tensor, value: Tensor, u: Tensor | None, step: Tensor, shrink: tuple[float, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """x + s step for the first s that lowers the residual, the residual there, and for which rows there was one."""
    new, f = x, value
    done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for s in shrink:
        proposal = x + s * step
        there = residual(proposal, u)
        take = ~done & (there.norm(dim=-1) < value.norm(dim=-1))
        new, f = torch.where(take[:, None], proposal, new), torch.where(take[:, None], there, f)
        done |= take
        if bool(done.all()):
            break
    return new, f, done


def _chord(
    residual: Residual,
    x: Tensor,
    value: Tensor,
    u: Tensor | None,
    J: Tensor,
    factor: Tensor,
    rows: Tensor,
    enough: float,
) -> tuple[Tensor, Tensor]:
    """Further steps with the same matrix, which cost next to nothing, as long as each halves the residual."""
    x, value = x.clone(), value.clone()
    rows = rows.nonzero()[:, 0]
    for _ in range(CHORD):
        rows = rows[value[rows].norm(dim=-1) > enough]
        if not len(rows):
            break
        gradient = J[rows].mT @ value[rows][..., None]
        proposal = x[rows] - torch.cholesky_solve(gradient, factor[rows])[..., 0]
        there = residual(proposal, None if u is None else u[rows])
        take = there.norm(dim=-1) < 0.5 * value[rows].norm(dim=-1)
        rows = rows[take]
        x[rows], value[rows] = proposal[take], there[take]
    return x, value
