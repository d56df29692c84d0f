"""Molchanov, Ashukha and Vetrov 2017, table 1: weights that can be pruned."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_dropout import metrics
from keras_dropout.bench.data.arrays import as_seen
from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.data.public_sets import fashion_mnist
from keras_dropout.layers import SparseVariationalDropout
from keras_dropout.reproductions.framework import Expectation, Found, Part, Reproduction, minus
from keras_dropout.reproductions.networks import perceptron

SPARSE = "sparse"
_NOTHING_LEFT_OUT = 9.0  # log alpha is at most 8


def _parts(quick: bool) -> dict[str, Part]:
    examples, epochs, batch = (5000, 80, 50) if quick else (10_000, 150, 50)
    steps, trained = epochs * examples * 9 // 10 // batch, examples * 9 // 10
    decay = keras.optimizers.schedules.PolynomialDecay(2e-3, steps, 0.0)
    spec = {"kind": "SparseVariationalDropout", "kl_weight": 1 / trained, "log_variance": -8.0}
    return {
        "weights": Part(
            lambda: perceptron((28, 28), (100, 50), keras.optimizers.Adam(decay)),
            lambda data_dir: fashion_mnist(data_dir, train=examples),
            {SPARSE: {"hidden": spec, "classes": spec}},
            epochs,
            batch,
            keep_models=True,
        )
    }


def sparsity(model: keras.Model, data: Data) -> Mapping[str, float]:
    """Return the share of pruned weights in the first and last layer, the total compression factor, and test accuracies.

    The accuracies are with and without the pruned weights.
    """
    layers = [layer for layer in model.layers if isinstance(layer, SparseVariationalDropout)]
    shares, sizes = [layer.sparsity for layer in layers], [np.prod(layer.layer.kernel.shape) for layer in layers]
    test = as_seen(data.test.x, data.divide_by)
    found = {"first": shares[0], "last": shares[-1], "pruned_accuracy": _accuracy(model, test, data.test.y)}
    found["compression"] = float(np.sum(sizes) / max(1.0, np.dot(sizes, 1 - np.array(shares))))
    for layer in layers:
        layer.threshold = _NOTHING_LEFT_OUT
    return found | {"whole_accuracy": _accuracy(model, test, data.test.y)}


def _accuracy(model: keras.Model, x: np.ndarray, y: Any) -> float:
    return metrics.accuracy(keras.ops.convert_to_numpy(model(x, training=False)), y)


def _of(found: Found, figure: str) -> np.ndarray:
    return found.of_models(sparsity, figure, SPARSE)


REPRODUCTION = Reproduction(
    name="molchanov-pruning",
    title="Weights that sparse variational dropout leaves out",
    claim="Sparse variational dropout leaves out most of the weights of a perceptron, at next to no loss of accuracy.",
    source="Molchanov, Ashukha and Vetrov 2017, arXiv:1701.05369, table 1",
    parts=_parts,
    expectations=(
        Expectation(
            "share of the first layer's weights that are left out",
            lambda found: _of(found, "first"),
            above=0.8,
            published="0.989 (LeNet-300-100, MNIST)",
        ),
        Expectation(
            "the same: first layer minus last",
            lambda found: _of(found, "first") - _of(found, "last"),
            above=0.0,
            published="0.989 minus 0.620",
        ),
        Expectation(
            "test accuracy: all weights minus those that are left",
            lambda found: _of(found, "whole_accuracy") - _of(found, "pruned_accuracy"),
            below=0.01,
            published="what is left out is noise",
        ),
        Expectation(
            "test accuracy: none minus sparse",
            minus("test_accuracy", "none", SPARSE),
            below=0.01,
            published="98.4 % right with all weights, 98.1 % with a 68th of them",
        ),
        Expectation("weights before, over those after", lambda found: _of(found, "compression"), above=5.0, published="68"),
    ),
    differs="A perceptron 784-100-50-10 on a part of Fashion-MNIST in place of 784-300-100-10 on MNIST, with a quarter or less of "
    "the updates, twice the learning rate and a higher initial variance, and with the divergence's whole weight from the start.",
    quick_seconds=120,
)
