"""The full Lyapunov spectrum of a random network beside the same computation in jax: `python benchmarks/lyapunov.py`.

x' = -x + J tanh(x), N = 200, g = 4, 1000 tau in steps of 0.1 tau, re-orthonormalised every tau; float64. jax compiles
one function for an interval (a scan over steps, the tangent vectors by linearize, then QR); its compilation is not
counted, nor what torch.func imports at its first use. OMP_NUM_THREADS is how many threads both have. Agreement is
checked over 5 tau, where rounding does not yet tell chaotic runs apart.
"""

import json
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

import ctrnn
from ctrnn import analysis
from ctrnn.analysis.lyapunov import _directions

N, G, DT, EVERY = 200, 4.0, 0.1, 10


def network() -> ctrnn.CTRNN:
    model = ctrnn.CTRNN(N, 0).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        W = G / math.sqrt(N) * torch.randn(N, N, generator=generator, dtype=torch.float64)
        model.W_rec.copy_(W.fill_diagonal_(0))
        model.b_rec.zero_()
    return model


def in_jax(J: np.ndarray, x0: np.ndarray, duration: float, method: str) -> tuple[np.ndarray, float]:
    """The exponents, and the seconds without compilation."""
    W = jnp.asarray(J)
    field = lambda x: -x + W @ jnp.tanh(x)

    def euler(x):
        return x + DT * field(x)

    def rk4(x):
        k1 = field(x)
        k2 = field(x + DT / 2 * k1)
        k3 = field(x + DT / 2 * k2)
        k4 = field(x + DT * k3)
        return x + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    step = {"Euler": euler, "RK4": rk4}[method]

    def one(carry, _):
        x, Q = carry
        new, push = jax.linearize(step, x)
        return (new, jax.vmap(push, in_axes=1, out_axes=1)(Q)), None

    @jax.jit
    def interval(x, Q):
        (x, Q), _ = jax.lax.scan(one, (x, Q), None, length=EVERY)
        Q, R = jnp.linalg.qr(Q)
        return x, Q, jnp.log(jnp.abs(jnp.diagonal(R)))

    x, Q, total = jnp.asarray(x0), jnp.asarray(_directions(torch.as_tensor(x0)[None], N)[0].numpy()), jnp.zeros(N)
    jax.block_until_ready(interval(x, Q))
    begin = time.perf_counter()
    count = round(duration / (DT * EVERY))
    for _ in range(count):
        x, Q, grown = interval(x, Q)
        total = total + grown
    exponents = np.asarray(total) / duration
    return np.sort(exponents)[::-1], time.perf_counter() - begin


def ours(model: ctrnn.CTRNN, x0: torch.Tensor, duration: float, method: str) -> tuple[np.ndarray, float]:
    solver = {"Euler": ctrnn.Euler(), "RK4": ctrnn.RK4()}[method]
    begin = time.perf_counter()
    found = analysis.lyapunov_spectrum(model, x0, dt=DT, duration=duration, interval=DT * EVERY, solver=solver)
    return found.exponents.numpy(), time.perf_counter() - begin


def main(duration: float = 1000.0, rounds: int = 3) -> None:
    jax.config.update("jax_enable_x64", True)
    model = network()
    x0 = torch.randn(N, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    J = model.W_rec.detach().numpy()
    analysis.lyapunov_spectrum(model, x0, dt=DT, duration=1.0)  # the first use of torch.func imports much
    for method in ("Euler", "RK4"):
        apart = np.abs(ours(model, x0, 5.0, method)[0] - in_jax(J, x0.numpy(), 5.0, method)[0]).max()
        assert apart < 1e-9, apart
        times = [
            (ours(model, x0, duration, method)[1], in_jax(J, x0.numpy(), duration, method)[1]) for _ in range(rounds)
        ]
        here, there = np.median(times, 0)
        row = {
            "work": f"full spectrum, N = {N}, {duration:g} tau, {method}",
            "threads": torch.get_num_threads(),
            "ctrnn_s": round(float(here), 2),
            "jax_s": round(float(there), 2),
            "ratio jax / ctrnn": round(float(np.median([b / a for a, b in times])), 2),
            "greatest difference": float(apart),
            "jax": jax.__version__,
            "torch": torch.__version__,
        }
        print(json.dumps(row))


if __name__ == "__main__":
    main()
