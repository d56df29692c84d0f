"""The dropout of a layer, ours, Keras's or another library's: whether it drops, its rate and options, and the layer without it."""

import copy
import fnmatch
import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_dropout.errors import refuse
from keras_dropout.layers import PatchDropout
from keras_dropout.layers.adopted import own_class
from keras_dropout.layers.base import LayerWrapper, MaskLayer, RateAtCall, Stochastic
from keras_dropout.models import kinds
from keras_dropout.models.graph import Call, made_again


def is_dropout(layer: Any) -> bool:
    """Return whether `layer` is a dropout layer, ours, one of Keras's or one with a known name."""
    if isinstance(layer, keras.layers.TimeDistributed):
        return is_dropout(layer.layer)
    if isinstance(layer, MaskLayer):
        return not layer.at_prediction
    return isinstance(layer, (PatchDropout, *kinds.KERAS_DROPOUT)) or _is_named_so(layer)


def _is_named_so(layer: Any) -> bool:
    return isinstance(layer, keras.Layer) and bool(kinds.FOREIGN_DROPOUT.search(type(layer).__name__)) and not layer.weights


def passes(call: Call) -> bool:
    """Return whether a call is one of a dropout layer that can be left out. Some layers named StochasticDepth add two inputs."""
    if not _is_named_so(call.layer):
        return is_dropout(call.layer) and len(call.outputs) <= len(call.inputs)  # one more says what was dropped
    before = call.node.input_tensors
    return len(before) == 1 and tuple(before[0].shape[1:]) == call.shape


def inner_layer(layer: Any) -> Any:
    """Return the layer inside our wrappers."""
    return inner_layer(layer.layer) if isinstance(layer, LayerWrapper) else layer


def own_dropout(call: Call) -> list[dict[str, Any]]:
    """Return the dropout that a layer has as an option, inside it, or as a wrapper around it."""
    layer, found = call.layer, []
    while isinstance(layer, LayerWrapper):
        found.append({"layer": call.path, "kind": type(layer).__name__, "rate": getattr(layer, "rate", None)})
        layer = layer.layer
    if isinstance(layer, keras.Layer) and not isinstance(layer, keras.Model):
        options = dropout_options(layer)
        adopted = any(isinstance(each, Stochastic) for each in layer._flatten_layers(include_self=False))
        if adopted or not options:  # of what is adopted, options are old rates
            dropping = [(path, inner, rate_of(inner)) for path, inner in rated(layer)]
            found += [
                {"layer": f"{call.path}/{path}", "kind": type(each).__name__, "rate": r} for path, each, r in dropping if r != 0
            ]
        else:
            found += [{"layer": call.path, "kind": f"{owner}({option})", "rate": rate} for owner, option, rate in options]
    return found


def inside(layer: keras.Layer) -> list[keras.Layer]:
    """Return the layers in a layer that drop something."""
    return [each for each in layer._flatten_layers(include_self=False) if _drops(each)]


def _drops(layer: keras.Layer) -> bool:
    return rate_of(layer) != 0 if is_dropout(layer) or isinstance(layer, Stochastic) else bool(dropout_options(layer))


def rate_of(layer: Any) -> float | None:
    """Return the rate of a dropout layer: `rate`, else the largest of its dropout options; None if it drops at an unknown rate."""
    layer = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
    if isinstance(layer, RateAtCall) and layer.rates_given:
        return None
    rate = number(attribute(layer, "rate"))
    rate = rate or number(attribute(layer, "recurrent_rate")) or rate
    if rate or not isinstance(layer, keras.Layer) or not is_foreign(layer):
        return rate
    found = max((value for *_, value in dropout_options(layer)), default=0.0)
    return found if found or has_option(layer) else rate


def attribute(layer: Any, name: str) -> Any:
    """Return an attribute of a layer of any class; None if there is none, or if reading it raises."""
    try:
        return getattr(layer, name, None)
    except Exception:  # a user's property may raise anything
        return None


