from collections import defaultdict
from itertools import pairwise, product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrnn.decoding import best_path, collapse, markov_chain, prefix_search, viterbi


def posteriors(seed, n_time, n_labels, sharp=1.0):
    scores = sharp * torch.randn(n_time, n_labels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return scores.log_softmax(-1)


def says(path):
    """What a path says (Graves et al. 2006, section 3.1): repeats are merged, then blanks go."""
    return tuple(k for i, k in enumerate(path) if k != 0 and (i == 0 or k != path[i - 1]))


def by_enumeration(table):
    """Probability of every labelling: the sum over all its paths."""
    total = defaultdict(float)
    for path in product(range(table.shape[1]), repeat=len(table)):
        total[says(path)] += float(table[range(len(table)), path].sum().exp())
    return total


def log_probability(table, labels):
    loss = F.ctc_loss(
        table.unsqueeze(1),
        torch.tensor([labels], dtype=torch.long).reshape(1, -1),
        torch.tensor([len(table)]),
        torch.tensor([len(labels)]),
        reduction="none",
    )
    return -float(loss[0])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6), n_time=st.integers(1, 6), n_labels=st.integers(2, 4), sharp=st.sampled_from([0.3, 2])
)
def test_prefix_search_finds_the_likeliest_of_all_labellings(seed, n_time, n_labels, sharp):
    table = posteriors(seed, n_time, n_labels, sharp)
    total = by_enumeration(table)
    found = prefix_search(table, section=None)
    assert total[found.labels] == pytest.approx(max(total.values()), rel=1e-12)
    assert found.log_probability == pytest.approx(log_probability(table, found.labels), abs=1e-10)


def test_the_probabilities_of_torchs_loss_are_sums_over_paths():
    table = posteriors(3, 5, 3)
    for labels, probability in by_enumeration(table).items():
        assert log_probability(table, labels) == pytest.approx(torch.tensor(probability).log().item(), abs=1e-10)


def test_the_best_path_need_not_be_the_best_labelling():
    # Graves et al. (2006), figure 2: two samples, blank 0.7 and 0.6; 'a' has 0.58 in all, the best path says nothing.
    table = torch.tensor([[0.7, 0.3], [0.6, 0.4]], dtype=torch.float64).log()
    assert best_path(table.unsqueeze(1)).tolist() == [[]]
    found = prefix_search(table, section=None)
    assert found.labels == (1,)
    assert found.log_probability == pytest.approx(torch.tensor(0.58).log().item(), abs=1e-7)


def test_best_path_reads_each_sequence_up_to_its_length():
    table = F.one_hot(torch.tensor([[1, 1, 0, 2], [2, 0, 2, 1]]).T, 3).double().clamp_min(1e-9).log()
    assert best_path(table).tolist() == [[1, 2, -1], [2, 2, 1]]
    assert best_path(table, lengths=torch.tensor([2, 0])).tolist() == [[1], [-1]]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), n_time=st.integers(1, 8), blank=st.integers(0, 2))
def test_collapsing_merges_repetitions_and_then_drops_blanks(seed, n_time, blank):
    draw = torch.Generator().manual_seed(seed)
    path = torch.randint(3, (n_time, 4), generator=draw)
    lengths = torch.randint(n_time + 1, (4,), generator=draw)
    found = collapse(path, lengths, blank)
    for row, length in enumerate(lengths.tolist()):
        said = path[:length, row].tolist()
        expected = [k for i, k in enumerate(said) if k != blank and (i == 0 or k != said[i - 1])]
        assert found[row].tolist() == expected + [-1] * (found.shape[1] - len(expected))
    assert torch.equal(found, best_path(F.one_hot(path, 3), lengths, blank))


def test_long_sequences_do_not_underflow_and_certain_blanks_cut_them():
    table = posteriors(0, 300, 5, sharp=8.0)
    table[::5] = torch.tensor([1 - 4e-6, 1e-6, 1e-6, 1e-6, 1e-6], dtype=torch.float64).log()
    found = prefix_search(table)
    assert len(found.labels) > 100
    whole = log_probability(table, found.labels)
    assert found.log_probability <= whole + 1e-9
    assert whole - found.log_probability < 1.0


def test_no_labelling_found_otherwise_is_likelier_than_the_exact_one():
    for seed in range(10):
        table = posteriors(seed, 14, 5, sharp=3.0)
        table[::5] = torch.tensor([1 - 4e-6, 1e-6, 1e-6, 1e-6, 1e-6], dtype=torch.float64).log()
        exact = prefix_search(table, section=None).log_probability
        for other in (tuple(best_path(table.unsqueeze(1))[0].tolist()), prefix_search(table).labels):
            assert log_probability(table, other) <= exact + 1e-12


