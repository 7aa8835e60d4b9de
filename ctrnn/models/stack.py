"""Layers on one another: one dynamical system whose parts are the layers' states."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ctrnn import _model_files as files
from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation, TorchTwin
from ctrnn.lowered import Layers
from ctrnn.models._units import Input
from ctrnn.models.gated import GRU, LSTM, Elman, TorchCell, require_one_tau

CELLS: tuple[type[TorchCell], ...] = (Elman, GRU, LSTM)


class StackState(NamedTuple):
    """The layers' states, first layer first. Also the shape of a stack's tau."""

    layers: tuple[Any, ...]


class Stack(Relaxation, TorchTwin):
    """tau_l dx_l/dt = F_l(x_l, y_{l-1}) - x_l,   y_0 = u,   y_l = readout_l(x_l).

    Within a step layer l reads layer l - 1 as the step leaves it, readout(lerp(x_{l-1}, F_{l-1}, alpha_{l-1})): at
    dt = tau the stack is a discrete deep network such as a many-layered `nn.LSTM` (up to the rounding by which torch's
    sequence modules differ from torch's own cells), and as dt goes to 0 it is the flow above.

    Args:
        layers: relaxations, the first reading the input; each must take as many inputs as the one before it has
            outputs.

    State and tau: StackState(layers=(...)), each layer's own inside; `stack.tau = 0.1` gives all layers the same.

    Raises:
        ValueError: no layers, or two that do not fit each other.
    """

    def __init__(self, layers: Sequence[Relaxation]) -> None:
        super().__init__()
        if not isinstance(layers, (Sequence, nn.ModuleList)):
            raise TypeError(f"a Stack is made of a sequence of layers, got a {type(layers).__name__}: Stack([layer]).")
        if not layers:
            raise ValueError("a Stack needs at least one layer.")
        for layer in layers:
            if not isinstance(layer, Relaxation):
                raise TypeError(
                    f"a Stack is made of Relaxations, got a {type(layer).__name__}: wrap(cell) makes one of any cell."
                )
        self._check_widths(layers)
        self.layers = nn.ModuleList(layers)
        self.n_in = layers[0].n_in
        self._like = [tree.map(lambda _: 0, layer.initial_state()) for layer in layers]

    def _check_widths(self, layers: Sequence[Relaxation]) -> None:
        """Raise unless each layer takes what it will be fed with."""
        for below, above in pairwise(layers):
            width = below.readout(below.initial_state()).shape[-1]
            if above.n_in != width:
                raise ValueError(
                    f"a {type(above).__name__} with n_in={above.n_in} cannot read a {type(below).__name__} "
                    f"with {width} outputs: give it n_in={width}."
                )

    def target(self, t: Tensor, x: StackState, u: Input, alpha: Any = 0) -> StackState:  # type: ignore[override]
        """Each layer's F, the upper ones fed with the lower ones after the step."""
        targets = []
        for layer, state, part in zip(self._each(), x.layers, tree.spread(alpha, x).layers, strict=True):
            new = layer.target(t, state, u, part)
            targets.append(new)
            u = layer.readout(tree.blend(state, new, part))
        return StackState(tuple(targets))

    def lowered(self) -> Layers:
        return Layers(tuple(self._each()))

    @property
    def clock(self) -> Any:
        """The layers' periods."""
        clocks = [layer.clock for layer in self._each()]
        if all(clock is None for clock in clocks):
            return None
        return StackState(tuple(tree.spread(clock, like) for clock, like in zip(clocks, self._like, strict=True)))

    @property
    def tau(self) -> StackState:
        """The layers' time constants."""
        return StackState(
            tuple(tree.spread(layer.tau, like) for layer, like in zip(self._each(), self._like, strict=True))
        )

    @tau.setter
    def tau(self, value: Any) -> None:
        parts = value.layers if isinstance(value, StackState) else [value] * len(self.layers)
        if len(parts) != len(self.layers):
            raise ValueError(f"this Stack has {len(self.layers)} layers, the new tau has {len(parts)}.")
        for layer, part in zip(self._each(), parts, strict=True):
            layer.tau = part

    def learn_tau(self) -> None:
        for layer in self._each():
            layer.learn_tau()

    def readout(self, x: StackState) -> Float[Tensor, "*batch output"]:  # type: ignore[override]
        """The last layer's."""
        *_, last = self._each()
        return last.readout(x.layers[-1])

    def initial_state(self, *batch: int) -> StackState:
        """Each layer's own."""
        return StackState(tuple(layer.initial_state(*batch) for layer in self._each()))

    def _each(self) -> Iterator[Relaxation]:
        for layer in self.layers:
            assert isinstance(layer, Relaxation)
            yield layer

    @property
    def config(self) -> dict[str, Any]:
        """The layers' classes and configurations."""
        return {"layers": [files.describe(layer) for layer in self._each()]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls([files.build(Relaxation, layer) for layer in config["layers"]])

    @classmethod
    def twin_of(cls, module: nn.Module) -> Self | None:
        if isinstance(module, (nn.RNN, nn.GRU, nn.LSTM)) and not module.bidirectional:
            return cls(layers_from_torch(module))
        return None

    def to_torch(self) -> nn.Module:
        """An `nn.RNN`, `nn.GRU` or `nn.LSTM` with copies of the weights."""
        require_one_tau(self.tau)
        return layers_to_torch(list(self._each()))

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        return cls([LSTM(2, 2, generator=draw), GRU(2, 2, tau=2.0, generator=draw)])


def layers_from_torch(module: nn.RNNBase, reverse: bool = False) -> list[TorchCell]:
    """The layers of an `nn.RNN`, `nn.GRU` or `nn.LSTM`, or those of its backward half, with copies of the weights.

    Raises:
        ValueError: the module has dropout between its layers, or projections.
    """
    if module.dropout > 0 and module.num_layers > 1:
        raise ValueError(
            f"{type(module).__name__} has dropout={module.dropout} between its layers, which no Stack has: "
            "set module.dropout = 0 first."
        )
    if module.proj_size > 0:
        raise ValueError(
            f"{type(module).__name__} has proj_size={module.proj_size}, which no cell here has: "
            "train one without projections."
        )
    kind = next(cell for cell in CELLS if isinstance(module, cell.torch_layers))
    return [
        kind.from_weights(module, f"_l{layer}{'_reverse' if reverse else ''}") for layer in range(module.num_layers)
    ]


def layers_to_torch(layers: Sequence[Relaxation], backward: Sequence[Relaxation] = ()) -> nn.RNNBase:
    """The torch module of these layers, bidirectional if there are `backward` ones: the inverse of `layers_from_torch`.

    Raises:
        ValueError: torch has no such module: layers of different kinds, sizes, activations or biases.
    """
    first = layers[0]
    everything = [*layers, *backward]
    if not isinstance(first, TorchCell) or any(not isinstance(layer, type(first)) for layer in everything):
        raise ValueError("torch's modules stack layers of one kind: Elman, GRU or LSTM.")
    cells = [layer for layer in everything if isinstance(layer, TorchCell)]
    if any((cell.n, cell.bias, cell.torch_options()) != (first.n, first.bias, first.torch_options()) for cell in cells):
        raise ValueError("torch's modules stack layers of one size, activation and bias option only.")
    options = {"num_layers": len(layers), "bias": first.bias, "bidirectional": bool(backward), **first.torch_options()}
    # Made without numbers: torch's own would be drawn from the global generator and thrown away.
    build: Any = first.torch_layers
    empty = build(first.n_in, first.n, **options, dtype=first.W_in.dtype, device="meta")
    module: nn.RNNBase = empty.to_empty(device=first.W_in.device)
    with torch.no_grad():
        for half, suffix in ((layers, ""), (backward, "_reverse")):
            for i, layer in enumerate(half):
                assert isinstance(layer, TorchCell)
                layer.copy_weights(module, f"_l{i}{suffix}")
    return module
