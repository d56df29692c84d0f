"""Train one run: build the model under the run's seed, add the variant's dropout, train, measure with dropout off."""

import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from keras_dropout.bench.data import arrays
from keras_dropout.bench.data.arrays import as_seen
from keras_dropout.bench.data.dataset import Data, Part
from keras_dropout.bench.data.live import Live
from keras_dropout.bench.ledger.checkpoints import Best, Checkpoint
from keras_dropout.bench.records import Result, Run, Study, Variant
from keras_dropout.bench.scoring import check_monte_carlo, check_passes, monte_carlo
from keras_dropout.bench.training import measures
from keras_dropout.bench.training.acting import Acting, architecture
from keras_dropout.bench.training.archives import archive
from keras_dropout.bench.training.build import _assign, build, make
from keras_dropout.bench.training.live import LiveTraining
from keras_dropout.bench.training.messages import Anew, Checkpointed, Ended, Epoch, Paused, Told
from keras_dropout.bench.training.reference import ReferenceTraining
from keras_dropout.errors import described, refuse
from keras_dropout.masks import derive_seed

_LOOK = 256  # test examples for checking the outputs before training
CHECKPOINT_SECONDS = 30.0  # of training between checkpoints, where no number of epochs is set
_CHECKPOINT_SHARE = 0.02  # of the time that these checkpoints may take


