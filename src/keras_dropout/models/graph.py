"""A model as the calls of its layers in the order of the data, with nested models opened; and ways to repeat these calls.

Keras keeps a functional model as nodes, one for each call of a layer. Only this module reads them, from `_nodes_by_depth`,
`arguments` and `outputs`: Keras's own `clone_model` skips nested models and gives no call a name.
"""

import collections
import contextlib
import copy as copying
import functools
import inspect
import io
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import keras
import numpy as np
from keras.src.backend.common import global_state  # the counts behind automatic names have no public name

from keras_dropout.errors import BadInput, described, refuse, warn
from keras_dropout.layers.adopted import own_class
from keras_dropout.models.targets import FROM_FILES

# Methods by which a class may change how a model is trained; a functional model loses these changes.
_TRAINING_METHODS = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "fit", "evaluate", "predict")
_REWRITE = (
    "Write it as a Sequential or functional model; or change this model itself, without a copy: "
    "keras_dropout.place(model, {layer: rate}, in_place=True)."
)
_PIPELINES = "keras_hub.src.utils.pipeline_model"  # of the classes of KerasHub that prepare their data
_RETURNS = "it returns all arguments of the constructor, {**super().get_config(), 'width': self.width}."

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer (or of an operation of `keras.ops`).

    `path` is the layer's name after those of the nested models around it, as in "encoder/dense". `inputs` and `outputs` number the
    tensors; the numbers are the same inside and outside a nested model. `shape` (without the batch) and `dtype` are those of the
    first output. `model` is the functional model whose graph contains the call, and `node` is the call there.
    """

    layer: Any
    path: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shape: tuple
    dtype: str
    options: dict[str, Any]
    node: Any
    model: keras.Model


@dataclass(frozen=True, eq=False)
class Graph:
    """The calls of a model in the order of the data, and the tensors that go into it and come out of it.

    `inputs` are (name, number of the tensor, shape without the batch, dtype); `outputs` are numbers of tensors.
    """

    calls: list[Call]
    inputs: list[tuple[str, int, tuple, str]]
    outputs: list[int]
    makers: dict[int, Call] = field(default_factory=dict)
    users: dict[int, list[Call]] = field(default_factory=dict)

    def after(self, call: Call) -> list[Call]:
        """Return the calls that use an output of this one."""
        return [user for tensor in call.outputs for user in self.users.get(tensor, ())]

    def output(self, name: str) -> int:
        """Return the one output; refuse several, with this name of the model."""
        if len(self.outputs) != 1:
            fix = "Choose one: keras.Model(model.inputs, model.outputs[0])."
            refuse(f"the model {name!r} has {len(self.outputs)} outputs.", fix)
        return self.outputs[0]

    def before(self, call: Call) -> list[Call]:
        """Return the calls that made the inputs of this one."""
        return [self.makers[tensor] for tensor in call.inputs if tensor in self.makers]


@contextlib.contextmanager
def unchanged(model: Any) -> Iterator[None]:
    """Restore the attributes of the model and its layers at the end, even if the code in between fails.

    Calls leave more on them than one expects: nodes of symbolic calls, losses, cached masks. The values of variables are
    not among the attributes: calls that assign any belong in a `StatelessScope`.
    """
    before = [(layer, dict(vars(layer)), _contents(layer)) for layer in _layers(model)]
    try:
        yield
    finally:
        for layer, attributes, contents in before:
            for name in vars(layer).keys() - attributes.keys():
                del vars(layer)[name]
            vars(layer).update(attributes)  # without Keras's tracking, whose lists are restored as well
            for container, content in contents:
                _refill(container, content)


def leaves_unchanged(function: _Function) -> _Function:
    """Make a function of a model leave it `unchanged`."""

    @functools.wraps(function)
    def guarded(*args: Any, **options: Any) -> Any:
        with unchanged(args[0] if args else options.get("model")):
            return function(*args, **options)

    return cast(_Function, guarded)


def _layers(model: Any) -> list[keras.Layer]:
    return list(model._flatten_layers()) if isinstance(model, keras.Layer) and hasattr(model, "_layers") else []


def _contents(layer: keras.Layer) -> list[tuple[Any, Any]]:
    """Return the lists, dicts and sets among a layer's attributes and in its tracker, each with a copy of its content."""
    tracked = getattr(getattr(layer, "_tracker", None), "stored_ids", {})
    found = [each for each in (*vars(layer).values(), *tracked.values()) if isinstance(each, (list, dict, set))]
    found = [getattr(each, "__wrapped__", getattr(each, "_storage", each)) for each in found]  # TensorFlow wraps some
    return [(each, dict(each) if isinstance(each, dict) else set(each) if isinstance(each, set) else list(each)) for each in found]


