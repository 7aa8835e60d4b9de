"""The time loop: a state carried along a frozen grid of steps. Nothing here knows about checks, adjoints or files."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from ctrnn import _tree as tree
from ctrnn._columns import Column, values
from ctrnn._compiled import compiled
from ctrnn._types import Input, State
from ctrnn.drive import Piece
from ctrnn.solvers.base import EmbeddedSolver, Solver, Step
from ctrnn.steps import Grid, Saved

NOISE_CHUNK = 64


class Source(NamedTuple):
    """The drive of a run, resolved before it: a polynomial on each interval, or a function of time, or `silence`."""

    coefficients: tuple[Tensor, ...]  # each (interval, *batch, input); empty for the other two
    function: Callable[[Tensor], Tensor] | None
    silence: Tensor  # (*batch, input)


class Noise(NamedTuple):
    """Normal deviates in chunks of steps, each from a seed of its own: a part of the run draws again what it drew."""

    sigma: Any  # stationary standard deviation, one for each part of the state
    seeds: list[int]
    shapes: State  # zeros of the whole batch
    offset: int = 0  # step of the run with which the grid begins


def march(
    step: Step,
    grid: Grid,
    x: State,
    source: Source,
    noise: Noise | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[State, State]:
    """Carry x along the grid; return the state at its end, and what the grid says to save: `together` in order."""
    kicks = None if noise is None else deviates(noise, grid)
    done = compiled(step, grid, x, source.coefficients, kicks, progress) if source.function is None else None
    if done is not None:
        return done
    solver, model = step.solver, step.solver.read(step.model)
    start, saved = x, [x] if grid.initial else []
    times = instants(grid, tree.leaves(x)[0])
    rows, ready_for, ready, prepared = None, None, None, dict[float, Any]()
    for k, (t, dt, u, items) in enumerate(zip(times, grid.dt, along(source, grid, times), grid.saved, strict=True)):
        if progress is not None and k % 64 == 63:
            progress(k / len(times))
        if grid.live is not None and grid.live[k] != rows:
            rows = grid.live[k]
            x = head(x, rows)
        if dt is not ready_for:
            ready, ready_for = _prepare(solver, model, dt, prepared), dt
        if items and items[-1].theta is not None:  # what lies at the end of a step comes first
            x = _dense_step(solver, model, t, dt, x, u, items, saved)
            continue
        x = solver.step(model, t, dt, x, u, ready)
        if kicks is not None:
            x = kicked(x, next(kicks), solver.diffusion(ready))
        for item in items:
            saved.append(x if item.rows is None else tree.pick(x, item.rows))
    return x, together(saved, start, grid.live is not None)


def together(saved: Sequence[State], like: State, rows: bool) -> State:
    """States as one, with a leading axis of saves; where samples are rows, the rows of all of them one after another.

    Without any the axis is empty.
    """
    if not saved:
        return tree.map(lambda leaf: leaf.detach()[:0] if rows else leaf.detach()[None][:0], like)
    join: Callable[..., Tensor] = torch.cat if rows else torch.stack
    return tree.map(lambda *parts: join(list(parts)), *saved)


def apart(saves: State, sizes: Sequence[int], rows: bool) -> list[State]:
    """The inverse of `together`, for states of these sizes along the leading axis."""
    parts = [leaf.split(sizes) if rows else leaf.unbind(0) for leaf in tree.leaves(saves)]
    return [tree.unflatten(saves, item) for item in zip(*parts, strict=True)]


def after_start(x: State, saves: State, grid: Grid) -> State:
    """Saves with the state x before them, if the grid saves its start."""
    if not grid.initial:
        return saves
    return tree.map(lambda a, b: torch.cat([a if grid.live is not None else a[None], b]), x, saves)


def _prepare(solver: Solver, model: Any, dt: Any, prepared: dict[float, Any]) -> Any:
    if isinstance(dt, Tensor):
        return solver.prepare(model, dt)
    if dt not in prepared:
        prepared[dt] = solver.prepare(model, dt)
    return prepared[dt]


def _dense_step(
    solver: Solver, model: Any, t: Tensor, dt: Any, x: State, u: Input, items: Sequence[Saved], saved: list[State]
) -> State:
    """A step of which states between its ends are saved."""
    assert isinstance(solver, EmbeddedSolver)
    attempt = solver.attempt(model, t, dt, x, u)
    for item in items:
        if item.theta is None:
            saved.append(attempt.x if item.rows is None else tree.pick(attempt.x, item.rows))
        else:
            assert item.rows is not None
            saved.append(solver.interpolate(model, t, dt, x, u, attempt, item.theta, item.rows))
    return attempt.x


def head(x: State, rows: int) -> State:
    """The first rows."""
    return tree.map(lambda leaf: leaf[:rows], x)


def instants(grid: Grid, like: Tensor) -> list[Tensor]:
    """The start of each step: 0-d in float64, which does not promote a state, or (rows, 1) in the state's dtype."""
    if grid.live is not None and grid.t and isinstance(grid.t[0], Tensor) and grid.t[0].ndim > 0:
        return [t.to(like.dtype) for t in grid.t]
    if not isinstance(grid.t, Column) and any(isinstance(t, Tensor) for t in grid.t):
        return [torch.as_tensor(t, dtype=torch.float64, device=like.device) for t in grid.t]
    return list(values(grid.t, torch.float64).to(like.device).unbind(0))


