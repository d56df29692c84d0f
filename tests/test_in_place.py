"""Dropout changed in place: at any depth, in models of any class, in compiled steps, and in saved files."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import keras_dropout
from keras_dropout import BadInput, RateScheduler, adopt, place, set_rate, sites, strip
from keras_dropout.layers.adopted import dropout_in, put_behind, take_away
from keras_dropout.layers.base import Stochastic

X = np.random.default_rng(0).normal(size=(64, 6, 8)).astype("float32")


@keras.saving.register_keras_serializable("in_place")
class Block(L.Layer):
    """A block of the user's own, with dropout of three kinds inside: some made at once, some when it is built."""

    def __init__(self, rate=0.3, **options):
        super().__init__(**options)
        self.rate = rate
        self.attention = L.MultiHeadAttention(2, 4, dropout=rate, name="attention")
        self.noise = L.GaussianDropout(rate, name="noise")

    def build(self, shape):
        self.wide = L.Dense(16, "relu", name="wide")
        self.back = L.Dense(shape[-1], name="back")
        self.drop = L.Dropout(self.rate, name="drop")
        self.wide.build(shape)
        self.back.build((*shape[:-1], 16))
        self.attention.build(shape, shape)

    def call(self, x, training=None):
        x = x + self.attention(x, x, training=training)
        return self.back(self.drop(self.noise(self.wide(x), training=training), training=training))

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


@keras.saving.register_keras_serializable("in_place")
class Own(keras.Model):
    """A subclassed model that trains in its own way and does something else in training, so that no copy can be made."""

    def __init__(self, **options):
        super().__init__(**options)
        self.block, self.pool = Block(name="block"), L.GlobalAveragePooling1D(name="pool")
        self.body, self.out = L.Dense(12, "relu", name="body"), L.Dense(1, name="out")
        self.steps = 0

    def build(self, shape):
        self.block.build(shape)
        self.body.build((None, shape[-1]))
        self.out.build((None, 12))

    def call(self, x, training=None):
        x = self.body(self.pool(self.block(x, training=training)))
        return self.out(x * 2 if training else x)

    def train_step(self, *args, **options):
        self.steps += 1
        return super().train_step(*args, **options)


def functional():
    inputs = keras.Input((6, 8), name="series")
    x = Block(name="block")(inputs)
    x = L.TimeDistributed(L.Dropout(0.2, name="each"), name="steps")(x)
    x = L.Bidirectional(L.GRU(5, dropout=0.2, return_sequences=True, name="gru"), name="two_ways")(x)
    x = L.LSTM(6, dropout=0.25, recurrent_dropout=0.25, name="lstm")(L.SpatialDropout1D(0.1, name="spatial")(x))
    return keras.Model(inputs, L.Dense(1, name="out")(L.Dense(8, "relu", name="body")(x)))


def own():
    model = Own(name="own")
    model(X)
    return model


MODELS = {"functional": functional, "own": own}
ADDRESSES = {
    "functional": [
        *("block/attention/dropout", "block/noise", "block/drop", "steps/each"),
        *("two_ways/forward_gru/gru_cell", "two_ways/backward_gru/gru_cell", "spatial", "lstm/lstm_cell"),
    ],
    "own": ["block/attention/dropout", "block/noise", "block/drop"],
}


def outputs(model, x=X, **options):
    return ops.convert_to_numpy(model(x, **options))


def rates(model):
    return {address: layer.rate for address, layer in dropout_in(model)}


@pytest.fixture(params=MODELS)
def model(request):
    keras.utils.set_random_seed(0)
    return MODELS[request.param]()


@pytest.fixture(params=MODELS)
def name(request):
    keras.utils.set_random_seed(0)
    return request.param


def same_names(found):
    """Return addresses without the numbers that Keras adds to names that it makes."""
    return ["/".join(part.rstrip("0123456789").rstrip("_") for part in address.split("/")) for address in found]


