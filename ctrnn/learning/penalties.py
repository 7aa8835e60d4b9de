"""What is added to the loss: any callable (model, trajectory) -> scalar; these two are the common ones."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ctrnn import _tree as tree
from ctrnn._model_files import class_name
from ctrnn.trajectory import Trajectory

Penalty = Callable[[nn.Module, Trajectory], Tensor]


@dataclass(frozen=True)
class RatePenalty:
    """weight * mean(r**2), r what the units send: `model.activity(x)`, or all parts of the state if there is none.

    The mean is over units, trials and time; samples after a trial's end do not count.
    """

    weight: float

    def __post_init__(self) -> None:
        _check(self, self.weight)

    def __call__(self, model: nn.Module, trajectory: Trajectory) -> Float[Tensor, ""]:
        activity = getattr(model, "activity", None)
        rates = trajectory.xs if activity is None else activity(trajectory.xs)
        leaves = [leaf if trajectory.mask is None else leaf[trajectory.mask] for leaf in tree.leaves(rates)]
        total = torch.stack([leaf.square().sum() for leaf in leaves]).sum()
        return self.weight * total / sum(leaf.numel() for leaf in leaves)


@dataclass(frozen=True)
class WeightPenalty:
    """weight * sum(W**2) over all learned matrices, as they act (after masks and signs); not biases, not tau.

    Like `weight_decay = 2 * weight` of torch.optim.SGD, restricted to matrices.
    """

    weight: float

    def __post_init__(self) -> None:
        _check(self, self.weight)

    def __call__(self, model: nn.Module, trajectory: Trajectory) -> Float[Tensor, ""]:
        del trajectory
        squares = [matrix.square().sum() for matrix in matrices(model)]
        if not squares:
            raise ValueError(f"WeightPenalty: {class_name(model)} has no learned matrix: leave the penalty out.")
        return self.weight * torch.stack(squares).sum()


def matrices(model: nn.Module) -> Iterator[Tensor]:
    """The learned parameters of two axes or more, parametrised ones as they act."""
    for module in model.modules():
        if isinstance(module, parametrize.ParametrizationList):
            continue
        yield from (p for p in module.parameters(recurse=False) if p.ndim > 1 and p.requires_grad)
        if parametrize.is_parametrized(module):
            acting = (getattr(module, name) for name in module.parametrizations)  # type: ignore[union-attr]
            yield from (matrix for matrix in acting if matrix.ndim > 1)


def _check(penalty: object, weight: float) -> None:
    if not 0 <= weight < math.inf:
        raise ValueError(f"{type(penalty).__name__}: weight must be finite and not negative, got {weight}.")
