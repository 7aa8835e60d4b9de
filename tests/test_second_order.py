import pytest
import torch
import torch.nn.functional as F

from ctrnn import Euler, Fixed, Iterate, integrate
from ctrnn.models import SecondOrder
from ctrnn.tasks.automata import TOMITA


def half_accepted(automaton, n_time, batch, seed=0):
    """Half of the strings drawn at random, which soon end in a state that they never leave, half from the language."""
    draw, half = torch.Generator().manual_seed(seed), batch // 2
    free = torch.randint(automaton.n_symbols, (n_time, half), generator=draw)
    accepted = automaton.strings(torch.full((half,), n_time), torch.ones(half, dtype=torch.bool), draw)
    return torch.cat([free, accepted], 1)


def tracked(number, strength, n_time=1000, batch=64):
    """After which symbols the unit of the right state is the greatest, and the output right (time, string)."""
    automaton = TOMITA[number]
    net = SecondOrder.from_automaton(automaton.transitions, automaton.accepting, strength=strength).double()
    symbols = half_accepted(automaton, n_time, batch, seed=number)
    with torch.no_grad():
        run = integrate(net, F.one_hot(symbols, 2).double(), dt=1.0, solver=Iterate())
    states = automaton.states(symbols)
    return (run.xs.argmax(-1) == states) & ((run.ys[..., 0] > 0.5) == automaton.accepts(states))


@pytest.mark.parametrize("number", [2, 3, 4, 5, 6])  # the states of 1 and 7 never return
def test_half_of_the_strings_change_the_state_to_their_end(number):
    states = TOMITA[number].states(half_accepted(TOMITA[number], 1000, 64))
    assert int((states[-100:].diff(dim=0) != 0).any(0).sum()) >= 32


@pytest.mark.parametrize("strength", [6.0, 8.0, 10.0, 12.0])
@pytest.mark.parametrize("number", TOMITA)
def test_a_programmed_network_tracks_its_automaton_for_a_thousand_symbols(number, strength):
    assert bool(tracked(number, strength).all())


@pytest.mark.parametrize("number", [2, 3, 4, 5, 6, 7])
def test_a_weakly_programmed_network_loses_track(number):
    assert not bool(tracked(number, 4.0).all())


def test_the_sum_is_torchs_bilinear():
    net = SecondOrder(4, 3, generator=torch.Generator().manual_seed(0)).double()
    twin = torch.nn.Bilinear(4, 3, 4).double()
    with torch.no_grad():
        twin.weight.copy_(net.W_rec)
        twin.bias.copy_(net.b_rec)
    us = torch.randn(20, 5, 3, dtype=torch.float64)
    run = integrate(net, us, dt=1.0)
    h = torch.eye(4, dtype=torch.float64)[0].expand(5, 4)
    for k, u in enumerate(us):
        h = torch.sigmoid(twin(h, u))
        torch.testing.assert_close(run.ys[k], h, rtol=1e-13, atol=1e-13)


def test_a_one_hot_symbol_chooses_its_matrix():
    net = SecondOrder(3, 2, activation=torch.tanh, generator=torch.Generator().manual_seed(0)).double()
    x = torch.randn(3, dtype=torch.float64)
    for k in range(2):
        u = F.one_hot(torch.tensor(k), 2).double()
        expected = torch.tanh(net.W_rec[:, :, k] @ x + net.b_rec)
        torch.testing.assert_close(net.target(torch.tensor(0.0), x, u), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dt", [0.5, 0.1])
def test_in_finer_steps_a_symbol_held_for_long_drives_the_flow_round_the_automaton(dt):
    # Held for many tau, a symbol acts again and again: grammar 1 knows only "no 0 yet" and "a 0 has come".
    net = SecondOrder.from_automaton(TOMITA[1].transitions, TOMITA[1].accepting, strength=12.0).double()
    symbols = torch.tensor([1, 1, 1, 0, 1, 1])
    run = integrate(net, F.one_hot(symbols, 2).double(), dt=10.0, steps=Fixed(dt), solver=Euler())
    assert (run.ys[:, 0] > 0.5).tolist() == [True, True, True, False, False, False]


def test_wrong_automata_are_refused_by_name():
    with pytest.raises(ValueError, match="only 0 to 1"):
        SecondOrder.from_automaton([[0, 2], [1, 1]], strength=8.0)
    with pytest.raises(ValueError, match="strength = 0"):
        SecondOrder.from_automaton([[0, 1], [1, 1]], strength=0)
    with pytest.raises(ValueError, match="state, symbol"):
        SecondOrder.from_automaton([0, 1], strength=8.0)
    for ragged in ([[0, 1], [1]], [[0, "a"]], [[True, False], [False, True]]):
        with pytest.raises(ValueError, match="transitions must be"):
            SecondOrder.from_automaton(ragged, strength=8.0)
    with pytest.raises(TypeError, match=r"one state is \(1,\)"):
        SecondOrder.from_automaton([[0, 1], [1, 1]], 1, strength=8.0)
    with pytest.raises(TypeError, match="strength must be a number"):
        SecondOrder.from_automaton([[0, 1], [1, 1]], strength="8")
    with pytest.raises(ValueError, match="n_in"):
        SecondOrder(3, 0)
