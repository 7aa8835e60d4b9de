import errno
import math
import os
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ctrnn
from ctrnn import (
    RK4,
    Adaptive,
    At,
    Backprop,
    Cubic,
    Euler,
    Every,
    ExponentialEuler,
    Fixed,
    Function,
    Held,
    Iterate,
    Last,
    Linear,
    Silence,
    Tsit5,
    integrate,
)
from ctrnn._check import finite
from ctrnn.dynamics import Model, Relaxation, wrap
from ctrnn.models import CTRNN, GRU, LSTM, MTRNN, LinearSystem, LSTMState, Stack

US = torch.zeros(5, 4, 2, dtype=torch.float64)


class Other(NamedTuple):
    a: Tensor
    b: Tensor


def net(**options):
    return CTRNN(3, 2, generator=torch.Generator().manual_seed(0), **options)


def refuse(kind, *words, model=None, drive=US, **options):
    """A run that must be refused with an error of this kind that holds all these words: the culprit, and the fix."""
    with pytest.raises(kind) as caught:
        integrate(net() if model is None else model, drive, **options)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert message.endswith("."), message


def refuse_value(kind, *words, make):
    with pytest.raises(kind) as caught:
        make()
    message = str(caught.value)
    assert all(word in message for word in words), message


# Shapes


def test_a_drive_with_the_wrong_number_of_inputs_is_refused():
    refuse(
        ValueError,
        "3 inputs",
        "(5, 4, 3)",
        "n_in=2",
        "give us as (time, *batch, 2)",
        drive=torch.zeros(5, 4, 3),
        dt=0.1,
    )


def test_a_drive_without_time_is_refused():
    refuse(ValueError, "(time, *batch, n_in)", "(2,)", drive=torch.zeros(2), dt=0.1)


def test_a_state_with_the_wrong_number_of_units_is_refused():
    refuse(ValueError, "x0 must have the shape (*batch, 3)", "(4, 5)", x0=torch.zeros(4, 5), dt=0.1)
    refuse(
        ValueError,
        "x0.c must have the shape (*batch, 3)",
        "(4, 2)",
        model=LSTM(3, 2),
        x0=LSTMState(torch.zeros(4, 3), torch.zeros(4, 2)),
        dt=0.1,
    )


def test_batches_that_differ_are_refused():
    refuse(ValueError, "(4,)", "(6,)", "give both the same", x0=torch.zeros(6, 3), dt=0.1)
    refuse(
        ValueError,
        "different batch shapes",
        "(4,)",
        "()",
        "give all parts",
        model=LSTM(3, 2),
        x0=LSTMState(torch.zeros(4, 3), torch.zeros(3)),
        dt=0.1,
    )


def test_a_function_that_returns_the_wrong_thing_is_refused():
    span = {"t_span": (0.0, 1.0)}
    refuse(ValueError, "returned the shape (3,)", "needs (2,)", drive=Function(lambda t: torch.zeros(3)), **span)
    refuse(ValueError, "(7, 2)", "(4, 2)", drive=Function(lambda t: torch.zeros(7, 2)), x0=torch.zeros(4, 3), **span)
    refuse(TypeError, "float", "return a Tensor", drive=Function(lambda t: 1.0), **span)


# Values


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_drive_that_is_not_finite_is_refused(bad):
    us = US.clone()
    us[2, 3, 1] = bad
    refuse(ValueError, "The drive holds NaN or infinite", "(2, 3)", "fill", drive=us, dt=0.1)
    refuse(ValueError, "The drive", "(2, 3)", drive=Held(us, 0.1, lengths=torch.tensor([1, 1, 1, 3])))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(bad):
    model = net()
    with torch.no_grad():
        model.W_rec[1, 2] = bad
    refuse(ValueError, "parameter 'W_rec'", "(1, 2)", "mend", model=model, dt=0.1)


