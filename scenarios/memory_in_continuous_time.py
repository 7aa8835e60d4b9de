"""What becomes of an external memory as the step shrinks: clocked, relaxed, and relaxed at exact rates.

Claim: a clocked memory does at every step dt what the discrete network does. In a relaxed one, which flows, a command
that is held for tau is carried out in tau / dt small steps, and then only what adds up is whole: adding, a counter, a
stack of segments. What replaces is done to 1 - (1 - dt / tau)^(tau / dt), which falls to 1 - 1 / e, unless rates are
made exact; a head that moves by one slot has a variance of 1 - dt / tau after each tau, a stack blurs alike, a link
falls to (1 - 1 / e) / e, and to nothing if precedence goes at exact rates, and a pop and a push at once come to
nothing. Sharpening bounds how far a head spreads, but the head then has a pace of its own: with a great exponent slot k
leads from ln(k + 1) tau on, faster and faster. Weights, usage, links and cells stay within their bounds for steps
dt <= tau of Euler and Heun, but not of Midpoint and RK4.

Whether a relaxed neural Turing machine can be trained to copy at dt < tau was open; the plan was that it can. Found:
with the budget of this script it learns in part, one vector wholly, but about a fifth of the bits of six stay wrong,
and more at another dt than at its own. A clocked one is the discrete one, bit for bit, if its controller is prompt; a
controller that flows as slowly as symbols come makes copying hard by itself.

Source: the closed forms below, each derived where it stands; no published flow of a neural Turing machine or a
differentiable neural computer is known to us. Graves, Wayne & Danihelka (2014), arXiv:1410.5401; Graves et al. (2016),
Nature 538:471-476; Joulin & Mikolov (2015), arXiv:1503.01007; Grefenstette et al. (2015), arXiv:1506.02516; Das, Giles
& Sun (1992), Proc. 14th Conf. Cognitive Science Society; Schlag, Irie & Schmidhuber (2021), arXiv:2102.11174.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp
from scipy.stats import binom, poisson
from torch import Generator, Tensor

from ctrnn import RK4, Adaptive, Euler, Every, Fixed, Held, Heun, Midpoint, Solver, integrate, learning, plots
from ctrnn.learning import Fitted
from ctrnn.models import (
    DNC,
    LSTM,
    NTM,
    DNCState,
    Elman,
    FastWeights,
    NeuralStack,
    Pushdown,
    StackRNN,
    feed_forward,
)
from ctrnn.models.activations import identity
from ctrnn.plots.style import CYCLE, OUTPUT, QUIET, STABLE, TARGET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress
from ctrnn.tasks import Copy

ON, OFF = 800.0, -800.0  # logits: sigma and softmax are exactly 1 and 0, in float64
HELD = 1e18  # tau of what is to stay where it is
SLOTS = 64
PARTS = (1, 2, 4, 8, 64)  # steps to a tau


# ---- mechanisms: how much of what the discrete network does in a step is done after tau


class Kind(NamedTuple):
    """How a memory runs below dt = tau."""

    clocked: bool
    exact_rates: bool = False


CLOCKED, RELAXED, EXACT = Kind(True), Kind(False), Kind(False, True)


class Mechanism(NamedTuple):
    """One thing that a memory does."""

    name: str
    done: Callable[[Kind, int], float]  # the share of the discrete step that n steps to a tau come to
    law: Callable[[int], float]  # the same for a relaxed memory, in closed form
    limit: float  # of the law, as dt goes to 0
    faster: Callable[[int], float] | None = None  # the law at exact rates, if the network has them


def silent(model: Any, **rows: Sequence[float]) -> Any:
    """The model in float64, whose heads are told these numbers, whatever the controller says."""
    model.double().requires_grad_(False)
    model.W_heads.zero_()
    model.b_heads.copy_(torch.tensor([value for part in rows.values() for value in part], dtype=torch.float64))
    return model


def machine(
    kind: Kind,
    *,
    slots: int,
    key: Sequence[float] = (0.0,),
    strength: float = OFF,
    gate: float = OFF,
    exponent: float = OFF,
    erase: float = OFF,
    add: float = 0.0,
    shifts: Sequence[float] = (OFF, ON, OFF),
    start: Sequence[float] | None = None,
) -> NTM:
    """A machine whose two heads are told the same all the time; both begin at slot 1 unless `start` has weights."""
    width = len(key)
    model = NTM(
        feed_forward(1, width),
        slots=slots,
        width=width,
        shifts=len(shifts) // 2,
        learn_weights=False,
        **kind._asdict(),
    )
    first = torch.eye(slots, dtype=torch.float64)[1] if start is None else torch.tensor(start, dtype=torch.float64)
    model.double().w_0.copy_(first.log().clamp_min(OFF))
    return silent(
        model,
        keys=[*key, *key],
        add=[add] * width,
        strengths=[strength] * 2,
        exponents=[exponent] * 2,
        gates=[gate] * 2,
        erase=[erase] * width,
        shifts=[*shifts, *shifts],
    )


def run_for(model: Any, n: int, x0: Any = None, us: Any = None, taus: int = 1) -> Any:
    """The states at the end of each tau, in n steps of Euler to a tau."""
    us = torch.zeros(taus, model.n_in, dtype=torch.float64) if us is None else us
    return integrate(model, us, x0, dt=1.0, steps=Fixed(1 / n), solver=Euler()).xs


def cell(kind: Kind, n: int, erase: float, add: float, held: float) -> float:
    """What a cell that held `held` holds after a head was there for tau."""
    model = machine(kind, slots=3, erase=erase, add=add)
    x0 = model.initial_state()
    return float(run_for(model, n, x0._replace(memory=torch.full_like(x0.memory, held))).memory[0, 1, 0])


def erased(kind: Kind, n: int) -> float:
    return 1 - cell(kind, n, ON, 0.0, 1.0)


def added(kind: Kind, n: int) -> float:
    return cell(kind, n, OFF, 1.0, 0.0)


SHARE, ADDED = 0.8, 0.4  # erased and added where a slot is written over: from 1 to 0.6


def overwritten(kind: Kind, n: int) -> float:
    logit = math.log(SHARE / (1 - SHARE))
    return (1 - cell(kind, n, logit, ADDED, 1.0)) / (SHARE - ADDED)


def computer(kind: Kind, **logits: float) -> DNC:
    """A computer of three slots whose heads are told the same all the time; a relaxed one's heads stay put."""
    told = {"erase": OFF, "free": OFF, "allocate": ON, "write": ON} | logits
    tau: Any = 1.0 if kind.clocked else DNCState((), 1.0, 1.0, HELD, HELD, 1.0, 1.0)
    model = DNC(feed_forward(1, 1), slots=3, width=1, tau=tau, **kind._asdict())
    return silent(model, keys=[0, 0], add=[0], strengths=[0, 0], gates=list(told.values()), modes=[0, 0, 0])