def test_adopting_reaches_every_depth_and_changes_no_prediction(name):
    model = MODELS[name]()
    before, weights = outputs(model, training=False), model.get_weights()
    found = adopt(model)
    assert same_names(found) == ADDRESSES[name]
    assert all(isinstance(layer, Stochastic) for _, layer in dropout_in(model))
    np.testing.assert_array_equal(outputs(model, training=False), before)
    assert all(map(np.array_equal, model.get_weights(), weights))
    assert isinstance(model, type(MODELS[name]()))
    assert adopt(model) == []  # there is none left


def test_a_new_rate_acts_at_once_also_in_a_step_that_was_compiled_before(model):
    x, y = X, X[:, :1, 0]
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(x, y, batch_size=64, verbose=0)  # compiled with Keras's own layers
    adopt(model)
    set_rate(model, 0.0)
    for _, layer in dropout_in(model):
        if "recurrent_rate" in vars(layer.state):
            layer.recurrent_rate = 0.0
    plain = [model.train_on_batch(x, y) for _ in range(2)]
    assert plain[0] == plain[1]
    np.testing.assert_array_equal(outputs(model, training=True), outputs(model, training=True))
    set_rate(model, 0.5)
    dropped = [model.train_on_batch(x, y) for _ in range(3)]
    assert len({*map(float, dropped), float(plain[0])}) == 4
    set_rate(model, 0.0)
    assert model.train_on_batch(x, y) == plain[0]


@pytest.mark.parametrize(
    ("key", "count"),
    [("block/drop", 1), ("block", 3), ("attention", 1), ("*noise", 1), ("block/*", 3), ("recurrent", 3), ("hidden", 8)],
)
def test_rates_are_set_by_address_glob_and_group(key, count):
    model = functional()
    adopt(model)
    before = rates(model)
    set_rate(model, {key: 0.75})
    changed = [address for address, rate in rates(model).items() if rate != before[address]]
    assert len(changed) == count, changed
    assert {rates(model)[address] for address in changed} == {0.75}


def test_the_share_of_units_that_an_adopted_layer_drops_is_its_rate():
    inputs = keras.Input((100,))
    model = keras.Sequential([inputs, Wrapped(name="wrapped")])
    ones = np.ones((400, 100), "float32")
    adopt(model)
    for rate in (0.5, 0.1, 0.0):
        set_rate(model, {"wrapped/drop": rate})
        found = outputs(model, ones, training=True)
        assert abs((found == 0).mean() - rate) < 5 * np.sqrt(0.25 / found.size)
        np.testing.assert_allclose(found[found != 0], 1 / (1 - rate), rtol=1e-6)


