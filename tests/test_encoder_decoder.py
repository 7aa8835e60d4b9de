import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ctrnn import (
    RK4,
    Adaptive,
    AttentiveEncoderDecoder,
    Backprop,
    Bidirectional,
    EncoderDecoder,
    Fixed,
    Model,
    Recompute,
    SummaryEncoderDecoder,
    integrate,
)
from ctrnn._files import FileFormatError
from ctrnn.models import CTRNN, GRU, LSTM, Attentive, Elman, LSTMState, PaperGRU, Stack

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


@pytest.mark.usefixtures("on_the_plain_path")
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


def test_below_tau_the_reader_shows_its_cell_as_far_as_it_has_moved(generator):
    reader = LSTM(4, 2 + 3, tau=LSTMState(h=1.0, c=2.0), generator=generator)
    look, u = Attentive(reader, 3, 5, 6, generator=generator), draw(generator, 2, 2)
    x = look.remember(
        LSTMState(draw(generator, 2, 4), draw(generator, 2, 4)), draw(generator, 2, 5, 3), torch.ones(2, 5)
    )
    (h, c), dt = x.reader, 0.5
    query = torch.cat([h, c], -1) @ look.W_query.T
    a = (torch.tanh(query[:, None] + x.memory @ look.W_key.T) @ look.w).softmax(-1)
    heard = torch.cat([u, (a[..., None] * x.memory).sum(1)], -1)
    gates = heard @ reader.W_in.T + reader.b_in + h @ reader.W_rec.T + reader.b_rec
    i, f, g, o = gates.chunk(4, -1)
    target = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    after_c = c + dt / 2.0 * (target - c)
    after_h = h + dt / 1.0 * (torch.sigmoid(o) * torch.tanh(after_c) - h)
    run = integrate(look, u[None], x, dt=dt)
    assert_close(run.xs.reader.c[0], after_c)
    assert_close(run.xs.reader.h[0], after_h)


@pytest.mark.parametrize("dt", [0.5, 1.0])
def test_an_empty_source_leaves_nothing_to_look_at(generator, dt):
    net, us = AttentiveEncoderDecoder.example(), draw(generator, 5, 4, 2)
    words, lengths = spoken(generator, net)[1], torch.tensor([0, 2, 5, 1])
    run = net(us, words, dt=dt, lengths=lengths)
    assert bool((net.decoder.weights(run.xs)[:, 0] == 0).all())
    assert bool((net.decoder.context(run.xs)[:, 0] == 0).all())
    said = net.encoder.readout(net.encoder.initial_state())
    start = torch.tanh(said @ net.W_start.T)
    alone = integrate(net.decoder.reader, F.pad(words[:, 0], (0, 3)), start, dt=dt)
    assert_close(run.ys[:, 0], alone.ys)
    assert_close(run.ys[:, 1], net(us[:2, 1], words[:, 1], dt=dt).ys)
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way either
        gradients = torch.autograd.grad(run.ys.square().sum(), list(net.parameters()))
    assert all(bool(torch.isfinite(g).all()) for g in gradients)


def bidirectional(generator, kind):
    """An encoder-decoder whose encoder reads both ways, with networks of different kinds and sizes."""
    encoder = Bidirectional(GRU(3, 2, generator=generator), LSTM(2, 2, generator=generator))
    if kind is SummaryEncoderDecoder:
        return SummaryEncoderDecoder(encoder, GRU(4, 4 + 6, 4, generator=generator), 6, generator=generator)
    look = Attentive(GRU(4, 4 + 5, 4, generator=generator), 5, 6, 5, generator=generator)
    return AttentiveEncoderDecoder(encoder, look, generator=generator)


both_ways = pytest.mark.parametrize("kind", [SummaryEncoderDecoder, AttentiveEncoderDecoder])


def test_a_bidirectional_encoder_is_looked_at_as_bahdanau_and_others_write(generator):
    net = bidirectional(generator, AttentiveEncoderDecoder)
    with torch.no_grad():
        net.W_start[:, :3] = 0  # theirs starts from the backward half
    us, words = draw(generator, 5, 4, 2), spoken(generator, net)[1]
    ahead = integrate(net.encoder.ahead, us, dt=1.0).ys
    back = integrate(net.encoder.back, us.flip(0), dt=1.0).ys.flip(0)
    told = net.read(us, dt=1.0)
    assert_close(told.x.memory[:, :5], torch.cat([ahead, back], -1).movedim(0, 1))
    assert_close(told.x.reader, torch.tanh(back[0] @ net.W_start[:, 3:].T))
    assert_close(net(us, words, dt=1.0).ys, integrate(net.decoder, words, told.x, dt=1.0).ys)


