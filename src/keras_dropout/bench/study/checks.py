"""Check whether a model, its data and its settings fit together: everything that can be refused before training."""

import contextlib
import copy
import importlib.util
import math
import numbers
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keras_dropout.bench.data import arrays
from keras_dropout.bench.data.columns import as_number
from keras_dropout.bench.data.dataset import Data, Part
from keras_dropout.bench.study import own_classes
from keras_dropout.errors import described, refuse
from keras_dropout.models.targets import module_name

_SPARSE = {"sparsecategoricalcrossentropy"}
_BINARY = {"binarycrossentropy", "bce", "binaryfocalcrossentropy"}
_CATEGORICAL = {"categoricalcrossentropy", "categoricalfocalcrossentropy"}
_REGRESSION = {"mse", "meansquarederror", "mae", "meanabsoluteerror", "mape", "meanabsolutepercentageerror", "msle"}
_REGRESSION |= {"meansquaredlogarithmicerror", "huber", "logcosh", "poisson", "cosinesimilarity"}
_DIVERGENCE = {"kld", "kldivergence", "kullbackleiblerdivergence"}
_RANGES = {  # lower and upper limit of the values of an activation
    **dict.fromkeys(("softmax", "sigmoid", "hard_sigmoid", "sparsemax"), (0, 1)),
    **dict.fromkeys(("tanh", "hard_tanh", "softsign", "soft_sign"), (-1, 1)),
    **dict.fromkeys(("relu", "softplus", "exponential"), (0, math.inf)),
    "relu6": (0, 6),
    **dict.fromkeys(("log_softmax", "log_sigmoid"), (-math.inf, 0)),
    **dict.fromkeys(("linear", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish"), (-math.inf, math.inf)),
}
_PROBABILITIES = tuple(name for name, between in _RANGES.items() if between == (0, 1))


def check_compiled(model: Any) -> None:
    """Refuse a model that is not compiled, or is compiled without a loss."""
    if not getattr(model, "compiled", False):
        refuse(f"the model {model.name!r} is not compiled.", 'For example model.compile("adam", loss="mse", metrics=["mae"]).')
    if model.get_compile_config().get("loss") is None:
        refuse(f"the model {model.name!r} is compiled without a loss.", 'For example model.compile("adam", loss="mse").')


def settings_of(model: Any) -> dict[str, Any]:
    """Return Keras's serialisation of a model without its compile settings; refuse a model that cannot be serialised.

    Keras stores the adapted mean and variance of a Normalization as weights. Here they are settings, because runs start with new
    weights.
    """
    import keras

    layers = adapted(model)
    try:
        for layer in layers:
            layer.input_mean, layer.input_variance = layer.adapt_mean.numpy(), layer.adapt_variance.numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings = keras.saving.serialize_keras_object(model)
    except Exception as error:  # the user's get_config may raise anything
        refuse(
            f"the model {model.name!r} cannot be described by its configuration: {described(error)}",
            "Give every layer of your own a get_config that returns the arguments of its constructor.",
        )
    finally:
        for layer in layers:
            layer.input_mean = layer.input_variance = None
    return {name: value for name, value in settings.items() if name != "compile_config"}


def without_batch(settings: Any) -> Any:
    """Return the settings of a subclassed model's layers without the batch size of the model's first call."""
    if isinstance(settings, (list, tuple)):
        return [without_batch(each) for each in settings]
    if not isinstance(settings, Mapping):
        return settings
    shapes = {name: _any_batch(value) for name, value in (settings.get("build_config") or {}).items()}
    return {name: shapes if shapes and name == "build_config" else without_batch(value) for name, value in settings.items()}


def _any_batch(shape: Any) -> Any:
    if isinstance(shape, Mapping):
        return {name: _any_batch(each) for name, each in shape.items()}
    if isinstance(shape, (list, tuple)) and shape and all(size is None or isinstance(size, int) for size in shape):
        return [None, *shape[1:]]
    return [_any_batch(each) for each in shape] if isinstance(shape, (list, tuple)) else shape


def portable(settings: Any) -> Any:
    """Return an optimizer's settings for every backend: on torch, Keras swaps the class for its torch version, also in files."""
    if not isinstance(settings, Mapping):
        return settings
    said = {name: portable(value) for name, value in settings.items()}
    if str(said.get("module")).startswith("keras.src.backend."):
        said |= {"module": "keras.optimizers", "registered_name": None}
    return said


def adapted(model: Any) -> list[Any]:
    """Return the layers that may have been adapted to data: each Normalization with its mean among its weights."""
    import keras

    normalizations = (layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Normalization))
    return [layer for layer in normalizations if layer.built and layer.input_mean is None]


def weights_of(model: Any) -> tuple[np.ndarray, ...]:
    """Return the weights without the statistics that `settings_of` stores as settings."""
    settings = {id(variable) for layer in adapted(model) for variable in layer.variables}
    return tuple(variable.numpy() for variable in model.weights if id(variable) not in settings)


def check_statistics(model: Any, made: Any) -> None:
    """Refuse a class that makes its Normalization itself and loses the adapted statistics."""
    lost = [layer for layer in adapted(model) if layer.adapt_mean.numpy().any()]
    if lost and adapted(made):
        refuse(
            f"what the layer {lost[0].name!r} was adapted to is not in the model's configuration: each run would begin without it.",
            "Make the layer with Normalization(mean=…, variance=…), and build it there; or normalize the data.",
        )


def check_same(model: Any, given: Any, made: Any) -> None:
    """Refuse a model whose classes, functions or number of weights differ after it is made again, compile settings included."""
    there, again = own_classes.kinds(model, given), own_classes.kinds(made, made)
    if there != again:
        lost, new = (", ".join(map(_shown, each)) or "nothing" for each in (there - again, again - there))
        refuse(
            f"made again from its configuration, the model has {new} where it has {lost} now.",
            "Give each class and function of your own another name, and make the model anew after you define one again.",
        )
    # A layer that is called directly and also inside a wrapper becomes two layers in a configuration.
    if (now := len(weights_of(model))) != (then := len(weights_of(made))):
        refuse(
            f"the model has {now} weights; made again from its configuration, it has {then}: what it shares is not shared there.",
            "Call a shared layer always directly, or always in the same wrapper object.",
        )


def _shown(kind: Any) -> str:
    return kind[0] if isinstance(kind, tuple) else own_classes.shown(kind)


def check_can_be_made_again(
    settings: Mapping[str, Any], compiled: Mapping[str, Any], source: str | None, live: Mapping[str, list[Any]]
) -> tuple[Any, dict[str, Any]]:
    """Return the model made again, and the fields of a study that let a worker make it.

    A worker imports the `modules` and runs the file `source`. It receives as `objects` the classes and functions of the user's
    program, `live`, that neither provides. Refuse a model that a worker cannot make.
    """
    import keras

    from keras_dropout.models import graph

    found = dict(each for each in (_look_up(part, live) for part in _custom([settings, compiled])) if each is not None)
    own = source and module_name(source)
    registered = dict(keras.saving.get_custom_objects())
    modules = {each.__module__ for each in found.values() if not each.__module__.startswith("keras.")}
    lost = {module for module in modules - {own} if module == "__main__" or _find_spec(module) is None}
    sent = {name: each for name, each in found.items() if each.__module__ in lost or name not in registered}
    objects = own_classes.packed(sent) if sent else None
    try:
        with own_classes.known(objects):
            model = graph.make(settings)
            model.compile_from_config(copy.deepcopy(compiled))
    except Exception as error:  # the user's from_config may raise anything
        refuse(
            f"the model cannot be made again from its configuration: {described(error)}",
            "Give each class of your own a get_config that returns the arguments of its constructor, and try "
            "keras.models.load_model on the saved model.",
        )
    needed = {"modules": tuple(sorted(modules - lost - {own})), "source": source if own in modules else None}
    return model, needed | {"objects": objects, "objects_hash": own_classes.hash_of(found, read=own)}


def _custom(value: Any) -> Iterator[Mapping[str, Any] | str]:
    """Yield the parts of a configuration whose names may not be Keras's own."""
    if isinstance(value, Mapping):
        kind, module = value.get("class_name"), value.get("module")
        if isinstance(kind, str) and ("registered_name" in value or kind == "__lambda__"):
            if kind == "__lambda__":
                refuse(
                    "the model holds a lambda, which is not sent to other processes.",
                    "Write it as a function: def …",
                )
            keras_own = str(module) == "keras" or str(module).startswith("keras.") or kind.startswith("__")
            if kind == "function" or not keras_own:
                yield value
        for each in value.values():
            yield from _custom(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _custom(each)
    elif isinstance(value, str) and ">" in value:
        yield value


def _look_up(found: Mapping[str, Any] | str, live: Mapping[str, list[Any]]) -> tuple[str, Any] | None:
    """Return the name and the user's class or function; None for one of Keras's own; refuse an unknown name."""
    if isinstance(found, str):
        known = _only_one(found, live)
        return None if known is None else (found, known)
    function = found["class_name"] == "function"
    name = found["config"] if function else found.get("registered_name") or found["class_name"]
    known = _only_one(name, live)
    if known is not None:
        return name, known
    if not function or not _is_keras_function(found):
        refuse(
            f"{name if function else found['class_name']} is not Keras's own, and Keras does not know how to make it.",
            "Decorate it with @keras.saving.register_keras_serializable().",
        )
    return None


def _only_one(name: str, live: Mapping[str, list[Any]]) -> Any:
    """Return the model's class or function with this name; refuse a name that another object has too, also one of Keras."""
    import keras

    same_name = live.get(name, [])
    found = [each for each in same_name if not isinstance(each, str)]
    own = [each for each in found if not own_classes.is_keras(each)]
    others = [each for each in same_name if each not in own and (each in found or _means_another(each, own))]
    if own and len(own + others) > 1:
        first, second = map(own_classes.shown, (own + others)[:2])
        refuse(
            f"two different objects are called {name!r}: {first} and {second}.",
            "Rename one, or register each under a name of its own: @keras.saving.register_keras_serializable(name=…).",
        )
    return found[0] if found else keras.saving.get_registered_object(name)


def _means_another(text: str, own: list[Any]) -> bool:
    """Return whether a text names an activation, loss or metric of Keras that is not among `own`."""
    import keras

    for home in (keras.activations, keras.losses, keras.metrics):
        with contextlib.suppress(ValueError, TypeError):
            return home.get(text) not in own
    return False


def _is_keras_function(found: Mapping[str, Any]) -> bool:
    import keras

    try:
        keras.saving.deserialize_keras_object(dict(found))
    except Exception:  # Keras raises several kinds of errors here
        return False
    return True


def _find_spec(module: str) -> Any:
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None


def check_data(model: Any, data: Data, split: str, batch_size: int, loss: Any) -> tuple[str, ...]:
    """Return notes; refuse data that do not fit the model, its loss or the batch size, or that leave nothing to learn."""
    notes: list[str] = []
    for role, part in {"training": data.train, "test": data.test}.items():
        notes += check_part(model, role, part, loss, data.classes, data.whole and role == "training")
    rows = arrays.count(data.parts(split)["train"].y)
    if rows < batch_size:
        refuse(
            f"there are {rows} training examples, fewer than the batch size of {batch_size}.",
            f"Use a batch size of at most {rows}, or more data.",
        )
    return tuple(dict.fromkeys(notes))


def check_part(
    model: Any, role: str, part: Part, loss: Any, classes: tuple[str, ...] = (), must_differ: bool = False
) -> Iterator[str]:
    """Yield notes on examples; refuse those that do not fit the model or its loss, or with `must_differ` have the same answer."""
    for name, x in arrays.named(part.x):
        _check_finite(f"the {role} inputs{name and f' {name!r}'}", x)
    for name, y in arrays.named(part.y):
        _check_finite(f"the {role} targets{name and f' {name!r}'}", y)
    _check_weights(role, part)
    outputs = _check_inputs(model, role, part)
    for name, y, output, one_loss in _by_output(model, role, part.y, outputs, loss):
        what = f"the {role} targets{name and f' of output {name!r}'}"
        _check_targets(what, y, output, one_loss, must_differ)
        own = classes if isinstance(part.y, np.ndarray) else ()
        yield from _check_output(what, f"the output{name and f' {name!r}'}", y, output, one_loss, own)


def _check_finite(what: str, array: Any) -> None:
    if not np.issubdtype(array.dtype, np.floating):
        return
    bad = sum(int((~np.isfinite(block)).reshape(len(block), -1).any(axis=1).sum()) for block in arrays.blocks(array))
    if bad:
        refuse(f"{what} hold nan or infinity, in {bad} of {len(array)} examples.", "Leave these out, or fill them in first.")


def _check_weights(role: str, part: Part) -> None:
    for _, weights in arrays.named(part.weights) if part.weights is not None else ():
        if not np.isfinite(weights).all() or (weights < 0).any():
            refuse(f"the {role} weights must be at least 0; got {weights.min()}.", "A weight of 0 leaves an example out.")
        if not weights.any():
            refuse(f"the {role} weights are all 0.", "Give at least some examples a weight.")


def _check_inputs(model: Any, role: str, part: Part) -> Any:
    """Return the model's symbolic outputs for these inputs; refuse inputs that the model does not take."""
    import keras

    if getattr(model, "inputs", None):
        structure = None if isinstance(model, keras.Sequential) else model.input
        expected = structure if isinstance(structure, dict) else {tensor.name: tensor for tensor in model.inputs}
        shown = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in expected.items())
        given = arrays.named(part.x)
        got = ", ".join(f"{name} {array.shape}".strip() for name, array in given)
        fix = "Name the inputs as the model does: {" + ", ".join(f"{name!r}: …" for name in expected) + "}."
        if len(given) != len(expected) or (isinstance(part.x, dict) and set(part.x) != set(expected)):
            refuse(f"the model takes the input(s) {shown}; the {role} data have {got}.", fix)
        for name, array in given if isinstance(part.x, dict) else zip(expected, (array for _, array in given)):
            tensor = expected[name]
            if not _fits(array.shape, tensor.shape):
                refuse(
                    f"input {name!r} takes the shape {tuple(tensor.shape)}; the {role} data have {array.shape}.",
                    "Reshape the data, or change the model's Input.",
                )
        return model.outputs[0] if isinstance(model, keras.Sequential) else model.output

    def symbol(x: Any) -> Any:
        return keras.KerasTensor((None, *x.shape[1:]), "float32" if np.issubdtype(x.dtype, np.floating) else "int32")

    symbols = keras.tree.map_structure(symbol, part.x)
    try:
        return model(symbols, training=False)
    except Exception as error:  # the user's own call may raise anything
        refuse(f"the model does not take the {role} inputs: {described(error)}", "Give the data the shape that it takes.")


def _fits(shape: tuple, expected: tuple) -> bool:
    """Return whether arrays of a shape fit an expected shape; as in Keras, a last axis of 1 is optional."""
    return any(
        len(one) == len(expected) and all(e is None or e == s for s, e in zip(one[1:], expected[1:]))
        for one in (shape, (*shape, 1), shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape)
    )


def _by_output(model: Any, role: str, y: Any, outputs: Any, loss: Any) -> Iterator[tuple[str, Any, Any, Any]]:
    """Yield (name, targets, output, loss) for each output that has a loss."""
    import keras

    flat = list(outputs.values()) if isinstance(outputs, dict) else keras.tree.flatten(outputs)
    names = list(outputs) if isinstance(outputs, dict) else list(getattr(model, "output_names", None) or map(str, range(len(flat))))
    given = arrays.named(y)
    got = ", ".join(f"{name} {array.shape}".strip() for name, array in given)
    if len(given) != len(flat) or (isinstance(y, dict) and set(y) != set(names)):
        shown = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in zip(names, flat))
        fix = "Give one array of targets for each output: {" + ", ".join(f"{name!r}: …" for name in names) + "}."
        refuse(f"the model has the output(s) {shown}; the {role} targets are {got}.", fix)
    targets = [y[name] for name in names] if isinstance(y, dict) else [array for _, array in given]
    if isinstance(loss, (list, tuple)):
        losses = list(loss) if len(loss) == len(flat) else [None] * len(flat)
    elif isinstance(loss, Mapping) and "class_name" not in loss:
        losses = [loss.get(name) for name in names]
    else:
        losses = [loss] * len(flat)
    for name, target, output, one_loss in zip(names, targets, flat, losses):
        if one_loss is not None:
            yield (name if len(flat) > 1 else ""), target, output, one_loss


