"""Basins of attraction: which attractor each start of a grid comes to in a given time."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._integrate import integrate
from ctrnn._types import State
from ctrnn.analysis._system import Dynamics, batch_shape, check_drive, constant, in_float64, local
from ctrnn.analysis.fixed_points import fixed_points
from ctrnn.dynamics import Model
from ctrnn.solvers import Step
from ctrnn.steps import Adaptive, Last


class Basins(NamedTuple):
    """The attractor that each start has come to after `duration`; -1 where it is near none: undecided."""

    starts: Float[Tensor, "*grid D"]
    label: Int[Tensor, "*grid"]  # row of `attractors`, or -1
    ends: Float[Tensor, "*grid D"]
    attractors: list[Float[Tensor, "sample D"]]
    duration: float

    @property
    def share(self) -> Float[Tensor, " attractor"]:
        """Fraction of the starts that come to each attractor; what is missing to 1 is undecided."""
        rows = torch.arange(len(self.attractors), device=self.label.device)
        return (self.label.flatten() == rows[:, None]).double().mean(-1)


def plane_grid(x_range: tuple[float, float], y_range: tuple[float, float], resolution: int) -> Float[Tensor, "y x 2"]:
    """Points of a rectangle, in float64.

    Raises:
        ValueError: an empty rectangle.
    """
    if not (x_range[0] < x_range[1] and y_range[0] < y_range[1]) or resolution < 2:
        raise ValueError(f"the rectangle {x_range} x {y_range} at resolution {resolution} is empty: give low < high.")
    x, y = (torch.linspace(*span, resolution, dtype=torch.float64) for span in (x_range, y_range))
    b, a = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([a, b], -1)


def basins(
    system: Dynamics,
    starts: State,
    attractors: Sequence[Float[Tensor, "*sample D"]] | None = None,
    u: Float[Tensor, " input"] | None = None,
    *,
    duration: float,
    within: float = 1e-3,
) -> Basins:
    """Run all starts at once, in float64, and label each by the attractor near which it ends.

    A flow is integrated with adaptive steps (rtol 1e-7), a map iterated. A start that needs longer than `duration`, as
    those beside a separatrix do, is undecided, and so is one that comes to an attractor that is not in the list.

    Args:
        system: a Model (its flow), a `Step` (its map), or a callable map.
        starts: states (*grid, ...), such as `plane_grid` gives for two units.
        attractors: ravelled, a fixed point (D,) or samples (sample, D) of a recurrent set, such as `Orbit.x` of a
            cycle. None is the stable fixed points that `fixed_points` finds from where the runs end.
        u: the constant drive; None is silence.
        duration: in the unit of the model's tau; iterations of a bare callable.
        within: distance at which an attractor is reached; more than half the spacing of a cycle's samples.

    Raises:
        TypeError: starts or u are no floating-point Tensors.
        ValueError: they have another shape than the network's, a duration or distance is not positive, or attractors
            are not D wide.
    """
    if not duration > 0 or not within > 0:
        raise ValueError(f"duration = {duration}, within = {within}: both must be positive.")
    grid = batch_shape(system, starts)
    check_drive(system, u, torch.Size())
    if not grid.numel():
        raise ValueError("starts hold no state: give at least one, such as analysis.plane_grid gives for two units.")
    starts = tree.map(lambda leaf: leaf.detach().double(), starts)
    flat = tree.ravel(starts, len(grid)).flatten(0, -2)
    like = tree.map(lambda leaf: leaf.flatten(0, len(grid) - 1), starts)
    with torch.no_grad():
        ends = _ends(system, like, u, duration)
    if attractors is None:
        finite = ends[torch.isfinite(ends).all(-1)]
        few = finite[:: max(1, len(finite) // 500)]
        found = fixed_points(system, tree.unravel(few, like, 1), u)
        attractors = list(found.x[found.stable & found.fixed])
    sets = [attractor.detach().double().reshape(-1, attractor.shape[-1]) for attractor in attractors]
    wrong = [tuple(points.shape) for points in sets if points.shape[-1] != flat.shape[-1]]
    if wrong:
        raise ValueError(f"attractors must hold states of {flat.shape[-1]} numbers, got the shape {wrong[0]}.")
    label = torch.full((len(flat),), -1, dtype=torch.long, device=flat.device)
    if sets:
        distance, nearest = torch.stack([torch.cdist(ends, points).amin(-1) for points in sets], -1).min(-1)
        label = torch.where(distance <= within, nearest, label)
    shape = (*grid, flat.shape[-1])
    return Basins(flat.reshape(shape), label.reshape(grid), ends.reshape(shape), sets, duration)


def _ends(system: Dynamics, starts: State, u: Tensor | None, duration: float) -> Tensor:
    precise = in_float64(system)
    if isinstance(system, Model):
        run = integrate(
            cast(Model, precise),
            constant(u),
            starts,
            t_span=(0.0, duration),
            steps=Adaptive(1e-7, 1e-9),
            save=Last(),
            on_failure="return",
        )
        return tree.ravel(tree.map(lambda leaf: leaf[-1], run.xs), 1)
    move, _ = local(precise, starts, 1)
    x = tree.ravel(starts, 1)
    drive_row = None if u is None else u.detach().to(x).expand(len(x), -1)
    dt = system.dt if isinstance(system, Step) and system.dt is not None else 1.0
    for _ in range(max(1, round(duration / dt))):
        x = move(x, drive_row)
    return x
