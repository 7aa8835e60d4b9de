"""Learning a linear readout of what a network does: ridge regression at once, or recursively sample by sample."""

import copy
import math
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ctrnn._integrate import integrate
from ctrnn._model_files import class_name
from ctrnn._types import State
from ctrnn.drive import Held
from ctrnn.models._units import Units, check_size
from ctrnn.models.jordan import Jordan
from ctrnn.models.reservoir import EchoState

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
    if not 0 <= penalty < math.inf:
        raise ValueError(f"penalty = {penalty} must be a finite number, at least 0.")
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
        dtype: of W (n_out, n) and P (n, n), in which everything is computed.

    Raises:
        TypeError, ValueError: a size, a penalty, a factor or the dtype is impossible.
    """

    def __init__(
        self, n: int, n_out: int, *, penalty: float = 1e-6, forget: float = 1.0, dtype: torch.dtype = torch.float64
    ) -> None:
        check_size("n", n, 1)
        check_size("n_out", n_out, 1)
        if not dtype.is_floating_point:
            raise TypeError(f"dtype = {dtype} cannot hold weights: take torch.float32 or torch.float64.")
        if not 0 < penalty < math.inf:
            raise ValueError(f"penalty = {penalty} must be above 0 and finite: P starts at 1 / penalty.")
        if not 0 < forget <= 1:
            raise ValueError(f"forget = {forget} must lie in (0, 1]; 1 forgets nothing.")
        self.W, self.P, self.forget = torch.zeros(n_out, n, dtype=dtype), torch.eye(n, dtype=dtype) / penalty, forget

    @torch.no_grad()
    def update(self, x: Float[Tensor, " unit"], d: Float[Tensor, " output"]) -> Float[Tensor, " output"]:
        """Learn one sample, and return the error made before learning it.

        Raises:
            ValueError: x or d has another size or is not finite, or P overflows; W and P stay as they were.
        """
        x, d = x.to(self.W), d.to(self.W)
        self._check(x, d)
        error = d - self.W @ x
        Px = self.P @ x
        total = self.forget + x @ Px
        k = Px / total
        W, P = self.W + torch.outer(error, k), (self.P - torch.outer(k, Px)) / self.forget
        P = (P + P.T) / 2  # rounding would make it lose its symmetry, and then its sign
        if not all(bool(torch.isfinite(a).all()) for a in (total, W, P)):
            raise ValueError(
                f"W or P would overflow: scale x down, or raise forget = {self.forget}, by which P grows wherever x "
                "says nothing."
            )
        self.W, self.P = W, P
        return error

    def _check(self, x: Tensor, d: Tensor) -> None:
        n_out, n = self.W.shape
        if x.shape != (n,) or d.shape != (n_out,):
            raise ValueError(
                f"x of shape {tuple(x.shape)} and d of shape {tuple(d.shape)} do not fit: one sample is {(n,)} and "
                f"{(n_out,)}."
            )
        for name, a in (("x", x), ("d", d)):
            if not bool(torch.isfinite(a).all()):
                raise ValueError(f"{name} holds NaN or infinity: leave this sample out.")


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

    A network with feedback (`EchoState` with a feedback_scale) is forced by the teacher while its states are collected:
    what it hears back is the target of the sample before, and at the first sample 0. What is returned is free: it hears
    itself. To lead it to the state from which it goes on alone, or to see what it says when it is told, use its
    `teacher_forced()`.

    Args:
        model: a single layer with n_out, whose readout is linear.
        us: samples, each held for dt.
        targets: what should be said after each.
        dt: time per sample, in the unit of the model's tau.
        washout: samples at the start from which nothing is learned.
        penalty: as in `ridge`.

    Raises:
        TypeError: the network is no single layer, or a Jordan, whose states hear the readout; washout is no integer.
        ValueError: there is no readout, or a constrained one, or shapes or numbers do not fit.
    """
    _check_fit(model, us, targets, washout)
    with torch.no_grad():
        shown = model.activity(_collected(model, us, targets, dt))[washout:]
    learned = ridge(shown.flatten(0, -2), targets[washout:].flatten(0, -2), penalty=penalty)
    fitted = copy.deepcopy(model)
    fitted.W_out, fitted.b_out = (nn.Parameter(weight.to(model.W_out)) for weight in learned)
    return fitted


def _collected(model: Units, us: Tensor, targets: Tensor, dt: float) -> State:
    """The states after each sample, under the teacher's forcing where there is feedback."""
    if not isinstance(model, EchoState) or model.W_back is None:
        return integrate(model, Held(us, dt)).xs
    heard = torch.cat([torch.zeros_like(targets[:1]), targets[:-1]]).to(us)
    return integrate(model.teacher_forced(), Held(torch.cat([us, heard], -1), dt)).xs


def _check_fit(model: Units, us: Tensor, targets: Tensor, washout: int) -> None:
    if not isinstance(model, Units) or isinstance(model, Jordan):  # a Jordan's state units hear the readout
        raise TypeError(
            f"fit_readout learns the linear readout of a single layer such as EchoState, got a {type(model).__name__}: "
            "train it with fit, or give ridge the states of its last layer."
        )
    if model.W_out is None or model.b_out is None:
        raise ValueError(f"this {class_name(model)} has no readout to learn: give it n_out.")
    if parametrize.is_parametrized(model, "W_out") or parametrize.is_parametrized(model, "b_out"):
        raise ValueError("the readout is constrained, of which ridge regression knows nothing: train it with fit.")
    if us.shape[-1:] != (model.n_in,) or targets.shape != (*us.shape[:-1], model.n_out):
        raise ValueError(
            f"us of shape {tuple(us.shape)} and targets of shape {tuple(targets.shape)} do not fit: this "
            f"{class_name(model)} needs {(*us.shape[:-1], model.n_in)} and {(*us.shape[:-1], model.n_out)}."
        )
    check_size("washout", washout, 0)
    if washout >= len(us):
        raise ValueError(f"washout = {washout} leaves nothing of {len(us)} samples: give more samples.")
    if isinstance(model, EchoState) and model.W_back is not None and not bool(torch.isfinite(targets).all()):
        raise ValueError("targets hold NaN or infinity: they are fed back, so give numbers, in the washout as well.")


def _check(states: Tensor, targets: Tensor) -> None:
    if states.ndim != 2 or targets.ndim != 2 or len(states) != len(targets) or len(states) == 0:
        raise ValueError(
            f"states (sample, unit) and targets (sample, output) need as many rows, at least one: got "
            f"{tuple(states.shape)} and {tuple(targets.shape)}."
        )
    for name, a in (("states", states), ("targets", targets)):
        if not bool(torch.isfinite(a).all()):
            raise ValueError(f"{name} hold NaN or infinity: the network diverged, or samples are missing.")
