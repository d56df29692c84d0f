"""Check on the first batch of a run that its dropout acts: each layer changes the model's output and drops the expected share.

A study whose dropout does nothing compares a model with itself. So a run that fails this check is not trained.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dropout import backends, layers
from keras_dropout.bench.records import Variant
from keras_dropout.layers.base import MaskLayer, Stochastic
from keras_dropout.models import graph
from keras_dropout.models.dropping import dropout_options, is_dropout
from keras_dropout.sampling import drops, random_states, with_training

_ROWS = 16  # rows of the first batch to use
_ROWS_AT_ONCE = 128  # rows in all passes together
_CHANCE = math.log(1e9)  # a share is wrong if chance gives one as far off less than once in e ** _CHANCE runs
_ROUNDING = 8  # times the machine epsilon: the rounding difference allowed between the outputs of two programs
_MOST_DRAWS = 2000  # masks to draw at most for a layer that drops rarely
_FIX = (
    "Have the model call the layer and use what it returns, leave its site out of the variant, or take the layer out of the model."
)


def architecture(variant: Variant) -> str:
    """Return a key for the variant's program: one program trains all runs with the same architecture."""
    # The key leaves out rates that are variables. It keeps the rate of PatchDropout, which decides a shape.
    placement = variant.placement and {
        site: {
            name: value
            for name, value in spec.items()
            if name != "schedule" and name not in getattr(layers, spec["kind"]).free_rates()
        }
        for site, spec in variant.placement.items()
    }
    # A weight decay and a schedule of the learning rate are code; a constant learning rate is data, and so is early stopping.
    coded = {name: value for name, value in (variant.training or {}).items() if name != "early_stopping"}
    if not isinstance(coded.get("learning_rate", {}), Mapping):
        coded["learning_rate"] = "a constant"
    return json.dumps([placement, coded] if coded else placement, sort_keys=True, default=repr)


