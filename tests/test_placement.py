"""Sites of a model, and models with dropout put there or taken away, on the backend of this process."""

import pickle
import types
import warnings

import keras
import numpy as np
import pytest
from keras import ops

import keras_dropout
from keras_dropout import BadInput, Dropout, LayerDrop, PatchDropout, place, schedules, set_rate, sites, strip
from keras_dropout.models import fitting
from keras_dropout.models.dropping import is_dropout
from keras_dropout.models.graph import copy, make, nodes
from keras_dropout.models.placement import resolve, rewire, with_ours

L = keras.layers


def perceptron(dropout=None):
    layers = [L.Flatten(), L.Dense(20, "relu", name="a"), L.Dense(10, "relu", name="b"), L.Dense(3, "softmax", name="c")]
    if dropout:
        layers[2:2] = [dropout]
    return keras.Sequential([keras.Input((4, 4), name="x"), *layers], name="mlp")


def branches():
    """Two ways of different length, activations and normalisation as layers of their own, a layer used twice."""
    inputs = keras.Input((8,), name="x")
    shared = L.Dense(8, name="shared")
    left = L.Activation("relu")(L.BatchNormalization()(shared(shared(inputs))))
    left = L.Dense(6, "relu", name="left")(left)
    right = L.Dense(6, name="right")(inputs)
    return keras.Model(inputs, L.Dense(1, name="out")(L.ReLU()(L.Add()([left, right]))))


def names(model, *, group=None, last=None):
    return [s.name for s in sites(model) if (group is None or s.group == group) and (last is None or s.last == last)]


def dropped_behind(model):
    """The layer whose output goes into each dropout layer, by a graph walk of its own."""
    return [layer.input._keras_history.operation.name for layer in model.layers if is_dropout(layer)]


def test_sites_come_in_the_order_of_the_data():
    assert [(s.name, s.group, s.last, s.shape) for s in sites(perceptron())] == [
        ("x", "input", False, (4, 4)),
        ("a", "hidden", False, (20,)),
        ("b", "hidden", True, (10,)),
        ("c", "output", False, (3,)),
    ]


def test_sites_of_branches():
    assert set(names(branches(), group="hidden")) == {"shared", "left", "right"}
    assert set(names(branches(), last=True)) == {"left", "right"}
    assert names(branches(), group="output") == ["out"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("input", ["x"]),
        ("hidden", ["a", "b"]),
        ("last", ["b"]),
        ("all", ["x", "a", "b"]),
        ("a", ["a"]),
        ("[ab]", ["a", "b"]),
        ("c", ["c"]),
    ],
)
def test_patterns(pattern, expected):
    assert list(resolve(perceptron(), {pattern: 0.2})) == expected


def test_a_glob_does_not_mean_the_output_and_a_later_pattern_wins():
    assert resolve(perceptron(), {"*": 0.1, "b": 0.5}) == {"x": 0.1, "a": 0.1, "b": 0.5}


def test_dropout_stands_behind_the_site():
    assert dropped_behind(place(perceptron(), {"all": 0.2})) == ["x", "a", "b"]


def test_dropout_stands_behind_activation_and_normalisation():
    inputs = keras.Input((8,))
    x = L.ReLU(name="relu")(L.BatchNormalization()(L.Dense(8, name="d")(inputs)))
    model = keras.Model(inputs, L.Dense(1)(x))
    assert dropped_behind(place(model, {"d": 0.2})) == ["relu"]


@pytest.mark.parametrize("build", [perceptron, branches, lambda: perceptron(L.Dropout(0.5)), lambda: perceptron(Dropout(0.5))])
@pytest.mark.parametrize("placement", [{}, {"all": 0.3}, {"last": Dropout(0.5, seed=1)}])
def test_predictions_are_the_same_bit_for_bit(build, placement):
    model = build()
    x = np.random.default_rng(0).normal(size=(7, *model.input_shape[1:])).astype("float32")
    np.testing.assert_array_equal(place(model, placement).predict(x, verbose=0), model.predict(x, verbose=0))


def test_a_placement_replaces_the_dropout_that_is_there():
    for dropout in (L.Dropout(0.5), L.GaussianDropout(0.5), Dropout(0.5)):
        assert not any(map(is_dropout, strip(perceptron(dropout)).layers))
        assert dropped_behind(place(perceptron(dropout), {"last": 0.2})) == ["b"]
    assert not any(map(is_dropout, strip(patches()).layers))


def test_training_drops_where_it_was_put():
    model = place(perceptron(), {"input": 0.5})
    layer = next(layer for layer in model.layers if is_dropout(layer))
    x = np.ones((32, 4, 4), "float32")
    assert np.ptp(keras.ops.convert_to_numpy(model(x, training=True)), axis=0).max() > 0
    layer.rate = 0.0
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x, training=True)), keras.ops.convert_to_numpy(model(x)), rtol=1e-6)


def test_adopt_replaces_keras_dropout_and_keeps_sharing():
    inputs, shared = keras.Input((8,)), L.Dropout(0.25, name="d")
    model = with_ours(keras.Model(inputs, L.Dense(1)(shared(L.Dense(8)(shared(inputs))))))
    found = [layer for layer in model.layers if is_dropout(layer)]
    assert [(type(layer), layer.rate, layer.name) for layer in found] == [(Dropout, 0.25, "d")]


def test_adopt_and_rates_reach_into_nested_models():
    inner = keras.Sequential([keras.Input((6,)), L.Dense(6, name="within"), L.Dropout(0.25, name="d")], name="inner")
    model = with_ours(keras.Sequential([keras.Input((6,)), inner, L.Dense(1)]))
    (found,) = (layer for layer in model._flatten_layers() if is_dropout(layer))
    assert type(found) is Dropout
    set_rate(model, {"inner/within": 0.5})
    assert found.rate == 0.5


class DropPath(L.Layer):
    """As another library has it."""

    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate

    def call(self, x, training=False):
        return keras.random.dropout(x, self.rate, noise_shape=(None, 1)) if training else x

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


def test_adopt_keeps_what_is_told_apart():
    """Rates, shapes of noise and what a layer is called with."""
    inputs = keras.Input((4, 6))
    x = L.Dropout(0.3, noise_shape=(None, 1, 6), name="one")(inputs)
    model = with_ours(keras.Model(inputs, L.Dropout(0.6, name="other")(x, training=True)))
    one, other = (layer for layer in model.layers if isinstance(layer, Dropout))
    assert (one.rate, one.noise_shape, other.rate, other.noise_shape) == (0.3, (None, 1, 6), 0.6, None)
    assert (one.name, other.name) == ("one", "other")
    dropped = ops.convert_to_numpy(model(np.ones((50, 4, 6)))) == 0  # by the other one alone
    assert abs(dropped.mean() - 0.6) < 5 * np.sqrt(0.24 / dropped.size)


@pytest.mark.parametrize("way", ["a dropout layer", "dropout of a layer itself", "dropout to be put"])
def test_only_nested_models_that_are_concerned_are_made_again(way):
    inside = [L.LSTM(4, dropout=0.3 if way == "dropout of a layer itself" else 0.0), L.Dense(3, name="dense")]
    inside += [L.Dropout(0.3)] if way == "a dropout layer" else []
    concerned = keras.Sequential([keras.Input((5, 3)), *inside], name="concerned")
    other = keras.Sequential([keras.Input((3,)), L.Dense(2)], name="other")
    model = keras.Sequential([keras.Input((5, 3)), concerned, other])
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    before = model.predict(x, verbose=0)
    new, _ = rewire(model, {"concerned/dense": 0.4} if way == "dropout to be put" else {})
    assert new.get_layer("other") is other
    assert [d["rate"] for site in sites(new) for d in site.dropout] == ([0.4] if way == "dropout to be put" else [])
    np.testing.assert_allclose(new.predict(x, verbose=0), before, rtol=1e-5, atol=1e-6)


