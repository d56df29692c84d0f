"""What a checkpoint costs: to make it, to send it to the command, and to store it in the ledger.

Dense networks with Adam, whose two moments make a checkpoint three times as large as the weights. The share is that of the training
time, in the worker, which makes and sends it: without --checkpoint-every one is made each half minute of training, and less often
where this would take more than a fiftieth of the time.

Run: python benchmarks/checkpoint_cost.py [--json FILE]
"""

import os
import tempfile
import threading
import time
from multiprocessing import Pipe
from pathlib import Path
from statistics import median

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from report import write

from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.training import trainer
from keras_dropout.bench.training.messages import Checkpointed

WIDTHS = (100, 1000, 3000)  # of two hidden layers: about 30 thousand, 2 million and 11 million parameters
EPOCHS = 6


def network(width: int) -> keras.Model:
    layers = [keras.layers.Dense(width, "relu"), keras.layers.Dense(width, "relu"), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((784 if width > 100 else 100,)), *layers])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def sending(state: bytes) -> float:
    """Seconds in which the state goes through a pipe, as from a worker."""
    ours, theirs = Pipe()
    reader = threading.Thread(target=theirs.recv)
    reader.start()
    started = time.perf_counter()
    ours.send(state)
    reader.join()
    return time.perf_counter() - started


def measure(width: int, folder: Path) -> dict[str, float]:
    model = network(width)
    x, y = np.random.default_rng(0).normal(size=(200, *model.input_shape[1:])).astype("float32"), np.arange(200) % 10
    plan = make_plan(model, (x, y), variants=["hidden"], epochs=EPOCHS, seeds=1, engine="compiled", ledger=folder / f"{width}.db")
    told = trainer.Trainer(plan.study, plan.data.parts("held-out"), 1.0).follow(
        plan.study.runs()[:1], settings={"checkpoint_every": 1}
    )
    made, sent, stored, size, since = [], [], [], 0, 0.0
    with Ledger(plan.ledger) as ledger:
        for each in told:
            if isinstance(each, Checkpointed):
                made.append(time.perf_counter() - since)
                size = len(each.state)
                sent.append(sending(each.state))
                started = time.perf_counter()
                ledger.put_checkpoint(each.key, each.epoch, each.state)
                stored.append(time.perf_counter() - started)
            since = time.perf_counter()
    in_worker = median(made) + median(sent)
    every = max(trainer.CHECKPOINT_SECONDS, in_worker / trainer._CHECKPOINT_SHARE)
    return {
        "parameters": model.count_params(),
        "megabytes": round(size / 1e6, 2),
        "seconds_to_make": round(median(made), 4),
        "seconds_to_send": round(median(sent), 4),
        "seconds_to_store": round(median(stored), 4),
        "seconds_between": round(every, 1),
        "share_of_training": round(in_worker / every, 5),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(width, Path(folder)) for width in WIDTHS]
    for row in rows:
        print(row)
    write("checkpoint_cost", rows)
