"""What reproductions measure of trained models, against what is computed another way."""

import keras
import numpy as np
import pytest

from keras_dropout import Dropout, place
from keras_dropout.bench.data.dataset import Data
from keras_dropout.layers import SparseVariationalDropout
from keras_dropout.reproductions import (
    baldi_average,
    concrete_rate,
    gal_regression,
    li_variance_shift,
    molchanov_pruning,
    networks,
    warde_farley_geometric,
)

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="reproductions choose their own backend")


def images(count: int = 300) -> Data:
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (2 * count, 28, 28)).astype("uint8"), random.integers(0, 10, 2 * count).astype("uint8")
    return Data("noise", (x[:count], y[:count]), (x[count:], y[count:]), validation=20, divide_by=255.0)


def test_masks_are_all_that_there_are_and_as_probable_as_dropout_draws_them():
    masks, chances = networks.all_masks(4, 0.2)
    assert len({tuple(mask) for mask in masks}) == 16
    assert chances.sum() == pytest.approx(1)
    drawn = keras.ops.convert_to_numpy(Dropout(0.2, seed=1)(np.ones((20_000, 4), "float32"), training=True)) > 0
    number = drawn @ (2 ** np.arange(4))
    shares = np.bincount(number, minlength=16) / len(drawn)
    assert np.abs(shares - chances).max() < 5 * np.sqrt(0.25 / len(drawn))


def test_the_geometric_mean_is_the_product_of_powers():
    averages = baldi_average._Averages(0, 0.5, "sigmoid")
    outputs = 1 / (1 + np.exp(-averages._sums))
    right, wrong = (np.prod(each ** (1 / len(outputs)), axis=0) for each in (outputs, 1 - outputs))
    np.testing.assert_allclose(averages.geometric(), right / (right + wrong), rtol=1e-9)


def test_a_normalisation_estimated_anew_gives_standardised_inputs():
    inputs = values = keras.Input((5,))
    for _ in range(2):
        values = keras.layers.Dense(4)(Dropout(0.5)(values))
        values = keras.layers.BatchNormalization(center=False, scale=False, epsilon=1e-6)(values)
    model = keras.Model(inputs, values)
    x = np.random.default_rng(0).normal(2, 3, (300, 5)).astype("float32")
    li_variance_shift.estimate_anew(model, x)
    values = keras.ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(values.var(0), 1, atol=0.01)


def test_the_shift_of_a_network_whose_moments_are_right_is_1():
    model, data = li_variance_shift._model(1), images()
    li_variance_shift.estimate_anew(model, (data.train.x[20:] / 255).astype("float32"))
    found = li_variance_shift.shift(model, data)
    assert found["variance_ratio"] == pytest.approx(1, abs=1e-3)
    assert found["loss"] == pytest.approx(found["loss_estimated_anew"], abs=1e-5)


def test_sparsity_is_counted_over_the_weights():
    units = (784, 8, 10)
    layers = [
        SparseVariationalDropout(keras.layers.Dense(each, activation), kl_weight=0.0, log_variance=-20.0)
        for each, activation in ((8, "relu"), (10, "softmax"))
    ]
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), *layers])
    noisy = np.full(layers[0].log_sigma2.shape, -20.0)
    noisy[:392] = 20.0  # half of the rows
    layers[0].log_sigma2.assign(noisy)
    found = molchanov_pruning.sparsity(model, images())
    assert (found["first"], found["last"]) == (pytest.approx(0.5), 0.0)
    total = units[0] * units[1] + units[1] * units[2]
    assert found["compression"] == pytest.approx(total / (total - 392 * units[1]))


def test_passes_of_a_regression_cannot_be_worse_together_than_alone():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(120, 10)).astype("float32"), random.normal(size=(120, 1)).astype("float32")
    data = Data("noise", (x[:80], y[:80]), (x[80:], y[80:]), validation=40)
    found = gal_regression.sampled(place(gal_regression._model(80), {"inputs": 0.3, "hidden": 0.3}), data)
    assert found["rmse_mean"] < found["rmse_single"]
    assert found["log_likelihood_mean"] > found["log_likelihood_single"]


def test_an_epoch_of_the_line_shows_each_point_equally_often():
    few, many = concrete_rate.line(20), concrete_rate.line(1000)
    x = few.parts("held-out")["train"].x
    assert len(np.unique(x)) == 20
    assert len(x) == 1000
    assert set(np.unique(x)) <= set(np.unique(many.train.x))
    assert np.array_equal(few.test.x, many.test.x)
    assert np.array_equal(few.train.x[:200], many.train.x[:200])
    assert not set(np.unique(few.train.x[:200])) & set(np.unique(many.train.x[200:]))


def test_the_thinned_networks_are_those_of_dropout():
    model = keras.models.clone_model(place(networks.perceptron((10,), (6, 6), "sgd", outputs=2, name="net"), {"hidden": 0.5}))
    x = np.random.default_rng(0).normal(size=(7, 10)).astype("float32")
    logs, chances = warde_farley_geometric.thinned(model, x)
    assert logs.shape == (4096, 7, 2)
    assert chances.sum() == pytest.approx(1)
    drawn = np.log(keras.ops.convert_to_numpy(model(x, training=True)))
    for example in range(7):  # each has masks of its own
        assert np.abs(logs[:, example] - drawn[example]).max(1).min() < 1e-5
