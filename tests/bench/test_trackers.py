"""Runs in TensorBoard, MLflow and Weights & Biases, read back with those packages; a test whose package is missing is left out."""

import importlib.util
import json
import shlex
import sys

import numpy as np
import pytest
from made_up import made_up_execution

from keras_dropout import BadInput, cli
from keras_dropout.bench.compare import compare
from keras_dropout.bench.ledger.lookup import reading
from keras_dropout.bench.ledger.selection import Selection
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.ledger.trackers import export
from keras_dropout.bench.log_places import KINDS, check_place
from keras_dropout.bench.records import DataFacts, Result, Study, Variant

STUDY = Study(
    "model.py:build",
    DataFacts("d", "f", 9, 1, 2),
    {"class_name": "Sequential"},
    {"loss": "mse", "optimizer": {"class_name": "Adam", "config": {"learning_rate": 0.01}}},
    "held-out",
    "jax",
    "compiled",
    3,
    32,
    (0, 1),
    (
        Variant("none", {}),
        Variant("half", {"hidden": {"kind": "Dropout", "rate": 0.5}}),
        Variant.parse("falling=hidden=linear(0.5, 0.1), input=0.1"),
        Variant("as-built", None),
    ),
)
RUNS = {(run.variant.name, run.seed): run for run in STUDY.runs()}
CURVES = {"loss": [1 / 3, 0.25, 0.125], "validation_loss": [0.75, 0.5, 0.625]}
STOPPED = Result("done", 30.0, 3, {"test_loss": 0.5, "validation_loss": 0.5}, CURVES, np.array([0.5], "f4"), best_epoch=2)
FOUND = {
    ("none", 0): STOPPED,
    ("half", 1): Result("diverged", 10.0, 1, {}, {"loss": [9.0]}),
    ("falling", 0): STOPPED,
    ("as-built", 0): STOPPED,
    ("half", 0): Result("failed", 1.0, 0, error="ValueError: no"),  # may still be trained
}


def filled(path, found=FOUND, study=STUDY):
    with Ledger(path) as ledger:
        ledger.put_study(study, "keras-dropout compare model.py:build", {}, {}, {})
        runs = {(run.variant.name, run.seed): run for run in study.runs()}
        for name, result in found.items():
            ledger.put(study, runs[name], result, {}, {})
    return path


def exported(path, place, **filters):
    with reading(path) as connection:
        return export(connection, Selection(**filters), place)


PARAMETERS = {
    "none, seed 0": {"placement": "no dropout", "rate": 0.0},
    "half, seed 1": {"placement": "hidden=0.5", "rate of hidden": 0.5, "rate": 0.5, "variant": "half", "seed": 1.0},
    "falling, seed 0": {
        "placement": "hidden=linear(0.5, 0.1), input=0.1",
        "rate of hidden": "linear(0.5, 0.1)",
        "rate of input": 0.1,
    },
    "as-built, seed 0": {"placement": "as built"},
}
SHARED = {
    "target": "model.py:build",
    "epochs": 3.0,
    "batch_size": 32.0,
    "optimizer": "Adam",
    "learning_rate": 0.01,
    "backend": "jax",
}


def check_parameters(name, found, text=lambda value: value):
    shared = SHARED | ({"epochs": 1.0} if name == "half, seed 1" else {})
    for parameter, value in (shared | PARAMETERS[name]).items():
        assert text(found[parameter]) == text(value), (name, parameter)
    if "rate" not in PARAMETERS[name]:
        assert "rate" not in found


