"""Sites, and models with dropout added there, removed, or set to another rate.

A placement describes the dropout of a model completely: applying one first removes the existing dropout.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dropout import layers, notation
from keras_dropout.errors import BadInput, check_rate, first_line, refuse, warn
from keras_dropout.examples import LAYERS
from keras_dropout.layers import Dropout
from keras_dropout.layers.base import LayerWrapper, Stochastic
from keras_dropout.masks import derive_seed
from keras_dropout.models import graph
from keras_dropout.models.dropping import has_option, inner_layer, is_dropout, is_foreign, named, passes, rated, without_dropout
from keras_dropout.models.survey import GROUPS, Place, Site, Sites, makes_mask, mask_calls, survey
from keras_dropout.schedules import Schedule

# Entries of a spec that the layer's constructor does not take.
_NO_OPTIONS = ("kind", "schedule", "over_depth")
# At prediction they compute another function than the layer alone.
_ACT_AT_PREDICTION = ("Zoneout", "Standout", "SparseVariationalDropout")


@graph.leaves_unchanged
def sites(model: keras.Model) -> Sites:
    """Return the sites of a model, in the order of the data: a list that is shown as a table.

    The model must be Sequential or functional, possibly with nested models and shared layers, or a subclass of `keras.Model` whose
    `call` can be followed; others are refused. The model does not change.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu", name="d"), keras.layers.Dense(1, name="out")])
    >>> [(site.name, site.group, site.shape) for site in sites(model)][1:]
    [('d', 'hidden', (8,)), ('out', 'output', (1,))]
    """
    return Sites(place.site for place in survey(graph.read(model)))


@graph.leaves_unchanged
def resolve(model: keras.Model, placement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the placement with each pattern replaced by the sites it names; a later pattern overrides an earlier one.

    A group, a class of layers or a glob names those of its sites where the method fits; a name names its site. Layers that cannot
    be made, or cannot follow their schedule, are refused.
    """
    places = survey(graph.read(model))
    chosen = _resolve([each.site for each in places], placement)
    for each in places:
        value = chosen.get(each.site.name)
        if isinstance(value, Mapping) and "schedule" in value and "rate" not in _class(value.get("kind")).free_rates():
            refuse(
                f"the rate of {value['kind']} cannot follow a schedule: it is learned or decides a shape.",
                "Give it a rate, for example 0.2.",
            )
        if value is not None and not (each.calls and _goes_around(value)):
            layer_for(value)
    return chosen


@graph.leaves_unchanged
def place(model: keras.Model, placement: Mapping[str, Any]) -> keras.Model:
    """Return a new model with dropout at the sites of `placement` and nowhere else.

    `placement` maps a site (its name, a glob, a class of layers, or the group input, hidden, last or all) to a rate, a dropout
    layer, or a method as "Kind(rate, option=…)" or {"kind": "Kind", "rate": …}. A method that wraps a layer is put around the layer
    at the site. A layer for several sites is copied for each, with a seed derived from its own. If a layer has several outputs,
    the first is dropped, not states or attention scores. Existing dropout is removed, also that of recurrent and attention layers.
    A schedule is refused, because it needs a training to follow.

    The new model shares nothing with `model`. Predictions are the same bit for bit; a warning names the few methods that also act
    at prediction. Without its dropout, an attention layer of Keras may compute with fused attention: its predictions then
    differ in the last digits, by 1e-7 to 1e-6. Weights, what is frozen, compile settings and the optimizer's state are kept.

    A layer of an unknown class that still draws at random stays; a warning names it. If something changes in a nested model whose
    class has its own constructor, it becomes a `keras.Model` with the same layers; a warning says so.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> [type(layer).__name__ for layer in place(model, {"hidden": 0.2}).layers]
    ['Dense', 'Dropout', 'Dense']
    """
    placement = {site: notation.parse(value) if isinstance(value, str) else value for site, value in placement.items()}
    for site, value in placement.items():
        if isinstance(value, Schedule) or (isinstance(value, Mapping) and not {"schedule", "over_depth"}.isdisjoint(value)):
            refuse(
                f"site {site!r}: a rate that changes over training or depth belongs to a training, not to a model.",
                "Place a rate, and train with keras_dropout.RateScheduler; or use keras_dropout.compare.",
            )
    resolve(model, placement)  # refuses before anything is copied
    source = graph.opened(model)
    if source is not model and model.compiled:
        graph.compile_like(source, model)
        graph.carry_optimizer(model.optimizer, source)
    made = graph.copy(source)
    new, placed = rewire(made, placement)
    _check_predictions(new, made)
    for path, layer in still_random(new):
        if layer in placed.values():
            continue
        if not is_foreign(layer):
            warn(f"{type(layer).__name__} {path!r} stays: it adds noise in training, and is no dropout.")
            continue
        warn(
            f"{type(layer).__name__} {path!r} still draws at random in training: it has no option that is known as dropout. "
            "Where that is dropout, give the class an option drop_rate in its get_config that turns it off at 0."
        )
    for kind in sorted(_acting_at_prediction(new) ^ _acting_at_prediction(made)):
        warn(f"{kind} acts at prediction too: predictions are not those of the model without it.")
    if made.compiled:
        graph.compile_like(new, made)
        graph.carry_optimizer(made.optimizer, new)
    return new


