"""The loop of training, for one network or for several side by side."""

import contextlib
import copy
import dataclasses
import inspect
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ctrnn._model_files import class_name
from ctrnn.dynamics import Model, Relaxation
from ctrnn.errors import IntegrationError
from ctrnn.learning import checkpoint as checkpoints
from ctrnn.learning.checkpoint import Config, Learner, configuration, described
from ctrnn.learning.distributions import Distribution, draw, longest, shortest
from ctrnn.learning.metrics import Metrics, Record
from ctrnn.learning.penalties import Penalty
from ctrnn.learning.runner import Gap, Runner
from ctrnn.solvers import Step
from ctrnn.tasks import Task, Trials
from ctrnn.trajectory import Trajectory

# What random numbers are drawn for: streams that never meet, whatever the seed.
TRAINING, VALIDATION, HELD_OUT, PROBE = range(4)


CALMER = "Lower the learning rate, clip the gradient (clip=1.0) or take a smaller dt."


class Fitted(NamedTuple):
    """What a training ends with."""

    model: nn.Module  # the trained network, a copy of the one given
    history: list[Record]  # one record for each update
    score: dict[str, float]  # `task.evaluate` on fresh held-out trials, at the (longest) step of the training
    gap: Gap | None  # scores on the same trials at finer steps; None where there is no finer step
    updates: int
    step: Step | None  # the map that `model` was trained as, at that step; None where it chose its own steps


class TrainingError(RuntimeError):
    """A training could not go on. `model` is the network as the last good update left it, `history` its records."""

    def __init__(self, message: str, *, update: int, model: nn.Module, history: list[Record]) -> None:
        super().__init__(message)
        self.update = update
        self.model = model
        self.history = history


