"""Sites, and models with dropout put there or taken away.

Works on Sequential and functional models without nested models. A placement describes a model completely: putting one in
first takes out the dropout that is there.
"""

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_dropout.errors import check_rate, refuse
from keras_dropout.layers import Dropout, PatchDropout
from keras_dropout.layers.base import MaskLayer

GROUPS = ("input", "hidden", "last", "all")
_FOREIGN = (
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.AlphaDropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
# A site is behind these: dropping what goes into an activation or a normalisation is another method.
_PART_OF_LAYER = (
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.PReLU,
    keras.layers.Softmax,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)


@dataclass(frozen=True)
class Site:
    """A place where dropout is or can be put: an input, or the output of a layer with weights, behind its activation.

    `group` is "input", "hidden" or "output"; `last` marks the hidden sites that feed an output layer; `shape` is without
    the batch.
    """

    name: str
    group: str
    last: bool
    shape: tuple

    def matches(self, pattern: str) -> bool:
        """Whether `pattern` names this site: a group, a layer's name or a glob. Outputs are only meant by name."""
        if pattern in GROUPS:
            hidden = self.group == "hidden"
            return {"input": self.group == "input", "hidden": hidden, "last": self.last, "all": hidden or self.group == "input"}[
                pattern
            ]
        return pattern == self.name or (self.group != "output" and fnmatch.fnmatchcase(self.name, pattern))


def is_dropout(layer: Any) -> bool:
    """Whether `layer` is a dropout layer, ours or one of Keras's."""
    return isinstance(layer, (MaskLayer, PatchDropout, *_FOREIGN))


def sites(model: keras.Model) -> list[Site]:
    """The sites of a Sequential or functional model, in the order of the data."""
    return [site for site, _ in _walk(model)]


def resolve(model: keras.Model, placement: Mapping[str, Any]) -> dict[str, Any]:
    """The placement with each pattern replaced by the sites it names; a later pattern wins over an earlier one."""
    return _resolve(sites(model), placement)


def _resolve(known: list[Site], placement: Mapping[str, Any]) -> dict[str, Any]:
    resolved: dict[str, Any] = {}
    for pattern, value in placement.items():
        named = [site.name for site in known if site.matches(pattern)]
        if not named:
            refuse(
                f"unknown site {pattern!r}: the model has no such site.",
                f"Use one of the groups {', '.join(GROUPS)}, a glob, or a layer: {', '.join(site.name for site in known)}.",
            )
        resolved.update(dict.fromkeys(named, value))
    return {site.name: resolved[site.name] for site in known if site.name in resolved}


def place(model: keras.Model, placement: Mapping[str, Any]) -> keras.Model:
    """A new model with dropout at the sites of `placement` and nowhere else.

    `placement` maps a site (a name, a glob, or the group input, hidden, last or all) to a rate or a dropout layer; a layer
    named for several sites is copied for each. The new model shares its layers, hence its weights, with `model`, and is
    not compiled.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> [type(layer).__name__ for layer in place(model, {"hidden": 0.2}).layers]
    ['InputLayer', 'Dense', 'Dropout', 'Dense']
    """
    walked = _walk(model)
    chosen = {name: _new_layer(value) for name, value in _resolve([site for site, _ in walked], placement).items()}
    calls = {site.name: call for site, call in walked}
    after_call = {calls[name]: layer for name, layer in chosen.items() if isinstance(calls[name], int)}
    counter = iter(range(10**9))

    def on_call(layer, *args, **kwargs):
        number = next(counter)
        out = args[0] if is_dropout(layer) else layer(*args, **kwargs)
        return after_call[number](out) if number in after_call else out

    return _rebuild(model, on_call, {name: layer for name, layer in chosen.items() if not isinstance(calls[name], int)})


def strip(model: keras.Model) -> keras.Model:
    """A new model without dropout layers. It shares its other layers with `model`, and is not compiled."""
    return place(model, {})


def adopt(model: keras.Model) -> keras.Model:
    """A new model in which each `keras.layers.Dropout` is replaced by ours, shared layers staying shared."""
    ours: dict[int, Dropout] = {}

    def on_call(layer, *args, **kwargs):
        if type(layer) is keras.layers.Dropout:
            layer = ours.setdefault(id(layer), Dropout(layer.rate, noise_shape=layer.noise_shape, name=layer.name))
        return layer(*args, **kwargs)

    return _rebuild(model, on_call, {})


def _new_layer(value: Any) -> keras.Layer:
    if isinstance(value, keras.Layer):
        return type(value).from_config({k: v for k, v in value.get_config().items() if k != "name"})
    return Dropout(check_rate("placement", value))


def _functional(model: keras.Model) -> keras.Model:
    if not isinstance(model, keras.Model):
        refuse(f"expected a Keras model; got {type(model).__name__}.", "Pass a built Sequential or functional model.")
    if isinstance(model, keras.Sequential):
        if not model.built:
            refuse(f"the model {model.name!r} is not built.", "Start it with keras.Input(shape).")
        return keras.Model(model.inputs[0], model.outputs[0])
    if type(model) is not keras.Model and type(model).__name__ != "Functional":
        refuse(
            f"{type(model).__name__} is a subclassed model: what its call does cannot be seen from outside.",
            "Write it as a Sequential or functional model.",
        )
    return model


def _rebuild(model: keras.Model, on_call: Callable, after_input: Mapping[str, keras.Layer]) -> keras.Model:
    """The model's graph run again through `on_call(layer, *args, **kwargs)`, with the same layers."""
    model = _functional(model)
    fresh = keras.tree.map_structure(lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name), model.input)
    replaced = {id(t): after_input[t.name](t) for t in keras.tree.flatten(fresh) if t.name in after_input}

    def call(layer, *args, **kwargs):
        if isinstance(layer, keras.Model):
            refuse(f"the model holds another model, {layer.name!r}.", "Call its layers directly in one flat model.")
        return on_call(layer, *keras.tree.map_structure(lambda t: replaced.get(id(t), t), args), **kwargs)

    return keras.models.clone_model(model, input_tensors=fresh, clone_function=lambda layer: layer, call_function=call)


