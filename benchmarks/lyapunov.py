"""The full Lyapunov spectrum of a random network beside the same computation in jax: `python -m benchmarks.lyapunov`.

x' = -x + J tanh(x), N = 200, g = 4, 200 tau in steps of 0.1 tau, re-orthonormalised every tau; float64. jax compiles
one function for an interval: a scan over steps, the tangent vectors by linearize, then QR. Agreement is checked over
5 tau, where rounding does not yet tell chaotic runs apart.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import ctrnn
from benchmarks._side_by_side import (
    Case,
    Disagreement,
    Job,
    Row,
    apart,
    lacking,
    main,
    peer,
    side_by_side,
    times_as_fast,
)
from ctrnn import analysis
from ctrnn.analysis.lyapunov import _directions

jax = peer("jax")
if jax:
    jax.config.update("jax_enable_x64", True)
G, DT, EVERY = 4.0, 0.1, 10
SOLVERS = {"Euler": ctrnn.Euler(), "RK4": ctrnn.RK4()}


def network(N: int) -> ctrnn.CTRNN:
    model = ctrnn.CTRNN(N, 0).double()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        W = G / math.sqrt(N) * torch.randn(N, N, generator=draw, dtype=torch.float64)
        model.W_rec.copy_(W.fill_diagonal_(0))
        model.b_rec.zero_()
    return model


def step_in_jax(W: Any, method: str) -> Callable[[Any], Any]:
    field = lambda x: -x + W @ jax.numpy.tanh(x)

    def euler(x: Any) -> Any:
        return x + DT * field(x)

    def rk4(x: Any) -> Any:
        k1 = field(x)
        k2 = field(x + DT / 2 * k1)
        k3 = field(x + DT / 2 * k2)
        k4 = field(x + DT * k3)
        return x + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    return {"Euler": euler, "RK4": rk4}[method]


def in_jax(model: ctrnn.CTRNN, x0: Tensor, duration: float, method: str) -> Job:
    step = step_in_jax(jax.numpy.asarray(model.W_rec.detach().numpy()), method)
    start = [jax.numpy.asarray(part.numpy()) for part in (x0, _directions(x0[None], len(x0))[0])]

    def one(carry: Any, _: None) -> Any:
        x, Q = carry
        new, push = jax.linearize(step, x)
        return (new, jax.vmap(push, in_axes=1, out_axes=1)(Q)), None

    @jax.jit
    def interval(x: Any, Q: Any) -> Any:
        (x, Q), _ = jax.lax.scan(one, (x, Q), None, length=EVERY)
        Q, R = jax.numpy.linalg.qr(Q)
        return x, Q, jax.numpy.log(jax.numpy.abs(jax.numpy.diagonal(R)))

    def job() -> np.ndarray:
        (x, Q), total = start, 0.0
        for _ in range(round(duration / (DT * EVERY))):
            x, Q, grown = interval(x, Q)
            total = total + grown
        return np.sort(np.asarray(total) / duration)[::-1]

    return job


def by_ctrnn(model: ctrnn.CTRNN, x0: Tensor, duration: float, method: str) -> Job:
    settings = {"dt": DT, "duration": duration, "interval": DT * EVERY, "solver": SOLVERS[method]}
    return lambda: analysis.lyapunov_spectrum(model, x0, **settings).exponents


def case(N: int, duration: float, method: str, turns: int) -> Case:
    model, draw = network(N), torch.Generator().manual_seed(2)
    x0 = torch.randn(N, generator=draw, dtype=torch.float64)
    jobs = {"ctrnn": by_ctrnn(model, x0, duration, method)}
    if jax:
        difference = apart(by_ctrnn(model, x0, 5.0, method)(), in_jax(model, x0, 5.0, method)())
        if difference > 1e-9:
            raise Disagreement(f"exponents over 5 tau by {method} differ by {difference:.1e}")
        jobs["jax"] = in_jax(model, x0, duration, method)
    return side_by_side({"method": method, "N": N, "tau": duration}, jobs, like={}, turns=turns, seconds=20.0)


def run(*, quick: bool = False) -> Row:
    size = (5, 10.0) if quick else (200, 200.0)
    cases = [case(*size, method, 1 if quick else 3) for method in SOLVERS]
    targets = [times_as_fast(done, "jax", 1.0) for done in cases if jax]
    return Row("Full Lyapunov spectrum, float64", cases, targets, lacking(jax=jax))


if __name__ == "__main__":
    main(run)
