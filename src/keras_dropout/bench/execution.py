"""Missing runs -> workers -> ledger. One process a core, one thread a process, so that results do not depend on their number.

A worker is a fresh process: it never imports the user's main module, so scripts need no guard and notebooks work. Runs that end
are written to the ledger at once, by the process that the user started; a worker that dies loses the run it was at.
"""

import contextlib
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import multiprocessing
import os
import platform
import re
import signal
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from keras_dropout.bench.data import Data, Part
from keras_dropout.bench.ledger import Ledger
from keras_dropout.bench.records import BACKENDS, Result, Run, Study
from keras_dropout.errors import check_choice, refuse
from keras_dropout.targets import import_file

_TELLING = ("keras-dropout", "keras", "numpy", "jax", "jaxlib", "tensorflow", "tensorflow-cpu", "torch")
_DEAD = "the worker process died"


class Observer(Protocol):
    """Who watches an execution: a progress display, or nobody."""

    def started(self, worker: int, run: Run) -> None: ...
    def epoch(self, worker: int, run: Run, epoch: int, logs: dict[str, float]) -> None: ...
    def ended(self, worker: int, run: Run, result: Result) -> None: ...


def check_backend(backend: str) -> str:
    """Refuse a backend that is unknown or not installed, before anything is loaded."""
    check_choice("backend", backend, BACKENDS)
    if importlib.util.find_spec(backend) is None:
        refuse(f"the backend {backend} is not installed.", f"pip install 'keras-dropout[{backend}]'")
    return backend


def usable_cores() -> int:
    """The number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """The versions of the packages that decide results, and of Python."""
    found = {"python": platform.python_version()}
    for name in _TELLING:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    """The kind of machine: system, processor, usable cores. No name of its own."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    return {"system": platform.system(), "architecture": platform.machine(), "processor": model, "cores": usable_cores()}


def execute(study: Study, data: Data, runs: Sequence[Run], ledger: Ledger, workers: int, observer: Observer) -> list[Result]:
    """Train `runs` in their order on `workers` processes, store each in the ledger as it ends, and return the results.

    On KeyboardInterrupt, or any other error here, the workers are ended and what is finished stays in the ledger.
    """
    facts = versions(), machine()
    waiting = list(reversed(runs))
    results = []
    with _Pool(study, data) as pool:
        for _ in range(min(workers, len(runs))):
            pool.start()
        while pool.workers:
            for worker in [worker for worker in pool.workers if worker.run is None]:
                if not waiting:
                    pool.end(worker)
                else:
                    worker.give(waiting.pop())
                    observer.started(worker.number, worker.run)
            for worker, (kind, *values) in pool.messages():
                if kind == "epoch":
                    observer.epoch(worker.number, worker.run, *values)
                    continue
                run, result = worker.run, values[0]
                ledger.put(study, run, result, *facts)
                results.append(result)
                observer.ended(worker.number, run, result)
                worker.run = None
                if kind == "died":
                    pool.end(worker)
                    if waiting:
                        pool.start()
    return results


def time_run(study: Study, data: Data, run: Run) -> tuple[float, float]:
    """Seconds before a worker's first epoch ends, and seconds of a whole run after that; from a training of three epochs."""
    with _Pool(study, data) as pool:
        worker = pool.start()
        worker.give(run, epochs=3)
        started, ends = time.perf_counter(), []
        while True:
            for _, (kind, *values) in pool.messages():
                if kind == "epoch":
                    ends.append(time.perf_counter())
                elif values[0].status == "failed":
                    refuse(f"variant {run.variant.name!r} cannot be trained: {values[0].error}", "Mend the model or the variant.")
                else:
                    ends = ends or [time.perf_counter()]
                    an_epoch = (ends[-1] - ends[0]) / max(1, len(ends) - 1)
                    return ends[0] - started, an_epoch * study.epochs


def time_engines(study: Study, data: Data, run: Run, engines: Sequence[str]) -> dict[str, float | str]:
    """Seconds of a training step in each engine, measured in one worker, one after the other; for an engine that cannot train
    the run, what went wrong."""
    with _Pool(study, data) as pool:
        pool.start().give(run, engines=tuple(engines))
        while True:
            for _, (kind, *values) in pool.messages():
                if kind == "timed":
                    return values[0]
                refuse(f"variant {run.variant.name!r} cannot be trained: {values[0].error}", "Mend the model or the variant.")


@dataclass
class _Worker:
    number: int
    process: Any
    connection: Connection
    log: Any
    run: Run | None = field(default=None)
    since: float = 0.0

    def give(self, run: Run, epochs: int | None = None, engines: Sequence[str] = ()) -> None:
        """A run to train, for fewer `epochs` where given; or, with `engines`, to time a step of in each of them."""
        self.run, self.since = run, time.perf_counter()
        with contextlib.suppress(OSError):  # a worker that is gone shows when we listen to it
            self.connection.send((run, epochs, engines))


