"""The mask against an independent numpy oracle, and the laws of its randomness, on the backend of this process."""

import hashlib

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from keras_dropout import Dropout, masks, noise

U = np.uint32


def oracle_mix(x):
    with np.errstate(over="ignore"):
        x = U(x) if np.isscalar(x) else x
        x = (x ^ (x >> U(16))) * U(0x7FEB352D)
        x = (x ^ (x >> U(15))) * U(0x846CA68B)
        return x ^ (x >> U(16))


def oracle_draws(seed, step, count, high=0):
    """The 24 bits of each position, from the formulas in the module's docstring, in numpy's unsigned integers."""
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8, person=b"dropout seed").digest()
    a0, b0 = np.frombuffer(digest, "<u4")
    with np.errstate(over="ignore"):
        a = oracle_mix(oracle_mix(U(step) ^ b0) + a0)
        b = oracle_mix(oracle_mix(U(step) + a0) ^ b0) ^ oracle_mix(U(high))
        bits = oracle_mix(oracle_mix(np.arange(count, dtype=U) + oracle_mix(a)) ^ oracle_mix(b + U(0x9E3779B9)))
    return bits >> U(8)


def layer_masks(seed, steps, count, rate=0.5):
    layer = Dropout(rate, seed=seed)
    ones = np.ones((1, count), "float32")
    return np.array([keras.ops.convert_to_numpy(layer(ones, training=True))[0] != 0 for _ in range(steps)])


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.5, 0.9, 1.0, 2.0**-24])
def test_masks_are_those_of_the_oracle(rate):
    level = round(float(np.float32(rate)) * 2**24)
    found = layer_masks(1234567890123456789, 3, 5000, rate)
    for step in range(3):
        np.testing.assert_array_equal(found[step], oracle_draws(1234567890123456789, step, 5000) >= level)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(-(2**70), 2**70))
def test_any_whole_number_is_a_seed(seed):
    np.testing.assert_array_equal(layer_masks(seed, 1, 64)[0], oracle_draws(seed, 0, 64) >= 2**23)


def test_neighbouring_seeds_share_nothing_at_any_step():
    """No mask of seed s at step j is that of seed s+1 at step k, and their agreement is that of coins."""
    steps, count = 40, 4000
    first, second = layer_masks(7, steps, count), layer_masks(8, steps, count)
    agreement = (first[:, None, :] == second[None, :, :]).mean(axis=2)
    # 1,600 pairs of masks: 5.5 standard errors is beyond any of them by chance.
    assert np.abs(agreement - 0.5).max() < 5.5 * 0.5 / np.sqrt(count)


def test_streams_are_not_shifted_copies():
    """Neither steps of one stream nor neighbouring seeds reuse a stretch of each other's draws."""
    seen = [oracle_draws(seed, step, 2000) for seed in (0, 1, 2) for step in range(100)]
    runs = np.concatenate([np.lib.stride_tricks.sliding_window_view(draws, 4) for draws in seen])
    assert len(np.unique(runs, axis=0)) == len(runs)


def test_dropped_share_is_the_rate():
    for rate in (0.001, 0.2, 0.5, 0.99):
        dropped = 1 - layer_masks(3, 50, 20000, rate).mean()
        assert abs(dropped - rate) < 5 * np.sqrt(rate * (1 - rate) / 1e6)


def test_draws_are_uniform_and_independent_along_positions_and_steps():
    draws = np.array([oracle_draws(99, step, 4096) for step in range(64)])
    counts = np.bincount((draws >> U(16)).ravel(), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-4
    bits = (draws >> U(23)).astype(float) - 0.5
    for neighbour in (bits[:, 1:] * bits[:, :-1], bits[1:] * bits[:-1], bits[:, 784:] * bits[:, :-784]):
        assert abs(neighbour.mean()) < 5 * 0.25 / np.sqrt(neighbour.size)


def test_masks_at_positions_are_those_of_the_oracle():
    positions = np.array([[5, 0, 4999], [5, 17, 0]], "int32")
    for high in (None, 0, 3, 2**31 - 1):
        state = masks.Stream(42).next()
        above = None if high is None else keras.ops.convert_to_tensor([[high]], "int32")
        found = noise.kept_at(state, 0.3, keras.ops.convert_to_tensor(positions), above)
        expected = oracle_draws(42, 0, 5000, high or 0)[positions] >= round(float(np.float32(0.3)) * 2**24)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), expected)


def test_each_call_takes_the_next_step():
    layer = Dropout(0.5, seed=5)
    for step in range(3):
        assert keras.ops.convert_to_numpy(layer.stream.state)[2] == step
        layer(np.ones((2, 2), "float32"), training=True)
    layer(np.ones((2, 2), "float32"), training=False)
    assert keras.ops.convert_to_numpy(layer.stream.state)[2] == 3


def test_reseed_starts_the_masks_of_that_seed():
    layer = Dropout(0.5, seed=5)
    ones = np.ones((4, 50), "float32")
    first = keras.ops.convert_to_numpy(layer(ones, training=True))
    layer(ones, training=True)
    layer.stream.reseed(5)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(ones, training=True)), first)


def test_derived_seeds_depend_on_every_role():
    seeds = [masks.derive_seed(s, *roles) for s in range(20) for roles in (("weights",), ("order",), ("mask", 0), ("mask", 1))]
    assert len(set(seeds)) == len(seeds)
    assert masks.derive_seed(3, "order") == masks.derive_seed(3, "order")


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="looks into JAX's backward")
def test_backward_keeps_no_mask():
    import jax

    x = jax.numpy.ones((512, 256))
    state, rate = jax.numpy.array([1, 2, 3], "uint32"), jax.numpy.float32(0.2)

    def kept(function):
        return [leaf.size for leaf in jax.tree.leaves(jax.vjp(function, x)[1]) if hasattr(leaf, "size")]

    assert max(kept(lambda x: noise.bernoulli_product(x, state, rate, x.shape))) < 10
    # The same look at a dropout that does keep its mask, to show that it would be seen.
    key = jax.random.key(0)
    assert max(kept(lambda x: jax.numpy.where(jax.random.bernoulli(key, 0.8, x.shape), x / 0.8, 0))) == x.size


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="looks into torch's backward")
def test_torch_backward_keeps_no_mask():
    import torch

    x = torch.ones(512, 256, requires_grad=True)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        noise.bernoulli_product(x, torch.tensor([1, 2, 3], dtype=torch.int32), torch.tensor(0.2), x.shape)
    assert sizes
    assert max(sizes) < 10
