"""Whether two networks move alike: linear operators fitted to their trajectories, compared up to a rotation.

Dynamical similarity analysis (Ostrow, Eisen, Kozachkov & Fiete 2023, "Beyond geometry", NeurIPS 36): a trajectory is
embedded by delays, a linear operator of low rank is fitted to its steps (dynamic mode decomposition), and two operators
A and B are as far apart as A and C B C' for the best orthogonal C.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ctrnn._types import State
from ctrnn.analysis.subspace import ravelled

TINY = 1e-10  # of the greatest singular value: what is smaller is rounding


class LinearDynamics(NamedTuple):
    """z[t + 1] = A z[t] + c, z the whitened principal coordinates of the delay-embedded trajectory."""

    A: Float[Tensor, "rank rank"]
    error: float  # mean squared one-step error over the variance of the embedded states, on trials that were held out
    persistence: float  # the same of the prediction that nothing changes

    @property
    def eigenvalues(self) -> Complex[Tensor, " rank"]:
        """Of A: multipliers of one sample, within the unit circle for what decays."""
        return torch.linalg.eigvals(self.A)


def delay_embedded(xs: State, delays: int) -> Float[Tensor, "time_ *batch D_"]:
    """Each state beside the `delays` - 1 before it: (time - delays + 1, *batch, D * delays), the latest first.

    Args:
        xs: states (time, *batch, D), or a NamedTuple of them, ravelled side by side.
        delays: how many states are laid side by side.

    Raises:
        TypeError: the states are no Tensors.
        ValueError: fewer samples than delays.
    """
    xs = ravelled(xs)
    if not 1 <= delays <= len(xs):
        raise ValueError(f"delays = {delays}: {len(xs)} samples allow 1 to {len(xs)}.")
    return torch.cat([xs[delays - 1 - k : len(xs) - k] for k in range(delays)], -1)


def linear_dynamics(xs: State, rank: int, *, delays: int = 1, held_out: float = 0.25) -> LinearDynamics:
    """The linear operator of a given rank that best predicts each sample of the trajectories from the one before.

    The embedded states are centred, reduced to their `rank` greatest principal coordinates and whitened, so that units
    of different size count alike; A solves least squares over all trials. `error` is that of coordinates and operator
    fitted without the last trials and tested on them, in the space of the embedded states, so that it may be compared
    between ranks: the one to take is that beyond which it no longer falls.

    Args:
        xs: trajectories (time, trial, D), or a NamedTuple of them, ravelled side by side; one sampling interval for all
            networks that are compared.
        rank: of the operator.
        delays: samples in an embedded state; more than one where some of the state is not seen.
        held_out: fraction of the trials for `error`.

    Raises:
        TypeError: the states are no Tensors.
        ValueError: the embedded states span fewer directions than `rank`, hold NaN, or no trial can be held out.
    """
    xs = ravelled(xs)
    if xs.ndim != 3:
        raise ValueError(f"xs must be trajectories (time, trial, D), got the shape {tuple(xs.shape)}.")
    if not bool(torch.isfinite(xs).all()):
        raise ValueError("the trajectories hold NaN or infinite values: cut them off before.")
    tested = math.ceil(held_out * xs.shape[1])
    if not 0 < tested < xs.shape[1]:
        raise ValueError(f"held_out = {held_out} of {xs.shape[1]} trials leaves none to test or none to fit.")
    embedded = delay_embedded(xs.detach().double(), delays)
    A, _, _ = _operator(embedded, rank)
    without, c, basis = _operator(embedded[:, :-tested], rank)
    centred = embedded[:, -tested:] - basis.mean
    now, after = centred[:-1], centred[1:]
    predicted = (now @ basis.whitening @ without.mT + c) @ basis.colouring
    variance = after.square().mean()
    return LinearDynamics(
        A, float((after - predicted).square().mean() / variance), float((after - now).square().mean() / variance)
    )


class _Basis(NamedTuple):
    """z = (x - mean) @ whitening, and back x - mean = z @ colouring, in the span of the axes."""

    mean: Tensor
    whitening: Tensor
    colouring: Tensor


def _operator(embedded: Tensor, rank: int) -> tuple[Tensor, Tensor, _Basis]:
    """A, c, and the coordinates in which they act."""
    rows = embedded.flatten(0, 1)
    mean = rows.mean(0)
    _, S, V = torch.linalg.svd(rows - mean, full_matrices=False)
    span = int((TINY * S[0] < S).sum())
    if not 1 <= rank <= span:
        raise ValueError(f"rank = {rank}: the embedded trajectories span {span} directions.")
    scale = S[:rank, None] / math.sqrt(len(rows))
    basis = _Basis(mean, (V[:rank] / scale).mT, V[:rank] * scale)
    return *_fit((embedded - mean) @ basis.whitening), basis


def _fit(z: Tensor) -> tuple[Tensor, Tensor]:
    """A, and c: without it the mean of a finite run, which is taken off, would bend A."""
    now, after = z[:-1].flatten(0, 1), z[1:].flatten(0, 1)
    solved = torch.linalg.lstsq(torch.cat([now, torch.ones_like(now[:, :1])], 1), after).solution
    return solved[:-1].mT.contiguous(), solved[-1]


class Conjugacy(NamedTuple):
    """How far apart A and C B C' are, for the orthogonal C that brings them nearest."""

    distance: float  # Frobenius norm of A - C B C'
    angle: float  # between the two, in radians, 0 to pi: blind to their size
    C: Float[Tensor, "n n"]
    converged: bool  # whether the start that came nearest ended within the iterations


