"""What analysis is given: wrong states, drives and systems are named; a clocked network is seen with its ticks."""

import math

import numpy as np
import pytest
import torch

import ctrnn
from ctrnn import _tree as tree
from ctrnn import analysis
from ctrnn.models import GRU, LSTM, NTM

RECTANGLE = ((-1.0, 1.0), (-1.0, 1.0))


def net(n=3):
    return ctrnn.CTRNN(n, 2, generator=torch.Generator().manual_seed(0))


def each(model):
    """Every function of a system and states, called with states and a drive."""
    return {
        "jacobian": lambda x, u=None: analysis.jacobian(model, x, u),
        "input_jacobian": lambda x, u=None: analysis.input_jacobian(model, x, u),
        "parameter_jacobian": lambda x, u=None: analysis.parameter_jacobian(model, x, "W_rec", u),
        "speed": lambda x, u=None: analysis.speed(model, x, u),
        "fixed_points": lambda x, u=None: analysis.fixed_points(model, x, u),
        "basins": lambda x, u=None: analysis.basins(model, x, None, u, duration=1.0),
    }


SYSTEMS = {"flow": net(), "map": ctrnn.Step(net(), ctrnn.Euler(), dt=0.5)}
CALLS = [(kind, name) for kind, model in SYSTEMS.items() for name in each(model)]
everywhere = pytest.mark.parametrize(("kind", "name"), CALLS)


@everywhere
def test_states_of_another_width_are_named(kind, name):
    with pytest.raises(ValueError, match=r"this CTRNN must have the form .*, 3\) of its initial_state.*got \(4, 5\)"):
        each(SYSTEMS[kind])[name](torch.zeros(4, 5))


@everywhere
def test_arrays_are_no_states(kind, name):
    with pytest.raises(TypeError, match=r"floating-point Tensors, got ndarray: convert it with torch\.as_tensor"):
        each(SYSTEMS[kind])[name](np.zeros((4, 3)))


@everywhere
def test_drives_of_another_width_are_named(kind, name):
    with pytest.raises(ValueError, match=r"the network's 2 inputs, got the shape \(3,\)"):
        each(SYSTEMS[kind])[name](torch.zeros(4, 3), torch.zeros(3))


@everywhere
def test_a_wrong_number_of_drives_is_named(kind, name):
    with pytest.raises(ValueError, match=r"u must be one drive \(n_in,\).*got the shape \(5, 2\)"):
        each(SYSTEMS[kind])[name](torch.zeros(4, 3), torch.zeros(5, 2))


@everywhere
def test_arrays_are_no_drives(kind, name):
    with pytest.raises(TypeError, match="u must be a Tensor"):
        each(SYSTEMS[kind])[name](torch.zeros(4, 3), np.zeros(2))


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (torch.zeros(4, 3), r"got \(4, 3\)"),
        ((torch.zeros(4, 3), torch.zeros(4, 3)), r"got tuple\(0 \(4, 3\), 1 \(4, 3\)\)"),
        (LSTM(3, 2).initial_state(4)._replace(c=torch.zeros(5, 3)), r"got LSTMState\(h \(4, 3\), c \(5, 3\)\)"),
    ],
)
def test_parts_that_are_not_those_of_the_networks_state_are_named(x, got):
    with pytest.raises(ValueError, match=r"this LSTM .* LSTMState\(h \(\*batch, 3\), c \(\*batch, 3\)\).*" + got):
        analysis.jacobian(LSTM(3, 2), x)


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda: analysis.jacobian(net(), torch.ones(4, 3, dtype=torch.long)), TypeError, r"got torch\.int64"),
        (lambda: analysis.jacobian(torch.sin, torch.ones(())), ValueError, r"must have the form \(\*batch, D\), got"),
        (lambda: analysis.parameter_jacobian(torch.sin, torch.ones(2), "W"), TypeError, "callable has no parameters"),
        (lambda: analysis.fixed_points(net(), torch.zeros(0, 3)), ValueError, "starts hold no state"),
        (lambda: analysis.basins(net(), torch.zeros(0, 3), duration=1.0), ValueError, "starts hold no state"),
        (lambda: analysis.phase_plane(net(2), torch.zeros(1, 2), *RECTANGLE), ValueError, r"form \(2,\).*got \(1, 2\)"),
        (lambda: analysis.phase_plane(net(), torch.zeros(2), *RECTANGLE), ValueError, r"form \(3,\).*got \(2,\)"),
        (lambda: analysis.phase_plane(net(2), np.zeros(2), *RECTANGLE), TypeError, "got ndarray"),
        (
            lambda: analysis.phase_plane(net(2), torch.zeros(2), *RECTANGLE, torch.zeros(4, 2)),
            ValueError,
            r"u must be one drive \(n_in,\), got the shape \(4, 2\)",
        ),
        (lambda: analysis.phase_plane(net(2), torch.zeros(2), *RECTANGLE, starts=0), ValueError, "starts = 0"),
        (lambda: analysis.manifolds(SYSTEMS["map"], torch.zeros(2), duration=1.0), TypeError, "a Model .* not Step"),
    ],
)
def test_wrong_arguments_are_named(call, kind, says):
    with pytest.raises(kind, match=says):
        call()


