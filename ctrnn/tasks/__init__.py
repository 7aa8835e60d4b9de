"""Tasks: batches of trials whose events live in physical time, so that the same trials exist at any dt."""

from .automata import TOMITA as TOMITA
from .automata import Automaton as Automaton
from .context import ContextIntegration as ContextIntegration
from .delayed_match import DelayedMatch as DelayedMatch
from .digits import DigitStrings as DigitStrings
from .flipflop import FlipFlop as FlipFlop
from .labels import edit_distance as edit_distance
from .primitives import TwoScalePrimitives as TwoScalePrimitives
from .sine import SineGeneration as SineGeneration
from .slots import FlightQueries as FlightQueries
from .slots import Sentence as Sentence
from .spelling import Spelled as Spelled
from .spelling import align as align
from .trials import Task as Task
from .trials import Trials as Trials
