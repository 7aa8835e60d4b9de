"""Networks with a memory whose word weighs nothing are their controllers."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Generator

from ctrnn.models._kin import ALWAYS, N_IN, Kin, N, Pair, give, plain
from ctrnn.models.gated import LSTM
from ctrnn.models.memory import (
    DNC,
    NTM,
    BabyNTM,
    FastWeights,
    HopfieldRead,
    NeuralQueue,
    NeuralStack,
    Pushdown,
    StackRNN,
    TapeRNN,
)

WIDTH = 2  # of a word


def _unheard(build: Callable[[LSTM, Generator], Any], read: int) -> Callable[[Generator], Pair]:
    """The pair of a network, of which `read` numbers are read, and its controller, which gives them no weight."""

    def pair(draw: Generator) -> Pair:
        net: Any = LSTM(N, N_IN, generator=draw).double()
        controller = LSTM(N, N_IN + read, generator=draw)
        give(controller, **dict(net.named_parameters()) | {"W_in": F.pad(net.W_in, (0, read))})
        child = build(controller, draw).double()
        return plain(child, net, draw)._replace(seen=lambda x: x.controller)

    return pair


def _kin(kind: type[Any], read: int, build: Callable[[LSTM, Generator], Any]) -> Kin:
    return Kin(kind, LSTM, "that is its controller, and what is read weighs nothing", ALWAYS, _unheard(build, read))


MEMORY_KIN = (
    _kin(NTM, WIDTH, lambda net, draw: NTM(net, slots=4, width=WIDTH, clocked=False, generator=draw)),
    _kin(DNC, WIDTH, lambda net, draw: DNC(net, slots=4, width=WIDTH, clocked=False, generator=draw)),
    _kin(StackRNN, WIDTH, lambda net, draw: StackRNN(net, depth=4, width=WIDTH, top=1, clocked=False, generator=draw)),
    _kin(NeuralStack, WIDTH, lambda net, draw: NeuralStack(net, slots=4, width=WIDTH, clocked=False, generator=draw)),
    _kin(NeuralQueue, WIDTH, lambda net, draw: NeuralQueue(net, slots=4, width=WIDTH, clocked=False, generator=draw)),
    _kin(Pushdown, N_IN, lambda net, draw: Pushdown(net, slots=4, clocked=False, generator=draw)),
    _kin(
        TapeRNN, WIDTH, lambda net, draw: TapeRNN(net, slots=4, width=WIDTH, jumps=False, clocked=False, generator=draw)
    ),
    _kin(BabyNTM, WIDTH, lambda net, draw: BabyNTM(net, slots=4, width=WIDTH, clocked=False, generator=draw)),
    _kin(FastWeights, WIDTH, lambda net, draw: FastWeights(net, keys=3, width=WIDTH, clocked=False, generator=draw)),
    _kin(HopfieldRead, WIDTH, lambda net, draw: HopfieldRead(net, slots=4, width=WIDTH, clocked=False, generator=draw)),
)
