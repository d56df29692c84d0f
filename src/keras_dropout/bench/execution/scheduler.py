"""Missing runs -> workers -> ledger. Results depend neither on the number of workers nor on their location."""

import contextlib
import dataclasses
import functools
import importlib.util
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, Self

from keras_dropout.bench.data.dataset import Data, Part
from keras_dropout.bench.execution.machine import machine, versions
from keras_dropout.bench.execution.processes import Processes
from keras_dropout.bench.execution.worker import Task
from keras_dropout.bench.ledger.schema import NotStored
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.records import Result, Run, Study
from keras_dropout.bench.settings import HERE, ray_address
from keras_dropout.bench.study.planning import Plan
from keras_dropout.bench.training.messages import Anew, Checkpointed, Died, Ended, Epoch, Paused, Told
from keras_dropout.cores import usable_cores
from keras_dropout.errors import refuse

STACK = 256  # most runs given at once to a worker that can train them side by side


class Observer(Protocol):
    """An observer of an execution, such as a progress display."""

    def started(self, worker: int, run: Run, epoch: int) -> None: ...
    def epoch(self, worker: int, run: Run, epoch: int, logs: dict[str, float]) -> None: ...
    def paused(self, worker: int, run: Run) -> None: ...
    def ended(self, worker: int, run: Run, result: Result) -> None: ...
    def note(self, text: str) -> None: ...


class Workers(Protocol):
    """A place where runs are trained. `with` starts the place, and ends all workers that are left."""

    workers: list[Any]  # each has a `number` for the display
    retries: int  # how often a run is given to another worker after its worker died

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: Any) -> None: ...
    def start(self) -> Any: ...
    def give(self, worker: Any, task: Task) -> None: ...
    def messages(self) -> Iterator[tuple[Any, Told | Died]]: ...
    def end(self, worker: Any) -> None: ...


def count_cores(on: str) -> int:
    """Return the number of cores at the workers' place; refuse a place that does not answer, before anything is loaded."""
    if on == HERE:
        return usable_cores()
    address = ray_address(on)
    if importlib.util.find_spec("ray") is None:
        refuse("Ray is not installed.", "pip install 'keras-dropout[ray]'")
    from keras_dropout.bench.execution import ray_actors

    return ray_actors.count_cores(address)


