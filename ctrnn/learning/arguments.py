"""What can be wrong with the arguments of a training. Each message names the problem, the culprit and the fix."""

import inspect
import math
import os
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ctrnn._model_files import class_name
from ctrnn.adjoints import Backprop
from ctrnn.dynamics import Model
from ctrnn.learning.distributions import Distribution, check_step
from ctrnn.learning.runner import Runner
from ctrnn.learning.training import Training
from ctrnn.tasks import Task

MEMBERS = ("n_in", "n_out", "trials", "loss", "evaluate")


def check(training: Training, models: Sequence[nn.Module], seeds: Sequence[int]) -> None:
    """Raise TypeError or ValueError for what no training can be made of."""
    _numbers(training, seeds)
    _factories(training)
    _files(training)
    for name in ("task", "held_out"):
        missing = [member for member in MEMBERS if not hasattr(getattr(training, name), member)]
        if missing:
            raise TypeError(
                f"{name} is a {type(getattr(training, name)).__name__} without {', '.join(missing)}: "
                "give a task such as ctrnn.tasks.FlipFlop(), or an object with the members of ctrnn.tasks.Task."
            )
    for model in models:
        _model(model, training.task, training.runner)
    if (training.held_out.n_in, training.held_out.n_out) != (training.task.n_in, training.task.n_out):
        raise ValueError("held_out has other inputs or outputs than task: give the same task with other trials.")


def _numbers(training: Training, seeds: Sequence[int]) -> None:
    for name in ("updates", "batch", "evaluation_batch", "log_every", "checkpoint_every", "evaluate_every"):
        value = getattr(training, name)
        if name == "evaluate_every" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is a count, got {value!r}: give an int.")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    if not isinstance(training.dt, Distribution):
        check_step("dt", training.dt)
    if training.clip is not None and not 0 < training.clip < math.inf:
        raise ValueError(f"clip, the largest norm of a gradient, must be positive and finite, got {training.clip}.")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seed must be an int, got {seed!r}: trials are drawn from it, update by update.")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}.")


def _factories(training: Training) -> None:
    if isinstance(training.optimizer, Optimizer) or not callable(training.optimizer):
        raise TypeError(
            f"optimizer must make an optimiser, got a {type(training.optimizer).__name__}: fit trains a copy of the "
            "model and hands it the copy's parameters; pass functools.partial(torch.optim.Adam, lr=1e-3)."
        )
    schedule = training.schedule
    if isinstance(schedule, LRScheduler) or not (schedule is None or callable(schedule)):
        raise TypeError(
            f"schedule must make a schedule, got a {type(schedule).__name__}: "
            "pass functools.partial(torch.optim.lr_scheduler.StepLR, step_size=100)."
        )
    if not isinstance(training.penalties, Sequence):
        raise TypeError(
            f"penalties must be a sequence, got {training.penalties!r}: pass penalties=[RatePenalty(1e-3)], "
            "for instance."
        )
    for penalty in training.penalties:
        if not callable(penalty):
            raise TypeError(f"A penalty is a callable (model, trajectory) -> scalar, got {penalty!r}.")


def _files(training: Training) -> None:
    """Two files, not one."""
    if training.checkpoint is None or training.metrics is None:
        return
    if os.path.realpath(training.checkpoint) == os.path.realpath(training.metrics):
        raise ValueError(
            f"checkpoint and metrics are the same file, {os.fspath(training.metrics)}: give each a path of its own."
        )


def _sequences(model: nn.Module, name: str) -> None:
    """Raise unless `model(us, dt=, lengths=)` can be called."""
    try:
        inspect.signature(model.forward).bind(None, dt=None, lengths=None)
    except TypeError as problem:
        raise TypeError(
            f"{name} is neither a ctrnn.Model nor a module over whole sequences, model(us, dt=, lengths=) -> "
            "Trajectory: make a Model of torch's networks with Model.from_torch, of a cell with ctrnn.wrap."
        ) from problem


def _model(model: Any, task: Task, runner: Runner) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a ctrnn.Model or a module over whole sequences, got a {type(model).__name__}.")
    name = class_name(model)
    if not isinstance(model, Model):
        _sequences(model, name)
    n_in = getattr(model, "n_in", None)
    if n_in is not None and n_in != task.n_in:
        raise ValueError(
            f"{name} has n_in={n_in}, {type(task).__name__} has {task.n_in} inputs: "
            f"build the model with n_in={task.n_in}."
        )
    if not isinstance(model, Model):
        given = [value for value in (runner.solver, runner.steps, runner.noise) if value is not None]
        if given or runner.adjoint != Backprop():
            raise ValueError(
                f"{name} is no ctrnn.Model but a module over whole sequences, which makes its own steps: "
                "leave out solver, steps, adjoint and noise."
            )
        return
    try:
        n_out = model.readout(model.initial_state()).shape[-1]
    except NotImplementedError as problem:
        raise ValueError(f"{name} has no initial_state(*batch), in which trials begin: define it.") from problem
    if n_out != task.n_out:
        raise ValueError(
            f"{name} has {n_out} outputs, {type(task).__name__} wants {task.n_out}: "
            f"build the model with n_out={task.n_out}."
        )
