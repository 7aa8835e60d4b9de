"""What the pairs of autograd Functions over compiled runs share: vmap, second derivatives, gradients of a drive."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, ClassVar, NoReturn

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ctrnn.native.schedule import Schedule

Maybe = Tensor | None


class OfRuns(torch.autograd.Function):
    """A Function (settings, tensors) over whole runs; under vmap it makes a run for each entry.

    What surrounds a run costs little beside it, and each entry may have weights of its own.
    """

    settings: ClassVar[int] = 1  # how many of the first arguments are no Tensors

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        forward: Any = cls.forward
        forward.__signature__ = signature(forward)  # torch reads it in every call, which takes longer than a short run

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        fixed, tensors, dims = args[: cls.settings], args[cls.settings :], in_dims[cls.settings :]

        def entry(k: int) -> list[Maybe]:
            return [t if t is None or d is None else t.select(d, k) for t, d in zip(tensors, dims, strict=True)]

        columns = list(zip(*[cls.apply(*fixed, *entry(k)) for k in range(info.batch_size)], strict=True))
        outputs = tuple(None if column[0] is None else torch.stack(column) for column in columns)
        return outputs, tuple(None if output is None else 0 for output in outputs)

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Any) -> NoReturn:
        """Compiled runs have no forward mode; the time loop takes the plain path where one is asked for."""
        del ctx, tangents
        raise NotImplementedError(
            "compiled runs have no forward mode (jvp, jacfwd, hessian) under this transform: use `with ctrnn.plain():`."
        )


class Pullback(OfRuns):
    """(plan, which inputs are wanted, gradients of the run's outputs, its inputs, rest) -> gradients of the inputs.

    Its own derivative is that of the same run in plain torch.
    """

    settings = 2
    outputs: ClassVar[int]  # of the run, those that have gradients

    @staticmethod
    def plain(plan: Any, *inputs: Maybe) -> tuple[Tensor, ...]:
        """The run in plain torch."""
        raise NotImplementedError

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Maybe, ...]) -> None:
        del output
        ctx.plan, ctx.wanted, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @classmethod
    def backward(cls, ctx: Any, *twice: Maybe) -> tuple[Maybe, ...]:
        run = lambda *inputs: cls.plain(ctx.plan, *inputs)
        return None, None, *second(run, ctx.wanted, ctx.needs_input_grad[2:], twice, ctx.saved_tensors, cls.outputs)


def second(
    run: Callable[..., tuple[Tensor, ...]],
    wanted: Sequence[bool],
    needed: Sequence[bool],
    twice: Sequence[Maybe],
    tensors: Sequence[Maybe],
    outputs: int,
) -> list[Maybe]:
    """What comes back through a pullback: gradients for (gradients of the run's outputs, inputs of the run, rest).

    Both derivatives are those of `run`, the same run in plain torch. What the pullback was given beyond the inputs is
    computed from them, and has no gradient of its own.
    """
    last = outputs + len(wanted)
    moving = [i for i, flag in enumerate(needed[:last]) if flag]
    where = [i for i, flag in enumerate(wanted) if flag]

    def pulled(*moved: Tensor) -> tuple[Tensor, ...]:
        full = placed(tensors[:last], moving, moved)
        inputs = full[outputs:]
        made: Any = torch.func.vjp(lambda *some: run(*placed(inputs, where, some)), *[inputs[i] for i in where])
        ends, pull = made
        seeds = zip(full[:outputs], ends, strict=True)
        return pull(tuple(torch.zeros_like(end) if seed is None else seed for seed, end in seeds))

    made: Any = torch.func.vjp(pulled, *[tensors[i] for i in moving])
    found, pull = made
    seeds = zip([twice[i] for i in where], found, strict=True)
    back = pull(tuple(torch.zeros_like(value) if seed is None else seed for seed, value in seeds))
    return placed([None] * len(tensors), moving, back)


def linear(u: Tensor, W: Maybe, b: Maybe) -> Tensor:
    """W u + b in plain torch, without what is not there."""
    if W is not None:
        return F.linear(u, W, b)
    return u if b is None else u + b


def readable(inputs: Any) -> Any:
    """A NamedTuple of Tensors as a kernel reads them; broadcast rows and intervals of the drive stay as they are."""
    drive = inputs.drive.resolve_neg()
    rest = [None if value is None or value is inputs.drive else value.resolve_neg().contiguous() for value in inputs]
    return type(inputs)(*rest)._replace(drive=drive if drive.stride(-1) == 1 else drive.contiguous())


def placed(items: Sequence[Any], where: Sequence[int], new: Sequence[Any]) -> list[Any]:
    """The items with new ones at the given places."""
    result = list(items)
    for i, item in zip(where, new, strict=True):
        result[i] = item
    return result


def _into_drive(
    delta: Float[Tensor, "stage step row unit"], shape: torch.Size, schedule: Schedule
) -> Float[Tensor, "coefficient interval #row unit"]:
    """Gradients of the drive's value in every stage as those of its coefficients on every interval."""
    each = _by_power(delta, shape[0], schedule)
    intervals, rows = shape[1:3]
    if rows != each.shape[2]:
        each = each.sum(2, keepdim=True)
    if schedule.interval is not None and intervals > 1:
        return each.new_zeros(*shape[:3], each.shape[3]).index_add(1, schedule.interval, each)
    return each if intervals == each.shape[1] else each.sum(1, keepdim=True)


def _by_power(delta: Tensor, coefficients: int, schedule: Schedule) -> Tensor:
    held = delta[0] if len(delta) == 1 else delta.sum(0)
    if coefficients == 1:
        return held[None]
    assert schedule.begin is not None
    assert schedule.width is not None
    nodes = delta.new_tensor((0.0,) if schedule.tableau is None else schedule.tableau.c, dtype=torch.float64)
    s = (schedule.begin + nodes[:, None] * schedule.width).to(delta.dtype)
    return torch.stack([held, *[torch.einsum("st,stru->tru", s**power, delta) for power in range(1, coefficients)]])


def into_inputs(
    delta: Float[Tensor, "stage step row unit"] | None, inputs: Any, schedule: Schedule, wanted: Sequence[bool]
) -> list[Maybe]:
    """Gradients of a run's drive u, of W_in and of b, those that are wanted, from that of W_in u + b in every stage."""
    if delta is None:
        return [None, None, None]
    us, W_in = inputs.drive, inputs.W_in
    v = _into_drive(delta, us.shape, schedule)
    flat = v.reshape(-1, v.shape[-1])
    return [
        None if not wanted[0] else v if W_in is None else v @ W_in,
        flat.T @ us.reshape(len(flat), us.shape[-1]) if wanted[1] else None,
        v[0].flatten(0, 1).sum(0) if wanted[2] else None,
    ]


def drive_at(drive: Tensor, schedule: Schedule, step: int, c: float) -> Float[Tensor, "#row unit"]:
    """The drive's value in a stage, in plain torch."""
    interval = step if schedule.interval is None else int(schedule.interval[step])
    pieces = drive[:, interval if drive.shape[1] > 1 else 0]
    if schedule.begin is None or schedule.width is None:
        return pieces[0]
    s = float(schedule.begin[step] + c * schedule.width[step])
    value = pieces[-1]
    for piece in pieces.flip(0)[1:]:
        value = piece + s * value
    return value


def plain_run(
    target: Callable[[Tensor, Tensor], Tensor],
    schedule: Schedule,
    x: Float[Tensor, "row unit"],
    drive: Float[Tensor, "coefficient interval #row input"],
    rates: Float[Tensor, "kind unit"],
    kicks: Float[Tensor, "step row unit"] | None,
) -> tuple[Float[Tensor, "slot row unit"], Float[Tensor, "row unit"]]:
    """A compiled run in plain torch, of target(x, value of the drive): what second derivatives differentiate."""
    saved = []
    for k in range(schedule.steps):
        rate = rates[0 if schedule.kind is None else int(schedule.kind[k])]
        new = _step(target, schedule, x, drive, rate, k)
        if kicks is not None:
            new = new + kicks[k]
        if schedule.count is not None:
            new = torch.where(schedule.count[:, None] > k, new, x)
        x = new
        if schedule.keep is None or schedule.keep[k] >= 0:
            saved.append(x)
    return torch.stack(saved) if saved else x.new_empty(0, *x.shape), x


def _step(target: Any, schedule: Schedule, x: Tensor, drive: Tensor, rate: Tensor, k: int) -> Tensor:
    if schedule.tableau is None:
        return torch.lerp(x, target(x, drive_at(drive, schedule, k, 0.0)), rate)
    slopes: list[Tensor] = []
    for c, row in zip(schedule.tableau.c, schedule.tableau.a, strict=True):
        here = x + sum((w * s for w, s in zip(row, slopes, strict=True)), start=torch.zeros_like(x))
        slopes.append((target(here, drive_at(drive, schedule, k, c)) - here) * rate)
    return x + sum((w * s for w, s in zip(schedule.tableau.b, slopes, strict=True)), start=torch.zeros_like(x))
