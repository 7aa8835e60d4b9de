"""What a network does, and why: linearisation and fixed points."""

from ctrnn.analysis.fixed_points import FixedPoints as FixedPoints
from ctrnn.analysis.fixed_points import fixed_points as fixed_points
from ctrnn.analysis.linearise import jacobian as jacobian
