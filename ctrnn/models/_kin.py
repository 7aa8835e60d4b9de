"""What a kinship is: two networks that are one under a condition, with weights that meet it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation

N, N_IN, SAMPLES, BATCH = 3, 2, 5, 2
# When two networks are one: at every dt and in the flow, at every dt, at dt = tau only, in the flow only.
ALWAYS, STEPS, DISCRETE, CONTINUOUS = "at every dt, and in the flow", "at every dt", "at dt = tau", "in the flow"


class Pair(NamedTuple):
    """Two networks with tau = 1 that do the same, in double precision.

    us, parent_us: their drives (time, batch, n_in). x0: where the child starts. seen: maps the child's state to the
    parent's, time and batch leading or not. tau: the child's time constants for a step dt, where dt = tau is needed of
    one part at any dt.
    """

    child: Relaxation
    parent: Relaxation
    us: Tensor
    parent_us: Tensor
    x0: Any
    seen: Callable[[Any], Any]
    tau: Callable[[float], Any] = lambda dt: 1.0


class Kin(NamedTuple):
    """`child` is `parent` where the condition holds; `make` draws weights that meet it.

    tolerance: how far apart the two may be, over the size of the states; a limit is not reached.
    """

    child: type[Relaxation]
    parent: type[Relaxation]
    where: str
    when: str
    make: Callable[[Generator], Pair]
    tolerance: float = 1e-12

    @torch.no_grad()
    def pair(self, seed: int = 0) -> Pair:
        """An example of both networks."""
        return self.make(Generator().manual_seed(seed))


def randn(draw: Generator, *shape: int) -> Tensor:
    return 0.5 * torch.randn(shape, generator=draw, dtype=torch.float64)


def give(net: nn.Module, **weights: Tensor | float) -> Any:
    """The network with these weights in double precision."""
    net.double()
    for name, value in weights.items():
        net.get_parameter(name).copy_(torch.as_tensor(value))
    return net


def plain(child: Relaxation, parent: Relaxation, draw: Generator, x0: Any = None) -> Pair:
    """A pair with one drive and one state, random unless it is given."""
    us = randn(draw, SAMPLES, BATCH, child.n_in)
    start = tree.map(lambda leaf: leaf + randn(draw, *leaf.shape), child.initial_state(BATCH))
    return Pair(child, parent, us, us, start if x0 is None else x0, lambda x: x)
