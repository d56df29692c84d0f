"""What layers that learn their rates promise, on the backend of this process."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from scipy import integrate, stats

from keras_dropout import (
    BadInput,
    ConcreteDropout,
    SparseVariationalDropout,
    Standout,
    TargetedDropout,
    VariationalDropout,
)
from keras_dropout.testing import backend

ROOT = Path(__file__).resolve().parents[2]
X = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")


def numpy(x):
    return ops.convert_to_numpy(x)


def train(layer, x=X):
    return numpy(layer(x, training=True)).astype("float64")


def infer(layer, x=X):
    return numpy(layer(x, training=False)).astype("float64")


def dense(kernel, **options):
    """A Dense layer without bias that has this kernel."""
    layer = keras.layers.Dense(np.shape(kernel)[1], use_bias=False, **options)
    layer.build((None, len(kernel)))
    layer.kernel.assign(np.asarray(kernel, "float32"))
    return layer


def channels_alone(data_format):
    """A convolution of 4 channels that passes each on."""
    layer = keras.layers.Conv2D(4, 1, use_bias=False, data_format=data_format)
    layer.build((None, 3, 3, 4) if data_format == "channels_last" else (None, 4, 3, 3))
    layer.kernel.assign(np.eye(4, dtype="float32")[None, None])
    return layer


def loss(layer, x=X):
    """What one call at inference adds to the loss."""
    layer(x)
    (value,) = layer.losses
    return float(numpy(value))


def step(layer, x, y, rate=1.0):
    """The loss of one training step, and the gradients that it followed, by the names of the weights."""
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    model.compile(keras.optimizers.SGD(rate), "mse")
    before = {weight.name: numpy(weight).astype("float64") for weight in layer.trainable_weights}
    value = float(model.train_on_batch(x, y))
    return value, {weight.name: (before[weight.name] - numpy(weight)) / rate for weight in layer.trainable_weights}


def slope(make, change, x, y, by=1e-2):
    """The derivative of the training loss along a `change(layer, distance)`, by differences with the same noise."""
    losses = []
    for sign in (1, -1):
        layer = make()
        if not layer.built:
            layer.build(x.shape)
        change(layer, sign * by)
        losses.append(step(layer, x, y, 1e-12)[0])
    return (losses[0] - losses[1]) / (2 * by)


def mean_log_noise(alpha):
    """E ln|e|, e ~ N(1, alpha), by quadrature."""
    spread = math.sqrt(alpha)
    return integrate.quad(
        lambda z: math.log(abs(1 + spread * z) + 1e-300) * stats.norm.pdf(z), -12, 12, points=[-1 / spread], limit=500
    )[0]


# ConcreteDropout


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.9])
def test_concrete_losses_are_the_formula(rate):
    kernel = np.random.default_rng(1).normal(size=(6, 3))
    entropy = rate * math.log(rate) + (1 - rate) * math.log(1 - rate)
    only_weights = ConcreteDropout(rate, dense(kernel), weight_regularizer=0.1, dropout_regularizer=0.0)
    only_rate = ConcreteDropout(rate, dense(kernel), weight_regularizer=0.0, dropout_regularizer=0.1)
    assert loss(only_weights) == pytest.approx(0.1 * (kernel**2).sum() / (1 - rate), rel=1e-4)
    assert loss(only_rate) == pytest.approx(0.1 * 6 * entropy, rel=1e-4)
    only_rate.dropout_regularizer = 0.01
    assert loss(only_rate) == pytest.approx(0.01 * 6 * entropy, rel=1e-4)


def test_concrete_entropy_is_least_at_one_half():
    layer = ConcreteDropout(0.5, dense(np.zeros((6, 1))), weight_regularizer=0.0, dropout_regularizer=1.0)
    least = loss(layer)
    assert least == pytest.approx(-6 * math.log(2), rel=1e-6)
    for rate in (0.3, 0.45, 0.55, 0.8):
        layer.rate = rate
        assert loss(layer) > least


@pytest.mark.parametrize(
    ("temperature", "rate", "mean", "variance"),
    [
        (0.1, 0.1, 0.8988, 0.101),
        (0.1, 0.5, 0.5, 0.901),
        (2 / 3, 0.01, 0.9799, None),
        (2 / 3, 0.1, 0.8547, 0.068),
        (2 / 3, 0.5, 0.5, 0.473),
    ],
)
def test_concrete_relaxation_has_its_known_bias(temperature, rate, mean, variance):
    layer = ConcreteDropout(rate, dense([[1.0]]), temperature=temperature, seed=0)
    y = train(layer, np.ones((200_000, 1), "float32"))
    assert (y * (1 - rate)).mean() == pytest.approx(mean, abs=1e-4 + 5 * y.std() / math.sqrt(y.size))
    if variance:
        fourth = ((y - y.mean()) ** 4).mean()
        assert y.var() == pytest.approx(variance, abs=5e-4 + 5 * math.sqrt((fourth - y.var() ** 2) / y.size))


def test_concrete_cold_masks_are_bernoulli():
    layer = ConcreteDropout(0.3, dense([[1.0]]), temperature=1e-5, seed=0)
    kept = train(layer, np.ones((100_000, 1), "float32")) * 0.7
    assert np.minimum(abs(kept), abs(kept - 1)).mean() < 1e-4
    assert abs((kept < 0.5).mean() - 0.3) < 5 * math.sqrt(0.21 / kept.size)


@pytest.mark.parametrize("name", ["logit", "kernel"])
def test_concrete_gradients_match_differences(name):
    y = X @ np.random.default_rng(2).normal(size=(6, 2)).astype("float32")
    direction = {"logit": 1.0, "kernel": np.random.default_rng(3).normal(size=(6, 2))}[name]

    def make():
        kernel = np.random.default_rng(4).normal(size=(6, 2))
        return ConcreteDropout(0.3, dense(kernel), temperature=1.0, weight_regularizer=0.01, dropout_regularizer=0.1, seed=5)

    def change(layer, distance):
        weight = layer.logit if name == "logit" else layer.layer.kernel
        weight.assign(numpy(weight) + np.asarray(distance * direction, "float32"))

    found = (step(make(), X, y)[1][name] * direction).sum()
    assert abs(found) > 0.01
    assert found == pytest.approx(slope(make, change, X, y), rel=0.01, abs=1e-3)


def test_concrete_masks_are_per_unit_around_dense_and_per_channel_around_convolutions():
    x = np.ones((200, 3, 3, 4), "float32")

    def constant(layer, axes):
        y = train(layer, x)
        return [bool(np.allclose(y, y.take([0], axis))) for axis in axes]

    assert constant(ConcreteDropout(0.5, channels_alone("channels_last"), seed=0), range(4)) == [False, True, True, False]
    assert constant(ConcreteDropout(0.5, channels_alone("channels_last"), spatial=False, seed=0), range(4)) == [False] * 4
    assert constant(ConcreteDropout(0.5, dense(np.eye(4)), seed=0), range(4)) == [False] * 4
    assert constant(ConcreteDropout(0.5, dense(np.eye(4)), spatial=True, seed=0), range(4)) == [False, True, True, False]


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow has no such convolution on a CPU")
def test_concrete_obeys_channels_first():
    x = np.ones((200, 4, 3, 3), "float32")
    layer = ConcreteDropout(0.5, channels_alone("channels_first"), weight_regularizer=0.0, dropout_regularizer=1.0, seed=0)
    y = train(layer, x)
    assert [bool(np.allclose(y, y.take([0], axis))) for axis in range(4)] == [False, False, True, True]
    assert loss(layer, x) == pytest.approx(-4 * math.log(2), rel=1e-5)


def test_concrete_is_the_layer_at_inference_and_takes_no_masks_for_it():
    layer = ConcreteDropout(0.4, keras.layers.Dense(3), seed=0)
    layer.build(X.shape)
    before = numpy(layer.stream.state)
    np.testing.assert_array_equal(infer(layer), numpy(layer.layer(X)))
    np.testing.assert_array_equal(numpy(layer.stream.state), before)


def test_learned_rates_are_weights_and_follow_the_gradient():
    """Where inputs say nothing about the targets, dropping them costs nothing and has the greater entropy."""
    layer = ConcreteDropout(0.1, keras.layers.Dense(1, kernel_initializer="zeros"), dropout_regularizer=1.0, seed=0)
    _, gradients = step(layer, 0 * X, np.zeros((64, 1), "float32"))
    assert gradients["logit"] == pytest.approx(6 * 0.09 * math.log(1 / 9), rel=1e-4)
    assert layer.rate > 0.1
    assert layer.get_config()["rate"] == 0.1, "the config has the rate that was set"
    layer.rate = 0.2
    assert (layer.rate, layer.get_config()["rate"]) == (0.2, 0.2)


def test_a_rate_set_by_hand_reaches_the_compiled_step():
    layer = ConcreteDropout(0.1, dense(np.eye(6)), temperature=1e-4, seed=0)
    x = np.ones((5000, 6), "float32")
    layer.build(x.shape)
    step = backend.compiled_training(layer)
    for rate in (0.1, 0.7, 0.01):
        layer.rate = rate
        dropped = (step(x) * (1 - rate) < 0.5).mean()
        assert abs(dropped - rate) < 5 * math.sqrt(rate * (1 - rate) / x.size)
    assert step.traces() <= 1


@pytest.mark.parametrize("cls", [ConcreteDropout, VariationalDropout])
@pytest.mark.parametrize("rate", [0, 1, 0.0, -0.5])
def test_rates_without_a_logit_are_refused(cls, rate):
    options = {"kl_weight": 0.1} if cls is VariationalDropout else {}
    with pytest.raises(BadInput, match="rate"):
        cls(rate, keras.layers.Dense(3), **options)
    layer = cls(0.2, keras.layers.Dense(3), **options)
    with pytest.raises(BadInput):
        layer.rate = rate
    assert layer.rate == 0.2


# VariationalDropout


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.25, 0.5, 1.0])
def test_variational_divergence_is_near_the_integral(alpha):
    layer = VariationalDropout(alpha / (1 + alpha), keras.layers.Dense(1), kl_weight=0.5)
    exact = mean_log_noise(alpha) - 0.5 * math.log(alpha)
    assert loss(layer) / (0.5 * 6) == pytest.approx(exact, abs=0.041)


def test_variational_divergence_counts_what_is_random_and_falls_with_the_rate():
    def value(rate=0.2, **options):
        return loss(VariationalDropout(rate, keras.layers.Dense(4), kl_weight=1.0, **options))

    one = value() / 24
    for per in ("unit", "weight"):
        assert value(per=per) == pytest.approx(24 * one, rel=1e-5)
    for per in ("layer", "unit"):
        assert value(noise="inputs", per=per) == pytest.approx(6 * one, rel=1e-5)
    values = [value(rate) for rate in (0.01, 0.05, 0.2, 0.35, 0.5)]
    assert values == sorted(values, reverse=True)


KERNEL = np.array([[1.0, 2.0, -1.0], [0.5, 1.0, 2.0]])
ROW = np.array([2.0, -1.0])


def moments(layer, draws=100_000):
    """Mean, covariance and the standard error of a covariance, over the rows of one batch."""
    y = train(layer, np.tile(ROW, (draws, 1)).astype("float32"))
    covariance = np.cov(y.T)
    return y.mean(axis=0), covariance, np.sqrt(2 / draws) * np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))


@pytest.mark.parametrize("per", ["layer", "unit", "weight"])
def test_noise_on_weights_has_their_variance_and_is_independent(per):
    layer = VariationalDropout(0.2, dense(KERNEL), per=per, kl_weight=0.0, seed=0)
    layer.build((None, 2))
    alpha = {"layer": np.array(0.25), "unit": np.array([0.25, 0.5]), "weight": np.linspace(0.1, 0.6, 6).reshape(2, 3)}[per]
    layer.logit.assign(np.log(alpha))
    assert layer.rate == pytest.approx((alpha / (1 + alpha)).mean(), rel=1e-5)
    mean, covariance, error = moments(layer)
    expected = np.diag(ROW**2 @ ((alpha[:, None] if per == "unit" else alpha) * KERNEL**2))
    assert (abs(mean - ROW @ KERNEL) < 5 * np.sqrt(np.diag(expected) / 100_000)).all()
    assert (abs(covariance - expected) < 5 * error).all()


def test_noise_on_inputs_is_shared_by_the_outputs():
    layer = VariationalDropout(0.2, dense(KERNEL), noise="inputs", per="unit", kl_weight=0.0, seed=0)
    layer.build((None, 2))
    alpha = np.array([0.25, 0.5])
    layer.logit.assign(np.log(alpha))
    _, covariance, error = moments(layer)
    expected = KERNEL.T @ np.diag(alpha * ROW**2) @ KERNEL
    assert (abs(covariance - expected) < 5 * error).all()
    assert (abs(expected[0, 1:]) > 20 * error[0, 1:]).all()


@pytest.mark.parametrize("noise", ["weights", "inputs"])
def test_variational_gradients_match_differences(noise):
    y = X @ np.random.default_rng(2).normal(size=(6, 2)).astype("float32")

    def make():
        kernel = np.random.default_rng(4).normal(size=(6, 2))
        return VariationalDropout(0.2, dense(kernel), noise=noise, kl_weight=0.1, seed=5)

    found = step(make(), X, y)[1]["logit"]
    assert abs(found) > 0.01
    expected = slope(make, lambda layer, distance: layer.logit.assign(numpy(layer.logit) + np.float32(distance)), X, y)
    assert found == pytest.approx(expected, rel=0.01, abs=1e-3)


def test_variational_rates_rise_to_one_half_and_can_come_back():
    """Without inputs only the divergence speaks, for noise; it must not be able to ask for more than alpha = 1."""
    layer = VariationalDropout(0.3, keras.layers.Dense(4), per="unit", kl_weight=1.0, seed=0)
    for _ in range(5):
        step(layer, 0 * X, np.zeros((64, 4), "float32"))
    np.testing.assert_array_equal(numpy(layer.logit), 0)
    assert layer.rate == 0.5
    layer.kl_weight = 0.0
    step(layer, X, X[:, :4])
    assert layer.rate < 0.5
    layer.logit.assign(np.full(6, 3.0))  # as an optimiser that knows no constraints might
    layer.kl_weight = 1.0
    at_most = VariationalDropout(0.5, keras.layers.Dense(4), per="unit", kl_weight=1.0)
    assert loss(layer) == pytest.approx(loss(at_most), rel=1e-6)


# SparseVariationalDropout


def sparse(kernel, log_sigma2, **options):
    layer = SparseVariationalDropout(dense(kernel), **{"kl_weight": 1.0, "seed": 0, **options})
    layer.build((None, len(kernel)))
    layer.log_sigma2.assign(np.broadcast_to(np.asarray(log_sigma2, "float32"), np.shape(kernel)))
    return layer


def test_sparse_divergence_is_near_the_integral_and_falls_with_the_noise():
    """To zero, for weights that are nothing but noise."""
    values = {}
    for log_alpha in (-4, -2, 0, 2, 4):
        exact = mean_log_noise(math.exp(log_alpha)) - 0.5 * log_alpha + (np.euler_gamma + math.log(2)) / 2
        for mean in (1.0, -0.1):  # the divergence knows only alpha
            values[log_alpha] = loss(sparse([[mean]], log_alpha + math.log(mean**2), kl_weight=0.5), X[:, :1]) / 0.5
            assert values[log_alpha] == pytest.approx(exact, abs=0.0095)
    assert list(values.values()) == sorted(values.values(), reverse=True)
    assert loss(sparse([[1.0]], 8.0), X[:, :1]) == pytest.approx(0, abs=3e-4)
    assert loss(sparse([[1.0]], 30.0), X[:, :1]) == loss(sparse([[1.0]], 8.0), X[:, :1]), "log alpha is clipped"
    assert loss(sparse([[1.0]], -30.0), X[:, :1]) == loss(sparse([[1.0]], -8.0), X[:, :1]), "log alpha is clipped"


def test_sparse_noise_has_the_variance_of_the_weights_and_is_independent():
    variance = np.linspace(0.05, 0.8, 6).reshape(2, 3)
    layer = sparse(KERNEL, np.log(variance))
    mean, covariance, error = moments(layer)
    expected = np.diag(ROW**2 @ variance)
    assert (abs(mean - ROW @ KERNEL) < 5 * np.sqrt(np.diag(expected) / 100_000)).all()
    assert (abs(covariance - expected) < 5 * error).all()


def test_sparse_inference_leaves_out_the_weights_beyond_the_threshold():
    kernel = np.random.default_rng(1).normal(size=(6, 4))
    log_alpha = np.random.default_rng(2).uniform(-4, 9, size=(6, 4))
    layer = sparse(kernel, log_alpha + np.log(kernel**2))
    for threshold in (3.0, 0.0, 7.5):
        layer.threshold = threshold
        out = log_alpha >= threshold
        assert 0 < out.mean() < 1
        assert layer.sparsity == pytest.approx(out.mean())
        np.testing.assert_allclose(infer(layer), X @ np.where(out, 0, kernel), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(numpy(layer.pruned().kernel), np.where(out, 0, kernel), rtol=1e-6)
    np.testing.assert_allclose(numpy(layer.layer.kernel), kernel, rtol=1e-6)


WRAPPED = {
    "dense": lambda: keras.layers.Dense(5, activation="relu", bias_initializer="ones"),
    "convolution": lambda: keras.layers.Conv2D(5, 2, strides=2, padding="same", activation="tanh", bias_initializer="ones"),
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_the_pruned_layer_is_a_plain_one_with_the_same_outputs(wrapped):
    keras.utils.set_random_seed(0)
    layer = SparseVariationalDropout(WRAPPED[wrapped](), kl_weight=1.0, log_variance=-1.0, seed=0)
    x = np.random.default_rng(0).normal(size=(8, 5, 6, 3)).astype("float32")
    y = infer(layer, x)
    plain = layer.pruned()
    assert type(plain) is type(layer.layer)
    assert 0 < layer.sparsity < 1
    assert (numpy(plain.kernel) == 0).mean() == pytest.approx(layer.sparsity)
    np.testing.assert_array_equal(numpy(plain(x)), y.astype("float32"))
    quiet = sparse_like(layer, x)
    np.testing.assert_allclose(train(quiet, x), infer(quiet, x), atol=2e-3)


def sparse_like(layer, x):
    """The same layer with next to no noise, so that training shows its mean, bias and activation."""
    twin = SparseVariationalDropout.from_config(layer.get_config())
    twin.build(x.shape)
    twin.log_sigma2.assign(np.full(twin.log_sigma2.shape, -40.0))
    return twin


def test_models_are_pruned_by_cloning():
    keras.utils.set_random_seed(0)
    layers = [SparseVariationalDropout(keras.layers.Dense(n), kl_weight=0.1, log_variance=-2.0) for n in (8, 3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    plain = keras.models.clone_model(model, clone_function=lambda layer: layer.pruned())
    assert plain.count_params() == 6 * 8 + 8 + 8 * 3 + 3
    np.testing.assert_allclose(plain.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-6)


def test_a_weight_of_zero_has_finite_loss_and_gradients():
    layer = sparse(np.zeros((6, 2)), -10.0)
    value, gradients = step(layer, X, X[:, :2])
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert layer.layer.kernel.shape == (6, 2)


@pytest.mark.parametrize("name", ["log_sigma2", "kernel"])
def test_sparse_gradients_match_differences(name):
    y = X @ np.random.default_rng(2).normal(size=(6, 2)).astype("float32")
    direction = np.random.default_rng(3).normal(size=(6, 2))

    def make():
        return sparse(np.random.default_rng(4).uniform(0.5, 2, size=(6, 2)), -1.0, kl_weight=0.1)

    def change(layer, distance):
        weight = layer.log_sigma2 if name == "log_sigma2" else layer.layer.kernel
        weight.assign(numpy(weight) + np.asarray(distance * direction, "float32"))

    found = (step(make(), X, y)[1][name] * direction).sum()
    assert found == pytest.approx(slope(make, change, X, y), rel=0.01, abs=2e-3)


# losses of both kinds of variational dropout


@pytest.mark.parametrize("cls", [VariationalDropout, SparseVariationalDropout])
def test_the_divergence_is_added_once_a_call_and_its_weight_changes_within_fit(cls):
    """Inputs and targets of 0: the loss is the divergence, up to the square root of the epsilon in the noise."""
    keras.utils.set_random_seed(0)
    layer = cls(**({"rate": 0.2} if cls is VariationalDropout else {}), layer=keras.layers.Dense(4), kl_weight=1.0, seed=0)
    model = keras.Sequential([keras.Input((6,)), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x, y = np.zeros((96, 6), "float32"), np.zeros((96, 4), "float32")
    whole = loss(layer, x)
    for training in (True, False):
        layer(x, training=training)
        assert len(layer.losses) == 1
    schedule = [0.0, 0.5, 1.0, 0.25]
    change = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: setattr(layer, "kl_weight", schedule[epoch]))
    history = model.fit(x, y, batch_size=32, epochs=4, callbacks=[change], verbose=0).history["loss"]
    np.testing.assert_allclose(history, np.multiply(schedule, whole), rtol=1e-4, atol=1e-5)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(0.25 * whole, rel=1e-4)


def test_losses_of_the_wrapped_layer_are_kept():
    layer = SparseVariationalDropout(
        keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.5), kernel_initializer="ones"), kl_weight=0.0
    )
    layer(X)
    assert sum(float(numpy(each)) for each in layer.losses) == pytest.approx(6.0)


# Standout


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_standout_means_are_its_inference_and_shares_its_probabilities(wrapped):
    keras.utils.set_random_seed(0)
    layer = Standout(WRAPPED[wrapped](), alpha=0.7, beta=-0.3, seed=0)
    x = np.random.default_rng(0).normal(size=(4, 3, 4, 2)).astype("float32")
    outputs = numpy(layer(x)) * 0 + numpy(layer.layer(x)).astype("float64")
    drawn = np.stack([train(layer, x) for _ in range(400)])
    active = outputs != 0
    assert np.isclose(drawn[:, active], 0).any()
    assert (np.isclose(drawn, 0) | np.isclose(drawn, outputs, rtol=1e-5)).all(), "what is kept is not scaled"
    error = (drawn.mean(axis=0) - infer(layer, x)).sum()
    assert abs(error) < 5 * np.sqrt(drawn.var(axis=0).sum() / 400)
    probability = infer(layer, x)[active] / outputs[active]
    assert probability.std() > 0.05
    kept = (drawn[:, active] != 0).mean()
    assert abs(kept - probability.mean()) < 5 * np.sqrt((probability * (1 - probability)).sum() / 400) / probability.size


def test_standout_with_alpha_zero_is_dropout_at_one_rate_for_all():
    layer = Standout(dense(np.eye(6)), alpha=0.0, beta=1.0, seed=0)
    x = np.random.default_rng(0).uniform(1, 2, (20_000, 6)).astype("float32")
    keep = 1 / (1 + math.exp(-1))
    assert abs((train(layer, x) != 0).mean() - keep) < 5 * math.sqrt(keep * (1 - keep) / x.size)
    np.testing.assert_allclose(infer(layer, x), keep * x, rtol=1e-5)
    layer.beta = -40.0
    assert not train(layer, x).any()


def test_no_gradient_goes_through_standouts_probabilities():
    kernel = np.random.default_rng(1).normal(size=(6, 4))
    upstream = np.random.default_rng(2).normal(size=(64, 4)).astype("float32")

    def make():
        layer = Standout(dense(kernel, activation="tanh"), seed=3)
        layer.build(X.shape)
        return layer

    kept = train(make()) != 0
    expected = (upstream * kept * (1 - np.tanh(X @ kernel) ** 2)) @ kernel.T
    np.testing.assert_allclose(backend.gradient(make(), X, upstream), expected, rtol=1e-3, atol=1e-4)


# TargetedDropout


def targeted_masks(layer, draws=200):
    """(draw, row, column): which weights the training calls dropped, seen through the inputs' identity."""
    rows = layer.layer.kernel.shape[0]
    return np.stack([train(layer, np.eye(rows, dtype="float32")) == 0 for _ in range(draws)])


