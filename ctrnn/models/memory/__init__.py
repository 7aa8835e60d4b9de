"""Networks with a memory of slots that they read and write: every part of the memory is a part of the state."""

from ctrnn.models.memory.controllers import SkipStack as SkipStack
from ctrnn.models.memory.controllers import feed_forward as feed_forward
from ctrnn.models.memory.dnc import DNC as DNC
from ctrnn.models.memory.dnc import DNCState as DNCState
from ctrnn.models.memory.ntm import NTM as NTM
from ctrnn.models.memory.ntm import NTMState as NTMState