@dataclass(frozen=True)
class Training:
    """Everything that decides how a training goes; what changes on the way is in the learners."""

    task: Task
    held_out: Task
    updates: int
    batch: int
    evaluation_batch: int
    dt: float | Distribution
    runner: Runner
    optimizer: Callable[[list[nn.Parameter]], Optimizer]
    schedule: Callable[[Optimizer], LRScheduler] | None
    penalties: Sequence[Penalty]
    clip: float | None
    evaluate_every: int | None
    metrics: str | os.PathLike | None
    log_every: int
    checkpoint: str | os.PathLike | None
    checkpoint_every: int
    progress: Callable[[float], None] | None

    def fit(self, learners: Sequence[Learner]) -> list[Fitted]:
        """Train, from the checkpoint on if there is one, and score what was trained."""
        config = self.config(learners)
        self._floor(learners)
        self._probe(learners)
        done = self._begin(config, learners)
        metrics = None if self.metrics is None else Metrics(self.metrics, done)
        for update in range(done + 1, self.updates + 1):
            # What is wrong with the arguments shows in the first update; afterwards there is a network to lose.
            with contextlib.nullcontext() if update == done + 1 else self._kept(update, learners[0]):
                records = self._update(update, learners)
            for learner, record in zip(learners, records, strict=True):
                learner.history.append(record)
                if metrics is not None and (update % self.log_every == 0 or record.score is not None):
                    metrics.write(learner.seed, record)
            if self.checkpoint is not None and (update % self.checkpoint_every == 0 or update == self.updates):
                checkpoints.save(self.checkpoint, config, update, learners)
            if self.progress is not None:
                self.progress(update / self.updates)
        fitted = []
        for learner in learners:
            with self._kept(self.updates + 1, learner):
                fitted.append(self._finish(learner))
        return fitted

    def config(self, learners: Sequence[Learner]) -> Config:
        """What must not change between a training and its resumption, in words; budget and files may."""
        first = learners[0]
        built = [configuration(learner.model) for learner in learners]
        names = ("task", "held_out", "batch", "evaluation_batch", "dt", "clip", "evaluate_every")
        shapes = {name: f"{p.dtype} {tuple(p.shape)}" for name, p in first.model.named_parameters()}
        return {name: described(getattr(self, name)) for name in names} | {
            "model": described(first.model),
            **{f"model.{key}": ", ".join(described(one[key]) for one in built) for key in built[0]},
            "parameters": described(shapes),
            "seed": described([learner.seed for learner in learners]),
            "penalties": described([described(penalty) for penalty in self.penalties]),
            "optimizer": f"{type(first.optimizer).__name__} {described(first.optimizer.state_dict()['param_groups'])}",
            "schedule": "None" if first.schedule is None else _schedule(first.schedule),
            **{f.name: described(getattr(self.runner, f.name)) for f in dataclasses.fields(self.runner)},
        }

    def learner(self, model: nn.Module, seed: int) -> Learner:
        """`model` ready to learn, with its optimiser and schedule.

        Raises:
            TypeError: the optimiser or schedule is none, or the optimiser evaluates the loss several times an update.
            ValueError: nothing is to be learned, or the optimiser was made for other parameters.
        """
        parameters = [p for p in model.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError(f"{class_name(model)} has no parameter that requires a gradient: there is nothing to fit.")
        optimizer = self.optimizer(parameters)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer(parameters) must return a torch Optimizer, got {optimizer!r}.")
        if inspect.signature(optimizer.step).parameters["closure"].default is inspect.Parameter.empty:
            raise TypeError(
                f"{type(optimizer).__name__} evaluates the loss several times an update, fit does so once: "
                "use an optimiser whose step() needs no closure, such as Adam."
            )
        if not {id(p) for group in optimizer.param_groups for p in group["params"]} <= {id(p) for p in parameters}:
            raise ValueError(
                "optimizer(parameters) ignores the parameters that it is given (fit trains a copy of the model): "
                "pass functools.partial(torch.optim.Adam, lr=1e-3), or a function that hands them on."
            )
        schedule = None if self.schedule is None else self.schedule(optimizer)
        if schedule is not None and not isinstance(schedule, LRScheduler):
            raise TypeError(f"schedule(optimizer) must return a torch LRScheduler, got {schedule!r}.")
        return Learner(model, seed, optimizer, schedule)

    def _begin(self, config: Config, learners: Sequence[Learner]) -> int:
        """Updates already done. A first checkpoint is written at once: a path that cannot be written fails here."""
        if self.checkpoint is None:
            return 0
        if not Path(self.checkpoint).exists():
            checkpoints.save(self.checkpoint, config, 0, learners)
            return 0
        done = checkpoints.restore(self.checkpoint, config, learners)
        if done > self.updates:
            raise ValueError(
                f"The checkpoint {os.fspath(self.checkpoint)} has {done} updates behind it, more than "
                f"updates={self.updates}: ask for more updates, or give another path to start afresh."
            )
        return done

    def _probe(self, learners: Sequence[Learner]) -> None:
        """Run copies on trials at both ends of dt: what a task or a solver refuses must not end a training halfway."""
        kinds = [(self.task, self.batch, longest(self.dt))]
        if shortest(self.dt) != longest(self.dt):
            kinds.append((self.task, self.batch, shortest(self.dt)))
        if self.held_out is not self.task:
            kinds.append((self.held_out, self.evaluation_batch, longest(self.dt)))
        for learner, (task, batch, dt) in itertools.product(learners, kinds):
            source = generator(learner.seed, PROBE)
            trials = self._trials(task, learner, batch, source, dt)
            # A copy that draws nothing and counts nothing. A network that explodes says so in its first update.
            with torch.no_grad(), contextlib.suppress(IntegrationError):
                self.runner(copy.deepcopy(learner.model).eval(), trials, source)

    @contextlib.contextmanager
    def _kept(self, update: int, learner: Learner) -> Iterator[None]:
        """Turn what a task, a solver or a penalty refuses into an error that carries the network."""
        try:
            yield
        except ValueError as problem:
            raise self._failed(update, learner, str(problem), "See to what the message names.") from problem

    def _update(self, update: int, learners: Sequence[Learner]) -> list[Record]:
        """One step of every learner; none moves unless all can."""
        generators = [generator(learner.seed, TRAINING, update) for learner in learners]
        try:
            trials = [
                self._trials(self.task, learner, self.batch, g) for learner, g in zip(learners, generators, strict=True)
            ]
            runs = self._run(learners, trials, generators)
        except IntegrationError as problem:
            raise self._failed(update, learners[0], str(problem)) from problem
        losses = [self.task.loss(run.ys, t) for run, t in zip(runs, trials, strict=True)]
        penalties = [self._penalty(learner, run) for learner, run in zip(learners, runs, strict=True)]
        self._differentiate(update, learners, losses, penalties)
        norms = [self._clip(update, learner) for learner in learners]
        records = []
        for i, learner in enumerate(learners):
            lr = float(learner.optimizer.param_groups[0]["lr"])
            loss = float(losses[i].detach())
            penalty = float(penalties[i].detach())
            records.append(Record(update, loss, penalty, norms[i], trials[i].dt, lr))
            learner.optimizer.step()
            _advance(learner.schedule, loss)
        self._floor(learners)
        if self.evaluate_every is None or update % self.evaluate_every:
            return records
        scores = [self._score(learner) for learner in learners]
        return [record._replace(score=score) for record, score in zip(records, scores, strict=True)]

    def _trials(self, task: Task, learner: Learner, batch: int, source: Generator, dt: float | None = None) -> Trials:
        step = draw(self.dt, source) if dt is None else dt
        like = learner.parameters[0]
        return task.trials(batch, step, source, dtype=like.dtype, device=like.device)

    def _run(self, learners: Sequence[Learner], trials: list[Trials], generators: list[Generator]) -> list[Trajectory]:
        if len(learners) > 1:
            models = [learner.model for learner in learners if isinstance(learner.model, Model)]
            return self.runner.together(models, trials)
        return [self.runner(learners[0].model, trials[0], generators[0])]

    def _penalty(self, learner: Learner, run: Trajectory) -> Tensor:
        return sum((p(learner.model, run) for p in self.penalties), torch.zeros(()))

    def _differentiate(
        self, update: int, learners: Sequence[Learner], losses: list[Tensor], penalties: list[Tensor]
    ) -> None:
        for learner, loss, penalty in zip(learners, losses, penalties, strict=True):
            for name, value in (("loss", loss), ("penalty", penalty)):
                if not math.isfinite(float(value.detach())):
                    raise self._failed(update, learner, f"the {name} is {float(value.detach())}")
            learner.optimizer.zero_grad()
        # The learners share no parameter: one backward pass gives each its own gradient.
        total = torch.stack([loss + penalty.to(loss) for loss, penalty in zip(losses, penalties, strict=True)]).sum()
        if not total.requires_grad:
            raise ValueError(
                f"The loss of {type(self.task).__name__} does not depend on any learned parameter: "
                "compute it from ys with differentiable operations, and see that the model does not detach."
            )
        total.backward()

    def _clip(self, update: int, learner: Learner) -> float:
        """The norm of the gradient, which is then at most `clip`."""
        norm = float(nn.utils.clip_grad_norm_(learner.parameters, math.inf if self.clip is None else self.clip))
        if not math.isfinite(norm):
            raise self._failed(update, learner, f"the norm of the gradient is {norm}")
        return norm

    def _floor(self, learners: Sequence[Learner]) -> None:
        floor = self.runner.longest_step(longest(self.dt))
        if floor is None:
            return
        for module in (module for learner in learners for module in learner.model.modules()):
            if isinstance(module, Relaxation):
                module.floor_tau(floor)

    def _score(self, learner: Learner) -> dict[str, float]:
        source = generator(learner.seed, VALIDATION)
        trials = self._trials(self.held_out, learner, self.evaluation_batch, source, longest(self.dt))
        return self.runner.score(learner.model, self.held_out, trials)

    def _finish(self, learner: Learner) -> Fitted:
        source = generator(learner.seed, HELD_OUT)
        trials = self._trials(self.held_out, learner, self.evaluation_batch, source, longest(self.dt))
        gap = self.runner.gap(learner.model, self.held_out, trials)
        score = self.runner.score(learner.model, self.held_out, trials) if gap is None else gap.dt
        learner.optimizer.zero_grad()
        step = self.runner.step(learner.model, longest(self.dt))
        return Fitted(learner.model, learner.history, score, gap, self.updates, step)

    def _failed(self, update: int, learner: Learner, problem: str, fix: str = CALMER) -> TrainingError:
        learner.optimizer.zero_grad()
        kept = "" if self.checkpoint is None else f" The last checkpoint, {os.fspath(self.checkpoint)}, is unharmed."
        where = f"update {update}" if update <= self.updates else "the final scores"
        message = (
            f"Training stopped at {where} (seed {learner.seed}): {problem.rstrip('.')}. {fix} "
            f"The error's `model` is as the optimiser's last step left it.{kept}"
        )
        return TrainingError(message, update=update, model=learner.model, history=learner.history)


def generator(seed: int, stream: int, update: int = 0) -> Generator:
    """The source of an update's random numbers, a function of its arguments: resuming has nothing to replay."""
    state = np.random.SeedSequence(seed, spawn_key=(stream, update)).generate_state(1, np.uint64)
    return Generator().manual_seed(int(state[0]))


def _advance(schedule: LRScheduler | None, loss: float) -> None:
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(loss)
    elif schedule is not None:
        schedule.step()


def _schedule(schedule: LRScheduler) -> str:
    return f"{type(schedule).__name__} {described(schedule.state_dict())}"
