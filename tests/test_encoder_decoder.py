import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ctrnn import (
    RK4,
    Adaptive,
    AttentiveEncoderDecoder,
    Backprop,
    EncoderDecoder,
    Fixed,
    Model,
    Recompute,
    SummaryEncoderDecoder,
    integrate,
)
from ctrnn._files import FileFormatError
from ctrnn.models import CTRNN, GRU, LSTM, Attentive, Elman, PaperGRU, Stack

KINDS = EncoderDecoder, SummaryEncoderDecoder, AttentiveEncoderDecoder
every_kind = pytest.mark.parametrize("kind", KINDS)
LENGTHS, WORD_LENGTHS = torch.tensor([5, 2, 1, 4]), torch.tensor([1, 3, 2, 3])


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator)


def assert_close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def spoken(generator, net, steps=3, batch=4):
    """Words (step, batch) and the unit vectors that stand for them."""
    words = torch.randint(net.n_word, (steps, batch), generator=generator)
    return words, F.one_hot(words, net.n_word).to(torch.get_default_dtype())


@pytest.mark.parametrize("torch_kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("reverse", [False, True])
def test_at_dt_equal_tau_it_is_two_torch_modules_with_the_state_passed_on(generator, torch_kind, reverse):
    first, second = torch_kind(2, 3, num_layers=2), torch_kind(4, 3, num_layers=2)
    net = EncoderDecoder(Model.from_torch(first), Model.from_torch(second), reverse=reverse)
    us, words = draw(generator, 5, 4, 2), draw(generator, 3, 4, 4)
    expected, _ = second(words, first(us.flip(0) if reverse else us)[1])
    assert_close(net(us, words, dt=1.0).ys, expected)


@pytest.mark.parametrize("torch_cell", [nn.GRUCell, nn.LSTMCell])
def test_at_dt_equal_tau_it_is_torchs_cells_bit_for_bit(generator, torch_cell):
    first, second = torch_cell(2, 3), torch_cell(4, 3)
    net = EncoderDecoder(Model.from_torch(first), Model.from_torch(second))
    us, words = draw(generator, 5, 4, 2), draw(generator, 3, 4, 4)
    state = None
    for u in us:
        state = first(u, state)
    for y, word in zip(net(us, words, dt=1.0).ys, words, strict=True):
        state = second(word, state)
        assert torch.equal(y, state[0] if isinstance(state, tuple) else state)


def test_a_summary_is_heard_at_every_step_as_cho_and_others_write_it(generator):
    net = SummaryEncoderDecoder(
        PaperGRU(3, 2, generator=generator), PaperGRU(5, 4 + 6, generator=generator), 6, generator=generator
    )
    us, words = draw(generator, 5, 4, 2), draw(generator, 3, 4, 4)
    c = torch.tanh(integrate(net.encoder, us, dt=1.0).xs[-1] @ net.W_context.T)
    h = torch.tanh(c @ net.W_start.T)
    for y, word in zip(net(us, words, dt=1.0).ys, words, strict=True):
        h = net.decoder.target(torch.tensor(0.0), h, torch.cat([word, c], -1), 1)
        assert_close(y, h)


def test_attention_is_what_bahdanau_and_others_write(generator):
    net = AttentiveEncoderDecoder.example()
    us, (_, words) = draw(generator, 5, 4, 2), spoken(generator, net)
    m = integrate(net.encoder, us, dt=1.0).ys
    look, h = net.decoder, torch.tanh(m[-1] @ net.W_start.T)
    for y, word in zip(net(us, words, dt=1.0).ys, words, strict=True):
        scores = [torch.tanh(h @ look.W_query.T + item @ look.W_key.T) @ look.w for item in m]
        a = torch.stack(scores).softmax(0)
        c = sum(weight.unsqueeze(-1) * item for weight, item in zip(a, m, strict=True))
        h = look.reader.target(torch.tensor(0.0), h, torch.cat([word, c], -1), 1)
        assert_close(y, look.reader.readout(h))


def test_attention_adds_up_to_one_and_never_falls_on_padding(generator):
    net = AttentiveEncoderDecoder.example()
    us, (_, words) = draw(generator, 5, 4, 2), spoken(generator, net)
    run = net(us, words, dt=0.3, lengths=LENGTHS)
    weights = net.decoder.weights(run.xs)
    assert weights.shape == (3, 4, 6)
    assert_close(weights.sum(-1), torch.ones(3, 4))
    padding = torch.arange(6) >= LENGTHS[:, None]
    assert bool((weights[:, padding] == 0).all())
    assert bool((weights[:, ~padding] > 0).all())
    assert torch.equal(run.xs.memory, run.xs.memory[:1].expand_as(run.xs.memory))


@every_kind
def test_the_loss_of_a_sequence_is_the_sum_of_its_steps_losses(generator, kind):
    net, us = kind.example(), draw(generator, 5, 4, 2)
    (heard, words), (after, _) = spoken(generator, net), spoken(generator, net)
    whole = F.cross_entropy(net(us, words, dt=0.5, lengths=LENGTHS).ys.flatten(0, 1), after.flatten(), reduction="sum")
    told, steps = net.read(us, dt=0.5, lengths=LENGTHS), 0.0
    for word, following in zip(heard, after, strict=True):
        log_probabilities, told = net.say(told, word, dt=0.5)
        steps = steps - log_probabilities.gather(-1, following[:, None]).sum()
    assert_close(whole, steps)


@every_kind
@pytest.mark.parametrize("how", [{}, {"steps": Fixed(0.03), "solver": RK4()}, {"steps": Adaptive(1e-9, 1e-9)}])
def test_each_sequence_runs_as_it_would_alone_and_padding_pollutes_nothing(generator, kind, how):
    net, us, (_, words) = kind.example(), draw(generator, 5, 4, 2), spoken(generator, kind.example())
    for i, (n, m) in enumerate(zip(LENGTHS, WORD_LENGTHS, strict=True)):
        us[n:, i], words[m:, i] = torch.nan, torch.nan
    us, words = us.requires_grad_(), words.requires_grad_()
    run = net(us, words, dt=0.1, lengths=LENGTHS, word_lengths=WORD_LENGTHS, **how)
    for i, (n, m) in enumerate(zip(LENGTHS.tolist(), WORD_LENGTHS.tolist(), strict=True)):
        assert_close(run.ys[:m, i], net(us[:n, i], words[:m, i], dt=0.1, **how).ys, 1e-7 if "steps" in how else 1e-12)
    gradients = torch.autograd.grad(run.ys.square().sum(), [us, words, *net.parameters()], allow_unused=True)
    assert all(bool(torch.isfinite(g).all()) for g in gradients if g is not None)
    assert all(bool((gradients[0][n:, i] == 0).all()) for i, n in enumerate(LENGTHS))


@every_kind
def test_gradients_are_those_of_finite_differences_and_reach_every_weight(generator, kind):
    net, us = kind.example().double(), draw(generator, 4, 2, 2).double().requires_grad_()
    words = spoken(generator, net, batch=2)[1].double()
    names, weights = zip(*net.named_parameters(), strict=True)

    def said(us, *weights):
        given = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(net, given, (us, words), {"dt": 0.5, "lengths": torch.tensor([4, 2])}).ys

    assert torch.autograd.gradcheck(said, (us, *weights))
    if kind is AttentiveEncoderDecoder:
        loss = said(us, *weights).square().sum()
        assert all(float(g.abs().max()) > 0 for g in torch.autograd.grad(loss, weights))


@every_kind
def test_recomputed_gradients_are_those_of_backpropagation(generator, kind):
    net, us = kind.example(), draw(generator, 5, 4, 2)
    words = spoken(generator, net)[1]
    kept, recomputed = (
        torch.autograd.grad(net(us, words, dt=0.5, adjoint=adjoint).ys.square().sum(), list(net.parameters()))
        for adjoint in (Backprop(), Recompute(snapshots=2))
    )
    for a, b in zip(kept, recomputed, strict=True):
        assert_close(a, b)


@every_kind
def test_below_tau_small_steps_approach_the_flow(generator, kind):
    net, us = kind.example(), draw(generator, 5, 4, 2)
    words = spoken(generator, net)[1]
    with torch.no_grad():
        flow = net(us, words, dt=1.0, steps=Adaptive(1e-9, 1e-9)).ys
        gaps = [float((net(us, words, dt=1.0, steps=Fixed(1 / n)).ys - flow).abs().max()) for n in (1, 20, 40, 80)]
    assert gaps[0] > 10 * gaps[-1]
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.15)
    assert gaps[2] / gaps[3] == pytest.approx(2, rel=0.15)


