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


@pytest.mark.usefixtures("on_the_plain_path")
@every_kind
@pytest.mark.parametrize("dt", [1.0, 0.25])
def test_with_only_its_own_gates_open_it_is_the_stack(kind, dt):
    feedback, stack = OwnGatesOnly(layers(kind), generator=seeded()).double(), Stack(layers(kind)).double()
    runs = [integrate(model, us(), dt=1.0, steps=Fixed(dt), solver=Euler()) for model in (feedback, stack)]
    assert torch.equal(runs[0].ys, runs[1].ys)


def rows(layer, weights, block):
    """Rows of one of the layer's gates, or of its candidate."""
    return weights[block * layer.n : (block + 1) * layer.n]


def tanh_layer(layer, h, memory, u, fed):
    return torch.tanh(u @ layer.W_in.T + layer.b_in + layer.b_rec + fed), memory


def gru_layer(layer, h, memory, u, fed):
    def into(k):
        return u @ rows(layer, layer.W_in, k).T + rows(layer, layer.b_in, k)

    def own(k):
        return h @ rows(layer, layer.W_rec, k).T + rows(layer, layer.b_rec, k)

    r, z = (torch.sigmoid(into(k) + own(k)) for k in (0, 1))
    return (1 - z) * torch.tanh(into(2) + r * (fed + rows(layer, layer.b_rec, 2))) + z * h, memory


def lstm_layer(layer, h, memory, u, fed):
    def into(k):
        return u @ rows(layer, layer.W_in, k).T + rows(layer, layer.b_in, k) + rows(layer, layer.b_rec, k)

    i, f, o = (torch.sigmoid(into(k) + h @ rows(layer, layer.W_rec, k).T) for k in (0, 1, 3))
    memory = f * memory + i * torch.tanh(into(2) + fed)
    return o * torch.tanh(memory), memory


def by_hand(model, drive, candidate, step):
    """The paper's loop, layer by layer and gate by gate; what a layer is fed with replaces U h in its candidate."""
    hs = [torch.zeros(3, layer.n) for layer in model.layers]
    memories, said, opened = list(hs), [], []
    for u in drive:
        old, below = list(hs), u
        for j, layer in enumerate(model.layers):
            fed = torch.zeros(3, layer.n)
            others = iter(model.W_feedback[j].split([len(h.T) for i, h in enumerate(old) if i != j], 1))
            for i, h in enumerate(old):
                g = torch.sigmoid(below @ model.W_gate[j][i] + torch.cat(old, 1) @ model.U_gate[j][i])
                U = rows(layer, layer.W_rec, candidate) if i == j else next(others)
                fed = fed + g[:, None] * (h @ U.T)
                opened.append(g)
            hs[j], memories[j] = step(layer, old[j], memories[j], below, fed)
            below = hs[j]
        said.append(hs[-1])
    return torch.stack(said), torch.stack(opened)


@pytest.mark.parametrize("sizes", [(3,), (4, 3), (4, 3, 5)])
@pytest.mark.parametrize(
    ("kind", "candidate", "step"),
    [(Elman, 0, tanh_layer), (GRU, 2, gru_layer), (LSTM, 2, lstm_layer)],
    ids=["tanh", "GRU", "LSTM"],
)
def test_whole_steps_are_the_papers_loop(kind, candidate, step, sizes):
    model = GatedFeedback(layers(kind, sizes), generator=seeded()).double()
    run = integrate(model, us(), dt=1.0, solver=Iterate())
    expected, opened = by_hand(model, us(), candidate, step)
    torch.testing.assert_close(run.ys, expected, rtol=1e-12, atol=1e-13)
    assert float(opened.std().detach()) > 0.01


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
