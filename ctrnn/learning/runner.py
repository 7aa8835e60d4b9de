"""Running networks on trials: one at a time, or several of one architecture at once."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ctrnn import _tree as tree
from ctrnn._integrate import integrate
from ctrnn._types import State
from ctrnn.adjoints import Adjoint, Backprop
from ctrnn.drive import Held
from ctrnn.dynamics import Model
from ctrnn.errors import IntegrationError
from ctrnn.solvers import Euler, Iterate, Solver, Step
from ctrnn.steps import Adaptive, Fixed, whole_steps
from ctrnn.tasks import Task, Trials
from ctrnn.trajectory import Stats, Trajectory


class Gap(NamedTuple):
    """The refinement gap: scores of one network on the same trials at the step of its training and at finer ones.

    Training co-adapts with the step: a network whose scores at `half` and `adaptive` are worse has learned the map, not
    the flow. All runs are without noise. Scores are None where the run failed, and `problems` says how.
    """

    dt: dict[str, float]  # at the (longest) step of the training
    half: dict[str, float] | None  # the same solver at half that step
    adaptive: dict[str, float] | None  # Tsit5, with a local error below 1e-5 of the state
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Runner:
    """How a network is run on trials; None stands for what `integrate` takes by default."""

    solver: Solver | None = None
    steps: Fixed | Adaptive | None = None
    adjoint: Adjoint = Backprop()  # noqa: RUF009  a frozen value
    noise: float | State | None = None

    def __call__(self, model: nn.Module, trials: Trials, generator: Generator | None = None) -> Trajectory:
        """The run; a module that is no Model is one over whole sequences, called as `model(us, dt=, lengths=)`."""
        if not isinstance(model, Model):
            return model(trials.us, dt=trials.dt, lengths=trials.lengths)
        return integrate(
            model,
            Held(trials.us, trials.dt, lengths=trials.lengths),
            solver=self.solver,
            steps=self.steps,
            adjoint=self.adjoint,
            noise=self.noise,
            generator=generator,
        )

    def score(self, model: nn.Module, task: Task, trials: Trials) -> dict[str, float]:
        """The task's scores of a run without noise."""
        with torch.no_grad():
            return task.evaluate(dataclasses.replace(self, noise=None)(model, trials), trials)

    def gap(self, model: nn.Module, task: Task, trials: Trials) -> Gap | None:
        """The refinement gap; None where there is no finer step, and for a module that keeps its steps to itself."""
        if not isinstance(model, Model) or isinstance(self.steps, Adaptive) or isinstance(self.solver, Iterate):
            return None
        count = 1 if self.steps is None else whole_steps(trials.dt, self.steps.dt)[0]
        half = dataclasses.replace(self, steps=Fixed(trials.dt / (2 * count)))
        adaptive = Runner(steps=Adaptive(rtol=1e-5, atol=1e-6))
        scores: dict[str, dict[str, float] | None] = {}
        problems = []
        for name, runner in (("half", half), ("adaptive", adaptive)):
            try:
                scores[name] = runner.score(model, task, trials)
            except (IntegrationError, ValueError) as problem:  # the trained network must survive what it cannot do
                scores[name] = None
                problems.append(f"{name}: {problem}")
        return Gap(self.score(model, task, trials), scores["half"], scores["adaptive"], tuple(problems))

    def step(self, model: nn.Module, dt: float) -> Step | None:
        """The map by which a run on samples of length dt moves the state; None if there is none of fixed length."""
        if not isinstance(model, Model) or isinstance(self.steps, Adaptive):
            return None
        length = dt if self.steps is None else whole_steps(dt, self.steps.dt)[1]
        return Step(model, Euler() if self.solver is None else self.solver, dt=length)

    def longest_step(self, dt: float) -> float | None:
        """The step above which Euler needs every tau, for samples of length dt; None if another solver is used."""
        if not isinstance(self.solver, Euler) and (self.solver is not None or isinstance(self.steps, Adaptive)):
            return None
        return min(dt, self.steps.dt) if isinstance(self.steps, Fixed) else dt

    def together(self, models: Sequence[Model], trials: Sequence[Trials]) -> list[Trajectory]:
        """Run each network on its own trials, all in one vectorised run; gradients reach every network's parameters."""
        longest = max(len(t.us) for t in trials)
        us = torch.stack([F.pad(t.us, (0, 0) * (t.us.ndim - 1) + (0, longest - len(t.us))) for t in trials])
        unrolled = _Unrolled(self, models[0], trials[0].dt)
        # Stacked anew for each run, so that gradients flow back into the networks themselves.
        every = [dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers()) for model in models]
        weights = {f"model.{name}": torch.stack([one[name] for one in every]) for name in every[0]}
        run = torch.func.vmap(lambda w, u: torch.func.functional_call(unrolled, w, (u,)))
        ts, xs, ys, stats = run(weights, us)
        return [
            _member(ts[i], tree.map(lambda leaf, i=i: leaf[i], xs), ys[i], Stats(*[s[i] for s in stats]), one)
            for i, one in enumerate(trials)
        ]


class _Unrolled(nn.Module):
    """A whole run as a module: functional_call reaches only what happens in a forward."""

    def __init__(self, runner: Runner, model: Model, dt: float) -> None:
        super().__init__()
        self.runner, self.model, self.dt = runner, model, dt

    def forward(self, us: Tensor) -> tuple[Any, ...]:
        r = self.runner
        run = integrate(self.model, Held(us, self.dt), solver=r.solver, steps=r.steps, adjoint=r.adjoint)
        return run.ts, run.xs, run.ys, tuple(run.stats)


def _member(ts: Tensor, xs: State, ys: Tensor, stats: Stats, trials: Trials) -> Trajectory:
    """One network's share of a run, cut to its own trials; a finished trial keeps its state, as in `integrate`."""
    count = len(trials.us)
    mask = None
    cut = lambda leaf: leaf[:count]
    if trials.lengths is not None:
        mask = torch.arange(count, device=ts.device)[:, None] < trials.lengths
        last = torch.minimum(torch.arange(count, device=ts.device)[:, None], trials.lengths - 1)
        cut = lambda leaf: leaf[last, torch.arange(leaf.shape[1], device=leaf.device)]
    return Trajectory(ts[:count], tree.map(cut, xs), trials.us, cut(ys), mask, stats)
