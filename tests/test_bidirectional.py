import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ctrnn import RK4, Adaptive, Euler, Fixed, Model, integrate
from ctrnn._files import FileFormatError
from ctrnn.bidirectional import Bidirectional, BidirectionalState
from ctrnn.models import CTRNN, GRU, LSTM, Elman, LinearSystem, Stack

every_module = pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
LENGTHS = torch.tensor([7, 4, 1, 6])


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator)


def padded(generator, fill):
    us = draw(generator, 7, 4, 2)
    for i, n in enumerate(LENGTHS):
        us[n:, i] = fill
    return us


def assert_close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@every_module
@pytest.mark.parametrize("bias", [True, False])
def test_at_dt_equal_tau_it_is_torchs_module(generator, kind, bias):
    module = kind(2, 3, bidirectional=True, bias=bias)
    net, us = Model.from_torch(module), draw(generator, 7, 4, 2)
    assert isinstance(net, Bidirectional)
    assert_close(net(us, dt=1.0).ys, module(us)[0])
    assert_close(net(us[:, 0], dt=1.0).ys, module(us[:, 0])[0])


@every_module
def test_sequences_of_different_lengths_are_torchs_packed_sequences(generator, kind):
    module = kind(2, 3, bidirectional=True)
    us = padded(generator, 0.0)
    expected = pad_packed_sequence(module(pack_padded_sequence(us, LENGTHS, enforce_sorted=False))[0], total_length=7)[
        0
    ]
    run = Model.from_torch(module)(us, dt=1.0, lengths=LENGTHS)
    assert_close(torch.where(run.mask[..., None], run.ys, 0.0), expected)


@every_module
@pytest.mark.parametrize("ragged", [False, True])
def test_deep_ones_chain_as_torchs_do(generator, kind, ragged):
    module = kind(2, 3, num_layers=3, bidirectional=True)
    us, lengths = (padded(generator, 0.0), LENGTHS) if ragged else (draw(generator, 7, 4, 2), None)
    if ragged:
        packed = module(pack_padded_sequence(us, LENGTHS, enforce_sorted=False))[0]
        expected = pad_packed_sequence(packed, total_length=7)[0]
    else:
        expected = module(us)[0]
    ys, mask = us, None
    for layer in Bidirectional.chain_from_torch(module):
        run = layer(ys, dt=1.0, lengths=lengths)
        ys, mask = run.ys, run.mask
    assert_close(ys if mask is None else torch.where(mask[..., None], ys, 0.0), expected)
    with pytest.raises(ValueError, match=r"3 bidirectional layers.*chain_from_torch"):
        Model.from_torch(module)


@every_module
def test_weights_go_to_torch_and_back(generator, kind):
    module = kind(2, 3, bidirectional=True)
    again = Model.from_torch(module).to_torch()
    assert type(again) is kind
    assert again.bidirectional
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), again.parameters(), strict=True))


def test_what_torch_does_not_have_is_not_converted():
    with pytest.raises(ValueError, match="Elman, GRU or LSTM"):
        Bidirectional(CTRNN(3, 2), CTRNN(3, 2)).to_torch()
    with pytest.raises(ValueError, match="one kind"):
        Bidirectional(GRU(3, 2), LSTM(3, 2)).to_torch()
    with pytest.raises(ValueError, match="time constants"):
        Bidirectional(GRU(3, 2), GRU(3, 2, tau=2.0)).to_torch()


def test_two_networks_of_different_kinds_and_sizes_stand_side_by_side(generator):
    ahead, back = CTRNN(3, 2, 4, generator=generator), Stack([LSTM(5, 2, generator=generator)])
    net, us = Bidirectional(ahead, back), draw(generator, 6, 3, 2)
    run = net(us, dt=0.1)
    assert run.ys.shape == (6, 3, 9)
    assert isinstance(run.xs, BidirectionalState)
    forward, backward = integrate(ahead, us, dt=0.1), integrate(back, us.flip(0), dt=0.1)
    assert_close(run.xs.forward, forward.xs)
    assert_close(run.xs.backward.layers[0].c, backward.xs.layers[0].c.flip(0))
    assert_close(run.ys, torch.cat([forward.ys, backward.ys.flip(0)], -1))
    assert_close(net.readout(run.xs), run.ys)
    assert torch.equal(run.ts, forward.ts)
    assert run.stats.steps.tolist() == [12] * 3


