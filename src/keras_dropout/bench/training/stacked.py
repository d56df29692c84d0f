"""Train several runs at once on one device: the compiled epoch, mapped over an axis of runs. JAX only.

Runs of one architecture differ only in numbers: initial weights, masks, rates and their schedules, order of the batches. So one
program trains them side by side. The runs share the data, which are on the device once.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_dropout.bench.data import arrays
from keras_dropout.bench.data.dataset import Part
from keras_dropout.bench.records import Variant
from keras_dropout.bench.training import measures
from keras_dropout.bench.training.compiled import CompiledPrograms, ValuesInTraining, check_values, followed, rates_at, variables
from keras_dropout.bench.training.reference import EVALUATION_BATCH
from keras_dropout.schedules import Schedule

ON_CPU = 16  # runs in a stack if the device does not report its memory
SHARE = 0.8  # share of the free memory for a stack; the memory that a program needs is only estimated


class StackedPrograms(CompiledPrograms):
    """The data on the device, and one compiled program per architecture for as many runs as fit on the device."""

    stacked = True

    def __init__(self, *settings: Any):
        super().__init__(*settings)
        self._sizes: dict[int, int] = {}
        self._measures: dict[int, Any] = {}

    def start_stack(
        self, built: Iterable[tuple[keras.Model, Mapping[keras.Layer, Schedule]]], variant: Variant, size: int, epochs: int
    ) -> "StackedTraining":
        """Begin to train freshly built models of one architecture, in a program for `size` runs."""
        program, values, schedules = None, [], []
        for model, scheduled in built:  # one model at a time, so that the device holds all values only once
            program = program or self.program(model, variant)
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
            values.append([[np.asarray(variable.value) for variable in group] for group in variables(model)[:3]])
            schedules.append(followed(model, scheduled))
        return StackedTraining(program, self, values, schedules, size, epochs)

    def size(self, model: keras.Model, variant: Variant, runs: int) -> int:
        """Return how many of these runs to train at once: as few stacks as fit on the device, of about equal size.

        A program compiled for more runs also serves fewer: copies fill the remaining places.
        """
        program = self.program(model, variant)
        stacks = -(-runs // self._room(program, model))
        size = max(self._sizes.get(id(program), 0), -(-runs // stacks))
        self._sizes[id(program)] = size
        return size

    def measure(self, program: Any) -> Any:
        """Return a function (predictions of all runs, targets, weights) -> losses of each example and metrics, for each run."""

        def measure(predictions: Any, y: Any, weights: Any) -> tuple[list, dict]:
            with keras.StatelessScope():
                losses = measures.losses(program.model, y, predictions, weights, array=jnp.asarray)
                return losses, measures.metrics(program.model, y, predictions, weights)

        if id(program) not in self._measures:
            self._measures[id(program)] = jax.jit(jax.vmap(measure, in_axes=(1, None, None)))
        return self._measures[id(program)]

    def _room(self, program: Any, model: keras.Model) -> int:
        """Return how many runs fit in the device's memory, from the needs of one run's training step and prediction batch."""
        free = free_memory()
        if free is None:
            return ON_CPU
        state = tuple([np.asarray(variable.value)[None] for variable in group] for group in variables(model))
        order, data = next(self.feed("train", np.arange(self.batch_size, dtype="int32")[:, None], self.batch_size))
        rates = np.zeros((len(program._rates), 1), "float32")
        x = arrays.take(data[0], slice(0, EVALUATION_BATCH))
        step = jax.jit(jax.vmap(program._step, in_axes=(0, -1, -1, None))).lower(state, order, rates, data).compile()
        predict = jax.jit(jax.vmap(program._predict_batch, in_axes=(0, None), out_axes=1)).lower(state[:2], x).compile()
        step_needs, predict_needs = step.memory_analysis(), predict.memory_analysis()
        if step_needs is None or predict_needs is None:
            return ON_CPU
        a_state = arrays.size(state)
        # Four states: before the step, after the step, of the best epoch (early stopping), and one copied for a checkpoint.
        a_run = 4 * a_state + max(each.temp_size_in_bytes + each.output_size_in_bytes for each in (step_needs, predict_needs))
        examples = max(self.examples(part) for part in (*self._whole, *self._in_pieces))
        a_run += examples * predict_needs.output_size_in_bytes // arrays.count(x)
        return max(1, int(SHARE * free) // a_run)


def free_memory() -> int | None:
    """Return the free bytes on the device; None if it does not report them."""
    memory = jax.devices()[0].memory_stats()
    return memory["bytes_limit"] - memory["bytes_in_use"] if memory and "bytes_limit" in memory else None


class StackedTraining(ValuesInTraining):
    """Several models in training; their values have an axis of runs."""

    def __init__(
        self,
        program: Any,
        programs: StackedPrograms,
        values: Sequence[list],
        schedules: Sequence[list],
        size: int,
        epochs: int,
    ):
        copies = [0] * (size - len(values))
        self._places = [*range(len(values)), *copies]  # the run in each place of the stack; the results of copies are ignored
        self._epochs, self.epochs_done = epochs, [0] * len(values)
        self._schedules = schedules
        metrics = [np.asarray(variable.value) for variable in program.model.metrics_variables]
        fresh = [np.broadcast_to(value, (size, *value.shape)) for value in metrics]
        state = jax.tree.map(lambda *each: jnp.asarray(np.stack(each)), *(values[run] for run in self._places))
        super().__init__(program, programs, (*state, fresh), fresh)

    def epoch(self, orders: Sequence[np.ndarray]) -> list[dict[str, float]]:
        """Train each run over the examples in its order and return the metrics of each."""
        order = np.stack([orders[run] for run in self._places], axis=-1)
        steps = -(-len(order) // self._programs.batch_size)
        by_run = [rates_at(*run, self._epochs, steps) for run in zip(self._schedules, self.epochs_done)]
        logs = self._train(order, np.stack([by_run[run] for run in self._places], axis=-1))
        self.epochs_done = [done + 1 for done in self.epochs_done]
        return [{name: float(values[run]) for name, values in logs.items()} for run in range(len(orders))]

    def measure(self, name: str, part: Part) -> list[tuple[dict[str, float], np.ndarray, np.ndarray | None]]:
        """Return for each run, with dropout off, a part's metrics, the loss of each example and, for the test part, predictions."""
        pieces = list(self._predict(name))
        predictions = jax.tree.map(lambda *pieces: jnp.concatenate(pieces), *pieces) if len(pieces) > 1 else pieces[0]
        losses, metrics = jax.device_get(self._programs.measure(self._program)(predictions, part.y, part.weights))
        model, found = self.model, []
        for run in range(len(self.epochs_done)):
            of_run = jax.tree.map(lambda each, run=run: each[run], (losses, metrics))
            decided = jax.tree.map(lambda each, run=run: np.asarray(each[run]), predictions) if name == "test" else None
            found.append((*measures.together(model, *of_run), None if decided is None else measures.decisions(model, decided)))
        return found

    def snapshot(self, run: int) -> list[jax.Array]:
        """Return a copy of the current values of a run's model and optimizer."""
        return _place(jax.tree.leaves(self._state[:3]), run)

    def restore(self, run: int, values: Sequence[Any]) -> None:
        """Put the values of a snapshot in a run's place."""
        leaves, structure = jax.tree.flatten(self._state[:3])
        check_values(values, [(leaf.shape[1:], leaf.dtype) for leaf in leaves])
        self._state = (*jax.tree.unflatten(structure, _put(leaves, run, list(values))), self._state[3])

    def values(self, run: int) -> list[jax.Array]:
        """Return the current values of a run's model, the trainable ones first."""
        return _place(jax.tree.leaves(self._state[:2]), run)

    def finish(self) -> None:
        """Put the optimizer's averaged weights in place, if it keeps them."""
        self._state = jax.vmap(self._program.finish)(self._state)


@jax.jit
def _place(leaves: list, run: int) -> list:
    return [leaf[run] for leaf in leaves]


@jax.jit
def _put(leaves: list, run: int, values: list) -> list:
    return [leaf.at[run].set(value) for leaf, value in zip(leaves, values, strict=True)]
