import pytest
import torch

from ctrnn.tasks import NARMA


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def brute(us, order, a=0.3, b=0.05, c=1.5, d=0.1):
    """The recurrence over dictionaries of times; what lies before the first sample is zero."""
    u, y = dict(enumerate(us)), {0: 0.0}
    for k in range(len(us)):
        total = sum(y.get(k - i, 0.0) for i in range(order))
        y[k + 1] = a * y[k] + b * y[k] * total + c * u.get(k - order + 1, 0.0) * u[k] + d
    return [y[k + 1] for k in range(len(us))]


@pytest.mark.parametrize("order", [1, 2, 10])
def test_targets_are_the_published_recurrence(order):
    us = 0.4 * torch.rand(60, 3, 1, generator=seeded(), dtype=torch.float64)
    ys = NARMA(order).targets(us)
    for k in range(3):
        assert ys[:, k, 0].tolist() == pytest.approx(brute(us[:, k, 0].tolist(), order), rel=1e-12)


def test_a_series_is_its_inputs_and_their_targets():
    found = NARMA().series(200, 3, seeded(), dtype=torch.float64)
    torch.testing.assert_close(found.targets, NARMA().targets(found.us))
    assert float(found.us.min()) >= 0
    assert float(found.us.max()) < 0.5
    assert torch.equal(found.us, NARMA().series(200, 3, seeded(), dtype=torch.float64).us)


def test_inputs_that_make_it_diverge_are_drawn_again_and_counted():
    found = NARMA().series(10_000, 40, seeded(2))
    assert bool((found.targets.abs() < 10).all())
    twin = 0.5 * torch.rand(10_000, 40, 1, generator=seeded(2), dtype=torch.float64)
    lost = ~(NARMA().targets(twin).abs() < 10).flatten(1).all(0)
    assert found.rejected >= int(lost.sum()) > 0
    kept = found.us[:, ~lost]
    assert torch.equal(kept, twin[:, ~lost].to(kept))


def test_what_diverges_for_all_inputs_is_refused():
    with pytest.raises(ValueError, match="still diverge"):
        NARMA(d=1.0).series(300, 2, seeded())
    with pytest.raises(ValueError, match="order"):
        NARMA(0)
