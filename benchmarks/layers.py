"""Every layer against the best-known way to do the same, on each backend: how many times as fast it is.

The other is Keras's own layer where there is one, torch's, timm's if installed, else the usual implementation, written here in a
few lines. All are measured in turn in one run, each backend in a process of its own; figures are medians. "compiled" is jax.jit,
tf.function(jit_compile=True) or torch.compile; "eager" is a plain call. Backward comes with its forward. `ratio` is the other's
time divided by ours: above 1 ours is faster.

On a machine that others use too, --cpu-time tells more: the processor's time on one core, in which waiting does not count.

A new layer is one row of `rows`.
Run: python benchmarks/layers.py [--backend jax|tensorflow|torch] [--quick] [--only NAME] [--cpu-time] [--json FILE]
"""

import argparse
import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from keras import ops
from report import write
from timing import BACKENDS, CLOCK, medians, on_each_backend

import keras_dropout

BACKEND = keras.backend.backend()
RATE = 0.2
UNITS = {"small": (128, 200), "large": (32 * 1024, 1024), "quick": (512, 1024)}
SEQUENCES = {"small": (32, 20, 64), "large": (64, 1024, 256), "quick": (16, 64, 64)}
MAPS = {"small": (8, 8, 8, 16), "large": (64, 32, 32, 256), "quick": (8, 16, 16, 32)}
VOLUMES = {"small": (4, 6, 6, 6, 16), "large": (16, 8, 32, 32, 64), "quick": (4, 8, 8, 8, 16)}
# How a backend is used: torch.compile takes seconds a program, and is left to large inputs.
MODES = {
    "jax": (("compiled", "large"), ("compiled", "small"), ("eager", "small")),
    "tensorflow": (("compiled", "large"), ("compiled", "small"), ("eager", "large"), ("eager", "small")),
    "torch": (("compiled", "large"), ("eager", "large"), ("eager", "small")),
}


@dataclass(frozen=True)
class Contestant:
    """A function of the inputs, and the variables that it changes."""

    call: Callable[[Any], Any]
    variables: list = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """A layer of ours: the class, how it is made, on inputs of which shapes, and what else does the same, by name."""

    name: str
    make: Callable[[type], keras.Layer]
    shapes: dict[str, tuple]
    others: dict[str, Callable[[], Contestant]]


def rows() -> list[Row]:
    """The table."""
    return [
        Row("Dropout", plain, UNITS, stock("Dropout") | torch_nn("Dropout")),
        Row("GaussianDropout", plain, UNITS, stock("GaussianDropout")),
        Row("AlphaDropout", plain, UNITS, stock("AlphaDropout") | torch_nn("AlphaDropout")),
        Row("FeatureAlphaDropout", plain, MAPS, usual(feature_alpha) | torch_nn("FeatureAlphaDropout")),
        Row("SpatialDropout1D", plain, SEQUENCES, stock("SpatialDropout1D") | torch_nn("Dropout1d")),
        Row("SpatialDropout2D", plain, MAPS, stock("SpatialDropout2D") | torch_nn("Dropout2d")),
        Row("SpatialDropout3D", plain, VOLUMES, stock("SpatialDropout3D") | torch_nn("Dropout3d")),
        Row("DropBlock1D", blocks, SEQUENCES, usual(drop_block)),
        Row("DropBlock2D", blocks, MAPS, usual(drop_block) | timm_drop_block()),
        Row("DropBlock3D", blocks, VOLUMES, usual(drop_block)),
        Row("Cutout", lambda layer: layer(1.0, size=BLOCK, seed=1), MAPS, usual(cutout)),
        Row("PatchDropout", plain, SEQUENCES, usual(patches) | timm_patches()),
        Row("StochasticDepth", plain, MAPS, usual(drop_path) | timm_drop_path()),
        Row("ScheduledDropPath", lambda layer: layer(RATE, steps=1000, seed=1), MAPS, usual(drop_path)),
        Row("ShakeDrop", plain, MAPS, usual(shake)),
        Row("LayerDrop", lambda layer: layer(RATE, keras.layers.Rescaling(3.0), seed=1), MAPS, usual(layer_drop)),
        Row("TokenDropout", plain, SEQUENCES, usual(drop_tokens)),
        Row("DropConnect", connections, UNITS, usual(drop_connect)),
    ]


BLOCK = 5


def plain(layer: type) -> keras.Layer:
    return layer(RATE, seed=1)


def blocks(layer: type) -> keras.Layer:
    return layer(RATE, block_size=BLOCK, seed=1)


def connections(layer: type) -> keras.Layer:
    return layer(RATE, keras.layers.Dense(256, use_bias=False), per="batch", seed=1)


# What ours is compared with: tables of one entry each, empty where the other is not to be had.


def stock(name: str) -> dict[str, Callable]:
    return {f"keras.layers.{name}": lambda: of_layer(getattr(keras.layers, name)(RATE, seed=1))}