@keras.saving.register_keras_serializable("in_place")
class Wrapped(L.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.drop = L.Dropout(0.2, name="drop")

    def call(self, x):
        return self.drop(x)


@pytest.mark.parametrize("change", ["adopt", "place"])
def test_a_saved_model_is_loaded_with_its_rates_and_the_masks_it_would_have_had(name, change, tmp_path):
    model = MODELS[name]()
    if change == "adopt":
        adopt(model)
        set_rate(model, {"block/drop": 0.6})
    else:
        place(model, {"block/wide": 0.6, "body": 0.2}, in_place=True)
    outputs(model, training=True)  # the streams have moved
    model.save(tmp_path / "model.keras")
    program = f"""
import keras, numpy as np, sys
sys.path[:0] = {[os.path.dirname(__file__)]!r}
import keras_dropout.layers, test_in_place
model = keras.models.load_model({str(tmp_path / "model.keras")!r})
x = test_in_place.X
np.savez({str(tmp_path / "found.npz")!r}, plain=test_in_place.outputs(model, training=False),
    dropped=test_in_place.outputs(model, training=True), rates=[*test_in_place.rates(model).values()], kind=type(model).__name__)
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "KERAS_BACKEND": keras.backend.backend()})
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_array_equal(found["plain"], outputs(model, training=False))
    np.testing.assert_array_equal(found["dropped"], outputs(model, training=True))
    assert list(found["rates"]) == list(rates(model).values())
    assert found["kind"] == type(model).__name__


def test_dropout_is_put_behind_layers_at_any_depth_and_nowhere_else(name):
    model = MODELS[name]()
    before = outputs(model, training=False)
    assert place(model, {"block/wide": 0.5, "body": 0.25}, in_place=True) is model
    np.testing.assert_array_equal(outputs(model, training=False), before)
    block, body = model.get_layer("block"), model.get_layer("body")
    x = np.abs(np.random.default_rng(1).normal(size=(400, 6, 8))).astype("float32")
    for layer, inputs, rate in ((block.wide, x, 0.5), (body, np.ones((400, body.kernel.shape[0]), "float32"), 0.25)):
        plain, dropped = outputs(layer, inputs, training=False), outputs(layer, inputs, training=True)
        active = plain != 0
        assert abs((dropped[active] == 0).mean() - rate) < 5 * np.sqrt(0.25 / active.sum())
        kept = active & (dropped != 0)
        np.testing.assert_allclose(dropped[kept], plain[kept] / (1 - rate), rtol=1e-5)
    assert not any(rate for rate in rates(model).values())  # what was there before is off
    listed = {site.name: [each["rate"] for each in site.dropout] for site in sites(model)}
    assert (listed["block/wide"], listed["body"]) == ([0.5], [0.25])
    strip(model, in_place=True)
    set_own = [layer for layer in model._flatten_layers() if isinstance(layer, Stochastic) and layer.rate]
    assert not set_own
    np.testing.assert_array_equal(outputs(model, training=True), outputs(model, training=True))


def test_a_copy_has_dropout_inside_a_layer_too():
    model = functional()
    before = outputs(model, training=False)
    new = place(model, {"block/wide": 0.5})
    np.testing.assert_allclose(outputs(new, training=False), before, atol=1e-6)  # attention without dropout is fused
    assert {d["layer"].rpartition("/")[0] for site in sites(new) for d in site.dropout if d["rate"]} == {"block/wide"}
    assert not [layer for layer in model._flatten_layers() if isinstance(layer, Stochastic)]


def test_training_of_ones_own_goes_on_with_the_changed_model():
    model = own()
    place(model, {"body": 0.5}, in_place=True)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    steps = model.steps
    scheduler = RateScheduler({"body": keras_dropout.schedules.Linear(0.5, 0.1)})
    model.fit(X, X[:, :1, 0], epochs=2, batch_size=32, verbose=0, callbacks=[scheduler])
    assert model.steps > steps
    assert model.body.dropout_behind.rate == pytest.approx(0.2)


class Pair(keras.Model):
    """A generator and a discriminator with a train_step of their own, as in a GAN."""

    def __init__(self):
        super().__init__()
        self.discriminator = keras.Sequential([keras.Input((8,)), L.Dense(32, "relu", name="wide"), L.Dense(1)], name="critic")

    def call(self, x):
        return self.discriminator(x)


def test_a_model_inside_another_keeps_its_place_and_its_weights():
    pair = Pair()
    critic = pair.discriminator
    place(pair.discriminator, {"wide": 0.5}, in_place=True)
    assert pair.discriminator is critic
    x = np.abs(X[:, 0])
    assert not np.array_equal(outputs(pair, x, training=True), outputs(pair, x, training=True))
    np.testing.assert_array_equal(outputs(pair, x, training=False), outputs(pair, x, training=False))


@keras.saving.register_keras_serializable("in_place")
class Adversaries(keras.Model):
    """A model that makes its inner models itself, and would make them again as they were when it is loaded."""

    def __init__(self, **options):
        super().__init__(**options)
        self.maker = keras.Sequential([keras.Input((8,)), L.Dense(8, "relu"), L.Dropout(0.4, name="untouched"), L.Dense(8)])
        critic = [keras.Input((8,)), L.Dense(32, "relu", name="wide"), L.Dropout(0.2, name="drop"), L.Dense(1)]
        self.critic = keras.Sequential(critic, name="critic")

    def call(self, x, training=None):
        return self.critic(x, training=training)

    def train_step(self, *args, **options):
        return super().train_step(*args, **options)

    def get_config(self):
        return {"name": self.name}


@pytest.mark.parametrize("change", ["adopt", "place"])
def test_what_holds_a_changed_model_saves_the_change_and_is_compiled_again(change, tmp_path):
    """Keras would load the model as its class makes it: without what was put in, and without a word."""
    model = Adversaries(name="adversaries")
    x, y = X[:, 0], X[:, 0, :1]
    model(x)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.train_on_batch(x, y)  # the step is compiled with the dropout of before
    if change == "adopt":
        adopt(model.critic)
        set_rate(model.critic, 0.0)
        assert model.train_on_batch(x, y) == model.train_on_batch(x, y)
        set_rate(model.critic, 0.75)
    else:
        place(model.critic, {"wide": 0.75}, in_place=True)
    assert isinstance(model, Adversaries)
    assert len({float(model.train_on_batch(x, y)) for _ in range(3)}) == 3
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(loaded, x, training=True), outputs(model, x, training=True))
    ours = [[layer.name for layer in each._flatten_layers() if isinstance(layer, Stochastic)] for each in (loaded, model)]
    assert ours[0] == ours[1]  # the dropout that was not changed is Keras's in both
    assert type(loaded.maker.get_layer("untouched")) is L.Dropout


@keras.saving.register_keras_serializable("in_place")
class Drawing(L.Layer):
    """A layer that draws from a seed of its own, and has no option or name that is known as dropout."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seed_generator = keras.random.SeedGenerator(1, name="seed")

    def call(self, x, training=None):
        return x * keras.random.uniform(ops.shape(x), seed=self.seed_generator) if training else x


def test_a_seed_of_a_foreign_layer_is_a_row_and_no_dropout_that_can_be_set():
    inputs = keras.Input((8,))
    x = L.Dense(8, "relu", name="body")(Drawing(name="drawing")(inputs))
    model = keras.Model(inputs, L.Dense(1, name="out")(L.Dropout(0.2, name="drop")(x)))
    rows = [(site.name, site.kind, site.group, site.dropout, site.methods) for site in sites(model)]
    assert ("drawing/seed", "Drawing", "draws", (), ()) in rows
    assert [name for name, _, group, *_ in rows if group == "draws"] == ["drawing/seed"]  # that of Keras's dropout is known
    assert "only seen when" in str(sites(model))
    adopt(model)
    for act in (
        lambda key: set_rate(model, {key: 0.1}),
        lambda key: place(model, {key: 0.1}),
        lambda key: place(model, {key: 0.1}, in_place=True),
    ):
        for key in ("drawing", "drawing/seed"):
            with pytest.raises(BadInput, match="from a seed of its own"):
                act(key)
    set_rate(model, {"all": 0.3, "*": 0.4})
    assert rates(model) == {"drop": 0.4}
    with pytest.warns(UserWarning, match="'drawing' still draws"):
        strip(model)


@keras.saving.register_keras_serializable("in_place")
class Followed(keras.Model):
    """A subclassed model whose call can be followed."""

    def __init__(self, **options):
        super().__init__(**options)
        self.block, self.pool = Block(name="block"), L.GlobalAveragePooling1D(name="pool")
        self.body, self.drop, self.out = L.Dense(12, "relu", name="body"), L.Dropout(0.3, name="drop"), L.Dense(1, name="out")

    def call(self, x, training=None):
        x = self.pool(self.block(x, training=training))
        return self.out(self.drop(self.body(x), training=training))


def test_a_subclass_that_can_be_followed_is_changed_in_place_and_copied_afterwards():
    model = Followed(name="followed")
    before = outputs(model)
    place(model, {"hidden": 0.5}, in_place=True)
    there = {site.name: [each["rate"] for each in site.dropout if each["rate"]] for site in sites(model)}
    assert (there["block"], there["body"], there["out"]) == ([0.5], [0.5], [])
    new = strip(model)
    np.testing.assert_array_equal(outputs(new), before)
    np.testing.assert_array_equal(outputs(new, training=True), before)
    assert not np.array_equal(outputs(model, training=True), before)


def test_a_copy_of_an_adopted_model_is_made_without_its_dropout():
    """A layer that was changed in place is saved with as many dropout layers as it has: it cannot be made again without them."""
    inputs = keras.Input((6, 8))
    x = L.MultiHeadAttention(2, 4, dropout=0.3, name="attention")(inputs, inputs)
    model = keras.Model(inputs, L.Dense(1, name="out")(L.LSTM(5, dropout=0.3, recurrent_dropout=0.3, name="lstm")(x)))
    adopt(model)
    before = outputs(model)
    bare, new = strip(model), place(model, {"lstm": 0.5})
    for made in (bare, new):
        np.testing.assert_array_equal(outputs(made), before)
    np.testing.assert_array_equal(outputs(bare, training=True), before)
    assert [d["rate"] for site in sites(new) for d in site.dropout if d["rate"]] == [0.5]
    assert sorted(rates(model).values()) == [0.3, 0.3]


def test_an_address_that_is_not_there_names_the_nearest():
    x = inputs = keras.Input((4,))
    for number in range(40):
        x = L.Dropout(0.1, name=f"drop_{number}")(L.Dense(4, name=f"wide_{number}")(x))
    model = keras.Model(inputs, L.Dense(1)(x))
    with pytest.raises(BadInput) as refused:
        set_rate(model, {"dropp_17": 0.2})
    assert "drop_17" in str(refused.value).split("layers: ")[1].split(", ")[:3]
    with pytest.raises(BadInput) as refused:
        place(model, {"widde_17": 0.2}, in_place=True)
    assert "a site: wide_17" in str(refused.value)


def test_a_layer_that_is_called_at_several_depths_has_one_address_and_drops_at_each():
    inputs, block = keras.Input((6, 8)), Block(rate=0.0, name="block")
    model = keras.Model(inputs, block(block(inputs)))
    place(model, {"block/wide": 0.5}, in_place=True)
    assert [site.name for site in sites(model) if site.dropout and site.group == "inside"] == ["block/wide"]
    drop, seen = block.wide.dropout_behind, []
    call = drop.call
    drop.call = lambda x, training=None: seen.append(call(x, training=training)) or seen[-1]
    outputs(model, np.ones((4, 6, 8), "float32"), training=True)
    one, two = (ops.convert_to_numpy(each) == 0 for each in seen)
    assert not np.array_equal(one, two)  # each depth has masks of its own


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        ({"block/wid": 0.5}, "block/wide"),
        ({"lstm": "RecurrentDropout(0.2)"}, "goes around the layer"),
        ({"series": 0.2}, "is an input"),
        ({"body": 1.5}, "in [0, 1]"),
    ],
)
def test_what_cannot_be_put_in_place_is_refused_and_nothing_changes(placement, words):
    model = functional()
    kinds = [type(layer) for layer in model._flatten_layers()]
    with pytest.raises(BadInput) as refused:
        place(model, placement, in_place=True)
    assert words in str(refused.value)
    assert [type(layer) for layer in model._flatten_layers()] == kinds


