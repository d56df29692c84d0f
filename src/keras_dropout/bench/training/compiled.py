"""Train whole epochs in one jitted `lax.scan` over batches that are already on the device. JAX only.

A step is Keras's own `train_step`, which on JAX is a pure function: `stateless_call`, the compiled loss and metrics and
`optimizer.stateless_apply`. So every Keras optimizer, loss and metric works, and so does an overridden `train_step`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_dropout.bench.data import arrays
from keras_dropout.bench.data.dataset import Part
from keras_dropout.bench.records import Variant
from keras_dropout.bench.training.acting import architecture
from keras_dropout.bench.training.reference import EVALUATION_BATCH
from keras_dropout.layers.base import Stochastic
from keras_dropout.models import kinds
from keras_dropout.schedules import Schedule

ON_DEVICE = 2**30  # bytes of a part to put on the device at once; a larger part goes there in pieces of whole batches


class CompiledPrograms:
    """The data on the device, and one compiled program per architecture. Rates, schedules and seeds are data, not code."""

    stacked = False  # whether a program trains several runs at once: see `stacked.py`

    def __init__(self, parts: dict[str, Part], batch_size: int, divide_by: float):
        self.batch_size = batch_size
        self.divide_by = divide_by
        self.hold(parts)
        self._programs: dict[str, _Program] = {}

    def hold(self, parts: dict[str, Part]) -> None:
        """Put these data on the device, in place of those before; the programs stay."""
        self._whole: dict[str, tuple] = {}  # frees the device's memory first
        # Keras's train_step takes (x, y) or (x, y, weights).
        data = {name: tuple(a for a in part if a is not None) for name, part in parts.items()}
        self._whole = {name: _to_device(part) for name, part in data.items() if arrays.fits(part, ON_DEVICE)}
        self._in_pieces = {name: part for name, part in data.items() if name not in self._whole}

    def start(
        self,
        model: keras.Model,
        variant: Variant,
        schedules: Mapping[keras.Layer, Schedule] = MappingProxyType({}),
        epochs: int = 1,
    ) -> "CompiledTraining":
        """Begin to train a freshly built and compiled model; the layers in `schedules` follow their schedules over `epochs`."""
        program = self.program(model, variant)
        self.make_variables(model)
        return CompiledTraining(program, model, self, schedules, epochs)

    def make_variables(self, model: keras.Model) -> None:
        """Create the missing variables of optimizer and metrics without a training step."""
        _, first = next(self.feed("train", np.arange(1), 1))
        model._symbolic_build(data_batch=self._seen(_take(first, slice(1))))  # as Keras does it; there is no public name

    def program(self, model: keras.Model, variant: Variant) -> "_Program":
        """Return the program of a variant's architecture; make it from this model if there is none yet."""
        key = architecture(variant)
        if key not in self._programs:
            self.make_variables(model)
            self._programs[key] = _Program(model, self)
        return self._programs[key]

    def feed(self, part: str, order: np.ndarray, multiple: int) -> Iterator[tuple[np.ndarray, tuple]]:
        """Yield (indices, data on the device) for the examples in this order: all at once, or a multiple of `multiple` at a time.

        An `order` with columns has one column for each run.
        """
        if part in self._whole:
            yield order, self._whole[part]
            return
        data = self._in_pieces[part]
        row = -(-arrays.size(data) // arrays.count(data)) * math.prod(order.shape[1:])
        most = ON_DEVICE if arrays.fits(data[0], 2**63) else arrays.DECODED
        step = max(1, most // (row * multiple)) * multiple
        for start in range(0, len(order), step):
            rows = order[start : start + step]
            yield np.arange(rows.size, dtype="int32").reshape(rows.shape), _to_device(arrays.take(data, rows.ravel()))

    def examples(self, part: str) -> int:
        """Return the number of examples in a part."""
        return arrays.count((self._whole.get(part) or self._in_pieces[part])[0])

    def evaluated_at_once(self, part: str) -> int:
        """Return the examples of a part to predict at once."""
        return EVALUATION_BATCH if part in self._whole else arrays.rows_at_once(self._in_pieces[part][0], EVALUATION_BATCH)

    def _seen(self, data: tuple) -> tuple:
        """Return the data with the inputs scaled for the model."""
        if self.divide_by == 1:
            return data
        return (jax.tree.map(lambda x: x.astype(jnp.float32) / jnp.float32(self.divide_by), data[0]), *data[1:])


def _to_device(data: tuple) -> tuple:
    return arrays.each(lambda a: jnp.asarray(np.asarray(a)), data)


def _take(data: Any, index: Any) -> Any:
    return jax.tree.map(lambda a: a[index], data)


def _layers_with_rate(model: keras.Model) -> list[Stochastic]:
    """Return the layers whose rate is a variable, in an order that depends only on the architecture."""
    return [each for each in model._flatten_layers() if isinstance(each, Stochastic) and "rate" in each.free_rates()]


def followed(model: keras.Model, schedules: Mapping[keras.Layer, Schedule]) -> list[Schedule | float]:
    """Return the schedule of each layer's rate, or its constant value."""
    return [schedules.get(layer, layer.rate) for layer in _layers_with_rate(model)]


def rates_at(schedules: Sequence[Schedule | float], epochs_done: int, epochs: int, steps: int) -> np.ndarray:
    """Return the rate of each layer at each step of the next epoch; after `epochs` epochs the last rate stays."""
    progress = np.minimum((epochs_done + np.arange(steps) / steps) / epochs, 1)
    rates = np.empty((steps, len(schedules)), "float32")
    for column, schedule in enumerate(schedules):
        rates[:, column] = schedule(progress) if isinstance(schedule, Schedule) else schedule
    return rates


def variables(model: keras.Model) -> tuple[list[keras.Variable], ...]:
    """Return all variables that change in training: trainable, non-trainable, the optimizer's and the metrics'."""
    return model.trainable_variables, model.non_trainable_variables, model.optimizer.variables, model.metrics_variables


def check_values(values: Sequence[Any], kinds: Sequence[tuple]) -> None:
    """Raise ValueError if the values do not have these (shape, type) pairs; a program would fail on them much later."""
    if [(value.shape, value.dtype) for value in values] != list(kinds):
        raise ValueError("the values are not those of this model and its optimizer")


class _Program:
    """The compiled functions of one architecture. They use a model only for its structure, never for its values."""

    def __init__(self, model: keras.Model, programs: CompiledPrograms):
        self.model = model
        self._batch_size = programs.batch_size
        self._seen = programs._seen
        self.compilations = 0
        position = {id(variable): number for number, variable in enumerate(model.non_trainable_variables)}
        self._rates = [position[id(layer.state.rate)] for layer in _layers_with_rate(model)]
        # On XLA's CPU backend a convolution inside a scan is many times slower than outside, so the loop there is in Python.
        self._scans = jax.default_backend() != "cpu" or not any(
            isinstance(layer, (*kinds.PLAIN_CONVOLUTIONS, *kinds.SPLIT_CONVOLUTIONS)) for layer in model._flatten_layers()
        )
        step, predict, self._result = self._step, self._predict_batch, self._metrics_result
        if programs.stacked:  # runs are the first axis of values, the last of orders and rates, the second of predictions
            step = jax.vmap(step, in_axes=(0, -1, -1, None))
            predict = jax.vmap(predict, in_axes=(0, None), out_axes=1)
            self._result = jax.vmap(self._result)
        self.epoch = jax.jit(self._epoch, donate_argnums=0) if self._scans else self._epoch
        self.predict = jax.jit(self._predict) if self._scans else self._predict
        self._step_once = step if self._scans else jax.jit(step, donate_argnums=0)
        self._predict_once = predict if self._scans else jax.jit(predict)

    def _epoch(self, state: tuple, order: np.ndarray | jax.Array, rates: np.ndarray | jax.Array, data: tuple) -> tuple[tuple, dict]:
        """Train over the examples in `order`, including a smaller last batch, and return the state and the epoch's metrics.

        `rates` has a row for each step, with the rate of each layer.
        """
        self.compilations += self._scans  # runs only while jax traces it
        count, size = order.shape[0], self._batch_size
        batches = order[: count - count % size].reshape(-1, size, *order.shape[1:])
        if self._scans:
            steps = (batches, rates[: len(batches)])
            state = jax.lax.scan(lambda state, step: (self._step_once(state, *step, data), None), state, steps)[0]
        else:
            for batch, now in zip(batches, rates):
                state = self._step_once(state, batch, now, data)
        if count % size:
            state = self._step_once(state, order[count - count % size :], rates[-1], data)
        return state, self._result(state[3])

    def _metrics_result(self, metrics: list) -> dict:
        with keras.StatelessScope(state_mapping=list(zip(self.model.metrics_variables, metrics))):
            return self.model.get_metrics_result()

    def _step(self, state: tuple, batch: np.ndarray | jax.Array, rates: np.ndarray | jax.Array, data: tuple) -> tuple:
        self.compilations += not self._scans
        trainable, rest, *others = state
        rest = list(rest)
        for position, rate in zip(self._rates, rates):
            rest[position] = rate
        return self.model.train_step((trainable, rest, *others), self._seen(_take(data, batch)))[1]

    def finish(self, state: tuple) -> tuple:
        """Return the state with the optimizer's averaged weights in place, if it keeps them."""
        optimizer, (trainable, rest, slots, metrics) = self.model.optimizer, state
        now = [*zip(self.model.trainable_variables, trainable), *zip(optimizer.variables, slots)]
        with keras.StatelessScope(state_mapping=now) as scope:
            optimizer.finalize_variable_values(self.model.trainable_variables)
        return [scope.get_current_value(variable) for variable in self.model.trainable_variables], rest, slots, metrics

    def _predict(self, weights: tuple, x: Any) -> Any:
        self.compilations += self._scans
        count, size = arrays.count(x), EVALUATION_BATCH
        whole = jax.tree.map(lambda a: a[: count - count % size].reshape(-1, size, *a.shape[1:]), x)
        done = []
        if count >= size and self._scans:
            done = [jax.lax.map(lambda batch: self._predict_once(weights, batch), whole)]
            done = [jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), done[0])]
        elif count >= size:
            done = [self._predict_once(weights, _take(whole, number)) for number in range(count // size)]
        rest = [self._predict_once(weights, _take(x, slice(count - count % size, None)))] if count % size else []
        return jax.tree.map(lambda *pieces: jnp.concatenate(pieces), *done, *rest)

    def _predict_batch(self, weights: tuple, x: Any) -> Any:
        self.compilations += not self._scans
        return self.model.stateless_call(*weights, self._seen((x,))[0], training=False)[0]


class ValuesInTraining:
    """The values of one or several models in training, and the program of their architecture that updates them."""

    def __init__(self, program: _Program, programs: Any, state: tuple, fresh_metrics: list):
        self._program, self._programs, self._state, self._fresh_metrics = program, programs, state, fresh_metrics
        self._before = program.compilations
        self.model = program.model  # used only for its structure

    @property
    def compilations(self) -> int:
        """Number of compilations for this training."""
        return self._program.compilations - self._before

    def _train(self, order: np.ndarray, rates: np.ndarray) -> dict[str, Any]:
        """Train one epoch over the examples in this order, with rates for each step, and return the metrics."""
        self._state = (*self._state[:3], [jnp.array(value) for value in self._fresh_metrics])
        size, before = self._programs.batch_size, 0
        for rows, data in self._programs.feed("train", order, size):
            steps = -(-len(rows) // size)
            self._state, logs = self._program.epoch(self._state, rows, rates[before : before + steps], data)
            before += steps
        return jax.device_get(logs)

    def _predict(self, part: str) -> Iterator[Any]:
        """Yield the predictions on a part, in pieces."""
        whole = np.arange(self._programs.examples(part))
        for _, data in self._programs.feed(part, whole, self._programs.evaluated_at_once(part)):
            yield self._program.predict(self._state[:2], data[0])

    def finish(self) -> None:
        """Put the optimizer's averaged weights in place, if it keeps them."""
        self._state = self._program.finish(self._state)


class CompiledTraining(ValuesInTraining):
    """One model in training."""

    def __init__(
        self,
        program: _Program,
        model: keras.Model,
        programs: CompiledPrograms,
        schedules: Mapping[keras.Layer, Schedule],
        epochs: int,
    ):
        # Copies, because the program may reuse the memory of its arguments.
        state = tuple([jnp.array(variable.value) for variable in group] for group in variables(model))
        super().__init__(program, programs, state, [np.asarray(value) for value in state[3]])
        self._schedules = followed(model, schedules)
        self.epochs_done, self._epochs = 0, epochs

    def epoch(self, order: np.ndarray) -> dict[str, float]:
        logs = self._train(order, self._rates(len(order)))
        self.epochs_done += 1
        return {name: float(value) for name, value in logs.items()}

    def trace(self) -> None:
        """Trace a training step to check that it can be compiled, without computing anything."""
        order, data = next(self._programs.feed("train", np.arange(1, dtype="int32"), 1))
        jax.eval_shape(self._program._step, self._state, order, self._rates(1)[0], data)

    def _rates(self, examples: int) -> np.ndarray:
        steps = -(-examples // self._programs.batch_size)
        return rates_at(self._schedules, self.epochs_done, self._epochs, steps)

    def predict(self, part: str) -> Any:
        pieces = [jax.tree.map(np.asarray, piece) for piece in self._predict(part)]
        return jax.tree.map(lambda *pieces: np.concatenate(pieces), *pieces) if len(pieces) > 1 else pieces[0]

    def snapshot(self) -> list[jax.Array]:
        """Return a copy of the current values of model and optimizer."""
        return [jnp.copy(value) for value in jax.tree.leaves(self._state[:3])]

    def restore(self, values: Sequence[Any]) -> None:
        """Go back to the values of a snapshot."""
        leaves, structure = jax.tree.flatten(self._state[:3])
        check_values(values, [(leaf.shape, leaf.dtype) for leaf in leaves])
        self._state = (*jax.tree.unflatten(structure, [jnp.array(value) for value in values]), self._state[3])

    def values(self) -> list[jax.Array]:
        """Return the current values of the model, the trainable ones first."""
        return [*self._state[0], *self._state[1]]