def test_buffers_that_hold_nan_are_refused():
    system = LinearSystem(torch.tensor([[torch.nan, 0.0], [0.0, 1.0]]))
    refuse(ValueError, "buffer 'A'", "(0, 0)", "mend", model=system, drive=None, t_span=(0.0, 1.0))


def test_a_state_that_is_not_finite_is_refused():
    refuse(
        ValueError,
        "x0.c",
        "(1, 0)",
        "mend",
        model=LSTM(3, 2),
        x0=LSTMState(torch.zeros(4, 3), torch.zeros(4, 3).index_fill(0, torch.tensor([1]), torch.nan)),
        dt=0.1,
    )


# Steps


@pytest.mark.parametrize("dt", [0, 0.0, -0.1, float("nan"), float("inf")])
def test_a_dt_that_is_not_positive_is_refused(dt):
    refuse(ValueError, "dt must be positive", repr(dt), dt=dt)
    refuse_value(ValueError, "Fixed: dt", make=lambda: Fixed(dt))
    refuse_value(ValueError, "Held: dt", make=lambda: Held(US, dt))
    refuse_value(ValueError, "dt0", make=lambda: Adaptive(dt0=dt))


@pytest.mark.parametrize("dt", [True, "0.1", torch.tensor(0.1), [0.1]])
def test_a_dt_that_is_no_number_is_refused(dt):
    refuse(TypeError, "dt must be a number such as", dt=dt)
    refuse_value(TypeError, "Fixed: dt", make=lambda: Fixed(dt))
    refuse_value(TypeError, "Linear: dt", make=lambda: Linear(US, dt))


def test_a_numpy_number_is_a_number():
    assert torch.equal(integrate(net(), US, dt=np.float64(0.1)).xs, integrate(net(), US, dt=0.1).xs)
    assert integrate(net(), US, dt=np.float32(0.5)).ts[-1] == 2.5


def test_a_tensor_without_dt_says_what_dt_is():
    refuse(ValueError, "needs dt", "integrate(model, us, dt=...)")


def test_two_lengths_of_a_step_are_refused():
    refuse(ValueError, "both say how long a step is", drive=Silence(), t_span=(0.0, 1.0), dt=0.1, steps=Fixed(0.1))


def test_a_fixed_tau_below_the_step_is_refused_by_euler_alone():
    refuse(
        ValueError,
        "Euler overshoots",
        "dt = 0.3",
        "tau = 0.2",
        "Take dt <= tau, or solver=ExponentialEuler()",
        model=net(tau=torch.tensor([1.0, 0.2, 1.0])),
        dt=0.3,
    )
    refuse(ValueError, "part 'c'", model=LSTM(3, 2, tau=LSTMState(h=1.0, c=0.2)), dt=0.3)
    integrate(net(tau=0.3), US, dt=0.3)
    integrate(net(tau=0.2), US, dt=0.3, solver=ExponentialEuler())
    integrate(net(tau=0.2), US, dt=0.3, solver=RK4())
    integrate(net(tau=0.2), US, dt=0.3, steps=Fixed(0.1))


def test_a_float32_tau_that_rounds_below_dt_is_not_below_it():
    for value in (0.1, 0.7, 1 / 3):
        integrate(net(tau=value).float(), US.float(), dt=value)


def test_adaptive_steps_need_an_error_estimate():
    for solver in (Euler(), RK4(), Iterate()):
        refuse(ValueError, "error estimate", str(solver), "Tsit5()", solver=solver, steps=Adaptive(), dt=0.1)
    refuse(ValueError, "error estimate", "Fixed(dt)", drive=None, t_span=(0.0, 1.0), solver=RK4())


