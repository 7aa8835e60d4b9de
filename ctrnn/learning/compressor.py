"""The neural history compressor: each level passes up what it did not foresee, and the time at which it came."""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ctrnn import _model_files as files
from ctrnn import _tree as tree
from ctrnn._integrate import integrate
from ctrnn._types import State
from ctrnn.adjoints import Adjoint, Backprop
from ctrnn.dynamics import Model
from ctrnn.models._units import check_size
from ctrnn.solvers import Euler, Step

Events = Int[Tensor, "event *batch field"]


class Code(NamedTuple):
    """What one level did not foresee: with its predictor, this is the whole stream."""

    surprises: Int[Tensor, "surprise field"]  # the events themselves
    times: Int[Tensor, "surprise"]  # their places in the stream, counted from 0
    length: int  # of the stream

    @property
    def events(self) -> Int[Tensor, "surprise field+1"]:
        """The stream of the next level: the surprises, with the time since the one before as one more field."""
        gaps = torch.diff(self.times, prepend=self.times.new_full((1,), -1))
        return torch.cat([self.surprises, gaps[:, None]], -1)


class Predictor(files.Saved):
    """Foreseen event k: argmax of softmax(y_k) in every field, with y_k the outputs after events 0 ... k - 1.

    An event is a row of integers, one per field; level 0 of a compressor has symbols only, and each level above one
    field more, the time since the last event. A number beyond `sizes` is read as the largest one and never foreseen.

    Args:
        model: any network with sum(sizes) inputs and at least as many outputs; further outputs are what an automatiser
            says about its chunker (`imitation`).
        sizes: how many different numbers each field is told apart by.
        confidence: an event counts as foreseen only where every field has at least this probability, 0 to 1.
        dt: how long an event lasts, in the unit of the network's tau; at dt = tau the network is the discrete one.

    Raises:
        TypeError, ValueError: the network is no Model or does not fit the sizes, confidence is no probability, or
            `integrate` would refuse the run, as it does a dt beyond tau.
    """

    def __init__(self, model: Model, sizes: Sequence[int], *, confidence: float = 0.0, dt: float = 1.0) -> None:
        super().__init__()
        if not isinstance(model, Model):
            raise TypeError(f"model must be a Model, got a {type(model).__name__}: wrap(cell) makes one of any cell.")
        self.model, self.sizes, self.confidence, self.dt = model, tuple(sizes), confidence, dt
        self._check()

    @torch.no_grad()
    def _check(self) -> None:
        model = self.model
        if not self.sizes:
            raise ValueError("an event has at least one field: give sizes such as (3,).")
        for field, size in enumerate(self.sizes):
            check_size(f"sizes[{field}]", size, 1)
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence = {self.confidence} must be a probability, from 0 to 1.")
        n_out = model.readout(model.initial_state()).shape[-1]
        if model.n_in != sum(self.sizes) or n_out < sum(self.sizes):
            raise ValueError(
                f"fields of {self.sizes} need a network with {sum(self.sizes)} inputs and at least as many outputs, "
                f"got {model.n_in} and {n_out}."
            )
        # Of all that could be wrong with a run, the run of one event tells.
        integrate(model, self.encode(torch.zeros(1, len(self.sizes), dtype=torch.int64)), dt=self.dt)

    def encode(self, events: Events) -> Float[Tensor, "event *batch n_in"]:
        """Every field as one unit among `sizes`.

        Raises:
            TypeError, ValueError: the events are no int64 Tensor, or have not one field for each of the sizes.
        """
        self._check_events(events, 1)
        rows = [F.one_hot(f.clamp(0, n - 1), n) for f, n in zip(events.unbind(-1), self.sizes, strict=True)]
        return torch.cat(rows, -1).to(tree.leaves(self.model.initial_state())[0])

    def forward(
        self,
        events: Events,
        adjoint: Adjoint = Backprop(),  # noqa: B008  a frozen value
    ) -> Float[Tensor, "event *batch n_out"]:
        """y_k for every event k: what the network says before it comes. Raises as `encode`."""
        self._check_events(events, 2)
        x0 = self.model.initial_state(*events.shape[1:-1])
        first = self.model.readout(x0)[None]
        if len(events) < 2:
            return first[: len(events)]
        run = integrate(self.model, self.encode(events[:-1]), x0, dt=self.dt, adjoint=adjoint)
        return torch.cat([first, self.model.readout(run.xs)])

    def loss(self, ys: Float[Tensor, "event *batch n_out"], events: Events) -> Float[Tensor, ""]:
        """Mean surprise -log p of an event, in nats, its fields taken together. Raises as `encode`."""
        self._check_events(events, 2)
        parts = ys[..., : sum(self.sizes)].split(self.sizes, -1)
        fields = [field.clamp(0, n - 1) for field, n in zip(events.unbind(-1), self.sizes, strict=True)]
        return sum(
            (F.cross_entropy(y.flatten(0, -2), f.flatten()) for y, f in zip(parts, fields, strict=True)),
            start=ys.new_zeros(()),
        )

    def foreseen(self, y: Float[Tensor, "*batch n_out"]) -> tuple[Int[Tensor, "*batch field"], Bool[Tensor, "*batch"]]:
        """The most probable event, and whether every field of it is probable enough."""
        best = [part.softmax(-1).max(-1) for part in y[..., : sum(self.sizes)].split(self.sizes, -1)]
        sure = torch.stack([b.values for b in best], -1).amin(-1) >= self.confidence
        return torch.stack([b.indices for b in best], -1), sure

    @torch.no_grad()
    def compress(self, events: Int[Tensor, "event field"]) -> Code:
        """The events that were not foreseen, and when they came. Raises as `encode`, and for more than one stream."""
        self._check_events(events, 2)
        if events.ndim > 2:
            raise ValueError(f"one stream is compressed at a time, (event, field): got events {tuple(events.shape)}.")
        times, steps = [], self._steps()
        foreseen, sure = next(steps)
        for k, event in enumerate(events):
            if not (sure and torch.equal(foreseen, event)):
                times.append(k)
            foreseen, sure = steps.send(event)
        at = torch.tensor(times, dtype=torch.int64)
        return Code(events[at], at, len(events))

    @torch.no_grad()
    def decompress(self, code: Code) -> Int[Tensor, "event field"]:
        """The stream, exactly: what came is what was foreseen, or else a surprise.

        Exactly, on the machine and with the number of threads that compressed it: both run the same steps.

        Raises:
            ValueError: no stream has this code with this predictor: the times or the length are wrong, or the code is
                another predictor's, or this one's before it went on learning.
        """
        _check_code(code)
        self._check_events(code.surprises, 2)
        events, steps = code.surprises.new_empty(code.length, code.surprises.shape[-1]), self._steps()
        surprises = dict(zip(code.times.tolist(), code.surprises, strict=True))
        foreseen, sure = next(steps)
        for k in range(code.length):
            events[k] = surprises.get(k, foreseen)
            if bool(sure and torch.equal(foreseen, events[k])) == (k in surprises):
                raise ValueError(
                    f"event {k} is {'' if k in surprises else 'not '}among the surprises, yet this predictor "
                    f"{'foresees' if k in surprises else 'does not foresee'} it: give the length and the predictor "
                    "with which the stream was compressed."
                )
            foreseen, sure = steps.send(events[k])
        return events

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them."""
        settings = {"sizes": list(self.sizes), "confidence": self.confidence, "dt": self.dt}
        return {"model": files.describe(self.model), **settings}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A predictor with fresh weights: the inverse of `config`."""
        return cls(**config | {"model": files.build(Model, config["model"])})

    def _check_events(self, events: Tensor, axes: int) -> None:
        if not isinstance(events, Tensor) or events.dtype != torch.int64:
            got = getattr(events, "dtype", type(events).__name__)
            raise TypeError(f"events must be a Tensor of torch.int64, got {got}: convert them with .long().")
        if events.ndim < axes or events.shape[-1] != len(self.sizes):
            raise ValueError(
                f"events of the shape {tuple(events.shape)} do not fit a predictor of {len(self.sizes)} fields: give "
                f"(event, *batch, {len(self.sizes)})."
            )

    def _steps(self) -> Generator[tuple[Tensor, Tensor], Tensor, None]:
        """Yields what is foreseen and takes what came. One event at a time: sums of a batch may round otherwise."""
        step, x, k = Step(self.model, Euler()), self.model.initial_state(), 0
        while True:
            event = yield self.foreseen(self.model.readout(x))
            x, k = step(torch.tensor(k * self.dt), self.dt, x, self.encode(event)), k + 1


