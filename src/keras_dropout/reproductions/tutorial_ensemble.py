"""The tutorial: training with dropout is like averaging thousands of networks, practically never the same twice."""

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_dropout.bench.data.dataset import Data
from keras_dropout.ensemble import average, networks
from keras_dropout.reproductions.framework import Expectation, Found, Part, Reproduction
from keras_dropout.reproductions.networks import of_tutorial

_DROPOUT, _EPOCHS, _NETWORKS, _IMAGES = "dropout 0.2", 60, 100, 2000


def _parts(quick: bool) -> dict[str, Part]:
    return {"ensemble": of_tutorial({_DROPOUT: {"all": 0.2}}, 3000 if quick else 20_000, _EPOCHS, keep_models=True)}


def thinned(model: Any, data: Data) -> dict[str, float]:
    """Return the NLL, in nats, of one thinned network, of the average of 100, and with dropout off, on 2,000 test images.

    Also return an upper bound on the expected number of repeated networks in a training that draws one for each image in each
    epoch.
    """
    x = data.test.x[:_IMAGES].astype("float32") / data.divide_by
    found = average(model, x, data.test.y[:_IMAGES], samples=_NETWORKS)
    met = networks(model).visited(len(data.parts("held-out")["train"].y) * _EPOCHS)
    return {
        "NLL, one network": found.scores[0].nll,
        f"NLL, {_NETWORKS} averaged": found.scores[-1].nll,
        "NLL, dropout off": found.scaled_nll,
        "networks met again": met.draws - met.lower,
    }


def _figure(name: str) -> Callable[[Found], np.ndarray]:
    return lambda found: found.of_models(thinned, name, _DROPOUT)


_ONE, _MANY, _OFF = (_figure(name) for name in ("NLL, one network", f"NLL, {_NETWORKS} averaged", "NLL, dropout off"))

REPRODUCTION = Reproduction(
    name="tutorial-ensemble",
    title="An average over thousands of thinned networks",
    claim="Training with dropout is like training thousands of networks, practically never the same twice, and averaging them.",
    source="The tutorial on dropout in Keras, October 2024; Srivastava et al. 2014, JMLR 15:1929-1958, section 1",
    parts=_parts,
    expectations=(
        Expectation(
            "share of the gain of averaging that the one network with dropout off has",
            lambda found: (_ONE(found) - _OFF(found)) / (_ONE(found) - _MANY(found)),
            above=0.9,
            published="the trained network is like the average of all",
        ),
        Expectation(
            "networks that a training meets again, at most",
            _figure("networks met again"),
            below=1.0,
            published="the networks are practically never the same twice",
        ),
        Expectation(
            f"test NLL: one thinned network minus {_NETWORKS} averaged",
            lambda found: _ONE(found) - _MANY(found),
            above=0.0,
            published="the average is better than the one",
        ),
        Expectation(
            "test NLL: one thinned network minus dropout off",
            lambda found: _ONE(found) - _OFF(found),
            above=0.0,
            published="the average is better than the one",
        ),
    ),
    shows=("test_loss", "test_accuracy"),
    differs="A part of the training images, and momentum 0.9; the tutorial states it without a figure. The gain of averaging is "
    f"that of {_NETWORKS} networks, each the same for all images, in NLL.",
    quick_seconds=45,
)
