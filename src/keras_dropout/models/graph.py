"""A model as the calls of its layers in the order of the data, nested models opened; and the same calls made again.

Keras keeps a functional model as nodes, one for each call of a layer. They are read here, and nowhere else, from `_nodes_by_depth`,
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
from keras_dropout.models.targets import FROM_FILES

# What a class of its own may change in how a model is trained; it is lost in a functional model.
_TRAINING_METHODS = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "fit", "evaluate", "predict")
_REWRITE = "Write it as a Sequential or functional model; or write keras_dropout.Dropout into its constructor, and use set_rate."
_RETURNS = "it returns all arguments of the constructor, {**super().get_config(), 'width': self.width}."

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer (or of an operation of `keras.ops`).

    `path` is the layer's name behind those of the nested models around it, as in "encoder/dense"; `inputs` and `outputs` number
    the tensors, the same ones inside and outside of a nested model; `shape` (without the batch) and `dtype` are those of the first
    output; `model` is the functional model in whose graph the call stands, and `node` the call there.
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

    `inputs` are (name, number of the tensor, shape without the batch, dtype); `outputs` numbers of tensors.
    """

    calls: list[Call]
    inputs: list[tuple[str, int, tuple, str]]
    outputs: list[int]
    makers: dict[int, Call] = field(default_factory=dict)
    users: dict[int, list[Call]] = field(default_factory=dict)

    def after(self, call: Call) -> list[Call]:
        """The calls that use an output of this one."""
        return [user for tensor in call.outputs for user in self.users.get(tensor, ())]

    def output(self, name: str) -> int:
        """The one output; several are refused, of the model of this name."""
        if len(self.outputs) != 1:
            fix = "Choose one: keras.Model(model.inputs, model.outputs[0])."
            refuse(f"the model {name!r} has {len(self.outputs)} outputs.", fix)
        return self.outputs[0]

    def before(self, call: Call) -> list[Call]:
        """The calls that made the inputs of this one."""
        return [self.makers[tensor] for tensor in call.inputs if tensor in self.makers]


@contextlib.contextmanager
def unchanged(model: Any) -> Iterator[None]:
    """Leave the model and its layers with the attributes that they have now, also where what is done in between fails.

    Calls leave more on them than one would think: nodes of symbolic calls, losses, cached masks. The values of variables are
    not among the attributes: calls that assign any belong in a `StatelessScope`.
    """
    before = [(layer, dict(vars(layer)), _contents(layer)) for layer in _layers(model)]
    try:
        yield
    finally:
        for layer, attributes, contents in before:
            for name in vars(layer).keys() - attributes.keys():
                del vars(layer)[name]
            vars(layer).update(attributes)  # past Keras's lists of what a layer has, which are put back as well
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
    """The lists, dicts and sets among a layer's attributes and in its tracker, each with a copy of what is in it."""
    tracked = getattr(getattr(layer, "_tracker", None), "stored_ids", {})
    found = [each for each in (*vars(layer).values(), *tracked.values()) if isinstance(each, (list, dict, set))]
    found = [getattr(each, "__wrapped__", getattr(each, "_storage", each)) for each in found]  # TensorFlow wraps some
    return [(each, dict(each) if isinstance(each, dict) else set(each) if isinstance(each, set) else list(each)) for each in found]


def _refill(container: Any, content: Any) -> None:
    """Put back what was in a container, without Keras's own containers taking notice."""
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
    """Give layers other calls for a while, past Keras's list of what a layer has."""
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


def check_model(model: Any) -> None:
    """Refuse what is no Keras model."""
    if not isinstance(model, keras.Model):
        refuse(f"expected a Keras model; got {type(model).__name__}.", "Pass the model itself, or load its file first.")


def read(model: keras.Model) -> Graph:
    """The graph of a Sequential or functional model, or of a subclassed one that can be traced. Changes nothing in it."""
    top = functional(model)
    graph = Graph([], [(input_name(t), n, tuple(t.shape[1:]), t.dtype) for n, t in enumerate(top.inputs)], [])

    count = iter(range(len(top.inputs), 10**9))

    def walk(model: keras.Model, known: dict[int, int], prefix: str) -> list[int]:
        """Note the calls in `model`, whose inputs have these numbers; give the numbers of its outputs."""
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
    """Make these calls; `values` holds the tensors that there are, by their numbers, and then those that come out as well."""
    for call in calls:
        tensors = {id(tensor): values[number] for tensor, number in zip(call.node.input_tensors, call.inputs)}
        args, options = call.node.arguments.fill_in(tensors)
        values.update(zip(call.outputs, keras.tree.flatten(call.layer(*args, **options))))


