"""Training in whole epochs: one jitted `lax.scan` over batches that are already on the device. JAX only.

A step is Keras's own `train_step`, which on JAX is a pure function: `stateless_call`, the compiled loss and metrics and
`optimizer.stateless_apply`. So every Keras optimizer, loss and metric works, and an overridden `train_step` is obeyed.
"""

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_dropout import layers
from keras_dropout.bench.data import Arrays
from keras_dropout.bench.records import Variant
from keras_dropout.bench.training.reference import EVALUATION_BATCH
from keras_dropout.layers.base import Stochastic
from keras_dropout.schedules import Schedule

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.SeparableConv1D)
_CONVOLUTIONS += (keras.layers.SeparableConv2D, keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)


class CompiledPrograms:
    """The data on the device, and one compiled program per architecture: rates, their schedules and seeds are data, not code."""

    def __init__(self, parts: dict[str, Arrays], batch_size: int, divide_by: float):
        self.parts = {part: (jnp.asarray(x), jnp.asarray(y)) for part, (x, y) in parts.items()}
        self.batch_size = batch_size
        self.divide_by = divide_by
        self._programs: dict[str, _Program] = {}

    def start(
        self,
        model: keras.Model,
        variant: Variant,
        schedules: Mapping[keras.Layer, Schedule] = MappingProxyType({}),
        epochs: int = 1,
    ) -> "CompiledTraining":
        """Begin the training of a freshly built and compiled model; the layers in `schedules` follow them over `epochs`."""
        # A rate is no part of the program where it is a variable; PatchDropout's decides a shape.
        architecture = variant.placement and {
            site: {
                name: value
                for name, value in spec.items()
                if name != "schedule" and name not in getattr(layers, spec["kind"]).free_rates()
            }
            for site, spec in variant.placement.items()
        }
        key = json.dumps(architecture, sort_keys=True, default=repr)
        x, y = self.parts["train"]
        # Keras's own way to make the variables of optimizer and metrics without a step; it has no public name.
        model._symbolic_build(data_batch=(self._seen(x[:1]), y[:1]))
        if key not in self._programs:
            self._programs[key] = _Program(model, self)
        return CompiledTraining(self._programs[key], model, self, schedules, epochs)

    def _seen(self, x: jax.Array) -> jax.Array:
        return x if self.divide_by == 1 else x.astype(jnp.float32) / jnp.float32(self.divide_by)


def _layers_with_rate(model: keras.Model) -> list[Stochastic]:
    """The layers whose rate is a variable, in an order that depends on the architecture alone."""
    return [each for each in model._flatten_layers() if isinstance(each, Stochastic) and "rate" in each.free_rates()]


