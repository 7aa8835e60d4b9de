"""What all networks with a memory share: a controller that sets heads, and an output that sees what they read."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ctrnn import _model_files as files
from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation
from ctrnn.models._units import Vector, check_size
from ctrnn.models.gated import _within


class Controlled(Relaxation):
    """heads = W_heads h + b_heads,   y = W_out (h, r) + b_out, where the controller h reads (u, r).

    `parts` is the form of its own time constants: a state of numbers whose `controller` is (), for the controller has
    its own.
    """

    W_out: Tensor | None
    b_out: Tensor | None

    def __init__(
        self,
        controller: Relaxation,
        n_out: int | None,
        *,
        slots: int,
        width: int,
        reads: int,
        writes: int,
        parts: Any,
        tau: Any,
        learn_tau: bool,
    ) -> None:
        super().__init__()
        if not isinstance(controller, Relaxation):
            raise TypeError(
                f"the controller must be a Relaxation, got a {type(controller).__name__}: "
                "wrap(cell) makes one of any cell."
            )
        for name, value in (("slots", slots), ("width", width), ("reads", reads), ("writes", writes)):
            check_size(name, value, 1)
        check_size("n_out", 1 if n_out is None else n_out, 1)
        if controller.n_in < reads * width:
            raise ValueError(
                f"a {type(controller).__name__} with n_in={controller.n_in} has no room for what {reads} heads read "
                f"from slots of {width} numbers: give it n_in={reads * width} plus the inputs'."
            )
        self.controller = controller
        self.n_in, self.n_out = controller.n_in - reads * width, n_out
        self.slots, self.width, self.reads, self.writes = slots, width, reads, writes
        start = controller.initial_state()
        self._controller = tree.map(lambda _: 0, start)
        self._said = controller.readout(start).shape[-1]
        self._parts = parts
        self.pace = Relaxation()  # keeps the memory's time constants
        self.pace.tau = self._own(tau)
        if learn_tau:
            self.pace.learn_tau()

    def _add_weights(self, rows: int, generator: Generator | None) -> None:
        """Register the heads' weights, then the readout's: uniformly within 1 / sqrt(units that send)."""
        draw, n_read = _within(1 / math.sqrt(self._said), generator), self._said + self.reads * self.width
        self.W_heads, self.b_heads = nn.Parameter(draw(rows, self._said)), nn.Parameter(draw(rows))
        out = _within(1 / math.sqrt(n_read), generator)
        for name, shape in (("W_out", (n_read,)), ("b_out", ())):
            given = None if self.n_out is None else nn.Parameter(out(self.n_out, *shape))
            self.register_parameter(name, given)

    def heads(self, said: Vector) -> Float[Tensor, "*batch row"]:
        """W_heads h + b_heads: all that the controller says to its heads."""
        return F.linear(said, self.W_heads, self.b_heads)

    def read(self, x: Any) -> Float[Tensor, "*batch read word"]:
        """r: what the heads read."""
        return x.read_weights @ x.memory

    def readout(self, x: Any) -> Float[Tensor, "*batch output"]:
        """W_out (h, r) + b_out, or (h, r) without n_out."""
        seen = torch.cat([self.controller.readout(x.controller), self.read(x).flatten(-2)], -1)
        return seen if self.W_out is None else F.linear(seen, self.W_out, self.b_out)

    def _control(self, t: Tensor, x: Any, u: Tensor, rates: Any) -> tuple[Any, Vector]:
        """The controller's F, and what it says as the step leaves it."""
        new = self.controller.target(t, x.controller, torch.cat([u, self.read(x).flatten(-2)], -1), rates.controller)
        return new, self.controller.readout(tree.blend(x.controller, new, rates.controller))

    def _own(self, tau: Any) -> Any:
        """Time constants of all parts but the controller."""
        parts = tau if isinstance(tau, tuple) else tree.map(lambda _: tau, self._parts)
        own = parts._replace(controller=()) if isinstance(parts, type(self._parts)) else parts
        names = [name for name, _ in tree.named(self._parts)]
        if [name for name, _ in tree.named(own)] != names or any(torch.as_tensor(v).ndim for v in tree.leaves(own)):
            kind = type(self._parts).__name__
            raise ValueError(
                f"tau of the memory is one number, or {kind}(controller=(), ...) with one for each of "
                f"{', '.join(names)}, got {tau!r}."
            )
        return own

    @property
    def tau(self) -> Any:
        """The controller's time constants and the memory's."""
        return self.pace.tau._replace(controller=tree.spread(self.controller.tau, self._controller))

    @tau.setter
    def tau(self, value: Any) -> None:
        self.pace.tau = self._own(value)
        parts: Any = value
        given = parts.controller if isinstance(value, tuple) else value
        if given != ():
            self.controller.tau = given

    def learn_tau(self) -> None:
        """Make the time constants of controller and memory Parameters."""
        self.pace.learn_tau()
        self.controller.learn_tau()

    @property
    def config(self) -> dict[str, Any]:
        """The controller's class and configuration, the sizes, and the memory's tau."""
        names = [name for name, _ in tree.named(self._parts)]
        return {
            "controller": files.describe(self.controller),
            "n_out": self.n_out,
            "slots": self.slots,
            "width": self.width,
            "reads": self.reads,
            "writes": self.writes,
            "tau": {name: self.pace.get_buffer(f"tau0_{name}").tolist() for name in names},
            "learn_tau": isinstance(getattr(self.pace, f"log_ratio_{names[0]}"), nn.Parameter),
        }

    @classmethod
    def _arguments(cls, config: dict[str, Any], empty: Any) -> dict[str, Any]:
        """The constructor's arguments of a configuration; `empty` is a state of parts that are ()."""
        controller = files.build(Relaxation, config["controller"])
        return config | {"controller": controller, "tau": empty._replace(**config["tau"])}

    def extra_repr(self) -> str:
        """The sizes."""
        sizes = ("n_in", "n_out", "slots", "width", "reads", "writes")
        return ", ".join(f"{name}={getattr(self, name)}" for name in sizes)


def left(x: Any, target: Any, rate: Any) -> Any:
    """lerp(x, F, alpha): a part of the state as the step leaves it."""
    return tree.blend(x, target, rate)
