import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from ctrnn.learning import EchoStateRegressor

CHECKS = list(estimator_checks_generator(EchoStateRegressor(random_state=0)))


@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=[check.func.__name__ for _, check in CHECKS])
def test_it_keeps_scikit_learns_contract(estimator, check):
    check(estimator)


def sequences(n=200, length=12, channels=2, seed=0):
    draw = np.random.default_rng(seed)
    X = draw.uniform(-1, 1, (n, length, channels))
    return X.reshape(n, -1), X[:, -3, 0] * X[:, -1, 1]


def test_it_learns_what_a_linear_regression_on_the_columns_cannot():
    X, y = sequences(600)
    model = make_pipeline(StandardScaler(), EchoStateRegressor(300, channels=2, random_state=1))
    assert cross_val_score(model, X, y, cv=3).min() > 0.5
    linear = EchoStateRegressor(300, channels=2, radius=0.9, input_scale=1e-4, bias_scale=0.0, random_state=1)
    assert cross_val_score(linear, X, y, cv=3).max() < 0.1


def test_the_same_random_state_gives_the_same_network():
    X, y = sequences()
    first, again, other = (EchoStateRegressor(20, channels=2, random_state=s).fit(X, y).predict(X) for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_sizes_from_a_numpy_grid_are_sizes():
    X, y = sequences(20)
    found = EchoStateRegressor(np.int64(20), channels=np.arange(3)[2], random_state=0).fit(X, y).predict(X)
    assert np.array_equal(found, EchoStateRegressor(20, channels=2, random_state=0).fit(X, y).predict(X))


def test_wrong_parameters_are_named_at_fit():
    X, y = sequences(20)
    with pytest.raises(ValueError, match="leak = 0"):
        EchoStateRegressor(leak=0).fit(X, y)
    with pytest.raises(ValueError, match="channels = 5"):
        EchoStateRegressor(channels=5).fit(X, y)
    for name in ("units", "channels"):
        for value in (0, -1, 1.5, "2"):
            with pytest.raises(ValueError, match=f"{name} = {value}"):
                EchoStateRegressor(**{name: value}).fit(X, y)
    with pytest.raises(ValueError, match="penalty"):
        EchoStateRegressor(penalty=-1).fit(X, y)
    with pytest.raises(ValueError, match="radius"):
        EchoStateRegressor(radius=-1).fit(X, y)
