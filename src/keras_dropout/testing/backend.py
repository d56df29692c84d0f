"""The parts of the contract that depend on the backend: the gradient of a training call, and a compiled training step."""

from typing import Any

import keras
import numpy as np
from keras import ops


def gradient(layer: keras.Layer, x: np.ndarray, upstream: np.ndarray) -> np.ndarray:
    """Return d sum(upstream * layer(x, training=True)) / dx: zeros where the outputs do not depend on x."""
    return _BACKENDS[keras.backend.backend()].gradient(layer, x, upstream)


def compiled_training(layer: keras.Layer) -> Any:
    """Return a function x -> layer(x, training=True), compiled as the backend does; `traces()` returns how often."""
    return _BACKENDS[keras.backend.backend()](layer)


class _Jax:
    def __init__(self, layer: keras.Layer):
        import jax

        self.layer, self.count = layer, 0

        def step(trainable: list, rest: list, x: Any) -> tuple:
            self.count += 1
            return layer.stateless_call(trainable, rest, x, training=True)

        self.step = jax.jit(step)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        layer = self.layer
        y, rest = self.step([v.value for v in layer.trainable_variables], [v.value for v in layer.non_trainable_variables], x)
        for variable, value in zip(layer.non_trainable_variables, rest):
            variable.assign(value)
        return np.asarray(y, "float32")

    def traces(self) -> int:
        return self.count

    @staticmethod
    def gradient(layer: keras.Layer, x: np.ndarray, upstream: np.ndarray) -> np.ndarray:
        import jax

        values = [[v.value for v in group] for group in (layer.trainable_variables, layer.non_trainable_variables)]
        return np.asarray(jax.grad(lambda x: (layer.stateless_call(*values, x, training=True)[0] * upstream).sum())(ops.array(x)))


class _TensorFlow:
    def __init__(self, layer: keras.Layer):
        import tensorflow as tf

        self.step = tf.function(lambda x: layer(x, training=True), jit_compile=True)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return ops.convert_to_numpy(ops.cast(self.step(ops.convert_to_tensor(x)), "float32"))

    def traces(self) -> int:
        return self.step.experimental_get_tracing_count()

    @staticmethod
    def gradient(layer: keras.Layer, x: np.ndarray, upstream: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(layer(x, training=True) * upstream)
        return ops.convert_to_numpy(tape.gradient(y, x, unconnected_gradients=tf.UnconnectedGradients.ZERO))


class _Torch:
    """Eager, as Keras runs it by default."""

    def __init__(self, layer: keras.Layer):
        self.layer = layer

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return ops.convert_to_numpy(ops.cast(self.layer(x, training=True), "float32"))

    def traces(self) -> int:
        return 1

    @staticmethod
    def gradient(layer: keras.Layer, x: np.ndarray, upstream: np.ndarray) -> np.ndarray:
        import torch

        inputs = torch.tensor(x, requires_grad=True)
        y = (layer(inputs, training=True) * torch.tensor(upstream)).sum()
        if y.requires_grad:
            y.backward()
        return np.zeros_like(upstream, shape=x.shape) if inputs.grad is None else ops.convert_to_numpy(inputs.grad)


_BACKENDS: dict[str, type[_Jax | _TensorFlow | _Torch]] = {"jax": _Jax, "tensorflow": _TensorFlow, "torch": _Torch}
