"""Two networks that read a sequence from its two ends."""

from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ctrnn import _model_files as files
from ctrnn import _tree as tree
from ctrnn._integrate import integrate
from ctrnn._types import State
from ctrnn.adjoints.backprop import Backprop
from ctrnn.adjoints.base import Adjoint
from ctrnn.drive import Held
from ctrnn.dynamics import Model, Relaxation, TorchTwin
from ctrnn.models.gated import GRU, require_one_tau
from ctrnn.models.stack import layers_from_torch, layers_to_torch
from ctrnn.solvers.base import Solver
from ctrnn.steps import Adaptive, Fixed
from ctrnn.trajectory import Stats, Trajectory


class BidirectionalState(NamedTuple):
    """The states of the two networks."""

    forward: Any
    backward: Any


class Bidirectional(files.Saved, TorchTwin):
    """y(t) = (y_f(t), y_b(t)): y_f has read the sequence up to t, y_b from its end back to t (Schuster & Paliwal 1997).

    It knows the future, so it is no `Model`: it takes whole sequences, and deep ones chain,
    `second(first(us, dt=dt).ys, dt=dt)`.

    Args:
        forward, backward: two models with the same number of inputs.

    Raises:
        TypeError, ValueError: one is no Model, or they do not read the same input.
    """

    def __init__(self, forward: Model, backward: Model) -> None:
        super().__init__()
        for name, model in (("forward", forward), ("backward", backward)):
            if not isinstance(model, Model):
                raise TypeError(
                    f"{name} must be a Model, got a {type(model).__name__}: wrap(cell) makes one of any cell."
                )
        if forward.n_in != backward.n_in:
            raise ValueError(
                f"both networks read the same sequence: forward has n_in={forward.n_in}, backward {backward.n_in}; "
                "give both the same."
            )
        self.ahead, self.back = forward, backward
        self.n_in = forward.n_in

    def forward(
        self,
        us: Float[Tensor, "time *batch input"],
        *,
        dt: float,
        lengths: Int[Tensor, "*batch"] | None = None,
        x0: BidirectionalState | None = None,
        solver: Solver | None = None,
        steps: Fixed | Adaptive | None = None,
        adjoint: Adjoint = Backprop(),  # noqa: B008  a frozen value
    ) -> Trajectory:
        """Run both networks over us, each sample held for dt, and set their states side by side in time.

        Row k holds what the forward network says after us[0] ... us[k], and the backward one after us[L - 1] ... us[k],
        where L is the sequence's length; padding beyond it is never read, and there both keep their last state.

        Args:
            us: samples (time, *batch, n_in).
            dt: how long each is held, in the models' unit of time.
            lengths: how many samples each sequence has, (*batch,).
            x0: where the two networks start; None is their own initial states.
            solver, steps, adjoint: as in `integrate`.

        Returns:
            A Trajectory with xs = BidirectionalState(forward, backward), ys (time, *batch, n_f + n_b), and the two
            runs' counts added up.

        Raises:
            As `integrate`.
        """
        drive = Held(us, dt, lengths=lengths)
        start = BidirectionalState(None, None) if x0 is None else x0
        if not isinstance(start, BidirectionalState):
            raise TypeError(
                f"x0 must be a BidirectionalState(forward=..., backward=...), got a {type(x0).__name__}: "
                "name both states."
            )
        ahead, back = (
            integrate(model, sequence, state, solver=solver, steps=steps, adjoint=adjoint)
            for model, sequence, state in (
                (self.ahead, drive, start.forward),
                (self.back, Held(_turned(us, lengths), dt, lengths=lengths), start.backward),
            )
        )
        xs = BidirectionalState(ahead.xs, tree.map(lambda leaf: _turned(leaf, lengths), back.xs))
        ys = torch.cat([ahead.ys, _turned(back.ys, lengths)], -1)
        return Trajectory(ahead.ts, xs, us, ys, ahead.mask, _together(ahead.stats, back.stats))

    def readout(self, x: State) -> Float[Tensor, "*batch output"]:
        """What both networks say, side by side."""
        assert isinstance(x, tuple)
        return torch.cat([self.ahead.readout(x[0]), self.back.readout(x[1])], -1)

    @property
    def config(self) -> dict[str, Any]:
        """The two networks' classes and configurations."""
        return {"forward": files.describe(self.ahead), "backward": files.describe(self.back)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A pair with fresh weights: the inverse of `config`."""
        return cls(files.build(Model, config["forward"]), files.build(Model, config["backward"]))

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        return cls(GRU(3, 2, generator=draw), GRU(3, 2, generator=draw))

    @classmethod
    def twin_of(cls, module: nn.Module) -> Self | None:
        if not isinstance(module, (nn.RNN, nn.GRU, nn.LSTM)) or not module.bidirectional:
            return None
        if module.num_layers > 1:
            raise ValueError(
                f"{type(module).__name__} has {module.num_layers} bidirectional layers, each reading both halves of "
                "the one below: Bidirectional.chain_from_torch(module) gives one Bidirectional for each."
            )
        return cls.chain_from_torch(module)[0]

    @classmethod
    def chain_from_torch(cls, module: nn.RNNBase) -> list[Self]:
        """The layers of a bidirectional `nn.RNN`, `nn.GRU` or `nn.LSTM`, lowest first, with copies of its weights."""
        halves = layers_from_torch(module), layers_from_torch(module, reverse=True)
        return [cls(ahead, back) for ahead, back in zip(*halves, strict=True)]

    def to_torch(self) -> nn.Module:
        """A bidirectional `nn.RNN`, `nn.GRU` or `nn.LSTM` of one layer, with copies of the weights.

        Raises:
            ValueError: torch has no such module: models other than Elman, GRU and LSTM, unequal ones, or unequal tau.
        """
        ahead, back = self.ahead, self.back
        if not isinstance(ahead, Relaxation) or not isinstance(back, Relaxation):
            raise ValueError(
                "torch's bidirectional modules are made of Elman, GRU or LSTM: other vector fields have none."
            )
        require_one_tau((ahead.tau, back.tau))
        return layers_to_torch([ahead], [back])


def _turned(xs: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sequence (time, *batch, ...) read from its end; its padding stays where it is."""
    if lengths is None:
        return xs.flip(0)
    length = lengths.to(xs.device)
    k = torch.arange(xs.shape[0], device=xs.device).reshape(-1, *[1] * length.ndim)
    index = torch.where(k < length, length - 1 - k, k)
    return xs.gather(0, index.reshape(index.shape + (1,) * (xs.ndim - index.ndim)).expand_as(xs))


def _together(a: Stats, b: Stats) -> Stats:
    total = Stats(*[x + y for x, y in zip(a, b, strict=True)])
    return total._replace(status=torch.maximum(a.status, b.status))
