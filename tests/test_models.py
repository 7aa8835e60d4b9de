import numpy as np
import pytest
import torch
from torch import nn

from ctrnn import Bidirectional
from ctrnn import _tree as tree
from ctrnn.dynamics import Model, wrap
from ctrnn.init import Dale, constrain, dale_signs
from ctrnn.models import CTRNN, GRU, LSTM, MTRNN, BeerCTRNN, Elman, LSTMState, PaperGRU, RateRNN, Stack, StackState
from ctrnn.models.activations import identity
from ctrnn.models.stack import layers_from_torch, layers_to_torch

CELLS = {
    "tanh": lambda n_in, n, **k: nn.RNNCell(n_in, n, **k),
    "relu": lambda n_in, n, **k: nn.RNNCell(n_in, n, nonlinearity="relu", **k),
    "gru": nn.GRUCell,
    "lstm": nn.LSTMCell,
}
T0 = torch.zeros(())


def numpy_of(model):
    return {name: p.detach().numpy() for name, p in model.named_parameters()}


def sigma(x):
    return 1 / (1 + np.exp(-x))


# --- the discrete limit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(("n", "n_in"), [(1, 1), (5, 3), (17, 10), (64, 2)])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (33,)])
def test_a_cell_at_alpha_one_is_torchs_bit_for_bit(name, bias, n, n_in, batch, dtype):
    cell = CELLS[name](n_in, n, bias=bias).to(dtype)
    model = Model.from_torch(cell)
    u = torch.randn(*batch, n_in, dtype=dtype)
    x = tree.map(lambda leaf: torch.randn_like(leaf), model.initial_state(*batch))
    flat = lambda leaf: leaf.reshape(-1, leaf.shape[-1]) if len(batch) > 1 else leaf
    expected = cell(flat(u), tuple(map(flat, x)) if name == "lstm" else flat(x))
    for alpha in (1, 1.0, torch.ones((), dtype=dtype), torch.ones(n, dtype=dtype)):
        new = tree.blend(x, model.target(T0, x, u, alpha), alpha)
        for ours, theirs in zip(tree.leaves(new), expected if name == "lstm" else (expected,), strict=True):
            assert torch.equal(flat(ours), theirs)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_stack_at_alpha_one_is_torchs_sequence_module_to_rounding(kind):
    module = kind(3, 5, num_layers=3)
    stack = Model.from_torch(module)
    us = torch.randn(7, 4, 3)
    expected, _ = module(us)
    x, ys = stack.initial_state(4), []
    for u in us:
        x = tree.blend(x, stack.target(T0, x, u, 1), 1)
        ys.append(stack.readout(x))
    torch.testing.assert_close(torch.stack(ys), expected, rtol=1e-12, atol=1e-12)


def test_a_layer_reads_the_one_below_as_the_step_leaves_it():
    below, above = Elman(2, 1), Elman(2, 2)
    stack = Stack([below, above])
    x, u = StackState((torch.randn(2), torch.randn(2))), torch.randn(1)
    for alpha in (0, 0.3, 1):
        new = stack.target(T0, x, u, alpha)
        seen = tree.blend(x.layers[0], below.target(T0, x.layers[0], u), alpha)
        assert torch.equal(new.layers[1], above.target(T0, x.layers[1], seen))


def test_an_lstm_reads_its_cell_as_the_step_leaves_it():
    model = LSTM(4, 2)
    x, u = LSTMState(torch.randn(4), torch.randn(4)), torch.randn(2)
    outer = torch.sigmoid((model.W_rec @ x.h + model.b_rec + model.W_in @ u + model.b_in)[12:])
    for alpha in (0, 0.3, 1):
        new = model.target(T0, x, u, alpha)
        torch.testing.assert_close(new.h, outer * torch.tanh(x.c + alpha * (new.c - x.c)))


# --- equations, by hand in numpy -------------------------------------------------------------------------


