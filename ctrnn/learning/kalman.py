"""Learning online by the extended Kalman filter: the weights are a state, and every target is a measurement of it."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from ctrnn import _tree as tree
from ctrnn._integrate import integrate
from ctrnn._model_files import class_name
from ctrnn._types import State
from ctrnn.dynamics import Model
from ctrnn.learning.training import TrainingError
from ctrnn.models._units import check_size
from ctrnn.solvers import Euler, Solver, Step

M = TypeVar("M", bound=Model)

Groups = tuple[Int[Tensor, " own"], ...]  # places in the vector of all learned numbers


def one_group(model: nn.Module) -> Groups:
    """All learned numbers together: the global filter (GEKF)."""
    return _grouped(model, lambda layer, row: "")


def by_layer(model: nn.Module) -> Groups:
    """Each layer for itself, and each readout: the layer-decoupled filter."""
    return _grouped(model, lambda layer, row: layer)


def by_node(model: nn.Module) -> Groups:
    """What leads to one unit, a row of W_rec, W_in, b_rec ...: the node-decoupled filter (DEKF)."""
    return _grouped(model, lambda layer, row: f"{layer} {row}")


class KalmanState(NamedTuple):
    """What the filter believes about the weights, in float64: each group's P is the covariance of its error."""

    w: Float[Tensor, " weight"]  # all numbers that are learned, one parameter behind the other
    P: tuple[Float[Tensor, "own own"], ...]
    groups: Groups


class Online(NamedTuple):
    """Where learning from a stream stands: hand it back to `fit_kalman` to go on."""

    samples: int  # learned so far
    weights: KalmanState
    x: State  # of the network, (stream, ...)
    dx_dw: Float[Tensor, "stream coordinate weight"]  # its derivative, the coordinates of x side by side


class Filtered(NamedTuple):
    """What learning from a stream gave."""

    model: Any  # a copy of the network with the weights last believed
    errors: Float[Tensor, "time *batch output"]  # target minus output, before the sample was learned
    online: Online


@dataclass(frozen=True)
class ExtendedKalman:
    """G = (sum_g C_g P_g C_g^T + R)^-1,   K_g = P_g C_g^T G,   w_g <- w_g + K_g e,   P_g <- P_g - K_g C_g P_g + Q.

    C_g = dy/dw_g, e = target - y. Puskorius & Feldkamp (1994), IEEE Trans. Neural Networks 5:279-297; in this form
    Haykin (ed., 2001), Kalman Filtering and Neural Networks, eqs. 2.12-2.15. With one group it is the global filter;
    several neglect how the errors of two groups go together, and cost less: the sum of their squared sizes. If y is
    linear in w, R = 1 and Q = 0, w is after every sample the ridge regression of penalty 1 / P0 around the weights at
    the start (`RecursiveLeastSquares`).

    The filter computes in float64 whatever the network does: the eigenvalues of P come to span many decades.

    Args:
        P0: variance of every weight at the start.
        R: variance of a target around the output; P0 / R is a learning rate at the start.
        Q: by how much the variance of every weight grows between samples; above 0 the filter never falls asleep.
        groups: from a network to its groups: `one_group`, `by_layer`, `by_node`, or your own.

    Raises:
        TypeError, ValueError: groups is no function, or a variance is impossible.
    """

    P0: float = 1.0
    R: float = 1.0
    Q: float = 0.0
    groups: Callable[[nn.Module], Groups] = one_group

    def __post_init__(self) -> None:
        for name, value in (("P0", self.P0), ("R", self.R)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} = {value} must be a variance above 0.")
        if not 0 <= self.Q < math.inf:
            raise ValueError(f"Q = {self.Q} must be a variance, at least 0.")
        if not callable(self.groups):
            raise TypeError(f"groups must be a function such as one_group or by_node, got {self.groups!r}.")

    def start(self, model: nn.Module) -> KalmanState:
        """The network's own weights, each known to within sqrt(P0).

        Raises:
            ValueError: no parameter requires a gradient, or the groups do not hold each learned number once.
        """
        w = torch.cat([p.detach().flatten().double() for p in _learned(model).values()])
        groups = self.groups(model)
        if not groups or not torch.equal(torch.cat(groups).sort().values, torch.arange(len(w))):
            raise ValueError(
                f"the groups must hold each of the places 0 ... {len(w) - 1} once: these are the numbers of the "
                "parameters that require a gradient, flattened and one parameter behind the other."
            )
        return KalmanState(w, tuple(self.P0 * torch.eye(len(own)).to(w) for own in groups), groups)

    @torch.no_grad()
    def update(
        self, state: KalmanState, C: Float[Tensor, "measured weight"], e: Float[Tensor, " measured"]
    ) -> KalmanState:
        """Learn what was measured at once: the outputs of one sample, or of one sample in each of several streams."""
        C, e = C.to(state.w), e.to(state.w)
        parts = [C[:, own] for own in state.groups]
        CP = [part @ P for part, P in zip(parts, state.P, strict=True)]
        S = self.R * torch.eye(len(e)).to(e) + sum(a @ c.T for a, c in zip(CP, parts, strict=True))
        root = torch.linalg.cholesky(S)  # G = (root root^T)^-1
        surprise = torch.linalg.solve_triangular(root, e[:, None], upper=False)
        w, P = state.w.clone(), []
        for own, before, a in zip(state.groups, state.P, CP, strict=True):
            half = torch.linalg.solve_triangular(root, a, upper=False)  # half^T half = K C P
            w[own] += (half.T @ surprise)[:, 0]
            after = before - half.T @ half
            after.diagonal().add_(self.Q)
            P.append((after + after.T) / 2)
        return KalmanState(w, tuple(P), state.groups)