@pytest.mark.parametrize("targeted", [0.0, 0.25, 0.75, 1.0])
def test_targeted_drops_only_the_least_of_each_column(targeted):
    kernel = np.random.default_rng(0).normal(size=(8, 5))
    layer = TargetedDropout(0.6, dense(kernel), targeted=targeted, seed=0)
    dropped = targeted_masks(layer)
    least = np.argsort(np.argsort(abs(kernel), axis=0), axis=0) < 8 * targeted
    assert not dropped[:, ~least].any()
    assert abs(dropped.mean() - 0.6 * targeted) <= 5 * math.sqrt(0.24 / (200 * 40 * max(targeted, 0.01))) * targeted
    layer.rate = 1.0
    np.testing.assert_array_equal(targeted_masks(layer, 1)[0], least)
    layer.rate = 0.0
    assert not targeted_masks(layer, 1).any()


def test_targeted_units_are_whole_columns_of_least_norm():
    kernel = np.random.default_rng(0).normal(size=(4, 8)) * np.array([5, 1, 7, 3, 2, 8, 6, 4])
    layer = TargetedDropout(0.5, dense(kernel), targeted=0.5, by="units", seed=0)
    dropped = targeted_masks(layer, 400)
    assert (dropped == dropped[:, :1]).all()
    least = np.argsort(np.argsort(np.linalg.norm(kernel, axis=0))) < 4
    assert not dropped[:, :, ~least].any()
    assert abs(dropped[:, 0, least].mean() - 0.5) < 5 * 0.5 / math.sqrt(400 * 4)
    np.testing.assert_array_equal(numpy(layer.pruned().kernel), np.where(least, 0, kernel).astype("float32"))


