"""The gradient of an adaptive integration: `python -m benchmarks.adaptive_gradient`.

The network of `adaptive_forward`; forward and backward of mean(x^2) over 101 outputs with gradients for the weights and
the start. diffrax has its checkpointed adjoint, torchdiffeq and torchode differentiate the steps themselves.

The derivative along a direction is compared with a central difference, both at tolerance 1e-12: what is left is not the
integration's error.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import ctrnn
from benchmarks import _random_network as network
from benchmarks._random_network import Problem, jax
from benchmarks._side_by_side import Case, Job, Row, Target, main, side_by_side

TOLERANCE, TIGHT, SHIFT = 1e-6, 1e-12, 1e-5
SIZES = ((64, 1), (64, 64), (256, 32))


def by_ctrnn(given: Problem, tolerance: float, net: ctrnn.CTRNN) -> Job:
    states = network.by_ctrnn(given, tolerance, net)
    x0 = given.x0.clone().requires_grad_()
    return lambda: torch.autograd.grad(states(x0).square().mean(), (net.W_rec, x0))


def in_torch(given: Problem, states: Callable[..., Tensor]) -> Job:
    leaves = (given.W.clone().requires_grad_(), given.x0.clone().requires_grad_())
    return lambda: torch.autograd.grad(states(*leaves).square().mean(), leaves)


def by_diffrax(given: Problem) -> Job:
    states, (W, x0) = network.by_diffrax(given), network.as_arrays(given)
    gradient: Any = jax.jit(jax.value_and_grad(lambda W, x0: (states(W, x0, TOLERANCE) ** 2).mean(), argnums=(0, 1)))
    return lambda: jax.block_until_ready(gradient(W, x0))[1]


def against_difference(given: Problem) -> Target:
    """The slope of the loss along a random direction in weights and start, beside its central difference."""
    net, draw = network.network(given), torch.Generator().manual_seed(1)
    randn = lambda like: torch.randn(like.shape, generator=draw, dtype=like.dtype)
    direction = [randn(given.W), randn(given.x0)]
    slope = sum((g * d).sum() for g, d in zip(by_ctrnn(given, TIGHT, net)(), direction, strict=True))
    losses = []
    for shift in (SHIFT, -SHIFT):
        moved = given._replace(W=given.W + shift * direction[0], x0=given.x0 + shift * direction[1])
        with torch.no_grad():
            losses.append(network.by_ctrnn(moved, TIGHT, network.network(moved))().square().mean())
    by_difference = (losses[0] - losses[1]) / (2 * SHIFT)
    error = float(abs(slope - by_difference) / abs(by_difference))
    work = f"N = {len(given.W)}, B = {len(given.x0)}, relative error of the gradient"
    return Target(work, "a central difference", error, 1e-6, at_least=False)


def case(given: Problem, turns: int) -> Case:
    tools = {
        "ctrnn Tsit5": by_ctrnn(given, TOLERANCE, network.network(given)),
        "torchdiffeq dopri5": in_torch(given, network.by_torchdiffeq(given, TOLERANCE)),
    }
    if network.torchode:
        tools["torchode dopri5"] = in_torch(given, network.by_torchode(given, TOLERANCE))
    if jax and network.diffrax:
        tools["diffrax Tsit5"] = by_diffrax(given)
    at = {"N": len(given.W), "B": len(given.x0)}
    return side_by_side(at, tools, like=dict.fromkeys(tools, 1e-2), turns=turns)


def run(*, quick: bool = False) -> Row:
    sizes, end, saves, turns = (((6, 2),), 2.0, 5, 2) if quick else (SIZES, 50.0, 101, 5)
    problems = [network.problem(N, B, end, saves) for N, B in sizes]
    cases = [case(given, turns) for given in problems]
    found = [against_difference(problems[0])]
    found += [target for done in cases for target in network.targets(done)]
    return Row("Adaptive steps, float64, tolerance 1e-6: gradient", cases, found, network.MISSING)


if __name__ == "__main__":
    main(run)
