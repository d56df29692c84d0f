"""Rates that follow schedules in Keras's `fit`: obeyed at each batch, no state lost, nothing compiled again."""

import doctest

import keras
import numpy as np
import pytest
from keras import ops

from keras_dropout import (
    BadInput,
    ConcreteDropout,
    Dropout,
    MultiSampleDropout,
    PatchDropout,
    RateScheduler,
    RDrop,
    VariationalRNNDropout,
    callbacks,
    set_rate,
)
from keras_dropout.schedules import Constant, Late, Linear, Step

L = keras.layers
UNITS = 500
TORCH = keras.backend.backend() == "torch"
executions = pytest.mark.parametrize("steps_per_execution", [1] if TORCH else [1, 2])  # Keras on torch knows only 1


class Scale(keras.Layer):
    """Something to train that keeps zeros; counts how often its code runs: once a trace, where there are traces."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.runs = 0

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        self.runs += 1
        return x * self.scale


def dropped(y, y_pred):
    return ops.mean(ops.cast(y_pred == 0, "float32"), axis=-1)


def ones_model(steps_per_execution=1, rate=0.9):
    model = keras.Sequential([keras.Input((UNITS,)), Dropout(rate, name="drop", seed=1), Scale()])
    model.compile("sgd", "mse", metrics=[dropped], steps_per_execution=steps_per_execution)
    return model


def fit(model, scheduler, epochs=3, batches=4, **options):
    x = np.ones((32 * batches, UNITS), "float32")
    options = {"callbacks": [scheduler] if scheduler else [], "batch_size": 32, "shuffle": False, "verbose": 0} | options
    return model.fit(x, x, epochs=epochs, **options).history


def expect_dropped(history, rates_by_epoch):
    """Mean over the epoch's batches, within five standard deviations of what is drawn."""
    for found, rates in zip(history["dropped"], rates_by_epoch, strict=True):
        mean = np.mean(rates)
        assert found == pytest.approx(mean, abs=5 * np.sqrt(0.25 / (32 * UNITS * len(rates))))


@executions
def test_the_share_dropped_follows_the_schedule(steps_per_execution):
    schedule = Linear(0.9, 0.0)
    history = fit(ones_model(steps_per_execution), RateScheduler(schedule))
    steps = np.arange(12) // steps_per_execution * steps_per_execution
    rates = schedule(steps / 12).reshape(3, 4)
    expect_dropped(history, rates)
    assert history["rate_drop"] == pytest.approx(rates[:, -1], rel=1e-6)


def test_fit_is_steps_with_the_rate_set_by_hand():
    """Same masks, same weights: on JAX, no step's state is lost or used twice."""

    def make():
        keras.utils.set_random_seed(3)
        layers = [keras.Input((6,)), L.Dense(8, "relu"), Dropout(0.0, seed=1), L.BatchNormalization(), L.Dense(2)]
        model = keras.Sequential(layers)
        model.compile(keras.optimizers.Adam(0.01), "mse")
        return model

    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(50, 6)).astype("float32"), generator.normal(size=(50, 2)).astype("float32")
    schedule, by_fit, by_hand = Step([0.0, 0.5, 0.2], at=[0.4, 0.7]), make(), make()
    by_fit.fit(x, y, batch_size=20, epochs=4, shuffle=False, verbose=0, callbacks=[RateScheduler(schedule)])
    for step in range(12):
        by_hand.layers[1].rate = float(schedule(step / 12))
        batch = slice(20 * (step % 3), 20 * (step % 3 + 1))
        by_hand.train_on_batch(x[batch], y[batch])
    for found, expected in zip(by_fit.get_weights(), by_hand.get_weights()):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert by_fit.layers[1].rate == by_hand.layers[1].rate == pytest.approx(0.2)


@executions
def test_nothing_is_compiled_again(steps_per_execution):
    runs = {}
    for name, schedule in (("constant", None), ("moving", Linear(0.9, 0.1))):
        model = ones_model(steps_per_execution)
        before = model.layers[-1].runs
        fit(model, schedule and RateScheduler(schedule))
        runs[name] = model.layers[-1].runs - before
    assert runs["moving"] == runs["constant"]
    if not TORCH:  # which compiles nothing
        assert runs["moving"] < 12


def test_training_in_parts_goes_on_with_the_schedule():
    schedule = Linear(0.8, 0.0)
    whole = fit(ones_model(), RateScheduler(schedule), epochs=4)
    model = ones_model()
    first = fit(model, RateScheduler(schedule, epochs=4), epochs=1)
    rest = fit(model, RateScheduler(schedule), epochs=4, initial_epoch=1)
    assert first["rate_drop"] + rest["rate_drop"] == whole["rate_drop"]
    assert first["dropped"] + rest["dropped"] == pytest.approx(whole["dropped"], abs=1e-6)
    longer = fit(model, RateScheduler(Linear(0.0, 0.4), epochs=2), epochs=3)
    assert longer["rate_drop"] == pytest.approx([0.15, 0.35, 0.4])


