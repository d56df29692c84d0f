"""The contract as a tool for layers that are not ours, on the backend of this process."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_dropout import BadInput, Dropout
from keras_dropout.layers.base import MaskLayer
from keras_dropout.testing import BrokenContract, Case, check_layer, violations
from keras_dropout.testing.faults import ConstantMask

BACKEND = keras.backend.backend()
SHAPE = (32, 5, 16)
CASE = Case({"rate": 0.3}, SHAPE)


class PlainDropout(keras.layers.Layer):
    """Dropout with a rate that can be changed, in public Keras alone."""

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        if isinstance(rate, bool) or not 0 <= rate <= 1:
            raise ValueError(f"rate must be a number in [0, 1]; got {rate!r}")
        constant = keras.initializers.Constant(rate)
        self.rate = self.add_weight(shape=(), initializer=constant, dtype="float32", trainable=False, autocast=False, name="rate")
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, input_shape):
        self.built = True

    def call(self, inputs, training=False):
        if not keras.backend.is_float_dtype(inputs.dtype):
            raise TypeError(f"inputs must be of a float type; got {inputs.dtype}")
        if not training:
            return inputs
        kept = keras.random.uniform(ops.shape(inputs), seed=self.seed_generator) >= self.rate
        scale = ops.cast(1 / ops.maximum(1 - self.rate, 1e-6), inputs.dtype)
        return ops.where(kept, inputs * scale, ops.zeros((), inputs.dtype))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": round(float(ops.convert_to_numpy(self.rate)), 6), "seed": self.seed}


# What Keras's own random numbers cannot give a layer, whoever writes it.
OF_KERAS = {
    "jax": {"saved_model_goes_on": "Keras does not save the state of a seed generator"},
    "tensorflow": {
        "saved_model_goes_on": "Keras does not save the state of a seed generator",
        "compiled_equals_eager": "XLA's random numbers are not those of the eager kernels",
    },
    "torch": {
        "saved_model_goes_on": "Keras does not save the state of a seed generator",
        "other_seed_other_masks": "seed s + 1 draws what seed s draws a step later",
    },
}[BACKEND]
# And what keras.layers.Dropout could do and does not.
OF_KERAS_DROPOUT = {
    "jax": {
        "rate_can_change_while_compiled": "the rate is a Python number, read when the step is traced",
        "bad_arguments_are_refused": "True is taken for the rate 1",
    },
    "tensorflow": {
        "rate_can_change_while_compiled": "the rate is a Python number, read when the step is traced",
        "half_precision": "the mask is drawn in the type of the inputs, so another one under each policy",
        "bad_arguments_are_refused": "True is taken for the rate 1",
    },
    "torch": {
        "rate_can_change_while_compiled": "obeyed, but a layer made with rate 0 has no seed generator to draw from",
        "bad_arguments_are_refused": "True is taken for the rate 1",
        "wrong_inputs_are_refused": "whole numbers are dropped and scaled",
    },
}[BACKEND]


def broken(cls, case):
    return {name for name, _ in violations(cls, case)}


def test_what_a_layer_in_plain_keras_can_meet():
    case = Case({"rate": 0.3}, SHAPE, weights=1)
    assert broken(PlainDropout, case) == set(OF_KERAS)
    check_layer(PlainDropout, Case({"rate": 0.3}, SHAPE, weights=1, exempt=OF_KERAS))


def test_what_keras_dropout_breaks():
    assert broken(keras.layers.Dropout, CASE) == {*OF_KERAS, *OF_KERAS_DROPOUT}


def test_on_our_base_a_layer_of_two_lines_meets_everything():
    class LastAxisDropout(MaskLayer):
        def mask_shape(self, shape):
            return (*shape[:-1], 1)

    check_layer(LastAxisDropout, Case({"rate": 0.3}, (64, 5, 8), shared=(2,)))


def test_a_layer_without_a_rate():
    class Noise(MaskLayer):
        def __init__(self, seed=None, **kwargs):
            super().__init__(0.2, seed=seed, **kwargs)

        def get_config(self):
            return {key: value for key, value in super().get_config().items() if key != "rate"}

    exempt = dict.fromkeys(("identity_at_rate_zero", "rate_can_change_while_compiled"), "it has no rate to give")
    check_layer(Noise, Case({}, SHAPE, exempt=exempt))


def test_the_message_has_a_line_for_each_property_that_does_not_hold():
    with pytest.raises(BrokenContract) as caught:
        check_layer(ConstantMask, CASE)
    assert str(caught.value).splitlines() == [
        "ConstantMask breaks its contract.",
        "fresh_mask_each_call: every call draws the same mask",
    ]
    assert isinstance(caught.value.__cause__, AssertionError)


def test_with_several_cases_the_message_says_which():
    fine = Case({"rate": 0.3}, SHAPE, exempt={"fresh_mask_each_call": "known"})
    with pytest.raises(BrokenContract) as caught:
        check_layer(ConstantMask, [fine, CASE])
    assert "\ncase 2, fresh_mask_each_call: " in str(caught.value)


def test_an_error_inside_a_property_is_told_in_one_line():
    class Fails(Dropout):
        def drop(self, inputs, state):
            raise RuntimeError("first line\nsecond line")

    found = violations(Fails, CASE, only=["mean_is_kept"])
    assert found == [("mean_is_kept", "RuntimeError: first line")]


def seedless(rate):
    return keras.layers.Rescaling(1.0)


WRONG_CALLS = [
    (lambda: Case({"rate": 0.3}, SHAPE, exempt={"mean_kept": "a misspelt name"}), "no such property: mean_kept"),
    (lambda: Case({"rate": 0.3}, SHAPE, drops="ones"), "unknown drops of a Case 'ones'"),
    (lambda: violations(Dropout, CASE, only=["everything"]), "no such property: everything"),
    (lambda: check_layer(Dropout, []), "there is no case"),
    (lambda: check_layer(Dropout, Case({"rote": 0.3}, SHAPE)), r"Dropout\(rote=0.3, seed=11\) cannot be made"),
    (lambda: check_layer(seedless, CASE), "seedless.*cannot be made.*TypeError"),
]


@pytest.mark.parametrize(("call", "words"), WRONG_CALLS, ids=[words for _, words in WRONG_CALLS])
def test_a_wrong_case_is_refused_in_two_lines(call, words):
    with pytest.raises(BadInput, match=words) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 2


def test_statistics_are_no_coin_toss():
    """A right layer passes whatever the seeds, at rates and shapes other than those of the tables."""
    for rate, shape in ((0.05, (16, 30)), (0.9, (16, 30)), (0.5, (4, 3)), (0.5, (1, 7))):
        only = ("mean_is_kept", "drop_frequency", "other_seed_other_masks", "fresh_mask_each_call", "gradient_matches")
        assert violations(Dropout, Case({"rate": rate}, shape), only) == [], (rate, shape)


@pytest.mark.parametrize("off", [0.01, -0.01])
def test_a_share_off_by_a_hundredth_is_seen(off):
    class Off(Dropout):
        def __init__(self, rate, **kwargs):
            super().__init__(rate + off, **kwargs)

        @property
        def rate(self):
            return float(np.float32(Dropout.rate.__get__(self))) - off

        @rate.setter
        def rate(self, value):
            Dropout.rate.__set__(self, value)

    case = Case({"rate": 0.3}, (64, 20, 16))
    assert [name for name, _ in violations(Off, case, only=["drop_frequency", "mean_is_kept"])] == ["drop_frequency"]
