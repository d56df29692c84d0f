"""Masks on TensorFlow: unsigned 32-bit words, compiled by XLA wherever they are called from.

Op by op the hash would be twice as slow as TensorFlow's dropout; as a compiled function, also in eager code, five times as fast.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_dropout import masks
from keras_dropout.masks import POSITIONS, Words, call_key

WORDS = Words(
    constant=lambda n: tf.constant(n, tf.uint32),
    shift_right=lambda x, n: tf.bitwise.right_shift(x, tf.constant(n, tf.uint32)),
)


def draws(state: tf.Tensor, shape: tuple[int | tf.Tensor, ...], like: tf.Tensor | None = None) -> tf.Tensor:
    if all(isinstance(n, int) for n in shape):
        return _compiled_draws(tuple(shape))(state)
    return _draws(state, shape)


@functools.cache
def _compiled_draws(shape: tuple[int, ...]) -> Callable:
    return tf.function(lambda state: _draws(state, shape), jit_compile=True, autograph=False)


def _draws(state: tf.Tensor, shape: tuple[int | tf.Tensor, ...]) -> tf.Tensor:
    size = tf.reduce_prod(tf.cast(shape, tf.int64))
    position = tf.reshape(tf.range(size), shape)
    known = all(isinstance(n, int) for n in shape)
    small = known and int(np.prod(shape, dtype=object)) <= POSITIONS
    high = None if small else tf.cast(tf.bitwise.right_shift(position, tf.constant(32, tf.int64)), tf.uint32)
    return masks.draws(tf.cast(position, tf.uint32), call_key(state, WORDS), WORDS, high)


def draws_at(state: tf.Tensor, low: tf.Tensor, high: tf.Tensor | None = None) -> tf.Tensor:
    high = None if high is None else tf.cast(high, tf.uint32)
    return masks.draws(tf.cast(low, tf.uint32), call_key(state, WORDS), WORDS, high)


def fold(state: tf.Tensor, number: tf.Tensor | int) -> tf.Tensor:
    return tf.stack([*call_key(state, WORDS), tf.cast(number, tf.uint32)])


def recomputed(apply: Callable, x: tf.Tensor, tensors: tuple, *, pointwise: bool, **static: Any) -> tf.Tensor:
    return _product(apply, **static)(tf.convert_to_tensor(x), *tensors)


def compiled(function: Callable, seldom: bool = False) -> Callable:
    return tf.function(function, autograph=False, reduce_retracing=True)


@functools.cache
def _product(apply: Callable, **static: Any) -> Callable:
    # A separate function: for a partial one, TensorFlow would inspect each fixed argument again in every call.
    @tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
    def compiled(x: tf.Tensor, *tensors: tf.Tensor) -> tf.Tensor:
        return apply(x, *tensors, **static)

    @tf.custom_gradient
    def product(x: tf.Tensor, *tensors: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return compiled(x, *tensors), lambda upstream: (compiled(upstream, *tensors), *[None] * len(tensors))

    return product


def seeded() -> contextlib.AbstractContextManager:
    """See `keras_dropout.backends`."""
    return contextlib.nullcontext()