def first_input(args: tuple, kwargs: Mapping[str, Any]) -> Any:
    """The tensor that a layer of one input is called on, by place or by name."""
    return args[0] if args else next(value for value in kwargs.values() if hasattr(value, "shape"))


def input_name(tensor: Any) -> str:
    """The name of an input: that of its layer, which is saved with the model, as a tensor's is not."""
    return tensor._keras_history.operation.name


def rebuild(
    model: keras.Model, touched: Iterable[Any], on_call: Callable, on_input: Callable = lambda tensor: tensor
) -> keras.Model:
    """The model with its calls made again, the layers being the same: `on_call(node, layer, args, kwargs)` makes one.

    `touched` are the nodes where `on_call` does something of its own: nested models without one are kept as they are.
    `on_input(tensor)` gives what is used in place of an input of the model itself.
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
    """A model that is equal and shares nothing: weights, optimizer and its state, compile settings, vocabularies.

    Through a saved file, for that is what Keras promises to restore; but for the compile settings, of which it does not restore a
    loss or a metric that is a function of the user's. Code in it (a Lambda layer) is run where a program made the model, and not
    where it came from a file.
    """
    own = own_objects(model)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "model.keras")
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                model.save(path)
                made = keras.models.load_model(path, custom_objects=own, safe_mode=model in FROM_FILES, compile=False)
        except Exception as error:  # whatever a class of the user's does when it is made again
            for layer in (each for each in model._flatten_layers() if each is not model):
                made_again(layer)
            refuse(
                f"the model {model.name!r} cannot be copied: {described(error)}",
                "Its layers must be saved and loaded by Keras: give them get_config, and register their classes.",
            )
    _check_same(made, model)
    freeze_like(made, model)
    _tell_apart(made, [variable.path for variable in model.variables])
    compile_like(made, model)
    states = [getattr(each.optimizer, "variables", []) if each.compiled else [] for each in (made, model)]
    if [tuple(v.shape) for v in states[0]] == [tuple(v.shape) for v in states[1]]:  # otherwise as Keras does when it loads
        for ours, theirs in zip(*states):
            ours.assign(np.array(keras.ops.convert_to_numpy(theirs)))  # a step on JAX gives its buffers away
    if model in FROM_FILES:
        FROM_FILES.add(made)
    return made


def own_objects(owner: Any) -> dict[str, Any]:
    """The user's classes and functions in a layer, optimizer or metric, by the names that Keras saves; two of one are refused."""
    found: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            saved = set(_saved_names(owner.get_config()))
    except Exception:  # whatever a class of the user's does
        saved = set()
    for part in (part for each in _layers(owner) or [owner] for part in (each, *_attributes(each))):
        named = part if inspect.isfunction(part) or inspect.isclass(part) else type(part)
        own = hasattr(named, "get_config") if inspect.isclass(named) else named.__name__ != "<lambda>"  # which is saved as code
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
    """Yield what a layer, optimizer or metric holds beside layers, but for methods and what a model is compiled with."""
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
    """Refuse a copy with other classes or functions: Keras finds them by name, and takes its own first."""
    for ours, theirs in zip(made._flatten_layers(), model._flatten_layers()):
        pairs: list[tuple[Any, Any]] = [(type(ours), type(theirs))]
        if not isinstance(theirs, keras.Model):  # which keeps functions of its training
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


def freeze_like(new: keras.Layer, old: keras.Layer) -> None:
    """Freeze what is frozen in another layer with the same weights: that of what is inside a layer is not in its config."""
    freeze(new, trainable(old))


def trainable(layer: keras.Layer) -> list[bool]:
    """Return whether each of the layers in a layer that have weights is trained, then whether each weight is."""
    trained = set(map(id, layer.trainable_weights))
    return [*(bool(each.trainable) for each in _with_weights(layer)), *(id(weight) in trained for weight in layer.weights)]


