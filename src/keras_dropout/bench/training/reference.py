"""Training by Keras's own `fit`, on any backend: the path of TensorFlow and PyTorch, and the oracle of the compiled one."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from keras_dropout.bench.data import Arrays
from keras_dropout.callbacks import RateScheduler
from keras_dropout.schedules import Schedule

EVALUATION_BATCH = 1000


class ReferenceTraining:
    """One model in training. `epoch(order)` trains over the examples in that order; `predict(part)` has dropout off.

    The rates of the layers in `schedules` follow them over `epochs`.
    """

    compilations = 1

    def __init__(
        self,
        model: keras.Model,
        parts: dict[str, Arrays],
        batch_size: int,
        divide_by: float,
        schedules: Mapping[keras.Layer, Schedule] = MappingProxyType({}),
        epochs: int = 1,
    ):
        self.model = model
        # `fit` puts averaged weights in place when it ends; here it ends once an epoch, and `finish` does it.
        self._finalize = model.optimizer.finalize_variable_values
        model.optimizer.finalize_variable_values = lambda variables: None
        self._parts = {part: (_as_seen(x, divide_by), y) for part, (x, y) in parts.items()}
        self._batch_size = batch_size
        self._callbacks = [RateScheduler(schedules, epochs=epochs)] if schedules else []
        self._no_metrics = {f"rate_{layer.name}" for layer in schedules}
        self._epoch = 0

    def epoch(self, order: np.ndarray) -> dict[str, float]:
        x, y = self._parts["train"]
        now, self._epoch = self._epoch, self._epoch + 1
        settings = {"batch_size": self._batch_size, "shuffle": False, "verbose": 0, "callbacks": self._callbacks}
        history = self.model.fit(x[order], y[order], initial_epoch=now, epochs=now + 1, **settings).history
        return {name: float(values[-1]) for name, values in history.items() if name not in self._no_metrics}

    def finish(self) -> None:
        """Put averaged weights in place, where the optimizer keeps such."""
        self._finalize(self.model.trainable_variables)

    def predict(self, part: str) -> np.ndarray:
        return np.asarray(self.model.predict(self._parts[part][0], batch_size=EVALUATION_BATCH, verbose=0))


def _as_seen(x: Any, divide_by: float) -> np.ndarray:
    return x if divide_by == 1 else x.astype("float32") / np.float32(divide_by)
