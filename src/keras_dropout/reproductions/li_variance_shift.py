"""Li et al. 2019: dropout before batch normalisation distorts the variance that the normalisation learns."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dropout import Dropout, metrics
from keras_dropout.bench.data.arrays import as_seen
from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.data.public_sets import fashion_mnist
from keras_dropout.reproductions.framework import Expectation, Found, Part, Reproduction, minus
from keras_dropout.reproductions.networks import classifier, sgd

RATE, LAYERS, EXAMPLES = 0.5, 3, 4000
BEFORE, AFTER = "before normalisation", "after the last"


def _model(steps: int) -> keras.Model:
    inputs = keras.Input((28, 28), name="inputs")
    x = keras.layers.Flatten(name="flatten")(inputs)
    for number in range(1, LAYERS + 1):
        x = keras.layers.Dense(256, use_bias=False, name=f"hidden_{number}")(x)
        x = keras.layers.BatchNormalization(name=f"norm_{number}")(x)
        x = keras.layers.Activation("relu", name=f"relu_{number}")(x)
    return classifier(inputs, x, sgd(0.02, steps), "mlp-784-256-256-256-10-normalised")


def _parts(quick: bool) -> dict[str, Part]:
    examples, epochs, batch = (5000, 20, 50) if quick else (20_000, 30, 100)
    steps = epochs * examples * 9 // 10 // batch
    return {
        "places": Part(
            lambda: _model(steps),
            lambda data_dir: fashion_mnist(data_dir, train=examples),
            {BEFORE: {"hidden_1": RATE, "hidden_2": RATE}, AFTER: {"hidden_3": RATE}},
            epochs,
            batch,
            keep_models=True,
        )
    }


def shift(model: keras.Model, data: Data) -> Mapping[str, float]:
    """Return the variance ratio of the second normalisation, the test loss, and loss and accuracy with re-estimated moments.

    The ratio is the moving variance from training over the variance of the inputs without dropout, both summed over the units. The
    moments of all normalisations are re-estimated without dropout.
    """
    train = as_seen(data.train.x[data.validation :][:EXAMPLES], data.divide_by)
    test = as_seen(data.test.x, data.divide_by)
    ratio, trained = _ratio(model, train), _outputs(model, test)
    estimate_anew(model, train)
    anew, y = _outputs(model, test), data.test.y
    return {
        "variance_ratio": ratio,
        "loss": metrics.nll(trained, y),
        "loss_estimated_anew": metrics.nll(anew, y),
        "accuracy_estimated_anew": metrics.accuracy(anew, y),
    }


def estimate_anew(model: keras.Model, x: np.ndarray) -> None:
    """Set the moments of a model's normalisations, in place and in order, to those of their inputs on x without dropout."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            inputs = _outputs(keras.Model(model.input, layer.input), x)
            layer.moving_mean.assign(inputs.mean(0))
            layer.moving_variance.assign(inputs.var(0))


def _ratio(model: keras.Model, x: np.ndarray) -> float:
    layer = model.get_layer("norm_2")
    inputs = _outputs(keras.Model(model.input, layer.input), x)
    return float(ops.convert_to_numpy(layer.moving_variance).sum() / inputs.var(0).sum())


def _outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(model(x, training=False))


def _of_independent(found: Found) -> np.ndarray:
    """Return the measured variance ratio of random weighted sums with and without dropout, divided by the formula's ratio.

    The inputs are relus of independent normal numbers, with mean c and variance v. The formula is
    ((c^2 + v) / (1 - rate) - c^2) / v.
    """
    mean = 1 / np.sqrt(2 * np.pi)
    variance = 0.5 - mean**2
    formula = ((mean**2 + variance) / (1 - RATE) - mean**2) / variance
    return np.array([_measured(seed) / formula for seed in found.seeds])


def _measured(seed: int) -> float:
    random = np.random.default_rng(seed)
    x = np.maximum(random.normal(size=(50_000, 100)), 0).astype("float32")
    kernel = random.normal(size=(100, 20)).astype("float32")
    dropped: Any = ops.convert_to_numpy(Dropout(RATE, seed=seed)(x, training=True))
    return float((dropped @ kernel).var(0).sum() / (x @ kernel).var(0).sum())


def _gain(found: Found, variant: str) -> np.ndarray:
    return found.of_models(shift, "loss", variant) - found.of_models(shift, "loss_estimated_anew", variant)


REPRODUCTION = Reproduction(
    name="li-variance-shift",
    title="Dropout before batch normalisation",
    claim="Behind dropout, batch normalisation remembers a larger variance than it meets at test; this costs accuracy, which "
    "dropout after the last normalisation does not.",
    source="Li et al. 2019, CVPR, arXiv:1801.05134",
    parts=_parts,
    expectations=(
        Expectation(
            "variance at normalisation behind dropout, training over test",
            lambda found: found.of_models(shift, "variance_ratio", BEFORE),
            above=1.0,
            published="1 / (1 - rate) where inputs have mean 0, less where they are correlated",
        ),
        Expectation(
            "the same of independent inputs and random weights, over ((c^2 + v) / (1 - rate) - c^2) / v",
            _of_independent,
            above=0.95,
            below=1.05,
            published="equal",
        ),
        Expectation(
            "test loss, dropout before: as trained minus with the moments estimated anew without dropout",
            lambda found: _gain(found, BEFORE),
            above=0.0,
            published="fewer errors with moments estimated anew",
        ),
        Expectation(
            "the same gain, dropout before minus dropout after the last normalisation",
            lambda found: _gain(found, BEFORE) - _gain(found, AFTER),
            above=0.0,
            published="there is no shift without dropout in front",
        ),
        Expectation(
            "test accuracy: dropout after the last normalisation minus before",
            minus("test_accuracy", AFTER, BEFORE),
            above=0.0,
            published="77.4 % right without, 68.6 % with dropout 0.5 in each bottleneck (DenseNet, CIFAR-100)",
        ),
    ),
    differs="A perceptron of three normalised hidden layers of 256 on a part of Fashion-MNIST in place of convolutional networks "
    "on CIFAR; dropout of 0.5 before the second and third normalisation in place of every one.",
    quick_seconds=95,
)
