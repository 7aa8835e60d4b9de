"""A random network of infinitely many units: how much it fluctuates, and how fast neighbouring trajectories part.

tau x_i' = -x_i + sum_j J_ij phi(x_j), J_ij ~ N(0, g^2 / N) (Sompolinsky, Crisanti & Sommers 1988, Phys. Rev. Lett.
61:259). Each unit hears Gaussian noise whose autocovariance g^2 C is that of what the units themselves send, so that
the autocovariance D of x moves over the lag like a particle without friction, D'' = D - g^2 C(D), which leaves D(0) at
rest and comes to rest at 0. The top exponent is -1 + sqrt(1 - E), E the lowest level of
-psi'' + (1 - g^2 C'(D(lag))) psi = E psi.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.integrate import OdeSolution, solve_ivp
from scipy.linalg import eigh
from scipy.optimize import brentq
from torch import Tensor

Array = NDArray[np.float64]

TERMS = 800  # of the expansion in Hermite polynomials
POINTS = 800  # lags at which the wave function is sought
REST = 1e-9  # share of the variance at which a correlation counts as gone
_ORDERS = np.arange(float(TERMS))


class MeanField(NamedTuple):
    """A random network of infinitely many units, in float64."""

    variance: float  # of x, over units and time
    exponent: float  # the top Lyapunov exponent, in 1 / tau
    lags: Float[Tensor, " lag"]  # in tau, from 0
    autocovariance: Float[Tensor, " lag"]  # of x


def dynamic_mean_field(g: float, *, activation: Callable[[Tensor], Tensor] = torch.tanh) -> MeanField:
    """Dynamic mean-field theory of a random network with gain g: silent up to 1, chaotic above.

    Args:
        g: standard deviation of the weights times sqrt(N).
        activation: phi, of slope 1 at 0, odd and bounded, such as tanh.

    Raises:
        ValueError: g is negative, or the activation is not of this kind.
    """
    if not 0 <= g < math.inf:
        raise ValueError(f"g = {g} must be finite and not negative.")
    phi = _checked(activation)
    if g <= 1:
        return MeanField(0.0, g - 1, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    moments = _Moments.of(phi, _variance(phi, g))
    orbit = _orbit(moments, g)
    exponent = -1 + math.sqrt(1 - _level(moments, g, orbit, parity=1))
    lags = np.linspace(0, orbit.ts[-1], POINTS)
    covariance = torch.from_numpy(moments.variance * _share(orbit, lags))
    return MeanField(moments.variance, exponent, torch.from_numpy(lags), covariance)


def _checked(activation: Callable[[Tensor], Tensor]) -> Callable[[Array], Array]:
    def phi(x: Array) -> Array:
        return activation(torch.from_numpy(x)).numpy()

    at = np.array([1e-4, 0.5, 2.0, 1e6, 1e8])
    up, down = phi(at), phi(-at)
    if not (np.allclose(up, -down) and abs(up[0] - at[0]) < 1e-2 * at[0] and abs(up[-1]) < 1.01 * abs(up[-2])):
        raise ValueError(
            "this theory is for activations that are odd, bounded and of slope 1 at 0, as torch.tanh is; got "
            f"phi({at.tolist()}) = {np.round(up, 6).tolist()} and {np.round(down, 6).tolist()} on the other side."
        )
    return phi


class _Moments(NamedTuple):
    """C = <phi(x) phi(y)> of Gaussians of one variance, by Mehler: sum_k a_k^2 c^k for the correlation c."""

    variance: float
    squares: Array  # a_k^2, k from 0

    @classmethod
    def of(cls, phi: Callable[[Array], Array], variance: float) -> "_Moments":
        z, polynomials = _hermite()
        return cls(variance, (polynomials @ phi(math.sqrt(variance) * z)) ** 2)

    def covariance(self, c: Array) -> Array:
        return np.power.outer(c, _ORDERS) @ self.squares

    def slope(self, c: Array) -> Array:
        """dC/dD."""
        return np.power.outer(c, _ORDERS[:-1]) @ (_ORDERS[1:] * self.squares[1:]) / self.variance

    def potential(self, c: Array, g: float) -> Array:
        """-D^2 / 2 + g^2 (integral of C from 0 to D), at D = c variance."""
        integral = np.power.outer(c, _ORDERS) @ (self.squares / (_ORDERS + 1))
        return self.variance * c * (-self.variance * c / 2 + g**2 * integral)


@functools.cache
def _hermite() -> tuple[Array, Array]:
    """A grid z, and the normalised Hermite polynomials (k, z) times the weights that make sums over z expectations."""
    z, h = np.linspace(-13, 13, 2601, retstep=True)
    rows = [np.exp(-(z**2) / 4) / (2 * math.pi) ** 0.25]
    rows.append(z * rows[0])
    for k in range(1, TERMS - 1):
        rows.append((z * rows[k] - math.sqrt(k) * rows[k - 1]) / math.sqrt(k + 1))
    return z, np.stack(rows) * rows[0] * h


def _variance(phi: Callable[[Array], Array], g: float) -> float:
    """Where the particle must start to come to rest at 0: its energy is 0."""

    def energy(variance: float) -> float:
        return float(_Moments.of(phi, variance).potential(np.ones(1), g)[0])

    bound = float(phi(np.array([1e8]))[0]) ** 2
    return float(brentq(energy, 0.01 * (g - 1), 2.01 * g**2 * bound, xtol=1e-13, rtol=1e-12))


def _orbit(moments: _Moments, g: float) -> OdeSolution:
    """s(t) of c = 1 - s^2, the correlation at lag t, until it is gone: in s the start, at rest, is like any other."""
    v = moments.variance
    start = math.sqrt((g**2 * float(moments.covariance(np.ones(1))[0]) - v) / (2 * v))

    def slope(t: float, s: Array) -> Array:
        del t
        if s[0] < 1e-3:
            return np.full(1, start)
        return np.sqrt(np.maximum(-2 * moments.potential(1 - s**2, g), 0.0)) / (2 * v * s)

    def gone(t: float, s: Array) -> float:
        del t
        return float(1 - s[0] ** 2) - REST

    gone.terminal = True  # type: ignore[attr-defined]
    longest = 1e6
    found = solve_ivp(
        slope, (0, longest), np.zeros(1), "DOP853", rtol=1e-10, atol=1e-13, events=gone, dense_output=True
    )
    return found.sol


def _share(orbit: OdeSolution, lags: Array) -> Array:
    return np.maximum(1 - orbit(lags)[0] ** 2, 0.0)


def _level(moments: _Moments, g: float, orbit: OdeSolution, parity: int) -> float:
    """The lowest level of -psi'' + (1 - g^2 C') psi among even (parity 1) or odd (-1) functions.

    In sinc functions (Colbert & Miller 1992) on the half line. The lowest odd level is 0, of psi = D'.
    """
    h = orbit.ts[-1] / POINTS
    lags = h * (np.arange(POINTS) + 0.5)
    i = np.arange(POINTS)
    apart, across = i[:, None] - i, i[:, None] + i + 1
    near = np.where(apart == 0, math.pi**2 / 3, 2 * (-1.0) ** apart / np.where(apart == 0, 1, apart) ** 2)
    kinetic = (near + parity * 2 * (-1.0) ** across / across**2) / h**2
    well = 1 - g**2 * moments.slope(_share(orbit, lags))
    return float(eigh(kinetic + np.diag(well), eigvals_only=True, subset_by_index=[0, 0])[0])
