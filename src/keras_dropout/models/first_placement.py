"""The first placement to try in a model, from what the atlas found in similar models."""

from typing import Any

import keras

from keras_dropout.errors import BadInput
from keras_dropout.models import atlas
from keras_dropout.models.placement import sites


def advise_on(model: keras.Model, inputs: Any = None, examples: int | None = None) -> atlas.Advice:
    """Advise where to begin with a model, from the nearest studies of the atlas.

    `inputs` are some of its inputs, of which the shapes matter; `examples` is the number of training examples. Either may be None.
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
    """Return the kind of data by their shape, which includes the axis of examples."""
    if not isinstance(shape, tuple) or not all(size is None or isinstance(size, int) for size in shape):
        return "of several inputs"
    return "images" if len(shape) in (3, 4) else "rows" if len(shape) == 2 else f"of {len(shape) - 1} axes"
