"""The mask product on TensorFlow: unsigned 32-bit words, one fused kernel under XLA, op by op in eager and graph mode."""

import tensorflow as tf

from keras_dropout.masks import LEVELS, Words, call_key, draws

WORDS = Words(
    constant=lambda n: tf.constant(n, tf.uint32),
    shift_right=lambda x, n: tf.bitwise.right_shift(x, tf.constant(n, tf.uint32)),
)


def mask_product(x: tf.Tensor, state: tf.Tensor, rate: tf.Tensor, mask_shape: tuple[int | tf.Tensor, ...]) -> tf.Tensor:
    """See `keras_dropout.backends`."""

    @tf.custom_gradient
    def product(x, state, rate):
        return _product(x, state, rate, mask_shape), lambda upstream: (_product(upstream, state, rate, mask_shape), None, None)

    return product(x, state, rate)


def _product(x, state, rate, mask_shape):
    position = tf.reshape(tf.cast(tf.range(tf.reduce_prod(tf.cast(mask_shape, tf.int64))), tf.uint32), mask_shape)
    level = tf.round(rate * LEVELS)
    kept = draws(position, call_key(state, WORDS), WORDS) >= tf.cast(level, tf.uint32)
    real = tf.float64 if x.dtype == tf.float64 else tf.float32
    scale = LEVELS / tf.maximum(LEVELS - tf.cast(level, real), 1)
    return tf.where(kept, x * tf.cast(scale, x.dtype), tf.zeros((), x.dtype))