def in_turn(kind: Kind, n: int) -> DNCState:
    """The state after slot 0 and then slot 1 were written, each for tau, of a new memory."""
    model = computer(kind)
    if kind.clocked:  # it allocates them in this order
        return run_for(model, n, taus=2)
    x = model.initial_state()
    for slot in (0, 1):
        xs = run_for(model, n, x._replace(write_weights=torch.eye(3, dtype=torch.float64)[None, slot]))
        x = DNCState(*[part[-1] for part in xs])
    return DNCState(*[part[None] for part in x])


def used(kind: Kind, n: int) -> float:
    return float(in_turn(kind, n).usage[-1, 0])


def preceded(kind: Kind, n: int) -> float:
    return float(in_turn(kind, n).precedence[-1, 0, 1])


def linked(kind: Kind, n: int) -> float:
    return float(in_turn(kind, n).link[-1, 0, 1, 0])


def freed(kind: Kind, n: int) -> float:
    """How much a slot that was in use is not, after it was read and freed for tau."""
    model, slot = computer(kind, free=ON, write=OFF), torch.eye(3, dtype=torch.float64)[0]
    x0 = model.initial_state()._replace(usage=slot, read_weights=slot[None])
    return 1 - float(run_for(model, n, x0).usage[0, 0])


def found(kind: Kind, n: int) -> float:
    """How much of a head is at the slot whose content it is told to look for."""
    model = machine(kind, slots=3, key=(0.0, 0.0, 1.0), strength=ON, gate=ON, erase=OFF)
    x0 = model.initial_state()._replace(memory=torch.eye(3, dtype=torch.float64))
    return float(run_for(model, n, x0).read_weights[0, 0, 2])


def walk(kind: Kind, n: int, taus: int, exponent: float = 1.0) -> Tensor:
    """Where a head is at the end of each tau, relative to where it began: (tau, slot)."""
    return run_for(walker(kind, exponent), n, taus=taus).read_weights[:, 0].roll(-1, -1)


def walker(kind: Kind, exponent: float) -> NTM:
    """A machine whose heads go to the next slot in each tau, sharpened with this exponent."""
    logit = OFF if exponent == 1 else exponent - 1 + math.log(-math.expm1(1 - exponent))
    return machine(kind, slots=SLOTS, shifts=(OFF, OFF, ON), exponent=logit)


def moved(kind: Kind, n: int) -> float:
    return float(walk(kind, n, 1)[0, 1])


BLURRED = (0.6, 0.4)  # weights that are sharpened with an exponent of 2


def sharper(kind: Kind, n: int) -> float:
    model = machine(kind, slots=2, shifts=(0.0,), exponent=math.log(math.expm1(1)), start=BLURRED)
    return _sharper(float(run_for(model, n).read_weights[0, 0, 0]))


def _sharper(weight: float) -> float:
    whole = BLURRED[0] ** 2 / (BLURRED[0] ** 2 + BLURRED[1] ** 2)
    return (weight - BLURRED[0]) / (whole - BLURRED[0])


def towards(w: Any) -> Any:
    """F - w of the first of two weights."""
    return w**2 / (w**2 + (1 - w) ** 2) - w


def sharper_by_hand(n: int) -> float:
    """Euler's steps, in Python."""
    w = BLURRED[0]
    for _ in range(n):
        w += towards(w) / n
    return _sharper(w)


def sharper_at_last() -> float:
    """The flow, by SciPy."""
    flow = solve_ivp(lambda _, w: towards(w), (0, 1), BLURRED[:1], rtol=1e-11, atol=1e-12)
    return _sharper(float(flow.y[0, -1]))


def messenger(n_in: int, n_out: int, n: int) -> Elman:
    """A controller that says at once, in a step of tau / n, the first inputs that it is told."""
    net = feed_forward(n_out, n_in, activation=identity, tau=1 / n)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.W_in.copy_(torch.eye(n_out, n_in))
    return net