@both_ways
@pytest.mark.parametrize("reverse", [False, True])
def test_sequences_read_both_ways_run_as_they_would_alone(generator, kind, reverse):
    net, us = bidirectional(generator, kind), draw(generator, 5, 4, 2)
    net.reverse = reverse
    words = spoken(generator, net)[1]
    for i, n in enumerate(LENGTHS):
        us[n:, i] = torch.nan
    run = net(us, words, dt=0.5, lengths=LENGTHS, word_lengths=WORD_LENGTHS)
    for i, (n, m) in enumerate(zip(LENGTHS.tolist(), WORD_LENGTHS.tolist(), strict=True)):
        assert_close(run.ys[:m, i], net(us[:n, i], words[:m, i], dt=0.5).ys)


def test_a_source_read_both_ways_and_from_its_end_swaps_the_two_networks(generator):
    net = bidirectional(generator, SummaryEncoderDecoder)
    us = draw(generator, 5, 4, 2)
    net.encoder.back = net.encoder.ahead
    net.W_context = nn.Parameter(draw(generator, 6, 6))
    there = net.read(us, dt=0.5, lengths=LENGTHS)
    net.reverse = True
    net.W_context = nn.Parameter(net.W_context.detach().roll(3, -1))
    assert_close(net.read(us, dt=0.5, lengths=LENGTHS).context, there.context)


@both_ways
def test_what_reads_both_ways_is_saved_and_loaded_bit_for_bit(tmp_path, generator, kind):
    net, us = bidirectional(generator, kind), draw(generator, 5, 4, 2)
    words = spoken(generator, net)[1]
    net.save(tmp_path / "net")
    assert torch.equal(EncoderDecoder.load(tmp_path / "net")(us, words, dt=0.5).ys, net(us, words, dt=0.5).ys)


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
    with pytest.raises(TypeError, match=r"decoder must be a Model, got a Bidirectional.*an encoder may also be"):
        EncoderDecoder(GRU(3, 2), Bidirectional.example())
    for encoder, decoder in ((GRU(3, 2), GRU(4, 2)), (GRU(3, 2), LSTM(3, 2)), (Bidirectional.example(), GRU(3, 2))):
        with pytest.raises(ValueError, match=r"states of one form.*or a SummaryEncoderDecoder"):
            EncoderDecoder(encoder, decoder)
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
def test_words_that_do_not_go_with_the_source_are_refused(generator, kind):
    net, us = kind.example(), draw(generator, 5, 3, 2)
    words = draw(generator, 4, 3, net.n_word)
    for wrong in (words[:, :2], words[:, 0], words[..., :-1], words[:0], words.argmax(-1), words[0, 0]):
        shape = ", ".join(map(str, wrong.shape))
        with pytest.raises(ValueError, match=rf"\(step, 3, 4\) with at least one step, got \({shape},?\).*\(5, 3, 2\)"):
            net(us, wrong, dt=1.0)
    with pytest.raises(ValueError, match=r"\(step, 4\) with at least one step, got \(4, 3, 4\)"):
        net(us[:, 0], words, dt=1.0)
    with pytest.raises(TypeError, match="lengths counts samples and must be an integer Tensor"):
        net(us, words, dt=1.0, lengths=torch.tensor([1.5, 2, 3]))
    told = net.read(us, dt=1.0)
    with pytest.raises(ValueError, match=r"batch shape \(3,\) of what the decoder was told, got \(2,\)"):
        net.say(told, torch.tensor([0, 1]), dt=1.0)
    for wrong in ([0, 1, 4], [-1, 0, 1]):
        with pytest.raises(ValueError, match=rf"hears words 0 to 3, got {min(wrong)} to {max(wrong)}"):
            net.say(told, torch.tensor(wrong), dt=1.0)
    with pytest.raises(TypeError, match=r"must be integers, got torch\.float64"):
        net.say(told, torch.zeros(3), dt=1.0)


def test_items_that_do_not_go_into_the_memory_are_refused():
    look = Attentive.example()
    reader = look.reader.initial_state(2)
    for items, present in (((2, 3, 5), (2, 3)), ((2, 3, 2), (2, 2)), ((2,), ())):
        with pytest.raises(ValueError, match=r"\(\*batch, item, 2\) and present \(\*batch, item\), got"):
            look.remember(reader, torch.zeros(items), torch.ones(present))


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
