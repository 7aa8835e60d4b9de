"""Training several networks of one architecture at once."""

import copy
import os
from collections.abc import Callable, Sequence

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ctrnn._model_files import class_name
from ctrnn.adjoints import Adjoint, Backprop
from ctrnn.dynamics import Model
from ctrnn.learning.arguments import check
from ctrnn.learning.penalties import Penalty
from ctrnn.learning.runner import Runner
from ctrnn.learning.training import Fitted, Training
from ctrnn.solvers import Solver
from ctrnn.steps import Fixed
from ctrnn.tasks import Task


def fit_ensemble(
    models: Sequence[Model],
    task: Task,
    *,
    updates: int,
    batch: int,
    dt: float,
    optimizer: Callable[[list[nn.Parameter]], Optimizer],
    schedule: Callable[[Optimizer], LRScheduler] | None = None,
    penalties: Sequence[Penalty] = (),
    clip: float | None = None,
    solver: Solver | None = None,
    steps: Fixed | None = None,
    adjoint: Adjoint = Backprop(),  # noqa: B008  a frozen value
    seeds: Sequence[int] | None = None,
    held_out: Task | None = None,
    evaluation_batch: int | None = None,
    evaluate_every: int | None = None,
    metrics: str | os.PathLike | None = None,
    log_every: int = 1,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 100,
    progress: Callable[[float], None] | None = None,
) -> list[Fitted]:
    """What `[fit(model, task, seed=seed) for model, seed in zip(models, seeds)]` gives, to rounding, in one run.

    The networks differ in their weights and time constants only; each has its own trials, optimiser, schedule and
    clipping. It pays where a step is cheap and the time goes into calling torch: small networks, small batches. The
    step is fixed and there is no noise: members cannot draw steps or noise of their own in one run; use `fit` for that.

    Args:
        models: networks of one architecture.
        seeds: one for each network; 0, 1, 2, ... if None.
        metrics: one file for all; its lines tell the networks apart by `seed`.
        checkpoint: one file for all.

    The other arguments, and what is raised, are those of `fit`. If one network fails, all stop.
    """
    seeds = range(len(models)) if seeds is None else seeds
    training = Training(
        task=task,
        held_out=task if held_out is None else held_out,
        updates=updates,
        batch=batch,
        evaluation_batch=batch if evaluation_batch is None else evaluation_batch,
        dt=dt,
        runner=Runner(solver, steps, adjoint),
        optimizer=optimizer,
        schedule=schedule,
        penalties=penalties,
        clip=clip,
        evaluate_every=evaluate_every,
        metrics=metrics,
        log_every=log_every,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        progress=progress,
    )
    _check(training, models, seeds)
    check(training, models, seeds)
    return training.fit([training.learner(copy.deepcopy(m), seed) for m, seed in zip(models, seeds, strict=True)])


def _check(training: Training, models: Sequence[Model], seeds: Sequence[int]) -> None:
    if not models:
        raise ValueError("models is empty: give at least one network.")
    if len(seeds) != len(models) or len(set(seeds)) != len(seeds):
        raise ValueError(f"{len(models)} networks need as many different seeds, got {list(seeds)}.")
    if not isinstance(training.dt, (int, float)) or not isinstance(training.runner.steps, (Fixed, type(None))):
        raise ValueError("fit_ensemble takes one fixed step: give dt as a number and steps=Fixed(...), or use fit.")
    for i, model in enumerate(models):
        if not isinstance(model, Model):
            raise TypeError(f"models[{i}] is a {class_name(model)}: fit_ensemble runs ctrnn.Models, use fit.")
        if _architecture(model) != _architecture(models[0]):
            raise ValueError(f"models[{i}] is built differently from models[0]: give networks of one architecture.")


def _architecture(model: Model) -> tuple[object, ...]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: (tuple(t.shape), t.dtype, t.device, t.requires_grad) for name, t in tensors.items()}
    # torch gives every parametrised network a class of its own.
    return class_name(model), repr(model), shapes, getattr(model, "activation", None)