def _loss_name(loss: Any) -> str:
    if isinstance(loss, str):
        return loss
    return str(loss["config"] if loss.get("class_name") == "function" else loss.get("class_name"))


def loss_kind(loss: Any, y: Any, units: int | None) -> str:
    """Return "sparse", "binary", "categorical" or "regression", or "other" for a loss that is not a common one of Keras."""
    name = _loss_name(loss).replace("_", "").lower()
    if name in ("crossentropy", "ce"):  # Keras chooses by the shapes
        return "binary" if units == 1 else "sparse" if np.issubdtype(y.dtype, np.integer) else "categorical"
    kinds = {"sparse": _SPARSE, "binary": _BINARY, "categorical": _CATEGORICAL, "regression": _REGRESSION}
    return next((kind for kind, known in kinds.items() if name in known), "other")


def _check_targets(what: str, y: np.ndarray, output: Any, loss: Any, trained: bool) -> None:
    shape = tuple(output.shape)
    kind = loss_kind(loss, y, shape[-1])
    if kind == "other":
        return
    if kind == "sparse":
        _check_labels(what, y, shape, (loss.get("config") if isinstance(loss, Mapping) else None) or {})
    elif not _fits(y.shape, shape):
        fix = "Give the model's output and the targets the same width."
        if kind == "categorical" and _fits(y.shape, (*shape[:-1], 1)):
            fix = "For class numbers use the loss sparse_categorical_crossentropy."
        elif kind in ("regression", "binary") and shape[-1] != 1 and _fits(y.shape, (*shape[:-1], 1)):
            single = "one quantity give it one unit" if kind == "regression" else "two classes give it one unit and sigmoid"
            fix = f"For class numbers use the loss sparse_categorical_crossentropy and end the model with softmax; for {single}."
        refuse(f"{what} have the shape {y.shape}; the model gives {shape}.", fix)
    if kind == "binary" and (y.min() < 0 or y.max() > 1):
        refuse(f"{what} must lie between 0 and 1 for a binary loss; got {y.min()} to {y.max()}.", "Number the two classes 0 and 1.")
    if trained and len(y) > 1:
        one = arrays.classes(y) if kind == "categorical" else y
        if one.min() == one.max():
            value = one.reshape(-1)[0]
            refuse(f"{what} are all the same ({value}): there is nothing to learn.", "Check which column is the target.")


