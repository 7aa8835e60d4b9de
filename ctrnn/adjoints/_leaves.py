"""A run as a pure function of the Tensors in it, whole or cut into parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import debug_unwrap, functional_call
from torch.overrides import TorchFunctionMode

from ctrnn import _tree as tree
from ctrnn._columns import Column, Same, counted_from
from ctrnn._derivative import moves
from ctrnn._march import Source, march
from ctrnn._model_files import class_name
from ctrnn._types import State
from ctrnn.adjoints.base import Problem
from ctrnn.solvers.base import Step
from ctrnn.steps import Grid, Saved


class Leaves(NamedTuple):
    """Every Tensor on which the states of a run can depend."""

    model: tuple[Tensor, ...]  # parameters and buffers
    x0: State
    drive: tuple[Tensor, ...]  # coefficients (interval, *batch, input)
    silence: Tensor
    times: tuple[Tensor, ...]  # whatever in the grid requires a gradient, step by step
    sigma: tuple[Tensor, ...]  # noise


class _March(nn.Module):
    """The time loop as a module, for `functional_call`."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step

    def forward(self, *args: Any) -> tuple[State, State]:
        return march(self.step, *args)


@dataclass(frozen=True, eq=False)
class Run:
    """What remains of a problem without its leaves; of leaves it makes the state at the end and the saves."""

    problem: Problem
    loop: _March
    names: tuple[str, ...]
    moving: Sequence[tuple[bool, ...]]  # for each step, which of its `_times` are leaves

    def bound(self, leaves: Leaves) -> Problem:
        """The problem with these leaves, except for the model's own tensors."""
        noise, source = self.problem.noise, Source(leaves.drive, self.problem.source.function, leaves.silence)
        if noise is not None:
            given = iter(leaves.sigma)
            sigma = tree.map(lambda s: next(given) if isinstance(s, Tensor) else s, noise.sigma)
            # Fresh zeros: those of the problem may belong to a transform that does not reach in here.
            like = tree.map(lambda z: torch.zeros(z.shape, dtype=z.dtype, device=z.device), noise.shapes)
            noise = noise._replace(sigma=sigma, shapes=like)
        grid = _with_times(self.problem.grid, self.moving, leaves.times)
        return self.problem._replace(grid=grid, x0=leaves.x0, source=source, noise=noise)

    def __call__(self, leaves: Leaves) -> tuple[State, State]:
        problem, weights = self.bound(leaves), dict(zip(self.names, leaves.model, strict=True))
        return functional_call(self.loop, weights, (problem.grid, problem.x0, problem.source, problem.noise))

    def part(self, start: int, stop: int, leaves: Leaves) -> tuple["Run", Leaves, "Window"]:
        """Steps start to stop - 1, and what they need of the leaves; x0 is to be replaced."""
        problem = self.problem
        window, drive = _window(problem.grid, start, stop, leaves.drive)
        grid = problem.grid.part(start, stop)._replace(interval=window.interval)
        noise = None if problem.noise is None else problem.noise._replace(offset=problem.noise.offset + start)
        run = replace(self, problem=problem._replace(grid=grid, noise=noise), moving=self.moving[start:stop])
        times = leaves.times[self._before[start] : self._before[stop]] if leaves.times else ()
        return run, leaves._replace(drive=drive, times=times), window

    @cached_property
    def _before(self) -> list[int]:
        return [0, *accumulate(map(sum, self.moving))]


def taken_out(problem: Problem) -> tuple[Run, Leaves]:
    """A problem as a function, and the leaves at which it is to be taken."""
    loop = _March(problem.step)
    named = {**dict(loop.named_parameters()), **dict(loop.named_buffers())}
    moving, times = _moving(problem.grid)
    sigma = () if problem.noise is None else tree.leaves(problem.noise.sigma)
    leaves = Leaves(
        tuple(named.values()),
        problem.x0,
        problem.source.coefficients,
        problem.source.silence,
        tuple(times),
        tuple(s for s in sigma if isinstance(s, Tensor)),
    )
    return Run(problem._replace(grid=_plain(problem.grid)), loop, tuple(named), moving), leaves


def _moving(grid: Grid) -> tuple[Sequence[tuple[bool, ...]], list[Tensor]]:
    """Which of the times of each step require a gradient, and these."""
    if all(isinstance(column, Column) for column in (grid.t, grid.dt, grid.begin, grid.width, grid.saved)):
        return Column(Same(()), range(grid.steps)), []
    moving = [tuple(map(moves, _times(grid, k))) for k in range(grid.steps)]
    return moving, [v for k, flags in enumerate(moving) for v, f in zip(_times(grid, k), flags, strict=True) if f]


def _plain(grid: Grid) -> Grid:
    """The grid without the wrappers of torch.func on what has no gradient: the adjoints take it to other levels."""

    def plain(value: Any) -> Any:
        if not isinstance(value, Tensor) or moves(value):
            return value
        inner = debug_unwrap(value)
        return inner if inner.shape == value.shape else value  # what vmap maps stays mapped

    def items(saved: tuple[Saved, ...]) -> tuple[Saved, ...]:
        return tuple(Saved(plain(item.rows), plain(item.theta)) for item in saved)

    columns: dict[str, Any] = {
        name: column if isinstance(column, Column) else list(map(items if name == "saved" else plain, column))
        for name, column in grid._asdict().items()
        if name in ("t", "dt", "interval", "begin", "width", "saved")
    }
    return grid._replace(order=plain(grid.order), **columns)