class _Pool:
    """Worker processes of one study."""

    def __init__(self, study: Study, data: Data):
        self._context = multiprocessing.get_context("spawn")
        self._task = (study, data.parts(study.split), data.divide_by)  # sent once to each worker, not with every run
        self.workers: list[_Worker] = []

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *_: Any) -> None:
        for worker in list(self.workers):
            worker.process.kill()
            self.end(worker)

    def start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        log = tempfile.NamedTemporaryFile("r", prefix="keras-dropout-worker-", errors="replace")  # noqa: SIM115 - `end` closes it
        process = self._context.Process(target=_work, args=(theirs, log.name), daemon=True)
        with _main_out_of_sight():
            process.start()
        theirs.close()
        free = set(range(len(self.workers) + 1)) - {worker.number for worker in self.workers}
        worker = _Worker(min(free), process, ours, log)
        self.workers.append(worker)
        with contextlib.suppress(OSError):
            ours.send(self._task)
        return worker

    def end(self, worker: _Worker) -> None:
        worker.connection.close()
        worker.process.join(10)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.log.close()
        self.workers.remove(worker)

    def messages(self) -> Iterator[tuple[_Worker, tuple]]:
        """Wait for workers to say something: ("epoch", number, logs), ("ended" or "died", result), or ("timed", seconds)."""
        by_connection = {worker.connection: worker for worker in self.workers if worker.run}
        for connection in wait(by_connection) if by_connection else ():
            worker = by_connection[connection]
            try:
                yield worker, connection.recv()
            except (EOFError, OSError):
                worker.process.join(10)
                last = worker.log.read().strip().splitlines()[-1:]
                error = f"{_DEAD} (exit code {worker.process.exitcode})" + "".join(f": {line}" for line in last)
                yield worker, ("died", Result("failed", round(time.perf_counter() - worker.since, 3), 0, error=error))


@contextlib.contextmanager
def _main_out_of_sight() -> Iterator[None]:
    """Hide the main module while a process starts: multiprocessing would have the child run it again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _work(connection: Connection, log: str) -> None:
    """The life of a worker: take the study, then train each run that comes, until the connection closes."""
    with open(log, "a") as file:  # frameworks print as they like; the connection is what counts
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; our parent decides what it means
    _die_with_parent()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        study, parts, divide_by = connection.recv()
        _fix_environment(study.backend)
        trainer = None
        while True:
            run, epochs, engines = connection.recv()
            started = time.perf_counter()
            try:
                from keras_dropout.bench.training import Trainer

                _import_what_the_model_needs(study)
                if engines:
                    connection.send(("timed", {engine: _time_engine(study, parts, divide_by, run, engine) for engine in engines}))
                    continue
                trainer = trainer or Trainer(study, parts, divide_by)
                result = trainer.train(run, lambda *values: connection.send(("epoch", *values)), epochs)
            except (BrokenPipeError, ConnectionResetError):
                return
            except Exception as error:  # one run's failure is that run's result
                result = Result("failed", round(time.perf_counter() - started, 3), 0, error=_one_line(error))
            connection.send(("ended", result))


def _import_what_the_model_needs(study: Study) -> None:
    """Import what defines the reader's own layers and losses, which thereby registers them with Keras."""
    if study.source is not None:
        import_file(Path(study.source))
    for module in study.modules:
        importlib.import_module(module)


def _time_engine(study: Study, parts: dict[str, Part], divide_by: float, run: Run, engine: str) -> float | str:
    from keras_dropout.bench.training import Trainer

    try:
        return Trainer(dataclasses.replace(study, engine=engine), parts, divide_by).time_step(run)
    except Exception as error:  # this engine's failure is its answer
        return _one_line(error)


def _one_line(error: Exception) -> str:
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())[:500]  # Keras colours its messages
    return f"{type(error).__name__}: {text}"


def _fix_environment(backend: str) -> None:
    """One thread and no accelerator, set before the framework starts: a run's bytes then depend on its key alone."""
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ.update(
        KERAS_BACKEND=backend,
        XLA_FLAGS=f"{flags} --xla_cpu_multi_thread_eigen=false".strip(),
        NPROC="1",
        OMP_NUM_THREADS="1",
        MKL_NUM_THREADS="1",
        TF_NUM_INTRAOP_THREADS="1",
        TF_NUM_INTEROP_THREADS="1",
        TF_CPP_MIN_LOG_LEVEL="3",
        CUDA_VISIBLE_DEVICES="-1",
        JAX_PLATFORMS="cpu",
    )


def _die_with_parent() -> None:
    """End this process when the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
