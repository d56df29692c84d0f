"""Where dropout is in a model and where it could go: its sites, and what fits there."""

import fnmatch
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
from rich.console import Group
from rich.table import Table
from rich.text import Text

from keras_dropout import layers
from keras_dropout.display import Shown
from keras_dropout.errors import BadInput, refuse
from keras_dropout.layers import PatchDropout
from keras_dropout.layers.base import LayerWrapper, MaskLayer, Stochastic
from keras_dropout.models.graph import Call, Graph, made_again

GROUPS = ("input", "hidden", "last", "all")
SPATIAL = (keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D)
KERAS_DROPOUT = (keras.layers.Dropout, keras.layers.GaussianDropout, keras.layers.AlphaDropout, *SPATIAL)
# Layers of other libraries, and of keras.applications, that are known by name: they pass on what they get except in training.
_FOREIGN_NAMES = re.compile(r"(DropPath|StochasticDepth|DropBlock([123]D)?)$")
# Options that are rates of dropout, by name; those that say what is kept are 1 where nothing is dropped.
_RATES = re.compile(r"dropout|(^|_)drop(s?$|_?(path|prob|rate|connect|block))|stochastic_depth|survival|keep_prob")
_KEEPS = re.compile("survival|keep")
# Classes whose option "rate" is a rate of dropout.
_DROPS = re.compile(r"(Dropout([123]D)?|DropPath|StochasticDepth|DropBlock([123]D)?|DropConnect)$")
# Operations that prepare an input where all but one of their arguments are numbers.
_ARITHMETIC = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Cast")
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
    """A site with the calls of its layer, none for an input, and those behind which dropout is put.

    `behind_input` says that dropout is put directly behind the input too; `output` that a call of the layer is an output.
    """

    site: Site
    calls: tuple[Call, ...] = field(default=())
    behind: tuple[Call, ...] = field(default=())
    behind_input: bool = False
    output: bool = False


def is_dropout(layer: Any) -> bool:
    """Whether `layer` is a dropout layer, ours, one of Keras's or one with a known name."""
    if isinstance(layer, keras.layers.TimeDistributed):
        return is_dropout(layer.layer)
    return isinstance(layer, (MaskLayer, PatchDropout, *KERAS_DROPOUT)) or _is_named_so(layer)


def _is_named_so(layer: Any) -> bool:
    return isinstance(layer, keras.Layer) and bool(_FOREIGN_NAMES.search(type(layer).__name__)) and not layer.weights


def passes(call: Call) -> bool:
    """Whether a call is one of a dropout layer that can be left out. Some layers named StochasticDepth add two inputs."""
    if not _is_named_so(call.layer):
        return is_dropout(call.layer)
    before = call.node.input_tensors
    return len(before) == 1 and tuple(before[0].shape[1:]) == call.shape


def mask_calls(read: Graph) -> set[Call]:
    """Return the calls from which only a padding mask, or another truth value, is made."""
    found: set[Call] = set()
    for call in reversed(read.calls):
        users = read.after(call)
        only = users and found.issuperset(users) and not set(call.outputs) & set(read.outputs)
        if not getattr(call.layer, "weights", ()) and (call.dtype == "bool" or only):
            found.add(call)
    return found


def makes_mask(call: Call) -> bool:
    """Whether a layer without weights, such as Masking, reads a padding mask out of its input."""
    if not isinstance(call.layer, keras.Layer) or call.layer.weights:
        return False
    before, behind = ([getattr(t, "_keras_mask", None) for t in ts] for ts in (call.node.input_tensors, call.node.outputs))
    return all(mask is None for mask in before) and any(mask is not None for mask in behind)


