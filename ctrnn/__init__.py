"""Recurrent networks as dynamical systems: tau dx/dt = F(x, u) - x.

The public names are in `__init__.pyi`; each is imported when first asked for, so that `ctrnn --help` need not wait for torch.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
