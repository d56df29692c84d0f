"""The contract against layers that are wrong in one way each, on the backend of this process."""

import doctest

import keras
import pytest

from keras_dropout import testing
from keras_dropout.testing import PROPERTIES, Case, violations
from keras_dropout.testing.faults import CANNOT_BE, FAULTS, ConstantMask

BACKEND = keras.backend.backend()


def test_every_property_has_a_fault():
    assert list(FAULTS) == list(PROPERTIES)
    assert len(set(FAULTS.values())) == len(FAULTS)


# On the other backends make test has the faults of what a backend decides.
OF_A_BACKEND = {"same_seed_same_masks", "gradient_matches", "rate_can_change_while_compiled", "compiled_equals_eager"}
ALWAYS = set(FAULTS) if BACKEND == "jax" else OF_A_BACKEND


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.slow]) for name in FAULTS])
def test_a_fault_breaks_its_property_and_no_other(name):
    fault = FAULTS[name]
    found = violations(fault, fault.case)
    assert [broken for broken, _ in found] == ([] if (name, BACKEND) in CANNOT_BE else [name]), found
    assert all(message and "\n" not in message for _, message in found)


def test_an_exempted_property_is_not_looked_at():
    case = Case({"rate": 0.3}, (32, 5, 16), exempt={"fresh_mask_each_call": "one mask for a whole evaluation"})
    assert violations(ConstantMask, case) == []


def test_only_the_properties_asked_for_are_looked_at():
    assert violations(ConstantMask, ConstantMask.case, only=["mean_is_kept"]) == []
    assert [name for name, _ in violations(ConstantMask, ConstantMask.case, only=iter(["fresh_mask_each_call"]))] == [
        "fresh_mask_each_call"
    ]


def test_the_examples_of_the_tool():
    found = doctest.testmod(testing)
    assert found.attempted > 0
    assert found.failed == 0