def stacked(kind: Kind, n: int, commands: Sequence[Any]) -> Tensor:
    """What is on top of a stack of depth 40, empty at first, after each command, a number to push or "pop"."""
    model = StackRNN(
        messenger(3 + 1, 3, n),
        depth=40,
        top=1,
        squash=identity,
        empty=0.0,
        clocked=kind.clocked,
    )
    with torch.no_grad():
        model.W_heads.copy_(torch.diag(torch.tensor([ON, ON, 1.0])))
        model.b_heads.zero_()
    us = [[0.0, 1, 0] if c == "pop" else [1.0, 0, c] for c in commands]
    told = torch.tensor(us, dtype=torch.float64)
    return run_for(model.double().requires_grad_(False), n, us=told).stacks[:, 0, 0, 0]


def kept_on_stack(kind: Kind, n: int) -> float:
    """How much of a is on top after: push a, push b, pop."""
    return float(stacked(kind, n, [1.0, 0.0, "pop"])[-1])


def top_of_stack(n: int, pushed: Sequence[float], pops: int) -> float:
    """The expected top of a list if each tau holds n chances of 1 / n to push, or to pop.

    The stack is linear in its cells, so that small steps do in expectation what a list does by chance. At least as
    many as S_v, all pushes from v on, popped: nothing of v or later is left.
    """
    gone = [_outnumbered(n * (len(pushed) - k), n * pops, 1 / n) for k in range(len(pushed) + 1)]
    return sum(value * (gone[k + 1] - gone[k]) for k, value in enumerate(pushed))


def _outnumbered(pushes: int, pops: int, chance: float) -> float:
    """P(Binomial(pushes) <= Binomial(pops))."""
    k = np.arange(pops + 1)
    return float(binom.pmf(k, pops, chance) @ binom.cdf(k, pushes, chance))


def kept_in_segments(kind: Kind, n: int) -> float:
    """The same as `kept_on_stack`, of a pushdown automaton."""
    return float(segments(kind, n, [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, -1.0]])[-1, 0])


def segments(kind: Kind, n: int, us: Sequence[Sequence[float]], gain: float = ON) -> Tensor:
    """What a pushdown automaton reads after each symbol; the last number of a symbol is atanh(action) / gain."""
    told = torch.tensor(us, dtype=torch.float64)
    width = told.shape[1]
    model = Pushdown(messenger(2 * width, width, n), slots=len(us), clocked=kind.clocked)
    silent(model, action=[0.0]).W_heads[0, -1] = gain
    return model.read(run_for(model, n, us=told))[:, 0]


def replaced_on_top(kind: Kind, n: int) -> float:
    """How much of a neural stack's only element is gone when another was pushed while it was popped."""
    model = NeuralStack(messenger(4, 3, n), slots=4, width=1, clocked=kind.clocked)
    silent(model, zero=[0.0] * 3).W_heads.copy_(torch.eye(3))
    us = torch.tensor([[OFF, ON, ON], [ON, ON, 0.0]], dtype=torch.float64)  # pop, push, what
    return 1 - float(model.read(run_for(model, n, us=us))[-1])


def associated(kind: Kind, n: int) -> float:
    """How much of a value is under a key after it was written there for tau."""
    model = FastWeights(feed_forward(1, 1), keys=2, width=1, **kind._asdict())
    silent(model, queries=[0.0, 0.0], keys=[ON, OFF], values=[1.0], beta=[ON])
    return float(run_for(model, n).weights[0, 0, 0, 0])


def counted(kind: Kind, n: int) -> float:
    """x_1 - x_2 of two ReLU units after a, a and b; they flow, whatever the kind."""
    del kind
    net = Elman(2, 1, activation=torch.relu).double().requires_grad_(False)
    for parameter in net.parameters():
        parameter.zero_()
    net.W_rec.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    net.W_in.copy_(torch.tensor([[1.0], [-1.0]]))
    x = run_for(net, n, us=torch.tensor([[1.0], [1.0], [-1.0]], dtype=torch.float64))[-1]
    return float(x[0] - x[1])


def replaced(n: int) -> float:
    """n steps of 1 / n towards a target that is held."""
    return 1 - (1 - 1 / n) ** n


def linked_law(n: int) -> float:
    """Slot 0 precedes by 1 - (1 - h)^n; then L <- (1 - h) L + h p and p <- (1 - h) p, n times, where h = 1 / n."""
    return replaced(n) * (1 - 1 / n) ** (n - 1)


REST = torch.finfo(torch.float64).eps  # what exact rates leave in tau of what is to go wholly


def linked_faster(n: int) -> float:
    """The same, but p falls to p REST^h in each step."""
    return sum(REST ** (k / n) * (1 - 1 / n) ** (n - 1 - k) for k in range(n)) / n


def _whole(n: int) -> float:
    del n
    return 1.0