def _refill(container: Any, content: Any) -> None:
    """Restore the content of a container without notifying Keras's own containers."""
    if isinstance(container, list):
        list.__setitem__(container, slice(None), content)
    elif isinstance(container, dict):
        for name in container.keys() - content.keys():
            dict.pop(container, name)
        dict.update(container, content)
    else:
        set.intersection_update(container, content)
        set.update(container, content)


@contextlib.contextmanager
def called_as(calls: Iterable[tuple[keras.Layer, Callable]]) -> Iterator[None]:
    """Replace the calls of layers for a while, without Keras's tracking of attributes."""
    before = [(layer, call, vars(layer).get("call")) for layer, call in calls]
    try:
        for layer, call, _ in before:
            vars(layer)["call"] = call
        yield
    finally:
        for layer, _, own in before:
            vars(layer).pop("call", None)
            if own is not None:
                vars(layer)["call"] = own


def check_model(model: Any, fix: str = "Pass the model itself, or load its file first.") -> None:
    """Refuse anything that is not a Keras model."""
    if not isinstance(model, keras.Model):
        refuse(f"expected a Keras model; got {type(model).__name__}.", fix)


def read(model: keras.Model) -> Graph:
    """Return the graph of a Sequential or functional model, or of a subclassed one that can be traced. It changes nothing."""
    top = functional(model)
    graph = Graph([], [(input_name(t), n, tuple(t.shape[1:]), t.dtype) for n, t in enumerate(top.inputs)], [])

    count = iter(range(len(top.inputs), 10**9))

    def walk(model: keras.Model, known: dict[int, int], prefix: str) -> list[int]:
        """Record the calls in `model`, whose inputs have these numbers; return the numbers of its outputs."""
        for node in nodes(model):
            inputs = tuple(known[id(tensor)] for tensor in node.input_tensors)
            if is_nested(node.operation):
                inner = functional(node.operation)
                outputs = walk(inner, dict(zip(map(id, inner.inputs), inputs)), f"{prefix}{node.operation.name}/")
            else:
                outputs = [next(count) for _ in node.outputs]
                first = node.outputs[0]
                call = Call(
                    node.operation,
                    prefix + node.operation.name,
                    inputs,
                    tuple(outputs),
                    tuple(first.shape[1:]),
                    first.dtype,
                    node.arguments.kwargs,
                    node,
                    model,
                )
                graph.calls.append(call)
                graph.makers.update(dict.fromkeys(outputs, call))
                for tensor in dict.fromkeys(inputs):
                    graph.users.setdefault(tensor, []).append(call)
            known.update(zip(map(id, node.outputs), outputs))
        return [known[id(tensor)] for tensor in model.outputs]

    graph.outputs.extend(walk(top, {id(tensor): number for number, tensor in enumerate(top.inputs)}, ""))
    return graph


def run(calls: Iterable[Call], values: dict[int, Any]) -> None:
    """Run these calls; `values` holds the known tensors by their numbers, and receives the outputs."""
    for call in calls:
        tensors = {id(tensor): values[number] for tensor, number in zip(call.node.input_tensors, call.inputs)}
        args, options = call.node.arguments.fill_in(tensors)
        values.update(zip(call.outputs, keras.tree.flatten(call.layer(*args, **options))))


def first_input(args: tuple, kwargs: Mapping[str, Any]) -> Any:
    """Return the tensor that a layer of one input is called on, by position or by name."""
    return args[0] if args else next(value for value in kwargs.values() if hasattr(value, "shape"))


def input_name(tensor: Any) -> str:
    """Return the name of an input: its layer's name, which is saved with the model; a tensor's name is not."""
    return tensor._keras_history.operation.name


