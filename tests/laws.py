"""What the laws of all models stand on. Models are found by walking the package: a new file need not be named here."""

import importlib
import inspect
import pkgutil

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components

import ctrnn.models
from ctrnn import _tree as tree
from ctrnn.dynamics import Model, Relaxation
from ctrnn.models.memory.segments import Segmented


def modules(package):
    """Every module of a package, imported."""
    names = [info.name for info in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    return [package, *map(importlib.import_module, names)]


def model_classes():
    """Every class of the package with an equation of its own or inherited; the others are common parts of several."""
    homes = [*modules(ctrnn.models), importlib.import_module("ctrnn.dynamics")]
    found = {
        kind for home in homes for kind in vars(home).values() if inspect.isclass(kind) and issubclass(kind, Model)
    }
    return sorted(filter(has_equation, found), key=lambda kind: (kind.__module__, kind.__name__))


def has_equation(kind):
    if issubclass(kind, Relaxation):
        return kind.target is not Relaxation.target
    return kind.forward is not Model.forward


def relaxation_classes():
    return [kind for kind in model_classes() if issubclass(kind, Relaxation)]


def point(model, *batch, seed=0):
    """A state near the customary start, an input and a time, with leading axes `batch`; every number is random."""
    generator = torch.Generator().manual_seed(seed)
    x = tree.map(
        lambda leaf: leaf + 0.5 * torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype),
        model.initial_state(*batch),
    )
    if isinstance(model, Segmented):  # lengths are never negative, and one row is open
        x = x._replace(strengths=x.strengths.abs(), place=model.initial_state(*batch).place)
    dtype = tree.leaves(x)[0].dtype
    u = torch.randn(*batch, model.n_in, generator=generator, dtype=dtype)
    return torch.tensor(0.3, dtype=torch.float64), tree.map(lambda leaf: leaf.detach(), x), u


def alphas(model, value):
    """alpha as solvers give it: a tree of Tensors shaped like tau."""
    return tree.map(lambda tau: torch.full_like(tau, value), model.tau)


def step(model, t, x, u, alpha=0.3):
    """One Euler step of a relaxation with dt = alpha tau, or of a field with dt = alpha / 1000."""
    if not isinstance(model, Relaxation):
        return tree.map(lambda a, b: a + alpha / 1000 * b, x, model(t, x, u))
    part = tree.spread(alphas(model, alpha), x)
    return tree.blend(x, model.target(t, x, u, part), part)


def flat_step(model, x):
    """The step as a function from (D,) to (D,), and the state as (D,)."""
    return lambda flat, t, u, **options: tree.ravel(step(model, t, tree.unravel(flat, x, 0), u, **options), 0)


def graph_has_cycle(jacobian):
    """Whether the graph with an edge j -> i for every nonzero entry (i, j) holds a directed cycle; a loop is one."""
    links = np.asarray(jacobian != 0)
    count, _ = connected_components(links, connection="strong")
    return bool(links.diagonal().any()) or count < len(links)
