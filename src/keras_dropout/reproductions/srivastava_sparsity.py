"""Srivastava et al. 2014, figure 8: hidden units are sparser with dropout."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.data.dataset import Part as Examples
from keras_dropout.bench.data.public_sets import fashion_mnist
from keras_dropout.reproductions.framework import Expectation, Found, Part, Reproduction

_DROPOUT = "dropout 0.5"
_LONG, _SHORT = "trained long", "trained briefly"


def _parts(quick: bool) -> dict[str, Part]:
    # After `short` epochs, the reconstruction error without dropout is about that of the long training with dropout.
    examples, long, short = (5000, 30, 3) if quick else (20_000, 30, 1)
    return {
        name: Part(
            _autoencoder,
            lambda data_dir: _reconstruction(fashion_mnist(data_dir, train=examples)),
            {_DROPOUT: {"hidden": 0.5}},
            epochs,
            100,
            keep_models=True,
        )
        for name, epochs in ((_LONG, long), (_SHORT, short))
    }


def _autoencoder() -> keras.Model:
    inputs = keras.Input((784,), name="pixels")
    x = keras.layers.Dense(256, "relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(784, name="reconstruction")(x), name="autoencoder-784-256-784")
    model.compile(keras.optimizers.Adam(0.001), "mse")
    return model


def _reconstruction(images: Data) -> Data:
    """Return data for reconstructing the flattened images, with 2,000 test images."""
    train, test = (part.x[:count].reshape(-1, 784) for part, count in ((images.train, None), (images.test, 2000)))
    parts = [Examples(x, x.astype("float32") / np.float32(images.divide_by)) for x in (train, test)]
    return Data("fashion-mnist, to reconstruct", parts[0], parts[1], validation=images.validation, divide_by=images.divide_by)


def activations(model: Any, data: Data) -> dict[str, float]:
    """Return the mean activation of the hidden units on test images with dropout off, and the shares that are 0 and above 1."""
    hidden = keras.Model(model.inputs, model.get_layer("hidden").output)
    found = hidden.predict(data.test.x.astype("float32") / data.divide_by, batch_size=1000, verbose=0)
    return {
        "mean activation": float(found.mean()),
        "share of zeros": float((found == 0).mean()),
        "share above 1": float((found > 1).mean()),
    }


def _of_none(figure: str, part: str) -> Callable[[Found], np.ndarray]:
    """Return a figure without dropout minus the figure of the long training with dropout."""
    return lambda found: found.of_models(activations, figure, part=part) - found.of_models(activations, figure, _DROPOUT, _LONG)


REPRODUCTION = Reproduction(
    name="srivastava-sparsity",
    title="Sparse hidden units",
    claim="In an autoencoder with dropout fewer hidden units have high activations, and the mean activation is smaller.",
    source="Srivastava et al. 2014, JMLR 15:1929-1958, figure 8",
    parts=_parts,
    expectations=(
        Expectation(
            "mean activation, errors alike: none minus dropout",
            _of_none("mean activation", _SHORT),
            above=0.0,
            published="a mean activation of about 2.0 without dropout, of about 0.7 with it",
        ),
        Expectation(
            "share of activations above 1, errors alike: none minus dropout",
            _of_none("share above 1", _SHORT),
            above=0.0,
            published="fewer units with high activations",
        ),
        Expectation(
            "share of activations that are 0, errors alike: none minus dropout",
            _of_none("share of zeros", _SHORT),
            below=0.0,
            published="a sharp peak at zero",
        ),
        Expectation(
            "mean activation, as many updates: none minus dropout",
            _of_none("mean activation", _LONG),
            above=0.0,
            published="a mean activation of about 2.0 without dropout, of about 0.7 with it",
        ),
    ),
    shows=("test_loss", "train_loss"),
    differs="Fashion-MNIST in place of MNIST. For errors of reconstruction (the test loss) about alike, as published, training "
    "without dropout is brief. Dropout is inverted, as usual today.",
    changed="It got the comparison at equal errors beside that at equal updates.",
    quick_seconds=50,
)
