"""Dropout put in, set free or taken out in place: nothing is copied, and the model and its layers keep their classes.

See `layers.adopted` for how a layer is changed, and saved with its changes.
"""

import gc
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from keras.src.backend import compute_output_spec  # it has no public name
from keras.src.models.functional import Functional  # nor has this

from keras_dropout.errors import BadInput, described, first_line, refuse, warn
from keras_dropout.layers.adopted import (
    Changed,
    become_ours,
    behind,
    changed,
    dropout_in,
    inside,
    is_adoptable,
    is_adopted,
    own_class,
    put_behind,
    take_away,
)
from keras_dropout.layers.base import Stochastic
from keras_dropout.models import fitting, graph
from keras_dropout.models.choice import chosen_sites, goes_around, layer_for
from keras_dropout.models.dropping import is_dropout, is_known, rate_of, rated
from keras_dropout.models.graph import is_nested
from keras_dropout.models.randomness import drawing, warn_still_random
from keras_dropout.models.survey import Place, Site, is_site, survey

_COMPILED = ("train_function", "test_function", "predict_function", "generate_function")
_LENGTHS = 8, 1024  # of an axis whose length a model leaves open, when it is traced; strided convolutions of sound need many steps


def adopt(model: keras.Model) -> list[str]:
    """Replace Keras's dropout layers in a model by ours, in place and at any depth, and return their addresses.

    The model keeps its weights, its class and its compile settings, and predicts the same bit for bit. Afterwards the rate of each
    of these layers can be changed without compiling again: see `set_rate`. Its masks are new ones. The cells of recurrent layers
    with dropout get rates that can be changed too; an option that was 0 when the cell was made stays off.

    An address is the names of the layers from the model down to the dropout, as in "encoder/attention/dropout". The dropout layer
    in an attention layer of Keras that was made without dropout is never called, and left out.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dropout(0.5, name="drop")])
    >>> adopt(model)
    ['drop']
    """
    graph.check_model(model)
    found = _adopt(model)
    if found:
        finish_owners(model)
    return found


def _adopt(layer: keras.Layer) -> list[str]:
    found = [(address, each) for address, each in dropout_in(layer) if is_adoptable(each)]
    for _, each in found:
        become_ours(each)
    if found:
        finish(layer)
    return [address for address, _ in found]


def silence(layer: keras.Layer) -> bool:
    """Adopt the dropout in a layer and set its rates to 0. Return whether nothing in the layer drops any more."""
    _adopt(layer)
    for _, each in rated(layer):
        for name in each.free_rates() & vars(each.state).keys() if isinstance(each, Stochastic) else ():
            setattr(each, name, 0.0)
    return not any(rate_of(each) for _, each in rated(layer))


def place_in_place(model: keras.Model, placement: Mapping[str, Any]) -> None:
    """Do what `place` does in the model itself. Nothing changes if the placement is refused."""
    read, inner = _read(model), [*inner_sites(model), *drawing(model)]
    places = survey(read) if read else []
    addresses = {address: layer for address, layer, _ in inside(model)}
    chosen = chosen_sites([*(each.site for each in places), *inner], placement)
    by_name = {each.site.name: each for each in places}
    put: list[tuple[keras.Layer, keras.Layer]] = []
    for name, value in chosen.items():
        if goes_around(value):
            refuse(
                f"{value['kind']} goes around the layer {name!r}; in place, dropout can only be put behind a layer.",
                "Leave in_place out: the copy has it around the layer. Or put a method that goes behind, such as Dropout.",
            )
        try:
            ends = _ends(read, by_name[name]) if read and name in by_name else [addresses[name]]
        except BadInput as error:
            if name in placement:
                raise
            warn(f"{name!r} is passed over: {first_line(error)}")  # a group names the sites where dropout can be put
            continue
        for number, end in enumerate(ends):
            derive = f"{name}/{number}" if number else name
            put.append((end, layer_for(value, derive=derive if len(chosen) * len(ends) > 1 else None)))
    if chosen and not put:
        refuse(f"in place, dropout can be put at none of the sites {', '.join(chosen)}.", "Leave in_place out, or name layers.")
    for path, layer in rated(model):
        if isinstance(layer, Stochastic) and "rate" not in layer.free_rates() and rate_of(layer) != 0:
            refuse(
                f"the rate of {path!r}, a {type(layer).__name__}, cannot be set to 0: it is learned or decides a shape.",
                "Leave in_place out: the copy is made without it.",
            )
    for layer in addresses.values():
        take_away(layer)
    silence(model)
    with graph.unchanged(model):
        warn_still_random(model)
    for layer, dropout in put:
        put_behind(layer, dropout)
    finish(model)
    finish_owners(model)


def put_at(model: keras.Model, address: str, dropout: keras.Layer) -> None:
    """Put dropout behind the layer at an address inside a model."""
    put_behind({name: layer for name, layer, _ in inside(model)}[address], dropout)
    finish(model)


def _read(model: keras.Model) -> graph.Graph | None:
    """Return a model's graph; None if it has none, or one that cannot be followed."""
    try:
        return graph.read(model)
    except BadInput:
        return None


def _ends(read: graph.Graph, place: Place) -> list[keras.Layer]:
    """Return the layers behind which the dropout of a place goes."""
    name = place.site.name
    if place.behind_input or not place.behind:
        refuse(
            f"{name!r} is an input, or prepares one: in place, dropout can only be put behind a layer.",
            "Leave in_place out, or name the first layer.",
        )
    ends = list({id(call.layer): call.layer for call in place.behind}.values())
    nodes = {id(call.node) for call in place.behind}
    for call in read.calls:
        if any(call.layer is end for end in ends) and id(call.node) not in nodes:
            refuse(
                f"{call.path!r} is behind {name!r} and elsewhere too: dropout behind it would drop in both places.",
                f"Leave in_place out, or make a layer of its own for {name!r}.",
            )
    return ends


