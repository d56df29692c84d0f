"""Paths: what is dropped as a whole, how often, by which schedule and with which gradient, on the backend of this process."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import keras_dropout
from keras_dropout import BadInput, DropPath, LayerDrop, ScheduledDropPath, ShakeDrop, StochasticDepth, linear_decay
from keras_dropout.testing import backend

ONES = np.ones((4000, 3), "float32")


def train(layer, x=ONES):
    return ops.convert_to_numpy(layer(x, training=True))


def within(share, expected, count, sigmas=5):
    return abs(share - expected) <= sigmas * np.sqrt(expected * (1 - expected) / count)


# StochasticDepth


def test_rows_are_dropped_as_a_whole():
    y = train(StochasticDepth(0.2, seed=1), np.ones((4000, 3, 2), "float32"))
    assert (y == y[:, :1, :1]).all()
    np.testing.assert_allclose(np.unique(y), [0, 1.25])
    assert within((y[:, 0, 0] == 0).mean(), 0.2, 4000)


def test_a_batch_is_dropped_as_a_whole():
    layer = StochasticDepth(0.2, mode="batch", seed=1)
    calls = np.array([train(layer, np.ones((5, 3), "float32")) for _ in range(400)])
    assert (calls == calls[:, :1, :1]).all()
    np.testing.assert_allclose(np.unique(calls), [0, 1.25])
    assert within((calls[:, 0, 0] == 0).mean(), 0.2, 400)


def test_a_residual_network_trains_and_predicts_with_every_block():
    """y = x + f(x) at inference, and in training one of x and x + f(x) / (1 - rate) for each example."""
    inputs = keras.Input((4,))
    branch = keras.layers.Dense(4, bias_initializer="ones")
    model = keras.Model(inputs, inputs + StochasticDepth(0.5, seed=2)(branch(inputs)))
    x = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
    f = ops.convert_to_numpy(branch(x))
    np.testing.assert_allclose(model.predict(x, verbose=0), x + f, rtol=1e-5, atol=1e-5)
    y = ops.convert_to_numpy(model(x, training=True))
    dropped = np.isclose(y, x, atol=1e-5).all(axis=1)
    np.testing.assert_allclose(y[~dropped], (x + 2 * f)[~dropped], rtol=1e-5, atol=1e-5)
    assert within(dropped.mean(), 0.5, 200)


def test_drop_path_is_another_name():
    assert DropPath is StochasticDepth


# ScheduledDropPath


def test_the_rate_grows_linearly_to_its_end_and_stays():
    layer = ScheduledDropPath(0.8, steps=4, seed=1)
    for step in range(7):
        rate = 0.8 * min(1, step / 4)
        y = train(layer)[:, 0]
        assert within((y == 0).mean(), rate, len(ONES)), step
        np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-5)


def test_the_final_rate_can_change_on_the_way():
    layer = ScheduledDropPath(0.2, steps=2, seed=1)
    train(layer)
    layer.rate = 0.8
    assert within((train(layer) == 0).mean(), 0.4, len(ONES))
    assert within((train(layer) == 0).mean(), 0.8, len(ONES))


def scheduled_model():
    inputs = keras.Input((3,))
    layer = ScheduledDropPath(0.8, steps=6, seed=1)
    model = keras.Model(inputs, layer(inputs) + 0 * keras.layers.Dense(3)(inputs))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def test_the_schedule_follows_fit_and_goes_on_after_loading(tmp_path):
    """The loss of a step, mean (y - 1)**2, is rate / (1 - rate)."""
    model, step = scheduled_model(), 0
    for part in range(2):
        losses = model.fit(ONES, ONES, batch_size=len(ONES), epochs=4, verbose=0).history["loss"]
        for loss in losses:
            rate = 0.8 * min(1, step / 6)
            assert loss == pytest.approx(rate / (1 - rate), rel=0.2, abs=1e-6), step
            step += 1
        model.evaluate(ONES, ONES, verbose=0)  # takes no step
        model.save(tmp_path / f"{part}.keras")
        model = keras.saving.load_model(tmp_path / f"{part}.keras")
    assert step == 8


# ShakeDrop


def factors(alpha, beta, mode="row", rate=0.5, rows=4000):
    """Forward and backward factors of each row, of one and the same call."""
    x = np.ones((rows, 3), "float32")
    options = {"alpha": alpha, "beta": beta, "mode": mode, "seed": 3}
    return train(ShakeDrop(rate, **options), x), backend.gradient(ShakeDrop(rate, **options), x, np.ones_like(x))


def test_forward_and_gradient_have_factors_of_their_own():
    forward, gradient = factors((-1, 1), (0, 1))
    for each in (forward, gradient):
        assert (each == each[:, :1]).all()
    forward, gradient = forward[:, 0], gradient[:, 0]
    whole = forward == 1
    np.testing.assert_array_equal(gradient == 1, whole)  # one draw decides for both
    assert within(whole.mean(), 0.5, 4000)
    a, c = forward[~whole], gradient[~whole]
    for draws, low, high in ((a, -1, 1), (c, 0, 1)):
        assert low <= draws.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < draws.max() <= high
        spread = (high - low) / np.sqrt(12)
        assert abs(draws.mean() - (low + high) / 2) < 5 * spread / np.sqrt(len(draws))
        assert draws.std() == pytest.approx(spread, rel=0.05)
    assert abs(np.corrcoef(a, c)[0, 1]) < 5 / np.sqrt(len(a))


def test_a_batch_is_shaken_alike():
    layer = ShakeDrop(0.5, mode="batch", seed=4)
    calls = np.array([train(layer, np.ones((5, 2), "float32")) for _ in range(40)])
    assert (calls == calls[:, :1, :1]).all()
    assert len(np.unique(calls)) > 10


@pytest.mark.parametrize(("alpha", "mean"), [((-1, 1), 0), ((0, 1), 0.5), ((0.5, 0.5), 0.5)])
def test_inference_is_the_mean_of_training(alpha, mean):
    layer = ShakeDrop(0.3, alpha=alpha, seed=5)
    constant = ops.convert_to_numpy(layer(ONES))
    np.testing.assert_allclose(constant, 0.7 + 0.3 * mean, rtol=1e-6)
    y = train(layer, np.ones((40_000, 1), "float32"))
    assert abs(y.mean(dtype="float64") - (0.7 + 0.3 * mean)) < 5 * y.std() / 200


def test_a_rate_changed_changes_inference_too():
    layer = ShakeDrop(0.0)
    layer.rate = 0.25
    np.testing.assert_allclose(ops.convert_to_numpy(layer(ONES)), 0.75, rtol=1e-6)


@pytest.mark.parametrize("alpha", [(1, 0), 0.5, (0,), "ab", (0, 1, 2), (float("nan"), 1), (0, float("inf"))])
def test_ranges_that_are_none_are_refused(alpha):
    with pytest.raises(BadInput, match="two finite numbers, low and high"):
        ShakeDrop(0.5, alpha=alpha)


# LayerDrop


def test_layers_run_unscaled_and_as_often_as_they_should():
    """The number of layers that run of ten is binomial, and a layer that runs is not scaled."""
    inputs = keras.Input((2,))
    x = inputs
    for number in range(10):
        x = LayerDrop(0.2, keras.layers.Rescaling(1.0, offset=1.0), seed=number)(x)
    model = keras.Model(inputs, x)
    zeros = np.zeros((3, 2), "float32")
    np.testing.assert_array_equal(model.predict(zeros, verbose=0), zeros + 10)
    calls = np.array([ops.convert_to_numpy(model(zeros, training=True)) for _ in range(200)])
    assert (calls == calls[:, :1, :1]).all()
    runs = calls[:, 0, 0]
    assert set(runs) <= set(range(11))
    assert abs(runs.mean() - 8) < 5 * np.sqrt(1.6 / 200)
    assert abs(runs.var() - 1.6) < 5 * 1.6 * np.sqrt(2 / 200)


def test_gradients_reach_the_layer_only_when_it_runs():
    dense = keras.layers.Dense(3)
    layer = LayerDrop(0.5, dense, seed=1)
    layer.build((2, 3))
    x = np.ones((2, 3), "float32")
    skipped = 0
    for _ in range(12):
        before = ops.convert_to_numpy(layer.stream.state).copy()
        y = train(layer, x)
        layer.stream.state.assign(before)
        gradient = backend.gradient(layer, x, np.ones_like(x))
        if np.array_equal(y, x):
            skipped += 1
            np.testing.assert_array_equal(gradient, np.ones_like(x))
        else:
            expected = ops.convert_to_numpy(dense.kernel).sum(axis=1)
            np.testing.assert_allclose(gradient, np.broadcast_to(expected, x.shape), rtol=1e-5, atol=1e-6)
        layer.stream.state.assign(before + np.array([0, 0, 1], before.dtype))
    assert 0 < skipped < 12


def test_batch_normalisation_inside_knows_that_it_trains():
    layer = LayerDrop(0.0, keras.layers.BatchNormalization(momentum=0.0), seed=1)
    x = np.random.default_rng(0).normal(3, 2, (500, 4)).astype("float32")
    y = train(layer, x)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(ops.convert_to_numpy(layer.layer.moving_mean), x.mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize("rate", [0, 1])
@pytest.mark.parametrize("passes", [True, False])
def test_a_padding_mask_goes_on_as_the_layer_has_it(passes, rate):
    inner = keras.layers.Dense(4) if passes else keras.layers.Conv1D(4, 3, padding="same")
    words = np.array([[1, 2, 0]])
    for wrapped in (inner, keras.Sequential([inner])):
        masked = keras.layers.Embedding(5, 4, mask_zero=True)(words)
        for training in (True, False):
            y = LayerDrop(rate, wrapped)(masked, training=training)
            mask = getattr(y, "_keras_mask", None)
            assert (mask is not None) == passes
            assert mask is None or ops.convert_to_numpy(mask).tolist() == [[True, True, False]]


def test_a_layer_that_changes_the_shape_is_refused():
    with pytest.raises(BadInput, match="must keep the shape"):
        LayerDrop(0.5, keras.layers.Dense(5))(np.ones((2, 3), "float32"))
    with pytest.raises(BadInput, match="layer must be a Keras layer"):
        LayerDrop(keras.layers.Dense(3), 0.5)
    for several in ([ONES, ONES], [keras.Input((3,)), keras.Input((3,))]):
        with pytest.raises(BadInput, match="must be one tensor"):
            LayerDrop(0.5, keras.layers.Add())(several)


class Block(keras.layers.Layer):
    """A residual block with batch statistics, dropout of its own and a penalty, that notes how often it is computed."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = [keras.layers.Dense(6, "tanh", activity_regularizer="l2"), keras.layers.BatchNormalization(momentum=0.5)]
        self.drop = keras_dropout.Dropout(0.3, seed=4)
        self.computed = self.add_weight((), "zeros", trainable=False, name="computed")

    def build(self, shape):
        for each in self.inner:
            each.build(shape)

    def compute_output_shape(self, shape):
        return shape

    def call(self, x, training=False):
        self.computed.assign_add(1.0)
        return x + self.drop(self.inner[1](self.inner[0](x), training=training), training=training)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="refused there")