def number(value: Any) -> float | None:
    """Return a number, variable or tensor of one number as a float; None for anything else: foreign classes may hold anything."""
    if value is None or isinstance(value, (bool, str)):
        return None
    try:
        found = float(value if isinstance(value, (int, float)) else keras.ops.convert_to_numpy(value))
    except Exception:  # a function, a list, a symbolic tensor, ...
        return None
    return found if math.isfinite(found) else None


def is_foreign(layer: keras.Layer) -> bool:
    """Return whether a layer is, or contains, one of a class that is neither Keras's nor ours."""
    return not all(is_known(own_class(each).__module__) for each in layer._flatten_layers())


def is_known(module: str) -> bool:
    """Return whether a module is Keras's or ours."""
    return module.partition(".")[0] in ("keras", "keras_dropout")


def rated(model: keras.Model) -> list[tuple[str, keras.Layer]]:
    """Return (path, layer) for each layer that drops something or can: the candidates for a new rate.

    Keras's dropout layers of rate 0 inside other layers, such as that of its attention, are left out: they are always off.
    """
    found: list[tuple[str, keras.Layer]] = []
    seen: set[int] = set()

    def walk(holder: keras.Layer, prefix: str, in_model: bool) -> None:
        for layer in holder._flatten_layers(include_self=False, recursive=False):
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            path, before = prefix + layer.name, len(found)
            if isinstance(layer, Stochastic) or (is_dropout(layer) and (in_model or _drops(layer))):
                found.append((path, getattr(layer, "layer", layer) if isinstance(layer, keras.layers.TimeDistributed) else layer))
            if not is_dropout(layer):
                walk(layer, f"{path}/", in_model and isinstance(layer, keras.Model))
            options = not isinstance(layer, keras.Model) and dropout_options(layer)
            if options and not any(is_dropout(each) or isinstance(each, Stochastic) for _, each in found[before:]):
                found[before:] = [(path, layer)]  # for example an LSTM, not its cell

    walk(model, "", True)
    return found


def named(layers: list[tuple[str, Any]], pattern: Any) -> list[Any]:
    """Return the layers, given with their paths, that a pattern names.

    It is a layer; or the path of one, or of a layer around several; else a name or a glob, which may match several.
    """
    if not isinstance(pattern, str):
        return [layer for _, layer in layers if layer is pattern]
    exact = [layer for path, layer in layers if path == pattern or path.startswith(f"{pattern}/")]
    matches = fnmatch.fnmatchcase
    return exact or [each for path, each in layers if each.name == pattern or matches(path, pattern) or matches(each.name, pattern)]


def dropout_options(layer: keras.Layer) -> list[tuple[str, str, float]]:
    """Return (class, option, rate) for each dropout option above 0 of a layer, or of a layer in its config."""
    return _options(_config(layer), "" if isinstance(layer, Stochastic) else type(layer).__name__)


def has_option(layer: keras.Layer) -> bool:
    """Return whether a layer has an option that is known as dropout, even if it is 0."""
    return any(rate is not None for name, value in _config(layer).items() for rate in _rates(type(layer).__name__, name, value))


def own_options(layer: keras.Layer) -> dict[str, float]:
    """Return the dropout options above 0 of a layer itself, by name: those in its config, and attributes that hold one."""
    plain = {name: value for name, value in vars(layer).items() if isinstance(value, float) and not name.startswith("_")}
    kind = own_class(layer).__name__
    named = [(name, max(_rates(kind, name, value), default=0.0)) for name, value in {**plain, **_config(layer)}.items()]
    return {name: rate for name, rate in named if rate > 0}


def rate_options(layer: keras.Layer) -> dict[str, float]:
    """Return the attributes that hold a rate of a layer that is not ours, each with the value that turns it off."""
    rated = is_dropout(layer) or kinds.RATED_CLASSES.search(own_class(layer).__name__)
    found = {name: value for name, value in vars(layer).items() if isinstance(value, float) and not isinstance(layer, Stochastic)}
    also = ("rate", "_rate") if rated else ()
    on = [name for name, value in found.items() if any(_rates(own_class(layer).__name__, name, value, also))]
    return {name: 1.0 if kinds.KEPT_OPTIONS.search(name.lower()) else 0.0 for name in on}


