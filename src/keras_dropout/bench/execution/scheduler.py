"""Missing runs -> workers -> ledger.

Runs that end are written to the ledger at once, by the process that the user started; a worker that dies loses the epochs since
its run's last checkpoint. Results depend neither on the number of workers nor on where they are.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, Self

from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.execution.machine import machine, usable_cores, versions
from keras_dropout.bench.execution.processes import Processes
from keras_dropout.bench.execution.worker import Task
from keras_dropout.bench.ledger.schema import NotStored
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.records import Result, Run, Study
from keras_dropout.errors import refuse

HERE, RAY = "here", "ray"
STACK = 256  # runs that a worker is given at once where it can train them side by side


class Observer(Protocol):
    """Who watches an execution: a progress display, or nobody."""

    def started(self, worker: int, run: Run, epoch: int) -> None: ...
    def epoch(self, worker: int, run: Run, epoch: int, logs: dict[str, float]) -> None: ...
    def paused(self, worker: int, run: Run) -> None: ...
    def ended(self, worker: int, run: Run, result: Result) -> None: ...
    def note(self, text: str) -> None: ...


class Workers(Protocol):
    """A place where runs are trained. `with` starts it, and ends all workers that are left."""

    workers: list[Any]  # each has a `number` for the display
    retries: int  # how often a run is given to another worker when its own has died

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: Any) -> None: ...
    def start(self) -> Any: ...
    def give(self, worker: Any, task: Task) -> None: ...
    def messages(self) -> Iterator[tuple[Any, tuple]]: ...
    def end(self, worker: Any) -> None: ...


def check_on(on: str) -> int:
    """Refuse a place for workers that is unknown or does not answer, before anything is loaded. How many cores are there."""
    if on == HERE:
        return usable_cores()
    address = _ray_address(on)
    if importlib.util.find_spec("ray") is None:
        refuse("Ray is not installed.", "pip install 'keras-dropout[ray]'")
    from keras_dropout.bench.execution.ray_actors import count_cores

    return count_cores(address)


def execute(
    study: Study,
    data: Data,
    runs: Sequence[Run],
    ledger: Ledger,
    workers: int,
    observer: Observer,
    *,
    on: str = HERE,
    checkpoint_every: int | None = None,
    until: int | None = None,
    keep_weights: bool = False,
    more: Callable[[], Sequence[Run]] | None = None,
) -> list[Result]:
    """Train `runs` on `workers` workers, store each in the ledger as it ends, and return the results, without test losses.

    Runs go on from their checkpoints in the ledger. Seeds go first in their order, and of a seed the variants that take longest.
    When all are over, `more` may give others. With `until`, runs that have not ended after that many epochs are left as
    checkpoints, and give no result. With `keep_weights` the trained models are stored too; where one cannot be, its run is stored
    without it. A run that fails, or that cannot be stored, is a result; the others go on. In the stacked
    engine a worker is given many runs at once. On KeyboardInterrupt, or any other error here, the workers are ended and what is
    finished stays in the ledger.
    """
    queue = _Queue(runs)
    results: list[Result] = []
    share = min(STACK, -(-len(runs) // workers)) if study.engine == "stacked" else 1
    busy: dict[Any, dict[str, Run]] = {}
    since: dict[Any, float] = {}
    with _heeded_interrupts() as check_interrupt, _place(on)(study, data) as place:
        for _ in range(min(workers, len(runs))):
            place.start()

        def finish(worker: Any, run: Run, result: Result, *facts: dict[str, Any]) -> None:
            del busy[worker][run.key]
            queue.learn(run, result)
            try:
                _store(ledger, study, run, result, facts, observer)
            except NotStored as error:
                result = Result("failed", result.seconds, result.epochs, error=f"trained, but not stored: {error}")
            # What the ledger holds need not be held here: memory does not grow with the number of runs.
            result = dataclasses.replace(result, test_losses=None, predictions=None, calibration=None, log="", model=None)
            results.append(result)
            observer.ended(worker.number, run, result)

        while place.workers:
            check_interrupt()
            if more and not queue and not any(busy.values()):
                queue.add(more())
                for _ in range(min(workers, len(queue)) - len(place.workers)):
                    place.start()
            for worker in [worker for worker in place.workers if not busy.get(worker)]:
                if not queue:
                    if not more or not any(busy.values()):
                        place.end(worker)
                    continue
                given = tuple(queue.take() for _ in range(min(share, len(queue))))
                checkpoints = ledger.checkpoints([run.key for run in given])
                states = {key: state for key, (_, state) in checkpoints.items()}
                place.give(worker, Task(given, states, until, checkpoint_every, keep_weights))
                busy[worker], since[worker] = {run.key: run for run in given}, time.perf_counter()
                for run in given:
                    observer.started(worker.number, run, checkpoints[run.key][0] if run.key in checkpoints else 0)
            for worker, (kind, key, *values) in place.messages() if place.workers else ():
                if kind == "died":
                    why, printed = values
                    for run in list(busy.get(worker, {}).values()):
                        if queue.again(run, place.retries):
                            observer.note(f"{run.variant.name}, seed {run.seed}: {why}; it is given to another worker.")
                        else:
                            seconds = round(time.perf_counter() - since[worker], 3)
                            lost = Result("failed", seconds, 0, error=why, log=printed)
                            finish(worker, run, lost, versions(), machine())
                    place.end(worker)
                    if queue:
                        place.start()
                    continue
                run = busy[worker][key]
                if kind == "epoch":
                    observer.epoch(worker.number, run, *values)
                elif kind == "ended":
                    finish(worker, run, *values)
                elif kind == "anew":
                    name = f"{run.variant.name}, seed {run.seed}"
                    observer.note(f"{name}: its checkpoint cannot be used ({values[0]}); it begins anew.")
                else:
                    epoch, state = values
                    _keep(ledger, run, epoch, state, observer)
                    if kind == "paused":
                        del busy[worker][key]
                        observer.paused(worker.number, run)
    return results


def _place(on: str) -> Callable[[Study, Data], Workers]:
    """Where the workers are to be."""
    if on == HERE:
        return Processes
    from keras_dropout.bench.execution.ray_actors import Actors

    return functools.partial(Actors, address=_ray_address(on))


def _ray_address(on: str) -> str | None:
    """The address of the Ray cluster that `on` or RAY_ADDRESS names; None where one is to be started here."""
    mend = f"Use {HERE}, {RAY} (the cluster of RAY_ADDRESS, or one that is started), or {RAY}:HOST:PORT."
    if not isinstance(on, str) or not re.fullmatch(rf"{RAY}(:[^/\s]+:\d+)?", on):
        refuse(f"workers cannot be on {on!r}.", mend)
    address = on.partition(":")[2] or os.environ.get("RAY_ADDRESS", "")
    if "://" in address:
        refuse(f"a client of Ray cannot have workers; got the address {address}.", mend)
    return None if address in ("", "local") else address


@contextlib.contextmanager
def _heeded_interrupts() -> Iterator[Callable[[], None]]:
    """Ctrl-C for sure. Gives what raises the KeyboardInterrupt again that Python drops while it collects garbage, as it does with
    those that come in JAX's callback there."""
    pressed, ordinary = False, signal.getsignal(signal.SIGINT)

    def press(*arguments: Any) -> None:
        nonlocal pressed
        pressed = True
        signal.default_int_handler(*arguments)

    def check_interrupt() -> None:
        if pressed:
            raise KeyboardInterrupt

    ours = ordinary is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, press)
    try:
        yield check_interrupt
    finally:
        if ours:
            signal.signal(signal.SIGINT, ordinary)


