import itertools
import math
import pickle
from functools import cache

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.nn.utils import parametrize

import ctrnn.adjoints
from ctrnn import (
    RK4,
    Adaptive,
    Adjoint,
    At,
    Backprop,
    Backsolve,
    BacksolveWarning,
    Cubic,
    Euler,
    Every,
    ExponentialEuler,
    Fixed,
    Forward,
    Function,
    Held,
    Iterate,
    Last,
    Linear,
    Recompute,
    TorchDiffEq,
    integrate,
)
from ctrnn import _tree as tree
from ctrnn.adjoints._revolve import advances, split
from ctrnn.dynamics import Model
from ctrnn.models import CTRNN, LSTM, Elman, Stack
from tests.laws import modules

# torch's forward mode compiles its rules on first use, by a function that torch itself has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def adjoint_classes():
    """Every adjoint of the package: a new one is subject to the law of agreement without being named here."""
    found = {kind for home in modules(ctrnn.adjoints) for kind in vars(home).values() if isinstance(kind, type)}
    found = {kind for kind in found if issubclass(kind, Adjoint) and kind is not Adjoint}
    return sorted(found, key=lambda kind: kind.__name__)


# The adjoint of the flow is not that of the steps; RK4's error at the steps below is near 1e-8.
TOLERANCE = {Backsolve: 1e-5}
OTHERS = [kind for kind in adjoint_classes() if kind is not Backprop]


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(**options):
    tau = torch.tensor([0.5, 1.0, 3.0])
    return CTRNN(3, 2, tau=tau, learn_tau=True, generator=torch.Generator().manual_seed(0), **options)


def loss(trajectory):
    """Every saved number with a weight of its own, and not linear."""
    total = 0.0
    for i, leaf in enumerate(tree.leaves(trajectory.xs)):
        clean = torch.where(leaf.isnan(), 0.0, leaf)
        total = total + (clean * rand(*leaf.shape, seed=i + 7)).sum() + (clean**2).sum()
    return total


def gradients(model, adjoint, drive, x0, others=(), **options):
    """Of the loss, with respect to all of the model's parameters and whatever else is given."""
    if "noise" in options:
        options["generator"] = torch.Generator().manual_seed(3)
    run = integrate(model, drive, x0, adjoint=adjoint, **options)
    return torch.autograd.grad(loss(run), [*model.parameters(), *tree.leaves(x0), *others], allow_unused=True)


def distance(a, b):
    """The largest difference, relative to the largest number of each Tensor; a missing gradient is 0."""
    worst = 0.0
    for left, right in zip(a, b, strict=True):
        left, right = (torch.zeros(()) if value is None else value for value in (left, right))
        left, right = left.detach(), right.detach()
        worst = max(worst, float((left - right).abs().max() / right.abs().max().clamp(min=1e-30)))
    return worst


def grown(tensor):
    return tensor.detach().clone().requires_grad_()


def held(**options):
    us = grown(rand(5, 2, 2, seed=1))
    return Held(us, 0.3, **options), [us]


def with_edges(kind, *batch):
    us = grown(rand(5, 2, 2, seed=1))
    count = 6 if kind is Held else 5
    edges = grown((0.3 * torch.arange(count)).reshape(-1, *[1] * len(batch)) + 0.05 * rand(count, *batch))
    return kind(us, edges=edges), [us, edges]


def wave(t):
    return torch.cat([torch.sin(3 * t).expand(2, 1), torch.cos(t).expand(2, 1)], -1)


def case(name):
    """A drive, the Tensors a gradient is to reach, and options."""
    # Not whole steps: there, a longer time takes one step more.
    ends = (grown(torch.tensor(0.21)), grown(torch.tensor(1.283)))
    ts = grown(torch.tensor([0.353, 0.712, 1.107]))
    cases = {
        "held": (*held(), {}),
        "last": (*held(), {"save": Last()}),
        "lengths": (*held(lengths=torch.tensor([2, 5])), {}),
        "lengths of which one is zero": (*held(lengths=torch.tensor([0, 4])), {}),
        "edges": (*with_edges(Held), {}),
        "edges of each sample": (*with_edges(Held, 2), {}),
        "linear": (*with_edges(Linear), {}),
        "cubic": (*with_edges(Cubic), {}),
        "part of the time": (held()[0], list(ends), {"t_span": ends}),
        "function": (Function(wave, jumps=(0.7,)), list(ends), {"t_span": ends}),
        "silence": (None, list(ends), {"t_span": ends}),
        "given times": (held()[0], [ts], {"save": At(ts)}),
    }
    return cases[name]


