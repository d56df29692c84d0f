"""A run whose dropout does not act fails and names the layer; what only looks as if it did not act is trained."""

import keras
import numpy as np
import pytest

import keras_dropout
from keras_dropout import noise
from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.training.acting import Acting
from keras_dropout.bench.training.messages import Ended
from keras_dropout.bench.training.trainer import Trainer
from keras_dropout.errors import BadInput
from keras_dropout.models import graph, placement

JAX = keras.backend.backend() == "jax"
ENGINES = ("compiled", "reference", "stacked") if JAX else ("reference",)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(48, 6)).astype("float32"), np.arange(48) % 3


@keras.saving.register_keras_serializable("test_acting")
class Lazy(keras.layers.Dropout):
    """Has a rate and drops nothing."""

    def call(self, inputs, training=False):
        return inputs


@keras.saving.register_keras_serializable("test_acting")
class Deaf(keras.layers.Layer):
    """Calls its dropout, and uses what went into it."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense, self.drop = keras.layers.Dense(5), keras.layers.Dropout(0.5, name="unheard")

    def call(self, inputs, training=False):
        self.drop(self.dense(inputs), training=training)
        return self.dense(inputs)


@keras.saving.register_keras_serializable("test_acting")
class Forgetful(keras.Model):
    """A functional model whose training step leaves out that it trains."""

    def compute_loss_and_updates(self, *args, training=False, **options):
        return super().compute_loss_and_updates(*args, training=False, **options)


@keras.saving.register_keras_serializable("test_acting")
class Subclassed(keras.Model):
    """The form of the tutorial's model: its call is traced."""

    def __init__(self, **options):
        super().__init__(**options)
        self.hidden, self.drop = keras.layers.Dense(16, "relu"), keras.layers.Dropout(0.3)
        self.classes = keras.layers.Dense(3, "softmax")

    def call(self, x):
        return self.classes(self.drop(self.hidden(x)))


