"""The activations that a saved model can name; any other function works too, but a file cannot hold it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ctrnn.lowered import Nonlinearity

Activation = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    """F(x) = x: a linear network."""
    return x


def retanh(x: Tensor) -> Tensor:
    """F(x) = max(0, tanh x): non-negative, saturating rates."""
    return torch.relu(torch.tanh(x))


def softmax(x: Tensor) -> Tensor:
    """F(x)_i = exp x_i / sum_j exp x_j over the last axis: probabilities of labels."""
    return torch.softmax(x, -1)


NAMES: dict[str, Activation] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "identity": identity,
    "retanh": retanh,
    "softmax": softmax,
}


def checked(activation: Activation) -> Activation:
    """The activation, or a TypeError that says what one is."""
    if not callable(activation):
        raise TypeError(f"activation must be a function of a Tensor such as torch.tanh, got {activation!r}.")
    return activation


def name_of(activation: Activation) -> str:
    """The name under which a file holds an activation.

    Raises:
        ValueError: it is none of the named ones.
    """
    for name, function in NAMES.items():
        if function is activation:
            return name
    raise ValueError(
        f"a file can name the activations {', '.join(NAMES)}, not {activation!r}: "
        "use one of ctrnn.models.activations or save the state_dict()."
    )


def named(name: str) -> Activation:
    """The inverse of `name_of`."""
    if name not in NAMES:
        raise ValueError(f"no activation is called {name!r}; there are {', '.join(NAMES)}")
    return NAMES[name]


_LOWERED: dict[Activation, Nonlinearity] = {
    identity: "identity",
    torch.tanh: "tanh",
    torch.relu: "relu",
    torch.sigmoid: "sigmoid",
    F.softplus: "softplus",
    retanh: "retanh",
}


def lowered(activation: Activation) -> Nonlinearity | None:
    """What compiled kernels call an activation, if they have it: one that acts on each unit alone."""
    return _LOWERED.get(activation)
