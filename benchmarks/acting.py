"""What the check that dropout acts costs: its share of the time of the shortest study, `digits-mlp`, from planning to its last run.

python benchmarks/acting.py [--json FILE]
"""

import os
import time
from collections.abc import Callable

os.environ.setdefault("KERAS_BACKEND", "jax")

from report import write

from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.training.acting import Acting
from keras_dropout.bench.training.trainer import Trainer

RECIPE = "digits-mlp"
spent: dict[str, float] = {}


def timed(name: str) -> Callable:
    method = getattr(Acting, name)

    def call(*args):
        started = time.perf_counter()
        try:
            return method(*args)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - started

    return call


def main() -> None:
    for name in ("__init__", "refusal", "masks", "unused"):
        setattr(Acting, name, timed(name))
    started = time.perf_counter()
    plan = make_plan(RECIPE)
    trainer = Trainer(plan.study, plan.data.parts(plan.study.split), plan.data.divide_by)
    runs = list(plan.study.runs())
    for run in runs:
        trainer.train(run)
    seconds = time.perf_counter() - started
    check = sum(spent.values())
    row = {"study": RECIPE, "runs": len(runs), "engine": plan.study.engine, "seconds": round(seconds, 2), "check": round(check, 3)}
    print(f"{row}: {100 * check / seconds:.2f} %")
    write("acting", [row | {"share": round(check / seconds, 4)}])


if __name__ == "__main__":
    main()