def of_tensorboard(folder):
    """Scalars by tag, the parameters, and how the run ended."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.plugins.hparams import metadata

    found = event_accumulator.EventAccumulator(str(folder))
    found.Reload()
    scalars = {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}

    def said(tag):
        return found.SummaryMetadata(tag).plugin_data.content

    start = metadata.parse_session_start_info_plugin_data(said("_hparams_/session_start_info"))
    end = metadata.parse_session_end_info_plugin_data(said("_hparams_/session_end_info"))
    hparams = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    return scalars, hparams, end.status, [each.wall_time for each in found.Scalars(next(iter(scalars)))]


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    ledger = filled(tmp_path / "r.db")
    place = f"tensorboard:{tmp_path / 'logs'}"
    assert exported(ledger, place, variant=["none"]) == (1, 0)
    assert exported(ledger, place) == (3, 1)
    assert exported(ledger, place) == (0, 4)
    (target,) = (tmp_path / "logs").iterdir()
    folders = {
        f"{folder.name.partition('_seed')[0]}, seed {folder.name.partition('seed_')[2][0]}": folder for folder in target.iterdir()
    }
    assert set(folders) == set(PARAMETERS)
    for name, folder in folders.items():
        assert [each.name.startswith("events.out.tfevents.") for each in folder.iterdir()] == [True]
        scalars, parameters, status, times = of_tensorboard(folder)
        check_parameters(name, parameters)
        if name == "half, seed 1":
            assert (scalars, status) == ({"epoch/loss": [(1, 9.0)]}, 2)  # STATUS_FAILURE
            continue
        assert scalars == {
            "epoch/loss": [(1, pytest.approx(1 / 3)), (2, 0.25), (3, 0.125)],
            "epoch/validation_loss": [(1, 0.75), (2, 0.5), (3, 0.625)],
            "test_loss": [(3, 0.5)],
            "validation_loss": [(3, 0.5)],  # that of the best epoch, which is no point of the curve
        }
        assert status == 1  # STATUS_SUCCESS
        assert np.diff(times) == pytest.approx([10.0, 10.0], abs=0.01)


def test_a_hostile_target_stays_in_the_folder(tmp_path):
    pytest.importorskip("tensorboard")
    import dataclasses

    study = dataclasses.replace(STUDY, target="../../../x\n/y")
    ledger = filled(tmp_path / "r.db", {("none", 0): STOPPED}, study)
    exported(ledger, f"tensorboard:{tmp_path / 'deep' / 'logs'}")
    assert {each.name for each in tmp_path.iterdir()} == {"deep", "r.db"}
    assert [each.name for each in (tmp_path / "deep").iterdir()] == ["logs"]


def test_mlflow(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    ledger = filled(tmp_path / "r.db")
    uri = f"sqlite:///{tmp_path / 'ml.db'}"
    assert exported(ledger, f"mlflow:{uri}") == (4, 0)
    assert exported(ledger, f"mlflow:{uri}") == (0, 4)
    client = mlflow.MlflowClient(uri)
    (experiment,) = [each for each in client.search_experiments() if each.name == STUDY.target]
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(found) == set(PARAMETERS)
    for name, run in found.items():
        check_parameters(name, run.data.params, lambda value: str(value).removesuffix(".0"))
        assert run.info.status == ("FAILED" if name == "half, seed 1" else "FINISHED")
    one = found["none, seed 0"]
    curve = client.get_metric_history(one.info.run_id, "epoch/validation_loss")
    assert [(each.step, each.value) for each in curve] == [(1, 0.75), (2, 0.5), (3, 0.625)]
    assert one.data.metrics["validation_loss"] == 0.5
    assert one.data.metrics["epoch/loss"] == 0.125
    assert one.info.end_time - one.info.start_time == pytest.approx(30_000, abs=2)


def test_a_long_curve_is_whole_in_mlflow(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    long = Result("done", 9.0, 1500, {"test_loss": 0.5}, {"loss": [1 / n for n in range(1, 1501)]}, np.array([0.5], "f4"))
    uri = f"sqlite:///{tmp_path / 'ml.db'}"
    exported(filled(tmp_path / "r.db", {("none", 0): long}), f"mlflow:{uri}")
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name(STUDY.target).experiment_id])
    assert [each.value for each in client.get_metric_history(run.info.run_id, "epoch/loss")] == [1 / n for n in range(1, 1501)]


def records_of(file, head=7, block=2**15):
    """The records of wandb's file: behind its head a LevelDB log, of pieces in blocks; the last of a record has type 1 or 4."""
    at, whole = head, b""
    while at + head <= len(file):
        if (left := block - at % block) < head:
            at += left
            continue
        length, kind = int.from_bytes(file[at + 4 : at + 6], "little"), file[at + 6]
        at += head + length
        whole += file[at - length : at]
        if kind in (1, 4):
            yield whole
            whole = b""


