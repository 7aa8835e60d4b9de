import dataclasses
import functools
import itertools
import json
import math
from collections import Counter
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from ctrnn import (
    Adaptive,
    ExponentialEuler,
    Fixed,
    Held,
    IntegrationError,
    Iterate,
    Model,
    Tsit5,
    integrate,
    wrap,
)
from ctrnn.learning import (
    Choice,
    LogUniform,
    RatePenalty,
    TrainingError,
    Uniform,
    WeightPenalty,
    fit,
    fit_ensemble,
)
from ctrnn.learning.training import generator as source
from ctrnn.models import CTRNN, GRU, LSTM, MTRNN, RateRNN, Stack
from ctrnn.tasks import DelayedMatch, DigitStrings, FlipFlop

ADAM = functools.partial(torch.optim.Adam, lr=1e-2)
FLIPFLOP = FlipFlop(bits=1, duration=10.0)
SHORT = {"updates": 3, "batch": 4, "dt": 0.5, "optimizer": ADAM}


def network(n=8, seed=0, n_in=1, n_out=1, **options):
    return CTRNN(n, n_in, n_out, generator=torch.Generator().manual_seed(seed), **options)


def weights(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@dataclasses.dataclass(frozen=True)
class Noticing(FlipFlop):
    """A flip-flop that notes the steps at which trials are asked for."""

    seen: list = dataclasses.field(default_factory=list, repr=False)

    def trials(self, batch, dt, generator=None, *, dtype=None, device=None):
        self.seen.append(dt)
        return super().trials(batch, dt, generator, dtype=dtype, device=device)


def test_a_flip_flop_is_learned():
    task = FlipFlop(bits=1, duration=20.0)
    options = {"updates": 60, "batch": 16, "dt": 0.2, "optimizer": ADAM, "clip": 1.0}
    fitted = fit(network(16), task, **options, evaluation_batch=64)
    assert fitted.history[0].loss > 0.5
    assert fitted.history[-1].loss < 0.1
    assert fitted.score["accuracy"] > 0.95
    assert [record.update for record in fitted.history] == list(range(1, 61))
    assert fitted.updates == 60


def test_small_steps_of_gradient_descent_lower_the_loss_on_the_same_trials():
    model = network()
    trials = FLIPFLOP.trials(16, 0.5, torch.Generator().manual_seed(1))

    class Same(FlipFlop):
        def trials(self, batch, dt, generator=None, **kinds):
            return trials

    fitted = fit(model, Same(bits=1, duration=10.0), **SHORT | {"updates": 20, "optimizer": sgd(1e-2)})
    losses = [record.loss for record in fitted.history]
    assert all(after < before for before, after in itertools.pairwise(losses))


def sgd(lr, **options):
    return functools.partial(torch.optim.SGD, lr=lr, **options)


def test_one_update_is_the_gradient_step_of_the_masked_loss():
    model = network()
    fitted = fit(model, FLIPFLOP, **SHORT | {"updates": 1, "optimizer": sgd(0.1)}, seed=5)
    trials = FLIPFLOP.trials(4, 0.5, source(5, 0, 1))
    loss = FLIPFLOP.loss(integrate(model, trials.us, dt=0.5).ys, trials)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    expected = weights(model) - 0.1 * torch.cat([g.reshape(-1) for g in gradients])
    torch.testing.assert_close(weights(fitted.model), expected, rtol=0, atol=1e-15)
    assert fitted.history[0].loss == pytest.approx(loss.item(), abs=1e-15)


def test_targets_behind_the_mask_do_not_move_the_weights():
    class Spoiled(FlipFlop):
        def trials(self, batch, dt, generator=None, **kinds):
            trials = super().trials(batch, dt, generator, **kinds)
            assert not trials.mask.all()
            return trials._replace(targets=trials.targets.masked_fill(~trials.mask[..., None], 1e3))

    plain, spoiled = (fit(network(), kind(bits=1, duration=10.0), **SHORT) for kind in (FlipFlop, Spoiled))
    assert torch.equal(weights(plain.model), weights(spoiled.model))


def test_the_model_that_was_given_and_the_global_seed_are_left_alone():
    model = network(learn_tau=True)
    before, state = weights(model), torch.random.get_rng_state()
    fitted = fit(model, FLIPFLOP, **SHORT, noise=0.1)
    assert torch.equal(weights(model), before)
    assert all(p.grad is None for p in [*model.parameters(), *fitted.model.parameters()])
    assert not torch.equal(weights(fitted.model), before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_one_does_not():
    options = SHORT | {"dt": Uniform(0.2, 0.5), "noise": 0.1}
    torch.manual_seed(1)
    first = fit(network(), FLIPFLOP, **options, seed=3)
    torch.manual_seed(2)
    again = fit(network(), FLIPFLOP, **options, seed=3)
    other = fit(network(), FLIPFLOP, **options, seed=4)
    assert torch.equal(weights(first.model), weights(again.model))
    assert (first.history, first.score, first.gap) == (again.history, again.score, again.gap)
    assert not torch.equal(weights(first.model), weights(other.model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trials_come_in_the_dtype_of_the_network(dtype):
    fitted = fit(network().to(dtype), FLIPFLOP, **SHORT)
    assert {p.dtype for p in fitted.model.parameters()} == {dtype}


def test_clipping_bounds_the_step_and_records_the_norm_before_it():
    options = SHORT | {"updates": 1, "optimizer": sgd(1.0)}
    free, clipped, loose = (fit(network(), FLIPFLOP, **options, clip=clip) for clip in (None, 1e-3, 1e3))
    start = weights(network())
    norm = free.history[0].grad_norm
    assert norm > 0.01
    assert (weights(free.model) - start).norm().item() == pytest.approx(norm, rel=1e-12)
    assert (weights(clipped.model) - start).norm().item() == pytest.approx(1e-3, rel=1e-2)
    assert clipped.history[0].grad_norm == norm
    assert torch.equal(weights(loose.model), weights(free.model))


def test_a_schedule_moves_the_learning_rate():
    options = SHORT | {"updates": 4, "optimizer": sgd(0.4)}
    halving = fit(network(), FLIPFLOP, **options, schedule=functools.partial(StepLR, step_size=2, gamma=0.5))
    assert [record.lr for record in halving.history] == [0.4, 0.4, 0.2, 0.2]
    never_enough = functools.partial(ReduceLROnPlateau, patience=0, threshold=1.0, factor=0.5)
    plateau = fit(network(), FLIPFLOP, **options, schedule=never_enough)
    assert [record.lr for record in plateau.history] == [0.4, 0.2, 0.1, 0.05]


def test_the_rate_penalty_is_the_mean_square_of_the_rates_of_living_samples():
    model = network(n=2)
    us = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    run = integrate(model, Held(us, 0.5, lengths=torch.tensor([2, 1])))
    rates = torch.tanh(torch.stack([run.xs[0, 0], run.xs[1, 0], run.xs[0, 1]]))
    assert RatePenalty(3.0)(model, run).item() == pytest.approx(3 * (rates**2).mean().item(), rel=1e-14)


def test_the_rate_penalty_of_a_network_without_activity_counts_all_parts_of_its_state():
    model = Stack([GRU(2, 1), LSTM(3, 2)])
    run = integrate(model, torch.ones(4, 5, 1), dt=0.5)
    gru, lstm = run.xs.layers
    every = torch.cat([gru.reshape(-1), lstm.h.reshape(-1), lstm.c.reshape(-1)])
    assert RatePenalty(1.0)(model, run).item() == pytest.approx((every**2).mean().item(), rel=1e-13)


def test_the_weight_penalty_is_the_sum_of_squares_of_matrices_as_they_act():
    class Negative(nn.Module):
        def forward(self, w):
            return -w.exp()

    model = network(n=2, learn_tau=True)
    run = integrate(model, torch.zeros(1, 1), dt=0.5)
    parametrize.register_parametrization(model, "W_rec", Negative())
    square = lambda w: (w**2).sum().item()
    expected = 0.5 * (square(model.W_rec) + square(model.W_in) + square(model.W_out))
    assert WeightPenalty(0.5)(model, run).item() == pytest.approx(expected, rel=1e-14)
    model.W_in.requires_grad_(False)
    assert WeightPenalty(0.5)(model, run).item() == pytest.approx(expected - 0.5 * square(model.W_in), rel=1e-14)


def test_penalties_are_added_to_what_is_minimised_and_recorded_apart():
    options = SHORT | {"updates": 1, "optimizer": sgd(0.1)}
    model = network()
    plain = fit(model, FLIPFLOP, **options)
    penalised = fit(model, FLIPFLOP, **options, penalties=[WeightPenalty(0.25), lambda model, run: run.xs.mean() * 0])
    assert penalised.history[0].loss == plain.history[0].loss
    squares = sum((w**2).sum().item() for w in (model.W_rec, model.W_in, model.W_out))
    assert penalised.history[0].penalty == pytest.approx(0.25 * squares, rel=1e-13)
    expected = plain.model.W_rec - 0.1 * 0.5 * model.W_rec
    torch.testing.assert_close(penalised.model.W_rec, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(penalised.model.b_rec, plain.model.b_rec, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dt", [Uniform(0.1, 0.5), LogUniform(0.1, 0.5), Choice([0.1, 0.25, 0.5])])
def test_each_update_draws_its_step_and_scores_are_taken_at_the_longest(dt):
    task = Noticing(bits=1, duration=10.0)
    fitted = fit(network(), task, **SHORT | {"updates": 8, "dt": dt}, evaluate_every=8)
    tried, steps = task.seen[:2], task.seen[2:10]
    assert steps == [record.dt for record in fitted.history]
    assert len(set(steps)) > 1
    assert all(0.1 <= step <= 0.5 for step in steps)
    assert tried == [0.5, 0.1]
    assert task.seen[10:] == [0.5, 0.5]


def test_distributions_draw_what_they_say():
    generator = torch.Generator().manual_seed(0)
    uniform, logarithmic, choice = (
        torch.tensor([d.draw(generator) for _ in range(4000)])
        for d in (Uniform(1.0, 4.0), LogUniform(0.01, 1.0), Choice((1.0, 2.0, 4.0)))
    )
    assert float(uniform.mean()) == pytest.approx(2.5, abs=0.05)
    assert float(uniform.quantile(0.25)) == pytest.approx(1.75, abs=0.06)
    assert float(logarithmic.log10().mean()) == pytest.approx(-1.0, abs=0.04)
    assert float(logarithmic.log10().quantile(0.25)) == pytest.approx(-1.5, abs=0.06)
    counts = Counter(choice.tolist())
    assert counts.keys() == {1.0, 2.0, 4.0}
    assert max(counts.values()) - min(counts.values()) < 200


@pytest.mark.parametrize("options", [{}, {"steps": Fixed(0.25)}, {"dt": Uniform(0.3, 0.5)}])
def test_learned_time_constants_stay_above_the_longest_step_under_euler(options):
    model = network(tau=torch.full((8,), 0.52), learn_tau=True)
    shrink = [lambda model, run: model.log_ratio.sum()]
    fitted = fit(model, FLIPFLOP, **SHORT | {"optimizer": sgd(0.3), "updates": 4} | options, penalties=shrink)
    floor = 0.25 if "steps" in options else 0.5
    assert fitted.model.tau.min().item() == pytest.approx(floor, rel=1e-12)


def test_learned_time_constants_go_below_the_step_under_exponential_euler():
    model = network(tau=torch.full((8,), 0.52), learn_tau=True)
    shrink = [lambda model, run: model.log_ratio.sum()]
    options = SHORT | {"optimizer": sgd(0.3), "updates": 4, "solver": ExponentialEuler()}
    assert fit(model, FLIPFLOP, **options, penalties=shrink).model.tau.max().item() < 0.3


def test_the_gap_scores_the_same_trials_at_half_the_step_and_adaptively():
    fitted = fit(network(), FLIPFLOP, **SHORT)
    trials = FLIPFLOP.trials(4, 0.5, source(0, 2))
    drive = Held(trials.us, 0.5)
    runs = [integrate(fitted.model, drive, steps=steps) for steps in (Fixed(0.5), Fixed(0.25), Adaptive(1e-9, 1e-9))]
    coarse, half, exact = (FLIPFLOP.evaluate(run, trials) for run in runs)
    assert fitted.gap.dt == fitted.score == coarse
    assert fitted.gap.half == half
    assert fitted.gap.adaptive["mse"] == pytest.approx(exact["mse"], rel=1e-4)
    assert fitted.gap.problems == ()
    assert len({coarse["mse"], half["mse"], exact["mse"]}) == 3


@pytest.mark.parametrize(
    ("options", "length"), [({}, 0.5), ({"solver": ExponentialEuler()}, 0.5), ({"steps": Fixed(0.2)}, 0.5 / 3)]
)
def test_a_fitted_network_comes_with_the_map_by_which_it_was_run(options, length):
    fitted = fit(network(), FLIPFLOP, **SHORT, **options)
    assert fitted.step.dt == length
    assert fitted.step.model is fitted.model
    u, x = torch.ones(1), torch.full((8,), 0.3)
    run = integrate(fitted.model, u[None], x, dt=0.5, **options).xs[-1]
    for _ in range(round(0.5 / length)):
        x = fitted.step(torch.zeros(()), length, x, u)
    assert torch.allclose(x, run, atol=1e-14)


def test_a_network_that_chose_its_own_steps_comes_with_no_map():
    assert fit(network(), FLIPFLOP, **SHORT, steps=Adaptive(1e-3, 1e-4)).step is None


def test_there_is_no_gap_where_there_is_no_finer_step():
    assert fit(network(), FLIPFLOP, **SHORT, solver=Iterate()).gap is None
    adaptive = fit(network(), FLIPFLOP, **SHORT, solver=Tsit5(), steps=Adaptive(1e-3, 1e-3))
    assert adaptive.gap is None
    assert adaptive.score.keys() == {"mse", "accuracy"}


def test_a_gap_that_cannot_be_measured_does_not_lose_the_network():
    class Wild(CTRNN):
        def target(self, t, x, u, alpha=0):
            return super().target(t, x, u, alpha) + (0 if torch.is_grad_enabled() or fine(t) else torch.inf)

    # Off the steps of the training the vector field is infinite.
    fine = lambda t: bool(((t / 0.5 - (t / 0.5).round()).abs() < 1e-6).all())
    gap = fit(Wild(4, 1, 1), FLIPFLOP, **SHORT).gap
    assert gap.dt.keys() == {"mse", "accuracy"}
    assert gap.half is None
    assert gap.adaptive is None
    assert [problem.partition(":")[0] for problem in gap.problems] == ["half", "adaptive"]


def test_scores_are_of_held_out_trials_without_noise():
    held_out = Noticing(bits=1, duration=10.0)
    fitted = fit(network(), FLIPFLOP, **SHORT, noise=0.5, held_out=held_out, evaluation_batch=7)
    assert held_out.seen == [0.5, 0.5]  # tried before the first update, scored after the last
    trials = FLIPFLOP.trials(7, 0.5, source(0, 2))
    assert fitted.score == FLIPFLOP.evaluate(integrate(fitted.model, trials.us, dt=0.5), trials)


def test_scores_on_the_way_are_of_the_same_trials_each_time():
    frozen = fit(network(), FLIPFLOP, **SHORT | {"updates": 6, "optimizer": sgd(0.0)}, evaluate_every=2)
    scores = [record.score for record in frozen.history]
    assert scores[0::2] == [None, None, None]
    assert scores[1] == scores[3] == scores[5]
    assert frozen.score != scores[1]


def test_a_metrics_file_holds_one_json_line_an_update(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("a line of yesterday\n")
    fitted = fit(network(), FLIPFLOP, **SHORT | {"updates": 6}, seed=2, metrics=path, evaluate_every=4)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["update"] for line in lines] == list(range(1, 7))
    for line, record in zip(lines, fitted.history, strict=True):
        assert line == {"seed": 2} | {key: value for key, value in record._asdict().items() if value is not None}
    assert "score" in lines[3]
    fit(network(), FLIPFLOP, **SHORT | {"updates": 6}, metrics=path, log_every=3, evaluate_every=4)
    assert [json.loads(line)["update"] for line in path.read_text().splitlines()] == [3, 4, 6]


def test_progress_is_told_the_fraction_done():
    seen = []
    fit(network(), FLIPFLOP, **SHORT | {"updates": 4}, progress=seen.append)
    assert seen == [0.25, 0.5, 0.75, 1.0]


def test_a_module_over_whole_sequences_can_be_fitted():
    class Outputs(NamedTuple):
        xs: torch.Tensor
        ys: torch.Tensor
        mask: torch.Tensor | None = None

    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.GRU(3, 6), nn.Linear(6, 3)

        def forward(self, us, *, dt, lengths=None):
            xs = self.first(us)[0]
            return Outputs(xs, self.last(xs))

    net, task = Sequence(), DelayedMatch()
    fitted = fit(net, task, **SHORT, penalties=[RatePenalty(1e-3)])
    assert fitted.gap is None
    assert fitted.score.keys() == {"accuracy", "broken_fixation"}
    assert not torch.equal(weights(fitted.model), weights(net))
    with pytest.raises(ValueError, match=r"makes its own steps: leave out solver"):
        fit(net, task, **SHORT, solver=Iterate())


def test_trials_of_different_lengths_are_run_to_their_own_ends():
    task = DigitStrings(digits=(1, 2))
    fitted = fit(network(n_in=8, n_out=11), task, **SHORT | {"dt": 1.0}, penalties=[RatePenalty(1e-3)])
    assert 0 < fitted.history[-1].loss < math.inf
    assert fitted.gap.adaptive.keys() == {"label_error", "sequence_accuracy"}


# Several networks at once.

CASES = {
    "rates with learned tau": (lambda seed: network(seed=seed, learn_tau=True), FLIPFLOP, {"clip": 0.1}),
    "trials of different lengths": (
        lambda seed: RateRNN(6, 3, 3, generator=torch.Generator().manual_seed(seed)),
        DelayedMatch(),
        {"penalties": [RatePenalty(0.1), WeightPenalty(0.01)], "schedule": functools.partial(StepLR, step_size=1)},
    ),
    "labels by CTC, states of several parts": (
        lambda seed: Stack([LSTM(4, 8, tau=2.0), GRU(11, 4)]),
        DigitStrings(digits=(1, 2)),
        {"updates": 2, "dt": 1.0, "solver": ExponentialEuler(), "penalties": [RatePenalty(0.1)]},
    ),
    "steps shorter than samples": (lambda seed: network(seed=seed), FLIPFLOP, {"steps": Fixed(0.25)}),
}


@pytest.mark.parametrize("case", CASES)
def test_networks_trained_together_are_those_trained_one_by_one(case):
    build, task, options = CASES[case]
    models = [build(seed) for seed in range(3)]
    options = SHORT | {"evaluate_every": 2} | options
    together = fit_ensemble(models, task, **options, seeds=[4, 0, 2])
    for fitted, model, seed in zip(together, models, [4, 0, 2], strict=True):
        alone = fit(model, task, **options, seed=seed)
        torch.testing.assert_close(weights(fitted.model), weights(alone.model), rtol=0, atol=1e-10)
        for a, b in zip(fitted.history, alone.history, strict=True):
            assert a.score is None or a.score == pytest.approx(b.score, abs=1e-9)
            assert a[:6] == pytest.approx(b[:6], rel=1e-9)
        assert fitted.score == pytest.approx(alone.score, abs=1e-9)


def test_an_ensemble_leaves_its_models_alone_and_tells_them_apart_in_the_metrics(tmp_path):
    models = [network(seed=seed) for seed in range(2)]
    before = [weights(model) for model in models]
    fit_ensemble(models, FLIPFLOP, **SHORT, metrics=tmp_path / "m")
    assert all(torch.equal(weights(model), start) for model, start in zip(models, before, strict=True))
    lines = [json.loads(line) for line in (tmp_path / "m").read_text().splitlines()]
    assert [(line["update"], line["seed"]) for line in lines] == [(u, s) for u in (1, 2, 3) for s in (0, 1)]


@pytest.mark.parametrize(
    ("models", "options", "error", "message"),
    [
        (lambda: [], {}, ValueError, "models is empty"),
        (lambda: [network(), network(9)], {}, ValueError, r"models\[1\] is built differently"),
        (lambda: [network(), network(activation=torch.relu)], {}, ValueError, r"models\[1\] is built differently"),
        (lambda: [network(), network()], {"seeds": [1, 1]}, ValueError, "as many different seeds"),
        (lambda: [network(), network()], {"seeds": [1]}, ValueError, "2 networks need as many"),
        (lambda: [network(), network()], {"dt": Uniform(0.1, 0.5)}, ValueError, "one fixed step"),
        (lambda: [network(), network()], {"steps": Adaptive()}, ValueError, "one fixed step"),
        (lambda: [nn.GRU(1, 1)], {}, TypeError, r"models\[0\] is a GRU.*use fit"),
    ],
)
def test_what_cannot_be_trained_together_is_refused(models, options, error, message):
    with pytest.raises(error, match=message):
        fit_ensemble(models(), FLIPFLOP, **SHORT | options)


# What can go wrong.


class Breaking(FlipFlop):
    """A task whose loss turns bad at the third update; one more batch is drawn to be tried."""

    bad = math.nan

    def trials(self, batch, dt, generator=None, **kinds):
        object.__setattr__(self, "count", getattr(self, "count", 0) + 1)
        return super().trials(batch, dt, generator, **kinds)

    def loss(self, ys, trials):
        return super().loss(ys, trials) if self.count <= 3 else self.spoil(ys)

    def spoil(self, ys):
        return ys.sum() * self.bad


class BreakingGradient(Breaking):
    """A finite loss with an infinite gradient."""

    def spoil(self, ys):
        return (ys.sum() * 0).abs().sqrt()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Breaking, r"update 3 \(seed 0\): the loss is nan"),
        (BreakingGradient, r"update 3 \(seed 0\): the norm of the gradient is"),
    ],
)
def test_what_is_not_finite_stops_the_training_before_the_weights_move(kind, message):
    good = fit(network(), FLIPFLOP, **SHORT | {"updates": 2})
    with pytest.raises(TrainingError, match=message + r".*Lower the learning rate") as caught:
        fit(network(), kind(bits=1, duration=10.0), **SHORT | {"updates": 5})
    assert caught.value.update == 3
    assert torch.equal(weights(caught.value.model), weights(good.model))
    assert caught.value.history == good.history


def test_a_penalty_that_is_not_finite_is_named():
    with pytest.raises(TrainingError, match="the penalty is inf"):
        fit(network(), FLIPFLOP, **SHORT, penalties=[lambda model, run: run.xs.sum() * 0 + math.inf])


def test_a_network_that_explodes_is_reported_with_its_update():
    model = network(activation=lambda x: x**3)
    with torch.no_grad():
        model.W_rec.mul_(100)
    with pytest.raises(TrainingError, match=r"update 1 .*CTRNN stopped at t") as caught:
        fit(model, FLIPFLOP, **SHORT)
    assert isinstance(caught.value.__cause__, IntegrationError)


def test_a_loss_without_a_gradient_is_refused():
    class Detached(FlipFlop):
        def loss(self, ys, trials):
            return super().loss(ys.detach(), trials)

    with pytest.raises(ValueError, match="does not depend on any learned parameter"):
        fit(network(), Detached(bits=1, duration=10.0), **SHORT)


def test_steps_that_a_solver_would_refuse_are_refused_before_the_first_update():
    options = SHORT | {"dt": Uniform(0.5, 0.904), "updates": 1}
    seen = []
    with pytest.raises(ValueError, match=r"Euler overshoots.*dt = 0\.904"):
        fit(network(tau=0.9), FLIPFLOP, **options, progress=seen.append)
    assert seen == []
    fit(network(tau=0.9), FLIPFLOP, **options, solver=ExponentialEuler(), progress=seen.append)
    assert seen == [1.0]


def test_a_step_that_is_refused_leaves_no_checkpoint_behind(tmp_path):
    with pytest.raises(ValueError, match="longer than the pulse"):
        fit(network(), FLIPFLOP, **SHORT | {"dt": 2.0}, checkpoint=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_trying_the_steps_leaves_a_network_that_counts_and_draws_as_it_was():
    begun = []

    class Drawing(CTRNN):
        def __init__(self):
            super().__init__(4, 1, 1, generator=torch.Generator().manual_seed(0))
            self.norm, self.drop = nn.BatchNorm1d(4, affine=False), nn.Dropout(0.5)

        def target(self, t, x, u, alpha=0):
            if self.training:
                begun.append((self.norm.num_batches_tracked.item(), torch.get_rng_state()))
            return self.drop(self.norm(super().target(t, x, u, alpha)))

    rng = torch.get_rng_state()
    fit(Drawing(), FLIPFLOP, **SHORT | {"updates": 1}, solver=Iterate())  # which has no finer step to be scored at
    assert begun[0][0] == 0
    assert torch.equal(begun[0][1], rng)
    assert begun[1][0] == 1


class Refusing(Breaking):
    """A task that refuses the third update."""

    def spoil(self, ys):
        raise ValueError("no more.")


@pytest.mark.parametrize("updates", [3, 5])
def test_what_refuses_an_update_does_not_lose_the_network(updates):
    good = fit(network(), FLIPFLOP, **SHORT | {"updates": 2})
    with pytest.raises(TrainingError, match=r"stopped at update 3 \(seed 0\): no more\. See to what") as caught:
        fit(network(), Refusing(bits=1, duration=10.0), **SHORT | {"updates": updates})
    assert isinstance(caught.value.__cause__, ValueError)
    assert torch.equal(weights(caught.value.model), weights(good.model))
    assert caught.value.history == good.history


def test_what_refuses_the_scores_does_not_lose_the_network():
    class Unscored(FlipFlop):
        def evaluate(self, trajectory, trials):
            raise ValueError("no score.")

    with pytest.raises(TrainingError, match=r"stopped at the final scores \(seed 0\): no score") as caught:
        fit(network(), Unscored(bits=1, duration=10.0), **SHORT)
    assert torch.equal(weights(caught.value.model), weights(fit(network(), FLIPFLOP, **SHORT).model))


STRANGER = network()


class Stateless(Model):
    """A vector field that does not say where it starts."""

    n_in = 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"updates": 0}, ValueError, "updates must be at least 1, got 0"),
        ({"updates": 2.0}, TypeError, "updates is a count"),
        ({"batch": -1}, ValueError, "batch must be at least 1"),
        ({"evaluate_every": 0}, ValueError, "evaluate_every must be at least 1"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every must be at least 1"),
        ({"dt": 0.0}, ValueError, "dt must be positive and finite, got 0.0"),
        ({"dt": -0.5}, ValueError, "dt must be positive"),
        ({"dt": math.nan}, ValueError, "dt must be positive and finite"),
        ({"dt": "small"}, TypeError, "dt must be a number"),
        ({"dt": 2.0}, ValueError, "dt = 2.0 is longer than the pulse"),
        ({"clip": 0.0}, ValueError, "clip.*must be positive"),
        ({"seed": -1}, ValueError, "seed must not be negative"),
        ({"seed": 0.5}, TypeError, "seed must be an int"),
        ({"optimizer": torch.optim.Adam(STRANGER.parameters())}, TypeError, r"pass functools\.partial"),
        ({"optimizer": lambda p: None}, TypeError, "must return a torch Optimizer"),
        ({"optimizer": lambda p: torch.optim.SGD(STRANGER.parameters(), lr=0.1)}, ValueError, "ignores the parameters"),
        ({"optimizer": torch.optim.LBFGS}, TypeError, "LBFGS evaluates the loss several times.*such as Adam"),
        ({"schedule": lambda o: 0.1}, TypeError, "must return a torch LRScheduler"),
        ({"schedule": 0.1}, TypeError, "schedule must make a schedule"),
        ({"penalties": [0.1]}, TypeError, "A penalty is a callable"),
        ({"penalties": 0.1}, TypeError, r"penalties must be a sequence, got 0\.1: pass penalties=\[RatePenalty"),
        ({"penalties": RatePenalty(0.1)}, TypeError, "penalties must be a sequence"),
        ({"metrics": "m", "checkpoint": "./m"}, ValueError, "checkpoint and metrics are the same file, m: give each"),
        ({"dt": LogUniform(0.1, 2.0)}, ValueError, "dt = 2.0 is longer than the pulse"),
        ({"held_out": FlipFlop(bits=1, duration=10.0, pulse=0.2)}, ValueError, "longer than the pulse"),
        ({"held_out": FlipFlop(bits=2)}, ValueError, "held_out has other inputs"),
        ({"held_out": object()}, TypeError, "held_out is a object without n_in"),
    ],
)
def test_bad_arguments_are_named_with_their_fix(options, error, message):
    with pytest.raises(error, match=message):
        fit(network(), FLIPFLOP, **SHORT | options)


@pytest.mark.parametrize(
    ("model", "task", "error", "message"),
    [
        (
            network(n_in=2),
            FLIPFLOP,
            ValueError,
            "n_in=2, FlipFlop has 1 inputs: build the model with n_in=1",
        ),
        (
            network(n_out=None),
            FLIPFLOP,
            ValueError,
            "8 outputs, FlipFlop wants 1: build the model with n_out=1",
        ),
        (network(), object(), TypeError, r"task is a object without n_in, n_out, trials, loss, evaluate"),
        (network().requires_grad_(False), FLIPFLOP, ValueError, "nothing to fit"),
        (nn.GRU(1, 1), FLIPFLOP, TypeError, r"GRU is neither a ctrnn\.Model nor .*Model\.from_torch"),
        ("net", FLIPFLOP, TypeError, r"model must be a ctrnn\.Model.*got a str"),
        (network(tau=0.1), FLIPFLOP, ValueError, "Euler overshoots"),
        (wrap(nn.GRUCell(2, 3)), FLIPFLOP, ValueError, "n_in=2, FlipFlop has 1 inputs"),
        (Stateless(), FLIPFLOP, ValueError, r"Stateless has no initial_state.*define it"),
    ],
)
def test_a_model_and_a_task_that_do_not_fit_are_refused(model, task, error, message):
    with pytest.raises(error, match=message):
        fit(model, task, **SHORT)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Uniform(0.5, 0.1), ValueError, "low = 0.5 is above high = 0.1: swap them"),
        (lambda: LogUniform(0.0, 0.1), ValueError, "LogUniform: low must be positive"),
        (lambda: Uniform(0.1, math.inf), ValueError, "high must be positive and finite"),
        (lambda: Choice([]), ValueError, "steps is empty"),
        (lambda: Choice([0.1, -0.1]), ValueError, "must be positive"),
        (lambda: RatePenalty(-1.0), ValueError, "weight must be finite and not negative"),
        (lambda: WeightPenalty(math.nan), ValueError, "weight must be finite"),
    ],
)
def test_bad_distributions_and_penalties_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_weight_penalty_without_weights_is_refused():
    frozen = network().requires_grad_(False)
    with pytest.raises(ValueError, match="has no learned matrix"):
        WeightPenalty(1.0)(frozen, integrate(frozen, torch.zeros(1, 1), dt=0.5))


def test_trials_belong_to_their_seed_and_update():
    keys = list(itertools.product((0, 1), repeat=3))
    first, again = ([float(torch.rand((), generator=source(*key))) for key in keys] for _ in range(2))
    assert first == again
    assert len(set(first)) == 8


def test_networks_with_masks_are_trained_side_by_side_too():
    groups = {"fast": (4, 1.0), "slow": (2, 5.0)}
    networks = [MTRNN(groups, 1, 1, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    together = fit_ensemble(networks, FLIPFLOP, **SHORT)
    for model, fitted, seed in zip(networks, together, range(2), strict=True):
        alone = fit(model, FLIPFLOP, **SHORT, seed=seed)
        for a, b in zip(fitted.model.parameters(), alone.model.parameters(), strict=True):
            torch.testing.assert_close(a, b)
