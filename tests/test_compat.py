"""torchdiffeq's call on our loop: its results, its call shape, and what is not offered."""

import pytest
import torch
import torchdiffeq
from torch import nn

import ctrnn
from ctrnn.compat import ADAPTIVE, ELSEWHERE, FIXED, pack, unpack

TIMES = {"forwards": (0.0, 0.3, 1.1, 2.0), "backwards": (1.0, 0.2, 0.1, -1.0)}


class Field(nn.Module):
    """dy/dt = cos(t) tanh(W y) - 0.3 y."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        values = [[0.4, -1.2, 0.3], [0.9, 0.1, -0.5], [-0.2, 0.8, 0.6]]
        self.W = nn.Parameter(torch.tensor(values, dtype=dtype))

    def forward(self, t, y):
        assert t.ndim == 0
        return torch.cos(t) * torch.tanh(y @ self.W.T) - 0.3 * y


def start():
    return torch.tensor([[0.5, -1.0, 0.2], [1.5, 0.3, -0.4]], requires_grad=True)


def with_gradients(call, func, y0, t, **rest):
    t = torch.tensor(t, requires_grad=True)
    ys = call(func, y0, t, **rest)
    weights = torch.linspace(0.5, 1.5, ys.numel()).reshape(ys.shape)
    return ys.detach(), torch.autograd.grad((ys * weights).sum(), (y0, t, func.W))


@pytest.mark.parametrize("direction", TIMES)
@pytest.mark.parametrize("call", [ctrnn.odeint, ctrnn.odeint_adjoint])
@pytest.mark.parametrize("method", [None, "bosh3", "tsit5", "rk4", "dopri8"])
def test_states_and_gradients_agree_with_torchdiffeq(method, call, direction):
    t = TIMES[direction]
    options = {"step_size": 0.02} if method == "rk4" else None
    tight = {"rtol": 1e-9, "atol": 1e-9} if method != "bosh3" else {}
    ys, slopes = with_gradients(call, Field(), start(), t, method=method, options=options, **tight)
    exact, exact_slopes = with_gradients(torchdiffeq.odeint, Field(), start(), t, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(ys, exact, rtol=0, atol=1e-5 if method == "dopri8" else 1e-6)
    assert torch.equal(ys[0], start().detach())
    for one, other in zip(slopes, exact_slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4 if method == "dopri8" else 5e-6)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun2"])
@pytest.mark.parametrize("direction", TIMES)
def test_fixed_methods_step_on_the_times_as_torchdiffeq_does(method, direction):
    t = TIMES[direction]
    for options in (None, {"step_size": 0.1}):
        ys, slopes = with_gradients(ctrnn.odeint, Field(), start(), t, method=method, options=options)
        exact, exact_slopes = with_gradients(torchdiffeq.odeint, Field(), start(), t, method=method, options=options)
        torch.testing.assert_close(ys, exact, rtol=0, atol=1e-12)
        for i in (0, 2):  # torchdiffeq's gradient of t through step_size is that of its grid
            torch.testing.assert_close(slopes[i], exact_slopes[i], rtol=1e-10, atol=1e-10)


def test_the_default_method_is_dopri5_and_its_tolerances_are_theirs():
    ys = ctrnn.odeint(Field(), start(), torch.tensor([0.0, 1.0]))
    same = ctrnn.odeint(Field(), start(), torch.tensor([0.0, 1.0]), method="dopri5", rtol=1e-7, atol=1e-9)
    assert torch.equal(ys, same)


def test_the_adjoint_is_exact_and_not_only_close():
    for method in ("dopri5", "rk4"):
        one = with_gradients(ctrnn.odeint, Field(), start(), TIMES["forwards"], method=method, rtol=1e-3, atol=1e-3)
        other = with_gradients(
            ctrnn.odeint_adjoint, Field(), start(), TIMES["forwards"], method=method, rtol=1e-3, atol=1e-3
        )
        for a, b in zip(one[1], other[1], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("direction", TIMES)
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_the_gradient_of_the_times_is_that_of_finite_differences(method, direction):
    t, h = torch.tensor(TIMES[direction]), 1e-5
    options = {"step_size": 0.047} if method == "rk4" else None
    f, y0 = Field(), start().detach()

    def value(t):
        return ctrnn.odeint(f, y0, t, method=method, options=options, rtol=1e-10, atol=1e-11).pow(2).sum()

    moving = t.clone().requires_grad_()
    (found,) = torch.autograd.grad(value(moving), moving)
    with torch.no_grad():
        for i in range(len(t)):
            kick = h * torch.eye(len(t))[i]
            assert float(found[i]) == pytest.approx(float(value(t + kick) - value(t - kick)) / (2 * h), abs=1e-4)


@pytest.mark.parametrize("call", [ctrnn.odeint, ctrnn.odeint_adjoint])
def test_a_tuple_state_comes_back_as_a_tuple(call):
    class Pair(nn.Module):
        def forward(self, t, y):
            a, b = y
            return -a + b.sum(), torch.sin(t) - b * a

    y0 = (torch.tensor(0.7), torch.tensor([[0.1, 0.2], [0.3, 0.4]]))
    t = torch.linspace(0.0, 2.0, 4)
    ours, theirs = call(Pair(), y0, t), torchdiffeq.odeint(Pair(), y0, t)
    assert isinstance(ours, tuple)
    assert [y.shape for y in ours] == [(4,), (4, 2, 2)]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


@pytest.mark.parametrize("call", [ctrnn.odeint, ctrnn.odeint_adjoint])
def test_a_complex_state_turns_as_it_should(call):
    class Turn(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(-0.1 + 2.0j, dtype=torch.complex128))

        def forward(self, t, y):
            return self.rate * y

    f, y0 = Turn(), torch.tensor([1.0 + 0.5j, -0.3j], dtype=torch.complex128, requires_grad=True)
    t = torch.tensor([0.0, 0.5, 1.3])
    ys = call(f, y0, t)
    assert ys.dtype == torch.complex128
    exact = torch.exp(f.rate * t[:, None]) * y0
    torch.testing.assert_close(ys, exact, rtol=0, atol=1e-7)
    ours, theirs = (torch.autograd.grad(z.abs().sum(), (y0, f.rate), retain_graph=True) for z in (ys, exact))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_packing_is_undone_by_unpacking():
    y = (torch.arange(6.0).reshape(2, 3), torch.tensor(1.0 + 2.0j), torch.ones(0), torch.ones(2, dtype=torch.float32))
    flat = pack(y)
    assert flat.shape == (10,)
    for one, other in zip(unpack(flat, y), y, strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype


def test_float32_states_stay_float32():
    f, y0 = Field(torch.float32), start().detach().float()
    for call in (ctrnn.odeint, ctrnn.odeint_adjoint):
        ys = call(f, y0, torch.tensor([0.0, 1.0], dtype=torch.float32), rtol=1e-5, atol=1e-5)
        assert ys.dtype == torch.float32
        exact = torchdiffeq.odeint(Field(), y0.double(), torch.tensor([0.0, 1.0]))
        torch.testing.assert_close(ys.double(), exact, rtol=0, atol=1e-4)


def test_a_plain_function_is_differentiated_when_its_tensors_are_named():
    f = Field()
    t, y0 = torch.tensor([0.0, 1.0]), start()
    with pytest.raises(ValueError, match="adjoint_params"):
        ctrnn.odeint_adjoint(lambda t, y: f(t, y), y0, t)
    ys = ctrnn.odeint_adjoint(lambda t, y: f(t, y), y0, t, adjoint_params=tuple(f.parameters()))
    exact = ctrnn.odeint_adjoint(f, y0, t)
    slopes = [torch.autograd.grad(z.sum(), f.W)[0] for z in (ys, exact)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-13)


class Flow(nn.Module):
    """A continuous normalizing flow (Chen et al. 2018): dz/dt = tanh(W z), d log p/dt = -trace of its Jacobian."""

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.tensor([[0.4, -1.2], [0.9, 0.1]]))

    def forward(self, t, y):
        with torch.enable_grad():
            z = y[0].requires_grad_(True)
            dz = torch.tanh(z @ self.W.T)
            trace = sum(torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(2))
            return dz, -trace


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_a_func_that_calls_autograd_itself_has_its_gradient(method):
    f, t = Flow(), torch.tensor([0.0, 0.5, 1.0])
    options = {"step_size": 0.02} if method == "rk4" else None
    found = []
    for call in (ctrnn.odeint_adjoint, torchdiffeq.odeint_adjoint):
        z = torch.tensor([[0.3, -0.5], [1.0, 0.2]], requires_grad=True)
        ys = call(f, (z, torch.zeros(2)), t, rtol=1e-8, atol=1e-9, method=method, options=options)
        found.append((ys[1].detach(), *torch.autograd.grad(ys[0][-1].sum() + ys[1][-1].square().sum(), (z, f.W))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_a_func_that_draws_random_numbers_has_the_gradient_of_what_it_drew():
    class Dropping(Field):
        def forward(self, t, y):
            return nn.functional.dropout(super().forward(t, y), 0.5)

    found = []
    for call in (ctrnn.odeint, ctrnn.odeint_adjoint):
        torch.manual_seed(3)
        found.append(with_gradients(call, Dropping(), start(), TIMES["forwards"], method="rk4"))
    assert torch.equal(found[0][0], found[1][0])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert torch.equal(one, other)


def test_a_linear_network_has_the_gradient_of_its_exact_solution():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.W = nn.Parameter(torch.tensor([[0.3, -0.8], [0.5, 0.1]]))

        def forward(self, t, y):
            return -y + y @ self.W.T

    f, y0, t = Linear(), torch.ones(2), torch.tensor([0.0, 1.0])
    (found,) = torch.autograd.grad(ctrnn.odeint_adjoint(f, y0, t)[-1].sum(), f.W)
    (exact,) = torch.autograd.grad((torch.linalg.matrix_exp(f.W - torch.eye(2)) @ y0).sum(), f.W)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)


def test_the_options_of_adaptive_methods_are_understood():
    f, y0, t = Field(), start().detach(), torch.tensor([0.0, 20.0])
    ctrnn.odeint(f, y0, t, method="dopri5", options={"first_step": 0.01, "min_step": 1e-8, "max_num_steps": 1000})
    with pytest.raises(ctrnn.MaxStepsReached):
        ctrnn.odeint(f, y0, t, options={"max_num_steps": 3})
    with pytest.raises(ctrnn.StepSizeUnderflow):
        ctrnn.odeint(f, y0, t, options={"min_step": 5.0})


def test_every_method_of_torchdiffeq_has_its_place():
    from torchdiffeq._impl.odeint import SOLVERS

    assert set(SOLVERS) <= {*FIXED, *ADAPTIVE, *ELSEWHERE}


@pytest.mark.parametrize("method", ["heun3", "explicit_adams", "adaptive_heun", "fehlberg2"])
def test_methods_that_are_not_here_are_torchdiffeqs(method):
    f, y0, t = Field(), start().detach(), torch.linspace(0.0, 1.0, 5)
    tolerances = {"rtol": 1e-4, "atol": 1e-4}
    assert torch.equal(
        ctrnn.odeint(f, y0, t, method=method, **tolerances), torchdiffeq.odeint(f, y0, t, method=method, **tolerances)
    )


@pytest.mark.parametrize("call", [ctrnn.odeint, ctrnn.odeint_adjoint])
@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"event_fn": lambda t, y: y}, NotImplementedError, "event_fn"),
        ({"method": "rk5"}, ValueError, "no method 'rk5': use one of adaptive_heun, "),
        ({"options": {"jump_t": [0.5]}}, ValueError, "not 'jump_t'"),
        ({"method": "rk4", "options": {"first_step": 0.5}}, ValueError, "understands the options step_size"),
        ({"rtol": (1e-3, 1e-4)}, TypeError, "rtol must be one number"),
        ({"t": torch.tensor([0, 1])}, TypeError, "floating-point"),
        ({"t": torch.tensor([0.0])}, ValueError, "at least two"),
        ({"t": torch.tensor([0.0, 1.0, 1.0])}, ValueError, "strictly"),
        ({"y0": torch.tensor([1, 2, 3])}, TypeError, "real or complex"),
        ({"y0": [torch.ones(3)]}, TypeError, "tuple of Tensors"),
    ],
)
def test_what_is_wrong_with_a_call_is_said(call, change, kind, message):
    arguments = {"func": Field(), "y0": torch.ones(3), "t": torch.tensor([0.0, 1.0]), **change}
    with pytest.raises(kind, match=message):
        call(arguments.pop("func"), arguments.pop("y0"), arguments.pop("t"), **arguments)


def test_a_derivative_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r"shape \(2,\) for a state of shape \(3,\)"):
        ctrnn.odeint(lambda t, y: y[:2], torch.ones(3), torch.tensor([0.0, 1.0]))
