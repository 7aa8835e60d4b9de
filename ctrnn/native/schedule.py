"""What a compiled time loop needs to know of a grid of fixed steps and of the method that makes them."""

from typing import NamedTuple

from torch import Tensor

from ctrnn.solvers.runge_kutta import Tableau


class Schedule(NamedTuple):
    """Fixed steps as contiguous Tensors on the CPU; None stands for the common case of each column."""

    steps: int
    tableau: Tableau | None  # of an explicit Runge-Kutta method; None: each step is one lerp
    kind: Tensor | None  # (step,), int32: which of the step lengths; None: there is one
    interval: Tensor | None  # (step,), int64: of the drive; None: step k sees interval k
    begin: Tensor | None  # (step,), float64: where in its interval a step begins ...
    width: Tensor | None  # ... and how much of it it covers; None where the drive is held
    count: Tensor | None  # type: ignore[assignment]  # (row,), int64: steps of each row; None: all take all of them
    keep: Tensor | None  # (step,), int64: the slot of the state after the step, -1 for none; None: slot k
    slots: int

    @property
    def stages(self) -> int:
        """Stages of the Runge-Kutta method; 0: one lerp."""
        return 0 if self.tableau is None else len(self.tableau.b)
