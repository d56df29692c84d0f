"""The random operations of the layers, written once for all backends on top of the draws of `keras_dropout.backends`.

`state` comes from `masks.Stream.next`, a fresh one for each call (or from `fold(state, n)`, sub-stream n of a call). `rate` is a
Python number or a float32 scalar tensor; a number costs nothing where each operation is a call. Shapes are tuples, with a
symbolic size where TensorFlow has one. A shape of 1 along an axis shares the draw along it. `like` is the tensor whose entries the
draws are for, if there is one: from it JAX learns which part of the whole a device holds inside `shard_map`.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dropout import backends
from keras_dropout.masks import LEVELS


def bernoulli_product(x: Any, state: Any, rate: Any, shape: tuple, *, scaled: bool = True) -> Any:
    """Return x * m / (1 - rate) with m ~ Bernoulli(1 - rate) of `shape`, or x * m if not `scaled`.

    A selection removes dropped entries, so a dropped nan or inf becomes 0. The backward pass keeps nothing of x's size.
    """
    return product(_bernoulli, x, state, rate, shape, pointwise=True, scaled=scaled)


def bernoulli_product_at(x: Any, state: Any, rates: Any, shape: tuple) -> Any:
    """Return `bernoulli_product` with a rate for each draw: `rates` broadcasts to `shape`, and gets no gradient.

    Where a rate is not in [0, 1], the result is nan: in a compiled step nobody could be told otherwise.
    """
    return product(_bernoulli_at, x, state, rates, shape)


def gaussian_product(x: Any, state: Any, rate: Any, shape: tuple) -> Any:
    """Return x * e with e ~ N(1, rate / (1 - rate)) of `shape`, rate < 1; the backward pass keeps nothing of x's size."""
    return product(_gaussian, x, state, rate, shape, pointwise=True)


def product(apply: Callable, x: Any, state: Any, rate: Any, shape: tuple, *, pointwise: bool = False, **options: Any) -> Any:
    """Return `apply(x, state, rate, shape, **options)`, which multiplies each element of x by a factor that x does not decide.

    The backward pass calls `apply` again on the upstream gradient, so that nothing of x's size is kept. `apply` must be a function
    of a module, with hashable options. A symbolic size in `shape` is x's own. `pointwise` says that it may be called on parts of x:
    it draws once, `backends.current().draws(state, shape, x)`, and multiplies each element by a function of its own draw.
    """
    known = tuple(n if isinstance(n, int) else None for n in shape)
    x, tensors = ops.convert_to_tensor(x), (state, ops.convert_to_tensor(rate, "float32"))
    return backends.current().recomputed(_with_sizes, x, tensors, pointwise=pointwise, factor=apply, shape=known, **options)


def kept(state: Any, rate: Any, shape: tuple, like: Any = None) -> Any:
    """Return a mask: true with probability 1 - rate, for each entry of `shape`."""
    return _reaches(backends.current().draws(state, tuple(shape), like), _level(rate))


def kept_at(state: Any, rate: Any, low: Any, high: Any = None) -> Any:
    """Return the mask of `kept` for the entries at the positions high * 2**32 + low: equal positions have equal draws.

    `low` and `high` are whole numbers that broadcast to each other. A lookup in a table thus needs no mask of the table's size.
    """
    return _reaches(backends.current().draws_at(state, low, high), _level(rate))


def kept_in_part(state: Any, rate: Any, shape: tuple, allowed: Any = None) -> Any:
    """Return a mask as `kept` does, with at least one entry kept along the last axis: if all would go, the highest draw stays.

    The entry that stays is among those `allowed` (a mask of `shape`), if any is allowed.
    """
    draws = uniform(state, shape)
    ranked = draws if allowed is None else ops.where(allowed, draws, -1.0)
    return ops.logical_or(draws >= ops.cast(rate, "float32"), ranked >= ops.max(ranked, axis=-1, keepdims=True))


