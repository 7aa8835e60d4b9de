"""The neural stack and the neural queue: elements have strengths, and are pushed, popped and read in part."""

from typing import Any, Self

import torch
from torch import Generator, Tensor

from ctrnn.dynamics import Relaxation
from ctrnn.models._units import Input, Vector
from ctrnn.models.gated import LSTM, LSTMState
from ctrnn.models.memory.segments import Commands, Order, Rows, Segmented, SegmentsState, newest_first

POP_BIAS = -1.0  # Grefenstette et al., app. B: where more is popped than pushed the gradient of pops is zero


class NeuralStack(Segmented):
    """s_i <- max(0, s_i - max(0, u - sum_(j>i) s_j)),   s_new = d,   r = sum_i min(s_i, max(0, 1 - sum_(j>i) s_j)) v_i.

    The neural stack of Grefenstette, Hermann, Suleyman & Blunsom (2015), NeurIPS 28:1828-1836, arXiv:1506.02516, eqs. 1
    to 3. The controller reads (u, r) and says how much to pop, u = sigma, how much to push, d = sigma, and what, v =
    tanh; the readout sees the controller alone. Conventions:

    * Within a step the controller comes first and reads the stack as it was; the stack then pops, then pushes. What was
      pushed is read in the next step.
    * The first bias of pops is -1, as in their appendix B.
    * They keep a row for every step. Here the push goes to the row after the newest segment that the pop has left, and
      where there would be more than `slots` segments the oldest is lost; up to then the stack is theirs.

    At dt = tau this is the discrete network. Below it there are two meanings. A *clocked* stack ticks: the controller
    flows at any dt and reads what is held, and at each multiple of tau the stack takes one step, wholly. In a *relaxed*
    one (`clocked=False`) strengths are lengths, and u and d are rates at which the top shortens and grows; at each
    multiple of tau a new segment begins. Commands held for tau come to the same however tau is cut into steps of
    Euler, where no more than one of u and d is positive; where both are, all that counts as dt vanishes is d - u, and
    rows that are emptied below the open one count as slots until they are on top. What is pushed in one tau is kept as
    its mean. Solvers other than Euler go wrong by up to dt where a segment ends, and need steps far below tau.

    Args:
        controller: any relaxation that reads (u, r): its n_in is that of u plus width. Theirs is an `LSTM`.
        n_out: outputs W_out h + b_out, of which theirs are the tanh; without them the readout is h.
        slots: how many segments are held at most. The state has two rows more.
        width: how many numbers an element has.
        clocked: whether the stack ticks, or flows.
        tau: of the stack: one number, its period. The controller's is learned if it was built so.
        generator: where the weights are drawn from, uniformly within 1 / sqrt(units that send); torch's global one if
            None.

    Rows of W_heads and b_heads: u, d, v. State: SegmentsState; `length` says how much is held.

    Raises:
        TypeError: the controller is no Relaxation.
        ValueError: it has no room for what is read, or a size or tau is impossible.
    """

    def __init__(
        self,
        controller: Relaxation,
        n_out: int | None = None,
        *,
        slots: int,
        width: int,
        clocked: bool = True,
        tau: Any = 1.0,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(controller, n_out, slots=slots, width=width, clocked=clocked, tau=tau)
        self._add_weights(2 + width, generator)
        with torch.no_grad():
            self.b_heads[0] = POP_BIAS

    def target(self, t: Tensor, x: SegmentsState, u: Input, alpha: Any = 0) -> SegmentsState:  # type: ignore[override]
        """F of the controller, and of the segments as it moves them."""
        return self._target(t, x, u, alpha)

    def commands(self, said: Vector, u: Input) -> Commands:
        """What the controller tells the memory."""
        amounts, words = self.heads(said).split((2, self.width), -1)
        pop, push = torch.sigmoid(amounts).split(1, -1)
        return Commands(pop, push, torch.tanh(words))

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        controller = LSTM(3, 5, tau=LSTMState(h=1.0, c=2.0), generator=draw)
        return cls(controller, 2, slots=3, width=3, clocked=False, tau=1.5, generator=draw)


class NeuralQueue(NeuralStack):
    """s_i <- max(0, s_i - max(0, u - sum_(j<i) s_j)),   s_new = d,   r = sum_i min(s_i, max(0, 1 - sum_(j<i) s_j)) v_i.

    The neural queue of Grefenstette et al. (2015), eqs. 4 and 5: a `NeuralStack` that pops and reads its oldest
    elements first. All else is as there, but that held commands come to the same at every dt though the
    queue pops and pushes at once: the two meet only in a queue that runs empty.
    """

    def _order(self, place: Rows) -> Order:
        """The oldest first."""
        return newest_first(place).flip(-1)