def test_of_equal_weights_as_many_are_candidates_as_are_called_for():
    layer = TargetedDropout(1.0, dense(np.ones((8, 5))), targeted=0.5, seed=0)
    np.testing.assert_array_equal(targeted_masks(layer, 1)[0].sum(axis=0), 4)


def test_targeted_candidates_follow_the_weights_and_the_share_without_compiling_again():
    layer = TargetedDropout(1.0, dense(np.arange(1, 9)[:, None]), targeted=0.5, seed=0)
    layer.build((None, 8))
    step = backend.compiled_training(layer)
    eye = np.eye(8, dtype="float32")
    for share, count in ((0.5, 4), (0.25, 2), (0.0, 0)):
        layer.targeted = share
        np.testing.assert_array_equal(step(eye)[:, 0] == 0, np.arange(8) < count)
    assert step.traces() <= 1


def test_dropped_weights_get_no_gradient_and_the_others_that_of_the_layer():
    kernel = np.random.default_rng(0).normal(size=(6, 2))
    y = X[:, :2]
    _, gradients = step(TargetedDropout(1.0, dense(kernel), targeted=0.5, seed=0), X, y)
    left = np.where(np.argsort(np.argsort(abs(kernel), axis=0), axis=0) < 3, 0, kernel)
    expected = X.T @ (X @ left - y) * 2 / y.size
    np.testing.assert_allclose(gradients["kernel"], np.where(left == 0, 0, expected), rtol=1e-3, atol=1e-4)


