"""Call a training function for a run: what the function gets, what it tells, and what it must have used."""

import importlib
import importlib.util
import json
import math
import numbers
import queue
import random
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, MappingProxyType
from typing import Any, NamedTuple, NoReturn

import numpy as np

from keras_dropout.bench.ledger.checkpoints import Checkpoint
from keras_dropout.bench.records import FunctionStudy, Result, Run
from keras_dropout.bench.study import own_classes
from keras_dropout.bench.study.training_function import PARAMETER
from keras_dropout.bench.training.messages import Anew, Checkpointed, Ended, Epoch, Told
from keras_dropout.characters import clean_line
from keras_dropout.errors import BadInput, described, meant, refuse
from keras_dropout.masks import derive_seed
from keras_dropout.models import targets
from keras_dropout.schedules import from_document

_LIBRARIES = ("keras", "tensorflow", "torch")  # whose seeds are set
_TAKEN = ("key", "variant", "seed", "status", "error")  # names of other columns beside the metrics


class Saved(NamedTuple):
    """The last checkpoint of a run: the number of epochs that were trained, and the state in the form in which it was given."""

    epoch: int
    state: Any


class _Diverged(BaseException):
    """Ends a training function whose figures are no longer finite; no `except Exception` of the function catches it."""


class TrainingRun:
    """One run of a training function: its seed, the rates and the dropout of its variant, and where to send figures and states.

    `seed` is the run's seed, for random generators of your own: those of Python, NumPy, Keras, TensorFlow and PyTorch are set
    before the function is called. `variant` is the variant's name. `epochs` is the setting of that name, or None.
    """

    def __init__(self, study: FunctionStudy, run: Run, checkpoint: Checkpoint | None, tell: Callable[[Told], None]):
        self.seed, self.variant = run.seed, run.variant.name
        self._study, self._run, self._tell = study, run, tell
        self._past = checkpoint
        self._started = time.perf_counter() - (0.0 if checkpoint is None else checkpoint.seconds)
        self._curves: dict[str, list[float]] = {}
        self._epoch = 0
        self._names: list[str] = []  # asked for by `rate`
        self._used: set[str] = set()  # of the variant's placement
        self._placed: list[Any] = []
        self._looked = False  # whether the variant is known to be used
        self._epochs_read = False
        self._refused: BadInput | None = None
        self._loaded = set(_LIBRARIES) & set(sys.modules)

    @property
    def epochs(self) -> int | None:
        """The number of epochs that was asked for with the setting `epochs`; None without it."""
        self._epochs_read = True
        return self._study.epochs or None

    def rate(self, name: str, default: float | None = None, *, progress: float | None = None) -> float:
        """Return the rate that the run's variant gives to a name, for dropout of any library; 0 if the variant does not name it.

        `default` is the rate in the variant "as-built". `progress`, from 0 to 1, is the part of the training that is done: a rate
        that follows a schedule needs it.
        """
        self._check_loaded()
        if not isinstance(name, str):
            self._refuse(f"run.rate takes the name of a rate; got {name!r}.", 'For example run.rate("encoder").')
        self._names += [] if name in self._names else [name]
        placement = self._run.variant.placement
        if placement is None:
            if default is None:
                self._refuse(
                    f"the variant {self.variant!r} is the model as built; run.rate({name!r}) does not say its rate.",
                    f"Give it as the second argument: run.rate({name!r}, 0.5).",
                )
            return default
        if name not in placement:
            return 0.0
        spec = placement[name]
        self._used.add(name)
        if spec["kind"] != "Dropout" or not spec.keys() <= {"kind", "rate", "schedule"}:
            self._refuse(
                f"the variant {self.variant!r} gives {spec['kind']} to {name!r}; run.rate returns the rate of plain dropout.",
                f"Give a rate, {name}=0.2; other methods are for run.place(model).",
            )
        if "schedule" not in spec:
            return float(spec["rate"])
        if progress is None:
            self._refuse(
                f"the rate of {name!r} changes over the training; run.rate({name!r}) does not say how much of it is done.",
                f"Ask anew in each epoch: run.rate({name!r}, progress=epoch / epochs).",
            )
        return float(from_document(spec["schedule"])(min(1.0, max(0.0, progress))))

    def place(self, model: Any, part: str = "") -> Any:
        """Return a new Keras model with the dropout of the run's variant in it, and no other; the model as built for "as-built".

        It is made as by `keras_dropout.place`: weights and compile settings are kept. `part` tells several models of one training
        apart: with the part "generator", the site "generator.hidden" of a variant is the site "hidden" here. The run fails if a
        layer that was placed does not act, or is never called in training.
        """
        self._check_loaded()
        from keras_dropout.bench.training.function_placing import placed  # loads Keras

        try:
            new, used, layers = placed(model, self._run, part, len(self._placed))
        except BadInput as error:
            self._refused = error
            raise
        self._used |= used
        self._placed.append(layers)
        return new

    def log(self, metrics: Mapping[str, Any], epoch: int) -> None:
        """Send the figures of an epoch, which are numbers by name; epochs count from 1, and each is logged once, in order.

        The page shows a curve for each name; "validation_X" is drawn beside "X". Figures that are not finite end the run as
        diverged.
        """
        self._check_used()
        numbers_of = self._numbers("run.log", metrics)
        self._check_epoch("run.log", epoch)
        if epoch != self._epoch + 1 or (self._curves and numbers_of.keys() != self._curves.keys()):
            had = f"epoch {self._epoch}, with {', '.join(self._curves)}" if self._epoch else "none"
            self._refuse(
                f"run.log got epoch {epoch}, with {', '.join(numbers_of)}; the one before was {had}.",
                "Log each epoch once, in order from 1, always with the same names.",
            )
        self._epoch = int(epoch)
        self._tell(Epoch(self._run.key, self._epoch, numbers_of))
        if not all(map(math.isfinite, numbers_of.values())):
            raise _Diverged
        for name, value in numbers_of.items():
            self._curves.setdefault(name, []).append(value)

    def checkpoint(self, state: Any, epoch: int) -> None:
        """Store the state of the run after `epoch` epochs, from which an interrupted run continues: see `resume`.

        `state` is bytes, or a dict or list of arrays. Afterwards the random generators are seeded anew, in a run that continues
        from here too: so both draw the same numbers. A generator of your own belongs into the state, or is made anew in each epoch.
        """
        self._check_used()
        self._check_epoch("run.checkpoint", epoch)
        arrays = self._packed(state)
        seconds = round(time.perf_counter() - self._started, 3)
        curves = {name: list(values) for name, values in self._curves.items()}
        self._tell(Checkpointed(self._run.key, int(epoch), Checkpoint(int(epoch), curves, seconds, arrays).to_bytes()))
        self._seed_after(int(epoch))

    def resume(self) -> Saved | None:
        """Return the last checkpoint of this run, and go on from there; None if there is none.

        Call it when models and optimizers are made, before the first epoch.
        """
        if self._past is None:
            return None
        if self._epoch:
            self._refuse("run.resume() came after run.log.", "Call it before the first epoch.")
        past = self._past
        self._epoch = past.epoch
        self._curves = {name: list(values) for name, values in past.curves.items()}
        self._seed_after(past.epoch)
        form, *arrays = past.values
        said = json.loads(np.asarray(form).tobytes())
        copies = [np.array(each) for each in arrays]
        if said["form"] == "bytes":
            return Saved(past.epoch, copies[0].tobytes())
        return Saved(past.epoch, copies if said["form"] == "list" else dict(zip(said["names"], copies, strict=True)))

    def _packed(self, state: Any) -> list[np.ndarray]:
        """Return the arrays of a state; the first one describes its form."""
        said: dict[str, Any] = {"form": "bytes"}
        if isinstance(state, bytes | bytearray | memoryview):
            values = [np.frombuffer(state, np.uint8)]
        elif isinstance(state, Mapping) and all(isinstance(name, str) for name in state):
            said, values = {"form": "dict", "names": list(state)}, self._arrays(state.values())
        elif isinstance(state, list | tuple):
            said, values = {"form": "list"}, self._arrays(state)
        else:
            self._refuse(
                f"run.checkpoint takes bytes, or a dict or list of arrays; got {type(state).__name__}.",
                "A state of PyTorch becomes bytes with torch.save(state, file), where file = io.BytesIO(), and file.getvalue().",
            )
        return [np.frombuffer(json.dumps(said).encode(), np.uint8), *values]

    def _arrays(self, values: Any) -> list[np.ndarray]:
        found = []
        for value in values:
            value = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
            if value.dtype.kind not in "biufc":
                self._refuse(
                    f"run.checkpoint takes arrays of numbers; got one of {value.dtype}.",
                    "Turn what it holds into bytes or numbers.",
                )
            found.append(value)
        return found

    def _check_epoch(self, where: str, epoch: Any) -> None:
        if not isinstance(epoch, numbers.Integral) or isinstance(epoch, bool) or epoch < 1:
            self._refuse(f"{where} takes the number of the epoch, from 1; got {epoch!r}.", f"For example {where}(…, epoch + 1).")

    def _numbers(self, where: str, metrics: Any) -> dict[str, float]:
        """Return metrics as floats, in their order."""
        fix = 'For example {"test_loss": 0.31, "test_accuracy": 0.89}.'
        if not isinstance(metrics, Mapping) or not metrics:
            self._refuse(f"{where} takes metrics, which are numbers by name; got {metrics!r:.200}.", fix)
        found = {}
        for name, value in metrics.items():
            if not isinstance(name, str) or not name or clean_line(name) != name or name in _TAKEN:
                self._refuse(f"{where} got a metric with the name {name!r:.200}, which no metric can have.", fix)
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = None
            if number is None or isinstance(value, bool | str):
                self._refuse(f"{where} got {value!r:.200} as {name}, which is no number.", "Give one number, as float(value).")
            found[name] = number
        return found

    def _check_used(self) -> None:
        """Refuse a variant of which something was not asked for before the first epoch ended."""
        self._check_loaded()
        if self._looked:
            return
        self._looked = True
        placement = self._run.variant.placement
        unused = [name for name in placement or () if name not in self._used]
        asked = f"it asked for {', '.join(map(repr, self._names))}" if self._names else "it asked for no rate"
        if unused or (placement is None and not self._names and not self._placed):
            what = f"gives {', '.join(map(repr, unused))}" if unused else "is the model as built"
            models = f", and placed {_number_of(len(self._placed), 'model')}, where no such site is" if self._placed else ""
            self._refuse(
                f"the variant {self.variant!r} {what}, which the function did not use before its first run.log, run.checkpoint or "
                f"its end: {asked}{models}.",
                f"{meant(unused[0], self._names) if unused else ''}Name in the variant what run.rate and run.place use, and call "
                "them before the first epoch.",
            )
        if self._study.epochs and not self._epochs_read:
            self._refuse(
                f"{self._study.epochs} epochs were asked for; the function did not read run.epochs.",
                "Train run.epochs epochs, or leave epochs out.",
            )

    def _check_loaded(self) -> None:
        """Refuse a function that loads PyTorch only now, when its seed was not set."""
        if self._refused is not None:  # the function has caught it
            raise self._refused
        if "torch" in sys.modules and "torch" not in self._loaded:
            self._refuse(
                "the function loaded torch only while it ran, after the seeds were set: its figures would not come again.",
                "Import torch at the top of the function's file.",
            )

    def _refuse(self, what: str, fix: str) -> NoReturn:
        """Refuse, and remember it: the function may catch what is raised here."""
        try:
            refuse(what, fix)
        except BadInput as error:
            self._refused = error
            raise

    def _seed_after(self, epoch: int) -> None:
        _set_seeds(derive_seed(self.seed, "after", epoch))

    def _result(self, returned: Any) -> Result:
        """Return the result of the function that returned; refuse what is no metrics, and what was asked for and not used."""
        self._check_used()
        metrics, losses = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
        if returned is None:
            self._refuse("the function returned nothing.", 'End it with the metrics: return {"test_loss": …}.')
        found = self._numbers("the function's return", metrics)
        for layers in self._placed:
            for layer, site in layers:
                if not layer.called:
                    self._refuse(
                        f"the dropout that run.place put at {site!r} was never called in training.",
                        "Train the model that run.place returns, with training=True in a loop of your own.",
                    )
        if losses is not None:
            losses = self._losses(losses, found)
        if not all(map(math.isfinite, found.values())) or (losses is not None and not np.isfinite(losses).all()):
            return self.diverged()
        return Result("done", self._seconds(), self._epoch, found, self._curves, losses)

    def _losses(self, losses: Any, metrics: dict[str, float]) -> np.ndarray:
        """Return the losses of the test examples; their mean is the test loss."""
        array = self._arrays([losses])[0]
        if array.ndim != 1 or array.dtype.kind not in "fiu" or not array.size:
            self._refuse(
                f"the second value that the function returned must be the losses of the test examples; got shape {array.shape}.",
                "Return metrics, losses with one number for each test example, or the metrics alone.",
            )
        mean = float(np.mean(array, dtype="float64"))
        given = metrics.setdefault("test_loss", mean)
        if math.isfinite(given) and not math.isclose(given, mean, rel_tol=1e-3, abs_tol=1e-6):
            self._refuse(
                f"test_loss is {given:.6g}, and the mean of the losses of the test examples is {mean:.6g}.",
                "Return the losses whose mean the test loss is, or the metrics alone.",
            )
        return array.astype("float32")

    def _seconds(self) -> float:
        return round(time.perf_counter() - self._started, 3)

    def diverged(self) -> Result:
        """Return the result of a run whose figures are not finite."""
        return Result("diverged", self._seconds(), self._epoch, {}, self._curves)

    def failed(self, why: str) -> Result:
        """Return the result of a run that failed."""
        return Result("failed", self._seconds(), self._epoch, error=why)


