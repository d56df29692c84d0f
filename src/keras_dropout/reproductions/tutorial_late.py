"""The tutorial: dropout is mostly used in the last layers."""

from keras_dropout.reproductions.framework import Part, Reproduction, difference
from keras_dropout.reproductions.networks import of_tutorial

_LAST_TWO, _LAST, _FIRST, _INPUT, _HIDDEN = "last two layers", "last layer", "first layer", "input", "all hidden layers"


def _parts(quick: bool) -> dict[str, Part]:
    examples, epochs = (3000, 50) if quick else (20_000, 60)
    variants = {
        _LAST_TWO: {"hidden_2": 0.2, "hidden_3": 0.2},
        _LAST: {"hidden_3": 0.2},
        _FIRST: {"hidden_1": 0.2},
        _HIDDEN: {"hidden": 0.2},
        _INPUT: {"input": 0.2},
    }
    return {"places": of_tutorial(variants, examples, epochs)}


REPRODUCTION = Reproduction(
    name="tutorial-late",
    title="Dropout in the last layers",
    claim="Dropout is not put on every layer: it is mostly used in the last ones, which are the place for it.",
    source="The tutorial on dropout in Keras, October 2024, on how dropout is used in practice",
    parts=_parts,
    expectations=tuple(
        difference("test_loss", variant, _LAST_TWO, published)
        for variant, published in (
            (_HIDDEN, "it is not on every layer, but in the last ones"),
            *((other, "it is mostly in the last layers") for other in (_FIRST, _INPUT, "none")),
        )
    ),
    shows=("test_loss", "test_accuracy"),
    differs="The tutorial says where it is used, not that a measurement found it best; the claim is put to its own network, a part "
    "of its images, one rate of 0.2, and momentum 0.9; the loss decides.",
    quick_seconds=65,
)
