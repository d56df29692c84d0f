"""A ledger of 10,000 runs: how long listing it and comparing a study in it take, against the same in a small ledger.

Each run has curves of 4 metrics over 60 epochs and the losses of 10,000 test examples, as those of the tutorial's recipe; the
numbers are drawn at random. The study that is compared has 4 variants and 6 seeds, among 10,000 runs and alone.
Run: python benchmarks/large_ledger.py [--json FILE]
"""

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from report import write

from keras_dropout.bench.compare import make_plan, so_far
from keras_dropout.bench.ledger.lookup import reading
from keras_dropout.bench.ledger.selection import Selection, find
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.records import Result
from keras_dropout.bench.study.planning import Plan

RUNS, EPOCHS, EXAMPLES = 10_000, 60, 10_000


def seconds(task: Callable[[], object]) -> float:
    """The shortest of three times."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        task()
        times.append(time.perf_counter() - started)
    return min(times)


def fill(path: Path, plan: Plan, runs: int) -> float:
    """Store so many runs, those of the plan first; seconds a run."""
    study = dataclasses.replace(plan.study, seeds=tuple(range(runs // len(plan.study.variants))))
    rng = np.random.default_rng(0)
    spent = 0.0
    with Ledger(path) as ledger:
        for run in study.runs():
            metrics = {
                f"{part}_{name}": float(rng.random()) for part in ("test", "train", "validation") for name in ("loss", "accuracy")
            }
            curves = {name: rng.random(EPOCHS).tolist() for name in ("loss", "accuracy", "validation_loss", "validation_accuracy")}
            losses = rng.exponential(size=EXAMPLES).astype("float32")
            result = Result("done", 20.0, EPOCHS, metrics, curves, losses)
            started = time.perf_counter()
            ledger.put(study, run, result, {"keras": "3"}, {"cores": 2})
            spent += time.perf_counter() - started
    return spent / runs


def list_runs(path: Path) -> int:
    with reading(path) as connection:
        return len(find(connection, Selection()))


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for runs in (24, RUNS):
            path = Path(folder) / f"{runs}.db"
            plan = make_plan("digits-mlp", ledger=path)
            put = fill(path, plan, runs)

            def compare(plan: Plan = plan) -> None:
                found = so_far(plan, plan.study, plan.known(), "")
                assert not found.missing
                found.document()

            row = {
                "runs": runs,
                "mib": path.stat().st_size / 2**20,
                "seconds_to_store_a_run": put,
                "seconds_to_list": seconds(lambda path=path: list_runs(path)),
                "seconds_to_compare_24_runs": seconds(compare),
            }
            rows.append(row)
            print(*(f"{name} {value:.4g}" for name, value in row.items()), sep="   ", flush=True)
    write("large_ledger", rows)


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "jax")
    main()
