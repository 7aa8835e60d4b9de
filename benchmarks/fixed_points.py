"""Fixed points of a 128-unit GRU from 1024 starts beside the usual descent: `python -m benchmarks.fixed_points`.

The other side is the method of FixedPointFinder (Golub & Sussillo 2018) written from its description: Adam on the mean
of q = |step(x) - x|^2 / 2 over all starts at once, then points with q < 1e-12, each once, and their Jacobians. Both
sides compute in float64 and end with eigenvalues. The descent has 3000 iterations and one schedule of the learning
rate, neither tuned nor the original's. Each is run once, and no point of Adam's may be missing from ours.

The network is trained on a 3-bit flip-flop, and not trained.
"""

import copy
from functools import partial

import torch
from torch import Tensor

import ctrnn
from benchmarks._side_by_side import Case, Disagreement, Row, main, side_by_side, times_as_fast
from ctrnn import analysis, learning
from ctrnn.models import GRU
from ctrnn.tasks import FlipFlop

TOL_Q, UNIQUE = 1e-12, 1e-2


def networks(units: int, starts: int, updates: int) -> dict[str, tuple[ctrnn.Step, Tensor]]:
    """The map and the starts of each case."""
    generator = torch.Generator().manual_seed(0)
    raw, task = GRU(units, 3, 3, generator=generator), FlipFlop(bits=3)
    adam = partial(torch.optim.Adam, lr=5e-3)
    fitted = learning.fit(raw, task, updates=updates, batch=64, dt=1.0, optimizer=adam, clip=1.0)
    with torch.no_grad():
        visited = ctrnn.integrate(fitted.model, task.trials(64, 1.0, generator).us, dt=1.0).xs
    assert fitted.step is not None
    near = analysis.visited_states(visited, starts, jitter=0.3, between=0.5, generator=generator)
    random = 2 * torch.rand(starts, units, generator=generator) - 1
    return {
        "trained, visited states and means of two": (fitted.step, near),
        "untrained, random": (ctrnn.Step(raw, ctrnn.Euler(), dt=1.0), random),
    }


def by_adam(step: ctrnn.Step, starts: Tensor, iterations: int) -> Tensor:
    """The points found."""
    map_ = copy.deepcopy(step).double().requires_grad_(False)
    t, u = torch.zeros((), dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    x = starts.detach().double().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.02)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 1e-4 ** (1 / iterations))
    for _ in range(iterations):
        optimizer.zero_grad()
        q = (map_(t, 1.0, x, u) - x).square().sum(-1) / 2
        if bool((q < TOL_Q).all()):
            break
        q.mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        q = (map_(t, 1.0, x, u) - x).square().sum(-1) / 2
        rows, kept = x.detach()[q < TOL_Q], []
        while len(rows):
            kept.append(rows[0])
            rows = rows[(rows - rows[0]).norm(dim=-1) > UNIQUE]
        points = torch.stack(kept) if kept else x.detach()[:0]
        torch.linalg.eigvals(analysis.jacobian(map_, points))
    return points


def case(name: str, step: ctrnn.Step, starts: Tensor, iterations: int) -> Case:
    analysis.fixed_points(step, starts[:2])  # the first use of torch.func imports much
    found: dict[str, Tensor] = {}

    def ours() -> tuple[()]:
        found["ctrnn"] = analysis.fixed_points(step, starts).x
        return ()

    def adam() -> tuple[()]:
        found["Adam on q"] = by_adam(step, starts, iterations)
        return ()

    at = {"network": name, "units": starts.shape[-1], "starts": len(starts)}
    done = side_by_side(at, {"ctrnn": ours, "Adam on q": adam}, like={}, turns=0)
    if len(found["Adam on q"]) and not (torch.cdist(found["Adam on q"], found["ctrnn"]).amin(-1) < 2 * UNIQUE).all():
        raise Disagreement(f"{name}: Adam found points that ctrnn did not")
    return done


def run(*, quick: bool = False) -> Row:
    size, iterations = ((6, 8, 2), 20) if quick else ((128, 1024, 300), 3000)
    cases = [case(name, *pair, iterations) for name, pair in networks(*size).items()]
    return Row("Fixed points of a GRU, float64", cases, [times_as_fast(done, "Adam on q", 1.0) for done in cases])


if __name__ == "__main__":
    main(run)
