"""Gal, Hron and Kendall 2017, section 4.1: a learned rate falls with the number of examples."""

from collections.abc import Callable, Mapping

import keras
import numpy as np

from keras_dropout import uncertainty
from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.data.dataset import Part as Examples
from keras_dropout.layers import ConcreteDropout
from keras_dropout.reproductions.framework import Expectation, Found, Part, Reproduction

SIZES = (20, 100, 1000)
WIDTH, LENGTH_SCALE, PASSES = 64, 1e-2, 100
SHOWN = 1000  # examples per epoch, so that an epoch has the same number of updates for each size
_TESTED = 200


def line(size: int) -> Data:
    """Return the first `size` of 1,000 points of y = 2 x + 8 + noise, repeated up to 1,000; x and the noise are from N(0, 1)."""
    random = np.random.default_rng(0)
    x = random.normal(size=(SHOWN + 2 * _TESTED, 1)).astype("float32")
    y = (2 * x + 8 + random.normal(size=x.shape)).astype("float32")
    rows = np.concatenate([np.arange(_TESTED), 2 * _TESTED + np.arange(SHOWN) % size])
    tested = slice(_TESTED, 2 * _TESTED)
    return Data(f"line, {size} points", Examples(x[rows], y[rows]), Examples(x[tested], y[tested]), validation=_TESTED)


def _model() -> keras.Model:
    inputs = keras.Input((1,), name="inputs")
    x = inputs
    for number in (1, 2, 3):
        x = keras.layers.Dense(WIDTH, "relu", name=f"hidden_{number}")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, name="value")(x), name=f"mlp-1-3x{WIDTH}-1")
    model.compile(keras.optimizers.Adam(2e-3), "mse")
    return model


def _part(size: int) -> str:
    return f"{size} points"


def _part_of(size: int, epochs: int) -> Part:
    # For a squared error without 1/2 and noise of variance 1.
    spec = {"kind": "ConcreteDropout", "rate": 0.1}
    spec |= {"weight_regularizer": LENGTH_SCALE**2 / size, "dropout_regularizer": 2 / size}
    placement = {"hidden": spec, "value": spec}
    return Part(_model, lambda data_dir: line(size), {"concrete": placement}, epochs, batch_size=20, keep_models=True)


def learned(model: keras.Model, data: Data) -> Mapping[str, float]:
    """Return the mean rate before the second and third hidden layer, and the mean over test examples of the passes' sd."""
    rates = [layer.rate for layer in model.layers if isinstance(layer, ConcreteDropout)][1:3]
    passes = uncertainty.predict(model, data.test.x, PASSES, outputs="values")
    return {"hidden_rate": float(np.mean(rates)), "epistemic_sd": float(np.sqrt(passes.variance).mean())}


def _falls(figure: str, few: int, many: int) -> Callable[[Found], np.ndarray]:
    """Return a figure with few examples minus the figure with many."""
    return lambda found: (
        found.of_models(learned, figure, "concrete", _part(few)) - found.of_models(learned, figure, "concrete", _part(many))
    )


REPRODUCTION = Reproduction(
    name="concrete-rate",
    title="A learned rate falls with the number of examples",
    claim="The rate that concrete dropout learns, and the spread of the passes, fall as there are more examples.",
    source="Gal, Hron and Kendall 2017, arXiv:1705.07832, section 4.1, and the authors' notebook",
    parts=lambda quick: {_part(size): _part_of(size, 100 if quick else 300) for size in SIZES},
    expectations=(
        Expectation(
            "learned rate of hidden layers: 20 points minus 1,000",
            _falls("hidden_rate", 20, 1000),
            above=0.0,
            published="0.40 with 25, 0.23 with 1,000 points",
        ),
        Expectation(
            "the same: 20 points minus 100",
            _falls("hidden_rate", 20, 100),
            above=0.0,
            published="0.40 with 25, 0.24 with 100 points",
        ),
        Expectation(
            "the same: 100 points minus 1,000",
            _falls("hidden_rate", 100, 1000),
            above=0.0,
            published="0.236 with 100, 0.228 with 1,000 points",
        ),
        Expectation(
            "standard deviation of passes: 20 points minus 1,000",
            _falls("epistemic_sd", 20, 1000),
            above=0.0,
            published="0.82 with 25, 0.65 with 1,000 points",
        ),
    ),
    shows=("test_loss", "train_loss"),
    differs="Hidden layers of 64 in place of 1,024, a known noise variance in place of a learned one, as many updates for each "
    "number of points; seeds share the points.",
    quick_seconds=55,
)
