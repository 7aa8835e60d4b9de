"""The C structures of `src/*.h`, field by field, and how Tensors are put into them."""

import ctypes
from ctypes import POINTER, c_double, c_int32, c_int64, c_void_p
from typing import Any, ClassVar

import torch
from torch import Tensor

from ctrnn.native.schedule import Schedule

DTYPES = {torch.float32: 0, torch.float64: 1}

# The fields that every run on fixed steps begins with: what its steps are, and what it starts from and leaves behind.
FIXED_STEPS: list[Any] = [
    ("dtype", c_int32),
    ("threads", c_int32),
    ("pre", c_int32),
    ("post", c_int32),
    ("n", c_int64),
    ("batch", c_int64),
    ("steps", c_int64),
    ("stages", c_int32),
    ("a", POINTER(c_double)),
    ("b", POINTER(c_double)),
    ("c", POINTER(c_double)),
    ("W", c_void_p),
    ("gain", c_void_p),
    ("theta", c_void_p),
    ("rates", c_void_p),
    ("kinds", c_int64),
    ("kind", c_void_p),
    ("coefficients", c_int64),
    ("drive", c_void_p),
    ("drive_coefficient", c_int64),
    ("drive_interval", c_int64),
    ("drive_row", c_int64),
    ("inputs", c_int64),
    ("W_in", c_void_p),
    ("b_in", c_void_p),
    ("interval", c_void_p),
    ("begin", c_void_p),
    ("width", c_void_p),
    ("x0", c_void_p),
    ("kicks", c_void_p),
    ("count", c_void_p),
    ("keep", c_void_p),
    ("xs", c_void_p),
    ("end", c_void_p),
    ("targets", c_void_p),
]


class ProjectRun(ctypes.Structure):
    """`ctrnn_project_run`."""

    _fields_: ClassVar = [
        ("dtype", c_int32),
        ("threads", c_int32),
        *[(name, c_int64) for name in ("rows", "k", "n")],
        *[(name, c_void_p) for name in ("u", "W", "b", "v")],
    ]


class RateRun(ctypes.Structure):
    """`ctrnn_rate_run`."""

    _fields_: ClassVar = FIXED_STEPS


class RateBack(ctypes.Structure):
    """`ctrnn_rate_back`."""

    _fields_: ClassVar = [
        (name, c_void_p)
        for name in (
            "states",
            "targets",
            "grad_xs",
            "keep_of_grad",
            "grad_end",
            "delta",
            "grad_W",
            "grad_W_in",
            "grad_b",
            "grad_x0",
            "grad_rates",
            "grad_gain",
            "grad_theta",
            "grad_kicks",
        )
    ]


class GatedRun(ctypes.Structure):
    """`ctrnn_gated_run`."""

    _fields_: ClassVar = [
        *[field for field in FIXED_STEPS if field[0] not in ("pre", "post", "gain", "theta", "targets")],
        ("b_rec", c_void_p),
        ("gates", c_void_p),
    ]


class GatedBack(ctypes.Structure):
    """`ctrnn_gated_back`."""

    _fields_: ClassVar = [
        (name, c_void_p)
        for name in (
            "states",
            "grad_xs",
            "keep_of_grad",
            "grad_end",
            "delta",
            "delta_q",
            "sent",
            "grad_x0",
            "grad_b_rec",
            "grad_rates",
            "grad_kicks",
        )
    ]


class LSTMRun(ctypes.Structure):
    """`ctrnn_lstm_run`."""

    _fields_: ClassVar = [
        *[field for field in FIXED_STEPS if field[0] not in ("pre", "post", "gain", "theta", "targets")],
        *[(name, c_void_p) for name in ("rates_c", "c0", "kicks_c", "cs", "end_c", "gates")],
    ]


class LSTMBack(ctypes.Structure):
    """`ctrnn_lstm_back`."""

    _fields_: ClassVar = [
        (name, c_void_p)
        for name in (
            "hs",
            "cs",
            "grad_hs",
            "grad_cs",
            "keep_of_grad",
            "grad_end",
            "grad_end_c",
            "delta",
            "grad_h0",
            "grad_c0",
            "grad_rates",
            "grad_rates_c",
            "grad_kicks",
            "grad_kicks_c",
        )
    ]


def address(tensor: Tensor | None) -> int | None:
    """Where a contiguous Tensor begins; None for none."""
    if tensor is None:
        return None
    try:
        place = tensor.data_ptr()
    except RuntimeError as problem:
        raise NotImplementedError(
            "a compiled run met a Tensor without memory, as torch's older batching (is_grads_batched=True, "
            "vectorize=True) makes them: use torch.func.vmap or jacrev, or `with ctrnn.plain():`."
        ) from problem
    if place == 0 and tensor.numel():
        raise NotImplementedError(
            "a compiled run met a Tensor without memory: clone() it, or use `with ctrnn.plain():`."
        )
    return place


def fixed_steps(run: Any, schedule: Schedule, x0: Tensor, inputs: Any) -> None:
    """Put into a run's structure everything but its network, of `inputs` the drive, its weights, rates and kicks.

    The Tensors must outlive the call.
    """
    drive, rates = inputs.drive, inputs.rates
    run.dtype, run.steps, run.stages = DTYPES[x0.dtype], schedule.steps, schedule.stages
    run.batch, run.n = x0.shape
    if schedule.tableau is not None:
        stages = schedule.stages
        square = [weight for row in schedule.tableau.a for weight in (*row, *[0.0] * (stages - len(row)))]
        for name, values in (("a", square), ("b", schedule.tableau.b), ("c", schedule.tableau.c)):
            setattr(run, name, (c_double * len(values))(*values))
    run.rates, run.kinds = address(rates), rates.shape[0]
    run.coefficients, run.drive = drive.shape[0], address(drive)
    strides = [0 if size == 1 else stride for size, stride in zip(drive.shape[:3], drive.stride()[:3], strict=True)]
    run.drive_coefficient, run.drive_interval, run.drive_row = strides
    run.inputs, run.W_in, run.b_in = drive.shape[-1], address(inputs.W_in), address(inputs.b)
    run.x0, run.kicks = address(x0), address(inputs.kicks)
    for name in ("kind", "interval", "begin", "width", "count", "keep"):
        setattr(run, name, address(getattr(schedule, name)))
