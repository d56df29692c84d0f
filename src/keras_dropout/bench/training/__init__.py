"""One run: build the model under the run's seed, put the variant's dropout in, train, measure with dropout off."""

import copy
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras.src.utils import rng_utils  # it has no public name

from keras_dropout.bench import arrays
from keras_dropout.bench.checkpoints import Best, Checkpoint
from keras_dropout.bench.data import Data, Part
from keras_dropout.bench.records import Result, Run, Study, Variant
from keras_dropout.bench.training.reference import ReferenceTraining
from keras_dropout.layers.base import Stochastic
from keras_dropout.masks import derive_seed
from keras_dropout.placement import adopt, rewire
from keras_dropout.schedules import Schedule, from_document


class Trainer:
    """Trains the runs of one study in this process, one after another; what was compiled for one serves the next."""

    def __init__(self, study: Study, parts: dict[str, Part], divide_by: float):
        self.study = study
        self.parts = {name: Part(*part) for name, part in parts.items()}
        self._divide_by = divide_by
        self._start: Callable | None = None

    def _begin(self, run: Run) -> Any:
        """The run's model, ready for its first epoch."""
        model, schedules = build(self.study, run)
        if self._start is None:
            self._prepare(model)
        return self._start(model, run.variant, schedules, self.study.epochs)

    def _prepare(self, model: keras.Model) -> None:
        """Bring the data in the form that the model and its engine take."""
        study = self.study
        for name, (x, y, weights) in self.parts.items():
            y, weights = (_in_order(model, arrays.each(_labels, y)), _in_order(model, weights))
            if weights is not None and keras.tree.is_nested(y) and not keras.tree.is_nested(weights):
                weights = arrays.each(lambda _, weights=weights: weights, y)  # one weight for all outputs, as in `fit`
            self.parts[name] = Part(x, y, weights)
        train = self.parts["train"]
        if study.class_weight:  # Keras's `fit` makes sample weights of them too; what is measured is not weighted
            train = train._replace(weights=class_weights(train.y, study.class_weight))
        taught = self.parts | {"train": train}
        if study.engine == "compiled":
            from keras_dropout.bench.training.compiled import CompiledPrograms

            self._start = CompiledPrograms(taught, study.batch_size, self._divide_by).start
        else:
            self._start = lambda model, variant, *rates: ReferenceTraining(model, taught, study.batch_size, self._divide_by, *rates)

    def train(self, run: Run) -> Result:
        """Train one run and measure it; see `follow`."""
        *_, (_, _, result) = self.follow((run,))
        return result

    def follow(
        self,
        runs: Sequence[Run],
        checkpoints: Mapping[str, bytes] = MappingProxyType({}),
        until: int | None = None,
        checkpoint_every: int | None = None,
    ) -> Iterator[tuple]:
        """Train runs one after the other, each from its checkpoint where it has one, and tell of it as it goes: ("epoch", key,
        epochs done, {metric: value}), every `checkpoint_every` epochs ("checkpoint", key, epoch, bytes), at last ("ended", key,
        Result); or ("paused", key, epoch, bytes) for a run that has not ended after `until` epochs.

        With early stopping, training ends when the validation loss has not become smaller for that many epochs, and what is
        measured is the epoch where it was smallest, as with Keras's `EarlyStopping(restore_best_weights=True)`.
        """
        for run in runs:
            state = checkpoints.get(run.key)
            yield from self._follow(run, None if state is None else Checkpoint.from_bytes(state), until, checkpoint_every)

    def _follow(self, run: Run, past: Checkpoint | None, until: int | None, checkpoint_every: int | None) -> Iterator[tuple]:
        started = time.perf_counter() - (past.seconds if past else 0.0)
        training = self._begin(run)
        order = np.random.default_rng(derive_seed(run.seed, "order"))
        examples = arrays.count(self.parts["train"].y)
        curves: dict[str, list[float]] = {}
        epoch, patience, best = 0, self.study.early_stopping, Best()
        if past:
            epoch, curves, best = past.epoch, {name: list(values) for name, values in past.curves.items()}, past.best
            training.restore(past.values)
            training.epochs_done = epoch
            for _ in range(epoch):
                order.permutation(examples)

        def is_over() -> bool:
            return epoch == self.study.epochs or bool(patience and best.epoch and epoch - best.epoch >= patience)

        while not is_over():
            if until is not None and epoch >= until:
                yield "paused", run.key, epoch, Checkpoint(epoch, curves, _since(started), training.snapshot(), best).to_bytes()
                return
            epoch += 1
            logs = training.epoch(order.permutation(examples).astype("int32"))
            logs |= self._measure(training, "validation")[0]
            yield "epoch", run.key, epoch, logs
            if not all(map(math.isfinite, logs.values())):
                # JSON has no nan: the curves end with the last epoch that was finite.
                yield "ended", run.key, Result("diverged", _since(started), epoch, {}, curves, compilations=training.compilations)
                return
            for name, value in logs.items():
                curves.setdefault(name, []).append(value)
            if patience and logs["validation_loss"] < best.loss:
                best = Best(logs["validation_loss"], epoch, training.snapshot())
            if checkpoint_every and epoch % checkpoint_every == 0 and not is_over():
                state = Checkpoint(epoch, curves, _since(started), training.snapshot(), best).to_bytes()
                yield "checkpoint", run.key, epoch, state
        if patience:
            training.restore(best.values)
        training.finish()
        metrics, test_losses = self._measure(training, "test")
        metrics |= self._measure(training, "train")[0] | self._measure(training, "validation")[0]
        ended = {"compilations": training.compilations, "best_epoch": best.epoch}
        if not all(map(math.isfinite, metrics.values())):
            yield "ended", run.key, Result("diverged", _since(started), epoch, {}, curves, **ended)
            return
        yield "ended", run.key, Result("done", _since(started), epoch, metrics, curves, test_losses, **ended)

    def time_step(self, run: Run, seconds: float = 2.0) -> float:
        """Seconds that a training step takes, from about as many steps as fit in `seconds`, compiling left out."""
        training = self._begin(run)
        size = self.study.batch_size
        order = np.arange(arrays.count(self.parts["train"].y), dtype="int32")

        def once(steps: int) -> float:
            started = time.perf_counter()
            training.epoch(order[: steps * size])
            return (time.perf_counter() - started) / steps

        once(1)
        single = once(1)
        steps = max(1, min(len(order) // size, int(seconds / 2 / single)))
        if steps == 1:
            return single
        once(steps)  # a number of steps of its own is compiled anew
        return min(once(steps), once(steps))

    def _measure(self, training: Any, name: str) -> tuple[dict[str, float], np.ndarray]:
        """Loss and metrics on a part with dropout off, as Keras's `evaluate`, and the weighted loss of each example.

        Penalties on weights are no part of the loss.
        """
        model, (_, y, weights) = training.model, self.parts[name]
        predictions = training.predict(name)
        losses = _losses(model, y, predictions, weights)
        total = sum(each if weight is None else each * np.float32(weight) for _, weight, each in losses)
        model.reset_metrics()
        tensors = [None if a is None else arrays.each(keras.ops.convert_to_tensor, a) for a in (y, weights)]
        seen = keras.tree.map_structure(keras.ops.convert_to_tensor, predictions)
        found = model.compute_metrics(None, tensors[0], seen, sample_weight=tensors[1])
        metrics = {metric: float(value) for metric, value in found.items()}
        if len(losses) > 1:  # Keras gives the loss of each output too, before it is weighted
            metrics |= {f"{output}_loss": _mean(each) for output, _, each in losses}
        metrics["loss"] = _mean(total)
        return {f"{name}_{metric}": value for metric, value in metrics.items()}, total


def class_weights(y: np.ndarray, by_class: Mapping[int, float]) -> np.ndarray:
    """A weight for each example from its class, 1 for classes that are not named, as Keras's `fit(class_weight=…)`."""
    classes = arrays.classes(y)
    weights = np.ones(len(classes), "float32")
    for number, weight in by_class.items():
        weights[classes == number] = weight
    return weights


def build(study: Study, run: Run) -> tuple[keras.Model, dict[keras.Layer, Schedule]]:
    """The run's model, compiled, and the schedules that the rates of its layers follow.

    Initial weights depend on the seed alone, masks on the seed and their layer. Where the study starts from given weights, all
    runs have those.
    """
    _set_random_seed(derive_seed(run.seed, "weights") % 2**32)
    model, schedules = make(study, run.variant)
    # Keras gives the layers in the order of the data, a shared layer once.
    for number, layer in enumerate(layer for layer in model._flatten_layers() if isinstance(layer, Stochastic)):
        layer.stream.reseed(derive_seed(run.seed, "mask", number))
    return model, schedules


def _set_random_seed(seed: int) -> None:
    """`keras.utils.set_random_seed`, without loading TensorFlow only to seed it, which takes seconds in each worker."""
    loaded = rng_utils.tf
    if "tensorflow" not in sys.modules:
        rng_utils.tf = SimpleNamespace(available=False)
    try:
        keras.utils.set_random_seed(seed)
    finally:
        rng_utils.tf = loaded


def make(study: Study, variant: Variant) -> tuple[keras.Model, dict[keras.Layer, Schedule]]:
    """The study's model with a variant's dropout, compiled, and the schedules of its layers."""
    model = keras.saving.deserialize_keras_object(copy.deepcopy(study.model))  # Keras empties what it reads
    if study.weights is not None:
        model.set_weights(study.weights)
    schedules = {}
    if variant.placement is not None:
        model, placed = rewire(model, variant.placement)
        specs = ((placed[site], spec) for site, spec in variant.placement.items())
        schedules = {layer: from_document(spec["schedule"]) for layer, spec in specs if "schedule" in spec}
    elif any(type(layer) is keras.layers.Dropout for layer in model._flatten_layers()):
        model = adopt(model)
    model.compile_from_config(copy.deepcopy(study.compiled))
    return model, schedules


def why_not_compiled(study: Study, data: Data) -> str | None:
    """What goes wrong when a training step of the baseline is compiled, found without running it; None where nothing does."""
    few, variant = np.arange(min(study.batch_size, arrays.count(data.train.y))), study.variants[0]
    part = Part(*(None if a is None else arrays.take(a, few) for a in data.train))
    trainer = Trainer(dataclasses.replace(study, engine="compiled"), {"train": part}, data.divide_by)
    try:
        model, _ = make(study, variant)
        trainer._prepare(model)
        trainer._start(model, variant).trace()
    except Exception as error:  # whatever the reader's own train_step, layers and losses raise
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
    return None


def _losses(model: keras.Model, y: Any, predictions: Any, weights: Any) -> list[tuple[str, float | None, np.ndarray]]:
    """(name, weight in the sum, loss of each example with its sample weight) of each output, without penalties on weights."""
    if keras.tree.is_nested(predictions):
        y = keras.tree.pack_sequence_as(predictions, keras.tree.flatten(y))
        weights = None if weights is None else keras.tree.pack_sequence_as(predictions, keras.tree.flatten(weights))
    found = []
    # Keras has resolved strings, lists and dicts of losses there; it has no public name.
    for path, loss, weight, name in model._compile_loss._flat_losses:
        answers, outputs, counts = y, predictions, weights
        for step in path:
            answers, outputs = answers[step], outputs[step]
            counts = counts[step] if keras.tree.is_nested(counts) else counts
        if outputs.ndim == answers.ndim + 1 and outputs.shape[-1] == 1:
            answers = answers[..., None]
        values = loss.call(keras.ops.convert_to_tensor(answers), keras.ops.convert_to_tensor(outputs))
        values = keras.ops.convert_to_numpy(values)
        if counts is not None:
            counts = counts.reshape(counts.shape + (1,) * (values.ndim - counts.ndim)) if counts.ndim < values.ndim else counts
            counts = counts[..., 0] if counts.ndim > values.ndim else counts
            values = values * (counts / counts.mean() if loss.reduction == "mean_with_sample_weight" else counts)
        found.append((name, weight, values.reshape(len(values), -1).mean(axis=1)))
    return found


def _in_order(model: keras.Model, values: Any) -> Any:
    """What is given by the outputs' names in the order of the outputs, where the model gives these in an order."""
    if isinstance(values, dict) and getattr(model, "outputs", None):
        if isinstance(model, keras.Sequential):
            return next(iter(values.values()))
        if not isinstance(model.output, dict):
            return tuple(values[name] for name in model.output_names)
    return values


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype="float64"))


def _labels(y: np.ndarray) -> np.ndarray:
    return y.astype("int32") if np.issubdtype(y.dtype, np.integer) else y.astype("float32")


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 3)
