"""A training step of the leaky tanh network on fixed steps: `python -m benchmarks.fixed_step`.

x <- x + alpha (W_rec tanh(x) + W_in u + b - x), alpha = dt / tau with a tau for each unit; 8 inputs, float32, every
state returned. Forward, and forward and backward of mean(x^2) with gradients for W_rec, W_in, b and tau. torch.nn.RNN
has no tau, and its gradients are those of the other three: as many products of matrices, another network.

The limit is what no simulation can avoid: a product of matrices for each step and one pass over the states; backward
takes two such products.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torchdiffeq
from torch import Tensor

import ctrnn
from benchmarks._side_by_side import (
    Case,
    Job,
    Row,
    Target,
    fastest,
    lacking,
    main,
    mean_square,
    peer,
    side_by_side,
    times_as_fast,
    times_as_long,
)
from benchmarks._states_only import StatesOnly

jax, diffrax, brainpy = peer("jax"), peer("diffrax"), peer("brainpy")
DT, N_IN = 0.1, 8
SIZES = ((64, 1, 1000), (64, 64, 1000), (256, 64, 500), (1024, 32, 200))
FORWARD, BOTH, LIMIT = "forward", "forward + backward", "T matrix products + one pass"
OURS = ("ctrnn", "ctrnn.plain()", LIMIT)


class Work(NamedTuple):
    """Weights, time constants and inputs, the same for every tool."""

    W_rec: Tensor
    W_in: Tensor
    b: Tensor
    tau: Tensor
    us: Tensor  # (time, batch, input)

    @property
    def weights(self) -> tuple[Tensor, ...]:
        return self.W_rec, self.W_in, self.b, self.tau

    @property
    def silent(self) -> Tensor:
        return self.us.new_zeros(self.us.shape[1], len(self.b))


def work(N: int, B: int, T: int) -> Work:
    draw = torch.Generator().manual_seed(0)
    randn = lambda *shape: torch.randn(shape, generator=draw)
    tau = 0.5 + torch.rand(N, generator=draw)
    return Work(randn(N, N) / N**0.5, randn(N, N_IN) / N_IN**0.5, 0.1 * randn(N), tau, randn(T, B, N_IN))


def in_torch(given: Work, backward: bool, states: Callable[..., Tensor]) -> Job:
    """A job of states(us, *weights)."""
    leaves = [w.clone().requires_grad_() for w in given.weights]

    def both() -> Any:
        xs = states(given.us, *leaves)
        return xs, *torch.autograd.grad(mean_square(xs), leaves)

    @torch.no_grad()
    def forward() -> Any:
        return (states(given.us, *leaves),)

    return both if backward else forward


def by_ctrnn(given: Work, backward: bool) -> Job:
    N, n_in = given.W_in.shape
    net = StatesOnly(N, n_in, tau=given.tau, learn_tau=True)
    with torch.no_grad():
        net.W_rec.copy_(given.W_rec)
        net.W_in.copy_(given.W_in)
        net.b_rec.copy_(given.b)
    ratio = dict(net.named_parameters())["log_ratio"]  # tau = tau0 exp(log_ratio)

    def both() -> Any:
        xs = ctrnn.integrate(net, given.us, dt=DT).xs
        of_weights = torch.autograd.grad(mean_square(xs), (net.W_rec, net.W_in, net.b_rec, ratio))
        return xs, *of_weights[:3], of_weights[3] / given.tau

    @torch.no_grad()
    def forward() -> Any:
        return (ctrnn.integrate(net, given.us, dt=DT).xs,)

    return both if backward else forward


def by_plain_ctrnn(given: Work, backward: bool) -> Job:
    job = by_ctrnn(given, backward)

    def plainly() -> Any:
        with ctrnn.plain():
            return job()

    return plainly


def torch_loop(us: Tensor, W_rec: Tensor, W_in: Tensor, b: Tensor, tau: Tensor) -> Tensor:
    """As people write it."""
    alpha, drive = DT / tau, us @ W_in.T + b
    x, xs = us.new_zeros(us.shape[1], len(b)), []
    for v in drive.unbind(0):
        x = x + alpha * (torch.tanh(x) @ W_rec.T + v - x)
        xs.append(x)
    return torch.stack(xs)


def by_torchdiffeq(us: Tensor, W_rec: Tensor, W_in: Tensor, b: Tensor, tau: Tensor) -> Tensor:
    drive = (us @ W_in.T + b).unbind(0)
    ts = DT * torch.arange(len(us) + 1, dtype=torch.float64)
    field = lambda t, x: (torch.tanh(x) @ W_rec.T + drive[min(int(t / DT + 0.5), len(us) - 1)] - x) / tau
    return torchdiffeq.odeint(field, us.new_zeros(us.shape[1], len(b)), ts, method="euler")[1:]


def by_torch_rnn(given: Work, backward: bool) -> Job:
    net = torch.nn.RNN(N_IN, len(given.b))

    def both() -> Any:
        return torch.autograd.grad(mean_square(net(given.us)[0]), tuple(net.parameters()))

    @torch.no_grad()
    def forward() -> Any:
        return (net(given.us)[0],)

    return both if backward else forward


def in_jax(given: Work, backward: bool, states: Callable[..., Any]) -> Job:
    """A job of states(us, *weights), compiled."""
    us, *weights = (jax.numpy.asarray(w.numpy()) for w in (given.us, *given.weights))

    def loss(us: Any, *weights: Any) -> Any:
        xs = states(us, *weights)
        return (xs**2).mean(), xs

    if not backward:
        forward = jax.jit(states)
        return lambda: (jax.block_until_ready(forward(us, *weights)),)
    both = jax.jit(jax.value_and_grad(loss, argnums=(1, 2, 3, 4), has_aux=True))

    def job() -> Any:
        (_, xs), of_weights = jax.block_until_ready(both(us, *weights))
        return xs, *of_weights

    return job


def jax_scan(us: Any, W_rec: Any, W_in: Any, b: Any, tau: Any) -> Any:
    alpha, drive = DT / tau, us @ W_in.T + b

    def step(x: Any, v: Any) -> Any:
        x = x + alpha * (jax.numpy.tanh(x) @ W_rec.T + v - x)
        return x, x

    return jax.lax.scan(step, jax.numpy.zeros((us.shape[1], len(b)), us.dtype), drive)[1]


def by_diffrax(us: Any, W_rec: Any, W_in: Any, b: Any, tau: Any) -> Any:
    drive = us @ W_in.T + b
    end, ts = DT * len(us), DT * (1 + jax.numpy.arange(len(us)))
    field = lambda t, x, _: (jax.numpy.tanh(x) @ W_rec.T + drive[(t / DT + 0.5).astype(int)] - x) / tau
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Euler(),
        0.0,
        end,
        None,
        jax.numpy.zeros((us.shape[1], len(b)), us.dtype),
        saveat=diffrax.SaveAt(steps=True),
        stepsize_controller=diffrax.StepTo(jax.numpy.concatenate([jax.numpy.zeros(1), ts])),
        max_steps=len(us),
    ).ys


def by_brainpy(given: Work, backward: bool) -> Job:
    bm, us = brainpy.math, jax.numpy.asarray(given.us.numpy())
    names = ("W_rec", "W_in", "b", "tau")
    weights = {k: bm.TrainVar(jax.numpy.asarray(w.numpy())) for k, w in zip(names, given.weights, strict=True)}
    silent = jax.numpy.asarray(given.silent.numpy())
    x = bm.Variable(silent)

    def step(u: Any) -> Any:
        W_rec, W_in, b, tau = (w.value for w in weights.values())
        x.value = x.value + DT / tau * (jax.numpy.tanh(x.value) @ W_rec.T + u @ W_in.T + b - x.value)
        return x.value

    def states() -> Any:
        x.value = silent
        return bm.for_loop(step, us)

    def loss() -> Any:
        xs = states()
        return (xs**2).mean(), xs

    if not backward:
        forward = bm.jit(states)
        return lambda: (jax.block_until_ready(forward()),)
    both = bm.jit(bm.grad(loss, grad_vars=weights, has_aux=True))

    def job() -> Any:
        of_weights, xs = jax.block_until_ready(both())
        return xs, *(of_weights[name] for name in names)

    return job


def products(given: Work, backward: bool) -> Job:
    """T products of the batch with W_rec, three times as many for backward, and a pass over as many states."""
    x, out = given.silent + 1.0, given.silent.clone()
    states, W = given.us.new_zeros(len(given.us), *x.shape), given.W_rec.T.contiguous()

    @torch.no_grad()
    def job() -> None:
        for _ in range(3 if backward else 1):
            for _ in range(len(states)):
                torch.mm(x, W, out=out)
            states.add_(1.0)

    return job


def jobs(given: Work, backward: bool) -> dict[str, Job]:
    """Every tool that is installed; ours first."""
    found = {
        "ctrnn": by_ctrnn(given, backward),
        "ctrnn.plain()": by_plain_ctrnn(given, backward),
        "torch loop": in_torch(given, backward, torch_loop),
        "torch.nn.RNN": by_torch_rnn(given, backward),
        "torchdiffeq euler": in_torch(given, backward, by_torchdiffeq),
        LIMIT: products(given, backward),
    }
    if jax:
        found["jax.lax.scan"] = in_jax(given, backward, jax_scan)
    if jax and diffrax:
        found["diffrax Euler"] = in_jax(given, backward, by_diffrax)
    if jax and brainpy:
        found["BrainPy for_loop"] = by_brainpy(given, backward)
    return found


def case(N: int, B: int, T: int, backward: bool, turns: int, seconds: float = 2.0) -> Case:
    tools = jobs(work(N, B, T), backward)
    like = {name: 2e-3 for name in tools if name not in ("torch.nn.RNN", LIMIT)}
    at = {"N": N, "B": B, "T": T, "pass": BOTH if backward else FORWARD}
    return side_by_side(at, tools, like=like, turns=turns, seconds=seconds)


def targets(case: Case) -> list[Target]:
    """Against the fastest peer, and against what no simulation can avoid."""
    wanted = 2.0 if case.at["N"] <= 64 else 1.3
    return [times_as_fast(case, fastest(case, OURS), wanted), times_as_long(case, LIMIT, 1.5)]


def run(*, quick: bool = False) -> Row:
    sizes = ((8, 2, 5), (17, 1, 5)) if quick else SIZES
    cases = [case(*size, backward, turns=2 if quick else 9) for size in sizes for backward in (False, True)]
    found = [target for case in cases for target in targets(case)]
    missing = lacking(jax=jax, diffrax=diffrax, brainpy=brainpy)
    return Row("Leaky tanh network on fixed steps, float32", cases, found, missing)


if __name__ == "__main__":
    main(run)
