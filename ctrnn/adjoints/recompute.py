"""Exact gradients in the memory of a few states: the run is repeated in segments while it is differentiated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from math import isqrt
from typing import Any, NoReturn

import torch
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._march import after_start, apart, march
from ctrnn._types import State
from ctrnn.adjoints._leaves import Leaves, Run, Window, check_closed, taken_out
from ctrnn.adjoints._revolve import spine, split
from ctrnn.adjoints.base import Adjoint, Problem
from ctrnn.steps import Grid


@dataclass(frozen=True)
class Recompute(Adjoint):
    """Reverse-mode through every step, equal to `Backprop` to rounding, in the memory of about sqrt(T) steps of T.

    The run is cut into about sqrt(T) segments of as many steps. Only states at which segments start are kept;
    backwards, each segment is run again with its graph. Noise is drawn again as it was. Gradients reach parameters,
    buffers, x0, the drive's values, times and sigma; second derivatives are right but repeat the whole run without the
    saving. Works under torch.func.grad, jacrev and, on fixed steps, vmap.

    Args:
        snapshots: how many segment starts are kept, x0 included; None keeps them all. With fewer, segments are repeated
            more often, by the offline-optimal schedule of Griewank & Walther (2000). Where a run saves the whole state
            at the start of a segment, that state is kept in any case.

    Raises:
        ValueError: the model, or a `Function` drive, uses a Tensor that requires a gradient and is neither parameter
            nor buffer of the model, differentiates while it runs, or draws random numbers (seen in one trial step, if
            they are torch's own).
        NotImplementedError: forward mode (jvp, jacfwd, hessian): use `Backprop` or `Forward`.
    """

    snapshots: int | None = None

    def __post_init__(self) -> None:
        if self.snapshots is not None and not (isinstance(self.snapshots, int) and self.snapshots >= 1):
            raise ValueError(f"Recompute: snapshots must be at least 1 (x0 itself), or None, got {self.snapshots!r}.")

    def run(self, problem: Problem) -> State:
        grid = problem.grid
        if not torch.is_grad_enabled() or not any(grid.sizes()):
            return march(problem.step, grid, problem.x0, problem.source, problem.noise, problem.progress)[1]
        run, leaves = taken_out(problem._replace(grid=grid._replace(initial=False)))
        check_closed(run, leaves)
        plan = _Plan(run, tree.map(lambda _: 0, leaves), *_layout(grid, self.snapshots))
        saves = tree.unflatten(problem.x0, _Rerun.apply(plan, *tree.leaves(leaves))[: plan.width])
        return after_start(problem.x0, saves, grid)


def _layout(grid: Grid, snapshots: int | None) -> tuple[list[int], list[tuple[int, int]]]:
    """The steps with which segments begin and the last ends; and which starts are kept, with slots up to the next."""
    steps = len(grid.dt)
    count = -(-steps // isqrt(steps))
    bounds = [i * steps // count for i in range(count + 1)]
    if snapshots is None:
        return bounds, [(i, 1) for i in range(count)]
    free = [
        0,
        *[i for i in range(1, count) if any(s.rows is None and s.theta is None for s in grid.saved[bounds[i] - 1])],
    ]
    last = free.pop()
    return bounds, [(i, snapshots) for i in free] + [(last + i, slots) for i, slots in spine(count - last, snapshots)]


@dataclass(frozen=True, eq=False)
class _Plan:
    """A run, the structure of its leaves, its segments and what is kept."""

    run: Run
    like: Leaves
    bounds: list[int]
    kept: list[tuple[int, int]]

    @property
    def width(self) -> int:
        """Tensors of a state."""
        return len(tree.leaves(self.run.problem.x0))

    @cached_property
    def lengths(self) -> list[int]:
        """Of what each segment saves, along the leading axis of the saves."""
        per_step = self.run.problem.grid.sizes()
        return [sum(per_step[a:b]) for a, b in pairwise(self.bounds)]

    @cached_property
    def sizes(self) -> list[int]:
        """Of each state kept besides x0, along the leading axis of their block."""
        live = self.run.problem.grid.live
        return [1 if live is None else live[self.bounds[i] - 1] for i, _ in self.kept[1:]]

    @property
    def rows(self) -> bool:
        """Whether samples are rows."""
        return self.run.problem.grid.live is not None

    def segment(self, i: int, leaves: Leaves, x: State) -> tuple[Run, Leaves, Window]:
        run, needed, window = self.run.part(self.bounds[i], self.bounds[i + 1], leaves)
        return run, needed._replace(x0=x), window

    def advance(self, leaves: Leaves, x: State, start: int, stop: int) -> State:
        """The state after segments start to stop - 1."""
        for i in range(start, stop):
            run, needed, _ = self.segment(i, leaves, x)
            x, _ = run(needed)
        return x

    def forward(self, leaves: Leaves) -> tuple[State, State]:
        """The states saved, and those kept, each side by side along a leading axis."""
        x, progress, steps = leaves.x0, self.run.problem.progress, self.bounds[-1]
        # Room for all before the first segment: a small Tensor made after one and kept would lie in the memory that the
        # segment leaves free, so that the next segment's large ones need fresh memory.
        saves, kept = (_room(leaves, sum(lengths), self.rows) for lengths in (self.lengths, self.sizes))
        places = dict(zip([i for i, _ in self.kept[1:]], apart(kept, self.sizes, self.rows), strict=True))
        for i, part in enumerate(apart(saves, self.lengths, rows=True)):
            if i in places:
                tree.map(Tensor.copy_, places[i], x)
            run, needed, _ = self.segment(i, leaves, x)
            x, more = run(needed)
            tree.map(Tensor.copy_, part, more)
            if progress is not None:
                progress(self.bounds[i + 1] / steps)
        return saves, kept


def _room(leaves: Leaves, length: int, rows: bool) -> State:
    """Room for states side by side along a leading axis; inside vmap, mapped by all that maps any of the leaves."""
    mapped = reduce(torch.add, [leaf.new_zeros((), dtype=torch.int) for leaf in tree.leaves(leaves)])
    return tree.map(
        lambda leaf: mapped.new_empty(length, *leaf.shape[rows:], dtype=leaf.dtype, device=leaf.device), leaves.x0
    )


class _Rerun(torch.autograd.Function):
    """(leaves) -> (states saved, states kept)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(plan: _Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        saves, kept = plan.forward(tree.unflatten(plan.like, tensors))
        return tuple(tree.leaves((saves, kept)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.plan, *tensors = inputs
        ctx.mark_non_differentiable(*output[ctx.plan.width :])
        ctx.save_for_backward(*tensors, *output[ctx.plan.width :])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [i for i, flag in enumerate(ctx.needs_input_grad[1:]) if flag]
        found = _Pullback.apply(ctx.plan, wanted, *grads[: ctx.plan.width], *ctx.saved_tensors)
        return None, *_placed(found, wanted, len(ctx.needs_input_grad) - 1)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        del ctx, tangents
        _no_forward_mode()


class _Pullback(torch.autograd.Function):
    """(gradients of the states saved, leaves, states kept) -> gradients of the wanted leaves.

    Itself differentiable, by the whole run at once.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(plan: _Plan, wanted: list[int], *tensors: Tensor) -> tuple[Tensor, ...]:
        grads, leaves, kept = _parts(plan, tensors)
        flags = tree.unflatten(plan.like, [i in set(wanted) for i in range(len(leaves))])
        states = apart(tree.unflatten(plan.run.problem.x0, kept), plan.sizes, plan.rows)
        saves = tree.unflatten(plan.run.problem.x0, grads)
        reverse = _Reverse(plan, tree.unflatten(plan.like, leaves), flags, saves)
        stop = len(plan.bounds) - 1
        for (start, slots), x in zip(plan.kept[::-1], [reverse.leaves.x0, *states][::-1], strict=True):
            reverse(x, start, stop, slots)
            stop = start
        found = tree.leaves(reverse.total())
        return tuple(found[i] for i in wanted)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        del output
        ctx.plan, ctx.wanted, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *twice: Tensor) -> tuple[Tensor | None, ...]:
        plan, wanted = ctx.plan, ctx.wanted
        grads, leaves, kept = _parts(plan, ctx.saved_tensors)
        given = [*grads, *leaves]
        moving = [i for i, flag in enumerate(ctx.needs_input_grad[2 : 2 + len(given)]) if flag]

        def pullback(*moved: Tensor) -> tuple[Tensor, ...]:
            full = _with(given, moving, moved)

            def run(*chosen: Tensor) -> tuple[Tensor, ...]:
                _, saved = plan.run(tree.unflatten(plan.like, _with(full[plan.width :], wanted, chosen)))
                return tuple(tree.leaves(saved))

            pull: Any = torch.func.vjp(run, *[full[plan.width + i] for i in wanted])[1]
            return pull(tuple(full[: plan.width]))

        pull: Any = torch.func.vjp(pullback, *[given[i] for i in moving])[1]
        return None, None, *_placed(pull(twice), moving, len(given) + len(kept))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        del ctx, tangents
        _no_forward_mode()


def _parts(plan: _Plan, tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
    end = plan.width + len(tree.leaves(plan.like))
    return tensors[: plan.width], tensors[plan.width : end], tensors[end:]


def _with(items: Sequence[Any], where: Sequence[int], new: Sequence[Any]) -> list[Any]:
    result = list(items)
    for i, item in zip(where, new, strict=True):
        result[i] = item
    return result


def _placed(found: Sequence[Tensor], where: Sequence[int], count: int) -> list[Tensor | None]:
    return _with([None] * count, where, found)


def _no_forward_mode() -> NoReturn:
    raise NotImplementedError(
        "Recompute has no forward mode (jvp, jacfwd, hessian): use adjoint=Backprop() or adjoint=Forward()."
    )


class _Reverse:
    """The way back through the segments, with the gradients of the present state and of the leaves found so far."""

    def __init__(self, plan: _Plan, leaves: Leaves, wanted: Any, grads: State) -> None:
        self.plan, self.leaves, self.wanted = plan, leaves, wanted
        self.grads = apart(grads, plan.lengths, rows=True)
        self.state: State | None = None
        self.shared: list[Tensor] | None = None  # of parameters, buffers and sigma
        self.times: tuple[Tensor, ...] = ()
        self.drive: list[tuple[Window, tuple[Tensor, ...]]] = []

    def __call__(self, x: State, start: int, stop: int, slots: int) -> None:
        """Segments stop - 1 down to start, from the state x at the start, holding at most `slots` states."""
        if stop - start == 1:
            self.one(start, x)
            return
        middle = start + split(stop - start, slots)
        self(self.plan.advance(self.leaves, x, start, middle), middle, stop, slots - 1)
        self(x, start, middle, slots)

    def one(self, i: int, x: State) -> None:
        run, needed, window = self.plan.segment(i, self.leaves, x)
        shared = [*needed.model, *needed.sigma]
        moved = _chosen(shared, [*self.wanted.model, *self.wanted.sigma])
        drives = _chosen(needed.drive, self.wanted.drive)
        made: Any = torch.func.vjp(self._segment(run, needed), x, moved, drives, needed.times)
        (end, _), pull = made
        state = tree.map(torch.zeros_like, end) if self.state is None else self.state
        self.state, found, drive, times = pull((state, self.grads[i]))
        self.shared = list(found) if self.shared is None else [a + b for a, b in zip(self.shared, found, strict=True)]
        self.times = (*times, *self.times)
        self.drive.append((window, drive))

    def _segment(self, run: Run, needed: Leaves) -> Callable[..., tuple[State, Any]]:
        shared, flags = [*needed.model, *needed.sigma], [*self.wanted.model, *self.wanted.sigma]

        def segment(x: State, moved: tuple[Tensor, ...], drives: tuple[Tensor, ...], times: tuple[Tensor, ...]) -> Any:
            full = _with(shared, _where(flags), moved)
            drive = _with(needed.drive, _where(self.wanted.drive), drives)
            count = len(needed.model)
            part = Leaves(tuple(full[:count]), x, tuple(drive), needed.silence, times, tuple(full[count:]))
            return run(part)

        return segment

    def total(self) -> Leaves:
        """The gradients in the structure of the leaves; 0 where none was wanted."""
        assert self.state is not None
        assert self.shared is not None
        flags = [*self.wanted.model, *self.wanted.sigma]
        shared = _with([0] * len(flags), _where(flags), self.shared)
        count = len(self.wanted.model)
        which = _where(self.wanted.drive)
        drive = [
            _assembled(self.leaves.drive[i], [(window, parts[j]) for window, parts in self.drive[::-1]])
            for j, i in enumerate(which)
        ]
        return Leaves(
            tuple(shared[:count]),
            self.state,
            tuple(_with([0] * len(self.wanted.drive), which, drive)),
            self.leaves.silence,
            self.times,
            tuple(shared[count:]),
        )


def _where(flags: Sequence[bool]) -> list[int]:
    return [i for i, flag in enumerate(flags) if flag]


def _chosen(items: Sequence[Tensor], flags: Sequence[bool]) -> tuple[Tensor, ...]:
    return tuple(item for item, flag in zip(items, flags, strict=True) if flag)


def _assembled(like: Tensor, windows: list[tuple[Window, Tensor]]) -> Tensor:
    """The gradient of all the drive's values from those of the windows, in the order of time."""
    if isinstance(windows[0][0].first, Tensor):
        total = torch.zeros_like(like)
        for window, part in windows:
            total = total.index_put(window.index(like.shape[0]), part, accumulate=True)  # parts may have batch axes
        return total
    # Nothing in place: inside vmap the parts need not have the same batch axes. Neighbours share one interval or none.
    end = windows[0][0].first
    pieces = [like.new_zeros(end, *like.shape[1:])]
    for window, part in windows:
        if window.first < end:
            pieces[-1] = torch.cat([pieces[-1][:-1], pieces[-1][-1:] + part[:1]])
        pieces += [part[end - window.first :]] if window.first + window.count > end else []
        end = window.first + window.count
    return torch.cat([*pieces, like.new_zeros(like.shape[0] - end, *like.shape[1:])])
