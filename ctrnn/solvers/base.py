"""What a solver is: a value that makes one step, and the step itself as a module."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ctrnn import _tree as tree
from ctrnn._model_files import class_name
from ctrnn._types import Input, Scalar, State
from ctrnn.dynamics import Model, Relaxation, pull
from ctrnn.solvers.clock import swept, ticks
from ctrnn.steps import Adaptive

Field = Callable[[Tensor, State, Tensor], State]  # dx/dt, or tau dx/dt, of t, x, u


def value(u: Input, c: Any) -> Any:
    """The drive at the fraction c of the step."""
    return u(c) if callable(u) else u


def advance(x: State, dt: Scalar, slope: State) -> State:
    """x + dt * slope, for one dt or one per sample."""
    tree.same_form(x, slope, "slope")
    return tree.add(x, slope, dt)


def ratio(dt: Scalar, tau: Tensor) -> Tensor:
    """dt / tau in the dtype of tau, exactly 1 where they are equal."""
    # torch.div and not dt / tau, which torch computes as dt * (1 / tau): that is 1 at dt = tau in only 86 % of draws.
    return torch.div(torch.as_tensor(dt, dtype=tau.dtype, device=tau.device), tau)


class Flow(NamedTuple):
    """A vector field as dx/dt = pull(t, x, u) / tau; of a bare one tau is None, which is 1."""

    pull: Field
    tau: Any

    def slope(self, pull: State) -> State:
        """dx/dt."""
        return pull if self.tau is None else tree.map(torch.div, pull, tree.spread(self.tau, pull))

    def fits(self, x: State) -> bool:
        """Whether tau has the dtype of x."""
        if self.tau is None:
            return True
        if isinstance(x, Tensor):
            return self.tau.dtype == x.dtype
        parts = zip(tree.leaves(tree.spread(self.tau, x)), tree.leaves(x), strict=True)
        return all(tau.dtype == leaf.dtype for tau, leaf in parts)

    def reach(self, dt: Scalar, x: State) -> Any:
        """dt / tau for each part of x: a step moves it by this times a mean of its pulls."""
        return tree.map(_reach, x, tree.spread(dt, x), tree.spread(self.tau, x))


def _reach(x: Tensor, dt: Scalar, tau: Tensor | None) -> Scalar:
    dt = tree.per_leaf(dt, x)
    if tau is None:
        return dt
    wide = torch.promote_types(tau.dtype, x.dtype)
    return ratio(dt, tau.to(wide.to_real() if wide.is_complex else wide))


def flow(model: Any) -> Flow:
    """The flow of a model; a relaxation's tau is read once for all that is asked of it. A `Flow` is itself."""
    if isinstance(model, Flow):
        return model
    own = not isinstance(model, Relaxation) or type(model).forward is not Relaxation.forward or "forward" in vars(model)
    if own or model._forward_hooks or model._forward_pre_hooks:  # hooks want to see every call
        return Flow(lambda t, x, u: _slope(model, t, x, u), None)
    return Flow(partial(pull, model), model.tau)


def _slope(model: Model, t: Tensor, x: State, u: Tensor) -> State:
    slope = model(t, x, u)
    tree.same_form(x, slope, "slope")
    return slope


@dataclass(frozen=True)
class Solver:
    """One step of a method: no arguments, no memory, printable, hashable, picklable."""

    order: ClassVar[int]
    error_order: ClassVar[int | None] = None
    stiff: ClassVar[bool] = False
    own_steps: ClassVar[bool] = False  # chooses its own steps inside those it is given
    whole: ClassVar[bool] = False  # each step is a whole tau of every part, whatever dt
    lerps: ClassVar[bool] = False  # a step is one lerp, by the alpha that `prepare` gives

    @property
    def evaluations(self) -> int:
        """Evaluations of the vector field or target in one step."""
        return 1

    def with_tolerances(self, steps: Adaptive) -> "Solver":
        """The solver that meets these tolerances inside each of its steps, where it has steps of its own."""
        del steps
        return self

    def read(self, model: Model) -> Any:
        """What to pass for `model` to all that follows: the model itself, or what of it can be read once for a run."""
        return model

    def prepare(self, model: Model, dt: Scalar) -> Any:
        """What a step of length dt needs that does not depend on the state; the loop computes it once for each dt."""
        del model, dt
        return None

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        """The state at t + dt from the state x at t."""
        raise NotImplementedError

    def diffusion(self, prepared: Any) -> Any:
        """Standard deviation of the noise of one step over that of the stationary state, one per part of the state."""
        del prepared
        raise ValueError(f"noise is integrated by Euler, ExponentialEuler and Iterate on a Relaxation, not by {self}.")


class Attempt(NamedTuple):
    """A step that may be rejected: the state at its end, and what its error and dense output are made of."""

    x: State
    slopes: tuple[State, ...]  # as the method counts them
    last: State | None = None  # the one at the end of the step, where the method evaluates it anyway
    reach: Any = None  # dt / tau for each part, where slopes are a flow's pulls


