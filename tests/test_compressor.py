"""The neural history compressor: nothing is lost, and what is foreseen is not passed up."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrnn import GRU, LSTM, Elman
from ctrnn.learning import Code, HistoryCompressor, Predictor, chunker_states, imitation

SYMBOLS, GAPS = 3, 4


def predictor(sizes, seed=0, *, kind=Elman, confidence=0.0, dt=1.0, further=0):
    n = sum(sizes)
    model = kind(5, n, n + further, generator=torch.Generator().manual_seed(seed))
    return Predictor(model, sizes, confidence=confidence, dt=dt)


def stack(levels, seed, kind=Elman, confidence=0.0):
    sizes = [(SYMBOLS, *[GAPS] * level) for level in range(levels)]
    return HistoryCompressor([predictor(s, seed + i, kind=kind, confidence=confidence) for i, s in enumerate(sizes)])


def stream(symbols):
    return torch.tensor(symbols, dtype=torch.int64).reshape(-1, 1)


@settings(max_examples=40, deadline=None)
@given(
    symbols=st.lists(st.integers(0, SYMBOLS - 1), max_size=14),
    levels=st.integers(1, 3),
    seed=st.integers(0, 99),
    confidence=st.sampled_from([0.0, 0.36, 1.0]),
    kind=st.sampled_from([Elman, GRU, LSTM]),
)
def test_the_stream_is_rebuilt_exactly_whatever_the_predictors_are(symbols, levels, seed, confidence, kind):
    net, events = stack(levels, seed, kind, confidence), stream(symbols)
    codes = net.compress(events)
    assert torch.equal(net.decompress(codes[-1], [code.length for code in codes]), events)


@settings(max_examples=40, deadline=None)
@given(
    symbols=st.lists(st.integers(0, SYMBOLS - 1), min_size=1, max_size=10),
    levels=st.integers(1, 3),
    seed=st.integers(0, 99),
    confidence=st.sampled_from([0.0, 0.36, 1.0]),
    errors=st.lists(st.integers(-2, 3), min_size=3, max_size=3),
)
def test_what_is_rebuilt_has_the_code_and_the_lengths_that_were_given(symbols, levels, seed, confidence, errors):
    net = stack(levels, seed, confidence=confidence)
    codes = net.compress(stream(symbols))
    lengths = [code.length + error for code, error in zip(codes, errors, strict=False)]
    top = codes[-1]._replace(length=lengths[-1])
    try:
        found = net.compress(net.decompress(top, lengths))
    except ValueError:
        assert any(errors[:levels])
    else:
        assert [code.length for code in found] == lengths
        assert all(torch.equal(a, b) for a, b in zip(found[-1][:2], top[:2], strict=True))


@settings(max_examples=25, deadline=None)
@given(symbols=st.lists(st.integers(0, SYMBOLS - 1), max_size=14), seed=st.integers(0, 99))
def test_every_event_is_either_foreseen_or_a_surprise_at_its_time(symbols, seed):
    level, events = predictor((SYMBOLS,), seed), stream(symbols)
    code = level.compress(events)
    foreseen, _ = level.foreseen(level(events))
    wrong = (foreseen != events).any(-1).nonzero()[:, 0]
    assert torch.equal(code.times, wrong)
    assert torch.equal(code.surprises, events[wrong])
    assert code.length == len(events)


def test_a_level_too_proud_to_foresee_passes_everything_up():
    events = stream([0, 2, 1, 1])
    code = predictor((SYMBOLS,), confidence=1.0).compress(events)
    assert torch.equal(code.surprises, events)
    assert code.times.tolist() == [0, 1, 2, 3]
    assert code.events[:, 1].tolist() == [1, 1, 1, 1]


def test_the_next_level_sees_surprises_and_the_time_between_them():
    code = Code(stream([2, 0, 1]), torch.tensor([0, 4, 5]), 9)
    assert code.events.tolist() == [[2, 1], [0, 4], [1, 1]]


def test_numbers_beyond_the_sizes_are_surprises_and_survive():
    level, events = predictor((SYMBOLS,)), stream([1, 700, 0, 3])
    code = level.compress(events)
    assert {1, 3} <= set(code.times.tolist())
    assert torch.equal(level.decompress(code), events)


def trained(level, events, updates):
    optimiser = torch.optim.Adam(level.parameters(), lr=0.05)
    for _ in range(updates):
        optimiser.zero_grad()
        level.loss(level(events), events).backward()
        optimiser.step()
    return level


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_what_has_been_learned_is_passed_up_no_more(dt):
    level, events = predictor((SYMBOLS,), dt=dt), stream([0, 1, 2] * 6)
    before, after = level.compress(events), trained(level, events, 120).compress(events)
    assert len(before.times) > 6
    assert len(after.times) == 0
    assert torch.equal(level.decompress(after), events)


def test_a_higher_level_foresees_what_no_symbol_below_gives_away():
    """Period 7: a level that knows its last symbol only cannot, one that sees surprises side by side can."""
    below, events = stack(1, 0).levels[0], stream([0, 0, 0, 1, 0, 0, 2] * 5)
    with torch.no_grad():
        for parameter in below.model.parameters():
            parameter.zero_()
        below.model.b_out[0] = 1  # always foresees a 0
    code = below.compress(events)
    assert len(code.times) == 10
    above = trained(predictor((SYMBOLS, GAPS + 1), 1), code.events, 120)
    net = HistoryCompressor([below, above])
    codes = net.compress(events)
    assert [len(c.times) for c in codes] == [10, 0]
    assert torch.equal(net.decompress(codes[-1], [35, 10]), events)


@pytest.mark.parametrize("kind", [Elman, LSTM])
def test_the_chunker_moves_at_surprises_only(kind):
    chunker = predictor((SYMBOLS, GAPS), kind=kind)
    code = Code(stream([2, 0]), torch.tensor([1, 4]), 6)
    states = chunker_states(chunker, code)
    same = (states[1:] == states[:-1]).all(-1)
    assert same.tolist() == [False, True, True, False, True]
    assert torch.equal(states[0], torch.zeros(5))


def test_the_chunkers_units_rest_where_nothing_surprised():
    nothing = Code(stream([]), torch.zeros(0, dtype=torch.int64), 3)
    assert torch.equal(chunker_states(predictor((SYMBOLS, GAPS)), nothing), torch.zeros(3, 5))


def test_imitation_compares_what_is_said_after_an_event_with_the_units_after_it():
    level, events = predictor((SYMBOLS,), further=5), stream([0, 2, 1, 1])
    ys = level(events).detach()
    states = torch.cat([ys[1:, SYMBOLS:], torch.full((1, 5), 9.0)])
    assert imitation(level, ys, states) == 0
    assert imitation(level, ys, states + 2) == pytest.approx(4)


def test_the_loss_is_the_mean_surprise_of_an_event():
    level, events = predictor((SYMBOLS, GAPS)), torch.tensor([[0, 1], [2, 3], [1, 1]])
    ys = level(events)
    p = [part.softmax(-1) for part in ys.split((SYMBOLS, GAPS), -1)]
    by_hand = -sum((p[0][k, s] * p[1][k, g]).log() for k, (s, g) in enumerate(events.tolist())) / 3
    torch.testing.assert_close(level.loss(ys, events), by_hand)


def test_a_code_that_no_stream_has_is_refused():
    events = stream([0, 2, 1, 1, 0, 2])
    level = predictor((SYMBOLS,), confidence=1.0)
    code = level.compress(events)
    with pytest.raises(ValueError, match="less than the length, 5"):
        level.decompress(code._replace(length=5))
    with pytest.raises(ValueError, match="event 6 is not among the surprises"):
        level.decompress(code._replace(length=7))
    with pytest.raises(ValueError, match="need as many times"):
        level.decompress(code._replace(times=code.times[:-1]))
    with pytest.raises(ValueError, match="times that increase"):
        level.decompress(code._replace(times=code.times.flip(0)))
    with pytest.raises(ValueError, match="at least 0"):
        level.decompress(Code(stream([]), torch.zeros(0, dtype=torch.int64), -1))
    foreseen, _ = level.foreseen(level(events)[0])
    with pytest.raises(ValueError, match="event 0 is among the surprises"):
        predictor((SYMBOLS,)).decompress(Code(foreseen[None], torch.tensor([0]), 3))
    net = stack(2, 0)
    *_, top = net.compress(events)
    with pytest.raises(ValueError, match="the last one that of the highest"):
        net.decompress(top, [6, top.length + 1])


@pytest.mark.parametrize("learn_tau", [False, True])
def test_a_compressor_in_a_file_is_the_same_compressor(tmp_path, learn_tau):
    net, events = stack(2, 0, GRU, 0.36), stream([0, 2, 1, 1, 0, 2])
    if learn_tau:
        net.levels[1].model.learn_tau()
    net.save(tmp_path / "net")
    again = HistoryCompressor.load(tmp_path / "net")
    for name, tensor in net.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    codes = again.compress(events)
    assert torch.equal(net.decompress(codes[-1], [code.length for code in codes]), events)
    level = predictor((SYMBOLS, GAPS), confidence=0.25, dt=0.5)
    level.save(tmp_path / "level")
    twin = Predictor.load(tmp_path / "level")
    assert twin.config == level.config
    assert torch.equal(twin(torch.ones(3, 2).long()), level(torch.ones(3, 2).long()))


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="3 inputs"):
        Predictor(Elman(2, 2, 3), (3,))
    with pytest.raises(ValueError, match="outputs"):
        Predictor(Elman(2, 3, 2), (3,))
    with pytest.raises(ValueError, match=r"one field \(a time\) more"):
        HistoryCompressor([predictor((3,)), predictor((3,))])
    with pytest.raises(ValueError, match=r"events of the shape \(4, 2\)"):
        predictor((3,)).compress(torch.zeros(4, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match="model must be a Model, got a RNN"):
        Predictor(torch.nn.RNN(3, 3), (3,))
    with pytest.raises(TypeError, match="a level must be a Predictor, got a Elman"):
        HistoryCompressor([Elman(2, 3, 3)])
    for dt in (-4.0, 0.0, torch.nan, 4.0):  # tau is 1
        with pytest.raises(ValueError, match="dt"):
            predictor((3,), dt=dt)
    for confidence in (torch.nan, 2.0, -0.1):
        with pytest.raises(ValueError, match="confidence ="):
            predictor((3,), confidence=confidence)
    for sizes, problem in (([3.0], TypeError), ([3, 0], ValueError), ([], ValueError)):
        with pytest.raises(problem, match="size"):
            Predictor(Elman(2, 3, 3), sizes)
    for bad in (torch.zeros(4, 1, dtype=torch.int32), torch.zeros(4, 1), [[0]]):
        for use in (predictor((3,)).compress, predictor((3,)), stack(2, 0).compress):
            with pytest.raises(TypeError, match=r"events must be a Tensor of torch.int64"):
                use(bad)
    for bad in (torch.zeros(4, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)):
        for use in (predictor((3,)).compress, predictor((3,)), stack(2, 0).compress):
            with pytest.raises(ValueError, match="do not fit a predictor of 1 fields"):
                use(bad)
    with pytest.raises(ValueError, match="one stream is compressed at a time"):
        predictor((3,)).compress(torch.zeros(4, 2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="as many lengths"):
        stack(2, 0).decompress(Code(stream([]), torch.zeros(0, dtype=torch.int64), 3), [1])
    with pytest.raises(ValueError, match="give it as many"):
        imitation(predictor((3,)), torch.zeros(2, 3), torch.zeros(2, 5))
