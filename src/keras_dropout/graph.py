"""A model as the calls of its layers in the order of the data, nested models opened; and the same calls made again.

Keras keeps a functional model as nodes, one for each call of a layer. They are read here, and nowhere else, from `_nodes_by_depth`,
`arguments` and `outputs`: Keras's own `clone_model` skips nested models and gives no call a name.
"""

import collections
import contextlib
import copy as copying
import inspect
import io
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state  # the counts behind automatic names have no public name

from keras_dropout.errors import refuse

# What a class of its own may change in how a model is trained; it is lost in a functional model.
_TRAINING_METHODS = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "fit", "evaluate", "predict")


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

    def before(self, call: Call) -> list[Call]:
        """The calls that made the inputs of this one."""
        return [self.makers[tensor] for tensor in call.inputs if tensor in self.makers]


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
        return _like(old, inputs, keras.tree.map_structure(lambda tensor: tensors[id(tensor)], graph.output))

    return again(model, on_input)


def copy(model: keras.Model) -> keras.Model:
    """A model that is equal and shares nothing: weights, optimizer and its state, compile settings, vocabularies.

    Through a saved file, for that is what Keras promises to restore. Code in it (a Lambda layer) is run where a program made the
    model, and not where it came from a file.
    """
    from_file = getattr(model, "_from_file", False)
    classes = {type(layer) for layer in model._flatten_layers()}
    custom = {cls.__name__: cls for cls in classes if not cls.__module__.startswith("keras.")}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what a fresh optimizer lacks
        path = Path(folder, "model.keras")
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                model.save(path)
                made = keras.models.load_model(path, custom_objects=custom, safe_mode=from_file)
        except Exception as error:  # whatever a class of the user's does when it is made again
            refuse(
                f"the model {model.name!r} cannot be copied: {_first_line(error)}",
                "Its layers must be saved and loaded by Keras: give them get_config, and register their classes.",
            )
    for ours, theirs in zip(made._flatten_layers(), model._flatten_layers()):
        if ours.trainable != theirs.trainable:  # what is frozen inside a layer of several is not in its config
            ours.trainable = theirs.trainable
    _tell_apart(made, [variable.path for variable in model.variables])
    made._from_file = from_file
    return made


def make(settings: Mapping[str, Any]) -> keras.Model:
    """The model that a serialized configuration describes.

    Layers that a class makes without a name are called as in a process that has made no other model, however many were made in
    this one: sites are named the same in each run.
    """
    before = global_state.get_global_attribute("object_name_uids") or {}
    global_state.set_global_attribute("object_name_uids", collections.defaultdict(int))
    try:
        made = keras.saving.deserialize_keras_object(copying.deepcopy(dict(settings)))  # Keras empties what it reads
    finally:
        counts = global_state.get_global_attribute("object_name_uids")
        counts.update({name: max(count, counts.get(name, 0)) for name, count in before.items()})
    _tell_apart(made, [variable.path for variable in made.variables])
    return made


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
    made._from_file = getattr(model, "_from_file", False)
    return made


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
    mend = "Write it as a Sequential or functional model."
    own = [m for m in _TRAINING_METHODS if getattr(type(model), m) is not getattr(keras.Model, m)]
    if own:
        refuse(f"{name} with {', '.join(own)} of its own, which a changed copy would lose.", mend)
    if not model.built:
        refuse(f"{name} that is not built.", "Call it once on a batch of data first.")
    try:
        inputs = _traced_inputs(model)
        plain, training = (model.call(inputs, **({"training": on} if _takes_training(model) else {})) for on in (False, True))
        seen, again = keras.Model(inputs, plain), keras.Model(inputs, training)
    except Exception as error:  # whatever the user's code does with symbolic tensors
        refuse(f"{name} whose call cannot be followed: {_first_line(error)}", mend)
    if list(map(_signature, nodes(seen))) != list(map(_signature, nodes(again))):
        refuse(f"{name} whose call takes another way in training.", mend)
    flags = {id(a): _training(a) != _training(b) for a, b in zip(nodes(seen), nodes(again))}
    frozen = [n.operation.name for n in nodes(seen) if _training(n) and not flags[id(n)]]
    if frozen:
        refuse(f"{name} whose call fixes training=True for {', '.join(frozen)}.", mend)

    def on_call(node: Any, layer: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        if flags[id(node)]:  # it passes its own flag on: left out, Keras does so
            bound = inspect.signature(layer.call).bind(*args, **kwargs)
            bound.arguments.pop("training")
            args, kwargs = bound.args, bound.kwargs
        return layer(*args, **kwargs)

    traced = rebuild(seen, (), on_call)
    traced.name = model.name
    if {id(v) for v in traced.weights} != {id(v) for v in model.weights}:
        refuse(f"{name} with weights that its layers' calls do not show.", mend)
    x = keras.tree.map_structure(lambda t: 2 * np.random.default_rng(0).random((2, *(n or 3 for n in t.shape[1:]))), traced.input)
    ours, theirs = (keras.tree.map_structure(keras.ops.convert_to_numpy, keras.tree.flatten(each(x))) for each in (traced, model))
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(ours, theirs)):
        refuse(f"{name} whose call does more than its layers show: a functional copy predicts something else.", mend)
    if model.compiled:
        traced.compile_from_config(model.get_compile_config())
        carry_optimizer(model.optimizer, traced)
    return traced


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


def _has_graph(model: keras.Model) -> bool:
    return hasattr(model, "_nodes_by_depth")


def fresh_input(tensor: Any) -> Any:
    """An input of the same name, shape and type."""
    layer = tensor._keras_history.operation
    if isinstance(layer, keras.layers.InputLayer):
        return keras.layers.InputLayer.from_config(layer.get_config()).output
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)


def _like(old: keras.Model, inputs: Any, outputs: Any) -> keras.Model:
    """A model of the class of `old` from `inputs` to `outputs`; of one that was traced, a functional model.

    Given inputs and outputs, `keras.Model` makes the class that asks a functional one for good, so that it cannot be made as
    before; and its constructor would make its layers once more.
    """
    made = keras.Model(inputs, outputs, name=old.name)
    if isinstance(old, keras.Sequential):
        start = keras.tree.flatten(inputs)[0]
        # Without the operations that compute a mask: the layers bring them along.
        chain = [node.operation for node in nodes(made) if isinstance(node.operation, keras.Layer)]
        made = keras.Sequential([start._keras_history.operation, *chain], name=old.name)
    elif _has_graph(old) and type(old) is not type(made):
        try:
            made = type(old)(inputs=inputs, outputs=outputs, name=old.name)
        except TypeError:
            refuse(
                f"{type(old).__name__} has a constructor of its own: a changed copy cannot be made with it.",
                "Build the model with keras.Model(inputs, outputs), or let the class accept these arguments.",
            )
    if not old.trainable:
        made.trainable = False
    return made


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


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
