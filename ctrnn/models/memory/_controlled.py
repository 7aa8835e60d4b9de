"""What all networks with a memory share: a controller that sets heads, and an output that sees what they read."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ctrnn import _model_files as files
from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation
from ctrnn.models._units import Vector, check_size
from ctrnn.models.gated import _within
from ctrnn.models.memory.addressing import paced
from ctrnn.steps import check_duration


class External(Relaxation):
    """heads = W_heads h + b_heads,   y = readout(h, r), where the controller h reads (u, r) and r is read in a memory.

    `parts` is the form of its own time constants: a state of numbers whose `controller` is (), for the controller has
    its own. A clocked memory holds between the multiples of tau and has one number, its period; a relaxed one flows.
    `ticking` names parts of a relaxed one that tick nonetheless, as a state of bools: then all have one number for tau.
    """

    sees_reads: ClassVar[bool] = False  # whether the readout sees r as well
    W_out: Tensor | None
    b_out: Tensor | None

    def __init__(
        self,
        controller: Relaxation,
        n_out: int | None,
        *,
        reads: int,
        width: int,
        parts: Any,
        clocked: bool,
        tau: Any,
        learn_tau: bool = False,
        exact_rates: bool = False,
        ticking: Any = None,
    ) -> None:
        super().__init__()
        if not isinstance(controller, Relaxation):
            raise TypeError(
                f"the controller must be a Relaxation, got a {type(controller).__name__}: "
                "wrap(cell) makes one of any cell."
            )
        check_size("n_out", 1 if n_out is None else n_out, 1)
        if controller.n_in < reads * width:
            raise ValueError(
                f"a {type(controller).__name__} with n_in={controller.n_in} has no room for what {reads} heads read "
                f"from slots of {width} numbers: give it n_in={reads * width} plus the inputs'."
            )
        self.controller = controller
        self.n_in, self.n_out, self._n_read = controller.n_in - reads * width, n_out, reads * width
        start = controller.initial_state()
        self._controller = tree.map(lambda _: 0, start)
        self._said = controller.readout(start).shape[-1]
        if clocked and exact_rates:
            raise ValueError(
                "a clocked memory takes whole steps, exact as they are: pass clocked=False, or no exact_rates."
            )
        self._parts, self.clocked, self.exact_rates = parts, clocked, exact_rates
        self._ticking = tree.map(lambda _: clocked, parts) if ticking is None else ticking
        self._ticks = any(tree.leaves(self._ticking))
        if not self._ticks:
            self.pace = Relaxation()  # keeps the memory's time constants
        self._set_tau(tau)
        if learn_tau:
            self._learn_own_tau()

    def _add_weights(self, rows: int, generator: Generator | None) -> None:
        """Register the heads' weights, then the readout's: uniformly within 1 / sqrt(units that send)."""
        draw, n_seen = _within(1 / math.sqrt(self._said), generator), self._said + self.sees_reads * self._n_read
        self.W_heads, self.b_heads = nn.Parameter(draw(rows, self._said)), nn.Parameter(draw(rows))
        out = _within(1 / math.sqrt(n_seen), generator)
        for name, shape in (("W_out", (n_seen,)), ("b_out", ())):
            given = None if self.n_out is None else nn.Parameter(out(self.n_out, *shape))
            self.register_parameter(name, given)

    def heads(self, said: Vector) -> Float[Tensor, "*batch row"]:
        """W_heads h + b_heads: all that the controller says to its heads."""
        return F.linear(said, self.W_heads, self.b_heads)

    def read(self, x: Any) -> Float[Tensor, "*batch read word"]:
        """r: what is read."""
        raise NotImplementedError

    def readout(self, x: Any) -> Float[Tensor, "*batch output"]:
        """W_out h + b_out, or h without n_out; (h, r) in place of h if the readout sees what is read."""
        seen = self.controller.readout(x.controller)
        if self.sees_reads:
            seen = torch.cat([seen, self.read(x).flatten(-2)], -1)
        return seen if self.W_out is None else F.linear(seen, self.W_out, self.b_out)

    def _control(self, t: Tensor, x: Any, u: Tensor, rates: Any) -> tuple[Any, Vector]:
        """The controller's F, and what it says as the step leaves it."""
        if not self._holds(rates) and self.clocked and all(_is(rate, 0) for rate in tree.leaves(rates.controller)):
            return x.controller, self.controller.readout(x.controller)  # a tick, for which it stands still
        new = self.controller.target(t, x.controller, torch.cat([u, self.read(x).flatten(-2)], -1), rates.controller)
        return new, self.controller.readout(tree.blend(x.controller, new, rates.controller))

    def _holds(self, rates: Any) -> bool:
        """Whether the memory stands still, between two ticks."""
        return self.clocked and not _is(tree.leaves(rates._replace(controller=()))[0], 1)

    @property
    def clock(self) -> Any:
        """The memory's period, if it is clocked, and the controller's."""
        inner = self.controller.clock
        if not self._ticks and inner is None:
            return None
        own = tree.map(lambda ticks: self.period if ticks else None, self._ticking)
        return own._replace(controller=tree.spread(inner, self._controller))

    @property
    def tau(self) -> Any:
        """The controller's time constants and the memory's; a clocked one's are infinite, and `period` is its own."""
        number = lambda ticks: self.W_heads.new_full((), torch.inf if ticks else self.period)
        own = tree.map(number, self._ticking) if self._ticks else self.pace.tau
        return own._replace(controller=tree.spread(self.controller.tau, self._controller))

    @tau.setter
    def tau(self, value: Any) -> None:
        self._set_tau(self._one_number(value) if self._ticks and not self.clocked else value)
        parts: Any = value
        given = parts.controller if isinstance(value, tuple) else value
        if given != ():
            self.controller.tau = given

    def _set_tau(self, tau: Any) -> None:
        """Keep the time constants of all parts but the controller."""
        if self._ticks:
            if isinstance(tau, tuple) or torch.as_tensor(tau).ndim:
                raise ValueError(f"tau of a clocked memory is one number, its period, got {tau!r}: or clocked=False.")
            check_duration("tau", float(tau))
            self.period = float(tau)
            return
        parts = tau if isinstance(tau, tuple) else tree.map(lambda _: tau, self._parts)
        own = parts._replace(controller=()) if isinstance(parts, type(self._parts)) else parts
        names = [name for name, _ in tree.named(self._parts)]
        if [name for name, _ in tree.named(own)] != names or any(torch.as_tensor(v).ndim for v in tree.leaves(own)):
            kind = type(self._parts).__name__
            raise ValueError(
                f"tau of the memory is one number, or {kind}(controller=(), ...) with one for each of "
                f"{', '.join(names)}, got {tau!r}."
            )
        self.pace.tau = own

    def _one_number(self, tau: Any) -> Any:
        """The number of all flowing parts of a partly ticking memory, where they are given as `tau` shows them."""
        own: Any = tree.leaves(tau._replace(controller=())) if isinstance(tau, type(self._parts)) else []
        numbers = {float(part) for part in own if torch.as_tensor(part).ndim == 0} - {torch.inf}
        return numbers.pop() if len(numbers) == 1 else tau

    def learn_tau(self) -> None:
        """Make the time constants of the controller Parameters, and those of a relaxed memory."""
        if not self._ticks:
            self.pace.learn_tau()
        self.controller.learn_tau()

    def _learn_own_tau(self) -> None:
        if self.clocked:
            raise ValueError("a clocked memory has no tau to learn, but a period: pass clocked=False, or no learn_tau.")
        self.pace.learn_tau()

    @property
    def config(self) -> dict[str, Any]:
        """The controller's class and configuration, and the memory's tau."""
        names = [name for name, _ in tree.named(self._parts)]
        relaxed = {} if self._ticks else {name: self.pace.get_buffer(f"tau0_{name}").tolist() for name in names}
        return {
            "controller": files.describe(self.controller),
            "n_out": self.n_out,
            "clocked": self.clocked,
            "tau": self.period if self._ticks else relaxed,
            "learn_tau": not self._ticks and isinstance(getattr(self.pace, f"log_ratio_{names[0]}"), nn.Parameter),
        }

    @classmethod
    def _arguments(cls, config: dict[str, Any], empty: Any) -> dict[str, Any]:
        """The constructor's arguments of a configuration; `empty` is a state of parts that are ()."""
        controller = files.build(Relaxation, config["controller"])
        tau = config["tau"]
        return config | {"controller": controller, "tau": empty._replace(**tau) if isinstance(tau, dict) else tau}


