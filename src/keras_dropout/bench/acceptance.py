"""Whether a model, its data and its settings go together: everything that can be refused before anything is trained."""

import copy
import importlib.util
import math
import numbers
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keras_dropout.bench.data import Data, Part, arrays
from keras_dropout.errors import refuse
from keras_dropout.targets import module_name

_SPARSE = {"sparsecategoricalcrossentropy"}
_BINARY = {"binarycrossentropy", "bce", "binaryfocalcrossentropy"}
_CATEGORICAL = {"categoricalcrossentropy", "categoricalfocalcrossentropy"}
_REGRESSION = {"mse", "meansquarederror", "mae", "meanabsoluteerror", "mape", "meanabsolutepercentageerror", "msle"}
_REGRESSION |= {"meansquaredlogarithmicerror", "huber", "logcosh", "poisson", "cosinesimilarity"}


def check_compiled(model: Any) -> None:
    """Refuse a model that has no optimizer or loss of Keras's."""
    if not getattr(model, "compiled", False):
        refuse(f"the model {model.name!r} is not compiled.", 'For example model.compile("adam", loss="mse", metrics=["mae"]).')
    if model.get_compile_config().get("loss") is None:
        refuse(f"the model {model.name!r} is compiled without a loss.", 'For example model.compile("adam", loss="mse").')


def settings_of(model: Any) -> dict[str, Any]:
    """What Keras's serialisation gives of a model, without how it was compiled; or a refusal where it gives nothing.

    What a Normalization was adapted to is among its settings here, where Keras has it among the weights: runs begin with new ones.
    """
    import keras

    layers = adapted(model)
    try:
        for layer in layers:
            layer.input_mean, layer.input_variance = layer.adapt_mean.numpy(), layer.adapt_variance.numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings = keras.saving.serialize_keras_object(model)
    except Exception as error:  # the reader's get_config may raise anything
        refuse(
            f"the model {model.name!r} cannot be described by its configuration: {_first_line(error)}",
            "Give every layer of your own a get_config that returns the arguments of its constructor.",
        )
    finally:
        for layer in layers:
            layer.input_mean = layer.input_variance = None
    return {name: value for name, value in settings.items() if name != "compile_config"}


def adapted(model: Any) -> list[Any]:
    """The layers that may have been adapted to data: a Normalization that has its mean among its weights."""
    import keras

    normalizations = (layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Normalization))
    return [layer for layer in normalizations if layer.built and layer.input_mean is None]


def weights_of(model: Any) -> tuple[np.ndarray, ...]:
    """The weights that a model made of `settings_of` has too."""
    settings = {id(variable) for layer in adapted(model) for variable in layer.variables}
    return tuple(variable.numpy() for variable in model.weights if id(variable) not in settings)


def check_statistics(model: Any, made: Any) -> None:
    """Refuse a class that makes its Normalization itself, without what it was adapted to."""
    lost = [layer for layer in adapted(model) if layer.adapt_mean.numpy().any()]
    if lost and adapted(made):
        refuse(
            f"what the layer {lost[0].name!r} was adapted to is not in the model's configuration: each run would begin without it.",
            "Make the layer with Normalization(mean=…, variance=…), and build it there; or normalize the data.",
        )


def check_can_be_made_again(
    settings: Mapping[str, Any], compiled: Mapping[str, Any], source: str | None
) -> tuple[Any, tuple[str, ...], str | None]:
    """The model made again, the modules that a worker must import to make it, and the file `source` if it must run that.

    What a worker could not make is refused.
    """

    from keras_dropout import graph

    found = {object.__module__ for object in map(_look_up, _custom([settings, compiled])) if object is not None}
    modules = sorted(module for module in found if not module.startswith("keras."))
    own = source and module_name(source)
    for module in modules:
        if module == own:
            continue
        if module == "__main__" or _find_spec(module) is None:
            names = [str(name) for name, object in _registered() if object.__module__ == module]
            refuse(
                f"{', '.join(sorted(names))} is defined in {module}, which the processes that train cannot import.",
                "Put it in a module that can be imported, or in a file that holds the model too: TARGET file.py:function.",
            )
    try:
        model = graph.make(settings)
        model.compile_from_config(copy.deepcopy(compiled))
    except Exception as error:  # the reader's from_config may raise anything
        refuse(
            f"the model cannot be made again from its configuration: {_first_line(error)}",
            "Register your own classes and functions with @keras.saving.register_keras_serializable(), and try "
            "keras.models.load_model on the saved model.",
        )
    return model, tuple(module for module in modules if module != own), source if own in modules else None


