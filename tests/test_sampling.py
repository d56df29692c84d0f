"""Stochastic passes: only dropout acts, masks depend on seed, sample and example alone, and every layer can be sampled."""

import os

import keras
import numpy as np
import pytest
from foreign_layers import FOREIGN, model_with
from keras import ops

import keras_dropout
from keras_dropout import (
    BadInput,
    Dropout,
    LayerDrop,
    MultiSampleDropout,
    RDrop,
    ScheduledDropPath,
    VariationalRNNDropout,
    Zoneout,
    catalogue,
    sampling,
)
from keras_dropout.bench.execution.machine import worker_environment
from keras_dropout.sampling import BLOCK, Passes

JAX = keras.backend.backend() == "jax"
only_jax = pytest.mark.skipif(not JAX, reason="a state for each example needs JAX")
rng = np.random.default_rng(0)
X = rng.normal(size=(20, 12)).astype("float32")


def outputs(model, x=X, samples=4, masks="independent", seed=0, **options):
    """(samples, examples, …)"""
    pieces: dict[int, list] = {}
    for rows, _, found in Passes(model, masks=masks, seed=seed).run(x, samples, **options):
        pieces.setdefault(rows.start, []).append(found["outputs"])
    return np.concatenate([np.concatenate(groups) for groups in pieces.values()], axis=1)


def perceptron(dropout=lambda: Dropout(0.4), units=16):
    return keras.Sequential(
        [keras.Input((12,)), dropout(), keras.layers.Dense(units, "relu"), dropout(), keras.layers.Dense(3, "softmax")]
    )


@pytest.mark.parametrize("dropout", [lambda: Dropout(0.4), lambda: keras.layers.Dropout(0.4)], ids=["ours", "keras"])
def test_passes_are_those_of_dropout(dropout):
    model = keras.Sequential([keras.Input((12,)), dropout()])
    found = outputs(model, np.ones((400, 12), "float32"), 50)
    assert set(np.unique(found.round(5))) == {0, np.float32(1 / 0.6).round(5)}
    assert abs((found == 0).mean() - 0.4) < 4 * np.sqrt(0.24 / found.size)
    assert len({found[t, n].tobytes() for t in range(50) for n in range(400)}) > 3000  # of 4096 possible ones


def test_the_same_seed_gives_the_same_passes_and_another_one_others():
    model = perceptron()
    first, again, other = outputs(model), outputs(model), outputs(model, seed=1)
    assert np.array_equal(first, again)
    assert not np.isclose(first, other).all(axis=-1).any()


def test_passes_do_not_depend_on_the_batch_nor_on_how_many_there_are():
    model, x = perceptron(), np.repeat(X, 20, axis=0)
    whole = outputs(model, x, 5)
    for options in ({"batch_size": 7}, {"batch_size": 399}, {"together": True}):
        assert np.abs(outputs(model, x, 5, **options) - whole).max() < 1e-6
    assert np.abs(outputs(model, x[:50], 3) - whole[:3, :50]).max() < 1e-6
    many = outputs(model, X, 205)
    assert many.shape == (205, 20, 3)
    assert np.abs(many[:4] - outputs(model)).max() < 1e-6
    assert len(np.unique(many[:, 0].round(6), axis=0)) > 190


@only_jax
@pytest.mark.parametrize(("allowed", "expected"), [("1", 1), ("3", 3), ("9", 4), ("", 4)])
def test_there_are_no_more_threads_than_jax_may_have(allowed, expected, monkeypatch):
    """A worker of the bench has one: it shares its machine with others."""
    asked = []

    class Threads(sampling.ThreadPoolExecutor):
        def __init__(self, workers):
            asked.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(sampling, "ThreadPoolExecutor", Threads)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setenv("NPROC", allowed)
    found = outputs(perceptron(), np.repeat(X, 2, axis=0), 2, batch_size=5)
    assert found.shape == (2, 40, 3)
    assert asked == [expected]
    assert worker_environment("jax")["NPROC"] == "1"


