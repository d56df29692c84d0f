"""Where dropout is in a model and where it could go: its sites, and what fits there."""

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
from rich.console import Group
from rich.table import Table
from rich.text import Text

from keras_dropout import layers
from keras_dropout.display import Shown
from keras_dropout.errors import BadInput, refuse
from keras_dropout.graph import Call, Graph
from keras_dropout.layers import PatchDropout
from keras_dropout.layers.base import LayerWrapper, MaskLayer

GROUPS = ("input", "hidden", "last", "all")
_FOREIGN = (
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.AlphaDropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
# Layers of other libraries, and of keras.applications, that are known by name: they pass on what they get except in training.
_FOREIGN_NAMES = ("DropPath", "StochasticDepth", "DropBlock1D", "DropBlock2D", "DropBlock3D")
_NORMALISATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
    keras.layers.UnitNormalization,
)
# A site is behind these: dropping what goes into an activation or a normalisation is another method.
_PART_OF_LAYER = (
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.PReLU,
    keras.layers.Softmax,
    *_NORMALISATIONS,
)


@dataclass(frozen=True)
class Site:
    """A place where dropout is or can be put: an input, behind what prepares it, or a layer with weights, behind its activation.

    `name` has the names of nested models before it ("encoder/dense"); `kind` is the layer's class; `group` is "input", "hidden",
    "output", or "normalisation" for one that follows no layer with weights; `last` marks the hidden sites that feed an output
    layer; `shape` is without the batch; `behind` the activations and normalisations that the dropout stands behind; `dropout`
    what there is: {"layer", "kind", "rate"}; `methods` the methods of the catalogue that fit.
    """

    name: str
    kind: str
    group: str
    last: bool
    shape: tuple
    dtype: str
    parameters: int
    behind: tuple[str, ...]
    dropout: tuple[Mapping[str, Any], ...]
    methods: tuple[str, ...]

    def matches(self, pattern: str) -> bool:
        """Whether `pattern` names this site: a group, a class of layers, a name or a glob.

        Outputs and normalisations are only meant by name or, normalisations, by class.
        """
        if pattern in GROUPS:
            return {
                "input": self.group == "input",
                "hidden": self.group == "hidden",
                "last": self.last,
                "all": self.group in ("input", "hidden"),
            }[pattern]
        if pattern == self.name:
            return True
        if self.group == "normalisation":
            return pattern == self.kind
        return self.group != "output" and (pattern == self.kind or fnmatch.fnmatchcase(self.name, pattern))

    def document(self) -> dict[str, Any]:
        """The site as plain values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


class Sites(Shown, list[Site]):
    """The sites of a model: a list that is shown as a table."""

    def __rich__(self) -> Group:
        """A tree, what is in a nested model set in below its name; then which methods fit where."""
        table = Table()
        for name in ("site", "layer", "group", "shape", "parameters", "dropout", "fits"):
            table.add_column(name, justify="right" if name == "parameters" else "left", overflow="fold")
        fits = {methods: number for number, methods in enumerate(dict.fromkeys(site.methods for site in self), 1)}
        above: list[str] = []
        for site in self:
            *models, name = site.name.split("/")
            for depth, model in enumerate(models):
                if above[: depth + 1] != models[: depth + 1]:
                    table.add_row(Text(f"{'  ' * depth}{model}/", style="bold"))
            above = models
            dropout = ", ".join(d["kind"] + ("" if d["rate"] is None else f" {d['rate']:g}") for d in site.dropout)
            group = "hidden, last" if site.last else site.group
            shape = " x ".join("?" if size is None else str(size) for size in site.shape)
            cells = (f"{'  ' * len(models)}{name}", site.kind, group, shape, f"{site.parameters:,}", dropout)
            table.add_row(*map(Text, cells), str(fits[site.methods]))
        return Group(table, *(Text(f"fits {number}: {', '.join(methods) or 'none'}") for methods, number in fits.items()))


@dataclass(frozen=True)
class Place:
    """A site with the calls that it is made of: those of its layer, and those behind which dropout is put; none for an input."""

    site: Site
    calls: tuple[Call, ...] = field(default=())
    behind: tuple[Call, ...] = field(default=())


def is_dropout(layer: Any) -> bool:
    """Whether `layer` is a dropout layer, ours, one of Keras's or one with a known name."""
    if isinstance(layer, keras.layers.TimeDistributed):
        return is_dropout(layer.layer)
    if isinstance(layer, keras.Layer) and type(layer).__name__ in _FOREIGN_NAMES and not layer.weights:
        return True
    return isinstance(layer, (MaskLayer, PatchDropout, *_FOREIGN))