def test_without_a_known_number_of_batches():
    """In the first epoch the rate is that of its beginning; then progress goes by the batches of the epoch before."""
    tf = pytest.importorskip("tensorflow")
    row = tf.TensorSpec((32, UNITS))
    data = tf.data.Dataset.from_generator(lambda: ((np.ones((32, UNITS)),) * 2 for _ in range(4)), output_signature=(row, row))
    schedule, model = Linear(0.9, 0.0), ones_model()
    scheduler = RateScheduler(schedule)
    dropped_so_far = {}  # by epoch and batch; at an epoch's end Keras on TensorFlow counts an empty batch, too
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: dropped_so_far.setdefault(batch, []).append(logs["dropped"])
    )
    model.fit(data, epochs=3, callbacks=[scheduler, watch], verbose=0)
    assert scheduler.params["steps"] is None
    expect_dropped({"dropped": dropped_so_far[3]}, [[0.9], schedule(np.arange(4, 8) / 12), schedule(np.arange(8, 12) / 12)])


def test_patterns_and_the_later_one_wins():
    def make():
        model = keras.Sequential([keras.Input((4,)), *(Dropout(0.1, name=name) for name in ("a_1", "a_2", "b_1")), L.Dense(1)])
        model.compile("sgd", "mse")
        return model

    x, y = np.ones((4, 4), "float32"), np.ones((4, 1), "float32")
    model = make()
    scheduler = RateScheduler({"a_*": 0.2, "a_2": "late(0.3, start=0.5)", "b_1": Constant(0.4)})
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=[scheduler]).history
    rates = {name: values for name, values in history.items() if name.startswith("rate_")}
    assert rates == {"rate_a_1": [0.2, 0.2], "rate_a_2": [0.0, 0.3], "rate_b_1": [0.4, 0.4]}
    model = make()
    rates = model.fit(x, y, verbose=0, callbacks=[RateScheduler({"a_2": 0.5, "a_*": 0.2})]).history
    assert (rates["rate_a_2"], "rate_b_1" in rates, model.layers[2].rate) == ([0.2], False, 0.1)


def test_a_rate_that_was_left_out_follows():
    layer = VariationalRNNDropout(0.3, L.LSTM(2))
    model = keras.Sequential([keras.Input((2, 2)), layer])
    model.compile("sgd", "mse")
    x, y, watch = np.ones((8, 2, 2), "float32"), np.ones((8, 2)), []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: watch.append(layer.recurrent_rate))
    model.fit(x, y, epochs=2, verbose=0, callbacks=[RateScheduler("early(0.3, until=0.5)"), note])
    assert watch == [0.3, 0]
    set_rate(model, 0.2)
    assert layer.recurrent_rate == 0.2


def test_layers_within_models_are_found():
    inner = keras.Sequential([keras.Input((4,)), Dropout(0.1, name="inner"), L.Dense(3, "softmax")])
    inputs = keras.Input((4,))
    head = MultiSampleDropout(0.1, L.Dense(4), inner, samples=2)
    head.dropout.name = "samples"
    model = RDrop(keras.Model(inputs, head(inputs)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    scheduler = RateScheduler(Late(0.3, start=0))
    scheduler.set_model(model)
    assert {layer.name for layer in scheduler._choose()} == {"inner", "samples"}


@pytest.mark.parametrize(
    ("layers", "schedule", "says"),
    [
        ([L.Dropout(0.1, name="theirs")], 0.2, "adopt"),
        ([Dropout(0.1), L.GaussianDropout(0.1, name="theirs")], {"theirs": 0.2}, "adopt"),
        ([ConcreteDropout(0.1, L.Dense(3))], 0.2, "learned"),
        ([Dropout(0.1, name="ours")], {"other": 0.2}, "no dropout layer 'other'"),
        ([], 0.2, "no dropout layer"),
    ],
)
def test_what_cannot_be_scheduled_is_refused(layers, schedule, says):
    model = keras.Sequential([keras.Input((4,)), *layers, L.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(BadInput, match=says):
        model.fit(np.ones((4, 4)), np.ones((4, 1)), verbose=0, callbacks=[RateScheduler(schedule)])


def test_a_rate_that_decides_a_shape_is_refused():
    model = keras.Sequential([keras.Input((8, 4)), PatchDropout(0.5), L.GlobalAveragePooling1D(), L.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(BadInput, match="decides a shape"):
        model.fit(np.ones((4, 8, 4)), np.ones((4, 1)), verbose=0, callbacks=[RateScheduler(0.2)])


@pytest.mark.parametrize("arguments", [{"schedule": 1.0}, {"schedule": "lineal(0.5)"}, {"schedule": 0.1, "epochs": 0}], ids=str)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(BadInput):
        RateScheduler(**arguments)


def test_examples_in_docstrings():
    found = doctest.testmod(callbacks)
    assert found.attempted > 0
    assert found.failed == 0


def test_layers_of_one_name_follow_schedules_of_their_own_beside_an_attention():
    """An attention of Keras without dropout holds a Keras Dropout of rate 0, which is nobody's to schedule."""

    def block(name):
        return keras.Sequential([keras.Input((4, 6)), L.Dense(6, name="dense"), Dropout(0.1, name="drop")], name=name)

    a, b, inputs = block("a"), block("b"), keras.Input((4, 6))
    model = keras.Model(inputs, b(L.MultiHeadAttention(2, 3)(a(inputs), inputs)))
    model.compile("sgd", "mse")
    x = np.ones((8, 4, 6), "float32")
    history = model.fit(x, x, verbose=0, callbacks=[RateScheduler({"*": 0.25, "b/drop": 0.5})]).history
    assert (history["rate_a/drop"], history["rate_b/drop"]) == ([0.25], [0.5])
    assert (a.get_layer("drop").rate, b.get_layer("drop").rate) == (0.25, 0.5)
