"""What layers that drop weights do to the weights, and what comes of it."""

import math
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_dropout
from keras_dropout import (
    BadInput,
    DropConnect,
    LoRADropout,
    Mixout,
    SparseVariationalDropout,
    Standout,
    TargetedDropout,
    VariationalDropout,
    WeightDrop,
    dare,
    noise,
    place,
    sampling,
)
from keras_dropout.masks import Stream

numpy = ops.convert_to_numpy


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def dense(kernel, bias=None, activation=None, **options):
    layer = layers.Dense(kernel.shape[1], activation, use_bias=bias is not None, **options)
    layer.build((None, kernel.shape[0]))
    layer.set_weights([kernel] if bias is None else [kernel, bias])
    return layer


def masked(weight, rate, seed, number=0):
    """A weight as the first training call of a layer with this seed has it."""
    return numpy(noise.bernoulli_product(weight, noise.fold(Stream(seed).next(), number), rate, weight.shape))


def assert_share(dropped, rate):
    assert abs(dropped.mean() - rate) < 5 * math.sqrt(rate * (1 - rate) / dropped.size)


def step(model, x, loss="mse"):
    """What one step of gradient descent at rate 1 subtracts from each weight: its gradient."""
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(1.0), loss)
    model.fit(x, np.ones(model.compute_output_shape(x.shape), "float32"), batch_size=len(x), shuffle=False, verbose=0)
    return [old - new for old, new in zip(before, model.get_weights())]


# DropConnect


@pytest.mark.parametrize("drop_bias", [True, False])
def test_one_mask_for_the_batch_is_the_kernels_own(drop_bias):
    kernel, bias = normal(60, 50), normal(50, seed=1)
    layer = DropConnect(0.3, dense(kernel, bias), per="batch", drop_bias=drop_bias, seed=0)
    y = numpy(layer(np.vstack([np.zeros((1, 60)), np.eye(60), np.eye(60)]).astype("float32"), training=True))
    np.testing.assert_allclose(y[1:61], y[61:])
    for found, weight in ((y[1:61] - y[0], kernel), (y[0], bias))[: 1 + drop_bias]:
        dropped = np.abs(found) < 1e-6
        np.testing.assert_allclose(found, np.where(dropped, 0, weight / 0.7), rtol=1e-4, atol=1e-5)
        assert_share(dropped, 0.3)
    if not drop_bias:
        np.testing.assert_array_equal(y[0], bias)


def test_each_example_has_masks_of_its_own_and_its_positions_share_them():
    layer = DropConnect(0.4, dense(np.ones((1, 30), "float32"), 2 * np.ones(30, "float32")), seed=0)
    y = numpy(layer(np.array([[[0], [0], [1], [1]]] * 50, "float32"), training=True))
    np.testing.assert_array_equal(y[:, 0], y[:, 1])
    np.testing.assert_array_equal(y[:, 2], y[:, 3])
    bias, kernel = y[:, 0] / 2, y[:, 2] - y[:, 0]
    for kept in (bias > 0.5, kernel > 0.5):
        assert_share(~kept, 0.4)
        agree = (kept[:-1] == kept[1:]).mean()
        assert abs(agree - 0.52) < 5 * math.sqrt(0.25 / kept.size)  # neighbours are independent: q^2 + p^2
    assert abs(((bias > 0.5) == (kernel > 0.5)).mean() - 0.52) < 5 * math.sqrt(0.25 / bias.size)
    np.testing.assert_allclose(np.unique(y.round(4)), [0, 1.6667, 3.3333, 5], atol=1e-3)


def test_moments_before_the_activation():
    kernel, bias, x, n, odds = normal(9, 4), normal(4, seed=1), normal(9, seed=2), 40_000, 0.3 / 0.7
    y = numpy(DropConnect(0.3, dense(kernel, bias), seed=0)(np.tile(x, (n, 1)), training=True)).astype("float64")
    error = y - (x @ kernel + bias)
    assert (np.abs(error.mean(0)) < 5 * error.std(0) / math.sqrt(n)).all()
    squares = error**2
    expected = odds * (x**2 @ kernel**2 + bias**2)
    assert (np.abs(squares.mean(0) - expected) < 5 * squares.std(0) / math.sqrt(n)).all()
    products = error[:, [0]] * error[:, 1:]  # each output has weights of its own
    assert (np.abs(products.mean(0)) < 5 * products.std(0) / math.sqrt(n)).all()