def strip(model: keras.Model) -> keras.Model:
    """Return a new model without dropout; everything else is as in `place`."""
    return place(model, {})


def rewire(model: keras.Model, placement: Mapping[str, Any]) -> tuple[keras.Model, dict[str, keras.Layer]]:
    """Do what `place` does without the copy, and return the new model and the layer put at each site.

    The new model has the layers of `model`, which must not be used again. It is not compiled.
    """
    model = graph.opened(model)
    change = _Change(graph.read(model), placement)
    new = graph.rebuild(model, change.touched, change.on_call, change.on_input)
    there = {id(layer) for layer in new._flatten_layers()}
    for site, layer in change.placed.items():
        if id(layer) not in there:
            refuse(
                f"{type(layer).__name__} could not be put at the site {site!r}: the new model does not have it.",
                "Write the model as a Sequential or functional model.",
            )
    return new, change.placed


class _Change:
    """The changes of a placement: calls that are left out, layers that replace others, and dropout behind calls and inputs."""

    def __init__(self, read: graph.Graph, placement: Mapping[str, Any]):
        self.placed: dict[str, keras.Layer] = {}  # by site
        self._after: dict[int, keras.Layer] = {}  # by node
        self._after_input: dict[str, keras.Layer] = {}
        self._out = out = {id(call.node) for call in read.calls if passes(call)}
        left = {id(call.layer): call.layer for call in read.calls if id(call.node) not in out}
        bare = {number: without_dropout(layer) for number, layer in left.items()}
        self._instead = {number: layer for number, layer in bare.items() if layer is not left[number]}  # by layer
        places = survey(read)
        chosen = _resolve([each.site for each in places], placement)
        for each in places:
            if each.site.name in chosen:
                self._put(each, chosen[each.site.name], several=len(chosen) > 1)
        # A layer that makes a padding mask gets its input before dropout, because dropped padding is no padding any more. The data
        # that it passes on are dropped behind it.
        makers = (call for call in read.calls if makes_mask(call) and id(call.node) in self._after)
        self._masks = {id(call.node) for call in (*mask_calls(read), *makers)}
        self._whole: dict[int, tuple[Any, Any]] = {}  # (dropped, original) by the id of the dropped tensor
        changed = {*out, *self._after}
        self.touched = [c.node for c in read.calls if id(c.node) in changed or id(c.layer) in self._instead]

    def _put(self, place: Place, value: Any, several: bool) -> None:
        """Make the layer that a placement has for a site."""
        site = place.site
        if place.calls and _goes_around(value):
            if site.group == "hidden" and place.output:
                refuse(
                    f"{site.name!r} is called for an output too: a {value['kind']} around it would be around both calls.",
                    f"Put a dropout behind it: {{{site.name!r}: 0.2}} is behind its other calls only.",
                )
            old = place.calls[0].layer
            self.placed[site.name] = self._instead[id(old)] = layer_for(value, self._instead.get(id(old), old))
            return
        if place.unused:
            refuse(
                f"nothing uses the output of {site.name!r}, at most its states: dropout behind it would drop nothing.",
                "Name another site, or a method that goes around the layer, such as RecurrentDropout.",
            )
        self.placed[site.name] = layer = layer_for(value, derive=site.name if several else None)
        self._after |= {id(call.node): layer for call in place.behind}
        if place.behind_input:
            self._after_input[site.name] = layer

    def on_call(self, node: Any, layer: Any, args: tuple, kwargs: dict) -> Any:
        if id(node) in self._out:
            return graph.first_input(args, kwargs)
        if id(node) in self._masks:
            args, kwargs = keras.tree.map_structure(lambda tensor: self._whole.get(id(tensor), (None, tensor))[1], (args, kwargs))
        result = self._instead.get(id(layer), layer)(*args, **kwargs)
        if id(layer) in self._instead:
            _take_over(inner_layer(self._instead[id(layer)]), inner_layer(layer))
        if id(node) not in self._after:
            return result
        output, *others = keras.tree.flatten(result)  # the site is the first output: others are states, or attention scores
        return keras.tree.pack_sequence_as(result, [self._drop(self._after[id(node)], output), *others])

    def on_input(self, tensor: Any) -> Any:
        name = graph.input_name(tensor)
        return self._drop(self._after_input[name], tensor) if name in self._after_input else tensor

    def _drop(self, layer: keras.Layer, tensor: Any) -> Any:
        dropped = layer(tensor)
        self._whole[id(dropped)] = dropped, tensor
        return dropped