class Controlled(External):
    """y = W_out (h, r) + b_out, where r is read in slots at which heads look with weights."""

    sees_reads = True

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
        clocked: bool,
        exact_rates: bool,
        tau: Any,
        learn_tau: bool,
    ) -> None:
        for name, value in (("slots", slots), ("width", width), ("reads", reads), ("writes", writes)):
            check_size(name, value, 1)
        super().__init__(
            controller,
            n_out,
            reads=reads,
            width=width,
            parts=parts,
            clocked=clocked,
            tau=tau,
            learn_tau=learn_tau,
            exact_rates=exact_rates,
        )
        self.slots, self.width, self.reads, self.writes = slots, width, reads, writes

    def read(self, x: Any) -> Float[Tensor, "*batch read word"]:
        """r: what the heads read."""
        return x.read_weights @ x.memory

    def _paced(self, x: Tensor, target: Tensor, share: Callable[[], Tensor], rate: Any) -> Tensor:
        """F of a part of which a whole step takes a share away, at its exact rate if that was asked for."""
        return paced(x, target, share(), tree.per_leaf(rate, x)) if self.exact_rates else target

    @property
    def config(self) -> dict[str, Any]:
        """The controller's class and configuration, the sizes, and the memory's tau."""
        own = ("slots", "width", "reads", "writes", "exact_rates")
        return super().config | {name: getattr(self, name) for name in own}

    def extra_repr(self) -> str:
        """The sizes."""
        sizes = ("n_in", "n_out", "slots", "width", "reads", "writes")
        return ", ".join(f"{name}={getattr(self, name)}" for name in sizes)


def left(x: Any, target: Any, rate: Any) -> Any:
    """lerp(x, F, alpha): a part of the state as the step leaves it."""
    return tree.blend(x, target, rate)


def _is(rate: Any, number: int) -> bool:
    """Whether a rate is this number, as it is in a sweep; a Tensor is a part of a step."""
    return not isinstance(rate, Tensor) and rate == number
