"""Fixed and slow points: where a flow stands still or a map returns its argument, or nearly so."""

import warnings
from enum import IntEnum
from typing import NamedTuple

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.analysis._descent import Descent, descend
from ctrnn.analysis._system import (
    Dynamics,
    Kind,
    batch_shape,
    check_drive,
    check_tensors,
    in_float64,
    linearised,
    local,
)
from ctrnn.analysis.linearise import Modes, modes
from ctrnn.solvers import Step

ROOT = 1e-11  # speed below which a point is a root: rounding leaves about 1e-15, a slow point seldom less than 1e-8
SLOW = 0.01  # of the starts' median speed: what moves faster is no slow point
GAP = 1.0  # decades of speed without any point that part the slow ones from the rest
BEYOND = 10.0  # times `reach`, where a start is given up on its way
NEUTRAL = 1e-10  # distance from the boundary of stability that rounding could account for


class Outcome(IntEnum):
    """How the search from one start ended."""

    FOUND = 0  # at a point of the result
    SLOW = 1  # at a local minimum of the speed above the tolerance
    ESCAPED = 2  # far outside the starts
    UNFINISHED = 3  # after max_iterations


class Search(NamedTuple):
    """What became of every start."""

    x: Float[Tensor, "start D"]  # where it ended
    speed: Float[Tensor, " start"]
    outcome: Int[Tensor, " start"]  # an `Outcome`
    point: Int[Tensor, " start"]  # the point of the result that it found, or -1
    iterations: Int[Tensor, " start"]


class FixedPoints(NamedTuple):
    """Fixed points found, each once, the slowest first; all values come from one evaluation at `x`.

    `speed` is |dx/dt| for a flow and |step(x) - x| for a map; `stable` is Re(eigenvalue) < 0 for a flow and
    |eigenvalue| < 1 for a map, whichever `kind` says; on the boundary to rounding (1e-10) it is not. A point that is
    not `fixed` is only slow: its `stable` speaks of the local linear dynamics, not of the long run.

    That speed is absolute. Where gates are saturated (a GRU's z within 1e-11 of 1) a state may be slower and yet no
    root; its Jacobian then has an eigenvalue as small as its speed, so that it counts as neutral and not as stable.
    """

    x: Float[Tensor, "point D"]
    speed: Float[Tensor, " point"]
    jacobian: Float[Tensor, "point D D"]
    eigenvalues: Complex[Tensor, "point D"]
    stable: Bool[Tensor, " point"]
    kind: Kind
    dt: float  # time of a step of a map; 1 for a bare callable, and for a flow
    velocity: Float[Tensor, "point D"]  # dx/dt, or step(x) - x
    fixed: Bool[Tensor, " point"]  # speed below 1e-11, or below tol where that is less; these come first
    tol: float  # the speed up to which points were accepted
    u: Float[Tensor, "point input"] | None  # the drive under which each stands still
    search: Search

    @property
    def q(self) -> Float[Tensor, " point"]:
        """speed^2 / 2 (Sussillo & Barak 2013)."""
        return self.speed.square() / 2

    @property
    def unstable(self) -> Int[Tensor, " point"]:
        """How many directions do not decay at each point, its index: 0 for a stable one; neutral ones count."""
        return _unstable(self.eigenvalues, self.kind)

    def modes(self) -> Modes:
        """Eigenmodes at each point."""
        return modes(self.jacobian, self.kind, self.dt)

    def states(self, like: State) -> State:
        """x as states (point, ...) with the parts of `like`, such as `model.initial_state()`."""
        return tree.unravel(self.x, like, 0)