def test_tolerances_that_mean_nothing_are_refused():
    refuse_value(ValueError, "tolerances", "rtol=0", make=lambda: Adaptive(0, 0))
    refuse_value(ValueError, "rtol=-1", make=lambda: Adaptive(-1, 1))
    refuse_value(ValueError, "max_steps", make=lambda: Adaptive(max_steps=0))
    refuse_value(ValueError, "dt_min", make=lambda: Adaptive(dt_min=float("nan")))
    for name in ("rtol", "atol", "dt_min"):
        for value in ("a", True, None):
            refuse_value(TypeError, f"Adaptive: {name} must be a number", make=partial(Adaptive, **{name: value}))
    for value in (3.5, True, "3"):
        refuse_value(TypeError, "max_steps counts steps", repr(value), make=partial(Adaptive, max_steps=value))


# Times


@pytest.mark.parametrize("times", [[0.0, 0.2, 0.1], [0.0, 0.1, 0.1]])
def test_times_that_do_not_increase_are_refused(times):
    refuse_value(ValueError, "At: times", "increase strictly", "drop repeated", make=lambda: At(times))
    refuse_value(
        ValueError, "edge 2 does not come after edge 1", "Sort", make=lambda: Held(US[:2], edges=torch.tensor(times))
    )
    refuse_value(ValueError, "edges", make=lambda: Cubic(US[:3], edges=torch.tensor(times)))
    refuse_value(ValueError, "jumps", "sort", make=lambda: Function(torch.sin, jumps=tuple(times)))


def test_times_that_are_not_finite_or_none_are_refused():
    refuse_value(ValueError, "finite", make=lambda: At([0.0, torch.nan]))
    refuse_value(ValueError, "sequence of times", make=lambda: At([]))
    refuse_value(ValueError, "finite", make=lambda: Held(US[:1], edges=torch.tensor([0.0, torch.inf])))


def test_edges_that_do_not_fit_are_refused():
    refuse_value(ValueError, "(6,)", "(6, 4)", "got (5,)", make=lambda: Held(US, edges=torch.arange(5.0)))
    refuse_value(TypeError, "list", "torch.as_tensor", make=lambda: Held(US, edges=[0.0, 1.0]))
    refuse_value(ValueError, "either dt or edges", "neither", make=lambda: Held(US))
    refuse_value(ValueError, "either dt or edges", "both", make=lambda: Held(US, 0.1, torch.arange(6.0)))


@pytest.mark.parametrize("span", [(1.0, 0.5), (0.5, 0.5), (0.0, float("inf")), (float("nan"), 1.0)])
def test_a_span_that_does_not_go_forward_is_refused(span):
    for drive in (None, Held(US, 0.5)):
        refuse(ValueError, "t_span must be (start, end)", "start < end", drive=drive, t_span=span)


@pytest.mark.parametrize(
    "span", [1.0, "01", (0.0,), (0.0, 1.0, 2.0), ("a", "b"), (None, 1.0), (False, True), (torch.zeros(2), 1.0)]
)
def test_a_span_that_is_no_pair_of_times_is_refused(span):
    refuse(TypeError, "t_span must", drive=None, t_span=span)


def test_a_run_without_an_end_is_refused():
    refuse(ValueError, "Silence", "pass t_span=(start, end)", drive=None)
    refuse(ValueError, "Function", "pass t_span", drive=Function(lambda t: torch.zeros(2)))


def test_times_outside_the_run_are_refused():
    refuse(ValueError, "t_span (0.2, 3)", "from 0 to 0.5", "longer drive", drive=Held(US, 0.1), t_span=(0.2, 3.0))
    for steps in (Fixed(0.1), Adaptive()):
        refuse(
            ValueError,
            "At",
            "0.1 to 0.9",
            "from 0 to 0.5",
            "drop",
            drive=Held(US, 0.1),
            steps=steps,
            save=At([0.1, 0.9]),
        )


def test_edges_of_each_sample_cannot_be_cut():
    edges = torch.arange(6.0)[:, None] + torch.tensor([0.0, 0.1, 0.2, 0.3])
    refuse(ValueError, "edges of their own", "Adaptive", drive=Held(US, edges=edges), steps=Fixed(0.1), save=At([1.0]))
    refuse(ValueError, "t_span", "edges of their own", "(time + 1,)", drive=Held(US, edges=edges), t_span=(0.5, 3.0))


