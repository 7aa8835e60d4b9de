"""Who is whose special case: pairs of networks that are one network under a condition, with weights that meet it."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ctrnn import _tree as tree
from ctrnn.models import conversion
from ctrnn.models._kin import (
    ALWAYS,
    BATCH,
    CONTINUOUS,
    DISCRETE,
    N_IN,
    SAMPLES,
    STEPS,
    Kin,
    N,
    Pair,
    give,
    plain,
    randn,
)
from ctrnn.models._kin_memory import MEMORY_KIN
from ctrnn.models.adaptive_bam import AdaptiveBAM, AdaptiveBAMState
from ctrnn.models.associative import BAM, BAMState, Hopfield, ModernHopfield
from ctrnn.models.attention import Attentive
from ctrnn.models.gated import GRU, LSTM, Elman, LSTMState, PaperGRU
from ctrnn.models.gated_feedback import GatedFeedback
from ctrnn.models.jordan import Jordan, JordanState
from ctrnn.models.liquid import LTC, CfC
from ctrnn.models.memory import SkipStack
from ctrnn.models.memory_blocks import LSTM1997, LSTM2000, BlockState, PeepholeLSTM
from ctrnn.models.mtrnn import MTRNN
from ctrnn.models.perceptron import RecurrentPerceptron
from ctrnn.models.rate import CTRNN, BeerCTRNN, RateRNN
from ctrnn.models.recursive import Recursive
from ctrnn.models.reservoir import EchoState
from ctrnn.models.second_order import SecondOrder
from ctrnn.models.stack import Stack
from ctrnn.models.tree_lstm import ChildSumTreeLSTM, NaryTreeLSTM

OPEN = 1e3  # sigma(1000) is 1 and sigma(-1000) is 0 in floating point


def _elman(draw: Generator, n_in: int = N_IN, activation: Callable[[Tensor], Tensor] = torch.tanh) -> Any:
    return Elman(N, n_in, activation=activation, generator=draw).double()


def _bias(net: Any) -> Tensor:
    """Torch's two biases as one."""
    return net.b_in + net.b_rec


def _rate(draw: Generator) -> Pair:
    net = RateRNN(N, N_IN, generator=draw).double()
    to = conversion.rate_to_voltage(net)
    us = randn(draw, 1, BATCH, N_IN).expand(SAMPLES, -1, -1)  # the voltage form filters what changes
    return Pair(net, to.model, us, us, randn(draw, BATCH, N), lambda r: to.state(r, us[0]))


def _elman_rate(draw: Generator) -> Pair:
    net = _elman(draw)
    parent = give(RateRNN(N, N_IN, generator=draw), W_rec=net.W_rec, W_in=net.W_in, b_rec=_bias(net))
    return plain(net, parent, draw)


def _echo(draw: Generator) -> Pair:
    net = EchoState(N, N_IN, bias_scale=0.5, generator=draw).double()
    return plain(net, give(RateRNN(N, N_IN, generator=draw), W_rec=net.W_rec, W_in=net.W_in, b_rec=net.b_rec), draw)


def _perceptron(draw: Generator) -> Pair:
    net = RateRNN(N, N_IN, generator=draw).double()
    child = RecurrentPerceptron((N,), N_IN, output=torch.tanh, generator=draw).double()
    give(child.layers[0], W_rec=net.W_rec, W_in=net.W_in, b_rec=net.b_rec)
    return plain(child, net, draw)._replace(seen=lambda x: x.layers[0])


def _jordan(draw: Generator) -> Pair:
    net = _elman(draw)
    jordan, h = Jordan(N, N_IN, N, generator=draw), randn(draw, BATCH, N)
    give(jordan, W_in=net.W_in, W_state=net.W_rec, b_rec=_bias(net), W_out=torch.eye(N), b_out=0.0)
    pair = plain(jordan, net, draw, JordanState(h, h))
    return pair._replace(seen=lambda x: x.h, tau=lambda dt: JordanState(h=1.0, s=dt))


def _recursive(draw: Generator) -> Pair:
    net = _elman(draw)
    child = give(Recursive(N, N_IN, arity=1, generator=draw), W_in=net.W_in, W_rec=net.W_rec, b_rec=_bias(net))
    return plain(child, net, draw)


