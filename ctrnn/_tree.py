"""States as trees: the only code that knows how a state is built from Tensors.

A tree is a Tensor or a tuple of trees (a NamedTuple keeps its type). `torch.utils._pytree` is private and costs several
microseconds a call on a bare Tensor; these few lines cost less than one and are traced by Dynamo.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ctrnn._types import Scalar, State


def build(like: tuple[Any, ...], items: Sequence[Any]) -> Any:
    """A tuple of the type of `like`, NamedTuple or plain, holding `items`."""
    return type(like)(*items) if hasattr(like, "_fields") else tuple(items)


def map(fn: Callable[..., Any], x: Any, *rest: Any) -> Any:
    """`fn` on every Tensor of `x` and on the matching parts of `rest`; the result has the structure of `x`."""
    if not isinstance(x, tuple):
        return fn(x, *rest)
    return build(x, [map(fn, part, *others) for part, *others in zip(x, *rest, strict=True)])


def leaves(x: State) -> list[Tensor]:
    """The Tensors of a state, depth first."""
    return [x] if not isinstance(x, tuple) else [leaf for part in x for leaf in leaves(part)]


def unflatten(like: State, items: Sequence[Any]) -> Any:
    """The inverse of `leaves`: a tree built like `like` from its leaves in order."""
    rest = iter(items)
    return map(lambda _: next(rest), like)


def named(x: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs (dotted name, leaf); a bare Tensor is called "" and the parts of a plain tuple are numbered."""
    if not isinstance(x, tuple):
        yield prefix, x
        return
    for name, part in zip(getattr(x, "_fields", range(len(x))), x, strict=True):
        yield from named(part, f"{prefix}.{name}" if prefix else str(name))


def spread(value: Any, like: State) -> Any:
    """`value` itself if it is a tree, else a tree like `like` with `value` at every leaf."""
    return value if isinstance(value, tuple) or not isinstance(like, tuple) else map(lambda _: value, like)


def pick(x: Any, rows: Tensor) -> Any:
    """The given rows of every Tensor in a tree."""
    return map(lambda leaf: leaf if leaf is None else leaf.index_select(0, rows), x)


def add(x: Any, change: Any, scale: Any) -> Any:
    """x + scale * change, for one scale or one per sample."""
    if isinstance(x, tuple):
        return map(lambda leaf, part: add(leaf, part, scale), x, change)
    if isinstance(scale, Tensor):
        return torch.addcmul(x, _per_leaf(scale, x), change)
    return torch.add(x, change, alpha=scale)


def blend(x: State, target: State, alpha: Any) -> State:
    """lerp(x, F, alpha), with one alpha or one for each part.

    A number 0 gives exactly x and 1 exactly F, infinities included (`torch.lerp(inf, F, 1)` is NaN).

    Raises:
        TypeError, ValueError: F has other parts or another shape than x.
    """
    same_form(x, target, "target")
    return map(_lerp, x, target, spread(alpha, x)) if isinstance(x, tuple) else _lerp(x, target, alpha)


def _lerp(x: Tensor, target: Any, alpha: Any) -> Tensor:
    if isinstance(alpha, Tensor):
        return torch.lerp(x, target, per_leaf(alpha, x))
    if alpha in (0, 1):
        return target if alpha else x
    return torch.lerp(x, target, alpha)


def same_form(x: State, new: Any, what: str) -> None:
    """Raise unless `new` has the parts and shapes of x; torch would broadcast one and fail obscurely at the other."""
    if isinstance(x, tuple):
        if not isinstance(new, tuple) or len(new) != len(x):
            form = f"{type(new).__name__}" if not isinstance(new, tuple) else f"{len(new)} parts"
            raise TypeError(f"The model's {what} must have the {len(x)} parts of its {type(x).__name__}, got {form}.")
        for part, other in zip(x, new, strict=True):
            same_form(part, other, what)
        return
    if not isinstance(new, Tensor):
        raise TypeError(f"The model's {what} must be a Tensor like its state, got {type(new).__name__}.")
    if new.shape != x.shape:
        shapes = f"the shape {tuple(new.shape)}, its state {tuple(x.shape)}"
        raise ValueError(f"The model's {what} has {shapes}: make them equal.")


def per_leaf(value: Scalar, leaf: Tensor) -> Scalar:
    """A value per sample (*batch, 1) shaped to multiply `leaf` (*batch, *event); a Tensor comes in its dtype."""
    return _per_leaf(value, leaf) if isinstance(value, Tensor) else value


def _per_leaf(value: Tensor, leaf: Tensor) -> Tensor:
    if value.ndim > 1 and value.shape[-1] == 1:
        value = value.reshape(value.shape[:-1] + (1,) * (leaf.ndim - value.ndim + 1))
    return value if value.dtype == leaf.dtype else value.to(leaf.dtype)


def ravel(x: State, batch_ndim: int) -> Tensor:
    """All parts of a state side by side: (*batch, D)."""
    parts = [leaf.flatten(batch_ndim) if leaf.ndim > batch_ndim else leaf.unsqueeze(-1) for leaf in leaves(x)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def unravel(flat: Tensor, like: State, batch_ndim: int) -> State:
    """The inverse of `ravel`; `like` gives the parts' shapes behind their batch axes, `flat` (*batch, D) the batch."""
    events = [leaf.shape[batch_ndim:] for leaf in leaves(like)]
    parts = flat.split([event.numel() for event in events], -1)
    return unflatten(like, [part.reshape(flat.shape[:-1] + event) for part, event in zip(parts, events, strict=True)])
