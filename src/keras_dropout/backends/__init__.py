"""The functions that the module of each backend has for the masks; everything else is written in `keras.ops`.

    draws(state, shape)                       24 random bits for each position of `shape`, as whole numbers
    draws_at(state, low, high)                the same, for the positions high * 2**32 + low; `high` may be None
    fold(state, number)                       the state of sub-stream `number` of one call
    recomputed(apply, x, tensors, **static)   apply(x, *tensors, **static); backward applies it again to the upstream gradient
    compiled(function, seldom=False)          the function, without gradients, compiled where the backend compiles; fast if `seldom`
    seeded()                                  a context in which the backend's own generator starts anew, restored at its end

`state` comes from `masks.Stream.next`. `recomputed` is for functions that multiply each element of x by a factor of the other
tensors. Such a function is its own transpose, so that nothing of x's size is kept for backward. `pointwise` tells `recomputed`
whether the factor of an element, where `shape` is that of x, depends on the element's position alone.

The same hash runs everywhere, compiled or not, and is fused everywhere: on JAX by `jit`, also when called eagerly; on
TensorFlow by XLA, also inside a graph that is not compiled; on PyTorch by `torch.compile`, or block by block in the cache.
"""

import importlib
from types import ModuleType

import keras


def current() -> ModuleType:
    """Return the module of the backend that Keras runs on."""
    return importlib.import_module(f"keras_dropout.backends.{keras.backend.backend()}")
