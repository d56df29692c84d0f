"""The laws of ShakeShake, on the backend of this process."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_dropout import BadInput, ShakeShake
from keras_dropout.testing.backend import gradient

RNG = np.random.default_rng(0)
F1, F2 = RNG.normal(size=(2, 400, 3, 5)).astype("float32")


def numpy(x):
    return ops.convert_to_numpy(x)


def weights(y):
    """a of y = a f1 + (1 - a) f2, for each unit."""
    return (numpy(y) - F2) / (F1 - F2)


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_one_weight_mixes_the_branches_of_an_example_or_a_batch(mode):
    layer = ShakeShake(mode=mode, seed=3)
    apart = np.abs(F1 - F2) > 0.1
    a = np.where(apart, weights(layer([F1, F2], training=True)), np.nan)
    per_example = np.nanmean(a, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(np.nan_to_num(a - per_example), 0, atol=2e-4)
    assert (per_example.std() > 0.1) == (mode == "row")


def test_weights_are_uniform():
    layer = ShakeShake(seed=4)
    ones, zeros = np.ones((20_000, 1), "float32"), np.zeros((20_000, 1), "float32")
    a = np.sort(numpy(layer([ones, zeros], training=True)).ravel())
    # Kolmogorov and Smirnov's distance; beyond 2.5 / sqrt(n) by chance once in 100,000.
    assert np.abs(a - (np.arange(a.size) + 0.5) / a.size).max() < 2.5 / np.sqrt(a.size)


def test_inference_is_the_mean_and_takes_no_draw():
    one, other = ShakeShake(seed=5), ShakeShake(seed=5)
    np.testing.assert_allclose(numpy(one([F1, F2])), (F1 + F2) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(numpy(one([F1, F2], training=True)), numpy(other([F1, F2], training=True)))


def test_backward_has_a_weight_of_its_own():
    stacked = np.stack([F1[..., 0], F2[..., 0]], axis=1)
    found = gradient(ShakeShake(seed=6), stacked, np.ones_like(F1[..., 0]))
    b = found[:, 0, 0]
    np.testing.assert_allclose(found[:, 0], np.repeat(b[:, None], 3, axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert (b >= 0).all() and (b < 1).all()  # noqa: PT018
    a = numpy(ShakeShake(seed=6)([np.ones((400, 1), "float32"), np.zeros((400, 1), "float32")], training=True))[:, 0]
    correlation = np.corrcoef(a, b)[0, 1]
    assert abs(correlation) < 5 / np.sqrt(400)


def test_a_stacked_tensor_is_the_two_branches():
    one, other = ShakeShake(seed=7), ShakeShake(seed=7)
    found = numpy(one(np.stack([F1, F2], axis=1), training=True))
    assert found.shape == F1.shape
    np.testing.assert_array_equal(found, numpy(other([F1, F2], training=True)))


def test_it_is_saved_and_goes_on_inside_a_residual_block(tmp_path):
    inputs = keras.Input((6,))
    branches = [keras.layers.Dense(6, "relu")(inputs) for _ in range(2)]
    model = keras.Model(inputs, keras.layers.Add()([inputs, ShakeShake(seed=8)(branches)]))
    model.compile("sgd", "mse")
    x = RNG.normal(size=(50, 6)).astype("float32")
    model.fit(x, x, batch_size=20, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numpy(loaded(x, training=True)), numpy(model(x, training=True)), rtol=1e-5, atol=1e-6)


def test_a_padding_mask_is_passed_on():
    ids = np.array([[1, 2, 0], [3, 0, 0]])
    inputs = keras.Input((3,), dtype="int32")
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(inputs)
    y = ShakeShake()([keras.layers.Dense(4)(embedded), keras.layers.Dense(4)(embedded)])
    pooled = keras.layers.GlobalAveragePooling1D()(y)
    both = keras.Model(inputs, [y, pooled])
    steps, mean = both.predict(ids, verbose=0)
    expected = np.stack([row[:n].mean(axis=0) for row, n in zip(steps, (2, 1))])
    np.testing.assert_allclose(mean, expected, rtol=1e-5)


BAD_INPUTS = {"one branch": [F1], "three branches": [F1, F2, F1], "two shapes": [F1, F2[:, :2]], "not stacked": F1}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_what_is_not_two_branches_is_refused(name):
    with pytest.raises(BadInput, match="two branches of one shape"):
        ShakeShake()(BAD_INPUTS[name], training=True)


@pytest.mark.parametrize("arguments", [{"mode": "column"}, {"seed": 1.5}, {"seed": "a"}], ids=str)
def test_bad_arguments_are_refused_in_two_lines(arguments):
    with pytest.raises(BadInput) as caught:
        ShakeShake(**arguments)
    assert len(str(caught.value).splitlines()) == 2
