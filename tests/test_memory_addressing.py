"""Where heads look and what they do there: published values, plain references, and inputs that break others."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ctrnn.models.memory.addressing import (
    allocated,
    by_content,
    paced,
    remaining,
    sharpened,
    shifted,
    softly_allocated,
    unerased,
    written,
)
from ctrnn.models.memory.linkage import followed, linked, peaked, preceding, retraced
from ctrnn.models.memory.ntm import Focus, addressed

E4 = torch.eye(4, dtype=torch.float64)


def close(a, b, atol=1e-12):
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b, dtype=torch.float64), rtol=0, atol=atol)


def rand(generator, *shape):
    return torch.rand(shape, generator=generator)


def gradients(value, *leaves):
    return torch.autograd.grad(value.square().sum(), leaves, allow_unused=True)


def assert_same_derivatives(fast, slow, *leaves):
    """Values, and gradients of the sum of squares."""
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    a, b = fast(*leaves), slow(*leaves)
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(a, *leaves), gradients(b, *leaves), rtol=1e-10, atol=1e-11)


# --- content ----------------------------------------------------------------------------------------------------------


def cosine(a, b):
    return (a @ b) / ((a @ a + 1e-6).sqrt() * (b @ b + 1e-6).sqrt())


def slow_content(memory, keys, strengths, masks):
    """One batch, head and slot after the other."""
    rows = []
    for b in range(len(memory)):
        for h in range(keys.shape[1]):
            m = masks[b, h]
            scores = [strengths[b, h] * cosine(m * keys[b, h], m * memory[b, i]) for i in range(memory.shape[1])]
            rows.append(torch.softmax(torch.stack(scores), 0))
    return torch.stack(rows).reshape(*keys.shape[:2], -1)


def test_content_weights_are_those_of_a_plain_loop(generator):
    memory, keys, strengths = (
        torch.randn(3, 5, 4, generator=generator),
        torch.randn(3, 2, 4, generator=generator),
        3 * rand(generator, 3, 2),
    )
    ones = torch.ones_like(keys)
    assert_same_derivatives(by_content, lambda M, k, b: slow_content(M, k, b, ones), memory, keys, strengths)
    assert_same_derivatives(by_content, slow_content, memory, keys, strengths, rand(generator, 3, 2, 4))


def test_a_mask_of_ones_is_no_mask_and_a_masked_component_does_not_count(generator):
    memory, keys = torch.randn(5, 4, generator=generator), torch.randn(2, 4, generator=generator)
    strengths = torch.tensor([1.0, 5.0])
    torch.testing.assert_close(
        by_content(memory, keys, strengths, torch.ones(2, 4)), by_content(memory, keys, strengths)
    )
    mask = torch.tensor([1.0, 1, 1, 0]).expand(2, -1)
    other = memory.clone()
    other[:, 3] += 7
    torch.testing.assert_close(by_content(other, keys, strengths, mask), by_content(memory, keys, strengths, mask))


def test_deepminds_cosine_values():
    memory = torch.tensor([[1.0, 2], [3, 4], [5, 6]])
    keys = torch.tensor([[5.0, 6], [1, 2], [5, 6], [3, 4]])
    strengths = F.softplus(torch.tensor([0.0, 1, 5, 10]))
    unit = lambda x: x / x.norm(dim=-1, keepdim=True)
    close(
        by_content(memory, keys, strengths), torch.softmax(strengths[:, None] * unit(keys) @ unit(memory).T, -1), 1e-6
    )


def test_a_memory_of_zeros_has_equal_weights_and_finite_gradients():
    memory = torch.zeros(4, 3)
    memory[0] = 1  # deepmind's testDivideByZero
    for M in (memory, torch.zeros(4, 3)):
        M, keys, strengths = M.requires_grad_(), torch.zeros(1, 3).requires_grad_(), torch.ones(1).requires_grad_()
        weights = by_content(M, keys, strengths)
        close(weights, torch.full((1, 4), 0.25))
        assert all(torch.isfinite(g).all() for g in gradients(weights, M, keys, strengths))


def test_a_strength_of_zero_looks_everywhere_and_a_great_one_in_one_place():
    weights = by_content(torch.eye(3), torch.tensor([[0.0, 1, 0]] * 2), torch.tensor([0.0, 100]))
    close(weights, [[1 / 3, 1 / 3, 1 / 3], [0, 1, 0]], atol=1e-12)


# --- shift and sharpen ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_a_shift_is_the_circular_convolution_of_the_paper(generator, reach):
    weights, shifts = rand(generator, 3, 2, 6), rand(generator, 3, 2, 2 * reach + 1)

    def slow(w, s):
        moves = range(-reach, reach + 1)
        return torch.stack(
            [sum(s[..., k + reach] * w[..., (i - k) % 6] for k in moves) for i in range(6)],
            -1,
        )

    assert_same_derivatives(shifted, slow, weights, shifts)


@pytest.mark.parametrize(("shifts", "slot"), [((1, 0, 0), 1), ((0, 1, 0), 2), ((0, 0, 1), 3)])
def test_the_last_shift_moves_a_head_to_the_next_slot_and_the_first_to_the_one_before(shifts, slot):
    assert torch.equal(shifted(E4[None, 2], torch.tensor([shifts], dtype=torch.float64)), E4[None, slot])


def test_slots_lie_on_a_ring():
    assert torch.equal(shifted(E4[None, 3], torch.tensor([[0.0, 0, 1]])), E4[None, 0])
    assert torch.equal(shifted(E4[None, 0], torch.tensor([[1.0, 0, 0]])), E4[None, 3])


def test_sharpened_weights_are_powers_of_them(generator):
    weights = torch.softmax(torch.randn(3, 2, 5, generator=generator), -1)
    exponents = 1 + 5 * rand(generator, 3, 2)
    slow = lambda w, g: w ** g[..., None] / (w ** g[..., None]).sum(-1, keepdim=True)
    assert_same_derivatives(sharpened, slow, weights, exponents)


def test_sharpening_neither_underflows_nor_divides_by_zero():
    weights = torch.full((1, 128), 1 / 128, dtype=torch.float32)
    weights[0, 3] = 1.01 / 128
    assert weights.pow(1000).sum() == 0  # what is computed as it is written is 0 / 0
    close(sharpened(weights, torch.tensor([1000.0]))[0, 3].double(), 1.01**1000 / (127 + 1.01**1000), 1e-3)
    one_hot = torch.eye(4, dtype=torch.float32)[:1].requires_grad_()
    exponents = torch.ones(1, dtype=torch.float32).requires_grad_()
    out = sharpened(one_hot, exponents)
    torch.testing.assert_close(out, one_hot, rtol=0, atol=1e-37)
    assert all(torch.isfinite(g).all() for g in gradients(out, one_hot, exponents))


def focus(key, beta, g, s, gamma):
    return Focus(*(torch.tensor([part], dtype=torch.float64) for part in (key, beta, g, s, gamma)))


def test_a_head_goes_where_the_handbooks_numbers_say():
    told = focus([1.0, 0, 0, 0], 2.0, 0.5, [0.1, 0.2, 0.7], 3.0)
    content = by_content(E4, told.keys, told.strengths)
    gated = torch.lerp(E4[None, 1], content, 0.5)
    moved = shifted(gated, told.shifts)
    weights = sharpened(moved, told.exponents)
    close(content, [[0.711235, 0.096255, 0.096255, 0.096255]], 1e-6)
    close(gated, [[0.355617, 0.548128, 0.048128, 0.048128]], 1e-6)
    close(moved, [[0.159626, 0.363370, 0.398128, 0.078877]], 1e-6)
    close(weights, [[0.035171, 0.414889, 0.545696, 0.004244]], 1e-6)
    assert torch.equal(addressed(E4, E4[None, 1], told), weights)
    memory = written(E4, weights, torch.tensor([[1.0, 0.5, 0, 0]]), torch.tensor([[0.0, 0, 1, 2]]))
    expected = [
        [0.964829, 0, 0.035171, 0.070343],
        [0, 0.792555, 0.414889, 0.829779],
        [0, 0, 1.545696, 1.091391],
        [0, 0, 0.004244, 1.008487],
    ]
    close(memory, expected, 2e-6)  # the handbook's lengths have no 1e-6 under their roots
    close(weights @ memory, [[0.033934, 0.328823, 1.016868, 0.946587]], 1e-6)


def test_sharp_commands_on_an_identity_memory_give_one_slot_exactly():
    for slot in range(4):
        told = focus(E4[slot].tolist(), 100.0, 1.0, [0.0, 1.0, 0.0], 100.0)
        close(addressed(E4, torch.full((1, 4), 0.25), told), E4[None, slot], 1e-15)


def test_a_head_that_is_told_to_stay_stays(generator):
    here = torch.softmax(torch.randn(1, 4, generator=generator), -1)
    close(addressed(E4, here, focus([1.0, 2, 3, 4], 5.0, 0.0, [0.0, 1.0, 0.0], 1.0)), here, 1e-15)


@pytest.mark.parametrize("by", [1, 3])
def test_turning_the_ring_of_slots_turns_where_heads_go(generator, by):
    memory, here = torch.randn(5, 4, generator=generator), torch.softmax(torch.randn(1, 5, generator=generator), -1)
    told = focus([1.0, -1, 0.5, 2], 2.0, 0.3, [0.2, 0.3, 0.5], 1.7)
    turned = addressed(memory.roll(by, 0), here.roll(by, -1), told)
    close(turned, addressed(memory, here, told).roll(by, -1), 1e-15)


# --- writing ----------------------------------------------------------------------------------------------------------


def slow_write(memory, weights, erase, add):
    new = memory
    for h in range(weights.shape[-2]):
        new = new * (1 - weights[..., h, :, None] * erase[..., h, None, :])
    for h in range(weights.shape[-2]):
        new = new + weights[..., h, :, None] * add[..., h, None, :]
    return new


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_writing_is_that_of_a_plain_loop_over_heads(generator, heads):
    memory, weights = torch.randn(3, 5, 4, generator=generator), rand(generator, 3, heads, 5)
    erase, add = rand(generator, 3, heads, 4), torch.randn(3, heads, 4, generator=generator)
    assert_same_derivatives(written, slow_write, memory, weights, erase, add)


def test_a_sequence_of_writes_leaves_what_it_must():
    vector = lambda *x: torch.tensor([x], dtype=torch.float64)
    memory, e0 = torch.randn(4, 4), vector(1, 0, 0, 0)
    memory = written(memory, e0, vector(1, 1, 1, 1), vector(1, 0, 0, 0))
    close(e0 @ memory, vector(1, 0, 0, 0))
    memory = written(memory, e0, vector(0, 1, 1, 1), vector(0, 1, 1, 1))
    close(e0 @ memory, vector(1, 1, 1, 1))
    half = vector(0.5, 0.5, 0, 0)
    before = memory.clone()
    memory = written(memory, half, vector(1, 1, 1, 1), vector(0, 0, 0, 0))
    close(memory[:2], before[:2] / 2)
    assert torch.equal(memory[2:], before[2:])


def test_a_full_erasure_is_exact_and_untouched_slots_stay_bit_for_bit(generator):
    memory = torch.randn(4, 3, generator=generator)
    new = written(memory, E4[None, 2], torch.ones(1, 3), torch.zeros(1, 3))
    assert (new[2] == 0).all()
    assert torch.equal(new[[0, 1, 3]], memory[[0, 1, 3]])
    assert torch.equal(written(memory, E4[None, 2], torch.zeros(1, 3), torch.zeros(1, 3)), memory)


# --- allocation -------------------------------------------------------------------------------------------------------


def slow_allocation(usage):
    """One sample and slot after the other; Python's sort is stable."""
    rows = []
    for u in usage:
        order = sorted(range(len(u)), key=lambda i, u=u: float(u[i].detach()))
        free, a = torch.ones((), dtype=u.dtype), [None] * len(u)
        for i in order:
            a[i] = (1 - u[i]) * free
            free = free * u[i]
        rows.append(torch.stack(a))
    return torch.stack(rows)