def test_layers_of_other_libraries_are_known_by_name():
    model = perceptron(DropPath(0.3))
    assert {d["kind"]: d["rate"] for site in sites(model) for d in site.dropout} == {"DropPath": 0.3}
    assert not any(map(is_dropout, strip(model).layers))


def text_model():
    ids = keras.Input((7,), dtype="int32", name="ids")
    x = L.Bidirectional(L.LSTM(4, return_sequences=True, dropout=0.2), name="two_ways")(L.Embedding(30, 8, name="words")(ids))
    x = L.GRU(5, recurrent_dropout=0.3, name="gru")(
        L.MultiHeadAttention(2, 4, dropout=0.1, name="attention")(x, x, use_causal_mask=True)
    )
    return keras.Model(ids, L.Dense(2, name="out")(x))


def test_groups_mean_the_sites_where_the_method_fits():
    model = text_model()
    assert list(resolve(model, {"all": 0.2})) == ["words", "two_ways", "attention", "gru"]  # ids cannot be scaled
    assert list(resolve(model, {"hidden": {"kind": "SpatialDropout1D", "rate": 0.1}})) == ["words", "two_ways", "attention"]
    assert list(resolve(model, {"hidden": keras_dropout.SpatialDropout1D(0.1)})) == ["words", "two_ways", "attention"]
    assert list(resolve(model, {"*": {"kind": "WeightDrop", "rate": 0.1}})) == ["gru"]
    assert list(resolve(model, {"GRU": 0.2, "Embedding": 0.1})) == ["words", "gru"]
    fits = {site.name: site.methods for site in sites(model)}
    assert fits["ids"] == ("WordDropout",)
    assert "EmbeddingDropout" in fits["words"]
    assert {"AttentionDropout", "DropHead", "DropKey"} <= set(fits["attention"])
    assert {"Zoneout", "RecurrentDropout"} <= set(fits["gru"])
    assert {"DropConnect", "ConcreteDropout"} <= set(fits["out"])


def test_methods_that_fit_are_looked_for_when_asked_for(monkeypatch):
    """A wrapper is made to see whether it fits: not by `sites`, nor for a placement of another method."""
    model, asked = perceptron(), []
    monkeypatch.setattr(fitting, "_can_go_around", lambda name, layer: not asked.append(name))
    found = sites(model)
    place(model, {"hidden": 0.2})
    assert asked == []
    assert [site.fits("DropConnect") for site in found] == [False, True, True, True]
    assert asked == ["DropConnect"] * 3
    again = pickle.loads(pickle.dumps(found))
    assert again == found
    assert [site.methods for site in again] == [site.methods for site in found]
    assert "DropConnect" in again[1].methods


def test_a_schedule_is_for_a_training():
    placement = {"a": {"kind": "Dropout", "rate": 0.5, "schedule": schedules.Linear(0.5, 0.0).document()}}
    assert list(resolve(perceptron(), placement)) == ["a"]
    with pytest.raises(BadInput, match="belongs to a training"):
        place(perceptron(), placement)


def test_every_method_that_fits_can_be_put_there():
    inputs = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(8, 3, padding="same", name="conv")(inputs)
    x = L.Add()([x, L.Conv2D(8, 3, padding="same", name="path")(x)])
    images = keras.Model(inputs, L.Dense(6, activation="selu", name="dense")(L.GlobalAveragePooling2D()(x)))
    options = {
        "WordDropout": {"unknown": 1},
        "VariationalDropout": {"kl_weight": 0.1},
        "SparseVariationalDropout": {"kl_weight": 0.1},
    }
    options |= {"NEFTune": {"alpha": 5}, "DropConnect": {"per": "batch"}, "ScheduledDropPath": {"steps": 9}}
    options |= {"DropBlock2D": {"block_size": 2}, "DropBlock1D": {"block_size": 2}, "Cutout": {"size": 2}}
    count = 0
    for model in (images, strip(text_model())):
        called = set()
        for site in sites(model):
            for method in site.methods:
                rate = {} if method in ("NEFTune", "Standout", "SparseVariationalDropout") else {"rate": 0.2}
                made, _ = rewire(copy(model), {site.name: {"kind": method, **rate, **options.get(method, {})}})
                found = next(s for s in sites(made) if s.name == site.name).dropout
                assert [each["kind"] for each in found] == [getattr(keras_dropout, method).__name__]
                if method not in called:  # a call takes longer than all else, and is the same at the other sites
                    made(np.ones((2, *made.input_shape[1:]), made.input.dtype), training=True)
                called.add(method)
                count += 1
    assert count > 60


