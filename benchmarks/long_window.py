"""The memory of a long training window: `python -m benchmarks.long_window`.

The leaky tanh network of `fixed_step`, 64 units, 32 samples, 20,000 steps, of which the last state is kept: gradients
for all parameters by `Backprop`, which keeps what every step needs, and by `Recompute`. Peak memory is measured in a
process of its own for each, by how much the gradient raises the peak that was reached after a short run: the first use
of torch.func alone adds some 80 MiB.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch

import ctrnn
from benchmarks._side_by_side import Case, Job, Row, Target, main, side_by_side, times_as_long
from benchmarks.fixed_step import DT, N_IN

ADJOINTS = {"Backprop": ctrnn.Backprop(), "Recompute": ctrnn.Recompute()}


def job(name: str, N: int, B: int, T: int) -> Job:
    draw = torch.Generator().manual_seed(0)
    net = ctrnn.CTRNN(N, N_IN, tau=0.5 + torch.rand(N, generator=draw), learn_tau=True, generator=draw)
    us = torch.randn(T, B, N_IN, generator=draw)

    def gradient() -> tuple[torch.Tensor, ...]:
        last = ctrnn.integrate(net, us, dt=DT, adjoint=ADJOINTS[name], save=ctrnn.Last()).xs
        return torch.autograd.grad(last.square().mean(), tuple(net.parameters()))

    return gradient


def peak() -> float:
    """MiB; getrusage would also count what the process that started this one had."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def probe(name: str, threads: int, N: int, B: int, T: int) -> None:
    """What a process of its own prints: by how many MiB the gradient raises the peak."""
    torch.set_num_threads(threads)
    job(name, N, B, 16)()
    long = job(name, N, B, T)
    before = peak()
    long()
    print(json.dumps(peak() - before))


def memory(name: str, *size: int) -> float:
    call = f"from benchmarks.long_window import probe; probe({name!r}, {torch.get_num_threads()}, *{size})"
    home = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", call], cwd=home, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def case(N: int, B: int, T: int, turns: int) -> Case:
    tools = {f"ctrnn {name}": job(name, N, B, T) for name in ADJOINTS}
    at = {"N": N, "B": B, "T": T}
    done = side_by_side(at, tools, like=dict.fromkeys(tools, 1e-4), turns=turns, seconds=10.0)
    return done._replace(mib={f"ctrnn {name}": memory(name, N, B, T) for name in ADJOINTS})


def run(*, quick: bool = False) -> Row:
    cases = [case(8, 2, 64, 0)] if quick else [case(64, 32, 20_000, 3)]
    targets = []
    for done in cases:
        names, (more, less) = tuple(done.ms), done.mib.values()
        ratio, work = more / max(less, 1e-3), f"{done.work}, peak memory of Recompute"
        targets.append(Target(work, names[0], ratio, 20.0, True, less, more, "MiB"))
        targets.append(times_as_long(done, names[0], 2.0, names[1]))
    return Row("Memory of a long training window, float32", cases, targets)


if __name__ == "__main__":
    main(run)
