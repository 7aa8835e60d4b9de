"""The unit delay: the one operator that a discrete network has and a static map has not."""

import torch
from torch import Tensor, nn

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.models._units import check_size
from ctrnn.steps import check_duration


class UnitDelay(nn.Module):
    """(z^-1 us)[k] = us[k - 1]: what an integrator of tau dx/dt = u - x holds at dt = tau before it takes us[k].

    Every discrete recurrent network is a static map closed through this operator: an Elman network is the fixed point
    hs = f(W_in us + b_in + W_rec z^-1(hs) + b_rec) over whole sequences. By itself it has no cycle, so it is no `Model`
    but a map from sequences to sequences.

    With dt < tau it is the low-pass filter that forward Euler makes of the delay, x <- lerp(x, us[k], dt / tau), and
    for dt -> 0 the lag 1 / (1 + tau s). At every dt a signal comes tau later on average (the mean of the impulse
    response), and with `power` p, p tau later: p such stages in a row are the gamma memory of de Vries & Principe
    (1992), which at dt = tau is a tapped delay line.

    Args:
        power: how many delays in a row; `UnitDelay(2)` is two of them, `UnitDelay(0)` the identity.
        initial: what comes out before the first sample does: a number, or a Tensor (*batch, channel).
        tau: the delay, in the unit in which dt will be given.

    Raises:
        TypeError: power is no integer, or tau is not one number.
        ValueError: power is negative or tau is not positive; or, when called, dt exceeds tau.
    """

    def __init__(self, power: int = 1, *, initial: float | Tensor = 0.0, tau: float = 1.0) -> None:
        super().__init__()
        check_size("power", power, 0)
        check_duration("tau", tau)
        self.power, self.tau = power, tau
        self.register_buffer("initial", torch.as_tensor(initial))

    def forward(self, us: State, dt: float | None = None) -> State:
        """The delayed sequence.

        Args:
            us: samples (time, *batch, channel), or a tree of them such as `Trajectory.xs`.
            dt: how long each sample lasts; None is tau, the unit delay.
        """
        alpha = 1.0 if dt is None else dt / self.tau
        if not 0 < alpha <= 1:
            raise ValueError(f"dt = {dt} must be positive and no longer than the delay tau = {self.tau}.")
        return tree.map(lambda leaf: self._delayed(leaf, alpha), us)

    def _delayed(self, us: Tensor, alpha: float) -> Tensor:
        for _ in range(self.power):
            held = [self.get_buffer("initial").to(us).expand(us.shape[1:])]
            for u in us.unbind(0)[:-1]:
                held.append(u if alpha == 1 else torch.lerp(held[-1], u, alpha))
            us = torch.stack(held) if len(us) else us
        return us

    def extra_repr(self) -> str:
        """The arguments."""
        return f"power={self.power}, tau={self.tau}"
