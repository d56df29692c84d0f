"""A callback for Keras's `fit` that changes the rates of a model during training."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import keras

from keras_dropout import schedules
from keras_dropout.errors import check_whole, refuse
from keras_dropout.layers.base import Stochastic
from keras_dropout.models.dropping import rated
from keras_dropout.models.placement import rated_by


class RateScheduler(keras.callbacks.Callback):
    """Let the rates of a model's dropout layers follow schedules in Keras's `fit`, without compiling again.

        layer.rate = schedule((epoch + batch / batches) / epochs),    before each batch that changes it

    Arguments:     schedule: a schedule, its text form or a rate, for all dropout layers; or a mapping to one of these from what
                   `set_rate` takes (a layer's name, address, glob or group), where a later entry wins. epochs: the length of the
                   whole training, if `fit` is called for a part of it; `fit`'s own `epochs` by default. If training goes on longer,
                   the last rate stays. A recurrent_rate or cell_rate of a layer does not change.
    Progress:      if `fit` cannot know the number of batches (a generator), the number of the previous epoch is used, and the rate
                   is constant in the first epoch. With `steps_per_execution`, each execution uses the rate of its first step.
                   Training resumed with `initial_epoch` continues where it was.
    History:       `rate_NAME` is a layer's rate at the end of each epoch. After `fit` the layers keep their last rates.
    Differs from:  setting `rate` in Keras's own layers: on JAX and TensorFlow, Keras ignores this after compilation. Such layers
                   are refused. On JAX each change makes Keras write the state of the step back into the model. A schedule that
                   changes with every batch therefore costs time on small models; `steps_per_execution` avoids this.

    >>> import numpy as np
    >>> from keras_dropout import Dropout, schedules
    >>> model = keras.Sequential([keras.Input((4,)), Dropout(0.5, name="drop"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y, scheduler = np.ones((8, 4)), np.ones((8, 1)), RateScheduler(schedules.Linear(0.4, 0.0))
    >>> history = model.fit(x, y, batch_size=4, epochs=2, callbacks=[scheduler], verbose=0).history
    >>> history["rate_drop"]
    [0.3, 0.1]
    """

    async_safe = True  # Keras need not wait for `on_train_batch_end`, which only counts

    def __init__(self, schedule: Any, *, epochs: int | None = None):
        super().__init__()
        by_pattern = schedule if isinstance(schedule, Mapping) else {"*": schedule}
        self.schedules = {pattern: schedules.of(value) for pattern, value in by_pattern.items()}
        if epochs is not None:
            check_whole("RateScheduler: epochs", epochs, 1, "It is the length of the whole training; leave it out for that of fit.")
        self.epochs = epochs

    def on_train_begin(self, logs: Any = None) -> None:
        self._chosen = self._choose()
        self._epochs = self.epochs or self.params["epochs"]
        self._batches = self.params.get("steps")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch, self._done = epoch, 0
        self._rates: dict[keras.Layer, float] = {}  # rates set in this epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        of_epoch = min(batch / self._batches, 1) if self._batches else 0
        progress = min((self._epoch + of_epoch) / self._epochs, 1)
        rates = {layer: float(schedule(progress)) for layer, schedule in self._chosen.items()}
        changed = {layer: rate for layer, rate in rates.items() if rate != self._rates.get(layer)}
        if changed and hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()  # between steps Keras on JAX keeps the variables outside the model
        for layer, rate in changed.items():
            layer.rate = rate
        self._rates = rates

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._done = max(self._done, batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.params.get("steps") is None:
            self._batches = self._done
        if logs is not None:
            logs |= {f"rate_{name}": layer.rate for name, layer in self.names.items()}

    def _choose(self) -> dict[keras.Layer, schedules.Schedule]:
        """Return the layers with their schedules."""
        layers = rated(self.model)
        chosen: dict[keras.Layer, schedules.Schedule] = {}
        for pattern, schedule in self.schedules.items():
            found = rated_by(self.model, layers, pattern)
            if not found:
                refuse(
                    f"RateScheduler: the model has no dropout layer {pattern!r}.",
                    f"It has: {', '.join(path for path, _ in layers)}."
                    if layers
                    else "Put some in: keras_dropout.place(model, {'hidden': 0.2}).",
                )
            for layer in found:
                if not isinstance(layer, Stochastic):
                    refuse(
                        f"RateScheduler: {layer.name!r} is a {type(layer).__name__} of Keras, whose rate is fixed once compiled.",
                        f"Make it one of ours: keras_dropout.adopt(model); or leave {layer.name!r} out of the schedules.",
                    )
                if "rate" not in layer.free_rates():
                    refuse(
                        f"RateScheduler: the rate of {layer.name!r}, a {type(layer).__name__}, is learned or decides a shape.",
                        "Name the layers that are to be scheduled: RateScheduler({NAME: schedule}).",
                    )
            chosen |= dict.fromkeys(found, schedule)
        # By name, or by path if several layers share the name.
        counts = Counter(layer.name for layer in chosen)
        self.names = {layer.name if counts[layer.name] == 1 else path: layer for path, layer in layers if layer in chosen}
        return chosen
