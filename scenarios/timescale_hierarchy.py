"""A hierarchy of timescales: does a slow group help a network to compose movements?

Claim (Yamashita & Tani): a network of fast and slow units learns sequences of repeated movement primitives, and learns
them worse when the slow units are hardly slower than the fast ones. Here an MTRNN of groups io, fast and slow learns
six sequences of three primitives for several ratios tau_slow / tau_fast, at equal parameter count; beside it stand the
same network with its time constants shuffled over all units, and untrained networks. Whether the published direction
comes out is a statistical claim: it is reported as found.

As in the paper, nothing from outside reaches the slow units during a movement, each sequence has its own learned
initial state of the slow units, and the network is trained on what it generates in closed loop. Unlike the paper, the
loop is closed inside the io group instead of through a robot's senses, no teaching signal is mixed in, the optimiser is
Adam, and the movements are curves in the plane. How long these last was changed after a first full run, in which no
condition had learned the figure eight; it was then chosen on other seeds, by the mean error over all conditions.

Source: Yamashita & Tani (2008), PLoS Comput. Biol. 4:e1000220 ("System overview": tau = 5 and 70, training in closed
loop; Fig. 9: learning error for several ratios, 5 trainings each, randomised test against the standard ratio 14.0).
"""

import copy
import functools
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from scipy.stats import binomtest, permutation_test, spearmanr
from torch import Generator, Tensor, nn

import ctrnn
from ctrnn import plots
from ctrnn.learning import Fitted, fit_ensemble
from ctrnn.models import MTRNN
from ctrnn.plots.style import CYCLE, INPUT, QUIET, TARGET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import Trials, TwoScalePrimitives

SIZES = {"io": 12, "fast": 40, "slow": 12}
TAU_IO, TAU_FAST, STANDARD, DT = 2.0, 5.0, 14.0, 1.0  # times in the paper's steps
RATE = 3e-3  # at the start; it falls to zero along a cosine
RATIOS = (1.0, 2.0, 5.0, STANDARD, 30.0)
PAPER = "Yamashita & Tani (2008), PLoS Comput. Biol. 4:e1000220, Fig. 9"
CONTROL, DERIVED = "control of this package", "derived"
PLANNED = "the same comparison with a period of 12 and 3 cycles of each primitive"
REASON = (
    "no condition learned the figure eight then, so the error was that of the fast scale; the claim did not hold there"
)


class Composer(ctrnn.Relaxation):
    """tau dx/dt = F(x) - x + tau starts^T u: an MTRNN whose slow units are moved to a row of `starts` by a unit cue.

    So the cue of a sequence gives the slow units an initial state of their own, learned as in the paper, whatever their
    tau. `starts` is (sequence, slow unit).
    """

    def __init__(self, network: MTRNN, starts: Float[Tensor, "sequence slow"]) -> None:
        super().__init__()
        self.network, self.starts = network, nn.Parameter(starts)
        self.n_in, self.tau = len(starts), network.tau

    def target(self, t: Tensor, x: Tensor, u: Tensor, alpha: Any = 0) -> Tensor:  # type: ignore[override]
        slow = self.network.units("slow")
        push = F.pad(u @ self.starts, (slow.start, self.network.n - slow.stop))
        return self.network.target(t, x, u[..., :0], alpha) + self.tau * push

    def initial_state(self, *batch: int) -> Tensor:
        return self.network.initial_state(*batch)

    def readout(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.network.readout(x)


class Condition(NamedTuple):
    """One setting of the comparison."""

    ratio: float
    shuffled: bool = False

    @property
    def taus(self) -> dict[str, float]:
        """Time constant of each group, before any shuffling."""
        return {"io": TAU_IO, "fast": TAU_FAST, "slow": TAU_FAST * self.ratio}

    def network(self, sequences: int, seed: int) -> Composer:
        """A network before training: one seed gives the same weights in every condition."""
        source = Generator().manual_seed(seed)
        groups = {name: (units, self.taus[name]) for name, units in SIZES.items()}
        network = MTRNN(groups, 0, 2, generator=source)
        starts = torch.randn(sequences, SIZES["slow"], generator=source)
        if self.shuffled:
            network.tau = network.tau[torch.randperm(network.n, generator=source)]
        return Composer(network, starts)


HIERARCHY, SHUFFLED = Condition(STANDARD), Condition(STANDARD, shuffled=True)
CONDITIONS = (*map(Condition, RATIOS), SHUFFLED)


class Outcome(NamedTuple):
    """What became of every condition: one training and one error before training for each seed."""

    fitted: dict[Condition, list[Fitted]]
    untrained: dict[Condition, Float[np.ndarray, " seed"]]

    def errors(self, condition: Condition) -> Float[np.ndarray, " seed"]:
        """Mean squared errors after training."""
        return np.array([one.score["mse"] for one in self.fitted[condition]])


def run(
    *, quick: bool = False, seed: int = 0, seeds: int = 5, updates: int = 1200, cycles: int = 2, period: float = 24.0
) -> Result:
    """Train every condition with every seed, all side by side, and compare the errors.

    Args:
        quick: at most two seeds and 60 updates, one cycle of each primitive.
        seed: the first seed of weights; seed, seed + 1 ... are used.
        seeds: trainings of each condition.
        updates: steps of Adam.
        cycles: how often each primitive is carried out before the next.
        period: how long a primitive takes, once.
    """
    seeds, updates, cycles = (min(seeds, 2), min(updates, 60), 1) if quick else (seeds, updates, cycles)
    task = TwoScalePrimitives(cycles=cycles, period=period)
    networks = [condition.network(task.n_in, seed + i) for condition in CONDITIONS for i in range(seeds)]
    trained = fit_ensemble(
        networks,
        task,
        updates=updates,
        batch=task.n_in,
        dt=DT,
        optimizer=functools.partial(torch.optim.Adam, lr=RATE),
        schedule=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates),
        clip=1.0,
        progress=progress(1, f"{len(networks)} networks"),
    )
    trials = task.trials(task.n_in, DT, Generator().manual_seed(seed))
    before = [task.evaluate(generate(network, trials), trials)["mse"] for network in networks]
    share = {condition: slice(k * seeds, (k + 1) * seeds) for k, condition in enumerate(CONDITIONS)}
    outcome = Outcome(
        {c: trained[own] for c, own in share.items()}, {c: np.array(before[own]) for c, own in share.items()}
    )
    claims = [*exact_claims(outcome, trials), *published_claims(outcome), *control_claims(outcome, task, trials)]
    return Result(figure(outcome, task, trials), claims)


