"""The special points between two neighbouring places of a branch, told apart where several lie within one stride."""

import contextlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ctrnn.analysis._arclength import Array, Equations, NotConverged, Place, Stride, along, crosses, zero

MARGINAL = 1e-8  # distance from the boundary below which the side is left to rounding
Found = list[tuple[float, Any]]  # arclength and point


class Special(NamedTuple):
    """What there is to find on a branch."""

    equations: Equations
    look: Callable[[Place, Place], Found]  # the points that tests show between two places
    margins: Callable[[Place], Array]  # how far each eigenvalue or multiplier lies on the unstable side
    crossings: Callable[[Any], int]  # how many of them change sides at a point

    def between(self, before: Place, after: Place, stride: Stride) -> list[Any]:
        """The points between two neighbouring places, which are parted where more happens than is told apart."""
        found = self.look(before, after)
        points = [point for _, point in sorted(found, key=lambda pair: pair[0])]
        if self._explained(before, after, points):
            return points
        length = after.arclength - before.arclength
        middle = None
        if length > stride.least:
            with contextlib.suppress(NotConverged):  # at a branch point
                middle, _ = along(self.equations, before, length / 2, stride)
        if middle is None:
            warnings.warn(
                f"near parameter {before.z[-1]:.6g} several eigenvalues change sides together, as in symmetric "
                "networks: the points of the branch do not tell all of them.",
                stacklevel=3,
            )
            return points
        return self.between(before, middle, stride) + self.between(middle, after, stride)

    def _explained(self, before: Place, after: Place, points: list[Any]) -> bool:
        """Whether so many eigenvalues change sides as the points say, up to those that lie on the boundary."""
        margins = [self.margins(place) for place in (before, after)]
        change = abs(int((margins[1] > 0).sum()) - int((margins[0] > 0).sum()))
        marginal = sum(int((np.abs(m) < MARGINAL).sum()) for m in margins)
        return change <= marginal + sum(map(self.crossings, points))


def crossing(
    equations: Equations, before: Place, after: Place, stride: Stride, test: Callable[[Place], float]
) -> Place | None:
    """Where a test changes its sign between two places, if it does."""
    return zero(equations, before, after, test, stride) if crosses(test(before), test(after)) else None


def signed_least(values: Any) -> float:
    """The sign of the product of numbers of which the complex ones come in conjugate pairs, and the least modulus."""
    if not len(values):
        return 1.0
    real = values.real[np.abs(values.imag) <= 1e-12 * (1 + np.abs(values))]
    return float(np.prod(np.sign(real)) * np.abs(values).min())
