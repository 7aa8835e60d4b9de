"""Generating long movements that are composed of short ones, in an order that a brief cue gives away."""

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from .draws import dtype_or_default, require, source, uniform
from .grid import box, check_dt, inside, nodes, samples
from .trials import HasOutputs, Trials, best_constant, masked_mse, outputs, scored


@dataclass(frozen=True)
class TwoScalePrimitives:
    """y(t) = position in the plane: primitives, each repeated, one after the other (after Yamashita & Tani 2008).

    The fast scale: primitive k is a closed curve through the origin, run through once per `period`; it leans towards
    2 pi k / n_primitives and is a circle for even k, a figure eight for odd k, one unit long. The slow scale:
    `orders[s]` names the primitives of sequence s; each is repeated `cycles` times before the next begins, at the
    origin and so without a jump. Input s is 1 during the cue, before the movement, and 0 after it: which primitive is
    due, and how often it has been repeated, must be remembered. Their movements were those of a robot's arms; the
    curves, the orders and the durations are ours.

    Times are in the unit of the network's tau; the defaults suit taus from 2 (fast) to 70 (slow). Sequences are dealt
    like cards, in packs that hold each of them once: a batch of `n_in` trials contains every sequence. The movement
    is scored, the cue is not. `periods["primitive"]` is (2, batch, primitive); `condition` holds `sequence`
    (batch,) and `order` (batch, primitive).
    """

    orders: tuple[tuple[int, ...], ...] = tuple(itertools.permutations(range(3)))
    cycles: int = 2
    period: float = 24.0
    cue: float = 1.0

    def __post_init__(self) -> None:
        require(
            len(self.orders) > 0 and len({len(order) for order in self.orders}) == 1 and len(self.orders[0]) > 0,
            f"orders = {self.orders}: give at least one sequence, all of the same number of primitives",
        )
        require(min(map(min, self.orders)) >= 0, f"orders = {self.orders}: primitives are numbered 0, 1, 2 ...")
        require(self.cycles >= 1, f"cycles = {self.cycles}: a primitive is carried out at least once")
        for name in ("period", "cue"):
            require(getattr(self, name) > 0, f"{name} = {getattr(self, name)}: it must be a positive duration")

    @property
    def n_primitives(self) -> int:
        """How many different curves there are."""
        return 1 + max(map(max, self.orders))

    @property
    def n_in(self) -> int:
        return len(self.orders)

    @property
    def n_out(self) -> int:
        return 2

    def trials(
        self,
        batch: int,
        dt: float,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Trials:
        """Raises ValueError for dt longer than the cue or a quarter of a period."""
        generator, dtype = source(batch, generator), dtype_or_default(dtype)
        check_dt(dt, self.cue, "the cue")
        check_dt(dt, self.period / 4, "a quarter of a period")
        deals = uniform(0.0, 1.0, (math.ceil(batch / self.n_in), self.n_in), generator).argsort(-1)
        sequence = deals.flatten()[:batch]
        order = torch.tensor(self.orders)[sequence]

        edges = self.cue + self.cycles * self.period * torch.arange(order.shape[1] + 1, dtype=torch.float64)
        steps = int(samples(edges[-1], dt))
        primitive = torch.stack([edges[:-1], edges[1:]])[:, None].expand(-1, batch, -1)
        cue = torch.tensor([[0.0], [self.cue]], dtype=torch.float64).expand(2, batch)
        movement = torch.stack([cue[1], primitive[1, :, -1]])
        running = inside(primitive, dt, steps).double()
        one_hot = torch.eye(self.n_primitives, dtype=torch.float64)[order]
        return Trials(
            us=box(cue, dt, steps)[..., None] * torch.eye(self.n_in, dtype=torch.float64)[sequence],
            targets=torch.einsum("tbi,bik,tkd->tbd", running, one_hot, self._curves(dt, steps)),
            mask=inside(movement, dt, steps),
            lengths=None,
            periods={"cue": cue, "primitive": primitive},
            condition={"sequence": sequence, "order": order},
            dt=dt,
        ).to(dtype=dtype, device=device)

    def curves(self, trials: Trials) -> Float[Tensor, "time primitive 2"]:
        """Where every primitive would be at the times of the trials, if it were the one that is carried out."""
        return self._curves(trials.dt, len(trials.us)).to(trials.targets)

    def _curves(self, dt: float, steps: int) -> Float64[Tensor, "time primitive 2"]:
        k = torch.arange(self.n_primitives)
        phase = 2 * math.pi / self.period * (nodes(dt, steps, k)[1:] - self.cue)
        along, across = (1 - torch.cos(phase)) / 2, torch.sin((1 + k % 2) * phase) / 2
        lean = 2 * math.pi / self.n_primitives * k.double()
        return torch.stack([along * lean.cos() - across * lean.sin(), along * lean.sin() + across * lean.cos()], dim=-1)

    def loss(self, ys: Float[Tensor, "time batch 2"], trials: Trials) -> Float[Tensor, ""]:
        """Masked mean squared error."""
        return masked_mse(ys, trials)

    def recognised(self, traj: HasOutputs, trials: Trials) -> Int[Tensor, "batch primitive"]:
        """The primitive that was carried out at each place of the sequence: the one whose curve is nearest."""
        ys = outputs(traj, trials, self.n_out)
        distance = (ys[:, :, None] - self.curves(trials)[:, None]).square().sum(-1)
        here = inside(trials.periods["primitive"], trials.dt, len(ys)) & scored(trials)[..., None]
        return torch.einsum("tbi,tbk->bik", here.to(distance), distance).argmin(-1)

    def evaluate(self, traj: HasOutputs, trials: Trials) -> dict[str, float]:
        """mse, and order_accuracy: at how many places of the sequences the nearest primitive is the right one."""
        right = self.recognised(traj, trials) == trials.condition["order"]
        mse = masked_mse(outputs(traj, trials, self.n_out), trials)
        return {"mse": mse.item(), "order_accuracy": right.double().mean().item()}

    def chance(self, trials: Trials) -> dict[str, float]:
        """Scores of the best constant output on these trials."""
        return self.evaluate(best_constant(trials), trials)
