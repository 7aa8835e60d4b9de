import copy
import json

import pytest
import torch
from torch.func import functional_call, jacrev, jvp, vmap

from ctrnn import _tree as tree
from ctrnn.dynamics import Model, Relaxation, Wrapped
from ctrnn.models import LSTM, MTRNN, Stack
from tests.laws import alphas, flat_step, graph_has_cycle, model_classes, point, relaxation_classes, step

every_model = pytest.mark.parametrize("kind", model_classes(), ids=lambda kind: kind.__name__)
every_relaxation = pytest.mark.parametrize("kind", relaxation_classes(), ids=lambda kind: kind.__name__)
every_saved_model = pytest.mark.parametrize(
    "kind", [kind for kind in model_classes() if kind.config is not Model.config], ids=lambda kind: kind.__name__
)


def assert_same(a, b):
    """Bit for bit, of the same type."""
    assert type(a) is type(b)
    for left, right in zip(tree.leaves(a), tree.leaves(b), strict=True):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)


def assert_close(a, b, rtol=1e-12, atol=1e-12):
    for left, right in zip(tree.leaves(a), tree.leaves(b), strict=True):
        torch.testing.assert_close(left, right, rtol=rtol, atol=atol)


def test_the_walk_finds_models_in_every_file_and_leaves_out_common_parts():
    names = {kind.__name__ for kind in model_classes()}
    assert {"CTRNN", "MTRNN", "LSTM", "Stack", "Henon", "Lorenz", "Wrapped"} <= names
    assert names.isdisjoint({"Model", "Relaxation", "Units", "Cell", "Textbook"})


@every_model
def test_the_docstring_begins_with_an_equation(kind):
    first = kind.__doc__.splitlines()[0]
    assert "=" in first or "->" in first


@every_model
def test_the_initial_state_has_the_leading_axes_asked_for_and_the_weights_dtype(kind):
    for dtype in (torch.float32, torch.float64):
        model = kind.example().to(dtype)
        single, many = (tree.leaves(model.initial_state(*batch)) for batch in ((), (2, 3)))
        for one, all_ in zip(single, many, strict=True):
            assert all_.shape == (2, 3, *one.shape)
            assert one.dtype == all_.dtype == dtype


@every_model
def test_a_row_of_a_batch_moves_as_it_would_alone(kind):
    model = kind.example()
    t, x, u = point(model, 2, 3)
    moved = step(model, t, x, u)
    for i, j in ((0, 0), (0, 2), (1, 1)):
        alone = step(model, t, tree.map(lambda leaf, i=i, j=j: leaf[i, j], x), u[i, j])
        assert_close(alone, tree.map(lambda leaf, i=i, j=j: leaf[i, j], moved))


@every_model
def test_a_model_that_runs_changes_neither_itself_nor_its_arguments_nor_the_generator(kind):
    model = kind.example()
    t, x, u = point(model, 3)
    before = copy.deepcopy((model.state_dict(), x, u)), torch.get_rng_state()
    step(model, t, x, u)
    model(t, x, u)
    model.readout(x)
    model.initial_state(2)
    (weights, x_before, u_before), rng = before
    assert torch.equal(rng, torch.get_rng_state())
    assert_same(x, x_before)
    assert torch.equal(u, u_before)
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@every_relaxation
def test_the_flow_is_target_minus_state_over_tau(kind):
    model = kind.example()
    t, x, u = point(model, 4)
    expected = tree.map(lambda f, a, tau: (f - a) / tau, model.target(t, x, u, 0), x, tree.spread(model.tau, x))
    assert_same(model(t, x, u), expected)


@every_relaxation
def test_the_target_does_not_care_how_alpha_is_spelled(kind):
    model = kind.example()
    t, x, u = point(model, 4)
    for number in (0, 1):
        assert_same(model.target(t, x, u, number), model.target(t, x, u, float(number)))
        assert_same(model.target(t, x, u, number), model.target(t, x, u, alphas(model, float(number))))


@every_relaxation
def test_a_step_of_alpha_one_is_the_discrete_network_bit_for_bit(kind):
    model = kind.example()
    t, x, u = point(model, 4)
    assert_same(step(model, t, x, u, alpha=1.0), model.target(t, x, u, 1))


@every_model
def test_derivatives_of_one_step_are_those_of_finite_differences(kind):
    model = kind.example()
    t, x, u = point(model, 2)
    parameters = [p for _, p in model.named_parameters()]
    leaves = [leaf.clone().requires_grad_() for leaf in tree.leaves(x)]
    drive = u.clone().requires_grad_(u.numel() > 0)

    def moved(*flat):
        return tuple(tree.leaves(step(model, t, tree.unflatten(x, flat[: len(leaves)]), flat[len(leaves)])))

    size = max(1.0, *(float(leaf.detach().abs().max()) for leaf in moved(*leaves, drive)))
    assert torch.autograd.gradcheck(lambda *a: moved(*a), (*leaves, drive, *parameters), atol=1e-7 * size, rtol=1e-5)


