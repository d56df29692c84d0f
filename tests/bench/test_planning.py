"""What cannot be studied is refused before anything is trained or written; and how the engine is chosen."""

import ast
import re

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from scipy import sparse

import keras_dropout
from keras_dropout.bench.compare import carry_out, make_plan
from keras_dropout.bench.execution import scheduler, timing
from keras_dropout.bench.ledger.lookup import examples
from keras_dropout.bench.records import Variant
from keras_dropout.bench.study.loading import named_data
from keras_dropout.bench.study.planning import _renamed
from keras_dropout.bench.training.build import make
from keras_dropout.errors import BadInput

L = keras.layers
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="plans are made for the compiled engine")

_rng = np.random.default_rng(0)
X = _rng.normal(size=(80, 4)).astype("float32")
LABELS = np.arange(80) % 3
ONE_HOT = np.eye(3, dtype="float32")[LABELS]


def perceptron(loss="sparse_categorical_crossentropy", width=3, **settings):
    layers = [keras.Input((4,), name="row"), L.Dense(6, "relu"), L.Dense(width, settings.pop("activation", "softmax"))]
    model = keras.Sequential(layers, name="mine")
    if loss is not None:
        model.compile("sgd", loss, **settings)
    return model


def regression(width=1):
    return perceptron("mse", width, activation=None)


def binary():
    return perceptron("binary_crossentropy", 1, activation="sigmoid")


def steps():
    layers = [keras.Input((4,), dtype="int32"), L.Embedding(2, 3), L.Dense(4), L.Dense(2, "softmax")]
    model = keras.Sequential(layers)
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def two_inputs():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    hidden = L.Dense(4)(L.Add()([a, b]))
    model = keras.Model([a, b], [L.Dense(3, "softmax", name="kind")(hidden), L.Dense(1, name="size")(hidden)])
    model.compile("sgd", {"kind": "sparse_categorical_crossentropy", "size": "mse"})
    return model


def pair(x, y, *weights):
    cut = [keras.tree.map_structure(lambda a: a[:60], each) for each in (x, y, *weights)]
    return tuple(cut), tuple(keras.tree.map_structure(lambda a: a[60:], each) for each in (x, y, *weights))


def changed(array, value, row=3):
    array = array.copy()
    array[row] = value
    return array


BOTH = {"kind": LABELS, "size": X[:, 0]}
SETTINGS = {"engine": "compiled", "batch_size": 8, "seeds": 1, "epochs": 1}


def planned(model, data, tmp_path, **settings):
    return make_plan(model, data, ledger=tmp_path / "r.db", **(SETTINGS | settings))


