"""Many runs at once: the stacked engine against the same runs one after another, and against stock Keras `fit`.

The tutorial's experiment on JAX, dropout on the hidden layers, another rate and seed for each run; model-epochs per second, data
on the device, after an epoch that compiles. One process each, one after another, all on the same device, which is named. On a
machine without a GPU this runs too, and says so; the engine is not made for it.
Run: python benchmarks/stacked.py [--runs 64] [--epochs 5] [--examples 60000] [--json FILE]
"""

import argparse
import json
import os
import subprocess
import sys

from report import write

SCRIPT = """
import json, os, sys, time
os.environ["KERAS_BACKEND"], os.environ["TF_CPP_MIN_LOG_LEVEL"] = "jax", "3"
way, runs, epochs, examples = sys.argv[1], *map(int, sys.argv[2:5])
import dataclasses, jax, keras
from keras_dropout.bench.data import Part
from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.training.messages import Epoch
from keras_dropout.bench.training.trainer import Trainer

device = jax.devices()[0]
rates = {f"r{n}": {"hidden": round(0.05 * n, 2)} for n in range(1, 9)}
engine = "stacked" if way == "stacked" else "compiled"
plan = make_plan("fashion-mnist-mlp", variants=rates, seeds=-(-runs // 8), split="as-published", epochs=epochs + 1, engine=engine)
parts = {name: Part(*(None if a is None else a[:examples] for a in part)) for name, part in plan.data.parts("as-published").items()}
chosen = [run for run in plan.study.runs() if run.variant.name != "none"][:runs]
if way == "fit":  # as its users write it, with its own dropout; what is measured after an epoch is left out
    x, y = parts["train"].x.astype("float32") / 255, parts["train"].y
    inputs = keras.Input((28, 28))
    z = keras.layers.Flatten()(inputs)
    for units in (200, 100, 60):
        z = keras.layers.Dropout(0.2)(keras.layers.Dense(units, activation="relu")(z))
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(z))
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=32, verbose=0)
    start, count = time.perf_counter(), epochs
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    seconds = time.perf_counter() - start
else:  # each engine as the bench uses it: initial weights, the validation part after each epoch and all parts at the end included
    trainer = Trainer(plan.study, parts, plan.data.divide_by)
    last, seconds, count = time.perf_counter(), 0.0, len(chosen) * epochs
    for told in trainer.follow(chosen):
        last, spent = time.perf_counter(), time.perf_counter() - last
        first = isinstance(told, Epoch) and told.epoch == 1  # compiling, and the models' making
        seconds += 0 if first else spent
print(json.dumps({"seconds": seconds, "model_epochs": count, "device": f"{device.platform}: {device.device_kind}"}))
"""


def measure(way: str, *sizes: int) -> dict:
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, way, *map(str, sizes)], stdout=subprocess.PIPE, text=True, env=environment, check=False
    )
    if done.returncode:
        sys.exit(f"{way} ended with exit status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--examples", type=int, default=60_000, help="at most this many of each part of the data")
    parser.add_argument("--json")
    given = parser.parse_args()
    rows = []
    for way, title in (("stacked", "stacked"), ("one", "one after another"), ("fit", "Keras fit")):
        found = measure(way, given.runs, given.epochs, given.examples)
        rate = found["model_epochs"] / found["seconds"]
        rows.append({"training": title, "runs": 1 if way == "fit" else given.runs, "examples": given.examples, **found})
        rows[-1] |= {"model_epochs_per_second": rate, "stacked_is_faster": rows[0].get("model_epochs_per_second", rate) / rate}
        print(f"{title:18} {rate:9.2f} model-epochs a second, stacked is {rows[-1]['stacked_is_faster']:6.2f} x", flush=True)
    print(f"on {rows[0]['device']}, {given.runs} runs, {given.examples} examples")
    if rows[0]["device"].startswith("cpu"):
        print("There is no GPU here: these figures say nothing about one.")
    write("stacked", rows)


if __name__ == "__main__":
    main()
