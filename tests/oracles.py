"""What the masks must be, from the formulas in the docstring of `keras_dropout.masks`, in numpy's unsigned integers and float64."""

import hashlib
from math import prod

import numpy as np
from scipy import special

U = np.uint32


def mix(x):
    with np.errstate(over="ignore"):
        x = U(x) if np.isscalar(x) else x
        x = (x ^ (x >> U(16))) * U(0x7FEB352D)
        x = (x ^ (x >> U(15))) * U(0x846CA68B)
        return x ^ (x >> U(16))


def state(seed, step=0):
    """The words (a0, b0, step) of a stream."""
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8, person=b"dropout seed").digest()
    return np.array([*np.frombuffer(digest, "<u4"), step], U)


def key(state):
    a0, b0, step = np.asarray(state, U)
    with np.errstate(over="ignore"):
        return mix(mix(step ^ b0) + a0), mix(mix(step + a0) ^ b0)


def fold(state, number):
    return np.array([*key(state), number], U)


def draws(state, positions):
    """The 24 bits of each position, which is a whole number below 2**64."""
    a, b = key(state)
    low, high = positions.astype(U), (np.asarray(positions, np.uint64) >> np.uint64(32)).astype(U)
    with np.errstate(over="ignore"):
        return mix(mix(low + mix(a)) ^ mix((b ^ mix(high)) + U(0x9E3779B9))) >> U(8)


def draws_of(state, shape):
    return draws(state, np.arange(prod(shape), dtype=np.uint64)).reshape(shape).astype("float64")


def level(rate):
    return round(float(np.float32(rate)) * 2**24)


def kept(state, rate, shape):
    return draws_of(state, shape) >= level(rate)


def bernoulli_product(x, state, rate, shape):
    return np.where(kept(state, rate, shape), np.asarray(x, "float64") * 2**24 / max(2**24 - level(rate), 1), 0)


def gaussian_product(x, state, rate, shape):
    return np.asarray(x, "float64") * (1 + np.sqrt(rate / (1 - rate)) * normal(state, shape))


def uniform(state, shape):
    return draws_of(state, shape) / 2**24


def normal(state, shape):
    return np.sqrt(2) * special.erfinv(_symmetric(state, shape))


def logistic(state, shape):
    u = (_symmetric(state, shape) + 1) / 2
    return np.log(u) - np.log1p(-u)


def _symmetric(state, shape):
    return (2 * draws_of(state, shape) + 1) / 2**24 - 1
