"""Spans that end at special points, drives held for several steps, and systems that are no maps."""

import math

import pytest
import torch

import ctrnn
from ctrnn import analysis
from ctrnn.analysis import BranchPoint, Flip, Hopf, Stride
from ctrnn.models import GRU, LSTM, BeerCTRNN
from ctrnn.solvers import Iterate, Step


def logistic(x, p):
    return p * x * (1 - x)


@pytest.mark.parametrize("beyond", [0.0, 1e-9, 1e-6, 1e-5, 1e-3])
def test_a_flip_at_the_end_of_the_span_is_found(beyond):
    branch = analysis.continue_equilibria(logistic, torch.tensor([0.6]), None, (2.5, 3.0 + beyond))
    (flip,) = branch.points
    assert isinstance(flip, Flip)
    assert flip.parameter == pytest.approx(3.0, abs=1e-8)
    assert float(branch.parameter[-1]) == pytest.approx(3.0 + beyond, abs=1e-12)


def test_a_hopf_point_at_the_end_of_the_span_is_found():
    model = BeerCTRNN(2)

    def values(w):
        one = torch.ones_like(w)
        W = torch.stack([torch.stack([w, one]), torch.stack([-one, w])])
        return {"W_rec": W, "theta": -W.sum(1) / 2}

    branch = analysis.continue_equilibria(model, torch.tensor([2.0, 1.0]), values, (3.0, 4.0))
    (hopf,) = branch.points
    assert isinstance(hopf, Hopf)
    assert hopf.parameter == pytest.approx(4.0, abs=1e-8)


def test_a_branch_switches_at_a_pitchfork_of_a_map():
    def pitchfork(x, p):
        return x + p * x - x**3

    trivial = analysis.continue_equilibria(pitchfork, torch.zeros(1), None, (-0.5, 0.5))
    (point,) = [p for p in trivial.points if isinstance(p, BranchPoint)]
    other = analysis.continue_equilibria(pitchfork, point, None, (-1.0, 1.0))
    assert torch.allclose(other.x[:, 0] ** 2, other.parameter, atol=1e-8)


def test_a_branch_does_not_leave_a_span_that_ends_where_two_cross():
    branch = analysis.continue_equilibria(lambda x, p: x + p * x - x**3, torch.zeros(1), None, (-1.0, 0.0))
    assert float(branch.parameter.max()) <= 0.0
    assert float(branch.parameter[-1]) == pytest.approx(0.0, abs=1e-5)


def test_a_function_of_parameters_serves_a_float32_network():
    net = ctrnn.CTRNN(2, 0, generator=torch.Generator().manual_seed(0)).float()
    W = net.W_rec.detach().clone()
    branch = analysis.continue_equilibria(net, torch.zeros(2), lambda p: {"W_rec": p.float() * W}, (0.5, 0.1))
    assert branch.x.dtype == torch.float64


def test_tau_is_named_by_what_it_is_made_of():
    with pytest.raises(ValueError, match="vary tau0"):
        analysis.continue_equilibria(BeerCTRNN(2), torch.zeros(2), "tau", (1.0, 2.0))


def test_lengths_of_strides_are_positive():
    with pytest.raises(ValueError, match="positive"):
        Stride(first=-1.0)


@pytest.mark.parametrize("module", [torch.nn.GRUCell(3, 3), torch.nn.LSTM(3, 3)])
def test_a_torch_network_is_not_taken_for_a_map(module):
    with pytest.raises(TypeError, match="from_torch"):
        analysis.fixed_points(module, torch.zeros(2, 3))
    with pytest.raises(TypeError, match="from_torch"):
        analysis.lyapunov_spectrum(module, torch.zeros(3), duration=10.0)


def test_the_map_that_the_message_names_is_the_cell():
    cell = torch.nn.GRUCell(3, 3)
    found = analysis.fixed_points(Step(GRU.from_torch(cell), Iterate(), dt=1.0), torch.randn(5, 3))
    assert torch.allclose(cell(torch.zeros(1, 3), found.x), found.x, atol=1e-10)


def test_a_class_is_no_system():
    with pytest.raises(TypeError, match="the class CTRNN"):
        analysis.fixed_points(ctrnn.CTRNN, torch.zeros(2, 3))


def test_held_samples_drive_a_flow_as_long_as_they_are_held():
    draw = torch.Generator().manual_seed(1)
    net = ctrnn.CTRNN(3, 2, generator=draw)
    us = torch.randn(20, 2, generator=draw)
    held = analysis.lyapunov_spectrum(net, torch.zeros(3), ctrnn.Held(us, 0.5), dt=0.1, duration=10.0)
    typed = analysis.lyapunov_spectrum(net, torch.zeros(3), us.repeat_interleave(5, 0), dt=0.1, duration=10.0)
    assert torch.equal(held.exponents, typed.exponents)
    with pytest.raises(ValueError, match="whole number of steps"):
        analysis.lyapunov_spectrum(net, torch.zeros(3), ctrnn.Held(us, 0.25), dt=0.1, duration=10.0)


@pytest.mark.parametrize("wrong", [{"unique": -1.0}, {"unique": math.nan}, {"reach": 0.0}, {"max_iterations": 0}])
def test_a_search_refuses_lengths_that_would_not_end_it(wrong):
    with pytest.raises(ValueError, match="unique"):
        analysis.fixed_points(ctrnn.CTRNN(3, 0), torch.zeros(2, 3), **wrong)


def test_roots_beyond_reach_are_told():
    with pytest.warns(UserWarning, match="further out than reach"):
        found = analysis.fixed_points(lambda x: x - 0.5 * (x - 10), torch.randn(8, 2))
    assert not len(found.x)


def test_a_plane_without_attractors_has_no_shares():
    rotation = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    found = analysis.basins(lambda x: x @ rotation, torch.randn(6, 2), duration=5.0)
    assert found.share.shape == (0,) or bool((found.share >= 0).all())
    assert analysis.Basins(found.starts, found.label, found.ends, [], 5.0).share.shape == (0,)


def test_an_orbit_may_carry_gradients():
    model = BeerCTRNN(1, 1)
    orbit = analysis.Orbit(torch.randn(12, 1, requires_grad=True), 3.0)
    with pytest.raises(analysis.ContinuationError):  # it is no cycle, but it is read
        analysis.continue_cycles(model, orbit, "u[0]", (0.0, 1.0))


def test_an_lstm_is_searched_as_its_ravelled_state():
    net = LSTM(3, 1, generator=torch.Generator().manual_seed(0))
    found = analysis.fixed_points(net, net.initial_state(4))
    assert found.x.shape[-1] == 6