def rebuild(
    model: keras.Model, touched: Iterable[Any], on_call: Callable, on_input: Callable = lambda tensor: tensor
) -> keras.Model:
    """Return the model with its calls repeated on the same layers: `on_call(node, layer, args, kwargs)` makes one call.

    `touched` are the nodes that `on_call` treats differently: nested models without one are kept as they are.
    `on_input(tensor)` returns what replaces an input of the model itself.
    """
    touched = set(map(id, touched))
    done: dict[int, keras.Model] = {}

    def concerns(model: keras.Model) -> bool:
        inner = (node.operation for node in nodes(model) if is_nested(node.operation))
        return any(id(node) in touched for node in nodes(model)) or any(concerns(functional(each)) for each in inner)

    def again(old: keras.Model, on_input: Callable) -> keras.Model:
        graph = functional(old)
        inputs = keras.tree.map_structure(fresh_input, graph.input)
        tensors = {id(o): on_input(n) for o, n in zip(graph.inputs, keras.tree.flatten(inputs))}
        for node in nodes(graph):
            args, kwargs = node.arguments.fill_in(tensors)
            layer = node.operation
            if is_nested(layer) and concerns(functional(layer)):
                if id(layer) not in done:
                    done[id(layer)] = again(layer, lambda tensor: tensor)
                layer = done[id(layer)]
            outputs = on_call(node, layer, args, kwargs)
            tensors.update(zip(map(id, node.outputs), keras.tree.flatten(outputs)))
        outputs = keras.tree.map_structure(lambda tensor: tensors[id(tensor)], graph.output)
        return _like(old, inputs, outputs, nested=old is not model)

    made = again(model, on_input)
    if model in FROM_FILES:
        FROM_FILES.add(made)
    return made


def copy(model: keras.Model) -> keras.Model:
    """Return an equal model that shares nothing with this one: weights, optimizer and its state, compile settings, vocabularies.

    The copy goes through a saved file, which Keras promises to restore; a user's own loss or metric it does not: compile settings
    are copied directly. Code in the model (a Lambda layer) is run if a program made the model, but not if it came from a file.
    """
    own = own_objects(model)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "model.keras")
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                model.save(path)
                made = keras.models.load_model(path, custom_objects=own, safe_mode=model in FROM_FILES, compile=False)
        except Exception as error:  # a user's class may raise anything when it is made again
            for layer in (each for each in model._flatten_layers() if each is not model):
                made_again(layer)
            refuse(
                f"the model {model.name!r} cannot be copied: {described(error)}",
                "Its layers must be saved and loaded by Keras: give them get_config, and register their classes.",
            )
    _check_same(made, model)
    _carry_adapters(made, model)
    freeze(made, trainable(model))
    _tell_apart(made, [variable.path for variable in model.variables])
    compile_like(made, model)
    states = [getattr(each.optimizer, "variables", []) if each.compiled else [] for each in (made, model)]
    if [tuple(v.shape) for v in states[0]] == [tuple(v.shape) for v in states[1]]:  # else it begins anew
        for ours, theirs in zip(*states):
            ours.assign(np.array(keras.ops.convert_to_numpy(theirs)))  # a step on JAX gives its buffers away
    if model in FROM_FILES:
        FROM_FILES.add(made)
    return made


def _carry_adapters(made: keras.Model, model: keras.Model) -> None:
    """Give a copy the adapters (LoRA) of `model`: Keras merges them into the kernels that it saves, and loads zeros or none."""
    adapters = _adapters(model)
    _put_adapters(made, adapters)
    pairs = list(zip(made._flatten_layers(), model._flatten_layers()))
    for number, *_ in adapters:
        ours, theirs = pairs[number]
        ours.set_weights([np.array(weight) for weight in theirs.get_weights()])  # a step on JAX gives its buffers away


def begin_adapters(made: keras.Model, model: keras.Model) -> None:
    """After weights were loaded, give adapters (LoRA) of zeros, which no gradient reaches, the first matrix of those in `model`.

    The second is 0, as at the beginning of every adapter: what the layers compute does not change.
    """
    for ours, theirs in zip(made._flatten_layers(), model._flatten_layers()):
        if getattr(ours, "lora_enabled", False):
            (a, b), (begun, _) = (lora_weights(layer) for layer in (ours, theirs))
            if not any(np.any(keras.ops.convert_to_numpy(each)) for each in (a, b)):
                a.assign(np.array(keras.ops.convert_to_numpy(begun)))


