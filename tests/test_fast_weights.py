"""Fast weights: the published rules in plain loops, what a write leaves, and what becomes of it in continuous time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ctrnn import Euler, Fixed, Heun, Iterate, Recompute, integrate
from ctrnn import _tree as tree
from ctrnn.dynamics import Model
from ctrnn.models import LSTM, Elman, FastWeights, FastWeightsState, feed_forward
from ctrnn.models.memory.fast_weights import rewritten
from tests.variants import every_law

T0 = torch.zeros(())
K, W, HEADS, N_IN = 5, 3, 2, 4
RULES = {
    "delta": {},
    "decaying delta": {"decay": 0.8},
    "sum": {"delta": False},
    "outer": {"delta": False, "decay": 0.9},
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def machine(controller="LSTM", n_out=2, **options):
    draw, sizes = seeded(), {"keys": K, "width": W, "heads": HEADS} | options
    wide = N_IN + sizes["heads"] * sizes["width"]
    make = {"Elman": Elman, "LSTM": LSTM, "feed-forward": feed_forward}[controller]
    return FastWeights(make(6, wide, generator=draw), n_out, generator=draw, **sizes)


def drive(steps=7, batch=3):
    return torch.randn(steps, batch, N_IN, generator=seeded(1))


# --- the published rules ----------------------------------------------------------------------------------------------


def softmax(x):
    return x.exp() / x.exp().sum()


def by_hand(model, us):
    """One sample and one head after the other: what the network says."""
    heads, keys, width = model.n_heads, model.keys, model.width
    said = []
    for b in range(us.shape[1]):
        x = model.initial_state()
        state, A, r = x.controller, list(x.weights), [torch.zeros(width)] * heads
        ys = []
        for u in us[:, b]:
            state = model.controller.target(T0, state, torch.cat([u, *r]), 1)
            h = model.controller.readout(state)
            rows = iter(model.W_heads @ h + model.b_heads)
            take = lambda size, rows=rows: [torch.stack([next(rows) for _ in range(size)]) for _ in range(heads)]
            q, k, v = [softmax(x) for x in take(keys)], [softmax(x) for x in take(keys)], take(width)
            beta = [1 / (1 + (-b).exp()) for b in take(1)]
            assert next(rows, None) is None
            for i in range(heads):
                kept = torch.stack([model.decay * A[i][w] for w in range(width)])
                before = torch.stack([kept[w] @ k[i] for w in range(width)]) if model.delta else 0
                A[i] = kept + beta[i] * torch.outer(v[i] - before, k[i])
                r[i] = A[i] @ q[i]
            seen = torch.cat([h, *r])
            ys.append(seen if model.W_out is None else model.W_out @ seen + model.b_out)
        said.append(torch.stack(ys))
    return torch.stack(said, 1)


@every_rule
@pytest.mark.parametrize("controller", ["LSTM", "feed-forward"])
def test_whole_steps_are_the_published_rule(controller, rule):
    model = machine(controller, **rule)
    run = integrate(model, drive(), dt=1.0, solver=Iterate())
    assert torch.equal(run.ys, integrate(model, drive(), dt=1.0, solver=Euler()).ys)
    expected = by_hand(model, drive())
    torch.testing.assert_close(run.ys, expected, rtol=1e-11, atol=1e-12)
    parameters = list(model.parameters())
    ours, theirs = (torch.autograd.grad(ys.square().sum(), parameters, allow_unused=True) for ys in (run.ys, expected))
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_so_they_are_with_one_head_and_without_outputs():
    model = machine("Elman", n_out=None, heads=1)
    run = integrate(model, drive(), dt=1.0)
    torch.testing.assert_close(run.ys, by_hand(model, drive()), rtol=1e-11, atol=1e-12)


def test_without_decay_and_delta_rule_what_is_read_is_linear_attention():
    """Katharopoulos et al. (2020), ICML, eq. 9 without its denominator: r = sum_j (q . k_j) v_j."""
    model = machine("feed-forward", delta=False, n_out=None, heads=1)
    with torch.no_grad():
        run = integrate(model, drive(), dt=1.0)
        said = run.xs.controller
        (keys, values, betas), queries = model.commands(said), model.queries(said)
    scores = torch.einsum("tbhk,sbhk->tsb", queries, keys) * betas[:, :, 0]
    causal = torch.ones(7, 7).tril()[:, :, None]
    expected = torch.einsum("tsb,sbhw->tbw", scores * causal, values)
    torch.testing.assert_close(run.ys[..., 6:], expected, rtol=1e-12, atol=1e-13)


# --- what a write leaves ----------------------------------------------------------------------------------------------


def one_hot(*numbers):
    return torch.eye(K)[list(numbers)]


def write(A, key, value, beta=1.0, **rule):
    return rewritten(A[None], key[None], value[None], torch.tensor([beta]), **{"delta": True} | rule)[0]


def test_under_keys_at_right_angles_every_value_is_kept_and_read_exactly():
    A, values = torch.zeros(W, K), torch.randn(K, W, generator=seeded(2))
    for number in range(K):
        A = write(A, one_hot(number)[0], values[number])
    assert torch.equal(A.T, values)


def test_the_delta_rule_replaces_what_a_key_reads_and_the_outer_product_adds_to_it():
    old, new, key = torch.tensor([1.0, 2, 3]), torch.tensor([5.0, 5, 5]), one_hot(2)[0]
    A = write(write(torch.zeros(W, K), key, old), key, new)
    assert torch.equal(A @ key, new)
    assert torch.equal(write(A, key, new), A)
    added = write(write(torch.zeros(W, K), key, old, delta=False), key, new, delta=False)
    assert torch.equal(added @ key, old + new)
    assert torch.equal(write(added, one_hot(0)[0], old, delta=False, decay=0.5) @ key, (old + new) / 2)


@given(seed=st.integers(0, 1000), beta=st.floats(0, 1), sharpness=st.sampled_from([0.1, 1.0, 10.0]))
def test_a_write_leaves_one_minus_beta_k_squared_of_the_difference(seed, beta, sharpness):
    draw = seeded(seed)
    A, value = torch.randn(W, K, generator=draw), torch.randn(W, generator=draw)
    key = torch.softmax(sharpness * torch.randn(K, generator=draw), -1)
    left = 1 - beta * (key @ key)
    torch.testing.assert_close(value - write(A, key, value, beta) @ key, left * (value - A @ key))
    across = torch.linalg.svd(key[None])[2][1:]  # what other keys, at right angles, read stays as it is
    torch.testing.assert_close(write(A, key, value, beta) @ across.T, A @ across.T, rtol=1e-9, atol=1e-12)


# --- laws, for the machines that the example is not -------------------------------------------------------------------


SMALL = {"keys": 3, "width": 2, "clocked": False}
VARIANTS = {
    "outer product": lambda: machine("Elman", delta=False, decay=0.9, **SMALL),
    "exact delta": lambda: machine("feed-forward", exact_rates=True, **SMALL),
    "exact outer product": lambda: machine("feed-forward", exact_rates=True, delta=False, decay=0.5, **SMALL),
}


@every_law(VARIANTS)
def test_the_laws_hold_for_every_machine(law, variant):
    law(variant)


def test_recomputing_gives_the_same_gradient():
    model = machine()
    losses = [
        integrate(model, drive(), dt=1.0, **how).ys.square().sum() for how in ({}, {"adjoint": Recompute(snapshots=2)})
    ]
    stored, recomputed = (torch.autograd.grad(loss, list(model.parameters())) for loss in losses)
    for a, b in zip(stored, recomputed, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-13)


@every_rule
@pytest.mark.parametrize("time", [{}, {"clocked": False, "exact_rates": True}], ids=["clocked", "relaxed"])
def test_a_saved_machine_comes_back(rule, time, tmp_path):
    model = machine(**rule, **time)
    model.learn_tau()
    model.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    assert torch.equal(integrate(model, drive(), dt=1.0).ys, integrate(again, drive(), dt=1.0).ys)


# --- in time ----------------------------------------------------------------------------------------------------------


def test_clocked_weights_hold_between_ticks_and_are_read_at_all_times():
    model = machine()
    run = integrate(model, drive(3).repeat_interleave(4, 0), dt=0.25, steps=Fixed(0.25))
    weights = run.xs.weights
    for k in range(12):
        before = model.initial_state(3).weights if k == 0 else weights[k - 1]
        assert torch.equal(weights[k], before) == (k % 4 != 3)
    h = run.xs.controller.h[7]
    expected = rewritten(weights[6], *model.commands(h), delta=True)
    assert torch.equal(weights[7], expected)
    reads = model.read(run.xs)
    assert not torch.equal(reads[5], reads[4])


@settings(max_examples=15)
@given(
    seed=st.integers(0, 100),
    divisor=st.sampled_from([1, 2, 7]),
    clocked=st.booleans(),
    delta=st.booleans(),
    solver=st.sampled_from([Euler(), Heun()]),
)
def test_weights_to_which_nothing_is_added_never_grow(seed, divisor, clocked, delta, solver):
    model = machine(clocked=clocked, delta=delta, decay=0.95)
    with torch.no_grad():
        model.W_heads *= 10
        values = slice(2 * HEADS * K, HEADS * (2 * K + W))
        model.W_heads[values].zero_()
        model.b_heads[values].zero_()
        us = torch.randn(6, 2, N_IN, generator=seeded(seed))
        x0 = model.initial_state(2)._replace(weights=torch.randn(2, HEADS, W, K, generator=seeded(seed)))
        run = integrate(model, us, x0, dt=1.0, steps=Fixed(1 / divisor), solver=solver)
    sizes = torch.cat([x0.weights[None], run.xs.weights]).norm(dim=-1)
    assert (sizes.diff(dim=0) <= 1e-13).all()


@settings(max_examples=15)
@given(seed=st.integers(0, 100), divisor=st.sampled_from([1, 2, 7]), solver=st.sampled_from([Euler(), Heun()]))
def test_outer_products_stay_within_what_decay_allows(seed, divisor, solver):
    model = machine(clocked=False, delta=False, decay=0.7)
    with torch.no_grad():
        us = 3 * torch.randn(12, 2, N_IN, generator=seeded(seed))
        run = integrate(model, us, dt=1.0, steps=Fixed(1 / divisor), solver=solver)
        values = model.b_heads[2 * HEADS * K : HEADS * (2 * K + W)].abs().max()
        most = values + model.W_heads[2 * HEADS * K : HEADS * (2 * K + W)].abs().sum(-1).max()  # |h| is below 1
    assert (run.xs.weights.abs() <= most / (1 - 0.7)).all()


def holder(rule, **options):
    """A machine that writes the same value under the same key all the time."""
    model = FastWeights(
        feed_forward(1, 2, generator=seeded()),
        keys=3,
        width=2,
        clocked=False,
        generator=seeded(),
        **rule,
        **options,
    )
    with torch.no_grad():
        model.W_heads.zero_()
    return model


@every_rule
@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_at_exact_rates_what_is_held_for_tau_is_written_as_in_a_whole_step(rule, n):
    model = holder(rule, exact_rates=True)
    with torch.no_grad():
        x0 = model.initial_state()._replace(weights=torch.randn(1, 2, 3, generator=seeded(3)))
        commands = model.commands(torch.zeros(1))
        once = rewritten(x0.weights, *commands, model.decay, delta=model.delta)
        twice = rewritten(once, *commands, model.decay, delta=model.delta)
        run = integrate(model, torch.zeros(2, 0), x0, dt=1.0, steps=Fixed(1 / n), solver=Euler())
    torch.testing.assert_close(run.xs.weights, torch.stack([once, twice]), rtol=1e-12, atol=1e-13)


def test_without_them_a_write_held_for_tau_leaves_more_as_the_step_vanishes():
    model = holder({})
    with torch.no_grad():
        keys, values, betas = model.commands(torch.zeros(1))
        share = betas[0] * keys[0].square().sum()
        for n in (1, 2, 10, 1000):
            run = integrate(model, torch.zeros(1, 0), dt=1.0, steps=Fixed(1 / n), solver=Euler())
            left = 1 - (run.xs.weights[0, 0] @ keys[0]) / values[0]
            torch.testing.assert_close(left, (1 - share / n).pow(n).expand(2), rtol=1e-10, atol=0)
    torch.testing.assert_close(left, torch.full((2,), math.exp(-share)), rtol=0, atol=1e-3)


# --- no NaN -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.0, 1.0, 100.0, 1e4]),
    weights=st.sampled_from([0.0, 1.0, 100.0]),
    time=st.sampled_from([{}, {"clocked": False}, {"clocked": False, "exact_rates": True}]),
    rule=st.sampled_from(list(RULES.values())),
)
def test_neither_saturated_gates_nor_repeated_keys_make_a_nan_in_float32(seed, scale, weights, time, rule):
    model = machine("feed-forward", **time, **rule).float()
    us = torch.randn(1, 2, N_IN, generator=seeded(seed), dtype=torch.float32).expand(8, 2, N_IN)
    with torch.no_grad():
        model.W_heads *= scale
    x0 = model.initial_state(2)
    same = weights * torch.ones(2, HEADS, W, K, dtype=torch.float32)
    run = integrate(model, us, x0._replace(weights=same), dt=1.0, steps=Fixed(1.0 if time == {} else 0.5))
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves(run.xs))
    for g in torch.autograd.grad(run.ys.square().mean(), list(model.parameters()), allow_unused=True):
        assert g is None or torch.isfinite(g).all()


@pytest.mark.parametrize("rule", [RULES["delta"], RULES["sum"]], ids=["delta", "sum"])  # neither has a decay
def test_ten_thousand_steps_in_float32_are_finite_and_so_is_their_gradient(rule):
    model = FastWeights(feed_forward(4, 4, generator=seeded()), 2, keys=3, width=2, generator=seeded(), **rule).float()
    us = torch.randn(10_000, 2, generator=seeded(1), dtype=torch.float32)
    with torch.no_grad():
        model.W_heads *= 5
        run = integrate(model, us[:9500], dt=1.0, solver=Iterate())
    assert torch.isfinite(run.xs.weights).all()
    run = integrate(model, us[9500:], tree.map(lambda leaf: leaf[-1], run.xs), dt=1.0, solver=Iterate())
    assert torch.isfinite(run.ys).all()
    for g in torch.autograd.grad(run.ys.square().mean(), list(model.parameters()), allow_unused=True):
        assert g is None or torch.isfinite(g).all()


# --- wrong arguments --------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_named():
    net = LSTM(3, 6)
    with pytest.raises(TypeError, match=r"controller must be a Relaxation, got a LSTMCell: wrap\(cell\)"):
        FastWeights(nn.LSTMCell(6, 3), keys=4, width=2)
    with pytest.raises(ValueError, match=r"n_in=6 has no room for what .* give it n_in=8 plus"):
        FastWeights(net, keys=4, width=2, heads=4)
    for name in ("keys", "width", "heads"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            FastWeights(net, **{"keys": 4, "width": 2, "heads": 1} | {name: 0})
    with pytest.raises(ValueError, match=r"decay = 1.5 must be from 0 to 1"):
        FastWeights(net, keys=4, width=2, decay=1.5)
    with pytest.raises(TypeError, match="decay must be a number"):
        FastWeights(net, keys=4, width=2, decay=None)
    with pytest.raises(ValueError, match="exact as they are"):
        FastWeights(net, keys=4, width=2, exact_rates=True)
    with pytest.raises(ValueError, match="tau of the memory is one number, or FastWeightsState"):
        FastWeights(net, keys=4, width=2, clocked=False, tau=FastWeightsState(1.0, torch.ones(2)))
