"""Sites, and models with dropout added there, removed, or set to another rate.

A placement describes the dropout of a model completely: applying one first removes the existing dropout.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_dropout import notation
from keras_dropout.errors import BadInput, check_rate, refuse, warn
from keras_dropout.layers import Dropout
from keras_dropout.layers.adopted import Changed, inside, is_adoptable, own_class
from keras_dropout.layers.base import LayerWrapper, Stochastic
from keras_dropout.models import graph
from keras_dropout.models.choice import chosen_sites, class_of, goes_around, layer_for, nearest, refuse_seed
from keras_dropout.models.dropping import inner_layer, is_foreign, named, passes, rated, without_dropout
from keras_dropout.models.in_place import finish, inner_sites, place_in_place, put_at, saves_layers, silence
from keras_dropout.models.randomness import drawing, outputs_of, warn_still_random
from keras_dropout.models.stacks import dropout_of, is_stack, joined, unstacked
from keras_dropout.models.survey import Place, Site, Sites, makes_mask, mask_calls, survey
from keras_dropout.schedules import Schedule

# At prediction they compute another function than the layer alone.
_ACT_AT_PREDICTION = ("Zoneout", "Standout", "SparseVariationalDropout")
_KINDS = {
    "attention": re.compile("Attention|DropKey|DropHead"),
    "drop_path": re.compile("DropPath|StochasticDepth|LayerDrop|ShakeDrop"),
    "recurrent": re.compile("RNN|LSTM|GRU|Recurrent|Zoneout|WeightDrop"),
}


@graph.leaves_unchanged
def sites(model: keras.Model) -> Sites:
    """Return the sites of a model, in the order of the data: a list that is shown as a table.

    The model may be Sequential, functional, possibly with nested models and shared layers, or a subclass of `keras.Model`. Layers
    inside others, and those of a subclass whose `call` cannot be followed, are in the group "inside": dropout is put behind them
    in place. The model does not change.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu", name="d"), keras.layers.Dense(1, name="out")])
    >>> [(site.name, site.group, site.shape) for site in sites(model)][1:]
    [('d', 'hidden', (8,)), ('out', 'output', (1,))]
    """
    try:
        stacked = dropout_of(model)
        found = [place.site for place in survey(graph.read(unstacked(model)))]
        found = [replace(site, dropout=(*site.dropout, stacked[site.name])) if site.name in stacked else site for site in found]
    except BadInput:
        if not getattr(model, "built", False) or not (inner := inner_sites(model)):
            raise
        return Sites([*inner, *drawing(model)])
    return Sites(_in_order(found, [*inner_sites(model), *drawing(model)]))


def _in_order(sites: list[Site], inner: list[Site]) -> Iterator[Site]:
    """Yield each site, then those inside its layer."""
    left = {site.name: site for site in inner}
    for site in sites:
        yield site
        yield from (left.pop(name) for name in [name for name in left if name.startswith(f"{site.name}/")])
    yield from left.values()


@graph.leaves_unchanged
def resolve(model: keras.Model, placement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the placement with each pattern replaced by the sites it names; a later pattern overrides an earlier one.

    A group, a class of layers or a glob names those of its sites where the method fits; a name names its site. Layers that cannot
    be made, or cannot follow their schedule, are refused.
    """
    model = unstacked(model)
    read = graph.read(model)
    places = survey(read)
    inner = [Place(site) for site in _inner_sites(model, placement)]
    chosen = chosen_sites([each.site for each in (*places, *inner)], placement)
    for each in (*places, *inner):
        value = chosen.get(each.site.name)
        if isinstance(value, Mapping) and "schedule" in value and "rate" not in class_of(value.get("kind")).free_rates():
            refuse(
                f"the rate of {value['kind']} cannot follow a schedule: it is learned or decides a shape.",
                "Give it a rate, for example 0.2.",
            )
        if value is not None and not (each.calls and goes_around(value)):
            layer_for(value)
    for _, calls, value in _stacks(read, places, chosen):
        layer_for(value, keras.Sequential([_without_dropout(call.layer) for call in calls]))
    return chosen


def _stacks(read: graph.Graph, places: list[Place], chosen: Mapping[str, Any]) -> list[tuple[list[str], list[graph.Call], Any]]:
    """Return the thinned stacks that a placement asks for."""
    asked = {each.site.name: each for each in places if is_stack(chosen.get(each.site.name))}
    for name, each in asked.items():
        if not each.site.fits("ThinnedStack"):
            refuse(
                f"ThinnedStack does not fit {name!r}: its units must go, each alone, into one Dense or Conv layer alone.",
                f"Put an ordinary dropout there: {{{name!r}: 0.2}}.",
            )
    found = joined(read, {name: (each.calls[0], chosen[name]) for name, each in asked.items()})
    for names, calls, _ in found:
        wrapped = [each.site.name for each in places if each.calls and each.calls[0] is calls[-1]]
        for name in wrapped:
            if name in chosen and goes_around(chosen[name]):
                refuse(
                    f"{chosen[name]['kind']} around {name!r} cannot be in the ThinnedStack of {', '.join(names)}.",
                    f"Put a dropout behind it: {{{name!r}: 0.2}}.",
                )
    return found