def lora_weights(layer: keras.Layer) -> list[keras.Variable]:
    """Return the two matrices of a layer's adapter (LoRA)."""
    return [weight for weight in layer.weights if weight.name.startswith("lora_")]


def _adapters(model: keras.Model) -> list[list[Any]]:
    """Return (number, rank, alpha) of each layer with LoRA, numbered among all layers of the model."""
    layers = enumerate(model._flatten_layers())
    return [[n, layer.lora_rank, layer.lora_alpha] for n, layer in layers if getattr(layer, "lora_enabled", False)]


def _put_adapters(model: keras.Model, adapters: Iterable[Iterable[Any]]) -> None:
    layers = list(model._flatten_layers())
    for number, rank, alpha in adapters:
        if not layers[number].lora_enabled:
            layers[number].enable_lora(rank)
        layers[number].lora_alpha = alpha


def own_objects(owner: Any) -> dict[str, Any]:
    """Return the user's classes and functions in a layer, optimizer or metric by the names that Keras saves; refuse equal names."""
    found: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            saved = set(_saved_names(owner.get_config()))
    except Exception:  # a user's class may raise anything
        saved = set()
    for part in (part for each in _layers(owner) or [owner] for part in (each, *_attributes(each))):
        named = part if inspect.isfunction(part) or inspect.isclass(part) else own_class(part)  # what is changed in place names it
        own = hasattr(named, "get_config") if inspect.isclass(named) else named.__name__ != "<lambda>"  # a lambda is saved as code
        if not own or str(named.__module__).startswith("keras."):
            continue
        name = keras.saving.get_registered_name(named)
        if (other := found.setdefault(name, named)) is not named and name in saved:
            one, two = (f"{each.__module__}.{each.__qualname__}" for each in (other, named))
            what = "classes" if inspect.isclass(named) else "functions"
            refuse(
                f"two {what} are saved as {name!r}, {one} and {two}: in a copy one would be in the place of the other.",
                f'Save them under two names: keras.saving.register_keras_serializable(name="Other")({named.__name__}).',
            )
    return found


def _saved_names(config: Any) -> Iterator[str]:
    """Yield the names of the classes and functions in a configuration."""
    if isinstance(config, Mapping):
        yield str(config.get("config") if config.get("class_name") == "function" else config.get("registered_name"))
        config = config.values()
    for each in config if isinstance(config, Iterable) and not isinstance(config, (str, bytes, np.ndarray)) else ():
        yield from _saved_names(each)


def _attributes(owner: Any) -> Iterator[Any]:
    """Yield what a layer, optimizer or metric holds besides layers, except methods and what a model is compiled with."""
    left_out = ("loss", "optimizer") if isinstance(owner, keras.Model) else ()
    for name, value in vars(owner).items():
        if name not in left_out and not callable(getattr(type(owner), name, None)):
            yield from (each for each in flat(value) if not isinstance(each, keras.Layer))