CASES = [
    "held",
    "last",
    "lengths",
    "lengths of which one is zero",
    "edges",
    "edges of each sample",
    "linear",
    "cubic",
    "part of the time",
    "function",
    "silence",
    "given times",
]
STEPS = {"fixed": {"steps": Fixed(0.02), "solver": RK4()}, "adaptive": {"steps": Adaptive(1e-9, 1e-9)}}


@cache
def by_backprop(name, steps):
    drive, others, options = case(name)
    x0 = grown(rand(2, 3, seed=2))
    return gradients(network(), Backprop(), drive, x0, others, **STEPS[steps] | options)


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", CASES)
def test_every_adjoint_gives_the_gradient_of_backprop(name, steps, kind, monkeypatch):
    monkeypatch.setattr(Forward, "most", 10_000)
    drive, others, options = case(name)
    x0 = grown(rand(2, 3, seed=2))
    found = gradients(network(), kind(), drive, x0, others, **STEPS[steps] | options)
    assert distance(found, by_backprop(name, steps)) < TOLERANCE.get(kind, 1e-11)
    assert any(float(g.abs().max()) > 0.1 for g in found if g is not None)


@pytest.mark.parametrize("kind", adjoint_classes(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("make", [LSTM.example, Stack.example], ids=["named tuple", "nested"])
def test_states_may_be_trees(make, steps, kind):
    model, us = make(), grown(rand(4, 2, 2, seed=1))
    x0 = tree.map(lambda leaf: grown(leaf + 0.3), model.initial_state(2))
    drive = Held(us[..., : model.n_in], 0.1)
    found = gradients(model, kind(), drive, x0, [us], **STEPS[steps])
    reference = gradients(model, Backprop(), drive, x0, [us], **STEPS[steps])
    assert distance(found, reference) < TOLERANCE.get(kind, 1e-11)


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
def test_adjoints_are_values(kind):
    assert kind() == kind()
    assert hash(kind()) == hash(kind())
    assert pickle.loads(pickle.dumps(kind())) == kind()
    assert repr(kind()).startswith(kind.__name__)


@pytest.mark.parametrize("kind", adjoint_classes(), ids=lambda kind: kind.__name__)
def test_the_states_are_those_of_a_run_without_gradients(kind):
    bitwise = not issubclass(kind, Backsolve | Forward)  # Backsolve takes other steps, Forward no kernels
    compare_with_a_run_without_gradients(kind, bitwise)
    with ctrnn.plain():
        compare_with_a_run_without_gradients(kind, kind is not Backsolve)


def compare_with_a_run_without_gradients(kind, bitwise):
    model, drive = network(), held()[0]
    with torch.no_grad():
        plain = integrate(model, drive, steps=Fixed(0.02), solver=RK4())
        silent = integrate(model, drive, steps=Fixed(0.02), solver=RK4(), adjoint=kind())
    assert not silent.xs.requires_grad
    run = integrate(model, drive, steps=Fixed(0.02), solver=RK4(), adjoint=kind())
    if bitwise:
        assert torch.equal(silent.xs, plain.xs)
        assert torch.equal(run.xs, plain.xs)
    torch.testing.assert_close(run.xs, plain.xs, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", adjoint_classes(), ids=lambda kind: kind.__name__)
def test_an_adjoint_leaves_the_model_and_the_random_numbers_alone(kind):
    model, drive = network(), held()[0]
    before = {name: (id(p), p.detach().clone()) for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    loss(integrate(model, drive, steps=Fixed(0.02), solver=RK4(), adjoint=kind())).backward()
    assert torch.equal(state, torch.get_rng_state())
    for name, p in model.named_parameters():
        assert id(p) == before[name][0]
        assert torch.equal(p, before[name][1])
        assert p.grad is not None or name.startswith("W_out")


@pytest.mark.parametrize("kind", adjoint_classes(), ids=lambda kind: kind.__name__)
def test_parametrised_and_tied_weights_get_their_gradient(kind):
    class Half(nn.Module):
        def forward(self, w):
            return w / 2

    class Pair(Model):
        """dx/dt = tanh(W tanh(V x)) - x with V = W."""

        def __init__(self):
            super().__init__()
            self.first, self.second = (nn.Linear(3, 3, bias=False) for _ in range(2))
            self.first.weight = self.second.weight

        def forward(self, t, x, u):
            return torch.tanh(self.second(torch.tanh(self.first(x)))) - x

    torch.manual_seed(0)
    for model in (network(), Pair()):
        if isinstance(model, CTRNN):
            parametrize.register_parametrization(model, "W_rec", Half())
        x0, options = grown(rand(2, 3)), {"t_span": (0.0, 1.0), "steps": Fixed(0.02), "solver": RK4()}
        found = gradients(model, kind(), None, x0, **options)
        reference = gradients(model, Backprop(), None, x0, **options)
        assert distance(found, reference) < TOLERANCE.get(kind, 1e-11)


# --- against finite differences ---------------------------------------------------------------------------------------


def slope(leaves, direction, run, h=1e-5):
    """The central difference of the loss along a direction of all leaves together."""
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for leaf, d in zip(leaves, direction, strict=True):
                leaf += sign * h * d
            values.append(float(loss(run())))
            for leaf, d in zip(leaves, direction, strict=True):
                leaf -= sign * h * d
    return (values[0] - values[1]) / (2 * h)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        *[(name, {"steps": Fixed(0.05), "solver": RK4()}) for name in CASES if not name.startswith("l")],
        ("edges of each sample", {"steps": Adaptive(1e-11, 1e-11)}),
        ("function", {"steps": Adaptive(1e-11, 1e-11)}),
        ("given times", {"steps": Adaptive(1e-11, 1e-11)}),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value["steps"]).__name__,
)
def test_backprop_is_the_central_difference(name, steps):
    drive, others, options = case(name)
    model, x0 = network(), grown(rand(2, 3, seed=2))
    leaves = [*model.parameters(), x0, *others]
    options = steps | options
    found = gradients(model, Backprop(), drive, x0, others, **options)
    directions = [rand(*leaf.shape, seed=20 + i) for i, leaf in enumerate(leaves)]
    products = [0.0 if g is None else float((g * d).sum()) for g, d in zip(found, directions, strict=True)]

    def run():
        return integrate(model, drive, x0, **options)

    if isinstance(options["steps"], Adaptive):  # two runs to so small an error are dear: all directions at once
        assert slope(leaves, directions, run) == pytest.approx(sum(products), rel=1e-6, abs=1e-6)
        return
    for leaf, direction, expected in zip(leaves, directions, products, strict=True):
        assert slope([leaf], [direction], run) == pytest.approx(expected, rel=1e-6, abs=1e-6)


# --- Recompute --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"solver": Euler(), "steps": Fixed(0.05)},
        {"solver": ExponentialEuler(), "steps": Fixed(0.01), "noise": 0.2},
        {"steps": Adaptive(1e-6, 1e-6)},
        {"solver": Euler(), "steps": Fixed(0.05), "save": Every(3)},
    ],
    ids=["euler", "noise", "adaptive", "some saved"],
)
@pytest.mark.parametrize("lengths", [None, torch.tensor([3, 5])], ids=["all", "lengths"])
def test_recompute_equals_backprop_for_every_snapshot_count(options, lengths):
    if lengths is not None and "save" in options:
        options = {key: value for key, value in options.items() if key != "save"}
    options = {"save": Last()} | options
    drive, others = held(lengths=lengths)
    model, x0 = network(), grown(rand(2, 3, seed=2))
    reference = gradients(model, Backprop(), drive, x0, others, **options)
    steps = int(integrate(model, drive, x0, **{k: v for k, v in options.items() if k != "noise"}).stats.steps.max())
    segments = math.ceil(steps / math.isqrt(steps))
    assert segments > 2
    for snapshots in (None, *range(1, segments + 2)):
        found = gradients(model, Recompute(snapshots), drive, x0, others, **options)
        assert distance(found, reference) < 1e-12