def test_convolutions_and_einsum_kernels_can_be_dropped():
    convolution = layers.Conv2D(40, 3, use_bias=False)
    einsum = layers.EinsumDense("bhwc,hwcf->bf", 40)
    basis = np.eye(27, dtype="float32").reshape(27, 3, 3, 3)
    for inner in (convolution, einsum):
        layer = DropConnect(0.3, inner, per="batch", seed=3)
        y = numpy(layer(basis, training=True)).reshape(27, 40)
        kernel = numpy(inner.kernel).reshape(27, 40)
        dropped = np.abs(y) < 1e-7
        np.testing.assert_allclose(y, np.where(dropped, 0, kernel / 0.7), rtol=1e-4, atol=1e-6)
        assert_share(dropped, 0.3)
        np.testing.assert_allclose(numpy(layer(basis)).reshape(27, 40), kernel, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("drop_bias", [True, False])
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "sigmoid", "gelu"])
def test_gaussian_inference_is_the_mean_over_normal_values(activation, drop_bias):
    kernel, bias, x = normal(6, 5) / 2, normal(5, seed=1), normal(3, 6, seed=2)
    layer = DropConnect(0.4, dense(kernel, bias, activation), inference="gaussian", drop_bias=drop_bias)
    deviation = np.sqrt(0.4 / 0.6 * (x**2 @ kernel**2 + drop_bias * bias**2))
    u = x @ kernel + bias + deviation * np.random.default_rng(3).normal(size=(100_000, 3, 5))
    samples = {
        "linear": lambda u: u,
        "relu": lambda u: np.maximum(u, 0),
        "tanh": np.tanh,
        "sigmoid": lambda u: 1 / (1 + np.exp(-u)),
        "gelu": lambda u: u * numpy(1 + ops.erf(u / math.sqrt(2))) / 2,
    }[activation](u)
    error = samples.std(0) / math.sqrt(len(u))
    assert (np.abs(numpy(layer(x)) - samples.mean(0)) < 5 * error + 1e-6).all()


def test_gaussian_inference_is_nearer_to_the_mean_of_training_than_the_plain_layer():
    kernel, x = normal(100, 20) / 10, np.tile(normal(100, seed=1), (2000, 1))
    layer = DropConnect(0.5, dense(kernel, activation="relu"), inference="gaussian", seed=0)
    plain = numpy(layer.layer(x[:1]))[0]
    trained = numpy(layer(x, training=True)).mean(0)
    assert np.abs(numpy(layer(x[:1]))[0] - trained).mean() < 0.1 * np.abs(plain - trained).mean()


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gaussian_inference_follows_the_rate_also_when_compiled(activation):
    x, inner = normal(8, 6), dense(normal(6, 5), normal(5, seed=1), activation)
    model = keras.Sequential([keras.Input((6,)), DropConnect(0, inner, inference="gaussian")])
    outputs = []
    for rate in (0.0, 0.5, 0.0):
        model.layers[0].rate = rate
        outputs.append(model.predict(x, verbose=0))
    np.testing.assert_allclose(outputs[0], numpy(inner(x)), atol=1e-5)
    np.testing.assert_allclose(outputs[2], outputs[0], atol=1e-6)
    assert np.abs(outputs[1] - outputs[0]).max() > 0.05


def test_gaussian_moments_do_not_overflow_in_half_precision():
    kernel, x = normal(6, 5), 400 * normal(4, 6, seed=1)
    wide, half = (DropConnect(0.5, dense(kernel, activation="relu", dtype=t), inference="gaussian", dtype=t) for t in KINDS[:2])
    y = half(x)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    np.testing.assert_allclose(numpy(y), numpy(wide(x)), rtol=2e-2, atol=1)


KINDS = ("float32", "float16", "mixed_bfloat16")


class Normalized(keras.Layer):
    """A kernel before a batch normalisation."""

    def __init__(self):
        super().__init__()
        self.inner, self.normalization = layers.Dense(4), layers.BatchNormalization(momentum=0.5)

    def build(self, shape):
        self.inner.build(shape)
        self.normalization.build((shape[0], 4))

    @property
    def kernel(self):
        return self.inner.kernel

    def call(self, x, training=False):
        return self.normalization(self.inner(x), training=training)


def test_statistics_inside_the_wrapped_layer_move_on_as_ever():
    x = normal(64, 5) + 3
    dropped, plain = DropConnect(0.5, Normalized(), per="batch", seed=4), Normalized()
    plain.build(x.shape)
    dropped.build(x.shape)
    kernel = numpy(dropped.layer.kernel)
    plain.inner.set_weights([masked(kernel, 0.5, 4), np.zeros(4, "float32")])
    np.testing.assert_allclose(numpy(dropped(x, training=True)), numpy(plain(x, training=True)), rtol=1e-3, atol=1e-4)
    for found, expected in zip(dropped.layer.normalization.get_weights(), plain.normalization.get_weights()):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(numpy(dropped.layer.normalization.moving_mean)).min() > 0
    np.testing.assert_array_equal(numpy(dropped.layer.kernel), kernel)


def test_a_layer_that_writes_its_kernel_does_not_write_the_dropped_one():
    layer = DropConnect(0.5, layers.SpectralNormalization(layers.Dense(8)), per="batch", seed=0)
    layer(normal(4, 8), training=True)
    assert (numpy(layer.layer.kernel) != 0).all()


