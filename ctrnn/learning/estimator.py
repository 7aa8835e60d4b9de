"""An echo state network for scikit-learn's tools."""

from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Generator, Tensor

from ctrnn._integrate import integrate
from ctrnn.drive import Held
from ctrnn.learning.readout import Readout, ridge
from ctrnn.models.reservoir import EchoState
from ctrnn.steps import Last


class EchoStateRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """y = W_out r(T) + b_out: what a random network's state says about the whole sequence that it has read.

    For scikit-learn rows are exchangeable: it shuffles them, splits them and predicts them one at a time. Therefore a
    row is a whole sequence here, its columns the samples one after the other, `channels` numbers each; a time axis
    along the rows would be torn apart by cross-validation. To predict along one series use `EchoState` with
    `fit_readout`.

    Parameters:
        units: of the reservoir.
        channels: numbers per sample; the columns are a multiple of it.
        radius: largest |eigenvalue| of the recurrent weights.
        leak: dt / tau, in (0, 1].
        input_scale, bias_scale: bounds of the uniform input weights and biases.
        penalty: of the ridge regression.
        random_state: an int, a numpy RandomState, or None for a new network at every fit.

    After fit: reservoir_ (EchoState), readout_ (Readout), n_features_in_.
    """

    def __init__(
        self,
        units: int = 100,
        *,
        channels: int = 1,
        radius: float = 0.9,
        leak: float = 1.0,
        input_scale: float = 0.5,
        bias_scale: float = 0.5,
        penalty: float = 1e-6,
        random_state: Any = None,
    ) -> None:
        self.units = units
        self.channels = channels
        self.radius = radius
        self.leak = leak
        self.input_scale = input_scale
        self.bias_scale = bias_scale
        self.penalty = penalty
        self.random_state = random_state

    def fit(self, X: Float[np.ndarray, "sequence column"], y: Float[np.ndarray, "sequence *output"]) -> Self:
        """Draw a reservoir, and regress y on its last states.

        Raises:
            ValueError: X or y hold no numbers, do not fit each other, or a parameter is out of its range.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        if not 0 < self.leak <= 1:
            raise ValueError(f"leak = {self.leak} must lie in (0, 1]: it is dt / tau.")
        for name in ("units", "channels"):
            if not isinstance(value := getattr(self, name), Integral) or value < 1:
                raise ValueError(f"{name} = {value} must be an integer, at least 1.")
        if X.shape[1] % self.channels:
            raise ValueError(f"{X.shape[1]} columns are no whole number of samples of channels = {self.channels}.")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.reservoir_ = EchoState(
            int(self.units),
            int(self.channels),
            radius=self.radius,
            input_scale=self.input_scale,
            bias_scale=self.bias_scale,
            tau=1 / self.leak,
            generator=Generator().manual_seed(seed),
        ).double()
        self.readout_: Readout = ridge(
            self._last(X), torch.tensor(y, dtype=torch.float64).reshape(len(X), -1), penalty=self.penalty
        )
        self._flat = y.ndim == 1
        return self

    def predict(self, X: Float[np.ndarray, "sequence column"]) -> Float[np.ndarray, "sequence *output"]:
        """What the readout says at the end of each sequence, in the shape of the y that was fitted.

        Raises:
            sklearn.exceptions.NotFittedError: before fit.
            ValueError: X holds no numbers or has other columns than at fit.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        said = (self._last(X) @ self.readout_.W_out.T + self.readout_.b_out).numpy()
        return said[:, 0] if self._flat else said

    @torch.no_grad()
    def _last(self, X: np.ndarray) -> Tensor:
        us = torch.as_tensor(X.copy()).reshape(len(X), -1, self.channels).transpose(0, 1)
        return integrate(self.reservoir_, Held(us, 1.0), save=Last()).xs[-1]
