"""Train with Keras's own `fit` on any backend: the engine for TensorFlow and PyTorch, and the test oracle of the compiled one."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from keras_dropout.bench.data import arrays
from keras_dropout.bench.data.dataset import Part
from keras_dropout.callbacks import RateScheduler
from keras_dropout.schedules import Schedule

EVALUATION_BATCH = 1000
IN_MEMORY = 2**30  # bytes of a part's inputs and targets; a larger part is read batch by batch


class ReferenceTraining:
    """One model in training. `epoch(order)` trains over the examples in that order; `predict(part)` predicts with dropout off.

    The layers in `schedules` follow their schedules over `epochs`.
    """

    compilations = 1

    def __init__(
        self,
        model: keras.Model,
        parts: dict[str, Part],
        batch_size: int,
        divide_by: float,
        schedules: Mapping[keras.Layer, Schedule] = MappingProxyType({}),
        epochs: int = 1,
    ):
        self.model = model
        # `fit` puts averaged weights in place when it ends. Here it ends after each epoch, so `finish` does this instead.
        self._finalize = model.optimizer.finalize_variable_values
        model.optimizer.finalize_variable_values = lambda variables: None
        parts = {name: Part(*part) for name, part in parts.items()}
        self._small = {name: arrays.fits((part.x, part.y), IN_MEMORY) for name, part in parts.items()}
        self._parts = {
            name: part._replace(x=arrays.as_seen(part.x, divide_by)) if self._small[name] else part for name, part in parts.items()
        }
        self._batch_size = batch_size
        self._divide_by = divide_by
        self._scheduler = RateScheduler(schedules, epochs=epochs) if schedules else None
        self._epochs = epochs
        self._whole: WholeTraining | None = None
        self.epochs_done = 0

    def call(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Call these callbacks of the user's as one `fit` over all epochs would."""
        self._whole = WholeTraining(callbacks, self.model, self._epochs)

    def epoch(self, order: np.ndarray) -> dict[str, float]:
        return self._fit(self._taught(order))

    def _taught(self, order: np.ndarray) -> dict[str, Any]:
        """Return the arguments of `fit` that are the data of an epoch."""
        part = self._parts["train"]
        if self._small["train"]:
            x, y, weights = part.take(order)
            return {"x": x, "y": y, "sample_weight": weights, "batch_size": self._batch_size, "shuffle": False}
        return {"x": _Batches(part, order, self._batch_size, self._divide_by), "shuffle": False}

    def _fit(self, settings: dict[str, Any]) -> dict[str, float]:
        """Train an epoch with Keras's `fit`, and return its figures."""
        now, self.epochs_done = self.epochs_done, self.epochs_done + 1
        callbacks = [each for each in (self._scheduler, self._whole) if each is not None]
        settings |= {"initial_epoch": now, "epochs": now + 1, "callbacks": callbacks}
        history = self.model.fit(**settings, verbose=0).history
        no_metrics = {f"rate_{name}" for name in self._scheduler.names} if self._scheduler else ()
        return {name: float(values[-1]) for name, values in history.items() if name not in no_metrics}

    def end_epoch(self, logs: Mapping[str, float]) -> bool:
        """Tell the user's callbacks the figures of the epoch; return whether they stop the training."""
        return self._whole is not None and self._whole.end_epoch(self.epochs_done - 1, logs)

    def finish(self) -> None:
        """Put the optimizer's averaged weights in place, if it keeps them; then end the user's callbacks, as `fit` does."""
        self._finalize(self.model.trainable_variables)
        if self._whole is not None:
            self._whole.end()

    def predict(self, part: str) -> Any:
        x = self._parts[part].x
        if self._small[part]:
            return self.model.predict(x, batch_size=EVALUATION_BATCH, verbose=0)
        at_once = arrays.rows_at_once(x, EVALUATION_BATCH)
        batches = _Batches(Part(x, None), np.arange(arrays.count(x)), at_once, self._divide_by)
        return self.model.predict(batches, verbose=0)

    def snapshot(self) -> list[np.ndarray]:
        """Return a copy of the current values of model and optimizer."""
        return [np.array(keras.ops.convert_to_numpy(variable)) for variable in self._variables()]

    def restore(self, values: Sequence[np.ndarray]) -> None:
        """Go back to the values of a snapshot, even in a model that is not trained yet."""
        if not self.model.optimizer.built:
            self.build()
        for variable, value in zip(self._variables(), values, strict=True):
            variable.assign(value)

    def build(self) -> None:
        """Create all variables, the loss and the metrics of a model that is not trained yet."""
        first = self._parts["train"].take(np.arange(1))
        self.model._symbolic_build(data_batch=tuple(a for a in first if a is not None))  # Keras has no public name for this

    def values(self) -> list[np.ndarray]:
        """Return the current values of the model, the trainable ones first."""
        variables = (*self.model.trainable_variables, *self.model.non_trainable_variables)
        return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]

    def _variables(self) -> list[keras.Variable]:
        model = self.model
        return [*model.trainable_variables, *model.non_trainable_variables, *model.optimizer.variables]


class WholeTraining(keras.callbacks.Callback):
    """Calls callbacks as one `fit` over all epochs would, though each epoch has a `fit` of its own.

    They see the training begin and end once. The end of an epoch waits for the figures on validation data, which `fit` would
    measure before it, and which they see as val_loss and so on.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], model: keras.Model, epochs: int):
        super().__init__()
        self._all = keras.callbacks.CallbackList(list(callbacks), model=model, epochs=epochs, verbose=0)
        self._begun = False

    def on_train_begin(self, logs: Any = None) -> None:
        if not self._begun:
            self._all.on_train_begin(logs)
        self._begun = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._all.on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._all.on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._all.on_train_batch_end(batch, logs)

    def end_epoch(self, epoch: int, logs: Mapping[str, float]) -> bool:
        """End an epoch with these figures; return whether a callback stops the training."""
        named = {f"val_{name.removeprefix('validation_')}" if name.startswith("validation_") else name: logs[name] for name in logs}
        self._all.on_epoch_end(epoch, named)
        return bool(self.model.stop_training)

    def end(self) -> None:
        """End the training."""
        self._all.on_train_end()


class _Batches(keras.utils.PyDataset):
    """Examples in a given order, read one batch at a time."""

    def __init__(self, part: Part, order: np.ndarray, batch_size: int, divide_by: float):
        super().__init__()
        self._part, self._order, self._size, self._divide_by = part, order, batch_size, divide_by

    @property
    def num_batches(self) -> int:
        return -(-len(self._order) // self._size)

    def __getitem__(self, number: int) -> tuple:
        rows = self._order[number * self._size : (number + 1) * self._size]
        x, *rest = (a for a in self._part.take(rows) if a is not None)
        return (arrays.as_seen(x, self._divide_by), *rest)
