"""Figures: functions that take data and an Axes and return the Axes; they open no files and never show."""

from ctrnn.plots.bifurcation import cycles as cycles
from ctrnn.plots.bifurcation import equilibria as equilibria
from ctrnn.plots.bifurcation import period as period
from ctrnn.plots.flow import mode_lines as mode_lines
from ctrnn.plots.flow import points as points
from ctrnn.plots.flow import trajectories as trajectories
from ctrnn.plots.flow import vector_field as vector_field
from ctrnn.plots.learning import by_seed as by_seed
from ctrnn.plots.learning import heat as heat
from ctrnn.plots.learning import sweep as sweep
from ctrnn.plots.lyapunov import exponents as exponents
from ctrnn.plots.lyapunov import running_exponents as running_exponents
from ctrnn.plots.phase_plane import phase_plane as phase_plane
from ctrnn.plots.similarity import by_group as by_group
from ctrnn.plots.similarity import coloured_path as coloured_path
from ctrnn.plots.similarity import distance_matrix as distance_matrix
from ctrnn.plots.spectra import q_histogram as q_histogram
from ctrnn.plots.spectra import spectrum as spectrum
from ctrnn.plots.style import DOUBLE as DOUBLE
from ctrnn.plots.style import SINGLE as SINGLE
from ctrnn.plots.style import style as style
from ctrnn.plots.subspace import autocorrelations as autocorrelations
from ctrnn.plots.subspace import variance_explained as variance_explained
from ctrnn.plots.traces import convergence as convergence
from ctrnn.plots.traces import outputs as outputs
from ctrnn.plots.traces import stacked as stacked