@torch.no_grad()
def generate(model: nn.Module, trials: Trials) -> ctrnn.Trajectory:
    """What a network does after the cues of the trials."""
    return ctrnn.integrate(model, trials.us, dt=trials.dt)


def exact_claims(outcome: Outcome, trials: Trials) -> list[Claim]:
    """Identities that make the comparison one."""
    models = [(condition, one.model) for condition, all_seeds in outcome.fitted.items() for one in all_seeds]
    io, fast, slow = SIZES.values()
    links = io**2 + fast**2 + slow**2 + 2 * fast * (io + slow)
    expected = links + (io + fast + slow) + (2 * io + 2) + trials.us.shape[-1] * slow
    counts = sorted({free_weights(model) for _, model in models})
    escaped = max(outside_the_mask(model) for _, model in models)
    wrong = sum(not taus_as_stated(condition, model) for condition, model in models)
    worst = max(step_error(outcome.fitted[condition][0].model, trials) for condition in (HIERARCHY, SHUFFLED))
    by_hand = "steps of trained networks against a leaky integrator written by hand, float64"
    return [
        Claim.equal("weights that can change, the same number in every condition", counts, [expected], DERIVED),
        Claim.equal("largest trained weight where groups are not connected", escaped, 0.0, DERIVED),
        Claim.equal("trained networks whose time constants are not those stated", wrong, 0, DERIVED),
        Claim.below(by_hand, worst, 1e-12, DERIVED),
    ]


def free_weights(model: nn.Module) -> int:
    """How many numbers training can change: masked ones do not count."""
    network = model.network
    masks = [getattr(network.parametrizations, name)[0].mask for name in ("W_rec", "W_out")]
    return int(sum(mask.sum() for mask in masks)) + network.b_rec.numel() + network.b_out.numel() + model.starts.numel()


@torch.no_grad()
def outside_the_mask(model: nn.Module) -> float:
    """Largest weight between groups that are no neighbours, or from other units than io to the output."""
    group = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(list(SIZES.values())))
    apart, elsewhere = (group[:, None] - group).abs() > 1, (group > 0).expand_as(model.network.W_out)
    return float(torch.cat([model.network.W_rec[apart], model.network.W_out[elsewhere]]).abs().max())


def taus_as_stated(condition: Condition, model: nn.Module) -> bool:
    """Whether every group has its time constant, or all units together the same ones in another order."""
    stated = torch.cat([torch.full((units,), condition.taus[name]) for name, units in SIZES.items()])
    same = torch.equal(model.tau, stated)
    return not same and torch.equal(model.tau.sort()[0], stated.sort()[0]) if condition.shuffled else same


