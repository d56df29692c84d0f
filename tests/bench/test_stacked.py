"""Runs trained side by side are those that are trained one after the other, to rounding.

How close: products of a stack may be summed in another order. On the CPU where this was written curves and metrics differed by 1e-7
of their size at most, also between stacks of different sizes; 1e-5 is allowed, because other processors sum otherwise.
"""

import json

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_dropout import PatchDropout
from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.execution import engine_choice
from keras_dropout.bench.execution.machine import worker_environment
from keras_dropout.bench.execution.progress import Display
from keras_dropout.bench.execution.worker import Task, Worker
from keras_dropout.bench.records import Result, Run
from keras_dropout.bench.training import compiled, stacked
from keras_dropout.bench.training.messages import Checkpointed, Ended, Epoch, Paused
from keras_dropout.bench.training.trainer import Trainer
from keras_dropout.cli import app
from keras_dropout.errors import BadInput

L = keras.layers
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the stacked engine runs on JAX")
RATES = {"zero": {"hidden": 0.0}, "strong": {"hidden": 0.6}, "falling": {"hidden": "linear(0.6, 0.0)"}}
KINDS = RATES | {"noise": {"hidden": "GaussianDropout(0.3)"}}


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
    settings = {"epochs": 3, "batch_size": 32, "seeds": 2, "variants": RATES} | settings
    return make_plan(model, settings.pop("data", blobs()), engine=engine, ledger=tmp_path / "r.db", **settings)


def trainer_of(plan) -> Trainer:
    return Trainer(plan.study, plan.data.parts(plan.study.split), plan.data.divide_by)


def runs_of(plan) -> list[Run]:
    """The runs with dropout: the baseline would be one more program to compile."""
    return [run for run in plan.study.runs() if run.variant.name != "none"]


def ended(trainer, runs, *follow) -> dict[str, Result]:
    return {told.key: told.result for told in trainer.follow(runs, *follow) if isinstance(told, Ended)}


def results(plan, *follow) -> list[Result]:
    """The results of a plan's runs, in their order."""
    found = ended(trainer_of(plan), runs_of(plan), *follow)
    return [found[run.key] for run in runs_of(plan)]


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
    "kinds, rates and schedules": lambda: (perceptron(), {"variants": KINDS}),
    "batch normalisation, adam, averaged weights, class weights": lambda: (
        normalised(),
        {"variants": {"half": {"hidden": 0.5}}, "class_weight": {0: 1.0, 1: 3.0, 2: 1.0}},
    ),
    "early stopping": lambda: (
        perceptron(keras.optimizers.SGD(0.5)),
        {"variants": {"half": {"hidden": 0.5}}, "seeds": 4, "epochs": 12, "early_stopping": 2},
    ),
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
        same(ours, theirs, rtol=1e-5, atol=1e-6)
    if name == "early stopping":
        assert len({result.epochs for result in found}) > 1


def test_data_that_go_to_the_device_in_pieces(tmp_path, monkeypatch):
    plan = plan_of(perceptron(), tmp_path)
    whole = results(plan)
    monkeypatch.setattr(compiled, "ON_DEVICE", 1000)
    monkeypatch.setattr(stacked, "EVALUATION_BATCH", 20)
    for ours, theirs in zip(results(plan), whole, strict=True):
        same(ours, theirs, rtol=1e-5, atol=1e-6)


def test_neither_the_size_of_a_stack_nor_its_copies_matter(tmp_path, monkeypatch):
    plan = plan_of(perceptron(), tmp_path, seeds=5, variants=["hidden"])
    whole = results(plan)
    for size in (1, 4):  # of five runs; four give two stacks of three, the last filled up
        monkeypatch.setattr(stacked, "ON_CPU", size)
        for ours, theirs in zip(results(plan), whole, strict=True):
            same(ours, theirs, rtol=1e-5, atol=1e-6)


def test_who_else_is_in_a_stack_does_not_matter(tmp_path):
    """Not in the last bit: a smaller group takes the places of a larger one, filled with copies."""
    plan = plan_of(perceptron(), tmp_path)
    trainer, runs = trainer_of(plan), runs_of(plan)
    together, apart = ended(trainer, runs), ended(trainer, runs[-2:])
    assert len(apart) == 2
    for key, result in apart.items():
        same(result, together[key])
        assert result.compilations == 0


def test_rates_seeds_and_schedules_are_one_program(tmp_path):
    rates = {"a": 0.3, "b": 0.0, "c": "linear(0.5, 0.0)", "d": "step([0.0, 0.6], at=[0.5])"}
    plan = plan_of(perceptron(), tmp_path, variants={name: {"hidden": rate} for name, rate in rates.items()})
    found = results(plan)
    assert len({result.metrics["test_loss"] for result in found}) == 8
    # An epoch, and the predictions for three parts of different size.
    assert sorted(result.compilations for result in found) == [0] * 7 + [4]