@dataclass(frozen=True)
class EmbeddedSolver(Solver):
    """A solver with an error estimate and dense output, fit for adaptive steps."""

    starts_with_slope: ClassVar[bool] = True  # the first of the slopes is the flow's pull at the start

    def attempt(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, first: State | None = None) -> Attempt:
        """A step; `first` is the first of its slopes when it is known."""
        raise NotImplementedError

    def error(self, attempt: Attempt) -> State:
        """The estimated error of an attempted step."""
        raise NotImplementedError

    def interpolate(
        self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, attempt: Attempt, theta: Tensor, rows: Tensor
    ) -> State:
        """States within an attempted step of a batch (row,), to an error of the order of the method.

        Each of them, (save,), is that of a row of the batch at a fraction theta (save, 1) of its step.
        """
        raise NotImplementedError

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        del prepared
        return self.attempt(model, t, dt, x, u).x


@dataclass(frozen=True)
class Ticking(Solver):
    """Steps of a solver, and at the end of each a tick of whatever of the model is clocked and due."""

    solver: Solver

    @property
    def evaluations(self) -> int:
        return self.solver.evaluations

    def prepare(self, model: Model, dt: Scalar) -> Any:
        return self.solver.prepare(model, dt)

    def step(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, prepared: Any = None) -> State:
        assert isinstance(model, Relaxation)
        rates = ticks(model, t, dt)
        if rates is None or (self.solver.lerps and not any(isinstance(rate, Tensor) for rate in tree.leaves(rates))):
            # One lerp takes the flowing parts by their alpha and the clocked ones wholly, in the order of the parts.
            alpha = prepared if rates is None else tree.map(_or, rates, tree.spread(prepared, x))
            return self.solver.step(model, t, dt, x, u, alpha)
        x = self.solver.step(model, t, dt, x, u, prepared)
        return swept(model, t + dt, x, value(u, 1.0), rates)

    def diffusion(self, prepared: Any) -> Any:
        return self.solver.diffusion(prepared)


def _or(rate: Any, alpha: Any) -> Any:
    return rate or alpha


@dataclass(frozen=True)
class TickingEmbedded(Ticking, EmbeddedSolver):
    """The same for a solver with an error estimate, which starts anew after each step."""

    solver: EmbeddedSolver

    @property
    def error_order(self) -> int | None:  # type: ignore[override]
        return self.solver.error_order

    @property
    def starts_with_slope(self) -> bool:  # type: ignore[override]
        return self.solver.starts_with_slope

    def attempt(self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, first: State | None = None) -> Attempt:
        assert isinstance(model, Relaxation)
        attempt = self.solver.attempt(model, t, dt, x, u, first)
        rates = ticks(model, t, dt)
        end = attempt.x if rates is None else swept(model, t + dt, attempt.x, value(u, 1.0), rates)
        return attempt._replace(x=end, last=None)

    def error(self, attempt: Attempt) -> State:
        return self.solver.error(attempt)

    def interpolate(
        self, model: Model, t: Tensor, dt: Scalar, x: State, u: Input, attempt: Attempt, theta: Tensor, rows: Tensor
    ) -> State:
        assert isinstance(model, Relaxation)
        kept = attempt._replace(x=_held(model.clock, x, attempt.x))
        found = self.solver.interpolate(model, t, dt, x, u, kept, theta, rows)
        return _held(model.clock, tree.pick(x, rows), found)


def _held(clock: Any, x: State, later: State) -> State:
    """The flowing parts of a later state, and the clocked ones as they were."""
    return tree.map(lambda period, old, new: new if period is None else old, clock, x, later)


def _ticking(solver: Solver) -> Solver:
    return TickingEmbedded(solver) if isinstance(solver, EmbeddedSolver) else Ticking(solver)


def _clocked(model: Model) -> bool:
    """Whether parts of the model's state are clocked.

    Raises:
        TypeError: it is made of a clocked network and does not say so; that would never tick.
    """
    if isinstance(model, Relaxation) and model.clock is not None:
        return True
    for inner in model.modules():
        if isinstance(inner, Relaxation) and inner.clock is not None:
            raise TypeError(
                f"{class_name(model)} holds a clocked {class_name(inner)} and has no clock, so that it would never "
                "tick: define clock, as Stack does, or build the inner network relaxed."
            )
    return False


class Step(nn.Module):
    """x(t + dt) = step(t, dt, x, u): the one-step map as a module.

    torch.compile, functional_call, vmap and jacrev act on it. `dt` is the step with which analysis iterates the map
    when it is asked for no other. Where parts of the model are clocked, a step that ends at a tick moves them too.
    """

    def __init__(self, model: Model, solver: Solver, dt: float | None = None) -> None:
        super().__init__()
        self.model = model
        self.solver = _ticking(solver) if _clocked(model) and not solver.whole else solver
        self.dt = dt

    def forward(self, t: Tensor, dt: Scalar, x: State, u: Input) -> State:
        return self.solver.step(self.model, t, dt, x, u, self.solver.prepare(self.model, dt))


def relaxation(model: Model, solver: Solver) -> Relaxation:
    """`model`, if it is a Relaxation."""
    if not isinstance(model, Relaxation):
        raise TypeError(
            f"{solver} needs a Relaxation (tau dx/dt = F - x), {class_name(model)} is a bare vector field: "
            "use Euler(), RK4() or Tsit5()."
        )
    return model
