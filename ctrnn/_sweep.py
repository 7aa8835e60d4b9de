"""Integration over an order instead of time."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.dynamics import Relaxation
from ctrnn.order import Level, Order


@runtime_checkable
class Joining(Protocol):
    """A relaxation that can follow several predecessors at once."""

    arity: int | None  # the slots it has weights for; None: any number

    def target_of(self, x: Any, children: Any, u: Tensor, alpha: Any = 0) -> Any:
        """F for a node that starts at x and reads `children`, whose Tensors are (*batch, slot, unit), 0 where empty.

        With one child, x itself, it is the model's `target`.
        """
        ...


class Swept(NamedTuple):
    """What a sweep found at every node: states (node, *batch, ...) and outputs (node, *batch, output)."""

    xs: Any
    ys: Float[Tensor, "node *batch output"]


def sweep(
    model: Relaxation,
    inputs: Float[Tensor, "node *batch input"],
    order: Order,
    *,
    dt: float | None = None,
    x0: State | None = None,
) -> Swept:
    """x_v = lerp(m, F(x_v1, x_v2, ..., u_v), dt / tau),   m the mean of what v reads: one Euler step at every node.

    At dt = tau x_v = F, the published recursive network; on a chain it is `integrate` with Euler steps. Nodes of one
    level are one batch, so the Python loop is as long as the longest path, and different trees in one
    `Order.forest` cost no more steps than the deepest.

    Args:
        model: with `target_of` (see `Joining`) any order within its arity; any other, one predecessor at most.
        inputs: a row for each node, (node, *batch, n_in).
        order: which node reads which.
        dt: the step, in the model's unit of time; None is dt = tau, for every unit its own.
        x0: what a node without predecessors reads, in its first slot, (*batch, ...); None is the initial state.

    Returns:
        States and outputs in the nodes' own numbering.

    Raises:
        TypeError: the model has no target to relax to.
        ValueError: as many inputs as nodes are needed; the nodes read more than the model can; dt is not positive.
    """
    _check(model, inputs, order, dt)
    batch = inputs.shape[1:-1]
    first = tree.map(lambda leaf: leaf.unsqueeze(0), model.initial_state(*batch) if x0 is None else x0)
    alpha: Any = 1 if dt is None else tree.map(lambda tau: (dt / tau).to(inputs.dtype), model.tau)
    done: list[Any] = []
    for level in order.levels:
        pool = tree.map(lambda *parts: torch.cat(parts), first, *(done[source] for source in level.sources))
        x, children = _read(pool, level)
        u = inputs[level.nodes.to(inputs.device)]
        if isinstance(model, Joining):
            target = model.target_of(x, children, u, tree.spread(alpha, x))
        else:
            target = model.target(inputs.new_zeros(()), x, u, tree.spread(alpha, x))
        done.append(tree.blend(x, target, alpha))
    back = torch.argsort(torch.cat([level.nodes for level in order.levels])).to(inputs.device)
    xs = tree.map(lambda *parts: torch.cat(parts)[back], *done)
    return Swept(xs, model.readout(xs))


def _read(pool: State, level: Level) -> tuple[State, State]:
    """The mean of what each node reads (node, *batch, unit), and all of it (node, *batch, slot, unit)."""

    def gathered(leaf: Tensor) -> Tensor:
        read = leaf[level.rows.to(leaf.device)]
        filled = level.filled.to(leaf).reshape(level.filled.shape + (1,) * (leaf.ndim - 1))
        return (read * filled).movedim(1, -2)

    children = tree.map(gathered, pool)
    count = level.filled.sum(1)

    def mean(leaf: Tensor) -> Tensor:
        return leaf.sum(-2) / count.to(leaf).reshape(-1, *[1] * (leaf.ndim - 2))

    return tree.map(mean, children), children


def _check(model: Relaxation, inputs: Tensor, order: Order, dt: float | None) -> None:
    if not isinstance(model, Relaxation):
        raise TypeError(f"sweep needs a Relaxation, which has a target; got a {type(model).__name__}.")
    if inputs.ndim < 2 or len(inputs) != len(order) or inputs.shape[-1] != model.n_in:
        raise ValueError(
            f"inputs must be (node, *batch, input) = ({len(order)}, ..., {model.n_in}), got {tuple(inputs.shape)}: "
            "give every node of the order one row."
        )
    arity = model.arity if isinstance(model, Joining) else 1
    if arity is not None and order.arity > arity:
        raise ValueError(
            f"nodes of this order have up to {order.arity} predecessors, {type(model).__name__} reads {arity}: "
            "build it with a larger arity, or use a model that has target_of, such as ChildSumTreeLSTM."
        )
    if dt is not None and not dt > 0:
        raise ValueError(f"dt must be positive, got {dt}: leave it out for dt = tau.")