def place(model: keras.Model, placement: Mapping[str, Any], *, in_place: bool = False) -> keras.Model:
    """Return a new model with dropout at the sites of `placement` and nowhere else; or change the model itself.

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

    With `in_place`, nothing is copied, and the model is returned. Any built model can be changed so, also one that cannot be
    copied: it and its layers keep their classes, `train_step` and compile settings. Dropout is put behind layers at any depth (see
    `sites`); that of Keras in the model is adopted (see `adopt`) and set to 0. A new model is made in this way too, as a copy
    through a saved file, if its class has a configuration of its own, as those of KerasHub have.

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
    graph.check_model(model)
    if not in_place and _by_graph(model, placement):
        return _placed_copy(model, placement)
    new = model if in_place else graph.copy(model)
    place_in_place(new, placement)
    return new


@graph.leaves_unchanged
def _placed_copy(model: keras.Model, placement: Mapping[str, Any]) -> keras.Model:
    """Return a new model, made from the graph of a model; see `place`."""
    resolve(model, placement)  # refuses before anything is copied
    source = graph.opened(model)
    if source is not model:
        finish(source)  # the layers of a subclass that was changed in place now save their changes themselves
    if source is not model and model.compiled:
        graph.compile_like(source, model)
        graph.carry_optimizer(model.optimizer, source)
    made = graph.copy(source)
    new, placed = rewire(made, placement)
    _check_predictions(new, made)
    warn_still_random(new, placed.values())
    for kind in sorted(_acting_at_prediction(new) ^ _acting_at_prediction(made)):
        warn(f"{kind} acts at prediction too: predictions are not those of the model without it.")
    if made.compiled:
        graph.compile_like(new, made)
        graph.carry_optimizer(made.optimizer, new)
    return new


def _by_graph(model: keras.Model, placement: Mapping[str, Any]) -> bool:
    """Return whether `place` makes a new model from the graph of a model, not by changing a copy in place."""
    return not graph.is_nested(model) or saves_layers(type(model)) or any(map(goes_around, placement.values()))


def strip(model: keras.Model, *, in_place: bool = False) -> keras.Model:
    """Return a new model without dropout, or take it out in place; everything else is as in `place`."""
    return place(model, {}, in_place=in_place)


def rewire(model: keras.Model, placement: Mapping[str, Any]) -> tuple[keras.Model, dict[str, keras.Layer]]:
    """Do what `place` does without the copy, and return the new model and the layer put at each site.

    The new model has the layers of `model`, which must not be used again. It is not compiled.
    """
    model = unstacked(graph.opened(model))
    read = graph.read(model)
    inner = _inner_sites(model, placement)
    chosen = chosen_sites([*(place.site for place in survey(read)), *inner], placement)
    change = _Change(read, {name: value for name, value in chosen.items() if name not in {site.name for site in inner}})
    new = graph.rebuild(model, change.touched, change.on_call, change.on_input)
    for before, after in zip(inner, inner_sites(new) if inner else ()):  # layers that were made again may have other names
        if before.name in chosen:
            layer = layer_for(chosen[before.name], derive=before.name if len(chosen) > 1 else None)
            put_at(new, after.name, layer)
            change.placed[before.name] = layer
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

    def __init__(self, read: graph.Graph, chosen: Mapping[str, Any]):
        self.placed: dict[str, keras.Layer] = {}  # by site
        self._after: dict[int, keras.Layer] = {}  # by node
        self._after_input: dict[str, keras.Layer] = {}
        self._out = out = {id(call.node) for call in read.calls if passes(call)}
        left = {id(call.layer): call.layer for call in read.calls if id(call.node) not in out}
        bare = {number: _without_dropout(layer) for number, layer in left.items()}
        self._instead = {number: layer for number, layer in bare.items() if layer is not left[number]}  # by layer
        places = survey(read)
        for each in places:
            if each.site.name in chosen and not is_stack(chosen[each.site.name]):
                self._put(each, chosen[each.site.name], several=len(chosen) > 1)
        self._stacks: dict[int, keras.Layer] = {}  # by the last node
        found = _stacks(read, places, chosen)
        for names, calls, value in found:
            stack = keras.Sequential([self._instead.get(id(call.layer), call.layer) for call in calls])
            layer = layer_for(value, stack, derive=names[0] if len(found) > 1 else None)
            self.placed |= dict.fromkeys(names, layer)
            self._stacks[id(calls[-1].node)] = layer
            out |= {id(call.node) for call in calls[:-1]}
        # A layer that makes a padding mask gets its input before dropout, because dropped padding is no padding any more. The data
        # that it passes on are dropped behind it.
        makers = (call for call in read.calls if makes_mask(call) and id(call.node) in self._after)
        self._masks = {id(call.node) for call in (*mask_calls(read), *makers)}
        self._whole: dict[int, tuple[Any, Any]] = {}  # (dropped, original) by the id of the dropped tensor
        changed = {*out, *self._after, *self._stacks}
        self.touched = [c.node for c in read.calls if id(c.node) in changed or id(c.layer) in self._instead]

    def _put(self, place: Place, value: Any, several: bool) -> None:
        """Make the layer that a placement has for a site."""
        site = place.site
        if place.calls and goes_around(value):
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
        result = (self._stacks.get(id(node)) or self._instead.get(id(layer), layer))(*args, **kwargs)
        if id(layer) in self._instead and id(node) not in self._stacks:
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


def _without_dropout(layer: Any) -> Any:
    """Return a layer without its dropout: made again, or itself with the dropout inside adopted and off.

    A layer that was changed in place is saved with as many dropout layers as it has: without any it could not be made again.
    """
    if isinstance(layer, Changed) and silence(layer):
        return layer
    try:
        return without_dropout(layer)
    except BadInput:
        if not silence(layer):
            raise
        return layer


def _inner_sites(model: keras.Model, placement: Mapping[str, Any]) -> list[Site]:
    """Return the sites inside the layers of a model, if a pattern names none of its graph."""
    known = [place.site for place in survey(graph.read(model))]
    if all(any(site.matches(pattern) for site in known) for pattern in placement):
        return []
    return [*inner_sites(model), *drawing(model)]


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
                same = all(map(_close, outputs_of(was, False), outputs_of(call, False)))
            except Exception:  # a layer that cannot be called on these numbers
                same = True
        if not same:
            refuse(
                f"{type(call.layer).__name__} {call.path!r}, made again with its dropout off, predicts something else.",
                "Let the class scale in training and not at prediction, as keras.layers.Dropout does.",
            )


def with_ours(model: keras.Model) -> keras.Model:
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

    `rate` is for all of them; or it maps layers to rates, where a later entry wins. They are given by the name, the address or a
    glob of a dropout layer, the address of a layer around several, anything that names a site with dropout, or a group: input,
    hidden, last, all, attention, drop_path or recurrent. A recurrent_rate or cell_rate that was given to a layer stays. Keras's own
    layers are refused, because on JAX and TensorFlow they ignore a new rate: `adopt` the model first.
    """
    graph.check_model(model, "Pass the model whose rates are to be set.")
    found = rated(model)
    wanted: dict[int, float] = {}
    for pattern, value in (rate if isinstance(rate, Mapping) else {"*": rate}).items():
        chosen = rated_by(model, found, pattern)
        named = isinstance(rate, Mapping) and isinstance(pattern, str) and not chosen
        if named and (seeds := [site for site in drawing(model) if site.matches(pattern)]):
            refuse_seed(seeds[0])
        if not found:
            refuse(f"the model {model.name!r} has no dropout layer.", "Put some in: keras_dropout.place(model, {'hidden': 0.2}).")
        if not chosen:
            what = f"no dropout layer {pattern!r}" if isinstance(pattern, str) else f"{pattern!r} is no dropout layer"
            refuse(f"{what} in the model.", f"Its dropout layers: {', '.join(nearest(str(pattern), [path for path, _ in found]))}.")
        wanted |= dict.fromkeys(map(id, chosen), value)
    for path, layer in found:
        if id(layer) not in wanted:
            continue
        if not isinstance(layer, Stochastic) or "rate" not in layer.free_rates():
            owner = type(layer).__module__.partition(".")[0]
            refuse(
                f"the rate of {path!r}, a {type(layer).__name__} of {owner}, cannot be changed in place.",
                "Adopt the model first: keras_dropout.adopt(model)."
                if any(map(is_adoptable, layer._flatten_layers()))
                else "Make a new model: keras_dropout.place(model, {site: rate}); or name other layers.",
            )
        check_rate(path, wanted[id(layer)])
    for _, layer in found:
        if id(layer) in wanted:
            layer.rate = wanted[id(layer)]


