"""Frozen adaptive steps of a rate network in plain torch: what second derivatives of a compiled run differentiate."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ctrnn.native.rate import PLAIN


def run_again(plan: Any, inputs: Any, steps: Any, holder: Tensor, fraction: Tensor) -> Tensor:
    """The saves (save, row, unit) of the steps that a run found: zero where a save was not reached."""
    count = steps.first.diff()
    x, where = inputs.x0, (holder == -1).nonzero().unbind(1)
    xs = x.new_zeros(*holder.shape, x.shape[-1]).index_put(where, x[where[1]])
    for k in range(int(count.max()) if len(count) else 0):
        row = (count > k).nonzero()[:, 0]
        slopes = _slopes(plan, inputs, steps, row, steps.first[row] + k, x[row])
        dt = steps.dt[steps.first[row] + k][:, None].to(x.dtype)
        end = x.index_copy(0, row, x[row] + dt * _sum(plan.solver.tableau.b, slopes))
        ended = ((holder == k) & fraction.isnan()).nonzero().unbind(1)
        xs = xs.index_put(ended, end[ended[1]])
        within = ((holder == k) & ~fraction.isnan()).nonzero().unbind(1)
        at = torch.searchsorted(row, within[1])
        theta = fraction[within][:, None]
        weights = plan.solver.tableau.within(theta).to(x.dtype).T[..., None]
        xs = xs.index_put(within, x[within[1]] + dt[at] * _sum(weights, [slope[at] for slope in slopes]))
        x = end
    return xs


def _slopes(plan: Any, inputs: Any, steps: Any, row: Tensor, at: Tensor, x: Tensor) -> list[Tensor]:
    """The slopes in all stages of one step of some rows from the states x; `at` says which step."""
    line, tableau = plan.line, plan.solver.tableau
    interval, dt = steps.interval[at], steps.dt[at]
    scale = line.width[interval] / line.length[interval, row]
    begin, width = line.begin[interval] + steps.offset[at] * scale, dt * scale
    pieces = inputs.drive.expand(-1, -1, len(inputs.x0), -1)[:, line.drive[interval], row]
    slopes: list[Tensor] = []
    for c, weights in zip(tableau.c, tableau.a, strict=True):
        y = x + dt[:, None].to(x.dtype) * _sum(weights, slopes) if slopes else x
        s, value = (begin + c * width)[:, None].to(x.dtype), pieces[-1]
        for piece in pieces[:-1].flip(0):
            value = piece + s * value
        slopes.append((_target(plan, inputs, y, value) - y) / inputs.tau)
    return slopes


def _target(plan: Any, inputs: Any, x: Tensor, v: Tensor) -> Tensor:
    z = x if inputs.gain is None else inputs.gain * x
    z = z if inputs.theta is None else z + inputs.theta
    return PLAIN[plan.post](F.linear(PLAIN[plan.pre](z), inputs.W) + v)


def _sum(weights: Any, slopes: list[Tensor]) -> Any:
    return sum(w * k for w, k in zip(weights, slopes, strict=True) if isinstance(w, Tensor) or w)
