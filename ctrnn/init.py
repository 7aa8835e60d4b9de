"""How weights start, and what they keep: initial matrices as pure functions, and constraints that survive training.

Weights are `W[to, from]`: row i holds what unit i receives, column j what unit j sends.
"""

import math
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

M = TypeVar("M", bound=nn.Module)


def gaussian(
    n: int, g: float = 1.0, *, generator: Generator | None = None, dtype: torch.dtype | None = None
) -> Float[Tensor, "unit unit"]:
    """W_ij ~ N(0, g^2 / n): for large n the eigenvalues fill a disc of radius g (Girko 1985)."""
    return torch.randn(n, n, generator=generator, dtype=dtype) * (g / math.sqrt(n))


def spectral_radius(
    n: int,
    radius: float = 1.0,
    *,
    density: float = 1.0,
    generator: Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "unit unit"]:
    """A Gaussian matrix, sparse if `density` < 1, scaled to max |eigenvalue| = radius (Jaeger 2001)."""
    W = gaussian(n, generator=generator, dtype=dtype)
    return scaled(W * sparse_mask(n, density, generator=generator) if density < 1 else W, radius)


def scaled(W: Float[Tensor, "unit unit"], radius: float) -> Float[Tensor, "unit unit"]:
    """W times the factor that makes its largest |eigenvalue| equal to `radius`.

    Raises:
        ValueError: the eigenvalues of W are zero to rounding, so that no factor does it.
    """
    largest = torch.linalg.eigvals(W).abs().max()
    if largest <= torch.finfo(W.dtype).eps * torch.linalg.matrix_norm(W, 2):
        raise ValueError(
            "all eigenvalues of W are zero, so no scaling gives it a spectral radius: draw a denser matrix."
        )
    return W * (radius / largest)


def orthogonal(
    n: int, gain: float = 1.0, *, generator: Generator | None = None, dtype: torch.dtype | None = None
) -> Float[Tensor, "unit unit"]:
    """gain * Q with Q Q^T = 1, uniform over the orthogonal group (Saxe, McClelland & Ganguli 2014)."""
    return nn.init.orthogonal_(torch.empty(n, n, dtype=dtype), gain, generator=generator)


def ring(n: int, weight: float = 1.0, *, dtype: torch.dtype | None = None) -> Float[Tensor, "unit unit"]:
    """Unit i hears unit i - 1 alone, the first one the last: all |eigenvalues| are `weight` (Rodan & Tino 2011)."""
    return weight * torch.eye(n, dtype=dtype).roll(1, 0)


def delay_line(n: int, weight: float = 1.0, *, dtype: torch.dtype | None = None) -> Float[Tensor, "unit unit"]:
    """Unit i hears unit i - 1 alone, the first one nobody: all eigenvalues are 0 (Rodan & Tino 2011)."""
    W = ring(n, weight, dtype=dtype)
    W[0, -1] = 0
    return W


def effective_radius(W: Float[Tensor, "unit unit"], alpha: float) -> float:
    """Largest |eigenvalue| of (1 - alpha) 1 + alpha W: what a step alpha = dt / tau makes of W (Jaeger et al. 2007).

    Below 1 the linear network forgets; tanh units at rest have the same linearisation.
    """
    return float((1 - alpha + alpha * torch.linalg.eigvals(W.detach())).abs().max())


def log_uniform_tau(
    n: int, low: float, high: float, *, generator: Generator | None = None, dtype: torch.dtype | None = None
) -> Float[Tensor, " unit"]:
    """One time constant per unit, its logarithm uniform from log(low) to log(high); in the unit of these."""
    if not 0 < low <= high < math.inf:
        raise ValueError(f"time constants need 0 < low <= high, got low={low} and high={high}.")
    share = torch.rand(n, generator=generator, dtype=dtype)
    return (low * (high / low) ** share).clamp(low, high)


def sparse_mask(n: int, density: float, *, generator: Generator | None = None) -> Bool[Tensor, "unit unit"]:
    """True for round(density * n) inputs of every unit (at least one), chosen at random."""
    if not 0 < density <= 1:
        raise ValueError(f"density must lie in (0, 1], got {density}.")
    inputs = max(1, round(density * n))
    chosen = torch.rand(n, n, generator=generator).argsort(-1)[:, :inputs]
    return torch.zeros(n, n, dtype=torch.bool).scatter_(-1, chosen, True)


