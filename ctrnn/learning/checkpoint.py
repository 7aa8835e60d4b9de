"""What a training needs to go on as if it had never stopped, in a safetensors file with JSON beside the numbers.

Random numbers need no state: every update draws from a seed of its own. The file is data only; reading it runs nothing.
"""

import collections
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ctrnn._files import FileFormatError, read_tensors, write_tensors
from ctrnn.dynamics import Model, TorchTwin
from ctrnn.learning.metrics import Record

Config = Mapping[str, Any]


@dataclass
class Learner:
    """A network in training, with everything that changes while it learns."""

    model: nn.Module
    seed: int
    optimizer: Optimizer
    schedule: LRScheduler | None = None
    history: list[Record] = field(default_factory=list)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]


def save(path: str | os.PathLike, config: Config, update: int, learners: Sequence[Learner]) -> None:
    """Write the state after `update` updates, whole or not at all.

    Raises:
        TypeError: the optimiser or the schedule keeps something that is neither a number, a word nor a tensor.
        OSError: the file could not be written; the checkpoint that stood there stands.
    """
    tensors: dict[str, Tensor] = {}
    states = [_state(learner, f"{i}.", tensors) for i, learner in enumerate(learners)]
    document = {"kind": "training", "config": config, "update": update, "learners": states}
    write_tensors(path, tensors, document)


def restore(path: str | os.PathLike, config: Config, learners: Sequence[Learner]) -> int:
    """Bring the learners to where the file left them; returns the number of updates done.

    Raises:
        ValueError: the file belongs to another training; says what differs.
        FileFormatError: the file is truncated, foreign or hostile. Nothing in it is ever executed.
    """
    tensors, document = read_tensors(path)
    if document.get("kind") != "training":
        raise FileFormatError(
            f"{os.fspath(path)} holds a {document.get('kind')!r}, not a training: give the checkpoint another path."
        )
    differences = compare(config, document.get("config"))
    if differences:
        raise ValueError(
            f"The checkpoint {os.fspath(path)} belongs to another training: {'; '.join(differences)}. "
            "Restore these arguments to go on with it, or give another path to start afresh."
        )
    try:
        update, states = document["update"], document["learners"]
        if type(update) is not int or update < 0 or len(states) != len(learners):
            raise ValueError("its counters are wrong")
        for i, (learner, state) in enumerate(zip(learners, states, strict=True)):
            _restore(learner, f"{i}.", state, update, tensors)
    # Optimisers and schedules are fed untrusted numbers, and whichever way one trips the answer is the same.
    except Exception as problem:
        raise FileFormatError(
            f"cannot resume from {os.fspath(path)}: {problem or type(problem).__name__}. "
            "Give a checkpoint that this training wrote, or delete the file to start afresh."
        ) from problem
    return update


def compare(config: Config, saved: Any) -> list[str]:
    """What differs between this training and the saved one, in words."""
    saved = saved if isinstance(saved, dict) else {}
    return [
        f"{key} = {_brief(saved.get(key, 'absent'))} there, {_brief(config.get(key, 'absent'))} here"
        for key in sorted({*config, *saved})
        if config.get(key) != saved.get(key)
    ]


def configuration(model: nn.Module) -> dict[str, Any]:
    """What a network is built of beyond its repr and its shapes: its `config`, or else its activations and its tau."""
    try:
        return model.config if isinstance(model, (Model, TorchTwin)) else {}
    except (NotImplementedError, ValueError):  # none is defined, or it holds a function without a name
        parts = dict(model.named_modules())
        functions = {name: part.activation for name, part in parts.items() if hasattr(part, "activation")}
        taus = {name: buffer.tolist() for name, buffer in model.named_buffers() if "tau0" in name}
        return {"activation": {name: described(value) for name, value in functions.items()}, "tau": taus}