def test_a_map_that_leaves_torch_has_no_derivative_rather_than_a_wrong_one():
    halved = lambda x: torch.as_tensor(0.5 * x.detach().numpy())
    for call in (analysis.jacobian, analysis.fixed_points):
        with pytest.raises(ValueError, match="does not depend on x by operations of torch"):
            call(halved, torch.ones(4, 2))


@pytest.mark.parametrize(
    "call",
    [
        lambda fn, x: analysis.jacobian(fn, x),
        lambda fn, x: analysis.fixed_points(fn, x),
        lambda fn, x: analysis.speed(fn, x),
        lambda fn, x: analysis.lyapunov_spectrum(fn, x, duration=5.0),
        lambda fn, x: analysis.continue_equilibria(lambda x, p: fn(x), x[0], None, (0.0, 1.0)),
    ],
)
def test_a_map_that_returns_no_state_is_named(call):
    with pytest.raises(ValueError, match=r"next state has the shape .*1,?\), its state .*2,?\)"):
        call(lambda x: x[..., :1] ** 2, torch.ones(4, 2))
    with pytest.raises(TypeError, match="next state must be a Tensor like its state, got float"):
        call(lambda x: 3.0, torch.ones(4, 2))


def test_jacobians_are_as_precise_as_the_wider_of_network_and_states():
    x = torch.full((3,), 0.25)
    for model, states in ((net(), x.float()), (net().float(), x), (net(), x)):
        torch.testing.assert_close(analysis.jacobian(model, states), analysis.jacobian(net(), x), rtol=1e-6, atol=1e-7)
    assert analysis.jacobian(net().float(), x.float()).dtype == torch.float32


def test_silence_is_as_many_inputs_as_the_network_has_for_every_state(generator):
    model = NTM.example()  # lays its input beside what it has read
    x = tree.map(lambda leaf: torch.rand(leaf.shape, generator=generator), model.initial_state(2, 3))
    silent = torch.zeros(2, 3, model.n_in)
    torch.testing.assert_close(analysis.jacobian(model, x), analysis.jacobian(model, x, silent))
    torch.testing.assert_close(analysis.speed(model, x), analysis.speed(model, x, silent[0, 0]))


class Logistic(ctrnn.Relaxation):
    """x <- 4 x (1 - x) at every multiple of 1, and nothing in between."""

    def __init__(self):
        super().__init__()
        self.tau = 1.0

    @property
    def clock(self):
        return 1.0

    def target(self, t, x, u, alpha=0):
        return 4 * x * (1 - x) if alpha else x

    def initial_state(self, *batch):
        return torch.full((*batch, 1), 0.3)


@pytest.mark.parametrize(
    "call",
    [
        lambda model, x: analysis.jacobian(model, x),
        lambda model, x: analysis.speed(model, x),
        lambda model, x: analysis.fixed_points(model, x),
        lambda model, x: analysis.continue_equilibria(model, x[0], "tau0", (1.0, 2.0)),
    ],
)
def test_the_flow_between_the_ticks_is_not_taken_for_the_clocked_network(call):
    with pytest.raises(ValueError, match=r"flow of this Logistic .* ticks .* Step\(model, solver, dt=\.\.\.\)"):
        call(Logistic(), torch.full((2, 1), 0.3))


def test_steps_between_which_a_clock_ticks_only_now_and_then_are_not_one_map():
    with pytest.raises(ValueError, match=r"Logistic tick every 1, .* steps of dt = 0\.5 are the same map"):
        analysis.jacobian(ctrnn.Step(Logistic(), ctrnn.Euler(), dt=0.5), torch.ones(1))


def test_a_whole_step_of_a_clocked_network_is_its_map():
    found = analysis.fixed_points(ctrnn.Step(Logistic(), ctrnn.Euler(), dt=1.0), torch.tensor([[0.1], [0.9]]))
    assert sorted(found.x[:, 0].tolist()) == pytest.approx([0.0, 0.75])
    torch.testing.assert_close(found.jacobian[:, 0, 0], 4 - 8 * found.x[:, 0])


def test_a_clocked_run_has_the_exponent_of_its_ticks():
    # The logistic map at 4 is the doubling of an angle: ln 2 for each tick.
    starts = torch.linspace(0.1, 0.9, 100)[:, None]
    found = analysis.lyapunov_spectrum(Logistic(), starts, dt=0.5, duration=60.0, transient=5.0)
    assert float(found.exponents.mean()) == pytest.approx(math.log(2), abs=0.01)


@pytest.mark.parametrize("kind", [GRU, LSTM])
def test_gradients_reach_the_weights_through_a_jacobian(kind):
    model = kind(3, 2, generator=torch.Generator().manual_seed(0))
    analysis.jacobian(model, model.initial_state(4)).square().sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
    assert float(model.W_rec.grad.abs().max()) > 0
