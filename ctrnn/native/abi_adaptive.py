"""The C structures of `src/adaptive.h`, field by field."""

import ctypes
from ctypes import CFUNCTYPE, c_double, c_int, c_int64, c_void_p
from typing import Any, ClassVar

Report = CFUNCTYPE(c_int, c_double)  # of the fraction done; anything but 0 ends the search


def _fields(**kinds: str) -> list[Any]:
    """Fields of one C type after another, as they stand in the header."""
    types = {"whole": c_int64, "real": c_double, "array": c_void_p}
    return [(name, types[kind.rstrip("0123456789")]) for kind, names in kinds.items() for name in names.split()]


class AdaptiveRun(ctypes.Structure):
    """`ctrnn_adaptive_run`."""

    _fields_: ClassVar = [
        *_fields(
            whole="single rows n threads",
            array="x0 W tau gain theta",
            whole1="pre post",
            array1="drive",
            whole2="coefficients coefficient_stride interval_stride row_stride intervals",
            array2="start length count interval begin width",
            whole3="stages",
            array3="a b_error c dense",
            whole4="powers error_order",
            real="rtol atol dt0 dt_min",
            whole5="jumps max_steps saves",
            array4="wanted xs holder fraction accepted rejected evaluations status failed_at",
            whole6="keep",
            array5="log",
        ),
        ("report", Report),
    ]


class AdaptiveSteps(ctypes.Structure):
    """`ctrnn_adaptive_steps`."""

    _fields_: ClassVar = _fields(array="first interval offset dt states")


class AdaptiveGradient(ctypes.Structure):
    """`ctrnn_adaptive_gradient`."""

    _fields_: ClassVar = _fields(
        array="xs x0 W tau gain theta drive", whole="coefficient_stride interval_stride row_stride"
    )
