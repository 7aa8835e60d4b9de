import pytest
import torch

from ctrnn import Euler, Fixed, Iterate, integrate
from ctrnn.models import LSTM, LSTM1997, LSTM2000, BlockState, PeepholeLSTM, Stack


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def us(n_time, n_in, seed=1):
    return torch.randn(n_time, 3, n_in, dtype=torch.float64, generator=seeded(seed))


# Hochreiter & Schmidhuber (1997): blocks, cells in each, inputs, outputs, biases of cells, gates and outputs, weights.
PUBLISHED = [
    (4, 1, 7, 7, (False, True, False), 264),  # experiment 1, embedded Reber grammar
    (3, 2, 7, 7, (False, True, False), 276),
    *((2, 1, p + 4, 2, (False, False, False), 6 * p + 64) for p in (50, 100, 200, 500, 1000)),  # 2c: 364 ... 6064
    (3, 1, 1, 1, (True, True, False), 102),  # experiment 3, noise and signal on one channel
    (2, 2, 2, 1, (True, True, True), 93),  # experiment 4, adding
]


@pytest.mark.parametrize(("blocks", "cells", "n_in", "n_out", "biases", "weights"), PUBLISHED)
def test_the_network_of_1997_has_as_many_weights_as_the_paper_says(blocks, cells, n_in, n_out, biases, weights):
    cell_bias, gate_bias, out_bias = biases
    net = LSTM1997(
        blocks, n_in, n_out, cells=cells, cell_bias=cell_bias, gate_bias=gate_bias, out_bias=out_bias,
        generator=seeded(),
    )  # fmt: skip
    assert sum(p.numel() for p in net.parameters()) == weights


def test_the_counts_of_task_2c_are_those_of_the_paper():
    assert [row[-1] for row in PUBLISHED[2:7]] == [364, 664, 1264, 3064, 6064]


