"""How a training step grows with units, samples and steps: `python -m benchmarks.scaling`.

The leaky tanh network of `fixed_step`, forward and backward, along each axis from 64 units, 16 samples and 300 steps;
beside torch.nn.RNN, which has no tau, jax.lax.scan, and the limit that is drawn there.
"""

from benchmarks._side_by_side import Case, Row, lacking, main, side_by_side
from benchmarks.fixed_step import LIMIT, jax, jobs, work

TOOLS = ("ctrnn", "torch.nn.RNN", "jax.lax.scan", LIMIT)
START = {"N": 64, "B": 16, "T": 300}
AXES = {"N": (4, 16, 64, 256, 1024), "B": (1, 4, 16, 64, 256), "T": (30, 100, 300, 1000, 3000)}


def case(axis: str, size: dict[str, int], turns: int) -> Case:
    tools = {name: job for name, job in jobs(work(**size), backward=True).items() if name in TOOLS}
    like = {name: 2e-3 for name in tools if name in ("ctrnn", "jax.lax.scan")}
    return side_by_side({"along": axis} | size, tools, like=like, turns=turns, seconds=1.0)


def run(*, quick: bool = False) -> Row:
    start = {"N": 5, "B": 2, "T": 4} if quick else START
    axes = {"N": (3, 7)} if quick else AXES
    cases = [case(axis, start | {axis: value}, 1 if quick else 5) for axis in axes for value in axes[axis]]
    return Row("A training step along N, B and T, float32", cases, [], lacking(jax=jax))


if __name__ == "__main__":
    main(run)