def _check_labels(what: str, y: np.ndarray, shape: tuple, config: Mapping[str, Any]) -> None:
    units = shape[-1]
    if not _fits(y.shape, (*shape[:-1], 1)):
        refuse(
            f"{what} have the shape {y.shape}; a sparse loss takes one class number for each of {shape[:-1]}.",
            "For one-hot targets use the loss categorical_crossentropy.",
        )
    labels = y[y != config["ignore_class"]] if config.get("ignore_class") is not None else y
    if not len(labels):
        return
    if not np.issubdtype(y.dtype, np.integer) and (labels != np.round(labels)).any():
        refuse(f"{what} must be class numbers; got {labels[labels != np.round(labels)][0]}.", "Number the classes 0, 1, 2, …")
    if labels.min() < 0 or (units is not None and labels.max() >= units):
        refuse(
            f"{what} must be class numbers from 0 to {units - 1}, one for each unit; got {labels.min()} to {labels.max()}.",
            "Number the classes from 0 on, and give the last layer one unit for each.",
        )


def _check_output(what: str, output_name: str, y: np.ndarray, output: Any, loss: Any, classes: tuple[str, ...]) -> list[str]:
    """Return notes on the fit of loss, last layer and targets; refuse combinations that cannot work."""
    units, name = output.shape[-1], _loss_name(loss)
    kind, short = loss_kind(loss, y, units), name.replace("_", "").lower()
    activation = _activation(output)
    notes: list[str] = []
    if activation in ("softmax", "sparsemax") and units == 1:
        refuse(
            f"{output_name} is {activation} over one unit, which is 1 whatever the input.",
            'End with activation="sigmoid" and the loss binary_crossentropy, or give each class a unit.',
        )
    if kind in ("sparse", "categorical", "binary") or short in _DIVERGENCE:
        notes += _check_probabilities(output_name, activation, loss, kind)
    if kind in ("sparse", "categorical") and activation in ("sigmoid", "hard_sigmoid"):
        notes.append(f"{output_name} is {activation}, and the loss {name} divides it by its sum over the units: softmax is usual")
    if kind == "binary" and activation == "softmax" and units > 2:
        notes.append(f"{output_name} is softmax, of which one unit is true, and the loss {name} takes each unit alone")
    if kind == "categorical":
        if units == 1:
            refuse(
                f"the loss {name} over one unit is 0 whatever the input.",
                'End with activation="sigmoid" and the loss binary_crossentropy, or give each class a unit.',
            )
        wrong = padded = 0
        for block in arrays.blocks(y):
            empty = ~block.any(axis=-1) & (y.ndim > 2)  # steps after the end of a sequence, where the loss is 0
            wrong += int(((np.abs(block.sum(axis=-1) - 1) > 1e-3) & ~empty).sum() + (block < 0).sum())
            padded += int(empty.sum())
        if padded:
            notes.append(
                f"{what} have no class at {padded} of {math.prod(y.shape[:-1])} places: the loss {name} is 0 there, and an "
                "accuracy takes them for the first class"
            )
        if wrong:
            refuse(
                f"{what} must be shares of the classes that sum to 1 for the loss {name}; {wrong} do not.",
                'Where several classes are true at once, end with activation="sigmoid" and use the loss binary_crossentropy.',
            )
    if short in ("hinge", "squaredhinge") and not np.isin(y, (-1, 0, 1)).all():
        refuse(f"{what} must be -1 and 1, or 0 and 1, for the loss {name}; got {y.min()} to {y.max()}.", "Number the classes so.")
    if kind == "regression":
        notes += _check_quantity(what, output_name, y, units, activation, name, classes)
    return notes


