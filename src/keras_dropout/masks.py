"""The mask: a pure function of (key, step, position), computed where it is used and never stored.

Requirements it meets:
- the same key, step and shape give the same mask on every backend;
- streams of different seeds have nothing in common: a seed is hashed to 64 bits before it is used;
- a mask costs no memory traffic: it is integer arithmetic on the position, inside the kernel that multiplies.

With `mix` a 32-bit finaliser of full avalanche (xor-shift, multiply, xor-shift, multiply, xor-shift), call number `step` of
a stream with the words (a0, b0) has the 64-bit key

    a = mix(mix(step ^ b0) + a0)        b = mix(mix(step + a0) ^ b0)

and position i = high * 2**32 + low of that call (a 64-bit number: no input is so large that it wraps) has the 32 bits

    bits(i) = mix(mix(low + mix(a)) ^ mix((b ^ mix(high)) + 0x9E3779B9))

where mix(0) = 0, so that `high` costs nothing below 2**32 elements. The upper 24 bits are the draw d, a whole number:

    Bernoulli   the unit at i is kept if d >= round(rate * 2**24)
    uniform     d / 2**24, in [0, 1)
    normal      sqrt(2) * erfinv((2 d + 1) / 2**24 - 1), symmetric about 0, at most 5.42 away from it

Rates are therefore multiples of 2**-24 (6e-8), exact in float32: a rate is off by at most 3e-8. The mean is exact, because the
scale 1 / (1 - rate) uses the actual multiple.

The formulas are written once, here, on top of the two operations in which the backends' integers differ (see `Words`).
"""

import hashlib
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

LEVELS = 2**24
POSITIONS = 2**32  # number of positions that the low word can distinguish


class Words(NamedTuple):
    """Unsigned 32-bit arithmetic of a backend that plain operators do not provide."""

    constant: Callable[[int], Any]
    shift_right: Callable[[Any, int], Any]


def mix(x: Any, words: Words) -> Any:
    """Hash a 32-bit word one to one; each input bit flips each output bit half of the time."""
    x = x ^ words.shift_right(x, 16)
    x = x * words.constant(0x7FEB352D)
    x = x ^ words.shift_right(x, 15)
    x = x * words.constant(0x846CA68B)
    return x ^ words.shift_right(x, 16)


def call_key(state: Any, words: Words) -> tuple[Any, Any]:
    """Return the 64-bit key of one call, from a stream's state (a0, b0, step)."""
    a0, b0, step = state[0], state[1], state[2]
    return mix(mix(step ^ b0, words) + a0, words), mix(mix(step + a0, words) ^ b0, words)


def draws(low: Any, key: tuple[Any, Any], words: Words, high: Any = None) -> Any:
    """Return 24 random bits for each position, as a whole number in [0, 2**24). Leave out `high` if it is 0."""
    return words.shift_right(bits(low, key, words, high), 8)


_NUMPY = Words(constant=np.uint32, shift_right=lambda x, n: x >> np.uint32(n))


def numpy_draws(words: tuple[int, int], step: int, count: int) -> np.ndarray:
    """Return `count` draws of a stream's call number `step` in numpy, for what is decided once, when a layer is built."""
    state = tuple(np.array([word], np.uint32) for word in (*words, step))
    return draws(np.arange(count, dtype=np.uint32), call_key(state, _NUMPY), _NUMPY)


def bits(low: Any, key: tuple[Any, Any], words: Words, high: Any = None) -> Any:
    """Return the 32 random bits of each position. Only the upper 24 are used."""
    a, b = key
    if high is not None:
        b = b ^ mix(high, words)
    inner = mix(low + mix(a, words), words)
    return mix(inner ^ mix(b + words.constant(0x9E3779B9), words), words)


def seed_words(seed: int) -> tuple[int, int]:
    """Hash any whole number to 64 bits: neighbouring seeds have nothing in common."""
    digest = hashlib.blake2b(str(int(seed)).encode(), digest_size=8, person=b"dropout seed").digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def derive_seed(seed: int, *roles: str | int) -> int:
    """Return a 63-bit seed for one role of a run ("weights", "order", ("mask", 3)): a hash, never `seed + 1`."""
    text = "/".join(str(part) for part in (int(seed), *roles))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


class Stream:
    """The state from which a layer takes its masks: three 32-bit words (a0, b0, step) in one Keras variable.

    `seed` is any whole number. If it is None, Python's `random` gives one, which `keras.utils.set_random_seed` fixes. It is drawn
    as Keras draws it, so that a model keeps its initial weights when our layers replace Keras's dropout layers.
    """

    def __init__(self, seed: int | None = None):
        import keras  # here, so that the formulas above can be used and tested without a backend

        self._seed_words = seed_words(random.randint(1, int(1e9)) if seed is None else seed)
        self.state = keras.Variable(
            lambda shape, dtype: keras.ops.convert_to_tensor([*self._seed_words, 0], dtype=dtype),
            shape=(3,),
            dtype="uint32",
            trainable=False,
            name="mask_stream",
        )

    def next(self) -> Any:
        """Return the state for one call; the next call gets the next step."""
        from keras import ops

        state = ops.copy(self.state)  # a copy: torch would change it in place below
        # Pass an array: Keras takes five times as long to convert a list.
        self.state.assign(state + ops.convert_to_tensor(np.array([0, 0, 1], self.state.dtype)))
        return state

    def reseed(self, seed: int) -> None:
        """Start again at step 0 with the masks of `seed`."""
        self.state.assign([*seed_words(seed), 0])