def test_the_three_rate_equations_are_those_of_the_literature():
    x, u = np.random.default_rng(0).normal(size=3), np.array([0.3, -0.7])
    tau = np.array([0.5, 1.0, 2.0])
    flow = lambda m: m(T0, torch.tensor(x), torch.tensor(u)).detach().numpy()
    draw = torch.Generator().manual_seed(1)

    voltage = CTRNN(3, 2, tau=tau, activation=torch.relu, generator=draw)
    w = numpy_of(voltage)
    np.testing.assert_allclose(flow(voltage), (-x + w["W_rec"] @ np.maximum(x, 0) + w["W_in"] @ u + w["b_rec"]) / tau)

    rate = RateRNN(3, 2, tau=tau, generator=draw)
    w = numpy_of(rate)
    np.testing.assert_allclose(flow(rate), (-x + np.tanh(w["W_rec"] @ x + w["W_in"] @ u + w["b_rec"])) / tau)

    beer = BeerCTRNN(3, 2, tau=tau, gain=[1.0, 2.0, 3.0], generator=draw)
    w = numpy_of(beer)
    inner = sigma(w["gain"] * (x + w["theta"]))
    np.testing.assert_allclose(flow(beer), (-x + w["W_rec"] @ inner + w["W_in"] @ u) / tau)


def test_the_paper_gru_resets_before_the_recurrent_weights():
    model = PaperGRU(3, 2, generator=torch.Generator().manual_seed(0))
    w, h, u = numpy_of(model), np.array([0.5, -0.2, 0.1]), np.array([1.0, -2.0])
    gates = w["W_in"] @ u + w["b_in"] + np.concatenate([w["W_rec"][:6] @ h + w["b_rec"][:6], np.zeros(3)])
    r, z = sigma(gates[:3]), sigma(gates[3:6])
    c = np.tanh(gates[6:] + w["W_rec"][6:] @ (r * h) + w["b_rec"][6:])
    np.testing.assert_allclose(model.target(T0, torch.tensor(h), torch.tensor(u)).detach(), z * h + (1 - z) * c)


def test_the_two_grus_differ_and_agree_when_the_reset_gate_is_open():
    torch_like, paper = GRU(3, 2), PaperGRU(3, 2)
    paper.load_state_dict(torch_like.state_dict())
    h, u = torch.randn(3), torch.randn(2)
    assert not torch.allclose(torch_like.target(T0, h, u), paper.target(T0, h, u))
    with torch.no_grad():
        for model in (torch_like, paper):
            model.b_rec[:3] = 50.0
    torch.testing.assert_close(torch_like.target(T0, h, u), paper.target(T0, h, u))


def test_beers_two_neurons_have_the_published_eigenvalues_at_centre_crossing():
    model = BeerCTRNN(2)
    with torch.no_grad():
        model.W_rec.copy_(torch.tensor([[4.5, 1.0], [-1.0, 4.5]]))
        model.theta.copy_(torch.tensor([-2.75, -1.75]))
    u, rest = torch.zeros(0), -model.theta.detach()
    torch.testing.assert_close(model(T0, rest, u), torch.zeros(2))
    values = torch.linalg.eigvals(torch.func.jacrev(lambda y: model(T0, y, u))(rest))
    torch.testing.assert_close(values.real, torch.full((2,), 0.125))
    torch.testing.assert_close(values.imag.abs(), torch.full((2,), 0.25))
    torch.testing.assert_close(model.readout(rest), torch.full((2,), 0.5))


# --- readouts --------------------------------------------------------------------------------------------


def test_without_outputs_the_readout_is_what_the_units_send():
    x = torch.randn(4, 3)
    assert torch.equal(CTRNN(3, 1).readout(x), torch.tanh(x))
    assert torch.equal(RateRNN(3, 1).readout(x), x)
    assert torch.equal(GRU(3, 1).readout(x), x)
    assert torch.equal(LSTM(3, 1).readout(LSTMState(x, -x)), x)