def torch_nn(name: str) -> dict[str, Callable]:
    """torch's own layer, which has the channels behind the examples."""

    def make() -> Contestant:
        import torch

        layer = getattr(torch.nn, name)(RATE)
        if name in ("Dropout", "AlphaDropout"):
            return Contestant(layer)
        return Contestant(lambda x: layer(x.movedim(-1, 1)).movedim(1, -1))

    return {f"torch.nn.{name}": make} if BACKEND == "torch" else {}


def timm_drop_path() -> dict[str, Callable]:
    return timm("drop_path", lambda layers: lambda x: layers.drop_path(x, RATE, training=True))


def timm_drop_block() -> dict[str, Callable]:
    def make(layers: Any) -> Callable:
        drop = layers.DropBlock2d(RATE, block_size=BLOCK).train()
        return lambda x: drop(x.movedim(-1, 1)).movedim(1, -1)

    return timm("DropBlock2d", make)


def timm_patches() -> dict[str, Callable]:
    return timm("PatchDropout", lambda layers: layers.PatchDropout(RATE).train())


def timm(name: str, make: Callable) -> dict[str, Callable]:
    if BACKEND != "torch" or importlib.util.find_spec("timm") is None:
        return {}
    return {f"timm {name}": lambda: Contestant(make(importlib.import_module("timm.layers")))}


def usual(function: Callable) -> dict[str, Callable]:
    """The usual implementation: a function of the inputs and a seed generator."""

    def make() -> Contestant:
        generator = keras.random.SeedGenerator(1)
        return Contestant(lambda x: function(x, generator), [generator.state])

    return {f"usual: {function.__doc__}": make}


def of_layer(layer: keras.Layer) -> Contestant:
    return Contestant(lambda x: layer(x, training=True), layer.variables)


def kept(shape: tuple, seed: Any, rate: float = RATE) -> Any:
    return ops.cast(keras.random.uniform(shape, seed=seed) >= rate, "float32")


def one_each(x: Any) -> tuple:
    return (x.shape[0],) + (1,) * (len(x.shape) - 1)


def drop_path(x, seed):
    """one draw per example"""
    return x / (1 - RATE) * kept(one_each(x), seed)


def layer_drop(x, seed):
    """one draw per call"""
    return ops.where(kept((1,) * len(x.shape), seed) > 0, 3.0 * x, x)


def drop_tokens(x, seed):
    """one draw per token"""
    return x / (1 - RATE) * kept((*x.shape[:2], 1), seed)


def feature_alpha(x, seed):
    """alpha, one draw per channel"""
    mask, low = kept((x.shape[0], *[1] * (len(x.shape) - 2), x.shape[-1]), seed), -1.7580993408473766
    scale = ((1 - RATE) * (1 + RATE * low**2)) ** -0.5
    return scale * (x * mask + low * (1 - mask)) - scale * RATE * low


def drop_block(x, seed):
    """seeds, then max pooling"""
    spatial = x.shape[1:-1]
    gamma = RATE / BLOCK ** len(spatial)
    for n in spatial:
        gamma *= n / (n - BLOCK + 1)
    dropped = 1 - kept(tuple(x.shape), seed, gamma)
    mask = 1 - ops.max_pool(dropped, BLOCK, strides=1, padding="same", data_format="channels_last")
    return x * mask * (float(np.prod(x.shape)) / ops.sum(mask))


def cutout(x, seed):
    """a mask from drawn centres"""
    inside = True
    for axis, shape in ((1, (-1, x.shape[1], 1, 1)), (2, (-1, 1, x.shape[2], 1))):
        first = ops.floor(keras.random.uniform((x.shape[0], 1), seed=seed) * x.shape[axis]) - BLOCK // 2
        index = ops.arange(x.shape[axis], dtype="float32")[None]
        within = ops.logical_and(index >= first, index < first + BLOCK)
        inside = ops.logical_and(inside, ops.reshape(within, shape))
    return ops.where(inside, 0.0, x)


def patches(x, seed):
    """argsort of noise, then take"""
    count = round((x.shape[1] - 1) * (1 - RATE))
    chosen = ops.argsort(keras.random.uniform((x.shape[0], x.shape[1] - 1), seed=seed), axis=1)[:, :count] + 1
    return ops.concatenate([x[:, :1], ops.take_along_axis(x, chosen[..., None], axis=1)], axis=1)


def shake(x, seed):
    """three draws per example"""
    whole, shape = kept(one_each(x), seed), one_each(x)
    forward = whole + (1 - whole) * keras.random.uniform(shape, -1, 1, seed=seed)
    backward = whole + (1 - whole) * keras.random.uniform(shape, seed=seed)
    return ops.stop_gradient(x * (forward - backward)) + x * backward


def drop_connect(x, seed):
    """one mask for the kernel"""
    return ops.matmul(x, kept((x.shape[-1], 256), seed) * (0.01 / (1 - RATE)))


# How a contestant is called: a function of the inputs that does all of a step, to be called again and again.


def prepared(contestant: Contestant, mode: str, backward: bool) -> Callable:
    return {"jax": _in_jax, "tensorflow": _in_tensorflow, "torch": _in_torch}[BACKEND](contestant, mode, backward)


