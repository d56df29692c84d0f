"""One layer for each property of the contract, wrong only in that property: they test `check_layer` itself.

Most of the faults are found in published code. `FAULTS` has a layer for each property; its `case` says how it is made.
`CANNOT_BE` names the backends on which a fault cannot exist, and why.
"""

import random
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dropout import noise
from keras_dropout.layers.base import MaskWrapper, check_floating
from keras_dropout.layers.units import Dropout
from keras_dropout.masks import LEVELS
from keras_dropout.testing.contract import Case


class _Fault(Dropout):
    case = Case({"rate": 0.3}, (32, 5, 16))


class OnByDefault(_Fault):
    """Drops unless the caller says that it is not training."""

    def call(self, inputs: Any, training: bool = True, rate: Any = None) -> Any:
        return super().call(inputs, training=training, rate=rate)


class DrawsAtInference(_Fault):
    """Takes a mask from its stream even if it needs none: an evaluation changes the training after it."""

    def call(self, inputs: Any, training: bool = False, rate: Any = None) -> Any:
        self.check_inputs(inputs)
        state = self.stream.next()
        return self.drop(inputs, state) if training else inputs


class ClippedRate(_Fault):
    """Keeps the rate away from 0, as is usual if its logarithm is needed."""

    def drop(self, inputs: Any, state: Any) -> Any:
        rate = ops.maximum(self.state.rate, 0.01)
        return noise.bernoulli_product(inputs, state, rate, tuple(ops.shape(inputs)))


class DividesByZero(_Fault):
    """Divides by 1 - rate whatever the rate: nan where everything is dropped."""

    def drop(self, inputs: Any, state: Any) -> Any:
        rate = ops.convert_to_tensor(self.state.rate)
        kept = ops.cast(noise.kept(state, rate, tuple(ops.shape(inputs))), "float32")
        return inputs * ops.cast(kept / (1 - rate), inputs.dtype)


class NotScaled(_Fault):
    """Drops and leaves the rest as it is, in training and at inference."""

    def drop(self, inputs: Any, state: Any) -> Any:
        return noise.bernoulli_product(inputs, state, self.state.rate, tuple(ops.shape(inputs)), scaled=False)


class WrongAxis(_Fault):
    """Shares the mask along the steps, where each unit should have its own draw."""

    def mask_shape(self, shape: tuple) -> tuple:
        return (shape[0], 1, shape[2])


class DropsTwice(_Fault):
    """Drops from what another mask has kept: the mean is right, the share of dropped units is 2 rate - rate^2."""

    def drop(self, inputs: Any, state: Any) -> Any:
        for part in range(2):
            inputs = super().drop(inputs, noise.fold(state, part))
        return inputs


class SeedIgnored(_Fault):
    """Keeps the seed for its config and draws from another one."""

    def start(self, seed: int | None, **rates: float) -> None:
        super().start(seed, **rates)
        self.stream.reseed(random.SystemRandom().getrandbits(63))


class SeedAndStepAdded(_Fault):
    """Seed s + 1 draws now what seed s draws at the next step, as with Keras's seed generators on torch."""

    def start(self, seed: int | None, **rates: float) -> None:
        super().start(seed, **rates)
        self.stream.state.assign([1, 2, random.getrandbits(31) if seed is None else seed])


class ConstantMask(_Fault):
    """Draws from a stream that never moves, like a whole number given as seed to `keras.random`."""

    def call(self, inputs: Any, training: bool = False, rate: Any = None) -> Any:
        self.check_inputs(inputs)
        return self.drop(inputs, self.stream.state * 1) if training else inputs


class StraightThrough(_Fault):
    """Lets all of the gradient through, also where units were dropped."""

    def drop(self, inputs: Any, state: Any) -> Any:
        return inputs + ops.stop_gradient(super().drop(inputs, state) - inputs)


class FrozenScale(_Fault):
    """Computes its scale once, when it is made: a rate set later drops other units, but scales as before."""

    def __init__(self, rate: float, **kwargs: Any):
        super().__init__(rate, **kwargs)
        self.scale = 1 / (1 - rate) if rate < 1 else 0.0

    def drop(self, inputs: Any, state: Any) -> Any:
        rate = self.state.rate
        return self.scale * noise.bernoulli_product(inputs, state, rate, tuple(ops.shape(inputs)), scaled=False)


class OverflowsInHalf(_Fault):
    """Scales by a large number and divides by another, in the dtype of the inputs: inf in float16."""

    def drop(self, inputs: Any, state: Any) -> Any:
        kept = noise.kept(state, self.state.rate, tuple(ops.shape(inputs)))
        levels = ops.cast(ops.maximum(LEVELS * (1 - ops.convert_to_tensor(self.state.rate)), 1), inputs.dtype)
        return ops.where(kept, inputs * ops.cast(LEVELS, inputs.dtype) / levels, ops.zeros((), inputs.dtype))