# Lengths and emptiness


def test_lengths_beyond_the_drive_are_refused():
    refuse_value(
        ValueError, "5 samples", "2 to 6", "pad us", make=lambda: Held(US, 0.1, lengths=torch.tensor([2, 5, 6, 3]))
    )
    refuse_value(ValueError, "between 0", "-1", make=lambda: Held(US, 0.1, lengths=torch.tensor([2, 5, -1, 3])))
    refuse_value(ValueError, "between 1", "0", make=lambda: Linear(US, 0.1, lengths=torch.tensor([2, 5, 0, 3])))


def test_lengths_that_are_no_counts_are_refused():
    refuse_value(TypeError, "lengths", "integer Tensor", "float64", make=lambda: Held(US, 0.1, lengths=torch.ones(4)))
    refuse_value(TypeError, "lengths", "list", make=lambda: Held(US, 0.1, lengths=[1, 2, 3, 4]))
    refuse_value(ValueError, "lengths", "(4,)", "(3,)", make=lambda: Held(US, 0.1, lengths=torch.tensor([1, 2, 3])))


def test_an_empty_batch_is_refused():
    refuse(ValueError, "batch is empty", "(0,)", "at least one", drive=torch.zeros(5, 0, 2), dt=0.1)
    refuse(
        ValueError, "batch is empty", "(2, 0)", "at least one", x0=torch.zeros(2, 0, 3), drive=None, t_span=(0.0, 1.0)
    )


def test_a_drive_of_no_length_is_refused():
    refuse(ValueError, "Held has no interval", "0 samples", "at least 1", drive=torch.zeros(0, 4, 2), dt=0.1)
    refuse_value(ValueError, "Linear has no interval", "at least 2", make=lambda: Linear(US[:1], 0.1))


# Types


@pytest.mark.parametrize("drive", [np.zeros((5, 4, 2)), [[0.0, 0.0]], 3.0, lambda t: t])
def test_a_drive_that_is_no_tensor_is_refused(drive):
    refuse(
        TypeError,
        "drive must be a Tensor",
        type(drive).__name__,
        "torch.as_tensor",
        "ctrnn.Function",
        drive=drive,
        dt=0.1,
    )


def test_samples_of_integers_are_refused():
    refuse(
        TypeError, "Held", "floating-point", "int64", ".float()", drive=torch.ones(5, 4, 2, dtype=torch.long), dt=0.1
    )
    refuse_value(TypeError, "ndarray", "torch.as_tensor", make=lambda: Held(np.zeros((5, 2)), 0.1))


def test_a_state_of_integers_is_refused():
    refuse(TypeError, "x0 has dtype torch.int64", ".float()", x0=torch.ones(4, 3, dtype=torch.long), dt=0.1)


@pytest.mark.parametrize("x0", [np.zeros((4, 3)), [0.0, 0.0, 0.0], 0.0, "zero"])
def test_a_state_that_is_no_tensor_is_refused(x0):
    refuse(TypeError, "x0 must be a Tensor", type(x0).__name__, "torch.as_tensor", x0=x0, dt=0.1)


def test_a_state_of_the_wrong_structure_is_refused():
    zeros = torch.zeros(4, 3)
    refuse(
        TypeError,
        "x0 of LSTM",
        "LSTMState with the parts h, c",
        "Other with the parts a, b",
        "initial_state()",
        model=LSTM(3, 2),
        x0=Other(zeros, zeros),
        dt=0.1,
    )
    refuse(TypeError, "x0 of LSTM", "Tensor", model=LSTM(3, 2), x0=zeros, dt=0.1)
    refuse(TypeError, "x0 of CTRNN must be a Tensor", "Other", x0=Other(zeros, zeros), dt=0.1)


