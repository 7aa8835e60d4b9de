"""Periodic orbits as the zeros of a collocation (de Boor & Swartz 1973; Doedel, Keller & Kernevez 1991).

A cycle of period T is a piecewise polynomial on [0, 1] that meets dx/ds = T f(x, p) at the Gauss points of each
interval. Unknowns: its values at equally spaced nodes of each interval, log T, and the parameter p.
"""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from scipy.interpolate import BarycentricInterpolator
from scipy.sparse import coo_array
from torch import Tensor

from ctrnn.analysis._arclength import Array

DEGREE = 4


class Basis(NamedTuple):
    """Lagrange polynomials on m + 1 equally spaced nodes of [0, 1], at the m Gauss points."""

    values: Array  # (m, m + 1)
    slopes: Array  # (m, m + 1)
    weights: Array  # (m,) of Gauss's quadrature


def _basis(m: int) -> Basis:
    gauss, weights = np.polynomial.legendre.leggauss(m)
    nodes, at = np.linspace(0, 1, m + 1), (gauss + 1) / 2
    polynomials = [
        np.polynomial.Polynomial.fromroots(np.delete(nodes, k)) / np.prod(nodes[k] - np.delete(nodes, k))
        for k in range(m + 1)
    ]
    return Basis(
        np.array([p(at) for p in polynomials]).T, np.array([p.deriv()(at) for p in polynomials]).T, weights / 2
    )


BASIS = _basis(DEGREE)
NODES = np.linspace(0, 1, DEGREE + 1)