LABELLED = pair(X, LABELS)
REFUSALS = {  # name: (model, data, settings, words of the first line)
    "nan in a feature": (
        perceptron,
        lambda: pair(changed(X, np.nan), LABELS),
        {},
        "inputs hold nan or infinity, in 1 of 60",
    ),
    "infinity in the test data": (perceptron, lambda: pair(changed(X, np.inf, 70), LABELS), {}, "test inputs hold nan or infinity"),
    "nan in a named input": (
        two_inputs,
        lambda: pair({"a": X, "b": changed(X, np.nan)}, BOTH),
        {},
        "training inputs 'b' hold nan",
    ),
    "nan in targets": (regression, lambda: pair(X, changed(X[:, 0], np.nan)), {}, "training targets hold nan"),
    "one class": (perceptron, lambda: pair(X, LABELS * 0 + 2), {}, "training targets are all the same (2)"),
    "one class, one-hot": (
        lambda: perceptron("categorical_crossentropy"),
        lambda: pair(X, ONE_HOT[LABELS * 0]),
        {},
        "are all the same (0)",
    ),
    "constant numbers": (regression, lambda: pair(X, np.full(80, 1.5)), {}, "are all the same (1.5)"),
    "label too large": (perceptron, lambda: pair(X, LABELS + 1), {}, "from 0 to 2, one for each unit; got 1 to 3"),
    "label in the test data only": (perceptron, lambda: pair(X, changed(LABELS, 7, 70)), {}, "test targets must be class numbers"),
    "negative label": (perceptron, lambda: pair(X, LABELS - 1), {}, "got -1 to 1"),
    "label in a fraction": (perceptron, lambda: pair(X, LABELS + 0.5), {}, "must be class numbers; got"),
    "label of two classes": (binary, lambda: LABELLED, {}, "must lie between 0 and 1 for a binary loss; got 0 to 2"),
    "one-hot for a sparse loss": (perceptron, lambda: pair(X, ONE_HOT), {}, "a sparse loss takes one class number"),
    "numbers for a one-hot loss": (
        lambda: perceptron(keras.losses.CategoricalCrossentropy()),
        lambda: pair(X, LABELS),
        {},
        "have the shape (60,); the model gives (None, 3)",
    ),
    "targets of another width": (lambda: regression(2), lambda: pair(X, X[:, :3]), {}, "the model gives (None, 2)"),
    "targets of one output": (two_inputs, lambda: pair((X, X), LABELS), {}, "has the output(s) kind (None, 3), size (None, 1)"),
    "targets of another name": (
        two_inputs,
        lambda: pair((X, X), {"kind": LABELS, "length": X[:, 0]}),
        {},
        "the training targets are kind (60,), length (60,)",
    ),
    "inputs of another width": (
        perceptron,
        lambda: pair(X[:, :3], LABELS),
        {},
        "takes the shape (None, 4); the training data have (60, 3)",
    ),
    "one input of two": (two_inputs, lambda: pair(X, BOTH), {}, "takes the input(s) a (None, 4), b (None, 4)"),
    "inputs of other names": (two_inputs, lambda: pair({"a": X, "c": X}, BOTH), {}, "the training data have a (60, 4), c (60, 4)"),
    "fewer rows than a batch": (
        perceptron,
        lambda: pair(X, LABELS),
        {"batch_size": 64},
        "54 training examples, fewer",
    ),
    "negative weight": (perceptron, lambda: pair(X, LABELS, changed(np.ones(80), -1)), {}, "weights must be at least 0; got -1.0"),
    "weight nan": (perceptron, lambda: pair(X, LABELS, changed(np.ones(80), np.nan)), {}, "weights must be at least 0; got nan"),
    "weights all 0": (perceptron, lambda: pair(X, LABELS, np.zeros(80)), {}, "weights are all 0"),
    "too few weights": (perceptron, lambda: ((X, LABELS, np.ones(79)), (X, LABELS)), {}, "not the same number of examples"),
    "not compiled": (lambda: perceptron(None), lambda: LABELLED, {}, "'mine' is not compiled"),
    "without a loss": (lambda: no_loss(), lambda: LABELLED, {}, "compiled without a loss"),
    "unknown class": (perceptron, lambda: LABELLED, {"class_weight": {3: 2.0}}, "names the class 3"),
    "class by name": (perceptron, lambda: LABELLED, {"class_weight": {"cat": 2.0}}, "names the class 'cat'"),
    "negative class weight": (
        perceptron,
        lambda: pair(X, LABELS),
        {"class_weight": {1: -2.0}},
        "of at least 0; got -2.0",
    ),
    "unknown word": (perceptron, lambda: LABELLED, {"class_weight": "equal"}, "unknown class weight 'equal'"),
    "class weights in regression": (regression, lambda: pair(X, X[:, 0]), {"class_weight": "balanced"}, "are for classification"),
    "class and sample weights": (
        perceptron,
        lambda: pair(X, LABELS, np.ones(80)),
        {"class_weight": "balanced"},
        "Keras takes one of them",
    ),
    "class weights for two outputs": (
        two_inputs,
        lambda: pair((X, X), BOTH),
        {"class_weight": "balanced"},
        "for models with one",
    ),
    "class weights for several answers": (
        steps,
        lambda: pair((X > 0).astype("int32"), (X > 0).astype("int32")),
        {"class_weight": "balanced"},
        "class weights are for one answer an example; here each has answers of the shape (4,)",
    ),
    "no place for dropout": (lambda: no_hidden_layer(), lambda: LABELLED, {}, "has no place for dropout"),
    "no patience": (
        perceptron,
        lambda: pair(X, LABELS),
        {"early_stopping": 0},
        "must be a whole number of at least 1; got 0",
    ),
    "a seed twice, whatever the data": (perceptron, lambda: "none.csv", {"seeds": [1, 1]}, "the seeds must differ"),
    "no seeds, whatever the data": (perceptron, lambda: "none.csv", {"seeds": []}, "seeds must be a whole number of at least 1"),
    "a seed twice": (perceptron, lambda: LABELLED, {"seeds": [0, 3, 1, 3]}, "the seeds must differ; got 3 more than once"),
    "more seeds than can be listed": (perceptron, lambda: LABELLED, {"seeds": 10**12}, "seeds must be at most 100,000"),
    "more seeds to add than can be listed": (
        perceptron,
        lambda: LABELLED,
        {"seeds": "auto", "max_seeds": 10**12},
        "max seeds must be at most 100,000",
    ),
    "epochs without end": (perceptron, lambda: LABELLED, {"epochs": 10**12}, "epochs must be at most 2,147,483,647"),
    "a rate that is no float": (perceptron, lambda: LABELLED, {"learning_rate": 10**400}, "learning rate must be a number above 0"),
    "a word for another flag": (
        perceptron,
        lambda: LABELLED,
        {"keep_examples": "no"},
        "keep_examples must be True or False; got 'no'",
    ),
    "a word for a flag": (perceptron, lambda: LABELLED, {"keep_weights": "yes"}, "keep_weights must be True or False; got 'yes'"),
    "no file of weights": (perceptron, lambda: LABELLED, {"from_weights": "no.weights.h5"}, "does not exist"),
    "another kind of file": (perceptron, lambda: LABELLED, {"from_weights": "w.pkl"}, "got 'w.pkl'"),
    "a lambda as loss": (lambda: perceptron(lambda y, p: ops.mean(p)), lambda: LABELLED, {}, "holds a lambda"),
    "a layer without a configuration": (
        lambda: with_layer(Mute(2)),
        lambda: LABELLED,
        {},
        "cannot be made again from its configuration: TypeError: Mute",
    ),
    "a layer of a lambda": (lambda: with_layer(L.Lambda(lambda x: x)), lambda: LABELLED, {}, "holds a lambda"),
}


