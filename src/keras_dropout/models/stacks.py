"""Stacks in a model: layers whose hidden units can be dropped and left uncomputed, up to the layer that takes them."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_dropout.errors import refuse
from keras_dropout.layers.stacks import WEIGHTED, ThinnedStack, why_not
from keras_dropout.models import graph
from keras_dropout.models.dropping import inner_layer, passes
from keras_dropout.models.graph import Call, Graph

KIND = "ThinnedStack"


def is_stack(value: Any) -> bool:
    """Return whether a value of a placement asks for a thinned stack."""
    return isinstance(value, Mapping) and value.get("kind") == KIND


def following(read: Graph, first: Call) -> list[Call] | None:
    """Return the calls from `first` to the next layer with weights, without dropout; None if they make no stack."""
    calls: list[Call] = []
    call = first
    while True:
        layer, last = inner_layer(call.layer), bool(calls) and isinstance(inner_layer(call.layer), WEIGHTED)
        if call.model is not first.model or not isinstance(layer, keras.Layer) or len(call.inputs) != 1:
            return None
        if not passes(call):
            shared = layer.weights and any(each.layer is call.layer and each is not call for each in read.calls)
            if shared or not (calls or isinstance(layer, WEIGHTED)) or why_not(layer, hidden=not last):
                return None
            calls.append(call)
        if last:
            return calls
        users = read.users.get(call.outputs[0], [])
        if len(users) != 1 or call.outputs[0] in read.outputs:
            return None
        call = users[0]


def joined(read: Graph, chosen: Mapping[str, tuple[Call, Any]]) -> list[tuple[list[str], list[Call], Any]]:
    """Return the stacks at the chosen sites, as (sites, calls, value): sites that follow each other are in one stack.

    `chosen` maps a site, where a stack fits, to the call of its layer and what is asked for there.
    """
    found: list[tuple[list[str], list[Call], Any]] = []
    for name, (call, value) in chosen.items():
        calls = following(read, call) or []
        before = next((each for each in found if each[1][-1] is call), None)
        if before is None:
            found.append(([name], calls, value))
        elif before[2] == value:
            before[0].append(name)
            before[1].extend(calls[1:])
        else:
            refuse(
                f"{before[0][-1]!r} and {name!r} follow each other and are in one {KIND}; got {before[2]!r} and {value!r}.",
                "Write the same for both, or choose one of them.",
            )
    return found


def dropout_of(model: keras.Model) -> dict[str, dict[str, Any]]:
    """Return the thinned stack that drops units of a layer, by the layer's name: {"layer", "kind", "rate"}."""
    found: dict[str, dict[str, Any]] = {}
    for path, stack in ((call.path, call.layer) for call in graph.read(model).calls if isinstance(call.layer, ThinnedStack)):
        hidden = [each.name for each in stack.layer.layers if isinstance(each, WEIGHTED)][:-1]
        prefix = path.removesuffix(stack.name)
        found |= {prefix + name: {"layer": path, "kind": KIND, "rate": stack.rate} for name in hidden}
    return found


def unstacked(model: keras.Model) -> keras.Model:
    """Return the model with the layers of each thinned stack in its place; itself if it has none. It has the same layers."""
    if not any(isinstance(each, ThinnedStack) for each in model._flatten_layers()):
        return model
    touched = [call.node for call in graph.read(model).calls if isinstance(call.layer, ThinnedStack)]

    def on_call(node: Any, layer: Any, args: tuple, kwargs: dict) -> Any:
        if not isinstance(layer, ThinnedStack):
            return layer(*args, **kwargs)
        values = graph.first_input(args, kwargs)
        for each in layer.layer.layers:
            values = each(values)
        return values

    return graph.rebuild(model, touched, on_call) if touched else model