def check_closed(run: Run, leaves: Leaves, again: bool = True) -> None:
    """Try one step with all leaves detached; `again` says that the adjoint evaluates the model more than once.

    Raises:
        ValueError: the new state still requires a gradient: the model, or a `Function` drive, uses a Tensor that is not
            among the leaves; or one of them differentiates while it runs, or draws random numbers although it is to
            run again.
    """
    still = tree.map(Tensor.detach, leaves)
    first, needed, _ = run.part(0, 1, still)
    function, device = run.problem.source.function, leaves.silence.device
    if function is not None:
        t = torch.as_tensor(run.problem.grid.t[0], dtype=torch.float64, device=device).detach().reshape(-1)[0]
        tried = probe(lambda: function(t), device)
        _check_tried(tried, "The Function drive", again)
        if tried.result.requires_grad:
            raise ValueError(
                "The Function drive uses a Tensor that requires a gradient, which only Backprop sees: make it a "
                "Parameter or buffer of the model, give the drive as samples (Held, Linear, Cubic), or use "
                "adjoint=Backprop()."
            )
    name = class_name(run.problem.step.model)
    tried = probe(lambda: first(needed)[0], device)
    _check_tried(tried, name, again)
    if any(leaf.requires_grad for leaf in tree.leaves(tried.result)):
        raise ValueError(
            f"{name} uses a Tensor that requires a gradient and is neither its "
            "parameter nor its buffer, which only Backprop sees: make it an nn.Parameter or register_buffer(...) of "
            "the model (and stay out of parametrize.cached()), or use adjoint=Backprop()."
        )


class Probe(NamedTuple):
    """What a call returned, and what it did besides."""

    result: Any
    draws: bool  # random numbers
    differentiates: bool


def probe(call: Callable[[], Any], device: torch.device) -> Probe:
    """Try a call, with gradients; torch's random numbers are left as they were."""
    on = [] if device.type == "cpu" else [torch.get_device_module(device)]
    with torch.random.fork_rng([device] if on else [], device_type=device.type if on else "cuda"):
        before = [torch.get_rng_state(), *[module.get_rng_state(device) for module in on]]
        with torch.enable_grad(), _Watch() as watch:
            result = call()
        after = [torch.get_rng_state(), *[module.get_rng_state(device) for module in on]]
    return Probe(result, not all(map(torch.equal, before, after)), watch.asked)


class _Watch(TorchFunctionMode):
    """Sees whether a Tensor is made to require a gradient, as one does before torch.autograd.grad."""

    asked = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.requires_grad_, Tensor.requires_grad.__set__):  # type: ignore[attr-defined]
            self.asked |= debug_unwrap(args[0]) is args[0]  # torch.func does so too, with Tensors of its own
        return func(*args, **(kwargs or {}))


def _check_tried(tried: Probe, who: str, again: bool) -> None:
    if tried.differentiates:
        raise ValueError(
            f"{who} differentiates while it runs (requires_grad_, torch.autograd.grad), which only Backprop can "
            "follow: use adjoint=Backprop(), or torch.func.grad there."
        )
    if tried.draws and again:
        raise ValueError(
            f"{who} draws random numbers, which a repeated run would draw anew: use adjoint=Backprop(), model.eval() "
            "where it is dropout that draws, or integrate's noise=."
        )


def _times(grid: Grid, k: int) -> tuple[Any, ...]:
    return grid.t[k], grid.dt[k], grid.begin[k], grid.width[k], *(item.theta for item in grid.saved[k])


def _with_times(grid: Grid, moving: Sequence[tuple[bool, ...]], times: tuple[Tensor, ...]) -> Grid:
    if not times:
        return grid
    rest = iter(times)
    t: list[Any] = []
    dt: list[Any] = []
    begin: list[Any] = []
    width: list[Any] = []
    saved = []
    for k, flags in enumerate(moving):
        values = [next(rest) if flag else v for v, flag in zip(_times(grid, k), flags, strict=True)]
        for column, value in zip((t, dt, begin, width), values[:4], strict=True):
            column.append(value)
        saved.append(tuple(item._replace(theta=v) for item, v in zip(grid.saved[k], values[4:], strict=True)))
    return grid._replace(t=t, dt=dt, begin=begin, width=width, saved=saved)


@dataclass(frozen=True, eq=False)
class Window:
    """The intervals of the drive that some steps see: from which on, for all samples or each (sample,), and how many.

    `interval` holds those of the steps, counted from there.
    """

    first: Any
    count: int
    interval: Sequence[Any]

    def index(self, intervals: int) -> tuple[Tensor, Tensor]:
        """Where (interval, sample) each entry of the window lies, if each sample has its own."""
        sample = torch.arange(len(self.first), device=self.first.device)
        rows = self.first + torch.arange(self.count, device=self.first.device)[:, None]
        return rows.clamp(max=intervals - 1), sample


def _window(grid: Grid, start: int, stop: int, drive: tuple[Tensor, ...]) -> tuple[Window, tuple[Tensor, ...]]:
    interval = grid.interval[start:stop]
    if not isinstance(interval[0], Tensor):
        first = interval[0]
        window = Window(first, interval[-1] + 1 - first, counted_from(interval, first))
        return window, tuple(c[window.first : window.first + window.count] for c in drive)
    assert grid.order is not None
    # A step moves a sample on by one interval at most, so that the window is never longer than the steps are many.
    own = interval[0]
    local = [i - own[: len(i)] for i in interval]
    first = own.new_zeros(len(grid.order)).index_copy(0, grid.order[: len(own)], own)
    window = Window(first, int(torch.stack([i.max() for i in local]).max()) + 1, local)
    return window, tuple(c[window.index(c.shape[0])] for c in drive)