def freeze(layer: keras.Layer, flags: Iterable[bool]) -> None:
    """Train and freeze what these flags of `trainable` say."""
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
    """Make a layer again from its config, or from another one; refuse where its class cannot, and name what is at fault."""
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
    """Compile a model as another one is compiled. Nothing is shared that has a state of its own."""
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
    """A compile setting with optimizers and metrics made again; losses, and functions of the user's, have no state."""
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
    """The model that a serialized configuration describes.

    Layers that a class makes without a name are called as in a process that has made no other model, however many were made in
    this one: sites are named the same in each run.
    """
    config = copying.deepcopy(dict(settings))  # Keras empties what it reads
    flags = config.pop("trainable", ())
    before = global_state.get_global_attribute("object_name_uids") or {}
    global_state.set_global_attribute("object_name_uids", collections.defaultdict(int))
    try:
        made = keras.saving.deserialize_keras_object(config)
    finally:
        counts = global_state.get_global_attribute("object_name_uids")
        counts.update({name: max(count, counts.get(name, 0)) for name, count in before.items()})
    freeze(made, flags)
    _tell_apart(made, [variable.path for variable in made.variables])
    return made


def with_frozen(settings: dict[str, Any], model: keras.Model, made: keras.Model) -> dict[str, Any]:
    """The settings for `make`, with what is frozen in the model where that is not so in the one that was `made` of them."""
    here, there = trainable(model), trainable(made)
    return settings if here == there or len(here) != len(there) else {**settings, "trainable": here}


def _tell_apart(model: keras.Model, paths: Iterable[str]) -> None:
    """Give the variables these paths, with a number where two are alike: Keras leaves the nested models around a layer out of them
    when it makes a model from a config, and on torch keeps parameters by path: of two alike it never clears one's gradients.
    """
    seen: collections.Counter[str] = collections.Counter()
    for variable, path in zip(model.variables, paths):
        variable._path = f"{path}_{seen[path]}" if seen[path] else path
        seen[path] += 1
    for layer in model._flatten_layers():
        if hasattr(layer, "_torch_params"):
            layer._track_variables()


def functional(model: Any) -> keras.Model:
    """The model as a functional one with the same layers; what cannot be seen as such is refused."""
    if not isinstance(model, keras.Model):
        refuse(f"expected a Keras model; got {type(model).__name__}.", "Pass a built Sequential or functional model.")
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
    """Return a model whose calls stay the same ones: itself, or of a subclassed model a functional one, traced once."""
    return model if is_nested(model) else functional(model)


def is_nested(layer: Any) -> bool:
    """Whether a layer is a model that can be opened."""
    return isinstance(layer, keras.Model) and (isinstance(layer, keras.Sequential) or _has_graph(layer))


def nodes(model: keras.Model) -> Iterator[Any]:
    """The calls in the graph of a functional model, each after those that it needs."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.operation is not None and not node.is_input:
                yield node


def trace(model: keras.Model) -> keras.Model:
    """A functional model with the layers of a subclassed one, found by calling it on symbolic inputs.

    Refused where the two could differ: where `call` does other things in training than otherwise (but for passing `training` on),
    uses weights of its own, cannot be called symbolically (as where it adds losses), or where the class trains in a way of its own.
    """
    name = f"{type(model).__name__} is a subclassed model"
    fix = _REWRITE
    if own := _own_training(type(model)):
        refuse(f"{name} with {', '.join(own)} of its own, which a changed copy would lose.", _way_out(model))
    if not model.built:
        refuse(f"{name} that is not built.", "Call it once on a batch of data first.")
    try:
        inputs = _traced_inputs(model)
        plain, training = (model.call(inputs, **({"training": on} if _takes_training(model) else {})) for on in (False, True))
        seen, again = keras.Model(inputs, plain), keras.Model(inputs, training)
    except Exception as error:  # whatever the user's code does with symbolic tensors
        refuse(f"{name} whose call cannot be followed: {described(error)}", _way_out(model))
    if list(map(_signature, nodes(seen))) != list(map(_signature, nodes(again))):
        refuse(f"{name} whose call does something else in training.", fix)
    flags = {id(a): _training(a) != _training(b) for a, b in zip(nodes(seen), nodes(again))}
    frozen = [n.operation.name for n in nodes(seen) if _training(n) and not flags[id(n)]]
    if frozen:
        refuse(f"{name} whose call fixes training=True for {', '.join(frozen)}.", fix)

    def on_call(node: Any, layer: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        if flags[id(node)]:  # it passes its own flag on: left out, Keras does so
            bound = inspect.signature(layer.call).bind(*args, **kwargs)
            bound.arguments.pop("training")
            args, kwargs = bound.args, bound.kwargs
        return layer(*args, **kwargs)

    traced = rebuild(seen, (), on_call)
    traced.name = model.name
    if {id(v) for v in traced.weights} != {id(v) for v in model.weights}:
        refuse(f"{name} with weights that its layers' calls do not show.", fix)
    x = keras.tree.map_structure(lambda t: 2 * np.random.default_rng(0).random((2, *(n or 3 for n in t.shape[1:]))), traced.input)
    with keras.StatelessScope():
        ours, theirs = (keras.tree.flatten(f(x)) for f in (traced, model))
    if differ(ours, theirs):
        refuse(f"{name} whose call does more than its layers show: a functional copy predicts something else.", fix)
    return traced


def differ(one: list, two: list) -> bool:
    """Whether two lists of tensors differ anywhere."""
    to_numpy = keras.ops.convert_to_numpy
    return any(not np.array_equal(to_numpy(a), to_numpy(b), equal_nan=True) for a, b in zip(one, two))


def carry_optimizer(source: Any, model: keras.Model) -> None:
    """Give the model's new optimizer the state of `source`, weight by weight: their order may be another."""
    if source is None or not source.built:
        return
    named = type(source).from_config(source.get_config())  # its state is named for the paths that the weights have now
    named.build(source._trainable_variables)
    stored: dict[tuple, list] = {}
    for like, variable in zip(named.variables, source.variables):
        stored.setdefault((like.name, tuple(variable.shape)), []).append(variable)
    for variable in model.optimizer.variables:
        if found := stored.get((variable.name, tuple(variable.shape))):
            variable.assign(found.pop(0).value)