def fit_kalman(
    model: M,
    us: Float[Tensor, "time *batch input"],
    targets: Float[Tensor, "time *batch output"],
    *,
    dt: float,
    rule: ExtendedKalman,
    solver: Solver = Euler(),  # noqa: B008  a frozen value
    washout: int = 0,
    online: Online | None = None,
) -> Filtered:
    """A copy of the network that has learned a stream sample by sample, by the extended Kalman filter.

    C comes from sensitivities that travel with the state, dx_k/dw = dF/dx dx_{k-1}/dw + dF/dw for the step x_k =
    F(x_{k-1}, w) (real-time recurrent learning, Williams & Zipser 1989): nothing is truncated, but what was found
    with earlier weights stays. Streams side by side are measured at once: one update learns from all of them
    (multi-stream training, Haykin 2001, section 2.5). For a network of few units and one or two outputs.

    Args:
        model: any network; the parameters that require a gradient are learned. A learned tau is not kept above dt.
        us: samples in the network's dtype, each held for dt, which is one step.
        targets: what should be said after each.
        dt: time per sample, in the unit of the model's tau; dt = tau is the discrete network.
        rule: the filter.
        solver: makes the step.
        washout: samples at the start from which nothing is learned.
        online: where an earlier call stopped: its weights and states go on, those of `model` do not count.

    Raises:
        TypeError, ValueError: an argument is of another kind, shapes or numbers do not fit, nothing is to be learned,
            or `integrate` would refuse the run, as it does a dt beyond tau.
        TrainingError: network or filter diverged; it carries the network as it was before.
    """
    _check(model, us, targets, dt, rule, solver, washout, online)
    like = next(iter(_learned(model).values()))
    drive, wanted = (a.reshape(len(a), -1, a.shape[-1]).to(like) for a in (us, targets))
    sample = _Sample(model, solver, dt)
    samples, weights, x, dx_dw = _begin(model, rule, drive.shape[1]) if online is None else online
    flat, errors = tree.ravel(x, 1), []
    if len(flat) != drive.shape[1] or flat.shape[1:] != sample.width or len(weights.w) != sample.learned:
        raise ValueError(
            f"online has {len(flat)} streams of {flat[0].numel()} coordinates and {len(weights.w)} learned numbers, us "
            f"has {drive.shape[1]} streams and the network {sample.width[0]} coordinates and {sample.learned} learned "
            "numbers: go on with the network, and as many streams, that it came from."
        )
    for k, (u, target) in enumerate(zip(drive.unbind(0), wanted.unbind(0), strict=True)):
        t = torch.tensor((samples + k) * dt, dtype=torch.float64)
        by_x, by_w, flat, y = sample.linearised(t, flat, weights.w.to(like), u)
        dx_dw, C = (by_x @ dx_dw + by_w).split([flat.shape[-1], y.shape[-1]], 1)
        errors.append(target - y)
        if not bool(torch.isfinite(C).all() & torch.isfinite(errors[-1]).all()):
            raise TrainingError(
                f"The network diverged at sample {k}: raise R, or lower P0 or Q. The error's `model` is as the last "
                "update left it.",
                update=k,
                model=sample.at(weights.w),
                history=[],
            )
        if k >= washout:
            weights = rule.update(weights, C.flatten(0, 1), errors[-1].flatten())
    state = Online(samples + len(us), weights, tree.unravel(flat, x, 1), dx_dw)
    return Filtered(sample.at(weights.w), torch.stack(errors).reshape(targets.shape), state)