def dale_signs(n: int, excitatory: float = 0.8, *, dtype: torch.dtype | None = None) -> Float[Tensor, " unit"]:
    """+1 for the first round(excitatory * n) units, -1 for the others."""
    count = round(excitatory * n)
    if not 0 < count < n:
        raise ValueError(
            f"Dale's law needs both kinds of unit: a share of {excitatory} of {n} units makes {count} excitatory ones."
        )
    signs = torch.ones(n, dtype=dtype)
    signs[count:] = -1
    return signs


def dale(
    n: int,
    excitatory: float = 0.8,
    radius: float = 1.0,
    *,
    generator: Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "unit unit"]:
    """Columns of one sign each, every row summing to zero, spectral radius `radius` (after Rajan & Abbott 2006).

    The rows' balance removes the outlying eigenvalues that the columns' means would cause. Rajan & Abbott subtract
    each row's mean, which lets single weights change sign; here the inhibitory weights of a row are scaled instead, so
    every sign holds. Signs as in `dale_signs`.
    """
    signs = dale_signs(n, excitatory, dtype=dtype)
    size = torch.randn(n, n, generator=generator, dtype=dtype).abs()
    excitation, inhibition = (size * (signs > 0)).sum(-1, True), (size * (signs < 0)).sum(-1, True)
    return scaled(torch.where(signs > 0, size, -size * (excitation / inhibition)), radius)


def centre_crossing(W_rec: Float[Tensor, "unit unit"]) -> Float[Tensor, " unit"]:
    """theta_i = -sum_j W_ij / 2: the null surfaces of a logistic CTRNN cross at its units' midpoints (Beer 1995)."""
    return -W_rec.sum(-1) / 2


class Constraint(nn.Module):
    """A `torch.nn.utils.parametrize` parametrisation that files restore: its constructor takes its buffers by name."""

    def right_inverse(self, W: Tensor) -> Tensor:
        """What is stored when W is assigned: W made to fulfil the constraint, as it is if it already does."""
        return self(W)


class Masked(Constraint):
    """W_ij where the mask is True, else 0. An assigned weight outside the mask is dropped."""

    def __init__(self, mask: Bool[Tensor, "to from"]) -> None:
        super().__init__()
        if mask.dtype != torch.bool:
            raise TypeError(f"a mask is a bool Tensor, got {mask.dtype}: compare the weights with zero, for instance.")
        self.register_buffer("mask", mask.clone())

    def forward(self, W: Tensor) -> Tensor:
        return torch.where(self.get_buffer("mask"), W, 0.0)


class Dale(Constraint):
    """sign_j |W_ij|: all that unit j sends has one sign, to which an assigned weight of the other sign turns."""

    def __init__(self, signs: Float[Tensor, " from"]) -> None:
        super().__init__()
        if not bool((signs.abs() == 1).all()):
            raise ValueError("Dale's signs are +1 (excitatory) or -1 (inhibitory), one per sending unit.")
        self.register_buffer("signs", signs.clone())

    def forward(self, W: Tensor) -> Tensor:
        return self.get_buffer("signs").to(W.dtype) * W.abs()


def constrain(model: M, name: str, constraint: nn.Module) -> M:
    """Keep `model.name` within `constraint` from now on, training included; several apply in the order they were given.

    Afterwards assign with `model.name = W`: writing into the Tensor in place changes a copy, as with every torch
    parametrisation.

    Raises:
        ValueError: the model has no such weights, or the constraint does not fit their shape.
    """
    W = getattr(model, name, None)
    if not isinstance(W, Tensor):
        raise ValueError(f"{type(model).__name__} has no weights {name!r} to constrain.")
    for part, buffer in constraint.named_buffers():
        if buffer.shape != W.shape[W.ndim - buffer.ndim :]:
            raise ValueError(f"{part} of shape {tuple(buffer.shape)} does not fit {name} of shape {tuple(W.shape)}.")
    parametrize.register_parametrization(model, name, constraint)
    return model
