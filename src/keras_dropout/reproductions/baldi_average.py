"""Baldi and Sadowski 2013: which average over all masks the network without dropout computes."""

import functools
from collections.abc import Callable

import keras
import numpy as np
from scipy import special

from keras_dropout import Dropout, metrics, uncertainty
from keras_dropout.reproductions.framework import Expectation, Found, Reproduction
from keras_dropout.reproductions.networks import all_masks

INPUTS, CLASSES, EXAMPLES = 10, 3, 200
RATES = (0.2, 0.5)
ROUNDING = 1e-5


class _Averages:
    """One random layer behind dropout: the outputs of all its 2^10 thinned networks, their averages, and our layers at prediction.

    Everything is in double precision, except the predictions of our layers.
    """

    def __init__(self, seed: int, rate: float, activation: str):
        random = np.random.default_rng([seed, round(100 * rate)])
        units = 1 if activation == "sigmoid" else CLASSES
        kernel = random.normal(0, 1.5 / np.sqrt(INPUTS), (INPUTS, units))
        bias, x = random.normal(0, 0.5, units), random.normal(0, 1, (EXAMPLES, INPUTS)).astype("float32")
        layer = keras.layers.Dense(units, activation)
        self.model = keras.Sequential([keras.Input((INPUTS,)), Dropout(rate), layer])
        layer.set_weights([kernel, bias])
        self.x, self.scaled = x, keras.ops.convert_to_numpy(self.model(x))
        masks, self._chances = all_masks(INPUTS, rate)
        thinned = x * (masks / (1 - rate))[:, None]
        self._sums = thinned @ kernel.astype("float32").astype(float) + bias.astype("float32")
        self._activation = activation

    def arithmetic(self) -> np.ndarray:
        """Return the mean of the outputs."""
        act = {"linear": np.asarray, "sigmoid": special.expit, "softmax": functools.partial(special.softmax, axis=-1)}
        return np.tensordot(self._chances, act[self._activation](self._sums), 1)

    def geometric(self) -> np.ndarray:
        """Return the weighted geometric mean of each class's probability, divided by the sum over the classes."""
        sums = self._sums
        if self._activation == "sigmoid":
            sums = np.concatenate([sums, np.zeros_like(sums)], -1)
        means = np.tensordot(self._chances, special.log_softmax(sums, axis=-1), 1)
        return special.softmax(means, axis=-1)[:, : self.scaled.shape[-1]]


def _each(measure: Callable[[_Averages], float], activation: str, worst: Callable = max) -> Callable[[Found], np.ndarray]:
    """Return for each seed the worst value of a measure over the rates."""
    return lambda found: np.array([worst(measure(_Averages(seed, rate, activation)) for rate in RATES) for seed in found.seeds])


def _geometric_error(averages: _Averages) -> float:
    return np.abs(averages.geometric() - averages.scaled).max()


def _arithmetic_error(averages: _Averages) -> float:
    return np.abs(averages.arithmetic() - averages.scaled).max()


def _worse_between(averages: _Averages) -> float:
    """Return how much larger the geometric mean's error is where the mean is not near 0, 1/2 or 1 than where it is near."""
    mean = averages.arithmetic()
    error, near = np.abs(mean - averages.geometric()), np.abs(mean[..., None] - [0, 0.5, 1]).min(-1) < 0.05
    return error[~near].mean() - error[near].mean()


def _drawn_error(averages: _Averages) -> float:
    drawn = uncertainty.predict(averages.model, averages.x, 4000, outputs="classes")
    return metrics.rmse(drawn.mean, averages.arithmetic())


REPRODUCTION = Reproduction(
    name="baldi-average",
    title="What the network without dropout is the average of",
    claim="For a linear layer the scaled network is the mean over all masks, for a logistic or softmax layer the normalised "
    "geometric mean, exactly; this is near to the mean.",
    source="Baldi and Sadowski 2013, NeurIPS 26; Hinton et al. 2012, arXiv:1207.0580, for the softmax",
    parts=lambda quick: {},
    expectations=(
        Expectation(
            "logistic layer: largest difference of the normalised geometric mean over all masks from the scaled network",
            _each(_geometric_error, "sigmoid"),
            below=ROUNDING,
            published="equal",
        ),
        Expectation("softmax layer: the same", _each(_geometric_error, "softmax"), below=ROUNDING, published="equal"),
        Expectation(
            "linear layer: largest difference of the mean over all masks from the scaled network",
            _each(_arithmetic_error, "linear"),
            below=ROUNDING,
            published="equal",
        ),
        Expectation(
            "logistic layer: largest difference of the mean over all masks from the scaled network",
            _each(_arithmetic_error, "sigmoid"),
            above=100 * ROUNDING,
            published="an approximation only",
        ),
        Expectation(
            "logistic layer: mean |mean - geometric mean| where the mean is not within 0.05 of 0, 1/2 or 1, minus where it is",
            _each(_worse_between, "sigmoid", min),
            above=0.0,
            published="the approximation is best near 0, 1/2 and 1",
        ),
        Expectation(
            "softmax layer: root mean square difference of 4,000 drawn masks from all masks",
            _each(_drawn_error, "softmax"),
            below=0.01,
            published="an average over the masks that are drawn",
        ),
    ),
    differs="All 1,024 masks of ten inputs are listed, in random networks of one layer; nothing is trained. The trained deep "
    "networks of the paper, for which the equalities are approximations, are not here.",
    quick_seconds=35,
)