@pytest.mark.parametrize(
    "layer", [keras_dropout.ConcreteDropout(0.2, L.Dense(8)), keras_dropout.PatchDropout(0.5)], ids=["learned", "shape"]
)
def test_dropout_that_cannot_be_turned_off_in_place_is_refused(layer):
    model = keras.Sequential([keras.Input((6, 8)), layer, L.Dense(8, name="body"), L.GlobalAveragePooling1D(), L.Dense(1)])
    with pytest.raises(BadInput, match="cannot be set to 0"):
        strip(model, in_place=True)
    bare = strip(model)
    np.testing.assert_array_equal(outputs(bare, training=True), outputs(bare, training=True))


def test_a_layer_behind_two_sites_is_refused():
    relu, inputs = L.ReLU(name="relu"), keras.Input((8,))
    x = relu(L.Dense(8, name="one")(inputs))
    model = keras.Model(inputs, L.Dense(1)(relu(L.Dense(8, name="two")(x))))
    with pytest.raises(BadInput, match="drop in both places"):
        place(model, {"one": 0.5}, in_place=True)


def test_a_file_of_a_class_that_makes_other_dropout_now_is_refused(tmp_path, monkeypatch):
    model = functional()
    adopt(model)
    model.save(tmp_path / "model.keras")
    build = Block.build

    def other(self, shape):
        build(self, shape)
        self.more = L.Dropout(0.1)

    monkeypatch.setattr(Block, "build", other)
    loaded = keras.models.load_model(tmp_path / "model.keras")  # its layers may be made as late as in the first call
    with pytest.raises(BadInput, match="other layers than those"):
        loaded.predict(X, verbose=0)


