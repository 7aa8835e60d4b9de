"""The stack-augmented recurrent network: a network that pushes to stacks and pops from them in part."""

from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ctrnn import _tree as tree
from ctrnn.dynamics import Relaxation
from ctrnn.models._units import Input, Vector, check_number, check_size
from ctrnn.models.activations import Activation, checked, name_of, named
from ctrnn.models.gated import LSTM, LSTMState
from ctrnn.models.memory._controlled import External

Stacks = Float[Tensor, "*batch stack cell word"]
Actions = Float[Tensor, "*batch stack action"]  # push, pop, and stay if the network may


class StackRNNState(NamedTuple):
    """The controller's state and the stacks (*batch, stack, depth, width), top first. Also the shape of its tau."""

    controller: Any
    stacks: Any


class StackRNN(External):
    """tau ds_i/dt = a_push s_(i-1) + a_pop s_(i+1) + a_stay s_i - s_i,   s_(-1) = v,   s_depth = empty.

    The stack-augmented network of Joulin & Mikolov (2015), NeurIPS 28:190-198, arXiv:1503.01007. The
    controller reads u and the `top` upper cells of every stack, and says to each stack its actions, a = softmax, and
    what to push, v = squash(linear); the readout sees the controller alone. Conventions:

    * Within a step the controller comes first and reads the stacks as they were; the stacks then move as it says.
      What was pushed is read in the next step.
    * Each stack has a softmax of its own.
    * Cells hold `empty` at first, and a pop brings `empty` in at the bottom; what is pushed out there is lost.

    With `Elman(n, n_in + stacks * top, activation=torch.sigmoid)` as the controller and all biases 0 it is theirs;
    where their R is 0, `feed_forward` takes its place. Deletang et al. (2023), ICLR, arXiv:2207.02098: `top=1`,
    `width=8`, `stay=True`, `squash=identity`, `empty=0`. Suzgun et al. (2019), arXiv:1911.03329: `top=1`, `empty=0`,
    and an `Elman` whose weights from the top are its W_rec times theirs.

    At dt = tau this is the discrete network. Below it there are two meanings. A *clocked* stack ticks: the controller
    flows at any dt and reads what is held, and at each multiple of tau the stacks move once, wholly. A *relaxed* stack
    (`clocked=False`) flows as the equation says: every cell stays between what is pushed and `empty` for all steps
    dt <= tau of Euler and Heun, but a push held for tau moves what lies below by one cell on average, with a variance
    of 1 - dt / tau. That blurs it: such a network must be trained at the dt at which it runs.

    Args:
        controller: any relaxation that reads (u, r): its n_in is that of u plus stacks * top * width.
        n_out: outputs W_out h + b_out; without them the readout is h.
        stacks, depth, width: how many stacks there are, how many cells each has (theirs had 200), and how many numbers
            a cell holds.
        top: how many of the upper cells are read.
        stay: whether a stack may also stay as it is, their no-op.
        squash: what is pushed is squash(linear).
        empty: what a cell holds where there is nothing.
        rounded: take the likeliest action alone, as they did in tests; nothing is learned through it. It can be set
            at any time.
        clocked: whether the stacks tick, or flow.
        tau: of the stacks: one number, the period if they are clocked; else also a StackRNNState((), number).
        learn_tau: learn it, if they are relaxed; the controller's is learned if it was built so.
        generator: where the weights are drawn from, uniformly within 1 / sqrt(units that send); torch's global one if
            None.

    Rows of W_heads and b_heads: the actions of each stack, push, pop and, if it may, stay; then what is pushed to each.
    State: StackRNNState.

    Raises:
        TypeError: the controller is no Relaxation, `squash` no function, or an argument no number.
        ValueError: it has no room for what is read, more cells are read than there are, or a size or tau is impossible.
    """

    def __init__(
        self,
        controller: Relaxation,
        n_out: int | None = None,
        *,
        stacks: int = 1,
        depth: int,
        width: int = 1,
        top: int = 2,
        stay: bool = False,
        squash: Activation = torch.sigmoid,
        empty: float = -1.0,
        rounded: bool = False,
        clocked: bool = True,
        tau: Any = 1.0,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        for name, value in (("stacks", stacks), ("depth", depth), ("width", width), ("top", top)):
            check_size(name, value, 1)
        if top > depth:
            raise ValueError(f"top={top} cells are read, but a stack has depth={depth}: read at most {depth}.")
        check_number("empty", empty)
        super().__init__(
            controller,
            n_out,
            reads=stacks * top,
            width=width,
            parts=StackRNNState((), 0),
            clocked=clocked,
            tau=tau,
            learn_tau=learn_tau,
        )
        self.stacks, self.depth, self.width, self.top = stacks, depth, width, top
        self.stay, self.squash, self.empty, self.rounded = stay, checked(squash), float(empty), rounded
        self._rows = [stacks * (2 + stay), stacks * width]
        self._add_weights(sum(self._rows), generator)

    def target(self, t: Tensor, x: StackRNNState, u: Input, alpha: Any = 0) -> StackRNNState:  # type: ignore[override]
        """F of the controller, and of the stacks as it moves them."""
        rates = tree.spread(alpha, x)
        controller, said = self._control(t, x, u, rates)
        if self._holds(rates):
            return x._replace(controller=controller)
        return StackRNNState(controller, moved(x.stacks, *self.commands(said), self.empty))

    def commands(self, said: Vector) -> tuple[Actions, Float[Tensor, "*batch stack word"]]:
        """What the controller tells its stacks: what to do, and what to push."""
        scores, words = self.heads(said).split(self._rows, -1)
        scores = scores.unflatten(-1, (self.stacks, -1))
        values = self.squash(words.unflatten(-1, (self.stacks, self.width)))
        if not self.rounded:
            return torch.softmax(scores, -1), values
        likeliest = scores.argmax(-1, keepdim=True)
        return (torch.arange(scores.shape[-1], device=scores.device) == likeliest).to(scores.dtype), values

    def read(self, x: StackRNNState) -> Float[Tensor, "*batch read word"]:
        """The upper cells of all stacks, stack by stack, top first."""
        return x.stacks[..., : self.top, :].flatten(-3, -2)

    def initial_state(self, *batch: int) -> StackRNNState:
        """Empty stacks."""
        cells = self.W_heads.new_full((*batch, self.stacks, self.depth, self.width), self.empty)
        return StackRNNState(self.controller.initial_state(*batch), cells)

    @property
    def config(self) -> dict[str, Any]:
        own = ("stacks", "depth", "width", "top", "stay", "empty", "rounded")
        return super().config | {name: getattr(self, name) for name in own} | {"squash": name_of(self.squash)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        arguments = cls._arguments(config, StackRNNState((), ()))
        return cls(**arguments | {"squash": named(config["squash"])})

    def extra_repr(self) -> str:
        """The sizes."""
        sizes = ("n_in", "n_out", "stacks", "depth", "width", "top")
        return ", ".join(f"{name}={getattr(self, name)}" for name in sizes)

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        controller = LSTM(3, 10, tau=LSTMState(h=1.0, c=2.0), generator=draw)
        options: dict[str, Any] = {"width": 2, "stay": True, "clocked": False, "tau": 1.5}
        return cls(controller, 2, stacks=2, depth=3, generator=draw, **options)


def moved(stacks: Stacks, actions: Actions, values: Float[Tensor, "*batch stack word"], empty: float) -> Stacks:
    """Each cell becomes what its neighbours' and its own content come to, weighted by the actions."""
    bottom = torch.full_like(values, empty).unsqueeze(-2)
    cells = torch.cat([values.unsqueeze(-2), stacks, bottom], -2)  # a push brings the one above, a pop the one below
    push, pop, *stay = actions[..., None, None].unbind(-3)
    new = torch.addcmul(push * cells[..., :-2, :], pop, cells[..., 2:, :])
    return torch.addcmul(new, stay[0], stacks) if stay else new