def test_independent_masks_differ_between_equal_examples():
    found = outputs(perceptron(), np.repeat(X[:1], 2 * BLOCK + 3, axis=0), 3)
    assert len(np.unique(found[0].round(6), axis=0)) > 1.9 * BLOCK


@only_jax
def test_shared_masks_are_one_function():
    model = perceptron()
    x = np.concatenate([X, X[::-1]])
    found = outputs(model, x, 6, masks="shared", batch_size=9)
    assert np.abs(found[:, :20] - found[:, :19:-1]).max() < 1e-6
    assert not np.isclose(found[0], found[1]).all()


@pytest.mark.skipif(JAX, reason="JAX has them")
def test_shared_masks_are_refused_where_they_cannot_be_had():
    with pytest.raises(BadInput, match="KERAS_BACKEND=jax"):
        Passes(perceptron(), masks="shared")


class Noisy(keras.layers.Layer):
    """Not dropout: it must stay as at prediction."""

    def call(self, inputs, training=False):
        return inputs + 1000 if training else inputs


class Block(keras.layers.Layer):
    """A layer of several, with dropout among them and an option that says so."""

    def __init__(self, dropout_rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.norm, self.dropout = keras.layers.Dense(12), keras.layers.BatchNormalization(), Dropout(dropout_rate)
        self.dropout_rate = dropout_rate

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build(shape)

    def call(self, inputs, training=False):
        return self.dropout(self.norm(self.dense(inputs), training=training), training=training)

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {**super().get_config(), "dropout_rate": self.dropout_rate}


def with_other_noise(dropout):
    inputs = keras.Input((12,))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(12)(inputs))
    x = Noisy()(keras.layers.GaussianNoise(0.9)(x))
    x = keras.layers.BatchNormalization()(dropout(x), training=True)
    return keras.Model(inputs, keras.layers.Dense(2)(x))


@pytest.mark.parametrize(
    "dropout",
    [lambda: Dropout(0.5), lambda: keras.layers.Dropout(0.5), Block, lambda: LayerDrop(0.5, Block())],
    ids=["ours", "keras", "block", "wrapped"],
)
def test_only_dropout_acts(dropout):
    model = with_other_noise(dropout())
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    before = [ops.convert_to_numpy(v) for v in model.variables]
    found = outputs(model, samples=2000)
    assert found.std(0).min() > 0.01
    assert all(np.array_equal(v, ops.convert_to_numpy(w)) for v, w in zip(before, model.variables))
    if any(isinstance(layer, LayerDrop) for layer in model.layers):
        return  # its mean is another one than that of no dropout
    # All is linear, so that the mean is that of no dropout, with every other layer as at prediction.
    x = X
    for layer in model.layers[1:]:
        x = layer(x, training=False) if layer._call_has_training_arg else layer(x)
    assert np.abs(found.mean(0) - ops.convert_to_numpy(x)).max() < 5 * (found.std(0) / np.sqrt(2000)).max()


def test_training_true_is_another_thing():
    """What people write instead: it moves the statistics of batch normalisation; ours does not."""
    model = with_other_noise(Dropout(0.5))
    norm = model.get_layer("norm")
    before = ops.convert_to_numpy(norm.moving_mean)
    outputs(model)
    assert np.array_equal(before, ops.convert_to_numpy(norm.moving_mean))
    model(X, training=True)
    assert not np.array_equal(before, ops.convert_to_numpy(norm.moving_mean))


def test_dropout_is_off_when_evaluated():
    model = perceptron()
    model.compile("sgd", "sparse_categorical_crossentropy")
    y = np.arange(20) % 3
    assert model.evaluate(X, y, verbose=0) == model.evaluate(X, y, verbose=0)
    passes = Passes(model)
    list(passes.run(X, 2))
    assert np.array_equal(passes.plain(X), passes.plain(X))
    assert np.abs(passes.plain(X) - model.predict(X, verbose=0)).max() < 1e-6