@pytest.mark.parametrize("scaled", [False, True])
def test_what_is_skipped_is_not_computed_and_a_step_is_that_of_the_layer_alone(scaled):
    """Against the block itself where it runs, and nothing where it does not: outputs, gradients, statistics, penalties."""
    x, y = (np.random.default_rng(n).normal(size=(16, 6)).astype("float32") for n in (0, 1))
    kinds = {"skipped": 0, "run": 0}
    for seed in range(6):
        keras.utils.set_random_seed(7)
        inputs = keras.Input((6,))
        block = Block()
        layer = LayerDrop(0.5, block, skip=True, scaled=scaled, seed=seed)
        model = keras.Model(inputs, layer(inputs))
        block.computed.assign(0.0)
        keras.utils.set_random_seed(7)
        alone = Block()
        plain = alone(inputs)
        twin = keras.Model(inputs, inputs + (plain - inputs) * 2 if scaled else plain)
        alone.computed.assign(0.0)
        twin.set_weights(model.get_weights())
        found = []
        for each in (model, twin):
            before = each.get_weights()
            each.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=keras.backend.backend() != "torch")
            history = each.fit(x, y, batch_size=16, shuffle=False, verbose=0)
            found.append((history.history["loss"][0], [new - old for old, new in zip(before, each.get_weights())]))
        runs = float(ops.convert_to_numpy(block.computed))
        assert runs in (0, 1)
        kinds["run" if runs else "skipped"] += 1
        (loss, ours), (plain_loss, theirs) = found
        if runs:
            np.testing.assert_allclose(loss, plain_loss, rtol=1e-4)
            for one, other in zip(ours, theirs):
                np.testing.assert_allclose(one, other, atol=1e-5)
        else:
            np.testing.assert_allclose(loss, ((x - y) ** 2).mean(), rtol=1e-4)
            assert not any(each.any() for each in ours)
    assert min(kinds.values()) > 0, kinds


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="refused there")
def test_the_skipping_is_in_the_config_only_where_it_is_used():
    assert not {"skip", "scaled"} & LayerDrop(0.2, keras.layers.ReLU()).get_config().keys()
    assert LayerDrop.from_config(LayerDrop(0.2, keras.layers.ReLU(), skip=True).get_config()).skip