def calls_in(model: keras.Model) -> dict[int, list[tuple[tuple, str]]]:
    """Return what the layers of a model return in a training step, by the id of the layer: (shape without the batch, dtype) a call.

    The step is traced, not computed. Of several outputs, it is the first. If a functional model cannot be traced as a whole, a
    warning says that nothing is known of the layers inside its layers.
    """
    seen: dict[int, list[tuple[tuple, str]]] = {}

    def watched(layer: keras.Layer) -> Callable:
        call = layer.call

        def watching(*args: Any, **options: Any) -> Any:
            outputs = call(*args, **options)
            first = next((each for each in keras.tree.flatten(outputs) if hasattr(each, "shape")), None)
            if first is not None:
                found = tuple(first.shape)[1:], keras.backend.standardize_dtype(first.dtype)
                seen.setdefault(id(layer), []).append(found)
            return outputs

        return watching

    watching = [(layer, watched(layer)) for layer in model._flatten_layers() if layer is not model]
    failed = ""
    for training, length in itertools.product((True, False), _LENGTHS):  # a model that cannot be trained can still predict
        seen.clear()
        inputs = keras.tree.map_structure(
            lambda each, size=length: keras.KerasTensor((2, *(n or size for n in each.shape[1:])), each.dtype),
            graph.inputs_of(model),
        )
        try:
            with graph.unchanged(model), graph.called_as(watching), keras.StatelessScope():
                compute_output_spec(lambda x, on=training: model(x, training=on), inputs)
            return seen
        except Exception as error:  # the layers' code may raise anything
            failed = failed or described(error)
    called = f"{type(model).__name__} {model.name!r}"
    if not is_nested(model):
        refuse(f"{called} cannot be called on its inputs: {failed}", "Call it on a batch of data first.")
    warn(f"the layers inside the layers of {called} are not listed: it cannot be traced with all open lengths equal: {failed}")
    seen.clear()
    return seen


def inner_sites(model: keras.Model) -> list[Site]:
    """Return the layers with weights inside a model's layers, but not inside Keras's own: sites for dropout in place."""
    try:
        known = {id(call.layer) for call in graph.read(model).calls}
    except BadInput:
        known = set()
    found = [(address, layer) for address, layer, owner in inside(model) if id(layer) not in known and is_site(layer)]
    keras_own = {address for address, layer, _ in inside(model) if is_known(own_class(layer).__module__) and not is_nested(layer)}
    found = [each for each in found if not any(each[0].startswith(f"{address}/") for address in keras_own)]
    found = [(address, layer) for address, layer in found if not isinstance(layer, keras.Model) and not is_dropout(layer)]
    calls = calls_in(model) if found else {}
    return [_inner_site(address, layer, *calls[id(layer)][0]) for address, layer in found if id(layer) in calls]


def _inner_site(address: str, layer: keras.Layer, shape: tuple, dtype: str) -> Site:
    own = [
        *((f"{address}/{each}", drop) for each, drop in dropout_in(layer)),
        *([(f"{address}/{put.name}", put)] if (put := behind(layer)) else []),
    ]
    there = tuple({"layer": name, "kind": type(drop).__name__, "rate": rate_of(drop)} for name, drop in own)
    fits = dict.fromkeys(fitting.on_values(shape, dtype), fitting.always)
    count = layer.count_params() if layer.built else 0
    return Site(address, own_class(layer).__name__, "inside", False, shape, dtype, count, (), there, fits)


def finish(model: keras.Model) -> None:
    """Make the layers that hold changed dropout save it, and compiled functions be compiled again."""
    for holder in _holders(model):
        holder.__class__ = changed(type(holder))
    for layer in model._flatten_layers():
        vars(layer).update({name: None for name in _COMPILED if vars(layer).get(name) is not None})


def finish_owners(model: keras.Model) -> None:
    """Do what `finish` does for each layer that holds a model, at any depth: a GAN whose discriminator was changed, for example.

    It would make the model again as it was when it is loaded. Keras keeps no link from a layer to the one that holds it, so that
    Python's garbage collector is asked for all layers.
    """
    kinds = set(_kinds_of(keras.Layer))
    layers: list[Any] = [each for each in gc.get_objects() if type(each) in kinds and hasattr(each, "_layers")]
    held: set[int] = {id(model)}
    owners: list[keras.Layer] = [model]
    while owners:
        owners = [
            each
            for each in layers
            if id(each) not in held and any(id(one) in held for one in each._flatten_layers(include_self=False, recursive=False))
        ]
        for owner in owners:
            held.add(id(owner))
            finish(owner)


def _kinds_of(cls: Any) -> Iterator[Any]:
    yield cls
    for below in cls.__subclasses__():
        yield from _kinds_of(below)


def _holders(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yield the outermost layers that hold dropout of ours and would be saved without it."""
    if not any(is_adopted(each) for _, each in dropout_in(layer)) and not any(behind(each) for _, each, _ in inside(layer)):
        return
    if saves_layers(type(layer)):
        for each in layer._flatten_layers(include_self=False, recursive=False):
            yield from _holders(each)
    elif not isinstance(layer, Changed):
        yield layer


def saves_layers(cls: Any) -> bool:
    """Return whether a class saves the layers in it one by one: Keras's Sequential and functional models do."""
    return any(issubclass(cls, kind) and cls.get_config is kind.get_config for kind in (keras.Sequential, Functional))