def test_with_outputs_the_readout_is_linear_in_what_the_units_send():
    model, x = CTRNN(3, 1, 2), torch.randn(4, 3)
    torch.testing.assert_close(model.readout(x), torch.tanh(x) @ model.W_out.T + model.b_out)


# --- multiple timescales ---------------------------------------------------------------------------------


def groups():
    return {"fast": (3, 1.0), "middle": (2, 5.0), "slow": (4, 70.0)}


def test_an_mtrnn_takes_the_step_of_yamashita_and_tani():
    model = MTRNN(groups(), 2)
    W, W_in, b = (getattr(model, name).detach() for name in ("W_rec", "W_in", "b_rec"))
    tau = torch.tensor([1.0] * 3 + [5.0] * 2 + [70.0] * 4)
    x, u = torch.randn(9), torch.randn(2)
    alpha = 1 / model.tau
    stepped = tree.blend(x, model.target(T0, x, u, alpha), alpha)
    torch.testing.assert_close(stepped, (1 - 1 / tau) * x + 1 / tau * (W @ torch.tanh(x) + W_in @ u + b))


def test_groups_reach_their_neighbours_and_only_the_first_meets_the_world():
    model = MTRNN(groups(), 2, 1)
    fast, middle, slow = (model.units(name) for name in groups())
    assert (model.W_rec[fast, slow] == 0).all()
    assert (model.W_rec[slow, fast] == 0).all()
    for to, sender in ((fast, fast), (fast, middle), (middle, fast), (middle, slow), (slow, middle), (slow, slow)):
        assert (model.W_rec[to, sender] != 0).all()
    assert (model.W_in[fast] != 0).all()
    assert (model.W_in[3:] == 0).all()
    assert (model.W_out[:, fast] != 0).all()
    assert (model.W_out[:, 3:] == 0).all()
    assert torch.arange(9)[slow].tolist() == [5, 6, 7, 8]


def test_a_mask_changes_single_connections_between_groups():
    mask = {("slow", "fast"): True, ("fast", "middle"): False, ("slow", "input"): True, ("output", "slow"): True}
    model = MTRNN(groups(), 2, 1, mask=mask)
    fast, middle, slow = (model.units(name) for name in groups())
    assert (model.W_rec[slow, fast] != 0).all()
    assert (model.W_rec[fast, middle] == 0).all()
    assert (model.W_rec[middle, fast] != 0).all()
    assert (model.W_in[slow] != 0).all()
    assert (model.W_out[:, slow] != 0).all()


def test_a_mask_over_units_replaces_the_recurrent_connections():
    mask = torch.rand(9, 9) < 0.5
    model = MTRNN(groups(), 2, mask=mask)
    assert torch.equal(model.W_rec != 0, mask)
    assert MTRNN.from_config(model.config).parametrizations.W_rec[0].mask.equal(mask)


def test_training_keeps_the_mask_and_moves_the_rest():
    model = MTRNN(groups(), 2, 1)
    before = {name: getattr(model, name).detach().clone() for name in ("W_rec", "W_in", "W_out")}
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    x, u = torch.randn(5, 9), torch.randn(5, 2)
    for _ in range(3):
        optimiser.zero_grad()
        y = model.readout(x + model(T0, x, u))
        (model(T0, x, u).square().mean() + y.square().mean()).backward()
        optimiser.step()
    for name, old in before.items():
        new = getattr(model, name).detach()
        assert torch.equal(new == 0, old == 0)
        assert (new != old)[old != 0].all()


# --- time constants --------------------------------------------------------------------------------------


def test_a_learned_tau_has_the_shape_in_which_it_was_given():
    assert CTRNN(3, 1, tau=2.0, learn_tau=True).log_ratio.shape == ()
    model = GRU(3, 1, tau=torch.tensor([0.1, 0.2, 0.3]), learn_tau=True)
    assert isinstance(model.log_ratio, nn.Parameter)
    assert torch.equal(model.tau, torch.tensor([0.1, 0.2, 0.3]))
    with pytest.raises(ValueError, match=r"shape \(2,\) does not fit the learned tau of shape \(3,\)"):
        model.tau = [1.0, 2.0]


