"""What all single layers share: n units, an optional readout, one time constant or one per unit, a configuration."""

from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.dynamics import Relaxation

Vector = Float[Tensor, "*batch unit"]
Input = Float[Tensor, "*batch input"]
Draw = Callable[..., Tensor]


class Units(Relaxation):
    """n units; y = W_out activity(x) + b_out, or activity(x) itself without n_out."""

    W_rec: Tensor
    W_in: Tensor
    W_out: Tensor | None
    b_out: Tensor | None

    def __init__(self, n: int, n_in: int, n_out: int | None, tau: Any) -> None:
        super().__init__()
        check_size("n", n, 1)
        check_size("n_in", n_in, 0)
        check_size("n_out", 1 if n_out is None else n_out, 1)
        for name, part in tree.named(tau):
            shape = torch.as_tensor(part).shape
            if shape not in ((), (n,)):
                raise ValueError(
                    f"tau{name and '.' + name} must be one number or one per unit ({n}), got the shape {tuple(shape)}."
                )
        self.n, self.n_in, self.n_out = n, n_in, n_out
        self.tau = tau

    def _add_weights(self, draw: Draw, learn_tau: bool, **weights: tuple[int, ...] | None) -> None:
        """Register drawn Parameters of the given shapes (None: no such one), then the readout's, then a learned tau."""
        for name, shape in weights.items():
            self.register_parameter(name, None if shape is None else nn.Parameter(draw(*shape)))
        readout = self.n_out is not None
        self.register_parameter("W_out", nn.Parameter(draw(self.n_out, self.n)) if readout else None)
        self.register_parameter("b_out", nn.Parameter(draw(self.n_out)) if readout else None)
        if learn_tau:
            self.learn_tau()

    def activity(self, x: Any) -> Vector:
        """What the units show to one another and to the readout."""
        raise NotImplementedError

    def readout(self, x: State) -> Float[Tensor, "*batch output"]:
        """W_out activity(x) + b_out, or the activity without n_out."""
        seen = self.activity(x)
        return seen if self.W_out is None else F.linear(seen, self.W_out, self.b_out)

    def initial_state(self, *batch: int) -> Any:
        """All units at zero."""
        return self.W_rec.new_zeros(*batch, self.n)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments; tau as it was last assigned."""
        names, like = self._tau_layout
        tau = tree.unflatten(like, [self.get_buffer(f"tau0{name}").tolist() for name in names])
        learned = isinstance(getattr(self, f"log_ratio{names[0]}"), nn.Parameter)
        given = dict(tree.named(tau)) if isinstance(tau, tuple) else tau
        return {"n": self.n, "n_in": self.n_in, "n_out": self.n_out, "tau": given, "learn_tau": learned}

    def extra_repr(self) -> str:
        """The sizes."""
        return f"n={self.n}, n_in={self.n_in}, n_out={self.n_out}"


def check_size(name: str, value: int, least: int) -> None:
    """Raise unless `value` is an integer and at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")


def check_number(name: str, value: Any) -> None:
    """Raise unless `value` is a real number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}.")
