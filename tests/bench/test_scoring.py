"""Monte-Carlo metrics of a study: those of the kept model, in each engine and on each backend, the same however it is run."""

import json

import keras
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import accuracy_score, log_loss, root_mean_squared_error
from typer.testing import CliRunner

from keras_dropout import place, uncertainty
from keras_dropout.bench import scoring
from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.training.messages import Ended, Paused
from keras_dropout.bench.training.trainer import Trainer
from keras_dropout.cli import app
from keras_dropout.errors import BadInput
from keras_dropout.masks import derive_seed

L = keras.layers
JAX = keras.backend.backend() == "jax"
ENGINES = ("compiled", "reference", "stacked") if JAX else ("reference",)
only_jax = pytest.mark.skipif(not JAX, reason="the command starts its own processes, with JAX")
SAMPLES = 7

_rng = np.random.default_rng(0)
CLASS = _rng.integers(0, 3, 203)
X = (_rng.normal(size=(203, 6)) + CLASS[:, None]).astype("float32")
NUMBER = X[:, 0] * 2 + _rng.normal(size=203)


def split(y, x=X):
    return (x[:150], y[:150]), (x[150:], y[150:])


def model_of(*layers, loss="sparse_categorical_crossentropy", optimizer="adam", inputs=(6,), **settings):
    model = keras.Sequential([keras.Input(inputs), *layers])
    model.compile(optimizer, loss, **settings)
    return model


def classifier(width=3, activation="softmax", **settings):
    return model_of(L.Dense(16), L.BatchNormalization(), L.ReLU(), L.Dense(width, activation), **settings)


def perceptron(width=3, activation="softmax", **settings):
    return model_of(L.Dense(8, "relu"), L.Dense(width, activation), **settings)


def plan_of(model, data, tmp_path, engine=ENGINES[0], **settings):
    settings = {"epochs": 2, "batch_size": 32, "seeds": 1, "variants": {"a": {"hidden": 0.4}}, "samples": SAMPLES} | settings
    return make_plan(model, data, engine=engine, backend=keras.backend.backend(), ledger=tmp_path / "r.db", **settings)


def trained(plan, variants=("none", "a"), **options):
    """variant and seed -> result"""
    trainer = Trainer(plan.study, plan.data.parts(plan.study.split), plan.data.divide_by)
    runs = [run for run in plan.study.runs() if run.variant.name in variants]
    ended = {told.key: told.result for told in trainer.follow(runs, **options) if isinstance(told, Ended)}
    return {(run.variant.name, run.seed): ended[run.key] for run in runs}


def opened(archive, tmp_path):
    (tmp_path / "model.keras").write_bytes(archive)
    return keras.models.load_model(tmp_path / "model.keras")


def scores(p, y, prefix=""):
    """By scikit-learn, and an ECE in a loop over bins."""
    p = np.concatenate([1 - p, p], axis=-1) if p.shape[-1] == 1 else p
    p = p.astype(float)
    top, right, ece = p.max(-1), p.argmax(-1) == y, 0.0
    for number in range(15):
        inside = np.floor(top * 15).clip(0, 14) == number
        ece += abs(right[inside].sum() - top[inside].sum()) / len(y)
    found = {
        "nll": log_loss(y, p / p.sum(-1, keepdims=True), labels=range(p.shape[-1])),
        "brier": np.square(p - np.eye(p.shape[-1])[y]).sum(-1).mean(),
        "ece": ece,
    }
    return {f"test_{prefix}{name}": value for name, value in found.items()} | (
        {"test_mc_accuracy": accuracy_score(y, p.argmax(-1))} if prefix else {}
    )


def softmax(z):
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def averaging():
    return keras.optimizers.SGD(0.5, momentum=0.9, use_ema=True, ema_momentum=0.9)