FADED = 1 - 1 / math.e
_K = np.arange(60)
MECHANISMS = (
    Mechanism("add, nothing erased", added, _whole, 1.0, _whole),
    Mechanism("counter of two ReLU units", counted, _whole, 1.0),
    Mechanism("segment stack, one signed action", kept_in_segments, _whole, 1.0),
    Mechanism("erase", erased, replaced, FADED, _whole),
    Mechanism(
        "write over, 80 % erased",
        overwritten,
        lambda n: (1 - (1 - SHARE / n) ** n) / SHARE,
        (1 - math.exp(-SHARE)) / SHARE,
        _whole,
    ),
    Mechanism("delta rule", associated, replaced, FADED, _whole),
    Mechanism("usage", used, replaced, FADED, _whole),
    Mechanism("free", freed, replaced, FADED, _whole),
    Mechanism("precedence", preceded, replaced, FADED, _whole),
    Mechanism("go to a content", found, replaced, FADED),
    Mechanism("sharpen 0.6 : 0.4 with exponent 2", sharper, sharper_by_hand, sharper_at_last()),
    Mechanism(
        "stack: push a, push b, pop: a on top",
        kept_on_stack,
        partial(top_of_stack, pushed=[1.0, 0.0], pops=1),
        float(poisson.pmf(_K, 1) @ (poisson.cdf(_K, 1) - poisson.cdf(_K, 2))),
    ),
    Mechanism("shift a head by one slot", moved, lambda n: (1 - 1 / n) ** (n - 1), 1 / math.e),
    Mechanism("link two slots written in turn", linked, linked_law, FADED / math.e, linked_faster),
    Mechanism("neural stack, pop and push at once", replaced_on_top, lambda n: 1 / n, 0.0),
)


# ---- heads that go on moving


class Walks(NamedTuple):
    """How relaxed heads spread that are told to move one slot in each tau."""

    places: dict[int, Tensor]  # steps to a tau -> weights (tau, slot) without sharpening
    flow: Tensor  # (tau, slot) by adaptive steps
    sharpened: dict[float, Tensor]  # exponent -> weights (tau, slot) in 16 steps to a tau
    leads: list[float]  # time at which slot 1, 2, ... comes to have the greatest weight


MOVES, LEADERS = 5, 5
EXPONENTS = (1.0, 1.5, 2.0, 5.0)
GREAT, FINE = 5000.0, 512  # an exponent, and steps to a tau


def walks(parts: Sequence[int], taus: int) -> Walks:
    """Heads that walk."""
    told = Held(torch.zeros(MOVES, 0, dtype=torch.float64), 1.0)
    flow = integrate(walker(RELAXED, 1.0), told, steps=Adaptive(1e-9, 1e-11)).xs
    spans = round(1.1 * math.log(LEADERS + 1) * FINE)
    sharp = integrate(walker(RELAXED, GREAT), torch.zeros(spans, 0, dtype=torch.float64), dt=1 / FINE).xs
    leader = sharp.read_weights[:, 0].roll(-1, -1).argmax(-1)
    return Walks(
        {n: walk(RELAXED, n, MOVES) for n in parts},
        flow.read_weights[:, 0].roll(-1, -1),
        {exponent: walk(RELAXED, 16, taus, exponent) for exponent in EXPONENTS},
        [(int((leader >= k).nonzero()[0]) + 1) / FINE for k in range(1, LEADERS + 1)],
    )


