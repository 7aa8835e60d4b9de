"""Networks with a memory of slots that they read and write: every part of the memory is a part of the state."""

from ctrnn.models.memory.controllers import SkipStack as SkipStack
from ctrnn.models.memory.controllers import feed_forward as feed_forward
from ctrnn.models.memory.dnc import DNC as DNC
from ctrnn.models.memory.dnc import DNCState as DNCState
from ctrnn.models.memory.fast_weights import FastWeights as FastWeights
from ctrnn.models.memory.fast_weights import FastWeightsState as FastWeightsState
from ctrnn.models.memory.hopfield_read import HopfieldRead as HopfieldRead
from ctrnn.models.memory.hopfield_read import HopfieldReadState as HopfieldReadState
from ctrnn.models.memory.neural_stack import NeuralQueue as NeuralQueue
from ctrnn.models.memory.neural_stack import NeuralStack as NeuralStack
from ctrnn.models.memory.ntm import NTM as NTM
from ctrnn.models.memory.ntm import NTMState as NTMState
from ctrnn.models.memory.pushdown import Pushdown as Pushdown
from ctrnn.models.memory.segments import SegmentsState as SegmentsState
from ctrnn.models.memory.stack_rnn import StackRNN as StackRNN
from ctrnn.models.memory.stack_rnn import StackRNNState as StackRNNState
from ctrnn.models.memory.tape import BabyNTM as BabyNTM
from ctrnn.models.memory.tape import TapeRNN as TapeRNN
from ctrnn.models.memory.tape import TapeState as TapeState