def step_error(model: nn.Module, trials: Trials) -> float:
    """Greatest difference between the steps of a run and x + dt / tau (W tanh(x) + b - x) + dt starts^T u in NumPy."""
    model, trials = copy.deepcopy(model).double(), trials.to(dtype=torch.float64)
    network, xs = model.network, generate(model, trials).xs.numpy()
    W, b, tau, starts = (p.detach().numpy() for p in (network.W_rec, network.b_rec, model.tau, model.starts))
    before = np.concatenate([np.zeros_like(xs[:1]), xs[:-1]])
    after = before + trials.dt / tau * (np.tanh(before) @ W.T + b - before)
    after[..., network.units("slow")] += trials.dt * (trials.us.numpy() @ starts)
    return float(np.abs(after - xs).max())


def larger(text: str, worse: np.ndarray, better: np.ndarray, source: str) -> Claim:
    """A claim that the first errors are larger on average, by the paper's kind of test: a two-sided randomised one."""
    difference = lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis)
    p = permutation_test((worse, better), difference, vectorized=True, n_resamples=np.inf).pvalue
    measured = f"{spread(worse)} against {spread(better)}, p = {p:.3f}, n = {len(worse)} + {len(better)}"
    holds = bool(worse.mean() > better.mean() and p < 0.05)
    return Claim(text, "statistical", measured, "larger mean, p < 0.05", None, source, holds, PLANNED, REASON)


def spread(errors: np.ndarray) -> str:
    """Median and range."""
    return f"{np.median(errors):.5f} ({errors.min():.5f} to {errors.max():.5f})"


def published_claims(outcome: Outcome) -> list[Claim]:
    """The paper's finding, put to the test on these movements."""
    standard = outcome.errors(HIERARCHY)
    small = [(r, outcome.errors(Condition(r))) for r in (1.0, 2.0)]
    rising = [r for r in RATIOS if r <= STANDARD]
    errors = np.concatenate([outcome.errors(Condition(r)) for r in rising])
    rho, p = spearmanr(np.repeat(rising, len(standard)), errors)
    text = f"the error falls from ratio 1 to ratio {STANDARD:g} (Spearman's rank correlation)"
    measured = f"rho = {rho:.2f}, p = {p:.3f}, n = {len(errors)}"
    return [
        *(
            larger(f"mean squared error at ratio {r:g} exceeds that at ratio {STANDARD:g}", e, standard, PAPER)
            for r, e in small
        ),
        Claim(
            text, "statistical", measured, "rho < 0, p < 0.05", None, PAPER, bool(rho < 0 and p < 0.05), PLANNED, REASON
        ),
    ]


def control_claims(outcome: Outcome, task: TwoScalePrimitives, trials: Trials) -> list[Claim]:
    """Whether it matters which units are slow, whether anything was learned, and whether that needs the step."""
    errors, untrained = outcome.errors(HIERARCHY), outcome.untrained[HIERARCHY]
    better, n = int((errors < untrained).sum()), len(errors)
    signs = f"{better} of {n}, p = {binomtest(better, n).pvalue:.3f}; untrained {spread(untrained)}"
    learned = f"seeds in which training lowers the error, ratio {STANDARD:g} (sign test)"
    accuracy = np.median([one.score["order_accuracy"] for one in outcome.fitted[HIERARCHY]])
    chance = task.chance(trials)["order_accuracy"]
    gaps = [one.gap for one in outcome.fitted[HIERARCHY]]
    at = [float(np.median([gap[k]["mse"] if gap[k] else np.inf for gap in gaps])) for k in range(3)]
    place = f"median share of places with the right primitive, ratio {STANDARD:g} (best constant output: {chance:.2f})"
    steps = f"median error, ratio {STANDARD:g}, at the step of training, at half of it, on adaptive steps"
    return [
        larger(
            f"shuffled time constants give a larger error, both at ratio {STANDARD:g}",
            outcome.errors(SHUFFLED),
            errors,
            CONTROL,
        ),
        Claim(learned, "statistical", signs, f"{n} of {n}", None, CONTROL, better == n),
        Claim.at_least(place, accuracy, 0.9, CONTROL, "statistical"),
        Claim(steps, "statistical", at, "within a factor of 2", None, CONTROL, max(at) <= 2 * at[0]),
    ]