def moments(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of where a head is, as long as it has not come round the ring."""
    slots = torch.arange(weights.shape[-1], dtype=weights.dtype)
    mean = weights @ slots
    return mean, weights @ slots.square() - mean.square()


# ---- what stays within bounds


def bounded(solver: Solver, parts: Sequence[int], kinds: Sequence[Kind], taus: int, seed: int) -> float:
    """The greatest violation of the bounds, in machines, computers and stacks told wild things at random."""
    return max(
        violation(make(kind, seed), solver, n, taus, seed)
        for kind in kinds
        for make in (wild_machine, wild_computer, wild_stack)
        for n in parts
    )


def wild_machine(kind: Kind, seed: int) -> NTM:
    draw = Generator().manual_seed(seed)
    net = LSTM(6, 4 + 6, generator=draw)
    return wild(NTM(net, slots=5, width=3, reads=2, writes=2, generator=draw, **kind._asdict()))


def wild_computer(kind: Kind, seed: int) -> DNC:
    draw = Generator().manual_seed(seed)
    net = LSTM(6, 4 + 6, generator=draw)
    return wild(DNC(net, slots=5, width=3, reads=2, writes=2, generator=draw, **kind._asdict()))


def wild_stack(kind: Kind, seed: int) -> StackRNN:
    draw = Generator().manual_seed(seed)
    return wild(StackRNN(LSTM(6, 4 + 2, generator=draw), depth=5, clocked=kind.clocked, generator=draw))


def wild(model: Any) -> Any:
    """The model in float64, with gates that are open or shut."""
    model.double().requires_grad_(False).W_heads.mul_(30)
    return model


def violation(model: Any, solver: Solver, n: int, taus: int, seed: int) -> float:
    """How far any weights, usage, links or cells get out of their bounds."""
    us = torch.randn(taus, 8, 4, generator=Generator().manual_seed(seed), dtype=torch.float64)
    xs = integrate(model, us, dt=1.0, steps=Fixed(1 / n), solver=solver, save=Every(1)).xs
    if isinstance(model, StackRNN):
        return float((xs.stacks.abs() - 1).max())
    weights = torch.cat([xs.write_weights, xs.read_weights], -2)
    totals = [weights.sum(-1)]
    if isinstance(model, NTM):
        totals.append(2 - totals[0])  # they come to 1, neither more nor less
    else:
        totals += [xs.usage, xs.precedence.sum(-1), xs.link.sum(-1), xs.link.sum(-2)]
    least = [weights] if isinstance(model, NTM) else [weights, xs.usage, xs.precedence, xs.link]
    return max(*(float((part - 1).max()) for part in totals), *(float(-part.min()) for part in least))


def jump(allocation: float | None) -> float:
    """By how much the target of a write head jumps where two usages of 0.5 change order."""
    model = computer(RELAXED)
    model.allocation = allocation
    targets = []
    for order in (1, -1):
        usage = torch.tensor([0.5 + order * 1e-9, 0.5 - order * 1e-9, 1.0], dtype=torch.float64)
        x = model.initial_state()._replace(usage=usage)
        targets.append(model.target(torch.zeros(()), x, torch.zeros(0, dtype=torch.float64)).write_weights)
    return float((targets[0] - targets[1]).abs().max())


# ---- training


class Case(NamedTuple):
    """How machines are trained."""

    name: str
    kind: Kind
    parts: int  # steps to a tau
    prompt: bool  # whether the controller says at once what it has to say, or flows with tau as well
    color: str

    @property
    def tau(self) -> float:
        """The controller's."""
        return 1 / self.parts if self.prompt else 1.0


CASES = (
    Case("dt = tau", CLOCKED, 1, True, STABLE),
    Case("clocked, tau/2, all flows", CLOCKED, 2, False, TRAJECTORY),
    Case("relaxed, tau/2, prompt", RELAXED, 2, True, UNSTABLE),
    Case("relaxed, tau/2, all flows", RELAXED, 2, False, OUTPUT),
    Case("relaxed, tau/4, prompt", RELAXED, 4, True, TARGET),
)
LONGEST = 6  # vectors


class Trained(NamedTuple):
    """Machines of one case: share of wrong bits (seed, length) as they were trained, and run in other ways."""

    fits: list[Fitted]
    wrong: Tensor
    otherwise: dict[Case, Tensor]


def train(case: Case, task: Copy, seeds: Sequence[int], units: int, updates: int, batch: int, trials: int) -> Trained:
    """Train machines of which all that flows has tau = 1, the time a symbol lasts, but for prompt controllers."""
    fits = learning.fit_ensemble(
        [pupil(case, task, units, number) for number in seeds],
        task,
        seeds=seeds,
        updates=updates,
        batch=batch,
        dt=1.0,
        steps=Fixed(1 / case.parts),
        optimizer=partial(torch.optim.Adam, lr=1e-2),
        schedule=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=updates),
        clip=10.0,
        evaluation_batch=4,
        progress=progress(1, f"training: {case.name}"),
    )
    wrong = lambda how: torch.tensor(
        [wrong_bits(as_in(fit.model, how, task, units), task, how, trials) for fit in fits]
    )
    others = [case._replace(parts=2 * case.parts)] + ([case._replace(kind=RELAXED, parts=2)] if case.parts == 1 else [])
    return Trained(fits, wrong(case), {how: wrong(how) for how in others})


def as_in(model: Any, case: Case, task: Copy, units: int) -> NTM:
    """The same weights, run in another way."""
    again = pupil(case, task, units, 0)
    again.load_state_dict(model.state_dict(), strict=False)  # a relaxed memory has time constants of its own
    again.controller.tau = case.tau
    return again


def pupil(case: Case, task: Copy, units: int, seed: int) -> NTM:
    """A machine of ten slots of six numbers; both heads begin at slot 0."""
    draw = Generator().manual_seed(seed)
    controller = feed_forward(units, task.n_in + 6, tau=case.tau, generator=draw)
    return NTM(
        controller,
        task.n_out,
        slots=10,
        width=6,
        start_slot=0,
        learn_weights=False,
        generator=draw,
        **case.kind._asdict(),
    )


@torch.no_grad()
def wrong_bits(model: NTM, task: Copy, case: Case, trials: int) -> list[float]:
    """The share of wrong bits at each length."""
    wrong = []
    for length in range(1, LONGEST + 1):
        test = Copy(bits=task.bits, lengths=(length, length))
        shown = test.trials(trials, 1.0, Generator().manual_seed(10_000 + length))
        run_ = integrate(model, shown.us, dt=1.0, steps=Fixed(1 / case.parts))
        wrong.append(test.evaluate(run_, shown)["bit_error"])
    return wrong


# ---- all of it


class Table(NamedTuple):
    """The share of the discrete step that is done after tau: (mechanism, steps to a tau), NaN where there is none."""

    parts: Sequence[int]
    clocked: np.ndarray
    relaxed: np.ndarray
    exact: np.ndarray


def measure(parts: Sequence[int]) -> Table:
    """Every mechanism at every dt."""
    of = lambda kind: np.array([[m.done(kind, n) for n in parts] for m in MECHANISMS])
    exact = [[m.done(EXACT, n) if m.faster else math.nan for n in parts] for m in MECHANISMS]
    return Table(parts, of(CLOCKED), of(RELAXED), np.array(exact))


