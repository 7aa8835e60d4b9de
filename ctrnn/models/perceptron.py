"""A multilayer perceptron in which every layer remembers."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Generator, nn

from ctrnn import _tree as tree
from ctrnn.models.activations import Activation, name_of, named
from ctrnn.models.rate import RateRNN
from ctrnn.models.stack import Stack, StackState


class RecurrentPerceptron(Stack):
    """tau_l dx_l/dt = f_l(W_rec x_l + W_in x_{l-1} + b_rec) - x_l,   x_0 = u,   y = x_L.

    The recurrent multilayer perceptron of Puskorius & Feldkamp (1994), IEEE Trans. Neural Networks 5:279-297: every
    layer feeds back to itself, the one that speaks too. At dt = tau each layer reads the new state of the layer below,
    x_l(k + 1) = f_l(W_rec x_l(k) + W_in x_{l-1}(k + 1) + b_rec), as in a many-layered `nn.RNN`. Each unit has one
    bias; `learning.ExtendedKalman` is what the paper trains it with.

    Args:
        sizes: units of each layer; those of the last are the outputs.
        n_in: inputs.
        tau: one number, or StackState(layers=(...)) with one for each layer (a number or (n,)).
        activation: f of all layers but the last.
        output: f of the last layer. With `activations.identity` it is linear, and stable only while the eigenvalues of
            its step are within the unit circle.
        learn_tau: learn tau, in the shape in which it was given.
        generator: where the weights are drawn from; torch's global one if None.

    Parameters: those of a `RateRNN` in each of `layers`. State and tau: StackState(layers=(...)), each (*batch, n).

    Raises:
        TypeError, ValueError: a size is impossible, or there is none.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        n_in: int,
        *,
        tau: Any = 1.0,
        activation: Activation = torch.tanh,
        output: Activation = torch.tanh,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        if len(sizes) == 0:
            raise ValueError("a perceptron needs at least one layer, got no sizes.")
        taus = tree.spread(tau, StackState(tuple(sizes))).layers
        if len(taus) != len(sizes):
            raise ValueError(f"a perceptron of {len(sizes)} layers needs one tau or as many, got {len(taus)}.")
        kinds = [activation] * (len(sizes) - 1) + [output]
        widths = pairwise((n_in, *sizes))
        super().__init__(
            [
                RateRNN(n, below, tau=part, activation=f, learn_tau=learn_tau, generator=generator)
                for (below, n), part, f in zip(widths, taus, kinds, strict=True)
            ]
        )
        self.sizes, self.activation, self.output = tuple(sizes), activation, output

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments; tau as it was last assigned."""
        layers = [layer.config for layer in self._each()]
        return {
            "sizes": list(self.sizes),
            "n_in": self.n_in,
            "tau": [layer["tau"] for layer in layers],
            "activation": name_of(self.activation),
            "output": name_of(self.output),
            "learn_tau": layers[0]["learn_tau"],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        functions = {name: named(config[name]) for name in ("activation", "output")}
        return cls(**config | functions | {"tau": StackState(tuple(config["tau"]))})

    @classmethod
    def twin_of(cls, module: nn.Module) -> Self | None:
        del module  # a `Stack` of `Elman` layers is torch's `nn.RNN` in both directions
        return None

    def to_torch(self) -> nn.RNNBase:
        raise TypeError(
            "a RecurrentPerceptron has one bias per unit, nn.RNN two: a Stack of Elman layers is an nn.RNN."
        )

    @classmethod
    def example(cls) -> Self:
        return cls((3, 2), 2, tau=StackState((1.0, 2.0)), generator=Generator().manual_seed(0))
