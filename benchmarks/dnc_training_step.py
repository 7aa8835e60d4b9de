"""A training step of the DNC beside that of pytorch-dnc 1.1.0: `python -m benchmarks.dnc_training_step`.

64 slots of 16 numbers, 4 read heads and 1 write head, an LSTM of 64 units, 16 sequences of 40 steps; float32. Forward
and backward of mean(y^2) with gradients for all weights. The two are not the same network: pytorch-dnc 1.1.0 does not
feed what was read back to its controller (its inputs are laid out before the loop), squashes keys and words by tanh,
and takes softplus for strengths. What they share is compared first, number by number. An NTM of the same sizes stands
beside the same peer, which has none.

The step is a few hundred small operations of torch, and its time goes into calling them: `compile=True` takes CHUNK
steps for one graph, which the first run waits for; its gradients are compared with the plain ones.

Needs `pip install --no-deps dnc==1.1.0`.
"""

from typing import Any

import torch
from torch import Tensor

import ctrnn
from benchmarks._side_by_side import (
    Case,
    Disagreement,
    Job,
    Row,
    apart,
    lacking,
    main,
    peer,
    side_by_side,
    times_as_fast,
)
from ctrnn.models.memory.addressing import allocated
from ctrnn.models.memory.linkage import followed, linked, preceding, retraced

dnc = peer("dnc")
SLOTS, WIDTH, READS, UNITS, BATCH, STEPS, CHANNELS = 64, 16, 4, 64, 16, 40, 6
CHUNK = 4  # steps in a graph: with 10 a run is a tenth shorter, and compiling takes twice as long
PEER = "pytorch-dnc"


def networks() -> dict[str, ctrnn.Model]:
    controller = lambda: ctrnn.LSTM(UNITS, CHANNELS + READS * WIDTH)
    sizes = {"slots": SLOTS, "width": WIDTH, "reads": READS}
    return {"DNC": ctrnn.DNC(controller(), CHANNELS, **sizes), "NTM": ctrnn.NTM(controller(), CHANNELS, **sizes)}


def theirs() -> torch.nn.Module:
    sizes = {"nr_cells": SLOTS, "cell_size": WIDTH, "read_heads": READS}
    return dnc.DNC(CHANNELS, UNITS, num_layers=1, num_hidden_layers=1, batch_first=False, gpu_id=-1, **sizes)


def check(memory: torch.nn.Module) -> None:
    """Allocation, links, precedence and what is read along the links are the same."""
    draw = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.rand(shape, generator=draw)
    share = lambda *shape: torch.softmax(torch.randn(shape, generator=draw), -1) * rand(*shape[:-1], 1)
    usage, write, precedence = rand(BATCH, SLOTS), share(BATCH, 1, SLOTS), share(BATCH, 1, SLOTS)
    read, link = share(BATCH, READS, SLOTS), rand(BATCH, 1, SLOTS, SLOTS) * (1 - torch.eye(SLOTS)) / SLOTS
    forward, backward = memory.directional_weightings(link, read)
    pairs = [
        (allocated(usage), memory.allocate(usage, None)[0][:, 0]),
        (linked(link, write, precedence), memory.get_link_matrix(link, write, precedence)),
        (preceding(precedence, write), memory.update_precedence(precedence, write)),
        (followed(link, read), forward),
        (retraced(link, read), backward),
    ]
    difference = apart(*zip(*pairs, strict=True))
    if difference > 1e-5:
        raise Disagreement(f"what DNC and {PEER} share differs by {difference:.1e}")


def gradient(net: torch.nn.Module, us: Tensor, adjoint: ctrnn.Backprop = ctrnn.Backprop()) -> Job:  # noqa: B008
    weights = [p for p in net.parameters() if p.requires_grad]

    def ours() -> Any:
        return torch.autograd.grad(ctrnn.integrate(net, us, dt=1.0, adjoint=adjoint).ys.square().mean(), weights)

    def there() -> Any:
        ys = net(us, (None, None, None), reset_experience=True)[0]
        return torch.autograd.grad(ys.square().mean(), weights, allow_unused=True)

    return ours if isinstance(net, ctrnn.Model) else there


def case(name: str, net: ctrnn.Model, us: Tensor, other: torch.nn.Module | None, quick: bool) -> Case:
    jobs = {name: gradient(net, us)}
    if not quick:
        jobs[f"{name}, compiled"] = gradient(net, us, ctrnn.Backprop(compile=True, chunk=CHUNK))
    like = dict.fromkeys(jobs, 1e-3)
    if other is not None:
        jobs[PEER] = gradient(other, us)
    at = {"network": name, "slots": SLOTS, "width": WIDTH, "reads": READS, "units": UNITS, "B": BATCH, "T": len(us)}
    return side_by_side(at, jobs, like=like, turns=1 if quick else 9, seconds=5.0)


def run(*, quick: bool = False) -> Row:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        us, nets = torch.rand(2 if quick else STEPS, BATCH, CHANNELS), networks()
        other = theirs() if dnc else None
    if other is not None:
        check(other.memories[0])
    cases = [case(name, net, us, other, quick) for name, net in nets.items()]
    targets = [
        times_as_fast(done, PEER, 2.0, name)._replace(work=done.work.replace(done.at["network"], name, 1))
        for done in cases
        for name in done.ms
        if other is not None and name != PEER
    ]
    return Row("DNC and NTM, a training step, float32", cases, targets, lacking(**{"dnc": dnc}))


if __name__ == "__main__":
    main(run)