SAMPLED = [
    method.name
    for method in catalogue.methods().values()
    if method.input_shape and not method.alias and method.name not in ("RDrop", "MultiSampleDropout")
]  # those train a model in a way of their own


@pytest.mark.parametrize("name", SAMPLED)
def test_every_method_can_be_sampled(name):
    method = catalogue.method(name)
    inputs = keras.Input(method.input_shape[1:], dtype=method.input_dtype)
    model = keras.Model(inputs, method.make()(inputs))
    x = rng.integers(3, 90, method.input_shape) if method.input_dtype == "int32" else rng.normal(size=method.input_shape)
    x = x.astype(method.input_dtype)
    if name == "LoRADropout":  # B is 0 before training
        for weight in model.weights:
            weight.assign(rng.normal(size=weight.shape))
    if name == "DropEdge":
        x = np.abs(x)
    if name == "ScheduledDropPath":  # it drops nothing before its first step
        model(x, training=True)
    found = outputs(model, x, 30)
    assert found.shape[1] == len(x)
    assert np.isfinite(found).all()
    assert len(np.unique(found.reshape(30, -1), axis=0)) > 1
    assert np.array_equal(outputs(model, x, 30), found)


@pytest.mark.parametrize(("cls", "rate"), [(VariationalRNNDropout, "recurrent_rate"), (Zoneout, "cell_rate")])
def test_a_layer_with_one_of_its_rates_above_0_drops(cls, rate):
    def model(further):
        return keras.Sequential([keras.Input((7, 6)), cls(0, keras.layers.LSTM(5), **{rate: further}, seed=1)])

    x = rng.normal(size=(3, 7, 6)).astype("float32")
    assert outputs(model(0.5), x, 10).std(0).min() > 0
    with pytest.raises(BadInput, match="no randomness"):
        Passes(model(0))


def test_a_scheduled_rate_is_that_of_the_step_which_training_has_come_to():
    model, x = keras.Sequential([keras.Input((4,)), ScheduledDropPath(0.8, steps=4)]), np.ones((200, 4), "float32")
    for step in range(3):
        rate = 0.8 * step / 4
        for _ in range(2):  # sampling is no step
            found = outputs(model, x, 40)
            assert abs((found == 0).mean() - rate) <= 5 * np.sqrt(rate * (1 - rate) / 8000)
        model(x, training=True)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: keras.layers.LSTM(5, dropout=0.5),
        lambda: keras.layers.GRU(5, recurrent_dropout=0.5),
        lambda: keras.layers.Bidirectional(keras.layers.SimpleRNN(5, dropout=0.5)),
        lambda: keras.layers.SpatialDropout1D(0.5),
        lambda: keras.layers.GaussianDropout(0.5),
        lambda: keras.layers.AlphaDropout(0.5),
        lambda: keras.layers.TimeDistributed(keras.layers.Dropout(0.5)),
    ],
)
def test_layers_of_keras_can_be_sampled(layer):
    model = keras.Sequential([keras.Input((7, 6)), layer()])
    x = rng.normal(size=(9, 7, 6)).astype("float32")
    found = outputs(model, x, 30)
    assert len(np.unique(found.reshape(30, -1).round(6), axis=0)) > 20
    assert np.array_equal(outputs(model, x, 30), found)


def test_attention_with_dropout_of_its_own_and_two_inputs():
    one, two = keras.Input((5, 8), name="one"), keras.Input((5, 8), name="two")
    model = keras.Model([one, two], keras.layers.MultiHeadAttention(2, 4, dropout=0.5)(one, two))
    x = {"two": rng.normal(size=(6, 5, 8)).astype("float32"), "one": rng.normal(size=(6, 5, 8)).astype("float32")}
    found = outputs(model, x, 10)
    assert found.std(0).max() > 0
    assert np.abs(outputs(model, [x["one"], x["two"]], 10) - found).max() == 0
    with pytest.raises(BadInput, match="inputs are one, two"):
        outputs(model, {"one": x["one"]})


