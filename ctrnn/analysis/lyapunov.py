"""How fast neighbouring trajectories part: Lyapunov exponents of flows, maps and driven networks."""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.analysis._system import Dynamics, batch_shape, check_map, in_float64, mapped
from ctrnn.analysis._tangent import Map, System, tangent
from ctrnn.drive import Held
from ctrnn.dynamics import Model
from ctrnn.errors import NonFiniteState
from ctrnn.solvers import RK4, Solver, Step
from ctrnn.solvers.base import value
from ctrnn.solvers.runge_kutta import RungeKutta

BLOCKS = 16  # of the run, for the standard error


class LyapunovSpectrum(NamedTuple):
    """Lyapunov exponents in 1 / unit of time (of a bare map: 1 / iteration), greatest first.

    A direction that the system loses wholly, as a map with a singular Jacobian does, has the exponent -inf.
    """

    exponents: Float[Tensor, "*batch k"]
    standard_error: Float[Tensor, "*batch k"]  # from the means of 16 blocks of the run; NaN for fewer intervals
    kaplan_yorke: Float[Tensor, "*batch"]  # dimension (Kaplan & Yorke 1979); NaN where more exponents are needed
    entropy_rate: Float[Tensor, "*batch"]  # sum of the positive ones (Pesin 1977), of the k computed
    history: Float[Tensor, "interval *batch k"]  # the running estimate
    ts: Float[Tensor, " interval"]  # its times, counted from the end of the transient


