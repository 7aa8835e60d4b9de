"""A model that a user wrote in plain torch: `python -m benchmarks.own_model`.

tau x' = log(1 + exp(W x + b)) - x with a tau for each unit, 64 units: no kernel knows it. Fixed steps
of Euler and RK4, forward, and forward and backward of mean(x^2) of all states; adaptive steps of one sample; beside
torchdiffeq with the same method, whose backward is quadratic in the number of saved states.

Euler's steps also in chunks of twenty of which torch.compile makes one graph each.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn

import ctrnn
from benchmarks._side_by_side import Case, Job, Row, fastest, main, mean_square, side_by_side, times_as_fast

DT, COMPILED = 0.1, "ctrnn, compile=True"
FORWARD, BOTH = "forward", "forward + backward"
FIXED = {"euler": ctrnn.Euler(), "rk4": ctrnn.solvers.RK4()}
ADAPTIVE = {"dopri5": ctrnn.solvers.Dopri5()}


class Soft(ctrnn.Relaxation):
    """tau dx/dt = log(1 + exp(W x + b)) - x; kinks would leave gradients of adaptive steps apart by their errors."""

    n_in = 0

    def __init__(self, n: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.W = nn.Parameter(0.5 * torch.randn(n, n, generator=draw) / n**0.5)
        self.b = nn.Parameter(torch.rand(n, generator=draw))
        self.tau = 1 + torch.rand(n, generator=draw)

    def target(self, t: Tensor, x: Tensor, u: Tensor | None, alpha: Any = 0) -> Tensor:
        return nn.functional.softplus(nn.functional.linear(x, self.W, self.b))

    def initial_state(self, *batch: int) -> Tensor:
        return self.W.new_zeros(*batch, len(self.W))

    @classmethod
    def example(cls) -> "Soft":
        return cls(3)


def jobs(method: str, N: int, B: int, T: int, backward: bool, compiled: bool) -> dict[str, Job]:
    net, adaptive = Soft(N), method in ADAPTIVE
    x0, ts = net.initial_state(B) if B > 1 else net.initial_state(), DT * torch.arange(T + 1, dtype=torch.float64)
    if adaptive:
        net, x0 = net.double(), x0.double()
    tau = net.tau
    field = lambda t, x: (net.target(t, x, None) - x) / tau
    if adaptive:
        choice = {"steps": ctrnn.Adaptive(1e-6, 1e-6), "save": ctrnn.At(ts), "solver": ADAPTIVE[method]}
        here = lambda: ctrnn.integrate(net, None, x0, t_span=(0.0, float(ts[-1])), **choice).xs
        there = lambda: torchdiffeq.odeint(field, x0, ts, method=method, rtol=1e-6, atol=1e-6)
    else:
        choice = {"steps": ctrnn.Fixed(DT), "save": ctrnn.Every(), "solver": FIXED[method]}
        here = lambda: ctrnn.integrate(net, None, x0, t_span=(0.0, DT * T), **choice).xs
        there = lambda: torchdiffeq.odeint(field, x0, ts, method=method)[1:]
    tools = {"ctrnn": here, f"torchdiffeq {method}": there}
    if compiled:
        chunks = ctrnn.Backprop(compile=True)
        tools[COMPILED] = lambda: ctrnn.integrate(net, None, x0, t_span=(0.0, DT * T), adjoint=chunks, **choice).xs
    return {name: of_states(states, tuple(net.parameters()), backward) for name, states in tools.items()}


def of_states(states: Callable[[], Tensor], leaves: Sequence[Tensor], backward: bool) -> Job:
    def both() -> Any:
        xs = states()
        return xs, *torch.autograd.grad(mean_square(xs), leaves)

    @torch.no_grad()
    def forward() -> Any:
        return (states(),)

    return both if backward else forward


def case(method: str, N: int, B: int, T: int, backward: bool, turns: int, compiled: bool = False) -> Case:
    tools = jobs(method, N, B, T, backward, compiled)
    steps = {"outputs": T + 1} if method in ADAPTIVE else {"T": T}
    at = {"method": method, "N": N, "B": B} | steps | {"pass": BOTH if backward else FORWARD}
    return side_by_side(at, tools, like=dict.fromkeys(tools, 1e-3), turns=turns)


def run(*, quick: bool = False) -> Row:
    if quick:
        cases = [case(method, 4, 2, 6, True, 1) for method in (*FIXED, *ADAPTIVE)]
    else:
        sizes = [(method, 64, B, 200) for method in FIXED for B in (1, 64)] + [("dopri5", 64, 1, 200)]
        cases = [case(*size, backward, 7, size[0] == "euler") for size in sizes for backward in (False, True)]
    targets = [times_as_fast(done, fastest(done, ("ctrnn", COMPILED)), 1.5) for done in cases]
    return Row("A user's own model in plain torch", cases, targets)


if __name__ == "__main__":
    main(run)
