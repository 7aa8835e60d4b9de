from functools import partial

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend
from torch.func import functional_call, grad, jvp, vmap

from ctrnn import (
    ETD2RK,
    RK4,
    Adaptive,
    Backprop,
    Euler,
    Every,
    ExponentialEuler,
    Fixed,
    Function,
    Held,
    Iterate,
    Last,
    Linear,
    Step,
    Tsit5,
    integrate,
)
from ctrnn import _tree as tree
from ctrnn.adjoints import _chunks
from ctrnn.dynamics import Relaxation
from ctrnn.models import CTRNN, NTM, Elman
from ctrnn.native.library import library
from tests.laws import model_classes, point

# torch's own: Dynamo instantiates things of torch.jit that are deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


def compiled(step):
    torch._dynamo.reset()
    counter = CompileCounter()
    return torch.compile(step, backend=counter, fullgraph=True), counter


@pytest.mark.parametrize("kind", model_classes(), ids=lambda kind: kind.__name__)
def test_several_steps_of_a_model_are_one_graph(kind):
    model = kind.example()
    t, x, u = point(model, 2)
    step = Step(model, Euler())
    fast, counter = compiled(step)
    dt, state, expected = 0.01, x, x
    with torch.no_grad():
        for k in range(4):
            now = t + k * dt
            state, expected = fast(now, dt, state, u), step(now, dt, expected, u)
    assert counter.frame_count == 1
    for a, b in zip(tree.leaves(state), tree.leaves(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert type(state) is type(x)


@pytest.mark.parametrize("solver", [Iterate(), ExponentialEuler(), ETD2RK(), RK4(), Tsit5()], ids=str)
def test_several_steps_of_a_solver_are_one_graph(solver):
    model = CTRNN.example()
    assert isinstance(model, Relaxation)
    t, x, u = point(model, 2)
    step = Step(model, solver)
    fast, counter = compiled(step)
    state, expected = x, x
    with torch.no_grad():
        for k in range(3):
            state, expected = fast(t + 0.1 * k, 0.1, state, u), step(t + 0.1 * k, 0.1, expected, u)
    assert counter.frame_count == 1
    torch.testing.assert_close(state, expected, rtol=1e-12, atol=1e-12)


# torch's own: Dynamo looks at the .grad of what it is handed.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_compiled_step_is_differentiable_and_walks_the_trajectory_of_integrate(generator):
    model, us = CTRNN(3, 2, generator=generator), torch.randn(5, 2, 2, generator=generator)
    fast, counter = compiled(Step(model, Euler()))
    x, xs = model.initial_state(2), []
    for k, u in enumerate(us):
        x = fast(torch.tensor(0.1 * k), 0.1, x, u)
        xs.append(x)
    run = integrate(model, us, dt=0.1)
    torch.testing.assert_close(torch.stack(xs), run.xs, rtol=1e-12, atol=1e-12)
    got, expected = (torch.autograd.grad(states.square().sum(), model.W_rec)[0] for states in (torch.stack(xs), run.xs))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    # One graph for the start, which carries no gradient, and one for every step after it.
    assert counter.frame_count <= 2


class Written(Relaxation):
    """A network as a user writes it."""

    n_in = 2

    def __init__(self):
        super().__init__()
        self.recurrent, self.sent = nn.Linear(3, 3), nn.Linear(2, 3, bias=False)
        self.tau = torch.tensor([0.5, 1.0, 2.0])

    def target(self, t, x, u, alpha=0):
        return torch.tanh(self.recurrent(x) + self.sent(u) + 0.1 * torch.sin(t))

    def initial_state(self, *batch):
        return self.recurrent.weight.new_zeros(*batch, 3)


class Branching(Written):
    """One that does something else for some values."""

    def target(self, t, x, u, alpha=0):
        return super().target(t, x, u) if float(x.detach().sum()) < 1 else x


@pytest.fixture
def graphs(monkeypatch):
    """How many graphs are made of chunks: as many as in a run, but without C++."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    made = torch.compile(_chunks._steps, backend=counter, fullgraph=True, dynamic=False)
    monkeypatch.setattr(_chunks, "_graph", lambda: made)
    return counter


THREES = Backprop(compile=True, chunk=3)
US = torch.randn(7, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
EDGES = torch.tensor([0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0], dtype=torch.float64)
RUNS = {
    "held": (partial(Held, US, 0.1), {}),
    "silent": (lambda: None, {"t_span": (0.0, 0.7), "dt": 0.1, "x0": US[0, :, :1].expand(4, 3)}),
    "linear, under RK4": (partial(Linear, US, 0.1), {"solver": RK4()}),
    "in steps within samples": (partial(Linear, US, 0.1), {"steps": Fixed(0.05)}),
    "of which the last state is kept": (partial(Held, US, 0.1), {"save": Last()}),
    "of which every other state is kept": (partial(Held, US, 0.1), {"save": Every(2)}),
    "noisy": (partial(Held, US, 0.1), {"noise": 0.3}),
    "of unequal steps": (partial(Held, US, edges=EDGES), {"steps": Fixed(0.2)}),
}


def outcome(model, drive, adjoint, **how):
    """States, and the gradients of their squares to all weights."""
    xs = tree.leaves(integrate(model, drive, adjoint=adjoint, generator=torch.Generator().manual_seed(1), **how).xs)
    loss = sum(leaf.square().sum() for leaf in xs)
    return [*xs, *torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)]


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_in_compiled_chunks_is_the_plain_run(name, graphs):
    torch.manual_seed(0)
    model, (drive, how) = Written(), RUNS[name]
    assert_same(outcome(model, drive(), THREES, **how), outcome(model, drive(), Backprop(), **how))
    assert graphs.frame_count > 0


def test_a_clocked_memory_ticks_within_compiled_chunks(graphs, generator):
    model = NTM(Elman(3, 2 + 2, generator=generator), 2, slots=3, width=2, generator=generator)
    how = {"dt": 1.0, "steps": Fixed(0.5)}
    pairs = Backprop(compile=True, chunk=2)
    assert_same(outcome(model, US[:2], pairs, **how), outcome(model, US[:2], Backprop(), **how))
    assert graphs.frame_count > 0


def test_training_compiles_once(graphs):
    us = US.clone().requires_grad_()
    for seed in range(3):
        torch.manual_seed(seed)
        model = Written()
        run = integrate(model, us, dt=0.1, adjoint=THREES)
        plain = integrate(model, us, dt=0.1)
        assert_same(*(torch.autograd.grad(each.xs.square().sum(), [us, *model.parameters()]) for each in (run, plain)))
    assert graphs.frame_count == 1
    with torch.no_grad():
        integrate(model, us, dt=0.1, adjoint=THREES)
    assert graphs.frame_count == 2


def test_what_cannot_be_compiled_says_so(graphs):
    model, run = Written(), partial(integrate, adjoint=THREES)
    with pytest.raises(ValueError, match=r"adaptive ones differ: use steps=Fixed\(dt\)"):
        run(model, Held(US, 0.1), steps=Adaptive())
    with pytest.raises(ValueError, match="a function of time"):
        run(model, Function(torch.ones(2).mul), t_span=(0.0, 0.7), dt=0.1)
    with pytest.raises(ValueError, match="steps of their own"):
        run(model, Held(US, 0.1, lengths=torch.tensor([7, 5, 3, 1])))
    with pytest.raises(ValueError, match="a gradient reaches"):
        run(model, Held(US, 0.1), t_span=(torch.tensor(0.0, requires_grad=True), 0.7), steps=Fixed(0.1))
    states = lambda weights, us: functional_call(Run(model), weights, us)
    weights = {f"model.{name}": weight for name, weight in model.named_parameters()}
    for transformed in (
        lambda: grad(lambda w: states(w, US).sum())(weights),
        lambda: vmap(partial(states, weights), in_dims=1)(US),
        lambda: jvp(partial(states, weights), (US,), (US,)),
    ):
        with pytest.raises(
            ValueError, match=r"transformed by torch.func, or differentiated forwards: use Backprop\(\)"
        ):
            transformed()
    with pytest.raises(RuntimeError, match="no graph of steps of Branching by Euler"):
        run(Branching(), US, dt=0.1)
    assert graphs.frame_count == 0


class Run(nn.Module):
    """A run in compiled chunks as a module."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, us):
        return integrate(self.model, us, dt=0.1, adjoint=THREES).xs


@pytest.mark.parametrize("chunk", [0, 2.5, True])
def test_a_chunk_is_a_number_of_steps(chunk):
    with pytest.raises(ValueError, match="chunk counts steps"):
        Backprop(compile=True, chunk=chunk)


@pytest.mark.skipif(library() is None, reason="the kernels were not compiled")
def test_what_a_kernel_covers_is_not_compiled(graphs):
    model = CTRNN(3, 2, generator=torch.Generator().manual_seed(0))
    integrate(model, US, dt=0.1, adjoint=THREES)
    assert graphs.frame_count == 0


def test_without_a_compiler_the_message_says_so():
    torch._dynamo.reset()
    missing = torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)})
    with (
        missing,
        pytest.raises(RuntimeError, match=r"No working C\+\+ compiler found.*Backprop\(\) runs the steps as they are"),
    ):
        integrate(Written(), US, dt=0.1, adjoint=THREES)


@pytest.mark.slow
def test_chunks_in_cpp_are_the_plain_run():
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = Written()
    assert_same(outcome(model, US, THREES, dt=0.1), outcome(model, US, Backprop(), dt=0.1))
