"""Networks that several reproductions train. All are built without dropout; their variants place it."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


def perceptron(
    shape: tuple[int, ...],
    hidden: Sequence[int],
    optimizer: Any,
    *,
    name: str,
    outputs: int = 10,
    activation: str = "relu",
    initializer: str = "glorot_uniform",
    constraint: Any = None,
) -> keras.Model:
    """A classifier of dense layers named hidden_1, hidden_2, …, with softmax at the end, compiled with the optimiser.

    `constraint` is that of the hidden kernels, such as `MaxNorm(3.0)`.
    """
    inputs = keras.Input(shape, name="inputs")
    x = keras.layers.Flatten(name="flatten")(inputs) if len(shape) > 1 else inputs
    for number, units in enumerate(hidden, 1):
        x = keras.layers.Dense(
            units, activation, kernel_initializer=initializer, kernel_constraint=constraint, name=f"hidden_{number}"
        )(x)
    outputs = keras.layers.Dense(outputs, "softmax", name="classes")(x)
    model = keras.Model(inputs, outputs, name=name)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def sgd(learning_rate: float, steps: int | None = None, momentum: float = 0.9) -> keras.optimizers.SGD:
    """SGD with momentum; with `steps` the learning rate falls to 0 in a straight line over so many updates."""
    if steps is not None:
        learning_rate = keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, 0.0)
    return keras.optimizers.SGD(learning_rate, momentum=momentum)


def all_masks(units: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Every mask of so many units, 1 where a unit is kept, (2^units, units), and how probable each is."""
    masks = (np.arange(2**units)[:, None] >> np.arange(units)) % 2
    kept = masks.sum(1)
    return masks, (1 - rate) ** kept * rate ** (units - kept)
