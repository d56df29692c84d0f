"""The data and nets of `methods.py` and `atlas.py`: three sets of images, and perceptrons on them."""

import math
import os
from collections.abc import Sequence

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import keras

from keras_dropout.bench.data import dataset, public_sets
from keras_dropout.bench.data.cifar import cifar10
from keras_dropout.companions import MaxNorm

NAMES = ("digits", "fashion-mnist", "cifar-10")
TEST = 3000  # of the two larger sets: as many as tell apart what seeds do


def load(name: str, data_dir: str | None, train: int | None = None) -> dataset.Data:
    """The first `train` examples of a set with an axis of channels, CIFAR-10 at 16 x 16; of the digits there are 1,437."""
    if name == "cifar-10":
        return cifar10(data_dir, train=train, test=TEST, size=16)
    found = public_sets.digits(train) if name == "digits" else public_sets.fashion_mnist(data_dir, train=train, test=TEST)
    train_part, test_part = (part._replace(x=part.x[..., None]) for part in (found.train, found.test))
    return dataset.Data(found.name, train_part, test_part, found.validation, found.divide_by, found.classes)


def perceptron(shape: Sequence[int], hidden: Sequence[int], l2: float = 0.0, max_norm: float | None = None) -> keras.Model:
    """Dense layers of relu, compiled with Adam at 0.001; `l2` and `max_norm` are those of the hidden kernels."""
    inputs = keras.Input(shape, name="pixels")
    x = keras.layers.Flatten(name="flatten")(inputs)
    for number, units in enumerate(hidden, 1):
        limits = {
            "kernel_constraint": max_norm and MaxNorm(max_norm),
            "kernel_regularizer": keras.regularizers.L2(l2) if l2 else None,
        }
        x = keras.layers.Dense(units, "relu", name=f"hidden_{number}", **limits)(x)
    model = keras.Model(inputs, keras.layers.Dense(10, "softmax", name="classes")(x), name="perceptron")
    model.compile(keras.optimizers.Adam(0.001), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def epochs_for(updates: int, examples: int, batch_size: int) -> int:
    """The epochs that make about so many updates."""
    return max(1, round(updates / math.ceil(examples / batch_size)))