def described(value: Any) -> str:
    """What a value is, the same in every process: its repr without addresses."""
    name = getattr(value, "__qualname__", None)
    return name if name is not None else re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A nest of dicts, lists, tuples, numbers, words and tensors as JSON; tensors go to `tensors` under `name`.

    Raises:
        TypeError: the nest holds anything else.
    """
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, float):
        return {"float": repr(float(value))}
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {"tensor": name}
    if type(value) in (list, tuple):
        items = [pack(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
        return items if type(value) is list else {"tuple": items}
    if isinstance(value, dict):
        kind = "counter" if isinstance(value, collections.Counter) else "dict"
        return {kind: [[key, pack(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    raise TypeError(
        f"{name} is a {type(value).__name__}, which a checkpoint cannot hold: "
        "use an optimiser and a schedule whose state_dict() holds numbers, words and tensors only, or no checkpoint."
    )


def unpack(document: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `pack`."""
    if isinstance(document, list):
        return [unpack(item, tensors) for item in document]
    if not isinstance(document, dict):
        return document
    ((kind, value),) = document.items()
    if kind == "float":
        return float(value)
    if kind == "tensor":
        return tensors[value]
    if kind == "tuple":
        return tuple(unpack(item, tensors) for item in value)
    if kind in ("dict", "counter"):
        pairs = {key: unpack(item, tensors) for key, item in value}
        return pairs if kind == "dict" else collections.Counter(pairs)
    raise ValueError(f"it holds an unknown {kind!r}")


_NUMBERS = ("loss", "penalty", "grad_norm", "dt", "lr")


def _state(learner: Learner, prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    tensors |= {f"{prefix}model.{name}": value for name, value in learner.model.state_dict().items()}
    rows = [[getattr(record, name) for name in _NUMBERS] for record in learner.history]
    tensors[f"{prefix}history"] = torch.tensor(rows, dtype=torch.float64).reshape(-1, len(_NUMBERS))
    scores = {record.update: record.score for record in learner.history if record.score is not None}
    schedule = None if learner.schedule is None else learner.schedule.state_dict()
    return {
        "optimizer": pack(learner.optimizer.state_dict(), f"{prefix}optimizer", tensors),
        "schedule": pack(schedule, f"{prefix}schedule", tensors),
        "scores": pack(scores, f"{prefix}scores", tensors),
    }


def _restore(learner: Learner, prefix: str, state: Any, update: int, tensors: dict[str, Tensor]) -> None:
    _restore_weights(learner.model, f"{prefix}model.", tensors)
    _restore_optimizer(learner.optimizer, unpack(state["optimizer"], tensors))
    schedule = unpack(state["schedule"], tensors)
    if learner.schedule is not None:
        _same_kinds("the schedule", learner.schedule.state_dict(), schedule)
        learner.schedule.load_state_dict(schedule)
    rows = tensors[f"{prefix}history"]
    if rows.shape != (update, len(_NUMBERS)):
        raise ValueError("its history does not fit its number of updates")
    scores = unpack(state["scores"], tensors)
    learner.history[:] = [
        Record(i, **dict(zip(_NUMBERS, row, strict=True)), score=scores.get(i))
        for i, row in enumerate(rows.tolist(), 1)
    ]


def _restore_weights(model: nn.Module, prefix: str, tensors: dict[str, Tensor]) -> None:
    for name, value in model.state_dict().items():
        saved = tensors[prefix + name]
        if (saved.shape, saved.dtype) != (value.shape, value.dtype):
            raise ValueError(
                f"{name} is {saved.dtype} of shape {tuple(saved.shape)}, not {value.dtype} {tuple(value.shape)}"
            )
        # In place: the optimiser and the model share these tensors.
        value.copy_(saved)


def _restore_optimizer(optimizer: Optimizer, saved: Any) -> None:
    fresh = optimizer.state_dict()
    for group, saved_group in zip(fresh["param_groups"], saved["param_groups"], strict=True):
        _same_kinds("the optimiser", group, saved_group)
        if group["params"] != saved_group["params"]:
            raise ValueError("the optimiser holds other parameters")
    count = sum(len(group["params"]) for group in fresh["param_groups"])
    if not all(key in range(count) and isinstance(state, dict) for key, state in saved["state"].items()):
        raise ValueError("the optimiser's state is of other parameters")
    optimizer.load_state_dict(saved)


def _same_kinds(owner: str, fresh: dict[str, Any], saved: Any) -> None:
    """A saved state has the keys of a fresh one, and values of the same kinds: numbers stay numbers."""
    if not isinstance(saved, dict) or saved.keys() != fresh.keys():
        raise ValueError(f"the state of {owner} has other parts")
    for key, value in fresh.items():
        number = isinstance(value, (int, float)) and isinstance(saved[key], (int, float))
        if type(value) is not type(saved[key]) and not number and value is not None:
            raise ValueError(f"{key} of {owner} is a {type(saved[key]).__name__}, not a {type(value).__name__}")


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 160 else text[:157] + "..."