def test_mixed_dtypes_are_refused():
    refuse(
        TypeError,
        "the drive has dtype torch.float32",
        "the state has torch.float64",
        "us.float()",
        drive=US.float(),
        dt=0.1,
    )
    refuse(
        TypeError,
        "parameter 'W_rec'",
        "torch.float64",
        "torch.float32",
        x0=torch.zeros(4, 3).float(),
        drive=US.float(),
        dt=0.1,
    )


def test_mixed_devices_are_refused():
    refuse(ValueError, "the drive is on meta", "the state is on cpu", ".to(device)", drive=US.to("meta"), dt=0.1)
    refuse(
        ValueError,
        "is on cpu",
        "the state is on meta",
        ".to(device)",
        x0=torch.zeros(4, 3, device="meta"),
        drive=US,
        dt=0.1,
    )
    refuse(
        ValueError,
        "buffer 'A' is on meta",
        model=LinearSystem.example().to("meta"),
        drive=None,
        x0=torch.zeros(2),
        t_span=(0.0, 1.0),
    )


def test_what_is_no_model_is_refused():
    refuse(TypeError, "ctrnn.Model", "GRUCell", "ctrnn.wrap", model=nn.GRUCell(2, 3), dt=0.1)
    refuse(TypeError, "ctrnn.Model", "function", model=lambda t, x, u: -x, dt=0.1)


def test_a_module_over_sequences_is_no_cell_to_wrap():
    for module in (nn.RNN(2, 4), nn.GRU(2, 4), nn.LSTM(2, 4)):
        refuse_value(
            TypeError, f"nn.{type(module).__name__}", "whole sequences", "Model.from_torch", make=partial(wrap, module)
        )


def test_a_relaxation_without_a_time_constant_is_told_to_assign_one():
    class Timeless(Relaxation):
        n_in = 2

        def target(self, t, x, u, alpha=0):
            return -x

    refuse(NotImplementedError, "Timeless has no time constant", "self.tau", model=Timeless(), x0=US[0], dt=0.1)


def test_networks_of_wrong_sizes_are_refused():
    refuse_value(TypeError, "n must be an integer", "True", make=lambda: CTRNN(True, 2))
    refuse_value(TypeError, "groups must map", "(units, tau)", "{'f': 2}", make=lambda: MTRNN({"f": 2}, 2))
    refuse_value(TypeError, "groups must map", make=lambda: MTRNN([("f", (2, 1.0))], 2))
    refuse_value(TypeError, "a sequence of layers", "GRU", "Stack([layer])", make=lambda: Stack(GRU(2, 2)))


def test_a_model_without_a_start_asks_for_one():
    class Field(Model):
        n_in = 2

        def forward(self, t, x, u):
            return -x

    with pytest.raises(NotImplementedError, match="pass x0"):
        integrate(Field(), US, dt=0.1)
    with pytest.raises(NotImplementedError, match="pass x0"):
        integrate(wrap(nn.Identity()), US, dt=0.1)


@pytest.mark.parametrize("save", [5, "last", [0.1, 0.2], True, torch.tensor([0.1])])
def test_a_wish_for_saves_that_is_none_is_refused(save):
    refuse(TypeError, "save must be Every(k), Last() or At(ts)", "ctrnn.At", save=save, dt=0.1)


def test_saves_that_keep_nothing_are_refused():
    refuse_value(ValueError, "at least 1", make=lambda: Every(0))
    refuse_value(TypeError, "integer", make=lambda: Every(1.5))
    refuse(ValueError, "Every(9)", "5 steps", "Last()", save=Every(9), dt=0.1)
    refuse(ValueError, "Every(k)", "At(ts) or Last()", save=Every(2), steps=Adaptive(), dt=0.1)


@pytest.mark.parametrize("name", ["solver", "steps", "adjoint"])
@pytest.mark.parametrize("value", ["rk4", 5, True, {}])
def test_a_choice_that_is_no_value_of_its_kind_is_refused(name, value):
    refuse(TypeError, f"{name} must be", repr(value), **{name: value, "dt": 0.1})


