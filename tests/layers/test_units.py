"""The laws of Dropout, on the backend of this process."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_dropout import BadInput, Dropout

X = np.random.default_rng(0).uniform(1, 2, (64, 5, 16)).astype("float32")


def numpy(x):
    return ops.convert_to_numpy(x)


def gradient(layer, x, upstream):
    """d sum(upstream * layer(x, training)) / dx."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        values = [v.value for v in layer.non_trainable_variables]
        return numpy(jax.grad(lambda x: (layer.stateless_call([], values, x, training=True)[0] * upstream).sum())(ops.array(x)))
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.Variable(x)
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(layer(x, training=True) * upstream)
        return numpy(tape.gradient(y, x))
    import torch

    x = torch.tensor(x, requires_grad=True)
    (layer(x, training=True) * torch.tensor(upstream)).sum().backward()
    return numpy(x.grad)


def test_inference_is_identity():
    layer = Dropout(0.5, seed=0)
    np.testing.assert_array_equal(numpy(layer(X)), X)
    np.testing.assert_array_equal(numpy(layer(X, training=False)), X)


def test_rate_zero_is_identity_in_training():
    np.testing.assert_array_equal(numpy(Dropout(0, seed=0)(X, training=True)), X)


def test_kept_units_are_scaled_exactly_and_the_rest_are_zero():
    y = numpy(Dropout(0.5, seed=0)(X, training=True))
    np.testing.assert_array_equal(y, np.where(y != 0, X * np.float32(2), 0))
    assert 0.4 < (y == 0).mean() < 0.6


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_mean_is_kept(rate):
    y = numpy(Dropout(rate, seed=1)(np.ones((1000, 1000), "float32"), training=True))
    assert abs(y.mean(dtype="float64") - 1) < 5 * np.sqrt(rate / (1 - rate) / y.size)


def test_rate_one_gives_zeros_and_zero_gradient():
    layer = Dropout(1, seed=0)
    np.testing.assert_array_equal(numpy(layer(X, training=True)), 0 * X)
    np.testing.assert_array_equal(gradient(layer, X, np.ones_like(X)), 0 * X)


def test_dropped_nan_and_inf_become_zero():
    x = np.full((100, 100), np.nan, "float32")
    y = numpy(Dropout(0.5, seed=0)(x, training=True))
    assert set(np.isnan(y).ravel()) == {True, False}
    assert (y[~np.isnan(y)] == 0).all()


@pytest.mark.parametrize("noise_shape", [(None, 1, None), (None, 1, 16), [1, 5, None], (None, None, 1)])
def test_mask_is_shared_exactly_where_promised(noise_shape):
    kept = numpy(Dropout(0.5, noise_shape=noise_shape, seed=0)(X, training=True)) != 0
    constant = [axis for axis in range(3) if (kept == kept.take([0], axis)).all()]
    assert constant == [axis for axis in range(3) if noise_shape[axis] == 1]


def test_gradient_is_the_mask_times_upstream():
    upstream = np.random.default_rng(1).normal(size=X.shape).astype("float32")
    y = numpy(Dropout(0.25, seed=3)(X, training=True))
    np.testing.assert_allclose(gradient(Dropout(0.25, seed=3), X, upstream), np.where(y != 0, upstream / 0.75, 0), rtol=1e-6)


def test_same_seed_same_masks_other_seed_others_and_each_call_a_fresh_one():
    one, same, other = Dropout(0.5, seed=4), Dropout(0.5, seed=4), Dropout(0.5, seed=5)
    for _ in range(3):
        np.testing.assert_array_equal(numpy(one(X, training=True)), numpy(same(X, training=True)))
    kept = [numpy(layer(X, training=True)) != 0 for layer in (one, one, other, Dropout(0.5), Dropout(0.5))]
    for i, j in [(0, 1), (0, 2), (1, 2), (3, 4)]:
        assert abs((kept[i] == kept[j]).mean() - 0.5) < 5 * 0.5 / np.sqrt(X.size)


def test_unseeded_layers_follow_set_random_seed():
    def draw():
        keras.utils.set_random_seed(12)
        return numpy(Dropout(0.5)(X, training=True))

    np.testing.assert_array_equal(draw(), draw())


def test_a_shared_layer_draws_anew_at_each_call_of_a_step():
    layer = Dropout(0.5, seed=0)
    inputs = keras.Input((200,))
    model = keras.Model(inputs, [layer(inputs), layer(inputs)])
    first, second = (numpy(y) != 0 for y in model(np.ones((50, 200), "float32"), training=True))
    assert abs((first == second).mean() - 0.5) < 5 * 0.5 / np.sqrt(first.size)


def regression(rate=0.5):
    """A one-step-an-epoch model whose loss tells the share that was dropped: y = dropout(1) - 1, so mean(y**2) = r/(1-r)."""
    layer = Dropout(rate, seed=0)
    inputs = keras.Input((1000,))
    model = keras.Model(inputs, layer(inputs) + 0 * keras.layers.Dense(1000)(inputs))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    ones = np.ones((64, 1000), "float32")
    return layer, lambda: model.fit(ones, ones, batch_size=64, verbose=0).history["loss"][0]