def run(
    *,
    quick: bool = False,
    seed: int = 0,
    seeds: int = 3,
    bits: int = 3,
    units: int = 32,
    updates: int = 600,
    batch: int = 16,
    trials: int = 64,
) -> Result:
    """Measure what every mechanism does as dt shrinks, let heads walk, look for violations, and train machines to copy.

    Args:
        quick: fewer steps to a tau, and one machine of each case with too few updates to learn.
        seed: of weights and trials; the machines take seed, seed + 1, ...
        seeds: machines of each case.
        bits: of a vector, of which there are up to six.
        units: of the machines' controllers.
        updates: of Adam.
        batch: sequences in an update.
        trials: sequences of each length that are tested.
    """
    parts, taus, cases = PARTS, 16, CASES
    if quick:
        parts, taus, cases, seeds, updates, batch, trials = (1, 2, 8), 4, CASES[:3:2], 1, 2, 2, 2
    table, walked = measure(parts), walks(parts, taus)
    limits = {
        solver: bounded(solver, (1, 2, 7), (RELAXED, EXACT) if solver == Euler() else (RELAXED,), taus, seed)
        for solver in (Euler(), Heun())
    } | {
        solver: max(bounded(solver, (1,), (RELAXED,), taus, seed + k) for k in range(5))
        for solver in (Midpoint(), RK4())
    }
    task = Copy(bits=bits, lengths=(1, LONGEST), same_length=True)
    numbers = [seed + k for k in range(seeds)]
    trained = {case: train(case, task, numbers, units, updates, batch, trials) for case in cases}
    claims = [*of_table(table), *of_walks(walked), *of_bounds(limits), *of_training(trained)]
    return Result(figure(table, walked, trained), claims)


DERIVED, EXPERIMENT = "derived", "no source: an experiment"
FEWER = "the same after 350 updates"
UNDERTRAINED = "then 1 of 3 machines at dt = tau was right and no other: too few updates for a comparison"
RARE = "RK4 leaves the bounds in some draws only, and not in the first one of double precision"


def of_table(table: Table) -> list[Claim]:
    """What each mechanism does."""
    discrete = table.relaxed[:, :1]
    found = [
        Claim.equal(
            f"clocked: greatest difference from the discrete network, {len(MECHANISMS)} mechanisms, dt = tau ... "
            f"tau / {table.parts[-1]}",
            np.abs(table.clocked - discrete).max(),
            0.0,
            "a clocked part takes one whole step in each tau",
        )
    ]
    for k, m in enumerate(MECHANISMS):
        law = np.array([m.law(n) for n in table.parts])
        found.append(
            Claim.below(
                f"relaxed, {m.name}: greatest difference from the law; done at dt = tau / {table.parts[-1]}: "
                f"{table.relaxed[k, -1]:.4f}, in the limit {m.limit:.4f}",
                np.abs(table.relaxed[k] - law).max(),
                1e-9,
                DERIVED,
            )
        )
    for k, m in enumerate(MECHANISMS):
        if m.faster is not None:
            law = np.array([m.faster(n) for n in table.parts])
            found.append(
                Claim.below(
                    f"exact rates, {m.name}: greatest difference from the law; done at dt = tau / {table.parts[-1]}: "
                    f"{table.exact[k, -1]:.4f}",
                    np.abs(table.exact[k] - law).max(),
                    1e-9,
                    DERIVED,
                )
            )
    tops = [stacked(RELAXED, n, LIST).tolist() for n in (2, 100)]
    chance = [
        [*(top_of_stack(n, LIST[:k], 0) for k in range(1, 5)), *(top_of_stack(n, LIST[:4], k) for k in (1, 2, 3))]
        for n in (2, 100)
    ]
    found.append(
        Claim.below(
            f"relaxed stack, push 1, 2, 3, 4, pop three times: tops at tau / 100: "
            f"{', '.join(f'{top:.2f}' for top in tops[1])}; greatest difference from a list moved by chance",
            np.abs(np.array(tops) - np.array(chance)).max(),
            1e-9,
            DERIVED + ", binomials by SciPy",
        )
    )
    draw = np.random.default_rng(0).uniform(-0.9, 0.9, 20)
    us = [[float(k % 2), float(1 - k % 2), math.atanh(a)] for k, a in enumerate(draw)]
    reads = [segments(RELAXED, n, us, 1.0) for n in table.parts]
    found.append(
        Claim.below(
            "relaxed segment stack, 20 actions drawn from -0.9 to 0.9: greatest difference between what is read at "
            "any dt and at dt = tau",
            max(float((read - reads[0]).abs().max()) for read in reads),
            1e-9,
            DERIVED + ": lengths add up",
        )
    )
    found.append(
        Claim.near(
            "sorted allocation: jump of a write head's target where two usages of 0.5 change order",
            jump(None),
            0.25,
            1e-6,
            DERIVED + ": (1 - u)^2",
        )
    )
    found.append(Claim.below("soft allocation: the same", jump(2.0), 1e-6, "softmax is smooth"))
    return found


LIST: list[Any] = [1.0, 2.0, 3.0, 4.0, "pop", "pop", "pop"]