def survey(read: Graph) -> list[Place]:
    """The sites of a graph with their calls, in the order of the data."""
    # The graph as it is without its dropout layers: their outputs are what goes into them.
    same: dict[int, int] = {}
    for call in read.calls:
        if is_dropout(call.layer):
            same[call.outputs[0]] = same.get(call.inputs[0], call.inputs[0])
    calls = [call for call in read.calls if not is_dropout(call.layer)]
    inputs = {call: tuple(same.get(tensor, tensor) for tensor in call.inputs) for call in calls}
    users: dict[int, list[Call]] = {}
    for call in calls:
        for tensor in dict.fromkeys(inputs[call]):
            users.setdefault(tensor, []).append(call)

    def after(tensors: Iterable[int]) -> list[Call]:
        return [user for tensor in tensors for user in users.get(tensor, ())]

    def chain(tensors: tuple[int, ...], belongs: Any, model: keras.Model | None) -> list[Call]:
        """The calls one behind the other that only this output goes through, as long as they belong to it."""
        following = after(tensors)
        if len(following) == 1 and belongs(following[0].layer) and (model is None or following[0].model is model):
            return [following[0], *chain(following[0].outputs, belongs, following[0].model)]
        return []

    def next_weights(tensors: Iterable[int]) -> set[Call]:
        """The next calls with weights on every way to an output."""
        found: set[Call] = set()
        for user in after(tensors):
            found |= {user} if user in weighted else next_weights(user.outputs)
        return found

    def dropped(tensor: int) -> Iterable[dict[str, Any]]:
        """What drops a tensor, in dropout layers directly behind it or behind layers without weights."""
        for user in read.users.get(tensor, ()):
            if is_dropout(user.layer):
                rate = getattr(getattr(user.layer, "layer", user.layer), "rate", None)
                yield {"layer": user.path, "kind": type(user.layer).__name__, "rate": rate}
            if user not in weighted:
                for output in user.outputs:
                    yield from dropped(output)

    weighted = {call for call in calls if _is_site(call.layer)}
    next_of = {call: next_weights(call.outputs) for call in weighted}
    outputs = {call for call in weighted if not next_of[call]}
    by_layer: dict[int, list[Call]] = {}
    for call in calls:
        by_layer.setdefault(id(call.layer), []).append(call)

    def of_layer(first: Call, group: str) -> Place:
        own = tuple(by_layer[id(first.layer)])  # a shared layer has several calls
        chains = [chain(call.outputs, lambda layer: isinstance(layer, _PART_OF_LAYER), call.model) for call in own]
        behind = tuple(c[-1] if c else call for call, c in zip(own, chains))
        found = [*_own_dropout(first), *(d for call in own for d in dropped(call.outputs[0]))]
        last = group == "hidden" and any(next_of[call] & outputs for call in own)
        inner = inner_layer(first.layer)
        name = first.path.removesuffix(first.layer.name) + inner.name
        merged = after(behind[0].outputs)
        site = Site(
            name,
            type(inner).__name__,
            group,
            last,
            behind[0].shape,
            behind[0].dtype,
            inner.count_params() if inner.built else 0,
            tuple(call.path for call in chains[0]),
            _unique(found),
            _fitting(inner, first, behind[0], merged),
        )
        return Place(site, own, behind)

    found = []
    for name, tensor, shape, dtype in read.inputs:
        prepared = chain((tensor,), _prepares, None)
        end = prepared[-1] if prepared else None
        shape, dtype = (end.shape, end.dtype) if end else (shape, dtype)
        methods = _fitting_input(shape, dtype, after(end.outputs if end else (tensor,)))
        behind = tuple(call.path for call in prepared)
        site = Site(name, "Input", "input", False, shape, dtype, 0, behind, _unique(dropped(tensor)), methods)
        found.append(Place(site, (), (end,) if end else ()))
    seen: set[int] = set()
    absorbed: set[int] = set()
    for call in calls:
        normalises = isinstance(call.layer, _NORMALISATIONS) and call.layer.weights and id(call.layer) not in absorbed
        if id(call.layer) in seen or not (call in weighted or normalises):
            continue
        seen.add(id(call.layer))
        group = "normalisation" if normalises else "output" if call in outputs else "hidden"
        if normalises:
            next_of[call] = set()
        found.append(of_layer(call, group))
        absorbed |= {id(each.layer) for each in chain(call.outputs, lambda layer: isinstance(layer, _PART_OF_LAYER), call.model)}
    return found