def test_padding_masks_reach_the_layers_behind():
    words = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(20, 8, mask_zero=True)(words)
    model = keras.Model(words, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(Dropout(0.3)(x))))
    tokens = rng.integers(1, 20, (8, 6))
    tokens[:, 4:] = 0
    found, without = outputs(model, tokens, 3000), model.predict(tokens, verbose=0)
    assert np.abs(found.mean(0) - without).max() < 5 * (found.std(0) / np.sqrt(3000)).max()


class Subclass(keras.Model):
    """A model whose graph cannot be followed: it is called as a whole."""

    def __init__(self):
        super().__init__()
        self.norm, self.dropout, self.dense = keras.layers.BatchNormalization(), Dropout(0.5), keras.layers.Dense(2)

    def call(self, inputs, training=False):
        scale = 1.0 if ops.shape(inputs)[1] > 3 else 2.0
        self.add_loss(ops.mean(inputs))
        return self.dense(self.dropout(self.norm(inputs, training=training), training=training)) * scale


def test_a_subclass_is_sampled_as_a_whole():
    model = Subclass()
    model(X)
    found = outputs(model, samples=2000)
    assert np.abs(found.mean(0) - model.predict(X, verbose=0)).max() < 5 * (found.std(0) / np.sqrt(2000)).max()


def test_what_trains_in_a_special_way_is_sampled_as_the_model_inside():
    inner = perceptron()
    assert np.array_equal(outputs(RDrop(inner)), outputs(inner))
    trunk, head = (
        keras.Sequential([keras.Input((12,)), keras.layers.Dense(8)]),
        keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)]),
    )
    found = outputs(MultiSampleDropout(0.5, trunk, head))
    assert found.shape == (4, 20, 3)
    assert found.std(0).min() > 0


def test_a_changed_model_is_seen():
    model = perceptron()
    before = next(iter(Passes.of(model).run(X, 2)))[2]["outputs"]
    assert Passes.of(model)._programs is Passes.of(model, seed=3)._programs
    keras_dropout.set_rate(model, 0.1)
    rates = next(iter(Passes.of(model).run(X, 2)))[2]["outputs"]
    model.set_weights([2 * w for w in model.get_weights()])
    weights = next(iter(Passes.of(model).run(X, 2)))[2]["outputs"]
    assert not np.isclose(before, rates).all()
    assert not np.isclose(rates, weights).all()
    keras_dropout.set_rate(model, 0.0)
    with pytest.raises(BadInput, match="no randomness"):
        Passes.of(model)


class Plain(keras.layers.Layer):
    """Another library's: its rate is a plain attribute."""

    def __init__(self, drop_prob=0.5, **options):
        super().__init__(**options)
        self.drop_prob, self.seeds = drop_prob, keras.random.SeedGenerator(1)

    def call(self, inputs, training=False):
        return keras.random.dropout(inputs, self.drop_prob, seed=self.seeds) if training and self.drop_prob else inputs

    def get_config(self):
        return super().get_config() | {"drop_prob": self.drop_prob}


def test_a_rate_that_is_changed_in_a_layer_of_others_is_seen():
    def variance(model):
        kept = Passes.of(model)
        pieces = [found["outputs"] for _, _, found in kept.run(np.ones((8, *model.input_shape[1:]), "float32"), 50)]
        assert Passes.of(model)._programs is kept._programs  # nothing is compiled again without need
        return np.concatenate(pieces, axis=1).var(0).mean()

    for layer, owner, name in [
        (Plain(0.5), lambda layer: layer, "drop_prob"),
        (keras.layers.Dropout(0.5), lambda layer: layer, "rate"),
        (keras.layers.LSTM(8, dropout=0.5), lambda layer: layer.cell, "dropout"),
    ]:
        model = keras.Sequential([keras.Input((5, 12)), layer, keras.layers.Dense(1)])
        much = variance(model)
        setattr(owner(layer), name, 0.05)
        assert variance(model) < much / 4