class _Program:
    """The compiled functions of one architecture; they hold a model for its structure, never for its values."""

    def __init__(self, model: keras.Model, programs: CompiledPrograms):
        self.model = model
        self._batch_size = programs.batch_size
        self._seen = programs._seen
        self.compilations = 0
        position = {id(variable): number for number, variable in enumerate(model.non_trainable_variables)}
        self._rates = [position[id(layer.state.rate)] for layer in _layers_with_rate(model)]
        # On XLA's CPU backend a convolution inside a scan is many times slower than outside: there the loop is Python's.
        self._scans = jax.default_backend() != "cpu" or not any(
            isinstance(layer, _CONVOLUTIONS) for layer in model._flatten_layers()
        )
        self.epoch = jax.jit(self._epoch, donate_argnums=0) if self._scans else self._epoch
        self.predict = jax.jit(self._predict) if self._scans else self._predict
        self._step_once = self._step if self._scans else jax.jit(self._step, donate_argnums=0)
        self._predict_once = self._predict_batch if self._scans else jax.jit(self._predict_batch)

    def _epoch(self, state: tuple, order: jax.Array, rates: jax.Array, x: jax.Array, y: jax.Array) -> tuple[tuple, dict]:
        """One epoch over the examples in `order`, a last smaller batch included, and the metrics over it.

        `rates` has a row for each step, with the rate of each layer.
        """
        self.compilations += self._scans  # runs only while jax traces it
        count, size = order.shape[0], self._batch_size
        batches = order[: count - count % size].reshape(-1, size)
        if self._scans:
            steps = (batches, rates[: len(batches)])
            state = jax.lax.scan(lambda state, step: (self._step_once(state, *step, x, y), None), state, steps)[0]
        else:
            for batch, now in zip(batches, rates):
                state = self._step_once(state, batch, now, x, y)
        if count % size:
            state = self._step_once(state, order[count - count % size :], rates[-1], x, y)
        with keras.StatelessScope(state_mapping=list(zip(self.model.metrics_variables, state[3]))):
            return state, self.model.get_metrics_result()

    def _step(self, state: tuple, batch: jax.Array, rates: jax.Array, x: jax.Array, y: jax.Array) -> tuple:
        trainable, rest, *others = state
        rest = list(rest)
        for position, rate in zip(self._rates, rates):
            rest[position] = rate
        state = (trainable, rest, *others)
        return self.model.train_step(state, (self._seen(x[batch]), y[batch]))[1]

    def _predict(self, weights: tuple, x: jax.Array) -> jax.Array:
        self.compilations += self._scans
        count, size = x.shape[0], EVALUATION_BATCH
        whole = x[: count - count % size].reshape(-1, size, *x.shape[1:])
        if self._scans:
            done = jax.lax.map(lambda batch: self._predict_once(weights, batch), whole)
        else:
            done = jnp.stack([self._predict_once(weights, batch) for batch in whole]) if len(whole) else whole
        rest = [self._predict_once(weights, x[count - count % size :])] if count % size else []
        return jnp.concatenate([done.reshape(-1, *done.shape[2:])] * (count >= size) + rest)

    def _predict_batch(self, weights: tuple, x: jax.Array) -> jax.Array:
        return self.model.stateless_call(*weights, self._seen(x), training=False)[0]


class CompiledTraining:
    """One model in training: its values, going through the program of its architecture."""

    def __init__(
        self,
        program: _Program,
        model: keras.Model,
        programs: CompiledPrograms,
        schedules: Mapping[keras.Layer, Schedule],
        epochs: int,
    ):
        self.model = program.model
        self._schedules = [schedules.get(layer, layer.rate) for layer in _layers_with_rate(model)]
        self._epoch, self._epochs, self._batch_size = 0, epochs, programs.batch_size
        self._program = program
        self._parts = programs.parts
        self._before = program.compilations
        groups = (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables, model.metrics_variables)
        # Copies, because the program may take the memory of what it is given.
        self._state = tuple([jnp.array(variable.value) for variable in group] for group in groups)
        self._fresh_metrics = [np.asarray(value) for value in self._state[3]]

    @property
    def compilations(self) -> int:
        """How often something was compiled for this training."""
        return self._program.compilations - self._before

    def epoch(self, order: np.ndarray) -> dict[str, float]:
        state = (*self._state[:3], [jnp.array(value) for value in self._fresh_metrics])
        self._state, logs = self._program.epoch(state, order, self._rates(len(order)), *self._parts["train"])
        self._epoch += 1
        return {name: float(value) for name, value in logs.items()}

    def _rates(self, examples: int) -> np.ndarray:
        """The rate of each layer at each step of the next epoch; training that goes on too long keeps the last."""
        steps = math.ceil(examples / self._batch_size)
        progress = np.minimum((self._epoch + np.arange(steps) / steps) / self._epochs, 1)
        rates = np.empty((steps, len(self._schedules)), "float32")
        for column, schedule in enumerate(self._schedules):
            rates[:, column] = schedule(progress) if isinstance(schedule, Schedule) else schedule
        return rates

    def predict(self, part: str) -> np.ndarray:
        return np.asarray(self._program.predict(self._state[:2], self._parts[part][0]))

    def finish(self) -> None:
        """Put averaged weights in place, where the optimizer keeps such."""
        optimizer, (trainable, rest, slots, metrics) = self.model.optimizer, self._state
        now = [*zip(self.model.trainable_variables, trainable), *zip(optimizer.variables, slots)]
        with keras.StatelessScope(state_mapping=now) as scope:
            optimizer.finalize_variable_values(self.model.trainable_variables)
        final = [scope.get_current_value(variable) for variable in self.model.trainable_variables]
        self._state = (final, rest, slots, metrics)

    def weights(self) -> list[Any]:
        """The trainable values as they are now."""
        return [np.asarray(value) for value in self._state[0]]