def test_gradients_reach_only_the_weights_that_were_kept():
    kernel = normal(20, 10)
    model = keras.Sequential([keras.Input((20,)), DropConnect(0.5, dense(kernel, normal(10)), per="batch", seed=5)])
    of_kernel, of_bias = step(model, normal(32, 20, seed=1))
    np.testing.assert_array_equal(of_kernel == 0, masked(kernel, 0.5, 5) == 0)
    np.testing.assert_array_equal(of_bias == 0, masked(normal(10), 0.5, 5, 1) == 0)


def test_gradients_of_masks_per_example_are_sums_over_the_examples():
    kernel, x = normal(7, 3), normal(5, 7, seed=1)
    model = keras.Sequential([keras.Input((7,)), DropConnect(0.5, dense(kernel), seed=6)])
    (found,) = step(model, x)
    factor = masked(np.broadcast_to(np.ones_like(kernel), (5, 7, 3)).copy(), 0.5, 6)
    upstream = 2 * (np.einsum("bi,bio->bo", x, kernel * factor) - 1) / 15
    np.testing.assert_allclose(found, np.einsum("bi,bo,bio->io", x, upstream, factor), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"per": "batch"}, {"inference": "gaussian"}])
def test_activity_regularizers_of_the_wrapped_layer_still_count(options):
    inner = layers.Dense(4, activity_regularizer=keras.regularizers.L2(0.1))
    layer, x = DropConnect(0, inner, seed=0, **options), normal(6, 5)
    inner(x)
    (expected,) = (float(loss) for loss in inner.losses)
    for training in (True, False):
        layer(x, training=training)
        assert sum(float(loss) for loss in layer.losses) == pytest.approx(expected, rel=1e-5)


def penalties(layer, shape):
    """What a layer adds to the loss in `fit` and in `evaluate`, with kernels of 1 and inputs of 1."""
    model = keras.Sequential([keras.Input(shape), layer])
    for weight in model.weights:
        if "kernel" in weight.name:
            weight.assign(np.ones(weight.shape))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.ones((6, *shape), "float32")
    y = model.predict(x, verbose=0)
    return model.fit(x, y, batch_size=6, verbose=0).history["loss"][0], model.evaluate(x, y, batch_size=6, verbose=0)


@pytest.mark.parametrize(
    ("around", "inner", "shape"),
    [
        (lambda layer: DropConnect(0, layer, per="batch"), layers.Dense, (5,)),
        (lambda layer: TargetedDropout(0, layer), layers.Dense, (5,)),
        (lambda layer: WeightDrop(0, layer), layers.LSTM, (3, 2)),
        # These do the computation of the layer themselves in training, with next to no noise here.
        (lambda layer: Standout(layer, alpha=0, beta=50), layers.Dense, (5,)),
        (lambda layer: VariationalDropout(1e-12, layer, kl_weight=0), layers.Dense, (5,)),
        (lambda layer: VariationalDropout(1e-12, layer, kl_weight=0, noise="inputs"), layers.Dense, (5,)),
        (lambda layer: SparseVariationalDropout(layer, kl_weight=0, log_variance=-30), layers.Dense, (5,)),
    ],
)
def test_activity_regularizers_count_once_in_fit_and_in_evaluate(around, inner, shape):
    plain, wrapped = (inner(4, activity_regularizer=keras.regularizers.L2(0.1)) for _ in range(2))
    (expected, _), found = penalties(plain, shape), penalties(around(wrapped), shape)
    assert expected > 0.01
    assert found == pytest.approx((expected, expected), rel=1e-3)


def lora(layer, shape=(None, 5), alpha=None):
    if not layer.built:
        layer.build(shape)
    layer.enable_lora(2, lora_alpha=alpha, b_initializer="glorot_uniform")
    return layer


AWQ = keras.dtype_policies.get("awq/4/128_from_float32")


def quantized(layer):
    layer.build((None, 4))
    layer.quantize("int8")
    return layer


