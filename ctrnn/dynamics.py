"""The two classes that anyone subclasses: a vector field, and a relaxation towards a target."""

import math
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from ctrnn import _model_files as files
from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.lowered import GatedNetwork, Layers, RateNetwork


class TorchTwin:
    """A class with a counterpart in torch.nn.

    `Model.from_torch` offers its module to every subclass that has been imported, until one takes it.
    """

    @classmethod
    def twin_of(cls, module: nn.Module) -> Self | None:
        """The counterpart of `module` with copies of its weights, or None if this class stands for another kind."""
        raise NotImplementedError(f"{cls.__name__} must define twin_of(module).")

    def to_torch(self) -> nn.Module:
        """The torch.nn counterpart with copies of the weights, on the same device and of the same dtype."""
        raise NotImplementedError(f"{type(self).__name__} must define to_torch().")


class Model(files.Saved):
    """dx/dt = model(t, x, u): any vector field driven by u.

    Parameters and buffers carry no batch axis; a state has any leading batch axes; `t` is 0-d, or (*batch, 1) where
    each sample has its own time.
    """

    n_in: int = 0

    def forward(self, t: Tensor, x: State, u: Tensor) -> State:
        """The time derivative of the state, in units of the state per unit of time."""
        raise NotImplementedError(f"{files.class_name(self)} must define forward(t, x, u), its time derivative.")

    def initial_state(self, *batch: int) -> State:
        """The state in which a run starts when no x0 is given, with leading axes `batch`."""
        raise NotImplementedError(f"{files.class_name(self)} defines no initial_state(*batch): pass x0.")

    def readout(self, x: State) -> Tensor:
        """What the network says: the state itself, or its first part; `x` may carry a leading time axis."""
        return tree.leaves(x)[0]

    @classmethod
    def example(cls) -> Self:
        """The smallest instance worth testing; the laws in the tests act on it."""
        raise NotImplementedError(f"{cls.__name__} must define example(), the smallest instance worth testing.")

    @classmethod
    def from_torch(cls, module: nn.Module) -> Any:
        """The twin of a torch.nn module with copies of its weights, dtype and device.

        The twin has tau = 1, and at dt = tau it is the module.

        `nn.RNNCell`, `nn.GRUCell` and `nn.LSTMCell` give an `Elman`, `GRU` or `LSTM`; `nn.RNN`, `nn.GRU` and
        `nn.LSTM` a `Stack` of them, a bidirectional one a `Bidirectional`. For `batch_first` there is no counterpart:
        time leads.

        Raises:
            TypeError: no imported class stands for modules of this kind, or this is called on another class than the
                one that does.
            ValueError: one does, but not with this module's options (dropout, projections).
        """
        for kind in files.subclasses(TorchTwin):
            twin = kind.twin_of(module) if kind is not TorchTwin else None
            if twin is not None:
                if cls is not Model and not isinstance(twin, cls):
                    raise TypeError(
                        f"nn.{type(module).__name__} is a {type(twin).__name__} here, not a {cls.__name__}: "
                        "use Model.from_torch(module)."
                    )
                return twin
        raise TypeError(
            f"nothing that has been imported stands for {type(module).__name__}: ctrnn.models does for nn.RNN, nn.GRU, "
            "nn.LSTM and their cells, ctrnn.bidirectional for bidirectional ones, and wrap(cell) takes any cell."
        )

    def to_torch(self) -> nn.Module:
        """The torch.nn counterpart with copies of the weights: what the model is at dt = tau.

        Raises:
            TypeError: torch.nn has no such network.
            ValueError: it has, but not with this model's options (a readout, unequal tau, another activation).
        """
        raise TypeError(
            f"torch.nn has no counterpart of {files.class_name(self)}: Elman, GRU, LSTM and stacks of one of them have."
        )


