"""What every layer that multiplies by a Bernoulli mask shares: the rate, the stream of masks, the call, the config."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dropout import noise
from keras_dropout.errors import check_rate, refuse
from keras_dropout.masks import Stream


class MaskLayer(keras.Layer):
    """A layer that drops with one rate. A subclass says along which axes a mask is shared, by `mask_shape`.

    The rate lives in a variable: setting `layer.rate`, also in the middle of a training and also from 0, takes effect at the next
    step without compiling again. Rate and stream are state but not weights: they are in `variables`, so that every backend
    carries them through a step, and in saved files, so that a resumed training goes on with the masks it would have had;
    they are not in `weights`, so that weight lists and counts are those of a model without dropout.
    """

    def __init__(self, rate: float, *, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        rate = check_rate(type(self).__name__, rate)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            refuse(f"{type(self).__name__}: seed must be a whole number or None; got {seed!r}.", "Leave it out for a random one.")
        self.seed = seed
        self.stream = Stream(seed)
        self._state = _State(keras.Variable(rate, dtype="float32", trainable=False, autocast=False, name="rate"), self.stream.state)
        self.supports_masking = True
        self._build_at_init()

    @property
    def rate(self) -> float:
        """The fraction of units dropped in training; can be set at any time."""
        value = np.float32(ops.convert_to_numpy(self._state.rate))
        return float(np.format_float_positional(value, unique=True))  # 0.2, not 0.20000000298

    @rate.setter
    def rate(self, value: float) -> None:
        self._state.rate.assign(check_rate(type(self).__name__, value))

    @property
    def variables(self) -> list[keras.Variable]:
        return [*super().variables, self._state.rate, self._state.stream]

    def mask_shape(self, shape: tuple) -> tuple:
        """The shape of the mask for inputs of `shape`: 1 on an axis that shares it."""
        return shape

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        shape = self.mask_shape(tuple(ops.shape(inputs)))
        return noise.bernoulli_product(inputs, self.stream.next(), self._state.rate, shape)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def save_own_variables(self, store: dict) -> None:
        super().save_own_variables(store)
        store["rate"] = ops.convert_to_numpy(self._state.rate)
        store["stream"] = ops.convert_to_numpy(self._state.stream).astype("uint32")

    def load_own_variables(self, store: dict) -> None:
        # A file written for a model with keras.layers.Dropout holds nothing for this layer: it starts as constructed.
        stored = {name: store[name] for name in store.keys()}  # noqa: SIM118 - Keras's stores are not iterable
        own = {name: stored.pop(name) for name in ("rate", "stream") if name in stored}
        super().load_own_variables(stored)
        for name, value in own.items():
            getattr(self._state, name).assign(np.asarray(value))

    def get_config(self) -> dict:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


class _State:
    """Two variables in a plain object: as attributes of the layer Keras would count them as weights."""

    def __init__(self, rate: keras.Variable, stream: keras.Variable):
        self.rate = rate
        self.stream = stream