@pytest.mark.parametrize(
    ("words", "make"),
    [
        ("must be a Keras layer", lambda: DropConnect(0.5, "dense")),
        ("which is 1 in float32", lambda: DropConnect(1 - 1e-9, layers.Dense(3))),
        ('per="example" masks the kernel of a Dense', lambda: DropConnect(0.5, layers.Conv2D(3, 3))),
        ('per="example" masks the kernel of a Dense', lambda: DropConnect(0.5, quantized(layers.Dense(4)))),
        ("is for a Dense layer", lambda: DropConnect(0.5, layers.Conv2D(3, 3), per="batch", inference="gaussian")),
        ("each unit alone", lambda: DropConnect(0.5, layers.Dense(3, "softmax"), inference="gaussian")),
        ("each unit alone", lambda: DropConnect(0.5, layers.Dense(3, layers.Softmax()), inference="gaussian")),
        ("must have a kernel", lambda: DropConnect(0.5, layers.LSTM(3), per="batch").build((None, 2, 4))),
        ("must have a kernel", lambda: DropConnect(0.5, layers.Dense(3, lora_rank=2)).build((None, 4))),
        ("must have a kernel", lambda: DropConnect(0.5, quantized(layers.Dense(4)), per="batch").build((None, 4))),
        ("must be a recurrent layer", lambda: WeightDrop(0.5, layers.Dense(3))),
        ("Put it around", lambda: layers.Bidirectional(WeightDrop(0.5, layers.LSTM(3)))),
        ("variable recurrent_kernel", lambda: WeightDrop(0.5, layers.RNN(Sum())).build((None, 2, 4))),
        ("with LoRA", lambda: LoRADropout(0.5, layers.Dense(3))),
        ("with LoRA", lambda: LoRADropout(0.5, layers.Conv2D(3, 3, lora_rank=2))),
        ("quantized by awq", lambda: LoRADropout(0.5, layers.Dense(4, lora_rank=2, dtype=AWQ))),
    ],
)
def test_layers_that_cannot_be_meant_are_refused_in_two_lines(words, make):
    with pytest.raises(BadInput) as caught:
        make()
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


class Sum(keras.Layer):
    """A cell without weights."""

    state_size = 4

    def call(self, x, states):
        return x + states[0], [x + states[0]]


# Mixout


def mixed(w, w0, rate, seed=0, steps=1):
    """The outputs for the unit matrix, the kernel itself, in the step behind `steps` that see w0."""
    layer = Mixout(rate, dense(w0), seed=seed)
    eye = np.eye(len(w), dtype="float32")
    for _ in range(steps):
        np.testing.assert_allclose(numpy(layer(eye, training=True)), w0, rtol=1e-6)  # nothing else to replace it by
    layer.layer.set_weights([w])
    return layer, numpy(layer(eye, training=True))


def test_mixout_replaces_weights_by_those_of_the_start_and_keeps_the_mean():
    w, w0 = normal(80, 50), normal(80, 50, seed=1)
    layer, y = mixed(w, w0, 0.7)
    replaced = np.isclose(y, w0)
    assert_share(replaced, 0.7)
    np.testing.assert_allclose(y[~replaced], (w0 + (w - w0) / 0.3)[~replaced], rtol=1e-3, atol=1e-4)
    calls = np.mean([numpy(layer(np.eye(80, dtype="float32"), training=True)) for _ in range(200)], axis=0)
    spread = np.abs(w - w0) * math.sqrt(0.7 / 0.3 / 200)
    assert (np.abs(calls - w) < 5.5 * spread + 1e-4).all()


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0), (1.0, 1)])
def test_mixout_at_rate_0_is_the_layer_and_at_rate_1_that_of_the_start(rate, expected):
    both = normal(8, 5), normal(8, 5, seed=1)
    np.testing.assert_allclose(mixed(*both, rate)[1], both[expected], rtol=1e-5, atol=1e-6)


def test_mixout_from_zero_is_drop_connect_with_a_mask_for_the_batch():
    w, eye = normal(30, 20), np.eye(30, dtype="float32")
    one = Mixout(0.4, dense(w), origin="zero", seed=5)
    other = DropConnect(0.4, dense(w), per="batch", drop_bias=False, seed=5)
    for _ in range(3):
        np.testing.assert_array_equal(numpy(one(eye, training=True)), numpy(other(eye, training=True)))


def test_mixout_starts_again_when_told_and_only_then():
    w, eye = normal(8, 5), np.eye(8, dtype="float32")
    layer, _ = mixed(w, normal(8, 5, seed=1), 1.0, steps=3)
    assert not np.allclose(numpy(layer(eye, training=True)), w)
    layer.restart()
    np.testing.assert_allclose(numpy(layer(eye, training=True)), w, rtol=1e-6)
    layer.layer.set_weights([0 * w])
    np.testing.assert_allclose(numpy(layer(eye, training=True)), w, rtol=1e-6)


def test_mixout_around_a_trained_layer_goes_back_to_it_also_when_saved(tmp_path):
    keras.utils.set_random_seed(0)
    trained = keras.Sequential([keras.Input((4,)), layers.Dense(6, "relu", name="h"), layers.Dense(2)])
    w0 = trained.get_weights()[0]
    model = place(trained, {"h": {"kind": "Mixout", "rate": 0.5, "seed": 1}})
    model.compile(keras.optimizers.SGD(0.5), "mse")
    x = normal(64, 4)
    model.fit(x, x[:, :2], epochs=3, verbose=0)
    model.save(tmp_path / "m.keras")
    for each in (model, keras.saving.load_model(tmp_path / "m.keras")):
        mixout = next(layer for layer in each.layers if isinstance(layer, Mixout))
        assert np.abs(numpy(mixout.layer.kernel) - w0).max() > 0.01
        mixout.rate = 1.0
        inputs = normal(3, 4, seed=2)
        expected = np.maximum(inputs @ w0 + numpy(mixout.layer.bias), 0)
        np.testing.assert_allclose(numpy(mixout(inputs, training=True)), expected, rtol=1e-4, atol=1e-5)
        mixout.rate = 0.5
        passes = sampling.Passes.of(each)  # which begin with step 0 again
        (_, _, found), *_ = passes.run(inputs, 20, lambda outputs: {"outputs": outputs})
        assert found["outputs"].std(axis=0).max() > 1e-3


