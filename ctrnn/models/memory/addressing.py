"""Where a head looks: weightings over the slots of a memory, and what it does there."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Memory = Float[Tensor, "*batch slot word"]
Weights = Float[Tensor, "*batch head slot"]
PerHead = Float[Tensor, "*batch head"]
Words = Float[Tensor, "*batch head word"]

# Added to every squared length, as in deepmind/dnc: the cosine with an empty slot is 0, and its gradient finite.
EMPTY = 1e-6


def by_content(memory: Memory, keys: Words, strengths: PerHead, masks: Words | None = None) -> Weights:
    """softmax_i(strength cos(key, M_i)), where |x| = sqrt(x x + 1e-6).

    Graves, Wayne & Danihelka (2014), arXiv:1410.5401, eqs. 5 and 6; Graves et al. (2016), Nature 538:471-476.

    Args:
        memory: the slots M_i.
        keys: what each head looks for.
        strengths: how much nearer slots are preferred, at least 0.
        masks: which components count, from 0 to 1: cos(mask key, mask M_i) (Csordas & Schmidhuber 2019, ICLR,
            arXiv:1904.10278, eq. 5).
    """
    return nearest(memory, aimed(keys, strengths, masks), masks)


def aimed(keys: Words, strengths: PerHead, masks: Words | None = None) -> Words:
    """strength key / |key|: what `by_content` needs to know of a key, whatever the memory."""
    if masks is not None:
        keys = keys * masks
    aim = keys * (strengths * (keys.square().sum(-1) + EMPTY).rsqrt()).unsqueeze(-1)
    return aim if masks is None else aim * masks


def nearest(memory: Memory, aim: Words, masks: Words | None = None) -> Weights:
    """The weights of `by_content` for keys that are `aimed`."""
    if masks is None:
        sizes = (memory.square().sum(-1) + EMPTY).rsqrt().unsqueeze(-2)
    else:
        sizes = (masks.square() @ memory.square().mT + EMPTY).rsqrt()
    return torch.softmax(aim @ memory.mT * sizes, -1)


def associated(memory: Memory, queries: Words, beta: float) -> Weights:
    """softmax_i(beta M_i q): how much of each pattern a modern Hopfield network recalls, or attention sees.

    Ramsauer et al. (2021), ICLR, arXiv:2008.02217; Krotov & Hopfield (2021), ICLR, arXiv:2008.06996.
    """
    return torch.softmax(beta * (queries @ memory.mT), -1)


def shifted(weights: Weights, shifts: Float[Tensor, "*batch head shift"]) -> Weights:
    """w_i <- sum_k s_k w_(i-k), k = -K ... K, on a ring of slots (Graves et al. 2014, eq. 8).

    The last s moves a head to the slots of higher number, the first to those of lower number.
    """
    reach = shifts.shape[-1] // 2
    parts = shifts.unsqueeze(-1).unbind(-2)
    moved = parts[reach] * weights
    for far in range(1, reach + 1):
        moved = torch.addcmul(moved, parts[reach + far], weights.roll(far, -1))
        moved = torch.addcmul(moved, parts[reach - far], weights.roll(-far, -1))
    return moved


def sharpened(weights: Weights, exponents: PerHead) -> Weights:
    """w_i^gamma / sum_j w_j^gamma (Graves et al. 2014, eq. 9), as softmax(gamma log w), which cannot underflow.

    Weights that are not positive count as the smallest positive number.
    """
    log = weights.clamp_min(torch.finfo(weights.dtype).tiny).log()
    return torch.softmax(exponents.unsqueeze(-1) * log, -1)


def written(memory: Memory, weights: Weights, erase: Words, add: Words) -> Memory:
    """M_i prod_h (1 - w_hi e_h) + sum_h w_hi a_h: all heads erase, then all add (Graves et al. 2014, eqs. 3 and 4)."""
    if weights.shape[-2] == 1:
        return torch.addcmul(memory, weights.mT, add - erase * memory)
    return torch.addcmul(weights.mT @ add, unerased(weights, erase), memory)


def unerased(weights: Weights, erase: Words) -> Memory:
    """prod_h (1 - w_hi e_h): how much of what a slot holds survives a write."""
    return remaining(weights.unsqueeze(-1) * erase.unsqueeze(-2), -3)


def remaining(taken: Tensor, axis: int) -> Tensor:
    """prod (1 - taken) over a short axis, factor by factor: `torch.prod` divides by its factors to differentiate."""
    first, *others = (1 - taken).unbind(axis)
    for factor in others:
        first = first * factor
    return first


def allocated(usage: Float[Tensor, "*batch slot"]) -> Float[Tensor, "*batch slot"]:
    """a_i = (1 - u_i) prod_(j before i) u_j, the least used slot first (Graves et al. 2016, eq. 1 of their Methods).

    Of slots that are used equally the one with the lower number comes first: on an empty memory that is what tells
    them apart. The weights add up to 1 - prod_i u_i. As in the paper, the order is taken as given by the gradient.
    """
    ascending, order = torch.sort(usage, dim=-1, stable=True)
    # The least usage stands apart: only where it is 0 do logarithms fail, and then all but the first two slots get 0.
    least, others = ascending[..., :1], ascending[..., 1:]
    logs = others[..., :-1].clamp_min(torch.finfo(usage.dtype).tiny).log()
    before = torch.exp(F.pad(logs.cumsum(-1), (1, 0))) if others.shape[-1] else others
    free = torch.cat([1 - least, (1 - others) * before * least], -1)
    return torch.zeros_like(usage).scatter(-1, order, free)


def softly_allocated(usage: Float[Tensor, "*batch slot"], strength: float) -> Float[Tensor, "*batch slot"]:
    """softmax_i(strength (1 - u_i)): smooth in the usage, and always adding up to 1.

    Ben-Ari & Bekker (2017), ICML workshop on machine learning in speech and language processing; they used a strength
    of softplus(2) = 2.13. On a memory whose slots are used equally all get the same.
    """
    return torch.softmax(-strength * usage, -1)


def paced(x: Tensor, target: Tensor, share: Tensor, rate: Any) -> Tensor:
    """The F for which steps that make up one tau end where one whole step does, x <- target, however tau is cut.

    For a target (1 - share) x + b whose share and b are held: x + rho (target - x), with rho `quickened`.

    Args:
        x, target: the part of the state, and where a whole step takes it.
        share: how much of x a whole step takes away, from 0 to 1.
        rate: alpha, of the step or of each sample.
    """
    return torch.lerp(x, target, quickened(share, rate).expand_as(x))


def quickened(share: Tensor, rate: Any) -> Tensor:
    """rho = (1 - (1 - share)^rate) / (rate share), how much faster a part must go to lose `share` in a whole tau.

    It is 1 at rate = 1 and -log(1 - share) / share in the flow, the rate at which all of `share` is gone after tau.
    What is to go wholly goes but for one rounding, which keeps the flow finite.
    """
    eps = torch.finfo(share.dtype).eps
    share = share.clamp(eps**2, 1 - eps)
    rate = torch.as_tensor(rate, dtype=share.dtype, device=share.device)
    part = torch.where(rate == 0, 1, rate)
    log = torch.log1p(-share)
    rho = torch.where(rate == 0, -log, -torch.expm1(part * log) / part) / share
    return torch.where(rate == 1, 1, rho)