def _second_order(draw: Generator) -> Pair:
    net = _elman(draw, n_in=0, activation=torch.sigmoid)
    child = give(SecondOrder(N, 1, generator=draw), W_rec=net.W_rec.unsqueeze(-1), b_rec=_bias(net))
    pair = plain(child, net, draw)
    return pair._replace(us=torch.ones_like(pair.us), parent_us=pair.us[..., :0])


def _gru(kind: type[GRU] | type[PaperGRU]) -> Callable[[Generator], Pair]:
    def pair(draw: Generator) -> Pair:
        net = _elman(draw)
        gates = torch.zeros(2 * N)
        shut = torch.tensor([OPEN, -OPEN]).repeat_interleave(N)  # r = 1, z = 0
        child = give(
            kind(N, N_IN, generator=draw),
            W_in=torch.cat([gates[:, None].expand(-1, N_IN), net.W_in]),
            W_rec=torch.cat([gates[:, None].expand(-1, N), net.W_rec]),
            b_in=torch.cat([shut, net.b_in]),
            b_rec=torch.cat([gates, net.b_rec]),
        )
        return plain(child, net, draw)

    return pair


def _lstm(draw: Generator) -> Pair:
    net = _elman(draw, activation=lambda a: torch.tanh(torch.tanh(a)))
    rows = torch.tensor([0.0, 0, 1, 0])[:, None, None]  # i, f, g, o
    child = give(
        LSTM(N, N_IN, generator=draw),
        W_in=(rows * net.W_in).flatten(0, 1),
        W_rec=(rows * net.W_rec).flatten(0, 1),
        b_in=(rows[..., 0] * net.b_in).flatten(),
        b_rec=torch.cat([torch.full((N,), OPEN), torch.full((N,), -OPEN), net.b_rec, torch.full((N,), OPEN)]),
    )
    return plain(child, net, draw)._replace(seen=lambda x: x.h)


def _like_lstm(child: LSTM, draw: Generator, **weights: Tensor | float) -> Pair:
    net = LSTM(N, N_IN, generator=draw).double()
    return plain(give(child, **dict(net.named_parameters()), **weights), net, draw)


def _peepholes(draw: Generator) -> Pair:
    return _like_lstm(PeepholeLSTM(N, N_IN, generator=draw), draw, peepholes=0.0)


def _child_sum(draw: Generator) -> Pair:
    return _like_lstm(ChildSumTreeLSTM(N, N_IN, generator=draw), draw)


def _nary(draw: Generator) -> Pair:
    return _like_lstm(NaryTreeLSTM(N, N_IN, arity=1, generator=draw), draw)


def _blocks(draw: Generator) -> Pair:
    net = LSTM(N, N_IN, generator=draw).double()
    order = torch.cat([torch.arange(k * N, (k + 1) * N) for k in (2, 0, 1, 3)])  # g, i, f, o
    size = torch.tensor([2.0, 1, 1, 1]).repeat_interleave(N)[:, None]
    bias = (size[:, 0] * (_bias(net))[order]).split((N, 3 * N))
    child = give(
        LSTM2000(N, N_IN, generator=draw),
        W_in=size * net.W_in[order],
        W_rec=torch.cat([size * net.W_rec[order], torch.zeros(4 * N, 3 * N)], 1),
        b_cells=bias[0],
        b_gates=bias[1],
    )
    x0 = BlockState(randn(draw, BATCH, N), torch.zeros(BATCH, 3 * N).double(), randn(draw, BATCH, N))
    pair = plain(child, net, draw, x0)
    return pair._replace(seen=lambda x: LSTMState(x.h, x.c / 2), tau=lambda dt: BlockState(h=1.0, gates=dt, c=1.0))


def _no_forgetting(draw: Generator) -> Pair:
    net: Any = LSTM1997(N, N_IN, generator=draw).double()
    rows = torch.cat([torch.arange(2 * N), torch.arange(3 * N, 4 * N)])  # all but f
    W_in, W_rec, b_gates = (torch.zeros(*shape).double() for shape in ((4 * N, N_IN), (4 * N, 4 * N), (3 * N,)))
    b_gates += OPEN
    W_in[rows] = net.W_in
    W_rec[rows[:, None], rows] = net.W_rec
    b_gates[torch.cat([torch.arange(N), torch.arange(2 * N, 3 * N)])] = net.b_gates
    parent = give(LSTM2000(N, N_IN, generator=draw), W_in=W_in, W_rec=W_rec, b_cells=net.b_cells, b_gates=b_gates)

    def seen(x: BlockState) -> BlockState:
        i, o = x.gates.split(N, -1)
        return x._replace(gates=torch.cat([i, torch.ones_like(i), o], -1))

    return plain(net, parent, draw)._replace(seen=seen)


