"""Random draws for trials: from a generator, in float64, so that neither dt, dtype nor device changes a trial."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float64, Int
from torch import Tensor


def source(batch: int, generator: torch.Generator | None) -> torch.Generator:
    """The generator to draw `batch` trials from; None is a fresh one, seeded by the operating system.

    torch's global generator is never touched. Raises TypeError for a generator that is none or a batch that is no
    integer, ValueError for an empty batch.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator is a {type(generator).__name__}, not a torch.Generator: "
            "pass torch.Generator().manual_seed(seed), or None"
        )
    if type(batch) is not int:
        raise TypeError(f"batch is a {type(batch).__name__}; it counts trials and must be an int")
    if batch < 1:
        raise ValueError(f"batch = {batch}: ask for at least one trial")
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    return generator


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Float64[Tensor, "..."]:
    """Uniform on [low, high)."""
    unit = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64).cpu()
    return low + (high - low) * unit


def chances(generator: torch.Generator) -> Iterator[float]:
    """Uniform numbers on [0, 1) without end, for what is drawn one by one."""
    while True:
        yield from uniform(0.0, 1.0, (1024,), generator).tolist()


def integers(low: int, high: int, shape: tuple[int, ...], generator: torch.Generator) -> Int[Tensor, "..."]:
    """Uniform on low ... high, both included."""
    return torch.randint(low, high + 1, shape, generator=generator, device=generator.device).cpu()


def signs(shape: tuple[int, ...], generator: torch.Generator) -> Float64[Tensor, "..."]:
    """+1 or -1, equally likely."""
    return 2.0 * integers(0, 1, shape, generator).double() - 1.0


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Float64[Tensor, "..."]:
    """Standard normal."""
    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64).cpu()


def dtype_or_default(dtype: torch.dtype | None) -> torch.dtype:
    """torch's default for None. Raises TypeError for one that holds no real numbers."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not dtype.is_floating_point:
        raise TypeError(f"dtype = {dtype} cannot hold inputs: take torch.float32 or torch.float64")
    return dtype


def require(holds: bool, problem: str) -> None:
    """Raises ValueError with `problem` unless `holds`."""
    if not holds:
        raise ValueError(problem)


def count(name: str, value: Any, problem: str) -> None:
    """Raises TypeError unless `value` is an integer, and ValueError with `problem` unless it is at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} counts and must be an integer, got {value!r}.")
    require(value >= 1, f"{name} = {value}: {problem}")
