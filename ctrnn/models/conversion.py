"""How the three equations of `rate` become one another, exactly; where one does not, the function refuses.

A conversion is a network and a map of states: with x0' = state(x0, u), both runs stay on `state` of each other, for
the flow and for every one-step method that is linear in (F, x). Readouts are carried over: Beer's and the voltage
form's are equal at all times, those of the rate form at fixed points only, since r is not f(x).
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctrnn.models._units import Units
from ctrnn.models.rate import CTRNN, BeerCTRNN, RateRNN

N = TypeVar("N", bound=Units)


class Conversion(NamedTuple):
    """The converted network, and the map from an old state (*batch, n) under the drive u (*batch, n_in) to its own."""

    model: Units
    state: Callable[[Tensor, Tensor], Tensor]


def rate_to_voltage(model: RateRNN) -> Conversion:
    """x = W_rec r + W_in u + b_rec: tau r' = -r + f(x) becomes tau x' = -x + W_rec f(x) + W_in u + b_rec.

    Exact while u is held: the voltage form filters its input and the rate form does not, so after a jump of u map the
    state again.

    Raises:
        ValueError: tau is not the same for all units, so that it does not commute with W_rec.
    """
    _require_one_tau(model)
    twin = CTRNN(
        model.n, model.n_in, model.n_out, tau=model.tau, activation=model.activation, generator=torch.Generator()
    )
    return Conversion(
        _filled(twin, model, W_rec=model.W_rec, W_in=model.W_in, b_rec=model.b_rec),
        lambda r, u: _input_current(model, r, u),
    )


def voltage_to_rate(model: CTRNN) -> Conversion:
    """r = W_rec^-1 (x - W_in u - b_rec), the inverse of `rate_to_voltage`: exact while u is held.

    Raises:
        ValueError: tau is not the same for all units, or W_rec is singular, so that not every x is a W_rec r + W_in u
            + b_rec.
    """
    _require_one_tau(model)
    if torch.linalg.matrix_rank(model.W_rec.detach()) < model.n:
        raise ValueError("W_rec is singular: some states x of the voltage form belong to no state of the rate form.")
    twin = RateRNN(
        model.n, model.n_in, model.n_out, tau=model.tau, activation=model.activation, generator=torch.Generator()
    )

    def state(x: Tensor, u: Tensor) -> Tensor:
        rest = x - F.linear(u, model.W_in, model.b_rec)
        return torch.linalg.solve(model.W_rec, rest.unsqueeze(-1)).squeeze(-1)

    return Conversion(_filled(twin, model, W_rec=model.W_rec, W_in=model.W_in, b_rec=model.b_rec), state)


def beer_to_voltage(model: BeerCTRNN) -> Conversion:
    """x = gain (y + theta): the receiving unit's gain multiplies W_rec and W_in, b_rec = gain theta, f is logistic.

    Exact for any drive and any tau.
    """
    twin = CTRNN(model.n, model.n_in, model.n_out, tau=model.tau, activation=torch.sigmoid, generator=torch.Generator())
    gain = model.gain.expand(model.n)
    weights = {"W_rec": gain[:, None] * model.W_rec, "W_in": gain[:, None] * model.W_in, "b_rec": gain * model.theta}
    return Conversion(_filled(twin, model, **weights), lambda y, u: model.gain * (y + model.theta))


def voltage_to_beer(model: CTRNN) -> Conversion:
    """y = x - b_rec: theta = b_rec, gain 1, the same weights. Exact for any drive and any tau.

    Raises:
        ValueError: the activation is not torch.sigmoid.
    """
    if model.activation is not torch.sigmoid:
        raise ValueError(
            f"Beer's units are logistic: a CTRNN with activation {model.activation!r} is no BeerCTRNN; "
            "build it with activation=torch.sigmoid."
        )
    twin = BeerCTRNN(model.n, model.n_in, model.n_out, tau=model.tau, generator=torch.Generator())
    return Conversion(
        _filled(twin, model, W_rec=model.W_rec, W_in=model.W_in, theta=model.b_rec), lambda x, u: x - model.b_rec
    )


def _input_current(model: RateRNN, r: Tensor, u: Tensor) -> Tensor:
    return F.linear(r, model.W_rec, model.b_rec) + F.linear(u, model.W_in)


def _require_one_tau(model: Units) -> None:
    tau = model.tau
    if bool((tau != tau.reshape(-1)[0]).any()):
        raise ValueError(
            "voltage and rate form are the same network only if tau is the same for all units: "
            "otherwise tau does not commute with W_rec. Make it so with model.tau = ..."
        )


def _filled(twin: N, source: Units, **weights: Tensor) -> N:
    """`twin` with copies of the weights, the readout and tau to the bit, on the source's device and in its dtype."""
    twin.to(source.W_rec)
    with torch.no_grad():
        for name, value in (weights | {"W_out": source.W_out, "b_out": source.b_out}).items():
            if value is not None:
                getattr(twin, name).copy_(value)
        twin.tau = source.get_buffer("tau0")
        if isinstance(source.log_ratio, nn.Parameter):
            twin.learn_tau()
        twin.log_ratio.copy_(source.log_ratio)
    return twin
