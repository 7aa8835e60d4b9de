"""A training step of the DNC beside that of pytorch-dnc 1.1.0: `python benchmarks/dnc_training_step.py`.

64 slots of 16 numbers, 4 read heads and 1 write head, an LSTM of 64 units, 16 sequences of 40 steps; float32. Forward
and backward of mean(y^2) with gradients for all weights, both in one process, in turn. The two are not the same
network: pytorch-dnc 1.1.0 does not feed what was read back to its controller (its inputs are laid out before the loop),
squashes keys and words by tanh, and takes softplus for strengths. What they share is compared first, number by number.

Needs `pip install --no-deps dnc==1.1.0`.
"""

import argparse
import importlib.metadata
import json
import statistics
import time
from collections.abc import Callable

import torch
from dnc import DNC as Peer
from torch import Tensor

import ctrnn
from ctrnn.models.memory.addressing import allocated
from ctrnn.models.memory.linkage import followed, linked, preceding, retraced

SLOTS, WIDTH, READS, UNITS, BATCH, STEPS, CHANNELS = 64, 16, 4, 64, 16, 40, 6


def ours() -> ctrnn.DNC:
    controller = ctrnn.LSTM(UNITS, CHANNELS + READS * WIDTH)
    return ctrnn.DNC(controller, CHANNELS, slots=SLOTS, width=WIDTH, reads=READS)


def peer() -> Peer:
    sizes = {"nr_cells": SLOTS, "cell_size": WIDTH, "read_heads": READS}
    return Peer(CHANNELS, UNITS, num_layers=1, num_hidden_layers=1, batch_first=False, gpu_id=-1, **sizes)


def check(memory: torch.nn.Module) -> float:
    """The greatest difference between allocation, links, precedence and what is read along the links."""
    share = lambda *shape: torch.softmax(torch.randn(*shape), -1) * torch.rand(*shape[:-1], 1)
    usage, write, precedence, read = (
        torch.rand(BATCH, SLOTS),
        share(BATCH, 1, SLOTS),
        share(BATCH, 1, SLOTS),
        share(BATCH, READS, SLOTS),
    )
    link = torch.rand(BATCH, 1, SLOTS, SLOTS) * (1 - torch.eye(SLOTS)) / SLOTS
    forward, backward = memory.directional_weightings(link, read)
    pairs = [
        (allocated(usage), memory.allocate(usage, None)[0][:, 0]),
        (linked(link, write, precedence), memory.get_link_matrix(link, write, precedence)),
        (preceding(precedence, write), memory.update_precedence(precedence, write)),
        (followed(link, read), forward),
        (retraced(link, read), backward),
    ]
    return max(float((a - b).abs().max()) for a, b in pairs)


def training_step(run: Callable[[], Tensor]) -> float:
    """Milliseconds of a run and its gradient."""
    begin = time.perf_counter()
    run().square().mean().backward()
    return 1e3 * (time.perf_counter() - begin)


def main(repeats: int, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    us, a, b = torch.rand(STEPS, BATCH, CHANNELS), ours(), peer()
    runs = {
        "ctrnn, Iterate": lambda: ctrnn.integrate(a, us, dt=1.0, solver=ctrnn.Iterate()).ys,
        "ctrnn, Euler": lambda: ctrnn.integrate(a, us, dt=1.0).ys,
        "pytorch-dnc": lambda: b(us, (None, None, None), reset_experience=True)[0],
    }
    difference = check(b.memories[0])
    times = {name: [] for name in runs}
    for _ in range(repeats + 3):
        for name, run in runs.items():
            times[name].append(training_step(run))
    median = {name: statistics.median(values[3:]) for name, values in times.items()}
    versions = {name: importlib.metadata.version(name) for name in ("torch", "dnc")}
    for name, value in median.items():
        print(f"{name:16s}{value:8.1f} ms{value / median['pytorch-dnc']:8.2f} of pytorch-dnc")
    print(f"greatest difference of what both compute: {difference:.1e}")
    print(json.dumps({"ms": median, "difference": difference, "threads": threads, "versions": versions}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    main(arguments.repeats, arguments.threads)