def test_dropout_of_layers_themselves_is_shown_and_taken_out():
    model = text_model()
    assert {d["kind"]: d["rate"] for site in sites(model) for d in site.dropout} == {
        "LSTM(dropout)": 0.2,
        "GRU(recurrent_dropout)": 0.3,
        "MultiHeadAttention(dropout)": 0.1,
    }
    bare = strip(model)
    assert not any(site.dropout for site in sites(bare))
    x = np.random.default_rng(0).integers(0, 30, (5, 7))
    # To rounding: dropout of their own keeps these layers from computing as fast as they can, and so from the same sums.
    np.testing.assert_allclose(bare.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(bare.predict(x, verbose=0), ops.convert_to_numpy(bare(x, training=True)))


def test_a_method_around_a_layer_is_put_in_place_of_its_own_dropout():
    model = place(
        text_model(),
        {"gru": {"kind": "WeightDrop", "rate": 0.2}, "attention": 0.4, "two_ways": {"kind": "WeightDrop", "rate": 0.5}},
    )
    assert [(d["kind"], d["rate"]) for site in sites(model) for d in site.dropout] == [
        ("WeightDrop", 0.5),
        ("Dropout", 0.4),
        ("WeightDrop", 0.2),
    ]


def test_a_layer_that_is_made_again_keeps_weights_and_whether_it_trains():
    model = text_model()
    model.get_layer("gru").trainable = False
    bare = strip(model).get_layer("gru")
    assert bare.trainable is False
    for ours, theirs in zip(bare.get_weights(), model.get_layer("gru").get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("method", [0.5, {"kind": "LockedDropout", "rate": 0.5}])
def test_of_several_outputs_the_first_is_dropped(method):
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, L.LSTM(4, return_sequences=True, return_state=True, name="lstm")(inputs))
    placed = place(model, {"lstm": method})
    x = np.random.default_rng(0).normal(size=(8, 5, 3)).astype("float32")
    (y, h, c), (whole, *states) = (list(map(ops.convert_to_numpy, each(x, training=True))) for each in (placed, model))
    assert 0.3 < (y == 0).mean() < 0.7
    np.testing.assert_allclose(y[y != 0], 2 * whole[y != 0], rtol=1e-5)
    np.testing.assert_allclose([h, c], states, rtol=1e-5)


def test_dropout_that_is_called_by_keyword_is_taken_out():
    inputs = keras.Input((4,))
    h = L.Dropout(0.5)(inputs=L.Dense(5, name="a")(inputs), training=True)
    model = keras.Model(inputs, L.Dense(2)(h))
    assert not any(map(is_dropout, strip(model).layers))
    assert dropped_behind(place(model, {"a": 0.2})) == ["a"]
    assert [site.dropout[0]["rate"] for site in sites(model) if site.name == "a"] == [0.5]


def test_one_layer_for_each_step_is_put_and_taken_off():
    placed = place(text_model(), {"words": L.TimeDistributed(L.Dropout(0.3), name="steps")})
    (put,) = (layer for layer in placed.layers if isinstance(layer, L.TimeDistributed))
    assert put.layer.rate == 0.3
    assert not any(isinstance(layer, L.TimeDistributed) for layer in strip(placed).layers)


def test_a_method_around_a_layer_is_put_there_and_taken_off():
    model = perceptron()
    x = np.random.default_rng(0).normal(size=(7, 4, 4)).astype("float32")
    placed = place(model, {"a": {"kind": "DropConnect", "rate": 0.5}})
    assert [type(layer).__name__ for layer in placed.layers] == ["Flatten", "DropConnect", "Dense", "Dense"]
    np.testing.assert_array_equal(placed.predict(x, verbose=0), model.predict(x, verbose=0))
    assert np.ptp(ops.convert_to_numpy(placed(np.ones((9, 4, 4)), training=True)), axis=0).max() > 0
    bare = strip(placed)
    assert [type(layer).__name__ for layer in bare.layers] == ["Flatten", "Dense", "Dense", "Dense"]
    np.testing.assert_array_equal(bare.predict(x, verbose=0), model.predict(x, verbose=0))


def test_what_acts_at_prediction_is_warned_of():
    model = keras.Sequential([keras.Input((5, 3)), L.LSTM(4, name="lstm"), L.Dense(1, name="out")])
    with pytest.warns(UserWarning, match="Zoneout acts at prediction too"):
        placed = place(model, {"lstm": {"kind": "Zoneout", "rate": 0.3}})
    with pytest.warns(UserWarning, match="Zoneout acts at prediction too"):
        strip(placed)
    with pytest.warns(UserWarning, match="DropConnect acts at prediction too"):
        place(model, {"out": {"kind": "DropConnect", "rate": 0.3, "inference": "gaussian"}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        place(model, {"out": {"kind": "DropConnect", "rate": 0.3}, "lstm": {"kind": "WeightDrop", "rate": 0.3}})


def test_the_new_model_shares_nothing_and_goes_on_training_where_the_old_one_was():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(64, 8)).astype("float32"), generator.normal(size=(64, 1)).astype("float32")
    model = branches()
    model.get_layer("right").trainable = False
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    before = [ops.convert_to_numpy(w) for w in model.weights]
    placed = place(model, {"left": 0.0})  # another order of layers, the same function
    assert not placed.get_layer("right").trainable
    assert int(placed.optimizer.iterations) == 8
    placed.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for now, then in zip(model.weights, before):
        np.testing.assert_array_equal(ops.convert_to_numpy(now), then)
    model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(placed.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)
    assert placed.evaluate(x, y, verbose=0, return_dict=True).keys() == model.evaluate(x, y, verbose=0, return_dict=True).keys()


def alike(layer, shape):
    """A trained model in which two layers have one name, in nested models."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape, name="x")
    a, b = (keras.Sequential([keras.Input(shape), layer()], name=name)(inputs) for name in "ab")
    model = keras.Model(inputs, L.Dense(2)(L.Add()([L.Dense(4, name="e")(a), L.Dense(4, name="f")(b)])))
    model.compile("adam", "mse")
    x, y = np.random.default_rng(0).normal(size=(16, *shape)).astype("float32"), np.ones((16, 2))
    model.fit(x, y, epochs=3, verbose=0)
    return model, x, y


@pytest.mark.parametrize("loaded", [False, True])
def test_layers_of_one_name_in_nested_models_train_as_before(tmp_path, loaded):
    model, x, y = alike(lambda: L.Dense(4, name="d"), (4,))
    start = model
    if loaded:
        model.save(tmp_path / "model.keras")
        start = keras.models.load_model(tmp_path / "model.keras")  # Keras leaves "a" and "b" out of the paths
    placed = place(start, {"f": 0.0})  # another order of layers
    losses = [each.fit(x, y, epochs=4, shuffle=False, verbose=0).history["loss"] for each in (placed, model)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_layers_of_one_name_have_paths_of_their_own_in_a_model_made_from_its_config():
    model, x, y = alike(lambda: L.Dense(4, name="d"), (4,))
    made = make(keras.saving.serialize_keras_object(model))
    assert len({w.path for w in made.weights}) == len(made.weights)
    made.set_weights(model.get_weights())
    for each in (model, made):
        each.compile("sgd", "mse")
    losses = [each.fit(x, y, epochs=4, shuffle=False, verbose=0).history["loss"] for each in (made, model)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_layers_of_one_name_that_are_made_again_keep_the_optimizers_state():
    model, _, _ = alike(lambda: L.SimpleRNN(3, dropout=0.1, name="d"), (2, 3))
    found, expected = ({v.name: ops.convert_to_numpy(v) for v in each.optimizer.variables} for each in (strip(model), model))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, name)


def test_copies_of_a_seeded_layer_have_seeds_of_their_own():
    model = place(perceptron(), {"hidden": Dropout(0.5, seed=1)})
    assert len({layer.seed for layer in model.layers if is_dropout(layer)}) == 2
    model = place(perceptron(), {"a": Dropout(0.5, seed=1)})
    assert [layer.seed for layer in model.layers if is_dropout(layer)] == [1]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0.5, [0.5, 0.5, 0.5]), ({"hidden": 0.4}, [0.1, 0.4, 0.4]), ({"*": 0.3, "last": 0.0}, [0.3, 0.3, 0.0])],
)
def test_rates_are_set_in_place_and_nothing_is_compiled_again(rate, expected):
    model = place(perceptron(), {"all": 0.1})
    model.compile("sgd", "sparse_categorical_crossentropy")
    traces = []

    class Counting(L.Layer):
        def call(self, x):
            traces.append(1)
            return x

    model = keras.Sequential([*model.layers, Counting()])
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = np.ones((8, 4, 4), "float32"), np.zeros(8)
    model.train_on_batch(x, y)
    count = len(traces)
    set_rate(model, rate)
    assert [layer.rate for layer in model.layers if is_dropout(layer)] == expected
    model.train_on_batch(x, y)
    if keras.backend.backend() != "torch":  # which runs `call` each time
        assert len(traces) == count


class Subclassed(keras.Model):
    def __init__(self, way):
        super().__init__()
        self.way, self.dense, self.out = way, L.Dense(4), L.Dense(2)
        self.dropout, self.scale = L.Dropout(0.5), self.add_weight(shape=(4,), initializer="ones", name="scale")
        self(np.ones((2, 3), "float32"))

    def call(self, x, training=False):
        x = self.dense(x)
        if self.way == "other in training" and training:
            x = x * 2
        if self.way == "a number in training":
            x = x * (2 if training else 1)
        if self.way == "own weights":
            x = x * self.scale
        if self.way == "frozen":
            x = self.dropout(x, training=True)
        if self.way == "loss":
            self.add_loss(ops.sum(x))
        if self.way == "numpy":
            x = ops.convert_to_numpy(x) + 1
        return self.out(x)


class OwnStep(keras.Model):
    def train_step(self, *args, **kwargs):
        return super().train_step(*args, **kwargs)


class Hidden(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inside = L.Dropout(0.5)

    def call(self, x, training=False):
        return self.inside(x, training=training)


def shared_across_levels():
    inner = keras.Sequential([keras.Input((4, 4)), L.Dense(4)], name="inner")
    inputs = keras.Input((4, 4))
    middle = keras.Model(inputs, L.Dense(4)(inner(inputs)))
    inputs = keras.Input((4, 4))
    return keras.Model(inputs, middle(inner(inputs)))


REFUSED = {
    "unknown site 'nowhere'": lambda: place(perceptron(), {"nowhere": 0.2}),
    "got 1.5": lambda: place(perceptron(), {"hidden": 1.5}),
    "not built": lambda: sites(keras.Sequential([L.Dense(3)])),
    "got str": lambda: sites("model"),
    "not built.": lambda: sites(OwnStepless()),
    "does something else in training": lambda: strip(Subclassed("other in training")),
    "does something else in training.": lambda: strip(Subclassed("a number in training")),
    "weights that its layers' calls do not show": lambda: strip(Subclassed("own weights")),
    "fixes training=True for dropout": lambda: strip(Subclassed("frozen")),
    "cannot be followed: ValueError: `add_loss()`": lambda: strip(Subclassed("loss")),
    "cannot be followed": lambda: strip(Subclassed("numpy")),
    "with train_step of its own": lambda: sites(OwnStep()),
    "cannot be copied": lambda: strip(shared_across_levels()),
    "no dropout layer 'Dropuot'": lambda: place(perceptron(), {"hidden": {"kind": "Dropuot", "rate": 0.2}}),
    "SpatialDropout2D fits no site of 'hidden'": lambda: place(perceptron(), {"hidden": {"kind": "SpatialDropout2D", "rate": 0.2}}),
    "must be a recurrent layer": lambda: place(perceptron(), {"a": {"kind": "WeightDrop", "rate": 0.2}}),
    "goes around a layer": lambda: place(perceptron(), {"a": LayerDrop(0.2, L.Dense(3))}),
    "has no dropout layer": lambda: set_rate(perceptron(), 0.2),
    "no dropout layer 'x'": lambda: set_rate(perceptron(Dropout(0.1)), {"x": 0.2}),
    "a Dropout of keras, cannot be changed in place": lambda: set_rate(perceptron(L.Dropout(0.1)), 0.2),
    "a PatchDropout of keras_dropout, cannot": lambda: set_rate(patches(), 0.2),
    "in [0, 1]; got 2": lambda: set_rate(perceptron(Dropout(0.1)), 2),
}


class OwnStepless(keras.Model):
    def call(self, inputs):
        return inputs


def patches():
    return keras.Sequential([keras.Input((9, 4)), PatchDropout(0.5), L.GlobalAveragePooling1D(), L.Dense(3)])


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_done_is_refused(words):
    with pytest.raises(BadInput) as caught:
        REFUSED[words]()
    assert words.rstrip(".") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


IN_TRAINING = """site 'a': a rate that changes over training or depth belongs to a training, not to a model.
Place a rate, and train with keras_dropout.RateScheduler; or use keras_dropout.compare."""
ON_VECTORS = (
    "Dropout, GaussianDropout, DropConnect, Mixout, ConcreteDropout, VariationalDropout, SparseVariationalDropout, Standout"
)
KINDS = sorted(name for name in keras_dropout.layers.__all__ if isinstance(getattr(keras_dropout.layers, name), type))
MESSAGES = [
    (lambda: place(perceptron(), {"a": "linear(0.1, 0.2)"}), IN_TRAINING),
    (lambda: place(perceptron(), {"a": {"kind": "Dropout", "rate": 0.1, "over_depth": True}}), IN_TRAINING),
    (
        lambda: resolve(perceptron(), {"a": {"kind": "ConcreteDropout", "rate": 0.2, "schedule": {}}}),
        "the rate of ConcreteDropout cannot follow a schedule: it is learned or decides a shape.\nGive it a rate, for example 0.2.",
    ),
    (lambda: set_rate("m", 0.2), "expected a Keras model; got str.\nPass the model whose rates are to be set."),
    (
        lambda: set_rate(perceptron(), 0.2),
        "the model 'mlp' has no dropout layer.\nPut some in: keras_dropout.place(model, {'hidden': 0.2}).",
    ),
    (
        lambda: set_rate(keras.Sequential([keras.Input((4,)), Dropout(0.1, name="d"), L.Dropout(0.1, name="e")]), {"nix": 0.2}),
        "no dropout layer 'nix' in the model.\nIts dropout layers: d, e.",
    ),
    (
        lambda: set_rate(perceptron(L.Dropout(0.1, name="d")), 0.2),
        "the rate of 'd', a Dropout of keras, cannot be changed in place.\nAdopt the model first: keras_dropout.adopt(model).",
    ),
    (
        lambda: place(perceptron(), {"nix": 0.2}),
        "unknown site 'nix': the model has no such site.\n"
        "Use one of the groups input, hidden, last, all, a class of layers, a glob, or a site: x, a, b, c.",
    ),
    (
        lambda: place(perceptron(), {"a": LayerDrop(0.2, L.Dense(3))}),
        "LayerDrop goes around a layer; as a value of a placement it has one already.\n"
        'Write {"kind": "LayerDrop", "rate": …}: it is put around the layer at the site.',
    ),
    (
        lambda: place(perceptron(), {"a": L.TimeDistributed(L.Dense(3))}),
        "TimeDistributed is no dropout layer.\nPut a layer that drops there, for example Dropout(0.2).",
    ),
    (
        lambda: place(perceptron(), {"a": L.Activation("relu")}),
        "Activation is no dropout layer.\nPut a layer that drops there, for example Dropout(0.2).",
    ),
    (
        lambda: place(perceptron(), {"a": {"kind": "Dropuot", "rate": 0.1}}),
        f"no dropout layer 'Dropuot' that can be put at a site.\nUse one of: {', '.join(KINDS)}.",
    ),
    (
        lambda: place(perceptron(), {"a": {"kind": "DropConnect", "rate": 0.1, "b": 3}}),
        "DropConnect cannot be made from {'rate': 0.1, 'b': 3}: Unrecognized keyword arguments passed to DropConnect: {'b': 3}\n"
        "See help(keras_dropout.DropConnect).",
    ),
    (
        lambda: place(perceptron(), {"a": {"kind": "SpatialDropout2D", "rate": 0.1}}),  # a name means its site, whatever fits
        "SpatialDropout2D: inputs must have rank 4, (batch, height, width, channels); got shape (None, 20).\n"
        "Reshape them, or use the layer for this number of axes.",
    ),
    (
        lambda: place(perceptron(), {"hidden": {"kind": "SpatialDropout2D", "rate": 0.1}}),
        f"SpatialDropout2D fits no site of 'hidden'.\nAt a fit: {ON_VECTORS}, TargetedDropout, ThinnedStack.",
    ),
    (
        lambda: place(convolutional(), {"d*": {"kind": "SpatialDropout2D", "rate": 0.1}}),
        "SpatialDropout2D fits no site of 'd*'.\nIt fits x, conv.",
    ),
    (
        lambda: place(perceptron(), {"a": 1.5}),
        "placement: rate must be a number in [0, 1]; got 1.5.\n"
        "rate is the fraction that is dropped: to keep 80 % of the units write 0.2.",
    ),
    (
        lambda: set_rate(perceptron(Dropout(0.1, name="d")), -1),
        "d: rate must be a number in [0, 1]; got -1.\nrate is the fraction that is dropped: to keep 80 % of the units write 0.2.",
    ),
]


def convolutional():
    layers = [L.Conv2D(2, 3, activation="relu", name="conv"), L.Flatten(), L.Dense(4, "relu", name="d"), L.Dense(1)]
    return keras.Sequential([keras.Input((8, 8, 1), name="x"), *layers])


@pytest.mark.parametrize(("act", "message"), MESSAGES)
def test_what_is_wrong_and_how_to_mend_it(act, message):
    with pytest.raises(BadInput) as caught:
        act()
    assert str(caught.value) == message


def test_texts_say_what_stands_at_a_site():
    """As on the command line and in study files."""
    model = place(perceptron(), {"hidden": "GaussianDropout(0.3)", "b": "0.1", "input": "0.05"})
    assert [(d["kind"], d["rate"]) for site in sites(model) for d in site.dropout] == [
        ("Dropout", 0.05),
        ("GaussianDropout", 0.3),
        ("Dropout", 0.1),
    ]
    with pytest.warns(UserWarning, match="Standout acts at prediction too"):
        model = place(perceptron(), {"b": "Standout()"})
    assert [d["kind"] for site in sites(model) for d in site.dropout] == ["Standout"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("linear(0.5, 0)", "belongs to a training"),
        ("Dropout()", "Dropout cannot be made"),
        ("Dropoot(0.1)", "no dropout layer 'Dropoot'"),
        ("Dropout(0.1, rates=3)", "Dropout cannot be made"),
        ("1.5", "must be a number in"),
        ({"kind": "Dropout", "rate": 0.1, "over_depth": True}, "belongs to a training"),
    ],
    ids=str,
)
def test_values_that_cannot_stand_at_a_site_are_refused(value, words):
    with pytest.raises(BadInput, match=words):
        place(perceptron(), {"hidden": value})


def test_an_input_without_a_name_is_found_again_in_the_saved_model():
    """Its tensor has another name in each process; the name of its layer is saved."""
    model = keras.Sequential([keras.Input((3,)), L.Dense(4), L.Dense(2)])
    config = keras.saving.serialize_keras_object(model)
    keras.Input((3,))
    again = keras.saving.deserialize_keras_object(config)
    assert [site.name for site in sites(again)] == [site.name for site in sites(model)]
    placed = place(model, {sites(model)[0].name: 0.2})
    assert sites(placed)[0].name == sites(model)[0].name
    assert [d["rate"] for d in sites(placed)[0].dropout] == [0.2]


@pytest.mark.parametrize(
    ("value", "padding"),
    [
        ({"kind": "TargetedDropout", "rate": 0.5}, "valid"),
        ({"kind": "ConcreteDropout", "rate": 0.1}, "same"),
        ({"kind": "LayerDrop", "rate": 0.5}, "same"),
    ],
)
def test_a_padding_mask_ends_around_a_layer_that_ends_it(value, padding):
    words = keras.Input((6,), dtype="int32")
    convolved = L.Conv1D(4, 3, padding=padding, name="conv")(L.Embedding(9, 4, mask_zero=True)(words))
    model = keras.Model(words, L.Dense(2)(L.GlobalAveragePooling1D()(convolved)))
    x = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 0, 0, 0, 0]])
    np.testing.assert_array_equal(place(model, {"conv": value}).predict(x, verbose=0), model.predict(x, verbose=0))


def test_a_sequential_model_that_masks_padding():
    layers = [L.Embedding(9, 8, mask_zero=True), L.GlobalAveragePooling1D(), L.Dense(8, "relu", name="d"), L.Dense(2)]
    model = keras.Sequential([keras.Input((4,), dtype="int32"), *layers])
    x = np.array([[1, 2, 0, 0], [3, 4, 5, 6]])
    placed = place(model, {"d": 0.2})
    assert [type(layer).__name__ for layer in placed.layers][-3:] == ["Dense", "Dropout", "Dense"]
    np.testing.assert_array_equal(placed.predict(x, verbose=0), model.predict(x, verbose=0))
    np.testing.assert_array_equal(strip(placed).predict(x, verbose=0), model.predict(x, verbose=0))


PAD = -1.0


def padded():
    """Sequences of different length, and which of their steps are real."""
    real = np.arange(6) < np.arange(2, 6)[:, None]
    return np.where(real[..., None], np.random.default_rng(0).normal(size=(4, 6, 3)), PAD).astype("float32"), real


def masking():
    return keras.Sequential([keras.Input((6, 3), name="x"), L.Masking(PAD), L.LSTM(4), L.Dense(1)])


def masking_behind_rescaling():
    inputs = keras.Input((6, 3), name="x")
    return keras.Model(inputs, L.Dense(1)(L.LSTM(4)(L.Masking(2 * PAD)(L.Rescaling(2.0)(inputs)))))


def mask_by_hand():
    inputs = keras.Input((6, 3), name="x")
    return keras.Model(inputs, L.Dense(1)(L.LSTM(4)(inputs, mask=ops.any(ops.not_equal(inputs, PAD), -1))))


def masking_on_one_of_two_ways():
    inputs = keras.Input((6, 3), name="x")
    return keras.Model(inputs, L.Dense(1)(L.Concatenate()([L.LSTM(4)(L.Masking(PAD)(inputs)), L.Flatten()(inputs)])))


class OwnMask(L.Layer):
    """Makes a mask, as Masking does, and keeps its inputs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        return x + 0.0

    def compute_mask(self, x, mask=None):
        return ops.any(ops.not_equal(x, PAD), -1)


def own_mask():
    inputs = keras.Input((6, 3), name="x")
    return keras.Model(inputs, L.Dense(1)(L.LSTM(4)(OwnMask(name="own")(inputs))))


@pytest.mark.parametrize("build", [masking, masking_behind_rescaling, mask_by_hand, masking_on_one_of_two_ways, own_mask])
def test_padding_stays_padding_when_the_input_is_dropped(build):
    """The mask that reaches the LSTM in training is that of the data."""
    x, real = padded()
    model = place(build(), {"input": Dropout(0.5, seed=1)})
    masks = []

    class Looking(L.LSTM):
        def call(self, sequences, initial_state=None, mask=None, training=False):
            masks.append(mask)
            return super().call(sequences, initial_state, mask, training)

    lstm = next(layer for layer in model._flatten_layers() if isinstance(layer, L.LSTM))
    lstm.__class__ = Looking
    one = ops.convert_to_numpy(model(x, training=True))
    assert np.abs(one - ops.convert_to_numpy(model(x))).max() > 1e-4
    for mask in masks:
        np.testing.assert_array_equal(ops.convert_to_numpy(mask), real)


def test_the_input_site_is_behind_what_prepares_and_masks():
    behind = {"masking", "rescaling", "own"}
    for build in (masking, masking_behind_rescaling, own_mask):
        (site,) = (site for site in sites(build()) if site.group == "input")
        assert {name.rstrip("_0123456789") for name in site.behind} <= behind
        assert site.behind
    inputs = keras.Input((3,), name="x", dtype="uint8")
    model = keras.Model(inputs, L.Dense(1)(ops.subtract(ops.divide(ops.cast(inputs, "float32"), 127.5), 1.0)))
    placed = place(model, {"input": 0.5})
    assert [type(call).__name__ for call in (node.operation for node in nodes(placed))] == [
        "Cast",
        "Divide",
        "Subtract",
        "Dropout",
        "Dense",
    ]


class Tied(L.Layer):
    """An embedding that gives logits with its own weights, as in GPT-2."""

    def build(self, shape):
        self.table = self.add_weight(shape=(5, 8), name="table")

    def call(self, x, reverse=False):
        return ops.matmul(x, ops.transpose(self.table)) if reverse else ops.take(self.table, x, axis=0)


def tied():
    words, table = keras.Input((4,), dtype="int32", name="x"), Tied(name="table")
    return keras.Model(words, table(L.Dense(8, "tanh", name="d")(table(words)), reverse=True))


def used_for_an_output_first():
    """In the order of the graph the call for an output comes before the other one."""
    inputs, shared = keras.Input((8,), name="x"), L.Dense(8, name="table")
    return keras.Model(
        inputs, [shared(inputs), L.Dense(1, name="out")(L.Dense(8, "tanh", name="d")(shared(L.Dense(8, name="e")(inputs))))]
    )


@pytest.mark.parametrize("build", [tied, used_for_an_output_first])
def test_a_layer_that_is_called_for_an_output_too_is_dropped_at_its_other_calls_only(build):
    model = build()
    (site,) = (site for site in sites(model) if site.name == "table")
    assert site.group == "hidden"
    assert "DropConnect" not in site.methods
    for pattern in ("table", "hidden", "all"):
        placed = place(model, {pattern: 0.5})
        x = np.ones((16, *model.input_shape[1:]), model.inputs[0].dtype)
        outputs = [ops.convert_to_numpy(each) for each in keras.tree.flatten(placed(x, training=True))]
        assert all((each == 0).mean() < 0.2 for each in outputs)  # on the outputs it would be half of them
    drops = [node for node in nodes(place(model, {"table": 0.5})) if is_dropout(node.operation)]
    assert [node.input_tensors[0]._keras_history.operation.name for node in drops] == ["table"]
    with pytest.raises(BadInput, match="'table' is called for an output too"):
        place(model, {"table": {"kind": "LayerDrop", "rate": 0.5}})


def block(name):
    return keras.Sequential([keras.Input((8,)), L.Dense(8, "relu", name="dense"), Dropout(0.1, name="drop")], name=name)


def three_blocks():
    return keras.Sequential([keras.Input((8,)), *map(block, "abc"), L.Dense(1)])


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0.5, [0.5, 0.5, 0.5]),
        ({"a/dense": 0.7}, [0.7, 0.1, 0.1]),
        ({"b/drop": 0.7}, [0.1, 0.7, 0.1]),
        ({"drop": 0.7}, [0.7, 0.7, 0.7]),
        ({"[ac]/*": 0.7}, [0.7, 0.1, 0.7]),
        ({"hidden": 0.3, "c/drop": 0.0}, [0.3, 0.3, 0.0]),
    ],
)
def test_rates_of_layers_of_one_name_are_told_apart(rate, expected):
    model = three_blocks()
    set_rate(model, rate)
    assert [model.get_layer(name).get_layer("drop").rate for name in "abc"] == expected