def along(source: Source, grid: Grid, times: list[Tensor]) -> list[Input]:
    """The drive of each step."""
    if not grid.dt:
        return []
    if source.function is not None:
        return [_function(source.function, grid, k, times[k]) for k in range(len(times))]
    if not source.coefficients:
        return [source.silence if grid.live is None else source.silence[: grid.live[k]] for k in range(len(times))]
    columns = [_columns(coefficient, grid) for coefficient in source.coefficients]
    if len(columns) == 1:
        return list(columns[0])
    pieces: list[Any] = [*map(Piece, zip(*columns, strict=True), grid.begin, grid.width)]
    return pieces


def _columns(coefficient: Tensor, grid: Grid) -> list[Tensor]:
    # unbind and one gather, never coefficient[k]: the backward of indexing in a loop is quadratic in its length.
    if isinstance(grid.interval[0], Tensor):
        assert grid.order is not None
        assert grid.live is not None
        samples = torch.cat([grid.order[:n] for n in grid.live])
        return list(coefficient[torch.cat(list(grid.interval)), samples].split(grid.live))
    first, last = min(grid.interval), max(grid.interval)
    values = coefficient[first : last + 1]
    if grid.live is None or grid.order is None:
        each = values.unbind(0)
        return [each[i - first] for i in grid.interval]
    each = values.index_select(1, grid.order).unbind(0)
    return [each[i - first][:n] for i, n in zip(grid.interval, grid.live, strict=True)]


def _function(fn: Callable[[Tensor], Tensor], grid: Grid, k: int, t: Tensor) -> Callable[[float], Tensor]:
    dt = grid.dt[k]
    if grid.live is None or grid.order is None:
        return lambda c: fn(within(t, c, dt))
    order, rows = grid.order, grid.order[: grid.live[k]]

    def rows_of_fn(c: float) -> Tensor:
        # fn may hold values of each sample: it sees the whole batch, with any time where a sample has finished.
        now = within(t, c, dt)
        return fn(now[:1].expand(len(order), 1).index_copy(0, rows, now)).index_select(0, rows)

    return rows_of_fn


def within(t: Tensor, c: float, dt: Any) -> Tensor:
    """The time t + c dt of a stage; at a step's ends a few roundings inside it, so that jumps there stay outside."""
    width = dt.to(t.dtype) if isinstance(dt, Tensor) else dt
    now = t + c * width
    if 0 < c < 1:
        return now
    nudge = 8 * torch.finfo(t.dtype).eps * torch.maximum(t.detach().abs(), (t + width).detach().abs())
    return now + nudge if c == 0 else now - nudge


def deviates(noise: Noise, grid: Grid) -> Iterator[State]:
    """Deviates of standard deviation sigma for each step, in the rows of the grid; one chunk is held at a time."""
    number, chunk = -1, noise.shapes
    for k in range(noise.offset, noise.offset + len(grid.dt)):
        if k // NOISE_CHUNK != number:
            number = k // NOISE_CHUNK
            chunk = _draw(noise, number)
        xi = tree.map(lambda leaf, j=k % NOISE_CHUNK: leaf[j], chunk)
        if grid.live is not None and grid.order is not None:
            xi = tree.pick(xi, grid.order[: grid.live[k - noise.offset]])
        yield xi


def _draw(noise: Noise, chunk: int) -> State:
    first = tree.leaves(noise.shapes)[0]
    generator = Generator(first.device).manual_seed(noise.seeds[chunk])

    def draw(leaf: Tensor, sigma: Any) -> Tensor:
        shape = (NOISE_CHUNK, *leaf.shape)
        return sigma * torch.randn(shape, generator=generator, dtype=leaf.dtype, device=leaf.device)

    return tree.map(draw, noise.shapes, tree.spread(noise.sigma, noise.shapes))


def kicked(x: State, xi: State, scale: Any) -> State:
    """x + scale xi, where scale is one, or one for each part of the state."""
    return tree.map(lambda a, n, w: a + tree.per_leaf(w, a) * n, x, xi, tree.spread(scale, x))


def noise_seeds(steps: int, generator: Generator | None) -> list[int]:
    """One seed for each chunk of steps, from `generator`."""
    device = "cpu" if generator is None else generator.device
    return torch.randint(2**62, (math.ceil(steps / NOISE_CHUNK),), generator=generator, device=device).tolist()
