"""Describe the network of a study as plain values: its layers, the dropout of each variant, and the masks drawn in training.

A mask is a pure function of seed, layer and step (see `keras_dropout.masks`), so the masks of any step are known without training.
"""

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dropout import masks
from keras_dropout.bench.records import Study, Variant
from keras_dropout.bench.training.build import make, reseed
from keras_dropout.errors import BadInput, check_whole
from keras_dropout.layers.base import LayerWrapper, Stochastic
from keras_dropout.models import graph
from keras_dropout.models.dropping import dropout_options, inner_layer, is_dropout
from keras_dropout.schedules import Schedule
from keras_dropout.thinning import is_mask, mask_shape

LARGEST = 2**12  # entries of the largest mask that is kept
_ALTOGETHER = 2**14  # entries of all masks of one step, so that the report of any model stays small
_WORDS = masks.Words(constant=np.uint32, shift_right=lambda x, n: x >> np.uint32(n))


def portrait(study: Study, steps: int = 12) -> dict[str, Any] | None:
    """Return the study's network; None for a model whose layers cannot be traced.

        {"nodes": [{"name", "kind", "shape", "units", "parameters", "inputs"}],
         "variants": {variant: [{"site", "kind", "rate", "schedule", "node", "mask"}]},
         "steps": {variant: {"seed", "epoch_steps", "steps": [{"step", "rates", "masks"}]}}}

    Nodes are the inputs and the layer calls of the model without dropout, in the order of computation, with nested models opened.
    `shape` has no batch axis and is None on an axis without a fixed size. `units` is the product of `shape`. `inputs` are numbers
    of nodes.
    Dropout of a variant has the number of the `node` whose output it drops (or, for methods around a layer, whose computation), and
    the shape of one example's `mask`, with 1 on an axis that shares the mask. `mask` is None for methods that draw differently, and
    for masks with more than `LARGEST` entries.
    `steps` has only variants with dropout. For the first seed it lists some of the first training steps and some later steps up to
    the last, each with its rates and the masks of the batch's first example. A mask is the bits of the kept entries, row by row,
    packed, in hexadecimal digits; None if the dropout has no mask.
    """
    check_whole("steps", steps, 1, "It is the number of training steps of which masks are kept, for example 12.")
    state = random.getstate()  # making layers draws from it, and the user's program may use it too
    try:
        return _portrait(study, steps, by_name=True) or _portrait(study, steps, by_name=False)
    except BadInput:
        return None
    finally:
        random.setstate(state)


@dataclass
class _Nodes:
    """The nodes of all variants, which differ only in dropout.

    A node is identified by the layer's name and inputs; or, if each new model has new names, by its order.
    """

    by_name: bool
    found: list[dict[str, Any]] = field(default_factory=list)
    _numbers: dict[tuple, int] = field(default_factory=dict)

    def number(self, order: int, name: str, kind: str, shape: tuple, layer: Any, inputs: list[int]) -> int:
        """Return the number of a node; an unknown node gets a new number."""
        key = (name, kind, *inputs) if self.by_name else (order, kind, *inputs)
        if key not in self._numbers:
            self._numbers[key] = len(self.found)
            facts = {"name": name, "kind": kind, "shape": list(shape), "units": None if None in shape else math.prod(shape)}
            parameters = layer.count_params() if isinstance(layer, keras.Layer) and layer.built else 0
            self.found.append(facts | {"parameters": parameters, "inputs": inputs})
        return self._numbers[key]

    def site(self, number: int, variant: Variant) -> str:
        """Return the site at a node; its name may be that of an earlier layer, for example for an activation behind that layer."""
        node = first = self.found[number]
        while node["name"] not in (variant.placement or {}) and len(node["inputs"]) == 1:
            node = self.found[node["inputs"][0]]
        return node["name"] if node["name"] in (variant.placement or {}) else first["name"]


@dataclass(frozen=True)
class _Dropout:
    """Dropout at a node: call number `place` of the `calls` of its layer in a training step; `mask` is the shape of its mask."""

    site: str
    kind: str
    rate: float | None
    node: int
    layer: Any
    schedule: Schedule | None
    mask: tuple | None = None
    place: int = 0
    calls: int = 1

    def document(self) -> dict[str, Any]:
        schedule = None if self.schedule is None else str(self.schedule)
        facts = {"site": self.site, "kind": self.kind, "rate": self.rate, "schedule": schedule, "node": self.node}
        return facts | {"mask": None if self.mask is None else list(self.mask)}

    def kept(self, steps: np.ndarray, rates: np.ndarray) -> np.ndarray:
        """Return the kept entries of the first example in these training steps, counted from 1: booleans (steps, entries)."""
        assert self.mask is not None
        # Each call in training advances the stream of a layer by one.
        calls = (steps - 1) * self.calls + self.place
        words = ops.convert_to_numpy(self.layer.stream.state).astype("uint32")[:2]
        state = [*(np.full((1, 1), word, "uint32") for word in words), calls.astype("uint32")[:, None]]
        # The first example has the first positions for any batch size.
        positions = np.arange(math.prod(self.mask), dtype="uint32")
        draws = masks.draws(positions, masks.call_key(state, _WORDS), _WORDS)
        return draws >= np.round(rates.astype("float32") * np.float32(masks.LEVELS)).astype("uint32")[:, None]


