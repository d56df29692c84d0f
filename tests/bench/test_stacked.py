"""Runs trained side by side are those that are trained one after the other, to rounding.

How close: the products of a stack are summed in another order, so that curves and metrics differ by some 1e-6 of their size; Adam
and normalisation make more of it.
"""

import json

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_dropout import PatchDropout
from keras_dropout.bench.planning import make_plan
from keras_dropout.bench.records import Result
from keras_dropout.bench.training import Trainer, compiled, stacked
from keras_dropout.cli import app
from keras_dropout.errors import BadInput

L = keras.layers
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the stacked engine runs on JAX")
KINDS = {
    "weak": {"hidden": 0.1},
    "strong": {"hidden": 0.6},
    "falling": {"hidden": "linear(0.6, 0.0)"},
    "input": {"input": 0.2},
    "noise": {"hidden": "GaussianDropout(0.3)"},
}


def blobs(shape=(6,)):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 203)
    x = generator.normal(size=(203, *shape)).astype("float32") + y.reshape(-1, *[1] * len(shape))
    return (x[:150], y[:150]), (x[150:], y[150:])


def classifier(*layers, shape=(6,), optimizer="sgd"):
    model = keras.Sequential([keras.Input(shape, name="rows"), *layers, L.Dense(3, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def perceptron(optimizer="sgd"):
    return classifier(L.Dense(16, "relu"), L.Dense(8, "relu"), optimizer=optimizer)


def plan_of(model, tmp_path, engine="stacked", **settings):
    settings = {"epochs": 3, "batch_size": 32, "seeds": 2, "variants": KINDS} | settings
    return make_plan(model, settings.pop("data", blobs()), engine=engine, ledger=tmp_path / "r.db", **settings)


def trainer_of(plan) -> Trainer:
    return Trainer(plan.study, plan.data.parts(plan.study.split), plan.data.divide_by)


def results(plan, *follow) -> list[Result]:
    """The results of a plan's runs, in their order."""
    runs = plan.study.runs()
    ended = {key: values[0] for kind, key, *values in trainer_of(plan).follow(runs, *follow) if kind == "ended"}
    return [ended[run.key] for run in runs]


def same(found: Result, expected: Result, rtol=0.0, atol=0.0) -> None:
    assert (found.status, found.epochs, found.best_epoch) == (expected.status, expected.epochs, expected.best_epoch)
    assert set(found.metrics) == set(expected.metrics)
    assert set(found.curves) == set(expected.curves)
    for name, value in expected.metrics.items():
        np.testing.assert_allclose(found.metrics[name], value, rtol, atol, err_msg=name)
    for name, values in expected.curves.items():
        np.testing.assert_allclose(found.curves[name], values, rtol, atol, err_msg=name)
    if expected.test_losses is not None:
        np.testing.assert_allclose(found.test_losses, expected.test_losses, 10 * rtol, rtol)


def normalised():
    optimizer = keras.optimizers.Adam(0.01, use_ema=True)
    return classifier(L.Dense(16), L.BatchNormalization(), L.ReLU(), optimizer=optimizer)


CASES = {
    "kinds, rates and schedules": lambda: (perceptron(), {}),
    "batch normalisation, adam, averaged weights": lambda: (normalised(), {"variants": {"half": {"hidden": 0.5}}}),
    "early stopping": lambda: (perceptron(keras.optimizers.SGD(0.5)), {"early_stopping": 2, "epochs": 12}),
    "class weights": lambda: (perceptron(), {"class_weight": {0: 1.0, 1: 3.0, 2: 1.0}, "variants": {"half": {"hidden": 0.5}}}),
    "recurrent": lambda: (
        classifier(L.LSTM(5), shape=(7, 4)),
        {"data": blobs((7, 4)), "variants": {"half": {"last": 0.5}}, "epochs": 2},
    ),
    "convolution": lambda: (
        classifier(L.Conv2D(4, 3, activation="relu"), L.Flatten(), shape=(6, 6, 1)),
        {"data": blobs((6, 6, 1)), "variants": {"space": {"hidden": "SpatialDropout2D(0.3)"}}, "epochs": 2},
    ),
    "a rate that decides a shape": lambda: (
        classifier(L.GlobalAveragePooling1D(), shape=(8, 6)),
        {"data": blobs((8, 6)), "variants": {f"r{n}": {"rows": PatchDropout(n, prefix=0)} for n in (0.25, 0.75)}},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_stack_is_its_runs_one_by_one(name, tmp_path):
    model, settings = CASES[name]()
    found, expected = (results(plan_of(model, tmp_path, engine, **settings)) for engine in ("stacked", "compiled"))
    for ours, theirs in zip(found, expected, strict=True):
        same(ours, theirs, rtol=2e-4 if "normalisation" in name else 2e-5, atol=1e-6)
    if name == "early stopping":
        assert len({result.epochs for result in found}) > 1


def test_data_that_go_to_the_device_in_pieces(tmp_path, monkeypatch):
    plan = plan_of(perceptron(), tmp_path)
    whole = results(plan)
    monkeypatch.setattr(compiled, "ON_DEVICE", 1000)
    monkeypatch.setattr(stacked, "EVALUATION_BATCH", 20)
    for ours, theirs in zip(results(plan), whole, strict=True):
        same(ours, theirs, rtol=2e-5, atol=1e-6)


def test_neither_the_size_of_a_stack_nor_its_copies_matter(tmp_path, monkeypatch):
    plan = plan_of(perceptron(), tmp_path, seeds=5, variants=["hidden"])
    whole = results(plan)
    for size in (1, 2, 4):  # of five runs a variant; the last of two and of four are filled up
        monkeypatch.setattr(stacked, "ON_CPU", size)
        for ours, theirs in zip(results(plan), whole, strict=True):
            same(ours, theirs, rtol=2e-5, atol=1e-6)


def test_who_else_is_in_a_stack_does_not_matter(tmp_path):
    """Not in the last bit: a smaller group takes the places of a larger one, filled with copies."""
    plan = plan_of(perceptron(), tmp_path, variants={name: KINDS[name] for name in ("weak", "strong", "falling")})
    trainer, runs = trainer_of(plan), [run for run in plan.study.runs() if run.variant.name != "none"]
    together = {key: values[0] for kind, key, *values in trainer.follow(runs) if kind == "ended"}
    apart = {key: values[0] for kind, key, *values in trainer.follow(runs[-2:]) if kind == "ended"}
    for key, result in apart.items():
        same(result, together[key])
        assert result.compilations == 0


def test_rates_seeds_and_schedules_are_one_program(tmp_path):
    rates = {"a": 0.3, "b": 0.0, "c": "linear(0.5, 0.0)", "d": "step([0.0, 0.6], at=[0.5])"}
    plan = plan_of(perceptron(), tmp_path, variants={name: {"hidden": rate} for name, rate in rates.items()})
    trainer = trainer_of(plan)
    runs = [run for run in plan.study.runs() if run.variant.name != "none"]
    found = [values[0] for kind, _, *values in trainer.follow(runs) if kind == "ended"]
    assert len({result.metrics["test_loss"] for result in found}) == len(runs) == 8
    # An epoch, and the predictions for three parts of different size.
    assert sorted(result.compilations for result in found) == [0] * 7 + [4]


@pytest.mark.parametrize("settings", [{}, {"early_stopping": 2, "epochs": 12}], ids=["epochs", "early stopping"])
def test_a_stack_goes_on_from_checkpoints(settings, tmp_path):
    """Also of runs that have come differently far."""
    plan = plan_of(normalised(), tmp_path, **{"variants": {"falling": KINDS["falling"]}, "epochs": 5} | settings)
    runs, checkpoints, whole = plan.study.runs(), {}, {}
    for kind, key, *values in trainer_of(plan).follow(runs, checkpoint_every=1):
        if kind == "ended":
            whole[key] = values[0]
        elif kind == "checkpoint":
            checkpoints.setdefault(key, {})[values[0]] = values[1]
    chosen = {run.key: checkpoints[run.key][epoch] for run, epoch in zip(runs, (1, 2, 3))}
    *told, _ = trainer_of(plan).follow(runs, chosen)
    assert {key: next(m[2] for m in told if m[1] == key) for key in chosen} == {run.key: 2 + n for n, run in enumerate(runs[:3])}
    resumed = {key: values[0] for kind, key, *values in trainer_of(plan).follow(runs, chosen) if kind == "ended"}
    for key, result in whole.items():
        same(resumed[key], result, rtol=1e-6)
    paused = {key: values for kind, key, *values in trainer_of(plan).follow(runs, until=2) if kind == "paused"}
    assert {key: values[0] for key, values in paused.items()} == dict.fromkeys(whole, 2)
    resumed = results(plan, {key: state for key, (_, state) in paused.items()})
    for run, result in zip(runs, resumed, strict=True):
        same(result, whole[run.key], rtol=1e-6)


def test_a_run_that_diverges_leaves_the_others_alone(tmp_path):
    model = perceptron(keras.optimizers.SGD(0.05))
    plan = plan_of(model, tmp_path, variants={"weak": KINDS["weak"], "noise": {"hidden": 0.999}}, seeds=3)
    trainer, runs = trainer_of(plan), [run for run in plan.study.runs() if run.variant.name != "none"]
    expected = {key: values[0] for kind, key, *values in trainer.follow(runs) if kind == "ended"}
    begin = trainer._begin

    def with_a_nan(*given):
        training = begin(*given)
        training.restore(1, [np.full_like(value, np.nan) if value.ndim == 2 else value for value in training.snapshot(1)])
        return training

    trainer._begin = with_a_nan
    found = {key: values[0] for kind, key, *values in trainer.follow(runs) if kind == "ended"}
    assert found.pop(runs[1].key).status == "diverged"
    for key, result in found.items():
        same(result, expected[key])


def test_a_stack_is_no_larger_than_memory(tmp_path, monkeypatch):
    plan = plan_of(perceptron(), tmp_path, variants=["hidden"], seeds=9)
    trainer, runs = trainer_of(plan), [run for run in plan.study.runs() if run.variant.name == "hidden"]
    for free, sizes in ((2**34, [9]), (1, [1] * 9)):
        monkeypatch.setattr(stacked, "free_memory", lambda free=free: free)
        trainer = trainer_of(plan)
        assert [len(stack) for stack, _ in trainer._stacks(runs)] == sizes
    monkeypatch.setattr(stacked, "free_memory", lambda: None)
    monkeypatch.setattr(stacked, "ON_CPU", 4)
    assert [(len(stack), size) for stack, size in trainer_of(plan)._stacks(runs)] == [(3, 3)] * 3


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_only_on_jax(backend, tmp_path):
    pytest.importorskip(backend)
    with pytest.raises(BadInput, match="the stacked engine runs on jax"):
        make_plan("digits-mlp", engine="stacked", backend=backend, ledger=tmp_path / "r.db")


def test_the_command_from_end_to_end(tmp_path):
    arguments = ["compare", "digits-mlp", "--engine", "stacked", "--seeds", "2", "--epochs", "2", "--json", "--quiet"]
    done = CliRunner().invoke(app, [*arguments, "--ledger", str(tmp_path / "r.db")])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["study"]["engine"] == "stacked"
    assert found["timing"]["workers"] == 1
    assert {run["status"] for variant in found["variants"] for run in variant["runs"]} == {"done"}