def test_targeted_works_on_convolutions_and_prunes_any_share():
    keras.utils.set_random_seed(0)
    layer = TargetedDropout(1.0, keras.layers.Conv2D(3, 2), targeted=0.75, seed=0)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 2)).astype("float32")
    y = train(layer, x)
    plain = layer.pruned()
    np.testing.assert_array_equal((numpy(plain.kernel) == 0).reshape(8, 3).sum(axis=0), 6)
    np.testing.assert_allclose(numpy(plain(x)), y, rtol=1e-4, atol=1e-5)
    assert (numpy(layer.pruned(0.5).kernel) == 0).mean() == 0.5
    with pytest.raises(BadInput, match="share"):
        layer.pruned(2)


# all of them

AROUND = {
    "ConcreteDropout": lambda layer: ConcreteDropout(0.3, layer, seed=0),
    "VariationalDropout": lambda layer: VariationalDropout(0.3, layer, kl_weight=1e-3, seed=0),
    "VariationalDropout, inputs": lambda layer: VariationalDropout(0.3, layer, noise="inputs", kl_weight=1e-3, seed=0),
    "SparseVariationalDropout": lambda layer: SparseVariationalDropout(layer, kl_weight=1e-3, seed=0),
    "Standout": lambda layer: Standout(layer, seed=0),
    "TargetedDropout": lambda layer: TargetedDropout(0.3, layer, seed=0),
}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
@pytest.mark.parametrize("name", AROUND)
def test_half_precision_of_layer_and_wrapper(name, policy):
    def outputs(policy):
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy(policy)
        try:
            layer = AROUND[name](dense(np.random.default_rng(1).normal(size=(6, 7))))
            y = layer(X, training=True)
            assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
            inferred = layer(X)
            assert keras.backend.standardize_dtype(inferred.dtype) == layer.compute_dtype
            return [numpy(ops.cast(each, "float32")) for each in (y, inferred, *layer.losses)]
        finally:
            keras.config.set_dtype_policy("float32")

    half, single = outputs(policy), outputs("float32")
    # A sum near 0 can turn Standout's mask, so a few units may differ.
    for a, b in zip(half, single):
        assert np.isfinite(a).all()
        assert np.mean(~np.isclose(a, b, rtol=0.05, atol=0.05)) <= (0.02 if name == "Standout" else 0)


