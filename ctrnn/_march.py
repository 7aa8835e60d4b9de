"""The time loop: a state carried along a frozen grid of steps. Nothing here knows about checks, adjoints or files."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from ctrnn import _tree as tree
from ctrnn._types import Input, State
from ctrnn.drive import Piece
from ctrnn.solvers.base import EmbeddedSolver, Step
from ctrnn.steps import Grid, Saved

NOISE_CHUNK = 64


class Source(NamedTuple):
    """The drive of a run, resolved before it: polynomial coefficients on each interval, or a function of time, or the zeros of `silence`."""

    coefficients: tuple[Tensor, ...]  # each (interval, *batch, input); empty for the other two
    function: Callable[[Tensor], Tensor] | None
    silence: Tensor  # (*batch, input)


class Noise(NamedTuple):
    """Normal deviates in chunks of steps, each chunk drawn from a seed of its own, so that a part of the run draws again what it drew before."""

    sigma: Any  # (part of) the state's standard deviation
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
) -> tuple[State, list[State]]:
    """Carry x along the grid; return the state at its end and the states that the grid says to save, in order."""
    saved = [x] if grid.initial else []
    times = instants(grid, tree.leaves(x)[0])
    inputs = along(source, grid, times)
    kicks = None if noise is None else deviates(noise, grid)
    prepared: dict[float, Any] = {}
    rows = None if grid.live is None else tree.leaves(x)[0].shape[0]
    for k, (t, dt, u) in enumerate(zip(times, grid.dt, inputs, strict=True)):
        if grid.live is not None and grid.live[k] != rows:
            rows = grid.live[k]
            x = head(x, rows)
        ready = _prepare(step, dt, prepared)
        if any(item.theta is not None for item in grid.saved[k]):
            x = _dense_step(step, t, dt, x, u, grid.saved[k], saved)
            continue
        x = step.solver.step(step.model, t, dt, x, u, ready)
        if kicks is not None and noise is not None:
            x = _kick(x, next(kicks), noise.sigma, step.solver.diffusion(ready))
        saved += [x if item.rows is None else pick(x, item.rows) for item in grid.saved[k]]
        if progress is not None and k % 64 == 63:
            progress((k + 1) / len(grid.dt))
    return x, saved


def _prepare(step: Step, dt: Any, prepared: dict[float, Any]) -> Any:
    if isinstance(dt, Tensor):
        return step.solver.prepare(step.model, dt)
    if dt not in prepared:
        prepared[dt] = step.solver.prepare(step.model, dt)
    return prepared[dt]


def _dense_step(
    step: Step, t: Tensor, dt: Any, x: State, u: Input, items: Sequence[Saved], saved: list[State]
) -> State:
    solver = step.solver
    assert isinstance(solver, EmbeddedSolver)
    attempt = solver.attempt(step.model, t, dt, x, u)
    for item in items:
        if item.theta is None:
            saved.append(attempt.x if item.rows is None else pick(attempt.x, item.rows))
            continue
        assert item.rows is not None
        rows = item.rows

        def at_rows(value: Any, rows: Tensor = rows) -> Any:
            return (
                tree.map(lambda leaf: leaf.index_select(0, rows), value)
                if isinstance(value, (Tensor, tuple))
                else value
            )

        part = type(attempt)(
            at_rows(attempt.x),
            at_rows(attempt.error),
            tuple(at_rows(k) for k in attempt.slopes),
            None if attempt.last is None else at_rows(attempt.last),
        )
        some = (lambda c, u=u: at_rows(u(c))) if callable(u) else at_rows(u)
        saved.append(solver.interpolate(step.model, at_rows(t), at_rows(dt), at_rows(x), some, part, item.theta))
    return attempt.x


def head(x: State, rows: int) -> State:
    """The first rows."""
    return tree.map(lambda leaf: leaf[:rows], x)


def pick(x: State, rows: Tensor) -> State:
    """The given rows."""
    return tree.map(lambda leaf: leaf.index_select(0, rows), x)


def instants(grid: Grid, like: Tensor) -> list[Tensor]:
    """The start of each step as Tensors: 0-d in float64, which does not promote a state, or (rows, 1) in the state's dtype."""
    if grid.live is not None and grid.t and isinstance(grid.t[0], Tensor) and grid.t[0].ndim > 0:
        return [t.to(like.dtype) for t in grid.t]
    if any(isinstance(t, Tensor) for t in grid.t):
        return [torch.as_tensor(t, dtype=torch.float64, device=like.device) for t in grid.t]
    return list(torch.tensor(grid.t, dtype=torch.float64, device=like.device).unbind(0))