def test_an_lstm_has_one_time_constant_for_each_part_of_its_state():
    model = LSTM(3, 1, tau=2.0)
    assert model.tau == LSTMState(torch.tensor(2.0), torch.tensor(2.0))
    model.tau = LSTMState(h=1.0, c=[3.0, 4.0, 5.0])
    assert torch.equal(model.tau.c, torch.tensor([3.0, 4.0, 5.0]))
    model.tau = 0.7
    assert model.tau == LSTMState(torch.tensor(0.7), torch.tensor(0.7))


def test_a_stack_hands_tau_to_its_layers():
    stack = Stack([LSTM(2, 1, tau=1.0), GRU(3, 2, tau=2.0)])
    assert stack.tau == StackState((LSTMState(torch.tensor(1.0), torch.tensor(1.0)), torch.tensor(2.0)))
    stack.tau = StackState((LSTMState(0.5, 0.25), [1.0, 2.0, 3.0]))
    assert stack.layers[0].tau.c == 0.25
    assert torch.equal(stack.layers[1].tau, torch.tensor([1.0, 2.0, 3.0]))
    stack.tau = 0.1
    assert {float(leaf) for leaf in tree.leaves(stack.tau)} == {0.1}
    stack.learn_tau()
    assert [name for name, _ in stack.named_parameters() if "log_ratio" in name] == [
        "layers.0.log_ratio_h",
        "layers.0.log_ratio_c",
        "layers.1.log_ratio",
    ]
    stack.floor_tau(0.2)
    for leaf in tree.leaves(stack.tau):
        torch.testing.assert_close(leaf, torch.tensor(0.2))
    with pytest.raises(ValueError, match="2 layers, the new tau has 1"):
        stack.tau = StackState((1.0,))


def test_a_stack_holds_wrapped_cells_and_other_stacks():
    stack = Stack([wrap(nn.LSTMCell(2, 3)), Stack([GRU(3, 3), CTRNN(2, 3, 1)])])
    x = stack.initial_state(4)
    assert stack(T0, x, torch.randn(4, 2))._fields == ("layers",)
    assert stack.readout(x).shape == (4, 1)


# --- torch and back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_goes_to_the_models_and_back_unchanged(name, bias, dtype):
    cell = CELLS[name](2, 3, bias=bias).to(dtype)
    rng = torch.get_rng_state()
    back = Model.from_torch(cell).to_torch()
    assert torch.equal(rng, torch.get_rng_state())
    assert type(back) is type(cell)
    assert str(back) == str(cell)
    assert_equal_weights(back, cell)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.RNN, {}),
        (nn.RNN, {"num_layers": 2, "nonlinearity": "relu"}),
        (nn.GRU, {"num_layers": 3, "bias": False}),
        (nn.LSTM, {"num_layers": 2, "batch_first": True}),
    ],
)
def test_a_sequence_module_goes_to_a_stack_and_back_unchanged(kind, options):
    module = kind(2, 3, **options)
    stack = Model.from_torch(module)
    assert isinstance(stack, Stack)
    assert len(stack.layers) == module.num_layers
    back = stack.to_torch()
    assert type(back) is type(module)
    assert_equal_weights(back, module)
    us = torch.randn(5, 2)
    assert torch.equal(back(us)[0], module(us)[0])


def test_both_halves_of_a_bidirectional_module_go_to_layers_and_back():
    module = nn.LSTM(2, 3, bidirectional=True)
    back = layers_to_torch(layers_from_torch(module), layers_from_torch(module, reverse=True))
    assert back.bidirectional
    assert_equal_weights(back, module)


def assert_equal_weights(a, b):
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, value in a.state_dict().items():
        assert value.dtype == b.state_dict()[name].dtype
        assert torch.equal(value, b.state_dict()[name])


