"""Second-order units: every weight joins a state, an input and the unit that they drive together."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Generator, Tensor

from ctrnn.models._units import Input, Units, Vector, check_number, check_size
from ctrnn.models.activations import Activation, checked, name_of, named
from ctrnn.models.gated import _within


class SecondOrder(Units):
    """tau dh_i/dt = f(sum_jk W_rec[i, j, k] h_j u_k + b_rec_i) - h_i.

    Giles, Miller, Chen, Chen, Sun & Lee (1992), Neural Computation 4:393-405: with symbols u coded one-hot each symbol
    has a recurrent matrix of its own, W_rec[:, :, k]; at dt = tau their discrete network, and the sum is
    `nn.Bilinear(n, n_in, n)`. The run starts in the first unit: h = (1, 0, 0, ...).

    Args:
        n: units.
        n_in: inputs.
        n_out: outputs W_out h + b_out; without them the readout is h.
        tau: one number or one per unit, in the unit in which dt will be given.
        activation: f; theirs was logistic.
        learn_tau: learn tau, in the shape in which it was given.
        generator: where the weights are drawn from, uniformly within 1 / sqrt(n); torch's global one if None.

    Parameters: W_rec (n, n, n_in), b_rec (n,); weights are W[to, from, input]. State h: (*batch, n).
    """

    b_rec: Tensor

    def __init__(
        self,
        n: int,
        n_in: int,
        n_out: int | None = None,
        *,
        tau: Any = 1.0,
        activation: Activation = torch.sigmoid,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        check_size("n_in", n_in, 1)
        super().__init__(n, n_in, n_out, tau)
        self.activation = checked(activation)
        self._add_weights(_within(1 / math.sqrt(n), generator), learn_tau, W_rec=(n, n, n_in), b_rec=(n,))

    def target(self, t: Tensor, x: Vector, u: Input, alpha: Any = 0) -> Vector:  # type: ignore[override]
        """F = f(h W_rec u + b_rec)."""
        pairs = (x.unsqueeze(-1) * u.unsqueeze(-2)).flatten(-2)
        return self.activation(F.linear(pairs, self.W_rec.flatten(1), self.b_rec))

    def activity(self, x: Vector) -> Vector:
        return x

    def initial_state(self, *batch: int) -> Vector:
        """The first unit at 1, the others at 0."""
        first = super().initial_state(*batch)
        first[..., 0] = 1.0
        return first

    @classmethod
    def from_automaton(
        cls,
        transitions: Int[Tensor, "state symbol"] | Sequence[Sequence[int]],
        accepting: Sequence[int] = (),
        *,
        strength: float,
        tau: Any = 1.0,
    ) -> Self:
        """A network that is an automaton, without training (Omlin & Giles 1996, J. ACM 43:937-972).

        Unit i stands for state i, and for each transition i <- j under symbol k the weight W_rec[i, j, k] is +strength;
        a state that is left inhibits itself, W_rec[j, j, k] = -strength, and every bias is -strength / 2. Strings are
        coded one-hot and begin in state 0. Weak networks blur the states: below some strength, 4 to 6 for automata of
        up to five states, they lose track in long strings.

        Args:
            transitions: for every state the next state after each symbol.
            accepting: states; the one output is the sum of their units, above one half in an accepting state.
            strength: of the weights.
            tau: as in the class.

        Raises:
            TypeError: the accepting states are no sequence, or the strength is no number.
            ValueError: transitions are no table, a state does not exist, or the strength is not positive.
        """
        table = _table(transitions)
        if not isinstance(accepting, Sequence):
            raise TypeError(
                f"accepting must be a sequence of states, got {accepting!r}: one state is ({accepting!r},)."
            )
        check_number("strength", strength)
        n, symbols = table.shape
        everyone = [*table.flatten().tolist(), *accepting]
        if min(everyone) < 0 or max(everyone) >= n:
            raise ValueError(f"states {sorted(set(everyone))} are named, but there are only 0 to {n - 1}.")
        if not strength > 0:
            raise ValueError(f"strength = {strength} must be positive: 6 or more keep states apart in long strings.")
        net = cls(n, symbols, 1, tau=tau, generator=Generator())
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.zero_()
            net.b_rec.fill_(-strength / 2)
            states = torch.arange(n)
            for k in range(symbols):
                net.W_rec[states, states, k] = -strength
                net.W_rec[table[:, k], states, k] = strength
            assert net.W_out is not None
            net.W_out[0, list(accepting)] = 1.0
        return net

    @property
    def config(self) -> dict[str, Any]:
        return super().config | {"activation": name_of(self.activation)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config | {"activation": named(config["activation"])})

    @classmethod
    def example(cls) -> Self:
        return cls(3, 2, 2, tau=torch.tensor([0.5, 1.0, 2.0]), generator=Generator().manual_seed(0))


def _table(transitions: Any) -> Int[Tensor, "state symbol"]:
    try:
        table = torch.as_tensor(transitions)
    except (TypeError, ValueError) as problem:
        raise ValueError(f"transitions must be one next state for every state and symbol: {problem}.") from None
    if table.ndim != 2 or table.numel() == 0 or table.is_floating_point() or table.dtype == torch.bool:
        raise ValueError(
            f"transitions must be integers (state, symbol), got {table.dtype} of the shape {tuple(table.shape)}."
        )
    return table
