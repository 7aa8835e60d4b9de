"""What a network does, and why: linearisation, fixed points and Lyapunov exponents."""

from ctrnn.analysis.fixed_points import FixedPoints as FixedPoints
from ctrnn.analysis.fixed_points import fixed_points as fixed_points
from ctrnn.analysis.linearise import jacobian as jacobian
from ctrnn.analysis.lyapunov import LyapunovSpectrum as LyapunovSpectrum
from ctrnn.analysis.lyapunov import lyapunov_spectrum as lyapunov_spectrum