def attending(**options):
    inputs = keras.Input((4, 8))
    x = L.MultiHeadAttention(2, 4, name="mha", **options)(inputs, inputs)
    return keras.Model(inputs, L.Dense(1)(L.Dense(8, "relu", name="d")(x)))


def test_rates_are_set_beside_an_attention_without_dropout():
    """It has a Keras Dropout of rate 0 inside."""
    model = place(attending(dropout=0.2), {"d": 0.1})
    set_rate(model, 0.5)
    assert [layer.rate for layer in model.layers if is_dropout(layer)] == [0.5]
    with pytest.raises(BadInput, match=r"the rate of 'mha/dropout.*', a Dropout of keras"):
        set_rate(attending(dropout=0.2), 0.5)


def test_an_option_that_cannot_be_set_in_place_is_said_to_be_one():
    model = keras.Sequential([keras.Input((4, 3)), L.LSTM(4, dropout=0.2, name="lstm"), Dropout(0.1, name="d"), L.Dense(1)])
    for rate in (0.5, {"lstm": 0.5}):
        with pytest.raises(BadInput, match="the rate of 'lstm', a LSTM of keras, cannot be changed in place"):
            set_rate(model, rate)
    set_rate(model, {"d": 0.5})
    assert model.get_layer("d").rate == 0.5


