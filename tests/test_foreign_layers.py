"""Sites, placements and rates on layers that the project did not write, on the backend of this process."""

import warnings

import keras
import numpy as np
import pytest
from foreign_layers import FOREIGN, OwnDropPath, Sealed, SurvivingStochasticDepth, TwoSeeds, model_with
from keras import ops

from keras_dropout import BadInput, Dropout, place, set_rate, sites, strip
from keras_dropout.models.dropping import dropout_options, rate_of
from keras_dropout.models.randomness import still_random
from keras_dropout.sampling import drops

L = keras.layers
X = np.random.default_rng(0).normal(size=(4, 6, 8)).astype("float32")
CANNOT_BE_COPIED = {
    "a get_config that raises": "Raises 'foreign' cannot be copied: its get_config raises ValueError: no configuration"
}
CANNOT_BE_TAKEN_OUT = {"a layer of two inputs inside": "Both 'foreign' has dropout inside"}
NAMED_AS_RANDOM = {"two seed generators": "TwoSeeds 'foreign' still draws at random in training"}


def outputs(model, training=False):
    return ops.convert_to_numpy(model(X, training=training))


@pytest.mark.parametrize("name", FOREIGN)
def test_sites_strip_place_and_set_rate(name):
    """The layer is called twice. Without dropout, training is prediction; or what is left is named, or refused."""
    model = model_with(name, calls=2)
    assert {"x", "before", "head"} <= {site.name for site in sites(model)}
    refused = {**CANNOT_BE_COPIED, **CANNOT_BE_TAKEN_OUT}.get(name)
    if refused:
        for act in (strip, lambda model: place(model, {"before": 0.5})):
            with pytest.raises(BadInput, match=refused) as caught:
                act(model)
            assert len(str(caught.value).splitlines()) == 2
        return
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        bare, placed = strip(model), place(model, {"before": 0.5})
    told = [str(each.message) for each in told if each.category is UserWarning]
    np.testing.assert_allclose(outputs(bare), outputs(model), rtol=1e-5, atol=1e-6)
    if name in NAMED_AS_RANDOM:
        assert len(told) == 2
        assert told[0].startswith(NAMED_AS_RANDOM[name])
        return
    assert told == []
    np.testing.assert_allclose(outputs(bare, True), outputs(bare), rtol=1e-5, atol=1e-6)
    assert np.abs(outputs(placed, True) - outputs(placed)).max() > 1e-3
    set_rate(placed, 0.0)
    np.testing.assert_allclose(outputs(placed, True), outputs(placed), rtol=1e-5, atol=1e-6)


def test_what_is_inside_a_layer_is_shown_at_its_site():
    (site,) = (site for site in sites(model_with("a Keras Dropout inside")) if site.name == "foreign")
    assert [(d["layer"], d["kind"], d["rate"]) for d in site.dropout] == [("foreign/drop", "Dropout", 0.5)]


class Options(L.Layer):
    def __init__(self, given):
        super().__init__()
        self.given = given

    def get_config(self):
        return self.given


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ({"drop_path_rate": 0.5}, 0.5),
        ({"drop_prob": 0.5}, 0.5),
        ({"drop_connect_rate": 0.5}, 0.5),
        ({"stochastic_depth_rate": 0.5}, 0.5),
        ({"survival_probability": 0.75}, 0.25),
        ({"keep_prob": 0.75}, 0.25),
        ({"attn_drop": 0.5}, 0.5),
        ({"drop_path_rates": [0.0, 0.25, 0.5]}, 0.5),
        ({"layer": {"class_name": "Dropout", "config": {"rate": 0.5}}}, 0.5),
        ({"layer": {"class_name": "Sampled", "config": {"rate": 0.5}}}, None),
        ({"survival_probability": 1.0}, None),
        ({"dropout_seed": 1}, None),
        ({"dropout_noise_shape": [1, 1]}, None),
        ({"drop_last": True}, None),
        ({"dropout": 0}, None),
    ],
    ids=str,
)
def test_options_that_are_rates_of_dropout(given, rate):
    assert [found for *_, found in dropout_options(Options(given))] == ([] if rate is None else [rate])


def two_ways(depth):
    inputs = keras.Input((6, 8))
    x = L.Dense(8, "relu")(inputs)
    return keras.Model(inputs, L.Dense(1)(depth([x, L.Dense(8)(x)])))


@keras.saving.register_keras_serializable("foreign")
class ScaledStochasticDepth(SurvivingStochasticDepth):
    """It scales in training: at prediction the inputs are added."""

    def call(self, inputs, training=False):
        shortcut, residual = inputs
        return super().call([shortcut, residual / self.survival_probability], training)


def test_stochastic_depth_of_two_inputs_is_turned_off_and_not_left_out():
    model = two_ways(ScaledStochasticDepth(0.25))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # it still draws, to no effect
        bare = strip(model)
    np.testing.assert_allclose(outputs(bare), outputs(model), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs(bare, True), outputs(bare), rtol=1e-5, atol=1e-6)
    assert np.ptp(outputs(model, True) - outputs(model)) > 1e-3


