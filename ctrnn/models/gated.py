"""Discrete cells as relaxations: at dt = tau torch.nn's cells bit for bit, at smaller steps their continuous kin.

The operations stand in the order of torch's own cells, which is what makes the bits equal: even the sum that a gate
reads must lie in memory as torch lays it out.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ctrnn import _tree as tree
from ctrnn.dynamics import TorchTwin
from ctrnn.lowered import GatedNetwork, RateNetwork
from ctrnn.models._units import Input, Units, Vector
from ctrnn.models.activations import Activation, checked, lowered, name_of, named

TORCH_NAMES = {"W_in": "weight_ih", "W_rec": "weight_hh", "b_in": "bias_ih", "b_rec": "bias_hh"}


class Cell(Units):
    """A layer with torch's parameters: W_in (k n, n_in), W_rec (k n, n) and two biases b_in, b_rec (k n,).

    Args:
        n: units.
        n_in: inputs.
        n_out: outputs W_out h + b_out; without them the readout is h.
        tau: one number or one per unit, in the unit in which dt will be given; dt = tau is the discrete network.
        bias: whether there are b_in and b_rec.
        learn_tau: learn tau, in the shape in which it was given: pass one per unit to learn one per unit.
        generator: where the weights are drawn from, uniformly within 1 / sqrt(n) as in torch; torch's global one
            if None.
    """

    blocks: ClassVar[int]
    b_in: Tensor | None
    b_rec: Tensor | None

    def __init__(
        self,
        n: int,
        n_in: int,
        n_out: int | None = None,
        *,
        tau: Any = 1.0,
        bias: bool = True,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(n, n_in, n_out, tau)
        self.bias = bias
        rows = self.blocks * n
        biases = (rows,) if bias else None
        self._add_weights(
            _within(1 / math.sqrt(n), generator),
            learn_tau,
            W_in=(rows, n_in),
            W_rec=(rows, n),
            b_in=biases,
            b_rec=biases,
        )

    def activity(self, x: Any) -> Vector:
        return x

    @property
    def config(self) -> dict[str, Any]:
        return super().config | {"bias": self.bias}

    @classmethod
    def example(cls) -> Self:
        return cls(3, 2, 2, tau=torch.tensor([0.5, 1.0, 2.0]), generator=Generator().manual_seed(0))


class TorchCell(Cell, TorchTwin):
    """A `Cell` that torch has too.

    `target` takes `more` (*batch, n), which is added to what W_rec sends to the candidate: what the gates let through.
    """

    candidate: ClassVar[int]  # its block of rows
    torch_cell: ClassVar[type[nn.Module]]  # one step
    torch_layers: ClassVar[type[nn.RNNBase]]  # a whole sequence, possibly of several layers

    @classmethod
    def twin_of(cls, module: nn.Module) -> Self | None:
        cell = vars(cls).get("torch_cell")
        return cls.from_weights(module, "") if cell is not None and isinstance(module, cell) else None

    @classmethod
    def from_weights(cls, module: Any, suffix: str) -> Self:
        """A cell with copies of weight_ih<suffix> and its companions, frozen where they are.

        The suffix is empty in a torch cell, and _l<layer> or _l<layer>_reverse in a torch sequence module.
        """
        weight = getattr(module, "weight_ih" + suffix)
        cell = cls(
            module.hidden_size, weight.shape[1], bias=module.bias, generator=Generator(), **cls._options_of(module)
        ).to(weight)
        with torch.no_grad():
            for parameter, given in cell._pairs(module, suffix):
                parameter.copy_(given).requires_grad_(given.requires_grad)
        return cell

    def copy_weights(self, module: nn.Module, suffix: str) -> None:
        """Write the weights into a torch module, the inverse of `from_weights`.

        Raises:
            ValueError: the module has no place for something that this cell has.
        """
        if self.n_out is not None:
            raise ValueError(
                f"torch's {self.torch_cell.__name__} has no readout: "
                f"build the {type(self).__name__} without n_out and put an nn.Linear behind it."
            )
        with torch.no_grad():
            for parameter, given in self._pairs(module, suffix):
                given.copy_(parameter)
                given.requires_grad_(parameter.requires_grad)

    def to_torch(self) -> nn.Module:
        """The torch cell with copies of the weights."""
        require_one_tau(self.tau)
        # Made without numbers: torch's own would be drawn from the global generator and thrown away.
        empty = self.torch_cell(
            self.n_in, self.n, bias=self.bias, **self.torch_options(), dtype=self.W_in.dtype, device="meta"
        )
        module = empty.to_empty(device=self.W_in.device)
        self.copy_weights(module, "")
        return module

    def torch_options(self) -> dict[str, Any]:
        """What torch's constructor must be told besides sizes and bias."""
        return {}

    @classmethod
    def _options_of(cls, module: nn.Module) -> dict[str, Any]:
        del module
        return {}

    def _pairs(self, module: nn.Module, suffix: str) -> list[tuple[Tensor, Tensor]]:
        names = [pair for pair in TORCH_NAMES.items() if self.bias or pair[0].startswith("W")]
        return [(getattr(self, ours), getattr(module, theirs + suffix)) for ours, theirs in names]


