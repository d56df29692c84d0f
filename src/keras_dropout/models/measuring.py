"""What a dropout layer does when its model runs: its calls are recorded, and repeated until its share of drops is known.

A layer is measured on values of the recorded shape that are nowhere 0, so that every 0 in its output is its own. Whatever its
mask looks like, the shares of different rows are independent, or those of different calls where all rows share a mask. The mean of
n independent numbers between 0 and 1 with expectation p is at least (or at most) m with probability below exp(-n KL(m || p))
(Hoeffding 1963, JASA 58:13-30, theorem 1): the interval of a share consists of all p for which that is not below half the error.
"""

import contextlib
import functools
import inspect
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend.common import global_state  # they have no public names
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR, global_seed_generator

from keras_dropout import backends
from keras_dropout.errors import described
from keras_dropout.layers.base import Stochastic
from keras_dropout.models import graph
from keras_dropout.models.dropping import rate_options
from keras_dropout.models.inspection import look

BATCH = 4  # rows of a run of the model
SIZES = ((8, 32), (64, 128), (1024, 256))  # of axes whose length a model leaves open, in sequences and in images: what it takes
_ROWS = 64  # of a repeated call
_ENTRIES = 2**16  # of a repeated call, about
_WORK = 2**26  # entries of all repeated calls of a layer
_CALLS = 4096
_NEAR = {"float16": 2e-2, "bfloat16": 5e-2}  # by which factors that should be equal may differ; 1e-3 for others


@dataclass
class Record:
    """The calls of a layer in one run: the arguments of the first, and the training flags of all."""

    args: tuple
    options: dict[str, Any]
    training: list[Any] = field(default_factory=list)
    error: str = ""


@dataclass(frozen=True)
class Counted:
    """What the repeated calls of a layer showed.

    `share` of the entries was dropped; its expectation lies between `low` and `high`. `draws` are the independent ones. `mean` is
    that of all factors, `kept` are the least and the greatest factor of what was not dropped, `predicted` is the factor at
    prediction. `deviation` is that of the factors. `shared` says that all rows had the same mask, and `near` within which relative
    difference factors count as equal.
    """

    share: float
    low: float
    high: float
    draws: int
    mean: float
    kept: tuple[float, float]
    deviation: float
    predicted: float
    shared: bool
    near: float

    def never(self, rate: float) -> bool:
        """Whether nothing was dropped, of so many draws that the rate says otherwise."""
        return self.share == 0 and rate > self.high

    @property
    def constant(self) -> bool:
        """Whether all that is kept has the same factor."""
        least, greatest = self.kept
        return greatest - least <= self.near * max(abs(least), abs(greatest))


def batches(model: keras.Model, data: Any = None) -> Iterator[Any]:
    """Yield inputs for a run of the model: some of the data; or made-up ones, shorter and longer ones if it leaves lengths open."""
    if data is None:
        inputs = graph.inputs_of(model)
        is_open = any(None in each.shape[1:] for each in keras.tree.flatten(inputs))
        for size in SIZES if is_open else SIZES[:1]:
            yield keras.tree.map_structure(functools.partial(_made_up, size=size), inputs)
        return
    seen = look(model, data)
    structure = seen.structure if seen.top is None else seen.top.input
    yield keras.tree.pack_sequence_as(structure, [each[: 4 * BATCH] for each in seen.data])


