"""A training step of GRU and LSTM: `python -m benchmarks.gated`.

8 inputs, float32, every state returned; forward, and forward and backward of mean(h^2) with gradients for all weights,
beside torch.nn's own and jax.lax.scan. All have the same weights.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import ctrnn
from benchmarks._side_by_side import (
    Case,
    Job,
    Row,
    fastest,
    lacking,
    main,
    mean_square,
    peer,
    side_by_side,
    times_as_fast,
)

jax = peer("jax")
N_IN = 8
SIZES = ((64, 1, 1000), (256, 64, 200))
FORWARD, BOTH = "forward", "forward + backward"
ORDER = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")  # torch's names, the order of all gradients here


def by_torch(peer: torch.nn.Module, us: Tensor, backward: bool) -> Job:
    weights = [getattr(peer, name) for name in ORDER]

    def both() -> Any:
        hs = peer(us)[0]
        return hs, *torch.autograd.grad(mean_square(hs), weights)

    @torch.no_grad()
    def forward() -> Any:
        return (peer(us)[0],)

    return both if backward else forward


def by_ctrnn(peer: torch.nn.Module, us: Tensor, backward: bool) -> Job:
    lstm = isinstance(peer, torch.nn.LSTM)
    net = (ctrnn.LSTM if lstm else ctrnn.GRU)(peer.hidden_size, N_IN)
    weights = [net.W_in, net.W_rec, net.b_in, net.b_rec]
    with torch.no_grad():
        for weight, name in zip(weights, ORDER, strict=True):
            weight.copy_(getattr(peer, name))
    hidden = lambda xs: xs.h if lstm else xs

    def both() -> Any:
        hs = hidden(ctrnn.integrate(net, us, dt=1.0).xs)
        return hs, *torch.autograd.grad(mean_square(hs), weights)

    @torch.no_grad()
    def forward() -> Any:
        return (hidden(ctrnn.integrate(net, us, dt=1.0).xs),)

    return both if backward else forward


def gru_step(h: Any, v: Any, W_rec: Any, b_rec: Any) -> Any:
    n, sigmoid = h.shape[-1], jax.nn.sigmoid
    w = h @ W_rec.T + b_rec
    r, z = sigmoid(v[:, :n] + w[:, :n]), sigmoid(v[:, n : 2 * n] + w[:, n : 2 * n])
    h = (1 - z) * jax.numpy.tanh(v[:, 2 * n :] + r * w[:, 2 * n :]) + z * h
    return h, h


def lstm_step(state: Any, v: Any, W_rec: Any, b_rec: Any) -> Any:
    (h, c), sigmoid, tanh = state, jax.nn.sigmoid, jax.numpy.tanh
    i, f, g, o = jax.numpy.split(v + h @ W_rec.T + b_rec, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
    return (h, c), h


def by_jax(peer: torch.nn.Module, us: Tensor, backward: bool) -> Job:
    lstm = isinstance(peer, torch.nn.LSTM)
    step: Callable[..., Any] = lstm_step if lstm else gru_step
    inputs, *weights = (jax.numpy.asarray(w.detach().numpy()) for w in (us, *(getattr(peer, name) for name in ORDER)))
    h = jax.numpy.zeros((us.shape[1], peer.hidden_size), inputs.dtype)

    def states(W_in: Any, W_rec: Any, b_in: Any, b_rec: Any) -> Any:
        one = lambda state, v: step(state, v, W_rec, b_rec)
        return jax.lax.scan(one, (h, h) if lstm else h, inputs @ W_in.T + b_in)[1]

    def loss(*weights: Any) -> Any:
        hs = states(*weights)
        return (hs**2).mean(), hs

    if not backward:
        forward = jax.jit(states)
        return lambda: (jax.block_until_ready(forward(*weights)),)
    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))

    def job() -> Any:
        (_, hs), of_weights = jax.block_until_ready(both(*weights))
        return hs, *of_weights

    return job


def case(kind: type[torch.nn.RNNBase], N: int, B: int, T: int, backward: bool, turns: int) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        peer, us = kind(N_IN, N), torch.randn(T, B, N_IN)
    name = kind.__name__
    tools = {"ctrnn": by_ctrnn(peer, us, backward), f"torch.nn.{name}": by_torch(peer, us, backward)}
    if jax:
        tools["jax.lax.scan"] = by_jax(peer, us, backward)
    at = {"network": name, "N": N, "B": B, "T": T, "pass": BOTH if backward else FORWARD}
    return side_by_side(at, tools, like=dict.fromkeys(tools, 1e-3), turns=turns)


def run(*, quick: bool = False) -> Row:
    sizes, turns = (((5, 2, 4),), 2) if quick else (SIZES, 9)
    kinds = (torch.nn.GRU, torch.nn.LSTM)
    cases = [case(kind, *size, back, turns) for kind in kinds for size in sizes for back in (False, True)]
    targets = [times_as_fast(done, fastest(done, ("ctrnn",)), 1.0) for done in cases]
    return Row("GRU and LSTM, float32", cases, targets, lacking(jax=jax))


if __name__ == "__main__":
    main(run)