# linear_decay


@settings(deadline=None)
@given(rate=st.floats(0, 1), depth=st.integers(1, 60))
def test_rates_rise_evenly_to_the_last(rate, depth):
    rates = linear_decay(rate, depth)
    assert len(rates) == depth
    assert rates[-1] == pytest.approx(rate, abs=1e-9)
    np.testing.assert_allclose(np.diff([0, *rates]), rate / depth, atol=1e-9)
    assert all(0 <= each <= 1 for each in rates)


@settings(deadline=None)
@given(first=st.floats(0, 1), rate=st.floats(0, 1), depth=st.integers(2, 60))
def test_rates_start_where_they_are_told(first, rate, depth):
    rates = linear_decay(rate, depth, first=first)
    assert (rates[0], rates[-1]) == (pytest.approx(first, abs=1e-9), pytest.approx(rate, abs=1e-9))
    np.testing.assert_allclose(np.diff(rates), (rate - first) / (depth - 1), atol=1e-9)


def test_a_single_block_and_the_papers_expected_depth():
    assert linear_decay(0.3, 1) == [0.3]
    assert linear_decay(0.3, 1, first=0) == [0.0]
    for depth in (10, 54):  # L - (L + 1) / 4 blocks survive at rate 0.5
        assert sum(1 - rate for rate in linear_decay(0.5, depth)) == pytest.approx(depth - (depth + 1) / 4)


@pytest.mark.parametrize(("rate", "depth", "first"), [(1.5, 3, None), (0.5, 0, None), (0.5, 2.5, None), (0.5, 3, -1)])
def test_a_decay_that_cannot_be_meant_is_refused(rate, depth, first):
    with pytest.raises(BadInput):
        linear_decay(rate, depth, first=first)
