"""What draws at random in training besides the dropout of ours: foreign layers and Keras's noise."""

from collections.abc import Collection

import keras
import numpy as np
from keras import ops

from keras_dropout.errors import BadInput, warn
from keras_dropout.layers.adopted import inside, own_class
from keras_dropout.layers.base import Stochastic
from keras_dropout.models import graph, kinds
from keras_dropout.models.dropping import has_option, is_foreign, is_known, passes, rate_of, rated
from keras_dropout.models.survey import Site

_NOISE = keras.layers.GaussianNoise


def still_random(model: keras.Model) -> list[tuple[str, keras.Layer]]:
    """Return (path, layer) for each layer that draws at random in training but is no known dropout.

    It tests layers that are neither Keras's nor ours, and Keras's noise: each is called twice in training on the same numbers.
    Layers that augment the input are left out.
    """
    found: dict[int, tuple[str, keras.Layer]] = {}
    for call in graph.read(model).calls:
        if not isinstance(call.layer, keras.Layer) or id(call.layer) in found or passes(call):
            continue
        noisy = any(type(each) is _NOISE for each in call.layer._flatten_layers())
        if (noisy or is_foreign(call.layer)) and _differs(call):
            found[id(call.layer)] = call.path, call.layer
    return list(found.values())


def _differs(call: graph.Call) -> bool:
    """Return whether a layer gives another output, or moves a seed, when called twice in training on the same numbers."""
    seeds = [seed.state for each in call.layer._flatten_layers() for seed in getattr(each, "_seed_generators", ())]
    try:
        with keras.StatelessScope() as scope:
            one, two = outputs_of(call, True), outputs_of(call, True)
        # With few numbers two draws may be equal, so a moved seed counts; but a layer that can be turned off may draw to no effect.
        moved = any(scope.get_current_value(seed) is not None for seed in seeds) and not has_option(call.layer)
        return moved or graph.differ(one, two)
    except Exception:  # a layer that cannot be called on these numbers
        return bool(seeds) and not has_option(call.layer)


def outputs_of(call: graph.Call, training: bool) -> list[np.ndarray]:
    """Return the outputs of a call for random numbers, always the same ones."""
    draw = np.random.default_rng(0).random
    given = {id(t): ops.cast(draw([n or 2 for n in t.shape]).astype("float32"), t.dtype) for t in call.node.input_tensors}
    args, options = call.node.arguments.fill_in(given)
    if call.layer._call_has_training_arg:
        options = {**options, "training": training}
    return [ops.convert_to_numpy(each) for each in keras.tree.flatten(call.layer(*args, **options))]


def warn_still_random(model: keras.Model, placed: Collection[keras.Layer] = ()) -> None:
    """Warn of each layer that draws at random in training, except those `placed`."""
    try:
        found = still_random(model)
    except BadInput:  # its graph cannot be followed
        found = [(address, layer) for address, layer, _ in inside(model) if _draws(layer)]
    seen = {id(layer) for _, layer in found}
    acting = [(path, layer) for path, layer in rated(model) if not isinstance(layer, Stochastic) and rate_of(layer)]
    for path, layer in [*found, *((path, layer) for path, layer in acting if id(layer) not in seen)]:
        if any(layer is each for each in placed):
            continue
        if not is_foreign(layer):
            warn(f"{type(layer).__name__} {path!r} stays: it adds noise in training, and is no dropout.")
            continue
        warn(
            f"{type(layer).__name__} {path!r} still draws at random in training: it has no option that is known as dropout. "
            "Where that is dropout, give the class an option drop_rate in its get_config that turns it off at 0."
        )


def drawing(model: keras.Model) -> list[Site]:
    """Return a site of the group "draws" for each seed in a layer of an unknown class, at any depth, that has no known dropout."""
    known = {id(layer) for _, layer in rated(model)}
    return [
        Site(f"{address}/{seed.name}", own_class(layer).__name__, "draws", False, (), "", 0, (), (), {})
        for address, layer, _ in inside(model)
        if _draws(layer) and id(layer) not in known and not is_known(own_class(layer).__module__)
        for seed in layer._seed_generators
    ]


def _draws(layer: keras.Layer) -> bool:
    """Return whether a layer has a seed of its own and is none of ours."""
    return not isinstance(layer, Stochastic) and bool(layer._seed_generators) and not kinds.is_preprocessing(type(layer))
