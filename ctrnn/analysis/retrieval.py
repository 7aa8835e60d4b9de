"""How well an associative memory recalls random patterns stored with Hebb's rule: the theory for infinitely many units.

With m = erf(y) the overlap of a state of retrieval and y = m / sqrt(2 alpha r), what is left to find at a load alpha is
y: r is the crosstalk of the other patterns, each of which comes back to a unit through the echoes of its own, and
C = sqrt(2 / (pi alpha r)) exp(-y^2) is how much of it an echo keeps. In one field r = 1 / (1 - C)^2 (Amit, Gutfreund &
Sompolinsky 1985, Phys. Rev. Lett. 55:1530, zero temperature, replica symmetric); between two fields of equal size
r = (1 + C^2) / (1 - C^2)^2, by the same argument.
"""

import functools
import math

from scipy.optimize import brentq, minimize_scalar
from scipy.special import erf, erfc


def retrieval_overlap(load: float, *, fields: int = 1) -> float:
    """The overlap of a state of retrieval with its pattern; 0 above the critical load, where there is none.

    Args:
        load: patterns per unit, of each field.
        fields: 1 for a `Hopfield` network with `learning.hebbian` weights, 2 for a `BAM` with fields of equal size.

    Raises:
        ValueError: the load is not positive, or there are neither one nor two fields.
    """
    _check(load)
    if load >= critical_load(fields=fields):
        return 0.0
    return float(erf(brentq(lambda y: _load_at(y, fields) - load, _peak(fields), max(10.0, load**-0.5))))


def critical_load(*, fields: int = 1) -> float:
    """The most patterns per unit with which there are states of retrieval: 0.137906 in one field, 0.199802 in two.

    Raises:
        ValueError: there are neither one nor two fields.
    """
    return _load_at(_peak(fields), fields)


def one_step_error(load: float) -> float:
    """The fraction of units that leave a stored pattern in one step: 1/2 erfc(1 / sqrt(2 alpha)).

    The same for one pass from one field to the other; `load` in patterns per unit of the field that is heard.

    Raises:
        ValueError: the load is not positive.
    """
    _check(load)
    return float(erfc(1 / math.sqrt(2 * load)) / 2)


def _load_at(y: float, fields: int) -> float:
    """The load at which y solves the equations: m^2 / (2 y^2 r), with C = 2 y exp(-y^2) / (sqrt(pi) m)."""
    m = float(erf(y))
    C = 2 * y * math.exp(-(y**2)) / (math.sqrt(math.pi) * m)
    r = 1 / (1 - C) ** 2 if fields == 1 else (1 + C**2) / (1 - C**2) ** 2
    return m**2 / (2 * y**2 * r)


@functools.cache
def _peak(fields: int) -> float:
    """The y of the largest load; larger ones are states of retrieval, smaller ones unstable."""
    if fields not in (1, 2):
        raise ValueError(f"fields = {fields!r}: there is a theory for 1 field and for 2 of equal size.")
    found = minimize_scalar(lambda y: -_load_at(y, fields), bounds=(0.5, 4), method="bounded", options={"xatol": 1e-10})
    return float(found.x)


def _check(load: float) -> None:
    if not 0 < load < math.inf:
        raise ValueError(f"load = {load} must be positive and finite: patterns per unit.")
