"""Keras's dropout layers as ours, in place: nothing is copied, and the layers around them keep their classes.

A dropout layer becomes ours by its class. A layer that makes its dropout itself would make Keras's again when it is loaded from a
file, so its class becomes a subclass, a `Changed`, which saves what was adopted in it.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import keras
from keras import ops
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell  # it has no public name

from keras_dropout import noise
from keras_dropout.errors import refuse
from keras_dropout.layers import units
from keras_dropout.layers.base import Rate, Stochastic
from keras_dropout.layers.regions import SpatialDropout1D, SpatialDropout2D, SpatialDropout3D

__all__: list[str] = []

_BEHIND = "dropout_behind"

# Each of Keras's dropout layers has a twin of ours with the same name and the same options.
TWINS: Mapping[type[keras.Layer], type[keras.Layer]] = {
    getattr(keras.layers, twin.__name__): twin
    for twin in (
        units.Dropout,
        units.GaussianDropout,
        units.AlphaDropout,
        SpatialDropout1D,
        SpatialDropout2D,
        SpatialDropout3D,
    )
}


def inside(holder: keras.Layer, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, keras.Layer, keras.Layer]]:
    """Yield (address, layer, the layer that holds it) for each layer below a layer, at any depth, each once.

    An address is the names of the layers from the outermost down, as in "encoder/attention/dropout".
    """
    seen = set() if seen is None else seen
    for layer in holder._flatten_layers(include_self=False, recursive=False):
        if id(layer) not in seen:
            seen.add(id(layer))
            yield prefix + layer.name, layer, holder
            yield from inside(layer, f"{prefix}{layer.name}/", seen)


def dropout_in(holder: keras.Layer) -> Iterator[tuple[str, keras.Layer]]:
    """Yield (address, layer) for each dropout layer and recurrent cell with dropout below a layer, Keras's or adopted.

    What `put_behind` put there is left out, and so is what is never called: the dropout layer in an attention layer of Keras that
    was made without dropout.
    """
    for address, layer, owner in inside(holder):
        called = getattr(owner, "_dropout", None) != 0
        found = is_adopted(layer) or (is_adoptable(layer) and called)
        if found and getattr(owner, _BEHIND, None) is not layer:
            yield address, layer


def is_adoptable(layer: keras.Layer) -> bool:
    """Return whether a layer is Keras's dropout, or a recurrent cell of Keras with dropout."""
    cell = isinstance(layer, DropoutRNNCell) and not isinstance(layer, AdoptedCell)
    return type(layer) in TWINS or (cell and bool(layer.dropout or layer.recurrent_dropout))


def is_adopted(layer: keras.Layer) -> bool:
    """Return whether a layer can be what `become_ours` makes."""
    return isinstance(layer, (AdoptedCell, *TWINS.values()))


def become_ours(layer: keras.Layer, config: Mapping[str, Any] | None = None) -> None:
    """Make an adoptable layer one of ours, with the same settings or those of a config. Its masks are new ones."""
    if isinstance(layer, DropoutRNNCell):
        kind: Any = type(layer)
        settings = config or {"rate": layer.dropout, "recurrent_rate": layer.recurrent_dropout, "seed": layer.seed}
        layer.__class__ = _cell(kind)
        layer.start(settings["seed"], rate=settings["rate"], recurrent_rate=settings["recurrent_rate"])
        return
    ours = TWINS[type(layer)].from_config(dict(config or layer.get_config()))
    theirs = vars(layer)
    if "seed_generator" in theirs:
        layer._tracker.unlock()
        layer._tracker.untrack(theirs.pop("seed_generator"))
        layer._tracker.lock()
    theirs.pop("rate")
    theirs.update({name: vars(ours)[name] for name in ("seed", *(vars(ours).keys() - theirs.keys()))})
    layer.__class__ = type(ours)


class AdoptedCell(Stochastic):
    """A mixin for a recurrent cell of Keras: its dropout at rates that can be changed.

    `dropout` and `recurrent_dropout` stay as they were: by them the cell decides whether it asks for masks.
    """

    rate = Rate()
    recurrent_rate = Rate()

    def get_dropout_mask(self, step_input: Any) -> Any:
        """Return the mask of the inputs, or one for each gate, the same at all steps."""
        if getattr(self, "_dropout_mask", None) is None and self.dropout:
            self._dropout_mask = self._masks(step_input, self.state.rate)
        return getattr(self, "_dropout_mask", None)

    def get_recurrent_dropout_mask(self, step_input: Any) -> Any:
        """Return the mask of the hidden state, or one for each gate, the same at all steps."""
        if getattr(self, "_recurrent_dropout_mask", None) is None and self.recurrent_dropout:
            self._recurrent_dropout_mask = self._masks(step_input, self.state.recurrent_rate)
        return getattr(self, "_recurrent_dropout_mask", None)

    def _masks(self, like: Any, rate: Any) -> Any:
        count, shape = getattr(self, "dropout_mask_count", None), tuple(ops.shape(like))
        drawn = [noise.bernoulli_product(ops.ones_like(like), self.stream.next(), rate, shape) for _ in range(count or 1)]
        return drawn if count else drawn[0]


@functools.cache
def _cell(cls: Any) -> Any:
    """Return the subclass of a recurrent cell's class whose rates can be changed."""
    return type(cls.__name__, (AdoptedCell, cls), {"__module__": __name__, "__doc__": cls.__doc__})


def put_behind(layer: keras.Layer, dropout: keras.Layer) -> None:
    """Make a layer drop its own output: of several the first, the others are states or attention scores."""
    layer.__class__ = changed(type(layer))
    _set_behind(layer, dropout)