def _mtrnn(draw: Generator) -> Pair:
    net = MTRNN({"all": (N, 1.0)}, N_IN, generator=draw).double()
    return plain(net, give(CTRNN(N, N_IN, generator=draw), W_rec=net.W_rec, W_in=net.W_in, b_rec=net.b_rec), draw)


def _beer(draw: Generator) -> Pair:
    net = BeerCTRNN(N, N_IN, gain=2.0, generator=draw).double()
    to = conversion.beer_to_voltage(net)
    pair = plain(net, to.model, draw)
    return pair._replace(seen=lambda y: to.state(y, pair.us[0]))


def _hopfield(draw: Generator) -> Pair:
    W = randn(draw, N, N)
    net = Hopfield.of(W + W.T, gain=1.0)
    return plain(net, give(CTRNN(N, N, generator=draw), W_rec=net.W_rec, W_in=torch.eye(N), b_rec=net.b_rec), draw)


def _bam(draw: Generator) -> Pair:
    net = BAM.of(randn(draw, N, N_IN), gain=1.0)
    both = torch.zeros(N + N_IN, N + N_IN).double()
    both[:N, N:], both[N:, :N] = net.M.detach(), net.M.detach().T
    pair = plain(net, Hopfield.of(both, gain=1.0), draw)
    return pair._replace(seen=lambda x: torch.cat([x.x, x.y], -1))


def _adaptive(draw: Generator) -> Pair:
    parent = BAM.of(randn(draw, N, N_IN), gain=1.0)
    x, y = randn(draw, BATCH, N), randn(draw, BATCH, N_IN)
    child = give(AdaptiveBAM(N, N_IN, gain=1.0), W=parent.M)
    pair = plain(child, parent, draw, AdaptiveBAMState(x, y, torch.zeros(BATCH, N, N_IN).double()))
    return pair._replace(seen=lambda x: BAMState(x.x, x.y), tau=lambda dt: AdaptiveBAMState(x=1.0, y=1.0, M=1e15))


def _modern(draw: Generator) -> Pair:
    X, beta = randn(draw, N, N), 1.5
    W = X @ X.T
    parent = give(CTRNN(N, 0, activation=lambda s: torch.softmax(beta * s, -1), generator=draw), W_rec=W, b_rec=0.0)
    return plain(ModernHopfield.of(X, beta=beta), parent, draw)._replace(seen=lambda x: x @ X.T)


def _ltc(draw: Generator) -> Pair:
    weak, gain = 1e-10, 2.0
    parent = BeerCTRNN(N, N_IN, gain=gain, generator=draw).double()
    mu = torch.cat([-parent.theta, torch.zeros(N_IN).double()]).expand(N, -1)
    child = give(
        LTC(N, N_IN, generator=draw),
        raw_g=torch.log(torch.expm1(torch.tensor(weak, dtype=torch.float64))),
        E=torch.cat([parent.W_rec, parent.W_in], 1) / weak,
        slope=gain,
        mu=mu,
        V_leak=0.0,
    )
    pair = plain(child, parent, draw)
    return pair._replace(parent_us=torch.sigmoid(gain * pair.us))


def _cfc(draw: Generator) -> Pair:
    small = 1e-5
    net = _elman(draw)
    heads = torch.cat([torch.eye(N) / (small * 1.7159 * 0.666), torch.zeros(3 * N, N)]).double()
    child = give(
        CfC(N, N_IN, backbone=N, generator=draw),
        W_z=small * torch.cat([net.W_in, net.W_rec], 1),
        b_z=small * (_bias(net)),
        W_heads=heads,
        b_heads=torch.cat([torch.zeros(3 * N), torch.full((N,), -OPEN)]),
    )
    pair = plain(child, net, draw)
    return pair._replace(parent_us=pair.us[..., :-1])


def _stack(draw: Generator) -> Pair:
    net = _elman(draw)
    return plain(Stack([net]), net, draw)._replace(seen=lambda x: x.layers[0])


