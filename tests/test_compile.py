import pytest
import torch
from torch._dynamo.testing import CompileCounter

from ctrnn import ETD2RK, RK4, Euler, ExponentialEuler, Iterate, Step, Tsit5, integrate
from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation
from ctrnn.models import CTRNN
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
