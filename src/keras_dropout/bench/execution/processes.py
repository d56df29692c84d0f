"""Workers on this machine: fresh processes that never import the user's main module, so that scripts need no main guard."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import types
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.execution.machine import worker_environment
from keras_dropout.bench.execution.worker import LOG_LIMIT, Task, Worker
from keras_dropout.bench.records import FunctionStudy, Study
from keras_dropout.bench.training.messages import Died, Told


@dataclass(eq=False)
class Process:
    """A worker process as its parent sees it."""

    number: int
    process: Any
    connection: Connection
    log: Any


class Processes:
    """Worker processes of one study. Use with `with`, which ends them all."""

    retries = 0  # a process that dies would die again on a second try, for example of too little memory

    def __init__(self, study: Study, data: Data):
        self._context = multiprocessing.get_context("spawn")
        self._given = (study, data.sent(study.split), data.divide_by)  # sent once to each worker, not with every task
        # Streams and training functions may start processes, which a daemon may not. `__exit__` ends each worker.
        self._daemon = data.whole and not isinstance(study, FunctionStudy)
        self.workers: list[Process] = []

    def __enter__(self) -> "Processes":
        # Temporary files of the workers, which a killed worker leaves behind.
        self._folder = tempfile.TemporaryDirectory(prefix="keras-dropout-worker-", ignore_cleanup_errors=True)
        return self

    def __exit__(self, *_: Any) -> None:
        for worker in list(self.workers):
            worker.process.kill()
            self.end(worker)
        self._folder.cleanup()

    def start(self) -> Process:
        """Start one more worker."""
        ours, theirs = self._context.Pipe()
        log = tempfile.NamedTemporaryFile("r", dir=self._folder.name, errors="replace")  # noqa: SIM115 - `end` closes it
        process = self._context.Process(
            target=_work, args=(theirs, log.name, self._folder.name, multiprocessing.get_start_method()), daemon=self._daemon
        )
        with _main_out_of_sight():
            process.start()
        theirs.close()
        free = set(range(len(self.workers) + 1)) - {worker.number for worker in self.workers}
        worker = Process(min(free), process, ours, log)
        self.workers.append(worker)
        with contextlib.suppress(OSError):
            ours.send(self._given)
        return worker

    def give(self, worker: Process, task: Task) -> None:
        """Send the worker a task; the worker answers with messages."""
        with contextlib.suppress(OSError):  # `messages` detects a dead worker
            worker.connection.send(task)

    def end(self, worker: Process) -> None:
        """End a worker that is idle or dead."""
        with contextlib.suppress(OSError):
            worker.connection.send(None)
        worker.connection.close()
        worker.process.join(10)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.log.close()
        self.workers.remove(worker)

    def messages(self) -> Iterator[tuple[Process, Told | Died]]:
        """Wait for messages of workers and yield them; yield `Died` for a worker that is dead."""
        by_connection = {worker.connection: worker for worker in self.workers}
        ready = wait(by_connection)
        for connection, worker in by_connection.items():
            if connection not in ready:
                continue
            try:
                yield worker, connection.recv()
            except (EOFError, OSError):
                worker.process.join(10)
                printed = worker.log.read()[-LOG_LIMIT:]
                last = printed.strip().splitlines()[-1:]
                why = f"the worker process died (exit code {worker.process.exitcode})" + "".join(f": {line}" for line in last)
                yield worker, Died(why, printed)


@contextlib.contextmanager
def _main_out_of_sight() -> Iterator[None]:
    """Hide the main module while a process starts, because multiprocessing would run it again in the child."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _work(connection: Connection, log: str, folder: str, start_method: str) -> None:
    """Run a worker process: receive the study, then do each task until None arrives."""
    multiprocessing.set_start_method(start_method, force=True)  # streams start processes as they would in the user's program
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # these signals reach the worker too; its parent handles them
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    watcher = _die_with_parent(folder)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        study, parts, divide_by = connection.recv()
        os.environ.update(worker_environment(study.backend, study.engine))
        tempfile.tempdir = folder
        worker = Worker(study, parts, divide_by, log)
        while (task := connection.recv()) is not None:
            for message in worker.messages(task):
                connection.send(message)
        return
    watcher.join()  # the connection broke before None arrived: wait until the watcher ends this process


def _die_with_parent(folder: str) -> threading.Thread:
    """Start a thread that ends this process when its parent is gone, for whatever reason, and removes the parent's `folder`."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # multiprocessing started this process
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    return watcher
