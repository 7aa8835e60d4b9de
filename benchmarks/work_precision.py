"""Error against time, where no scales differ and where they do: `python -m benchmarks.work_precision`.

The network of `adaptive_forward` with 64 units and one sample; time constants all 1 and t to 50, or from 1 to 10^4 and
t to 2000; float64, 101 outputs, tolerances from 1e-3 to 1e-9. The error is the greatest over all outputs and units,
relative to the greatest state, beside scipy's DOP853 at 1e-13. The implicit methods of scipy and SUNDIALS are given the
Jacobian.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch

import ctrnn
from benchmarks import _random_network as network
from benchmarks._random_network import Problem, jax
from benchmarks._side_by_side import Case, Job, Row, Target, main, side_by_side

TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
ERRORS = (1e-4, 1e-6, 1e-8)
ONE, MANY = "tau = 1", "tau from 1 to 10^4"
SOLVERS = ctrnn.solvers.Tsit5(), ctrnn.solvers.Dopri5(), ctrnn.solvers.Rodas4()


def jobs(given: Problem, stiff: bool, tolerances: Sequence[float]) -> Iterator[tuple[float, dict[str, Job]]]:
    """Every tool at every tolerance; what jax compiles serves all tolerances."""
    net, quietly = network.network(given), torch.no_grad()
    compiled = {}
    if jax and network.diffrax:
        names = ("Tsit5", "Kvaerno5") if stiff else ("Tsit5", "Dopri8")
        compiled = {f"diffrax {name}": jax.jit(network.by_diffrax(given, name)) for name in names}
    for tolerance in tolerances:
        tools: dict[str, Job] = {
            f"ctrnn {solver}".removesuffix("()"): quietly(network.by_ctrnn(given, tolerance, net, solver))
            for solver in SOLVERS
        }
        for method in ("LSODA", "BDF") if stiff else ("RK45", "DOP853", "LSODA"):
            tools[f"scipy {method}"] = network.by_scipy(given, tolerance, method)
        for method in ("BDF", "Adams") if network.sksundae else ():
            tools[f"CVODE {method}"] = network.by_cvode(given, tolerance, method)
        for name, states in compiled.items():
            tools[name] = _compiled(given, states, tolerance)
        tools["torchdiffeq dopri5"] = quietly(network.by_torchdiffeq(given, tolerance))
        yield tolerance, tools


def _compiled(given: Problem, states: Callable[..., Any], tolerance: float) -> Job:
    W, x0 = network.as_arrays(given)
    return lambda: jax.block_until_ready(states(W, x0, tolerance))


def diagram(name: str, given: Problem, turns: int, tolerances: Sequence[float]) -> list[Case]:
    exact = network.reference(given)
    found = []
    for tolerance, tools in jobs(given, name == MANY, tolerances):
        like = dict.fromkeys(tools, np.inf)
        at = {"network": name, "tolerance": tolerance}
        found.append(side_by_side(at, tools, like=like, reference=exact, turns=turns, seconds=0.5))
    return found


def time_for(cases: Sequence[Case], tool: str, error: float) -> float:
    """Milliseconds for an error, between the measured ones on a line in logarithms; infinite for one never reached."""
    points = sorted((c.difference[tool], c.ms[tool]) for c in cases if tool in c.ms)
    errors, times = (np.log(np.maximum(column, 1e-300)) for column in zip(*points, strict=True))
    return float(np.exp(np.interp(np.log(error), errors, times))) if error >= points[0][0] else np.inf


def targets(cases: Sequence[Case], errors: Sequence[float]) -> Iterator[Target]:
    for error in errors:
        times = {tool: time_for(cases, tool, error) for tool in cases[0].ms}
        ours = min((tool for tool in times if tool.startswith("ctrnn")), key=times.__getitem__)
        best = min((tool for tool in times if not tool.startswith("ctrnn")), key=times.__getitem__)
        if np.isfinite(times[best]):
            work = f"{cases[0].at['network']}, error {error:g}, {ours.removeprefix('ctrnn ')}"
            yield Target(work, best, times[best] / times[ours], 1.0, True, times[ours], times[best])


def run(*, quick: bool = False) -> Row:
    if quick:
        problems = {ONE: network.problem(4, 1, 2.0, 5), MANY: network.problem(4, 1, 5.0, 5, 1e2)}
    else:
        problems = {ONE: network.problem(64, 1), MANY: network.problem(64, 1, 2000.0, 101, 1e4)}
    turns, tolerances = (1, (1e-3, 1e-5)) if quick else (5, TOLERANCES)
    diagrams = [diagram(name, given, turns, tolerances) for name, given in problems.items()]
    found = [target for cases in diagrams for target in targets(cases, ERRORS)]
    return Row("Error against time", [*chain(*diagrams)], found, network.MISSING)


if __name__ == "__main__":
    main(run)