# dare


def test_dare_keeps_the_mean_of_the_change_and_leaves_what_did_not_change():
    base, change = [normal(300, 200), normal(200, seed=1), np.arange(3)], normal(300, 200, seed=2)
    kernel, bias, counts = dare([base[0] + change, base[1], np.arange(3) + 5], base, 0.9, seed=4)
    gone = kernel == base[0]
    assert_share(gone, 0.9)
    np.testing.assert_allclose((kernel - base[0])[~gone], 10 * change[~gone], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(bias, base[1])
    np.testing.assert_array_equal(counts, np.arange(3) + 5)
    other = dare([base[0] + change], base[:1], 0.9, seed=5)[0] == base[0]
    assert abs((gone & other).mean() - 0.81) < 0.01


@pytest.mark.parametrize(("weights", "rate"), [([np.ones(3)], 1.0), ([np.ones(4)], 0.5), ([np.ones(3)] * 2, 0.5)])
def test_dare_refuses_other_shapes_and_rate_1(weights, rate):
    with pytest.raises(BadInput, match="dare: "):
        dare(weights, [np.zeros(3)], rate)


# WeightDrop


def test_the_recurrent_kernel_has_one_mask_for_all_rows_and_steps():
    """One-hot states after step 1 make step 2 the kernel itself, step 3 its square, ..."""
    n = 50
    inner = layers.SimpleRNN(n, activation="linear", use_bias=False, return_sequences=True)
    layer = WeightDrop(0.3, inner, seed=0)
    x = np.zeros((n, 4, n), "float32")
    x[:, 0] = np.eye(n)
    layer.build(x.shape)
    kernel = normal(n, n) / math.sqrt(n)
    inner.set_weights([np.eye(n, dtype="float32"), kernel])
    first, second, third, fourth = np.moveaxis(numpy(layer(x, training=True)), 1, 0)
    dropped = second == 0
    np.testing.assert_array_equal(first, np.eye(n))
    np.testing.assert_allclose(second, np.where(dropped, 0, kernel / 0.7), rtol=1e-4)
    assert_share(dropped, 0.3)
    np.testing.assert_allclose(third, second @ second, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fourth, second @ second @ second, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(numpy(layer(x))[:, 1], kernel, rtol=1e-4)


RECURRENT = {
    "simple": lambda **options: layers.SimpleRNN(6, **options),
    "gru": lambda **options: layers.GRU(6, **options),
    "lstm": lambda **options: layers.LSTM(6, **options),
    "cell": lambda **options: layers.RNN(layers.GRUCell(6), **options),
    "stacked": lambda **options: layers.RNN([layers.LSTMCell(5), layers.GRUCell(6)], **options),
    "bidirectional": lambda **options: layers.Bidirectional(layers.LSTM(6, **options)),
}


@pytest.mark.parametrize("kind", RECURRENT)
def test_training_is_the_plain_layer_with_dropped_recurrent_kernels(kind):
    """Each kernel with a mask of its own; with padding, all outputs and states."""
    keras.utils.set_random_seed(0)
    inner = RECURRENT[kind](return_sequences=True, return_state=True)
    layer, x = WeightDrop(0.4, inner, seed=8), normal(4, 5, 3)
    padding = np.array([[True] * n + [False] * (5 - n) for n in (5, 3, 4, 1)])
    layer.build(x.shape)
    keep = inner.get_weights()
    inference = keras.tree.map_structure(numpy, inner(x, mask=padding))
    trained = keras.tree.map_structure(numpy, layer(x, mask=padding, training=True))
    kept = keras.tree.map_structure(numpy, layer(x, mask=padding))
    number = 0
    for variable in inner.trainable_variables:
        if variable.name == "recurrent_kernel":
            variable.assign(masked(numpy(variable), 0.4, 8, number))
            number += 1
    assert number == {"stacked": 2, "bidirectional": 2}.get(kind, 1)
    expected = keras.tree.map_structure(numpy, inner(x, mask=padding))
    for a, b, c, d in zip(*(keras.tree.flatten(each) for each in (trained, expected, kept, inference))):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(c, d)
        assert np.abs(a - c).max() > 1e-3
    if kind in ("simple", "gru", "lstm", "cell"):  # without a state before it, the first step knows nothing of the mask
        np.testing.assert_allclose(trained[0][:, 0], kept[0][:, 0], rtol=1e-5, atol=1e-6)
    assert len(keep) == len(layer.weights)


def test_initial_states_are_passed_also_in_a_functional_model(tmp_path):
    inner = layers.LSTM(6, return_state=True)
    layer = WeightDrop(0.5, inner, seed=0)
    inputs = [keras.Input((5, 3)), keras.Input((6,)), keras.Input((6,))]
    model = keras.Model(inputs, layer(inputs[0], initial_state=inputs[1:]))
    x = [normal(4, 5, 3), normal(4, 6, seed=1), normal(4, 6, seed=2)]
    for a, b in zip(model.predict(x, verbose=0), inner(x[0], initial_state=x[1:])):
        np.testing.assert_allclose(a, numpy(b), rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for a, b in zip(model(x, training=True), loaded(x, training=True)):
        np.testing.assert_allclose(numpy(a), numpy(b), rtol=1e-5, atol=1e-6)


def test_padding_is_obeyed_and_passed_on_as_by_the_plain_layer():
    ids = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 0, 0], [1, 2, 3, 4, 5]])
    inputs = keras.Input((5,), dtype="int32")
    embedded = layers.Embedding(10, 4, mask_zero=True)(inputs)
    first, second = layers.LSTM(6, return_sequences=True), layers.GRU(3)
    dropped = keras.Model(inputs, WeightDrop(0.5, second)(WeightDrop(0.5, first)(embedded)))
    plain = keras.Model(inputs, second(first(embedded)))
    np.testing.assert_allclose(dropped.predict(ids, verbose=0), plain.predict(ids, verbose=0), rtol=1e-5, atol=1e-6)
    layer = WeightDrop(0.5, first)
    assert WeightDrop(0.5, layers.GRU(3)).compute_mask(None, ops.ones((2, 5), "bool")) is None
    assert layer.compute_mask(None, mask := ops.ones((2, 5), "bool")) is mask


