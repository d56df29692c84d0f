"""Model-epochs per second on the tutorial's experiment: the bench, Keras `fit` as users run it, and the arithmetic alone.

One after another in one run, each in processes of its own, on the real 60,000 images with dropout as published, batch 32. Keras
has all cores of the machine for one model; the bench trains a model on each core. The arithmetic is the products of the
network's shapes and the weight update, in one scan, one process a core.
Run: python benchmarks/training.py [--json FILE]
"""

import os
import subprocess
import sys
import tempfile
import time

from report import write

from keras_dropout.bench.machine import usable_cores

EPOCHS = 5

FIT = """
import os, sys, time
os.environ["KERAS_BACKEND"], steps = sys.argv[1], int(sys.argv[2])
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
from keras_dropout.bench.recipes import find
x, y = find("fashion-mnist-mlp").data(None).train
x = x.astype("float32") / 255
shared = keras.layers.Dropout(0.2)
inputs = keras.Input((28, 28))
z = shared(keras.layers.Flatten()(inputs))
for units in (200, 100, 60):
    z = shared(keras.layers.Dense(units, activation="relu")(z))
model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(z))
model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"], steps_per_execution=steps)
model.fit(x, y, batch_size=32, verbose=0)
start = time.perf_counter()
model.fit(x, y, batch_size=32, epochs=EPOCHS, verbose=0)
print((time.perf_counter() - start) / EPOCHS)
""".replace("EPOCHS", str(EPOCHS))

ARITHMETIC = """
import os, time
os.environ.update(NPROC="1", XLA_FLAGS="--xla_cpu_multi_thread_eigen=false", JAX_PLATFORMS="cpu")
import jax, jax.numpy as jnp
sizes, batch, steps = (784, 200, 100, 60, 10), 32, 1875
keys = jax.random.split(jax.random.key(0), 5)
x = jax.random.normal(keys[0], (batch, 784))
weights = [jax.random.normal(k, pair) * 0.05 for k, pair in zip(keys[1:], zip(sizes, sizes[1:]))]
def step(weights, _):
    activations = [x]
    for w in weights:
        activations.append(activations[-1] @ w)
    gradient, new = activations[-1], []
    for number in reversed(range(4)):
        new.append(weights[number] - 1e-12 * (activations[number].T @ gradient))
        if number:
            gradient = gradient @ weights[number].T
    return new[::-1], None
epoch = jax.jit(lambda weights: jax.lax.scan(step, weights, None, length=steps)[0])
jax.block_until_ready(epoch(weights))
start = time.perf_counter()
for _ in range(EPOCHS):
    jax.block_until_ready(epoch(weights))
print((time.perf_counter() - start) / EPOCHS)
""".replace("EPOCHS", str(EPOCHS))


def start(script: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def seconds_of(process: subprocess.Popen) -> float:
    output = process.communicate()[0]
    if process.returncode:
        sys.exit(f"a benchmark process failed with exit status {process.returncode}")
    return float(output.split()[-1])


def keras_fit(backend: str, steps_per_execution: int) -> float:
    """Seconds a model-epoch of stock Keras, one model with the whole machine, after an epoch that compiles."""
    return seconds_of(start(FIT, backend, str(steps_per_execution)))


def arithmetic(cores: int) -> float:
    """Seconds a model-epoch of the products alone, with a process on each core."""
    processes = [start(ARITHMETIC) for _ in range(cores)]
    return max(map(seconds_of, processes)) / cores


def bench(cores: int) -> float:
    """Seconds a model-epoch of the bench: a study of many epochs less one of few, so that start and compiling cancel."""
    from keras_dropout import compare

    def wall(epochs: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            compare(
                "fashion-mnist-mlp",
                variants={"as-published": None},
                split="as-published",
                seeds=cores,
                epochs=epochs,
                workers=cores,
                ledger=os.path.join(folder, "r.db"),
                quiet=True,
            )
            return time.perf_counter() - begin

    few, many = 2, 2 + 4 * EPOCHS
    return (wall(many) - wall(few)) / ((many - few) * 2 * cores)


def main() -> None:
    cores = usable_cores()
    found = {
        "the products alone": arithmetic(cores),
        "keras_dropout.compare": bench(cores),
        "Keras fit, JAX, steps_per_execution=100": keras_fit("jax", 100),
        "Keras fit, JAX": keras_fit("jax", 1),
        "Keras fit, TensorFlow": keras_fit("tensorflow", 1),
    }
    ours = found["keras_dropout.compare"]
    rows = [{"training": name, "seconds_per_model_epoch": seconds, "to_ours": seconds / ours} for name, seconds in found.items()]
    for row in rows:
        print(f"{row['training']:42} {row['seconds_per_model_epoch']:7.3f} s a model-epoch  {row['to_ours']:6.2f} x ours")
    print(f"share of the arithmetic limit: {found['the products alone'] / ours:.0%} on {cores} core(s)")
    write("training", rows)


if __name__ == "__main__":
    main()