class Cycles:
    """The collocation equations of dx/dt = field(x, p) on a mesh; a phase condition holds the orbit to a reference.

    The integral of x . dx_reference/ds over the orbit is zero.
    """

    def __init__(self, field: Callable[[Tensor], Tensor], mesh: Array, n: int) -> None:
        self.field, self.mesh, self.n = field, mesh, n
        self.count = len(mesh) - 1  # intervals
        points = self.count * DEGREE + 1
        self.weights = np.append(np.full(points * n, 1 / (points * n)), [1.0, 1.0])
        self.reference = np.zeros((points, n))
        self._jacobian = torch.vmap(torch.func.jacrev(field))

    @cached_property
    def widths(self) -> Array:
        return np.diff(self.mesh)

    @cached_property
    def times(self) -> Array:
        """Where the nodes lie in [0, 1]."""
        inner = self.mesh[:-1, None] + self.widths[:, None] * NODES[:-1]
        return np.append(inner.reshape(-1), 1.0)

    def orbit(self, z: Array) -> Array:
        """The nodes' values (point, n)."""
        return z[:-2].reshape(-1, self.n)

    def _pieces(self, orbit: Array) -> Array:
        """The nodes of each interval (interval, m + 1, n)."""
        index = np.arange(self.count)[:, None] * DEGREE + np.arange(DEGREE + 1)
        return orbit[index]

    def _at_gauss(self, z: Array) -> Tensor:
        """(x, p) at each Gauss point (interval * m, n + 1)."""
        x = np.einsum("jk,ikn->ijn", BASIS.values, self._pieces(self.orbit(z))).reshape(-1, self.n)
        return torch.from_numpy(np.concatenate([x, np.full((len(x), 1), z[-1])], 1))

    @torch.no_grad()
    def residual(self, z: Array) -> Array:
        orbit, period = self.orbit(z), np.exp(z[-2])
        slopes = np.einsum("jk,ikn->ijn", BASIS.slopes, self._pieces(orbit)) / self.widths[:, None, None]
        flow = torch.vmap(self.field)(self._at_gauss(z)).numpy().reshape(slopes.shape)
        phase = (self._phase * orbit.reshape(-1)).sum()
        return np.concatenate([(slopes - period * flow).reshape(-1), orbit[-1] - orbit[0], [phase]])

    @property
    def _phase(self) -> Array:
        """The phase condition as one row: its weights on the nodes' values."""
        slopes = np.einsum("jk,ikn->ijn", BASIS.slopes, self._pieces(self.reference))  # h dx/ds; h cancels ds = h dc
        weighted = BASIS.weights[:, None] * slopes
        row = np.zeros((self.count * DEGREE + 1, self.n))
        for k in range(DEGREE + 1):
            at = np.arange(self.count) * DEGREE + k
            np.add.at(row, at, np.einsum("j,ijn->in", BASIS.values[:, k], weighted))
        return row.reshape(-1)

    @torch.no_grad()
    def _blocks(self, z: Array) -> tuple[Array, Array]:
        """d(residual)/d(nodes) of each interval (interval, m n, (m + 1) n), and d/d(log T, p) (interval, m n, 2)."""
        n, period = self.n, np.exp(z[-2])
        points = self._at_gauss(z)
        J = self._jacobian(points).numpy().reshape(self.count, DEGREE, n, n + 1)
        flow = torch.vmap(self.field)(points).numpy().reshape(self.count, DEGREE, n)
        derivative = np.einsum("jk,ab->jakb", BASIS.slopes, np.eye(n)) / self.widths[:, None, None, None, None]
        blocks = derivative - period * np.einsum("jk,ijab->ijakb", BASIS.values, J[..., :n])
        others = -period * np.stack([flow, J[..., n]], -1)
        return blocks.reshape(self.count, DEGREE * n, (DEGREE + 1) * n), others.reshape(self.count, DEGREE * n, 2)

    def jacobian(self, z: Array) -> coo_array:
        n, size = self.n, self.count * DEGREE * self.n
        blocks, others = self._blocks(z)
        i, row, column = np.ogrid[: self.count, : DEGREE * n, : (DEGREE + 1) * n]
        rows, columns = np.broadcast_arrays(i * DEGREE * n + row, i * DEGREE * n + column)
        border = np.arange(size)
        unknowns = size + n
        entries = [
            (rows, columns, blocks),
            (border, np.full(size, unknowns), others[..., 0]),
            (border, np.full(size, unknowns + 1), others[..., 1]),
            (size + np.arange(n), size + np.arange(n), np.ones(n)),
            (size + np.arange(n), np.arange(n), -np.ones(n)),
            (np.full(unknowns, size + n), np.arange(unknowns), self._phase),
        ]
        r, c, v = (np.concatenate([np.ravel(entry[k]) for entry in entries]) for k in range(3))
        return coo_array((v, (r, c)), shape=(unknowns + 1, unknowns + 2))

    def monodromy(self, z: Array) -> Array:
        """How a small deviation has changed after one period (n, n)."""
        blocks, _ = self._blocks(z)
        n = self.n
        inner = np.linalg.solve(blocks[..., n:], -blocks[..., :n])[:, -n:]
        M = np.eye(n)
        for A in inner:
            M = A @ M
        return M

    def multipliers(self, z: Array) -> tuple[float, Array]:
        """The trivial Floquet multiplier, of a deviation along the orbit, and the others (n - 1,).

        The monodromy leaves the velocity as it is; the others are those of what it does across. Where the orbit nearly
        stands still rounding spoils the first, which an eigenvalue solver would then take for another.
        """
        with torch.no_grad():
            velocity = self.field(torch.from_numpy(np.append(self.orbit(z)[0], z[-1]))).numpy()
        basis, _ = np.linalg.qr(velocity[:, None], mode="complete")
        M = basis.T @ self.monodromy(z) @ basis
        return float(M[0, 0]), np.linalg.eigvals(M[1:, 1:]).astype(complex)

    def remeshed(self, z: Array, tangent: Array) -> tuple["Cycles", Array, Array]:
        """The same orbit on a mesh whose intervals share its error equally (de Boor 1973), and the tangent with it."""
        pieces = self._pieces(self.orbit(z))
        # The highest derivative, constant on each interval; its jumps estimate the one that the error depends on.
        top = np.diff(pieces, DEGREE, axis=1)[:, 0] / (self.widths[:, None] / DEGREE) ** DEGREE
        jump = np.abs(np.roll(top, -1, 0) - top).sum(1) + np.abs(top - np.roll(top, 1, 0)).sum(1)
        density = (jump / self.widths) ** (1 / (DEGREE + 1))
        density = density + 0.1 * (density * self.widths).sum() + 1e-12
        share = np.append(0, np.cumsum(density * self.widths))
        mesh = np.interp(np.linspace(0, share[-1], self.count + 1), share, self.mesh)
        mesh[0], mesh[-1] = 0.0, 1.0
        new = Cycles(self.field, mesh, self.n)
        new.reference = self.interpolated(self.reference, new.times)
        moved = [np.append(self.interpolated(self.orbit(v), new.times).reshape(-1), v[-2:]) for v in (z, tangent)]
        length = np.sqrt((moved[1] ** 2 * new.weights).sum())
        return new, moved[0], moved[1] / length

    def interpolated(self, orbit: Array, times: Array) -> Array:
        """The piecewise polynomial at times in [0, 1] (time, n)."""
        interval = np.clip(np.searchsorted(self.mesh, times, side="right") - 1, 0, self.count - 1)
        inside = (times - self.mesh[interval]) / self.widths[interval]
        lagrange = BarycentricInterpolator(NODES, np.eye(DEGREE + 1))(inside)
        return np.einsum("tk,tkn->tn", lagrange, self._pieces(orbit)[interval])
