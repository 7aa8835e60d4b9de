"""The few directions in which a trajectory lies, and how fast it moves along them."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.decomposition import PCA
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.analysis._system import Dynamics, batch_shape, check_drive, check_tensors, in_float64, local


class Subspace(NamedTuple):
    """Principal axes of visited states; states, fixed points and directions are drawn in the same coordinates."""

    mean: Float[Tensor, " D"]
    axes: Float[Tensor, "k D"]  # orthonormal rows, the greatest variance first
    variance: Float[Tensor, " D"]  # along all principal axes

    @property
    def explained(self) -> Float[Tensor, " k"]:
        """Fraction of the variance along each of the k axes."""
        return self.variance[: len(self.axes)] / self.variance.sum()

    def project(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch k"]:
        """Coordinates of states; a State is ravelled with `ravelled` first."""
        return (x.to(self.mean) - self.mean) @ self.axes.mT

    def project_directions(self, v: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch k"]:
        """Coordinates of differences of states, such as modes (rows): without the mean."""
        return v.to(self.mean) @ self.axes.mT


def ravelled(xs: State) -> Float[Tensor, "time *batch D"]:
    """A trajectory's states as one Tensor, the parts of a NamedTuple side by side; some part has one axis of units.

    Raises:
        TypeError: the states are no Tensors.
    """
    check_tensors(xs)
    return tree.ravel(xs, max(min(leaf.ndim for leaf in tree.leaves(xs)) - 1, 0))


def principal_axes(xs: State, k: int = 3, mask: Bool[Tensor, "time *batch"] | None = None) -> Subspace:
    """The k principal axes of visited states (scikit-learn's PCA), in float64.

    Args:
        xs: states (time, *batch, D) or a NamedTuple of them, ravelled side by side; states with NaN do not count.
        k: how many axes.
        mask: which states count, such as `Trajectory.mask`; None is all.

    Raises:
        TypeError: the states are no Tensors.
        ValueError: more axes than the states span, fewer than two states count, or nothing moves.
    """
    rows = _counted(xs, mask)
    most = min(rows.shape)
    if not 1 <= k <= most:
        raise ValueError(f"k = {k}: {rows.shape[0]} states of {rows.shape[1]} numbers span at most {most} axes.")
    if not np.ptp(rows, axis=0).any():
        raise ValueError(f"all {len(rows)} states that count are the same: what does not move has no principal axes.")
    pca = PCA().fit(rows)
    variance = torch.zeros(rows.shape[1], dtype=torch.float64)
    variance[: len(pca.explained_variance_)] = torch.from_numpy(pca.explained_variance_)
    return Subspace(torch.from_numpy(pca.mean_), torch.from_numpy(pca.components_[:k]).clone(), variance)


def participation_ratio(xs: State, mask: Bool[Tensor, "time *batch"] | None = None) -> float:
    """(sum l)^2 / sum l^2 over the eigenvalues l of the covariance: how many dimensions the states fill.

    D for isotropic states, 1 on a line (Gao et al. 2017); NaN where nothing moves. Arguments as `principal_axes`'s.
    """
    rows = _counted(xs, mask)
    if not np.ptp(rows, axis=0).any():
        return float("nan")
    covariance = np.atleast_2d(np.cov(rows.T))
    return float(np.trace(covariance) ** 2 / np.square(covariance).sum())  # = sum l^2, for a symmetric matrix


@torch.no_grad()
def speed(
    system: Dynamics, xs: State, us: Float[Tensor, "time *batch input"] | None = None
) -> Float[Tensor, "time *batch"]:
    """|dx/dt| of a flow, or |step(x) - x| of a map, at every state of a trajectory, in float64.

    Args:
        system: a Model (flow), a Step with its dt, or a callable map.
        xs: states (time, *batch, ...).
        us: the drive, one for all of them (n_in,) or one each (time, *batch, n_in); None is silence.

    Raises:
        TypeError: states or drive are no floating-point Tensors.
        ValueError: they have another shape than the network's, or the flow of a clocked network is asked for.
    """
    lead = batch_shape(system, xs)
    check_drive(system, us, lead)
    batch = len(lead)
    xs = tree.map(lambda leaf: leaf.detach().double(), xs)
    move, is_map = local(in_float64(system), xs, batch)
    x = tree.ravel(xs, batch)
    u = None if us is None else us.detach().double().expand(*x.shape[:-1], us.shape[-1])
    return (move(x, u) - x if is_map else move(x, u)).norm(dim=-1)


def _counted(xs: State, mask: Tensor | None) -> np.ndarray:
    flat = ravelled(xs).detach().double().cpu()
    counts = torch.isfinite(flat).all(-1)
    if mask is not None:
        if mask.shape != counts.shape:
            raise ValueError(f"mask must be {tuple(counts.shape)} as the states are, got {tuple(mask.shape)}.")
        counts &= mask.cpu()
    rows = flat[counts].numpy()
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} states count: need at least two that are finite and not masked.")
    return rows
