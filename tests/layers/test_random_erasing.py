"""The laws of RandomErasing, on the backend of this process."""

import numpy as np
import pytest
from keras import ops

from keras_dropout import RandomErasing

SCALE, RATIO = (0.02, 0.33), (0.3, 3.3)


def erased(layer, images=1500, height=40, width=30):
    """Which pixels of each image are erased: (images, height, width)."""
    y = ops.convert_to_numpy(layer(np.ones((images, height, width, 2), "float32"), training=True))
    np.testing.assert_array_equal(y[..., 0], y[..., 1])
    return y[..., 0] != 1


def edges(mask):
    return mask.any(axis=2).sum(axis=1), mask.any(axis=1).sum(axis=1)


def test_it_is_one_full_rectangle_inside_the_image():
    mask = erased(RandomErasing(1, seed=1))
    rows, columns = mask.any(axis=2), mask.any(axis=1)
    np.testing.assert_array_equal(mask, rows[:, :, None] & columns[:, None, :])
    for profile in (rows, columns):
        assert (np.abs(np.diff(np.pad(profile, ((0, 0), (1, 1))).astype(int), axis=1)).sum(axis=1) == 2).all()


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_the_share_of_images(rate):
    share = erased(RandomErasing(rate, seed=2)).any(axis=(1, 2)).mean()
    assert abs(share - rate) < 5 * np.sqrt(rate * (1 - rate) / 1500)


def test_areas_are_uniform_and_never_cut():
    """Also where the image is so narrow that most ratios do not fit: the area stays what was drawn."""
    for height, width in ((100, 100), (200, 50)):
        area = erased(RandomErasing(1, seed=3), 400, height, width).mean(axis=(1, 2))
        assert SCALE[0] - 0.02 < area.min()
        assert area.max() < SCALE[1] + 0.02
        middle, spread = sum(SCALE) / 2, (SCALE[1] - SCALE[0]) / np.sqrt(12)
        assert abs(area.mean() - middle) < 5 * spread / np.sqrt(len(area))
        assert abs(area.std() - spread) < 0.1 * spread


def test_ratios_are_uniform_in_their_logarithm():
    height, width = edges(erased(RandomErasing(1, scale=(0.1, 0.1), seed=4), 400, 100, 100))
    log_ratio = np.log(height / width)
    low, high = np.log(RATIO)
    assert low - 0.08 < log_ratio.min()
    assert log_ratio.max() < high + 0.08
    spread = (high - low) / np.sqrt(12)
    assert abs(log_ratio.mean() - (low + high) / 2) < 5 * spread / np.sqrt(400)
    assert abs(log_ratio.std() - spread) < 0.1 * spread


def test_every_place_that_fits_is_equally_likely():
    mask = erased(RandomErasing(1, scale=(0.25, 0.25), ratio=(1, 1), seed=5), 8000, 8, 8)
    assert {tuple(pair) for pair in np.stack(edges(mask), axis=1)} == {(4, 4)}
    first = mask.any(axis=2).argmax(axis=1) * 5 + mask.any(axis=1).argmax(axis=1)
    counts = np.bincount(first, minlength=25)
    assert len(counts) == 25
    assert np.abs(counts - 320).max() < 5 * np.sqrt(320)


@pytest.mark.parametrize(("scale", "ratio"), [((1, 1), (0.3, 3.3)), ((0.9, 1), (3, 3.3)), ((1e-6, 1e-6), (1, 1))], ids=str)
def test_extremes_stay_inside(scale, ratio):
    height, width = edges(erased(RandomErasing(1, scale=scale, ratio=ratio, seed=6)))
    assert (height >= 1).all()
    assert (width >= 1).all()
    if scale == (1, 1):
        assert (height == 40).all()
        assert (width == 30).all()


def test_value_is_filled_in_and_the_rest_is_untouched():
    x = np.random.default_rng(0).normal(size=(20, 16, 16, 3)).astype("float32")
    y = ops.convert_to_numpy(RandomErasing(1, value=7.5, seed=7)(x, training=True))
    inside = y == 7.5
    assert inside.any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(y, np.where(inside, np.float32(7.5), x))


def test_channels_first_erases_the_same():
    x = np.ones((10, 12, 9, 3), "float32")
    last = ops.convert_to_numpy(RandomErasing(0.7, data_format="channels_last", seed=8)(x, training=True))
    first = RandomErasing(0.7, data_format="channels_first", seed=8)(x.transpose(0, 3, 1, 2), training=True)
    np.testing.assert_array_equal(ops.convert_to_numpy(first).transpose(0, 2, 3, 1), last)