def _made_up(tensor: Any, size: tuple[int, int]) -> Any:
    """Return values for an input: small numbers for ids, ones for masks with a quarter of padding, normal numbers for others."""
    name, generator = graph.input_name(tensor).lower(), np.random.default_rng(0)
    length = size[len(tensor.shape) >= 4]
    shape = tuple(n or (length if axis else BATCH) for axis, n in enumerate(tensor.shape))
    values: np.ndarray
    if tensor.dtype == "string":
        raise TypeError(f"the input {name!r} takes strings")
    if "float" in tensor.dtype:
        values = generator.normal(size=shape)
    elif is_mask(name):
        values = np.ones(shape)
        values[:, -(-3 * shape[-1] // 4) :] = 0
    elif "position" in name:
        values = np.broadcast_to(np.arange(shape[-1]), shape)
    else:
        values = generator.integers(*((0, 2) if "segment" in name or "type" in name else (1, 6)), shape)
    return ops.convert_to_tensor(values, dtype=tensor.dtype)


def is_mask(name: str) -> bool:
    """Return whether an input is a mask, by its name."""
    return "mask" in name.lower() and "position" not in name.lower()


@contextlib.contextmanager
def same_draws() -> Iterator[None]:
    """Make what runs inside draw the same as in any other block like this, and change nothing that stays.

    The seeds of Keras and the streams of ours are variables: their changes are discarded at the end.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the generator that others may draw from
    before = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    try:
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        global_seed_generator()  # which could not be made inside the scope
        with backends.current().seeded(), keras.StatelessScope():
            yield
    finally:
        global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, before)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


@contextlib.contextmanager
def rates_off(layers: Iterable[keras.Layer]) -> Iterator[None]:
    """Set all known rates of these layers to 0 for a while. For use inside `same_draws`."""
    before: list[tuple[keras.Layer, str, Any]] = []
    try:
        for layer in layers:
            if isinstance(layer, Stochastic):
                for name in layer.free_rates() & vars(layer.state).keys():
                    getattr(layer.state, name).assign(0.0)
            for name, off in rate_options(layer).items():
                before.append((layer, name, vars(layer)[name]))
                vars(layer)[name] = off
        yield
    finally:
        for layer, name, value in before:
            vars(layer)[name] = value


def record(model: keras.Model, layers: Iterable[keras.Layer], x: Any, training: bool) -> tuple[dict[int, Record], list[np.ndarray]]:
    """Run a model once and return the calls of these layers, by their ids, and the outputs.

    A layer without weights that fails passes its input on.
    """
    seen: dict[int, Record] = {}

    def watched(layer: keras.Layer) -> Callable:
        call = layer.call

        def watching(*args: Any, **options: Any) -> Any:
            if id(layer) not in seen:
                seen[id(layer)] = Record(*_known((args, options)))
            seen[id(layer)].training.append(flag(call, args, options))
            try:
                return call(*args, **options)
            except Exception as error:  # the user's code may raise anything
                if layer.weights or not args or not hasattr(args[0], "shape"):
                    raise
                seen[id(layer)].error = described(error)
                return args[0]

        return watching

    with same_draws(), graph.called_as([(layer, watched(layer)) for layer in layers]):
        outputs = arrays(model(x, training=training))
    return seen, outputs


def _known(values: Any) -> Any:
    """Return arguments with ones in the place of values that are not known, as inside a compiled loop."""

    def known(each: Any) -> Any:
        if not hasattr(each, "shape") or not hasattr(each, "dtype"):
            return each
        try:
            ops.convert_to_numpy(each)
        except Exception:
            return ops.ones([n or 1 for n in each.shape], each.dtype)
        return each

    return keras.tree.map_structure(known, values)


def flag(call: Callable, args: tuple, options: dict[str, Any]) -> Any:
    """Return the training flag among the arguments of a call; True if it takes none."""
    try:
        bound = inspect.signature(call).bind(*args, **options)
    except (TypeError, ValueError):
        return options.get("training", True)
    bound.apply_defaults()
    return bound.arguments.get("training", bound.arguments.get("kwargs", {}).get("training", True))


def arrays(outputs: Any) -> list[np.ndarray]:
    """Return the tensors among a layer's outputs as arrays."""
    return [ops.convert_to_numpy(each) for each in keras.tree.flatten(outputs) if hasattr(each, "shape")]


def again(layer: keras.Layer, args: tuple, options: dict[str, Any], training: bool) -> Any:
    """Call a layer with recorded arguments and another training flag."""
    if not layer._call_has_training_arg:
        return layer(*args, **options)
    bound = inspect.signature(layer.call).bind(*args, **options)
    bound.arguments.pop("training", None)
    return layer(*bound.args, **{**bound.kwargs, "training": training})


def varies(layer: keras.Layer, call: Record, training: bool, times: int = 64) -> bool:
    """Return whether a layer's outputs differ from call to call on the recorded arguments."""
    first = arrays(again(layer, call.args, call.options, training))
    return any(graph.differ(first, arrays(again(layer, call.args, call.options, training))) for _ in range(times))


def measured(
    layer: keras.Layer, call: Record, rate: float, error: float, units: bool = False, alpha: bool = False
) -> Counted | None:
    """Return what a layer's repeated calls show; None if the layer does more than to multiply its input (or add it to another).

    With `units` the entries of a row are known to be independent, as far as they differ. With `alpha` what is dropped does not
    become 0 but another number, always the same: that which is in the output most often.
    """
    args, options = call.args, call.options
    first: Any = args[0] if args else next(iter(options.values()), None)
    pair = isinstance(first, (list, tuple)) and len(first) == 2
    for x, base, place in ((first[1], first[0], 1), (first[0], first[1], 0)) if pair else ((first, None, 0),):
        dtype = keras.backend.standardize_dtype(x.dtype) if hasattr(x, "dtype") else ""
        if "float" not in dtype or not x.shape:
            return None
        for shape in _shapes(tuple(x.shape), alone=not pair):
            values, below = _without_zeros(shape, dtype), _rows(base, shape[0])
            given = [values, below][:: 1 if place == 0 else -1] if pair else values
            try:
                factors = _factors(layer, (given, *_rows(args[1:], shape[0])), _rows(options, shape[0]), values, below, bool(args))
                predicted, trained = factors(False), factors(True)
            except Exception:  # a layer may take no other shape than its own
                continue
            near = _NEAR.get(dtype, 1e-3)
            if predicted is None or trained is None or np.ptp(predicted) > near * abs(predicted).max():
                break

            def draw(factors: Callable = factors, values: Any = values) -> np.ndarray:
                found = factors(True)
                return _unlike_most(found * values_of(values)) if alpha else found

            return counted(draw, float(predicted.mean()), rate, error, near, units)
    return None


def _shapes(shape: tuple[int, ...], alone: bool) -> Iterator[tuple[int, ...]]:
    """Yield shapes to measure on: with many rows and, if a row is large, few positions; at last the recorded shape itself."""
    entries = max(1, math.prod(shape[1:]))
    small = (*(min(n, 4) for n in shape[1:-1]), shape[-1]) if len(shape) > 2 else shape[1:]
    for rest in (small,) * (alone and entries > 2**12) + (shape[1:],):
        rows = min(_ROWS, _ENTRIES // max(1, math.prod(rest)))
        yield (max(1, rows // shape[0]) * shape[0], *rest)
    yield shape


def _without_zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    generator = np.random.default_rng(0)
    return ops.convert_to_tensor(generator.uniform(0.5, 1.5, shape) * generator.choice([-1, 1], shape), dtype=dtype)


def _rows(values: Any, rows: int) -> Any:
    """Return arguments with each tensor's rows repeated."""

    def more(each: Any) -> Any:
        return ops.tile(each, (rows // each.shape[0], *(1,) * (len(each.shape) - 1))) if getattr(each, "shape", ()) else each

    return keras.tree.map_structure(more, values)


def _factors(layer: keras.Layer, args: tuple, options: dict[str, Any], x: Any, base: Any, by_position: bool) -> Callable:
    """Return a function that calls the layer and returns its output, less the base, as factors of x; None for another shape."""
    if not by_position:
        name = next(iter(options))
        args, options = args[1:], {**options, name: args[0]}
    values, below = values_of(x), 0 if base is None else values_of(base)

    def factors(training: bool) -> np.ndarray | None:
        found = arrays(again(layer, args, options, training))
        return (values_of(found[0]) - below) / values if found and found[0].shape == values.shape else None

    return factors


def values_of(tensor: Any) -> np.ndarray:
    """Return a tensor as an array of float32."""
    return np.asarray(ops.convert_to_numpy(tensor), "float32")


def _unlike_most(values: np.ndarray) -> np.ndarray:
    """Return 0 where a value is the most frequent one, within the error of a product, and 1 elsewhere."""
    found, counts = np.unique(np.round(values, 4), return_counts=True)
    return (np.round(values, 4) != found[counts.argmax()]).astype("float32")


def counted(draw: Callable, predicted: float, rate: float, error: float, near: float, units: bool = False) -> Counted:
    """Draw factors until the share of zeros among them is known well enough to tell the rate from its half and its double."""
    wanted = min(max(8 * math.log(2 / error) * (1 - rate) / max(rate, 1e-9), 1024), 2**14)
    total = squares = dropped = 0.0
    entries = calls = 0
    kept = [math.inf, -math.inf]
    same: Any = True
    while (calls < _CALLS and entries < _WORK) or calls < 32:
        factors = draw()
        zeros, shape = factors == 0, factors.shape
        alike = np.array([n > 1 and np.allclose(factors, factors.take([0], axis), near, 0) for axis, n in enumerate(shape)])
        same = alike & same
        calls, entries = calls + 1, entries + factors.size
        dropped, total, squares = (
            dropped + zeros.sum(),
            total + factors.sum(dtype="float64"),
            squares + (factors.astype("float64") ** 2).sum(),
        )
        left = factors[~zeros]
        kept = [min(kept[0], left.min()), max(kept[1], left.max())] if left.size else kept
        if calls * (1 if same[0] else shape[0]) >= wanted:
            break
    share, mean = float(dropped / entries), float(total / entries)
    free = math.prod(n for axis, n in enumerate(shape) if axis and not same[axis])
    shared = bool(same[0])
    draws = calls * (1 if shared else shape[0]) * (free if units else 1)
    low, high = interval(share, draws, error)
    deviation = math.sqrt(max(squares / entries - mean**2, 0))
    bounds = (float(kept[0]), float(kept[1])) if kept[0] <= kept[1] else (0.0, 0.0)
    return Counted(share, low, high, draws, mean, bounds, deviation, predicted, shared, near)


def interval(share: float, draws: int, error: float) -> tuple[float, float]:
    """Return the least and the greatest expectation that a mean of independent shares is compatible with, by Hoeffding's bound."""
    limit = math.log(2 / error) / draws

    def bound(end: float) -> float:
        near, far = share, end
        for _ in range(50):
            middle = (near + far) / 2
            near, far = (middle, far) if _divergence(share, middle) < limit else (near, middle)
        return far

    return (0.0 if share == 0 else bound(0.0)), (1.0 if share == 1 else bound(1.0))


def _divergence(p: float, q: float) -> float:
    """Return KL(p || q) of two coins."""
    parts = ((p, q), (1 - p, 1 - q))
    return sum(a * math.log(a / b) if b > 0 else math.inf for a, b in parts if a > 0)