def flat(value: Any) -> Iterator[Any]:
    """Yield the members of lists, tuples and mappings, at any depth; keys may be anything, TensorFlow's layers among them."""
    if isinstance(value, (list, tuple, Mapping)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from flat(each)
    else:
        yield value


def _check_same(made: keras.Model, model: keras.Model) -> None:
    """Refuse a copy with other classes or functions: Keras finds them by name, and prefers its own."""
    for ours, theirs in zip(made._flatten_layers(), model._flatten_layers()):
        pairs: list[tuple[Any, Any]] = [(type(ours), type(theirs))]
        if not isinstance(theirs, keras.Model):  # a model keeps functions of its training
            pairs += [(vars(ours).get(name), value) for name, value in vars(theirs).items() if inspect.isfunction(value)]
        for again, was in pairs:
            functions = inspect.isfunction(again) and inspect.isfunction(was)
            if again.__code__ != was.__code__ if functions else inspect.isclass(was) and again is not was:
                of = theirs.name if was is type(theirs) else f"{type(theirs).__name__} {theirs.name!r}"
                kinds = [f"{each.__module__}.{each.__qualname__}" for each in (again, was)]
                refuse(
                    f"the model {model.name!r} cannot be copied: {of} has {kinds[1]}, and would have {kinds[0]}.",
                    "Make the model anew if it was defined again since; else save it under a name of its own: "
                    f'keras.saving.register_keras_serializable(name="Other")({was.__name__}).',
                )


def trainable(layer: keras.Layer) -> list[bool]:
    """Return whether each layer with weights in a layer is trained, then whether each weight is: its config does not say that."""
    trained = set(map(id, layer.trainable_weights))
    return [*(bool(each.trainable) for each in _with_weights(layer)), *(id(weight) in trained for weight in layer.weights)]


def freeze(layer: keras.Layer, flags: Iterable[bool]) -> None:
    """Train or freeze layers and weights as these flags of `trainable` say."""
    left = iter(flags)
    for each, flag in zip(_with_weights(layer), left):
        if each.trainable != flag:
            each.trainable = flag
    trained = set(map(id, layer.trainable_weights))
    for weight, flag in zip(layer.weights, left):
        if (id(weight) in trained) != flag:
            weight.trainable = flag


def _with_weights(layer: keras.Layer) -> list[keras.Layer]:
    return [each for each in layer._flatten_layers() if each.weights]


def made_again(layer: keras.Layer, config: Mapping[str, Any] | None = None) -> keras.Layer:
    """Make a layer again from its config, or from another config; if its class cannot do this, refuse and name the cause."""
    cls, called = type(layer), f"{type(layer).__name__} {layer.name!r}"
    own = own_objects(layer)
    register = "Register what it uses: @keras.saving.register_keras_serializable() in front of each class and function of your own."
    try:
        config = layer.get_config() if config is None else config
    except Exception as error:
        refuse(f"{called} cannot be copied: its get_config raises {described(error)}", f"Fix {cls.__name__}.get_config: {_RETURNS}")
    parameters = inspect.signature(cls.__init__).parameters.values()
    named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) and each.name != "self"]
    missing = [each.name for each in named if each.default is each.empty and each.name not in config]
    any_name = any(each.kind is each.VAR_KEYWORD for each in parameters)
    unknown = [] if any_name else [name for name in config if name not in {each.name for each in named}]
    try:
        with keras.saving.custom_object_scope(own):
            return cls.from_config(copying.deepcopy(dict(config)))
    except Exception as error:
        if missing:
            lacks = f"its get_config lacks {', '.join(map(repr, missing))}, which its constructor needs."
            refuse(f"{called} cannot be copied: {lacks}", f"Fix {cls.__name__}.get_config: {_RETURNS}")
        if unknown:
            takes = f"its constructor does not take {', '.join(map(repr, unknown))}, which its get_config returns."
            refuse(
                f"{called} cannot be copied: {takes}",
                f"Write {cls.__name__}.__init__(self, …, **kwargs) and super().__init__(**kwargs).",
            )
        refuse(f"{called} cannot be made again from its get_config: {described(error)}", register)


def compile_like(model: keras.Model, source: keras.Model) -> None:
    """Compile a model as another one is compiled. Nothing that has its own state is shared."""
    if not source.compiled:
        return
    own = type(source).compile_from_config is not keras.Model.compile_from_config
    if own or type(model).compile is not keras.Model.compile or not hasattr(source, "_compile_config"):
        model.compile_from_config(source.get_compile_config())
        return
    model.compile(**{name: _made_anew(value) for name, value in source._compile_config.config.items()})
    if model.optimizer is not None:
        model.optimizer.build(model.trainable_variables)


def _made_anew(setting: Any) -> Any:
    """Return a compile setting with optimizers and metrics made again; losses and users' functions have no state."""
    if isinstance(setting, Mapping):
        return {name: _made_anew(each) for name, each in setting.items()}
    if isinstance(setting, (list, tuple)):
        return [_made_anew(each) for each in setting]
    if not isinstance(setting, (keras.optimizers.Optimizer, keras.metrics.Metric)):
        return setting
    cls = type(setting)
    own = own_objects(setting)  # a schedule, or a metric's function
    try:
        with keras.saving.custom_object_scope(own):
            return cls.from_config(setting.get_config())
    except Exception as error:
        what = f"{cls.__name__} {setting.name!r}, with which the model is compiled, cannot be copied: {described(error)}"
        coded = any(getattr(each, "__name__", "") == "<lambda>" for each in _attributes(setting))
        refuse(what, "Write the lambda as a function: def …" if coded else f"Fix {cls.__name__}.get_config: {_RETURNS}")