def _portrait(study: Study, steps: int, by_name: bool) -> dict[str, Any] | None:
    """Return the network; None if the variants have different nodes."""
    nodes, variants, drawn = _Nodes(by_name), {}, {}
    for variant in study.variants:
        known = len(nodes.found)
        dropouts = _dropouts(study, variant, nodes)
        if known and len(nodes.found) > known:
            return None
        variants[variant.name] = [each.document() for each in dropouts]
        if dropouts:
            drawn[variant.name] = _steps(study, dropouts, steps)
    return {"nodes": nodes.found, "variants": variants, "steps": drawn}


def _dropouts(study: Study, variant: Variant, nodes: _Nodes) -> list[_Dropout]:
    """Return the dropout of a variant's model in the order of computation, and add the model's nodes to `nodes`."""
    model, schedules = make(study, variant)
    reseed(model, study.seeds[0])
    read = graph.read(model)
    node_of, order = {}, iter(range(10**9))  # by tensor
    for name, tensor, shape, _ in read.inputs:
        node_of[tensor] = nodes.number(next(order), name, "Input", shape, None, [])
    # If a class overrides training, the number of calls of its layers is unknown.
    known = all(getattr(type(model), name) is getattr(keras.Model, name) for name in ("train_step", "compute_loss"))
    calls = Counter(id(call.layer) for call in read.calls)
    before: Counter[int] = Counter()
    found: list[_Dropout] = []
    room = _ALTOGETHER
    for call in read.calls:
        inputs, layer = [node_of[tensor] for tensor in call.inputs], call.layer
        if is_dropout(layer):
            node_of.update(dict.fromkeys(call.outputs, inputs[0]))
            # Dropout of whole tokens leaves fewer tokens than the node has.
            mask = _mask(call) if known and list(call.shape) == nodes.found[inputs[0]]["shape"] else None
            if mask is not None and math.prod(mask) > min(LARGEST, room):
                mask = None
            room -= 0 if mask is None else math.prod(mask)
            inner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
            facts = type(inner).__name__, _rate(inner), inputs[0], layer, schedules.get(layer)
            found.append(_Dropout(nodes.site(inputs[0], variant), *facts, mask, before[id(layer)], calls[id(layer)]))
            before[id(layer)] += 1
            continue
        inner = inner_layer(layer)
        name = call.path.removesuffix(layer.name) + inner.name
        number = nodes.number(next(order), name, type(inner).__name__, call.shape, inner, inputs)
        node_of.update(dict.fromkeys(call.outputs, number))
        found += [_Dropout(name, kind, rate, number, own, schedules.get(own)) for own, kind, rate in _own(layer)]
    if not graph.is_nested(model) and any(len(node["inputs"]) > 1 for node in nodes.found):
        # A subclass may call a shared layer in a different order than its graph.
        found = [each if each.calls == 1 else replace(each, mask=None) for each in found]
    return found


def _mask(call: graph.Call) -> tuple | None:
    """Return the shape of one example's mask if the layer multiplies by a mask of fixed size, else None."""
    if not is_mask(call.layer) or None in call.shape:
        return None
    first, *shape = mask_shape(call.layer, call.shape, call.path)
    return tuple(shape) if first == 1 else None


def _own(layer: Any) -> Iterator[tuple[Any, str, float | None]]:
    """Yield (layer, kind, rate) of the dropout around a layer, in the layer, or in its options."""
    while isinstance(layer, LayerWrapper):
        yield layer, type(layer).__name__, _rate(layer)
        layer = layer.layer
    if isinstance(layer, Stochastic):
        yield layer, type(layer).__name__, _rate(layer)
    if isinstance(layer, keras.Layer):
        yield from ((layer, f"{owner}({option})", rate) for owner, option, rate in dropout_options(layer))


def _rate(layer: Any) -> float | None:
    rate = getattr(layer, "rate", None)
    return float(rate) if isinstance(rate, (int, float)) else None


def _steps(study: Study, dropouts: list[_Dropout], count: int) -> dict[str, Any]:
    """Return rates and masks at some training steps."""
    of_epoch = -(-study.data.train // study.batch_size)
    total = study.epochs * of_epoch
    first = np.arange(1, min(total, -(-count // 3)) + 1)
    later = np.linspace(len(first), total, count - len(first) + 1)[1:]
    steps = np.unique([*first, *np.round(later).astype(int)])
    done, within = np.divmod(steps - 1, of_epoch)
    progress = (done + within / of_epoch) / study.epochs  # as the engines compute it
    rates = [None if each.rate is None else np.full(len(steps), each.rate) for each in dropouts]
    rates = [each.schedule(progress) if each.schedule else rate for each, rate in zip(dropouts, rates)]
    kept = [None if each.mask is None or rate is None else each.kept(steps, rate) for each, rate in zip(dropouts, rates)]
    rows = [
        {
            "step": int(step),
            "rates": [None if rate is None else round(float(rate[row]), 6) for rate in rates],
            "masks": [None if bits is None else np.packbits(bits[row]).tobytes().hex() for bits in kept],
        }
        for row, step in enumerate(steps)
    ]
    return {"seed": study.seeds[0], "epoch_steps": of_epoch, "steps": rows}