def _custom(value: Any) -> Iterator[Mapping[str, Any] | str]:
    """The parts of a configuration that name something which may not be Keras's own."""
    if isinstance(value, Mapping):
        kind, module = value.get("class_name"), value.get("module")
        if isinstance(kind, str) and ("registered_name" in value or kind == "__lambda__"):
            if kind == "__lambda__":
                refuse(
                    "the model holds a lambda, which is not sent to other processes.",
                    "Write it as a function: def …, and register it.",
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


def _look_up(found: Mapping[str, Any] | str) -> Any:
    """The reader's registered class or function; None for what is Keras's; refused where it is neither."""
    import keras

    if isinstance(found, str):
        return keras.saving.get_registered_object(found)
    function = found["class_name"] == "function"
    name = found["config"] if function else found.get("registered_name") or found["class_name"]
    registered = keras.saving.get_registered_object(name)
    if registered is None and (not function or not _is_keras_function(found)):
        refuse(
            f"{name if function else found['class_name']} is not Keras's own, and Keras does not know how to make it.",
            "Decorate it with @keras.saving.register_keras_serializable(), in a module that can be imported or the model's file.",
        )
    return registered


def _is_keras_function(found: Mapping[str, Any]) -> bool:
    import keras

    try:
        keras.saving.deserialize_keras_object(dict(found))
    except Exception:  # Keras raises several kinds here
        return False
    return True


def _registered() -> list[tuple[str, Any]]:
    import keras

    return list(keras.saving.get_custom_objects().items())


def _find_spec(module: str) -> Any:
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None


def _first_line(error: Exception) -> str:
    # Keras puts what went wrong at the end of a long text about what it tried.
    text = str(error).rpartition("Exception encountered:")[2].strip()
    return f"{type(error).__name__}: {(text.splitlines() or [''])[0][:300]}"


def check_data(model: Any, data: Data, split: str, batch_size: int, loss: Any) -> None:
    """Refuse data that do not fit the model, its loss or the batch size, or from which nothing can be learnt."""
    parts = {"training": data.train, "test": data.test}
    for role, part in parts.items():
        for name, x in arrays.named(part.x):
            _check_finite(f"the {role} inputs{name and f' {name!r}'}", x)
        for name, y in arrays.named(part.y):
            _check_finite(f"the {role} targets{name and f' {name!r}'}", y)
        _check_weights(role, part)
        outputs = _check_inputs(model, role, part)
        for name, y, output, one_loss in _by_output(model, role, part.y, outputs, loss):
            _check_targets(f"the {role} targets{name and f' of output {name!r}'}", y, output, one_loss, role == "training")
    rows = arrays.count(data.parts(split)["train"].y)
    if rows < batch_size:
        refuse(
            f"there are {rows} training examples, fewer than the batch size of {batch_size}.",
            f"Use a batch size of at most {rows}, or more data.",
        )


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
    """The model's outputs for these inputs, as shapes; refuse inputs that it does not take."""
    import keras

    if getattr(model, "inputs", None):
        structure = None if isinstance(model, keras.Sequential) else model.input
        expected = structure if isinstance(structure, dict) else {tensor.name: tensor for tensor in model.inputs}
        shown = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in expected.items())
        given = arrays.named(part.x)
        got = ", ".join(f"{name} {array.shape}".strip() for name, array in given)
        mend = "Name the inputs as the model does: {" + ", ".join(f"{name!r}: …" for name in expected) + "}."
        if len(given) != len(expected):
            refuse(f"the model takes the input(s) {shown}; the {role} data have {got}.", mend)
        if isinstance(part.x, dict):
            if set(part.x) != set(expected):
                refuse(f"the model takes the input(s) {shown}; the {role} data have {got}.", mend)
            pairs = [(name, array, expected[name]) for name, array in given]
        else:
            pairs = [(name, array, tensor) for (_, array), (name, tensor) in zip(given, expected.items())]
        for name, array, tensor in pairs:
            if not _fits(array.shape, tensor.shape):
                refuse(
                    f"input {name!r} takes the shape {tuple(tensor.shape)}; the {role} data have {array.shape}.",
                    "Reshape the data, or change the model's Input.",
                )
        return model.outputs[0] if isinstance(model, keras.Sequential) else model.output
    symbols = keras.tree.map_structure(lambda x: keras.KerasTensor((None, *x.shape[1:]), _kind(x)), part.x)
    try:
        return model(symbols, training=False)
    except Exception as error:  # whatever the reader's own call does with them
        refuse(f"the model does not take the {role} inputs: {_first_line(error)}", "Give the data the shape that it takes.")


