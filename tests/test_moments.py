"""Means and variances in one pass: against all masks, integrals and stochastic forward passes."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers as k
from keras import ops
from scipy import special, stats
from sklearn.datasets import load_digits

from keras_dropout import BadInput, layers
from keras_dropout.moments import Moments, predict, probabilities, propagate
from keras_dropout.sampling import Passes

RNG = np.random.default_rng(0)
ALPHA = -1.0507009873554805 * 1.6732632423543772


def numbers(*shape):
    return RNG.normal(size=shape).astype("float32")


def randomised(model):
    """The model with weights, and statistics of batches, that are nothing special."""
    for weight in model.weights:
        weight.assign(np.abs(numbers(*weight.shape)) + 0.5 if "variance" in weight.name else numbers(*weight.shape))
    return model


def close(found, expected, tolerance=1e-5):
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * max(1, np.abs(expected).max()))


def over_all_masks(function, x, rate, dropped=lambda x, kept, rate: x * kept / (1 - rate)):
    """Mean and covariance of the flat outputs, over the 2**n masks of the n units of one example."""
    kept = np.array(list(itertools.product((0, 1), repeat=x.size)))
    weights = np.prod(np.where(kept, 1 - rate, rate), axis=1)
    inputs = dropped(x.reshape(1, -1).astype("float64"), kept, rate).reshape(-1, *x.shape).astype("float32")
    outputs = ops.convert_to_numpy(function(inputs)).astype("float64").reshape(len(kept), -1)
    mean = weights @ outputs
    return mean, (outputs - mean).T @ (weights[:, None] * (outputs - mean))


def alpha_dropped(x, kept, rate):
    scale = ((1 - rate) * (1 + rate * ALPHA**2)) ** -0.5
    return scale * (x * kept + ALPHA * (1 - kept)) - scale * ALPHA * rate


LINEAR = {
    "Dense": lambda: k.Dense(3),
    "Conv1D": lambda: k.Conv1D(3, 2, padding="same"),
    "causal": lambda: k.Conv1D(3, 2, padding="causal", dilation_rate=2),
    "Conv1DTranspose": lambda: k.Conv1DTranspose(3, 2, strides=2),
    "DepthwiseConv1D": lambda: k.DepthwiseConv1D(3, depth_multiplier=2),
    "SeparableConv1D": lambda: k.SeparableConv1D(4, 2),
    "AveragePooling1D": lambda: k.AveragePooling1D(2, strides=1),
    "GlobalAveragePooling1D": lambda: k.GlobalAveragePooling1D(),
    "BatchNormalization": lambda: k.BatchNormalization(),
    "BatchNormalization, first axis": lambda: k.BatchNormalization(axis=1, scale=False),
    "Rescaling": lambda: k.Rescaling([2.0, -3.0], offset=1.0),
    "ZeroPadding1D": lambda: k.ZeroPadding1D((1, 2)),
    "Cropping1D": lambda: k.Cropping1D(1),
    "Flatten": lambda: k.Flatten(),
    "Permute": lambda: k.Permute((2, 1)),
    "Reshape": lambda: k.Reshape((2, 5)),
    "Identity": lambda: k.Identity(),
    "dropout at rate 0": lambda: layers.SpatialDropout1D(0.0),
}


@pytest.mark.parametrize("kind", LINEAR)
def test_one_linear_layer_behind_dropout_is_exact(kind):
    layer = LINEAR[kind]()
    model = randomised(keras.Sequential([keras.Input((5, 2)), layers.Dropout(0.3), layer]))
    x = numbers(1, 5, 2)
    mean, covariance = over_all_masks(layer, x[0], 0.3)
    found = propagate(model, x)
    assert found.function == "linear"
    close(found.mean.reshape(-1), mean)
    close(found.variance.reshape(-1), np.diag(covariance))


@pytest.mark.parametrize(
    ("dropout", "dropped"),
    [
        (k.Dropout(0.4), None),
        (layers.AlphaDropout(0.4), alpha_dropped),
        (k.AlphaDropout(0.4), alpha_dropped),
    ],
)
def test_two_moments_of_each_kind_of_dropout(dropout, dropped):
    model = randomised(keras.Sequential([keras.Input((10,)), dropout, k.Dense(3)]))
    x = numbers(1, 10)
    mean, covariance = over_all_masks(model.layers[-1], x[0], 0.4, *([dropped] if dropped else []))
    found = propagate(model, x)
    close(found.mean[0], mean)
    close(found.variance[0], np.diag(covariance))


@pytest.mark.parametrize("kind", [k.GaussianDropout, layers.GaussianDropout])
def test_gaussian_dropout_has_the_moments_of_dropout(kind):
    x, dense = numbers(3, 10), k.Dense(4)
    found = [propagate(keras.Sequential([keras.Input((10,)), each, dense]), x) for each in (kind(0.4), layers.Dropout(0.4))]
    close(found[0].mean, found[1].mean)
    close(found[0].variance, found[1].variance)


@pytest.mark.parametrize("drop_bias", [True, False])
def test_drop_connect_against_all_masks(drop_bias):
    model = randomised(keras.Sequential([keras.Input((3,)), layers.DropConnect(0.3, k.Dense(2), drop_bias=drop_bias)]))
    x = numbers(1, 3)
    kernel, bias = model.get_weights()
    weights = np.concatenate([kernel.reshape(-1), bias])

    def outputs(masked):
        return x[0] @ masked[:, :6].reshape(-1, 3, 2) + (masked[:, 6:] if drop_bias else bias)

    mean, covariance = over_all_masks(outputs, weights, 0.3)
    found = propagate(model, x)
    close(found.mean[0], mean)
    close(found.variance[0], np.diag(covariance))


@pytest.mark.parametrize("ending", ["one layer", "Activation", "Softmax"])
def test_the_covariance_of_logits_is_exact(ending):
    dense = k.Dense(4, "softmax" if ending == "one layer" else None)
    end = {"one layer": [], "Activation": [k.Activation("softmax")], "Softmax": [k.Softmax()]}[ending]
    model = randomised(keras.Sequential([keras.Input((10,)), layers.Dropout(0.3), dense, *end]))
    x = numbers(1, 10)
    kernel, bias = model.get_weights()
    mean, covariance = over_all_masks(lambda inputs: inputs @ kernel + bias, x[0], 0.3)
    found = propagate(model, x)
    assert found.function == "softmax"
    close(found.mean[0], mean)
    close(found.variance[0], np.diag(covariance))
    close(found.covariance[0], covariance)


SUMS = {
    "Add of two": lambda h: k.Add()([h, h]),
    "plus": lambda h: h + h,
    "Add of three": lambda h: k.Add()([h, h, h]),
    "with another": lambda h: k.Add()([h, k.Rescaling(0.0)(h), h]),
}


@pytest.mark.parametrize("kind", SUMS)
def test_what_is_added_to_itself_is_one_unit(kind):
    inputs = keras.Input((5,))
    model = keras.Model(inputs, SUMS[kind](layers.Dropout(0.3)(inputs)))
    x = numbers(1, 5)
    mean, covariance = over_all_masks(model, x[0], 0.3)
    found = propagate(model, x)
    close(found.mean[0], mean)
    close(found.variance[0], np.diag(covariance))


def normal_values(*behind, shape=(1,)):
    """A model whose layers `behind` are given values of mean `inputs[0]` and standard deviation `inputs[1]`."""
    mean, spread = keras.Input(shape), keras.Input(shape)
    value = k.Add()([mean, layers.Dropout(0.5)(spread), k.Rescaling(-1.0)(spread)])
    for layer in behind:
        value = layer(value)
    return keras.Model([mean, spread], k.Rescaling(1.0)(value))


MEANS, SPREADS = (each.reshape(-1, 1).astype("float32") for each in np.meshgrid([-3, -1, -0.1, 0, 0.5, 2], [0.01, 0.3, 1, 2]))


@pytest.mark.parametrize(
    ("layer", "function", "tolerance"),
    [
        (lambda: k.Activation("relu"), lambda u: np.maximum(u, 0), 5e-5),
        (lambda: k.ReLU(), lambda u: np.maximum(u, 0), 5e-5),
        (lambda: k.Activation("leaky_relu"), lambda u: np.where(u > 0, u, 0.2 * u), 5e-5),
        (lambda: k.LeakyReLU(negative_slope=0.1), lambda u: np.where(u > 0, u, 0.1 * u), 5e-5),
        (lambda: k.ReLU(negative_slope=0.3), lambda u: np.where(u > 0, u, 0.3 * u), 5e-5),
        (lambda: k.PReLU(alpha_initializer=keras.initializers.Constant(-0.7)), lambda u: np.where(u > 0, u, -0.7 * u), 5e-5),
        (lambda: k.Activation("tanh"), np.tanh, 5e-5),
        (lambda: k.Activation("sigmoid"), special.expit, 5e-5),
        (lambda: k.Activation("gelu"), lambda u: u * stats.norm.cdf(u), 5e-5),
        (lambda: k.Activation("softplus"), lambda u: np.logaddexp(u, 0), 5e-5),
        (lambda: k.Activation(ops.square), np.square, 5e-5),
        (lambda: k.ELU(alpha=1.0), lambda u: np.where(u > 0, u, np.expm1(u)), 5e-3),
        (lambda: k.ReLU(max_value=1.0), lambda u: np.clip(u, 0, 1), 2e-2),
    ],
)
def test_activations_of_normal_values_against_their_integral(layer, function, tolerance):
    found = propagate(normal_values(layer()), [MEANS, SPREADS])
    z = np.linspace(-9, 9, 20_001)
    weights = stats.norm.pdf(z) / stats.norm.pdf(z).sum()
    values = function(MEANS + SPREADS * z)
    mean = values @ weights
    close(found.mean[:, 0], mean, tolerance)
    close(found.variance[:, 0], (values - mean[:, None]) ** 2 @ weights, tolerance)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_the_larger_of_two_normal_values_against_its_integral(data_format):
    means, spreads = numbers(6, 4, 1), np.abs(numbers(6, 4, 1))
    x = [means, spreads]
    if data_format == "channels_first":
        x = [each.transpose(0, 2, 1) for each in x]
    model = normal_values(k.MaxPooling1D(2, strides=1, data_format=data_format), shape=x[0].shape[1:])
    found = propagate(model, x)
    z = np.linspace(-15, 15, 20_001)
    first, second = ((m, s) for m, s in ((each[:, cut] for each in (means, spreads)) for cut in (slice(0, 3), slice(1, 4))))
    density = [stats.norm.pdf(z, *each) for each in (first, second)]
    below = [stats.norm.cdf(z, *each) for each in (first, second)]
    density = (density[0] * below[1] + density[1] * below[0]) * (z[1] - z[0])
    mean = density @ z
    close(found.mean.reshape(6, 3), mean, 1e-4)
    close(found.variance.reshape(6, 3), density @ z**2 - mean**2, 1e-4)


def digits():
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y


def sampled(model, x, samples):
    """Mean, variance and mean entropy of the outputs of stochastic forward passes."""
    pieces = {}
    for rows, _, found in Passes(model, seed=3).run(x, samples):
        pieces.setdefault(rows.start, []).append(found["outputs"].astype("float64"))
    outputs = np.concatenate([np.concatenate(pieces[start]) for start in sorted(pieces)], axis=1)
    return outputs.mean(0), outputs.var(0), -special.xlogy(outputs, outputs).sum(-1).mean(0)


def trained(model):
    x, y = digits()
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(x[:1200], y[:1200], epochs=8, batch_size=128, verbose=0)
    return model


def perceptron():
    kinds = [(0.1, 48), (0.3, 48), (0.5, None)]
    inner = [each for rate, units in kinds for each in (layers.Dropout(rate), *([k.Dense(units, "relu")] if units else []))]
    return keras.Sequential([keras.Input((64,)), *inner, k.Dense(10, "softmax")])


def last_only():
    return keras.Sequential([keras.Input((64,)), k.Dense(64, "tanh"), layers.Dropout(0.5), k.Dense(10, "softmax")])


def residual():
    inputs = keras.Input((64,))
    h = k.Dense(48, "relu")(inputs)
    for _ in range(2):
        branch = k.BatchNormalization()(k.Dense(48, "relu")(layers.Dropout(0.3)(h)))
        h = k.Add()([h, branch])
    return keras.Model(inputs, k.Dense(10, "softmax")(layers.Dropout(0.3)(h)))


def convolutional():
    return keras.Sequential(
        [
            keras.Input((64,)),
            k.Reshape((8, 8, 1)),
            k.Conv2D(8, 3, padding="same", activation="relu"),
            layers.Dropout(0.2),
            k.MaxPooling2D(2),
            k.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Dropout(0.2),
            k.Flatten(),
            k.Dense(10),
            k.Softmax(),
        ]
    )


# The exact tests hold everywhere; passes enough for this one are quick on JAX.
# Bounds: largest mean absolute error of the mean, share of the plain prediction's; correlation and ratio of variances.
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="minutes of passes")
@pytest.mark.parametrize(
    ("make", "error", "share", "correlation", "ratio"),
    [
        (last_only, 0.003, 0.4, 0.98, (0.95, 1.1)),
        (perceptron, 0.012, 0.6, 0.95, (0.5, 1.05)),
        (residual, 0.012, 0.6, 0.95, (0.5, 1.05)),
        (convolutional, 0.012, 0.9, 0.95, (0.6, 1.1)),
    ],
)
def test_against_stochastic_forward_passes(make, error, share, correlation, ratio):
    keras.utils.set_random_seed(0)
    model = trained(make())
    x = digits()[0][1200:1456]
    mean, variance, entropy = sampled(model, x, 500)
    found = predict(model, x)
    plain = np.abs(model.predict(x, verbose=0) - mean).mean()
    assert np.abs(found.mean - mean).mean() < min(error, share * plain)
    assert np.corrcoef(found.variance.ravel(), variance.ravel())[0, 1] > correlation
    assert ratio[0] < found.variance.sum() / variance.sum() < ratio[1]
    assert np.corrcoef(found.expected_entropy, entropy)[0, 1] > 0.97
    assert np.abs(found.expected_entropy - entropy).mean() < 0.1


def test_without_dropout_it_is_the_plain_prediction():
    x = numbers(7, 64)
    model = keras.Sequential([keras.Input((64,)), layers.Dropout(0.0), k.Dense(5, "gelu"), k.Dropout(0.0), k.Dense(3, "softmax")])
    assert not propagate(model, x).variance.any()
    found = predict(model, x)
    close(found.mean, model.predict(x, verbose=0))
    assert found.variance.max() < 1e-10  # of equal draws, but for rounding
    close(found.expected_entropy, stats.entropy(found.mean, axis=-1))


def test_at_rate_one_nothing_is_left():
    model = randomised(keras.Sequential([keras.Input((4,)), layers.Dropout(1.0), k.Dense(3)]))
    found = propagate(model, numbers(2, 4))
    close(found.mean, np.tile(model.get_weights()[1], (2, 1)))
    assert not found.variance.any()


def test_a_rate_that_was_set_counts():
    dropout = layers.Dropout(0.0)
    model, x = randomised(keras.Sequential([keras.Input((4,)), dropout, k.Dense(3)])), numbers(2, 4)
    before = propagate(model, x).variance
    dropout.rate = 0.5
    assert not before.any()
    assert propagate(model, x).variance.all()


def test_what_comes_before_the_first_dropout_may_be_anything():
    inputs = keras.Input((6,), dtype="int32")
    h = k.LSTM(5)(k.LayerNormalization()(k.Embedding(9, 4, mask_zero=True)(inputs)))
    outputs = k.Dense(3, "softmax")(layers.Dropout(0.5)(h))
    model, x = keras.Model(inputs, outputs), RNG.integers(0, 9, (5, 6))
    found = propagate(model, x)
    close(np.asarray(ops.convert_to_numpy(ops.softmax(found.mean))), model.predict(x, verbose=0))
    assert (found.variance > 0).all()


@pytest.mark.parametrize("make", [perceptron, residual, convolutional])
def test_any_batch_size_gives_the_same(make):
    model, x = make(), numbers(23, 64)
    whole = predict(model, x)
    for size in (1, 5, 23, 99):
        found = predict(model, x, batch_size=size)
        for name in ("mean", "variance", "expected_entropy"):
            close(getattr(found, name), getattr(whole, name))


def test_nothing_in_the_model_changes():
    model = residual()
    before = [np.array(ops.convert_to_numpy(v)) for v in model.variables]
    activations = [getattr(layer, "activation", None) for layer in model.layers]
    x = numbers(9, 64)
    outputs = model.predict(x, verbose=0)
    predict(model, x)
    assert all(np.array_equal(ops.convert_to_numpy(v), old) for v, old in zip(model.variables, before))
    assert activations == [getattr(layer, "activation", None) for layer in model.layers]
    assert np.array_equal(model.predict(x, verbose=0), outputs)


def test_nested_models_shared_layers_and_operations():
    x, dense = numbers(5, 8), k.Dense(8)
    inner = keras.Sequential([keras.Input((8,)), layers.Dropout(0.3), dense], name="inner")
    inputs = keras.Input((8,))
    h = ops.relu(ops.concatenate([inner(inputs), inner(inputs)], axis=-1) + 0.5)
    found = propagate(keras.Model(inputs, k.Reshape((2, 8))(h)), x)
    np.testing.assert_array_equal(found.mean[:, 0], found.mean[:, 1])
    alone = keras.Sequential([keras.Input((8,)), layers.Dropout(0.3), dense, k.Rescaling(1.0, 0.5), k.ReLU()])
    close(found.mean[:, 0], propagate(alone, x).mean)
    close(found.variance[:, 0], propagate(alone, x).variance)


def test_half_precision_is_computed_in_float32():
    model = keras.Sequential([keras.Input((64,)), layers.Dropout(0.2, dtype="mixed_bfloat16"), k.Dense(9, dtype="mixed_bfloat16")])
    whole = keras.Sequential([keras.Input((64,)), layers.Dropout(0.2), k.Dense(9)])
    whole.set_weights(model.get_weights())
    x = numbers(4, 64)
    close(propagate(model, x).variance, propagate(whole, x).variance, 0.02)


def test_softmax_of_normal_logits_against_many_draws():
    mean, factor = 2 * numbers(20, 5), numbers(20, 5, 5)
    covariance = factor @ factor.transpose(0, 2, 1)
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    normals = RNG.normal(size=(40_000, 1, 5))
    changes = {
        "independent": (normals * np.sqrt(variance), None),
        "correlated": (np.einsum("nlk,dk->dnl", factor, normals[:, 0]), covariance),
    }
    found = {}
    for name, (change, covariance) in changes.items():
        logits = mean + change
        each = special.softmax(logits, axis=-1)
        found[name] = probabilities(Moments(mean, variance, "softmax", covariance), draws=1024)
        assert np.abs(found[name].mean - each.mean(0)).max() < 0.01
        assert np.abs(found[name].variance - each.var(0)).max() < 0.01
        assert np.abs(found[name].expected_entropy - stats.entropy(each, axis=-1).mean(0)).max() < 0.03
        usual = probabilities(Moments(mean, variance, "softmax", covariance))
        assert np.abs(usual.mean - each.mean(0)).max() < 0.03
    assert np.abs(found["independent"].variance - found["correlated"].variance).max() > 0.02  # so that the bounds say something


def test_fewer_units_than_classes_have_a_covariance_too():
    model = randomised(keras.Sequential([keras.Input((2,)), layers.Dropout(0.5), k.Dense(12, "softmax")]))
    x = np.concatenate([numbers(6, 2), np.zeros((1, 2), "float32")])
    found = predict(model, x)
    assert np.isfinite(found.variance).all()
    assert (found.variance[:-1] > 0).all()
    assert found.variance[-1].max() < 1e-12


def test_sigmoid_against_its_integral():
    mean, variance = MEANS, np.square(SPREADS)
    found = probabilities(Moments(mean, variance, "sigmoid"))
    z = np.linspace(-9, 9, 20_001)
    weights = stats.norm.pdf(z) / stats.norm.pdf(z).sum()
    each = special.expit(mean.astype("float64") + np.sqrt(variance) * z)
    close(found.mean[:, 0], each @ weights, 1e-4)
    close(found.variance[:, 0], (each**2 @ weights) - (each @ weights) ** 2, 1e-4)
    close(found.expected_entropy[:, 0], (special.entr(each) + special.entr(1 - each)) @ weights, 1e-4)
    model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5), k.Dense(1, "sigmoid")])
    assert predict(model, numbers(3, 4)).mean.shape == (3, 1)


def test_regression_is_its_moments():
    model = randomised(keras.Sequential([keras.Input((4,)), layers.Dropout(0.5), k.Dense(2)]))
    x = numbers(3, 4)
    moments, found = propagate(model, x), predict(model, x)
    assert np.array_equal(found.mean, moments.mean)
    assert np.array_equal(found.variance, moments.variance)
    assert found.expected_entropy is None


def test_the_seed_decides_the_draws():
    moments = Moments(numbers(4, 3), np.ones((4, 3), "float32"), "softmax")
    first, again, other = (probabilities(moments, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.mean, again.mean)
    assert not np.array_equal(first.mean, other.mean)


def behind_dropout(*behind, shape=(8, 8, 2), dropout=None):
    return keras.Sequential([keras.Input(shape), dropout or layers.Dropout(0.5), *behind])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: behind_dropout(k.LayerNormalization()), "layer_normalization"),
        (lambda: behind_dropout(k.GlobalMaxPooling2D()), "GlobalMaxPooling2D"),
        (lambda: behind_dropout(k.MaxPooling2D(2, padding="same")), 'padding="same"'),
        (lambda: behind_dropout(k.Dense(3, "softmax"), k.Dense(2)), "not one of each unit alone"),
        (lambda: behind_dropout(k.Softmax(), k.Dense(2)), "not one of each unit alone"),
        (lambda: behind_dropout(k.Softmax(axis=1)), "last axis"),
        (lambda: behind_dropout(k.Dense(4, "glu"), k.Dense(2)), "not one of each unit alone"),
        (lambda: behind_dropout(k.SeparableConv2D(3, 2, depth_multiplier=2)), "depth_multiplier"),
        (lambda: behind_dropout(k.Dense(3, lora_rank=1)), "LoRA"),
        (lambda: behind_dropout(k.Dense(2), dropout=layers.SpatialDropout2D(0.5)), "one by one"),
        (lambda: behind_dropout(k.Dense(2), dropout=k.SpatialDropout2D(0.5)), "one by one"),
        (lambda: behind_dropout(k.Dense(2), dropout=layers.Dropout(0.5, noise_shape=(None, 1, 1, None))), "noise_shape"),
        (lambda: behind_dropout(layers.DropConnect(0.5, k.Conv2D(2, 2), per="batch")), "around Conv2D"),
        (lambda: behind_dropout(k.GRU(3, dropout=0.2), shape=(4, 3)), "GRU"),
        (lambda: keras.Sequential([keras.Input((4, 3)), k.GRU(3, dropout=0.2), k.Dense(2)]), "GRU"),
        (lambda: keras.Sequential([keras.Input((4,)), layers.ConcreteDropout(0.1, k.Dense(2))]), "ConcreteDropout"),
    ],
)
def test_what_has_no_rule_is_refused(model, words):
    model = model()
    with pytest.raises(BadInput, match=words) as caught:
        propagate(model, numbers(2, *model.input_shape[1:]))
    assert len(str(caught.value).splitlines()) == 2
    assert "Monte-Carlo" in str(caught.value)


def test_padding_masks_are_refused_where_they_count():
    inputs = keras.Input((6,), dtype="int32")
    h = k.GlobalAveragePooling1D()(layers.Dropout(0.5)(k.Embedding(9, 4, mask_zero=True)(inputs)))
    with pytest.raises(BadInput, match="padding mask"):
        propagate(keras.Model(inputs, k.Dense(2)(h)), RNG.integers(0, 9, (5, 6)))


def test_other_bad_input_is_refused():
    model, x = last_only(), numbers(2, 64)
    with pytest.raises(BadInput, match="draws"):
        predict(model, x, draws=1)
    with pytest.raises(BadInput, match="seed"):
        predict(model, x, seed=-1)
    with pytest.raises(BadInput, match="batch size"):
        propagate(model, x, batch_size=0)
    with pytest.raises(BadInput, match="shape"):
        propagate(model, x[:, :3])
    with pytest.raises(BadInput, match="Keras model"):
        propagate("model", x)
    with pytest.raises(BadInput, match="2 outputs"):
        propagate(keras.Model(model.inputs, [model.outputs[0], model.outputs[0]]), x)
    wide = Moments(np.zeros((1, 21_202), "float32"), np.ones((1, 21_202), "float32"), "softmax")
    with pytest.raises(BadInput, match="Sobol"):
        probabilities(wide)
