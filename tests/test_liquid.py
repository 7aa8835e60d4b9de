import numpy as np
import pytest
import torch
from ncps.torch import CfCCell, LTCCell
from ncps.wirings import FullyConnected
from scipy.integrate import solve_ivp

from ctrnn import RK4, Adaptive, Fixed, Held, Iterate, NonFiniteState, SemiImplicitEuler, integrate
from ctrnn.models import CTRNN, LTC, CfC


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def us(n_time=8, batch=3, n_in=2, seed=1):
    return torch.randn(n_time, batch, n_in, dtype=torch.float64, generator=seeded(seed))


def ltc(n=5, n_in=2, **options):
    return LTC(n, n_in, generator=seeded(), **options).double()


def test_the_flow_is_the_membrane_equation():
    # cm dv/dt = gleak (vleak - v) + sum w sigma(slope (x - mu)) (E - v), with tau = cm / gleak and g = w / gleak.
    model = ltc(tau=torch.tensor([0.5, 1.0, 2.0, 0.3, 1.5]))
    gleak = torch.tensor([0.7, 0.2, 1.1, 0.4, 0.9], dtype=torch.float64)
    v, u = us(1, 3, 5)[0], us(1)[0]
    x = torch.cat([v, u], -1).unsqueeze(1)
    w = gleak[:, None] * torch.nn.functional.softplus(model.raw_g)
    current = (w * torch.sigmoid(model.slope * (x - model.mu)) * (model.E - v.unsqueeze(-1))).sum(-1)
    expected = (gleak * (model.V_leak - v) + current) / (gleak * model.tau)
    torch.testing.assert_close(model(torch.tensor(0.0), v, u), expected, rtol=1e-12, atol=1e-12)