def visited_states(
    xs: State,
    count: int,
    *,
    jitter: float = 0.1,
    between: float = 0.0,
    generator: torch.Generator | None = None,
) -> State:
    """States from which to search: drawn from a trajectory, some moved half way to another, all with some jitter.

    Args:
        xs: visited states (time, *batch, ...); such with NaN are left out.
        count: how many to draw, without replacement; at most as many as there are.
        jitter: standard deviation of Gaussian noise, in standard deviations of each coordinate over the visited states.
        between: fraction of the starts that are means of two visited states, where saddles lie.
        generator: of the draws.

    Raises:
        TypeError: the states are no floating-point Tensors.
        ValueError: no state is finite, or a fraction or a count makes no sense.
    """
    if count < 1 or not 0 <= between <= 1 or jitter < 0:
        raise ValueError(f"count = {count}, between = {between}, jitter = {jitter}: need >= 1, within [0, 1], >= 0.")
    check_tensors(xs)
    lead = min(leaf.ndim for leaf in tree.leaves(xs)) - 1  # time and batch: a part has at least one axis of its own
    rows = tree.map(lambda leaf: leaf.detach().flatten(0, lead - 1), xs)
    like = tree.map(lambda leaf: leaf[0], rows)
    flat = tree.ravel(rows, 1)
    flat = flat[torch.isfinite(flat).all(-1)]
    if not len(flat):
        raise ValueError("no visited state is finite: nothing to start from.")
    device = generator.device if generator is not None else flat.device
    draw = lambda: torch.randperm(len(flat), generator=generator, device=device)[:count].to(flat.device)
    chosen, other = flat[draw()], flat[draw()]
    mixed = round(between * len(chosen))
    chosen[:mixed] = (chosen[:mixed] + other[:mixed]) / 2
    noise = torch.randn(chosen.shape, generator=generator, dtype=flat.dtype, device=device).to(flat.device)
    spread = flat.std(0) if len(flat) > 1 else torch.zeros_like(flat[0])
    return tree.unravel(chosen + jitter * spread * noise, like, 0)


def fixed_points(
    system: Dynamics,
    starts: State,
    u: Float[Tensor, "*start input"] | None = None,
    *,
    tol: float | None = None,
    slow: bool = False,
    max_iterations: int = 200,
    unique: float = 1e-3,
    reach: float = 2.0,
) -> FixedPoints:
    """Search from all starts at once with Levenberg-Marquardt on q = |dx/dt|^2 / 2, in float64.

    The method is Marquardt's (1963), its use on trained networks Sussillo & Barak's (2013). The network is left as it
    was. For a trained network pass the map that it was trained as (`fitted.step`), and look at its flow beside it.

    Args:
        system: a Model (its flow), a `Step` (its map), or a callable map.
        starts: states (start, ...) such as `visited_states` gives.
        u: the constant drive under which the points stand still, one (n_in,) or one for each start; None is silence.
        tol: the search from a start ends, and a point is accepted, at a speed below it: a greater one shows slow
            points, such as those along a line attractor. If None, every start goes on to a root or to a local minimum
            of the speed; roots (speed below 1e-11) are accepted, and where there are none the slow minima: those 100
            times slower than the median start, and below the widest gap in the distribution of their log speed.
        slow: accept the slow minima also where there are roots, such as the ghosts of folds; they are not `fixed`.
        max_iterations: after which a start is given up.
        unique: points closer than this, relative to the spread of the starts, are one.
        reach: points further from the centre of the starts than this times the furthest start are dropped.

    Warns:
        UserWarning: nothing was found within reach, but roots beyond it.

    Raises:
        TypeError: starts or u are no floating-point Tensors.
        ValueError: starts or u of a wrong shape, the flow of a clocked network, starts that are not finite, or a
            tolerance that is not positive.
    """
    batch = batch_shape(system, starts, 1)
    check_drive(system, u, batch)
    if not batch.numel():
        raise ValueError("starts hold no state: give at least one, such as analysis.visited_states draws.")
    if tol is not None and slow:
        raise ValueError(f"tol = {tol} already accepts what is slower: slow=True is for tol=None, which finds minima.")
    if tol is not None and not tol > 0:
        raise ValueError(f"tol = {tol}: a speed below which a point is accepted is positive; None chooses it.")
    if not (unique >= 0 and reach > 0 and max_iterations > 0):
        raise ValueError(
            f"unique = {unique}, reach = {reach}, max_iterations = {max_iterations}: need unique >= 0, others > 0."
        )
    starts = tree.map(lambda leaf: leaf.detach().double(), starts)
    x = tree.ravel(starts, 1)
    if not bool(torch.isfinite(x).all()):
        raise ValueError("starts hold NaN or infinite values: drop them before the search.")
    move, is_map = local(in_float64(system), starts, 1)
    drive = None if u is None else u.detach().double().to(x.device).expand(len(x), -1)

    def residual(points: Tensor, inputs: Tensor | None) -> Tensor:
        return move(points, inputs) - points if is_map else move(points, inputs)

    with torch.no_grad():
        centre, spread = _extent(x)
        enough = 0.01 * ROOT if tol is None else tol
        # Under a drive of its own each start has its own points.
        merge = 0.3 * unique * spread if drive is None or u is None or u.ndim == 1 else 0.0
        before = residual(x, drive).norm(dim=-1)
        region = reach * spread if bool((x != x[0]).any()) else torch.inf  # one place says nothing about how far is far
        ended = descend(residual, x, drive, enough, max_iterations, merge, BEYOND * region)
        inside = (ended.x - centre).norm(dim=-1) <= region
        speed = ended.value.norm(dim=-1)
        limit = _tolerance(speed[inside], ended.flat[inside], before, slow) if tol is None else tol
        # Without a tolerance, a start that was given up on its way is at no point, however slow it is there.
        there = speed <= limit if tol is not None else (speed <= ROOT) | (ended.flat & (speed <= limit))
        outside = int((~inside & (speed <= ROOT)).sum())
        if outside and not bool((inside & there).any()):
            warnings.warn(
                f"no point was found, but {outside} starts came to roots further out than reach = {reach:g} times the "
                "starts: give starts from there, or a greater reach.",
                stacklevel=2,
            )
        chosen, point = _distinct(ended.x, speed, drive, inside & there, unique * spread)
        x, drive = ended.x[chosen], None if drive is None else drive[chosen]
        velocity, matrix = linearised(lambda rows: residual(rows, drive), x)
        matrix = matrix + torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) if is_map else matrix
        values = torch.linalg.eigvals(matrix)
        kind: Kind = "map" if is_map else "flow"
        speed_at = velocity.norm(dim=-1)
        return FixedPoints(
            x,
            speed_at,
            matrix,
            values,
            _unstable(values, kind) == 0,
            kind,
            system.dt if isinstance(system, Step) and system.dt is not None else 1.0,
            velocity,
            speed_at <= min(ROOT, limit),
            limit,
            drive,
            Search(ended.x, speed, _outcome(ended, inside, point), point, ended.iterations),
        )


