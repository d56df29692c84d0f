"""The mask product on each backend, behind one function: `mask_product(x, state, rate, mask_shape)`.

    y = where(kept, x / (1 - rate), 0)      kept = draws(position in mask_shape) >= round(rate * 2**24)

`state` is what `masks.Stream.next` gives, `rate` a float32 scalar tensor, `mask_shape` broadcasts to x's shape. Backward
computes the mask again from the state: nothing of x's size is kept for it.
"""

import importlib
from types import ModuleType

import keras


def current() -> ModuleType:
    """The module of the backend that Keras runs on."""
    return importlib.import_module(f"keras_dropout.backends.{keras.backend.backend()}")
