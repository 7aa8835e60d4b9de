"""How fast neighbouring trajectories part: Lyapunov exponents of flows, maps and driven networks."""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.analysis.linearise import Dynamics, in_float64
from ctrnn.dynamics import Model
from ctrnn.errors import NonFiniteState
from ctrnn.solvers import RK4, Solver, Step
from ctrnn.solvers.runge_kutta import RungeKutta

BLOCKS = 16  # of the run, for the standard error
SMALL = 64  # numbers in a state whose Jacobians are taken whole, however few exponents are wanted ...
LARGE = 1024  # ... and in one whose Jacobians are where a quarter of all exponents is
CHUNK = 2**18  # numbers in the Jacobians of the steps that are taken at once: more does not stay in a core's cache


class LyapunovSpectrum(NamedTuple):
    """Lyapunov exponents in 1 / unit of time (of a bare map: 1 / iteration), greatest first."""

    exponents: Float[Tensor, "*batch k"]
    standard_error: Float[Tensor, "*batch k"]  # from the means of 16 blocks of the run; NaN for fewer intervals
    kaplan_yorke: Float[Tensor, "*batch"]  # dimension (Kaplan & Yorke 1979); NaN where more exponents are needed
    entropy_rate: Float[Tensor, "*batch"]  # sum of the positive ones (Pesin 1977), of the k computed
    history: Float[Tensor, "interval *batch k"]  # the running estimate
    ts: Float[Tensor, " interval"]  # its times, counted from the end of the transient


