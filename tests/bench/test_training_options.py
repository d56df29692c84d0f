"""What a study takes over from the reader's own training, in both engines, against Keras's own `fit` and `evaluate`."""

import functools
import pickle
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_dropout import Dropout
from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.data import dataset
from keras_dropout.bench.data.arrays import Rows
from keras_dropout.bench.ledger.checkpoints import Checkpoint
from keras_dropout.bench.study import loading
from keras_dropout.bench.training import compiled, reference
from keras_dropout.bench.training.build import build
from keras_dropout.bench.training.trainer import Trainer
from keras_dropout.masks import derive_seed
from keras_dropout.models import graph

L = keras.layers
ENGINES = ("compiled", "reference")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the compiled engine runs on JAX")

_rng = np.random.default_rng(0)
X = _rng.normal(size=(192, 6)).astype("float32")
Z = _rng.normal(size=(192, 3)).astype("float32")
CLASS = (X[:, 0] + _rng.normal(0, 0.5, 192) > 0.3).astype("int64") + (X[:, 1] > 0.8)
NUMBERS = np.stack([X[:, 0] - Z[:, 0], X[:, 1] ** 2], 1)
WEIGHTS = _rng.uniform(0, 2, 192)
IMAGES = X[:, :, None, None] * np.ones((1, 1, 6, 1), "float32")
STEPS = (X > 0.3).astype("int32") + (X > 1)  # of each step its class, and of each row of pixels
PIXELS = STEPS[:, :, None] * np.ones((1, 1, 6), "uint8")


def split(*part):
    """The first 160 examples to train with, the rest to test with."""
    return tuple(tuple(take(p, rows) for p in part) for rows in (slice(160), slice(160, None)))


def take(arrays, rows):
    return keras.tree.map_structure(lambda a: a[rows], arrays)


def one_output(width=3, activation="softmax", shape=(6,)):
    return keras.Sequential([keras.Input(shape), L.Flatten(), L.Dense(12, "relu"), L.Dense(width, activation)])


def two_outputs(by_name=False):
    a, b = keras.Input((6,), name="a"), keras.Input((3,), name="b")
    hidden = L.Dense(10, "relu", name="hidden")(L.Concatenate()([a, b]))
    outputs = {"kind": L.Dense(3, "softmax", name="kind")(hidden), "size": L.Dense(2, name="size")(hidden)}
    return keras.Model([a, b], outputs if by_name else list(outputs.values()))


def two_sizes():
    model = two_outputs()
    return keras.Model(model.inputs, [model.outputs[1], L.Rescaling(2.0, name="twice")(model.outputs[1])])


def compiled_with(model, loss, **settings):
    model.compile(settings.pop("optimizer", "adam"), loss, **settings)
    return model


def augmented():
    layers = [keras.Input((6, 6, 1)), L.RandomFlip(), L.RandomRotation(0.2), L.Flatten(), L.Dense(8, "relu"), L.Dense(3, "softmax")]
    return keras.Sequential(layers)


def of_pixels():
    layers = [keras.Input((6, 6, 1)), L.Conv2D(6, 3, padding="same", activation="relu"), L.Conv2D(3, 1, activation="softmax")]
    return keras.Sequential(layers)


def of_steps():
    layers = [keras.Input((6,), dtype="int32"), L.Embedding(3, 4), L.Conv1D(8, 3, padding="causal"), L.Dense(3, "softmax")]
    return keras.Sequential(layers)


def mean_iou():
    return keras.metrics.MeanIoU(3, sparse_y_pred=False, name="mean_iou")


