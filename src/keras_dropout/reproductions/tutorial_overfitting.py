"""The tutorial: deeper networks overfit more easily, and dropout reduces it."""

from keras_dropout.reproductions.framework import Expectation, Part, Reproduction, minus
from keras_dropout.reproductions.networks import of_tutorial

_DROPOUT = "dropout 0.2"
_DEEP, _SHALLOW = "three hidden layers", "one hidden layer"


def _parts(quick: bool) -> dict[str, Part]:
    examples, epochs = (3000, 60) if quick else (10_000, 80)
    variants = {_DROPOUT: {"all": 0.2}}
    return {
        _DEEP: of_tutorial(variants, examples, epochs),
        _SHALLOW: of_tutorial(variants, examples, epochs, hidden=(200,)),
    }


REPRODUCTION = Reproduction(
    name="tutorial-overfitting",
    title="Overfitting, depth and dropout",
    claim="Deeper networks overfit more easily: good on training data, poor on others. Dropout reduces that.",
    source="The tutorial on dropout in Keras, October 2024, on what dropout is for",
    parts=_parts,
    expectations=(
        Expectation(
            "gap, test loss less train loss: none minus dropout",
            lambda found: found.gap(part=_DEEP) - found.gap(_DROPOUT, _DEEP),
            above=0.0,
            published="dropout reduces overfitting",
        ),
        Expectation(
            "test loss: none minus dropout",
            minus("test_loss", "none", _DROPOUT, _DEEP),
            above=0.0,
            published="dropout helps on unseen data",
        ),
        Expectation(
            "gap without dropout: three hidden layers minus one",
            lambda found: found.gap(part=_DEEP) - found.gap(part=_SHALLOW),
            above=0.0,
            published="deeper networks overfit more easily",
        ),
    ),
    differs="A part of the training images and momentum 0.9, so that the network overfits in a short time. The tutorial states "
    "this without a comparison; the loss decides.",
    quick_seconds=55,
)