def _check_probabilities(output_name: str, activation: str | None, loss: Any, kind: str) -> list[str]:
    """Return notes on bounded logits; refuse logits for a loss of probabilities, and probabilities for a loss of logits."""
    name = _loss_name(loss)
    config = loss.get("config") if isinstance(loss, Mapping) else None
    from_logits = bool(config.get("from_logits")) if isinstance(config, Mapping) else False
    if from_logits and activation in _PROBABILITIES:
        refuse(
            f"the loss {name} takes logits (from_logits=True), and {output_name} is {activation}: probabilities.",
            'Leave from_logits out, or end with activation="linear".',
        )
    if not from_logits and activation in _RANGES and activation not in (*_PROBABILITIES, "softplus", "exponential"):
        usual = "sigmoid" if kind == "binary" else "softmax"
        logits = kind != "other" and _RANGES[activation] == (-math.inf, math.inf)
        by_hand = ", or leave the model as it is and give the loss from_logits=True" if logits else ""
        refuse(
            f"the loss {name} takes probabilities, and {output_name} is {activation}.",
            f'End with activation="{usual}"{by_hand}.',
        )
    low, high = _RANGES.get(activation or "", (-math.inf, math.inf))
    # A softmax depends only on differences of logits; they are unlimited if one side of the range is unbounded.
    if from_logits and (any if kind == "binary" else all)(map(math.isfinite, (low, high))):
        return [f"{output_name} is {activation}, from {low:g} to {high:g}, and the loss {name} takes logits: linear is usual"]
    return []


