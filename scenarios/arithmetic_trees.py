"""Arithmetic expressions: networks that follow the tree, and networks that read it off a line.

Claim: a network that works its way up the tree of an expression, trained on shallow ones, computes deeper ones too; one
that reads the same symbols in a row does so less, and the symbols without their order do not suffice. The child-sum
Tree-LSTM, whose children have no order, cannot tell a - b from b - a.

Expressions of +, - and * over the integers modulo 3, of depth 1 to 3 in training and up to 6 in the test; only the
value of the whole is taught. All read the nodes in postfix order, which suits a reader of rows best: it never has to
look ahead. A row is the chain, a tree the tree, in one and the same sweep.

Source: Goller & Kuechler (1996), ICNN 1:347-352; Tai, Socher & Manning (2015), ACL, arXiv:1503.00075. The task is ours:
neither gives a number for it.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Generator, Tensor

from ctrnn import Order, plots, sweep
from ctrnn.models import GRU, LSTM, ChildSumTreeLSTM, NaryTreeLSTM, Recursive
from ctrnn.plots.style import INPUT, OUTPUT, QUIET, TRAJECTORY, UNSTABLE
from ctrnn.results import Claim, Result, main, progress

MODULUS, SYMBOLS = 3, 6  # 0, 1, 2 and then + - *
TRAINED, TESTED = 3, 6
UNITS, BATCH, RATE = 32, 64, 5e-3
SOLVED = 0.9
TREES = ("recursive", "child-sum Tree-LSTM", "binary Tree-LSTM")
ROWS = ("GRU, in a row", "LSTM, in a row")
BAG = "symbol counts"
SLOTTED = ("recursive", "binary Tree-LSTM")
COLORS = dict(zip((*TREES, *ROWS), (TRAJECTORY, UNSTABLE, OUTPUT, INPUT, QUIET), strict=True))
OWN = "this task is ours; Tai, Socher & Manning (2015) and Goller & Kuechler (1996) have none like it"


class Batch(NamedTuple):
    """Expressions side by side: their symbols in postfix order, as trees and as rows, and their values."""

    symbols: Tensor
    trees: Order
    rows: Order
    last: Tensor
    values: Tensor
    counts: Tensor


def run(*, quick: bool = False, seed: int = 0, seeds: int = 3, updates: int = 1500) -> Result:
    """Train five networks and a classifier of symbol counts, and test them at each depth.

    Args:
        quick: one seed and few updates.
        seed: of weights and expressions; seed, seed + 1, ...
        seeds: networks of each kind.
        updates: of Adam, 64 expressions each.
    """
    if quick:
        seeds, updates = 1, 20
    tests = [batch(256, (depth,), Generator().manual_seed(900 + depth)) for depth in range(1, TESTED + 1)]
    report = progress(seeds, "training")
    found: dict[str, list[list[float]]] = {name: [] for name in (*TREES, *ROWS, BAG)}
    for k in range(seeds):
        draw = Generator().manual_seed(seed + k)
        pool = [batch(BATCH, range(1, TRAINED + 1), draw) for _ in range(min(updates, 100))]
        for name, scores in found.items():
            scores.append(one(name, pool, tests, updates, Generator().manual_seed(seed + k)))
        report(k + 1)
    accuracy = {name: np.array(scores) for name, scores in found.items()}
    return Result(figure(accuracy), claims(accuracy, tests[-1]))


def expression(depth: int, draw: Generator) -> tuple[list[int], list[tuple[int, ...]], int]:
    """Symbols in postfix order, what each reads, and the value modulo 3; exactly as deep as `depth`."""
    if depth == 0:
        digit = int(torch.randint(MODULUS, (), generator=draw))
        return [digit], [()], digit
    depths = [depth - 1, int(torch.randint(depth, (), generator=draw))]
    if torch.rand((), generator=draw) < 0.5:
        depths.reverse()
    (left, reads, a), (right, other, b) = (expression(below, draw) for below in depths)
    operator = int(torch.randint(3, (), generator=draw))
    n = len(left)
    moved = [tuple(n + node for node in slots) for slots in other]
    value = (a + b, a - b, a * b)[operator] % MODULUS
    return [*left, *right, MODULUS + operator], [*reads, *moved, (n - 1, n + len(right) - 1)], value


def batch(n: int, depths: Any, draw: Generator) -> Batch:
    """n expressions, their depths in turn."""
    depths = tuple(depths)
    made = [expression(depths[k % len(depths)], draw) for k in range(n)]
    symbols = [F.one_hot(torch.tensor(word), SYMBOLS).to(torch.get_default_dtype()) for word, _, _ in made]
    ends = torch.tensor([len(word) for word, _, _ in made]).cumsum(0) - 1
    return Batch(
        torch.cat(symbols),
        Order.forest(Order(tuple(reads)) for _, reads, _ in made),
        Order.forest(Order.chain(len(word)) for word, _, _ in made),
        ends,
        torch.tensor([value for _, _, value in made]),
        torch.stack([one_hot.sum(0) for one_hot in symbols]),
    )


def network(name: str, draw: Generator) -> torch.nn.Module:
    """The network of this name."""
    sizes = (UNITS, SYMBOLS, MODULUS)
    if name == BAG:
        hidden, out = torch.nn.Linear(SYMBOLS, 2 * UNITS), torch.nn.Linear(2 * UNITS, MODULUS)
        for layer in (hidden, out):
            torch.nn.init.xavier_uniform_(layer.weight, generator=draw)
            torch.nn.init.zeros_(layer.bias)
        return torch.nn.Sequential(hidden, torch.nn.ReLU(), out)
    if name == "recursive":
        return Recursive(*sizes, generator=draw)
    if name == "binary Tree-LSTM":
        return NaryTreeLSTM(*sizes, generator=draw)
    kinds = {"child-sum Tree-LSTM": ChildSumTreeLSTM, "GRU, in a row": GRU, "LSTM, in a row": LSTM}
    return kinds[name](*sizes, generator=draw)


def said(name: str, model: Any, data: Batch) -> Tensor:
    """Logits of the values (expression, 3)."""
    if name == BAG:
        return model(data.counts)
    return sweep(model, data.symbols, data.trees if name in TREES else data.rows).ys[data.last]


def one(name: str, pool: list[Batch], tests: list[Batch], updates: int, draw: Generator) -> list[float]:
    """Train one network; its accuracy at each depth."""
    model = network(name, draw)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for update in range(updates):
        data = pool[update % len(pool)]
        loss = F.cross_entropy(said(name, model, data), data.values)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        return [float((said(name, model, data).argmax(-1) == data.values).float().mean()) for data in tests]


def claims(accuracy: dict[str, np.ndarray], deepest: Batch) -> list[Claim]:
    """An identity, then who computes what was deeper than anything taught."""
    n, at = len(accuracy[BAG]), f"depth {TESTED}, trained to {TRAINED}"
    return [
        Claim.equal(
            f"levels of the sweep over 256 expressions of depth {TESTED}",
            len(deepest.trees.levels),
            TESTED + 1,
            "one batch for every height of the tree",
        ),
        *[
            Claim.equal(
                f"{name}: at least {SOLVED:.0%} right at {at}, k of {n} seeds (mean {scores[:, -1].mean():.2f}, "
                f"at depth {TRAINED} {scores[:, TRAINED - 1].mean():.2f})",
                int((scores[:, -1] >= SOLVED).sum()),
                n if name in SLOTTED else 0,
                OWN,
                "statistical",
            )
            for name, scores in accuracy.items()
        ],
    ]


def figure(accuracy: dict[str, np.ndarray]) -> Figure:
    """Accuracy against depth."""
    depths = np.arange(1, TESTED + 1)
    with plots.style():
        fig = Figure(figsize=(plots.DOUBLE, 3.0), layout="constrained")
        ax = fig.subplots()
        for name, color in COLORS.items():
            plots.sweep(ax, depths, accuracy[name], label=name, color=color, ls="-" if name in TREES else "--")
        plots.sweep(ax, depths, accuracy[BAG], label=f"{BAG} (static)", color="black", ls=":")
        ax.axvline(TRAINED + 0.5, color=QUIET, lw=0.6)
        ax.annotate("trained | deeper", (TRAINED + 0.5, 1.04), ha="center", fontsize=7)
        ax.set(xlabel="depth of the expression", ylabel="fraction of values right", ylim=(0.3, 1.1))
        ax.set_title(f"values modulo 3 (mean and range of {len(accuracy[BAG])} seeds)")
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return fig


if __name__ == "__main__":
    main(run)
