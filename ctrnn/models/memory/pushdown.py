"""The neural network pushdown automaton: a network that puts its input on a stack of continuous length."""

from typing import Any, Self

import torch
from torch import Generator, Tensor

from ctrnn.dynamics import Relaxation
from ctrnn.models._units import Input, Vector
from ctrnn.models.memory.segments import Commands, Segmented, SegmentsState
from ctrnn.models.second_order import SecondOrder


class Pushdown(Segmented):
    """tau dL/dt = a where L > 0 or a > 0,   a = tanh(W_heads h + b_heads),   r = the upper unit of length of the stack.

    The neural network pushdown automaton of Das, Giles & Sun (1992), Proc. 14th Conf. Cognitive Science Society, and
    Sun, Giles, Chen & Lee (1993), UMIACS-TR-93-77, arXiv:1711.05738. The stack is a line of length L, cut into segments
    of input symbols. One signed action moves its end: a > 0 pushes a segment of the present input u, of length a; a < 0
    pops a length of -a, or all there is. The reading r sums the symbols within the upper unit of length, each times
    its length there. Conventions:

    * Within a step the controller comes first, sees u and the reading as it was, and the action acts on the stack with
      the same u. What was pushed is read in the next step.
    * The action is told by the units as the step leaves them. Theirs was one more unit that saw what the others see.
    * They keep every segment. Here, where there are more than `slots`, the oldest is lost.

    At dt = tau this is the discrete automaton. Below it there are two meanings. A *clocked* stack ticks: the controller
    flows at any dt and reads what is held, and at each multiple of tau the stack takes one step, wholly. In a *relaxed*
    one (`clocked=False`) the end moves at the rate a, and at each multiple of tau a new segment begins: with one signed
    action pops and pushes have nothing to disagree about, and actions held for tau come to the same stack and the same
    readings at every dt that Euler takes. What is pushed in one tau is kept as its mean. Solvers other than Euler go
    wrong by up to dt where a segment ends, and need steps far below tau.

    Args:
        controller: any relaxation that reads (u, r), r being as wide as u: its n_in is twice that of u. Theirs are
            second-order, `SecondOrder(n, 2 * n_in)`, or third-order.
        n_out: outputs W_out h + b_out; without them the readout is h, in which one unit may say whether to accept.
        slots: how many segments are held at most. The state has two rows more.
        clocked: whether the stack ticks, or flows.
        tau: of the stack: one number, its period. The controller's is learned if it was built so.
        generator: where the weights are drawn from, uniformly within 1 / sqrt(units that send); torch's global one if
            None.

    State: SegmentsState. `length` is L, which at the end of a string that is accepted should be 0.

    Raises:
        TypeError: the controller is no Relaxation.
        ValueError: its inputs are not two halves, or a size or tau is impossible.
    """

    def __init__(
        self,
        controller: Relaxation,
        n_out: int | None = None,
        *,
        slots: int,
        clocked: bool = True,
        tau: Any = 1.0,
        generator: Generator | None = None,
    ) -> None:
        n_in = getattr(controller, "n_in", None) or 2  # what is no Relaxation is refused below
        if n_in % 2:
            raise ValueError(
                f"the controller reads the input and what is on the stack, which is as wide, and n_in={n_in} is odd: "
                "give it twice the inputs'."
            )
        super().__init__(controller, n_out, slots=slots, width=n_in // 2, clocked=clocked, tau=tau)
        self._add_weights(1, generator)

    def target(self, t: Tensor, x: SegmentsState, u: Input, alpha: Any = 0) -> SegmentsState:  # type: ignore[override]
        """F of the controller, and of the segments as it moves them."""
        return self._target(t, x, u, alpha)

    def action(self, said: Vector) -> Tensor:
        """a: (*batch, 1), from -1, which pops one unit of length, to 1, which pushes one."""
        return torch.tanh(self.heads(said))

    def commands(self, said: Vector, u: Input) -> Commands:
        """What the controller tells the memory."""
        action = self.action(said)
        return Commands(torch.relu(-action), torch.relu(action), u)

    @property
    def config(self) -> dict[str, Any]:
        return {name: value for name, value in super().config.items() if name != "width"}

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        return cls(SecondOrder(4, 6, generator=draw), 2, slots=3, clocked=False, tau=1.5, generator=draw)