class ShapeOfFirstCall(_Fault):
    """Remembers the shape of the first mask: the last, smaller batch of an epoch fails."""

    def __init__(self, rate: float, **kwargs: Any):
        super().__init__(rate, **kwargs)
        self.first: tuple | None = None

    def mask_shape(self, shape: tuple) -> tuple:
        self.first = self.first or shape
        return self.first


class PaddingMaskLost(_Fault):
    """Does not say that it supports masking: Keras warns, and what follows sees padding as data."""

    def __init__(self, rate: float, **kwargs: Any):
        super().__init__(rate, **kwargs)
        self.supports_masking = False


class ConfigIncomplete(_Fault):
    """Writes a config of its own and forgets a field, as keras.layers.SpatialDropout forgets `trainable`."""

    def get_config(self) -> dict:
        return {key: value for key, value in super().get_config().items() if key != "trainable"}


class StreamNotSaved(_Fault):
    """Saves weights only: a training that is resumed starts again with the first masks."""

    def start(self, seed: int | None, **rates: float) -> None:
        super().start(seed, **rates)
        del self.__dict__["saved_state"]


class CloneShares(MaskWrapper):
    """Puts the wrapped layer itself into its config: a clone of a model trains the original's weights."""

    case = Case(lambda: {"rate": 0.3, "layer": keras.layers.Dense(16, kernel_initializer="identity")}, (32, 5, 16), weights=2)

    def call(self, inputs: Any, training: bool = False) -> Any:
        check_floating("CloneShares", inputs)
        outputs = ops.cast(self.call_layer(inputs, training), self.compute_dtype)
        if not training:
            return outputs
        return noise.bernoulli_product(outputs, self.stream.next(), self.state.rate, tuple(ops.shape(outputs)))

    def get_config(self) -> dict:
        return {**super().get_config(), "layer": self.layer}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "CloneShares":
        return cls(**config) if isinstance(config["layer"], keras.Layer) else super().from_config(config, custom_objects)


class OtherMaskWhenCompiled(_Fault):
    """Takes one way if values are known and another if a step is traced, and the two ways differ."""

    def drop(self, inputs: Any, state: Any) -> Any:
        try:
            state = ops.convert_to_tensor(np.asarray(state))
        except Exception:  # each backend raises its own for a traced value
            state = noise.fold(state, 1)
        return super().drop(inputs, state)


class ShapeOfTheMask(_Fault):
    """Promises the shape of a mask for its outputs."""

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], 1)


class RateFixed(_Fault):
    """Silently makes a rate out of any number: 20, meant as per cent, drops everything."""

    def __init__(self, rate: float, **kwargs: Any):
        super().__init__(min(max(rate, 0), 1), **kwargs)


class WholeNumbersAccepted(_Fault):
    """Drops from whole numbers too: the indices of words become the index 0, or others."""

    def check_inputs(self, inputs: Any) -> None:
        pass


class RateIsAWeight(_Fault):
    """Lets Keras count the rate among its weights: weight lists no longer fit a model without dropout."""

    def start(self, seed: int | None, **rates: float) -> None:
        super().start(seed, **rates)
        self.rate_variable = self.state.rate


FAULTS = {
    "identity_at_inference": OnByDefault,
    "inference_draws_nothing": DrawsAtInference,
    "identity_at_rate_zero": ClippedRate,
    "finite_at_rate_one": DividesByZero,
    "mean_is_kept": NotScaled,
    "units_share_draws": WrongAxis,
    "drop_frequency": DropsTwice,
    "same_seed_same_masks": SeedIgnored,
    "other_seed_other_masks": SeedAndStepAdded,
    "fresh_mask_each_call": ConstantMask,
    "gradient_matches": StraightThrough,
    "rate_can_change_while_compiled": FrozenScale,
    "half_precision": OverflowsInHalf,
    "any_batch_size": ShapeOfFirstCall,
    "masking_is_passed_on": PaddingMaskLost,
    "config_round_trip": ConfigIncomplete,
    "saved_model_goes_on": StreamNotSaved,
    "clone_keeps_the_layer": CloneShares,
    "compiled_equals_eager": OtherMaskWhenCompiled,
    "symbolic_shape": ShapeOfTheMask,
    "bad_arguments_are_refused": RateFixed,
    "wrong_inputs_are_refused": WholeNumbersAccepted,
    "state_is_no_weight": RateIsAWeight,
}
CANNOT_BE = {("compiled_equals_eager", "torch"): "Keras runs torch eagerly unless told otherwise: nothing is traced"}
