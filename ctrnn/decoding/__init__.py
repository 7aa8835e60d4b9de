"""From numbers at every sample to a sequence of labels."""

from ctrnn.decoding.beam import Sentences as Sentences
from ctrnn.decoding.beam import beam_search as beam_search
from ctrnn.decoding.beam import greedy as greedy
from ctrnn.decoding.ctc import Labelling as Labelling
from ctrnn.decoding.ctc import best_path as best_path
from ctrnn.decoding.ctc import collapse as collapse
from ctrnn.decoding.ctc import prefix_search as prefix_search
from ctrnn.decoding.viterbi import MarkovChain as MarkovChain
from ctrnn.decoding.viterbi import markov_chain as markov_chain
from ctrnn.decoding.viterbi import viterbi as viterbi
