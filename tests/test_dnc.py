"""The differentiable neural computer: the paper's loop, its conventions, and what becomes of it in continuous time."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ctrnn import Euler, Fixed, Heun, Iterate, Recompute, integrate
from ctrnn import _tree as tree
from ctrnn.dynamics import Model
from ctrnn.models import DNC, LSTM, DNCState, SkipStack, feed_forward
from ctrnn.models.memory.linkage import linked, preceding
from tests import test_laws_models as laws
from tests.variants import every_law

T0 = torch.zeros(())
N, W, R, N_IN = 5, 3, 2, 4


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def computer(n_out=2, slots=N, width=W, reads=R, deep=False, **options):
    wide, draw = N_IN + reads * width, seeded()
    layers = [LSTM(6, wide, generator=draw)]
    if deep:
        layers.append(LSTM(4, wide + 6, generator=draw))
    net = SkipStack(layers) if deep else layers[0]
    return DNC(net, n_out, slots=slots, width=width, reads=reads, generator=seeded(), **options)


def drive(steps=8, batch=3):
    return torch.randn(steps, batch, N_IN, generator=seeded(1))


# --- the paper's loop -------------------------------------------------------------------------------------------------


def content(memory, key, strength, mask):
    size = lambda a: (a @ a + 1e-6).sqrt()
    scores = [(mask * key) @ (mask * m) / (size(mask * key) * size(mask * m)) for m in memory]
    return torch.softmax(strength * torch.stack(scores), 0)


def allocation(usage):
    order = sorted(range(len(usage)), key=lambda i: float(usage[i].detach()))
    free, a = torch.ones(()), [None] * len(usage)
    for i in order:
        a[i] = (1 - usage[i]) * free
        free = free * usage[i]
    return torch.stack(a)


def say(model, h):
    """The interface, row by row as the docstring of DNC lays it out; write heads first."""
    reads, writes, width = model.reads, model.writes, model.width
    rows = iter(model.W_heads @ h + model.b_heads)
    take = lambda count, size: [torch.stack([next(rows) for _ in range(size)]) for _ in range(count)]
    oneplus = lambda parts: [1 + F.softplus(part) for part in parts]
    gate = lambda parts: [torch.sigmoid(part) for part in parts]
    said = {
        "keys": take(reads + writes, width),
        "add": take(writes, width),
        "strengths": oneplus(take(1, reads + writes))[0],
    }
    said["peaks"] = oneplus(take(reads, 2 * writes)) if model.peaked else None
    said["erase"], (said["free"],) = gate(take(writes, width)), gate(take(1, reads))
    (said["allocate"],), (said["write"],) = gate(take(1, writes)), gate(take(1, writes))
    masks = [0.1 + 0.9 * m for m in gate(take(reads + writes, width))] if model.masked else None
    said["masks"] = masks or [torch.ones(width)] * (reads + writes)
    said["modes"] = [torch.softmax(m, 0) for m in take(reads, 2 * writes + 1)] if model.links else None
    assert next(rows, None) is None
    return said


def peak(weights, exponent):
    powers = (weights + 1e-6) ** exponent
    return powers / powers.sum()


def step_by_hand(model, x, said):
    """One step of the memory of one sample, slot by slot, as in the Methods of the paper."""
    slots, writes = model.slots, model.writes
    kept = torch.ones(slots)
    for f, w in zip(said["free"], x.read_weights, strict=True):
        kept = kept * (1 - f * w)
    used = x.usage
    for w in x.write_weights:
        used = used + w - used * w
    usage = used * kept
    simulated, writing = usage, []
    for head in range(writes):
        key, strength, mask = (said[name][head] for name in ("keys", "strengths", "masks"))
        free = (
            allocation(simulated) if model.allocation is None else torch.softmax(model.allocation * (1 - simulated), 0)
        )
        g_a, g_w = said["allocate"][head], said["write"][head]
        writing.append(g_w * (g_a * free + (1 - g_a) * content(x.memory, key, strength, mask)))
        simulated = simulated + (1 - simulated) * g_a * g_w * free
    memory = x.memory * kept[:, None] if model.deallocating else x.memory
    for w, e in zip(writing, said["erase"], strict=True):
        memory = memory * (1 - w[:, None] * e[None, :])
    for w, v in zip(writing, said["add"], strict=True):
        memory = memory + w[:, None] * v[None, :]
    link, precedence = [], []
    for L, p, w in zip(x.link, x.precedence, writing, strict=True) if model.links else ():
        new = torch.zeros(slots, slots)
        for i in range(slots):
            for j in range(slots):
                if i != j:
                    new[i, j] = (1 - w[i] - w[j]) * L[i, j] + w[i] * p[j]
        link.append(new)
        precedence.append((1 - w.sum()) * p + w)
    reading = []
    for head, before in enumerate(x.read_weights):
        key, strength, mask = (said[name][writes + head] for name in ("keys", "strengths", "masks"))
        found = content(memory, key, strength, mask)
        if model.links:
            ways = [L.T @ before for L in link] + [found] + [L @ before for L in link]
            if model.peaked:
                s = said["peaks"][head]
                for k in range(writes):
                    ways[k], ways[writes + 1 + k] = peak(ways[k], s[k]), peak(ways[writes + 1 + k], s[writes + k])
            found = sum(mode * way for mode, way in zip(said["modes"][head], ways, strict=True))
        reading.append(found)
    stacked = [torch.stack(part) if part else () for part in (writing, reading, link, precedence)]
    return DNCState((), memory, usage, *stacked)


def by_hand(model, us):
    """One sample after the other: what the computer says."""
    said = []
    for b in range(us.shape[1]):
        x, ys = model.initial_state(), []
        h = x.controller
        for u in us[:, b]:
            read = [w @ x.memory for w in x.read_weights]
            h = model.controller.target(T0, h, torch.cat([u, *read]), 1)
            out = model.controller.readout(h)
            x = step_by_hand(model, x, say(model, out))
            seen = torch.cat([out, *[w @ x.memory for w in x.read_weights]])
            ys.append(seen if model.W_out is None else model.W_out @ seen + model.b_out)
        said.append(torch.stack(ys))
    return torch.stack(said, 1)


OPTIONS = [
    {},
    {"deep": True},
    {"writes": 2},
    {"links": False},
    {"masked": True},
    {"deallocating": True},
    {"peaked": True},
    {"allocation": 2.0},
    {"n_out": None},
    {"masked": True, "deallocating": True, "peaked": True, "writes": 2, "reads": 3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_whole_steps_are_the_papers_loop(options):
    model = computer(**options)
    run = integrate(model, drive(5, 2), dt=1.0, solver=Iterate())
    expected = by_hand(model, drive(5, 2))
    torch.testing.assert_close(run.ys, expected, rtol=1e-11, atol=1e-12)
    ours, theirs = (torch.autograd.grad(ys.square().sum(), list(model.parameters())) for ys in (run.ys, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)


def test_the_interface_is_as_long_as_the_papers():
    for reads, width in ((1, 2), (4, 16), (2, 5)):
        assert len(computer(reads=reads, width=width).b_heads) == width * reads + 3 * width + 5 * reads + 3


# --- deepmind's tests of one step -------------------------------------------------------------------------------------


def rows(model):
    """Where each command stands in b_heads."""
    reads, writes, width = model.reads, model.writes, model.width
    sizes = {
        "keys": (reads + writes) * width,
        "add": writes * width,
        "strengths": reads + writes,
        "erase": writes * width,
        "free": reads,
        "allocate": writes,
        "write": writes,
        "modes": reads * (2 * writes + 1),
    }
    found, at = {}, 0
    for name, size in sizes.items():
        found[name], at = slice(at, at + size), at + size
    assert at == len(model.b_heads)
    return found


def told(options=None, **commands):
    """A computer whose controller always says the same; gates are given as logits."""
    model = DNC(feed_forward(1, R * W, generator=seeded()), slots=N, width=W, reads=R, **(options or {}))
    with torch.no_grad():
        model.W_heads.zero_()
        model.b_heads.zero_()
        for name, values in commands.items():
            model.b_heads[rows(model)[name]] = torch.as_tensor(values, dtype=torch.float64).flatten()
    return model


def some_state(model, seed=3):
    """Weights of less than one, a used memory, links as they come."""
    draw = seeded(seed)
    share = lambda *shape: (
        torch.softmax(torch.randn(*shape, N, generator=draw), -1) * torch.rand(*shape, 1, generator=draw)
    )
    x = model.initial_state(2)
    link, precedence = x.link, x.precedence
    for _ in range(4):
        w = share(2, model.writes)
        link, precedence = linked(link, w, precedence), preceding(precedence, w)
    memory, usage = torch.randn(2, N, W, generator=draw), torch.rand(2, N, generator=draw)
    return x._replace(
        memory=memory,
        usage=usage,
        write_weights=share(2, model.writes),
        read_weights=share(2, R),
        link=link,
        precedence=precedence,
    )


def one_step(model, x):
    with torch.no_grad():
        return model.target(T0, x, torch.zeros(2, 0), 1)


def test_usage_stays_within_its_bounds_a_full_write_makes_it_one_and_a_full_release_zero():
    model = told(free=[40.0] * R)
    x = some_state(model)
    assert ((one_step(model, x).usage >= 0) & (one_step(model, x).usage <= 1)).all()
    one_hot = torch.eye(N)[2].expand(2, 1, -1)
    released = one_step(model, x._replace(read_weights=one_hot.expand(-1, R, -1)))
    assert (released.usage[:, 2] < 1e-15).all()
    written = one_step(told(free=[-800.0] * R), x._replace(write_weights=one_hot))
    assert (written.usage[:, 2] == 1).all()


def test_with_both_gates_open_and_one_free_slot_the_whole_write_goes_there():
    model = told(allocate=[40.0], write=[40.0], free=[-800.0] * R)
    x = some_state(model)
    usage = torch.full((2, N), 0.9)
    usage[:, 3] = 0
    x = x._replace(usage=usage, write_weights=torch.zeros(2, 1, N))
    torch.testing.assert_close(
        one_step(model, x).write_weights[:, 0], torch.eye(N)[3].expand(2, -1), atol=1e-15, rtol=0
    )


@pytest.mark.parametrize("gate", [-3.0, 0.0, 2.0])
def test_by_content_the_writing_adds_up_to_the_write_gate(gate):
    model = told(allocate=[-800.0], write=[gate], keys=torch.randn(3, W, generator=seeded()))
    weights = one_step(model, some_state(model)).write_weights
    torch.testing.assert_close(weights.sum(-1), torch.full((2, 1), 1 / (1 + math.exp(-gate))))


def test_a_strong_key_that_equals_a_slot_reads_that_slot():
    x = some_state(told())
    key = x.memory[0, 3]
    modes = torch.tensor([-40.0, 40, -40]).repeat(R)  # backward, content, forward
    strengths = torch.full((3,), 10_000.0)
    model = told(keys=key.repeat(3), strengths=strengths, modes=modes, write=[-800.0])
    weights = one_step(model, x).read_weights[0]
    torch.testing.assert_close(weights, torch.eye(N)[3].expand(R, -1), rtol=0, atol=1e-12)
    torch.testing.assert_close(model.read(x)[0], x.read_weights[0] @ x.memory[0])


def test_with_a_gate_of_zero_between_them_two_heads_are_allocated_the_same():
    shut = told({"writes": 2}, allocate=[40.0, 40.0], write=[-800.0, 40.0])
    x = some_state(shut)
    one_head = told(allocate=[40.0], write=[40.0])
    alone = one_step(
        one_head, x._replace(write_weights=x.write_weights[:, :1], link=x.link[:, :1], precedence=x.precedence[:, :1])
    )
    x = x._replace(write_weights=torch.cat([x.write_weights[:, :1], torch.zeros(2, 1, N)], 1))
    torch.testing.assert_close(one_step(shut, x).write_weights[:, 1], alone.write_weights[:, 0])


def test_two_heads_are_allocated_the_two_free_slots_in_turn():
    model = told({"writes": 2}, allocate=[40.0] * 2, write=[40.0] * 2, free=[-800.0] * R)
    x = some_state(model)
    usage = torch.ones(2, N)
    usage[:, 1], usage[:, 4] = 1e-4, 0
    new = one_step(model, x._replace(usage=usage, write_weights=torch.zeros(2, 2, N)))
    torch.testing.assert_close(new.write_weights, torch.eye(N)[[4, 1]].expand(2, -1, -1), rtol=0, atol=1e-3)


def test_what_is_read_forward_and_backward_follows_the_order_of_writing():
    for modes, slot in (([40.0, -40, -40], 1), ([-40.0, -40, 40], 3)):
        model = told(modes=torch.tensor(modes).repeat(R), write=[-800.0])
        x = some_state(model)
        link, precedence = torch.zeros(2, 1, N, N), torch.zeros(2, 1, N)
        for k in (1, 2, 3):
            w = torch.eye(N)[k].expand(2, 1, -1)
            link, precedence = linked(link, w, precedence), preceding(precedence, w)
        reading = torch.eye(N)[2].expand(2, R, -1)
        new = one_step(model, x._replace(link=link, precedence=precedence, read_weights=reading))
        torch.testing.assert_close(new.read_weights, torch.eye(N)[slot].expand(2, R, -1), rtol=0, atol=1e-15)


def test_a_new_memory_is_filled_slot_by_slot_in_their_order():
    model = told(allocate=[40.0], write=[40.0], free=[-40.0] * R, add=[1.0] * W)
    with torch.no_grad():
        run = integrate(model, torch.zeros(N, 0), dt=1.0)
    torch.testing.assert_close(run.xs.write_weights[:, 0], torch.eye(N), rtol=0, atol=1e-12)
    torch.testing.assert_close(run.xs.memory[-1], torch.ones(N, W), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        run.xs.link[-1, 0], torch.eye(N).roll(1, 0) * (1 - torch.eye(N)[0][:, None]), rtol=0, atol=1e-11
    )


def test_the_soft_allocation_cannot_tell_new_slots_apart():
    with torch.no_grad():
        run = integrate(computer(allocation=2.0), drive(20), dt=1.0)
    assert run.xs.memory.std(-2).max() < 1e-14
    with torch.no_grad():
        assert integrate(computer(), drive(20), dt=1.0).xs.memory.std(-2).max() > 1e-2


def test_deallocation_erases_what_is_freed():
    x = some_state(told())
    reading = torch.eye(N)[2].expand(2, R, -1)
    for erased in (False, True):
        model = told({"deallocating": erased}, free=[40.0] * R, write=[-800.0])
        new = one_step(model, x._replace(read_weights=reading)).memory
        torch.testing.assert_close(new[:, 2], (not erased) * x.memory[:, 2], rtol=0, atol=1e-12)
        assert torch.equal(new[:, [0, 1, 3, 4]], x.memory[:, [0, 1, 3, 4]])


# --- laws, for the computers that the example is not ------------------------------------------------------------------


VARIANTS = {
    "sorted": lambda: computer(slots=4, width=2, clocked=False, tau=1.5),
    "all improvements": lambda: computer(
        slots=3, width=2, writes=2, masked=True, deallocating=True, peaked=True, clocked=False, exact_rates=True
    ),
    "no links": lambda: computer(
        slots=4, width=2, links=False, clocked=False, tau=DNCState((), 1.0, 2.0, 3.0, 4.0, (), ())
    ),
}


@every_law(VARIANTS, but=[laws.test_derivatives_of_one_step_are_those_of_finite_differences])
def test_the_laws_hold_for_every_computer(law, variant):
    law(variant)


def test_derivatives_of_one_step_from_a_used_memory_are_those_of_finite_differences():
    model = computer(slots=4, width=2, reads=1, clocked=False)
    x = tree.map(lambda leaf: leaf.detach()[-1], integrate(model, drive(5, 1), dt=1.0).xs)
    leaves = [leaf.clone().requires_grad_() for leaf in tree.leaves(x)]
    u = drive(1, 1)[0].requires_grad_()
    moved = lambda *flat: tuple(tree.leaves(model.target(T0, tree.unflatten(x, flat[:-1]), flat[-1], 0.3)))
    assert torch.autograd.gradcheck(moved, (*leaves, u), eps=1e-7, atol=1e-6, rtol=1e-5)


def test_recomputing_gives_the_same_gradient():
    model = computer()
    losses = [
        integrate(model, drive(), dt=1.0, **how).ys.square().sum() for how in ({}, {"adjoint": Recompute(snapshots=2)})
    ]
    stored, recomputed = (torch.autograd.grad(loss, list(model.parameters())) for loss in losses)
    for a, b in zip(stored, recomputed, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-13)


def test_a_saved_computer_comes_back(tmp_path):
    for make in VARIANTS.values():
        model = make()
        model.learn_tau()
        model.save(tmp_path / "m.safetensors")
        again = Model.load(tmp_path / "m.safetensors")
        assert torch.equal(integrate(model, drive(), dt=1.0).ys, integrate(again, drive(), dt=1.0).ys)


# --- in time ----------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(
    seed=st.integers(0, 100),
    divisor=st.sampled_from([1, 2, 7]),
    scale=st.sampled_from([1.0, 5.0, 100.0]),
    solver=st.sampled_from([Euler(), Heun()]),
    options=st.sampled_from(
        [{}, {"writes": 2}, {"allocation": 2.0}, {"deallocating": True, "peaked": True}, {"exact_rates": True}]
    ),
)
def test_weights_usage_and_links_stay_within_bounds_for_steps_up_to_tau(seed, divisor, scale, solver, options):
    assume(isinstance(solver, Euler) or "exact_rates" not in options)
    model = computer(**options, clocked=False)
    with torch.no_grad():
        model.W_heads *= scale
        us = torch.randn(12, 2, N_IN, generator=seeded(seed))
        xs = integrate(model, us, dt=1.0, steps=Fixed(1 / divisor), solver=solver).xs
    slack = 1e-12
    for weights in (xs.write_weights, xs.read_weights, xs.precedence):
        assert (weights >= 0).all()
        assert (weights.sum(-1) <= 1 + slack).all()
    assert ((xs.usage >= 0) & (xs.usage <= 1 + slack)).all()
    assert (xs.link.diagonal(dim1=-2, dim2=-1) == 0).all()
    assert ((xs.link >= -slack) & (xs.link <= 1 + slack)).all()
    assert (xs.link.sum(-1) <= 1 + slack).all()
    assert (xs.link.sum(-2) <= 1 + slack).all()


@pytest.mark.parametrize(("n", "expected"), [(1, 1.0), (2, 0.375), (10, 0.252), (10_000, 0.2325)])
def test_a_link_that_is_written_for_tau_in_small_steps_erases_itself(n, expected):
    link, precedence = torch.zeros(1, 2, 2), torch.zeros(1, 2)
    for slot in (0, 1):
        w = torch.eye(2)[None, slot]
        for _ in range(n):
            targets = linked(link, w, precedence), preceding(precedence, w)
            link, precedence = torch.lerp(link, targets[0], 1 / n), torch.lerp(precedence, targets[1], 1 / n)
    assert float(link[0, 1, 0]) == pytest.approx(expected, abs=5e-4)
    assert math.exp(-1) * (1 - math.exp(-1)) == pytest.approx(0.2325, abs=1e-4)


@pytest.mark.parametrize("n", [1, 2, 10])
def test_at_exact_rates_usage_and_precedence_take_a_whole_step_in_tau_while_heads_hold(n):
    tau = DNCState((), 1.0, 1.0, 1e12, 1e12, 1.0, 1.0)
    model = told(
        {"clocked": False, "exact_rates": True, "deallocating": True, "tau": tau}, free=[1.0] * R, erase=[2.0] * W
    )
    x0 = some_state(model)
    with torch.no_grad():
        run = integrate(model, torch.zeros(1, 2, 0), x0, dt=1.0, steps=Fixed(1 / n), solver=Euler())
        whole = model.target(T0, x0, torch.zeros(2, 0), DNCState(1, 1, 1, 0, 0, 1, 1))
    for name in ("usage", "memory", "precedence"):
        torch.testing.assert_close(getattr(run.xs, name)[0], getattr(whole, name), rtol=1e-9, atol=1e-11)


# --- no NaN -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.0, 1.0, 100.0, 1e4]),
    memory=st.sampled_from([0.0, 1e-6, 1.0, 100.0]),
    options=st.sampled_from(OPTIONS),
)
def test_neither_saturated_gates_nor_empty_or_equal_slots_make_a_nan_in_float32(seed, scale, memory, options):
    model = computer(**options).float()
    us = torch.randn(8, 2, N_IN, generator=seeded(seed), dtype=torch.float32)
    with torch.no_grad():
        model.W_heads *= scale
    words = memory * torch.randn(2, 1, W, generator=seeded(seed), dtype=torch.float32)
    x0 = model.initial_state(2)._replace(memory=words.expand(2, N, W))
    run = integrate(model, us, x0, dt=1.0)
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves(run.xs))
    for g in torch.autograd.grad(run.ys.square().mean(), list(model.parameters())):
        assert torch.isfinite(g).all()


def test_ten_thousand_steps_in_float32_are_finite_and_so_is_their_gradient():
    model = DNC(feed_forward(4, 4, generator=seeded()), 2, slots=4, width=2, generator=seeded()).float()
    with torch.no_grad():
        model.W_heads *= 5
        us = torch.randn(10_000, 2, generator=seeded(1), dtype=torch.float32)
        run = integrate(model, us[:9500], dt=1.0, solver=Iterate())
    for weights in (run.xs.write_weights, run.xs.read_weights):
        assert (weights >= 0).all()
        assert (weights.sum(-1) <= 1 + 1e-5).all()
    assert (run.xs.link.sum(-1) <= 1 + 1e-4).all()
    run = integrate(model, us[9500:], tree.map(lambda leaf: leaf[-1], run.xs), dt=1.0, solver=Iterate())
    assert torch.isfinite(run.ys).all()
    for g in torch.autograd.grad(run.ys.square().mean(), list(model.parameters()), allow_unused=True):
        assert g is None or torch.isfinite(g).all()


# --- wrong arguments --------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="pass links=True"):
        computer(links=False, peaked=True)
    with pytest.raises(ValueError, match=r"allocation = -1.0 must be positive and finite, or None"):
        computer(allocation=-1.0)
    with pytest.raises(TypeError, match="allocation must be a number, got 'soft'"):
        computer(allocation="soft")
    with pytest.raises(ValueError, match="tau of the memory is one number, or DNCState"):
        computer(links=False, clocked=False, tau=DNCState((), 1.0, 1.0, 1.0, 1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="no room for what 3 heads read"):
        DNC(LSTM(3, 5), slots=4, width=2, reads=3)
