"""What a network says to kernels about itself is its equation."""

import pytest
import torch
import torch.nn.functional as F

from ctrnn import integrate, plain
from ctrnn._kernels import network_of
from ctrnn.lowered import GatedNetwork, Layers, RateNetwork
from ctrnn.models import CTRNN, GRU, LSTM, MTRNN, BeerCTRNN, EchoState, Elman, Hopfield, RateRNN, Stack
from ctrnn.models.activations import NAMES, lowered, softmax
from tests.laws import point, relaxation_classes


def is_one_network(kind):
    model = kind.example()
    return isinstance(network_of(model, model.initial_state()), RateNetwork | GatedNetwork)


LOWERED = list(filter(is_one_network, relaxation_classes()))
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

    class Mixin:
        def target(self, t, x, u, alpha=0):
            return 2 * super().target(t, x, u, alpha)

    class Mixed(Mixin, CTRNN):
        pass

    class Faster(CTRNN):
        def forward(self, t, x, u):
            return 2 * super().forward(t, x, u)

    class Shown(BeerCTRNN):
        def activity(self, x):
            return 2 * super().activity(x)

    for kind in (Doubled, Further, Mixed, Faster, Shown):
        assert network_of(kind(3, 2), torch.zeros(3)) is None
    assert isinstance(network_of(Renamed(3, 2), torch.zeros(3)), RateNetwork)
    own = CTRNN(3, 2)
    own.target = lambda t, x, u, alpha=0: x
    assert network_of(own, torch.zeros(3)) is None


SHAPES = [("b_rec", (1,)), ("b_rec", ()), ("W_rec", (1, 3)), ("W_rec", (4, 4)), ("W_in", (1, 2)), ("tau", (5, 3))]


@pytest.mark.parametrize(("name", "shape"), SHAPES)
@pytest.mark.parametrize("kind", [CTRNN, GRU, LSTM], ids=lambda kind: kind.__name__)
def test_what_kernels_cannot_read_is_not_lowered(kind, name, shape):
    model = kind(3, 2)
    x = model.initial_state(5)
    assert network_of(model, x) is not None
    setattr(model, name, torch.ones(shape) if name == "tau" else torch.nn.Parameter(torch.ones(shape)))
    assert network_of(model, x) is None


def test_another_dtype_a_kind_unknown_and_autocast_are_not_lowered():
    half = CTRNN(3, 2)
    del half.b_rec
    half.b_rec = torch.zeros(3, dtype=torch.float32)
    assert network_of(half, torch.zeros(3)) is None

    class Odd(GRU):
        def lowered(self):
            return super().lowered()._replace(kind="gruu")

    assert network_of(Odd(3, 2), torch.zeros(3)) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert network_of(CTRNN(3, 2), torch.zeros(3)) is None


@pytest.mark.parametrize("missing", ["b_rec", "b_in"])
@pytest.mark.parametrize("kind", [Elman, GRU, LSTM], ids=lambda kind: kind.__name__)
def test_a_bias_left_out_leaves_the_other_one(kind, missing, generator):
    model, us = kind(3, 2, generator=generator), torch.randn(4, 5, 2, generator=generator)
    setattr(model, missing, None)
    mine = integrate(model, us, dt=1.0).ys
    with plain():
        torch.testing.assert_close(mine, integrate(model, us, dt=1.0).ys, rtol=1e-12, atol=1e-13)


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