def make(settings: Mapping[str, Any]) -> keras.Model:
    """Return the model that a serialized configuration describes.

    Layers without a given name are named as in a process that has made no other model: sites have the same names in each run.
    """
    config = copying.deepcopy(dict(settings))  # Keras empties what it reads
    flags, adapters = config.pop("trainable", ()), config.pop("lora", ())
    before = global_state.get_global_attribute("object_name_uids") or {}
    global_state.set_global_attribute("object_name_uids", collections.defaultdict(int))
    try:
        made = keras.saving.deserialize_keras_object(config)
    finally:
        counts = global_state.get_global_attribute("object_name_uids")
        counts.update({name: max(count, counts.get(name, 0)) for name, count in before.items()})
    _put_adapters(made, adapters)
    freeze(made, flags)
    _tell_apart(made, [variable.path for variable in made.variables])
    return made


def with_lost(settings: dict[str, Any], model: keras.Model, made: keras.Model) -> dict[str, Any]:
    """Return the settings for `make`, with what Keras loses of `model`; the model `made` from the settings gets its adapters.

    That is what is frozen, adapters (LoRA) inside of other layers, and the scale alpha of those of Dense and Embedding.
    """
    adapters = _adapters(model)
    if adapters != _adapters(made):
        settings = {**settings, "lora": adapters}
        _put_adapters(made, adapters)
    here, there = trainable(model), trainable(made)
    return settings if here == there or len(here) != len(there) else {**settings, "trainable": here}


def _tell_apart(model: keras.Model, paths: Iterable[str]) -> None:
    """Give the variables these paths, with a number where two are equal.

    Keras leaves the nested models around a layer out of the paths when it makes a model from a config. On torch it keeps parameters
    by path: of two with equal paths it never clears the gradients of one.
    """
    seen: collections.Counter[str] = collections.Counter()
    for variable, path in zip(model.variables, paths):
        variable._path = f"{path}_{seen[path]}" if seen[path] else path
        seen[path] += 1
    for layer in model._flatten_layers():
        if hasattr(layer, "_torch_params"):
            layer._track_variables()


def functional(model: Any) -> keras.Model:
    """Return the model as a functional one with the same layers; refuse a model that cannot be read as one."""
    check_model(model, "Pass a built Sequential or functional model.")
    if isinstance(model, keras.Sequential):
        if not model.built or not model.inputs:
            refuse(f"the model {model.name!r} is not built.", "Start it with keras.Input(shape).")
        made = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    else:
        made = model if _has_graph(model) else trace(model)
    if model in FROM_FILES:
        FROM_FILES.add(made)
    return made


def opened(model: Any) -> keras.Model:
    """Return a model whose calls stay the same: itself; for a subclassed model a functional one, traced once.

    Of a task of KerasHub, which trains as Keras does once its data are prepared, it is the functional model in it.
    """
    if is_nested(model) and any(each.__module__ == _PIPELINES for each in type(model).__mro__):
        if getattr(model, "preprocessor", None) is not None:
            refuse(
                f"the model {model.name!r} prepares its data itself, with its preprocessor.",
                "Prepare the data with model.preprocessor, and make the model with preprocessor=None.",
            )
        return keras.Model(model.input, model.output, name=model.name)
    return model if is_nested(model) else functional(model)


def is_nested(layer: Any) -> bool:
    """Return whether a layer is a model that can be opened."""
    return isinstance(layer, keras.Model) and (isinstance(layer, keras.Sequential) or _has_graph(layer))