def test_any_two_networks_go_together(generator):
    encoder = Stack([CTRNN(3, 2, 3, tau=2.0, generator=generator), LSTM(4, 3, generator=generator)])
    reader = Stack([LSTM(5, 3 + 4, generator=generator), Elman(3, 5, 3, generator=generator)])
    attentive = AttentiveEncoderDecoder(encoder, Attentive(reader, 4, 5, 6, generator=generator), generator=generator)
    summary = SummaryEncoderDecoder(encoder, reader, 4, generator=generator)
    us, words = draw(generator, 5, 2, 3, 2), draw(generator, 4, 2, 3, 3)
    for net in (attentive, summary):
        run = net(us, words, dt=0.5)
        assert run.ys.shape == (4, 2, 3, 3)
        assert_close(run.ys[:, 1, 2], net(us[:, 1, 2], words[:, 1, 2], dt=0.5).ys)


def test_networks_that_do_not_go_together_are_refused(generator):
    with pytest.raises(TypeError, match=r"encoder must be a Model, got a GRUCell: wrap"):
        EncoderDecoder(nn.GRUCell(2, 3), GRU(3, 2))
    for decoder in (GRU(4, 2), LSTM(3, 2)):
        with pytest.raises(ValueError, match="states of one form"):
            EncoderDecoder(GRU(3, 2), decoder)
    with pytest.raises(ValueError, match=r"no room for words beside a context of 4"):
        SummaryEncoderDecoder(GRU(3, 2), GRU(3, 4), 4)
    with pytest.raises(ValueError, match=r"Attentive with n_memory=3"):
        AttentiveEncoderDecoder(GRU(3, 2), Attentive(GRU(3, 6), 2, 4, 2))
    with pytest.raises(ValueError, match=r"n_in=2 has no room for a context of 3"):
        Attentive(GRU(3, 2), 3, 4, 2)
    with pytest.raises(ValueError, match=r"7 items for a memory with places=6: build the Attentive with more"):
        AttentiveEncoderDecoder.example().read(draw(generator, 7, 2), dt=1.0)
    with pytest.raises(TypeError, match=r"reader must be a Relaxation"):
        Attentive(nn.GRUCell(2, 3), 1, 4, 2)


@every_kind
def test_it_is_saved_and_loaded_bit_for_bit(tmp_path, generator, kind):
    net, us = kind.example(), draw(generator, 5, 4, 2)
    words = spoken(generator, net)[1]
    net.save(tmp_path / "net")
    assert torch.equal(EncoderDecoder.load(tmp_path / "net")(us, words, dt=0.5).ys, net(us, words, dt=0.5).ys)
    with pytest.raises(FileFormatError, match=f"holds a '{kind.__name__}', and no imported Model"):
        Model.load(tmp_path / "net")


def test_it_learns_to_say_a_sequence_backwards(generator):
    net = AttentiveEncoderDecoder.example()
    source = torch.randint(3, (3, 64), generator=generator)
    us, target = F.one_hot(source, 3)[..., :2].to(torch.get_default_dtype()), source.flip(0)
    heard = torch.cat([torch.full_like(target[:1], 3), target[:-1]])
    words = F.one_hot(heard, 4).to(us.dtype)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.03)
    losses = []
    for _ in range(120):
        loss = F.cross_entropy(net(us, words, dt=1.0).ys.flatten(0, 1), target.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
