import pytest
import torch

from ctrnn import _tree as tree
from ctrnn.models import (
    CTRNN,
    BeerCTRNN,
    RateRNN,
    beer_to_voltage,
    rate_to_voltage,
    voltage_to_beer,
    voltage_to_rate,
)

T0 = torch.zeros(())
STEPS = 200


def run(model, x, us, dt):
    """Forward Euler by hand; a list of states."""
    xs = [x]
    for u in us:
        alpha = torch.div(torch.as_tensor(dt), model.tau)
        x = tree.blend(x, model.target(T0, x, u, alpha), alpha)
        xs.append(x)
    return torch.stack(xs).detach()


def assert_run_alike(model, conversion, us, x0=None, rtol=1e-11):
    x0 = 0.5 * torch.randn(2, model.n) if x0 is None else x0
    twin, state = conversion
    old = run(model, x0, us, 0.1)
    new = run(twin, state(x0, us[0]).detach(), us, 0.1)
    assert float(old.diff(dim=0).abs().max()) > 1e-3
    mapped = state(old, us[0].expand(len(old), *us[0].shape))
    torch.testing.assert_close(new, mapped.detach(), rtol=rtol, atol=rtol)
    return old, new


def held():
    return torch.randn(2, 3).expand(STEPS, 2, 3)


def moving():
    return torch.randn(STEPS, 2, 3)


def per_unit():
    return torch.tensor([0.5, 1.0, 2.0, 3.0])


@pytest.mark.parametrize("activation", [torch.tanh, torch.sigmoid, torch.relu])
def test_the_rate_form_runs_as_the_voltage_form_while_the_drive_is_held(activation):
    rate = RateRNN(4, 3, 2, tau=0.7, activation=activation)
    assert_run_alike(rate, rate_to_voltage(rate), held())


def test_the_voltage_form_runs_as_the_rate_form_while_the_drive_is_held():
    voltage = CTRNN(4, 3, 2, tau=0.7)
    with torch.no_grad():
        voltage.W_rec += 2 * torch.eye(4)
    assert_run_alike(voltage, voltage_to_rate(voltage), held(), rtol=1e-9)


def test_voltage_and_rate_form_part_when_the_drive_moves():
    rate = RateRNN(4, 3, tau=0.7)
    with pytest.raises(AssertionError):
        assert_run_alike(rate, rate_to_voltage(rate), moving())


def test_at_rest_voltage_and_rate_form_say_the_same():
    rate = RateRNN(4, 3, 2, tau=0.7)
    with torch.no_grad():
        rate.W_rec *= 0.5
    twin, state = rate_to_voltage(rate)
    u = torch.randn(2, 3)
    rest = run(rate, torch.zeros(2, 4), u.expand(3000, 2, 3), 0.1)[-1]
    torch.testing.assert_close(twin.readout(state(rest, u)), rate.readout(rest))


@pytest.mark.parametrize("tau", [0.7, "per unit"])
@pytest.mark.parametrize("drive", [held, moving])
def test_beers_form_runs_as_the_logistic_voltage_form_under_any_drive_and_tau(tau, drive):
    beer = BeerCTRNN(4, 3, 2, tau=per_unit() if tau == "per unit" else tau, gain=[1.0, 2.0, 0.5, 3.0])
    old, new = assert_run_alike(beer, beer_to_voltage(beer), drive())
    torch.testing.assert_close(beer_to_voltage(beer).model.readout(new), beer.readout(old))


@pytest.mark.parametrize("drive", [held, moving])
def test_the_logistic_voltage_form_runs_as_beers_under_any_drive_and_tau(drive):
    voltage = CTRNN(4, 3, 2, tau=per_unit(), activation=torch.sigmoid)
    with torch.no_grad():
        voltage.b_rec.normal_()
    old, new = assert_run_alike(voltage, voltage_to_beer(voltage), drive())
    torch.testing.assert_close(voltage_to_beer(voltage).model.readout(new), voltage.readout(old))


def test_conversions_chain_from_the_rate_form_to_beers():
    rate = RateRNN(4, 3, tau=0.7, activation=torch.sigmoid)
    voltage, to_voltage = rate_to_voltage(rate)
    beer, to_beer = voltage_to_beer(voltage)
    us = held()
    assert_run_alike(rate, (beer, lambda r, u: to_beer(to_voltage(r, u), u)), us)


def test_a_conversion_there_and_back_gives_the_same_network():
    voltage = CTRNN(4, 3, 2, tau=per_unit(), activation=torch.sigmoid)
    back = beer_to_voltage(voltage_to_beer(voltage).model).model
    assert all(torch.equal(p, back.state_dict()[name]) for name, p in voltage.state_dict().items())


def test_a_converted_network_keeps_tau_to_the_bit_its_dtype_and_what_is_learned():
    rate = RateRNN(4, 3, tau=0.1, learn_tau=True).float()
    with torch.no_grad():
        rate.log_ratio.fill_(0.3)
    twin = rate_to_voltage(rate).model
    assert twin.W_rec.dtype == torch.float32
    assert torch.equal(twin.tau0, rate.tau0)
    assert torch.equal(twin.log_ratio, rate.log_ratio)
    assert isinstance(twin.log_ratio, torch.nn.Parameter)
    assert twin.W_rec.data_ptr() != rate.W_rec.data_ptr()


@pytest.mark.parametrize(
    ("convert", "model", "match"),
    [
        (rate_to_voltage, lambda: RateRNN(4, 3, tau=per_unit()), "tau is the same for all units"),
        (voltage_to_rate, lambda: CTRNN(4, 3, tau=per_unit()), "tau is the same for all units"),
        (voltage_to_beer, lambda: CTRNN(4, 3), "activation=torch.sigmoid"),
    ],
)
def test_a_conversion_that_would_not_be_exact_is_refused(convert, model, match):
    with pytest.raises(ValueError, match=match):
        convert(model())


def test_a_voltage_form_with_singular_weights_has_no_rate_form():
    voltage = CTRNN(4, 3)
    with torch.no_grad():
        voltage.W_rec[0] = voltage.W_rec[1]
    with pytest.raises(ValueError, match="W_rec is singular"):
        voltage_to_rate(voltage)


def test_an_equal_tau_given_per_unit_counts_as_one():
    rate = RateRNN(4, 3, tau=[0.7] * 4)
    assert_run_alike(rate, rate_to_voltage(rate), held())