BOTH = {"kind": "sparse_categorical_crossentropy", "size": keras.losses.Huber(0.7)}
CASES = {  # name: (model, data, settings)
    "outputs by name": lambda: (
        compiled_with(
            two_outputs(), BOTH, loss_weights={"kind": 1.0, "size": 0.3}, metrics={"kind": ["accuracy"], "size": ["mae", "mse"]}
        ),
        split({"b": Z, "a": X}, {"size": NUMBERS, "kind": CLASS}),
        {},
    ),
    "outputs in order, weighted examples": lambda: (
        compiled_with(
            two_outputs(),
            list(BOTH.values()),
            loss_weights=[0.5, 2.0],
            metrics=[["accuracy"], ["mae"]],
            weighted_metrics=[["accuracy"], []],
        ),
        split((X, Z), (CLASS, NUMBERS), WEIGHTS),
        {},
    ),
    "a dict of outputs": lambda: (
        compiled_with(two_outputs(by_name=True), BOTH, metrics={"kind": ["accuracy"]}),
        split({"a": X, "b": Z}, {"kind": CLASS, "size": NUMBERS}),
        {},
    ),
    "one loss for all": lambda: (
        compiled_with(
            keras.Model((m := two_outputs()).inputs, [m.outputs[1], L.Rescaling(2.0, name="twice")(m.outputs[1])]), "mse"
        ),
        split((X, Z), (NUMBERS, NUMBERS)),
        {},
    ),
    "class weights": lambda: (
        compiled_with(one_output(), "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"]),
        split(X, CLASS),
        {"class_weight": {0: 0.5, 2: 3.0}},
    ),
    "balanced classes, one-hot": lambda: (
        compiled_with(
            one_output(), keras.losses.CategoricalCrossentropy(label_smoothing=0.1), metrics=["accuracy", "auc", "precision"]
        ),
        split(X, np.eye(3, dtype="float32")[CLASS]),
        {"class_weight": "balanced"},
    ),
    "balanced binary": lambda: (
        compiled_with(one_output(1, "sigmoid"), "binary_crossentropy", metrics=["accuracy", keras.metrics.AUC(name="auc")]),
        split(X, CLASS > 0),
        {"class_weight": "balanced"},
    ),
    "weighted regression": lambda: (
        compiled_with(one_output(2, None), keras.losses.Huber(), loss_weights=0.5, metrics=["r2_score"], weighted_metrics=["mae"]),
        split(X, NUMBERS, WEIGHTS),
        {},
    ),
    "mean over weights": lambda: (
        compiled_with(one_output(1, None), keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")),
        split(X, NUMBERS[:, 0], np.ones(192)),
        {},
    ),
    "learning-rate schedule": lambda: (
        compiled_with(
            one_output(),
            "sparse_categorical_crossentropy",
            optimizer=keras.optimizers.SGD(keras.optimizers.schedules.PiecewiseConstantDecay([4, 7], [0.5, 0.05, 0.01])),
        ),
        split(X, CLASS),
        {},
    ),
    "a class for each pixel": lambda: (
        compiled_with(of_pixels(), "sparse_categorical_crossentropy", metrics=["accuracy", mean_iou()]),
        split(IMAGES, PIXELS),
        {},
    ),
    "weighted pixels": lambda: (
        compiled_with(of_pixels(), "sparse_categorical_crossentropy", weighted_metrics=["accuracy"]),
        split(IMAGES, PIXELS, 1.0 + 2.0 * (PIXELS > 0)),
        {},
    ),
    "a class for each step": lambda: (
        compiled_with(of_steps(), "sparse_categorical_crossentropy", metrics=["accuracy"]),
        split(STEPS[:, ::-1], STEPS),
        {},
    ),
    "augmentation in the model": lambda: (
        compiled_with(augmented(), "sparse_categorical_crossentropy", metrics=["accuracy"]),
        split(IMAGES, CLASS),
        {},
    ),
}
FIRST_DROPOUT = {"half": {"hidden": 0.5}}


def planned(case, tmp_path, engine, **settings):
    model, data, own = CASES[case]() if isinstance(case, str) else case
    settings = {"variants": FIRST_DROPOUT, "epochs": 2, "batch_size": 32, "seeds": 1, "validation_split": 0.2} | own | settings
    return make_plan(model, data, engine=engine, ledger=tmp_path / "r.db", **settings)


def train(plan, number=-1):
    return Trainer(plan.study, plan.data.parts(plan.study.split), plan.data.divide_by).train(plan.study.runs()[number])