def test_a_layer_of_others_that_is_turned_off_is_no_randomness():
    model = keras.Sequential([keras.Input((12,)), Plain(0.5), keras.layers.Dense(3)])
    assert Passes(model).dropping == [model.layers[0].name]
    with pytest.raises(BadInput, match="has no randomness"):
        Passes(keras_dropout.strip(model))


def test_what_cannot_be_sampled_is_refused():
    bare = keras.Sequential([keras.Input((12,)), keras.layers.Dense(3)])
    aside = keras.Input((12,))
    two = keras.Model(aside, [Dropout(0.5)(aside), aside])
    for make, message in [
        (lambda: Passes(bare), "no randomness: no dropout layer"),
        (lambda: Passes(two), "has 2 outputs"),
        (lambda: Passes("model"), "expected a Keras model"),
        (lambda: Passes(keras.Sequential([Dropout(0.5)])), "is not built"),
        (lambda: Passes(perceptron(), masks="fixed"), "unknown masks 'fixed'"),
        (lambda: Passes(perceptron(), seed=-1), "seed must be a whole number"),
        (lambda: outputs(perceptron(), samples=0), "samples must be a whole number of at least 1"),
        (lambda: outputs(perceptron(), batch_size=0), "batch size must be"),
        (lambda: outputs(perceptron(), X[:, :5]), r"takes examples of shape \(12,\); got an array of shape \(20, 5\)"),
        (lambda: outputs(perceptron(), [X, X]), "has 1 inputs"),
        (lambda: outputs(perceptron(), X[:0]), "the same examples, one at least"),
    ]:
        with pytest.raises(BadInput, match=message):
            make()


STILL = ("a get_config that raises", "a rate that is no dropout", "Keras attention")  # they draw nothing


@pytest.mark.parametrize("name", [name for name in FOREIGN if name not in STILL])
def test_layers_of_others_are_sampled(name):
    model, x = model_with(name), rng.normal(size=(5, 6, 8)).astype("float32")
    plain = model.predict(x, verbose=0)
    found, again, other = (next(Passes.of(model, seed=seed).run(x, 30))[2]["outputs"] for seed in (0, 0, 1))
    assert found.std(axis=0).min() > 0
    assert np.array_equal(found, again)
    assert not np.array_equal(found, other)
    assert np.array_equal(plain, model.predict(x, verbose=0))
    np.testing.assert_allclose(Passes.of(model).plain(x), plain, atol=1e-6)


@pytest.mark.parametrize("name", STILL)
def test_where_layers_of_others_draw_nothing_it_is_said(name):
    with pytest.raises(BadInput, match="no dropout layer with a rate above 0") as refused:
        Passes(model_with(name))
    assert ("whether foreign (Attend) is random cannot be seen" in str(refused.value)) == (name == "Keras attention")
    assert str(refused.value).count("\n") == 1


def test_a_drop_path_of_others_drops_its_share_of_the_examples():
    model = keras.Sequential([keras.Input((6, 8)), FOREIGN["like DropPath"]()])
    found = outputs(model, np.ones((50, 6, 8), "float32"), 40)
    assert set(np.unique(found)) == {0, 2}
    whole = found.reshape(40, 50, -1)
    assert (whole == whole[..., :1]).all()
    assert abs((whole[..., 0] == 0).mean() - 0.5) < 4 * np.sqrt(0.25 / 2000)


class Sampling(keras.layers.Layer):
    """As in a variational autoencoder: it draws at prediction too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, inputs):
        return inputs + keras.random.normal(ops.shape(inputs), seed=self.seed_generator)


class OwnCall(keras.Model):
    """Draws in its own call, with a generator of the model's."""

    def __init__(self):
        super().__init__()
        self.seeds, self.norm, self.dense = keras.random.SeedGenerator(1), keras.layers.BatchNormalization(), keras.layers.Dense(3)

    def call(self, inputs, training=False):
        x = self.norm(inputs, training=training)
        return self.dense(keras.random.dropout(x, 0.5, seed=self.seeds) if training else x)