def test_allocation_is_that_of_a_plain_loop_zeros_and_ones_among_the_usages(generator):
    usage = rand(generator, 4, 6)
    usage[1, ::2], usage[2], usage[3, 1] = 0, 0, 1
    assert_same_derivatives(allocated, slow_allocation, usage)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_what_is_allocated_adds_up_to_one_minus_the_product_of_usages(usage):
    u = torch.tensor(usage, dtype=torch.float64)
    a = allocated(u)
    assert (a >= 0).all()
    close(a.sum(), 1 - math.prod(usage))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8, unique=True))
def test_the_least_used_slot_gets_most_and_the_most_used_least(usage):
    u = torch.tensor(usage, dtype=torch.float64)
    a = allocated(u)
    assert a[u.argmin()] == a.max()
    assert a[u.argmax()] == a.min()


def test_of_slots_used_equally_the_first_is_allocated():
    close(allocated(torch.zeros(4)), [1, 0, 0, 0], 0)
    close(allocated(torch.full((3,), 0.5)), [0.5, 0.25, 0.125], 0)
    many = allocated(torch.zeros(1000))  # an unstable sort shows where there are many
    assert many[0] == 1


def test_the_tie_is_a_jump_for_the_sorted_allocation_and_none_for_the_soft_one():
    tied, nudged = torch.full((3,), 0.5), torch.tensor([0.5 + 1e-9, 0.5, 0.5])
    close(allocated(nudged), [0.125, 0.5, 0.25], 1e-8)
    close(softly_allocated(nudged, 2.0), softly_allocated(tied, 2.0), 1e-8)
    close(softly_allocated(tied, 2.0), [1 / 3] * 3)
    close(softly_allocated(torch.tensor([0.0, 1.0]), 2.0), np.array([np.exp(2), 1]) / (np.exp(2) + 1))