def _way_out(model: keras.Model) -> str:
    """Say what to do with a model that cannot be read: take one in it that can, or write the layers into it."""
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
    """An input of the same name, shape and type."""
    layer = tensor._keras_history.operation
    if isinstance(layer, keras.layers.InputLayer):
        return keras.layers.InputLayer.from_config(layer.get_config()).output
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)


def _like(old: keras.Model, inputs: Any, outputs: Any, nested: bool) -> keras.Model:
    """A model of the class of `old` from `inputs` to `outputs`; of one that was traced, a functional model.

    Calling a subclass with (inputs, outputs) changes the class for good: Keras puts Functional among its bases, and it can no
    longer be made with its own arguments. It would also make its layers again. So the model is made by keras.Model here;
    `_of_class` then turns it into the class where that works.
    """
    made = keras.Model(inputs, outputs, name=old.name)
    given: dict[str, Any] = {"inputs": inputs, "outputs": outputs}
    if isinstance(old, keras.Sequential):
        start = keras.tree.flatten(inputs)[0]
        # Without the operations that compute a mask: the layers bring them along.
        chain = [node.operation for node in nodes(made) if isinstance(node.operation, keras.Layer)]
        given = {"layers": [start._keras_history.operation, *chain]}
        made = keras.Sequential(**given, name=old.name)
    if _has_graph(old) or isinstance(old, keras.Sequential):
        made = _of_class(type(old), made, given, nested)
    if not old.trainable:
        made.trainable = False
    return made


def _of_class(cls: type, made: keras.Model, given: dict[str, Any], nested: bool) -> keras.Model:
    """The model as one of a class of the user's, where the class can be made from layers, or from inputs and outputs.

    Where it cannot, the model has the same layers, which is said; unless the class trains in a way of its own.
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


def _traced_inputs(model: keras.Model) -> Any:
    config = model.get_build_config() or {}
    shapes = config.get("input_shape") or config.get("shapes_dict")
    if not shapes:
        raise ValueError("the shape of its inputs is not known")
    if isinstance(shapes, dict) and len(shapes) == 1:
        shapes = next(iter(shapes.values()))
    return keras.tree.map_shape_structure(lambda shape: keras.Input(batch_shape=(None, *shape[1:])), shapes)


def _takes_training(model: keras.Model) -> bool:
    return "training" in inspect.signature(model.call).parameters


def _training(node: Any) -> Any:
    """The flag that a call was given, by name or by place."""
    with contextlib.suppress(TypeError, ValueError):
        bound = inspect.signature(node.operation.call).bind(*node.arguments.args, **node.arguments.kwargs)
        return bound.arguments.get("training")
    return node.arguments.kwargs.get("training")


def _signature(node: Any) -> tuple:
    """What a call is, but for the tensors' values and the flag of training; operations are made anew at each call."""
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