def _check_quantity(
    what: str, output_name: str, y: np.ndarray, units: int | None, activation: str | None, name: str, classes: tuple[str, ...]
) -> list[str]:
    """Return notes on targets of a regression loss; refuse class numbers, and values that the output cannot reach."""
    notes: list[str] = []
    low, high = float(y.min()), float(y.max())
    if classes and (y.ndim == 1 or y.shape[-1] == 1):
        if all(as_number(each) is not None for each in classes):
            if [float(each) for each in classes] != list(range(len(classes))):
                refuse(
                    f"{what} are numbers of the classes {', '.join(classes[:5])}, …; the loss {name} takes quantities.",
                    'Say that they are quantities: --task regression, in Python data_options={"task": "regression"}.',
                )
        elif len(classes) > 2:
            refuse(
                f"{what} are the classes {', '.join(classes[:5])}, whose numbers have no distances; the loss {name} measures such.",
                f'End with {len(classes)} units and activation="softmax", and use the loss sparse_categorical_crossentropy.',
            )
        else:
            notes.append(f"the classes {' and '.join(classes)} are learned as the numbers 0 and 1, by the loss {name}")
    short = name.replace("_", "").lower()
    least, most = _RANGES.get(activation or "", (-math.inf, math.inf))
    slack = 1e-3
    if (least, most) in ((0, 1), (-1, 1), (0, 6)) and (low < least - slack or high > most + slack):
        refuse(
            f"{what} lie between {low:g} and {high:g}; {output_name} is {activation}, from {least} to {most}.",
            'End with activation="linear", or scale the targets.',
        )
    if low < least - slack or high > most + slack:
        notes.append(f"{what} lie between {low:g} and {high:g}; {output_name} is {activation}, from {least:g} to {most:g}")
    if short in ("poisson", "msle", "meansquaredlogarithmicerror") and low < 0:
        refuse(f"{what} must be at least 0 for the loss {name}; got {low:g}.", "Use the loss mse, or other targets.")
    if short == "poisson" and activation and least < 0:
        refuse(
            f"the loss {name} takes the logarithm of the output, and {output_name} is {activation}: it may be negative.",
            'End with activation="exponential" or "softplus".',
        )
    if short in ("mape", "meanabsolutepercentageerror") and (y == 0).any():
        notes.append(f"{what} hold 0, at which the loss {name} has no bound")
    if short == "cosinesimilarity" and units == 1:
        refuse(f"the loss {name} over one unit sees the sign alone.", "Use the loss mse.")
    return notes