def _kind(x: Any) -> str:
    return "float32" if np.issubdtype(x.dtype, np.floating) else "int32"


def _fits(shape: tuple, expected: tuple) -> bool:
    """Whether arrays of a shape can go where another is expected; as in Keras, a last axis of 1 may be there or not."""
    return any(
        len(one) == len(expected) and all(e is None or e == s for s, e in zip(one[1:], expected[1:]))
        for one in (shape, (*shape, 1), shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape)
    )


def _by_output(model: Any, role: str, y: Any, outputs: Any, loss: Any) -> Iterator[tuple[str, Any, Any, Any]]:
    """(name, targets, output, loss) of each output that has a loss."""
    import keras

    flat = list(outputs.values()) if isinstance(outputs, dict) else keras.tree.flatten(outputs)
    names = list(outputs) if isinstance(outputs, dict) else list(getattr(model, "output_names", None) or map(str, range(len(flat))))
    given = arrays.named(y)
    got = ", ".join(f"{name} {array.shape}".strip() for name, array in given)
    if len(given) != len(flat) or (isinstance(y, dict) and set(y) != set(names)):
        shown = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in zip(names, flat))
        mend = "Give one array of targets for each output: {" + ", ".join(f"{name!r}: …" for name in names) + "}."
        refuse(f"the model has the output(s) {shown}; the {role} targets are {got}.", mend)
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


def loss_kind(loss: Any, y: Any, units: int | None) -> str:
    """ "sparse", "binary", "categorical", "regression", or "other" for a loss that is not one of Keras's common ones."""
    name = loss if isinstance(loss, str) else loss["config"] if loss.get("class_name") == "function" else loss.get("class_name", "")
    name = str(name).replace("_", "").lower()
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
        mend = "Give the model's output and the targets the same width."
        if kind == "categorical" and _fits(y.shape, (*shape[:-1], 1)):
            mend = "For class numbers use the loss sparse_categorical_crossentropy."
        refuse(f"{what} have the shape {y.shape}; the model gives {shape}.", mend)
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


def resolve_class_weight(class_weight: Any, train: Part, model: Any, loss: Any) -> dict[int, float] | None:
    """{class: weight}, with "balanced" replaced by examples / (classes * examples of the class), as in scikit-learn."""
    if class_weight is None:
        return None
    mend = 'Give {class number: weight}, or "balanced".'
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
            refuse(f"unknown class weight {class_weight!r}.", mend)
        return {int(number): float(len(train.y) / (len(found) * n)) for number, n in zip(found, counts)}
    if not isinstance(class_weight, Mapping) or not class_weight:
        refuse(f"class_weight must map classes to weights; got {class_weight!r}.", mend)
    for number, weight in class_weight.items():
        if isinstance(number, bool) or not isinstance(number, numbers.Integral) or number not in found:
            refuse(f"class_weight names the class {number!r}, which no training example has.", f"Classes are {_some(found)}.")
        if isinstance(weight, bool) or not isinstance(weight, numbers.Real) or not math.isfinite(weight) or weight < 0:
            refuse(f"the weight of class {number} must be a number of at least 0; got {weight!r}.", mend)
    return {int(number): float(weight) for number, weight in sorted(class_weight.items())}


def _units(model: Any) -> int | None:
    outputs = getattr(model, "outputs", None)
    return outputs[0].shape[-1] if outputs else None


def _some(values: np.ndarray) -> str:
    return ", ".join(map(str, values[:20])) + (", …" if len(values) > 20 else "")
