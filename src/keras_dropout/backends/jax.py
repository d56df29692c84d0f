"""Masks on JAX: unsigned 32-bit words in one fused kernel, even when called outside `jit`.

Inside `shard_map`, an input that varies over mesh axes counts as split along its first axis, in the order of the mesh's axes:
each position then has the mask that it has on one device. (With `check_vma=False` JAX does not say what varies.)
"""

import contextlib
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from keras_dropout import masks
from keras_dropout.errors import refuse
from keras_dropout.masks import POSITIONS, Words, call_key

WORDS = Words(constant=jnp.uint32, shift_right=lambda x, n: x >> jnp.uint32(n))


@partial(jax.jit, static_argnames="shape")
def draws(state: jax.Array, shape: tuple[int, ...], like: jax.Array | None = None) -> jax.Array:
    low, high = _positions(shape, _shard_axes(shape, like))
    return masks.draws(low, call_key(state, WORDS), WORDS, high)


@jax.jit
def draws_at(state: jax.Array, low: jax.Array, high: jax.Array | None = None) -> jax.Array:
    high = None if high is None else high.astype(jnp.uint32)
    return masks.draws(low.astype(jnp.uint32), call_key(state, WORDS), WORDS, high)


@jax.jit
def fold(state: jax.Array, number: jax.Array | int) -> jax.Array:
    return jnp.stack([*call_key(state, WORDS), jnp.asarray(number, jnp.uint32)])


def recomputed(apply: Callable, x: jax.Array, tensors: tuple, *, pointwise: bool, **static: Any) -> jax.Array:
    return _recomputed(apply, tuple(static.items()), jnp.asarray(x), tensors)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(apply: Callable, static: tuple, x: jax.Array, tensors: tuple) -> jax.Array:
    return apply(x, *tensors, **dict(static))


_recomputed = jax.jit(_product, static_argnums=(0, 1))


def _forward(apply: Callable, static: tuple, x: jax.Array, tensors: tuple) -> tuple[jax.Array, tuple]:
    return _recomputed(apply, static, x, tensors), tensors


def _backward(apply: Callable, static: tuple, tensors: tuple, upstream: jax.Array) -> tuple[jax.Array, None]:
    return _recomputed(apply, static, upstream, tensors), None


_product.defvjp(_forward, _backward)


def compiled(function: Callable, seldom: bool = False) -> Callable:
    return jax.jit(function, compiler_options=_quickly() if seldom else None)


@cache
def _quickly() -> dict[str, Any] | None:
    """Return compiler options for a program that runs seldom, or None if this version of XLA lacks one: its names may change."""
    options = {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_use_fusion_emitters": False,
        "xla_cpu_parallel_codegen_split_count": 1,
    }
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return options


def _positions(shape: tuple[int, ...], axes: tuple[str, ...]) -> tuple[jax.Array, jax.Array | None]:
    """Return the low and high word of each position of a mask of `shape`, which is one of several shards along its first axis."""
    shards = math.prod(jax.lax.axis_size(axis) for axis in axes)
    if math.prod(shape) * shards <= POSITIONS:
        low = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
        return (low + _shard(axes) * jnp.uint32(math.prod(shape)) if axes else low), None
    # A position is row * width + column, with as few axes as possible in a row, so that both fit 32 bits.
    split = next(k for k in range(1, len(shape) + 1) if math.prod(shape[k:]) < POSITIONS)
    rows, width = math.prod(shape[:split]), math.prod(shape[split:])
    if rows * shards > POSITIONS:
        whole = (shape[0] * shards, *shape[1:])
        refuse(f"an axis of a mask has at most 2**32 entries; got shape {whole}.", "Split the axis in two.")
    row = jax.lax.iota(jnp.uint32, rows).reshape(shape[:split] + (1,) * (len(shape) - split))
    row = row + _shard(axes) * jnp.uint32(rows) if axes else row
    low, high = _wide_product(row, width)
    low_end = low + jax.lax.iota(jnp.uint32, width).reshape(shape[split:])
    return low_end, high + (low_end < low).astype(jnp.uint32)


def _wide_product(x: jax.Array, factor: int) -> tuple[jax.Array, jax.Array]:
    """Return the low and the high word of x * factor, from 16-bit halves: JAX has no 64-bit integers by default."""
    half = jnp.uint32(0xFFFF)
    x0, x1, f0, f1 = x & half, x >> 16, jnp.uint32(factor & 0xFFFF), jnp.uint32(factor >> 16)
    low, inner, outer = x0 * f0, x0 * f1, x1 * f0
    middle = (low >> 16) + (inner & half) + (outer & half)
    return x * jnp.uint32(factor), x1 * f1 + (inner >> 16) + (outer >> 16) + (middle >> 16)


def _shard_axes(shape: tuple[int, ...], like: jax.Array | None) -> tuple[str, ...]:
    if like is None or not shape or shape[0] != like.shape[0]:
        return ()
    kind = jax.typeof(like)
    varying = kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma  # JAX renamed it
    return tuple(axis for axis in jax.sharding.get_abstract_mesh().axis_names if axis in varying) if varying else ()


def _shard(axes: tuple[str, ...]) -> jax.Array:
    index = jnp.uint32(0)
    for axis in axes:
        index = index * jnp.uint32(jax.lax.axis_size(axis)) + jax.lax.axis_index(axis).astype(jnp.uint32)
    return index


def seeded() -> contextlib.AbstractContextManager:
    """See `keras_dropout.backends`."""
    return contextlib.nullcontext()