def test_wandb(tmp_path, monkeypatch):
    """Offline, as where there is no account: what would be sent is read from the file that is kept for it."""
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    assert exported(filled(tmp_path / "r.db"), "wandb:mine") == (4, 0)
    (path,) = tmp_path.glob(f"wandb/*{RUNS['none', 0].key}/*.wandb")
    history, config, summary, names = [], {}, {}, []
    for data in records_of(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            history.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item})
        if record.HasField("run"):
            names.append((record.run.project, record.run.display_name, record.run.run_group))
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        if record.HasField("summary"):
            summary |= {item.key: json.loads(item.value_json) for item in record.summary.update if item.key}
    assert names[-1] == ("mine", "none, seed 0", STUDY.target)
    assert [each["epoch/validation_loss"] for each in history] == CURVES["validation_loss"]
    assert [each["epoch"] for each in history] == [1, 2, 3]
    assert (summary["test_loss"], summary["validation_loss"]) == (0.5, 0.5)
    check_parameters("none, seed 0", config)


BAD = {
    "of no kind": "excel",
    "without a folder": "tensorboard",
    "nothing behind the colon": "mlflow:",
    "no text": 3,
}


@pytest.mark.parametrize("case", BAD)
def test_a_place_of_another_kind_is_refused(case):
    with pytest.raises(BadInput, match="runs are written to tensorboard:DIR, mlflow"):
        check_place(BAD[case])


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_that_is_missing_is_told_before_anything_is_trained(tmp_path, monkeypatch, kind):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == kind else find(name, *more))
    with pytest.raises(BadInput, match=rf"needs {KINDS[kind][1]}, which is not installed.\npip install {KINDS[kind][1]}"):
        compare("digits-mlp", log=f"{kind}:there", ledger=tmp_path / "r.db")
    assert not (tmp_path / "r.db").exists()


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["keras-dropout", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def tensorboard(monkeypatch):
    """A study of made-up figures, and TensorBoard."""
    pytest.importorskip("tensorboard")
    pytest.importorskip("sklearn")
    return made_up_execution(monkeypatch, lambda run: {"test_loss": 0.5 + run.seed})


STUDIED = ("compare", "digits-mlp", "--variant", "hidden", "--seeds", "2", "--epochs", "1", "--quiet")


def test_a_study_is_logged_as_its_runs_end_and_those_of_before_too(command, tensorboard, tmp_path):
    assert command(*STUDIED)[0] == 0
    assert not (tmp_path / "logs").exists()
    status, _, err = command(*STUDIED[:-2], "2", "--quiet", "--seeds", "3", "--log", "tensorboard:logs")
    assert status == 0, err
    assert len(tensorboard) == 10  # other epochs, so other runs
    status, _, err = command(*STUDIED, "--seeds", "3", "--log", "tensorboard:all")
    assert status == 0, err
    assert len(tensorboard) == 12
    for folder in ("logs", "all"):
        found = {each.name.partition("-")[0] for each in (tmp_path / folder / "digits-mlp").iterdir()}
        assert found == {f"{name}_seed_{seed}" for name in ("none", "hidden") for seed in range(3)}


def test_a_place_that_fails_costs_no_run_and_what_is_printed_then_works(command, tensorboard, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "digits-mlp").write_text("in the way")
    status, _, err = command(*STUDIED[:-1], "--log", "tensorboard:logs")
    assert status == 0, err
    assert err.count("tensorboard:logs takes no runs") == 1
    (tmp_path / "logs" / "digits-mlp").unlink()
    told = next(line for line in err.splitlines() if "takes no runs" in line).partition("afterwards: ")[2]
    status, out, _ = command(*shlex.split(told)[1:])
    assert (status, out) == (0, "tensorboard:logs: 4 run(s)\n")


def test_what_does_not_go_with_a_place_is_refused(command, tmp_path):
    pytest.importorskip("tensorboard")
    filled(tmp_path / "r.db")
    (tmp_path / "file").write_text("")
    for arguments, said in (
        (["tensorboard:logs", "--curves"], "--curves is for files"),
        (["tensorboard:logs", "--force"], "--force is for files"),
        (["tensorboard:file"], "file is a file; TensorBoard reads a folder"),
        (["tensorboard:logs", "--variant", "other"], "no such run is in the ledger"),
    ):
        status, _, err = command("runs", "export", *arguments, "--ledger", "r.db")
        assert status == 2
        assert said in err
    status, _, err = command("tune", "digits-mlp", "--sweep", "hidden=0:0.6:3", "--log", "tensorboard:logs")
    assert status == 2
    assert "log is for comparisons" in err