def _activation(output: Any) -> str | None:
    """Return the name of the Keras activation that gives an output, or None if it is unknown."""
    import keras

    passes = (keras.layers.Reshape, keras.layers.Flatten, keras.layers.Permute, keras.layers.Identity)
    while (history := getattr(output, "_keras_history", None)) is not None:
        layer = history.operation
        if isinstance(layer, keras.Model):
            if not getattr(layer, "outputs", None):
                return None
            output = layer.outputs[history.tensor_index]
            continue
        while isinstance(layer, keras.layers.Wrapper):
            layer = layer.layer
        if isinstance(layer, passes) or type(layer).__name__.endswith("Dropout"):
            output = layer._inbound_nodes[history.node_index].input_tensors[0]
            continue
        if isinstance(layer, keras.layers.Softmax | keras.layers.ReLU | keras.layers.LeakyReLU | keras.layers.ELU):
            return {"Softmax": "softmax", "LeakyReLU": "leaky_relu", "ELU": "elu"}.get(type(layer).__name__, "relu")
        if isinstance(layer, keras.layers.Activation) or (hasattr(layer, "kernel") and hasattr(layer, "activation")):
            if not type(layer).__module__.startswith(("keras.", "keras_dropout.")):
                return None  # its call may do anything
            if layer.activation is keras.activations.linear and isinstance(layer, keras.layers.Activation):
                output = layer._inbound_nodes[history.node_index].input_tensors[0]
                continue
            known = (name for name in _RANGES if getattr(keras.activations, name, None) is layer.activation)
            return next(known, None)
        name = {"softmax": "softmax", "sigmoid": "sigmoid", "relu": "relu", "tanh": "tanh"}.get(type(layer).__name__.lower())
        return name if type(layer).__module__.startswith("keras.") else None  # keras.ops.softmax, in a functional model
    return None


