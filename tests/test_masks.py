"""The mask against an independent numpy oracle, and the laws of its randomness, on the backend of this process."""

import keras
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from keras_dropout import Dropout, GaussianDropout, masks, noise

U = np.uint32


def oracle_draws(seed, step, count, high=0):
    return oracles.draws(oracles.state(seed, step), np.arange(count, dtype=np.uint64) + (np.uint64(high) << np.uint64(32)))


def layer_masks(seed, steps, count, rate=0.5):
    layer = Dropout(rate, seed=seed)
    ones = np.ones((1, count), "float32")
    return np.array([keras.ops.convert_to_numpy(layer(ones, training=True))[0] != 0 for _ in range(steps)])


def drawn(seed, steps, count):
    """The numbers in [0, 1) behind the masks of so many steps."""
    stream = masks.Stream(seed)
    return np.array([keras.ops.convert_to_numpy(noise.uniform(stream.next(), (count,))) for _ in range(steps)], "float64")


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
    seen = np.concatenate([drawn(seed, 100, 2000) for seed in (0, 1, 2)])
    runs = np.concatenate([np.lib.stride_tricks.sliding_window_view(draws, 4) for draws in seen])
    assert len(np.unique(runs, axis=0)) == len(runs)


def test_no_stretch_of_neighbouring_streams_goes_together():
    """Correlations of draws at all distances, between neighbouring seeds, steps, layers of a run and sub-streams of a call."""
    count = 2**14
    layers = [Dropout(0.5, seed=masks.derive_seed(3, "mask", number)) for number in range(3)]
    states = [layer.stream.next() for layer in (*layers, Dropout(0.5, seed=7), Dropout(0.5, seed=8), Dropout(0.5, seed=-7))]
    again = Dropout(0.5, seed=7)
    states += [again.stream.next() for _ in range(4)][1:]
    states += [noise.fold(states[0], number) for number in range(3)] + [noise.fold(noise.fold(states[0], 0), 0)]
    streams = np.array([keras.ops.convert_to_numpy(noise.uniform(state, (count,))) for state in states], "float64") - 0.5
    spectra = np.fft.rfft(streams)
    worst = 0
    for i in range(len(streams)):
        correlations = np.fft.irfft(spectra[i] * spectra[i:].conj(), count) * 12 / count
        correlations[0, 0] = 0  # a stream with itself
        worst = max(worst, np.abs(correlations).max())
    # 1.5 million correlations of standard error count**-0.5: 6.5 of them is beyond any by chance once in ten thousand.
    assert worst < 6.5 / np.sqrt(count)


def test_the_hash_is_one_to_one():
    """Each has its inverse, so that over 2**32 positions a call's draws take each of their values 256 times: no rate has a bias."""

    def unmix(y):
        with np.errstate(over="ignore"):
            y = (y ^ (y >> U(16))) * U(pow(0x846CA68B, -1, 2**32))
            y = (y ^ (y >> U(15)) ^ (y >> U(30))) * U(pow(0x7FEB352D, -1, 2**32))
            return y ^ (y >> U(16))

    words = np.random.default_rng(0).integers(0, 2**32, 2**20, dtype=U)
    numpy_words = masks.Words(constant=U, shift_right=lambda x, n: x >> U(n))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(unmix(masks.mix(words, numpy_words)), words)
    assert masks.mix(U(0), numpy_words) == 0


@pytest.mark.parametrize("rate", [2.0**-24, 2.0**-25, 1e-6, 0.1, 0.5, 0.7, 1 - 2.0**-24])
def test_the_scale_is_that_of_the_rate_really_used(rate):
    """level / 2**24 of all draws are below the level, and what is kept is scaled by 2**24 / (2**24 - level): the mean is exact."""
    level = round(float(np.float32(rate)) * 2**24)
    assert abs(level / 2**24 - rate) <= 2.0**-25 + np.finfo("float32").eps * rate
    draws = oracle_draws(4, 0, 3000)
    y = keras.ops.convert_to_numpy(Dropout(rate, seed=4)(np.ones(3000, "float32"), training=True))
    np.testing.assert_allclose(y, np.where(draws >= level, 2**24 / (2**24 - level), 0), rtol=2e-7)


def test_the_smallest_rate_drops_the_one_draw_below_it():
    """Of 2**32 positions it drops 256: in a stream that comes across one of them, that one and no other."""
    rate, count = 2.0**-24, 2**20
    seed = next(seed for seed in range(1000) if (oracle_draws(seed, 0, count) == 0).any())
    dropped = np.flatnonzero(~layer_masks(seed, 1, count, rate)[0])
    np.testing.assert_array_equal(dropped, np.flatnonzero(oracle_draws(seed, 0, count) == 0))


def test_gaussian_noise_is_symmetric_and_bounded():
    """normal(draw) and normal(2**24 - 1 - draw) are opposite: the mean over all draws is 0, whatever their tails."""
    y = keras.ops.convert_to_numpy(GaussianDropout(0.5, seed=2)(np.ones(4000, "float32"), training=True)) - 1
    draws = oracle_draws(2, 0, 4000)
    np.testing.assert_allclose(y, stats.norm.ppf((draws + 0.5) / 2**24), rtol=1e-4, atol=1e-6)
    assert np.abs(stats.norm.ppf([0.5 / 2**24, 1 - 0.5 / 2**24])).max() < 5.42


def test_dropped_share_is_the_rate():
    for rate in (0.001, 0.2, 0.5, 0.99):
        dropped = 1 - layer_masks(3, 50, 20000, rate).mean()
        assert abs(dropped - rate) < 5 * np.sqrt(rate * (1 - rate) / 1e6)


def test_draws_are_uniform_and_independent_along_positions_and_steps():
    draws = drawn(99, 64, 4096)
    counts = np.bincount((draws * 256).astype(int).ravel(), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-4
    bits = (draws >= 0.5) - 0.5
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


def test_seeds_are_hashed_as_ever():
    """What runs in ledgers, and saved models, were trained with."""
    assert masks.seed_words(0) == (2184101235, 3944995070)
    assert masks.seed_words(-1) == (1438393459, 3124120944)
    assert masks.derive_seed(0, "weights") == 7388263408636359099
    assert masks.derive_seed(7, "mask", 3) == 6951713804801976726


def test_a_random_seed_is_the_one_that_keras_would_draw():
    keras.utils.set_random_seed(5)
    theirs = int(keras.ops.convert_to_numpy(keras.random.SeedGenerator().state)[0])
    keras.utils.set_random_seed(5)
    stream = masks.Stream()
    assert keras.ops.convert_to_numpy(stream.state).tolist() == [*masks.seed_words(theirs), 0]
    assert not stream.state.trainable
    assert stream.state.name == "mask_stream"
