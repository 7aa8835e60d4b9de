"""The order of every solver: its order conditions, exactly, and the order measured where no shortcut survives."""

import importlib
import inspect
import math
import pkgutil
from dataclasses import dataclass
from functools import cache

import pytest
import torch

import ctrnn
import ctrnn.solvers
from ctrnn.dynamics import Relaxation
from ctrnn.solvers.base import EmbeddedSolver, Solver
from ctrnn.solvers.implicit import RODAS
from ctrnn.solvers.runge_kutta import EmbeddedRungeKutta, RungeKutta


def solver_classes(kind):
    """Every solver in the package, found by walking it: a new file need not be named here."""
    home = ctrnn.solvers
    homes = [importlib.import_module(info.name) for info in pkgutil.walk_packages(home.__path__, home.__name__ + ".")]
    found = {c for h in homes for c in vars(h).values() if inspect.isclass(c) and issubclass(c, kind)}
    return sorted((c for c in found if hasattr(c, "order")), key=lambda c: c.__name__)


EXPLICIT = [c() for c in solver_classes(RungeKutta)]
PAIRS = [c() for c in solver_classes(EmbeddedRungeKutta)]
EMBEDDED = [c() for c in solver_classes(EmbeddedSolver)]
# Iterate is the network of unit delays and approximates nothing; torchdiffeq's fixed methods stand beside its default.
# SemiImplicitEuler knows models with a `balance` only: test_liquid has its order.
ALL = [c() for c in solver_classes(Solver) if c not in (ctrnn.Iterate, ctrnn.SemiImplicitEuler)] + [
    ctrnn.solvers.TorchDiffEq(method) for method in ("euler", "midpoint", "heun3", "rk4")
]


# A rooted tree is the sorted tuple of the subtrees at its root (Hairer, Norsett & Wanner 1993, II.2).


@cache
def trees(order):
    """All rooted trees with so many nodes."""
    return sorted({tuple(sorted(forest)) for forest in forests(order - 1)})


@cache
def forests(nodes):
    """All multisets of trees with so many nodes together."""
    if nodes == 0:
        return [()]
    first = [(size, tree) for size in range(1, nodes + 1) for tree in trees(size)]
    return [(*rest, tree) for size, tree in first for rest in forests(nodes - size)]


def size(tree):
    return 1 + sum(map(size, tree))


def density(tree):
    return size(tree) * math.prod(map(density, tree))


def elementary_weights(tree, a):
    """Of every stage, the product over the subtrees of what a makes of theirs."""
    result = torch.ones(len(a))
    for subtree in tree:
        result = result * (a @ elementary_weights(subtree, a))
    return result


def matrix(tableau):
    stages = len(tableau.a)
    return torch.tensor([list(row) + [0.0] * (stages - len(row)) for row in tableau.a])


def order_of(weights, a, highest=6, theta=1.0):
    """The highest order whose conditions sum_i b_i(theta) Phi_i(tree) = theta^size / density all hold to rounding."""
    for order in range(1, highest + 1):
        for tree in trees(order):
            wrong = float(weights @ elementary_weights(tree, a)) - theta**order / density(tree)
            if abs(wrong) > 1e-12:
                return order - 1
    return highest


def test_the_trees_are_as_many_as_the_literature_counts():
    assert [len(trees(n)) for n in range(1, 7)] == [1, 1, 2, 4, 9, 20]


@pytest.mark.parametrize("solver", EXPLICIT, ids=str)
def test_a_tableau_meets_all_order_conditions_up_to_its_order_and_no_further(solver):
    assert order_of(torch.tensor(solver.tableau.b), matrix(solver.tableau)) == solver.order


@pytest.mark.parametrize("solver", PAIRS, ids=str)
def test_the_embedded_weights_meet_the_conditions_up_to_the_order_of_the_error_and_no_further(solver):
    table = solver.tableau
    embedded = torch.tensor(table.b) - torch.tensor(table.b_error)
    assert order_of(embedded, matrix(table)) == solver.error_order


@pytest.mark.parametrize("solver", [s for s in PAIRS if s.tableau.dense], ids=str)
@pytest.mark.parametrize("theta", [0.1, 0.5, 0.9])
def test_dense_weights_meet_the_conditions_one_order_below_the_method_everywhere_in_the_step(solver, theta):
    weights = torch.tensor([sum(p * theta ** (j + 1) for j, p in enumerate(row)) for row in solver.tableau.dense])
    assert order_of(weights, matrix(solver.tableau), theta=theta) == solver.order - 1