def own_loss(y, out):
    return ops.mean(ops.square(y - out) * 3.0, axis=-1)


def own_metric(y, out):
    return ops.mean(ops.abs(y - out), axis=-1)


class Plain(keras.Model):
    def __init__(self):
        super().__init__()
        self.body, self.drop, self.out = L.Dense(8, "relu", name="body"), L.Dropout(0.1), L.Dense(1, name="out")
        self(np.ones((2, 4), "float32"))

    def call(self, x, training=False):
        return self.out(self.drop(self.body(x), training=training))


@pytest.mark.parametrize("loss", [own_loss, lambda y, out: own_loss(y, out)], ids=["function", "lambda"])
@pytest.mark.parametrize("build", [Plain, lambda: keras.Sequential([keras.Input((4,)), L.Dense(8, name="body"), L.Dense(1)])])
def test_a_loss_and_a_metric_of_ones_own_are_kept(build, loss):
    model = build()
    model.compile(keras.optimizers.Adam(0.125), loss, metrics=[own_metric, keras.metrics.MeanMetricWrapper(own_metric, name="m")])
    assert "body" in [site.name for site in sites(model)]
    x, y = np.random.default_rng(0).normal(size=(8, 4)).astype("float32"), np.ones((8, 1), "float32")
    model.evaluate(x, y, verbose=0)
    for new in (strip(model), place(model, {"body": 0.2})):
        assert new.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))
        expected = ops.convert_to_numpy(ops.mean(loss(ops.convert_to_tensor(y), new(x))))
        assert new.evaluate(x, y, verbose=0)[0] == pytest.approx(float(expected), rel=1e-5)
        assert new.optimizer is not model.optimizer
        assert float(ops.convert_to_numpy(new.optimizer.learning_rate)) == 0.125