def test_what_remains_is_the_product_and_its_gradient_survives_zeros(generator):
    taken = rand(generator, 2, 3, 4)
    taken[0, 0, 0] = taken[0, 1, 0] = 1
    assert_same_derivatives(lambda t: remaining(t, -2), lambda t: (1 - t[:, 0]) * (1 - t[:, 1]) * (1 - t[:, 2]), taken)


# --- links ------------------------------------------------------------------------------------------------------------


def slow_link(link, w, p):
    new = torch.zeros_like(link)
    for i in range(link.shape[-1]):
        for j in range(link.shape[-1]):
            if i != j:
                new[..., i, j] = (1 - w[..., i] - w[..., j]) * link[..., i, j] + w[..., i] * p[..., j]
    return new


def test_links_are_those_of_a_plain_loop(generator):
    link, w, p = rand(generator, 3, 2, 4, 4), rand(generator, 3, 2, 4), rand(generator, 3, 2, 4)
    assert_same_derivatives(linked, slow_link, link, w, p)
    assert torch.equal(linked(link[0, 0][None], w[0, 0][None], p[0, 0][None])[0], linked(link, w, p)[0, 0])


def test_deepminds_temporal_linkage(generator):
    link, p = torch.zeros(3, 2, 8, 8), torch.zeros(3, 2, 8)
    some = [rand(generator, 3, 2, 8) for _ in range(5)]
    for w in [w / w.sum(-1, keepdim=True).clamp_min(1) for w in some]:
        link, p = linked(link, w, p), preceding(p, w)
    last = torch.eye(8)
    for slots in ([0, 3], [1, 2]):  # of the first and the second head
        w = last[slots].expand(3, -1, -1)
        link, p = linked(link, w, p), preceding(p, w)
        assert torch.equal(p, w)
    assert (link >= 0).all()
    assert (link <= 1).all()
    assert (link.diagonal(dim1=-2, dim2=-1) == 0).all()
    assert (link.sum(-1) <= 1 + 1e-12).all()
    assert (link.sum(-2) <= 1 + 1e-12).all()
    assert torch.equal(link[:, 0, :, 0], last[1].expand(3, -1))
    assert torch.equal(followed(link, last[None, 0].expand(3, 1, 8))[:, 0, 0], last[1].expand(3, -1))
    assert torch.equal(retraced(link, last[None, 2].expand(3, 1, 8))[:, 0, 1], last[3].expand(3, -1))


