"""A trajectory with tangent vectors along it: the derivative of each step, written down once as plain operations.

torch.func differentiates a step within a millisecond; the operations that it then does take a tenth of that where a
network is small. They are therefore recorded once (make_fx), what does not depend on the state is computed (weights
under masks, tau, the identity times the weights), and the record is what runs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from ctrnn.solvers.base import value
from ctrnn.solvers.runge_kutta import RungeKutta

Input = Any  # (row, n_in), a function of the fraction of the step, or None
Map = Callable[[Tensor, Tensor, Any], Tensor]  # (x (row, D), t, u) -> (row, D)
CHUNK = 2**18  # numbers in the Jacobians that are held at once: more does not stay in a core's cache
OFTEN = 4  # chunks after which a record of their Jacobians, a tenth of a second, is worth its while


class System(NamedTuple):
    """Steps of `dt` on ravelled states; a flow under a Runge-Kutta method is its field and the method."""

    move: Map  # the next state
    dt: float
    field: Map | None = None
    solver: RungeKutta | None = None


class Rates(NamedTuple):
    """A state, its tangent vectors and how each grew in every interval that has passed."""

    x: Tensor  # (row, D)
    Q: Tensor  # (row, D, k)
    growth: list[Tensor]  # each (row, k), a logarithm


Advance = Callable[[int, int, Tensor, Tensor], Rates]


class Tangent(NamedTuple):
    """What carries x and Q over some intervals of `every` steps, and over how many at once."""

    advance: Advance  # (first interval, how many, x, Q) -> Rates
    at_once: int


def tangent(system: System, drive: Callable[[int, Tensor], Input], x: Tensor, k: int, every: int) -> Tangent:
    """The way that suits the system: small ones by the Jacobians of many steps at once, others step by step.

    Args:
        system: the steps.
        drive: the input of the j-th step, which begins at the time given.
        x: a state (row, D).
        k: tangent vectors.
        every: steps in an interval, at whose end the vectors are made orthonormal.
    """
    t = torch.zeros((), dtype=torch.float64, device=x.device)
    u = drive(0, t)
    nodes = _nodes(system.move, x, t, u)
    resolved = _at(u, nodes)

    def move(x: Tensor, t: Tensor, us: Any) -> Tensor:
        return system.move(x, t, us if nodes is None else lambda c: us[nodes.index(c)])

    def input(j: int, t: Tensor) -> Any:
        return _at(drive(j, t), nodes)

    numbers = len(x) * x.shape[-1] ** 2
    step = _recorded(move, x, t, resolved)
    small = every * numbers <= CHUNK and x.shape[-1] <= 16 * k
    if step is not None and small and _agrees(move, x, t, resolved):
        return Tangent(_by_chunks(move, step, system.dt, input, every), CHUNK // (every * numbers))
    if system.solver is not None and step is not None:
        assert system.field is not None
        push = _pushed(system.field, x, t, value(u, 0.0), k)
        return Tangent(_by_steps(_stages(push, system.solver, system.dt), system.dt, drive, every), 1)
    push = _pushed(move, x, t, resolved, k)
    return Tangent(_by_steps(push, system.dt, input, every), 1)


def _by_chunks(move: Map, step: Map, dt: float, drive: Callable[[int, Tensor], Any], every: int) -> Advance:
    """The states first, then the Jacobians of all steps at once, and of each interval their product."""
    recorded: dict[int, Callable[..., Tensor]] = {}
    seen: list[int] = []

    @torch.no_grad()
    def advance(first: int, count: int, x: Tensor, Q: Tensor) -> Rates:
        steps = range(first * every, (first + count) * every)
        ts = dt * torch.arange(steps.start, steps.stop, dtype=torch.float64, device=x.device)
        us = [drive(j, t) for j, t in zip(steps, ts.unbind(0), strict=True)]
        xs = []
        for t, u in zip(ts.unbind(0), us, strict=True):
            xs.append(x)
            x = step(x, t, u)
        points = (torch.stack(xs), ts, None if us[0] is None else torch.stack(us))
        each = _jacobians(move, points[2])
        seen.append(count)
        if seen.count(count) == OFTEN:
            recorded[count] = _recorded(each, *points) or each
        jacobians = recorded.get(count, each)(*points).unflatten(0, (count, every))
        product = jacobians[:, 0]
        for j in range(1, every):
            product = jacobians[:, j] @ product
        upper = []
        for A in product.unbind(0):
            Q, R = torch.linalg.qr(A @ Q)
            upper.append(R)
        return Rates(x, Q, list(_growth(torch.stack(upper)).unbind(0)))

    return advance


def _jacobians(move: Map, us: Any) -> Callable[..., Tensor]:
    """(x (point, row, D), t (point,), us) -> (point, row, D, D)."""
    return torch.vmap(lambda x, t, u: _linearised(move)(x, t, u)[1], (0, 0, None if us is None else 0))


def _agrees(move: Map, x: Tensor, t: Tensor, u: Any) -> bool:
    """Whether several points at once give what each gives alone.

    torch 2.13 gives wrong solutions of linear systems (lu_solve) inside two vmaps, for all points but the first.
    """
    xs, ts, us = torch.stack((x, 0.9 * x + 0.1)), t.expand(2), None if u is None else u.expand(2, *u.shape)
    try:
        together = _jacobians(move, us)(xs, ts, us)
    except RuntimeError:
        return False
    return torch.allclose(together[1], _linearised(move)(xs[1], t, u)[1], rtol=1e-6, atol=1e-9, equal_nan=True)


def _by_steps(push: Callable[..., Any], dt: float, drive: Callable[[int, Tensor], Any], every: int) -> Advance:
    """State and tangent vectors together, in the memory of a few Jacobians or of k states."""

    @torch.no_grad()
    def advance(first: int, count: int, x: Tensor, Q: Tensor) -> Rates:
        rates = []
        for i in range(first, first + count):
            for j in range(i * every, (i + 1) * every):
                t = torch.tensor(j * dt, dtype=torch.float64, device=x.device)
                x, Q = push(x, t, drive(j, t), Q)
            Q, R = torch.linalg.qr(Q)
            rates.append(_growth(R))
        return Rates(x, Q, rates)

    return advance


def _growth(R: Tensor) -> Tensor:
    return R.diagonal(dim1=-2, dim2=-1).abs().log()


def _stages(push: Callable[..., Any], solver: RungeKutta, dt: float) -> Callable[..., Any]:
    """A Runge-Kutta step of (x, Q): the same method on the equation linearised at each stage.

    Each slope goes into the later sums in place, while it is still in the cache.
    """
    tableau = solver.tableau
    used = len(tableau.b) - tableau.ends_in_slope
    rows = (*tableau.a[:used], tableau.b)

    def step(x: Tensor, t: Tensor, u: Input, Q: Tensor) -> tuple[Tensor, ...]:
        start: tuple[Tensor, ...] = (x, Q)
        sums = [start] * (used + 1)
        for i, c in enumerate(tableau.c[:used]):
            slope = push(sums[0][0], t + c * dt, value(u, c), sums[0][1])
            del sums[0]
            for j in range(len(sums)):
                if w := dt * rows[i + 1 + j][i]:
                    add = torch.add if sums[j] is start else Tensor.add_
                    sums[j] = tuple(add(a, k, alpha=w) for a, k in zip(sums[j], slope, strict=True))
            del slope
        return sums[0]

    return step


def _pushed(move: Map, x: Tensor, t: Tensor, u: Any, k: int) -> Callable[..., Any]:
    """(x, t, u, Q) -> move(x, t, u) and its derivative along Q."""
    along = _derivative(move)
    along = _recorded(along, x, t, u, x.new_zeros(len(x), k, x.shape[-1])) or along

    def push(x: Tensor, t: Tensor, u: Any, Q: Tensor) -> tuple[Tensor, Tensor]:
        new, moved = along(x, t, u, Q.mT)  # LAPACK leaves the columns of Q side by side in memory
        return new, moved.mT

    return push


def _linearised(move: Map) -> Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor]]:
    """(x, t, u) -> move(x, t, u) and its Jacobian (row, D, D).

    The rows are moved together, so that each may have weights of its own.
    """

    def linearised(x: Tensor, t: Tensor, u: Any) -> tuple[Tensor, Tensor]:
        new, pull = torch.func.vjp(lambda x: move(x, t, u), x)  # type: ignore[misc]
        eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        return new, torch.vmap(pull)(eye[:, None].expand(-1, len(x), -1))[0].movedim(0, -2)

    return linearised


def _derivative(move: Map) -> Callable[..., tuple[Tensor, Tensor]]:
    """(x, t, u, q (row, k, D)) -> move(x, t, u) and J q, the transpose of c -> J^T c (two reverse passes)."""

    def along(x: Tensor, t: Tensor, u: Any, q: Tensor) -> tuple[Tensor, Tensor]:
        new, pull = torch.func.vjp(lambda x: move(x, t, u), x)  # type: ignore[misc]
        transpose = torch.func.vjp(lambda c: pull(c)[0], torch.zeros_like(new))[1]
        return new, torch.vmap(lambda q: transpose(q)[0], in_dims=1, out_dims=1)(q)

    return along


def _nodes(move: Map, x: Tensor, t: Tensor, u: Input) -> list[Any] | None:
    """The fractions of a step at which a function of time is asked for; None where the input is none."""
    if not callable(u):
        return None
    asked: list[Any] = []

    def recording(c: Any) -> Tensor:
        if c not in asked:
            asked.append(c)
        return u(c)

    with torch.no_grad():
        move(x, t, recording)
    return asked


def _at(u: Input, nodes: list[Any] | None) -> Any:
    return u if nodes is None else torch.stack([u(c) for c in nodes])


def _recorded(fn: Callable[..., Any], *args: Any) -> Any:
    """The operations that `fn` does on arguments of these shapes; None where they depend on the values themselves.

    A step that looks at its time to see whether a clock ticks is such a one, and a solver with steps of its own.
    """
    try:
        with torch.no_grad():
            graph = make_fx(torch.func.functionalize(fn))(*map(_plain, args))
    except RuntimeError:
        return None
    _fold(graph)
    return lambda *args: graph(*map(_plain, args))


def _plain(arg: Any) -> Any:
    """A record holds for one layout in memory as well."""
    return arg.contiguous() if isinstance(arg, Tensor) else arg


def _fold(graph: fx.GraphModule) -> None:
    """Compute what depends on no argument, in place."""
    known: dict[fx.Node, Any] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            known[node] = getattr(graph, node.target)
        elif node.op == "call_function" and all(a in known for a in node.all_input_nodes) and not _draws(node):
            args, kwargs = fx.map_arg((node.args, node.kwargs), known.__getitem__)
            known[node] = node.target(*args, **kwargs)
    for node in list(graph.graph.nodes):
        _spare(node, known)
    for i, (node, found) in enumerate(known.items()):
        if node.op == "call_function" and isinstance(found, Tensor) and not all(user in known for user in node.users):
            graph.register_buffer(f"folded{i}", found)
            with graph.graph.inserting_before(node):
                node.replace_all_uses_with(graph.graph.get_attr(f"folded{i}"))
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _spare(node: fx.Node, known: dict[fx.Node, Any]) -> None:
    """Leave out what changes no bit but takes a pass over all tangent vectors: x / 1 (a tau of 1), x + (-y)."""
    aten = torch.ops.aten
    if node.target == aten.div.Tensor:
        x, y = node.args
        one = known.get(y) if isinstance(y, fx.Node) else None
        if isinstance(x, fx.Node) and isinstance(one, Tensor) and one.ndim == 0 and one == 1:
            node.replace_all_uses_with(x)
    elif node.target == aten.add.Tensor and len(node.args) == 2 and not node.kwargs:
        x, y = node.args
        turned = y if isinstance(y, fx.Node) and y.target == aten.permute.default else None
        negative = y if turned is None else turned.args[0]
        if isinstance(negative, fx.Node) and negative.target == aten.neg.default:
            with node.graph.inserting_before(node):
                y = negative.args[0]
                y = y if turned is None else node.graph.call_function(aten.permute.default, (y, turned.args[1]))
                node.replace_all_uses_with(node.graph.call_function(aten.sub.Tensor, (x, y)))


def _draws(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