class FunctionTrainer:
    """A trainer for the runs of a study of a training function, with the interface of `Trainer`."""

    def __init__(self, study: FunctionStudy, *_: Any):
        self.study = study
        self._function: Callable[[TrainingRun], Any] | None = None

    def groups(self, runs: Sequence[Run]) -> list[list[Run]]:
        """Return the runs one by one."""
        return [[run] for run in runs]

    def follow(
        self,
        runs: Sequence[Run],
        checkpoints: Mapping[str, bytes] = MappingProxyType({}),
        until: int | None = None,
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> Iterator[Told]:
        """Call the function for each run, and yield messages about it, as `Trainer.follow`."""
        for run in runs:
            past = None
            if run.key in checkpoints:
                try:
                    past = Checkpoint.from_bytes(checkpoints[run.key])
                    _check_form(past)
                except ValueError as error:
                    yield Anew(run.key, str(error))
                    past = None
            yield from self._train(run, past)

    def _train(self, run: Run, past: Checkpoint | None) -> Iterator[Told]:
        """Call the function in a thread of its own, because it tells by calls, and yield what it tells."""
        told: queue.SimpleQueue[Told] = queue.SimpleQueue()
        threading.Thread(target=self._call, args=(run, past, told.put), daemon=True).start()
        while not isinstance(message := told.get(), Ended):
            yield message
        yield message

    def _call(self, run: Run, past: Checkpoint | None, tell: Callable[[Told], None]) -> None:
        started, own = time.perf_counter(), None
        try:
            function = self._load()
            _set_seeds(derive_seed(run.seed, "weights"))
            own = TrainingRun(self.study, run, past, tell)
            returned = function(own)
            result = own._result(returned)
        except _Diverged:
            assert own is not None
            result = own.diverged()
        except BaseException as error:  # the user's function may raise anything, SystemExit too
            traceback.print_exc()  # into the run's log
            why = str(error) if isinstance(error, BadInput) else described(error) if str(error) else type(error).__name__
            lost = round(time.perf_counter() - started, 3)
            result = Result("failed", lost, 0, error=why) if own is None else own.failed(why)
        tell(Ended(run.key, result))

    def _load(self) -> Callable[[TrainingRun], Any]:
        """Return the function; load the libraries that it names, so that their seeds can be set."""
        if self._function is None:
            if self.study.function:
                self._function = targets.load_function(self.study.function)
            else:
                assert self.study.objects is not None  # the function, given in Python
                self._function = own_classes._unpacked(self.study.objects)[PARAMETER]
            text = _names_in(self._function) if self.study.source is None else Path(self.study.source).read_text("utf-8", "replace")
            for name in _LIBRARIES:
                if re.search(rf"\b{name}\b", text) and importlib.util.find_spec(name):
                    importlib.import_module(name)
        return self._function


def _names_in(function: Any) -> str:
    """Return the names in the code of a function and of its inner functions."""

    def names(code: CodeType) -> Iterator[str]:
        yield from code.co_names
        for part in code.co_consts:
            if isinstance(part, CodeType):
                yield from names(part)

    code = getattr(getattr(function, "func", function), "__code__", None)
    return " ".join(names(code)) if code is not None else ""


def _check_form(past: Checkpoint) -> None:
    """Raise ValueError for a checkpoint that `TrainingRun.checkpoint` did not make."""
    try:
        said = json.loads(np.asarray(past.values[0]).tobytes())
        if said["form"] == "dict":
            dict(zip(said["names"], past.values[1:], strict=True))
        elif said["form"] not in ("bytes", "list"):
            raise ValueError(said["form"])
    except Exception as error:
        raise ValueError(f"its form is not known: {error}") from error


def _set_seeds(seed: int) -> None:
    """Set the seeds of Python, NumPy and of the libraries that are loaded."""
    seed %= 2**32
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the function may draw from it
    if "keras" in sys.modules:
        from keras_dropout.bench.training.build import _set_random_seed

        _set_random_seed(seed)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)
    if (tensorflow := sys.modules.get("tensorflow")) is not None and hasattr(tensorflow, "random"):
        tensorflow.random.set_seed(seed)


def _number_of(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