class HistoryCompressor(files.Saved):
    """The surprises of level l, with their times, are the stream of level l + 1.

    Schmidhuber (1992), Neural Computation 4:234-242. Nothing is lost, whatever the predictors have learned: a poor one
    passes more up. What a good one foresees is not passed on, so that a level above sees far apart events side by side.

    Args:
        levels: the predictors, lowest first, each with one field more than the one below.

    Raises:
        TypeError, ValueError: there is no level, one is no Predictor, or has not one field more than the one below.
    """

    def __init__(self, levels: Sequence[Predictor]) -> None:
        super().__init__()
        for level in levels:
            if not isinstance(level, Predictor):
                raise TypeError(f"a level must be a Predictor, got a {type(level).__name__}: Predictor(model, sizes).")
        self.levels = nn.ModuleList(levels)
        fields = [len(level.sizes) for level in levels]
        if not fields or fields != list(range(fields[0], fields[0] + len(fields))):
            raise ValueError(f"each level must have one field (a time) more than the one below, got {fields} fields.")

    def compress(self, events: Int[Tensor, "event field"]) -> list[Code]:
        """The code of every level; the last one, with the lengths of all, is enough to rebuild the stream."""
        codes: list[Code] = []
        for level in self.levels:
            codes.append(level.compress(codes[-1].events if codes else events))  # type: ignore[operator]
        return codes

    def decompress(self, top: Code, lengths: Sequence[int]) -> Int[Tensor, "event field"]:
        """The stream from the highest level's code and every level's length, lowest first.

        Whatever is returned would be compressed to this code and these lengths. (A level sure of everything goes on
        foreseeing for ever, so that with a larger length the stream is a longer one.)

        Raises:
            ValueError: there is not one length for every level, or no stream has this code and these lengths.
        """
        if len(lengths) != len(self.levels) or lengths[-1] != top.length:
            raise ValueError(
                f"{len(self.levels)} levels need as many lengths, the last one that of the highest level's code, "
                f"{top.length}: got {list(lengths)}."
            )
        code = top
        for level, length in zip(reversed(self.levels[1:]), reversed(lengths[:-1]), strict=True):
            events = level.decompress(code)  # type: ignore[operator]
            code = Code(events[:, :-1], events[:, -1].cumsum(0) - 1, length)
        return self.levels[0].decompress(code)  # type: ignore[operator]

    @property
    def config(self) -> dict[str, Any]:
        """The levels' classes and configurations."""
        return {"levels": [files.describe(level) for level in self.levels]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A compressor with fresh weights: the inverse of `config`."""
        return cls([files.build(Predictor, level) for level in config["levels"]])


@torch.no_grad()
def chunker_states(chunker: Predictor, code: Code) -> Float[Tensor, "event unit"]:
    """The chunker's units after every event of the stream below: they move at a surprise and rest in between."""
    states = _units(chunker.model.initial_state())[None]
    if len(code.times):
        run = integrate(chunker.model, chunker.encode(code.events), dt=chunker.dt)
        states = torch.cat([states, _units(run.xs)])
    return states[torch.bincount(code.times, minlength=code.length).cumsum(0)]


def imitation(
    automatiser: Predictor, ys: Float[Tensor, "event *batch n_out"], states: Float[Tensor, "event *batch unit"]
) -> Float[Tensor, ""]:
    """Mean squared distance between the automatiser's further outputs and the chunker's units (`chunker_states`).

    Added to the automatiser's loss, it distils the chunker: what the higher level keeps in mind between two surprises
    must be kept in mind below, step by step, until the surprise is none. ys[k] comes before event k, so it is compared
    with the units after event k - 1.

    Raises:
        ValueError: the network has not one further output for each of the chunker's units.
    """
    said = ys[1:, ..., sum(automatiser.sizes) :]
    if said.shape[-1] != states.shape[-1]:
        raise ValueError(
            f"the automatiser has {said.shape[-1]} outputs besides its predictions, the chunker {states.shape[-1]} "
            "units: give it as many."
        )
    return (said - states[:-1]).square().mean()


def _check_code(code: Code) -> None:
    check_size("the code's length", code.length, 0)
    times = code.times.tolist()
    if len(times) != len(code.surprises) or times != sorted({k for k in times if 0 <= k < code.length}):
        raise ValueError(
            f"{len(code.surprises)} surprises need as many times that increase from 0 or more to less than the length, "
            f"{code.length}, got {len(times)} up to {max(times, default='none')}: give the length that the stream had."
        )


def _units(x: State) -> Tensor:
    return x[0] if isinstance(x, tuple) else x