def model_of(*layers, shape=(6,), cls=keras.Model):
    x = inputs = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    model = cls(inputs, keras.layers.Dense(3, "softmax", name="classes")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def plan_of(model, variants, engine, tmp_path, seeds=1):
    settings = {"epochs": 1, "batch_size": 16, "engine": engine, "workers": 1, "ledger": tmp_path / "runs.db"}
    return make_plan(model, ((X, Y), (X, Y)), variants=variants, seeds=seeds, **settings)


def trained(plan):
    """(variant, seed) -> result, of a study's runs trained in this process."""
    runs = {run.key: run for run in plan.study.runs()}
    told = Trainer(plan.study, plan.data.parts("held-out"), 1).follow(list(runs.values()))
    ended = {each.key: each.result for each in told if isinstance(each, Ended)}
    return {(run.variant.name, run.seed): ended[key] for key, run in runs.items()}


def values_of(model):
    return [keras.ops.convert_to_numpy(each).copy() for each in (*model.trainable_variables, *model.non_trainable_variables)]


def refusal(model, x=X[:16]):
    return Acting(model).refusal(values_of(model), x)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_variant_of_a_subclassed_model_acts(engine, tmp_path):
    """And the model is trained as its functional twin, to the last bit and with the same keys, whatever it was called on first."""
    subclassed = Subclassed()
    subclassed(X[:7])
    subclassed.compile("sgd", "sparse_categorical_crossentropy")
    twin = model_of(keras.layers.Dense(16, "relu"), keras.layers.Dropout(0.3))
    plan, other = (plan_of(model, {"big": {"hidden": 0.9}}, engine, tmp_path) for model in (subclassed, twin))
    assert [run.key for run in plan.study.runs()] == [run.key for run in other.study.runs()]
    found = trained(plan)
    assert [result.status for result in found.values()] == ["done", "done"]
    assert found["none", 0].metrics["test_loss"] != found["big", 0].metrics["test_loss"]
    if engine == "reference":
        for name, result in trained(other).items():
            assert np.array_equal(result.test_losses, found[name].test_losses)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_kept_layer_that_drops_nothing_fails_its_run_alone(engine, tmp_path):
    model = model_of(keras.layers.Dense(5), Lazy(0.5, name="lazy"))
    found = trained(plan_of(model, {"as-built": "as-built"}, engine, tmp_path))
    assert {name: result.status for (name, _), result in found.items()} == {"none": "done", "as-built": "failed"}
    what, way_out = found["as-built", 0].error.splitlines()
    assert "'lazy' (Lazy)" in what
    assert "does not act" in what
    assert way_out


@pytest.mark.skipif(not JAX, reason="the step of this class is JAX's")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_training_step_that_does_not_say_that_it_trains_fails(engine, tmp_path):
    """The dropout acts in a pass with training=True; the training never makes one."""
    plan = plan_of(model_of(keras.layers.Dense(5), cls=Forgetful), {"hidden": {"hidden": 0.5}}, engine, tmp_path)
    trainer = Trainer(plan.study, plan.data.parts("held-out"), 1)
    result = trainer.train(plan.study.runs()[1])
    assert result.status == "failed"
    assert "drew no mask in the first epoch" in result.error


def test_a_layer_whose_output_is_not_used_is_named():
    assert "'unheard' (Dropout) does not act" in refusal(model_of(Deaf()))


def test_half_precision_and_small_effects_hide_no_layer():
    """Attention of a small rate in a residual network that rounds to 8 bits; and an output that is large beside what drops."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        x = inputs = keras.Input((6, 16))
        for _ in range(4):
            x = x + keras.layers.MultiHeadAttention(2, 8, dropout=0.1)(x, x)
        model = keras.Model(inputs, keras.layers.Dense(3)(x))
    finally:
        keras.config.set_dtype_policy(policy)
    assert refusal(model, RNG.normal(size=(16, 6, 16)).astype("float32")) is None
    x = inputs = keras.Input((6,))
    x = keras_dropout.Dropout(0.3)(keras.layers.Dense(8)(x))
    assert refusal(keras.Model(inputs, keras.layers.Rescaling(1, offset=1e5)(keras.layers.Dense(1)(x)))) is None


def test_a_share_that_is_not_the_rate_is_named(monkeypatch):
    model = placement.place(model_of(keras.layers.Dense(64)), {"hidden": 0.5})
    assert refusal(model) is None
    product = noise.bernoulli_product
    monkeypatch.setattr(noise, "bernoulli_product", lambda x, state, rate, shape, **o: product(x, state, rate / 2, shape, **o))
    assert "its rate is 0.5" in refusal(model)
    assert "% of its 1024 units" in refusal(model)


def test_what_cannot_be_placed_is_refused(monkeypatch):
    """The fault that was: the calls that dropout is put behind are not those that are made again."""
    rebuild = graph.rebuild

    def without_it(model, touched, *calls):
        return rebuild(model, touched, lambda node, layer, args, kwargs: layer(*args, **kwargs))

    monkeypatch.setattr(graph, "rebuild", without_it)
    with pytest.raises(BadInput, match="could not be put at the site"):
        placement.place(model_of(keras.layers.Dense(5, name="body")), {"body": 0.5})


def rare():
    return model_of(keras.layers.Dense(1), keras_dropout.Dropout(0.02))


def zero_head():
    model = model_of(keras.layers.Dense(5), keras_dropout.Dropout(0.5))
    model.get_layer("classes").set_weights([np.zeros((5, 3)), np.zeros(3)])
    return model


def recurrent():
    return model_of(keras.layers.Reshape((3, 2)), keras.layers.LSTM(4, dropout=0.2, recurrent_dropout=0.2))


def attention():
    x = inputs = keras.Input((6,))
    x = keras.layers.Reshape((3, 2))(x)
    x = keras.layers.MultiHeadAttention(2, 4, dropout=0.2)(x, x)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def paths():
    x = inputs = keras.Input((6,))
    x = keras.layers.Add()([x, keras_dropout.ScheduledDropPath(0.2, steps=10_000)(keras.layers.Dense(6)(x))])
    x = keras.layers.Add()([x, keras_dropout.StochasticDepth(0.05)(keras.layers.Dense(6)(x))])
    return keras.Model(inputs, keras.layers.Dense(3)(x))


class Sampling(keras.layers.Layer):
    """Draws as a variational autoencoder does: random, and no dropout."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, inputs):
        mean, spread = inputs
        return mean + spread * keras.random.normal(keras.ops.shape(mean), seed=self.seeds)


class Silent(keras.layers.Layer):
    """Has an option of dropout, and hands on no flag: its dropout hears of training all the same."""

    def __init__(self, dropout, **options):
        super().__init__(**options)
        self.dropout, self.dense, self.inner = dropout, keras.layers.Dense(7), keras.layers.Dropout(dropout)

    def call(self, inputs):
        return self.inner(self.dense(inputs))

    def get_config(self):
        return {**super().get_config(), "dropout": self.dropout}


def of_others():
    x = inputs = keras.Input((6,))
    x = Silent(0.3)(x)
    x = Sampling()([keras.layers.Dense(4)(x), keras.layers.Dense(4)(x)])
    return keras.Model(inputs, keras.layers.Dense(3)(keras_dropout.Dropout(0.5)(x)))


def of_keras():
    return model_of(keras.layers.Reshape((3, 2)), keras.layers.SpatialDropout1D(0.3), keras.layers.Flatten())


def around():
    return placement.place(model_of(keras.layers.Dense(8), keras.layers.Dense(8)), {"hidden": {"kind": "DropConnect", "rate": 0.3}})


def learned():
    return placement.place(model_of(keras.layers.Dense(8)), {"hidden": {"kind": "ConcreteDropout", "rate": 0.2}})


class DropPath(keras.layers.Layer):
    def __init__(self, drop_prob=0.0, **options):
        super().__init__(**options)
        self.drop_prob, self.seeds = drop_prob, keras.random.SeedGenerator(1)

    def call(self, x, training=False):
        shape = (keras.ops.shape(x)[0], 1)
        return keras.random.dropout(x, self.drop_prob, noise_shape=shape, seed=self.seeds) if training and self.drop_prob else x

    def get_config(self):
        return {**super().get_config(), "drop_prob": self.drop_prob}


def by_depth():
    """Rates that grow with the depth, as they are usual: the first is 0."""
    x = inputs = keras.Input((6,))
    for rate in (0.0, 0.1, 0.2):
        x = keras.layers.Add()([x, DropPath(rate)(keras.layers.Dense(6, "relu")(x))])
    return keras.Model(inputs, keras.layers.Dense(3)(x))


BUILDERS = (rare, zero_head, recurrent, attention, paths, of_others, of_keras, around, learned, by_depth)


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_what_acts_is_not_taken_for_idle(build):
    model = build()
    before = values_of(model)
    assert refusal(model) is None
    assert refusal(model, 300 * X[:16] + 1000) is None  # outputs at their limits
    assert all(map(np.array_equal, before, values_of(model))), "the proof left something in the model"
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
