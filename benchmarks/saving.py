"""What a training step costs where dropped parts are not computed: ratios to the step without dropout, side by side in one run.

Two perceptrons, 784-1024-1024-10 in batches of 128 and 784-2048-2048-10 in batches of 512, dropout .5 on both hidden layers: none,
ordinary dropout, and ThinnedStack with blocks of 16 to 128 units. And 24 residual blocks 128-512-128 on 16 x 32 tokens: none, each
block skipped with a rate that rises to .5 (stochastic depth per batch) or of .2 (LayerDrop), and passed by half of the tokens
(RandomLTD). Float32, Adam. The steps of the compiled engine, on one thread, and those of Keras's `fit` on each backend (only JAX
with --quick), which has all cores. The trainings take turns; the least time of each counts, the median where blocks are skipped.
`limit` is the share of the multiplications that is left. With --cpu-time the processor's time counts, where the machine is busy.
Run: python benchmarks/saving.py [--quick] [--cpu-time] [--json FILE]
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from report import write

RATE = 0.5
PERCEPTRONS = {"784-1024-1024-10, batch 128": (1024, 128), "784-2048-2048-10, batch 512": (2048, 512)}
BLOCKS = (16, 32, 64, 128)
DEEP, DEPTH, FEATURES, TOKENS = "24 blocks of 128-512-128, 16 x 32 tokens", 24, 128, 32
BACKENDS = ("jax", "tensorflow", "torch")
STEPS = 10  # in one turn


def trainings() -> dict[str, dict[str, tuple[Callable[[], Any], int, float]]]:
    """Return for each network and dropout (a function that makes the model, the batch size, the share of products left)."""
    from functools import partial

    thinned = {f"ThinnedStack, blocks of {n}": {"kind": "ThinnedStack", "rate": RATE, "block_size": n} for n in BLOCKS}
    grouped = {"ThinnedStack, blocks of 16, 4 groups": {"kind": "ThinnedStack", "rate": RATE, "block_size": 16, "groups": 4}}
    kinds = {"none": None, "Dropout": {"kind": "Dropout", "rate": RATE}, **thinned, **grouped}
    found: dict[str, dict[str, tuple[Callable[[], Any], int, float]]] = {}
    for network, (units, batch) in PERCEPTRONS.items():
        whole, left = 784 * units + units**2 + 10 * units, 392 * units + units**2 / 4 + 5 * units
        shares = {name: left / whole if name.startswith("Thinned") else 1.0 for name in kinds}
        found[network] = {name: (partial(perceptron, units, kind), batch, shares[name]) for name, kind in kinds.items()}
    rising = sum(RATE * (number + 1) / DEPTH for number in range(DEPTH)) / DEPTH
    deep = {"none": 0.0, "LayerDrop(skip=True, scaled=True), to .5": rising, "LayerDrop(.2, skip=True)": 0.2, "RandomLTD(.5)": 0.5}
    found[DEEP] = {name: (partial(residual, name), 16, 1 - gone) for name, gone in deep.items()}
    return found


def perceptron(units: int, kind: dict[str, Any] | None) -> Any:
    import keras

    from keras_dropout import place

    layers = keras.layers
    stack = [layers.Dense(units, "relu"), layers.Dense(units, "relu"), layers.Dense(10)]
    return place(keras.Sequential([keras.Input((784,)), *stack]), {"hidden": kind} if kind else {})


def residual(name: str) -> Any:
    import keras

    from keras_dropout import LayerDrop, RandomLTD, linear_decay

    layers = keras.layers

    def block() -> Any:
        inputs = keras.Input((None, FEATURES))
        return keras.Model(inputs, inputs + layers.Dense(FEATURES)(layers.Dense(4 * FEATURES, "relu")(inputs)))

    around: dict[str, Callable] = {
        "none": lambda number, layer: layer,
        "LayerDrop(skip=True, scaled=True), to .5": lambda number, layer: LayerDrop(
            linear_decay(RATE, DEPTH)[number], layer, skip=True, scaled=True
        ),
        "LayerDrop(.2, skip=True)": lambda number, layer: LayerDrop(0.2, layer, skip=True),
        "RandomLTD(.5)": lambda number, layer: RandomLTD(RATE, layer),
    }
    x = inputs = keras.Input((TOKENS, FEATURES))
    for number in range(DEPTH):
        x = around[name](number, block())(x)
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


def started(make: Callable[[], Any], batch: int) -> tuple[Any, Any, Any]:
    """Return a compiled model, and data for it."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(1)
    model, generator = make(), np.random.default_rng(0)
    model.compile(keras.optimizers.Adam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = generator.normal(size=(batch * STEPS, *model.input_shape[1:])).astype("float32")
    return model, x, generator.integers(0, 10, batch * STEPS).astype("int32")


def compiled(make: Callable[[], Any], batch: int) -> Callable[[], Any]:
    """Return a turn of the compiled engine."""
    import numpy as np

    from keras_dropout.bench.data.dataset import Part
    from keras_dropout.bench.records import Variant
    from keras_dropout.bench.training.compiled import CompiledPrograms, followed

    model, *data = started(make, batch)
    training = CompiledPrograms({"train": Part(*data)}, batch, 1).start(model, Variant("x", None))
    order, rates = np.arange(batch * STEPS, dtype="int32"), np.tile(np.array(followed(model, {}), "float32"), (STEPS, 1))
    return lambda: training._train(order, rates)


def fitted(make: Callable[[], Any], batch: int) -> Callable[[], Any]:
    """Return a turn of Keras's `fit`."""
    model, x, y = started(make, batch)
    return lambda: model.fit(x, y, batch_size=batch, shuffle=False, verbose=0)


def measure(network: str, start: Callable, turns: int, clock: Callable[[], float]) -> dict[str, tuple[float, float]]:
    """Return the milliseconds of a step of each training, and the share of products left: each has a turn, again and again."""
    asked = trainings()[network]
    running = {name: start(make, batch) for name, (make, batch, _) in asked.items()}
    spent: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(turns + 1):
        for name, train in running.items():
            begin = clock()
            train()
            if turn:  # the first compiles
                spent[name].append((clock() - begin) / STEPS * 1000)
    # What is skipped at random differs from turn to turn: the least time would be that of most skipped.
    one = {name: median(each) if "skip" in name else min(each) for name, each in spent.items()}
    return {name: (one[name], asked[name][2]) for name in asked}


def rows(training: str, start: Callable) -> list[dict[str, Any]]:
    turns, clock = (3 if "--quick" in sys.argv else 5), (time.process_time if "--cpu-time" in sys.argv else time.perf_counter)
    found = []
    for network in (*PERCEPTRONS, DEEP):
        measured = measure(network, start, turns, clock)
        for name, (milliseconds, limit) in measured.items():
            ratio = milliseconds / measured["none"][0]
            row = {"training": training, "network": network, "dropout": name, "milliseconds": milliseconds, "ratio": ratio}
            found.append(row | {"limit": limit})
            print(f"{training:16} {network} {name:42} {milliseconds:8.2f} ms {ratio:6.2f} (limit {limit:.2f})", flush=True)
    return found


def of_process(what: str, **environment: str) -> list[dict[str, Any]]:
    import json

    process = [sys.executable, __file__, "--of", what, *(each for each in ("--quick", "--cpu-time") if each in sys.argv)]
    done = subprocess.run(process, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True)
    *shown, last = done.stdout.splitlines()
    print(*shown, sep="\n", flush=True)
    return json.loads(last)


def main() -> None:
    import json

    if "--of" in sys.argv:
        what = sys.argv[sys.argv.index("--of") + 1]
        print(json.dumps(rows(what, compiled if what == "compiled engine" else fitted)))
        return
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    found = of_process("compiled engine", KERAS_BACKEND="jax", XLA_FLAGS=flags, NPROC="1")
    for backend in BACKENDS[:1] if "--quick" in sys.argv else BACKENDS:
        found += of_process(f"fit, {backend}", KERAS_BACKEND=backend, TF_CPP_MIN_LOG_LEVEL="3")
    write("saving", found)


if __name__ == "__main__":
    main()