def test_rate_changes_take_effect_in_fit_also_from_zero():
    layer, fit = regression(rate=0.0)
    assert fit() == pytest.approx(0, abs=1e-12)
    for rate in (0.5, 0.2, 0.0, 0.8):
        layer.rate = rate
        assert fit() == pytest.approx(rate / (1 - rate), abs=0.15)
    assert layer.rate == 0.8
    assert layer.get_config()["rate"] == 0.8


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="counts JAX's traces")
def test_rate_changes_do_not_compile_again():
    import jax

    layer = Dropout(0.1, seed=0)
    traces = []

    @jax.jit
    def step(values, x):
        traces.append(1)
        return layer.stateless_call([], values, x, training=True)

    shares = []
    for rate in (0.1, 0.4, 0.9):
        layer.rate = rate
        shares.append(float((step([v.value for v in layer.non_trainable_variables], X)[0] == 0).mean()))
    assert len(traces) == 1
    np.testing.assert_allclose(shares, [0.1, 0.4, 0.9], atol=0.05)


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"])
def test_half_precision_keeps_type_and_share(policy):
    layer = Dropout(0.1, seed=0, dtype=policy)
    y = layer(np.ones((300, 300), "float32"), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    dropped = (numpy(ops.cast(y, "float32")) == 0).mean()
    assert abs(dropped - 0.1) < 5 * np.sqrt(0.09 / 90000)


def test_it_has_state_but_no_weights():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), Dropout(0.5), keras.layers.Dense(1)])
    assert len(model.get_weights()) == 4
    assert model.count_params() == 19
    assert len(model.layers[1].variables) == 2
    assert len(model.non_trainable_variables) == 2


def test_saved_model_goes_on_with_rate_and_masks(tmp_path):
    model = keras.Sequential([keras.Input((50,)), Dropout(0.3)])
    x = np.ones((20, 50), "float32")
    model(x, training=True)
    model.layers[0].rate = 0.6
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.layers[0].rate == 0.6
    for _ in range(2):
        np.testing.assert_array_equal(numpy(loaded(x, training=True)), numpy(model(x, training=True)))


def test_weights_saved_with_keras_dropout_load(tmp_path):
    def model(dropout):
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), dropout, keras.layers.Dense(1)])

    old, new = model(keras.layers.Dropout(0.5)), model(Dropout(0.5))
    old.save_weights(tmp_path / "old.weights.h5")
    new.load_weights(tmp_path / "old.weights.h5")
    for a, b in zip(old.get_weights(), new.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_config_round_trip_keeps_everything():
    layer = Dropout(0.3, noise_shape=(None, 1), seed=9, name="d", dtype="mixed_bfloat16", trainable=False)
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(twin) is Dropout
    assert twin.get_config() == layer.get_config()
    assert twin.dtype_policy.name == "mixed_bfloat16"


def test_clone_model_keeps_the_layer():
    model = keras.Sequential([keras.Input((4,)), Dropout(0.3, seed=1)])
    clone = keras.models.clone_model(model)
    assert clone.layers[0] is not model.layers[0]
    assert clone.layers[0].rate == 0.3


def test_symbolic_call_and_dynamic_batch():
    layer = Dropout(0.5, seed=0)
    assert tuple(layer(keras.KerasTensor((None, 7, 3))).shape) == (None, 7, 3)
    model = keras.Sequential([keras.Input((7,)), layer])
    model.compile("sgd", "mse")
    model.fit(np.ones((50, 7), "float32"), np.ones((50, 7), "float32"), batch_size=32, verbose=0)  # 32, then 18


def test_masking_is_passed_on():
    inputs = keras.Input((5,))
    x = keras.layers.Embedding(10, 4, mask_zero=True)(inputs)
    model = keras.Model(inputs, keras.layers.LSTM(3)(Dropout(0.0)(x)))
    plain = keras.Model(inputs, model.layers[-1](x))
    ids = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 0, 0]])
    np.testing.assert_allclose(model.predict(ids, verbose=0), plain.predict(ids, verbose=0), rtol=1e-6)


BAD = [
    ({"rate": 1.5}, "got 1.5"),
    ({"rate": -0.1}, "got -0.1"),
    ({"rate": float("nan")}, "got nan"),
    ({"rate": "0.5"}, "got '0.5'"),
    ({"rate": True}, "got True"),
    ({"rate": None}, "got None"),
    ({"rate": 0.5, "seed": 1.5}, "seed must be"),
    ({"rate": 0.5, "seed": "a"}, "seed must be"),
    ({"rate": 0.5, "noise_shape": "abc"}, "noise_shape must be"),
    ({"rate": 0.5, "noise_shape": (0, 1)}, "noise_shape must be"),
    ({"rate": 0.5, "noise_shape": 3}, "noise_shape must be"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=lambda value: str(value))
def test_bad_arguments_are_refused_in_two_lines(arguments, words):
    with pytest.raises(BadInput) as caught:
        Dropout(**arguments)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_a_noise_shape_that_does_not_fit_is_refused():
    for noise_shape in ((None, 1), (None, 3, None)):
        with pytest.raises(BadInput, match="does not broadcast"):
            Dropout(0.5, noise_shape=noise_shape)(X, training=True)


def test_setting_a_bad_rate_is_refused_and_changes_nothing():
    layer = Dropout(0.5)
    with pytest.raises(BadInput):
        layer.rate = 2
    assert layer.rate == 0.5