def lyapunov_spectrum(
    system: Dynamics,
    x0: State,
    drive: Float[Tensor, "time *batch input"] | Callable[[Tensor], Tensor] | None = None,
    *,
    k: int | None = None,
    dt: float | None = None,
    duration: float,
    transient: float = 0.0,
    interval: float | None = None,
    solver: Solver | None = None,
    progress: Callable[[float], None] | None = None,
) -> LyapunovSpectrum:
    """The k greatest Lyapunov exponents, by carrying k tangent vectors along and re-orthonormalising them (QR).

    Benettin, Galgani, Giorgilli & Strelcyn (1980), Meccanica 15:9; Shimada & Nagashima (1979). The tangent vectors are
    those of the discretised system, exactly, so the exponents of a `Step` are those of the map it is.

    A drive makes the exponents conditional on it: neighbours see the same input. Time is no part of the state, so a
    driven system need not have an exponent 0.

    Args:
        system: a Model (its flow, by fixed steps of `solver`), a Step with its dt, or a callable map (x[, u]) -> x.
        x0: state (*batch, ...), in the precision to compute in (float64 is advised); each row has its own spectrum.
        drive: samples, one for each step (they begin anew when they end), or a function of time; None is silence.
        k: how many exponents; None is all.
        dt: step of a flow, in the unit of its tau.
        duration: time over which the exponents are averaged.
        transient: time that passes first, in which the tangent vectors already turn.
        interval: time between re-orthonormalisations; if None one step of a map and ten of a flow.
        solver: of a flow; RK4 if None.
        progress: called now and then with the fraction done.

    Warns:
        UserWarning: an interval is so long that the smallest exponents are lost in rounding.

    Raises:
        ValueError: more exponents than the state has numbers, a time that holds no step, or a wrong drive.
        NonFiniteState: the run diverged.
    """
    system = in_float64(system) if tree.leaves(x0)[0].dtype == torch.float64 else system
    stepper = _map(system, dt, solver)
    dt = stepper.dt
    x, events, batch = _start(system, x0)
    size = x.shape[-1]
    k = size if k is None else k
    if not 1 <= k <= size:
        raise ValueError(f"a state of {size} numbers has {size} Lyapunov exponents, not {k}: pass k between 1 and it.")
    usual = 10 if isinstance(system, Model) else 1
    every = usual if interval is None else _count("interval", interval, dt)
    skipped, kept = math.ceil(_count("transient", transient, dt, 0) / every), _count("duration", duration, dt) // every
    if kept < 1:
        raise ValueError(
            f"duration = {duration:g} is shorter than one interval of {every * dt:g}: take a longer run or a shorter "
            "interval."
        )
    tangent = _Tangent(stepper, events, _drive(drive, batch, x), every)
    Q = torch.eye(size, k, dtype=x.dtype, device=x.device).expand(len(x), size, k)
    whole = size <= SMALL or (size <= LARGE and 4 * k >= size)
    advance = tangent.by_jacobians if whole else tangent.by_directions
    at_once = max(1, CHUNK // (every * len(x) * size**2)) if whole else 1
    growth: list[Tensor] = []
    for i in range(0, skipped + kept, at_once):
        x, Q, grown = advance(i, min(at_once, skipped + kept - i), x, Q)
        growth += grown
        if not bool(torch.isfinite(x).all() & torch.isfinite(grown[-1]).all()):
            raise _diverged(x, i + len(grown), every, dt, batch)
        if progress is not None:
            progress((i + len(grown)) / (skipped + kept))
    rates = torch.stack(growth[skipped:])
    _check_spread(rates, every * dt)
    return _spectrum((rates / (every * dt)).reshape(kept, *batch, k), every * dt, k == size)


class _Tangent(NamedTuple):
    """The system on ravelled states, and what carries tangent vectors along it."""

    system: "_Map | _Flow"
    events: State
    drive: Callable[[int], Any]
    every: int

    @torch.no_grad()
    def by_jacobians(self, i: int, count: int, x: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """`count` intervals from the i-th: x, Q (row, D, k) and how each direction grew.

        The states come first; their Jacobians are then taken all at once, which is much faster.
        """
        points: list[tuple[Tensor, Tensor, Any]] = []
        for j in range(i * self.every, (i + count) * self.every):
            x = self._ravel(self.system.step(self._time(j, x), self._unravel(x), self.drive(j), points))
        jacobians = self._jacobians(points, len(x))
        each = len(points) // (count * self.every)
        rates = []
        for j in range(count * self.every):
            Q = self.system.carry(jacobians[j * each : (j + 1) * each], Q)
            if (j + 1) % self.every == 0:
                Q, rate = _orthonormal(Q)
                rates.append(rate)
        return x, Q, rates

    def _jacobians(self, points: list[tuple[Tensor, Any, Any]], rows: int) -> Tensor:
        """(point, row, D, D) of what the system is made of."""
        x = torch.cat([self._ravel(state) for _, state, _ in points])
        ts = torch.stack([t for t, _, _ in points]).to(x.dtype).repeat_interleave(rows)[:, None]

        def move(x: Tensor, t: Tensor, u: Any) -> Tensor:
            return self._ravel(self.system.local(t, self._unravel(x), u))

        if isinstance(points[0][2], Tensor):
            us = torch.cat([u for _, _, u in points])
            found = torch.vmap(torch.func.jacrev(move))(x, ts, us)
        else:
            found = torch.vmap(torch.func.jacrev(lambda x, t: move(x, t, points[0][2])))(x, ts)
        return found.unflatten(0, (-1, rows))

    @torch.no_grad()
    def by_directions(self, i: int, count: int, x: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The same by one derivative along each tangent vector, in the memory of k states."""
        rates = []
        for j in range(i * self.every, (i + count) * self.every):
            u, t = self.drive(j), self._time(j, x)

            def along(q: Tensor, x: Tensor = x, t: Tensor = t, u: Any = u) -> Any:
                move = lambda rows: self._ravel(self.system.step(t, self._unravel(rows), u, []))
                return torch.func.jvp(move, (x,), (q,))

            x, Q = torch.vmap(along, in_dims=-1, out_dims=(None, -1))(Q)  # type: ignore[arg-type]
            if (j + 1) % self.every == 0:
                Q, rate = _orthonormal(Q)
                rates.append(rate)
        return x, Q, rates

    def _ravel(self, x: State) -> Tensor:
        return tree.ravel(x, tree.leaves(x)[0].ndim - tree.leaves(self.events)[0].ndim)

    def _unravel(self, x: Tensor) -> State:
        return tree.unravel(x, self.events, 0)

    def _time(self, j: int, x: Tensor) -> Tensor:
        return torch.tensor(j * self.system.dt, dtype=torch.float64, device=x.device)


class _Map(NamedTuple):
    """A step whose Jacobian is taken as a whole."""

    local: Callable[[Tensor, State, Any], State]  # (t, x, u) -> the next state
    dt: float

    def step(self, t: Tensor, x: State, u: Any, points: list[Any]) -> State:
        """The next state; where Jacobians are wanted is added to `points`."""
        points.append((t, x, u))
        return self.local(t, x, u)

    def carry(self, jacobians: Tensor, Q: Tensor) -> Tensor:
        return jacobians[0] @ Q


class _Flow(NamedTuple):
    """A flow under a Runge-Kutta method, whose tangent is the same method on the equation linearised at each stage.

    Jacobians of the vector field cost a fraction of those of the step.
    """

    local: Callable[[Tensor, State, Any], State]  # (t, x, u) -> dx/dt
    dt: float
    solver: RungeKutta
    drive: Callable[[State, Any, Tensor], Any]

    def step(self, t: Tensor, x: State, u: Any, points: list[Any]) -> State:
        def field(t: Tensor, x: State, u: Tensor) -> State:
            points.append((t, x, u.expand(*tree.leaves(x)[0].shape[:1], u.shape[-1])))
            return self.local(t, x, u)

        return self.solver.step(field, t, self.dt, x, self.drive(x, u, t))  # type: ignore[arg-type]

    def carry(self, jacobians: Tensor, Q: Tensor) -> Tensor:
        stages = iter(jacobians)
        linear = lambda t, Q, u: next(stages) @ Q
        return cast(Tensor, self.solver.step(linear, Q.new_zeros(()), self.dt, Q, None))  # type: ignore[arg-type]


def _orthonormal(Q: Tensor) -> tuple[Tensor, Tensor]:
    Q, R = torch.linalg.qr(Q)
    return Q, R.diagonal(dim1=-2, dim2=-1).abs().log()


def _map(system: Dynamics, dt: float | None, solver: Solver | None) -> _Map | _Flow:
    """The system as a map (t, x, u) -> x, and the time that it takes."""
    if isinstance(system, Step):
        if dt is not None or solver is not None:
            raise ValueError("a Step has its own dt and solver: pass none, or the Model itself.")
        if system.dt is None:
            raise ValueError("A Step that is analysed as a map needs its dt: Step(model, solver, dt=...).")
        length = system.dt
        return _Map(lambda t, x, u: system(t, length, x, _input(system.model, x, u, t, length)), length)
    if isinstance(system, Model):
        if dt is None or not dt > 0:
            raise ValueError(f"the flow of a Model needs a step dt > 0, in the unit of its tau, got dt={dt!r}.")
        solver = RK4() if solver is None else solver
        if isinstance(solver, RungeKutta):
            return _Flow(system, dt, solver, lambda x, u, t: _input(system, x, u, t, dt))
        step = Step(system, solver)
        return _Map(lambda t, x, u: step(t, dt, x, _input(system, x, u, t, dt)), dt)
    if not callable(system):
        raise TypeError(f"analysis needs a Model, a Step or a callable map, got {type(system).__name__}.")
    return _Map(lambda t, x, u: system(x) if u is None else system(x, u), 1.0)


def _input(model: Model, x: State, u: Any, t: Tensor, dt: float) -> Any:
    """Silence, a sample, or a function of time as one of the fraction of the step."""
    first = tree.leaves(x)[0]
    if u is None:
        return first.new_zeros(*first.shape[:-1], model.n_in or 0)
    return u if isinstance(u, Tensor) else lambda c: u(t + c * dt).to(first.dtype)


def _start(system: Dynamics, x0: State) -> tuple[Tensor, State, torch.Size]:
    """x0 as (row, D), the shape of one state, and the batch axes."""
    model = system.model if isinstance(system, Step) else system
    leaf, axes = tree.leaves(x0)[0], 1
    if isinstance(model, Model):
        try:
            axes = tree.leaves(model.initial_state())[0].ndim
        except NotImplementedError:
            axes = 1
    batch = leaf.shape[: leaf.ndim - axes]
    rows = tree.map(lambda a: a.detach().reshape(batch.numel(), *a.shape[len(batch) :]), x0)
    return tree.ravel(rows, 1), tree.map(lambda a: a[0], rows), batch


def _drive(drive: Any, batch: torch.Size, x: Tensor) -> Callable[[int], Any]:
    """The input of the j-th step."""
    if drive is None:
        return lambda j: None
    if not isinstance(drive, Tensor) and not callable(drive):
        raise TypeError(
            f"drive must be samples (time, *batch, n_in) or a function of time, got {type(drive).__name__}."
        )
    if isinstance(drive, Tensor):
        us = drive.to(x)
        if us.ndim == 2 and batch:
            us = us.reshape(len(us), *[1] * len(batch), us.shape[-1])
        us = us.expand(len(us), *batch, us.shape[-1]).reshape(len(us), len(x), us.shape[-1])
        return lambda j: us[j % len(us)]
    return lambda j: drive


def _count(name: str, time: float, dt: float, least: int = 1) -> int:
    count = round(time / dt)
    if count < least:
        raise ValueError(f"{name} = {time:g} holds no step of {dt:g}: make it longer.")
    return count


def _diverged(x: Tensor, i: int, every: int, dt: float, batch: torch.Size) -> NonFiniteState:
    bad = int((~torch.isfinite(x)).any(-1).nonzero()[0, 0]) if not bool(torch.isfinite(x).all()) else 0
    sample = tuple(int(n) for n in torch.unravel_index(torch.tensor(bad), batch)) if batch else ()
    step = (i + 1) * every
    return NonFiniteState(
        f"the run diverged before t = {step * dt:g} (step {step}, sample {sample}): take a smaller dt, or a start from "
        "which the system stays bounded; a direction that shrinks to exactly 0 has the exponent -inf.",
        t=step * dt,
        step=step,
        sample=sample,
    )


def _check_spread(rates: Tensor, length: float) -> None:
    """Warn where the directions part so much within an interval that the weakest are lost in rounding."""
    spread = float((rates.amax(-1) - rates.amin(-1)).max())
    if spread > -math.log(16 * torch.finfo(rates.dtype).eps):
        warnings.warn(
            f"within an interval of {length:g} tangent vectors grew apart by a factor of e**{spread:.0f}, more than "
            f"{rates.dtype} resolves: the smallest exponents are wrong; take a shorter interval or fewer exponents.",
            stacklevel=3,
        )


def _spectrum(growth: Tensor, length: float, full: bool) -> LyapunovSpectrum:
    """From the growth rates of each interval (interval, *batch, k)."""
    count = len(growth)
    ts = length * torch.arange(1, count + 1, dtype=torch.float64, device=growth.device)
    history = growth.cumsum(0) / torch.arange(1, count + 1, device=growth.device).reshape(-1, *[1] * (growth.ndim - 1))
    order = history[-1].argsort(-1, descending=True)
    growth, history = (values.gather(-1, order.expand_as(values)) for values in (growth, history))
    exponents = history[-1]
    blocks = torch.stack([block.mean(0) for block in growth.tensor_split(BLOCKS)]) if count >= BLOCKS else None
    error = torch.full_like(exponents, torch.nan) if blocks is None else blocks.std(0) / math.sqrt(BLOCKS)
    return LyapunovSpectrum(
        exponents, error, _kaplan_yorke(exponents, full), exponents.clamp(min=0).sum(-1), history, ts
    )


def _kaplan_yorke(exponents: Tensor, full: bool) -> Tensor:
    """j + (sum of the first j) / |the next|, j the most whose sum is not negative."""
    sums = exponents.cumsum(-1)
    j = (sums >= 0).sum(-1, keepdim=True)
    size = exponents.shape[-1]
    partial = torch.where(j > 0, sums.gather(-1, (j - 1).clamp(min=0)), 0.0)
    after = exponents.gather(-1, j.clamp(max=size - 1)).abs()
    whole = j == size
    beyond = torch.full_like(partial, float(size) if full else torch.nan)
    return torch.where(whole, beyond, j + partial / after)[..., 0]