def of_walks(walked: Walks) -> list[Claim]:
    """How heads spread."""
    moves = torch.arange(1.0, MOVES + 1, dtype=torch.float64)
    gaps = []
    for n, weights in walked.places.items():
        mean, variance = moments(weights)
        gaps.append(float(torch.stack([mean - moves, variance - moves * (1 - 1 / n)]).abs().max()))
    mean, variance = moments(walked.flow)
    late = {exponent: _late(weights) for exponent, weights in walked.sharpened.items()}
    return [
        Claim.below(
            f"relaxed head told to move one slot: greatest difference, over dt and {MOVES} moves, of its mean from k "
            "slots and of its variance from k (1 - dt / tau)",
            max(gaps),
            1e-9,
            DERIVED + ": tau / dt chances of dt / tau to move",
        ),
        Claim.below(
            "the same head in the flow, by adaptive steps: greatest difference of mean and variance from k",
            float(torch.stack([mean - moves, variance - moves]).abs().max()),
            1e-6,
            DERIVED + ": a Poisson number of moves",
        ),
        Claim.below(
            f"exponent {GREAT:.0f}: greatest difference of the time at which slot k takes the lead from ln(k + 1) tau, "
            f"k = 1 ... {LEADERS} (found {', '.join(f'{t:.3f}' for t in walked.leads)})",
            max(abs(t - math.log(k + 1)) for k, t in enumerate(walked.leads, 1)),
            0.01,
            DERIVED + ": when slots k - 1 and k both have 1 / (k + 1)",
        ),
        Claim.below(
            "exponent 2: growth of the variance in the last tau (without sharpening it is "
            f"{late[1.0][1]:.2f}); the head makes {late[2.0][0]:.2f} slots there, with 5 {late[5.0][0]:.2f}",
            late[2.0][1],
            0.1,
            "sharpening bounds the spread, at a pace of its own",
            "statistical",
        ),
    ]


def _late(weights: Tensor) -> tuple[float, float]:
    """Slots made, and variance gained, in the last tau."""
    mean, variance = moments(weights)
    return float(mean[-1] - mean[-2]), float(variance[-1] - variance[-2])


def of_bounds(limits: dict[Solver, float]) -> list[Claim]:
    """What stays within bounds."""
    found = []
    for solver, worst in limits.items():
        text = f"{solver}: greatest violation of a bound on weights, usage, links or cells at "
        if isinstance(solver, (Euler, Heun)):
            found.append(Claim.below(text + "dt = tau, tau / 2, tau / 7", worst, 1e-12, DERIVED + ": averages"))
        else:
            source = "a counterexample: its steps are no averages"
            claim = Claim.at_least(text + "dt = tau, of five draws", worst, 1e-6, source)
            rare = replace(claim, kind="statistical", planned="exact, and in the first draw", reason=RARE)
            found.append(rare if isinstance(solver, RK4) else claim)
    return found


def of_training(trained: dict[Case, Trained]) -> list[Claim]:
    """What machines learned, and whether it lasts at another dt."""
    found = []
    for case, result in trained.items():
        n, share, last = len(result.fits), result.wrong.mean(1), result.wrong[:, -1]
        found.append(
            Claim.equal(
                f"{case.name}: machines of {n} that copy 1 to {LONGEST} vectors with fewer than 1 % of bits wrong "
                f"(median wrong {100 * share.median():.1f} %, of {LONGEST} vectors {100 * last.median():.1f} %)",
                int((share < 0.01).sum()),
                n,
                EXPERIMENT,
                "statistical",
            )
        )
        for how, wrong in result.otherwise.items():
            percent = float(100 * wrong.mean(1).median())
            kind = "clocked" if how.kind.clocked else "relaxed"
            text = f"{case.name}: median % of bits wrong if the same weights run {kind}, dt = tau / {how.parts}"
            if how.kind.clocked and how.prompt:
                change = float((wrong - result.wrong).abs().max())
                text = f"{case.name}: greatest change of the share of wrong bits if the same weights run {kind}, dt = "
                found.append(Claim.equal(f"{text}tau / {how.parts}", change, 0.0, "a tick hears the same controller"))
            elif how.kind.clocked:
                found.append(Claim.below(text, percent, 1.0, EXPERIMENT, "statistical"))
            else:
                found.append(Claim.at_least(text, percent, 5.0, EXPERIMENT, "statistical"))
    # The number of updates was raised after the first full run.
    return [replace(c, planned=FEWER, reason=UNDERTRAINED) if c.kind == "statistical" else c for c in found]


# ---- figure


def figure(table: Table, walked: Walks, trained: dict[Case, Trained]) -> Figure:
    """The table; how heads and stacks blur; what machines learned."""
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 8.4))
        above, middle, below = fig.subfigures(3, 1, height_ratios=(1.55, 1, 1))
        _table(above.subplots(), table)
        spread, variance, sharp = middle.subplots(1, 3)
        _places(spread, walked)
        _variances(variance, walked)
        _sharpened(sharp, walked)
        tops, losses, wrong = below.subplots(1, 3)
        _tops(tops)
        _losses(losses, trained)
        _wrong(wrong, trained)
    return fig


def _table(ax: Axes, table: Table) -> None:
    finest = len(table.parts) - 1
    limits = np.array([m.limit for m in MECHANISMS])
    blocks = (
        ("clocked", table.clocked[:, [finest]], [_dt(table.parts[finest])]),
        ("relaxed", np.c_[table.relaxed, limits], [*map(_dt, table.parts), "$\\to$ 0"]),
        ("at exact rates", table.exact[:, 1:], [_dt(n) for n in table.parts[1:]]),
    )
    start, ticks, names = 0.0, [], []
    for title, values, labels in blocks:
        rows, columns = values.shape
        ax.imshow(
            np.where(np.isnan(values), np.nan, np.abs(values - 1)),
            cmap="OrRd",
            vmin=0,
            vmax=1.4,
            aspect="auto",
            extent=(start, start + columns, rows - 0.5, -0.5),
        )
        for (row, column), value in np.ndenumerate(values):
            text = "–" if np.isnan(value) else f"{value:.2f}"
            ax.text(start + column + 0.5, row, text, ha="center", va="center", fontsize=7)
        ax.text(start + columns / 2, -1.6, title, ha="center", va="bottom", fontsize=8)
        ticks += [start + column + 0.5 for column in range(columns)]
        names += labels
        start += columns + 0.3
    ax.set(xlim=(0, start - 0.3), ylim=(len(MECHANISMS) - 0.5, -0.5))
    ax.set_xticks(ticks, names)
    ax.set_yticks(range(len(MECHANISMS)), [m.name for m in MECHANISMS])
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.xaxis.set_label_position("bottom")
    ax.set_xlabel(
        "share of the discrete step that is done after $\\tau$, for each dt; –: there are no exact rates", labelpad=6
    )


