"""What the reproductions of the tutorial, and of Srivastava et al. 2014, measure of trained models, against cases known by hand."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_dropout
from keras_dropout.bench.data.dataset import Data
from keras_dropout.reproductions import srivastava_max_norm, srivastava_sparsity, tutorial_ensemble, tutorial_evaluation

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="reproductions choose their own backend")


def _images(side: int = 4, train: int = 60, test: int = 40) -> Data:
    rng = np.random.default_rng(0)
    parts = ((rng.integers(1, 256, (n, side, side), "uint8"), rng.integers(0, 3, n)) for n in (train, test))
    return Data("squares", *parts, validation=10, divide_by=255.0)


def _network(dropout: keras.layers.Layer) -> keras.Model:
    layers = [keras.Input((4, 4)), keras.layers.Flatten(), dropout, keras.layers.Dense(3, "softmax")]
    return keras.Sequential(layers)


def test_evaluations_are_the_same_and_passes_in_training_are_not():
    keras.utils.set_random_seed(0)  # the losses are those of a network that has learned nothing, near to each other
    found = tutorial_evaluation.on_and_off(_network(keras_dropout.Dropout(0.5)), _images(train=5000))
    assert found["outputs that differ, evaluation"] == 0
    assert found["share that differs, training"] > 0.9
    assert found["training loss less evaluation loss"] > 0


def test_without_dropout_training_and_evaluation_are_one():
    found = tutorial_evaluation.on_and_off(_network(keras_dropout.Dropout(0.0)), _images())
    assert found["share that differs, training"] == 0
    assert found["training loss less evaluation loss"] == pytest.approx(0, abs=1e-6)


def test_a_layer_that_acts_in_evaluation_is_found():
    class Always(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dropout = keras.layers.Dropout(0.5)

        def call(self, inputs):
            return self.dropout(inputs, training=True)

    found = tutorial_evaluation.on_and_off(_network(Always()), _images())
    assert found["outputs that differ, evaluation"] > 100  # of 120


@pytest.mark.parametrize(("rate", "again"), [(0.5, (50 * 60) * (50 * 60 - 1) / 2 * 2.0**-16), (1e-3, 50 * 60 - 1)])
def test_networks_that_a_training_meets_again(rate, again):
    """50 images in 60 epochs, 16 pixels: pairs of draws times the chance that two are the same; never more than all but one."""
    found = tutorial_ensemble.thinned(_network(keras_dropout.Dropout(rate)), _images())
    assert found["networks met again"] == pytest.approx(again, rel=1e-3)
    assert found["NLL, 100 averaged"] <= found["NLL, one network"] + 1e-9


def test_activations_of_hidden_units():
    images = srivastava_sparsity._reconstruction(_images(side=28))
    model = srivastava_sparsity._autoencoder()
    kernel, bias = np.zeros((784, 256), "float32"), np.zeros(256, "float32")
    bias[:64], bias[64:96] = 0.5, 4.0
    model.get_layer("hidden").set_weights([kernel, bias])
    found = srivastava_sparsity.activations(model, images)
    assert found["mean activation"] == pytest.approx((64 * 0.5 + 32 * 4) / 256)
    assert found["share of zeros"] == pytest.approx(160 / 256)
    assert found["share above 1"] == pytest.approx(32 / 256)


def test_the_answers_of_an_autoencoder_are_what_it_sees():
    images = srivastava_sparsity._reconstruction(_images(side=28))
    for part in (images.train, images.test):
        np.testing.assert_array_equal(part.y, part.x.astype("float32") / np.float32(255))
        assert part.x.shape[1:] == (784,)


def test_a_strength_is_chosen_by_the_validation_loss_and_judged_by_the_test_loss():
    losses = {
        ("validation_loss", "L2 1"): [0.5, 0.3],
        ("validation_loss", "L2 2"): [0.3, 0.4],
        ("validation_loss", "max-norm 1"): [0, 0],
    }
    losses |= {("test_loss", "L2 1"): [0.1, 0.1], ("test_loss", "L2 2"): [0.6, 0.7], ("test_loss", "max-norm 1"): [0.2, 0.3]}
    names = ["L2 1", "L2 2", "max-norm 1"]
    found = SimpleNamespace(comparisons=names, values=lambda metric, variant, part: np.array(losses[metric, part]))
    assert srivastava_max_norm._loss(found, "none", "L2").tolist() == [0.6, 0.7]