@pytest.mark.parametrize("engine", ENGINES)
def test_metrics_are_those_of_the_kept_model(engine, tmp_path):
    """Of the best epoch and of averaged weights, with a rate that moves."""
    settings = {"early_stopping": 2, "epochs": 20, "variants": {"a": {"hidden": "linear(0.5, 0.1)"}}}
    plan = plan_of(classifier(optimizer=averaging(), metrics=["accuracy"]), split(CLASS), tmp_path, engine, **settings)
    variants = ("none", "a") if engine == ENGINES[0] else ("a",)
    for (name, seed), result in trained(plan, variants, settings={"keep_weights": True}).items():
        model, (x, y) = opened(result.model, tmp_path), split(CLASS)[1]
        p = model.predict(x, verbose=0)
        mean = p if name == "none" else uncertainty.predict(model, x, SAMPLES, seed=derive_seed(seed, "samples")).mean
        for metric, value in (scores(p, y) | scores(mean, y, "mc_")).items():
            assert result.metrics[metric] == pytest.approx(value, rel=1e-5, abs=1e-7), metric
        assert result.metrics["test_nll"] == pytest.approx(result.metrics["test_loss"], rel=1e-4)
        if name == "none":
            assert [result.metrics[f"test_mc_{m}"] for m in ("nll", "brier", "ece")] == [
                result.metrics[f"test_{m}"] for m in ("nll", "brier", "ece")
            ]
            assert result.metrics["test_mc_accuracy"] == pytest.approx(result.metrics["test_accuracy"])
        else:
            assert result.best_epoch < result.epochs
            assert abs(result.metrics["test_mc_nll"] - result.metrics["test_nll"]) > 1e-4


@pytest.mark.parametrize("width", [3, 1])
def test_the_scaled_nll_is_that_of_the_best_temperature_on_validation_data(width, tmp_path):
    """By a search over temperatures."""
    y = CLASS if width == 3 else CLASS // 2
    loss = "sparse_categorical_crossentropy" if width == 3 else "binary_crossentropy"
    model = perceptron(width, "softmax" if width == 3 else "sigmoid", loss=loss, optimizer=keras.optimizers.Adam(0.05))
    plan = plan_of(model, split(y), tmp_path, epochs=30, validation_split=0.4)
    result = trained(plan, "a", settings={"keep_weights": True})["a", 0]
    model, parts = opened(result.model, tmp_path), plan.data.parts("held-out")

    outputs = {part: model.predict(parts[part][0], verbose=0).astype(float) for part in ("validation", "test")}

    def nll(part, temperature):
        p = outputs[part]
        p = np.concatenate([1 - p, p], axis=-1) if width == 1 else p
        p = np.clip(p, 1e-7, None) ** (1 / temperature)
        return log_loss(parts[part][1], p / p.sum(-1, keepdims=True), labels=range(p.shape[-1]))

    best = minimize_scalar(lambda log: nll("validation", np.exp(log)), bounds=(np.log(0.01), np.log(100)), method="bounded").x
    assert result.metrics["test_scaled_nll"] == pytest.approx(nll("test", np.exp(best)), rel=1e-4)
    assert abs(result.metrics["test_scaled_nll"] - result.metrics["test_nll"]) > 0.003


def test_no_temperature_is_fitted_on_examples_that_were_trained_on(tmp_path):
    plan = make_plan("digits-mlp", seeds=1, epochs=1, samples=2, split="as-published", ledger=tmp_path / "r.db")
    assert "test_scaled_nll" not in trained(plan, ("none",))["none", 0].metrics


