"""Runs that end with made-up figures, for tests of what is made of them."""

from keras_dropout.bench.execution.scheduler import Execution
from keras_dropout.bench.records import Result


def made_up_execution(monkeypatch, metrics, interrupt_at=None):
    """In place of training: the figures that `metrics(run)` gives. Returns the keys of the runs, as they are "trained"."""
    trained = []

    def train(execution, runs):
        for run in runs:
            if len(trained) == interrupt_at:
                trained.append("interrupted")
                raise KeyboardInterrupt
            trained.append(run.key)
            result = Result("done", 0.1, 1, metrics(run))
            execution.ledger.put(execution.plan.study, run, result, {}, {})
            execution.observer.started(0, run, 0)
            yield run, result
            execution.observer.ended(0, run, result)

    monkeypatch.setattr(Execution, "train", train)
    monkeypatch.setattr(Execution, "__enter__", lambda execution: execution)
    return trained
