"""What is particular to the layers that drop bands of a spectrogram, on the backend of this process."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_dropout import BadInput, FrequencyMasking, TimeMasking

ONES = np.ones((20_000, 9, 2), "float32")


def train(layer, x, **options):
    return ops.convert_to_numpy(layer(x, training=True, **options))


def bands(layer, x=ONES, **options):
    """The first step and the width of each example's band, which is one contiguous stretch; (-1, 0) where there is none."""
    y = train(layer, x, **options)
    assert (y == y[..., :1]).all()
    gone = (y[..., 0] == 0).astype(int)
    edges = np.diff(np.pad(gone, ((0, 0), (1, 1))), axis=1)
    assert ((edges == 1).sum(axis=1) <= 1).all()
    width = gone.sum(axis=1)
    return np.where(width > 0, gone.argmax(axis=1), -1), width


def uniform(values, low, high):
    """Whether whole numbers are uniform from low to high, each frequency within 5 standard errors."""
    share = 1 / (high - low + 1)
    counts = np.bincount(values - low, minlength=high - low + 1)
    assert values.min() >= low
    assert len(counts) == high - low + 1, counts
    assert (np.abs(counts / len(values) - share) <= 5 * np.sqrt(share * (1 - share) / len(values))).all(), counts


def test_widths_are_uniform_up_to_the_size_and_places_where_they_fit():
    first, width = bands(TimeMasking(1, size=4, seed=1))
    uniform(width, 0, 4)
    for n in (1, 2, 3, 4):
        uniform(first[width == n], 0, 9 - n)


def test_a_planted_bias_is_seen():
    with pytest.raises(AssertionError):
        uniform(np.random.default_rng(0).binomial(4, 0.5, 20_000), 0, 4)


@pytest.mark.parametrize(("share", "widest"), [(0.5, 4), (0.1, 0), (1.0, 9), (0.34, 3)])
def test_no_band_is_wider_than_its_share(share, widest):
    uniform(bands(TimeMasking(1, size=20, share=share, seed=1))[1], 0, widest)


def test_a_share_that_floats_make_less_of_is_exact():
    """0.29 * 100 is 28.999999999999996."""
    assert bands(TimeMasking(1, size=99, share=0.29, seed=1), np.ones((2000, 100, 1), "float32"))[1].max() == 29


def test_the_rate_is_the_share_of_examples():
    width = bands(TimeMasking(0.3, size=8, seed=2))[1]
    expected = 0.3 * 8 / 9
    assert abs((width > 0).mean() - expected) < 5 * np.sqrt(expected * (1 - expected) / len(width))


@pytest.mark.parametrize("left", [False, True])
def test_bands_lie_in_what_is_not_padded(left):
    present = np.tile(np.arange(9) < 5, (len(ONES), 1))
    present = present[:, ::-1] if left else present
    first, width = bands(TimeMasking(1, size=9, share=0.6, seed=3), mask=ops.convert_to_tensor(present))
    uniform(width, 0, 3)
    for n in (1, 2, 3):
        uniform(first[width == n], 4 * left, 4 * left + 5 - n)


def test_an_example_that_is_all_padding_stays():
    mask = ops.convert_to_tensor(np.zeros((3, 9), bool))
    np.testing.assert_array_equal(train(TimeMasking(1, size=9, seed=3), ONES[:3], mask=mask), ONES[:3])


def test_bands_of_one_example_are_independent():
    both = train(TimeMasking(1, size=4, count=2, seed=1), ONES)[..., 0] == 0
    one = train(TimeMasking(1, size=4, seed=2), ONES)[..., 0] == 0
    expected = 1 - (1 - one.mean(axis=0)) ** 2
    assert (np.abs(both.mean(axis=0) - expected) < 5 * np.sqrt(0.25 / len(both)) * 2).all()


def test_a_value_takes_the_place_of_the_band():
    y = train(FrequencyMasking(1, size=9, value=-7.5, seed=1), np.swapaxes(ONES[:50], 1, 2))
    assert set(np.unique(y)) == {-7.5, 1.0}


def test_axes_are_told_behind_kerass_mel_spectrogram():
    """Its output is (batch, channels of frequency, time)."""
    sound = np.random.default_rng(0).normal(size=(4, 4000)).astype("float32")
    mel = keras.layers.MelSpectrogram(num_mel_bins=20, sequence_stride=200, fft_length=512)
    x = ops.convert_to_numpy(mel(sound))
    y = ops.convert_to_numpy(keras.Sequential([TimeMasking(1, size=9, value=99.0, axis=2, seed=1)])(x, training=True)) == 99
    assert y.any()
    assert (y == y[:, :1]).all()
    y = train(FrequencyMasking(1, size=9, value=99.0, axis=1, seed=1), x) == 99
    assert y.any()
    assert (y == y[:, :, :1]).all()


def test_an_axis_that_is_not_there_is_refused():
    with pytest.raises(BadInput, match="inputs have no axis 3; got shape"):
        TimeMasking(1, size=3, axis=3)(ONES, training=True)