def still_random(model: keras.Model) -> list[tuple[str, keras.Layer]]:
    """Return (path, layer) for each layer that draws at random in training but is no known dropout.

    It tests layers that are neither Keras's nor ours, and Keras's noise: each is called twice in training on the same numbers.
    Layers that augment the input are left out.
    """
    found: dict[int, tuple[str, keras.Layer]] = {}
    for call in graph.read(model).calls:
        if not isinstance(call.layer, keras.Layer) or id(call.layer) in found or passes(call):
            continue
        noisy = any(type(each) is keras.layers.GaussianNoise for each in call.layer._flatten_layers())
        if (noisy or is_foreign(call.layer)) and _differs(call):
            found[id(call.layer)] = call.path, call.layer
    return list(found.values())


def _differs(call: graph.Call) -> bool:
    """Return whether a layer gives another output, or moves a seed, when called twice in training on the same numbers."""
    seeds = [seed.state for each in call.layer._flatten_layers() for seed in getattr(each, "_seed_generators", ())]
    try:
        with keras.StatelessScope() as scope:
            one, two = _outputs(call, True), _outputs(call, True)
        # With few numbers two draws may be equal, so a moved seed counts; but a layer that can be turned off may draw to no effect.
        moved = any(scope.get_current_value(seed) is not None for seed in seeds) and not has_option(call.layer)
        return moved or graph.differ(one, two)
    except Exception:  # a layer that cannot be called on these numbers
        return bool(seeds) and not has_option(call.layer)


def _outputs(call: graph.Call, training: bool) -> list[np.ndarray]:
    """Return the outputs of a call for random numbers, always the same ones."""
    draw = np.random.default_rng(0).random
    given = {id(t): ops.cast(draw([n or 2 for n in t.shape]).astype("float32"), t.dtype) for t in call.node.input_tensors}
    args, options = call.node.arguments.fill_in(given)
    if call.layer._call_has_training_arg:
        options = {**options, "training": training}
    return [ops.convert_to_numpy(each) for each in keras.tree.flatten(call.layer(*args, **options))]


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two outputs differ by rounding at most: without its dropout, attention is computed in another way."""
    rounding = 5e-3 if str(one.dtype) in ("float16", "bfloat16") else 1e-5
    one, other = one.astype("float64"), other.astype("float64")
    largest = np.abs(one[np.isfinite(one)]).max(initial=0)
    return np.allclose(one, other, rtol=10 * rounding, atol=rounding * largest, equal_nan=True)


def _check_predictions(new: keras.Model, old: keras.Model) -> None:
    """Refuse a user's layer that, made again without its dropout, predicts something else."""
    before = {call.path: call for call in graph.read(old).calls}
    for call in graph.read(new).calls:
        was = before.get(call.path, call)
        if was.layer is call.layer or type(was.layer) is not type(call.layer) or not is_foreign(call.layer):
            continue
        with keras.StatelessScope():
            try:
                same = all(map(_close, _outputs(was, False), _outputs(call, False)))
            except Exception:  # a layer that cannot be called on these numbers
                same = True
        if not same:
            refuse(
                f"{type(call.layer).__name__} {call.path!r}, made again with its dropout off, predicts something else.",
                "Let the class scale in training and not at prediction, as keras.layers.Dropout does.",
            )


