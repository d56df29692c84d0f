"""Networks that several reproductions train. All are built without dropout; the variants add it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_dropout.bench.data.public_sets import fashion_mnist
from keras_dropout.bench.data.text import characters
from keras_dropout.reproductions.framework import Part


def perceptron(
    shape: tuple[int, ...],
    hidden: Sequence[int],
    optimizer: Any,
    *,
    name: str = "",
    outputs: int = 10,
    constraint: Any = None,
    regularizer: Any = None,
) -> keras.Model:
    """Build and compile a classifier of dense ReLU layers, named hidden_1, hidden_2, …, with a softmax at the end.

    `constraint` and `regularizer` apply to the hidden kernels, for example `MaxNorm(3.0)` and `L2(1e-4)`. By default the name
    lists the sizes: mlp-784-256-10.
    """
    name = name or "-".join(map(str, ("mlp", math.prod(shape), *hidden, outputs)))
    inputs = keras.Input(shape, name="inputs")
    x = keras.layers.Flatten(name="flatten")(inputs) if len(shape) > 1 else inputs
    for number, units in enumerate(hidden, 1):
        x = keras.layers.Dense(
            units,
            "relu",
            kernel_constraint=constraint,
            kernel_regularizer=regularizer,
            name=f"hidden_{number}",
        )(x)
    return classifier(inputs, x, optimizer, name, outputs)


def classifier(inputs: Any, x: Any, optimizer: Any, name: str, outputs: int = 10) -> keras.Model:
    """Compile a classifier of a softmax over `x`."""
    model = keras.Model(inputs, keras.layers.Dense(outputs, "softmax", name="classes")(x), name=name)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def sgd(learning_rate: float, steps: int | None = None, momentum: float = 0.9) -> keras.optimizers.SGD:
    """Return SGD with momentum; with `steps`, the learning rate falls linearly to 0 over this number of updates."""
    if steps is not None:
        learning_rate = keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, 0.0)
    return keras.optimizers.SGD(learning_rate, momentum=momentum)


def on_garments(
    hidden: Sequence[int],
    learning_rate: float,
    variants: Mapping[str, Any],
    examples: int,
    epochs: int,
    batch: int = 50,
    *,
    keep_models: bool = False,
    **options: Any,
) -> Part:
    """Return the study of a `perceptron` on so many images of Fashion-MNIST, with `sgd` whose learning rate falls to 0."""
    steps = epochs * examples * 9 // 10 // batch
    return Part(
        lambda: perceptron((28, 28), hidden, sgd(learning_rate, steps), **options),
        lambda data_dir: fashion_mnist(data_dir, train=examples),
        variants,
        epochs,
        batch,
        keep_models,
    )


@keras.saving.register_keras_serializable("keras_dropout")
class LocallyConnected2D(keras.layers.Layer):
    """A convolution with separate weights at every position. Keras 2 had this layer; Keras 3 does not.

        y[i, j] = activation(patch[i, j] @ w[i, j] + b[i, j]),    patches of size x size, zeros around the map

    Shapes: (batch, height, width, channels) -> (batch, height, width, filters).
    """

    def __init__(self, filters: int, size: int, *, activation: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters, self.size = filters, size
        self.activation = keras.activations.get(activation)

    def build(self, shape: tuple) -> None:
        height, width, channels = shape[1:]
        inputs = self.size**2 * channels
        scale = keras.initializers.RandomNormal(stddev=(2 / inputs) ** 0.5)
        self.kernel = self.add_weight((height, width, inputs, self.filters), scale, name="kernel")
        self.bias = self.add_weight((height, width, self.filters), "zeros", name="bias")

    def call(self, x: Any) -> Any:
        patches = keras.ops.image.extract_patches(x, self.size, strides=1, padding="same")
        return self.activation(keras.ops.einsum("bhwi,hwio->bhwo", patches, self.kernel) + self.bias)

    def compute_output_shape(self, shape: tuple) -> tuple:
        return (*shape[:-1], self.filters)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "size": self.size,
            "activation": keras.activations.serialize(self.activation),
        }


REGIONS = {
    "units": "Dropout(0.1)",
    "channels": "SpatialDropout2D(0.1)",
    "blocks": "DropBlock2D(0.1, block_size=3)",
}


def on_maps(*sites: str) -> dict[str, dict[str, str]]:
    """Return variants that drop single units, whole channels and blocks of maps at the same sites."""
    return {name: dict.fromkeys(sites, kind) for name, kind in REGIONS.items()}


def maps(x: Any, filters: int, name: str) -> Any:
    """Apply a 3x3 convolution with ReLU that keeps the size of the maps."""
    return keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)


def localiser(size: int, outputs: int, optimizer: Any, name: str) -> keras.Model:
    """Build a network that predicts places in a scene: three convolutions with pooling and a dense layer, with squared error."""
    inputs = x = keras.Input((size, size, 1), name="scene")
    for number, filters in enumerate((8, 16, 32), 1):
        x = keras.layers.MaxPooling2D(2, name=f"pool_{number}")(maps(x, filters, f"conv_{number}"))
    x = keras.layers.Dense(64, "relu", name="hidden")(keras.layers.Flatten(name="flatten")(x))
    model = keras.Model(inputs, keras.layers.Dense(outputs, name="places")(x), name=name)
    model.compile(optimizer, "mse", metrics=["mae"])
    return model


def language_model(vocabulary: int, units: int, learning_rate: float, name: str) -> keras.Model:
    """Build a next-character model: an embedding, an LSTM and a softmax, compiled with Adam and gradient clipping."""
    inputs = keras.Input((None,), dtype="int32", name="characters")
    x = keras.layers.Embedding(vocabulary, 32, name="embedding")(inputs)
    x = keras.layers.LSTM(units, return_sequences=True, name="lstm")(x)
    model = keras.Model(inputs, keras.layers.Dense(vocabulary, "softmax", name="next")(x), name=name)
    optimizer = keras.optimizers.Adam(learning_rate, global_clipnorm=1.0)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def on_characters(quick: bool, variants: Mapping[str, Any]) -> Part:
    """Return the study of a `language_model` of Python's language reference."""
    length, units = (40_000, 96) if quick else (100_000, 192)
    return Part(
        lambda: language_model(81, units, 5e-3, "characters-lstm"),
        lambda data_dir: characters(length, window=32),
        variants,
        epochs=60,
        batch_size=25,
    )


def of_tutorial(
    variants: Mapping[str, Any],
    examples: int,
    epochs: int,
    *,
    hidden: Sequence[int] = (200, 100, 60),
    momentum: float = 0.9,
    keep_models: bool = False,
) -> Part:
    """Return the study of the tutorial's network, or of one with other hidden layers, on so many images of Fashion-MNIST."""
    return Part(
        lambda: perceptron((28, 28), hidden, sgd(0.01, momentum=momentum)),
        lambda data_dir: fashion_mnist(data_dir, train=examples),
        variants,
        epochs,
        keep_models=keep_models,
    )


def all_masks(units: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Return every mask of `units` units, (2^units, units), with 1 for a kept unit, and the probability of each mask."""
    masks = (np.arange(2**units)[:, None] >> np.arange(units)) % 2
    kept = masks.sum(1)
    return masks, (1 - rate) ** kept * rate ** (units - kept)
