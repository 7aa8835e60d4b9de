"""The explicit Runge-Kutta methods by name: a class is its tableau and its orders."""

from dataclasses import dataclass
from typing import ClassVar

from ctrnn.solvers import tableaux
from ctrnn.solvers.runge_kutta import EmbeddedRungeKutta, RungeKutta, Tableau


@dataclass(frozen=True)
class Midpoint(RungeKutta):
    """Explicit midpoint."""

    order: ClassVar[int] = 2
    tableau: ClassVar[Tableau] = tableaux.MIDPOINT


@dataclass(frozen=True)
class Heun(EmbeddedRungeKutta):
    """Explicit trapezoid, with Euler inside."""

    order: ClassVar[int] = 2
    error_order: ClassVar[int | None] = 1
    tableau: ClassVar[Tableau] = tableaux.HEUN


@dataclass(frozen=True)
class RK4(RungeKutta):
    """The classical Runge-Kutta method."""

    order: ClassVar[int] = 4
    tableau: ClassVar[Tableau] = tableaux.RK4


@dataclass(frozen=True)
class Bosh3(EmbeddedRungeKutta):
    """Bogacki & Shampine's pair 3(2)."""

    order: ClassVar[int] = 3
    error_order: ClassVar[int | None] = 2
    tableau: ClassVar[Tableau] = tableaux.BOSH3


@dataclass(frozen=True)
class Dopri5(EmbeddedRungeKutta):
    """Dormand & Prince's pair 5(4)."""

    order: ClassVar[int] = 5
    error_order: ClassVar[int | None] = 4
    tableau: ClassVar[Tableau] = tableaux.DOPRI5


@dataclass(frozen=True)
class Tsit5(EmbeddedRungeKutta):
    """Tsitouras' pair 5(4)."""

    order: ClassVar[int] = 5
    error_order: ClassVar[int | None] = 4
    tableau: ClassVar[Tableau] = tableaux.TSIT5
