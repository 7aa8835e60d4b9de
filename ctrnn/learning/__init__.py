"""Learning: how weights and time constants are found."""

from ctrnn.learning.distributions import Choice as Choice
from ctrnn.learning.distributions import Distribution as Distribution
from ctrnn.learning.distributions import LogUniform as LogUniform
from ctrnn.learning.distributions import Uniform as Uniform
from ctrnn.learning.ensemble import fit_ensemble as fit_ensemble
from ctrnn.learning.estimator import EchoStateRegressor as EchoStateRegressor
from ctrnn.learning.fit import fit as fit
from ctrnn.learning.metrics import Record as Record
from ctrnn.learning.penalties import Penalty as Penalty
from ctrnn.learning.penalties import RatePenalty as RatePenalty
from ctrnn.learning.penalties import WeightPenalty as WeightPenalty
from ctrnn.learning.readout import Readout as Readout
from ctrnn.learning.readout import RecursiveLeastSquares as RecursiveLeastSquares
from ctrnn.learning.readout import fit_readout as fit_readout
from ctrnn.learning.readout import ridge as ridge
from ctrnn.learning.runner import Gap as Gap
from ctrnn.learning.storage import correlation as correlation
from ctrnn.learning.storage import hebbian as hebbian
from ctrnn.learning.storage import hebbian_step as hebbian_step
from ctrnn.learning.storage import pseudo_inverse as pseudo_inverse
from ctrnn.learning.storage import pseudo_inverse_step as pseudo_inverse_step
from ctrnn.learning.training import Fitted as Fitted
from ctrnn.learning.training import TrainingError as TrainingError