def _walk(model: keras.Model) -> list[tuple[Site, int | str]]:
    """Each site with the number of the call behind which it is (for an input: its name)."""
    calls: list[tuple[keras.Layer, list[int], Any]] = []

    def record(layer, *args, **kwargs):
        out = args[0] if is_dropout(layer) else layer(*args, **kwargs)
        tensors = [id(t) for t in keras.tree.flatten((args, kwargs)) if isinstance(t, keras.KerasTensor)]
        calls.append((layer, tensors, out))
        return out

    rebuilt = _rebuild(model, record, {})
    users: dict[int, list[int]] = {}
    for number, (layer, tensors, _) in enumerate(calls):
        for tensor in tensors if not is_dropout(layer) else ():
            users.setdefault(tensor, []).append(number)

    def behind(number: int) -> int:
        """The last of the activations and normalisations that only `number`'s output goes through."""
        after = users.get(id(calls[number][2]), [])
        if len(after) == 1 and isinstance(calls[after[0]][0], _PART_OF_LAYER):
            return behind(after[0])
        return number

    def next_weights(number: int) -> set[int]:
        """The next calls with weights on every way from call `number` to an output."""
        found: set[int] = set()
        for user in users.get(id(calls[number][2]), []):
            found |= {user} if user in weighted else next_weights(user)
        return found

    weighted = [n for n, (layer, _, _) in enumerate(calls) if layer.weights and not isinstance(layer, _PART_OF_LAYER)]
    outputs = {n for n in weighted if not next_weights(n)}
    found: list[tuple[Site, int | str]] = [(Site(t.name, "input", False, tuple(t.shape[1:])), t.name) for t in rebuilt.inputs]
    names = {site.name for site, _ in found}
    for number in weighted:
        layer, _, out = calls[number]
        if layer.name not in names and isinstance(out, keras.KerasTensor):  # a shared layer's first call is its site
            names.add(layer.name)
            group = "output" if number in outputs else "hidden"
            last = group == "hidden" and bool(next_weights(number) & outputs)
            found.append((Site(layer.name, group, last, tuple(out.shape[1:])), behind(number)))
    return found