OUTPUTS = {  # name: (model, answers, what makes probabilities of outputs)
    "logits": (
        lambda: perceptron(activation=None, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
        CLASS,
        softmax,
    ),
    "one-hot, the loss in a list": (
        lambda: perceptron(activation=None, loss=[keras.losses.CategoricalCrossentropy(from_logits=True)]),
        np.eye(3, dtype="float32")[CLASS],
        softmax,
    ),
    "sigmoid": (lambda: perceptron(1, "sigmoid", loss="binary_crossentropy"), CLASS // 2, lambda p: p),
    "logit": (
        lambda: perceptron(1, None, loss=keras.losses.BinaryCrossentropy(from_logits=True)),
        CLASS // 2,
        lambda z: 1 / (1 + np.exp(-z)),
    ),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_probabilities_are_recognised(name):
    make, y, probabilities = OUTPUTS[name]
    model = place(make(), {"last": 0.4})
    found, _ = scoring.monte_carlo(model, X, y, SAMPLES, seed=3)
    y = y.argmax(-1) if y.ndim == 2 else y
    mean = uncertainty.predict(model, X, SAMPLES, seed=3).mean
    expected = scores(probabilities(model.predict(X, verbose=0)), y) | scores(mean, y, "mc_")
    assert {f"test_{metric}": value for metric, value in found.items()} == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert found["mc_nll"] != found["nll"]


def test_a_regression_has_its_error():
    model = place(perceptron(1, None, loss="mse"), {"last": 0.4})
    mean = uncertainty.predict(model, X, SAMPLES, seed=3).mean
    assert scoring.monte_carlo(model, X, NUMBER, SAMPLES, seed=3)[0] == pytest.approx(
        {
            "rmse": root_mean_squared_error(NUMBER, model.predict(X, verbose=0)[:, 0]),
            "mc_rmse": root_mean_squared_error(NUMBER, mean[:, 0]),
        },
        rel=1e-5,
    )


def test_dropout_that_has_ended_changes_nothing(tmp_path):
    plan = plan_of(perceptron(), split(CLASS), tmp_path, variants={"a": {"hidden": "early(0.4, until=0.5)"}})
    metrics = trained(plan, "a")["a", 0].metrics
    assert [metrics[f"test_mc_{name}"] for name in ("nll", "brier", "ece")] == [
        metrics[f"test_{n}"] for n in ("nll", "brier", "ece")
    ]


def test_pixels_are_divided_and_seeds_have_masks_of_their_own(tmp_path):
    plan = plan_of(
        model_of(L.Flatten(), L.Dense(16, "relu"), L.Dense(3, "softmax")),
        split(CLASS, (X * 20 + 100).clip(0, 255).astype("uint8")),
        tmp_path,
        data_options=None,
        seeds=2,
        from_weights=True,
        learning_rate=1e-12,
    )
    object.__setattr__(plan.data, "divide_by", 255.0)
    found = trained(plan, "a", settings={"keep_weights": True})
    x, y = split(CLASS, (X * 20 + 100).clip(0, 255).astype("uint8"))[1]
    for seed in (0, 1):
        result = found["a", seed]
        model = opened(result.model, tmp_path)
        mean = uncertainty.predict(model, x.astype("float32") / np.float32(255), SAMPLES, seed=derive_seed(seed, "samples")).mean
        assert result.metrics["test_mc_nll"] == pytest.approx(scores(mean, y)["test_nll"], rel=1e-5)
    # The same weights, other masks.
    assert found["a", 0].metrics["test_nll"] == pytest.approx(found["a", 1].metrics["test_nll"], rel=1e-6)
    assert abs(found["a", 0].metrics["test_mc_nll"] - found["a", 1].metrics["test_mc_nll"]) > 1e-6


def test_a_resumed_run_and_one_without_samples_end_the_same(tmp_path):
    model = perceptron(metrics=["accuracy"])
    plan = plan_of(model, split(CLASS), tmp_path)
    whole = trained(plan, "a")["a", 0].metrics
    trainer, run = Trainer(plan.study, plan.data.parts(plan.study.split), plan.data.divide_by), plan.study.runs()[1]
    (paused,) = [told for told in trainer.follow([run], until=1) if isinstance(told, Paused)]
    assert trained(plan, "a", checkpoints={paused.key: paused.state})["a", 0].metrics == whole
    without = trained(plan_of(model, split(CLASS), tmp_path, samples=None), "a")["a", 0].metrics
    added = {f"test_{name}" for name in ("nll", "scaled_nll", "brier", "ece", "mc_nll", "mc_accuracy", "mc_brier", "mc_ece")}
    assert {name: value for name, value in whole.items() if name not in added} == without
    assert added < set(whole)


def test_what_diverged_is_not_sampled(tmp_path):
    plan = plan_of(perceptron(optimizer="sgd"), split(CLASS), tmp_path, "reference", learning_rate=1e30)
    assert {result.status for result in trained(plan).values()} == {"diverged"}


def two_outputs():
    x = keras.Input((6,))
    hidden = L.Dense(8, "relu")(x)
    model = keras.Model(x, [L.Dense(3, "softmax", name="kind")(hidden), L.Dense(1, name="size")(hidden)])
    model.compile("sgd", {"kind": "sparse_categorical_crossentropy", "size": "mse"})
    return model


def by_name():
    x = keras.Input((6,))
    model = keras.Model(x, {"kind": L.Dense(3, "softmax", name="kind")(L.Dense(8, "relu")(x))})
    model.compile("sgd", {"kind": "sparse_categorical_crossentropy"})
    return model


def pair_of(y):
    return (X[:150], {n: a[:150] for n, a in y.items()}), (X[150:], {n: a[150:] for n, a in y.items()})


@keras.saving.register_keras_serializable(package="test_scoring")
def cost(y, z):
    """A crossentropy of logits that does not say so."""
    return keras.ops.sparse_categorical_crossentropy(y, z, from_logits=True)


REFUSALS = {
    "none": (perceptron, split(CLASS), {"samples": 0}, "samples must be a whole number of at least 1; got 0"),
    "half": (perceptron, split(CLASS), {"samples": 2.5}, "got 2.5"),
    "a flag": (perceptron, split(CLASS), {"samples": True}, "got True"),
    "two outputs": (two_outputs, pair_of({"kind": CLASS, "size": NUMBER}), {}, "one output; this one gives several"),
    "an output by name": (by_name, pair_of({"kind": CLASS}), {}, "one output; this one gives several"),
    "no probabilities": (lambda: perceptron(activation="softplus"), split(CLASS), {}, "the outputs are no probabilities"),
    "hidden logits": (
        lambda: perceptron(activation=None, loss=cost),
        split(CLASS),
        {},
        "the answers do not fit the model's outputs",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_sampled_is_refused_before_training(name, tmp_path):
    make, data, settings, words = REFUSALS[name]
    with pytest.raises(BadInput) as refused:
        plan_of(make(), data, tmp_path, ENGINES[-1] if JAX else "auto", **settings)
    what, fix = str(refused.value).splitlines()
    assert words in what
    assert fix
    assert list(tmp_path.iterdir()) == []


@only_jax
def test_the_command_gives_the_same_with_one_worker_and_with_two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def compare(workers):
        arguments = ["compare", "digits-mlp", "--variant", "hidden", "--seeds", "1", "--epochs", "1", "--samples", "3", "--json"]
        done = CliRunner().invoke(app, [*arguments, "--quiet", "--workers", workers, "--ledger", f"{workers}.db"])
        assert done.exit_code == 0, done.output
        document = json.loads(done.stdout)
        for variant in document["variants"]:
            for run in variant["runs"]:
                del run["seconds"]
        return document | {"timing": None}

    one = compare("1")
    assert compare("2") == one
    assert one["study"]["samples"] == 3
    rows = {(row["variant"], row["metric"]): row for row in one["monte_carlo"]}
    assert set(rows) == {("hidden", f"test_{name}") for name in ("nll", "accuracy", "brier", "ece")}
    runs = one["variants"][1]["runs"]
    pairs = [run["test_mc_nll"] - run["test_nll"] for run in runs]
    assert rows["hidden", "test_nll"]["difference"] == pytest.approx(np.mean(pairs))
    assert "test_mc_nll" in {row["metric"] for row in one["comparisons"]}
