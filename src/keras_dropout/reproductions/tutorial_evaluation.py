"""The tutorial: dropout acts in training but not in evaluation."""

from typing import Any

import numpy as np

from keras_dropout.bench.data.dataset import Data
from keras_dropout.metrics import nll
from keras_dropout.reproductions.framework import Expectation, Found, Part, Reproduction
from keras_dropout.reproductions.networks import of_tutorial

_DROPOUT = "dropout 0.2"


def _parts(quick: bool) -> dict[str, Part]:
    examples, epochs = (5000, 30) if quick else (20_000, 60)
    return {"evaluation": of_tutorial({_DROPOUT: {"all": 0.2}}, examples, epochs, momentum=0.0, keep_models=True)}


def on_and_off(model: Any, data: Data) -> dict[str, float]:
    """Return how outputs of test images differ between two evaluations and between two training passes, and the loss difference.

    For evaluations this is the number of differing outputs, for training passes the share. The loss difference is the loss of the
    training images with these weights, in nats, with dropout on minus with dropout off.
    """
    test = np.asarray(data.test.x, "float32") / data.divide_by
    evaluated = [model.predict(test, batch_size=1000, verbose=0) for _ in range(2)]
    trained = [np.asarray(model(test, training=True)) for _ in range(2)]
    part = data.parts("held-out")["train"]
    x = np.asarray(part.x, "float32") / data.divide_by
    on, off = (nll(model(x, training=training), part.y) for training in (True, False))
    return {
        "outputs that differ, evaluation": int((evaluated[0] != evaluated[1]).sum()),
        "share that differs, training": float((trained[0] != trained[1]).mean()),
        "training loss less evaluation loss": on - off,
    }


def _running(found: Found, variant: str) -> np.ndarray:
    """Return the running mean loss in the last training epoch minus the loss of the same images afterwards with dropout off."""
    return found.curves("loss", variant)[:, -1] - found.values("train_loss", variant)


REPRODUCTION = Reproduction(
    name="tutorial-evaluation",
    title="Dropout off in evaluation",
    claim="Dropout is not used when a network is evaluated: all neurons are active then.",
    source="The tutorial on dropout in Keras, October 2024, on evaluation; Srivastava et al. 2014, JMLR 15:1929-1958, section 1",
    parts=_parts,
    expectations=(
        Expectation(
            "outputs, of 100,000, that differ between two evaluations",
            lambda found: found.of_models(on_and_off, "outputs that differ, evaluation", _DROPOUT),
            below=1.0,
            published="dropout is not used in evaluation",
        ),
        Expectation(
            "share of outputs that differ between two passes as in training",
            lambda found: found.of_models(on_and_off, "share that differs, training", _DROPOUT),
            above=0.5,
            published="every neuron may be left out in every step",
        ),
        Expectation(
            "loss of the training images, same weights: as in training less as in evaluation",
            lambda found: found.of_models(on_and_off, "training loss less evaluation loss", _DROPOUT),
            above=0.0,
            published="each neuron receives more inputs in evaluation",
        ),
        Expectation(
            "the same without dropout",
            lambda found: found.of_models(on_and_off, "training loss less evaluation loss"),
            above=-1e-6,
            below=1e-6,
            published="without dropout the two are one",
        ),
        Expectation(
            "running loss of the last epoch less the loss after it: with dropout minus none",
            lambda found: _running(found, _DROPOUT) - _running(found, "none"),
            above=0.0,
            published="the loss that training shows is that of thinned networks",
        ),
    ),
    differs="A part of the training images; a dropout layer for each place in the place of one that is shared. The tutorial says "
    "it without a figure.",
    quick_seconds=40,
)