def lyapunov_spectrum(
    system: Dynamics,
    x0: State,
    drive: Float[Tensor, "time *batch input"] | Held | Callable[[Tensor], Tensor] | None = None,
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
    driven system need not have an exponent 0. Of a trained network the map it was trained as is a `Step`; the Model
    itself is the flow beside it.

    Args:
        system: a Model (its flow, by fixed steps of `solver`), a Step with its dt, or a callable map (x[, u]) -> x of
            all rows (row, D), which may have weights of their own.
        x0: state (*batch, ...); each row has its own spectrum, and of small systems dozens of rows cost little more
            than one. Models and Steps are computed in float64, a callable in the precision of x0.
        drive: samples, one for each step, or samples Held for a whole number of steps each, so that the flow hears what
            the map at its longer dt hears; they begin anew when they end. Or a function of time; None is silence.
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
        TypeError: x0 or the drive are no floating-point Tensors.
        ValueError: x0 of a wrong shape or with NaN, more exponents than the state has numbers, a time that holds no
            step, a step or solver for what has its own, or a drive that is of a wrong shape or not finite.
        NonFiniteState: the run diverged.
    """
    rows, events, batch = _start(system, x0)
    steps = _steps(in_float64(system), events, dt, solver)
    size, dt = rows.shape[-1], steps.dt
    us = _drive(drive, system, dt, batch, rows)
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
    x, Q = rows, _directions(rows, k)
    advance, most = tangent(steps, us, x, k, every)
    at_once = math.ceil((skipped + kept) / math.ceil((skipped + kept) / most))
    growth: list[Tensor] = []
    for i in range(0, skipped + kept, at_once):
        x, Q, grown = advance(i, min(at_once, skipped + kept - i), x, Q)
        growth += grown
        if not bool(torch.isfinite(x).all() & (grown[-1] < math.inf).all()):
            raise _diverged(torch.stack(grown), x, i, every * dt, every, batch, us)
        if progress is not None:
            progress((i + len(grown)) / (skipped + kept))
    rates = torch.stack(growth[skipped:])
    _check_spread(rates, every * dt)
    return _spectrum((rates / (every * dt)).reshape(kept, *batch, k), every * dt, k == size)


def _directions(x: Tensor, k: int) -> Tensor:
    """k orthonormal directions (row, D, k), random ones: coordinates may span a space that the system never leaves."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(x.shape[-1], k, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(drawn).Q.to(x).expand(len(x), -1, -1)


def _steps(system: Dynamics, events: State, dt: float | None, solver: Solver | None) -> System:
    """The system as steps of ravelled states."""

    def flat(fn: Callable[[Tensor, State, Any], Any]) -> Map:
        if isinstance(events, Tensor) and events.ndim == 1:
            return lambda x, t, u: fn(t, x, u)
        return lambda x, t, u: tree.ravel(fn(t, tree.unravel(x, events, 0), u), 1)

    if isinstance(system, Step):
        if dt is not None or solver is not None:
            raise ValueError("a Step has its own dt and solver: pass none, or the Model itself.")
        if system.dt is None:
            raise ValueError("A Step that is analysed as a map needs its dt: Step(model, solver, dt=...).")
        length = system.dt
        return System(flat(lambda t, x, u: system(t, length, x, u)), length)
    if isinstance(system, Model):
        if dt is None or not 0 < dt < math.inf:
            raise ValueError(f"the flow of a Model needs a step dt > 0, in the unit of its tau, got dt={dt!r}.")
        step = Step(system, RK4() if solver is None else solver)
        move = flat(lambda t, x, u: step(t, dt, x, u))
        if isinstance(step.solver, RungeKutta):
            return System(move, dt, flat(system), step.solver)
        return System(move, dt)
    check_map(system)
    if dt is not None or solver is not None:
        raise ValueError(
            "a callable map has iterations, and neither dt nor solver: pass none, and durations in iterations, or a "
            "Model for a flow."
        )
    return System(flat(lambda t, x, u: mapped(system, x, u)), 1.0)


def _start(system: Dynamics, x0: State) -> tuple[Tensor, State, torch.Size]:
    """x0 as (row, D), the shape of one state, and the batch axes.

    Neighbours part by less than float32 resolves; a bare callable computes in the precision of its x0.
    """
    batch = batch_shape(system, x0)
    if not all(bool(torch.isfinite(leaf).all()) for leaf in tree.leaves(x0)):
        raise ValueError("x0 holds NaN or infinite values: start from a finite state.")
    if isinstance(system, Model | Step):
        x0 = tree.map(lambda leaf: leaf.double(), x0)
    rows = tree.map(lambda a: a.detach().reshape(batch.numel(), *a.shape[len(batch) :]), x0)
    return tree.ravel(rows, 1), tree.map(lambda a: a[0], rows), batch


def _drive(drive: Any, system: Dynamics, dt: float, batch: torch.Size, x: Tensor) -> Callable[[int, Tensor], Any]:
    """The input of the j-th step, which begins at t: (row, n_in), or a function of the fraction of the step."""
    model = system.model if isinstance(system, Step) else system
    width = model.n_in if isinstance(model, Model) else None
    if drive is None:
        silence = x.new_zeros(len(x), width or 0) if isinstance(model, Model) else None
        return lambda j, t: silence

    def rows(u: Tensor) -> Tensor:
        """A sample (n_in,) or (*batch, n_in) as (row, n_in)."""
        if width is not None and u.shape[-1:] != (width,):
            raise ValueError(f"the drive must hold the network's {width} inputs, got the shape {tuple(u.shape)}.")
        return u.to(x).expand(*batch, u.shape[-1]).reshape(len(x), u.shape[-1])

    if isinstance(drive, Held):
        drive = _each_step(drive, dt)
    if isinstance(drive, Tensor):
        if drive.ndim < 2 or not len(drive):
            raise ValueError(f"drive must be samples (time, *batch, n_in), got the shape {tuple(drive.shape)}.")
        if not bool(torch.isfinite(drive).all()):
            first = tuple((~torch.isfinite(drive)).nonzero()[0].tolist())
            raise ValueError(f"the drive holds NaN or infinite values, first at index {first}: fill them.")
        us = [rows(u) for u in drive.unbind(0)]
        return lambda j, t: us[j % len(us)]
    if not callable(drive):
        raise TypeError(
            f"drive must be samples (time, *batch, n_in), Held samples or a function of time, got "
            f"{type(drive).__name__}."
        )
    return lambda j, t: lambda c: rows(drive(t + c * dt))


def _each_step(drive: Held, dt: float) -> Tensor:
    """Held samples as one for each step."""
    times = 0 if drive.dt is None else round(drive.dt / dt)
    if drive.dt is None or drive.lengths is not None or drive.t0 or abs(times * dt - drive.dt) > 1e-9 * dt or not times:
        raise ValueError(
            f"samples must be held for a whole number of steps of dt = {dt:g}, from t0 = 0 on and without lengths: "
            "pass Held(us, dt=...) with a multiple of it, or a function of time."
        )
    return drive.us.repeat_interleave(times, 0)


def _count(name: str, time: float, dt: float, least: int = 1) -> int:
    if not time < math.inf or round(time / dt) < least:
        raise ValueError(f"{name} = {time:g} holds no step of {dt:g}: give a time that does.")
    return round(time / dt)


def _diverged(
    grown: Tensor, x: Tensor, first: int, length: float, every: int, batch: torch.Size, us: Callable[[int, Tensor], Any]
) -> Exception:
    """Which interval of those grown (interval, row, k), the first being the `first` of the run, went wrong where."""
    bad = (~(grown < math.inf)).any(-1)
    bad[-1] |= ~torch.isfinite(x).all(-1)
    interval, row = (int(n) for n in bad.nonzero()[0])
    sample = tuple(int(n) for n in torch.unravel_index(torch.tensor(row), batch)) if batch else ()
    end = first + interval + 1
    for j in range((end - 1) * every, end * every):
        t = torch.tensor(j * length / every, dtype=torch.float64, device=x.device)
        u = value(us(j, t), 0.0)
        if u is not None and not bool(torch.isfinite(u).all()):
            return ValueError(f"the drive is not finite at t = {float(t):g}: mend its function.")
    return NonFiniteState(
        f"the run diverged before t = {end * length:g} (step {end * every}, sample {sample}): take a smaller dt, or a "
        "start from which the system stays bounded.",
        t=end * length,
        step=end * every,
        sample=sample,
    )


def _check_spread(rates: Tensor, length: float) -> None:
    """Warn where the directions part so much within an interval that the weakest are lost in rounding."""
    exact = rates == -math.inf  # what a step loses wholly is no matter of rounding
    spread = float((rates.amax(-1) - rates.masked_fill(exact, math.inf).amin(-1)).max())
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
