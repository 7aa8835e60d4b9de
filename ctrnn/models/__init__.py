"""The models: every one a vector field, most of them relaxations tau dx/dt = F - x."""

from ctrnn.models.conversion import Conversion as Conversion
from ctrnn.models.conversion import beer_to_voltage as beer_to_voltage
from ctrnn.models.conversion import rate_to_voltage as rate_to_voltage
from ctrnn.models.conversion import voltage_to_beer as voltage_to_beer
from ctrnn.models.conversion import voltage_to_rate as voltage_to_rate
from ctrnn.models.delay import UnitDelay as UnitDelay
from ctrnn.models.gated import GRU as GRU
from ctrnn.models.gated import LSTM as LSTM
from ctrnn.models.gated import Elman as Elman
from ctrnn.models.gated import LSTMState as LSTMState
from ctrnn.models.gated import PaperGRU as PaperGRU
from ctrnn.models.jordan import Jordan as Jordan
from ctrnn.models.jordan import JordanState as JordanState
from ctrnn.models.mtrnn import MTRNN as MTRNN
from ctrnn.models.rate import CTRNN as CTRNN
from ctrnn.models.rate import BeerCTRNN as BeerCTRNN
from ctrnn.models.rate import RateRNN as RateRNN
from ctrnn.models.stack import Stack as Stack
from ctrnn.models.stack import StackState as StackState
from ctrnn.models.textbook import FitzHughNagumo as FitzHughNagumo
from ctrnn.models.textbook import Henon as Henon
from ctrnn.models.textbook import LinearSystem as LinearSystem
from ctrnn.models.textbook import Lorenz as Lorenz
from ctrnn.models.textbook import Robertson as Robertson
from ctrnn.models.textbook import Rossler as Rossler
from ctrnn.models.textbook import VanDerPol as VanDerPol
