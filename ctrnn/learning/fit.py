"""Training a network on a task."""

import copy
import os
from collections.abc import Callable, Sequence

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ctrnn._types import State
from ctrnn.adjoints import Adjoint, Backprop
from ctrnn.learning.arguments import check
from ctrnn.learning.distributions import Distribution
from ctrnn.learning.penalties import Penalty
from ctrnn.learning.runner import Runner
from ctrnn.learning.training import Fitted, Training
from ctrnn.solvers import Solver
from ctrnn.steps import Adaptive, Fixed
from ctrnn.tasks import Task


def fit(
    model: nn.Module,
    task: Task,
    *,
    updates: int,
    batch: int,
    dt: float | Distribution,
    optimizer: Callable[[list[nn.Parameter]], Optimizer],
    schedule: Callable[[Optimizer], LRScheduler] | None = None,
    penalties: Sequence[Penalty] = (),
    clip: float | None = None,
    solver: Solver | None = None,
    steps: Fixed | Adaptive | None = None,
    adjoint: Adjoint = Backprop(),  # noqa: B008  a frozen value
    noise: float | State | None = None,
    seed: int = 0,
    held_out: Task | None = None,
    evaluation_batch: int | None = None,
    evaluate_every: int | None = None,
    metrics: str | os.PathLike | None = None,
    log_every: int = 1,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 100,
    progress: Callable[[float], None] | None = None,
) -> Fitted:
    """Train a copy of `model` on fresh trials of `task`; score it on held-out trials at this step and at finer ones.

    The same arguments give the same weights, bit for bit, whatever was interrupted on the way: if the file `checkpoint`
    exists, the training goes on from there; run the same call again after a crash. torch's global seed is not touched.

    Args:
        model: a `ctrnn.Model`, or a module over whole sequences, `model(us, dt=, lengths=) -> Trajectory`.
        task: where trials, loss and scores come from (`ctrnn.tasks.Task`).
        updates: steps of the optimiser, those behind a checkpoint included.
        batch: trials in each of them.
        dt: length of a sample and of a step, in the unit of the network's tau; or a `Distribution` such as
            `LogUniform(0.05, 0.5)`, from which each update draws one: so a network is trained to be continuous. Its
            ends are tried before the first update.
        optimizer: makes any torch optimiser of parameters, such as `functools.partial(torch.optim.Adam, lr=1e-3)`.
        schedule: makes any torch schedule of an optimiser; it advances once an update.
        penalties: callables (model, trajectory) -> scalar that are added to the loss, such as `RatePenalty(1e-3)`.
        clip: the gradient is scaled down to this 2-norm where it is longer.
        solver, steps, adjoint, noise: as for `integrate`. Under Euler, learned time constants are kept at least a step
            (the longest that can be drawn).
        seed: where trials, steps and noise are drawn from, update by update. It does not draw the weights.
        held_out: task for scores, such as `DigitStrings(split="test")`; `task` itself if None, on other trials.
        evaluation_batch: trials for scores; `batch` if None.
        evaluate_every: updates between scores, always on the same trials. None: only at the end, on fresh ones.
        metrics: file of JSON lines {seed, update, loss, penalty, grad_norm, dt, lr, score}; one that is there is
            replaced, or continued when a checkpoint is.
        log_every: updates between its lines.
        checkpoint: file (safetensors) to go on from, written every `checkpoint_every` updates and at the end.
        progress: called after each update with the fraction done.

    Raises:
        TypeError, ValueError: the arguments do not fit one another, or the checkpoint belongs to another training.
        TrainingError: loss, penalty, gradient or state became NaN or infinite, or an update after the first was
            refused; it carries the network as it was before.
        FileFormatError: the checkpoint is truncated, foreign or hostile.
        OSError: a file could not be written; the last checkpoint stands.
    """
    training = Training(
        task=task,
        held_out=task if held_out is None else held_out,
        updates=updates,
        batch=batch,
        evaluation_batch=batch if evaluation_batch is None else evaluation_batch,
        dt=dt,
        runner=Runner(solver, steps, adjoint, noise),
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
    check(training, [model], [seed])
    (fitted,) = training.fit([training.learner(copy.deepcopy(model), seed)])
    return fitted
