"""A run's trained model, taken out as a file, is what was measured: in each engine and on each backend."""

import dataclasses
import json
import sqlite3
import warnings

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import keras_dropout
from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.data import arrays
from keras_dropout.bench.data.arrays import as_seen
from keras_dropout.bench.execution import scheduler
from keras_dropout.bench.ledger.lookup import kept, latest_study, models, peek
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.records import Result
from keras_dropout.bench.study import recipes
from keras_dropout.bench.study.planning import Plan
from keras_dropout.bench.training.messages import Ended, Paused
from keras_dropout.bench.training.trainer import Trainer
from keras_dropout.cli import app
from keras_dropout.layers.base import Stochastic
from keras_dropout.schedules import parse

L = keras.layers
JAX = keras.backend.backend() == "jax"
ENGINES = ("compiled", "reference", "stacked") if JAX else ("reference",)
starts_processes = pytest.mark.skipif(not JAX, reason="the command starts its own processes")
FALLING = "linear(0.5, 0.1)"


def blobs(*shape):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 203)
    x = generator.normal(size=(203, *shape)).astype("float32") + y.reshape(-1, *[1] * len(shape))
    return (x[:150], y[:150]), (x[150:], y[150:])


def classifier(*layers, optimizer="adam"):
    model = keras.Sequential([*layers, L.Dense(3, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def normalised(optimizer="adam"):
    return classifier(keras.Input((6,)), L.Dense(16), L.BatchNormalization(), L.ReLU(), optimizer=optimizer)


def averaging():
    return keras.optimizers.SGD(0.5, momentum=0.9, use_ema=True, ema_momentum=0.9)


CASES = {  # name: (model, placement, settings)
    "averaged weights": lambda: (normalised(averaging()), {"hidden": 0.4}, {"epochs": 2}),
    "as built": lambda: (classifier(keras.Input((6,)), L.Dense(16, "relu"), L.Dropout(0.3)), None, {"epochs": 2}),
    "around a layer": lambda: (
        classifier(keras.Input((7, 4)), L.LSTM(5)),
        {"hidden": "WeightDrop(0.3)"},
        {"data": blobs(7, 4), "epochs": 2},
    ),
    "stopped early": lambda: (normalised(averaging()), {"hidden": FALLING}, {"early_stopping": 2, "epochs": 20, "seeds": 2}),
}


def plan_of(case, engine, folder, **more) -> Plan:
    model, placement, options = CASES[case]()
    settings = {"batch_size": 32, "seeds": 1, "variants": {"a": placement}} | options | more
    data = settings.pop("data", None) or blobs(6)
    return make_plan(model, data, engine=engine, backend=keras.backend.backend(), ledger=folder / "r.db", **settings)


def trained(plan, **options) -> dict[str, Result]:
    """The results of the runs with the variant, as a worker gives them."""
    trainer = Trainer(plan.study, plan.data.parts(plan.study.split), plan.data.divide_by)
    runs = [run for run in plan.study.runs() if run.variant.name == "a"]
    return {told.key: told.result for told in trainer.follow(runs, **options) if isinstance(told, Ended)}


@pytest.fixture(scope="module", params=ENGINES)
def stopped(request, tmp_path_factory):
    """Two runs that stopped early, with batch normalisation, averaged weights and a schedule: the plan, and their results."""
    plan = plan_of("stopped early", request.param, tmp_path_factory.mktemp(request.param))
    return plan, trained(plan, settings={"keep_weights": True})


def opened(archive, tmp_path) -> keras.Model:
    path = tmp_path / "model.keras"
    path.write_bytes(archive)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # such as of an optimizer whose variables are not those of the file
        return keras.models.load_model(path, safe_mode=True)


def evaluated(model, part, divide_by=1.0) -> dict[str, float]:
    x = arrays.each(lambda x: as_seen(np.asarray(x), divide_by), part.x)
    return model.evaluate(x, part.y, batch_size=1000, verbose=0, return_dict=True)


def assert_measured(result, plan, tmp_path):
    model, parts = opened(result.model, tmp_path), plan.data.parts(plan.study.split)
    for name in ("test", "validation"):
        for metric, value in evaluated(model, parts[name]).items():
            assert result.metrics[f"{name}_{metric}"] == pytest.approx(value, rel=1e-5), (name, metric)


@pytest.mark.parametrize("case", [name for name in CASES if name != "stopped early"])
def test_the_archive_gives_what_was_measured(case, tmp_path):
    plan = plan_of(case, ENGINES[0], tmp_path)
    (result,) = trained(plan, settings={"keep_weights": True}).values()
    assert_measured(result, plan, tmp_path)


def test_the_archive_is_of_the_best_epoch_in_each_engine(stopped, tmp_path):
    plan, results = stopped
    for result in results.values():
        assert result.best_epoch < result.epochs  # or it would not show
        assert_measured(result, plan, tmp_path)
    assert len({result.model for result in results.values()}) == 2


def test_the_model_has_the_rate_of_the_best_epoch_and_masks_that_go_on(stopped, tmp_path):
    plan, results = stopped
    result = next(iter(results.values()))
    model = opened(result.model, tmp_path)
    (layer,) = [layer for layer in model.layers if isinstance(layer, Stochastic)]
    steps = -(-plan.study.data.train // plan.study.batch_size)
    last_step = (result.best_epoch - 1 + (steps - 1) / steps) / plan.study.epochs
    assert layer.rate == pytest.approx(float(parse(FALLING)(last_step)), rel=1e-6)
    assert keras.ops.convert_to_numpy(layer.state.stream).any()
    x, y = blobs(6)[1]
    samples = [keras.ops.convert_to_numpy(model(x, training=True)) for _ in range(2)]
    assert not np.array_equal(*samples)
    assert model.optimizer.use_ema  # as it was compiled
    assert "loss" in model.fit(x, y, verbose=0).history


def test_results_are_the_same_bytes_without_models(stopped):
    plan, results = stopped
    without = trained(plan)
    assert list(without) == list(results)
    for key, result in without.items():
        assert result.model is None
        assert dataclasses.replace(results[key], seconds=0) == dataclasses.replace(result, seconds=0)
        np.testing.assert_array_equal(results[key].test_losses, result.test_losses)


def test_a_resumed_run_has_the_same_model(tmp_path):
    plan = plan_of("averaged weights", ENGINES[0], tmp_path)
    whole = trained(plan, settings={"keep_weights": True})
    trainer = Trainer(plan.study, plan.data.parts(plan.study.split), plan.data.divide_by)
    runs = [run for run in plan.study.runs() if run.variant.name == "a"]
    states = {
        told.key: told.state for told in trainer.follow(runs, until=1, settings={"keep_weights": True}) if type(told) is Paused
    }
    assert len(states) == 1
    for key, result in trained(plan, checkpoints=states, settings={"keep_weights": True}).items():
        ours, theirs = (opened(each.model, tmp_path).get_weights() for each in (result, whole[key]))
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_optimizer_costs_no_room(tmp_path):
    model = classifier(keras.Input((6,)), L.Dense(300, "relu"), L.Dense(200, "relu"))
    plan = make_plan(
        model,
        blobs(6),
        variants={"a": {"hidden": 0.2}},
        engine="reference",
        backend=keras.backend.backend(),
        epochs=1,
        seeds=1,
        ledger=tmp_path / "r.db",
    )
    (result,) = trained(plan, settings={"keep_weights": True}).values()
    assert len(result.model) < 1.2 * 4 * model.count_params()  # with Adam's two slots it would be three times as much


def test_what_diverged_has_no_model_and_is_not_trained_again_for_one(tmp_path):
    plan = plan_of("averaged weights", "reference", tmp_path, optimizer="sgd", learning_rate=1e30, keep_weights=True)
    found = trained(plan, settings={"keep_weights": True})
    assert [(result.status, result.model) for result in found.values()] == [("diverged", None)]
    assert set(found).isdisjoint(run.key for run in plan.todo(found))


def test_runs_whose_models_are_wanted_and_not_kept_are_to_be_trained(tmp_path):
    plain = plan_of("averaged weights", "reference", tmp_path, seeds=2)
    wanting = plan_of("averaged weights", "reference", tmp_path, seeds=2, keep_weights=True)
    runs = plain.study.runs()
    keys = [run.key for run in runs]
    assert [run.key for run in wanting.study.runs()] == keys  # it is no part of a run's key
    done, failed = Result("done", 1.0, 1, {"test_loss": 1.0}), Result("failed", 1.0, 0, error="killed")
    known = dict(zip(keys, [done, done, failed]))  # and none of the fourth
    for plan, have, expected in (
        (plain, (), keys[2:]),
        (wanting, (), keys),
        (wanting, {keys[0]}, keys[1:]),
        (wanting, set(keys), keys[2:]),
    ):
        assert [run.key for run in plan.todo(known, have)] == expected
    with Ledger(wanting.ledger) as ledger:
        ledger.put(wanting.study, runs[0], dataclasses.replace(done, model=b"x"), {}, {})
        ledger.put(wanting.study, runs[1], done, {}, {})
    assert wanting.kept() == {keys[0]}
    assert [run.key for run in wanting.todo(wanting.known(), wanting.kept())] == keys[1:]


class Observer:
    def __init__(self):
        self.notes, self.results = [], []

    def started(self, *_):
        pass

    epoch = paused = started

    def ended(self, worker, run, result):
        self.results.append(result)

    def note(self, text):
        self.notes.append(text)


@starts_processes
def test_a_model_that_is_too_large_is_said_and_its_run_is_kept(tmp_path):
    model = classifier(keras.Input((6,)), L.Dense(300, "relu"), L.Dense(200, "relu"))
    settings = {"engine": "compiled", "epochs": 1, "seeds": 1, "workers": 1, "keep_weights": True, "ledger": tmp_path / "r.db"}
    plan = make_plan(model, blobs(6), variants={"a": {"last": 0.2}}, **settings)
    run, observer = plan.study.runs()[1], Observer()
    with Ledger(plan.ledger) as ledger:
        ledger._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
        (result,) = scheduler.execute(plan, [run], ledger, observer)
        assert ledger.kept([run.key]) == set()
        assert ledger.get([run.key]) == {run.key: dataclasses.replace(result, compilations=0)}
    assert (result.status, result.model, observer.results) == ("done", None, [result])
    (note,) = observer.notes
    assert note.startswith("a, seed 0: the trained model is not stored: the ledger ")
    assert note.endswith("r.db cannot be written: string or blob too big.")


@starts_processes
def test_the_command_on_real_data(tmp_path, monkeypatch):
    """Without models, then with them: what is trained again changes nothing, and an ensemble of the seeds costs nothing."""
    monkeypatch.chdir(tmp_path)

    def compare(*more):
        arguments = ("compare", "digits-mlp", "--variant", "hidden", "--seeds", "2", "--epochs", "4", "--workers", "1")
        arguments += ("--json", "--quiet", *more)
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def rows():
        with sqlite3.connect("keras-dropout.db") as connection:
            return connection.execute("SELECT * FROM runs JOIN details USING (key) ORDER BY key").fetchall()

    first, before = compare(), rows()
    planned = compare("--keep-weights", "--dry-run")
    assert [planned[name] for name in ("runs", "in_ledger", "to_train", "to_train_for_model")] == [4, 4, 4, 4]
    second = compare("--keep-weights")
    assert second.pop("timing")["model_epochs"] == 16
    del first["timing"]
    for document in (first, second):
        for variant in document["variants"]:
            for run in variant["runs"]:
                del run["seconds"]
    assert second == first
    assert rows() == before
    assert compare("--keep-weights")["timing"]["model_epochs"] == 0

    study = latest_study("keras-dropout.db", "digits-mlp")
    data = recipes.find("digits-mlp").data(None)
    assert study["config"]["data"] == data.facts("held-out").fingerprint
    assert all(run["model"] and run["status"] == "done" for run in study["runs"])
    keys = [run["key"] for run in study["runs"] if run["variant"] == "hidden"]
    assert kept("keras-dropout.db", keys) == set(keys)
    known, losses = peek("keras-dropout.db", keys), []
    for key, archive in models("keras-dropout.db", keys):
        model = opened(archive, tmp_path)
        found = evaluated(model, data.parts("held-out")["test"], data.divide_by)
        assert known[key].metrics["test_loss"] == pytest.approx(found["loss"], rel=1e-5)
        assert known[key].metrics["test_accuracy"] == pytest.approx(found["accuracy"], rel=1e-6)
        losses.append(found["loss"])
    assert len(set(losses)) == 2
    done = CliRunner().invoke(app, ["runs", "model", keys[1], "-o", "out.keras"])
    assert (done.exit_code, done.stdout) == (0, "out.keras\n")
    assert keras_dropout.sites(keras.models.load_model("out.keras"))[1].dropout
