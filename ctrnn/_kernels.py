"""Which models have compiled kernels: networks that say what they are, in a form that kernels can read."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.dynamics import Model, Relaxation
from ctrnn.lowered import GatedNetwork, Layers, RateNetwork
from ctrnn.native.abi import DTYPES
from ctrnn.native.rate import CODES
from ctrnn.solvers.base import Step
from ctrnn.solvers.relaxation import Euler, ExponentialEuler, Iterate

LERPS = (Iterate, Euler, ExponentialEuler)
BLOCKS = {"gru": 3, "lstm": 4}  # of rows of a gated network's weights
EQUATION = ("target", "forward", "activity")  # a model may write its own in any of them


class Layer(NamedTuple):
    """A network with a kernel, and the step that it takes alone."""

    step: Step
    network: RateNetwork | GatedNetwork
    like: State  # a state of its own


def layers_of(step: Step, x: Any) -> list[Layer] | None:
    """The networks of a model, the first one first; None if one of them, or the way they are joined, has no kernel."""
    network, lerps = network_of(step.model, x), type(step.solver) in LERPS
    if network is None or (isinstance(x, tuple) and not lerps):
        return None  # within a stage a layer reads what the layer below does in that stage
    if not isinstance(network, Layers):
        return [Layer(step, network, x)]
    found = [layers_of(Step(layer, step.solver), part) for layer, part in zip(network.each, x.layers, strict=True)]
    return None if any(part is None or len(part) > 1 for part in found) else [part[0] for part in found if part]


def network_of(model: Model, x: State) -> RateNetwork | GatedNetwork | Layers | None:
    """The network that a model is, if its state is one of which there are kernels."""
    if not isinstance(model, Relaxation) or not _speaks_for(model) or torch.is_autocast_enabled("cpu"):
        return None
    network = model.lowered()
    return network if network is None or isinstance(network, Layers) or _fits(network, x) else None


def _speaks_for(model: Relaxation) -> bool:
    """Whether `lowered` describes the model's own equation, and not one that it inherits and then changes.

    What hooks see is the plain path's business.
    """
    kinds = type(model).__mro__
    nearer = kinds[: next(i for i, kind in enumerate(kinds) if "lowered" in vars(kind))]
    changed = any(name in vars(place) for place in (model, *nearer) for name in EQUATION)
    return not (changed or model._forward_hooks or model._forward_pre_hooks)


def _fits(network: RateNetwork | GatedNetwork, x: State) -> bool:
    """Whether everything has the shape, the dtype and the place that kernels read without asking."""
    parts = tree.leaves(x)
    first, n = parts[0], parts[0].shape[-1]
    if isinstance(network, RateNetwork):
        rows, biases, scalars = n, (network.b, network.theta), [network.tau, network.gain]
        known = isinstance(x, Tensor) and network.pre in CODES and network.post in CODES
    else:
        rows = BLOCKS.get(network.kind, 0) * n
        biases, scalars = (network.b_rec, network.b_in), [*tree.leaves(network.tau)]
        known = rows > 0 and len(parts) == len(scalars) == (2 if network.kind == "lstm" else 1)
    shapes: list[Any] = [(network.W_rec, ((rows, n),))]
    shapes += [(b, ((rows,),)) for b in biases] + [(s, ((), (n,))) for s in scalars]
    if network.W_in is not None:
        shapes.append((network.W_in, ((rows, network.W_in.shape[-1]),)))
    return (
        known
        and first.dtype in DTYPES
        and all(_readable(part, first) and part.shape == first.shape for part in parts)
        and all(value is None or (_readable(value, first) and value.shape in allowed) for value, allowed in shapes)
    )


def _readable(value: Any, like: Tensor) -> bool:
    return isinstance(value, Tensor) and value.dtype == like.dtype and value.is_cpu and value.layout == torch.strided