@functools.cache
def by_keras(case, tmp_path):
    """The last run of a case trained by hand: `fit` an epoch at a time on reordered examples, then `evaluate`."""
    plan = planned(case, tmp_path, "reference")
    study, parts, run = plan.study, plan.data.parts("held-out"), plan.study.runs()[-1]
    model, order = build(study, run)[0], np.random.default_rng(derive_seed(run.seed, "order"))

    for _ in range(study.epochs):
        rows = order.permutation(len(keras.tree.flatten(parts["train"].y)[0]))
        x, y = (take(part, rows) for part in parts["train"][:2])
        weights = parts["train"].weights
        if isinstance(y, dict) and not isinstance(model.output, dict):
            y = [y[name] for name in model.output_names]
        how = {} if weights is None else {"sample_weight": weights[rows]}
        how |= {"class_weight": dict(study.class_weight)} if study.class_weight else {}
        model.fit(x, y, batch_size=study.batch_size, shuffle=False, verbose=0, **how)
    return {
        f"{name}_{metric}": value
        for name, (x, y, weights) in parts.items()
        if name != "validation"
        for metric, value in model.evaluate(x, y, sample_weight=weights, batch_size=32, verbose=0, return_dict=True).items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("by_keras")


BY_FIT = (
    "outputs in order, weighted examples",
    "a dict of outputs",
    "class weights",
    "a class for each pixel",
)  # where the other engine has work of its own


@pytest.mark.parametrize(("case", "engine"), [*((case, "compiled") for case in CASES), *((case, "reference") for case in BY_FIT)])
def test_training_and_measures_are_those_of_keras(case, engine, folder):
    expected, found = by_keras(case, folder), train(planned(case, folder, engine))
    assert found.status == "done"
    assert {name for name in found.metrics if not name.startswith("validation")} == set(expected)
    for metric, value in expected.items():
        assert found.metrics[metric] == pytest.approx(value, rel=2e-4, abs=2e-6), metric
    assert found.test_losses.mean() == pytest.approx(expected["test_loss"], rel=2e-4)


def test_augmentation_is_that_of_the_seed_for_every_variant(tmp_path):
    """Paired runs see the same pictures: with a rate of 0 a variant is the baseline; another seed sees others."""
    plan = planned("augmentation in the model", tmp_path, "compiled", variants={"zero": {"hidden": 0.0}}, seeds=2)
    trainer = Trainer(plan.study, plan.data.parts("held-out"), 1.0)
    none, zero, other, _ = [trainer.train(run).curves["loss"] for run in plan.study.runs()]
    np.testing.assert_allclose(none, zero, rtol=1e-6)
    assert not np.allclose(none, other, rtol=1e-2)
    still = compiled_with(one_output(shape=(6, 6, 1)), "sparse_categorical_crossentropy")
    still = planned((still, split(IMAGES, CLASS), {}), tmp_path, "compiled")
    assert not np.allclose(train(still, 0).curves["loss"], none, rtol=1e-2)


def overfitting():
    layers = [keras.Input((6,)), L.Dense(64, "relu"), L.BatchNormalization(), Dropout(0.2), L.Dense(3, "softmax")]
    optimizer = keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5)
    model = compiled_with(keras.Sequential(layers), "sparse_categorical_crossentropy", optimizer=optimizer, metrics=["accuracy"])
    return model, split(X, CLASS), {"validation_split": 0.3, "variants": {"as-built": None}}


@pytest.mark.parametrize("engine", ENGINES)
def test_early_stopping_is_that_of_keras(engine, tmp_path):
    """It stops where Keras's callback does, and measures what a training of just so many epochs ends in."""
    whole = train(planned(overfitting(), tmp_path, engine, epochs=12))
    callback, model = keras.callbacks.EarlyStopping("val_loss", patience=2, mode="min"), SimpleNamespace(stop_training=False)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, loss in enumerate(whole.curves["validation_loss"]):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        if model.stop_training:
            break
    stopped = train(planned(overfitting(), tmp_path, engine, epochs=12, early_stopping=2))
    assert stopped.epochs == epoch + 1 < 12
    assert stopped.best_epoch == callback.best_epoch + 1 < stopped.epochs
    assert stopped.curves == {name: values[: epoch + 1] for name, values in whole.curves.items()}
    short = train(planned(overfitting(), tmp_path, engine, epochs=stopped.best_epoch))
    assert stopped.metrics == pytest.approx(short.metrics, rel=1e-6)
    np.testing.assert_allclose(stopped.test_losses, short.test_losses, rtol=1e-5)


def pretrained():
    layers = [keras.Input((6,), name="in"), L.Dense(8, "relu", name="frozen"), L.BatchNormalization(name="norm")]
    model = keras.Sequential([*layers, L.Dense(8, "relu", name="free"), L.Dense(3, "softmax", name="out")])
    model.get_layer("frozen").trainable = False
    compiled_with(model, "sparse_categorical_crossentropy", optimizer=keras.optimizers.Adam(0.01))
    weights = np.random.default_rng(1)
    model.set_weights([np.abs(weights.normal(size=w.shape)).astype("float32") for w in model.get_weights()])
    return model


