"""What is particular to the layers that drop units, on the backend of this process; what all layers share is in the contract."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_dropout import (
    AlphaDropout,
    BadInput,
    Dropout,
    FeatureAlphaDropout,
    GaussianDropout,
    Masksembles,
    NestedDropout,
    SpatialDropout1D,
    SpatialDropout2D,
    WordDropout,
    ensemble,
    moments,
    sampling,
    sites,
    thinning,
)
from keras_dropout.testing import backend

X = np.random.default_rng(0).uniform(1, 2, (64, 5, 16)).astype("float32")


def train(layer, x=X):
    return ops.convert_to_numpy(layer(x, training=True))


def train_at(layer, x, rates):
    return ops.convert_to_numpy(layer(x, training=True, rate=rates.astype("float32")))


# Dropout


def test_kept_units_are_scaled_exactly_and_the_rest_are_zero():
    y = train(Dropout(0.5, seed=0))
    np.testing.assert_array_equal(y, np.where(y != 0, X * np.float32(2), 0))
    assert 0.4 < (y == 0).mean() < 0.6


def test_rate_one_gives_zeros_and_zero_gradient():
    np.testing.assert_array_equal(train(Dropout(1, seed=0)), 0 * X)
    np.testing.assert_array_equal(backend.gradient(Dropout(1, seed=0), X, np.ones_like(X)), 0 * X)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_dropped_nan_or_inf_becomes_zero(value):
    y = train(Dropout(0.5, seed=0), np.full((100, 100), value, "float32"))
    kept = y != 0
    np.testing.assert_array_equal(y[kept], value)
    assert abs(kept.mean() - 0.5) < 5 * 0.5 / 100


def test_unseeded_layers_follow_set_random_seed():
    def draw():
        keras.utils.set_random_seed(12)
        return train(Dropout(0.5))

    found = draw()
    assert 0 < (found == 0).mean() < 1
    np.testing.assert_array_equal(draw(), found)


def test_a_shared_layer_draws_anew_at_each_call_of_a_step():
    layer = Dropout(0.5, seed=0)
    inputs = keras.Input((200,))
    model = keras.Model(inputs, [layer(inputs), layer(inputs)])
    first, second = (ops.convert_to_numpy(y) != 0 for y in model(np.ones((50, 200), "float32"), training=True))
    assert abs((first == second).mean() - 0.5) < 5 * 0.5 / np.sqrt(first.size)


def test_a_padding_mask_reaches_the_layer_behind():
    inputs = keras.Input((5,))
    x = keras.layers.Embedding(10, 4, mask_zero=True)(inputs)
    model = keras.Model(inputs, keras.layers.LSTM(3)(Dropout(0.0)(x)))
    plain = keras.Model(inputs, model.layers[-1](x))
    ids = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 0, 0]])
    np.testing.assert_allclose(model.predict(ids, verbose=0), plain.predict(ids, verbose=0), rtol=1e-6)


@pytest.mark.parametrize("several", [[X, X], (keras.Input((3,)), keras.Input((3,)))])
def test_several_tensors_are_refused(several):
    for layer in (Dropout(0.5), WordDropout(0.5, 1)):
        with pytest.raises(BadInput, match="must be one tensor; got a ") as caught:
            layer(several)
        assert len(str(caught.value).splitlines()) == 2


def test_a_seed_may_be_any_whole_number():
    layer = Dropout(0.5, seed=np.int64(3))
    assert type(layer.get_config()["seed"]) is int
    np.testing.assert_array_equal(train(layer), train(Dropout(0.5, seed=3)))


@pytest.mark.parametrize("layer", [Dropout, GaussianDropout, AlphaDropout])
def test_setting_a_bad_rate_is_refused_and_changes_nothing(layer):
    layer = layer(0.5)
    for rate in (2, -0.1, float("nan"), "0.5", None):
        with pytest.raises(BadInput):
            layer.rate = rate
    assert layer.rate == 0.5


# Rates at the call


@pytest.mark.parametrize(
    ("layer", "shape", "rates"),
    [
        (Dropout, (5, 4000), np.array([[0], [0.1], [0.3], [0.7], [1]])),  # per example
        (Dropout, (50, 80, 5), np.array([[[0, 0.1, 0.3, 0.7, 1]]])),  # per channel
        (Dropout, (400, 5, 10), np.linspace(0, 1, 5)[None, :, None]),  # per token
        (SpatialDropout1D, (4000, 2, 3), np.array([[[0.2, 0.5, 0.9]]])),
        (SpatialDropout2D, (4, 2, 2, 4000), np.array([0, 0.4, 0.8, 1])[:, None, None, None]),
    ],
)
def test_each_draw_has_the_rate_that_it_is_given(layer, shape, rates):
    y = train_at(layer(0.5, seed=3), np.ones(shape, "float32"), rates)
    each = np.broadcast_to(rates.astype("float32"), shape)
    np.testing.assert_allclose(y[y != 0], (1 / np.maximum(1 - each, 1e-9))[y != 0], rtol=1e-5)
    along = tuple(axis for axis, n in enumerate(rates.shape) if n == 1)
    spatial = shape[1:-1] if layer is not Dropout else ()
    draws = np.prod(shape) / rates.size / np.prod(spatial)
    off = np.abs((y == 0).mean(axis=along, keepdims=True) - rates)
    assert (off <= 5 * np.sqrt(rates * (1 - rates) / draws)).all(), off


@pytest.mark.parametrize("layer", [Dropout, SpatialDropout1D])
def test_rates_at_the_call_meet_the_draws_of_the_layers_own(layer):
    same = np.full((1, 1, 16), 0.3)
    np.testing.assert_array_equal(train_at(layer(0.9, seed=2), X, same), train(layer(0.3, seed=2)))
    low, high = (train_at(layer(0.9, seed=2), X, same + more) != 0 for more in (0, 0.4))
    assert (low | ~high).all()
    assert low.sum() > high.sum()
    used = layer(0.3, seed=2)
    train_at(used, X, same)  # a step of the same sequence
    expected = layer(0.3, seed=2)
    train(expected)
    np.testing.assert_array_equal(train(used), train(expected))


class GivenRates(keras.layers.Layer):
    """Drops ones at the rates that come in, or what comes in at fixed rates."""

    def __init__(self, values=None, rates=None):
        super().__init__()
        self.values, self.rates, self.drop = values, rates, Dropout(0.5, seed=4)
        self.build((64, 20))

    def call(self, inputs, training=False):
        if self.values is None:
            return self.drop(inputs, training=training, rate=self.rates)
        return self.drop(self.values, training=training, rate=inputs)


def test_no_gradient_goes_into_the_rates_and_that_of_the_values_is_the_factor():
    rates = np.random.default_rng(0).uniform(0.1, 0.9, (64, 20)).astype("float32")
    ones = np.ones_like(rates)
    assert train(GivenRates(values=ones), rates).std() > 0.5
    np.testing.assert_array_equal(backend.gradient(GivenRates(values=ones), rates, ones), 0 * ones)
    factor = train(GivenRates(rates=rates), ones)
    np.testing.assert_allclose(backend.gradient(GivenRates(rates=rates), ones, 3 * ones), 3 * factor, rtol=1e-6)


def test_rates_at_the_call_are_obeyed_in_a_compiled_step():
    layer = GivenRates(rates=np.array([[0.0], [1.0]] * 32, "float32"))
    y = backend.compiled_training(layer)(np.ones((64, 20), "float32"))
    np.testing.assert_array_equal(y, np.array([[1.0], [0.0]] * 32) * np.ones((64, 20)))


def test_a_rate_outside_of_0_to_1_makes_nan_of_what_it_is_for():
    y = train_at(Dropout(0.5), np.ones((4, 6), "float32"), np.array([[0.0], [-0.1], [1.1], [np.nan]]))
    assert np.isnan(y).all(axis=1).tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        (np.full(16, 0.5), "rate at the call must have, for each axis of"),
        (np.full((64, 1), 0.5), "its size or 1; got shape"),
        (np.full((1, 1, 5), 0.5), "its size or 1; got shape"),
        (1.5, r"rate must be a number in \[0, 1\]"),
        ("0.5", "rate must be a number"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_rates_that_stand_for_no_draws_are_refused(rates, said, training):
    with pytest.raises(BadInput, match=said):
        Dropout(0.5)(X, training=training, rate=rates if isinstance(rates, (str, float)) else rates.astype("float32"))
    with pytest.raises(BadInput, match="its size or 1; got shape"):  # one draw for all steps
        SpatialDropout1D(0.5)(X, training=training, rate=np.full((1, 5, 1), 0.5, "float32"))
    with pytest.raises(BadInput, match="must be floating point"):
        Dropout(0.5)(X, training=training, rate=np.ones((1, 1, 16), "int32"))


def test_what_reads_a_layers_rate_knows_that_calls_give_others():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(Dropout(0.0, name="d")(inputs, rate=keras.ops.sigmoid(inputs))))
    x = np.ones((3, 6), "float32")
    for read in (lambda: moments.propagate(model, x), lambda: thinning.thin(model), lambda: ensemble.networks(model)):
        with pytest.raises(BadInput, match="Dropout"):
            read()
    (_, _, found), *_ = sampling.Passes.of(model).run(x, 20, lambda outputs: {"outputs": outputs})
    assert found["outputs"].std(axis=0).max() > 1e-3
    assert [each["rate"] for site in sites(model) for each in site.dropout] == [None]


# GaussianDropout


@pytest.mark.parametrize("layer", [GaussianDropout, AlphaDropout, FeatureAlphaDropout])
def test_a_rate_that_is_1_in_float32_is_refused(layer):
    with pytest.raises(BadInput, match="which is 1 in float32"):
        layer(0.99999999)
    assert np.isfinite(train(layer(0.9999999), np.ones((8, 3, 5), "float32"))).all()


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.9])
def test_gaussian_noise_has_dropouts_mean_and_variance(rate):
    e = train(GaussianDropout(rate, seed=1), np.ones((1000, 500), "float32")).astype("float64")
    variance = rate / (1 - rate)
    assert abs(e.mean() - 1) < 5 * np.sqrt(variance / e.size)
    assert abs(e.var() / variance - 1) < 5 * np.sqrt(2 / e.size)


def test_gaussian_noise_turns_the_sign_of_one_in_six_at_half():
    e = train(GaussianDropout(0.5, seed=2), np.ones((1000, 500), "float32"))
    assert abs((e < 0).mean() - 0.15866) < 5 * np.sqrt(0.15866 * 0.84134 / e.size)


# AlphaDropout: rate, A, B and the value of what is dropped, as in Klambauer et al. 2017.

CONSTANTS = [
    (0.05, 0.954844, 0.083936, -1.594776),
    (0.1, 0.921285, 0.161971, -1.457739),
    (0.2, 0.878904, 0.309040, -1.236160),
    (0.5, 0.886405, 0.779194, -0.779194),
]


@pytest.mark.parametrize(("rate", "a", "b", "dropped"), CONSTANTS)
@pytest.mark.parametrize("kind", [AlphaDropout, FeatureAlphaDropout])
def test_alpha_dropouts_constants(kind, rate, a, b, dropped):
    x = np.random.default_rng(0).normal(size=(50, 40, 30)).astype("float32")
    y = train(kind(rate, seed=1), x)
    gone = np.isclose(y, dropped, atol=1e-5)
    np.testing.assert_allclose(y[~gone], (a * x + b)[~gone], rtol=1e-5, atol=2e-6)
    draws = x.size if kind is AlphaDropout else 50 * 30
    assert abs(gone.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / draws)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
def test_alpha_dropout_keeps_mean_0_and_variance_1(rate):
    x = np.random.default_rng(1).normal(size=(1000, 1000)).astype("float32")
    y = train(AlphaDropout(rate, seed=2), x).astype("float64")
    assert abs(y.mean()) < 5e-3
    assert abs(y.var() - 1) < 5 * np.sqrt(((y**2).var()) / y.size)


def test_alpha_dropout_does_not_keep_other_moments():
    """As the docstring says: for mean 1 and deviation 2, mean 0.44 and deviation 1.75 at rate 0.5."""
    x = np.random.default_rng(2).normal(1, 2, (1000, 1000)).astype("float32")
    y = train(AlphaDropout(0.5, seed=3), x)
    assert y.mean() == pytest.approx(0.443, abs=0.01)
    assert y.std() == pytest.approx(1.751, abs=0.01)


def test_a_self_normalising_network_keeps_its_moments_through_alpha_dropout():
    x = np.random.default_rng(3).normal(size=(2000, 256)).astype("float32")
    layers = []
    for number in range(8):
        initial = keras.initializers.LecunNormal(seed=number)
        layers += [keras.layers.Dense(256, activation="selu", kernel_initializer=initial), AlphaDropout(0.1, seed=number)]
    y = ops.convert_to_numpy(keras.Sequential(layers)(x, training=True))
    assert abs(y.mean()) < 0.1
    assert y.var() == pytest.approx(1, abs=0.2)


def test_alpha_dropouts_gradient_is_a_where_it_keeps():
    y = train(AlphaDropout(0.2, seed=4))
    gradient = backend.gradient(AlphaDropout(0.2, seed=4), X, np.ones_like(X))
    kept = ~np.isclose(y, -1.236160, atol=1e-5)
    np.testing.assert_allclose(gradient, np.where(kept, 0.878904, 0), rtol=1e-5)


def test_a_dropped_nan_takes_the_saturated_value():
    y = train(AlphaDropout(0.5, seed=5), np.full((100, 100), np.nan, "float32"))
    np.testing.assert_allclose(y[~np.isnan(y)], -0.779194, rtol=1e-5)
    assert abs(np.isnan(y).mean() - 0.5) < 5 * 0.5 / 100


@pytest.mark.parametrize(("data_format", "channel"), [("channels_last", -1), ("channels_first", 1)])
@pytest.mark.parametrize("rank", [3, 4, 5])
def test_features_are_dropped_as_a_whole(rank, data_format, channel):
    shape = (40, *(3,) * (rank - 2), 25) if channel == -1 else (40, 25, *(3,) * (rank - 2))
    y = np.moveaxis(train(FeatureAlphaDropout(0.2, data_format=data_format, seed=6), np.ones(shape, "float32")), channel, 1)
    first = y.reshape(40, 25, -1)[..., 0]
    assert (y.reshape(40, 25, -1) == first[..., None]).all()
    gone = np.isclose(first, -1.236160, atol=1e-5)
    assert abs(gone.mean() - 0.2) < 5 * np.sqrt(0.16 / 1000)
    assert not np.array_equal(gone, gone[:1].repeat(40, axis=0))


# NestedDropout


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_length_of_the_prefix_is_geometric(rate):
    y = train(NestedDropout(rate, seed=1), np.ones((20_000, 6), "float32"))
    assert set(np.unique(y)) == {0.0, 1.0}
    assert (np.diff(y, axis=1) <= 0).all()  # a prefix
    length = y.sum(axis=1)
    for b in range(1, 7):
        expected = (1 - rate) ** (b - 1) * (rate if b < 6 else 1)
        assert abs((length == b).mean() - expected) < 5 * np.sqrt(expected * (1 - expected) / len(y))


def test_nested_dropout_at_rate_1_keeps_the_first_unit_alone():
    np.testing.assert_array_equal(train(NestedDropout(1.0), X), X * (np.arange(16) == 0))


def test_nested_dropout_orders_a_linear_code_by_variance():
    """The autoencoder of the paper: with it the first units of the code hold what principal components hold."""
    keras.utils.set_random_seed(0)
    scales = np.array([4, 2, 1, 0.5], "float32")
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0].astype("float32")
    x = (np.random.default_rng(0).normal(size=(512, 4)) * scales).astype("float32") @ basis
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), NestedDropout(0.4, seed=1), keras.layers.Dense(4)])
    model.compile(keras.optimizers.Adam(0.02), "mse")
    model.fit(x, x, epochs=60, batch_size=64, verbose=0)
    code = ops.convert_to_numpy(model.layers[0](x))
    first = ops.convert_to_numpy(model.layers[-1](code * (np.arange(4) == 0)))
    assert np.square(first - x).mean() < 1.3 * np.square(scales[1:]).sum() / 4


# Masksembles


@pytest.mark.parametrize(("masks", "scale", "units"), [(4, 2.0, 16), (4, 1.5, 128), (8, 3.0, 64), (3, 1.0, 10), (2, 2.0, 7)])
def test_masks_have_equal_sizes_leave_no_unit_out_and_overlap_as_stated(masks, scale, units):
    tables = []
    for seed in range(30):
        layer = Masksembles(masks, scale, seed=seed)
        y = train(layer, np.ones((masks, units), "float32"))
        assert len(set(y.sum(axis=1))) == 1
        assert (y.max(axis=0) == 1).all()
        assert layer.rate == pytest.approx(1 - y[0].mean())
        tables.append(y)
    ones = tables[0][0].sum()
    assert abs(ones - units / (scale * (1 - (1 - 1 / scale) ** masks))) <= 0.5
    shared = np.array([y[0] @ y[1] / ones for y in tables])
    assert abs(shared.mean() - 1 / scale) < 5 * shared.std() / np.sqrt(30) + 1.5 / ones
    assert scale == 1 or any((tables[0] != other).any() for other in tables)


def test_masks_that_there_are_not_are_refused():
    with pytest.raises(BadInput, match="there are no 8 masks of 3 units at scale 50"):
        Masksembles(8, 50.0).build((None, 3))


def ensemble_of_two_layers():
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(16, "relu"),
        Masksembles(4, 2.0, seed=1),
        keras.layers.Dense(12, "relu"),
        Masksembles(4, 2.0, seed=2),
    ]
    return keras.Sequential([keras.Input((5,)), *layers, keras.layers.Dense(3)])


def network(model, x, number):
    """The outputs of one network, with the mask of that number in each layer."""
    for layer in model.layers:
        x = (
            x * ops.convert_to_numpy(layer.state.table)[number]
            if isinstance(layer, Masksembles)
            else ops.convert_to_numpy(layer(x))
        )
    return x


def test_samples_are_the_networks_one_after_the_other():
    model, x = ensemble_of_two_layers(), np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
    (_, _, found), *_ = sampling.Passes.of(model).run(x, 6, lambda outputs: {"outputs": outputs})
    for sample in range(6):
        np.testing.assert_allclose(found["outputs"][sample], network(model, x, sample % 4), rtol=1e-4, atol=1e-5)
    assert np.abs(found["outputs"][0] - found["outputs"][1]).max() > 1e-3


def test_in_training_an_example_goes_through_one_network():
    model, x = ensemble_of_two_layers(), np.random.default_rng(0).normal(size=(7, 5)).astype("float32")
    y = ops.convert_to_numpy(model(x, training=True))
    for row in range(7):
        np.testing.assert_allclose(y[row], network(model, x[row : row + 1], row % 4)[0], rtol=1e-4, atol=1e-5)


def test_masks_are_saved_with_the_model(tmp_path):
    model, x = keras.Sequential([keras.Input((16,)), Masksembles(4, 2.0)]), np.ones((4, 16), "float32")
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(x, training=True)), ops.convert_to_numpy(model(x, training=True)))