def test_zero_probabilities_are_no_trouble():
    table = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64).log()
    found = prefix_search(table, section=None)
    assert found.labels == (1, 2)
    assert found.log_probability == pytest.approx(0.0, abs=1e-12)


def test_a_search_without_end_says_so():
    with pytest.raises(RuntimeError, match="best_path"):
        prefix_search(posteriors(0, 60, 12, sharp=0.1), section=None, most=5)


def test_wrong_tables_are_refused_with_the_reason():
    table = posteriors(0, 4, 3)
    for wrong, total in ((table - 1, "0.3679"), (table.where(table < table[2].max(), torch.nan), "nan")):
        with pytest.raises(ValueError, match=rf"add up to {total}, not to 1.*apply log_softmax"):
            prefix_search(wrong)
    with pytest.raises(ValueError, match=r"at sample 2 add up to 1\.001"):
        prefix_search(table + torch.tensor([0, 0, 1e-3, 0])[:, None])
    with pytest.raises(TypeError, match=r"floating-point, got torch\.int64: apply log_softmax"):
        prefix_search(torch.zeros(4, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="time, label"):
        prefix_search(table.unsqueeze(1))
    with pytest.raises(ValueError, match="blank = 3"):
        prefix_search(table, blank=3)


def test_options_of_a_search_that_mean_nothing_are_refused():
    for section in (0, -0.5, 1.5, torch.nan):
        with pytest.raises(ValueError, match=rf"section = {section} is a probability above 0 and at most 1"):
            prefix_search(posteriors(0, 4, 3), section=section)
    with pytest.raises(ValueError, match="most = 0: give at least 1"):
        prefix_search(posteriors(0, 4, 3), most=0)
    with pytest.raises(TypeError, match=r"most must be an int, got 10\.0"):
        prefix_search(posteriors(0, 4, 3), most=10.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_rounding_took_from_the_probabilities_is_given_back(dtype):
    table = posteriors(1, 6, 4).to(dtype)
    assert float((table.double().logsumexp(-1)).abs().max()) > 1e-9
    total = by_enumeration(table.double().log_softmax(-1))
    found = prefix_search(table, section=None)
    assert total[found.labels] == pytest.approx(max(total.values()), rel=1e-12)
    assert found.log_probability == pytest.approx(torch.tensor(total[found.labels]).log().item(), abs=1e-12)


def test_where_there_is_no_sample_nothing_is_said():
    scores = torch.zeros(5, 2, 3)
    for empty, strings in ((scores[:0], 2), (scores[:, :0], 0)):
        assert best_path(empty).shape == collapse(empty.argmax(-1)).shape == (strings, 0)
    assert prefix_search(scores[:0, 0]) == ((), 0.0)
    assert viterbi(scores[:0], torch.zeros(3, 3)).shape == (0, 2)
    assert viterbi(scores[:, :0], torch.zeros(3, 3)).shape == (5, 0)
    scores[:, 0] = torch.nan
    assert viterbi(scores, torch.eye(3), lengths=torch.tensor([0, 2])).T.tolist() == [[-1] * 5, [0, 0, -1, -1, -1]]


def test_scores_without_a_highest_one_are_refused_unless_they_are_padding():
    for wrong in (torch.tensor([0.0, torch.nan, 0]), torch.full((3,), -torch.inf)):
        scores = F.one_hot(torch.tensor([[1, 1], [0, 2], [2, 2]]), 3).double()
        scores[1:, 0] = wrong
        with pytest.raises(ValueError, match=r"\(time, batch\) = \(1, 0\) have no highest one"):
            best_path(scores)
        assert best_path(scores, torch.tensor([1, 3])).tolist() == [[1, -1], [1, 2]]


@pytest.mark.parametrize("decode", [best_path, lambda scores, *rest: collapse(scores.argmax(-1), *rest)])
def test_lengths_count_the_samples_that_there_are(decode):
    scores = torch.zeros(5, 2, 3)
    with pytest.raises(TypeError, match=r"lengths must be integers, got torch\.float64"):
        decode(scores, torch.tensor([1.5, 2]))
    for lengths in ([6, 1], [-1, 5]):
        with pytest.raises(ValueError, match="between 0 and the 5 samples"):
            decode(scores, torch.tensor(lengths))
    with pytest.raises(ValueError, match=r"batch shape \(2,\), got \(1,\)"):
        decode(scores, torch.tensor([3]))


def test_what_is_no_path_of_labels_is_refused():
    for blank in (9, -1):
        with pytest.raises(ValueError, match=f"blank = {blank}, but there are labels 0 to 3"):
            best_path(torch.zeros(5, 2, 4), blank=blank)
    with pytest.raises(TypeError, match=r"blank must be an int, got 1\.0"):
        best_path(torch.zeros(5, 2, 4), blank=1.0)
    with pytest.raises(ValueError, match="but there are no labels"):
        best_path(torch.zeros(5, 2, 0))
    with pytest.raises(ValueError, match=r"\(time, batch, label\), got \(5, 4\): for one sequence, give a batch"):
        best_path(torch.zeros(5, 4))
    with pytest.raises(ValueError, match=r"\(time, batch\), got \(5,\)"):
        collapse(torch.zeros(5, dtype=torch.long))
    for dtype in (torch.float32, torch.bool):
        with pytest.raises(TypeError, match=f"the labels of path must be integers, got {dtype}"):
            collapse(torch.ones(5, 2, dtype=dtype))
    with pytest.raises(ValueError, match=r"path holds -1 at \(time, batch\) = \(1, 0\).*give the lengths"):
        collapse(torch.tensor([[1, 1], [-1, 2]]))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), n_time=st.integers(1, 5), n=st.integers(1, 4))
