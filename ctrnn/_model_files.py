"""A saved model is its class, its configuration and its weights.

A module that stands in several places, such as one plane for all corners, is one again when it is loaded. The class is
found among those already imported; nothing is ever imported because a file says so.
"""

import os
from collections.abc import Iterator
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ctrnn._files import FileFormatError, read_tensors, write_tensors
from ctrnn.init import Constraint

T = TypeVar("T")


class Saved(nn.Module):
    """A module that a file can hold: `config` and `from_config` are inverse to one another, but for the weights."""

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as JSON can hold them; with the weights they are what `save` writes."""
        raise NotImplementedError(
            f"{class_name(self)} defines no config, its constructor's arguments as JSON: save its state_dict() instead."
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A module with fresh weights: the inverse of `config`, to be overridden where an argument is no JSON value."""
        return cls(**config)

    def save(self, path: str | os.PathLike) -> None:
        """Write class, configuration, constraints and weights to a safetensors file, whole or not at all.

        Raises:
            NotImplementedError: the class defines no `config`.
            ValueError: the configuration holds something without a name, such as an activation of the user's own.
            TypeError: a parametrisation is not a `ctrnn.init.Constraint`.
            OSError: the file could not be written.
        """
        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Read what `save` wrote, on the CPU, bit for bit.

        The class in the file must be this one or an imported subclass.

        Raises:
            ctrnn._files.FileFormatError: the file is truncated, foreign or hostile, or holds another class. Nothing
                in it is ever executed.
            OSError: there is no such file, or it cannot be read.
        """
        return load(cls, path)


def class_name(model: nn.Module) -> str:
    """The class as its author wrote it: torch derives a Parametrized... from it when a weight is constrained."""
    return parametrize.type_before_parametrizations(model).__name__


def describe(model: Any) -> dict[str, Any]:
    """{"class": its name, "config": its constructor's arguments}, as JSON can hold them."""
    return {"class": class_name(model), "config": model.config}


def build(base: type[T], description: dict[str, Any]) -> T:
    """The inverse of `describe`, with fresh weights; the class must be `base` or one of its imported subclasses.

    Raises:
        ValueError: there is no such class.
    """
    name = description["class"]
    for kind in subclasses(base):
        if kind.__name__ == name:
            return kind.from_config(description["config"])  # type: ignore[attr-defined]
    raise ValueError(
        f"it holds a {name!r}, and no imported {base.__name__} has that name: import its module, such as ctrnn.models"
    )


def subclasses(base: type[T]) -> Iterator[type[T]]:
    """`base` and all classes derived from it, parents first."""
    yield base
    for kind in base.__subclasses__():
        yield from subclasses(kind)


def save(model: nn.Module, path: str | os.PathLike) -> None:
    """Write the file, whole or not at all (`ctrnn._files.write_tensors`)."""
    constraints = {name: [type(constraint).__name__ for constraint in stack] for name, stack in _parametrised(model)}
    for name, stack in _parametrised(model):
        foreign = [type(constraint).__name__ for constraint in stack if not isinstance(constraint, Constraint)]
        if foreign:
            raise TypeError(
                f"{name} is parametrised by {foreign[0]}, which no file restores: derive it from ctrnn.init.Constraint."
            )
    document = {
        "kind": "model",
        **describe(model),
        "constraints": constraints,
        "shared": _shared(model),
        "learned_tau": _learned_tau(model),
    }
    write_tensors(path, model.state_dict(), document)


def load(base: type[T], path: str | os.PathLike) -> T:
    """Read what `save` wrote; whatever is wrong with the file is one FileFormatError that says what."""
    tensors, document = read_tensors(path)
    try:
        if document.get("kind") != "model":
            raise ValueError(f"it holds a {document.get('kind')!r}, not a model")
        with torch.random.fork_rng(devices=[]):  # a loaded model is drawn anew before its weights arrive
            model = build(base, document)
        assert isinstance(model, nn.Module)
        _restore_constraints(model, document["constraints"], tensors)
        _restore_shared(model, document["shared"])
        _restore_learned_tau(model, document["learned_tau"])
        _restore_tensors(model, tensors)
    # The constructors are fed an untrusted configuration, and whichever way one trips the answer is the same.
    except Exception as problem:
        reason = f"{type(problem).__name__}: {problem}"
        raise FileFormatError(
            f"cannot load a model from {os.fspath(path)} ({reason}). Give a file that save wrote."
        ) from problem
    return model


def _parametrised(model: nn.Module) -> Iterator[tuple[str, parametrize.ParametrizationList]]:
    for prefix, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for name, stack in module.parametrizations.items():
                yield f"{prefix}.{name}" if prefix else name, stack


def _restore_constraints(model: nn.Module, constraints: dict[str, list[str]], tensors: dict[str, Tensor]) -> None:
    """Register what the constructor did not: what a user added with `constrain`."""
    present = {name: len(stack) for name, stack in _parametrised(model)}
    for path, names in constraints.items():
        prefix, _, name = path.rpartition(".")
        module = model.get_submodule(prefix)
        for i, kind_name in list(enumerate(names))[present.get(path, 0) :]:
            where = f"{prefix + '.' if prefix else ''}parametrizations.{name}.{i}."
            buffers = {key.removeprefix(where): tensor for key, tensor in tensors.items() if key.startswith(where)}
            kind = next((k for k in subclasses(Constraint) if k.__name__ == kind_name), None)
            if kind is None:
                raise ValueError(f"{path} is held by a {kind_name!r}, and no imported Constraint has that name")
            parametrize.register_parametrization(module, name, kind(**buffers))


def _shared(model: nn.Module) -> dict[str, str]:
    """Every further place of a module that stands in several, and its first."""
    first: dict[nn.Module, str] = {}
    shared: dict[str, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        inside = any(path.startswith(f"{place}.") for place in shared)  # what is shared with all that is in it
        if not inside and first.setdefault(module, path) != path:
            shared[path] = first[module]
    return shared


def _restore_shared(model: nn.Module, shared: dict[str, str]) -> None:
    """Put one module where the constructor made one for each place."""
    for path, first in shared.items():
        prefix, _, name = path.rpartition(".")
        setattr(model.get_submodule(prefix), name, model.get_submodule(first))


def _learned_tau(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters() if name.rpartition(".")[2].startswith("log_ratio")]


def _restore_learned_tau(model: nn.Module, learned: list[str]) -> None:
    """Learn what the constructor did not: the time constants of a model on which `learn_tau` was called."""
    already = _learned_tau(model)
    for prefix in dict.fromkeys(name.rpartition(".")[0] for name in learned if name not in already):
        owner: Any = model.get_submodule(prefix)
        owner.learn_tau()


def _restore_tensors(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    for name, fresh in model.state_dict().items():
        if name in tensors and tensors[name].dtype.is_floating_point != fresh.dtype.is_floating_point:
            raise ValueError(f"{name} is of {tensors[name].dtype}, where a {class_name(model)} holds {fresh.dtype}")
    model.load_state_dict(tensors, assign=True)