def masked(x: Any, kept: Any, scale: Any = 1) -> Any:
    """Return x * scale where `kept`, else 0, in x's dtype; the product with the scale is in float32 or better."""
    real = keras.backend.result_type(x.dtype, "float32")
    return ops.where(kept, ops.cast(ops.cast(x, real) * ops.cast(scale, real), x.dtype), ops.zeros((), x.dtype))


def scale(rate: Any, dtype: str = "float32") -> Any:
    """Return 1 / (1 - rate) for the actual rate of the masks, a multiple of 2**-24; finite at rate 1, where nothing is kept."""
    level = _level(rate)
    return LEVELS / (max(LEVELS - level, 1) if isinstance(level, int) else ops.maximum(LEVELS - ops.cast(level, dtype), 1))


def uniform(state: Any, shape: tuple, like: Any = None) -> Any:
    """Return float32 draws in [0, 1), in steps of 2**-24."""
    return ops.cast(backends.current().draws(state, tuple(shape), like), "float32") / LEVELS


def normal(state: Any, shape: tuple, like: Any = None) -> Any:
    """Return float32 normal draws of mean 0 and variance 1."""
    return math.sqrt(2) * ops.erfinv(_symmetric(backends.current().draws(state, tuple(shape), like)))


def logistic(state: Any, shape: tuple) -> Any:
    """Return float32 draws log(u / (1 - u)) of a uniform u, always finite."""
    return 2 * ops.arctanh(_symmetric(backends.current().draws(state, tuple(shape))))


def fold(state: Any, number: Any) -> Any:
    """Return the state of sub-stream `number` of one call: independent of the others and of the call's own draws."""
    return backends.current().fold(state, number)


def _with_sizes(x: Any, state: Any, rate: Any, *, factor: Callable, shape: tuple, **options: Any) -> Any:
    sizes = tuple(n if m is None else m for m, n in zip(shape, ops.shape(x))) if None in shape else shape
    return factor(x, state, rate, sizes, **options)


def _bernoulli(x: Any, state: Any, rate: Any, shape: tuple, *, scaled: bool) -> Any:
    kept = _reaches(backends.current().draws(state, shape, x), _level(rate))
    if scaled:
        real = keras.backend.result_type(x.dtype, "float32")
        x = ops.cast(ops.cast(x, real) * scale(rate, real), x.dtype)
    return ops.where(kept, x, ops.zeros((), x.dtype))


def _bernoulli_at(x: Any, state: Any, rates: Any, shape: tuple) -> Any:
    valid = ops.logical_and(rates >= 0, rates <= 1)
    product = _bernoulli(x, state, ops.where(valid, rates, 0.0), shape, scaled=True)
    return ops.where(valid, product, ops.full((), float("nan"), x.dtype))


def _gaussian(x: Any, state: Any, rate: Any, shape: tuple) -> Any:
    real = keras.backend.result_type(x.dtype, "float32")
    variance = 2 * rate / (1 - rate)
    spread = math.sqrt(variance) if isinstance(variance, float) else ops.cast(ops.sqrt(variance), real)
    noise = spread * ops.cast(ops.erfinv(_symmetric(backends.current().draws(state, shape, x))), real)
    return ops.cast(ops.cast(x, real) * (1 + noise), x.dtype)


def _level(rate: Any) -> Any:
    if isinstance(rate, (int, float)):
        return round(float(np.float32(rate)) * LEVELS)
    return ops.round(ops.cast(rate, "float32") * LEVELS)


def _reaches(draws: Any, level: Any) -> Any:
    return draws >= (level if isinstance(level, int) else ops.cast(level, draws.dtype))


def _symmetric(draws: Any) -> Any:
    """Return draws as odd multiples of 2**-24 in (-1, 1), all of them exact in float32."""
    return ops.cast(2 * ops.cast(draws, "int32") + (1 - LEVELS), "float32") / LEVELS
