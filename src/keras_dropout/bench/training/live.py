"""Train with Keras's `fit` on live streams: see `bench.data.live`."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from keras_dropout.bench.data import arrays
from keras_dropout.bench.data.dataset import Part
from keras_dropout.bench.data.live import Digest, Live
from keras_dropout.bench.training import measures
from keras_dropout.bench.training.reference import EVALUATION_BATCH, ReferenceTraining
from keras_dropout.callbacks import RateScheduler
from keras_dropout.errors import refuse
from keras_dropout.schedules import Schedule

_AT_ONCE = 2**26  # bytes of outputs and answers that are measured together
_PREDICTIONS = 2**28  # bytes of test predictions to keep at most


class LiveTraining(ReferenceTraining):
    """One model in training on the streams of its run. `epoch` iterates the training stream anew, and ignores the order."""

    def __init__(
        self,
        model: keras.Model,
        live: Live,
        seed: int,
        prepare: Callable[[keras.Model, Part], Part],
        schedules: Mapping[keras.Layer, Schedule] = MappingProxyType({}),
        epochs: int = 1,
    ):
        samples = {name: prepare(model, part) for name, part in live.samples.items()}
        super().__init__(model, samples, live.batch_size or 1, 1.0, schedules, epochs)
        self._live, self._seed, self._prepare = live, seed, prepare
        if schedules:
            self._scheduler = _Scheduler(schedules, epochs=epochs, batches=live.batches)
        self._streams: Any = None
        self._passed = 0

    def first(self, rows: int) -> Any:
        """Return the inputs of the first training examples of the run, from an asking of its own."""
        return arrays.take(next(self._live.ask(self._seed).batches("train")).x, slice(rows))

    def epoch(self, order: np.ndarray) -> dict[str, float]:
        if not self.model.optimizer.built:
            self.build()  # otherwise `fit` would take a batch of the stream to build the model
        self._catch_up()
        self._passed += 1
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Your input ran out of data")  # that is how an epoch of any generator ends
            return self._fit({"x": self._fed(), "shuffle": False})

    def _fed(self) -> Iterator[tuple]:
        for batch in self._streams.batches("train"):
            yield tuple(each for each in self._prepare(self.model, batch) if each is not None)

    def _catch_up(self) -> None:
        """Ask for the streams. Before a training that is resumed, iterate them as its past epochs did."""
        if self._streams is None:
            self._streams = self._live.ask(self._seed)
        for _ in range(self._passed, self.epochs_done):
            for part in ("train", "validation"):
                for _ in self._streams.batches(part):
                    pass
        self._passed = max(self._passed, self.epochs_done)

    def measure(self, name: str) -> tuple[dict[str, float], np.ndarray, np.ndarray | None]:
        """Return the metrics of a pass over a part, the loss of each example, and the test predictions; see `Trainer._measure`."""
        self._catch_up()
        model, digest = self.model, Digest()
        model.reset_metrics()
        by_output: list[list[np.ndarray]] = []
        found: Mapping[str, Any] = {}
        kept: list[np.ndarray] | None = [] if name == "test" else None
        for y, predictions, weights in self._answered(name, digest):
            losses = measures.losses(model, y, predictions, weights)
            by_output = by_output or [[] for _ in losses]
            for every, each in zip(by_output, losses):
                every.append(each)
            y, weights = (None if a is None else arrays.each(keras.ops.convert_to_tensor, a) for a in (y, weights))
            seen = keras.tree.map_structure(keras.ops.convert_to_tensor, predictions)
            found = model.compute_metrics(None, y, seen, sample_weight=weights)
            if kept is not None:
                small = not keras.tree.is_nested(predictions) and np.ndim(predictions) == 2
                kept = [*kept, predictions] if small and sum(a.nbytes for a in kept) < _PREDICTIONS else None
        self._live.check(name, digest)
        numbers, total = measures.together(model, [np.concatenate(each) for each in by_output], found)
        return numbers, total, measures.decisions(model, np.concatenate(kept)) if kept else None

    def _answered(self, name: str, digest: Digest) -> Iterator[tuple[Any, Any, Any]]:
        """Yield (answers, predictions, weights) of a pass over a part, of several batches together."""
        held: list[tuple] = []
        rows = size = 0
        for batch in self._streams.batches(name):
            x, y, weights = self._prepare(self.model, digest.add(batch))
            held.append((y, keras.tree.map_structure(np.asarray, self.model.predict_on_batch(x)), weights))
            rows, size = rows + arrays.count(y), size + arrays.size(held[-1][:2])
            if rows >= EVALUATION_BATCH or size >= _AT_ONCE:
                yield _joined(held)
                held, rows, size = [], 0, 0
        if held:
            yield _joined(held)


class _Scheduler(RateScheduler):
    """Follows schedules within the epochs of a stream, whose length `fit` cannot tell before the end of an epoch."""

    def __init__(self, schedule: Any, *, epochs: int, batches: int | None):
        super().__init__(schedule, epochs=epochs)
        self._known = batches

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self._batches = self._batches or self._known


def _joined(held: list[tuple]) -> tuple[Any, ...]:
    if len({each[2] is None for each in held}) > 1:
        refuse("the stream gives weights with some batches only.", "Give (x, y, weights) in each batch, or in none.")
    return tuple(None if part[0] is None else keras.tree.map_structure(lambda *a: np.concatenate(a), *part) for part in zip(*held))