@pytest.mark.parametrize("how", [{}, {"steps": Fixed(0.03), "solver": RK4()}, {"steps": Adaptive(1e-8, 1e-8)}])
def test_each_sequence_runs_as_it_would_alone_and_padding_pollutes_nothing(generator, how):
    net, us = (
        Bidirectional(CTRNN(3, 2, 2, generator=generator), GRU(3, 2, generator=generator)),
        padded(generator, torch.nan).requires_grad_(),
    )
    run = net(us, dt=0.1, lengths=LENGTHS, **how)
    for i, n in enumerate(LENGTHS.tolist()):
        assert_close(run.ys[:n, i], net(us[:n, i], dt=0.1, **how).ys)
        assert run.mask[:, i].tolist() == [k < n for k in range(7)]
    gradients = torch.autograd.grad(run.ys.square().sum(), [us, *net.parameters()])
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    assert all(bool((gradients[0][n:, i] == 0).all()) for i, n in enumerate(LENGTHS))


def test_a_batch_may_have_two_axes(generator):
    net, us = Bidirectional(GRU(3, 2, generator=generator), GRU(3, 2, generator=generator)), draw(generator, 5, 2, 3, 2)
    lengths = torch.tensor([[5, 1, 3], [2, 4, 5]])
    flat = net(us.flatten(1, 2), dt=0.1, lengths=lengths.flatten())
    assert_close(net(us, dt=0.1, lengths=lengths).ys.flatten(1, 2), flat.ys)


def test_both_networks_may_start_where_they_are_told_to(generator):
    net, us = (
        Bidirectional(Elman(3, 2, generator=generator), Elman(4, 2, generator=generator)),
        draw(generator, 5, 2, 2),
    )
    x0 = BidirectionalState(draw(generator, 2, 3), draw(generator, 2, 4))
    run = net(us, dt=0.5, x0=x0, solver=Euler())
    assert_close(run.xs.backward[-1], integrate(net.back, us[-1:], x0.backward, dt=0.5).xs[0])
    with pytest.raises(TypeError, match=r"BidirectionalState\(forward=\.\.\., backward=\.\.\.\)"):
        net(us, dt=0.5, x0=torch.zeros(2, 3))


def test_networks_that_do_not_read_the_same_input_are_refused():
    with pytest.raises(ValueError, match=r"n_in=2, backward 3; give both the same"):
        Bidirectional(GRU(3, 2), GRU(3, 3))
    with pytest.raises(TypeError, match=r"backward must be a Model, got a GRUCell: wrap"):
        Bidirectional(GRU(3, 2), nn.GRUCell(2, 3))
    assert Bidirectional(LinearSystem.example(), LinearSystem.example()).n_in == 1


def test_it_is_saved_and_loaded_bit_for_bit(tmp_path, generator):
    net = Bidirectional(CTRNN(3, 2, tau=2.0, generator=generator), Stack([LSTM(4, 2, generator=generator)]))
    us = draw(generator, 5, 2)
    net.save(tmp_path / "net")
    loaded = Bidirectional.load(tmp_path / "net")
    assert torch.equal(loaded(us, dt=0.5).ys, net(us, dt=0.5).ys)
    with pytest.raises(FileFormatError, match="holds a 'Bidirectional', and no imported Model"):
        Model.load(tmp_path / "net")


def test_it_trains(generator):
    net, us = Bidirectional.example(), draw(generator, 6, 8, 2)
    target = us.flip(0).cumsum(0).flip(0)[..., :1]
    head = draw(generator, 1, 6).requires_grad_()
    optimiser = torch.optim.Adam([*net.parameters(), head], lr=0.05)
    losses = []
    for _ in range(30):
        loss = (net(us, dt=1.0).ys @ head.T - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
