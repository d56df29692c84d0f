"""The first placement to try in a model, by what the atlas found in those like it."""

from typing import Any

import keras

from keras_dropout.errors import BadInput
from keras_dropout.models import atlas
from keras_dropout.models.placement import sites


def advise_on(model: keras.Model, inputs: Any = None, examples: int | None = None) -> atlas.Advice:
    """Where to begin with a model, by the nearest studies of the atlas.

    `inputs` are some of its inputs, of which the shapes count, `examples` the number of training examples; None where there are
    none.
    """
    try:
        hidden = [site for site in sites(model) if site.group == "hidden"]
    except BadInput:
        return atlas.Advice(None, ("The atlas was not asked: the model's layers cannot be followed.",))
    others = [site.kind for site in hidden if site.kind != "Dense"]
    return atlas.advise(
        _kind(model.input_shape if inputs is None else getattr(inputs, "shape", None)),
        model.count_params(),
        examples,
        len(hidden),
        others,
    )


def _kind(shape: Any) -> str:
    """The kind of data by their shape with the axis of examples."""
    if not isinstance(shape, tuple) or not all(size is None or isinstance(size, int) for size in shape):
        return "of several inputs"
    return "images" if len(shape) in (3, 4) else "rows" if len(shape) == 2 else f"of {len(shape) - 1} axes"