class Trainer:
    """A trainer for the runs of one study in this process. Later runs reuse the programs compiled for earlier ones."""

    def __init__(self, study: Study, parts: dict[str, Part] | Live, divide_by: float):
        self.study = study
        self._divide_by = divide_by
        self._start: Callable[..., Any] | None = None  # set once the engine holds the data
        self._programs: Any = None
        self._stack_size: Callable[..., int] | None = None  # set if the engine trains several runs at once
        self._acting: dict[str, Acting] = {}  # by architecture
        self._sampled: dict[str, keras.Model] = {}  # by variant: its other seeds reuse the program compiled for its samples
        self.hold(parts)

    def hold(self, parts: dict[str, Part] | Live) -> None:
        """Train and measure on these parts of the data from now on; programs that are compiled stay.

        Of live streams `parts` are the first batches.
        """
        self._live = parts if isinstance(parts, Live) else None
        self.parts = {name: Part(*part) for name, part in (parts.samples if isinstance(parts, Live) else parts).items()}
        self._start = None

    def _begin(self, runs: Sequence[Run], size: int = 1) -> Any:
        """Return the training of the runs, before its first epoch; several runs share one architecture, in a stack of `size`."""
        variant, epochs = runs[0].variant, self.study.epochs
        if self._stack_size:
            assert self._start is not None  # `_prepare` sets both
            return self._start((build(self.study, run) for run in runs), variant, size, epochs)
        model, schedules = build(self.study, runs[0])
        training: Any
        if self._live is not None:
            training = LiveTraining(model, self._live, runs[0].seed, _for_model, schedules, epochs)
        else:
            training = self._prepare(model)(model, variant, schedules, epochs)
        if self.study.callbacks is not None:
            training.call(own_callbacks(self.study, runs[0]))
        return _Alone(training)

    def _prepare(self, model: keras.Model) -> Callable[..., Any]:
        """Return the function that starts a training. The first call with some data converts them for the model and its engine."""
        if self._start is not None:
            return self._start
        study = self.study
        self.parts = {name: _for_model(model, part) for name, part in self.parts.items()}
        train = self.parts["train"]
        if study.class_weight:  # Keras's `fit` also turns them into sample weights; measurements are unweighted
            train = train._replace(weights=class_weights(train.y, study.class_weight))
        taught = self.parts | {"train": train}
        settings = taught, study.batch_size, self._divide_by
        if study.engine == "stacked":
            from keras_dropout.bench.training.stacked import StackedPrograms

            stacked = self._engine(StackedPrograms, settings)
            self._start, self._stack_size = stacked.start_stack, stacked.size
        elif study.engine == "compiled":
            from keras_dropout.bench.training.compiled import CompiledPrograms

            self._start = self._engine(CompiledPrograms, settings).start
        else:
            self._start = lambda model, variant, *rates: ReferenceTraining(model, *settings, *rates)
        return self._start

    def _engine(self, kind: Callable[..., Any], settings: tuple) -> Any:
        """Return the compiled programs, which then hold the data in `settings`."""
        if self._programs is None:
            self._programs = kind(*settings)
        else:
            self._programs.hold(settings[0])
        return self._programs

    def groups(self, runs: Sequence[Run]) -> list[list[Run]]:
        """Group the runs that may be trained at once: by architecture in the stacked engine, one by one in the others."""
        if self.study.engine != "stacked":
            return [[run] for run in runs]
        found: dict[str, list[Run]] = {}
        for run in runs:
            found.setdefault(architecture(run.variant), []).append(run)
        return list(found.values())

    def _stacks(self, group: Sequence[Run]) -> Iterator[tuple[Sequence[Run], int]]:
        """Yield the stacks in which a group is trained, each with its number of places."""
        if self.study.engine != "stacked":
            yield group, 1
            return
        model, _ = build(self.study, group[0])
        self._prepare(model)
        assert self._stack_size is not None  # `_prepare` sets it for the stacked engine
        size = self._stack_size(model, group[0].variant, len(group))
        del model  # the stacks need its memory
        for start in range(0, len(group), size):
            yield group[start : start + size], size

    def train(self, run: Run) -> Result:
        """Train one run and measure it; see `follow`."""
        *_, last = self.follow((run,))
        assert isinstance(last, Ended)  # it was not asked to pause
        return last.result

    def follow(
        self,
        runs: Sequence[Run],
        checkpoints: Mapping[str, bytes] = MappingProxyType({}),
        until: int | None = None,
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> Iterator[Told]:
        """Train runs, each from its checkpoint if it has one, and yield messages about them.

        The messages of a run are `Epoch` after each epoch, `Checkpointed` after every `checkpoint_every` epochs (a setting; without
        it after about `CHECKPOINT_SECONDS`, and with 0 never), and `Ended` last; or `Paused` if the run has not ended after `until`
        epochs. A run whose checkpoint cannot be used yields `Anew` and starts over. With the setting keep_weights, the result of a
        finished run contains its model with the measured values.

        With early stopping, training ends when the validation loss has not decreased for that many epochs. The epoch with the
        smallest loss is measured, as with Keras's `EarlyStopping(restore_best_weights=True)`.
        """
        for group in self.groups(runs):
            for stack, size in self._stacks(group):
                yield from self._follow(stack, size, dict(checkpoints), until, settings)

    def _follow(
        self, runs: Sequence[Run], size: int, checkpoints: dict[str, bytes], until: int | None, settings: Mapping[str, Any]
    ) -> Iterator[Told]:
        """Train one stack of runs; see `follow`."""
        stack = _Stack(self, runs, size)
        while unusable := stack.resume(checkpoints):
            del stack  # it may already hold some of the values
            del checkpoints[unusable[0]]
            yield Anew(*unusable)
            stack = _Stack(self, runs, size)
        yield from stack.train(until, settings.get("checkpoint_every"))
        yield from stack.measure(settings.get("keep_weights"))

    def _acting_in(self, model: keras.Model, variant: Variant) -> Acting:
        """Return the check that a variant's dropout acts; one program serves all runs with the same architecture."""
        key = architecture(variant)
        if key not in self._acting:
            self._acting[key] = Acting(model)
        return self._acting[key]

    def _archive(self, run: Run, values: Sequence[Any]) -> bytes:
        """Return a run's model with these values, as the bytes of a .keras file."""
        model, _ = make(self.study, run.variant)  # not the model in training: its optimizer has a state
        _assign(model, values)
        return archive(model)

    def _monte_carlo(self, run: Run, values: Sequence[Any], samples: int) -> tuple[dict[str, float], dict[str, Any] | None]:
        """Return metrics and curves of a run's plain and Monte-Carlo predictions on the test part, with these values."""
        if run.variant.name not in self._sampled:
            self._sampled[run.variant.name], _ = make(self.study, run.variant)
        model = self._sampled[run.variant.name]
        _assign(model, values)
        test, validation = ((as_seen(part.x, self._divide_by), part.y) for part in (self.parts["test"], self.parts["validation"]))
        held_out = validation if self.study.split == "held-out" else None
        found, curves = monte_carlo(model, *test, samples, derive_seed(run.seed, "samples"), held_out)
        return {f"test_{name}": value for name, value in found.items()}, curves

    def _measure(self, training: Any, name: str) -> list[tuple[dict[str, float], np.ndarray, np.ndarray | None]]:
        """Return for each run, with dropout off, the metrics of a part, each example's weighted loss, and its test predictions.

        Loss and metrics are those of Keras's `evaluate`, but the loss has no weight penalties. Predictions are None for other parts
        than the test part.
        """
        found = training.measure(name, self.parts[name])
        return [({f"{name}_{metric}": value for metric, value in metrics.items()}, *each) for metrics, *each in found]

    def time_step(self, run: Run, seconds: float = 2.0) -> float:
        """Measure the seconds of a training step, without compilation, over about as many steps as fit in `seconds`."""
        training = self._begin((run,))
        size = self.study.batch_size
        order = np.arange(arrays.count(self.parts["train"].y), dtype="int32")

        def once(steps: int) -> float:
            started = time.perf_counter()
            training.epoch([order[: steps * size]])
            return (time.perf_counter() - started) / steps

        once(1)
        single = once(1)
        steps = max(1, min(len(order) // size, int(seconds / 2 / single)))
        if steps == 1:
            return single
        once(steps)  # a new number of steps is compiled again
        return min(once(steps), once(steps))


class _Stack:
    """The training of one or several runs that go through the same epochs, from their first batch to their results.

    A run is named by its number in the stack.
    """

    def __init__(self, trainer: Trainer, runs: Sequence[Run], size: int):
        self._started = time.perf_counter()
        self._trainer, self._runs, self._training = trainer, runs, trainer._begin(runs, size)
        examples, study = arrays.count(trainer.parts["train"].y), trainer.study
        steps = study.steps_per_epoch * study.batch_size if study.steps_per_epoch and trainer._live is None else None
        self._courses = [_Course(run, examples, study.of(run.variant).early_stopping, steps) for run in runs]
        self._acting = trainer._acting_in(self._training.model, runs[0].variant)
        self._inactive = {number: why for number in range(len(runs)) if (why := self._refusal(number))}
        self._going = [number for number in range(len(runs)) if number not in self._inactive]
        self._trained: dict[int, Sequence[Any] | None] = {}  # the values to measure; None where the training holds them

    def _refusal(self, number: int) -> str | None:
        if self._trainer._live is not None:
            inputs = self._training.first(self._acting.rows)
        else:
            first = self._trainer.parts["train"].take(self._courses[number].first(self._acting.rows))
            inputs = as_seen(first.x, self._trainer._divide_by)
        return self._acting.refusal(self._training.values(number), inputs)

    def _unused(self, number: int, masks: list[list[np.ndarray]]) -> str | None:
        return self._acting.unused(masks, self._acting.masks(self._training.values(number)))

    def resume(self, checkpoints: Mapping[str, bytes]) -> tuple[str, str] | None:
        """Go on from the checkpoints. Return the key of the first that does not fit, and why: damaged, or of another Keras."""
        for number, course in enumerate(self._courses):
            if course.run.key not in checkpoints:
                continue
            try:
                past = Checkpoint.from_bytes(checkpoints[course.run.key])
                if past.epoch > self._trainer.study.epochs:  # going on would draw one order of the examples for each of them
                    raise ValueError(f"it is of epoch {past.epoch}, and the run has {self._trainer.study.epochs}")
                if past.best.values:  # needed at the end, so check now that they fit this model
                    self._training.restore(number, past.best.values)
                self._training.restore(number, past.values)
            except ValueError as error:
                return course.run.key, str(error)
            course.go_on(past)
            self._training.epochs_done[number] = past.epoch
        return None

    def train(self, until: int | None, checkpoint_every: int | None) -> Iterator[Told]:
        """Train all runs to their ends, or until they have had `until` epochs, and yield what happens."""
        for number, why in self._inactive.items():
            yield self._failed(number, why)
        masks = {number: self._acting.masks(self._training.values(number)) for number in self._going}
        due = _Due(checkpoint_every)
        while True:
            self._set_aside([number for number in self._going if self._is_over(number)])
            for number in [number for number in self._going if until is not None and self._courses[number].epoch >= until]:
                yield Paused(self._runs[number].key, self._courses[number].epoch, self._checkpoint(number))
                self._going.remove(number)
            if not self._going:
                return
            logs = self._epoch()
            due.look()
            for number in list(self._going):
                course, key, now = self._courses[number], self._runs[number].key, logs[number]
                if number in masks and (unused := self._unused(number, masks.pop(number))):
                    yield self._failed(number, unused)
                    self._going.remove(number)
                    continue
                yield Epoch(key, course.epoch, now)
                if not all(map(math.isfinite, now.values())):  # JSON has no nan: the curves end with the last finite epoch
                    yield Ended(key, self._result(number, {}))
                    self._going.remove(number)
                    continue
                for name, value in now.items():
                    course.curves.setdefault(name, []).append(value)
                if course.patience and now["validation_loss"] < course.best.loss:
                    course.best = Best(now["validation_loss"], course.epoch, self._training.snapshot(number))
                resumable = self._trainer.study.callbacks is None  # the state of the user's callbacks is not in a checkpoint
                if resumable and due(course.epoch) and not self._is_over(number):
                    with due.timed():
                        yield Checkpointed(key, course.epoch, self._checkpoint(number))

    def measure(self, keep_weights: bool | None) -> Iterator[Told]:
        """Measure the runs that were trained to their ends, with dropout off, and yield their results."""
        if not self._trained:
            return
        trainer, training = self._trainer, self._training
        for number, values in self._trained.items():
            if values is not None:
                training.restore(number, values)
        training.finish()
        test, *others = (trainer._measure(training, name) for name in ("test", "train", "validation"))
        for number in self._trained:
            run, (metrics, losses, predictions) = self._runs[number], test[number]
            facts: dict[str, Any] = {"best_epoch": self._courses[number].best.epoch, "predictions": predictions}
            for part in others:
                metrics |= part[number][0]
            if trainer.study.samples is not None and all(map(math.isfinite, metrics.values())):
                scores, facts["calibration"] = trainer._monte_carlo(run, training.values(number), trainer.study.samples)
                metrics |= scores
            found = self._result(number, metrics, losses, **facts)
            if keep_weights and found.status == "done":
                found = dataclasses.replace(found, model=trainer._archive(run, training.values(number)))
            yield Ended(run.key, found)

    def _epoch(self) -> list[dict[str, float]]:
        """Train one epoch of the runs that go on, and return the figures of all."""
        for number in self._going:
            self._courses[number].begin_epoch()
        logs = self._training.epoch([course.order for course in self._courses])
        logs = [log | found for log, (found, *_) in zip(logs, self._trainer._measure(self._training, "validation"))]
        if self._trainer.study.callbacks is not None:
            self._courses[0].stopped = self._training.end_epoch(logs[0])
        return logs

    def _is_over(self, number: int) -> bool:
        course = self._courses[number]
        return (
            course.stopped
            or course.epoch >= self._trainer.study.epochs
            or bool(course.patience and course.best.epoch and course.epoch - course.best.epoch >= course.patience)
        )

    def _set_aside(self, over: list[int]) -> None:
        """Take runs that are over out of the training, with the values to measure: if others go on, theirs would change."""
        self._going = [number for number in self._going if number not in over]
        for number in over:
            best = self._courses[number].best.values if self._courses[number].patience else None
            self._trained[number] = best or (self._training.snapshot(number) if self._going else None)

    def _checkpoint(self, number: int) -> bytes:
        course = self._courses[number]
        values = self._training.snapshot(number)
        return Checkpoint(course.epoch, course.curves, self._seconds(number), values, course.best).to_bytes()

    def _seconds(self, number: int) -> float:
        return round(self._courses[number].seconds + (time.perf_counter() - self._started) / len(self._runs), 3)

    def _failed(self, number: int, why: str) -> Ended:
        course = self._courses[number]
        return Ended(course.run.key, Result("failed", self._seconds(number), course.epoch, error=why))

    def _result(self, number: int, metrics: Mapping[str, float], losses: np.ndarray | None = None, **facts: Any) -> Result:
        course = self._courses[number]
        facts |= {"compilations": 0 if number else self._training.compilations}  # compilations of a stack count once
        if losses is None or not all(map(math.isfinite, metrics.values())):
            return Result("diverged", self._seconds(number), course.epoch, {}, course.curves, **facts)
        return Result("done", self._seconds(number), course.epoch, metrics, course.curves, losses, **facts)


class _Due:
    """Decides after which epochs the runs of a stack have a checkpoint: each `every` epochs, or by the time if that is None.

    By the time, checkpoints take at most a fiftieth of it: a large model has them less often. The sending of a checkpoint counts.
    """

    def __init__(self, every: int | None):
        self._every, self._cost, self._now = every, 0.0, False
        self._since = time.perf_counter()

    def look(self) -> None:
        """Look at the clock after an epoch; `due(epoch)` then holds for all runs or for none."""
        if due := time.perf_counter() - self._since >= max(CHECKPOINT_SECONDS, self._cost / _CHECKPOINT_SHARE):
            self._since, self._cost = time.perf_counter(), 0.0
        self._now = due

    def __call__(self, epoch: int) -> bool:
        return self._now if self._every is None else bool(self._every) and epoch % self._every == 0

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._cost += time.perf_counter() - started


class _Course:
    """The progress of a run, apart from the values of its model."""

    def __init__(self, run: Run, examples: int, patience: int | None, an_epoch: int | None = None):
        self.run, self.patience = run, patience
        self.stopped = False  # by a callback of the user's
        self.epoch, self.seconds = 0, 0.0
        self.curves: dict[str, list[float]] = {}
        self.best = Best()
        self.order = np.arange(examples, dtype="int32")
        self._examples = examples
        self._generator = np.random.default_rng(derive_seed(run.seed, "order"))
        self._an_epoch = an_epoch  # examples of an epoch; None: each example once
        self._left = self.order[:0]

    def first(self, rows: int) -> np.ndarray:
        """Return the first `rows` examples of the first epoch."""
        return copy.deepcopy(self._generator).permutation(self._examples)[:rows]

    def begin_epoch(self) -> None:
        self.epoch += 1
        if self._an_epoch is None:
            self.order = self._generator.permutation(self._examples).astype("int32")
            return
        while len(self._left) < self._an_epoch:  # as in fit, an epoch goes on where the last one ended
            self._left = np.concatenate([self._left, self._generator.permutation(self._examples).astype("int32")])
        self.order, self._left = self._left[: self._an_epoch], self._left[self._an_epoch :]

    def go_on(self, past: Checkpoint) -> None:
        for _ in range(past.epoch):
            self.begin_epoch()
        self.seconds, self.best = past.seconds, past.best
        self.curves = {name: list(values) for name, values in past.curves.items()}


class _Alone:
    """The training of one run, with the interface of a stack."""

    def __init__(self, training: Any):
        self._training = training
        self.epochs_done = [0]

    @property
    def compilations(self) -> int:
        return self._training.compilations

    @property
    def model(self) -> keras.Model:
        return self._training.model

    def epoch(self, orders: Sequence[np.ndarray]) -> list[dict[str, float]]:
        (self._training.epochs_done,) = self.epochs_done
        logs = self._training.epoch(*orders)
        self.epochs_done = [self._training.epochs_done]
        return [logs]

    def measure(self, name: str, part: Part) -> list[tuple[dict[str, float], np.ndarray, np.ndarray | None]]:
        if isinstance(self._training, LiveTraining):
            return [self._training.measure(name)]
        model, (_, y, weights) = self._training.model, part
        predictions = self._training.predict(name)
        losses = measures.losses(model, y, predictions, weights)
        y, weights = (None if a is None else arrays.each(keras.ops.convert_to_tensor, a) for a in (y, weights))
        seen = keras.tree.map_structure(keras.ops.convert_to_tensor, predictions)
        found = measures.together(model, losses, measures.metrics(model, y, seen, weights))
        return [(*found, measures.decisions(model, predictions) if name == "test" else None)]

    def first(self, rows: int) -> Any:
        return self._training.first(rows)

    def end_epoch(self, logs: Mapping[str, float]) -> bool:
        return self._training.end_epoch(logs)

    def snapshot(self, run: int) -> Sequence[Any]:
        return self._training.snapshot()

    def restore(self, run: int, values: Sequence[Any]) -> None:
        self._training.restore(values)

    def values(self, run: int) -> Sequence[Any]:
        return self._training.values()

    def finish(self) -> None:
        self._training.finish()


def class_weights(y: np.ndarray, by_class: Mapping[int, float]) -> np.ndarray:
    """Return each example's weight by its class, 1 for classes that are not named, as Keras's `fit(class_weight=…)` does."""
    classes = arrays.classes(y)
    weights = np.ones(len(classes), "float32")
    for number, weight in by_class.items():
        weights[classes == number] = weight
    return weights


def _for_model(model: keras.Model, part: Part) -> Part:
    """Return examples with answers and weights in the order of the model's outputs, and answers of a type that it takes."""
    y, weights = (_in_order(model, arrays.each(_labels, part.y)), _in_order(model, part.weights))
    if weights is not None and keras.tree.is_nested(y) and not keras.tree.is_nested(weights):
        weights = _for_each_output(weights, y)
    return Part(part.x, y, weights)


def own_callbacks(study: Study, run: Run) -> list[keras.callbacks.Callback]:
    """Return the user's callbacks for a run, made anew."""
    assert study.callbacks is not None
    found = study.callbacks.get(seed=run.seed, variant=run.variant.name)
    found = list(found) if isinstance(found, list | tuple) else [found]
    if strange := [each for each in found if not isinstance(each, keras.callbacks.Callback)]:
        refuse(
            f"{study.callbacks.name} gave {type(strange[0]).__name__} where a callback of Keras is expected.",
            "Return a list of keras.callbacks.Callback.",
        )
    return found


def _for_each_output(weights: Any, y: Any) -> Any:
    """Repeat the weight of each example for all its outputs, as `fit` does."""
    return arrays.each(lambda _: weights, y)


def why_not_compiled(study: Study, data: Data) -> str | None:
    """Return why a training step of the baseline cannot be compiled, found without running it; None if it can."""
    few, variant = data.train.take(np.arange(min(study.batch_size, arrays.count(data.train.y)))), study.variants[0]
    trainer = Trainer(dataclasses.replace(study, engine="compiled"), {"train": few}, data.divide_by)
    try:
        model, _ = make(study, variant)
        trainer._prepare(model)(model, variant).trace()
    except Exception as error:  # the user's own train_step, layers and losses may raise anything
        return described(error)
    return None


def metrics_before_training(study: Study, data: Data) -> list[str]:
    """Return the names of the metrics on test data that runs of the study will have, found with a few examples of the data.

    Return [] if the model cannot be measured before it is trained.
    """
    parts = {name: _few(part) for name, part in data.parts(study.split).items()}
    trainer, run = Trainer(dataclasses.replace(study, engine="reference"), parts, data.divide_by), study.runs()[0]
    try:
        model, schedules = make(study, run.variant)  # not `build`, which sets the seeds of this process
        training = _Alone(trainer._prepare(model)(model, run.variant, schedules, study.epochs))
        training._training.build()
        ((found, *_),) = trainer._measure(training, "test")
        samples = {} if study.samples is None else trainer._monte_carlo(run, training.values(0), 1)[0]
    except Exception:  # the user's own layers, losses and metrics may raise anything
        return []
    return sorted({**found, **samples}, key=lambda name: (name != "test_loss", name))


def _few(part: Part) -> Part:
    return part.take(np.arange(min(_LOOK, arrays.count(part.y))))


def check_samples(study: Study, data: Data) -> None:
    """Refuse, before training, a study with samples whose model cannot be sampled."""
    x, y, _ = _few(data.parts(study.split)["test"])
    for number, variant in enumerate(study.variants):
        model, _ = make(study, variant)
        if number == 0:
            check_monte_carlo(model, as_seen(x, data.divide_by), arrays.each(_labels, y))
        check_passes(model)


def _in_order(model: keras.Model, values: Any) -> Any:
    """Convert values keyed by output name into the order of the outputs, if the model returns its outputs in order."""
    if isinstance(values, dict) and getattr(model, "outputs", None):
        if isinstance(model, keras.Sequential):
            return next(iter(values.values()))
        if not isinstance(model.output, dict):
            return tuple(values[name] for name in model.output_names)
    return values


def _labels(y: np.ndarray) -> np.ndarray:
    """Convert integers to int32, and all other numbers to float32, including integers that are too large to be classes."""
    whole = np.issubdtype(y.dtype, np.integer) and y.min(initial=0) >= -(2**31) and y.max(initial=0) < 2**31
    return y.astype("int32" if whole else "float32")
