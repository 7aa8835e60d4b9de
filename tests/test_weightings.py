"""What is said of the heads of a memory is what the networks do: rebuilt from the traces, and known in advance."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ctrnn import Fixed, Held, Trajectory, analysis, integrate, plots
from ctrnn.models import DNC, LSTM, NTM, NeuralQueue, NeuralStack, Pushdown, StackRNN, feed_forward
from ctrnn.models.memory.addressing import shifted


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def machine(writes=1, **options):
    controller = feed_forward(6, 2 + 2 * 3, generator=seeded())
    return NTM(controller, 2, slots=7, width=3, reads=2, writes=writes, generator=seeded(1), **options)


def computer(writes=1, **options):
    controller = LSTM(6, 2 + 2 * 3, generator=seeded())
    return DNC(controller, 2, slots=5, width=3, reads=2, writes=writes, generator=seeded(1), **options)


def drive(steps=9, batch=4):
    return torch.randn(steps, batch, 2, generator=seeded(2))


# --- traces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [machine, computer])
def test_the_memory_is_what_the_traces_say_was_erased_and_added(build):
    model = build()
    run = integrate(model, drive(), dt=1.0)
    traces = analysis.head_traces(model, run.xs)
    told = traces.told.of(slice(0)) if build is machine else traces.told
    assert told.keys.shape[:2] == (9, 4)
    w = traces.write[..., 0, :, None]
    share = w.sum(-2)
    memory = model.initial_state(4).memory
    for k in range(9):
        erase, add = (part[k, :, 0, None] / share[k, :, None] for part in (traces.erased, traces.added))
        memory = memory * (1 - w[k] * erase) + w[k] * add
        assert torch.allclose(memory, traces.memory[k], atol=1e-12)
    assert torch.allclose(traces.seen, traces.read @ traces.memory, atol=1e-12)


def test_with_several_write_heads_all_they_add_is_what_comes_in_where_nothing_was():
    model = computer(writes=2)
    first = analysis.head_traces(model, integrate(model, drive(1), dt=1.0).xs)
    assert torch.allclose(first.memory.sum(-2), first.added.sum(-2), atol=1e-12)


def test_the_write_heads_of_a_dnc_add_as_much_as_their_gates_let_them():
    model = computer()
    traces = analysis.head_traces(model, integrate(model, drive(), dt=1.0).xs)
    assert (traces.write.sum(-1) <= traces.told.write + 1e-12).all()
    # In the first step every slot is free, and whatever the allocation gate says all of the write gate is spent.
    assert torch.allclose(traces.write[0].sum(-1), traces.told.write[0], atol=1e-12)
    assert torch.allclose(traces.added[0], traces.told.write[0][..., None] * traces.told.add[0], atol=1e-12)


def test_what_the_heads_were_told_leads_from_each_state_to_the_next():
    model = machine()
    start = model.initial_state(4)
    run = integrate(model, drive(), x0=start, dt=1.0)
    traces = analysis.head_traces(model, run.xs)
    before = torch.cat([start.write_weights[None], traces.write[:-1]])
    held = torch.cat([start.memory[None], traces.memory[:-1]])
    keys, strengths, gates, shifts, exponents = traces.told.of(slice(1))
    size = lambda a: (a.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    cosine = (keys / size(keys)) @ (held / size(held)).mT
    content = torch.softmax(strengths[..., None] * cosine, -1)
    moved = shifted(gates[..., None] * content + (1 - gates[..., None]) * before, shifts) ** exponents[..., None]
    assert torch.allclose(traces.write, moved / moved.sum(-1, keepdim=True), atol=1e-12)


def test_links_and_usage_are_there_if_the_network_has_them():
    full, plain, ntm = computer(writes=2), computer(links=False), machine(read_first=True)
    traces = [analysis.head_traces(m, integrate(m, drive(), dt=1.0).xs) for m in (full, plain, ntm)]
    assert traces[0].link.shape == (9, 4, 2, 5, 5)
    assert traces[0].precedence.shape == (9, 4, 2, 5)
    assert [t.link is None for t in traces] == [False, True, True]
    assert [t.usage is None for t in traces] == [False, False, True]
    assert traces[2].seen.shape == (9, 4, 2, 3)


def test_the_links_say_in_which_order_slots_were_written():
    model = computer()
    with torch.no_grad():
        model.W_heads.zero_()
        rows = [3 * 3 + 3 + 3 + 3 + 2, 3 * 3 + 3 + 3 + 3 + 2 + 1]  # keys, add, strengths, erase, free; then g_a, g_w
        model.b_heads.zero_()
        model.b_heads[rows] = 40.0  # always allocate, always write
        model.b_heads[rows[0] - 2 : rows[0]] = -40.0  # free nothing
    traces = analysis.head_traces(model, integrate(model, drive(4), dt=1.0).xs)
    assert torch.allclose(traces.write[:, 0, 0], torch.eye(5)[:4], atol=1e-12)
    assert torch.allclose(traces.link[-1, 0, 0], torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0]), -1), atol=1e-12)
    assert torch.allclose(traces.usage[-1, 0], torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]), atol=1e-12)
    moves = analysis.head_moves(traces.write)
    assert torch.allclose(moves, torch.ones(3, 4, 1), atol=1e-9)


def test_between_ticks_a_clocked_memory_shows_what_it_did_at_the_last_one():
    model = machine(clocked=True, tau=1.0)
    run = integrate(model, Held(drive(4), 1.0), dt=None, steps=Fixed(0.25), save=None)
    fine = integrate(model, drive(4).repeat_interleave(4, 0), dt=0.25)
    at_ticks = analysis.head_traces(model, run.xs)
    between = analysis.head_traces(model, fine.xs)
    for part in ("write", "read", "memory", "seen"):
        assert torch.equal(getattr(between, part)[3::4], getattr(at_ticks, part))
    assert torch.equal(between.write[3:6], between.write[3:4].expand(3, -1, -1, -1))
    assert torch.allclose(between.added[3::4], at_ticks.added, atol=1e-12)


def test_traces_of_a_loaded_run_and_of_a_single_state_are_the_same(tmp_path):
    model = computer()
    run = integrate(model, drive(), dt=1.0)
    run.save(tmp_path / "run.safetensors")
    again = analysis.head_traces(model, Trajectory.load(tmp_path / "run.safetensors").xs)
    assert torch.equal(again.added, analysis.head_traces(model, run.xs).added)
    start = analysis.head_traces(model, model.initial_state())
    assert start.write.shape == (1, 5)
    assert not start.added.any()


def test_looking_changes_nothing_and_needs_no_gradient():
    model = machine()
    traces = analysis.head_traces(model, integrate(model, drive(), dt=1.0).xs)
    assert not traces.added.requires_grad
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_networks_without_heads_and_foreign_states_are_refused():
    ntm, lstm = machine(), LSTM(3, 2)
    with pytest.raises(TypeError, match="an NTM or a DNC, got a LSTM"):
        analysis.head_traces(lstm, lstm.initial_state())
    with pytest.raises(TypeError, match="NTMState, got a DNCState"):
        analysis.head_traces(ntm, computer().initial_state())
    with pytest.raises(TypeError, match=r"got a Tensor: pass run\.xs"):
        analysis.head_traces(ntm, torch.zeros(3))


@pytest.mark.parametrize("stay", [False, True])
def test_a_stack_holds_what_its_traces_say_was_pushed_and_popped(stay):
    controller = LSTM(5, 2 + 2 * 2 * 3, generator=seeded())
    model = StackRNN(controller, 2, stacks=2, depth=4, width=3, top=2, stay=stay, generator=seeded(1))
    run = integrate(model, drive(), dt=1.0)
    traces = analysis.stack_traces(model, run.xs)
    held = model.initial_state(4).stacks
    for k in range(9):
        push, pop, *rest = traces.actions[k][..., None, None].unbind(-3)
        above = torch.cat([traces.pushed[k][..., None, :], held[..., :-1, :]], -2)
        below = torch.cat([held[..., 1:, :], torch.full_like(held[..., :1, :], -1)], -2)
        held = push * above + pop * below + (rest[0] * held if stay else 0)
        assert torch.allclose(held, traces.contents[k], atol=1e-12)
    assert torch.equal(traces.seen, traces.contents[..., :2, :].flatten(-3, -2))
    assert not traces.actions.requires_grad
    with pytest.raises(TypeError, match="StackRNNState, got a Tensor"):
        analysis.stack_traces(model, torch.zeros(3))
    with pytest.raises(TypeError, match="looks into a StackRNN, got a LSTM"):
        analysis.stack_traces(controller, run.xs)


def segments_by_hand(pops, pushes, values, oldest_first):
    """Grefenstette et al. (2015), eqs. 1 to 5, on lists: what is held after each step, the newest first, and read."""
    strengths, words, history = [], [], []
    for pop, push, value in zip(pops, pushes, values, strict=True):
        ends = list(range(len(strengths))) if oldest_first else list(range(len(strengths)))[::-1]
        for i in ends:
            taken = min(strengths[i], pop)
            strengths[i], pop = strengths[i] - taken, pop - taken
        strengths, words = [*strengths, push], [*words, value]
        room, read = 1.0, torch.zeros_like(value)
        for i in range(len(strengths)) if oldest_first else reversed(range(len(strengths))):
            part = min(strengths[i], room)
            read, room = read + part * words[i], room - part
        held = [(s, w) for s, w in zip(strengths, words, strict=True) if s > 0][::-1]
        history.append((held, sum(strengths), read))
    return history


@pytest.mark.parametrize("kind", [NeuralStack, NeuralQueue, Pushdown])
def test_segments_are_what_the_traces_say_was_popped_and_pushed(kind):
    if kind is Pushdown:
        model = Pushdown(LSTM(6, 4, generator=seeded()), 2, slots=12, generator=seeded(1))
    else:
        model = kind(LSTM(6, 2 + 3, generator=seeded()), 2, slots=12, width=3, generator=seeded(1))
    with torch.no_grad():
        model.W_heads.mul_(6)
    us = drive()
    traces = analysis.segment_traces(model, integrate(model, us, dt=1.0).xs, us)
    for trial in range(4):
        told = [part[:, trial] for part in traces.told]
        told[:2] = [[float(v) for v in part[:, 0]] for part in told[:2]]
        for k, (held, length, read) in enumerate(segments_by_hand(*told, kind is NeuralQueue)):
            there = traces.strengths[k, trial] > 0
            assert int(there.sum()) == len(held)
            assert torch.allclose(traces.strengths[k, trial][there], torch.tensor([s for s, _ in held]), atol=1e-12)
            assert torch.allclose(
                traces.words[k, trial][there],
                torch.stack([w for _, w in held]) if held else traces.words[k, trial][there],
                atol=1e-12,
            )
            assert not traces.words[k, trial][~there].any()
            assert math.isclose(float(traces.length[k, trial]), length, abs_tol=1e-12)
            assert torch.allclose(traces.seen[k, trial], read, atol=1e-12)
    with pytest.raises(TypeError, match="SegmentsState, got a Tensor"):
        analysis.segment_traces(model, torch.zeros(3), us)
    with pytest.raises(TypeError, match="got a DNC"):
        analysis.segment_traces(computer(), torch.zeros(3), us)


# --- places and moves -------------------------------------------------------------------------------------------------


def test_a_head_on_one_slot_is_at_it():
    places = analysis.head_places(torch.eye(7))
    assert torch.allclose(places.slot, torch.arange(7.0), atol=1e-12)
    assert torch.allclose(places.focus, torch.ones(7), atol=1e-12)
    assert (places.slot < 7).all()


def test_a_head_between_the_last_slot_and_the_first_is_between_them():
    weights = torch.zeros(8)
    weights[[7, 0]] = torch.tensor([0.5, 0.5])
    places = analysis.head_places(weights)
    assert math.isclose(float(places.slot), 7.5, abs_tol=1e-9)
    assert math.isclose(float(places.focus), math.cos(math.pi / 8), abs_tol=1e-12)


def test_a_shift_moves_a_head_by_the_circular_mean_of_the_shift_however_it_is_spread():
    weights = torch.softmax(3 * torch.randn(5, 2, 11, generator=seeded()), -1)
    shifts = torch.softmax(torch.randn(5, 2, 3, generator=seeded(1)), -1)
    moves = analysis.head_moves(torch.stack([weights, shifted(weights, shifts)]))[0]
    angle = 2 * math.pi / 11
    expected = (
        torch.atan2(
            (shifts[..., 2] - shifts[..., 0]) * math.sin(angle),
            shifts[..., 1] + (shifts[..., 0] + shifts[..., 2]) * math.cos(angle),
        )
        / angle
    )
    assert torch.allclose(moves, expected, atol=1e-9)


def test_moves_across_the_seam_are_short_ones():
    path = torch.eye(6)[[4, 5, 0, 1, 0, 5]][:, None]
    assert torch.allclose(analysis.head_moves(path)[:, 0], torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0]), atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_head_that_is_nowhere_has_no_place_and_makes_no_move(dtype):
    even, absent = torch.full((128,), 1 / 128, dtype=dtype), torch.zeros(128, dtype=dtype)
    here = torch.eye(128, dtype=dtype)[3]
    path = torch.stack([here, even, absent, here])[:, None]
    assert analysis.head_places(path).slot.isnan()[:, 0].tolist() == [False, True, True, False]
    assert analysis.head_moves(path).isnan().all()
    assert analysis.head_places(path).slot.dtype == dtype


def test_moves_need_two_states():
    with pytest.raises(ValueError, match="no two"):
        analysis.head_moves(torch.eye(4)[:1])


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ax():
    return Figure().subplots()


def test_a_weighting_is_drawn_slot_by_slot_from_black_to_white(ax):
    weights = torch.rand(6, 9, generator=seeded(), requires_grad=True)
    assert plots.weighting(ax, weights, dt=0.5, slots=(2, 7)) is ax
    (image,) = ax.images
    assert np.allclose(image.get_array(), weights[:, 2:7].T.detach())
    assert all(tick == round(tick) for tick in ax.get_yticks())
    assert tuple(image.get_extent()) == (0, 3.0, 6.5, 1.5)
    assert image.get_clim() == (0, 1)
    assert image.cmap(0.0)[:3] == (0, 0, 0)


def test_slots_are_shown_across_the_seam_of_the_ring(ax):
    weights = np.random.default_rng(0).uniform(size=(6, 9))
    plots.weighting(ax, weights, slots=(-2, 3))
    (image,) = ax.images
    assert np.allclose(image.get_array(), weights[:, [7, 8, 0, 1, 2]].T)
    assert tuple(image.get_extent()) == (0, 6, 2.5, -2.5)
    with pytest.raises(ValueError, match=r"slots = \(-5, 5\) is no range"):
        plots.weighting(ax, weights, slots=(-5, 5))


def test_vectors_have_white_at_zero_whatever_their_sign(ax):
    plots.vectors(ax, np.array([[0.0, 3.0], [-1.0, 0.0]]))
    (image,) = ax.images
    assert image.get_clim() == (-3, 3)
    plots.vectors(ax, np.zeros((2, 2)))
    assert ax.images[1].get_clim() == (-1, 1)


def test_both_heads_are_seen_where_they_are_and_darkest_where_they_meet(ax):
    write, read = np.zeros((3, 4)), np.zeros((3, 4))
    write[0, 1] = read[1, 2] = write[2, 3] = read[2, 3] = 1
    plots.heads(ax, write, read)
    light = np.asarray(ax.images[0].get_array())
    assert np.array_equal(light[0, 0], [1, 1, 1])
    green, pink, both = light[1, 0], light[2, 1], light[3, 2]
    assert np.argmax(green) == 1
    assert np.argmin(pink) == 1
    assert np.allclose(both, green * pink)
    assert [text.get_text() for text in ax.legend().get_texts()] == ["write", "read"]


def test_gates_are_steps_over_the_samples(ax):
    plots.gates(ax, np.array([[0.0, 1.0], [1.0, 0.5]]), ["free", "write"], dt=2.0)
    first, second = ax.patches
    assert np.array_equal(first.get_data().values, [0, 1])
    assert np.array_equal(second.get_data().edges, [0, 2, 4])
    with pytest.raises(ValueError, match="2 gates need as many names"):
        plots.gates(ax, np.zeros((3, 2)), ["free"])


def test_links_are_drawn_with_the_later_slot_in_the_row(ax):
    link = np.zeros((4, 4))
    link[2, 0] = 1
    plots.links(ax, link)
    assert np.asarray(ax.images[0].get_array())[2, 0] == 1
    assert ax.get_ylabel() == "slot written next"


@pytest.mark.parametrize("build", [machine, computer])
def test_the_six_panels_show_one_trial(build):
    model = build()
    us = drive()[:, 0]
    run = integrate(model, us, dt=1.0)
    traces = analysis.head_traces(model, run.xs)
    axes = Figure().subplots(3, 2)
    assert plots.inside_memory(axes, traces, us, run.ys.detach(), read_head=1) is axes
    shown = [np.asarray(ax.images[0].get_array()) for ax in axes.ravel()]
    expected = (us, run.ys.detach(), traces.added[:, 0], traces.seen[:, 1], traces.write[:, 0], traces.read[:, 1])
    assert all(np.allclose(a, b.T) for a, b in zip(shown, expected, strict=True))


def test_several_trials_or_too_few_axes_are_refused():
    model = machine()
    us = drive()
    run = integrate(model, us, dt=1.0)
    traces = analysis.head_traces(model, run.xs)
    with pytest.raises(ValueError, match="choose one trial"):
        plots.inside_memory(Figure().subplots(3, 2), traces, us, run.ys)
    with pytest.raises(ValueError, match="six axes, got 4"):
        plots.inside_memory(Figure().subplots(2, 2), traces, us, run.ys)
    with pytest.raises(ValueError, match=r"slots = \(3, 9\)"):
        plots.weighting(Figure().subplots(), torch.zeros(3, 7), slots=(3, 9))
    with pytest.raises(ValueError, match="one memory at the same times"):
        plots.heads(Figure().subplots(), np.zeros((3, 4)), np.zeros((2, 4)))