def option_changed(layer: keras.Layer, option: str) -> bool | None:
    """Return whether other dropout is in a layer that is made again with half of a dropout option; None if it cannot be made."""
    config = _config(layer)
    value = config.get(option)
    if value is None:
        return None
    other = type(value)(each / 2 for each in value) if isinstance(value, (list, tuple)) else value / 2
    found = []
    try:
        for given in (value, other):
            made = own_class(layer).from_config({**copy.deepcopy(config), option: given})
            if not made.built and layer.built:
                made.build_from_config(layer.get_build_config())
            found.append([rate_of(each) for each in made._flatten_layers(include_self=False)])
    except Exception:  # a user's class may raise anything when it is made again
        return None
    return found[0] != found[1]


def _config(layer: keras.Layer) -> dict[str, Any]:
    try:
        return layer.get_config()
    except Exception:  # a user's class may raise anything
        return {}


def _options(config: Any, owner: str) -> list[tuple[str, str, float]]:
    """Return (class, option, rate) for each dropout option in a layer's config."""
    if isinstance(config, (list, tuple)):
        return [found for each in config for found in _options(each, owner)]
    if not isinstance(config, Mapping):
        return []
    owner = config.get("class_name", owner)
    found = [(owner, k, rate) for k, v in config.items() if (rate := max(_rates(owner, k, v), default=0.0)) > 0]
    return found + [f for v in config.values() for f in _options(v, owner)]


def _rates(owner: Any, name: Any, value: Any, also: tuple[str, ...] = ()) -> Iterator[float]:
    """Yield the rates that an option holds: one, or a list of them; none if it is not a dropout option."""
    name, numbers = str(name).lower(), value if isinstance(value, (list, tuple)) else [value]
    known = kinds.DROPOUT_OPTIONS.search(name) or name in also or (name == "rate" and kinds.RATED_CLASSES.search(str(owner)))
    # A whole number other than 0 is a seed, an axis or a size.
    if known and all((isinstance(each, float) and 0 <= each <= 1) or (type(each) is int and each == 0) for each in numbers):
        yield from (1 - each if kinds.KEPT_OPTIONS.search(name) else float(each) for each in numbers)


def _without_options(config: Any, owner: str, also: tuple[str, ...] = ()) -> Any:
    if isinstance(config, (list, tuple)):
        return type(config)(_without_options(each, owner) for each in config)
    if not isinstance(config, Mapping):
        return config
    owner, made = config.get("class_name", owner), {}
    for name, value in config.items():
        if any(_rates(owner, name, value, also)):
            off = 1.0 if kinds.KEPT_OPTIONS.search(str(name).lower()) else 0.0
            made[name] = type(value)([off] * len(value)) if isinstance(value, (list, tuple)) else off
        else:
            made[name] = _without_options(value, owner)
    return made


def without_dropout(layer: Any) -> Any:
    """Return the layer without our wrappers and without its own dropout: the same layer if it has none."""
    layer = inner_layer(layer)
    if not isinstance(layer, keras.Layer) or (is_dropout(layer) and not _is_named_so(layer)):
        return layer
    config, owner = _config(layer), type(layer).__name__
    known = bool(_options(config, owner))
    if not known and not inside(layer):
        return layer
    for also in [()] * known + [("rate",)] * ("rate" in config):  # a layer with dropout inside may call its rate just "rate"
        bare = made_again(layer, _without_options(config, owner, also))
        if not _options(_config(bare), owner) and not inside(bare):
            return bare
    refuse(
        f"{owner} {layer.name!r} has dropout inside that cannot be taken out from outside.",
        "Give the class an option whose name has 'dropout' in it and that is in its get_config, or write it as a nested model.",
    )