def _gated_feedback(draw: Generator) -> Pair:
    layers = [_elman(draw, activation=torch.sigmoid), _elman(draw, n_in=N, activation=torch.sigmoid)]
    child, parent = GatedFeedback(layers, generator=draw).double(), Stack(layers)
    for j, (W, U) in enumerate(zip(child.W_gate, child.U_gate, strict=True)):
        W.copy_(OPEN**2 * torch.tensor([1.0 if i == j else -1.0 for i in range(2)])[:, None].expand_as(W))
        U.zero_()
    pair = plain(child, parent, draw)
    us = pair.us.abs() + 0.1  # all that the gates see is positive, so that they are wholly open or shut
    return pair._replace(us=us, parent_us=us, x0=tree.map(torch.abs, pair.x0))


def _attentive(draw: Generator) -> Pair:
    net = GRU(N, N_IN, generator=draw).double()
    reader = give(GRU(N, N_IN + 2, generator=draw), **dict(net.named_parameters()) | {"W_in": F.pad(net.W_in, (0, 2))})
    child = Attentive(reader, 2, 4, 3, generator=draw).double()
    x0 = child.remember(randn(draw, BATCH, N), randn(draw, BATCH, 4, 2), torch.ones(BATCH, 4))
    return plain(child, net, draw, x0)._replace(seen=lambda x: x.reader)


def _skip_stack(draw: Generator) -> Pair:
    net = _elman(draw)
    return plain(SkipStack([net]), Stack([net]), draw)


KIN = (
    Kin(RateRNN, CTRNN, "x = W_rec r + W_in u + b_rec, u held", ALWAYS, _rate),
    Kin(MTRNN, CTRNN, "there is one group", ALWAYS, _mtrnn),
    Kin(BeerCTRNN, CTRNN, "x = gain (y + theta), f = sigma", ALWAYS, _beer),
    Kin(Hopfield, CTRNN, "f = tanh, W_in = I", ALWAYS, _hopfield),
    Kin(ModernHopfield, CTRNN, "the units are the overlaps X x, W_rec = X X^T, f = softmax", ALWAYS, _modern),
    Kin(BAM, Hopfield, "W_rec = [[0, M], [M^T, 0]]", CONTINUOUS, _bam),
    Kin(AdaptiveBAM, BAM, "W is its M, tau_M -> infinity", ALWAYS, _adaptive),
    Kin(LTC, BeerCTRNN, "g -> 0 at constant g E, and inputs come as sigma(gain u)", ALWAYS, _ltc, 1e-7),
    Kin(Elman, RateRNN, "the two biases are one", ALWAYS, _elman_rate),
    Kin(EchoState, RateRNN, "nothing is fed back", ALWAYS, _echo),
    Kin(RecurrentPerceptron, RateRNN, "there is one layer, f_1 = f", ALWAYS, _perceptron),
    Kin(Jordan, Elman, "W_out = I, g = identity, mu = 0, tau_s = dt", STEPS, _jordan),
    Kin(Recursive, Elman, "each node has one child", ALWAYS, _recursive),
    Kin(SecondOrder, Elman, "the one input is always 1", ALWAYS, _second_order),
    Kin(CfC, Elman, "s = 0 and z stays in its linear range", ALWAYS, _cfc, 1e-7),
    Kin(Stack, Elman, "there is one such layer", ALWAYS, _stack),
    Kin(GRU, Elman, "r = 1, z = 0", ALWAYS, _gru(GRU)),
    Kin(PaperGRU, Elman, "r = 1, z = 0", ALWAYS, _gru(PaperGRU)),
    Kin(LSTM, Elman, "i = o = 1, f = 0; units tanh(tanh(.))", DISCRETE, _lstm),
    Kin(PeepholeLSTM, LSTM, "p = 0", ALWAYS, _peepholes),
    Kin(ChildSumTreeLSTM, LSTM, "each node has one child", ALWAYS, _child_sum),
    Kin(NaryTreeLSTM, LSTM, "each node has one child", ALWAYS, _nary),
    Kin(LSTM2000, LSTM, "gates see no gates, tau_g = dt, weights into g and the cells doubled", STEPS, _blocks),
    Kin(LSTM1997, LSTM2000, "f = 1", ALWAYS, _no_forgetting),
    Kin(SkipStack, Stack, "there is one layer", ALWAYS, _skip_stack),
    *MEMORY_KIN,
    Kin(GatedFeedback, Stack, "g_jj = 1, the others 0", ALWAYS, _gated_feedback),
    Kin(Attentive, GRU, "the context weighs nothing", ALWAYS, _attentive),
)
