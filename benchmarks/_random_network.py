"""A random network left to itself, x' = (g J tanh(x) - x) / tau in float64, and how each tool integrates it."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torchdiffeq
from scipy.integrate import solve_ivp
from torch import Tensor

import ctrnn
from benchmarks._side_by_side import Case, Job, Target, lacking, peer, times_as_fast
from benchmarks._states_only import StatesOnly

jax, diffrax, torchode, sksundae = peer("jax"), peer("diffrax"), peer("torchode"), peer("sksundae")
MISSING = lacking(**{"jax": jax, "diffrax": diffrax, "torchode": torchode, "scikit-sundae": sksundae})
if jax:
    jax.config.update("jax_enable_x64", True)
MOST_STEPS = 100_000


class Problem(NamedTuple):
    """What every tool is given; the states are wanted at `ts`, of which the first is the start."""

    W: Tensor  # (unit, unit)
    tau: Tensor  # (unit,)
    x0: Tensor  # (batch, unit)
    ts: Tensor  # (time,)

    @property
    def span(self) -> tuple[float, float]:
        return float(self.ts[0]), float(self.ts[-1])


def problem(N: int, B: int, end: float = 50.0, saves: int = 101, slowest: float = 1.0, g: float = 1.5) -> Problem:
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tau = torch.logspace(0, float(np.log10(slowest)), N, dtype=torch.float64)
    return Problem(g * draw(N, N) / N**0.5, tau, draw(B, N), torch.linspace(0, end, saves, dtype=torch.float64))


def network(given: Problem) -> ctrnn.CTRNN:
    net = StatesOnly(len(given.W), 0, tau=given.tau).double()
    with torch.no_grad():
        net.W_rec.copy_(given.W)
        net.b_rec.zero_()
    net.b_rec.requires_grad_(False)
    return net


def by_ctrnn(
    given: Problem, tolerance: float, net: ctrnn.CTRNN, solver: ctrnn.solvers.Solver | None = None
) -> Callable[..., Tensor]:
    """States as a function of the start; the weights are the network's."""
    steps, save = ctrnn.Adaptive(tolerance, tolerance), ctrnn.At(given.ts)

    def states(x0: Tensor = given.x0) -> Tensor:
        return ctrnn.integrate(net, None, x0, t_span=given.span, solver=solver, steps=steps, save=save).xs

    return states


def by_torchdiffeq(given: Problem, tolerance: float, method: str = "dopri5") -> Callable[..., Tensor]:
    def states(W: Tensor = given.W, x0: Tensor = given.x0) -> Tensor:
        field = lambda t, x: (torch.tanh(x) @ W.T - x) / given.tau
        return torchdiffeq.odeint(field, x0, given.ts, rtol=tolerance, atol=tolerance, method=method)

    return states


def by_torchode(given: Problem, tolerance: float) -> Callable[..., Tensor]:
    ts = given.ts.expand(len(given.x0), -1).contiguous()

    def states(W: Tensor = given.W, x0: Tensor = given.x0) -> Tensor:
        term = torchode.ODETerm(lambda t, x: (torch.tanh(x) @ W.T - x) / given.tau)
        control = torchode.IntegralController(atol=tolerance, rtol=tolerance, term=term)
        solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), control)
        return solver.solve(torchode.InitialValueProblem(y0=x0, t_eval=ts)).ys.transpose(0, 1)

    return states


def by_diffrax(given: Problem, solver: str = "Tsit5") -> Callable[..., Any]:
    """States as a function of weights, start and tolerance, to be compiled.

    The batch is one system with one sequence of steps, which on a CPU takes about half the time of a vmap over samples.
    """
    tau, ts = jax.numpy.asarray(given.tau.numpy()), jax.numpy.asarray(given.ts.numpy())

    def states(W: Any, x0: Any, tolerance: Any) -> Any:
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, x, W: (jax.numpy.tanh(x) @ W.T - x) / tau),
            getattr(diffrax, solver)(),
            *given.span,
            None,
            x0,
            W,
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            max_steps=MOST_STEPS if len(x0) == 1 else 4096,
        ).ys

    return states


def numpy_field(given: Problem) -> Callable[[float, np.ndarray], np.ndarray]:
    W, tau = given.W.numpy(), given.tau.numpy()
    return lambda t, x: (W @ np.tanh(x) - x) / tau


def by_scipy(given: Problem, tolerance: float, method: str) -> Job:
    """One sample; the implicit methods are given the Jacobian."""
    W, tau, field = given.W.numpy(), given.tau.numpy(), numpy_field(given)
    slope = lambda t, x: (W * (1 - np.tanh(x) ** 2) - np.eye(len(x))) / tau[:, None]
    known = {"jac": slope} if method in ("BDF", "LSODA", "Radau") else {}
    settings = {"method": method, "t_eval": given.ts.numpy(), "rtol": max(tolerance, 1e-13), "atol": tolerance} | known
    return lambda: solve_ivp(field, given.span, given.x0[0].numpy(), **settings).y.T[:, None]


def by_cvode(given: Problem, tolerance: float, method: str) -> Job:
    """One sample, with the Jacobian."""
    W, tau = given.W.numpy(), given.tau.numpy()

    def field(_: float, x: np.ndarray, out: np.ndarray) -> None:
        out[:] = (W @ np.tanh(x) - x) / tau

    def slope(_: float, x: np.ndarray, __: np.ndarray, out: np.ndarray) -> None:
        out[:] = (W * (1 - np.tanh(x) ** 2) - np.eye(len(x))) / tau[:, None]

    settings = {"method": method, "rtol": tolerance, "atol": tolerance, "max_num_steps": MOST_STEPS, "jacfn": slope}
    solver = sksundae.cvode.CVODE(field, **settings)
    return lambda: solver.solve(given.ts.numpy(), given.x0[0].numpy()).y[:, None]


def as_arrays(given: Problem) -> tuple[Any, Any]:
    """Weights and start for jax."""
    return jax.numpy.asarray(given.W.numpy()), jax.numpy.asarray(given.x0.numpy())


def reference(given: Problem, method: str = "DOP853") -> np.ndarray:
    """Sample by sample to 1e-13."""
    rows = [given._replace(x0=x0[None]) for x0 in given.x0]
    return np.concatenate([by_scipy(row, 1e-13, method)() for row in rows], axis=1)


def targets(case: Case) -> list[Target]:
    """Of the two rows on adaptive steps."""
    wanted = {"diffrax Tsit5": 3.0, "torchdiffeq dopri5": 20.0}
    return [times_as_fast(case, peer, limit) for peer, limit in wanted.items() if peer in case.ms]