def test_readers_follow_each_writers_links(generator):
    link, w = rand(generator, 3, 2, 5, 5), rand(generator, 3, 4, 5)
    close(followed(link, w), torch.einsum("bwij,brj->brwi", link, w))
    close(retraced(link, w), torch.einsum("bwji,brj->brwi", link, w))


def test_without_writing_the_precedence_stays(generator):
    p = rand(generator, 2, 5)
    assert torch.equal(preceding(p, torch.zeros(2, 5)), p)


def test_a_peak_is_a_power_of_the_weights_over_their_greatest(generator):
    w, s = rand(generator, 3, 2, 5), 1 + 3 * rand(generator, 3, 2)

    def paper(w, s):
        p = ((w + 1e-6) / (w + 1e-6).amax(-1, keepdim=True)) ** s[..., None]
        return p / p.sum(-1, keepdim=True)

    assert_same_derivatives(peaked, paper, w, s)
    close(peaked(torch.zeros(1, 4), torch.ones(1)), torch.full((1, 4), 0.25))


# --- rates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [[1.0], [0.5, 0.5], [0.1, 0.7, 0.2], [1e-3] * 1000], ids=len)
def test_at_its_exact_rate_a_held_write_ends_where_a_whole_step_does_however_it_is_cut(generator, cut):
    x = start = torch.randn(4, 3, generator=generator)
    weights, erase, add = torch.tensor([[0.0, 0.2, 1.0, 0.999]]), torch.tensor([[1.0, 0.5, 0.0]]), torch.ones(1, 3)
    step = lambda x: written(x, weights, erase, add)
    for rate in cut:
        F_ = paced(x, step(x), 1 - unerased(weights, erase), rate)
        x = torch.lerp(x, F_, rate)
    close(x, step(start), 1e-11)