class Execution:
    """The workers of a plan's study; each run goes into the ledger as it ends. Use with `with`, which ends the workers.

    After KeyboardInterrupt, or any other error here, finished runs stay in the ledger.
    """

    def __init__(self, plan: Plan, ledger: Ledger, observer: Observer):
        self.plan, self.ledger, self.observer = plan, ledger, observer
        self._holds: dict[Any, int] = {}  # the seed whose division each worker has
        self._unkept: set[str] = set()  # runs of which a checkpoint could not be stored
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:  # it closes what has been opened if a later step fails
            self._check_interrupt = stack.enter_context(_heeded_interrupts())
            self._place = stack.enter_context(_place(self.plan.settings["on"])(self.plan.study, self.plan.data))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def train(self, runs: Sequence[Run], until: int | None = None) -> Iterator[tuple[Run, Result]]:
        """Train runs, store each in the ledger as it ends, and yield it with its result, without test losses.

        Runs continue from their checkpoints in the ledger. Seeds are trained in their order; within a seed, the slowest variants
        come first. With `until`, runs that have not ended after that many epochs are left as checkpoints and are not yielded. A run
        that fails, or that cannot be stored, is a result too; the other runs go on. If a trained model should be kept but cannot be
        stored, its run is stored without the model. In the stacked engine a worker gets many runs at once.
        """
        plan, place, observer = self.plan, self._place, self.observer
        queue = _Queue(runs)
        share = min(STACK, -(-len(runs) // plan.workers)) if plan.study.engine == "stacked" else 1
        busy: dict[Any, dict[str, Run]] = {}
        since: dict[Any, float] = {}
        for _ in range(min(plan.workers, len(runs)) - len(place.workers)):
            place.start()

        def finish(worker: Any, run: Run, result: Result, *facts: dict[str, Any]) -> Iterator[tuple[Run, Result]]:
            del busy[worker][run.key]
            queue.learn(run, result)
            result = self._store(run, result, facts)
            yield run, result
            observer.ended(worker.number, run, result)

        while queue or any(busy.values()):
            self._check_interrupt()
            for worker in [worker for worker in place.workers if not busy.get(worker)]:
                if given := queue.take_together(share, one_seed=plan.divisions is not None):
                    checkpoints = self.ledger.checkpoints([run.key for run in given])
                    states = {key: state for key, (_, state) in checkpoints.items()}
                    # What the study and the data have is sent once; objects of the caller's program cannot be sent so.
                    settings = {name: each for name, each in plan.settings.items() if name not in ("callbacks", "validation_data")}
                    place.give(worker, Task(given, states, until, settings, parts=self._parts_for(worker, given[0].seed)))
                    busy[worker], since[worker] = {run.key: run for run in given}, time.perf_counter()
                    for run in given:
                        observer.started(worker.number, run, checkpoints[run.key][0] if run.key in checkpoints else 0)
            for worker, told in place.messages():
                if isinstance(told, Died):
                    for run in list(busy.get(worker, {}).values()):
                        if queue.again(run, place.retries):
                            observer.note(f"{_named(run)}: {told.why}; it is given to another worker.")
                        else:
                            seconds = round(time.perf_counter() - since[worker], 3)
                            lost = Result("failed", seconds, 0, error=told.why, log=told.printed)
                            yield from finish(worker, run, lost, versions(), machine())
                    busy.pop(worker, None)
                    self._holds.pop(worker, None)
                    place.end(worker)
                    if queue:
                        place.start()
                    continue
                run = busy[worker][told.key]
                match told:
                    case Epoch():
                        observer.epoch(worker.number, run, told.epoch, told.logs)
                    case Ended():
                        yield from finish(worker, run, told.result, *told.facts)
                    case Anew():
                        observer.note(f"{_named(run)}: its checkpoint cannot be used ({told.why}); it begins anew.")
                    case Checkpointed():
                        self._keep(run, told)
                        if isinstance(told, Paused):
                            del busy[worker][told.key]
                            observer.paused(worker.number, run)

    def _parts_for(self, worker: Any, seed: int) -> dict[str, Part] | None:
        """Return the parts of a seed's own division, unless the worker has them; None if the data are divided once."""
        plan = self.plan
        if plan.divisions is None or self._holds.get(worker, plan.first_seed) == seed:
            return None
        self._holds[worker] = seed
        return plan.data_of(seed).parts(plan.study.split)

    def _store(self, run: Run, result: Result, facts: Sequence[dict[str, Any]]) -> Result:
        """Put a run into the ledger; return its result without arrays, so that memory does not grow with the number of runs."""
        study = self.plan.study
        try:
            try:
                self.ledger.put(study, run, result, *facts)
            except NotStored as error:
                if result.model is None:
                    raise
                self.ledger.put(study, run, dataclasses.replace(result, model=None), *facts)
                self.observer.note(f"{_named(run)}: the trained model is not stored: {error}")
        except NotStored as error:
            result = Result("failed", result.seconds, result.epochs, error=f"trained, but not stored: {error}")
        return dataclasses.replace(result, test_losses=None, predictions=None, calibration=None, log="", model=None)

    def _keep(self, run: Run, told: Checkpointed) -> None:
        try:
            self.ledger.put_checkpoint(run.key, told.epoch, told.state)
        except NotStored as error:  # the run itself is not lost
            if run.key not in self._unkept:  # the next one comes in half a minute, of a run that may take a day
                self.observer.note(f"{_named(run)}: the checkpoint of epoch {told.epoch} is not stored: {error}")
            self._unkept.add(run.key)


def execute(plan: Plan, runs: Sequence[Run], ledger: Ledger, observer: Observer, until: int | None = None) -> list[Result]:
    """Train runs of a plan, and return their results; see `Execution.train`."""
    with Execution(plan, ledger, observer) as execution:
        return [result for _, result in execution.train(runs, until)]


def _named(run: Run) -> str:
    return f"{run.variant.name}, seed {run.seed}"


def _place(on: str) -> Callable[[Study, Data], Workers]:
    """Return the class of the workers' place."""
    if on == HERE:
        return Processes
    from keras_dropout.bench.execution.ray_actors import Actors

    return functools.partial(Actors, address=ray_address(on))


@contextlib.contextmanager
def _heeded_interrupts() -> Iterator[Callable[[], None]]:
    """Yield a check that re-raises a KeyboardInterrupt that Python swallowed during garbage collection, as in JAX's callback."""
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
    """The waiting runs: seeds in their order; within a seed, the slowest variants so far first."""

    def __init__(self, runs: Sequence[Run]):
        self._waiting = list(runs)
        self._order = {seed: number for number, seed in enumerate(dict.fromkeys(run.seed for run in runs))}
        self._seconds: dict[str, float] = {}
        self._tries: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Run:
        run = min(self._waiting, key=lambda run: (self._order[run.seed], -self._seconds.get(run.variant.name, 0)))
        self._waiting.remove(run)
        return run

    def take_together(self, most: int, one_seed: bool) -> tuple[Run, ...]:
        """Return at most so many runs for one task; with `one_seed`, all of the same seed."""
        found: list[Run] = []
        while len(self) and len(found) < most:
            found.append(self.take())
            if one_seed and found[-1].seed != found[0].seed:
                self._waiting.insert(0, found.pop())
                break
        return tuple(found)

    def learn(self, run: Run, result: Result) -> None:
        if result.status == "done":
            self._seconds[run.variant.name] = result.seconds

    def again(self, run: Run, retries: int) -> bool:
        """Put back a run whose worker died and return True, unless this has happened too often."""
        self._tries[run.key] = self._tries.get(run.key, 0) + 1
        if self._tries[run.key] > retries:
            return False
        self._waiting.insert(0, run)
        return True