def adopt(model: keras.Model) -> keras.Model:
    """Return a new model in which ours replaces each `keras.layers.Dropout`; shared layers stay shared."""
    ours: dict[int, Dropout] = {}
    model = graph.opened(model)
    touched = [call.node for call in graph.read(model).calls if type(call.layer) is keras.layers.Dropout]

    def on_call(node: Any, layer: Any, args: tuple, kwargs: dict) -> Any:
        if type(layer) is keras.layers.Dropout:
            layer = ours.setdefault(id(layer), Dropout(layer.rate, noise_shape=layer.noise_shape, name=layer.name))
        return layer(*args, **kwargs)

    return graph.rebuild(model, touched, on_call)


def set_rate(model: keras.Model, rate: float | Mapping[str, float]) -> None:
    """Set the rates of the model's dropout layers, in place and without compiling anything again.

    `rate` is for all of them; or it maps layers to rates, where a later entry wins. A layer is given by the name or a glob of a
    dropout layer, or by anything that names a site with dropout. A recurrent_rate or cell_rate that was given to a layer stays.
    Keras's own layers are refused: on JAX and TensorFlow they ignore a new rate.
    """
    graph.check_model(model, "Pass the model whose rates are to be set.")
    found = rated(model)
    if not found:
        refuse(f"the model {model.name!r} has no dropout layer.", "Put some in: keras_dropout.place(model, {'hidden': 0.2}).")
    wanted: dict[int, float] = {}
    for pattern, value in (rate if isinstance(rate, Mapping) else {"*": rate}).items():
        chosen = named(found, pattern) or (_dropout_at(model, pattern, found) if isinstance(pattern, str) else [])
        if not chosen:
            what = f"no dropout layer {pattern!r}" if isinstance(pattern, str) else f"{pattern!r} is no dropout layer"
            refuse(f"{what} in the model.", f"Its dropout layers: {', '.join(path for path, _ in found)}.")
        wanted |= dict.fromkeys(map(id, chosen), value)
    for path, layer in found:
        if id(layer) not in wanted:
            continue
        if not isinstance(layer, Stochastic) or "rate" not in layer.free_rates():
            owner = type(layer).__module__.partition(".")[0]
            refuse(f"the rate of {path!r}, a {type(layer).__name__} of {owner}, cannot be changed in place.", _way_out(model))
        check_rate(path, wanted[id(layer)])
    for _, layer in found:
        if id(layer) in wanted:
            layer.rate = wanted[id(layer)]


@graph.leaves_unchanged
def _way_out(model: keras.Model) -> str:
    """Say how to change a rate that cannot be changed in place."""
    try:
        for call in graph.read(model).calls:
            if isinstance(call.layer, keras.Layer):
                graph.made_again(without_dropout(call.layer))
    except BadInput:
        return "Write keras_dropout.Dropout where the code has keras.layers.Dropout: its rate can be set."
    return "Make a new model: keras_dropout.place(model, {site: rate})."


def layer_for(value: Any, around: keras.Layer | None = None, derive: str | None = None) -> keras.Layer:
    """Return the layer that a value of a placement asks for, put around a layer if the method does that.

    `derive` names the site if there are several: each site then gets another seed.
    """
    if isinstance(value, keras.Layer):
        cls = type(value)
        if isinstance(value, LayerWrapper):
            refuse(
                f"{cls.__name__} goes around a layer; as a value of a placement it has one already.",
                f'Write {{"kind": "{cls.__name__}", "rate": …}}: it is put around the layer at the site.',
            )
        if not is_dropout(value) and cls.__module__.startswith("keras."):  # a class of the user's own may drop
            refuse(f"{cls.__name__} is no dropout layer.", "Put a layer that drops there, for example Dropout(0.2).")
        graph.made_again(value)  # refuses a layer that cannot be copied
        options = {k: v for k, v in value.get_config().items() if k != "name"}
    elif isinstance(value, Mapping):
        cls, options = _class(value.get("kind")), {name: v for name, v in value.items() if name not in _NO_OPTIONS}
    else:
        cls, options = Dropout, {"rate": check_rate("placement", value)}
    if derive is not None and options.get("seed") is not None:
        options["seed"] = derive_seed(options["seed"], derive)
    try:
        if around is not None:
            return cls(layer=around, **options)
        return cls.from_config(options) if isinstance(value, keras.Layer) else cls(**options)
    except BadInput:
        raise
    except (TypeError, ValueError) as error:
        name, why = cls.__name__, first_line(error)
        refuse(f"{name} cannot be made from {options}: {why}", f"See help(keras_dropout.{name}).")


