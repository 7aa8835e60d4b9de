"""The laws of one step, for machines that the examples of their classes are not."""

import pytest

from tests import test_laws_models as laws

LAWS = [
    laws.test_the_initial_state_has_the_leading_axes_asked_for_and_the_weights_dtype,
    laws.test_a_row_of_a_batch_moves_as_it_would_alone,
    laws.test_the_flow_is_target_minus_state_over_tau,
    laws.test_the_target_does_not_care_how_alpha_is_spelled,
    laws.test_a_step_of_alpha_one_is_the_discrete_network_bit_for_bit,
    laws.test_derivatives_of_one_step_are_those_of_finite_differences,
    laws.test_functional_call_vmap_jacrev_and_jvp_agree_with_plain_calls,
    laws.test_after_double_nothing_of_a_float32_model_is_left,
    laws.test_a_float32_model_computes_in_float32,
    laws.test_the_readout_takes_a_leading_time_axis,
]


class Variant:
    """What the laws ask of a class, for one machine."""

    def __init__(self, make):
        self.example, self.__name__ = make, "variant"


def every_law(variants, but=()):
    """Mark a test (law, variant) to run each law but some for each of the machines that these functions make."""
    held, machines = [law for law in LAWS if law not in but], [Variant(make) for make in variants.values()]

    def mark(test):
        test = pytest.mark.parametrize("law", held, ids=lambda law: law.__name__.removeprefix("test_"))(test)
        test = pytest.mark.parametrize("variant", machines, ids=variants.keys())(test)
        return pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")(test)

    return mark