class Elman(TorchCell):
    """tau dh/dt = f(W_in u + b_in + W_rec h + b_rec) - h.

    The simple recurrent network of Elman (1990), Cognitive Science 14:179-211; at dt = tau with tanh or relu it is
    `nn.RNNCell`. His own units were logistic and his context began at one half:
    `Elman(n, n_in, n_out, activation=torch.sigmoid, initial=0.5)`; `adjoint=Truncated(1)` trains it as he did, and
    his output units are the logistic function of the readout.

    Without n_out it is the fully recurrent network of Williams & Zipser (1989), in which every unit sees all units and
    inputs and some of the units are the outputs: `ys[..., :k]`.

    Args, besides those of `Cell`:
        activation: f, any function; torch has tanh and relu only.
        initial: h at the start of a run that is given no x0, for all units.

    State h: (*batch, n).
    """

    blocks, candidate = 1, 0
    torch_cell = nn.RNNCell
    torch_layers = nn.RNN

    def __init__(
        self,
        n: int,
        n_in: int,
        n_out: int | None = None,
        *,
        tau: Any = 1.0,
        activation: Activation = torch.tanh,
        initial: float = 0.0,
        bias: bool = True,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(n, n_in, n_out, tau=tau, bias=bias, learn_tau=learn_tau, generator=generator)
        self.activation, self.initial = checked(activation), float(initial)

    def target(  # type: ignore[override]
        self, t: Tensor, x: Vector, u: Input, alpha: Any = 0, more: Vector | None = None
    ) -> Vector:
        """F = f(W_in u + b_in + W_rec h + b_rec + more)."""
        total = F.linear(x, self.W_rec, self.b_rec) + F.linear(u, self.W_in, self.b_in)
        return self.activation(total if more is None else total + more)

    def lowered(self) -> RateNetwork | None:
        post = lowered(self.activation)
        b = self.b_rec if self.b_in is None else self.b_in if self.b_rec is None else self.b_rec + self.b_in
        return None if post is None else RateNetwork(self.W_rec, self.W_in, b, self.tau, post=post)

    def initial_state(self, *batch: int) -> Vector:
        return torch.full_like(super().initial_state(*batch), self.initial)

    def torch_options(self) -> dict[str, Any]:
        if self.initial != 0:
            raise ValueError(
                f"torch's networks start at 0, not at {self.initial:g}: pass it as hx, and build the "
                "Elman without `initial`."
            )
        for activation in (torch.tanh, torch.relu):
            if self.activation is activation:
                return {"nonlinearity": name_of(activation)}
        raise ValueError(f"torch's RNNs have tanh and relu, not {self.activation!r}.")

    @classmethod
    def _options_of(cls, module: nn.Module) -> dict[str, Any]:
        return {"activation": named(module.nonlinearity)}  # type: ignore[arg-type]

    @property
    def config(self) -> dict[str, Any]:
        return super().config | {"activation": name_of(self.activation), "initial": self.initial}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config | {"activation": named(config["activation"])})


class GRU(TorchCell):
    """tau dh/dt = (1 - z) (c - h),   c = tanh(W_c u + b_c + r (U_c h + d_c)),   r, z = sigma(W u + b + U h + d).

    torch's and cuDNN's gated recurrent unit: the reset gate r acts *after* the recurrent weights (first version of
    Cho et al. 2014); `PaperGRU` has it before. At dt = tau it is `nn.GRUCell`. Rows of W_in, W_rec, b_in and b_rec:
    r, z, c. State h: (*batch, n).
    """

    blocks, candidate = 3, 2
    torch_cell = nn.GRUCell
    torch_layers = nn.GRU

    def target(  # type: ignore[override]
        self, t: Tensor, x: Vector, u: Input, alpha: Any = 0, more: Vector | None = None
    ) -> Vector:
        """F = (1 - z) c + z h,   c = tanh(W_c u + b_c + r (U_c h + d_c + more))."""
        gates_in, c_in = F.linear(u, self.W_in, self.b_in).split((2 * self.n, self.n), -1)
        gates_rec, c_rec = F.linear(x, self.W_rec, self.b_rec).split((2 * self.n, self.n), -1)
        r, z = (gates_rec + gates_in).chunk(2, -1)
        c = torch.tanh(c_in + torch.sigmoid(r) * (c_rec if more is None else c_rec + more))
        return (x - c) * torch.sigmoid(z) + c

    def lowered(self) -> GatedNetwork:
        return GatedNetwork(self.W_rec, self.W_in, self.b_rec, self.b_in, self.tau, "gru")