@keras.saving.register_keras_serializable("mine")
class Backbone(keras.Model):
    """A functional model that is made from sizes, as those of KerasHub."""

    def __init__(self, width=8, **options):
        inputs = keras.Input((8,))
        x = L.Dropout(0.1)(L.Dense(width, "relu", name="body")(inputs))
        super().__init__(inputs=inputs, outputs=x, **options)
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name}


@keras.saving.register_keras_serializable("mine")
class Ignoring(Backbone):
    """It takes inputs and outputs, and makes layers of its own all the same."""

    def __init__(self, inputs=None, outputs=None, width=8, name=None):
        super().__init__(width, name=name)


@keras.saving.register_keras_serializable("mine")
class OwnSequential(keras.Sequential):
    pass


@pytest.mark.parametrize("cls", [Backbone, Ignoring])
def test_a_functional_model_of_a_class_with_its_own_constructor_keeps_its_class_or_where_nested_its_layers(cls):
    whole, x = cls(name="backbone"), np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
    inputs = keras.Input((8,))
    nested = keras.Model(inputs, L.Dense(2)(L.Dense(8, "relu", name="head")(whole(inputs))))
    kept = place(whole, {"body": 0.5})
    assert isinstance(kept, cls)
    with pytest.warns(UserWarning, match=f"{cls.__name__} 'backbone' has a constructor of its own"):
        placed = place(nested, {"head": 0.5})
    for model, new in ((whole, kept), (nested, placed)):
        np.testing.assert_array_equal(ops.convert_to_numpy(new(x)), ops.convert_to_numpy(model(x)))
        assert [layer.rate for layer in new._flatten_layers() if is_dropout(layer) and layer.rate] == [0.5]
        assert [w.path for w in new.weights] == [w.path for w in model.weights]


