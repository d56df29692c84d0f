"""The compiled epoch against Keras `fit`, in one process: same seed, same masks, same weights."""

import keras
import numpy as np
import pytest

from keras_dropout import Dropout, PatchDropout
from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.records import Result, Variant
from keras_dropout.bench.study import recipes
from keras_dropout.bench.training.build import build
from keras_dropout.bench.training.compiled import CompiledPrograms
from keras_dropout.bench.training.reference import ReferenceTraining
from keras_dropout.bench.training.trainer import Trainer
from keras_dropout.masks import derive_seed
from keras_dropout.schedules import Early, Late, Linear, Step

L = keras.layers
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the compiled engine runs on JAX")


def blobs(count=203, shape=(6,), classes=3):
    generator = np.random.default_rng(0)
    y = generator.integers(0, classes, count)
    x = generator.normal(size=(count, *shape)).astype("float32") + y.reshape(-1, *[1] * len(shape))
    return (x[:150], y[:150]), (x[150:], y[150:])


def train(model, tmp_path, engine, variants=None, number=0, epochs=3, **settings) -> Result:
    plan = make_plan(
        model,
        settings.pop("data", blobs()),
        variants=variants,
        engine=engine,
        epochs=epochs,
        batch_size=32,
        ledger=tmp_path / "r.db",
        **settings,
    )
    run = plan.study.runs()[number]
    return Trainer(plan.study, plan.data.parts(plan.study.split), plan.data.divide_by).train(run)


