"""Klambauer et al. 2017: networks that normalise themselves, with the dropout that lets them."""

import functools
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_dropout import AlphaDropout, Dropout
from keras_dropout.bench.data import fashion_mnist
from keras_dropout.bench.reproduction import Expectation, Found, Part, Reproduction
from keras_dropout.reproductions.networks import perceptron, sgd

RATE, DEPTH, WIDTH, EXAMPLES = 0.1, 20, 256, 1000
HIDDEN = (128,) * 8


def _parts(quick: bool) -> dict[str, Part]:
    examples, epochs, batch = (5000, 20, 50) if quick else (20_000, 30, 100)
    steps = epochs * examples * 9 // 10 // batch
    return {
        "eight layers": Part(
            lambda: perceptron(
                (28, 28), HIDDEN, sgd(0.01, steps), name="mlp-784-8x128-10-selu", activation="selu", initializer="lecun_normal"
            ),
            lambda data_dir: fashion_mnist(data_dir, train=examples),
            {
                "alpha dropout": {"hidden": {"kind": "AlphaDropout", "rate": RATE}},
                "dropout": {"hidden": {"kind": "Dropout", "rate": RATE}},
            },
            epochs,
            batch,
        )
    }


@functools.cache
def _moments(layer: Callable | None, seed: int) -> np.ndarray:
    """Mean and variance behind each of the layers of a random selu network on normal inputs, (layers, 2), with dropout on behind
    each activation."""
    keras.utils.set_random_seed(seed)
    x = keras.random.normal((EXAMPLES, WIDTH))
    found = []
    for number in range(DEPTH):
        x = keras.layers.Dense(WIDTH, "selu", kernel_initializer="lecun_normal")(x)
        if layer is not None:
            x = layer(RATE, seed=DEPTH * seed + number)(x, training=True)
        values = ops.convert_to_numpy(x)
        found.append((values.mean(), values.var()))
    return np.array(found)


def _variance(layer: Callable | None) -> Callable[[Found], np.ndarray]:
    """The variance behind the last layer, of each seed's network."""
    return lambda found: np.array([_moments(layer, seed)[-1, 1] for seed in found.seeds])


REPRODUCTION = Reproduction(
    name="klambauer-selu",
    title="Alpha dropout in self-normalising networks",
    claim="Alpha dropout keeps mean 0 and variance 1 through deep selu networks, which dropout does not; they then train "
    "better with it.",
    source="Klambauer et al. 2017, arXiv:1706.02515",
    parts=_parts,
    expectations=(
        Expectation(
            "variance behind 20 random selu layers with alpha dropout of 0.1",
            _variance(AlphaDropout),
            above=0.8,
            below=1.25,
            published="1, a fixed point that draws",
        ),
        Expectation(
            "largest |mean| at any depth, with alpha dropout",
            lambda found: np.array([np.abs(_moments(AlphaDropout, seed)[:, 0]).max() for seed in found.seeds]),
            below=0.1,
            published="0",
        ),
        Expectation(
            "variance behind 20 layers with dropout of 0.1",
            _variance(Dropout),
            above=1.25,
            published="dropout does not keep it",
        ),
        Expectation(
            "train loss of a trained network of 8 hidden layers, dropout off: dropout minus alpha dropout",
            lambda found: found.values("train_loss", "dropout") - found.values("train_loss", "alpha dropout"),
            above=0.0,
            published="networks with alpha dropout stay normalised and train",
        ),
        Expectation(
            "test loss of that network: dropout minus alpha dropout",
            lambda found: found.values("test_loss", "dropout") - found.values("test_loss", "alpha dropout"),
            above=0.0,
            published="alpha dropout is the one that fits selu",
        ),
    ),
    shows=("test_loss", "test_accuracy", "train_loss"),
    differs="The paper compares kinds of networks on 121 tables of the UCI, not alpha dropout with dropout alone. Here a "
    "perceptron of eight selu layers of 128 is trained on a part of Fashion-MNIST.",
    quick_seconds=60,
)