def survey(read: Graph) -> list[Place]:
    """The sites of a graph with their calls, in the order of the data."""
    # The graph as it is without its dropout layers: their outputs are what goes into them.
    same: dict[int, int] = {}
    for call in read.calls:
        if passes(call):
            same[call.outputs[0]] = same.get(call.inputs[0], call.inputs[0])
    masks = mask_calls(read)  # they get what has not been dropped
    calls = [call for call in read.calls if not passes(call) and call not in masks]
    inputs = {call: tuple(same.get(tensor, tensor) for tensor in call.inputs) for call in calls}
    users: dict[int, list[Call]] = {}
    for call in calls:
        for tensor in dict.fromkeys(inputs[call]):
            users.setdefault(tensor, []).append(call)

    def after(tensors: Iterable[int]) -> list[Call]:
        return [user for tensor in tensors for user in users.get(tensor, ())]

    def ends(tensors: Iterable[int], belongs: Any, model: Any, behind: tuple[Call, ...] = ()) -> list[tuple[Call, ...]]:
        """The ways from an input or a call, of this model, to where dropout is put: the calls on each.

        They go through what belongs there, as long as nothing else uses it, and through what makes padding masks.
        """
        following, here = after(tensors), behind[-1].model if behind else model
        makers = [call for call in following if makes_mask(call) and model in (None, call.model)]
        if len(following) == 1 and belongs(following[0]) and here in (None, following[0].model):
            makers = following
        rest = [] if makers and len(makers) == len(following) else [behind]
        return [*rest, *(way for call in makers for way in ends(call.outputs, belongs, model, (*behind, call)))]

    def ends_of(call: Call) -> list[tuple[Call, ...]]:
        return ends(call.outputs, lambda behind: isinstance(behind.layer, _PART_OF_LAYER), call.model)

    def next_weights(call: Call) -> set[Call]:
        """The next calls with weights on every way to an output."""
        ways, seen = after(call.outputs), set()
        while ways:
            user = ways.pop()
            if user not in seen and user not in weighted:
                ways += after(user.outputs)
            seen.add(user)
        return seen & weighted

    def dropped(tensor: int, seen: set[Call]) -> Iterable[dict[str, Any]]:
        """What drops a tensor, in dropout layers directly behind it or behind layers without weights."""
        for user in read.users.get(tensor, ()):
            if user in seen:
                continue
            seen.add(user)
            if passes(user):
                yield {"layer": user.path, "kind": type(user.layer).__name__, "rate": rate_of(user.layer)}
            if user not in weighted:
                for output in user.outputs:
                    yield from dropped(output, seen)

    weighted = {call for call in calls if _is_site(call.layer)}
    next_of = {call: next_weights(call) for call in weighted}
    outputs = {call for call in weighted if not next_of[call]}
    by_layer: dict[int, list[Call]] = {}
    for call in calls:
        by_layer.setdefault(id(call.layer), []).append(call)

    output_nodes = {id(call.node) for call in outputs}  # those of a nested model are the same at each of its calls

    def of_layer(first: Call, normalises: bool) -> Place:
        own = tuple(by_layer[id(first.layer)])  # a shared layer has several calls
        # Of a layer that is called for an output too, as a tied embedding is, only the other calls are meant.
        hidden = tuple(call for call in own if id(call.node) not in output_nodes)
        used = own if normalises else hidden or own
        group = "normalisation" if normalises else "hidden" if hidden else "output"
        ways = [(call, way) for call in used for way in ends_of(call)]
        behind = tuple((call, *way)[-1] for call, way in ways)
        found = [*_own_dropout(first), *(d for call in own for d in dropped(call.outputs[0], set()))]
        last = group == "hidden" and any(next_of[call] & outputs for call in used)
        inner = inner_layer(first.layer)
        name = first.path.removesuffix(first.layer.name) + inner.name
        mixed = not normalises and len(hidden) not in (0, len(own))
        fitting = [_fitting(inner, call, end, after(end.outputs), around=not mixed) for (call, _), end in zip(ways, behind)]
        site = Site(
            name,
            type(inner).__name__,
            group,
            last,
            behind[0].shape,
            behind[0].dtype,
            inner.count_params() if inner.built else 0,
            tuple(dict.fromkeys(call.path for _, way in ways for call in way)),
            _unique(found),
            tuple(method for method in fitting[0] if all(method in each for each in fitting)),
        )
        return Place(site, own, behind, output=group == "output" or mixed)

    found = []
    for name, tensor, shape, dtype in read.inputs:
        ways = ends([tensor], _prepares_in, None)
        end = next((way[-1] for way in ways if way), None)
        shape, dtype = (end.shape, end.dtype) if end else (shape, dtype)
        methods = _fitting_input(shape, dtype, after([way[-1].outputs[0] if way else tensor for way in ways]))
        behind = tuple(dict.fromkeys(call.path for way in ways for call in way))
        site = Site(name, "Input", "input", False, shape, dtype, 0, behind, _unique(dropped(tensor, set())), methods)
        found.append(Place(site, (), tuple(way[-1] for way in ways if way), behind_input=() in ways))
    seen: set[int] = set()
    absorbed: set[int] = set()
    for call in calls:
        normalises = isinstance(call.layer, _NORMALISATIONS) and call.layer.weights and id(call.layer) not in absorbed
        if id(call.layer) in seen or not (call in weighted or normalises):
            continue
        seen.add(id(call.layer))
        found.append(of_layer(call, bool(normalises)))
        for each in by_layer[id(call.layer)]:
            absorbed |= {id(c.layer) for way in ends_of(each) for c in way}
    return found


