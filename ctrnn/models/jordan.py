"""Output feedback: what a network has said, kept in state units, is what it knows of the past."""

import math
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from ctrnn import _tree as tree
from ctrnn.models._units import Input, Units, Vector, check_number, check_size
from ctrnn.models.activations import Activation, checked, identity, name_of, named
from ctrnn.models.gated import _within

Output = Float[Tensor, "*batch output"]


class JordanState(NamedTuple):
    """h, the hidden units (*batch, n), and s, the state units (*batch, n_out). Also the shape of a Jordan's tau."""

    h: Any
    s: Any


class Jordan(Units):
    """tau_h dh/dt = f(W_in u + W_state s + b_rec) - h,   tau_s ds/dt = y + mu s - s,   y = g(W_out h + b_out).

    Jordan (1986), Serial order: a parallel distributed processing approach, ICS Report 8604. The hidden units do not
    see one another; one state unit for each output remembers what was said. Within a step s reads the output as the
    step leaves it, so that at dt = tau this is Jordan's discrete network h_t = f(W_in u_t + W_state s_t + b_rec),
    y_t = g(W_out h_t + b_out), s_{t+1} = y_t + mu s_t, whose state after sample t is (h_t, s_{t+1}).

    The self-link mu is a time constant: since y + mu s - s = y - (1 - mu) s, the state units are leaky integrators of
    the output with time constant tau_s / (1 - mu) and gain 1 / (1 - mu). At dt = tau_s their trace fades by mu in each
    step. With dt = tau_s the output feeds back from one step to the next whatever dt / tau_h is; with W_out = I,
    b_out = 0, g = identity and mu = 0 that is a (leaky) `Elman`.

    Args:
        n: hidden units.
        n_in: inputs.
        n_out: outputs, and as many state units.
        mu: weight of a state unit's link to itself, at least 0 and below 1.
        tau: one number, or JordanState(h=..., s=...) of numbers or of Tensors (n,) and (n_out,), in the unit in which
            dt will be given.
        activation: f; Jordan's units were logistic, `torch.sigmoid`.
        output: g, which is fed back; `activations.softmax` makes the outputs probabilities of labels, as Mesnil, He,
            Deng & Bengio (2013) feed them back.
        learn_tau: learn tau, in the shape in which it was given.
        generator: where the weights are drawn from, uniformly within 1 / sqrt(n); torch's global one if None.

    Parameters: W_in (n, n_in), W_state (n, n_out), b_rec (n,), W_out (n_out, n), b_out (n_out,); weights are
    W[to, from]. State: JordanState(h, s).

    Raises:
        TypeError, ValueError: mu or tau is none of these.
    """

    W_state: Tensor
    b_rec: Tensor
    b_out: Tensor

    def __init__(
        self,
        n: int,
        n_in: int,
        n_out: int,
        *,
        mu: float = 0.0,
        tau: Any = 1.0,
        activation: Activation = torch.tanh,
        output: Activation = identity,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        check_size("n_out", n_out, 1)
        parts = tree.spread(tau, JordanState(0, 0))
        if not isinstance(parts, JordanState) or torch.as_tensor(parts.s).shape not in ((), (n_out,)):
            raise ValueError(
                f"tau of a Jordan is one number, or JordanState(h=..., s=...) of numbers or of one per hidden unit "
                f"({n}) and one per output ({n_out}), got {tau!r}."
            )
        check_number("mu", mu)
        if not 0 <= mu < 1:
            raise ValueError(
                f"mu = {mu}: a state unit's link to itself is at least 0 and below 1, or it never forgets."
            )
        super().__init__(n, n_in, n_out, parts._replace(s=1.0))
        self.tau = parts
        self.mu, self.activation, self.output = float(mu), checked(activation), checked(output)
        draw = _within(1 / math.sqrt(n), generator)
        self._add_weights(draw, learn_tau, W_in=(n, n_in), W_state=(n, n_out), b_rec=(n,))

    def target(self, t: Tensor, x: JordanState, u: Input, alpha: Any = 0) -> JordanState:  # type: ignore[override]
        """F_h = f(W_in u + W_state s + b_rec), and F_s = g(W_out lerp(h, F_h, alpha_h) + b_out) + mu s."""
        h = self.activation(F.linear(x.s, self.W_state, self.b_rec) + F.linear(u, self.W_in))
        seen = tree.blend(x.h, h, tree.spread(alpha, x).h)
        assert isinstance(seen, Tensor)
        return JordanState(h, self.readout(JordanState(seen, x.s)) + self.mu * x.s)

    def activity(self, x: JordanState) -> Vector:
        """The hidden units h."""
        return x.h

    def readout(self, x: JordanState) -> Output:  # type: ignore[override]
        """y = g(W_out h + b_out)."""
        return self.output(super().readout(x))

    def initial_state(self, *batch: int) -> JordanState:
        """Nothing said yet: all units at zero."""
        h, s = (self.W_in.new_zeros(*batch, len(bias)) for bias in (self.b_rec, self.b_out))
        return JordanState(h, s)

    @property
    def config(self) -> dict[str, Any]:
        names = {"activation": name_of(self.activation), "output": name_of(self.output)}
        return super().config | {"mu": self.mu} | names

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        functions = {name: named(config[name]) for name in ("activation", "output")}
        return cls(**config | functions | {"tau": JordanState(**config["tau"])})

    @classmethod
    def example(cls) -> Self:
        tau = JordanState(h=torch.tensor([0.5, 1.0, 2.0]), s=1.5)
        return cls(3, 2, 2, mu=0.5, tau=tau, output=torch.sigmoid, generator=Generator().manual_seed(0))