def _in_jax(contestant: Contestant, mode: str, backward: bool) -> Callable:
    import jax

    if mode == "eager":
        return contestant.call

    def stateless(x, states):
        with keras.StatelessScope(list(zip(contestant.variables, states))) as scope:
            y = contestant.call(x)
        return y, [scope.get_current_value(variable) for variable in contestant.variables]

    @jax.jit
    def compiled(x, states):
        if not backward:
            return stateless(x, states)
        y, pull, states = jax.vjp(lambda x: stateless(x, states), x, has_aux=True)
        return (y, pull(y)), states

    states = [variable.value for variable in contestant.variables]

    def run(x):
        nonlocal states
        results, states = compiled(x, states)
        return results

    return run


def _in_tensorflow(contestant: Contestant, mode: str, backward: bool) -> Callable:
    import tensorflow as tf

    def step(x):
        if not backward:
            return contestant.call(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = contestant.call(x)
        return y, tape.gradient(y, x, output_gradients=y)

    return tf.function(step, jit_compile=True, autograph=False) if mode == "compiled" else step


def _in_torch(contestant: Contestant, mode: str, backward: bool) -> Callable:
    import torch

    forward = torch.compile(contestant.call) if mode == "compiled" else contestant.call

    def step(x):
        if not backward:
            return forward(x)
        x = x.detach().requires_grad_()
        y = forward(x)
        return y, torch.autograd.grad(y, x, y.detach())

    return step


def wait(result: Any) -> None:
    """Until it is there. All but JAX's is already, on a CPU."""
    if BACKEND == "jax":
        import jax

        jax.block_until_ready(result)


def measure(row: Row, mode: str, size: str, backward: bool, rounds: int) -> list[dict]:
    """A row for each other: its time and ours."""
    shape = row.shapes[size]
    x = ops.convert_to_tensor(np.random.default_rng(0).normal(size=shape).astype("float32"))
    layer = row.make(getattr(keras_dropout, row.name))
    layer(x)  # builds it, if it is one to be built
    contestants = {"ours": of_layer(layer)} | {name: make() for name, make in row.others.items()}
    runs = {}
    for name, contestant in contestants.items():
        run = prepared(contestant, mode, backward)
        try:
            wait(run(x))
        except Exception as error:  # an equivalent that its framework cannot compile is no contestant
            if name == "ours":
                raise
            print(f"{BACKEND:11}{row.name:20}{mode:9}{size:6} {name} cannot: {type(error).__name__}", flush=True)
            continue
        runs[name] = lambda run=run: run(x)
    seconds = medians(runs, wait, rounds, least=0.002)
    ours, elements = seconds.pop("ours"), float(np.prod(shape))
    found = []
    for name, other in seconds.items():
        found.append(
            {
                "layer": row.name,
                "backend": BACKEND,
                "clock": CLOCK,
                "mode": mode,
                "shape": list(shape),
                "pass": "forward+backward" if backward else "forward",
                "other": name,
                "ours_ns_per_element": ours / elements * 1e9,
                "other_ns_per_element": other / elements * 1e9,
                "ratio": other / ours,
            }
        )
        way = "both" if backward else "forward"
        figures = f"{ours / elements * 1e9:9.3f} ns/element{other / ours:8.2f} x"
        print(f"{BACKEND:11}{row.name:20}{mode:9}{size:6} {way:8}{figures}  {name}", flush=True)
    return found


def measure_all(quick: bool, only: str) -> list[dict]:
    found = []
    for row in rows():
        if only and row.name != only:
            continue
        for mode, size in MODES[BACKEND]:
            if quick and (mode, size) == ("compiled", "large") and BACKEND == "torch":
                continue
            for backward in (False,) if (BACKEND, mode) == ("jax", "eager") else (False, True):
                size_now = "quick" if quick and size == "large" else size
                found += measure(row, mode, size_now, backward, rounds=3 if quick else 7)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of every layer; see the top of this file.")
    parser.add_argument("--backend", choices=BACKENDS)
    parser.add_argument("--quick", action="store_true", help="smaller inputs and fewer rounds, to see that it runs")
    parser.add_argument("--only", default="", help="one layer")
    parser.add_argument("--cpu-time", action="store_true", help="the processor's time on one core instead of the clock's")
    parser.add_argument("--json", help="where to write the figures")
    parser.add_argument("--rows", help=argparse.SUPPRESS)  # the process of one backend
    chosen = parser.parse_args()
    if chosen.rows:
        Path(chosen.rows).write_text(json.dumps(measure_all(chosen.quick, chosen.only)))
        return
    arguments = [*(["--quick"] if chosen.quick else []), *(["--only", chosen.only] if chosen.only else [])]
    backends = (chosen.backend,) if chosen.backend else BACKENDS
    write("layers", on_each_backend(__file__, backends, *arguments, cpu_time=chosen.cpu_time))


if __name__ == "__main__":
    main()
