"""One round of a rhythm, cut out of a simulated run."""

import math
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._integrate import integrate
from ctrnn._types import State
from ctrnn.analysis._system import batch_shape, check_drive, constant, in_float64
from ctrnn.dynamics import Model
from ctrnn.solvers import Dopri5
from ctrnn.steps import Adaptive, At


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
    precise_model = cast(Model, in_float64(model))
    x0 = tree.map(lambda leaf: leaf.detach().double(), x0)
    drive = constant(u)
    precise = Adaptive(1e-9, 1e-11)

    def run(x: State, times: Tensor) -> State:
        with torch.no_grad():
            span = (0.0, float(times[-1]))
            return integrate(precise_model, drive, x, t_span=span, solver=Dopri5(), steps=precise, save=At(times)).xs

    settled = x0
    if transient:
        settled = tree.map(lambda leaf: leaf[-1], run(x0, torch.tensor([transient], dtype=torch.float64)))
    times = torch.linspace(0, duration, 4001, dtype=torch.float64)
    states = run(settled, times)
    path = tree.ravel(states, 1)
    distance = (path - path[0]).norm(dim=-1)
    size = float(distance.max())
    if size < 1e-6 * (1 + float(path[0].norm())):
        raise ValueError("the run stands still after the transient: there is no rhythm to follow from this start.")
    away = int((distance > 0.1 * size).nonzero()[0, 0])
    near = (distance[away:-1] < distance[away + 1 :]) & (distance[away:-1] < 0.1 * size)
    for k in (near.nonzero()[:, 0] + away).tolist():
        state, period, width = tree.map(lambda leaf, k=k: leaf[k - 1], states), float(times[k - 1]), 2 * float(times[1])
        for _ in range(3):  # the closest state, ever finer
            fine = torch.linspace(0, width, 65, dtype=torch.float64)
            around = run(state, fine)
            back = (tree.ravel(around, 1) - path[0]).norm(dim=-1)
            i = int(back[1:-1].argmin())  # the one before the closest
            state, period, width = tree.map(lambda leaf, i=i: leaf[i], around), period + float(fine[i]), float(fine[2])
        if float(back.min()) < closed * size:
            period += width / 2
            ticks = torch.arange(1, samples + 1, dtype=torch.float64) * (period / samples)
            return Orbit(tree.ravel(run(settled, ticks), 1).roll(1, 0), period)
    raise ValueError(
        f"the run does not come back to where it was within {duration:g}: give it a longer duration or transient; or "
        "it is no rhythm (see analysis.lyapunov_spectrum)."
    )
