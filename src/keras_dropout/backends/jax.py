"""The mask product on JAX: unsigned 32-bit words, one fused kernel under `jit`."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from keras_dropout.errors import refuse
from keras_dropout.masks import LEVELS, POSITIONS, Words, call_key, draws

WORDS = Words(constant=jnp.uint32, shift_right=lambda x, n: x >> jnp.uint32(n))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def mask_product(x: jax.Array, state: jax.Array, rate: jax.Array, mask_shape: tuple[int, ...]) -> jax.Array:
    """See `keras_dropout.backends`."""
    size = math.prod(mask_shape)
    if size > POSITIONS:
        refuse(f"a mask has at most 2**32 positions; got shape {mask_shape}.", "Share the mask along an axis (noise_shape).")
    position = jax.lax.iota(jnp.uint32, size).reshape(mask_shape)
    level = jnp.round(rate * LEVELS).astype(jnp.uint32)
    kept = draws(position, call_key(state, WORDS), WORDS) >= level
    real = jnp.promote_types(x.dtype, jnp.float32)
    scale = LEVELS / jnp.maximum(LEVELS - level.astype(real), 1)
    return jnp.where(kept, x * scale.astype(x.dtype), jnp.zeros((), x.dtype))


def _forward(x, state, rate, mask_shape):
    return mask_product(x, state, rate, mask_shape), (state, rate)


def _backward(mask_shape, saved, upstream):
    return mask_product(upstream, *saved, mask_shape), None, None


mask_product.defvjp(_forward, _backward)
