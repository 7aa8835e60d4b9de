"""Short-term memory: how much of the input so far can be read off the state by a linear readout."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Complex, Float
from scipy.signal import lfilter
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._integrate import integrate
from ctrnn.drive import Held
from ctrnn.dynamics import Model
from ctrnn.learning.readout import ridge
from ctrnn.steps import Fixed


class Memory(NamedTuple):
    """A forgetting curve: for each lag the share of the input's variance that is remembered, in [0, 1].

    Lag 0 is the sample just read: the input is seen through the state alone.
    """

    share: Float[Tensor, " lag"]

    @property
    def capacity(self) -> float:
        """The sum over all lags: at most the number of units if the inputs are independent (Jaeger 2001)."""
        return float(self.share.sum())


@torch.no_grad()
def memory_capacity(
    model: Model,
    us: Float[Tensor, "time 1"],
    *,
    dt: float,
    lags: int,
    steps: Fixed | None = None,
    washout: int = 100,
    held_out: int = 1000,
    penalty: float = 0.0,
) -> Memory:
    """Squared correlation of the best linear readout with the input `lag` samples ago (Jaeger 2001, GMD Report 152).

    The readouts, one per lag, are fitted to the first samples and judged on the last ones. What was forgotten
    therefore counts 1 / held_out on average, not 0.

    Args:
        model: with one input; all parts of its state are read.
        us: independent samples, each held for dt. The capacity has its bound only if they are.
        dt: time per sample, in the unit of the model's tau.
        lags: lags 0 to lags - 1 are asked for.
        steps: finer than the samples; None: one step each.
        washout: samples at the start that are not used, at least lags - 1.
        held_out: samples at the end on which the readouts are judged.
        penalty: of the ridge regression.

    Raises:
        ValueError: the samples are not those of one input, or too few.
    """
    if us.ndim != 2 or us.shape[1] != 1:
        raise ValueError(f"us must be the samples of one input (time, 1), got the shape {tuple(us.shape)}.")
    if not 1 <= lags <= washout + 1:
        raise ValueError(f"lags = {lags} must be at least 1 and at most washout + 1 = {washout + 1}.")
    if not 2 <= held_out < len(us) - washout - 1:
        raise ValueError(
            f"held_out = {held_out} must be at least 2 and leave samples to fit: {len(us)} - washout = {washout}."
        )
    run = integrate(model, Held(us, dt), steps=steps)
    states = tree.ravel(run.xs, 1)[washout:].double()
    past = us.double()[:, 0].unfold(0, lags, 1).flip(-1)[washout - lags + 1 :]
    learned = ridge(states[:-held_out], past[:-held_out], penalty=penalty)
    said, true = (a - a.mean(0) for a in (states[-held_out:] @ learned.W_out.T, past[-held_out:]))
    both, spread = (said * true).sum(0).square(), said.square().sum(0) * true.square().sum(0)
    return Memory(torch.where(spread > 0, both / spread, 0.0))


def linear_memory(eigenvalues: Complex[Tensor, " mode"] | Float[Tensor, " mode"], lags: int) -> Memory:
    """The memory of x <- A x + w u, from the eigenvalues of A alone: its capacity over all lags is their number.

    All A and w with these eigenvalues whose input reaches every mode are one system in different coordinates, and a
    linear readout does not see the coordinates. Here they are those in which independent inputs make independent
    states of equal size (Takenaka 1925, Malmquist 1926): nothing is inverted, where the states' covariance itself
    is mostly singular to rounding. In steps alpha = dt / tau the eigenvalues are 1 + alpha (lambda - 1), for a held
    input exp(dt (lambda - 1) / tau), lambda those of W_rec.

    Raises:
        ValueError: an eigenvalue has a modulus of 1 or above, which never forgets.
    """
    poles = eigenvalues.detach().to("cpu", torch.complex128).numpy()
    if not (np.abs(poles) < 1).all():
        raise ValueError(f"the largest |eigenvalue| is {np.abs(poles).max():g}; it must be below 1.")
    passed = np.zeros(lags, complex)
    passed[0] = 1
    share = np.zeros(lags)
    for pole in poles:
        mode = lfilter([1], [1, -pole], passed)
        share += (1 - abs(pole) ** 2) * np.abs(mode) ** 2
        passed = lfilter([-pole.conjugate(), 1], [1], mode)
    return Memory(torch.from_numpy(share))