class Quiet(keras.layers.LSTM):
    """A class of the user's that owns a generator because Keras's does, and has no dropout."""


class Careless(keras.layers.Layer):
    """Draws from what all share, which no seed of ours reaches."""

    def call(self, inputs, training=False):
        return keras.random.dropout(inputs, 0.5) if training else inputs


def test_what_draws_in_other_ways():
    before_dropout = keras.Sequential([keras.Input((12,)), Sampling(), Dropout(0.01), keras.layers.Dense(3)])
    assert outputs(before_dropout, samples=8).std(axis=0).min() > 0.05  # not drawn once for all samples
    own = OwnCall()
    own(X)
    found = outputs(own, samples=400)
    assert np.abs(found.mean(0) - own.predict(X, verbose=0)).max() < 5 * (found.std(0) / 20).max()
    for layer, message in [
        (Quiet(4), "has no randomness"),
        (Careless(), r"whether careless \(Careless\) is random cannot be seen"),
    ]:
        with pytest.raises(BadInput, match=message):
            Passes(keras.Sequential([keras.Input((5, 3)), layer, keras.layers.Flatten(), keras.layers.Dense(1)]))


class Fails(keras.layers.Layer):
    def call(self, inputs, training=False):
        raise RuntimeError("a layer's own trouble\nin two lines")


def test_what_a_layer_raises_is_refused_in_two_lines():
    model = perceptron()
    model.layers[-1].call = Fails().call
    passes = Passes(model)
    for run in (lambda: passes.plain(X), lambda: next(passes.run(X, 2))):
        with pytest.raises(BadInput, match="cannot be sampled on these examples: RuntimeError: a layer's own trouble") as refused:
            run()
        assert str(refused.value).count("\n") == 1


class Batches(keras.utils.PyDataset):
    def __init__(self, x, endless=False):
        super().__init__()
        self.x, self.endless = x, endless

    @property
    def num_batches(self):
        return None if self.endless else 3

    def __getitem__(self, number):
        return self.x[8 * number : 8 * number + 8], np.zeros(min(8, len(self.x) - 8 * number))


def test_examples_come_in_what_keras_predicts_on():
    torch = pytest.importorskip("torch")
    pandas = pytest.importorskip("pandas")
    tensorflow = pytest.importorskip("tensorflow")
    of_torch = torch.utils.data.TensorDataset(torch.tensor(X), torch.zeros(len(X)))
    dataset = tensorflow.data.Dataset.from_tensor_slices((X, np.zeros(len(X)))).batch(6)
    passes = Passes(perceptron())
    for x in (Batches(X), dataset, torch.utils.data.DataLoader(of_torch, batch_size=7), pandas.DataFrame(X), torch.tensor(X)):
        (read,) = passes.check(x)
        assert np.array_equal(read, X), type(x)
    assert np.array_equal(next(passes.run(Batches(X), 2))[2]["outputs"], next(passes.run(X, 2))[2]["outputs"])
    for x, message in [
        (dataset.repeat(), "never ends.\nTake a part: dataset.take"),
        (Batches(X, endless=True), "Batches never ends"),
        ((batch for batch in [X]), "x is a generator, .*\nMake a list of it and join the inputs"),
        (tensorflow.data.Dataset.from_tensor_slices(X), "batch it: dataset.batch"),
        (pandas.DataFrame(X.astype(str)).replace(str(X[0, 0]), "none"), "takes float32; ValueError"),
    ]:
        with pytest.raises(BadInput, match=message):
            passes.check(x)


def test_a_column_is_an_input_of_one_number():
    inputs = [keras.Input((1,), name=name) for name in ("a", "b")]
    model = keras.Model(inputs, keras.layers.Dense(2)(Dropout(0.5)(keras.layers.Concatenate()(inputs))))
    columns = {"a": X[:, 0], "b": X[:, 1]}
    assert np.array_equal(outputs(model, columns), outputs(model, {name: x[:, None] for name, x in columns.items()}))