def _extent(starts: Tensor) -> tuple[Tensor, float]:
    """Centre of the starts, and the distance of the furthest."""
    centre = starts.mean(0)
    return centre, float((starts - centre).norm(dim=-1).max().clamp(min=1e-12))


def _tolerance(speed: Tensor, flat: Tensor, before: Tensor, slow: bool) -> float:
    """ROOT if there are roots and no more is wanted; else what the widest gap in the minima's speeds leaves below."""
    roots = speed <= ROOT
    minima = speed[flat & ~roots & (speed <= SLOW * before.median())].sort().values
    if not len(minima) or (bool(roots.any()) and not slow):
        return ROOT
    gaps = minima.log10().diff()
    widest = int(gaps.argmax()) if len(gaps) and float(gaps.max()) > GAP else len(minima) - 1
    return float(minima[widest])


def _unstable(eigenvalues: Tensor, kind: Kind) -> Tensor:
    growth = eigenvalues.abs() - 1 if kind == "map" else eigenvalues.real
    return (growth >= -NEUTRAL).sum(-1)


def _distinct(x: Tensor, speed: Tensor, u: Tensor | None, good: Tensor, apart: float) -> tuple[Tensor, Tensor]:
    """Indices of the good rows, each point once and the slowest first, and which of them each row came to (or -1).

    Points under different drives are different ones.
    """
    candidates = good.nonzero()[:, 0]
    candidates = candidates[speed[candidates].argsort(stable=True)]
    point = torch.full((len(x),), -1, dtype=torch.long, device=x.device)
    kept: list[int] = []
    while len(candidates):
        first = candidates[0]
        same = (x[candidates] - x[first]).norm(dim=-1) <= apart
        if u is not None:
            same &= (u[candidates] == u[first]).all(-1)
        point[candidates[same]] = len(kept)
        kept.append(int(first))
        candidates = candidates[~same]
    return torch.tensor(kept, dtype=torch.long, device=x.device), point


def _outcome(ended: Descent, inside: Tensor, point: Tensor) -> Tensor:
    outcome = torch.full_like(point, Outcome.UNFINISHED)
    outcome[ended.flat] = Outcome.SLOW
    outcome[~inside] = Outcome.ESCAPED
    outcome[point >= 0] = Outcome.FOUND
    return outcome