def test_viterbi_finds_the_best_of_all_paths(seed, n_time, n):
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(n_time, 2, n, dtype=torch.float64, generator=draw)
    transitions, initial = (torch.randn(*s, dtype=torch.float64, generator=draw) for s in ((n, n), (n,)))
    found = viterbi(scores, transitions, initial)
    for row in range(2):

        def score(path, row=row):
            moves = sum(float(transitions[b, a]) for a, b in pairwise(path))
            return float(initial[path[0]]) + sum(float(scores[t, row, s]) for t, s in enumerate(path)) + moves

        best = max(product(range(n), repeat=n_time), key=score)
        assert tuple(found[:, row].tolist()) == best


def test_a_forbidden_transition_is_not_taken():
    scores = torch.tensor([[1.0, 0], [0, 1.0], [1.0, 0]])
    never = torch.tensor([[0, -torch.inf], [0, 0]])  # from state 1 back to state 0
    assert viterbi(scores, torch.zeros(2, 2)).tolist() == [0, 1, 0]
    assert viterbi(scores, never).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="every path has the score -inf"):
        viterbi(scores, torch.full((2, 2), -torch.inf))


def test_what_has_no_path_is_refused_with_the_culprit():
    scores = torch.zeros(3, 2, 2, 2)
    with pytest.raises(ValueError, match=r"need transitions \(2, 2\).*got \(3, 3\)"):
        viterbi(scores, torch.zeros(3, 3))
    for wrong in (torch.zeros(2), torch.zeros(()), torch.zeros(3, 2, 0)):
        with pytest.raises(ValueError, match=r"\(time, \*batch, state\) with at least one state"):
            viterbi(wrong, torch.zeros(2, 2))
    with pytest.raises(TypeError, match="lengths must be integers"):
        viterbi(scores, torch.zeros(2, 2), lengths=torch.full((2, 2), 2.5))
    with pytest.raises(ValueError, match="between 0 and the 3 samples, got 4 to 4"):
        viterbi(scores, torch.zeros(2, 2), lengths=torch.full((2, 2), 4))
    with pytest.raises(ValueError, match=r"batch shape \(2, 2\), got \(2,\)"):
        viterbi(scores, torch.zeros(2, 2), lengths=torch.tensor([1, 2]))
    scores[1, 1, 0, 1] = torch.nan
    with pytest.raises(ValueError, match="every path of sequence 1, 0 has the score -inf, or one is NaN"):
        viterbi(scores, torch.zeros(2, 2))


def test_viterbi_reads_each_sequence_up_to_its_length():
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(7, 2, 3, 4, generator=draw)
    transitions, initial = torch.randn(4, 4, generator=draw), torch.randn(4, generator=draw)
    lengths = torch.tensor([[7, 1, 3], [2, 6, 5]])
    padded = scores.where(torch.arange(7)[:, None, None, None] < lengths[..., None], torch.nan)
    found = viterbi(padded, transitions, initial, lengths)
    for i, j in product(range(2), range(3)):
        n = int(lengths[i, j])
        assert torch.equal(found[:n, i, j], viterbi(scores[:n, i, j], transitions, initial))
        assert bool((found[n:, i, j] == -1).all())


