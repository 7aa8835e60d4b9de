"""torchdiffeq's call on this package's time loop. Nothing else here knows method strings and options."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn

from ctrnn._integrate import integrate
from ctrnn.adjoints import Adjoint, Backprop, Recompute
from ctrnn.adjoints._leaves import probe
from ctrnn.dynamics import Model
from ctrnn.solvers import RK4, Bosh3, Dopri5, Euler, Heun, Midpoint, Solver, Tsit5
from ctrnn.steps import Adaptive, At, Fixed

States = Tensor | tuple[Tensor, ...]
Func = Callable[[Tensor, Any], Any]

FIXED: dict[str, Solver] = {"euler": Euler(), "midpoint": Midpoint(), "heun2": Heun(), "rk4": RK4()}
ADAPTIVE: dict[str, Solver] = {"bosh3": Bosh3(), "dopri5": Dopri5(), "tsit5": Tsit5()}
ELSEWHERE = (
    "adaptive_heun",
    "dopri8",
    "explicit_adams",
    "fehlberg2",
    "fixed_adams",
    "heun3",
    "implicit_adams",
    "scipy_solver",
)


def odeint(
    func: Func,
    y0: States,
    t: Tensor,
    *,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    method: str | None = None,
    options: dict[str, Any] | None = None,
    event_fn: None = None,
) -> States:
    """dy/dt = func(t, y) from y0 at t[0], as `torchdiffeq.odeint`: y at the times t, one leading axis.

    The whole of y0 is one sample with one error norm. Gradients reach y0, t and whatever func uses, through every step.
    Steps are chosen as in `integrate`, so that results agree with torchdiffeq's to the tolerance and not step by step;
    outputs between the steps are of the order of the method.

    Args:
        func: the vector field; t is a 0-d Tensor.
        y0: a Tensor of any shape, real or complex, or a tuple of them.
        t: strictly increasing or decreasing times.
        rtol, atol: tolerances of adaptive methods.
        method: "dopri5" (default), "bosh3", "tsit5", or with fixed steps "euler", "midpoint", "heun2", "rk4". Others
            of torchdiffeq go to torchdiffeq, options included.
        options: `step_size` of a fixed method (default: one step from each time to the next); `first_step`, `min_step`
            (a smaller one is an error), `max_num_steps` of an adaptive one.
        event_fn: not offered.

    Raises:
        ValueError, TypeError: the arguments do not fit one another; the message says which, and what to do.
        NotImplementedError: event_fn was given.
        IntegrationError: the run could not go on.
    """
    method = _method(method, event_fn)
    if method in ELSEWHERE:
        return torchdiffeq.odeint(func, y0, t, rtol=rtol, atol=atol, method=method, options=options)
    return _solve(func, y0, t, _steps(method, rtol, atol, options, t), method, Backprop())


def odeint_adjoint(
    func: Func,
    y0: States,
    t: Tensor,
    *,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    method: str | None = None,
    options: dict[str, Any] | None = None,
    event_fn: None = None,
    adjoint_rtol: float | None = None,
    adjoint_atol: float | None = None,
    adjoint_method: str | None = None,
    adjoint_options: dict[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> States:
    """`odeint` in the memory of a few states, as `torchdiffeq.odeint_adjoint`, but with exact gradients (`Recompute`).

    No equation is solved backwards, so that the tolerances, method and options of the adjoint mean nothing: they are
    accepted for the methods that are handed to torchdiffeq. `Recompute` must know what func depends on and repeat it: a
    func that is no nn.Module, has parameters of another dtype than y0, draws random numbers, or calls autograd itself
    (a continuous normalizing flow, a model given by its energy) is differentiated by `Backprop` instead, exactly as
    well but in the memory of all steps.

    Raises:
        ValueError: func is no nn.Module and adjoint_params was not given. Otherwise as `odeint`.
    """
    method = _method(method, event_fn)
    if adjoint_params is None and not isinstance(func, nn.Module):
        raise ValueError(
            "odeint_adjoint needs func as an nn.Module, or the Tensors it depends on as adjoint_params "
            "(() if there are none)."
        )
    if method in ELSEWHERE:
        return torchdiffeq.odeint_adjoint(
            func,
            y0,
            t,
            rtol=rtol,
            atol=atol,
            method=method,
            options=options,
            adjoint_rtol=adjoint_rtol,
            adjoint_atol=adjoint_atol,
            adjoint_method=adjoint_method,
            adjoint_options=adjoint_options,
            adjoint_params=adjoint_params,
        )
    return _solve(func, y0, t, _steps(method, rtol, atol, options, t), method, Recompute())


class _Field(Model):
    """dx/dt = func(t, y), where x is y laid out as one real vector; s = -t where time runs backwards."""

    def __init__(self, func: Func, like: States, sign: float, registered: bool) -> None:
        super().__init__()
        self.like, self.sign = like, sign
        if registered:
            self.func = func
        else:
            object.__setattr__(self, "func", func)  # its parameters are none of integrate's business

    def forward(self, t: Tensor, x: Tensor, u: Tensor) -> Tensor:  # type: ignore[override]
        # func knows one sample only; dense output asks for several times at once.
        if x.ndim == 1:
            return self.one(t, x)
        return torch.stack([self.one(now, row) for now, row in zip(t.reshape(-1).expand(len(x)), x, strict=True)])

    def one(self, t: Tensor, x: Tensor) -> Tensor:
        """The slope of one sample (D,)."""
        y = unpack(x, self.like)
        slope = self.func((self.sign * t).reshape(()).to(x.dtype), y)
        for part, given in zip(_parts(self.like), _parts(slope), strict=True):
            if part.shape != given.shape:
                raise ValueError(
                    f"func returned a derivative of shape {tuple(given.shape)} for a state of shape "
                    f"{tuple(part.shape)}: give both the same."
                )
        return self.sign * pack(slope, x.dtype)


def _parts(y: Any) -> tuple[Tensor, ...]:
    return (y,) if isinstance(y, Tensor) else tuple(y)


def pack(y: States, dtype: torch.dtype | None = None) -> Tensor:
    """A state as one real vector; the real and imaginary part of a complex number stand side by side."""
    real = [torch.view_as_real(part.resolve_conj()) if part.is_complex() else part for part in _parts(y)]
    flat = torch.cat([part.reshape(-1) for part in real])
    return flat if dtype is None else flat.to(dtype)


def unpack(x: Tensor, like: States) -> Any:
    """The inverse of `pack` for (*lead, D), with the shapes and dtypes of `like`."""
    sizes = [part.numel() * (2 if part.is_complex() else 1) for part in _parts(like)]
    parts = [_shaped(flat, part) for flat, part in zip(x.split(sizes, -1), _parts(like), strict=True)]
    return parts[0] if isinstance(like, Tensor) else tuple(parts)


def _shaped(flat: Tensor, like: Tensor) -> Tensor:
    lead = flat.shape[:-1]
    if not like.is_complex():
        return flat.reshape((*lead, *like.shape)).to(like.dtype)
    return torch.view_as_complex(flat.reshape((*lead, *like.shape, 2)).contiguous()).to(like.dtype)


def _solve(func: Func, y0: States, t: Tensor, steps: Fixed | Adaptive, method: str, adjoint: Adjoint) -> States:
    _check_state(y0)
    x0 = pack(y0)
    sign = -1.0 if float(t[0].detach()) > float(t[-1].detach()) else 1.0
    times = sign * t.to(x0.device, torch.float64)
    registered = isinstance(adjoint, Recompute) and isinstance(func, nn.Module) and _repeatable(func, y0, t)
    if not registered:
        adjoint = Backprop()
    model = _Field(func, y0, sign, registered)
    solver = FIXED.get(method) or ADAPTIVE[method]
    span = (times[0], times[-1]) if t.requires_grad else (float(times[0]), float(times[-1]))
    run = integrate(model, None, x0, t_span=span, solver=solver, steps=steps, adjoint=adjoint, save=At(times))
    return unpack(run.xs, y0)  # type: ignore[arg-type]


def _repeatable(func: nn.Module, y0: States, t: Tensor) -> bool:
    """Whether `Recompute` can take func."""
    dtype = pack(y0).dtype
    if any(p.dtype != dtype for p in func.parameters()):
        return False
    if not torch.is_grad_enabled():
        return True
    y = unpack(pack(y0).detach(), y0)
    tried = probe(lambda: func(t[0].detach().to(dtype), y), _parts(y0)[0].device)
    return not (tried.draws or tried.differentiates)


def _check_state(y0: Any) -> None:
    if not isinstance(y0, (Tensor, tuple)) or not all(isinstance(part, Tensor) for part in _parts(y0)):
        raise TypeError(f"y0 must be a Tensor or a tuple of Tensors, got {type(y0).__name__}.")
    for part in _parts(y0):
        if not (part.is_floating_point() or part.is_complex()):
            raise TypeError(f"y0 must be real or complex floating-point, got {part.dtype}: convert it with .double().")


def _method(method: str | None, event_fn: Any) -> str:
    if event_fn is not None:
        raise NotImplementedError(
            "event_fn (odeint_event) is not offered here: call torchdiffeq.odeint_event, or look for the event "
            "in a saved trajectory."
        )
    method = "dopri5" if method is None else method
    if method not in (*FIXED, *ADAPTIVE, *ELSEWHERE):
        names = ", ".join(sorted((*FIXED, *ADAPTIVE, *ELSEWHERE)))
        raise ValueError(f"odeint knows no method {method!r}: use one of {names}.")
    return method


def _steps(method: str, rtol: Any, atol: Any, options: dict[str, Any] | None, t: Any) -> Fixed | Adaptive:
    """The steps that method and options ask for."""
    _check_times(t)
    given = dict(options or {})
    if method in FIXED:
        size = given.pop("step_size", None)
        _check_options(method, given, "step_size")
        return Fixed(float(t.detach().diff().abs().max()) if size is None else float(size))
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if isinstance(tolerance, (tuple, list)) or (isinstance(tolerance, Tensor) and tolerance.numel() != 1):
            raise TypeError(f"{name} must be one number here, got {tolerance!r}: call torchdiffeq.odeint for others.")
    first = given.pop("first_step", None)
    least, most = given.pop("min_step", 0.0), given.pop("max_num_steps", Adaptive.max_steps)
    _check_options(method, given, "first_step, min_step, max_num_steps")
    dt0 = None if first is None else float(first)
    return Adaptive(float(rtol), float(atol), dt0=dt0, dt_min=float(least), max_steps=int(most))


def _check_options(method: str, rest: dict[str, Any], known: str) -> None:
    if rest:
        names = ", ".join(map(repr, rest))
        raise ValueError(
            f"odeint's {method} understands the options {known}, not {names}: "
            "leave them out, or call torchdiffeq.odeint."
        )


def _check_times(t: Any) -> None:
    if not isinstance(t, Tensor) or not t.is_floating_point():
        kind = t.dtype if isinstance(t, Tensor) else type(t).__name__
        raise TypeError(f"t must be a floating-point Tensor of times, got {kind}.")
    if t.ndim != 1 or len(t) < 2:
        raise ValueError(f"t must hold at least two times along one axis, got shape {tuple(t.shape)}.")
    steps = t.detach().diff()
    if not (bool((steps > 0).all()) or bool((steps < 0).all())):
        raise ValueError("t must increase or decrease strictly: sort the times and drop repeated ones.")