def rated_by(model: keras.Model, found: list[tuple[str, keras.Layer]], pattern: Any) -> list[keras.Layer]:
    """Return those of a model's dropout layers, `found` with their addresses, that a key of `set_rate` names."""
    chosen = named(found, pattern)
    if not chosen and isinstance(pattern, str):
        chosen = _of_kind(model, found, pattern) if pattern in _KINDS else _dropout_at(model, pattern, found)
    return chosen


def _of_kind(model: keras.Model, found: list[tuple[str, keras.Layer]], kind: str) -> list[keras.Layer]:
    """Return the dropout layers of a kind: by the name of their class, or by that of the layer that holds them."""
    owners = {id(layer): own_class(owner).__name__ for _, layer, owner in inside(model)}
    names = _KINDS[kind]
    return [each for _, each in found if names.search(own_class(each).__name__) or names.search(owners.get(id(each), ""))]


@graph.leaves_unchanged
def _dropout_at(model: keras.Model, pattern: str, found: list[tuple[str, keras.Layer]]) -> list[keras.Layer]:
    """Return those of the `found` dropout layers that are at the sites that `pattern` names."""
    try:
        read = graph.read(model)
    except BadInput:  # the layers of a model that cannot be read still have names
        return []
    at = {d["layer"] for place in survey(read) if place.site.matches(pattern) for d in place.site.dropout}
    return [layer for path, layer in found if any(path == each or path.startswith(f"{each}/") for each in at)]


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