def test_a_group_passes_over_a_layer_that_is_also_called_for_an_output():
    ids = keras.Input((5,), dtype="int32")
    words = L.ReversibleEmbedding(20, 8, name="words")
    model = keras.Model(ids, words(L.Dense(8, "relu", name="body")(words(ids)), reverse=True))
    with pytest.warns(UserWarning, match="'words' is passed over"):
        place(model, {"hidden": 0.5}, in_place=True)
    assert [site.name for site in sites(model) if site.dropout] == ["body"]
    with pytest.raises(BadInput, match="drop in both places"):
        place(model, {"words": 0.5}, in_place=True)


@keras.saving.register_keras_serializable("in_place")
class Task(keras.Model):
    """As a task of KerasHub: a functional model with a configuration and a `compile` of its own."""

    __module__ = "keras_hub.src.utils.pipeline_model"

    def __init__(self, preprocessor=None, **options):
        inputs = keras.Input((6, 8), name="series")
        x = L.GlobalAveragePooling1D(name="pool")(Block(name="block")(inputs))
        super().__init__(inputs, L.Dense(1, name="out")(L.Dense(8, "relu", name="body")(x)), **options)
        self.preprocessor = preprocessor

    def compile(self, optimizer="adam", loss="mse", **options):
        super().compile(optimizer, loss, **options)

    def get_config(self):
        return {"name": self.name}


