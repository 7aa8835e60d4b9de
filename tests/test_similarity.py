"""Distances between dynamics against cases in which they are known."""

import math

import pytest
import torch

from ctrnn import analysis


def orthogonal(n, generator):
    return torch.linalg.qr(torch.randn(n, n, generator=generator))[0]


def trajectories(A, generator, time=40, trials=12):
    xs = [torch.randn(trials, len(A), generator=generator)]
    for _ in range(time):
        xs.append(xs[-1] @ A.mT)
    return torch.stack(xs)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_an_operator_in_other_orthonormal_coordinates_is_at_distance_0(n, generator):
    A, C = torch.randn(n, n, generator=generator) / n**0.5, orthogonal(n, generator)
    for turned in (C, torch.cat([-C[:1], C[1:]])):  # of either determinant
        found = analysis.procrustes_distance(A, turned @ A @ turned.mT)
        assert found.distance < 1e-6
        assert found.angle < 1e-6
        torch.testing.assert_close(found.C @ found.C.mT, torch.eye(n))
        assert analysis.spectral_distance(A, turned @ A @ turned.mT) < 1e-7


def test_of_symmetric_operators_the_distance_is_that_of_their_sorted_eigenvalues(generator):
    A, B = (M + M.mT for M in torch.randn(2, 6, 6, generator=generator))
    expected = float((torch.linalg.eigvalsh(A) - torch.linalg.eigvalsh(B)).norm())  # Hoffman & Wielandt 1953
    assert analysis.procrustes_distance(A, B).distance == pytest.approx(expected, abs=1e-6)
    assert analysis.spectral_distance(A, B) == pytest.approx(expected / 6**0.5, abs=1e-9)


def test_the_distance_is_symmetric_and_what_its_rotation_leaves(generator):
    A, B = torch.randn(2, 5, 5, generator=generator)
    there, back = analysis.procrustes_distance(A, B), analysis.procrustes_distance(B, A)
    assert there.distance == pytest.approx(back.distance, abs=1e-7)
    assert there.distance == pytest.approx(float(torch.linalg.matrix_norm(A - there.C @ B @ there.C.mT)), abs=1e-12)
    cosine = float((A * (there.C @ B @ there.C.mT)).sum() / A.norm() / B.norm())
    assert there.angle == pytest.approx(math.acos(cosine), abs=1e-9)


def test_a_shear_and_its_eigenvalues_alone_part_where_singular_values_would_not_help():
    shear, straight = torch.tensor([[0.5, 0.8], [0.0, 0.5]]), 0.5 * torch.eye(2)
    assert analysis.spectral_distance(shear, straight) < 1e-7
    assert analysis.procrustes_distance(shear, straight).distance == pytest.approx(0.8, abs=1e-6)


def test_two_views_of_one_system_are_near_and_another_system_is_far(generator):
    angle = 0.3
    turn = 0.98 * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    decay = torch.diag(torch.tensor([0.98, 0.8]))
    views = [torch.randn(2, 10, generator=generator) for _ in range(2)]
    same = [analysis.linear_dynamics(trajectories(turn, generator) @ view, 2) for view in views]
    other = analysis.linear_dynamics(trajectories(decay, generator) @ views[0], 2)
    near = analysis.procrustes_distance(same[0].A, same[1].A)
    far = analysis.procrustes_distance(same[0].A, other.A)
    assert near.distance < 0.1 * far.distance
    assert analysis.spectral_distance(same[0].A, same[1].A) < 1e-6
    assert same[0].error < 1e-12 < same[0].persistence
    expected = 0.98 * complex(math.cos(angle), math.sin(angle))
    assert float((same[0].eigenvalues - expected).abs().min()) < 1e-6


def test_what_is_not_seen_is_seen_by_delays(generator):
    angle = 0.4
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    seen = trajectories(turn, generator)[..., :1]
    blind = analysis.linear_dynamics(seen, 1)
    delayed = analysis.linear_dynamics(seen, 2, delays=2)
    assert delayed.error < 1e-10 < 1e-2 < blind.error
    torch.testing.assert_close(delayed.eigenvalues.abs(), torch.ones(2))
    assert analysis.delay_embedded(seen, 3)[0, 0].tolist() == seen[[2, 1, 0], 0, 0].tolist()


def test_groups_that_differ_are_told_apart_and_equal_ones_are_not(generator):
    points = torch.cat([torch.randn(6, 2, generator=generator), torch.randn(6, 2, generator=generator) + 6])
    groups = [0] * 6 + [1] * 6
    apart = analysis.permutation_test(torch.cdist(points, points), groups, permutations=999)
    assert apart.p < 0.01
    assert apart.within < 0.5 * apart.between
    mixed = torch.randn(12, 2, generator=generator)
    chance = [
        analysis.permutation_test(torch.cdist(m, m), groups, permutations=99).p
        for m in torch.randn(40, 12, 2, generator=generator)
    ]
    assert 0.3 < sum(chance) / len(chance) < 0.7
    assert analysis.permutation_test(torch.cdist(mixed, mixed), groups).p > 0


def test_where_relabellings_are_few_all_are_taken_and_p_is_exact():
    def p(places, groups, **how):
        x = torch.tensor(places)[:, None]
        return analysis.permutation_test(torch.cdist(x, x), groups, **how).p

    assert p([0.0, 1.0, 9.0, 10.0], [0, 0, 1, 1]) == pytest.approx(2 / 6)  # the true one and its mirror image
    assert p([0.0, 1.0, 2.0, 20.0, 21.0], [3, 3, 3, 5, 5]) == pytest.approx(1 / 10)
    assert p([0.0, 1.0, 9.0, 10.0], [0, 1, 1, 0]) == 1.0  # {0, 10}, {1, 9}: within 9, as {0, 9}, {1, 10}: the greatest
    drawn = p([0.0, 1.0, 2.0, 20.0, 21.0], [3, 3, 3, 5, 5], permutations=9)
    assert drawn * 10 == pytest.approx(round(drawn * 10))


def test_groups_may_have_names(generator):
    x = torch.randn(7, 2, generator=generator)
    numbers = analysis.permutation_test(torch.cdist(x, x), [2, 2, 2, 7, 7, 9, 9])
    for groups in (["b", "b", "b", "a", "a", "c", "c"], torch.tensor([2, 2, 2, 7, 7, 9, 9])):
        assert analysis.permutation_test(torch.cdist(x, x), groups) == numbers


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: analysis.procrustes_distance(torch.eye(2), torch.eye(3)), "of one size"),
        (lambda: analysis.spectral_distance(torch.eye(2), torch.full((2, 2), torch.nan)), "NaN"),
        (lambda: analysis.linear_dynamics(torch.rand(9, 3), 2), r"\(time, trial, D\)"),
        (lambda: analysis.linear_dynamics(torch.rand(9, 4, 2), 3), "span 2 directions"),
        (lambda: analysis.linear_dynamics(torch.rand(9, 1, 2), 1), "none to fit"),
        (lambda: analysis.delay_embedded(torch.rand(3, 2), 4), "3 samples allow 1 to 3"),
        (lambda: analysis.permutation_test(torch.zeros(3, 3), [0, 0, 0]), "pairs between two"),
        (
            lambda: analysis.permutation_test(torch.eye(4).cumsum(0), [0, 0, 1, 1]),
            "differ from their transpose by up to 1",
        ),
    ],
)
def test_wrong_arguments_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