def test_what_is_untouched_keeps_its_class_and_so_does_a_sequential_one():
    inputs = keras.Input((8,))
    inner = OwnSequential([keras.Input((8,)), L.Dense(8, name="within")], name="inner")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = keras.Model(inputs, L.Dense(2)(inner(inputs)))
        for placement in ({}, {"inner/within": 0.5}):
            assert type(place(model, placement).get_layer("inner")) is OwnSequential


@keras.saving.register_keras_serializable("mine")
class Gan(keras.Model):
    def __init__(self, discriminator):
        super().__init__()
        self.discriminator = discriminator

    def train_step(self, data):
        raise NotImplementedError

    def call(self, x):
        return self.discriminator(x)


@keras.saving.register_keras_serializable("mine")
class Lacks(L.Layer):
    """Its get_config lacks an argument."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def call(self, x):
        return x

    def get_config(self):
        return super().get_config()


def test_ways_out_work_when_they_are_followed():
    model = Gan(perceptron())
    model(np.ones((2, 4, 4), "float32"))
    with pytest.raises(BadInput, match="with train_step of its own") as caught:
        strip(model)
    way_out = str(caught.value).splitlines()[1]
    assert way_out == (
        "Take a model in it: new = keras_dropout.place(model.discriminator, {'hidden': 0.2}), and build Gan with new."
    )
    new = eval(way_out.partition("new = ")[2].partition(", and")[0], {"keras_dropout": keras_dropout, "model": model})
    assert [layer.rate for layer in Gan(new)._flatten_layers() if is_dropout(layer)] == [0.2, 0.2]
    with pytest.raises(BadInput) as caught:
        strip(keras.Sequential([keras.Input((4,)), Lacks(3, name="l"), L.Dense(3)]))
    assert str(caught.value) == (
        "Lacks 'l' cannot be copied: its get_config lacks 'width', which its constructor needs.\n"
        "Fix Lacks.get_config: it returns all arguments of the constructor, {**super().get_config(), 'width': self.width}."
    )
    with pytest.raises(BadInput, match="Lacks 'l' cannot be copied"):
        place(perceptron(), {"a": Lacks(3, name="l")})
    hidden = keras.Sequential([keras.Input((4,)), Hidden(), L.Dense(3)])
    with pytest.raises(BadInput, match=r"Adopt the model first: keras_dropout\.adopt\(model\)"):
        set_rate(hidden, 0.2)
    keras_dropout.adopt(hidden)
    set_rate(hidden, 0.2)


@keras.saving.register_keras_serializable("mine")
class MoreWeights(L.Layer):
    """With dropout it has a weight more."""

    def __init__(self, dropout=0.5, **kwargs):
        super().__init__(**kwargs)
        self.dropout = dropout

    def build(self, shape):
        self.scales = [self.add_weight(shape=(), initializer="ones") for _ in range(2 if self.dropout else 1)]

    def call(self, x):
        return x * self.scales[0]

    def get_config(self):
        return {**super().get_config(), "dropout": self.dropout}


def test_a_layer_whose_weights_depend_on_its_dropout_is_refused():
    with pytest.raises(BadInput, match="MoreWeights 'm', made again with its dropout off, has other weights"):
        strip(keras.Sequential([keras.Input((4,)), MoreWeights(name="m"), L.Dense(1)]))


@keras.saving.register_keras_serializable("test_placement")
class Sly(L.Layer):
    """Says of itself what is code, once it is in the memory of a program."""

    def __init__(self, function=None, **kwargs):
        super().__init__(**kwargs)
        self.function = None

    def call(self, x):
        return x

    def get_config(self):
        code = keras.saving.serialize_keras_object(lambda x: x) if self.function else None
        return super().get_config() | {"function": code}

    @classmethod
    def from_config(cls, config):
        function = config.pop("function")
        return cls(function and keras.saving.deserialize_keras_object(function), **config)


def test_code_is_copied_with_a_model_of_the_program_and_not_with_one_from_a_file(tmp_path):
    from keras_dropout.models.targets import load_model

    def sly():
        return keras.Sequential([keras.Input((2,)), Sly(), L.Dense(2, name="d"), L.Dense(1)])

    mine = sly()
    mine.save(tmp_path / "model.keras")
    loaded = load_model(str(tmp_path / "model.keras"))
    for model in (mine, loaded):
        model.layers[0].function = True
    assert place(mine, {"d": 0.1}).count_params() == mine.count_params()
    with pytest.raises(BadInput, match="deserialization of a Python lambda"):
        place(loaded, {"d": 0.1})
    loaded.layers[0].function = None
    assert place(loaded, {"d": 0.1}).count_params() == mine.count_params()


ACTIVATED = """
import keras