def figure(outcome: Outcome, task: TwoScalePrimitives, trials: Trials) -> Figure:
    """One trained network at work, and the errors of all."""
    sample = int((trials.condition["sequence"] == 0).nonzero()[0, 0])
    shown, one = outcome.fitted[HIERARCHY][0].model, trials._replace(us=trials.us[:, sample])
    traj, rates = generate(shown, one), torch.tanh(generate(shown, one).xs)
    smooth = task.trials(task.n_in, DT / 20, Generator().manual_seed(0))
    target = smooth.targets[:, int((smooth.condition["sequence"] == 0).nonzero()[0, 0])]
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 5.8))
        top, bottom = fig.subfigures(2, 1, height_ratios=(1.5, 1))
        left, right = top.subfigures(1, 2, width_ratios=(1, 2.5))
        axes = right.subplots(4, 1, sharex=True, height_ratios=(1.3, 0.5, 1.2, 0.6))
        plane(left.subplots(), target, traj)
        traces(axes[0], target, traj, task)
        strips = [
            strip(ax, rates[:, shown.network.units(name)], name) for ax, name in zip(axes[1:], SIZES, strict=True)
        ]
        axes[-1].set_xlabel("time (in the unit of $\\tau$)")
        right.colorbar(strips[0], ax=axes[1:], label="rate tanh(x)", pad=0.01, aspect=30)
        error, learning = bottom.subplots(1, 2, width_ratios=(1, 1))
        error_plot(error, outcome, task.chance(trials)["mse"])
        learning_plot(learning, outcome)
    return fig


def plane(ax: Axes, target: Tensor, traj: ctrnn.Trajectory) -> None:
    ax.plot(*target.T, color=TARGET, lw=3, label="target")
    ax.plot(*traj.ys.T, color=TRAJECTORY, lw=0.7, label="generated")
    ax.set(xlabel="$y_1$", ylabel="$y_2$", title=f"one sequence, ratio {STANDARD:g}", aspect="equal")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2)


def traces(ax: Axes, target: Tensor, traj: ctrnn.Trajectory, task: TwoScalePrimitives) -> None:
    plots.stacked(ax, DT / 20 * np.arange(1, len(target) + 1), target, color=TARGET, gap=2.4, lw=2.5)
    plots.stacked(ax, traj.ts, traj.ys, color=TRAJECTORY, gap=2.4, lw=0.8)
    ax.set_yticks([0, -2.4], ["$y_1$", "$y_2$"])
    ax.set_ylim(-3.7, 2.4)
    for place, primitive in enumerate(task.orders[0]):
        start = task.cue + place * task.cycles * task.period
        ax.axvline(start, color=QUIET, lw=0.7)
        middle = start + task.cycles * task.period / 2
        ax.text(middle, 1.5, f"primitive {primitive + 1} $\\times$ {task.cycles}", ha="center", fontsize=7)


def strip(ax: Axes, rates: Tensor, name: str) -> AxesImage:
    duration, n = DT * len(rates), rates.shape[1]
    image = ax.imshow(rates.T.numpy(), aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    image.set_extent((0, duration, n + 0.5, 0.5))
    ax.set_ylabel(f"{name}\n$\\tau$ = {HIERARCHY.taus[name]:g}", rotation=0, ha="right", va="center")
    ax.set_yticks([1, n])
    return image


def error_plot(ax: Axes, outcome: Outcome, chance: float) -> None:
    dots = functools.partial(ax.plot, marker="o", ms=3.5, mfc="none", ls="")
    aligned = [outcome.errors(Condition(r)) for r in RATIOS]
    untrained = [outcome.untrained[Condition(r)] for r in RATIOS]
    ax.plot(RATIOS, np.median(aligned, axis=1), color=TRAJECTORY, label="hierarchy, median")
    dots(np.repeat(RATIOS, len(aligned[0])), np.ravel(aligned), color=TRAJECTORY, label="hierarchy, one seed")
    dots(np.full(len(aligned[0]), STANDARD * 1.2), outcome.errors(SHUFFLED), color=UNSTABLE, label="$\\tau$ shuffled")
    dots(np.repeat(RATIOS, len(aligned[0])), np.ravel(untrained), color=INPUT, label="untrained")
    ax.axhline(chance, color=QUIET, ls="--", lw=0.8, label="best constant")
    ax.set(xscale="log", yscale="log", title="error at equal parameter count")
    ax.set(xlabel="$\\tau_\\mathrm{slow} / \\tau_\\mathrm{fast}$", ylabel="mean squared error")
    ax.set_xticks(RATIOS, [f"{r:g}" for r in RATIOS])
    ax.minorticks_off()
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def learning_plot(ax: Axes, outcome: Outcome) -> None:
    for color, condition in zip(CYCLE, CONDITIONS, strict=False):
        losses = np.median([[record.loss for record in one.history] for one in outcome.fitted[condition]], axis=0)
        label = f"{condition.ratio:g}, shuffled" if condition.shuffled else f"{condition.ratio:g}"
        ax.semilogy(losses, color=color, lw=0.8, label=label)
    ax.minorticks_off()
    ax.set(xlabel="update", ylabel="mean squared error, median", title="learning")
    ax.legend(title="ratio", loc="upper left", bbox_to_anchor=(1.0, 1.0))


if __name__ == "__main__":
    main(run)
