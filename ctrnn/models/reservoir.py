"""Echo state networks: a random network that is left as it is, and a readout that is learned."""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from ctrnn.init import spectral_radius
from ctrnn.lowered import RateNetwork
from ctrnn.models._units import Input, Units, Vector
from ctrnn.models.activations import Activation, checked, lowered, name_of, named


class EchoState(Units):
    """tau dr/dt = f(W_rec r + W_in u + W_back y + b_rec) - r,   y = W_out r + b_out.

    Jaeger (2001), GMD Report 148; Jaeger, Lukosevicius, Popovici & Siewert (2007), Neural Networks 20:335-352. In steps
    dt it is the leaky network with leaking rate dt / tau, at dt = tau the one without leak. Only the readout is to be
    learned (`learning.fit_readout`): W_rec, W_in, W_back and b_rec do not ask for gradients.

    With feedback, what was said a step ago comes back through W_back. `learning.fit_readout` forces the teacher by
    itself: while it collects states, the target of the sample before is what comes back. `teacher_forced()` is this
    network with the loop cut open, which takes what was to be said as n_out further inputs: with it a fitted network is
    evaluated on what it is told, or led to the state from which it goes on alone.

    Args:
        n: units.
        n_in: inputs.
        n_out: outputs; without them there is no readout and y is r.
        radius: largest |eigenvalue| of W_rec; in steps dt the linearised network's is
            `init.effective_radius(W_rec, dt / tau)`. Other reservoirs (`init.ring`, `init.delay_line`,
            `init.orthogonal`) are copied into W_rec.
        density: share of the units that each unit sees.
        input_scale, feedback_scale, bias_scale: W_in, W_back and b_rec are uniform within them; without
            feedback_scale there is no W_back.
        tau: one number or one per unit, in the unit in which dt will be given.
        activation: f.
        learn_tau: learn tau, in the shape in which it was given.
        generator: where the weights are drawn from; torch's global one if None.

    Parameters: W_rec (n, n), W_in (n, n_in), b_rec (n,), W_back (n, n_out) with feedback, W_out (n_out, n) and b_out
    (n_out,), which begin at zero. State r: (*batch, n).

    Raises:
        ValueError: there is feedback without n_out, or a scale or the density is impossible.
    """

    b_rec: Tensor
    W_back: Tensor | None

    def __init__(
        self,
        n: int,
        n_in: int,
        n_out: int | None = None,
        *,
        radius: float = 0.9,
        density: float = 1.0,
        input_scale: float = 1.0,
        feedback_scale: float | None = None,
        bias_scale: float = 0.0,
        tau: Any = 1.0,
        activation: Activation = torch.tanh,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(n, n_in, n_out, tau)
        if feedback_scale is not None and n_out is None:
            raise ValueError("feedback_scale is given, but there is no output to feed back: give n_out.")
        self.activation, self.drawn = checked(activation), {"radius": radius, "density": density}
        self.scales = {"input_scale": input_scale, "feedback_scale": feedback_scale, "bias_scale": bias_scale}
        for name, scale in {"radius": radius, **self.scales}.items():
            if scale is not None and not 0 <= scale < float("inf"):
                raise ValueError(f"{name} = {scale} must be a finite number, at least 0.")
        back = None if feedback_scale is None or n_out is None else (n, n_out)
        self._add_weights(torch.zeros, learn_tau, W_rec=(n, n), W_in=(n, n_in), b_rec=(n,), W_back=back)
        self._draw(generator)

    def _draw(self, generator: Generator | None) -> None:
        """Draw everything that is never learned."""
        radius, density = self.drawn.values()
        if radius > 0:
            self.W_rec.data = spectral_radius(self.n, radius, density=density, generator=generator)
        for weight, scale in zip((self.W_in, self.W_back, self.b_rec), self.scales.values(), strict=True):
            if weight is not None:
                assert scale is not None
                weight.data.uniform_(-scale, scale, generator=generator)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in ("W_rec", "W_in", "W_back", "b_rec"))

    def target(self, t: Tensor, x: Vector, u: Input, alpha: Any = 0) -> Vector:  # type: ignore[override]
        """F = f(W_rec r + W_in u + W_back y + b_rec)."""
        driven = F.linear(x, self.W_rec, self.b_rec) + F.linear(u, self.W_in)
        return self.activation(driven if self.W_back is None else driven + F.linear(self.readout(x), self.W_back))

    def lowered(self) -> RateNetwork | None:
        """Without feedback: what a readout sends back may be learned, or redefined, apart from the network."""
        post = lowered(self.activation) if self.W_back is None else None
        return None if post is None else RateNetwork(self.W_rec, self.W_in, self.b_rec, self.tau, post=post)

    def activity(self, x: Vector) -> Vector:
        """The rates r."""
        return x

    def teacher_forced(self) -> "EchoState":
        """A network without feedback and with n_in + n_out inputs, the last ones what was to be said one step before.

        W_rec, b_rec, the readout and a learned tau are those of this network, with their constraints: learning either
        teaches both. W_in of the new one is [W_in, W_back] of this one as they are now, a copy.

        To train a readout no forcing by hand is needed, `learning.fit_readout(net, us, targets, dt=dt)` does it. What
        it returns is evaluated like this: a start led by what was said, then the network alone:

            heard = torch.cat([torch.zeros_like(said[:1]), said[:-1]])
            led = integrate(net.teacher_forced(), torch.cat([us, heard], -1), dt=dt)
            alone = integrate(net, later_us, led.xs[-1], dt=dt)

        Raises:
            ValueError: there is no feedback.
        """
        if self.W_back is None:
            raise ValueError("without feedback there is nothing to force: give the network a feedback_scale.")
        assert self.n_out is not None
        forced = EchoState.from_config(
            self.config | {"n_in": self.n_in + self.n_out, "feedback_scale": None, "radius": 0.0}
        )
        for name in ("W_rec", "b_rec", "W_out", "b_out", "log_ratio"):
            if parametrize.is_parametrized(self, name):
                parametrize.transfer_parametrizations_and_params(self, forced, name)  # the same originals, no copies
            elif isinstance(own := getattr(self, name), nn.Parameter):
                setattr(forced, name, own)
        forced.W_in = nn.Parameter(torch.cat([self.W_in, self.W_back], -1), requires_grad=False)
        return forced.to(self.W_rec)

    @property
    def config(self) -> dict[str, Any]:
        return super().config | self.drawn | self.scales | {"activation": name_of(self.activation)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config | {"activation": named(config["activation"])}, generator=Generator())

    @classmethod
    def example(cls) -> Self:
        net = cls(3, 2, 2, feedback_scale=0.5, tau=torch.tensor([0.5, 1.0, 2.0]), generator=Generator().manual_seed(0))
        with torch.no_grad():
            for parameter, draw in ((net.W_out, torch.ones(2, 3)), (net.b_out, torch.ones(2))):
                parameter.copy_(0.1 * draw)  # type: ignore[union-attr]
        return net