def procrustes_distance(
    A: Float[Tensor, "n n"],
    B: Float[Tensor, "n n"],
    *,
    restarts: int = 16,
    iterations: int = 2000,
    generator: torch.Generator | None = None,
) -> Conjugacy:
    """min |A - C B C'| over orthogonal C, of either determinant (Ostrow et al. 2023, eq. 5).

    C <- the orthogonal factor of A C B' + A' C B + s C, which never lowers tr(A' C B C') when s is large enough (a
    minorise-maximise step); from several starts at once, the best end counts. The problem has local optima: more
    restarts make a smaller result likelier, never a greater one.

    Args:
        A, B: operators of one size.
        restarts: random starts, besides two that align the symmetric parts.
        iterations: at most so many steps; a start ends when it gains no more than rounding.
        generator: of the starts; if None the same ones at every call.

    Raises:
        ValueError: the operators differ in size, are not square or not finite.
    """
    A, B = _square(A, B)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    C = _starts(A, B, restarts, generator)
    size = torch.linalg.matrix_norm(A) * torch.linalg.matrix_norm(B)
    s = torch.full((len(C), 1, 1), 0.1 * float(torch.linalg.matrix_norm(A, 2) * torch.linalg.matrix_norm(B, 2)))
    value = _overlap(A, B, C)
    going = torch.arange(len(C))
    for _ in range(iterations):
        here = C[going]
        U, _, V = torch.linalg.svd(A @ here @ B.mT + A.mT @ here @ B + s[going].to(A) * here)
        new = U @ V
        gain = _overlap(A, B, new) - value[going]
        better = gain > 0
        C[going[better]], value[going[better]] = new[better], value[going[better]] + gain[better]
        s[going[~better]] *= 4  # a longer pull towards the old C
        ended = (gain.abs() <= 1e-15 * size) | (s[going, 0, 0] > 1e6 * size)
        going = going[~ended]
        if not len(going):
            break
    winner = int(value.argmax())
    best, converged = C[winner], winner not in going
    cosine = float((value.max() / size).clamp(-1, 1)) if float(size) > 0 else 1.0
    return Conjugacy(float(torch.linalg.matrix_norm(A - best @ B @ best.mT)), math.acos(cosine), best, converged)


def spectral_distance(A: Float[Tensor, "n n"], B: Float[Tensor, "n n"]) -> float:
    """The 2-Wasserstein distance of the two sets of eigenvalues: root mean square of the best pairing's differences.

    Of eigenvalues, not singular values: it is blind to non-normality, which `procrustes_distance` sees.

    Raises:
        ValueError: the operators differ in size, are not square or not finite.
    """
    A, B = _square(A, B)
    cost = (torch.linalg.eigvals(A)[:, None] - torch.linalg.eigvals(B)).abs().square().numpy()
    return float(math.sqrt(cost[linear_sum_assignment(cost)].mean()))