def nodes(model: keras.Model) -> Iterator[Any]:
    """Yield the calls in the graph of a functional model, each after those that it needs."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.operation is not None and not node.is_input:
                yield node


def trace(model: keras.Model) -> keras.Model:
    """Return a functional model with the layers of a subclassed one, found by calling it on symbolic inputs.

    Refuse a model where the two could differ: if `call` does something else in training (except passing `training` on), uses its
    own weights, or cannot be called symbolically (for example because it adds losses), or if the class trains in its own way.
    """
    name = f"{type(model).__name__} is a subclassed model"
    if own := _own_training(type(model)):
        refuse(f"{name} with {', '.join(own)} of its own, which a changed copy would lose.", _way_out(model))
    if not model.built:
        refuse(f"{name} that is not built.", "Call it once on a batch of data first.")
    try:
        inputs = _traced_inputs(model)
        takes_training = "training" in inspect.signature(model.call).parameters
        plain, training = (model.call(inputs, **({"training": on} if takes_training else {})) for on in (False, True))
        seen, again = keras.Model(inputs, plain), keras.Model(inputs, training)
    except Exception as error:  # the user's code may raise anything on symbolic tensors
        refuse(f"{name} whose call cannot be followed: {described(error)}", _way_out(model))
    if list(map(_signature, nodes(seen))) != list(map(_signature, nodes(again))):
        refuse(f"{name} whose call does something else in training.", _REWRITE)
    flags = {id(a): _training(a) != _training(b) for a, b in zip(nodes(seen), nodes(again))}
    frozen = [n.operation.name for n in nodes(seen) if _training(n) and not flags[id(n)]]
    if frozen:
        refuse(f"{name} whose call fixes training=True for {', '.join(frozen)}.", _REWRITE)

    def on_call(node: Any, layer: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        if flags[id(node)]:  # it passes its own flag on; Keras does the same without the argument
            bound = inspect.signature(layer.call).bind(*args, **kwargs)
            bound.arguments.pop("training")
            args, kwargs = bound.args, bound.kwargs
        return layer(*args, **kwargs)

    traced = rebuild(seen, (), on_call)
    traced.name = model.name
    if {id(v) for v in traced.weights} != {id(v) for v in model.weights}:
        refuse(f"{name} with weights that its layers' calls do not show.", _REWRITE)
    x = keras.tree.map_structure(lambda t: 2 * np.random.default_rng(0).random((2, *(n or 3 for n in t.shape[1:]))), traced.input)
    with keras.StatelessScope():
        ours, theirs = (keras.tree.flatten(f(x)) for f in (traced, model))
    if differ(ours, theirs):
        refuse(f"{name} whose call does more than its layers show: a functional copy predicts something else.", _REWRITE)
    return traced


def differ(one: list, two: list) -> bool:
    """Return whether two lists of tensors differ anywhere."""
    to_numpy = keras.ops.convert_to_numpy
    return any(not np.array_equal(to_numpy(a), to_numpy(b), equal_nan=True) for a, b in zip(one, two))


def carry_optimizer(source: Any, model: keras.Model) -> None:
    """Give the model's new optimizer the state of `source`, weight by weight: the weights may be in another order."""
    if source is None or not source.built:
        return
    named = type(source).from_config(source.get_config())  # its state is named by the current paths of the weights
    named.build(source._trainable_variables)
    stored: dict[tuple, list] = {}
    for like, variable in zip(named.variables, source.variables):
        stored.setdefault((like.name, tuple(variable.shape)), []).append(variable)
    for variable in model.optimizer.variables:
        if found := stored.get((variable.name, tuple(variable.shape))):
            variable.assign(found.pop(0).value)


def _way_out(model: keras.Model) -> str:
    """Return advice for a model that cannot be read: use a readable model inside it, or write the layers into it."""
    modules = vars(model).get("_modules", {})  # on torch a layer's layers are there
    for attribute, inner in {**vars(model), **modules}.items():
        if isinstance(inner, keras.Model) and not attribute.startswith("_"):
            with contextlib.suppress(BadInput):
                if read(inner).calls:
                    new = f"new = keras_dropout.place(model.{attribute}, {{'hidden': 0.2}})"
                    return f"Take a model in it: {new}, and build {type(model).__name__} with new."
    return _REWRITE


def _has_graph(model: keras.Model) -> bool:
    return hasattr(model, "_nodes_by_depth")


def fresh_input(tensor: Any) -> Any:
    """Return an input of the same name, shape and dtype."""
    layer = tensor._keras_history.operation
    if isinstance(layer, keras.layers.InputLayer):
        return keras.layers.InputLayer.from_config(layer.get_config()).output
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)


