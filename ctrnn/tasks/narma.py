"""Nonlinear autoregressive moving averages (NARMA): a product of inputs some steps apart, fed back."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .draws import dtype_or_default, require, source, uniform

DIVERGED = 10.0  # nothing comes back from there
DRAWS = 100


class Driven(NamedTuple):
    """Inputs, what they make of the system, and how many draws were rejected because it diverged."""

    us: Float[Tensor, "time batch 1"]
    targets: Float[Tensor, "time batch 1"]
    rejected: int


@dataclass(frozen=True)
class NARMA:
    """y(k+1) = a y(k) + b y(k) sum_{i<order} y(k-i) + c u(k-order+1) u(k) + d,   u uniform in [0, highest).

    Atiya & Parlos (2000), IEEE Transactions on Neural Networks 11:697-709, whose system of order ten the defaults are.
    It diverges for some inputs. `reservoirpy.datasets.narma` is another recurrence: it sums y(k-order) to y(k-1) and
    multiplies by u(k-order).

    Raises:
        ValueError: the order is below 1.
    """

    order: int = 10
    a: float = 0.3
    b: float = 0.05
    c: float = 1.5
    d: float = 0.1
    highest: float = 0.5

    def __post_init__(self) -> None:
        require(self.order >= 1, f"order = {self.order} must be at least 1")

    def targets(self, us: Float[Tensor, "time *batch 1"]) -> Float[Tensor, "time *batch 1"]:
        """y(k+1) for each u(k), from silence: y and u are zero before the first."""
        ys, u = [torch.zeros_like(us[:1].sum(0))] * self.order, us.unbind(0)
        for k, now in enumerate(u):
            before = u[k - self.order + 1] if k >= self.order - 1 else torch.zeros_like(now)
            total = torch.stack(ys[-self.order :]).sum(0)
            ys.append(self.a * ys[-1] + self.b * ys[-1] * total + self.c * before * now + self.d)
        return torch.stack(ys[self.order :]) if len(us) else torch.zeros_like(us)

    def series(
        self, n: int, batch: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None
    ) -> Driven:
        """Inputs and targets; a series that leaves [-10, 10] is drawn again.

        Raises:
            ValueError: n or batch is no count, or hardly any inputs leave this system finite.
        """
        generator, dtype = source(batch, generator), dtype_or_default(dtype)
        require(n >= 1, f"n = {n}: ask for at least one sample")
        us = uniform(0.0, self.highest, (n, batch, 1), generator)
        targets, rejected = self.targets(us), 0
        for _ in range(DRAWS):
            lost = ~(targets.abs() < DIVERGED).flatten(2).all(-1).all(0)
            if not bool(lost.any()):
                return Driven(us.to(dtype), targets.to(dtype), rejected)
            rejected += int(lost.sum())
            us[:, lost] = uniform(0.0, self.highest, (n, int(lost.sum()), 1), generator)
            targets[:, lost] = self.targets(us[:, lost])
        raise ValueError(
            f"after {DRAWS} draws some of {batch} series of {n} samples still diverge: ask for shorter ones"
        )
