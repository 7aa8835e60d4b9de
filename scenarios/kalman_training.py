"""The extended Kalman filter as a learning rule.

Claim: a recurrent multilayer perceptron that foresees a chaotic series learns in one pass, by the extended Kalman
filter, what Adam does not reach in one pass; the filter that is decoupled by nodes neglects how the errors of different
units go together, keeps a ninth of the numbers, and loses little. Without its recurrent weights the same network,
filtered alike, does not see what the next sample depends on. Found: so it is with all five seeds; but ahead of ten
passes of Adam, and of the filter by nodes, the global filter is with four of them.

The series is Mackey & Glass's with a delay of 17, sampled every 6 units of time (a few samples span the delay) and
squashed by tanh(y - 1); the network sees one sample and says the next. The filters learn after every sample, with
variances set once; Adam after every 20, by backpropagation through these, with the best of three learning rates for
every network: best on the held-out samples, in its favour.

Source: Puskorius & Feldkamp (1994), IEEE Trans. Neural Networks 5:279-297; Haykin (ed., 2001), Kalman Filtering and
Neural Networks, ch. 2. The task is ours: no number of theirs belongs beside it.
"""

import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ctrnn import EchoState, RecurrentPerceptron, StackState, integrate, plots
from ctrnn.learning import ExtendedKalman, RecursiveLeastSquares, by_node, fit_kalman
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks.mackey_glass import MackeyGlass

SIZES, EVERY, WASHOUT = (8, 1), 6.0, 100
RULE = ExtendedKalman(P0=1.0, R=0.01, Q=1e-6)
CHUNK, RATES, PASSES = 20, (3e-3, 1e-2, 3e-2), 10
GLOBAL, NODES, STATIC = "EKF, global", "EKF, by node", "EKF, no recurrent weights"
ADAM, MORE = "Adam, one pass", f"Adam, {PASSES} passes"
COLORS = {GLOBAL: TRAJECTORY, NODES: UNSTABLE, ADAM: OUTPUT, MORE: INPUT, STATIC: QUIET}
PAPER = "Puskorius & Feldkamp (1994); the task is ours"


class Found(NamedTuple):
    """What was found with all seeds."""

    online: dict[str, Tensor]  # method -> (seed, sample) error before the sample was learned, in the first pass
    errors: dict[str, np.ndarray]  # method -> (seed,) held-out error over the series' standard deviation
    kept: dict[str, int]  # filter -> numbers in its P


class Run(nn.Module):
    """What a network says in response to some samples, and the state in which they leave it."""

    def __init__(self, net: RecurrentPerceptron) -> None:
        super().__init__()
        self.net = net

    def forward(self, us: Tensor, x0: StackState) -> tuple[Tensor, StackState]:
        run = integrate(self.net, us, x0, dt=1.0)
        return run.ys, StackState(tuple(layer[-1] for layer in run.xs.layers))


def run(*, quick: bool = False, seed: int = 0, seeds: int = 5, samples: int = 2000) -> Result:
    """Train networks by both filters and by Adam on the same samples.

    Args:
        quick: one seed and few samples.
        seed: of series and weights; seed, seed + 1, ...
        seeds: series, and networks of each kind.
        samples: in the series from which is learned; as many are held out.
    """
    if quick:
        seeds, samples = 1, 160
    draws = [Generator().manual_seed(seed + k) for k in range(seeds)]
    nets = [RecurrentPerceptron(SIZES, 1, generator=draw) for draw in draws]
    learn, test = torch.stack([series(samples, draw) for draw in draws], 1).unbind(2)
    found = Found({}, {}, {})
    report = progress(4, "training")
    rules = ((GLOBAL, nets, RULE), (NODES, nets, replace(RULE, groups=by_node)), (STATIC, map(static, nets), RULE))
    for k, (name, starts, rule) in enumerate(rules):
        filtered = [
            fit_kalman(net, us[:-1], us[1:], dt=1.0, rule=rule) for net, us in zip(starts, learn.unbind(1), strict=True)
        ]
        found.kept[name] = sum(P.numel() for P in filtered[0].online.weights.P)
        found.online[name] = torch.stack([f.errors[:, 0] for f in filtered])
        found.errors[name] = np.array([held_out(f.model, us) for f, us in zip(filtered, test.unbind(1), strict=True)])
        report(k + 1)
    by_adam(nets, learn, test, found)
    report(4)
    return Result(figure(found), claims(found, samples))


def series(samples: int, draw: Generator) -> Tensor:
    """A series to learn from and one to test with (sample, 2, 1)."""
    ys = MackeyGlass().series(samples + 1, 2, draw, dt=EVERY, dtype=torch.get_default_dtype())
    return torch.tanh(ys - 1)


def static(net: RecurrentPerceptron) -> RecurrentPerceptron:
    """The same network, its recurrent weights at zero and not learned."""
    without = copy.deepcopy(net)
    for layer in without.layers:
        assert isinstance(layer.W_rec, Tensor)
        nn.init.zeros_(layer.W_rec).requires_grad_(False)
    return without


def held_out(net: RecurrentPerceptron, us: Tensor) -> float:
    """Error of the next sample, over the series' standard deviation."""
    with torch.no_grad():
        misses = (integrate(net, us[:-1], dt=1.0).ys - us[1:])[WASHOUT:]
    return float(misses.square().mean().sqrt() / us.std())


def by_adam(nets: list[RecurrentPerceptron], learn: Tensor, test: Tensor, found: Found) -> None:
    """Train by Adam at every rate, all seeds side by side, and note what the best rate of each seed reached."""
    tried = [passes(nets, learn, test, rate) for rate in RATES]
    once, often = (np.array([errors[k] for _, errors in tried]) for k in (0, -1))
    online = torch.stack([errors for errors, _ in tried])
    found.online[ADAM] = online[once.argmin(0), torch.arange(len(nets))]
    found.errors[ADAM], found.errors[MORE] = once.min(0), often.min(0)