def test_a_markov_chain_is_counted_from_aligned_labels():
    labels = torch.tensor([[0, 0, 1, 1, 1, 0], [2, 2, 0, -1, -1, -1]]).T
    chain = markov_chain(labels, 3, smoothing=0.0)
    close = lambda a, b: torch.testing.assert_close(a.exp(), torch.tensor(b))
    close(chain.log_priors, [4 / 9, 3 / 9, 2 / 9])
    close(chain.log_initial, [1 / 2, 0, 1 / 2])
    close(chain.log_transitions, [[1 / 2, 1 / 3, 1 / 2], [1 / 2, 2 / 3, 0], [0, 0, 1 / 2]])
    smooth = markov_chain(labels, 4)
    close(smooth.log_priors, [5 / 13, 4 / 13, 3 / 13, 1 / 13])
    close(smooth.log_initial, [2 / 6, 1 / 6, 2 / 6, 1 / 6])
    close(smooth.log_transitions.logsumexp(0), [1.0] * 4)
    assert bool(smooth.log_transitions.isfinite().all())


def test_a_counted_chain_is_the_one_that_was_drawn_from():
    transitions, draw = torch.tensor([[0.8, 0.1, 0.3], [0.2, 0.6, 0.0], [0.0, 0.3, 0.7]]), torch.Generator()
    states = [torch.zeros(2000, dtype=torch.long)]
    for _ in range(50):
        states.append(torch.multinomial(transitions.T[states[-1]], 1, generator=draw.manual_seed(len(states)))[:, 0])
    chain = markov_chain(torch.stack(states), 3)
    torch.testing.assert_close(chain.log_transitions.exp(), transitions, rtol=0, atol=0.01)
    assert bool((chain.log_initial.argmax() == 0).all())


def test_durations_overrule_a_single_sample_and_priors_favour_the_rare():
    labels = torch.tensor([0] * 60 + [1] * 12 + [0] * 12 + [1] * 12)[:, None]
    chain = markov_chain(labels, 2)
    posteriors = torch.tensor([[0.9, 0.1]] * 4 + [[0.4, 0.6]] + [[0.9, 0.1]] * 4).log()
    assert posteriors.argmax(-1).tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    heard = posteriors - chain.log_priors
    assert viterbi(heard, chain.log_transitions, chain.log_initial).tolist() == [0] * 9
    unsure = torch.tensor([[0.6, 0.4]] * 9).log()
    path = viterbi(unsure - chain.log_priors, chain.log_transitions, chain.log_initial)
    assert path.tolist()[1:] == [1] * 8
    assert unsure.argmax(-1).tolist() == [0] * 9


def test_small_integers_count_as_large_ones_do():
    labels = torch.tensor([[15, 3, 15, 15], [0, 15, 15, 3]]).T  # the second says less, and is padded with -1
    for dtype in (torch.int8, torch.uint8):
        for small, large in zip(markov_chain(labels.to(dtype), 16), markov_chain(labels, 16), strict=True):
            assert torch.equal(small, large)
        assert collapse(labels.to(dtype)).tolist() == collapse(labels).tolist() == [[15, 3, 15], [15, 3, -1]]


def test_labels_that_give_no_chain_are_refused():
    with pytest.raises(ValueError, match=r"\(time, batch\), got \(2,\): for one sequence, give a batch of one"):
        markov_chain(torch.tensor([0, 1]), 2)
    with pytest.raises(TypeError, match=r"labels must be integers, got torch\.float64"):
        markov_chain(torch.tensor([[0.0], [1.0]]), 2)
    with pytest.raises(TypeError, match=r"n_states must be an int, got 1\.5"):
        markov_chain(torch.tensor([[0], [1]]), 1.5)
    with pytest.raises(ValueError, match="n_states = 0: give at least 1"):
        markov_chain(torch.tensor([[0], [1]]), 0)
    with pytest.raises(ValueError, match="no sequence to count in"):
        markov_chain(torch.zeros(3, 0, dtype=torch.long), 2)
    with pytest.raises(ValueError, match="first sample: leave empty"):
        markov_chain(torch.zeros(0, 3, dtype=torch.long), 2)
    with pytest.raises(ValueError, match="states 0 to 1"):
        markov_chain(torch.tensor([[0], [2]]), 2)
    with pytest.raises(ValueError, match="first sample"):
        markov_chain(torch.tensor([[0, -1], [1, -1]]), 2)
    with pytest.raises(ValueError, match="only at a sequence's end"):
        markov_chain(torch.tensor([[0], [-1], [1]]), 2)
    with pytest.raises(ValueError, match="state 1 is never followed"):
        markov_chain(torch.tensor([[0], [0], [1]]), 2, smoothing=0.0)
    with pytest.raises(ValueError, match=r"smoothing = -1\.0"):
        markov_chain(torch.tensor([[0], [0], [1]]), 2, smoothing=-1.0)