@pytest.mark.parametrize("engine", ENGINES)
def test_fine_tuning_starts_from_the_weights_and_keeps_frozen_layers(engine, tmp_path):
    model = pretrained()
    plan = planned((model, split(X, CLASS), {}), tmp_path, engine, from_weights=True, variants={"a": {"free": 0.3}}, seeds=2)
    runs = plan.study.runs()
    for run in runs:
        for ours, given in zip(build(plan.study, run)[0].get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, given)
    trainer = Trainer(plan.study, plan.data.parts("held-out"), 1.0)
    built = build(plan.study, runs[1])[0]
    variables = [*built.trainable_variables, *built.non_trainable_variables]
    *_, paused = trainer.follow((runs[1],), until=1)
    after = Checkpoint.from_bytes(paused.state).values
    after = {"/".join(v.path.split("/")[-2:]): np.asarray(value) for v, value in zip(variables, after)}
    for layer in model.layers:
        for variable in layer.weights:
            name = "/".join(variable.path.split("/")[-2:])
            same = np.array_equal(after[name], variable.numpy())
            assert same == (layer.name == "frozen"), name
    assert trainer.train(runs[0]).curves["loss"] != trainer.train(runs[2]).curves["loss"]  # the order is the seed's


def with_adapters(quantized=False):
    """A trained network with LoRA in a Dense and inside of attention, where a config does not tell of it, and alpha of its own."""
    inputs = keras.Input((5, 6), name="in")
    attention = L.MultiHeadAttention(2, 3, name="attention")
    hidden = L.Dense(6, "relu", name="hidden")(inputs)
    x = L.Flatten(name="flat")(attention(hidden, hidden))
    model = keras.Model(inputs, L.Dense(3, "softmax", name="out")(x))
    adapted = [model.get_layer("hidden"), attention.query_dense]
    if quantized:
        adapted[0].quantize("int8")
    for layer in adapted:
        layer.enable_lora(2, lora_alpha=6.0, b_initializer="glorot_uniform")
    model.get_layer("out").trainable = False
    return compiled_with(model, "sparse_categorical_crossentropy", optimizer=keras.optimizers.Adam(0.01))


def adapters(model):
    return [(layer, *graph.lora_weights(layer)) for layer in model._flatten_layers() if getattr(layer, "lora_enabled", False)]


@pytest.mark.parametrize("quantized", [False, True])
def test_adapters_are_tuned_from_where_they_are_with_their_scale_and_nothing_else(quantized, tmp_path):
    model = with_adapters(quantized)
    x = np.random.default_rng(0).normal(size=(60, 5, 6)).astype("float32")
    data = ((x[:40], CLASS[:40]), (x[40:], CLASS[40:60]))
    variants = {"a": {"hidden": "LoRADropout(0.5)"}, "b": {"attention": 0.2}}
    plan = planned((model, data, {}), tmp_path, "compiled", from_weights=True, variants=variants, seeds=1, epochs=2)
    before = model.predict(x, verbose=0)
    for run in plan.study.runs():
        built = build(plan.study, run)[0]
        np.testing.assert_allclose(built.predict(x, verbose=0), before, rtol=1e-5, atol=1e-6)
        assert [layer.lora_alpha for layer, *_ in adapters(built)] == [6.0, 6.0]
        assert len(built.trainable_weights) == len(model.trainable_weights)
    trainer = Trainer(plan.study, plan.data.parts("held-out"), 1.0)
    losses = [trainer.train(run).metrics["test_loss"] for run in plan.study.runs()]
    assert len({round(loss, 6) for loss in losses}) == 3


