"""Exact gradients without a way back: the sensitivities travel with the state."""

from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from ctrnn import _tree as tree
from ctrnn._derivative import has_direction
from ctrnn._march import after_start, march
from ctrnn._types import State
from ctrnn.adjoints._leaves import Leaves, Run, check_closed, taken_out
from ctrnn.adjoints.base import Adjoint, Problem


@dataclass(frozen=True)
class Forward(Adjoint):
    """dx/dp carried along with x for every number p that requires a gradient (real-time recurrent learning).

    Williams & Zipser (1989). No graph of the run is kept: memory and time grow with the states saved and with how many
    numbers p there are (at most `most`; a run whose times require a gradient has some for each step), memory not with
    the number of steps. `.backward()` works on the result. Under torch.func.jvp and jacfwd the run is the plain loop,
    which carries their directions and no others.

    Raises:
        ValueError: more than `most` numbers require a gradient; or the model, or a `Function` drive, uses a Tensor that
            requires a gradient and is neither parameter nor buffer of the model, or differentiates while it runs.
        NotImplementedError: second derivatives, unless all of them are taken by jvp or jacfwd.
    """

    most: ClassVar[int] = 2048

    def run(self, problem: Problem) -> State:
        grid = problem.grid
        run, leaves = taken_out(problem._replace(grid=grid._replace(initial=False), progress=None))
        tensors = tree.leaves(leaves)
        wanted = [i for i, leaf in enumerate(tensors) if leaf.requires_grad and torch.is_grad_enabled()]
        if not wanted or not any(grid.sizes()) or any(map(has_direction, tensors)):
            return march(problem.step, grid, problem.x0, problem.source, problem.noise, problem.progress)[1]
        count = sum(tensors[i].numel() for i in wanted)
        if count > self.most:
            raise ValueError(
                f"Forward carries a sensitivity for each number that requires a gradient, and {count} do; {self.most} "
                "are its limit: use adjoint=Recompute(), whose cost does not depend on their number."
            )
        check_closed(run, leaves, again=False)
        plan = _Plan(run, tree.map(lambda _: 0, leaves), wanted)
        saves = _Sensitivities.apply(plan, *tensors)[: len(tree.leaves(problem.x0))]
        return after_start(problem.x0, tree.unflatten(problem.x0, saves), grid)


@dataclass(frozen=True, eq=False)
class _Plan:
    """A run, the structure of its leaves, and which of them are differentiated."""

    run: Run
    like: Leaves
    wanted: list[int]

    def states(self, tensors: tuple[Tensor, ...], moved: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The states saved, with some leaves replaced."""
        full = list(tensors)
        for i, leaf in zip(self.wanted, moved, strict=True):
            full[i] = leaf
        return tuple(tree.leaves(self.run(tree.unflatten(self.like, full))[1]))

    def with_sensitivities(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The states saved, and their derivatives with a leading axis of numbers."""
        at = tuple(tensors[i] for i in self.wanted)
        sizes = [leaf.numel() for leaf in at]
        unit = torch.eye(sum(sizes), device=at[0].device).split(sizes, 1)
        basis = tuple(part.to(leaf.dtype).reshape(sum(sizes), *leaf.shape) for part, leaf in zip(unit, at, strict=True))

        def along(*direction: Tensor) -> Any:
            return torch.func.jvp(lambda *moved: self.states(tensors, moved), at, direction)

        # The states are the same in every direction, and so is the noise.
        states, sensitivities = torch.vmap(along, randomness="same")(*basis)
        return *[leaf[0] for leaf in states], *sensitivities


class _Sensitivities(torch.autograd.Function):
    """(leaves) -> (states saved, their derivatives)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(plan: _Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        return plan.with_sensitivities(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.plan, *tensors = inputs
        ctx.like = [(tensors[i].shape, tensors[i].dtype) for i in ctx.plan.wanted]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output[len(output) // 2 :])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        half = len(grads) // 2
        if any(grad is not None for grad in grads[half:]):
            raise NotImplementedError(
                "Forward has no second derivatives in reverse mode: use adjoint=Backprop() or adjoint=Recompute()."
            )
        pairs = [(g, s) for g, s in zip(grads[:half], ctx.saved_tensors, strict=True) if g is not None]
        total = sum(s.flatten(1) @ g.flatten() for g, s in pairs)
        result: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
        if isinstance(total, Tensor):
            parts = total.split([shape.numel() for shape, _ in ctx.like])
            for i, part, (shape, dtype) in zip(ctx.plan.wanted, parts, ctx.like, strict=True):
                result[1 + i] = part.reshape(shape).to(dtype)
        return tuple(result)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        # Reached when the direction hides behind another transform. A rule could not be nested: torch turns forward
        # mode off inside it, and says nothing.
        raise NotImplementedError(
            "Forward meets forward mode behind another transform (hessian, jvp of a vmap): put jvp innermost, "
            "or use adjoint=Backprop()."
        )