def along(source: Source, grid: Grid, times: list[Tensor]) -> list[Input]:
    """The drive of each step."""
    if source.function is not None:
        return [_function(source.function, grid, k, times[k]) for k in range(len(times))]
    if not source.coefficients:
        return [source.silence if grid.live is None else source.silence[: grid.live[k]] for k in range(len(times))]
    columns = [_columns(coefficient, grid) for coefficient in source.coefficients]
    if len(columns) == 1:
        return list(columns[0])
    return [Piece(pieces, grid.begin[k], grid.width[k]) for k, pieces in enumerate(zip(*columns, strict=True))]


def _columns(coefficient: Tensor, grid: Grid) -> list[Tensor]:
    # unbind and one gather, never coefficient[k]: the backward of indexing in a loop is quadratic in its length.
    if grid.live is None:
        values = coefficient.unbind(0)
        return [values[i] for i in grid.interval]
    assert grid.order is not None
    if not isinstance(grid.interval[0], Tensor):
        values = coefficient.index_select(1, grid.order).unbind(0)
        return [values[i][:n] for i, n in zip(grid.interval, grid.live, strict=True)]
    samples = torch.cat([grid.order[:n] for n in grid.live])
    gathered = coefficient[torch.cat(grid.interval), samples]
    return list(gathered.split(grid.live))


def _function(fn: Callable[[Tensor], Tensor], grid: Grid, k: int, t: Tensor) -> Callable[[float], Tensor]:
    dt = grid.dt[k]
    if grid.live is None or grid.order is None:
        return lambda c: fn(t + c * dt)
    order, rows = grid.order, grid.live[k]

    def rows_of_fn(c: float) -> Tensor:
        now = t + (c * dt).to(t.dtype) if isinstance(dt, Tensor) else t + c * dt
        if now.ndim == 0:
            return _rows(fn(now), order[:rows], len(order))
        # fn may hold values of each sample: it sees the whole batch, with any time where a sample has finished.
        full = now[:1].expand(len(order), 1).index_copy(0, order[:rows], now)
        return _rows(fn(full), order[:rows], len(order))

    return rows_of_fn


def _rows(u: Tensor, rows: Tensor, count: int) -> Tensor:
    return (u if u.ndim > 1 else u.expand(count, -1)).index_select(0, rows)


def deviates(noise: Noise, grid: Grid) -> Iterator[State]:
    """Standard normal deviates for each step of the grid, in the rows of the grid; one chunk is held at a time."""
    number, chunk = -1, noise.shapes
    for k in range(noise.offset, noise.offset + len(grid.dt)):
        if k // NOISE_CHUNK != number:
            number = k // NOISE_CHUNK
            chunk = _draw(noise, number)
        xi = tree.map(lambda leaf, j=k % NOISE_CHUNK: leaf[j], chunk)
        if grid.live is not None and grid.order is not None:
            xi = pick(xi, grid.order[: grid.live[k - noise.offset]])
        yield xi


def _draw(noise: Noise, chunk: int) -> State:
    first = tree.leaves(noise.shapes)[0]
    generator = Generator(first.device).manual_seed(noise.seeds[chunk])
    return tree.map(
        lambda leaf: torch.randn(NOISE_CHUNK, *leaf.shape, generator=generator, dtype=leaf.dtype, device=leaf.device),
        noise.shapes,
    )


def _kick(x: State, xi: State, sigma: Any, scale: Any) -> State:
    def leaf(a: Tensor, n: Tensor, s: Any, w: Any) -> Tensor:
        amount = tree.per_leaf(w, a) if isinstance(w, Tensor) else w
        return a + s * amount * n

    return tree.map(leaf, x, xi, tree.spread(sigma, x), tree.spread(scale, x))


def noise_seeds(steps: int, generator: Generator | None) -> list[int]:
    """One seed for each chunk of steps, from `generator`."""
    device = "cpu" if generator is None else generator.device
    return torch.randint(2**62, (math.ceil(steps / NOISE_CHUNK),), generator=generator, device=device).tolist()