def test_a_copy_has_the_adapters_and_a_file_of_weights_begins_them_anew(tmp_path):
    model = with_adapters()
    for (_, *copied), (_, *given) in zip(adapters(graph.copy(model)), adapters(model), strict=True):
        for ours, theirs in zip(copied, given, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    x = np.random.default_rng(0).normal(size=(8, 5, 6)).astype("float32")
    model.save_weights(tmp_path / "w.weights.h5")
    filled = loading.with_weights(model, tmp_path / "w.weights.h5")
    np.testing.assert_allclose(filled.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    for _, a, b in adapters(filled):  # Keras loads zeros in both, and a gradient is the product with the other
        assert np.abs(a.numpy()).max() > 0
        assert not b.numpy().any()


def test_files_of_weights_are_the_weights_they_hold(tmp_path):
    model = pretrained()
    model.save_weights(tmp_path / "w.weights.h5")
    model.save(tmp_path / "w.keras")
    other = keras.models.clone_model(model)
    compiled_with(other, "sparse_categorical_crossentropy", optimizer=keras.optimizers.Adam(0.01))

    def keys(model, source):
        return [run.key for run in planned((model, split(X, CLASS), {}), tmp_path, "compiled", from_weights=source).study.runs()]

    own = keys(model, True)
    assert keys(other, tmp_path / "w.weights.h5") == keys(other, str(tmp_path / "w.keras")) == own
    assert not set(keys(other, True)) & set(own)
    assert not set(keys(other, None)) & set(own)


@pytest.mark.parametrize("engine", ENGINES)
def test_data_in_a_file_train_as_in_memory(engine, tmp_path, monkeypatch):
    """The same key, and the same numbers when they come in pieces; a worker gets the place in the file."""
    (x, y), (x_test, y_test) = split(X, CLASS)
    np.save(tmp_path / "x.npy", np.concatenate([X[:7], X]))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")[7:]
    model = compiled_with(one_output(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    whole = planned((model, ((x, y), (x_test, y_test)), {}), tmp_path, engine)
    pieces = planned((model, ((mapped[:160], y), (mapped[160:], y_test)), {}), tmp_path, engine)
    assert isinstance(pieces.data.train.x, Rows)
    assert [run.key for run in whole.study.runs()] == [run.key for run in pieces.study.runs()]
    sent = pickle.dumps(pieces.data.parts("held-out"))
    assert str(tmp_path / "x.npy").encode() in sent
    assert len(pickle.dumps(pieces.data.test.x)) < x_test.nbytes
    expected = train(whole)
    monkeypatch.setattr(compiled, "ON_DEVICE", 2000)
    monkeypatch.setattr(reference, "IN_MEMORY", 2000)
    monkeypatch.setattr(reference, "EVALUATION_BATCH", 20)
    monkeypatch.setattr(compiled, "EVALUATION_BATCH", 20)
    found = Trainer(pieces.study, pickle.loads(sent), 1.0).train(pieces.study.runs()[-1])
    assert found.metrics == pytest.approx(expected.metrics, rel=1e-6)
    assert found.curves["loss"] == pytest.approx(expected.curves["loss"], rel=1e-6)
    np.testing.assert_allclose(found.test_losses, expected.test_losses, rtol=1e-5)


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return -(-len(self.arrays[0]) // 40)

    def __getitem__(self, number):
        return tuple(array[number * 40 : number * 40 + 40] for array in self.arrays)


def tf_batches(*arrays):
    return pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices(arrays).batch(40).prefetch(1)


def tf_even_batches(*arrays):
    return pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices(arrays).batch(16, drop_remainder=True)


def tf_examples(*arrays):
    return pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices(arrays)


def torch_batches(*arrays):
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*map(torch.tensor, arrays)), batch_size=40)


def torch_examples(*arrays):
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*map(torch.tensor, arrays)), batch_size=None)


@pytest.mark.parametrize("stream", [Batches, tf_batches, tf_even_batches, tf_examples, torch_batches, torch_examples])
@pytest.mark.parametrize("answers", ["numbers", "vectors"])
def test_a_stream_is_the_arrays_it_gives(stream, answers):
    y = CLASS if answers == "numbers" else np.eye(3, dtype="float32")[CLASS]
    train, test = split(X, y, WEIGHTS)
    expected = dataset.from_arrays((train, test))
    assert dataset.from_arrays((stream(*train), stream(*test)), rank=2).fingerprint() == expected.fingerprint()


@pytest.mark.parametrize("engine", ENGINES)
def test_quantities_in_whole_numbers_of_any_size_are_not_wrapped(engine, tmp_path):
    losses = []
    for y in (3_000_000_000 + 1_000_000 * CLASS, (3_000_000_000 + 1_000_000 * CLASS).astype("float32")):
        model = compiled_with(one_output(1, None), "mae", optimizer="sgd")
        plan = make_plan(model, split(X, y), ledger=tmp_path / "r.db", engine=engine, epochs=1, seeds=1)
        trainer = Trainer(plan.study, plan.data.parts("held-out"), plan.data.divide_by)
        losses.append(trainer.train(plan.study.runs()[0]).metrics["test_loss"])
    assert losses[0] == losses[1]
    assert losses[0] == pytest.approx(3e9, rel=0.01)