def _is_site(layer: Any) -> bool:
    return bool(getattr(layer, "weights", ())) and not isinstance(layer, _PART_OF_LAYER) and not _prepares(layer)


def _prepares(layer: Any) -> bool:
    """Whether a layer is one of Keras's for preprocessing and augmentation."""
    return ".preprocessing." in type(layer).__module__


def _prepares_in(call: Call) -> bool:
    """Whether a call prepares its input: a layer that does, one that reads its mask, or arithmetic with numbers."""
    if _prepares(call.layer) or makes_mask(call):
        return True
    before = call.node.input_tensors
    return type(call.layer).__name__ in _ARITHMETIC and not isinstance(call.layer, keras.Layer) and len(before) == 1


def _unique(found: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    return tuple({(each["layer"], each["kind"]): each for each in found}.values())


def inner_layer(layer: Any) -> Any:
    """The layer that our wrappers are around."""
    return inner_layer(layer.layer) if isinstance(layer, LayerWrapper) else layer


def _own_dropout(call: Call) -> list[dict[str, Any]]:
    """The dropout that a layer has as an option of its own or inside, or that is around it."""
    layer, found = call.layer, []
    while isinstance(layer, LayerWrapper):
        found.append({"layer": call.path, "kind": type(layer).__name__, "rate": getattr(layer, "rate", None)})
        layer = layer.layer
    if isinstance(layer, keras.Layer) and not isinstance(layer, keras.Model):
        for owner, option, rate in dropout_options(layer):
            found.append({"layer": call.path, "kind": f"{owner}({option})", "rate": rate})
        if not found:
            for inner in inside(layer):
                found.append({"layer": call.path, "kind": type(inner).__name__, "rate": rate_of(inner)})
    return found


def inside(layer: keras.Layer) -> list[keras.Layer]:
    """Return the layers in a layer that drop something."""
    return [each for each in layer._flatten_layers(include_self=False) if _drops(each)]


def _drops(layer: keras.Layer) -> bool:
    return rate_of(layer) != 0 if is_dropout(layer) or isinstance(layer, Stochastic) else bool(dropout_options(layer))


def rate_of(layer: Any) -> float | None:
    """The rate of a dropout layer: `rate`, else the largest of its options that are dropout; None, where it drops, if not known."""
    layer = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
    rate = number(attribute(layer, "rate"))
    if rate or not isinstance(layer, keras.Layer) or not is_foreign(layer):
        return rate
    found = max((value for *_, value in dropout_options(layer)), default=0.0)
    return found if found or has_option(layer) else rate


def attribute(layer: Any, name: str) -> Any:
    """Return an attribute of a layer of any class; None where there is none, or reading it raises."""
    try:
        return getattr(layer, name, None)
    except Exception:  # a property of the user's
        return None


def number(value: Any) -> float | None:
    """Return a number, variable or tensor of one number as a float; None for all else, a class of others may hold anything."""
    if value is None or isinstance(value, (bool, str)):
        return None
    try:
        found = float(value if isinstance(value, (int, float)) else keras.ops.convert_to_numpy(value))
    except Exception:  # a function, a list, a symbolic tensor, ...
        return None
    return found if math.isfinite(found) else None


def is_foreign(layer: keras.Layer) -> bool:
    """Whether a layer is, or has inside, one of a class that is neither Keras's nor ours."""
    return not all(is_known(type(each).__module__) for each in layer._flatten_layers())


def is_known(module: str) -> bool:
    """Whether a module is Keras's or ours."""
    return module.partition(".")[0] in ("keras", "keras_dropout")


def rated(model: keras.Model) -> list[tuple[str, keras.Layer]]:
    """Return (path, layer) for each layer that drops something or can: those whose rates are to be set.

    Left out are Keras's dropout layers of rate 0 inside other layers, as its attention has one: they are off for good.
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
                found[before:] = [(path, layer)]  # an LSTM, say, not its cell

    walk(model, "", True)
    return found


def named(layers: list[tuple[str, Any]], pattern: Any) -> list[Any]:
    """The layers, given with their paths, that a pattern names: a path; else a name or a glob, of which there may be several."""
    if not isinstance(pattern, str):
        return [layer for _, layer in layers if layer is pattern]
    exact = [layer for path, layer in layers if path == pattern]
    matches = fnmatch.fnmatchcase
    return exact or [each for path, each in layers if each.name == pattern or matches(path, pattern) or matches(each.name, pattern)]


def dropout_options(layer: keras.Layer) -> list[tuple[str, str, float]]:
    """(class, option, rate) for each dropout above 0 that a layer, or one that is in its config, has as an option."""
    return _options(_config(layer), "" if isinstance(layer, Stochastic) else type(layer).__name__)


def has_option(layer: keras.Layer) -> bool:
    """Whether a layer has an option that is known as dropout, also where it is 0."""
    return any(rate is not None for name, value in _config(layer).items() for rate in _rates(type(layer).__name__, name, value))


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
    found = [(owner, k, rate) for k, v in config.items() if (rate := max(_rates(owner, k, v), default=0.0)) > 0]
    return found + [f for v in config.values() for f in _options(v, owner)]


def _rates(owner: Any, name: Any, value: Any, also: tuple[str, ...] = ()) -> Iterator[float]:
    """The rates that an option holds: one, or a list of them; none where it is no option of dropout."""
    name, numbers = str(name).lower(), value if isinstance(value, (list, tuple)) else [value]
    known = _RATES.search(name) or name in also or (name == "rate" and _DROPS.search(str(owner)))
    # A whole number other than 0 is a seed, an axis or a size.
    if known and all((isinstance(each, float) and 0 <= each <= 1) or (type(each) is int and each == 0) for each in numbers):
        yield from (1 - each if _KEEPS.search(name) else float(each) for each in numbers)


def _without_options(config: Any, owner: str, also: tuple[str, ...] = ()) -> Any:
    if isinstance(config, (list, tuple)):
        return type(config)(_without_options(each, owner) for each in config)
    if not isinstance(config, Mapping):
        return config
    owner, made = config.get("class_name", owner), {}
    for name, value in config.items():
        if any(_rates(owner, name, value, also)):
            off = 1.0 if _KEEPS.search(str(name).lower()) else 0.0
            made[name] = type(value)([off] * len(value)) if isinstance(value, (list, tuple)) else off
        else:
            made[name] = _without_options(value, owner)
    return made


def without_dropout(layer: Any) -> Any:
    """The layer without our wrappers and without dropout of its own: the same one where it has none."""
    layer = inner_layer(layer)
    if not isinstance(layer, keras.Layer) or (is_dropout(layer) and not _is_named_so(layer)):
        return layer
    config, owner = _config(layer), type(layer).__name__
    known = bool(_options(config, owner))
    if not known and not inside(layer):
        return layer
    for also in [()] * known + [("rate",)] * ("rate" in config):  # a layer with dropout inside may call its rate just that
        bare = made_again(layer, _without_options(config, owner, also))
        if not _options(_config(bare), owner) and not inside(bare):
            return bare
    refuse(
        f"{owner} {layer.name!r} has dropout inside that cannot be taken out from outside.",
        "Give the class an option whose name has 'dropout' in it and that is in its get_config, or write it as a nested model.",
    )


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


def _fitting(layer: Any, call: Call, behind: Call, users: list[Call], around: bool) -> tuple[str, ...]:
    """The methods that fit a layer's site: by the shape, by what the output goes into, and by what they can be put around."""
    found: list[str] = []
    if "float" in behind.dtype:
        found += ["Dropout", "GaussianDropout"]
        if "selu" in (_activation(layer), _activation(behind.layer)):
            found += ["AlphaDropout", *(["FeatureAlphaDropout"] if len(behind.shape) > 1 else [])]
        found += _BY_RANK.get(len(behind.shape), ())
        if len(users) == 1 and type(users[0].layer).__name__ == "Add" and len(users[0].inputs) > 1:
            found += _ON_PATHS
    if not around:
        return tuple(found)
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
    found += [name for name in _AROUND[kind] if _can_go_around(name, layer, kind)]
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
        cls(layer=without_dropout(layer), **options)
    except BadInput:
        return False
    return True