def test_a_layer_that_predicts_something_else_with_dropout_off_is_refused():
    with pytest.raises(BadInput, match="made again with its dropout off, predicts something else"):
        strip(two_ways(SurvivingStochasticDepth(0.25)))


class WithNumpy(L.Layer):
    """Draws past Keras."""

    def call(self, x, training=False):
        return x + np.random.default_rng().normal() if training else x


def test_what_still_draws_is_found():
    def found(layer):
        inputs = keras.Input((4, 4, 3))
        return [type(each).__name__ for _, each in still_random(keras.Model(inputs, L.Flatten()(layer(inputs))))]

    assert found(TwoSeeds()) == ["TwoSeeds"]
    assert found(WithNumpy()) == ["WithNumpy"]
    assert found(L.GaussianNoise(0.1)) == ["GaussianNoise"]
    assert found(Sealed()) == ["Sealed"]
    for other in (L.BatchNormalization(), L.RandomFlip(), L.GaussianNoise(0.0), Dropout(0.5), OwnDropPath(), L.Dropout(0.5)):
        assert found(other) == []


def test_rates_inside_foreign_layers_are_reached_by_path():
    @keras.saving.register_keras_serializable("foreign")
    class Ours(L.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.drop = Dropout(0.1, name="drop")

        def call(self, x, training=False):
            return self.drop(x, training=training)

    a, b, c = (Ours(name=name) for name in "abc")
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, c(b(L.MultiHeadAttention(2, 4)(a(inputs), a.output))))
    set_rate(model, 0.5)
    assert [each.drop.rate for each in (a, b, c)] == [0.5, 0.5, 0.5]
    set_rate(model, {"a/drop": 0.2, "c/*": 0.3})
    assert [each.drop.rate for each in (a, b, c)] == [0.2, 0.5, 0.3]
    set_rate(model, {"drop": 0.4})
    assert [each.drop.rate for each in (a, b, c)] == [0.4, 0.4, 0.4]


@keras.saving.register_keras_serializable("foreign")
class SomeDropPath(L.Layer):
    """Calls its rate drop_prob, as many do."""

    def __init__(self, drop_prob=0.0, **kwargs):
        super().__init__(**kwargs)
        self.drop_prob, self.seeds = drop_prob, keras.random.SeedGenerator(1)

    def call(self, x, training=False):
        if not training or not self.drop_prob:
            return x
        return keras.random.dropout(x, self.drop_prob, noise_shape=(ops.shape(x)[0], *[1] * (len(x.shape) - 1)), seed=self.seeds)

    def get_config(self):
        return {**super().get_config(), "drop_prob": self.drop_prob}


@keras.saving.register_keras_serializable("foreign")
class WithDropPath(L.Layer):
    def __init__(self, drop_path=0.0, **kwargs):
        super().__init__(**kwargs)
        self.drop_path, self.dense, self.inner = drop_path, L.Dense(8), SomeDropPath(drop_path)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x, training=False):
        return x + self.inner(self.dense(x), training=training)

    def get_config(self):
        return {**super().get_config(), "drop_path": self.drop_path}


class UnknownDropPath(L.Layer):
    """Does not say what it drops."""

    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("layer", "rate"),
    [
        (SomeDropPath(0.0), 0.0),
        (SomeDropPath(0.25), 0.25),
        (OwnDropPath(0.5), 0.5),
        (OwnDropPath(0.0), 0.0),
        (SurvivingStochasticDepth(0.75), 0.25),
        (SurvivingStochasticDepth(1.0), 0.0),
        (UnknownDropPath(), None),
        (L.Dropout(0.5), 0.5),
        (L.TimeDistributed(L.Dropout(0.5)), 0.5),
        (Dropout(0.0), 0.0),
    ],
    ids=lambda each: type(each).__name__,
)
def test_the_rate_of_a_dropout_layer_whatever_it_is_called(layer, rate):
    assert rate_of(layer) == (None if rate is None else pytest.approx(rate))
    assert drops(layer) == (rate != 0)


def test_a_block_whose_drop_path_is_turned_off_drops_no_more():
    def model_of(rate):
        return keras.Sequential([keras.Input((6, 8)), WithDropPath(rate, name="block"), L.Flatten(), L.Dense(1)])

    model = model_of(0.5)
    assert [each["rate"] for each in sites(model)[1].dropout] == [0.5]
    assert not any(site.dropout for site in sites(model_of(0.0)))
    bare = strip(model)
    np.testing.assert_array_equal(outputs(bare), outputs(model))
    np.testing.assert_allclose(outputs(bare, True), outputs(bare), rtol=1e-5, atol=1e-6)
    assert np.ptp(outputs(model, True) - outputs(model)) > 1e-3
    for each in (model, model_of(0.0)):
        placed = place(each, {"block": 0.5})
        assert sum(drops(layer) for layer in placed._flatten_layers()) == 1


def test_a_layer_that_cannot_be_tried_but_is_off_is_not_warned_of():
    @keras.saving.register_keras_serializable("foreign")
    class Particular(SomeDropPath):
        def call(self, x, training=False):
            if x.shape[0] == 2:
                raise ValueError("not two rows")
            return super().call(x, training)

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        strip(keras.Sequential([keras.Input((8,)), Particular(0.3), L.Dense(4), L.Dense(1)]))