@pytest.mark.parametrize("name", [name for name in AROUND if name != "Standout"])
def test_what_was_learned_is_saved(name, tmp_path):
    layer = AROUND[name](keras.layers.Dense(3))
    model = keras.Sequential([keras.Input((6,)), layer])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(X, X[:, :3], epochs=2, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for ours, theirs in zip(layer.weights, loaded.layers[0].weights):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))
    if "rate" in layer.get_config():
        assert loaded.layers[0].rate == layer.rate
    np.testing.assert_allclose(numpy(loaded(X, training=True)), numpy(model(X, training=True)), rtol=1e-6)


@pytest.mark.parametrize("around", [AROUND["ConcreteDropout"], AROUND["TargetedDropout"]])
def test_layers_without_a_kernel_are_refused(around):
    with pytest.raises(BadInput, match="kernel"):
        around(keras.layers.Flatten())(X)


def test_layers_of_other_kinds_are_refused():
    for around in (AROUND["VariationalDropout"], AROUND["SparseVariationalDropout"], AROUND["Standout"]):
        with pytest.raises(BadInput, match="must be a Dense"):
            around(keras.layers.LSTM(3))


def test_nothing_can_be_pruned_before_there_are_weights():
    for layer in (AROUND["SparseVariationalDropout"](keras.layers.Dense(3)), AROUND["TargetedDropout"](keras.layers.Dense(3))):
        with pytest.raises(BadInput, match="before the layer has weights"):
            layer.pruned()


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the published figures are of the default backend")
def test_published_figures_of_the_sparse_net_on_digits(tmp_path):
    """LeNet-300-100 with a tenth of the divergence: at least 20 times fewer weights, at most one point less accuracy."""
    file = tmp_path / "figures.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(ROOT / "benchmarks" / "learned_rates.py"), "--sparse", "--json", str(file)]
    subprocess.run(command, env=environment, check=True, timeout=1200)
    plain, *pruned = json.loads(file.read_text())["rows"]["sparse"]
    assert plain["weights"] == 50_200
    assert plain["test_accuracy"] > 0.97
    whole, tenth = pruned[0], next(row for row in pruned if row["kl_share"] == 0.1)
    assert tenth["times_fewer"] > 20
    assert tenth["test_accuracy"] > plain["test_accuracy"] - 0.01
    assert whole["times_fewer"] > 80
    assert whole["test_accuracy"] > plain["test_accuracy"] - 0.035
    counts = [row["weights"] for row in pruned]
    assert counts == sorted(counts), "less divergence, more weights"


@pytest.mark.parametrize(
    "around",
    [
        lambda layer: ConcreteDropout(0.1, layer),
        lambda layer: VariationalDropout(0.1, layer, kl_weight=0),
        lambda layer: SparseVariationalDropout(layer, kl_weight=0),
        Standout,
        lambda layer: TargetedDropout(0.1, layer),
    ],
)
def test_a_kernel_that_was_quantized_is_refused(around):
    """Its numbers are many times those of the weights: with them the outputs would be wrong by as much."""
    layer = around(keras.layers.Dense(6))
    infer(layer)
    layer.layer.quantize("int8")
    for call in (train, infer):
        with pytest.raises(BadInput, match="floating-point kernel") as caught:
            call(layer)
        assert len(str(caught.value).splitlines()) == 2
    with pytest.raises(BadInput, match="floating-point kernel"):
        train(around(layer.layer))