@pytest.mark.parametrize("solver", EXPLICIT, ids=str)
def test_nodes_are_the_row_sums_and_reach_the_end_exactly(solver):
    torch.testing.assert_close(torch.tensor(solver.tableau.c), matrix(solver.tableau).sum(1), rtol=0, atol=1e-12)
    if isinstance(solver, EmbeddedRungeKutta) and solver.tableau.ends_in_slope:
        assert solver.tableau.c[-1] == 1.0


def rosenbrock_form():
    """alpha, Gamma, b of k_i = h f(x + sum_j alpha_ij k_j) + h J sum_j gamma_ij k_j; RODAS is kept as u = Gamma k."""
    s = len(RODAS.c)
    g, a = (torch.tensor([list(r) + [0.0] * (s - len(r)) for r in rows]) for rows in (RODAS.g, RODAS.a))
    # g = diag(1/gamma) - Gamma^-1 (Hairer & Wanner 1996, IV.7, eq. 7.24).
    gammas = torch.linalg.inv(torch.eye(s) / RODAS.gamma - g)
    m = torch.tensor([*RODAS.a[-1], 1.0])
    return a @ gammas, gammas, m @ gammas


def test_the_coefficients_of_rodas_fit_one_another():
    alpha, gammas, b = rosenbrock_form()
    torch.testing.assert_close(alpha.sum(1), torch.tensor(RODAS.c), rtol=0, atol=1e-12)
    torch.testing.assert_close(gammas.sum(1), torch.tensor(RODAS.d), rtol=0, atol=1e-12)
    torch.testing.assert_close(b, (alpha + gammas)[-1], rtol=0, atol=1e-12)  # stiffly accurate


def test_rodas_meets_the_order_conditions_of_rosenbrock_methods_up_to_four():
    alpha, gammas, b = rosenbrock_form()
    beta = alpha + gammas

    def weights(tree):  # Hairer & Wanner (1996), IV.7: beta above a node with one branch, alpha above one with more
        above = alpha if len(tree) > 1 else beta
        result = torch.ones(len(b))
        for subtree in tree:
            result = result * (above @ weights(subtree))
        return result

    wrong = [float(b @ weights(t)) - 1 / density(t) for order in range(1, 5) for t in trees(order)]
    assert max(map(abs, wrong)) < 1e-12


# Measured order.


class Problem(Relaxation):
    """tau x' = tanh(W x + B u(t) + (cos 2t, sin t)) - x: neither autonomous nor linear, two time constants."""

    n_in = 1

    def __init__(self, W):
        super().__init__()
        self.W = W
        self.tau = torch.tensor([0.8, 1.7])

    def target(self, t, x, u, alpha=0):
        t = t.reshape(*t.shape[:-1], 1)
        return torch.tanh(
            x @ self.W.T + u * torch.tensor([1.3, -0.7]) + torch.cat((torch.cos(2 * t), torch.sin(t)), -1)
        )

    def initial_state(self, *batch):
        return torch.tensor([0.5, -0.3]).expand(*batch, 2)


# Made before the default dtype is set to float64 for the tests.
WEIGHTS = torch.tensor([[0.9, -1.2], [1.2, 0.5]], dtype=torch.float64)
NODES = torch.tensor([0.2, -1.0, 0.7, 1.1, -0.4], dtype=torch.float64)[:, None]
# Several starts, since the error of a single one can pass through zero.
STARTS = torch.cartesian_prod(*[torch.tensor(v, dtype=torch.float64) for v in ((-1.0, 0.0, 1.0), (-0.9, 0.1, 1.2))])
EACH = torch.arange(9)


def drive(kind):
    if kind == "linear":
        return ctrnn.Linear(NODES, dt=0.5), None
    if kind == "held":
        return ctrnn.Held(NODES[:4], dt=0.5), None
    return ctrnn.Function(lambda t: torch.sin(3 * t).reshape(*t.shape[:-1], 1)), (0.0, 2.0)


def solve(solver, steps, kind):
    """The states at t = 2 and the gradients of each of their sum with respect to the weights and x0."""
    W, x0 = WEIGHTS.clone().requires_grad_(), STARTS.clone().requires_grad_()
    us, span = drive(kind)
    fixed = ctrnn.Fixed(2.0 / steps)
    x = ctrnn.integrate(Problem(W), us, x0, t_span=span, solver=solver, steps=fixed, save=ctrnn.Last()).xs[-1]
    slopes = torch.autograd.grad((x @ torch.tensor([1.0, 0.5])).sum(), (W, x0))
    return x.detach(), torch.cat([slope.reshape(-1) for slope in slopes])


@cache
def reference(kind):
    return solve(ctrnn.Dopri5(), 400, kind)


