"""What the first networks with a memory were controlled by, besides an LSTM."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation
from ctrnn.init import Masked, constrain
from ctrnn.models._units import Input
from ctrnn.models.activations import Activation
from ctrnn.models.gated import LSTM, Elman
from ctrnn.models.stack import Stack, StackState


def feed_forward(
    n: int, n_in: int, *, activation: Activation = torch.tanh, tau: Any = 1.0, generator: Generator | None = None
) -> Elman:
    """h = f(W_in u + b) at dt = tau: units that remember nothing, as an `Elman` whose W_rec is held at zero.

    With such a controller (Graves et al. 2014) whatever a network knows of the past is in its memory.
    """
    net = Elman(n, n_in, activation=activation, tau=tau, generator=generator)
    return constrain(net, "W_rec", Masked(torch.zeros(n, n).bool()))


class SkipStack(Stack):
    """tau_l dx_l/dt = F_l(x_l, (u, y_{l-1})) - x_l,   y = (y_1, ..., y_L),   y_l = readout_l(x_l).

    Layers that all see the input, and are all seen: Graves (2013), arXiv:1308.0850; with `LSTM` layers the controller
    of the differentiable neural computer. Within a step layer l reads layer l - 1 as the step leaves it, as in a
    `Stack`.

    Args:
        layers: relaxations, the first reading the input; each other must take as many inputs as the first plus the
            outputs of the one before it.

    State and tau: StackState(layers=(...)), each layer's own inside.

    Raises:
        TypeError: a layer is no Relaxation.
        ValueError: no layers, or one that does not fit the one before it.
    """

    def _check_widths(self, layers: Sequence[Relaxation]) -> None:
        for below, above in pairwise(layers):
            width = layers[0].n_in + below.readout(below.initial_state()).shape[-1]
            if above.n_in != width:
                raise ValueError(
                    f"a {type(above).__name__} with n_in={above.n_in} cannot read the input and a "
                    f"{type(below).__name__}: give it n_in={width}."
                )

    def target(self, t: Tensor, x: StackState, u: Input, alpha: Any = 0) -> StackState:  # type: ignore[override]
        """Each layer's F, the upper ones fed with the input and the layer below after the step."""
        targets: list[Any] = []
        seen = u
        for layer, state, part in zip(self._each(), x.layers, tree.spread(alpha, x).layers, strict=True):
            new = layer.target(t, state, seen, part)
            targets.append(new)
            seen = torch.cat([u, layer.readout(tree.blend(state, new, part))], -1)
        return StackState(tuple(targets))

    def readout(self, x: StackState) -> Float[Tensor, "*batch output"]:  # type: ignore[override]
        """What all layers say, side by side."""
        return torch.cat([layer.readout(state) for layer, state in zip(self._each(), x.layers, strict=True)], -1)

    @classmethod
    def twin_of(cls, module: nn.Module) -> Self | None:
        del module  # torch has no such network
        return None

    def to_torch(self) -> nn.Module:
        raise TypeError("torch.nn has no network whose layers all see the input: a Stack has a counterpart.")

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        return cls([LSTM(2, 2, generator=draw), LSTM(3, 4, tau=2.0, generator=draw)])
