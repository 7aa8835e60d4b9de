"""W u + b for every sample of a drive, in compiled code: a row of it does not depend on the rows beside it."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ctrnn.native._pair import OfRuns
from ctrnn.native.abi import DTYPES, ProjectRun, address
from ctrnn.native.library import call


def project(
    u: Float[Tensor, "*sample input"], W: Float[Tensor, "unit input"], b: Float[Tensor, "unit"] | None
) -> Float[Tensor, "*sample unit"]:
    """W u + b, as `F.linear` up to rounding; torch's own rows differ in their last bits with the number of rows."""
    if u.dtype != W.dtype or u.shape[-1] != W.shape[-1]:
        return F.linear(u, W, b)  # which says what is wrong
    (v,) = _Project.apply(torch.get_num_threads(), u, W, b)
    return v


class _Project(OfRuns):
    """(u, W, b) -> (W u + b,). The way back is made of torch's operations, and so differentiable itself."""

    @staticmethod
    def forward(threads: int, u: Tensor, W: Tensor, b: Tensor | None) -> tuple[Tensor]:
        u, W, b = (
            u.resolve_neg().contiguous(),
            W.resolve_neg().contiguous(),
            None if b is None else b.resolve_neg().contiguous(),
        )
        v = u.new_empty(*u.shape[:-1], len(W))
        rows = v.numel() // max(len(W), 1)
        run = ProjectRun(dtype=DTYPES[u.dtype], threads=threads, rows=rows, k=W.shape[1], n=len(W))
        run.u, run.W, run.b, run.v = map(address, (u, W, b, v))
        call("ctrnn_project", run)
        return (v,)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor]) -> None:
        del output
        _, u, W, _ = inputs
        ctx.save_for_backward(u, W)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, W = ctx.saved_tensors
        _, for_u, for_W, for_b = ctx.needs_input_grad
        flat = grad.reshape(-1, grad.shape[-1])
        return (
            None,
            grad @ W if for_u else None,
            flat.T @ u.reshape(len(flat), u.shape[-1]) if for_W else None,
            flat.sum(0) if for_b else None,
        )

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        threads, u, W, b = args
        _, of_u, of_W, of_b = in_dims
        if of_W is None and of_b is None:
            return cls.apply(threads, u.movedim(of_u, 0), W, b), (0,)
        return super().vmap(info, in_dims, *args)
