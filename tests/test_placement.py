"""Sites of a model, and models with dropout put there or taken away, on the backend of this process."""

import keras
import numpy as np
import pytest

from keras_dropout import BadInput, Dropout, PatchDropout, place, sites, strip
from keras_dropout.placement import adopt, is_dropout, resolve

L = keras.layers


def perceptron(dropout=None):
    layers = [L.Flatten(), L.Dense(20, "relu", name="a"), L.Dense(10, "relu", name="b"), L.Dense(3, "softmax", name="c")]
    if dropout:
        layers[2:2] = [dropout]
    return keras.Sequential([keras.Input((4, 4), name="x"), *layers])


def branches():
    """Two ways of different length, activations and normalisation as layers of their own, a layer used twice."""
    inputs = keras.Input((8,), name="x")
    shared = L.Dense(8, name="shared")
    left = L.Activation("relu")(L.BatchNormalization()(shared(shared(inputs))))
    left = L.Dense(6, "relu", name="left")(left)
    right = L.Dense(6, name="right")(inputs)
    return keras.Model(inputs, L.Dense(1, name="out")(L.ReLU()(L.Add()([left, right]))))


def names(model, *, group=None, last=None):
    return [s.name for s in sites(model) if (group is None or s.group == group) and (last is None or s.last == last)]


def dropped_behind(model):
    """The layer whose output goes into each dropout layer, by a graph walk of its own."""
    return [layer.input._keras_history.operation.name for layer in model.layers if is_dropout(layer)]


def test_sites_come_in_the_order_of_the_data():
    assert [(s.name, s.group, s.last, s.shape) for s in sites(perceptron())] == [
        ("x", "input", False, (4, 4)),
        ("a", "hidden", False, (20,)),
        ("b", "hidden", True, (10,)),
        ("c", "output", False, (3,)),
    ]


def test_sites_of_branches():
    assert set(names(branches(), group="hidden")) == {"shared", "left", "right"}
    assert set(names(branches(), last=True)) == {"left", "right"}
    assert names(branches(), group="output") == ["out"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("input", ["x"]),
        ("hidden", ["a", "b"]),
        ("last", ["b"]),
        ("all", ["x", "a", "b"]),
        ("a", ["a"]),
        ("[ab]", ["a", "b"]),
        ("c", ["c"]),
    ],
)
def test_patterns(pattern, expected):
    assert list(resolve(perceptron(), {pattern: 0.2})) == expected


def test_a_glob_does_not_mean_the_output_and_a_later_pattern_wins():
    assert resolve(perceptron(), {"*": 0.1, "b": 0.5}) == {"x": 0.1, "a": 0.1, "b": 0.5}


def test_dropout_stands_behind_the_site():
    assert dropped_behind(place(perceptron(), {"all": 0.2})) == ["x", "a", "b"]


def test_dropout_stands_behind_activation_and_normalisation():
    inputs = keras.Input((8,))
    x = L.ReLU(name="relu")(L.BatchNormalization()(L.Dense(8, name="d")(inputs)))
    model = keras.Model(inputs, L.Dense(1)(x))
    assert dropped_behind(place(model, {"d": 0.2})) == ["relu"]


@pytest.mark.parametrize("build", [perceptron, branches, lambda: perceptron(L.Dropout(0.5)), lambda: perceptron(Dropout(0.5))])
@pytest.mark.parametrize("placement", [{}, {"all": 0.3}, {"last": Dropout(0.5, seed=1)}])
def test_predictions_are_the_same_bit_for_bit(build, placement):
    model = build()
    x = np.random.default_rng(0).normal(size=(7, *model.input_shape[1:])).astype("float32")
    np.testing.assert_array_equal(place(model, placement).predict(x, verbose=0), model.predict(x, verbose=0))


def test_a_placement_replaces_the_dropout_that_is_there():
    for dropout in (L.Dropout(0.5), L.GaussianDropout(0.5), Dropout(0.5)):
        assert not any(map(is_dropout, strip(perceptron(dropout)).layers))
        assert dropped_behind(place(perceptron(dropout), {"last": 0.2})) == ["b"]
    patches = keras.Sequential([keras.Input((9, 4)), PatchDropout(0.5), L.GlobalAveragePooling1D(), L.Dense(3)])
    assert not any(map(is_dropout, strip(patches).layers))


def test_training_drops_where_it_was_put():
    model = place(perceptron(), {"input": 0.5})
    layer = next(layer for layer in model.layers if is_dropout(layer))
    x = np.ones((32, 4, 4), "float32")
    assert np.ptp(keras.ops.convert_to_numpy(model(x, training=True)), axis=0).max() > 0
    layer.rate = 0.0
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x, training=True)), keras.ops.convert_to_numpy(model(x)), rtol=1e-6)


def test_adopt_replaces_keras_dropout_and_keeps_sharing():
    inputs, shared = keras.Input((8,)), L.Dropout(0.25, name="d")
    model = adopt(keras.Model(inputs, L.Dense(1)(shared(L.Dense(8)(shared(inputs))))))
    found = [layer for layer in model.layers if is_dropout(layer)]
    assert [(type(layer), layer.rate, layer.name) for layer in found] == [(Dropout, 0.25, "d")]


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


REFUSED = [
    (lambda: place(perceptron(), {"nowhere": 0.2}), "unknown site 'nowhere'"),
    (lambda: place(perceptron(), {"hidden": 1.5}), "got 1.5"),
    (lambda: sites(Subclassed()), "subclassed"),
    (lambda: sites(keras.Sequential([L.Dense(3)])), "not built"),
    (lambda: sites("model"), "got str"),
]


@pytest.mark.parametrize(("act", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_cannot_be_done_is_refused(act, words):
    with pytest.raises(BadInput) as caught:
        act()
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