def test_gradients_reach_only_the_recurrent_weights_that_were_kept():
    layer = WeightDrop(0.5, layers.GRU(8), seed=9)
    model = keras.Sequential([keras.Input((6, 3)), layer])
    kernel = layer.layer.get_weights()[1]
    of_kernel, of_recurrent, of_bias = step(model, normal(16, 6, 3))
    np.testing.assert_array_equal(of_recurrent == 0, masked(kernel, 0.5, 9) == 0)
    assert (of_kernel != 0).all()
    assert (of_bias != 0).any()


def test_rate_one_cuts_the_recurrence():
    layer, x = WeightDrop(1, layers.SimpleRNN(4, return_sequences=True), seed=0), normal(2, 5, 3)
    y = numpy(layer(x, training=True))
    np.testing.assert_allclose(y, np.tanh(x @ layer.layer.get_weights()[0]), rtol=1e-4, atol=1e-5)


def test_states_of_a_stateful_layer_are_kept():
    dropped, plain = WeightDrop(0, layers.SimpleRNN(4, stateful=True), seed=0), layers.SimpleRNN(4, stateful=True)
    x = normal(2, 5, 3)
    plain.build(x.shape)
    dropped.build(x.shape)
    plain.set_weights(dropped.layer.get_weights())
    for _ in range(2):
        np.testing.assert_allclose(numpy(dropped(x, training=True)), numpy(plain(x)), rtol=1e-4, atol=1e-5)


# LoRADropout


def test_only_the_adapter_sees_dropout():
    """An adapter that is the identity shows its inputs."""
    n, x = 40, normal(50, 40, seed=1)
    inner = dense(normal(n, n), normal(n, seed=2))
    inner.enable_lora(n, lora_alpha=2 * n)
    inner.lora_kernel_a.assign(np.eye(n))
    layer = LoRADropout(0.3, inner, seed=0)
    np.testing.assert_allclose(numpy(layer(x, training=True)), numpy(layer(x)), atol=1e-4)  # B = 0: nothing to drop
    base = x @ normal(n, n) + normal(n, seed=2)
    inner.lora_kernel_b.assign(np.eye(n))
    np.testing.assert_allclose(numpy(layer(x)), base + 2 * x, rtol=1e-3, atol=1e-3)
    branch = numpy(layer(x, training=True)) - base
    dropped = np.abs(branch) < 0.5 * np.abs(2 * x)
    np.testing.assert_allclose(branch, np.where(dropped, 0, 2 * x / 0.7), rtol=1e-3, atol=1e-3)
    assert_share(dropped, 0.3)


def test_rate_one_leaves_the_layer_without_its_adapter():
    kernel, bias, x = normal(5, 4), normal(4, seed=1), normal(6, 5, seed=2)
    layer = LoRADropout(1, lora(dense(kernel, bias, "relu")), seed=0)
    np.testing.assert_allclose(numpy(layer(x, training=True)), np.maximum(x @ kernel + bias, 0), rtol=1e-4, atol=1e-5)
    assert np.abs(numpy(layer(x)) - np.maximum(x @ kernel + bias, 0)).max() > 1e-2
    np.testing.assert_array_equal(numpy(layer(x)), numpy(layer.layer(x)))