def no_loss():
    model = perceptron(None)
    model.compile("sgd")
    return model


def no_hidden_layer():
    model = keras.Sequential([keras.Input((4,), name="row"), L.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@keras.saving.register_keras_serializable("tests")
class Mute(L.Layer):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def call(self, inputs):
        return inputs


def with_layer(layer):
    model = keras.Sequential([keras.Input((4,)), L.Dense(6), layer, L.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.filterwarnings("ignore:.*lambda")
def test_what_cannot_be_studied_is_refused(name, tmp_path):
    model, data, settings, words = REFUSALS[name]
    with pytest.raises(BadInput) as caught:
        planned(model(), data(), tmp_path, **settings)
    first, _ = str(caught.value).splitlines()
    assert words in first
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_of_weights_in_a_file(tmp_path):
    other = perceptron(width=5)
    other.save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "broken.weights.h5").write_bytes((tmp_path / "other.weights.h5").read_bytes()[:500])
    for name in ("other", "broken"):
        with pytest.raises(BadInput, match="does not fit the model"):
            planned(perceptron(), pair(X, LABELS), tmp_path, from_weights=tmp_path / f"{name}.weights.h5")


def classifier(*layers, shape=(4,)):
    model = keras.Sequential([keras.Input(shape), *layers, L.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[keras.metrics.SparseCategoricalAccuracy()])
    return model


FAR = 100 * X + 5000


def adapted(normalization):
    normalization.adapt(FAR)
    return normalization


@pytest.mark.slow
def test_each_run_has_what_a_layer_was_adapted_to(tmp_path):
    """The runs are those of a layer that is given the same statistics, whatever weights they start from."""
    keras.utils.set_random_seed(0)
    model = classifier(adapted(L.Normalization()), L.Dense(6, "relu"))
    mean, variance = (each.numpy() for each in model.layers[0].variables[:2])
    given = classifier(L.Normalization(mean=mean, variance=variance), L.Dense(6, "relu"))
    given.set_weights(model.get_weights()[3:])
    model.save_weights(tmp_path / "w.weights.h5")
    again = classifier(L.Normalization(), L.Dense(6, "relu"))  # gets all of it from the file

    def losses(model, weights=None):
        plan = planned(model, pair(FAR, LABELS), tmp_path, from_weights=weights, epochs=10, variants={"a": {"hidden": 0.1}})
        found = carry_out(plan, quiet=True)
        return [found.values(name, "test_loss")[0] for name in ("none", "a")]

    begun = losses(model)
    assert max(begun) < 1.5, "of inputs that are not normalized it is above 10"
    assert losses(given) == begun
    assert losses(model, True) == losses(again, tmp_path / "w.weights.h5")
    assert model.layers[0].input_mean is None, "the model is only read"


@keras.saving.register_keras_serializable("tests")
class TwoInside(L.Layer):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.first, self.second = L.Dense(4), L.Dense(4)

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)

    def call(self, x):
        return self.second(self.first(x))


def test_what_is_frozen_inside_a_layer_is_frozen_in_every_run(tmp_path):
    """And has keys of its own; what was not frozen there keeps its keys."""
    block = TwoInside()
    model = keras.Sequential([keras.Input((4,)), block, L.Dense(6, "relu"), L.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    free = planned(model, pair(X, LABELS), tmp_path, variants={"a": {"last": 0.1}})
    assert "trainable" not in free.study.model
    block.first.trainable = False
    frozen = planned(model, pair(X, LABELS), tmp_path, variants={"a": {"last": 0.1}})
    assert not {run.key for run in free.study.runs()} & {run.key for run in frozen.study.runs()}
    for study, count in ((free.study, 8), (frozen.study, 6)):
        for variant in study.variants:
            made, _ = make(study, variant)
            assert len(made.trainable_variables) == count
            before = made.get_weights()
            made.train_on_batch(X, LABELS)
            moved = [not np.array_equal(*pair) for pair in zip(before, made.get_weights(), strict=True)]
            assert moved == [count == 8] * 2 + [True] * 6


@keras.saving.register_keras_serializable("tests")
class NormalizesItself(keras.Model):
    """Functional by its constructor, which makes a new Normalization each time."""

    def __init__(self, **settings):
        x = keras.Input(FAR.shape[1:])
        super().__init__(x, L.Dense(3, "softmax")(L.Dense(6, "relu")(L.Normalization(name="first")(x))), **settings)


class Followed(keras.Model):
    """A class whose call is followed: what its layers were adapted to is kept."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.first, self.hidden, self.last = L.Normalization(name="first"), L.Dense(6, "relu"), L.Dense(3, "softmax")

    def call(self, x):
        return self.last(self.hidden(self.first(x)))


def test_an_adapted_layer_that_a_class_makes_itself_is_refused(tmp_path):
    model = NormalizesItself()
    adapted(model.get_layer("first"))
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(BadInput, match=r"adapted to is not in the model's configuration(.|\n)*Normalization\(mean="):
        planned(model, pair(FAR, LABELS), tmp_path)


def test_what_a_layer_of_a_subclassed_model_was_adapted_to_is_kept(tmp_path):
    model = Followed()
    adapted(model.first)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model(FAR[:2])
    study = planned(model, pair(FAR, LABELS), tmp_path).study
    built, _ = make(study, study.variants[0])
    np.testing.assert_allclose(built.get_layer("first")(FAR), model.first(FAR), rtol=1e-6)


MADE_TWICE = {
    "activation": lambda: classifier(L.Dense(6), L.Activation("relu")),
    "nested": lambda: classifier(keras.Sequential([keras.Input((4,)), L.Dense(6), L.Dense(5)])),
    "bidirectional": lambda: classifier(L.Reshape((4, 1)), L.Bidirectional(L.LSTM(3))),
    "time distributed": lambda: classifier(L.Reshape((4, 1)), L.TimeDistributed(L.Dense(3)), L.Flatten()),
    "cell": lambda: classifier(L.Reshape((4, 1)), L.RNN([L.GRUCell(3), L.GRUCell(2)])),
}


@pytest.mark.parametrize("name", MADE_TWICE)
def test_a_model_that_is_made_twice_has_the_same_runs(name, tmp_path):
    """Keras counts up its automatic names with every layer that is made."""

    def keys():
        return [run.key for run in planned(MADE_TWICE[name](), LABELLED, tmp_path).study.runs()]

    assert keys() == keys()


def test_a_name_that_is_also_a_setting_decides_nothing_but_the_setting_does(tmp_path):
    """The names of two activations are those of what they compute; those of two outputs are those of their losses."""

    def key(model, data):
        return planned(model, data, tmp_path, variants={"first": {"input": 0.1}}).study.runs()[0].key

    found = {key(classifier(L.Dense(6), L.Activation(each, name=each)), LABELLED) for each in ("relu", "tanh")}
    assert len(found) == 2
    assert key(classifier(L.Dense(6), L.Activation("relu", name="first")), LABELLED) in found

    def regressor(loss, name):
        model = keras.Sequential([keras.Input((4,)), L.Dense(6, "relu"), L.Dense(1, name=name)])
        model.compile("sgd", loss)
        return model

    numbers = (X, X[:, :1]), (X[:20], X[:20, :1])
    assert key(regressor("mse", "mse"), numbers) == key(regressor("mse", "out"), numbers)
    assert key(regressor("mse", "mse"), numbers) != key(regressor("mae", "mae"), numbers)


def test_early_stopping_needs_validation_data_of_its_own(tmp_path):
    with pytest.raises(BadInput, match="validation data of their own"):
        make_plan("digits-mlp", split="as-published", early_stopping=3, ledger=tmp_path / "r.db")


@pytest.mark.parametrize(
    ("model", "data", "settings"),
    [
        (perceptron, lambda: pair(X, LABELS[:, None]), {}),
        (perceptron, lambda: pair(X, LABELS.astype("float32")), {}),
        (binary, lambda: pair(X, LABELS > 1), {}),
        (binary, lambda: pair(X, (LABELS > 1)[:, None].astype("float32")), {}),
        (regression, lambda: pair(X, X[:, 0]), {}),
        (lambda: regression(2), lambda: pair(X, X[:, :2]), {}),
        (two_inputs, lambda: pair((X, X), (LABELS, X[:, 0])), {}),
        (two_inputs, lambda: pair({"b": X, "a": X}, BOTH, np.ones(80)), {}),
        (no_hidden_layer, lambda: LABELLED, {"variants": {"input": {"input": 0.2}}}),
        (lambda: perceptron("crossentropy"), lambda: LABELLED, {}),
    ],
)
def test_what_fits_is_planned(model, data, settings, tmp_path):
    assert planned(model(), data(), tmp_path, **settings).study.runs()


def test_the_time_of_a_study_of_one_epoch_counts_all_its_runs(tmp_path):
    plan = planned(regression(), pair(X, X[:, :1]), tmp_path, epochs=1)
    start, each = timing.time_runs(plan.study, plan.data, plan.study.runs()[:1])
    assert 0 < each < start  # in a worker that has nothing to load


def test_balanced_class_weights_are_those_of_scikit_learn(tmp_path):
    utils = pytest.importorskip("sklearn.utils.class_weight")
    labels = np.repeat([0, 1, 2], [50, 20, 10])[np.random.default_rng(1).permutation(80)]
    plan = planned(perceptron(), pair(X, labels), tmp_path, class_weight="balanced")
    y = plan.data.parts("held-out")["train"].y
    expected = utils.compute_class_weight("balanced", classes=np.arange(3), y=y)
    assert list(plan.study.class_weight.values()) == pytest.approx(list(expected))
    assert sum(plan.study.class_weight[label] for label in y) == pytest.approx(len(y))


def test_options_that_are_left_out_leave_the_keys_alone(tmp_path):
    """And each that is used makes other runs."""

    def keys(**settings):
        return planned(perceptron(), pair(X, LABELS), tmp_path, **settings).study.runs()[0].key

    plain = keys()
    assert keys(class_weight=None, early_stopping=None, from_weights=None) == plain
    others = [keys(class_weight={0: 2.0}), keys(class_weight="balanced"), keys(early_stopping=2), keys(early_stopping=3)]
    assert len({plain, *others}) == 5


def test_planning_draws_no_random_number_of_the_reader(tmp_path):
    keras.utils.set_random_seed(3)
    expected = perceptron().get_weights()[0]
    keras.utils.set_random_seed(3)
    model, data = regression(), pair(X, X[:, 0])
    keras.utils.set_random_seed(3)
    planned(model, data, tmp_path)
    np.testing.assert_array_equal(perceptron().get_weights()[0], expected)


SOURCE = """
import keras, numpy as np
from keras import ops

@keras.saving.register_keras_serializable("mine")
class OwnLayer(keras.layers.Layer):
    def call(self, inputs):
        return ops.tanh(inputs)

@keras.saving.register_keras_serializable("mine")
def own_loss(y, predictions):
    return ops.mean(ops.square(ops.reshape(y, (-1, 1)) - predictions), -1)

@keras.saving.register_keras_serializable("mine")
class ByHand(keras.optimizers.SGD):
    def update_step(self, gradient, variable, learning_rate):
        scale = 1.0 if np.isfinite(np.asarray(gradient)).all() else 0.0
        super().update_step(gradient * scale, variable, learning_rate)

def build(optimizer="sgd"):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6), OwnLayer(), keras.layers.Dense(1)])
    model.compile(optimizer, own_loss, run_eagerly=optimizer != "sgd")
    return model

def by_hand():
    return build(ByHand(0.1))
"""


def test_a_models_own_file_is_run_in_the_workers_too(tmp_path):
    (tmp_path / "model.py").write_text(SOURCE)
    target, settings = f"{tmp_path / 'model.py'}:build", {"variants": {"half": {"hidden": 0.5}}, "workers": 1}
    plan = planned(target, pair(X, X[:, 0]), tmp_path, **settings)
    assert [result.status for result in carry_out(plan, quiet=True).results.values()] == ["done", "done"]
    (tmp_path / "model.py").write_text(SOURCE + "# changed")
    assert plan.study.runs()[0].key != planned(target, pair(X, X[:, 0]), tmp_path, **settings).study.runs()[0].key


def test_what_cannot_be_compiled_is_refused_or_trained_by_fit(tmp_path):
    (tmp_path / "model.py").write_text(SOURCE)
    target, data = f"{tmp_path / 'model.py'}:by_hand", pair(X, X[:, 0])
    with pytest.raises(BadInput, match="the compiled engine cannot train this model: TracerArrayConversionError"):
        planned(target, data, tmp_path)
    plan = planned(target, data, tmp_path, engine="auto")
    assert plan.study.engine == "reference"
    assert "compiled cannot train this model (TracerArrayConversionError" in plan.engine_reason


def test_the_engine_is_measured_once_and_then_kept(tmp_path, monkeypatch):
    """Whatever a second measurement would find, more seeds and other variants included."""
    data = pair(X, LABELS)
    plan = planned(perceptron(), data, tmp_path, engine="auto", variants={"a": {"hidden": 0.5}}, workers=1)
    assert plan.study.engine in plan.engine_reason
    assert "ms a step" in plan.engine_reason
    document = carry_out(plan, quiet=True).document()
    assert document["study"]["engine_reason"] == plan.engine_reason
    for engine in ("compiled", "reference"):
        times = {"compiled": 1.0, "reference": 1.0, engine: 0.5}
        monkeypatch.setattr(timing, "time_engines", lambda *_, times=times: times)
        again = planned(perceptron(), data, tmp_path, engine="auto", variants={"b": {"last": 0.1}}, seeds=3)
        assert again.study.engine == plan.study.engine
        assert "in the ledger" in again.engine_reason
        other = planned(perceptron(), data, tmp_path, engine="auto", epochs=2)
        assert other.study.engine == engine
        assert f"{engine}: 500 ms a step" in other.engine_reason


def test_tensorflow_is_timed_too_where_a_model_convolves(tmp_path, monkeypatch):
    """Unless a backend is given; and what was taken once is taken again."""

    def times(study, data, run, engines):
        asked.append((study.backend, engines))
        return dict.fromkeys(engines, 0.1 if study.backend == "tensorflow" else 0.5)

    monkeypatch.setattr(timing, "time_engines", times)
    layers = [keras.Input((4, 4, 1)), L.Conv2D(3, 3, activation="relu"), L.Flatten(), L.Dense(6, "relu"), L.Dense(3, "softmax")]
    model = keras.Sequential(layers)
    model.compile("sgd", "sparse_categorical_crossentropy")
    data = pair(np.repeat(X, 4, 1).reshape(80, 4, 4, 1), LABELS)
    both = {"engine": "auto", "workers": 1}

    asked = []
    plan = planned(model, data, tmp_path, **both)
    assert asked == [("jax", ("compiled", "reference")), ("tensorflow", ("reference",))]
    assert (plan.study.backend, plan.study.engine) == ("tensorflow", "reference")
    assert plan.engine_reason.startswith("reference on tensorflow: 100 ms a step, 500 ms in compiled")
    found = carry_out(plan, quiet=True)
    assert found.document()["study"]["backend"] == "tensorflow"
    assert {result.status for result in found.results.values()} == {"done"}

    asked = []
    again = planned(model, data, tmp_path, **both, seeds=2)
    assert (again.study.backend, asked) == ("tensorflow", [])
    assert planned(model, data, tmp_path, **both, backend="jax", epochs=2).study.backend == "jax"
    assert asked == [("jax", ("compiled", "reference"))]
    planned(perceptron(), LABELLED, tmp_path, **both)
    assert asked[1:] == [("jax", ("compiled", "reference"))]


@pytest.mark.parametrize("keep", [True, False])
def test_test_examples_are_kept_unless_told_not_to(tmp_path, monkeypatch, keep):
    monkeypatch.setattr(scheduler.Execution, "train", lambda *_: iter(()))
    settings = {} if keep else {"keep_examples": False}
    plan = make_plan(perceptron(), ((X, LABELS), (X, LABELS)), seeds=1, engine="compiled", ledger=tmp_path / "r.db", **settings)
    carry_out(plan, quiet=True)
    kept = examples(tmp_path / "r.db", plan.study.data.fingerprint)
    assert (kept is not None) == keep


ASKED = {  # what `variants` may be, and the placements of what is compared with the baseline
    "a mapping": ({"a": {"hidden": 0.3}}, {"a": 0.3}),
    "texts": ({"a": "hidden=0.3", "b=c": "last=0.4"}, {"a": 0.3, "b=c": 0.4}),
    "as built": ({"a": None}, {"a": None}),
    "ready ones of a mapping": ({"hidden": "hidden", "last": True}, {"hidden": 0.2, "last": 0.2}),
    "numbers of NumPy": ({"a": {"hidden": np.float32(0.5)}}, {"a": 0.5}),
    "a list": (["last", "a=hidden=0.3"], {"last": 0.2, "a": 0.3}),
    "a tuple of variants": ((Variant.of("a", {"hidden": 0.3}),), {"a": 0.3}),
    "a set": ({"last", "hidden"}, {"hidden": 0.2, "last": 0.2}),
    "one name": ("last", {"last": 0.2}),
    "one text": ("a=hidden=0.3", {"a": 0.3}),
    "none": (None, {"hidden": 0.2, "last": 0.2}),
    "an empty list": ([], {"hidden": 0.2, "last": 0.2}),
}


@pytest.mark.parametrize("name", ASKED)
def test_variants_in_every_form_that_says_name_and_site(name, tmp_path):
    asked, expected = ASKED[name]
    _, *variants = planned(perceptron(), LABELLED, tmp_path, variants=asked).study.variants
    rates = {v.name: v.placement and next(iter(v.placement.values()))["rate"] for v in variants}
    assert rates == expected
    assert list(rates) == list(expected)  # a set has the same order in each process


NO_VARIANTS = [
    0.5, 1, True, False, np.float64(0.5), np.array([0.1, 0.2]), [0.1, 0.2], [None], [{"hidden": 0.2}], range(3),
    {"a": 0.5}, {"a": 1.0}, {"a": 0}, {"a": [0.1, 0.2]}, {"a": "0.5"}, {"a": "hidden"}, {"a": ""}, {"a": {0: 0.5}},
    {1: {"hidden": 0.2}}, {"a": {"hidden": None}}, {"a": {"hidden": [0.1]}}, {"a": L.Dropout(0.5)}, L.Dropout(0.5),
    (name for name in ["hidden"]),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(NO_VARIANTS)))
def test_what_names_no_site_is_refused_with_a_form_that_works(number, tmp_path):
    with pytest.raises(BadInput) as refused:
        planned(perceptron(), LABELLED, tmp_path, variants=NO_VARIANTS[number])
    _, fix = str(refused.value).splitlines()
    if found := re.search(r"(\{.*?\}\})[.,]", fix):
        planned(perceptron(), LABELLED, tmp_path, variants=ast.literal_eval(found[1]))
    assert "0.5" in fix or NO_VARIANTS[number] != {"a": 0.5}


WRONG = {  # settings of a wrong type; each in two lines, before the model is looked at
    "seeds": [6.0, "6", None, True, [0, 1.0], {"a": 1}],
    "epochs": ["3", 3.0, True, [3]],
    "optimizer": [5, ["adam"], keras.optimizers.Adam],
    "learning_rate": ["0.1", True, [0.1], keras.optimizers.schedules.CosineDecay(0.1, 9)],
    "class_weight": [[1, 2], 5],
    "early_stopping": [keras.callbacks.EarlyStopping()],
    "from_weights": [5, [np.zeros(3)]],
    "validation_split": ["0.2", None, [0.1], 0, 1, True],
    "split": [0.2, None],
    "data_dir": [5, "nowhere"],
    "backend": ["JAX", 5],
    "engine": [None, 5],
    "on": [None, 5],
    "margin": ["0.1", True],
    "ledger": [None, 5, b"r.db", ["r.db"], True],
    "baseline": [None, 5, ["none"]],
    "data_options": ["target", 5, ["target"], {"target": "x"}, {"test_split": 0.3}],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_setting_of_a_wrong_type_is_two_lines(name, tmp_path):
    for value in WRONG[name]:
        with pytest.raises(BadInput) as refused:
            make_plan(perceptron(), LABELLED, **({"ledger": tmp_path / "r.db"} | SETTINGS | {name: value}))
        assert len(str(refused.value).splitlines()) == 2


def test_settings_that_numpy_counts_are_numbers(tmp_path):
    study = planned(
        perceptron(), LABELLED, tmp_path, seeds=np.arange(3), epochs=np.int32(2), learning_rate=np.float32(0.5), from_weights=False
    ).study
    assert (study.seeds, study.epochs, study.weights) == ((0, 1, 2), 2, None)
    assert study.compiled["optimizer"]["config"]["learning_rate"] == 0.5


@pytest.mark.parametrize("target", [perceptron, keras.Sequential])
def test_a_function_or_class_is_told_to_be_called(target, tmp_path):
    with pytest.raises(BadInput, match="was not called"):
        planned(target, LABELLED, tmp_path)


def test_arguments_of_fit_are_told_what_stands_for_them(tmp_path):
    with pytest.raises(BadInput, match="argument of fit") as refused:
        keras_dropout.compare(perceptron(), (X, LABELS), sample_weight=LABELS, ledger=tmp_path / "r.db")
    assert "(x, y, weights)" in str(refused.value)
    with pytest.raises(BadInput, match="report must be a path"):
        keras_dropout.compare(perceptron(), (X, LABELS), report=5, ledger=tmp_path / "r.db")


UNDIVIDED = {
    "arrays": lambda: (X, LABELS),
    "a list": lambda: [X, LABELS],
    "lists of numbers": lambda: (X.tolist(), LABELS.tolist()),
    "a table": lambda: (pd.DataFrame(X), pd.Series(LABELS, index=range(100, 180))),
    "tensors": lambda: (ops.convert_to_tensor(X), ops.convert_to_tensor(LABELS)),
    "a stream": lambda: Rows(),
}


class Rows(keras.utils.PyDataset):
    def __len__(self):
        return 8

    def __getitem__(self, number):
        return X[10 * number : 10 * number + 10], LABELS[10 * number : 10 * number + 10]


@pytest.mark.parametrize("name", UNDIVIDED)
def test_examples_that_come_undivided_are_divided_as_those_of_a_file(name, tmp_path):
    np.savez(tmp_path / "file.npz", x=X.astype("float64"), y=LABELS)
    file = planned(perceptron(), tmp_path / "file.npz", tmp_path)
    plan = planned(perceptron(), UNDIVIDED[name](), tmp_path)
    assert plan.data.validation == file.data.validation
    for ours, theirs in zip((*plan.data.train[:2], *plan.data.test[:2]), (*file.data.train[:2], *file.data.test[:2])):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    half = planned(perceptron(), UNDIVIDED[name](), tmp_path, data_options={"test_split": 0.5})
    assert len(half.data.test.x) == 40
    assert plan.notes == ("58 training, 6 validation and 16 test examples: divided off by class, at random, seed 0",)


def test_several_inputs_and_weights_are_divided_together(tmp_path):
    """In Keras's own form, a list of arrays, and as a tuple or by name."""
    number = np.arange(80, dtype="float32")[:, None] * np.ones((1, 4), "float32")
    for x in ([number, -number], (number, -number), {"a": number, "b": -number}):
        data = planned(two_inputs(), (x, {"kind": LABELS, "size": number[:, 0]}, np.arange(80)), tmp_path).data
        for part in (data.train, data.test):
            first, second = part.x.values() if isinstance(part.x, dict) else part.x
            np.testing.assert_array_equal(first, -second)
            np.testing.assert_array_equal(first[:, 0], part.y["size"])
            np.testing.assert_array_equal(part.weights, part.y["size"])


NO_DATA = {
    "objects": lambda: (X.astype(object), LABELS),
    "texts as classes": lambda: (X, LABELS.astype(str)),
    "masked": lambda: (np.ma.masked_less(X, 0), LABELS),
    "complex": lambda: (X.astype(complex), LABELS),
    "times": lambda: (X.astype("datetime64[s]"), LABELS),
    "a record": lambda: (X.astype("float32").view([("a", "f4"), ("b", "f4"), ("c", "f4"), ("d", "f4")]), LABELS),
    "sparse": lambda: (sparse.csr_matrix(X), LABELS),
    "three parts": lambda: ((X, LABELS), (X, LABELS), (X, LABELS)),
    "four arrays": lambda: (X, LABELS, X, LABELS),
    "a table without targets": lambda: pd.DataFrame(X),
    "inputs alone": lambda: X,
    "a part that is missing": lambda: ((X, LABELS), None),
    "other lengths": lambda: (X, LABELS[:50]),
    "a mapping": lambda: {"x": X, "y": LABELS},
    "a generator": lambda: ((x, y) for x, y in zip(X, LABELS)),
}


@pytest.mark.parametrize("name", NO_DATA)
def test_data_in_a_wrong_form_are_two_lines(name, tmp_path):
    with pytest.raises(BadInput) as refused:
        planned(perceptron(), NO_DATA[name](), tmp_path)
    assert len(str(refused.value).splitlines()) == 2


def test_the_ways_out_of_wrong_data_work(tmp_path):
    for x, y in (
        (X.astype(object).astype("float32"), LABELS),
        (X, np.unique(LABELS.astype(str), return_inverse=True)[1]),
        (np.ma.masked_less(X, 0).filled(0), LABELS),
        (sparse.csr_matrix(X).toarray(), LABELS),
    ):
        assert planned(perceptron(), (x, y), tmp_path).data.train.y.dtype.kind == "i"


def test_a_function_that_returns_a_stream_is_data_for_every_command(tmp_path):
    (tmp_path / "batches.py").write_text(
        "import keras, numpy as np\n"
        "class Batches(keras.utils.PyDataset):\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, n): return np.full((10, 4), n, 'float32'), np.full(10, n % 2)\n"
        "def stream(): return Batches()\n"
        "def pair(): return Batches(), Batches()\n"
    )
    for name, tested in (("stream", 8), ("pair", 40)):
        data, _ = named_data(f"{tmp_path}/batches.py:{name}", {})
        assert len(data.test.x) == tested
        assert sorted(set(data.train.x.ravel())) == [0, 1, 2, 3]


@pytest.mark.parametrize("optimizer", ["multioptimizer", "optimizermap", "adamm"])
def test_the_optimizers_that_are_offered_can_be_had(optimizer, tmp_path):
    with pytest.raises(BadInput, match="unknown optimizer") as caught:
        planned(perceptron(), LABELLED, tmp_path, optimizer=optimizer)
    for name in re.search(r"Use one of: (.*)\.", str(caught.value))[1].split(", "):
        keras.optimizers.get(name)


def test_the_learning_rate_of_an_optimizer_around_another_is_that_inside(tmp_path):
    model = perceptron()
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5, momentum=0.9), initial_scale=64.0), model.loss)
    compiled = planned(model, LABELLED, tmp_path, learning_rate=0.01).study.compiled
    made = keras.optimizers.deserialize(compiled["optimizer"])
    assert (made.initial_scale, made.inner_optimizer.momentum) == (64.0, 0.9)
    assert float(made.inner_optimizer.learning_rate) == pytest.approx(0.01)


def test_two_inputs_and_two_outputs_may_be_tuples(tmp_path):
    """((a, b), (kind, size)) is one part, and with a second one a pair of them."""
    part = ((X, X[::-1]), (LABELS, X[:, :1]))
    whole = planned(two_inputs(), part, tmp_path).data
    assert [len(whole.train.x), len(whole.train.y), len(whole.test.y[0])] == [2, 2, 16]
    rows = np.concatenate([whole.train.x[1][:], whole.test.x[1][:]])
    assert np.array_equal(np.sort(rows, axis=0), np.sort(X, axis=0))
    pair = planned(two_inputs(), (part, part), tmp_path).data
    assert len(pair.test.y[0]) == len(X)


def test_sites_that_are_not_all_made_again_are_refused():
    made = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    with pytest.raises(BadInput, match="the model has 2 sites, where it has 3 now"):
        _renamed(Variant.of("a", {"hidden": 0.2}), keras.Sequential([keras.Input((4,)), L.Dense(3), L.Dense(2)]), made)