def test_a_stack_goes_on_from_checkpoints(tmp_path):
    """Also of runs that have come differently far; one of them had ended."""
    variants = {"falling": RATES["falling"]}
    plan = plan_of(normalised(), tmp_path, variants=variants, seeds=3, epochs=9, early_stopping=3)
    trainer, runs, checkpoints, whole = trainer_of(plan), runs_of(plan), {}, {}
    for told in trainer.follow(runs, settings={"checkpoint_every": 1}):
        if isinstance(told, Ended):
            whole[told.key] = told.result
        elif isinstance(told, Checkpointed):
            checkpoints.setdefault(told.key, {})[told.epoch] = told.state
    epochs = {run.key: epoch for run, epoch in zip(runs, (1, 3, max(checkpoints[runs[2].key])))}
    told = list(trainer.follow(runs, {key: checkpoints[key][epoch] for key, epoch in epochs.items()}))
    for key, epoch in epochs.items():
        seen = [each.epoch for each in told if isinstance(each, Epoch) and each.key == key]
        assert seen == list(range(epoch + 1, whole[key].epochs + 1))
    resumed = {each.key: each.result for each in told if isinstance(each, Ended)}
    paused = {told.key: told for told in trainer.follow(runs, until=2) if isinstance(told, Paused)}
    assert {key: each.epoch for key, each in paused.items()} == dict.fromkeys(whole, 2)
    after = ended(trainer, runs, {key: each.state for key, each in paused.items()})
    for key, result in whole.items():
        same(resumed[key], result)
        same(after[key], result)


def test_a_run_that_diverges_leaves_the_others_alone(tmp_path):
    plan = plan_of(perceptron(), tmp_path)
    trainer, runs = trainer_of(plan), runs_of(plan)
    expected = ended(trainer, runs)
    begin = trainer._begin

    def with_a_nan(*given):
        training = begin(*given)
        training.restore(1, [np.full_like(value, np.nan) if value.ndim == 2 else value for value in training.snapshot(1)])
        return training

    trainer._begin = with_a_nan
    found = ended(trainer, runs)
    assert found.pop(runs[1].key).status == "diverged"
    for key, result in found.items():
        same(result, expected[key])


def test_a_stack_is_no_larger_than_memory(tmp_path, monkeypatch):
    plan = plan_of(perceptron(), tmp_path, variants=["hidden"], seeds=9)
    runs = runs_of(plan)
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


def test_a_group_that_cannot_be_trained_fails_alone(tmp_path, monkeypatch):
    plan = plan_of(perceptron(), tmp_path, variants=KINDS, seeds=1, epochs=1)

    def failing(self, runs, *rest):
        if runs[0].variant.name == "noise":
            raise ValueError("no")
        yield from (Ended(run.key, Result("done", 0.0, 1)) for run in runs)

    monkeypatch.setattr(Trainer, "follow", failing)
    worker = Worker.__new__(Worker)  # without a log, which would take the place of this process's output
    worker._given, worker._trainer = (plan.study, plan.data.parts("held-out"), 1.0), None
    worker._ended = Ended
    names = {run.key: run.variant.name for run in plan.study.runs()}
    found = {names[told.key]: told.result.status for told in worker.messages(Task(tuple(plan.study.runs())))}
    assert found == {"none": "done", "zero": "done", "strong": "done", "falling": "done", "noise": "failed"}


def test_the_display_has_a_bar_for_a_group(tmp_path):
    plan = plan_of(perceptron(), tmp_path)
    display, runs = Display(3, quiet=True, so_far=lambda *_: None), runs_of(plan)
    display.expect(6)
    (bar,) = display._bars.tasks
    for run in runs[:4]:
        display.started(0, run, 0)
    stack = display._bars.tasks[1]
    assert (stack.description, stack.total) == ("worker 1: 4 runs", 12)
    for run in runs[:4]:
        display.epoch(0, run, 1, {})
    assert stack.completed == bar.completed == 4
    for run in runs[:4]:
        display.ended(0, run, Result("diverged", 1.0, 1))
    assert bar.completed == 12
    display.started(0, runs[4], 0)
    assert (stack.description, stack.total) == (f"worker 1: {runs[4].variant.name}, seed {runs[4].seed}", 3)


def test_auto_is_stacked_where_there_is_an_accelerator(tmp_path, monkeypatch):
    for device, engine in ((None, "compiled"), ("a GPU", "stacked")):
        monkeypatch.setattr(engine_choice, "accelerator", lambda device=device: device)
        plan = make_plan("digits-mlp", ledger=tmp_path / "r.db")
        assert plan.study.engine == engine
        assert make_plan("digits-mlp", engine="compiled", ledger=tmp_path / "r.db").study.engine == "compiled"
    assert plan.workers == 1
    assert "a GPU" in plan.engine_reason
    assert plan_of(perceptron(), tmp_path, engine="auto").study.engine == "stacked"


def test_accelerators_stay_in_sight_of_the_stacked_engine_alone():
    hidden = {"CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS"}
    assert hidden <= set(worker_environment("jax", "compiled"))
    assert not hidden & set(worker_environment("jax", "stacked"))


def test_the_command_from_end_to_end(tmp_path):
    arguments = ["compare", "digits-mlp", "--engine", "stacked", "--seeds", "2", "--epochs", "2", "--json", "--quiet"]
    done = CliRunner().invoke(app, [*arguments, "--ledger", str(tmp_path / "r.db")])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["study"]["engine"] == "stacked"
    assert found["timing"]["workers"] == 1
    assert {run["status"] for variant in found["variants"] for run in variant["runs"]} == {"done"}
