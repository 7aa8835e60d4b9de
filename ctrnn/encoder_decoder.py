"""Two networks, of which one reads a sequence to its end and the other then says another."""

import math
from dataclasses import replace
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ctrnn import _model_files as files
from ctrnn import _tree as tree
from ctrnn._integrate import integrate
from ctrnn._types import State
from ctrnn.adjoints.backprop import Backprop
from ctrnn.adjoints.base import Adjoint
from ctrnn.bidirectional import Bidirectional, _turned
from ctrnn.drive import Held
from ctrnn.dynamics import Model
from ctrnn.models._units import check_size
from ctrnn.models.attention import Attentive
from ctrnn.models.gated import GRU, LSTM, _within
from ctrnn.solvers.base import Solver
from ctrnn.steps import Adaptive, Fixed
from ctrnn.trajectory import Trajectory


class Told(NamedTuple):
    """What the decoder knows: its state, and what it is fed besides words at every step (*batch, context)."""

    x: Any
    context: Float[Tensor, "*batch context"]


class EncoderDecoder(files.Saved):
    """y_k = D(w_k, x_{k-1}),   x_0 = E(u_1 ... u_L): the decoder starts where the encoder ended.

    Sutskever, Vinyals & Le (2014), NeurIPS, arXiv:1409.3215: D goes on from E's last state, whole, and w_k is the word
    said before. `SummaryEncoderDecoder` and `AttentiveEncoderDecoder` hand over something else; all take whole
    sequences, so none is a `Model`. Networks whose F depends on the time t find t = 0 wherever a run begins.

    Args:
        encoder: reads the source.
        decoder: reads words; its readout are scores of the next word. Its state has the form of the encoder's.
        reverse: the source is read from its end, as in the paper.

    Raises:
        TypeError, ValueError: one is no Model, or the decoder cannot start from what the encoder hands over.
    """

    def __init__(self, encoder: Model | Bidirectional, decoder: Model, *, reverse: bool = False) -> None:
        super().__init__()
        for name, model, kinds in (("encoder", encoder, (Model, Bidirectional)), ("decoder", decoder, (Model,))):
            if not isinstance(model, kinds):
                raise TypeError(
                    f"{name} must be a Model, got a {type(model).__name__}: wrap(cell) makes one of any cell; an "
                    "encoder may also be a Bidirectional."
                )
        self.encoder, self.decoder, self.reverse = encoder, decoder, reverse
        self._check()

    def _check(self) -> None:
        try:
            given = () if isinstance(self.encoder, Bidirectional) else self.encoder.initial_state()
            tree.same_form(self.decoder.initial_state(), given, "encoder")
        except (TypeError, ValueError) as problem:
            raise ValueError(
                "the decoder goes on from the encoder's state, so both need states of one form: take the same kind and "
                "size, or a SummaryEncoderDecoder or AttentiveEncoderDecoder."
            ) from problem

    def forward(
        self,
        us: Float[Tensor, "time *batch input"],
        words: Float[Tensor, "step *batch word"],
        *,
        dt: float,
        lengths: Int[Tensor, "*batch"] | None = None,
        word_lengths: Int[Tensor, "*batch"] | None = None,
        solver: Solver | None = None,
        steps: Fixed | Adaptive | None = None,
        adjoint: Adjoint = Backprop(),  # noqa: B008  a frozen value
    ) -> Trajectory:
        """Teacher forcing: the decoder's run when it hears `words`, whatever it would have said itself.

        Args:
            us: source (time, *batch, n_in).
            words: what the decoder hears (step, *batch, n_word): a mark of the beginning, then the target but for its
                last word; ys[k] are scores of the word that follows words[k].
            dt: how long each sample and each word is held, in the models' unit of time.
            lengths, word_lengths: how many of them each sequence has, (*batch,); what follows is not read.
            solver, steps, adjoint: as in `integrate`.

        Returns:
            The decoder's Trajectory; its ys are (step, *batch, n_out).

        Raises:
            ValueError: words have another batch than us, are none, or are not of n_word numbers; the rest as
                `integrate`.
        """
        self._check_words(us, words)
        told = self.read(us, dt=dt, lengths=lengths, solver=solver, steps=steps, adjoint=adjoint)
        context = told.context.expand(len(words), *told.context.shape)
        drive = Held(torch.cat([words, context], -1), dt, lengths=word_lengths)
        return integrate(self.decoder, drive, told.x, solver=solver, steps=steps, adjoint=adjoint)

    def read(
        self,
        us: Float[Tensor, "time *batch input"],
        *,
        dt: float,
        lengths: Int[Tensor, "*batch"] | None = None,
        solver: Solver | None = None,
        steps: Fixed | Adaptive | None = None,
        adjoint: Adjoint = Backprop(),  # noqa: B008  a frozen value
    ) -> Told:
        """What the decoder is told about the source; arguments as in `forward`."""
        drive = Held(us, dt, lengths=lengths)
        if self.reverse:
            drive = replace(drive, us=_turned(us, lengths))
        if isinstance(self.encoder, Bidirectional):
            run = self.encoder(drive.us, dt=dt, lengths=lengths, solver=solver, steps=steps, adjoint=adjoint)
        else:
            run = integrate(self.encoder, drive, solver=solver, steps=steps, adjoint=adjoint)
        return self.hand_over(run)

    def hand_over(self, read: Trajectory) -> Told:
        """The encoder's last state (each sequence's own), and nothing more."""
        return Told(tree.map(lambda leaf: leaf[-1], read.xs), read.ys.new_zeros(*read.ys.shape[1:-1], 0))

    def say(
        self,
        told: Told,
        words: Int[Tensor, " *batch"],
        *,
        dt: float,
        solver: Solver | None = None,
        steps: Fixed | Adaptive | None = None,
    ) -> tuple[Float[Tensor, "*batch word"], Told]:
        """One step: log-probabilities of the next word behind these, and what the decoder knows then.

        Words are numbers here, and the decoder hears them as unit vectors (1 of n_word). `ctrnn.decoding.greedy` and
        `beam_search` ask for this: `greedy(partial(net.say, dt=1.0), net.read(us, dt=1.0), ...)`.

        Raises:
            TypeError, ValueError: words are no numbers 0 ... n_word - 1, one for each of the batch.
        """
        self._check_numbers(words, told.context.shape[:-1])
        heard = F.one_hot(words.long(), self.n_word).to(tree.leaves(told.x)[0].dtype)
        drive = Held(torch.cat([heard, told.context], -1).unsqueeze(0), dt)
        run = integrate(self.decoder, drive, told.x, solver=solver, steps=steps)
        return run.ys[0].log_softmax(-1), told._replace(x=tree.map(lambda leaf: leaf[-1], run.xs))

    def _check_words(self, us: Tensor, words: Tensor) -> None:
        wanted = (*us.shape[1:-1], self.n_word)
        if words.ndim < 2 or len(words) == 0 or words.shape[1:] != wanted:
            shape = ", ".join(["step", *map(str, wanted)])
            raise ValueError(
                f"words must have the shape ({shape}) with at least one step, got {tuple(words.shape)}: give them the "
                f"batch of the source {tuple(us.shape)}, and each as {self.n_word} numbers, such as a unit vector."
            )

    def _check_numbers(self, words: Tensor, batch: torch.Size) -> None:
        if words.is_floating_point() or words.dtype == torch.bool:
            raise TypeError(f"words are numbers here and must be integers, got {words.dtype}: take their argmax(-1).")
        if words.shape != batch:
            raise ValueError(
                f"words must have the batch shape {tuple(batch)} of what the decoder was told, got "
                f"{tuple(words.shape)}: give one word a sequence."
            )
        if words.numel() and not 0 <= int(words.min()) <= int(words.max()) < self.n_word:
            raise ValueError(
                f"the decoder hears words 0 to {self.n_word - 1}, got {int(words.min())} to {int(words.max())}: give "
                "it a larger n_in, or other words."
            )

    def _end(self, read: Trajectory) -> Float[Tensor, "*batch output"]:
        """What the encoder says when it has read all; the backward half of a Bidirectional ends at the beginning."""
        if not isinstance(self.encoder, Bidirectional):
            return read.ys[-1]
        n = _outputs(self.encoder.ahead)
        return torch.cat([read.ys[-1, ..., :n], read.ys[0, ..., n:]], -1)

    @property
    def n_word(self) -> int:
        """Numbers in a word."""
        return self.decoder.n_in

    @property
    def config(self) -> dict[str, Any]:
        """The two networks' classes and configurations, and the direction of reading."""
        return {
            "encoder": files.describe(self.encoder),
            "decoder": files.describe(self.decoder),
            "reverse": self.reverse,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A pair with fresh weights: the inverse of `config`."""
        rest = {name: value for name, value in config.items() if name not in ("encoder", "decoder")}
        encoder: Any = files.build(files.Saved, config["encoder"])  # a Model or a Bidirectional, as the class checks
        return cls(encoder, files.build(Model, config["decoder"]), **rest)

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        return cls(LSTM(3, 2, generator=draw), LSTM(3, 4, 4, generator=draw), reverse=True)


class SummaryEncoderDecoder(EncoderDecoder):
    """y_k = D((w_k, c), x_{k-1}),   x_0 = tanh(W_start c),   c = tanh(W_context y_E(L)): c is heard at every step.

    Cho et al. (2014), EMNLP, arXiv:1406.1078, section 2.2 and appendix A: c is the one summary of the source. In the
    paper the output layer sees c and the last word as well; here the readout is the decoder's.

    Args:
        encoder: its readout at the end of the source is summed up; a Model, or a Bidirectional, of which that is what
            each of its two networks says at its own end.
        decoder: reads (w, c): its n_in is that of a word plus n_context.
        n_context: numbers in c.
        reverse: the source is read from its end.
        generator: where W_context (n_context, encoder's outputs) and W_start (size of the decoder's state, n_context)
            are drawn from, uniformly within 1 / sqrt(their columns); torch's global one if None.
    """

    def __init__(
        self,
        encoder: Model | Bidirectional,
        decoder: Model,
        n_context: int,
        *,
        reverse: bool = False,
        generator: Generator | None = None,
    ) -> None:
        check_size("n_context", n_context, 1)
        self.n_context = n_context
        super().__init__(encoder, decoder, reverse=reverse)
        self.W_context = _weights(n_context, _outputs(encoder), generator)
        self.W_start = _weights(tree.ravel(decoder.initial_state(), 0).numel(), n_context, generator)

    def _check(self) -> None:
        if self.decoder.n_in <= self.n_context:
            raise ValueError(
                f"a decoder with n_in={self.decoder.n_in} has no room for words beside a context of {self.n_context} "
                f"numbers: give it n_in={self.n_context} plus a word's."
            )

    def hand_over(self, read: Trajectory) -> Told:
        """c, and x_0 made from it."""
        context = torch.tanh(F.linear(self._end(read), self.W_context))
        return Told(_started(F.linear(context, self.W_start), self.decoder), context)

    @property
    def n_word(self) -> int:
        return self.decoder.n_in - self.n_context

    @property
    def config(self) -> dict[str, Any]:
        return super().config | {"n_context": self.n_context}

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        return cls(GRU(3, 2, generator=draw), GRU(4, 4 + 2, 4, generator=draw), 2, generator=draw)


class AttentiveEncoderDecoder(EncoderDecoder):
    """y_k = D(w_k, x_{k-1}; m),   m_j = y_E(j),   x_0 = tanh(W_start y_E(L)): D looks back at all that E said.

    Bahdanau, Cho & Bengio (2015), ICLR, arXiv:1409.0473; their E is a `Bidirectional`, and x_0 comes from its backward
    half alone, as if W_start were 0 for the forward half.

    Args:
        encoder: its readout at every sample is a place of the decoder's memory; a Model, or a Bidirectional, of which
            y_E(L) is what each of its two networks says at its own end.
        decoder: an `Attentive` with n_memory equal to the encoder's outputs, and a place for each of the source's
            samples at least.
        reverse: the source is read from its end.
        generator: where W_start (size of the reader's state, encoder's outputs) is drawn from, uniformly within
            1 / sqrt(its columns); torch's global one if None.
    """

    decoder: Attentive

    def __init__(
        self,
        encoder: Model | Bidirectional,
        decoder: Attentive,
        *,
        reverse: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(encoder, decoder, reverse=reverse)
        n = tree.ravel(decoder.reader.initial_state(), 0).numel()
        self.W_start = _weights(n, decoder.n_memory, generator)

    def _check(self) -> None:
        n = _outputs(self.encoder)
        if not isinstance(self.decoder, Attentive) or self.decoder.n_memory != n:
            raise ValueError(
                f"the encoder says {n} numbers at a time: the decoder must be an Attentive with n_memory={n}."
            )

    def hand_over(self, read: Trajectory) -> Told:
        """All that the encoder said as a memory, and x_0 made from the end of it."""
        memory = read.ys.movedim(0, -2)
        everything = torch.ones(memory.shape[:-1], dtype=torch.bool, device=memory.device)
        present = everything if read.mask is None else read.mask.movedim(0, -1)
        reader = _started(F.linear(self._end(read), self.W_start), self.decoder.reader)
        return Told(self.decoder.remember(reader, memory, present), memory.new_zeros(*memory.shape[:-2], 0))

    @classmethod
    def example(cls) -> Self:
        draw = Generator().manual_seed(0)
        decoder = Attentive(GRU(4, 4 + 3, 4, generator=draw), 3, 6, 5, generator=draw)
        return cls(GRU(3, 2, generator=draw), decoder, generator=draw)


def _outputs(model: Model | Bidirectional) -> int:
    if isinstance(model, Bidirectional):
        return _outputs(model.ahead) + _outputs(model.back)
    return model.readout(model.initial_state()).shape[-1]


def _weights(rows: int, columns: int, generator: Generator | None) -> nn.Parameter:
    return nn.Parameter(_within(1 / math.sqrt(columns), generator)(rows, columns))


def _started(flat: Float[Tensor, "*batch all"], model: Model) -> State:
    """tanh of these numbers as a state of the model."""
    like = model.initial_state(*flat.shape[:-1])
    return tree.unravel(torch.tanh(flat), like, flat.ndim - 1)
