"""The dropout product on 32 million float32, compiled: ours, a plain product, and dropout from the backend's own generators.

All are measured in turn in one run, each backend in a process of its own; figures are medians. Under JAX "in place" gives the
memory of the input to the output, as in a compiled training step; "new output" pays for fresh memory each time, which costs more
than the arithmetic. "eager" is what users of torch call.
Run: python benchmarks/dropout_product.py [--backend jax|tensorflow|torch] [--cpu-time] [--json FILE]
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from report import write
from timing import BACKENDS, CLOCK, medians, on_each_backend

from keras_dropout.masks import Stream
from keras_dropout.noise import bernoulli_product

BACKEND = keras.backend.backend()
SHAPE = (32 * 1024, 1024)
ROUNDS = 15
RATE = 0.2
PRODUCT, OURS = "x * 1.25", "keras_dropout, hash"


def in_jax() -> dict[str, dict[str, Callable]]:
    import jax
    import jax.numpy as jnp

    def bernoulli(key):
        return lambda x, rate: jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)

    state, rate = Stream(1).next(), jnp.float32(RATE)
    products = {
        PRODUCT: lambda x, rate: x * 1.25,
        OURS: lambda x, rate: bernoulli_product(x, state, rate, x.shape),
        "jax.random.bernoulli, threefry2x32": bernoulli(jax.random.key(0)),
        "jax.random.bernoulli, philox4x32": bernoulli(jax.random.key(0, impl="philox4x32")),
    }
    held = {"x": jnp.ones(SHAPE)}

    def run(product, in_place):
        jitted = jax.jit(product, donate_argnums=0 if in_place else ())

        def call():
            y = jax.block_until_ready(jitted(held["x"], rate))
            held["x"] = y if in_place else held["x"]

        return call

    return {
        way: {name: run(product, way == "in place") for name, product in products.items()} for way in ("in place", "new output")
    }


def in_tensorflow() -> dict[str, dict[str, Callable]]:
    import tensorflow as tf

    x, rate, state, seed = tf.ones(SHAPE), tf.constant(RATE), Stream(1).next(), tf.constant([1, 2])
    products = {
        PRODUCT: lambda x: x * 1.25,
        OURS: lambda x: bernoulli_product(x, state, rate, SHAPE),
        "stateless_dropout": lambda x: tf.nn.experimental.stateless_dropout(x, RATE, seed=seed),
    }
    compiled = {name: tf.function(product, jit_compile=True, autograph=False) for name, product in products.items()}
    ways = {"XLA": compiled, "eager": products}
    return {way: {name: lambda f=f: f(x) for name, f in functions.items()} for way, functions in ways.items()}


def in_torch() -> dict[str, dict[str, Callable]]:
    import torch

    x, rate, state = torch.ones(SHAPE), torch.tensor(RATE), Stream(1).next()
    products = {
        PRODUCT: lambda x: x * 1.25,
        OURS: lambda x: bernoulli_product(x, state, rate, SHAPE),
        "F.dropout": lambda x: torch.nn.functional.dropout(x, RATE),
    }
    compiled = {name: torch.compile(product) for name, product in products.items()}
    ways = {"compiled": {**compiled, "F.dropout, eager": products["F.dropout"]}, "eager": products}
    return {way: {name: lambda f=f: f(x) for name, f in functions.items()} for way, functions in ways.items()}


def measure() -> list[dict]:
    rows = []
    for way, contestants in {"jax": in_jax, "tensorflow": in_tensorflow, "torch": in_torch}[BACKEND]().items():
        found = medians(contestants, lambda result: result, ROUNDS, least=0)
        for name, seconds in found.items():
            per_element = seconds / np.prod(SHAPE, dtype=float) * 1e9
            ratio, faster = seconds / found[PRODUCT], seconds / found[OURS]
            rows.append({"backend": BACKEND, "way": way, "product": name, "clock": CLOCK, "ns_per_element": per_element})
            rows[-1] |= {"to_product": ratio, "to_ours": faster}
            figures = f"{per_element:7.3f} ns/element  {ratio:6.2f} x the product  {faster:6.2f} x ours"
            print(f"{BACKEND:11}{way:11} {name:36} {figures}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the dropout product; see the top of this file.")
    parser.add_argument("--backend", choices=BACKENDS)
    parser.add_argument("--cpu-time", action="store_true", help="the processor's time on one core instead of the clock's")
    parser.add_argument("--json", help="where to write the figures")
    parser.add_argument("--rows", help=argparse.SUPPRESS)  # the process of one backend
    chosen = parser.parse_args()
    if chosen.rows:
        Path(chosen.rows).write_text(json.dumps(measure()))
        return
    backends = (chosen.backend,) if chosen.backend else BACKENDS
    write("dropout_product", on_each_backend(__file__, backends, cpu_time=chosen.cpu_time))


if __name__ == "__main__":
    main()