class _Sample:
    """One sample as a function of the state before it and of the weights."""

    def __init__(self, model: Model, solver: Solver, dt: float) -> None:
        self.model, self.dt = model, dt
        self.module = _StepAndReadout(model, solver)
        self.like = tree.map(torch.detach, model.initial_state())
        self.width = tree.ravel(self.like, 0).shape
        self.shapes = {name: p.shape for name, p in _learned(model).items()}
        self.learned = sum(shape.numel() for shape in self.shapes.values())

    def linearised(self, t: Tensor, x: Tensor, w: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """d(new x, y)/dx, d(new x, y)/dw, new x, y; each with a leading axis of streams."""
        both = vmap(jacrev(self._both, argnums=(1, 2), has_aux=True), in_dims=(None, 0, None, 0))
        (by_x, by_w), (x, y) = both(t, x, w, u)
        return by_x.detach(), by_w.detach(), x.detach(), y.detach()

    def at(self, w: Tensor) -> Model:
        """A copy of the network with these weights."""
        model = copy.deepcopy(self.model)
        parts = self._parts(w)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name in parts:
                    p.copy_(parts[name])
        return model

    def _both(self, t: Tensor, x: Tensor, w: Tensor, u: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        named = {f"model.{name}": part for name, part in self._parts(w).items()}
        new, y = functional_call(self.module, named, (t, self.dt, tree.unravel(x, self.like, 0), u))
        flat = tree.ravel(new, 0)
        return torch.cat([flat, y]), (flat, y)

    def _parts(self, w: Tensor) -> dict[str, Tensor]:
        pieces = w.split([shape.numel() for shape in self.shapes.values()])
        return {name: piece.reshape(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}


class _StepAndReadout(Step):
    """The state after a step, and what the network says then."""

    def forward(self, t: Tensor, dt: Any, x: State, u: Any) -> Any:
        new = super().forward(t, dt, x, u)
        return new, self.model.readout(new)


def _begin(model: Model, rule: ExtendedKalman, streams: int) -> Online:
    x, weights = tree.map(torch.detach, model.initial_state(streams)), rule.start(model)
    flat = tree.ravel(x, 1)
    return Online(0, weights, x, flat.new_zeros(*flat.shape, len(weights.w)))


def _learned(model: nn.Module) -> dict[str, nn.Parameter]:
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not learned:
        raise ValueError(
            f"{type(model).__name__} has no parameter that requires a gradient: there is nothing to learn."
        )
    return learned


def _grouped(model: nn.Module, key: Callable[[str, int], str]) -> Groups:
    """Places with the same key(layer, row), a readout counting as a layer, in the order of their first appearance."""
    places: dict[str, list[int]] = {}
    place = 0
    for name, p in _learned(model).items():
        # a constrained weight is called layers.0.parametrizations.W_rec.original
        owner, _, own = name.replace("parametrizations.", "").removesuffix(".original").rpartition(".")
        layer = f"{owner} out" if own.endswith("_out") else owner
        rows = len(p) if p.ndim else 1
        for row in range(rows):
            places.setdefault(key(layer, row), []).extend(range(place, place + p.numel() // rows))
            place += p.numel() // rows
    return tuple(torch.tensor(own) for own in places.values())


def _check(
    model: Model,
    us: Tensor,
    targets: Tensor,
    dt: float,
    rule: ExtendedKalman,
    solver: Solver,
    washout: int,
    online: Online | None,
) -> None:
    with torch.no_grad():  # what integrate refuses is refused here by the same check: of it all, one sample is run
        integrate(model, us[:1], dt=dt, solver=solver, on_failure="return")
    if not isinstance(rule, ExtendedKalman):
        raise TypeError(f"rule must be an ExtendedKalman, got {rule!r}: ExtendedKalman() is the plain filter.")
    if online is not None and not isinstance(online, Online):
        raise TypeError(f"online must be the `online` of what fit_kalman returned, got a {type(online).__name__}.")
    if not isinstance(targets, Tensor) or not targets.is_floating_point():
        got = getattr(targets, "dtype", type(targets).__name__)
        raise TypeError(f"targets must be a floating-point Tensor, got {got}: convert them with .float() or .double().")
    n_out = model.readout(model.initial_state()).shape[-1]
    if targets.shape != (*us.shape[:-1], n_out):
        raise ValueError(
            f"us (time, *batch, input) and targets (time, *batch, output) need the same times and streams, and "
            f"{class_name(model)} has {n_out} outputs: got {tuple(us.shape)} and {tuple(targets.shape)}."
        )
    check_size("washout", washout, 0)
    if washout >= len(us):
        raise ValueError(f"washout = {washout} leaves nothing of {len(us)} samples: give more samples.")
    for name, a in (("us", us), ("targets", targets)):
        if not bool(torch.isfinite(a).all()):
            raise ValueError(f"{name} hold NaN or infinity: leave such samples out.")