class Acting:
    """The dropout layers of an architecture, with one program that measures the effect of each.

    `model` gives the structure; the values of a run are arguments. Two passes of one program are compared. They differ in one
    layer only: the second pass gives it a rate of 0 if its rates are variables, otherwise other random states. One program gives
    the same bits for the same values, so the layer causes any difference. For a layer with neither, a second program calls it
    with `training=False`, and only a difference beyond rounding counts.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        position = {id(variable): number for number, variable in enumerate(model.non_trainable_variables)}
        self._free = [layer for layer in model._flatten_layers() if _free_rates(layer)]
        self._fixed = _that_can_be_switched_off(model)
        self._rates = [[position[id(getattr(layer.state, name))] for name in _free_rates(layer)] for layer in self._free]
        self._states = [
            [position[id(state)] for state in random_states(layer, {})[0] if id(state) in position]
            for layer in (*self._free, *self._fixed)
        ]
        stateless = [layer for layer, positions in zip(self._fixed, self._states[len(self._free) :]) if not positions]
        # The inputs of a layer inside a loop, such as that of a recurrent layer, cannot be read.
        called = {id(call.layer) for call in graph.read(model).calls}
        self._counted = [layer for layer in self._free if _draws_units(layer) and id(layer) in called]
        self.rows = max(2, min(_ROWS, _ROWS_AT_ONCE // (1 + len(self._free) + len(self._fixed))))
        self._epsilon = max(_EPSILON.get(layer.compute_dtype, _EPSILON["float32"]) for layer in model._flatten_layers())
        self._plain = self._compiled(None)
        self._without = {layer: self._compiled(layer) for layer in stateless}

    def refusal(self, values: Sequence[Any], x: Any) -> str | None:
        """Return two lines about the first layer that does not act on the inputs `x`, or None if all act.

        `values` are the values of a run's model before its first step, the trainable ones first.
        """
        count = len(self.model.trainable_variables)
        trainable, rest = list(values[:count]), list(values[count:])
        rates = [max(float(np.asarray(ops.convert_to_numpy(rest[p]))) for p in positions) for positions in self._rates]
        rates += [_fixed_rate(layer) for layer in self._fixed]
        left = {number for number, rate in enumerate(rates) if rate > 0}
        if not left:
            return None
        acting, counts = self._acting(trainable, rest, x)
        for layer, (dropped, units) in zip(self._counted, counts):
            rate = rates[self._free.index(layer)]
            if units and units * _divergence(dropped / units, rate) > _CHANCE:
                share = f"drops {100 * dropped / units:.3g} % of its {units:.0f} units in a training step"
                return f"{_called(layer)} {share}; its rate is {rate:g}.\nCheck what the model does to the layer's rate."
        left -= acting
        # Chance, weights that start at 0 or saturated outputs may hide the effect of a layer: try again with other values.
        needed = {
            number: 40 if number < len(self._free) else min(_MOST_DRAWS, math.ceil(_CHANCE / rates[number])) for number in left
        }
        for draw in range(1, max(needed.values(), default=0)):
            if not left:
                return None
            again = self._disturbed(trainable, rest, x, draw)
            left -= self._acting(*again)[0]
        certain = {number for number in left if needed[number] < _MOST_DRAWS}
        if not certain:
            return None
        layer = (*self._free, *self._fixed)[min(certain)]
        return f"{_called(layer)} does not act: the model's output in training is the same with and without it.\n{_FIX}"

    def masks(self, values: Sequence[Any]) -> list[list[np.ndarray]]:
        """Return the random states of each layer in the values of a run's model."""
        count = len(self.model.trainable_variables)
        return [[np.array(ops.convert_to_numpy(values[count + p])) for p in positions] for positions in self._states]

    def unused(self, before: list[list[np.ndarray]], after: list[list[np.ndarray]]) -> str | None:
        """Return two lines about the first layer that drew no mask between two moments of training, or None."""
        for layer, *states in zip((*self._free, *self._fixed), before, after):
            if states[0] and all(map(np.array_equal, *states)):
                return (
                    f"{_called(layer)} drew no mask in the first epoch: the training step does not use it.\n"
                    "Have the training step call the model with training=True."
                )
        return None

    def _acting(self, trainable: list, rest: list, x: Any) -> tuple[set[int], list[tuple[float, float]]]:
        """Return the indices of the layers that change the outputs, and (dropped, units) of each counted layer."""
        outputs, counts = self._plain(trainable, rest, x)
        again = self._plain(trainable, rest, x)[0]
        noise = _distance(again, outputs)  # 0, except on devices that add in a different order each time
        found = set()
        for number, layer in enumerate((*self._free, *self._fixed)):
            if number < len(self._free):
                off = {position: np.zeros((), "float32") for position in self._rates[number]}
            else:
                off = {position: _moved(rest[position], 1_000_003) for position in self._states[number]}
            if off:
                one = self._plain(trainable, [off.get(position, value) for position, value in enumerate(rest)], x)[0]
                changed = _distance(one, outputs) > noise
            else:
                one = self._without[layer](trainable, rest, x)[0]
                changed = _distance(one, outputs) > _ROUNDING * self._epsilon
            if changed:
                found.add(number)
        return found, [_count(layer, calls) for layer, calls in zip(self._counted, counts)]

    def _compiled(self, off: keras.Layer | None) -> Callable:
        """Return a pass in training: (values, inputs) -> outputs, and what each call of each counted layer met and left.

        The pass calls the layer `off` as at prediction.
        """

        def run(trainable: list, rest: list, x: Any) -> tuple[list, list]:
            counts: list[list] = [[] for _ in self._counted]
            calls = [(layer, _counting(layer, of_layer)) for layer, of_layer in zip(self._counted, counts)]
            with graph.called_as(calls if off is None else [(off, with_training(off.call, False))]):
                outputs, _ = self.model.stateless_call(trainable, rest, x, training=True)
            return [ops.cast(each, "float32") for each in keras.tree.flatten(outputs)], counts

        # TensorFlow would trace the program again for each run's model.
        return run if keras.backend.backend() == "tensorflow" else backends.current().compiled(run, seldom=True)

    def _disturbed(self, trainable: list, rest: list, x: Any, draw: int) -> tuple[list, list, Any]:
        """Return values with other masks and variable rates of at least one half; from try 8 on, other weights and inputs too."""
        rng, rest = np.random.default_rng(draw), list(rest)
        for position in {p for positions in self._states for p in positions}:
            rest[position] = _moved(rest[position], draw**4)  # far ahead, for a layer whose rate rises from 0
        for position in {p for positions in self._rates for p in positions}:
            now = np.asarray(ops.convert_to_numpy(rest[position]))
            rest[position] = ops.convert_to_tensor(np.maximum(now, np.float32(0.5)) if now > 0 else now)
        if draw >= 8:
            shapes = [tuple(variable.shape) for variable in self.model.trainable_variables]
            scales = [1 / math.sqrt(max(1, math.prod(shape[:-1]))) if len(shape) > 1 else 1.0 for shape in shapes]
            trainable = [
                ops.cast(scale * rng.normal(size=shape), variable.dtype)
                for scale, shape, variable in zip(scales, shapes, self.model.trainable_variables)
            ]
            x = keras.tree.map_structure(lambda a: rng.normal(size=a.shape).astype(a.dtype) if "float" in str(a.dtype) else a, x)
        return trainable, rest, x


_EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-23}


def _free_rates(layer: Any) -> list[str]:
    """Return the names of a layer's rates that are variables, the main one first."""
    names = layer.free_rates() if isinstance(layer, Stochastic) and not getattr(layer, "rates_given", False) else set()
    return (
        sorted((name for name in names if name.endswith("rate")), key=lambda name: (name != "rate", name))
        if "rate" in names
        else []
    )


def _that_can_be_switched_off(model: keras.Model) -> list[keras.Layer]:
    """Return the layers with dropout whose rates are not variables, without those inside a Keras layer, such as cells."""
    found = [layer for layer in model._flatten_layers() if drops(layer) and not _free_rates(layer) and layer._call_has_training_arg]
    found = [layer for layer in found if is_dropout(layer) or isinstance(layer, Stochastic) or dropout_options(layer)]
    own = [layer for layer in found if type(layer).__module__.startswith("keras.")]
    parts = {id(inner) for layer in own for inner in layer._flatten_layers(include_self=False)}
    return [layer for layer in found if id(layer) not in parts]


def _draws_units(layer: Any) -> bool:
    """Return whether the units that a layer drops can be counted in its output."""
    return isinstance(layer, MaskLayer) and type(layer).drop is MaskLayer.drop


def _fixed_rate(layer: keras.Layer) -> float:
    """Return the smallest rate of a layer whose rates are not variables; 0.5 if it learns them or none is known."""
    rates = [getattr(layer, "rate", None), *(rate for *_, rate in dropout_options(layer))]
    return min((float(r) for r in rates if isinstance(r, (int, float)) and not isinstance(r, bool) and r > 0), default=0.5)


def _moved(state: Any, steps: int) -> Any:
    """Return the random state `steps` steps ahead."""
    state = np.array(ops.convert_to_numpy(state))
    state[-1] += steps
    return ops.convert_to_tensor(state)


def _count(layer: MaskLayer, calls: list) -> tuple[int, int]:
    """Return how many units a layer dropped in its calls, and how many had a nonzero input."""
    dropped = units = 0
    for call in calls:
        before, after = (ops.convert_to_numpy(each) for each in call)
        shared = tuple(axis for axis, n in enumerate(layer.mask_shape(before.shape)) if n == 1)
        alive, kept = before.any(axis=shared), (before & after).any(axis=shared)
        dropped, units = dropped + int((alive & ~kept).sum()), units + int(alive.sum())
    return dropped, units


def _counting(layer: MaskLayer, counts: list) -> Callable:
    """Wrap the layer's call so that it also notes which entries of its input and of its output are not 0."""
    call = layer.call

    @functools.wraps(call)
    def counted(*args: Any, **kwargs: Any) -> Any:
        out = call(*args, **kwargs)
        inputs = graph.first_input(args, kwargs)
        counts.append((ops.not_equal(inputs, 0), ops.not_equal(out, 0)))
        return out

    return counted


def _distance(one: list, other: list) -> float:
    """Return the largest difference between two lists of tensors, relative to the largest value of each tensor."""
    pairs = [(ops.convert_to_numpy(a).astype("float64"), ops.convert_to_numpy(b)) for a, b in zip(one, other)]
    return max(float(np.max(np.abs(a - b), initial=0)) / max(float(np.max(np.abs(b), initial=0)), 1e-30) for a, b in pairs)


def _divergence(found: float, rate: float) -> float:
    """Return the Kullback-Leibler divergence of two Bernoulli laws: n draws are this far off with probability e ** (-n * it)."""
    terms = ((found, rate), (1 - found, 1 - rate))
    return sum(0.0 if p == 0 else math.inf if q == 0 else p * math.log(p / q) for p, q in terms)


def _called(layer: keras.Layer) -> str:
    return f"the layer {layer.name!r} ({type(layer).__name__})"