def test_a_noise_that_is_learned_gets_its_gradient():
    model, x0, sigma = network(), grown(rand(2, 3)), grown(torch.tensor([0.1, 0.2, 0.3]))
    drive, options = held()[0], {"steps": Fixed(0.01), "solver": Euler(), "noise": sigma}
    found = [
        gradients(model, adjoint, drive, x0, [sigma], **options) for adjoint in (Backprop(), Recompute(), Forward())
    ]
    assert distance(found[1], found[0]) < 1e-12
    assert distance(found[2], found[0]) < 1e-12


def test_float32_gradients_differ_by_rounding_only():
    model, us, x0 = network().float(), grown(rand(5, 2, 2).float()), grown(rand(2, 3).float())
    found = [
        gradients(model, adjoint, Held(us, 0.3), x0, [us], steps=Fixed(0.03), solver=RK4())
        for adjoint in (Backprop(), Recompute(), Recompute(2), Forward())
    ]
    assert all(g.dtype == torch.float32 for g in found[1] if g is not None)
    assert max(distance(other, found[0]) for other in found[1:]) < 1e-5


class Counting(Model):
    """dx/dt = a sin(x), counting its evaluations."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.5))
        self.calls = 0

    def forward(self, t, x, u):
        self.calls += 1
        return self.a * torch.sin(x)


@pytest.mark.parametrize("snapshots", [1, 2, 3, 5, 10])
def test_recompute_takes_no_more_steps_than_the_optimal_schedule(snapshots):
    model = Counting()
    run = integrate(
        model,
        None,
        torch.ones(1, requires_grad=True),
        t_span=(0.0, 10.0),
        steps=Fixed(0.1),
        solver=Euler(),
        save=Last(),
        adjoint=Recompute(snapshots),
    )
    forward = model.calls
    assert forward == 100 + 1  # the run, and one step that looks for tensors from outside
    run.xs.sum().backward()
    again = advances(10, snapshots) - 9  # the run itself has been the first way through
    assert model.calls - forward == 100 + 10 * again


@cache
def least(n, slots):
    """Forward segments by exhaustive search."""
    if n == 1:
        return 0
    if slots == 0:
        return math.inf
    return min(k + least(k, slots) + least(n - k, slots - 1) for k in range(1, n))


def test_the_schedule_is_as_short_as_exhaustive_search_finds():
    for n, slots in itertools.product(range(1, 41), range(1, 9)):
        r = next(r for r in itertools.count() if math.comb(slots + r, slots) >= n)
        formula = r * n - (math.comb(slots + r, r - 1) if r else 0)
        assert advances(n, slots) == least(n, slots) == (formula if n > 1 else 0)

    def walked(n, slots):
        k = split(n, slots) if n > 1 else 0
        return k + walked(k, slots) + walked(n - k, slots - 1) if n > 1 else 0

    assert all(walked(n, slots) == least(n, slots) for n in range(1, 60) for slots in (1, 2, 3, 7))


def kept(adjoint, steps):
    """Bytes that a run keeps for its gradient, every Tensor once."""
    sizes = {}

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model, x0 = network(), grown(rand(50, 3))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run = integrate(
            model, None, x0, t_span=(0.0, 0.01 * steps), steps=Fixed(0.01), solver=Euler(), save=Last(), adjoint=adjoint
        )
        total = run.xs.sum()
    del total
    return sum(sizes.values())


def test_memory_grows_as_promised():
    state = 50 * 3 * 8
    assert kept(Backprop(), 1600) > 3.5 * kept(Backprop(), 400)
    assert kept(Recompute(), 1600) - kept(Recompute(), 400) == (40 - 20) * state
    assert kept(Recompute(4), 1600) == kept(Recompute(4), 400)
    assert kept(Recompute(8), 1600) - kept(Recompute(4), 1600) == 4 * state
    assert kept(Recompute(), 1600) < kept(Backprop(), 1600) / 20


def test_forward_keeps_no_more_for_a_longer_run():
    assert kept(Forward(), 400) == kept(Forward(), 100)


@pytest.mark.parametrize("snapshots", [None, 2])
def test_recompute_composes_with_grad_jacrev_and_vmap(snapshots):
    model = network()
    us, x0 = rand(6, 4, 2), rand(4, 3)
    weights = {name: p.detach() for name, p in model.named_parameters()}

    class Run(nn.Module):
        def __init__(self, adjoint):
            super().__init__()
            self.model, self.adjoint = model, adjoint

        def forward(self, us, x0):
            return integrate(
                self.model, us, x0, dt=0.1, steps=Fixed(0.02), solver=Euler(), save=Last(), adjoint=self.adjoint
            ).xs

    def results(adjoint):
        net = Run(adjoint)

        def total(weights, us, x0):
            return (functional_call(net, {f"model.{k}": v for k, v in weights.items()}, (us, x0)) ** 3).sum()

        yield from tree.leaves(tuple(grad(total)(weights, us, x0).values()))
        per_sample = vmap(grad(total, (0, 1, 2)), (None, 1, 0))(weights, us, x0)
        yield from (*per_sample[0].values(), *per_sample[1:])
        yield jacrev(lambda x: net(us[:, 0], x))(x0[0])
        yield jacrev(jacrev(lambda x: (net(us[:, 0], x) ** 3).sum()))(x0[0])
        yield grad(lambda x: (vmap(net, (1, 0))(us, x) ** 3).sum())(x0)

    assert distance(list(results(Recompute(snapshots))), list(results(Backprop()))) < 1e-12


class Line(Model):
    """What the first of five parts of the state is, the others become one after another, at each step of length 1."""

    def forward(self, t, x, u):
        return tuple(torch.tanh(before) - now for before, now in zip((x[0], *x[:-1]), x, strict=True))


@pytest.mark.parametrize("snapshots", [None, 2])
def test_recompute_keeps_parts_of_a_state_that_vmap_reaches_late(snapshots):
    rest = rand(4, 2, 3)

    def total(first, adjoint):
        options = {"t_span": (0.0, 9.0), "steps": Fixed(1.0), "solver": Euler(), "save": Every(2)}
        run = integrate(Line(), None, (first, *rest), adjoint=adjoint, **options)
        return sum((k + 1) * (leaf**2).sum() for k, leaf in enumerate(run.xs))

    values = rand(4, 2, 3, seed=1)
    expected = torch.stack([grad(total)(value, Backprop()) for value in values])
    found = vmap(grad(lambda value: total(value, Recompute(snapshots))))(values)
    assert torch.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("adjoint", [Recompute(), Recompute(2)], ids=repr)
def test_first_and_second_derivatives_of_recompute_pass_gradcheck(adjoint):
    model = network()

    def run(w, us, x0):
        drive = Held(us, 0.1)
        options = {"steps": Fixed(0.02), "solver": Euler(), "save": Last(), "adjoint": adjoint}
        with parametrized(model, w):
            return integrate(model, drive, x0, **options).xs

    class parametrized:
        def __init__(self, model, w):
            self.model, self.w, self.old = model, w, model.W_rec

        def __enter__(self):
            del self.model.W_rec
            self.model.register_buffer("W_rec", self.w)

        def __exit__(self, *why):
            del self.model.W_rec
            self.model.W_rec = self.old

    inputs = (grown(model.W_rec), grown(rand(3, 1, 2)), grown(rand(1, 3)))
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("transform", [jacfwd, lambda f: lambda x: jvp(f, (x,), (x,))], ids=["jacfwd", "jvp"])
def test_recompute_in_forward_mode_names_the_adjoints_to_use(transform):
    model, drive = network(), held()[0]
    run = transform(lambda x: integrate(model, drive, x, adjoint=Recompute()).xs)
    with pytest.raises(NotImplementedError, match=r"Backprop\(\) or adjoint=Forward\(\)"):
        run(rand(2, 3))


@pytest.mark.parametrize("adjoint", [Recompute(), Forward(), Backsolve()], ids=repr)
def test_a_tensor_from_outside_is_an_error_that_names_the_fix(adjoint):
    outside = torch.ones(3, requires_grad=True)

    class Leaky(Model):
        """dx/dt = outside - x"""

        def forward(self, t, x, u):
            return outside - x

    start = {"x0": grown(rand(2, 3)), "t_span": (0.0, 1.0), "steps": Fixed(0.1), "solver": RK4(), "adjoint": adjoint}
    with pytest.raises(ValueError, match=r"Leaky uses a Tensor .* nn.Parameter or register_buffer"):
        integrate(Leaky(), **start)
    drive = Function(lambda t: torch.cat([t.expand(2, 1), (t * outside[:1]).expand(2, 1)], -1))
    with pytest.raises(ValueError, match=r"Function drive uses a Tensor .* Parameter or buffer"):
        integrate(network(), drive, **start)


class Dropping(Model):
    """dx/dt = dropout(tanh(W x)) - x."""

    def __init__(self):
        super().__init__()
        self.W, self.dropout = nn.Parameter(0.5 * rand(3, 3)), nn.Dropout(0.5)

    def forward(self, t, x, u):
        return self.dropout(torch.tanh(x @ self.W.T)) - x


@pytest.mark.parametrize("adjoint", [Recompute(), Backsolve()], ids=repr)
def test_a_model_that_draws_random_numbers_cannot_be_run_again(adjoint):
    model, start = Dropping(), {"t_span": (0.0, 1.0), "steps": Fixed(0.1), "solver": RK4()}
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"Dropping draws random numbers.*Backprop\(\), model.eval\(\).*noise="):
        integrate(model, None, grown(rand(2, 3)), adjoint=adjoint, **start)
    assert torch.equal(state, torch.get_rng_state())
    noisy = Function(lambda t: torch.randn(2, 2))
    with pytest.raises(ValueError, match="The Function drive draws random numbers"):
        integrate(network(), noisy, grown(rand(2, 3)), adjoint=adjoint, **start)
    found, expected = (gradients(model.eval(), a, None, grown(rand(2, 3)), **start) for a in (adjoint, Backprop()))
    assert distance(found, expected) < TOLERANCE.get(type(adjoint), 1e-11)


def test_forward_runs_once_and_draws_what_the_plain_loop_draws():
    found = []
    for adjoint in (Forward(), Backprop()):
        torch.manual_seed(5)
        found.append(gradients(Dropping(), adjoint, None, grown(rand(2, 3)), t_span=(0.0, 1.0), steps=Fixed(0.1)))
    assert distance(*found) < 1e-12


class Downhill(Model):
    """dx/dt = -dE/dx with E = sum softplus(W x) + |x|^2 / 2."""

    def __init__(self, functional):
        super().__init__()
        self.W, self.functional = nn.Parameter(rand(3, 3)), functional

    def energy(self, x):
        return nn.functional.softplus(x @ self.W.T).sum() + x.square().sum() / 2

    def forward(self, t, x, u):
        if self.functional:
            return -grad(self.energy)(x)
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            return -torch.autograd.grad(self.energy(x), x, create_graph=True)[0]


@pytest.mark.parametrize("adjoint", [Recompute(), Forward(), Backsolve()], ids=repr)
def test_a_model_that_differentiates_while_it_runs_is_told_what_to_use(adjoint):
    start = {"t_span": (0.0, 1.0), "steps": Fixed(0.02), "solver": RK4()}
    with pytest.raises(ValueError, match=r"Downhill differentiates while it runs.*Backprop\(\), or torch.func.grad"):
        integrate(Downhill(False), None, grown(rand(2, 3)), adjoint=adjoint, **start)
    if not isinstance(adjoint, Backsolve):  # torchdiffeq's backward pass hides x from torch.func
        found = gradients(Downhill(True), adjoint, None, grown(rand(2, 3)), **start)
        expected = gradients(Downhill(False), Backprop(), None, grown(rand(2, 3)), **start)
        assert distance(found, expected) < 1e-11


@pytest.mark.parametrize("kind", [Recompute, Forward])
def test_adaptive_runs_compose_with_the_transforms_that_the_adjoint_offers(kind):
    model, x0, us = network(), rand(2, 3), rand(5, 2, 2)

    def results(adjoint):
        def run(x, us):
            return integrate(model, Held(us, 0.3), x, steps=Adaptive(1e-4, 1e-4), save=Last(), adjoint=adjoint).xs

        yield from grad(lambda x, us: (run(x, us) ** 3).sum(), (0, 1))(x0, us)
        yield from jacrev(run, (0, 1))(x0, us)
        if kind is Forward:
            yield from jacfwd(run, (0, 1))(x0, us)
        else:
            yield jacrev(jacrev(lambda x: (run(x, us) ** 3).sum()))(x0)

    assert distance(list(results(kind())), list(results(Backprop()))) < 1e-11


def test_what_adaptive_runs_cannot_do_under_torch_func_names_the_adjoint_to_use():
    model, drive = network(), held()[0]

    def run(x, adjoint):
        return integrate(model, drive, x, steps=Adaptive(1e-4, 1e-4), save=Last(), adjoint=adjoint).xs.sum()

    for transform in (jacfwd, hessian):
        with pytest.raises(NotImplementedError, match=r"Backprop\(\) or adjoint=Forward\(\)"):
            transform(lambda x: run(x, Recompute()))(rand(2, 3))
    with pytest.raises(NotImplementedError, match=r"put jvp innermost, or use adjoint=Backprop\(\)"):
        hessian(lambda x: run(x, Forward()))(rand(2, 3))
    with pytest.raises(NotImplementedError, match="no second derivatives in reverse mode"):
        jacrev(jacrev(lambda x: run(x, Forward())))(rand(2, 3))


@pytest.mark.parametrize("place", ["end", "save"])
def test_times_have_derivatives_in_forward_mode_and_through_nested_transforms(place):
    drive, at, x0 = held()[0], torch.tensor(1.13), rand(2, 3)

    def run(t, x, adjoint):
        where = {"t_span": (0.0, t), "save": Last()} if place == "end" else {"save": At(t[None])}
        return (integrate(network(), drive, x, steps=Fixed(0.1), solver=RK4(), adjoint=adjoint, **where).xs ** 3).sum()

    slopes = [jvp(lambda t, a=a: run(t, x0, a), (at,), (torch.ones(()),))[1] for a in (Forward(), Backprop())]
    assert distance(slopes[:1], slopes[1:]) < 1e-12
    assert float(slopes[0].detach().abs()) > 0.1
    mixed = [
        grad(lambda t, a=a: grad(lambda x: run(t, x, a))(x0).sum())(at).detach() for a in (Recompute(), Backprop())
    ]
    assert distance(mixed[:1], mixed[1:]) < 1e-12
    assert float(mixed[0].abs()) > 0.1
    with pytest.raises(NotImplementedError, match="Recompute has no forward mode"):
        jvp(lambda t: run(t, x0, Recompute()), (at,), (torch.ones(()),))


@pytest.mark.parametrize(
    "options",
    [
        {"steps": Fixed(0.1)},
        {"steps": Adaptive(), "adjoint": Backsolve()},
        {"steps": Adaptive(), "solver": TorchDiffEq("dopri5")},
    ],
    ids=["fixed", "Backsolve", "TorchDiffEq"],
)
def test_a_time_with_a_gradient_on_an_inner_edge_of_fixed_stretches_is_an_error(options):
    ts = torch.tensor([0.4, 0.6, 1.0, 1.5])
    for drive in (held()[0], Function(wave, jumps=(0.6,))):
        start = {"x0": rand(2, 3), "t_span": (0.0, 1.5)} | options
        with pytest.raises(ValueError, match=r"the time 0.6 requires a gradient.*inner edge.*Adaptive\(...\)"):
            integrate(network(), drive, save=At(grown(ts)), **start)
        integrate(network(), drive, save=At(ts), **start)
        off = grown(torch.tensor([0.4, 0.61, 1.0, 1.5]))  # the end of the run is no inner edge
        xs = integrate(network(), drive, save=At(off), **start).xs
        assert float(torch.autograd.grad(xs.square().sum(), off)[0].abs().min()) > 1e-3


def test_adaptive_steps_move_a_time_on_an_inner_edge():
    ts = torch.tensor([0.6])

    def run(adjoint):
        at = grown(ts)
        xs = integrate(network(), held()[0], rand(2, 3), steps=Adaptive(1e-8, 1e-8), save=At(at), adjoint=adjoint).xs
        return torch.autograd.grad(xs.sum(), at)

    def before(t):
        with torch.no_grad():
            start = {"x0": rand(2, 3), "steps": Adaptive(1e-10, 1e-10)}
            return float(integrate(network(), held()[0], save=At(ts + t), **start).xs.sum())

    expected = (before(0.0) - before(-1e-5)) / 1e-5
    for adjoint in (Backprop(), Recompute()):
        assert float(run(adjoint)[0]) == pytest.approx(expected, abs=1e-3)


def test_a_snapshot_count_below_one_is_an_error():
    with pytest.raises(ValueError, match="snapshots must be at least 1"):
        Recompute(0)


@pytest.mark.parametrize("adjoint", [Recompute(), Recompute(2), Backsolve()], ids=repr)
def test_progress_is_reported(adjoint):
    done = []
    integrate(network(), held()[0], steps=Fixed(0.02), solver=RK4(), adjoint=adjoint, progress=done.append)
    assert done == sorted(done)
    assert len(done) > 2
    assert done[-1] == 1.0


# --- Backsolve --------------------------------------------------------------------------------------------------------


class Bare(Model):
    """dx/dt = -x + x W."""

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(0.5 * rand(3, 3))

    def forward(self, t, x, u):
        return -x + x @ self.W


def test_the_gradient_of_a_bare_linear_network_is_not_zero():
    model, x0 = Bare(), grown(rand(2, 3))
    options = {"t_span": (0.0, 2.0), "steps": Adaptive(1e-9, 1e-9), "save": At(torch.tensor([1.0, 2.0]))}
    found, expected = (gradients(model, adjoint, None, x0, **options) for adjoint in (Backsolve(), Backprop()))
    assert float(found[0].abs().min()) > 1e-3
    assert distance(found, expected) < 1e-6


def test_backsolve_counts_a_drive_made_from_the_weights_once():
    model, x0 = network(), grown(rand(2, 3))

    def found(adjoint):
        us = torch.tanh(model.W_rec[:2, :2] * rand(4, 2, 2))
        run = integrate(model, Held(us, 0.2), x0, steps=Fixed(0.02), solver=RK4(), adjoint=adjoint)
        return torch.autograd.grad(loss(run), [model.W_rec, x0])

    assert distance(found(Backsolve()), found(Backprop())) < 1e-6


def test_backsolve_of_euler_comes_closer_as_dt_shrinks():
    def error(dt):
        drive, others = held()
        model, x0 = network(), grown(rand(2, 3))
        options = {"steps": Fixed(dt), "solver": Euler()}
        found, expected = (gradients(model, a, drive, x0, others, **options) for a in (Backsolve(), Backprop()))
        return distance(found, expected)

    errors = [error(dt) for dt in (0.1, 0.05, 0.025)]
    assert errors[0] < 0.5
    assert 1.6 < errors[0] / errors[1] < 2.5
    assert 1.6 < errors[1] / errors[2] < 2.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backsolve_warns_where_the_gap_is_too_long_for_the_precision(dtype):
    model = network().to(dtype)  # the smallest tau is 0.5
    longest = 0.5 * math.log(0.01 / torch.finfo(dtype).eps)
    x0 = rand(2, 3).to(dtype)
    options = {"steps": Fixed(0.5), "solver": RK4(), "adjoint": Backsolve()}
    integrate(model, None, x0, t_span=(0.0, longest - 0.1), save=Last(), **options)
    with pytest.warns(BacksolveWarning, match=r"smallest tau = 0.5.*Recompute"):
        integrate(model, None, x0, t_span=(0.0, longest + 0.1), save=Last(), **options)
    integrate(model, None, x0, t_span=(0.0, longest + 0.1), **options)  # every step is saved
    with torch.no_grad():
        integrate(model, None, x0, t_span=(0.0, longest + 0.1), save=Last(), **options)


def test_on_adaptive_steps_backsolve_warns_where_the_tolerance_is_amplified():
    options = {"save": Last(), "adjoint": Backsolve()}  # the smallest tau is 0.5
    for steps in (Adaptive(1e-6, 1e-8), Adaptive(1e-8, 1e-6)):
        longest = 0.5 * math.log(0.01 / 1e-6)
        integrate(network(), None, rand(2, 3), t_span=(0.0, longest - 0.1), steps=steps, **options)
        with pytest.warns(BacksolveWarning, match="an error of 1e-06 grows .* smaller tolerances"):
            integrate(network(), None, rand(2, 3), t_span=(0.0, longest + 0.1), steps=steps, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": Iterate()}, r"nothing near Iterate\(\).*Recompute"),
        ({"solver": ExponentialEuler()}, r"nothing near ExponentialEuler\(\).*Recompute"),
        ({"solver": Euler(), "noise": 0.1}, r"noise has no continuous adjoint.*Recompute"),
    ],
)
def test_what_has_no_continuous_adjoint_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        integrate(network(), rand(4, 2, 2), dt=0.1, adjoint=Backsolve(), **options)


def test_backsolve_has_no_second_derivatives_and_says_so():
    x0 = grown(rand(2, 3))
    run = integrate(network(), held()[0], x0, steps=Fixed(0.1), solver=RK4(), adjoint=Backsolve())
    (first,) = torch.autograd.grad(run.xs.square().sum(), x0, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


# --- Forward ----------------------------------------------------------------------------------------------------------


def test_forward_refuses_more_numbers_than_it_can_carry():
    model = Elman(60, 2)
    with pytest.raises(ValueError, match=r"\d{4} do; 2048 are its limit: use adjoint=Recompute\(\)"):
        integrate(model, rand(3, 2), dt=1.0, adjoint=Forward())


def test_forward_works_under_jvp_jacfwd_and_their_nesting():
    model, drive = network(), Held(rand(5, 2), 0.3)

    def run(adjoint):
        return lambda x: integrate(model, drive, x, steps=Fixed(0.1), solver=RK4(), save=Last(), adjoint=adjoint).xs

    x = rand(3)
    for transform in (
        jacfwd,
        jacrev,
        lambda f: lambda x: jvp(f, (x,), (2 * x,))[1],
        lambda f: jacfwd(jacfwd(f)),
        lambda f: vmap(grad(lambda x: f(x).sum())),
    ):
        at = rand(2, 3) if "vmap" in transform.__code__.co_names else x
        assert distance([transform(run(Forward()))(at)], [transform(run(Backprop()))(at)]) < 1e-12


def test_second_derivatives_of_forward_in_reverse_mode_are_an_error():
    x0 = grown(rand(2, 3))
    run = integrate(network(), held()[0], x0, adjoint=Forward())
    (first,) = torch.autograd.grad(run.xs.square().sum(), x0, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivatives in reverse mode"):
        first.square().sum().backward()


@pytest.mark.parametrize("kind", adjoint_classes(), ids=lambda kind: kind.__name__)
def test_a_network_without_inputs_has_a_gradient(kind):
    model, x0 = CTRNN(3, 0, generator=torch.Generator().manual_seed(0)), grown(rand(2, 3))
    options = {"t_span": (0.0, 1.0), "steps": Fixed(0.02), "solver": RK4(), "save": Last()}
    found, expected = (gradients(model, adjoint, None, x0, **options) for adjoint in (kind(), Backprop()))
    full = [i for i, g in enumerate(expected) if g is not None and g.numel()]
    assert len(full) == len(expected) - 1
    assert distance([found[i] for i in full], [expected[i] for i in full]) < 1e-6
