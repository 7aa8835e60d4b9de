"""Adaptive integration of a chaotic network: `python -m benchmarks.adaptive_forward`.

x' = J tanh(x) - x with g = 1.5, t from 0 to 50, 101 outputs; float64, rtol = atol = 1e-6. ctrnn and torchode choose
steps for each sample; torchdiffeq and diffrax take one sequence for the whole batch, which costs the batch the steps of
its busiest sample. All are compared with scipy's DOP853 at 1e-13.
"""

import torch

import ctrnn
from benchmarks import _random_network as network
from benchmarks._random_network import jax
from benchmarks._side_by_side import Case, Row, main, side_by_side

TOLERANCE = 1e-6
SIZES = ((64, 1), (64, 64), (256, 32))


def case(N: int, B: int, end: float, saves: int, turns: int) -> Case:
    given = network.problem(N, B, end, saves)
    ours, net = torch.no_grad(), network.network(given)
    tools = {
        "ctrnn Tsit5": ours(network.by_ctrnn(given, TOLERANCE, net)),
        "ctrnn Dopri5": ours(network.by_ctrnn(given, TOLERANCE, net, ctrnn.solvers.Dopri5())),
        "torchdiffeq dopri5": torch.no_grad()(network.by_torchdiffeq(given, TOLERANCE)),
    }
    if network.torchode:
        tools["torchode dopri5"] = torch.no_grad()(network.by_torchode(given, TOLERANCE))
    if jax and network.diffrax:
        states, (W, x0) = jax.jit(network.by_diffrax(given)), network.as_arrays(given)
        tools["diffrax Tsit5"] = lambda: jax.block_until_ready(states(W, x0, TOLERANCE))
    if B == 1:
        tools |= {f"scipy {method}": network.by_scipy(given, TOLERANCE, method) for method in ("RK45", "LSODA")}
    if B == 1 and network.sksundae:
        tools["CVODE Adams"] = network.by_cvode(given, TOLERANCE, "Adams")
    at, like = {"N": N, "B": B}, dict.fromkeys(tools, 1e-3)
    return side_by_side(at, tools, like=like, reference=network.reference(given), turns=turns)


def run(*, quick: bool = False) -> Row:
    cases = [case(6, 2, 2.0, 5, 2)] if quick else [case(*size, 50.0, 101, 7) for size in SIZES]
    found = [target for done in cases for target in network.targets(done)]
    return Row("Adaptive steps, float64, tolerance 1e-6: forward", cases, found, network.MISSING)


if __name__ == "__main__":
    main(run)