def _square(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    A, B = A.detach().double().cpu(), B.detach().double().cpu()
    if A.ndim != 2 or A.shape[0] != A.shape[1] or A.shape != B.shape:
        raise ValueError(f"two square operators of one size are compared, got {tuple(A.shape)} and {tuple(B.shape)}.")
    if not bool(torch.isfinite(A).all() & torch.isfinite(B).all()):
        raise ValueError("an operator holds NaN or infinite values.")
    return A, B


def _overlap(A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """tr(A' C B C') of each C."""
    return (A * (C @ B @ C.mT)).sum((-2, -1))


def _starts(A: Tensor, B: Tensor, restarts: int, generator: torch.Generator) -> Tensor:
    n = len(A)
    random, R = torch.linalg.qr(torch.randn(restarts, n, n, generator=generator, dtype=A.dtype))
    random = random * R.diagonal(dim1=-2, dim2=-1).sign()[:, None]  # uniform over the group, both determinants
    (_, P), (_, Q) = torch.linalg.eigh(A + A.mT), torch.linalg.eigh(B + B.mT)
    return torch.cat([(P @ Q.mT)[None], torch.eye(n, dtype=A.dtype)[None], random])


class PermutationTest(NamedTuple):
    """Distances within groups and between them, and how often chance parts them as much."""

    within: float  # mean distance of two members of one group
    between: float  # of two members of different groups
    p: float  # fraction of relabellings, the true one among them, whose between - within is as great


def permutation_test(
    distances: Float[Tensor, "n n"],
    groups: Sequence[Hashable] | Int[Tensor, " n"],
    *,
    permutations: int = 10_000,
    generator: torch.Generator | None = None,
) -> PermutationTest:
    """Are members of one group nearer to one another than to others? One-sided, by relabelling.

    Where there are no more relabellings than `permutations`, all are taken and p is exact; else they are drawn.

    Args:
        distances: symmetric.
        groups: the group of each row, numbers or names.
        permutations: relabellings drawn besides the true one, so that a drawn p is at least 1 / (permutations + 1).
        generator: of the draws; if None the same ones at every call.

    Raises:
        ValueError: the matrix is not (n, n), finite and symmetric (to 1e-6), or no pair lies within a group or none
            between two.
    """
    names = groups.tolist() if isinstance(groups, Tensor) else list(groups)
    number = {name: k for k, name in enumerate(dict.fromkeys(names))}
    labels = torch.tensor([number[name] for name in names])
    distances = torch.as_tensor(distances).detach().double().cpu()
    if distances.shape != (len(labels),) * 2 or not bool(torch.isfinite(distances).all()):
        raise ValueError(f"distances must be finite, ({len(labels)}, {len(labels)}) for as many groups.")
    gap = float((distances - distances.mT).abs().max())
    if gap > 1e-6 * float(distances.abs().max()):
        raise ValueError(
            f"distances differ from their transpose by up to {gap:.3g}: a distance is symmetric; of a measure that is "
            "not, take the mean with its transpose."
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    i, j = torch.triu_indices(len(labels), len(labels), 1)
    pairs = distances[i, j]
    same = (labels[i] == labels[j]).double()
    if not 0 < float(same.sum()) < len(same):
        raise ValueError("there must be pairs within a group and pairs between two.")

    def apart(same: Tensor) -> Tensor:
        inside = same @ pairs / same.sum(-1)
        return (pairs.sum() - same @ pairs) / (len(pairs) - same.sum(-1)) - inside

    counts = Counter(labels.tolist())
    if math.factorial(len(labels)) // math.prod(math.factorial(count) for count in counts.values()) <= permutations:
        shuffled, drawn = torch.tensor(list(_arrangements(counts))), 0
    else:
        shuffled, drawn = labels[torch.rand(permutations, len(labels), generator=generator).argsort(-1)], 1
    chance = apart((shuffled[:, i] == shuffled[:, j]).double())
    true = apart(same)
    as_great = int((chance >= true - 1e-12 * pairs.abs().max()).sum())
    within = float(same @ pairs / same.sum())
    return PermutationTest(within, within + float(true), (as_great + drawn) / (len(shuffled) + drawn))


def _arrangements(counts: Counter[int]) -> Iterator[list[int]]:
    """Every distinct order of labels, of which each occurs so often."""
    if not counts.total():
        yield []
    for label in [label for label, count in counts.items() if count]:
        for rest in _arrangements(counts - Counter([label])):
            yield [label, *rest]
