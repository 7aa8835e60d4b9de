"""Fixed points of a 128-unit GRU from 1024 starts beside the usual descent: `python benchmarks/fixed_points.py`.

The other side is the method of FixedPointFinder (Golub & Sussillo 2018) written from its description: Adam on the mean
of q = |step(x) - x|^2 / 2 over all starts at once, then points with q < 1e-12, each once, and their Jacobians. Both
sides compute in float64 and end with eigenvalues. The descent has 3000 iterations and one schedule of the learning
rate, neither tuned nor the original's: what it has not reached by then, its median q says.

The network is trained on a 3-bit flip-flop, and not trained.
"""

import copy
import json
import time
from functools import partial

import torch
from torch import Tensor

import ctrnn
from ctrnn import analysis, learning
from ctrnn.models import GRU
from ctrnn.tasks import FlipFlop

UNITS, STARTS, UPDATES = 128, 1024, 300
ITERATIONS, TOL_Q, UNIQUE = 3000, 1e-12, 1e-2


def networks() -> dict[str, tuple[ctrnn.Step, Tensor]]:
    """The map and the starts of each case."""
    generator = torch.Generator().manual_seed(0)
    raw, task = GRU(UNITS, 3, 3, generator=generator), FlipFlop(bits=3)
    adam = partial(torch.optim.Adam, lr=5e-3)
    fitted = learning.fit(raw, task, updates=UPDATES, batch=64, dt=1.0, optimizer=adam, clip=1.0)
    with torch.no_grad():
        visited = ctrnn.integrate(fitted.model, task.trials(64, 1.0, generator).us, dt=1.0).xs
    assert fitted.step is not None
    random = 2 * torch.rand(STARTS, UNITS, generator=generator) - 1
    excited = copy.deepcopy(raw)
    with torch.no_grad():
        excited.W_rec.mul_(2.5)
    step = ctrnn.Step(raw, ctrnn.Euler(), dt=1.0)
    near = analysis.visited_states(visited, STARTS, jitter=0.3, between=0.5, generator=generator)
    return {
        "trained, visited states and means of two": (fitted.step, near),
        "untrained, random": (step, random),
        "untrained, W_rec x 2.5, random": (ctrnn.Step(excited, ctrnn.Euler(), dt=1.0), random),
    }


def by_adam(step: ctrnn.Step, starts: Tensor) -> tuple[Tensor, int, float]:
    """The points found, how many starts had converged, and the median of q."""
    map_ = copy.deepcopy(step).double().requires_grad_(False)
    t, u = torch.zeros((), dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    x = starts.detach().double().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.02)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 1e-4 ** (1 / ITERATIONS))
    for _ in range(ITERATIONS):
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
        count = len(rows)
        while len(rows):
            kept.append(rows[0])
            rows = rows[(rows - rows[0]).norm(dim=-1) > UNIQUE]
        points = torch.stack(kept) if kept else x.detach()[:0]
        torch.linalg.eigvals(analysis.jacobian(map_, points))
    return points, count, float(q.median())


def main() -> None:
    for name, (step, starts) in networks().items():
        analysis.fixed_points(step, starts[:2])  # the first use of torch.func imports much
        begin = time.perf_counter()
        found = analysis.fixed_points(step, starts)
        here = time.perf_counter() - begin
        begin = time.perf_counter()
        others, converged, median = by_adam(step, starts)
        there = time.perf_counter() - begin
        missed = 0
        if len(others):
            missed = int((torch.cdist(others, found.x).amin(-1) > 2 * UNIQUE).sum()) if len(found.x) else len(others)
        row = {
            "work": f"GRU, {UNITS} units, {STARTS} starts: {name}",
            "threads": torch.get_num_threads(),
            "ctrnn_s": round(here, 2),
            "adam_s": round(there, 2),
            "ratio adam / ctrnn": round(there / here, 1),
            "points": [len(found.x), len(others)],
            "starts that found one": [int((found.search.point >= 0).sum()), converged],
            "median q of Adam's": median,
            "points of Adam's that ctrnn lacks": missed,
            "torch": torch.__version__,
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