def test_a_fine_solution_is_that_of_scipy():
    model = ltc()
    u = us(1, 1)[0, 0]
    run = integrate(model, u.expand(1, 2), dt=4.0, steps=Adaptive(1e-10, 1e-12))

    def slope(t, v):
        return model(torch.tensor(t), torch.as_tensor(v), u).detach().numpy()

    found = solve_ivp(slope, (0.0, 4.0), np.zeros(5), method="DOP853", rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(run.xs[-1].detach(), found.y[:, -1], rtol=1e-7, atol=1e-9)


def test_a_fine_solution_at_irregular_times_is_that_of_scipy_between_them():
    model, drive, spans = ltc(), us(6)[:, 0], torch.tensor([0.3, 1.7, 0.02, 0.9, 4.1, 0.6], dtype=torch.float64)
    edges = torch.cat([torch.zeros(1, dtype=torch.float64), spans.cumsum(0)])
    run = integrate(model, Held(drive, edges=edges), steps=Adaptive(1e-10, 1e-12))
    v = np.zeros(5)
    for u, span, expected in zip(drive, spans.tolist(), run.xs.detach(), strict=True):
        slope = lambda t, v, u=u: model(torch.tensor(t), torch.as_tensor(v), u).detach().numpy()
        v = solve_ivp(slope, (0.0, span), v, method="DOP853", rtol=1e-11, atol=1e-13).y[:, -1]
        np.testing.assert_allclose(expected, v, rtol=1e-7, atol=1e-9)


def test_a_unit_that_hears_inputs_only_decays_to_its_balance_with_its_own_time_constant():
    model = ltc(tau=torch.tensor([0.5, 1.0, 2.0, 0.3, 1.5]))
    with torch.no_grad():
        model.raw_g[:, :5] = -1e3  # no conductance between units
    u, v0 = us(1, 1)[0, 0], us(1, 1, 5, seed=2)[0, 0]
    g = torch.nn.functional.softplus(model.raw_g[:, 5:])
    open_ = torch.sigmoid(model.slope[:, 5:] * (u - model.mu[:, 5:]))
    total = 1 + (g * open_).sum(-1)
    rest = (model.V_leak + (g * open_ * model.E[:, 5:]).sum(-1)) / total
    run = integrate(model, u.expand(1, 2), v0, dt=0.7, steps=Adaptive(1e-11, 1e-13))
    expected = rest + (v0 - rest) * torch.exp(-0.7 * total / model.tau)
    torch.testing.assert_close(run.xs[0], expected, rtol=1e-8, atol=1e-10)


def test_weights_begin_in_the_ranges_of_ncps():
    model, ranges = LTC(40, 30, generator=seeded()), LTCCell(FullyConnected(2, 2), 2)._init_ranges
    drawn = {
        "w": torch.nn.functional.softplus(model.raw_g), "sigma": model.slope, "mu": model.mu, "vleak": model.V_leak
    }  # fmt: skip
    for name, values in drawn.items():
        low, high = ranges[name]
        assert low - 1e-6 <= values.min() <= low + 0.1 * (high - low), name
        assert high - 0.1 * (high - low) <= values.max() <= high + 1e-6, name
    assert model.E.unique().tolist() == [-1.0, 1.0]


def ncps_cell(model, unfolds=6):
    """The same network as ncps has it: weights [from, to], absolute conductances, capacitance tau gleak."""
    cell = LTCCell(FullyConnected(model.n, model.n), model.n_in, input_mapping="none", output_mapping="none",
                   ode_unfolds=unfolds).double()  # fmt: skip
    gleak = torch.linspace(0.3, 0.9, model.n, dtype=torch.float64)
    g = gleak[:, None] * torch.nn.functional.softplus(model.raw_g)
    n = model.n
    ours = {
        "gleak": gleak, "vleak": model.V_leak, "cm": gleak * model.tau, "w": g[:, :n].T, "sensory_w": g[:, n:].T,
        "sigma": model.slope[:, :n].T, "sensory_sigma": model.slope[:, n:].T, "mu": model.mu[:, :n].T,
        "sensory_mu": model.mu[:, n:].T, "erev": model.E[:, :n].T, "sensory_erev": model.E[:, n:].T,
        "sparsity_mask": torch.ones(n, n), "sensory_sparsity_mask": torch.ones(model.n_in, n),
    }  # fmt: skip
    with torch.no_grad():
        for name, value in ours.items():
            cell._params[name].copy_(value)
    return cell


@pytest.mark.parametrize("span", [1.0, 0.37])
def test_the_fused_steps_are_those_of_ncps(span):
    model = ltc(tau=torch.tensor([0.5, 1.0, 2.0, 0.3, 1.5]))
    cell = ncps_cell(model)
    run = integrate(model, Held(us(), span), steps=Fixed(span / 6), solver=SemiImplicitEuler())
    v = torch.zeros(3, 5, dtype=torch.float64)
    for k, u in enumerate(us()):
        _, v = cell(u, v, elapsed_time=span)
        torch.testing.assert_close(run.xs[k], v, rtol=1e-7, atol=1e-8)  # ncps adds 1e-8 to its denominator


def test_spans_of_each_sequence_are_those_of_ncps_for_one_sequence_at_a_time():
    # ncps divides units by spans: several spans at once raise, or mix them up where there are as many as units.
    model = ltc(tau=torch.tensor([0.5, 1.0, 2.0, 0.3, 1.5]))
    cell, spans = ncps_cell(model), torch.rand(8, 3, dtype=torch.float64, generator=seeded(5)) + 0.1
    spans[:, 0] = 1.2  # the longest span of every sample decides how many steps all take: six
    edges = torch.cat([torch.zeros(1, 3, dtype=torch.float64), spans.cumsum(0)])
    run = integrate(model, Held(us(), edges=edges), steps=Fixed(0.2), solver=SemiImplicitEuler())
    for row in range(3):
        v = torch.zeros(1, 5, dtype=torch.float64)
        for k in range(8):
            _, v = cell(us()[k, row : row + 1], v, elapsed_time=float(spans[k, row]))
            torch.testing.assert_close(run.xs[k, row], v[0], rtol=1e-7, atol=1e-8)


def test_fused_steps_approach_the_flow_at_first_order():
    model = ltc()
    flow = integrate(model, us(), dt=1.0, steps=Adaptive(1e-10, 1e-12)).xs
    errors = [
        float(
            (integrate(model, Held(us(), 1.0), steps=Fixed(h), solver=SemiImplicitEuler()).xs - flow)
            .abs()
            .max()
            .detach()
        )
        for h in (1 / 64, 1 / 128, 1 / 256)
    ]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert abs(orders - 1).max() < 0.1


def test_a_fused_step_keeps_float32_and_asks_the_model_once():
    model = ltc().float()
    asked = []
    balance = model.balance
    model.balance = lambda *point: asked.append(point) or balance(*point)
    run = integrate(model, us().float(), dt=1.0, solver=SemiImplicitEuler())
    assert run.xs.dtype == torch.float32
    assert len(asked) == 8 * SemiImplicitEuler().evaluations


@pytest.mark.parametrize("dt", [0.1, 10.0, 1e6])
def test_the_state_stays_between_the_potentials_at_any_step(dt):
    model = ltc()
    run = integrate(model, Held(100 * us(20), dt), steps=Fixed(dt), solver=SemiImplicitEuler())
    ends = torch.cat([model.E, model.V_leak[:, None]], -1)
    assert bool((run.xs >= ends.amin(-1) - 1e-12).all())
    assert bool((run.xs <= ends.amax(-1) + 1e-12).all())


def test_a_model_without_a_balance_is_refused():
    with pytest.raises(TypeError, match="balance"):
        integrate(CTRNN(3, 2), us(), dt=1.0, solver=SemiImplicitEuler())


def test_each_sequence_has_its_own_times():
    model = ltc()
    spans = torch.rand(8, 3, dtype=torch.float64, generator=seeded(5)) + 0.2
    edges = torch.cat([torch.zeros(1, 3, dtype=torch.float64), spans.cumsum(0)])
    how = {"steps": Adaptive(1e-9, 1e-11)}
    together = integrate(model, Held(us(), edges=edges), **how)
    for row in range(3):
        alone = integrate(model, Held(us()[:, row], edges=edges[:, row]), **how)
        torch.testing.assert_close(together.xs[:, row], alone.xs, rtol=1e-9, atol=1e-10)
    fixed = integrate(model, Held(us(), edges=edges), steps=Fixed(0.01), solver=RK4())
    torch.testing.assert_close(together.xs, fixed.xs, rtol=1e-6, atol=1e-7)


def in_two(drive, spans):
    """The same signal with every held interval cut at a third."""
    pieces = torch.stack([spans / 3, 2 * spans / 3], 1).flatten(0, 1)
    return drive.repeat_interleave(2, 0), torch.cat([torch.zeros_like(pieces[:1]), pieces.cumsum(0)])


def test_a_redundant_edge_does_not_change_the_flow():
    spans = torch.rand(8, 3, dtype=torch.float64, generator=seeded(5)) + 0.2
    edges = torch.cat([torch.zeros(1, 3, dtype=torch.float64), spans.cumsum(0)])
    drive, cut = in_two(us(), spans)
    for model in (ltc(), CTRNN(5, 2, generator=seeded()).double()):
        whole = integrate(model, Held(us(), edges=edges), steps=Adaptive(1e-9, 1e-11)).xs
        twice = integrate(model, Held(drive, edges=cut), steps=Adaptive(1e-9, 1e-11)).xs
        torch.testing.assert_close(twice[1::2], whole, rtol=1e-7, atol=1e-8)


def cfc(n=5, n_in=2):
    return CfC(n, n_in, backbone=7, generator=seeded()).double()


def test_whole_steps_are_the_closed_form_of_ncps():
    model = cfc()
    cell = CfCCell(2, 5, backbone_units=7).double()
    f, g, a, b = (part for part in zip(model.W_heads.chunk(4), model.b_heads.chunk(4), strict=True))
    with torch.no_grad():
        for layer, (W, bias) in (
            (cell.backbone[0], (model.W_z, model.b_z)),
            (cell.ff1, f), (cell.ff2, g), (cell.time_a, a), (cell.time_b, b),
        ):  # fmt: skip
            layer.weight.copy_(W)
            layer.bias.copy_(bias)
    spans = torch.rand(8, 3, 1, dtype=torch.float64, generator=seeded(5)) + 0.2
    run = integrate(model, torch.cat([us(), spans], -1), dt=1.0, solver=Iterate())
    x = torch.zeros(3, 5, dtype=torch.float64)
    for k in range(8):
        x, _ = cell(us()[k], x, spans[k])  # one span per row; ncps's own sequence classes cannot take them
        torch.testing.assert_close(run.xs[k], x, rtol=1e-6, atol=1e-7)


def test_a_long_span_reaches_one_of_the_two_ends():
    model = cfc()
    u, x = us(1)[0], us(1, 3, 5)[0]
    z = 1.7159 * torch.tanh(0.666 * (torch.cat([u, x], -1) @ model.W_z.T + model.b_z))
    f, g, a, _ = (z @ model.W_heads.T + model.b_heads).chunk(4, -1)
    far = model.target(torch.tensor(0.0), x, torch.cat([u, torch.full((3, 1), 1e8, dtype=torch.float64)], -1))
    torch.testing.assert_close(far, torch.where(a > 0, torch.tanh(g), torch.tanh(f)), rtol=1e-6, atol=1e-6)


def test_the_number_of_inputs_counts_the_span_last():
    model = cfc()
    assert model.n_in == 3
    assert CfC.from_config(model.config).n_in == 3


def test_two_spans_of_the_closed_form_are_not_their_sum():
    model, u = cfc(), us(1)[0]
    at = lambda x, span: model.target(torch.tensor(0.0), x, torch.cat([u, torch.full((3, 1), span)], -1))
    x = model.initial_state(3)
    assert (at(at(x, 1.0), 1.0) - at(x, 2.0)).abs().max() > 0.05


def test_a_run_that_diverges_by_eulers_step_is_told_the_authors_solver():
    model, drive = ltc(), us(n_time=2000)
    with torch.no_grad():
        model.raw_g += 5  # sum g s far above 1
    with pytest.raises(NonFiniteState, match=r"SemiImplicitEuler\(\)"):
        integrate(model, drive, dt=1.0)
    assert bool(torch.isfinite(integrate(model, drive, dt=1.0, solver=SemiImplicitEuler()).xs).all())