@pytest.mark.parametrize("kind", [LSTM1997, LSTM2000])
def test_whole_steps_are_the_papers_loop(kind):
    net = kind(2, 3, 2, cells=2, generator=seeded()).double()
    with torch.no_grad():
        net.W_rec.mul_(8)
    drive = us(12, 3)
    run = integrate(net, drive, dt=1.0, solver=Iterate())
    h, c = torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)
    gates = torch.zeros(3, kind.kinds * 2, dtype=torch.float64)
    for k, u in enumerate(drive):
        net_input = torch.cat([h, gates], -1) @ net.W_rec.T + u @ net.W_in.T + torch.cat([net.b_cells, net.b_gates])
        gates = torch.sigmoid(net_input[:, 4:])
        i, o = (gate.repeat_interleave(2, -1) for gate in (gates[:, :2], gates[:, -2:]))
        f = gates[:, 2:4].repeat_interleave(2, -1) if kind is LSTM2000 else 1.0
        c = f * c + i * (4 * torch.sigmoid(net_input[:, :4]) - 2)
        h = o * (2 * torch.sigmoid(c) - 1)
        torch.testing.assert_close(run.xs.c[k], c, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(run.xs.gates[k], gates, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(run.ys[k], h @ net.W_out.T + net.b_out, rtol=1e-13, atol=1e-13)
    euler = integrate(net, drive, dt=1.0, solver=Euler())
    assert torch.equal(euler.ys, run.ys)


@pytest.mark.parametrize("dt", [1.0, 0.25, 0.1])
def test_a_shut_cell_holds_its_content_at_any_step(dt):
    net = LSTM1997(2, 1, generator=seeded()).double()
    with torch.no_grad():
        net.W_rec.zero_()
        net.W_in.zero_()
        net.b_gates.fill_(-1e3)
    start = net.initial_state()._replace(c=torch.tensor([0.7, -3.0], dtype=torch.float64))
    run = integrate(net, torch.zeros(500, 1, dtype=torch.float64), start, dt=1.0, steps=Fixed(dt))
    assert torch.equal(run.xs.c[-1], start.c)


def test_truncated_errors_flow_back_through_the_cells_alone():
    whole, cut = (LSTM1997(2, 2, 1, cells=2, truncated=t, generator=seeded()).double() for t in (False, True))
    drive = us(6, 2)
    ys = [integrate(net, drive, dt=1.0).ys for net in (whole, cut)]
    assert torch.equal(*ys)
    for y in ys:
        y[-1].sum().backward()
    assert not torch.allclose(whole.W_rec.grad, cut.W_rec.grad)
    # By hand: what the cells of a truncated network hold is a sum, and each summand's recurrent input is a constant.
    found = integrate(cut, drive, dt=1.0).xs
    sent = torch.cat([torch.zeros(1, 3, 8, dtype=torch.float64), torch.cat([found.h, found.gates], -1)[:-1]]).detach()
    rows = (sent @ cut.W_rec.T + drive @ cut.W_in.T + torch.cat([cut.b_cells, cut.b_gates])).split((4, 2, 2), -1)
    i, o = (torch.sigmoid(row).repeat_interleave(2, -1) for row in rows[1:])
    c = (i * (4 * torch.sigmoid(rows[0]) - 2)).sum(0)
    y = (o[-1] * (2 * torch.sigmoid(c) - 1)) @ cut.W_out.T + cut.b_out
    (expected,) = torch.autograd.grad(y.sum(), cut.W_rec)
    torch.testing.assert_close(cut.W_rec.grad, expected, rtol=1e-12, atol=1e-14)


def test_without_peepholes_it_is_the_lstm_of_torch():
    peep, plain = (kind(4, 3, generator=seeded()).double() for kind in (PeepholeLSTM, LSTM))
    with torch.no_grad():
        peep.peepholes.zero_()
    torch_cell = plain.to_torch()
    state, drive = None, us(10, 3)
    run = integrate(peep, drive, dt=1.0)
    for k, u in enumerate(drive):
        state = torch_cell(u, state)
        assert torch.equal(run.ys[k], state[0])


def test_the_output_gate_sees_the_cell_as_the_step_leaves_it():
    net = PeepholeLSTM(4, 3, generator=seeded()).double()
    drive = us(10, 3)
    run = integrate(net, drive, dt=1.0)
    h = c = torch.zeros(3, 4, dtype=torch.float64)
    p_i, p_f, p_o = net.peepholes
    for k, u in enumerate(drive):
        i, f, g, o = (h @ net.W_rec.T + net.b_rec + u @ net.W_in.T + net.b_in).chunk(4, -1)
        c = torch.sigmoid(f + p_f * c) * c + torch.sigmoid(i + p_i * c) * torch.tanh(g)
        h = torch.sigmoid(o + p_o * c) * torch.tanh(c)
        torch.testing.assert_close(run.ys[k], h, rtol=1e-13, atol=1e-13)


def test_what_torch_lacks_is_not_converted():
    net = PeepholeLSTM(4, 3, generator=seeded())
    with pytest.raises(ValueError, match="peepholes"):
        net.to_torch()
    with pytest.raises(ValueError, match="peepholes"):
        Stack([net, PeepholeLSTM(4, 4, generator=seeded())]).to_torch()
    with pytest.raises(TypeError, match="no counterpart"):
        LSTM1997(2, 3).to_torch()


def test_wrong_sizes_and_time_constants_are_named():
    with pytest.raises(ValueError, match="blocks"):
        LSTM1997(0, 2)
    with pytest.raises(ValueError, match="cells"):
        LSTM2000(2, 2, cells=0)
    with pytest.raises(TypeError, match="BlockState"):
        LSTM1997(2, 2, tau=torch.ones(2))
    assert LSTM1997(2, 2, tau=BlockState(h=1.0, gates=0.5, c=2.0)).tau.c == 2.0
