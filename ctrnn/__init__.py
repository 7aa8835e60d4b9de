"""Recurrent networks as dynamical systems: tau dx/dt = F(x, u) - x.

The public names are in `__init__.pyi`; each is imported when first asked for, so that `ctrnn --help` need not wait for
torch.
"""

import importlib
from typing import Any

import lazy_loader

__version__ = "0.1.0"
_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "Model":  # Model.load and Model.from_torch look among the classes that were imported
        for module in ("ctrnn.models", "ctrnn.bidirectional"):
            importlib.import_module(module)
    return _public(name)