@every_relaxation
def test_the_flow_is_differentiable_in_a_learned_tau(kind):
    model = kind.example()
    model.learn_tau()
    t, x, u = point(model, 2)
    ratios = {name: p for name, p in model.named_parameters() if "log_ratio" in name}
    assert ratios

    def flow(*values):
        return tuple(tree.leaves(functional_call(model, dict(zip(ratios, values, strict=True)), (t, x, u))))

    assert torch.autograd.gradcheck(flow, tuple(ratios.values()))


# torch's own: forward mode loads decompositions with the deprecated jit.script; its fused cells have no batching rule.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings(
    "ignore:There is a performance drop because we have not yet implemented the batching rule:UserWarning"
)
@every_model
def test_functional_call_vmap_jacrev_and_jvp_agree_with_plain_calls(kind):
    model = kind.example()
    t, x, u = point(model, 3)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert_same(functional_call(model, tensors, (t, x, u)), model(t, x, u))
    assert_close(vmap(lambda a, b: step(model, t, a, b))(x, u), step(model, t, x, u))

    one, drive = tree.map(lambda leaf: leaf[0], x), u[0]
    fn, flat = flat_step(model, one), tree.ravel(one, 0)
    J = jacrev(fn)(flat, t, drive)
    assert_close(J, torch.autograd.functional.jacobian(lambda a: fn(a, t, drive), flat))
    direction = torch.linspace(-1, 1, len(flat), dtype=flat.dtype)
    assert_close(jvp(lambda a: fn(a, t, drive), (flat,), (direction,))[1], J @ direction)


@every_model
def test_replaced_weights_reach_a_functional_call(kind):
    model = kind.example()
    t, x, u = point(model, 3)
    doubled = {
        name: 2 * p
        for name, p in [*model.named_parameters(), *model.named_buffers()]
        if p.is_floating_point() and "tau0" not in name
    }
    changed = functional_call(model, doubled, (t, x, u))
    assert any(not torch.equal(a, b) for a, b in zip(tree.leaves(changed), tree.leaves(model(t, x, u)), strict=True))


@every_model
def test_after_double_nothing_of_a_float32_model_is_left(kind):
    torch.set_default_dtype(torch.float32)
    model = kind.example().double()
    assert {p.dtype for p in model.state_dict().values()} <= {torch.float64, torch.bool}
    t, x, u = point(model, 2)
    assert {leaf.dtype for leaf in tree.leaves(step(model, t, x, u))} == {torch.float64}


@every_model
def test_a_float32_model_computes_in_float32(kind):
    model = kind.example().float()
    for batch in ((), (2,)):
        t, x, u = point(model, *batch)
        assert {leaf.dtype for leaf in tree.leaves((step(model, t, x, u), model(t, x, u), model.readout(x)))} == {
            torch.float32
        }


@every_relaxation
def test_the_state_graph_has_a_directed_cycle(kind):
    model = kind.example()
    t, x, u = point(model)
    fn = lambda flat: tree.ravel(model.target(t, tree.unravel(flat, x, 0), u), 0)
    assert graph_has_cycle(jacrev(fn)(tree.ravel(x, 0)).detach())


def test_the_cycle_law_fails_for_a_feed_forward_chain():
    chain = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert not graph_has_cycle(chain)
    chain[0, 2] = 1e-3
    assert graph_has_cycle(chain)


@every_model
def test_the_readout_takes_a_leading_time_axis(kind):
    model = kind.example()
    _, x, _ = point(model, 5, 2)
    all_ = model.readout(x)
    rows = torch.stack([model.readout(tree.map(lambda leaf, k=k: leaf[k], x)) for k in range(5)])
    torch.testing.assert_close(all_, rows, rtol=1e-12, atol=1e-12)


@every_saved_model
def test_a_configuration_is_json_and_rebuilds_the_model(kind):
    model = kind.example()
    again = kind.from_config(json.loads(json.dumps(model.config)))
    assert again.config == model.config
    assert {n: p.shape for n, p in again.state_dict().items()} == {n: p.shape for n, p in model.state_dict().items()}


@every_saved_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loaded_model_is_the_saved_one_bit_for_bit(kind, dtype, tmp_path):
    model = kind.example().to(dtype)
    if isinstance(model, Relaxation):
        model.learn_tau()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.rand_like(p) / 7)
    rng = torch.get_rng_state()
    model.save(tmp_path / "model.safetensors")
    again = Model.load(tmp_path / "model.safetensors")
    assert torch.equal(rng, torch.get_rng_state())
    assert again.config == model.config
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in model.named_parameters()]
    t, x, u = point(model, 3)
    assert_same(step(again, t, x, u), step(model, t, x, u))
    assert_same(tuple(again.state_dict().values()), tuple(model.state_dict().values()))
    assert again.readout(x).equal(model.readout(x))


def test_a_model_without_configuration_says_what_to_do_instead(tmp_path):
    with pytest.raises(NotImplementedError, match="state_dict"):
        Wrapped.example().save(tmp_path / "model.safetensors")


def test_examples_with_structure_are_among_those_tested():
    assert {Stack, LSTM, MTRNN} <= set(relaxation_classes())
