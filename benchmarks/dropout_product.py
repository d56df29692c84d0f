"""The dropout product on 32 million float32, JAX jitted: ours, a product, and dropout from JAX's own generators.

All are measured in turn in one run; figures are medians, and ratios are to the plain product. "In place" gives the memory of the
input to the output, as in a compiled training step; "new output" pays for fresh memory each time, which costs more than the
arithmetic. Run: python benchmarks/dropout_product.py [--json FILE]
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import statistics
import time

import jax
import jax.numpy as jnp
from report import write

from keras_dropout.noise import bernoulli_product

SHAPE = (32 * 1024, 1024)
ROUNDS = 15


def bernoulli(key):
    def product(x, rate):
        return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)

    return product


STATE = jnp.array([1, 2, 3], "uint32")
PRODUCTS = {
    "x * 1.25": lambda x, rate: x * 1.25,
    "keras_dropout, hash": lambda x, rate: bernoulli_product(x, STATE, rate, x.shape),
    "jax.random.bernoulli, threefry2x32": bernoulli(jax.random.key(0)),
    "jax.random.bernoulli, philox4x32": bernoulli(jax.random.key(0, impl="philox4x32")),
}


def medians(in_place: bool) -> dict[str, float]:
    """Seconds of each product."""
    jitted = {name: jax.jit(product, donate_argnums=0 if in_place else ()) for name, product in PRODUCTS.items()}
    x, rate, seconds = jnp.ones(SHAPE), jnp.float32(0.2), {name: [] for name in PRODUCTS}
    for round_ in range(ROUNDS + 1):
        for name, product in jitted.items():
            start = time.perf_counter()
            y = jax.block_until_ready(product(x, rate))
            if round_:  # the first call compiles
                seconds[name].append(time.perf_counter() - start)
            x = y if in_place else x
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    rows = []
    for label, in_place in (("in place", True), ("new output", False)):
        found = medians(in_place)
        for name, seconds in found.items():
            per_element = seconds / (SHAPE[0] * SHAPE[1]) * 1e9
            ratio, faster = seconds / found["x * 1.25"], seconds / found["keras_dropout, hash"]
            rows.append({"memory": label, "product": name, "ns_per_element": per_element, "to_product": ratio, "to_ours": faster})
            print(f"{label:11} {name:36} {per_element:7.3f} ns/element  {ratio:6.2f} x the product  {faster:6.2f} x ours")
    write("dropout_product", rows)


if __name__ == "__main__":
    main()