def passes(
    nets: list[RecurrentPerceptron], learn: Tensor, test: Tensor, rate: float
) -> tuple[Tensor, list[list[float]]]:
    """Errors on the way through the first pass (seed, sample), and held-out ones after each pass, for each seed."""
    runs = [Run(copy.deepcopy(net)) for net in nets]
    weights, _ = stack_module_state(runs)
    call = vmap(lambda w, us, x: functional_call(runs[0], w, (us, x)), in_dims=(0, 1, 0), out_dims=(1, 0))
    optimizer = torch.optim.Adam(weights.values(), lr=rate)
    online: list[Tensor] = []
    errors = []
    for _ in range(PASSES):
        x = nets[0].initial_state(len(nets))
        for us, targets in zip(learn[:-1].split(CHUNK), learn[1:].split(CHUNK), strict=True):
            ys, x = call(weights, us, StackState(tuple(layer.detach() for layer in x.layers)))
            optimizer.zero_grad()
            # The sum over seeds: the networks share nothing, and each gets its own gradient.
            (ys - targets).square().mean((0, 2)).sum().backward()
            optimizer.step()
            online.append((targets - ys).detach()[..., 0].T)
        for k, run_ in enumerate(runs):
            run_.load_state_dict({name: w[k] for name, w in weights.items()}, strict=False)
        errors.append([held_out(run_.net, us) for run_, us in zip(runs, test.unbind(1), strict=True)])
    return torch.cat(online, 1)[:, : len(learn) - 1], errors


@torch.no_grad()
def linear_differences() -> tuple[float, float]:
    """How far the filter is from recursive least squares and from ridge regression, where only a readout is learned."""
    draw, penalty = Generator().manual_seed(0), 0.3
    model = EchoState(6, 1, 2, bias_scale=0.2, generator=draw).double()
    us, targets = torch.randn(2, 100, 2, generator=draw, dtype=torch.float64)
    us = us[:, :1]
    found = fit_kalman(model, us, targets, dt=1.0, rule=ExtendedKalman(P0=1 / penalty))
    shown = model.activity(integrate(model, us, dt=1.0).xs)
    X = nn.functional.pad(shown, (0, 1), value=1.0)
    rls = RecursiveLeastSquares(7, 2, penalty=penalty)
    errors = torch.stack([rls.update(x, d) for x, d in zip(X, targets, strict=True)])
    W = torch.linalg.solve(X.T @ X + penalty * torch.eye(7, dtype=X.dtype), X.T @ targets).T
    learned = torch.cat([found.model.W_out, found.model.b_out[:, None]], 1)
    return float((found.errors - errors).abs().max()), float((learned - W).abs().max())


def claims(found: Found, samples: int) -> list[Claim]:
    """What the filter is on a linear model, then how well it learns."""
    rls, ridge = linear_differences()
    return [
        Claim.below("on a linear readout: difference from recursive least squares", rls, 1e-9, "an identity"),
        Claim.below("on a linear readout: difference from ridge regression", ridge, 1e-9, "an identity"),
        Claim.equal(
            "numbers in P: of the global filter, and of one by node",
            [found.kept[GLOBAL], found.kept[NODES]],
            [(8 * 10 + 10) ** 2, 8 * 10**2 + 10**2],
            "8 units with 10 weights each, and one with 10",
        ),
        *compared(found, samples),
    ]


def compared(found: Found, samples: int) -> list[Claim]:
    """Who errs less with every seed: with fewer than 5 of 5, chance does so in more than one case of twenty."""
    n, mean = len(found.errors[GLOBAL]), {name: f"{errors.mean():.3f}" for name, errors in found.errors.items()}
    listed = [
        Claim.at_least(
            f"{better} ({mean[better]}) errs less on held-out samples than {worse} ({mean[worse]}), "
            f"k of {n} seeds, {samples:,} samples",
            int((found.errors[better] < found.errors[worse]).sum()),
            n,
            PAPER,
            "statistical",
        )
        for better, worse in ((GLOBAL, ADAM), (NODES, ADAM), (GLOBAL, MORE), (GLOBAL, NODES), (NODES, STATIC))
    ]
    planned, reason = f"at least {n // 2 + 1} seeds", "3 of 5 is what chance gives every second time"
    return [replace(claim, planned=planned, reason=reason) for claim in listed]


def figure(found: Found) -> Figure:
    """Errors on the way, and where each method ended."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 2.9), layout="constrained")
        left, right = fig.subplots(1, 2, width_ratios=(3, 2))
        for name, online in found.online.items():
            width = online.shape[1] // 40
            blocks = online[:, : 40 * width].reshape(len(online), 40, width).square().mean(-1).sqrt()
            plots.sweep(left, width * (np.arange(40) + 0.5), blocks, label=name, color=COLORS[name], marker="")
        left.set(yscale="log", ylim=(3e-3, 2), xlabel="samples seen", ylabel="error before learning (root mean square)")
        left.set_title(f"the next sample, said before it is seen (mean and range of {len(online)} seeds)")
        left.legend(loc="upper right", ncols=2)
        plots.by_seed(right, {name: found.errors[name] for name in COLORS}, list(COLORS.values()))
        right.set(xscale="log", xlabel="error / standard deviation", title="afterwards, held-out samples")
        right.set_xticks([0.03, 0.1, 0.3, 1.0], ["0.03", "0.1", "0.3", "1"], minor=False)
        right.minorticks_off()
    return fig


if __name__ == "__main__":
    main(run)
