"""In which order a memory was written: the temporal links of the differentiable neural computer."""

import torch
from jaxtyping import Float
from torch import Tensor

from ctrnn.models.memory.addressing import Weights

Link = Float[Tensor, "*batch write slot slot"]


def linked(link: Link, writing: Weights, precedence: Weights) -> Link:
    """L_ij <- (1 - w_i - w_j) L_ij + w_i p_j,   L_ii = 0: how much slot i was written right after slot j.

    Graves et al. (2016), Nature 538:471-476, Methods. Each write head has its own.
    """
    column, row = writing.unsqueeze(-1), writing.unsqueeze(-2)
    kept = link * ((1 - column) + -row)  # adding is cheaper to differentiate than subtracting
    new = torch.addcmul(kept, column, precedence.unsqueeze(-2))
    new.diagonal(dim1=-2, dim2=-1).zero_()
    return new


def preceding(precedence: Weights, writing: Weights) -> Weights:
    """p_i <- (1 - sum_j w_j) p_i + w_i: how much slot i was the last one written."""
    return torch.addcmul(writing, 1 - writing.sum(-1, keepdim=True), precedence)


def followed(link: Link, reading: Weights) -> Float[Tensor, "*batch read write slot"]:
    """f = L w: where each read head comes to when it moves on, for the order of each write head."""
    return (reading.unsqueeze(-3) @ link.mT).transpose(-2, -3)


def retraced(link: Link, reading: Weights) -> Float[Tensor, "*batch read write slot"]:
    """b = L^T w: where each read head comes to when it goes back, for the order of each write head."""
    return (reading.unsqueeze(-3) @ link).transpose(-2, -3)


def peaked(weights: Tensor, exponents: Tensor) -> Tensor:
    """(w_i + 1e-6)^s / sum_j (w_j + 1e-6)^s (Csordas & Schmidhuber 2019, ICLR, arXiv:1904.10278, eqs. 8-10)."""
    return torch.softmax(exponents.unsqueeze(-1) * (weights.clamp_min(0) + 1e-6).log(), -1)
