"""Integration over an order instead of time."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ctrnn import _check as check
from ctrnn import _tree as tree
from ctrnn._types import State
from ctrnn.dynamics import Relaxation
from ctrnn.order import Level, Order
from ctrnn.solvers.relaxation import Euler
from ctrnn.steps import check_duration


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

    At dt = tau x_v = F, the published recursive network; on a chain it is `integrate` with Euler steps. Clocked parts
    tick at every node. Nodes of one level are one batch, so the Python loop is as long as the longest path, and
    different trees in one `Order.forest` cost no more steps than the deepest.

    Args:
        model: with `target_of` (see `Joining`) any order within its arity; any other, one predecessor at most.
        inputs: a row for each node, (node, *batch, n_in).
        order: which node reads which.
        dt: the step, in the model's unit of time; None is dt = tau, for every unit its own.
        x0: what a node without predecessors reads, in its first slot, (*batch, ...); None is the initial state.

    Returns:
        States and outputs in the nodes' own numbering. A state that overflows on the way is in them as it is.

    Raises:
        TypeError: the model has no target to relax to; `order` is no Order; inputs, x0 and weights differ in dtype, or
            x0 is no state of the model.
        ValueError: as many inputs as nodes are needed; the nodes read more than the model can; dt is not positive, or
            longer than tau; the batch is empty, or not that of x0; something holds NaN or infinite values.
    """
    _check(model, inputs, order, dt)
    start, batch = check.start(model, inputs.shape[1:-1], x0, "the input")
    check.tensors(model, start, {"the input": inputs})
    if inputs.ndim == 2:  # one input for all samples of x0
        inputs = inputs.reshape(len(inputs), *[1] * len(batch), -1).expand(-1, *batch, -1)
    first = tree.map(lambda leaf: leaf.unsqueeze(0), start)
    alpha: Any = 1 if dt is None else Euler().prepare(model, dt)
    if dt is not None and model.clock is not None:
        alpha = tree.map(lambda period, rate: rate if period is None else 1, model.clock, alpha)
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
    if not isinstance(order, Order):
        raise TypeError(f"order must be an Order, got a {type(order).__name__}: Order(predecessors) makes one.")
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs must be a Tensor (node, *batch, input), got a {type(inputs).__name__}.")
    n_in = inputs.shape[-1:] if model.n_in is None else (model.n_in,)  # a wrapped cell may not say
    if inputs.ndim < 2 or len(inputs) != len(order) or inputs.shape[-1:] != n_in:
        raise ValueError(
            f"inputs must be (node, *batch, input) = ({len(order)}, ..., {model.n_in}), got {tuple(inputs.shape)}: "
            "give every node of the order one row."
        )
    if not check.finite(inputs):
        wrong = check.where(~torch.isfinite(inputs).all(-1), "(node, *batch) = ")
        raise ValueError(f"inputs hold NaN or infinite values, {wrong}: fill them.")
    arity = model.arity if isinstance(model, Joining) else 1
    if arity is not None and order.arity > arity:
        raise ValueError(
            f"nodes of this order have up to {order.arity} predecessors, {type(model).__name__} reads {arity}: "
            "build it with a larger arity, or use a model that has target_of, such as ChildSumTreeLSTM."
        )
    if dt is not None:
        check_duration("dt", dt)
        check.within_tau(model, dt, "Take dt <= tau, or leave it out for dt = tau.")