def test_einsum_dense_with_the_same_weights_does_the_same():
    keras.utils.set_random_seed(0)
    shape = (4, 3, 5)
    one = LoRADropout(0.5, lora(layers.Dense(6, "tanh"), shape, alpha=3), seed=0)
    two = layers.EinsumDense("btc,cd->btd", (None, 6), activation="tanh", bias_axes="d")
    two = LoRADropout(0.5, lora(two, shape, alpha=3), seed=0)
    two.layer.set_weights(one.layer.get_weights())
    x = normal(*shape)
    np.testing.assert_allclose(numpy(one(x, training=True)), numpy(two(x, training=True)), rtol=1e-4, atol=1e-5)


def test_training_moves_the_adapter_and_not_the_kernel():
    inner = lora(dense(normal(5, 4), normal(4)))
    layer = LoRADropout(0.5, inner, seed=0)
    before = [numpy(v) for v in (inner.lora_kernel_a, inner.lora_kernel_b, inner.bias)]
    base = numpy(inner.kernel) - before[0] @ before[1]
    step(keras.Sequential([keras.Input((5,)), layer]), normal(8, 5))
    after = [numpy(v) for v in (inner.lora_kernel_a, inner.lora_kernel_b, inner.bias)]
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(before, after))
    np.testing.assert_allclose(numpy(inner.kernel) - after[0] @ after[1], base, atol=1e-4)


def test_a_saved_adapter_comes_back_merged(tmp_path):
    model = keras.Sequential([keras.Input((5,)), LoRADropout(0.5, lora(layers.Dense(4, "relu")), seed=0)])
    x = normal(6, 5)
    model(x, training=True)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)
    assert loaded.layers[0].layer.lora_rank == 2
    np.testing.assert_array_equal(numpy(loaded.layers[0].stream.state), numpy(model.layers[0].stream.state))


# LoRADropout on quantized layers, and on embeddings

WITH_ADAPTER = {
    "dense": (lambda: layers.Dense(6, "relu"), normal(8, 3, 6)),
    "einsum": (lambda: layers.EinsumDense("btc,cd->btd", (None, 6), activation="relu", bias_axes="d"), normal(8, 3, 6)),
    "embedding": (lambda: layers.Embedding(9, 6), np.arange(40).reshape(8, 5) % 9),
}


def of_adapter(inner, which):
    """The adapter's first matrix or its second."""
    return next(each for each in inner.variables if "lora" in each.name and each.name.endswith(which))


def with_adapter(kind, mode, first="quantize"):
    """A layer with an adapter that does something, in a model: quantized before the adapter was added, or after it was wrapped."""
    keras.utils.set_random_seed(3)
    make, x = WITH_ADAPTER[kind]
    inner = make()
    inner.build(x.shape)
    if mode and first == "quantize":
        inner.quantize(mode)
    inner.enable_lora(2, lora_alpha=6.0, b_initializer="glorot_uniform")
    inputs = keras.Input(x.shape[1:], dtype="int32" if kind == "embedding" else "float32")
    model = keras.Sequential([inputs, LoRADropout(0.5, inner, seed=4)])
    if mode and first == "wrap":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an input has nothing to quantize
            model.quantize(mode)
    assert inner.quantization_mode == mode
    return model, inner, x


@pytest.mark.parametrize("first", ["quantize", "wrap"])
@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.parametrize("kind", WITH_ADAPTER)
def test_on_a_quantized_layer_the_mask_acts_on_the_adapter_alone(kind, mode, first):
    model, inner, x = with_adapter(kind, mode, first)
    layer, with_all = model.layers[-1], numpy(inner(x))
    half = numpy(layer(x, training=True))
    layer.rate = 0.0
    np.testing.assert_allclose(numpy(layer(x, training=True)), with_all, rtol=1e-5, atol=1e-6)
    layer.rate = 1.0
    without = numpy(layer(x, training=True))
    b = of_adapter(inner, "_b")
    b.assign(np.zeros(b.shape))
    np.testing.assert_allclose(without, numpy(inner(x)), rtol=1e-5, atol=1e-5)  # the quantized kernel's part is untouched
    assert min(np.abs(half - with_all).max(), np.abs(half - without).max(), np.abs(with_all - without).max()) > 0.05


@pytest.mark.parametrize("kind", WITH_ADAPTER)
def test_int8_is_the_float_layer_within_its_quantization(kind):
    """With the same adapter and the same masks."""
    (floats, _, x), (model, inner, _) = with_adapter(kind, None), with_adapter(kind, "int8", "wrap")
    found, expected = (numpy(each.layers[-1](x, training=True)) for each in (model, floats))
    scale = np.abs(expected).max()
    assert 0 < np.abs(found - expected).max() < 0.03 * scale
    assert np.abs(numpy(inner(x)) - expected).max() > 0.1 * scale  # that would be too lenient for another mask