def take_away(layer: keras.Layer) -> None:
    """Take away what `put_behind` has put behind a layer."""
    _set_behind(layer, None)


def behind(layer: keras.Layer) -> keras.Layer | None:
    """Return the dropout that `put_behind` has put behind a layer."""
    return getattr(layer, _BEHIND, None) if isinstance(layer, Changed) else None


def _set_behind(layer: keras.Layer, dropout: keras.Layer | None) -> None:
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        if (old := getattr(layer, _BEHIND, None)) is not None:
            delattr(layer, _BEHIND)
            layer._tracker.untrack(old)  # Keras keeps it among the layers
        if dropout is not None:
            setattr(layer, _BEHIND, dropout)
    finally:
        if locked:
            layer._tracker.lock()


@keras.saving.register_keras_serializable("keras_dropout")
class Changed:
    """A mixin for a layer in or behind which dropout was changed in place: it is saved with these changes.

    `from_config` makes the layer as its own class does, and changes it again as soon as the layers in it are made.
    """

    def get_config(self) -> dict[str, Any]:
        put = [(number, layer, behind(layer)) for number, layer in enumerate(_made_by_class(self))]
        return {
            "layer": self._own_document(),
            "adopted": [layer.get_config() if is_adopted(layer) else None for _, layer in dropout_in(self)],
            "behind": [
                {"number": number, "of": own_class(layer).__name__, "dropout": keras.saving.serialize_keras_object(dropout)}
                for number, layer, dropout in put
                if dropout is not None
            ],
        }

    def _own_document(self) -> dict[str, Any]:
        """Return what Keras saves of the layer as its own class makes it."""
        ours: Any = type(self)
        self.__class__ = ours.__bases__[1]
        try:
            found = keras.saving.serialize_keras_object(self)
        finally:
            self.__class__ = ours
        found.pop("compile_config", None)  # it is saved beside this config
        return found

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> keras.Layer:
        layer = keras.saving.deserialize_keras_object(config["layer"], custom_objects=custom_objects)
        _change_when_made(layer, config)
        return layer


def _change_when_made(layer: keras.Layer, config: Mapping[str, Any]) -> None:
    """Make the saved changes in a layer as soon as all layers in it are made: now, when it is built, or when it is first called."""
    if _is_made(layer, config):
        _change_again(layer, config)
        return
    build, call = layer.build, layer.call

    @functools.wraps(build)
    def built(*args: Any, **options: Any) -> None:
        build(*args, **options)
        if _is_made(layer, config):
            finish()

    @functools.wraps(call)
    def called(*args: Any, **options: Any) -> Any:
        outputs = call(*args, **options)
        if not _is_made(layer, config):
            refuse(
                f"{type(layer).__name__} {layer.name!r} now makes other layers than those that it was saved with.",
                "Load the file with the version of the class that it was saved with.",
            )
        if not isinstance(layer, Changed):
            finish()
        return outputs

    def finish() -> None:
        vars(layer)["build"] = build
        del vars(layer)["call"]
        _change_again(layer, config)

    vars(layer).update(build=built, call=called)


def _made_by_class(layer: keras.Layer) -> list[keras.Layer]:
    """Return a layer and those below it, without what `put_behind` put there. Names that Keras makes up change, places do not."""
    return [layer, *(each for _, each, owner in inside(layer) if behind(owner) is not each)]


def _is_made(layer: keras.Layer, config: Mapping[str, Any]) -> bool:
    """Return whether a layer has as many dropout layers as were adopted in it, and the layers that had dropout behind them."""
    there = [own_class(each).__name__ for each in _made_by_class(layer)]
    behind_all = all(there[saved["number"] : saved["number"] + 1] == [saved["of"]] for saved in config["behind"])
    return behind_all and sum(1 for _ in dropout_in(layer)) == len(config["adopted"])


def _change_again(layer: keras.Layer, config: Mapping[str, Any]) -> None:
    """Make the saved changes in a layer."""
    there = _made_by_class(layer)
    for (_, each), settings in zip(dropout_in(layer), config["adopted"]):
        if settings is not None and is_adoptable(each):  # None: it was not adopted
            become_ours(each, settings)
    for saved in config["behind"]:
        put_behind(there[saved["number"]], keras.saving.deserialize_keras_object(saved["dropout"]))
    layer.__class__ = changed(type(layer))


@functools.cache
def _subclass(cls: Any) -> Any:
    @functools.wraps(cls.call)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        return _dropped(self, cls.call(self, *args, **options))

    methods: dict[str, Any] = {"call": call}
    if hasattr(cls, "quantized_call"):

        @functools.wraps(cls.quantized_call)
        def quantized_call(self: Any, *args: Any, **options: Any) -> Any:
            return _dropped(self, cls.quantized_call(self, *args, **options))

        methods["quantized_call"] = quantized_call
    made = type(cls.__name__, (Changed, cls), {"__module__": __name__, "__doc__": cls.__doc__, **methods})
    return keras.saving.register_keras_serializable("keras_dropout", "Changed")(made)  # whose from_config it has


def changed(cls: Any) -> Any:
    """Return the subclass of a layer's class that saves what is changed in place."""
    return cls if issubclass(cls, Changed) else _subclass(cls)


def own_class(layer: Any) -> Any:
    """Return the class that a layer had before it was changed in place; of anything else, its class."""
    return type(layer).__bases__[1] if isinstance(layer, Changed) else type(layer)


def _dropped(layer: Any, outputs: Any) -> Any:
    """Return the outputs of a layer with the first dropped, if there is dropout behind it."""
    dropout = getattr(layer, _BEHIND, None)
    if dropout is None:
        return outputs
    first, *others = keras.tree.flatten(outputs)
    return keras.tree.pack_sequence_as(outputs, [dropout(first), *others])