def slope(errors):
    """The slope of a line through log2 of the errors at successive halvings."""
    logs = [math.log2(e) for e in errors]
    middle = (len(logs) - 1) / 2
    return -sum((k - middle) * y for k, y in enumerate(logs)) / sum((k - middle) ** 2 for k in range(len(logs)))


@dataclass(frozen=True)
class Case:
    solver: Solver
    kind: str

    def __str__(self):
        return f"{self.solver}-{self.kind}"


HERE = [ctrnn.RK4(), ctrnn.ETD2RK(), ctrnn.Rodas4(), ctrnn.Tsit5()]
CASES = [Case(s, "linear") for s in ALL if not s.own_steps] + [Case(s, k) for s in HERE for k in ("held", "function")]
FIRST = {1: 128, 2: 64, 3: 32, 4: 32, 5: 16}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_halving_dt_divides_the_error_of_state_and_gradient_by_two_to_the_order(case):
    order = case.solver.order
    # Every one of these counts has the drive's nodes among its steps.
    runs = [solve(case.solver, FIRST[order] * 2**k, case.kind) for k in range(3)]
    for which, what in enumerate(("state", "gradient")):
        errors = [float((run[which] - reference(case.kind)[which]).abs().max()) for run in runs]
        assert errors[-1] > 1e-13, f"{what}: below the rounding floor, {errors}"
        assert slope(errors) >= order - 0.15, f"{what}: {errors}"


@pytest.mark.parametrize("solver", EMBEDDED, ids=str)
@pytest.mark.parametrize("theta", [0.3, 0.8])
def test_dense_output_within_a_step_is_accurate_to_the_order_of_the_method(solver, theta):
    model, x = Problem(WEIGHTS), STARTS
    errors = []
    for h in (0.02, 0.01, 0.005):
        t, u = torch.full((9, 1), 0.4), lambda c, h=h: torch.sin(torch.as_tensor(3.0 * c * h)).expand(9, 1)
        attempt = solver.attempt(model, t, torch.full((9, 1), h), x, u)
        dense = solver.interpolate(model, t, torch.full((9, 1), h), x, u, attempt, torch.full((9, 1), theta), EACH)
        exact = x
        for k in range(20):
            part = theta * h / 20
            begin = k / 20 * theta
            exact = ctrnn.Dopri5().step(model, t + k * part, part, exact, lambda c, b=begin, u=u: u(b + c * theta / 20))
        errors.append(float((dense - exact).abs().max()))
    assert slope(errors) >= solver.order - 0.15, errors


@pytest.mark.parametrize("solver", EMBEDDED, ids=str)
def test_dense_output_ends_in_the_state_at_the_end(solver):
    model, x, t = Problem(WEIGHTS), STARTS, torch.zeros(9, 1)
    h, u = torch.full((9, 1), 0.1), torch.zeros(9, 1)
    attempt = solver.attempt(model, t, h, x, u)
    for theta, state in ((0.0, x), (1.0, attempt.x)):
        dense = solver.interpolate(model, t, h, x, u, attempt, torch.full((9, 1), theta), EACH)
        torch.testing.assert_close(dense, state, rtol=0, atol=1e-14)


@pytest.mark.parametrize("solver", EMBEDDED, ids=str)
def test_dense_output_is_there_for_any_row_as_often_as_it_is_wanted(solver):
    model, x, t, u = Problem(WEIGHTS), STARTS, torch.linspace(0.0, 1.0, 9)[:, None], torch.zeros(9, 1)
    h, rows, theta = (
        torch.linspace(0.1, 0.2, 9)[:, None],
        torch.tensor([4, 0, 4, 8]),
        torch.tensor([0.2, 0.4, 0.6, 0.8]),
    )
    attempt = solver.attempt(model, t, h, x, u)
    several = solver.interpolate(model, t, h, x, u, attempt, theta[:, None], rows)
    for k, row in enumerate(rows):
        alone = solver.interpolate(model, t, h, x, u, attempt, theta[k].expand(9, 1), EACH)
        torch.testing.assert_close(several[k], alone[row], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("solver", EMBEDDED, ids=str)
def test_the_error_estimate_shrinks_by_its_order_plus_one(solver):
    model, x, t, u = Problem(WEIGHTS), STARTS, torch.zeros(9, 1), torch.zeros(9, 1)
    estimates = [
        float(solver.error(solver.attempt(model, t, torch.full((9, 1), 0.1 / 2**k), x, u)).abs().max())
        for k in range(4)
    ]
    assert slope(estimates) >= solver.error_order + 1 - 0.15, estimates