class Relaxation(Model):
    """tau dx/dt = F(t, x, u) - x: the state relaxes towards its target F with time constant tau.

    A subclass defines `target` (F) and assigns `self.tau`: a number, a Tensor that broadcasts against the state, or a
    NamedTuple of them, one per part of the state.
    """

    tau0: Tensor
    log_ratio: Tensor

    def lowered(self) -> RateNetwork | GatedNetwork | Layers | None:
        """The target as plain Tensors for compiled kernels, equal to `target` to rounding; None where there is none.

        It is not asked where something nearer to the model, a subclass, a mixin or the instance, has a `target`,
        `forward` or `activity` of its own.
        """
        return None

    def target(self, t: Tensor, x: State, u: Tensor, alpha: Any = 0) -> State:
        """F. Where a later part reads an earlier one inside the same step it reads lerp(x_i, F_i, alpha_i).

        For the flow, alpha is 0; for the discrete network it is 1.
        """
        raise NotImplementedError(
            f"{files.class_name(self)} must define target(t, x, u, alpha=0), the F of tau dx/dt = F - x."
        )

    def forward(self, t: Tensor, x: State, u: Tensor) -> State:
        """dx/dt = (F - x) / tau."""
        way = pull(self, t, x, u)
        return tree.map(torch.div, way, tree.spread(self.tau, way))

    @property
    def clock(self) -> Any:
        """Periods of the clocked parts, a tree like the state with None for all others; None if nothing is clocked.

        A clocked part holds between the multiples of its period, where its tau is infinite, and moves to its target in
        one sweep at each of them: there alpha is the number 1 for all clocked parts that are due and 0 for all others.
        """
        return None

    # tau is kept as given in float64 (buffer `tau0`) beside a logarithmic ratio in the network's dtype, so that a step
    # dt = tau is recognised exactly in either precision.
    @property
    def tau(self) -> Any:
        """Time constant: tau0 * exp(log_ratio), equal to the tau that was assigned until log_ratio is learned."""
        try:
            names, like = self._tau_layout
        except AttributeError:
            raise NotImplementedError(
                f"{files.class_name(self)} has no time constant: assign self.tau (a number, a Tensor or a NamedTuple "
                "of them) in its constructor."
            ) from None
        if names == [""]:  # one bare Tensor, as in most networks: this is asked for at every evaluation of the flow
            return _time_constant(self.tau0, self.log_ratio)
        return tree.unflatten(
            like, [_time_constant(self.get_buffer(f"tau0{name}"), getattr(self, f"log_ratio{name}")) for name in names]
        )

    @tau.setter
    def tau(self, value: Any) -> None:
        old = self.__dict__.get("_tau_layout")
        if old is not None:
            value = tree.spread(value, old[1])  # one number for all parts
        names = ["_" + name.replace(".", "_") if name else "" for name, _ in tree.named(value)]
        if old is not None and old[0] != names:
            raise ValueError(
                f"tau of this {files.class_name(self)} has the parts {old[0]}, the new value has {names}: "
                "assign a tau of the same structure."
            )
        for name, leaf in zip(names, tree.leaves(value), strict=True):
            self._assign_tau(name, leaf)
        self._tau_layout = (names, tree.map(lambda _: 0, value))

    def _assign_tau(self, name: str, value: Any) -> None:
        given = torch.as_tensor(value, dtype=torch.float64).detach().clone()
        if not bool((torch.isfinite(given) & (given > 0)).all()):
            raise ValueError(f"tau must be positive and finite, got {value}.")
        ratio = getattr(self, f"log_ratio{name}", None)
        if ratio is None:
            self.register_buffer(f"tau0{name}", given)
            self.register_buffer(f"log_ratio{name}", torch.zeros(given.shape))
            return
        if isinstance(ratio, nn.Parameter) and given.shape not in ((), ratio.shape):
            raise ValueError(
                f"tau of shape {tuple(given.shape)} does not fit the learned tau of shape {tuple(ratio.shape)}."
            )
        given = given.to(ratio.device)
        if isinstance(ratio, nn.Parameter):
            given = given.expand(ratio.shape).clone()
        self._buffers[f"tau0{name}"] = given
        with torch.no_grad():
            if ratio.shape == given.shape:
                ratio.zero_()
            else:
                self._buffers[f"log_ratio{name}"] = ratio.new_zeros(given.shape)

    def learn_tau(self) -> None:
        """Make every time constant a Parameter `log_ratio`, starting at 0: tau = tau0 * exp(log_ratio)."""
        for name in self._tau_layout[0]:
            ratio = self._buffers.pop(f"log_ratio{name}")
            assert ratio is not None
            self.register_parameter(f"log_ratio{name}", nn.Parameter(ratio))

    def floor_tau(self, floor: float) -> None:
        """Raise every learned time constant to at least `floor`, in place.

        After an optimiser's step, so that Euler's alpha = dt / tau stays within 1.
        """
        for module in self.modules():
            for name, ratio in module.named_parameters(recurse=False) if isinstance(module, Relaxation) else ():
                if name.startswith("log_ratio"):
                    tau0 = module.get_buffer("tau0" + name.removeprefix("log_ratio"))
                    with torch.no_grad():
                        ratio.copy_(torch.maximum(ratio, torch.log(floor / tau0).to(ratio.dtype)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self.__dict__.get("_tau_layout", ((),))[0]:
            given = state_dict.get(f"{prefix}tau0{name}")
            if given is not None:
                self._assign_tau(name, given)  # it may have another shape than at construction
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        given = {
            name: buffer for name, buffer in self._buffers.items() if name.startswith("tau0") and buffer is not None
        }
        super()._apply(fn, recurse)
        for name, buffer in given.items():
            moved = self._buffers[name]
            assert moved is not None
            if moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self


def pull(model: Relaxation, t: Tensor, x: State, u: Tensor) -> State:
    """F - x, which is tau dx/dt."""
    target = model.target(t, x, u, 0)
    tree.same_form(x, target, "target")
    return tree.map(torch.sub, target, x)


def _time_constant(tau0: Tensor, log_ratio: Tensor) -> Tensor:
    return (tau0 * log_ratio.exp()).to(log_ratio.dtype)


class Wrapped(Relaxation):
    """tau dh/dt = cell(u, h) - h: any recurrent cell as a relaxation; at dt = tau it is the cell."""

    def __init__(self, cell: nn.Module, tau: Any = 1.0) -> None:
        super().__init__()
        if isinstance(cell, nn.RNNBase):
            raise TypeError(
                f"nn.{type(cell).__name__} reads whole sequences and is no cell h' = cell(u, h): "
                "use Model.from_torch(module), or wrap its cell."
            )
        self.cell = cell
        self.tau = tau
        self.n_in = getattr(cell, "input_size", None)  # type: ignore[assignment]  # None: the cell does not say

    def target(self, t: Tensor, x: State, u: Tensor, alpha: Any = 0) -> State:
        del t, alpha
        batch = u.shape[:-1]
        rows = u.reshape(math.prod(batch), -1) if len(batch) > 1 else u  # torch's cells take at most one batch axis
        state = x if len(batch) <= 1 else tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[len(batch) :]), x)
        new = self.cell(rows, state)
        return tree.map(lambda leaf, out: out.reshape(leaf.shape), x, new)

    def initial_state(self, *batch: int) -> State:
        size = getattr(self.cell, "hidden_size", None)
        if size is None:
            raise NotImplementedError(f"wrap({files.class_name(self.cell)}) does not know its state's shape: pass x0.")
        like = next(self.cell.parameters())
        zeros = like.new_zeros(*batch, size)
        return (zeros, zeros) if isinstance(self.cell, nn.LSTMCell) else zeros

    @classmethod
    def example(cls) -> Self:
        return cls(nn.GRUCell(2, 3))


def wrap(cell: nn.Module, tau: Any = 1.0) -> Wrapped:
    """Any module h' = cell(u, h), or a state NamedTuple for h, as a Relaxation with F = cell.

    Args:
        cell: maps an input (*batch, n_in) and a state to the new state, like `torch.nn.GRUCell`.
        tau: time constant, in the unit in which dt will be given; one number, or one per part of the state.

    Raises:
        TypeError: the module reads whole sequences, as `torch.nn.GRU` does.
    """
    return Wrapped(cell, tau)
