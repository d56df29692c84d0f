"""How long runs take, and which engine is the fastest: measured on the study itself, in a worker that trains a few steps of it."""

import time
from collections.abc import Iterator, Sequence

from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.execution.processes import Processes
from keras_dropout.bench.execution.worker import Task
from keras_dropout.bench.records import Result, Run, Study
from keras_dropout.errors import refuse


def time_runs(study: Study, data: Data, runs: Sequence[Run]) -> tuple[float, float]:
    """Seconds that a worker spends on these runs before their second epochs, and on all their epochs after that: from three, or,
    where they have no more, from training them again in the same worker."""
    last, start, warm, again, epochs, over = time.perf_counter(), 0.0, 0.0, 0.0, 1, 0
    # What a run costs beside its epochs counts where they are few.
    for kind, values in _ask(study, data, *[Task(tuple(runs), until=3)] * (2 if study.epochs <= 3 else 1)):
        last, spent = time.perf_counter(), time.perf_counter() - last
        if kind == "ended" and values[0].status == "failed":
            refuse(f"a variant cannot be trained: {values[0].error}", "Mend the model or the variant.")
        if over >= len(runs):
            again += spent
        elif kind == "epoch" and values[0] > 1:
            warm, epochs = warm + spent, max(epochs, values[0] - 1)
        elif kind == "epoch":
            start += spent
        over += kind in ("ended", "paused")
    return start, again or warm / epochs * study.epochs


def time_engines(study: Study, data: Data, run: Run, engines: Sequence[str]) -> dict[str, float | str]:
    """Seconds of a training step in each engine, measured in one worker, one after the other; for an engine that cannot train
    the run, what went wrong."""
    kind, values = next(iter(_ask(study, data, Task((run,), engines=tuple(engines)))))
    if kind == "ended":
        refuse(f"variant {run.variant.name!r} cannot be trained: {values[0].error}", "Mend the model or the variant.")
    return values[0]


def _ask(study: Study, data: Data, *tasks: Task) -> Iterator[tuple[str, list]]:
    """(kind, values) of each message about tasks, one after the other, from one worker here."""
    left = sum(len(task.runs) for task in tasks)
    with Processes(study, data) as place:
        worker = place.start()
        for task in tasks:
            place.give(worker, task)
        while left:
            for _, (kind, _, *values) in place.messages():
                if kind == "died":
                    kind, values, left = "ended", [Result("failed", 0.0, 0, error=values[0])], 1
                yield kind, values
                left -= kind not in ("epoch", "checkpoint")
