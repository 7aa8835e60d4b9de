"""The theory of retrieval, and the patterns it is about."""

import math

import pytest
import torch

from ctrnn import analysis, tasks


def iterated(load, crosstalk):
    """The three equations iterated from m = 1."""
    m, r = 1.0, 1.0
    for _ in range(20_000):
        y = m / math.sqrt(2 * load * r)
        C = math.sqrt(2 / (math.pi * load * r)) * math.exp(-(y**2))
        if C >= 1:
            return 0.0
        m, r = math.erf(y), crosstalk(C)
    return m


ONE, TWO = lambda C: 1 / (1 - C) ** 2, lambda C: (1 + C**2) / (1 - C**2) ** 2


@pytest.mark.parametrize(("fields", "crosstalk"), [(1, ONE), (2, TWO)])
@pytest.mark.parametrize("fraction", [0.2, 0.6, 0.95, 0.999])
def test_the_overlap_solves_the_equations(fields, crosstalk, fraction):
    load = fraction * analysis.critical_load(fields=fields)
    assert analysis.retrieval_overlap(load, fields=fields) == pytest.approx(iterated(load, crosstalk), abs=1e-9)


@pytest.mark.parametrize(("fields", "crosstalk"), [(1, ONE), (2, TWO)])
def test_above_the_critical_load_they_have_no_solution(fields, crosstalk):
    load = 1.01 * analysis.critical_load(fields=fields)
    assert analysis.retrieval_overlap(load, fields=fields) == 0
    assert iterated(load, crosstalk) < 1e-6


def test_the_critical_load_is_the_published_one():
    assert analysis.critical_load() == pytest.approx(0.137906, abs=1e-6)  # Stojnic (2024), arXiv:2403.01907
    assert analysis.retrieval_overlap(0.9999999 * analysis.critical_load()) == pytest.approx(0.967, abs=1e-3)


def test_an_almost_empty_memory_makes_no_errors():
    assert analysis.retrieval_overlap(1e-4) == 1
    assert analysis.one_step_error(1e-3) < 1e-12
    assert analysis.one_step_error(1.0) == pytest.approx(0.158655, abs=1e-6)  # one standard deviation


def test_a_load_or_a_number_of_fields_without_a_theory_is_refused():
    with pytest.raises(ValueError, match="load = 0"):
        analysis.retrieval_overlap(0)
    with pytest.raises(ValueError, match="load = nan"):
        analysis.one_step_error(math.nan)
    with pytest.raises(ValueError, match="fields = 3"):
        analysis.critical_load(fields=3)


def test_patterns_are_signs_that_a_generator_repeats():
    draws = [tasks.random_patterns(200, 50, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*draws)
    assert set(draws[0].unique().tolist()) == {-1.0, 1.0}
    assert abs(float(draws[0].mean())) < 0.05
    assert draws[0].dtype == torch.get_default_dtype()
    assert tasks.random_patterns(1, 2, dtype=torch.float32).dtype == torch.float32


@pytest.mark.parametrize("fraction", [0, 0.3, 1])
def test_exactly_a_fraction_of_the_units_is_flipped(fraction):
    patterns = tasks.random_patterns(6, 20).reshape(2, 3, 20)
    noisy = tasks.flip_units(patterns, fraction)
    assert ((noisy != patterns).sum(-1) == round(20 * fraction)).all()
    assert torch.equal(noisy.abs(), patterns.abs())


def test_every_unit_is_flipped_now_and_then():
    patterns = torch.ones(400, 5)
    flips = (tasks.flip_units(patterns, 0.4, generator=torch.Generator().manual_seed(0)) < 0).double().mean(0)
    assert bool(((flips - 0.4).abs() < 0.1).all())


def test_patterns_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="n = 0"):
        tasks.random_patterns(1, 0)
    with pytest.raises(ValueError, match="fraction"):
        tasks.flip_units(torch.ones(3), 1.5)
    with pytest.raises(TypeError, match="generator"):
        tasks.flip_units(torch.ones(3), 0.5, generator=0)