class _Queue:
    """The runs that wait: seeds in their order, and of a seed the variants that took longest so far first."""

    def __init__(self, runs: Sequence[Run]):
        self._waiting: list[Run] = []
        self._order: dict[int, int] = {}
        self.add(runs)
        self._seconds: dict[str, float] = {}
        self._tries: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, runs: Sequence[Run]) -> None:
        self._waiting += runs
        for run in runs:
            self._order.setdefault(run.seed, len(self._order))

    def take(self) -> Run:
        run = min(self._waiting, key=lambda run: (self._order[run.seed], -self._seconds.get(run.variant.name, 0)))
        self._waiting.remove(run)
        return run

    def learn(self, run: Run, result: Result) -> None:
        if result.status == "done":
            self._seconds[run.variant.name] = result.seconds

    def again(self, run: Run, retries: int) -> bool:
        """Put a run back whose worker died, unless that has happened too often."""
        self._tries[run.key] = self._tries.get(run.key, 0) + 1
        if self._tries[run.key] > retries:
            return False
        self._waiting.insert(0, run)
        return True


def _store(ledger: Ledger, study: Study, run: Run, result: Result, facts: Sequence[dict], observer: Observer) -> None:
    try:
        ledger.put(study, run, result, *facts)
    except NotStored as error:
        if result.model is None:
            raise
        ledger.put(study, run, dataclasses.replace(result, model=None), *facts)
        observer.note(f"{run.variant.name}, seed {run.seed}: the trained model is not stored: {error}")


def _keep(ledger: Ledger, run: Run, epoch: int, state: bytes, observer: Observer) -> None:
    try:
        ledger.put_checkpoint(run.key, epoch, state)
    except NotStored as error:  # the run itself is not lost by that
        observer.note(f"{run.variant.name}, seed {run.seed}: the checkpoint of epoch {epoch} is not stored: {error}")
