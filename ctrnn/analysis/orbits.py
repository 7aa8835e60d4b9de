"""One round of a rhythm, cut out of a simulated run."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import solve_ivp
from scipy.optimize import minimize_scalar
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.analysis._system import batch_shape, check_drive, scipy_field
from ctrnn.dynamics import Model


class Orbit(NamedTuple):
    """One round of a rhythm, from equally spaced samples."""

    x: Float[Tensor, "sample D"]
    period: float


def check_flow(model: Model) -> None:
    """Raise TypeError for what has no flow."""
    if not isinstance(model, Model):
        raise TypeError(
            f"cycles are those of the flow of a Model, not of a {type(model).__name__}: pass the Model; an orbit of "
            "period k of a map is a fixed point of its k-th iterate (continue_equilibria)."
        )


def simulated_orbit(
    model: Model,
    x0: State,
    u: Float[Tensor, " input"] | None = None,
    *,
    transient: float,
    duration: float,
    samples: int = 200,
    closed: float = 1e-3,
) -> Orbit:
    """One round of the rhythm to which the flow settles from x0, as it is in the model's own parameters.

    The period is the time after which the run comes back to its state at the end of the transient.

    Args:
        model: its flow.
        x0: where the run starts.
        u: the constant drive; None is silence.
        transient: time in which the run settles, in the unit of the model's tau.
        duration: time in which it must come back.
        samples: of the orbit.
        closed: how near it must come, relative to how far it goes.

    Raises:
        TypeError: the system is no Model.
        ValueError: x0 or u of a wrong shape, the run stands still, or does not come back in time.
    """
    check_flow(model)
    check_drive(model, u, batch_shape(model, x0, 0))
    if not (transient >= 0 and 0 < duration < math.inf) or samples < 3:
        raise ValueError(
            f"transient = {transient}, duration = {duration}, samples = {samples}: need >= 0, > 0, and at least 3."
        )
    flow = scipy_field(model, tree.map(lambda leaf: leaf.detach().double(), x0), u)
    start = tree.ravel(tree.map(lambda leaf: leaf.detach().double().cpu(), x0), 0).numpy()
    if transient:
        start = solve_ivp(flow, (0, transient), start, "DOP853", [transient], rtol=1e-9, atol=1e-11).y[:, -1]
    run = solve_ivp(flow, (0, duration), start, "DOP853", dense_output=True, rtol=1e-9, atol=1e-11)

    def distance(t: Any) -> Any:
        return np.linalg.norm(run.sol(t).T - start, axis=-1)

    times = np.linspace(0, run.t[-1], 4001)
    away = distance(times)
    size = float(away.max())
    if size < 1e-6 * (1 + float(np.linalg.norm(start))):
        raise ValueError("the run stands still after the transient: there is no rhythm to follow from this start.")
    left = int((away > 0.1 * size).argmax())
    near = (away[1:-1] <= away[:-2]) & (away[1:-1] < away[2:]) & (away[1:-1] < 0.1 * size)
    for k in np.flatnonzero(near) + 1:
        if k <= left:
            continue
        found = minimize_scalar(distance, bounds=(times[k - 1], times[k + 1]), options={"xatol": 1e-10 * duration})
        if found.fun < closed * size:
            x = run.sol(np.arange(samples) * (found.x / samples)).T
            return Orbit(torch.from_numpy(np.ascontiguousarray(x)), float(found.x))
    raise ValueError(
        f"the run does not come back to where it was within {duration:g}: give it a longer duration or transient; or "
        "it is no rhythm (see analysis.lyapunov_spectrum)."
    )
