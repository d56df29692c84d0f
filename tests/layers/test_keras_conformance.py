"""Keras's own test of a layer, on the contract's table of cases: every layer, on the backend of this process."""

import keras
import pytest
from keras import ops
from keras.src.testing.test_case import TestCase, get_seed_generators  # private, and the only door to it
from test_contract import CASES

import keras_dropout
from keras_dropout.testing.faults import RateIsAWeight


class _Conformance(TestCase):
    """Keras takes a layer's torch parameters for its weights and seed generators; `state` more are neither with us."""

    state = 0

    def assertLen(self, iterable, expected_len, msg=None):
        super().assertLen(iterable, expected_len + (self.state if msg == "Unexpected number of torch_params" else 0), msg)


def check(cls, case, **options):
    x = ops.convert_to_tensor(case.x())
    layer = cls(**case.made())
    layer(x)
    trainable = len(layer.trainable_weights)
    conformance = _Conformance()
    conformance.state = len(layer.variables) - len(layer.weights) - len(get_seed_generators(layer))
    conformance.run_layer_test(
        cls,
        case.made(),
        input_data=x,
        expected_num_trainable_weights=trainable,
        expected_num_non_trainable_weights=case.weights - trainable,
        expected_num_non_trainable_variables=len(layer.variables) - trainable,
        expected_num_losses=len(layer.losses),
        supports_masking=None if "masking_is_passed_on" in case.exempt else True,
        run_mixed_precision_check=not issubclass(cls, keras.layers.Wrapper),  # what it wraps keeps its own policy
        **options,
    )


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights", "ignore:`shuffle=True` was passed")
@pytest.mark.parametrize(("name", "number"), [(name, number) for name, cases in CASES.items() for number in range(len(cases))])
def test_keras_own_test_of_a_layer(name, number):
    check(getattr(keras_dropout, name), CASES[name][number])


def test_keras_own_test_sees_a_fault():
    with pytest.raises(AssertionError, match="Unexpected number of non_trainable_weights"):
        check(RateIsAWeight, RateIsAWeight.case, custom_objects={"RateIsAWeight": RateIsAWeight})
