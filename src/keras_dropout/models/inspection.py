"""A model as the rules of `mistakes` see it: its layers, its calls, and what can be measured by running it.

The model does not change: it runs in a scope that discards what its layers update. Foreign classes may have any attributes, read by
`attribute` and `number`, and may raise anything in a run, which goes through `Inspection.measured`.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import keras
import numpy as np

from keras_dropout.errors import BadInput, first_line, refuse
from keras_dropout.models import dropping, graph, kinds
from keras_dropout.models.dropping import attribute, inner_layer, is_dropout, is_known
from keras_dropout.models.graph import Call, Graph, differ

T = TypeVar("T")
ROWS = 256  # evenly spaced rows of the data that a measurement uses
BATCH = 32
_DRAWS = 4  # masks for each row; more if there are fewer rows
_ACTIVATIONS = {name.replace("_", ""): name for name in vars(keras.activations)}


class Shift(NamedTuple):
    """Variance in training / variance at prediction: the mean over channels, the least and the greatest."""

    mean: float
    least: float
    greatest: float
    channels: int
    rows: int


class MaskErrors(NamedTuple):
    """The share of padded steps that count as data in training, and the share of other steps that count as padding."""

    counted: float
    lost: float
    rows: int


@dataclass(frozen=True, eq=False)
class Inspection:
    """A model under inspection.

    `layers` are (path, layer); nested models, wrappers and users' layers are opened, Keras's own are not. `graph` has no calls if
    the model's calls cannot be followed, and `reason` then says why. `data` are rows for its inputs, in their order, or None.
    """

    model: keras.Model
    top: Any  # the model as a functional one; None if its calls cannot be followed
    layers: list[tuple[str, keras.Layer]]
    graph: Graph
    reason: str
    data: Any
    structure: Any  # structure of the data, for a model whose calls cannot be followed

    @cached_property
    def dropouts(self) -> list[Call]:
        """The calls of the dropout layers that drop something: a layer that is called twice may be right in only one place."""
        return [call for call in self.graph.calls if is_dropout(call.layer) and rate(call.layer) > 0]

    def sources(self, passes: Callable[[Any], bool]) -> dict[Call, Call | None]:
        """Return, for each call, the call before it, skipping back over layers that `passes` accepts; None for a model input."""
        found: dict[Call, Call | None] = {}
        for call in self.graph.calls:
            before = self.graph.makers.get(call.inputs[0]) if call.inputs else None
            found[call] = found[before] if before is not None and passes(before.layer) else before
        return found

    def reached(self, stops: Callable[[Any], bool]) -> dict[Call, list[Call]]:
        """Return, for each call, the first calls behind it, on every way, whose layers `stops` accepts."""
        found: dict[Call, list[Call]] = {}
        for call in reversed(self.graph.calls):
            ways = ([user] if stops(user.layer) else found[user] for user in self.graph.after(call))
            found[call] = list(dict.fromkeys(itertools.chain.from_iterable(ways)))
        return found

    def leading_out(self, passes: Callable[[Any], bool]) -> set[Call]:
        """Return the calls that make an output of the model, directly or through layers that `passes` accepts."""
        found: set[Call] = set()
        for call in reversed(self.graph.calls):
            leads = any(user in found and passes(user.layer) for user in self.graph.after(call))
            if leads or set(call.outputs) & set(self.graph.outputs):
                found.add(call)
        return found

    def masked_by(self) -> dict[Call, list[tuple[Call, str]]]:
        """Return, for each dropout call, the (call, option) whose mask is computed from what it drops; no option for Masking."""
        found: dict[Call, list[tuple[Call, str]]] = {}
        for call in self.graph.calls:
            numbers = {id(tensor): number for tensor, number in zip(call.node.input_tensors, call.inputs)}
            masks = {name: keras.tree.flatten(value) for name, value in call.options.items() if "mask" in name}
            if isinstance(call.layer, keras.layers.Masking):
                masks[""] = call.node.input_tensors
            for option, tensors in masks.items():
                for dropout in self._mask_sources([numbers[id(each)] for each in tensors if id(each) in numbers]):
                    found.setdefault(dropout, []).append((call, option))
        return found

    def _mask_sources(self, tensors: list[int]) -> Iterator[Call]:
        """Yield the dropout calls from whose outputs a mask is computed, by operations and not by layers that compute features."""
        seen, ways = set(), list(tensors)
        while ways:
            maker = self.graph.makers.get(ways.pop())
            if maker is None or maker in seen:
                continue
            seen.add(maker)
            if is_dropout(maker.layer) and rate(maker.layer) > 0:
                yield maker
            makes_mask = maker.dtype == "bool" or not isinstance(maker.layer, keras.Layer)
            if (makes_mask and not type(maker.layer).__name__.endswith("Like")) or keeps_values(maker.layer):
                ways += maker.inputs

    @cached_property
    def frozen(self) -> list[tuple[str, Any]]:
        """(path, layer or model) for each call that was given training=True when the graph was made."""

        def walk(model: keras.Model, prefix: str) -> Iterator[tuple[str, Any]]:
            for node in graph.nodes(model):
                path = prefix + node.operation.name
                if node.arguments.kwargs.get("training") is True:
                    yield path, node.operation
                if graph.is_nested(node.operation):
                    yield from walk(graph.functional(node.operation), f"{path}/")

        return list(walk(self.top, "")) if self.top is not None else []

    def foreign(self) -> list[tuple[str, keras.Layer]]:
        """Return the layers whose class is neither Keras's nor ours."""
        return [(path, layer) for path, layer in self.layers if not is_known(type(layer).__module__)]

    @cached_property
    def rows(self) -> list[np.ndarray] | None:
        """Inputs for a run: rows of the data, or else made up; None if there are none that the model can take."""
        if any(dtype == "string" for *_, dtype in self.graph.inputs) and keras.backend.backend() != "tensorflow":
            return None
        if self.data is not None:
            return self.data
        return self.made_up() if self.graph.calls else None

    def made_up(self, padding: float | None = None) -> list[np.ndarray] | None:
        """Return eight rows of random inputs; if `padding` is given, it fills the second half of the steps of a sequence."""
        if any(dtype == "string" for *_, dtype in self.graph.inputs):
            return None
        rng, rows = np.random.default_rng(0), []
        for _, _, shape, dtype in self.graph.inputs:
            values = 2 * rng.random((8, *(n or 3 for n in shape)))
            if padding is not None and len(shape) > 1:
                values[:, values.shape[1] // 2 :] = padding
            rows.append(values.astype("int32" if "int" in dtype else "bool" if dtype == "bool" else "float32"))
        return rows

    def measured(self, run: Callable[[], T]) -> T | None:
        """Return the result of a run of the model; None without rows, or if it fails on made-up ones; on data, refuse."""
        if self.rows is None:
            return None
        try:
            return run()
        except Exception as error:  # a user's class may raise anything when it runs
            if self.data is None:
                return None
            text = str(error)
            said = text.partition("\x1b[1m")[2].partition("\x1b[0m")[0] or text  # Keras prints it in bold between other lines
            refuse(
                f"the model {self.model.name!r} cannot be run on the data: {type(error).__name__}: {said}",
                "Give inputs that model.predict takes; or leave the data out, and what has to be measured on them is left out too.",
            )

    def predict(self, times: int = 1, **options: Any) -> tuple[list[list[np.ndarray]], list[keras.Layer]]:
        """Call `model(x, **options)` `times` times; return the outputs and the batch normalisations whose statistics change."""
        rows = [rows[:BATCH] for rows in self.rows or ()]
        x = keras.tree.pack_sequence_as(self.structure if self.top is None else self.top.input, rows)
        with keras.StatelessScope() as scope:
            outputs = [keras.tree.flatten(self.model(x, **options)) for _ in range(times)]
        norms = [each for each in self.model._flatten_layers() if isinstance(each, keras.layers.BatchNormalization)]
        moved = [each for each in norms if scope.get_current_value(each.moving_mean) is not None]
        return [[keras.ops.convert_to_numpy(each) for each in output] for output in outputs], moved

    def varying(self, calls: list[Call]) -> list[Call]:
        """Return those of the calls whose output at training=False differs from run to run."""
        found = []
        with keras.StatelessScope():
            for call, args, options in self._steps([rows[:8] for rows in self.rows or ()], False, calls):
                one, two = (keras.tree.flatten(call.layer(*args, **options)) for _ in range(2))
                found += [call] if differ(one, two) else []
        return found

    def mask_errors(self, calls: list[tuple[Call, str]]) -> MaskErrors | None:
        """Return how often these calls get another mask in training than at prediction; None where that cannot be measured."""
        rows = (self.rows if self.data is not None else self.made_up(self._padding())) or []

        def masks(training: bool) -> np.ndarray:
            found = []
            for call, args, options in self._steps([each[:BATCH] for each in rows], training, [call for call, _ in calls]):
                for option in (option for each, option in calls if each is call):
                    mask = options[option] if option else call.layer.compute_mask(graph.first_input(args, options))
                    found += [np.ravel(keras.ops.convert_to_numpy(each) != 0) for each in keras.tree.flatten(mask)]
            return np.concatenate(found)

        def run() -> MaskErrors:
            with keras.StatelessScope():  # one scope for all draws: in separate scopes all draws would be equal
                still, trained = masks(False), np.stack([masks(True) for _ in range(4 * _DRAWS)])
            counted = float(trained[:, ~still].mean()) if not still.all() else 0.0
            lost = float((~trained[:, still]).mean()) if still.any() else 0.0
            return MaskErrors(counted, lost, min(len(rows[0]), BATCH))

        return self.measured(run)

    def _padding(self) -> float:
        """Return the value of padded steps, according to Masking or a comparison; 0 if nothing says so."""
        kinds = ("Masking", "NotEqual", "Equal")
        compare = [call for call in self.graph.calls if type(call.layer).__name__ in kinds]
        said = (number(each) for call in compare for each in (attribute(call.layer, "mask_value"), *call.node.arguments.args))
        return next((each for each in said if each), 0.0)

    def variance_shift(self, calls: list[Call]) -> dict[Call, Shift]:
        """Return the shift of the variance of each normalisation's input, if the input varies at all.

        In training means: all dropout layers on, all else as at prediction. Each row has several masks; few rows are repeated.
        """
        rows = len(self.data[0])
        data = [np.repeat(each, max(1, BATCH // rows), axis=0) for each in self.data]
        draws = max(_DRAWS, 2 * ROWS // len(data[0]))
        moments: dict[tuple[Call, bool], list] = {}
        for training in (False, True):
            with keras.StatelessScope():
                for _, start in itertools.product(range(draws if training else 1), range(0, len(data[0]), BATCH)):
                    for call, args, options in self._steps([each[start : start + BATCH] for each in data], training, calls):
                        values = keras.ops.convert_to_numpy(graph.first_input(args, options))
                        moments.setdefault((call, training), []).append(_sums(values, call.layer.axis))
        shifts = {}
        for call in calls:
            still, dropped = (_variance(moments[call, training]) for training in (False, True))
            varies = still > 1e-12
            if varies.any():
                ratios = dropped[varies] / still[varies]
                shifts[call] = Shift(float(ratios.mean()), float(ratios.min()), float(ratios.max()), len(ratios), rows)
        return shifts

    def _steps(self, rows: list[np.ndarray], training: bool, wanted: Iterable[Call]) -> Iterator[tuple[Call, tuple, dict]]:
        """Run the graph as far as needed; yield the `wanted` calls with their arguments. Only dropout layers get `training`."""
        left = set(wanted)
        types = [None if dtype == "string" else dtype for *_, dtype in self.graph.inputs]
        values = {
            number: keras.ops.convert_to_tensor(each, dtype=dtype)
            for (_, number, *_), each, dtype in zip(self.graph.inputs, rows, types)
        }
        uses = Counter(tensor for call in self.graph.calls for tensor in set(call.inputs))
        for call in self.graph.calls:
            tensors = {id(t): values[number] for t, number in zip(call.node.input_tensors, call.inputs)}
            args, options = call.node.arguments.fill_in(tensors)
            if getattr(call.layer, "_call_has_training_arg", False):
                options = {**options, "training": training and is_dropout(call.layer)}
            if call in left:
                left.remove(call)
                yield call, args, options
            if not left:
                return
            values.update(zip(call.outputs, keras.tree.flatten(call.layer(*args, **options))))
            for tensor in set(call.inputs):  # a large model's tensors do not all fit
                uses[tensor] -= 1
                if not uses[tensor]:
                    del values[tensor]


def look(model: Any, data: Any = None) -> Inspection:
    """Return the model as the rules see it; refuse what is not a model, has no layers, or does not fit the data."""
    if not isinstance(model, keras.Model):
        refuse(f"check: expected a Keras model; got {type(model).__name__}.", "Pass the model itself, or load its file first.")
    found = list(_walk(model, "", set()))
    if not found:
        refuse(f"the model {model.name!r} has no layers.", "Build it first: start it with keras.Input(shape), or call it once.")
    top, read, reason = None, Graph([], [], []), ""
    try:
        top = graph.functional(model)  # a subclassed model is traced once
        read = graph.read(top)
    except BadInput as error:
        reason = first_line(error)
    return Inspection(model, top, found, read, reason, *((None, None) if data is None else _rows(read, data)))


def number(value: Any) -> float:
    """Return a number, variable or tensor of one number as a float; 0 for anything else."""
    return dropping.number(value) or 0.0


def rate(layer: Any) -> float:
    """Return the rate of a dropout layer; 0 if it is unknown."""
    return dropping.rate_of(bare(layer)) or 0.0


def bare(layer: Any) -> Any:
    """Return the layer itself, without our wrappers and TimeDistributed around it."""
    layer = inner_layer(layer)
    return bare(layer.layer) if isinstance(layer, keras.layers.TimeDistributed) else layer


def drops_units(layer: Any) -> bool:
    """Return whether the layer drops (or multiplies by noise) each unit independently."""
    layer = bare(layer)
    if not isinstance(layer, kinds.UNIT_DROPOUT) or isinstance(layer, kinds.KERAS_SPATIAL) or rate(layer) <= 0:
        return False
    shape = attribute(layer, "noise_shape")
    return shape is None or all(number(size) != 1 for size in keras.tree.flatten(shape))


def contains_dropout(layer: Any) -> bool:
    """Return whether a layer is or contains, at any depth, a dropout layer that drops something."""
    return isinstance(layer, keras.Layer) and any(is_dropout(each) and rate(each) > 0 for each in layer._flatten_layers())


def keeps_values(layer: Any) -> bool:
    """Return whether a layer's outputs at prediction are its inputs, except for order and shape."""
    return is_dropout(layer) or type(bare(layer)).__name__ in kinds.SAME_VALUES


def activation(layer: Any) -> str | None:
    """Return the name of the function that a layer ends with, "linear" for one with weights and none; None if it is unknown.

    A foreign class with an `activation` does not have to end with it, unless its `call` is Keras's.
    """
    layer = bare(layer)
    function = attribute(layer, "activation")
    if isinstance(function, keras.Layer):
        return activation(function)
    if callable(function) and isinstance(layer, keras.Layer) and is_known(str(getattr(type(layer).call, "__module__", ""))):
        name = getattr(function, "__name__", None)
        return name if isinstance(name, str) else None
    return _ACTIVATIONS.get(type(layer).__name__.lower())


def _walk(layer: keras.Layer, prefix: str, seen: set[int]) -> Iterator[tuple[str, keras.Layer]]:
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        if id(inner) in seen or isinstance(inner, keras.layers.InputLayer):
            continue
        seen.add(id(inner))
        yield prefix + inner.name, inner
        if isinstance(inner, (keras.Model, keras.layers.Wrapper)) or not is_known(type(inner).__module__):
            yield from _walk(inner, f"{prefix}{inner.name}/", seen)


def _rows(read: Graph, data: Any) -> tuple[list[np.ndarray], Any]:
    """Return rows of the data for each input, and the structure in which a model that cannot be followed takes them."""
    if isinstance(data, tuple) and len(data) in (2, 3) and (isinstance(data[0], (list, dict)) or len(read.inputs) != len(data)):
        data = data[0]
    fix = "Give an array, a list of arrays or a dict by the inputs' names, or (x, y)."
    if not hasattr(data, "shape") and not isinstance(data, (list, tuple, dict)):
        way = "Take a batch of it: x, y = next(iter(data)), and give x."
        refuse(
            f"data: expected arrays; got {type(data).__name__}.",
            way if hasattr(data, "__getitem__") or hasattr(data, "__iter__") else fix,
        )
    names = [name for name, *_ in read.inputs]
    if isinstance(data, dict) and names:
        if set(names) - set(data):
            refuse(f"data: the model's inputs are {', '.join(names)}; got {', '.join(map(str, data))}.", fix)
        data = [data[name] for name in names]
    given = data if isinstance(data, (list, tuple)) else [*data.values()] if isinstance(data, dict) else [data]
    arrays = [_array(each, fix) for each in given]
    if names and len(arrays) != len(names):
        refuse(f"data: the model has {len(names)} inputs ({', '.join(names)}); got {len(arrays)} arrays.", fix)
    for (name, _, shape, _), array in zip(read.inputs, arrays):
        if array.ndim != len(shape) + 1 or any(n not in (None, m) for n, m in zip(shape, array.shape[1:])):
            refuse(f"data: input {name!r} takes rows of shape {shape}, two at least; got an array of shape {array.shape}.", fix)
    if not arrays or any(array.ndim == 0 or len(array) < 2 or len(array) != len(arrays[0]) for array in arrays):
        refuse(f"data: expected as many rows for each input, two at least; got shapes {[array.shape for array in arrays]}.", fix)
    for (name, _, _, dtype), array in zip(read.inputs, arrays):
        if dtype != "string" and not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
            refuse(f"data: input {name!r} takes numbers ({dtype}); got an array of {array.dtype}.", fix)
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            refuse(f"data: input {name!r} has nan or inf in it.", "Drop these rows or fill them in.")
    chosen = np.unique(np.linspace(0, len(arrays[0]) - 1, ROWS).astype(int))
    structure = dict.fromkeys(data, 0) if isinstance(data, dict) else 0 if len(arrays) == 1 else [0] * len(arrays)
    return [array[chosen] for array in arrays], structure


def _array(value: Any, fix: str) -> np.ndarray:
    try:
        return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)  # a torch tensor, possibly with a gradient
    except Exception as error:  # ragged lists, tensors of a device
        refuse(f"data: {type(value).__name__} cannot be made an array: {error}", fix)


def _sums(values: np.ndarray, axis: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Return (count, sum, sum of squares) for each channel."""
    flat = np.moveaxis(values.astype("float64"), axis, -1).reshape(-1, values.shape[axis])
    return len(flat), flat.sum(0), (flat**2).sum(0)


def _variance(moments: list[tuple[int, np.ndarray, np.ndarray]]) -> np.ndarray:
    count, total, squares = (sum(each) for each in zip(*moments))
    return np.maximum(squares / count - (total / count) ** 2, 0)
