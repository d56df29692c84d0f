"""Monte-Carlo dropout side by side: `uncertainty.predict`, the loops that people write, and one plain pass; and its memory.

The tutorial's network (784-200-100-60-10, untrained: speed is the same) on Fashion-MNIST's 10,000 test images, 100 samples, with
dropout at every site as published and on the last hidden layer only. The contestants:

    eager loop     stock Keras: `for _ in range(100): model(x, training=True)`, and the mean and variance of the passes
    jitted loop    JAX: a jitted `stateless_call(training=True)` 100 times, with sums of the passes and their squares
    ours           uncertainty.predict: mean, variance, entropies, variation ratio
    predict        one plain pass by `model.predict`
    jitted pass    JAX: one jitted plain pass

The loops are given the whole set at once and in batches of 1,000, `predict` also batches of 32, and the fastest way counts. First
calls compile and are told apart; later calls are minima of rounds in which all take their turn, but for whoever has used up its
time. Memory is the highest resident one of a fresh process each, on 2,000 images, also less that of one that only called `predict`.
Run: [KERAS_BACKEND=jax|tensorflow|torch] python benchmarks/monte_carlo.py [--rounds N] [--json FILE]
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from keras import ops
from report import write

from keras_dropout import uncertainty
from keras_dropout.bench.data import public_sets

BACKEND = keras.backend.backend()
SAMPLES, BATCH = 100, 1000
MEMORY_SAMPLES, MEMORY_IMAGES = (0, 10, 100, 1000), 2000
SLOW = 10.0  # seconds after which a contestant takes no further turn
PLACES = {"every site": (0, 1, 2, 3), "last hidden": (3,)}


def network(sites: tuple[int, ...]) -> keras.Model:
    """The tutorial's network with Keras's own dropout at these sites: the input is 0, the hidden layers 1 to 3."""
    inputs = keras.Input((28, 28))
    x = keras.layers.Flatten()(inputs)
    for site, units in enumerate((None, 200, 100, 60)):
        x = keras.layers.Dense(units, "relu")(x) if units else x
        x = keras.layers.Dropout(0.2)(x) if site in sites else x
    return keras.Model(inputs, keras.layers.Dense(10, "softmax")(x))


def images() -> np.ndarray:
    return public_sets.fashion_mnist().test[0].astype("float32") / 255


def in_batches(x: np.ndarray, size: int) -> list[np.ndarray]:
    return [x[start : start + size] for start in range(0, len(x), size)]


def eager_loop(model: keras.Model, x: np.ndarray, size: int) -> Callable:
    def once(batch: np.ndarray) -> np.ndarray:
        return np.stack([ops.convert_to_numpy(model(batch, training=True)) for _ in range(SAMPLES)])

    def call() -> None:
        for batch in in_batches(x, size):
            passes = once(batch)
            passes.mean(0), passes.var(0)

    if BACKEND != "torch":
        return call
    import torch

    return torch.no_grad()(call)


def jitted(model: keras.Model, x: np.ndarray, size: int) -> tuple[Callable, Callable]:
    """The loop and the single pass, jitted, on data that lie on the device already."""
    import jax

    batches = [jax.device_put(batch) for batch in in_batches(x, size)]

    def values(variables):  # anew in each call: `model.predict` replaces them
        return [v.value for v in variables]

    @jax.jit
    def stochastic(weights, state, total, squares, x):
        outputs, state = model.stateless_call(weights, state, x, training=True)
        return state, total + outputs, squares + outputs**2

    @jax.jit
    def plain(weights, state, x):
        return model.stateless_call(weights, state, x, training=False)[0]

    def loop() -> None:
        weights, state = values(model.trainable_variables), values(model.non_trainable_variables)
        for batch in batches:
            total = squares = np.zeros((len(batch), 10), "float32")
            for _ in range(SAMPLES):
                state, total, squares = stochastic(weights, state, total, squares, batch)
            mean = np.asarray(total) / SAMPLES
            np.asarray(squares) / SAMPLES - mean**2

    def once() -> None:
        weights, state = values(model.trainable_variables), values(model.non_trainable_variables)
        for done in [plain(weights, state, batch) for batch in batches]:
            np.asarray(done)

    return loop, once


def contestants(model: keras.Model, x: np.ndarray) -> dict[str, dict[str, Callable]]:
    """For each contestant, the ways of which the fastest counts."""
    sizes = {"whole": len(x), f"batches of {BATCH}": BATCH}
    found = {
        "ours": {"": lambda: uncertainty.predict(model, x, SAMPLES)},
        "eager loop": {name: eager_loop(model, x, size) for name, size in sizes.items()},
        "predict": {
            name: lambda size=size: model.predict(x, batch_size=size, verbose=0)
            for name, size in {"batches of 32": 32, **sizes}.items()
        },
    }
    if BACKEND == "jax":
        both = {name: jitted(model, x, size) for name, size in sizes.items()}
        found["jitted loop"] = {name: loop for name, (loop, _) in both.items()}
        found["jitted pass"] = {name: once for name, (_, once) in both.items()}
    return found


def seconds(call: Callable) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(place: str, rounds: int) -> list[dict]:
    found = contestants(network(PLACES[place]), images())
    ways = [(name, way, call) for name, calls in found.items() for way, call in calls.items()]
    first = {(name, way): seconds(call) for name, way, call in ways}
    later: dict[tuple, list[float]] = {(name, way): [] for name, way, _ in ways}
    for _ in range(rounds):
        for name, way, call in ways:
            if sum(later[name, way]) < SLOW:
                later[name, way].append(seconds(call))
    fastest = {name: min(calls, key=lambda way: min(later[name, way])) for name, calls in found.items()}
    ours = min(later["ours", ""])
    rows = []
    for name, way, _ in ways:
        row = {"backend": BACKEND, "dropout": place, "contestant": name, "way": way, "counts": way == fastest[name]}
        row |= {"first_seconds": first[name, way], "seconds": min(later[name, way])}
        row["to_ours"] = row["seconds"] / ours
        rows.append(row)
        text = f"{row['seconds']:9.4f} s  (first {row['first_seconds']:7.3f} s)  {row['to_ours']:8.3f} x ours"
        print(f"{BACKEND:11}{place:12} {name:12} {way:17}{text}{'  fastest' if row['counts'] and way else ''}", flush=True)
    return rows


def peak(samples: int) -> float:
    """MiB of the most memory that this process, of its own, has held once it has made so many samples."""
    model, x = network(PLACES["every site"]), images()[:MEMORY_IMAGES]
    model.predict(x, verbose=0)
    if samples:
        uncertainty.predict(model, x, samples)
    # Not getrusage: what it says begins with the memory of the process that started this one.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


def memory() -> list[dict]:
    rows = []
    for samples in MEMORY_SAMPLES:
        done = subprocess.run([sys.executable, __file__, "--peak", str(samples)], capture_output=True, text=True, check=True)
        rows.append({"backend": BACKEND, "samples": samples, "peak_mib": float(done.stdout.split()[-1])})
        rows[-1]["of_the_samples_mib"] = rows[-1]["peak_mib"] - rows[0]["peak_mib"]
        text = f"peak {rows[-1]['peak_mib']:7.1f} MiB, {rows[-1]['of_the_samples_mib']:6.1f} MiB above a plain predict"
        print(f"{BACKEND:11}{samples:5} samples of {MEMORY_IMAGES} images: {text}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of Monte-Carlo dropout; see the top of this file.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="where to write the figures")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)  # the process of one measurement of memory
    chosen = parser.parse_args()
    if chosen.peak is not None:
        print(peak(chosen.peak))
        return
    rows = [row for place in PLACES for row in measure(place, chosen.rounds)]
    write("monte_carlo", rows + memory())


if __name__ == "__main__":
    main()