def test_weights_are_copied_and_not_shared():
    cell = nn.GRUCell(2, 3)
    model = Model.from_torch(cell)
    back = model.to_torch()
    with torch.no_grad():
        model.W_rec.zero_()
    assert cell.weight_hh.abs().min() > 0
    assert back.weight_hh.abs().min() > 0


def test_frozen_weights_stay_frozen_both_ways():
    cell = nn.LSTMCell(2, 3)
    cell.weight_hh.requires_grad_(False)
    model = Model.from_torch(cell)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["W_rec"]
    assert [name for name, p in model.to_torch().named_parameters() if not p.requires_grad] == ["weight_hh"]
    frozen = nn.GRU(2, 3, 2).requires_grad_(False)
    assert not any(p.requires_grad for p in Model.from_torch(frozen).parameters())


def test_a_class_gives_its_own_twins_only():
    assert type(Bidirectional.twin_of(nn.GRU(3, 4, bidirectional=True))) is Bidirectional
    assert type(GRU.from_torch(nn.GRUCell(3, 4))) is GRU
    assert type(Stack.from_torch(nn.GRU(3, 4))) is Stack
    for kind, module, twin in (
        (GRU, nn.LSTMCell(3, 4), "LSTMCell is a LSTM"),
        (GRU, nn.GRU(3, 4), "GRU is a Stack"),
        (CTRNN, nn.RNNCell(3, 4), "RNNCell is a Elman"),
        (Stack, nn.GRU(3, 4, bidirectional=True), "GRU is a Bidirectional"),
    ):
        with pytest.raises(TypeError, match=rf"nn\.{twin} here, not a {kind.__name__}: use Model\.from_torch"):
            kind.from_torch(module)


def test_a_constrained_network_is_called_by_its_own_name():
    model = constrain(CTRNN(5, 2), "W_rec", Dale(dale_signs(5)))
    with pytest.raises(TypeError, match="no counterpart of CTRNN:"):
        model.to_torch()


def test_a_twin_stays_on_the_device_of_its_module():
    stack = Model.from_torch(nn.LSTM(2, 3, 2, device="meta"))
    assert {p.device.type for p in [*stack.parameters(), *stack.buffers()]} == {"meta"}
    assert stack.initial_state(4).layers[1].c.device.type == "meta"


def test_constrained_weights_go_to_torch_as_the_network_sees_them():
    model = constrain(Elman(5, 2), "W_rec", Dale(dale_signs(5)))
    assert torch.equal(model.to_torch().weight_hh, model.W_rec)


@pytest.mark.parametrize(
    ("module", "error", "match"),
    [
        (nn.LSTM(2, 3, 2, dropout=0.1), ValueError, "dropout=0.1"),
        (nn.LSTM(2, 3, proj_size=2), ValueError, "proj_size=2"),
        (nn.Linear(2, 3), TypeError, "nothing that has been imported stands for Linear"),
    ],
)
def test_a_module_without_twin_is_refused(module, error, match):
    with pytest.raises(error, match=match):
        Model.from_torch(module)


@pytest.mark.parametrize(
    ("model", "error", "match"),
    [
        (lambda: CTRNN(3, 2), TypeError, "no counterpart of CTRNN"),
        (lambda: PaperGRU(3, 2), TypeError, "no counterpart of PaperGRU"),
        (lambda: GRU(3, 2, 1), ValueError, "no readout"),
        (lambda: GRU(3, 2, tau=[1.0, 1.0, 2.0]), ValueError, "no time constants"),
        (lambda: Elman(3, 2, activation=torch.sigmoid), ValueError, "tanh and relu"),
        (lambda: Stack([GRU(3, 2), LSTM(3, 3)]), ValueError, "one kind"),
        (lambda: Stack([GRU(3, 2), GRU(4, 3)]), ValueError, "one size"),
        (lambda: Stack([GRU(3, 2), GRU(3, 3, tau=2.0)]), ValueError, "no time constants"),
    ],
)
def test_a_model_without_twin_is_refused(model, error, match):
    with pytest.raises(error, match=match):
        model().to_torch()


