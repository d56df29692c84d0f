"""The work of a worker, on any machine: it takes tasks and answers with messages."""

import dataclasses
import importlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_dropout.bench.data.dataset import Part
from keras_dropout.bench.execution.machine import machine, versions
from keras_dropout.bench.records import FunctionStudy, Result, Run, Study
from keras_dropout.bench.training.messages import Ended, Paused, Timed, Told
from keras_dropout.models.targets import import_file

LOG_LIMIT = 100_000  # characters to keep from the end of a run's log


@dataclass(frozen=True)
class Task:
    """Runs to train, with the bytes of their checkpoints if they have any.

    After `until` epochs a run that has not ended is handed back as a checkpoint. `settings` are the study's settings for
    `Trainer.follow`. `parts` are the data of these runs, if they are others than those of the task before. With `engines`, the
    worker instead times a step of the one run in each of these engines.
    """

    runs: tuple[Run, ...]
    checkpoints: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    until: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    engines: tuple[str, ...] = ()
    parts: Mapping[str, Part] | None = field(default=None, repr=False)


class Worker:
    """A worker for the runs of one study, one task after another. Later tasks reuse the programs compiled for earlier ones.

    Its process must have the environment of `machine.worker_environment` before a framework is loaded.
    """

    def __init__(self, study: Study, parts: Any, divide_by: float, log: str | Path | None = None):
        self._given = study, parts, divide_by
        self._log = _Log(log)
        self._trainer: Any = None

    def messages(self, task: Task) -> Iterator[Told]:
        """Do a task and yield messages about it: for each run until it is `Paused` or `Ended`, or one `Timed`."""
        started = time.perf_counter()
        try:
            self._import_what_the_model_needs()
            if task.parts is not None:
                study, _, divide_by = self._given
                self._given = study, dict(task.parts), divide_by
                if self._trainer is not None:
                    self._trainer.hold(dict(task.parts))
            if task.engines:
                (run,) = task.runs
                yield Timed(run.key, {engine: self._time_engine(run, engine) for engine in task.engines})
                return
            if self._trainer is None:
                self._trainer = _trainer(*self._given)
            groups = self._trainer.groups(task.runs)
        except Exception as error:
            yield from self._failed(task.runs, started, error)
            return
        for group in groups:
            yield from self._train(group, task)

    def _train(self, group: Sequence[Run], task: Task) -> Iterator[Told]:
        started, left = time.perf_counter(), {run.key: run for run in group}
        try:
            for told in self._trainer.follow(group, task.checkpoints, task.until, task.settings):
                if isinstance(told, Ended | Paused):
                    del left[told.key]
                yield self._ended(told.key, told.result) if isinstance(told, Ended) else told
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # the failure of a run is its result; other groups go on
            yield from self._failed(left.values(), started, error)

    def _failed(self, runs: Collection[Run], started: float, error: Exception) -> Iterator[Told]:
        each = round((time.perf_counter() - started) / max(1, len(runs)), 3)
        for run in runs:
            yield self._ended(run.key, Result("failed", each, 0, error=_described(error)))

    def _ended(self, key: str, result: Result) -> Ended:
        return Ended(key, dataclasses.replace(result, log=self._log.news()), (versions(), machine()))

    def _import_what_the_model_needs(self) -> None:
        """Import the modules with the user's own layers and losses, which registers them with Keras."""
        study, *_ = self._given
        if study.source is not None:
            import_file(Path(study.source))
        for module in study.modules:
            importlib.import_module(module)

    def _time_engine(self, run: Run, engine: str) -> float | str:
        from keras_dropout.bench.training.trainer import Trainer

        study, parts, divide_by = self._given
        try:
            return Trainer(dataclasses.replace(study, engine=engine), parts, divide_by).time_step(run)
        except Exception as error:  # the failure of this engine is a result too
            return _described(error)


def _trainer(study: Study, parts: dict[str, Part], divide_by: float) -> Any:
    """Return the trainer of a study's runs; each kind loads what it needs."""
    if isinstance(study, FunctionStudy):
        from keras_dropout.bench.training.function_trainer import FunctionTrainer

        return FunctionTrainer(study)
    from keras_dropout.bench.training.trainer import Trainer

    return Trainer(study, parts, divide_by)


class _Log:
    """A file that receives everything this process prints, because frameworks print to the terminal without being asked."""

    def __init__(self, path: str | Path | None):
        self._file = open(path, "a+", errors="replace") if path else tempfile.TemporaryFile("a+", errors="replace")  # noqa: SIM115
        os.dup2(self._file.fileno(), 1)
        os.dup2(self._file.fileno(), 2)
        self._read = 0

    def news(self) -> str:
        """Return the text printed since the last call, or the end of that text if it is long."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self._file.seek(self._read)
        text = self._file.read()
        self._read = self._file.tell()
        return text[-LOG_LIMIT:]


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error, 500)}"


def one_line(error: Any, most: int = 300) -> str:
    """Return the text of an error without colours, which Keras and Ray use, on one line."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())[:most]
