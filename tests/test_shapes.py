"""The four shapes of a recurrent network: one or many inputs to one or many outputs, run and trained."""

import pytest
import torch
from torch import nn

from ctrnn import Backprop, Elman, Held, Last, Silence, Truncated, integrate

T, BATCH, N, N_IN, N_OUT = 7, 4, 5, 3, 2


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(nonlinearity):
    """An Elman network and the torch.nn network with its weights."""
    activation = {"tanh": torch.tanh, "relu": torch.relu}[nonlinearity]
    model = Elman(N, N_IN, N_OUT, activation=activation, generator=torch.Generator().manual_seed(1)).double()
    twin = nn.RNN(N_IN, N, nonlinearity=nonlinearity, dtype=torch.float64)
    with torch.no_grad():
        for name, value in zip(
            ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"),
            (model.W_in, model.W_rec, model.b_in, model.b_rec),
            strict=True,
        ):
            getattr(twin, name).copy_(value)
    return model, twin, lambda h: h @ model.W_out.T + model.b_out


both = pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])


@both
def test_many_to_many_gives_an_output_for_every_input(nonlinearity):
    model, twin, readout = pair(nonlinearity)
    us = rand(T, BATCH, N_IN)
    torch.testing.assert_close(integrate(model, us, dt=1.0).ys, readout(twin(us)[0]), rtol=1e-12, atol=1e-12)


@both
def test_many_to_one_gives_the_output_after_the_last_input_of_each_sample(nonlinearity):
    model, twin, readout = pair(nonlinearity)
    us, lengths = rand(T, BATCH, N_IN), torch.tensor([7, 2, 5, 1])
    packed = nn.utils.rnn.pack_padded_sequence(us, lengths, enforce_sorted=False)
    ys = integrate(model, Held(us, 1.0, lengths=lengths), save=Last()).ys
    torch.testing.assert_close(ys[0], readout(twin(packed)[1][0]), rtol=1e-12, atol=1e-12)


@both
def test_one_to_many_goes_on_without_input(nonlinearity):
    model, twin, readout = pair(nonlinearity)
    u = rand(1, BATCH, N_IN)
    first = integrate(model, u, dt=1.0)
    rest = integrate(model, Silence(), first.xs[-1], dt=1.0, t_span=(1.0, float(T)))
    us = torch.cat([u, torch.zeros(T - 1, BATCH, N_IN, dtype=torch.float64)])
    ys = torch.cat([first.ys, rest.ys[-(T - 1) :]])
    torch.testing.assert_close(ys, readout(twin(us)[0]), rtol=1e-12, atol=1e-12)


@both
def test_one_to_many_can_hear_what_it_said(nonlinearity):
    """Generation: each output, through any map, is the next input."""
    model, _, readout = pair(nonlinearity)
    hear = rand(N_IN, N_OUT, seed=3)
    u, x, said = rand(1, BATCH, N_IN), None, []
    for _ in range(T):
        run = integrate(model, u, x, dt=1.0)
        x, u = run.xs[-1], run.ys @ hear.T
        said.append(run.ys[0])
    h, now, expected = torch.zeros(BATCH, N, dtype=torch.float64), rand(BATCH, N_IN), []
    for _ in range(T):
        h = model.activation(now @ model.W_in.T + model.b_in + h @ model.W_rec.T + model.b_rec)
        expected.append(readout(h))
        now = expected[-1] @ hear.T
    torch.testing.assert_close(torch.stack(said), torch.stack(expected), rtol=1e-12, atol=1e-12)


@both
def test_one_to_one_is_a_static_network(nonlinearity):
    model, _, readout = pair(nonlinearity)
    u = rand(1, BATCH, N_IN)
    hidden = model.activation(u[0] @ model.W_in.T + model.b_in + model.b_rec)
    torch.testing.assert_close(integrate(model, u, dt=1.0).ys[0], readout(hidden), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", ["many-to-many", "many-to-one"])
@pytest.mark.parametrize(("adjoint", "copied"), [(Truncated(1), True), (Backprop(), False)], ids=["one-step", "full"])
def test_both_trainings_of_an_elman_network_have_the_gradient_of_an_explicit_loop(shape, adjoint, copied):
    """Elman's copy-back cuts the error at the context; full backpropagation through time does not."""
    model = Elman(N, N_IN, N_OUT, activation=torch.sigmoid, initial=0.5).double()
    us, targets = rand(T, BATCH, N_IN), rand(T, BATCH, N_OUT, seed=2)
    h, outputs = torch.full((BATCH, N), 0.5, dtype=torch.float64), []
    for u in us:
        context = h.detach() if copied else h
        h = torch.sigmoid(u @ model.W_in.T + model.b_in + context @ model.W_rec.T + model.b_rec)
        outputs.append(h @ model.W_out.T + model.b_out)
    kept = slice(None) if shape == "many-to-many" else slice(T - 1, T)
    parameters = list(model.parameters())
    expected = torch.autograd.grad((torch.stack(outputs) - targets)[kept].square().sum(), parameters)
    ys = integrate(model, us, dt=1.0, adjoint=adjoint).ys
    found = torch.autograd.grad((ys - targets)[kept].square().sum(), parameters)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
