"""A model as the rules of `mistakes` see it: its layers, its calls, and what can be measured by running it.

Nothing in the model is changed: it is run in a scope that throws away what its layers want to remember.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_dropout import graph, layers
from keras_dropout.errors import BadInput, refuse
from keras_dropout.graph import Call, Graph
from keras_dropout.survey import inner_layer, is_dropout

ROWS = 256  # of the data, evenly spaced, that a measurement uses
BATCH = 32
_DRAWS = 4  # of masks for each row; more where there are fewer rows
_SPATIAL = (keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D)
_UNITS = (keras.layers.Dropout, keras.layers.GaussianDropout, layers.Dropout, layers.GaussianDropout)
# Their outputs are their inputs, in another order or shape.
_SAME_VALUES = {"Flatten", "Reshape", "Permute", "Identity", "Transpose", "Squeeze", "ExpandDims", "RepeatVector"}


class Shift(NamedTuple):
    """Variance in training / variance at prediction: the mean over channels, the least and the greatest."""

    mean: float
    least: float
    greatest: float
    channels: int
    rows: int


@dataclass(frozen=True, eq=False)
class Inspection:
    """A model under inspection.

    `layers` are (path, layer), nested models, wrappers and layers of the user's opened, Keras's own closed; `graph` has no calls
    where the model's cannot be followed, and `reason` then says why; `data` are rows for its inputs, in their order, or None.
    """

    model: keras.Model
    layers: list[tuple[str, keras.Layer]]
    graph: Graph
    reason: str
    data: Any

    @cached_property
    def dropouts(self) -> list[Call]:
        """The first call of each dropout layer that drops something."""
        calls = {id(call.layer): call for call in reversed(self.graph.calls) if is_dropout(call.layer) and rate(call.layer) > 0}
        return [call for call in self.graph.calls if calls.get(id(call.layer)) is call]

    def source(self, call: Call, passes: Callable[[Any], bool]) -> Call | None:
        """The call behind which this one stands, back through what `passes`; None for an input of the model."""
        before = self.graph.before(call)
        if not before:
            return None
        return self.source(before[0], passes) if passes(before[0].layer) else before[0]

    def reached(self, call: Call, stops: Callable[[Any], bool]) -> list[Call]:
        """The first calls behind this one, on every way, of layers that stop it."""
        found, seen, ways = [], set(), list(self.graph.after(call))
        while ways:
            user = ways.pop(0)
            if id(user) not in seen:
                seen.add(id(user))
                if stops(user.layer):
                    found.append(user)
                else:
                    ways += self.graph.after(user)
        return found

    def is_output(self, call: Call, passes: Callable[[Any], bool]) -> bool:
        """Whether an output of this call is one of the model's, maybe through what `passes`."""
        if set(call.outputs) & set(self.graph.outputs):
            return True
        return any(self.is_output(user, passes) for user in self.graph.after(call) if passes(user.layer))

    @cached_property
    def frozen(self) -> list[tuple[str, Any]]:
        """(path, layer or model) for each call that was given training=True when the graph was made."""

        def walk(model: keras.Model, prefix: str) -> Iterator[tuple[str, Any]]:
            for node in graph.nodes(graph.functional(model)):
                path = prefix + node.operation.name
                if node.arguments.kwargs.get("training") is True:
                    yield path, node.operation
                if graph.is_nested(node.operation):
                    yield from walk(node.operation, f"{path}/")

        return list(walk(self.model, "")) if self.graph.calls else []

    def foreign(self) -> Iterator[tuple[str, keras.Layer]]:
        """The layers whose class is neither Keras's nor ours."""
        for path, layer in self.layers:
            if not _is_known(layer):
                yield path, layer

    @cached_property
    def rows(self) -> list[np.ndarray] | None:
        """Inputs for a run: of the data, or else at random; None where the model takes what cannot be made up."""
        if self.data is not None:
            return self.data
        if not self.graph.calls or any(dtype == "string" for *_, dtype in self.graph.inputs):
            return None
        rng = np.random.default_rng(0)
        return [(2 * rng.random((8, *(n or 3 for n in shape)))).astype(dtype) for _, _, shape, dtype in self.graph.inputs]

    def predict(self, times: int = 1, **options: Any) -> tuple[list[list[np.ndarray]], list[keras.Layer]]:
        """The outputs of `model(x, **options)`, called so many times, and the batch normalisations whose statistics that moves."""
        x: Any = [rows[:BATCH] for rows in self.rows or ()]
        if self.graph.calls:
            given = iter(x)
            x = keras.tree.map_structure(lambda _: next(given), graph.functional(self.model).input)
        else:
            x = x[0] if len(x) == 1 else x
        with keras.StatelessScope() as scope:
            outputs = [keras.tree.flatten(self.model(x, **options)) for _ in range(times)]
        norms = [each for each in self.model._flatten_layers() if isinstance(each, keras.layers.BatchNormalization)]
        moved = [each for each in norms if scope.get_current_value(each.moving_mean) is not None]
        return [[keras.ops.convert_to_numpy(each) for each in output] for output in outputs], moved

    def varies_at_prediction(self, call: Call) -> bool:
        """Whether the layer's output at training=False differs from call to call."""
        if self.rows is None:
            return False
        with keras.StatelessScope():
            args, options = next((a, o) for each, a, o in self._steps([r[:8] for r in self.rows], False) if each is call)
            one, two = (keras.tree.flatten(call.layer(*args, **options)) for _ in range(2))
        return differ(one, two)

    def variance_shift(self, calls: list[Call]) -> dict[Call, Shift]:
        """The shift of the variance of what goes into each normalisation, where it varies at all.

        In training: all dropout layers on, all else as at prediction. Several masks are drawn for each row.
        """
        rows = len(self.data[0])
        draws = max(_DRAWS, 2 * ROWS // rows)
        moments: dict[tuple[Call, bool], list] = {}
        for training in (False, True):
            with keras.StatelessScope():
                for _, start in itertools.product(range(draws if training else 1), range(0, rows, BATCH)):
                    left = set(calls)
                    for call, args, options in self._steps([each[start : start + BATCH] for each in self.data], training):
                        if call in left:
                            left.remove(call)
                            values = keras.ops.convert_to_numpy(graph.first_input(args, options))
                            moments.setdefault((call, training), []).append(_sums(values, call.layer.axis))
                        if not left:
                            break
        shifts = {}
        for call in calls:
            still, dropped = (_variance(moments[call, training]) for training in (False, True))
            varies = still > 1e-12
            if varies.any():
                ratios = dropped[varies] / still[varies]
                shifts[call] = Shift(float(ratios.mean()), float(ratios.min()), float(ratios.max()), len(ratios), rows)
        return shifts

    def _steps(self, rows: list[np.ndarray], training: bool) -> Iterator[tuple[Call, tuple, dict]]:
        """Run the graph: each call with its arguments, before it is made. `training` is for dropout layers, the others predict."""
        values = {number: keras.ops.convert_to_tensor(each) for (_, number, *_), each in zip(self.graph.inputs, rows)}
        uses = Counter(tensor for call in self.graph.calls for tensor in set(call.inputs))
        for call in self.graph.calls:
            tensors = {id(t): values[number] for t, number in zip(call.node.input_tensors, call.inputs)}
            args, options = call.node.arguments.fill_in(tensors)
            if getattr(call.layer, "_call_has_training_arg", False):
                options = {**options, "training": training and is_dropout(call.layer)}
            yield call, args, options
            values.update(zip(call.outputs, keras.tree.flatten(call.layer(*args, **options))))
            for tensor in set(call.inputs):  # a large model's tensors do not all fit
                uses[tensor] -= 1
                if not uses[tensor]:
                    del values[tensor]


def look(model: Any, data: Any = None) -> Inspection:
    """The model as the rules see it; refused where it is no model, has no layers, or does not fit the data."""
    if not isinstance(model, keras.Model):
        refuse(f"check: expected a Keras model; got {type(model).__name__}.", "Pass the model itself, or load its file first.")
    found = list(_walk(model, "", set()))
    if not found:
        refuse(f"the model {model.name!r} has no layers.", "Build it first: start it with keras.Input(shape), or call it once.")
    reason = ""
    try:
        read = graph.read(model)
    except BadInput as error:
        read, reason = Graph([], [], []), str(error).splitlines()[0]
    return Inspection(model, found, read, reason, None if data is None else _rows(read, data))


def differ(one: list, two: list) -> bool:
    """Whether two lists of tensors differ anywhere."""
    to_numpy = keras.ops.convert_to_numpy
    return any(not np.array_equal(to_numpy(a), to_numpy(b), equal_nan=True) for a, b in zip(one, two))


def rate(layer: Any) -> float:
    """The rate of a dropout layer."""
    return float(getattr(bare(layer), "rate", 0) or 0)


def bare(layer: Any) -> Any:
    """The layer itself, without our wrappers and TimeDistributed around it."""
    layer = inner_layer(layer)
    return bare(layer.layer) if isinstance(layer, keras.layers.TimeDistributed) else layer


def drops_units(layer: Any) -> bool:
    """Whether the layer drops (or multiplies by noise) each unit on its own."""
    layer = bare(layer)
    shared = 1 in (getattr(layer, "noise_shape", None) or ())
    return isinstance(layer, _UNITS) and not isinstance(layer, _SPATIAL) and not shared and rate(layer) > 0


def contains_dropout(layer: Any) -> bool:
    """Whether a layer is or has, at any depth, a dropout layer that drops something."""
    return isinstance(layer, keras.Layer) and any(is_dropout(each) and rate(each) > 0 for each in layer._flatten_layers())


def keeps_values(layer: Any) -> bool:
    """Whether a layer's outputs are its inputs, at prediction and but for order and shape."""
    return is_dropout(layer) or type(bare(layer)).__name__ in _SAME_VALUES


def activation(layer: Any) -> str | None:
    """The name of the function that a layer ends with, "linear" for one with weights and none; None where it is not known."""
    layer = bare(layer)
    if callable(function := getattr(layer, "activation", None)):
        return getattr(function, "__name__", None)
    known = {name.replace("_", ""): name for name in vars(keras.activations)}
    return known.get(type(layer).__name__.lower())


def _walk(layer: keras.Layer, prefix: str, seen: set[int]) -> Iterator[tuple[str, keras.Layer]]:
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        if id(inner) in seen or isinstance(inner, keras.layers.InputLayer):
            continue
        seen.add(id(inner))
        yield prefix + inner.name, inner
        if isinstance(inner, (keras.Model, keras.layers.Wrapper)) or not _is_known(inner):
            yield from _walk(inner, f"{prefix}{inner.name}/", seen)


def _is_known(layer: Any) -> bool:
    return type(layer).__module__.partition(".")[0] in ("keras", "keras_dropout")


def _rows(read: Graph, data: Any) -> list[np.ndarray]:
    """Some rows of the data for each input of the model."""
    if isinstance(data, tuple) and len(data) == 2 and (isinstance(data[0], (list, dict)) or len(read.inputs) != 2):
        data = data[0]
    mend = "Give an array, a list of arrays or a dict by the inputs' names, or (x, y)."
    names = [name for name, *_ in read.inputs]
    if isinstance(data, dict):
        if names and set(names) - set(data):
            refuse(f"data: the model's inputs are {', '.join(names)}; got {', '.join(map(str, data))}.", mend)
        data = [data[name] for name in names] if names else [*data.values()]
    arrays = [np.asarray(each) for each in (data if isinstance(data, (list, tuple)) else [data])]
    if names and len(arrays) != len(names):
        refuse(f"data: the model has {len(names)} inputs ({', '.join(names)}); got {len(arrays)} arrays.", mend)
    for (name, _, shape, dtype), array in zip(read.inputs, arrays):
        fits = array.ndim == len(shape) + 1 and all(n in (None, m) for n, m in zip(shape, array.shape[1:]))
        if not fits or len(array) < 2 or len(array) != len(arrays[0]):
            refuse(f"data: input {name!r} takes rows of shape {shape}, two at least; got an array of shape {array.shape}.", mend)
        if dtype != "string" and not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
            refuse(f"data: input {name!r} takes numbers ({dtype}); got an array of {array.dtype}.", mend)
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            refuse(f"data: input {name!r} has nan or inf in it.", "Drop these rows or fill them in.")
    chosen = np.unique(np.linspace(0, len(arrays[0]) - 1, ROWS).astype(int))
    types: list[str | None] = [dtype for *_, dtype in read.inputs] or [None] * len(arrays)
    return [array[chosen].astype(dtype) if dtype not in (None, "string") else array[chosen] for array, dtype in zip(arrays, types)]


def _sums(values: np.ndarray, axis: int) -> tuple[int, np.ndarray, np.ndarray]:
    """(count, sum, sum of squares) for each channel."""
    flat = np.moveaxis(values.astype("float64"), axis, -1).reshape(-1, values.shape[axis])
    return len(flat), flat.sum(0), (flat**2).sum(0)


def _variance(moments: list[tuple[int, np.ndarray, np.ndarray]]) -> np.ndarray:
    count, total, squares = (sum(each) for each in zip(*moments))
    return np.maximum(squares / count - (total / count) ** 2, 0)
