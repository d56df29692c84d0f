"""What is particular to activations that are random, on the backend of this process; and what becomes of them."""

import keras
import numpy as np
from keras import ops

from keras_dropout import DropActivation, Masksembles, ModalityDropout, RReLU, strip

X = np.random.default_rng(0).normal(size=(300, 200)).astype("float32")


def train(layer):
    return ops.convert_to_numpy(layer(X, training=True))


def test_dropped_activations_are_linear_and_the_mean_is_that_of_prediction():
    for activation, function in (("relu", lambda x: np.maximum(x, 0)), (keras.activations.tanh, np.tanh)):
        layer = DropActivation(0.3, activation=activation, seed=1)
        y = train(layer)
        linear, active = np.isclose(y, X, rtol=1e-6), np.isclose(y, function(X), rtol=1e-5, atol=1e-7)
        assert (linear | active).all()
        told = ~(linear & active)
        assert abs(linear[told].mean() - 0.3) < 5 * np.sqrt(0.21 / told.sum())
        np.testing.assert_allclose(ops.convert_to_numpy(layer(X)), 0.7 * function(X) + 0.3 * X, rtol=1e-4, atol=1e-5)


def test_slopes_are_uniform_between_the_ends_and_positive_values_stay():
    y = train(RReLU((0.2, 0.4), seed=1))
    np.testing.assert_array_equal(y[X >= 0], X[X >= 0])
    slopes = (y / X)[X < 0]
    assert slopes.min() > 0.2 - 1e-5
    assert slopes.max() < 0.4 + 1e-5
    shares = np.histogram(slopes, 8, (0.2 - 1e-5, 0.4 + 1e-5))[0] / len(slopes)
    assert (np.abs(shares - 1 / 8) < 5 * np.sqrt(7 / 64 / len(slopes))).all()


def test_what_is_part_of_the_network_at_prediction_is_not_stripped():
    layers = [DropActivation(0.3), RReLU(), Masksembles(4, 2.0, seed=1)]
    model = keras.Sequential([keras.Input((200,)), *(each for n in layers for each in (keras.layers.Dense(16), n))])
    bare = strip(model)
    np.testing.assert_allclose(bare.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
    assert [type(layer) for layer in bare.layers] == [type(layer) for layer in model.layers]


def test_a_layer_that_tells_what_it_dropped_is_not_stripped_and_one_that_does_not_is():
    for presence in (True, False):
        inputs = [keras.Input((2,)), keras.Input((2,))]
        outputs = keras.layers.Concatenate()(list(ModalityDropout(0.5, presence=presence)(inputs)))
        bare = strip(keras.Model(inputs, keras.layers.Dense(1)(outputs)))
        assert any(isinstance(layer, ModalityDropout) for layer in bare.layers) == presence
