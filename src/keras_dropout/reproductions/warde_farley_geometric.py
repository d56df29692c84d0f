"""Warde-Farley et al. 2013: weight scaling against averages over all the networks that dropout trains."""

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from keras_dropout import metrics
from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.data.dataset import Part as Examples
from keras_dropout.bench.data.public_sets import of_scikit_learn
from keras_dropout.reproductions.framework import Expectation, Found, Part, Reproduction
from keras_dropout.reproductions.networks import all_masks, perceptron, sgd

RATE, UNITS, INPUTS = 0.5, 6, 10
DROPOUT = "dropout"


def breast_cancer() -> Data:
    """Return scikit-learn's breast cancer table: for each of 569 images the standardised means of ten measures, and two classes.

    Every third row is for testing, and every fifth of the other rows is held out for validation.
    """
    table = of_scikit_learn("breast cancer")
    rows = np.arange(len(table.target))
    tested, rest = rows[rows % 3 == 0], rows[rows % 3 != 0]
    x = table.data[:, :INPUTS]  # the first columns are the means
    x = ((x - x[rest].mean(0)) / x[rest].std(0)).astype("float32")
    order = np.concatenate([rest[::5], np.delete(rest, np.s_[::5])])
    train, test = (Examples(x[part], table.target[part].astype("uint8")) for part in (order, tested))
    return Data("breast cancer", train, test, validation=len(rest[::5]), classes=tuple(table.target_names.tolist()))


def _parts(quick: bool) -> dict[str, Part]:
    epochs, batch = (100, 16) if quick else (200, 16)
    steps = epochs * 303 // batch
    return {
        "two small layers": Part(
            lambda: perceptron((INPUTS,), (UNITS, UNITS), sgd(0.05, steps), outputs=2),
            lambda data_dir: breast_cancer(),
            {DROPOUT: {"hidden": RATE}},
            epochs,
            batch,
            keep_models=True,
        )
    }


def averages(model: keras.Model, data: Data) -> Mapping[str, float]:
    """Return test errors and distances of averages over all 4,096 thinned networks.

    The errors are those of the network without dropout, and of the arithmetic and the normalised geometric mean of the thinned
    networks. The distances, in nats, are from the network without dropout to the geometric mean, and to the thinned networks on
    average.
    """
    x, y = np.asarray(data.test.x), data.test.y
    scaled = ops.convert_to_numpy(model(x, training=False)).astype(float)
    log_scaled = np.log(np.maximum(scaled, np.finfo("float32").tiny))
    logs, chances = thinned(model, x)
    geometric = np.tensordot(chances, logs, 1)
    geometric -= np.logaddexp.reduce(geometric, axis=-1, keepdims=True)
    found = {"scaled": scaled, "arithmetic": np.tensordot(chances, np.exp(logs), 1), "geometric": np.exp(geometric)}
    return {
        **{f"{name}_error": 1 - metrics.accuracy(each, y) for name, each in found.items()},
        "geometric_distance": _distance(geometric, log_scaled),
        "single_distance": float(chances @ [_distance(each, log_scaled) for each in logs]),
    }


def _distance(logs: np.ndarray, others: np.ndarray) -> float:
    """Return the mean over examples of the Kullback-Leibler divergence from one distribution to the other."""
    return float((np.exp(logs) * (logs - others)).sum(-1).mean())


def thinned(model: keras.Model, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log probabilities from each thinned network of a perceptron with two hidden layers, and the networks' chances.

    The log probabilities are (networks, examples, classes).
    """
    kernels = [[weight.astype(float) for weight in model.get_layer(n).get_weights()] for n in ("hidden_1", "hidden_2", "classes")]
    (first, first_bias), (second, second_bias), (last, last_bias) = kernels
    masks, chances = all_masks(first.shape[1], RATE)
    others, their_chances = all_masks(second.shape[1], RATE)
    hidden = np.maximum(x @ first + first_bias, 0)
    found = []
    for mask in masks:
        behind = np.maximum((hidden * mask / (1 - RATE)) @ second + second_bias, 0)
        logits = (behind * (others / (1 - RATE))[:, None]) @ last + last_bias
        found.append(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
    return np.concatenate(found), np.outer(chances, their_chances).ravel()


def _of(found: Found, figure: str) -> np.ndarray:
    return found.of_models(averages, figure, DROPOUT)


REPRODUCTION = Reproduction(
    name="warde-farley-geometric",
    title="Weight scaling against all thinned networks",
    claim="In small relu networks weight scaling predicts as the geometric mean of all thinned networks does, and no worse than "
    "their arithmetic mean.",
    source="Warde-Farley et al. 2013, arXiv:1312.6197",
    parts=_parts,
    expectations=(
        Expectation(
            "test error: geometric mean of all thinned networks minus weight scaling",
            lambda found: _of(found, "geometric_error") - _of(found, "scaled_error"),
            above=-0.01,
            below=0.01,
            published="very near",
        ),
        Expectation(
            "distance from weight scaling in nats: half of the thinned networks', on average, minus the geometric mean's",
            lambda found: _of(found, "single_distance") / 2 - _of(found, "geometric_distance"),
            above=0.0,
            published="weight scaling is a close approximation",
        ),
        Expectation(
            "test error: weight scaling minus arithmetic mean of all thinned networks",
            lambda found: _of(found, "scaled_error") - _of(found, "arithmetic_error"),
            below=0.01,
            published="the geometric mean is as good as the arithmetic one",
        ),
    ),
    shows=("test_loss", "test_accuracy"),
    differs="One table, breast cancer, in place of several small tasks; two hidden layers of six relu units in place of ten, "
    "dropped at 0.5, with all inputs kept, so that there are 4,096 networks.",
    quick_seconds=25,
)