def resolve_class_weight(class_weight: Any, train: Part, model: Any, loss: Any) -> dict[int, float] | None:
    """Return {class: weight}; "balanced" gives examples / (classes * examples of the class), as in scikit-learn."""
    if class_weight is None:
        return None
    fix = 'Give {class number: weight}, or "balanced".'
    if not isinstance(train.y, np.ndarray):
        refuse("class weights are for models with one output.", "Give sample weights for each output: (x, y, weights).")
    if train.weights is not None:
        refuse("class weights and sample weights were both given; Keras takes one of them.", "Multiply the sample weights instead.")
    if not isinstance(loss, (list, tuple)) and loss_kind(loss, train.y, _units(model)) == "regression":
        refuse("class weights are for classification; the model's loss is one for regression.", "Leave class_weight out.")
    if train.y.ndim > 2 or (train.y.ndim == 2 and loss_kind(loss, train.y, _units(model)) == "sparse" and train.y.shape[1] > 1):
        refuse(
            f"class weights are for one answer an example; here each has answers of the shape {train.y.shape[1:]}.",
            "Give sample weights: (x, y, weights), with one for each answer.",
        )
    found, counts = np.unique(arrays.classes(train.y), return_counts=True)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            refuse(f"unknown class weight {class_weight!r}.", fix)
        return {int(number): float(len(train.y) / (len(found) * n)) for number, n in zip(found, counts)}
    if not isinstance(class_weight, Mapping) or not class_weight:
        refuse(f"class_weight must map classes to weights; got {class_weight!r}.", fix)
    for number, weight in class_weight.items():
        if isinstance(number, bool) or not isinstance(number, numbers.Integral) or number not in found:
            refuse(f"class_weight names the class {number!r}, which no training example has.", f"Classes are {_some(found)}.")
        if isinstance(weight, bool) or not isinstance(weight, numbers.Real) or not math.isfinite(weight) or weight < 0:
            refuse(f"the weight of class {number} must be a number of at least 0; got {weight!r}.", fix)
    return {int(number): float(weight) for number, weight in sorted(class_weight.items())}


def _units(model: Any) -> int | None:
    outputs = getattr(model, "outputs", None)
    return outputs[0].shape[-1] if outputs else None


def _some(values: np.ndarray) -> str:
    return ", ".join(map(str, values[:20])) + (", …" if len(values) > 20 else "")