@pytest.mark.parametrize("kind", WITH_ADAPTER)
def test_training_moves_the_adapter_of_an_int8_layer_alone(kind):
    model, inner, x = with_adapter(kind, "int8")
    model.compile(keras.optimizers.SGD(0.05), "mse")
    before = {each.path: numpy(each) for each in inner.variables}
    shape = numpy(model(x)).shape
    losses = model.fit(x, np.ones(shape), epochs=6, verbose=0).history["loss"]
    moved = {each.name for each in inner.variables if not np.array_equal(numpy(each), before[each.path])}
    a, b = (of_adapter(inner, which).name for which in ("_a", "_b"))
    assert {a, b} <= moved <= {a, b, "bias"}
    assert losses[-1] < losses[0]


def test_a_word_is_dropped_from_the_adapter_as_a_whole():
    model, inner, _ = with_adapter("embedding", None)
    layer, ids = model.layers[-1], np.tile(np.arange(9), (400, 1))
    branch = numpy(layer(ids, training=True)) - numpy(inner._embeddings)[ids]
    expected = 3.0 * (numpy(of_adapter(inner, "_a")) @ numpy(of_adapter(inner, "_b")))[ids]
    dropped = np.abs(branch).max(-1) < 1e-5
    np.testing.assert_allclose(branch, np.where(dropped[..., None], 0, 2 * expected), rtol=1e-3, atol=1e-5)
    assert_share(dropped, 0.5)


@pytest.mark.parametrize("mode", [None, "int8"])
@pytest.mark.parametrize("kind", WITH_ADAPTER)
def test_a_loaded_adapter_has_its_scale_and_its_quantization(kind, mode, tmp_path):
    model, _, x = with_adapter(kind, mode)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    again = loaded.layers[-1].layer
    assert (again.lora_rank, again.lora_alpha, again.quantization_mode) == (2, 6.0, mode)
    expected, scale = numpy(model(x)), np.abs(numpy(model(x))).max()
    assert np.abs(numpy(loaded(x)) - expected).max() < (0.03 if mode else 1e-5) * scale
    assert again.get_config()["lora_alpha"] == type(loaded.layers[-1]).from_config(loaded.layers[-1].get_config()).layer.lora_alpha


def test_sites_and_rates_of_a_model_with_int8_adapters():
    model, inner, x = with_adapter("dense", "int8")
    (site,) = (each for each in keras_dropout.sites(model) if each.dropout)
    assert [each["kind"] for each in site.dropout] == ["LoRADropout"]
    before = numpy(model(x, training=True))
    keras_dropout.set_rate(model, 0.0)
    assert model.layers[-1].rate == 0.0
    np.testing.assert_allclose(numpy(model(x, training=True)), numpy(inner(x)), rtol=1e-5, atol=1e-6)
    assert np.abs(before - numpy(inner(x))).max() > 0.05
    assert keras_dropout.adopt(model) == []


# all of them

EVERY = {
    "example": lambda **options: DropConnect(0.3, layers.Dense(4, "relu", **options), seed=0),
    "gaussian": lambda **options: DropConnect(0.3, layers.Dense(4, "tanh", **options), inference="gaussian", seed=0),
    "batch": lambda **options: DropConnect(0.3, layers.Conv1D(4, 3, **options), per="batch", seed=0),
    "weights": lambda **options: WeightDrop(0.3, layers.LSTM(4, recurrent_initializer="he_normal", **options), seed=0),
    "mixout": lambda **options: Mixout(0.3, layers.Conv1D(4, 3, **options), seed=0),
    "lora": lambda **options: LoRADropout(0.3, layers.Dense(4, lora_rank=2, **options), seed=0),
}


@pytest.mark.parametrize("kind", EVERY)
def test_models_train_and_survive_saving(kind, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 3)), EVERY[kind](), layers.Flatten(), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    x = normal(64, 6, 3)
    history = model.fit(x, x.sum((1, 2)), epochs=8, batch_size=25, verbose=0).history["loss"]  # 25, 25, 14
    assert history[-1] < 0.7 * history[0]
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)
    if kind != "lora":  # its adapter is merged
        np.testing.assert_allclose(numpy(loaded(x, training=True)), numpy(model(x, training=True)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", ["float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", EVERY)
def test_half_precision_keeps_type_and_values(kind, policy):
    x, outputs, weights = normal(6, 6, 3), [], None
    for each in ("float32", policy):
        layer = EVERY[kind](dtype=each)
        layer = type(layer).from_config(layer.get_config() | {"dtype": each})
        layer.build(x.shape)
        weights = weights or [normal(*w.shape, seed=n) / 2 for n, w in enumerate(layer.weights)]
        layer.set_weights(weights)
        outputs.append([layer(x, training=training) for training in (True, False)])
        assert {keras.backend.standardize_dtype(y.dtype) for y in outputs[-1]} == {layer.compute_dtype}
    for wide, half in zip(*outputs):
        np.testing.assert_allclose(numpy(ops.cast(half, "float32")), numpy(wide), atol=0.05, rtol=0.05)
