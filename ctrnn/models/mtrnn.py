"""Multiple timescales: a CTRNN whose units come in named groups with time constants and connections of their own."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from ctrnn.init import Masked, constrain
from ctrnn.models._units import check_size
from ctrnn.models.activations import Activation, named
from ctrnn.models.rate import CTRNN

Links = Mapping[tuple[str, str], bool]


class MTRNN(CTRNN):
    """tau_g dx_g/dt = -x_g + sum over connected groups h of W_gh f(x_h) + W_in u + b_rec,   y = W_out f(x) + b_out.

    Yamashita & Tani (2008), PLoS Comput. Biol. 4:e1000220: fast units that see the world and slow units that only see
    the fast ones; a hierarchy appears from the ratio of their time constants. By default neighbouring groups connect
    (and each with itself), and input and output touch the first group only.

    Args:
        groups: name -> (units, tau), usually from fast to slow, in the unit in which dt will be given.
        n_in: inputs.
        n_out: outputs; without them y is the rates f(x).
        mask: {(to, from): bool} changes single connections between groups, where "input" and "output" may stand for
            the two ends; or a bool matrix (n, n) over units, [to, from], that replaces the recurrent connections.
        activation, learn_tau, generator: as for `CTRNN`; a learned tau is one per unit.

    Parameters: as for `CTRNN`, masked for good by `ctrnn.init.Masked`: assign with `model.W_rec = W`, not in place.
    `model.units("slow")` is the slice of a group in any (*batch, n): x[..., model.units("slow")] is its state.
    """

    def __init__(
        self,
        groups: Mapping[str, tuple[int, float]],
        n_in: int,
        n_out: int | None = None,
        *,
        mask: Links | Bool[Tensor, "unit unit"] | None = None,
        activation: Activation = torch.tanh,
        learn_tau: bool = False,
        generator: Generator | None = None,
    ) -> None:
        _check_groups(groups)
        sizes = [units for units, _ in groups.values()]
        tau = torch.cat([torch.full((units,), tau, dtype=torch.float64) for units, tau in groups.values()])
        super().__init__(
            sum(sizes), n_in, n_out, tau=tau, activation=activation, learn_tau=learn_tau, generator=generator
        )
        self.groups = {name: (units, float(tau)) for name, (units, tau) in groups.items()}
        self.links = _links(list(groups), mask if isinstance(mask, Mapping) else {})
        self._masked_units = isinstance(mask, Tensor)
        recurrent = mask if isinstance(mask, Tensor) else self._between_groups()
        if recurrent.shape != (self.n, self.n):
            raise ValueError(
                f"a mask over {self.n} units must have the shape {(self.n, self.n)}, got {tuple(recurrent.shape)}."
            )
        self._mask("W_rec", recurrent)
        self._mask(
            "W_in", self._of_groups({name: self.links[name, "input"] for name in groups})[:, None].expand(self.n, n_in)
        )
        if n_out is not None:
            self._mask(
                "W_out", self._of_groups({name: self.links["output", name] for name in groups}).expand(n_out, self.n)
            )

    def units(self, name: str) -> slice:
        """Where the units of a group stand."""
        if name not in self.groups:
            raise ValueError(f"there is no group {name!r}; the groups are {', '.join(self.groups)}.")
        start = 0
        for group, (count, _) in self.groups.items():
            if group == name:
                break
            start += count
        return slice(start, start + self.groups[name][0])

    def _of_groups(self, chosen: Mapping[str, bool]) -> Bool[Tensor, " unit"]:
        return torch.cat([torch.full((units,), chosen[name]) for name, (units, _) in self.groups.items()])

    def _between_groups(self) -> Bool[Tensor, "unit unit"]:
        rows = [
            self._of_groups({sender: self.links[to, sender] for sender in self.groups}).expand(units, -1)
            for to, (units, _) in self.groups.items()
        ]
        return torch.cat(rows)

    def _mask(self, name: str, mask: Bool[Tensor, "to from"]) -> None:
        """Drop the weights outside the mask for good; the others grow to variance 1 / inputs left."""
        left = mask.sum(-1, keepdim=True).clamp(min=1)
        with torch.no_grad():
            getattr(self, name).mul_((mask.shape[-1] / left).sqrt())
        constrain(self, name, Masked(mask))

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments; a mask over units as rows of bools, one over groups as [to, from, connected]."""
        base = super().config
        kept = {name: base[name] for name in ("n_in", "n_out", "activation", "learn_tau")}
        if self._masked_units:
            mask = self.parametrizations.W_rec[0].mask.tolist()  # type: ignore[union-attr, index]
        else:
            mask = [[to, sender, linked] for (to, sender), linked in self.links.items()]
        return {"groups": {name: list(group) for name, group in self.groups.items()}, **kept, "mask": mask}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        groups = {name: (units, tau) for name, (units, tau) in config["groups"].items()}
        by_group = isinstance(config["mask"][0][0], str)
        mask = (
            {(to, sender): linked for to, sender, linked in config["mask"]}
            if by_group
            else torch.tensor(config["mask"])
        )
        return cls(**config | {"groups": groups, "mask": mask, "activation": named(config["activation"])})

    @classmethod
    def example(cls) -> Self:
        return cls({"fast": (2, 0.5), "middle": (1, 1.0), "slow": (2, 4.0)}, 2, 2, generator=Generator().manual_seed(0))


def _check_groups(groups: Mapping[str, tuple[int, float]]) -> None:
    if not isinstance(groups, Mapping) or not all(isinstance(g, Sequence) and len(g) == 2 for g in groups.values()):
        raise TypeError(f'groups must map each name to (units, tau), such as {{"fast": (20, 2.0)}}, got {groups!r}.')
    if not groups:
        raise ValueError("an MTRNN needs at least one group: name -> (units, tau).")
    for name, (units, tau) in groups.items():
        if name in ("input", "output"):
            raise ValueError(f"a group cannot be called {name!r}: in a mask that name is the network's own {name}.")
        check_size(f"units of group {name!r}", units, 1)
        if not 0 < tau < math.inf:
            raise ValueError(f"tau of group {name!r} must be positive and finite, got {tau}.")


def _links(names: list[str], changes: Links) -> dict[tuple[str, str], bool]:
    """Which groups reach which: [to, from], the default with `changes`."""
    links = {(to, sender): abs(i - j) <= 1 for i, to in enumerate(names) for j, sender in enumerate(names)}
    links |= {(name, "input"): i == 0 for i, name in enumerate(names)} | {
        ("output", name): i == 0 for i, name in enumerate(names)
    }
    unknown = [pair for pair in changes if pair not in links]
    if unknown:
        raise ValueError(
            f"the mask names {unknown[0]}, but a connection is (to, from) between {', '.join(names)}, "
            "or from 'input', or to 'output'."
        )
    return links | {pair: bool(linked) for pair, linked in changes.items()}
