"""The locally connected layer against its definition, and the networks that reproductions share."""

import keras
import numpy as np
import pytest

from keras_dropout.models.dropping import is_dropout
from keras_dropout.reproductions.networks import (
    LocallyConnected2D,
    language_model,
    localiser,
    on_garments,
    on_maps,
    perceptron,
    sgd,
)

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="reproductions choose their own backend")


@pytest.mark.parametrize("size", [1, 3])
def test_a_locally_connected_layer_has_weights_of_its_own_at_every_place(size):
    random = np.random.default_rng(0)
    layer = LocallyConnected2D(5, size, activation="relu")
    x = random.normal(size=(2, 4, 3, 2)).astype("float32")
    layer.build(x.shape)
    for weight in layer.weights:
        weight.assign(random.normal(size=weight.shape))
    kernel, bias = (np.asarray(weight) for weight in layer.weights)
    padded = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    expected = np.empty((2, 4, 3, 5))
    for i in range(4):
        for j in range(3):
            patch = padded[:, i : i + size, j : j + size].reshape(2, -1)
            expected[:, i, j] = patch @ kernel[i, j] + bias[i, j]
    assert np.allclose(layer(x), np.maximum(expected, 0), atol=1e-5)
    assert layer.compute_output_shape((None, 4, 3, 2)) == (None, 4, 3, 5)


def test_a_locally_connected_layer_is_made_again_from_its_configuration():
    layer = LocallyConnected2D(5, 3, activation="relu", name="local")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()
    assert (again.get_config()["filters"], again.get_config()["name"]) == (5, "local")


@pytest.mark.parametrize(
    "network",
    [
        lambda: perceptron((28, 28), (20, 10), sgd(0.1, 100), name="dense"),
        lambda: localiser(32, 4, "adam", "places"),
        lambda: language_model(81, 16, 1e-3, "text"),
    ],
)
def test_networks_are_compiled_and_without_dropout(network):
    model = network()
    assert model.compiled
    assert not any(map(is_dropout, model._flatten_layers()))


def test_a_network_is_named_after_its_sizes():
    assert perceptron((28, 28), (20, 10), "sgd").name == "mlp-784-20-10-10"
    assert perceptron((5,), (4,), "sgd", outputs=2, name="small").name == "small"


def test_the_rate_of_a_study_on_garments_falls_to_nothing_at_its_last_step():
    part = on_garments((20,), 0.1, {"half": {"hidden": 0.5}}, 1000, 6, 30)
    optimizer = part.model().optimizer
    assert (part.epochs, part.batch_size, part.keep_models) == (6, 30, False)
    last = 6 * 900 // 30  # a tenth of the images is for validation
    rates = [float(optimizer._learning_rate(step)) for step in (0, last - 1, last)]
    assert rates == pytest.approx([0.1, 0.1 / last, 0.0], rel=1e-4)


def test_the_learning_rate_falls_to_nothing():
    rates = [float(sgd(0.1, 100).learning_rate if step is None else sgd(0.1, 100)._learning_rate(step)) for step in (0, 50, 100)]
    assert rates == pytest.approx([0.1, 0.05, 0.0])


def test_methods_for_maps_stand_at_the_same_sites():
    found = on_maps("a", "b")
    assert list(found) == ["units", "channels", "blocks"]
    assert all(list(places) == ["a", "b"] for places in found.values())
