"""Stable and unstable manifolds of the saddles of a planar flow: the separatrices between its basins."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import solve_ivp
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.analysis._system import batch_shape, check_drive, scipy_field
from ctrnn.analysis.linearise import jacobian
from ctrnn.dynamics import Model


class Manifolds(NamedTuple):
    """Both branches of each manifold, from the saddle outwards."""

    saddle: Float[Tensor, " 2"]
    eigenvalues: Float[Tensor, " 2"]  # the stable and the unstable one
    stable: list[Float[Tensor, "point 2"]]
    unstable: list[Float[Tensor, "point 2"]]


def manifolds(
    model: Model,
    saddle: State,
    u: Float[Tensor, " input"] | None = None,
    *,
    duration: float,
    reach: float = 10.0,
    offset: float = 1e-6,
    samples: int = 1000,
) -> Manifolds:
    """Integrate from a saddle along its eigenvectors, forwards for the unstable and backwards for the stable manifold.

    By scipy's DOP853 (rtol 1e-10). A branch leaves the manifold's tangent by an error of order offset^2.

    Args:
        model: its flow, of two units; it is left as it is.
        saddle: a fixed point with real eigenvalues of either sign, such as `fixed_points` finds.
        u: the constant drive; None is silence.
        duration: of each run, in the unit of the model's tau.
        reach: distance from the saddle at which a branch ends.
        offset: distance from the saddle at which it starts.
        samples: of each branch, equally spaced in time.

    Raises:
        TypeError: a map is given.
        ValueError: the state is not a saddle of two units, or a length is not positive.
    """
    if not (duration > 0 and 0 < offset < reach) or samples < 2:
        raise ValueError(
            f"duration = {duration}, offset = {offset}, reach = {reach}, samples = {samples}: "
            "need duration > 0, 0 < offset < reach and at least 2 samples."
        )
    if not isinstance(model, Model):
        raise TypeError(f"manifolds integrates the flow of a Model forwards and backwards, not {type(model).__name__}.")
    check_drive(model, u, batch_shape(model, saddle, 0))
    saddle = tree.map(lambda leaf: leaf.detach().double()[None], saddle)
    x = tree.ravel(saddle, 1)[0].cpu()
    J = jacobian(model, saddle, None if u is None else u.detach()[None])[0]
    values, vectors = torch.linalg.eig(J.detach().cpu())
    order = values.real.argsort()
    if len(x) != 2 or bool(values.imag.any()) or not values.real[order[0]] < 0 < values.real[order[1]]:
        raise ValueError(
            f"eigenvalues {values.tolist()}: this is no saddle of two units; choose one with analysis.fixed_points."
        )
    flow = scipy_field(model, tree.map(lambda leaf: leaf[0], saddle), u)

    def branch(direction: Tensor, sense: float) -> Tensor:
        def leaves(t: float, z: np.ndarray) -> float:
            del t
            return reach - float(np.linalg.norm(z - x.numpy()))

        leaves.terminal = True  # type: ignore[attr-defined]
        start = (x + offset * direction).numpy()
        ticks = np.linspace(0, duration, samples)
        run = solve_ivp(
            lambda t, z: sense * flow(t, z),
            (0, duration),
            start,
            "DOP853",
            ticks,
            events=leaves,
            rtol=1e-10,
            atol=1e-12,
        )
        points = np.vstack([x.numpy(), run.y.T, run.y_events[0].reshape(-1, 2)])
        return torch.from_numpy(points)

    stable, unstable = vectors.real[:, order].mT
    return Manifolds(
        x,
        values.real[order],
        [branch(sign * stable, -1.0) for sign in (1, -1)],
        [branch(sign * unstable, 1.0) for sign in (1, -1)],
    )
