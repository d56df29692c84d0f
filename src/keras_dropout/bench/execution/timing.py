"""Measure how long runs take and which engine is the fastest, in a worker that trains a little of the study itself."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence

from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.execution.processes import Processes
from keras_dropout.bench.execution.scheduler import STACK
from keras_dropout.bench.execution.worker import Task
from keras_dropout.bench.records import Result, Run, Study
from keras_dropout.bench.study.planning import Plan
from keras_dropout.bench.training.messages import Died, Ended, Epoch, Paused, Timed, Told
from keras_dropout.errors import refuse


def estimate_seconds(plan: Plan, todo: Sequence[Run]) -> float:
    """Estimate the wall time of a plan's runs from a short training of the first run (or of a stack) in a worker."""
    if not todo:
        return 0.0
    tried = todo[: STACK if plan.study.engine == "stacked" else 1]
    if plan.divisions is not None:  # runs are trained side by side only on the same division
        tried = [run for run in tried if run.seed == tried[0].seed]
    start, each = time_runs(plan.study, plan.data, tried)
    return start + each * math.ceil(len(todo) / len(tried) / plan.workers)


def time_runs(study: Study, data: Data, runs: Sequence[Run]) -> tuple[float, float]:
    """Measure the seconds that a worker spends on these runs up to the end of the first epoch, and then on all their epochs.

    The second number comes from three epochs. If the runs have no more than three, it comes from training them again in the same
    worker.
    """
    last, start, warm, again, epochs, over = time.perf_counter(), 0.0, 0.0, 0.0, 1, 0
    # With few epochs, the costs of a run besides its epochs matter too.
    for told in _ask(study, data, *[Task(tuple(runs), until=3)] * (2 if study.epochs <= 3 else 1)):
        last, spent = time.perf_counter(), time.perf_counter() - last
        if isinstance(told, Ended) and told.result.status == "failed":
            refuse(f"a variant cannot be trained: {told.result.error}", "Fix the model or the variant.")
        if over >= len(runs):
            again += spent
        elif isinstance(told, Epoch) and told.epoch > 1:
            warm, epochs = warm + spent, max(epochs, told.epoch - 1)
        elif isinstance(told, Epoch):
            start += spent
        over += isinstance(told, Ended | Paused)
    return start, again or warm / epochs * study.epochs


def time_engines(study: Study, data: Data, run: Run, engines: Sequence[str]) -> Mapping[str, float | str]:
    """Measure the seconds of a training step in each engine, one after the other in one worker.

    An engine that cannot train the run gets its error message instead.
    """
    told = next(iter(_ask(study, data, Task((run,), engines=tuple(engines)))))
    if isinstance(told, Ended):
        refuse(f"variant {run.variant.name!r} cannot be trained: {told.result.error}", "Fix the model or the variant.")
    assert isinstance(told, Timed)  # the task asked for times
    return told.steps


def _ask(study: Study, data: Data, *tasks: Task) -> Iterator[Told]:
    """Yield the messages of one worker here about tasks, one after the other; its death counts as the end of a run."""
    left = sum(len(task.runs) for task in tasks)
    with Processes(study, data) as place:
        worker = place.start()
        for task in tasks:
            place.give(worker, task)
        while left:
            for _, told in place.messages():
                if isinstance(told, Died):
                    told, left = Ended("", Result("failed", 0.0, 0, error=told.why)), 1
                yield told
                left -= isinstance(told, Ended | Paused | Timed)
