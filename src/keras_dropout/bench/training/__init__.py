"""One run: build the model under the run's seed, put the variant's dropout in, train, measure with dropout off."""

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_dropout.layers as dropout_layers
from keras_dropout import schedules
from keras_dropout.bench.data import Arrays
from keras_dropout.bench.records import Result, Run, Study, Variant
from keras_dropout.bench.training.reference import ReferenceTraining
from keras_dropout.errors import refuse
from keras_dropout.layers.base import Stochastic
from keras_dropout.masks import derive_seed
from keras_dropout.placement import adopt, place

OnEpoch = Callable[[int, dict[str, float]], None]


class Trainer:
    """Trains the runs of one study in this process, one after another; what was compiled for one serves the next."""

    def __init__(self, study: Study, parts: dict[str, Arrays], divide_by: float):
        self.study = study
        self.parts = {part: (x, _labels(y)) for part, (x, y) in parts.items()}
        self.divide_by = divide_by
        if study.engine == "compiled":
            from keras_dropout.bench.training.compiled import CompiledPrograms

            self._start = CompiledPrograms(self.parts, study.batch_size, divide_by).start
        else:
            self._start = lambda model, variant, *rates: ReferenceTraining(model, self.parts, study.batch_size, divide_by, *rates)

    def train(self, run: Run, on_epoch: OnEpoch = lambda epoch, logs: None, epochs: int | None = None) -> Result:
        """Train one run and measure it. `on_epoch(epochs done, logs)` is called after each epoch.

        `epochs` cuts the training short, to time it.
        """
        started = time.perf_counter()
        model = build(self.study, run)
        training = self._start(model, run.variant, scheduled(model, run.variant), self.study.epochs)
        order = np.random.default_rng(derive_seed(run.seed, "order"))
        curves: dict[str, list[float]] = {}
        epochs = epochs or self.study.epochs
        for epoch in range(1, epochs + 1):
            logs = training.epoch(order.permutation(len(self.parts["train"][1])).astype("int32"))
            logs |= self._measure(training, "validation")[0]
            for name, value in logs.items():
                curves.setdefault(name, []).append(value)
            on_epoch(epoch, logs)
            if not all(map(math.isfinite, logs.values())):
                # JSON has no nan: the curves end with the last epoch that was finite.
                curves = {name: values[:-1] for name, values in curves.items()}
                return Result("diverged", _since(started), epoch, {}, curves, compilations=training.compilations)
        training.finish()
        metrics, test_losses = self._measure(training, "test")
        metrics |= self._measure(training, "train")[0] | self._measure(training, "validation")[0]
        if not all(map(math.isfinite, metrics.values())):
            return Result("diverged", _since(started), epochs, {}, curves, compilations=training.compilations)
        return Result("done", _since(started), epochs, metrics, curves, test_losses, compilations=training.compilations)

    def _measure(self, training: Any, part: str) -> tuple[dict[str, float], np.ndarray]:
        """Loss and metrics on a part with dropout off, and the loss of each example."""
        y = self.parts[part][1]
        predictions = training.predict(part)
        losses = _losses(self.study.compiled["loss"], y, predictions)
        model = training.model
        model.reset_metrics()
        logs = model.compute_metrics(None, keras.ops.convert_to_tensor(y), keras.ops.convert_to_tensor(predictions))
        metrics = {name: float(value) for name, value in logs.items()} | {"loss": float(losses.mean(dtype="float64"))}
        return {f"{part}_{name}": value for name, value in metrics.items()}, losses


def build(study: Study, run: Run) -> keras.Model:
    """The run's model, compiled, with initial weights that depend on the seed alone and masks on the seed and their layer."""
    keras.utils.set_random_seed(derive_seed(run.seed, "weights") % 2**32)
    model = keras.saving.deserialize_keras_object(copy.deepcopy(study.model))  # Keras empties what it reads
    if run.variant.placement is not None:
        # The seed tells `scheduled` the site; it gives no masks, as all streams are seeded below.
        specs = enumerate(run.variant.placement.items())
        model = place(model, {site: layer_of({**spec, "seed": number}) for number, (site, spec) in specs})
    elif any(type(layer) is keras.layers.Dropout for layer in model.layers):
        model = adopt(model)
    # Keras gives `layers` in the order of the data, a shared layer once.
    for number, layer in enumerate(layer for layer in model.layers if isinstance(layer, Stochastic)):
        layer.stream.reseed(derive_seed(run.seed, "mask", number))
    model.compile_from_config(copy.deepcopy(study.compiled))
    return model


def scheduled(model: keras.Model, variant: Variant) -> dict[keras.Layer, schedules.Schedule]:
    """The layers of a model from `build` whose rates follow schedules."""
    specs = dict(enumerate((variant.placement or {}).values()))
    moving = {n: (getattr(dropout_layers, spec["kind"]), spec["schedule"]) for n, spec in specs.items() if "schedule" in spec}
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, Stochastic) and layer.seed in moving]
    placed = [layer for layer in layers if isinstance(layer, moving[layer.seed][0])]
    return {layer: schedules.from_document(moving[layer.seed][1]) for layer in placed}


def layer_of(spec: dict[str, Any]) -> keras.Layer:
    """The layer that {"kind", "rate", …} describes, one that stands at a site by itself."""
    kind = spec["kind"]
    options = {name: value for name, value in spec.items() if name not in ("kind", "schedule", "over_depth")}
    alone = {
        name: cls
        for name, cls in vars(dropout_layers).items()
        if name in dropout_layers.__all__ and isinstance(cls, type) and not issubclass(cls, keras.layers.Wrapper)
    }
    if kind not in alone:
        refuse(f"no dropout layer {kind!r} that can be put at a site.", f"Use one of: {', '.join(sorted(alone))}.")
    if "schedule" in spec and "rate" not in alone[kind].free_rates():
        refuse(
            f"the rate of {kind} cannot follow a schedule: it is learned or decides a shape.", "Give it a rate, for example 0.2."
        )
    try:
        return alone[kind](**options)
    except (TypeError, ValueError) as error:
        refuse(f"{kind} cannot be made from {options}: {str(error).splitlines()[0]}", f"See help(keras_dropout.{kind}).")


def _losses(loss: Any, y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """The loss of each example, without penalties on weights."""
    loss = keras.losses.get(loss)
    if predictions.ndim == y.ndim + 1 and predictions.shape[-1] == 1:
        y = y[..., None]
    values = (loss.call if isinstance(loss, keras.losses.Loss) else loss)(
        keras.ops.convert_to_tensor(y), keras.ops.convert_to_tensor(predictions)
    )
    values = keras.ops.convert_to_numpy(values)
    return values.reshape(len(values), -1).mean(axis=1)


def _labels(y: np.ndarray) -> np.ndarray:
    return y.astype("int32") if np.issubdtype(y.dtype, np.integer) else y.astype("float32")


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 3)
