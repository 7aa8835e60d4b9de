"""What a model returns must have the form of its state; what is run without gradients is what is run with them."""

import pytest
import torch

import ctrnn
from ctrnn import _tree as tree
from ctrnn.models import CTRNN, LSTM


class Wrong(ctrnn.Relaxation):
    """A target that is whatever it is told."""

    n_in = 0

    def __init__(self, answer):
        super().__init__()
        self.tau, self.answer = 1.0, answer

    def target(self, t, x, u, alpha=0):
        return self.answer(x)

    def initial_state(self, *batch):
        return torch.zeros(*batch, 3)


WRONG = {
    "one unit for three": (lambda x: x[..., :1], ValueError, r"shape \(1,\), its state \(3,\)"),
    "a batch of its own": (lambda x: x.expand(2, 3), ValueError, r"shape \(2, 3\)"),
    "nothing": (lambda x: None, TypeError, "NoneType"),
    "a pair": (lambda x: (x, x), TypeError, "tuple"),
}


@pytest.mark.parametrize("how", WRONG)
@pytest.mark.parametrize("solver", [ctrnn.Iterate(), ctrnn.Euler(), ctrnn.ExponentialEuler(), ctrnn.RK4()], ids=str)
def test_a_target_of_another_form_than_the_state_is_named(how, solver):
    answer, kind, says = WRONG[how]
    with pytest.raises(kind, match=says):
        ctrnn.integrate(Wrong(answer), t_span=(0.0, 1.0), dt=0.5, solver=solver)


@pytest.mark.parametrize("how", WRONG)
def test_an_adaptive_run_names_it_as_well(how):
    answer, kind, _ = WRONG[how]
    with pytest.raises(kind, match="The model's target"):
        ctrnn.integrate(Wrong(answer), t_span=(0.0, 1.0))


def test_a_slope_of_another_shape_than_the_state_is_named():
    class Field(ctrnn.Model):
        def forward(self, t, x, u):
            return x[..., :2]

        def initial_state(self, *batch):
            return torch.zeros(*batch, 3)

    with pytest.raises(ValueError, match="slope has the shape"):
        ctrnn.integrate(Field(), t_span=(0.0, 1.0), dt=0.5)


DRIVES = {
    "held": lambda us: ctrnn.Held(us, 0.5),
    "ragged": lambda us: ctrnn.Held(us, 0.5, lengths=torch.tensor([6, 1, 4])),
    "linear": lambda us: ctrnn.Linear(us, 0.5),
    "function": lambda us: ctrnn.Function(lambda t: torch.sin(3 * t * (1 + torch.arange(2))) * us[0].abs()),
    "own times": lambda us: ctrnn.Held(
        us, edges=torch.rand(7, 3, generator=torch.Generator().manual_seed(3)).cumsum(0)
    ),
}


@pytest.mark.parametrize("drive", DRIVES)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("solver", [ctrnn.Tsit5(), ctrnn.Bosh3(), ctrnn.Rodas4()], ids=str)
@pytest.mark.parametrize("kind", [CTRNN, LSTM])
def test_an_adaptive_run_without_gradients_gives_what_one_with_them_gives(kind, solver, dense, drive, generator):
    model = kind(4, 2, generator=generator)
    us = torch.randn(6, 3, 2, generator=generator)
    save = ctrnn.At(torch.tensor([0.6, 0.75, 1.1, 1.9])) if dense else None
    x0 = model.initial_state(3)

    def run():
        steps = ctrnn.Adaptive(1e-5, 1e-6)
        t_span = (0.0, 2.0) if drive == "function" else None
        return ctrnn.integrate(model, DRIVES[drive](us), x0, t_span=t_span, steps=steps, solver=solver, save=save)

    with torch.no_grad():
        quick = run()
    full = run()
    assert torch.equal(quick.ts, full.ts.detach())
    assert [torch.equal(a, b) for a, b in zip(quick.stats, full.stats, strict=True)] == [True] * 4
    for a, b in zip(tree.leaves(quick.xs), tree.leaves(full.xs), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12, equal_nan=True)


def test_a_failed_sample_is_nan_in_a_run_without_gradients_too():
    class Blow(ctrnn.Model):
        def forward(self, t, x, u):
            return x**2

        def initial_state(self, *batch):
            return torch.zeros(*batch, 1)

    ts = torch.tensor([0.25, 0.75])
    with torch.no_grad():
        run = ctrnn.integrate(
            Blow(), None, torch.tensor([[0.5], [2.0]]), t_span=(0.0, 1.0), save=ctrnn.At(ts), on_failure="return"
        )
    assert torch.isnan(run.xs[..., 0]).tolist() == [[False, False], [False, True]]
    assert torch.allclose(run.xs[:, 0, 0], 1 / (2 - ts), atol=1e-5)


@pytest.mark.parametrize("grad", [False, True])
def test_a_time_before_a_samples_own_start_is_nan_and_masked_by_nothing_else(grad):
    model = CTRNN(2, 1)
    edges = torch.tensor([[0.0, 0.5], [1.0, 1.5]])
    drive = ctrnn.Held(torch.ones(1, 2, 1), edges=edges)
    with torch.set_grad_enabled(grad):
        run = ctrnn.integrate(model, drive, steps=ctrnn.Adaptive(), save=ctrnn.At(torch.tensor([0.25, 0.75])))
    assert torch.isnan(run.xs).any(-1).tolist() == [[False, True], [False, False]]
    assert run.stats.status.tolist() == [0, 0]


def test_tolerances_below_what_the_dtype_resolves_are_pointed_out():
    model = CTRNN(3, 0).float()
    with pytest.warns(UserWarning, match="more than torch.float32 resolves"):
        ctrnn.integrate(model, t_span=(0.0, 0.1), steps=ctrnn.Adaptive(1e-9, 1e-9))


def test_noise_on_a_bare_vector_field_is_refused_by_name():
    with pytest.raises(ValueError, match="Lorenz is a bare vector field"):
        ctrnn.integrate(ctrnn.Lorenz(), t_span=(0.0, 1.0), dt=0.1, noise=0.1)


def test_a_constrained_network_is_named_in_messages_as_its_author_named_it():
    model = ctrnn.MTRNN({"fast": (2, 2.0), "slow": (2, 8.0)}, 3)
    with pytest.raises(ValueError, match=r"us, shape \(5, 1\)\), MTRNN has n_in=3"):
        ctrnn.integrate(model, torch.zeros(5, 1), dt=1.0)


def test_torchdiffeqs_default_tolerances_are_fine_in_float32():
    y = ctrnn.odeint(lambda t, y: -y, torch.ones(2, dtype=torch.float32), torch.linspace(0, 1, 3, dtype=torch.float32))
    assert torch.allclose(y[-1], torch.exp(torch.tensor(-1.0)).float(), atol=1e-6)
