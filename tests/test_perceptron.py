import pytest
import torch

from ctrnn import RecurrentPerceptron, StackState, integrate
from ctrnn.models.activations import identity
from ctrnn.steps import Fixed


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def drive(n_time=15, *batch, n_in=2):
    return torch.randn(n_time, *batch, n_in, dtype=torch.float64, generator=seeded(1))


def test_two_layers_are_the_two_layered_rnn_of_torch():
    model = RecurrentPerceptron((4, 4), 2, generator=seeded()).double()
    twin = torch.nn.RNN(2, 4, num_layers=2).double()
    with torch.no_grad():
        for k, layer in enumerate(model.layers):
            layer.b_rec.normal_(generator=seeded(k))
            for name, theirs in (("W_in", "weight_ih"), ("W_rec", "weight_hh"), ("b_rec", "bias_ih")):
                getattr(twin, f"{theirs}_l{k}").copy_(getattr(layer, name))
            getattr(twin, f"bias_hh_l{k}").zero_()
    us = drive(15, 3)
    torch.testing.assert_close(integrate(model, us, dt=1.0).ys, twin(us)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dt", [1.0, 0.3])
def test_every_layer_reads_itself_before_the_step_and_the_layer_below_after_it(dt):
    model = RecurrentPerceptron(
        (5, 3, 2), 2, tau=StackState((1.0, 2.0, 4.0)), output=identity, generator=seeded()
    ).double()
    xs = [torch.zeros(n, dtype=torch.float64) for n in (5, 3, 2)]
    expected = []
    for u in drive():
        for k, layer in enumerate(model.layers):
            f = torch.tanh if k < 2 else lambda x: x
            target = f(layer.W_rec @ xs[k] + layer.W_in @ u + layer.b_rec)
            xs[k] = u = xs[k] + dt / 2**k * (target - xs[k])
        expected.append(u)
    run = integrate(model, drive(), dt=dt, steps=Fixed(dt))
    torch.testing.assert_close(run.ys, torch.stack(expected), rtol=0, atol=1e-13)


def test_one_number_is_the_tau_of_all_layers():
    assert [float(tau) for tau in RecurrentPerceptron((4, 2), 1, tau=0.5).tau.layers] == [0.5, 0.5]


def test_one_unit_with_one_input_has_three_weights():
    assert sum(p.numel() for p in RecurrentPerceptron((1,), 1).parameters()) == 3
    # 2 inputs, 10 recurrent units, 1 recurrent output: 10 (10 + 2 + 1) + 1 (1 + 10 + 1)
    assert sum(p.numel() for p in RecurrentPerceptron((10, 1), 2).parameters()) == 142


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="at least one layer"):
        RecurrentPerceptron((), 1)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        RecurrentPerceptron((3, 0), 1)
    with pytest.raises(TypeError, match="integer"):
        RecurrentPerceptron((3, 1.5), 1)
    with pytest.raises(ValueError, match="one tau or as many, got 1"):
        RecurrentPerceptron((3, 2), 1, tau=StackState((1.0,)))
    with pytest.raises(TypeError, match="one bias per unit"):
        RecurrentPerceptron((3, 2), 1).to_torch()