class Block(keras.layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(4)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return keras.ops.{}(self.dense(x))
"""


def of_module(name, activation):
    module = types.ModuleType(name)
    exec(ACTIVATED.format(activation), vars(module))
    return module.Block


def times(factor):
    def act(x):
        return factor * x

    return act


def relu(x):
    return 2 * ops.relu(x)


class Decay(keras.regularizers.Regularizer):
    def __call__(self, x):
        return ops.sum(x)

    def get_config(self):
        return {}


class Makes(L.Layer):
    """Makes a function for itself: of one name in each layer, and in no configuration."""

    def __init__(self, factor, **options):
        super().__init__(**options)
        self.factor = factor

        def act(x):
            return factor * x

        self.act = act

    def call(self, x):
        return self.act(x)

    def get_config(self):
        return super().get_config() | {"factor": self.factor}


def two_layers(one, other):
    return keras.Sequential([keras.Input((4,)), one, other, L.Dense(1)])


def same_predictions(model, other, atol=0.0):
    x = np.random.default_rng(0).normal(size=(8, *model.input_shape[1:]))
    np.testing.assert_allclose(other.predict(x, verbose=0), model.predict(x, verbose=0), rtol=0, atol=atol)


def test_two_classes_or_functions_of_one_name_do_not_become_one():
    one, other = of_module("one", "relu"), of_module("other", "tanh")
    first, second = times(2.0), times(3.0)
    for model, words, twin in [
        (two_layers(one(), other()), "classes are saved as 'Block', one.Block and other.Block", other),
        (two_layers(L.Dense(4, first), L.Dense(4, second)), "functions are saved as 'act'", second),
        (two_layers(L.Dense(4, relu), L.Dense(4, "relu")), r"has test_placement.relu, and would have keras\S*relu", relu),
    ]:
        for change in (strip, lambda model: place(model, {"hidden": 0.2})):
            with pytest.raises(BadInput, match=words):
                change(model)
        keras.saving.register_keras_serializable("test_placement", name=f"own_{words[:4]}")(twin)
        same_predictions(model, strip(model))
        same_predictions(model, place(model, {"hidden": 0.2}))


def test_functions_that_are_in_no_configuration_may_have_one_name():
    model = two_layers(Makes(2.0), Makes(3.0))
    same_predictions(model, strip(model))


def test_a_class_that_was_registered_again_is_not_put_in_the_place_of_the_models():
    register = keras.saving.register_keras_serializable("test_placement", name="Again")
    model = two_layers(register(of_module("before", "relu"))(), L.Dense(4))
    register(of_module("after", "tanh"))
    with pytest.raises(BadInput, match=r"has before\.Block, and would have after\.Block"):
        strip(model)


def test_what_is_not_registered_is_found_where_it_is_used():
    function = times(2.0)
    model = two_layers(L.Dense(4, function, kernel_regularizer=Decay()), L.Dense(4))
    placed = place(model, {"hidden": 0.2})
    assert placed.layers[0].activation is function
    assert isinstance(placed.layers[0].kernel_regularizer, Decay)
    same_predictions(model, placed)


def test_a_metric_of_a_lambda_is_told_to_be_a_function():
    model = perceptron()
    model.compile("sgd", "mse", metrics=[keras.metrics.MeanMetricWrapper(lambda y, out: y - out, name="off")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(BadInput, match="Write the lambda as a function: def"):
            strip(model)


@keras.saving.register_keras_serializable("test_placement")
class PartlyFrozen(L.Layer):
    def __init__(self, dropout=0.2, **options):
        super().__init__(**options)
        self.dropout, self.a, self.b = dropout, L.Dense(8, name="a"), L.Dense(8, name="b")
        self.drop = L.Dropout(dropout) if dropout else None

    def build(self, shape):
        self.a.build(shape)
        self.b.build(shape)

    def call(self, x, training=False):
        x = self.a(x)
        return self.b(x if self.drop is None else self.drop(x, training=training))

    def get_config(self):
        return super().get_config() | {"dropout": self.dropout}


def test_what_is_frozen_inside_a_layer_stays_frozen_when_it_is_made_again():
    block, lstm = PartlyFrozen(), L.LSTM(4, dropout=0.2)
    model = keras.Sequential([keras.Input((6, 8)), block, lstm, L.Dense(3), L.Dense(1)])
    model.layers[2].kernel.trainable = False  # one weight of a layer
    block.a.trainable = lstm.cell.trainable = False
    count = len(model.trainable_variables)
    assert count == 5
    for made in (copy(model), strip(model), place(model, {"hidden": 0.3})):
        assert [v.path for v in made.trainable_variables] == [v.path for v in model.trainable_variables]
        made.compile("sgd", "mse")
        before = [np.array(w) for w in made.get_weights()]
        made.train_on_batch(np.ones((4, 6, 8)), np.ones((4, 1)))
        moved = [not np.array_equal(a, b) for a, b in zip(before, made.get_weights(), strict=True)]
        assert sum(moved[:2]) == sum(moved[4:7]) == moved[7] == 0
        assert moved[2]


def masking_behind_a_layer_on_one_of_two_ways():
    inputs = keras.Input((6, 3), name="x")
    h = L.Dense(3, name="h", kernel_initializer="identity", use_bias=False)(inputs)
    return keras.Model(inputs, L.Dense(1)(L.Concatenate()([L.LSTM(4)(L.Masking(PAD)(h)), L.Dense(2)(L.Flatten()(h))])))


def masking_behind_a_layer():
    dense = L.Dense(3, kernel_initializer="identity", use_bias=False)
    return keras.Sequential([keras.Input((6, 3)), L.TimeDistributed(dense, name="h"), L.Masking(PAD), L.LSTM(4), L.Dense(1)])


@pytest.mark.parametrize("build", [masking_behind_a_layer, masking_behind_a_layer_on_one_of_two_ways])
def test_dropout_of_a_layer_is_not_passed_by_a_masking_behind_it(build):
    """What the LSTM gets is dropped, and its mask is that of the layer's outputs as they were."""
    x, real = padded()
    model = place(build(), {"h": 0.5})
    same_predictions(build_with(build, model), model)
    got = []

    class Looking(L.LSTM):
        def call(self, sequences, initial_state=None, mask=None, training=False):
            got.append([ops.convert_to_numpy(each) for each in (sequences, mask)])
            return super().call(sequences, initial_state, mask, training)

    lstm = next(layer for layer in model._flatten_layers() if isinstance(layer, L.LSTM))
    lstm.__class__ = Looking
    model(x, training=True)
    (sequences, mask), *more = got
    assert not more
    np.testing.assert_array_equal(mask, real)
    assert 0.2 < (sequences[real] == 0).mean() < 0.8
    kept = sequences[real] != 0
    np.testing.assert_allclose(sequences[real][kept], 2 * x[real][kept], rtol=1e-5)


def build_with(build, like):
    model = build()
    model.set_weights(like.get_weights())
    return model


def test_a_layer_as_a_key_that_is_no_dropout_is_refused():
    model = place(perceptron(), {"a": 0.1})
    for key in (model.get_layer("a"), 3):
        with pytest.raises(BadInput, match="is no dropout layer in the model") as found:
            set_rate(model, {key: 0.5})
        assert "Its dropout layers: dropout" in str(found.value)
    layer = next(layer for layer in model.layers if is_dropout(layer))
    set_rate(model, {layer: 0.5})
    assert layer.rate == 0.5


def test_warnings_name_the_line_of_the_caller_and_not_what_cannot_be_done():
    model = keras.Sequential([keras.Input((8,)), L.GaussianNoise(0.1, name="noise"), L.Dense(4), L.Dense(1)])
    for change in (strip, lambda model: place(model, {"hidden": 0.2})):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always", UserWarning)
            change(model)
        said = [each for each in found if each.category is UserWarning]
        assert [str(each.message) for each in said] == [
            "GaussianNoise 'noise' stays: it adds noise in training, and is no dropout."
        ]
        assert said[0].filename == __file__


def test_many_ways_through_a_model_are_walked_once():
    x = inputs = keras.Input((4,))
    for _ in range(60):
        x = L.Add()([L.Activation("relu")(x), L.Activation("tanh")(x)])
    model = keras.Model(inputs, L.Dense(1)(Dropout(0.5, name="drop")(x)))
    (site, _) = sites(model)
    assert [each["layer"] for each in site.dropout] == ["drop"]


@keras.saving.register_keras_serializable("test_placement")
class Attending(L.Layer):
    def __init__(self, dropout=0.1, **options):
        super().__init__(**options)
        self.dropout, self.attention = dropout, L.MultiHeadAttention(2, 8, dropout=dropout)

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, x, training=False):
        return x + self.attention(x, x, training=training)

    def get_config(self):
        return super().get_config() | {"dropout": self.dropout}


@pytest.mark.parametrize("steps", [6, 64])
def test_a_block_with_attention_dropout_inside_is_placed_and_stripped(steps):
    model = keras.Sequential([keras.Input((steps, 16)), Attending(name="block"), L.Flatten(), L.Dense(1)])
    bare = strip(model)
    assert bare.layers[0].attention.get_config()["dropout"] == 0
    same_predictions(model, bare, atol=1e-5)
    same_predictions(model, place(model, {"block": 0.2}), atol=1e-5)
    x = np.random.default_rng(0).normal(size=(4, steps, 16))
    np.testing.assert_array_equal(*(ops.convert_to_numpy(bare(x, training=on)) for on in (True, True)))


def test_a_group_passes_over_a_layer_whose_output_leads_nowhere():
    """As an encoder of which only the states are used."""
    sentence, replies = keras.Input((4, 3)), keras.Input((4, 3))
    _, *states = L.LSTM(5, return_state=True, name="encoder")(sentence)
    decoded = L.LSTM(5, return_sequences=True, name="decoder")(replies, initial_state=states)
    model = keras.Model([sentence, replies], L.Dense(2, name="words")(decoded))
    methods = {site.name: site.methods for site in sites(model)}
    assert "Dropout" not in methods["encoder"]
    assert {"RecurrentDropout", "Zoneout"} <= set(methods["encoder"])
    placed = place(model, {"hidden": 0.5})
    assert {site.name: len(site.dropout) for site in sites(placed) if site.group == "hidden"} == {"encoder": 0, "decoder": 1}
    with pytest.raises(BadInput, match="nothing uses the output of 'encoder'"):
        place(model, {"encoder": 0.5})