def _like(old: keras.Model, inputs: Any, outputs: Any, nested: bool) -> keras.Model:
    """Return a model of the class of `old` from `inputs` to `outputs`; for a traced model, a functional one.

    Calling a subclass with (inputs, outputs) changes it for good, as Keras puts Functional among its bases, and would make the
    layers again. So keras.Model makes the model here; `_of_class` then turns it into the class where that works.
    """
    made = keras.Model(inputs, outputs, name=old.name)
    given: dict[str, Any] = {"inputs": inputs, "outputs": outputs}
    if isinstance(old, keras.Sequential):
        start = keras.tree.flatten(inputs)[0]
        # Leave out the operations that compute a mask: the layers bring them along.
        chain = [node.operation for node in nodes(made) if isinstance(node.operation, keras.Layer)]
        given = {"layers": [start._keras_history.operation, *chain]}
        made = keras.Sequential(**given, name=old.name)
    if _has_graph(old) or isinstance(old, keras.Sequential):
        made = _of_class(type(old), made, given, nested)
    if not old.trainable:
        made.trainable = False
    return made


def _of_class(cls: type, made: keras.Model, given: dict[str, Any], nested: bool) -> keras.Model:
    """Return the model as one of a user's class, if the class can be made from layers, or from inputs and outputs.

    Otherwise warn and return a model with the same layers; refuse if a class that is not nested trains in its own way.
    """
    if cls is type(made):
        return made
    with contextlib.suppress(Exception):
        again = cls(**given, name=made.name)
        if [id(v) for v in again.variables] == [id(v) for v in made.variables]:  # a constructor may make layers of its own
            return again
    if not nested and (own := _own_training(cls)):
        refuse(
            f"{cls.__name__} has a constructor of its own, and {', '.join(own)}, which a changed copy would lose.",
            f"Let {cls.__name__} accept {' and '.join(given)}, or take keras.Model(model.input, model.output).",
        )
    kind = type(made).__name__
    warn(f"{cls.__name__} {made.name!r} has a constructor of its own: the new model has its layers, but is a {kind}.")
    return made


def _own_training(cls: type) -> list[str]:
    return [name for name in _TRAINING_METHODS if getattr(cls, name) is not getattr(keras.Model, name)]


def inputs_of(model: keras.Model) -> Any:
    """Return the symbolic inputs of a built model in their structure; refuse a model whose inputs are not known."""
    if is_nested(model):
        return model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    try:
        return _traced_inputs(model)
    except ValueError:
        refuse(f"the inputs of {type(model).__name__} {model.name!r} are not known.", "Call it once on a batch of data first.")


def _traced_inputs(model: keras.Model) -> Any:
    config = model.get_build_config() or {}
    shapes = config.get("input_shape") or config.get("shapes_dict")
    if not shapes:
        raise ValueError("the shape of its inputs is not known")
    if isinstance(shapes, dict) and len(shapes) == 1:
        shapes = next(iter(shapes.values()))
    return keras.tree.map_shape_structure(lambda shape: keras.Input(batch_shape=(None, *shape[1:])), shapes)


def _training(node: Any) -> Any:
    """Return the `training` flag that a call was given, by name or by position."""
    with contextlib.suppress(TypeError, ValueError):
        bound = inspect.signature(node.operation.call).bind(*node.arguments.args, **node.arguments.kwargs)
        return bound.arguments.get("training")
    return node.arguments.kwargs.get("training")


def _signature(node: Any) -> tuple:
    """Return what identifies a call, except the tensors' values and the training flag; operations are made anew at each call."""
    operation = node.operation
    args, kwargs = node.arguments.args, node.arguments.kwargs
    if isinstance(operation, keras.Layer):
        what: Any = id(operation)
        with contextlib.suppress(TypeError, ValueError):
            kwargs = inspect.signature(operation.call).bind(*args, **kwargs).arguments
            args = ()
    else:
        what = type(operation).__name__, [f"{k}={v!r}" for k, v in sorted(vars(operation).items()) if _is_plain(v) and k != "name"]
    plain = [a for a in keras.tree.flatten((args, {k: v for k, v in kwargs.items() if k != "training"})) if _is_plain(a)]
    sources = [(type(t._keras_history.operation).__name__, tuple(t.shape)) for t in node.input_tensors]
    return what, sources, plain, [tuple(t.shape) for t in node.outputs]


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str, tuple, type(None)))