def _tau(text: str) -> str:
    return text.replace("tau", "$\\tau$")


def _dt(n: int) -> str:
    return "$\\tau$" if n == 1 else f"$\\tau$/{n}"


def _places(ax: Axes, walked: Walks) -> None:
    slots = np.arange(2 * MOVES + 11)
    for (n, weights), color in zip(walked.places.items(), CYCLE, strict=False):
        ax.plot(slots, weights[-1, : len(slots)], color=color, label=f"dt = {_dt(n)}" + " (up to 1)" * (n == 1))
    ax.plot(slots, poisson.pmf(slots, MOVES), "o", ms=3, color=QUIET, label="Poisson")
    ax.set(xlabel="slot", ylabel="weight", title=f"a relaxed head after {MOVES} moves", ylim=(0, 0.6))
    ax.legend()


def _variances(ax: Axes, walked: Walks) -> None:
    steps = np.linspace(0, 1, 50)
    ax.plot(steps, 1 - steps, color=QUIET, label="$1 - dt / \\tau$")
    relaxed = [float(moments(weights)[1][-1]) / MOVES for weights in walked.places.values()]
    ax.plot([1 / n for n in walked.places], relaxed, "o", ms=4, color=UNSTABLE, label="relaxed")
    ax.plot(0, float(moments(walked.flow)[1][-1]) / MOVES, "o", ms=4, mfc="white", color=UNSTABLE, label="flow")
    clocked = [float(moments(walk(CLOCKED, n, MOVES))[1][-1]) / MOVES for n in walked.places]
    ax.plot([1 / n for n in walked.places], clocked, "s", ms=4, color=TRAJECTORY, label="clocked")
    ax.set(xlabel="dt / $\\tau$", ylabel="variance per move / slots$^2$", title="how a head spreads")
    ax.legend()


def _sharpened(ax: Axes, walked: Walks) -> None:
    for (exponent, weights), color in zip(walked.sharpened.items(), CYCLE, strict=False):
        times, spread = np.arange(1, len(weights) + 1), moments(weights)[1].sqrt()
        ax.plot(times, spread, color=color, label=f"{exponent:g}: {_late(weights)[0]:.2f} slots per $\\tau$")
    ax.set(xlabel="time / $\\tau$", ylabel="standard deviation / slots", title="sharpened, dt = $\\tau$/16")
    ax.set_ylim(0, 1.75 * float(moments(walked.sharpened[1.0])[1].sqrt().max()))
    ax.legend(title="exponent: pace at the end", title_fontsize=7, loc="upper left")


def _tops(ax: Axes) -> None:
    for n, color, kind in ((1, TRAJECTORY, CLOCKED), (2, UNSTABLE, RELAXED), (64, TARGET, RELAXED)):
        tops = stacked(kind, max(n, 2), LIST)
        label = "clocked, every dt" if kind.clocked else f"relaxed, dt = {_dt(n)}"
        ax.plot(range(len(LIST)), tops, "o-", ms=3, color=color, label=label)
    names = [f"push\n{c:.0f}" if c != "pop" else "pop" for c in LIST]
    ax.set_xticks(range(len(LIST)), names)
    ax.set(ylabel="top of the stack", title="a stack", ylim=(0, 6.2))
    ax.legend(loc="upper left")


def _losses(ax: Axes, trained: dict[Case, Trained]) -> None:
    for case, result in trained.items():
        for fit in result.fits:
            loss = np.array([record.loss for record in fit.history])
            every = max(len(loss) // 40, 1)
            smooth = loss[: len(loss) // every * every].reshape(-1, every).mean(1)
            updates = every * (np.arange(len(smooth)) + 0.5)
            ax.semilogy(updates, smooth, color=case.color, lw=0.7)
    ax.set(xlabel="update", ylabel="cross-entropy of a bit / nats", title="learning to copy (colours: right)")


def _wrong(ax: Axes, trained: dict[Case, Trained]) -> None:
    lengths = np.arange(1, LONGEST + 1)
    for case, result in trained.items():
        plots.sweep(ax, lengths, 100 * result.wrong, label=_tau(case.name), color=case.color)
    ax.axhline(50, color=QUIET, lw=0.6, ls=":")
    ax.text(1, 51, "chance", fontsize=7)
    ax.set(
        xlabel="vectors to copy",
        ylabel="wrong bits / %",
        title="after training: mean, range",
        ylim=(-2, 118),
        yticks=range(0, 101, 25),
    )
    ax.legend(loc="upper right", title="memory, dt, controller", title_fontsize=7)


if __name__ == "__main__":
    main(run)