def _is_site(layer: Any) -> bool:
    return bool(getattr(layer, "weights", ())) and not isinstance(layer, _PART_OF_LAYER) and not _prepares(layer)


def _prepares(layer: Any) -> bool:
    """Whether a layer is one of Keras's for preprocessing and augmentation."""
    return ".preprocessing." in type(layer).__module__


def _unique(found: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    return tuple({(each["layer"], each["kind"]): each for each in found}.values())


def inner_layer(layer: Any) -> Any:
    """The layer that our wrappers are around."""
    return inner_layer(layer.layer) if isinstance(layer, LayerWrapper) else layer


def _own_dropout(call: Call) -> list[dict[str, Any]]:
    """The dropout that a layer has as an option of its own, or that is around it."""
    layer, found = call.layer, []
    while isinstance(layer, LayerWrapper):
        found.append({"layer": call.path, "kind": type(layer).__name__, "rate": getattr(layer, "rate", None)})
        layer = layer.layer
    if isinstance(layer, keras.Layer) and not isinstance(layer, keras.Model):
        for owner, option, rate in dropout_options(layer):
            found.append({"layer": call.path, "kind": f"{owner}({option})", "rate": rate})
    return found


def dropout_options(layer: keras.Layer) -> list[tuple[str, str, float]]:
    """(class, option, rate) for each dropout above 0 that a layer, or one that is in its config, has as an option."""
    return _options(_config(layer), type(layer).__name__)


def _config(layer: keras.Layer) -> dict[str, Any]:
    try:
        return layer.get_config()
    except Exception:  # whatever a class of the user's does
        return {}


def _options(config: Any, owner: str) -> list[tuple[str, str, float]]:
    """(class, option, rate) for each option of a layer's config that is dropout."""
    if isinstance(config, (list, tuple)):
        return [found for each in config for found in _options(each, owner)]
    if not isinstance(config, Mapping):
        return []
    owner = config.get("class_name", owner)
    found = [(owner, k, float(v)) for k, v in config.items() if _is_rate(k, v)]
    return found + [f for v in config.values() for f in _options(v, owner)]


def _is_rate(name: Any, value: Any) -> bool:
    return "dropout" in str(name) and isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _without_options(config: Any) -> Any:
    if isinstance(config, (list, tuple)):
        return type(config)(_without_options(each) for each in config)
    if isinstance(config, Mapping):
        return {k: 0.0 if _is_rate(k, v) else _without_options(v) for k, v in config.items()}
    return config


def without_dropout(layer: Any) -> Any:
    """The layer without our wrappers and without dropout of its own: the same one where it has none."""
    layer = inner_layer(layer)
    if not isinstance(layer, keras.Layer) or is_dropout(layer):
        return layer
    hidden = [inner for inner in layer._flatten_layers(include_self=False) if is_dropout(inner) and getattr(inner, "rate", 1) > 0]
    config = _config(layer)
    if not hidden and not _options(config, ""):
        return layer
    bare = layer
    if _options(config, ""):
        bare = type(layer).from_config(_without_options(config))
    if bare is layer or any(is_dropout(i) and getattr(i, "rate", 1) > 0 for i in bare._flatten_layers(include_self=False)):
        refuse(
            f"{type(layer).__name__} {layer.name!r} has dropout inside that cannot be taken out from outside.",
            "Give the class an option whose name has 'dropout' in it and that is in its get_config, or write it as a nested model.",
        )
    return bare


_BY_RANK = {
    2: ("SpatialDropout1D", "LockedDropout", "TokenDropout", "DropBlock1D"),
    3: ("SpatialDropout2D", "DropBlock2D"),
    4: ("SpatialDropout3D", "DropBlock3D"),
}
_ON_PATHS = ("StochasticDepth", "DropPath", "ScheduledDropPath", "ShakeDrop")
_AROUND = {
    "kernel": (
        "DropConnect",
        "ConcreteDropout",
        "VariationalDropout",
        "SparseVariationalDropout",
        "Standout",
        "TargetedDropout",
        "LoRADropout",
    ),
    "recurrent": ("VariationalRNNDropout", "RecurrentDropout", "WeightDrop", "Zoneout"),
    "embedding": ("EmbeddingDropout",),
    "attention": ("AttentionDropout", "DropKey", "DropHead"),
}


def _fitting_input(shape: tuple, dtype: str, users: list[Call]) -> tuple[str, ...]:
    if "int" in dtype and any(isinstance(inner_layer(user.layer), keras.layers.Embedding) for user in users):
        return ("WordDropout",)
    if "float" not in dtype:
        return ()
    images = ("Cutout", "RandomErasing") if len(shape) == 3 else ()
    return ("Dropout", "GaussianDropout", *_BY_RANK.get(len(shape), ()), *images)


def _fitting(layer: Any, call: Call, behind: Call, users: list[Call]) -> tuple[str, ...]:
    """The methods that fit a layer's site: by the shape, by what the output goes into, and by what they can be put around."""
    found: list[str] = []
    if "float" in behind.dtype:
        found += ["Dropout", "GaussianDropout"]
        if "selu" in (_activation(layer), _activation(behind.layer)):
            found += ["AlphaDropout", *(["FeatureAlphaDropout"] if len(behind.shape) > 1 else [])]
        found += _BY_RANK.get(len(behind.shape), ())
        if len(users) == 1 and type(users[0].layer).__name__ == "Add" and len(users[0].inputs) > 1:
            found += _ON_PATHS
    if isinstance(layer, keras.layers.RNN):
        kind = "recurrent"
    elif isinstance(layer, keras.layers.Embedding):
        kind = "embedding"
    elif isinstance(layer, keras.layers.MultiHeadAttention):
        kind = "attention"
    elif isinstance(getattr(layer, "kernel", None), keras.Variable):
        kind = "kernel"
    else:
        return tuple(found)
    found += [name for name in _AROUND[kind] if _can_go_around(name, without_dropout(layer), kind)]
    inputs = call.node.input_tensors
    if len(inputs) == 1 and tuple(inputs[0].shape[1:]) == call.shape and "float" in inputs[0].dtype:
        found.append("LayerDrop")
    return tuple(found)


def _activation(layer: Any) -> str:
    return getattr(getattr(layer, "activation", None), "__name__", "")


def _can_go_around(name: str, layer: keras.Layer, kind: str) -> bool:
    cls = getattr(layers, name)
    options: dict[str, Any] = {} if name in ("Standout", "SparseVariationalDropout") else {"rate": 0.1}
    if kind == "kernel" and not isinstance(layer, getattr(cls, "kinds", ()) or keras.Layer):
        return False
    if name == "DropConnect":
        options["per"] = "batch"
    elif kind == "kernel" and "Variational" in name:
        options["kl_weight"] = 1.0
    try:
        cls(layer=layer, **options)
    except BadInput:
        return False
    return True