def perceptron(optimizer="sgd", **layer):
    model = keras.Sequential([keras.Input((6,)), L.Dense(16, "relu", **layer), L.Dense(8, "relu"), L.Dense(3, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def convnet():
    model = keras.Sequential([keras.Input((6, 6, 1)), L.Conv2D(4, 3, activation="relu"), L.Flatten(), L.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def normalised():
    layers = [keras.Input((6,)), L.Dense(16), L.BatchNormalization(), L.ReLU(), Dropout(0.3), L.Dense(3, "softmax")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(0.01, use_ema=True), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def regression():
    model = keras.Sequential([keras.Input((6,)), L.Dense(8, "tanh"), L.Dense(1)])
    model.compile("rmsprop", "mse", metrics=["mae"])
    return model


CASES = {
    "sgd": lambda: perceptron(),
    "adam": lambda: perceptron("adam"),
    "momentum and decay": lambda: perceptron(
        keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 30), momentum=0.9, nesterov=True, clipnorm=1.0)
    ),
    "penalty": lambda: perceptron(kernel_regularizer="l2"),
    "batch normalisation and averaged weights": normalised,
    "convolution": convnet,
    "regression": regression,
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("number", [0, 1], ids=["without dropout", "with dropout"])
def test_compiled_is_keras_fit(name, number, tmp_path):
    data = blobs(shape=(6, 6, 1)) if name == "convolution" else blobs()
    found, expected = (
        train(CASES[name](), tmp_path, engine, {"half": {"hidden": 0.5}}, number, data=data) for engine in ("compiled", "reference")
    )
    assert found.status == expected.status == "done"
    assert set(found.metrics) == set(expected.metrics)
    for metric, value in expected.metrics.items():
        assert found.metrics[metric] == pytest.approx(value, rel=1e-4), metric
    for curve, values in expected.curves.items():
        np.testing.assert_allclose(found.curves[curve], values, rtol=1e-4, err_msg=curve)
    np.testing.assert_allclose(found.test_losses, expected.test_losses, rtol=2e-3, atol=1e-5)


SCHEDULED = [
    ("sgd", {"hidden": "linear(0.6, 0.0)"}),
    ("sgd", {"hidden": 0.1, "last": Step([0.0, 0.5], at=[0.5])}),
    ("sgd", {"hidden": "GaussianDropout(curriculum(0.5), over_depth=True)"}),
    ("batch normalisation and averaged weights", {"hidden": Linear(0.6, 0.0)}),
    ("convolution", {"hidden": "SpatialDropout2D(linear(0.6, 0.0))"}),
]


@pytest.mark.parametrize(("name", "placement"), SCHEDULED, ids=str)
def test_compiled_is_keras_fit_with_schedules(name, placement, tmp_path):
    data = blobs(shape=(6, 6, 1)) if name == "convolution" else blobs()
    found, expected = (
        train(CASES[name](), tmp_path, engine, {"a": placement}, 1, data=data) for engine in ("compiled", "reference")
    )
    assert set(found.curves) == set(expected.curves)
    for curve, values in expected.curves.items():
        # Moving statistics of a normalisation differ in their last bits, with schedules and without.
        np.testing.assert_allclose(found.curves[curve], values, rtol=3e-4 if "validation" in curve else 1e-5, err_msg=curve)
    np.testing.assert_allclose(found.test_losses, expected.test_losses, rtol=2e-3, atol=1e-5)


def test_a_schedule_is_that_of_the_layer_at_its_site(tmp_path):
    """Each layer's rate is its own schedule's, whatever other layers of dropout there were."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(16, name="a"),
            Dropout(0.5, seed=1),
            L.Dense(8, name="b"),
            L.Dense(4, name="c"),
            L.Dense(3, "softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    placement = {"c": Late(0.3, start=0.5), "a": 0.1, "b": "early(0.2, until=0.5)"}
    plan = make_plan(model, blobs(), variants={"v": placement}, epochs=2, ledger=tmp_path / "r.db")
    run = plan.study.runs()[1]
    built, schedules = build(plan.study, run)
    by_size = {layer.output.shape[-1]: schedule for layer, schedule in schedules.items()}
    assert by_size == {8: Early(0.2, until=0.5), 4: Late(0.3, start=0.5)}
    assert [layer.rate for layer in built.layers if isinstance(layer, Dropout)] == [0.1, 0.2, 0.3]


def test_one_program_serves_all_schedules_rates_and_seeds(tmp_path):
    rates = {"a": 0.3, "b": Linear(0.5, 0.0), "c": "curriculum(0.4)", "d": "step([0.0, 0.6], at=[0.5])", "e": Late(0.3, start=0.4)}
    plan = make_plan(
        perceptron(),
        blobs(),
        variants={name: {"hidden": rate} for name, rate in rates.items()},
        seeds=2,
        epochs=2,
        ledger=tmp_path / "r",
    )
    trainer = Trainer(plan.study, plan.data.parts(plan.study.split), plan.data.divide_by)
    results = [trainer.train(run) for run in plan.study.runs() if run.variant.name != "none"]
    assert len(results) == 10
    assert results[0].compilations > 0
    assert [result.compilations for result in results[1:]] == [0] * 9
    assert len({result.metrics["test_loss"] for result in results}) == 10


def test_a_schedule_at_a_constant_rate_is_that_rate(tmp_path):
    fixed, moving = (train(perceptron(), tmp_path, "compiled", {"a": {"hidden": r}}, 1) for r in (0.4, Linear(0.4, 0.4)))
    assert fixed.curves == moving.curves
    assert fixed.metrics == moving.metrics


def test_measures_are_those_of_keras_evaluate(tmp_path):
    plan = make_plan("digits-mlp", epochs=2, ledger=tmp_path / "r.db", engine="reference")
    study, parts = plan.study, plan.data.parts("held-out")
    found = Trainer(study, parts, 16.0).train(study.runs()[0])
    model, _ = build(study, study.runs()[0])
    training = ReferenceTraining(model, parts, 32, 16.0)
    order = np.random.default_rng(derive_seed(0, "order"))
    for _ in range(2):
        training.epoch(order.permutation(len(parts["train"][1])))
    loss, accuracy = model.evaluate(parts["test"][0].astype("float32") / np.float32(16), parts["test"][1], verbose=0)
    assert found.metrics["test_loss"] == pytest.approx(loss, rel=1e-5)
    assert found.metrics["test_accuracy"] == pytest.approx(accuracy, rel=1e-6)


def test_the_published_subclass_and_its_twin_train_to_the_same_weights():
    """Real images, the tutorial's sizes, several steps with a last smaller batch, one shared dropout layer called four times."""
    arrays = recipes.find("fashion-mnist-mlp").data(None)
    part = {"train": (arrays.train[0][:1000], arrays.train[1][:1000].astype("int32"))}
    twin = recipes.find("fashion-mnist-mlp").model()
    published = recipes.compile_as_published(recipes.CustomModel())
    published(np.zeros((1, 28, 28), "float32"))
    order = np.random.default_rng(0).permutation(1000).astype("int32")
    initial, weights, programs = twin.get_weights(), {}, CompiledPrograms(part, 32, 255.0)
    for name, model in (("twin", twin), ("published", published)):
        model.set_weights(initial)
        next(layer for layer in model.layers if isinstance(layer, Dropout)).stream.reseed(5)
        training = programs.start(model, Variant(name, {name: {"kind": "Dropout", "rate": 0}}))
        for _ in range(2):
            training.epoch(order)
        weights[name] = training.values()
    for ours, theirs, before in zip(weights["twin"], weights["published"], initial):
        np.testing.assert_array_equal(ours, theirs)
        assert not np.array_equal(ours, before)
    published.set_weights(initial)
    published.dropout.stream.reseed(5)
    by_fit = ReferenceTraining(published, part, 32, 255.0)
    for _ in range(2):
        by_fit.epoch(order)
    for ours, theirs in zip(weights["twin"], published.get_weights()):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_published_sizes():
    assert recipes.find("fashion-mnist-mlp").model().count_params() == 183770
    published = recipes.CustomModel()
    published(np.zeros((1, 28, 28), "float32"))
    assert published.count_params() == 183770


def test_variants_of_a_seed_share_initial_weights_and_seeds_do_not(tmp_path):
    study = make_plan("digits-mlp", seeds=2, ledger=tmp_path / "r.db").study
    models = {(run.variant.name, run.seed): build(study, run)[0].get_weights() for run in study.runs()}
    for (_, seed), weights in models.items():
        for ours, theirs in zip(weights, models["none", seed]):
            np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(models["none", 0][0], models["none", 1][0])


def test_one_program_serves_every_seed_and_rate(tmp_path):
    plan = make_plan(
        "digits-mlp", variants={f"r{n}": {"hidden": n / 10} for n in range(1, 5)}, seeds=2, epochs=1, ledger=tmp_path / "r.db"
    )
    trainer = Trainer(plan.study, plan.data.parts("held-out"), 16.0)
    results = [trainer.train(run) for run in plan.study.runs()]
    compiled = [result.compilations > 0 for result in results]
    assert sum(compiled) == 2  # with dropout and without
    assert len({result.metrics["test_loss"] for result in results}) == len(results)


@pytest.mark.parametrize("rate", [0.25, 0.75])
def test_a_rate_that_decides_a_shape_is_part_of_the_program(rate, tmp_path):
    """The second variant to be trained drops its own number of patches, not the first one's."""
    model = keras.Sequential([keras.Input((8, 6), name="rows"), L.GlobalAveragePooling1D(), L.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    variants = {f"r{n}": {"rows": PatchDropout(n, prefix=0)} for n in (0.5, rate)}
    data = blobs(shape=(8, 6))
    plan = make_plan(model, data, variants=variants, epochs=2, seeds=1, engine="compiled", ledger=tmp_path / "r.db")
    trainer = Trainer(plan.study, plan.data.parts("held-out"), 1)
    found = [trainer.train(run) for run in plan.study.runs()][-1]
    alone = train(model, tmp_path, "compiled", variants, number=-1, epochs=2, seeds=1, data=data)
    assert found.metrics == alone.metrics


def test_a_run_does_not_depend_on_what_was_trained_before_it(tmp_path):
    plan = make_plan("digits-mlp", seeds=2, epochs=2, ledger=tmp_path / "r.db")
    parts, runs = plan.data.parts("held-out"), plan.study.runs()
    forward = {run.key: Trainer.train(trainer, run) for trainer in [Trainer(plan.study, parts, 16.0)] for run in runs}
    backward = {run.key: Trainer.train(trainer, run) for trainer in [Trainer(plan.study, parts, 16.0)] for run in reversed(runs)}
    assert {key: result.metrics for key, result in forward.items()} == {key: result.metrics for key, result in backward.items()}


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_a_run_that_diverges_is_a_result(engine, tmp_path):
    result = train(perceptron(keras.optimizers.SGD(1e30)), tmp_path, engine, data=blobs())
    assert result.status == "diverged"
    assert result.metrics == {}
    assert all(np.isfinite(values).all() for values in result.curves.values())


def test_keras_dropout_in_a_model_trains_as_ours(tmp_path):
    def model(dropout):
        model = keras.Sequential([keras.Input((6,)), L.Dense(16, "relu"), dropout, L.Dense(3, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    ours, theirs = (train(model(d), tmp_path, "compiled", {"as-built": None}, 1) for d in (Dropout(0.4), L.Dropout(0.4)))
    assert ours.metrics["test_loss"] == pytest.approx(theirs.metrics["test_loss"], rel=1e-6)
    assert theirs.curves["loss"] != train(model(L.Dropout(0.4)), tmp_path, "compiled", {"as-built": None}, 0).curves["loss"]