def test_a_whole_step_at_its_exact_rate_is_the_step_and_a_vanishing_one_the_flow(generator):
    x, target, share = (rand(generator, 5) for _ in range(3))
    assert torch.equal(paced(x, target, share, 1), target)
    assert torch.equal(paced(x, target, share, torch.ones(())), target)
    flow = paced(x, target, share, 0)
    close(flow, x - torch.log1p(-share) / share * (target - x), 1e-12)
    close(paced(x, target, share, 1e-9), flow, 1e-7)
    assert_same_derivatives(
        lambda x, t, s: paced(x, t, s, 0.3),
        lambda x, t, s: x + (1 - (1 - s) ** 0.3) / (0.3 * s) * (t - x),
        x,
        target,
        share,
    )


def test_nothing_and_everything_go_at_finite_rates(generator):
    x, target = rand(generator, 3), rand(generator, 3)
    share = torch.tensor([0.0, 1.0, 1e-200]).requires_grad_()
    for rate in (0, 1e-3, 1):
        out = paced(x, target, share, rate)
        assert torch.isfinite(out).all()
        (g,) = torch.autograd.grad(out.sum(), share, allow_unused=True)
        assert torch.isfinite(g).all()
        close(out[[0, 2]], target[[0, 2]], 1e-12)


# --- no NaN -----------------------------------------------------------------------------------------------------------

SIZES = st.sampled_from([0.0, 1e-30, 1e-6, 1.0, 1e3, 1e6])


@given(seed=st.integers(0, 1000), size=SIZES, key=SIZES, strength=SIZES, logit=SIZES)
def test_no_float32_memory_key_or_command_makes_a_nan(seed, size, key, strength, logit):
    draw = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(shape, generator=draw, dtype=torch.float32)
    memory = size * normal(5, 3)
    memory[1] = memory[0]
    memory[2] = 0
    given_ = [memory, key * normal(2, 3), strength * normal(2).abs(), logit * normal(2, 3), 1 + logit * normal(2).abs()]
    leaves = [leaf.requires_grad_() for leaf in given_]
    M, keys, strengths, shifts, exponents = leaves
    here = torch.eye(5, dtype=torch.float32)[:2]
    told = Focus(keys, strengths, torch.sigmoid(logit * normal(2)), torch.softmax(shifts, -1), exponents)
    weights = addressed(M, here, told)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, dtype=torch.float32))
    assert (weights >= 0).all()
    for g in torch.autograd.grad((weights * normal(2, 5)).sum(), leaves):
        assert torch.isfinite(g).all()