def test_a_task_is_studied_as_the_functional_model_in_it(tmp_path):
    model = Task(name="task")
    model.compile()
    found = keras_dropout.compare(
        model,
        ((X, X[:, :1, 0]), (X, X[:, :1, 0])),
        variants={"inner": {"block/wide": 0.5}, "body": {"body": 0.5}},
        seeds=1,
        epochs=1,
        engine="reference",
        ledger=tmp_path / "runs.db",
        quiet=True,
    )
    assert not found.failed
    assert len({float(found.values(name, "test_loss")[0]) for name in ("none", "inner", "body")}) == 3
    with pytest.raises(BadInput, match="prepares its data itself"):
        keras_dropout.compare(Task(preprocessor=len), (X, X[:, :1, 0]), quiet=True)


def test_the_import_makes_no_layer_that_would_count_in_the_names_of_a_program():
    program = """
import keras, keras_dropout
keras_dropout.adopt, keras_dropout.place
inputs = keras.Input((2,))
print(keras.Model(inputs, keras.layers.Dense(1)(inputs)).name, inputs._keras_history.operation.name)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["functional", "input_layer"]


def test_what_was_put_behind_a_layer_is_gone_when_it_is_taken_away_or_put_anew():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="d"), keras.layers.Dense(2)])
    dense = model.get_layer("d")
    for rate in (0.1, 0.2):
        put_behind(dense, keras_dropout.Dropout(rate))
        (found,) = [each for each in model._flatten_layers() if isinstance(each, keras_dropout.Dropout)]
        assert found.rate == rate
    take_away(dense)
    assert not [each for each in model._flatten_layers() if isinstance(each, keras_dropout.Dropout)]
    assert not keras_dropout.adopt(model)
