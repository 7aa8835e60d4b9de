"""What a network says to kernels about itself is its equation."""

import pytest
import torch
import torch.nn.functional as F

from ctrnn.lowered import GatedNetwork, Layers, RateNetwork
from ctrnn.models import CTRNN, GRU, LSTM, MTRNN, BeerCTRNN, EchoState, Elman, Hopfield, RateRNN, Stack
from ctrnn.models.activations import NAMES, lowered, softmax
from tests.laws import point, relaxation_classes

LOWERED = [k for k in relaxation_classes() if isinstance(k.example().lowered(), RateNetwork | GatedNetwork)]
WITH_ACTIVATION = (CTRNN, RateRNN, Elman)


def target(network, x, u):
    if isinstance(network, GatedNetwork):
        weights = {"weight_ih": network.W_in, "weight_hh": network.W_rec}
        biases = {"bias_ih": network.b_in, "bias_hh": network.b_rec}
        cell = {"gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}[network.kind]
        return torch.func.functional_call(cell(u.shape[-1], network.W_rec.shape[-1]), weights | biases, (u, x))
    z = x if network.gain is None else network.gain * x
    z = z if network.theta is None else z + network.theta
    into = u if network.W_in is None else F.linear(u, network.W_in)
    total = F.linear(NAMES[network.pre](z), network.W_rec) + into
    return NAMES[network.post](total if network.b is None else total + network.b)


@pytest.mark.parametrize("kind", LOWERED, ids=lambda kind: kind.__name__)
def test_the_lowered_network_is_the_target(kind):
    model = kind.example()
    t, x, u = point(model, 5)
    torch.testing.assert_close(target(model.lowered(), x, u), model.target(t, x, u, 1), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(model.lowered().tau, model.tau, rtol=0, atol=0)


def test_all_rate_networks_and_torchs_gated_ones_are_lowered():
    assert {CTRNN, RateRNN, BeerCTRNN, MTRNN, Elman, Hopfield, GRU, LSTM} <= set(LOWERED)
    assert EchoState(3, 2, 1).lowered() is not None
    assert EchoState(3, 2, 1, feedback_scale=0.5).lowered() is None


@pytest.mark.parametrize("kind", WITH_ACTIVATION, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_every_activation_that_acts_on_each_unit_alone_is_lowered(kind, name):
    network = kind(3, 2, activation=NAMES[name]).lowered()
    assert (network is None) == (NAMES[name] is softmax)
    if network is not None:
        assert name in (network.pre, network.post)


def test_a_function_of_the_users_own_is_not_lowered():
    assert lowered(lambda x: x.sin()) is None
    assert CTRNN(3, 2, activation=torch.sin).lowered() is None


def test_a_subclass_with_an_equation_of_its_own_is_not_lowered_by_its_parents():
    class Doubled(CTRNN):
        def target(self, t, x, u, alpha=0):
            return 2 * super().target(t, x, u, alpha)

    class Renamed(CTRNN):
        pass

    class Further(Doubled):
        pass

    assert Doubled(3, 2).lowered() is None
    assert Further(3, 2).lowered() is None
    assert isinstance(Renamed(3, 2).lowered(), RateNetwork)


def test_masks_are_in_the_lowered_weights():
    model = MTRNN.example()
    model.W_rec = torch.ones_like(model.W_rec)
    assert int((model.lowered().W_rec == 0).sum()) == int((model.W_rec == 0).sum()) > 0


def test_gradients_pass_through_the_lowered_tensors():
    model = CTRNN(3, 2, learn_tau=True)
    model.lowered().tau.sum().backward()
    assert model.log_ratio.grad is not None


def test_a_stack_is_lowered_layer_by_layer():
    stack = Stack([CTRNN(3, 2, 4), GRU(2, 4)])
    assert stack.lowered() == Layers(tuple(stack.layers))
