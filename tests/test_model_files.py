import json

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from ctrnn._files import FileFormatError, read_tensors, write_tensors
from ctrnn.dynamics import Model
from ctrnn.init import Constraint, Dale, Masked, constrain, dale_signs, sparse_mask
from ctrnn.models import CTRNN, GRU, LSTM, MTRNN, LSTMState, Stack
from ctrnn.models.activations import NAMES

T0 = torch.zeros(())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", NAMES)
def test_every_named_activation_survives_a_file(name, path):
    CTRNN(3, 2, activation=NAMES[name]).save(path)
    assert Model.load(path).activation is NAMES[name]


def test_an_activation_of_ones_own_is_refused_before_anything_is_written(path):
    with pytest.raises(ValueError, match="tanh, relu, sigmoid"):
        CTRNN(3, 2, activation=torch.sin).save(path)
    assert not path.exists()


def test_a_tau_assigned_or_learned_after_construction_survives_a_file(path):
    model = GRU(3, 2, tau=1.0)
    model.tau = torch.tensor([0.1, 0.2, 0.3])
    model.learn_tau()
    with torch.no_grad():
        model.log_ratio.normal_()
    model.save(path)
    again = GRU.load(path)
    assert torch.equal(again.tau, model.tau)
    assert torch.equal(again.tau0, model.tau0)
    assert isinstance(again.log_ratio, nn.Parameter)


def test_a_state_dict_takes_its_tau_along_whatever_its_shape():
    model, other = LSTM(3, 2), LSTM(3, 2)
    model.tau = LSTMState(h=2.0, c=[1.0, 2.0, 3.0])
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.tau.c, model.tau.c)


def test_one_layer_in_two_places_is_one_layer_after_loading(path):
    layer = GRU(3, 3)
    layer.learn_tau()
    constrain(layer, "W_in", Masked(torch.ones(9, 3).bool()))
    stack = Stack([layer, GRU(3, 3), layer])
    stack.save(path)
    again = Stack.load(path)
    assert again.layers[2] is again.layers[0]
    assert again.layers[1] is not again.layers[0]
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in stack.named_parameters()]
    for name, tensor in stack.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_constraints_survive_a_file_and_go_on_holding(path):
    stack = Stack([CTRNN(5, 2), GRU(3, 5)])
    mask, signs = sparse_mask(5, 0.4), dale_signs(5)
    constrain(stack.layers[0], "W_rec", Masked(mask))
    constrain(stack.layers[0], "W_rec", Dale(signs))
    stack.save(path)
    again = Stack.load(path)
    kept = again.layers[0]
    assert torch.equal(kept.W_rec, stack.layers[0].W_rec)
    kept.W_rec = torch.randn(5, 5)
    assert torch.equal(kept.W_rec != 0, mask)
    assert (kept.W_rec * signs >= 0).all()
    assert isinstance(kept, CTRNN)


def test_a_constraint_added_to_an_mtrnn_joins_its_mask(path):
    model = MTRNN({"fast": (4, 1.0), "slow": (2, 10.0)}, 2, mask={("fast", "slow"): False})
    constrain(model, "W_rec", Dale(dale_signs(6)))
    model.save(path)
    again = Model.load(path)
    assert [type(c) for c in again.parametrizations.W_rec] == [Masked, Dale]
    assert torch.equal(again.W_rec, model.W_rec)
    assert again.units("slow") == slice(4, 6)


def test_a_parametrisation_that_no_file_can_restore_is_refused(path):
    model = CTRNN(3, 2)
    parametrize.register_parametrization(model, "W_rec", nn.Tanh(), unsafe=True)
    with pytest.raises(TypeError, match="W_rec is parametrised by Tanh"):
        model.save(path)
    assert not path.exists()


class Doubling(CTRNN):
    """tau dx/dt = -x + 2 W f(x): a class of the user's own, with its constraint."""


class Positive(Constraint):
    """|W|."""

    def forward(self, W):
        return W.abs()


def test_classes_of_ones_own_survive_a_file(path):
    constrain(Doubling(3, 2), "W_rec", Positive()).save(path)
    again = CTRNN.load(path)
    assert isinstance(again, Doubling)
    assert (again.W_rec >= 0).all()


# --- bad files --------------------------------------------------------------------------------------------------------


def altered(path, tensors=lambda t: t, **changes):
    """A model file with some of its contents replaced."""
    CTRNN(3, 2).save(path)
    content, document = read_tensors(path)
    write_tensors(path, tensors(content), document | changes)
    return path


def config(**changes):
    return CTRNN(3, 2).config | changes


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"kind": "trajectory"}, "holds a 'trajectory', not a model"),
        ({"class": "os.system"}, "holds a 'os.system', and no imported Model"),
        ({"class": "Unheard"}, "import its module"),
        ({"class": ["CTRNN"]}, "no imported Model"),
        ({"class": "Relaxation"}, "cannot load a model"),
        ({"config": None}, "cannot load a model"),
        ({"config": {}}, "activation"),
        ({"config": config(activation="eval")}, "no activation is called 'eval'"),
        ({"config": config(n="3")}, "n must be an integer"),
        ({"config": config(n=-3)}, "n must be at least 1"),
        ({"config": config(n=4)}, "size mismatch for W_rec"),
        ({"config": config(n=10**7)}, "cannot load a model"),
        ({"config": config(surprise=1)}, "surprise"),
        ({"config": config(n_out=2)}, "Missing key"),
        ({"config": config(tau=-1.0)}, "tau must be positive"),
        ({"config": config(tau={"h": 1.0})}, "cannot load a model"),
        ({"constraints": {"W_rec": ["Linear"]}}, "no imported Constraint has that name"),
        ({"constraints": {"W_rec": ["Dale"]}}, "cannot load a model"),
        ({"constraints": {"layers.0.W_rec": ["Dale"]}}, "cannot load a model"),
        ({"constraints": 3}, "cannot load a model"),
        ({"shared": {"": "layers.0"}}, "cannot load a model"),
        ({"shared": {"W_rec": ""}}, "cannot load a model"),
        ({"shared": 3}, "cannot load a model"),
    ],
)
def test_a_file_with_a_wrong_document_is_refused(changes, match, path):
    with pytest.raises(FileFormatError, match=match):
        Model.load(altered(path, **changes))


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "W_rec"}, "Missing key.*W_rec"),
        (lambda t: t | {"extra": torch.ones(1)}, "Unexpected key.*extra"),
        (lambda t: t | {"W_rec": torch.ones(2, 2)}, "size mismatch for W_rec"),
        (lambda t: t | {"W_rec": torch.ones(3, 3, dtype=torch.int64)}, "W_rec is of torch.int64"),
        (lambda t: t | {"tau0": torch.tensor(-1.0)}, "tau must be positive"),
        (lambda t: t | {"tau0": torch.tensor(float("nan"))}, "tau must be positive"),
    ],
)
def test_a_file_with_wrong_tensors_is_refused(tensors, match, path):
    with pytest.raises(FileFormatError, match=match):
        Model.load(altered(path, tensors))


def test_a_file_of_another_class_is_refused(path):
    GRU(3, 2).save(path)
    with pytest.raises(FileFormatError, match="holds a 'GRU', and no imported LSTM"):
        LSTM.load(path)


def test_a_truncated_or_foreign_file_is_refused(path):
    GRU(3, 2).save(path)
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:20], b"", b"not a model", json.dumps({"class": "GRU"}).encode()):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=r"model\.safetensors"):
            Model.load(path)


def test_a_missing_file_is_an_os_error(path):
    with pytest.raises(FileNotFoundError):
        Model.load(path)
