from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from ctrnn import AttentiveEncoderDecoder, EncoderDecoder, SummaryEncoderDecoder
from ctrnn.decoding import beam_search, greedy

BEGIN, END, LENGTHS = 0, 1, torch.tensor([4, 2, 1])
every_kind = pytest.mark.parametrize("kind", [EncoderDecoder, SummaryEncoderDecoder, AttentiveEncoderDecoder])


def asked(kind, seed, sharp=3.0):
    """A network that is sure of itself, what it was told about three sources, and its `say`."""
    net, generator = kind.example(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(sharp)
    us = torch.randn(4, 3, 2, generator=generator)
    return net, us, net.read(us, dt=1.0, lengths=LENGTHS), partial(net.say, dt=1.0)


def log_probability(net, us, sentence, longest):
    """Of one sentence behind each source (batch,), by teacher forcing."""
    target = [*sentence, END] if len(sentence) < longest else list(sentence)
    heard = torch.tensor([BEGIN, *target[:-1]])[:, None].expand(-1, us.shape[1])
    run = net(us, F.one_hot(heard, net.n_word).to(us.dtype), dt=1.0, lengths=LENGTHS)
    scores = run.ys.log_softmax(-1)
    return sum(scores[k, :, word] for k, word in enumerate(target))


def sentences(n_word, longest):
    """Every sentence of at most so many words."""
    words = [word for word in range(n_word) if word != END]
    return [one for length in range(longest + 1) for one in product(words, repeat=length)]


def unpadded(words):
    return tuple(word for word in words.tolist() if word >= 0)


@every_kind
@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_a_beam_of_width_one_is_greedy(kind, seed):
    _, _, told, say = asked(kind, seed)
    one, free = (
        beam_search(say, told, begin=BEGIN, end=END, width=1, longest=6),
        greedy(say, told, begin=BEGIN, end=END, longest=6),
    )
    assert torch.equal(one.words, free.words)
    torch.testing.assert_close(one.log_probability, free.log_probability, rtol=1e-12, atol=1e-12)


@every_kind
@torch.no_grad()
def test_a_beam_as_wide_as_there_are_beginnings_finds_what_brute_force_finds(kind):
    longest = 3
    for seed in range(3):
        net, us, told, say = asked(kind, seed)
        found = beam_search(say, told, begin=BEGIN, end=END, width=64, longest=longest)
        every = sentences(net.n_word, longest)
        scores = torch.stack([log_probability(net, us, one, longest) for one in every])
        for row in range(3):
            order = scores[:, row].argsort(descending=True).tolist()
            possible = found.log_probability[row] > -torch.inf
            assert int(possible.sum()) == len(every) == 40
            assert [unpadded(words) for words in found.words[row][possible]] == [every[k] for k in order]
            torch.testing.assert_close(found.log_probability[row][possible], scores[order, row], rtol=1e-12, atol=1e-12)
        assert float(scores.exp().sum(0).max()) == pytest.approx(1, abs=1e-12)


@torch.no_grad()
def test_a_beam_finds_what_greedy_misses():
    # 'a' is likelier than 'b' at first (0.6), but nothing behind it is likelier than 0.5; behind 'b' comes the end.
    a, b = 2, 3
    behind = torch.tensor([[0, 0, 0.6, 0.4], [0.25] * 4, [0.0, 0.5, 0.25, 0.25], [0.0, 1.0, 0, 0]]).log()

    def say(state, words):
        return behind[words], state

    state = torch.zeros(1, 1)
    assert greedy(say, state, begin=BEGIN, end=END, longest=4).words.tolist() == [[[a, -1]]]
    found = beam_search(say, state, begin=BEGIN, end=END, width=2, longest=4)
    assert unpadded(found.words[0, 0]) == (b,)
    assert float(found.log_probability[0, 0].exp()) == pytest.approx(0.4)


@torch.no_grad()
def test_sentences_of_a_batch_do_not_disturb_one_another():
    net, us, told, say = asked(AttentiveEncoderDecoder, 5)
    together = beam_search(say, told, begin=BEGIN, end=END, width=3, longest=5)
    for i, n in enumerate(LENGTHS.tolist()):
        alone = beam_search(say, net.read(us[:n, i : i + 1], dt=1.0), begin=BEGIN, end=END, width=3, longest=5)
        assert [unpadded(w) for w in alone.words[0]] == [unpadded(w) for w in together.words[i]]
        torch.testing.assert_close(alone.log_probability[0], together.log_probability[i], rtol=1e-12, atol=1e-12)


def silent(state, words):
    """Says any of three words, all the same to it."""
    return torch.full((len(words), 3), 1 / 3).log(), state


SEARCHES = pytest.mark.parametrize("search", [greedy, partial(beam_search, width=2)])


@SEARCHES
@torch.no_grad()
def test_a_state_without_a_batch_axis_is_refused(search):
    for kind in (EncoderDecoder, SummaryEncoderDecoder, AttentiveEncoderDecoder):
        net, us, _, say = asked(kind, 0)
        with pytest.raises(ValueError, match=r"'context': .*one and the same batch axis: for one sequence"):
            search(say, net.read(us[:, 0], dt=1.0), begin=BEGIN, end=END, longest=3)
    with pytest.raises(ValueError, match=r"'state': \(\)"):
        search(silent, torch.zeros(()), begin=BEGIN, end=END, longest=3)


@SEARCHES
def test_a_sentence_can_end_and_has_room_for_a_word(search):
    go = partial(search, silent, torch.zeros(2, 1), begin=BEGIN)
    for end in (3, -1):
        with pytest.raises(ValueError, match=f"end = {end}, but there are labels 0 to 2"):
            go(end=end, longest=3)
    with pytest.raises(TypeError, match=r"end must be an int, got 1\.0"):
        go(end=1.0, longest=3)
    with pytest.raises(ValueError, match="longest = 0: give at least 1"):
        go(end=END, longest=0)
    with pytest.raises(TypeError, match=r"longest must be an int, got 2\.5"):
        go(end=END, longest=2.5)


@SEARCHES
def test_what_says_no_log_probabilities_is_refused(search):
    go = partial(search, state=torch.zeros(2, 1), begin=BEGIN, end=END, longest=3)
    for wrong in (torch.nan, 1.0):
        with pytest.raises(ValueError, match="apply log_softmax"):
            go(lambda state, words, wrong=wrong: (torch.full((len(words), 3), wrong), state))
    with pytest.raises(ValueError, match=r"one row for each of the . words it heard, got the shape \(3,\)"):
        go(lambda state, words: (torch.zeros(3), state))


@SEARCHES
def test_an_empty_batch_says_nothing(search):
    found = search(silent, torch.zeros(0, 4), begin=BEGIN, end=END, longest=3)
    assert len(found.words) == len(found.log_probability) == 0


@pytest.mark.parametrize(("width", "kind"), [(0, ValueError), (1.5, TypeError)])
def test_a_beam_without_a_whole_width_is_refused(width, kind):
    with pytest.raises(kind, match=r"width = 0: give at least 1|width must be an int, got 1\.5"):
        beam_search(silent, torch.zeros(1, 1), begin=BEGIN, end=END, width=width, longest=2)