def test_a_class_instead_of_a_value_is_refused():
    refuse(TypeError, "solver must be a value such as ctrnn.Euler()", solver=Euler, dt=0.1)
    refuse(TypeError, "steps must be", steps=Adaptive, dt=0.1)
    refuse(TypeError, "adjoint must be a value", adjoint=Backprop, dt=0.1)
    refuse(TypeError, "save must be", save=Last, dt=0.1)


def test_other_options_that_make_no_sense_are_refused():
    refuse(TypeError, "generator must be a torch.Generator", "manual_seed", generator=3, dt=0.1)
    refuse(TypeError, "progress", "True", progress=True, dt=0.1)
    refuse(ValueError, "on_failure", '"return"', "'ignore'", on_failure="ignore", dt=0.1)


# Noise


def test_noise_on_adaptive_steps_is_refused():
    refuse(ValueError, "noise needs fixed steps", "steps=Fixed(dt)", noise=0.1, steps=Adaptive(), dt=0.1)


def test_noise_with_a_solver_that_cannot_take_it_is_refused():
    for solver in (RK4(), Tsit5()):
        refuse(ValueError, "noise", "Euler", str(solver), noise=0.1, solver=solver, dt=0.1)
    refuse(
        ValueError,
        "noise",
        "Relaxation",
        model=LinearSystem.example(),
        drive=None,
        t_span=(0.0, 1.0),
        dt=0.1,
        solver=Euler(),
        noise=0.1,
    )


@pytest.mark.parametrize("noise", [True, "loud", [0.1], Last()])
def test_noise_that_is_no_number_is_refused(noise):
    refuse(TypeError, "noise is a standard deviation", "number or a Tensor", noise=noise, dt=0.1)


@pytest.mark.parametrize("noise", [-0.1, float("nan"), torch.tensor([0.1, -0.1, 0.1]), torch.tensor(torch.inf)])
def test_noise_that_is_no_deviation_is_refused(noise):
    refuse(ValueError, "noise is a standard deviation", "not negative", noise=noise, dt=0.1)


def test_noise_that_does_not_fit_the_state_is_refused():
    refuse(ValueError, "(5,)", "(4, 3)", "one per unit", noise=torch.ones(5), dt=0.1)
    refuse(TypeError, "noise", "'h', 'c'", "'a', 'b'", model=LSTM(3, 2), noise=Other(0.1, 0.1), dt=0.1)
    refuse(ValueError, "noise.c", model=LSTM(3, 2), noise=LSTMState(0.1, -0.1), dt=0.1)


# Nothing is lost


def test_a_full_disk_leaves_the_old_trajectory_and_says_what_to_do(tmp_path, monkeypatch):
    run, path = integrate(net(), US, dt=0.1), tmp_path / "run.safetensors"
    run.save(path)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"run\.safetensors.*No space left.*free space.*unchanged"):
        integrate(net(), US + 1, dt=0.1).save(path)
    monkeypatch.undo()
    assert torch.equal(ctrnn.Trajectory.load(path).xs, run.xs)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.safetensors"]


def test_a_refused_run_draws_nothing_and_changes_nothing():
    model, generator = net(), torch.Generator().manual_seed(0)
    before, weights = generator.get_state(), {k: v.clone() for k, v in model.state_dict().items()}
    refuse(ValueError, "Euler", model=model, dt=3.0, noise=0.1, generator=generator)
    refuse(ValueError, "noise", model=model, dt=0.1, noise=-1.0, generator=generator)
    assert torch.equal(generator.get_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("size", [1, 2**15 - 1, 2**15, 2**16 + 3, 2**20])
def test_one_number_that_is_not_finite_is_found_wherever_it_is(size):
    x = torch.full((size,), 1e35, dtype=torch.float32)  # they add up to infinity
    assert finite(x)
    for place in {0, size // 2, size - 1}:
        for value in (math.nan, math.inf, -math.inf):
            assert not finite(x.index_fill(0, torch.tensor([place]), value))
