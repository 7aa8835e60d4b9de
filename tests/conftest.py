"""What every test stands on: float64, one thread, no display, a seeded generator."""

from collections.abc import Iterator

import matplotlib
import pytest
import torch
from hypothesis import settings

from ctrnn import plain

matplotlib.use("Agg")
# Two workers share two cores: more threads would only wait for one another, and sums would depend on their number.
torch.set_num_threads(1)
# Times are never asserted, and the same commit must pass or fail every time.
settings.register_profile("ctrnn", deadline=None, derandomize=True)
settings.load_profile("ctrnn")


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """Laws are tested above the rounding floor; a test of float32 says so."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def on_the_plain_path() -> Iterator[None]:
    """What holds bit for bit holds for torch's operations in torch's order; compiled kernels agree to rounding."""
    with plain():
        yield


@pytest.fixture
def generator() -> torch.Generator:
    """A generator of its own for every test: no test depends on another, nor on the global seed."""
    return torch.Generator().manual_seed(0)