class PaperGRU(Cell):
    """tau dh/dt = (1 - z) (c - h),   c = tanh(W_c u + b_c + U_c (r h) + d_c),   r, z = sigma(W u + b + U h + d).

    Cho et al. (2014), arXiv:1406.1078v3, eqs. 5-8: the reset gate r acts *before* the recurrent weights. torch has no
    such cell; its `GRU` resets after them. Rows of W_in, W_rec, b_in and b_rec: r, z, c. State h: (*batch, n).
    """

    blocks = 3

    def target(self, t: Tensor, x: Vector, u: Input, alpha: Any = 0) -> Vector:  # type: ignore[override]
        """F = (1 - z) c + z h."""
        two = 2 * self.n
        gates_in, c_in = F.linear(u, self.W_in, self.b_in).split((two, self.n), -1)
        d_gates, d_c = (None, None) if self.b_rec is None else self.b_rec.split((two, self.n))
        r, z = torch.sigmoid(F.linear(x, self.W_rec[:two], d_gates) + gates_in).chunk(2, -1)
        c = torch.tanh(F.linear(r * x, self.W_rec[two:], d_c) + c_in)
        return (x - c) * z + c


class LSTMState(NamedTuple):
    """h, what the units send, and c, what their cells hold; each (*batch, n). Also the shape of an LSTM's tau."""

    h: Any
    c: Any


class LSTM(TorchCell):
    """tau_c dc/dt = f c + i g - c,   tau_h dh/dt = o tanh(c) - h.

    i, f, o = sigma(W u + b + U h + d),   g = tanh(W_g u + b_g + U_g h + d_g).

    Hochreiter & Schmidhuber (1997) with the forget gate of Gers, Schmidhuber & Cummins (2000). Within a step h reads
    the cell as the step leaves it, as in the discrete network: at dt = tau it is `nn.LSTMCell`. Rows of W_in, W_rec,
    b_in and b_rec: i, f, g, o. State: LSTMState(h, c); tau: one number, or an LSTMState of numbers or (n,).
    """

    blocks, candidate = 4, 2
    torch_cell = nn.LSTMCell
    torch_layers = nn.LSTM

    def __init__(
        self,
        n: int,
        n_in: int,
        n_out: int | None = None,
        *,
        tau: Any = 1.0,
        bias: bool = True,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        parts = tree.spread(tau, LSTMState(0, 0))
        if not isinstance(parts, LSTMState):
            raise TypeError(f"tau of an LSTM is one number, one per unit, or LSTMState(h=..., c=...), got {tau!r}.")
        super().__init__(n, n_in, n_out, tau=parts, bias=bias, learn_tau=learn_tau, generator=generator)

    def target(  # type: ignore[override]
        self, t: Tensor, x: LSTMState, u: Input, alpha: Any = 0, more: Vector | None = None
    ) -> LSTMState:
        """F_c = f c + i g, and F_h = o tanh(lerp(c, F_c, alpha_c));   g = tanh(W_g u + b_g + U_g h + d_g + more)."""
        i, f, g, o = (F.linear(x.h, self.W_rec, self.b_rec) + F.linear(u, self.W_in, self.b_in)).chunk(4, -1)
        c = torch.sigmoid(f) * x.c + torch.sigmoid(i) * torch.tanh(g if more is None else g + more)
        seen = tree.blend(x.c, c, tree.spread(alpha, x).c)
        assert isinstance(seen, Tensor)
        return LSTMState(torch.sigmoid(o) * torch.tanh(seen), c)

    def lowered(self) -> GatedNetwork:
        return GatedNetwork(self.W_rec, self.W_in, self.b_rec, self.b_in, self.tau, "lstm")

    def activity(self, x: LSTMState) -> Vector:
        return x.h

    def initial_state(self, *batch: int) -> LSTMState:
        zeros = super().initial_state(*batch)
        return LSTMState(zeros, zeros)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config | {"tau": LSTMState(**config["tau"])})

    @classmethod
    def example(cls) -> Self:
        return cls(3, 2, 2, tau=LSTMState(h=1.0, c=2.0), generator=Generator().manual_seed(0))


def require_one_tau(tau: Any) -> None:
    """Raise unless all time constants are equal: every part of a torch network takes whole steps."""
    first, *rest = [value for leaf in tree.leaves(tau) for value in leaf.reshape(-1)]
    if any(value != first for value in rest):
        raise ValueError(
            "torch's networks have no time constants: only a model whose tau are all equal is one of them, at dt = tau."
        )


def _within(bound: float, generator: Generator | None) -> Callable[..., Tensor]:
    def draw(*shape: int) -> Tensor:
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)

    return draw
