"""Shifted images: by hand, by what each shift promises, and the laws that hold for all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from keras_dropout.bench.data.shifts import SHIFTS, STRENGTHS, resize, shift
from keras_dropout.errors import BadInput

shapes = st.one_of(
    st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7), st.integers(1, 4)),
)
floats = hnp.arrays("float32", shapes, elements=st.floats(0, 1, width=32))
arrays = st.one_of(hnp.arrays("uint8", shapes), floats, floats.map(lambda x: x.astype("float16")))
kinds, strengths, seeds = st.sampled_from(SHIFTS), st.integers(0, 5), st.integers(0, 2**32)


def grey(examples=20, size=28, seed=0):
    """Smooth blobs: something to turn and to blur."""
    rng = np.random.default_rng(seed)
    at = np.arange(size)
    x, y, width = rng.uniform(8, 20, examples), rng.uniform(8, 20, examples), rng.uniform(2, 4, examples)
    distance = (at[None, :, None] - y[:, None, None]) ** 2 + (at[None, None, :] - x[:, None, None]) ** 2
    return np.exp(-distance / (2 * width[:, None, None] ** 2))


@settings(deadline=None)
@given(arrays, kinds, strengths, seeds)
def test_laws_of_every_shift(images, kind, strength, seed):
    before = images.copy()
    shifted = shift(images, kind, strength, seed)
    np.testing.assert_array_equal(images, before)
    assert shifted.shape == images.shape
    assert shifted.dtype == images.dtype
    assert shifted.min() >= 0
    assert shifted.max() <= (255 if images.dtype == np.uint8 else 1)
    np.testing.assert_array_equal(shift(images, kind, strength, seed), shifted)
    # Neither the batch nor the place in it matters.
    np.testing.assert_array_equal(shift(images[-1:], kind, strength, seed), shifted[-1:])
    np.testing.assert_array_equal(shift(images[::-1], kind, strength, seed), shifted[::-1])
    if strength == 0:
        np.testing.assert_array_equal(shifted, images)


@settings(deadline=None)
@given(floats, kinds, strengths, st.sampled_from([(-1.0, 1.0), (0.0, 255.0), (-3.0, 5.0)]))
def test_the_range_changes_nothing_but_the_scale(images, kind, strength, bounds):
    low, high = bounds
    # Halves of 8 bits would be rounded this way or that.
    images = np.rint(images.astype("float64") * 255) / 255
    expected = low + (high - low) * shift(images, kind, strength)
    found = shift(np.clip(low + (high - low) * images, low, high), kind, strength, low=low, high=high)
    np.testing.assert_allclose(found, expected, atol=1e-9 * (high - low))


@pytest.mark.parametrize("kind", SHIFTS)
def test_bytes_and_floats_of_an_image_are_shifted_alike(kind):
    images = np.rint(grey() * 255).astype("uint8")
    for strength in range(1, 6):
        as_floats = shift(images / 255, kind, strength) * 255
        np.testing.assert_allclose(shift(images, kind, strength), as_floats, atol=0.5 + 1e-9)


@pytest.mark.parametrize("kind", SHIFTS)
def test_stronger_is_further(kind):
    images = grey()
    distance = [np.abs(shift(images, kind, strength) - images).mean(axis=(1, 2)) for strength in range(6)]
    assert (np.diff(distance, axis=0) > 0).all()


@pytest.mark.parametrize("strength", range(1, 6))
def test_rotation_is_anticlockwise_about_the_centre(strength):
    """A blob right of the centre goes up and around; rows count down."""
    at, angle = np.arange(65) - 32, np.deg2rad(STRENGTHS["rotation"][strength - 1])

    def blob(x, up):
        return np.exp(-((at[None, :] - x) ** 2 + (-at[:, None] - up) ** 2) / 18)

    shifted = shift(blob(8, 0)[None], "rotation", strength)[0]
    np.testing.assert_allclose(shifted, blob(8 * np.cos(angle), 8 * np.sin(angle)), atol=0.03)


def test_corners_that_come_from_outside_are_low():
    shifted = shift(np.full((1, 20, 20, 3), 0.5), "rotation", 3, low=-1, high=1)
    assert (shifted[0, 0, 0] == -1).all()
    np.testing.assert_allclose(shifted[0, 10, 10], 0.5)


@pytest.mark.parametrize("strength", range(1, 6))
def test_noise_is_gaussian_of_the_sd_promised(strength):
    noise = shift(np.full((1, 60, 60), 0.5), "noise", strength).ravel() - 0.5
    normal = stats.norm(scale=STRENGTHS["noise"][strength - 1])
    clipped = np.abs(noise) == 0.5
    assert stats.binomtest(int(clipped.sum()), noise.size, 2 * normal.sf(0.5)).pvalue > 1e-4
    inside = stats.truncnorm(-0.5 / normal.std(), 0.5 / normal.std(), scale=normal.std())
    assert stats.kstest(noise[~clipped], inside.cdf).pvalue > 1e-4


def test_images_have_noise_of_their_own():
    images = grey(200) * 0.2 + 0.4
    noise = (shift(images, "noise", 1) - images).reshape(200, -1)
    assert stats.kstest(noise.ravel(), stats.norm(scale=0.08).cdf).pvalue > 1e-4
    correlation = np.corrcoef(noise)[np.triu_indices(200, 1)]
    # Of independent noise: mean 0, sd 1 / sqrt(784), over 19,900 pairs.
    assert abs(correlation.mean()) < 4 / 28 / np.sqrt(len(correlation))
    assert np.abs(correlation).max() < 6 / 28
    other = (shift(images, "noise", 1, seed=1) - images).reshape(200, -1)
    assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(noise.size)


def test_stronger_noise_is_the_same_noise_made_larger():
    images = grey(5) * 0.02 + 0.49
    weak, strong = (shift(images, "noise", strength, low=-9, high=9) - images for strength in (1, 2))
    np.testing.assert_allclose(strong, 1.5 * weak, atol=1e-9)


@pytest.mark.parametrize("strength", range(1, 6))
def test_blur_spreads_a_point_by_the_sd_promised(strength):
    point = np.zeros((1, 41, 41, 2))
    point[0, 20, 20] = 1, 0.5
    shifted = shift(point, "blur", strength)[0]
    at = np.arange(41) - 20
    for channel, height in enumerate((1, 0.5)):
        spread = shifted[..., channel]
        assert spread.sum() == pytest.approx(height)
        for axis in (0, 1):
            # Taken at whole pixels, a narrow Gaussian is a little narrower.
            assert (spread.sum(axis=axis) @ at**2) / height == pytest.approx(STRENGTHS["blur"][strength - 1] ** 2, rel=0.15)
    flat = np.full((1, 9, 9), 0.3)
    np.testing.assert_allclose(shift(flat, "blur", strength), flat)


@given(floats, st.integers(1, 5))
def test_contrast_keeps_the_mean_and_scales_the_spread(images, strength):
    images = images.astype("float64")
    shifted, factor = shift(images, "contrast", strength), STRENGTHS["contrast"][strength - 1]
    np.testing.assert_allclose(shifted.mean(axis=(1, 2)), images.mean(axis=(1, 2)), atol=1e-9)
    np.testing.assert_allclose(np.ptp(shifted, axis=(1, 2)), factor * np.ptp(images, axis=(1, 2)), atol=1e-9)


def test_a_real_model_gets_worse():
    """Digits of 8 x 8, a linear model: at the strongest of each shift far fewer are right."""
    x, y = load_digits(return_X_y=True)
    images = x.reshape(-1, 8, 8) / 16
    model = LogisticRegression(max_iter=2000).fit(x[:1000] / 16, y[:1000])
    right = {kind: [model.score(shift(images[1000:], kind, s).reshape(-1, 64), y[1000:]) for s in (0, 1, 5)] for kind in SHIFTS}
    for kind, (none, _, strong) in right.items():
        assert none > 0.88
        assert strong < none - 0.1, kind
    assert right["rotation"][0] > right["rotation"][1] > right["rotation"][2]


# Other sizes


def test_resize_by_hand():
    image = np.array([[[0.0, 4.0]]])
    # Four pixels of half the width: their centres lie a quarter before, at a quarter and three of the way, and a quarter behind.
    np.testing.assert_allclose(resize(image, (1, 4)), [[[0, 1, 3, 4]]])
    np.testing.assert_allclose(resize(image, (3, 2)), np.tile(image, (1, 3, 1)))
    np.testing.assert_allclose(resize(np.array([[[0.0, 2.0, 4.0, 6.0]]]), (1, 2)), [[[1, 5]]])


def test_resize_keeps_a_ramp_straight():
    ramp = np.arange(8)[None, None, :] * np.ones((1, 8, 1))
    inside = resize(ramp, (28, 28))[0, :, 4:-4]
    np.testing.assert_allclose(np.diff(inside, axis=1), 8 / 28, atol=1e-9)
    assert inside.mean() == pytest.approx(3.5)


@settings(deadline=None)
@given(arrays, st.integers(1, 9), st.integers(1, 9), st.sampled_from([None, 1, 3]))
def test_laws_of_resize(images, height, width, channels):
    has = images.shape[3] if images.ndim == 4 else 1
    shape = (height, width) if channels is None else (height, width, channels)
    if has not in (1, channels) and channels == 3:
        with pytest.raises(BadInput, match="channels"):
            resize(images, shape)
        return
    found = resize(images, shape)
    assert found.shape == (len(images), *shape)
    assert found.dtype == images.dtype
    assert images.min() <= found.min() <= found.max() <= images.max()
    np.testing.assert_array_equal(resize(images[-1:], shape), found[-1:])
    if shape == images.shape[1:]:
        np.testing.assert_array_equal(found, images)
    if channels == 3 and has == 1:
        np.testing.assert_array_equal(found, np.repeat(resize(images, (height, width, 1)), 3, axis=-1))


def test_colours_become_grey_by_their_mean():
    images = np.array([[[[0, 10, 200]]]], dtype="uint8")
    assert resize(images, (1, 1)).item() == resize(images, (1, 1, 1)).item() == 70


# What is refused

GOOD = np.zeros((2, 4, 4))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: shift(np.zeros((5, 3)), "blur", 1), "must be"),
        (lambda: shift(np.zeros((2, 3, 4, 5, 3)), "blur", 1), "must be"),
        (lambda: shift(np.zeros((2, 4, 4), dtype="int64"), "blur", 1), "uint8"),
        (lambda: shift(GOOD.astype(bool), "blur", 1), "uint8"),
        (lambda: shift(np.empty((0, 4, 4)), "blur", 1), "must be"),
        (lambda: shift("picture", "blur", 1), "must be"),
        (lambda: shift(GOOD * np.nan, "blur", 1), "finite"),
        (lambda: shift(GOOD + 128, "blur", 1), "high="),
        (lambda: shift(GOOD - 1, "blur", 1), "low="),
        (lambda: shift(GOOD, "blur", 1, low=1, high=0), "low="),
        (lambda: shift(GOOD, "blur", 1, low="dark"), "number"),
        (lambda: shift(GOOD, "blur", 1, high=np.nan), "low="),
        (lambda: shift(GOOD, "fog", 1), "rotation, noise"),
        (lambda: shift(GOOD, "blur", 6), "at most 5"),
        (lambda: shift(GOOD, "blur", -1), "strength"),
        (lambda: shift(GOOD, "blur", 1.5), "strength"),
        (lambda: shift(GOOD, "noise", 1, seed=-1), "seed"),
        (lambda: resize(GOOD, (4,)), "height, width"),
        (lambda: resize(GOOD, (4, 0)), "at least 1"),
        (lambda: resize(np.zeros((5, 3)), (4, 4)), "must be"),
    ],
)
def test_what_is_no_image_or_shift_is_refused(call, says):
    with pytest.raises(BadInput, match=says) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 2