# --- arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CTRNN, RateRNN, BeerCTRNN, Elman, GRU, PaperGRU, LSTM])
@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"n": 0}, ValueError, "n must be at least 1, got 0"),
        ({"n_in": -1}, ValueError, "n_in must be at least 0"),
        ({"n_out": 0}, ValueError, "n_out must be at least 1"),
        ({"n": 2.5}, TypeError, "n must be an integer"),
        ({"tau": 0.0}, ValueError, "tau must be positive"),
        ({"tau": [1.0, -1.0, 1.0]}, ValueError, "tau must be positive"),
        ({"tau": float("nan")}, ValueError, "tau must be positive"),
        ({"tau": [1.0, 2.0]}, ValueError, r"one number or one per unit \(3\), got the shape \(2,\)"),
    ],
)
def test_a_constructor_says_what_is_wrong(kind, arguments, error, match):
    with pytest.raises(error, match=match):
        kind(**{"n": 3, "n_in": 2, **arguments})


@pytest.mark.parametrize("kind", [CTRNN, RateRNN, Elman])
def test_an_activation_is_a_function_and_not_a_name(kind):
    with pytest.raises(TypeError, match="must be a function"):
        kind(3, 2, activation="tanh")


@pytest.mark.parametrize(
    ("build", "error", "match"),
    [
        (lambda: BeerCTRNN(3, gain=[1.0, 2.0]), ValueError, "gain must be"),
        (lambda: LSTM(3, 1, tau=(1.0, 2.0)), TypeError, r"LSTMState\(h"),
        (lambda: Stack([]), ValueError, "at least one layer"),
        (lambda: Stack([nn.GRUCell(2, 3)]), TypeError, r"wrap\(cell\)"),
        (lambda: Stack([GRU(3, 2), GRU(3, 2)]), ValueError, "give it n_in=3"),
        (lambda: MTRNN({}, 1), ValueError, "at least one group"),
        (lambda: MTRNN({"fast": (0, 1.0)}, 1), ValueError, "units of group 'fast'"),
        (lambda: MTRNN({"fast": (2, 0.0)}, 1), ValueError, "tau of group 'fast'"),
        (lambda: MTRNN({"input": (2, 1.0)}, 1), ValueError, "cannot be called 'input'"),
        (lambda: MTRNN(groups(), 1, mask={("fast", "nobody"): True}), ValueError, "nobody"),
        (lambda: MTRNN(groups(), 1, mask=torch.ones(2, 2, dtype=torch.bool)), ValueError, r"\(9, 9\)"),
        (lambda: MTRNN(groups(), 1, mask=torch.ones(9, 9)), TypeError, "bool"),
        (lambda: MTRNN(groups(), 1).units("nobody"), ValueError, "no group 'nobody'"),
    ],
)
def test_structured_models_say_what_is_wrong(build, error, match):
    with pytest.raises(error, match=match):
        build()


@pytest.mark.parametrize("kind", [CTRNN, RateRNN, BeerCTRNN, Elman, GRU, PaperGRU, LSTM])
def test_weights_come_from_the_generator_alone(kind):
    rng = torch.get_rng_state()
    one, two = (kind(4, 2, 1, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))
    torch.manual_seed(3)
    three = kind(4, 2, 1)
    torch.manual_seed(3)
    assert all(torch.equal(p, q) for p, q in zip(three.parameters(), kind(4, 2, 1).parameters(), strict=True))


def test_a_network_without_input_runs():
    for model in (CTRNN(3, 0), BeerCTRNN(3), GRU(3, 0)):
        x = torch.randn(4, 3)
        assert torch.equal(model(T0, x, torch.zeros(4, 0)), model(T0, x, torch.zeros(0)))


def test_a_linear_network_with_identity_activation_is_linear():
    model, x, u = CTRNN(3, 2, activation=identity), torch.randn(3), torch.randn(2)
    with torch.no_grad():
        model.b_rec.zero_()
    torch.testing.assert_close(model(T0, 2 * x, 2 * u), 2 * model(T0, x, u))
