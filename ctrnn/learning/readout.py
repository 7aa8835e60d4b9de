"""Learning a linear readout of what a network does: ridge regression at once, or recursively sample by sample."""

import copy
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from ctrnn._integrate import integrate
from ctrnn.drive import Held
from ctrnn.models._units import Units

M = TypeVar("M", bound=Units)


class Readout(NamedTuple):
    """y = W_out x + b_out."""

    W_out: Float[Tensor, "output unit"]
    b_out: Float[Tensor, " output"]


def ridge(
    states: Float[Tensor, "sample unit"], targets: Float[Tensor, "sample output"], *, penalty: float = 1e-6
) -> Readout:
    """argmin of sum |W_out x + b_out - d|^2 + penalty |W_out|^2; the bias is free (scikit-learn's Ridge, in float64).

    Args:
        states: what the readout sees.
        targets: what it should say, as many rows.
        penalty: at least 0, in units of the states squared times samples.

    Raises:
        ValueError: rows or numbers do not fit, or are not finite.
    """
    _check(states, targets)
    if not penalty >= 0:
        raise ValueError(f"penalty = {penalty} must be at least 0.")
    # Singular values, not normal equations: squaring would lose the directions on which delicate readouts rest.
    solver = Ridge(alpha=penalty, solver="svd")
    solver.fit(*(a.detach().to("cpu", torch.float64).numpy() for a in (states, targets)))
    weights, bias = (torch.as_tensor(a).to(states) for a in (solver.coef_, solver.intercept_))
    return Readout(weights.reshape(targets.shape[1], -1), bias.reshape(-1))


class RecursiveLeastSquares:
    """W <- W + (d - W x) k^T,   k = P x / (forget + x^T P x),   P <- (P - k x^T P) / forget.

    After every sample W is the ridge regression on all samples so far, those s samples ago weighted by forget^s. A
    constant 1 among the x is a bias, penalised like the rest.

    Args:
        n: numbers in x.
        n_out: outputs.
        penalty: of the ridge regression, above 0; P starts at 1 / penalty.
        forget: in (0, 1]; 1 forgets nothing.

    Raises:
        ValueError: a penalty or a factor is impossible.
    """

    def __init__(
        self, n: int, n_out: int, *, penalty: float = 1e-6, forget: float = 1.0, dtype: torch.dtype = torch.float64
    ) -> None:
        if not penalty > 0:
            raise ValueError(f"penalty = {penalty} must be above 0: P starts at 1 / penalty.")
        if not 0 < forget <= 1:
            raise ValueError(f"forget = {forget} must lie in (0, 1]; 1 forgets nothing.")
        self.W, self.P, self.forget = torch.zeros(n_out, n, dtype=dtype), torch.eye(n, dtype=dtype) / penalty, forget

    @torch.no_grad()
    def update(self, x: Float[Tensor, " unit"], d: Float[Tensor, " output"]) -> Float[Tensor, " output"]:
        """Learn one sample, and return the error made before learning it."""
        x, d = x.to(self.W), d.to(self.W)
        error = d - self.W @ x
        Px = self.P @ x
        k = Px / (self.forget + x @ Px)
        self.W = self.W + torch.outer(error, k)
        P = (self.P - torch.outer(k, Px)) / self.forget
        self.P = (P + P.T) / 2  # rounding would make it lose its symmetry, and then its sign
        return error


def fit_readout(
    model: M,
    us: Float[Tensor, "time *batch input"],
    targets: Float[Tensor, "time *batch output"],
    *,
    dt: float,
    washout: int = 0,
    penalty: float = 1e-6,
) -> M:
    """A copy of the network whose readout is the ridge regression of `targets` on what its units show.

    Args:
        model: a single layer with n_out; with feedback pass `model.teacher_forced()` and the targets, one sample late,
            among the inputs.
        us: samples, each held for dt.
        targets: what should be said after each.
        dt: time per sample, in the unit of the model's tau.
        washout: samples at the start from which nothing is learned.
        penalty: as in `ridge`.

    Raises:
        ValueError: there is no readout, or shapes or numbers do not fit.
    """
    if model.W_out is None or model.b_out is None:
        raise ValueError(f"this {type(model).__name__} has no readout to learn: give it n_out.")
    if targets.shape != (*us.shape[:-1], model.n_out):
        raise ValueError(
            f"targets of shape {tuple(targets.shape)} do not fit inputs of shape {tuple(us.shape)}: "
            f"{(*us.shape[:-1], model.n_out)} are needed."
        )
    if not 0 <= washout < len(us):
        raise ValueError(f"washout = {washout} leaves nothing of {len(us)} samples.")
    with torch.no_grad():
        shown = model.activity(integrate(model, Held(us, dt)).xs)[washout:]
    learned = ridge(shown.flatten(0, -2), targets[washout:].flatten(0, -2), penalty=penalty)
    fitted = copy.deepcopy(model)
    fitted.W_out, fitted.b_out = (nn.Parameter(weight.to(model.W_out)) for weight in learned)
    return fitted


def _check(states: Tensor, targets: Tensor) -> None:
    if states.ndim != 2 or targets.ndim != 2 or len(states) != len(targets) or len(states) == 0:
        raise ValueError(
            f"states (sample, unit) and targets (sample, output) need as many rows, at least one: got "
            f"{tuple(states.shape)} and {tuple(targets.shape)}."
        )
    for name, a in (("states", states), ("targets", targets)):
        if not bool(torch.isfinite(a).all()):
            raise ValueError(f"{name} hold NaN or infinity: the network diverged, or samples are missing.")
