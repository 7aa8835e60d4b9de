from functools import partial

import pytest
import torch

from ctrnn import Euler, Fixed, Iterate, integrate
from ctrnn.models import GRU, LSTM, Elman, GatedFeedback, Stack

KINDS = [Elman, partial(Elman, activation=torch.relu), GRU, LSTM]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=["tanh", "relu", "GRU", "LSTM"])


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def layers(kind, sizes=(4, 3, 5), n_in=2, **options):
    draw = seeded()
    widths = zip((n_in, *sizes), sizes, strict=False)
    return [kind(n, below, generator=draw, **options) for below, n in widths]


def us(n_time=12, n_in=2):
    return torch.randn(n_time, 3, n_in, dtype=torch.float64, generator=seeded(1))


class OwnGatesOnly(GatedFeedback):
    """g_jj = 1, all others 0."""

    def gates(self, j, below, sent):
        return torch.eye(len(self.layers), dtype=sent.dtype)[j].expand(*sent.shape[:-1], -1)


@every_kind
@pytest.mark.parametrize("dt", [1.0, 0.25])
def test_with_only_its_own_gates_open_it_is_the_stack(kind, dt):
    feedback, stack = OwnGatesOnly(layers(kind), generator=seeded()).double(), Stack(layers(kind)).double()
    runs = [integrate(model, us(), dt=1.0, steps=Fixed(dt), solver=Euler()) for model in (feedback, stack)]
    assert torch.equal(runs[0].ys, runs[1].ys)


def by_hand(model, drive):
    """The paper's loop for tanh units, layer by layer and gate by gate."""
    hs = [torch.zeros(3, layer.n, dtype=torch.float64) for layer in model.layers]
    said = []
    for u in drive:
        old, below = [h.clone() for h in hs], u
        for j, layer in enumerate(model.layers):
            total = below @ layer.W_in.T + layer.b_in + layer.b_rec
            others = iter(model.W_feedback[j].split([len(h.T) for i, h in enumerate(old) if i != j], 1))
            for i, h in enumerate(old):
                g = torch.sigmoid(below @ model.W_gate[j][i] + torch.cat(old, 1) @ model.U_gate[j][i])
                U = layer.W_rec if i == j else next(others)
                total = total + g[:, None] * (h @ U.T)
            hs[j] = below = torch.tanh(total)
        said.append(hs[-1])
    return torch.stack(said)


def test_whole_steps_are_the_papers_loop():
    model = GatedFeedback(layers(Elman), generator=seeded()).double()
    run = integrate(model, us(), dt=1.0, solver=Iterate())
    torch.testing.assert_close(run.ys, by_hand(model, us()), rtol=1e-12, atol=1e-13)


def test_the_reset_gate_acts_on_the_whole_sum():
    model = GatedFeedback(layers(GRU, sizes=(3,)), generator=seeded()).double()
    cell, gates = model.layers[0], []
    h = torch.zeros(3, 3, dtype=torch.float64)
    run = integrate(model, us(), dt=1.0)
    for k, u in enumerate(us()):
        (W_r, W_z, W_c), (U_r, U_z, U_c) = cell.W_in.chunk(3), cell.W_rec.chunk(3)
        (b_r, b_z, b_c), (d_r, d_z, d_c) = cell.b_in.chunk(3), cell.b_rec.chunk(3)
        r, z = (torch.sigmoid(u @ W.T + b + h @ U.T + d) for W, b, U, d in ((W_r, b_r, U_r, d_r), (W_z, b_z, U_z, d_z)))
        g = torch.sigmoid(u @ model.W_gate[0].T + h @ model.U_gate[0].T)
        gates.append(g)
        h = (1 - z) * torch.tanh(u @ W_c.T + b_c + r * (g * (h @ U_c.T) + d_c)) + z * h
        torch.testing.assert_close(run.ys[k], h, rtol=1e-12, atol=1e-13)
    assert float(torch.stack(gates).std().detach()) > 0.01


@every_kind
def test_a_layer_hears_the_one_above_it_one_step_late(kind):
    model = GatedFeedback(layers(kind, sizes=(3, 3)), generator=seeded()).double()
    start = model.initial_state(1)
    nudged = start._replace(layers=(start.layers[0], model.layers[1].initial_state(1)))
    above = nudged.layers[1]
    nudged = nudged._replace(layers=(start.layers[0], above._replace(h=above.h + 1) if kind is LSTM else above + 1))
    runs = [integrate(model, us()[:2, :1], x0, dt=1.0).xs.layers[0] for x0 in (start, nudged)]
    plain = Stack(layers(kind, sizes=(3, 3))).double()
    alone = [integrate(plain, us()[:2, :1], x0, dt=1.0).xs.layers[0] for x0 in (start, nudged)]
    first, second = (run.h if kind is LSTM else run for run in runs)
    assert not torch.allclose(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(*(run if kind is LSTM else [run] for run in alone), strict=True))


def test_a_saved_network_comes_back(tmp_path):
    model = GatedFeedback(layers(LSTM), generator=seeded())
    model.save(tmp_path / "m.safetensors")
    again = GatedFeedback.load(tmp_path / "m.safetensors")
    assert torch.equal(integrate(model, us(), dt=1.0).ys, integrate(again, us(), dt=1.0).ys)


def test_layers_that_do_not_suit_are_named():
    with pytest.raises(TypeError, match="GRU, LSTM"):
        GatedFeedback([GRU(2, 2), LSTM(2, 2)])
    with pytest.raises(ValueError, match="n_out"):
        GatedFeedback([GRU(2, 2, 3), GRU(2, 3)])
    with pytest.raises(TypeError, match="gated feedback"):
        GatedFeedback(layers(GRU)).to_torch()
