"""Model-epochs per second: the bench, stock Keras `fit` as users run it, and for the tutorial's network the arithmetic alone.

Three networks on real Fashion-MNIST images: the tutorial's perceptron (60,000 images, batch 32, dropout as published), a small
convnet and a small LSTM that reads an image row by row (both 12,800 images, batch 64, dropout before the output). One after another
in one run, each in processes of its own. Keras has all cores of the machine for one model; the bench trains a model on each core,
in the engine that `auto` finds. The arithmetic is the products of the perceptron's shapes and the weight update, in one scan, one
process a core.
Run: python benchmarks/training.py [perceptron|convnet|lstm …] [--json FILE]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from report import write

EPOCHS = 5

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


def images(count: int) -> tuple[Any, Any]:
    from keras_dropout.bench.study.recipes import find

    x, y, _ = find("fashion-mnist-mlp").data(None).train
    return x[:count].astype("float32") / 255, y[:count]


def network(name: str) -> Any:
    """The network, compiled, with Keras's own dropout."""
    import keras

    layers = keras.layers
    if name == "perceptron":
        shared = layers.Dropout(0.2)
        inputs = keras.Input((28, 28))
        x = shared(layers.Flatten()(inputs))
        for units in (200, 100, 60):
            x = shared(layers.Dense(units, activation="relu")(x))
        optimizer = keras.optimizers.SGD(0.01)
    elif name == "convnet":
        inputs = keras.Input((28, 28))
        x = layers.Reshape((28, 28, 1))(inputs)
        for filters in (32, 64, 64):
            x = layers.MaxPooling2D()(layers.Conv2D(filters, 3, padding="same", activation="relu")(x))
        x = layers.Dropout(0.5)(layers.Dense(64, activation="relu")(layers.Flatten()(x)))
        optimizer = keras.optimizers.Adam()
    else:
        inputs = keras.Input((28, 28))
        x = layers.Dropout(0.5)(layers.LSTM(64)(inputs))
        optimizer = keras.optimizers.Adam()
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


SIZES = {"perceptron": (60_000, 32), "convnet": (12_800, 64), "lstm": (12_800, 64)}  # examples, batch size


def fit(name: str, steps_per_execution: int) -> None:
    """Print the seconds a model-epoch of stock Keras takes in this process, after an epoch that compiles."""
    model, (count, batch_size) = network(name), SIZES[name]
    model.steps_per_execution = steps_per_execution
    x, y = images(count)
    model.fit(x, y, batch_size=batch_size, verbose=0)
    start = time.perf_counter()
    model.fit(x, y, batch_size=batch_size, epochs=EPOCHS, verbose=0)
    print((time.perf_counter() - start) / EPOCHS)


def seconds_of(*processes: subprocess.Popen) -> float:
    """The longest of the seconds that the processes print."""
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a benchmark process failed")
    return max(float(output.split()[-1]) for output in outputs)


def start(*arguments: str, **environment: str) -> subprocess.Popen:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return subprocess.Popen([sys.executable, *arguments], env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}, **options)


def keras_fit(name: str, backend: str, steps_per_execution: int = 1) -> float:
    """Seconds a model-epoch of stock Keras, one model with the whole machine."""
    return seconds_of(start(__file__, "--fit", name, str(steps_per_execution), KERAS_BACKEND=backend))


def arithmetic(cores: int) -> float:
    """Seconds a model-epoch of the perceptron's products alone, with a process on each core."""
    return seconds_of(*(start("-c", ARITHMETIC) for _ in range(cores))) / cores


def bench(name: str, cores: int) -> tuple[float, str]:
    """Seconds a model-epoch of the bench, and its engine: a study of many epochs less one of few, so that start and compiling
    cancel."""
    from keras_dropout.bench.compare import carry_out, make_plan

    count, batch_size = SIZES[name]
    settings: dict[str, Any] = {"variants": {"as-built": None}, "seeds": cores, "workers": cores}
    if name == "perceptron":
        target, data, settings["split"] = "fashion-mnist-mlp", None, "as-published"
    else:
        (x, y), target = images(count + 100), network(name)
        # All but the few examples that `fit` has not either are for training.
        data, settings["validation_split"] = ((x[:count], y[:count]), (x[count:], y[count:])), 100 / count
        settings["batch_size"] = batch_size

    def wall(epochs: int) -> tuple[float, str]:
        with tempfile.TemporaryDirectory() as folder:
            plan = make_plan(target, data, epochs=epochs, ledger=Path(folder) / "r.db", **settings)
            begin = time.perf_counter()
            found = carry_out(plan, quiet=True)
            assert not found.failed, found.failed
            return time.perf_counter() - begin, f"{plan.study.engine} on {plan.study.backend}"

    few, many = 2, 2 + (4 if name == "perceptron" else 1) * EPOCHS  # a longer difference where an epoch is short
    (short, engine), (long, again) = wall(few), wall(many)
    assert engine == again, (engine, again)
    return (long - short) / ((many - few) * 2 * cores), engine


def main(names: list[str]) -> None:
    from keras_dropout.bench.execution.machine import usable_cores

    cores, rows = usable_cores(), []
    for name in names:
        ours, engine = bench(name, cores)
        found = {f"keras_dropout.compare ({engine})": ours}
        if name == "perceptron":
            found["the products alone"] = arithmetic(cores)
            print(f"share of the arithmetic limit: {found['the products alone'] / ours:.0%} on {cores} core(s)")
        found["Keras fit, TensorFlow"] = keras_fit(name, "tensorflow")
        found["Keras fit, JAX"] = keras_fit(name, "jax")
        if name == "perceptron":
            found["Keras fit, JAX, steps_per_execution=100"] = keras_fit(name, "jax", 100)
        found["Keras fit, torch"] = keras_fit(name, "torch")
        for training, seconds in found.items():
            rows.append({"network": name, "training": training, "seconds_per_model_epoch": seconds, "to_ours": seconds / ours})
            print(f"{name:11} {training:42} {seconds:7.3f} s a model-epoch  {seconds / ours:6.2f} x ours", flush=True)
    write("training", rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fit"]:
        fit(sys.argv[2], int(sys.argv[3]))
    else:
        main([name for name in sys.argv[1:] if name in SIZES] or list(SIZES))