def _class(kind: Any) -> type[Stochastic]:
    known = {name: getattr(layers, name) for name in LAYERS if isinstance(getattr(layers, name), type)}
    if kind not in known:
        refuse(f"no dropout layer {kind!r} that can be put at a site.", f"Use one of: {', '.join(sorted(known))}.")
    return known[kind]


def _method(value: Any) -> str:
    """Return the name of the method that a value of a placement asks for."""
    if isinstance(value, Mapping):
        return str(value.get("kind"))
    return type(value).__name__ if isinstance(value, keras.Layer) else "Dropout"


def _goes_around(value: Any) -> bool:
    return isinstance(value, Mapping) and issubclass(_class(value.get("kind")), keras.layers.Wrapper)


def _resolve(known: list[Site], placement: Mapping[str, Any]) -> dict[str, Any]:
    resolved: dict[str, Any] = {}
    for pattern, value in placement.items():
        named = [site for site in known if site.matches(pattern)]
        names = ", ".join(site.name for site in known)
        if not named:
            refuse(
                f"unknown site {pattern!r}: the model has no such site.",
                f"Use one of the groups {', '.join(GROUPS)}, a class of layers, a glob, or a site: {names}.",
            )
        method, exact = _method(value), [site for site in named if site.name == pattern]
        if exact or not isinstance(getattr(layers, method, None), type):
            chosen = exact or named
        elif not (chosen := [site for site in named if site.fits(method)]):
            fitting = [site.name for site in known if site.fits(method)]
            here = f"At {named[0].name} fit: {', '.join(named[0].methods) or 'none'}."
            refuse(f"{method} fits no site of {pattern!r}.", f"It fits {', '.join(fitting)}." if fitting else here)
        resolved.update(dict.fromkeys((site.name for site in chosen), value))
    return {site.name: resolved[site.name] for site in known if site.name in resolved}


@graph.leaves_unchanged
def _dropout_at(model: keras.Model, pattern: str, found: list[tuple[str, keras.Layer]]) -> list[keras.Layer]:
    """Return those of the `found` dropout layers that are at the sites that `pattern` names."""
    try:
        read = graph.read(model)
    except BadInput:  # the layers of a model that cannot be read still have names
        return []
    at = {d["layer"] for place in survey(read) if place.site.matches(pattern) for d in place.site.dropout}
    inside = {id(layer) for call in read.calls if call.path in at for layer in call.layer._flatten_layers()}
    return [layer for _, layer in found if id(layer) in inside]


def _acting_at_prediction(model: keras.Model) -> set[str]:
    wrappers = [layer for layer in model._flatten_layers() if isinstance(layer, LayerWrapper)]
    return {
        type(layer).__name__
        for layer in wrappers
        if type(layer).__name__ in _ACT_AT_PREDICTION or getattr(layer, "inference", "mean") != "mean"
    }


def _take_over(new: keras.Layer, old: keras.Layer) -> None:
    """Give a layer that was made again the old one's weights and their paths, by which the optimizer's state is found."""
    if new is not old:
        if [tuple(w.shape) for w in new.weights] != [tuple(w.shape) for w in old.weights]:
            refuse(
                f"{type(old).__name__} {old.name!r}, made again with its dropout off, has other weights.",
                "Let the class make the same weights whatever its dropout.",
            )
        new.set_weights(old.get_weights())
        graph.freeze(new, graph.trainable(old))
        for ours, theirs in zip(new.weights, old.weights):
            ours._path = theirs.path
